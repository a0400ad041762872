//! Channels that the monitor has mapped: to other monitors, and to its own domains.
//!
//! The channel between two monitors lies in the shared RAM of the core of lower number, on
//! the page that bears the other's number. So a core's own such pages are one range. Behind those of
//! core 0 are the words by which monitors announce sleep, a line each.

use super::space::{self, Mapping};
use super::store::{CACHE_LINE, SLEEP_PAGES};
use super::{Error, Store, machine};
use crate::capability::{self, Address, Kind, Rights};
use crate::{startup, system_call, trace};
use abi::capability::monitor::CORES;
use abi::layout::{MONITOR_MESH, PAGE};
use abi::limits::{MAX_CORES, MAX_DISPATCHERS, PAGE_CHANNEL_SLOTS};
use abi::syscall::rights;
use core::sync::atomic::{AtomicU64, Ordering};
use urpc::{Channel, Side, Sleeper};

/// A bit for each core.
type Bits = [AtomicU64; MAX_CORES / 64];

/// Cores whose channel is attached.
static ATTACHED: Bits = [const { AtomicU64::new(0) }; MAX_CORES / 64];
/// Lower cores whose channel page is mapped.
static MAPPED: Bits = [const { AtomicU64::new(0) }; MAX_CORES / 64];

/// Sets a core's bit; whether it was set.
fn set(bits: &Bits, core: usize) -> bool {
    let bit = 1 << (core % 64);
    bits[core / 64].fetch_or(bit, Ordering::Relaxed) & bit != 0
}

/// Where the channel pages for the core of this number and its successors are, in the region
/// of a core.
fn mesh_page(region_of: usize, core: usize) -> u64 {
    let region = &machine().cores()[region_of];
    region.region + region.private_bytes + core as u64 * PAGE
}

/// Where in this monitor the end of the channel with a core is mapped.
fn mesh_address(core: usize) -> u64 {
    MONITOR_MESH + core as u64 * PAGE
}

/// Where in this monitor the sleep words of all are mapped.
const SLEEP_WORDS: u64 = MONITOR_MESH + (MAX_CORES + MAX_DISPATCHERS) as u64 * PAGE;

/// The word by which the monitor of a core announces sleep.
fn sleep_word(core: usize) -> &'static AtomicU64 {
    assert!(core < MAX_CORES, "core {core}");
    let word = (SLEEP_WORDS + core as u64 * CACHE_LINE) as *const AtomicU64;
    // SAFETY: `open_mesh` mapped it for good, before anything else is done with the mesh; all
    // accesses to it are atomic.
    unsafe { &*word }
}

/// Where in this monitor the end of the channel with the domain of this number is mapped.
fn domain_channel_address(number: usize) -> u64 {
    mesh_address(MAX_CORES + number)
}

impl Store {
    /// Maps the sleep words and this core's channel pages, and zeroes what is its own of them before
    /// anybody uses it: in a monitor that comes back, but for the pages of the cores that zeroed them
    /// for it, and may listen there.
    pub(super) fn open_mesh(&mut self) -> Result<(), Error> {
        self.map_mesh(SLEEP_WORDS, mesh_page(0, MAX_CORES), SLEEP_PAGES)?;
        if startup().core == 0 {
            // Before any other core runs.
            (0..MAX_CORES).for_each(|core| sleep_word(core).store(0, Ordering::Relaxed));
        }
        let first = startup().core as usize + 1;
        let pages = machine().cores().len().saturating_sub(first) as u64;
        if pages == 0 {
            return Ok(());
        }
        let address = mesh_address(first);
        let physical = mesh_page(first - 1, first);
        self.map_mesh(address, physical, pages)?;
        for core in first..machine().cores().len() {
            let is_zeroed = startup().life != 0 && startup().cores().any(|other| other == core);
            if !is_zeroed {
                // SAFETY: mapped just now, and no channel is attached to it yet.
                unsafe { (mesh_address(core) as *mut u8).write_bytes(0, PAGE as usize) };
            }
        }
        Ok(())
    }

    fn map_mesh(&mut self, address: u64, physical: u64, pages: u64) -> Result<(), Error> {
        let frame = self.slot()?;
        let access = Rights::READ | Rights::WRITE;
        capability::insert(CORES, frame, Kind::Frame, access, physical, pages * PAGE)?;
        let mapping = Mapping {
            address,
            frame,
            offset: 0,
            pages,
            level: 1,
            rights: rights::WRITE,
        };
        // SAFETY: the addresses are those of the channels with these cores, which are not
        // attached yet.
        unsafe { self.map(&mapping) }
    }

    /// Sees to it that the page of the channel with a core is mapped: where, and our side.
    fn mesh_end(&mut self, peer: usize) -> Result<(u64, Side), Error> {
        let own = startup().core as usize;
        if peer == own || peer >= machine().cores().len() {
            return Err(system_call::Error::BadArgument.into());
        }
        let address = mesh_address(peer);
        if own < peer {
            return Ok((address, Side::A)); // mapped by `open_mesh`
        }
        if MAPPED[peer / 64].load(Ordering::Relaxed) >> (peer % 64) & 1 == 0 {
            self.map_mesh(address, mesh_page(peer, own), 1)?;
            set(&MAPPED, peer);
        }
        Ok((address, Side::B))
    }

    /// The channel to another core's monitor; that of the lower core is side A. To be had once,
    /// and again after [`Self::close_mesh_channel`].
    pub fn mesh_channel(&mut self, peer: usize) -> Result<Channel, Error> {
        let (address, side) = self.mesh_end(peer)?;
        if set(&ATTACHED, peer) {
            return Err(system_call::Error::AlreadyMapped.into());
        }
        // SAFETY: mapped, for good, at an address that is this channel's alone.
        let channel = unsafe { Channel::attach(address as *mut u8, PAGE_CHANNEL_SLOTS, side) };
        let own = startup().core as usize;
        let channel = channel.traced(mesh_page(own.min(peer), own.max(peer)), side);
        Ok(channel.with_sleep_words(sleep_word(startup().core as usize), sleep_word(peer)))
    }

    /// By what this monitor announces sleep on its channels to other monitors. To be had once.
    pub fn sleeper(&self) -> Sleeper<'static, AtomicU64> {
        Sleeper::new(sleep_word(startup().core as usize))
    }

    /// Gives up the channel with another core's monitor.
    #[allow(clippy::needless_pass_by_value)] // nobody may use it any more
    pub fn close_mesh_channel(&mut self, peer: usize, channel: Channel) {
        let _ = channel;
        ATTACHED[peer / 64].fetch_and(!(1 << (peer % 64)), Ordering::Relaxed);
    }

    /// Zeroes the page of the channel with a core that was stopped, so that both ends of the next one
    /// begin alike. Refused while this end is in use.
    pub fn clear_mesh_page(&mut self, peer: usize) -> Result<(), Error> {
        let (address, _) = self.mesh_end(peer)?;
        if ATTACHED[peer / 64].load(Ordering::Relaxed) >> (peer % 64) & 1 != 0 {
            return Err(system_call::Error::AlreadyMapped.into());
        }
        // SAFETY: mapped, and nothing here refers to it.
        unsafe { (address as *mut u8).write_bytes(0, PAGE as usize) };
        Ok(())
    }

    /// The monitor's end of the channel on a zeroed page that it shares with a domain.
    pub(super) fn domain_channel(
        &mut self,
        number: usize,
        frame: Address,
    ) -> Result<Channel, Error> {
        let address = domain_channel_address(number);
        let mapping = Mapping {
            address,
            frame,
            offset: 0,
            pages: 1,
            level: 1,
            rights: rights::WRITE,
        };
        // SAFETY: the address is that of this channel; the one before it is closed, or the CPU
        // driver finds something mapped there and refuses.
        unsafe { self.map(&mapping)? };
        // SAFETY: mapped just now, at an address that is this channel's alone until
        // `close_domain_channel` takes the channel away.
        let channel = unsafe { Channel::attach(address as *mut u8, PAGE_CHANNEL_SLOTS, Side::A) };
        Ok(channel.traced(trace::place_of(frame), Side::A))
    }

    /// Takes the channel with a domain away.
    #[allow(clippy::needless_pass_by_value)] // nobody may use it any more
    pub(super) fn close_domain_channel(&mut self, number: usize, frame: Address, channel: Channel) {
        let _ = channel;
        // Mapped when it was made.
        let _ = space::unmap(frame, domain_channel_address(number));
    }
}
