//! Address spaces, the window into RAM, and the channels that the monitor has mapped.

use super::ram::{Pool, Ram};
use super::{ask, machine};
use crate::startup;
use crate::system_call::{Error, call};
use abi::layout::{MONITOR_MESH, MONITOR_WINDOW, PAGE};
use abi::limits::{MAX_CORES, PAGE_CHANNEL_SLOTS};
use abi::syscall::{self, MAP_PAGES, rights};
use alloc::vec::Vec;
use urpc::{Channel, Side};

/// An address space: the monitor's own, or that of a domain it made.
#[derive(Debug)]
pub struct AddressSpace {
    pub(super) root: u64,
    tables: Vec<Ram>,
}

impl AddressSpace {
    /// The monitor's own.
    pub fn own() -> Self {
        Self {
            root: startup().page_table,
            tables: Vec::new(),
        }
    }

    /// A new one, empty but for the kernel half.
    pub fn new(pool: &mut Pool) -> Option<Self> {
        let root = pool.take(1)?;
        let made = ask(syscall::MAKE_ROOT, [root.base, 0, 0, 0, 0, 0]);
        let space = Self {
            root: root.base,
            tables: alloc::vec![root],
        };
        made.is_ok().then_some(space)
    }

    /// Maps RAM, taking page tables from the pool.
    pub fn map(
        &mut self,
        pool: &mut Pool,
        address: u64,
        ram: &Ram,
        rights: u64,
    ) -> Result<(), Error> {
        self.map_physical(pool, address, ram.base, ram.pages, rights)
    }

    /// Maps a frame that another core's monitor, or this one, shares with a domain.
    pub fn map_physical(
        &mut self,
        pool: &mut Pool,
        address: u64,
        physical: u64,
        pages: u64,
        rights: u64,
    ) -> Result<(), Error> {
        let mut done = 0;
        while done < pages {
            let at = address + done * PAGE;
            let count = (pages - done).min(MAP_PAGES);
            let arguments = [self.root, at, physical + done * PAGE, count, rights, 0];
            // SAFETY: in the monitor's own space, `Window` and `mesh_channel` are the only
            // callers, at addresses set aside for them; other spaces are not ours.
            match unsafe { call(syscall::MAP, arguments) } {
                Ok(_) => done += count,
                Err((Error::NeedTable, level)) => {
                    let table = pool.take(1).ok_or(Error::NeedTable)?;
                    let enter = |address| {
                        ask(
                            syscall::MAP_TABLE,
                            [self.root, address, level, table.base, 0, 0],
                        )
                    };
                    // It is the first or the last page of the range that lacks it.
                    if enter(at).is_err() {
                        enter(at + (count - 1) * PAGE)?;
                    }
                    self.tables.push(table);
                }
                Err((error, _)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Unmaps pages.
    pub fn unmap(&mut self, address: u64, pages: u64) -> Result<(), Error> {
        let mut done = 0;
        while done < pages {
            let count = (pages - done).min(MAP_PAGES);
            ask(
                syscall::UNMAP,
                [self.root, address + done * PAGE, count, 0, 0, 0],
            )?;
            done += count;
        }
        Ok(())
    }

    /// Gives the memory of its tables back. No dispatcher may use it any more.
    pub fn dissolve(self, pool: &mut Pool) {
        for table in self.tables {
            pool.give(table);
        }
    }
}

/// A place in the monitor's own address space at which RAM can be looked at.
pub struct Window {
    pub(super) space: AddressSpace,
}

impl Window {
    /// The window; to be made once.
    pub fn new() -> Self {
        Self {
            space: AddressSpace::own(),
        }
    }

    /// Maps RAM, lets `work` fill or read it, and unmaps it again.
    pub fn open<R>(
        &mut self,
        pool: &mut Pool,
        ram: &mut Ram,
        work: impl FnOnce(&mut [u8]) -> R,
    ) -> Result<R, Error> {
        let bytes = (ram.pages * PAGE) as usize;
        if let Err(error) = self.space.map(pool, MONITOR_WINDOW, ram, rights::WRITE) {
            self.space.unmap(MONITOR_WINDOW, ram.pages)?; // a part of it may be mapped
            return Err(error);
        }
        // SAFETY: just mapped there, and `ram` is borrowed for as long: nobody else in
        // this program refers to that memory.
        let result =
            work(unsafe { core::slice::from_raw_parts_mut(MONITOR_WINDOW as *mut u8, bytes) });
        self.space.unmap(MONITOR_WINDOW, ram.pages)?;
        Ok(result)
    }

    /// Zeroes RAM of any size, a piece at a time: the window needs few page tables.
    pub fn zero(&mut self, pool: &mut Pool, ram: &mut Ram) -> Result<(), Error> {
        let mut done = 0;
        while done < ram.pages {
            let pages = (ram.pages - done).min(MAP_PAGES);
            let mut piece = Ram {
                base: ram.base + done * PAGE,
                pages,
            };
            self.open(pool, &mut piece, |bytes| bytes.fill(0))?;
            done += pages;
        }
        Ok(())
    }
}

impl Default for Window {
    fn default() -> Self {
        Self::new()
    }
}

/// Gives the monitor's heap more memory, for good: what it keeps grows with the cores and
/// domains that it has to do with. To be called once.
pub fn extend_heap(pool: &mut Pool, pages: u64) -> Result<(), Error> {
    let address = startup().heap + startup().heap_bytes;
    let ram = pool.take(pages).ok_or(Error::NotFound)?;
    AddressSpace::own().map(pool, address, &ram, rights::WRITE)?;
    // SAFETY: mapped just now, right behind the heap, where nothing else ever is; `ram` is
    // not used for anything else.
    unsafe { crate::heap::extend(address, ram.pages * PAGE) };
    Ok(())
}

/// Where in this monitor the end of the channel with the domain of this number is mapped.
fn domain_channel_address(number: usize) -> u64 {
    MONITOR_MESH + (MAX_CORES as u64 + number as u64) * PAGE
}

/// The channel to another core's monitor. It lies in the shared RAM of the core of lower
/// number, on the page that bears the other's number; that core's monitor is side A.
pub fn mesh_channel(pool: &mut Pool, peer: usize) -> Result<Channel, Error> {
    let own = startup().core as usize;
    if peer == own || peer >= machine().cores().len() {
        return Err(Error::BadArgument);
    }
    let (low, high) = (own.min(peer), own.max(peer));
    let region = &machine().cores()[low];
    let physical = region.region + region.private_bytes + high as u64 * PAGE;
    let address = MONITOR_MESH + peer as u64 * PAGE;
    AddressSpace::own().map_physical(pool, address, physical, 1, rights::WRITE)?;
    let side = if own == low { Side::A } else { Side::B };
    // SAFETY: mapped just now, at an address that is this channel's alone, for good.
    Ok(unsafe { Channel::attach(address as *mut u8, PAGE_CHANNEL_SLOTS, side) })
}

/// The monitor's end of the channel on a zeroed page that it shares with a domain.
pub fn domain_channel(pool: &mut Pool, number: usize, page: &Ram) -> Result<Channel, Error> {
    let address = domain_channel_address(number);
    AddressSpace::own().map(pool, address, page, rights::WRITE)?;
    // SAFETY: mapped just now, at an address that is this channel's alone until
    // `close_domain_channel` takes the channel away.
    Ok(unsafe { Channel::attach(address as *mut u8, PAGE_CHANNEL_SLOTS, Side::A) })
}

/// Takes the channel to a domain away.
#[allow(clippy::needless_pass_by_value)] // nobody may use it any more
pub fn close_domain_channel(number: usize, channel: Channel) -> Result<(), Error> {
    let _ = channel;
    AddressSpace::own().unmap(domain_channel_address(number), 1)
}

/// Zeroes the channel pages of this core, before anybody uses them.
pub fn clear_mesh(pool: &mut Pool, window: &mut Window) -> Result<(), Error> {
    let core = &machine().cores()[startup().core as usize];
    let base = core.region + core.private_bytes;
    let pages = machine().cores().len() as u64;
    let mut ram = Ram { base, pages };
    window.open(pool, &mut ram, |bytes| bytes.fill(0))
}
