//! The lines by which a benchmark in the guest says what it measured.
//!
//! Each is the word `result` and one JSON object:
//!
//! ```text
//! result {"benchmark":"micro","operation":"null system call","unit":"guest instructions","minimum":47,"median":47,"p99":49,"samples":1000,"core":0}
//! ```
//!
//! | key                        | what it says                                                  |
//! |----------------------------|---------------------------------------------------------------|
//! | `benchmark`                | the program                                                   |
//! | `operation`                | what was measured                                             |
//! | `unit`                     | one of [`Unit`]                                               |
//! | `value`                    | the figure; may be left out where there is a `median`         |
//! | `minimum` `median` `p99`   | of the samples, all optional                                  |
//! | `samples`                  | how many there were, optional                                 |
//! | `distribution`             | pairs of a value and how often it came, ascending, optional   |
//! | `machine` `source`         | of an estimate: for which machine, and where its costs are from |
//! | `by_reads` `by_writes`     | of cache lines: the two parts of the value                    |
//! | `structure` `field`        | of cache lines: what they are part of, and which part         |
//! | any other                  | what it was measured with: a `core`, a `seed`                 |
//!
//! A distribution that is too long for a line goes on in lines of the word `more` and more pairs.
//!
//! To these the host adds the [`Conditions`], which the line must not contradict, and so it is
//! complete: nothing else has to be known to read it or to measure it again. That is a line of
//! `results.jsonl`, `revision`, `benchmark` and `operation` first, the other keys in alphabetical
//! order.

use crate::accelerator::Accelerator;
use crate::failure::BenchmarkError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};
use std::fmt;

/// What begins such a line.
const MARK: &str = "result ";
/// What begins a line with more of a distribution.
const MORE: &str = "more ";
const DISTRIBUTION: &str = "distribution";

/// What figures are told in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Unit {
    /// Instructions that the guest executed.
    #[serde(rename = "guest instructions")]
    GuestInstructions,
    /// Cycles of the time-stamp counter.
    #[serde(rename = "cycles")]
    Cycles,
    /// Nanoseconds of the guest's clock.
    #[serde(rename = "ns")]
    Nanoseconds,
    /// Nanoseconds that cache lines would take to move on another machine, which the figure names
    /// with the source of that machine's costs: worked out from counts, not measured.
    #[serde(rename = "nanoseconds (estimate)")]
    Estimate,
    /// Messages sent.
    #[serde(rename = "messages")]
    Messages,
    /// Cache lines moved.
    #[serde(rename = "cache lines")]
    CacheLines,
    /// Rounds of a protocol.
    #[serde(rename = "rounds")]
    Rounds,
    /// Crossings of the border between user code and CPU driver.
    #[serde(rename = "ring crossings")]
    Crossings,
    /// Bytes.
    #[serde(rename = "bytes")]
    Bytes,
    /// Whatever the operation names.
    #[serde(rename = "count")]
    Count,
    /// Messages in a second.
    #[serde(rename = "messages/s")]
    MessagesASecond,
    /// Millions of bytes in a second.
    #[serde(rename = "MB/s")]
    MegabytesASecond,
}

impl fmt::Display for Unit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::GuestInstructions => "guest instructions",
            Self::Cycles => "cycles",
            Self::Nanoseconds => "ns",
            Self::Estimate => "nanoseconds (estimate)",
            Self::Messages => "messages",
            Self::CacheLines => "cache lines",
            Self::Rounds => "rounds",
            Self::Crossings => "ring crossings",
            Self::Bytes => "bytes",
            Self::Count => "count",
            Self::MessagesASecond => "messages/s",
            Self::MegabytesASecond => "MB/s",
        })
    }
}

impl Unit {
    /// Whether more of it is better.
    pub fn is_rate(self) -> bool {
        matches!(self, Self::MessagesASecond | Self::MegabytesASecond)
    }

    /// Whether it is a time: less of it is better, and its inverse is a rate.
    pub fn is_time(self) -> bool {
        matches!(
            self,
            Self::GuestInstructions | Self::Cycles | Self::Nanoseconds
        )
    }

    /// Whether a figure in this unit means anything where it was obtained by `accelerator`, as
    /// [`Conditions`] name it. Counts always do, and so does what is worked out from them.
    pub fn is_told_by(self, accelerator: &str) -> bool {
        match self {
            Self::GuestInstructions => accelerator == "icount",
            Self::Cycles | Self::MessagesASecond | Self::MegabytesASecond => {
                !matches!(accelerator, "tcg" | "icount")
            }
            Self::Nanoseconds => accelerator != "tcg",
            Self::Estimate
            | Self::Messages
            | Self::CacheLines
            | Self::Rounds
            | Self::Crossings
            | Self::Bytes
            | Self::Count => true,
        }
    }
}

impl Accelerator {
    /// Whether times mean anything under it.
    pub fn tells_time(self) -> bool {
        self != Self::Tcg
    }

    /// Whether a figure in this unit means anything under it.
    pub fn tells(self, unit: Unit) -> bool {
        unit.is_told_by(&self.to_string())
    }
}

/// How figures were obtained, as it stands with each of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// How QEMU executed the guest.
    pub accelerator: String,
    /// The command that obtains them again.
    pub command: String,
    /// Cores of the machine.
    pub cores: u32,
    /// Its RAM.
    #[serde(default)]
    pub memory: String,
    /// QEMU's version.
    #[serde(default)]
    pub qemu: String,
    /// Of the sources.
    pub revision: String,
    /// Sockets of the machine.
    #[serde(default)]
    pub sockets: usize,
}

/// A figure, as far as this tool looks into it.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What was measured.
    pub operation: String,
    /// What all numbers are told in.
    pub unit: Unit,
    /// The figure itself.
    pub value: f64,
    /// How it was obtained.
    pub conditions: Conditions,
    /// Least of the samples.
    pub minimum: Option<f64>,
    /// What 99 of 100 samples do not exceed.
    pub p99: Option<f64>,
    /// How many samples there were.
    pub samples: Option<u64>,
    /// All that the benchmark said, with the conditions.
    pub record: Map<String, Value>,
}

/// Keys that come first in a line of results.
const FIRST: [&str; 3] = ["revision", "benchmark", "operation"];
/// Keys with what came out, and those of how to obtain it again: all others say what it is that
/// was measured.
const FOUND: [&str; 8] = [
    "value",
    "minimum",
    "median",
    "p99",
    "samples",
    "by_reads",
    "by_writes",
    DISTRIBUTION,
];
const OBTAINED: [&str; 3] = ["command", "qemu", "revision"];
/// Keys of what was measured that have a place of their own wherever figures are shown.
const SHOWN_APART: [&str; 9] = [
    "benchmark",
    "operation",
    "unit",
    "accelerator",
    "cores",
    "memory",
    "sockets",
    "core",
    "source",
];

impl Figure {
    /// The benchmark that it is of.
    pub fn benchmark(&self) -> &str {
        self.record["benchmark"].as_str().unwrap_or_default()
    }

    /// A line of results, without its end.
    pub fn line(&self) -> String {
        let first = FIRST
            .into_iter()
            .filter_map(|key| self.record.get_key_value(key));
        let rest = self
            .record
            .iter()
            .filter(|(key, _)| !FIRST.contains(&key.as_str()));
        let mut line = String::from("{");
        for (key, value) in first.chain(rest) {
            let comma = if line.len() == 1 { "" } else { "," };
            line.push_str(&format!("{comma}{}:{value}", Value::from(key.as_str())));
        }
        line + "}"
    }

    /// What was measured, and on what: figures of two runs with the same are comparable.
    pub fn identity(&self) -> String {
        let is_of_it = |key: &str| !FOUND.contains(&key) && !OBTAINED.contains(&key);
        let all = self.record.iter().filter(|(key, _)| is_of_it(key));
        Value::Object(
            all.map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
        )
        .to_string()
    }

    /// What came out of it.
    pub fn found(&self) -> Map<String, Value> {
        let all = self
            .record
            .iter()
            .filter(|(key, _)| FOUND.contains(&key.as_str()));
        all.map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// What it was measured with: all keys but those that have a place of their own.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.record
            .iter()
            .map(|(key, value)| (key.as_str(), value))
            .filter(|(key, _)| {
                !FOUND.contains(key) && !OBTAINED.contains(key) && !SHOWN_APART.contains(key)
            })
    }

    /// A parameter that is a number.
    pub fn parameter(&self, key: &str) -> Option<u64> {
        self.record.get(key)?.as_u64()
    }

    /// The operation with all parameters but those.
    pub fn name_without(&self, left_out: &[&str]) -> String {
        let mut name = self.operation.clone();
        for (key, value) in self.parameters().filter(|(key, _)| !left_out.contains(key)) {
            name.push_str(&match value {
                Value::String(word) => format!(", {key} {word}"),
                value => format!(", {key} {value}"),
            });
        }
        name
    }

    /// The operation with all its parameters.
    pub fn name(&self) -> String {
        self.name_without(&[])
    }

    /// The unit with how the figure was obtained: no figure is shown without.
    pub fn label(&self) -> String {
        format!("{}, {}", self.unit, self.conditions.accelerator)
    }

    /// Each value that came with how often it came, ascending; empty where the benchmark did not
    /// say.
    pub fn distribution(&self) -> Vec<(f64, u64)> {
        let pairs = self.record.get(DISTRIBUTION).and_then(Value::as_array);
        let pair = |pair: &Value| Some((pair.get(0)?.as_f64()?, pair.get(1)?.as_u64()?));
        pairs.into_iter().flatten().filter_map(pair).collect()
    }
}

/// The figure in a line of results.
///
/// # Errors
/// What is wrong with the line.
pub fn from_results(line: &str) -> Result<Figure, String> {
    let keys: Conditions = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let figure = read(line, None, &keys)?;
    if !figure.unit.is_told_by(&figure.conditions.accelerator) {
        return Err(format!(
            "{} tells no {}",
            figure.conditions.accelerator, figure.unit
        ));
    }
    Ok(figure)
}

/// The keys that mean something to this tool.
#[derive(Deserialize)]
struct Keys {
    benchmark: String,
    operation: String,
    unit: Unit,
    value: Option<f64>,
    minimum: Option<f64>,
    median: Option<f64>,
    p99: Option<f64>,
    samples: Option<u64>,
}

/// The figure in a line of the program `benchmark`; `None` where the line is about something
/// else.
pub fn parse(
    line: &str,
    benchmark: &str,
    conditions: &Conditions,
) -> Result<Option<Figure>, BenchmarkError> {
    let Some(json) = line.strip_prefix(MARK) else {
        return Ok(None);
    };
    read(json, Some(benchmark), conditions)
        .map(Some)
        .map_err(|reason| BenchmarkError::Malformed {
            line: line.to_owned(),
            reason,
        })
}

/// Adds what a line says of the distribution of the last figure; `false` where the line is about
/// something else.
pub fn parse_more(line: &str, last: Option<&mut Figure>) -> Result<bool, BenchmarkError> {
    let Some(json) = line.strip_prefix(MORE) else {
        return Ok(false);
    };
    let malformed = |reason: &str| BenchmarkError::Malformed {
        line: line.to_owned(),
        reason: reason.to_owned(),
    };
    let more = serde_json::from_str::<Vec<(Number, u64)>>(json);
    let more = more.map_err(|error| malformed(&error.to_string()))?;
    let distribution = last.and_then(|figure| figure.record.get_mut(DISTRIBUTION));
    let Some(Value::Array(pairs)) = distribution else {
        return Err(malformed("no distribution was begun"));
    };
    pairs.extend(more.into_iter().map(|pair| serde_json::json!(pair)));
    Ok(true)
}

fn read(json: &str, benchmark: Option<&str>, conditions: &Conditions) -> Result<Figure, String> {
    let said = |error: serde_json::Error| error.to_string();
    let mut record: Map<String, Value> = serde_json::from_str(json).map_err(said)?;
    let keys: Keys = serde_json::from_str(json).map_err(said)?;
    if let Some(benchmark) = benchmark.filter(|benchmark| *benchmark != keys.benchmark) {
        return Err(format!("its benchmark is not {benchmark:?}"));
    }
    let value = keys
        .value
        .or(keys.median)
        .ok_or("neither a value nor a median")?;
    let others = [keys.minimum, keys.median, keys.p99];
    if others
        .into_iter()
        .flatten()
        .chain([value])
        .any(|it| it < 0.0)
    {
        return Err("a number is negative".to_owned());
    }
    let told = conditions.clone();
    let Value::Object(conditions) = serde_json::to_value(conditions).map_err(said)? else {
        return Err("the conditions are no object".to_owned());
    };
    for (key, value) in conditions {
        match record.get(&key) {
            Some(other) if *other != value => {
                return Err(format!("its {key} is not {value}"));
            }
            _ => record.insert(key, value),
        };
    }
    Ok(Figure {
        operation: keys.operation,
        unit: keys.unit,
        value,
        conditions: told,
        minimum: keys.minimum,
        p99: keys.p99,
        samples: keys.samples,
        record,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Option<Figure>, BenchmarkError> {
        let conditions = Conditions {
            accelerator: "icount".to_owned(),
            command: "scripts/bench micro".to_owned(),
            cores: 2,
            memory: "512M".to_owned(),
            qemu: "7.2".to_owned(),
            revision: "unknown".to_owned(),
            sockets: 1,
        };
        parse(line, "micro", &conditions)
    }

    #[test]
    fn reads_a_figure_and_keeps_all_that_it_says() {
        let line = "result {\"benchmark\":\"micro\",\"operation\":\"copy\",\
                    \"unit\":\"guest instructions\",\"value\":47,\"samples\":1000,\"minimum\":45,\
                    \"median\":46,\"p99\":60,\"core\":0,\"seed\":18446744073709551615}";
        let figure = parsed(line).unwrap().unwrap();
        assert_eq!(figure.operation, "copy");
        assert_eq!(figure.unit, Unit::GuestInstructions);
        assert_eq!((figure.value, figure.minimum), (47.0, Some(45.0)));
        assert_eq!((figure.p99, figure.samples), (Some(60.0), Some(1000)));
        let record = Value::Object(figure.record).to_string();
        for words in [
            "\"seed\":18446744073709551615",
            "\"revision\":\"unknown\"",
            "\"cores\":2",
            "\"median\":46",
        ] {
            assert!(record.contains(words), "{record}");
        }
    }

    #[test]
    fn a_distribution_goes_on() {
        let line = "result {\"benchmark\":\"micro\",\"operation\":\"x\",\"unit\":\"cycles\",\
                    \"median\":2,\"distribution\":[[1,3],[2,4]]}";
        let mut figure = parsed(line).unwrap().unwrap();
        assert!(parse_more("more [[5,1],[7,2]]", Some(&mut figure)).unwrap());
        assert_eq!(
            figure.record["distribution"].to_string(),
            "[[1,3],[2,4],[5,1],[7,2]]"
        );
        assert!(!parse_more("moreover", Some(&mut figure)).unwrap());
        assert!(parse_more("more [[1]]", Some(&mut figure)).is_err());
        assert!(parse_more("more [[1,1]]", None).is_err());
        let line =
            "result {\"benchmark\":\"micro\",\"operation\":\"x\",\"unit\":\"cycles\",\"median\":2}";
        let mut figure = parsed(line).unwrap().unwrap();
        assert!(parse_more("more [[1,1]]", Some(&mut figure)).is_err());
    }

    #[test]
    fn the_median_serves_as_value() {
        let line = "result {\"benchmark\":\"micro\",\"operation\":\"x\",\"unit\":\"cycles\",\"median\":1.5}";
        assert_eq!(parsed(line).unwrap().unwrap().value, 1.5);
    }

    #[test]
    fn other_lines_are_about_something_else() {
        for line in [
            "",
            "hello",
            "result: {}",
            "results {",
            " result {",
            "the result {}",
        ] {
            assert!(parsed(line).unwrap().is_none(), "{line:?}");
        }
    }

    #[test]
    fn refuses_what_it_cannot_trust() {
        let with =
            |rest: &str| format!("result {{\"benchmark\":\"micro\",\"operation\":\"x\",{rest}}}");
        for (line, reason) in [
            ("result ".to_owned(), "EOF"),
            ("result nothing".to_owned(), "expected"),
            (
                "result [\"micro\",\"x\",\"ns\",1]".to_owned(),
                "expected a map",
            ),
            (
                "result {\"benchmark\":\"micro\"}".to_owned(),
                "missing field `operation`",
            ),
            (with("\"unit\":\"ns\",\"value\":1") + "}", "trailing"),
            (with("\"unit\":\"ms\",\"value\":1"), "unknown variant `ms`"),
            (with("\"unit\":\"ns\",\"value\":\"1\""), "invalid type"),
            (
                with("\"unit\":\"ns\",\"value\":1,\"value\":2"),
                "duplicate field",
            ),
            (with("\"unit\":\"ns\",\"value\":1e999"), "out of range"),
            (with("\"unit\":\"ns\",\"value\":-1"), "negative"),
            (with("\"unit\":\"ns\",\"value\":1,\"p99\":-1"), "negative"),
            (
                with("\"unit\":\"ns\",\"minimum\":1"),
                "neither a value nor a median",
            ),
            (
                with("\"unit\":\"ns\",\"value\":1,\"cores\":3"),
                "its cores is not 2",
            ),
            (
                "result {\"benchmark\":\"macro\",\"operation\":\"x\",\"unit\":\"ns\",\"value\":1}"
                    .to_owned(),
                "not \"micro\"",
            ),
        ] {
            let error = parsed(&line).unwrap_err().to_string();
            assert!(
                error.contains(reason) && error.contains("result"),
                "{line}: {error}"
            );
        }
    }

    #[test]
    fn a_line_of_results_reads_as_it_was_written() {
        let line = "result {\"unit\":\"guest instructions\",\"operation\":\"copy\",\
                    \"benchmark\":\"micro\",\"median\":46,\"samples\":3,\"from\":0,\"to\":1,\
                    \"core\":0,\"strategy\":\"tree\",\"distribution\":[[45,1],[46,2]]}";
        let figure = parsed(line).unwrap().unwrap();
        let written = figure.line();
        let first =
            "{\"revision\":\"unknown\",\"benchmark\":\"micro\",\"operation\":\"copy\",\"accel";
        assert!(written.starts_with(first), "{written}");
        let again = from_results(&written).unwrap();
        assert_eq!(again.line(), written);
        assert_eq!(again.name(), "copy, from 0, strategy tree, to 1");
        assert_eq!(again.distribution(), [(45.0, 1), (46.0, 2)]);
        assert_eq!(again.label(), "guest instructions, icount");
        assert!(!again.identity().contains("46") && !again.identity().contains("unknown"));
    }

    #[test]
    fn results_without_conditions_or_with_times_of_plain_emulation_are_refused() {
        let line = "result {\"benchmark\":\"micro\",\"operation\":\"x\",\"unit\":\"guest instructions\",\
                    \"median\":2}";
        let written = parsed(line).unwrap().unwrap().line();
        let error = from_results(&written.replace("icount", "tcg")).unwrap_err();
        assert_eq!(error, "tcg tells no guest instructions");
        let error = from_results(&written.replace("\"accelerator\"", "\"a\"")).unwrap_err();
        assert!(error.contains("missing field `accelerator`"), "{error}");
        assert!(from_results("{").is_err());
    }

    #[test]
    fn no_time_is_told_by_plain_emulation() {
        let times = [Unit::GuestInstructions, Unit::Cycles, Unit::Nanoseconds];
        assert!(times.iter().all(|unit| !Accelerator::Tcg.tells(*unit)));
        assert!(Accelerator::Tcg.tells(Unit::Messages));
        assert!(Accelerator::Icount.tells(Unit::GuestInstructions));
        assert!(!Accelerator::Icount.tells(Unit::Cycles));
        assert!(Accelerator::Kvm.tells(Unit::Cycles));
    }
}
