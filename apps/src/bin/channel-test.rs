//! Sends through channels whose ends sleep, and checks every message.
//!
//! `channel-test [--messages N]`
//!
//! The program is one end, a worker the other: on another core, on the last, and on the same
//! core, where the two can only take turns. With each worker:
//!
//! 1. N messages one way, then N the other, by sends and receives that block;
//! 2. N messages each way at once;
//! 3. a ring filled up to the last slot while the receiver sleeps;
//! 4. close: by the sender, by the receiver, and under an end that waits;
//! 5. several channels at once, of different sizes, with one sleep for all of them.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};
use apps::arguments::{Arguments, explain};
use apps::crew::{Crew, CrewError, Post, connect};
use apps::pattern;
use rt::capability::Address;
use rt::clock;
use rt::connection::{Connection, Ended};
use rt::frame::Frame;
use rt::monitor::{self, Domain};
use rt::system_call;
use urpc::{Message, ReceiveError, SendError, Side, Wait, frame_bytes, full_fence};

rt::entry!(main);

const USAGE: &str = "channel-test [--messages N]";
const DEFAULT_MESSAGES: u64 = 100_000;

/// Slots of the channels of the common part, one after another.
const SLOTS: [usize; 6] = [16, 4, 64, 16, 8, 32];
/// The channel that most tests use.
const FIRST: usize = 0;
/// How long the receiver of a full ring sleeps.
const NAP_NS: u64 = 5_000_000;
/// Messages after which a channel is closed.
const CLOSE_AFTER: u64 = 1000;

/// Do your part: index of the test, messages.
const BEGIN: u16 = 1;
/// What a worker found: 1 if all was as it should be.
const FOUND: u16 = 2;

/// The tests, as both ends know them.
const TESTS: [Test; 7] = [
    Test {
        name: "one way",
        here: send_all,
        there: receive_all,
    },
    Test {
        name: "the other way",
        here: receive_all,
        there: send_all,
    },
    Test {
        name: "both ways at once",
        here: both_ways,
        there: both_ways,
    },
    Test {
        name: "full ring",
        here: fill_ring,
        there: nap_and_receive,
    },
    Test {
        name: "close by the sender",
        here: send_and_close,
        there: receive_until_closed,
    },
    Test {
        name: "close by the receiver",
        here: send_until_closed,
        there: receive_and_close,
    },
    Test {
        name: "several channels",
        here: ask_on_all,
        there: answer_on_all,
    },
];

struct Test {
    name: &'static str,
    here: fn(&mut End) -> Result<(), Wrong>,
    there: fn(&mut End) -> Result<(), Wrong>,
}

/// What one end has for a test.
struct End {
    frame: Frame,
    side: Side,
    /// Wakes the other end.
    doorbell: Option<Address>,
    /// The core of the other end.
    peer: usize,
    messages: u64,
}

/// What was not as it should be.
#[derive(Debug)]
enum Wrong {
    /// Another message than the one of this number.
    Message(u64),
    Ended(u64, Ended),
    /// Something else than it was.
    Expected(&'static str, String),
}

impl core::fmt::Display for Wrong {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Message(number) => write!(formatter, "message {number} is not as it was sent"),
            Self::Ended(number, ended) => {
                write!(
                    formatter,
                    "the channel ended at message {number}: {ended:?}"
                )
            }
            Self::Expected(what, found) => write!(formatter, "expected {what}, found {found}"),
        }
    }
}

impl End {
    fn connection(&self, index: usize) -> Connection {
        let offset = SLOTS[..index].iter().map(|slots| frame_bytes(*slots)).sum();
        let channel = self.frame.channel(offset, SLOTS[index], self.side);
        connect(channel, self.doorbell, self.peer)
    }
}

/// Bytes of all channels.
fn common_bytes() -> usize {
    let bytes: usize = SLOTS.iter().map(|slots| frame_bytes(*slots)).sum();
    bytes.next_multiple_of(4096)
}

/// The stream that a side sends.
fn stream(side: Side, index: usize) -> u64 {
    index as u64 * 2 + u64::from(side == Side::B)
}

fn main() -> i32 {
    if let Some(post) = Post::take_up() {
        return work(post);
    }
    let start = rt::startup();
    let asked = Arguments::of_program(&["--messages"])
        .and_then(|arguments| arguments.number("--messages", 1..=u64::from(u32::MAX)));
    let messages = match asked {
        Ok(asked) => asked.unwrap_or(DEFAULT_MESSAGES),
        Err(misuse) => return explain(&misuse, USAGE),
    };
    let here = start.core as usize;
    let mut others: Vec<usize> = start.cores().filter(|core| *core != here).collect();
    if others.len() > 2 {
        let last = others.len() - 1;
        others = vec![others[0], others[last]];
    }
    let mut bad = 0;
    for core in core::iter::once(here).chain(others) {
        match test_with(core, messages) {
            Ok(failures) => bad += failures,
            Err(error) => {
                bad += 1;
                rt::println!("channel-test: {error}");
            }
        }
    }
    if bad > 0 {
        rt::println!("channel-test: failed: {bad} tests");
        return 1;
    }
    rt::println!("channel-test: passed");
    0
}

/// Runs all tests with a worker on a core; returns how many failed.
fn test_with(core: usize, messages: u64) -> Result<usize, CrewError> {
    let here = rt::startup().core;
    let mut crew = Crew::hire(&[core], common_bytes())?;
    let worker = crew.domain(core).ok_or(CrewError::Nobody(core))?;
    let doorbell = monitor::doorbell(worker);
    let doorbell = doorbell.map_err(|error| CrewError::NoWorker(core, error))?;
    let mut bad = 0;
    let started_ns = clock::now_ns();
    for (index, test) in TESTS.iter().enumerate() {
        // Both ends of the last test are gone: their reports say so.
        crew.frame().clear(0, common_bytes());
        let order = [index as u64, messages, 0, 0, 0, 0, 0];
        crew.order(core, &Message::new(BEGIN, order))?;
        let mut end = End {
            frame: *crew.frame(),
            side: Side::A,
            doorbell: Some(doorbell),
            peer: core,
            messages,
        };
        let outcome = (test.here)(&mut end);
        if let Err(wrong) = &outcome {
            rt::println!(
                "channel-test: {}, cores {here} and {core}: {wrong}",
                test.name
            );
            // The other end may wait for what does not come.
            for index in 0..SLOTS.len() {
                end.connection(index).close();
            }
        }
        let other_end = crew.report(core)?;
        bad += usize::from(outcome.is_err() || other_end.payload[0] == 0);
    }
    crew.dismiss()?;
    let milliseconds = (clock::now_ns() - started_ns) / 1_000_000;
    rt::println!(
        "cores {here} and {core}: {} tests, {messages} messages each way, {milliseconds} ms",
        TESTS.len()
    );
    Ok(bad)
}

fn work(mut post: Post) -> i32 {
    let parent = Domain(rt::startup().parent);
    let doorbell = monitor::doorbell(parent).ok();
    while let Some(order) = post.next_order() {
        let [index, messages, ..] = order.payload;
        let Some(test) = TESTS.get(index as usize) else {
            return 1;
        };
        let mut end = End {
            frame: *post.frame(),
            side: Side::B,
            doorbell,
            peer: parent.core(),
            messages,
        };
        let outcome = (test.there)(&mut end);
        if let Err(wrong) = &outcome {
            rt::println!(
                "channel-test: {}, the worker on core {}: {wrong}",
                test.name,
                rt::startup().core
            );
            for index in 0..SLOTS.len() {
                end.connection(index).close();
            }
        }
        let found = u64::from(outcome.is_ok());
        post.report(&Message::new(FOUND, [found, 0, 0, 0, 0, 0, 0]));
    }
    0
}

/// Sends messages `from..to` of this side's stream.
fn send(connection: &mut Connection, side: Side, from: u64, to: u64) -> Result<(), Wrong> {
    for number in from..to {
        let sent = connection.send(&pattern::message(stream(side, FIRST), number));
        sent.map_err(|ended| Wrong::Ended(number, ended))?;
    }
    Ok(())
}

/// Receives messages `from..to` of the other side's stream.
fn receive(connection: &mut Connection, side: Side, from: u64, to: u64) -> Result<(), Wrong> {
    for number in from..to {
        let message = connection.receive();
        let message = message.map_err(|ended| Wrong::Ended(number, ended))?;
        check(&message, stream(side.peer(), FIRST), number)?;
    }
    Ok(())
}

fn check(message: &Message, stream: u64, number: u64) -> Result<(), Wrong> {
    let good = *message == pattern::message(stream, number);
    good.then_some(()).ok_or(Wrong::Message(number))
}

fn send_all(end: &mut End) -> Result<(), Wrong> {
    send(&mut end.connection(FIRST), end.side, 0, end.messages)
}

fn receive_all(end: &mut End) -> Result<(), Wrong> {
    receive(&mut end.connection(FIRST), end.side, 0, end.messages)
}

/// Sends what there is room for and receives what is there, and sleeps when it can do neither.
fn both_ways(end: &mut End) -> Result<(), Wrong> {
    let mut connection = end.connection(FIRST);
    let (mut sent, mut received, mut polls) = (0, 0, 0);
    while sent < end.messages || received < end.messages {
        let mut moved = false;
        while sent < end.messages {
            let message = pattern::message(stream(end.side, FIRST), sent);
            match connection.channel().send(&message) {
                Ok(()) => (sent, moved) = (sent + 1, true),
                Err(SendError::Full) => break,
                Err(error) => return Err(Wrong::Expected("room", format!("{error}"))),
            }
        }
        loop {
            match connection.channel().recv() {
                Ok(message) => {
                    check(&message, stream(end.side.peer(), FIRST), received)?;
                    (received, moved) = (received + 1, true);
                }
                Err(ReceiveError::Empty) => break,
                Err(error) => return Err(Wrong::Expected("messages", format!("{error}"))),
            }
        }
        connection.ring_if_needed();
        if moved {
            polls = 0;
        } else {
            let wait = if sent < end.messages {
                Wait::MessageOrRoom
            } else {
                Wait::Message
            };
            connection.wait(&mut polls, wait);
        }
    }
    Ok(())
}

fn fill_ring(end: &mut End) -> Result<(), Wrong> {
    let mut connection = end.connection(FIRST);
    let channel = connection.channel();
    let capacity = channel.capacity() as u64;
    for number in 0..capacity {
        let sent = channel.send(&pattern::message(stream(end.side, FIRST), number));
        sent.map_err(|error| Wrong::Expected("room up to the last slot", format!("{error}")))?;
    }
    match channel.send(&Message::EMPTY) {
        Err(SendError::Full) => {}
        other => return Err(Wrong::Expected("a full ring", format!("{other:?}"))),
    }
    // From here on it sleeps until the receiver wakes up, reads and rings.
    send(&mut connection, end.side, capacity, 4 * capacity)?;
    receive(&mut connection, end.side, 0, 1)
}

fn nap_and_receive(end: &mut End) -> Result<(), Wrong> {
    clock::sleep_ns(NAP_NS);
    let mut connection = end.connection(FIRST);
    let capacity = connection.channel().capacity() as u64;
    receive(&mut connection, end.side, 0, 4 * capacity)?;
    send(&mut connection, end.side, 0, 1)
}

fn send_and_close(end: &mut End) -> Result<(), Wrong> {
    let mut connection = end.connection(FIRST);
    send(&mut connection, end.side, 0, CLOSE_AFTER)?;
    connection.close();
    // What the receiver had not taken yet stays in the ring; this end is done with it.
    for outcome in [
        connection.send(&Message::EMPTY),
        connection.receive().map(|_| ()),
    ] {
        if outcome != Err(Ended::Closed) {
            return Err(Wrong::Expected("a closed channel", format!("{outcome:?}")));
        }
    }
    Ok(())
}

fn receive_until_closed(end: &mut End) -> Result<(), Wrong> {
    let mut connection = end.connection(FIRST);
    receive(&mut connection, end.side, 0, CLOSE_AFTER)?;
    for outcome in [
        connection.receive().map(|_| ()),
        connection.send(&Message::EMPTY),
    ] {
        if outcome != Err(Ended::Closed) {
            return Err(Wrong::Expected("a closed channel", format!("{outcome:?}")));
        }
    }
    Ok(())
}

/// Sends for ever: it must be told, even while it waits for room.
fn send_until_closed(end: &mut End) -> Result<(), Wrong> {
    let mut connection = end.connection(FIRST);
    let capacity = connection.channel().capacity() as u64;
    match send(&mut connection, end.side, 0, u64::MAX) {
        // So many were received, and at most a ring full more sent.
        Err(Wrong::Ended(number, Ended::Closed))
            if (CLOSE_AFTER..=CLOSE_AFTER + capacity).contains(&number) =>
        {
            Ok(())
        }
        other => Err(Wrong::Expected(
            "a close after a thousand messages",
            format!("{other:?}"),
        )),
    }
}

fn receive_and_close(end: &mut End) -> Result<(), Wrong> {
    let mut connection = end.connection(FIRST);
    receive(&mut connection, end.side, 0, CLOSE_AFTER)?;
    // By then the sender waits for room.
    clock::sleep_ns(NAP_NS);
    connection.close();
    Ok(())
}

/// Many channels, and how far each has come.
struct Channels {
    connections: Vec<Connection>,
    sent: Vec<u64>,
    received: Vec<u64>,
}

impl Channels {
    fn of(end: &End) -> Self {
        Self {
            connections: (0..SLOTS.len())
                .map(|index| end.connection(index))
                .collect(),
            sent: vec![0; SLOTS.len()],
            received: vec![0; SLOTS.len()],
        }
    }

    /// Sends on channel `index` up to message `limit`, as far as there is room.
    fn send(&mut self, index: usize, stream: u64, limit: u64) -> Result<bool, Wrong> {
        let mut moved = false;
        while self.sent[index] < limit {
            let message = pattern::message(stream, self.sent[index]);
            match self.connections[index].channel().send(&message) {
                Ok(()) => (self.sent[index], moved) = (self.sent[index] + 1, true),
                Err(SendError::Full) => break,
                Err(error) => return Err(Wrong::Expected("room", format!("{error}"))),
            }
        }
        self.connections[index].ring_if_needed();
        Ok(moved)
    }

    /// Receives what has come on channel `index`.
    fn receive(&mut self, index: usize, stream: u64) -> Result<bool, Wrong> {
        let mut moved = false;
        loop {
            match self.connections[index].channel().recv() {
                Ok(message) => {
                    check(&message, stream, self.received[index])?;
                    (self.received[index], moved) = (self.received[index] + 1, true);
                }
                Err(ReceiveError::Empty) => break,
                Err(error) => return Err(Wrong::Expected("messages", format!("{error}"))),
            }
        }
        self.connections[index].ring_if_needed();
        Ok(moved)
    }

    /// Sleeps until a message comes on any of them, or there is room on one of which
    /// `wants_room` says that it has something to send.
    fn sleep(&mut self, wants_room: impl Fn(&Self, usize) -> bool) {
        let wait_of = |wants: bool| {
            if wants {
                Wait::MessageOrRoom
            } else {
                Wait::Message
            }
        };
        let waits: Vec<Wait> = (0..SLOTS.len())
            .map(|index| wait_of(wants_room(self, index)))
            .collect();
        for (connection, wait) in self.connections.iter_mut().zip(&waits) {
            connection.channel().announce_sleep(*wait);
        }
        full_fence();
        let mut both = self.connections.iter_mut().zip(&waits);
        if both.all(|(connection, wait)| connection.channel().may_sleep(*wait)) {
            system_call::wait(None);
        }
        for connection in &mut self.connections {
            connection.channel().awake();
        }
    }

    fn are_through(&self, messages: u64) -> bool {
        let through = |counts: &[u64]| counts.iter().all(|count| *count == messages);
        through(&self.sent) && through(&self.received)
    }
}

/// Messages on each of several channels.
fn share(end: &End) -> u64 {
    end.messages.div_ceil(SLOTS.len() as u64)
}

fn ask_on_all(end: &mut End) -> Result<(), Wrong> {
    let mut channels = Channels::of(end);
    while !channels.are_through(share(end)) {
        let mut moved = false;
        for index in 0..SLOTS.len() {
            moved |= channels.send(index, stream(end.side, index), share(end))?;
            moved |= channels.receive(index, stream(end.side.peer(), index))?;
        }
        if !moved {
            channels.sleep(|channels, index| channels.sent[index] < share(end));
        }
    }
    Ok(())
}

/// Answers each message with one of its own.
fn answer_on_all(end: &mut End) -> Result<(), Wrong> {
    let mut channels = Channels::of(end);
    while !channels.are_through(share(end)) {
        let mut moved = false;
        for index in 0..SLOTS.len() {
            moved |= channels.receive(index, stream(end.side.peer(), index))?;
            let answered = channels.received[index];
            moved |= channels.send(index, stream(end.side, index), answered)?;
        }
        if !moved {
            channels.sleep(|channels, index| channels.sent[index] < channels.received[index]);
        }
    }
    Ok(())
}
