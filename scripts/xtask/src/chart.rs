//! Figures as one HTML file that opens without a network: a chart for each unit of a run, and
//! all numbers in a table.

use crate::bench::{BARRELFISH, Run};
use crate::comparison::{number, verdict};
use crate::figure::{Figure, Unit};
use std::fmt::Write;

/// Lengths in the chart, in pixels: the names to the left, the scale, the numbers to the right,
/// a row, and the room above the rows.
const NAMES: f64 = 250.0;
const SCALE: f64 = 490.0;
const NUMBERS: f64 = 310.0;
const ROW: f64 = 26.0;
const HEAD: f64 = 48.0;

const BEGIN: &str = r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Atoll: benchmarks</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1060px; padding: 0 1em; color: #222; background: #fff; }
svg { width: 100%; height: auto; }
svg text { font: 13px system-ui, sans-serif; fill: #222; }
svg .small { font-size: 11px; fill: #666; }
svg .line { stroke: #ddd; }
svg .span { stroke: #bbb; stroke-width: 2; }
svg .figure { fill: #0072b2; }
svg .target { stroke: #222; stroke-width: 2; }
svg .other { fill: #fff; stroke: #d55e00; stroke-width: 2; }
table { border-collapse: collapse; margin: 1em 0; font-size: 13px; white-space: nowrap; }
th, td { padding: .25em .8em; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left; }
.missed { color: #b00; font-weight: bold; }
dt { float: left; clear: left; width: 7em; color: #666; }
dd { margin: 0 0 0 7em; }
</style>
</head>
<body>
<h1>Atoll: benchmarks</h1>
"#;

/// The whole page.
pub fn page(runs: &[Run]) -> String {
    let mut page = BEGIN.to_owned();
    for run in runs {
        section(&mut page, run);
    }
    page.push_str("</body>\n</html>\n");
    page
}

fn section(page: &mut String, run: &Run) {
    let conditions = &run.conditions;
    let _ = writeln!(page, "<h2>{}</h2>\n<dl>", escaped(run.benchmark.name));
    let compared = ("compared", BARRELFISH.to_owned());
    let rows = [
        (
            "machine",
            format!(
                "cores {}, sockets {}, memory {}",
                conditions.cores, conditions.sockets, conditions.memory
            ),
        ),
        (
            "obtained by",
            format!("{} (QEMU {})", conditions.accelerator, conditions.qemu),
        ),
        ("revision", conditions.revision.clone()),
        ("repeat", conditions.command.clone()),
    ];
    for (name, value) in rows.into_iter().chain(run.compares().then_some(compared)) {
        let _ = writeln!(page, "<dt>{name}</dt><dd>{}</dd>", escaped(&value));
    }
    page.push_str("</dl>\n");
    let mut units: Vec<Unit> = Vec::new();
    for figure in &run.figures {
        if !units.contains(&figure.unit) {
            units.push(figure.unit);
        }
    }
    for unit in units {
        let figures: Vec<&Figure> = run
            .figures
            .iter()
            .filter(|figure| figure.unit == unit)
            .collect();
        chart(page, run, &figures);
    }
    if run.figures.is_empty() {
        page.push_str("<p>No figures: the accelerator tells none of its units.</p>\n");
    } else {
        table(page, run);
    }
}

/// A row a figure on a logarithmic scale: dot, target, and the other system.
fn chart(page: &mut String, run: &Run, figures: &[&Figure]) {
    let expected = |figure: &Figure| {
        let operation = run.expected(figure);
        let target = operation.map(|operation| f64::from(operation.target));
        (
            target,
            operation.and_then(|operation| operation.barrelfish.map(f64::from)),
        )
    };
    let most = figures
        .iter()
        .flat_map(|figure| [Some(figure.value), expected(figure).0, expected(figure).1])
        .flatten()
        .fold(10.0, f64::max);
    let decades = most.log10().ceil();
    // A logarithm knows no 0: what is below 1 stands at the left end.
    let x = |value: f64| NAMES + value.max(1.0).log10() / decades * SCALE;
    let bottom = HEAD + ROW * figures.len() as f64;
    let _ = writeln!(
        page,
        "<svg viewBox=\"0 0 {} {}\" role=\"img\">\n<title>{}</title>",
        NAMES + SCALE + NUMBERS,
        bottom + 8.0,
        escaped(&format!(
            "{}, {}",
            run.benchmark.name,
            run.label(figures[0])
        ))
    );
    legend(page, &run.label(figures[0]));
    for decade in 0..=decades as i32 {
        let value = 10f64.powi(decade);
        let at = x(value);
        let _ = writeln!(
            page,
            "<line class=\"line\" x1=\"{at:.1}\" y1=\"{HEAD}\" x2=\"{at:.1}\" y2=\"{bottom}\"/>\
             <text class=\"small\" x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            HEAD - 6.0,
            number(Some(value))
        );
    }
    for (row, figure) in figures.iter().enumerate() {
        let y = HEAD + ROW * (row as f64 + 0.5);
        let (target, other) = expected(figure);
        let mut numbers = number(Some(figure.value));
        let _ = write!(
            page,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            NAMES - 12.0,
            y + 4.5,
            escaped(&figure.operation)
        );
        let at = x(figure.value);
        if let Some(other) = other {
            let far = x(other);
            let _ = write!(
                page,
                "<line class=\"span\" x1=\"{at:.1}\" y1=\"{y:.1}\" x2=\"{far:.1}\" y2=\"{y:.1}\"/>\
                 <circle class=\"other\" cx=\"{far:.1}\" cy=\"{y:.1}\" r=\"5\"/>"
            );
        }
        if let Some(target) = target {
            let at = x(target);
            let _ = write!(
                page,
                "<line class=\"target\" x1=\"{at:.1}\" y1=\"{:.1}\" x2=\"{at:.1}\" y2=\"{:.1}\"/>",
                y - 9.0,
                y + 9.0
            );
            let _ = write!(numbers, " (target {}", number(Some(target)));
            if let Some(other) = other {
                let _ = write!(numbers, ", Barrelfish {}", number(Some(other)));
            }
            numbers.push(')');
        }
        let _ = writeln!(
            page,
            "<circle class=\"figure\" cx=\"{at:.1}\" cy=\"{y:.1}\" r=\"6\"/>\
             <text x=\"{}\" y=\"{:.1}\">{numbers}</text>",
            NAMES + SCALE + 16.0,
            y + 4.5
        );
    }
    page.push_str("</svg>\n");
}

/// What the marks mean, and what the scale is.
fn legend(page: &mut String, label: &str) {
    let _ = writeln!(
        page,
        "<text x=\"{NAMES}\" y=\"16\">{}; logarithmic, less is better</text>\
         <circle class=\"figure\" cx=\"{}\" cy=\"12\" r=\"6\"/><text x=\"{}\" y=\"16\">Atoll</text>\
         <line class=\"target\" x1=\"{}\" y1=\"3\" x2=\"{}\" y2=\"21\"/><text x=\"{}\" y=\"16\">target</text>\
         <circle class=\"other\" cx=\"{}\" cy=\"12\" r=\"5\"/><text x=\"{}\" y=\"16\">Barrelfish</text>",
        escaped(label),
        NAMES + SCALE + 22.0,
        NAMES + SCALE + 34.0,
        NAMES + SCALE + 86.0,
        NAMES + SCALE + 86.0,
        NAMES + SCALE + 94.0,
        NAMES + SCALE + 152.0,
        NAMES + SCALE + 164.0
    );
}

fn table(page: &mut String, run: &Run) {
    page.push_str(
        "<table>\n<tr><th>operation</th><th>unit</th><th>figure</th><th>minimum</th><th>p99</th>\
         <th>samples</th><th>target</th><th>met</th><th>Barrelfish</th></tr>\n",
    );
    for figure in &run.figures {
        let operation = run.expected(figure);
        let met = run.met(figure);
        let class = if met == Some(false) {
            " class=\"missed\""
        } else {
            ""
        };
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td{class}>{}</td><td>{}</td></tr>",
            escaped(&figure.operation),
            escaped(&run.label(figure)),
            number(Some(figure.value)),
            number(figure.minimum),
            number(figure.p99),
            number(figure.samples.map(|count| count as f64)),
            number(operation.map(|operation| operation.target.into())),
            verdict(met),
            number(operation.and_then(|operation| operation.barrelfish.map(f64::from))),
        );
    }
    page.push_str("</table>\n");
}

/// As HTML wants to have it.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::tests::run;

    #[test]
    fn the_page_stands_alone_and_shows_every_figure() {
        let run = run(
            "icount",
            &[
                ("null system call", 47),
                ("copy+delete", 1600),
                ("a < b & \"c\"", 0),
            ],
        );
        let page = page(&[run]);
        assert!(!page.contains("http") && !page.contains("src="), "{page}");
        for words in [
            "47 (target 50, Barrelfish 113)",
            "1,600 (target 1,500, Barrelfish 17,766)",
            "<td class=\"missed\">NO</td>",
            "guest instructions, icount",
            BARRELFISH,
            "a &lt; b &amp; &quot;c&quot;",
        ] {
            assert!(page.contains(words), "{words}: {page}");
        }
        assert_eq!(page.matches("class=\"figure\"").count(), 3 + 1);
        assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
    }

    #[test]
    fn a_page_without_figures_says_so() {
        let page = page(&[run("tcg", &[])]);
        assert!(page.contains("No figures") && !page.contains("<svg"));
    }
}
