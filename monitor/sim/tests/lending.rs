//! Memory that cores lend each other, checked exhaustively: a core stops at any point. Beyond that,
//! long random runs of more cores, more crashes, and cores that start anew.

use protocols::core_set::CoreSet;
use protocols::lending::{Action, Error, Lending, Loan, Message};
use protocols::view::{Epoch, View};
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// More messages than any run of the model needs.
const LIMIT: u32 = 120;
/// What the number of an ask is changed by, where a test has it repeated with another.
const OTHER: u32 = 1000;

/// What a test does wrong on behalf of the monitors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutation {
    None,
    /// Who is asked to say when a dead borrower's memory is used no more says so at once.
    ClearAtOnce,
    /// An ask that is repeated has another number.
    RepeatIsNew,
}

/// What a program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Op {
    /// This core borrows so many pages.
    Borrow(usize, u64),
    /// A domain of the first core shares all that it has borrowed with one of the second.
    Share(usize, usize),
}

/// One core: its monitor, and what it has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Core {
    monitor: Lending,
    /// Its own pages that are free.
    free: BTreeSet<u64>,
    /// What it may use of others', by first page.
    loans: BTreeMap<u64, Loan>,
    /// Loans of which domains here use something.
    uses: BTreeSet<u64>,
    /// What is to be told of: the lender, and the first page.
    watches: BTreeSet<(usize, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    /// Nobody: it has stopped.
    cores: Vec<Option<Core>>,
    wires: BTreeMap<(usize, usize), VecDeque<Message>>,
    view: View,
    /// What has not begun.
    script: Vec<Option<Op>>,
    /// Asks that have not ended.
    asks: BTreeMap<u64, usize>,
    tokens: u64,
    crashes: usize,
    /// Views that come although nobody stopped.
    changes: usize,
    sent: u32,
    failed: usize,
    /// Pages that each core has.
    pages: u64,
    /// Asks that were sent, for a mutation.
    asked: BTreeSet<(usize, u32)>,
    wrong: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Begin(usize),
    Deliver(usize, usize),
    /// A core gives a loan back that nobody uses.
    GiveBack(usize, u64),
    /// Domains of a core use a loan no more.
    EndUse(usize, u64),
    /// A core finds that nothing is used any more of what it watches.
    Clear(usize, usize, u64),
    Crash(usize),
    /// A core that stopped starts anew.
    Start(usize),
    Install,
}

struct Scenario {
    name: &'static str,
    cores: usize,
    crashes: usize,
    changes: usize,
    pages: u64,
    script: Vec<Op>,
    mutation: Mutation,
}

impl World {
    fn new(scenario: &Scenario) -> Self {
        let mut world = Self {
            cores: Vec::new(),
            wires: BTreeMap::new(),
            view: View {
                epoch: Epoch::default().next(0),
                cores: CoreSet::first(scenario.cores),
                settings: 0,
            },
            script: scenario.script.iter().copied().map(Some).collect(),
            asks: BTreeMap::new(),
            tokens: 0,
            crashes: scenario.crashes,
            changes: scenario.changes,
            sent: 0,
            failed: 0,
            pages: scenario.pages,
            asked: BTreeSet::new(),
            wrong: None,
        };
        for core in 0..scenario.cores {
            let mut one = world.fresh(core);
            one.monitor.installed(&world.view);
            world.cores.push(Some(one));
        }
        world
    }

    fn fresh(&self, core: usize) -> Core {
        let first = core as u64 * 100;
        Core {
            monitor: Lending::new(core, Vec::new()),
            free: (first..first + self.pages).collect(),
            loans: BTreeMap::new(),
            uses: BTreeSet::new(),
            watches: BTreeSet::new(),
        }
    }

    fn blame(&mut self, what: &'static str) {
        self.wrong.get_or_insert(what);
    }

    fn alive(&self) -> impl Iterator<Item = (usize, &Core)> {
        let cores = self.cores.iter().enumerate();
        cores.filter_map(|(core, one)| Some((core, one.as_ref()?)))
    }

    fn is_in_view(&self) -> bool {
        let alive = self.alive().map(|(core, _)| core);
        alive.eq(self.view.cores.iter())
    }

    fn is_used(&self, base: u64) -> bool {
        self.alive().any(|(_, one)| one.uses.contains(&base))
    }

    fn one(&mut self, core: usize) -> &mut Core {
        self.cores[core].as_mut().expect("it acts")
    }

    fn carry_out(&mut self, core: usize, mutation: Mutation, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(to, message) => self.send(core, to, message, mutation),
                Action::Lend {
                    work, least, most, ..
                } => {
                    let one = self.one(core);
                    let run = |base: &u64| {
                        let mut run = *base..*base + most;
                        run.position(|page| !one.free.contains(&page))
                            .map_or(most, |at| at as u64)
                    };
                    let base = one.free.iter().copied().find(|base| run(base) >= least);
                    let piece = base.map(|base| (base, run(&base)));
                    if let Some((base, pages)) = piece {
                        one.free.retain(|page| !(base..base + pages).contains(page));
                    }
                    let actions = one.monitor.lent(work, piece);
                    self.carry_out(core, mutation, actions);
                }
                Action::TakeBack { base, pages } => {
                    for page in base..base + pages {
                        if !self.one(core).free.insert(page) {
                            self.blame("memory came back twice");
                        }
                    }
                }
                Action::Watch { lender, base, .. } => {
                    self.one(core).watches.insert((lender, base));
                    if mutation == Mutation::ClearAtOnce {
                        self.clear(core, lender, base, mutation);
                    }
                }
                Action::Unwatch { lender, base } => {
                    self.one(core).watches.remove(&(lender, base));
                }
                Action::Done { token, result } => {
                    if self.asks.remove(&token) != Some(core) {
                        self.blame("an ask ended twice, or was none");
                    }
                    match result {
                        Ok(loan) => {
                            if self.one(core).loans.insert(loan.base, loan).is_some() {
                                self.blame("a loan came twice");
                            }
                        }
                        Err(Error::NoMemory) => self.failed += 1,
                        Err(Error::Busy) => self.blame("there was room for an ask"),
                    }
                }
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, mut message: Message, mutation: Mutation) {
        if from == to {
            self.blame("a message to oneself");
        }
        let (kind, words) = message.encode();
        assert_eq!(Message::decode(kind, &words), Some(message));
        if let Message::Ask { sequence, .. } = &mut message
            && mutation == Mutation::RepeatIsNew
            && !self.asked.insert((from, *sequence))
        {
            *sequence += OTHER;
        }
        self.sent += 1;
        if self.cores[to].is_some() {
            self.wires.entry((from, to)).or_default().push_back(message);
        }
    }

    fn deliver(&mut self, from: usize, to: usize, mutation: Mutation) -> Option<()> {
        let wire = self.wires.get_mut(&(from, to))?;
        let mut message = wire.pop_front()?;
        if wire.is_empty() {
            self.wires.remove(&(from, to));
        }
        match &mut message {
            Message::Lent { sequence, .. } | Message::None { sequence }
                if mutation == Mutation::RepeatIsNew =>
            {
                *sequence %= OTHER;
            }
            _ => {}
        }
        let actions = self.cores[to].as_mut()?.monitor.on_message(from, &message);
        self.carry_out(to, mutation, actions);
        Some(())
    }

    fn clear(&mut self, core: usize, lender: usize, base: u64, mutation: Mutation) {
        let one = self.one(core);
        one.watches.remove(&(lender, base));
        let actions = one.monitor.cleared(lender, base);
        self.carry_out(core, mutation, actions);
    }

    fn begin(&mut self, op: Op, mutation: Mutation) {
        match op {
            Op::Borrow(core, pages) => {
                self.tokens += 1;
                let token = self.tokens;
                let Some(one) = &mut self.cores[core] else {
                    return;
                };
                self.asks.insert(token, core);
                let actions = one.monitor.borrow(token, pages, pages);
                self.carry_out(core, mutation, actions);
            }
            Op::Share(borrower, user) => {
                let loans = self.cores[borrower].as_ref().map(|one| &one.loans);
                let bases: Vec<u64> = loans
                    .into_iter()
                    .flat_map(|all| all.keys())
                    .copied()
                    .collect();
                // Who is out of the view is neither asked nor heard.
                let both = [borrower, user];
                if both.iter().all(|core| self.view.cores.contains(*core))
                    && let Some(user) = &mut self.cores[user]
                {
                    user.uses.extend(bases);
                }
            }
        }
    }

    fn install(&mut self, mutation: Mutation) {
        if self.is_in_view() {
            self.changes -= 1;
        }
        self.wires.clear();
        self.view = View {
            epoch: self.view.epoch.next(0),
            cores: self.alive().map(|(core, _)| core).collect(),
            settings: 0,
        };
        let view = self.view.clone();
        for core in view.cores.iter() {
            let actions = self.one(core).monitor.installed(&view);
            self.carry_out(core, mutation, actions);
        }
    }

    fn crash(&mut self, core: usize) {
        self.crashes -= 1;
        self.cores[core] = None;
        self.wires.retain(|(_, to), _| *to != core);
        self.asks.retain(|_, of| *of != core);
    }

    /// A core starts anew, when all others have forgotten it.
    fn start(&mut self, core: usize) {
        for one in self.cores.iter_mut().flatten() {
            for loan in one.monitor.drop_loans(core) {
                one.loans.remove(&loan.base);
            }
            one.uses.retain(|base| base / 100 != core as u64);
        }
        self.cores[core] = Some(self.fresh(core));
    }

    fn take(&mut self, step: &Step, mutation: Mutation) -> Option<()> {
        match *step {
            Step::Begin(at) => {
                let op = self.script[at].take()?;
                self.begin(op, mutation);
            }
            Step::Deliver(from, to) => self.deliver(from, to, mutation)?,
            Step::GiveBack(core, base) => {
                let one = self.one(core);
                one.loans.remove(&base);
                let actions = one.monitor.give_back(base);
                self.carry_out(core, mutation, actions);
            }
            Step::EndUse(core, base) => {
                self.one(core).uses.remove(&base);
            }
            Step::Clear(core, lender, base) => self.clear(core, lender, base, mutation),
            Step::Crash(core) => self.crash(core),
            Step::Start(core) => self.start(core),
            Step::Install => self.install(mutation),
        }
        self.check();
        Some(())
    }

    fn steps(&self, steps: &mut Vec<Step>) {
        for (at, op) in self.script.iter().enumerate() {
            if op.is_some() {
                steps.push(Step::Begin(at));
            }
        }
        let wires = self.wires.keys();
        steps.extend(wires.map(|(from, to)| Step::Deliver(*from, *to)));
        for (core, one) in self.alive() {
            let unused = one.loans.keys().filter(|base| !self.is_used(**base));
            steps.extend(unused.map(|base| Step::GiveBack(core, *base)));
            steps.extend(one.uses.iter().map(|base| Step::EndUse(core, *base)));
            let watches = one.watches.iter();
            let clear = watches.filter(|(_, base)| !one.uses.contains(base));
            steps.extend(clear.map(|(lender, base)| Step::Clear(core, *lender, *base)));
        }
        if self.crashes > 0 && self.alive().count() > 1 {
            steps.extend(self.alive().map(|(core, _)| Step::Crash(core)));
        }
        if !self.is_in_view() || self.changes > 0 {
            steps.push(Step::Install);
        }
    }

    /// What must hold at any time.
    fn check(&mut self) {
        let mut owners: BTreeMap<u64, usize> = BTreeMap::new();
        for (_, one) in self.alive() {
            for page in &one.free {
                *owners.entry(*page).or_default() += 1;
            }
            let loans = one.loans.values();
            for page in loans.flat_map(|loan| loan.base..loan.base + loan.pages) {
                *owners.entry(page).or_default() += 1;
            }
        }
        if owners.values().any(|owners| *owners > 1) {
            return self.blame("memory has two owners");
        }
        let free = |page: &u64| self.alive().any(|(_, one)| one.free.contains(page));
        if self.alive().any(|(_, one)| one.uses.iter().any(free)) {
            return self.blame("free memory is used");
        }
        let is_watched = self.alive().any(|(_, one)| !one.watches.is_empty());
        let is_used = self.alive().any(|(_, one)| !one.uses.is_empty());
        if !self.wires.is_empty() || !self.is_in_view() || is_watched || is_used {
            return;
        }
        // Nothing is under way.
        if !self.asks.is_empty() || self.alive().any(|(_, one)| one.monitor.is_waiting()) {
            return self.blame("something never ended");
        }
        let mut wrong = None;
        for (core, one) in self.alive() {
            let first = core as u64 * 100;
            let away = self.pages - one.free.len() as u64;
            let known: BTreeSet<Loan> = one.monitor.loans().collect();
            let held: BTreeSet<Loan> = one.loans.values().copied().collect();
            if !(first..first + self.pages).all(|page| owners.contains_key(&page)) {
                wrong = Some("memory is lost");
            } else if one.monitor.pages_lent() != away || known != held {
                wrong = Some("a monitor counts otherwise");
            }
        }
        if let Some(wrong) = wrong {
            self.blame(wrong);
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
        world.steps(steps);
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
                world.sent < LIMIT
            }),
        ]
    }
}

fn explore(scenario: Scenario) {
    let checker = scenario
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .threads(2)
        .spawn_bfs()
        .join();
    for (property, path) in checker.discoveries() {
        println!("{property}: {:?}", path.last_state().wrong);
        for (world, step) in path.into_vec() {
            println!("  {step:?} {:?}", world.wires.values());
        }
    }
    checker.assert_properties();
    assert!(checker.is_done());
    let of = checker.model();
    println!(
        "model lending, {}, {} cores, {} crashes, {} more views, {:?}: {} states",
        of.name,
        of.cores,
        of.crashes,
        of.changes,
        of.script,
        checker.unique_state_count()
    );
}

/// What a mutation breaks.
fn broken(scenario: Scenario) -> Option<&'static str> {
    let checker = scenario
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .threads(2)
        .spawn_bfs()
        .join();
    checker.discovery("all is well")?.last_state().wrong
}

fn scenario(name: &'static str, cores: usize, changes: usize, script: &[Op]) -> Scenario {
    Scenario {
        name,
        cores,
        crashes: 1,
        changes,
        pages: 2,
        script: script.to_vec(),
        mutation: Mutation::None,
    }
}

fn borrow_again() -> Scenario {
    let script = [Op::Borrow(1, 1), Op::Borrow(1, 1)];
    scenario("borrow, return, borrow", 2, 2, &script)
}

fn shared_with_a_third() -> Scenario {
    let script = [Op::Borrow(1, 2), Op::Share(1, 2), Op::Borrow(2, 1)];
    scenario("shared with a third core", 3, 0, &script)
}

#[test]
fn two_cores() {
    explore(borrow_again());
    let script = [Op::Borrow(0, 2), Op::Borrow(1, 2), Op::Share(0, 1)];
    explore(scenario("of each other", 2, 1, &script));
}

#[test]
fn three_cores() {
    explore(shared_with_a_third());
    let script = [Op::Borrow(1, 2), Op::Borrow(2, 2)];
    explore(scenario("two of one", 3, 0, &script));
    let script = [Op::Borrow(1, 2), Op::Share(1, 0)];
    explore(scenario("shared with the lender", 3, 1, &script));
}

#[test]
fn memory_that_comes_back_while_a_third_core_uses_it_is_found() {
    let mutation = Mutation::ClearAtOnce;
    let wrong = broken(Scenario {
        mutation,
        ..shared_with_a_third()
    });
    assert_eq!(wrong, Some("free memory is used"));
}

#[test]
fn an_ask_that_is_answered_twice_is_found() {
    let mutation = Mutation::RepeatIsNew;
    let wrong = broken(Scenario {
        mutation,
        ..borrow_again()
    });
    assert!(
        matches!(wrong, Some("memory is lost" | "a monitor counts otherwise")),
        "{wrong:?}"
    );
}

/// A step of a random run, or `None` if there is nothing to do.
fn random_step(world: &World, random: &mut impl FnMut(usize) -> usize) -> Option<Step> {
    let mut steps = Vec::new();
    world.steps(&mut steps);
    for (core, one) in world.cores.iter().enumerate() {
        // Its number is in no view, so all know that it stopped.
        if one.is_none() && !world.view.cores.contains(core) && world.is_in_view() {
            steps.push(Step::Start(core));
        }
    }
    // Stops and views are rare.
    for _ in 0..8 {
        let at = random(steps.len().max(1));
        match steps.get(at)? {
            Step::Crash(_) | Step::Start(_) if random(16) > 0 => {}
            Step::Install if world.is_in_view() && random(16) > 0 => {}
            step => return Some(step.clone()),
        }
    }
    steps.pop()
}

#[test]
fn random_runs() {
    let (mut ended, mut failed, mut stopped) = (0, 0, 0);
    for seed in 0..1500u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = move |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let cores = 2 + random(3);
        let mut script = Vec::new();
        for _ in 0..40 {
            let (a, b) = (random(cores), random(cores));
            script.push(match random(3) {
                0 => Op::Share(a, b),
                _ => Op::Borrow(a, 1 + random(4) as u64),
            });
        }
        let mut world = World::new(&Scenario {
            name: "random",
            cores,
            crashes: random(4),
            changes: random(6),
            pages: 6,
            script,
            mutation: Mutation::None,
        });
        let mut steps = 0;
        let crashes = world.crashes;
        while let Some(step) = random_step(&world, &mut random) {
            world.take(&step, Mutation::None).expect("it can be taken");
            assert_eq!(world.wrong, None, "seed {seed}, {cores} cores, {step:?}");
            steps += 1;
            assert!(steps < 20_000, "seed {seed} does not end");
        }
        ended += world.tokens;
        failed += world.failed;
        stopped += crashes - world.crashes;
    }
    println!("random lending: {ended} asks, {failed} of them in vain, {stopped} cores stopped");
    // All of these are met.
    assert!(failed > 100 && stopped > 100 && ended > 10_000);
}
