//! What is made of shared RAM, on several cores.

use crate::cells::Order;
use crate::{ROUNDS, Result, Stage};
use abi::layout::PAGE;
use rt::capability::{Kind, Rights};
use rt::system_call::Error;

pub fn check(stage: &mut Stage) -> Result {
    let (home, other) = (stage.home, stage.cores[1]);
    let last = stage.cores[stage.cores.len() - 1];
    stage.must("RAM", home, Order::ram(1, 8 * PAGE))?;
    stage.give(home, 1, other, 1)?;
    let found = stage.must("RAM of another core", other, Order::look(1))?;
    stage
        .outcome
        .expect("its bytes", &found.values[2], &(8 * PAGE));

    // A range becomes something once, wherever.
    let frame = |into, page, pages| Order::retype(1, into, Kind::Frame, page * PAGE, pages * PAGE);
    stage.must("a frame there", other, frame(2, 0, 2))?;
    for (what, core) in [("the same at home", home), ("the same again", other)] {
        let made = stage.on(core, frame(3, 1, 2))?;
        stage
            .outcome
            .expect(what, &made.error, &(Error::Overlap as u64));
    }
    stage.must("another at home", home, frame(2, 2, 1))?;
    let table = Order::retype(1, 3, Kind::PageTable1, 4 * PAGE, PAGE);
    let made = stage.on(other, table)?;
    stage.outcome.expect(
        "a page table out of reach",
        &made.error,
        &(Error::Unreachable as u64),
    );
    for (what, order, error) in [
        ("beyond its end", frame(3, 7, 2), Error::OutOfRange),
        (
            "half a page",
            Order::retype(1, 3, Kind::Frame, 5 * PAGE, 100),
            Error::WrongSize,
        ),
        (
            "into a slot in use",
            Order::retype(1, 2, Kind::Frame, 5 * PAGE, PAGE),
            Error::OccupiedSlot,
        ),
    ] {
        let made = stage.on(other, order)?;
        stage.outcome.expect(what, &made.error, &(error as u64));
    }
    // What could not be made left its range free.
    stage.must("that page table at home", home, table)?;
    stage.must("no page table", home, Order::delete(3))?;

    // What is made there can be used, made more of, and sent on.
    stage.must("a mapping", other, Order::map(2))?;
    stage.must("a store", other, Order::store(2, 3, 33))?;
    stage.must("no mapping", other, Order::unmap(2))?;
    let part = Order::retype(2, 3, Kind::Frame, PAGE, PAGE);
    stage.must("a part of it", other, part)?;
    stage.give(other, 3, last, 4)?;
    stage.give(other, 3, home, 4)?;
    stage.must("a mapping of the part", home, Order::map(4))?;
    stage.must("a store to the part", home, Order::store(4, 0, 44))?;
    stage.must("no mapping of it", home, Order::unmap(4))?;
    stage.must("a mapping of the part", last, Order::map(4))?;
    let seen = stage.must("a load from the part", last, Order::load(4, 0))?;
    stage
        .outcome
        .expect("the word from home", &seen.values[0], &44);
    stage.must("no mapping of it", last, Order::unmap(4))?;

    // The range is free again when the last of it is gone, on all cores.
    for (core, cell) in [(other, 2), (other, 3), (home, 4)] {
        let made = stage.on(home, frame(5, 0, 2))?;
        stage.outcome.expect(
            "as long as something is left",
            &made.error,
            &(Error::Overlap as u64),
        );
        stage.must("a delete", core, Order::delete(cell))?;
    }
    stage.must("the last delete", last, Order::delete(4))?;
    stage.soon("when nothing is left", home, frame(5, 0, 2))?;
    stage.must("no frame", home, Order::delete(5))?;

    // The last copy elsewhere is deleted: it is as any other.
    stage.must("the last copy", other, Order::delete(1))?;
    stage.settled(home, 1)?;
    stage.must("freeing", home, Order::free_ram(1))?;
    stage.nowhere("after it was freed", 2)?;
    same_range(stage)?;
    at_once(stage)?;
    given_back(stage)
}

/// An object of the whole range of what it was made of.
fn same_range(stage: &mut Stage) -> Result {
    let (home, other) = (stage.home, stage.cores[1]);
    let last = stage.cores[stage.cores.len() - 1];
    stage.must("RAM", home, Order::ram(1, PAGE))?;
    stage.give(home, 1, other, 1)?;
    stage.must(
        "all of it",
        other,
        Order::retype(1, 2, Kind::Frame, 0, PAGE),
    )?;
    stage.give(other, 2, last, 3)?;
    stage.must("its revoke", other, Order::revoke(2))?;
    if last != other {
        stage.nowhere("after the revoke of the frame", 3)?;
    }
    let left = stage.must("its RAM", home, Order::look(1))?;
    stage
        .outcome
        .expect("its RAM is shared still", &left.values[3], &1);
    stage.must("its RAM there", other, Order::look(1))?;
    if last == other {
        let left = stage.on(last, Order::look(3))?;
        stage
            .outcome
            .expect("a copy of the frame", &left.error, &crate::cells::EMPTY);
    }
    stage.give(other, 2, last, 3)?;
    stage.must("freeing", home, Order::free_ram(1))?;
    for cell in 1..4 {
        stage.nowhere("after it was freed", cell)?;
    }
    Ok(())
}

/// Two cores at once.
fn at_once(stage: &mut Stage) -> Result {
    let (home, other) = (stage.home, stage.cores[1]);
    let last = stage.cores[stage.cores.len() - 1];
    let pair = if last == other {
        [home, other]
    } else {
        [other, last]
    };
    stage.must("RAM", home, Order::ram(1, 8 * PAGE))?;
    for core in stage.cores.clone().into_iter().skip(1) {
        stage.give(home, 1, core, 1)?;
    }
    let frame = |page| Order::retype(1, 2, Kind::Frame, page * PAGE, 2 * PAGE);
    for round in 0..ROUNDS {
        for (pages, winners) in [([0, 1], 1), ([0, 2], 2)] {
            let pages = if round.is_multiple_of(2) {
                pages
            } else {
                [pages[1], pages[0]]
            };
            // The other one first, so that this core does not wait for it.
            let made = if pair[0] == home {
                stage.begin(pair[1], frame(pages[1]))?;
                let own = stage.on(home, frame(pages[0]))?;
                [own, stage.end(pair[1])?]
            } else {
                stage.begin(pair[0], frame(pages[0]))?;
                stage.begin(pair[1], frame(pages[1]))?;
                [stage.end(pair[0])?, stage.end(pair[1])?]
            };
            let won = made.iter().filter(|one| one.error == 0).count();
            stage.outcome.expect("who made something", &won, &winners);
            for (core, one) in pair.iter().zip(made) {
                if one.error == 0 {
                    stage.must("a delete", *core, Order::delete(2))?;
                } else {
                    let overlap = Error::Overlap as u64;
                    stage.outcome.expect("who did not", &one.error, &overlap);
                }
            }
        }
    }
    stage.must("freeing", home, Order::free_ram(1))?;
    stage.nowhere("after it was freed", 1)
}

/// RAM is given back while others hold it, what was made of it, and what was made of that.
fn given_back(stage: &mut Stage) -> Result {
    let home = stage.home;
    let cores = stage.cores.clone();
    stage.must("RAM", home, Order::ram(1, 16 * PAGE))?;
    let base = stage.must("RAM", home, Order::look(1))?.values[1];
    for (at, core) in cores[1..].iter().enumerate() {
        stage.give(home, 1, *core, 1)?;
        let page = at as u64 % 16 * PAGE;
        let frame = Order::retype(1, 2, Kind::Frame, page, PAGE);
        stage.must("a frame", *core, frame)?;
        let next = cores[1..][(at + 1) % (cores.len() - 1)];
        stage.give(*core, 2, next, 3)?;
        stage.must("a mapping", *core, Order::map(2))?;
    }
    let lasting = stage.on(cores[1], Order::revoke(1))?;
    stage.outcome.expect(
        "not theirs to revoke",
        &lasting.error,
        &(Error::NotRevocable as u64),
    );
    stage.must("freeing", home, Order::free_ram(1))?;
    for cell in 1..4 {
        stage.nowhere("after it was freed", cell)?;
    }
    for core in &cores[1..] {
        stage.must("no mapping", *core, Order::unmap(2))?;
    }
    // The same memory, zeroed, for the next one.
    stage.must("RAM", home, Order::ram(1, 16 * PAGE))?;
    let again = stage.must("RAM", home, Order::look(1))?.values[1];
    stage
        .outcome
        .expect("the memory that came back", &again, &base);
    stage.must("freeing", home, Order::free_ram(1))?;
    stage.must("nothing", home, Order::frame(1))?;
    stage.must("a copy", home, Order::mint(1, 2, Rights::READ, 0))?;
    stage.must("freeing", home, Order::free(1))?;
    Ok(())
}
