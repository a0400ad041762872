//! What a trace says, in tables for the terminal.

use crate::causes::{Cause, Causes, Shares};
use crate::columns::{Table, Unit, average, clipped, grouped, percent, percentile, short, wrapped};
use crate::model::{Message, Model};
use crate::names;
use crate::recording::{Header, Recording};
use rt::interface::Error;
use std::collections::BTreeMap;
use std::fmt::Write;
use trace::SEQUENCE_BITS;

/// Channels that are shown, those with most messages first.
const CHANNELS: usize = 10;
/// Kinds of messages that are shown.
const KINDS: usize = 10;
/// Cores that are shown one by one.
const CORES: usize = 64;
/// Hops that are shown of a path.
const HOPS: usize = 16;

/// Operations of one kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kind {
    /// Indices into [`Model::operations`].
    pub operations: Vec<usize>,
    /// How long those took that ended, in nanoseconds, sorted.
    pub latencies: Vec<u64>,
    /// Messages that all of them caused, those without an end too.
    pub messages: u64,
    /// How the time of those that ended went by, in nanoseconds.
    pub shares: Shares,
    /// Errors that they ended with, and how often.
    pub errors: BTreeMap<u64, u64>,
}

impl Kind {
    /// How long all that ended took together.
    pub fn sum(&self) -> u64 {
        self.shares.sum()
    }

    /// Those that have no end.
    pub fn open(&self) -> u64 {
        (self.operations.len() - self.latencies.len()) as u64
    }

    /// One that took as long as half of them do at most.
    pub fn typical(&self, model: &Model) -> Option<usize> {
        let median = percentile(&self.latencies, 0.5);
        let takes = |one: &&usize| {
            let one = &model.operations[**one];
            one.end.map(|end| end.saturating_sub(one.begin)) == Some(median)
        };
        self.operations.iter().find(takes).copied()
    }
}

/// The operations of a trace, by kind.
pub fn kinds(model: &Model, causes: &Causes) -> BTreeMap<u32, Kind> {
    let mut kinds: BTreeMap<u32, Kind> = BTreeMap::new();
    for (number, operation) in model.operations.iter().enumerate() {
        let kind = kinds.entry(operation.kind).or_default();
        kind.operations.push(number);
        kind.messages += causes.messages(number).len() as u64;
        if let Some(shares) = causes.shares(number) {
            kind.latencies.push(shares.sum());
            kind.shares += shares;
            if operation.error != 0 {
                *kind.errors.entry(operation.error).or_default() += 1;
            }
        }
    }
    for kind in kinds.values_mut() {
        kind.latencies.sort_unstable();
    }
    kinds
}

/// All that is to be said of a trace.
pub fn table(recording: &Recording, model: &Model) -> String {
    let header = &recording.header;
    let unit = Unit::of(header);
    let causes = Causes::of(model);
    let kinds = kinds(model, &causes);
    let mut text = heading(header);
    let _ = write!(text, "{}", wrapped(unit.note(), 0));
    text.push('\n');
    operations(&mut text, &kinds, unit, header);
    typical(&mut text, &kinds, model, &causes, unit, header);
    messages(&mut text, model);
    channels(&mut text, model, unit, header);
    cores(&mut text, recording, model);
    text
}

/// What a trace is of, in two lines.
pub fn heading(header: &Header) -> String {
    let cores = header.cores.len();
    let mut text = wrapped(
        &format!(
            "{}, {cores} core{}, {}, revision {}",
            plain(&header.program),
            if cores == 1 { "" } else { "s" },
            plain(&header.accelerator),
            plain(&header.revision)
        ),
        2,
    );
    text.push_str(&wrapped(&plain(&header.command), 2));
    text
}

/// A text of the file, without what would upset a terminal.
pub fn plain(text: &str) -> String {
    let clean = |letter: char| if letter.is_control() { '?' } else { letter };
    text.chars().map(clean).collect()
}

/// A dispatcher's name and core.
pub fn who(model: &Model, core: u32, dispatcher: Option<usize>) -> String {
    let name = dispatcher.and_then(|one| model.dispatchers.get(one));
    match name {
        Some(one) if !one.name.is_empty() => format!("{} {core}", plain(&one.name)),
        Some(one) => format!("dispatcher {} {core}", one.handle),
        None => format!("core {core}"),
    }
}

/// Whether a monitor is one end of a message, or may be.
pub fn is_of_monitor(model: &Model, message: &Message) -> bool {
    [message.sender, message.receiver].into_iter().any(|end| {
        let dispatcher = end.and_then(|one| model.dispatchers.get(one));
        dispatcher.is_none_or(|one| one.name == "monitor")
    })
}

fn operations(text: &mut String, kinds: &BTreeMap<u32, Kind>, unit: Unit, header: &Header) {
    if kinds.is_empty() {
        text.push_str("no operation began while this was recorded\n\n");
        return;
    }
    let mut heads = vec!["<OPERATION", "COUNT"];
    if unit.is_told() {
        heads.extend(["P50", "P90", "P99", "MAX"]);
    }
    heads.push("MSGS");
    let causes = Cause::ALL.map(|cause| cause.name().to_uppercase());
    let heads = heads.into_iter().map(str::to_owned).chain(causes);
    let mut table = Table::new(heads);
    let mut remarks = String::new();
    for (number, kind) in kinds {
        let name = names::request(*number);
        let mut row = vec![clipped(&name, 15), short(kind.operations.len() as u64)];
        if unit.is_told() {
            for share in [0.5, 0.9, 0.99, 1.0] {
                row.push(match kind.latencies.is_empty() {
                    true => "-".to_owned(),
                    false => short(unit.ticks(percentile(&kind.latencies, share), header)),
                });
            }
        }
        row.push(average(kind.messages, kind.operations.len() as u64));
        row.extend(Cause::ALL.map(|cause| percent(kind.shares[cause], kind.sum())));
        table.row(row);
        if kind.open() > 0 {
            let line = format!("{name}: {} not answered", grouped(kind.open()));
            remarks.push_str(&wrapped(&line, 2));
        }
        for (error, count) in &kind.errors {
            let why = match Error::from_code(*error) {
                Some(Error::NoSuchRequest) if *error != 1 => format!("error {error}"),
                Some(error) => error.to_string(),
                None => String::new(),
            };
            let line = format!("{name}: {} failed, {why}", grouped(*count));
            remarks.push_str(&wrapped(&line, 2));
        }
    }
    text.push_str(&table.text());
    text.push_str(&wrapped(
        "msgs: that one of them caused. Then in percent, how critical paths went by; work: who had the message \
         ran; queue: the receiver served others first; sleep: its core was idle; wire: under way; \
         other: another dispatcher had the core.",
        2,
    ));
    text.push_str(&remarks);
    text.push('\n');
}

/// The critical path of the operation that a kind with most time has in its middle.
fn typical(
    text: &mut String,
    kinds: &BTreeMap<u32, Kind>,
    model: &Model,
    causes: &Causes,
    unit: Unit,
    header: &Header,
) {
    // Those that wait for other programs are as long as these are.
    let hops = |kind: &Kind| kind.messages > kind.operations.len() as u64;
    let longest = kinds.iter().filter(|(_, kind)| hops(kind));
    let Some((number, kind)) = longest.max_by_key(|(_, kind)| kind.sum()) else {
        return;
    };
    let Some(one) = kind.typical(model) else {
        return;
    };
    let Some(path) = causes.path(one) else {
        return;
    };
    let operation = &model.operations[one];
    let sum: u64 = path.iter().map(|hop| hop.end - hop.begin).sum();
    let name = names::request(*number);
    let line = match unit.is_told() {
        true => format!(
            "The critical path of a {name} in the middle, number {} of core {}, {} {}:",
            operation.flow & ((1 << 48) - 1),
            operation.core,
            grouped(unit.ticks(sum, header)),
            unit.name()
        ),
        false => format!("The critical path of a {name} in the middle:"),
    };
    text.push_str(&wrapped(&line, 2));
    let mut table = Table::new(["<WHO", "<BY MESSAGE", "%", "<ON ITS WAY", "<THERE"]);
    for (at, hop) in path.iter().enumerate().take(HOPS) {
        let message = hop.message.map(|at| &model.messages[at]);
        let kind = message.map_or_else(
            || if at == 0 { "begins" } else { "is answered" }.to_owned(),
            |one| names::message(one.kind, is_of_monitor(model, one)),
        );
        table.row([
            clipped(&who(model, hop.to.core, hop.to.dispatcher), 22),
            clipped(&kind, 24),
            percent(hop.end - hop.begin, sum),
            most(&hop.way, sum),
            most(&hop.stay, sum),
        ]);
    }
    text.push_str(&table.text());
    if path.len() > HOPS {
        let _ = writeln!(text, "  and {} more hops", path.len() - HOPS);
    }
    text.push('\n');
}

/// The causes that matter, in percent of a whole.
fn most(shares: &Shares, whole: u64) -> String {
    let mut all: Vec<_> = Cause::ALL
        .into_iter()
        .filter(|cause| shares[*cause] > 0)
        .collect();
    all.sort_by_key(|cause| std::cmp::Reverse(shares[*cause]));
    let told = |cause: &Cause| format!("{} {}", cause.name(), percent(shares[*cause], whole));
    let told: Vec<_> = all.iter().take(2).map(told).collect();
    told.join(", ")
}

fn messages(text: &mut String, model: &Model) {
    let mut kinds: BTreeMap<(bool, u16), u64> = BTreeMap::new();
    for message in &model.messages {
        let kind = (is_of_monitor(model, message), message.kind);
        *kinds.entry(kind).or_default() += 1;
    }
    let all = model.messages.len() as u64;
    let mut table = Table::new(["<MESSAGES BY KIND", "COUNT", "%"]);
    let mut most: Vec<_> = kinds.into_iter().collect();
    most.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for ((of_monitor, kind), count) in most.iter().take(KINDS) {
        let name = names::message(*kind, *of_monitor);
        table.row([clipped(&name, 32), grouped(*count), percent(*count, all)]);
    }
    if most.len() > KINDS {
        let rest = most[KINDS..].iter().map(|(_, count)| count).sum();
        let name = format!("{} other kinds", most.len() - KINDS);
        table.row([name, grouped(rest), percent(rest, all)]);
    }
    if !table.is_empty() {
        text.push_str(&table.text());
        text.push('\n');
    }
}

/// Messages of one channel, in one direction.
#[derive(Default)]
struct Channel {
    delays: Vec<u64>,
    kinds: BTreeMap<u16, u64>,
}

fn channels(text: &mut String, model: &Model, unit: Unit, header: &Header) {
    let mut channels: BTreeMap<_, Channel> = BTreeMap::new();
    for one in &model.messages {
        let ends = (one.from, one.sender, one.to, one.receiver);
        let channel = channels
            .entry((one.flow >> SEQUENCE_BITS, ends))
            .or_default();
        channel.delays.push(one.received.saturating_sub(one.sent));
        *channel.kinds.entry(one.kind).or_default() += 1;
    }
    let count = channels.len();
    let mut busiest: Vec<_> = channels.into_iter().collect();
    busiest.sort_by_key(|(_, channel)| std::cmp::Reverse(channel.delays.len()));
    let mut heads = vec!["<BUSIEST CHANNELS", "<TO", "MESSAGES"];
    if unit.is_told() {
        heads.extend(["LEAST", "P50", "MAX"]);
    }
    heads.push("<MOSTLY");
    let mut table = Table::new(heads);
    for ((_, (from, sender, to, receiver)), mut channel) in busiest.into_iter().take(CHANNELS) {
        channel.delays.sort_unstable();
        let mut row = vec![
            clipped(&who(model, from, sender), 22),
            clipped(&who(model, to, receiver), 18),
            grouped(channel.delays.len() as u64),
        ];
        if unit.is_told() {
            for share in [0.0, 0.5, 1.0] {
                row.push(short(
                    unit.ticks(percentile(&channel.delays, share), header),
                ));
            }
        }
        let is_monitor = |end: Option<usize>| {
            let one = end.and_then(|one| model.dispatchers.get(one));
            one.is_none_or(|one| one.name == "monitor")
        };
        let mostly = channel.kinds.iter().max_by_key(|(_, count)| **count);
        let of_monitor = is_monitor(sender) || is_monitor(receiver);
        let name = mostly.map(|(kind, _)| names::message(*kind, of_monitor));
        row.push(clipped(&name.unwrap_or_default(), 20));
        table.row(row);
    }
    if table.is_empty() {
        text.push_str("no message has both ends in this trace\n\n");
        return;
    }
    text.push_str(&table.text());
    if count > CHANNELS {
        let _ = writeln!(text, "  and {} more channels", count - CHANNELS);
    }
    text.push('\n');
}

fn cores(text: &mut String, recording: &Recording, model: &Model) {
    let cores = &recording.header.cores;
    let mut busy: BTreeMap<u32, u64> = BTreeMap::new();
    for one in &model.running {
        let sum = busy.entry(one.core).or_default();
        *sum = sum.saturating_add(one.end.saturating_sub(one.begin));
    }
    let mut table = Table::new([
        "CORE",
        "RECORDS",
        "WRITTEN",
        "OVERWRITTEN",
        "TORN",
        "SENT",
        "RECEIVED",
        "SWITCHES",
        "BUSY %",
    ]);
    for core in cores.iter().take(CORES) {
        let busy = busy.get(&core.core).copied().unwrap_or(0);
        let mut row = vec![core.core.to_string()];
        row.extend(
            [
                core.records,
                core.written,
                core.overwritten,
                core.torn,
                core.sent,
                core.received,
                core.switches,
            ]
            .map(grouped),
        );
        row.push(percent(busy, model.length));
        table.row(row);
    }
    let sum =
        |of: fn(&crate::recording::Core) -> u64| cores.iter().map(of).fold(0, u64::saturating_add);
    let (overwritten, torn) = (sum(|core| core.overwritten), sum(|core| core.torn));
    if cores.len() != 1 {
        let mut row = vec!["all".to_owned()];
        row.extend(
            [
                sum(|core| core.records),
                sum(|core| core.written),
                overwritten,
                torn,
                sum(|core| core.sent),
                sum(|core| core.received),
                sum(|core| core.switches),
            ]
            .map(grouped),
        );
        let all = busy
            .values()
            .fold(0, |sum: u64, one| sum.saturating_add(*one));
        row.push(percent(
            all,
            model.length.saturating_mul(cores.len() as u64),
        ));
        table.row(row);
    }
    text.push_str(&table.text());
    if cores.len() > CORES {
        let _ = writeln!(
            text,
            "  and {} more cores, in the sums",
            cores.len() - CORES
        );
    }
    let (sent, received) = model.half;
    let (before, after) = model.early;
    let both = model.messages.len();
    text.push('\n');
    text.push_str(&wrapped(
        &format!(
            "{} messages with both ends; {} were sent and not seen to arrive, {} arrived and were not seen \
             to be sent. {} would arrive before they were sent by the cores' own clocks, {} do after \
             these were set right.",
            grouped(both as u64),
            grouped(sent),
            grouped(received),
            grouped(before),
            grouped(after)
        ),
        2,
    ));
    for (count, what) in [
        (
            model.loose,
            "ends of something whose beginning was not recorded",
        ),
        (
            model.spoilt,
            "records say what cannot be, and were left out",
        ),
    ] {
        if count > 0 {
            text.push_str(&wrapped(&format!("{} {what}", grouped(count)), 2));
        }
    }
    for line in names::remarks(model) {
        text.push_str(&wrapped(&line, 2));
    }
    let lost = match (overwritten, torn) {
        (0, 0) => "no record was lost".to_owned(),
        _ => format!(
            "{} records were overwritten and {} half written: all of the above is of the others; a longer \
             ring holds more",
            grouped(overwritten),
            grouped(torn)
        ),
    };
    text.push_str(&wrapped(&lost, 2));
}

#[cfg(test)]
mod tests;
