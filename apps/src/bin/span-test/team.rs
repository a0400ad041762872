//! Members on all other cores that do what the root writes into memory of the span.

use crate::cores;
use abi::layout::PAGE;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use rt::clock;
use rt::interface::{Error, counter};
use rt::monitor;
use rt::span::{self, Area, Member, Span};

/// Words of each core in the control area: the number of its last order, the order, two arguments; the
/// number of its last report, the report, how far it is.
const CORE_WORDS: usize = 16;
const NUMBER: usize = 0;
const ORDER: usize = 1;
const FIRST: usize = 2;
const SECOND: usize = 3;
const REPORTED: usize = 4;
const REPORT: usize = 5;
const ERROR: usize = 6;
const PROGRESS: usize = 7;

/// Pages that all unmap in a storm, and one more: as long as that is there, nobody gets these addresses.
pub const STORM_PAGES: u64 = 9;

/// Bytes of the control area.
pub const CONTROL_BYTES: u64 = 8 * PAGE;
/// Polls before a wait sleeps, and for how long.
const POLLS: usize = 200;
const HAMMER_WRITES: u64 = 100;
/// Frames of a page each: memory that is free by mistake is among them.
const WATCHED_FRAMES: usize = 4;
const PAUSE_NS: u64 = 100_000;
/// How long anything may take.
const PATIENCE_NS: u64 = 120_000_000_000;

/// What a member is told to do; the arguments are an address, and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Order {
    /// Read the word there.
    Load = 1,
    /// Write the number there.
    Store,
    /// Write there without end.
    Hammer,
    /// Map so many bytes; the report is the address.
    Map,
    /// Unmap so many bytes.
    Unmap,
    /// Leave so many bytes no right to write.
    Protect,
    /// Make frames of memory that is free, and look so often whether any of it changes; the report is
    /// how often it was not zero.
    Watch,
    /// Do so many rounds of everything, with the pages there.
    Storm,
    /// Say whether a span can be begun, and members joined.
    Join,
    /// Say how many messages of spaces the monitor has sent.
    Sent,
    /// Go on without the span, and end with this status.
    Leave,
    /// End with this status.
    End,
}

const ORDERS: [Order; 12] = [
    Order::Load,
    Order::Store,
    Order::Hammer,
    Order::Map,
    Order::Unmap,
    Order::Protect,
    Order::Watch,
    Order::Storm,
    Order::Join,
    Order::Sent,
    Order::Leave,
    Order::End,
];

/// Waits until something holds; `false`: it does not in any reasonable time.
pub fn wait_until(mut holds: impl FnMut() -> bool) -> bool {
    let deadline_ns = clock::now_ns() + PATIENCE_NS;
    loop {
        for _ in 0..POLLS {
            if holds() {
                return true;
            }
            core::hint::spin_loop();
        }
        if clock::now_ns() > deadline_ns {
            return false;
        }
        clock::sleep_ns(PAUSE_NS);
    }
}

fn own() -> usize {
    rt::startup().core as usize
}

/// What a member runs.
pub fn member(control: u64) -> i32 {
    let (Some(span), Some(area)) = (span::joined(), Area::at(control, CONTROL_BYTES)) else {
        return 100;
    };
    let at = own() * CORE_WORDS;
    let mut last = area.load(at + REPORTED);
    loop {
        if !wait_until(|| area.load(at + NUMBER) != last) {
            return 101;
        }
        last = area.load(at + NUMBER);
        let (first, second) = (area.load(at + FIRST), area.load(at + SECOND));
        let order = ORDERS
            .into_iter()
            .find(|order| *order as u64 == area.load(at + ORDER));
        let result = match order {
            Some(Order::End) => return second as i32,
            Some(Order::Leave) => {
                return match span.leave() {
                    Ok(()) => second as i32,
                    Err(error) => error as i32,
                };
            }
            Some(Order::Hammer) => {
                let page = Area::at(first, PAGE).expect("a page of the span");
                for count in 1.. {
                    page.store(own(), count);
                    area.store(at + PROGRESS, count);
                    if count % HAMMER_WRITES == 0 {
                        clock::sleep_ns(PAUSE_NS); // others have to get on, too
                    }
                }
                Ok(0)
            }
            Some(order) => obey(span, order, first, second),
            None => return 102,
        };
        let (value, error) = match result {
            Ok(value) => (value, 0),
            Err(error) => (0, error as u64),
        };
        area.store(at + REPORT, value);
        area.store(at + ERROR, error);
        area.store(at + REPORTED, last);
    }
}

/// Does what an order says: in a member, or in the root itself.
fn obey(span: Span, order: Order, first: u64, second: u64) -> Result<u64, Error> {
    let word = || Area::at(first, 8).ok_or(Error::BadArgument);
    let pages = || Area::at(first, second).ok_or(Error::BadArgument);
    match order {
        Order::Load => Ok(word()?.load(0)),
        Order::Store => {
            word()?.store(0, second);
            Ok(0)
        }
        Order::Map => span.map(second).map(Area::address),
        Order::Unmap => span.unmap(pages()?).map(|()| 0),
        Order::Protect => span.protect(pages()?, false).map(|()| 0),
        Order::Watch => watch(second),
        Order::Storm => storm(span, first, second),
        Order::Join => {
            let begun = span::begin().err() == Some(Error::AlreadySpanned);
            let joined = span.join(own(), member, 0).err() == Some(Error::NotAllowed);
            Ok(u64::from(begun && joined))
        }
        Order::Sent => monitor::counter(rt::startup().core as usize, counter::OF_SPACES),
        Order::Hammer | Order::Leave | Order::End => Err(Error::BadArgument),
    }
}

/// Makes frames, and looks at their words in turn; returns how often one was not zero.
fn watch(looks: u64) -> Result<u64, Error> {
    let mut frames = Vec::new();
    for _ in 0..WATCHED_FRAMES {
        frames.push(monitor::frame(PAGE as usize)?);
    }
    let words = PAGE as usize / 8;
    let word = |at: usize| frames[at / words % frames.len()].word(at % words);
    let changed = (0..looks as usize).filter(|at| word(*at).load(Ordering::Relaxed) != 0);
    Ok(changed.count() as u64)
}

/// Maps, writes, protects, reads and unmaps pages of its own, and takes part in unmapping those at
/// `shared`; returns how many things were wrong.
fn storm(span: Span, shared: u64, rounds: u64) -> Result<u64, Error> {
    let mut wrong = 0;
    let mut seed = own() as u64 * 77 + 1;
    for round in 0..rounds {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let pages = (seed >> 33) % 5 + 1;
        let area = span.map(pages * PAGE)?;
        for page in 0..pages as usize {
            wrong += area.load(page * 512);
            area.store(page * 512, seed);
        }
        span.protect(area, false)?;
        wrong += u64::from(area.load(0) != seed);
        let last = area
            .part((pages - 1) * PAGE, PAGE)
            .ok_or(Error::BadArgument)?;
        span.unmap(last)?;
        if pages > 1 {
            span.protect(area, true)?;
            wrong += u64::from(area.fetch_add(0, 1) != seed);
        }
        span.unmap(area)?;
        // Whoever comes first: all unmaps succeed, and to protect finds something or nothing.
        let same =
            Area::at(shared + round % (STORM_PAGES - 1) * PAGE, PAGE).ok_or(Error::BadArgument)?;
        match span.protect(same, round % 2 == 0) {
            Ok(()) | Err(Error::NotMapped) => {}
            Err(error) => return Err(error),
        }
        span.unmap(same)?;
    }
    Ok(wrong)
}

/// The members, as their root sees them.
pub struct Team {
    pub span: Span,
    pub control: Area,
    pub cores: Vec<usize>,
    members: Vec<(usize, Member)>,
    number: u64,
}

impl Team {
    /// A span over all cores.
    pub fn new() -> Result<Self, Error> {
        let span = span::begin()?;
        let control = span.map(CONTROL_BYTES)?;
        let mut team = Self {
            span,
            control,
            cores: cores(),
            members: Vec::new(),
            number: 0,
        };
        for core in team.others() {
            team.join(core)?;
        }
        Ok(team)
    }

    /// All cores but the root's.
    pub fn others(&self) -> Vec<usize> {
        self.cores[1..].to_vec()
    }

    /// Takes a member in.
    pub fn join(&mut self, core: usize) -> Result<(), Error> {
        let member = self.span.join(core, member, self.control.address())?;
        self.members.push((core, member));
        Ok(())
    }

    /// The member on a core.
    pub fn member(&self, core: usize) -> Option<Member> {
        let mut members = self.members.iter();
        members
            .find(|(on, _)| *on == core)
            .map(|(_, member)| *member)
    }

    /// Waits for the member on a core to end.
    pub fn wait(&mut self, core: usize) -> Result<i32, Error> {
        let member = self.member(core).ok_or(Error::NoSuchDomain)?;
        self.members.retain(|(on, _)| *on != core);
        member.wait()
    }

    fn word(core: usize, word: usize) -> usize {
        core * CORE_WORDS + word
    }

    /// Tells the member on a core to do something.
    pub fn order(&mut self, core: usize, order: Order, first: u64, second: u64) {
        self.number += 1;
        let control = self.control;
        control.store(Self::word(core, PROGRESS), 0);
        control.store(Self::word(core, FIRST), first);
        control.store(Self::word(core, SECOND), second);
        control.store(Self::word(core, ORDER), order as u64);
        control.store(Self::word(core, NUMBER), self.number);
    }

    /// Takes the report on the last order; `None`: it does not come.
    pub fn report(&self, core: usize) -> Option<Result<u64, Error>> {
        let control = self.control;
        let number = control.load(Self::word(core, NUMBER));
        let come = wait_until(|| control.load(Self::word(core, REPORTED)) == number);
        come.then(|| {
            let value = control.load(Self::word(core, REPORT));
            let error = Error::from_code(control.load(Self::word(core, ERROR)));
            error.map_or(Ok(value), Err)
        })
    }

    /// Has something done on a core, this one included.
    pub fn run(
        &mut self,
        core: usize,
        order: Order,
        first: u64,
        second: u64,
    ) -> Option<Result<u64, Error>> {
        if core == own() {
            return Some(obey(self.span, order, first, second));
        }
        self.order(core, order, first, second);
        self.report(core)
    }

    /// How often the member on a core has written.
    pub fn progress(&self, core: usize) -> u64 {
        self.control.load(Self::word(core, PROGRESS))
    }

    /// A member that has ended without a report takes its order along.
    pub fn forget_order(&mut self, core: usize) {
        let number = self.control.load(Self::word(core, NUMBER));
        self.control.store(Self::word(core, REPORTED), number);
    }
}
