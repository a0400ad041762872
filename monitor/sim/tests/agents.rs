//! What the agents' protocols cost, that faults leave their rules whole, and that their judges see
//! what is wrong.

use sim::agents::{Agents, Judge, Tamper, described, strategies};
use sim::faults::{Fault, Kind, Schedule};
use sim::machine::{Machine, SHIPPED};
use sim::names::Registry;
use sim::node::Outcome;
use sim::protocol::{Measurement, Protocol, Unit, patience_ns};
use sim::random::Random;
use sim::regions::Memory;
use sim::spaces::AddressSpaces;
use sim::world::{Report, Setup, World};

const AGENTS: [Protocol; 3] = [Protocol::Names, Protocol::Regions, Protocol::Spaces];

fn two_sockets() -> Machine {
    Machine::shipped("two-socket").unwrap()
}

/// Messages of an operation, by strategy; there must be some.
fn messages(measured: &Measurement, operation: &str) -> Vec<(String, u64)> {
    let of_it = measured
        .figures
        .iter()
        .filter(|figure| figure.operation.starts_with(operation) && figure.unit == Unit::Messages);
    let found: Vec<_> = of_it.map(|one| (one.strategy.clone(), one.value)).collect();
    assert!(!found.is_empty(), "{operation}: {measured:?}");
    found
}

#[test]
fn messages_are_as_few_as_it_says() {
    for (name, _) in SHIPPED {
        let machine = Machine::shipped(name).unwrap();
        for cores in [2, 3, 4, 8, 16, 33] {
            let others = cores as u64 - 1;
            let names = Protocol::Names.figures(&machine, cores, 1, None).unwrap();
            for (_, count) in messages(&names, "update, by the coordinator") {
                assert_eq!(count, 3 * others);
            }
            for (_, count) in messages(&names, "update, by another core") {
                assert_eq!(count, 3 * others - 1);
            }
            for (_, count) in messages(&names, "look up") {
                assert_eq!(count, 0);
            }
            let spaces = Protocol::Spaces.figures(&machine, cores, 1, None).unwrap();
            let all = messages(&spaces, "unmap a page that all hold");
            assert_eq!(all.len(), 2 * strategies().len());
            for (strategy, count) in all {
                assert_eq!(count, 2 * others, "{strategy}");
            }
            for (strategy, count) in messages(&spaces, "unmap a page that two hold") {
                assert_eq!(count, 2, "{strategy}");
            }
            let regions = Protocol::Regions.figures(&machine, cores, 1, None).unwrap();
            for (holders, count) in messages(&regions, "revoke") {
                let number = holders.split(' ').next().unwrap().parse();
                let holders = number.unwrap_or(cores as u64);
                assert!(count <= 4 * holders, "{count} for {holders}");
            }
            for (operation, most) in [("send", 4), ("retype", 2)] {
                let all = messages(&regions, operation);
                assert!(all.iter().all(|(_, count)| *count <= most), "{all:?}");
            }
        }
    }
}

#[test]
fn as_many_cores_as_a_line_can_name() {
    for protocol in AGENTS {
        let most = protocol.max_cores();
        assert_eq!(most, 256);
        let measured = protocol.figures(&two_sockets(), most, 1, None).unwrap();
        assert!(measured.figures.len() >= 6, "{measured:?}");
    }
}

/// A core stops, and while the others agree on a view without it, much of what they send to each
/// other is late: so some comes from the view before, and some from one that is yet to come.
fn skewed(seed: u64, cores: usize, patience_ns: u64) -> Schedule {
    let mut random = Random::new(seed ^ 0x0073_6b65_7765_6400);
    let stop_ns = random.below(2 * patience_ns);
    let core = random.below(cores as u64) as usize;
    let stop = Fault {
        at_ns: stop_ns,
        kind: Kind::Stop { core, after: 0 },
    };
    let coordinator = usize::from(core == 0);
    let delays = (0..cores).map(|number| {
        // Who gets a view later than the others gets what they send in it before.
        let from = if number < 2 { coordinator } else { number };
        let to = (from + 1 + random.below(cores as u64 - 1) as usize) % cores;
        let kind = Kind::Delay {
            from,
            to,
            by_ns: 1 + random.below(2 * patience_ns),
            for_ns: 2 * patience_ns,
        };
        // It takes two patiences until the core is fenced.
        let at_ns = stop_ns + patience_ns + random.below(patience_ns);
        Fault { at_ns, kind }
    });
    let mut faults: Vec<Fault> = [stop].into_iter().chain(delays).collect();
    faults.sort_by_key(|fault| fault.at_ns);
    Schedule(faults)
}

/// A run of agents that do something wrong, or not.
fn run<J: Judge>(judge: J, cores: usize, seed: u64, tamper: Option<Tamper>) -> Report {
    let machine = two_sockets();
    let patience_ns = patience_ns(cores);
    let mut random = Random::new(seed);
    let (_, strategy) = random.pick(&strategies());
    let mut agents = Agents::new(judge, cores, patience_ns);
    agents = agents.with_strategy(strategy, &described(&machine, cores));
    if let Some(tamper) = tamper {
        agents = agents.tampered(tamper);
    }
    let setup = Setup {
        cores,
        seed,
        schedule: match seed % 3 {
            0 => Schedule::random(seed, cores, 8 * patience_ns, patience_ns),
            _ => skewed(seed, cores, patience_ns),
        },
        jitter_ns: random.pick(&[0, 1_000, patience_ns / 8]),
        restart_ns: 4 * patience_ns,
        bound_ns: 64 * patience_ns,
        max_events: 10_000_000,
        is_traced: false,
    };
    let report = World::new(agents, &machine, setup).run().1;
    assert!(report.counts.add_up());
    report
}

/// How many of so many seeds break a rule, and the first of these rules.
fn violations(protocol: Protocol, tamper: Option<Tamper>, seeds: u64) -> (usize, Option<String>) {
    let mut count = 0;
    let mut first = None;
    for seed in 0..seeds {
        let cores = 3 + seed as usize % 3;
        let pause_ns = patience_ns(cores) << (seed / 3 % 3);
        let report = match protocol {
            Protocol::Names => run(Registry::new(seed, pause_ns), cores, seed, tamper),
            Protocol::Regions => run(Memory::new(seed, pause_ns), cores, seed, tamper),
            _ => run(AddressSpaces::new(seed, pause_ns), cores, seed, tamper),
        };
        if let Err(violation) = report.outcome {
            count += 1;
            first.get_or_insert(violation.rule);
        }
    }
    (count, first)
}

/// Judges see what agents do wrong, and nothing where they do nothing wrong. Names can hardly tell
/// views apart: there only the coordinator talks with the others, and it installs a view after all
/// that they sent before, and before all that they send in it.
#[test]
fn tampered_agents_are_caught() {
    const SEEDS: u64 = 600;
    for protocol in AGENTS {
        assert_eq!(violations(protocol, None, SEEDS), (0, None));
    }
    for tamper in [Tamper::TakesNew, Tamper::TakesOld, Tamper::Hurries] {
        let mut caught = 0;
        for protocol in AGENTS {
            let (count, rule) = violations(protocol, Some(tamper), SEEDS);
            println!(
                "{} {tamper:?}: {count} of {SEEDS} seeds: {rule:?}",
                protocol.name()
            );
            caught += count;
        }
        assert!(caught > 0, "{tamper:?} is not caught");
    }
}

/// Without faults everything is done; with one that stops a core, something may be given up; and
/// whatever happens, a core that was fenced takes part again.
#[test]
fn runs_end_as_they_should() {
    let machine = two_sockets();
    for protocol in AGENTS {
        for seed in 0..20 {
            let report = protocol.run(&machine, 4, seed, Schedule::default(), false);
            assert_eq!(report.outcome, Ok(Outcome::Survived), "seed {seed}");
            assert_eq!(report.counts.stops, 0);
        }
        let mut aborted = 0;
        for seed in 0..20 {
            let stop: Schedule = "stop 2 at 100us".parse().unwrap();
            assert!(matches!(stop.0[0].kind, Kind::Stop { core: 2, after: 0 }));
            let report = protocol.run(&machine, 4, seed, stop, false);
            assert_eq!(report.counts.restarts, 1, "seed {seed}");
            aborted += u32::from(report.outcome == Ok(Outcome::Aborted));
            assert!(report.outcome.is_ok(), "seed {seed}: {:?}", report.outcome);
        }
        assert!(aborted > 0, "{}: something is cut off", protocol.name());
    }
}
