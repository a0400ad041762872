//! What operations cost in instructions: each in a function of its own, for callgrind to
//! count, with a given number of capabilities present.
//!
//! ```text
//! cargo build --release --example costs
//! valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect='*::copy_and_delete' \
//!     target/release/examples/costs 100000
//! ```
//!
//! Each runs 1,000 times, the revoke of 1,000 descendants ten times: divide by that.

use capabilities::{Caller, Capability, Database, Finalise, Kind, Progress, Retype, Slot};
use capabilities::{SLOT_BYTES, SlotId, Slots};
use std::hint::black_box;

const PAGE: u64 = 4096;
const ORIGIN: u64 = 1 << 30;
const RAM_BASE: u64 = 1 << 40;

/// Memory as a direct map shows it: the distance between physical and virtual is constant.
struct DirectMap(u64);

impl DirectMap {
    fn new(slots: usize) -> Self {
        let memory = Vec::leak(vec![Slot::EMPTY; slots]);
        Self((memory.as_mut_ptr() as u64).wrapping_sub(ORIGIN))
    }
}

impl Slots for DirectMap {
    #[inline]
    fn slot(&self, id: SlotId) -> &Slot {
        // SAFETY: `main` names only slots that it allocated, and so does the database.
        unsafe { &*(self.0.wrapping_add(id.0) as *const Slot) }
    }

    #[inline]
    fn slot_mut(&mut self, id: SlotId) -> &mut Slot {
        // SAFETY: as above.
        unsafe { &mut *(self.0.wrapping_add(id.0) as *mut Slot) }
    }

    fn clear(&mut self, first: SlotId, count: u64) {
        for index in 0..count {
            *self.slot_mut(SlotId(first.0 + index * SLOT_BYTES)) = Slot::EMPTY;
        }
    }
}

/// Counts what went, as the least that a CPU driver would do.
struct Count(u64);

impl Finalise for Count {
    fn capability_gone(&mut self, _: SlotId, _: &Capability) {
        self.0 += 1;
    }
    fn object_gone(&mut self, _: &Capability) {
        self.0 += 1;
    }
    fn container_emptied(&mut self, _: &Capability) {}
    fn slot_of_monitor(&self) -> Option<SlotId> {
        None
    }
    fn moved_to_monitor(&mut self, _: SlotId, _: &Capability) {}
}

type Caps = Database<DirectMap>;

#[inline(never)]
fn copy_and_delete(database: &mut Caps, source: SlotId, scratch: SlotId, count: &mut Count) {
    database.copy(source, scratch).unwrap();
    database.delete(Caller::User, scratch, count).unwrap();
}

#[inline(never)]
fn mint_with_badge(database: &mut Caps, source: SlotId, scratch: SlotId) {
    let rights = capabilities::Rights::READ;
    database.mint(source, scratch, rights, 7).unwrap();
}

#[inline(never)]
fn retype_frame(database: &mut Caps, ram: SlotId, offset: u64, scratch: SlotId) {
    let frame = Retype {
        kind: Kind::Frame,
        offset,
        bytes: PAGE,
        count: 1,
    };
    database
        .retype(Caller::User, ram, black_box(&frame), scratch)
        .unwrap();
}

#[inline(never)]
fn retype_refused(database: &mut Caps, ram: SlotId, offset: u64, scratch: SlotId) {
    let frame = Retype {
        kind: Kind::Frame,
        offset,
        bytes: 2 * PAGE,
        count: 1,
    };
    database
        .retype(Caller::User, ram, black_box(&frame), scratch)
        .unwrap_err();
}

#[inline(never)]
fn delete_last(database: &mut Caps, slot: SlotId, count: &mut Count) {
    database.delete(Caller::User, slot, count).unwrap();
}

#[inline(never)]
fn object_at(database: &Caps, address: u64) {
    black_box(database.object_at(address)).unwrap();
}

#[inline(never)]
fn move_there_and_back(database: &mut Caps, source: SlotId, scratch: SlotId) {
    database.move_to(source, scratch).unwrap();
    database.move_to(scratch, source).unwrap();
}

#[inline(never)]
fn revoke_one(database: &mut Caps, slot: SlotId, count: &mut Count) {
    let progress = database.revoke_step(Caller::User, slot, 16, count);
    assert_eq!(progress, Ok(Progress::Done));
}

#[inline(never)]
fn revoke_thousand(database: &mut Caps, slot: SlotId, count: &mut Count) {
    while database.revoke_step(Caller::User, slot, 64, count) == Ok(Progress::More) {}
}

fn main() {
    let present: u64 = std::env::args()
        .nth(1)
        .map_or(1000, |word| word.parse().unwrap());
    let slot = |index: u64| SlotId(ORIGIN + index * SLOT_BYTES);
    let mut database = Database::new(DirectMap::new(present as usize + 4096), ORIGIN);
    let all = Capability::original(Kind::Ram, RAM_BASE, 1 << 39);
    database.insert(slot(1), &all).unwrap();
    let (ram, other_ram, scratch) = (slot(2), slot(3), slot(4));
    // Every second page, so that there is room between.
    let bytes = (present + 8) * 2 * PAGE;
    let what = |kind, offset, bytes| Retype {
        kind,
        offset,
        bytes,
        count: 1,
    };
    database
        .retype(Caller::User, slot(1), &what(Kind::Ram, 0, bytes), ram)
        .unwrap();
    let other = what(Kind::Ram, bytes, 4096 * PAGE);
    database
        .retype(Caller::User, slot(1), &other, other_ram)
        .unwrap();
    for index in 0..present {
        let frame = what(Kind::Frame, index * 2 * PAGE, PAGE);
        database
            .retype(Caller::User, ram, &frame, slot(100 + index))
            .unwrap();
    }
    let mut count = Count(0);
    let mut state = 1_u64;
    for _ in 0..1000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let index = (state >> 33) % (present - 1);
        let frame = slot(100 + index);
        copy_and_delete(&mut database, frame, scratch, &mut count);
        move_there_and_back(&mut database, frame, scratch);
        mint_with_badge(&mut database, frame, scratch);
        revoke_one(&mut database, frame, &mut count);
        let free = index * 2 * PAGE + PAGE;
        retype_frame(&mut database, ram, free, scratch);
        object_at(&database, RAM_BASE + free);
        delete_last(&mut database, scratch, &mut count);
        retype_refused(&mut database, ram, free, scratch);
    }
    for _ in 0..10 {
        for index in 0..1000 {
            let frame = what(Kind::Frame, index * PAGE, PAGE);
            let destination = slot(100 + present + index);
            database
                .retype(Caller::User, other_ram, &frame, destination)
                .unwrap();
        }
        revoke_thousand(&mut database, other_ram, &mut count);
    }
    println!("{} capabilities, {} gone", database.count(), count.0);
}
