//! Counts what operations on replicated state cost, on all cores together.
//!
//! `counts [--repeat COUNT] [--strategy unicast|tree|sockets|computed] [--arity COUNT]`
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

mod members;
mod operations;

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;
use apps::arguments::{Arguments, Misuse, explain};
use apps::checks::Outcome;
use apps::tally::{Tally, measure};
use operations::{Operation, Stage};
use rt::interface::{Error, strategy};
use rt::monitor;

rt::entry!(main);

const USAGE: &str =
    "usage: counts [--repeat COUNT] [--strategy unicast|tree|sockets|computed] [--arity COUNT]";
const DEFAULT_REPEAT: u64 = 4;
const DEFAULT_ARITY: u64 = 2;

/// The word by which a copy knows that it is to measure.
const MEASURE: &str = "measure";

fn main() -> i32 {
    let start = rt::startup();
    if start.arguments().nth(1) == Some(MEASURE) {
        let repeat = start.arguments().nth(2).and_then(|word| word.parse().ok());
        return measure_all(repeat.unwrap_or(DEFAULT_REPEAT));
    }
    let (repeat, strategy, arity) = match options() {
        Ok(options) => options,
        Err(misuse) => return explain(&misuse, USAGE),
    };
    if let Err(error) = monitor::set_strategy(strategy, arity) {
        rt::println!("counts: the strategy cannot be set: {error}");
        return 1;
    }
    if let Err(error) = show_costs() {
        rt::println!("counts: the costs of messages cannot be read: {error}");
        return 1;
    }
    let cores: Vec<usize> = start.cores().collect();
    let mut ends = Vec::from([cores[0], cores[cores.len() - 1]]);
    ends.dedup();
    rt::println!(
        "counts: {} cores, {repeat} repetitions, on all cores together",
        cores.len()
    );
    rt::println!("core operation                     messages   most    lines crossings switches");
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

/// Says what the tree is computed from, if it is.
fn show_costs() -> Result<(), Error> {
    let start = rt::startup();
    let nodes: BTreeSet<usize> = start.cores().map(|core| start.node[core].into()).collect();
    for (from, to) in nodes
        .iter()
        .flat_map(|from| nodes.iter().map(move |to| (from, to)))
    {
        let Some(cost) = monitor::costs(start.core as usize, *from, *to)? else {
            return Ok(());
        };
        if (Some(from), Some(to)) == (nodes.first(), nodes.first()) {
            rt::println!("counts: by table {} of costs, in nanoseconds", cost.table);
            rt::println!("from node   to     send  latency  receive");
        }
        let monitor::Cost {
            send_ns,
            latency_ns,
            receive_ns,
            ..
        } = cost;
        rt::println!("{from:>9} {to:>4} {send_ns:>8} {latency_ns:>8} {receive_ns:>8}");
    }
    Ok(())
}

/// Repetitions, strategy, arity.
fn options() -> Result<(u64, u64, u64), Misuse> {
    let arguments = Arguments::of_program(&["--repeat", "--strategy", "--arity"])?;
    let repeat = arguments.number("--repeat", 1..=100)?;
    let arity = arguments.number("--arity", 1..=strategy::MAX_ARITY)?;
    // In the order of their numbers.
    const { assert!(strategy::UNICAST == 0 && strategy::COMPUTED == 3) };
    let words = ["unicast", "tree", "sockets", "computed"];
    let strategy = arguments.choice("--strategy", &words)?.unwrap_or(0) as u64;
    let repeat = repeat.unwrap_or(DEFAULT_REPEAT);
    Ok((repeat, strategy, arity.unwrap_or(DEFAULT_ARITY)))
}

/// Measures from this core.
fn measure_all(repeat: u64) -> i32 {
    let mut outcome = Outcome::default();
    let mut stage = match Stage::new() {
        Ok(stage) => stage,
        Err(error) => {
            rt::println!("counts: no members on other cores: {error}");
            return 1;
        }
    };
    let cores = rt::startup().cores().count() as u64;
    for operation in operations::ALL {
        if cores >= operation.least_cores {
            measure_one(operation, &mut stage, repeat, &mut outcome);
        }
    }
    outcome.expect("the end of the members", &stage.end(), &Ok(()));
    i32::from(outcome.bad > 0)
}

fn measure_one(operation: &Operation, stage: &mut Stage, repeat: u64, outcome: &mut Outcome) {
    let prepared = (operation.prepare)(stage, repeat);
    outcome.expect(operation.name, &prepared, &Ok(()));
    if prepared.is_err() {
        return;
    }
    let nothing = measure(operation.class, repeat, |_| {});
    let found = measure(operation.class, repeat, |number| {
        let done = (operation.go)(stage, number);
        outcome.expect(operation.name, &done, &Ok(()));
    });
    let most = (operation.most)(stage);
    outcome.expect(
        &format!(
            "{}: at most {most} messages each, of {}",
            operation.name, found.messages
        ),
        &(found.messages <= most * repeat),
        &true,
    );
    let each = |of: fn(&Tally) -> u64| {
        let tenths = of(&found).saturating_sub(of(&nothing)) * 10 / repeat;
        format!("{}.{}", tenths / 10, tenths % 10)
    };
    rt::println!(
        "{:>4} {:<28} {:>9} {most:>6} {:>8} {:>9} {:>8}",
        rt::startup().core,
        operation.name,
        each(|tally| tally.messages),
        each(|tally| tally.lines),
        each(|tally| tally.crossings),
        each(|tally| tally.switches),
    );
}
