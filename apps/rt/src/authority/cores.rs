//! This core's CPU driver and other cores: starting them, powering off, looking inside.

use super::ram::{Pool, Ram};
use super::space::Window;
use super::{ask, machine};
use crate::system_call::Error;
use abi::layout::{MONITOR_WINDOW, PAGE};
use abi::machine::trampoline;
use abi::syscall::{self, rights};
use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};

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
