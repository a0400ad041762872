//! `scripts/sim --from TRACE`: what a recorded run asked for, asked again of simulated cores.
//!
//! What the recorded run had on all cores but the first, every core but the first has; what it had
//! on the last one, the last one has; all else stays where it was. What reached all cores reaches
//! all of them.

use simulator::machine::{Cost, Distance, Machine, TICK};
use simulator::replay::{KINDS, MAX_PAGES, Plan, Step, Stream};
use std::collections::BTreeMap;
use traces::replay::Load;

/// About so many messages are simulated at most for one number of cores.
const MAX_MESSAGES: usize = 16_000_000;
/// Nothing costs more, nor is a pause longer, in nanoseconds: a second, and a quarter of an hour.
const MAX_COST_NS: u64 = 1_000_000_000;
const MAX_GAP_NS: u64 = 900_000_000_000;
/// More requests of a program say nothing new.
const MAX_STEPS: usize = 512;

/// Requests that can be asked again, and what they are called.
const NAMES: [(u16, &str); 7] = [
    (KINDS[0], "bind"),
    (KINDS[1], "unbind"),
    (KINDS[2], "look up"),
    (KINDS[3], "map"),
    (KINDS[4], "unmap"),
    (KINDS[5], "protect"),
    (KINDS[6], "revoke"),
];

/// What requests of a kind are called, if they can be asked again.
pub fn name(kind: u32) -> Option<&'static str> {
    let found = NAMES.iter().find(|(known, _)| u32::from(*known) == kind);
    found.map(|(_, name)| *name)
}

/// The machine that a trace describes, or, with a machine's costs of messages, doorbells and sleep,
/// one on which monitors do what they did in the trace.
pub fn machine(load: &Load, named: Option<&Machine>) -> Machine {
    let costs = &load.costs;
    let limited = |ns: u64| ns.min(MAX_COST_NS);
    let mut handles: Vec<u64> = costs.handle.values().map(|ns| limited(*ns)).collect();
    handles.sort_unstable();
    let handle = handles.get(handles.len() / 2).copied().unwrap_or(0);
    let mut machine = match named {
        Some(machine) => machine.clone(),
        None => {
            let distance = Distance {
                send: limited(costs.send),
                flight: limited(costs.flight),
                receive: limited(costs.receive),
            };
            let cost = Cost {
                handle,
                ring: limited(costs.ring),
                wake: limited(costs.wake),
                poll: costs.poll.unwrap_or(u64::MAX),
            };
            let mut machine = Machine::uniform("trace", distance, cost);
            machine.is_serial = load.is_serial;
            machine
        }
    };
    machine.cost.handle = handle;
    let kinds = costs.handle.iter();
    machine.kinds = kinds.map(|(kind, ns)| (*kind, limited(*ns))).collect();
    // What a request costs is in the plan.
    machine.kinds.insert(TICK, 0);
    machine
}

/// What a trace asked for, on so many cores; and what of it is not asked for again, and how often.
pub fn plan(load: &Load, cores: usize) -> (Plan, BTreeMap<String, u64>) {
    let mut left_out: BTreeMap<String, u64> = BTreeMap::new();
    let recorded = load.cores.max(1);
    for step in load.streams.iter().flat_map(|stream| &stream.steps) {
        let what = match name(step.kind) {
            None => format!("requests of kind {:#x}", step.kind),
            Some(name) if step.took_ns.is_none() => {
                format!("requests that failed or have no end: {name}")
            }
            Some(_) => continue,
        };
        *left_out.entry(what).or_default() += 1;
    }
    let has = |core: usize, kind: u16| {
        let of_core = load.streams.iter().filter(|stream| stream.core == core);
        let mut steps = of_core.flat_map(|stream| &stream.steps);
        steps.any(|step| step.kind == u32::from(kind) && step.took_ns.is_some())
    };
    let is_everywhere = |kind: &u16| recorded > 1 && (1..recorded).all(|core| has(core, *kind));
    let (everywhere, elsewhere): (Vec<u16>, Vec<u16>) = KINDS.into_iter().partition(is_everywhere);
    let of = |kinds: &[u16]| {
        let parts = load.streams.iter().map(|stream| Stream {
            core: stream.core,
            steps: part(stream, kinds, recorded, cores),
        });
        let parts = parts.filter(|stream| !stream.steps.is_empty());
        parts.collect::<Vec<_>>()
    };
    let mut streams = of(&elsewhere);
    for stream in &mut streams {
        stream.core = placed(stream.core, recorded, cores);
    }
    streams.extend(spread(&of(&everywhere), recorded, cores));
    let before: usize = streams.iter().map(|stream| stream.steps.len()).sum();
    cut(&mut streams, cores);
    let after: usize = streams.iter().map(|stream| stream.steps.len()).sum();
    if after < before {
        let what = format!("requests beyond what is simulated, on {cores} cores");
        left_out.insert(what, (before - after) as u64);
    }
    let place = |core: usize| placed(core, recorded, cores);
    let handle = load.costs.handle.iter();
    let requests = handle.filter(|(kind, _)| KINDS.contains(kind));
    let plan = Plan {
        cores,
        home: place(load.home),
        arity: load.arity,
        streams,
        requests: requests
            .map(|(kind, ns)| (*kind, (*ns).min(MAX_COST_NS)))
            .collect(),
    };
    (plan, left_out)
}

/// Where what was on one core is on more, or fewer.
fn placed(core: usize, recorded: usize, cores: usize) -> usize {
    match core {
        last if last > 0 && last + 1 == recorded => cores - 1,
        core => core.min(cores - 1),
    }
}

/// What of a stream is of these kinds, and did not fail; the time of all else is a pause.
fn part(
    stream: &traces::replay::Stream,
    kinds: &[u16],
    recorded: usize,
    cores: usize,
) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut gap_ns = 0u64;
    for step in &stream.steps {
        let kind = kinds.iter().find(|kind| u32::from(**kind) == step.kind);
        let (Some(kind), Some(_)) = (kind, step.took_ns) else {
            gap_ns = gap_ns.saturating_add(step.gap_ns);
            gap_ns = gap_ns.saturating_add(step.took_ns.unwrap_or(0));
            continue;
        };
        let reach = match step.reach {
            reach if recorded > 1 && reach + 1 >= recorded => cores - 1,
            reach => reach.min(cores - 1),
        };
        steps.push(Step {
            kind: *kind,
            gap_ns: gap_ns.saturating_add(step.gap_ns).min(MAX_GAP_NS),
            // It overlaps what was right before it, if that is asked for too.
            overlaps: step.overlaps && gap_ns == 0 && !steps.is_empty(),
            reach,
        });
        gap_ns = 0;
    }
    steps
}

/// What was on all cores but the first is on all; what was on the first stays there.
fn spread(streams: &[Stream], recorded: usize, cores: usize) -> Vec<Stream> {
    let on = |core: usize| {
        let like = match core {
            0 => 0,
            core => 1 + (core - 1) % (recorded.max(2) - 1),
        };
        let like = streams.iter().filter(move |stream| stream.core == like);
        like.map(move |stream| Stream {
            core,
            steps: stream.steps.clone(),
        })
    };
    (0..cores).flat_map(on).collect()
}

/// No more than there is room and time for; all streams alike.
fn cut(streams: &mut [Stream], cores: usize) {
    let count = streams.len().max(1);
    // Each reaches all at most: a message there and back, and as many to prepare it. Members join by
    // a round each.
    let joins = cores.saturating_mul(cores).saturating_mul(2);
    let messages = MAX_MESSAGES.saturating_sub(joins);
    let in_time = messages / (4 * cores * count);
    let most = MAX_STEPS.min(MAX_PAGES / count).min(in_time).max(1);
    for stream in streams.iter_mut() {
        stream.steps.truncate(most);
    }
    // One each may still be more than there is room for.
    let mut room = MAX_PAGES;
    for stream in streams {
        let kept = stream.steps.len().min(room);
        stream.steps.truncate(kept);
        room -= kept;
    }
}

/// Percentiles of ascending times: the median, and what 99 of 100 do not exceed.
pub fn percentiles(times_ns: &[u64]) -> Option<(u64, u64)> {
    let last = times_ns.len().checked_sub(1)?;
    let at = |percent: usize| times_ns[(last * percent).div_ceil(100).min(last)];
    Some((at(50), at(99)))
}

/// By how much a prediction is off, in percent of what was measured.
pub fn error(predicted: u64, measured: u64) -> f64 {
    if measured == 0 {
        return if predicted == 0 { 0.0 } else { f64::INFINITY };
    }
    (predicted as f64 - measured as f64) / measured as f64 * 100.0
}

#[cfg(test)]
mod tests {
    use super::super::recording::{self, Named};
    use super::*;
    use simulator::random::Random;
    use simulator::tape::Tape;
    use std::fs;
    use std::path::Path;
    use traces::model::Model;
    use traces::recording::{Core, Header, Recording};

    const UNMAP: u16 = KINDS[4];
    const BIND: u16 = KINDS[0];
    const REVOKE: u16 = KINDS[6];

    /// The first core unmaps what all have, the last binds names, and all but the first revoke. Pauses
    /// have no common beat: every other request would wait for another one, and be the median or not.
    fn asked(cores: usize, arity: Option<usize>) -> Plan {
        let step = |kind, gap_ns, reach| Step {
            kind,
            gap_ns,
            overlaps: false,
            reach,
        };
        let stream = |core, step: Step| Stream {
            core,
            steps: vec![step; 12],
        };
        let mut streams = vec![
            stream(0, step(UNMAP, 53_700, cores - 1)),
            stream(cores - 1, step(BIND, 171_100, cores - 1)),
        ];
        streams.extend((1..cores).map(|core| stream(core, step(REVOKE, 307_300, 1))));
        let requests = KINDS.map(|kind| (kind, 700));
        Plan {
            cores,
            home: 0,
            arity,
            streams,
            requests: requests.into(),
        }
    }

    /// A machine on which kinds of messages cost differently.
    fn origin() -> Machine {
        let mut machine = Machine::shipped("qemu").expect("it is shipped");
        machine.kinds.extend([(TICK, 0), (0xc2, 900), (0xc3, 120)]);
        machine.cost.poll = u64::MAX;
        machine
    }

    /// A simulated run, recorded, and how long requests took in it.
    fn recorded(
        cores: usize,
        arity: Option<usize>,
        seed: u64,
    ) -> (Recording, BTreeMap<u16, Vec<u64>>) {
        let plan = asked(cores, arity);
        let tape = Some(Tape::new(cores));
        let done = plan.run(&origin(), seed, tape).expect("it can be run");
        let named = Named {
            revision: "abc".into(),
            command: "it".into(),
            program: "all".into(),
        };
        let tape = done.tape.expect("it was recorded");
        (recording::recording(tape, &origin(), named), done.times_ns)
    }

    fn load_of(recording: &Recording) -> Load {
        Load::of(recording, &Model::of(recording))
    }

    /// Predicts, and compares medians with what was measured.
    fn assert_close(load: &Load, cores: usize, measured: &BTreeMap<u16, Vec<u64>>, percent: f64) {
        let (plan, left_out) = plan(load, cores);
        assert_eq!(left_out, BTreeMap::new());
        let run = || {
            plan.clone()
                .run(&machine(load, None), 1, None)
                .expect("it can be run")
        };
        let predicted = run();
        assert_eq!(predicted.times_ns, run().times_ns);
        assert_eq!(predicted.times_ns.len(), measured.len());
        for (kind, measured) in measured {
            let times_ns = &predicted.times_ns[kind];
            assert_eq!(times_ns.len(), measured.len());
            let (predicted, _) = percentiles(times_ns).expect("there are some");
            let (measured, _) = percentiles(measured).expect("there are some");
            let off = error(predicted, measured);
            assert!(
                off.abs() <= percent,
                "{kind:#x} on {cores}: {predicted} ns predicted, {measured} ns measured: {off:+.1}%"
            );
        }
    }

    #[test]
    fn a_recorded_run_is_predicted_on_as_many_cores_and_on_more() {
        for arity in [None, Some(2)] {
            let (eight, measured) = recorded(8, arity, 3);
            let load = load_of(&eight);
            assert_eq!((load.cores, load.home, load.arity), (8, 0, arity));
            assert_close(&load, 8, &measured, 10.0);
            assert_close(&load, 16, &recorded(16, arity, 3).1, 15.0);
        }
    }

    #[test]
    fn costs_are_those_of_the_machine() {
        let (eight, _) = recorded(8, None, 3);
        let costs = load_of(&eight).costs;
        assert_eq!((costs.send, costs.flight, costs.receive), (200, 317, 250));
        assert_eq!((costs.wake, costs.poll), (0, None));
        assert_eq!((costs.handle[&0xc2], costs.handle[&0xc3]), (900, 120));
        assert_eq!(costs.handle[&UNMAP], 700);
    }

    #[test]
    fn one_seed_gives_one_recording() {
        assert!(recorded(8, None, 5).0.to_bytes() == recorded(8, None, 5).0.to_bytes());
    }

    #[test]
    fn a_recording_of_a_simulated_run_adds_up() {
        let (eight, measured) = recorded(8, None, 3);
        let model = Model::of(&eight);
        let of = |value: fn(&Core) -> u64| eight.header.cores.iter().map(value).sum::<u64>();
        assert_eq!(model.messages.len() as u64, of(|core| core.sent));
        assert_eq!(of(|core| core.sent), of(|core| core.received));
        assert_eq!((model.half, model.early), ((0, 0), (0, 0)));
        assert_eq!(model.running.len() as u64, of(|core| core.switches));
        assert_eq!(model.dispatchers.len(), 8);
        assert!(model.dispatchers.iter().all(|one| one.name == "monitor"));
        let ended = model.operations.iter().filter(|one| one.end.is_some());
        assert_eq!(
            ended.count(),
            measured.values().map(Vec::len).sum::<usize>()
        );
        for (kind, times_ns) in measured {
            assert_eq!(load_of(&eight).measured()[&u32::from(kind)], times_ns);
        }
    }

    #[test]
    fn what_was_on_all_others_is_on_all_others() {
        let stream = |core| Stream {
            core,
            steps: Vec::new(),
        };
        let cores = |streams: Vec<Stream>| streams.iter().map(|one| one.core).collect::<Vec<_>>();
        let four = [0, 1, 2, 3].map(stream);
        assert_eq!(cores(spread(&four, 4, 6)), [0, 1, 2, 3, 4, 5]);
        assert_eq!(cores(spread(&four[1..], 4, 3)), [1, 2]);
        assert_eq!([0, 1, 3, 9].map(|core| placed(core, 4, 6)), [0, 1, 5, 5]);
        assert_eq!([0, 1, 2, 3].map(|core| placed(core, 4, 2)), [0, 1, 1, 1]);
        assert_eq!(placed(0, 1, 6), 0);
    }

    #[test]
    fn what_is_not_asked_again_is_counted() {
        let step = |kind: u32, took_ns| traces::replay::Step {
            kind,
            gap_ns: 10,
            overlaps: false,
            reach: 3,
            took_ns,
        };
        let load = Load {
            cores: 4,
            streams: vec![traces::replay::Stream {
                core: 0,
                steps: vec![
                    step(3, Some(5)),
                    step(3, Some(5)),
                    step(UNMAP.into(), Some(5)),
                    step(UNMAP.into(), None),
                ],
            }],
            ..Load::default()
        };
        let (plan, left_out) = plan(&load, 9);
        let expected = [
            ("requests of kind 0x3".to_owned(), 2),
            ("requests that failed or have no end: unmap".to_owned(), 1),
        ];
        assert_eq!(left_out, BTreeMap::from(expected));
        // Two others were in between.
        assert_eq!(plan.streams[0].steps[0].gap_ns, 40);
        assert_eq!(plan.streams[0].steps[0].reach, 8);
    }

    #[test]
    fn there_is_room_and_time_for_what_is_left() {
        for (count, cores) in [(1, 1024), (2_000, 1024), (8, 4096), (600, 8)] {
            let step = Step {
                kind: UNMAP,
                gap_ns: 0,
                overlaps: false,
                reach: 1,
            };
            let stream = Stream {
                core: 0,
                steps: vec![step; 10_000],
            };
            let mut streams = vec![stream; count];
            cut(&mut streams, cores);
            let steps: usize = streams.iter().map(|stream| stream.steps.len()).sum();
            assert!(
                (1..=MAX_PAGES).contains(&steps),
                "{count}, {cores}: {steps}"
            );
        }
    }

    #[test]
    fn what_is_no_recording_is_named() {
        let folder = std::env::temp_dir().join(format!("atoll-replay-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("there is room");
        let path = folder.join("trace.atoll");
        let (eight, _) = recorded(8, None, 3);
        let bytes = eight.to_bytes();
        let none = Recording {
            header: Header {
                version: 1,
                ..Header::default()
            },
            records: Vec::new(),
        };
        let wrong = |bytes: &[u8], name: &Path| {
            fs::write(&path, bytes).expect("there is room");
            recording::read("--from", name)
                .expect_err("it is none")
                .to_string()
        };
        for (bytes, words) in [
            (&b""[..], "expected a recording"),
            (b"hello, world", "expected a recording"),
            (&bytes[..bytes.len() - 1], "the file was cut off"),
            (&bytes[..200], "the file was cut off"),
            (&none.to_bytes(), "expected at least 1 core"),
        ] {
            let error = wrong(bytes, &folder);
            assert!(
                error.contains("--from: ") && error.contains(words),
                "{error}"
            );
        }
        let error = wrong(&bytes, &folder.join("nothing"));
        assert!(error.contains("No such file"), "{error}");
        assert!(recording::read("--from", &folder).is_ok());
        fs::remove_dir_all(&folder).expect("it is ours");
    }

    #[test]
    fn whatever_records_say_nothing_breaks() {
        let (whole, _) = recorded(4, None, 3);
        for seed in 0..60 {
            let mut random = Random::new(seed);
            let mut spoilt = whole.clone();
            for records in &mut spoilt.records {
                for record in records {
                    match random.below(20) {
                        0 => record.tsc = random.word(),
                        1 => record.flow = random.word(),
                        2 => record.tail = random.word(),
                        3 => record.tail ^= 1 << random.below(64),
                        _ => {}
                    }
                }
            }
            spoilt.header.hz = random.pick(&[0, 1, 1_000_000_000, u64::MAX]);
            spoilt.header.cores[1].core = random.word() as u32;
            let load = load_of(&spoilt);
            for cores in [1, 3, 9] {
                let (plan, _) = plan(&load, cores);
                // It may be told to do what has no end, but says so.
                let _ = plan.run(&machine(&load, None), 1, None);
            }
        }
    }
}
