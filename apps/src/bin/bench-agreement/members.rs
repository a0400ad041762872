//! What members of the span do when they are told to.

use abi::layout::PAGE;
use alloc::vec::Vec;
use apps::laboratory::{Failure, timed, told};
use apps::team::{self, Team};
use core::ops::Range;
use rt::capability::{self, Address, Kind, Retype, slots};
use rt::span::Area;
use rt::{names, transfer};

/// The name that is bound.
pub const NAME: &str = "bench-agreement";

/// What a member is told to do. Where something is timed, the time in cycles is what comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Order {
    /// Write to a page: its address.
    Touch = 1,
    /// Take so many capabilities, which are numbered from 0.
    Receive,
    /// Give back the slots of all that came, and what is still in them.
    Forget,
    /// Time a revoke by a capability that came: its number.
    Revoke,
    /// Time a retype of RAM that came into a frame: its number.
    Retype,
    /// Time a delete of a capability that came: its number.
    Delete,
    /// Time a bind of [`NAME`] to a number.
    Bind,
    /// Time its look-up.
    Lookup,
    /// Time its unbind.
    Unbind,
}

const ORDERS: [Order; 9] = [
    Order::Touch,
    Order::Receive,
    Order::Forget,
    Order::Revoke,
    Order::Retype,
    Order::Delete,
    Order::Bind,
    Order::Lookup,
    Order::Unbind,
];

/// A frame of a page, at the start of RAM.
pub const TO_FRAME: Retype = Retype {
    kind: Kind::Frame,
    offset: 0,
    bytes: PAGE,
    count: 1,
};

/// Has these members do something, and waits until all have.
pub fn have(team: &mut Team, who: Range<usize>, order: Order, word: u64) -> Result<(), Failure> {
    team.tell(who, order as u64, word, 0);
    match team.wait() {
        0 => Ok(()),
        failures => Err(Failure {
            step: "work of members",
            reason: alloc::format!("{order:?} {word:#x}: {failures} failed"),
        }),
    }
}

/// What a member runs.
pub fn member(control: u64) -> i32 {
    let mut came = Vec::new();
    team::serve(control, |_, order, [word, _]| {
        let order = ORDERS.into_iter().find(|known| *known as u64 == order)?;
        carry_out(order, word, &mut came).ok()
    })
}

fn carry_out(order: Order, word: u64, came: &mut Vec<Address>) -> Result<u64, Failure> {
    let numbered = |came: &[Address]| {
        let slot = came.get(word as usize).copied();
        told("number of a capability", slot.ok_or("there is none"))
    };
    match order {
        Order::Touch => {
            let page = told("page", Area::at(word, PAGE).ok_or("it is outside"))?;
            page.fetch_add(0, 1);
            Ok(0)
        }
        Order::Receive => {
            for _ in 0..word {
                let slot = at_slot()?;
                told("receive", transfer::receive(slot))?;
                came.push(slot);
            }
            Ok(0)
        }
        Order::Forget => {
            for slot in came.drain(..) {
                if capability::identify(slot).is_ok() {
                    apps::laboratory::at("delete", capability::delete(slot))?;
                }
                slots::give(slot);
            }
            Ok(0)
        }
        Order::Revoke => {
            let slot = numbered(came)?;
            time("revoke", || capability::revoke(slot))
        }
        Order::Retype => {
            let (ram, frame) = (numbered(came)?, at_slot()?);
            came.push(frame);
            time("retype", || capability::retype(ram, &TO_FRAME, frame))
        }
        Order::Delete => {
            let slot = numbered(came)?;
            time("delete", || capability::delete(slot))
        }
        Order::Bind => time("bind", || names::bind(NAME, word)),
        Order::Lookup => time("look-up", || names::lookup(NAME).map(|_| ())),
        Order::Unbind => time("unbind", || names::unbind(NAME)),
    }
}

fn at_slot() -> Result<Address, Failure> {
    apps::laboratory::at("a slot", slots::take())
}

/// How long some work takes, in cycles.
fn time<E: core::fmt::Debug>(
    step: &'static str,
    work: impl FnOnce() -> Result<(), E>,
) -> Result<u64, Failure> {
    let (time, done) = timed(work);
    apps::laboratory::at(step, done)?;
    Ok(time.0)
}
