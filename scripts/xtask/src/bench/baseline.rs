//! `scripts/bench baseline`: holds the figures of the main operations against those that were
//! written down, and writes them down anew.
//!
//! The file is JSON lines: first the change that is allowed, then a line for each figure, with its
//! median and all that says what was measured.

use super::catalogue;
use super::compare::{difference, place};
use super::results::{Run, replace};
use super::{Laboratory, Measuring};
use crate::comparison::number;
use crate::failure::{BenchmarkError, Failure};
use crate::figure::Figure;
use crate::project::Project;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where it lies in the sources.
const FILE: &str = "scripts/xtask/baseline/icount.jsonl";
/// What is held against it: benchmark and number of cores, one boot each, quick.
const BOOTS: [(&str, u32); 1] = [("micro", 2)];
/// The key of the figure in the file.
const MEDIAN: &str = "median";

/// Options of `scripts/bench baseline`.
#[derive(Args, Clone, Debug)]
pub struct BaselineOptions {
    /// Writes the figures down: for a change that is intended
    #[arg(long)]
    pub update: bool,
    /// Another QEMU than the installed one
    #[arg(long, hide = true, value_name = "PATH")]
    pub qemu: Option<PathBuf>,
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Allowed {
    /// Change in either direction, in hundredths of the figure,
    allowed_percent: f64,
    /// and in units, where that is more.
    allowed_least: f64,
}

/// What is written down.
#[derive(Debug)]
struct Baseline {
    allowed: Allowed,
    /// By what they are of, as JSON.
    medians: BTreeMap<String, f64>,
}

/// Measures, and compares or writes down; says what came of it.
///
/// # Errors
/// Figures that are others; a benchmark that fails; a file that cannot be read or written.
pub fn baseline(options: &BaselineOptions, project: &Project) -> Result<String, Failure> {
    let path = project.root.join(FILE);
    // Before anything is booted.
    let known = match options.update {
        true => None,
        false => Some(read(&path)?),
    };
    let measuring = Measuring {
        quick: true,
        qemu: options.qemu.clone(),
        ..Measuring::defaults()
    };
    let laboratory = Laboratory::open(&measuring, project)?;
    let mut runs = Vec::new();
    for (name, cores) in BOOTS {
        if let Some(benchmark) = catalogue::find(name) {
            runs.push(laboratory.measure(benchmark, cores, &format!("{name} on {cores} cores"))?);
        }
    }
    let figures: Vec<&Figure> = runs.iter().flat_map(medians).collect();
    let Some(known) = known else {
        let allowed = read(&path).map_or(ALLOWED, |known| known.allowed);
        let text = written(&allowed, &figures);
        let folder = path.parent().unwrap_or(&path);
        fs::create_dir_all(folder)
            .and_then(|()| replace(&path, &text))
            .map_err(Failure::host(format!("cannot write {}", path.display())))?;
        return Ok(format!("{} figures: {}\n", figures.len(), path.display()));
    };
    known.judge(&figures)?;
    Ok(format!(
        "{} figures are those of the baseline, to {} %\n",
        figures.len(),
        known.allowed.allowed_percent
    ))
}

/// What is allowed in a file that is new.
const ALLOWED: Allowed = Allowed {
    allowed_percent: 3.0,
    allowed_least: 2.0,
};

/// The figures of a run that a baseline holds.
fn medians(run: &Run) -> impl Iterator<Item = &Figure> {
    let has_median = |figure: &&Figure| figure.unit.is_time() && figure.record.contains_key(MEDIAN);
    run.figures.iter().filter(has_median)
}

fn written(allowed: &Allowed, figures: &[&Figure]) -> String {
    let mut text = format!("{}\n", serde_json::json!(allowed));
    for figure in figures {
        let identity = figure.identity();
        let rest = identity.trim_end_matches('}');
        text.push_str(&format!(
            "{rest},\"{MEDIAN}\":{}}}\n",
            figure.record[MEDIAN]
        ));
    }
    text
}

fn read(path: &Path) -> Result<Baseline, BenchmarkError> {
    let wrong = |reason: String| BenchmarkError::BaselineFile {
        path: path.to_path_buf(),
        reason,
    };
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    parse(&text).map_err(wrong)
}

fn parse(text: &str) -> Result<Baseline, String> {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let allowed = serde_json::from_str(first).map_err(|error| format!("line 1: {error}"))?;
    let mut medians = BTreeMap::new();
    for (index, line) in lines.enumerate() {
        let wrong = |reason: &str| format!("line {}: {reason}", index + 2);
        let mut identity: Map<String, Value> =
            serde_json::from_str(line).map_err(|error| wrong(&error.to_string()))?;
        let median = identity.remove(MEDIAN).and_then(|median| median.as_f64());
        let median = median.ok_or_else(|| wrong("no median"))?;
        medians.insert(Value::Object(identity).to_string(), median);
    }
    Ok(Baseline { allowed, medians })
}

impl Baseline {
    /// All figures have to be there, and none besides, each near the one written down.
    fn judge(&self, figures: &[&Figure]) -> Result<(), BenchmarkError> {
        let mut left = self.medians.clone();
        let mut changes = Vec::new();
        for figure in figures {
            let found = figure.record[MEDIAN].as_f64().unwrap_or(figure.value);
            let Some(expected) = left.remove(&figure.identity()) else {
                let found = number(Some(found));
                changes.push(format!(
                    "{}: {found}, and none is written down",
                    place(figure)
                ));
                continue;
            };
            let allowed = &self.allowed;
            let most = (expected * allowed.allowed_percent / 100.0).max(allowed.allowed_least);
            if (found - expected).abs() > most {
                changes.push(format!(
                    "{}: from {} to {}, {}",
                    place(figure),
                    number(Some(expected)),
                    number(Some(found)),
                    difference(expected, found)
                ));
            }
        }
        changes.extend(left.iter().map(|(what, expected)| {
            format!(
                "none, where {} is written down for {what}",
                number(Some(*expected))
            )
        }));
        if changes.is_empty() {
            return Ok(());
        }
        Err(BenchmarkError::Baseline {
            allowed_percent: self.allowed.allowed_percent,
            least: self.allowed.allowed_least,
            changes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::run;

    fn judged(before: &Run, after: &Run) -> Result<(), String> {
        let text = written(&ALLOWED, &medians(before).collect::<Vec<_>>());
        let known = parse(&text).unwrap();
        known
            .judge(&medians(after).collect::<Vec<_>>())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn small_changes_are_allowed_and_others_named() {
        let before = run("icount", &[("a", 1000), ("b", 10)]);
        assert_eq!(judged(&before, &before), Ok(()));
        assert_eq!(
            judged(&before, &run("icount", &[("a", 1030), ("b", 8)])),
            Ok(())
        );
        for (a, b, words) in [
            (
                1031,
                10,
                "micro, 2 cores: a (guest instructions, icount): from 1,000 to 1,031, +31 (+3.1 %)",
            ),
            (969, 10, "from 1,000 to 969, -31 (-3.1 %)"),
            (1000, 13, "from 10 to 13, +3 (+30.0 %)"),
        ] {
            let error = judged(&before, &run("icount", &[("a", a), ("b", b)])).unwrap_err();
            assert!(error.contains(words), "{error}");
            assert!(error.contains("scripts/bench baseline --update"), "{error}");
            assert_eq!(error.lines().count(), 3, "{error}");
        }
    }

    #[test]
    fn figures_that_are_gone_or_new_are_changes() {
        let (one, two) = (
            run("icount", &[("a", 9)]),
            run("icount", &[("a", 9), ("b", 7)]),
        );
        let error = judged(&one, &two).unwrap_err();
        assert!(
            error.contains(": b (guest instructions, icount): 7, and none"),
            "{error}"
        );
        let error = judged(&two, &one).unwrap_err();
        assert!(
            error.contains("none, where 7 is written down for"),
            "{error}"
        );
    }

    #[test]
    fn the_baseline_of_the_sources_can_be_read() {
        let known = read(&Project::here().root.join(FILE)).unwrap();
        assert!(!known.medians.is_empty());
        assert!(known.allowed.allowed_percent > 0.0);
        let error = parse("{\"allowed_percent\":3,\"allowed_least\":2}\n{\"a\":1}").unwrap_err();
        assert_eq!(error, "line 2: no median");
    }
}
