//! Starts, waits for and ends domains on all cores, and asks for what cannot be.
//!
//! `spawn-test [--spawns N]`
//!
//! 1. Spawns of `exit`, many side by side on all cores: each exit status is the one asked for.
//! 2. Every misuse gets the error that the interface documents, and nothing else happens.
//! 3. Children inherit environments, get capabilities, wait to be started, and are listed; RAM
//!    comes and goes.
//! 4. Sleeping domains are killed, on each core.
//! 5. A core is filled with domains until it takes no more, and emptied: twice the same
//!    number fits, so nothing of a dead domain is left.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use abi::layout::PAGE;
use abi::limits::ARGUMENT_BYTES;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use apps::arguments::{Arguments, explain};
use apps::checks::Outcome;
use rt::capability::{self, Address, FIRST_CNODE_SLOTS, FIRST_FREE_SLOT, GIFT, Kind};
use rt::capability::{OWN_DOORBELL, OWN_SPACE, Retype, Rights, slots};
use rt::interface::{self, Error, KILLED_STATUS};
use rt::monitor::{self, Domain, Spawn, State};
use rt::system_call::{self, Error as Refusal};
use rt::{clock, dispatcher};

rt::entry!(main);

const USAGE: &str = "spawn-test [--spawns N]";
const DEFAULT_SPAWNS: u64 = 300;
/// Spawns under way at once.
const AT_ONCE: u64 = 16;
/// The word by which a copy of the program knows that it is only to sleep.
const SLEEPER: &str = "sleeper";
/// It compares a variable of its environment with a value.
const READER: &str = "reader";
/// It starts a reader.
const PARENT: &str = "parent";
/// It waits for a domain that is not its child.
const WAITER: &str = "waiter";
/// It rings what it was given.
const RINGER: &str = "ringer";
/// How long something may take that comes by itself.
const PATIENCE_NS: u64 = 5_000_000_000;
/// How long to wait before looking again.
const PAUSE_NS: u64 = 1_000_000;
/// More cores than any machine has.
const NO_CORE: usize = 1000;
const NO_DOMAIN: u64 = 0xdead_beef;

fn main() -> i32 {
    let start = rt::startup();
    match start.arguments().nth(1) {
        Some(SLEEPER) => loop {
            system_call::wait(None);
        },
        Some(READER) => return read_environment(start.arguments().skip(2)),
        Some(PARENT) => return parent(),
        Some(WAITER) => return waiter(start.arguments().nth(2)),
        Some(RINGER) => return i32::from(system_call::ring(GIFT).is_err()),
        _ => {}
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
    families(&cores, &mut outcome);
    for waiting in [here, last] {
        for watched in [here, last] {
            siblings(waiting, watched, &mut outcome);
        }
    }
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

    // The name, the status, and the ends of both.
    let room = ARGUMENT_BYTES - "exit".len() - "7".len() - 2;
    let word = |bytes: usize| String::from_iter(core::iter::repeat_n('x', bytes));
    let fits = spawn(&["exit", "7", &word(room)]).and_then(monitor::wait);
    outcome.expect("arguments that just fit", &fits, &Ok(7));
    let too_long = spawn(&["exit", "7", &word(room + 1)]);
    outcome.expect("too long arguments", &too_long, &Err(Error::TooLong));
    let name_too_long = spawn(&[&word(ARGUMENT_BYTES * 3)]);
    outcome.expect("a too long name", &name_too_long, &Err(Error::TooLong));

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
    for (slot, error) in [
        (Address::new(2, FIRST_CNODE_SLOTS - 1), Refusal::EmptySlot),
        (Address::new(2, FIRST_CNODE_SLOTS), Refusal::NoSuchSlot),
        (Address::new(FIRST_CNODE_SLOTS - 1, 1), Refusal::NoSuchSlot),
        (Address(0), Refusal::NoSuchSlot),
        (Address(u64::MAX), Refusal::NoSuchSlot),
        (OWN_SPACE, Refusal::WrongKind),
    ] {
        let rung = system_call::ring(slot);
        outcome.expect(&format!("ring of {slot:x?}"), &rung, &Err(error));
    }
    // Where doorbells and RAM cannot be put.
    for slot in [OWN_SPACE, Address(0), Address::new(9, 9)] {
        let place = [start.domain, slot.0, 0, 0, 0, 0];
        let doorbell = monitor::ask(here, interface::DOORBELL, place).map(|_| ());
        outcome.expect("a doorbell in no slot", &doorbell, &Err(Error::BadSlot));
        let ram = monitor::ram(PAGE, slot);
        outcome.expect("RAM in no slot", &ram, &Err(Error::BadSlot));
    }
    for (bytes, error) in [
        (0, Error::BadArgument),
        (PAGE + 1, Error::BadArgument),
        (1 << 40, Error::NoMemory),
    ] {
        let ram = monitor::ram(bytes, Address::new(2, FIRST_CNODE_SLOTS - 1));
        outcome.expect(&format!("{bytes} bytes of RAM"), &ram, &Err(error));
    }
    let freed = monitor::free_ram(0x1000);
    outcome.expect("free of nothing", &freed, &Err(Error::BadArgument));
}

/// Environments, gifts, traced children, waits that do not block, lists, RAM.
fn families(cores: &[usize], outcome: &mut Outcome) {
    let here = rt::startup().core as usize;
    for core in [here, cores.last().copied().unwrap_or(here)] {
        let reader = |environment, expected: &str| {
            let words = ["spawn-test", READER, "KEY", expected];
            let spawn = Spawn::new(&words).on(core);
            let spawn = match environment {
                Some(environment) => spawn.environment(environment),
                None => spawn,
            };
            spawn.start().and_then(monitor::wait)
        };
        let set = Some(&["OTHER=1", "KEY=a value"][..]);
        outcome.expect("a variable", &reader(set, "a value"), &Ok(0));
        outcome.expect("no variable", &reader(None, "a value"), &Ok(1));
        // A child's child has what the child has.
        let words = ["spawn-test", PARENT, "KEY", "x=y"];
        let parent = Spawn::new(&words).on(core).environment(&["KEY=x=y"]);
        let status = parent.start().and_then(monitor::wait);
        outcome.expect("a variable of a parent", &status, &Ok(0));
        let long = String::from_iter(core::iter::repeat_n('x', ARGUMENT_BYTES));
        let long = Spawn::new(&["exit", "0"])
            .on(core)
            .environment(&[&long])
            .start();
        outcome.expect("a long environment", &long, &Err(Error::TooLong));

        let sleeper = monitor::spawn(core, &["spawn-test", SLEEPER], None);
        let running = sleeper.and_then(monitor::try_wait);
        outcome.expect("a sleeper that is not waited for", &running, &Ok(None));
        let listed = monitor::list(core).map(|listed| {
            let mut same = listed.into_iter().filter(|it| Ok(it.domain) == sleeper);
            same.next()
                .map(|it| (it.parent.0, it.job.0, it.state, it.name))
        });
        let start = rt::startup();
        let name = String::from("spawn-test");
        let expected = Some((start.domain, start.job, State::Alive, name));
        outcome.expect("a sleeper in the list", &listed, &Ok(expected));
        outcome.expect("its end", &sleeper.and_then(monitor::kill), &Ok(()));
        let status = loop {
            match sleeper.and_then(monitor::try_wait) {
                Ok(None) => clock::sleep_ns(PAUSE_NS),
                ended => break ended,
            }
        };
        outcome.expect("its status", &status, &Ok(Some(KILLED_STATUS)));
        let again = sleeper.and_then(monitor::try_wait);
        outcome.expect("its status, twice", &again, &Err(Error::NoSuchDomain));
        if core != here {
            let other = Err(Error::OtherCore);
            let spawn = Spawn::new(&["exit", "0"]).on(core);
            outcome.expect("a gift", &spawn.gift(OWN_DOORBELL).start(), &other);
            let traced = spawn.traced(Address::new(2, FIRST_FREE_SLOT));
            outcome.expect("a traced child", &traced.start(), &other);
        }
    }
    if let Err(error) = capabilities_of_children(outcome) {
        outcome.expect("slots", &error, &Error::NoMemory);
    }
}

/// Waits for a domain that is none of its children.
fn waiter(domain: Option<&str>) -> i32 {
    let domain = domain.and_then(|word| word.parse().ok()).map(Domain);
    let Some(domain) = domain else {
        return -1;
    };
    // As often as one likes.
    let first = monitor::wait(domain);
    match (first, monitor::wait(domain)) {
        (Ok(status), Ok(again)) if again == status => status + 1,
        _ => -2,
    }
}

/// Whoever is of the same job can wait for a domain, on whatever core, before its end and after it.
fn siblings(waiting: usize, watched: usize, outcome: &mut Outcome) {
    let spawn = |word: Result<Domain, Error>| {
        let word = format!("{}", word.map_or(0, |domain| domain.0));
        monitor::spawn(waiting, &["spawn-test", WAITER, &word], None)
    };
    let sleeper = monitor::spawn(watched, &["spawn-test", SLEEPER], None);
    let early = [spawn(sleeper), spawn(sleeper)];
    clock::sleep_ns(PAUSE_NS);
    outcome.expect("a kill", &sleeper.and_then(monitor::kill), &Ok(()));
    let status = sleeper.and_then(monitor::wait);
    outcome.expect("its status", &status, &Ok(KILLED_STATUS));
    let late = spawn(sleeper);
    for waiter in early.into_iter().chain([late]) {
        let status = waiter.and_then(monitor::wait);
        outcome.expect("what a sibling waited for", &status, &Ok(KILLED_STATUS + 1));
    }
    let nobody = spawn(Ok(Domain((watched as u64) << 32 | 0xff_ff00)));
    let status = nobody.and_then(monitor::wait);
    outcome.expect("a wait for nobody", &status, &Ok(-2));
}

/// Gifts, and children that are not started, on this core.
fn capabilities_of_children(outcome: &mut Outcome) -> Result<(), Error> {
    let take = |count| slots::take_row(count).map_err(|_| Error::NoMemory);
    let given = Spawn::new(&["spawn-test", RINGER]).gift(OWN_DOORBELL);
    let ringer = given.start();
    let rung = system_call::wait(Some(clock::now_ns() + PATIENCE_NS));
    outcome.expect("a ring by a gift", &rung, &true);
    let status = ringer.and_then(monitor::wait);
    outcome.expect("status of who rang", &status, &Ok(0));
    let empty = take(1)?;
    let nothing = Spawn::new(&["exit", "0"]).gift(empty).start();
    outcome.expect("a gift of nothing", &nothing, &Err(Error::BadSlot));

    let row = take(3)?;
    let child = Spawn::new(&["exit", "6"]).traced(row).start();
    let kinds = [0, 1, 2].map(|slot| {
        let found = capability::identify(row.plus(slot));
        found.map(|found| (found.kind, found.rights.contains(Rights::REVOKE)))
    });
    let expected = [Kind::Dispatcher, Kind::CNode, Kind::PageTable4];
    let expected = expected.map(|kind| Ok((kind, false)));
    outcome.expect("what there is of a traced child", &kinds, &expected);
    let waited = child.and_then(monitor::try_wait);
    outcome.expect("a child before its start", &waited, &Ok(None));
    let listed = monitor::list(rt::startup().core as usize).map(|listed| {
        let mut same = listed.into_iter().filter(|it| Ok(it.domain) == child);
        same.next().map(|it| it.state)
    });
    outcome.expect("it in the list", &listed, &Ok(Some(State::Stopped)));
    let again = Spawn::new(&["exit", "6"]).traced(row).start();
    outcome.expect("the same slots", &again, &Err(Error::BadSlot));
    outcome.expect("its start", &dispatcher::start(row), &Ok(()));
    let status = child.and_then(monitor::wait);
    outcome.expect("its status", &status, &Ok(6));
    // It is gone, and all capabilities to it with it.
    let gone = [0, 1, 2].map(|slot| capability::identify(row.plus(slot)).map(|_| ()));
    outcome.expect("what is left", &gone, &[Err(Refusal::EmptySlot); 3]);

    outcome.expect("some RAM", &monitor::ram(4 * PAGE, empty), &Ok(()));
    let ram = capability::identify(empty);
    let found = ram.map(|ram| (ram.kind, ram.bytes, ram.rights.contains(Rights::REVOKE)));
    outcome.expect("the RAM", &found, &Ok((Kind::Ram, 4 * PAGE, false)));
    let what = Retype {
        kind: Kind::Frame,
        offset: PAGE,
        bytes: PAGE,
        count: 3,
    };
    let made = capability::retype(empty, &what, row);
    outcome.expect("frames of it", &made, &Ok(()));
    let freed = ram.map(|ram| monitor::free_ram(ram.base));
    outcome.expect("its return", &freed, &Ok(Ok(())));
    for slot in [empty, row, row.plus(1), row.plus(2)] {
        let left = capability::identify(slot).map(|_| ());
        outcome.expect("RAM and frames", &left, &Err(Refusal::EmptySlot));
        slots::give(slot);
    }
    Ok(())
}

/// Whether this copy has a variable with this value; as an exit status.
fn read_environment(mut words: impl Iterator<Item = &'static str>) -> i32 {
    let key = words.next().unwrap_or("");
    i32::from(rt::startup().variable(key) != words.next())
}

/// Starts a copy that reads its environment, and ends with its status.
fn parent() -> i32 {
    let words = rt::startup().arguments().skip(2);
    let words: Vec<&str> = ["spawn-test", READER].into_iter().chain(words).collect();
    Spawn::new(&words)
        .start()
        .and_then(monitor::wait)
        .unwrap_or(2)
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
