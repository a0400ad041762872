//! Frames and page tables that go while they are in use.

use crate::world::*;
use abi::layout::{LARGE_PAGE, PAGE};
use rt::capability::{self, Address, Kind, Retype, slots};
use rt::memory::Result;
use rt::space::{self, rights};
use rt::system_call::Error;

/// Pages of the RAM that objects are made of one by one.
const BENCH_PAGES: u64 = 16;

/// Frames that go while they are mapped.
pub fn frames_go(world: &mut World, outcome: &mut Outcome) -> Result {
    let bench = Bench::new(BENCH_PAGES * PAGE)?;
    let nothing = (Error::NotMapped, 0);
    let [one, two, three] = [AREA, AREA + 7 * PAGE, AREA + 9 * PAGE];
    let with = rights::WRITE;

    // The last capability to a frame; and one that is not.
    let frame = bench.make(Kind::Frame, 0, 4 * PAGE)?;
    world.mark(frame)?;
    let second = copy(frame)?;
    world.settle(outcome, "a copy", &page(second, one, with))?;
    capability::delete(frame)?;
    let expected = small(&page(second, one, with))?;
    world.expect_page(outcome, "a copy that is left", one, expected)?;
    capability::delete(second)?;
    world.expect_nothing(outcome, "the last copy", one, nothing)?;

    // Moved: what is mapped moves along.
    let frame = bench.make(Kind::Frame, 0, 4 * PAGE)?;
    world.mark(frame)?;
    world.settle(outcome, "before a move", &page(frame, one, with))?;
    capability::move_to(frame, second)?;
    outcome.expect("the slot it left", &is_empty(frame), &true);
    world.expect_page(outcome, "after a move", one, expected)?;
    outcome.expect("a moved frame", &entries(second), &Ok(1));
    outcome.expect("its unmap", &space::unmap(second), &Ok(1));
    world.expect_nothing(outcome, "a moved frame", one, nothing)?;
    capability::move_to(second, frame)?;

    // Revoked: all others go, and what was made of it.
    capability::copy(frame, second)?;
    let part = slots::take()?;
    let what = Retype {
        kind: Kind::Frame,
        offset: PAGE,
        bytes: PAGE,
        count: 1,
    };
    capability::retype(frame, &what, part)?;
    let copy_of_part = copy(part)?;
    world.settle(outcome, "the frame", &page(frame, one, with))?;
    world.settle(outcome, "its copy", &page(second, two, rights::READ))?;
    let wish = page(copy_of_part, three, rights::EXECUTE);
    world.settle(outcome, "a part of it", &wish)?;
    outcome.expect("a revoke", &capability::revoke(frame), &Ok(()));
    for (slot, address) in [(second, two), (copy_of_part, three)] {
        world.expect_nothing(outcome, "revoked", address, nothing)?;
        outcome.expect("a revoked slot", &is_empty(slot), &true);
    }
    outcome.expect("a revoked slot", &is_empty(part), &true);
    let expected = small(&page(frame, one, with))?;
    world.expect_page(outcome, "who revoked", one, expected)?;

    // Revoked from above, by who made it.
    capability::copy(frame, second)?;
    world.settle(outcome, "a copy", &page(second, two, with))?;
    bench.free()?;
    for (slot, address) in [(frame, one), (second, two)] {
        world.expect_nothing(outcome, "RAM taken back", address, nothing)?;
        outcome.expect("a slot for what is gone", &is_empty(slot), &true);
    }
    for slot in [frame, second, part, copy_of_part] {
        slots::give(slot);
    }
    Ok(())
}

/// Page tables that go while they are in use.
pub fn tables_go(world: &mut World, outcome: &mut Outcome) -> Result {
    let bench = Bench::new(BENCH_PAGES * PAGE)?;
    let frame = bench.make(Kind::Frame, 0, PAGE)?;
    world.mark(frame)?;
    let wish = page(frame, UPPER, rights::WRITE);
    let expected = small(&wish)?;
    let make_upper = || bench.make(Kind::PageTable2, 5, PAGE);
    let make_leaf = || bench.make(Kind::PageTable1, 4, PAGE);
    let (upper, mut leaf) = (make_upper()?, make_leaf()?);
    let entered = [upper, leaf].map(|table| world.enter(UPPER, table));
    outcome.expect("two tables", &entered, &[Ok(()); 2]);

    // A leaf goes, and with it the mapping; the frame is free for another.
    world.settle(outcome, "a page", &wish)?;
    discard(leaf)?;
    world.expect_nothing(outcome, "without a leaf", UPPER, (Error::NeedTable, 1))?;
    outcome.expect("entries of a frame", &entries(frame), &Ok(0));
    let unmapped = space::unmap(frame);
    outcome.expect("unmap from no table", &unmapped, &Err(Error::NotMapped));
    let protected = space::protect(frame, UPPER, rights::READ);
    outcome.expect("protect in no table", &protected, &Err(Error::NotMapped));
    world.settle(outcome, "elsewhere", &page(frame, AREA, rights::READ))?;
    outcome.expect("unmap", &space::unmap(frame), &Ok(1));
    // The same while nobody asked in between.
    leaf = make_leaf()?;
    outcome.expect("a new leaf", &world.enter(UPPER, leaf), &Ok(()));
    world.expect_nothing(outcome, "a new leaf", UPPER, (Error::NotMapped, 0))?;
    world.settle(outcome, "a page", &wish)?;
    discard(leaf)?;
    world.settle(outcome, "elsewhere", &page(frame, AREA, rights::READ))?;
    outcome.expect("unmap", &space::unmap(frame), &Ok(1));

    // An upper one goes; its leaf, entered anew, has its pages still.
    leaf = make_leaf()?;
    outcome.expect("a leaf", &world.enter(UPPER, leaf), &Ok(()));
    world.settle(outcome, "a page", &wish)?;
    discard(upper)?;
    world.expect_nothing(outcome, "no upper one", UPPER, (Error::NeedTable, 2))?;
    let mut upper = make_upper()?;
    outcome.expect("another", &world.enter(UPPER, upper), &Ok(()));
    world.expect_nothing(outcome, "an empty one", UPPER, (Error::NeedTable, 1))?;
    outcome.expect("its leaf", &world.enter(UPPER, leaf), &Ok(()));
    world.expect_page(outcome, "the page again", UPPER, expected)?;

    // Unmapped, and entered again at another place.
    for (table, level, there) in [(leaf, 1, UPPER + LARGE_PAGE), (upper, 2, UPPER + HUGE_PAGE)] {
        let missing = (Error::NeedTable, level);
        outcome.expect("unmap of a table", &space::unmap(table), &Ok(1));
        world.expect_nothing(outcome, "a table unmapped", UPPER, missing)?;
        let again = space::unmap(table);
        outcome.expect("unmap, twice", &again, &Err(Error::NotMapped));
        outcome.expect("another place", &world.enter(there, table), &Ok(()));
        world.expect_page(outcome, "at another place", there, expected)?;
        outcome.expect("unmap from there", &space::unmap(table), &Ok(1));
        world.expect_nothing(outcome, "another place", there, missing)?;
        outcome.expect("and back", &world.enter(UPPER, table), &Ok(()));
        world.expect_page(outcome, "and back", UPPER, expected)?;
    }

    // The capability that it was entered by goes, and another is there.
    let second = copy(leaf)?;
    let also = world.enter(UPPER + LARGE_PAGE, second);
    outcome.expect("entered by a copy", &also, &no(Error::CapabilityMapped));
    discard(leaf)?;
    world.expect_nothing(outcome, "its capability gone", UPPER, (Error::NeedTable, 1))?;
    outcome.expect("by a copy", &world.enter(UPPER, second), &Ok(()));
    world.expect_page(outcome, "by a copy", UPPER, expected)?;
    // Revoked.
    leaf = copy(second)?;
    outcome.expect("unmap", &space::unmap(second), &Ok(1));
    outcome.expect("entered", &world.enter(UPPER, leaf), &Ok(()));
    world.expect_page(outcome, "entered", UPPER, expected)?;
    outcome.expect("a revoke", &capability::revoke(second), &Ok(()));
    world.expect_nothing(outcome, "a table revoked", UPPER, (Error::NeedTable, 1))?;
    outcome.expect("the revoked slot", &is_empty(leaf), &true);
    slots::give(leaf);
    outcome.expect("entered", &world.enter(UPPER, second), &Ok(()));
    world.expect_page(outcome, "entered", UPPER, expected)?;
    // An upper one, by the other capability to it.
    let other = copy(upper)?;
    discard(upper)?;
    world.expect_nothing(outcome, "an upper one gone", UPPER, (Error::NeedTable, 2))?;
    upper = other;
    outcome.expect("its copy", &world.enter(UPPER, upper), &Ok(()));
    world.expect_page(outcome, "by its copy", UPPER, expected)?;
    outcome.expect("entries of the frame", &entries(frame), &Ok(1));

    // All of them at once.
    bench.free()?;
    world.expect_nothing(outcome, "RAM taken back", UPPER, (Error::NeedTable, 2))?;
    for slot in [frame, second, upper] {
        outcome.expect("a slot for what is gone", &is_empty(slot), &true);
        slots::give(slot);
    }
    Ok(())
}

/// Checks that a capability has nothing to do any more with where it was mapped.
fn expect_forgotten(outcome: &mut Outcome, what: &str, stale: Address) {
    let none = Err(Error::NotMapped);
    outcome.expect(what, &entries(stale), &Ok(0));
    if capability::identify(stale).is_ok_and(|found| found.kind == Kind::Frame) {
        outcome.expect(what, &space::protect(stale, 0, rights::READ), &none);
    }
    outcome.expect(what, &space::unmap(stale).map(|_| ()), &none);
}

/// Memory of page tables that is used again. What was mapped in a table that is gone has nothing to
/// do with what is there now, even if it is the same memory at the same place.
pub fn tables_again(world: &mut World, outcome: &mut Outcome) -> Result {
    let bench = Bench::new(BENCH_PAGES * PAGE)?;
    let frame = bench.make(Kind::Frame, 0, PAGE)?;
    world.mark(frame)?;
    let upper = bench.make(Kind::PageTable2, 5, PAGE)?;
    outcome.expect("an upper one", &world.enter(UPPER, upper), &Ok(()));
    let make_leaf = || bench.make(Kind::PageTable1, 4, PAGE);
    let at = UPPER + 3 * PAGE;
    // As a leaf at the same place, with the same memory in it.
    let mut leaf = make_leaf()?;
    for delete_first in [false, true] {
        outcome.expect("a leaf", &world.enter(UPPER, leaf), &Ok(()));
        let stale = copy(frame)?;
        world.settle(outcome, "before", &page(stale, at, rights::READ))?;
        discard(leaf)?;
        leaf = make_leaf()?;
        outcome.expect("a new leaf", &world.enter(UPPER, leaf), &Ok(()));
        let wish = page(frame, at, rights::WRITE);
        world.settle(outcome, "after", &wish)?;
        if !delete_first {
            expect_forgotten(outcome, "a page of a table that is gone", stale);
        }
        discard(stale)?;
        let expected = small(&wish)?;
        world.expect_page(outcome, "a leaf used again", at, expected)?;
        outcome.expect("unmap", &space::unmap(frame), &Ok(1));
        discard(leaf)?;
        leaf = make_leaf()?;
    }

    // As a table of the next level, and as a frame with the very entry in it.
    outcome.expect("a leaf", &world.enter(UPPER, leaf), &Ok(()));
    let by_protect = copy(frame)?;
    let by_unmap = copy(frame)?;
    let by_delete = copy(frame)?;
    let stale = [by_protect, by_unmap, by_delete];
    for (slot, page_number) in stale.into_iter().zip(3..) {
        let wish = page(slot, UPPER + page_number * PAGE, rights::WRITE);
        world.settle(outcome, "before", &wish)?;
    }
    discard(leaf)?;
    let elsewhere = UPPER + HUGE_PAGE;
    let table = bench.make(Kind::PageTable2, 4, PAGE)?;
    let below = bench.make(Kind::PageTable1, 6, PAGE)?;
    outcome.expect("as level 2", &world.enter(elsewhere, table), &Ok(()));
    let place = elsewhere + 4 * LARGE_PAGE;
    outcome.expect("below it", &world.enter(place, below), &Ok(()));
    let wish = page(frame, place, rights::READ);
    world.settle(outcome, "below a leaf used again", &wish)?;
    expect_forgotten(outcome, "a page of a table that is another", by_unmap);
    let expected = small(&wish)?;
    world.expect_page(outcome, "as level 2", place, expected)?;
    outcome.expect("unmap", &space::unmap(frame), &Ok(1));
    discard(below)?;
    discard(table)?;

    let bait = bench.make(Kind::Frame, 4, PAGE)?;
    let wish = page(bait, AREA, rights::WRITE);
    outcome.expect("as a frame", &world.map(&wish), &Ok(()));
    // Present, writable, user, not executable: as it was in the table.
    let entry = capability::identify(frame)?.base | 7 | 1 << 63;
    for index in 0..ENTRIES {
        world.write(AREA + index * 8, entry)?;
    }
    let protected = space::protect(by_protect, 0, rights::READ);
    outcome.expect("protect in a frame", &protected, &Err(Error::NotMapped));
    let unmapped = space::unmap(by_protect);
    outcome.expect("unmap from a frame", &unmapped, &Err(Error::NotMapped));
    for slot in stale {
        discard(slot)?;
    }
    for index in [3, 4, 5] {
        let word = world.read(AREA + index * 8)?;
        outcome.expect("what is in the frame", &word, &Done(entry));
    }
    discard(bait)?;

    // A table entered in one that is gone, with another in its place.
    leaf = make_leaf()?;
    outcome.expect("a leaf", &world.enter(UPPER, leaf), &Ok(()));
    discard(upper)?;
    let upper = bench.make(Kind::PageTable2, 5, PAGE)?;
    let other = bench.make(Kind::PageTable1, 6, PAGE)?;
    outcome.expect("again", &world.enter(UPPER, upper), &Ok(()));
    outcome.expect("another leaf", &world.enter(UPPER, other), &Ok(()));
    let wish = page(frame, UPPER, rights::READ);
    world.settle(outcome, "in another leaf", &wish)?;
    let expected = small(&wish)?;
    expect_forgotten(outcome, "a table in one that is gone", leaf);
    world.expect_page(outcome, "another leaf", UPPER, expected)?;
    // It was forgotten that it is entered, too.
    let entered = world.enter(UPPER + LARGE_PAGE, leaf);
    outcome.expect("at another place", &entered, &Ok(()));
    outcome.expect("unmap", &space::unmap(leaf), &Ok(1));
    discard(leaf)?;
    world.expect_page(outcome, "another leaf", UPPER, expected)?;

    // What is a table is nothing else beside: no frame shows it.
    let slot = slots::take()?;
    let overlap = Retype {
        kind: Kind::Frame,
        offset: 5 * PAGE,
        bytes: PAGE,
        count: 1,
    };
    let made = capability::retype(bench.ram, &overlap, slot);
    outcome.expect("a frame over a table", &made, &Err(Error::Overlap));
    let within = Retype {
        kind: Kind::PageTable1,
        offset: 0,
        ..overlap
    };
    let made = capability::retype(frame, &within, slot);
    outcome.expect("a table of a frame", &made, &Err(Error::WrongKind));
    slots::give(slot);
    bench.free()?;
    world.expect_nothing(outcome, "RAM taken back", UPPER, (Error::NeedTable, 2))?;
    for slot in [frame, upper, other] {
        outcome.expect("a slot for what is gone", &is_empty(slot), &true);
        slots::give(slot);
    }
    Ok(())
}
