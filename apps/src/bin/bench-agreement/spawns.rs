//! Domains that start, end, and are waited for.

use crate::{counted, sizes};
use alloc::vec::Vec;
use apps::laboratory::{Failure, Laboratory, timed, told};
use rt::clock::Cycles;
use rt::interface::Error;
use rt::monitor;

/// A spawn takes so many times as long as a call.
const SLOWER_BY: usize = 50;
/// Domains on each core, where there are many at once.
const AT_ONCE: usize = 4;

/// Measures `exit 0` on this core, on the last one, and on several at once.
pub fn measure(laboratory: &mut Laboratory) -> Result<(), Failure> {
    let own = rt::startup().core as usize;
    let others = rt::startup().cores().filter(|core| *core != own);
    let last = others.last();
    let places = [
        ("spawn+exit", Some(own)),
        ("spawn+exit on another core", last),
    ];
    for (operation, core) in places {
        let Some(core) = core else { continue };
        let with = [("to", core as u64)];
        laboratory.measure_with(operation, &with, SLOWER_BY, || spawn(&[core], 1))?;
        counted::count(laboratory, operation, &with, |_| {
            spawn(&[core], 1).map(|_| ())
        })?;
    }
    for members in sizes(1) {
        let with = [("members", members as u64)];
        let cores: Vec<usize> = rt::startup().cores().take(members).collect();
        laboratory.measure_with("spawn+exit, each of many", &with, SLOWER_BY, || {
            spawn(&cores, AT_ONCE)
        })?;
    }
    Ok(())
}

/// Starts `exit` so many times on each of these cores, and waits for all; the time by their number.
fn spawn(cores: &[usize], times: usize) -> Result<Cycles, Failure> {
    let (time, done) = timed(|| {
        let asked: Vec<_> = (0..times)
            .flat_map(|_| cores)
            .map(|core| monitor::begin_spawn(*core, &["exit", "0"], None))
            .collect();
        let started: Vec<_> = asked
            .into_iter()
            .map(|token| token.and_then(monitor::end_spawn))
            .collect();
        let ended = |domain: Result<_, Error>| domain.and_then(monitor::wait);
        let statuses: Result<Vec<i32>, Error> = started.into_iter().map(ended).collect();
        statuses
    });
    if told("spawn", done)?.iter().any(|status| *status != 0) {
        return told("spawn", Err("a domain ended with another status than 0"));
    }
    Ok(Cycles(time.0 / (cores.len() * times) as u64))
}
