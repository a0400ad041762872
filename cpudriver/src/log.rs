//! The log ring: lines of text in this core's own memory.
//!
//! The monitor reads it (it has the ring mapped) and sends the lines on to the console;
//! the host tool reads it out of the guest's memory when a core is lost.

use abi::layout::{KERNEL_LOG, KERNEL_RECORD};
use abi::limits::LOG_BYTES;
use abi::record::CoreRecord;
use core::fmt::{self, Write};

/// Writer at the end of the ring.
pub struct Log;

impl Write for Log {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let record = KERNEL_RECORD as *mut CoreRecord;
        // SAFETY: the loader mapped record and ring; the index stays below the ring's
        // size. Volatile, because monitor and host tool read them behind our back.
        unsafe {
            let written = &raw mut (*record).log_written;
            let mut at = written.read_volatile();
            for byte in text.bytes() {
                let slot = KERNEL_LOG + at % LOG_BYTES as u64;
                (slot as *mut u8).write_volatile(byte);
                at += 1;
            }
            written.write_volatile(at);
        }
        Ok(())
    }
}

/// Logs one line.
#[macro_export]
macro_rules! log {
    ($($words:tt)*) => {{
        use core::fmt::Write;
        // Writing to memory cannot fail.
        let _ = writeln!($crate::log::Log, $($words)*);
    }};
}
