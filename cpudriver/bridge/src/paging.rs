//! Builds the page tables that the CPU driver starts on; it does not load them.

use crate::memory::{MapError, PAGE};

/// Entry bit: the page is there.
pub const PRESENT: u64 = 1;
/// Entry bit: the page may be written.
pub const WRITABLE: u64 = 1 << 1;
/// Entry bit: no instruction may be fetched.
pub const NO_EXECUTE: u64 = 1 << 63;
/// Entry bit: a page of 2 MiB or 1 GiB rather than a table.
const LARGE: u64 = 1 << 7;
/// Bits of an entry that hold an address.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Where tables come from and how they are reached.
pub trait TableMemory {
    /// A fresh table of zeros; its physical address.
    fn allocate(&mut self) -> Result<u64, MapError>;
    /// A table that `allocate` gave.
    fn table(&mut self, physical: u64) -> &mut [u64; 512];
}

/// A tree of four levels.
pub struct Tables<M> {
    /// Where its tables live.
    pub memory: M,
    root: u64,
    gigabyte_pages: bool,
}

impl<M: TableMemory> Tables<M> {
    /// A tree with nothing in it.
    pub fn new(mut memory: M, gigabyte_pages: bool) -> Result<Self, MapError> {
        let root = memory.allocate()?;
        Ok(Self {
            memory,
            root,
            gigabyte_pages,
        })
    }

    /// Physical address of the PML4.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// Maps `bytes` from a virtual to a physical address, both page aligned, by the
    /// largest pages that fit. The range must not be mapped yet.
    pub fn map(
        &mut self,
        address: u64,
        physical: u64,
        bytes: u64,
        rights: u64,
    ) -> Result<(), MapError> {
        let mut done = 0;
        while done < bytes {
            let (address, physical, left) = (address + done, physical + done, bytes - done);
            let fits = |size: u64| (address | physical).is_multiple_of(size) && left >= size;
            // Level 0 is a PT, 1 a PD, 2 a PDPT.
            let level = match () {
                () if self.gigabyte_pages && fits(1 << 30) => 2,
                () if fits(2 << 20) => 1,
                () => 0,
            };
            let large = if level > 0 { LARGE } else { 0 };
            *self.entry(address, level)? = physical | rights | large | PRESENT;
            done += PAGE << (9 * level);
        }
        Ok(())
    }

    /// The entry for an address at a level; tables above it are made where they lack.
    fn entry(&mut self, address: u64, level: u32) -> Result<&mut u64, MapError> {
        let index = |level: u32| (address >> (12 + 9 * level)) as usize % 512;
        let mut table = self.root;
        for above in (level + 1..4).rev() {
            let entry = self.memory.table(table)[index(above)];
            table = if entry & PRESENT != 0 {
                entry & ADDRESS
            } else {
                let fresh = self.memory.allocate()?;
                // Rights are decided at the leaf alone.
                self.memory.table(table)[index(above)] = fresh | PRESENT | WRITABLE;
                fresh
            };
        }
        Ok(&mut self.memory.table(table)[index(level)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[derive(Default)]
    struct TestMemory(Vec<[u64; 512]>);

    impl TableMemory for TestMemory {
        fn allocate(&mut self) -> Result<u64, MapError> {
            self.0.push([0; 512]);
            Ok(self.0.len() as u64 * PAGE)
        }
        fn table(&mut self, physical: u64) -> &mut [u64; 512] {
            &mut self.0[(physical / PAGE) as usize - 1]
        }
    }

    /// What the processor would find: physical address and leaf entry.
    fn walk(tables: &mut Tables<TestMemory>, address: u64) -> Option<(u64, u64)> {
        let mut table = tables.root();
        for level in (0..4).rev() {
            let entry = tables.memory.table(table)[(address >> (12 + 9 * level)) as usize % 512];
            if entry & PRESENT == 0 {
                return None;
            }
            if level == 0 || entry & LARGE != 0 {
                let mask = (PAGE << (9 * level)) - 1;
                return Some(((entry & ADDRESS & !mask) + (address & mask), entry));
            }
            table = entry & ADDRESS;
        }
        None
    }

    #[test]
    fn maps_exactly_what_was_asked() {
        const HALF: u64 = 0xffff_8000_0000_0000;
        for gigabyte_pages in [false, true] {
            let mut tables = Tables::new(TestMemory::default(), gigabyte_pages).unwrap();
            // Unaligned ends around aligned gigabytes, as a memory map has them.
            let ranges = [
                (0x1000, 0x9_f000),
                (0x10_0000, 0x7ffe_0000),
                (1 << 32, (6 << 30) + 0x5000),
            ];
            for (base, end) in ranges {
                tables.map(HALF + base, base, end - base, WRITABLE).unwrap();
            }
            for (base, end) in ranges {
                for probe in [base, base + 0x1234, (base + end) / 2, end - 1] {
                    assert_eq!(walk(&mut tables, HALF + probe).unwrap().0, probe);
                }
                assert!(walk(&mut tables, HALF + base - 1).is_none());
                assert!(walk(&mut tables, HALF + end).is_none());
                assert!(walk(&mut tables, base).is_none());
            }
            let few = tables.memory.0.len() < 20;
            assert!(few, "large pages are not used");
        }
    }

    #[test]
    fn rights_are_those_of_the_leaf() {
        let mut tables = Tables::new(TestMemory::default(), true).unwrap();
        let image = 0xffff_ffff_8000_0000;
        tables.map(image, 0x40_0000, 0x1000, 0).unwrap();
        tables
            .map(image + 0x1000, 0x40_1000, 0x2000, WRITABLE | NO_EXECUTE)
            .unwrap();
        let rights = |entry: u64| entry & !ADDRESS;
        assert_eq!(rights(walk(&mut tables, image).unwrap().1), PRESENT);
        let data = walk(&mut tables, image + 0x2008).unwrap();
        assert_eq!(data.0, 0x40_2008);
        assert_eq!(rights(data.1), PRESENT | WRITABLE | NO_EXECUTE);
    }
}
