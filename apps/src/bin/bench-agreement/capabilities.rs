//! Capabilities to what several cores hold.

use crate::members::{Order, TO_FRAME, have};
use crate::{counted, sizes};
use abi::layout::PAGE;
use alloc::vec::Vec;
use apps::laboratory::{Failure, Laboratory, at, timed, told};
use apps::team::Team;
use rt::capability::{self, Address, Kind, slots};
use rt::clock::Cycles;
use rt::{memory, transfer};

/// Of each 1,000 samples of something fast, one in so many.
const SLOWER_BY: usize = 20;
/// Objects for warming up.
const WARM_UP: usize = 2;

/// What is done with objects.
struct Operation {
    /// By this core, which they belong to.
    name: &'static str,
    /// By another, which got a capability.
    remote: &'static str,
    order: Order,
    kind: Kind,
}

const OPERATIONS: [Operation; 3] = [
    Operation {
        name: "revoke a frame",
        remote: "revoke a frame of another core",
        order: Order::Revoke,
        kind: Kind::Frame,
    },
    Operation {
        name: "retype RAM",
        remote: "retype RAM of another core",
        order: Order::Retype,
        kind: Kind::Ram,
    },
    Operation {
        name: "delete a frame",
        remote: "delete a frame of another core",
        order: Order::Delete,
        kind: Kind::Frame,
    },
];

/// Measures all of them with none and more holders on other cores.
pub fn measure(laboratory: &mut Laboratory, team: &mut Team) -> Result<(), Failure> {
    for operation in &OPERATIONS {
        for holders in sizes(1).into_iter().map(|members| members - 1) {
            here(laboratory, team, operation, holders)?;
        }
        there(laboratory, team, operation)?;
    }
    Ok(())
}

/// By this core.
fn here(
    laboratory: &mut Laboratory,
    team: &mut Team,
    operation: &Operation,
    holders: usize,
) -> Result<(), Failure> {
    let with = [("holders", holders as u64)];
    let count = WARM_UP + laboratory.samples(SLOWER_BY);
    let objects = shared(team, operation.kind, count, holders)?;
    let frames = empty_slots(count)?;
    let mut times = Vec::with_capacity(count);
    for (object, frame) in objects.iter().zip(&frames) {
        times.push(once(operation.order, *object, *frame)?);
    }
    times.drain(..WARM_UP);
    laboratory.times(operation.name, &with, times);
    forget(team, objects, frames)?;
    let count = counted::REPEAT as usize;
    let objects = shared(team, operation.kind, count, holders)?;
    let frames = empty_slots(count)?;
    counted::count(laboratory, operation.name, &with, |number| {
        let at = number as usize;
        once(operation.order, objects[at], frames[at]).map(|_| ())
    })?;
    forget(team, objects, frames)
}

/// By the first of the others; nobody else but this core has anything.
fn there(
    laboratory: &mut Laboratory,
    team: &mut Team,
    operation: &Operation,
) -> Result<(), Failure> {
    let count = WARM_UP + laboratory.samples(SLOWER_BY);
    let objects = shared(team, operation.kind, count, 1)?;
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        have(team, 0..1, operation.order, number as u64)?;
        times.push(Cycles(team.result(0)));
    }
    times.drain(..WARM_UP);
    laboratory.times(operation.remote, &[("holders", 1)], times);
    forget(team, objects, Vec::new())
}

fn empty_slots(count: usize) -> Result<Vec<Address>, Failure> {
    (0..count).map(|_| at("a slot", slots::take())).collect()
}

/// `frame`: the empty slot for what is made of RAM.
fn once(order: Order, object: Address, frame: Address) -> Result<Cycles, Failure> {
    let (time, done) = match order {
        Order::Revoke => timed(|| capability::revoke(object)),
        Order::Retype => timed(|| capability::retype(object, &TO_FRAME, frame)),
        _ => timed(|| capability::delete(object)),
    };
    at("work on a capability", done)?;
    Ok(time)
}

/// Makes objects, and gives so many members a capability to each.
fn shared(
    team: &mut Team,
    kind: Kind,
    count: usize,
    holders: usize,
) -> Result<Vec<Address>, Failure> {
    let mut objects = Vec::with_capacity(count);
    for _ in 0..count {
        objects.push(told("an object", memory::object(kind, PAGE))?);
    }
    let domains: Vec<_> = team.domains().take(holders).collect();
    team.tell(0..holders, Order::Receive as u64, count as u64, 0);
    for object in &objects {
        for domain in &domains {
            told("send", transfer::send(*object, *domain))?;
        }
    }
    match team.wait() {
        0 => Ok(objects),
        _ => told("receive", Err("a member did not")),
    }
}

/// Gives back what is left of them, and with it the frames that were made of them. Whose last
/// capability here is gone stays taken: its range is known by that alone.
fn forget(team: &mut Team, objects: Vec<Address>, frames: Vec<Address>) -> Result<(), Failure> {
    for object in objects {
        match capability::identify(object) {
            Ok(_) => told("free", memory::free(object))?,
            Err(_) => slots::give(object),
        }
    }
    frames.into_iter().for_each(slots::give);
    have(team, 0..usize::MAX, Order::Forget, 0)
}
