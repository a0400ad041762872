//! Exceptions as calls: `fault-test`.
//!
//! Children meet exceptions, and this program, or another copy of it, is their fault handler.
//!
//! 1. Every exception that ring 3 can meet: the words of the call and the registers are right, the
//!    handler repairs what was wrong, by a page, a register or the place to go on at, and the
//!    child goes on with all its registers as they were.
//! 2. A handler that answers something else, that ends or is killed before it answers, or whose
//!    endpoint goes: the child has died of its exception. So has one without a handler, and one
//!    whose handler is itself. The monitor reports each of these, and nobody else comes to harm.
//! 3. Children that are stopped or killed in their exceptions, many at once, and servers that meet
//!    one while they serve a call.
//!
//! The program has the lowest priority there is: whenever it runs for itself, its children are
//! blocked or have ended.
//!
//! This program cannot forbid unsafe code: doing harm is its purpose.
#![no_std]
#![no_main]

extern crate alloc;

mod checks;
mod children;
mod code;
mod harms;
mod parts;
mod victim;

use checks::{Test, endpoint};
use harms::{BREAKPOINT_HARM, HARMS, OPCODE_HARM, READ_HARM};
use rt::capability::{OWN_DISPATCHER, slots};
use rt::dispatcher::{self, Property};
use rt::{monitor, println};
use victim::{Attempt, Failure, at};

rt::entry!(main);

/// The words by which a copy of the program knows what it is.
const VICTIM: &str = "victim";
const DEEP: &str = "deep";
const SELF_MADE: &str = "self-made";
const HANDLER: &str = "handler";
const SERVER: &str = "server";
const CLIENT: &str = "client";

fn main() -> i32 {
    let mut words = rt::startup().arguments().skip(1);
    let (role, word) = (words.next(), words.next().unwrap_or(""));
    match role {
        Some(VICTIM) => children::harm(word),
        Some(DEEP) => children::outermost(),
        Some(SELF_MADE) => children::self_made(word),
        Some(HANDLER) => children::handle(word),
        Some(SERVER) => children::serve(),
        Some(CLIENT) => children::call_server(),
        None => test(),
        Some(word) => {
            println!("fault-test: `{word}` is no option of it");
            println!("usage: fault-test");
            2
        }
    }
}

fn test() -> i32 {
    match run() {
        Ok(0) => {
            println!("fault-test: passed");
            0
        }
        Ok(bad) => {
            println!("fault-test: failed: {bad} checks");
            1
        }
        Err(Failure::NoMemory) => {
            println!("fault-test: failed: the core has too little memory left");
            1
        }
        Err(Failure::Refused(reason)) => {
            println!("fault-test: failed: {reason}");
            1
        }
    }
}

/// A part of the test, and its name.
type Part = (&'static str, fn(&mut Test) -> Attempt);

/// What is tried beside each exception by itself.
const PARTS: [Part; 6] = [
    ("other handlers", Test::other_handlers),
    ("no handler", Test::no_handler),
    ("stop and kill", Test::stopped_and_killed),
    ("many at once", Test::many_at_once),
    ("servers", Test::servers),
    ("misuse", Test::misuse),
];

/// Free pages of a core that suffice for all of it.
const AMPLE_PAGES: u64 = 4096;

fn run() -> Attempt<u64> {
    let lowered = dispatcher::configure(OWN_DISPATCHER, Property::Priority(0));
    at("the lowest priority", lowered)?;
    let free = monitor::memory(rt::startup().core as usize);
    let (free, _) = at("free memory", free)?;
    let mut test = Test {
        endpoint: endpoint()?,
        badged: at("a slot", slots::take())?,
        checks: 0,
        bad: 0,
    };
    for number in 0..HARMS.len() {
        test.repair(number)?;
    }
    for (number, answer) in [
        (READ_HARM, 0),
        (OPCODE_HARM, 2),
        (BREAKPOINT_HARM, u64::MAX),
    ] {
        test.refuse(number, answer)?;
    }
    for (name, part) in PARTS {
        match part(&mut test) {
            Err(Failure::NoMemory) if free < AMPLE_PAGES => {
                println!("fault-test: {name} is left out: there is too little memory for it");
            }
            result => result?,
        }
    }
    // Whoever is left does as it is told.
    for core in rt::startup().cores() {
        let status = monitor::spawn(core, &["exit", "42"], None).and_then(monitor::wait);
        test.expect("a program afterwards", &status, &Ok(42));
    }
    Ok(test.bad)
}
