//! System calls: what each does. Numbers, arguments and results are [`abi::syscall`]'s.

use crate::arch::{cpu, trampoline_page_allowed};
use crate::dispatcher::{Dispatcher, Doorbell, State};
use crate::fault;
use crate::kernel::{Kernel, MONITOR, record, set_state};
use crate::log;
use crate::scheduler::Wake;
use abi::layout::{DIRECT_MAP, PAGE, USER_END, USER_MIN};
use abi::limits::{DOORBELL_SLOTS, PRIORITIES};
use abi::record::{Counters, state};
use abi::syscall::{self, DISPATCHER_BYTES, Error, FIRST_DOORBELL, LAST_DOORBELL, life, rights};
use core::fmt::{self, Write};
use core::ptr::NonNull;
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
            refuse_if_in_use(kernel, c, d * PAGE)?;
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
    let mut ended = false;
    for index in 0..bytes {
        let byte = (arguments[1 + index / 8] >> (index % 8 * 8)) as u8;
        if byte != b'\n' && dispatcher.line.try_push(byte).is_ok() {
            continue;
        }
        // A line that grew too long ends before a character that would be cut.
        let tail = match byte {
            b'\n' => 0,
            _ => cut_character(&dispatcher.line),
        };
        let end = dispatcher.line.len() - tail;
        log!("{}: {}", dispatcher.name(), Line(&dispatcher.line[..end]));
        ended = true;
        dispatcher.line.drain(..end);
        if byte != b'\n' {
            dispatcher.line.push(byte);
        }
    }
    if ended && current != MONITOR {
        kernel.signal(MONITOR, Wake::Call);
    }
    DONE
}

/// A line as a domain wrote it, with dots for what would not show as text.
struct Line<'a>(&'a [u8]);

impl fmt::Display for Line<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                formatter.write_char(if character.is_control() {
                    '.'
                } else {
                    character
                })?;
            }
            if !chunk.invalid().is_empty() {
                formatter.write_char('.')?;
            }
        }
        Ok(())
    }
}

/// Bytes at the end that are the beginning of a UTF-8 character, and not all of it.
fn cut_character(text: &[u8]) -> usize {
    for (index, byte) in text.iter().rev().take(3).enumerate() {
        let bytes = byte.leading_ones() as usize;
        match bytes {
            1 => {} // in the middle of a character
            2..=4 if bytes > index + 1 => return index + 1,
            _ => return 0,
        }
    }
    0
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
            kernel.signal(usize::from(owner) - 1, Wake::Call);
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

/// Checks that the monitor may make an object of this memory: private RAM that it got when it
/// started, and that is no dispatcher's.
fn check_given(kernel: &Kernel, physical: u64, bytes: u64) -> Result<(), Error> {
    if kernel.ram.holds(physical, bytes) {
        refuse_if_in_use(kernel, physical, bytes)
    } else {
        Err(Error::ForeignMemory)
    }
}

/// Refuses memory that this CPU driver uses itself: what the loader filled (image, stacks,
/// page tables), and dispatchers.
fn refuse_if_in_use(kernel: &Kernel, physical: u64, bytes: u64) -> Result<(), Error> {
    let end = physical.saturating_add(bytes);
    let overlaps = |from: u64, to: u64| physical < to && from < end;
    let loaded = kernel.ram.loaded();
    let mut dispatchers = kernel.dispatchers.iter().flatten().map(|dispatcher| {
        let address = dispatcher.as_ptr() as u64;
        address - DIRECT_MAP
    });
    if overlaps(loaded.start, loaded.end)
        || dispatchers.any(|start| overlaps(start, start + DISPATCHER_BYTES))
    {
        return Err(Error::ForeignMemory);
    }
    Ok(())
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
    if !(1..=3).contains(&level) {
        return Err(Error::BadArgument.into());
    }
    if address >= USER_END {
        return Err(Error::KernelHalf.into());
    }
    let level = level as u32;
    check_given(kernel, page, PAGE)?;
    paging::check_no_table(&kernel.ram, root, address, level)?;
    kernel.ram.zero_page(page);
    let flags = PRESENT | WRITABLE | USER;
    paging::map_table(&mut kernel.ram, root, address, level, page, flags)?;
    DONE
}

fn make_root(kernel: &mut Kernel, page: u64) -> Answer {
    check_given(kernel, page, PAGE)?;
    kernel.ram.zero_page(page);
    // SAFETY: the record is mapped.
    let own = unsafe { (&raw const (*record()).kernel_page_table).read() };
    for entry in 256..512 {
        let shared = kernel.ram.read(own, entry);
        kernel.ram.write(page, entry, shared);
    }
    DONE
}

fn make_dispatcher(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let [memory, page_table, entry, how, name_low, name_high] = arguments;
    let (vector, priority) = (how & 0xff, how >> 8);
    let root = root(kernel, page_table)?;
    check_given(kernel, memory, DISPATCHER_BYTES)?;
    let place = kernel
        .ram
        .pointer(memory, DISPATCHER_BYTES)
        .ok_or(Error::ForeignMemory)?;
    if !(USER_MIN..USER_END).contains(&entry) {
        return Err(Error::BadArgument.into());
    }
    if priority >= PRIORITIES as u64 {
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
    let dispatcher = unsafe {
        let (vector, priority) = (vector as u8, priority as u8);
        Dispatcher::create(place, root, entry, vector, priority, name)
    };
    kernel.dispatchers[handle] = NonNull::new(dispatcher);
    kernel.doorbells[vector as usize] = handle as u8 + 1;
    kernel.scheduler.add(handle, priority as u8);
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
    fault::try_debug_exit(abi::command_line::EXIT_VALUE);
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
