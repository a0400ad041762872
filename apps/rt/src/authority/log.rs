//! The CPU driver's log, as its monitor reads it.

use super::ask;
use abi::capability::monitor::CORES;
use abi::layout::MONITOR_LOG;
use abi::limits::LOG_BYTES;
use abi::syscall;
use alloc::vec::Vec;

/// The CPU driver's log ring, read from where the last look ended.
pub struct KernelLog {
    seen: u64,
}

impl KernelLog {
    /// A reader that has seen nothing yet.
    pub fn new() -> Self {
        Self { seen: 0 }
    }

    /// Takes what was written since, at most a ring full; returns how many bytes had been
    /// overwritten before.
    pub fn read(&mut self, text: &mut Vec<u8>) -> u64 {
        let written = ask(syscall::LOG_WRITTEN, [CORES.0, 0, 0, 0, 0, 0])
            .map_or(self.seen, |results| results[0]);
        let oldest = written.saturating_sub(LOG_BYTES as u64);
        let lost = oldest.saturating_sub(self.seen);
        self.seen = self.seen.max(oldest);
        while self.seen < written {
            let at = (MONITOR_LOG + self.seen % LOG_BYTES as u64) as *const u8;
            // SAFETY: a byte of the ring, which the loader mapped read-only; volatile,
            // because the CPU driver writes it.
            text.push(unsafe { at.read_volatile() });
            self.seen += 1;
        }
        lost
    }
}

impl Default for KernelLog {
    fn default() -> Self {
        Self::new()
    }
}
