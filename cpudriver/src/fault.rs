//! Reports of what went wrong in ring 0. They end in the log ring, where the host tool
//! finds them whatever else is broken; then this core, and no other, is lost.

use crate::arch::entry::{Frame, Registers};
use crate::arch::{apic::LocalApic, cpu};
use crate::dispatcher::{Dispatcher, State};
use crate::kernel::{record, set_state};
use crate::log;
use abi::exception::{self, Detail};
use abi::layout::{KERNEL_STACK_BYTES, KERNEL_STACK_COUNT, KERNEL_SYMBOLS, kernel_stack_top};
use abi::record::state;
use abi::symbols;
use core::fmt::{self, Display};
use core::sync::atomic::{AtomicBool, Ordering};

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
        match symbols::find(text, self.0) {
            Some((start, name)) => {
                write!(formatter, "{:#018x} {name}+{:#x}", self.0, self.0 - start)
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

/// An exception in ring 0.
pub fn kernel_exception(frame: &Frame) -> ! {
    let detail = Detail {
        vector: frame.vector,
        error: frame.error,
        address: cpu::fault_address(),
    };
    log!(
        "PANIC: {} in the CPU driver, {detail}",
        exception::name(frame.vector)
    );
    log_registers(&frame.registers());
    backtrace(frame.rbp);
    lose_core()
}

/// The monitor ended: without it, the core has no part in the system.
pub fn monitor_ended(monitor: &Dispatcher) -> ! {
    let Dispatcher { fault, status, .. } = monitor;
    if monitor.state == State::Faulted {
        log!(
            "PANIC: {} in the monitor, {fault}",
            exception::name(fault.vector)
        );
    } else {
        log!("PANIC: the monitor exited with status {status}");
    }
    log_registers(&monitor.registers);
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
