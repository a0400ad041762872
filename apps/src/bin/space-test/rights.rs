//! All rights of mappings and of capabilities, asked for and changed later.

use crate::world::*;
use abi::layout::PAGE;
use alloc::format;
use alloc::vec::Vec;
use rt::capability::{self, Kind, Rights};
use rt::memory::{self, Result};
use rt::space::{self, rights};
use rt::system_call::Error;

/// Every combination of rights, and some that are none.
pub fn all_rights() -> impl Iterator<Item = u64> {
    (0..2 * rights::WRITE_COMBINING).chain([1 << 5, 1 << 32, 1 << 63])
}

/// Why a frame of RAM may not be mapped with these rights, if so.
pub fn faults_of_rights(asked: u64) -> Vec<Error> {
    let mut faults = Vec::new();
    if asked & rights::WRITE != 0 && asked & rights::EXECUTE != 0 {
        faults.push(Error::WritableAndExecutable);
    }
    let caching = [rights::UNCACHED, rights::WRITE_THROUGH];
    let asked = asked & !(rights::WRITE | rights::EXECUTE);
    if asked != 0 && !caching.contains(&asked) {
        faults.push(Error::BadArgument);
    }
    faults
}

/// Maps with all rights there are, and changes to all from all.
pub fn rights_of_mappings(world: &mut World, outcome: &mut Outcome) -> Result {
    let frame = memory::frame(PAGE)?;
    world.mark(frame)?;
    let mut given = Vec::new();
    for asked in all_rights() {
        let what = format!("{}: rights {asked:#x}", world.name);
        let wish = page(frame, AREA, asked);
        let faults = faults_of_rights(asked);
        if faults.is_empty() {
            given.push(asked);
            world.settle(outcome, &format!("rights {asked:#x}"), &wish)?;
            outcome.expect(&what, &entries(frame), &Ok(1));
            outcome.expect(&what, &space::unmap_at(frame, AREA), &Ok(1));
        } else {
            let error = world.map(&wish).err().map(|(error, _)| error);
            let is_its = error.is_some_and(|error| faults.contains(&error));
            outcome.expect(&format!("{what}: {error:?}"), &is_its, &true);
        }
        world.expect_nothing(outcome, "nothing mapped", AREA, (Error::NotMapped, 0))?;
        outcome.expect(&what, &entries(frame), &Ok(0));
    }
    outcome.expect("combinations of rights", &given.len(), &9);

    // The page's address, none, and one that is wrong: what the processor remembers must
    // not matter.
    let mut hints = [AREA, 0, AREA + PAGE, u64::MAX].into_iter().cycle();
    for before in given {
        world.settle(outcome, "before a change", &page(frame, AREA, before))?;
        for asked in all_rights() {
            let what = format!("{}: rights {before:#x} to {asked:#x}", world.name);
            let hint = hints.next().unwrap_or_default();
            let changed = space::protect(frame, hint, asked);
            let faults = faults_of_rights(asked);
            let now = if faults.is_empty() {
                outcome.expect(&what, &changed, &Ok(()));
                asked
            } else {
                let is_its = changed.is_err_and(|error| faults.contains(&error));
                outcome.expect(&what, &is_its, &true);
                before
            };
            let expected = small(&page(frame, AREA, now))?;
            world.expect_page(outcome, &what, AREA, expected)?;
            outcome.expect(&what, &space::protect(frame, hint, before), &Ok(()));
        }
        let hint = hints.next().unwrap_or_default();
        outcome.expect("unmap", &space::unmap_at(frame, hint), &Ok(1));
        world.expect_nothing(outcome, "unmapped", AREA, (Error::NotMapped, 0))?;
    }
    memory::free(frame)
}

/// What the rights of capabilities allow, to the frame and to the root.
pub fn rights_of_capabilities(world: &mut World, outcome: &mut Outcome) -> Result {
    let frame = memory::frame(PAGE)?;
    world.mark(frame)?;
    let modes = [
        (rights::READ, Rights::READ),
        (rights::WRITE, Rights::READ | Rights::WRITE),
        (rights::EXECUTE, Rights::READ | Rights::EXECUTE),
    ];
    for bits in 0..8 {
        let held = Rights::from_bits_truncate(bits);
        let slot = minted(frame, held)?;
        for (asked, needed) in modes {
            let what = format!("{}: {held:?} for rights {asked:#x}", world.name);
            let mapped = world.map(&page(slot, AREA, asked));
            if !held.contains(needed) {
                outcome.expect(&what, &mapped, &no(Error::NotAllowed));
                continue;
            }
            outcome.expect(&what, &mapped, &Ok(()));
            let mut now = asked;
            for (asked, needed) in modes {
                let changed = space::protect(slot, 0, asked);
                let expected = if held.contains(needed) {
                    now = asked;
                    Ok(())
                } else {
                    Err(Error::NotAllowed)
                };
                outcome.expect(&what, &changed, &expected);
                let expected = small(&page(slot, AREA, now))?;
                world.expect_page(outcome, &what, AREA, expected)?;
            }
            outcome.expect(&what, &space::unmap(slot), &Ok(1));
        }
        discard(slot)?;
    }
    // The root: writing to it is for mappings, reading for looking at them.
    let root = world.root;
    let what = format!("{}: rights to the root", world.name);
    let table = memory::object(Kind::PageTable1, PAGE)?;
    for held in [Rights::empty(), Rights::READ, Rights::WRITE, Rights::all()] {
        let held = held & capability::identify(root)?.rights;
        world.root = minted(root, held)?;
        let allowed = |right| match held.contains(right) {
            true => Ok(()),
            false => no(Error::NotAllowed),
        };
        let mapped = world.map(&page(frame, AREA, rights::READ));
        outcome.expect(&what, &mapped, &allowed(Rights::WRITE));
        let looked = world.at(AREA);
        let expected = match mapped {
            Ok(()) => small(&page(frame, AREA, rights::READ)).map(Ok)?,
            Err(_) => no(Error::NotMapped),
        };
        let expected = allowed(Rights::READ).and(expected);
        outcome.expect(&what, &looked, &expected);
        let entered = world.enter(END, table);
        outcome.expect(&what, &entered, &allowed(Rights::WRITE));
        for (done, capability) in [(mapped.is_ok(), frame), (entered.is_ok(), table)] {
            let expected = if done { Ok(1) } else { Err(Error::NotMapped) };
            outcome.expect(&what, &space::unmap(capability), &expected);
        }
        discard(world.root)?;
    }
    world.root = root;
    memory::free(table)?;
    memory::free(frame)
}
