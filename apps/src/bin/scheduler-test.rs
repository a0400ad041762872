//! Checks who gets a core that several domains want: `scheduler-test`.
//!
//! All of it takes place on the core that the program runs on. Workers are copies of the
//! program, told when to begin and to end; what they find is their exit status, in
//! microseconds.
//!
//! 1. Two domains that compute side by side get similar shares of the core.
//! 2. Requests to the monitor, one after the other, keep nobody else from the core.
//! 3. Whoever sleeps wakes when it asked for, while others compute.
//!
//! The bounds are generous, and there are several attempts: under emulation, the host's other
//! work is in the guest's time. What the scheduler does wrong, it does every time.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use abi::limits::TIME_SLICE_NS;
use alloc::format;
use alloc::vec::Vec;
use rt::interface::{self, Error};
use rt::{clock, monitor};

rt::entry!(main);

const MS: u64 = 1_000_000;
/// Until all workers have been started.
const START_NS: u64 = 100 * MS;
/// How long they work.
const SPAN_NS: u64 = 300 * MS;
/// Between two looks at the clock: from here on, somebody else had the core.
const GAP_NS: u64 = TIME_SLICE_NS / 4;
/// Most that one that is ready waits while another one wants the core.
const PATIENCE_US: i32 = 5 * (TIME_SLICE_NS / 1000) as i32;
/// Most that a sleeper wakes too late, half of the times.
const LATE_US: i32 = 5000;
/// One that goes well suffices.
const ATTEMPTS: usize = 8;
/// Status of a worker that was told nonsense, or was refused.
const REFUSED: i32 = -1;

fn main() -> i32 {
    let arguments: Vec<&str> = rt::startup().arguments().skip(1).collect();
    let [kind, begin, end] = arguments[..] else {
        return parent();
    };
    let (Ok(begin), Ok(end)) = (begin.parse::<u64>(), end.parse::<u64>()) else {
        return REFUSED;
    };
    clock::sleep_ns(begin.saturating_sub(clock::now_ns()));
    match kind {
        "compute" => compute(begin, end).0,
        "longest-gap" => compute(begin, end).1,
        "ask" => ask(end),
        "sleep" => sleep(end),
        _ => REFUSED,
    }
}

fn us(ns: u64) -> i32 {
    i32::try_from(ns / 1000).unwrap_or(i32::MAX)
}

/// Computes: how long it had the core, and how long somebody else did at most.
fn compute(begin: u64, end: u64) -> (i32, i32) {
    let (mut had, mut longest, mut last) = (0, 0, begin);
    while last < end {
        let now = clock::now_ns();
        let gap = now.saturating_sub(last);
        longest = gap.max(longest);
        had += if gap < GAP_NS { gap } else { 0 };
        last = now;
    }
    (us(had), us(longest))
}

/// Asks the monitor of this core for echoes: how many came.
fn ask(end: u64) -> i32 {
    let mut count = 0;
    while clock::now_ns() < end {
        let here = rt::startup().core as usize;
        match monitor::ask(here, interface::ECHO, [1, 2, 3, 4, 5, 6]) {
            Ok([1, 2, 3, 4, 5]) => count += 1,
            _ => return REFUSED,
        }
    }
    count
}

/// Sleeps again and again: by how much it woke too late, half of the times.
fn sleep(end: u64) -> i32 {
    let mut late = Vec::new();
    let mut now = clock::now_ns();
    while now < end {
        let deadline = now + 7 * MS;
        clock::sleep_ns(7 * MS);
        now = clock::now_ns();
        if now < deadline {
            return REFUSED;
        }
        late.push(now - deadline);
    }
    late.sort_unstable();
    late.get(late.len() / 2).map_or(REFUSED, |ns| us(*ns))
}

/// Has workers of these kinds work side by side, and says what they found.
fn side_by_side(kinds: &[&str]) -> Result<Vec<i32>, Error> {
    let here = rt::startup().core as usize;
    let begin = clock::now_ns() + START_NS;
    let (from, to) = (format!("{begin}"), format!("{}", begin + SPAN_NS));
    let workers: Vec<_> = kinds
        .iter()
        .map(|kind| monitor::spawn(here, &["scheduler-test", kind, &from, &to], None))
        .collect();
    let found = workers.into_iter().map(|worker| monitor::wait(worker?));
    found.collect()
}

/// One attempt: whether all was as it should be.
fn attempt() -> Result<bool, Error> {
    let shares = side_by_side(&["compute", "compute"])?;
    let asked = side_by_side(&["ask", "longest-gap"])?;
    let slept = side_by_side(&["compute", "compute", "sleep"])?;
    rt::println!(
        "scheduler-test: {} and {} us of {} for two that compute",
        shares[0],
        shares[1],
        us(SPAN_NS)
    );
    rt::println!(
        "scheduler-test: at most {} us between two turns while {} requests were answered",
        asked[1],
        asked[0]
    );
    rt::println!("scheduler-test: sleepers wake {} us too late", slept[2]);
    let fair = shares
        .iter()
        .all(|share| *share > shares[0].max(shares[1]) / 3);
    let patient = asked[0] > 0 && (0..PATIENCE_US).contains(&asked[1]);
    let punctual = (0..LATE_US).contains(&slept[2]);
    for (good, expected) in [
        (fair, "similar shares for two that compute"),
        (
            patient,
            "a turn within 50 ms while another one asks the monitor",
        ),
        (punctual, "sleepers that wake within 5 ms"),
    ] {
        if !good {
            rt::println!("scheduler-test: expected {expected}");
        }
    }
    Ok(fair && patient && punctual)
}

fn parent() -> i32 {
    for _ in 0..ATTEMPTS {
        match attempt() {
            Ok(true) => {
                rt::println!("scheduler-test: passed");
                return 0;
            }
            Ok(false) => {}
            Err(error) => {
                rt::println!("scheduler-test: cannot start the workers: {error}");
                break;
            }
        }
    }
    rt::println!("scheduler-test: failed");
    1
}
