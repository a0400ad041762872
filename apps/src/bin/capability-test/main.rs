//! Every operation on capabilities, what it must do and every error that it has for user code;
//! and that nothing changes where there is an error.
//!
//! `capability-test`
//!
//! On each core, one after the other, a copy of the program does all that is below, on RAM of its
//! own that objects are made of at places of its choice. Afterwards the core has as much memory as
//! before.
//!
//! | module       | what it is about                                                           |
//! |--------------|----------------------------------------------------------------------------|
//! | `operations` | copy, mint, move, delete, identify; addresses of slots, roots              |
//! | `retype`     | what becomes of what; sizes, counts, places, depths, how many there can be |
//! | `overlaps`   | ranges that touch, cross, lie in one another                               |
//! | `cnodes`     | objects in CNodes, CNodes in CNodes, and what goes with them               |
//! | `revoke`     | by badge, of thousands, in steps, while another dispatcher's timer rings   |
//! | `contents`   | memory is zeroed before it is visible again, whatever it was before        |
//! | `large`      | frames that take several calls to zero                                     |
//! | `lives`      | what is moved or deleted while it is in use                                |
//!
//! Two errors cannot be had in ring 3: `Unreachable` and `Conflict` are about RAM that the CPU
//! driver does not map and about INSERT, and only monitors have capabilities to those.
#![no_std]
#![no_main]

extern crate alloc;

mod bench;
mod children;
mod cnodes;
mod contents;
mod large;
mod lives;
mod operations;
mod overlaps;
mod retype;
mod revoke;

use bench::Outcome;
use rt::memory::Result;
use rt::monitor;

rt::entry!(main);

/// Its name, for copies of it.
const NAME: &str = "capability-test";
/// The word by which a copy knows that it is to do all of this on its core.
const WORKER: &str = "worker";

fn main() -> i32 {
    match rt::startup().arguments().nth(1) {
        None => on_all_cores(),
        Some(WORKER) => work(),
        Some(role) => children::play(role),
    }
}

/// Starts a copy on each core; each must leave as much memory as it found.
fn on_all_cores() -> i32 {
    let mut outcome = Outcome::default();
    let cores = rt::startup().cores();
    for core in cores {
        // Once, so that what a monitor sets up at the first time is there.
        let first = monitor::spawn(core, &["exit", "0"], None).and_then(monitor::wait);
        outcome.expect("a first program", &first, &Ok(0));
        let before = monitor::memory(core);
        let worker = monitor::spawn(core, &[NAME, WORKER], None).and_then(monitor::wait);
        outcome.expect("the worker's status", &worker, &Ok(0));
        let after = monitor::memory(core);
        outcome.expect("free pages of the core", &after, &before);
    }
    match outcome.bad {
        0 => rt::println!("{NAME}: passed"),
        bad => rt::println!("{NAME}: failed: {bad} checks"),
    }
    i32::from(outcome.bad > 0)
}

/// A part of it.
type Part = fn(&mut Outcome) -> Result;

/// All of it, on this core.
fn work() -> i32 {
    let parts: [(&str, Part); 21] = [
        ("operations", operations::all),
        ("addresses", operations::addresses),
        ("rights", operations::rights),
        ("kinds", retype::kinds),
        ("sizes", retype::sizes),
        ("counts", retype::counts),
        ("places", retype::places),
        ("depths", retype::depths),
        ("dispatchers", retype::dispatchers),
        ("overlaps", overlaps::overlaps),
        ("cnodes", cnodes::cnodes),
        ("cnodes that go", cnodes::cnodes_go),
        ("islands", cnodes::islands),
        ("badges", revoke::badges),
        ("steps", revoke::steps),
        ("revokes by what goes", revoke::of_itself),
        ("contents", contents::contents),
        ("large frames", large::large),
        ("moves", lives::moves),
        ("ends", lives::ends),
        ("timers", revoke::timers),
    ];
    let mut outcome = Outcome::default();
    for (name, part) in parts {
        if let Err(error) = part(&mut outcome) {
            rt::println!("{NAME}: {name}: {error}");
            outcome.bad += 1;
        }
    }
    let core = rt::startup().core;
    rt::println!("{NAME}: {} checks on core {core}", outcome.checks);
    i32::from(outcome.bad > 0)
}
