//! Membership, checked exhaustively: one core stops at any point, and any core may take any other
//! for dead at any time.

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
struct Cores {
    cores: usize,
    crashes: usize,
    /// How often the time passes for a core before anything is wrong.
    early_ticks: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    /// Nobody: it has stopped.
    monitors: Vec<Option<Membership>>,
    wires: BTreeMap<(usize, usize), VecDeque<Message>>,
    crashes: usize,
    early_ticks: usize,
    now_ns: u64,
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
    Crash(usize),
}

impl State {
    fn carry_out(&mut self, core: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(to, message) => {
                    assert_ne!(to, core, "a message to oneself: {message:?}");
                    if self.monitors[to].is_some() {
                        self.wires.entry((core, to)).or_default().push_back(message);
                    }
                }
                Action::Fence(other) => self.stop(other),
                Action::Installed(View { epoch, cores }) => {
                    self.is_wrong |= !cores.contains(core);
                    let first = self.views.entry(epoch).or_insert_with(|| cores.clone());
                    self.is_wrong |= *first != cores;
                }
                Action::Out(_) => self.monitors[core] = None,
            }
        }
    }

    fn tick(&mut self, core: usize) -> Option<()> {
        let actions = self.monitors[core].as_mut()?.on_tick(self.now_ns);
        self.carry_out(core, actions);
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

    /// Whether all that live hold one view, of just them.
    fn is_settled(&self) -> bool {
        let living: CoreSet = self.alive().map(|(core, _)| core).collect();
        let mut views = self.alive().map(|(_, monitor)| monitor.view());
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
        let monitors = (0..self.cores).map(|core| {
            let mut monitor = Membership::new(core, PATIENCE_NS);
            monitor.begin(view.clone(), 0);
            Some(monitor)
        });
        vec![State {
            monitors: monitors.collect(),
            wires: BTreeMap::new(),
            crashes: self.crashes,
            early_ticks: self.early_ticks,
            now_ns: 0,
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
            steps.extend(living.iter().copied().map(Step::Crash));
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
                let actions = monitor.on_message(from, &message, now_ns);
                next.carry_out(to, actions);
            }
            Step::Tick(core) => {
                next.early_ticks -= 1;
                next.now_ns += LONG_NS;
                next.tick(core)?;
            }
            Step::Wait => {
                next.now_ns += LONG_NS;
                for core in 0..next.monitors.len() {
                    let _ = next.tick(core);
                }
            }
            Step::Crash(core) => {
                next.crashes -= 1;
                next.stop(core);
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

fn check(cores: usize, crashes: usize, early_ticks: usize) -> usize {
    let model = Cores {
        cores,
        crashes,
        early_ticks,
    };
    let checker = model
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .threads(2)
        .spawn_bfs()
        .join();
    checker.assert_properties();
    assert!(checker.is_done());
    println!(
        "membership: {cores} cores, {crashes} crashes, {early_ticks} early ticks: {} states",
        checker.unique_state_count()
    );
    checker.unique_state_count()
}

#[test]
fn survivors_agree_on_two_cores() {
    check(2, 1, 2);
}

#[test]
fn survivors_agree_on_three_cores() {
    check(3, 1, 1);
    check(3, 1, 2);
    check(3, 2, 1);
    check(3, 0, 3);
}
