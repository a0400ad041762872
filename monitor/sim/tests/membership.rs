//! Membership, checked exhaustively: cores stop at any point, join and leave, are started anew and
//! configure all others, and any core may take any other for dead at any time. And that the checks
//! can fail: mutations of the protocol.

use proptest::prelude::*;
use protocols::core_set::{CoreSet, WORDS};
use protocols::kinds;
use protocols::membership::{Action, Membership, Message};
use protocols::view::{Epoch, View};
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::collections::{BTreeMap, VecDeque};

/// More than anybody's patience.
const LONG_NS: u64 = 1_000_000;
const PATIENCE_NS: u64 = 1_000;
/// What is configured, if anything is.
const SETTINGS: u32 = 7;
/// So often nobody has to lose patience until all agree.
const LIMIT: u64 = 24;

/// Monitors that speak over wires, one a direction, in order.
#[derive(Clone, Copy, Debug, Default)]
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
    /// A core of the first view that has stopped before anything else happens.
    dead: Option<usize>,
    /// Any core that has stopped may be started anew, once, and be sponsored then.
    restarts: bool,
    /// Any core may configure all, once.
    configures: bool,
    mutation: Option<Mutation>,
}

/// What is wrong with all monitors.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mutation {
    /// Suspects are left out and run on.
    NoFence,
    /// Nobody is asked for its view before the next one is made.
    NoGather,
    /// A view takes effect whatever was promised.
    AnyView,
    /// Who joins is taken in, however far behind others are.
    Uneven,
    /// A core that was started anew follows a view that its former life was asked for.
    AnyLife,
    /// A core that was started anew answers what its former life was asked.
    AnswersForFormer,
    /// Answers do not tell of settings.
    SettingsForgotten,
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
    /// Who configures, and in which life.
    configurer: Option<(usize, u32)>,
    /// The coordinator knows of the settings.
    is_told: bool,
    now_ns: u64,
    /// Of the view that each core holds, or held last.
    epochs: Vec<Epoch>,
    /// How often each core was started anew.
    lives: Vec<u32>,
    /// The ballot that each core has answered last, and which life of it.
    answers: Vec<(Epoch, u32)>,
    /// Every view that was made, and which life of each core is meant.
    views: BTreeMap<Epoch, (View, Vec<u32>)>,
    /// Two views of one epoch, or a core that stops another and goes on in a view with it.
    is_wrong: bool,
    /// A core went from a view with one life of a core to a view with another, or is in a view that
    /// means another life of it.
    is_mistaken: bool,
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
    Restart(usize),
    Configure(usize),
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
                Action::Installed(view) => {
                    let View { epoch, cores, .. } = &view;
                    self.is_wrong |= !cores.contains(core) || *epoch <= self.epochs[core];
                    let (known, lives) = self.register(core, &view).clone();
                    self.is_wrong |= known != view;
                    self.is_mistaken |= lives[core] != self.lives[core];
                    if let Some((before, former)) = self.views.get(&self.epochs[core]) {
                        let mut both = cores.iter().filter(|core| before.cores.contains(*core));
                        self.is_mistaken |= both.any(|core| lives[core] != former[core]);
                    }
                    self.epochs[core] = *epoch;
                }
                Action::Out(view) => {
                    self.register(core, &view);
                    self.monitors[core] = None;
                }
            }
        }
    }

    /// The view of this epoch, and which lives it means: those of the view that its coordinator
    /// goes on from, and of who joins the one that answered.
    fn register(&mut self, core: usize, view: &View) -> &(View, Vec<u32>) {
        let basis = self.views.get(&self.epochs[core]).cloned();
        self.views.entry(view.epoch).or_insert_with(|| {
            let lives = self.lives.iter().enumerate().map(|(other, life)| {
                let stays = basis
                    .as_ref()
                    .filter(|(view, _)| view.cores.contains(other));
                let (ballot, answered) = self.answers[other];
                match stays {
                    Some((_, lives)) => lives[other],
                    None if ballot == view.epoch => answered,
                    None => *life,
                }
            });
            (view.clone(), lives.collect())
        })
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
        let configurer = self
            .configurer
            .filter(|(core, life)| living.contains(*core) && self.lives[*core] == *life);
        let is_configured = configurer.is_some() || self.is_told;
        let members = self.alive().filter(|(core, _)| living.contains(*core));
        let mut views = members.map(|(_, monitor)| monitor.view());
        let first = views.next();
        first.is_none_or(|first| {
            let is_done = first.settings == SETTINGS || !is_configured;
            is_done && first.cores == living && views.all(|view| view == first)
        })
    }
}

impl Model for Cores {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let view = View {
            epoch: Epoch::default().next(0),
            cores: CoreSet::first(self.cores),
            settings: 0,
        };
        let running = self.cores + usize::from(self.joins);
        let monitors = (0..running).map(|core| {
            let mut monitor = Membership::anew(core, PATIENCE_NS);
            if core < self.cores {
                monitor = Membership::new(core, PATIENCE_NS);
                monitor.begin(view.clone(), 0);
            }
            (self.dead != Some(core)).then_some(monitor)
        });
        let lives = vec![0; running];
        vec![State {
            monitors: monitors.collect(),
            wires: BTreeMap::new(),
            crashes: self.crashes,
            early_ticks: self.early_ticks,
            joiner: self.joins.then_some(self.cores),
            sponsor: None,
            leaver: None,
            configurer: None,
            is_told: false,
            now_ns: 0,
            epochs: (0..running)
                .map(|core| match core < self.cores {
                    true => view.epoch,
                    false => Epoch::default(),
                })
                .collect(),
            lives: lives.clone(),
            answers: vec![(Epoch::default(), 0); running],
            views: BTreeMap::from([(view.epoch, (view, lives))]),
            is_wrong: false,
            is_mistaken: false,
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
        if let Some(joiner) = state.joiner
            && state.sponsor.is_none()
        {
            let willing = state.alive().filter(|(_, monitor)| {
                !monitor.view().cores.is_empty() && !monitor.view().cores.contains(joiner)
            });
            steps.extend(willing.map(|(core, _)| Step::Sponsor(core)));
        }
        if self.restarts && state.joiner.is_none() {
            let dead = (0..self.cores).filter(|core| !living.contains(core));
            steps.extend(dead.map(Step::Restart));
        }
        if self.configures && state.configurer.is_none() {
            steps.extend(living.iter().copied().map(Step::Configure));
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
                next.is_told |= matches!(message, Message::Configure { .. });
                let is_new = monitor.view().cores.is_empty();
                let actions = match (message, self.mutation) {
                    (Message::View(view), Some(Mutation::AnyView)) => monitor.begin(view, now_ns),
                    (Message::View(view), Some(Mutation::AnyLife)) if is_new => {
                        monitor.begin(view, now_ns)
                    }
                    (
                        Message::Gather {
                            ballot,
                            mut joining,
                        },
                        Some(Mutation::AnswersForFormer),
                    ) if is_new => {
                        joining.insert(to);
                        let message = Message::Gather { ballot, joining };
                        monitor.on_message(from, &message, now_ns)
                    }
                    (Message::Gathered { ballot, mut view }, mutation) => {
                        next.answers[from] = (ballot, next.lives[from]);
                        let own = monitor.view();
                        if mutation == Some(Mutation::Uneven) && view.epoch < own.epoch {
                            view = own.clone();
                        }
                        if mutation == Some(Mutation::SettingsForgotten) {
                            view.settings = 0;
                        }
                        let message = Message::Gathered { ballot, view };
                        monitor.on_message(from, &message, now_ns)
                    }
                    (message, _) => monitor.on_message(from, &message, now_ns),
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
            Step::Restart(core) => {
                next.joiner = Some(core);
                next.lives[core] += 1;
                next.epochs[core] = Epoch::default();
                next.monitors[core] = Some(Membership::anew(core, PATIENCE_NS));
                // Its channels are new.
                next.wires
                    .retain(|(from, to), _| *from != core && *to != core);
            }
            Step::Configure(core) => {
                next.configurer = Some((core, next.lives[core]));
                let now_ns = next.now_ns;
                let actions = next.monitors[core].as_mut()?.configure(SETTINGS, now_ns);
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
            Property::always(
                "a new life is not taken for the former one",
                |_, state: &State| !state.is_mistaken,
            ),
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
        dead,
        restarts,
        configures,
        ..
    } = model;
    println!(
        "model membership, {cores} cores, {crashes} crashes, {early_ticks} early ticks, joins: \
         {joins}, leaves: {leaves:?}, dead: {dead:?}, restarts: {restarts}, configures: \
         {configures}: {} states",
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

/// Cores that are started anew, whether or not all know by then that they had stopped.
#[test]
fn a_new_life_is_not_taken_for_the_former_one() {
    for model in [
        cores(2, 1, 1),
        cores(3, 1, 0),
        cores(3, 1, 1),
        cores(3, 2, 0),
    ] {
        check(Cores {
            restarts: true,
            ..model
        });
    }
    check(Cores {
        restarts: true,
        configures: true,
        ..cores(3, 1, 0)
    });
    for dead in [0, 3] {
        check(Cores {
            restarts: true,
            dead: Some(dead),
            ..cores(4, 1, 0)
        });
    }
}

/// One core configures all, and another, or itself, stops.
#[test]
fn all_that_live_have_the_same_settings() {
    for model in [
        cores(1, 0, 0),
        cores(2, 1, 0),
        cores(3, 1, 0),
        cores(4, 1, 0),
    ] {
        check(Cores {
            configures: true,
            ..model
        });
    }
    for model in [cores(2, 1, 0), cores(3, 0, 0)] {
        check(Cores {
            configures: true,
            joins: true,
            ..model
        });
    }
}

#[test]
fn mutations_are_found() {
    let one = |joins, restarts, configures, model| Cores {
        joins,
        restarts,
        configures,
        ..model
    };
    let restart = |dead, model| Cores {
        dead: Some(dead),
        ..one(false, true, false, model)
    };
    for (mutation, model) in [
        (Mutation::NoFence, cores(3, 0, 3)),
        (Mutation::NoGather, one(true, false, false, cores(3, 1, 0))),
        (Mutation::AnyView, restart(3, cores(4, 1, 0))),
        (Mutation::Uneven, restart(3, cores(4, 1, 0))),
        (Mutation::AnyLife, one(false, true, true, cores(3, 1, 0))),
        (
            Mutation::AnswersForFormer,
            one(false, true, true, cores(3, 1, 0)),
        ),
        (
            Mutation::SettingsForgotten,
            one(false, false, true, cores(3, 1, 0)),
        ),
    ] {
        let checker = explore(Cores {
            mutation: Some(mutation),
            ..model
        });
        let found = checker.discoveries();
        let names = found.keys().collect::<Vec<_>>();
        println!(
            "mutation membership, {mutation:?}: {names:?}, {} states",
            checker.unique_state_count()
        );
        assert!(!found.is_empty(), "{mutation:?} is not found");
        let is_of_lives = !matches!(
            mutation,
            Mutation::NoFence | Mutation::NoGather | Mutation::SettingsForgotten
        );
        if is_of_lives {
            assert_eq!(names, [&"a new life is not taken for the former one"]);
        }
    }
}

/// Cores that a message can name.
const MAX_CORES: usize = WORDS * 64;

/// Something that happens to a monitor.
#[derive(Clone, Debug)]
enum Event {
    Message(usize, u16, [u64; 7]),
    Tick,
    Begin(Epoch, [u64; 4]),
    Sponsor(usize),
    Leave,
    Configure(u32),
}

/// Words that are often an epoch, a core or a set of few cores, and often at a limit.
fn word() -> impl Strategy<Value = u64> {
    let near = |word: u64| (0..4u64).prop_map(move |less| word - less);
    let round = prop_oneof![0..6u64, near(u64::from(u32::MAX))];
    prop_oneof![
        0..8u64,
        (round, 0..5u64).prop_map(|(round, core)| round << 16 | core),
        near(u64::MAX),
        any::<u64>(),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let from = prop_oneof![4 => 0..5usize, 1 => 0..MAX_CORES];
    let words = prop::array::uniform7(word());
    let message = (from, kinds::MEMBERSHIP, words);
    prop_oneof![
        12 => message.prop_map(|(from, kind, words)| Event::Message(from, kind, words)),
        3 => Just(Event::Tick),
        1 => (word(), prop::array::uniform4(word()))
            .prop_map(|(epoch, cores)| Event::Begin(Epoch::from_word(epoch), cores)),
        1 => (0..MAX_CORES).prop_map(Event::Sponsor),
        1 => Just(Event::Leave),
        1 => any::<u32>().prop_map(Event::Configure),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 5_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever comes, at whatever time, before or after the first view: nothing overflows, no
    /// message goes to its sender, and views only get newer.
    #[test]
    fn nonsense_does_no_harm(
        own in 0..5usize,
        is_anew: bool,
        patience_ns in prop_oneof![Just(1_000), Just(u64::MAX), 0..u64::MAX],
        start_ns in prop_oneof![Just(0), Just(u64::MAX - 10_000), 0..u64::MAX],
        events in prop::collection::vec((0..3_000u64, event()), 0..40),
    ) {
        let mut monitor = match is_anew {
            true => Membership::anew(own, patience_ns),
            false => Membership::new(own, patience_ns),
        };
        let mut now_ns = start_ns;
        for (passed_ns, event) in events {
            now_ns = now_ns.saturating_add(passed_ns);
            let before = monitor.view().epoch;
            let actions = match event {
                Event::Message(from, _, _) if from == own => continue,
                Event::Message(from, kind, words) => match Message::decode(kind, &words) {
                    Some(message) => monitor.on_message(from, &message, now_ns),
                    None => continue,
                },
                Event::Tick => monitor.on_tick(now_ns),
                Event::Begin(epoch, cores) => {
                    let cores = CoreSet::from_words(cores);
                    monitor.begin(View { epoch, cores, settings: 0 }, now_ns)
                }
                Event::Sponsor(core) => monitor.sponsor(core, now_ns),
                Event::Leave => monitor.leave(now_ns),
                Event::Configure(settings) => monitor.configure(settings, now_ns),
            };
            let is_out = actions.iter().any(|action| matches!(action, Action::Out(_)));
            prop_assert!(is_out || monitor.view().epoch >= before);
            prop_assert!(monitor.deadline_ns().is_none_or(|at_ns| at_ns >= start_ns));
            for action in &actions {
                match action {
                    Action::Send(to, message) => {
                        prop_assert_ne!(*to, own);
                        let (kind, words) = message.encode();
                        let decoded = Message::decode(kind, &words);
                        prop_assert_eq!(decoded.as_ref(), Some(message));
                    }
                    Action::Fence(core) => prop_assert_ne!(*core, own),
                    Action::Installed(view) => prop_assert!(view.cores.contains(own)),
                    Action::Out(view) => prop_assert!(!view.cores.contains(own)),
                }
            }
        }
    }
}
