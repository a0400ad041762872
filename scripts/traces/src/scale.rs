//! What grows with the number of cores, and why: traces of one command on several numbers of cores.

use crate::causes::{Cause, Causes, Place, Shares};
use crate::columns::{
    Table, Unit, average, clipped, digits, grouped, percent, percentile, short, wrapped,
};
use crate::model::Model;
use crate::names;
use crate::recording::Recording;
use crate::summary::{self, plain};
use crate::usl;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Hops of a kind of operation that are looked at one by one; of many more, every second, third or so
/// operation is.
const HOPS: usize = 4_000_000;
/// Reasons of a growth that are told.
const REASONS: usize = 6;
/// Throughput is told in this much of the time's unit.
const PER: f64 = 1e6;

/// Where on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Where {
    /// Core 0.
    First,
    /// The core that the operation began on, if that is another.
    Own,
    /// All others.
    Others,
}

/// Why time went by: the cause, the program that it happened to, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Reason {
    cause: Cause,
    program: String,
    place: Where,
}

impl Reason {
    fn text(&self) -> String {
        let at = match self.place {
            Where::First => "on core 0",
            Where::Own => "on the core that asks",
            Where::Others => "on other cores",
        };
        match self.cause {
            Cause::Wire => format!("wire to {} {at}", self.program),
            cause => format!("{} at {} {at}", cause.name(), self.program),
        }
    }
}

/// Operations of one kind in one trace. Times are in ticks of the trace's unit.
#[derive(Clone, Debug, PartialEq)]
struct Kind {
    /// All, and those that ended.
    count: u64,
    ended: u64,
    median: u64,
    /// Together.
    messages: u64,
    shares: Shares,
    /// Parts of the average latency.
    reasons: BTreeMap<Reason, f64>,
    /// Operations that ended in [`PER`] ticks of a core.
    rate: f64,
}

impl Kind {
    /// Average latency.
    fn mean(&self) -> f64 {
        self.shares.sum() as f64 / self.ended.max(1) as f64
    }

    /// Average of a cause.
    fn of(&self, cause: Cause) -> f64 {
        self.shares[cause] as f64 / self.ended.max(1) as f64
    }

    /// Messages of one.
    fn each(&self) -> f64 {
        self.messages as f64 / self.count.max(1) as f64
    }
}

/// What one trace adds to a report.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    cores: u32,
    program: String,
    accelerator: String,
    unit: Unit,
    /// By kind of request.
    kinds: BTreeMap<u32, Kind>,
    /// Records that the rings did not hold.
    lost: u64,
}

impl Point {
    /// That of a trace of so many cores.
    pub fn of(cores: u32, recording: &Recording, model: &Model) -> Self {
        let header = &recording.header;
        let unit = Unit::of(header);
        let causes = Causes::of(model);
        let kinds = summary::kinds(model, &causes);
        let ticks = |time: f64| match unit {
            Unit::Instructions if header.hz > 0 => time * header.instruction_rate() as f64 / 1e9,
            _ => time,
        };
        let kinds = kinds.into_iter().map(|(number, kind)| {
            let ended = kind.latencies.len() as u64;
            let reasons = reasons(model, &causes, &kind.operations);
            let all = kind.operations.iter().map(|one| &model.operations[*one]);
            let all = all.filter(|one| one.end.is_some());
            let begin = all.clone().map(|one| one.begin).min().unwrap_or(0);
            let end = all.filter_map(|one| one.end).max().unwrap_or(0);
            // The clock counts what all cores execute: at once, it takes each its share.
            let at_once = match unit {
                Unit::Instructions => f64::from(cores.max(1)),
                _ => 1.0,
            };
            let time = ticks(end.saturating_sub(begin) as f64) / at_once;
            let ticked = |time: u64| unit.ticks(time, header);
            let kind = Kind {
                count: kind.operations.len() as u64,
                ended,
                median: ticked(percentile(&kind.latencies, 0.5)),
                messages: kind.messages,
                shares: Shares(kind.shares.0.map(ticked)),
                reasons: reasons
                    .into_iter()
                    .map(|(reason, time)| (reason, ticks(time)))
                    .collect(),
                rate: if time > 0.0 {
                    ended as f64 * PER / time
                } else {
                    0.0
                },
            };
            (number, kind)
        });
        Self {
            cores,
            program: header.program.clone(),
            accelerator: header.accelerator.clone(),
            unit,
            kinds: kinds.collect(),
            lost: header
                .cores
                .iter()
                .fold(0, |sum: u64, one| sum.saturating_add(one.overwritten)),
        }
    }
}

/// Parts of the average latency of operations, in nanoseconds.
fn reasons(model: &Model, causes: &Causes, operations: &[usize]) -> BTreeMap<Reason, f64> {
    // By cause, dispatcher and place: names are looked up afterwards.
    let mut sums: BTreeMap<(Cause, Option<usize>, Where), u64> = BTreeMap::new();
    let hops: usize = operations.iter().map(|one| causes.hops(*one)).sum();
    let (mut walked, stride) = (0u64, hops / HOPS + 1);
    for one in operations.iter().step_by(stride) {
        let Some(path) = causes.path(*one) else {
            continue;
        };
        walked += 1;
        let own = model.operations[*one].core;
        let at = |place: Place| match place.core {
            0 => Where::First,
            core if core == own => Where::Own,
            _ => Where::Others,
        };
        for hop in path {
            let shares = hop.way + hop.stay;
            for cause in Cause::ALL.into_iter().filter(|cause| shares[*cause] > 0) {
                let key = (cause, hop.to.dispatcher, at(hop.to));
                let sum = sums.entry(key).or_default();
                *sum = sum.saturating_add(shares[cause]);
            }
        }
    }
    let mut reasons = BTreeMap::new();
    for ((cause, dispatcher, place), sum) in sums {
        let name = dispatcher.and_then(|one| model.dispatchers.get(one));
        let program = match name {
            Some(one) if !one.name.is_empty() => plain(&one.name),
            _ => "a dispatcher".to_owned(),
        };
        let reason = Reason {
            cause,
            program,
            place,
        };
        *reasons.entry(reason).or_default() += sum as f64 / walked.max(1) as f64;
    }
    reasons
}

/// What grows with the number of cores: tables by kind of operation, the reasons, and the law.
pub fn report(points: &[Point]) -> String {
    let mut points: Vec<&Point> = points.iter().collect();
    points.sort_by_key(|point| point.cores);
    let Some(first) = points.first() else {
        return "no trace\n".to_owned();
    };
    let cores: Vec<_> = points.iter().map(|one| one.cores.to_string()).collect();
    let line = format!(
        "{}, {}, on {} cores",
        plain(&first.program),
        plain(&first.accelerator),
        cores.join(", ")
    );
    let mut text = wrapped(&line, 2);
    if points.iter().any(|one| one.unit != first.unit) {
        text.push_str("these traces have different clocks: nothing of them can be compared\n");
        return text;
    }
    text.push_str(&wrapped(first.unit.note(), 2));
    for point in points.iter().filter(|point| point.lost > 0) {
        let lost = grouped(point.lost);
        let line = format!(
            "{} cores: {lost} records were overwritten, so their operations are not all there",
            point.cores
        );
        text.push_str(&wrapped(&line, 2));
    }
    let kinds: BTreeSet<u32> = points
        .iter()
        .flat_map(|one| one.kinds.keys().copied())
        .collect();
    let mut rows: Vec<(f64, String)> = Vec::new();
    for kind in kinds {
        let of_kind: Vec<(u32, &Kind)> = points
            .iter()
            .filter_map(|point| Some((point.cores, point.kinds.get(&kind)?)))
            .filter(|(_, kind)| kind.ended > 0)
            .collect();
        if !of_kind.is_empty() {
            let most = of_kind.iter().map(|(_, kind)| kind.shares.sum()).max();
            let told = section(&names::request(kind), &of_kind, first.unit);
            rows.push((most.unwrap_or(0) as f64, told));
        }
    }
    if rows.is_empty() {
        text.push_str("no operation ended while this was recorded\n");
    }
    // Those that most time went by with come first.
    rows.sort_by(|one, other| other.0.total_cmp(&one.0));
    for (_, told) in rows {
        text.push('\n');
        text.push_str(&told);
    }
    text
}

/// One kind of operation.
fn section(name: &str, points: &[(u32, &Kind)], unit: Unit) -> String {
    let mut text = String::new();
    let mut heads = vec!["CORES".to_owned(), "COUNT".to_owned()];
    if unit.is_told() {
        heads.extend(["P50", "MEAN", "RATE"].map(str::to_owned));
    }
    heads.push("MSGS".to_owned());
    heads.extend(Cause::ALL.map(|cause| cause.name().to_uppercase()));
    let mut table = Table::new(heads);
    for (cores, kind) in points {
        let mut row = vec![cores.to_string(), short(kind.count)];
        if unit.is_told() {
            row.extend([short(kind.median), short(kind.mean().round() as u64)]);
            row.push(digits(kind.rate));
        }
        row.push(average(kind.messages, kind.count));
        row.extend(Cause::ALL.map(|cause| match unit.is_told() {
            true => short(kind.of(cause).round() as u64),
            false => percent(kind.shares[cause], kind.shares.sum()),
        }));
        table.row(row);
    }
    // How it grows.
    let mut grows = vec!["as N^".to_owned(), String::new()];
    let slope = |of: &dyn Fn(&Kind) -> f64| {
        let all: Vec<_> = points
            .iter()
            .map(|(cores, kind)| (f64::from(*cores), of(kind)))
            .collect();
        exponent(&all).map_or_else(|| "-".to_owned(), power)
    };
    if unit.is_told() {
        grows.extend([slope(&|kind| kind.median as f64), slope(&Kind::mean)]);
        grows.push(slope(&|kind| kind.rate));
    }
    grows.push(slope(&Kind::each));
    if unit.is_told() {
        grows.extend(Cause::ALL.map(|cause| slope(&|kind| kind.of(cause))));
    }
    table.row(grows);
    let what = match unit.is_told() {
        true => format!("{name}: of one, the average by cause in {}", unit.name()),
        false => format!("{name}: of one, causes in percent of its time"),
    };
    let _ = writeln!(text, "{what}");
    text.push_str(&table.text());
    if unit.is_told() {
        growth(&mut text, points, unit);
        law(&mut text, points, unit);
    }
    text
}

/// What makes it longer on most cores than on fewest.
fn growth(text: &mut String, points: &[(u32, &Kind)], unit: Unit) {
    let (Some((least, before)), Some((most, after))) = (points.first(), points.last()) else {
        return;
    };
    if least == most {
        return;
    }
    let grown = after.mean() - before.mean();
    if grown < 0.5 {
        let fallen = grouped((-grown).round().max(0.0) as u64);
        let line = match fallen.as_str() {
            "0" => format!("  from {least} to {most} cores it grows by nothing"),
            _ => format!(
                "  from {least} to {most} cores it becomes shorter, by {fallen} {}",
                unit.name()
            ),
        };
        let _ = writeln!(text, "{line}");
        return;
    }
    let times = match before.mean() {
        0.0 => String::new(),
        mean => format!(", {:.2} times as long", after.mean() / mean),
    };
    let _ = writeln!(
        text,
        "  from {least} to {most} cores it grows by {} {}{times}:",
        grouped(grown.round() as u64),
        unit.name(),
    );
    let all: BTreeSet<&Reason> = before.reasons.keys().chain(after.reasons.keys()).collect();
    let value = |kind: &Kind, reason: &Reason| kind.reasons.get(reason).copied().unwrap_or(0.0);
    let mut changes: Vec<(f64, &Reason)> = all
        .into_iter()
        .map(|reason| (value(after, reason) - value(before, reason), reason))
        .collect();
    changes.sort_by(|one, other| other.0.abs().total_cmp(&one.0.abs()));
    let mut rest = grown;
    let mut told = 0;
    let share = |change: f64| (change / grown * 100.0).round();
    let percent_of = |change: f64| share(change).to_string().replace('-', "−");
    for (change, reason) in changes.into_iter().take(REASONS) {
        if share(change).abs() < 1.0 {
            break;
        }
        let slopes: Vec<_> = points
            .iter()
            .map(|(cores, kind)| (f64::from(*cores), value(kind, reason)))
            .collect();
        let slope = exponent(&slopes).map(power);
        let slope = slope.map_or_else(String::new, |power| format!(", as N^{power}"));
        let sign = if change < 0.0 { "−" } else { "+" };
        let size = grouped(change.abs().round() as u64);
        let what = format!("{}, {sign}{size}{slope}", clipped(&reason.text(), 60));
        let _ = writeln!(text, "  {:>5} %  {what}", percent_of(change));
        (rest, told) = (rest - change, told + 1);
    }
    if told > 0 && share(rest).abs() >= 1.0 {
        let _ = writeln!(text, "  {:>5} %  all else", percent_of(rest));
    }
}

/// The Universal Scalability Law of its throughput.
fn law(text: &mut String, points: &[(u32, &Kind)], unit: Unit) {
    let rates: Vec<(f64, f64)> = points
        .iter()
        .filter(|(_, kind)| kind.rate > 0.0)
        .map(|(cores, kind)| (f64::from(*cores), kind.rate))
        .collect();
    let Some(fit) = usl::fit(&rates) else {
        let _ = writeln!(
            text,
            "  no law: it takes {} numbers of cores, and there are {}",
            usl::LEAST_POINTS,
            rates.len()
        );
        return;
    };
    let whose = match unit {
        Unit::Instructions => " of a core",
        _ => "",
    };
    let parts = [
        ("λ", fit.law.lambda, fit.intervals[0]),
        ("σ", fit.law.sigma, fit.intervals[1]),
        ("κ", fit.law.kappa, fit.intervals[2]),
    ];
    let parts = parts.map(|(name, value, (least, most))| {
        format!(
            "{name} {} [{}, {}]",
            digits(value),
            digits(least),
            digits(most)
        )
    });
    let peak = match fit.law.peak() {
        Some(peak) => format!("most at {} cores", digits(peak.round())),
        None => "no peak".to_owned(),
    };
    let line = format!(
        "  Universal Scalability Law of operations in {} {}{whose}: {}; {peak}",
        grouped(PER as u64),
        unit.name(),
        parts.join(", ")
    );
    text.push_str("  ");
    text.push_str(&wrapped(&line, 4));
}

/// The exponent b of a·N^b that comes nearest, by least squares of logarithms; `None` where a value is not
/// above 0, or there are no two numbers.
fn exponent(points: &[(f64, f64)]) -> Option<f64> {
    if points.iter().any(|(at, value)| *at <= 0.0 || *value <= 0.0) {
        return None;
    }
    let logs: Vec<_> = points
        .iter()
        .map(|(at, value)| (at.ln(), value.ln()))
        .collect();
    let count = logs.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| logs.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|one| one.0), mean(|one| one.1));
    let above: f64 = logs.iter().map(|one| (one.0 - x) * (one.1 - y)).sum();
    let below: f64 = logs.iter().map(|one| (one.0 - x).powi(2)).sum();
    let slope = above / below;
    // No −0.00.
    (below > 1e-12 && slope.is_finite()).then_some((slope * 100.0).round() / 100.0 + 0.0)
}

/// An exponent, with a sign that is as wide as a digit.
fn power(exponent: f64) -> String {
    format!("{exponent:.2}").replace('-', "−")
}

#[cfg(test)]
mod tests;
