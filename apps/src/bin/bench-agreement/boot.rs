//! How long it took until this program ran, and what came before.
//!
//! The time-stamp counter begins with the machine. Under `icount` times in which all cores wait, say
//! for a core that is reset, are in it as the instructions that would have fit in.

use apps::laboratory::{Failure, Laboratory, told};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use rt::clock::Cycles;
use rt::interface::counter;
use rt::monitor;

/// The counter when the program began.
static BEGAN: AtomicU64 = AtomicU64::new(0);

/// The program begins.
pub fn note(now: Cycles) {
    BEGAN.store(now.0, Relaxed);
}

/// Tells when each phase ended, counted from the start of the machine.
pub fn measure(laboratory: &mut Laboratory) -> Result<(), Failure> {
    let start = rt::startup();
    // The system's clock, in nanoseconds, as the counter.
    let at = |ns: u64| {
        let ticks = u128::from(ns) * u128::from(start.tsc_hz) / 1_000_000_000;
        start.tsc_start + ticks as u64
    };
    let when = |core, index| {
        let ns = told("a phase of boot", monitor::counter(core, index))?;
        Ok(at(ns))
    };
    let began = start.cores().map(|core| when(core, counter::BEGAN_NS));
    let began: Result<alloc::vec::Vec<u64>, Failure> = began.collect();
    let phases = [
        ("to the first CPU driver", start.tsc_start),
        ("to the first monitor", when(0, counter::BEGAN_NS)?),
        ("to the last monitor", began?.into_iter().max().unwrap_or(0)),
        ("to all cores up", when(0, counter::UP_NS)?),
        ("to all cores connected", when(0, counter::CONNECTED_NS)?),
        ("to user code", BEGAN.load(Relaxed)),
    ];
    let overhead = laboratory.overhead().0;
    let with = [("members", start.cores().count() as u64)];
    for (phase, ticks) in phases {
        laboratory.times(phase, &with, alloc::vec![Cycles(ticks + overhead)]);
    }
    Ok(())
}
