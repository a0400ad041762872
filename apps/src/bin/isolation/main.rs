//! Shows that domains and CPU drivers are kept from what is not theirs.
//!
//! `isolation`
//!
//! **CPU drivers from each other** ([`kernel`]). Every core's CPU driver tells what its kernel half
//! maps, page by page as the processor sees it. Then, of physical memory:
//!
//! 1. nothing that one core maps is mapped by another, be it to read;
//! 2. nothing is mapped both writable and executable by one core, be it at two addresses;
//! 3. nothing is mapped at all outside of the one range that is the core's own RAM, which its
//!    direct map holds.
//!
//! The registers of the local APIC are left aside: one page, not cached, at the same physical
//! address on each core, behind which each core finds its own device.
//!
//! **CPU drivers from ring 3**, on this core and on the last one. What ring 3 must not do is tried,
//! each by a child of its own in an address space that holds three pages. The child must die of
//! the right exception, and this program goes on:
//!
//! 4. privileged instructions, ways into ring 0, ports, descriptor tables ([`attempts`]);
//! 5. memory of the kernel, of devices, of other domains, and the edges of what is an address, as
//!    data, as code and as stack ([`places`]);
//! 6. registers that a parent writes, which must be refused or harmless ([`registers`]).
//!
//! **Domains from each other** ([`holdings`]):
//!
//! 7. a domain has no capability to memory that another one or the kernel uses, to devices, to
//!    ports, to lines or to cores, and the calls that take such a one refuse all that it has.
//!
//! This program cannot forbid unsafe code: doing harm is its purpose.
#![no_std]
#![no_main]

extern crate alloc;

mod attempts;
mod child;
mod holdings;
mod kernel;
mod places;
mod registers;

use alloc::string::String;
use core::fmt::Debug;
use rt::{memory, monitor};

rt::entry!(main);

/// The words by which a copy of the program knows what it is: it tries what ring 3 may not do, it
/// dies of an attempt, or it only has what a domain has.
const HERE: &str = "here";
const VICTIM: &str = "victim";

/// Counts what was not as it should be.
#[derive(Default)]
struct Outcome {
    /// Checks made.
    checks: u64,
    /// Checks that failed.
    bad: u64,
}

impl Outcome {
    /// Checks that something is as it should be.
    fn expect<T: PartialEq + Debug>(&mut self, what: &str, found: &T, expected: &T) {
        self.check(what, found == expected, found, expected);
    }

    /// Complains if a check does not hold.
    fn check(&mut self, what: &str, holds: bool, found: &dyn Debug, expected: &dyn Debug) {
        self.checks += 1;
        if !holds {
            self.bad += 1;
            let core = rt::startup().core;
            rt::println!(
                "isolation: core {core}: {what}: expected {expected:x?}, found {found:x?}"
            );
        }
    }
}

fn main() -> i32 {
    let words: alloc::vec::Vec<&str> = rt::startup().arguments().skip(1).collect();
    match words[..] {
        [] => run(),
        [HERE] => i32::from(here() > 0),
        [VICTIM, name] => attempts::die(name),
        _ => {
            rt::println!("usage: isolation");
            2
        }
    }
}

fn run() -> i32 {
    let mut failures = kernel::check() as u64;
    failures += here();
    let start = rt::startup();
    if let Some(last) = start.cores().last().filter(|it| *it != start.core as usize) {
        let name = start.arguments().next().unwrap_or("");
        let status = monitor::spawn(last, &[name, HERE], None).and_then(monitor::wait);
        if status != Ok(0) {
            rt::println!("isolation: the copy on core {last}: {status:?}");
            failures += 1;
        }
    }
    if failures > 0 {
        rt::println!("isolation: failed: {failures} violations");
        return 1;
    }
    rt::println!("isolation: passed");
    0
}

/// A part of what is tried on one core, and its name.
type Part = (&'static str, fn(&mut Outcome) -> memory::Result);

const PARTS: [Part; 5] = [
    ("attempts", attempts::all),
    ("places", places::all),
    ("registers", registers::all),
    ("holdings", holdings::all),
    ("deaths", attempts::deaths),
];

/// Tries everything on this core; returns how many checks failed.
fn here() -> u64 {
    let mut outcome = Outcome::default();
    let mut line = String::new();
    for (name, part) in PARTS {
        let before = outcome.checks;
        if let Err(error) = part(&mut outcome) {
            outcome.expect(name, &Err(error), &Ok(()));
        }
        line += &alloc::format!(", {} {name}", outcome.checks - before);
    }
    rt::println!("isolation: core {}{line}", rt::startup().core);
    outcome.bad
}
