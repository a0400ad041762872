//! What one domain can find out.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use apps::checks::Outcome;
use rt::coordination::{Barrier, Lock, Unit};
use rt::interface::Error;
use rt::interface::names::{self as requests, MAX_WATCHES};
use rt::names::{self, Change, NAME_BYTES, Watch};
use rt::{clock, monitor};

/// Names that the registry takes.
const MAX_NAMES: usize = 1024;

fn value(name: &str) -> Result<u64, Error> {
    names::lookup(name).map(|binding| binding.value)
}

pub fn bind_and_unbind(outcome: &mut Outcome) {
    let own = rt::startup().domain;
    let longest = "x".repeat(NAME_BYTES);
    for name in ["a", "a name with spaces", "ünïcode", &longest] {
        outcome.expect("a name before", &value(name), &Err(Error::NotBound));
        outcome.expect("a bind", &names::bind(name, u64::MAX), &Ok(()));
        let found = names::lookup(name).map(|found| (found.value, found.domain.0));
        outcome.expect("what is bound, and by whom", &found, &Ok((u64::MAX, own)));
        outcome.expect("another value", &names::bind(name, 0), &Ok(()));
        outcome.expect("the value", &value(name), &Ok(0));
        outcome.expect("an unbind", &names::unbind(name), &Ok(()));
        outcome.expect("a name after", &value(name), &Err(Error::NotBound));
        outcome.expect(
            "a second unbind",
            &names::unbind(name),
            &Err(Error::NotBound),
        );
    }
    // Others begin with the same letters, or with what comes before them.
    for (number, name) in ["list", "list.a", "list.b", "lisa", "lit"]
        .iter()
        .enumerate()
    {
        outcome.expect("a bind", &names::bind(name, number as u64), &Ok(()));
    }
    let expected: Vec<(String, u64)> = [("list", 0), ("list.a", 1), ("list.b", 2)]
        .map(|(name, number)| (name.to_string(), number))
        .into();
    outcome.expect("all of a prefix", &names::list("list"), &Ok(expected));
    let all = names::list("").map(|all| all.len());
    outcome.expect("all names", &all, &Ok(5));
    for name in ["list", "list.a", "list.b", "lisa", "lit"] {
        outcome.expect("an unbind", &names::unbind(name), &Ok(()));
    }
}

pub fn what_makes_no_sense(outcome: &mut Outcome) {
    let bad = Err(Error::BadName);
    let long = "y".repeat(NAME_BYTES + 1);
    for name in ["", "a\0b", "\0", &long] {
        outcome.expect("a bind of no name", &names::bind(name, 1), &bad);
        outcome.expect("an unbind of no name", &names::unbind(name), &bad);
        outcome.expect("a look-up of no name", &value(name), &Err(Error::BadName));
        let watch = Watch::new(name).map(|_| ());
        outcome.expect("a watch of no name", &watch, &bad);
    }
    // What the runtime does not send.
    let here = rt::startup().core as usize;
    let hole = u64::from_le_bytes(*b"a\0b\0\0\0\0\0");
    let one = u64::from_le_bytes(*b"a\0\0\0\0\0\0\0");
    for (kind, arguments, expected) in [
        (requests::BIND, [0; 6], Error::BadName),
        (requests::LOOKUP, [hole, 0, 0, 0, 0, 0], Error::BadName),
        (requests::LOOKUP, [0, one, 0, 0, 0, 0], Error::BadName),
        (requests::WATCH, [one, 0, 0, 0, 2, 0], Error::BadArgument),
        (requests::UNWATCH, [0; 6], Error::BadArgument),
        (requests::UNWATCH, [u64::MAX; 6], Error::BadArgument),
        (requests::NEXT, [hole, 0, 0, 0, 0, 0], Error::BadName),
        (requests::NEXT + 1, [one; 6], Error::NoSuchRequest),
        (requests::REQUESTS.end - 1, [one; 6], Error::NoSuchRequest),
    ] {
        let found = monitor::ask(here, kind, arguments);
        outcome.refused("a request that makes no sense", found, expected);
    }
    outcome.refused("no units", Unit::try_acquire("s", 0), Error::BadArgument);
    outcome.refused("nobody", Barrier::new("b", 0), Error::BadArgument);
    outcome.refused("no name", Barrier::new("", 1), Error::BadName);
    outcome.refused("a long name", Barrier::new(&long[..15], 1), Error::BadName);
    outcome.refused("no name", Lock::acquire(""), Error::BadName);
    let lock = Lock::acquire("lock");
    outcome.expect("a lock", &lock.is_ok(), &true);
    outcome.refused("the same lock", Lock::acquire("lock"), Error::InUse);
    drop(lock);
    outcome.expect("a lock that is free", &value("lock"), &Err(Error::NotBound));
}

pub fn watches(outcome: &mut Outcome) {
    let bound = |name: &str, value| Ok(Some(Change::Bound(name.to_string(), value)));
    let unbound = |name: &str| Ok(Some(Change::Unbound(name.to_string())));
    let mut next = |watch: &mut Watch, expected: Result<Option<Change>, Error>| {
        let found = watch.wait_until(Some(clock::now_ns() + 1_000_000_000));
        outcome.expect("a change", &found, &expected);
    };
    let (Ok(mut one), Ok(mut all)) = (Watch::new("w.one"), Watch::prefix("w.")) else {
        return outcome.expect("two watches", &false, &true);
    };
    for number in 0..3 {
        let done = (
            names::bind("w.one", number),
            names::bind("w.two", number + 10),
            names::unbind("w.one"),
        );
        if done != (Ok(()), Ok(()), Ok(())) {
            return outcome.expect("updates", &done, &(Ok(()), Ok(()), Ok(())));
        }
        next(&mut one, bound("w.one", number));
        next(&mut one, unbound("w.one"));
        next(&mut all, bound("w.one", number));
        next(&mut all, bound("w.two", number + 10));
        next(&mut all, unbound("w.one"));
    }
    drop(all);
    // Nothing comes of what is not watched any more, or never was.
    let _ = (names::unbind("w.two"), names::bind("w.onerous", 1));
    let none = one.wait_until(Some(clock::now_ns()));
    outcome.expect("a change of another name", &none, &Ok(None));
    let _ = names::unbind("w.onerous");
    // More than the monitor keeps for who does not take it: see `overrun`.
    let mut all: Vec<_> = (1..MAX_WATCHES).map(|_| Watch::new("w.none")).collect();
    let granted = all.iter().filter(|watch| watch.is_ok()).count();
    outcome.expect("watches", &granted, &(MAX_WATCHES - 1));
    let more = Watch::new("w.none");
    outcome.refused("one watch too many", more, Error::TooManyWatches);
    all.clear();
    overrun(outcome);
}

/// Who asks for changes and does not take what comes is told so, and does no harm.
fn overrun(outcome: &mut Outcome) {
    let here = rt::startup().core as usize;
    let Ok(mut watch) = Watch::prefix("o.") else {
        return outcome.expect("a watch", &false, &true);
    };
    // Answers and events both are left where they are.
    let mut sent = 0;
    for number in 0..400 {
        let name = u64::from_le_bytes(*b"o.x\0\0\0\0\0");
        let arguments = [name, 0, 0, 0, number, 0];
        sent += usize::from(monitor::request(here, requests::BIND, arguments).is_ok());
    }
    outcome.expect("requests sent", &sent, &400);
    // Whatever was answered, the registry serves on, and a watch that ended begins anew.
    let mut seen = 0;
    while let Ok(Some(change)) = watch.wait_until(Some(clock::now_ns() + 20_000_000)) {
        seen += 1;
        let known = match &change {
            Change::Bound(name, _) => name == "o.x",
            Change::Overrun => true,
            Change::Unbound(_) => false,
        };
        outcome.expect("a change that was made", &known, &true);
    }
    outcome.expect("changes seen", &(seen > 0), &true);
    monitor::discard_answers();
    outcome.expect("an unbind", &names::unbind("o.x"), &Ok(()));
    let last = watch.wait_until(Some(clock::now_ns() + 1_000_000_000));
    let expected = Ok(Some(Change::Unbound("o.x".to_string())));
    outcome.expect("the last change", &last, &expected);
}

/// All names that there is room for, and one more.
pub fn full(outcome: &mut Outcome) {
    let name = |number: usize| format!("full.{number}");
    let mut bound = 0;
    while bound < MAX_NAMES && names::bind(&name(bound), bound as u64).is_ok() {
        bound += 1;
    }
    outcome.expect("names that there is room for", &bound, &MAX_NAMES);
    let more = names::bind("full.more", 1);
    outcome.expect("one name too many", &more, &Err(Error::TooManyNames));
    let all = names::list("full.").map(|all| all.len());
    outcome.expect("names that are listed", &all, &Ok(bound));
    for number in 0..bound {
        if names::unbind(&name(number)).is_err() || value(&name(number)).is_ok() {
            outcome.expect("a name of many that goes", &number, &usize::MAX);
        }
    }
    outcome.expect("room again", &names::bind("full.more", 1), &Ok(()));
    outcome.expect("an unbind", &names::unbind("full.more"), &Ok(()));
}
