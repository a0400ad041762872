//! Reports of what went wrong in ring 0. They end in the log ring, where the host tool
//! finds them whatever else is broken; then this core, and no other, is lost.

use crate::arch::entry::{Frame, Registers};
use crate::arch::{apic::LocalApic, cpu};
use crate::dispatcher::State;
use crate::kernel::{record, set_state};
use crate::log;
use abi::layout::{KERNEL_STACK_BYTES, KERNEL_STACK_COUNT, KERNEL_SYMBOLS, kernel_stack_top};
use abi::record::state;
use core::fmt::{self, Display};
use core::sync::atomic::{AtomicBool, Ordering};

/// Names of the exceptions.
const NAMES: [&str; 22] = [
    "divide error",
    "debug trap",
    "non-maskable interrupt",
    "breakpoint",
    "overflow",
    "bound range exceeded",
    "invalid opcode",
    "device not available",
    "double fault",
    "coprocessor segment overrun",
    "invalid task state",
    "segment not present",
    "stack segment fault",
    "general protection fault",
    "page fault",
    "reserved",
    "floating-point error",
    "alignment check",
    "machine check",
    "vector floating-point error",
    "virtualization exception",
    "control protection exception",
];

/// Most frames of a backtrace.
const MAX_FRAMES: usize = 16;

/// Whether QEMU's `isa-debug-exit` device is there. Apart from the rest of the CPU driver's
/// state, because who reports a fault may not look at that.
static DEBUG_EXIT: AtomicBool = AtomicBool::new(false);

/// Notes whether QEMU's `isa-debug-exit` device is there.
pub fn set_debug_exit(is_there: bool) {
    DEBUG_EXIT.store(is_there, Ordering::Relaxed);
}

/// Ends QEMU with this value, where its device is there.
pub fn try_debug_exit(value: u8) {
    if DEBUG_EXIT.load(Ordering::Relaxed) {
        cpu::debug_exit(value);
    }
}

/// Name of an exception vector.
pub fn name(vector: u64) -> &'static str {
    NAMES
        .get(vector as usize)
        .copied()
        .unwrap_or("reserved exception")
}

/// An address with the name of the function it lies in.
struct Symbol(u64);

impl Display for Symbol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: the loader mapped the table, read-only, as long as the record says.
        let text = unsafe {
            let bytes = (&raw const (*record()).symbols_bytes).read() as usize;
            core::slice::from_raw_parts(KERNEL_SYMBOLS as *const u8, bytes)
        };
        let text = core::str::from_utf8(text).unwrap_or("");
        let below = text
            .lines()
            .filter_map(|line| {
                let (address, name) = line.split_once(' ')?;
                Some((u64::from_str_radix(address, 16).ok()?, name))
            })
            // The table is the monitor's too, in the other half of the address space.
            .filter(|(address, _)| *address <= self.0 && (address ^ self.0) >> 63 == 0)
            .max_by_key(|(address, _)| *address);
        match below {
            Some((address, name)) => {
                write!(formatter, "{:#018x} {name}+{:#x}", self.0, self.0 - address)
            }
            None => write!(formatter, "{:#018x}", self.0),
        }
    }
}

/// The way the kernel came, by frame pointers.
fn backtrace(mut frame: u64) {
    for _ in 0..MAX_FRAMES {
        let on_stack = (0..KERNEL_STACK_COUNT).any(|stack| {
            let top = kernel_stack_top(stack);
            frame.is_multiple_of(8) && frame >= top - KERNEL_STACK_BYTES && frame <= top - 16
        });
        if !on_stack {
            return;
        }
        // SAFETY: two aligned words of a mapped kernel stack.
        let (next, address) = unsafe {
            let words = frame as *const u64;
            (words.read(), words.add(1).read())
        };
        if address == 0 {
            return;
        }
        log!("  called from {}", Symbol(address));
        frame = next;
    }
}

fn log_registers(registers: &Registers) {
    let r = registers;
    log!(
        "  rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}",
        r.rax,
        r.rbx,
        r.rcx,
        r.rdx
    );
    log!(
        "  rsi {:016x} rdi {:016x} rbp {:016x} rsp {:016x}",
        r.rsi,
        r.rdi,
        r.rbp,
        r.rsp
    );
    log!(
        "  r8  {:016x} r9  {:016x} r10 {:016x} r11 {:016x}",
        r.r8,
        r.r9,
        r.r10,
        r.r11
    );
    log!(
        "  r12 {:016x} r13 {:016x} r14 {:016x} r15 {:016x}",
        r.r12,
        r.r13,
        r.r14,
        r.r15
    );
    log!("  rip {} rflags {:#x}", Symbol(r.rip), r.rflags);
}

/// What a page fault tried, in words.
struct Attempt(u64);

impl Display for Attempt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match (self.0 & 2 != 0, self.0 & 16 != 0) {
            (true, _) => "writing to",
            (_, true) => "executing",
            _ => "reading from",
        };
        let why = if self.0 & 1 == 0 {
            "not mapped"
        } else {
            "not allowed"
        };
        write!(formatter, "{what} an address that is {why}")
    }
}

/// An exception in ring 0.
pub fn kernel_exception(frame: &Frame) -> ! {
    if frame.vector == 14 {
        log!(
            "PANIC: page fault in the CPU driver, {}: {:#018x}",
            Attempt(frame.error),
            cpu::fault_address()
        );
    } else {
        log!(
            "PANIC: {} in the CPU driver, error code {:#x}",
            name(frame.vector),
            frame.error
        );
    }
    log_registers(&frame.registers());
    backtrace(frame.rbp);
    lose_core()
}

/// The monitor ended: without it, the core has no part in the system.
pub fn monitor_ended(state: State, registers: &Registers) -> ! {
    match state {
        State::Faulted(fault) if fault.vector == 14 => {
            log!(
                "PANIC: page fault in the monitor, {}: {:#018x}",
                Attempt(fault.error),
                fault.address
            );
        }
        State::Faulted(fault) => {
            log!(
                "PANIC: {} in the monitor, error code {:#x}",
                name(fault.vector),
                fault.error
            );
        }
        State::Exited(status) => log!("PANIC: the monitor exited with status {status}"),
        State::Runnable | State::Waiting(_) => log!("PANIC: the monitor was stopped"),
    }
    log_registers(registers);
    lose_core()
}

/// Halts this core for good; the others go on.
fn lose_core() -> ! {
    set_state(state::PANICKED);
    // SAFETY: the record is mapped; this field of it never changes.
    let core = unsafe { (&raw const (*record()).core).read() };
    if core == 0 {
        // Core 0 carries the console: without it nobody would hear of the end.
        try_debug_exit(abi::command_line::PANIC_VALUE);
    }
    LocalApic::new(0).silence();
    cpu::halt()
}

#[panic_handler]
fn panic(information: &core::panic::PanicInfo<'_>) -> ! {
    if !crate::early::in_own_memory() {
        crate::early::give_up(format_args!("{information}"));
    }
    log!("PANIC: {information}");
    let frame: u64;
    // SAFETY: reads the frame pointer.
    unsafe { core::arch::asm!("mov {}, rbp", out(reg) frame) };
    backtrace(frame);
    lose_core()
}
