//! All protocols by name.
//!
//! A protocol of the library takes three steps to be run here: a module with its
//! [`Node`](crate::node::Node) and its judge, a [`Protocol`](crate::node::Protocol), as
//! [`membership`](crate::membership) is one; a variant of [`Protocol`] here; and what it measures,
//! in [`Protocol::figures`].

use crate::agents::{self, Agents, Judge, Stopwatch};
use crate::broadcast::{Broadcast, Way};
use crate::faults::{Fault, Kind, Schedule};
use crate::machine::Machine;
use crate::membership::{Change, Members};
use crate::names::Registry;
use crate::random::Random;
use crate::regions::Memory;
use crate::spaces::AddressSpaces;
use crate::tape::Tape;
use crate::world::{Report, Setup, Violation, World};

/// The most cores of a run.
pub const MAX_CORES: usize = 4096;

/// Rounds of a broadcast when nothing goes wrong, and when something does.
const ROUNDS: u32 = 16;
const FAULTY_ROUNDS: u32 = 64;

/// How often agents do what is measured.
const SAMPLES: u64 = 5;
/// A patience with which nobody hears of anybody while something is measured.
const QUIET_NS: u64 = 1 << 50;

/// Longest silence in which nobody is suspected: in nanoseconds, and for each core, since one core
/// may speak to all.
const PATIENCE_NS: u64 = 100_000;
const PATIENCE_PER_CORE_NS: u64 = 4_000;

/// How many times the patience agreement may take after the last disturbance.
const BOUND: u64 = 64;

/// More events than any run in order has, for each core and in all.
const EVENTS_PER_CORE: u64 = 200_000;

/// What runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// [`crate::broadcast`].
    Broadcast,
    /// [`crate::membership`].
    Membership,
    /// [`crate::names`].
    Names,
    /// [`crate::regions`].
    Regions,
    /// [`crate::spaces`].
    Spaces,
}

/// What a figure is told in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Simulated nanoseconds.
    Nanoseconds,
    /// Messages sent.
    Messages,
}

/// Something that was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What was done.
    pub operation: &'static str,
    /// By which strategy.
    pub strategy: String,
    /// What the value is told in.
    pub unit: Unit,
    /// The figure: the median, where there are several samples.
    pub value: u64,
    /// How many there are.
    pub samples: usize,
}

/// Figures, and how many messages it took to obtain them.
#[derive(Clone, Debug, Default)]
pub struct Measurement {
    /// The figures.
    pub figures: Vec<Figure>,
    /// All messages that were delivered.
    pub delivered: u64,
    /// The most that were under way at once.
    pub most_under_way: usize,
    /// All that happened, one run after the other, if that was asked for.
    pub tape: Option<Tape>,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Broadcast,
        Self::Membership,
        Self::Names,
        Self::Regions,
        Self::Spaces,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Broadcast => "broadcast",
            Self::Membership => "membership",
            Self::Names => "names",
            Self::Regions => "regions",
            Self::Spaces => "spaces",
        }
    }

    /// The most cores that it runs on.
    pub fn max_cores(self) -> usize {
        match self {
            Self::Broadcast | Self::Membership => MAX_CORES,
            Self::Names | Self::Regions | Self::Spaces => agents::MAX_CORES,
        }
    }

    /// What it measures on so many cores, without faults other than those that it is there for; it is
    /// recorded if there is a tape.
    pub fn figures(
        self,
        machine: &Machine,
        cores: usize,
        seed: u64,
        tape: Option<Tape>,
    ) -> Result<Measurement, Violation> {
        let mut measurement = Measurement {
            tape,
            ..Measurement::default()
        };
        // Longer than anything takes that is measured.
        let slot_ns = 2 * patience_ns(cores);
        match self {
            Self::Broadcast => {
                for way in Way::ALL {
                    let setup = setup(cores, seed, Schedule::default());
                    let protocol = Broadcast::new(way, cores, machine, ROUNDS);
                    let tape = measurement.tape.take();
                    let (done, report) = World::recorded(protocol, machine, setup, tape).run();
                    measurement.add(report)?;
                    let strategy = way.to_string();
                    measurement.median(
                        "to all and back",
                        &strategy,
                        Unit::Nanoseconds,
                        done.times_ns,
                    );
                    measurement.median("to all and back", &strategy, Unit::Messages, done.messages);
                }
            }
            Self::Membership => {
                let patience_ns = patience_ns(cores);
                let core = cores - 1;
                let stop = Fault {
                    at_ns: patience_ns,
                    kind: Kind::Stop { core, after: 0 },
                };
                let setup = setup(cores, seed, Schedule(vec![stop]));
                let protocol = Members::new(cores, patience_ns);
                let tape = measurement.tape.take();
                let (done, report) = World::recorded(protocol, machine, setup, tape).run();
                measurement.add(report)?;
                for (operation, is_join) in [
                    ("a core was fenced: new view", false),
                    ("a core joins: new view", true),
                ] {
                    let of = |value: fn(&Change) -> u64| {
                        let changes = done.changes.iter();
                        changes
                            .filter(|one| one.is_join == is_join)
                            .map(value)
                            .collect()
                    };
                    let (times_ns, messages) = (of(|one| one.time_ns), of(|one| one.messages));
                    measurement.median(operation, "unicast", Unit::Nanoseconds, times_ns);
                    measurement.median(operation, "unicast", Unit::Messages, messages);
                }
            }
            Self::Names => {
                for (core, named) in [
                    (0, "update, by the coordinator"),
                    (cores - 1, "update, by another core"),
                ] {
                    let judge = Registry::new(seed, 0).measured(core, named, SAMPLES, slot_ns);
                    let agents = Agents::new(judge, cores, QUIET_NS);
                    let done = measurement.on_agents(agents, machine, cores, seed)?;
                    measurement.measured(&done.asked.stopwatch, "unicast");
                }
            }
            Self::Regions => {
                let powers = (1..).map(|power| 1 << power);
                let some = powers.take_while(|holders| *holders < cores);
                for holders in some.chain([cores]) {
                    let judge = Memory::new(seed, 0).measured(holders, SAMPLES, slot_ns);
                    let agents = Agents::new(judge, cores, QUIET_NS);
                    let done = measurement.on_agents(agents, machine, cores, seed)?;
                    let holders = match holders == cores {
                        true => "all hold it".to_owned(),
                        false => format!("{holders} hold it"),
                    };
                    measurement.measured(&done.asked.stopwatch, &holders);
                }
            }
            Self::Spaces => {
                let described = agents::described(machine, cores);
                for (name, strategy) in agents::strategies() {
                    let judge = AddressSpaces::new(seed, 0).measured(cores, SAMPLES, slot_ns);
                    let agents = Agents::new(judge, cores, QUIET_NS);
                    let agents = agents.with_strategy(strategy, &described);
                    let done = measurement.on_agents(agents, machine, cores, seed)?;
                    measurement.measured(&done.asked.stopwatch, name);
                }
            }
        }
        Ok(measurement)
    }

    /// Faults that a seed determines.
    pub fn random_faults(self, cores: usize, seed: u64) -> Schedule {
        let patience_ns = patience_ns(cores);
        let within_ns = match self {
            // About as long as all rounds take.
            Self::Broadcast => 2_000 * u64::from(FAULTY_ROUNDS) * (4 + cores as u64 / 8),
            Self::Membership | Self::Names | Self::Regions | Self::Spaces => 8 * patience_ns,
        };
        Schedule::random(seed, cores, within_ns, patience_ns)
    }

    /// One run with faults.
    pub fn run(
        self,
        machine: &Machine,
        cores: usize,
        seed: u64,
        schedule: Schedule,
        is_traced: bool,
    ) -> Report {
        let mut random = Random::new(seed ^ 0x006a_6974_7465_7200);
        // No jitter, some, or so much that orders between pairs are turned round for long.
        let jitter_ns = random.pick(&[0, 100, 1_000, patience_ns(cores) / 8]);
        let loses = |fault: &Fault| matches!(fault.kind, Kind::LoseDoorbell { .. });
        let loses_doorbells = schedule.0.iter().any(loses);
        let setup = Setup {
            jitter_ns,
            is_traced,
            ..setup(cores, seed, schedule)
        };
        match self {
            Self::Broadcast => {
                let way = random.pick(&Way::ALL);
                let mut protocol = Broadcast::new(way, cores, machine, FAULTY_ROUNDS);
                if loses_doorbells {
                    protocol = protocol.expect_lost_doorbells();
                }
                World::new(protocol, machine, setup).run().1
            }
            Self::Membership => {
                let protocol = Members::new(cores, patience_ns(cores));
                World::new(protocol, machine, setup).run().1
            }
            Self::Names => {
                let patience_ns = patience_ns(cores);
                let protocol = Agents::new(Registry::new(seed, patience_ns), cores, patience_ns);
                World::new(protocol, machine, setup).run().1
            }
            Self::Regions => {
                let patience_ns = patience_ns(cores);
                let protocol = Agents::new(Memory::new(seed, patience_ns), cores, patience_ns);
                World::new(protocol, machine, setup).run().1
            }
            Self::Spaces => {
                let patience_ns = patience_ns(cores);
                let (_, strategy) = random.pick(&agents::strategies());
                let judge = AddressSpaces::new(seed, patience_ns);
                let protocol = Agents::new(judge, cores, patience_ns)
                    .with_strategy(strategy, &agents::described(machine, cores));
                World::new(protocol, machine, setup).run().1
            }
        }
    }
}

impl Measurement {
    fn add(&mut self, report: Report) -> Result<(), Violation> {
        self.delivered += report.counts.delivered;
        self.most_under_way = self.most_under_way.max(report.counts.most_under_way);
        self.tape = report.tape;
        report.outcome.map(|_| ())
    }

    /// Runs agents without faults, on a machine whose cores poll all the time.
    fn on_agents<J: Judge>(
        &mut self,
        agents: Agents<J>,
        machine: &Machine,
        cores: usize,
        seed: u64,
    ) -> Result<J, Violation> {
        let mut machine = machine.clone();
        machine.cost.poll = u64::MAX;
        let setup = Setup {
            bound_ns: u64::MAX / 2,
            ..setup(cores, seed, Schedule::default())
        };
        let (done, report) = World::recorded(agents, &machine, setup, self.tape.take()).run();
        self.add(report)?;
        Ok(done.judge)
    }

    /// All that was measured.
    fn measured(&mut self, stopwatch: &Stopwatch, strategy: &str) {
        let samples = &stopwatch.samples;
        let mut names: Vec<&'static str> = samples.iter().map(|(name, ..)| *name).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let of_name = || samples.iter().filter(|(of, ..)| *of == name);
            let times_ns = of_name().map(|(_, time_ns, _)| *time_ns).collect();
            let messages = of_name().map(|(.., messages)| *messages).collect();
            self.median(name, strategy, Unit::Nanoseconds, times_ns);
            self.median(name, strategy, Unit::Messages, messages);
        }
    }

    fn median(&mut self, operation: &'static str, strategy: &str, unit: Unit, mut of: Vec<u64>) {
        of.sort_unstable();
        if let Some(median) = of.get(of.len() / 2) {
            self.figures.push(Figure {
                operation,
                strategy: strategy.into(),
                unit,
                value: *median,
                samples: of.len(),
            });
        }
    }
}

/// Longest silence in which nobody is suspected, in nanoseconds.
pub fn patience_ns(cores: usize) -> u64 {
    PATIENCE_NS + PATIENCE_PER_CORE_NS * cores as u64
}

fn setup(cores: usize, seed: u64, schedule: Schedule) -> Setup {
    let patience_ns = patience_ns(cores);
    Setup {
        cores,
        seed,
        schedule,
        jitter_ns: 0,
        restart_ns: 4 * patience_ns,
        bound_ns: BOUND * patience_ns,
        max_events: EVENTS_PER_CORE * cores as u64,
        is_traced: false,
    }
}
