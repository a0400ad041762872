//! Spans with a member on a core that is lost and starts anew.

use crate::NAME;
use crate::shares::TOUCHED;
use abi::layout::PAGE;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use apps::checks::Outcome;
use core::sync::atomic::Ordering;
use rt::clock;
use rt::frame::Frame;
use rt::interface::{Error, KILLED_STATUS, LOST_STATUS};
use rt::span::{self, Area, Member, Span};

/// How far the root and its parent are with the loss of the core: in the frame that they share.
#[derive(Clone, Copy)]
#[repr(u64)]
pub enum Step {
    /// The core's memory is used.
    Ready = 1,
    /// The core has started anew.
    Started,
}

/// Says how far one is.
pub fn say(frame: &Frame, step: Step) {
    frame.word(0).store(step as u64, Ordering::Release);
}

/// Whether the other one is so far.
pub fn is_at(frame: &Frame, step: Step) -> bool {
    frame.word(0).load(Ordering::Acquire) == step as u64
}

/// Whether the root itself uses the core's memory before the core is lost.
pub fn root_uses(life: usize) -> bool {
    life % 2 == 1
}

/// Whether a member does, by its place among those on other cores.
fn uses(life: usize, place: usize) -> bool {
    (place + life / 2).is_multiple_of(2)
}

/// Words of each core in the control area: the number of its last order, the order, its arguments; the
/// number of its last report, the report, an error.
const CORE_WORDS: usize = 8;
const NUMBER: usize = 0;
const ORDER: usize = 1;
const FIRST: usize = 2;
const SECOND: usize = 3;
const REPORTED: usize = 4;
const REPORT: usize = 5;
const ERROR: usize = 6;
const CONTROL_BYTES: u64 = (256 * CORE_WORDS * 8) as u64;
/// Pages that the core maps, and that others use.
const PAGES: u64 = 3;
const PAUSE_NS: u64 = 200_000;
/// How long anything may take.
const PATIENCE_NS: u64 = 120_000_000_000;

/// What members are told to do.
const MAP: u64 = 1;
const LOAD: u64 = 2;
const STORE: u64 = 3;
const END: u64 = 4;

fn own() -> usize {
    rt::startup().core as usize
}

/// What a member runs: orders, until it is told to end.
fn member(control: u64) -> i32 {
    let (Some(span), Some(area)) = (span::joined(), Area::at(control, CONTROL_BYTES)) else {
        return 100;
    };
    let at = own() * CORE_WORDS;
    loop {
        let number = area.load(at + NUMBER);
        if number == area.load(at + REPORTED) {
            clock::sleep_ns(PAUSE_NS);
            continue;
        }
        let (first, second) = (area.load(at + FIRST), area.load(at + SECOND));
        let word = Area::at(first, 8).ok_or(Error::BadArgument);
        let done = match area.load(at + ORDER) {
            MAP => span.map(first).map(Area::address),
            LOAD => word.map(|word| word.load(0)),
            STORE => word.map(|word| {
                word.store(0, second);
                0
            }),
            END => return 0,
            _ => Err(Error::BadArgument),
        };
        area.store(at + REPORT, done.unwrap_or(0));
        area.store(at + ERROR, done.err().map_or(0, |error| error as u64));
        area.store(at + REPORTED, number);
    }
}

/// A span over all cores, as its root sees it.
struct Team {
    span: Span,
    control: Area,
    members: BTreeMap<usize, Member>,
    number: u64,
}

impl Team {
    fn new() -> Result<Self, Error> {
        let span = span::begin()?;
        let control = span.map(CONTROL_BYTES)?;
        let members = BTreeMap::new();
        let mut team = Self {
            span,
            control,
            members,
            number: 0,
        };
        for core in rt::startup().cores().filter(|core| *core != own()) {
            team.join(core)?;
        }
        Ok(team)
    }

    fn join(&mut self, core: usize) -> Result<(), Error> {
        // What one before it was told is over.
        let at = core * CORE_WORDS;
        let number = self.control.load(at + NUMBER);
        self.control.store(at + REPORTED, number);
        let member = self.span.join(core, member, self.control.address())?;
        self.members.insert(core, member);
        Ok(())
    }

    fn begin(&mut self, core: usize, order: u64, first: u64, second: u64) {
        self.number += 1;
        let at = core * CORE_WORDS;
        let words = [(FIRST, first), (SECOND, second), (ORDER, order)];
        for (word, value) in words {
            self.control.store(at + word, value);
        }
        self.control.store(at + NUMBER, self.number);
    }

    fn run(&mut self, core: usize, order: u64, first: u64, second: u64) -> Result<u64, Error> {
        self.begin(core, order, first, second);
        let at = core * CORE_WORDS;
        let deadline_ns = clock::now_ns() + PATIENCE_NS;
        while self.control.load(at + REPORTED) != self.number {
            if clock::now_ns() > deadline_ns {
                return Err(Error::Busy);
            }
            clock::sleep_ns(PAUSE_NS);
        }
        let error = Error::from_code(self.control.load(at + ERROR));
        error.map_or(Ok(self.control.load(at + REPORT)), Err)
    }

    fn wait(&mut self, core: usize) -> Result<i32, Error> {
        let member = self.members.remove(&core).ok_or(Error::NoSuchDomain)?;
        member.wait()
    }

    /// A core maps memory: all others see what it writes there.
    fn share(&mut self, outcome: &mut Outcome, core: usize, value: u64) -> Result<Area, Error> {
        let address = match core == own() {
            true => self.span.map(PAGES * PAGE)?.address(),
            false => self.run(core, MAP, PAGES * PAGE, 0)?,
        };
        let area = Area::at(address, PAGES * PAGE).ok_or(Error::BadArgument)?;
        outcome.expect("new memory", &area.load(0), &0);
        area.store(0, value);
        for core in self.members.keys().copied().collect::<Vec<_>>() {
            let found = self.run(core, LOAD, address, 0)?;
            outcome.expect("a word of the span", &found, &value);
        }
        Ok(area)
    }

    /// All members end.
    fn end(mut self, outcome: &mut Outcome) -> Result<(), Error> {
        for core in self.members.keys().copied().collect::<Vec<_>>() {
            self.begin(core, END, 0, 0);
            outcome.expect("a member's end", &self.wait(core), &Ok(0));
        }
        Ok(())
    }
}

fn status(outcome: &Outcome, ended: Result<(), Error>) -> i32 {
    if let Err(error) = ended {
        rt::println!("{NAME}: a span: {error}");
    }
    i32::from(outcome.bad > 0 || ended.is_err())
}

/// The root of a span that loses its member on this core, which starts anew.
pub fn root(core: usize, life: usize) -> i32 {
    let mut outcome = Outcome::default();
    let ended = lose_member(&mut outcome, core, life);
    status(&outcome, ended)
}

fn lose_member(outcome: &mut Outcome, core: usize, life: usize) -> Result<(), Error> {
    let frame = Frame::of_parent().ok_or(Error::BadArgument)?;
    let mut team = Team::new()?;
    let address = team.run(core, MAP, PAGES * PAGE, 0)?;
    team.run(core, STORE, address, 99)?;
    let freed = team.run(core, MAP, PAGE, 0)?;
    let others: Vec<usize> = team.members.keys().copied().collect();
    let others = others.into_iter().filter(|other| *other != core);
    let (users, strangers): (Vec<_>, Vec<_>) = others
        .enumerate()
        .partition(|(place, _)| uses(life, *place));
    for (_, user) in &users {
        let found = team.run(*user, LOAD, address, 0)?;
        outcome.expect("a word of the core", &found, &99);
        team.run(*user, LOAD, freed, 0)?;
    }
    if root_uses(life) {
        let area = Area::at(address, PAGE).ok_or(Error::BadArgument)?;
        outcome.expect("a word of the core", &area.load(0), &99);
    }
    // The core may not hear of that any more.
    team.span
        .unmap(Area::at(freed, PAGE).ok_or(Error::BadArgument)?)?;
    say(&frame, Step::Ready);
    while !is_at(&frame, Step::Started) {
        clock::sleep_ns(PAUSE_NS);
    }
    if root_uses(life) {
        outcome.fail("who has used the memory", format_args!("lives on"));
    }
    outcome.expect("the core's member", &team.wait(core), &Ok(LOST_STATUS));
    for (_, user) in &users {
        let ended = team.wait(*user);
        outcome.expect("who has used it", &ended, &Ok(KILLED_STATUS));
    }
    for (_, stranger) in &strangers {
        let control = team.control.address();
        let goes_on = team.run(*stranger, LOAD, control, 0);
        outcome.expect("who has not used it", &goes_on.is_ok(), &true);
    }
    let toucher = strangers.first().map(|(_, core)| *core);
    if let Some(toucher) = toucher {
        team.begin(toucher, LOAD, address, 0);
        outcome.expect("who touches it", &team.wait(toucher), &Ok(TOUCHED));
    }
    let users = users.iter().map(|(_, user)| *user);
    for gone in users.chain(toucher).chain([core]) {
        team.join(gone)?;
    }
    let area = team.share(outcome, core, 111)?;
    // Nothing is left of what was mapped there before.
    outcome.expect("where the new life maps", &area.address(), &address);
    team.span.unmap(area)?;
    team.share(outcome, core, 112)?;
    team.end(outcome)
}

/// The root of a span over all cores, with memory of each.
pub fn here() -> i32 {
    let mut outcome = Outcome::default();
    let ended = share_all(&mut outcome);
    status(&outcome, ended)
}

fn share_all(outcome: &mut Outcome) -> Result<(), Error> {
    let mut team = Team::new()?;
    for core in rt::startup().cores() {
        let area = team.share(outcome, core, 200 + core as u64)?;
        team.span.unmap(area)?;
    }
    team.end(outcome)
}
