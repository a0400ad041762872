//! Names: a registry of which every core has a copy.
//!
//! Whoever looks a name up reads its own core's replica, and nothing is sent. An update goes to the
//! coordinator of the view, the lowest core, which puts all of them in one order. It takes two
//! phases: first no core answers reads of that name any more, then all learn the new value.
//!
//! ```text
//!  initiator              coordinator             all others
//!    │ Request ─────────────►│                        │         the initiator answers no reads of
//!    │                       │ Prepare {counter} ────►│         the name from its request on, the
//!    │                       │◄──────────── Prepared ─│         others from Prepare on
//!    │                       │ in force, from here on
//!    │◄── Commit {counter} ──│ Commit {counter} ─────►│         reads that waited are answered
//!    │
//!    │◄───────────── Refused │                                  instead, if it cannot be
//! ```
//!
//! With N cores in the view that is 1 + 2(N-2) + (N-1) messages, and 3(N-1) where the coordinator
//! asks for it itself. At most [`PIPELINE`] updates are under way at once, and no two whose names
//! are the same; they are committed in the order in which they were prepared.
//!
//! **Reads are linearizable.** An update takes effect when its coordinator commits it. By then every
//! other core has it prepared, or asked for it, and answers no reads of the name until it has heard
//! of the commit. So whoever reads the old value does so before that moment, and whoever reads the
//! new one after it. A read waits for what was under way on its own core when it came and for nothing
//! that came later, so that writers cannot hold it up for ever; what it then reads was in force when
//! it came, or came into force while it waited: any later update that was in force before the read
//! came would have been prepared here, and waited for.
//!
//! **A new view.** What was in flight is lost, so that replicas may differ by the updates that were
//! under way. No core answers any reads until they are all in one state again:
//!
//! ```text
//!  others                   coordinator             one that is ahead
//!    │ Request … ───────────►│                        │         what they have no answer to, again
//!    │ Held … ──────────────►│◄──────────────── Held …│         prepared, and not known to be committed
//!    │ State {version} ─────►│◄───── State {version} ─│
//!    │                       │ Fetch {version} ──────►│         if somebody is ahead of it
//!    │                       │◄─ Commit … or Whole … ─│         what it lacks, or everything
//!    │                       │◄────────────── Fetched │
//!    │                       │ commits what all have prepared
//!    │◄─ Commit … or Whole … │                                  what the others lack, or everything
//!    │◄────────────── Synced │ Synced ───────────────►│         what gone cores had bound is void
//! ```
//!
//! The coordinator begins with the newest version that anybody has, so nothing that any survivor
//! committed is lost. On top of that it commits, in order, what every survivor (but its initiator,
//! for whom the request counts) has prepared: the one that led before may have committed that, and
//! have shown it to somebody, before it stopped. What somebody has not prepared was committed nowhere,
//! and is dropped; its initiator has asked for it again. Where the initiator is the only survivor,
//! nobody knows of its updates but itself; it asks for them in the same order, and the coordinator
//! takes up all that is asked again before anything new. An update that is asked for again and was
//! committed is known by its sequence number, which is part of the replicas' state.
//!
//! Only now, while nobody answers reads, bindings of cores that are gone vanish; a core that is back
//! in a new view with nothing of what it was counts as gone, too.
//!
//! **Replicas are equal at equal versions.** A version is the epoch in which all were last brought to
//! one state, and the count of updates since. A coordinator sends the first version of its epoch once
//! it has heard from every core of the view: there is one such state. All further updates come from
//! that coordinator alone, in order, and each replica takes only the one that is next. What is
//! prepared goes by the epoch in which it was: a core that has not heard of a newer one, in which the
//! same count meant something else, counts as having prepared nothing.
//!
//! Everything is bounded: names by [`MAX_NAMES`], requests of one core by [`WINDOW`], reads that wait
//! by [`MAX_READS`], watches by [`MAX_WATCHES`].

mod message;
mod replica;
#[cfg(test)]
mod tests;

pub use message::Message;
pub use replica::{Binding, Change, Last, Name, Owner, Refusal, Replica, Update, Version};

use crate::core_set::CoreSet;
use crate::view::{Epoch, View};
use abi::limits::MAX_CORES;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

/// Bytes of a name, at most.
pub const NAME_BYTES: usize = 32;
/// Names that can be bound.
pub const MAX_NAMES: usize = 1024;
/// Watches of one core.
pub const MAX_WATCHES: usize = 256;
/// Reads that wait on one core.
pub const MAX_READS: usize = 256;
/// From the oldest request of a core that has no answer to its newest: fewer than this.
pub const WINDOW: usize = 16;
/// Updates that the coordinator has under way.
pub const PIPELINE: usize = 8;
/// No core is further behind within an epoch: its own updates, of which it need not hear before the
/// next is committed, and those that are under way.
const RECENT: usize = WINDOW + PIPELINE;

/// What the monitor is to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send a message to a core.
    Send(usize, Message),
    /// What an update has come to.
    Done {
        /// What the caller knows it by.
        token: u64,
        /// Whether it is in force.
        result: Result<(), Refusal>,
    },
    /// A read that waited has its answer.
    LookedUp {
        /// What the caller knows it by.
        token: u64,
        /// What the name is bound to.
        value: Option<u64>,
    },
    /// A name that is watched has changed on this core.
    Changed {
        /// What the caller knows the watch by.
        watch: u64,
        /// The name.
        name: Name,
        /// What it is bound to now.
        value: Option<u64>,
    },
}

/// What a read comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lookup {
    /// The name is bound to this.
    Found(u64),
    /// It is not bound.
    Absent,
    /// It is about to change: [`Action::LookedUp`] with this token will tell.
    Wait(u64),
    /// Too many reads wait.
    Busy,
}

/// There is no room for another watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// An update of this core that has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Pending {
    /// Nobody asks for the answer if there is none.
    token: Option<u64>,
    update: Update,
    is_sent: bool,
}

/// A read that waits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Read {
    token: u64,
    name: Name,
    /// For updates of other cores up to this version,
    counter: u32,
    /// and for own ones before this number.
    sequence: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Watch {
    watch: u64,
    name: Name,
    is_prefix: bool,
}

impl Watch {
    fn covers(&self, name: &Name) -> bool {
        *name == self.name || self.is_prefix && name.bytes().starts_with(self.name.bytes())
    }
}

/// What the coordinator keeps of an update that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct UnderWay {
    counter: u32,
    update: Update,
    /// Who has not prepared it yet.
    waiting: CoreSet,
}

/// What a core has said of its replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Report {
    version: Version,
    held: Vec<(u32, Update)>,
}

/// What the coordinator keeps while it brings all to one state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Sync {
    /// Who has not told its state yet.
    waiting: CoreSet,
    reports: BTreeMap<usize, Report>,
    /// Who is ahead of us and was asked for what it has.
    source: Option<usize>,
}

/// One monitor's part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Names {
    own: usize,
    view: View,
    replica: Replica,
    /// Updates of this epoch, the last few that this replica has seen, the newest last.
    recent: VecDeque<Update>,
    /// Prepared, and not known to be committed.
    prepared: Vec<(u32, Update)>,
    /// All replicas have been in one state since the view was installed.
    is_synced: bool,
    /// A replica that is on its way to us whole.
    incoming: Option<Replica>,
    /// The next request's number.
    sequence: u16,
    pending: VecDeque<Pending>,
    reads: Vec<Read>,
    watches: Vec<Watch>,
    /// Domains that have ended and may have bindings.
    ended: Vec<u32>,
    /// Coordinator: what was asked for and is not under way.
    queue: VecDeque<Update>,
    under_way: VecDeque<UnderWay>,
    sync: Option<Sync>,
}

impl Names {
    /// The part of core `own`, which knows of no names yet.
    pub fn new(own: usize) -> Self {
        Self {
            own,
            view: View::default(),
            replica: Replica::default(),
            recent: VecDeque::new(),
            prepared: Vec::new(),
            is_synced: false,
            incoming: None,
            sequence: 0,
            pending: VecDeque::new(),
            reads: Vec::new(),
            watches: Vec::new(),
            ended: Vec::new(),
            queue: VecDeque::new(),
            under_way: VecDeque::new(),
            sync: None,
        }
    }

    /// This core's replica.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Whether all replicas have been in one state since the view was installed: else all reads wait.
    pub fn is_synced(&self) -> bool {
        self.is_synced
    }

    /// Whether nothing that was asked for here is without an answer.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.reads.is_empty() && self.ended.is_empty()
    }

    /// Whether nothing is under way here at all, for whomever: all replicas are in one state.
    pub fn is_quiet(&self) -> bool {
        let is_led = self.queue.is_empty() && self.under_way.is_empty() && self.sync.is_none();
        let is_followed = self.prepared.is_empty() && self.incoming.is_none();
        self.is_synced && self.is_idle() && is_led && is_followed
    }

    fn coordinates(&self) -> bool {
        self.view.coordinator() == Some(self.own)
    }

    /// Binds a name for a domain of this core, or binds its own binding anew;
    /// [`Action::Done`] tells what came of it. Refused with `AlreadyBound`, `Full` or `Busy`.
    pub fn bind(&mut self, token: u64, domain: u32, name: Name, value: u64) -> Vec<Action> {
        self.request(Some(token), domain, Change::Bind { name, value })
    }

    /// Takes a binding of a domain of this core away; [`Action::Done`] tells what came of it.
    /// Refused with `NotBound`, `NotOwner` or `Busy`.
    pub fn unbind(&mut self, token: u64, domain: u32, name: Name) -> Vec<Action> {
        self.request(Some(token), domain, Change::Unbind { name })
    }

    /// A domain of this core has ended: its bindings are taken away, all by one update.
    pub fn domain_ended(&mut self, domain: u32) -> Vec<Action> {
        let mut actions = Vec::new();
        if !self.ended.contains(&domain) && self.has_bindings(domain) {
            self.ended.push(domain);
            self.clear_ended(&mut actions);
        }
        actions
    }

    /// What a name is bound to. If that is about to change, the answer comes as
    /// [`Action::LookedUp`] with this token.
    pub fn lookup(&mut self, token: u64, name: Name) -> Lookup {
        let read = Read {
            token,
            name,
            counter: u32::MAX,
            sequence: self.sequence,
        };
        if !self.waits(&read) {
            let binding = self.replica.bindings.get(&name);
            return binding.map_or(Lookup::Absent, |binding| Lookup::Found(binding.value));
        }
        if self.reads.len() >= MAX_READS {
            return Lookup::Busy;
        }
        let newest = self.prepared.iter().map(|(counter, _)| *counter).max();
        let counter = newest.unwrap_or(self.replica.version.counter);
        self.reads.push(Read { counter, ..read });
        Lookup::Wait(token)
    }

    /// From now on tells with [`Action::Changed`] when this name changes on this core, or, with
    /// `is_prefix`, one that begins with it.
    ///
    /// # Errors
    /// There is no room.
    pub fn watch(&mut self, watch: u64, name: Name, is_prefix: bool) -> Result<(), TooMany> {
        if self.watches.len() >= MAX_WATCHES {
            return Err(TooMany);
        }
        self.watches.push(Watch {
            watch,
            name,
            is_prefix,
        });
        Ok(())
    }

    /// Ends a watch.
    pub fn unwatch(&mut self, watch: u64) {
        self.watches.retain(|one| one.watch != watch);
    }

    /// This view holds from now on; what was in flight is lost.
    pub fn installed(&mut self, view: &View) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(coordinator) = view.coordinator().filter(|_| view.cores.contains(self.own)) else {
            return actions;
        };
        self.view = view.clone();
        self.is_synced = false;
        self.incoming = None;
        self.queue.clear();
        self.sync = None;
        // Whoever led has prepared what it has not committed.
        let under_way = self.under_way.drain(..);
        self.prepared
            .extend(under_way.map(|one| (one.counter, one.update)));
        // A core that has joined asks for nothing before it is told all: until then it counts as new,
        // and what it had bound would count as what a former core of that number had.
        let is_fresh = self.is_fresh();
        for pending in &mut self.pending {
            pending.is_sent = !is_fresh;
        }
        let sent = self.pending.iter().filter(|pending| pending.is_sent);
        let requests: Vec<Update> = sent.map(|pending| pending.update).collect();
        let version = self.replica.version;
        if coordinator == self.own {
            self.queue.extend(requests);
            let mut waiting = view.cores.clone();
            waiting.remove(self.own);
            let held = self.prepared.clone();
            let own = Report { version, held };
            self.sync = Some(Sync {
                waiting,
                reports: BTreeMap::from([(self.own, own)]),
                source: None,
            });
            self.sync_if_told(&mut actions);
        } else {
            let mut send = |message| actions.push(Action::Send(coordinator, message));
            requests
                .into_iter()
                .for_each(|update| send(Message::Request(update)));
            for (counter, update) in self.prepared.iter().copied() {
                send(Message::Held { counter, update });
            }
            send(Message::State(version));
        }
        actions
    }

    /// A message of this epoch has come.
    pub fn on_message(&mut self, from: usize, message: &Message) -> Vec<Action> {
        let mut actions = Vec::new();
        if from == self.own || !self.view.cores.contains(from) {
            return actions;
        }
        if self.coordinates() {
            self.on_message_to_coordinator(from, message, &mut actions);
        } else if self.view.coordinator() == Some(from) {
            self.on_message_from_coordinator(from, message, &mut actions);
        }
        actions
    }

    fn on_message_to_coordinator(
        &mut self,
        from: usize,
        message: &Message,
        actions: &mut Vec<Action>,
    ) {
        match message {
            Message::Request(update) if usize::from(update.owner.core) == from => {
                let of_core = |one: &&Update| usize::from(one.owner.core) == from;
                if self.queue.iter().filter(of_core).count() < WINDOW {
                    self.queue.push_back(*update);
                    self.advance(actions);
                }
            }
            Message::Prepared { counter } => {
                let mut under_way = self.under_way.iter_mut();
                if let Some(one) = under_way.find(|one| one.counter == *counter) {
                    one.waiting.remove(from);
                    self.advance(actions);
                }
            }
            Message::Held { counter, update } => {
                let Some(sync) = self.sync.as_mut() else {
                    return;
                };
                let report = sync.reports.entry(from).or_default();
                if sync.waiting.contains(from) && report.held.len() < PIPELINE {
                    report.held.push((*counter, *update));
                }
            }
            Message::State(version) => {
                let Some(sync) = self.sync.as_mut() else {
                    return;
                };
                if sync.waiting.remove(from) {
                    sync.reports.entry(from).or_default().version = *version;
                    self.sync_if_told(actions);
                }
            }
            Message::Fetched(version) => {
                let is_source = |sync: &mut Sync| sync.source == Some(from);
                if let Some(sync) = self.sync.take_if(is_source) {
                    self.take_incoming(*version, actions);
                    self.conclude_sync(&sync, actions);
                }
            }
            _ if self.sync.as_ref().and_then(|sync| sync.source) == Some(from) => {
                self.take(message, actions);
            }
            _ => {}
        }
    }

    fn on_message_from_coordinator(
        &mut self,
        from: usize,
        message: &Message,
        actions: &mut Vec<Action>,
    ) {
        match message {
            Message::Prepare { counter, update }
                if self.is_synced && self.prepared.len() < PIPELINE =>
            {
                let counter = *counter;
                self.prepared.push((counter, *update));
                actions.push(Action::Send(from, Message::Prepared { counter }));
            }
            Message::Refused { sequence, refusal } => {
                self.answer(*sequence, Err(*refusal), actions);
                self.settle(actions);
            }
            Message::Fetch(version) if !self.is_synced => {
                self.bring(from, *version, actions);
                let version = self.replica.version;
                actions.push(Action::Send(from, Message::Fetched(version)));
            }
            Message::Synced { version, fresh } if !self.is_synced => {
                self.take_incoming(*version, actions);
                if self.replica.version == *version {
                    self.begin_epoch(fresh, actions);
                    self.settle(actions);
                }
            }
            _ => {
                self.take(message, actions);
                self.settle(actions);
            }
        }
    }

    /// Takes a part of the state from a core that is ahead of us.
    fn take(&mut self, message: &Message, actions: &mut Vec<Action>) {
        let next = self.replica.version.counter.checked_add(1);
        match (message, &mut self.incoming) {
            (Message::Commit { counter, update }, _) if Some(*counter) == next => {
                self.commit(update, actions);
            }
            (Message::Whole, _) if !self.is_synced => self.incoming = Some(Replica::default()),
            (Message::Entry { name, binding }, Some(incoming))
                if incoming.bindings.len() < MAX_NAMES =>
            {
                incoming.bindings.insert(*name, *binding);
            }
            (Message::Last { core, last }, Some(incoming)) if incoming.done.len() < MAX_CORES => {
                incoming.done.insert(*core, *last);
            }
            _ => {}
        }
    }

    /// Takes the state that has come whole, if one has.
    fn take_incoming(&mut self, version: Version, actions: &mut Vec<Action>) {
        let Some(mut incoming) = self.incoming.take() else {
            return;
        };
        incoming.version = version;
        let was = core::mem::replace(&mut self.replica, incoming);
        self.recent.clear();
        let value = |replica: &Replica, name: &Name| {
            let binding = replica.bindings.get(name);
            binding.map(|binding| binding.value)
        };
        let now = self.replica.bindings.keys();
        let gone = was.bindings.keys();
        let gone = gone.filter(|name| !self.replica.bindings.contains_key(name));
        for name in now.chain(gone) {
            let current = value(&self.replica, name);
            if current != value(&was, name) {
                tell(&self.watches, *name, current, actions);
            }
        }
        let Some(done) = self.replica.done.get(&(self.own as u16)).copied() else {
            return;
        };
        // What a former core of this number had asked for under the same numbers is not ours.
        let sent = self.pending.iter().filter(|one| one.is_sent);
        let sequences: Vec<u16> = sent.map(|one| one.update.sequence).collect();
        for sequence in sequences {
            if done.contains(sequence) {
                self.answer(sequence, Ok(()), actions);
            }
        }
    }

    /// Carries out the next update.
    fn commit(&mut self, update: &Update, actions: &mut Vec<Action>) {
        let watches = &self.watches;
        self.replica
            .apply(update, |name, value| tell(watches, name, value, actions));
        let reached = self.replica.version.counter;
        self.prepared.retain(|(counter, _)| *counter > reached);
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(*update);
        if usize::from(update.owner.core) == self.own {
            self.answer(update.sequence, Ok(()), actions);
        }
    }

    /// A request of this core has its answer.
    fn answer(&mut self, sequence: u16, result: Result<(), Refusal>, actions: &mut Vec<Action>) {
        let mut pending = self.pending.iter();
        let at = pending.position(|pending| pending.update.sequence == sequence);
        let pending = at.and_then(|at| self.pending.remove(at));
        if let Some(token) = pending.and_then(|pending| pending.token) {
            actions.push(Action::Done { token, result });
        }
    }

    /// After anything that may have ended a wait.
    fn settle(&mut self, actions: &mut Vec<Action>) {
        let reads = core::mem::take(&mut self.reads);
        let (waiting, ready) = reads.into_iter().partition(|read| self.waits(read));
        self.reads = waiting;
        for Read { token, name, .. } in ready {
            let binding = self.replica.bindings.get(&name);
            let value = binding.map(|binding| binding.value);
            actions.push(Action::LookedUp { token, value });
        }
        self.clear_ended(actions);
    }

    /// Whether a read has to wait for something that was under way when it came.
    fn waits(&self, read: &Read) -> bool {
        let touches = |update: &Update| self.replica.is_touched(&read.name, update);
        // A clear undoes what its domain has bound before it, even if that is under way still.
        let undoes = |clear: &Update| {
            clear.change == Change::Clear
                && self.pending.iter().any(|pending| {
                    pending.update.owner == clear.owner && pending.update.name() == Some(&read.name)
                })
        };
        let is_older = |update: &Update| {
            let ahead = read.sequence.wrapping_sub(update.sequence);
            (1..=WINDOW as u16).contains(&ahead)
        };
        let mut pending = self.pending.iter().map(|pending| &pending.update);
        let mut prepared = self.prepared.iter();
        !self.is_synced
            || pending.any(|one| is_older(one) && (touches(one) || undoes(one)))
            || prepared.any(|(counter, one)| *counter <= read.counter && touches(one))
    }

    fn has_bindings(&self, domain: u32) -> bool {
        let core = self.own as u16;
        let owner = Owner { core, domain };
        let mut bindings = self.replica.bindings.values();
        let mut pending = self.pending.iter();
        bindings.any(|binding| binding.owner == owner)
            || pending.any(|pending| {
                let Update {
                    owner: of, change, ..
                } = pending.update;
                of == owner && matches!(change, Change::Bind { .. })
            })
    }

    /// Asks for the end of what ended domains have bound, as far as there is room.
    fn clear_ended(&mut self, actions: &mut Vec<Action>) {
        while let Some(domain) = self.ended.first().copied() {
            let has_bindings = self.has_bindings(domain);
            if has_bindings && !self.has_room() {
                return;
            }
            self.ended.remove(0);
            if has_bindings {
                actions.extend(self.request(None, domain, Change::Clear));
            }
        }
    }

    /// The number after the last of our requests that was committed, as far as we know.
    fn first_sequence(&self) -> u16 {
        let done = self.replica.done.get(&(self.own as u16));
        done.map_or(0, |done| done.sequence.wrapping_add(1))
    }

    /// Whether another update can be asked for now.
    pub fn has_room(&self) -> bool {
        let ahead = |of: u16| usize::from(self.sequence.wrapping_sub(of));
        let oldest = self.pending.front();
        // Numbers go round: none may be so far ahead of the last commit that it seems to be before it.
        oldest.is_none_or(|pending| {
            ahead(pending.update.sequence) < WINDOW && ahead(self.first_sequence()) < 0x8000
        })
    }

    fn request(&mut self, token: Option<u64>, domain: u32, change: Change) -> Vec<Action> {
        let mut actions = Vec::new();
        if !self.has_room() {
            let result = Err(Refusal::Busy);
            actions.extend(token.map(|token| Action::Done { token, result }));
            return actions;
        }
        if self.pending.is_empty() {
            // What was refused had no effect: its numbers are free again. No read waits for them.
            self.sequence = self.first_sequence();
            let sequence = self.sequence;
            self.reads
                .iter_mut()
                .for_each(|read| read.sequence = sequence);
        }
        let core = self.own as u16;
        self.pending.push_back(Pending {
            token,
            update: Update {
                owner: Owner { core, domain },
                sequence: self.sequence,
                change,
            },
            is_sent: false,
        });
        self.sequence = self.sequence.wrapping_add(1);
        if self.is_synced {
            self.send_pending(&mut actions);
        }
        actions
    }

    /// Sends what could not be sent before.
    fn send_pending(&mut self, actions: &mut Vec<Action>) {
        let Some(coordinator) = self.view.coordinator() else {
            return;
        };
        for pending in self.pending.iter_mut().filter(|one| !one.is_sent) {
            pending.is_sent = true;
            if coordinator == self.own {
                self.queue.push_back(pending.update);
            } else {
                let request = Message::Request(pending.update);
                actions.push(Action::Send(coordinator, request));
            }
        }
        if coordinator == self.own {
            self.advance(actions);
        }
    }

    /// Commits what all have prepared, and takes up what was asked for.
    fn advance(&mut self, actions: &mut Vec<Action>) {
        if !self.is_synced {
            return;
        }
        loop {
            let is_prepared = |one: &mut UnderWay| one.waiting.is_empty();
            if let Some(one) = self.under_way.pop_front_if(is_prepared) {
                let UnderWay {
                    counter, update, ..
                } = one;
                self.commit(&update, actions);
                for core in self.view.cores.iter().filter(|core| *core != self.own) {
                    let commit = Message::Commit { counter, update };
                    actions.push(Action::Send(core, commit));
                }
            } else if !self.take_up(actions) {
                break;
            }
        }
        self.settle(actions);
    }

    /// Takes up the next request, if it can be now.
    fn take_up(&mut self, actions: &mut Vec<Action>) -> bool {
        let Some(update) = self.queue.front().copied() else {
            return false;
        };
        let Owner { core, .. } = update.owner;
        let mut under_way = self.under_way.iter().map(|one| &one.update);
        let binds = self.under_way.iter().filter(|one| {
            let name = one.update.name();
            name.is_some_and(|name| !self.replica.bindings.contains_key(name))
        });
        // Whether there is room may depend on what is under way.
        let is_full = self.replica.bindings.len() < MAX_NAMES
            && self.replica.bindings.len() + binds.count() >= MAX_NAMES;
        if self.under_way.len() >= PIPELINE
            || is_full
            || under_way.any(|other| other.conflicts(&update))
        {
            return false;
        }
        self.queue.pop_front();
        let newest = self.under_way.back().map(|one| one.counter);
        let newest = newest.unwrap_or(self.replica.version.counter);
        let judged = self.replica.judge(&update);
        let judged = judged.and(newest.checked_add(1).ok_or(Refusal::Full));
        let counter = match judged {
            Ok(counter) => counter,
            Err(refusal) => {
                self.refuse(&update, refusal, actions);
                return true;
            }
        };
        let mut waiting = self.view.cores.clone();
        waiting.remove(self.own);
        waiting.remove(core.into());
        for core in waiting.iter() {
            let prepare = Message::Prepare { counter, update };
            actions.push(Action::Send(core, prepare));
        }
        self.under_way.push_back(UnderWay {
            counter,
            update,
            waiting,
        });
        true
    }

    /// All have told their state: fetches what we lack, or goes on.
    fn sync_if_told(&mut self, actions: &mut Vec<Action>) {
        let own_version = self.replica.version;
        let Some(sync) = self.sync.as_mut().filter(|sync| sync.waiting.is_empty()) else {
            return;
        };
        let reports = sync.reports.iter();
        let ahead = reports.filter(|(_, report)| report.version > own_version);
        let best = ahead.max_by_key(|(_, report)| report.version);
        if let Some(best) = best.map(|(core, _)| *core) {
            sync.source = Some(best);
            actions.push(Action::Send(best, Message::Fetch(own_version)));
        } else if let Some(sync) = self.sync.take() {
            self.conclude_sync(&sync, actions);
        }
    }

    /// Commits or refuses what the only core that knows of it has asked for.
    fn decide(&mut self, update: &Update, actions: &mut Vec<Action>) {
        let next = self.replica.version.counter.checked_add(1);
        let judged = self.replica.judge(update);
        match judged.and(next.map(|_| ()).ok_or(Refusal::Full)) {
            Ok(()) => self.commit(update, actions),
            Err(refusal) => self.refuse(update, refusal, actions),
        }
    }

    fn refuse(&mut self, update: &Update, refusal: Refusal, actions: &mut Vec<Action>) {
        let (core, sequence) = (usize::from(update.owner.core), update.sequence);
        if core == self.own {
            self.answer(sequence, Err(refusal), actions);
        } else {
            let refused = Message::Refused { sequence, refusal };
            actions.push(Action::Send(core, refused));
        }
    }

    /// Our replica is the newest: commits what all have prepared, and brings all to that state.
    fn conclude_sync(&mut self, sync: &Sync, actions: &mut Vec<Action>) {
        let is_fresh = |report: &Report| report.version.epoch == Epoch::default();
        let epoch = self.replica.version.epoch;
        while let Some(next) = self.replica.version.counter.checked_add(1) {
            let held = |report: &Report| {
                let mut held = report.held.iter();
                let is_of_epoch = report.version.epoch == epoch;
                let found = held.find(|(counter, _)| is_of_epoch && *counter == next);
                found.map(|(_, update)| *update)
            };
            let Some(update) = sync.reports.values().find_map(held) else {
                break;
            };
            let initiator = usize::from(update.owner.core);
            let has_prepared = |(core, report): (&usize, &Report)| {
                is_fresh(report) || *core == initiator || held(report) == Some(update)
            };
            if !sync.reports.iter().all(has_prepared) {
                break;
            }
            self.commit(&update, actions);
        }
        // Their initiators learn from what is sent now that these are in force.
        let done = &self.replica.done;
        self.queue.retain(|update| {
            let of_core = done.get(&update.owner.core);
            !of_core.is_some_and(|done| done.contains(update.sequence))
        });
        let is_old = |report: &&Report| !is_fresh(report);
        if sync.reports.values().filter(is_old).count() == 1 {
            // The one that led before may have committed what nobody else knew of, and have shown it
            // to somebody: nobody reads before it is in force again. It had done so without the
            // bindings of those who were gone by then.
            let stays = self.view.cores.iter().filter(|core| {
                let report = sync.reports.get(core);
                report.is_some_and(|report| !is_fresh(report))
            });
            let (stays, watches) = (stays.collect(), &self.watches);
            self.replica.leave_only(&stays, |name, value| {
                tell(watches, name, value, actions);
            });
            while let Some(update) = self.queue.pop_front() {
                self.decide(&update, actions);
            }
            // From there they lead to this only without those bindings: whoever is behind gets all.
            self.recent.clear();
        }
        let version = self.replica.version;
        let reports = sync.reports.iter();
        let fresh: CoreSet = reports
            .filter(|(_, report)| is_fresh(report))
            .map(|(core, _)| *core)
            .collect();
        for (core, report) in sync.reports.iter().filter(|(core, _)| **core != self.own) {
            self.bring(*core, report.version, actions);
            let fresh = fresh.clone();
            let synced = Message::Synced { version, fresh };
            actions.push(Action::Send(*core, synced));
        }
        self.begin_epoch(&fresh, actions);
        self.advance(actions);
    }

    /// Sends a core what it lacks.
    fn bring(&self, to: usize, from: Version, actions: &mut Vec<Action>) {
        let version = self.replica.version;
        let mut send = |message| actions.push(Action::Send(to, message));
        let lag = version.counter.wrapping_sub(from.counter) as usize;
        if version.epoch == from.epoch && lag <= self.recent.len() {
            let lacks = self.recent.iter().skip(self.recent.len() - lag);
            for (counter, update) in (from.counter + 1..).zip(lacks.copied()) {
                send(Message::Commit { counter, update });
            }
            return;
        }
        send(Message::Whole);
        for (name, binding) in &self.replica.bindings {
            let (name, binding) = (*name, *binding);
            send(Message::Entry { name, binding });
        }
        for (core, last) in &self.replica.done {
            let (core, last) = (*core, *last);
            send(Message::Last { core, last });
        }
    }

    /// All are in one state: the first version of this view's epoch.
    fn begin_epoch(&mut self, fresh: &CoreSet, actions: &mut Vec<Action>) {
        let mut stays = self.view.cores.clone();
        stays.subtract(fresh);
        let (watches, epoch) = (&self.watches, self.view.epoch);
        self.replica.begin(epoch, &stays, |name, value| {
            tell(watches, name, value, actions);
        });
        self.recent.clear();
        self.prepared.clear();
        for read in &mut self.reads {
            read.counter = 0;
        }
        self.is_synced = true;
        self.send_pending(actions);
    }

    fn is_fresh(&self) -> bool {
        self.replica.version.epoch == Epoch::default()
    }
}

/// Tells all that watch a name.
fn tell(watches: &[Watch], name: Name, value: Option<u64>, actions: &mut Vec<Action>) {
    for watch in watches.iter().filter(|watch| watch.covers(&name)) {
        let watch = watch.watch;
        actions.push(Action::Changed { watch, name, value });
    }
}
