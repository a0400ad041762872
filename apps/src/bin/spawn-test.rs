//! Starts, waits for and ends domains on all cores, and asks for what cannot be.
//!
//! `spawn-test [--spawns N]`
//!
//! 1. Spawns of `exit`, many side by side on all cores: each exit status is the one asked for.
//! 2. Every misuse gets the error that the interface documents, and nothing else happens.
//! 3. Sleeping domains are killed, on each core.
//! 4. A core is filled with domains until it takes no more, and emptied: twice the same
//!    number fits, so nothing of a dead domain is left.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use abi::limits::ARGUMENT_BYTES;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use apps::arguments::{Arguments, explain};
use core::fmt::Debug;
use rt::interface::{self, Error, KILLED_STATUS};
use rt::monitor::{self, Domain};
use rt::system_call;

rt::entry!(main);

const USAGE: &str = "spawn-test [--spawns N]";
const DEFAULT_SPAWNS: u64 = 300;
/// Spawns under way at once.
const AT_ONCE: u64 = 16;
/// The word by which a copy of the program knows that it is only to sleep.
const SLEEPER: &str = "sleeper";
/// More cores than any machine has.
const NO_CORE: usize = 1000;
const NO_DOMAIN: u64 = 0xdead_beef;

/// Counts what was not as it should be.
#[derive(Default)]
struct Outcome {
    checks: u64,
    bad: u64,
}

impl Outcome {
    fn expect<T: PartialEq + Debug>(&mut self, what: &str, found: &T, expected: &T) {
        self.checks += 1;
        if found != expected {
            self.bad += 1;
            rt::println!("spawn-test: {what}: expected {expected:?}, found {found:?}");
        }
    }
}

fn main() -> i32 {
    let start = rt::startup();
    if start.arguments().nth(1) == Some(SLEEPER) {
        loop {
            system_call::wait(None);
        }
    }
    let asked = Arguments::of_program(&["--spawns"])
        .and_then(|arguments| arguments.number("--spawns", 1..=100_000));
    let spawns = match asked {
        Ok(asked) => asked.unwrap_or(DEFAULT_SPAWNS),
        Err(misuse) => return explain(&misuse, USAGE),
    };
    let cores: Vec<usize> = start.cores().collect();
    let here = start.core as usize;
    let last = cores.last().copied().unwrap_or(here);
    let mut outcome = Outcome::default();
    let before = fill(last, &mut outcome);
    spawn_and_wait(&cores, spawns, &mut outcome);
    for core in [here, last] {
        ask_for_what_cannot_be(core, &mut outcome);
    }
    misuse_of_requests(here, &mut outcome);
    kill_sleepers(&cores, &mut outcome);
    let after = fill(last, &mut outcome);
    outcome.expect(
        "domains that fit the last core, before and after",
        &after,
        &before,
    );
    rt::println!(
        "spawn-test: {spawns} spawns on {} cores, {after} domains at once on core {last}, {} \
         checks",
        cores.len(),
        outcome.checks
    );
    if outcome.bad > 0 {
        rt::println!("spawn-test: failed: {} checks", outcome.bad);
        return 1;
    }
    rt::println!("spawn-test: passed");
    0
}

/// Starts `exit STATUS` on core after core and compares the statuses.
fn spawn_and_wait(cores: &[usize], spawns: u64, outcome: &mut Outcome) {
    let numbers: Vec<u64> = (0..spawns).collect();
    for batch in numbers.chunks(AT_ONCE as usize) {
        let begun: Vec<_> = batch
            .iter()
            .map(|number| {
                let core = cores[*number as usize % cores.len()];
                // Negative ones too: a status is a whole `i32`.
                let status = *number as i32 * 7_654_321 - 100;
                let word = format!("{status}");
                let token = monitor::begin_spawn(core, &["exit", &word], None);
                (core, status, token)
            })
            .collect();
        // Waited for in another order than they were started in.
        for (core, status, token) in begun.into_iter().rev() {
            let domain = token.and_then(monitor::end_spawn);
            let on = domain.map(Domain::core);
            outcome.expect("the core of a child", &on, &Ok(core));
            let found = domain.and_then(monitor::wait);
            outcome.expect("the status of a child", &found, &Ok(status));
            if let Ok(domain) = domain {
                let again = monitor::wait(domain);
                outcome.expect("a second wait", &again, &Err(Error::NoSuchDomain));
                let late = monitor::kill(domain);
                outcome.expect("a late kill", &late, &Err(Error::NoSuchDomain));
            }
        }
    }
}

/// Spawns on a core that must fail, and one at the limit that must not.
fn ask_for_what_cannot_be(core: usize, outcome: &mut Outcome) {
    let spawn = |arguments: &[&str]| monitor::spawn(core, arguments, None);
    let none = Err(Error::NoSuchProgram);
    for name in [
        "no-such-program",
        "",
        ".",
        "/exit",
        "exit ",
        "exit.sym",
        "monitor",
        "cpudriver",
        "\u{e4}",
    ] {
        outcome.expect(&format!("spawn of `{name}`"), &spawn(&[name]), &none);
    }
    outcome.expect("spawn of nothing", &spawn(&[]), &Err(Error::BadArgument));

    // The name, the status, two ends, and the end of the third word.
    let room = ARGUMENT_BYTES - "exit".len() - "7".len() - 3;
    let word = |bytes: usize| String::from_iter(core::iter::repeat_n('x', bytes));
    let fits = spawn(&["exit", "7", &word(room)]).and_then(monitor::wait);
    outcome.expect("arguments that just fit", &fits, &Ok(7));
    let too_long = spawn(&["exit", "7", &word(room + 1)]);
    outcome.expect("too long arguments", &too_long, &Err(Error::BadArgument));
    let name_too_long = spawn(&[&word(ARGUMENT_BYTES * 3)]);
    outcome.expect("a too long name", &name_too_long, &Err(Error::BadArgument));

    let foreign = monitor::ask(core, interface::SPAWN, [NO_DOMAIN << 12, 0, 0, 0, 0, 0]);
    outcome.expect("a stranger's frame", &foreign, &Err(Error::NoSuchFrame));
    let stranger = Domain((core as u64) << 32 | NO_DOMAIN);
    let gone = Err(Error::NoSuchDomain);
    outcome.expect("kill of a stranger", &monitor::kill(stranger), &gone);
    let doorbell = monitor::doorbell(stranger).map(|_| ());
    outcome.expect("doorbell of a stranger", &doorbell, &gone);
    let unknown = monitor::ask(core, interface::REPLY - 1, [0; 6]).map(|_| ());
    outcome.expect("an unknown request", &unknown, &Err(Error::NoSuchRequest));
    let counter = monitor::ask(core, interface::COUNTER, [u64::MAX, 0, 0, 0, 0, 0]).map(|_| ());
    outcome.expect("no such counter", &counter, &Err(Error::BadArgument));
    let echo = monitor::ask(core, interface::ECHO, [1, 2, 3, 4, 5, 6]);
    outcome.expect("an echo", &echo, &Ok([1, 2, 3, 4, 5]));
}

/// Requests that name what is not there.
fn misuse_of_requests(here: usize, outcome: &mut Outcome) {
    let start = rt::startup();
    let no_core = Err(Error::NoSuchCore);
    for core in [NO_CORE, u32::MAX as usize, 255, 256] {
        if start.cores().any(|up| up == core) {
            continue;
        }
        let spawned = monitor::spawn(core, &["exit", "0"], None).map(|_| ());
        outcome.expect(&format!("spawn on core {core}"), &spawned, &no_core);
        let viewed = monitor::view(core).map(|_| ());
        outcome.expect(&format!("view of core {core}"), &viewed, &no_core);
        let stranger = Domain((core as u64) << 32 | 1);
        outcome.expect("kill on no core", &monitor::kill(stranger), &no_core);
        let doorbell = monitor::doorbell(stranger).map(|_| ());
        outcome.expect("doorbell on no core", &doorbell, &no_core);
    }
    let gone = Err(Error::NoSuchDomain);
    for (whom, domain) in [
        ("a stranger", NO_DOMAIN),
        ("itself", start.domain),
        ("its parent", start.parent),
        ("its monitor", (here as u64) << 32),
    ] {
        let waited = monitor::wait(Domain(domain));
        outcome.expect(&format!("wait for {whom}"), &waited, &gone);
    }
    let killed = monitor::kill(Domain((here as u64) << 32));
    outcome.expect("kill of the monitor", &killed, &Err(Error::NoSuchDomain));
    let frame = |bytes| monitor::frame(bytes).map(|_| ());
    outcome.expect("a frame of nothing", &frame(0), &Err(Error::BadArgument));
    for bytes in [1 << 40, usize::MAX] {
        outcome.expect("too large a frame", &frame(bytes), &Err(Error::NoMemory));
    }
    for slot in [400, 512, u64::MAX] {
        let rung = system_call::ring(slot);
        outcome.expect("an empty slot", &rung, &Err(system_call::Error::NoDoorbell));
    }
}

/// Kills a sleeping domain on each core.
fn kill_sleepers(cores: &[usize], outcome: &mut Outcome) {
    let sleepers: Vec<_> = cores
        .iter()
        .map(|core| monitor::begin_spawn(*core, &["spawn-test", SLEEPER], None))
        .collect();
    for token in sleepers {
        let sleeper = token.and_then(monitor::end_spawn);
        let killed = sleeper.and_then(monitor::kill);
        outcome.expect("kill of a sleeper", &killed, &Ok(()));
        let status = sleeper.and_then(monitor::wait);
        outcome.expect("status of the killed", &status, &Ok(KILLED_STATUS));
    }
}

/// Starts domains on a core until it takes no more, ends them, and says how many they were.
fn fill(core: usize, outcome: &mut Outcome) -> usize {
    let mut sleepers = Vec::new();
    let error = loop {
        match monitor::spawn(core, &["spawn-test", SLEEPER], None) {
            Ok(domain) => sleepers.push(domain),
            Err(error) => break error,
        }
    };
    let documented = matches!(error, Error::TooManyDomains | Error::NoMemory);
    outcome.expect(
        &format!("the error of a full core, {error:?}, is one of those"),
        &documented,
        &true,
    );
    for domain in &sleepers {
        outcome.expect("kill in a full core", &monitor::kill(*domain), &Ok(()));
    }
    for domain in &sleepers {
        let status = monitor::wait(*domain);
        outcome.expect("status in a full core", &status, &Ok(KILLED_STATUS));
    }
    sleepers.len()
}
