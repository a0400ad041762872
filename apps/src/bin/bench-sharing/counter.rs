//! Counters that all members add to, kept in five ways (after figure 3 of Baumann et al., *The
//! Multikernel*, SOSP 2009, where all but the last appear).
//!
//! The frame that the members share:
//!
//! ```text
//!  line 0    which measurement may begin      line 8-15   the counters
//!  line 1    members that are ready           page 1 …    counters of each member, 8 lines
//!  line 2    members that are done            then        a channel for each member but the first
//!  line 3    lock, or next ticket
//!  line 4    ticket that is served
//! ```
//!
//! Each line is announced by name, and what follows the first sample of each way is a region of
//! interest, for who counts the lines that move: as many ways as there are numbers of regions.

use crate::counts;
use abi::layout::PAGE;
use alloc::format;
use alloc::vec::Vec;
use apps::crew::{Crew, Post, poll};
use apps::laboratory::{Failure, Laboratory, name_channel, name_lines, timed, told};
use core::hint::spin_loop;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use rt::clock::Cycles;
use rt::frame::Frame;
use rt::region;
use urpc::{Message, ReceiveError, Side, frame_bytes};

/// Words of a line.
const LINE: usize = 8;
const BEGIN: usize = 0;
const READY: usize = LINE;
const DONE: usize = 2 * LINE;
const LOCK: usize = 3 * LINE;
const SERVED: usize = 4 * LINE;
const COUNTERS: usize = 8 * LINE;
/// Most lines that an update touches.
const LINES: usize = 8;
/// Slots of a channel to the server: its client waits for each answer.
const SLOTS: usize = 4;
/// Updates of each member for one sample.
const UPDATES: u64 = 64;
/// How much slower than a call a sample is.
const SLOWER_BY: usize = 100;
/// What is no region of interest.
const NO_REGION: u8 = region::REGIONS;

/// How the counters are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    SpinLock,
    TicketLock,
    AtomicAdd,
    /// The first member has them; the others ask it.
    Server,
    /// Each member has its own; whoever wants to know adds them up.
    Replicas,
}

const WAYS: [(Way, &str); 5] = [
    (Way::SpinLock, "update under a spin lock"),
    (Way::TicketLock, "update under a ticket lock"),
    (Way::AtomicAdd, "update by atomic additions"),
    (Way::Server, "update by a server over urpc"),
    (Way::Replicas, "update of a replica of one's own"),
];

/// What all members do at the same time.
#[derive(Clone, Copy)]
struct Task {
    way: usize,
    lines: usize,
    updates: u64,
    members: usize,
    /// Which measurement it is.
    number: u64,
}

impl Task {
    fn message(self, rank: usize) -> Message {
        let [way, lines, members, rank] =
            [self.way, self.lines, self.members, rank].map(|value| value as u64);
        Message::new(1, [way, lines, self.updates, members, self.number, rank, 0])
    }

    fn of(message: &Message) -> (Self, usize) {
        let [way, lines, updates, members, number, rank, _] = message.payload;
        let [way, lines, members, rank] = [way, lines, members, rank].map(|value| value as usize);
        let task = Self {
            way,
            lines,
            updates,
            members,
            number,
        };
        (task, rank)
    }

    /// How many updates there are in all.
    fn all_updates(&self) -> u64 {
        let serves = WAYS[self.way].0 == Way::Server;
        self.updates * (self.members - usize::from(serves)) as u64
    }
}

/// Bytes that the counters of each member take.
fn replica_bytes(members: usize) -> usize {
    (members * LINES * LINE * 8).next_multiple_of(PAGE as usize)
}

/// Where the counters of a member are.
fn replica(rank: usize) -> usize {
    PAGE as usize / 8 + rank * LINES * LINE
}

/// Where its channel to the server is, among so many members of the machine.
fn channel_offset(all: usize, rank: usize) -> usize {
    PAGE as usize + replica_bytes(all) + rank * channel_bytes()
}

fn channel_bytes() -> usize {
    frame_bytes(SLOTS).next_multiple_of(PAGE as usize)
}

pub fn measure(laboratory: &mut Laboratory) -> Result<(), Failure> {
    let here = rt::startup().core as usize;
    let others: Vec<usize> = rt::startup().cores().filter(|core| *core != here).collect();
    let all = others.len() + 1;
    let mut crew = told("workers", Crew::hire(&others, channel_offset(all, all)))?;
    name(crew.frame(), here, &others);
    let lines: &[usize] = if laboratory.is_quick() {
        &[1, 8]
    } else {
        &[1, 2, 4, 8]
    };
    let mut number = 0;
    for (way, (kind, operation)) in WAYS.iter().enumerate() {
        let least = if *kind == Way::Server { 2 } else { 1 };
        for members in counts(all).into_iter().filter(|members| *members >= least) {
            for lines in lines {
                let mut times = Vec::new();
                let samples = laboratory.samples(SLOWER_BY);
                let counted = laboratory.next_region();
                let mut task = Task {
                    way,
                    lines: *lines,
                    updates: UPDATES,
                    members,
                    number,
                };
                for sample_number in 0..=samples {
                    task.number += 1;
                    // The first fetched everything, and counts nowhere.
                    let region = if sample_number == 0 {
                        NO_REGION
                    } else {
                        counted
                    };
                    let time = sample(&mut crew, &others, task, region)?;
                    // The clock was read once for all of them.
                    let one = time.0.saturating_sub(laboratory.overhead().0) / task.all_updates();
                    times.push(Cycles(one + laboratory.overhead().0));
                }
                times.remove(0);
                number = task.number;
                let with = [("members", members as u64), ("lines", *lines as u64)];
                let updates = task.all_updates() * samples as u64;
                laboratory.name_region(counted, operation, &with, updates);
                laboratory.times(operation, &with, times);
            }
        }
    }
    told("the end of the workers", crew.dismiss())
}

/// Announces what the lines of the frame are for, to who counts those that move.
fn name(frame: &Frame, here: usize, others: &[usize]) {
    const STRUCTURE: &str = "shared counters";
    let line = |word: usize, lines: usize, field: &str| {
        name_lines(frame, word * 8, lines * LINE * 8, STRUCTURE, field);
    };
    for (word, lines, field) in [
        (BEGIN, 1, "which measurement may begin"),
        (READY, 1, "members that are ready"),
        (DONE, 1, "members that are done"),
        (LOCK, 1, "lock, or next ticket"),
        (SERVED, 1, "ticket that is served"),
        (COUNTERS, LINES, "counters"),
    ] {
        line(word, lines, field);
    }
    let all = others.len() + 1;
    for (rank, core) in [&here].into_iter().chain(others).enumerate() {
        line(
            replica(rank),
            LINES,
            &format!("counters of core {core} alone"),
        );
        if rank > 0 {
            let offset = channel_offset(all, rank);
            name_channel(frame, offset, SLOTS, "channel to the server", [here, *core]);
        }
    }
}

/// Has the members do it, in a region of this number, and checks what came of it.
fn sample(crew: &mut Crew, others: &[usize], task: Task, region: u8) -> Result<Cycles, Failure> {
    let frame = *crew.frame();
    let all = others.len() + 1;
    // All have reported what they did last.
    frame.clear(0, channel_offset(all, all));
    let helpers = &others[..task.members - 1];
    for (index, core) in helpers.iter().enumerate() {
        told("an order", crew.order(*core, &task.message(index + 1)))?;
    }
    while frame.word(READY).load(Acquire) < helpers.len() as u64 {
        spin_loop();
    }
    region::begin_number(region);
    let (time, is_served) = timed(|| {
        frame.word(BEGIN).store(task.number, Release);
        let is_served = take_part(&frame, all, task, 0);
        while frame.word(DONE).load(Acquire) < helpers.len() as u64 {
            spin_loop();
        }
        is_served
    });
    region::end_number(region);
    let mut is_right = is_served;
    for core in helpers {
        is_right &= told("a report", crew.report(*core))?.kind() == 1;
    }
    let sum = |line: usize| -> u64 {
        let replicas = (0..all).map(|rank| replica(rank) + line * LINE);
        let words = replicas.chain([COUNTERS + line * LINE]);
        words.map(|word| frame.word(word).load(Relaxed)).sum()
    };
    is_right &= (0..task.lines).all(|line| sum(line) == task.all_updates());
    match is_right {
        true => Ok(time),
        false => told("sums of the counters", Err("not as many as updates")),
    }
}

/// A worker: takes part when it is told to.
pub fn work(mut post: Post) -> i32 {
    let all = rt::startup().cores().count();
    while let Some(order) = post.next_order() {
        let (task, rank) = Task::of(&order);
        let frame = *post.frame();
        frame.word(READY).fetch_add(1, Release);
        while frame.word(BEGIN).load(Acquire) != task.number {
            spin_loop();
        }
        let is_served = take_part(&frame, all, task, rank);
        frame.word(DONE).fetch_add(1, Release);
        post.report(&Message::new(u16::from(is_served), [0; 7]));
    }
    0
}

/// What the member of this rank does. Whether all of its messages found their way.
fn take_part(frame: &Frame, all: usize, task: Task, rank: usize) -> bool {
    let counters = |first: usize| (0..task.lines).map(move |line| frame.word(first + line * LINE));
    // Only whoever holds the lock, or has them for itself, adds like this.
    let add = |first: usize| {
        for counter in counters(first) {
            counter.store(counter.load(Relaxed) + 1, Relaxed);
        }
    };
    let (lock, served) = (frame.word(LOCK), frame.word(SERVED));
    match WAYS[task.way].0 {
        Way::SpinLock => {
            for _ in 0..task.updates {
                acquire(lock);
                add(COUNTERS);
                lock.store(0, Release);
            }
        }
        Way::TicketLock => {
            for _ in 0..task.updates {
                let ticket = lock.fetch_add(1, Relaxed);
                while served.load(Acquire) != ticket {
                    spin_loop();
                }
                add(COUNTERS);
                served.store(ticket + 1, Release);
            }
        }
        Way::AtomicAdd => {
            for _ in 0..task.updates {
                for counter in counters(COUNTERS) {
                    counter.fetch_add(1, Relaxed);
                }
            }
        }
        Way::Replicas => {
            for _ in 0..task.updates {
                add(replica(rank));
            }
        }
        Way::Server if rank == 0 => return serve(frame, all, task, || add(COUNTERS)),
        Way::Server => {
            let mut channel = frame.channel(channel_offset(all, rank), SLOTS, Side::B);
            let request = Message::new(1, [0; 7]);
            for _ in 0..task.updates {
                // One is on its way at a time, so there is room.
                if channel.send(&request).is_err() || poll(&mut channel).is_none() {
                    return false;
                }
            }
        }
    }
    true
}

/// Test, then test and set.
fn acquire(lock: &AtomicU64) {
    while lock.compare_exchange_weak(0, 1, Acquire, Relaxed).is_err() {
        while lock.load(Relaxed) != 0 {
            spin_loop();
        }
    }
}

/// Serves all other members by turns, until they have had all that they ask for.
fn serve(frame: &Frame, all: usize, task: Task, mut add: impl FnMut()) -> bool {
    let channel = |rank| frame.channel(channel_offset(all, rank), SLOTS, Side::A);
    let mut channels: Vec<_> = (1..task.members).map(channel).collect();
    let mut left = task.all_updates();
    while left > 0 {
        let before = left;
        for channel in &mut channels {
            match channel.recv() {
                Ok(request) => {
                    add();
                    left -= 1;
                    if channel.send(&request).is_err() {
                        return false;
                    }
                }
                Err(ReceiveError::Empty) => {}
                Err(_) => return false,
            }
        }
        if left == before {
            spin_loop();
        }
    }
    true
}
