//! Timers with deadlines in nanoseconds, and time slices: `timer-test`.
//!
//! The program makes further dispatchers in its own address space, *sleepers*, which wait, receive,
//! ring, call or compute. All of it takes place on the core that the program runs on, and, by
//! another copy of it, on the last core afterwards.
//!
//! 1. Many deadlines of many dispatchers: each wakes, none early, in the order of deadlines; under
//!    `icount`, none later than some instructions.
//! 2. Deadlines that are over, that are for ever, that a doorbell or a call comes before, and that
//!    come while the dispatcher is stopped.
//! 3. One that computes alone is never interrupted; two that compute take turns.
//!
//! Under emulation by the host's clock, the host's other work is in the guest's time. So what a late
//! timer may spoil, order and turns, gets several attempts; what is early is wrong at once.
#![no_std]
#![no_main]

extern crate alloc;

use abi::layout::PAGE;
use abi::limits::TIME_SLICE_NS;
use abi::syscall::{DISPATCHER_BYTES, REGISTERS, priority};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Debug;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use rt::capability::{Address, ENDPOINT_BYTES, Kind, OWN_DOORBELL, OWN_SPACE, ROOT_CNODE};
use rt::dispatcher::{self, Life, Property};
use rt::space::{Mapping, PageSize};
use rt::system_call::{self, Error};
use rt::{clock, interface, lrpc, memory, monitor, println};

rt::entry!(main);

/// The word by which a copy of the program knows that somebody else reports.
const ELSEWHERE: &str = "elsewhere";

const MS: u64 = 1_000_000;
/// Sleepers at once.
const SLEEPERS: usize = 16;
/// Bytes of the stack of each.
const STACK_BYTES: u64 = 2 * PAGE;
/// Index of the counter of timer interrupts in `abi::record::Counters`.
const TIMER_COUNTER: u64 = 3;
/// One that goes well suffices.
const ATTEMPTS: usize = 10;
/// Most instructions from a deadline to user code, and what one takes under `icount`: the host tool
/// has it count 8 ns each.
const LATE_INSTRUCTIONS: u64 = 3000;
const INSTRUCTION_NS: u64 = 8;
/// How long something may take that comes by itself.
const PATIENCE_NS: u64 = 20_000_000_000;
/// Slices that one computes for.
const SLICES: u64 = 12;

/// What a sleeper does once its deadline is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
enum Task {
    /// Nothing: it waited.
    Wait,
    /// Nothing: it received at an endpoint.
    Receive,
    /// Rings a doorbell.
    Ring,
    /// Calls at an endpoint.
    Call,
    /// Computes until it is told to end.
    Compute,
}

impl Task {
    fn of(number: u64) -> Self {
        let all = [Self::Wait, Self::Receive, Self::Ring, Self::Call];
        let found = all.into_iter().find(|task| *task as u64 == number);
        found.unwrap_or(Self::Compute)
    }
}

/// What a sleeper is told, and what it says.
struct Post {
    task: AtomicU64,
    deadline: AtomicU64,
    /// Address of the endpoint or doorbell.
    object: AtomicU64,
    /// When it woke; what came of its wait; how many rounds it computed.
    woke: AtomicU64,
    ended_by_deadline: AtomicBool,
    rounds: AtomicU64,
    /// How many had been done when it was, itself included; written last.
    place: AtomicU64,
}

static POSTS: [Post; SLEEPERS] = [const {
    Post {
        task: AtomicU64::new(0),
        deadline: AtomicU64::new(0),
        object: AtomicU64::new(0),
        woke: AtomicU64::new(0),
        ended_by_deadline: AtomicBool::new(false),
        rounds: AtomicU64::new(0),
        place: AtomicU64::new(0),
    }
}; SLEEPERS];
static PLACES: AtomicU64 = AtomicU64::new(0);
static ENOUGH: AtomicBool = AtomicBool::new(false);

/// The first function of a sleeper. It touches its stack and what is atomic, and nothing else.
extern "C" fn sleeper(number: u64) -> ! {
    let post = &POSTS[number as usize % SLEEPERS];
    let deadline = Some(post.deadline.load(Ordering::Relaxed));
    let object = Address(post.object.load(Ordering::Relaxed));
    let task = Task::of(post.task.load(Ordering::Relaxed));
    let ended_by_deadline = match task {
        Task::Receive => lrpc::receive(object, deadline) == Err(Error::TimedOut),
        _ => !system_call::wait(deadline),
    };
    post.woke.store(clock::now_ns(), Ordering::Relaxed);
    let is_well = match task {
        Task::Wait | Task::Receive => true,
        Task::Ring => system_call::ring(object).is_ok(),
        Task::Call => lrpc::call(object, [number; 5]) == Ok([number + 1; 5]),
        Task::Compute => {
            while !ENOUGH.load(Ordering::Relaxed) {
                post.rounds.fetch_add(1, Ordering::Relaxed);
            }
            true
        }
    };
    let ended_well = ended_by_deadline && is_well;
    post.ended_by_deadline.store(ended_well, Ordering::Relaxed);
    let place = PLACES.fetch_add(1, Ordering::Relaxed) + 1;
    post.place.store(place, Ordering::Release);
    loop {
        // Not an exit: the monitor would look after it, and others would wait meanwhile.
        system_call::wait(None);
    }
}

/// A further dispatcher of this domain.
struct Sleeper {
    post: &'static Post,
    dispatcher: Address,
    _stack: Mapping,
}

impl Sleeper {
    /// One that is to do this at the deadline. It was started.
    fn new(number: usize, task: Task, deadline: u64, object: Address) -> Attempt<Self> {
        let post = &POSTS[number];
        post.task.store(task as u64, Ordering::Relaxed);
        post.deadline.store(deadline, Ordering::Relaxed);
        post.object.store(object.0, Ordering::Relaxed);
        post.rounds.store(0, Ordering::Relaxed);
        post.place.store(0, Ordering::Relaxed);
        let stack = at("a stack", Mapping::zeroed(STACK_BYTES, PageSize::Small))?;
        let dispatcher = memory::object(Kind::Dispatcher, DISPATCHER_BYTES);
        let dispatcher = at("a dispatcher", dispatcher)?;
        for property in [
            Property::CSpace(ROOT_CNODE),
            Property::Priority(priority::NORMAL),
            Property::Name("sleeper"),
        ] {
            at("setting up", dispatcher::configure(dispatcher, property))?;
        }
        // As after a call: the stack is 8 off a multiple of 16.
        let top = stack.address() + stack.bytes() - 8;
        for (name, value) in [
            ("rip", sleeper as *const () as u64),
            ("rsp", top),
            ("rdi", number as u64),
        ] {
            let index = REGISTERS.iter().position(|register| *register == name);
            let index = index.unwrap_or(REGISTERS.len());
            let written = dispatcher::write_register(dispatcher, index, value);
            at("a register", written)?;
        }
        // SAFETY: it executes `sleeper` on a stack of its own, which says what it touches.
        at("an address space", unsafe {
            dispatcher::set_space(dispatcher, OWN_SPACE)
        })?;
        at("start", dispatcher::start(dispatcher))?;
        Ok(Self {
            post,
            dispatcher,
            _stack: stack,
        })
    }

    fn is_done(&self) -> bool {
        self.post.place.load(Ordering::Acquire) != 0
    }

    /// Waits until it is done, which takes more than it should if it never is.
    fn finish(&self) -> Attempt {
        let deadline = clock::now_ns() + PATIENCE_NS;
        while !self.is_done() {
            if clock::now_ns() > deadline {
                return Err(Failure(String::from("a sleeper does not wake")));
            }
            clock::sleep_ns(MS / 10);
        }
        Ok(())
    }
}

impl Drop for Sleeper {
    /// Before its stack goes, the dispatcher does.
    fn drop(&mut self) {
        if let Err(error) = memory::free(self.dispatcher) {
            rt::abort(format_args!("timer-test: a dispatcher stays: {error}"));
        }
    }
}

/// Why the test cannot go on.
struct Failure(String);

type Attempt<T = ()> = Result<T, Failure>;

/// Names the step that a refusal befell.
fn at<T, E: Debug>(step: &str, result: Result<T, E>) -> Attempt<T> {
    result.map_err(|error| Failure(format!("{step}: {error:?}")))
}

fn main() -> i32 {
    match rt::startup().arguments().nth(1) {
        Some(ELSEWHERE) => test(),
        None => everywhere(),
        Some(word) => {
            println!("timer-test: `{word}` is no option of it");
            println!("usage: timer-test");
            2
        }
    }
}

/// Tests this core, and the last one.
fn everywhere() -> i32 {
    let start = rt::startup();
    let here = start.core as usize;
    let elsewhere = start.cores().filter(|core| *core != here).last();
    // One after the other: under `icount`, time passes by what any core does.
    let mut status = test();
    if let Some(core) = elsewhere {
        let copy = monitor::spawn(core, &["timer-test", ELSEWHERE], None);
        let ended = copy.and_then(monitor::wait);
        if ended != Ok(0) {
            println!("timer-test: expected status 0 of the copy on the last core, found {ended:?}");
            status = 1;
        }
    }
    if status == 0 {
        println!("timer-test: passed");
    }
    status
}

fn test() -> i32 {
    let mut test = Test {
        is_exact: rt::startup().accelerator() == "icount",
        bad: 0,
    };
    match test.run() {
        Ok(()) if test.bad == 0 => 0,
        Ok(()) => {
            println!("timer-test: failed: {} checks", test.bad);
            1
        }
        Err(Failure(reason)) => {
            println!("timer-test: failed: {reason}");
            1
        }
    }
}

/// What this copy has found so far.
struct Test {
    /// The clock counts instructions: nothing is late by chance.
    is_exact: bool,
    bad: u64,
}

impl Test {
    fn expect<T: PartialEq + Debug>(&mut self, what: &str, found: &T, expected: &T) {
        if found != expected {
            self.bad += 1;
            println!("timer-test: {what}: expected {expected:?}, found {found:?}");
        }
    }

    fn run(&mut self) -> Attempt {
        self.several("order of deadlines", Self::many)?;
        self.over_and_for_ever()?;
        self.several("what comes before a deadline", Self::forgotten)?;
        self.several("a stop before a deadline", Self::stopped)?;
        self.several("computing alone", Self::alone)?;
        self.several("turns of two", Self::turns)
    }

    /// Does something that a busy host may spoil; true: it went well.
    fn several(&mut self, what: &str, attempt: fn(&mut Self) -> Attempt<bool>) -> Attempt {
        let attempts = if self.is_exact { 1 } else { ATTEMPTS };
        for _ in 0..attempts {
            if attempt(self)? {
                return Ok(());
            }
        }
        self.expect(
            what,
            &format!("nothing in {attempts} attempts"),
            &String::new(),
        );
        Ok(())
    }

    /// Checks that a wait ended neither early nor late.
    fn on_time(&mut self, what: &str, deadline: u64, woke: u64) {
        let is_early = woke < deadline;
        self.expect(
            &format!("{what}: {woke} ns is before {deadline} ns"),
            &is_early,
            &false,
        );
        if self.is_exact && !is_early {
            let instructions = (woke - deadline) / INSTRUCTION_NS;
            let is_late = instructions > LATE_INSTRUCTIONS;
            let what = format!("{what}: late by {instructions} instructions");
            self.expect(&what, &is_late, &false);
        }
    }

    /// Many deadlines, in no order; whether they came in theirs.
    fn many(&mut self) -> Attempt<bool> {
        let apart = if self.is_exact { MS / 10 } else { 3 * MS };
        let mut sleepers = Vec::new();
        let mut endpoints = Vec::new();
        let first = clock::now_ns() + 10 * MS;
        PLACES.store(0, Ordering::Relaxed);
        for number in 0..SLEEPERS {
            // Seven has no factor in common with their number.
            let place = number * 7 % SLEEPERS;
            let deadline = first + place as u64 * apart;
            let endpoint = memory::object(Kind::Endpoint, ENDPOINT_BYTES);
            let endpoint = at("an endpoint", endpoint)?;
            endpoints.push(endpoint);
            let task = [Task::Wait, Task::Receive][number % 2];
            sleepers.push((place, Sleeper::new(number, task, deadline, endpoint)?));
        }
        let were_set_in_time = clock::now_ns() < first;
        let mut in_order = true;
        for (place, sleeper) in &sleepers {
            sleeper.finish()?;
            let post = sleeper.post;
            let (deadline, woke) = (&post.deadline, &post.woke);
            let (deadline, woke) = (
                deadline.load(Ordering::Relaxed),
                woke.load(Ordering::Relaxed),
            );
            if were_set_in_time {
                self.on_time("one of many", deadline, woke);
            }
            let by_deadline = post.ended_by_deadline.load(Ordering::Relaxed);
            self.expect("the end of a wait", &by_deadline, &true);
            in_order &= post.place.load(Ordering::Relaxed) == *place as u64 + 1;
        }
        drop(sleepers);
        for endpoint in endpoints {
            at("free of an endpoint", memory::free(endpoint))?;
        }
        Ok(in_order && were_set_in_time)
    }

    /// Deadlines that are over, or that nobody reaches.
    fn over_and_for_ever(&mut self) -> Attempt {
        let endpoint = memory::object(Kind::Endpoint, ENDPOINT_BYTES);
        let endpoint = at("an endpoint", endpoint)?;
        let timed_out = Err(Error::TimedOut);
        for ago in [clock::now_ns() - 1, MS, 1, 0] {
            let deadline = clock::now_ns() - ago;
            let rung = system_call::wait(Some(deadline));
            self.expect("a wait for what is over", &rung, &false);
            let called = lrpc::receive(endpoint, Some(deadline));
            self.expect("a receive until what is over", &called, &timed_out);
        }
        for ns in [1, 1000, MS / 2, 2 * MS] {
            let deadline = clock::now_ns() + ns;
            let rung = system_call::wait(Some(deadline));
            self.on_time("a wait", deadline, clock::now_ns());
            self.expect("a wait", &rung, &false);
            let deadline = clock::now_ns() + ns;
            let called = lrpc::receive(endpoint, Some(deadline));
            self.on_time("a receive", deadline, clock::now_ns());
            self.expect("a receive", &called, &timed_out);
        }
        // Only a bell ends these.
        for deadline in [None, Some(u64::MAX), Some(u64::MAX - 1), Some(1 << 62)] {
            for receives in [false, true] {
                let rings_at = clock::now_ns() + MS;
                let ringer = Sleeper::new(0, Task::Ring, rings_at, OWN_DOORBELL)?;
                let ended = match receives {
                    false => system_call::wait(deadline),
                    true => lrpc::receive(endpoint, deadline) == Err(Error::Interrupted),
                };
                let what = format!("a wait until {deadline:x?}");
                self.expect(&what, &ended, &true);
                let is_early = clock::now_ns() < rings_at;
                self.expect(&what, &is_early, &false);
                ringer.finish()?;
            }
        }
        at("free of an endpoint", memory::free(endpoint))
    }

    /// A bell or a call comes first: the deadline counts no more. Whether they did come first.
    fn forgotten(&mut self) -> Attempt<bool> {
        let endpoint = memory::object(Kind::Endpoint, ENDPOINT_BYTES);
        let endpoint = at("an endpoint", endpoint)?;
        let mut came_first = true;
        for task in [Task::Ring, Task::Call] {
            let now = clock::now_ns();
            let (first, second, third) = (now + MS, now + 50 * MS, now + 60 * MS);
            let object = match task {
                Task::Ring => OWN_DOORBELL,
                _ => endpoint,
            };
            let other = Sleeper::new(1, task, first, object)?;
            let came = match task {
                Task::Ring => system_call::wait(Some(second)),
                _ => lrpc::receive(endpoint, Some(second)) == Ok((0, [1; 5])),
            };
            if clock::now_ns() >= second {
                // Too late to say. A bell may ring still.
                drop(other);
                system_call::wait(Some(1));
                came_first = false;
                continue;
            }
            self.expect("what came before a deadline", &came, &true);
            if task == Task::Call {
                at("answer", lrpc::reply([2; 5]))?;
            }
            let rung = system_call::wait(Some(third));
            self.expect("a wait beyond that deadline", &rung, &false);
            self.on_time("a wait beyond that deadline", third, clock::now_ns());
            other.finish()?;
            let is_well = other.post.ended_by_deadline.load(Ordering::Relaxed);
            self.expect("who came before", &is_well, &true);
        }
        at("free of an endpoint", memory::free(endpoint))?;
        Ok(came_first)
    }

    /// The deadline of one that was stopped; whether it was, in time.
    fn stopped(&mut self) -> Attempt<bool> {
        let endpoint = memory::object(Kind::Endpoint, ENDPOINT_BYTES);
        let endpoint = at("an endpoint", endpoint)?;
        let mut in_time = true;
        for task in [Task::Wait, Task::Receive] {
            let deadline = clock::now_ns() + 5 * MS;
            let sleeper = Sleeper::new(2, task, deadline, endpoint)?;
            system_call::yield_now();
            at("stop", dispatcher::stop(sleeper.dispatcher))?;
            if clock::now_ns() >= deadline {
                in_time = false;
                continue;
            }
            clock::sleep_ns(10 * MS);
            self.expect("one that was stopped", &sleeper.is_done(), &false);
            let life = dispatcher::state(sleeper.dispatcher);
            self.expect("its state", &life, &Ok(Life::Stopped));
            let started = clock::now_ns();
            at("start", dispatcher::start(sleeper.dispatcher))?;
            sleeper.finish()?;
            let by_deadline = sleeper.post.ended_by_deadline.load(Ordering::Relaxed);
            self.expect("one that was started", &by_deadline, &true);
            let woke = sleeper.post.woke.load(Ordering::Relaxed);
            self.on_time("one that was started", started, woke);
        }
        at("free of an endpoint", memory::free(endpoint))?;
        Ok(in_time)
    }

    /// Timer interrupts of this core so far.
    fn ticks(&self) -> Attempt<u64> {
        let core = rt::startup().core as usize;
        let counter = [TIMER_COUNTER, 0, 0, 0, 0, 0];
        let counted = monitor::ask(core, interface::COUNTER, counter);
        at("a counter", counted).map(|results| results[0])
    }

    /// One that computes alone: whether nothing interrupted it.
    fn alone(&mut self) -> Attempt<bool> {
        // A timer that was set for something before may strike once more.
        compute(3 * TIME_SLICE_NS);
        let before = self.ticks()?;
        compute(SLICES * TIME_SLICE_NS);
        let ticks = self.ticks()? - before;
        if ticks != 0 {
            println!("timer-test: {ticks} ticks while one computed alone");
        }
        Ok(ticks == 0)
    }

    /// Two that compute: whether they took turns, a slice each.
    fn turns(&mut self) -> Attempt<bool> {
        ENOUGH.store(false, Ordering::Relaxed);
        let other = Sleeper::new(3, Task::Compute, 1, Address(0))?;
        let before = self.ticks()?;
        let (rounds, turns) = compute(SLICES * TIME_SLICE_NS);
        let ticks = self.ticks()? - before;
        let others = other.post.rounds.load(Ordering::Relaxed);
        ENOUGH.store(true, Ordering::Relaxed);
        other.finish()?;
        // Each has about half of the slices; a slice ends with a tick.
        let took_turns = (SLICES / 4..=SLICES).contains(&turns);
        let ticked = (SLICES / 2..=SLICES * 2).contains(&ticks);
        let is_well = took_turns && ticked && rounds > 0 && others > 0;
        if !is_well {
            println!(
                "timer-test: {turns} turns, {ticks} ticks, {rounds} and {others} rounds in \
                 {SLICES} slices of two"
            );
        }
        Ok(is_well)
    }
}

/// Computes for so long: rounds, and how often somebody else had the core for at least half a
/// slice.
fn compute(ns: u64) -> (u64, u64) {
    let begin = clock::now_ns();
    let (mut rounds, mut turns, mut last) = (0, 0, begin);
    while last - begin < ns {
        let now = clock::now_ns();
        turns += u64::from(now - last > TIME_SLICE_NS / 2);
        last = now;
        rounds += 1;
    }
    (rounds, turns)
}
