//! Surveys and tables among whole agents, on a machine of known costs.

extern crate std;

use super::*;
use crate::agent::{Action, Agent, Line};
use crate::costs::tables::{MAX_NS, Table, number_of, settings_of};
use crate::membership::{self, Membership};
use crate::tree::Strategy;
use crate::view::Epoch;
use std::collections::VecDeque;
use std::vec;

const PATIENCE_NS: u64 = 1_000_000_000;

/// What a message between two sockets of the machine takes in truth.
fn truth(from: usize, to: usize) -> Cost {
    let far = (from as u32).abs_diff(to as u32);
    Cost {
        send_ns: 300 + 20 * far + from as u32,
        latency_ns: 4_000 + 1_000 * far,
        receive_ns: 200 + 10 * far + to as u32,
    }
}

/// What the firmware says.
fn described(from: usize, to: usize) -> Cost {
    let far = (from as u32).abs_diff(to as u32);
    Cost {
        send_ns: 50 + 50 * far,
        latency_ns: 60 + 60 * far,
        receive_ns: 40 + 40 * far,
    }
}

/// Agents, channels between them that keep their order, and a clock.
struct System {
    agents: BTreeMap<usize, Agent>,
    machine: Arc<Machine>,
    now_ns: u64,
    /// Lines that were sent and not received yet.
    wires: VecDeque<(usize, usize, Line)>,
    /// Tables that were surveyed: where, and their numbers.
    surveyed: Vec<(usize, Option<u32>)>,
    /// Of measuring.
    delivered: usize,
    /// Pings that were not answered yet, and the most that there were at once.
    open: usize,
    most_open: usize,
    seed: u64,
    /// Cores that do nothing any more.
    lost: CoreSet,
    /// What a line does not survive.
    drops: fn(usize, usize, &Line) -> bool,
}

impl System {
    /// Cores in this order of sockets, in their first view.
    fn new(sockets: &[usize]) -> Self {
        let machine = Arc::new(Machine::new(sockets.to_vec(), described));
        let mut system = Self {
            agents: BTreeMap::new(),
            machine,
            now_ns: 0,
            wires: VecDeque::new(),
            surveyed: vec![],
            delivered: 0,
            open: 0,
            most_open: 0,
            seed: 1,
            lost: CoreSet::default(),
            drops: |_, _, _| false,
        };
        for core in 0..sockets.len() {
            system.start(core, false);
        }
        let view = View {
            epoch: Epoch::default().next(0),
            cores: CoreSet::first(sockets.len()),
            settings: 0,
        };
        for core in 0..sockets.len() {
            let view = view.clone();
            system.member(core, |one, now_ns| one.begin(view, now_ns));
        }
        system
    }

    fn start(&mut self, core: usize, anew: bool) {
        let make = if anew { Agent::anew } else { Agent::new };
        let agent = make(core, PATIENCE_NS, Arc::clone(&self.machine));
        self.agents.insert(core, agent);
        self.lost.remove(core);
        self.wires
            .retain(|(from, to, _)| *from != core && *to != core);
    }

    fn member(
        &mut self,
        core: usize,
        work: impl FnOnce(&mut Membership, u64) -> Vec<membership::Action>,
    ) {
        let now_ns = self.now_ns;
        let agent = self.agents.get_mut(&core).unwrap();
        let actions = agent.with_membership(|one| work(one, now_ns));
        self.carry_out(core, actions);
    }

    fn costs(&mut self, core: usize, work: impl FnOnce(&mut Costs) -> Vec<super::Action>) {
        let actions = self.agents.get_mut(&core).unwrap().with_costs(work);
        self.carry_out(core, actions);
    }

    /// A figure, with something on top of it, as there is at times.
    fn noisy(&mut self, ns: u32) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005);
        self.seed = self.seed.wrapping_add(1_442_695_040_888_963_407);
        let noise = (self.seed >> 33) % 1_000;
        u64::from(ns) + if noise < 800 { 0 } else { noise }
    }

    fn truth(&self, from: usize, to: usize) -> Cost {
        truth(self.machine.socket(from), self.machine.socket(to))
    }

    fn send(&mut self, from: usize, to: usize, line: Line) {
        if !(self.drops)(from, to, &line) {
            self.wires.push_back((from, to, line));
        }
    }

    fn carry_out(&mut self, core: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(to, line) => self.send(core, to, line),
                Action::Fence(core) => self.lose(core),
                Action::Ping { to, number, line } => {
                    self.open += 1;
                    self.most_open = self.most_open.max(self.open);
                    let (began_ns, took_ns) = (self.now_ns, self.truth(core, to).send_ns);
                    let took_ns = self.noisy(took_ns);
                    self.now_ns += took_ns;
                    self.send(core, to, line);
                    self.costs(core, |one| one.sent(number, began_ns, took_ns));
                }
                Action::Answer { to, number } => {
                    let receive_ns = self.truth(to, core).receive_ns;
                    let took_ns = self.noisy(receive_ns);
                    self.now_ns += took_ns + u64::from(self.truth(core, to).send_ns);
                    // Nobody looks for the first of a row.
                    let seen = Some(took_ns).filter(|_| number % PINGS > 1);
                    self.costs(core, |one| one.answer(to, number, seen));
                }
                Action::Surveyed(number) => {
                    self.surveyed.push((core, number));
                    if let Some(number) = number {
                        self.member(core, |one, now_ns| {
                            one.configure(settings_of(number), now_ns)
                        });
                    }
                }
                _ => {}
            }
        }
    }

    fn lose(&mut self, core: usize) {
        self.lost.insert(core);
        self.wires
            .retain(|(from, to, _)| *from != core && *to != core);
    }

    /// Hands over the first line that is under way; whether there was one.
    fn step(&mut self) -> bool {
        let Some((from, to, line)) = self.wires.pop_front() else {
            return false;
        };
        if self.lost.contains(from) || self.lost.contains(to) {
            return true;
        }
        if let Some(message) = Message::decode(line.kind, &line.words) {
            self.delivered += 1;
            let cost = self.truth(from, to);
            self.now_ns += self.noisy(cost.latency_ns);
            if let Message::Pong { .. } = message {
                // The agent is handed it when it is received.
                self.now_ns += u64::from(cost.receive_ns);
                self.open -= 1;
            }
        }
        let now_ns = self.now_ns;
        let agent = self.agents.get_mut(&to).unwrap();
        let actions = agent.on_message(from, &line, now_ns);
        self.carry_out(to, actions);
        self.check();
        true
    }

    fn settle(&mut self) {
        while self.step() {}
    }

    /// Time passes until all that live hold one view, of them.
    fn agree(&mut self) {
        for _ in 0..200 {
            self.settle();
            let living: CoreSet = self.living().into_iter().collect();
            let holds = |core: usize| self.agents[&core].view().cores == living;
            if self.living().into_iter().all(holds) {
                return;
            }
            self.now_ns += PATIENCE_NS / 4;
            for core in self.living() {
                let now_ns = self.now_ns;
                let actions = self.agents.get_mut(&core).unwrap().on_tick(now_ns);
                self.carry_out(core, actions);
            }
        }
        panic!("no agreement");
    }

    fn living(&self) -> Vec<usize> {
        let living = |core: &usize| !self.lost.contains(*core);
        self.agents.keys().copied().filter(living).collect()
    }

    /// Nobody lacks the table of its view, and those that hold one view have one.
    fn check(&self) {
        let mut tables: BTreeMap<Epoch, Option<Table>> = BTreeMap::new();
        for core in self.living() {
            let agent = &self.agents[&core];
            let counters = agent.counters();
            assert_eq!((counters.tableless, counters.bad), (0, 0), "core {core}");
            let table = agent.table().cloned();
            let number = table.as_ref().map(Table::number);
            assert_eq!(number_of(agent.view().settings), number, "core {core}");
            let known = tables.entry(agent.view().epoch).or_insert(table.clone());
            assert_eq!(*known, table, "core {core}");
        }
    }

    /// The number of the table that all have.
    fn number(&self) -> Option<u32> {
        self.check();
        let numbers = self.living().into_iter();
        let numbers: Vec<_> = numbers
            .map(|core| self.agents[&core].table().map(Table::number))
            .collect();
        assert!(numbers.iter().all(|number| *number == numbers[0]));
        numbers[0]
    }
}

#[test]
fn what_is_measured_is_the_truth() {
    for sockets in [vec![0, 0, 1, 1, 2, 2], vec![2, 1, 0, 0, 1, 2, 2]] {
        let mut system = System::new(&sockets);
        system.costs(0, Costs::survey);
        assert!(system.agents[&0].costs().is_surveying());
        system.settle();
        assert!(system.number().is_some());
        // Surveys that come and figures that go, and nine pairs; none of a core to itself.
        let most = 9 * (2 * PINGS as usize + 1) + 3;
        assert!(system.delivered <= most && system.delivered > 9 * 2 * PINGS as usize);
        assert_eq!(system.most_open, 1, "one after the other");
        let table = system.agents[&3].table().unwrap();
        for (from, to) in (0..3).flat_map(|from| (0..3).map(move |to| (from, to))) {
            let (found, truth) = (table.cost(from, to).unwrap(), truth(from, to));
            assert_eq!(
                (found.send_ns, found.receive_ns),
                (truth.send_ns, truth.receive_ns)
            );
            // Both directions count half each.
            let back = self::truth(to, from);
            let off = found.latency_ns.abs_diff(truth.latency_ns);
            let skew =
                back.send_ns.abs_diff(truth.send_ns) + back.receive_ns.abs_diff(truth.receive_ns);
            assert!(off <= skew + 1, "{from} to {to}: {found:?}, not {truth:?}");
        }
        assert_eq!(table.cost(3, 0), None);
    }
}

#[test]
fn what_cannot_be_measured_is_derived() {
    // Socket 1 has one core, socket 3 none.
    let mut system = System::new(&[0, 0, 1, 2, 2, 3]);
    system.lose(5);
    system.agree();
    system.costs(0, Costs::survey);
    system.settle();
    let table = system.agents[&2].table().unwrap();
    let measured = [
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 0),
        (1, 2),
        (2, 0),
        (2, 1),
        (2, 2),
    ];
    let sum = |cost: &dyn Fn(usize, usize) -> Cost| -> u64 {
        let sends = measured.iter().map(|(from, to)| cost(*from, *to).send_ns);
        sends.map(u64::from).sum()
    };
    let (found, known) = (
        sum(&|from, to| table.cost(from, to).unwrap()),
        sum(&described),
    );
    assert_eq!(found, sum(&truth));
    for (from, to) in [(1, 1), (3, 3), (0, 3), (3, 0), (2, 3), (3, 2)] {
        let expected = u64::from(described(from, to).send_ns) * found / known;
        let send_ns = table.cost(from, to).unwrap().send_ns;
        assert_eq!(u64::from(send_ns), expected, "{from} to {to}");
    }

    // A single core can measure nothing, and has what the firmware says.
    let mut alone = System::new(&[0]);
    alone.costs(0, Costs::survey);
    assert_eq!(
        alone.agents[&0].table().unwrap().cost(0, 0),
        Some(described(0, 0))
    );
    assert_eq!(alone.delivered, 0);
}

#[test]
fn trees_are_computed_from_the_table() {
    let mut tables = tables::Tables::new(0, Arc::new(Machine::new(vec![0, 0, 1], described)));
    let pairs = [(0, 0), (0, 1), (1, 0), (1, 1)];
    let costs = pairs.map(|(from, to)| truth(from, to)).to_vec();
    let number = tables.add(costs).unwrap();
    let view = View {
        settings: settings_of(number),
        ..View::default()
    };
    let (strategy, machine) = tables.installed(&view).unwrap();
    assert_eq!(strategy, Strategy::Computed);
    for (from, to) in pairs {
        assert_eq!(machine.between(from, to), truth(from, to));
    }
    assert_eq!(machine.cost(0, 2), truth(0, 1));
    // Nobody uses a number twice, nor one that another core uses.
    assert!(tables.add(vec![]).unwrap() > number);
    let mut other = tables::Tables::new(7, Arc::default());
    assert_ne!(other.add(vec![]), Some(number));
    other.give(Table::new(0xff_ff00, 1, [Cost::default()]));
    assert_eq!(other.add(vec![]), None);
}

/// Nothing is sent on behalf of tables before there is one.
#[test]
fn others_pay_nothing() {
    let mut system = System::new(&[0, 0, 1, 1]);
    system.drops = |_, _, line| {
        let is_ours = Message::decode(line.kind, &line.words).is_some();
        assert!(
            !is_ours && membership::Message::decode(line.kind, &line.words).is_some()
                || !kinds::MEMBERSHIP.contains(&line.kind)
        );
        false
    };
    let settings = Strategy::Sockets { arity: 2 }.settings();
    system.member(2, |one, now_ns| one.configure(settings, now_ns));
    system.lose(3);
    system.agree();
    assert_eq!(system.agents[&0].view().settings, settings);
    assert_eq!(system.number(), None);
}

#[test]
fn the_table_reaches_who_joins_and_who_starts_anew() {
    let mut system = System::new(&[0, 0, 1, 1]);
    system.costs(0, Costs::survey);
    system.settle();
    let number = system.number();
    for core in [3, 1, 3, 2] {
        system.lose(core);
        system.agree();
        assert_eq!(system.number(), number);
        system.start(core, true);
        let sponsor = if core == 1 { 2 } else { 1 };
        system.member(sponsor, |one, now_ns| one.sponsor(core, now_ns));
        system.agree();
        assert_eq!(system.number(), number, "core {core}");
    }
    // A second one takes its place.
    system.costs(0, Costs::survey);
    system.settle();
    assert!(system.number() > number);
}

/// Whatever core is lost after whatever line, the survey ends, and with it all have one table.
#[test]
fn whoever_is_lost_meanwhile() {
    for core in 1..6 {
        let mut after = 0;
        let mut is_through = false;
        while !is_through {
            let mut system = System::new(&[0, 0, 1, 1, 2, 2]);
            system.costs(0, Costs::survey);
            for _ in 0..after {
                is_through |= !system.step();
            }
            system.lose(core);
            system.agree();
            system.settle();
            let number = system.number();
            assert!(number.is_some(), "core {core} after {after}");
            assert!(!system.agents[&0].costs().is_surveying());
            after += if after < 8 { 1 } else { 29 };
        }
    }
}

/// The surveyor is not the coordinator, which is lost at every place between the table and the view that
/// names it; then its successor goes on, and the settings that were asked for hold.
#[test]
fn the_coordinator_is_lost() {
    let mut after = 0;
    let mut is_through = false;
    while !is_through {
        let mut system = System::new(&[0, 0, 1, 1]);
        system.costs(3, Costs::survey);
        while system.surveyed.is_empty() {
            assert!(system.step());
        }
        for _ in 0..after {
            is_through |= !system.step();
        }
        system.lose(0);
        system.agree();
        let number = system.surveyed[0].1;
        assert_eq!(system.number(), number, "after {after}");
        // The one after it holds the table as well, and knows that the one that is new does not.
        system.start(0, true);
        system.member(2, |one, now_ns| one.sponsor(0, now_ns));
        system.agree();
        system.lose(1);
        system.agree();
        assert_eq!(system.number(), number, "after {after}");
        after += 1;
    }
    assert!(after > 20);
}

/// Two survey at once, and ask the same cores.
#[test]
fn two_surveyors() {
    let mut system = System::new(&[0, 0, 1, 1]);
    system.costs(1, Costs::survey);
    system.costs(3, Costs::survey);
    system.costs(3, Costs::survey);
    system.settle();
    assert_eq!(system.surveyed.len(), 2);
    assert_ne!(system.surveyed[0].1, system.surveyed[1].1);
    assert!(system.number().is_some());
}

#[test]
fn settings_without_their_table() {
    let machine = Arc::new(Machine::new(vec![0, 1], described));
    let mut agent = Agent::new(0, PATIENCE_NS, machine);
    let view = View {
        epoch: Epoch::default().next(0),
        cores: CoreSet::first(2),
        settings: settings_of(9),
    };
    agent.with_membership(|one| one.begin(view, 0));
    assert_eq!(agent.counters().tableless, 1);
    assert_eq!(agent.table(), None);
}

#[test]
fn lines_that_make_no_sense() {
    let machine = Arc::new(Machine::new(vec![0, 1, 2], described));
    let table = Table::described(256, &machine);
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 2);
    let view = |tables: &mut tables::Tables| {
        let settings = settings_of(256);
        tables.installed(&View {
            settings,
            ..View::default()
        })
    };
    let mut tables = tables::Tables::new(0, Arc::clone(&machine));
    let (kind, words) = lines[0];
    // Pieces of others, and such as do not follow on each other.
    assert!(!tables.on_line(1, kind, &lines[1].1));
    assert!(tables.on_line(1, kind, &words));
    assert!(!tables.on_line(2, kind, &lines[1].1));
    assert!(!tables.on_line(1, kind + 1, &lines[1].1));
    assert_eq!(view(&mut tables), None);
    for (index, word) in [
        (0, 0),
        (0, u64::MAX),
        (0, words[0] | 1 << 40),
        (1, 0),
        (2, u64::MAX),
    ] {
        let mut bad = words;
        bad[index] = word;
        assert!(!tables.on_line(1, kind, &bad), "{index} {word:#x}");
        assert!(
            !tables.on_line(1, kind, &lines[1].1),
            "what follows a bad one"
        );
    }
    assert!(!tables.on_line(256, kind, &words));
    for (kind, words) in &lines {
        assert!(tables.on_line(1, *kind, words));
        assert!(tables.on_line(2, *kind, words));
    }
    assert!(!tables.on_line(1, kind, &lines[1].1), "beyond the end");
    assert!(view(&mut tables).is_some());
    assert_eq!(tables.current(), Some(&table));

    // Figures saturate, and none is zero.
    let extreme = Cost {
        send_ns: 0,
        latency_ns: u32::MAX,
        receive_ns: 7,
    };
    let table = Table::new(1, 1, [extreme]);
    let expected = Cost {
        send_ns: 1,
        latency_ns: MAX_NS,
        receive_ns: 7,
    };
    assert_eq!(table.cost(0, 0), Some(expected));
}

/// A core gets a table once in a life, and whoever is outside of the view each time: it may be about to
/// start anew.
#[test]
fn who_is_told() {
    let machine = Arc::new(Machine::new(vec![0, 1, 2], described));
    let mut tables = tables::Tables::new(0, Arc::clone(&machine));
    tables.give(Table::described(256, &machine));
    let settings = settings_of(256);
    let mut holds = |cores: &[usize], expected: &[usize]| {
        let view = View {
            cores: cores.iter().copied().collect(),
            settings,
            ..View::default()
        };
        assert!(tables.installed(&view).is_some());
        for lines in expected {
            assert_eq!(tables.ahead_of(settings, 1).len(), *lines);
            assert_eq!(tables.ahead_of(Strategy::Unicast.settings(), 1), vec![]);
        }
    };
    holds(&[0, 1], &[2, 0, 0]);
    holds(&[0, 1, 2], &[0, 0]);
    holds(&[0, 2], &[2, 2]);
    holds(&[0, 1], &[2, 0]);
}

/// Messages of surveys that nobody asked for change nothing and cost no more than an answer.
#[test]
fn surveys_that_make_no_sense() {
    let mut system = System::new(&[0, 0, 1, 1]);
    let cost = truth(0, 1);
    let garbage = [
        Message::Pong {
            number: 1,
            receive_ns: None,
        },
        Message::Measured { socket: 1, cost },
        Message::Measured {
            socket: usize::MAX,
            cost,
        },
    ];
    system.costs(0, Costs::survey);
    for message in garbage {
        for from in [2, 3, 255, usize::MAX] {
            system.costs(0, |one| {
                let before = one.clone();
                assert_eq!(one.on_message(from, &message, 0), vec![]);
                assert_eq!(*one, before, "{message:?} from {from}");
                vec![]
            });
        }
    }
    system.settle();
    assert!(system.number().is_some());
    for (kind, words) in [
        (0x6c, [0; 7]),
        (kind::MEASURED, [0; 7]),
        (kind::MEASURED, [u64::MAX; 7]),
    ] {
        assert_eq!(Message::decode(kind, &words), None);
    }
}
