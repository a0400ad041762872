//! Measures the round trip over a URPC channel for each pair of cores, from ring 3.
//!
//! `urpc-latency [--cores LIST|all] [--rounds N] [--quick]`
//!
//! A worker sleeps on each core. For a pair, two of them wake up and poll the two ends of one
//! channel of 16 slots: the core of lower number sends a full message of 56 bytes, the other
//! sends it back. The time of each round is taken by one core's clock, and what reading the
//! clock costs is taken off. The first rounds do not count: they fetch lines into caches.
//! Pairs are measured one after another, each once, so the matrices are symmetric. Where times mean
//! something, each pair's are told by a line of [`apps::laboratory`] as well, `from` the core that
//! sends first and takes the time `to` the one that sends back.
//!
//! All cores share a frame: the channel, and behind it a word for each round, its time in cycles.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use abi::layout::PAGE;
use alloc::vec::Vec;
use apps::arguments::explain;
use apps::crew::{Crew, CrewError, Post, poll};
use apps::figures::{Unit, since};
use apps::laboratory::Laboratory;
use apps::{figures, pattern, table};
use core::sync::atomic::Ordering::Relaxed;
use rt::clock::{self, Cycles};
use rt::frame::Frame;
use urpc::{Message, Side, frame_bytes};

rt::entry!(main);

const USAGE: &str = "urpc-latency [--cores LIST|all] [--rounds N] [--quick]";
/// Slots of the channel that is measured, in each direction.
const SLOTS: usize = 16;
/// Rounds that do not count: a lap of the ring.
const WARM_UP_ROUNDS: u64 = SLOTS as u64;
/// Most rounds of a pair, which must fit the heap.
const MAX_ROUNDS: u64 = 20_000;
/// Rounds of all pairs together, unless somebody asks for another number; and the least of each.
const DEFAULT_ROUNDS_IN_ALL: u64 = 200_000;
const LEAST_ROUNDS: u64 = 25;
/// The first of the words behind the channel.
const TIMES: usize = frame_bytes(SLOTS) / size_of::<u64>();

/// Send back what comes: rounds. Nothing is reported: that all came back says it.
const SERVE: u16 = 1;
/// Send and wait for it to come back: rounds.
const MEASURE: u16 = 2;
/// It is measured: the times are in the frame.
const DONE: u16 = 3;
/// Something else came back than was sent.
const WRONG: u16 = 4;

/// Round trip of a pair.
#[derive(Clone, Copy)]
struct RoundTrip {
    minimum: Cycles,
    median: Cycles,
}

impl RoundTrip {
    /// Of the times of at least one round; what reading the clock costs is taken off.
    fn of(mut times: Vec<Cycles>, overhead: Cycles) -> Self {
        times.sort_unstable();
        let net = |time: Cycles| Cycles(time.0.saturating_sub(overhead.0));
        Self {
            minimum: net(times[0]),
            median: net(times[times.len() / 2]),
        }
    }
}

fn main() -> i32 {
    if let Some(post) = Post::take_up() {
        return work(post);
    }
    let start = rt::startup();
    let up: Vec<usize> = start.cores().collect();
    let options = Laboratory::with_options("urpc-latency", &[], &["--cores", "--rounds"]);
    let asked = options.and_then(|(laboratory, _, arguments)| {
        let cores = arguments.cores("--cores", &up)?;
        let rounds = arguments.number("--rounds", 1..=MAX_ROUNDS)?;
        Ok((laboratory, cores, rounds))
    });
    let (mut laboratory, cores, rounds) = match asked {
        Ok(asked) => asked,
        Err(misuse) => return explain(&misuse, USAGE),
    };
    let pairs = (cores.len() * cores.len().saturating_sub(1) / 2) as u64;
    if pairs == 0 {
        rt::println!("urpc-latency: one core makes no pair, so there is nothing to measure");
        return 0;
    }
    // Fewer rounds where there are many pairs, so that a run does not take minutes.
    let most = laboratory.samples(1) as u64;
    let rounds = rounds.unwrap_or((DEFAULT_ROUNDS_IN_ALL / pairs).clamp(LEAST_ROUNDS, most));
    match measure_all(&mut laboratory, &cores, rounds) {
        Ok(trips) => {
            show(&cores, rounds, &trips);
            0
        }
        Err(failure) => {
            rt::println!("urpc-latency: failed: {failure}");
            1
        }
    }
}

/// Why a measurement came to nothing.
enum Failure {
    Crew(CrewError),
    WrongEcho(usize, usize),
}

impl From<CrewError> for Failure {
    fn from(error: CrewError) -> Self {
        Self::Crew(error)
    }
}

impl core::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Crew(error) => error.fmt(formatter),
            Self::WrongEcho(client, server) => write!(
                formatter,
                "core {client} got something else back from core {server} than it had sent"
            ),
        }
    }
}

/// Where the round trip of the pair `low < high` stands among all, by index of their cores.
fn place(low: usize, high: usize) -> usize {
    high * (high - 1) / 2 + low
}

/// Measures all pairs of these cores, and tells the times of each; see [`place`] for their order.
fn measure_all(
    laboratory: &mut Laboratory,
    cores: &[usize],
    rounds: u64,
) -> Result<Vec<RoundTrip>, Failure> {
    let here = rt::startup().core as usize;
    let others: Vec<usize> = cores.iter().copied().filter(|core| *core != here).collect();
    let bytes = (TIMES + rounds as usize) * size_of::<u64>();
    let mut crew = Crew::hire(&others, bytes.next_multiple_of(PAGE as usize))?;
    let mut trips = Vec::with_capacity(cores.len() * (cores.len() - 1) / 2);
    for high in 1..cores.len() {
        for low in 0..high {
            let (client, server) = (cores[low], cores[high]);
            let pair = [("from", client as u64), ("to", server as u64)];
            let times = laboratory.within("round trip", &pair, rounds, || {
                measure_pair(&mut crew, here, client, server, rounds)
            })?;
            trips.push(RoundTrip::of(times.clone(), laboratory.overhead()));
            laboratory.times("round trip", &pair, times);
        }
    }
    crew.dismiss()?;
    Ok(trips)
}

/// The time of each round of a pair, reading the clock included.
fn measure_pair(
    crew: &mut Crew,
    here: usize,
    client: usize,
    server: usize,
    rounds: u64,
) -> Result<Vec<Cycles>, Failure> {
    // Neither end uses it any more: the client has reported, and the server's last act was to
    // send the last message that the client got back. Both attach anew.
    crew.frame().clear(0, frame_bytes(SLOTS));
    let frame = *crew.frame();
    for (core, kind) in [(server, SERVE), (client, MEASURE)] {
        if core != here {
            crew.order(core, &Message::new(kind, [rounds, 0, 0, 0, 0, 0, 0]))?;
        }
    }
    // This core's own part comes last: it polls, and the other has its order.
    if server == here {
        serve(&frame, rounds);
    }
    let is_good = if client == here {
        measure(&frame, rounds).is_some()
    } else {
        crew.report(client)?.kind() == DONE
    };
    if !is_good {
        return Err(Failure::WrongEcho(client, server));
    }
    let time = |round| Cycles(frame.word(TIMES + round).load(Relaxed));
    Ok((0..rounds as usize).map(time).collect())
}

/// Does what it is told, and sleeps in between.
fn work(mut post: Post) -> i32 {
    while let Some(order) = post.next_order() {
        let frame = *post.frame();
        let rounds = order.payload[0];
        if order.kind() == SERVE {
            serve(&frame, rounds);
            continue;
        }
        let kind = match measure(&frame, rounds) {
            Some(()) => DONE,
            None => WRONG,
        };
        post.report(&Message::new(kind, [0; 7]));
    }
    0
}

/// Sends back what comes, until all came or the client gave up.
fn serve(frame: &Frame, rounds: u64) {
    let mut channel = frame.channel(0, SLOTS, Side::B);
    for _ in 0..WARM_UP_ROUNDS + rounds {
        let Some(message) = poll(&mut channel) else {
            return;
        };
        // One message is on its way at a time, so there is room.
        if channel.send(&message).is_err() {
            return;
        }
    }
}

/// Sends and waits for it to come back, and leaves the times in the frame. `None`: something else
/// came back.
fn measure(frame: &Frame, rounds: u64) -> Option<()> {
    let mut channel = frame.channel(0, SLOTS, Side::A);
    for round in 0..WARM_UP_ROUNDS + rounds {
        let question = pattern::message(rounds, round);
        let start = clock::cycles();
        channel.send(&question).ok()?;
        let echo = poll(&mut channel)?;
        let taken = since(start);
        if echo != question {
            channel.close();
            return None;
        }
        if let Some(round) = round.checked_sub(WARM_UP_ROUNDS) {
            frame.word(TIMES + round as usize).store(taken.0, Relaxed);
        }
    }
    Some(())
}

/// Prints the matrices and one line for programs.
fn show(cores: &[usize], rounds: u64, trips: &[RoundTrip]) {
    let unit = Unit::of_this_run();
    let name = unit.name();
    rt::println!(
        "urpc-latency: round trip of a 56-byte message over a URPC channel, both ends polling \
         in ring 3; each of {} pairs of cores once (so symmetric), {rounds} rounds",
        trips.len()
    );
    figures::explain();
    let index = |core: usize| cores.iter().position(|other| *other == core);
    let print = |title: &str, figure: fn(&RoundTrip) -> Cycles| {
        rt::println!("{title}, {name}:");
        let value = |row: usize, column: usize| {
            let (row, column) = (index(row)?, index(column)?);
            let trip = trips.get(place(row.min(column), row.max(column)));
            (row != column).then(|| trip.map(|trip| unit.convert(figure(trip))))?
        };
        for line in table::matrix(cores, value) {
            rt::println!("{line}");
        }
    };
    print("minimum", |trip| trip.minimum);
    print("median", |trip| trip.median);

    let of = |figure: fn(&RoundTrip) -> Cycles| {
        let mut all: Vec<u64> = trips
            .iter()
            .map(|trip| unit.convert(figure(trip)))
            .collect();
        all.sort_unstable();
        all
    };
    let (minima, medians) = (of(|trip| trip.minimum), of(|trip| trip.median));
    let (Some(minimum), Some(median), Some(slowest)) = (
        minima.first(),
        medians.get(medians.len() / 2),
        medians.last(),
    ) else {
        return;
    };
    rt::println!(
        "result: {{\"benchmark\":\"urpc-latency\",\"accelerator\":\"{}\",\"unit\":\"{name}\",\
         \"cores\":{},\"pairs\":{},\"rounds\":{rounds},\"minimum\":{minimum},\
         \"median\":{median},\"slowest_median\":{slowest}}}",
        rt::startup().accelerator(),
        cores.len(),
        trips.len(),
    );
}
