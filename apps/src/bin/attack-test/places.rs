//! What lies beyond user space.
//!
//! A `syscall` at the very end of the lower half would return to an address that is not canonical,
//! on which `sysret` faults in ring 0. So nothing may ever be mapped there: not by page tables
//! either that have got their last entries elsewhere.

use crate::Test;
use crate::threads::set;
use abi::exception::PAGE_FAULT;
use abi::layout::{KERNEL_HALF, LARGE_PAGE, PAGE, USER_END};
use abi::syscall;
use alloc::format;
use apps::mappings::probe::{Met, Probe};
use rt::capability::{self, Address, Kind, OWN_SPACE};
use rt::dispatcher;
use rt::memory::{self, Result};
use rt::space::{self, MapError, PageSize, Part, rights};
use rt::system_call::Error;

/// The last page of what one entry of a root translates, where nothing else is.
const LAST: u64 = 0x1280_0000_0000 - PAGE;
/// The last page of the lower half, and addresses around it.
const BEYOND: [u64; 6] = [
    USER_END,
    0x7fff_c000_0000,
    0x7fff_ffff_f000,
    0x8000_0000_0000,
    KERNEL_HALF,
    0_u64.wrapping_sub(PAGE),
];
/// In the error code of a page fault: by ring 3, and for an instruction.
const USER_FETCH: u64 = 4 | 16;
/// No operation, and the two bytes of `syscall`.
const NOP: u8 = 0x90;
const SYSCALL: [u8; 2] = [0x0f, 0x05];

const REFUSED: core::result::Result<(), MapError> = Err(MapError::Refused(Error::KernelHalf));

/// Tries to enter a page table wherever it must not be.
fn try_table(test: &mut Test, level: u64, table: Address) {
    for address in BEYOND {
        // SAFETY: nothing of this program is there, nor ever will be.
        let entered = unsafe { space::map_table(OWN_SPACE, address, table) };
        let what = format!("a table of level {level} for {address:#x}");
        test.expect(&what, &entered, &REFUSED);
    }
}

/// Tries to map pages of a frame there.
fn try_pages(test: &mut Test) -> Result {
    let frame = memory::frame_aligned(LARGE_PAGE, LARGE_PAGE)?;
    let last = USER_END - PAGE;
    let places = BEYOND.map(|address| (address, 1)).into_iter();
    for (address, pages) in places.chain([(last, 2), (last, 512)]) {
        for size in [PageSize::Small, PageSize::Large] {
            // Of what user space has room for, one large page is too much as well.
            let pages = if size == PageSize::Large { 1 } else { pages };
            let part = Part {
                offset: 0,
                pages,
                size,
            };
            // SAFETY: nothing of this program is there, and the frame is in no other use.
            let mapped =
                unsafe { space::map_part(OWN_SPACE, address, frame, &part, rights::EXECUTE) };
            let what = format!("{pages} pages ({size:?}) at {address:#x}");
            test.expect(&what, &mapped, &REFUSED);
        }
    }
    let entries = capability::identify(frame).map(|found| found.entries);
    test.expect("entries in the end", &entries, &Ok(0));
    memory::free(frame)
}

/// Nothing can be mapped beyond user space, and a `syscall` at its end is harmless.
pub fn last(test: &mut Test) -> Result {
    try_pages(test)?;
    let frame = memory::frame(PAGE)?;
    let kinds = [Kind::PageTable1, Kind::PageTable2, Kind::PageTable3];
    let mut tables = [frame; 3];
    for (table, kind) in tables.iter_mut().zip(kinds) {
        *table = memory::object(kind, PAGE)?;
    }
    // All three tables with their last entry.
    for table in tables.into_iter().rev() {
        // SAFETY: nothing of this program is there.
        unsafe { space::map_table(OWN_SPACE, LAST, table) }.map_err(Error::from)?;
    }
    // SAFETY: nothing of this program is there, and the frame is new.
    unsafe { space::map(OWN_SPACE, LAST, frame, 0, 1, rights::WRITE) }.map_err(Error::from)?;
    let (start, end) = (LAST as *mut u8, PAGE as usize - SYSCALL.len());
    // SAFETY: the page that was just mapped to write.
    unsafe {
        start.write_bytes(NOP, end);
        start.add(end).cast::<[u8; 2]>().write(SYSCALL);
    }
    space::protect(frame, LAST, rights::EXECUTE)?;
    let [first, second, third] = tables;
    space::unmap(third)?;
    try_table(test, 3, third);

    // At the end of user space, all of it is well.
    let base = capability::identify(frame)?.base;
    // SAFETY: nothing of this program is there.
    let entered = unsafe { space::map_table(OWN_SPACE, USER_END - PAGE, third) };
    test.expect("the last table of user space", &entered, &Ok(()));
    let found = space::translate(OWN_SPACE, USER_END - PAGE).map(|it| (it.physical, it.rights));
    test.expect("the last page", &found, &Ok((base, rights::EXECUTE)));
    for address in BEYOND {
        let found = space::translate(OWN_SPACE, address);
        test.expect("what is beyond", &found, &Err(Error::KernelHalf));
    }
    let mut probe = Probe::new()?;
    // SAFETY: it executes the page above, which touches no memory.
    unsafe { dispatcher::set_space(probe.dispatcher(), OWN_SPACE)? };
    let at = USER_END - SYSCALL.len() as u64;
    let met = probe.run(&[("rip", at), ("rax", syscall::NULL)])?;
    let expected = Met {
        vector: PAGE_FAULT,
        error: USER_FETCH,
        address: USER_END,
        instruction: USER_END,
    };
    test.expect("a call at the end of user space", &met, &expected);
    for address in BEYOND {
        let set = set(probe.dispatcher(), "rip", address);
        test.expect("a start beyond", &set, &Err(Error::BadArgument));
    }
    probe.free()?;

    // The tables by themselves.
    space::unmap(third)?;
    space::unmap(second)?;
    try_table(test, 2, second);
    space::unmap(first)?;
    try_table(test, 1, first);
    for table in tables {
        memory::free(table)?;
    }
    memory::free(frame)
}
