//! For monitors alone: RAM, address spaces, dispatchers, other cores, the serial port.
//!
//! The CPU driver refuses these calls to anybody else. Memory is handed around as [`Ram`],
//! which cannot be copied: who has it may write to it, and nobody else in this program can.

use crate::startup;
use crate::system_call::{Error, call};
use abi::layout::{
    MONITOR_BUNDLE, MONITOR_LOG, MONITOR_MACHINE, MONITOR_MESH, MONITOR_WINDOW, PAGE,
};
use abi::limits::{LOG_BYTES, MAX_CORES, PAGE_CHANNEL_SLOTS};
use abi::machine::{Machine, trampoline};
use abi::syscall::{self, DISPATCHER_BYTES, MAP_PAGES, life, priority, rights};
use alloc::vec::Vec;
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use urpc::{Channel, Side};

fn ask(number: u64, arguments: [u64; 6]) -> Result<[u64; 5], Error> {
    // SAFETY: what the calls do to memory goes through `Ram`, of which nobody else in this
    // program has a copy; each caller below keeps to that.
    unsafe { call(number, arguments) }.map_err(|(error, _)| error)
}

/// The machine description.
pub fn machine() -> &'static Machine {
    // SAFETY: the loader mapped it into every monitor, read-only, for its life.
    unsafe { &*(MONITOR_MACHINE as *const Machine) }
}

/// The bundle of programs, a tar archive.
pub fn bundle() -> &'static [u8] {
    // SAFETY: the loader mapped it into every monitor, read-only, for its life.
    unsafe {
        core::slice::from_raw_parts(MONITOR_BUNDLE as *const u8, machine().bundle_bytes as usize)
    }
}

/// Physical memory of this core, or of one that does not run yet: whole pages in a row.
#[derive(Debug, PartialEq, Eq)]
pub struct Ram {
    base: u64,
    pages: u64,
}

/// What was taken already: private RAM, shared RAM, the regions of other cores.
static TAKEN: [AtomicBool; 2] = [const { AtomicBool::new(false) }; 2];
static REGIONS_TAKEN: [AtomicU64; MAX_CORES / 64] = [const { AtomicU64::new(0) }; MAX_CORES / 64];

impl Ram {
    /// The RAM that only this core's CPU driver maps; to be had once.
    pub fn private() -> Option<Self> {
        let core = &machine().cores()[startup().core as usize];
        let base = startup().free;
        let end = core.region + core.private_bytes;
        (!TAKEN[0].swap(true, Ordering::Relaxed)).then_some(Self {
            base,
            pages: (end - base) / PAGE,
        })
    }

    /// The RAM of this core that no CPU driver maps, for frames that cores share; to be had
    /// once. The channels to cores of higher number come before it.
    pub fn shared() -> Option<Self> {
        let core = &machine().cores()[startup().core as usize];
        let base = core.region + core.private_bytes + MAX_CORES as u64 * PAGE;
        let end = core.region + core.private_bytes + core.shared_bytes;
        (!TAKEN[1].swap(true, Ordering::Relaxed)).then_some(Self {
            base,
            pages: (end - base) / PAGE,
        })
    }

    /// The first `bytes` of the region of a core that does not run yet; to be had once.
    pub fn of_unbooted_core(core: usize, bytes: u64) -> Option<Self> {
        let region = machine().cores().get(core)?;
        let bit = 1 << (core % 64);
        let taken = REGIONS_TAKEN[core / 64].fetch_or(bit, Ordering::Relaxed) & bit != 0;
        let fits = bytes <= region.private_bytes && core != startup().core as usize;
        (fits && !taken).then_some(Self {
            base: region.region,
            pages: bytes.div_ceil(PAGE),
        })
    }

    /// Its physical address.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Pages of it.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Cuts off the first `pages`.
    fn split(&mut self, pages: u64) -> Self {
        let front = Self {
            base: self.base,
            pages,
        };
        self.base += pages * PAGE;
        self.pages -= pages;
        front
    }
}

/// Free RAM: first fit, neighbours joined again.
#[derive(Debug, Default)]
pub struct Pool {
    /// In ascending order, never two that touch.
    free: Vec<Ram>,
}

impl Pool {
    /// A pool of this RAM.
    pub fn new(ram: Option<Ram>) -> Self {
        Self {
            free: ram.into_iter().collect(),
        }
    }

    /// Takes pages in a row.
    pub fn take(&mut self, pages: u64) -> Option<Ram> {
        let at = self.free.iter().position(|ram| ram.pages >= pages)?;
        let ram = self.free[at].split(pages);
        if self.free[at].pages == 0 {
            self.free.remove(at);
        }
        Some(ram)
    }

    /// Gives pages back.
    pub fn give(&mut self, ram: Ram) {
        if ram.pages == 0 {
            return;
        }
        let at = self.free.partition_point(|other| other.base < ram.base);
        self.free.insert(at, ram);
        for left in [at, at.wrapping_sub(1)] {
            let touch = |left: usize| {
                let (a, b) = (self.free.get(left)?, self.free.get(left + 1)?);
                (a.base + a.pages * PAGE == b.base).then_some(b.pages)
            };
            if left != usize::MAX
                && let Some(pages) = touch(left)
            {
                self.free[left].pages += pages;
                self.free.remove(left + 1);
            }
        }
    }

    /// Pages in it.
    pub fn pages(&self) -> u64 {
        self.free.iter().map(|ram| ram.pages).sum()
    }
}

/// An address space: the monitor's own, or that of a domain it made.
#[derive(Debug)]
pub struct AddressSpace {
    root: u64,
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
    space: AddressSpace,
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

/// What a dispatcher is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It runs, is ready to, or waits.
    Alive,
    /// It ended itself with this status.
    Exited(i32),
    /// It met an exception.
    Faulted {
        /// Exception vector.
        vector: u64,
        /// Error code.
        error: u64,
        /// Instruction pointer.
        instruction: u64,
        /// The address that a page fault complained of.
        address: u64,
    },
}

/// A dispatcher that this monitor made.
#[derive(Debug)]
pub struct Dispatcher {
    handle: u64,
    memory: Ram,
}

impl Dispatcher {
    /// Makes one that starts at `entry`, woken by `vector` of this core.
    pub fn new(
        pool: &mut Pool,
        space: &AddressSpace,
        entry: u64,
        vector: u8,
        name: &str,
    ) -> Result<Self, Error> {
        let memory = pool.take(DISPATCHER_BYTES / PAGE).ok_or(Error::TooMany)?;
        let mut bytes = [0; 16];
        let length = name.len().min(16);
        bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
        let half = |at: usize| {
            bytes[at..at + 8]
                .iter()
                .rev()
                .fold(0, |word, byte| word << 8 | u64::from(*byte))
        };
        let arguments = [
            memory.base,
            space.root,
            entry,
            u64::from(priority::NORMAL) << 8 | u64::from(vector),
            half(0),
            half(8),
        ];
        match ask(syscall::MAKE_DISPATCHER, arguments) {
            Ok(results) => Ok(Self {
                handle: results[0],
                memory,
            }),
            Err(error) => {
                pool.give(memory);
                Err(error)
            }
        }
    }

    /// What it is about.
    pub fn life(&self) -> Life {
        match ask(syscall::DISPATCHER, [self.handle, 0, 0, 0, 0, 0]) {
            Ok([life::EXITED, status, ..]) => Life::Exited(status as i32),
            Ok([life::FAULTED, vector, error, instruction, address]) => Life::Faulted {
                vector,
                error,
                instruction,
                address,
            },
            _ => Life::Alive,
        }
    }

    /// Its registers, in the order of [`syscall::REGISTERS`].
    pub fn registers(&self) -> [u64; syscall::REGISTERS.len()] {
        core::array::from_fn(|index| {
            ask(syscall::REGISTER, [self.handle, index as u64, 0, 0, 0, 0])
                .map_or(0, |results| results[0])
        })
    }

    /// Lets it ring a vector of a core.
    pub fn grant_doorbell(&self, slot: u64, core: usize, vector: u8) -> Result<(), Error> {
        grant(self.handle, slot, core, vector)
    }

    /// Stops it for good.
    pub fn destroy(self, pool: &mut Pool) {
        // It exists, so the call cannot fail.
        let _ = ask(syscall::DESTROY_DISPATCHER, [self.handle, 0, 0, 0, 0, 0]);
        pool.give(self.memory);
    }
}

fn grant(handle: u64, slot: u64, core: usize, vector: u8) -> Result<(), Error> {
    let target = machine().cores().get(core).ok_or(Error::BadArgument)?;
    let arguments = [
        handle,
        slot,
        u64::from(target.apic_id),
        u64::from(vector),
        0,
        0,
    ];
    ask(syscall::GRANT_DOORBELL, arguments).map(|_| ())
}

/// Lets this monitor ring a vector of a core.
pub fn grant_own_doorbell(slot: u64, core: usize, vector: u8) -> Result<(), Error> {
    grant(0, slot, core, vector)
}

/// Says where a starting core finds its page tables.
pub fn set_trampoline(
    pool: &mut Pool,
    window: &mut Window,
    core: usize,
    page_table: u64,
) -> Result<(), Error> {
    let apic_id = machine()
        .cores()
        .get(core)
        .ok_or(Error::BadArgument)?
        .apic_id;
    let page = Ram {
        base: machine().trampoline + trampoline::TABLE,
        pages: 1,
    };
    // All monitors write to this page, so no reference to all of it may be made.
    let space = &mut window.space;
    space.map(pool, MONITOR_WINDOW, &page, rights::WRITE)?;
    let entry = MONITOR_WINDOW + (core * size_of::<trampoline::Entry>()) as u64;
    let word = |offset: usize| {
        let address = entry + offset as u64;
        // SAFETY: a word of the table, mapped just now; every access to it is atomic.
        unsafe { AtomicU64::from_ptr(address as *mut u64) }
    };
    // The APIC id goes last: a core that finds it finds its page table too.
    word(offset_of!(trampoline::Entry, page_table)).store(page_table, Ordering::Relaxed);
    word(offset_of!(trampoline::Entry, apic_id_plus_one))
        .store(u64::from(apic_id) + 1, Ordering::Release);
    space.unmap(MONITOR_WINDOW, 1)
}

/// Resets a core; it waits for [`start_core`].
pub fn reset_core(core: usize) -> Result<(), Error> {
    let apic_id = machine()
        .cores()
        .get(core)
        .ok_or(Error::BadArgument)?
        .apic_id;
    ask(syscall::SEND_INIT, [u64::from(apic_id), 0, 0, 0, 0, 0]).map(|_| ())
}

/// Sends a core into the trampoline.
pub fn start_core(core: usize) -> Result<(), Error> {
    let apic_id = machine()
        .cores()
        .get(core)
        .ok_or(Error::BadArgument)?
        .apic_id;
    let page = machine().trampoline / PAGE;
    ask(
        syscall::SEND_STARTUP,
        [u64::from(apic_id), page, 0, 0, 0, 0],
    )
    .map(|_| ())
}

/// Tells the CPU driver that this monitor is at work, and the epoch of its view (0: none yet).
pub fn running(epoch: u64) {
    // The call cannot fail.
    let _ = ask(syscall::RUNNING, [epoch, 0, 0, 0, 0, 0]);
}

/// Powers the system off.
pub fn power_off(status: i32) -> ! {
    let _ = ask(
        syscall::POWER_OFF,
        [u64::from(status as u32), 0, 0, 0, 0, 0],
    );
    unreachable!("the CPU driver powers off");
}

/// Reads one of the CPU driver's counters.
pub fn counter(index: u64) -> Result<u64, Error> {
    ask(syscall::COUNTER, [index, 0, 0, 0, 0, 0]).map(|results| results[0])
}

/// What the kernel half maps at or after an address: address, physical address, bytes, rights.
pub fn kernel_mapping(from: u64) -> Option<[u64; 4]> {
    let [address, physical, bytes, rights, _] =
        ask(syscall::KERNEL_MAPPING, [from, 0, 0, 0, 0, 0]).ok()?;
    Some([address, physical, bytes, rights])
}

/// Test hook: has the CPU driver write where it should not.
pub fn wild_write(physical: u64) -> Result<(), Error> {
    ask(syscall::WILD_WRITE, [physical, 0, 0, 0, 0, 0]).map(|_| ())
}

/// The CPU driver's log ring, read from where the last look ended.
pub struct KernelLog {
    seen: u64,
}

impl KernelLog {
    /// A reader that has seen nothing yet.
    pub fn new() -> Self {
        Self { seen: 0 }
    }

    /// Takes what was written since, at most a ring full; returns how many bytes had been
    /// overwritten before.
    pub fn read(&mut self, text: &mut Vec<u8>) -> u64 {
        let written = ask(syscall::LOG_WRITTEN, [0; 6]).map_or(self.seen, |results| results[0]);
        let oldest = written.saturating_sub(LOG_BYTES as u64);
        let lost = oldest.saturating_sub(self.seen);
        self.seen = self.seen.max(oldest);
        while self.seen < written {
            let at = (MONITOR_LOG + self.seen % LOG_BYTES as u64) as *const u8;
            // SAFETY: a byte of the ring, which the loader mapped read-only; volatile,
            // because the CPU driver writes it.
            text.push(unsafe { at.read_volatile() });
            self.seen += 1;
        }
        lost
    }
}

impl Default for KernelLog {
    fn default() -> Self {
        Self::new()
    }
}

/// The first serial port.
pub mod serial {
    use super::{ask, syscall};

    const DATA: u64 = 0x3f8;
    const LINE_STATUS: u64 = DATA + 5;
    const TRANSMITTER_EMPTY: u64 = 0x20;
    /// What the transmitter takes at once.
    const FIFO_BYTES: usize = 16;

    /// Switches the transmitter's queue on.
    pub fn initialise() {
        for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, 7), (4, 3)] {
            // The ports are the serial port's, so the call cannot fail.
            let _ = ask(syscall::PORT_WRITE, [DATA + register, 1, value, 0, 0, 0]);
        }
    }

    /// Sends as many bytes as the transmitter takes now; returns how many.
    pub fn write(bytes: &[u8]) -> usize {
        let status = ask(syscall::PORT_READ, [LINE_STATUS, 0, 0, 0, 0, 0]);
        if !status.is_ok_and(|results| results[0] & TRANSMITTER_EMPTY != 0) {
            return 0;
        }
        let count = bytes.len().min(FIFO_BYTES);
        let mut words = [0u64; 2];
        for (index, byte) in bytes[..count].iter().enumerate() {
            words[index / 8] |= u64::from(*byte) << (index % 8 * 8);
        }
        let _ = ask(
            syscall::PORT_WRITE,
            [DATA, count as u64, words[0], words[1], 0, 0],
        );
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_joins_what_comes_back() {
        let mut pool = Pool::new(Some(Ram {
            base: 0x10_0000,
            pages: 10,
        }));
        let a = pool.take(3).expect("three");
        let b = pool.take(3).expect("three more");
        let c = pool.take(4).expect("the rest");
        assert_eq!(pool.take(1), None);
        assert_eq!(
            (a.base(), b.base(), c.base()),
            (0x10_0000, 0x10_3000, 0x10_6000)
        );
        pool.give(c);
        pool.give(a);
        assert_eq!(pool.take(5), None);
        pool.give(b);
        assert_eq!(pool.pages(), 10);
        assert_eq!(pool.take(10).map(|ram| ram.pages()), Some(10));
    }
}
