//! Who may send what to whom.

use crate::cells::{EMPTY, MONITORS, NOTHING_YET, Order};
use crate::{PATIENCE_NS, Result, Stage};
use abi::capability::VECTORS;
use abi::layout::PAGE;
use alloc::vec::Vec;
use rt::capability::{self, Kind, OWN_DISPATCHER, OWN_DOORBELL, Rights};
use rt::interface::{self, Error, located};
use rt::monitor::{self, Domain};
use rt::transfer::Receiving;
use rt::{clock, system_call};

/// Sends at a time.
const FLOOD: usize = 40;

pub fn check(stage: &mut Stage) -> Result {
    locally(stage)?;
    chain(stage)?;
    device(stage)?;
    refusals(stage)
}

/// The registers of a device, which only the first core's monitor hands out.
fn device(stage: &mut Stage) -> Result {
    let (home, other) = (stage.home, stage.cores[1]);
    let hpet = [located::HPET, 0, 0, 0, 0, 0];
    let [base, ..] = match monitor::ask(home, interface::LOCATE, hpet) {
        Ok(found) => found,
        // Not every machine has one.
        Err(Error::NoSuchDevice) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let kind = Kind::DeviceFrame as u64;
    let wanted = [kind, base, PAGE, stage.own.slot(1).0, 0, 0];
    let deadline = clock::now_ns() + PATIENCE_NS;
    loop {
        match monitor::ask(home, interface::DEVICE, wanted) {
            Ok(_) => break,
            // Others had it until a moment ago.
            Err(Error::InUse) if clock::now_ns() < deadline => {
                system_call::wait(Some(clock::now_ns() + 100_000));
            }
            Err(error) => return Err(error.into()),
        }
    }
    stage.give(home, 1, other, 1)?;
    stage.must("a mapping of a device", other, Order::map(1))?;
    monitor::ask(home, interface::RELEASE, [kind, base, 0, 0, 0, 0])?;
    let left = stage.on(home, Order::look(1))?;
    stage
        .outcome
        .expect("a device that was released", &left.error, &EMPTY);
    stage.soon_empty("a device that was released at home", other, 1)?;
    stage.must("no mapping", other, Order::unmap(1))?;
    Ok(())
}

/// From a domain to itself: the same as to any other of its core.
fn locally(stage: &mut Stage) -> Result {
    let home = stage.home;
    stage.must("a frame", home, Order::frame(1))?;
    stage.give(home, 1, home, 2)?;
    let (one, two) = (
        stage.must("one", home, Order::look(1))?,
        stage.must("two", home, Order::look(2))?,
    );
    stage.outcome.expect("a copy of this core", &two, &one);
    stage
        .outcome
        .expect("shared with nobody", &two.values[3], &0);
    stage.must("freeing", home, Order::free(1))?;
    stage.nowhere("after it was freed", 2)
}

/// From each core to the next, and home; then one after the other deletes it.
fn chain(stage: &mut Stage) -> Result {
    let home = stage.home;
    let cores = stage.cores.clone();
    stage.must("a frame", home, Order::frame(1))?;
    stage.must("a mapping", home, Order::map(1))?;
    stage.must("a store", home, Order::store(1, 7, 0xc0ffee))?;
    for pair in cores.windows(2) {
        stage.give(pair[0], 1, pair[1], 1)?;
    }
    let last = cores[cores.len() - 1];
    stage.must("a mapping at the end", last, Order::map(1))?;
    let seen = stage.must("a load at the end", last, Order::load(1, 7))?;
    stage
        .outcome
        .expect("the word from home", &seen.values[0], &0xc0ffee);
    stage.must("no mapping at the end", last, Order::unmap(1))?;
    // Where it lies is its holder's matter.
    stage.must("a move", last, Order::shift(1, 5))?;
    stage.must("a move back", last, Order::shift(5, 1))?;
    // It comes home, where it is deleted first of all: it lives on elsewhere, and comes home again.
    stage.give(last, 1, home, 2)?;
    stage.must("no mapping", home, Order::unmap(1))?;
    let first = stage.must("the first", home, Order::look(1))?;
    let again = stage.must("what came home", home, Order::look(2))?;
    stage.outcome.expect("what came home", &again, &first);
    stage.outcome.expect("shared", &first.values[3], &1);
    for cell in [1, 2] {
        stage.must("a delete at home", home, Order::delete(cell))?;
    }
    stage.give(last, 1, home, 1)?;
    stage.must("a mapping", home, Order::map(1))?;
    let seen = stage.must("a load", home, Order::load(1, 7))?;
    stage
        .outcome
        .expect("the word at home", &seen.values[0], &0xc0ffee);
    stage.must("no mapping", home, Order::unmap(1))?;
    for core in &cores[1..] {
        stage.must("a delete", *core, Order::delete(1))?;
    }
    stage.settled(home, 1)?;
    stage.must("freeing", home, Order::free(1))?;
    Ok(())
}

fn refusals(stage: &mut Stage) -> Result {
    let home = stage.home;
    let other = stage.cores[1];
    let all = Rights::all();
    stage.must("a frame", home, Order::frame(1))?;
    let wrong = |error: Error| MONITORS + error as u64;
    for to in [home, other] {
        let domain = stage.domain(to);
        for (what, cell, rights, error) in [
            ("nobody waits", 1, all, Error::NotWaiting),
            ("an empty slot", 2, all, Error::BadSlot),
        ] {
            let sent = stage.on(home, Order::try_send(cell, domain, rights))?;
            stage.outcome.expect(what, &sent.error, &wrong(error));
        }
        // What may not travel.
        let badged = Order::mint(1, 2, all, 5);
        stage.must("a badge", home, badged)?;
        let no_grant = Order::mint(1, 3, all - Rights::GRANT, 0);
        stage.must("no right to grant", home, no_grant)?;
        let read = Order::mint(1, 4, Rights::READ | Rights::GRANT, 0);
        stage.must("a right to read", home, read)?;
        let mut copied = capability::copy(OWN_DISPATCHER, stage.own.slot(5));
        copied = copied.and_then(|()| capability::copy(OWN_DOORBELL, stage.own.slot(6)));
        stage.outcome.expect("copies of its own", &copied, &Ok(()));
        stage.must("waiting", to, Order::listen(8))?;
        for (what, cell, rights, error) in [
            ("a badge", 2, all, Error::StaysHere),
            ("no right to grant", 3, Rights::READ, Error::NoRight),
            ("more rights", 4, all, Error::NoRight),
            ("a dispatcher", 5, Rights::READ, Error::StaysHere),
            ("a doorbell to revoke", 6, Rights::REVOKE, Error::NoRight),
        ] {
            let sent = stage.on(home, Order::try_send(cell, domain, rights))?;
            stage.outcome.expect(what, &sent.error, &wrong(error));
        }
        let came = stage.on(to, Order::poll(8))?;
        stage
            .outcome
            .expect("nothing came", &came.error, &NOTHING_YET);
        // Fewer rights arrive as they were sent.
        stage.must(
            "a right to read",
            home,
            Order::try_send(4, domain, Rights::READ),
        )?;
        let came = stage.must("it came", to, Order::taken(8))?;
        let read = u64::from(Rights::READ.bits());
        stage.outcome.expect("its rights", &came.values[2], &read);
        let found = stage.must("it", to, Order::look(8))?;
        stage
            .outcome
            .expect("the same", &(found.values[0] >> 8), &read);
        stage.must("a slot in use", to, Order::delete(8))?;
        for cell in 2..7 {
            stage.must("a delete", home, Order::delete(cell))?;
        }
        stage.settled(home, 1)?;
    }
    nobody(stage)?;
    twice(stage)?;
    parts(stage)?;
    flood(stage)?;
    stage.must("freeing", home, Order::free(1))?;
    Ok(())
}

/// More sends at a time than a domain may have.
fn flood(stage: &mut Stage) -> Result {
    let home = stage.home;
    let (slot, to) = (stage.own.slot(1).0, stage.domain(stage.cores[1]).0);
    let words = [slot, to, u64::from(Rights::READ.bits()), 0, 0, 0];
    let asked = (0..FLOOD).map(|_| monitor::request(home, interface::regions::SEND, words));
    for token in asked.collect::<Vec<_>>() {
        let sent = monitor::answer(token?);
        if sent != Err(Error::Busy) {
            stage
                .outcome
                .refused("one of many", sent, Error::NotWaiting);
        }
    }
    stage.settled(home, 1)
}

/// Domains and cores that are not there.
fn nobody(stage: &mut Stage) -> Result {
    let home = stage.home;
    let nobody = stage
        .cores
        .iter()
        .map(|core| (*core as u64) << 32 | 0x7fff_ff01);
    let nobody: Vec<Domain> = nobody.map(Domain).collect();
    for domain in nobody {
        let sent = stage.on(home, Order::send(1, domain))?;
        let expected = MONITORS + Error::NoSuchDomain as u64;
        stage
            .outcome
            .expect("a domain that is not there", &sent.error, &expected);
    }
    for core in [255, VECTORS << 8, u64::from(u32::MAX)] {
        let sent = stage.on(home, Order::send(1, Domain(core << 32 | 1)))?;
        let expected = MONITORS + Error::NoSuchCore as u64;
        stage
            .outcome
            .expect("a core that is not there", &sent.error, &expected);
    }
    stage.settled(home, 1)
}

/// Waiting twice, in a slot that is in use, and no longer.
fn twice(stage: &mut Stage) -> Result {
    let (home, other) = (stage.home, stage.cores[1]);
    stage.must("waiting", home, Order::listen(8))?;
    let second = Receiving::begin(stage.own.slot(9)).and_then(Receiving::wait);
    stage
        .outcome
        .refused("waiting twice", second, Error::WaitsAlready);
    let given_up = stage.must("waiting no longer", home, Order::withdraw(8))?;
    stage.outcome.expect("what came", &given_up.values[0], &0);
    let nobody = stage.on(home, Order::withdraw(8))?;
    stage
        .outcome
        .expect("nobody waits", &nobody.error, &NOTHING_YET);
    let used = Receiving::begin(stage.own.slot(1)).and_then(Receiving::wait);
    stage.outcome.refused("a slot in use", used, Error::BadSlot);

    // A slot that was empty, and is not when something comes.
    let domain = stage.domain(home);
    stage.give(home, 1, other, 1)?;
    stage.must("waiting", home, Order::listen(8))?;
    stage.must("a copy", home, Order::mint(1, 8, Rights::READ, 0))?;
    let sent = stage.on(other, Order::try_send(1, domain, Rights::READ))?;
    let expected = MONITORS + Error::NotWaiting as u64;
    stage
        .outcome
        .expect("to a slot in use", &sent.error, &expected);
    let came = stage.on(home, Order::taken(8))?;
    stage.outcome.expect(
        "into a slot in use",
        &came.error,
        &(MONITORS + Error::BadSlot as u64),
    );
    stage.must("a delete", home, Order::delete(8))?;
    stage.must("a delete", other, Order::delete(1))?;
    let left = stage.on(other, Order::look(1))?;
    stage.outcome.expect("deleted", &left.error, &EMPTY);
    stage.settled(home, 1)
}

/// What something was made of.
fn parts(stage: &mut Stage) -> Result {
    let (home, other) = (stage.home, stage.cores[1]);
    let domain = stage.domain(other);
    stage.must("RAM", home, Order::ram(2, 4 * PAGE))?;
    stage.must("a part", home, Order::retype(2, 3, Kind::Frame, PAGE, PAGE))?;
    let sent = stage.on(home, Order::try_send(2, domain, Rights::READ))?;
    stage
        .outcome
        .expect("in parts", &sent.error, &(MONITORS + Error::InParts as u64));
    stage.must("freeing", home, Order::free_ram(2))?;
    stage.nowhere("after its RAM was freed", 3)
}
