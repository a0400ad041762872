//! Calls about ports and cores.

use super::{Answer, Arguments, DONE, value};
use crate::arch::{cpu, trampoline_page_allowed};
use crate::fault;
use crate::kernel::{Kernel, record, set_state};
use crate::log;
use crate::lrpc::Outcome;
use abi::capability::{Kind, Resource, Rights, VECTORS};
use abi::layout::DIRECT_MAP;
use abi::record::{Counters, state};
use abi::syscall::{self, Error, rights};
use loader::paging::{self, NO_EXECUTE, UNCACHED, WRITABLE};

/// Carries out one of these calls.
pub fn call(kernel: &mut Kernel, number: u64, arguments: Arguments) -> Answer {
    let [a, b, c, ..] = arguments;
    match number {
        syscall::PORT_READ => {
            let port = port(kernel, a, b, Rights::READ)?;
            // SAFETY: the caller was given this port.
            return value(u64::from(unsafe { x86::io::inb(port) }));
        }
        syscall::PORT_WRITE => return port_write(kernel, arguments),
        syscall::SEND_INIT => {
            let apic_id = other_core(kernel, a, b)?;
            kernel.processor.apic.send_init(apic_id);
            return DONE;
        }
        syscall::SEND_STARTUP => {
            let apic_id = other_core(kernel, a, b)?;
            let page = trampoline_page_allowed(kernel.processor.machine, c);
            let page = page.ok_or(Error::BadArgument)?;
            kernel.processor.apic.send_startup(apic_id, page);
            return DONE;
        }
        syscall::POWER_OFF..=syscall::LAST => {}
        _ => return Err(Error::NoSuchCall.into()),
    }
    check_own_core(kernel, a)?;
    match number {
        syscall::POWER_OFF => power_off(kernel, b as i32),
        syscall::KERNEL_MAPPING => kernel_mapping(kernel, b),
        syscall::WILD_WRITE => wild_write(kernel, b),
        syscall::RUNNING => {
            // SAFETY: the record is mapped, and this core's to write.
            unsafe { (&raw mut (*record()).epoch).write_volatile(b as u32) };
            set_state(state::RUNNING);
            DONE
        }
        syscall::COUNTER => {
            // SAFETY: the record is mapped, and only this CPU driver writes to it.
            let counters = unsafe { (&raw const (*record()).counters).read_volatile() };
            let words: [u64; size_of::<Counters>() / 8] = zerocopy::transmute!(counters);
            value(*words.get(b as usize).ok_or(Error::BadArgument)?)
        }
        syscall::LOG_WRITTEN => {
            // SAFETY: the record is mapped.
            value(unsafe { (&raw const (*record()).log_written).read_volatile() })
        }
        _ => Err(Error::NoSuchCall.into()),
    }
}

/// Whether a capability to cores covers all vectors of this one.
fn covers(kernel: &mut Kernel, capability: u64, core: u64) -> Result<(), Error> {
    let cores = kernel.find(capability, Kind::Core, Rights::WRITE)?;
    let first = Resource::Vectors.range().start;
    let start = core
        .checked_mul(VECTORS)
        .and_then(|at| at.checked_add(first));
    let start = start.ok_or(Error::BadArgument)?;
    if cores.base <= start && start < cores.end() {
        Ok(())
    } else {
        Err(Error::NotAllowed)
    }
}

/// Checks that a capability gives authority over this core's CPU driver.
pub fn check_own_core(kernel: &mut Kernel, capability: u64) -> Result<(), Error> {
    let own = kernel.processor.own_core();
    covers(kernel, capability, own)
}

/// The APIC id of another core, which the capability covers.
fn other_core(kernel: &mut Kernel, capability: u64, number: u64) -> Result<u32, Error> {
    covers(kernel, capability, number)?;
    if number == kernel.processor.own_core() {
        return Err(Error::BadArgument);
    }
    let core = kernel.processor.machine.cores().get(number as usize);
    Ok(core.ok_or(Error::BadArgument)?.apic_id)
}

/// A port, counted from the first that the capability covers.
fn port(kernel: &mut Kernel, ports: u64, index: u64, rights: Rights) -> Result<u16, Error> {
    let ports = kernel.find(ports, Kind::IoPort, rights)?;
    if index >= ports.bytes {
        return Err(Error::OutOfRange);
    }
    Ok((ports.base - Resource::Ports.range().start + index) as u16)
}

fn port_write(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let [ports, index, bytes, ref words @ ..] = arguments;
    let port = port(kernel, ports, index, Rights::WRITE)?;
    if bytes > 24 {
        return Err(Error::BadArgument.into());
    }
    for at in 0..bytes as usize {
        let byte = (words[at / 8] >> (at % 8 * 8)) as u8;
        // SAFETY: the caller was given this port.
        unsafe { x86::io::outb(port, byte) };
    }
    DONE
}

fn power_off(kernel: &mut Kernel, status: i32) -> ! {
    let record = record();
    // SAFETY: the record is mapped, and this core's to write. The status goes first: who
    // sees the flag may read it.
    unsafe {
        (&raw mut (*record).exit_status).write_volatile(status);
        (&raw mut (*record).has_exit_status).write_volatile(1);
    }
    set_state(state::STOPPED);
    fault::try_debug_exit(abi::command_line::EXIT_VALUE);
    kernel.processor.apic.silence();
    cpu::halt()
}

fn kernel_mapping(kernel: &mut Kernel, from: u64) -> Answer {
    // SAFETY: the record is mapped.
    let own = unsafe { (&raw const (*record()).kernel_page_table).read() };
    let mapping =
        paging::next_kernel_mapping(&kernel.processor.ram, own, from).ok_or(Error::NotFound)?;
    let mut asked = rights::READ;
    if mapping.flags & WRITABLE != 0 {
        asked |= rights::WRITE;
    }
    if mapping.flags & NO_EXECUTE == 0 {
        asked |= rights::EXECUTE;
    }
    if mapping.flags & UNCACHED != 0 {
        asked |= rights::UNCACHED;
    }
    Ok(Outcome::Results([
        mapping.address,
        mapping.physical,
        mapping.bytes,
        asked,
        0,
        0,
    ]))
}

/// Does what a stray pointer would: writes through the direct map without asking whether
/// the page is ours. Where it is not, nothing is mapped there, and this core is lost.
fn wild_write(kernel: &mut Kernel, physical: u64) -> Answer {
    if !kernel.processor.test_hooks {
        return Err(Error::TestHooksOff.into());
    }
    let target = (DIRECT_MAP.wrapping_add(physical)) as *mut u64;
    log!("test hook: writing to physical address {physical:#x}");
    // SAFETY: none. This is the fault that the test asks for; the page tables are what
    // keeps it from doing harm, and that is what the test is about.
    unsafe { target.write_volatile(0xdead_beef_dead_beef) };
    DONE
}
