//! Has one CPU driver write to another core's memory, and shows that all others go on.
//!
//! `wild-write --core K --victim V` (needs `--test-hooks` on the command line of scripts/run)
//!
//! ```text
//!  worker 0 ──channel──► worker 1 ──► ... ──► worker n-1 ──┐     on every core but K
//!     ▲────────────────────────────────────────────────────┘
//! ```
//!
//! A token goes round a ring of channels through a worker on every core but K, whose worker
//! only answers questions. After a few laps core K's CPU driver is told to write to memory
//! that core V's CPU driver maps. It must fault, and core K fall silent; then the token goes
//! round for another thousand laps, which must find every core in its place and every
//! message as it was sent. The host tool reports core K as lost, and fails for that reason.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;
use apps::arguments::{Arguments, Misuse, explain};
use apps::crew::{Crew, CrewError, Post};
use apps::mappings::{self, Mapping};
use apps::pattern;
use rt::clock;
use rt::connection::Connection;
use rt::interface::{self, Error};
use rt::monitor::{self, Domain};
use urpc::{Message, Side, frame_bytes};

rt::entry!(main);

const USAGE: &str = "wild-write --core K --victim V  (boot with --test-hooks)";
/// Slots of the channels of the ring.
const SLOTS: usize = 4;
const LAPS_BEFORE: u64 = 20;
const LAPS_AFTER: u64 = 1000;
/// A core that takes so long to answer has fallen silent.
const SILENCE_NS: u64 = 250_000_000;
/// How often it is looked for in that time.
const LOOKS: u64 = 25;
/// Questions that core K may answer before it must have fallen silent.
const QUESTIONS: u64 = 5;

/// Take your place: index in the ring, workers in it, the domain that comes next, the one
/// that comes before.
const TAKE_PLACE: u16 = 1;
/// Hand the token on: laps, and the number of the first.
const RUN: u16 = 2;
/// Say that you are there; and the answer.
const PING: u16 = 3;
/// The laps are over: messages received that were as they should be.
const RAN: u16 = 4;

enum Failure {
    Crew(CrewError),
    Hook(Error),
    NothingToHit(usize),
    Survived(usize),
    Lapped {
        core: usize,
        found: u64,
        expected: u64,
    },
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
            Self::Hook(error) => write!(formatter, "the write was refused: {error}"),
            Self::NothingToHit(core) => {
                write!(formatter, "core {core} tells of no writable memory")
            }
            Self::Survived(core) => write!(
                formatter,
                "core {core} wrote to memory that is not its own, and lives on"
            ),
            Self::Lapped {
                core,
                found,
                expected,
            } => write!(
                formatter,
                "core {core} received {found} good messages, not {expected}"
            ),
        }
    }
}

fn main() -> i32 {
    if let Some(post) = Post::take_up() {
        return work(post);
    }
    let start = rt::startup();
    let up: Vec<usize> = start.cores().collect();
    let asked = Arguments::of_program(&["--core", "--victim"]).and_then(|arguments| {
        let core = arguments.core("--core", &up)?;
        let victim = arguments.core("--victim", &up)?;
        Ok((
            core.ok_or(Misuse::Missing("--core"))?,
            victim.ok_or(Misuse::Missing("--victim"))?,
        ))
    });
    let (core, victim) = match asked {
        Ok(asked) => asked,
        Err(misuse) => return explain(&misuse, USAGE),
    };
    if core == victim || core == start.core as usize {
        rt::println!(
            "wild-write: core {core} must be neither the victim nor core {}, which runs this",
            start.core
        );
        rt::println!("usage: {USAGE}");
        return 2;
    }
    match run(&up, core, victim) {
        Ok(survivors) => {
            rt::println!(
                "core {core} fell silent; {survivors} cores handed a token round {LAPS_AFTER} \
                 times afterwards, each message as it was sent"
            );
            rt::println!("wild-write: passed");
            0
        }
        Err(failure) => {
            rt::println!("wild-write: failed: {failure}");
            1
        }
    }
}

fn run(up: &[usize], core: usize, victim: usize) -> Result<usize, Failure> {
    let survivors: Vec<usize> = up.iter().copied().filter(|other| *other != core).collect();
    let count = survivors.len();
    let common = (count * frame_bytes(SLOTS)).next_multiple_of(4096);
    let mut crew = Crew::hire(up, common)?;
    for (index, survivor) in survivors.iter().enumerate() {
        let neighbour = |offset: usize| {
            let domain = crew.domain(survivors[(index + offset) % count]);
            domain.map_or(0, |domain| domain.0)
        };
        let (next, before) = (neighbour(1), neighbour(count - 1));
        let place = [index as u64, count as u64, next, before, 0, 0, 0];
        crew.order(*survivor, &Message::new(TAKE_PLACE, place))?;
    }
    laps(&mut crew, &survivors, LAPS_BEFORE, 0)?;
    crew.order(core, &Message::new(PING, [0; 7]))?;
    crew.report(core)?;

    let target = address_of(victim)?;
    rt::println!("core {core} writes to {target:#x}, memory of core {victim}");
    let request = monitor::request(core, interface::WILD_WRITE, [target, 0, 0, 0, 0, 0]);
    let request = request.map_err(Failure::Hook)?;
    // The token goes round while it happens.
    laps(&mut crew, &survivors, LAPS_BEFORE, LAPS_BEFORE)?;
    if is_silent(&mut crew, core)? {
        crew.forget(core);
    } else {
        // It lives, so it has an answer: most likely that the hook is off.
        monitor::answer(request).map_err(Failure::Hook)?;
        return Err(Failure::Survived(core));
    }
    laps(&mut crew, &survivors, LAPS_AFTER, 2 * LAPS_BEFORE)?;
    crew.dismiss()?;
    Ok(count)
}

/// A place in the middle of what the core's CPU driver may write.
fn address_of(core: usize) -> Result<u64, Failure> {
    let all = mappings::of_core(core).map_err(Failure::Hook)?;
    let largest = all
        .iter()
        .filter(|range| range.is_writable() && !range.is_device())
        .max_by_key(|range| range.bytes);
    let middle = |range: &Mapping| range.physical + range.bytes / 2;
    largest.map(middle).ok_or(Failure::NothingToHit(core))
}

/// Sends the token round, and has everybody count.
fn laps(crew: &mut Crew, survivors: &[usize], laps: u64, first: u64) -> Result<(), Failure> {
    for core in survivors {
        crew.order(*core, &Message::new(RUN, [laps, first, 0, 0, 0, 0, 0]))?;
    }
    for core in survivors {
        let found = crew.report(*core)?.payload[0];
        if found != laps {
            return Err(Failure::Lapped {
                core: *core,
                found,
                expected: laps,
            });
        }
    }
    Ok(())
}

/// Whether a core has stopped to answer.
fn is_silent(crew: &mut Crew, core: usize) -> Result<bool, Failure> {
    for _ in 0..QUESTIONS {
        crew.order(core, &Message::new(PING, [0; 7]))?;
        if !answers(crew.orders(core)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether an answer comes in time.
fn answers(orders: &mut Connection) -> bool {
    for _ in 0..LOOKS {
        if orders.channel().recv().is_ok() {
            orders.ring_if_needed();
            return true;
        }
        clock::sleep_ns(SILENCE_NS / LOOKS);
    }
    false
}

/// A worker's place in the ring.
struct Place {
    index: u64,
    alone: bool,
    next: Connection,
    before: Connection,
}

impl Place {
    fn take(post: &Post, order: &Message) -> Result<Self, Error> {
        let [index, count, next, before, ..] = order.payload;
        let doorbell = |domain| match domain == rt::startup().domain {
            true => Ok(None),
            false => monitor::doorbell(Domain(domain)).map(Some),
        };
        // Channel i leads from worker i to the next.
        let channel = |number: u64, side| {
            let offset = number as usize * frame_bytes(SLOTS);
            post.frame().channel(offset, SLOTS, side)
        };
        Ok(Self {
            index,
            alone: count == 1,
            next: Connection::new(channel(index, Side::A), doorbell(next)?),
            before: Connection::new(
                channel((index + count - 1) % count, Side::B),
                doorbell(before)?,
            ),
        })
    }

    /// Hands the token on; returns how many messages came as they should have.
    fn run(&mut self, laps: u64, first: u64) -> u64 {
        let mut good = 0;
        for lap in first..first + laps {
            let token = pattern::message(0, lap);
            if self.index == 0 && self.next.send(&token).is_err() {
                break;
            }
            let Ok(received) = self.before.receive() else {
                break;
            };
            good += u64::from(received == token);
            if self.index != 0 && self.next.send(&received).is_err() {
                break;
            }
        }
        good
    }
}

fn work(mut post: Post) -> i32 {
    let mut place = None;
    while let Some(order) = post.next_order() {
        let [laps, first, ..] = order.payload;
        match (order.kind(), &mut place) {
            (TAKE_PLACE, _) => match Place::take(&post, &order) {
                Ok(taken) => place = Some(taken),
                Err(error) => {
                    rt::println!("wild-write: a worker cannot reach its neighbours: {error}");
                    return 1;
                }
            },
            // Alone on its core's side of the world, a worker has nobody to hand the token to.
            (RUN, Some(place)) if place.alone => {
                post.report(&Message::new(RAN, [laps, 0, 0, 0, 0, 0, 0]));
            }
            (RUN, Some(place)) => {
                let good = place.run(laps, first);
                post.report(&Message::new(RAN, [good, 0, 0, 0, 0, 0, 0]));
            }
            _ => post.report(&order),
        }
    }
    0
}
