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
use abi::syscall::Error;
use loader::paging;

pub fn port_read(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let [ports, index, width, ..] = arguments;
    let port = port(kernel, ports, index, width, Rights::READ)?;
    // SAFETY: the caller was given these ports.
    value(unsafe {
        match width {
            1 => u64::from(x86::io::inb(port)),
            2 => u64::from(x86::io::inw(port)),
            _ => u64::from(x86::io::inl(port)),
        }
    })
}

pub fn send_init(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let apic_id = other_core(kernel, arguments[0], arguments[1])?;
    kernel.processor.apic.send_init(apic_id);
    DONE
}

pub fn send_startup(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let apic_id = other_core(kernel, arguments[0], arguments[1])?;
    let page = trampoline_page_allowed(kernel.processor.machine, arguments[2]);
    let page = page.ok_or(Error::BadArgument)?;
    kernel.processor.apic.send_startup(apic_id, page);
    DONE
}

pub fn running(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    check_own_core(kernel, arguments[0])?;
    // SAFETY: the record is mapped, and this core's to write.
    unsafe { (&raw mut (*record()).epoch).write_volatile(arguments[1] as u32) };
    set_state(state::RUNNING);
    DONE
}

pub fn counter(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    check_own_core(kernel, arguments[0])?;
    // SAFETY: the record is mapped, and only this CPU driver writes to it.
    let counters = unsafe { (&raw const (*record()).counters).read_volatile() };
    let words: [u64; size_of::<Counters>() / 8] = zerocopy::transmute!(counters);
    let counter = words.get(arguments[1] as usize);
    value(*counter.ok_or(Error::BadArgument)?)
}

pub fn log_written(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    check_own_core(kernel, arguments[0])?;
    // SAFETY: the record is mapped.
    value(unsafe { (&raw const (*record()).log_written).read_volatile() })
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

/// A port, counted from the first that the capability covers, where a value of `width` bytes is
/// read or written: 1, 2 or 4, and all of its ports are the capability's.
fn port(
    kernel: &mut Kernel,
    ports: u64,
    index: u64,
    width: u64,
    rights: Rights,
) -> Result<u16, Error> {
    let ports = kernel.find(ports, Kind::IoPort, rights)?;
    if !matches!(width, 1 | 2 | 4) {
        return Err(Error::BadArgument);
    }
    if index.checked_add(width).is_none_or(|end| end > ports.bytes) {
        return Err(Error::OutOfRange);
    }
    Ok((ports.base - Resource::Ports.range().start + index) as u16)
}

pub fn port_write(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let [ports, index, bytes, ref words @ ..] = arguments;
    let port = port(kernel, ports, index, 1, Rights::WRITE)?;
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

pub fn port_write_value(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let [ports, index, width, value, ..] = arguments;
    let port = port(kernel, ports, index, width, Rights::WRITE)?;
    // SAFETY: the caller was given these ports.
    unsafe {
        match width {
            1 => x86::io::outb(port, value as u8),
            2 => x86::io::outw(port, value as u16),
            _ => x86::io::outl(port, value as u32),
        }
    }
    DONE
}

pub fn power_off(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    check_own_core(kernel, arguments[0])?;
    let status = arguments[1] as i32;
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

pub fn stop_core(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    check_own_core(kernel, arguments[0])?;
    kernel.processor.apic.silence();
    // Last: who sees it takes this core for quiet.
    set_state(state::STOPPED);
    cpu::halt()
}

pub fn kernel_mapping(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    check_own_core(kernel, arguments[0])?;
    let from = arguments[1];
    // SAFETY: the record is mapped.
    let own = unsafe { (&raw const (*record()).kernel_page_table).read() };
    let mapping =
        paging::next_kernel_mapping(&kernel.processor.ram, own, from).ok_or(Error::NotFound)?;
    let asked = paging::rights_of(mapping.flags);
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
pub fn wild_write(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    check_own_core(kernel, arguments[0])?;
    let physical = arguments[1];
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
