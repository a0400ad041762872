//! Page tables of this core, reached through the direct map.

use abi::layout::{DIRECT_MAP, PAGE};
use abi::machine::Core;
use core::ops::Range;
use loader::paging::TableMemory;

/// The private RAM of this core. Whatever it hands out lies inside.
#[derive(Clone, Copy)]
pub struct PrivateRam {
    start: u64,
    free: u64,
    end: u64,
}

impl PrivateRam {
    /// The private RAM of the core that runs this; the loader filled what lies below `free`.
    ///
    /// # Safety
    /// The direct map must map it, and `core` be the core that runs this.
    pub unsafe fn new(core: &Core, free: u64) -> Self {
        Self {
            start: core.region,
            free,
            end: core.region + core.private_bytes,
        }
    }

    /// The part of it that the loader filled.
    pub fn loaded(&self) -> Range<u64> {
        self.start..self.free
    }

    /// Whether `[physical, physical + bytes)` lies inside, page aligned.
    pub fn holds(&self, physical: u64, bytes: u64) -> bool {
        physical.is_multiple_of(PAGE)
            && physical >= self.start
            && physical
                .checked_add(bytes)
                .is_some_and(|end| end <= self.end)
    }

    /// Where `bytes` at `physical` lie in the direct map; `None` where they are not ours.
    pub fn pointer<T>(&self, physical: u64, bytes: u64) -> Option<*mut T> {
        self.holds(physical, bytes)
            .then_some((DIRECT_MAP + physical) as *mut T)
    }

    /// Zeroes a page, if it is private RAM.
    pub fn zero_page(&mut self, physical: u64) {
        if let Some(page) = self.pointer::<u8>(physical, PAGE) {
            // SAFETY: the page is private RAM of this core, mapped writable, and the monitor,
            // which owns it, asked for it to be cleared.
            unsafe { page.write_bytes(0, PAGE as usize) };
        }
    }
}

impl TableMemory for PrivateRam {
    fn read(&self, table: u64, index: usize) -> u64 {
        // A table outside of private RAM reads as empty: nothing is mapped through it.
        let Some(entries) = self.pointer::<u64>(table, PAGE) else {
            return 0;
        };
        // SAFETY: inside a page of private RAM; `index` is below 512. Volatile, because
        // the processor sets accessed and dirty bits.
        unsafe { entries.add(index & 0x1ff).read_volatile() }
    }

    fn write(&mut self, table: u64, index: usize, entry: u64) {
        if let Some(entries) = self.pointer::<u64>(table, PAGE) {
            // SAFETY: as above.
            unsafe { entries.add(index & 0x1ff).write_volatile(entry) };
        }
    }
}
