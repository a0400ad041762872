//! What a run asked of its monitors, and what that cost: enough to ask it again of a simulated
//! machine.
//!
//! Costs are medians of what the records of one core say, so no clock of another core is in them:
//!
//! ```text
//!   RECEIVE ──── handle + send ────► SEND ── send ──► SEND ── receive ──► RECEIVE (it waited)
//!   wakes ────── wake ─────► RECEIVE                  RECEIVE ── handle + receive ──► RECEIVE
//! ```
//!
//! The flight of a message alone is measured by two clocks: what a message took that its receiver,
//! awake, waited for, less `receive`. On an emulator that runs all cores by turns, most of that is
//! other cores' turns; there it is the least that any took.

use crate::model::Model;
use crate::recording::Recording;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use trace::event;

/// The kind of a monitor's answer to a domain.
const REPLY: u16 = 0x60;
/// The kind of a round's message from its root, or on its way.
const SPREAD: u16 = 0xc2;
/// The kinds of messages about capabilities on several cores, and of the request to revoke one.
const REGIONS: Range<u16> = 0x80..0xa0;
const REVOKE: u32 = 0x2d;
/// What monitors' dispatchers are called.
const MONITOR: &str = "monitor";

/// What an operation was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The kind of request.
    pub kind: u32,
    /// The pause before it, in nanoseconds.
    pub gap_ns: u64,
    /// It began before the one before had ended; the pause is from beginning to beginning.
    pub overlaps: bool,
    /// Other cores that had to do with it.
    pub reach: usize,
    /// How long it took, in nanoseconds; `None`: it has no end, or it failed.
    pub took_ns: Option<u64>,
}

/// What one dispatcher asked for, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// Its core.
    pub core: usize,
    /// What.
    pub steps: Vec<Step>,
}

/// What things cost, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// To put a message into its line.
    pub send: u64,
    /// From then until its receiver can see it.
    pub flight: u64,
    /// To take it out.
    pub receive: u64,
    /// To ring a doorbell.
    pub ring: u64,
    /// From a doorbell until the receiver takes messages out.
    pub wake: u64,
    /// How long a receiver polls before it sleeps; `None`: it always polls, or waking costs nothing.
    pub poll: Option<u64>,
    /// What a monitor does with a message, by kind, requests among them.
    pub handle: BTreeMap<u16, u64>,
    /// What of a request is no monitor's work, by kind: the way to the own monitor, and back.
    pub around: BTreeMap<u32, u64>,
    /// How many samples each of the above is the median of, in words.
    pub samples: Vec<(&'static str, usize)>,
}

/// What a trace says of all this.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// How many cores there were.
    pub cores: usize,
    /// Whether they ran by turns on one processor.
    pub is_serial: bool,
    /// The core that began most rounds.
    pub home: usize,
    /// The most others that a core told in a round, where not one core told all.
    pub arity: Option<usize>,
    /// What was asked for.
    pub streams: Vec<Stream>,
    /// What it cost.
    pub costs: Costs,
    /// What of the trace could not be used, in words, and how often.
    pub left_out: BTreeMap<String, u64>,
}

/// An operation as the records have it.
#[derive(Clone, Copy, Debug)]
struct Asked {
    core: usize,
    handle: Option<u32>,
    kind: u32,
    begin: u64,
    end: Option<(u64, u64)>,
    is_monitors: bool,
}

/// Samples of each cost.
#[derive(Debug, Default)]
struct Samples {
    send: Vec<u64>,
    ring: Vec<u64>,
    receive: Vec<u64>,
    /// A message that was waiting, after one of this kind that made the monitor send nothing.
    next: BTreeMap<u16, Vec<u64>>,
    /// From receiving this kind to sending something.
    first: BTreeMap<u16, Vec<u64>>,
    polls: Vec<u64>,
    woken: Vec<u64>,
    awake: Vec<u64>,
    asleep: Vec<u64>,
    around: BTreeMap<u32, Vec<u64>>,
}

/// What a core's monitor did last.
#[derive(Clone, Copy, Debug)]
enum Last {
    Received(u16, u64),
    Sent(u64),
}

impl Last {
    fn at(self) -> u64 {
        match self {
            Self::Received(_, at) | Self::Sent(at) => at,
        }
    }
}

fn median(mut of: Vec<u64>) -> Option<u64> {
    of.sort_unstable();
    of.get(of.len() / 2).copied()
}

/// The smallest, but for a few.
fn least(mut of: Vec<u64>) -> Option<u64> {
    of.sort_unstable();
    of.get(of.len() / 10).copied()
}

impl Load {
    /// What a recording says. Whatever is in it, this ends, and what makes no sense is counted.
    pub fn of(recording: &Recording, model: &Model) -> Self {
        let header = &recording.header;
        let mut load = Self {
            cores: header.cores.len(),
            is_serial: ["icount", "tcg"].contains(&header.accelerator.as_str()),
            ..Self::default()
        };
        let mut samples = Samples::default();
        let lost: u64 = header.cores.iter().map(|core| core.overwritten).sum();
        load.leave_out("records that were overwritten", lost);
        load.leave_out(
            "messages of which one end is missing",
            model.half.0 + model.half.1,
        );
        let mut walk = Walk::new(header.hz.max(1));
        for (at, records) in recording.records.iter().enumerate() {
            let number = header.cores.get(at).map_or(0, |core| core.core as usize);
            let names = header.cores.get(at).map_or(&[][..], |core| &core.names);
            walk.core(number, names, records, &mut samples);
        }
        load.wires(model, &mut samples, &walk);
        load.rounds(model);
        load.take_costs(samples);
        load.take_streams(&walk, model);
        load
    }

    fn leave_out(&mut self, what: &str, count: u64) {
        if count > 0 {
            *self.left_out.entry(what.into()).or_default() += count;
        }
    }

    /// How long messages took that their receivers waited for.
    fn wires(&self, model: &Model, samples: &mut Samples, walk: &Walk) {
        // What a monitor did last before it received a message: by core, ascending.
        let mut last: BTreeMap<u32, Last> = BTreeMap::new();
        let mut ends: Vec<(u64, u32, bool, usize)> = Vec::new();
        let is_monitor = |dispatcher: Option<usize>| {
            dispatcher
                .and_then(|at| model.dispatchers.get(at))
                .is_some_and(|one| one.name == MONITOR)
        };
        for (at, message) in model.messages.iter().enumerate() {
            if is_monitor(message.sender) {
                ends.push((message.sent, message.from, false, at));
            }
            if is_monitor(message.receiver) {
                ends.push((message.received, message.to, true, at));
            }
        }
        ends.sort_unstable();
        for (time, core, is_received, at) in ends {
            let message = &model.messages[at];
            let now = match is_received {
                true => Last::Received(message.kind, time),
                false => Last::Sent(time),
            };
            let before = last.insert(core, now);
            if !is_received {
                continue;
            }
            if let Some(before) = before.filter(|before| before.at() > message.sent) {
                // It waited: what passed since was work.
                let gap = time.saturating_sub(before.at());
                match before {
                    Last::Received(kind, _) => samples.next.entry(kind).or_default().push(gap),
                    Last::Sent(_) => samples.receive.push(gap),
                }
                continue;
            }
            if message.from == message.to || before.is_none() {
                continue;
            }
            let took = time.saturating_sub(message.sent);
            match walk.was_woken(core as usize, message.flow) {
                true => samples.asleep.push(took),
                false => samples.awake.push(took),
            }
        }
    }

    /// Who tells whom in rounds.
    fn rounds(&mut self, model: &Model) {
        let mut told: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        let mut count: BTreeMap<u32, u64> = BTreeMap::new();
        for message in model.messages.iter().filter(|one| one.kind == SPREAD) {
            told.entry(message.from).or_default().insert(message.to);
            *count.entry(message.from).or_default() += 1;
        }
        // Whoever begins rounds hears of none, or of fewer than it tells.
        let heard = |core: u32| told.values().filter(|to| to.contains(&core)).count();
        let roots = count
            .iter()
            .map(|(core, count)| (heard(*core), std::cmp::Reverse(*count), *core));
        self.home = roots.min().map_or(0, |(.., core)| core as usize);
        if told.len() > 1 {
            self.arity = told.values().map(BTreeSet::len).max();
        }
    }

    fn take_costs(&mut self, samples: Samples) {
        let mut counts = Vec::new();
        let mut of = |name: &'static str, values: Vec<u64>| {
            counts.push((name, values.len()));
            median(values).unwrap_or(0)
        };
        let send = of("send", samples.send);
        let receive = of("receive", samples.receive);
        let ring = of("ring", samples.ring);
        let is_serial = self.is_serial;
        let polls_at_all = !samples.awake.is_empty();
        counts.push(("flight", samples.awake.len() + samples.asleep.len()));
        let all_asleep = samples.asleep.clone();
        // Nothing is faster than its flight, asleep or not.
        let fastest = least(samples.asleep);
        let whole = match (is_serial, polls_at_all) {
            (true, true) => least(samples.awake),
            (false, true) => median(samples.awake).min(fastest.or(Some(u64::MAX))),
            (_, false) => fastest,
        };
        let whole = whole.unwrap_or(0);
        let wake = match is_serial {
            true => median(samples.woken.clone()),
            false => median(all_asleep).map(|asleep| asleep.saturating_sub(whole)),
        };
        counts.push(("wake", samples.woken.len()));
        let wake = wake.unwrap_or(0);
        let polls = median(samples.polls.clone());
        counts.push(("poll", samples.polls.len()));
        let mut handle: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
        for (kind, values) in samples.first {
            let values = values.into_iter().map(|value| value.saturating_sub(send));
            handle.entry(kind).or_default().extend(values);
        }
        for (kind, values) in samples.next {
            let values = values
                .into_iter()
                .map(|value| value.saturating_sub(receive));
            handle.entry(kind).or_default().extend(values);
        }
        let handle: BTreeMap<u16, u64> = handle
            .into_iter()
            .filter_map(|(kind, values)| Some((kind, median(values)?)))
            .collect();
        counts.push(("handle (kinds)", handle.len()));
        let around = samples.around.into_iter();
        self.costs = Costs {
            send,
            flight: whole.saturating_sub(receive),
            receive,
            ring,
            wake,
            poll: if wake == 0 { None } else { polls },
            handle,
            around: around
                .filter_map(|(kind, values)| Some((kind, median(values)?)))
                .collect(),
            samples: counts,
        };
    }

    fn take_streams(&mut self, walk: &Walk, model: &Model) {
        let hz = walk.hz;
        let to_ns = |ticks: u64| scaled(ticks, hz);
        let mut streams: BTreeMap<(usize, Option<u32>), Vec<Asked>> = BTreeMap::new();
        let mut unended = 0;
        for (_, one) in &walk.operations {
            unended += u64::from(one.end.is_none());
            streams
                .entry((one.core, one.handle))
                .or_default()
                .push(*one);
        }
        self.leave_out("requests without an end", unended);
        self.leave_out("ends of requests that did not begin", walk.stray);
        // Where nobody noted whom an operation had to do with: whoever got a round's message in its time.
        let windows = windows(model);
        let reach_of = |flow: u64, core: usize| {
            let noted = walk.steps.get(&flow).map_or(0, |cores| {
                cores.iter().filter(|other| **other != core).count()
            });
            match windows.get(&flow) {
                Some(seen) if noted == 0 => *seen,
                _ => noted,
            }
        };
        let mut flows: HashMap<(usize, u64, u32), u64> = HashMap::new();
        for (flow, one) in &walk.operations {
            flows.insert((one.core, one.begin, one.kind), *flow);
        }
        for ((core, _), mut asked) in streams {
            asked.sort_by_key(|one| one.begin);
            let mut stream = Stream {
                core,
                steps: Vec::new(),
            };
            let mut before: Option<Asked> = None;
            for one in asked {
                let ended = before.and_then(|before| before.end).map(|(at, _)| at);
                let overlaps = before.is_some() && ended.is_none_or(|at| at > one.begin);
                let from = match overlaps {
                    true => before.map(|before| before.begin),
                    false => ended,
                };
                let flow = flows.get(&(one.core, one.begin, one.kind)).copied();
                stream.steps.push(Step {
                    kind: one.kind,
                    gap_ns: from.map_or(0, |from| to_ns(one.begin.saturating_sub(from))),
                    overlaps,
                    reach: flow.map_or(0, |flow| reach_of(flow, core)),
                    took_ns: match one.end {
                        Some((at, 0)) => Some(to_ns(at.saturating_sub(one.begin))),
                        _ => None,
                    },
                });
                before = Some(one);
            }
            self.streams.push(stream);
        }
    }

    /// How long each request took that did not fail, in nanoseconds, by kind, ascending.
    pub fn measured(&self) -> BTreeMap<u32, Vec<u64>> {
        let mut measured: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for step in self.streams.iter().flat_map(|stream| &stream.steps) {
            if let Some(took_ns) = step.took_ns {
                measured.entry(step.kind).or_default().push(took_ns);
            }
        }
        for values in measured.values_mut() {
            values.sort_unstable();
        }
        measured
    }
}

/// The kinds of messages that reach whoever has to do with a request of this kind.
fn reaching(kind: u32) -> Option<Range<u16>> {
    match kind {
        0x30..0x38 => Some(SPREAD..SPREAD + 1),
        REVOKE => Some(REGIONS),
        _ => None,
    }
}

/// By operation: how many cores got such a message while it was under way.
fn windows(model: &Model) -> HashMap<u64, usize> {
    let of = |kinds: Range<u16>| {
        let messages = model.messages.iter();
        let messages = messages.filter(|one| kinds.contains(&one.kind));
        let mut got: Vec<(u64, u32)> = messages.map(|one| (one.received, one.to)).collect();
        got.sort_unstable();
        got
    };
    let (spreads, regions) = (of(SPREAD..SPREAD + 1), of(REGIONS));
    let mut windows = HashMap::new();
    for one in &model.operations {
        let (Some(end), Some(kinds)) = (one.end, reaching(one.kind)) else {
            continue;
        };
        let got = match kinds == REGIONS {
            true => &regions,
            false => &spreads,
        };
        let from = got.partition_point(|(at, _)| *at < one.begin);
        let within = got[from..].iter().take_while(|(at, _)| *at <= end);
        let cores = within.map(|(_, to)| *to).filter(|to| *to != one.core);
        windows.insert(one.flow, cores.collect::<BTreeSet<u32>>().len());
    }
    windows
}

fn scaled(ticks: u64, hz: u64) -> u64 {
    let ns = u128::from(ticks) * 1_000_000_000 / u128::from(hz);
    u64::try_from(ns).unwrap_or(u64::MAX)
}

/// Goes through the records, core by core.
struct Walk {
    hz: u64,
    /// In the order of their beginning.
    operations: Vec<(u64, Asked)>,
    /// Ends of nothing.
    stray: u64,
    /// Which cores took a step for an operation.
    steps: HashMap<u64, BTreeSet<usize>>,
    /// Messages that a monitor took out first after it had slept: core and flow.
    woken: BTreeSet<(usize, u64)>,
}

impl Walk {
    fn new(hz: u64) -> Self {
        Self {
            hz,
            operations: Vec::new(),
            stray: 0,
            steps: HashMap::new(),
            woken: BTreeSet::new(),
        }
    }

    fn was_woken(&self, core: usize, flow: u64) -> bool {
        self.woken.contains(&(core, flow))
    }

    fn core(
        &mut self,
        core: usize,
        names: &[String],
        records: &[trace::Record],
        samples: &mut Samples,
    ) {
        let to_ns = |from: u64, to: u64| scaled(to.saturating_sub(from), self.hz);
        // Whoever was made before the oldest record has the handle that it had last.
        let named = (0..).zip(names).filter(|(_, name)| *name == MONITOR);
        let mut monitors: BTreeSet<u32> = named.map(|(handle, _)| handle).collect();
        let mut running: Option<u32> = None;
        // Of the monitor's present stretch.
        let mut last: Option<Last> = None;
        let mut slept: Option<u64> = None;
        let mut open: HashMap<u64, usize> = HashMap::new();
        // Of the request under way: its kind, when it began, when the monitor had it, and answered.
        let mut asked: Option<(u32, u64, Option<u64>)> = None;
        let mut answered: Option<u64> = None;
        for record in records {
            let at = record.tsc;
            let kind = record.detail() as u16;
            let is_monitor = running.is_some_and(|handle| monitors.contains(&handle));
            match record.event() {
                event::MADE => {
                    let name = [record.flow.to_le_bytes(), record.value.to_le_bytes()].concat();
                    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                    match name == MONITOR.as_bytes() {
                        true => monitors.insert(record.detail()),
                        false => monitors.remove(&record.detail()),
                    };
                }
                event::RUNS => {
                    if running.is_none() {
                        slept.get_or_insert(at);
                    }
                    if running != Some(record.detail()) {
                        last = None;
                    }
                    running = Some(record.detail());
                }
                event::IDLE | event::BLOCKS => {
                    if let (true, Some(last)) = (is_monitor, last) {
                        samples.polls.push(to_ns(last.at(), at));
                    }
                    last = None;
                    running = None;
                    slept = None;
                }
                event::INTERRUPT if running.is_none() => {
                    slept.get_or_insert(at);
                }
                event::RING => {
                    if let (true, Some(Last::Sent(sent))) = (is_monitor, last) {
                        samples.ring.push(to_ns(sent, at));
                    }
                }
                event::SEND if is_monitor => {
                    match last {
                        Some(Last::Received(kind, from)) => {
                            samples.first.entry(kind).or_default().push(to_ns(from, at));
                        }
                        Some(Last::Sent(from)) => samples.send.push(to_ns(from, at)),
                        None => {}
                    }
                    last = Some(Last::Sent(at));
                    slept = None;
                    if kind == REPLY {
                        answered = Some(at);
                    }
                }
                event::RECEIVE if is_monitor => {
                    if let Some(from) = slept.take() {
                        samples.woken.push(to_ns(from, at));
                        self.woken.insert((core, record.flow));
                    }
                    last = Some(Last::Received(kind, at));
                    if let Some((asked, _, had @ None)) = &mut asked
                        && *asked == u32::from(kind)
                    {
                        *had = Some(at);
                    }
                }
                event::BEGIN => {
                    open.insert(record.flow, self.operations.len());
                    let one = Asked {
                        core,
                        handle: running,
                        kind: record.detail(),
                        begin: at,
                        end: None,
                        is_monitors: is_monitor,
                    };
                    self.operations.push((record.flow, one));
                    if is_monitor {
                        // A simulated run: the monitor asks itself.
                        last = Some(Last::Received(kind, at));
                    } else {
                        (asked, answered) = (Some((record.detail(), at, None)), None);
                    }
                }
                event::END => {
                    let Some(number) = open.remove(&record.flow) else {
                        self.stray += 1;
                        continue;
                    };
                    let one = &mut self.operations[number].1;
                    one.end = Some((at, record.value));
                    if let (Some((kind, begin, Some(had))), Some(replied)) = (asked, answered)
                        && kind == one.kind
                        && begin == one.begin
                        && !one.is_monitors
                    {
                        let around = to_ns(begin, had) + to_ns(replied, at);
                        samples.around.entry(kind).or_default().push(around);
                    }
                }
                event::STEP => {
                    self.steps.entry(record.flow).or_default().insert(core);
                }
                _ => {}
            }
        }
    }
}
