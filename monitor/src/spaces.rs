//! Address spaces of domains that span cores: one page-table replica a core, and an unmap that
//! returns when no core can use the old translation any more.
//!
//! Each space has a *home* core that puts what changes it in order. It keeps the table of what is
//! mapped, and which cores hold each entry:
//!
//! ```text
//!  initiator            home                  holder              holder
//!    │ unmaps locally    │                      │                   │
//!    │ Ask {restrict} ──►│ Spread {restrict} ──►│ Spread ──────────►│    a round: see round.rs
//!    │                   │ unmaps locally       │ unmaps locally    │ unmaps locally
//!    │                   │◄──────────────── Ack │◄────────────── Ack│
//!    │◄────────── Answer │ takes the entry out of the table
//!    │ returns
//!
//!    │ Ask {map} ───────►│ notes the entry, held by the initiator
//!    │◄─────────── Grant │
//!    │ Ask {fetch} ─────►│ notes one more holder          after a page fault
//!    │◄─────────── Grant │
//! ```
//!
//! **Mappings travel on demand.** A map costs two messages (none at home), and a core that never
//! touches a page never hears of it: not of its map, nor of its unmap, which goes to the holders
//! only. An eager map would cost 2(N-1) messages, and so would every unmap. The price is one fault
//! and two messages for each further core, once per entry.
//!
//! **Why nobody can use a page after its unmap returned.** Every core that has a translation is
//! noted as holder of the entry, before it is told of it. The home does not grant, map or restrict
//! what overlaps an operation under way; all that waits its turn. All holders but the initiator are
//! in the round and acknowledge after their local unmap; the initiator has done so before it asked.
//! What could bring a translation back is a grant that was sent before and comes after. Between home
//! and holder messages may pass one another, as a round goes by its tree. So whoever takes part in a
//! round while it waits for an answer does not install what that answer grants, and asks again. An
//! initiator installs nothing that overlaps its own unmap, and asks for such pages only after it.
//!
//! **Whoever maps holds it.** So a map, too, ends only when the initiator has installed the grant, or
//! knows that the mapping is gone again. A table that is lost with the home can then be put together
//! from the replicas. (Of a mapping that others restrict in part in that time, it takes one part;
//! and whoever leaves meanwhile takes nothing.)
//!
//! Two unmaps of one page both return after all is done: the second one waits at the home and finds
//! nothing left. To protect is the same with other rights: replicas only lose rights by it; whatever
//! rights are new come with the next fault. To unmap is to leave no rights.
//!
//! **Cores join and leave the span** in the same order, by a round over all of the span: after a join
//! all know of the new core, and only then it is granted anything. It begins with an empty replica,
//! so it never has an old translation. Whoever leaves unmaps all before it asks.
//!
//! **View changes.** Cores that are gone hold nothing. Initiators ask again; what the home has done
//! already it answers again, without a grant, as the grant may be old. Where the home is gone, the
//! next core of the view takes over, in the span or not: all know it without a word, while what
//! members know of the span may differ by a join that was under way. Every member reports what it
//! holds (`Holding`, then `Reported` with the span it knows), and the home waits until all have
//! reported that anybody who reported knows of, or said that they were never told (`Query`, `Absent`).
//! Those are all who hold anything: a core is granted nothing before all others know of it. A last round tells all the span; whoever did not
//! hear it by the next view change reports again. A home that outlives a view change in the midst of a
//! join or leave tells all the span anew, with whoever may have been told in it. A map that the old
//! home may have done or not fails with [`Error::Lost`] unless something of it is there: it is never
//! done twice. An unmap is asked for again.
//!
//! **What is free.** The home says of all that it takes out of its table, once, that it is free. It
//! has to know of it: what no replica has when a home is lost, be it in the midst of an unmap, no
//! home speaks of again. No core has it or gets it; whoever mapped it knows so when all that it
//! mapped is unmapped.

use crate::core_set::CoreSet;
use crate::round::{self, Payload, Round};
use crate::tree::{Machine, Planner, Strategy};
use crate::view::View;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

mod message;
mod table;
#[cfg(test)]
mod tests;

pub use crate::round::WINDOW;
use message::Change;
pub use message::{Answer, Ask, Error, Mapping, Message, Pages, Rights, SpaceId};
use table::Table;

/// Most spaces that one core makes.
pub const MAX_SPACES: usize = 4096;
/// Most entries of one space.
pub const MAX_ENTRIES: usize = 1 << 10;

/// What the monitor is to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send a message to a core.
    Send(usize, Message),
    /// Enter this into the local page table, at once; what is there of the same pages gives way.
    Map {
        /// The space.
        space: SpaceId,
        /// What.
        mapping: Mapping,
    },
    /// Leave the pages no more than these rights in the local page table, and flush what the local
    /// TLB has of them; then say [`Spaces::unmapped`].
    Unmap {
        /// Names the work; used once.
        work: u64,
        /// The space.
        space: SpaceId,
        /// The pages.
        pages: Pages,
        /// The rights; with none the pages are not mapped any more.
        rights: Rights,
    },
    /// No core has these pages any more, nor will one: what is behind them is free. The home says so.
    Freed {
        /// The space.
        space: SpaceId,
        /// What was mapped.
        mapping: Mapping,
    },
    /// What was asked for under this token has come to this.
    Done {
        /// The caller's.
        token: u64,
        /// How it ended.
        result: Result<(), Error>,
    },
}

/// A space that has a replica here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Replica {
    home: usize,
    span: CoreSet,
    /// What the local page table has, or a little more.
    table: Table,
    /// The home knows of us, and all of the span know it.
    is_settled: bool,
}

/// Something that was asked of the home.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Request {
    from: usize,
    sequence: u32,
    ask: Ask,
}

/// A space whose home is here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Home {
    span: CoreSet,
    table: Table,
    /// In the order in which they came.
    queue: VecDeque<Request>,
    /// Rounds under way, by sequence.
    active: BTreeMap<u32, Request>,
    /// Until all have reported; the span is who has.
    recovery: Option<Recovery>,
}

/// What a new home does not know yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Recovery {
    /// Somebody knows of them, and they have not reported.
    waiting: CoreSet,
    /// They say that they have no replica.
    absent: CoreSet,
}

/// How far an own operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// It waits for a local unmap.
    Local,
    /// It waits for the end of another one.
    Held,
    /// It waits for the home.
    Asked {
        /// A round has passed since: what is granted may be old.
        is_old: bool,
    },
}

/// An operation of this core.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Operation {
    token: u64,
    space: SpaceId,
    ask: Ask,
    /// What a fetch is for.
    access: Rights,
    stage: Stage,
    /// Of a map: a home has done it, and is asked again what to install.
    is_done: bool,
}

impl Operation {
    /// The pages that must not come back before it is over.
    fn restricted(&self) -> Option<Pages> {
        match self.ask {
            Ask::Restrict { pages, .. } => Some(pages),
            Ask::Leave => Some(Pages::ALL),
            _ => None,
        }
    }
}

/// A local unmap under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Work {
    space: SpaceId,
    pages: Pages,
    rights: Rights,
    cause: Cause,
}

/// What goes on after a local unmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Cause {
    Operation(u32),
    Round(u64),
}

/// One monitor's part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spaces {
    own: usize,
    view: View,
    round: Round,
    replicas: BTreeMap<SpaceId, Replica>,
    homes: BTreeMap<SpaceId, Home>,
    /// Whose own rounds are under way, by sequence.
    rounds: BTreeMap<u32, SpaceId>,
    /// Something waits until a round ends.
    is_starved: bool,
    operations: BTreeMap<u32, Operation>,
    next_sequence: u32,
    works: BTreeMap<u64, Work>,
    next_work: u64,
    /// What each core's last operations came to: it may ask again after a view change.
    answered: BTreeMap<usize, VecDeque<(u32, Answer)>>,
}

impl Spaces {
    /// The part of core `own`, in no view yet.
    pub fn new(own: usize, planner: Planner) -> Self {
        Self {
            own,
            view: View::default(),
            round: Round::new(own, planner),
            replicas: BTreeMap::new(),
            homes: BTreeMap::new(),
            rounds: BTreeMap::new(),
            is_starved: false,
            operations: BTreeMap::new(),
            next_sequence: 0,
            works: BTreeMap::new(),
            next_work: 0,
            answered: BTreeMap::new(),
        }
    }

    /// See [`Round::set_strategy`].
    pub fn set_strategy(&mut self, strategy: Strategy, machine: Arc<Machine>) {
        self.round.set_strategy(strategy, machine);
    }

    /// The home of a space that has a replica here.
    pub fn home(&self, space: SpaceId) -> Option<usize> {
        self.replicas.get(&space).map(|replica| replica.home)
    }

    /// The span of a space, as far as it is known here.
    pub fn span(&self, space: SpaceId) -> Option<&CoreSet> {
        self.replicas.get(&space).map(|replica| &replica.span)
    }

    /// What the local page table has for a page, or may have.
    pub fn held(&self, space: SpaceId, page: u64) -> Option<Mapping> {
        let (mapping, _) = self.replicas.get(&space)?.table.at(page)?;
        Some(mapping)
    }

    /// Whether the local page table has, or may have, any of these pages.
    pub fn holds(&self, space: SpaceId, pages: Pages) -> bool {
        let replica = self.replicas.get(&space);
        replica.is_some_and(|replica| replica.table.overlapping(pages).next().is_some())
    }

    /// What may be entered into the local page table for a page: it is held, and not about to go.
    pub fn usable(&self, space: SpaceId, page: u64) -> Option<Mapping> {
        let held = self.held(space, page)?;
        (!self.is_blocked(space, Pages::one(page))).then_some(held)
    }

    /// The spaces that have a replica here.
    pub fn replicas(&self) -> impl Iterator<Item = SpaceId> {
        self.replicas.keys().copied()
    }

    /// What is mapped for a page, if the home is here and knows.
    pub fn mapped(&self, space: SpaceId, page: u64) -> Option<Mapping> {
        let home = self.homes.get(&space)?;
        Some(home.table.at(page)?.0)
    }

    /// The spaces whose home is here.
    pub fn homes(&self) -> impl Iterator<Item = SpaceId> {
        self.homes.keys().copied()
    }

    /// Whether the home of a space is here, and knows of it.
    pub fn is_home(&self, space: SpaceId) -> bool {
        self.homes.contains_key(&space)
    }

    /// Own operations that have not come to an end.
    pub fn under_way(&self) -> usize {
        self.operations.len()
    }

    /// Whether this home waits for reports.
    pub fn is_recovering(&self, space: SpaceId) -> bool {
        let home = self.homes.get(&space);
        home.is_some_and(|home| home.recovery.is_some())
    }

    /// Makes a space whose home and only core is this one.
    ///
    /// # Errors
    ///
    /// The name is in use here, or there are [`MAX_SPACES`].
    pub fn create(&mut self, space: SpaceId) -> Result<(), Error> {
        if self.replicas.contains_key(&space) || self.homes.contains_key(&space) {
            return Err(Error::Exists);
        }
        if self.replicas.len() >= MAX_SPACES {
            return Err(Error::Full);
        }
        let span = CoreSet::from_iter([self.own]);
        let replica = Replica {
            home: self.own,
            span: span.clone(),
            table: Table::default(),
            is_settled: true,
        };
        self.replicas.insert(space, replica);
        let home = Home {
            span,
            table: Table::default(),
            queue: VecDeque::new(),
            active: BTreeMap::new(),
            recovery: None,
        };
        self.homes.insert(space, home);
        Ok(())
    }

    /// Maps pages where nothing is mapped. Other cores take it when they touch it: see
    /// [`Self::fault`].
    pub fn map(&mut self, token: u64, space: SpaceId, mapping: Mapping) -> Vec<Action> {
        let ask = Ask::Map {
            mapping,
            again: false,
        };
        if !mapping.is_sound() {
            return refuse(token, Error::Invalid);
        }
        if self.is_blocked(space, mapping.pages) {
            return refuse(token, Error::Busy);
        }
        self.start(token, space, ask, Rights::NONE)
    }

    /// Unmaps pages on all cores. It is done when no core can use what was there.
    pub fn unmap(&mut self, token: u64, space: SpaceId, pages: Pages) -> Vec<Action> {
        self.restrict(token, space, pages, Rights::NONE)
    }

    /// Sets the rights of what is mapped of these pages. It is done when no core can use rights that
    /// are gone; new rights come with the next fault.
    pub fn protect(
        &mut self,
        token: u64,
        space: SpaceId,
        pages: Pages,
        rights: Rights,
    ) -> Vec<Action> {
        if rights == Rights::NONE {
            return refuse(token, Error::Invalid);
        }
        self.restrict(token, space, pages, rights)
    }

    fn restrict(
        &mut self,
        token: u64,
        space: SpaceId,
        pages: Pages,
        rights: Rights,
    ) -> Vec<Action> {
        if !pages.is_sound() {
            return refuse(token, Error::Invalid);
        }
        self.start(token, space, Ask::Restrict { pages, rights }, rights)
    }

    /// A program of this core touched a page that the local page table does not have, or not so.
    pub fn fault(&mut self, token: u64, space: SpaceId, page: u64, access: Rights) -> Vec<Action> {
        if !Pages::one(page).is_sound() {
            return refuse(token, Error::Invalid);
        }
        let held = self.held(space, page);
        if held.is_some_and(|held| held.rights.include(access))
            && !self.is_blocked(space, Pages::one(page))
        {
            let result = Ok(());
            return [Action::Done { token, result }].into();
        }
        self.start(token, space, Ask::Fetch { page }, access)
    }

    /// Takes another core into the span; done when it can begin there. It begins with nothing mapped.
    pub fn join(&mut self, token: u64, space: SpaceId, core: usize) -> Vec<Action> {
        self.start(token, space, Ask::Join { core }, Rights::NONE)
    }

    /// Takes this core out of the span; all that it has mapped goes.
    pub fn leave(&mut self, token: u64, space: SpaceId) -> Vec<Action> {
        self.start(token, space, Ask::Leave, Rights::NONE)
    }

    fn start(&mut self, token: u64, space: SpaceId, ask: Ask, access: Rights) -> Vec<Action> {
        let Some(replica) = self.replicas.get(&space) else {
            return refuse(token, Error::NoSuchSpace);
        };
        if self.operations.len() >= WINDOW {
            return refuse(token, Error::Busy);
        }
        if let Ask::Restrict { pages, .. } = ask
            && replica.table.is_too_full_for(pages)
        {
            return refuse(token, Error::Full);
        }
        let mut actions = Vec::new();
        let mut sequence = self.next_sequence;
        while self.operations.contains_key(&sequence) {
            sequence = sequence.wrapping_add(1);
        }
        self.next_sequence = sequence.wrapping_add(1);
        let mut operation = Operation {
            token,
            space,
            ask,
            access,
            stage: Stage::Held,
            is_done: false,
        };
        let rights = if ask == Ask::Leave {
            Rights::NONE
        } else {
            access
        };
        let restricted = operation.restricted();
        let local = restricted.filter(|pages| replica.table.exceeds(*pages, rights));
        if local.is_some() {
            operation.stage = Stage::Local;
        }
        self.operations.insert(sequence, operation);
        if ask == Ask::Leave {
            self.release(&mut actions);
        }
        if let Some(pages) = local {
            let cause = Cause::Operation(sequence);
            self.work(space, pages, rights, cause, &mut actions);
        } else if matches!(ask, Ask::Fetch { .. }) {
            self.release(&mut actions);
        } else {
            self.ask(sequence, &mut actions);
        }
        actions
    }

    /// Whether pages of the local replica are about to go: nothing of them may come back before.
    fn is_blocked(&self, space: SpaceId, pages: Pages) -> bool {
        let of_operation = |operation: &Operation| {
            let restricted = operation.restricted();
            operation.space == space && restricted.is_some_and(|range| range.overlaps(pages))
        };
        let of_work = |work: &Work| work.space == space && work.pages.overlaps(pages);
        self.operations.values().any(of_operation) || self.works.values().any(of_work)
    }

    fn work(
        &mut self,
        space: SpaceId,
        pages: Pages,
        rights: Rights,
        cause: Cause,
        actions: &mut Vec<Action>,
    ) {
        self.next_work += 1;
        let work = self.next_work;
        let under_way = Work {
            space,
            pages,
            rights,
            cause,
        };
        self.works.insert(work, under_way);
        actions.push(Action::Unmap {
            work,
            space,
            pages,
            rights,
        });
    }

    /// The local unmap of this number is done.
    pub fn unmapped(&mut self, work: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(work) = self.works.remove(&work) else {
            return actions;
        };
        if let Some(replica) = self.replicas.get_mut(&work.space) {
            replica.table.restrict(work.pages, work.rights);
        }
        match work.cause {
            Cause::Operation(sequence) => self.ask(sequence, &mut actions),
            Cause::Round(work) => {
                let of_round = self.round.worked(work);
                self.carry_out(of_round, &mut actions);
            }
        }
        self.release(&mut actions);
        actions
    }

    /// Sends what an own operation asks to the home.
    fn ask(&mut self, sequence: u32, actions: &mut Vec<Action>) {
        let Some(operation) = self.operations.get_mut(&sequence) else {
            return;
        };
        let Some(replica) = self.replicas.get(&operation.space) else {
            let result = Err(Error::NoSuchSpace);
            self.finish(sequence, result, actions);
            return;
        };
        operation.stage = Stage::Asked { is_old: false };
        let mut ask = operation.ask;
        if let Ask::Map { again, .. } = &mut ask {
            *again |= operation.is_done;
        }
        let message = Message::Ask {
            sequence,
            space: operation.space,
            ask,
        };
        self.send(replica.home, message, actions);
    }

    /// Asks for what nothing stands in the way of any more.
    fn release(&mut self, actions: &mut Vec<Action>) {
        let held = |operation: &Operation| operation.stage == Stage::Held;
        let leaving = |space: SpaceId| {
            let mut all = self.operations.values();
            all.any(|one| one.space == space && one.ask == Ask::Leave)
        };
        let over: Vec<u32> = self
            .operations
            .iter()
            .filter(|(_, one)| held(one) && one.is_done && leaving(one.space))
            .map(|(sequence, _)| *sequence)
            .collect();
        // Whoever leaves holds nothing.
        for sequence in over {
            self.finish(sequence, Ok(()), actions);
        }
        let is_free = |operation: &Operation| match operation.ask {
            Ask::Fetch { page } => !self.is_blocked(operation.space, Pages::one(page)),
            Ask::Map { mapping, .. } => !self.is_blocked(operation.space, mapping.pages),
            _ => false,
        };
        let free: Vec<u32> = self
            .operations
            .iter()
            .filter(|(_, operation)| held(operation) && is_free(operation))
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in free {
            // One may have released another meanwhile.
            if self.operations.get(&sequence).is_some_and(held) {
                self.ask(sequence, actions);
            }
        }
    }

    fn finish(&mut self, sequence: u32, result: Result<(), Error>, actions: &mut Vec<Action>) {
        if let Some(operation) = self.operations.remove(&sequence) {
            let token = operation.token;
            actions.push(Action::Done { token, result });
        }
    }

    fn send(&mut self, to: usize, message: Message, actions: &mut Vec<Action>) {
        if to == self.own {
            self.receive(self.own, &message, actions);
        } else {
            actions.push(Action::Send(to, message));
        }
    }

    /// A message came. Whatever it says, at whatever time, it makes sense or is left aside.
    pub fn on_message(&mut self, from: usize, message: &Message) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.view.cores.contains(from) && from != self.own {
            self.receive(from, message, &mut actions);
        }
        actions
    }

    fn receive(&mut self, from: usize, message: &Message, actions: &mut Vec<Action>) {
        match message {
            Message::Ask {
                sequence,
                space,
                ask,
            } => self.asked(from, *sequence, *space, *ask, actions),
            Message::Answer { sequence, answer } => {
                self.on_answer(from, *sequence, *answer, actions);
            }
            Message::Round(message) => {
                let of_round = self.round.on_message(from, message);
                self.carry_out(of_round, actions);
            }
            Message::Holding { space, mapping } => {
                self.reporting(*space).table.merge(*mapping, from);
            }
            Message::Reported { space, span } => self.reported(from, *space, span, actions),
            Message::Query { space } => {
                // Whoever has a replica has reported.
                if !self.replicas.contains_key(space) {
                    self.send(from, Message::Absent { space: *space }, actions);
                }
            }
            Message::Absent { space } => {
                let home = self.homes.get_mut(space);
                let recovery = home.and_then(|home| home.recovery.as_mut());
                if let Some(recovery) = recovery
                    && recovery.waiting.remove(from)
                {
                    recovery.absent.insert(from);
                    self.recover(*space, actions);
                }
            }
        }
    }

    fn on_answer(&mut self, from: usize, sequence: u32, answer: Answer, actions: &mut Vec<Action>) {
        let Some(operation) = self.operations.get_mut(&sequence) else {
            return;
        };
        let Stage::Asked { is_old } = operation.stage else {
            return;
        };
        let (space, ask, access) = (operation.space, operation.ask, operation.access);
        // It has gone again since, unless another home says so, which may not have known of it.
        let is_over = operation.is_done && !matches!(ask, Ask::Map { again: true, .. });
        if self.home(space).is_some_and(|home| home != from) {
            return;
        }
        let mut result = match answer {
            Answer::Failed(error) if !is_over => Err(error),
            Answer::Failed(_) | Answer::Done | Answer::Grant(_) => Ok(()),
        };
        if answer == Answer::Done && matches!(ask, Ask::Map { .. }) {
            self.hold(sequence, actions);
            return;
        }
        if let Answer::Grant(mut mapping) = answer {
            if let Ask::Fetch { page } = ask
                && self.is_blocked(space, mapping.pages)
            {
                // The page that was touched may be free of what stands in the way of others.
                mapping = mapping.only(page);
            }
            let can_install = !is_old && !self.is_blocked(space, mapping.pages);
            if can_install && mapping.rights.include(access) {
                self.install(space, mapping, actions);
            } else if can_install {
                result = Err(Error::NotAllowed);
            } else {
                self.hold(sequence, actions);
                return;
            }
        }
        if ask == Ask::Leave && matches!(result, Ok(()) | Err(Error::NoSuchSpace)) {
            result = Ok(());
            self.replicas.remove(&space);
        }
        self.finish(sequence, result, actions);
        self.release(actions);
    }

    /// The home knows of it, but it cannot be installed: asks again, once nothing stands in the way.
    fn hold(&mut self, sequence: u32, actions: &mut Vec<Action>) {
        if let Some(operation) = self.operations.get_mut(&sequence) {
            operation.stage = Stage::Held;
            operation.is_done = matches!(operation.ask, Ask::Map { .. });
        }
        self.release(actions);
    }

    /// Enters what was granted.
    fn install(&mut self, space: SpaceId, mapping: Mapping, actions: &mut Vec<Action>) {
        if let Some(replica) = self.replicas.get_mut(&space) {
            replica.table.carve(mapping.pages);
            replica.table.put(mapping, CoreSet::default());
            actions.push(Action::Map { space, mapping });
        }
    }

    /// What the rounds are to do.
    fn carry_out(&mut self, of_round: Vec<round::Action>, actions: &mut Vec<Action>) {
        for action in of_round {
            match action {
                round::Action::Send(to, message) => {
                    actions.push(Action::Send(to, Message::Round(message)));
                }
                round::Action::Work {
                    work,
                    root,
                    set,
                    payload,
                } => self.take_part(work, root, set, payload, actions),
                round::Action::Done { sequence } => self.round_done(sequence, actions),
            }
        }
    }

    fn take_part(
        &mut self,
        work: u64,
        root: usize,
        mut set: CoreSet,
        payload: Payload,
        actions: &mut Vec<Action>,
    ) {
        let change = Change::from_payload(payload);
        if let Some((space, _)) = change {
            for operation in self.operations.values_mut() {
                if let Stage::Asked { is_old } = &mut operation.stage {
                    *is_old |= operation.space == space;
                }
            }
        }
        match change {
            Some((space, Change::Restrict { pages, rights })) => {
                let replica = self.replicas.get(&space);
                if replica.is_some_and(|replica| replica.table.exceeds(pages, rights)) {
                    self.work(space, pages, rights, Cause::Round(work), actions);
                    return;
                }
            }
            Some((space, Change::Span { with_home })) => {
                if !with_home {
                    set.remove(root);
                }
                if set.contains(self.own) {
                    let replica = self.replicas.entry(space).or_insert_with(|| Replica {
                        home: root,
                        span: CoreSet::default(),
                        table: Table::default(),
                        is_settled: true,
                    });
                    replica.home = root;
                    replica.span = set;
                    replica.is_settled = true;
                }
            }
            None => {}
        }
        let of_round = self.round.worked(work);
        self.carry_out(of_round, actions);
    }

    // What the home does.

    fn asked(
        &mut self,
        from: usize,
        sequence: u32,
        space: SpaceId,
        ask: Ask,
        actions: &mut Vec<Action>,
    ) {
        let mut answered = self.answered.get(&from).into_iter().flatten();
        let known = answered.find(|(number, _)| *number == sequence && !ask.is_repeatable());
        let at_once = if let Some((_, answer)) = known {
            Some(*answer)
        } else if let Some(home) = self.homes.get_mut(&space) {
            let request = Request {
                from,
                sequence,
                ask,
            };
            let waiting = home.queue.iter().filter(|other| other.from == from);
            if waiting.count() >= WINDOW || ask == Ask::Settle {
                Some(Answer::Failed(Error::Busy))
            } else {
                home.queue.push_back(request);
                None
            }
        } else {
            Some(Answer::Failed(Error::NoSuchSpace))
        };
        match at_once {
            Some(answer) => self.send(from, Message::Answer { sequence, answer }, actions),
            None => self.pump(space, actions),
        }
    }

    /// Does what can be done of what was asked, in order where the pages overlap.
    fn pump(&mut self, space: SpaceId, actions: &mut Vec<Action>) {
        while let Some(request) = self.next_request(space) {
            self.serve(space, request, actions);
        }
    }

    fn next_request(&mut self, space: SpaceId) -> Option<Request> {
        let is_full = self.round.is_full();
        let home = self.homes.get_mut(&space)?;
        if home.recovery.is_some() {
            return None;
        }
        let range = |request: &Request| match request.ask {
            Ask::Map { mapping, .. } => mapping.pages,
            Ask::Restrict { pages, .. } => pages,
            Ask::Fetch { page } => {
                let found = home.table.at(page);
                found.map_or(Pages::one(page), |(mapping, _)| mapping.pages)
            }
            Ask::Join { .. } | Ask::Leave | Ask::Settle => Pages::ALL,
        };
        let needs_round =
            |request: &Request| !matches!(request.ask, Ask::Map { .. } | Ask::Fetch { .. });
        let mut taken: Vec<Pages> = home.active.values().map(range).collect();
        let mut found = None;
        for (at, request) in home.queue.iter().enumerate() {
            let pages = range(request);
            let is_free = !taken.iter().any(|other| other.overlaps(pages));
            if is_free && is_full && needs_round(request) {
                self.is_starved = true;
            } else if is_free {
                found = Some(at);
                break;
            }
            taken.push(pages);
        }
        home.queue.remove(found?)
    }

    /// Nothing that overlaps is under way, and a round can begin.
    fn serve(&mut self, space: SpaceId, request: Request, actions: &mut Vec<Action>) {
        let Some(home) = self.homes.get_mut(&space) else {
            return;
        };
        let from = request.from;
        let is_member = home.span.contains(from) || request.ask == Ask::Settle;
        let answer = match request.ask {
            Ask::Leave if !is_member => Answer::Done,
            _ if !is_member => Answer::Failed(Error::NotMember),
            Ask::Map { mapping, again } => {
                let overlapping = home.table.overlapping(mapping.pages);
                let there: Vec<Mapping> = overlapping.map(|(other, _)| other).collect();
                // Others may have unmapped or protected some of it.
                let is_part = |other: &&Mapping| again && other.is_part_of(mapping);
                let part = there.iter().rev().find(is_part).copied();
                match part {
                    Some(part) => home.table.grant(part, from),
                    None if !there.is_empty() => Answer::Failed(Error::Exists),
                    None if again => Answer::Failed(Error::Lost),
                    None if home.table.0.len() >= MAX_ENTRIES => Answer::Failed(Error::Full),
                    None => {
                        home.table.put(mapping, CoreSet::default());
                        home.table.grant(mapping, from)
                    }
                }
            }
            Ask::Fetch { page } => match home.table.at(page).map(|(mapping, _)| mapping) {
                Some(mapping) => home.table.grant(mapping, from),
                None => Answer::Failed(Error::NotMapped),
            },
            Ask::Restrict { pages, rights } => {
                let mut holders = CoreSet::default();
                let mut is_mapped = false;
                for (mapping, entry) in home.table.overlapping(pages) {
                    is_mapped = true;
                    if !rights.include(mapping.rights) {
                        holders.extend(&entry.holders);
                    }
                }
                holders.remove(from);
                if !is_mapped && rights != Rights::NONE {
                    Answer::Failed(Error::NotMapped)
                } else if home.table.is_too_full_for(pages) {
                    Answer::Failed(Error::Full)
                } else if holders.is_empty() {
                    self.complete(space, &request, actions);
                    return;
                } else {
                    let works = holders.contains(self.own);
                    let change = Change::Restrict { pages, rights };
                    self.begin_round(space, request, holders, change, works, actions);
                    return;
                }
            }
            Ask::Join { core } if !self.view.cores.contains(core) => {
                Answer::Failed(Error::NoSuchCore)
            }
            Ask::Join { core } if home.span.contains(core) => Answer::Done,
            Ask::Join { .. } | Ask::Leave | Ask::Settle => {
                let span = span_after(home, &request);
                if span.is_empty() {
                    // Nobody is left; the leaver may have asked for more.
                    let later = core::mem::take(&mut home.queue);
                    for (mapping, _) in home.table.carve(Pages::ALL) {
                        actions.push(Action::Freed { space, mapping });
                    }
                    self.homes.remove(&space);
                    self.answer(&request, Answer::Done, actions);
                    for request in later {
                        let answer = Answer::Failed(Error::NoSuchSpace);
                        self.answer(&request, answer, actions);
                    }
                    return;
                }
                let with_home = span.contains(self.own);
                let change = Change::Span { with_home };
                self.begin_round(space, request, span, change, with_home, actions);
                return;
            }
        };
        self.answer(&request, answer, actions);
    }

    fn begin_round(
        &mut self,
        space: SpaceId,
        request: Request,
        set: CoreSet,
        change: Change,
        works: bool,
        actions: &mut Vec<Action>,
    ) {
        let begun = self.round.begin(set, change.payload(space), works);
        let Some(home) = self.homes.get_mut(&space) else {
            return;
        };
        match begun {
            Some((sequence, of_round)) => {
                home.active.insert(sequence, request);
                self.rounds.insert(sequence, space);
                self.carry_out(of_round, actions);
            }
            // It was said that there is room; the next round that ends tries again.
            None => home.queue.push_front(request),
        }
    }

    fn round_done(&mut self, sequence: u32, actions: &mut Vec<Action>) {
        let Some(space) = self.rounds.remove(&sequence) else {
            return;
        };
        let home = self.homes.get_mut(&space);
        let Some(request) = home.and_then(|home| home.active.remove(&sequence)) else {
            return;
        };
        self.complete(space, &request, actions);
        self.pump(space, actions);
        if core::mem::take(&mut self.is_starved) {
            // There is room for a round again.
            let waits =
                |(space, home): (&SpaceId, &Home)| (!home.queue.is_empty()).then_some(*space);
            let waiting: Vec<SpaceId> = self.homes.iter().filter_map(waits).collect();
            for space in waiting {
                self.pump(space, actions);
            }
        }
    }

    /// All who are concerned have done what was asked.
    fn complete(&mut self, space: SpaceId, request: &Request, actions: &mut Vec<Action>) {
        if let Some(home) = self.homes.get_mut(&space) {
            match request.ask {
                Ask::Restrict { pages, rights } => {
                    for (mut mapping, holders) in home.table.carve(pages) {
                        if rights == Rights::NONE {
                            actions.push(Action::Freed { space, mapping });
                        } else {
                            mapping.rights = rights;
                            home.table.put(mapping, holders);
                        }
                    }
                }
                Ask::Join { .. } | Ask::Leave | Ask::Settle => {
                    home.span = span_after(home, request);
                    let span = &home.span;
                    let left = |core: &usize| !span.contains(*core);
                    for entry in home.table.0.values_mut() {
                        let gone: CoreSet = entry.holders.iter().filter(left).collect();
                        entry.holders.subtract(&gone);
                    }
                }
                Ask::Map { .. } | Ask::Fetch { .. } => {}
            }
        }
        self.answer(request, Answer::Done, actions);
    }

    fn answer(&mut self, request: &Request, answer: Answer, actions: &mut Vec<Action>) {
        let (from, sequence) = (request.from, request.sequence);
        match request.ask {
            Ask::Settle => return,
            ask if ask.is_repeatable() => {}
            _ => {
                let answered = self.answered.entry(from).or_default();
                answered.truncate(WINDOW - 1);
                let later = match answer {
                    // What was granted may be gone by then.
                    Answer::Grant(_) => Answer::Done,
                    other => other,
                };
                answered.push_front((sequence, later));
            }
        }
        self.send(from, Message::Answer { sequence, answer }, actions);
    }

    // View changes.

    /// The home record of a space that somebody reports on.
    fn reporting(&mut self, space: SpaceId) -> &mut Home {
        self.homes.entry(space).or_insert_with(|| Home {
            span: CoreSet::default(),
            table: Table::default(),
            queue: VecDeque::new(),
            active: BTreeMap::new(),
            recovery: Some(Recovery::default()),
        })
    }

    fn reported(&mut self, from: usize, space: SpaceId, span: &CoreSet, actions: &mut Vec<Action>) {
        let view = self.view.cores.clone();
        let home = self.reporting(space);
        let Some(recovery) = &mut home.recovery else {
            let settle = settle(from);
            if !home.queue.contains(&settle) {
                home.queue.push_back(settle);
            }
            self.pump(space, actions);
            return;
        };
        home.span.insert(from);
        recovery.waiting.remove(from);
        let is_new = |core: &usize| {
            let known = [&home.span, &recovery.waiting, &recovery.absent];
            view.contains(*core) && !known.into_iter().any(|known| known.contains(*core))
        };
        let new: CoreSet = span.iter().filter(is_new).collect();
        recovery.waiting.extend(&new);
        for core in new.iter() {
            self.send(core, Message::Query { space }, actions);
        }
        self.recover(space, actions);
    }

    /// Goes on if all have reported.
    fn recover(&mut self, space: SpaceId, actions: &mut Vec<Action>) {
        if let Some(home) = self.homes.get_mut(&space)
            && let Some(first) = home.span.lowest()
            && let Some(recovery) = &home.recovery
            && recovery.waiting.is_empty()
        {
            home.recovery = None;
            home.queue.push_front(settle(first));
            self.pump(space, actions);
        }
    }

    /// Another view holds. All messages of the view before are lost.
    pub fn installed(&mut self, view: &View) -> Vec<Action> {
        let mut actions = Vec::new();
        self.view = view.clone();
        self.round.installed(view);
        self.rounds.clear();
        self.is_starved = false;
        let is_up = |core: &usize| view.cores.contains(*core);
        let living = |cores: &CoreSet| cores.iter().filter(is_up).collect::<CoreSet>();
        self.answered.retain(|core, _| is_up(core));
        let mut disturbed = Vec::new();
        self.homes.retain(|space, home| {
            home.span = living(&home.span);
            home.queue.clear();
            let active = core::mem::take(&mut home.active);
            for request in active.values() {
                // Some were told and some not: those who may take themselves for members are.
                match request.ask {
                    Ask::Join { core } if is_up(&core) => home.span.insert(core),
                    Ask::Settle if is_up(&request.from) => home.span.insert(request.from),
                    Ask::Join { .. } | Ask::Leave | Ask::Settle => {}
                    _ => continue,
                }
                if let Some(first) = home.span.lowest() {
                    home.queue.push_back(settle(first));
                    disturbed.push(*space);
                }
            }
            for entry in home.table.0.values_mut() {
                entry.holders = living(&entry.holders);
            }
            if home.recovery.is_none() && home.span.is_empty() {
                // Nobody is left who could ask for it.
                let space = *space;
                let mapped = home.table.carve(Pages::ALL).into_iter();
                actions.extend(mapped.map(|(mapping, _)| Action::Freed { space, mapping }));
            }
            // Whoever has reported does so again.
            home.recovery.is_none() && !home.span.is_empty()
        });
        let mut reports = Vec::new();
        for (space, replica) in &mut self.replicas {
            replica.span = living(&replica.span);
            if !is_up(&replica.home) {
                replica.home = view.cores.next_after(replica.home).unwrap_or(self.own);
                replica.is_settled = false;
                for operation in self.operations.values_mut() {
                    if let Ask::Map { again, .. } = &mut operation.ask
                        && operation.space == *space
                    {
                        *again = true;
                    }
                }
            }
            if !replica.is_settled {
                let held = replica.table.0.iter();
                for (first, entry) in held {
                    let mapping = entry.mapping(*first);
                    let space = *space;
                    reports.push((replica.home, Message::Holding { space, mapping }));
                }
                let span = replica.span.clone();
                let space = *space;
                reports.push((replica.home, Message::Reported { space, span }));
            }
        }
        for (home, message) in reports {
            self.send(home, message, &mut actions);
        }
        for space in disturbed {
            self.pump(space, &mut actions);
        }
        let asked = |operation: &Operation| matches!(operation.stage, Stage::Asked { .. });
        let operations = self.operations.iter();
        let again: Vec<u32> = operations
            .filter(|(_, operation)| asked(operation))
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in again {
            self.ask(sequence, &mut actions);
        }
        self.release(&mut actions);
        actions
    }
}

fn refuse(token: u64, error: Error) -> Vec<Action> {
    let result = Err(error);
    [Action::Done { token, result }].into()
}

/// Asks to tell all the span.
fn settle(from: usize) -> Request {
    Request {
        from,
        sequence: 0,
        ask: Ask::Settle,
    }
}

/// The span after what was asked.
fn span_after(home: &Home, request: &Request) -> CoreSet {
    let mut span = home.span.clone();
    match request.ask {
        Ask::Join { core } => span.insert(core),
        Ask::Settle => span.insert(request.from),
        Ask::Leave => {
            span.remove(request.from);
        }
        _ => {}
    }
    span
}
