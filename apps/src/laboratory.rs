//! What benchmarks share: samples are taken, the first left out, what reading the clock costs taken
//! off; and each figure is told in a line for programs and a table for people.
//!
//! A line is the word `result` and one JSON object: the benchmark, the operation, the unit, and what
//! it was measured with; for times `minimum`, `median`, `p99`, `samples` and the `distribution`, which
//! is each value with how often it came, in ascending order; for counts a `value`. A distribution that
//! is too long for a line goes on in lines that begin with `more`.
//!
//! What shared memory is for is announced to who counts cache lines from outside, by a line of the word
//! `structure` and one JSON object: [`name_lines`], [`name_channel`]. What each region of interest was,
//! by a line of the word `region`.
//!
//! Under `icount` times are instructions that the guest executed, on all cores: whoever polls
//! meanwhile is in them. Elsewhere they are cycles of the time-stamp counter. Plain `tcg` has neither,
//! so there everything is done, and counts alone are told.

use crate::arguments::{Arguments, Misuse};
use crate::figures::clock_overhead;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{Debug, Display, Write};
use rt::clock::{self, Cycles};
use rt::frame::Frame;
use rt::region;
use urpc::frame_bytes;

/// Times that do not count.
pub const WARM_UP: usize = 16;
/// Samples of each operation, and of a quick run.
const SAMPLES: usize = 1000;
const QUICK_SAMPLES: usize = 100;
/// The word that asks for a quick run.
pub const QUICK: &str = "--quick";
/// Ticks of the time-stamp counter an instruction under `icount`: the host tool starts QEMU
/// with `-icount shift=3`, which is 2^3 ns each, at 1 GHz.
const TICKS_PER_INSTRUCTION: u64 = 8;
/// Most values of a distribution that one line tells.
const VALUES_A_LINE: usize = 200;

/// What times are told in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Instructions that the guest executed, on all cores.
    Instructions,
    /// Cycles of the time-stamp counter.
    Cycles,
}

impl Unit {
    /// `None`: this run has no times.
    pub fn of_this_run() -> Option<Self> {
        match rt::startup().accelerator() {
            "tcg" => None,
            "icount" => Some(Self::Instructions),
            _ => Some(Self::Cycles),
        }
    }

    /// Its name, as it stands behind a number.
    pub fn name(self) -> &'static str {
        match self {
            Self::Instructions => "guest instructions",
            Self::Cycles => "cycles",
        }
    }

    fn convert(self, cycles: Cycles) -> u64 {
        match self {
            Self::Instructions => cycles.0 / TICKS_PER_INSTRUCTION,
            Self::Cycles => cycles.0,
        }
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Messages sent.
    Messages,
    /// Cache lines written for them.
    CacheLines,
    /// Crossings of the border between user code and CPU driver.
    Crossings,
    /// Bytes.
    Bytes,
    /// Something else, which the operation names.
    Plain,
}

impl Count {
    /// Its name, as it stands behind a number.
    pub fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::CacheLines => "cache lines",
            Self::Crossings => "ring crossings",
            Self::Bytes => "bytes",
            Self::Plain => "count",
        }
    }
}

/// What went wrong, and with what.
#[derive(Debug)]
pub struct Failure {
    /// What was being done.
    pub step: &'static str,
    /// Why it was not.
    pub reason: String,
}

/// Names the step that a refusal befell.
///
/// # Errors
/// The one given, with its step.
pub fn at<T, E: Debug>(step: &'static str, result: Result<T, E>) -> Result<T, Failure> {
    result.map_err(|error| Failure {
        step,
        reason: format!("{error:?}"),
    })
}

/// The same for errors that tell more.
///
/// # Errors
/// The one given, with its step.
pub fn told<T, E: Display>(step: &'static str, result: Result<T, E>) -> Result<T, Failure> {
    result.map_err(|error| Failure {
        step,
        reason: format!("{error}"),
    })
}

/// The time that some work takes, and what it comes to.
#[inline(always)]
pub fn timed<R>(work: impl FnOnce() -> R) -> (Cycles, R) {
    let start = clock::cycles();
    let result = work();
    let end = clock::cycles();
    (Cycles(end.0.saturating_sub(start.0)), result)
}

/// Does an operation so many times. It has nothing else to keep in registers, so what is measured
/// does not depend on what is around.
#[inline(never)]
fn repeat(
    count: usize,
    once: &mut impl FnMut() -> Result<Cycles, Failure>,
) -> Result<Vec<Cycles>, Failure> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        times.push(once()?);
    }
    Ok(times)
}

/// Announces what bytes of a frame are for: a field of a structure. The frame is one that this domain
/// made: of a parent's it knows no place.
pub fn name_lines(frame: &Frame, offset: usize, bytes: usize, structure: &str, field: &str) {
    rt::println!(
        "structure {{\"at\":{},\"bytes\":{bytes},\"structure\":\"{structure}\",\"field\":\"{field}\"}}",
        frame.id() + offset as u64
    );
}

/// Announces a channel that lies in such a frame, and which cores its sides A and B are on.
pub fn name_channel(frame: &Frame, offset: usize, slots: usize, name: &str, [a, b]: [usize; 2]) {
    rt::println!(
        "structure {{\"at\":{},\"bytes\":{},\"structure\":\"{name}\",\"slots\":{slots},\"cores\":[{a},{b}]}}",
        frame.id() + offset as u64,
        frame_bytes(slots)
    );
}

/// A row of the table.
struct Row {
    operation: String,
    unit: &'static str,
    /// Minimum, median and 99th percentile, or a count alone.
    numbers: [Option<u64>; 3],
    samples: usize,
}

/// A run of a benchmark.
pub struct Laboratory {
    benchmark: &'static str,
    is_quick: bool,
    unit: Option<Unit>,
    overhead: Cycles,
    rows: Vec<Row>,
    /// Number of the last region of interest.
    regions: u8,
}

impl Laboratory {
    /// Begins a run; `is_quick`: with fewer samples.
    pub fn open(benchmark: &'static str, is_quick: bool) -> Self {
        region::begin::<0>();
        Self {
            benchmark,
            is_quick,
            unit: Unit::of_this_run(),
            overhead: clock_overhead(),
            rows: Vec::new(),
            regions: 0,
        }
    }

    /// Begins a run as this program was asked: by the word `--quick`, and by `--only PART`. A part has a name of its own, which the figures bear then; back
    /// comes its place among the parts.
    ///
    /// # Errors
    /// What is wrong with the arguments.
    pub fn of_program(
        program: &'static str,
        parts: &[&'static str],
    ) -> Result<(Self, Option<usize>, Arguments), Misuse> {
        Self::with_options(program, parts, &[])
    }

    /// The same with options of the program's own.
    ///
    /// # Errors
    /// What is wrong with the arguments.
    pub fn with_options(
        program: &'static str,
        parts: &[&'static str],
        options: &[&'static str],
    ) -> Result<(Self, Option<usize>, Arguments), Misuse> {
        const ONLY: &str = "--only";
        let words = || rt::startup().arguments().skip(1);
        let known: Vec<&str> = options.iter().copied().chain([ONLY]).collect();
        let arguments = Arguments::read(words().filter(|word| *word != QUICK), &known)?;
        let only = arguments.choice(ONLY, parts)?;
        let is_quick = words().any(|word| word == QUICK);
        let benchmark = only.map_or(program, |part| parts[part]);
        Ok((Self::open(benchmark, is_quick), only, arguments))
    }

    /// Whether there are to be fewer samples.
    pub fn is_quick(&self) -> bool {
        self.is_quick
    }

    /// Samples of an operation that is so many times slower than a call.
    pub fn samples(&self, slower_by: usize) -> usize {
        let samples = if self.is_quick {
            QUICK_SAMPLES
        } else {
            SAMPLES
        };
        (samples / slower_by.max(1)).max(1)
    }

    /// What reading the clock twice costs: it is taken off each time that is told.
    pub fn overhead(&self) -> Cycles {
        self.overhead
    }

    /// Does an operation again and again; it says itself how long it took. Slow ones are done
    /// fewer times, by the factor.
    ///
    /// # Errors
    /// Those of the operation.
    #[inline(always)]
    pub fn measure(
        &mut self,
        operation: &str,
        slower_by: usize,
        once: impl FnMut() -> Result<Cycles, Failure>,
    ) -> Result<(), Failure> {
        self.measure_with(operation, &[], slower_by, once)
    }

    /// The same, with numbers that tell what was measured.
    ///
    /// # Errors
    /// Those of the operation.
    #[inline(always)]
    pub fn measure_with(
        &mut self,
        operation: &str,
        with: &[(&str, u64)],
        slower_by: usize,
        mut once: impl FnMut() -> Result<Cycles, Failure>,
    ) -> Result<(), Failure> {
        repeat(WARM_UP.div_ceil(slower_by), &mut once)?;
        let samples = self.samples(slower_by);
        let region = self.next_region();
        region::begin_number(region);
        let times = repeat(samples, &mut once)?;
        region::end_number(region);
        self.name_region(region, operation, with, samples as u64);
        self.times(operation, with, times);
        Ok(())
    }

    /// Does what is to be counted from outside as so many times the operation.
    pub fn within<R>(
        &mut self,
        operation: &str,
        with: &[(&str, u64)],
        times: u64,
        work: impl FnOnce() -> R,
    ) -> R {
        let region = self.next_region();
        region::begin_number(region);
        let result = work();
        region::end_number(region);
        self.name_region(region, operation, with, times);
        result
    }

    /// The number of a region of interest of its own, for who counts from outside; 0 is the whole run.
    /// With too many of them it is [`region::REGIONS`] or more, and so none.
    pub fn next_region(&mut self) -> u8 {
        self.regions = self.regions.saturating_add(1);
        self.regions
    }

    /// Tells what was done in a region, and how often.
    pub fn name_region(&self, region: u8, operation: &str, with: &[(&str, u64)], times: u64) {
        if region < region::REGIONS {
            rt::println!(
                "region {{{},\"region\":{region},\"times\":{times}}}",
                self.head(operation, with)
            );
        }
    }

    /// Tells times that were taken elsewhere, the first ones left out. What reading the clock costs is
    /// taken off here.
    pub fn times(&mut self, operation: &str, with: &[(&str, u64)], mut times: Vec<Cycles>) {
        let Some(unit) = self.unit.filter(|_| !times.is_empty()) else {
            return;
        };
        times.sort_unstable();
        let overhead = self.overhead.0;
        let told = times
            .iter()
            .map(|time| unit.convert(Cycles(time.0.saturating_sub(overhead))));
        let mut distribution: Vec<(u64, usize)> = Vec::new();
        for value in told {
            match distribution.last_mut() {
                Some((last, count)) if *last == value => *count += 1,
                _ => distribution.push((value, 1)),
            }
        }
        let percentile = |percent: usize| {
            let mut left = (times.len() * percent).div_ceil(100).max(1);
            let found = distribution.iter().find(|(_, count)| {
                let is_it = left <= *count;
                left = left.saturating_sub(*count);
                is_it
            });
            found.map_or(0, |(value, _)| *value)
        };
        let [minimum, median, p99] = [0, 50, 99].map(percentile);
        let mut pieces = distribution.chunks(VALUES_A_LINE);
        let first = pieces.next().unwrap_or_default();
        rt::println!(
            "result {{{},\"unit\":\"{}\",\"minimum\":{minimum},\"median\":{median},\"p99\":{p99},\
             \"samples\":{},\"distribution\":{}}}",
            self.head(operation, with),
            unit.name(),
            times.len(),
            pairs(first)
        );
        for piece in pieces {
            rt::println!("more {}", pairs(piece));
        }
        self.rows.push(Row {
            operation: label(operation, with),
            unit: unit.name(),
            numbers: [Some(minimum), Some(median), Some(p99)],
            samples: times.len(),
        });
    }

    /// Tells a count.
    pub fn count(&mut self, operation: &str, with: &[(&str, u64)], unit: Count, value: u64) {
        rt::println!(
            "result {{{},\"unit\":\"{}\",\"value\":{value}}}",
            self.head(operation, with),
            unit.name()
        );
        self.rows.push(Row {
            operation: label(operation, with),
            unit: unit.name(),
            numbers: [None, Some(value), None],
            samples: 1,
        });
    }

    fn head(&self, operation: &str, with: &[(&str, u64)]) -> String {
        let core = rt::startup().core;
        let mut head = format!(
            "\"benchmark\":\"{}\",\"operation\":\"{operation}\",\"core\":{core}",
            self.benchmark
        );
        for (name, value) in with {
            let _ = write!(head, ",\"{name}\":{value}");
        }
        head
    }

    /// Prints the table, and ends the run: the exit status of the program.
    pub fn close(self, ended: Result<(), Failure>) -> i32 {
        region::end::<0>();
        let name = self.benchmark;
        if let Err(Failure { step, reason }) = ended {
            rt::println!("{name}: failed: {step}: {reason}");
            return 1;
        }
        let accelerator = rt::startup().accelerator();
        if self.unit.is_none() {
            rt::println!(
                "{name}: `{accelerator}` has no times to tell: --accel icount counts instructions"
            );
        }
        rt::println!("{name}: `{accelerator}`, core {}", rt::startup().core);
        let width = self.rows.iter().map(|row| row.operation.chars().count());
        let width = width.max().unwrap_or(0);
        rt::println!(
            "{:width$} {:>10} {:>10} {:>10} {:>8} unit",
            "operation",
            "minimum",
            "median",
            "p99",
            "samples"
        );
        for row in self.rows {
            let numbers = row.numbers.map(|number| match number {
                Some(number) => format!("{number}"),
                None => String::new(),
            });
            let [minimum, median, p99] = numbers;
            rt::println!(
                "{:width$} {minimum:>10} {median:>10} {p99:>10} {:>8} {}",
                row.operation,
                row.samples,
                row.unit
            );
        }
        0
    }
}

/// An operation with what it was measured with, for people.
fn label(operation: &str, with: &[(&str, u64)]) -> String {
    let mut label = String::from(operation);
    for (name, value) in with {
        let _ = write!(label, ", {name} {value}");
    }
    label
}

/// As JSON.
fn pairs(distribution: &[(u64, usize)]) -> String {
    let mut text = String::from("[");
    for (at, (value, count)) in distribution.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(text, "{comma}[{value},{count}]");
    }
    text.push(']');
    text
}
