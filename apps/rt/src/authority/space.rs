//! Mapping frames, into the monitor's own address space and those of domains.

use super::{Error, ask};
use crate::capability::{Address, Kind};
use crate::system_call::{self, call};
use abi::layout::PAGE;
use abi::syscall::{self, MAP_PAGES};

/// A part of a frame at an address, within one page table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mapping {
    pub address: u64,
    pub frame: Address,
    /// Where in the frame it starts, in bytes.
    pub offset: u64,
    pub pages: u64,
    /// Level of the page table: 1 for pages of 4 KiB, 2 for those of 2 MiB.
    pub level: u64,
    /// Of [`syscall::rights`].
    pub rights: u64,
}

/// Maps; `table` makes the page tables that are missing.
///
/// # Safety
/// If `root` is the caller's own address space, nothing may refer to the memory that is there
/// now, or rely on there being none.
pub(super) unsafe fn map(
    root: Address,
    mapping: &Mapping,
    mut table: impl FnMut(Kind) -> Result<Address, Error>,
) -> Result<(), Error> {
    let Mapping {
        address,
        frame,
        offset,
        ..
    } = *mapping;
    let pages = mapping.pages | mapping.level << 32;
    let arguments = [root.0, address, frame.0, offset, pages, mapping.rights];
    loop {
        // SAFETY: the caller's promise.
        let level = match unsafe { call(syscall::MAP, arguments) } {
            Ok(_) => return Ok(()),
            Err((system_call::Error::NeedTable, level)) => level,
            Err((error, _)) => return Err(error.into()),
        };
        let kind = match level {
            1 => Kind::PageTable1,
            2 => Kind::PageTable2,
            _ => Kind::PageTable3,
        };
        let entered = table(kind)?;
        ask(syscall::MAP_TABLE, [root.0, address, entered.0, 0, 0, 0])?;
    }
}

/// Unmaps what is mapped at an address of the caller's own address space.
pub(super) fn unmap(frame: Address, address: u64) -> Result<(), Error> {
    ask(syscall::UNMAP, [frame.0, address, 0, 0, 0, 0])?;
    Ok(())
}

/// Cuts a range of pages where page tables end: address, offset in bytes from the start of the
/// range, pages.
pub(super) fn pieces(address: u64, pages: u64) -> impl Iterator<Item = (u64, u64, u64)> {
    let mut done = 0;
    core::iter::from_fn(move || {
        let at = address + done * PAGE;
        let room = MAP_PAGES - at / PAGE % MAP_PAGES;
        let count = room.min(pages - done);
        let piece = (at, done * PAGE, count);
        done += count;
        (count > 0).then_some(piece)
    })
}

/// How many page tables an address space needs, the root left out, for these ranges (address
/// and pages, in ascending order).
pub(super) fn tables(ranges: &(impl Iterator<Item = (u64, u64)> + Clone)) -> u64 {
    let mut count = 0;
    for shift in [21, 30, 39] {
        let mut next = 0; // the first table that is not counted yet
        for (address, pages) in ranges.clone().filter(|(_, pages)| *pages > 0) {
            let first = (address >> shift).max(next);
            next = next.max(((address + pages * PAGE - 1) >> shift) + 1);
            count += next - first.min(next);
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn pieces_end_where_page_tables_do() {
        let found = |address, pages| pieces(address, pages).collect::<Vec<_>>();
        assert_eq!(found(0x40_0000, 3), [(0x40_0000, 0, 3)]);
        assert_eq!(found(0x40_0000, 512), [(0x40_0000, 0, 512)]);
        assert_eq!(
            found(0x5f_f000, 514),
            [
                (0x5f_f000, 0, 1),
                (0x60_0000, PAGE, 512),
                (0x80_0000, 513 * PAGE, 1)
            ]
        );
        assert_eq!(found(0x40_0000, 0), []);
    }

    #[test]
    fn tables_are_counted_once() {
        let count = |ranges: &[(u64, u64)]| tables(&ranges.iter().copied());
        assert_eq!(count(&[]), 0);
        assert_eq!(count(&[(0x40_0000, 1)]), 3);
        assert_eq!(count(&[(0x40_0000, 1), (0x40_1000, 511)]), 3);
        assert_eq!(count(&[(0x40_0000, 513)]), 4);
        assert_eq!(count(&[(0x40_0000, 513), (0x60_1000, 1)]), 4);
        // Another page directory, another page directory pointer table.
        assert_eq!(count(&[(0x40_0000, 1), (0x10_0000_0000, 256)]), 5);
        assert_eq!(count(&[(0x40_0000, 1), (0x7000_0000_0000, 1)]), 6);
        assert_eq!(count(&[(0x40_0000, 1), (0x80_0000, 0)]), 3);
    }
}
