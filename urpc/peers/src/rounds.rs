//! Interleaved rounds: every subject once a round, each between two looks at the placement.

use crate::end::{Load, Runner, poll};
use crate::memory::Probe;
use crate::placement::{Placement, pin};
use crate::subject::{Class, Subject};
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// Batches of a visit, and how many of the first ones are dropped as warm-up.
const BATCHES: usize = 12;
const WARM_UP: usize = 2;
/// Round trips, or messages, in a batch of those who poll, and of those who block.
const CALLS: u64 = 100;
const MESSAGES: u64 = 2000;
const BLOCKING_CALLS: u64 = 10;
const BLOCKING_MESSAGES: u64 = 200;
/// Round trips in a batch by which the placement is told.
const PROBES: u64 = 50;
const PROBE_BATCHES: usize = 6;

/// What is measured of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A message and its reply.
    RoundTrip,
    /// A message among many in one direction.
    Streaming,
}

/// An operation of a subject: what is visited once a round.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// Of which subject: its place among them all.
    pub subject: usize,
    /// What of it.
    pub operation: Operation,
}

/// What came of one visit.
#[derive(Clone, Debug)]
pub struct Visit {
    /// Where the two CPUs were before and after it.
    pub placement: Placement,
    /// Nanoseconds an operation, by batch.
    pub samples: Vec<f64>,
    /// Their median.
    pub median: f64,
}

/// What came of all rounds.
pub struct Results {
    /// What was visited.
    pub jobs: Vec<Job>,
    /// By round, by job; `None` where the placement changed meanwhile, or somebody else ran.
    pub rounds: Vec<Vec<Option<Visit>>>,
    /// All round trips by which placements were told, in nanoseconds.
    pub probes: Vec<f64>,
}

/// What the other thread is to do.
#[derive(Clone, Copy)]
enum Order {
    Probe { first: u64, turns: u64 },
    Reply(usize, Load),
    Produce(usize, Load),
    End,
}

/// How it is told, and tells that it has done it: each word in a line of its own.
struct Orders {
    order: Mutex<Order>,
    given: Line,
    done: Line,
    probe: Probe,
}

#[derive(Default)]
#[repr(align(128))]
struct Line(AtomicU64);

impl Orders {
    fn obey(&self, ends: &mut [Box<dyn Runner>]) {
        for number in 1.. {
            poll(|| (self.given.0.load(Ordering::Acquire) == number).then_some(()));
            let order = *self.order.lock().expect("nobody panics with it");
            match order {
                Order::Probe { first, turns } => {
                    (0..turns).for_each(|turn| self.probe.turn(first + 2 * turn + 1));
                }
                Order::Reply(subject, load) => ends[subject].reply(load),
                Order::Produce(subject, load) => ends[subject].produce(load),
                Order::End => return,
            }
            self.done.0.store(number, Ordering::Release);
        }
    }

    fn give(&self, order: Order) -> u64 {
        *self.order.lock().expect("nobody panics with it") = order;
        self.given.0.fetch_add(1, Ordering::Release) + 1
    }

    fn wait(&self, number: u64) {
        poll(|| (self.done.0.load(Ordering::Acquire) == number).then_some(()));
    }
}

/// This thread's side of it.
struct Conductor<'a> {
    orders: &'a Orders,
    ends: Vec<Box<dyn Runner>>,
    probed: u64,
    /// Number of the next message of each subject.
    next: Vec<u64>,
}

impl Conductor<'_> {
    /// A compare-exchange round trip, in nanoseconds.
    fn probe(&mut self) -> f64 {
        let turns = PROBES * PROBE_BATCHES as u64;
        let first = self.probed;
        self.probed += 2 * turns;
        let number = self.orders.give(Order::Probe { first, turns });
        let mut times = Vec::new();
        let mut turn = first;
        for _ in 0..PROBE_BATCHES {
            let start = Instant::now();
            for _ in 0..PROBES {
                self.orders.probe.turn(turn);
                turn += 2;
            }
            times.push(start.elapsed().as_nanos() as f64 / PROBES as f64);
        }
        self.orders.wait(number);
        median(&mut times[1..])
    }

    fn visit(&mut self, job: Job, class: Class) -> Vec<f64> {
        let size = match (class, job.operation) {
            (Class::Kernel, Operation::RoundTrip) => BLOCKING_CALLS,
            (Class::Kernel, Operation::Streaming) => BLOCKING_MESSAGES,
            (_, Operation::RoundTrip) => CALLS,
            (_, Operation::Streaming) => MESSAGES,
        };
        let subject = job.subject;
        let load = Load {
            first: self.next[subject],
            batches: BATCHES,
            size,
        };
        self.next[subject] += BATCHES as u64 * size;
        let mut samples = match job.operation {
            Operation::RoundTrip => {
                let number = self.orders.give(Order::Reply(subject, load));
                let samples = self.ends[subject].call(load);
                self.orders.wait(number);
                samples
            }
            Operation::Streaming => {
                let number = self.orders.give(Order::Produce(subject, load));
                let samples = self.ends[subject].consume(load);
                self.orders.wait(number);
                samples
            }
        };
        samples.drain(..WARM_UP);
        samples
    }
}

/// The median of samples, of which there is at least one; they are sorted.
pub fn median(samples: &mut [f64]) -> f64 {
    samples.sort_unstable_by(f64::total_cmp);
    let middle = samples.len() / 2;
    match samples.len() % 2 {
        0 => f64::midpoint(samples[middle - 1], samples[middle]),
        _ => samples[middle],
    }
}

/// Set when somebody wants this to end early.
pub static STOP: AtomicBool = AtomicBool::new(false);

/// Measures `subjects` between two CPUs, as often as is said or until [`STOP`].
pub fn measure(subjects: Vec<Subject>, cpus: [usize; 2], rounds: usize) -> Results {
    let mut jobs = Vec::new();
    let mut classes = Vec::new();
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for (number, subject) in subjects.into_iter().enumerate() {
        let wanted = [
            (subject.calls, Operation::RoundTrip),
            (subject.streams, Operation::Streaming),
        ];
        let wanted = wanted.into_iter().filter(|(wanted, _)| *wanted);
        jobs.extend(wanted.map(|(_, operation)| Job {
            subject: number,
            operation,
        }));
        classes.push(subject.class);
        let [a, b] = subject.pair.part();
        here.push(a);
        there.push(b);
    }
    let orders = Orders {
        order: Mutex::new(Order::End),
        given: Line::default(),
        done: Line::default(),
        probe: Probe::default(),
    };
    let mut results = Results {
        jobs,
        rounds: Vec::new(),
        probes: Vec::new(),
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(cpus[1]);
            orders.obey(&mut there);
        });
        pin(cpus[0]);
        let next = vec![0; here.len()];
        let mut conductor = Conductor {
            orders: &orders,
            ends: here,
            probed: 0,
            next,
        };
        let start = Instant::now();
        for round in 0..rounds {
            if STOP.load(Ordering::Relaxed) {
                break;
            }
            let visits = one_round(&mut conductor, &mut results, &classes, round);
            results.rounds.push(visits);
            show(round + 1, rounds, start);
        }
        orders.give(Order::End);
    });
    results
}

/// Visits every job once, another one first each time.
fn one_round(
    conductor: &mut Conductor,
    results: &mut Results,
    classes: &[Class],
    round: usize,
) -> Vec<Option<Visit>> {
    let count = results.jobs.len();
    let mut visits = vec![None; count];
    let mut before = conductor.probe();
    results.probes.push(before);
    for step in 0..count {
        let number = (round + step) % count;
        let job = results.jobs[number];
        let samples = conductor.visit(job, classes[job.subject]);
        let after = conductor.probe();
        results.probes.push(after);
        if let Some(placement) = Placement::told_by(before)
            && Some(placement) == Placement::told_by(after)
        {
            let median = median(&mut samples.clone());
            visits[number] = Some(Visit {
                placement,
                samples,
                median,
            });
        }
        before = after;
    }
    visits
}

/// Tells a person at a terminal how far this is.
fn show(done: usize, rounds: usize, start: Instant) {
    let mut stderr = std::io::stderr();
    if !stderr.is_terminal() {
        return;
    }
    let left = start.elapsed().as_secs_f64() / done as f64 * (rounds - done) as f64;
    // Nothing hangs on it.
    let _ = write!(
        stderr,
        "\rround {done} of {rounds}, {left:.0} s left \x1b[K"
    );
    if done == rounds || STOP.load(Ordering::Relaxed) {
        let _ = writeln!(stderr);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&mut [7.0]), 7.0);
    }
}
