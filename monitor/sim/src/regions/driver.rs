//! What one core does beside its agent: the programs' wishes, and a CPU driver's book of copies and
//! of objects made from them.

use super::{Ledger, PAGE, root};
use crate::agents::{Hands, Load, Tamper};
use crate::script::{Agenda, Begun, Due, Measured, begins, ends};
use crate::tape::Mark;
use protocols::agent::{Action, Agent};
use protocols::regions::{self, Error, Kind, OpId, Region, Regions};
use protocols::view::View;
use rt::interface::regions as requests;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

/// Operations that the driver begins by itself have numbers from here on.
const OWN: u64 = 1 << 48;
/// How long it waits before it tries again, in nanoseconds.
const AGAIN_NS: u64 = 3_000;

/// What a program does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Op {
    /// Takes free memory of its core.
    Take(Region),
    /// Copies on its own core.
    Copy(Region),
    /// Copies to another.
    Send(Region, usize),
    /// Makes an object in a range.
    Retype(Region, Range<u64>),
    /// Deletes a copy.
    Delete(Region),
    /// Takes back all but one copy, and all that was made.
    Revoke(Region),
    /// The end of what is measured.
    #[default]
    Nothing,
}

/// What a core tells.
#[derive(Clone, Debug, Hash)]
pub enum Note {
    /// A program begins something.
    Begun(Begun<Op>),
    /// It ended.
    Done {
        /// Its number.
        token: u64,
        /// How.
        result: Result<(), Error>,
    },
    /// There are so many copies of a region.
    Copies(Region, u32),
    /// An object is being made, and from what; or there is no such object any more.
    Made(Region, Option<Region>),
    /// The core owns a region from now on, or does not.
    Owns(Region, bool),
    /// Nobody has any of this memory of the core's.
    Free(Region),
    /// A program has this memory now.
    Taken(Region),
    /// The memory of this core's lives up to the one in the view of this round is this one's.
    Adopted(usize, u32),
    /// It installs a view.
    Installed(View),
}

/// What takes time.
#[derive(Clone, Debug)]
pub(super) enum Task {
    Insert(OpId, Region),
    Retype(Region, u32, Region),
    /// A removal is to be looked at again.
    Look,
}

/// A removal under way.
#[derive(Clone, Debug)]
struct Removal {
    region: Region,
    keep: bool,
    /// The program that asked, where no other core has to do with it.
    token: Option<u64>,
    /// Not before this time, in nanoseconds.
    at_ns: u64,
    /// Revokes of what was made, under way and done.
    asked: BTreeMap<u64, Region>,
    revoked: BTreeSet<Region>,
}

/// One core's programs and CPU driver.
#[derive(Debug)]
pub struct Driver {
    agenda: Agenda<Op, Task>,
    own_token: u64,
    ledger: Rc<RefCell<Ledger>>,
    copies: BTreeMap<Region, u32>,
    /// Objects, and what they were made from.
    made: BTreeMap<Region, Region>,
    removals: Vec<Removal>,
    owned: BTreeSet<Region>,
    adopted: BTreeSet<(usize, u32)>,
    hurries: bool,
}

impl Driver {
    pub(super) fn new(
        agenda: Agenda<Op, Task>,
        ledger: Rc<RefCell<Ledger>>,
        tamper: Option<Tamper>,
    ) -> Self {
        Self {
            agenda,
            own_token: OWN,
            ledger,
            copies: BTreeMap::new(),
            made: BTreeMap::new(),
            removals: Vec::new(),
            owned: BTreeSet::new(),
            adopted: BTreeSet::new(),
            hurries: tamper == Some(Tamper::Hurries),
        }
    }

    fn own_number(&mut self) -> u64 {
        self.own_token += 1;
        self.own_token
    }

    fn ask(
        &mut self,
        hands: &mut Hands<'_, Note>,
        work: impl FnOnce(&mut Regions) -> Vec<regions::Action>,
    ) {
        let actions = hands.agent.with_regions(work);
        self.take(actions, hands);
    }

    fn set_copies(&mut self, region: Region, count: u32, hands: &mut Hands<'_, Note>) {
        if count == 0 {
            self.copies.remove(&region);
        } else {
            self.copies.insert(region, count);
        }
        hands.note(Note::Copies(region, count));
    }

    fn done(&mut self, token: u64, result: Result<(), Error>, hands: &mut Hands<'_, Note>) {
        hands.note(Note::Done { token, result });
    }

    /// Whether something that contains the region is being removed here.
    fn is_going(&self, region: &Region) -> bool {
        let covers = |one: &Removal| one.region == *region || one.region.may_hold(region);
        self.removals.iter().any(covers)
    }

    /// After a copy or an object of an unshared region went: what was the last of it?
    fn left(&mut self, region: Region, hands: &mut Hands<'_, Note>) {
        let is_held = self.copies.contains_key(&region);
        let is_used = self.made.values().any(|parent| *parent == region);
        if is_held || is_used || hands.agent.regions().is_shared(region) {
            return;
        }
        if self.made.contains_key(&region) {
            self.object_gone(region, hands);
        } else if self.ledger.borrow().owners.get(&region) == Some(&self.agenda.life) {
            hands.note(Note::Free(region));
        }
    }

    /// Nobody has an object that was made here.
    fn object_gone(&mut self, child: Region, hands: &mut Hands<'_, Note>) {
        let Some(parent) = self.made.remove(&child) else {
            return;
        };
        hands.note(Note::Made(child, None));
        if self.removals.iter().any(|one| one.region == parent) {
            return; // It goes with all others.
        }
        if hands.agent.regions().is_shared(parent) {
            let range = child.range();
            self.ask(hands, |regions| regions.untype(parent, &range));
        } else {
            self.left(parent, hands);
        }
    }

    /// A copy of a region goes.
    fn delete(&mut self, token: u64, region: Region, hands: &mut Hands<'_, Note>) {
        let count = self.copies.get(&region).copied().unwrap_or(0);
        if count == 0 {
            return self.done(token, Err(Error::NoSuchRegion), hands);
        }
        self.set_copies(region, count - 1, hands);
        if count > 1 {
            return self.done(token, Ok(()), hands);
        }
        if hands.agent.regions().is_shared(region) {
            self.ask(hands, |regions| regions.delete(token, region));
        } else {
            self.done(token, Ok(()), hands);
            self.left(region, hands);
        }
    }

    /// The object of a retype.
    fn child(&mut self, parent: &Region, range: &Range<u64>) -> Region {
        let kind = match parent.kind {
            Kind::Ram => self.agenda.random.pick(&[Kind::Ram, Kind::Frame]),
            kind => kind,
        };
        let depth = if parent.range() == *range {
            parent.depth + 1
        } else {
            0
        };
        Region {
            kind,
            base: range.start,
            bytes: range.end - range.start,
            depth,
        }
    }

    fn retype(
        &mut self,
        token: u64,
        region: Region,
        range: Range<u64>,
        hands: &mut Hands<'_, Note>,
    ) {
        if hands.agent.regions().is_shared(region) {
            return self.ask(hands, |regions| regions.retype(token, region, range));
        }
        let meets = |(child, parent): (&Region, &Region)| *parent == region && child.meets(&range);
        if self.made.iter().any(meets) {
            return self.done(token, Err(Error::Overlap), hands);
        }
        let child = self.child(&region, &range);
        self.made.insert(child, region);
        hands.note(Note::Made(child, Some(region)));
        self.set_copies(child, 1, hands);
        self.done(token, Ok(()), hands);
    }

    fn begin(&mut self, op: Op, measured: Measured, hands: &mut Hands<'_, Note>) {
        let begun = self.agenda.begin(op.clone(), measured);
        let token = begun.token;
        hands.note(Note::Begun(begun));
        let (region, has_copy) = match &op {
            Op::Nothing => return,
            Op::Take(region) => {
                self.ledger.borrow_mut().free.remove(region);
                hands.note(Note::Taken(*region));
                self.set_copies(*region, 1, hands);
                return self.done(token, Ok(()), hands);
            }
            Op::Copy(region)
            | Op::Send(region, _)
            | Op::Retype(region, _)
            | Op::Delete(region)
            | Op::Revoke(region) => (*region, self.copies.contains_key(region)),
        };
        if !has_copy {
            return self.done(token, Err(Error::NoSuchRegion), hands);
        }
        let is_shared = hands.agent.regions().is_shared(region);
        let is_barred = hands.agent.regions().is_barred(region) || self.is_going(&region);
        if is_barred && (!is_shared || matches!(op, Op::Copy(_))) {
            return self.done(token, Err(Error::Busy), hands);
        }
        match op {
            Op::Take(_) | Op::Nothing => {}
            Op::Copy(_) => {
                let count = self.copies.get(&region).copied().unwrap_or(0);
                self.set_copies(region, count + 1, hands);
                self.done(token, Ok(()), hands);
            }
            Op::Send(_, to) => {
                let of_it = self.made.iter().filter(|(_, parent)| **parent == region);
                let ranges: Vec<_> = of_it.map(|(child, _)| child.range()).collect();
                let mut is_refused = false;
                self.ask(hands, |regions| {
                    if regions.share(region, &ranges).is_ok() {
                        return regions.send(token, region, 7, to);
                    }
                    is_refused = true;
                    Vec::new()
                });
                if is_refused {
                    self.done(token, Err(Error::Busy), hands);
                }
            }
            Op::Retype(_, range) => self.retype(token, region, range, hands),
            Op::Delete(_) => self.delete(token, region, hands),
            Op::Revoke(_) if is_shared => {
                self.ask(hands, |regions| regions.revoke(token, region));
            }
            Op::Revoke(_) => self.remove(region, true, Some(token), hands),
        }
    }

    fn remove(
        &mut self,
        region: Region,
        keep: bool,
        token: Option<u64>,
        hands: &mut Hands<'_, Note>,
    ) {
        let at_ns = self.agenda.take_time(hands.now_ns, Task::Look);
        self.removals.push(Removal {
            region,
            keep,
            token,
            at_ns,
            asked: BTreeMap::new(),
            revoked: BTreeSet::new(),
        });
        if self.hurries && token.is_none() {
            self.ask(hands, |regions| regions.removed(region));
        }
    }

    /// Goes on with all removals as far as that is possible now.
    fn pursue(&mut self, hands: &mut Hands<'_, Note>) {
        let mut at = 0;
        while at < self.removals.len() {
            let region = self.removals[at].region;
            let is_over = self.removals[at].at_ns <= hands.now_ns && self.go_on(at, hands);
            // Others may have ended meanwhile.
            if is_over && let Some(at) = self.removals.iter().position(|one| one.region == region) {
                let removal = self.removals.remove(at);
                self.end(&removal, hands);
            } else {
                at += 1;
            }
        }
    }

    /// Takes back what was made of a region, on other cores first. Whether nothing is left.
    fn go_on(&mut self, at: usize, hands: &mut Hands<'_, Note>) -> bool {
        let Removal { region, token, .. } = self.removals[at];
        if token.is_some() && !self.copies.contains_key(&region) {
            return true; // What it was a part of was revoked first.
        }
        let within: Vec<Region> = hands.agent.regions().homed_within(region).collect();
        for inner in within {
            let removal = &self.removals[at];
            let is_asked = removal.asked.values().any(|asked| *asked == inner);
            if is_asked || removal.revoked.contains(&inner) {
                continue;
            }
            let token = self.own_number();
            self.removals[at].asked.insert(token, inner);
            self.ask(hands, |regions| regions.revoke(token, inner));
        }
        if !self.removals[at].asked.is_empty() {
            return false;
        }
        // What is left is on this core alone.
        let mut left: Vec<Region> = self.copies.keys().copied().collect();
        left.retain(|one| region.may_hold(one));
        let is_ours = |one: &Region, made: &BTreeMap<Region, Region>| made.contains_key(one);
        for one in left {
            let is_shared = hands.agent.regions().is_shared(one);
            let is_home = self.removals[at].revoked.contains(&one) || is_ours(&one, &self.made);
            if is_shared && !is_home {
                continue; // Its home takes it back.
            }
            self.set_copies(one, 0, hands);
            if is_shared {
                let token = self.own_number();
                self.ask(hands, |regions| regions.delete(token, one));
            }
        }
        // An object that others have had is there until they say that it is not.
        let mut made: Vec<Region> = self.made.keys().copied().collect();
        made.retain(|one| region.may_hold(one));
        made.sort_by_key(|one| (one.bytes, u8::MAX - one.depth));
        for one in made {
            if !hands.agent.regions().is_shared(one) {
                self.made.remove(&one);
                hands.note(Note::Made(one, None));
            }
        }
        !self.made.keys().any(|one| region.may_hold(one))
    }

    fn end(&mut self, removal: &Removal, hands: &mut Hands<'_, Note>) {
        let Removal {
            region,
            keep,
            token,
            ..
        } = *removal;
        let keeps = u32::from(keep && self.copies.contains_key(&region));
        if self.copies.contains_key(&region) {
            self.set_copies(region, keeps, hands);
        }
        match token {
            Some(token) => self.done(token, Ok(()), hands),
            None if self.hurries => {}
            None => self.ask(hands, |regions| regions.removed(region)),
        }
    }

    /// An operation of the driver's own ended.
    fn own_done(&mut self, token: u64, result: Result<(), Error>, hands: &mut Hands<'_, Note>) {
        let now_ns = hands.now_ns;
        for removal in &mut self.removals {
            let Some(inner) = removal.asked.remove(&token) else {
                continue;
            };
            if result == Err(Error::Busy) {
                removal.at_ns = now_ns + AGAIN_NS;
                self.agenda.at(now_ns + AGAIN_NS, Task::Look);
            } else {
                removal.revoked.insert(inner);
            }
        }
    }

    fn choose(&mut self, hands: &Hands<'_, Note>) -> Op {
        let free = |one: &Region, ledger: &Ledger| {
            ledger.free.contains(one) && ledger.owners.get(one) == Some(&self.agenda.life)
        };
        let ledger = self.ledger.borrow();
        let free: Vec<Region> = ledger
            .owners
            .keys()
            .copied()
            .filter(|one| free(one, &ledger))
            .collect();
        drop(ledger);
        let held: Vec<Region> = self.copies.keys().copied().collect();
        if held.is_empty() || !free.is_empty() && self.agenda.random.below(5) == 0 {
            return match free.is_empty() {
                true => Op::Delete(root(self.agenda.life, 0)),
                false => Op::Take(self.agenda.random.pick(&free)),
            };
        }
        let region = self.agenda.random.pick(&held);
        let others = hands.agent.view().cores.clone();
        match self.agenda.random.below(16) {
            0..=5 => {
                let place = self.agenda.random.below(others.len() as u64) as usize;
                let to = others.nth(place).unwrap_or(0);
                Op::Send(region, to)
            }
            6 => Op::Copy(region),
            7..=9 => {
                let pages = region.bytes / PAGE;
                let first = self.agenda.random.below(pages);
                let count = 1 + self.agenda.random.below(pages - first);
                let start = region.base + first * PAGE;
                Op::Retype(region, start..start + count * PAGE)
            }
            10..=13 => Op::Delete(region),
            _ => Op::Revoke(region),
        }
    }

    fn complete(&mut self, due: Due<Op, Task>, hands: &mut Hands<'_, Note>) {
        let fails = self.agenda.fails();
        match due {
            Due::Op(step) => {
                let (op, measured) = step.unwrap_or_else(|| (self.choose(hands), None));
                self.begin(op, measured, hands);
                self.agenda.go_on(hands.now_ns);
            }
            Due::Task(Task::Insert(id, region)) => {
                let mut result = Err(Error::NoSlot);
                if !fails {
                    let count = self.copies.get(&region).copied().unwrap_or(0);
                    self.set_copies(region, count + 1, hands);
                    result = Ok(());
                }
                self.ask(hands, |regions| regions.inserted(id, result));
            }
            Due::Task(Task::Retype(region, sequence, child)) => {
                if fails {
                    self.made.remove(&child);
                    hands.note(Note::Made(child, None));
                } else {
                    self.set_copies(child, 1, hands);
                }
                self.ask(hands, |regions| regions.retyped(region, sequence, !fails));
            }
            Due::Task(Task::Look) => {}
        }
    }
}

impl Load for Driver {
    type Note = Note;

    fn mark(note: &Note) -> Option<Mark> {
        match note {
            Note::Begun(begun) => {
                let kind = match begun.op {
                    Op::Send(..) => Some(requests::SEND),
                    Op::Retype(..) => Some(requests::RETYPE),
                    Op::Delete(_) => Some(requests::DELETE),
                    Op::Revoke(_) => Some(requests::REVOKE),
                    // Of one core alone: no request to a monitor.
                    Op::Take(_) | Op::Copy(_) | Op::Nothing => None,
                };
                begins(begun, kind)
            }
            Note::Done { token, result } => ends(*token, *result, |error| error as u64),
            _ => None,
        }
    }

    fn installed(&mut self, hands: &mut Hands<'_, Note>) {
        hands.note(Note::Installed(hands.agent.view().clone()));
        self.agenda.installed(hands.now_ns);
    }

    fn on_action(&mut self, action: Action, hands: &mut Hands<'_, Note>) {
        let Action::Regions(action) = action else {
            return;
        };
        match action {
            // That one adopted is told before others hear of it.
            regions::Action::Send(..)
            | regions::Action::Unshared { .. }
            | regions::Action::Adopt { .. } => {}
            regions::Action::Insert { id, region, .. } => {
                let task = Task::Insert(id, region);
                self.agenda.take_time(hands.now_ns, task);
            }
            regions::Action::Retype {
                region,
                range,
                sequence,
                ..
            } => {
                let child = self.child(&region, &range);
                self.made.insert(child, region);
                hands.note(Note::Made(child, Some(region)));
                let task = Task::Retype(region, sequence, child);
                self.agenda.take_time(hands.now_ns, task);
            }
            regions::Action::RemoveLocal { region, keep } => {
                self.remove(region, keep, None, hands);
            }
            regions::Action::Done { token, result } if token > OWN => {
                self.own_done(token, result, hands);
            }
            regions::Action::Done { token, result } => self.done(token, result, hands),
            regions::Action::Gone { region } => {
                let is_root = self.ledger.borrow().owners.contains_key(&region);
                if self.made.contains_key(&region) {
                    self.object_gone(region, hands);
                } else if is_root {
                    hands.note(Note::Free(region));
                }
            }
        }
        self.pursue(hands);
    }

    fn on_tick(&mut self, hands: &mut Hands<'_, Note>) {
        if let Some(due) = self.agenda.due(hands.now_ns) {
            self.complete(due, hands);
        }
        self.pursue(hands);
    }

    fn deadline_ns(&self) -> Option<u64> {
        self.agenda.deadline_ns()
    }

    fn look(&mut self, agent: &Agent, notes: &mut Vec<Note>) {
        let owned: BTreeSet<Region> = agent.regions().owned().collect();
        // Whoever had it before says so first.
        let gone = self.owned.difference(&owned);
        notes.extend(gone.map(|region| Note::Owns(*region, false)));
        let new = owned.difference(&self.owned);
        notes.extend(new.map(|region| Note::Owns(*region, true)));
        self.owned = owned;
        let adopted: BTreeSet<(usize, u32)> = agent.regions().adopted().collect();
        let new = adopted.difference(&self.adopted);
        notes.extend(new.map(|(core, round)| Note::Adopted(*core, *round)));
        self.adopted = adopted;
    }
}
