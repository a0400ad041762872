//! Names, checked exhaustively: updates and reads on all cores, while one core stops at any point and
//! the others install the next view one after the other. And with faults built in: each must be found.

use protocols::core_set::CoreSet;
use protocols::names::{Action, Lookup, Message, Name, Names, Refusal, Version};
use protocols::view::{Epoch, View};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// More messages than any run takes.
const LIMIT: usize = 80;
/// Every core's programs are one domain.
const DOMAIN: u32 = 1;

/// What a program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Op {
    Bind(char, u64),
    Unbind(char),
    /// The domain ends.
    End,
    Read(char),
}

use Op::{Bind, End, Read, Unbind};

/// The same in the history, where it matters which core does it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Done {
    By(usize, Op),
    /// The core is gone, and what it had bound.
    Gone(usize),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Answer {
    Update(Result<(), Refusal>),
    Value(Option<u64>),
    Gone,
}

/// What the registry would be on one core: each name with its value and its owner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Registry {
    bound: BTreeMap<char, (u64, usize)>,
    gone: BTreeSet<usize>,
}

impl SequentialSpec for Registry {
    type Op = Done;
    type Ret = Answer;

    fn invoke(&mut self, done: &Done) -> Answer {
        let (core, op) = match done {
            Done::By(core, op) => (*core, *op),
            Done::Gone(core) => {
                self.bound.retain(|_, (_, owner)| owner != core);
                self.gone.insert(*core);
                return Answer::Gone;
            }
        };
        let is_gone = self.gone.contains(&core);
        let owner =
            |bound: &BTreeMap<char, (u64, usize)>, name| bound.get(&name).map(|(_, owner)| *owner);
        Answer::Update(match op {
            Read(name) => {
                return Answer::Value(self.bound.get(&name).map(|(value, _)| *value));
            }
            // Whatever a core that is gone had asked for does nothing any more.
            _ if is_gone => Ok(()),
            Bind(name, value) => match owner(&self.bound, name) {
                Some(owner) if owner != core => Err(Refusal::AlreadyBound),
                _ => {
                    self.bound.insert(name, (value, core));
                    Ok(())
                }
            },
            Unbind(name) => match owner(&self.bound, name) {
                None => Err(Refusal::NotBound),
                Some(owner) if owner != core => Err(Refusal::NotOwner),
                _ => {
                    self.bound.remove(&name);
                    Ok(())
                }
            },
            End => {
                self.bound.retain(|_, (_, owner)| *owner != core);
                Ok(())
            }
        })
    }
}

type History = LinearizabilityTester<usize, Registry>;

/// A fault that is built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The coordinator commits without having others prepare.
    SkipsPrepare,
    /// A core says that it has prepared, and does it later.
    AcknowledgesEarly,
    /// A read that is to wait is answered with what the replica has.
    ReadsAtOnce,
    /// The coordinator of a new view takes all for being as far as itself.
    ForgetsToSync,
    /// The coordinator of a new view drops what others have prepared.
    ForgetsPrepared,
    /// The coordinator of a new view does not wait for the others' states.
    SyncsEarly,
    /// An initiator does not ask again in a new view.
    AsksOnce,
}

/// Monitors that speak over wires, one a direction, in order; programs on them.
struct Cores {
    cores: usize,
    /// Starts, or starts again, and joins with the next view.
    joins: Option<usize>,
    /// And was not there before.
    is_new: bool,
    crashes: usize,
    /// Which core runs what, one after the other.
    programs: Vec<(usize, Vec<Op>)>,
    fault: Fault,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    /// Nobody: it has stopped.
    monitors: Vec<Option<Names>>,
    wires: BTreeMap<(usize, usize), VecDeque<Message>>,
    view: View,
    /// Who has installed that view.
    installed: CoreSet,
    crashes: usize,
    joins: Option<usize>,
    /// How far each program is, and whether it waits for an answer.
    programs: Vec<(usize, bool)>,
    history: History,
    /// The last that a core was told of its own binding of a name.
    told: BTreeMap<(usize, char), Option<u64>>,
    /// Gone, and their bindings may be seen still.
    fading: BTreeSet<usize>,
    /// Prepares that were acknowledged early.
    late: BTreeMap<usize, VecDeque<(usize, Message)>>,
    sent: usize,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Deliver(usize, usize),
    /// A program begins what it does next.
    Invoke(usize),
    Crash(usize),
    /// The next view is decided on: nothing of the old one is heard any more.
    Change,
    Install(usize),
    /// A core does what it had acknowledged.
    Late(usize),
}

fn name(letter: char) -> Name {
    Name::new(&[letter as u8]).unwrap()
}

impl State {
    fn alive(&self) -> impl Iterator<Item = (usize, &Names)> {
        let monitors = self.monitors.iter().enumerate();
        monitors.filter_map(|(core, monitor)| Some((core, monitor.as_ref()?)))
    }

    fn members(&self) -> CoreSet {
        self.alive().map(|(core, _)| core).collect()
    }

    /// Whether only programs and cores that stop make anything happen.
    fn is_quiet(&self) -> bool {
        let installed = self.installed == self.view.cores;
        self.wires.is_empty()
            && self.late.is_empty()
            && self.view.cores == self.members()
            && installed
    }
}

impl Cores {
    fn returned(&self, state: &mut State, program: usize, answer: Answer) {
        let (core, ops) = &self.programs[program];
        let (at, is_busy) = &mut state.programs[program];
        if !*is_busy {
            return;
        }
        let op = ops[*at];
        *is_busy = false;
        *at += 1;
        let mut others = self.programs.iter();
        let ends = others.any(|(of, ops)| of == core && ops.contains(&End));
        if answer == Answer::Update(Ok(())) && !ends {
            match op {
                Bind(name, value) => {
                    state.told.insert((*core, name), Some(value));
                }
                Unbind(name) => {
                    state.told.insert((*core, name), None);
                }
                _ => {}
            }
        }
        let _ = state.history.on_return(program, answer);
    }

    fn carry_out(&self, state: &mut State, core: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(to, message) => {
                    assert_ne!(to, core, "a message to oneself: {message:?}");
                    state.sent += 1;
                    if let Message::Prepare { counter, .. } = message
                        && self.fault == Fault::SkipsPrepare
                    {
                        let monitor = state.monitors[core].as_mut().unwrap();
                        let actions = monitor.on_message(to, &Message::Prepared { counter });
                        self.carry_out(state, core, actions);
                    } else if state.monitors[to].is_some() {
                        let wire = state.wires.entry((core, to)).or_default();
                        wire.push_back(message);
                    }
                }
                Action::Done { token, result } => {
                    self.returned(state, token as usize, Answer::Update(result));
                }
                Action::LookedUp { token, value } => {
                    self.returned(state, token as usize, Answer::Value(value));
                }
                Action::Changed { .. } => {}
            }
        }
    }

    fn hand_over(
        &self,
        state: &mut State,
        from: usize,
        to: usize,
        message: &Message,
    ) -> Option<()> {
        let monitor = state.monitors[to].as_mut()?;
        let version = monitor.replica().version;
        let actions = match (self.fault, message) {
            (Fault::AcknowledgesEarly, Message::Prepare { counter, .. }) => {
                let late = state.late.entry(to).or_default();
                late.push_back((from, message.clone()));
                let counter = *counter;
                vec![Action::Send(from, Message::Prepared { counter })]
            }
            (Fault::ForgetsToSync, Message::State(_)) => {
                monitor.on_message(from, &Message::State(version))
            }
            (Fault::ForgetsToSync | Fault::ForgetsPrepared, Message::Held { .. }) => vec![],
            _ => monitor.on_message(from, message),
        };
        self.carry_out(state, to, actions);
        Some(())
    }

    fn install(&self, state: &mut State, core: usize) -> Option<()> {
        state.installed.insert(core);
        let view = state.view.clone();
        let monitor = state.monitors[core].as_mut()?;
        let mut actions = monitor.installed(&view);
        if self.fault == Fault::AsksOnce {
            let is_request =
                |action: &Action| matches!(action, Action::Send(_, Message::Request(_)));
            actions.retain(|action| !is_request(action));
        }
        if self.fault == Fault::SyncsEarly && view.coordinator() == Some(core) {
            let version = monitor.replica().version;
            for other in view.cores.iter() {
                actions.extend(monitor.on_message(other, &Message::State(version)));
            }
        }
        self.carry_out(state, core, actions);
        Some(())
    }

    fn change(&self, state: &mut State) {
        let members = state.members();
        let coordinator = members.lowest().unwrap_or(0);
        state.view = View {
            epoch: state.view.epoch.next(coordinator),
            cores: members,
            settings: 0,
        };
        state.wires.clear();
        state.late.clear();
        state.installed = CoreSet::default();
    }

    fn invoke(&self, state: &mut State, program: usize) -> Option<()> {
        let (core, ops) = &self.programs[program];
        let op = *ops.get(state.programs[program].0)?;
        let monitor = state.monitors[*core].as_mut()?;
        // A core that is back is another one.
        let is_back = self.joins == Some(*core) && !self.is_new && state.joins.is_none();
        let who = *core + if is_back { self.cores } else { 0 };
        let token = program as u64;
        if op == End {
            // Nobody is told when that is done.
            state.programs[program].0 += 1;
            let ended = self.programs.len() + self.cores + core;
            let _ = state.history.on_invoke(ended, Done::By(who, op));
            let actions = monitor.domain_ended(DOMAIN);
            self.carry_out(state, *core, actions);
            return Some(());
        }
        state.programs[program].1 = true;
        let _ = state.history.on_invoke(program, Done::By(who, op));
        let actions = match op {
            Bind(letter, value) => monitor.bind(token, DOMAIN, name(letter), value),
            Unbind(letter) => monitor.unbind(token, DOMAIN, name(letter)),
            End => return None,
            Read(letter) => {
                let value = match monitor.lookup(token, name(letter)) {
                    Lookup::Found(value) => Some(value),
                    Lookup::Absent => None,
                    Lookup::Wait(_) if self.fault == Fault::ReadsAtOnce => {
                        let bindings = &monitor.replica().bindings;
                        bindings.get(&name(letter)).map(|binding| binding.value)
                    }
                    Lookup::Wait(_) => return Some(()),
                    Lookup::Busy => panic!("so many reads?"),
                };
                self.returned(state, program, Answer::Value(value));
                return Some(());
            }
        };
        self.carry_out(state, *core, actions);
        Some(())
    }
}

impl Model for Cores {
    type State = State;
    type Action = Step;

    /// All cores hold the first view, and are in one state.
    fn init_states(&self) -> Vec<State> {
        let is_late = |core: &usize| self.joins == Some(*core) && self.is_new;
        let monitors = (0..self.cores).map(|core| (!is_late(&core)).then(|| Names::new(core)));
        let mut state = State {
            monitors: monitors.collect(),
            wires: BTreeMap::new(),
            view: View {
                epoch: Epoch::default(),
                cores: CoreSet::first(self.cores),
                settings: 0,
            },
            installed: CoreSet::default(),
            crashes: self.crashes,
            joins: self.joins,
            programs: vec![(0, false); self.programs.len()],
            history: History::new(Registry::default()),
            told: BTreeMap::new(),
            fading: BTreeSet::new(),
            late: BTreeMap::new(),
            sent: 0,
        };
        self.change(&mut state);
        for core in state.members().iter() {
            self.install(&mut state, core);
        }
        while let Some((from, to)) = state.wires.keys().next().copied() {
            state = self.next_state(&state, Step::Deliver(from, to)).unwrap();
        }
        assert!(state.alive().all(|(_, monitor)| monitor.is_synced()));
        state.sent = 0;
        vec![state]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        // Messages of a view that is not installed wait.
        let wires = state.wires.keys();
        let wires = wires.filter(|(_, to)| state.installed.contains(*to));
        steps.extend(wires.map(|(from, to)| Step::Deliver(*from, *to)));
        steps.extend(state.late.keys().map(|core| Step::Late(*core)));
        let members = state.members();
        let comes = self.is_new && state.joins.is_some();
        if state.view.cores != members || comes {
            steps.push(Step::Change);
        }
        let waiting = members
            .iter()
            .filter(|core| state.view.cores.contains(*core) && !state.installed.contains(*core));
        steps.extend(waiting.map(Step::Install));
        if state.crashes > 0 && members.len() > 1 {
            steps.extend(members.iter().map(Step::Crash));
        }
        for (program, (core, ops)) in self.programs.iter().enumerate() {
            let (at, is_busy) = state.programs[program];
            if members.contains(*core) && !is_busy && at < ops.len() {
                steps.push(Step::Invoke(program));
            }
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
                self.hand_over(&mut next, from, to, &message)?;
            }
            Step::Invoke(program) => self.invoke(&mut next, program)?,
            Step::Crash(core) => {
                next.crashes -= 1;
                next.monitors[core] = None;
                // What it had sent may still arrive.
                next.wires.retain(|(_, to), _| *to != core);
                next.late.remove(&core);
                for ((of, ops), (at, is_busy)) in self.programs.iter().zip(&mut next.programs) {
                    if *of == core && core::mem::take(is_busy) {
                        *at = ops.len();
                    }
                }
                next.told.retain(|(of, _), _| *of != core);
                next.fading.insert(core);
                let gone = self.programs.len() + core;
                let _ = next.history.on_invoke(gone, Done::Gone(core));
            }
            Step::Change => {
                if let Some(core) = next.joins.filter(|core| next.monitors[*core].is_none()) {
                    next.monitors[core] = Some(Names::new(core));
                    next.joins = None;
                }
                self.change(&mut next);
            }
            Step::Install(core) => self.install(&mut next, core)?,
            Step::Late(core) => {
                let late = next.late.get_mut(&core)?;
                let (from, message) = late.pop_front()?;
                if late.is_empty() {
                    next.late.remove(&core);
                }
                // It has acknowledged that already.
                next.monitors[core].as_mut()?.on_message(from, &message);
            }
        }
        let is_synced = next.alive().all(|(_, monitor)| monitor.is_synced());
        if next.view.cores == next.members() && next.installed == next.view.cores && is_synced {
            for core in core::mem::take(&mut next.fading) {
                let gone = self.programs.len() + core;
                let _ = next.history.on_return(gone, Answer::Gone);
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("equal at equal versions", |_, state: &State| {
                let mut replicas: BTreeMap<Version, _> = BTreeMap::new();
                state.alive().all(|(_, monitor)| {
                    let replica = monitor.replica();
                    *replicas.entry(replica.version).or_insert(replica) == replica
                })
            }),
            Property::always("linearizable", |_, state: &State| {
                state.history.is_consistent()
            }),
            Property::always(
                "what was acknowledged holds",
                |model: &Self, state: &State| {
                    let is_open = |core: usize| {
                        let programs = model.programs.iter().zip(&state.programs);
                        let mut ours = programs.filter(|((of, _), _)| *of == core);
                        ours.any(|((_, ops), (at, is_busy))| {
                            *is_busy && !matches!(ops[*at], Read(_))
                        })
                    };
                    state.told.iter().all(|((core, letter), value)| {
                        if state.monitors[*core].is_none() || is_open(*core) {
                            return true;
                        }
                        let holds = |of: usize, monitor: &Names| {
                            let bound = monitor.replica().bindings.get(&name(*letter));
                            let ours = bound.filter(|bound| usize::from(bound.owner.core) == *core);
                            let is_told = of == *core || state.is_quiet();
                            !is_told || ours.map(|bound| bound.value) == *value
                        };
                        state.alive().all(|(of, monitor)| holds(of, monitor))
                    })
                },
            ),
            Property::always("all is answered", |model: &Self, state: &State| {
                let mut versions: Vec<Version> = state
                    .alive()
                    .map(|(_, monitor)| monitor.replica().version)
                    .collect();
                versions.dedup();
                let programs = model.programs.iter().zip(&state.programs);
                let mut waiting = programs.filter(|((core, _), (_, is_busy))| {
                    *is_busy && state.monitors[*core].is_some()
                });
                let is_idle = |(_, monitor): (usize, &Names)| monitor.is_idle();
                !state.is_quiet()
                    || waiting.next().is_none() && versions.len() == 1 && state.alive().all(is_idle)
            }),
            Property::always("few messages", |_, state: &State| state.sent < LIMIT),
            Property::sometimes("a read waits", |model: &Self, state: &State| {
                let mut programs = model.programs.iter().zip(&state.programs);
                programs.any(|((_, ops), (at, is_busy))| *is_busy && matches!(ops[*at], Read(_)))
            }),
        ]
    }
}

fn model(cores: usize, crashes: usize, programs: &[(usize, &[Op])]) -> Cores {
    let programs = programs.iter().map(|(core, ops)| (*core, ops.to_vec()));
    Cores {
        cores,
        joins: None,
        is_new: false,
        crashes,
        programs: programs.collect(),
        fault: Fault::None,
    }
}

fn check(model: Cores) {
    let title = format!(
        "names, {} cores, {:?} joins, {} crashes, {:?}",
        model.cores, model.joins, model.crashes, model.programs
    );
    let checker = model
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .threads(2)
        .spawn_bfs()
        .join();
    checker.assert_properties();
    assert!(checker.is_done());
    println!("model {title}: {} states", checker.unique_state_count());
}

/// The property that a built-in fault breaks.
fn found(fault: Fault, model: Cores) -> &'static str {
    let checker = Cores { fault, ..model }
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .threads(2)
        .spawn_bfs()
        .join();
    let mut found = checker.discoveries().into_keys();
    let found = found.find(|name| *name != "a read waits");
    println!(
        "mutation names, {fault:?}: {found:?}, after {} states",
        checker.unique_state_count()
    );
    found.expect("nobody noticed")
}

/// Two cores bind one name; reads on both.
#[test]
fn two_cores() {
    check(model(
        2,
        1,
        &[
            (0, &[Bind('a', 1), Unbind('a')]),
            (1, &[Bind('a', 2), Read('a')]),
            (0, &[Read('a'), Read('a')]),
            (1, &[Read('a')]),
        ],
    ));
    // More than one request of a core at once, and a domain's end.
    check(model(
        2,
        1,
        &[
            (1, &[Bind('a', 1), End, Bind('a', 2)]),
            (1, &[Bind('b', 1)]),
            (0, &[Bind('a', 3)]),
            (0, &[Read('a')]),
        ],
    ));
}

/// Two cores bind one name; reads on all three.
#[test]
fn three_cores() {
    let reads: [(usize, &[Op]); 3] = [(0, &[Read('a')]), (1, &[Read('a')]), (2, &[Read('a')])];
    for (one, other) in [(1, 2), (0, 2)] {
        let updates: [(usize, &[Op]); 2] = [(one, &[Bind('a', 1)]), (other, &[Bind('a', 2)])];
        check(model(3, 1, &[&updates[..], &reads].concat()));
    }
    // One core binds anew, another after it; two are under way at once.
    check(model(
        3,
        1,
        &[
            (1, &[Bind('a', 1), Unbind('a')]),
            (2, &[Bind('b', 2)]),
            (2, &[Read('a')]),
            (0, &[Read('a')]),
        ],
    ));
}

/// Two stop, one after the other, while the first view change is under way, too.
#[test]
fn two_of_three_cores_stop() {
    check(model(
        3,
        2,
        &[
            (1, &[Bind('a', 1)]),
            (2, &[Bind('a', 2)]),
            (2, &[Read('a')]),
        ],
    ));
}

/// A core joins with the view in which another is missing, and asks for the same name: the new one
/// is the next coordinator, or is not.
#[test]
fn one_stops_and_one_joins() {
    for joins in [0, 2] {
        let (one, other) = if joins == 0 { (1, 2) } else { (0, 1) };
        let model = model(
            3,
            1,
            &[
                (one, &[Bind('a', 1)]),
                (other, &[Read('a')]),
                (joins, &[Bind('a', 2)]),
            ],
        );
        check(Cores {
            joins: Some(joins),
            is_new: true,
            ..model
        });
    }
}

/// A core stops, and is back in the next view with nothing of what it was.
#[test]
fn one_is_back() {
    for back in 0..3 {
        let model = model(
            3,
            1,
            &[
                (0, &[Bind('a', 1)]),
                (1, &[Bind('a', 2)]),
                (2, &[Read('a')]),
                (back, &[Read('a')]),
            ],
        );
        let joins = Some(back);
        check(Cores { joins, ..model });
    }
}

#[test]
fn faults_are_found() {
    let three = |crashes| {
        model(
            3,
            crashes,
            &[
                (1, &[Bind('a', 1)]),
                (2, &[Bind('b', 2)]),
                (0, &[Read('a')]),
                (1, &[Read('a')]),
                (2, &[Read('a')]),
            ],
        )
    };
    assert_eq!(found(Fault::SkipsPrepare, three(0)), "linearizable");
    assert_eq!(found(Fault::AcknowledgesEarly, three(0)), "linearizable");
    assert_eq!(found(Fault::ReadsAtOnce, three(0)), "linearizable");
    found(Fault::ForgetsToSync, three(1));
    found(Fault::SyncsEarly, three(1));
    assert_eq!(found(Fault::AsksOnce, three(1)), "all is answered");
    let seen_by_dead = [
        (1, &[Bind('a', 1)][..]),
        (0, &[Read('a')]),
        (2, &[Read('a')]),
    ];
    found(Fault::ForgetsPrepared, model(3, 1, &seen_by_dead));
}
