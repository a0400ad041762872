//! Everything that the monitors agree on, behind one epoch.
//!
//! The protocols of this library know nothing of each other. An agent, one on each core, runs
//! [`membership`](crate::membership) and, in each of its views, the others:
//!
//! ```text
//!              ┌───────────── agent ─────────────┐
//!   messages   │ membership ── view ──┬► regions │   what is to be done:
//!  ──────────► │                      ├► spaces  │ ──────────────────────►
//!   the time   │      epoch of each   └► names   │   send, fence, map, insert, …
//!              └─ message: old ┊ this ┊ newer ───┘
//!                      refused ┊      ┊ held back
//! ```
//!
//! **Every message of theirs bears the round of the view that it was sent in**, in the upper half of
//! its first word. What is of an older view is refused: a protocol that is told of a new view asks
//! again for whatever was under way. What is of a newer one waits until this core holds that view as
//! well, since whoever sent it counts on that. No two views have the same round: whoever leads an
//! agreement has the promise of all that it did not fence, and they follow none of its round again.
//!
//! So each protocol may rely on this: between two calls of its `installed` come only messages that
//! their senders sent between the same two calls, those of one sender in order; and that is all that
//! it has to know of failures.
//!
//! How rounds spread over many cores ([`crate::tree`]) is part of the view, too, as its settings: so no
//! two cores ever take part in one round by different trees.
//!
//! What waits is bounded by what the protocols may have under way, a window for each core: nobody
//! sends more before this core answers.

use crate::membership::{self, Membership};
use crate::names::{self, Names};
use crate::regions::{self, Regions};
use crate::spaces::{self, Spaces};
use crate::tree::{Machine, Planner, Strategy};
use crate::view::View;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// A message as it lies in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// See [`crate::kinds`].
    pub kind: u16,
    /// The payload.
    pub words: [u64; 7],
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send a message to a core.
    Send(usize, Line),
    /// Stop a core for good, before anything else happens.
    Fence(usize),
    /// This view holds from now on. What the protocols make of it follows.
    Installed(View),
    /// This core is not in the view any more.
    Out(View),
    /// Of the registry; never [`names::Action::Send`].
    Names(names::Action),
    /// Of capabilities across cores; never [`regions::Action::Send`].
    Regions(regions::Action),
    /// Of address spaces; never [`spaces::Action::Send`].
    Spaces(spaces::Action),
}

/// What an agent has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counters {
    /// Messages of older views that were refused.
    pub refused: u64,
    /// Messages of newer views that had to wait.
    pub held_back: u64,
    /// Lines that made no sense.
    pub bad: u64,
}

/// One core's agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Agent {
    membership: Membership,
    names: Names,
    regions: Regions,
    spaces: Spaces,
    /// The round of the view that holds; 0 before the first.
    round: u32,
    /// Messages of views that do not hold here yet, by sender, in the order in which they came.
    held: Vec<(usize, Line)>,
    counters: Counters,
}

/// The bits of a line's first word that are the protocol's own.
const OWN_BITS: u64 = 0xffff_ffff;

impl Agent {
    /// The agent of core `own`, in no view yet. Whoever is not heard of for `patience_ns` is
    /// suspected. `machine` must be the same on all cores.
    pub fn new(own: usize, patience_ns: u64, machine: Arc<Machine>) -> Self {
        let planner = Planner::new(own, Strategy::Unicast, machine);
        Self {
            membership: Membership::new(own, patience_ns),
            names: Names::new(own),
            regions: Regions::new(own),
            spaces: Spaces::new(own, planner),
            round: 0,
            held: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// The view that holds.
    pub fn view(&self) -> &View {
        self.membership.view()
    }

    /// What was counted since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The registry, to look at.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Capabilities across cores, to look at.
    pub fn regions(&self) -> &Regions {
        &self.regions
    }

    /// Address spaces, to look at.
    pub fn spaces(&self) -> &Spaces {
        &self.spaces
    }

    /// When [`Self::on_tick`] is due, in nanoseconds.
    pub fn deadline_ns(&self) -> Option<u64> {
        self.membership.deadline_ns()
    }

    /// Has membership do something; see [`Membership`].
    pub fn with_membership(
        &mut self,
        work: impl FnOnce(&mut Membership) -> Vec<membership::Action>,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let of_membership = work(&mut self.membership);
        self.follow(of_membership, &mut actions);
        actions
    }

    /// Has the registry do something; see [`Names`].
    pub fn with_names(
        &mut self,
        work: impl FnOnce(&mut Names) -> Vec<names::Action>,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let of_names = work(&mut self.names);
        self.take_names(of_names, &mut actions);
        actions
    }

    /// Has capabilities across cores do something; see [`Regions`].
    pub fn with_regions(
        &mut self,
        work: impl FnOnce(&mut Regions) -> Vec<regions::Action>,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let of_regions = work(&mut self.regions);
        self.take_regions(of_regions, &mut actions);
        actions
    }

    /// Has address spaces do something; see [`Spaces`].
    pub fn with_spaces(
        &mut self,
        work: impl FnOnce(&mut Spaces) -> Vec<spaces::Action>,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let of_spaces = work(&mut self.spaces);
        self.take_spaces(of_spaces, &mut actions);
        actions
    }

    /// The time is `now_ns`, and all messages that had come by then were handed over.
    pub fn on_tick(&mut self, now_ns: u64) -> Vec<Action> {
        self.with_membership(|membership| membership.on_tick(now_ns))
    }

    /// Whether a message of this kind is an agent's.
    pub fn is_ours(kind: u16) -> bool {
        let of_views = crate::kinds::MEMBERSHIP.contains(&kind);
        of_views || is_of_a_view(kind)
    }

    /// A message came, of a kind that is ours. Whatever it says, at whatever time, it makes sense or
    /// is left aside.
    pub fn on_message(&mut self, from: usize, line: &Line, now_ns: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        if is_of_a_view(line.kind) {
            self.deliver(from, *line, &mut actions);
        } else if let Some(message) = membership::Message::decode(line.kind, &line.words) {
            let of_membership = self.membership.on_message(from, &message, now_ns);
            self.follow(of_membership, &mut actions);
        } else {
            self.counters.bad += 1;
        }
        actions
    }

    /// Hands a message of a view to its protocol, if it is of the view that holds.
    fn deliver(&mut self, from: usize, mut line: Line, actions: &mut Vec<Action>) {
        let round = (line.words[0] >> 32) as u32;
        if round > self.round {
            self.counters.held_back += 1;
            self.held.push((from, line));
            return;
        }
        if round < self.round || !self.view().cores.contains(from) {
            self.counters.refused += 1;
            return;
        }
        line.words[0] &= OWN_BITS;
        let (kind, words) = (line.kind, &line.words);
        if let Some(message) = names::Message::decode(kind, words) {
            let of_names = self.names.on_message(from, &message);
            self.take_names(of_names, actions);
        } else if let Some(message) = regions::Message::decode(kind, words) {
            let of_regions = self.regions.on_message(from, &message);
            self.take_regions(of_regions, actions);
        } else if let Some(message) = spaces::Message::decode(kind, words) {
            let of_spaces = self.spaces.on_message(from, &message);
            self.take_spaces(of_spaces, actions);
        } else {
            self.counters.bad += 1;
        }
    }

    /// Does what membership decided: with a new view, all protocols begin anew.
    fn follow(&mut self, of_membership: Vec<membership::Action>, actions: &mut Vec<Action>) {
        for action in of_membership {
            match action {
                membership::Action::Send(to, message) => {
                    let (kind, words) = message.encode();
                    actions.push(Action::Send(to, Line { kind, words }));
                }
                membership::Action::Fence(core) => actions.push(Action::Fence(core)),
                membership::Action::Installed(view) => self.install(&view, actions),
                membership::Action::Out(view) => actions.push(Action::Out(view)),
            }
        }
    }

    fn install(&mut self, view: &View, actions: &mut Vec<Action>) {
        self.round = view.epoch.round;
        actions.push(Action::Installed(view.clone()));
        let of_regions = self.regions.installed(view);
        self.take_regions(of_regions, actions);
        // All cores of a view take it up at the same place in the order of views.
        let strategy = Strategy::from_settings(view.settings);
        self.spaces.set_strategy(strategy);
        let of_spaces = self.spaces.installed(view);
        self.take_spaces(of_spaces, actions);
        let of_names = self.names.installed(view);
        self.take_names(of_names, actions);
        for (from, line) in core::mem::take(&mut self.held) {
            self.deliver(from, line, actions);
        }
    }

    /// A line of the view that holds.
    fn tagged(&self, (kind, mut words): (u16, [u64; 7])) -> Line {
        debug_assert!(words[0] <= OWN_BITS);
        words[0] = words[0] & OWN_BITS | u64::from(self.round) << 32;
        Line { kind, words }
    }

    fn take_names(&mut self, of_names: Vec<names::Action>, actions: &mut Vec<Action>) {
        for action in of_names {
            actions.push(match action {
                names::Action::Send(to, message) => Action::Send(to, self.tagged(message.encode())),
                other => Action::Names(other),
            });
        }
    }

    fn take_regions(&mut self, of_regions: Vec<regions::Action>, actions: &mut Vec<Action>) {
        for action in of_regions {
            actions.push(match action {
                regions::Action::Send(to, message) => {
                    Action::Send(to, self.tagged(message.encode()))
                }
                other => Action::Regions(other),
            });
        }
    }

    fn take_spaces(&mut self, of_spaces: Vec<spaces::Action>, actions: &mut Vec<Action>) {
        for action in of_spaces {
            actions.push(match action {
                spaces::Action::Send(to, message) => {
                    Action::Send(to, self.tagged(message.encode()))
                }
                other => Action::Spaces(other),
            });
        }
    }
}

/// Whether messages of this kind belong to a view.
fn is_of_a_view(kind: u16) -> bool {
    use crate::kinds::{NAMES, REGIONS, SPACES};
    NAMES.contains(&kind) || REGIONS.contains(&kind) || SPACES.contains(&kind)
}
