//! Measures what channels cost beyond the round trip and the stream of `urpc-latency` and
//! `urpc-throughput`: `bench-channels [--quick] [--only PART]`.
//!
//! | part           | what is measured                                                       | cores |
//! |----------------|------------------------------------------------------------------------|-------|
//! | `urpc-send`    | a send, both ends in this domain                                       | 1     |
//! | `urpc-receive` | a receive, with something there and with nothing, both ends here       | 1     |
//! | `wake`         | a receiver that sleeps: to its first instruction, and there and back   | 2     |
//! | `channels`     | a round trip while so many idle channels are open                      | 2     |
//! | `bulk`         | blocks of 64 bytes to 1 MiB, by way of a frame and by way of messages  | 2     |
//!
//! The other end is a copy of the program, on another core unless an operation says otherwise. Under
//! `icount`, figures are instructions of all cores: one that polls meanwhile is in them.
#![no_std]
#![no_main]

extern crate alloc;

mod bulk;
mod channels;
mod single;
mod wake;

use apps::arguments::{MISUSE_STATUS, explain};
use apps::crew::{Crew, Post};
use apps::laboratory::{Failure, Laboratory, told};
use rt::clock::{self, Cycles};
use urpc::Message;

rt::entry!(main);

const USAGE: &str = "bench-channels [--quick] [--only urpc-send|urpc-receive|wake|channels|bulk]";

/// What may be measured alone.
struct Part {
    name: &'static str,
    takes_two_cores: bool,
    /// With the number of another core, which is this one where that does not matter.
    measure: fn(&mut Laboratory, usize) -> Result<(), Failure>,
}

const PARTS: [Part; 5] = [
    Part {
        name: "urpc-send",
        takes_two_cores: false,
        measure: |laboratory, _| single::measure_send(laboratory),
    },
    Part {
        name: "urpc-receive",
        takes_two_cores: false,
        measure: |laboratory, _| single::measure_receive(laboratory),
    },
    Part {
        name: "wake",
        takes_two_cores: true,
        measure: wake::measure,
    },
    Part {
        name: "channels",
        takes_two_cores: true,
        measure: channels::measure,
    },
    Part {
        name: "bulk",
        takes_two_cores: true,
        measure: bulk::measure,
    },
];

/// The kind of a worker's report that it is through with an order.
const DONE: u16 = 0;
/// How often an operation is begun anew because the other end did not sleep yet.
const ATTEMPTS: usize = 1000;

fn main() -> i32 {
    if let Some(post) = Post::take_up() {
        return work(post);
    }
    let names = PARTS.map(|part| part.name);
    let (mut laboratory, only) = match Laboratory::of_program("bench-channels", &names) {
        Ok((laboratory, only, _)) => (laboratory, only),
        Err(misuse) => return explain(&misuse, USAGE),
    };
    let parts = match only {
        Some(part) => &PARTS[part..=part],
        None => &PARTS[..],
    };
    let here = this_core();
    let other = rt::startup().cores().find(|core| *core != here);
    if other.is_none() && parts.iter().any(|part| part.takes_two_cores) {
        rt::println!("bench-channels: this takes two cores, and one is up");
        return MISUSE_STATUS;
    }
    let other = other.unwrap_or(here);
    let ended = parts
        .iter()
        .try_for_each(|part| (part.measure)(&mut laboratory, other));
    laboratory.close(ended)
}

/// Does what it is told, and sleeps in between.
fn work(mut post: Post) -> i32 {
    while let Some(order) = post.next_order() {
        match order.kind() {
            wake::STAMP | wake::ECHO | wake::POLLED_ECHO => wake::serve(post.frame(), &order),
            channels::ECHO => channels::serve(post.frame(), &order),
            _ => bulk::serve(post.frame()),
        }
        post.report(&Message::new(DONE, [0; 7]));
    }
    0
}

fn this_core() -> usize {
    rt::startup().core as usize
}

/// A worker on one core.
fn hire(core: usize, common_bytes: usize) -> Result<Crew, Failure> {
    told("start of a copy", Crew::hire(&[core], common_bytes))
}

/// Waits until the worker, whose channel is closed, is through with its order.
fn wait_for(crew: &mut Crew, core: usize) -> Result<(), Failure> {
    told("report of a copy", crew.report(core)).map(|_| ())
}

/// Sleeps until the other end must have fallen asleep.
fn settle(ns: u64) {
    clock::sleep_ns(ns);
}

/// Does something that tells no time as long as the other end does not sleep before, which it nearly
/// always does.
fn insist(mut once: impl FnMut() -> Result<Option<Cycles>, Failure>) -> Result<Cycles, Failure> {
    for _ in 0..ATTEMPTS {
        if let Some(time) = once()? {
            return Ok(time);
        }
    }
    Err(Failure {
        step: "sleep of the other end",
        reason: "it never does".into(),
    })
}
