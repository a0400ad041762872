//! Where pages may be: tables on the way, offsets, rows, guards, and ends.

use crate::world::*;
use abi::layout::{PAGE, USER_END};
use alloc::format;
use rt::capability;
use rt::memory::{self, Result};
use rt::space::{self, Translation, rights};
use rt::system_call::Error;

/// Pages of the frame.
const PAGES: u64 = 8;

/// Enters the page tables of the area, from above. Each that is missing is asked for.
pub fn tables(world: &mut World, outcome: &mut Outcome) -> Result {
    let frame = memory::frame(PAGE)?;
    for missing in (1..=3).rev() {
        let what = format!("{}: without a table of level {missing}", world.name);
        let mapped = world.map(&page(frame, AREA, rights::WRITE));
        outcome.expect(&what, &mapped, &no_table(missing));
        outcome.expect(&what, &world.at(AREA), &no_table(missing));
        for level in 1..missing {
            let entered = world.enter(AREA, world.tables[level as usize - 1]);
            outcome.expect(&what, &entered, &no_table(missing));
        }
        let table = world.tables[missing as usize - 1];
        outcome.expect(&what, &entries(table), &Ok(0));
        outcome.expect(&what, &world.enter(AREA, table), &Ok(()));
        outcome.expect(&what, &entries(table), &Ok(1));
    }
    world.expect_nothing(outcome, "empty tables", AREA, (Error::NotMapped, 0))?;
    memory::free(frame)
}

/// Parts of frames at all kinds of places, and nothing around them.
pub fn places(world: &mut World, outcome: &mut Outcome) -> Result {
    let frame = memory::frame(PAGES * PAGE)?;
    world.mark(frame)?;
    let base = capability::identify(frame)?.base;
    let nothing = (Error::NotMapped, 0);
    let mut part = |world: &mut World, address: u64, first: u64, pages: u64| -> Result {
        let what = format!("pages {first} to {} of a frame", first + pages - 1);
        let wish = Wish {
            offset: first * PAGE,
            pages,
            ..page(frame, address, rights::WRITE)
        };
        outcome.expect(&what, &world.map(&wish), &Ok(()));
        outcome.expect(&what, &entries(frame), &Ok(pages));
        for now in [rights::WRITE, rights::EXECUTE] {
            outcome.expect(&what, &space::protect(frame, address, now), &Ok(()));
            for number in 0..pages {
                let expected = Translation {
                    physical: base + (first + number) * PAGE,
                    bytes: PAGE,
                    rights: now,
                };
                let at = address + number * PAGE;
                world.expect_page(outcome, &what, at, expected)?;
                outcome.expect(&what, &world.read(at + PAGE - 8)?, &Done(0));
                outcome.expect(&what, &world.read(at + 8)?, &Done(first + number));
            }
        }
        // The guards: one page to each side, a table further on where one ends.
        for guard in [address - PAGE, address + pages * PAGE] {
            outcome.expect(&what, &world.accesses(guard)?, &ABSENT);
        }
        outcome.expect(&what, &space::unmap_at(frame, address), &Ok(pages));
        for number in 0..pages {
            let at = address + number * PAGE;
            world.expect_nothing(outcome, &what, at, nothing)?;
        }
        Ok(())
    };
    for first in 0..PAGES {
        for pages in 1..=PAGES - first {
            part(world, AREA + 3 * PAGE, first, pages)?;
        }
    }
    // The first and the last entries of a table.
    part(world, AREA, 0, PAGES)?;
    part(world, AREA + (ENTRIES - PAGES) * PAGE, 0, PAGES)?;
    part(world, AREA + (ENTRIES - 1) * PAGE, PAGES - 1, 1)?;

    // The last page that there is.
    let tables = tables_of_all_levels()?;
    let last = USER_END - PAGE;
    for table in tables.into_iter().rev() {
        outcome.expect("tables at the end", &world.enter(last, table), &Ok(()));
    }
    let wish = Wish {
        pages: 2,
        ..page(frame, last, rights::WRITE)
    };
    let beyond = world.map(&wish);
    outcome.expect("beyond the end", &beyond, &no(Error::KernelHalf));
    world.settle(
        outcome,
        "the last page",
        &page(frame, last, rights::EXECUTE),
    )?;
    // Nothing is there, and nothing can be: its address is not one of ring 3's.
    let found = world.accesses(USER_END)?;
    outcome.expect("behind the last page", &found, &ABSENT);
    for table in tables {
        discard(table)?;
    }
    world.expect_nothing(outcome, "no table at the end", last, (Error::NeedTable, 3))?;

    // One page at two addresses, by two capabilities.
    let second = copy(frame)?;
    let wish = Wish {
        offset: PAGE,
        ..page(second, AREA + 5 * PAGE, rights::READ)
    };
    world.settle(outcome, "a second address", &wish)?;
    let whole = Wish {
        pages: PAGES,
        ..page(frame, AREA + 16 * PAGE, rights::WRITE)
    };
    outcome.expect("the first address", &world.map(&whole), &Ok(()));
    let twin = AREA + 17 * PAGE;
    outcome.expect("a write", &world.write(twin + 16, 4711)?, &Done(0));
    let found = world.read(wish.address + 16)?;
    outcome.expect("the write at the other address", &found, &Done(4711));
    discard(second)?;
    world.expect_nothing(outcome, "the second address", wish.address, nothing)?;
    let found = world.read(twin + 16)?;
    outcome.expect("the first address alone", &found, &Done(4711));
    memory::free(frame)?;
    world.expect_nothing(outcome, "the first address", twin, nothing)
}
