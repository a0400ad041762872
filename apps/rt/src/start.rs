//! From the first instruction to `main`, and from there to the exit.

use crate::{console, heap, span, system_call};
use abi::layout::USER_STARTUP;
use abi::startup::Startup;

/// What this domain was told at its start.
pub fn startup() -> &'static Startup {
    // SAFETY: whoever started this domain mapped the page there, read-only, for its life;
    // every bit pattern is a `Startup`.
    unsafe { &*(USER_STARTUP as *const Startup) }
}

/// Runs `main`, or in a member of a span what it was joined for, and exits with what it returns.
pub fn run(main: fn() -> i32) -> ! {
    heap::initialise();
    let status = match span::function() {
        Some((function, argument)) => function(argument),
        None => main(),
    };
    console::flush();
    system_call::exit(status)
}

/// Ends the program with a message in the CPU driver's log: for trouble in which nothing
/// else can be relied on.
pub fn abort(reason: core::fmt::Arguments<'_>) -> ! {
    use core::fmt::Write;
    // The log takes whatever it is given.
    let _ = writeln!(system_call::LogWriter, "{reason}");
    system_call::exit(101)
}

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(information: &core::panic::PanicInfo<'_>) -> ! {
    abort(format_args!("{information}"))
}
