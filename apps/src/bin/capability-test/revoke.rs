//! Revokes: by badge, of thousands, in steps.

use crate::bench::{Ground, Outcome, Row, ask, look, mint};
use crate::children::{Reviser, word};
use abi::layout::PAGE;
use abi::syscall;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use rt::capability::{
    self, Address, ENDPOINT_BYTES, FIRST_CNODE_SLOTS, Kind, OWN_SPACE, Result, Rights, slots,
};
use rt::system_call::Error;
use rt::{clock, memory};

/// Endpoints that one call makes: four pages of them.
const BATCH: u64 = 256;
const BATCH_PAGES: u64 = BATCH * ENDPOINT_BYTES / PAGE;
/// Calls that make them.
const BATCHES: u64 = 4;
/// Copies beside them.
const COPIES: u64 = 300;
/// Whatever a call takes away at most: if it were more, others would wait for long.
const MOST_AT_ONCE: u64 = 64;
/// Slots of a CNode that goes.
const SLOTS: u64 = 1024;
/// How often a timer must ring in the middle of a revoke.
const SERVED: u64 = 8;
/// Timers ring after so long, and up to as much later.
const SOON_NS: u64 = 20_000;

/// Lots of one object.
pub fn badges(outcome: &mut Outcome) -> memory::Result {
    let ground = Ground::new(4 * PAGE)?;
    let row = Row::take(20)?;
    let kind = Kind::Frame;
    let make = || ground.make_in(kind, 0, 2 * PAGE, 1, row.at(0));
    let badge_of = |number: u64| match number {
        0 | 1 | 18 | 19 => 0,
        number => number % 4 + 1,
    };
    // Lots 1 to 4, four capabilities to each; two and a part without a badge.
    let plant = || -> Result {
        make()?;
        capability::copy(row.at(0), row.at(1))?;
        for number in 2..18 {
            let badge = badge_of(number);
            let first = row.slots()[2..number as usize]
                .iter()
                .copied()
                .find(|slot| capability::identify(*slot).is_ok_and(|found| found.badge == badge));
            match first {
                Some(first) if number % 3 == 0 => capability::copy(first, row.at(number))?,
                _ => capability::mint(row.at(number % 2), row.at(number), Rights::all(), badge)?,
            }
        }
        capability::retype(row.at(1), &Ground::what(kind, 0, PAGE, 1), row.at(18))?;
        capability::copy(row.at(18), row.at(19))
    };
    for revoker in 0..20 {
        plant()?;
        let before = look(&row.slots());
        outcome.expect("a revoke", &capability::revoke(row.at(revoker)), &Ok(()));
        let after = look(&row.slots());
        for number in 0..20 {
            let goes = number != revoker
                && match revoker {
                    // All to the object, and what was made of it.
                    0 | 1 => true,
                    // All to the part.
                    18 | 19 => number >= 18,
                    // Its lot.
                    _ => badge_of(number) == badge_of(revoker),
                };
            let expected = match goes {
                true => Err(Error::EmptySlot),
                false => before[number as usize],
            };
            let what = alloc::format!("{number} after a revoke of {revoker}");
            outcome.expect(&what, &after[number as usize], &expected);
        }
        row.clear()?;
    }
    // Of a lot that has no other, nothing goes; nor by who may not.
    plant()?;
    capability::delete(row.at(2))?;
    capability::mint(row.at(0), row.at(2), Rights::all(), 9)?;
    let before = look(&row.slots());
    outcome.expect("alone in its lot", &capability::revoke(row.at(2)), &Ok(()));
    outcome.expect("nothing went", &(look(&row.slots()) == before), &true);
    capability::delete(row.at(2))?;
    mint(row.at(0), row.at(2), Rights::all() - Rights::REVOKE)?;
    for slot in [row.at(2), ground.given] {
        let mut watched = row.slots();
        watched.push(ground.ram);
        outcome.refuse("no right to revoke", &watched, Error::NotRevocable, || {
            capability::revoke(slot)
        });
    }
    row.give()?;
    ground.free()
}

/// One step of a revoke: whether more is left to do.
fn step(slot: Address) -> Result<bool> {
    ask(syscall::REVOKE, [slot.0, 0, 0, 0, 0, 0]).map(|results| results[0] == 1)
}

/// More than a thousand capabilities below one.
pub struct Tree {
    ground: Ground,
    /// The root of the tree.
    pub root: Address,
    row: Row,
}

impl Tree {
    /// Memory and slots for one.
    pub fn new() -> memory::Result<Self> {
        Ok(Self {
            ground: Ground::new(2 * BATCHES * BATCH_PAGES * PAGE)?,
            root: slots::take()?,
            row: Row::take(BATCHES * (BATCH + 1) + COPIES + 1)?,
        })
    }

    /// How many it has.
    pub fn count(&self) -> u64 {
        self.row.slots().len() as u64
    }

    /// Lets it grow: RAM of RAM, endpoints of that, and copies of some.
    pub fn grow(&self) -> Result {
        let ground = &self.ground;
        let bytes = BATCHES * BATCH_PAGES * PAGE;
        ground.make_in(Kind::Ram, 0, bytes, 1, self.root)?;
        let mut next = 0;
        for batch in 0..BATCHES {
            let piece = self.row.at(next);
            let bytes = BATCH_PAGES * PAGE;
            let what = Ground::what(Kind::Ram, batch * bytes, bytes, 1);
            capability::retype(self.root, &what, piece)?;
            let what = Ground::what(Kind::Endpoint, 0, ENDPOINT_BYTES, BATCH);
            capability::retype(piece, &what, self.row.at(next + 1))?;
            next += BATCH + 1;
        }
        for copy in 0..COPIES {
            capability::copy(self.row.at(copy * 3), self.row.at(next + copy))?;
        }
        capability::copy(self.root, self.row.at(next + COPIES))
    }

    /// Those that are there still.
    fn left(&self, among: &[Address]) -> Vec<Address> {
        let is_there = |slot: &&Address| capability::identify(**slot).is_ok();
        among.iter().filter(is_there).copied().collect()
    }

    /// Gives all back.
    pub fn fell(self) -> memory::Result {
        capability::delete(self.root)?;
        slots::give(self.root);
        self.row.give()?;
        self.ground.free()
    }
}

/// Each call takes some away, and not too many.
pub fn steps(outcome: &mut Outcome) -> memory::Result {
    let tree = Tree::new()?;
    let spare = slots::take()?;
    let all = tree.row.slots();
    // The second time, others go on making and moving what is being revoked.
    for disturbed in [false, true] {
        tree.grow()?;
        let mut left = tree.left(&all);
        outcome.expect("all of a tree", &(left.len() as u64), &tree.count());
        outcome.expect("more than a thousand", &(left.len() > 1000), &true);
        let mut calls = 0;
        loop {
            let more = step(tree.root)?;
            calls += 1;
            let now = tree.left(&left);
            let gone = (left.len() - now.len()) as u64;
            let is_bounded = gone <= MOST_AT_ONCE && (gone > 0 || !more);
            let what = alloc::format!("call {calls} takes {gone} away: a few");
            outcome.expect(&what, &is_bounded, &true);
            outcome.expect("more is left", &more, &!now.is_empty());
            left = now;
            if !more || calls > tree.count() + 1 {
                break;
            }
            if disturbed && let Some(slot) = left.last().copied() {
                // Out of its place, and into that of one which has gone.
                let place = all.iter().copied().find(|slot| !left.contains(slot));
                let place = place.unwrap_or(spare);
                capability::move_to(slot, place)?;
                capability::copy(place, slot)?;
                left.push(place);
            }
        }
        outcome.expect(
            "in several calls",
            &(calls >= tree.count() / MOST_AT_ONCE),
            &true,
        );
        outcome.expect_empty("after a revoke", all.iter().copied());
        let kind = capability::identify(tree.root).map(|found| found.kind);
        outcome.expect("who revoked", &kind, &Ok(Kind::Ram));
        outcome.expect("once more", &step(tree.root), &Ok(false));
        capability::delete(tree.root)?;
    }

    // Slots that go count as well: those of a CNode, full or empty.
    let ground = &tree.ground;
    let cnode = Address::new(1, FIRST_CNODE_SLOTS - 1);
    let bytes = SLOTS * capability::SLOT_BYTES;
    for is_full in [true, false] {
        ground.make_in(Kind::CNode, 0, bytes, 1, cnode)?;
        for index in (1..SLOTS).filter(|_| is_full) {
            capability::copy(OWN_SPACE, Address::new(FIRST_CNODE_SLOTS - 1, index))?;
        }
        let mut calls = 1;
        while step(ground.ram)? {
            calls += 1;
        }
        let least = SLOTS / MOST_AT_ONCE;
        outcome.expect("several calls for a CNode", &(calls >= least), &true);
        outcome.expect_empty("a CNode", [cnode]);
        // Deleted, it goes by and by: its memory is in use at first.
        ground.make_in(Kind::CNode, 0, bytes, 1, cnode)?;
        capability::delete(cnode)?;
        outcome.refuse(
            "memory of a CNode",
            &[ground.ram, cnode],
            Error::Overlap,
            || capability::retype(ground.ram, &Ground::what(Kind::Frame, 0, PAGE, 1), cnode),
        );
        let made = ground.make_in(Kind::Frame, 0, PAGE, 1, cnode);
        outcome.expect("later", &made, &Ok(()));
        capability::delete(cnode)?;
    }
    ground.make_in(Kind::Ram, 0, PAGE, 1, tree.root)?;
    slots::give(spare);
    tree.fell()
}

/// Who revokes is in what goes.
pub fn of_itself(outcome: &mut Outcome) -> memory::Result {
    let ground = Ground::new(8 * PAGE)?;
    let row = Row::take(8)?;
    let here = FIRST_CNODE_SLOTS - 1;
    for at in [1, 32, 63] {
        ground.make_in(Kind::CNode, 0, PAGE, 1, Address::new(1, here))?;
        for number in 0..8 {
            let offset = (1 + number % 7) * PAGE + number * ENDPOINT_BYTES;
            ground.make_in(Kind::Endpoint, offset, ENDPOINT_BYTES, 1, row.at(number))?;
        }
        // To the RAM that the CNode is made of.
        capability::copy(ground.ram, Address::new(here, at))?;
        let mut calls = 0;
        let end = loop {
            calls += 1;
            match step(Address::new(here, at)) {
                Ok(true) if calls < 100 => {}
                end => break end,
            }
        };
        // It ends with its capability, and later calls find none.
        let is_end = matches!(end, Ok(false) | Err(Error::NoSuchSlot));
        outcome.expect("a revoke that takes itself away", &is_end, &true);
        let found = capability::identify(Address::new(here, at)).map(|_| ());
        outcome.expect("its CNode", &found, &Err(Error::NoSuchSlot));
        // It was to the same object, so that this one has gone, too.
        outcome.expect_empty("the one it was copied from", [ground.ram]);
        // What is left can be revoked from above. That is who gave it: so it is made anew.
        row.clear()?;
        let whole = capability::identify(ground.given)?.bytes;
        let made = crate::bench::comes_true(|| {
            let what = Ground::what(Kind::Ram, 0, whole, 1);
            capability::retype(ground.given, &what, ground.ram).is_ok()
        });
        outcome.expect("all of it anew", &made, &true);
    }
    row.give()?;
    ground.free()
}

/// A dispatcher revokes trees while the timer of another, this one, goes on.
pub fn timers(outcome: &mut Outcome) -> memory::Result {
    let reviser = Reviser::start()?;
    let words = reviser.words();
    let (mut served, mut rung) = (0, 0_u64);
    let mut status = None;
    while served < SERVED && status.is_none() {
        // At any place of the work.
        let later = rung.wrapping_mul(0x9e37_79b9_7f4a_7c15) % SOON_NS;
        clock::sleep_ns(SOON_NS + later);
        rung += 1;
        // Calls made of a revoke that has not ended: it is in the middle of it.
        served += u64::from(words[word::CALLS].load(Relaxed) > 0);
        if rung.is_multiple_of(256) {
            status = reviser.status()?;
        }
    }
    words[word::STOP].store(1, Relaxed);
    outcome.expect("timers served in the middle of revokes", &served, &SERVED);
    let status = match status {
        Some(status) => status,
        None => reviser.wait()?,
    };
    outcome.expect("who revoked", &status, &0);
    outcome.expect("revokes", &(words[word::REVOKES].load(Relaxed) > 0), &true);
    reviser.forget()
}
