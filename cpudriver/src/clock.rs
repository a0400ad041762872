//! The system's clock: nanoseconds since the first CPU driver started, the same on every
//! core as far as their time-stamp counters are.

use crate::arch::cpu;
use abi::machine::Machine;

/// Converts between time-stamp counter ticks and nanoseconds.
#[derive(Clone, Copy)]
pub struct Clock {
    start: u64,
    /// Nanoseconds a tick, in units of 2^-32.
    ns_per_tick: u64,
}

impl Clock {
    /// The clock of this machine.
    pub fn new(machine: &Machine) -> Self {
        let hz = machine.tsc_hz.max(1);
        Self {
            start: machine.tsc_start,
            ns_per_tick: ((1_000_000_000u128 << 32) / u128::from(hz)) as u64,
        }
    }

    /// Now.
    pub fn now_ns(&self) -> u64 {
        let ticks = cpu::time_stamp().saturating_sub(self.start);
        ((u128::from(ticks) * u128::from(self.ns_per_tick)) >> 32) as u64
    }

    /// The first value of the time-stamp counter at which [`Self::now_ns`] says `ns` or more.
    pub fn time_stamp_at(&self, ns: u64) -> u64 {
        let ticks = (u128::from(ns) << 32).div_ceil(u128::from(self.ns_per_tick.max(1)));
        self.start
            .saturating_add(u64::try_from(ticks).unwrap_or(u64::MAX))
    }
}
