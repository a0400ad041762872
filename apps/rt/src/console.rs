//! Printing: text goes to the monitor line by line, and from there to the console of core 0.
//! Lines of different programs never mix.

use crate::{monitor, startup, system_call};
use alloc::vec::Vec;
use core::fmt::{self, Write};
use spin::Mutex;

/// Text that is not a whole line yet.
static LINE: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if startup().monitor_channel == 0 {
            return system_call::LogWriter.write_str(text);
        }
        let mut line = LINE.lock();
        for piece in text.as_bytes().split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let sent = monitor::write(&line);
                line.clear();
                sent.map_err(|_| fmt::Error)?;
            }
        }
        Ok(())
    }
}

/// Prints; use [`crate::print!`].
pub fn print(text: fmt::Arguments<'_>) {
    // Without its monitor a program has nobody left to tell.
    let _ = Console.write_fmt(text);
}

/// Sends out what was printed without a newline, as a line.
pub(crate) fn flush() {
    if !LINE.lock().is_empty() {
        print(format_args!("\n"));
    }
}

/// Prints text.
#[macro_export]
macro_rules! print {
    ($($words:tt)*) => { $crate::console::print(format_args!($($words)*)) };
}

/// Prints a line.
#[macro_export]
macro_rules! println {
    () => { $crate::console::print(format_args!("\n")) };
    ($($words:tt)*) => { $crate::console::print(format_args!("{}\n", format_args!($($words)*))) };
}
