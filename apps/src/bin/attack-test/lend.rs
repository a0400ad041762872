//! Frames that the monitor makes, and then finds no place for in the domain that wants them.

use crate::{PART, Test, here};
use abi::layout::{LARGE_PAGE, PAGE, USER_FRAMES};
use alloc::format;
use rt::capability::{self, OWN_SPACE, slots};
use rt::interface::Error;
use rt::memory::{self, Result};
use rt::monitor::{self, Domain};
use rt::space::{self, PageSize, Part, rights};
use rt::{clock, system_call};

/// Frames of one page for which there is no place.
const FRAMES: u64 = 32;
/// Pages of a large one.
const PAGES: u64 = LARGE_PAGE / PAGE;
/// How long news of the end of a domain may take.
const PATIENCE_NS: u64 = 5_000_000_000;
const PAUSE_NS: u64 = 1_000_000;

/// A copy does that, so that its frames' places are in no way of what comes next.
pub fn lend(test: &mut Test) -> Result {
    let name = rt::startup().arguments().next().unwrap_or("");
    let borrow = || -> core::result::Result<i32, Error> {
        monitor::wait(monitor::spawn(here(), &[name, PART, "lend"], None)?)
    };
    test.expect("a borrower", &borrow(), &Ok(0));
    let before = monitor::memory(here())?;
    test.expect("another borrower", &borrow(), &Ok(0));
    let deadline = clock::now_ns() + PATIENCE_NS;
    let mut after = monitor::memory(here())?;
    while after != before && clock::now_ns() < deadline {
        clock::sleep_ns(PAUSE_NS);
        after = monitor::memory(here())?;
    }
    test.expect("free pages, private and shared", &after, &before);
    Ok(())
}

/// Asks for frames where something is mapped already.
///
/// ```text
///  USER_FRAMES      1          2            3          4   large pages further on
///  ├ frames ────────┼ occupied ┼ half frame ┼ occupied ┤
/// ```
pub fn borrower(test: &mut Test) -> Result {
    monitor::frame(PAGE as usize)?;
    let large = memory::frame_aligned(LARGE_PAGE, LARGE_PAGE)?;
    let copy = slots::take()?;
    capability::copy(large, copy)?;
    for (frame, place) in [(large, 1), (copy, 3)] {
        let part = Part {
            offset: 0,
            pages: 1,
            size: PageSize::Large,
        };
        let address = USER_FRAMES + place * LARGE_PAGE;
        // SAFETY: no frame is there yet, and nothing refers to this one's memory.
        let mapped = unsafe { space::map_part(OWN_SPACE, address, frame, &part, rights::READ) };
        mapped.map_err(system_call::Error::from)?;
    }
    // The place for the next is where the last one ended, whether it got one or not.
    let mut refuse = |pages: u64| {
        let made = monitor::frame((pages * PAGE) as usize).is_ok();
        test.expect(&format!("a frame of {pages} pages"), &made, &false);
    };
    monitor::frame(((PAGES - 1) * PAGE) as usize)?;
    refuse(1);
    let before = monitor::memory(here())?;
    for _ in 1..FRAMES {
        refuse(1);
    }
    refuse(PAGES - FRAMES + 1);
    // The first part of it gets its place, and a page table.
    refuse(PAGES);
    refuse(1);
    let after = monitor::memory(here())?;
    test.expect("free pages, private and shared", &after, &before);
    let child = monitor::spawn(here(), &["exit", "76"], None).and_then(monitor::wait);
    test.expect("a program", &child, &Ok(76));
    let nobody = monitor::wait(Domain(u64::MAX));
    test.expect("no child", &nobody, &Err(Error::NoSuchDomain));
    Ok(())
}
