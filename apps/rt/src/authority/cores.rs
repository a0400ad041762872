//! This core's CPU driver and other cores: starting them, powering off, looking inside.

use super::store::MESH_BYTES;
use super::{Error, Store, ask, machine};
use crate::capability::{self, Kind, Rights};
use crate::{startup, system_call};
use abi::capability::monitor::CORES;
use abi::layout::PAGE;
use abi::limits::MAX_CORES;
use abi::machine::trampoline;
use abi::syscall::{self, rights};
use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};

/// Cores whose region was given away.
static GIVEN: [AtomicU64; MAX_CORES / 64] = [const { AtomicU64::new(0) }; MAX_CORES / 64];

impl Store {
    /// Lets `work` fill the first `bytes` of the region of a core that does not run, whole large
    /// pages. Then the region is given away: `None` for who comes again before
    /// [`Self::take_region_back`].
    pub fn fill_region<R>(
        &mut self,
        core: usize,
        bytes: u64,
        work: impl FnOnce(&mut [u8]) -> R,
    ) -> Option<Result<R, Error>> {
        let region = machine().cores().get(core)?;
        let bit = 1 << (core % 64);
        if bytes > region.private_bytes
            || core == startup().core as usize
            || GIVEN[core / 64].fetch_or(bit, Ordering::Relaxed) & bit != 0
        {
            return None;
        }
        // SAFETY: only the core that brings another up touches its region before that runs.
        Some(unsafe { self.look_at_region(region.region, bytes, work) })
    }

    /// The region of a core that was stopped is nobody's: whatever domains of this core had of
    /// it, they have no more, but for the channels between monitors. All cores must have done this
    /// before one fills the region again.
    pub fn take_region_back(&mut self, core: usize) -> Result<(), Error> {
        let region = machine().cores().get(core);
        let region = region.filter(|_| core != startup().core as usize);
        let region = region.ok_or(system_call::Error::BadArgument)?;
        GIVEN[core / 64].fetch_and(!(1 << (core % 64)), Ordering::Relaxed);
        let shared = region.region + region.private_bytes + MESH_BYTES;
        self.sweep(region.region, region.private_bytes)?;
        self.sweep(shared, region.shared_bytes - MESH_BYTES)
    }

    /// Takes what lies in a range of another core's memory from all domains of this one.
    fn sweep(&mut self, base: u64, bytes: u64) -> Result<(), Error> {
        let slot = self.slot()?;
        let inserted = capability::insert(CORES, slot, Kind::Ram, Rights::REVOKE, base, bytes);
        if inserted.is_ok() {
            self.revoke(slot);
        }
        self.discard(slot);
        Ok(inserted?)
    }

    /// Says where a starting core finds its page tables.
    pub fn set_trampoline(&mut self, core: usize, page_table: u64) -> Result<(), Error> {
        let apic_id = machine().cores().get(core);
        let apic_id = apic_id.ok_or(system_call::Error::BadArgument)?.apic_id;
        let access = Rights::READ | Rights::WRITE;
        let page = machine().trampoline + trampoline::TABLE;
        let frame = self.slot()?;
        let inserted = capability::insert(CORES, frame, Kind::Frame, access, page, PAGE);
        let written = inserted.map_err(Error::from).and_then(|()| {
            self.look(frame, 0, 1, rights::WRITE, |window| {
                // All monitors write to this page, so no reference to all of it may be made.
                let word = |offset: usize| {
                    let at = core * size_of::<trampoline::Entry>() + offset;
                    // SAFETY: a word of the table, mapped there; every access to it is atomic.
                    unsafe { AtomicU64::from_ptr(window.add(at).cast()) }
                };
                // The APIC id goes last: a core that finds it finds its page table too.
                word(offset_of!(trampoline::Entry, page_table))
                    .store(page_table, Ordering::Relaxed);
                word(offset_of!(trampoline::Entry, apic_id_plus_one))
                    .store(u64::from(apic_id) + 1, Ordering::Release);
            })
        });
        self.discard(frame);
        written
    }
}

/// Resets a core; it waits for [`start_core`].
pub fn reset_core(core: usize) -> Result<(), Error> {
    ask(syscall::SEND_INIT, [CORES.0, core as u64, 0, 0, 0, 0])?;
    Ok(())
}

/// Sends a core into the trampoline.
pub fn start_core(core: usize) -> Result<(), Error> {
    let page = machine().trampoline / PAGE;
    ask(syscall::SEND_STARTUP, [CORES.0, core as u64, page, 0, 0, 0])?;
    Ok(())
}

/// Tells the CPU driver that this monitor is at work, and the epoch of its view (0: none yet).
pub fn running(epoch: u64) {
    // The call cannot fail.
    let _ = ask(syscall::RUNNING, [CORES.0, epoch, 0, 0, 0, 0]);
}

/// Stops this core in good order. Another one may start it anew.
pub fn stop() -> ! {
    let _ = ask(syscall::STOP_CORE, [CORES.0, 0, 0, 0, 0, 0]);
    unreachable!("the CPU driver stops");
}

/// Powers the system off.
pub fn power_off(status: i32) -> ! {
    let _ = ask(
        syscall::POWER_OFF,
        [CORES.0, u64::from(status as u32), 0, 0, 0, 0],
    );
    unreachable!("the CPU driver powers off");
}

/// Reads one of the CPU driver's counters.
pub fn counter(index: u64) -> Result<u64, Error> {
    let [value, ..] = ask(syscall::COUNTER, [CORES.0, index, 0, 0, 0, 0])?;
    Ok(value)
}

/// What the kernel half maps at or after an address: address, physical address, bytes, rights.
pub fn kernel_mapping(from: u64) -> Option<[u64; 4]> {
    let [address, physical, bytes, rights, _] =
        ask(syscall::KERNEL_MAPPING, [CORES.0, from, 0, 0, 0, 0]).ok()?;
    Some([address, physical, bytes, rights])
}

/// Test hook: has the CPU driver write where it should not.
pub fn wild_write(physical: u64) -> Result<(), Error> {
    ask(syscall::WILD_WRITE, [CORES.0, physical, 0, 0, 0, 0])?;
    Ok(())
}
