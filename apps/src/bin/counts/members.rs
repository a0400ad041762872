//! What members do on the other cores, where an operation needs them.

use abi::layout::PAGE;
use apps::team::{self, Team};
use core::ops::Range;
use rt::capability::slots;
use rt::interface::Error;
use rt::span::{Area, Span};
use rt::transfer;

/// What a member is told to do.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub enum Order {
    /// Read a word of each page: from an address, so many.
    Touch = 1,
    /// Take so many capabilities.
    Receive,
    /// Unmap pages one by one: from an address, so many.
    Unmap,
}

/// Gives an order to the members of these places.
pub fn tell(team: &mut Team, who: Range<usize>, order: Order, first: u64, count: u64) {
    team.tell(who, order as u64, first, count);
}

/// What a member runs.
pub fn member(control: u64) -> i32 {
    team::serve(control, |span, order, [first, count]| {
        let failures = match order {
            order if order == Order::Touch as u64 => touch(first, count),
            order if order == Order::Receive as u64 => receive(count),
            order if order == Order::Unmap as u64 => unmap(span, first, count),
            _ => return None,
        };
        (failures == 0).then_some(0)
    })
}

fn pages(first: u64, count: u64) -> impl Iterator<Item = Option<Area>> {
    (0..count).map(move |page| Area::at(first + page * PAGE, PAGE))
}

fn touch(first: u64, count: u64) -> u64 {
    pages(first, count)
        .map(|page| match page {
            Some(page) => page.load(0),
            None => 1,
        })
        .sum()
}

fn unmap(span: Span, first: u64, count: u64) -> u64 {
    let unmapped = pages(first, count).map(|page| page.map(|page| span.unmap(page)));
    unmapped.filter(|done| *done != Some(Ok(()))).count() as u64
}

fn receive(count: u64) -> u64 {
    let one = || {
        let slot = slots::take().map_err(|_| Error::NoMemory)?;
        transfer::receive(slot)
    };
    (0..count).filter(|_| one().is_err()).count() as u64
}
