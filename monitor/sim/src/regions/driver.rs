//! What one core does beside its agent: the programs' wishes, and a CPU driver's book of copies and
//! of objects made from them.

use super::{Ledger, PAGE, is_from, meet};
use crate::agents::{Hands, Life, Load};
use crate::random::Random;
use protocols::agent::{Action, Agent};
use protocols::regions::{self, Error, Kind, OpId, Region, Regions};
use protocols::view::View;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::rc::Rc;

/// Operations that the driver begins by itself have numbers from here on.
const OWN: u64 = 1 << 48;
/// How long it waits before it tries again, in nanoseconds.
const AGAIN_NS: u64 = 3_000;

/// What a program does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
    Nothing,
}

/// What a core tells.
#[derive(Clone, Debug, Hash)]
pub enum Note {
    /// A program begins something.
    Begun {
        /// Its number on this core.
        token: u64,
        /// What.
        op: Op,
        /// What it is measured as.
        measured: Option<&'static str>,
    },
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

/// A step of a run without faults.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub at_ns: u64,
    pub op: Op,
    pub measured: Option<&'static str>,
}

/// What takes time.
#[derive(Clone, Debug)]
enum Task {
    Insert(OpId, Region),
    Retype(Region, u32, Region),
    /// A removal is to be looked at again.
    Look,
    Op,
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
    life: Life,
    random: Random,
    pause_ns: u64,
    left: u64,
    token: u64,
    own_token: u64,
    roots: Vec<Region>,
    ledger: Rc<RefCell<Ledger>>,
    copies: BTreeMap<Region, u32>,
    /// Objects, and what they were made from.
    made: BTreeMap<Region, Region>,
    tasks: Vec<(u64, Task)>,
    removals: Vec<Removal>,
    owned: BTreeSet<Region>,
    adopted: BTreeSet<(usize, u32)>,
    script: Option<VecDeque<Step>>,
    has_begun: bool,
    hurries: bool,
}

impl Driver {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        life: Life,
        random: Random,
        pause_ns: u64,
        left: u64,
        roots: Vec<Region>,
        ledger: Rc<RefCell<Ledger>>,
        script: Option<VecDeque<Step>>,
        hurries: bool,
    ) -> Self {
        Self {
            life,
            random,
            pause_ns,
            left,
            token: 1,
            own_token: OWN,
            roots,
            ledger,
            copies: BTreeMap::new(),
            made: BTreeMap::new(),
            tasks: Vec::new(),
            removals: Vec::new(),
            owned: BTreeSet::new(),
            adopted: BTreeSet::new(),
            script,
            has_begun: false,
            hurries,
        }
    }

    fn pause(&mut self) -> u64 {
        let most = self.random.pick(&[0, 500, 5_000, self.pause_ns]);
        self.random.below(most + 1)
    }

    /// How long the CPU driver takes for something.
    fn effort(&mut self) -> u64 {
        match self.pause_ns {
            0 => 0,
            _ => {
                let most = self.random.pick(&[0, 300, 3_000, 30_000]);
                self.random.below(most + 1)
            }
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
        let covers = |one: &Removal| one.region == *region || is_from(region, &one.region);
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
        } else if self.ledger.borrow().owners.get(&region) == Some(&self.life) {
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
            Kind::Ram => self.random.pick(&[Kind::Ram, Kind::Frame]),
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
        let meets =
            |(child, parent): (&Region, &Region)| *parent == region && meet(&child.range(), &range);
        if self.made.iter().any(meets) {
            return self.done(token, Err(Error::Overlap), hands);
        }
        let child = self.child(&region, &range);
        self.made.insert(child, region);
        hands.note(Note::Made(child, Some(region)));
        self.set_copies(child, 1, hands);
        self.done(token, Ok(()), hands);
    }

    fn begin(&mut self, op: Op, measured: Option<&'static str>, hands: &mut Hands<'_, Note>) {
        let token = self.token;
        self.token += 1;
        let noted = op.clone();
        hands.note(Note::Begun {
            token,
            op: noted,
            measured,
        });
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
        let at_ns = hands.now_ns + self.effort();
        self.tasks.push((at_ns, Task::Look));
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
        left.retain(|one| is_from(one, &region));
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
        made.retain(|one| is_from(one, &region));
        made.sort_by_key(|one| (one.bytes, u8::MAX - one.depth));
        for one in made {
            if !hands.agent.regions().is_shared(one) {
                self.made.remove(&one);
                hands.note(Note::Made(one, None));
            }
        }
        !self.made.keys().any(|one| is_from(one, &region))
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
                self.tasks.push((now_ns + AGAIN_NS, Task::Look));
            } else {
                removal.revoked.insert(inner);
            }
        }
    }

    fn choose(&mut self, hands: &Hands<'_, Note>) -> Op {
        let free = |one: &Region, ledger: &Ledger| {
            ledger.free.contains(one) && ledger.owners.get(one) == Some(&self.life)
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
        if held.is_empty() || !free.is_empty() && self.random.below(5) == 0 {
            return match free.is_empty() {
                true => Op::Delete(self.roots[0]),
                false => Op::Take(self.random.pick(&free)),
            };
        }
        let region = self.random.pick(&held);
        let others = hands.agent.view().cores.clone();
        match self.random.below(16) {
            0..=5 => {
                let place = self.random.below(others.len() as u64) as usize;
                let to = others.nth(place).unwrap_or(0);
                Op::Send(region, to)
            }
            6 => Op::Copy(region),
            7..=9 => {
                let pages = region.bytes / PAGE;
                let first = self.random.below(pages);
                let count = 1 + self.random.below(pages - first);
                let start = region.base + first * PAGE;
                Op::Retype(region, start..start + count * PAGE)
            }
            10..=13 => Op::Delete(region),
            _ => Op::Revoke(region),
        }
    }

    fn complete(&mut self, task: &Task, hands: &mut Hands<'_, Note>) {
        let fails = self.pause_ns > 0 && self.random.below(8) == 0;
        match *task {
            Task::Insert(id, region) => {
                let mut result = Err(Error::NoSlot);
                if !fails {
                    let count = self.copies.get(&region).copied().unwrap_or(0);
                    self.set_copies(region, count + 1, hands);
                    result = Ok(());
                }
                self.ask(hands, |regions| regions.inserted(id, result));
            }
            Task::Retype(region, sequence, child) => {
                if fails {
                    self.made.remove(&child);
                    hands.note(Note::Made(child, None));
                } else {
                    self.set_copies(child, 1, hands);
                }
                self.ask(hands, |regions| regions.retyped(region, sequence, !fails));
            }
            Task::Look => {}
            Task::Op => {
                if let Some(script) = &mut self.script {
                    if let Some(step) = script.pop_front() {
                        if let Some(next) = script.front() {
                            self.tasks.push((next.at_ns, Task::Op));
                        }
                        self.begin(step.op, step.measured, hands);
                    }
                    return;
                }
                let op = self.choose(hands);
                self.begin(op, None, hands);
                self.left -= 1;
                if self.left > 0 {
                    let at_ns = hands.now_ns + self.pause();
                    self.tasks.push((at_ns, Task::Op));
                }
            }
        }
    }
}

impl Load for Driver {
    type Note = Note;

    fn installed(&mut self, hands: &mut Hands<'_, Note>) {
        hands.note(Note::Installed(hands.agent.view().clone()));
        if !std::mem::replace(&mut self.has_begun, true) {
            let at_ns = match &self.script {
                None => Some(hands.now_ns + self.pause()),
                Some(script) => script.front().map(|step| step.at_ns),
            };
            self.tasks.extend(at_ns.map(|at_ns| (at_ns, Task::Op)));
        }
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
                let at_ns = hands.now_ns + self.effort();
                self.tasks.push((at_ns, Task::Insert(id, region)));
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
                let at_ns = hands.now_ns + self.effort();
                let task = Task::Retype(region, sequence, child);
                self.tasks.push((at_ns, task));
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
        let now_ns = hands.now_ns;
        let due = self.tasks.iter().position(|(at_ns, _)| *at_ns <= now_ns);
        if let Some(due) = due {
            let (_, task) = self.tasks.remove(due);
            self.complete(&task, hands);
        }
        self.pursue(hands);
    }

    fn deadline_ns(&self) -> Option<u64> {
        self.tasks.iter().map(|(at_ns, _)| *at_ns).min()
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
