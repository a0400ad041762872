//! What several domains do at once, on all cores.

use crate::Cast;
use alloc::format;
use apps::checks::Outcome;
use core::sync::atomic::{AtomicU64, Ordering};
use rt::coordination::{Barrier, Lock, Unit};
use rt::frame::Frame;
use rt::interface::{Error, KILLED_STATUS};
use rt::names::{self, Change, Watch};
use rt::{clock, monitor, system_call};

/// What parts do together.
pub const SCENES: [&str; 6] = ["barrier", "find", "race", "lock", "semaphore", "pass-on"];

/// Units of the semaphore.
const UNITS: u32 = 2;

/// One part of a scene.
struct Part {
    count: u64,
    index: u64,
    rounds: u64,
    frame: Frame,
    barrier: Barrier,
}

impl Part {
    fn word(&self, index: usize) -> &'static AtomicU64 {
        self.frame.word(index)
    }

    fn meet(&mut self, outcome: &mut Outcome) {
        outcome.expect("a barrier", &self.barrier.wait(), &Ok(()));
    }
}

/// A copy of the program does its part.
pub fn take_part(scene: &str, numbers: &[u64], outcome: &mut Outcome) {
    let [count, index, rounds] = numbers[..] else {
        return outcome.expect("numbers of a part", &numbers.len(), &3);
    };
    if scene == "hold" {
        return hold(index, outcome);
    }
    let barrier = Barrier::new(scene, count as usize);
    let (Some(frame), Ok(barrier)) = (Frame::of_parent(), barrier) else {
        return outcome.expect("a frame and a barrier", &false, &true);
    };
    let mut part = Part {
        count,
        index,
        rounds,
        frame,
        barrier,
    };
    match scene {
        "barrier" => barriers(&mut part, outcome),
        "find" => find(&mut part, outcome),
        "race" => race(&mut part, outcome),
        "lock" => lock(&mut part, outcome),
        "semaphore" => semaphore(&mut part, outcome),
        "pass-on" => pass_on(&mut part, outcome),
        _ => outcome.expect("a scene that there is", &false, &true),
    }
    part.meet(outcome);
}

/// Nobody leaves a barrier before the last has come.
fn barriers(part: &mut Part, outcome: &mut Outcome) {
    let come = part.word(0);
    for round in 1..=part.rounds * 4 {
        come.fetch_add(1, Ordering::SeqCst);
        part.meet(outcome);
        let seen = come.load(Ordering::SeqCst);
        let least = round * part.count;
        outcome.expect("all have come", &(seen >= least), &true);
        outcome.expect(
            "nobody is a round ahead",
            &(seen < least + part.count),
            &true,
        );
    }
}

/// What has been bound is found by all, and what has been unbound by none: no message tells them
/// but those of the registry, and the word in the shared page that says that the call has returned.
fn find(part: &mut Part, outcome: &mut Outcome) {
    for round in 0..part.rounds * part.count {
        let who = round % part.count;
        let name = format!("find.{who}");
        let returned = part.word(round as usize % 500 + 1);
        if who == part.index {
            outcome.expect("a bind", &names::bind(&name, round), &Ok(()));
            returned.store(1, Ordering::SeqCst);
        } else {
            while returned.load(Ordering::SeqCst) == 0 {
                // Others run meanwhile: whoever spins alone keeps them from it.
                system_call::wait(Some(clock::now_ns() + 20_000));
            }
            let found = names::lookup(&name).map(|found| found.value);
            outcome.expect("what was bound just now", &found, &Ok(round));
        }
        part.meet(outcome);
        if who == part.index {
            outcome.expect("an unbind", &names::unbind(&name), &Ok(()));
            returned.store(0, Ordering::SeqCst);
        } else {
            while returned.load(Ordering::SeqCst) == 1 {
                system_call::wait(Some(clock::now_ns() + 20_000));
            }
            let found = names::lookup(&name).map(|found| found.value);
            outcome.expect("what was unbound", &found, &Err(Error::NotBound));
        }
        part.meet(outcome);
    }
}

/// Of many who bind one name, one gets it.
fn race(part: &mut Part, outcome: &mut Outcome) {
    let winners = part.word(0);
    for round in 0..part.rounds {
        let name = format!("race.{round}");
        let bound = names::bind(&name, part.index);
        match bound {
            Ok(()) => {
                winners.fetch_add(1, Ordering::SeqCst);
            }
            lost => {
                outcome.expect("the name is taken", &lost, &Err(Error::NameTaken));
                let other = names::unbind(&name);
                outcome.expect("not ours to unbind", &other, &Err(Error::NotOwner));
            }
        }
        part.meet(outcome);
        let found = names::lookup(&name).map(|found| found.domain.0);
        let is_own = found == Ok(rt::startup().domain);
        outcome.expect("whose it is", &is_own, &bound.is_ok());
        outcome.expect("winners", &winners.load(Ordering::SeqCst), &(round + 1));
        part.meet(outcome);
        if bound.is_ok() {
            outcome.expect("an unbind", &names::unbind(&name), &Ok(()));
        }
    }
}

/// Two steps that only a lock makes one: nobody's is lost.
fn lock(part: &mut Part, outcome: &mut Outcome) {
    let (counter, inside) = (part.word(0), part.word(1));
    for _ in 0..part.rounds {
        let lock = Lock::acquire("the lock");
        if let Err(error) = &lock {
            return outcome.expect("a lock", &Err(*error), &Ok(()));
        }
        outcome.expect("who is inside", &inside.fetch_add(1, Ordering::SeqCst), &0);
        let seen = counter.load(Ordering::SeqCst);
        clock::sleep_ns(10_000);
        counter.store(seen + 1, Ordering::SeqCst);
        inside.fetch_sub(1, Ordering::SeqCst);
        drop(lock);
    }
    part.meet(outcome);
    let all = part.rounds * part.count;
    outcome.expect(
        "what all have counted",
        &counter.load(Ordering::SeqCst),
        &all,
    );
}

/// So many are inside at once, and no more.
fn semaphore(part: &mut Part, outcome: &mut Outcome) {
    let (inside, total) = (part.word(0), part.word(1));
    for _ in 0..part.rounds {
        let unit = Unit::acquire("units", UNITS);
        if let Err(error) = &unit {
            return outcome.expect("a unit", &Err(*error), &Ok(()));
        }
        let others = inside.fetch_add(1, Ordering::SeqCst);
        outcome.expect("room inside", &(others < u64::from(UNITS)), &true);
        total.fetch_add(1, Ordering::SeqCst);
        clock::sleep_ns(10_000);
        inside.fetch_sub(1, Ordering::SeqCst);
        drop(unit);
    }
    part.meet(outcome);
    let all = part.rounds * part.count;
    outcome.expect("units that were had", &total.load(Ordering::SeqCst), &all);
}

/// A value goes round: each waits for the name of the one before it, and binds the next.
fn pass_on(part: &mut Part, outcome: &mut Outcome) {
    let count = part.count;
    let own = format!("pass.{}", part.index);
    let before = format!("pass.{}", (part.index + count - 1) % count);
    let mut watch = match Watch::new(&before) {
        Ok(watch) => watch,
        Err(error) => return outcome.expect("a watch", &Err(error), &Ok(())),
    };
    part.meet(outcome);
    for round in 0..part.rounds {
        let first = round * count;
        if part.index == 0 {
            outcome.expect("a bind", &names::bind(&own, first), &Ok(()));
        }
        let expected = first + (part.index + count - 1) % count;
        let change = watch.wait();
        let bound = Ok(Change::Bound(before.clone(), expected));
        outcome.expect("what is passed on", &change, &bound);
        if part.index > 0 {
            let next = names::bind(&own, expected + 1);
            outcome.expect("a bind", &next, &Ok(()));
        }
    }
    part.meet(outcome);
    outcome.expect("an unbind", &names::unbind(&own), &Ok(()));
}

/// Holds a lock and a name of its own until somebody ends it.
fn hold(index: u64, outcome: &mut Outcome) {
    let name = format!("held.{index}");
    outcome.expect("a bind", &names::bind(&name, index), &Ok(()));
    let _lock = Lock::acquire("held by many");
    outcome.expect("a bind", &names::bind(&format!("{name}!"), 1), &Ok(()));
    loop {
        system_call::wait(None);
    }
}

/// Names of domains that are ended are free, and locks go to who waits for them.
pub fn owners_end(places: &[usize], outcome: &mut Outcome) {
    let cast = Cast::start(places, "hold", 1, outcome);
    let domains = cast.domains();
    for index in 0..domains.len() {
        let bound = names::await_binding(&format!("held.{index}"));
        let value = bound.map(|found| found.value);
        outcome.expect("a name of a part", &value, &Ok(index as u64));
    }
    let mut left = domains.len();
    while left > 0 {
        let Ok(holder) = names::await_binding("held by many") else {
            return outcome.expect("somebody holds the lock", &false, &true);
        };
        let holder = holder.domain;
        let Some(index) = domains.iter().position(|domain| *domain == holder) else {
            return outcome.expect("one of the parts holds the lock", &holder.0, &0);
        };
        outcome.expect("a kill", &monitor::kill(holder), &Ok(()));
        let ended = monitor::wait(holder);
        outcome.expect("the status of who was killed", &ended, &Ok(KILLED_STATUS));
        // Its names go by themselves, soon.
        let mut watch = match Watch::prefix("held.") {
            Ok(watch) => watch,
            Err(error) => return outcome.expect("a watch", &Err(error), &Ok(())),
        };
        while names::lookup(&format!("held.{index}")).is_ok() {
            let _ = watch.wait();
        }
        left -= 1;
    }
    let found = names::lookup("held by many").map(|found| found.value);
    outcome.expect("the lock in the end", &found, &Err(Error::NotBound));
}
