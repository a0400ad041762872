//! A team: members of a span on all other cores, asleep but when they are told to do something.
//!
//! Orders are words in memory of the span, and numbers say who has carried out which. What orders
//! there are is the program's own affair.

use abi::layout::PAGE;
use alloc::vec::Vec;
use core::ops::Range;
use rt::capability::Address;
use rt::interface::Error;
use rt::monitor::{self, Domain};
use rt::span::{self, Area, Function, Member, Span};
use rt::{clock, system_call};

/// Words at the start of the control area: number of the order, the order, its arguments.
const NUMBER: usize = 0;
const ORDER: usize = 1;
const FIRST: usize = 2;
const SECOND: usize = 3;
/// Behind them a line for each core: number of the last order that it carried out, errors so far,
/// what came of the last order.
const LINE_WORDS: usize = 8;
const CONTROL_BYTES: u64 = 8 * PAGE;

/// The order to end.
const END: u64 = u64::MAX;

/// How long the root sleeps between looks.
const PAUSE_NS: u64 = 50_000;

fn own_core() -> usize {
    rt::startup().core as usize
}

fn line(core: usize) -> usize {
    (core + 1) * LINE_WORDS
}

/// The root and its members.
pub struct Team {
    /// The span that all are in.
    pub span: Span,
    control: Area,
    members: Vec<(Member, Address)>,
    number: u64,
}

impl Team {
    /// With a member on each other core, which runs this function: that calls [`serve`] with what
    /// it is given.
    ///
    /// # Errors
    /// Those of a span and its members.
    pub fn gather(member: Function) -> Result<Self, Error> {
        let own = own_core();
        let span = span::begin()?;
        let control = span.map(CONTROL_BYTES)?;
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

    /// Gives an order to the members of these places, as far as they are there.
    pub fn tell(&mut self, who: Range<usize>, order: u64, first: u64, second: u64) {
        self.number += 1;
        self.control.store(ORDER, order);
        self.control.store(FIRST, first);
        self.control.store(SECOND, second);
        // Who is not meant has done it.
        for (at, (member, _)) in self.members.iter().enumerate() {
            if !who.contains(&at) {
                self.control.store(line(member.0.core()), self.number);
            }
        }
        self.control.store(NUMBER, self.number);
        for (at, (_, doorbell)) in self.members.iter().enumerate() {
            if who.contains(&at) {
                // A member that is gone is found out below.
                let _ = system_call::ring(*doorbell);
            }
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

    /// What came of the last order at the member of this place; 0 where there is none.
    pub fn result(&self, place: usize) -> u64 {
        let member = self.members.get(place);
        member.map_or(0, |(member, _)| {
            self.control.load(line(member.0.core()) + 2)
        })
    }

    /// Has all end.
    ///
    /// # Errors
    /// Those of a wait for a member.
    pub fn dismiss(mut self) -> Result<(), Error> {
        self.tell(0..self.members.len(), END, 0, 0);
        for (member, _) in &self.members {
            member.wait()?;
        }
        Ok(())
    }
}

/// What a member does: carries out orders, with their arguments, until it is told to end. Returns
/// the exit status. An order comes to a number, or to `None` if it failed.
pub fn serve(control: u64, mut carry_out: impl FnMut(Span, u64, [u64; 2]) -> Option<u64>) -> i32 {
    let (Some(span), Some(control)) = (span::joined(), Area::at(control, CONTROL_BYTES)) else {
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
        let order = control.load(ORDER);
        if order == END {
            return 0;
        }
        match carry_out(span, order, [control.load(FIRST), control.load(SECOND)]) {
            Some(result) => control.store(own + 2, result),
            None => drop(control.fetch_add(own + 1, 1)),
        }
        control.store(own, number);
    }
}
