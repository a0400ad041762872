//! Takes all that there is of something, and looks whether others notice: `exhaustion-test`
//!
//! A *hog* takes objects of one kind until its RAM, its slots or a limit is gone. It must get the
//! documented error and nothing else, and goes on asking. Meanwhile, on the same core:
//!
//! - a *worker* goes on: it computes, makes frames of its own RAM, asks the monitor, answers LRPC;
//! - the monitor answers, and a spawn succeeds or fails with its documented error.
//!
//! Then the hog gives everything back and takes as much again, or it is killed while it holds all,
//! or it ends by itself. Afterwards programs start, and as much memory is free as before.
//!
//! All of this is done on this core, and by a copy of the program on the last one.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod hog;

use abi::capability::ENDPOINT_BYTES;
use abi::layout::PAGE;
use abi::limits::MAX_ENDPOINTS;
use alloc::format;
use alloc::vec::Vec;
use core::fmt::Debug;
use hog::{End, HOGS, NoMemory, TooMany, hog, order};
use rt::capability::{self, Address, GIFT, Kind};
use rt::interface::{Error, KILLED_STATUS};
use rt::lrpc;
use rt::monitor::{self, Domain, Spawn};
use rt::system_call::Error as Refusal;
use rt::{clock, memory, println};

rt::entry!(main);

/// The words by which a copy of the program knows what it is: it tests another core, works, or
/// takes all of what comes next.
const HERE: &str = "here";
const WORKER: &str = "worker";
const HOG: &str = "hog";

/// How long something may take that comes by itself.
const PATIENCE_NS: u64 = 20_000_000_000;
const PAUSE_NS: u64 = 200_000;
/// How often a worker must have gone round while a hog holds all.
const ROUNDS: u64 = 3;
/// Free pages of private RAM below which a child may fail to start for lack of memory.
const AMPLE_PAGES: u64 = 4096;
/// Free pages with which a small program must start.
const PROGRAM_PAGES: u64 = 256;

fn main() -> i32 {
    let words: Vec<&str> = rt::startup().arguments().skip(1).collect();
    match words[..] {
        [] => run(),
        [HERE] => conclude(&here()),
        [WORKER] => work(),
        [HOG, name] => hog(name),
        _ => {
            println!("usage: exhaustion-test");
            2
        }
    }
}

fn program() -> &'static str {
    rt::startup().arguments().next().unwrap_or("")
}

fn run() -> i32 {
    let start = rt::startup();
    let mut outcome = here();
    let last = start.cores().last().filter(|it| *it != start.core as usize);
    if let (Ok(bad), Some(last)) = (&mut outcome, last) {
        let copy = monitor::spawn(last, &[program(), HERE], None);
        if copy.and_then(monitor::wait) != Ok(0) {
            *bad += 1;
        }
    }
    let status = conclude(&outcome);
    if status == 0 {
        println!("exhaustion-test: passed");
    }
    status
}

/// Says what is wrong, if anything is; as an exit status.
fn conclude(outcome: &memory::Result<u64>) -> i32 {
    match outcome {
        Ok(0) => return 0,
        Ok(bad) => println!("exhaustion-test: failed: {bad} checks"),
        Err(error) => println!("exhaustion-test: failed: {error}"),
    }
    1
}

/// Tests this core; returns how many checks failed.
fn here() -> memory::Result<u64> {
    let core = rt::startup().core as usize;
    let mut test = Test {
        core,
        hog: "",
        checks: 0,
        bad: 0,
    };
    let (free, _) = monitor::memory(core)?;
    let worker = Child::start(&[WORKER])?;
    test.receive_everywhere()?;
    let mut text = alloc::string::String::new();
    // What the monitor sets up at the first time is there before memory is counted.
    test.hog = HOGS[0].0;
    let first = Child::start(&[HOG, test.hog])?;
    first.order(order::TAKE, 0)?;
    test.expect_spawn(&[Err(Error::TooManyDomains)]);
    monitor::kill(first.domain)?;
    monitor::wait(first.domain)?;
    memory::free(first.endpoint)?;
    for (name, what, ends) in HOGS {
        test.hog = name;
        for kill in [true, false] {
            match test.exhaust(&worker, ends, kill) {
                Err(memory::Error::NotGiven(Error::NoMemory)) if free < AMPLE_PAGES => {
                    println!("exhaustion-test: {name} is left out: there is too little memory");
                }
                taken => {
                    let taken = taken?;
                    if let Some(limit) = what.limit(core)? {
                        test.expect("how many there were", &taken, &limit);
                    }
                    if kill {
                        text += &format!(" {taken} {name}");
                    }
                }
            }
        }
    }
    let answer = worker.order(order::END, 0);
    test.expect("the end of the worker", &answer, &Err(Refusal::PeerGone));
    test.expect("its status", &monitor::wait(worker.domain), &Ok(0));
    println!(
        "exhaustion-test: core {core}, {} checks:{text}",
        test.checks
    );
    Ok(test.bad)
}

/// A child that takes orders at an endpoint of this program's.
struct Child {
    domain: Domain,
    endpoint: Address,
}

impl Child {
    fn start(words: &[&str]) -> memory::Result<Self> {
        let endpoint = memory::object(Kind::Endpoint, ENDPOINT_BYTES)?;
        let words = [&[program()], words].concat();
        match Spawn::new(&words).gift(endpoint).start() {
            Ok(domain) => Ok(Self { domain, endpoint }),
            Err(error) => {
                memory::free(endpoint)?;
                Err(error.into())
            }
        }
    }

    fn order(&self, order: u64, argument: u64) -> capability::Result<[u64; 2]> {
        let [a, b, ..] = lrpc::call(self.endpoint, [order, argument, 0, 0, 0])?;
        Ok([a, b])
    }
}

/// What is found on one core.
struct Test {
    core: usize,
    hog: &'static str,
    checks: u64,
    bad: u64,
}

impl Test {
    fn expect<T: PartialEq + Debug>(&mut self, what: &str, found: &T, expected: &T) {
        self.checks += 1;
        if found != expected {
            self.bad += 1;
            let (core, hog) = (self.core, self.hog);
            println!(
                "exhaustion-test: core {core}, {hog}: {what}: expected {expected:?}, found {found:?}"
            );
        }
    }

    /// Receives at as many endpoints as it can be.
    fn receive_everywhere(&mut self) -> memory::Result {
        self.hog = "receiving";
        let mut endpoints = Vec::new();
        let error = loop {
            let endpoint = memory::object(Kind::Endpoint, ENDPOINT_BYTES)?;
            endpoints.push(endpoint);
            match lrpc::receive(endpoint, Some(1)) {
                Err(Refusal::TimedOut | Refusal::Interrupted) => {}
                other => break other.map(|_| ()),
            }
        };
        self.expect("the end", &error, &Err(Refusal::TooMany));
        self.expect("endpoints", &endpoints.len(), &(MAX_ENDPOINTS + 1));
        memory::free(endpoints.remove(0))?;
        if let Some(last) = endpoints.last() {
            let received = lrpc::receive(*last, Some(1)).map(|_| ());
            self.expect(
                "one in place of another",
                &received,
                &Err(Refusal::TimedOut),
            );
        }
        for endpoint in endpoints {
            memory::free(endpoint)?;
        }
        Ok(())
    }

    /// Has a hog take all; returns how many that were.
    fn exhaust(&mut self, worker: &Child, ends: &[End], kill: bool) -> memory::Result<u64> {
        let before = monitor::memory(self.core)?;
        let hog = Child::start(&[HOG, self.hog])?;
        let [taken, code] = hog.order(order::TAKE, 0)?;
        let end = End::from_code(code);
        // With little memory, that ends first.
        let is_short = before.0 < AMPLE_PAGES && end == NoMemory;
        let expected = ends.contains(&end) || is_short;
        self.expect(&format!("an end by {end:?}"), &expected, &true);
        self.expect("that there were some", &(taken > 0), &true);
        hog.order(order::STORM, 0)?;
        self.look_around(worker, end)?;
        let more = hog.order(order::MORE, 0);
        self.expect("what comes of asking for more", &more, &Ok([0, code]));
        self.expect("one given back", &hog.order(order::GIVE, 1), &Ok([1, 0]));
        let again = take_again(&hog, 1)?;
        self.expect("one taken again", &again, &[1, code]);
        if self.hog == "dispatchers" {
            self.spawn_in_between(&hog)?;
        }
        if kill {
            self.expect("the kill of a hog", &monitor::kill(hog.domain), &Ok(()));
            let status = monitor::wait(hog.domain);
            self.expect("its status", &status, &Ok(KILLED_STATUS));
        } else {
            let given = hog.order(order::GIVE, 0);
            self.expect("how many were given back", &given, &Ok([taken, 0]));
            self.expect_spawn(&[Ok(7)]);
            let again = take_again(&hog, taken)?;
            self.expect("all once more", &again, &[taken, code]);
            let ended = hog.order(order::END, 0);
            self.expect("the end of a hog", &ended, &Err(Refusal::PeerGone));
            self.expect("its status", &monitor::wait(hog.domain), &Ok(0));
        }
        memory::free(hog.endpoint)?;
        self.expect_spawn(&[Ok(7)]);
        let deadline = clock::now_ns() + PATIENCE_NS;
        let mut after = monitor::memory(self.core)?;
        while after != before && clock::now_ns() < deadline {
            clock::sleep_ns(PAUSE_NS);
            after = monitor::memory(self.core)?;
        }
        self.expect("free pages, private and shared", &after, &before);
        Ok(taken)
    }

    /// While a hog holds all, the others do what they do.
    fn look_around(&mut self, worker: &Child, end: End) -> memory::Result {
        let [first, _] = worker.order(order::WORK, 3)?;
        let deadline = clock::now_ns() + PATIENCE_NS;
        let mut number = 4;
        loop {
            let [round, square] = worker.order(order::WORK, number)?;
            self.expect("what a worker computes", &square, &(number * number));
            if round >= first + ROUNDS {
                break;
            }
            if clock::now_ns() > deadline {
                self.expect("rounds of a worker", &(round - first), &ROUNDS);
                break;
            }
            number += 1;
            clock::sleep_ns(PAUSE_NS);
        }
        let echo = monitor::ask(self.core, rt::interface::ECHO, [5, 6, 7, 8, 9, 0]);
        self.expect("an echo", &echo, &Ok([5, 6, 7, 8, 9]));
        match (self.hog, end) {
            ("dispatchers", TooMany) => self.expect_spawn(&[Err(Error::TooManyDomains)]),
            ("ram", _) => self.expect_spawn(&[Err(Error::NoMemory)]),
            // What is too little for the hog may be enough for a small program.
            (_, NoMemory) => self.expect_spawn(&[Ok(7), Err(Error::NoMemory)]),
            _ => self.expect_spawn(&[Ok(7)]),
        }
        Ok(())
    }

    /// Starts another program, of which one of these must come, or it finds too little memory.
    fn expect_spawn(&mut self, expected: &[Result<i32, Error>]) {
        let free = monitor::memory(self.core).map_or(u64::MAX, |(private, _)| private);
        let status = monitor::spawn(self.core, &["exit", "7"], None).and_then(monitor::wait);
        let what = format!("another program, {status:?}, one of {expected:?}");
        let is_short = status == Err(Error::NoMemory) && free < PROGRAM_PAGES;
        self.expect(&what, &(expected.contains(&status) || is_short), &true);
    }

    /// With a dispatcher given back there is one for a domain, and none for another.
    fn spawn_in_between(&mut self, hog: &Child) -> memory::Result {
        self.expect("one given back", &hog.order(order::GIVE, 1), &Ok([1, 0]));
        self.expect_spawn(&[Ok(7)]);
        // The one that ended is out of the way when its parent hears of it.
        let again = hog.order(order::MORE, 0);
        self.expect("it taken again", &again, &Ok([1, TooMany as u64]));
        self.expect_spawn(&[Err(Error::TooManyDomains)]);
        Ok(())
    }
}

/// Has a hog take so many, which it had before and gave back: the CPU driver may have to empty
/// them first. Returns how many it took, and why no more.
fn take_again(hog: &Child, count: u64) -> memory::Result<[u64; 2]> {
    let deadline = clock::now_ns() + PATIENCE_NS;
    let mut sum = 0;
    loop {
        let [taken, code] = hog.order(order::TAKE, 0)?;
        sum += taken;
        if sum >= count || clock::now_ns() > deadline {
            return Ok([sum, code]);
        }
        clock::sleep_ns(PAUSE_NS);
    }
}

/// Does all that a domain does, and counts how often.
fn work() -> i32 {
    let mut rounds = 0;
    let core = rt::startup().core as usize;
    loop {
        let received = lrpc::receive(GIFT, Some(clock::now_ns() + PAUSE_NS));
        match received {
            Ok((_, [order::WORK, number, ..])) => {
                if lrpc::reply([rounds, number * number, 0, 0, 0]).is_err() {
                    return 1;
                }
            }
            Ok(_) => return 0,
            Err(Refusal::TimedOut | Refusal::Interrupted) => {}
            Err(_) => return 2,
        }
        let Ok(frame) = memory::frame(PAGE) else {
            return 3;
        };
        if memory::free(frame).is_err() {
            return 4;
        }
        let echo = monitor::ask(core, rt::interface::ECHO, [rounds, 0, 0, 0, 0, 0]);
        if echo != Ok([rounds, 0, 0, 0, 0]) {
            return 5;
        }
        rounds += 1;
    }
}
