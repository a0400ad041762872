//! Every error, and that nothing changes where there is one.

use crate::large::has_huge_pages;
use crate::world::*;
use abi::layout::{KERNEL_HALF, KERNEL_IMAGE, PAGE, USER_END, USER_MIN};
use abi::syscall::{self, CLEAN_BYTES};
use alloc::format;
use rt::capability::{
    self, Address, FIRST_CNODE_SLOTS, Kind, OWN_DISPATCHER, ROOT_CNODE, Retype, Rights, slots,
};
use rt::memory::{self, Result};
use rt::space::{self, rights};
use rt::system_call::Error;

/// Pages of the frame.
const PAGES: u64 = 8;

/// What is asked for and must be refused.
#[derive(Clone, Copy)]
enum Plea {
    Map(Wish),
    Enter(u64, Address),
    Protect(Address),
    Unmap(Address),
    Translate(u64),
}

use Plea::{Enter, Map, Protect, Translate, Unmap};

impl World {
    fn plead(&self, plea: Plea) -> core::result::Result<(), Refused> {
        let plain = |error| (error, 0);
        match plea {
            Map(wish) => self.map(&wish),
            Enter(address, table) => self.enter(address, table),
            Protect(frame) => space::protect(frame, 0, rights::READ).map_err(plain),
            Unmap(capability) => space::unmap(capability).map(drop).map_err(plain),
            Translate(address) => self.at(address).map(drop),
        }
    }
}

/// Addresses that name no slot.
const NO_SLOTS: [Address; 6] = [
    Address(0),
    Address::new(0, 1),
    Address::new(1, 0),
    Address::new(2, FIRST_CNODE_SLOTS),
    Address::new(FIRST_CNODE_SLOTS - 1, 1),
    Address(u64::MAX),
];

/// Every error that there is, and that nothing changes where there is one.
pub fn refusals(world: &mut World, outcome: &mut Outcome) -> Result {
    let frame = memory::frame(PAGES * PAGE)?;
    world.mark(frame)?;
    let mapped = copy(frame)?;
    let taken = AREA + 5 * PAGE;
    let wish = page(mapped, taken, rights::READ);
    world.settle(outcome, "what stays", &wish)?;
    let [spare1, spare2, spare3] = tables_of_all_levels()?;
    let [table1, table2, table3] = world.tables;
    let twin = copy(table1)?;
    let root = world.root;
    let empty = slots::take()?;

    let watched = [
        AREA,
        AREA + PAGE,
        AREA + 4 * PAGE,
        taken,
        AREA + 6 * PAGE,
        END - PAGE,
        END,
        UPPER,
        BEYOND,
    ];
    let held = [
        frame, mapped, spare1, spare2, spare3, table1, table2, table3, twin,
    ];
    let state = |world: &World| (watched.map(|at| world.at(at)), held.map(entries));
    let before = state(world);
    let mut refuse = |what: &str, plea: Plea, why: Refused| {
        let what = format!("{}: {what}", world.name);
        outcome.expect(&what, &world.plead(plea), &Err(why));
        outcome.expect(&format!("{what}: a change"), &state(world), &before);
    };

    let at = |address| page(frame, address, rights::READ);
    let row = |offset, pages| Wish {
        offset,
        pages,
        ..at(AREA)
    };
    let level = |level| Map(Wish { level, ..at(AREA) });
    let again = page(mapped, AREA, rights::READ);
    let across = Wish {
        pages: 2,
        ..at(END - PAGE)
    };
    let huge = match has_huge_pages() {
        true => Error::OutOfRange,
        false => Error::BadArgument,
    };

    let why = (Error::AlreadyMapped, 0);
    refuse("a page twice", Map(at(taken)), why);
    refuse("a row over a page", Map(row(0, 6)), why);
    refuse("a table of level 1 over another", Enter(AREA, spare1), why);
    refuse("a table of level 2 over another", Enter(AREA, spare2), why);
    refuse("a table of level 3 over another", Enter(AREA, spare3), why);
    let why = (Error::CapabilityMapped, 0);
    refuse("a capability twice", Map(again), why);
    refuse("a capability where it is", Map(wish), why);
    refuse("a table twice", Enter(END, table1), why);
    refuse("a table twice by a copy", Enter(END, twin), why);
    refuse("a table where it is", Enter(AREA, twin), why);
    refuse("a table of level 2 twice", Enter(UPPER, table2), why);
    refuse("a table of level 3 twice", Enter(BEYOND, table3), why);
    refuse("no pages", Map(row(0, 0)), (Error::WrongCount, 0));
    let why = (Error::OutOfRange, 0);
    refuse("too many pages", Map(row(0, ENTRIES + 1)), why);
    refuse("very many", Map(row(0, u64::from(u32::MAX))), why);
    refuse("more than the frame", Map(row(0, PAGES + 1)), why);
    refuse("more than the rest of it", Map(row(PAGE, PAGES)), why);
    refuse("behind the frame", Map(row(PAGES * PAGE, 1)), why);
    refuse("far behind it", Map(row(u64::MAX - PAGE + 1, 1)), why);
    refuse("beyond the table", Map(across), why);
    refuse("a large page of a small frame", level(2), why);
    refuse("a huge page of a small frame", level(3), (huge, 0));
    let why = (Error::Misaligned, 0);
    refuse("half a page", Map(at(AREA + 0x800)), why);
    refuse("a byte off", Map(at(AREA + 1)), why);
    refuse("half an offset", Map(row(0x800, 1)), why);
    refuse("an odd offset", Map(row(1, 1)), why);
    refuse("a table off its page", Enter(END + 8, spare1), why);
    let why = (Error::BadArgument, 0);
    refuse("level 0", level(0), why);
    refuse("level 4", level(4), why);
    refuse("the highest level", level(u64::from(u32::MAX)), why);
    refuse("address 0", Map(at(0)), why);
    refuse("a low address", Map(at(USER_MIN - PAGE)), why);
    refuse("a table for low addresses", Enter(0, spare1), why);
    refuse("no table of level 1", Map(at(END)), (Error::NeedTable, 1));
    let why = (Error::NeedTable, 2);
    refuse("no table of level 2", Map(at(UPPER)), why);
    refuse("none for one of level 1", Enter(UPPER, spare1), why);
    let why = (Error::NeedTable, 3);
    refuse("no table of level 3", Map(at(BEYOND)), why);
    refuse("none for one of level 1", Enter(BEYOND, spare1), why);
    refuse("none for one of level 2", Enter(BEYOND, spare2), why);
    let why = (Error::NotMapped, 0);
    refuse("unmap of nothing", Unmap(frame), why);
    refuse("unmap of no table", Unmap(spare1), why);
    refuse("unmap by a table's copy", Unmap(twin), why);
    refuse("rights of what is not mapped", Protect(frame), why);
    let why = (Error::KernelHalf, 0);
    for address in [
        USER_END,
        1 << 47,
        1 << 62,
        KERNEL_HALF - PAGE,
        KERNEL_HALF,
        KERNEL_IMAGE,
        u64::MAX - PAGE + 1,
    ] {
        refuse("a page of the kernel", Map(at(address)), why);
        refuse("a table of the kernel", Enter(address, spare1), why);
        refuse("an upper one", Enter(address, spare3), why);
        refuse("a look at the kernel", Translate(address), why);
    }
    let of = |slot| Map(page(slot, AREA, rights::READ));
    let why = (Error::WrongKind, 0);
    refuse("a frame as a table", Enter(AREA, frame), why);
    refuse("a root as a table", Enter(AREA, root), why);
    for other in [OWN_DISPATCHER, ROOT_CNODE, root, table1, spare3] {
        refuse("what is no frame", of(other), why);
        refuse("rights of no frame", Protect(other), why);
    }
    let missing = NO_SLOTS.map(|slot| (slot, Error::NoSuchSlot));
    let missing = || missing.into_iter().chain([(empty, Error::EmptySlot)]);
    for (slot, error) in missing() {
        refuse("no frame", of(slot), (error, 0));
        refuse("no table", Enter(END, slot), (error, 0));
        refuse("rights of nothing", Protect(slot), (error, 0));
        refuse("unmap of nothing", Unmap(slot), (error, 0));
    }

    // Roots that are none.
    let wrong = [OWN_DISPATCHER, ROOT_CNODE, frame, table3];
    let wrong = wrong.map(|slot| (slot, Error::WrongKind));
    for (slot, error) in wrong.into_iter().chain(missing()) {
        world.root = slot;
        for plea in [Map(at(AREA)), Enter(END, spare1), Translate(AREA)] {
            outcome.expect("no root", &world.plead(plea), &no(error));
        }
    }
    world.root = root;
    let expected = small(&wish)?;
    world.expect_page(outcome, "what stayed", taken, expected)?;
    for slot in [mapped, twin, spare1, spare2, spare3] {
        discard(slot)?;
    }
    slots::give(empty);
    memory::free(frame)
}

/// A frame that is not zeroed yet is for nobody's eyes.
pub fn unclean(world: &mut World, outcome: &mut Outcome) -> Result {
    let bytes = 2 * CLEAN_BYTES + PAGE;
    let bench = Bench::new(bytes)?;
    let what = format!("{}: an unclean frame", world.name);
    // What was there before.
    let before = bench.make(Kind::Frame, 0, bytes)?;
    let place = |frame, number| Wish {
        offset: number * PAGE,
        ..page(frame, AREA, rights::WRITE)
    };
    let numbers = [0, CLEAN_BYTES / PAGE, bytes / PAGE - 1];
    for number in numbers {
        outcome.expect(&what, &world.map(&place(before, number)), &Ok(()));
        outcome.expect(&what, &world.write(AREA, MARK)?, &Done(0));
        outcome.expect(&what, &space::unmap(before), &Ok(1));
    }
    discard(before)?;

    let frame = slots::take()?;
    let kind = Kind::Frame as u64 | 1 << 8;
    let made = ask(syscall::RETYPE, [bench.ram.0, frame.0, kind, 0, bytes, 0]);
    outcome.expect(&what, &made.map(|results| results[0]), &Ok(1));
    let other = slots::take()?;
    let mut left = bytes;
    while left > 0 {
        let mapped = world.map(&place(frame, 0));
        outcome.expect(&what, &mapped, &no(Error::Unclean));
        let refused = Err(Error::Unclean);
        outcome.expect(&what, &capability::copy(frame, other), &refused);
        let some = Rights::READ;
        outcome.expect(&what, &capability::mint(frame, other, some, 0), &refused);
        let part = Retype {
            kind: Kind::Frame,
            offset: 0,
            bytes: PAGE,
            count: 1,
        };
        outcome.expect(&what, &capability::retype(frame, &part, other), &refused);
        let unmapped = space::unmap(frame).map(|_| ());
        outcome.expect(&what, &unmapped, &refused);
        let is_unclean = capability::identify(frame).map(|found| found.is_unclean);
        outcome.expect(&what, &is_unclean, &Ok(true));
        // Moving it does not make it any cleaner.
        outcome.expect(&what, &capability::move_to(frame, other), &Ok(()));
        outcome.expect(&what, &capability::move_to(other, frame), &Ok(()));
        let cleaned = ask(syscall::CLEAN, [frame.0, 0, 0, 0, 0, 0]);
        left = left.saturating_sub(CLEAN_BYTES);
        outcome.expect(&what, &cleaned.map(|results| results[0]), &Ok(left));
    }
    for number in numbers {
        outcome.expect(&what, &world.map(&place(frame, number)), &Ok(()));
        outcome.expect(&what, &world.read(AREA)?, &Done(0));
        outcome.expect(&what, &space::unmap(frame), &Ok(1));
    }
    bench.free()?;
    outcome.expect(&what, &is_empty(frame), &true);
    slots::give(frame);
    slots::give(other);
    Ok(())
}
