//! What is in memory when it is visible again: nothing of what it was before.

use crate::bench::{Ground, OF_RAM, Outcome, Row, discard, size};
use abi::capability::{FIRST_CNODE_SLOTS, SLOT_BYTES};
use abi::layout::{PAGE, USER_END};
use abi::syscall::{DISPATCHER_BYTES, REGISTERS};
use alloc::format;
use core::sync::atomic::Ordering::Relaxed;
use rt::capability::{self, Address, ENDPOINT_BYTES, Kind, Rights, slots};
use rt::dispatcher::{self, Life, Property};
use rt::lrpc;
use rt::memory::Result;
use rt::space::{self, MapError, Mapping, PageSize, rights};
use rt::system_call::Error;

/// What is written: in every word, and nothing that anybody else writes.
const PATTERN: u64 = 0xa5c3_5a3c_a5c3_5a3c;
/// Pages that are something else each time.
const PAGES: u64 = 4;
/// Where in a new address space something is mapped.
const ADDRESS: u64 = 0x1200_0000_0000;
/// The root CNode's last slot: for CNodes to look into.
const LAST: u64 = FIRST_CNODE_SLOTS - 1;

/// Maps a frame of this program's that nothing else refers to, by a copy.
fn mapped<T>(frame: Address, with: u64, use_it: impl FnOnce(&Mapping) -> T) -> Result<T> {
    let copy = slots::take()?;
    capability::copy(frame, copy)?;
    // SAFETY: memory of a ground, which is looked at as atomic words only.
    let mapping = unsafe { Mapping::of(copy, PageSize::Small, with)? };
    let result = use_it(&mapping);
    drop(mapping);
    discard(copy)?;
    Ok(result)
}

/// Writes to all of a frame.
pub fn fill(frame: Address) -> Result {
    mapped(frame, rights::WRITE, |mapping| {
        for word in mapping.words() {
            word.store(PATTERN, Relaxed);
        }
    })
}

/// Whether there is nothing in a frame.
pub fn is_zero(frame: Address) -> Result<bool> {
    mapped(frame, rights::READ, |mapping| {
        mapping.words().iter().all(|word| word.load(Relaxed) == 0)
    })
}

/// Makes something of the first pages, uses it, and deletes it.
type Former = fn(&Ground, &Row) -> Result;

const FORMER: [(&str, Former); 8] = [
    ("a frame", frame),
    ("frames of a page", frames),
    ("a part of a frame", part),
    ("page tables", tables),
    ("a CNode", cnode),
    ("small CNodes", small_cnodes),
    ("a dispatcher", dispatcher),
    ("endpoints", endpoints),
];

fn frame(ground: &Ground, row: &Row) -> Result {
    ground.make_in(Kind::Frame, 0, PAGES * PAGE, 1, row.at(0))?;
    fill(row.at(0))
}

fn frames(ground: &Ground, row: &Row) -> Result {
    ground.make_in(Kind::Frame, 0, PAGE, PAGES, row.at(0))?;
    (0..PAGES).try_for_each(|number| fill(row.at(number)))
}

fn part(ground: &Ground, row: &Row) -> Result {
    ground.make_in(Kind::Ram, 0, PAGES * PAGE, 1, row.at(0))?;
    let whole = Ground::what(Kind::Frame, 0, PAGES * PAGE, 1);
    capability::retype(row.at(0), &whole, row.at(1))?;
    capability::retype(row.at(1), &whole, row.at(2))?;
    // Those above go first.
    capability::delete(row.at(0))?;
    capability::delete(row.at(1))?;
    fill(row.at(2))
}

fn tables(ground: &Ground, row: &Row) -> Result {
    let kinds = [
        Kind::PageTable4,
        Kind::PageTable3,
        Kind::PageTable2,
        Kind::PageTable1,
    ];
    for (kind, number) in kinds.into_iter().zip(0..) {
        ground.make_in(kind, number * PAGE, PAGE, 1, row.at(number))?;
        if number > 0 {
            // SAFETY: an address space of its own.
            unsafe { space::map_table(row.at(0), ADDRESS, row.at(number)) }.map_err(Error::from)?;
        }
    }
    ground.make_in(Kind::Frame, 8 * PAGE, 8 * PAGE, 1, row.at(4))?;
    // SAFETY: as above.
    unsafe { space::map(row.at(0), ADDRESS, row.at(4), 0, 8, rights::WRITE) }
        .map_err(Error::from)?;
    Ok(())
}

fn cnode(ground: &Ground, row: &Row) -> Result {
    let own = Address::new(1, LAST);
    ground.make_in(Kind::CNode, 0, PAGES * PAGE, 1, own)?;
    for index in 1..PAGES * PAGE / SLOT_BYTES {
        capability::mint(
            ground.ram,
            Address::new(LAST, index),
            Rights::all(),
            PATTERN,
        )?;
    }
    Ok(capability::move_to(own, row.at(0))?)
}

fn small_cnodes(ground: &Ground, row: &Row) -> Result {
    let own = Address::new(1, LAST);
    for number in 0..8 {
        ground.make_in(Kind::CNode, number * 2048, 2048, 1, own)?;
        for index in 1..2048 / SLOT_BYTES {
            capability::copy(ground.ram, Address::new(LAST, index))?;
        }
        capability::move_to(own, row.at(number))?;
    }
    Ok(())
}

fn dispatcher(ground: &Ground, row: &Row) -> Result {
    ground.make_in(Kind::Dispatcher, 0, DISPATCHER_BYTES, 1, row.at(0))?;
    for (register, name) in REGISTERS.iter().enumerate() {
        let value = match *name {
            "rip" => ADDRESS,
            _ => PATTERN,
        };
        dispatcher::write_register(row.at(0), register, value)?;
    }
    let root = capability::ROOT_CNODE;
    dispatcher::configure(row.at(0), Property::CSpace(root))?;
    Ok(dispatcher::configure(
        row.at(0),
        Property::Name("soiled soiled so"),
    )?)
}

fn endpoints(ground: &Ground, row: &Row) -> Result {
    for number in 0..8 {
        let offset = number * (PAGES * PAGE / 8);
        ground.make_in(Kind::Endpoint, offset, ENDPOINT_BYTES, 1, row.at(number))?;
        // From now on this dispatcher is the one that receives there.
        while lrpc::receive(row.at(number), Some(1)) != Err(Error::TimedOut) {}
    }
    Ok(())
}

/// Everything after everything.
pub fn contents(outcome: &mut Outcome) -> Result {
    let ground = Ground::new(80 * PAGE)?;
    let row = Row::take(16)?;
    for (before, soil) in FORMER {
        for after in OF_RAM {
            for deleted in [true, false] {
                soil(&ground, &row)?;
                match deleted {
                    true => row.clear()?,
                    false => ground.clear()?,
                }
                let bytes = match after {
                    Kind::Frame | Kind::Ram => PAGES * PAGE,
                    kind => size(kind),
                };
                let count = (PAGES * PAGE / bytes).min(4);
                ground.make_in(after, 0, bytes, count, row.at(0))?;
                let what = format!("{after:?} where {before} was");
                for number in 0..count {
                    inspect(outcome, &what, after, row.at(number))?;
                }
                row.clear()?;
                ground.clear()?;
            }
        }
        // Frames that are zeroed by many calls, and of which that is only a part.
        soil(&ground, &row)?;
        row.clear()?;
        ground.make_in(Kind::Frame, 0, 72 * PAGE, 1, row.at(0))?;
        outcome.expect(
            &format!("a large frame where {before} was"),
            &is_zero(row.at(0))?,
            &true,
        );
        row.clear()?;
        ground.clear()?;
    }
    row.give()?;
    ground.free()
}

/// Checks that there is nothing in an object.
fn inspect(outcome: &mut Outcome, what: &str, kind: Kind, slot: Address) -> Result {
    match kind {
        Kind::Frame => outcome.expect(what, &is_zero(slot)?, &true),
        Kind::Ram => {
            let frame = slots::take()?;
            let bytes = capability::identify(slot)?.bytes;
            capability::retype(slot, &Ground::what(Kind::Frame, 0, bytes, 1), frame)?;
            outcome.expect(what, &is_zero(frame)?, &true);
            discard(frame)?;
        }
        Kind::PageTable4 => {
            let step = 1 << 39;
            for address in (step..USER_END).step_by(step as usize) {
                let found = space::translate(slot, address).map(|_| ());
                outcome.expect(what, &found, &Err(Error::NeedTable));
            }
        }
        Kind::PageTable1 | Kind::PageTable2 | Kind::PageTable3 => {
            empty_table(outcome, what, kind, slot)?;
        }
        Kind::CNode => {
            let found = capability::identify(slot)?;
            capability::copy(slot, Address::new(1, LAST))?;
            let all = (1..found.bytes / SLOT_BYTES).map(|index| Address::new(LAST, index));
            outcome.expect_empty(what, all);
            capability::delete(Address::new(1, LAST))?;
        }
        Kind::Dispatcher => {
            let registers = dispatcher::registers(slot)?;
            for (name, value) in REGISTERS.iter().zip(registers) {
                // Interrupts are always on, and a bit that is always set.
                let expected = if *name == "rflags" { 0x202 } else { 0 };
                outcome.expect(&format!("{what}: {name}"), &value, &expected);
            }
            outcome.expect(what, &dispatcher::state(slot), &Ok(Life::Stopped));
            let started = dispatcher::start(slot);
            outcome.expect(what, &started, &Err(Error::NotReady));
        }
        _ => {
            // Nobody's, and nobody has called.
            let received = loop {
                match lrpc::receive(slot, Some(1)) {
                    Err(Error::Interrupted) => {}
                    received => break received,
                }
            };
            outcome.expect(what, &received, &Err(Error::TimedOut));
        }
    }
    Ok(())
}

/// Enters a table into an address space of its own, and looks through it.
fn empty_table(outcome: &mut Outcome, what: &str, kind: Kind, slot: Address) -> Result {
    let ground = Ground::new(4 * PAGE)?;
    let root = ground.make(Kind::PageTable4, 0, PAGE)?;
    let (level, step) = match kind {
        Kind::PageTable1 => (1, PAGE),
        Kind::PageTable2 => (2, PAGE << 9),
        _ => (3, PAGE << 18),
    };
    let enter = |table| {
        // SAFETY: an address space of its own.
        unsafe { space::map_table(root, ADDRESS, table) }
    };
    let mut above = alloc::vec![root];
    for (upper, of) in [(3, Kind::PageTable3), (2, Kind::PageTable2)] {
        if upper > level {
            let table = ground.make(of, upper * PAGE, PAGE)?;
            outcome.expect(what, &enter(table), &Ok(()));
            above.push(table);
        }
    }
    outcome.expect(what, &enter(slot), &Ok::<(), MapError>(()));
    let nothing = match level {
        1 => Error::NotMapped,
        _ => Error::NeedTable,
    };
    for number in 0..512 {
        let found = space::translate(root, ADDRESS + number * step).map(|_| ());
        outcome.expect(what, &found, &Err(nothing));
    }
    for table in above {
        discard(table)?;
    }
    ground.free()
}
