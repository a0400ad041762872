//! Time: nanoseconds since the system started, and processor cycles.

use crate::{startup, system_call};

/// Processor cycles, as the time-stamp counter counts them. Under `icount` a unit is a
/// fixed number of instructions of *all* cores together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cycles(pub u64);

/// The time-stamp counter.
pub fn cycles() -> Cycles {
    // SAFETY: reading the counter has no effect.
    Cycles(unsafe { core::arch::x86_64::_rdtsc() })
}

impl Cycles {
    /// So many cycles in nanoseconds.
    pub fn as_ns(self) -> u64 {
        let hz = u128::from(startup().tsc_hz.max(1));
        (u128::from(self.0) * 1_000_000_000 / hz) as u64
    }
}

/// Nanoseconds since the first CPU driver started; the same clock on every core.
pub fn now_ns() -> u64 {
    Cycles(cycles().0.saturating_sub(startup().tsc_start)).as_ns()
}

/// Blocks for so many nanoseconds.
pub fn sleep_ns(ns: u64) {
    let deadline = now_ns().saturating_add(ns);
    while now_ns() < deadline {
        system_call::wait(Some(deadline));
    }
}
