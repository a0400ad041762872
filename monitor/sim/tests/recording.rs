//! What has to hold of simulated runs that are recorded, and of those that ask again what a recorded
//! one asked.

use rt::interface::{names, regions, spaces};
use sim::machine::{Machine, SHIPPED};
use sim::protocol::Protocol;
use sim::replay::{Impossible, KINDS, Plan, Step, Stream};
use sim::tape::{MONITOR, Tape};
use std::collections::BTreeMap;
use trace::event;

fn measured(protocol: Protocol, cores: usize, tape: Option<Tape>) -> (u64, Option<Tape>) {
    let machine = Machine::shipped("two-socket").unwrap();
    let measured = protocol.figures(&machine, cores, 7, tape).unwrap();
    (measured.delivered, measured.tape)
}

fn streams(cores: usize) -> Vec<Stream> {
    let step = |kind, reach| Step {
        kind,
        gap_ns: 20_000,
        overlaps: false,
        reach,
    };
    let all = cores - 1;
    let of = |core, steps: [Step; 3]| Stream {
        core,
        steps: steps.into_iter().cycle().take(9).collect(),
    };
    vec![
        of(
            0,
            [
                step(spaces::MAP, 0),
                step(spaces::UNMAP, all),
                step(spaces::PROTECT, all),
            ],
        ),
        of(
            cores - 1,
            [
                step(names::BIND, all),
                step(names::LOOKUP, 0),
                step(names::UNBIND, all),
            ],
        ),
        of(
            1,
            [
                step(regions::REVOKE, all),
                step(spaces::UNMAP, 1),
                step(regions::REVOKE, 1),
            ],
        ),
    ]
}

fn plan(cores: usize) -> Plan {
    Plan {
        cores,
        streams: streams(cores),
        ..Plan::default()
    }
}

/// Every message has two ends, and every core's records are in order.
fn assert_whole(tape: &Tape) {
    let mut flows: BTreeMap<u64, i64> = BTreeMap::new();
    let mut steps = 0;
    for core in &tape.cores {
        assert!(core.records.is_sorted_by_key(|record| record.tsc));
        let of = |number| core.records.iter().filter(move |one| one.event() == number);
        assert_eq!(core.sent, of(event::SEND).count() as u64);
        assert_eq!(core.received, of(event::RECEIVE).count() as u64);
        assert_eq!(core.switches, of(event::RUNS).count() as u64);
        assert_eq!(of(event::RUNS).count(), of(event::IDLE).count());
        assert_eq!(of(event::BEGIN).count(), of(event::END).count());
        steps += of(event::STEP).count();
        let runs = core
            .records
            .iter()
            .filter(|one| [event::RUNS, event::IDLE].contains(&one.event()));
        for (number, record) in runs.enumerate() {
            let expected = [event::RUNS, event::IDLE][number % 2];
            assert_eq!(record.event(), expected);
            assert!(record.event() == event::IDLE || record.detail() == MONITOR);
        }
        for record in of(event::SEND) {
            *flows.entry(record.flow).or_default() += 1;
        }
        for record in of(event::RECEIVE) {
            *flows.entry(record.flow).or_default() -= 1;
        }
    }
    assert!(steps > 0);
    assert!(!flows.is_empty());
    assert_eq!(flows.values().filter(|count| **count != 0).count(), 0);
    assert_eq!(tape.lost(), 0);
}

#[test]
fn recording_changes_nothing_and_is_whole() {
    for protocol in [
        Protocol::Broadcast,
        Protocol::Names,
        Protocol::Regions,
        Protocol::Spaces,
    ] {
        let (plain, none) = measured(protocol, 6, None);
        assert!(none.is_none());
        let (recorded, tape) = measured(protocol, 6, Some(Tape::new(6)));
        let tape = tape.unwrap();
        assert_eq!(plain, recorded, "{}", protocol.name());
        let received: u64 = tape.cores.iter().map(|core| core.received).sum();
        let sent: u64 = tape.cores.iter().map(|core| core.sent).sum();
        assert_eq!(received, recorded, "{}", protocol.name());
        // A run ends as soon as all is measured: what is under way then has one end.
        assert!(sent >= received);
        let (_, again) = measured(protocol, 6, Some(Tape::new(6)));
        let records = |tape: &Tape| -> Vec<_> {
            tape.cores.iter().map(|core| core.records.clone()).collect()
        };
        assert!(
            records(&tape) == records(&again.unwrap()),
            "{}",
            protocol.name()
        );
    }
}

#[test]
fn a_core_that_stops_has_done_nothing_later() {
    let (_, tape) = measured(Protocol::Membership, 5, Some(Tape::new(5)));
    for core in tape.unwrap().cores {
        assert!(core.records.is_sorted_by_key(|record| record.tsc));
        let sent = core.records.iter().filter(|one| one.event() == event::SEND);
        assert_eq!(core.sent, sent.count() as u64);
    }
}

#[test]
fn all_that_is_asked_for_has_an_answer() {
    for (name, _) in SHIPPED {
        let machine = Machine::shipped(name).unwrap();
        for (cores, arity) in [
            (2, None),
            (8, None),
            (8, Some(2)),
            (300, None),
            (300, Some(4)),
        ] {
            let plan = Plan {
                arity,
                ..plan(cores)
            };
            let run = |tape| plan.clone().run(&machine, 1, tape).unwrap();
            let predicted = run(None);
            assert!(
                predicted.failed.is_empty(),
                "{name}, {cores}: {:?}",
                predicted.failed
            );
            let times: usize = predicted.times_ns.values().map(Vec::len).sum();
            assert_eq!((times, predicted.times_ns.len()), (27, KINDS.len()));
            let recorded = run(Some(Tape::new(cores)));
            assert_eq!(recorded.times_ns, predicted.times_ns);
            assert_whole(&recorded.tape.unwrap());
        }
    }
}

#[test]
fn rounds_reach_all_cores_of_a_large_machine() {
    let machine = Machine::shipped("eight-socket").unwrap();
    let predicted = plan(1024).run(&machine, 1, Some(Tape::new(1024))).unwrap();
    let tape = predicted.tape.unwrap();
    for core in &tape.cores[1..] {
        let got = core.records.iter().filter(|one| {
            // A round's message from its root.
            one.event() == event::RECEIVE && one.detail() == 0xc2
        });
        // Three unmaps and three protects.
        assert!(got.count() >= 6);
    }
}

#[test]
fn cores_by_turns_take_the_sum_of_what_they_take() {
    let mut machine = Machine::shipped("qemu").unwrap();
    machine.cost.poll = u64::MAX;
    let median = |machine: &Machine| {
        let predicted = plan(16).run(machine, 1, None).unwrap();
        let times_ns = &predicted.times_ns[&spaces::PROTECT];
        times_ns[times_ns.len() / 2]
    };
    let together = median(&machine);
    machine.is_serial = true;
    let by_turns = median(&machine);
    // Fifteen cores handle a message and answer it: 2 * (send + receive + handle).
    assert!(by_turns >= 15 * 2 * (200 + 250 + 250), "{by_turns}");
    assert!(by_turns > together);
}

#[test]
fn plans_that_make_no_sense_are_refused() {
    let machine = Machine::shipped("qemu").unwrap();
    let with = |change: fn(&mut Plan)| {
        let mut plan = plan(4);
        change(&mut plan);
        plan.run(&machine, 1, None).map(|_| ())
    };
    assert_eq!(with(|_| {}), Ok(()));
    let refused: [fn(&mut Plan); 5] = [
        |plan| plan.home = 4,
        |plan| plan.cores = 0,
        |plan| plan.streams[0].core = 4,
        |plan| plan.streams[0].steps[0].kind = 3,
        |plan| plan.streams[0].steps[0].reach = 4,
    ];
    for change in refused {
        assert!(matches!(with(change), Err(Impossible(_))));
    }
    // It never comes.
    let error = with(|plan| plan.streams[0].steps[0].gap_ns = u64::MAX).unwrap_err();
    assert!(error.0.contains("18 of 27 requests"), "{}", error.0);
}
