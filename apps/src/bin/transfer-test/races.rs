//! Revokes against whatever else may happen at the same time. Who wins is open; what is left is not.

use crate::cells::{MONITORS, NOTHING_YET, Order};
use crate::{ROUNDS, Result, Stage, end, ends_with};
use abi::layout::PAGE;
use rt::capability::{Kind, slots};
use rt::interface::Error;
use rt::monitor::Domain;
use rt::{memory, monitor, system_call, transfer};

/// The word by which a copy knows that it is to wait for a capability, and then for its end.
pub const WAIT: &str = "wait";

/// The word by which a copy knows that it is to send a frame of its own to its parent, and end.
pub const LEND: &str = "lend";

/// Exit status of a child that has sent something.
const LENT: i32 = 5;

/// What a child does.
pub fn wait() -> i32 {
    loop {
        let Ok(slot) = slots::take() else { return 1 };
        if transfer::receive(slot).is_err() {
            return 2;
        }
    }
}

/// What a child does.
pub fn lend() -> i32 {
    let Ok(frame) = memory::frame(PAGE) else {
        return 1;
    };
    match transfer::send(frame, Domain(rt::startup().parent)) {
        Ok(()) => LENT,
        Err(_) => 2,
    }
}

pub fn check(stage: &mut Stage) -> Result {
    for round in 0..ROUNDS {
        revoke_and_send(stage, round)?;
        revokes(stage, round)?;
        delete_and_send(stage)?;
        free_and_use(stage, round)?;
        ends(stage, round)?;
    }
    lenders(stage)
}

/// A child on each core sends a frame of its own and ends: the frame ends with it, a little later.
fn lenders(stage: &mut Stage) -> Result {
    let home = stage.home;
    for core in stage.cores.clone() {
        stage.must("waiting", home, Order::listen(1))?;
        let child = monitor::spawn(core, &["transfer-test", LEND], None)?;
        let came = stage.must("a child's frame", home, Order::taken(1))?;
        stage
            .outcome
            .expect("who sent it", &came.values[0], &child.0);
        // So that others have it, too.
        if stage.on(home, Order::look(1))?.error == 0 {
            for other in stage.cores.clone() {
                let domain = stage.domain(other);
                stage.must("waiting", other, Order::listen(2))?;
                stage.on(
                    home,
                    Order::try_send(1, domain, rt::capability::Rights::READ),
                )?;
                if stage.on(other, Order::poll(2))?.error == NOTHING_YET {
                    stage.on(other, Order::withdraw(2))?;
                }
            }
        }
        ends_with(&mut stage.outcome, "who sent its frame", child, LENT)?;
        for cell in [1, 2] {
            for core in stage.cores.clone() {
                stage.soon_empty("what a child had lent", core, cell)?;
            }
        }
    }
    Ok(())
}

/// Another core sends on what home revokes.
fn revoke_and_send(stage: &mut Stage, round: u64) -> Result {
    let (home, other) = (stage.home, stage.cores[1]);
    let last = stage.cores[stage.cores.len() - 1];
    stage.must("a frame", home, Order::frame(1))?;
    stage.give(home, 1, other, 1)?;
    // With two cores, it is sent back home.
    let to = if last == other { home } else { last };
    let domain = stage.domain(to);
    stage.must("waiting", to, Order::listen(2))?;
    stage.begin(
        other,
        Order::try_send(1, domain, rt::capability::Rights::READ),
    )?;
    for _ in 0..round {
        system_call::null();
    }
    stage.must("the revoke", home, Order::revoke(1))?;
    let sent = stage.end(other)?.error;
    let lost = [Error::Revoked, Error::Busy, Error::BadSlot].map(|error| MONITORS + error as u64);
    if sent != 0 && !lost.contains(&sent) {
        stage.outcome.expect("the send", &sent, &0);
    }
    let came = stage.on(to, Order::poll(2))?;
    if came.error == NOTHING_YET {
        stage.must("waiting no longer", to, Order::withdraw(2))?;
    } else {
        stage.outcome.expect("what came", &came.error, &0);
    }
    stage.nowhere("sent and revoked", 2)?;
    let left = stage.on(other, Order::look(1))?;
    stage
        .outcome
        .expect("revoked", &left.error, &crate::cells::EMPTY);
    stage.settled(home, 1)?;
    stage.must("freeing", home, Order::free(1))?;
    Ok(())
}

/// All cores revoke at once: one copy is left, or none.
fn revokes(stage: &mut Stage, round: u64) -> Result {
    let (home, others) = (stage.home, stage.cores[1..].to_vec());
    stage.must("a frame", home, Order::frame(1))?;
    for core in &others {
        stage.give(home, 1, *core, 1)?;
    }
    for core in &others {
        stage.begin(*core, Order::revoke(1))?;
    }
    let own = round.is_multiple_of(2);
    if own {
        stage.on(home, Order::revoke(1))?;
    }
    for core in &others {
        stage.end(*core)?;
    }
    let mut left = 0;
    for core in stage.cores.clone() {
        left += u64::from(stage.on(core, Order::look(1))?.error == 0);
    }
    stage
        .outcome
        .expect("copies left of all that revoked", &left, &1);
    for core in stage.cores.clone() {
        if stage.on(core, Order::look(1))?.error == 0 {
            stage.must("the last delete", core, Order::delete(1))?;
        }
    }
    Ok(())
}

/// Home deletes its copy while another core sends it on.
fn delete_and_send(stage: &mut Stage) -> Result {
    let (home, other) = (stage.home, stage.cores[1]);
    let last = stage.cores[stage.cores.len() - 1];
    stage.must("a frame", home, Order::frame(1))?;
    stage.give(home, 1, other, 1)?;
    let to = if last == other { home } else { last };
    let domain = stage.domain(to);
    stage.must("waiting", to, Order::listen(2))?;
    stage.begin(other, Order::send(1, domain))?;
    stage.must("a delete", home, Order::delete(1))?;
    let sent = stage.end(other)?;
    stage.outcome.expect("the send", &sent.error, &0);
    stage.must("it came", to, Order::taken(2))?;
    stage.must("a delete there", other, Order::delete(1))?;
    stage.must("a mapping", to, Order::map(2))?;
    stage.must("a store", to, Order::store(2, 0, 1))?;
    stage.must("no mapping", to, Order::unmap(2))?;
    stage.must("a revoke of the last", to, Order::revoke(2))?;
    stage.must("the last delete", to, Order::delete(2))?;
    Ok(())
}

/// Home gives RAM back while others make frames of it, and send it and its frames on.
fn free_and_use(stage: &mut Stage, round: u64) -> Result {
    let (home, others) = (stage.home, stage.cores[1..].to_vec());
    stage.must("RAM", home, Order::ram(1, 8 * PAGE))?;
    for core in &others {
        stage.give(home, 1, *core, 1)?;
    }
    let own = stage.domain(home);
    stage.must("waiting", home, Order::listen(3))?;
    for (at, core) in others.iter().enumerate() {
        let page = at as u64 % 8 * PAGE;
        let all = rt::capability::Rights::READ;
        let order = match (at as u64 + round) % 2 {
            0 => Order::retype(1, 2, Kind::Frame, page, PAGE),
            _ => Order::try_send(1, own, all),
        };
        stage.begin(*core, order)?;
    }
    for _ in 0..round {
        system_call::yield_now();
    }
    stage.must("freeing", home, Order::free_ram(1))?;
    for core in &others {
        stage.end(*core)?;
    }
    if stage.on(home, Order::poll(3))?.error == NOTHING_YET {
        stage.must("waiting no longer", home, Order::withdraw(3))?;
    }
    for cell in 1..=3 {
        stage.nowhere("freed", cell)?;
    }
    Ok(())
}

/// Receivers end.
fn ends(stage: &mut Stage, round: u64) -> Result {
    let home = stage.home;
    for cell in 1..=3 {
        stage.must("a frame", home, Order::frame(cell))?;
    }
    for core in stage.cores.clone() {
        let child = monitor::spawn(core, &["transfer-test", WAIT], None)?;
        // All that it has goes with its slots.
        for cell in 1..=round % 4 {
            stage.must("a send to who ends", home, Order::send(cell, child))?;
        }
        end(&mut stage.outcome, child)?;
        let sent = stage.on(home, Order::send(1, child))?;
        let expected = MONITORS + Error::NoSuchDomain as u64;
        stage
            .outcome
            .expect("a send to who has ended", &sent.error, &expected);
    }
    for cell in 1..=3 {
        stage.settled(home, cell)?;
        stage.must("freeing", home, Order::free(cell))?;
    }
    Ok(())
}
