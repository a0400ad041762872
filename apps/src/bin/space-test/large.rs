//! Pages of 2 MiB and of 1 GiB.

use crate::rights::{all_rights, faults_of_rights};
use crate::world::*;
use abi::layout::{LARGE_PAGE, PAGE};
use alloc::format;
use core::arch::x86_64::__cpuid;
use rt::capability::{self, Address, Kind};
use rt::memory::{self, Result};
use rt::space::{self, Translation, rights};
use rt::system_call::Error;

/// Whether the processor has pages of 1 GiB.
pub fn has_huge_pages() -> bool {
    let extended = 0x8000_0001;
    __cpuid(0x8000_0000).eax >= extended && __cpuid(extended).edx & 1 << 26 != 0
}

/// Frames for large pages, as large as there is memory for.
pub struct Large {
    /// Two pages of 2 MiB.
    large: Option<Address>,
    /// A page of 1 GiB.
    huge: Option<Address>,
}

impl Large {
    /// Takes them, and says which there are.
    pub fn make() -> Result<Self> {
        let large = memory::frame_aligned(2 * LARGE_PAGE, LARGE_PAGE).ok();
        let huge = match has_huge_pages() {
            true => memory::frame_aligned(HUGE_PAGE, HUGE_PAGE).ok(),
            false => None,
        };
        for (name, made) in [("2 MiB", large.is_some()), ("1 GiB", huge.is_some())] {
            let with = if made { "with" } else { "without" };
            rt::println!("space-test: {with} pages of {name}");
        }
        Ok(Self { large, huge })
    }

    /// Tests in this address space what there are.
    pub fn test(&self, world: &mut World, outcome: &mut Outcome) -> Result {
        if let Some(frame) = self.large {
            large_pages(world, outcome, frame)?;
            many_pages(world, outcome, frame)?;
        }
        if let Some(frame) = self.huge {
            huge_page(world, outcome, frame)?;
        }
        Ok(())
    }
}

/// Two pages of 2 MiB, among small ones.
fn large_pages(world: &mut World, outcome: &mut Outcome, frame: Address) -> Result {
    let base = capability::identify(frame)?.base;
    let address = AREA + 3 * LARGE_PAGE;
    let place = |address, number: u64, pages, with| Wish {
        offset: number * LARGE_PAGE,
        pages,
        level: 2,
        ..page(frame, address, with)
    };
    let what = format!("{}: large pages", world.name);
    for number in 0..2 {
        // The marks, at the start and far behind.
        let wish = place(address, number, 1, rights::WRITE);
        outcome.expect(&what, &world.map(&wish), &Ok(()));
        for page in [0, 1, ENTRIES - 1] {
            let at = address + page * PAGE;
            outcome.expect(&what, &world.write(at, MARK)?, &Done(0));
            let mark = number * ENTRIES + page;
            outcome.expect(&what, &world.write(at + 8, mark)?, &Done(0));
        }
        outcome.expect(&what, &space::unmap(frame), &Ok(1));
    }
    let expected = |number: u64, with| Translation {
        physical: base + number * LARGE_PAGE,
        bytes: LARGE_PAGE,
        rights: with,
    };
    for asked in all_rights().filter(|asked| faults_of_rights(*asked).is_empty()) {
        outcome.expect(&what, &world.map(&place(address, 0, 2, asked)), &Ok(()));
        outcome.expect(&what, &entries(frame), &Ok(2));
        for (number, page) in [(0, 0), (0, ENTRIES - 1), (1, 0), (1, 1)] {
            let at = address + number * LARGE_PAGE + page * PAGE;
            world.expect_page(outcome, "large pages", at, expected(number, asked))?;
            let mark = number * ENTRIES + page;
            outcome.expect(&what, &world.read(at + 8)?, &Done(mark));
        }
        // To read only, and to read and write.
        for now in [rights::READ, rights::WRITE] {
            outcome.expect(&what, &space::protect(frame, address, now), &Ok(()));
            for number in 0..2 {
                let at = address + number * LARGE_PAGE;
                world.expect_page(outcome, "large pages", at, expected(number, now))?;
            }
        }
        for guard in [address - PAGE, address + 2 * LARGE_PAGE] {
            outcome.expect(&what, &world.accesses(guard)?, &ABSENT);
        }
        outcome.expect(&what, &space::unmap_at(frame, address), &Ok(2));
        for number in 0..2 {
            let at = address + number * LARGE_PAGE;
            world.expect_nothing(outcome, "large pages", at, (Error::NeedTable, 1))?;
        }
    }

    // Beside a small page of the same memory, and what may not lie over them.
    let small = copy(frame)?;
    let third = copy(frame)?;
    let table = memory::object(Kind::PageTable1, PAGE)?;
    let wish = Wish {
        offset: LARGE_PAGE + PAGE,
        ..page(small, AREA, rights::WRITE)
    };
    world.settle(outcome, "a small page", &wish)?;
    let pair = place(address, 0, 2, rights::READ);
    outcome.expect(&what, &world.map(&pair), &Ok(()));
    outcome.expect(&what, &world.write(AREA + 64, 815)?, &Done(0));
    let same = address + LARGE_PAGE + PAGE + 64;
    outcome.expect(&what, &world.read(same)?, &Done(815));
    let state = |world: &World| {
        let addresses = [AREA, address, address + LARGE_PAGE, address - LARGE_PAGE];
        let held = [frame, third].map(entries);
        (addresses.map(|at| world.at(at)), held)
    };
    let before = state(world);
    let by_third = |wish: Wish| Wish {
        frame: third,
        ..wish
    };
    let (before_it, last) = (address - LARGE_PAGE, UPPER - LARGE_PAGE);
    let inside = page(frame, address + PAGE, rights::READ);
    let rest = |offset| Wish {
        offset,
        ..place(before_it, 0, 1, rights::READ)
    };
    let over = |at, pages| place(at, 0, pages, rights::READ);
    for (why, wish, error) in [
        ("over a table", over(AREA, 1), Error::WrongLevel),
        ("over a page", over(address, 1), Error::AlreadyMapped),
        ("partly over", over(before_it, 2), Error::AlreadyMapped),
        ("a small page over a large one", inside, Error::WrongLevel),
        ("off by a page", over(AREA + PAGE, 1), Error::Misaligned),
        ("a small offset", rest(PAGE), Error::Misaligned),
        ("behind the frame", rest(2 * LARGE_PAGE), Error::OutOfRange),
        ("the rest", rest(LARGE_PAGE + PAGE), Error::OutOfRange),
        ("beyond the table", over(last, 2), Error::OutOfRange),
    ] {
        let found = world.map(&by_third(wish));
        outcome.expect(&format!("{what}: {why}"), &found, &no(error));
        outcome.expect(&format!("{what}: {why}"), &state(world), &before);
    }
    let entered = world.enter(address, table);
    outcome.expect(&what, &entered, &no(Error::WrongLevel));
    outcome.expect(&what, &state(world), &before);
    // Just within the table, and gone with the capability.
    let wish = by_third(place(last, 1, 1, rights::EXECUTE));
    outcome.expect(&what, &world.map(&wish), &Ok(()));
    let at_last = expected(1, rights::EXECUTE);
    world.expect_page(outcome, "the last large page", last, at_last)?;
    discard(third)?;
    world.expect_nothing(outcome, "the last large page", last, (Error::NeedTable, 1))?;
    outcome.expect(&what, &space::unmap(frame), &Ok(2));
    world.expect_nothing(outcome, "the large pages", address, (Error::NeedTable, 1))?;
    discard(small)?;
    memory::free(table)
}

/// All entries of a table at once.
fn many_pages(world: &mut World, outcome: &mut Outcome, frame: Address) -> Result {
    let what = format!("{}: a whole table", world.name);
    let base = capability::identify(frame)?.base;
    let wish = Wish {
        pages: ENTRIES,
        offset: LARGE_PAGE,
        ..page(frame, AREA, rights::WRITE)
    };
    outcome.expect(&what, &world.map(&wish), &Ok(()));
    outcome.expect(&what, &entries(frame), &Ok(ENTRIES));
    for number in 0..ENTRIES {
        let expected = Translation {
            physical: base + LARGE_PAGE + number * PAGE,
            bytes: PAGE,
            rights: rights::WRITE,
        };
        let found = world.at(AREA + number * PAGE);
        outcome.expect(&what, &found, &Ok(expected));
        let mark = world.read(AREA + number * PAGE)?;
        let is_marked = [0, 1, ENTRIES - 1].contains(&number);
        outcome.expect(&what, &mark, &Done(if is_marked { MARK } else { 0 }));
    }
    outcome.expect(&what, &space::protect(frame, AREA, rights::READ), &Ok(()));
    let last = AREA + (ENTRIES - 1) * PAGE;
    for at in [AREA, last] {
        let found = world.accesses(at)?;
        outcome.expect(&what, &found, &present(rights::READ));
    }
    outcome.expect(&what, &space::unmap_at(frame, AREA), &Ok(ENTRIES));
    for number in 0..ENTRIES {
        let found = world.read(AREA + number * PAGE)?;
        outcome.expect(&what, &found, &Fault(fault::READ));
    }
    Ok(())
}

/// A page of 1 GiB.
fn huge_page(world: &mut World, outcome: &mut Outcome, frame: Address) -> Result {
    let what = format!("{}: a huge page", world.name);
    let address = AREA + 2 * HUGE_PAGE;
    let place = |address| Wish {
        level: 3,
        ..page(frame, address, rights::WRITE)
    };
    let expected = |with| Translation {
        physical: capability::identify(frame).map_or(0, |found| found.base),
        bytes: HUGE_PAGE,
        rights: with,
    };
    let off = world.map(&place(address + LARGE_PAGE));
    outcome.expect(&what, &off, &no(Error::Misaligned));
    let over = world.map(&place(AREA));
    outcome.expect(&what, &over, &no(Error::WrongLevel));
    let beyond = world.map(&Wish {
        pages: 2,
        ..place(address)
    });
    outcome.expect(&what, &beyond, &no(Error::OutOfRange));
    outcome.expect(&what, &world.map(&place(address)), &Ok(()));
    let numbers = [0, 1, HUGE_PAGE / PAGE / 2, HUGE_PAGE / PAGE - 1];
    for number in numbers {
        let at = address + number * PAGE;
        outcome.expect(&what, &world.write(at, MARK)?, &Done(0));
        outcome.expect(&what, &world.write(at + 8, number)?, &Done(0));
    }
    let with = rights::WRITE;
    for number in numbers {
        let at = address + number * PAGE;
        world.expect_page(outcome, "a huge page", at, expected(with))?;
        outcome.expect(&what, &world.read(at + 8)?, &Done(number));
    }
    let twin = copy(frame)?;
    let inside = page(twin, address + LARGE_PAGE, rights::READ);
    outcome.expect(&what, &world.map(&inside), &no(Error::WrongLevel));
    let large = Wish { level: 2, ..inside };
    outcome.expect(&what, &world.map(&large), &no(Error::WrongLevel));
    let table = memory::object(Kind::PageTable2, PAGE)?;
    let entered = world.enter(address, table);
    outcome.expect(&what, &entered, &no(Error::WrongLevel));
    memory::free(table)?;
    // The same memory as a large page elsewhere.
    let number = HUGE_PAGE / PAGE / 2;
    let large = Wish {
        address: AREA + 3 * LARGE_PAGE,
        offset: number * PAGE,
        ..large
    };
    outcome.expect(&what, &world.map(&large), &Ok(()));
    outcome.expect(&what, &world.read(large.address + 8)?, &Done(number));
    discard(twin)?;
    let with = rights::EXECUTE;
    outcome.expect(&what, &space::protect(frame, address, with), &Ok(()));
    world.expect_page(outcome, "a huge page", address, expected(with))?;
    outcome.expect(&what, &space::unmap_at(frame, address), &Ok(1));
    for number in numbers {
        let at = address + number * PAGE;
        world.expect_nothing(outcome, "a huge page", at, (Error::NeedTable, 2))?;
    }
    Ok(())
}
