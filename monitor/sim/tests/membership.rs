//! Membership, checked exhaustively: cores stop at any point, join and leave, and any core may
//! take any other for dead at any time. And that the checks can fail: mutations of the protocol.

use protocols::core_set::CoreSet;
use protocols::membership::{Action, Membership, Message};
use protocols::view::{Epoch, View};
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::collections::{BTreeMap, VecDeque};

/// More than anybody's patience.
const LONG_NS: u64 = 1_000_000;
const PATIENCE_NS: u64 = 1_000;
/// So often nobody has to lose patience until all agree.
const LIMIT: u64 = 24;

/// Monitors that speak over wires, one a direction, in order.
#[derive(Clone, Copy, Default)]
struct Cores {
    /// Members of the first view.
    cores: usize,
    crashes: usize,
    /// How often the time passes for a core before anything is wrong.
    early_ticks: usize,
    /// One more core runs, and may be sponsored by any other.
    joins: bool,
    /// The core that may leave.
    leaves: Option<usize>,
    mutation: Option<Mutation>,
}

/// What is wrong with all monitors.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mutation {
    /// Suspects are left out and run on.
    NoFence,
    /// Nobody is asked for its view before the next one is made.
    NoGather,
    /// A view takes effect whatever was promised, and however old it is.
    AnyView,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    /// Nobody: it has stopped.
    monitors: Vec<Option<Membership>>,
    wires: BTreeMap<(usize, usize), VecDeque<Message>>,
    crashes: usize,
    early_ticks: usize,
    joiner: Option<usize>,
    sponsor: Option<usize>,
    leaver: Option<usize>,
    now_ns: u64,
    /// Of the view that each core holds, or held last.
    epochs: Vec<Epoch>,
    /// Every view that was installed.
    views: BTreeMap<Epoch, CoreSet>,
    /// Two views of one epoch, or a core that stops another and goes on in a view with it.
    is_wrong: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Deliver(usize, usize),
    /// Time passes for one core, while the others are as fast as ever.
    Tick(usize),
    /// Nothing is on its way: time passes for all.
    Wait,
    /// A core stops, and what it had sent to these has not been written yet.
    Crash(usize, Vec<usize>),
    Sponsor(usize),
    Leave(usize),
}

impl State {
    fn carry_out(&mut self, core: usize, actions: Vec<Action>, mutation: Option<Mutation>) {
        for action in actions {
            match action {
                Action::Fence(_) if mutation == Some(Mutation::NoFence) => {}
                Action::Send(to, Message::Gather { ballot, .. })
                    if mutation == Some(Mutation::NoGather) =>
                {
                    let view = View::default();
                    let answer = Message::Gathered { ballot, view };
                    let wire = self.wires.entry((to, core)).or_default();
                    wire.push_back(answer);
                }
                Action::Send(to, message) => {
                    assert_ne!(to, core, "a message to oneself: {message:?}");
                    if self.monitors[to].is_some() {
                        self.wires.entry((core, to)).or_default().push_back(message);
                    }
                }
                Action::Fence(other) => self.stop(other),
                Action::Installed(View { epoch, cores }) => {
                    self.is_wrong |= !cores.contains(core) || epoch <= self.epochs[core];
                    self.epochs[core] = epoch;
                    let first = self.views.entry(epoch).or_insert_with(|| cores.clone());
                    self.is_wrong |= *first != cores;
                }
                Action::Out(_) => self.monitors[core] = None,
            }
        }
    }

    fn tick(&mut self, core: usize, mutation: Option<Mutation>) -> Option<()> {
        let actions = self.monitors[core].as_mut()?.on_tick(self.now_ns);
        self.carry_out(core, actions, mutation);
        Some(())
    }

    fn stop(&mut self, core: usize) {
        self.monitors[core] = None;
        // What it had sent may still arrive.
        self.wires.retain(|(_, to), _| *to != core);
    }

    fn alive(&self) -> impl Iterator<Item = (usize, &Membership)> {
        let monitors = self.monitors.iter().enumerate();
        monitors.filter_map(|(core, monitor)| Some((core, monitor.as_ref()?)))
    }

    /// Whether all that live hold one view, of just them. Who runs and was never sponsored by
    /// anybody that lives has no part in that.
    fn is_settled(&self) -> bool {
        let is_part = |core: usize| {
            let sponsored = self.sponsor.is_some_and(|by| self.monitors[by].is_some());
            let mut views = self.alive().map(|(_, monitor)| monitor.view());
            views.any(|view| view.cores.contains(core)) || self.joiner == Some(core) && sponsored
        };
        let living = self.alive().map(|(core, _)| core);
        let living: CoreSet = living.filter(|core| is_part(*core)).collect();
        let leaver = self.leaver.and_then(|core| self.monitors[core].as_ref());
        if leaver.is_some() {
            return false;
        }
        let members = self.alive().filter(|(core, _)| living.contains(*core));
        let mut views = members.map(|(_, monitor)| monitor.view());
        let first = views.next();
        first.is_none_or(|first| first.cores == living && views.all(|view| view == first))
    }
}

impl Model for Cores {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let view = View {
            epoch: Epoch::default().next(0),
            cores: CoreSet::first(self.cores),
        };
        let running = self.cores + usize::from(self.joins);
        let monitors = (0..running).map(|core| {
            let mut monitor = Membership::new(core, PATIENCE_NS);
            if core < self.cores {
                monitor.begin(view.clone(), 0);
            }
            Some(monitor)
        });
        vec![State {
            monitors: monitors.collect(),
            wires: BTreeMap::new(),
            crashes: self.crashes,
            early_ticks: self.early_ticks,
            joiner: self.joins.then_some(self.cores),
            sponsor: None,
            leaver: None,
            now_ns: 0,
            epochs: vec![Epoch::default(); running],
            views: BTreeMap::from([(view.epoch, view.cores)]),
            is_wrong: false,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        steps.extend(
            state
                .wires
                .keys()
                .map(|(from, to)| Step::Deliver(*from, *to)),
        );
        let living: Vec<usize> = state.alive().map(|(core, _)| core).collect();
        if state.crashes > 0 && state.alive().count() > 1 {
            for core in living.iter().copied() {
                let wires = state.wires.keys().filter(|(from, _)| *from == core);
                let receivers: Vec<usize> = wires.map(|(_, to)| *to).collect();
                for lost in 0..1 << receivers.len() {
                    let is_lost = |(at, _): &(usize, &usize)| lost >> at & 1 != 0;
                    let lost = receivers.iter().enumerate().filter(is_lost);
                    let lost = lost.map(|(_, to)| *to).collect();
                    steps.push(Step::Crash(core, lost));
                }
            }
        }
        if state.joiner.is_some() && state.sponsor.is_none() {
            let members = living.iter().copied().filter(|core| *core < self.cores);
            steps.extend(members.map(Step::Sponsor));
        }
        if state.leaver.is_none()
            && let Some(core) = self.leaves.filter(|core| living.contains(core))
        {
            steps.push(Step::Leave(core));
        }
        if state.early_ticks > 0 {
            steps.extend(living.into_iter().map(Step::Tick));
        }
        if state.wires.is_empty() && !state.is_settled() {
            steps.push(Step::Wait);
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        match step {
            Step::Deliver(from, to) => {
                let wire = next.wires.get_mut(&(from, to))?;
                let message = wire.pop_front()?;
                if wire.is_empty() {
                    next.wires.remove(&(from, to));
                }
                let now_ns = next.now_ns;
                let monitor = next.monitors[to].as_mut()?;
                let actions = match &message {
                    Message::View(view) if self.mutation == Some(Mutation::AnyView) => {
                        monitor.begin(view.clone(), now_ns)
                    }
                    _ => monitor.on_message(from, &message, now_ns),
                };
                next.carry_out(to, actions, self.mutation);
            }
            Step::Tick(core) => {
                next.early_ticks -= 1;
                next.now_ns += LONG_NS;
                next.tick(core, self.mutation)?;
            }
            Step::Wait => {
                next.now_ns += LONG_NS;
                for core in 0..next.monitors.len() {
                    let _ = next.tick(core, self.mutation);
                }
            }
            Step::Sponsor(by) => {
                next.sponsor = Some(by);
                let (joiner, now_ns) = (next.joiner?, next.now_ns);
                let actions = next.monitors[by].as_mut()?.sponsor(joiner, now_ns);
                next.carry_out(by, actions, self.mutation);
            }
            Step::Leave(core) => {
                next.leaver = Some(core);
                let now_ns = next.now_ns;
                let actions = next.monitors[core].as_mut()?.leave(now_ns);
                next.carry_out(core, actions, self.mutation);
            }
            Step::Crash(core, lost) => {
                next.crashes -= 1;
                next.stop(core);
                for to in lost {
                    next.wires.remove(&(core, to));
                }
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("one view an epoch", |_, state: &State| !state.is_wrong),
            Property::always("agreement takes a bounded time", |_, state: &State| {
                state.now_ns < LONG_NS * LIMIT
            }),
            Property::always("few rounds", |_, state: &State| {
                state.views.len() < 8 && state.alive().all(|(_, one)| one.view().epoch.round < 12)
            }),
            Property::always("nobody talks without end", |_, state: &State| {
                state.wires.values().all(|wire| wire.len() < 12)
            }),
            Property::always("somebody lives", |_, state: &State| {
                state.alive().count() > 0
            }),
        ]
    }
}

fn explore(model: Cores) -> impl Checker<Cores> {
    let checker = model.checker().finish_when(HasDiscoveries::AnyFailures);
    checker.threads(2).spawn_bfs().join()
}

fn check(model: Cores) {
    let checker = explore(model);
    checker.assert_properties();
    assert!(checker.is_done());
    let Cores {
        cores,
        crashes,
        early_ticks,
        joins,
        leaves,
        ..
    } = model;
    println!(
        "membership: {cores} cores, {crashes} crashes, {early_ticks} early ticks, joins: {joins}, \
         leaves: {leaves:?}: {} states",
        checker.unique_state_count()
    );
}

fn cores(cores: usize, crashes: usize, early_ticks: usize) -> Cores {
    Cores {
        cores,
        crashes,
        early_ticks,
        ..Cores::default()
    }
}

#[test]
fn survivors_agree() {
    check(cores(2, 1, 2));
    check(cores(3, 1, 1));
    check(cores(3, 1, 2));
    check(cores(3, 2, 1));
    check(cores(3, 0, 3));
}

#[test]
fn cores_join_and_leave_while_others_stop() {
    for joined in [cores(2, 1, 0), cores(2, 1, 1), cores(3, 1, 0)] {
        check(Cores {
            joins: true,
            ..joined
        });
    }
    for core in 0..3 {
        check(Cores {
            leaves: Some(core),
            ..cores(3, 1, 0)
        });
    }
    check(Cores {
        joins: true,
        leaves: Some(0),
        ..cores(2, 1, 0)
    });
}

#[test]
fn mutations_are_found() {
    for (mutation, model) in [
        (Mutation::NoFence, cores(3, 0, 3)),
        (Mutation::NoGather, cores(3, 1, 0)),
        (Mutation::AnyView, cores(3, 1, 2)),
    ] {
        let checker = explore(Cores {
            joins: mutation == Mutation::NoGather,
            mutation: Some(mutation),
            ..model
        });
        let found = checker.discoveries();
        println!("{mutation:?}: {:?}", found.keys().collect::<Vec<_>>());
        assert!(!found.is_empty(), "{mutation:?} is not found");
    }
}
