//! Measures how fast messages stream one way over a URPC channel, from ring 3.
//!
//! `urpc-throughput [--cores LIST|all] [--messages N] [--quick]`
//!
//! The first core of the list sends N full messages of 56 bytes to each other core in turn;
//! both ends poll, all others sleep. How many messages may be on their way:
//!
//! * depth 1, 2, 4 … 32: the receiver answers each message, each second, fourth …, and the sender
//!   waits for the answer before it sends more;
//! * ring 16 and 64: as many as the ring holds; the sender learns of room from the
//!   acknowledgements of the channel itself.
//!
//! The receiver takes the time from the first message to the last, and compares every word of it
//! with what must have been sent, which is part of the time. "full" counts the sends that
//! found no room and polled, "empty" the receives that found nothing. Doorbells are those
//! that both CPU drivers sent during the stream; there should be none, since nobody sleeps.
//!
//! Where times mean something, each stream is told by a line of [`apps::laboratory`] as well: whole
//! units a message, a sample for each 64 messages, which the receiver leaves in the frame that all
//! share, behind the channel.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use abi::layout::PAGE;
use abi::record::Counters;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use apps::arguments::explain;
use apps::crew::{Crew, CrewError, Post, poll};
use apps::figures::{Unit, since};
use apps::laboratory::Laboratory;
use apps::{figures, pattern};
use core::array;
use core::mem::offset_of;
use core::sync::atomic::Ordering::Relaxed;
use rt::clock::{self, Cycles};
use rt::frame::Frame;
use rt::interface;
use rt::monitor;
use urpc::{Channel, Message, PAYLOAD_WORDS, ReceiveError, SendError, Side, frame_bytes};

rt::entry!(main);

const USAGE: &str = "urpc-throughput [--cores LIST|all] [--messages N] [--quick]";
/// Messages of all streams together, unless somebody asks for another number of each.
const DEFAULT_MESSAGES_IN_ALL: u64 = 400_000;
/// Then a stream has at least so many, and at most; that for a quick run.
const LEAST_MESSAGES: u64 = 500;
const MOST_MESSAGES: u64 = 10_000;
const QUICK_MESSAGES: u64 = 2_000;
/// Slots of the largest ring.
const MAX_SLOTS: usize = 64;
/// Messages of a sample; and most points in time that are kept of a stream.
const BATCH: u64 = 64;
const MAX_POINTS: u64 = 1024;
/// The first of the words behind the channel, in which they are kept.
const POINTS: usize = frame_bytes(MAX_SLOTS) / size_of::<u64>();
const COMMON_BYTES: usize =
    ((POINTS + MAX_POINTS as usize) * size_of::<u64>()).next_multiple_of(PAGE as usize);
/// Samples that do not count.
const WARM_UP: usize = 1;

/// One way to stream.
struct Mode {
    name: &'static str,
    slots: usize,
    /// Messages that are answered together; `None`: none is.
    depth: Option<u64>,
}

impl Mode {
    const fn answered(name: &'static str, slots: usize, depth: u64) -> Self {
        Self {
            name,
            slots,
            depth: Some(depth),
        }
    }

    const fn ring(name: &'static str, slots: usize) -> Self {
        Self {
            name,
            slots,
            depth: None,
        }
    }
}

const MODES: [Mode; 8] = [
    Mode::answered("depth 1", 16, 1),
    Mode::answered("depth 2", 16, 2),
    Mode::answered("depth 4", 16, 4),
    Mode::answered("depth 8", 16, 8),
    Mode::answered("depth 16", MAX_SLOTS, 16),
    Mode::answered("depth 32", MAX_SLOTS, 32),
    Mode::ring("ring 16", 16),
    Mode::ring("ring 64", MAX_SLOTS),
];

/// Send: mode, messages.
const SEND: u16 = 1;
/// Receive: mode, messages.
const RECEIVE: u16 = 2;
/// It is done: cycles, waits, doorbells, messages that were as they should be.
const DONE: u16 = 3;

/// What one end found.
#[derive(Clone, Copy)]
struct Finding {
    taken: Cycles,
    waits: u64,
    doorbells: u64,
    good: u64,
}

fn main() -> i32 {
    if let Some(post) = Post::take_up() {
        return work(post);
    }
    let start = rt::startup();
    let up: Vec<usize> = start.cores().collect();
    let options = Laboratory::with_options("urpc-throughput", &[], &["--cores", "--messages"]);
    let asked = options.and_then(|(laboratory, _, arguments)| {
        let cores = arguments.cores("--cores", &up)?;
        let messages = arguments.number("--messages", 2..=1_000_000_000)?;
        Ok((laboratory, cores, messages))
    });
    let (mut laboratory, cores, asked_for) = match asked {
        Ok(asked) => asked,
        Err(misuse) => return explain(&misuse, USAGE),
    };
    let Some((sender, receivers)) = cores.split_first().filter(|(_, rest)| !rest.is_empty()) else {
        rt::println!("urpc-throughput: one core makes no pair, so there is nothing to measure");
        return 0;
    };
    let streams = (receivers.len() * MODES.len()) as u64;
    let most = if laboratory.is_quick() {
        QUICK_MESSAGES
    } else {
        MOST_MESSAGES
    };
    let messages = (DEFAULT_MESSAGES_IN_ALL / streams).clamp(LEAST_MESSAGES, most);
    let messages = asked_for.unwrap_or(messages);
    match measure_all(&mut laboratory, *sender, receivers, messages) {
        Ok(0) => 0,
        Ok(bad) => {
            rt::println!("urpc-throughput: failed: {bad} streams did not arrive as they were sent");
            1
        }
        Err(error) => {
            rt::println!("urpc-throughput: failed: {error}");
            1
        }
    }
}

/// Measures and prints; returns how many streams were not received as they were sent.
fn measure_all(
    laboratory: &mut Laboratory,
    sender: usize,
    receivers: &[usize],
    messages: u64,
) -> Result<usize, CrewError> {
    let here = rt::startup().core as usize;
    let all = core::iter::once(&sender).chain(receivers);
    let workers: Vec<usize> = all.copied().filter(|core| *core != here).collect();
    let mut crew = Crew::hire(&workers, COMMON_BYTES)?;
    let unit = Unit::of_this_run();
    rt::println!(
        "urpc-throughput: {messages} messages of 56 bytes one way, from core {sender} to each \
         other core; both ends poll in ring 3"
    );
    figures::explain();
    let mut rows: Vec<String> = Vec::new();
    let (mut bad, mut totals) = (0, [0; MODES.len()]);
    for receiver in receivers {
        for (index, mode) in MODES.iter().enumerate() {
            let [sent, received] =
                measure(&mut crew, here, [sender, *receiver], index as u64, messages)?;
            bad += usize::from(received.good != messages);
            tell(
                laboratory,
                crew.frame(),
                [sender, *receiver],
                mode,
                messages,
            );
            // From the first message to the last are so many steps.
            let tenths = unit.convert(Cycles(received.taken.0.saturating_mul(10))) / (messages - 1);
            totals[index] += tenths;
            let pair = format!("{sender} -> {receiver}");
            rows.push(format!(
                "{pair:<11} {:<8}  {:>8}  {:>14}  {:>8}  {:>8}  {:>9}",
                mode.name,
                received.good,
                decimal(tenths),
                sent.waits,
                received.waits,
                sent.doorbells + received.doorbells,
            ));
        }
    }
    rt::println!(
        "pair        mode      messages  {:>6}/message      full     empty  doorbells",
        unit.name()
    );
    for row in rows {
        rt::println!("{row}");
    }
    crew.dismiss()?;
    let means: Vec<String> = MODES
        .iter()
        .zip(totals)
        .map(|(mode, total)| {
            let mean = decimal(total / receivers.len() as u64);
            format!("\"{}\":{mean}", mode.name.replace(' ', "_"))
        })
        .collect();
    rt::println!(
        "result: {{\"benchmark\":\"urpc-throughput\",\"accelerator\":\"{}\",\
         \"unit\":\"{}/message\",\"receivers\":{},\"messages\":{messages},{}}}",
        rt::startup().accelerator(),
        unit.name(),
        receivers.len(),
        means.join(",")
    );
    Ok(bad)
}

/// Tells the samples that the receiver of a stream left in the frame.
fn tell(
    laboratory: &mut Laboratory,
    frame: &Frame,
    [sender, receiver]: [usize; 2],
    mode: &Mode,
    messages: u64,
) {
    let point = |index| frame.word(POINTS + index as usize).load(Relaxed);
    let points: Vec<u64> = (0..messages.div_ceil(BATCH).min(MAX_POINTS))
        .map(point)
        .collect();
    // The clock is read once for a batch, not for a message.
    let overhead = laboratory.overhead().0;
    let samples = points.windows(2).skip(WARM_UP);
    let samples = samples.map(|ends| Cycles(ends[1].saturating_sub(ends[0]) / BATCH + overhead));
    let ends = [("from", sender as u64), ("to", receiver as u64)];
    let slots = ("slots", mode.slots as u64);
    match mode.depth {
        Some(depth) => {
            let with = [ends[0], ends[1], ("depth", depth), slots];
            laboratory.times("message, answered", &with, samples.collect());
        }
        None => {
            let with = [ends[0], ends[1], slots];
            laboratory.times("message, full ring", &with, samples.collect());
        }
    }
}

/// A number of tenths with its decimal point.
fn decimal(tenths: u64) -> String {
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// One stream; what sender and receiver found.
fn measure(
    crew: &mut Crew,
    here: usize,
    pair: [usize; 2],
    mode: u64,
    messages: u64,
) -> Result<[Finding; 2], CrewError> {
    // Both ends of the last stream have reported.
    crew.frame().clear(0, frame_bytes(MAX_SLOTS));
    let frame = *crew.frame();
    let order = |kind| Message::new(kind, [mode, messages, 0, 0, 0, 0, 0]);
    let parts = [(pair[0], order(SEND)), (pair[1], order(RECEIVE))];
    for (core, order) in parts.iter().filter(|(core, _)| *core != here) {
        crew.order(*core, order)?;
    }
    // This core's own part comes last: it polls, and the other has its order.
    let mut own = None;
    if let Some((_, order)) = parts.iter().find(|(core, _)| *core == here) {
        own = Some(perform(&frame, order));
    }
    let mut finding_of = |core| match own.filter(|_| core == here) {
        Some(finding) => Ok(finding),
        None => {
            let [taken, waits, doorbells, good, ..] = crew.report(core)?.payload;
            let taken = Cycles(taken);
            Ok(Finding {
                taken,
                waits,
                doorbells,
                good,
            })
        }
    };
    Ok([finding_of(pair[0])?, finding_of(pair[1])?])
}

/// Does what it is told, and sleeps in between.
fn work(mut post: Post) -> i32 {
    while let Some(order) = post.next_order() {
        let found = perform(post.frame(), &order);
        let words = [
            found.taken.0,
            found.waits,
            found.doorbells,
            found.good,
            0,
            0,
            0,
        ];
        post.report(&Message::new(DONE, words));
    }
    0
}

/// Sends or receives a stream, and counts the doorbells that this core sends meanwhile.
fn perform(frame: &Frame, order: &Message) -> Finding {
    let [mode, messages, ..] = order.payload;
    let Some(mode) = MODES.get(mode as usize) else {
        return NOTHING;
    };
    // To ask for the count rings too; how often, a question for its own sake tells.
    let counts = [doorbells_sent(), doorbells_sent()];
    let found = if order.kind() == SEND {
        send(&mut frame.channel(0, mode.slots, Side::A), mode, messages)
    } else {
        receive(frame, mode, messages)
    };
    let in_all = doorbells_sent().saturating_sub(counts[1]);
    Finding {
        doorbells: in_all.saturating_sub(counts[1] - counts[0]),
        ..found
    }
}

const NOTHING: Finding = Finding {
    taken: Cycles(0),
    waits: 0,
    doorbells: 0,
    good: 0,
};

fn doorbells_sent() -> u64 {
    let index = offset_of!(Counters, doorbells_sent) / size_of::<u64>();
    let own = rt::startup().core as usize;
    let answer = monitor::ask(own, interface::COUNTER, [index as u64, 0, 0, 0, 0, 0]);
    answer.map_or(0, |results| results[0])
}

/// The stream of messages of a mode.
fn stream(mode: &Mode) -> u64 {
    mode.slots as u64 + mode.depth.unwrap_or(0)
}

/// The first word of message `number` of a stream; each of the others is one more than the one
/// before. So no word of a stream is like another, and they cost no more than words from memory.
#[inline]
fn first_word(stream: u64, number: u64) -> u64 {
    (stream << 48).wrapping_add(number * PAYLOAD_WORDS as u64)
}

#[inline]
fn message(stream: u64, number: u64) -> Message {
    let first = first_word(stream, number);
    let words = array::from_fn(|place| first.wrapping_add(place as u64));
    Message::new(pattern::KIND, words)
}

/// Whether a message is that one; all words are looked at, without a call.
#[inline]
fn is_message(received: &Message, stream: u64, number: u64) -> bool {
    let first = first_word(stream, number);
    let words = received.payload.iter().zip(0u64..);
    let differences = words.fold(0, |all, (word, place)| {
        all | word ^ first.wrapping_add(place)
    });
    differences == 0 && received.kind() == pattern::KIND
}

fn send(channel: &mut Channel, mode: &Mode, messages: u64) -> Finding {
    let mut found = NOTHING;
    let start = clock::cycles();
    for number in 0..messages {
        let message = message(stream(mode), number);
        let mut waited = 0;
        while let Err(error) = channel.send(&message) {
            if error != SendError::Full {
                return found;
            }
            waited = 1;
            core::hint::spin_loop();
        }
        found.waits += waited;
        found.good += 1;
        let answered = |depth| (number + 1) % depth == 0;
        if mode.depth.is_some_and(answered) && poll(channel).is_none() {
            return found;
        }
    }
    found.taken = since(start);
    found
}

fn receive(frame: &Frame, mode: &Mode, messages: u64) -> Finding {
    let mut channel = frame.channel(0, mode.slots, Side::B);
    let mut found = NOTHING;
    let mut start = clock::cycles();
    for number in 0..messages {
        let mut waited = 0;
        let received = loop {
            match channel.recv() {
                Ok(received) => break received,
                Err(ReceiveError::Empty) => {
                    waited = 1;
                    core::hint::spin_loop();
                }
                Err(_) => return found,
            }
        };
        if number == 0 {
            start = clock::cycles();
        }
        if number % BATCH == 0 && number / BATCH < MAX_POINTS {
            let point = frame.word(POINTS + (number / BATCH) as usize);
            point.store(clock::cycles().0, Relaxed);
        }
        found.waits += waited;
        found.good += u64::from(is_message(&received, stream(mode), number));
        let answered = |depth| (number + 1) % depth == 0;
        if mode.depth.is_some_and(answered) && channel.send(&Message::EMPTY).is_err() {
            return found;
        }
    }
    found.taken = since(start);
    found
}
