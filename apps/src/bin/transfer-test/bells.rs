//! Doorbells: of others, and one's own.

use crate::cells::{EMPTY, Order};
use crate::{PATIENCE_NS, Result, Stage, end, ends_with};
use abi::limits::MAX_DISPATCHERS;
use rt::capability::{self, Kind, OWN_DOORBELL, Rights};
use rt::monitor;
use rt::{clock, system_call};

/// Argument of a child that ends well when it is rung.
pub const SLEEP: &str = "sleep";
/// What it ends with if nobody rings.
const NOBODY_RANG: i32 = 3;
/// The error for what the CPU driver would have made of this range a second time.
const OVERLAP: u64 = system_call::Error::Overlap as u64;

pub fn sleep() -> i32 {
    match system_call::wait(Some(clock::now_ns() + PATIENCE_NS)) {
        true => 0,
        false => NOBODY_RANG,
    }
}

pub fn check(stage: &mut Stage) -> Result {
    for far in stage.cores.clone() {
        of_another(stage, far)?;
    }
    own(stage)?;
    numbers(stage)
}

/// Each core gets the doorbell of a domain of the first, rings it, and has it no more when the domain
/// has ended.
fn of_another(stage: &mut Stage, far: usize) -> Result {
    let home = stage.home;
    let child = monitor::spawn(home, &["transfer-test", SLEEP], None)?;
    stage.must("a doorbell", far, Order::doorbell(1, child))?;
    let found = stage.must("what came", far, Order::look(1))?;
    let kind = Kind::Doorbell as u64 | u64::from(Rights::WRITE.bits()) << 8;
    let expected = [kind, u64::from(far != home)];
    let found = [found.values[0], found.values[3]];
    stage
        .outcome
        .expect("a doorbell to ring, and shared", &found, &expected);
    stage.must("a ring", far, Order::ring(1))?;
    ends_with(&mut stage.outcome, "a child that was rung", child, 0)?;
    stage.soon_empty("the doorbell of who has ended", far, 1)?;
    let rung = stage.on(far, Order::ring(1))?;
    stage
        .outcome
        .expect("a ring for nobody", &rung.error, &EMPTY);
    Ok(())
}

/// This domain's own, by way of all cores; and one made of it, which is revoked.
fn own(stage: &mut Stage) -> Result {
    let cores = stage.cores.clone();
    let copied = capability::copy(OWN_DOORBELL, stage.own.slot(1));
    stage.outcome.expect("a copy of its own", &copied, &Ok(()));
    for pair in cores.windows(2) {
        stage.give(pair[0], 1, pair[1], 1)?;
    }
    let last = cores[cores.len() - 1];
    stage.must(
        "one made of it",
        last,
        Order::retype(1, 2, Kind::Doorbell, 0, 1),
    )?;
    for core in &cores {
        let again = stage.on(*core, Order::retype(1, 3, Kind::Doorbell, 0, 1))?;
        stage
            .outcome
            .expect("one made of it twice", &again.error, &OVERLAP);
        if *core != last {
            stage.give(last, 2, *core, 2)?;
        }
        stage.must("a ring", *core, Order::ring(2))?;
    }
    stage.must("a revoke", last, Order::revoke(2))?;
    for core in &cores {
        let rung = stage.on(*core, Order::ring(2))?;
        let expected = if *core == last { 0 } else { EMPTY };
        stage
            .outcome
            .expect("a ring after a revoke", &rung.error, &expected);
        stage.must("a ring by the whole", *core, Order::ring(1))?;
    }
    stage.must("a delete", last, Order::delete(2))?;
    for core in cores {
        stage.must("a delete", core, Order::delete(1))?;
    }
    Ok(())
}

/// The vector of a domain that has ended is used again when nobody can ring it any more, and not never.
fn numbers(stage: &mut Stage) -> Result {
    let (home, other) = (stage.home, stage.cores[1]);
    for _ in 0..MAX_DISPATCHERS {
        let child = monitor::spawn(other, &["transfer-test", SLEEP], None)?;
        stage.must("a doorbell", home, Order::doorbell(1, child))?;
        end(&mut stage.outcome, child)?;
        stage.soon_empty("the doorbell of who was killed", home, 1)?;
    }
    Ok(())
}
