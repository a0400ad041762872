//! What a domain finds when it starts: one read-only page.

use crate::limits::{ARGUMENT_BYTES, NAME_BYTES};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// First word of the page: "ATOLLDOM" as it lies in memory.
pub const MAGIC: u64 = u64::from_le_bytes(*b"ATOLLDOM");

/// The startup page, at [`crate::layout::USER_STARTUP`]; the entry point gets its address
/// in `rdi`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Startup {
    /// [`MAGIC`].
    pub magic: u64,
    /// The domain: `core << 32 | number on that core`. Monitors have number 0.
    pub domain: u64,
    /// The first domain of the job that this one belongs to: whoever was started by the
    /// command line or by a monitor. Domains of one job may ring each other.
    pub job: u64,
    /// The domain that asked for it; its job's first domain for the job itself.
    pub parent: u64,
    /// How the machine is run (`tcg`, `icount`, …), UTF-8, filled up with zeros: the label
    /// that every figure measured here must bear.
    pub accelerator: [u8; 16],
    /// Core that it runs on.
    pub core: u32,
    /// Cores that were up when it was started.
    pub core_count: u32,
    /// Those cores: bit `c % 64` of word `c / 64`.
    pub cores: [u64; 4],
    /// NUMA node of each core.
    pub node: [u8; crate::limits::MAX_CORES],
    /// Time-stamp counter at zero of the system's clock.
    pub tsc_start: u64,
    /// Time-stamp counter ticks a second.
    pub tsc_hz: u64,
    /// Heap: address and bytes, mapped and zeroed.
    pub heap: u64,
    /// Bytes of the heap.
    pub heap_bytes: u64,
    /// The channel to the monitor, one page; 0 in a monitor.
    pub monitor_channel: u64,
    /// The vector of this core that wakes this domain.
    pub vector: u32,
    /// In a monitor that was started anew: the round of the view without it, of whoever started it,
    /// higher than that of any life before; then `parent` is that core's monitor, and `cores` are
    /// this one and those of the view. Else 0.
    pub life: u32,
    /// In a monitor, physical: the first byte of private RAM that nothing uses; else 0.
    pub free: u64,
    /// The frame that the domain's parent shares with it; 0 where there is none.
    pub frame: u64,
    /// Bytes of that frame.
    pub frame_bytes: u64,
    /// In a member of a domain that spans cores: address of the function that runs in place of the
    /// program's own first one; else 0.
    pub function: u64,
    /// What that function is given.
    pub argument: u64,
    /// For traces: where the channel to the monitor and the frame lie in physical memory; 0: not said.
    pub monitor_channel_physical: u64,
    /// As above.
    pub frame_physical: u64,
    /// Bytes of the arguments in `arguments`.
    pub arguments_bytes: u64,
    /// Bytes of the environment, which follows them there.
    pub environment_bytes: u64,
    /// Program name, UTF-8, filled up with zeros.
    pub name: [u8; NAME_BYTES],
    /// Arguments, UTF-8, divided by single zero bytes, the program name first; right behind
    /// them the environment, strings `KEY=VALUE` divided in the same way.
    pub arguments: [u8; ARGUMENT_BYTES],
}

impl Startup {
    /// The arguments in order, the program name first.
    pub fn arguments(&self) -> impl Iterator<Item = &str> {
        strings(self.raw_text().0)
    }

    /// The environment: strings `KEY=VALUE`.
    pub fn environment(&self) -> impl Iterator<Item = &str> {
        strings(self.raw_text().1)
    }

    /// The value of a variable of the environment.
    pub fn variable(&self, key: &str) -> Option<&str> {
        let mut pairs = self.environment().filter_map(|text| text.split_once('='));
        pairs.find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// Arguments and environment as they lie there.
    pub fn raw_text(&self) -> (&[u8], &[u8]) {
        let middle = (self.arguments_bytes as usize).min(ARGUMENT_BYTES);
        let rest = (self.environment_bytes as usize).min(ARGUMENT_BYTES - middle);
        (
            &self.arguments[..middle],
            &self.arguments[middle..middle + rest],
        )
    }

    /// Puts arguments and environment there; false if they are too long.
    #[must_use]
    pub fn set_text(&mut self, arguments: &[u8], environment: &[u8]) -> bool {
        let (middle, end) = (arguments.len(), arguments.len() + environment.len());
        if end > ARGUMENT_BYTES {
            return false;
        }
        self.arguments[..middle].copy_from_slice(arguments);
        self.arguments[middle..end].copy_from_slice(environment);
        self.arguments_bytes = middle as u64;
        self.environment_bytes = environment.len() as u64;
        true
    }

    /// How the machine is run.
    pub fn accelerator(&self) -> &str {
        let end = self.accelerator.iter().position(|byte| *byte == 0);
        let end = end.unwrap_or(self.accelerator.len());
        core::str::from_utf8(&self.accelerator[..end]).unwrap_or("unknown")
    }

    /// The cores that were up when the domain was started, in ascending order.
    pub fn cores(&self) -> impl Iterator<Item = usize> {
        (0..crate::limits::MAX_CORES).filter(|core| self.cores[core / 64] >> (core % 64) & 1 != 0)
    }
}

/// Strings that are divided by single zero bytes; no bytes are no strings.
fn strings(bytes: &[u8]) -> impl Iterator<Item = &str> {
    let text = core::str::from_utf8(bytes).unwrap_or("");
    text.split('\0').filter(move |_| !text.is_empty())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;
    use zerocopy::FromZeros;

    #[test]
    fn arguments_and_environment_lie_side_by_side() {
        let mut start = Startup::new_zeroed();
        assert_eq!(start.arguments().count() + start.environment().count(), 0);
        assert!(start.set_text(b"program\0\0word", b"A=1\0B=x=y\0odd"));
        let arguments: Vec<&str> = start.arguments().collect();
        assert_eq!(arguments, ["program", "", "word"]);
        let environment: Vec<&str> = start.environment().collect();
        assert_eq!(environment, ["A=1", "B=x=y", "odd"]);
        assert_eq!(start.variable("B"), Some("x=y"));
        assert_eq!((start.variable("odd"), start.variable("C")), (None, None));
        assert!(start.set_text(&[b'x'; ARGUMENT_BYTES], b""));
        assert!(!start.set_text(&[b'x'; ARGUMENT_BYTES], b"y"));
        assert!(size_of::<Startup>() <= crate::layout::PAGE as usize);
    }
}
