//! Attacks the CPU driver, as a domain can that makes objects of its own, and looks whether it
//! gets more than it should.
//!
//! `attack-test [--only NAME]`
//!
//! | attack        | what is tried, and what must not come of it                               |
//! |---------------|---------------------------------------------------------------------------|
//! | `die`         | a fault handler says that the victim has died of it: the handler lives on |
//! | `die-receive` | the same with a doorbell pending, when the handler also waits             |
//! | `last`        | page tables and pages beyond user space, as far as addresses go           |
//! | `lives`       | memory of page tables used again: what was mapped before has no power     |
//! | `lend`        | frames for which there is no place: nothing is lost by them               |
//! | `space`       | an address space is set up again while its dispatcher waits               |
//! | `name`        | control characters in the name of a dispatcher                            |
//! | `starve`      | dispatchers that make each other anew: others get their share             |
//! | `life`        | memory is used again so often that the numbers of lives come round        |
//! | `neighbour`   | the same, for the rights to a frame that lies behind one's own            |
//!
//! The last two make page tables half a million times, so only `--only` has them run. What the
//! log makes of a name cannot be seen from here: `name` checks that all goes on. If the CPU driver
//! waits for what never comes, the run does not end: the last line names the attack.
#![no_std]
#![no_main]

extern crate alloc;

mod faults;
mod lend;
mod lives;
mod places;
mod starve;
mod threads;
mod waits;

use alloc::string::ToString;
use apps::arguments::{Misuse, explain};
use core::fmt::Debug;
use rt::memory::Result;
use rt::{interface, monitor, println};

rt::entry!(main);

const USAGE: &str = "attack-test [--only NAME]";
/// The word by which a copy of the program knows that it has a part to play.
const PART: &str = "part";

/// An attack: its name, whether it runs without being named, and what it does.
type Attack = (&'static str, bool, fn(&mut Test) -> Result);

const ATTACKS: [Attack; 10] = [
    ("die", true, faults::die),
    ("die-receive", true, faults::die_receive),
    ("last", true, places::last),
    ("lives", true, lives::lives),
    ("lend", true, lend::lend),
    ("space", true, waits::space),
    ("name", true, waits::name),
    ("starve", true, starve::starve),
    ("life", false, lives::life),
    ("neighbour", false, lives::neighbour),
];

fn main() -> i32 {
    let mut words = rt::startup().arguments().skip(1);
    if words.next() == Some(PART) {
        return match words.next() {
            Some("lend") => conclude(|test| test.attack("lend", lend::borrower)),
            Some("count") => starve::count(),
            _ => 1,
        };
    }
    match only() {
        Ok(only) => run(only),
        Err(misuse) => explain(&misuse, USAGE),
    }
}

/// The name of the one attack to run, if one is given.
fn only() -> core::result::Result<Option<&'static str>, Misuse> {
    let mut only = None;
    let mut words = rt::startup().arguments().skip(1);
    while let Some(word) = words.next() {
        let (option, value) = match word.split_once('=') {
            Some((option, value)) => (option, Some(value)),
            None => (word, None),
        };
        if option != "--only" {
            return Err(Misuse::Unknown(word.to_string()));
        }
        let value = value.or_else(|| words.next());
        let value = value.ok_or_else(|| Misuse::NoValue(option.to_string()))?;
        let attack = ATTACKS.iter().find(|(name, ..)| *name == value);
        only = Some(attack.ok_or_else(|| Misuse::Unknown(value.to_string()))?.0);
    }
    Ok(only)
}

fn run(only: Option<&str>) -> i32 {
    let status = conclude(|test| {
        for (name, always, attack) in ATTACKS {
            if only.map_or(always, |only| only == name) {
                println!("attack-test: {name}");
                test.attack(name, attack);
                test.look_around();
            }
        }
        println!("attack-test: {} checks", test.checks);
    });
    if status == 0 {
        println!("attack-test: passed");
    }
    status
}

/// Does what there is to check; an exit status.
fn conclude(work: impl FnOnce(&mut Test)) -> i32 {
    let mut test = Test::default();
    work(&mut test);
    if test.bad > 0 {
        println!("attack-test: failed: {} checks", test.bad);
        return 1;
    }
    0
}

/// What was checked so far.
#[derive(Default)]
pub struct Test {
    attack: &'static str,
    checks: u64,
    bad: u64,
}

impl Test {
    /// Compares what came with what should have.
    pub fn expect<T: PartialEq + Debug>(&mut self, what: &str, found: &T, expected: &T) {
        self.checks += 1;
        if found != expected {
            self.bad += 1;
            let attack = self.attack;
            println!("attack-test: {attack}: {what}: expected {expected:?}, found {found:?}");
        }
    }

    fn attack(&mut self, name: &'static str, attack: fn(&mut Self) -> Result) {
        self.attack = name;
        if let Err(error) = attack(self) {
            self.bad += 1;
            println!("attack-test: {name}: could not go on: {error}");
        }
    }

    /// Whether the core goes on: its monitor answers, and it starts programs.
    fn look_around(&mut self) {
        let word = 0xe0;
        let echo = monitor::ask(here(), interface::ECHO, [word; 6]);
        self.expect("an echo", &echo, &Ok([word; 5]));
        let child = monitor::spawn(here(), &["exit", "77"], None);
        self.expect("a program", &child.and_then(monitor::wait), &Ok(77));
    }
}

/// The core that all of this is about.
pub fn here() -> usize {
    rt::startup().core as usize
}
