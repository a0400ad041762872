//! Ranges of which something was made already.

use crate::bench::{Ground, Outcome, Row};
use abi::layout::PAGE;
use alloc::format;
use rt::capability::{self, ENDPOINT_BYTES, Kind};
use rt::memory;
use rt::system_call::Error;

/// Pages of the RAM.
const PAGES: u64 = 12;
/// Where in it the object lies that others are compared with: from here …
const START: u64 = 4;
/// … to here.
const END: u64 = 8;

/// All ranges of pages, beside an object of each kind that can have parts.
pub fn overlaps(outcome: &mut Outcome) -> memory::Result {
    let ground = Ground::new(PAGES * PAGE)?;
    let row = Row::take(24)?;
    let (object, part, made) = (row.at(0), row.at(1), row.at(2));
    let mut watched = row.slots();
    watched.push(ground.ram);
    for kind in [Kind::Ram, Kind::Frame, Kind::Dispatcher, Kind::CNode] {
        let bytes = (END - START) * PAGE;
        ground.make_in(kind, START * PAGE, bytes, 1, object)?;
        for first in 0..PAGES {
            for end in first + 1..=PAGES {
                for result in [Kind::Ram, Kind::Frame] {
                    let what = format!("{result:?} of pages {first}..{end} beside {kind:?}");
                    let retype = Ground::what(result, first * PAGE, (end - first) * PAGE, 1);
                    let make = || capability::retype(ground.ram, &retype, made);
                    if end <= START || first >= END {
                        outcome.expect(&what, &make(), &Ok(()));
                        capability::delete(made)?;
                    } else {
                        outcome.refuse(&what, &watched, Error::Overlap, make);
                    }
                }
                // The same as so many pages, of which some would be free.
                let count = end - first;
                let retype = Ground::what(Kind::Ram, first * PAGE, PAGE, count);
                let make = || capability::retype(ground.ram, &retype, made);
                let what = format!("{count} pages from {first} on beside {kind:?}");
                if end <= START || first >= END {
                    outcome.expect(&what, &make(), &Ok(()));
                    for number in 0..count {
                        capability::delete(made.plus(number))?;
                    }
                } else {
                    outcome.refuse(&what, &watched, Error::Overlap, make);
                }
            }
        }
        ground.clear()?;
    }

    // What is made of a part is the part's matter, and stays when what it was made of goes.
    for kind in [Kind::Ram, Kind::Frame] {
        ground.make_in(kind, START * PAGE, (END - START) * PAGE, 1, object)?;
        let inner = Ground::what(Kind::Frame, PAGE, 2 * PAGE, 1);
        outcome.expect(
            "a part of a part",
            &capability::retype(object, &inner, part),
            &Ok(()),
        );
        for (first, count, expected) in [
            (0, 1, Ok(())),
            (3, 1, Ok(())),
            (0, 2, Err(Error::Overlap)),
            (1, 2, Err(Error::Overlap)),
            (1, 1, Err(Error::Overlap)),
            (2, 2, Err(Error::Overlap)),
            (0, 4, Err(Error::Overlap)),
            (4, 1, Err(Error::OutOfRange)),
            (3, 2, Err(Error::OutOfRange)),
        ] {
            let what = format!("pages {first}.. of a part of {kind:?}, {count} of them");
            let retype = Ground::what(Kind::Frame, first * PAGE, count * PAGE, 1);
            let make = || capability::retype(object, &retype, made);
            match expected {
                Ok(()) => {
                    outcome.expect(&what, &make(), &Ok(()));
                    capability::delete(made)?;
                }
                Err(error) => outcome.refuse(&what, &watched, error, make),
            }
        }
        // By a copy it is the same.
        capability::copy(object, row.at(20))?;
        outcome.refuse("by a copy", &watched, Error::Overlap, || {
            capability::retype(row.at(20), &inner, made)
        });
        capability::delete(row.at(20))?;
        outcome.expect("the part goes", &capability::delete(object), &Ok(()));
        for page in START..END {
            let what = format!("page {page} without the part");
            let retype = Ground::what(Kind::Ram, page * PAGE, PAGE, 1);
            let make = || capability::retype(ground.ram, &retype, made);
            if (START + 1..START + 3).contains(&page) {
                outcome.refuse(&what, &watched, Error::Overlap, make);
            } else {
                outcome.expect(&what, &make(), &Ok(()));
                capability::delete(made)?;
            }
        }
        // It is still below the RAM, and of it parts are made as before.
        let again = capability::retype(part, &Ground::what(Kind::Frame, PAGE, PAGE, 1), made);
        outcome.expect("a part of what is left", &again, &Ok(()));
        ground.clear()?;
        outcome.expect_empty("all of it", [object, part, made]);
    }

    // Objects that are smaller than pages: neighbours are no overlap.
    let endpoint =
        |number: u64| Ground::what(Kind::Endpoint, number * ENDPOINT_BYTES, ENDPOINT_BYTES, 1);
    for number in [5, 4, 6, 0, 63] {
        let neighbour = capability::retype(ground.ram, &endpoint(number), row.at(number % 10 + 1));
        outcome.expect("neighbours in a page", &neighbour, &Ok(()));
    }
    for number in [4, 5, 6, 0, 63] {
        outcome.refuse("the same place", &watched, Error::Overlap, || {
            capability::retype(ground.ram, &endpoint(number), row.at(20))
        });
    }
    for (offset, bytes, expected) in [
        (7 * 64, 64, Err(Error::WrongSize)),
        (8 * 64, 128, Ok(())),
        (4 * 64, 128, Err(Error::Overlap)),
        (6 * 64, 128, Err(Error::Overlap)),
        (2 * 64, 128, Ok(())),
        (0, 128, Err(Error::Overlap)),
        (0, PAGE, Err(Error::Overlap)),
        (PAGE, PAGE, Ok(())),
        (32 * 64, 2048, Err(Error::Overlap)),
        (16 * 64, 1024, Ok(())),
    ] {
        let what = format!("a CNode of {bytes} bytes at {offset:#x}");
        let retype = Ground::what(Kind::CNode, offset, bytes, 1);
        let make = || capability::retype(ground.ram, &retype, row.at(20));
        match expected {
            Ok(()) => {
                outcome.expect(&what, &make(), &Ok(()));
                capability::delete(row.at(20))?;
            }
            Err(error) => outcome.refuse(&what, &watched, error, make),
        }
    }
    row.give()?;
    ground.free()
}
