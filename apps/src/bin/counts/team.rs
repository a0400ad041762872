//! Members of a span on all other cores, asleep but when they are told to do something.

use abi::layout::PAGE;
use alloc::vec::Vec;
use rt::capability::{Address, slots};
use rt::interface::Error;
use rt::monitor::{self, Domain};
use rt::span::{self, Area, Member, Span};
use rt::{clock, system_call, transfer};

/// Words at the start of the control area: number of the order, the order, its arguments.
const NUMBER: usize = 0;
const ORDER: usize = 1;
const FIRST: usize = 2;
const SECOND: usize = 3;
/// Behind them a line for each core: number of the last order that it carried out, errors so far.
const LINE_WORDS: usize = 8;

/// How long the root sleeps between looks.
const PAUSE_NS: u64 = 50_000;

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
    /// End.
    End,
}

fn own_core() -> usize {
    rt::startup().core as usize
}

fn line(core: usize) -> usize {
    (core + 1) * LINE_WORDS
}

/// The root and its members.
pub struct Team {
    pub span: Span,
    control: Area,
    members: Vec<(Member, Address)>,
    number: u64,
}

impl Team {
    /// With a member on each other core.
    pub fn gather() -> Result<Self, Error> {
        let own = own_core();
        let span = span::begin()?;
        let control = span.map(8 * PAGE)?;
        let mut members = Vec::new();
        for core in rt::startup().cores().filter(|core| *core != own) {
            let member = span.join(core, member, control.address())?;
            members.push((member, monitor::doorbell(member.0)?));
        }
        Ok(Self {
            span,
            control,
            members,
            number: 0,
        })
    }

    /// The members' domains.
    pub fn domains(&self) -> impl Iterator<Item = Domain> + '_ {
        self.members.iter().map(|(member, _)| member.0)
    }

    /// Gives all of the first `count` members an order.
    pub fn tell(&mut self, count: usize, order: Order, first: u64, second: u64) {
        self.number += 1;
        self.control.store(ORDER, order as u64);
        self.control.store(FIRST, first);
        self.control.store(SECOND, second);
        // Who is not meant has done it.
        for (member, _) in self.members.iter().skip(count) {
            self.control.store(line(member.0.core()), self.number);
        }
        self.control.store(NUMBER, self.number);
        for (_, doorbell) in self.members.iter().take(count) {
            // A member that is gone is found out below.
            let _ = system_call::ring(*doorbell);
        }
    }

    /// Waits until all have carried it out; how often they failed in all.
    pub fn wait(&self) -> u64 {
        let mut failures = 0;
        for (member, _) in &self.members {
            let at = line(member.0.core());
            while self.control.load(at) != self.number {
                clock::sleep_ns(PAUSE_NS);
            }
            failures += self.control.load(at + 1);
        }
        failures
    }

    /// Has all end.
    pub fn dismiss(mut self) -> Result<(), Error> {
        self.tell(self.members.len(), Order::End, 0, 0);
        for (member, _) in &self.members {
            member.wait()?;
        }
        Ok(())
    }
}

/// What a member runs.
fn member(control: u64) -> i32 {
    let (Some(span), Some(control)) = (span::joined(), Area::at(control, 8 * PAGE)) else {
        return 1;
    };
    let own = line(own_core());
    let mut last = control.load(own);
    loop {
        let number = control.load(NUMBER);
        if number == last || control.load(own) == number {
            last = number;
            system_call::wait(None);
            continue;
        }
        last = number;
        let (first, second) = (control.load(FIRST), control.load(SECOND));
        let failures = match control.load(ORDER) {
            order if order == Order::Touch as u64 => touch(first, second),
            order if order == Order::Receive as u64 => receive(second),
            order if order == Order::Unmap as u64 => unmap(span, first, second),
            _ => return 0,
        };
        control.fetch_add(own + 1, failures);
        control.store(own, number);
    }
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
