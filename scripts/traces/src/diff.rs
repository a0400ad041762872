//! What differs between two traces. Where instructions are counted, any difference is one of what was
//! run, and so the first record that differs is named.

use crate::causes::{Cause, Causes};
use crate::columns::{
    Table, Unit, average, clipped, grouped, percent, percentile, short, signed, wrapped,
};
use crate::model::Model;
use crate::names;
use crate::recording::{Core, Header, Recording};
use crate::summary::{self, is_of_monitor, plain};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use trace::Record;
use trace::event::EVENTS;

/// Kinds of messages that are told.
const KINDS: usize = 12;
/// Cores that are told.
const CORES: usize = 16;
/// Records that are told before and after the first that differs.
const AROUND: usize = 3;

/// Whether two traces say the same: all records, all counts, and what programs declared. Revision and
/// command may differ.
pub fn is_same(traces: &[Recording; 2]) -> bool {
    let [a, b] = traces;
    a.records == b.records && told(&a.header) == told(&b.header)
}

/// A header without what says where it comes from.
fn told(header: &Header) -> Header {
    Header {
        revision: String::new(),
        command: String::new(),
        ..header.clone()
    }
}

/// What differs, in tables.
pub fn table(traces: &[Recording; 2]) -> String {
    let mut text = String::new();
    for (which, trace) in ["A", "B"].iter().zip(traces) {
        let heading = summary::heading(&trace.header).replace('\n', "\n   ");
        let _ = writeln!(text, "{which}: {}", heading.trim_end());
    }
    text.push('\n');
    if is_same(traces) {
        let records: usize = traces[0].records.iter().map(Vec::len).sum();
        let line = format!(
            "the same: {} records of {} cores, and all counts",
            grouped(records as u64),
            traces[0].records.len()
        );
        text.push_str(&wrapped(&line, 0));
        return text;
    }
    let units = [&traces[0], &traces[1]].map(|trace| Unit::of(&trace.header));
    let unit = match units[0] == units[1] {
        true => units[0],
        false => Unit::Unreal,
    };
    let note = match (units[0] == units[1], unit) {
        (false, _) => "two kinds of clocks: times cannot be compared and are left out",
        (_, Unit::Instructions) => {
            "times are guest instructions of all cores together: each difference is one of what was run"
        }
        (_, unit) => unit.note(),
    };
    text.push_str(&wrapped(note, 0));
    text.push('\n');
    let models = [Model::of(&traces[0]), Model::of(&traces[1])];
    operations(&mut text, traces, &models, unit);
    messages(&mut text, &models);
    cores(&mut text, traces);
    first(&mut text, traces);
    text
}

fn operations(text: &mut String, traces: &[Recording; 2], models: &[Model; 2], unit: Unit) {
    let causes = [Causes::of(&models[0]), Causes::of(&models[1])];
    let all = [
        summary::kinds(&models[0], &causes[0]),
        summary::kinds(&models[1], &causes[1]),
    ];
    let numbers: BTreeSet<u32> = all.iter().flat_map(|kinds| kinds.keys().copied()).collect();
    let mut heads = vec!["<OPERATION", "", "COUNT"];
    if unit.is_told() {
        heads.extend(["P50", "P90", "P99", "MAX"]);
    }
    heads.push("MSGS");
    let causes = Cause::ALL.map(|cause| cause.name().to_uppercase());
    let heads = heads.into_iter().map(str::to_owned).chain(causes);
    let mut table = Table::new(heads);
    let mut same = Vec::new();
    for number in numbers {
        let none = summary::Kind::default();
        let both = [0, 1].map(|which: usize| all[which].get(&number).unwrap_or(&none));
        let name = names::request(number);
        let is_same = |a: &summary::Kind, b: &summary::Kind| {
            let counts = (a.operations.len(), a.messages, a.open(), &a.errors)
                == (b.operations.len(), b.messages, b.open(), &b.errors);
            counts && (!unit.is_told() || (&a.latencies, a.shares) == (&b.latencies, b.shares))
        };
        if is_same(both[0], both[1]) {
            same.push(name);
            continue;
        }
        for (which, kind) in both.into_iter().enumerate() {
            let count = kind.operations.len() as u64;
            let label = if which == 0 {
                clipped(&name, 15)
            } else {
                String::new()
            };
            let mut row = vec![label, ["A", "B"][which].to_owned(), short(count)];
            if unit.is_told() {
                for share in [0.5, 0.9, 0.99, 1.0] {
                    let time = percentile(&kind.latencies, share);
                    row.push(match kind.latencies.is_empty() {
                        true => "-".to_owned(),
                        false => short(unit.ticks(time, &traces[which].header)),
                    });
                }
            }
            row.push(average(kind.messages, count));
            row.extend(Cause::ALL.map(|cause| percent(kind.shares[cause], kind.sum())));
            table.row(row);
        }
        let mut row = vec![String::new(), "B/A".to_owned()];
        let [a, b] = both;
        row.push(ratio(a.operations.len() as f64, b.operations.len() as f64));
        if unit.is_told() {
            for share in [0.5, 0.9, 0.99, 1.0] {
                let at = |kind: &summary::Kind| percentile(&kind.latencies, share) as f64;
                row.push(ratio(at(a), at(b)));
            }
        }
        let each = |kind: &summary::Kind| kind.messages as f64 / kind.operations.len() as f64;
        row.push(ratio(each(a), each(b)));
        table.row(row);
    }
    if !table.is_empty() {
        text.push_str(&table.text());
    }
    if !same.is_empty() {
        text.push_str(&wrapped(&format!("the same: {}", same.join(", ")), 2));
    }
    if !table.is_empty() || !same.is_empty() {
        text.push('\n');
    }
}

/// By how much the second is more, in percent.
fn ratio(a: f64, b: f64) -> String {
    match b / a {
        ratio if !ratio.is_finite() => "-".to_owned(),
        1.0 => "=".to_owned(),
        ratio => {
            let change = (ratio - 1.0) * 100.0;
            let digits = match change.abs() {
                size if size < 0.1 => format!("{size:.3}"),
                size if size < 10.0 => format!("{size:.1}"),
                size => format!("{size:.0}"),
            };
            let sign = if change < 0.0 { "−" } else { "+" };
            format!("{sign}{digits}%")
        }
    }
}

fn messages(text: &mut String, models: &[Model; 2]) {
    let mut kinds: BTreeMap<(bool, u16), [u64; 2]> = BTreeMap::new();
    for (which, model) in models.iter().enumerate() {
        for message in &model.messages {
            let kind = (is_of_monitor(model, message), message.kind);
            kinds.entry(kind).or_default()[which] += 1;
        }
    }
    let count = kinds.len();
    let mut changed: Vec<_> = kinds.into_iter().filter(|(_, [a, b])| a != b).collect();
    changed.sort_by_key(|(_, [a, b])| std::cmp::Reverse(a.abs_diff(*b)));
    let mut table = Table::new(["<MESSAGES", "A", "B", "B−A"]);
    for ((of_monitor, kind), [a, b]) in changed.iter().take(KINDS) {
        let name = clipped(&names::message(*kind, *of_monitor), 40);
        table.row([name, grouped(*a), grouped(*b), signed(*a, *b)]);
    }
    let [a, b] = [0, 1].map(|which: usize| models[which].messages.len() as u64);
    table.row(["all".to_owned(), grouped(a), grouped(b), signed(a, b)]);
    text.push_str(&table.text());
    if changed.len() > KINDS {
        let _ = writeln!(
            text,
            "  and {} more kinds that changed",
            changed.len() - KINDS
        );
    }
    let _ = writeln!(
        text,
        "  {} of {count} kinds are the same\n",
        count - changed.len()
    );
}

fn cores(text: &mut String, traces: &[Recording; 2]) {
    let by_core = |trace: &Recording| -> BTreeMap<u32, Core> {
        let cores = trace.header.cores.iter();
        cores.map(|core| (core.core, core.clone())).collect()
    };
    let both = [by_core(&traces[0]), by_core(&traces[1])];
    let numbers: BTreeSet<u32> = both.iter().flat_map(|one| one.keys().copied()).collect();
    let mut table = Table::new([
        "CORE",
        "",
        "WRITTEN",
        "OVERWRITTEN",
        "TORN",
        "SENT",
        "RECEIVED",
        "SWITCHES",
    ]);
    let changed: Vec<_> = numbers
        .iter()
        .filter(|core| both[0].get(core) != both[1].get(core))
        .collect();
    for core in changed.iter().take(CORES) {
        for (which, cores) in both.iter().enumerate() {
            let mut row = match which {
                0 => vec![core.to_string(), "A".to_owned()],
                _ => vec![String::new(), "B".to_owned()],
            };
            match cores.get(core) {
                None => row.push("not there".to_owned()),
                Some(one) => row.extend(
                    [
                        one.written,
                        one.overwritten,
                        one.torn,
                        one.sent,
                        one.received,
                        one.switches,
                    ]
                    .map(grouped),
                ),
            }
            table.row(row);
        }
    }
    if !table.is_empty() {
        text.push_str(&table.text());
    }
    if changed.len() > CORES {
        let _ = writeln!(
            text,
            "  and {} more cores that changed",
            changed.len() - CORES
        );
    }
    let same = numbers.len() - changed.len();
    let _ = writeln!(
        text,
        "  the counts of {same} of {} cores are the same\n",
        numbers.len()
    );
}

/// Where two cores' records part: the index at which, and the time.
fn parts(a: &[Record], b: &[Record]) -> Option<(usize, u64)> {
    let at = a.iter().zip(b).position(|(a, b)| a != b);
    let at = at.or_else(|| (a.len() != b.len()).then_some(a.len().min(b.len())))?;
    let times = [a, b]
        .into_iter()
        .filter_map(|one| one.get(at))
        .map(|one| one.tsc);
    Some((at, times.min().unwrap_or(u64::MAX)))
}

/// The first record that differs, of all cores.
fn first(text: &mut String, traces: &[Recording; 2]) {
    let exact = traces.iter().all(|trace| trace.header.is_exact);
    if !exact {
        text.push_str(&wrapped(
            "no record is named: without a count of instructions no two runs have the same",
            2,
        ));
        return;
    }
    let cores = traces[0].records.iter().zip(&traces[1].records).enumerate();
    let parting = cores.filter_map(|(core, (a, b))| Some((core, parts(a, b)?)));
    let Some((core, (at, _))) = parting.min_by_key(|(_, (_, time))| *time) else {
        text.push_str("the records that both have are the same\n");
        return;
    };
    let number = traces[0]
        .header
        .cores
        .get(core)
        .map_or(core as u32, |core| core.core);
    let _ = writeln!(
        text,
        "The first record that differs is number {} of core {number}:",
        grouped(at as u64)
    );
    let mut table = Table::new(["", "NUMBER", "TIME STAMP", "<EVENT", "<WHAT"]);
    let from = at.saturating_sub(AROUND);
    for index in from..at {
        table.row(row(" ", index, traces[0].records[core].get(index)));
    }
    for (which, trace) in ["A", "B"].iter().zip(traces) {
        for index in at..at + AROUND {
            table.row(row(which, index, trace.records[core].get(index)));
            if trace.records[core].len() <= index {
                break;
            }
        }
    }
    text.push_str(&table.text());
}

fn row(which: &str, index: usize, record: Option<&Record>) -> [String; 5] {
    let [which, number] = [which.to_owned(), grouped(index as u64)];
    let Some(record) = record else {
        let none = "no more records".to_owned();
        return [which, number, String::new(), none, String::new()];
    };
    let event = EVENTS.iter().find(|event| event.number == record.event());
    let name = event.map_or_else(
        || format!("{:#x}", record.event()),
        |event| event.name.to_owned(),
    );
    let mut what = event
        .map_or("{flow:x} {value:x} {detail:x}", |event| event.text)
        .to_owned();
    let values = [
        ("flow", record.flow),
        ("value", record.value),
        ("detail", record.detail().into()),
    ];
    for (name, value) in values {
        what = what.replace(&format!("{{{name}}}"), &value.to_string());
        what = what.replace(&format!("{{{name}:x}}"), &format!("{value:#x}"));
    }
    if event.is_some_and(|event| !event.text.contains("{flow")) && record.flow != 0 {
        what = format!("{what}, flow {:#x}", record.flow);
    }
    [
        which,
        number,
        grouped(record.tsc),
        name,
        clipped(&plain(&what), 52),
    ]
}

#[cfg(test)]
mod tests;
