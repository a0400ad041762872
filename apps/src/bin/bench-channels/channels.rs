//! A round trip while the domains at both ends have so many more channels open to each other, on
//! which nothing comes: parameter `idle`. The first end polls the one channel, the other
//!
//! | operation                   | waits by                                                        |
//! |-----------------------------|-----------------------------------------------------------------|
//! | round trip, one polled      | polling this channel: what is idle costs nothing                |
//! | round trip, all polled      | polling all in turn, this one last: each idle one costs a look  |
//! | round trip, all slept on    | sleep on all, announced in one word; awake, it looks at all     |
//!
//! Idle channels have the least ring, 1 KiB. A domain can have as many as its memory holds, a
//! frame of so much and about 200 bytes each of its heap; what the machine has no memory for is left
//! out, and said.
//!
//! ```text
//!  0         one page          one page              1 KiB each
//!  ├── channel ──┼── words of sleep ──┼── idle channel ──┼── idle channel ──┼──
//! ```

use crate::{hire, insist, settle, this_core, wait_for};
use abi::layout::PAGE;
use alloc::vec::Vec;
use apps::crew::{Crew, CrewError, poll};
use apps::figures::since;
use apps::laboratory::{Failure, Laboratory, at, told};
use apps::pattern;
use core::hint::spin_loop;
use rt::capability::Address;
use rt::clock::{self, Cycles};
use rt::frame::Frame;
use rt::interface::Error;
use rt::{monitor, system_call};
use urpc::{Channel, Message, ReceiveError, Side, Sleeper, Wait, frame_bytes, full_fence};

const SLOTS: usize = 16;
const IDLE_SLOTS: usize = 4;
const WORDS: usize = frame_bytes(SLOTS);
const IDLE: usize = WORDS + PAGE as usize;
/// Between two words that different cores write.
const APART: usize = 128;

/// How many channels are idle; the most last.
const NUMBERS: [usize; 5] = [0, 1, 10, 100, 1000];
/// An operation with so many takes about twice as long.
const SLOWER_AT: usize = 100;
/// Until the other end must sleep, and more of it for each channel.
const SETTLE_NS: u64 = 50_000;
const SETTLE_EACH_NS: u64 = 4_000;

/// Order: send back what comes, by a [`way`] to wait, with so many idle channels.
pub const ECHO: u16 = 4;

/// Ways to wait.
mod way {
    pub const ONE: u64 = 0;
    pub const ALL: u64 = 1;
    pub const SLEEP: u64 = 2;
}

const WAYS: [(u64, &str); 3] = [
    (way::ONE, "round trip, one polled"),
    (way::ALL, "round trip, all polled"),
    (way::SLEEP, "round trip, all slept on"),
];

fn bytes(idle: usize) -> usize {
    (IDLE + idle * frame_bytes(IDLE_SLOTS)).next_multiple_of(PAGE as usize)
}

/// One end of all channels, the idle ones first.
fn open(frame: &Frame, idle: usize, side: Side) -> Vec<Channel> {
    let word = |of| frame.word((WORDS + usize::from(of == Side::B) * APART) / size_of::<u64>());
    let channel = |(offset, slots)| {
        let channel = frame.channel(offset, slots, side);
        channel.with_sleep_words(word(side), word(side.peer()))
    };
    let idle = (0..idle).map(|one| (IDLE + one * frame_bytes(IDLE_SLOTS), IDLE_SLOTS));
    idle.chain([(0, SLOTS)]).map(channel).collect()
}

pub fn measure(laboratory: &mut Laboratory, other: usize) -> Result<(), Failure> {
    let mut numbers = &NUMBERS[..];
    let mut crew = loop {
        let most = numbers.last().copied().unwrap_or_default();
        match Crew::hire(&[other], bytes(most)) {
            Err(CrewError::NoFrame(Error::NoMemory)) if most > 0 => {
                rt::println!("channels: there is no memory for {most} idle ones");
                numbers = &numbers[..numbers.len() - 1];
            }
            _ => break hire(other, bytes(most))?,
        }
    };
    let worker = crew.domain(other).ok_or("no worker");
    let doorbell = told("a doorbell", monitor::doorbell(told("a worker", worker)?))?;
    for (way, name) in WAYS {
        for idle in numbers {
            crew.frame().clear(0, bytes(*idle));
            let words = [way, *idle as u64, 0, 0, 0, 0, 0];
            let ordered = crew.order(other, &Message::new(ECHO, words));
            told("order to a copy", ordered)?;
            let mut caller = Caller {
                channels: open(crew.frame(), *idle, Side::A),
                doorbell,
                number: 0,
            };
            let slower_by = match way {
                way::ONE => 1,
                _ => 1 + idle / SLOWER_AT,
            };
            let with = [
                ("from", this_core() as u64),
                ("to", other as u64),
                ("idle", *idle as u64),
            ];
            laboratory.measure_with(name, &with, slower_by, || {
                insist(|| caller.once(way == way::SLEEP))
            })?;
            caller.close();
            wait_for(&mut crew, other)?;
        }
    }
    told("end of a copy", crew.dismiss())
}

/// The end that takes the time.
struct Caller {
    channels: Vec<Channel>,
    doorbell: Address,
    number: u64,
}

impl Caller {
    /// `None`: the other end should have slept, and did not.
    fn once(&mut self, sleeps: bool) -> Result<Option<Cycles>, Failure> {
        self.number += 1;
        let idle = self.channels.len() - 1;
        let channel = &mut self.channels[idle];
        let question = pattern::message(idle as u64, self.number);
        if sleeps {
            settle(SETTLE_NS + SETTLE_EACH_NS * idle as u64);
        }
        let start = clock::cycles();
        told("send", channel.send(&question))?;
        let mut was_asleep = false;
        if sleeps {
            was_asleep = channel.peer_needs_doorbell();
            if was_asleep {
                at("doorbell", system_call::ring(self.doorbell))?;
            }
        }
        let answer = poll(channel);
        let taken = since(start);
        match answer == Some(question) {
            true => Ok((was_asleep == sleeps).then_some(taken)),
            false => at("answer", Err("another one than was sent")),
        }
    }

    /// Says that it is over.
    fn close(mut self) {
        if let Some(channel) = self.channels.last_mut() {
            channel.close();
            // It may sleep, or not.
            let _ = system_call::ring(self.doorbell);
        }
    }
}

/// The other end, until the channel is closed.
pub fn serve(frame: &Frame, order: &Message) {
    let [way, idle, ..] = order.payload;
    let mut channels = open(frame, idle as usize, Side::B);
    let watched = match way {
        way::ONE => &mut channels[idle as usize..],
        _ => &mut channels[..],
    };
    let word = frame.word((WORDS + APART) / size_of::<u64>());
    let mut sleeper = Sleeper::new(word);
    loop {
        let mut was_idle = true;
        for channel in watched.iter_mut() {
            match channel.recv() {
                Ok(question) => {
                    was_idle = false;
                    if channel.send(&question).is_err() {
                        return;
                    }
                }
                Err(ReceiveError::Empty) => {}
                Err(_) => return,
            }
        }
        if way == way::SLEEP && was_idle {
            sleeper.announce(Wait::Message);
            full_fence();
            let mut all = watched.iter_mut();
            if all.all(|channel| channel.may_sleep(Wait::Message)) {
                system_call::wait(None);
            }
            sleeper.awake();
        } else {
            spin_loop();
        }
    }
}
