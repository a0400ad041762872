//! Figures beside what is expected of them, as a table for people.

use crate::bench::Run;
use crate::bench::catalogue::{self, BARRELFISH, Operation, TARGET_UNIT};
use crate::figure::{Figure, Unit};
use crate::page::distinct;
use serde_json::Value;
use std::fmt::Write;

/// Columns of the table; the first two are text.
const HEAD: [&str; 6] = ["operation", "unit", "figure", "target", "met", "Barrelfish"];

impl Run {
    /// What is expected of a figure, where it is told in the unit of that.
    pub fn expected(&self, figure: &Figure) -> Option<&'static Operation> {
        let comparable = figure.unit.to_string() == TARGET_UNIT;
        let benchmark = catalogue::find(&self.name).filter(|_| comparable)?;
        benchmark.operation(&figure.operation)
    }

    /// Whether a figure meets its target; `None` where it has none.
    pub fn met(&self, figure: &Figure) -> Option<bool> {
        let operation = self.expected(figure)?;
        Some(figure.value <= f64::from(operation.target))
    }

    /// Whether any figure is compared with [`BARRELFISH`].
    pub fn compares(&self) -> bool {
        self.figures
            .iter()
            .filter_map(|figure| self.expected(figure))
            .any(|operation| operation.barrelfish.is_some())
    }
}

/// The table of a run, with all that has to be known to read it.
pub fn table(run: &Run) -> String {
    let conditions = &run.conditions;
    let mut text = format!(
        "{}: cores {}, memory {}, {} (QEMU {}), revision {}\n",
        run.name,
        conditions.cores,
        conditions.memory,
        conditions.accelerator,
        conditions.qemu,
        conditions.revision
    );
    if run.left_out > 0 {
        let _ = writeln!(
            text,
            "{} figures left out: {} says nothing about their units",
            run.left_out, conditions.accelerator
        );
    }
    if run.figures.is_empty() {
        let _ = writeln!(
            text,
            "no figures: {} measures none that {} tells; --accel icount tells instructions, --coherence cache lines",
            run.name, conditions.accelerator
        );
    } else {
        write_rows(&mut text, run);
    }
    if run.compares() {
        let _ = writeln!(text, "Barrelfish: {BARRELFISH}");
    }
    for estimate in estimates(run.figures.iter()) {
        let _ = writeln!(text, "{estimate}");
    }
    let missed: Vec<String> = run
        .figures
        .iter()
        .filter(|figure| run.met(figure) == Some(false))
        .map(Figure::name)
        .collect();
    if !missed.is_empty() {
        let _ = writeln!(text, "targets missed: {}", missed.join(", "));
    }
    let _ = writeln!(text, "repeat: {}", conditions.command);
    text
}

/// What there is to know of the estimates among these figures, a line for each machine.
pub fn estimates<'a>(figures: impl Iterator<Item = &'a Figure>) -> Vec<String> {
    let text = |figure: &'a Figure, key| figure.record.get(key).and_then(Value::as_str);
    let machine = |figure| Some((text(figure, "machine")?, text(figure, "source")?));
    let of = figures.filter(|figure| figure.unit == Unit::Estimate);
    distinct(of.filter_map(machine))
        .into_iter()
        .map(|(machine, source)| {
            format!(
                "estimate, machine {machine}: what the cache lines alone would take there, one after the other, and a floor where cores contend, since emulation runs them by turns; costs: {source}"
            )
        })
        .collect()
}

fn write_rows(text: &mut String, run: &Run) {
    let mut rows = vec![HEAD.map(str::to_owned)];
    for figure in &run.figures {
        let expected = run.expected(figure);
        rows.push([
            figure.name(),
            figure.label(),
            number(Some(figure.value)),
            number(expected.map(|operation| operation.target.into())),
            verdict(run.met(figure)).to_owned(),
            number(expected.and_then(|operation| operation.barrelfish.map(f64::from))),
        ]);
    }
    let widths: [usize; HEAD.len()] = std::array::from_fn(|column| {
        let lengths = rows.iter().map(|row| row[column].chars().count());
        lengths.max().unwrap_or(0)
    });
    for row in rows {
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let _ = match column {
                0 => write!(text, "{cell:<width$}"),
                1 => write!(text, "  {cell:<width$}"),
                _ => write!(text, "  {cell:>width$}"),
            };
        }
        text.push('\n');
    }
}

/// Whether a target is met, in a word.
pub fn verdict(met: Option<bool>) -> &'static str {
    match met {
        None => "-",
        Some(true) => "yes",
        Some(false) => "NO",
    }
}

/// `145,452`, `1.25`, and `-` for none.
pub fn number(value: Option<f64>) -> String {
    let Some(value) = value else {
        return "-".to_owned();
    };
    let text = match value.fract() {
        0.0 => format!("{value:.0}"),
        _ => format!("{value:.2}"),
    };
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.char_indices() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::run;

    #[test]
    fn figures_stand_beside_their_targets_with_their_label() {
        let table = table(&run(
            "icount",
            &[("null system call", 47), ("LRPC one way", 1151), ("own", 7)],
        ));
        assert_eq!(
            table,
            "\
micro: cores 2, memory 512M, icount (QEMU 7.2.22), revision abc
operation         unit                        figure  target  met  Barrelfish
null system call  guest instructions, icount      47      50  yes         113
LRPC one way      guest instructions, icount   1,151     150   NO         926
own               guest instructions, icount       7       -    -           -
Barrelfish: Barrelfish 2020, same QEMU and method
targets missed: LRPC one way
repeat: scripts/bench micro --cores 2 --accel icount
"
        );
    }

    #[test]
    fn targets_are_for_one_unit_and_inclusive() {
        let mut run = run("icount", &[("null system call", 50), ("LRPC one way", 151)]);
        assert_eq!(run.met(&run.figures[0]), Some(true));
        assert_eq!(run.met(&run.figures[1]), Some(false));
        run.figures[0].unit = Unit::Cycles;
        assert_eq!(run.met(&run.figures[0]), None);
    }

    #[test]
    fn says_why_there_are_no_figures() {
        let mut run = run("tcg", &[]);
        run.left_out = 3;
        let table = table(&run);
        assert!(table.contains("3 figures left out: tcg"), "{table}");
        assert!(table.contains("no figures: micro measures none"), "{table}");
        assert!(!table.contains("Barrelfish"), "{table}");
    }

    #[test]
    fn numbers_are_grouped() {
        for (value, text) in [
            (0.0, "0"),
            (999.0, "999"),
            (1000.0, "1,000"),
            (145_452.0, "145,452"),
            (1_234_567.5, "1,234,567.50"),
        ] {
            assert_eq!(number(Some(value)), text);
        }
        assert_eq!(number(None), "-");
    }
}
