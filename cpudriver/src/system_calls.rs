//! System calls: what each does. Numbers, arguments and results are [`abi::syscall`]'s.

use crate::arch::{cpu, trampoline_page_allowed};
use crate::dispatcher::{Dispatcher, Doorbell, State};
use crate::kernel::{Kernel, MONITOR, record, set_state};
use crate::log;
use abi::layout::{DIRECT_MAP, PAGE, USER_END, USER_MIN};
use abi::limits::DOORBELL_SLOTS;
use abi::record::{Counters, state};
use abi::syscall::{self, DISPATCHER_BYTES, Error, FIRST_DOORBELL, LAST_DOORBELL, life, rights};
use loader::paging::{self, NO_EXECUTE, PRESENT, TableMemory, UNCACHED, USER, WRITABLE};

/// Arguments of a call, in the order of the ABI.
pub type Arguments = [u64; 6];

/// Results of a call, in the order of the ABI.
#[derive(Default)]
pub struct Results(pub [u64; 5]);

/// What a call comes to: results, or an error with at most one result.
type Answer = Result<Results, paging::Refusal>;

const DONE: Answer = Ok(Results([0; 5]));

fn value(value: u64) -> Answer {
    Ok(Results([value, 0, 0, 0, 0]))
}

/// Carries out call `number` of the current dispatcher.
pub fn call(kernel: &mut Kernel, number: u64, arguments: Arguments) -> Answer {
    match number {
        syscall::NULL => DONE,
        syscall::LOG => log_text(kernel, arguments),
        syscall::RING => ring(kernel, arguments[0]),
        _ if !(syscall::MAP_TABLE..=syscall::LOG_WRITTEN).contains(&number) => {
            Err(Error::NoSuchCall.into())
        }
        _ if kernel.current != MONITOR => Err(Error::NotAllowed.into()),
        _ => monitor_call(kernel, number, arguments),
    }
}

/// The calls of the monitor.
fn monitor_call(kernel: &mut Kernel, number: u64, arguments: Arguments) -> Answer {
    let [a, b, c, d, e, _] = arguments;
    match number {
        syscall::MAP_TABLE => map_table(kernel, a, b, c, d),
        syscall::MAP => {
            let root = root(kernel, a)?;
            paging::check_user_range(b, d)?;
            let flags = paging::user_flags(e)?;
            paging::map(&mut kernel.ram, root, b, c, d, flags)?;
            DONE
        }
        syscall::UNMAP => {
            let root = root(kernel, a)?;
            paging::check_user_range(b, c)?;
            let loaded = kernel.is_loaded(root);
            let count = paging::unmap(&mut kernel.ram, root, b, c, |address| {
                if loaded {
                    cpu::forget_translation(address);
                }
            });
            value(count)
        }
        syscall::MAKE_ROOT => make_root(kernel, a),
        syscall::MAKE_DISPATCHER => make_dispatcher(kernel, arguments),
        syscall::DESTROY_DISPATCHER => {
            let handle = handle(kernel, a)?;
            if handle == MONITOR {
                return Err(Error::BadArgument.into());
            }
            kernel.destroy(handle);
            DONE
        }
        syscall::DISPATCHER => {
            let handle = handle(kernel, a)?;
            let dispatcher = kernel.dispatcher(handle).ok_or(Error::NotFound)?;
            let rip = dispatcher.registers.rip;
            Ok(Results(match dispatcher.state {
                State::Runnable | State::Waiting(_) => [life::ALIVE, 0, 0, rip, 0],
                State::Exited(status) => [life::EXITED, u64::from(status as u32), 0, rip, 0],
                State::Faulted(fault) => {
                    [life::FAULTED, fault.vector, fault.error, rip, fault.address]
                }
            }))
        }
        syscall::REGISTER => register(kernel, a, b),
        syscall::GRANT_DOORBELL => grant_doorbell(kernel, a, b, c, d),
        syscall::SEND_INIT => {
            kernel.apic.send_init(apic_id(kernel, a)?);
            DONE
        }
        syscall::SEND_STARTUP => {
            let apic_id = apic_id(kernel, a)?;
            let page = trampoline_page_allowed(kernel.machine, b).ok_or(Error::BadArgument)?;
            kernel.apic.send_startup(apic_id, page);
            DONE
        }
        syscall::PORT_READ => {
            let port = port(a)?;
            // SAFETY: a serial port; reading one of its registers harms nobody.
            value(u64::from(unsafe { x86::io::inb(port) }))
        }
        syscall::PORT_WRITE => port_write(arguments),
        syscall::POWER_OFF => power_off(kernel, a as i32),
        syscall::KERNEL_MAPPING => kernel_mapping(kernel, a),
        syscall::WILD_WRITE => wild_write(kernel, a),
        syscall::RUNNING => {
            // SAFETY: the record is mapped, and this core's to write.
            unsafe { (&raw mut (*record()).epoch).write_volatile(a as u32) };
            set_state(state::RUNNING);
            DONE
        }
        syscall::COUNTER => {
            // SAFETY: the record is mapped, and only this CPU driver writes to it.
            let counters = unsafe { (&raw const (*record()).counters).read_volatile() };
            let words: [u64; size_of::<Counters>() / 8] = zerocopy::transmute!(counters);
            value(*words.get(a as usize).ok_or(Error::BadArgument)?)
        }
        syscall::LOG_WRITTEN => {
            // SAFETY: the record is mapped.
            value(unsafe { (&raw const (*record()).log_written).read_volatile() })
        }
        _ => Err(Error::NoSuchCall.into()),
    }
}

fn log_text(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let bytes = arguments[0] as usize;
    if arguments[0] > 40 {
        return Err(Error::BadArgument.into());
    }
    let current = kernel.current;
    let dispatcher = kernel.dispatcher(current).ok_or(Error::NotFound)?;
    for index in 0..bytes {
        let byte = (arguments[1 + index / 8] >> (index % 8 * 8)) as u8;
        if byte != b'\n' && dispatcher.line.try_push(byte).is_ok() {
            continue;
        }
        log!(
            "{}: {}",
            dispatcher.name(),
            core::str::from_utf8(&dispatcher.line).unwrap_or("(not UTF-8)")
        );
        dispatcher.line.clear();
        if byte != b'\n' {
            dispatcher.line.push(byte);
        }
    }
    if current != MONITOR {
        kernel.signal(MONITOR);
    }
    DONE
}

fn ring(kernel: &mut Kernel, slot: u64) -> Answer {
    let current = kernel.current;
    let dispatcher = kernel.dispatcher(current).ok_or(Error::NotFound)?;
    let doorbell = *dispatcher
        .doorbells
        .get(slot as usize)
        .ok_or(Error::NoDoorbell)?;
    if doorbell.vector == 0 {
        return Err(Error::NoDoorbell.into());
    }
    // SAFETY: the record is mapped.
    let own = unsafe { (&raw const (*record()).apic_id).read() };
    if doorbell.apic_id == own {
        let owner = kernel.doorbells[usize::from(doorbell.vector)];
        if owner != 0 {
            kernel.signal(usize::from(owner) - 1);
        }
    } else {
        crate::kernel::count!(doorbells_sent);
        kernel.apic.send(doorbell.apic_id, doorbell.vector);
    }
    DONE
}

/// A page table root that the monitor named: a page of private RAM.
fn root(kernel: &Kernel, physical: u64) -> Result<u64, Error> {
    if kernel.ram.holds(physical, PAGE) {
        Ok(physical)
    } else {
        Err(Error::ForeignMemory)
    }
}

fn handle(kernel: &mut Kernel, number: u64) -> Result<usize, Error> {
    let handle = usize::try_from(number).map_err(|_| Error::NotFound)?;
    kernel
        .dispatcher(handle)
        .map(|_| handle)
        .ok_or(Error::NotFound)
}

/// The APIC id of another core of this machine.
fn apic_id(kernel: &Kernel, number: u64) -> Result<u32, Error> {
    // SAFETY: the record is mapped.
    let own = unsafe { (&raw const (*record()).apic_id).read() };
    let mut cores = kernel.machine.cores().iter();
    match cores.find(|core| u64::from(core.apic_id) == number) {
        Some(core) if core.apic_id != own => Ok(core.apic_id),
        _ => Err(Error::BadArgument),
    }
}

/// The ports that monitors may touch: those of the first serial port.
fn port(number: u64) -> Result<u16, Error> {
    match number {
        0x3f8..=0x3ff => Ok(number as u16),
        _ => Err(Error::BadArgument),
    }
}

fn map_table(kernel: &mut Kernel, a: u64, address: u64, level: u64, page: u64) -> Answer {
    let root = root(kernel, a)?;
    if !(1..=3).contains(&level) || address < USER_MIN && level == 1 && address != 0 {
        return Err(Error::BadArgument.into());
    }
    if address >= USER_END {
        return Err(Error::KernelHalf.into());
    }
    if !kernel.ram.zero_page(page) {
        return Err(Error::ForeignMemory.into());
    }
    let flags = PRESENT | WRITABLE | USER;
    paging::map_table(&mut kernel.ram, root, address, level as u32, page, flags)?;
    DONE
}

fn make_root(kernel: &mut Kernel, page: u64) -> Answer {
    if !kernel.ram.zero_page(page) {
        return Err(Error::ForeignMemory.into());
    }
    // SAFETY: the record is mapped.
    let own = unsafe { (&raw const (*record()).kernel_page_table).read() };
    for entry in 256..512 {
        let shared = kernel.ram.read(own, entry);
        kernel.ram.write(page, entry, shared);
    }
    DONE
}

fn make_dispatcher(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let [memory, page_table, entry, vector, name_low, name_high] = arguments;
    let root = root(kernel, page_table)?;
    let place = kernel
        .ram
        .pointer(memory, DISPATCHER_BYTES)
        .ok_or(Error::ForeignMemory)?;
    if !(USER_MIN..USER_END).contains(&entry) {
        return Err(Error::BadArgument.into());
    }
    if !(FIRST_DOORBELL..=LAST_DOORBELL).contains(&vector) || kernel.doorbells[vector as usize] != 0
    {
        return Err(Error::BadVector.into());
    }
    let handle = kernel
        .dispatchers
        .iter()
        .position(Option::is_none)
        .ok_or(Error::TooMany)?;
    let mut name = [0; 16];
    name[..8].copy_from_slice(&name_low.to_le_bytes());
    name[8..].copy_from_slice(&name_high.to_le_bytes());
    // SAFETY: page-aligned private RAM, which the monitor owns and gave for this; it gets
    // it back when the dispatcher is destroyed.
    let dispatcher = unsafe { Dispatcher::create(place, root, entry, vector as u8, name) };
    kernel.dispatchers[handle] = Some(dispatcher);
    kernel.doorbells[vector as usize] = handle as u8 + 1;
    kernel.run_queue.push_back(handle);
    kernel.arm_timer();
    value(handle as u64)
}

fn register(kernel: &mut Kernel, a: u64, index: u64) -> Answer {
    let handle = handle(kernel, a)?;
    let registers = &kernel.dispatcher(handle).ok_or(Error::NotFound)?.registers;
    let all = [
        registers.rax,
        registers.rbx,
        registers.rcx,
        registers.rdx,
        registers.rsi,
        registers.rdi,
        registers.rbp,
        registers.rsp,
        registers.r8,
        registers.r9,
        registers.r10,
        registers.r11,
        registers.r12,
        registers.r13,
        registers.r14,
        registers.r15,
        registers.rip,
        registers.rflags,
    ];
    value(*all.get(index as usize).ok_or(Error::BadArgument)?)
}

fn grant_doorbell(kernel: &mut Kernel, a: u64, slot: u64, apic: u64, vector: u64) -> Answer {
    if slot >= DOORBELL_SLOTS as u64 {
        return Err(Error::BadArgument.into());
    }
    if !(FIRST_DOORBELL..=LAST_DOORBELL).contains(&vector) {
        return Err(Error::BadVector.into());
    }
    if !kernel
        .machine
        .cores()
        .iter()
        .any(|core| u64::from(core.apic_id) == apic)
    {
        return Err(Error::BadArgument.into());
    }
    let handle = handle(kernel, a)?;
    let dispatcher = kernel.dispatcher(handle).ok_or(Error::NotFound)?;
    dispatcher.doorbells[slot as usize] = Doorbell {
        apic_id: apic as u32,
        vector: vector as u8,
    };
    DONE
}

fn port_write(arguments: Arguments) -> Answer {
    let port = port(arguments[0])?;
    let bytes = arguments[1] as usize;
    if arguments[1] > 32 {
        return Err(Error::BadArgument.into());
    }
    for index in 0..bytes {
        let byte = (arguments[2 + index / 8] >> (index % 8 * 8)) as u8;
        // SAFETY: a serial port, which the monitor of core 0 drives.
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
    if kernel.debug_exit {
        cpu::debug_exit(abi::command_line::EXIT_VALUE);
    }
    kernel.apic.silence();
    cpu::halt()
}

fn kernel_mapping(kernel: &mut Kernel, from: u64) -> Answer {
    // SAFETY: the record is mapped.
    let own = unsafe { (&raw const (*record()).kernel_page_table).read() };
    let mapping = paging::next_kernel_mapping(&kernel.ram, own, from).ok_or(Error::NotFound)?;
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
    Ok(Results([
        mapping.address,
        mapping.physical,
        mapping.bytes,
        asked,
        0,
    ]))
}

/// Does what a stray pointer would: writes through the direct map without asking whether
/// the page is ours. Where it is not, nothing is mapped there, and this core is lost.
fn wild_write(kernel: &mut Kernel, physical: u64) -> Answer {
    if !kernel.test_hooks {
        return Err(Error::TestHooksOff.into());
    }
    let target = (DIRECT_MAP.wrapping_add(physical)) as *mut u64;
    log!("test hook: writing to physical address {physical:#x}");
    // SAFETY: none. This is the fault that the test asks for; the page tables are what
    // keeps it from doing harm, and that is what the test is about.
    unsafe { target.write_volatile(0xdead_beef_dead_beef) };
    DONE
}
