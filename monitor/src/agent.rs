//! Everything that the monitors agree on, behind one epoch.
//!
//! The protocols of this library know nothing of each other. An agent, one on each core, runs
//! [`membership`] and, in each of its views, the others:
//!
//! ```text
//!              ┌───────────── agent ─────────────┐
//!   messages   │ membership ── view ──┬► regions │   what is to be done:
//!  ──────────► │   └ tables           ├► spaces  │ ──────────────────────►
//!   the time   │                      ├► names   │   send, fence, map, insert, …
//!              │      epoch of each   ├► lending │
//!              │                      └► costs   │
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
//! two cores ever take part in one round by different trees. Where the trees are computed from costs
//! that were measured ([`crate::costs`]), the settings name a table of them, and the table goes ahead of
//! every message that bears such settings ([`crate::costs::tables`]).
//!
//! What waits is bounded by what the protocols may have under way, a window for each core: nobody
//! sends more before this core answers.

use crate::costs::tables::{Table, Tables};
use crate::costs::{self, Costs};
use crate::lending::{self, Lending};
use crate::membership::{self, Membership};
use crate::names::{self, Names};
use crate::regions::{self, Regions};
use crate::spaces::{self, Spaces};
use crate::tree::{Machine, Planner, Strategy};
use crate::view::View;
use abi::limits::MAX_CORES;
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
    /// Of memory that cores lend each other; never [`lending::Action::Send`].
    Lending(lending::Action),
    /// Send a ping to a core, and say how long that took: see [`costs::Action::Ping`].
    Ping {
        /// The core.
        to: usize,
        /// For [`Costs::sent`].
        number: u32,
        /// The ping.
        line: Line,
    },
    /// A ping came from this core: see [`costs::Action::Answer`].
    Answer {
        /// Who sent it.
        to: usize,
        /// Of the ping.
        number: u32,
    },
    /// A survey that began here has ended. Settings may name its table from now on: see
    /// [`costs::tables::settings_of`]. `None` where there are no numbers left.
    Surveyed(Option<u32>),
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
    /// Views whose settings name a table of costs that is not here: messages to many go by unicast
    /// then. There are none.
    pub tableless: u64,
}

/// One core's agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Agent {
    membership: Membership,
    names: Names,
    regions: Regions,
    spaces: Spaces,
    lending: Lending,
    costs: Costs,
    tables: Tables,
    machine: Arc<Machine>,
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
    /// suspected. `machine` must be the same on all cores: rounds go by its costs until others were
    /// measured and a view with them holds.
    pub fn new(own: usize, patience_ns: u64, machine: Arc<Machine>) -> Self {
        let lending = Lending::new(own, nearest_to(own, &machine));
        let planner = Planner::new(own, Strategy::Unicast, Arc::clone(&machine));
        Self {
            membership: Membership::new(own, patience_ns),
            names: Names::new(own),
            regions: Regions::new(own),
            spaces: Spaces::new(own, planner),
            lending,
            costs: Costs::new(own, Arc::clone(&machine)),
            tables: Tables::new(own, Arc::clone(&machine)),
            machine,
            round: 0,
            held: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// As [`Self::new`], for a core that comes back into a system that runs: it is in no view before
    /// somebody sponsors it.
    pub fn anew(own: usize, patience_ns: u64, machine: Arc<Machine>) -> Self {
        Self {
            membership: Membership::anew(own, patience_ns),
            ..Self::new(own, patience_ns, machine)
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

    /// Memory that cores lend each other, to look at.
    pub fn lending(&self) -> &Lending {
        &self.lending
    }

    /// Surveys of what messages cost, to look at.
    pub fn costs(&self) -> &Costs {
        &self.costs
    }

    /// The table that trees are computed from in the view that holds, if its settings name one.
    pub fn table(&self) -> Option<&Table> {
        self.tables.current()
    }

    /// Has such a table from now on, as if it had been surveyed here. A first view may name it, if all
    /// cores of it have it.
    pub fn give_table(&mut self, table: Table) {
        self.tables.give(table);
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

    /// Has surveys do something; see [`Costs`].
    pub fn with_costs(
        &mut self,
        work: impl FnOnce(&mut Costs) -> Vec<costs::Action>,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let of_costs = work(&mut self.costs);
        self.take_costs(of_costs, &mut actions);
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

    /// Has memory that cores lend each other do something; see [`Lending`].
    pub fn with_lending(
        &mut self,
        work: impl FnOnce(&mut Lending) -> Vec<lending::Action>,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let of_lending = work(&mut self.lending);
        self.take_lending(of_lending, &mut actions);
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
            self.deliver(from, *line, now_ns, &mut actions);
        } else if let Some(message) = membership::Message::decode(line.kind, &line.words) {
            let of_membership = self.membership.on_message(from, &message, now_ns);
            self.follow(of_membership, &mut actions);
        } else if !self.tables.on_line(from, line.kind, &line.words) {
            self.counters.bad += 1;
        }
        actions
    }

    /// Hands a message of a view to its protocol, if it is of the view that holds.
    fn deliver(&mut self, from: usize, mut line: Line, now_ns: u64, actions: &mut Vec<Action>) {
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
        } else if let Some(message) = lending::Message::decode(kind, words) {
            let of_lending = self.lending.on_message(from, &message);
            self.take_lending(of_lending, actions);
        } else if let Some(message) = costs::Message::decode(kind, words) {
            let of_costs = self.costs.on_message(from, &message, now_ns);
            self.take_costs(of_costs, actions);
        } else {
            self.counters.bad += 1;
        }
    }

    /// Does what membership decided: with a new view, all protocols begin anew.
    fn follow(&mut self, of_membership: Vec<membership::Action>, actions: &mut Vec<Action>) {
        for action in of_membership {
            match action {
                membership::Action::Send(to, message) => {
                    let settings = message.settings().unwrap_or(0);
                    let table = self.tables.ahead_of(settings, to).into_iter();
                    let lines = table.chain([message.encode()]);
                    let send = |(kind, words)| Action::Send(to, Line { kind, words });
                    actions.extend(lines.map(send));
                }
                membership::Action::Fence(core) => actions.push(Action::Fence(core)),
                membership::Action::Installed(view) => self.install(&view, actions),
                membership::Action::Out(view) => actions.push(Action::Out(view)),
            }
        }
        self.tables.keep(self.membership.known_settings());
    }

    fn install(&mut self, view: &View, actions: &mut Vec<Action>) {
        self.round = view.epoch.round;
        actions.push(Action::Installed(view.clone()));
        let of_regions = self.regions.installed(view);
        self.take_regions(of_regions, actions);
        // All cores of a view take it up at the same place in the order of views.
        let plan = self.tables.installed(view);
        self.counters.tableless += u64::from(plan.is_none());
        let unicast = || (Strategy::Unicast, Arc::clone(&self.machine));
        let (strategy, machine) = plan.unwrap_or_else(unicast);
        self.spaces.set_strategy(strategy, machine);
        let of_spaces = self.spaces.installed(view);
        self.take_spaces(of_spaces, actions);
        let of_names = self.names.installed(view);
        self.take_names(of_names, actions);
        let of_lending = self.lending.installed(view);
        self.take_lending(of_lending, actions);
        let of_costs = self.costs.installed(view);
        self.take_costs(of_costs, actions);
        for (from, line) in core::mem::take(&mut self.held) {
            // Nobody answered a ping of this view that was not sent yet.
            self.deliver(from, line, 0, actions);
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

    fn take_lending(&mut self, of_lending: Vec<lending::Action>, actions: &mut Vec<Action>) {
        for action in of_lending {
            actions.push(match action {
                lending::Action::Send(to, message) => {
                    Action::Send(to, self.tagged(message.encode()))
                }
                other => Action::Lending(other),
            });
        }
    }

    fn take_costs(&mut self, of_costs: Vec<costs::Action>, actions: &mut Vec<Action>) {
        for action in of_costs {
            actions.push(match action {
                costs::Action::Send(to, message) => Action::Send(to, self.tagged(message.encode())),
                costs::Action::Ping { to, number } => {
                    let line = self.tagged(costs::Message::Ping { number }.encode());
                    Action::Ping { to, number, line }
                }
                costs::Action::Answer { to, number } => Action::Answer { to, number },
                costs::Action::Surveyed(costs) => Action::Surveyed(self.tables.add(costs)),
            });
        }
    }
}

/// All other cores, by what messages to them cost and then by number; none where they cost the same.
fn nearest_to(own: usize, machine: &Machine) -> Vec<usize> {
    let cost = |core: &usize| {
        let cost = machine.cost(own, *core);
        let all = [cost.send_ns, cost.latency_ns, cost.receive_ns];
        (all.map(u64::from).iter().sum::<u64>(), *core)
    };
    let mut others: Vec<usize> = (0..MAX_CORES).filter(|core| *core != own).collect();
    others.sort_by_key(cost);
    match others.is_sorted() {
        true => Vec::new(),
        false => others,
    }
}

/// Whether messages of this kind belong to a view.
fn is_of_a_view(kind: u16) -> bool {
    use crate::kinds::{COSTS, LENDING, NAMES, REGIONS, SPACES};
    let all = [NAMES, REGIONS, SPACES, LENDING, COSTS];
    all.iter().any(|range| range.contains(&kind))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::names::{Lookup, Name};
    use crate::view::Epoch;
    use std::collections::{BTreeMap, VecDeque};
    use std::vec;

    const PATIENCE_NS: u64 = 1_000_000;

    fn view(round: u32, cores: &[usize]) -> View {
        let coordinator = cores.iter().min().map_or(0, |core| *core as u16);
        View {
            epoch: Epoch { round, coordinator },
            cores: cores.iter().copied().collect(),
            settings: 0,
        }
    }

    fn agent(own: usize) -> Agent {
        Agent::new(own, PATIENCE_NS, Arc::default())
    }

    fn begin(agent: &mut Agent, view: View) -> Vec<Action> {
        agent.with_membership(|membership| membership.begin(view, 0))
    }

    fn sends(actions: &[Action]) -> Vec<(usize, Line)> {
        let sends = actions.iter().filter_map(|action| match action {
            Action::Send(to, line) if is_of_a_view(line.kind) => Some((*to, *line)),
            _ => None,
        });
        sends.collect()
    }

    /// Hands over all lines of views, each pair's in order.
    fn settle(agents: &mut BTreeMap<usize, Agent>, first: Vec<(usize, Action)>) {
        let mut open = VecDeque::from(first);
        while let Some((from, action)) = open.pop_front() {
            for (to, line) in sends(&[action]) {
                let actions = agents.get_mut(&to).unwrap().on_message(from, &line, 0);
                open.extend(actions.into_iter().map(|action| (to, action)));
            }
        }
    }

    fn name() -> Name {
        Name::new(b"name").unwrap()
    }

    /// Two agents in a view; core 1 has asked the coordinator for a name, and this is what it sent.
    fn asked() -> (BTreeMap<usize, Agent>, Line) {
        let mut agents = BTreeMap::from([(0, agent(0)), (1, agent(1))]);
        let mut first = vec![];
        for (core, agent) in &mut agents {
            let actions = begin(agent, view(2, &[0, 1]));
            first.extend(actions.into_iter().map(|action| (*core, action)));
        }
        settle(&mut agents, first);
        let one = agents.get_mut(&1).unwrap();
        let sent = sends(&one.with_names(|names| names.bind(1, 1, name(), 5)));
        assert_eq!((sent.len(), sent[0].0), (1, 0));
        (agents, sent[0].1)
    }

    fn found(agent: &mut Agent) -> Option<Lookup> {
        let mut found = None;
        agent.with_names(|names| {
            found = Some(names.lookup(9, name()));
            vec![]
        });
        found
    }

    #[test]
    fn lines_bear_the_round_of_their_view() {
        let (mut agents, line) = asked();
        assert_eq!(line.words[0] >> 32, 2);
        let coordinator = agents.get_mut(&0).unwrap();
        coordinator.on_message(1, &line, 0);
        assert_eq!(found(coordinator), Some(Lookup::Found(5)));
        assert_eq!(coordinator.counters(), Counters::default());
    }

    #[test]
    fn what_is_of_an_older_view_is_refused() {
        let (mut agents, line) = asked();
        let coordinator = agents.get_mut(&0).unwrap();
        for round in [0, 1] {
            let mut old = line;
            old.words[0] = old.words[0] & OWN_BITS | round << 32;
            assert_eq!(coordinator.on_message(1, &old, 0), vec![]);
        }
        assert_eq!(coordinator.counters().refused, 2);
        assert_eq!(found(coordinator), Some(Lookup::Absent));
    }

    #[test]
    fn what_is_of_a_newer_view_waits_for_it_and_keeps_its_order() {
        let (mut agents, line) = asked();
        // In its next view core 1 asks again, tells how far it is, and asks for another value.
        let mut actions = begin(agents.get_mut(&1).unwrap(), view(3, &[0, 1]));
        assert!(matches!(actions[0], Action::Installed(_)));
        let early = sends(&actions.split_off(1));
        assert!(early.len() >= 3 && early.iter().all(|(to, _)| *to == 0));
        let coordinator = agents.get_mut(&0).unwrap();
        for (_, line) in &early {
            assert_eq!(line.words[0] >> 32, 3);
            assert_eq!(coordinator.on_message(1, line, 0), vec![]);
        }
        let counters = coordinator.counters();
        assert_eq!(
            (counters.held_back, counters.refused),
            (early.len() as u64, 0)
        );
        assert_eq!(found(coordinator), Some(Lookup::Absent));
        // What it sent before, and comes now, is of the view that holds.
        coordinator.on_message(1, &line, 0);
        assert_eq!(found(coordinator), Some(Lookup::Found(5)));
        let actions = begin(coordinator, view(3, &[0, 1]));
        assert_eq!(actions[0], Action::Installed(view(3, &[0, 1])));
        // It was asked again, and knows that it has done so: the state came after the request.
        assert!(coordinator.names().is_synced());
        assert_eq!(found(coordinator), Some(Lookup::Found(5)));
        assert_eq!(coordinator.held, vec![]);
    }

    #[test]
    fn whoever_is_not_in_the_view_is_refused() {
        let (mut agents, line) = asked();
        let coordinator = agents.get_mut(&0).unwrap();
        assert_eq!(coordinator.on_message(2, &line, 0), vec![]);
        assert_eq!(coordinator.on_message(usize::MAX, &line, 0), vec![]);
        assert_eq!(coordinator.counters().refused, 2);
        // Nor is it heard of once that view holds which it is not in.
        let mut newer = line;
        newer.words[0] = newer.words[0] & OWN_BITS | 3 << 32;
        coordinator.on_message(1, &newer, 0);
        begin(coordinator, view(3, &[0, 2]));
        assert_eq!(coordinator.counters().refused, 3);
    }

    /// Whatever comes, of any kind, from anybody, in a view and before the first.
    #[test]
    fn garbage_does_no_harm() {
        let mut state = 7u64;
        let mut random = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state >> 33 ^ state << 31
        };
        let mut counted = Counters::default();
        for run in 0..60 {
            let mut agent = agent(1);
            if run % 4 > 0 {
                begin(&mut agent, view(2, &[0, 1, 2]));
            }
            for _ in 0..400 {
                let from = [0, 2, 2, 5, 255][random() as usize % 5];
                let kind = match random() % 8 {
                    0 => random() as u16,
                    _ => 0x68 + (random() % 0x98) as u16,
                };
                let mut words = [0; 7];
                for word in &mut words {
                    *word = match random() % 4 {
                        0 => random(),
                        1 => random() % 300,
                        _ => random() % 4,
                    };
                }
                if random() % 8 > 0 {
                    words[0] = words[0] & OWN_BITS | 2 << 32;
                }
                let line = Line { kind, words };
                if Agent::is_ours(kind) {
                    let now_ns = random() % (1 << 40);
                    agent.on_message(from, &line, now_ns);
                    agent.on_tick(now_ns);
                }
            }
            let Counters {
                refused,
                held_back,
                bad,
                ..
            } = agent.counters();
            counted.refused += refused;
            counted.held_back += held_back;
            counted.bad += bad;
        }
        // All of these are met.
        assert!(counted.refused > 0 && counted.held_back > 0 && counted.bad > 0);
    }
}
