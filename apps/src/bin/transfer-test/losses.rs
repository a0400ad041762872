//! A core stops while others have what it had, and it what others had.

use crate::cells::{EMPTY, MONITORS, Order};
use crate::{Failure, Result, Stage};
use abi::layout::PAGE;
use alloc::vec::Vec;
use apps::mappings;
use rt::capability::Kind;
use rt::interface::{self, Error};
use rt::monitor;

/// The word by which the program knows that it is to lose a core.
pub const LOSE: &str = "lose";

pub fn check(stage: &mut Stage) -> Result {
    let (home, other) = (stage.home, stage.cores[1]);
    let lost = stage.cores[stage.cores.len() - 1];
    let survivors: Vec<usize> = stage.cores[..stage.cores.len() - 1].to_vec();
    // Home's frame is everywhere; another one was made by the core that is lost; of home's RAM it
    // has made a frame, which it gave to another core, and one that it kept.
    stage.must("a frame", home, Order::frame(1))?;
    stage.must("a frame of who is lost", lost, Order::frame(2))?;
    stage.must("RAM", home, Order::ram(3, 8 * PAGE))?;
    for core in stage.cores.clone().into_iter().skip(1) {
        stage.give(home, 1, core, 1)?;
        stage.give(home, 3, core, 3)?;
    }
    for core in &survivors {
        stage.give(lost, 2, *core, 2)?;
    }
    stage.must("a mapping", home, Order::map(2))?;
    stage.must("a store", home, Order::store(2, 5, 55))?;
    for (cell, page) in [(4, 0), (5, 1)] {
        let frame = Order::retype(3, cell, Kind::Frame, page * PAGE, PAGE);
        stage.must("a frame of home's RAM", lost, frame)?;
    }
    stage.give(lost, 4, other, 4)?;
    let last_words = stage.domain(lost);

    // It stops while another core revokes home's frame, and one more sends to it.
    let own = mappings::of_core(home)?;
    let target = own
        .iter()
        .filter(|range| range.is_writable() && !range.is_device());
    let target = target.max_by_key(|range| range.bytes);
    let target = target.map_or(0, |range| range.physical + range.bytes / 2);
    let words = [target, 0, 0, 0, 0, 0];
    let hook = monitor::request(lost, interface::WILD_WRITE, words)?;
    stage.begin(other, Order::revoke(1))?;
    let sent = stage.on(home, Order::send(3, last_words))?;
    let expected = MONITORS + Error::NoSuchCore as u64;
    stage
        .outcome
        .expect("a send to who is lost", &sent.error, &expected);
    if monitor::answer(hook) != Err(Error::CoreLost) {
        return Err(Failure::NotLost(lost));
    }
    let revoked = stage.end(other)?;
    stage
        .outcome
        .expect("a revoke while a core is lost", &revoked.error, &0);
    stage.crew.forget(lost);
    stage.cores = survivors.clone();
    for core in survivors.iter().filter(|core| **core != other) {
        let left = stage.on(*core, Order::look(1))?;
        stage.outcome.expect("revoked", &left.error, &EMPTY);
    }
    stage.must("the revoker's own", other, Order::delete(1))?;

    // What it made is there, and its own memory is as well, for who had it.
    stage.must("a mapping", other, Order::map(2))?;
    let seen = stage.must("a load", other, Order::load(2, 5))?;
    stage
        .outcome
        .expect("a word in a lost core's memory", &seen.values[0], &55);
    stage.must("no mapping", other, Order::unmap(2))?;
    stage.must("a revoke of a lost core's frame", other, Order::revoke(2))?;
    for core in survivors.iter().filter(|core| **core != other) {
        let left = stage.on(*core, Order::look(2))?;
        stage
            .outcome
            .expect("a lost core's frame", &left.error, &EMPTY);
    }
    stage.must("no mapping", home, Order::unmap(2))?;
    stage.must("its last delete", other, Order::delete(2))?;

    // What only it had is free again; what it had given away is not.
    let frame = |cell, page| Order::retype(3, cell, Kind::Frame, page * PAGE, PAGE);
    stage.soon("a range that only the lost core used", home, frame(5, 1))?;
    let made = stage.on(home, frame(6, 0))?;
    let overlap = rt::system_call::Error::Overlap as u64;
    stage
        .outcome
        .expect("a range that is used still", &made.error, &overlap);
    stage.must("the last of it", other, Order::delete(4))?;
    stage.soon("a range that is used no more", home, frame(6, 0))?;
    stage.must("freeing", home, Order::free_ram(3))?;
    for cell in 3..7 {
        stage.nowhere("after it was freed", cell)?;
    }
    Ok(())
}
