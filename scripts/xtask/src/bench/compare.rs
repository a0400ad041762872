//! `scripts/bench compare`: what changed between two folders of results, and by how much.

use super::results::{self, Run};
use crate::comparison::number;
use crate::failure::Failure;
use crate::figure::Figure;
use clap::Args;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// Options of `scripts/bench compare`.
#[derive(Args, Clone, Debug)]
pub struct CompareOptions {
    /// Folder with the results.jsonl of before
    #[arg(value_name = "A")]
    pub before: PathBuf,
    /// Folder with the results.jsonl of after
    #[arg(value_name = "B")]
    pub after: PathBuf,
}

/// What changed, for people.
///
/// # Errors
/// A folder that cannot be read.
pub fn compare(options: &CompareOptions) -> Result<String, Failure> {
    let before = results::read(&options.before)?;
    let after = results::read(&options.after)?;
    Ok(changes(&before, &after))
}

/// All figures by what they are of.
fn by_identity(runs: &[Run]) -> BTreeMap<String, &Figure> {
    let figures = runs.iter().flat_map(|run| &run.figures);
    figures.map(|figure| (figure.identity(), figure)).collect()
}

fn changes(before: &[Run], after: &[Run]) -> String {
    let (first, second) = (by_identity(before), by_identity(after));
    let mut text = String::new();
    for (name, runs) in [("before", before), ("after", after)] {
        let _ = writeln!(
            text,
            "{name}: revision {}, QEMU {}, {} figures",
            told(runs, |run| &run.conditions.revision),
            told(runs, |run| &run.conditions.qemu),
            runs.iter().map(|run| run.figures.len()).sum::<usize>()
        );
    }
    let mut rows = Vec::new();
    let (mut equal, mut spread, mut noise) = (0, 0, 0);
    // In the order of measuring.
    for figure in after.iter().flat_map(|run| &run.figures) {
        let Some(old) = first.get(&figure.identity()) else {
            continue;
        };
        match judge(old, figure) {
            Change::None => equal += 1,
            Change::Distribution => {
                spread += 1;
                let what = "other samples, the same median".to_owned();
                rows.push((
                    place(figure),
                    number(Some(old.value)),
                    number(Some(figure.value)),
                    what,
                ));
            }
            Change::Figure { within } => {
                noise += usize::from(within);
                rows.push((
                    place(figure),
                    number(Some(old.value)),
                    number(Some(figure.value)),
                    difference(old.value, figure.value)
                        + if within {
                            ", within the samples of before"
                        } else {
                            ""
                        },
                ));
            }
        }
    }
    let changed = rows.len() - spread;
    columns(&mut text, &rows);
    let missing = |ours: &BTreeMap<String, &Figure>, others: &BTreeMap<String, &Figure>| {
        let all = ours.iter().filter(|(key, _)| !others.contains_key(*key));
        all.map(|(_, figure)| place(figure)).collect::<Vec<_>>()
    };
    for (when, names) in [
        ("before", missing(&first, &second)),
        ("after", missing(&second, &first)),
    ] {
        for name in names {
            let _ = writeln!(text, "only {when}: {name}");
        }
    }
    let _ = write!(text, "{changed} figures changed");
    if noise > 0 {
        let _ = write!(text, " ({noise} within the samples of before)");
    }
    let _ = writeln!(
        text,
        ", {spread} have other samples with the same median, {equal} are the same"
    );
    text
}

/// What there is to say about two figures of the same.
enum Change {
    None,
    /// Other samples, the same figure.
    Distribution,
    /// `within`: measured on a real clock, and no further from before than its samples.
    Figure {
        within: bool,
    },
}

fn judge(old: &Figure, new: &Figure) -> Change {
    let is_exact =
        !new.unit.is_time() && !new.unit.is_rate() || new.conditions.accelerator == "icount";
    if old.value == new.value {
        return match old.found() == new.found() || !is_exact {
            true => Change::None,
            false => Change::Distribution,
        };
    }
    let least = old.minimum.unwrap_or(old.value);
    let most = old.p99.unwrap_or(old.value);
    Change::Figure {
        within: !is_exact && (least..=most).contains(&new.value),
    }
}

/// What a figure is of, and with which label.
pub fn place(figure: &Figure) -> String {
    format!(
        "{}, {} cores: {} ({})",
        figure.benchmark(),
        figure.conditions.cores,
        figure.name(),
        figure.label()
    )
}

/// `+12 (+3.1 %)`.
pub fn difference(old: f64, new: f64) -> String {
    let by = new - old;
    let sign = if by < 0.0 { '-' } else { '+' };
    let mut text = format!("{sign}{}", number(Some(by.abs())));
    if old != 0.0 {
        let percent = by / old * 100.0;
        let _ = write!(text, " ({percent:+.1} %)");
    }
    text
}

fn told(runs: &[Run], what: impl Fn(&Run) -> &String) -> String {
    let mut all: Vec<&str> = runs.iter().map(|run| what(run).as_str()).collect();
    all.sort_unstable();
    all.dedup();
    match all.is_empty() {
        true => "unknown".to_owned(),
        false => all.join(", "),
    }
}

fn columns(text: &mut String, rows: &[(String, String, String, String)]) {
    let width = |of: fn(&(String, String, String, String)) -> &String| {
        rows.iter()
            .map(|row| of(row).chars().count())
            .max()
            .unwrap_or(0)
    };
    let (first, second, third) = (
        width(|row| &row.0),
        width(|row| &row.1),
        width(|row| &row.2),
    );
    for (name, old, new, what) in rows {
        let _ = writeln!(
            text,
            "{name:<first$}  {old:>second$} -> {new:>third$}  {what}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::{Folder, run};

    #[test]
    fn says_what_changed_and_by_how_much() {
        let before = run("icount", &[("a", 100), ("b", 7), ("gone", 1), ("c", 0)]);
        let after = run("icount", &[("a", 103), ("b", 7), ("c", 5), ("new", 2)]);
        let text = changes(&[before], &[after]);
        assert_eq!(
            text,
            "\
before: revision abc, QEMU 7.2.22, 4 figures
after: revision abc, QEMU 7.2.22, 4 figures
micro, 2 cores: a (guest instructions, icount)  100 -> 103  +3 (+3.0 %)
micro, 2 cores: c (guest instructions, icount)    0 ->   5  +5
only before: micro, 2 cores: gone (guest instructions, icount)
only after: micro, 2 cores: new (guest instructions, icount)
2 figures changed, 0 have other samples with the same median, 1 are the same
"
        );
    }

    #[test]
    fn one_sample_that_differs_is_told_under_icount() {
        let before = run("icount", &[("a", 100)]);
        let mut after = run("icount", &[("a", 100)]);
        after.figures[0].record["p99"] = 101.into();
        let text = changes(&[before], &[after]);
        assert!(text.contains("100 -> 100  other samples"), "{text}");
    }

    #[test]
    fn real_clocks_have_noise() {
        let of = |value: f64| {
            let mut run = run("kvm", &[("a", 100)]);
            let figure = &mut run.figures[0];
            figure.unit = crate::figure::Unit::Cycles;
            figure.value = value;
            (figure.minimum, figure.p99) = (Some(90.0), Some(120.0));
            run
        };
        let text = changes(&[of(100.0)], &[of(110.0)]);
        assert!(text.contains("within the samples of before"), "{text}");
        let text = changes(&[of(100.0)], &[of(130.0)]);
        assert!(!text.contains("within"), "{text}");
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let folder = Folder::new("compare");
        results::write(&folder.0, &[run("icount", &[("a", 1)])]).unwrap();
        let options = |after: PathBuf| CompareOptions {
            before: folder.0.clone(),
            after,
        };
        assert!(
            compare(&options(folder.0.clone()))
                .unwrap()
                .contains("0 figures changed")
        );
        let error = compare(&options(folder.0.join("no")))
            .unwrap_err()
            .to_string();
        assert!(error.contains("no/results.jsonl: "), "{error}");
    }
}
