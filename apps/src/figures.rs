//! How the times of this run are obtained, and in which unit they are told.
//!
//! No time means anything without that: an emulator's show structure at best.

use rt::clock::{self, Cycles};

/// What a time is told in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds of the host's clock, under an emulator.
    EmulatorNs,
    /// Nanoseconds of a virtual clock that counts instructions.
    GuestNs,
    /// Cycles of the processor's time-stamp counter.
    Cycles,
}

impl Unit {
    /// The unit of this run.
    pub fn of_this_run() -> Self {
        match rt::startup().accelerator() {
            "tcg" => Self::EmulatorNs,
            "icount" => Self::GuestNs,
            _ => Self::Cycles,
        }
    }

    /// Its name, as it stands behind a number.
    pub fn name(self) -> &'static str {
        match self {
            Self::EmulatorNs | Self::GuestNs => "ns",
            Self::Cycles => "cycles",
        }
    }

    /// Cycles in this unit.
    pub fn convert(self, cycles: Cycles) -> u64 {
        match self {
            Self::EmulatorNs | Self::GuestNs => cycles.as_ns(),
            Self::Cycles => cycles.0,
        }
    }
}

/// Prints how figures are obtained.
pub fn explain() {
    let accelerator = rt::startup().accelerator();
    match Unit::of_this_run() {
        Unit::EmulatorNs => rt::println!(
            "figures: `{accelerator}`, ns of the host's clock. These are times of the emulator, \
             which runs all cores by turns: they show structure, not speed."
        ),
        Unit::GuestNs => rt::println!(
            "figures: `{accelerator}`, ns of guest time, a fixed number for each instruction \
             that any core executes: a figure holds what all cores ran meanwhile. The same in \
             every run."
        ),
        Unit::Cycles => rt::println!(
            "figures: `{accelerator}`, cycles of the time-stamp counter ({} MHz).",
            rt::startup().tsc_hz / 1_000_000
        ),
    }
}

/// What it costs to read the clock twice: the least of many tries.
pub fn clock_overhead() -> Cycles {
    let tries = (0..64).map(|_| {
        let start = clock::cycles();
        since(start)
    });
    tries.min().unwrap_or_default()
}

/// The time from then to now.
#[inline]
pub fn since(start: Cycles) -> Cycles {
    Cycles(clock::cycles().0.saturating_sub(start.0))
}
