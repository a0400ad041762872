//! A window through which physical memory is seen that the boot loader leaves unmapped:
//! in base revision 3 neither ACPI tables nor devices are in its direct map. It edits the
//! boot loader's page tables and is gone before the CPU driver builds its own.

use super::{BootLoader, DiscoverError};
use abi::layout::PAGE;
use core::ptr::NonNull;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicU64, compiler_fence};
use raw_cpuid::CpuId;
use x86::controlregs::{cr3, cr3_write};
use x86::tlb::flush;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
/// Write-through and cache-disable: uncached, whatever the PAT was set to.
const UNCACHED: u64 = 1 << 3 | 1 << 4;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const ENTRIES: usize = 512;

/// The window's own tables: PDPT, PD, PT. They lie in the image because nothing can be
/// allocated yet. Atomic because the processor reads them too.
#[repr(C, align(4096))]
struct Tables([[AtomicU64; ENTRIES]; 3]);

static TABLES: Tables = Tables([const { [const { AtomicU64::new(0) }; ENTRIES] }; 3]);

/// 2 MiB of virtual addresses, mapped page by page.
pub struct Window {
    base: u64,
    pages: &'static [AtomicU64; ENTRIES],
    root_entry: &'static AtomicU64,
    physical_end: u64,
}

/// How a mapping is cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// Memory.
    Normal,
    /// Device registers.
    Uncached,
}

impl Window {
    /// Hangs the window's tables into the boot loader's.
    ///
    /// # Safety
    ///
    /// As for [`super::discover`]: once, on one core, on the boot loader's page tables.
    pub unsafe fn open(boot_loader: &BootLoader) -> Result<Self, DiscoverError> {
        // SAFETY: CR3 holds the root table's address, and page tables are RAM that the
        // boot loader keeps in its direct map. Nobody else looks at them now.
        let root = unsafe {
            &*((boot_loader.direct_map + (cr3() & ADDRESS)) as *const [AtomicU64; ENTRIES])
        };
        // The last slot is the image's; the lower half is of no use to a kernel.
        let free = |slot: &usize| root[*slot].load(Relaxed) & PRESENT == 0;
        let slot = (256..ENTRIES - 1)
            .rev()
            .find(free)
            .ok_or(DiscoverError::NoWindow)?;

        let [upper, middle, pages] = &TABLES.0;
        let link = |entry: &AtomicU64, table: &'static [AtomicU64; ENTRIES]| {
            let physical =
                table.as_ptr() as u64 - boot_loader.image_virtual + boot_loader.image_physical;
            entry.store(physical | PRESENT | WRITABLE, Relaxed);
        };
        link(&upper[0], middle);
        link(&middle[0], pages);
        link(&root[slot], upper);

        let bits = CpuId::new()
            .get_processor_capacity_feature_info()
            .map_or(36, |info| info.physical_address_bits());
        Ok(Self {
            base: 0xffff_0000_0000_0000 | (slot as u64) << 39,
            pages,
            root_entry: &root[slot],
            physical_end: 1 << bits.clamp(32, 52),
        })
    }

    /// Takes the window out of the boot loader's tables.
    pub fn close(self) {
        self.root_entry.store(0, Relaxed);
        // SAFETY: whoever uses a mapping borrows `self`, so none is in use; the same root
        // stays loaded, and only what the processor remembers of the window is dropped.
        unsafe { cr3_write(cr3()) };
    }

    /// Maps `bytes` of physical memory; `None` where the window is full or the address
    /// is not one. Reading what no device answers gives all ones.
    pub fn map(&self, physical: u64, bytes: u64, caching: Caching) -> Option<NonNull<u8>> {
        let offset = physical % PAGE;
        let end = physical
            .checked_add(bytes)
            .filter(|&end| end <= self.physical_end)?;
        let count = (end.next_multiple_of(PAGE) - (physical - offset)) / PAGE;
        let count = usize::try_from(count)
            .ok()
            .filter(|count| (1..=ENTRIES).contains(count))?;
        let is_free = |page: &AtomicU64| page.load(Relaxed) == 0;
        let first = self
            .pages
            .windows(count)
            .position(|run| run.iter().all(is_free))?;
        let rights = PRESENT
            | WRITABLE
            | NO_EXECUTE
            | match caching {
                Caching::Normal => 0,
                Caching::Uncached => UNCACHED,
            };
        for (index, page) in self.pages[first..first + count].iter().enumerate() {
            page.store((physical - offset + index as u64 * PAGE) | rights, Relaxed);
        }
        // The caller's first access comes after the entries that make it possible.
        compiler_fence(SeqCst);
        NonNull::new((self.base + first as u64 * PAGE + offset) as *mut u8)
    }

    /// Ends a mapping.
    ///
    /// # Safety
    ///
    /// `map` gave it for that many bytes, and nothing uses it any more.
    pub unsafe fn unmap(&self, start: NonNull<u8>, bytes: u64) {
        let from = start.as_ptr() as u64 - self.base;
        for index in from / PAGE..(from + bytes).div_ceil(PAGE) {
            self.pages[index as usize].store(0, Relaxed);
            // SAFETY: only drops what the processor remembers of the page.
            unsafe { flush((self.base + index * PAGE) as usize) };
        }
    }
}
