//! Tests trees that are computed from measured costs: `costs-test [--lives N]` (with `--test-hooks`, if
//! cores are to be lost).
//!
//! All cores must have one table, without a figure that is zero, which another measurement replaces
//! and another strategy ends; and what is said to many must reach them by such trees. With `--lives N`
//! the last core is lost so often, by a wild write of its CPU driver, and started anew: first
//! while the costs are measured, then while nothing goes on. Whoever is left must have the same
//! table then, and so must the core in its new life.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use apps::arguments::{Arguments, explain};
use apps::checks::Outcome;
use rt::interface::{self, Error, counter, strategy};
use rt::monitor::{self, Cost};
use rt::{clock, names};

rt::entry!(main);

const USAGE: &str = "usage: costs-test [--lives N]";
const NAME: &str = "costs-test";
/// The word by which a copy knows that it is to look a name up.
const READ: &str = "read";
/// What is bound to a value that all cores must find.
const BOUND: &str = "costs-test.value";
/// How long cores may take to agree, and how long to wait before looking again.
const PATIENCE_NS: u64 = 300_000_000_000;
const PAUSE_NS: u64 = 5_000_000;

fn main() -> i32 {
    let start = rt::startup();
    if start.arguments().nth(1) == Some(READ) {
        let expected = start.arguments().nth(2).and_then(|word| word.parse().ok());
        let found = names::lookup(BOUND).map(|binding| binding.value);
        return i32::from(found.ok() != expected);
    }
    let lives = Arguments::of_program(&["--lives"])
        .and_then(|arguments| arguments.number("--lives", 0..=100));
    let lives = match lives {
        Ok(lives) => lives.unwrap_or(0),
        Err(misuse) => return explain(&misuse, USAGE),
    };
    if lives > 0 && start.cores().count() < 2 {
        rt::println!("{NAME}: there must be a core to lose: --cores 2 or more");
        return 2;
    }
    let mut test = Test::new();
    match test.run(lives) {
        Ok(()) if test.outcome.bad == 0 => {
            rt::println!("{NAME}: passed");
            0
        }
        Ok(()) => {
            let Outcome { bad, checks } = test.outcome;
            rt::println!("{NAME}: failed: {bad} of {checks} checks");
            1
        }
        Err(failure) => {
            rt::println!("{NAME}: failed: {failure}");
            1
        }
    }
}

/// Why the test cannot go on.
type Failed = String;

/// Says what failed.
fn that(what: &str) -> impl FnOnce(Error) -> Failed {
    move |error| format!("{what}: {error}")
}

struct Test {
    cores: Vec<usize>,
    nodes: Vec<usize>,
    outcome: Outcome,
}

impl Test {
    fn new() -> Self {
        let start = rt::startup();
        let nodes: BTreeSet<usize> = start.cores().map(|core| start.node[core].into()).collect();
        Self {
            cores: start.cores().collect(),
            nodes: nodes.into_iter().collect(),
            outcome: Outcome::default(),
        }
    }

    fn run(&mut self, lives: u64) -> Result<(), Failed> {
        self.agree(&self.cores.clone(), false)?;
        monitor::set_strategy(strategy::COMPUTED, 0).map_err(that("the first survey"))?;
        let first = self.table()?;
        self.reaches_all(1)?;
        let outside = monitor::costs(0, self.nodes.len(), 0).map(|_| ());
        let is_refused = matches!(outside, Err(Error::BadArgument));
        let what = format!("costs of a node that is not there: {outside:?}");
        self.outcome.expect(&what, &is_refused, &true);

        monitor::set_strategy(strategy::COMPUTED, 0).map_err(that("the second survey"))?;
        let second = self.table()?;
        let what = "the second survey has a table of its own";
        self.outcome.expect(what, &(second > first), &true);
        self.reaches_all(2)?;
        for life in 0..lives {
            self.lose_and_start(life % 2 == 0)?;
            self.reaches_all(3 + life)?;
        }
        for core in self.cores.iter().copied() {
            let tableless = monitor::counter(core, counter::TABLELESS);
            let what = format!("views without their table, core {core}");
            self.outcome.expect(&what, &tableless, &Ok(0));
        }
        monitor::set_strategy(strategy::UNICAST, 0).map_err(that("no tables any more"))?;
        self.agree(&self.cores.clone(), false)
    }

    /// The last core is lost and started anew, maybe during a survey.
    fn lose_and_start(&mut self, surveys: bool) -> Result<(), Failed> {
        let last = self.cores[self.cores.len() - 1];
        let before = self.table()?;
        let survey = surveys.then(|| {
            let words = [strategy::COMPUTED, 0, 0, 0, 0, 0];
            monitor::request(0, interface::STRATEGY, words)
        });
        // Its address is nobody's: the CPU driver writes where nothing is mapped.
        let hook = monitor::ask(last, interface::WILD_WRITE, [0; 6]);
        self.outcome.refused("a hook", hook, Error::CoreLost);
        if let Some(survey) = survey {
            let survey = survey.map_err(that("a survey"))?;
            let found = monitor::answer(survey).map(|_| ());
            self.outcome.expect("a survey with a loss", &found, &Ok(()));
        }
        let rest = self.cores[..self.cores.len() - 1].to_vec();
        self.agree(&rest, true)?;
        let between = self.number(rest[0])?;
        let what = "the table changes with a survey, and only then";
        self.outcome.expect(what, &(between > before), &surveys);
        monitor::start_core(last).map_err(that("a start"))?;
        let after = self.table()?;
        let what = "the table is the same with the core that came back";
        self.outcome.expect(what, &after, &between);
        Ok(())
    }

    /// The number of a core's table.
    fn number(&self, core: usize) -> Result<u64, Failed> {
        let cost = monitor::costs(core, self.nodes[0], self.nodes[0]);
        let cost = cost.map_err(that("a table"))?;
        Ok(cost.map_or(0, |cost| cost.table))
    }

    /// Waits until all of these cores have one table, or none has.
    fn agree(&mut self, cores: &[usize], has_one: bool) -> Result<(), Failed> {
        let deadline_ns = clock::now_ns() + PATIENCE_NS;
        loop {
            let numbers: Result<Vec<u64>, Failed> =
                cores.iter().map(|core| self.number(*core)).collect();
            let numbers = numbers?;
            let is_one = numbers.iter().all(|number| *number == numbers[0]);
            if is_one && (numbers[0] > 0) == has_one {
                self.outcome.checks += 1;
                return Ok(());
            }
            if clock::now_ns() > deadline_ns {
                return Err(format!("tables {numbers:?} on cores {cores:?}"));
            }
            clock::sleep_ns(PAUSE_NS);
        }
    }

    /// The table that all have, which is the same figure by figure: its number.
    fn table(&mut self) -> Result<u64, Failed> {
        self.agree(&self.cores.clone(), true)?;
        let first = self.costs_of(self.cores[0])?;
        let is_zero = |cost: &Cost| cost.send_ns.min(cost.latency_ns).min(cost.receive_ns) == 0;
        let what = format!("every figure is at least 1: {first:?}");
        self.outcome
            .expect(&what, &first.iter().any(is_zero), &false);
        let number = first[0].table;
        for core in self.cores.clone() {
            let costs = self.costs_of(core)?;
            self.outcome
                .expect(&format!("costs, core {core}"), &costs, &first);
        }
        Ok(number)
    }

    /// All costs that a core knows, row by row.
    fn costs_of(&self, core: usize) -> Result<Vec<Cost>, Failed> {
        let mut costs = Vec::new();
        for from in &self.nodes {
            for to in &self.nodes {
                let cost = monitor::costs(core, *from, *to).map_err(that("a cost"))?;
                costs.push(cost.ok_or_else(|| format!("core {core} has no table"))?);
            }
        }
        Ok(costs)
    }

    /// An update of a name reaches all cores, and so does what members of spans do.
    fn reaches_all(&mut self, value: u64) -> Result<(), Failed> {
        names::bind(BOUND, value).map_err(that("a name"))?;
        let value = format!("{value}");
        for core in self.cores.clone() {
            self.run_on(core, &[NAME, READ, &value])?;
        }
        names::unbind(BOUND).map_err(that("a name"))?;
        for core in [self.cores[0], self.cores[self.cores.len() - 1]] {
            self.run_on(core, &["counts", "measure", "1"])?;
        }
        Ok(())
    }

    /// Runs a program that must end with status 0.
    fn run_on(&mut self, core: usize, words: &[&str]) -> Result<(), Failed> {
        let status = monitor::spawn(core, words, None).and_then(monitor::wait);
        let what = format!("{} on core {core}", words[0]);
        self.outcome.expect(&what, &status, &Ok(0));
        Ok(())
    }
}
