//! Shared regions, checked exhaustively: one core stops at any point. Beyond that, long random runs
//! of more cores, more operations and more crashes.

use protocols::core_set::CoreSet;
use protocols::regions::{Action, Error, Kind, Message, OpId, Region, Regions};
use protocols::view::{Epoch, View};
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

/// More messages than any run needs.
const LIMIT: u32 = 160;

/// What a program does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Op {
    Send(usize),
    Retype(Range<u64>),
    Delete,
    Revoke,
    /// The objects of one range made here go.
    Untype,
}

/// What a test does wrong on behalf of the monitors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutation {
    None,
    /// Holders answer the first phase of a revoke, and do not take part in it.
    SkipPrepare,
    /// Holders answer the second phase before they have removed anything.
    AcknowledgeEarly,
    /// The owner takes a holder off its list.
    ForgetHolder,
    /// Whoever rebuilds the records does not wait for all claims.
    ClaimsOfSome,
}

/// What the CPU driver has under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Task {
    Insert(OpId, Region),
    Retype(Region, u32, u64, u64),
    Remove {
        region: Region,
        keep: bool,
        is_answered: bool,
    },
}

/// One core: monitor, and what the CPU driver knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Core {
    monitor: Regions,
    copies: BTreeSet<Region>,
    pieces: BTreeSet<(Region, u64, u64)>,
    tasks: VecDeque<Task>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    /// Nobody: it has stopped.
    cores: Vec<Option<Core>>,
    wires: BTreeMap<(usize, usize), VecDeque<Message>>,
    view: View,
    /// Operations that have not begun.
    script: Vec<Option<(usize, Op)>>,
    /// Those that have.
    results: BTreeMap<u64, Option<Result<(), Error>>>,
    crashes: usize,
    sent: u32,
    /// The core whose memory the region is.
    home: usize,
    /// Its memory is free.
    is_free: bool,
    wrong: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Begin(usize),
    Deliver(usize, usize),
    Complete(usize, usize, bool),
    Crash(usize),
    Install,
}

struct Scenario {
    cores: usize,
    crashes: usize,
    /// Who holds the region at first; the first is its home, and sent it to the others.
    holders: &'static [usize],
    script: Vec<(usize, Op)>,
    /// Whether the CPU driver may find no slot, or fail to make an object.
    may_fail: bool,
    mutation: Mutation,
}

fn region() -> Region {
    Region {
        kind: Kind::Ram,
        base: 0x10_0000,
        bytes: 0x4000,
        depth: 0,
    }
}

fn pages(range: &Range<u64>) -> Range<u64> {
    0x10_0000 + range.start * 0x1000..0x10_0000 + range.end * 0x1000
}

impl World {
    fn blame(&mut self, what: &'static str) {
        self.wrong.get_or_insert(what);
    }

    fn alive(&self) -> impl Iterator<Item = (usize, &Core)> {
        let cores = self.cores.iter().enumerate();
        cores.filter_map(|(core, one)| Some((core, one.as_ref()?)))
    }

    fn holds(core: &Core) -> bool {
        let makes = |task: &Task| matches!(task, Task::Insert(..) | Task::Retype(..));
        !core.copies.is_empty() || !core.pieces.is_empty() || core.tasks.iter().any(makes)
    }

    fn is_settled(&self) -> bool {
        self.wires.is_empty()
            && self.alive().all(|(_, one)| one.tasks.is_empty())
            && self
                .alive()
                .map(|(core, _)| core)
                .eq(self.view.cores.iter())
    }

    fn is_over(&self) -> bool {
        let is_alive = |core: usize| self.cores[core].is_some();
        let open = self.script.iter().flatten();
        self.is_settled() && !open.into_iter().any(|(core, _)| is_alive(*core))
    }

    fn carry_out(&mut self, core: usize, mutation: Mutation, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(to, message) => {
                    assert_ne!(to, core, "a message to oneself: {message:?}");
                    let (kind, words) = message.encode();
                    let back = Message::decode(kind, &words);
                    assert_eq!(back.as_ref(), Some(&message));
                    self.sent += 1;
                    if self.cores[to].is_some() {
                        self.wires.entry((core, to)).or_default().push_back(message);
                    }
                }
                Action::Insert { id, region, .. } => self.task(core, Task::Insert(id, region)),
                Action::Retype {
                    region,
                    range,
                    sequence,
                    ..
                } => self.task(core, Task::Retype(region, sequence, range.start, range.end)),
                Action::RemoveLocal { region, keep } => {
                    let is_answered = mutation == Mutation::AcknowledgeEarly && !keep;
                    self.task(
                        core,
                        Task::Remove {
                            region,
                            keep,
                            is_answered,
                        },
                    );
                    if is_answered {
                        let one = self.cores[core].as_mut().expect("it acts");
                        let actions = one.monitor.removed(region);
                        self.carry_out(core, mutation, actions);
                    }
                }
                Action::Done { token, result } => self.done(core, token, result),
                Action::Gone { .. } => {
                    if core != self.home || self.is_free {
                        self.blame("memory came back twice, or to the wrong core");
                    }
                    self.free();
                }
                Action::Unshared { .. } => {
                    let others = self
                        .alive()
                        .any(|(other, one)| other != core && Self::holds(one));
                    if others {
                        self.blame("a region that others hold is taken for one core's");
                    }
                }
                Action::Adopt { core: dead, .. } => {
                    if self.cores[dead].is_some() {
                        self.blame("memory of a living core was adopted");
                    }
                    if self.home == dead {
                        self.home = core;
                        let is_held = self.alive().any(|(_, one)| Self::holds(one));
                        if is_held && !self.is_free {
                            self.blame("memory was adopted that is held");
                        }
                        self.is_free = true;
                    }
                }
            }
        }
    }

    fn task(&mut self, core: usize, task: Task) {
        if let Some(one) = &mut self.cores[core] {
            one.tasks.push_back(task);
        }
    }

    fn free(&mut self) {
        if self.alive().any(|(_, one)| Self::holds(one)) {
            self.blame("memory came back that is held");
        }
        self.is_free = true;
    }

    fn done(&mut self, core: usize, token: u64, result: Result<(), Error>) {
        match self.results.get_mut(&token) {
            Some(place) if place.is_none() => *place = Some(result),
            _ => return self.blame("an operation ended twice, or was none"),
        }
        // The script is kept in the tokens: which operation it was.
        if token >= 1000 && result.is_ok() {
            let others = self
                .alive()
                .any(|(other, one)| other != core && Self::holds(one));
            if others {
                self.blame("somebody holds the region after the revoke");
            }
        }
    }

    fn begin(&mut self, at: usize, mutation: Mutation) {
        let Some((core, op)) = self.script[at].take() else {
            return;
        };
        let token = at as u64 + if op == Op::Revoke { 1000 } else { 0 };
        self.results.insert(token, None);
        let region = region();
        let home = self.home;
        let Some(one) = &mut self.cores[core] else {
            return;
        };
        let has_copy = one.copies.contains(&region);
        let is_shared = one.monitor.is_shared(region);
        if op != Op::Untype && !has_copy {
            // A monitor refuses it; a home may revoke.
            if !(op == Op::Revoke && is_shared) {
                return self.done(core, token, Err(Error::NoSuchRegion));
            }
        }
        let actions = match op {
            Op::Send(to) => {
                if !is_shared {
                    let pieces: Vec<_> = one.pieces.iter().map(|(_, a, b)| *a..*b).collect();
                    one.monitor.share(region, &pieces).expect("few ranges");
                }
                one.monitor.send(token, region, 7, to)
            }
            Op::Retype(range) if is_shared => one.monitor.retype(token, region, pages(&range)),
            Op::Retype(range) => {
                let range = pages(&range);
                let meets = |(_, a, b): &(Region, u64, u64)| *a < range.end && range.start < *b;
                let result = if one.pieces.iter().any(meets) {
                    Err(Error::Overlap)
                } else {
                    one.pieces.insert((region, range.start, range.end));
                    Ok(())
                };
                return self.done(core, token, result);
            }
            Op::Delete => {
                one.copies.remove(&region);
                if is_shared {
                    one.monitor.delete(token, region)
                } else {
                    if core != home {
                        self.blame("a region is taken for one core's away from its home");
                    }
                    let one = self.cores[core].as_ref().expect("it acts");
                    if !Self::holds(one) {
                        self.free();
                    }
                    return self.done(core, token, Ok(()));
                }
            }
            Op::Revoke if is_shared => one.monitor.revoke(token, region),
            Op::Revoke => {
                one.pieces.clear();
                return self.done(core, token, Ok(()));
            }
            Op::Untype => {
                let Some((_, start, end)) = one.pieces.pop_first() else {
                    return self.done(core, token, Err(Error::NoSuchRegion));
                };
                let actions = one.monitor.untype(region, &(start..end));
                if !is_shared && !Self::holds(one) {
                    self.free();
                }
                self.done(core, token, Ok(()));
                actions
            }
        };
        self.carry_out(core, mutation, actions);
    }

    fn complete(
        &mut self,
        core: usize,
        at: usize,
        is_well: bool,
        mutation: Mutation,
    ) -> Option<()> {
        let one = self.cores[core].as_mut()?;
        let actions = match one.tasks.remove(at)? {
            Task::Insert(id, region) => {
                if is_well {
                    one.copies.insert(region);
                }
                let result = if is_well { Ok(()) } else { Err(Error::NoSlot) };
                one.monitor.inserted(id, result)
            }
            Task::Retype(region, sequence, start, end) => {
                if is_well {
                    one.pieces.insert((region, start, end));
                }
                one.monitor.retyped(region, sequence, is_well)
            }
            Task::Remove {
                region,
                keep,
                is_answered,
            } => {
                one.pieces.clear();
                if !keep {
                    one.copies.remove(&region);
                }
                if is_answered {
                    Vec::new()
                } else {
                    one.monitor.removed(region)
                }
            }
        };
        self.carry_out(core, mutation, actions);
        Some(())
    }

    fn deliver(&mut self, from: usize, to: usize, mutation: Mutation) -> Option<()> {
        let wire = self.wires.get_mut(&(from, to))?;
        let mut message = wire.pop_front()?;
        if wire.is_empty() {
            self.wires.remove(&(from, to));
        }
        match (mutation, &mut message) {
            (Mutation::SkipPrepare, Message::Prepare { region, generation }) => {
                let answer = Message::Prepared {
                    region: *region,
                    generation: *generation,
                };
                self.carry_out(to, mutation, vec![Action::Send(from, answer)]);
                return Some(());
            }
            (Mutation::ForgetHolder, Message::Offered { holds, .. }) => *holds = false,
            _ => {}
        }
        let actions = self.cores[to].as_mut()?.monitor.on_message(from, &message);
        self.carry_out(to, mutation, actions);
        Some(())
    }

    fn install(&mut self, mutation: Mutation) {
        self.wires.clear();
        self.view = View {
            epoch: self.view.epoch.next(0),
            cores: self.alive().map(|(core, _)| core).collect(),
            settings: 0,
        };
        let view = self.view.clone();
        for core in view.cores.iter() {
            let Some(one) = self.cores[core].as_mut() else {
                continue;
            };
            let mut actions = one.monitor.installed(&view);
            if mutation == Mutation::ClaimsOfSome {
                for other in view.cores.iter().filter(|other| *other != core) {
                    actions.extend(one.monitor.on_message(other, &Message::Claimed));
                }
            }
            self.carry_out(core, mutation, actions);
        }
    }

    fn crash(&mut self, core: usize) {
        self.crashes -= 1;
        self.cores[core] = None;
        self.wires.retain(|(_, to), _| *to != core);
    }

    /// What must hold at any time.
    fn check(&mut self) {
        let region = region();
        let owners = self.alive().filter(|(_, one)| one.monitor.is_owner(region));
        let owners: Vec<usize> = owners.map(|(core, _)| core).collect();
        if owners.len() > 1 {
            self.blame("two owners");
        }
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for (_, one) in self.alive() {
            ranges.extend(one.pieces.iter().map(|(_, a, b)| (*a, *b)));
            ranges.extend(one.tasks.iter().filter_map(|task| match task {
                Task::Retype(_, _, a, b) => Some((*a, *b)),
                _ => None,
            }));
        }
        ranges.sort_unstable();
        if ranges.windows(2).any(|pair| pair[1].0 < pair[0].1) {
            self.blame("two granted ranges overlap");
        }
        if let [owner] = owners[..] {
            let owner = self.cores[owner].as_ref().expect("alive");
            let holders = owner.monitor.holders(region).cloned().unwrap_or_default();
            let unknown = self
                .alive()
                .any(|(core, one)| Self::holds(one) && !holders.contains(core));
            if unknown {
                self.blame("a holder that the owner does not know");
            }
        }
        if self.is_free && self.alive().any(|(_, one)| Self::holds(one)) {
            self.blame("free memory is held");
        }
        if self.is_over() {
            self.check_end(&owners);
        }
    }

    /// What must hold when nothing is left to do.
    fn check_end(&mut self, owners: &[usize]) {
        let region = region();
        let open = self.results.iter().any(|(token, result)| {
            let _ = token;
            result.is_none()
        });
        let of_living = self.alive().any(|(_, one)| one.monitor.under_way() > 0);
        if of_living || open && self.alive().count() == self.cores.len() {
            self.blame("an operation never ended");
        }
        let holders: CoreSet = self
            .alive()
            .filter(|(_, one)| Self::holds(one))
            .map(|(core, _)| core)
            .collect();
        if holders.is_empty() && !self.is_free {
            self.blame("memory is lost");
        }
        if holders.len() > 1 && owners.is_empty() {
            self.blame("a shared region without an owner");
        }
        if let [owner] = owners {
            let one = self.cores[*owner].as_ref().expect("alive");
            if one.monitor.holders(region) != Some(&holders) {
                self.blame("the owner takes somebody for a holder");
            }
            if !holders.contains(*owner) {
                self.blame("ownership did not move");
            }
        }
        // The memory of a dead core is the lowest core's to take care of.
        let is_home_dead = self.cores[self.home].is_none();
        let lowest = self.view.cores.lowest().filter(|_| is_home_dead);
        let home = lowest.unwrap_or(self.home);
        let known = self.alive().any(|(core, one)| {
            one.monitor.is_shared(region) && !holders.contains(core) && core != home
        });
        if known {
            self.blame("a region is remembered that is not held");
        }
        if self.alive().any(|(_, one)| one.monitor.is_barred(region)) {
            self.blame("a region is barred for ever");
        }
    }

    fn take(&mut self, step: &Step, mutation: Mutation) -> Option<()> {
        match *step {
            Step::Begin(at) => self.begin(at, mutation),
            Step::Deliver(from, to) => self.deliver(from, to, mutation)?,
            Step::Complete(core, at, is_well) => self.complete(core, at, is_well, mutation)?,
            Step::Crash(core) => self.crash(core),
            Step::Install => self.install(mutation),
        }
        self.check();
        Some(())
    }

    fn steps(&self, may_fail: bool, steps: &mut Vec<Step>) {
        for (at, op) in self.script.iter().enumerate() {
            if let Some((core, _)) = op
                && self.cores[*core].is_some()
            {
                steps.push(Step::Begin(at));
            }
        }
        let wires = self.wires.keys();
        steps.extend(wires.map(|(from, to)| Step::Deliver(*from, *to)));
        for (core, one) in self.alive() {
            // In any order: a removal takes its time, and other work goes on meanwhile.
            for (at, task) in one.tasks.iter().enumerate() {
                steps.push(Step::Complete(core, at, true));
                if may_fail && !matches!(task, Task::Remove { .. }) {
                    steps.push(Step::Complete(core, at, false));
                }
            }
        }
        if self.crashes > 0 && self.alive().count() > 1 {
            steps.extend(self.alive().map(|(core, _)| Step::Crash(core)));
        }
        if !self
            .alive()
            .map(|(core, _)| core)
            .eq(self.view.cores.iter())
        {
            steps.push(Step::Install);
        }
    }

    fn new(scenario: &Scenario) -> Self {
        let view = View {
            epoch: Epoch::default().next(0),
            cores: CoreSet::first(scenario.cores),
            settings: 0,
        };
        let mut world = Self {
            cores: Vec::new(),
            wires: BTreeMap::new(),
            view: view.clone(),
            script: Vec::new(),
            results: BTreeMap::new(),
            crashes: 0,
            sent: 0,
            home: scenario.holders[0],
            is_free: false,
            wrong: None,
        };
        for core in 0..scenario.cores {
            let mut monitor = Regions::new(core);
            monitor.installed(&view);
            world.cores.push(Some(Core {
                monitor,
                copies: BTreeSet::new(),
                pieces: BTreeSet::new(),
                tasks: VecDeque::new(),
            }));
        }
        // What there is at first comes about by the protocol itself.
        let home = scenario.holders[0];
        world.cores[home]
            .as_mut()
            .expect("it runs")
            .copies
            .insert(region());
        for other in 1..scenario.cores {
            let one = world.cores[0].as_mut().expect("it runs");
            one.monitor.on_message(other, &Message::Claimed);
        }
        for to in &scenario.holders[1..] {
            world.script = vec![Some((home, Op::Send(*to)))];
            world.run();
        }
        world.script = scenario.script.iter().cloned().map(Some).collect();
        world.results.clear();
        world.crashes = scenario.crashes;
        world.sent = 0;
        world
    }

    /// Takes steps until nothing is left to do.
    fn run(&mut self) {
        loop {
            let mut steps = Vec::new();
            self.steps(false, &mut steps);
            let Some(step) = steps.pop() else { return };
            self.take(&step, Mutation::None)
                .expect("the step can be taken");
        }
    }
}

impl Model for Scenario {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        world.steps(self.may_fail, steps);
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        next.take(&step, self.mutation)?;
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("all is well", |_, world: &World| world.wrong.is_none()),
            Property::always("it takes a bounded time", |_, world: &World| {
                world.sent < LIMIT && world.wires.values().all(|wire| wire.len() < 16)
            }),
        ]
    }
}

fn explore(name: &str, scenario: Scenario) {
    let (cores, crashes) = (scenario.cores, scenario.crashes);
    let checker = scenario
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .threads(2)
        .spawn_bfs()
        .join();
    for (property, path) in checker.discoveries() {
        println!("{name}: {property}: {:?}", path.last_state().wrong);
        for (world, step) in path.into_vec() {
            println!("  {step:?} {:?}", world.wires.values());
        }
    }
    checker.assert_properties();
    assert!(checker.is_done());
    println!(
        "model regions, {name}, {cores} cores, {crashes} crashes, holders {:?}, {:?}: {} states",
        checker.model().holders,
        checker.model().script,
        checker.unique_state_count()
    );
}

fn scenario(cores: usize, holders: &'static [usize], script: &[(usize, Op)]) -> Scenario {
    Scenario {
        cores,
        crashes: 1,
        holders,
        script: script.to_vec(),
        may_fail: false,
        mutation: Mutation::None,
    }
}

#[test]
fn revoke_against_send() {
    let name = "revoke against send";
    explore(
        name,
        scenario(2, &[0, 1], &[(0, Op::Revoke), (1, Op::Send(0))]),
    );
    explore(
        name,
        scenario(2, &[0, 1], &[(1, Op::Revoke), (0, Op::Send(1))]),
    );
    explore(
        name,
        scenario(3, &[0, 1], &[(0, Op::Revoke), (1, Op::Send(2))]),
    );
    explore(
        name,
        scenario(3, &[2, 1], &[(1, Op::Revoke), (2, Op::Send(0))]),
    );
    explore(
        name,
        scenario(3, &[1, 0, 2], &[(2, Op::Revoke), (0, Op::Send(2))]),
    );
}

#[test]
fn two_retypes() {
    let name = "two retypes";
    let script = [(0, Op::Retype(0..2)), (1, Op::Retype(1..3))];
    for holders in [&[0, 1][..], &[1, 0]] {
        let mut two = scenario(2, holders, &script);
        two.may_fail = true;
        explore(name, two);
        explore(name, scenario(3, holders, &script));
    }
    explore(name, scenario(3, &[2, 0, 1], &script));
}

#[test]
fn retype_against_revoke() {
    let name = "retype against revoke";
    let script = [(0, Op::Retype(0..2)), (1, Op::Revoke)];
    for holders in [&[0, 1][..], &[1, 0]] {
        let mut two = scenario(2, holders, &script);
        two.may_fail = true;
        explore(name, two);
        explore(name, scenario(3, holders, &script));
    }
    explore(name, scenario(3, &[2, 0, 1], &script));
}

#[test]
fn delete_of_the_last_copy_against_send() {
    let name = "delete against send";
    explore(
        name,
        scenario(
            2,
            &[0, 1],
            &[(0, Op::Delete), (1, Op::Send(0)), (1, Op::Delete)],
        ),
    );
    explore(
        name,
        scenario(
            3,
            &[0, 1],
            &[(0, Op::Delete), (1, Op::Send(2)), (1, Op::Delete)],
        ),
    );
    explore(
        name,
        scenario(
            3,
            &[2, 1],
            &[(2, Op::Delete), (1, Op::Send(0)), (1, Op::Delete)],
        ),
    );
}

#[test]
fn ownership_move_against_revoke() {
    let name = "move against revoke";
    explore(
        name,
        scenario(2, &[0, 1], &[(0, Op::Delete), (1, Op::Revoke)]),
    );
    explore(
        name,
        scenario(3, &[0, 1, 2], &[(0, Op::Delete), (2, Op::Revoke)]),
    );
    explore(
        name,
        scenario(3, &[2, 1, 0], &[(2, Op::Delete), (1, Op::Revoke)]),
    );
}

#[test]
fn two_revokes() {
    let name = "two revokes";
    explore(
        name,
        scenario(2, &[0, 1], &[(0, Op::Revoke), (1, Op::Revoke)]),
    );
    explore(
        name,
        scenario(3, &[0, 1, 2], &[(1, Op::Revoke), (2, Op::Revoke)]),
    );
}

/// Each is found out by some property.
#[test]
fn mutations_are_caught() {
    let caught = |mutation, mut scenario: Scenario| {
        scenario.mutation = mutation;
        let checker = scenario
            .checker()
            .finish_when(HasDiscoveries::AnyFailures)
            .threads(2)
            .spawn_bfs()
            .join();
        let discoveries = checker.discoveries();
        let path = discoveries.values().next().expect("the mutation is caught");
        println!(
            "mutation regions, {mutation:?}: {:?}",
            path.last_state().wrong
        );
    };
    let retype = [(0, Op::Retype(0..2)), (1, Op::Revoke)];
    caught(Mutation::SkipPrepare, scenario(2, &[1, 0], &retype));
    caught(Mutation::AcknowledgeEarly, scenario(2, &[1, 0], &retype));
    let send = [(0, Op::Send(1)), (0, Op::Revoke)];
    caught(Mutation::ForgetHolder, scenario(2, &[0], &send));
    let none: [(usize, Op); 0] = [];
    caught(Mutation::ClaimsOfSome, scenario(3, &[2, 1, 0], &none));
}

/// Longer scripts, and a second crash.
#[test]
fn all_against_all() {
    let mut four = vec![
        (0, Op::Delete),
        (1, Op::Send(2)),
        (2, Op::Revoke),
        (1, Op::Retype(0..2)),
    ];
    explore("four operations", scenario(3, &[0, 1, 2], &four));
    four.swap_remove(1);
    for holders in [&[0, 1, 2][..], &[1, 0, 2], &[2, 1, 0]] {
        let mut two = scenario(3, holders, &four);
        two.crashes = 2;
        explore("three operations", two);
    }
    let both = [
        (0, Op::Delete),
        (1, Op::Send(0)),
        (0, Op::Revoke),
        (1, Op::Revoke),
    ];
    let mut two = scenario(3, &[2, 0, 1], &both);
    two.crashes = 2;
    explore("four operations", two);
}

/// A run of random steps.
fn run(seed: u64) -> (usize, u32) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize % below
    };
    let cores = 2 + random(5);
    let script = (0..4 + random(16)).map(|_| {
        let op = match random(12) {
            0..5 => Op::Send(random(cores)),
            5..8 => {
                let start = random(3) as u64;
                Op::Retype(start..start + 1 + random(2) as u64)
            }
            8 => Op::Untype,
            9 | 10 => Op::Delete,
            _ => Op::Revoke,
        };
        (random(cores), op)
    });
    let script: Vec<_> = script.collect();
    let scenario = Scenario {
        cores,
        crashes: random(cores),
        holders: [&[0][..], &[1], &[0, 1], &[1, 0]][random(4)],
        script,
        may_fail: true,
        mutation: Mutation::None,
    };
    let mut world = World::new(&scenario);
    let crash_odds = [5, 20, 60][random(3)];
    let mut taken = Vec::new();
    let is_verbose = std::env::var("SEED").is_ok();
    for count in 0.. {
        let mut steps = Vec::new();
        world.steps(true, &mut steps);
        if random(crash_odds) != 0 {
            steps.retain(|step| !matches!(step, Step::Crash(_)));
        }
        if random(3) != 0 && steps.iter().any(|step| !matches!(step, Step::Begin(_))) {
            steps.retain(|step| !matches!(step, Step::Begin(_)));
        }
        if steps.is_empty() {
            let mut all = Vec::new();
            world.steps(true, &mut all);
            if all.iter().all(|step| matches!(step, Step::Crash(_))) {
                return (count, world.sent);
            }
            continue;
        }
        let step = steps.swap_remove(random(steps.len()));
        taken.push(step.clone());
        if is_verbose {
            println!("{:?}\n{step:?}", world.wires);
        }
        world
            .take(&step, Mutation::None)
            .expect("the step can be taken");
        if let Some(wrong) = world.wrong {
            for step in &taken {
                println!("{step:?}");
            }
            println!("{:?}\n{world:#?}", scenario.script);
            panic!("seed {seed}: {wrong}");
        }
        assert!(count < 4_000, "seed {seed}: it does not end");
    }
    unreachable!()
}

#[test]
fn random_runs() {
    let only = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..100_000, |seed| seed..seed + 1);
    let runs = seeds.end - seeds.start;
    let (mut steps, mut sent) = (0, 0);
    for seed in seeds {
        let (more, messages) = run(seed);
        steps += more;
        sent += messages as usize;
    }
    println!("regions: {runs} random runs: {steps} steps, {sent} messages");
}
