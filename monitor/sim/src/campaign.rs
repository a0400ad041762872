//! Many runs with faults: seed after seed, until one breaks a rule.

use crate::faults::Schedule;
use crate::machine::Machine;
use crate::node::Outcome;
use crate::protocol::Protocol;
use crate::world::Violation;
use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// Violations that are kept; all are counted.
const KEPT: usize = 8;

thread_local! {
    static RUNNING: Cell<Option<(Protocol, usize, u64)>> = const { Cell::new(None) };
}

/// The protocol, cores and seed that this thread runs: for whoever reports a panic.
pub fn running() -> Option<(Protocol, usize, u64)> {
    RUNNING.get()
}

/// Which runs.
#[derive(Clone, Copy, Debug)]
pub struct Campaign<'machine> {
    /// What runs.
    pub protocol: Protocol,
    /// On what.
    pub machine: &'machine Machine,
    /// On how many cores.
    pub cores: usize,
    /// The first seed; the others follow it.
    pub seed: u64,
    /// How many seeds.
    pub count: u64,
}

/// A run that broke a rule.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Its seed.
    pub seed: u64,
    /// Its faults.
    pub schedule: Schedule,
    /// The rule.
    pub violation: Violation,
    /// Hash of all that happened.
    pub hash: u64,
}

/// How the runs ended.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Everything was done.
    pub survived: u64,
    /// Something was given up in good order.
    pub aborted: u64,
    /// A rule was broken.
    pub violated: u64,
    /// Messages delivered in all runs.
    pub delivered: u64,
    /// Hash of all runs together.
    pub hash: u64,
    /// The first that broke rules, by seed.
    pub broken: Vec<Broken>,
}

impl Campaign<'_> {
    /// Runs all, on as many threads as given, until `is_stopped` says to stop.
    pub fn run(&self, threads: usize, is_stopped: impl Fn() -> bool + Sync) -> Tally {
        let next = AtomicU64::new(0);
        let stopped = AtomicBool::new(false);
        let all = Mutex::new(Tally::default());
        thread::scope(|scope| {
            for _ in 0..threads.max(1) {
                scope.spawn(|| {
                    let mut tally = Tally::default();
                    while !stopped.load(Ordering::Relaxed) {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        if index >= self.count {
                            break;
                        }
                        self.one(self.seed.wrapping_add(index), &mut tally);
                        if is_stopped() {
                            stopped.store(true, Ordering::Relaxed);
                        }
                    }
                    if let Ok(mut all) = all.lock() {
                        all.add(tally);
                    }
                });
            }
        });
        let mut tally = all.into_inner().unwrap_or_default();
        tally.broken.sort_by_key(|broken| broken.seed);
        tally.broken.truncate(KEPT);
        tally
    }

    fn one(&self, seed: u64, tally: &mut Tally) {
        RUNNING.set(Some((self.protocol, self.cores, seed)));
        let schedule = self.protocol.random_faults(self.cores, seed);
        let report = self
            .protocol
            .run(self.machine, self.cores, seed, schedule.clone(), false);
        tally.delivered += report.counts.delivered;
        // The order in which threads come does not matter.
        tally.hash ^= report.hash;
        match report.outcome {
            Ok(Outcome::Survived) => tally.survived += 1,
            Ok(Outcome::Aborted) => tally.aborted += 1,
            Err(violation) => {
                tally.violated += 1;
                tally.broken.push(Broken {
                    seed,
                    schedule,
                    violation,
                    hash: report.hash,
                });
                tally.broken.sort_by_key(|broken| broken.seed);
                tally.broken.truncate(KEPT);
            }
        }
    }
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.survived += other.survived;
        self.aborted += other.aborted;
        self.violated += other.violated;
        self.delivered += other.delivered;
        self.hash ^= other.hash;
        self.broken.extend(other.broken);
    }
}
