//! Counts what operations on replicated state cost, on all cores together.
//!
//! `counts [--repeat COUNT]`
//!
//! For each operation, done by a domain of the first core, which puts names in order, and then by one
//! of the last: messages between monitors about it, cache lines written in their channels, ring
//! crossings (system calls and interrupts) and context switches. Messages are exact, and must not be
//! more than the protocols promise; the others are averages over all repetitions, less what goes on
//! anyway.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod operations;
mod tally;

use alloc::format;
use alloc::vec::Vec;
use apps::arguments::{Arguments, explain};
use apps::checks::Outcome;
use operations::Stage;
use rt::monitor;
use tally::{Tally, measure};

rt::entry!(main);

const USAGE: &str = "usage: counts [--repeat COUNT]";
const DEFAULT_REPEAT: u64 = 16;

/// The word by which a copy knows that it is to measure.
const MEASURE: &str = "measure";

fn main() -> i32 {
    let start = rt::startup();
    if start.arguments().nth(1) == Some(MEASURE) {
        let repeat = start.arguments().nth(2).and_then(|word| word.parse().ok());
        return measure_all(repeat.unwrap_or(DEFAULT_REPEAT));
    }
    let asked = Arguments::of_program(&["--repeat"])
        .and_then(|arguments| arguments.number("--repeat", 1..=1000));
    let repeat = match asked {
        Ok(asked) => asked.unwrap_or(DEFAULT_REPEAT),
        Err(misuse) => return explain(&misuse, USAGE),
    };
    let cores: Vec<usize> = start.cores().collect();
    let mut ends = Vec::from([cores[0], cores[cores.len() - 1]]);
    ends.dedup();
    rt::println!(
        "counts: {} cores, {repeat} repetitions, on all cores together",
        cores.len()
    );
    rt::println!("core operation                messages    most    lines crossings switches");
    let mut bad = 0;
    for core in ends {
        let words = ["counts", MEASURE, &format!("{repeat}")];
        let status = monitor::spawn(core, &words, None).and_then(monitor::wait);
        if status != Ok(0) {
            rt::println!("counts: core {core}: expected status 0, found {status:?}");
            bad += 1;
        }
    }
    if bad > 0 {
        rt::println!("counts: failed");
        return 1;
    }
    rt::println!("counts: passed");
    0
}

/// Measures from this core.
fn measure_all(repeat: u64) -> i32 {
    let mut outcome = Outcome::default();
    let mut stage = Stage::new();
    for operation in operations::ALL {
        let class = operation.class;
        // Once for what the first time alone takes.
        let mut go = |stage: &mut Stage, number: u64| {
            let done = (operation.go)(stage, number);
            outcome.expect(operation.name, &done, &Ok(()));
        };
        go(&mut stage, 0);
        let nothing = measure(class, repeat, |_| {});
        let found = measure(class, repeat, |number| go(&mut stage, number + 1));
        let most = (operation.most)(&stage);
        outcome.expect(
            &format!("{}: no more messages than {most} each", operation.name),
            &(found.messages <= most * repeat),
            &true,
        );
        let each = |of: fn(&Tally) -> u64| {
            let tenths = of(&found).saturating_sub(of(&nothing)) * 10 / repeat;
            format!("{}.{}", tenths / 10, tenths % 10)
        };
        rt::println!(
            "{:>4} {:<24} {:>9} {most:>7} {:>8} {:>9} {:>8}",
            rt::startup().core,
            operation.name,
            each(|tally| tally.messages),
            each(|tally| tally.lines),
            each(|tally| tally.crossings),
            each(|tally| tally.switches),
        );
    }
    i32::from(outcome.bad > 0)
}
