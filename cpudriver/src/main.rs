//! The CPU driver: Atoll's kernel. Every core runs its own copy, in its own memory, and
//! knows of no other core but how to ring it.
//!
//! Core 0 comes from the boot loader by [`start`], finds out what machine it is on, lays
//! out memory for itself, and goes on there; any other core comes from the trampoline, in
//! memory that a monitor laid out for it. From [`main`] on there is no difference.
//!
//! | module           | what it is                                                      |
//! |------------------|-----------------------------------------------------------------|
//! | `early`          | core 0 until it is in its own memory                            |
//! | `discover`       | cores, RAM, devices: what the boot loader, ACPI and CPUID tell  |
//! | `arch`           | processor: tables, entries and exits, local APIC, trampoline    |
//! | `kernel`         | the state of a CPU driver: capabilities, and the processor       |
//! | `processor`      | dispatchers: who runs next, and until when                      |
//! | `scheduler`      | the policy by which it decides                                  |
//! | `dispatcher`     | what is scheduled                                               |
//! | `lrpc`           | calls from one dispatcher to another                            |
//! | `finalise`       | what goes with a capability                                     |
//! | `system_calls`   | what ring 3 may ask for                                         |
//! | `recording`      | what is recorded of all this in the trace                       |
//! | `clock`          | nanoseconds since the start                                     |
//! | `fault`          | reports of what went wrong in ring 0                            |
//! | `log`            | the log ring                                                    |
//! | `local`          | statics without locks                                           |
//!
//! The CPU driver is sequential: one stack, interrupts off, no blocking, no allocation.
#![no_std]
#![no_main]

mod arch;
mod clock;
mod discover;
mod dispatcher;
mod early;
mod fault;
mod finalise;
mod kernel;
mod local;
mod log;
mod lrpc;
mod processor;
mod recording;
mod scheduler;
mod system_calls;

use arch::entry::Frame;
use kernel::Kernel;

/// Core 0 comes here from the boot loader.
#[unsafe(no_mangle)]
extern "C" fn start() -> ! {
    early::boot()
}

/// Every core comes here, in its own memory, with a stack and nothing else.
extern "C" fn main() -> ! {
    early::note_own_memory();
    let kernel = Kernel::initialise(); // descriptor tables, local APIC, clock
    kernel.create_monitor(); // the loader put its image beside ours
    choose() // and from here on, somebody calls or interrupts
}

/// What may have changed who runs is done: goes on with whoever does.
extern "C" fn choose() -> ! {
    // SAFETY: whoever comes here has made its last use of its own reference.
    let kernel = unsafe { kernel::kernel() };
    kernel.go_on()
}

/// Nobody wanted to run, and something is left to do: does a piece of it.
extern "C" fn work() -> ! {
    // SAFETY: comes from where ring 0 idles, which holds no reference.
    let kernel = unsafe { kernel::kernel() };
    if kernel.clean() {
        choose()
    }
    // It is all done, or waits for the monitor, whose next call does more of it.
    kernel.processor.go_on()
}

/// Something interrupted: a device, the timer, another core, or an exception.
extern "C" fn interrupt(frame: &Frame) -> ! {
    let is_exception = frame.vector < 32;
    if !frame.interrupted_user() && is_exception {
        fault::kernel_exception(frame);
    }
    // SAFETY: an entry into ring 0, and the only reference: ring 0 is interrupted only
    // where it idles, and that code holds none.
    let kernel = unsafe { kernel::kernel() };
    if frame.interrupted_user() {
        kernel.processor.save(frame);
    }
    if matches!(frame.vector, 2 | 8 | 18) {
        fault::kernel_exception(frame); // not the fault of whoever ran
    }
    if is_exception {
        kernel.exception(frame);
    } else {
        kernel.processor.interrupt(frame.vector);
    }
    choose()
}
