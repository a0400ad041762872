//! What becomes of what, in which sizes, how many at once, and where.

use crate::bench::{Ground, OF_RAM, Outcome, Row, ask, discard, look, size};
use abi::capability::{MAX_CNODE_SLOTS, Resource};
use abi::layout::PAGE;
use abi::limits::MAX_DISPATCHERS;
use abi::syscall::{self, CLEAN_BYTES, DISPATCHER_BYTES};
use alloc::format;
use alloc::vec::Vec;
use rt::capability::{
    self, Address, ENDPOINT_BYTES, Kind, OWN_DOORBELL, Result, Rights, SLOT_BYTES, slots,
};
use rt::memory;
use rt::system_call::Error;

/// Most objects that one call makes.
const MOST: u64 = 256;
/// How often objects can be made of all of another.
const DEPTHS: u64 = 255;

/// Kinds that a program has something of, and what may be made of them.
const BECOMES: [(Kind, &[Kind]); 10] = [
    (Kind::Ram, &OF_RAM),
    (Kind::Frame, &[Kind::Frame]),
    (Kind::PageTable1, &[]),
    (Kind::PageTable2, &[]),
    (Kind::PageTable3, &[]),
    (Kind::PageTable4, &[]),
    (Kind::CNode, &[]),
    (Kind::Dispatcher, &[]),
    (Kind::Endpoint, &[]),
    (Kind::Doorbell, &[Kind::Doorbell]),
];

/// Every kind of source, and every kind that could be asked for.
pub fn kinds(outcome: &mut Outcome) -> memory::Result {
    let ground = Ground::new(16 * PAGE)?;
    let row = Row::take(2)?;
    let (source, made) = (row.at(0), row.at(1));
    for (from, becomes) in BECOMES {
        for to in Kind::ALL {
            match from {
                Kind::Doorbell => capability::copy(OWN_DOORBELL, source)?,
                // Large enough for all that there is.
                Kind::Ram | Kind::Frame => {
                    ground.make_in(from, 8 * PAGE, 8 * PAGE, 1, source)?;
                }
                _ => ground.make_in(from, 8 * PAGE, size(from), 1, source)?,
            }
            let what = format!("{to:?} of {from:?}");
            let make = || capability::retype(source, &Ground::what(to, 0, size(to), 1), made);
            if becomes.contains(&to) {
                outcome.expect(&what, &make(), &Ok(()));
                let all = capability::identify(source)?;
                let found = capability::identify(made)?;
                let expected = (to, all.base, size(to), all.rights | Rights::REVOKE);
                let found = (found.kind, found.base, found.bytes, found.rights);
                outcome.expect(&what, &found, &expected);
                capability::delete(made)?;
            } else {
                let watched = [ground.ram, source, made];
                outcome.refuse(&what, &watched, Error::WrongKind, make);
            }
            capability::delete(source)?;
        }
    }
    for code in [0, Kind::ALL.len() as u64 + 1, 0x7f, 0xff] {
        let watched = [ground.ram, made];
        outcome.refuse("no such kind", &watched, Error::WrongKind, || {
            let arguments = [ground.ram.0, made.0, code | 1 << 8, 0, PAGE, 0];
            ask(syscall::RETYPE, arguments)
        });
    }
    // INSERT takes the authority over a core, which no program has.
    for wrong in [ground.ram, OWN_DOORBELL] {
        outcome.refuse("an insert", &[made], Error::WrongKind, || {
            capability::insert(wrong, made, Kind::Frame, Rights::READ, 0x1000, PAGE)
        });
    }
    row.give()?;
    ground.free()
}

/// Every kind in sizes that it has, and in others.
pub fn sizes(outcome: &mut Outcome) -> memory::Result {
    let ground = Ground::new(66 * PAGE)?;
    let made = slots::take()?;
    let whole = MAX_CNODE_SLOTS * SLOT_BYTES;
    for kind in OF_RAM {
        let good: &[u64] = match kind {
            Kind::Ram | Kind::Frame => &[],
            Kind::CNode => &[128, 256, 2048, PAGE, 2 * PAGE, 4 * PAGE, 8 * PAGE, whole],
            Kind::Dispatcher => &[DISPATCHER_BYTES],
            Kind::Endpoint => &[ENDPOINT_BYTES],
            _ => &[PAGE],
        };
        for bytes in [
            0,
            1,
            32,
            63,
            64,
            65,
            127,
            128,
            192,
            256,
            2048,
            PAGE - 1,
            PAGE,
            PAGE + 1,
            PAGE + 64,
            2 * PAGE,
            3 * PAGE,
            DISPATCHER_BYTES - PAGE,
            DISPATCHER_BYTES,
            2 * DISPATCHER_BYTES,
            65 * PAGE,
            whole,
            2 * whole,
            1 << 63,
            u64::MAX,
            u64::MAX - PAGE + 1,
        ] {
            let what = format!("{kind:?} of {bytes:#x} bytes");
            let make = || capability::retype(ground.ram, &Ground::what(kind, 0, bytes, 1), made);
            let is_memory = matches!(kind, Kind::Ram | Kind::Frame);
            let watched = [ground.ram, made];
            let fits = is_memory && bytes.is_multiple_of(PAGE) && (1..=66 * PAGE).contains(&bytes);
            if good.contains(&bytes) || fits {
                outcome.expect(&what, &make(), &Ok(()));
                let found = capability::identify(made).map(|found| (found.kind, found.bytes));
                outcome.expect(&what, &found, &Ok((kind, bytes)));
                capability::delete(made)?;
                ground.clear()?;
            } else if is_memory && bytes != 0 && bytes.is_multiple_of(PAGE) {
                outcome.refuse(&what, &watched, Error::OutOfRange, make);
            } else if kind.is_kernel_object() && kind != Kind::CNode && bytes > CLEAN_BYTES {
                outcome.refuse(&what, &watched, Error::WrongCount, make);
            } else {
                outcome.refuse(&what, &watched, Error::WrongSize, make);
            }
        }
    }
    slots::give(made);
    ground.free()
}

/// How many objects one call makes, and where their capabilities fit.
pub fn counts(outcome: &mut Outcome) -> memory::Result {
    let ground = Ground::new(80 * PAGE)?;
    let row = Row::take(MOST + 2)?;
    let mut watched = row.slots();
    watched.push(ground.ram);
    let refused = [
        (Kind::Endpoint, ENDPOINT_BYTES, 0, Error::WrongCount),
        (Kind::Frame, PAGE, 0, Error::WrongCount),
        (Kind::Ram, PAGE, 0, Error::WrongCount),
        (Kind::Endpoint, ENDPOINT_BYTES, MOST + 1, Error::WrongCount),
        (Kind::CNode, 128, MOST + 1, Error::WrongCount),
        // More than one call clears.
        (
            Kind::PageTable1,
            PAGE,
            CLEAN_BYTES / PAGE + 1,
            Error::WrongCount,
        ),
        (Kind::Dispatcher, DISPATCHER_BYTES, 17, Error::WrongCount),
        (Kind::CNode, CLEAN_BYTES / 16, 17, Error::WrongCount),
        // More than there is.
        (Kind::Ram, PAGE, 81, Error::OutOfRange),
        (Kind::Frame, 40 * PAGE, 3, Error::OutOfRange),
        (Kind::Ram, 1 << 62, 4, Error::OutOfRange),
        (Kind::Frame, 1 << 63, 2, Error::OutOfRange),
        (Kind::Ram, !(PAGE - 1), 2, Error::OutOfRange),
    ];
    for (kind, bytes, count, error) in refused {
        let what = format!("{count} × {kind:?} of {bytes:#x} bytes");
        outcome.refuse(&what, &watched, error, || {
            capability::retype(ground.ram, &Ground::what(kind, 0, bytes, count), row.at(0))
        });
    }
    let base = capability::identify(ground.ram)?.base;
    for (kind, bytes, count) in [
        (Kind::Endpoint, ENDPOINT_BYTES, MOST),
        (Kind::Endpoint, ENDPOINT_BYTES, 3),
        (Kind::CNode, 128, MOST),
        (Kind::CNode, PAGE, CLEAN_BYTES / PAGE),
        (Kind::PageTable2, PAGE, CLEAN_BYTES / PAGE),
        (Kind::PageTable4, PAGE, 5),
        (Kind::Frame, PAGE, 80),
        (Kind::Frame, 20 * PAGE, 4),
        (Kind::Ram, PAGE, 80),
    ] {
        let what = format!("{count} × {kind:?} of {bytes:#x} bytes");
        let made = ground.make_in(kind, 0, bytes, count, row.at(1));
        outcome.expect(&what, &made, &Ok(()));
        let found: Vec<Result<_>> = look(&row.slots())
            .into_iter()
            .map(|found| found.map(|found| (found.kind, found.base, found.bytes)))
            .collect();
        let expected: Vec<Result<_>> = (0..MOST + 2)
            .map(|number| match number.checked_sub(1) {
                Some(index) if index < count => Ok((kind, base + index * bytes, bytes)),
                _ => Err(Error::EmptySlot),
            })
            .collect();
        outcome.expect(&what, &(found == expected), &true);
        row.clear()?;
        ground.clear()?;
    }

    // One slot in their way, at each end and in between, and nothing is made.
    let several = Ground::what(Kind::Endpoint, 0, ENDPOINT_BYTES, 9);
    for taken in [0, 4, 8] {
        capability::copy(ground.ram, row.at(taken))?;
        outcome.refuse(
            "a full slot in a row",
            &watched,
            Error::OccupiedSlot,
            || capability::retype(ground.ram, &several, row.at(0)),
        );
        capability::delete(row.at(taken))?;
    }
    // Rows that leave their CNode.
    let cnode = ground.make(Kind::CNode, 64 * PAGE, 8 * SLOT_BYTES)?;
    let last = abi::capability::FIRST_CNODE_SLOTS - 1;
    capability::copy(cnode, Address::new(1, last))?;
    let small = |number| Address::new(last, number);
    for first in [0, 1, 7, 8, 9] {
        let what = format!("a row from {first} on");
        let make = |count| {
            let what = Ground::what(Kind::Endpoint, 0, ENDPOINT_BYTES, count);
            capability::retype(ground.ram, &what, small(first))
        };
        outcome.refuse(&what, &watched, Error::NoSuchSlot, || make(8));
        outcome.refuse(&what, &watched, Error::NoSuchSlot, || make(1 << 55));
        if (1..8).contains(&first) {
            outcome.refuse(&what, &watched, Error::NoSuchSlot, || make(9 - first));
            outcome.expect(&what, &make(8 - first), &Ok(()));
            for number in 1..8 {
                let found = capability::identify(small(number)).map(|found| found.kind);
                let expected = match number < first {
                    true => Err(Error::EmptySlot),
                    false => Ok(Kind::Endpoint),
                };
                outcome.expect(&what, &found, &expected);
                if expected.is_ok() {
                    capability::delete(small(number))?;
                }
            }
        }
    }
    capability::delete(Address::new(1, last))?;
    discard(cnode)?;
    row.give()?;
    ground.free()
}

/// Where objects may begin and end.
pub fn places(outcome: &mut Outcome) -> memory::Result {
    let bytes = 16 * PAGE;
    let ground = Ground::new(bytes)?;
    let made = slots::take()?;
    let watched = [ground.ram, made];
    let ram = ground.ram;
    for kind in OF_RAM {
        let bytes_of_one = size(kind);
        let last = bytes - bytes_of_one;
        let aligned: u64 = match kind {
            Kind::Endpoint => ENDPOINT_BYTES,
            _ => PAGE,
        };
        for (offset, expected) in [
            (0, Ok(())),
            (aligned, Ok(())),
            (last, Ok(())),
            (last + aligned, Err(Error::OutOfRange)),
            (bytes, Err(Error::OutOfRange)),
            (bytes + PAGE, Err(Error::OutOfRange)),
            (1 << 63, Err(Error::OutOfRange)),
            (!(PAGE - 1), Err(Error::OutOfRange)),
            (u64::MAX, Err(Error::OutOfRange)),
            (1, Err(Error::Misaligned)),
            (aligned / 2, Err(Error::Misaligned)),
            (aligned + 8, Err(Error::Misaligned)),
        ] {
            let what = format!("{kind:?} at {offset:#x}");
            let make =
                || capability::retype(ram, &Ground::what(kind, offset, bytes_of_one, 1), made);
            match expected {
                Ok(()) => {
                    outcome.expect(&what, &make(), &Ok(()));
                    ground.clear()?;
                }
                Err(error) => outcome.refuse(&what, &watched, error, make),
            }
        }
    }
    // Small CNodes lie at multiples of their size.
    for bytes in [128, 256, 1024, 2048] {
        for offset in (0..PAGE).step_by(64) {
            let what = format!("a CNode of {bytes} bytes at {offset:#x}");
            let make =
                || capability::retype(ram, &Ground::what(Kind::CNode, offset, bytes, 1), made);
            if offset.is_multiple_of(bytes) {
                outcome.expect(&what, &make(), &Ok(()));
                ground.clear()?;
            } else {
                outcome.refuse(&what, &watched, Error::Misaligned, make);
            }
        }
    }
    // Vectors: the one doorbell of a program is a range of one.
    let vector = Resource::Vectors.range().start;
    let own = capability::identify(OWN_DOORBELL)?;
    outcome.expect("a vector's number", &(own.base >= vector), &true);
    for (offset, bytes) in [(0, 2), (1, 1), (u64::MAX, 1)] {
        outcome.refuse(
            "a second doorbell",
            &[OWN_DOORBELL, made],
            Error::OutOfRange,
            || {
                let what = Ground::what(Kind::Doorbell, offset, bytes, 1);
                capability::retype(OWN_DOORBELL, &what, made)
            },
        );
    }
    outcome.refuse("no vector", &[OWN_DOORBELL, made], Error::WrongSize, || {
        capability::retype(OWN_DOORBELL, &Ground::what(Kind::Doorbell, 0, 0, 1), made)
    });
    slots::give(made);
    ground.free()
}

/// Objects made of all of another, again and again; both of RAM and of a frame.
pub fn depths(outcome: &mut Outcome) -> memory::Result {
    let ground = Ground::new(4 * PAGE)?;
    let row = Row::take(DEPTHS + 2)?;
    let whole = |kind| Ground::what(kind, 0, PAGE, 1);
    for kind in [Kind::Ram, Kind::Frame] {
        // Half RAM, half frames, or frames alone.
        let kind_of = |depth| match kind {
            Kind::Ram if depth > DEPTHS / 2 => Kind::Frame,
            kind => kind,
        };
        ground.make_in(kind, PAGE, PAGE, 1, row.at(0))?;
        for depth in 1..=DEPTHS {
            let made = capability::retype(row.at(depth - 1), &whole(kind_of(depth)), row.at(depth));
            outcome.expect(&format!("depth {depth}"), &made, &Ok(()));
        }
        let mut watched = row.slots();
        watched.push(ground.ram);
        outcome.refuse("one too deep", &watched, Error::TooDeep, || {
            capability::retype(row.at(DEPTHS), &whole(Kind::Frame), row.at(DEPTHS + 1))
        });
        // Of each above, it is made already; a copy of the deepest is no deeper.
        for depth in [0, 1, DEPTHS / 2, DEPTHS - 1] {
            outcome.refuse("made already", &watched, Error::Overlap, || {
                let what = whole(kind_of(depth + 1));
                capability::retype(row.at(depth), &what, row.at(DEPTHS + 1))
            });
        }
        let copied = capability::copy(row.at(DEPTHS), row.at(DEPTHS + 1));
        outcome.expect("a copy of the deepest", &copied, &Ok(()));
        // From the middle, what is below goes, and what is above stays.
        let middle = DEPTHS / 2 + 1;
        let revoked = capability::revoke(row.at(middle));
        outcome.expect("a revoke in the middle", &revoked, &Ok(()));
        for (number, slot) in row.slots().into_iter().enumerate() {
            let depth = number as u64;
            let found = capability::identify(slot).map(|found| found.kind);
            let expected = match depth <= middle {
                true => Ok(kind_of(depth)),
                false => Err(Error::EmptySlot),
            };
            outcome.expect(&format!("what is left at depth {depth}"), &found, &expected);
        }
        // One in between that goes leaves those below where they are.
        capability::delete(row.at(3))?;
        outcome.refuse("below what went", &watched, Error::Overlap, || {
            capability::retype(row.at(2), &whole(kind_of(3)), row.at(3))
        });
        capability::revoke(row.at(2))?;
        outcome.expect_empty("below it", (3..=middle).map(|depth| row.at(depth)));
        row.clear()?;
    }
    row.give()?;
    ground.free()
}

/// As many dispatchers as a core carries, and no more.
pub fn dispatchers(outcome: &mut Outcome) -> memory::Result {
    let most = MAX_DISPATCHERS as u64;
    let ground = Ground::new(most * DISPATCHER_BYTES)?;
    let row = Row::take(most)?;
    let make = |number: u64, count| {
        let offset = number * DISPATCHER_BYTES;
        let what = Ground::what(Kind::Dispatcher, offset, DISPATCHER_BYTES, count);
        capability::retype(ground.ram, &what, row.at(number))
    };
    let mut watched = row.slots();
    watched.push(ground.ram);
    let (mut made, mut first) = (0, None);
    for turn in 0..3 {
        let full = loop {
            match make(made, 1) {
                Ok(()) => made += 1,
                error => break error,
            }
        };
        outcome.expect("a full core", &full, &Err(Error::TooMany));
        // The monitor and this domain are there as well.
        let plausible = (1..=most - 2).contains(&made);
        outcome.expect("how many fit", &plausible, &true);
        let before = *first.get_or_insert(made);
        outcome.expect("as many as before", &made, &before);
        outcome.refuse("one more", &watched, Error::TooMany, || make(made, 1));
        // Copies take no room; and what goes leaves room.
        let copy = slots::take()?;
        outcome.expect("a copy", &capability::copy(row.at(0), copy), &Ok(()));
        discard(copy)?;
        match turn {
            0 => {
                capability::delete(row.at(made - 1))?;
                made -= 1;
                outcome.refuse("two for one", &watched, Error::TooMany, || make(made, 2));
            }
            1 => {
                row.clear()?;
                ground.clear()?;
                made = 3;
                outcome.expect("three at once", &make(0, 3), &Ok(()));
            }
            _ => {}
        }
    }
    row.clear()?;
    row.give()?;
    ground.free()
}
