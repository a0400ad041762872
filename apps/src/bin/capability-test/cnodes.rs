//! Objects in CNodes, CNodes in CNodes, and what goes with them.

use crate::bench::{Ground, OF_RAM, Outcome, Row, size};
use abi::capability::{FIRST_CNODE_SLOTS, MAX_CNODE_SLOTS};
use abi::layout::PAGE;
use alloc::format;
use rt::capability::{self, Address, Kind, ROOT_CNODE, Rights, SLOT_BYTES, TASK_CNODE};
use rt::memory;
use rt::system_call::Error;

/// Slots of the root CNode that these tests use: the runtime takes them from the other end.
const HERE: u64 = FIRST_CNODE_SLOTS - 2;
const THERE: u64 = FIRST_CNODE_SLOTS - 1;

/// What is in a CNode is used like anything else, as long as the CNode is in the root CNode.
pub fn cnodes(outcome: &mut Outcome) -> memory::Result {
    let ground = Ground::new(128 * PAGE)?;
    for slots in [2, 4, 64, 1024, MAX_CNODE_SLOTS] {
        let cnode = Address::new(1, HERE);
        ground.make_in(Kind::CNode, 0, slots * SLOT_BYTES, 1, cnode)?;
        let inside = |index| Address::new(HERE, index);
        outcome.expect_empty("a new CNode", (1..slots).map(inside));
        for index in [0, slots, slots + 1, 2 * slots] {
            if index < MAX_CNODE_SLOTS {
                let found = capability::identify(inside(index)).map(|_| ());
                let what = format!("slot {index} of {slots}");
                let expected = match (1..slots).contains(&index) {
                    true => Err(Error::EmptySlot),
                    false => Err(Error::NoSuchSlot),
                };
                outcome.expect(&what, &found, &expected);
            }
        }
        // At both ends.
        for index in [1, slots - 1] {
            let offset = 64 * PAGE;
            for kind in OF_RAM {
                ground.make_in(kind, offset, size(kind), 1, inside(index))?;
                let found = capability::identify(inside(index)).map(|found| found.kind);
                outcome.expect("an object in a CNode", &found, &Ok(kind));
                let moved = capability::move_to(inside(index), Address::new(1, THERE));
                outcome.expect("moved out", &moved, &Ok(()));
                outcome.expect_empty("moved out", [inside(index)]);
                let moved = capability::move_to(Address::new(1, THERE), inside(index));
                outcome.expect("moved in", &moved, &Ok(()));
                outcome.expect("deleted", &capability::delete(inside(index)), &Ok(()));
            }
        }
        // Named by two slots of the root CNode, it is one.
        capability::copy(cnode, Address::new(1, THERE))?;
        capability::copy(ground.ram, inside(1))?;
        let found = capability::identify(Address::new(THERE, 1));
        outcome.expect("by another way", &found, &capability::identify(ground.ram));
        capability::delete(Address::new(THERE, 1))?;
        outcome.expect_empty("by the first way", [inside(1)]);
        // Rights are not looked at on the way: who holds the root CNode holds all that is below.
        capability::delete(Address::new(1, THERE))?;
        capability::mint(cnode, Address::new(1, THERE), Rights::empty(), 0)?;
        let copied = capability::copy(ground.ram, Address::new(THERE, 1));
        outcome.expect("through what has no rights", &copied, &Ok(()));
        ground.clear()?;
        let found = capability::identify(inside(1)).map(|_| ());
        outcome.expect("no CNode", &found, &Err(Error::NoSuchSlot));
        outcome.expect_empty("its slots", [cnode, Address::new(1, THERE)]);
    }
    // Moved in the root CNode, it has another address, and what is in it as well.
    let (here, there) = (Address::new(1, HERE), Address::new(1, THERE));
    ground.make_in(Kind::CNode, 0, PAGE, 1, here)?;
    ground.make_in(Kind::Frame, PAGE, PAGE, 1, Address::new(HERE, 3))?;
    outcome.expect("a CNode's move", &capability::move_to(here, there), &Ok(()));
    let found = capability::identify(Address::new(THERE, 3)).map(|found| found.kind);
    outcome.expect("in a moved CNode", &found, &Ok(Kind::Frame));
    let found = capability::identify(Address::new(HERE, 3)).map(|_| ());
    outcome.expect("where it was", &found, &Err(Error::NoSuchSlot));
    // Nothing is made of the memory of the slot that it is put into.
    let watched = [ground.ram, Address::new(THERE, 3), Address::new(THERE, 4)];
    for (kind, bytes) in [
        (Kind::Ram, 128 * PAGE),
        (Kind::Frame, PAGE),
        (Kind::CNode, PAGE),
    ] {
        outcome.refuse("into itself", &watched, Error::Overlap, || {
            let what = Ground::what(kind, 0, bytes, 1);
            capability::retype(ground.ram, &what, Address::new(THERE, 4))
        });
    }
    ground.clear()?;
    // The own CNodes are in the root CNode like any other.
    let found = [ROOT_CNODE, TASK_CNODE].map(|slot| capability::identify(slot).map(|it| it.kind));
    outcome.expect("own CNodes", &found, &[Ok(Kind::CNode); 2]);
    ground.free()
}

/// CNodes that go, and with them what only they held.
pub fn cnodes_go(outcome: &mut Outcome) -> memory::Result {
    let ground = Ground::new(64 * PAGE)?;
    let row = Row::take(4)?;
    let (kept, probe) = (row.at(0), row.at(1));
    let here = Address::new(1, HERE);
    let there = Address::new(1, THERE);
    // A chain: each holds the next, and the frame behind it; the first two are in the root.
    for depth in 1..=8_u64 {
        let cnode = |number: u64| number * PAGE;
        let frame = |number: u64| (16 + number) * PAGE;
        // From the inside out, so that each is in the root CNode while it is filled.
        for number in (0..depth).rev() {
            ground.make_in(Kind::CNode, cnode(number), PAGE, 1, there)?;
            let own = Address::new(THERE, 9);
            ground.make_in(Kind::Frame, frame(number), PAGE, 1, own)?;
            if number == 0 {
                capability::copy(own, kept)?;
            }
            if number + 1 < depth {
                // The last capability to the inner one is inside from now on.
                capability::move_to(here, Address::new(THERE, 63))?;
            }
            capability::move_to(there, here)?;
        }
        let found = capability::identify(Address::new(HERE, 9)).map(|found| found.kind);
        outcome.expect("a frame in a chain", &found, &Ok(Kind::Frame));
        outcome.expect("the first of a chain", &capability::delete(here), &Ok(()));
        outcome.expect_empty("the first of a chain", [here]);
        let found = capability::identify(Address::new(HERE, 9)).map(|_| ());
        outcome.expect("behind it", &found, &Err(Error::NoSuchSlot));
        // What it held goes with it; what others hold as well, does not.
        for number in 0..depth {
            let made = ground.make_in(Kind::Ram, cnode(number), PAGE, 1, probe);
            outcome.expect("a CNode's place", &made, &Ok(()));
            capability::delete(probe)?;
            if number > 0 {
                let made = ground.make_in(Kind::Ram, frame(number), PAGE, 1, probe);
                outcome.expect("a frame's place", &made, &Ok(()));
                capability::delete(probe)?;
            }
        }
        outcome.refuse("what is kept", &[kept, probe], Error::Overlap, || {
            let place = Ground::what(Kind::Ram, frame(0), PAGE, 1);
            capability::retype(ground.ram, &place, probe)
        });
        capability::delete(kept)?;
    }

    // One that has a copy stays as it is.
    ground.make_in(Kind::CNode, 0, PAGE, 1, here)?;
    capability::copy(here, there)?;
    ground.make_in(Kind::Endpoint, PAGE, 64, 1, Address::new(HERE, 2))?;
    capability::delete(here)?;
    let found = capability::identify(Address::new(THERE, 2)).map(|found| found.kind);
    outcome.expect("in one of two", &found, &Ok(Kind::Endpoint));
    capability::delete(there)?;
    ground.clear()?;
    row.give()?;
    ground.free()
}

/// CNodes that only they themselves hold: nobody reaches them but who revokes from above.
pub fn islands(outcome: &mut Outcome) -> memory::Result {
    let ground = Ground::new(32 * PAGE)?;
    let row = Row::take(2)?;
    let (here, there) = (Address::new(1, HERE), Address::new(1, THERE));
    let mut watched = row.slots();
    watched.extend([here, there, ground.ram]);

    // One that is in itself, by its only capability.
    ground.make_in(Kind::CNode, 0, PAGE, 1, here)?;
    ground.make_in(Kind::Frame, PAGE, PAGE, 1, Address::new(HERE, 1))?;
    let moved = capability::move_to(here, Address::new(HERE, 2));
    outcome.expect("a CNode into itself", &moved, &Ok(()));
    outcome.expect_empty("moved into itself", [here]);
    for page in [0, 1] {
        outcome.refuse("an island's place", &watched, Error::Overlap, || {
            capability::retype(
                ground.ram,
                &Ground::what(Kind::Ram, page * PAGE, PAGE, 1),
                row.at(0),
            )
        });
    }
    outcome.expect("a revoke from above", &ground.clear(), &Ok(()));
    for page in [0, 1] {
        let made = ground.make_in(Kind::Ram, page * PAGE, PAGE, 1, row.at(0));
        outcome.expect("where an island was", &made, &Ok(()));
        capability::delete(row.at(0))?;
    }

    // Two that hold each other, and a copy in itself, which does not keep it.
    ground.make_in(Kind::CNode, 0, PAGE, 1, here)?;
    ground.make_in(Kind::CNode, PAGE, PAGE, 1, there)?;
    capability::copy(here, Address::new(HERE, 5))?;
    capability::copy(there, Address::new(HERE, 6))?;
    capability::copy(here, Address::new(THERE, 7))?;
    capability::delete(here)?;
    let found = capability::identify(Address::new(THERE, 7)).map(|found| found.kind);
    outcome.expect("held by the other", &found, &Ok(Kind::CNode));
    capability::delete(there)?;
    for page in [0, 1] {
        outcome.refuse("two islands", &watched, Error::Overlap, || {
            capability::retype(
                ground.ram,
                &Ground::what(Kind::Ram, page * PAGE, PAGE, 1),
                row.at(0),
            )
        });
    }
    outcome.expect("a revoke from above", &ground.clear(), &Ok(()));
    let made = ground.make_in(Kind::Ram, 0, 32 * PAGE, 1, row.at(0));
    outcome.expect("all of it", &made, &Ok(()));
    row.give()?;
    ground.free()
}
