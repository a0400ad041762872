//! Makes random system calls with real capabilities: `fuzz [--calls N] [--seed S]`.
//!
//! On each core, workers make N calls together, with numbers and arguments out of a mix of
//! random, extreme, almost right and right ones, on capabilities of all kinds that a program can
//! come by; between them they ask random monitors for random things. A worker may well unmap
//! itself, stop itself or wait for ever, and then the next one goes on with the next seed:
//!
//! ```text
//!  fuzz ── a keeper on each core ── a worker ── counts its calls in a frame of the keeper's
//!                                 └ a worker    and calls the keeper when it meets an
//!                                 └ …           exception, or has done its part
//! ```
//!
//! The same seed makes the same calls, but for deadlines and for how far a worker comes that
//! is killed because it hangs. Nothing may come of it: no core is lost, and afterwards every
//! monitor answers, every core has as much memory as before.
#![no_std]
#![no_main]

extern crate alloc;

use abi::capability::{FIRST_FREE_SLOT, Resource};
use abi::layout::{
    DIRECT_MAP, KERNEL_IMAGE, PAGE, USER_END, USER_HEAP, USER_MAPPINGS, USER_STARTUP,
};
use abi::syscall::{self, DISPATCHER_BYTES};
use alloc::format;
use alloc::vec::Vec;
use apps::arguments::{Arguments, Misuse, explain};
use core::fmt::Debug;
use core::sync::atomic::{AtomicU64, Ordering};
use rt::capability::{
    self, Address, ENDPOINT_BYTES, GIFT, Kind, MONITOR_DOORBELL, OWN_DISPATCHER, OWN_DOORBELL,
    OWN_SPACE, ROOT_CNODE, Rights, SLOT_BYTES, slots,
};
use rt::dispatcher::{self, Property};
use rt::interface;
use rt::monitor::{self, Spawn};
use rt::space::{Mapping, PageSize, rights};
use rt::system_call::{self, Error};
use rt::{clock, lrpc, memory};

rt::entry!(main);

const USAGE: &str = "fuzz [--calls N] [--seed S]";
const DEFAULT_CALLS: u64 = 20_000;
/// The option by which a copy of the program knows what it is.
const ROLE: &str = "--role";
const KEEPER: u64 = 1;
const WORKER: u64 = 2;
/// Calls of one worker: later ones meet few capabilities that are still there.
const CALLS_OF_A_WORKER: u64 = 250;
/// One in so many calls is a request to a monitor.
const REQUEST_EVERY: u64 = 50;
/// Between two looks at a worker. It hangs if it has made no call at several looks in a row: an
/// emulator may let the clock go on by more than that while it runs other cores.
const LOOK_NS: u64 = 5_000_000;
const LOOKS: u32 = 6;
/// So many workers one after the other that make no call are no accident.
const MOST_IDLE_WORKERS: u64 = 20;

/// Where interesting things begin or end.
const EDGES: [u64; 17] = [
    0,
    1,
    0xfff,
    0x1000,
    USER_HEAP,
    USER_MAPPINGS,
    USER_STARTUP,
    USER_END,
    0x8000_0000_0000,
    DIRECT_MAP,
    KERNEL_IMAGE,
    Resource::Ports.range().start,
    Resource::Lines.range().start,
    Resource::Vectors.range().start,
    i64::MAX as u64,
    u64::MAX - 0xfff,
    u64::MAX,
];

/// Pseudo-random numbers (SplitMix64; Steele, Lea, Flood, OOPSLA 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// A number that somebody may have forgotten to think of.
    fn word(&mut self) -> u64 {
        match self.below(6) {
            0 => self.below(64),
            1 => self.of(&EDGES),
            2 => self.of(&EDGES).wrapping_add(self.below(0x2000)),
            3 => 1 << self.below(64),
            4 => self.next() >> self.below(64),
            _ => self.next() & !0xfff,
        }
    }
}

fn main() -> i32 {
    match run() {
        Ok(status) => status,
        Err(misuse) => explain(&misuse, USAGE),
    }
}

fn run() -> Result<i32, Misuse> {
    let arguments = Arguments::of_program(&["--calls", "--seed", ROLE])?;
    let calls = arguments
        .number("--calls", 1..=1_000_000_000)?
        .unwrap_or(DEFAULT_CALLS);
    let seed = arguments.number("--seed", 0..=u64::MAX)?.unwrap_or(1);
    Ok(match arguments.number(ROLE, KEEPER..=WORKER)? {
        None => unleash(calls, seed),
        Some(KEEPER) => keep(calls, seed),
        Some(_) => work(calls, seed),
    })
}

/// Starts a keeper on every core, and looks at what it left behind.
fn unleash(calls: u64, seed: u64) -> i32 {
    let cores: Vec<usize> = rt::startup().cores().collect();
    // Once, so that what a monitor sets up at the first time is there.
    for core in &cores {
        if let Err(error) = monitor::spawn(*core, &["exit", "0"], None).and_then(monitor::wait) {
            rt::println!("fuzz: core {core} starts no programs: {error}");
            return 1;
        }
    }
    let before: Vec<_> = cores.iter().map(|core| monitor::memory(*core)).collect();
    let mut keepers = Vec::new();
    for core in &cores {
        // Far apart, so that no two cores get the same workers.
        let own_seed = seed
            .wrapping_mul(1_000_003)
            .wrapping_add((*core as u64) << 40);
        match spawn(KEEPER, *core, calls, own_seed, None) {
            Ok(keeper) => keepers.push(keeper),
            Err(error) => {
                rt::println!("fuzz: cannot start a copy on core {core}: {error}");
                return 1;
            }
        }
    }
    let mut failed = keepers
        .into_iter()
        .filter(|keeper| monitor::wait(*keeper) != Ok(0))
        .count();
    for core in &cores {
        let question = [*core as u64, 2, 3, 4, 5, 0];
        let answer = monitor::ask(*core, interface::ECHO, question);
        if answer != Ok([*core as u64, 2, 3, 4, 5]) {
            rt::println!("fuzz: the monitor of core {core} answers {answer:?}");
            failed += 1;
        }
        if let Err(error) = monitor::spawn(*core, &["exit", "0"], None).and_then(monitor::wait) {
            rt::println!("fuzz: core {core} starts no programs any more: {error}");
            failed += 1;
        }
    }
    let after: Vec<_> = cores.iter().map(|core| monitor::memory(*core)).collect();
    if before != after {
        rt::println!("fuzz: free pages before {before:?}, after {after:?}");
        failed += 1;
    }
    if failed > 0 {
        return 1;
    }
    rt::println!("fuzz: passed");
    0
}

/// Starts a copy of the program.
fn spawn(
    role: u64,
    core: usize,
    calls: u64,
    seed: u64,
    gift: Option<Address>,
) -> Result<monitor::Domain, interface::Error> {
    let (role, calls, seed) = (format!("{role}"), format!("{calls}"), format!("{seed}"));
    let words = ["fuzz", ROLE, &role, "--calls", &calls, "--seed", &seed];
    let spawn = Spawn::new(&words).on(core);
    match gift {
        Some(gift) => spawn.gift(gift).start(),
        None => spawn.start(),
    }
}

/// Says what a copy could not do, and returns the exit status.
fn failed(what: &str, error: &dyn Debug) -> i32 {
    let core = rt::startup().core;
    rt::println!("fuzz: on core {core}: {what}: {error:?}");
    1
}

/// What a keeper shares with its workers, one after the other.
struct Keeper {
    /// Where they call.
    endpoint: Address,
    /// What they get of it.
    for_calls: Address,
    /// Where they count, and what they get of it: no right to take it from the keeper.
    counter: Mapping,
    for_counting: Address,
}

impl Keeper {
    fn new() -> memory::Result<Self> {
        let endpoint = memory::object(Kind::Endpoint, ENDPOINT_BYTES)?;
        let counter = Mapping::zeroed(PAGE, PageSize::Small)?;
        let (for_calls, for_counting) = (slots::take()?, slots::take()?);
        capability::mint(endpoint, for_calls, Rights::WRITE, 0)?;
        let rights = Rights::READ | Rights::WRITE;
        capability::mint(counter.frame(), for_counting, rights, 0)?;
        Ok(Self {
            endpoint,
            for_calls,
            counter,
            for_counting,
        })
    }

    fn count(&self) -> &AtomicU64 {
        &self.counter.words()[0]
    }

    /// Has a worker make so many calls; returns how many it made.
    fn employ(&self, calls: u64, seed: u64) -> Result<u64, interface::Error> {
        self.count().store(0, Ordering::Relaxed);
        let here = rt::startup().core as usize;
        let worker = spawn(WORKER, here, calls, seed, Some(self.for_calls))?;
        let mut seen = 0;
        let mut looks = 0;
        let mut has_counter = false;
        loop {
            let deadline = clock::now_ns() + LOOK_NS;
            match lrpc::receive(self.endpoint, Some(deadline)) {
                Ok(_) if !has_counter => {
                    // A worker that takes none will not count, and is given up soon.
                    let given = lrpc::reply_give([0; 4], self.for_counting);
                    if given.is_err() {
                        let _ = lrpc::reply([0; 5]);
                    }
                    has_counter = true;
                    continue;
                }
                Err(Error::Interrupted) => continue,
                Err(Error::TimedOut) => {
                    let count = self.count().load(Ordering::Relaxed);
                    looks = if count == seen { looks + 1 } else { 0 };
                    seen = count;
                    if looks < LOOKS {
                        continue;
                    }
                }
                // It met an exception, has done its part, or does not know what it does.
                _ => {}
            }
            break;
        }
        match monitor::kill(worker) {
            // It may have ended by itself.
            Ok(()) | Err(interface::Error::NoSuchDomain) => {}
            Err(error) => return Err(error),
        }
        // If it waited for an answer, nobody does any more; a second answer does no harm.
        let _ = lrpc::reply([0; 5]);
        monitor::wait(worker)?;
        let count = self.count().load(Ordering::Relaxed);
        Ok(count.min(calls))
    }
}

/// Sees to it that workers make so many calls.
fn keep(calls: u64, seed: u64) -> i32 {
    let keeper = match Keeper::new() {
        Ok(keeper) => keeper,
        Err(error) => return failed("nothing to share with workers", &error),
    };
    let mut made = 0;
    let mut idle_workers = 0;
    let mut next_seed = seed;
    while made < calls {
        let part = (calls - made).min(CALLS_OF_A_WORKER);
        let count = match keeper.employ(part, next_seed) {
            Ok(count) => count,
            Err(error) => return failed("a worker is not started or waited for", &error),
        };
        idle_workers = if count == 0 { idle_workers + 1 } else { 0 };
        if idle_workers == MOST_IDLE_WORKERS {
            return failed("workers make no calls", &next_seed);
        }
        made += count;
        next_seed = next_seed.wrapping_add(1);
    }
    0
}

/// What a worker holds, from the first slot of a row on.
const THINGS: [(Kind, u64); 10] = [
    (Kind::Ram, 8 * PAGE),
    (Kind::Frame, PAGE),
    (Kind::Frame, 4 * PAGE),
    (Kind::CNode, 64 * SLOT_BYTES),
    (Kind::PageTable1, PAGE),
    (Kind::PageTable2, PAGE),
    (Kind::PageTable3, PAGE),
    (Kind::PageTable4, PAGE),
    (Kind::Endpoint, ENDPOINT_BYTES),
    (Kind::Dispatcher, DISPATCHER_BYTES),
];
/// Behind them, a doorbell, and then empty slots.
const DOORBELL: u64 = THINGS.len() as u64;
const FIRST_EMPTY: u64 = DOORBELL + 1;
/// Slots of the row.
const ROW: u64 = 24;
/// Where in the root CNode a worker puts a CNode of its own.
const OWN_CNODE: u64 = 12;
/// Slots of the root CNode that may hold something, and one more.
const CNODES: u64 = OWN_CNODE + 2;

/// What an argument of a call should be.
#[derive(Clone, Copy)]
enum Shape {
    /// A capability of this kind.
    To(Kind),
    /// Any capability.
    Any,
    /// An empty slot.
    Empty,
    /// A root CNode.
    Root,
    /// A kind in the lowest byte, a count or rights above.
    KindAnd,
    /// The right of capabilities.
    Rights,
    /// A user address.
    Virtual,
    /// Bytes of something, or an offset.
    Bytes,
    /// Pages, and their level in the high half.
    Pages,
    /// Rights of a mapping.
    MapRights,
    /// Index of something.
    Index,
    /// Nanoseconds of the clock.
    Deadline,
    /// Anything.
    Word,
}

use Shape::{
    Any, Bytes, Deadline, Empty, Index, KindAnd, MapRights, Pages, Root, To, Virtual, Word,
};

/// What the calls take; whatever is not told is [`Word`]. Those that end the worker or fill the
/// console are not here.
const CALLS: [(u64, &[Shape]); 45] = [
    (syscall::NULL, &[]),
    (syscall::YIELD, &[]),
    (syscall::WAIT, &[Deadline]),
    (syscall::RING, &[To(Kind::Doorbell)]),
    (syscall::CALL, &[To(Kind::Endpoint)]),
    (
        syscall::CALL_GIVE,
        &[To(Kind::Endpoint), Word, Word, Word, Word, Any],
    ),
    (syscall::RECEIVE, &[To(Kind::Endpoint), Deadline]),
    (syscall::REPLY_RECEIVE, &[To(Kind::Endpoint)]),
    (syscall::REPLY, &[]),
    (syscall::REPLY_GIVE, &[Word, Word, Word, Word, Word, Any]),
    (syscall::RECEIVE_SLOT, &[Empty]),
    (syscall::COPY, &[Any, Empty, Root, Root]),
    (syscall::MINT, &[Any, Empty, Shape::Rights, Index, Root]),
    (syscall::MOVE, &[Any, Empty, Root]),
    (
        syscall::RETYPE,
        &[To(Kind::Ram), Empty, KindAnd, Bytes, Bytes, Root],
    ),
    (syscall::RETYPE, &[Any, Empty, KindAnd, Bytes, Bytes, Root]),
    (syscall::CLEAN, &[To(Kind::Frame)]),
    (syscall::DELETE, &[Any]),
    (syscall::REVOKE, &[Any]),
    (syscall::REVOKE, &[Any, Root]),
    (syscall::IDENTIFY, &[Any, Root]),
    (syscall::INSERT, &[Any, Empty, KindAnd, Bytes, Bytes]),
    (
        syscall::MAP,
        &[
            To(Kind::PageTable4),
            Virtual,
            To(Kind::Frame),
            Bytes,
            Pages,
            MapRights,
        ],
    ),
    (
        syscall::MAP_TABLE,
        &[To(Kind::PageTable4), Virtual, To(Kind::PageTable1)],
    ),
    (
        syscall::MAP_TABLE,
        &[To(Kind::PageTable4), Virtual, To(Kind::PageTable2)],
    ),
    (
        syscall::MAP_TABLE,
        &[To(Kind::PageTable4), Virtual, To(Kind::PageTable3)],
    ),
    (syscall::UNMAP, &[Any, Virtual]),
    (syscall::PROTECT, &[To(Kind::Frame), Virtual, MapRights]),
    (syscall::TRANSLATE, &[To(Kind::PageTable4), Virtual]),
    (syscall::CONFIGURE, &[To(Kind::Dispatcher), Index, Any]),
    (syscall::CONFIGURE, &[To(Kind::Dispatcher), Index, Root]),
    (syscall::START, &[To(Kind::Dispatcher)]),
    (syscall::STOP, &[To(Kind::Dispatcher)]),
    (syscall::STATE, &[To(Kind::Dispatcher)]),
    (syscall::READ_REGISTER, &[To(Kind::Dispatcher), Index]),
    (
        syscall::WRITE_REGISTER,
        &[To(Kind::Dispatcher), Index, Virtual],
    ),
    (syscall::PORT_READ, &[Any, Index, Index]),
    (syscall::PORT_WRITE, &[Any, Index, Index]),
    (syscall::PORT_WRITE_VALUE, &[Any, Index, Index, Index]),
    (syscall::COUNTER, &[Any, Index]),
    (
        syscall::NOTE_SHARED,
        &[Any, KindAnd, Bytes, Bytes, Index, Index],
    ),
    (syscall::LOOK_UP, &[Any, KindAnd, Bytes, Bytes, Index]),
    (syscall::REMOVE, &[Any, KindAnd, Bytes, Bytes, Index]),
    (syscall::OFFER_SLOT, &[Any, Empty]),
    (syscall::STOP_CORE, &[Any]),
];

/// Calls that end the worker, or fill the console.
const LEFT_OUT: [u64; 2] = [syscall::EXIT, syscall::LOG];

/// Whether a deadline is so far away that who waits for it hangs.
fn is_far(deadline_ns: u64) -> bool {
    deadline_ns == 0 || deadline_ns > clock::now_ns() + LOOK_NS
}

/// A worker, who makes calls until it has made enough or broken itself.
struct Worker {
    random: Random,
    /// The first slot of its things.
    row: Address,
}

impl Worker {
    /// Makes what it is to play with.
    fn new(seed: u64) -> memory::Result<Self> {
        let row = slots::take_row(ROW)?;
        for (index, (kind, bytes)) in (0..).zip(THINGS) {
            memory::object_at(kind, bytes, row.plus(index))?;
        }
        capability::copy(OWN_DOORBELL, row.plus(DOORBELL))?;
        let cnode = THINGS.iter().position(|(kind, _)| *kind == Kind::CNode);
        let cnode = row.plus(cnode.unwrap_or_default() as u64);
        let above = ROOT_CNODE.0 >> abi::capability::INDEX_BITS;
        capability::copy(cnode, Address::new(above, OWN_CNODE))?;
        Ok(Self {
            random: Random(seed),
            row,
        })
    }

    /// The address of some slot, mostly of one of its things.
    fn any(&mut self) -> u64 {
        let random = &mut self.random;
        match random.below(64) {
            0 => random.word(),
            // What it lives by: the program seldom survives that.
            1 => Address::new(2, 1 + random.below(FIRST_FREE_SLOT)).0,
            2 => Address::new(3, random.below(32)).0,
            3 => Address::new(1, random.below(CNODES)).0,
            4 | 5 => Address::new(random.below(CNODES), random.below(80)).0,
            6..16 => self.row.plus(random.below(ROW)).0,
            _ => self.row.plus(random.below(FIRST_EMPTY)).0,
        }
    }

    fn to(&mut self, kind: Kind) -> u64 {
        // It has what it takes to map something.
        if kind == Kind::PageTable4 && self.random.one_in(2) {
            return OWN_SPACE.0;
        }
        let things = THINGS.iter().filter(|(other, _)| *other == kind).count() as u64;
        if things == 0 {
            let doorbells = [
                self.row.plus(DOORBELL).0,
                MONITOR_DOORBELL.0,
                OWN_DOORBELL.0,
            ];
            return self.random.of(&doorbells);
        }
        if self.random.one_in(4) {
            return self.any();
        }
        let which = self.random.below(things) as usize;
        let places = (0..).zip(THINGS).filter(|(_, (other, _))| *other == kind);
        let place = places.map(|(index, _)| index).nth(which);
        self.row.plus(place.unwrap_or(0)).0
    }

    /// What an argument of this shape may look like when it is right, or almost.
    fn argument(&mut self, shape: Shape) -> u64 {
        match shape {
            To(kind) => return self.to(kind),
            Any => return self.any(),
            _ => {}
        }
        let row = self.row;
        let random = &mut self.random;
        match shape {
            Empty => match random.below(8) {
                0 => self.any(),
                1 | 2 => Address::new(OWN_CNODE, random.below(70)).0,
                _ => row.plus(random.below(ROW - FIRST_EMPTY) + FIRST_EMPTY).0,
            },
            Root => match random.below(32) {
                0 => self.any(),
                1 | 2 => ROOT_CNODE.0,
                3 => self.to(Kind::CNode),
                _ => 0,
            },
            KindAnd => {
                let above = match random.below(4) {
                    0 => random.word(),
                    1 => random.below(300),
                    _ => 1,
                };
                random.below(18) | above << 8
            }
            Shape::Rights => random.below(40),
            Virtual => match random.below(8) {
                0 => random.word(),
                1 => random.of(&EDGES),
                2 => USER_MAPPINGS + (random.below(1024) << 21),
                // What is mapped already.
                3 => random.of(&[USER_HEAP, USER_STARTUP]) & !(PAGE - 1),
                _ => USER_MAPPINGS + random.below(32) * PAGE,
            },
            Bytes => match random.below(8) {
                0 => random.word(),
                1 | 2 => 0,
                3 => random.of(&[ENDPOINT_BYTES, DISPATCHER_BYTES, 64 * SLOT_BYTES]),
                4 => random.below(64) * SLOT_BYTES,
                _ => random.below(5) * PAGE,
            },
            Pages => match random.below(8) {
                0 => random.word(),
                1 => random.below(1024) | random.below(5) << 32,
                2 => random.below(5) | 1 << 32,
                _ => 1 | 1 << 32,
            },
            MapRights => match random.below(8) {
                0 => random.word(),
                1 => random.below(32),
                _ => random.below(4),
            },
            Index => match random.below(8) {
                0 => random.word(),
                1..4 => random.below(20),
                _ => random.below(8),
            },
            Deadline => match random.below(64) {
                0 => random.word(),
                _ => clock::now_ns() + random.below(100_000),
            },
            _ => random.word(),
        }
    }

    /// One system call.
    fn call(&mut self) {
        let (number, arguments) = if self.random.one_in(4) {
            let number = match self.random.below(8) {
                0 => self.random.word(),
                _ => self.random.below(syscall::LAST + 3),
            };
            (number, core::array::from_fn(|_| self.random.word()))
        } else {
            let (number, shapes) = self.random.of(&CALLS);
            let mut arguments =
                core::array::from_fn(|at| self.argument(*shapes.get(at).unwrap_or(&Word)));
            if number == syscall::RETYPE && self.random.one_in(2) {
                // Sizes that fit the kind.
                let (kind, bytes) = self.random.of(&THINGS);
                arguments[2] = kind as u64 | 1 << 8;
                arguments[4] = bytes;
            }
            let victim = self.random.below(6) as usize;
            match self.random.below(16) {
                0 | 1 => arguments[victim] = self.random.word(),
                2 => arguments[victim] ^= 1 << self.random.below(64),
                _ => {}
            }
            (number, arguments)
        };
        // For long, or for ever.
        let blocks = match number {
            syscall::CALL | syscall::CALL_GIVE | syscall::REPLY_RECEIVE => true,
            syscall::WAIT => is_far(arguments[0]),
            syscall::RECEIVE => is_far(arguments[1]),
            _ => false,
        };
        if LEFT_OUT.contains(&number) || blocks && !self.random.one_in(16) {
            return;
        }
        // SAFETY: none for this domain, whose memory may go or change: it is there to be broken,
        // and others believe nothing that it says. That no harm comes to them is what is tested.
        let _ = unsafe { system_call::call(number, arguments) };
    }

    /// A random request to a random monitor, whose answer nobody waits for.
    fn request(&mut self, cores: &[usize]) {
        let own = rt::startup().domain;
        let core = match self.random.below(4) {
            0 => self.random.word() as u32 as usize,
            1 => self.random.of(cores),
            _ => rt::startup().core as usize,
        };
        let kind = match self.random.below(4) {
            0 => self.random.next() as u16,
            _ => self.random.below(u64::from(interface::REPLY) + 2) as u16,
        };
        // Others need the console, and their cores.
        if [interface::WRITE, interface::cores::STOP_CORE].contains(&kind) {
            return;
        }
        let mut arguments = core::array::from_fn(|_| match self.random.below(4) {
            0 => self.argument(Empty),
            1 => self.random.below(8) * PAGE,
            _ => self.random.word(),
        });
        if kind == interface::KILL {
            // Others of this job have work to do.
            let nobody = self.random.next() | 1 << 63;
            arguments[0] = self.random.of(&[own, nobody]);
        }
        if interface::names::REQUESTS.contains(&kind) && !self.random.one_in(4) {
            // A name of one letter, so that some are bound.
            let letter = u64::from(b'a') + self.random.below(8);
            arguments = [letter, 0, 0, 0, arguments[4], arguments[5]];
        }
        // Whether it is understood does not matter.
        let _ = monitor::request(core, kind, arguments);
        monitor::discard_answers();
    }
}

/// Takes the counter from the keeper, and has it called when an exception is met.
fn take_counter() -> memory::Result<Mapping> {
    let slot = slots::take()?;
    lrpc::receive_slot(Some(slot))?;
    lrpc::call(GIFT, [0; 5])?;
    lrpc::receive_slot(None)?;
    dispatcher::configure(OWN_DISPATCHER, Property::FaultHandler(Some(GIFT)))?;
    // SAFETY: a frame of the keeper's, which only counts in it, atomically.
    unsafe { Mapping::of(slot, PageSize::Small, rights::WRITE) }
}

/// The calls of a worker.
fn work(calls: u64, seed: u64) -> i32 {
    let cores: Vec<usize> = rt::startup().cores().collect();
    let made = take_counter().and_then(|counter| Ok((counter, Worker::new(seed)?)));
    let (counter, mut worker) = match made {
        Ok(made) => made,
        Err(error) => return failed("a worker cannot begin", &error),
    };
    for call in 0..calls {
        counter.words()[0].store(call + 1, Ordering::Relaxed);
        if call % REQUEST_EVERY == 0 {
            worker.request(&cores);
        } else {
            worker.call();
        }
    }
    // Tells the keeper, if there is still a way to.
    let _ = lrpc::call(GIFT, [0; 5]);
    system_call::exit(0)
}
