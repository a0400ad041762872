//! Tests that count the cache lines which move between cores.

use crate::accelerator::Choice;
use crate::bench::results;
use crate::bundle::System;
use crate::coherence::{self, Counts};
use crate::console::Recording;
use crate::figure::{Figure, Unit};
use crate::harness::{Outcome, Pass, Test, Workshop, run_command};
use crate::launch::{self, Boot};
use crate::options::RunOptions;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The program and its channels' regions: round trips and a stream over 16 and 64 slots each, then
/// a channel on which nothing comes. Counted are so many messages, or looks.
const PROGRAM: &str = "bench-coherence --quick";
/// A program whose members share counters, of which the first region is the whole run.
const COUNTERS: &str = "bench-sharing --quick --only shared-counter";
const ROUND_TRIPS: [u8; 2] = [1, 2];
const STREAMS: [u8; 2] = [3, 4];
const IDLE: u8 = 5;
const MESSAGES: u64 = 960;
/// Most lines, in hundredths, that a message and its share of acknowledgements move in a stream.
const STREAM_TARGET: u64 = 220;
/// A line each way, each read once and taken back once.
const ROUND_TRIP_TARGET: u64 = 4;
/// Most lines, in hundredths, that a round trip moves with its share of acknowledgements.
const ROUND_TRIP_LIMITS: [u64; 2] = [500, 426];
/// Nanoseconds of a round trip between two cores that share a cache on the machine `two-socket`: twice
/// the published latency one way; and most, with acknowledgements over 16 slots: a quarter of it more.
const ROUND_TRIP_NS: [f64; 2] = [136.0, 170.5];
/// What a benchmark's figures call the lines of a channel between cores 0 and 1.
const CHANNEL: &str = "channel of cores 0 and 1";
/// Longest that a benchmark may take, a build included.
const LIMIT: Duration = Duration::from_secs(600);
/// Lines that acknowledge lie between those of messages, which are 128 bytes apart.
const ODD_LINE: u64 = 64;

/// All of them.
pub fn tests() -> Vec<Test> {
    let all = [
        Test::new("coherence/channels", channels),
        Test::new("coherence/sockets", sockets),
        Test::new("coherence/names", names),
        Test::new("coherence/bench", bench),
    ];
    all.into()
}

/// Counts a boot of a program on so many cores and sockets.
fn count(
    workshop: &Workshop,
    name: &str,
    program: &str,
    cores: i64,
    sockets: i64,
) -> Result<(Counts, String), String> {
    let (system, qemu): (&System, _) = (workshop.system()?, workshop.qemu()?);
    let file = workshop
        .project
        .own_folder()
        .join(format!("test-{name}.jsonl"));
    let options = RunOptions {
        cores,
        sockets,
        accel: Choice::Icount,
        exec: program.to_owned(),
        coherence: Some(file.clone()),
        ..RunOptions::defaults()
    };
    let request = options.check().map_err(|failure| failure.to_string())?;
    let accelerator = coherence::prepare(request.accel, &workshop.project);
    let accelerator = accelerator.map_err(|failure| failure.to_string())?;
    let boot = Boot {
        limit: Some(accelerator.time_limit(request.cores)),
        request,
        accelerator,
    };
    let mut console = Recording::default();
    match launch::launch(&boot, system, qemu, &mut console) {
        Ok(0) => read(&file),
        other => Err(format!(
            "expected exit status 0, found {other:?}:\n{}",
            console.text()
        )),
    }
}

fn read(file: &Path) -> Result<(Counts, String), String> {
    let text =
        std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let counts = Counts::of(&text).map_err(|error| error.to_string())?;
    Ok((counts, text))
}

/// Lines that a region moved.
fn moved(counts: &Counts, region: u8) -> u64 {
    let (reads, writes) = counts.transfers(region);
    reads + writes
}

/// Lines of messages alone that a region moved.
fn moved_by_messages(counts: &Counts, region: u8) -> u64 {
    let lines = counts.lines.iter().filter(|line| line.region == region);
    let even = lines.filter(|line| {
        line.distance
            .is_some_and(|distance| distance & ODD_LINE == 0)
    });
    even.map(|line| line.reads + line.writes).sum()
}

/// No CPU driver's memory is touched by two cores.
fn is_private(counts: &Counts) -> Result<(), String> {
    if counts.private.is_empty() && counts.foreign.is_empty() {
        return Ok(());
    }
    Err(format!(
        "expected no private RAM touched by two cores, found lines {:?} and pages {:?}",
        counts.private, counts.foreign
    ))
}

fn at_most(what: &str, found: u64, limit: u64) -> Result<(), String> {
    if found <= limit {
        return Ok(());
    }
    Err(format!(
        "{what}: expected at most {limit} lines moved, found {found}"
    ))
}

/// What messages cost, twice the same, and nothing private is shared.
fn channels(workshop: &Workshop) -> Outcome {
    let (counts, text) = count(workshop, "channels", PROGRAM, 2, 1)?;
    let (_, again) = count(workshop, "channels", PROGRAM, 2, 1)?;
    if text != again {
        return Err("expected the same counts in two runs, found two that differ".to_owned());
    }
    is_private(&counts)?;
    for (region, limit) in ROUND_TRIPS.into_iter().zip(ROUND_TRIP_LIMITS) {
        named(&counts, region)?;
        let lines = moved_by_messages(&counts, region);
        at_most(
            "messages of round trips",
            lines,
            MESSAGES * ROUND_TRIP_TARGET,
        )?;
        // Fewer would mean that something was not seen.
        if lines < MESSAGES * ROUND_TRIP_TARGET {
            return Err(format!(
                "region {region}: expected a line each way, found {lines} lines moved"
            ));
        }
        at_most(
            "round trips",
            100 * moved(&counts, region),
            MESSAGES * limit + 1000,
        )?;
    }
    for region in STREAMS {
        at_most(
            "a stream",
            100 * moved(&counts, region),
            MESSAGES * STREAM_TARGET,
        )?;
    }
    // The last acknowledgement of before may be written in it.
    at_most("an idle channel", moved(&counts, IDLE), 1)?;
    let of = |region| moved(&counts, region) as f64 / MESSAGES as f64;
    Ok(Pass::Passed(format!(
        "lines a round trip: {:.2} (16 slots), {:.2} (64); a message in a stream: {:.2}, {:.2}",
        of(ROUND_TRIPS[0]),
        of(ROUND_TRIPS[1]),
        of(STREAMS[0]),
        of(STREAMS[1])
    )))
}

/// Both ends' messages in a region of round trips have their names, and so has every line.
fn named(counts: &Counts, region: u8) -> Result<(), String> {
    let fields = counts.fields(region);
    for core in 0..2 {
        let messages = (
            CHANNEL,
            &*format!("messages by core {core}"),
            MESSAGES,
            MESSAGES,
        );
        if !fields.contains(&messages) {
            return Err(format!(
                "region {region}: expected {messages:?}, found {fields:?}"
            ));
        }
    }
    let named: u64 = fields
        .iter()
        .map(|(.., reads, writes)| reads + writes)
        .sum();
    match moved(counts, region) {
        all if all == named => Ok(()),
        all => Err(format!(
            "region {region}: expected names for {all} lines moved, found {named}: {fields:?}"
        )),
    }
}

/// What a program announces has its name, and so have the monitors' channels.
fn names(workshop: &Workshop) -> Outcome {
    let (counts, _) = count(workshop, "names", COUNTERS, 2, 1)?;
    let fields = counts.fields(0);
    for (structure, field) in [
        ("shared counters", "lock, or next ticket"),
        ("shared counters", "ticket that is served"),
        ("shared counters", "counters"),
        (
            "channel to the server of cores 0 and 1",
            "messages by core 1",
        ),
        ("channel of monitors 0 and 1", "messages by core 0"),
        ("channel of monitors 0 and 1", "messages by core 1"),
        ("sleep words of monitors", "asleep by core 0"),
    ] {
        // A lock that is free is taken by a locked write alone.
        let is_it = |(one, other, _, writes): &(&str, &str, u64, u64)| {
            (*one, *other) == (structure, field) && *writes > 0
        };
        if !fields.iter().any(is_it) {
            return Err(format!(
                "expected writes of {field:?} of {structure:?}, found {fields:?}"
            ));
        }
    }
    Ok(Pass::Passed(String::new()))
}

/// `scripts/bench` tells the lines by field, and estimates what they would take elsewhere.
fn bench(workshop: &Workshop) -> Outcome {
    let folder = workshop.project.own_folder().join("bench-coherence");
    let mut this = Command::new("/proc/self/exe");
    this.args(["bench", "coherence", "--quick", "--coherence", "--out"]);
    this.arg(&folder);
    let ran = run_command(&mut this, LIMIT)?;
    if !ran.status.success() {
        return Err(format!("{}{}", ran.stdout, ran.stderr));
    }
    let runs = results::read(&folder).map_err(|error| error.to_string())?;
    let figures = || runs.iter().flat_map(|run| &run.figures);
    let is = |figure: &&Figure, key: &str, value: &str| {
        figure.record.get(key).and_then(|found| found.as_str()) == Some(value)
    };
    let trips = |figure: &&Figure| figure.operation.ends_with(": URPC round trip");
    let estimates: Vec<f64> = figures()
        .filter(|figure| figure.unit == Unit::Estimate && trips(figure))
        .filter(|figure| is(figure, "machine", "two-socket"))
        .map(|figure| figure.value)
        .collect();
    let [least, most] = ROUND_TRIP_NS;
    let near = |value: &f64| (least..most).contains(value);
    if estimates.len() != ROUND_TRIPS.len() || !estimates.iter().all(near) {
        return Err(format!(
            "expected a round trip of {least} to {most} ns in each region, found {estimates:?}"
        ));
    }
    for field in ["messages by core 0", "messages by core 1"] {
        let of = figures().filter(trips);
        let of = of.filter(|figure| is(figure, "structure", CHANNEL) && is(figure, "field", field));
        let lines: Vec<f64> = of.map(|figure| figure.value).collect();
        // A line, read once and taken back once.
        if lines != [2.0; ROUND_TRIPS.len()] {
            return Err(format!(
                "{field}: expected 2 lines a round trip in each region, found {lines:?}"
            ));
        }
    }
    let shown = "nanoseconds (estimate), icount";
    let source = "estimate, machine eight-socket: ";
    let page = folder.join(results::REPORT);
    let page = std::fs::read_to_string(page).map_err(|error| error.to_string())?;
    for (text, what) in [(&ran.stdout, "the table"), (&page, "the page")] {
        if !text.contains(shown) || !text.contains(source) {
            return Err(format!(
                "expected {shown:?} and {source:?} in {what}, found:\n{text}"
            ));
        }
    }
    Ok(Pass::Passed(format!(
        "a round trip on two-socket: {estimates:?} ns"
    )))
}

/// Cores and memory of several sockets are told apart.
fn sockets(workshop: &Workshop) -> Outcome {
    let (counts, _) = count(workshop, "sockets", PROGRAM, 4, 2)?;
    is_private(&counts)?;
    let busy = |core: usize| {
        let of_core = counts
            .cores
            .iter()
            .filter(|one| one.core == core && STREAMS.contains(&one.region));
        of_core.map(|one| one.reads + one.writes).sum::<u64>()
    };
    let [first, second] = [0, 1].map(busy);
    if first == 0 || second == 0 {
        return Err(format!(
            "expected cores 0 and 1 to move lines, found {first} and {second}"
        ));
    }
    Ok(Pass::Passed(String::new()))
}
