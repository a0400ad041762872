//! What the simulator found, as one HTML file that opens without a network: for each operation its
//! time and its messages against the number of cores, and all numbers in a table.

use crate::chart::escaped;
use crate::comparison::number;
use crate::sim::{Found, Line};
use std::fmt::Write;

/// Lengths in a chart, in pixels: its plot, and the room to the left of it, above and below.
const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 78.0;
const HEAD: f64 = 30.0;
const FOOT: f64 = 44.0;
const RIGHT: f64 = 20.0;
/// A row of the legend.
const ROW: f64 = 18.0;

/// Colours that people tell apart however they see them (Okabe and Ito).
const COLOURS: [&str; 9] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#b8a800",
    "#888888",
];

const BEGIN: &str = r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Atoll: simulated monitors</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1060px; padding: 0 1em; color: #222; background: #fff; }
.pair { display: flex; gap: 1em; }
.pair svg { width: 50%; height: auto; }
svg text { font: 13px system-ui, sans-serif; fill: #222; }
svg .small { font-size: 11px; fill: #666; }
svg .grid { stroke: #ddd; }
svg .axis { stroke: #888; fill: none; }
svg polyline { fill: none; stroke-width: 2; }
table { border-collapse: collapse; margin: 1em 0; font-size: 13px; white-space: nowrap; }
th, td { padding: .25em .8em; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left; }
.wrong { color: #b00; font-weight: bold; }
details { margin: 0 0 1.5em; }
dt { float: left; clear: left; width: 7em; color: #666; }
dd { margin: 0 0 0 7em; }
</style>
</head>
<body>
<h1>Atoll: simulated monitors</h1>
"#;

/// A strategy's values by number of cores.
struct Series<'lines> {
    strategy: &'lines str,
    points: Vec<(usize, u64)>,
}

/// The whole page.
pub fn page(lines: &[Line]) -> String {
    let mut page = BEGIN.to_owned();
    if let Some(line) = lines.first() {
        let conditions = &line.conditions;
        for (name, value) in [
            (
                "obtained by",
                "sim: no machine ran this; times follow from the machine's file".to_owned(),
            ),
            ("revision", conditions.revision.clone()),
            ("seed", conditions.seed.to_string()),
            (
                "repeat",
                format!(
                    "the command in each line of results.jsonl, such as: {}",
                    conditions.command
                ),
            ),
        ] {
            let _ = writeln!(page, "<dt>{name}</dt><dd>{}</dd>", escaped(&value));
        }
    } else {
        page.push_str("<p>No results.</p>\n");
    }
    for machine in distinct(lines.iter().map(|line| line.conditions.machine.as_str())) {
        let lines: Vec<&Line> = lines
            .iter()
            .filter(|line| line.conditions.machine == machine)
            .collect();
        let _ = writeln!(page, "<h2>{}</h2>", escaped(machine));
        runs(&mut page, &lines);
        for protocol in distinct(lines.iter().map(|line| line.conditions.benchmark)) {
            let lines = lines
                .iter()
                .copied()
                .filter(|line| line.conditions.benchmark == protocol);
            figures(&mut page, protocol, &lines.collect::<Vec<_>>());
        }
    }
    page.push_str("</body>\n</html>\n");
    page
}

/// Each once, in the order of its first coming.
fn distinct<'text>(all: impl Iterator<Item = &'text str>) -> Vec<&'text str> {
    let mut once = Vec::new();
    for one in all {
        if !once.contains(&one) {
            once.push(one);
        }
    }
    once
}

/// The operations of a protocol.
fn figures(page: &mut String, protocol: &str, lines: &[&Line]) {
    let operation = |line: &&Line| match &line.result {
        Found::Figure { operation, .. } => Some(*operation),
        Found::Runs { .. } => None,
    };
    for wanted in distinct(lines.iter().filter_map(operation)) {
        let name = escaped(&format!("{protocol}: {wanted}"));
        let _ = writeln!(page, "<h3>{name}</h3>\n<div class=\"pair\">");
        let of = |wanted_unit: &str| series(lines, wanted, wanted_unit);
        let (times, messages) = (of("ns"), of("messages"));
        let rows = times.len().max(messages.len());
        chart(page, "time, ns, sim", &name, &times, rows);
        chart(page, "messages, sim", &name, &messages, rows);
        page.push_str("</div>\n");
        table(page, &times, &messages);
    }
}

fn series<'lines>(lines: &[&'lines Line], wanted: &str, wanted_unit: &str) -> Vec<Series<'lines>> {
    let mut all: Vec<Series<'lines>> = Vec::new();
    for line in lines {
        let Found::Figure {
            operation,
            strategy,
            unit,
            value,
            ..
        } = &line.result
        else {
            continue;
        };
        if *operation != wanted || *unit != wanted_unit {
            continue;
        }
        let point = (line.conditions.cores, *value);
        match all.iter_mut().find(|one| one.strategy == strategy) {
            Some(one) => one.points.push(point),
            None => all.push(Series {
                strategy,
                points: vec![point],
            }),
        }
    }
    all
}

/// Lines over the number of cores, both axes logarithmic.
fn chart<'lines>(page: &mut String, label: &str, name: &str, all: &[Series<'lines>], rows: usize) {
    // A logarithm knows no 0: those stand in the table alone.
    let shown = |one: &Series<'lines>| Series {
        strategy: one.strategy,
        points: one
            .points
            .iter()
            .copied()
            .filter(|point| point.1 > 0)
            .collect(),
    };
    let all: Vec<Series<'_>> = all.iter().map(shown).collect();
    let points = || all.iter().flat_map(|one| &one.points);
    let Some(most_cores) = points().map(|point| point.0).max() else {
        return;
    };
    let fewest_cores = points().map(|point| point.0).min().unwrap_or(1) as f64;
    let octaves = (most_cores as f64 / fewest_cores).log2().max(1.0);
    let log = |value: u64| (value as f64).log10();
    let lowest = points()
        .map(|point| log(point.1))
        .fold(f64::MAX, f64::min)
        .floor();
    let highest = points()
        .map(|point| log(point.1))
        .fold(0.0, f64::max)
        .ceil();
    let decades = (highest - lowest).max(1.0);
    let bottom = HEAD + HEIGHT;
    let x = |cores: f64| LEFT + (cores / fewest_cores).log2() / octaves * WIDTH;
    let y = |value: f64| bottom - (value - lowest) / decades * HEIGHT;
    let _ = writeln!(
        page,
        "<svg viewBox=\"0 0 {} {}\" role=\"img\">\n<title>{name}: {label}</title>\n\
         <text x=\"{LEFT}\" y=\"18\">{label}; logarithmic, less is better</text>",
        LEFT + WIDTH + RIGHT,
        bottom + FOOT + ROW * rows as f64
    );
    for decade in 0..=decades as i32 {
        let value = lowest + f64::from(decade);
        let at = y(value);
        let _ = writeln!(
            page,
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{}\" y2=\"{at:.1}\"/>\
             <text class=\"small\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT + WIDTH,
            LEFT - 6.0,
            at + 4.0,
            number(Some(10f64.powf(value)))
        );
    }
    // As many marks as can be read.
    let mut marks: Vec<usize> = points().map(|point| point.0).collect();
    marks.sort_unstable();
    marks.dedup();
    let mut free = 0.0;
    for cores in marks {
        let at = x(cores as f64);
        if at < free {
            continue;
        }
        free = at + 30.0;
        let _ = writeln!(
            page,
            "<line class=\"axis\" x1=\"{at:.1}\" y1=\"{bottom}\" x2=\"{at:.1}\" y2=\"{}\"/>\
             <text class=\"small\" x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{cores}</text>",
            bottom + 4.0,
            bottom + 16.0
        );
    }
    let _ = writeln!(
        page,
        "<polyline class=\"axis\" points=\"{LEFT},{HEAD} {LEFT},{bottom} {},{bottom}\"/>\
         <text class=\"small\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">cores</text>",
        LEFT + WIDTH,
        LEFT + WIDTH / 2.0,
        bottom + 32.0
    );
    for (row, (names, colour, one)) in merged(&all).into_iter().enumerate() {
        let mut path = String::new();
        let mut dots = String::new();
        for (cores, value) in &one.points {
            let (x, y) = (x(*cores as f64), y(log(*value)));
            let _ = write!(path, "{x:.1},{y:.1} ");
            let _ = write!(
                dots,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
            );
        }
        let at = bottom + FOOT + ROW * (row as f64 + 0.5);
        let _ = writeln!(
            page,
            "<polyline stroke=\"{colour}\" points=\"{}\"/>{dots}\
             <line x1=\"{LEFT}\" y1=\"{:.1}\" x2=\"{}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-width=\"3\"/>\
             <text x=\"{}\" y=\"{at:.1}\">{}</text>",
            path.trim_end(),
            at - 4.5,
            LEFT + 20.0,
            at - 4.5,
            LEFT + 28.0,
            escaped(&names)
        );
    }
    page.push_str("</svg>\n");
}

/// Strategies, each with its colour; those with the same values as one.
fn merged<'all>(all: &'all [Series<'all>]) -> Vec<(String, &'static str, &'all Series<'all>)> {
    let mut lines: Vec<(String, &'static str, &Series<'_>)> = Vec::new();
    for (index, one) in all.iter().enumerate() {
        match lines
            .iter_mut()
            .find(|(_, _, other)| other.points == one.points)
        {
            Some((names, _, _)) => {
                let _ = write!(names, ", {}", one.strategy);
            }
            None => lines.push((one.strategy.to_owned(), COLOURS[index % COLOURS.len()], one)),
        }
    }
    lines
}

/// All values: a row for each number of cores.
fn table(page: &mut String, times: &[Series<'_>], messages: &[Series<'_>]) {
    page.push_str("<details><summary>numbers</summary>\n<table>\n<tr><th>cores</th>");
    let columns: Vec<(&Series<'_>, &str)> = times
        .iter()
        .map(|one| (one, "ns"))
        .chain(messages.iter().map(|one| (one, "messages")))
        .collect();
    for (one, unit) in &columns {
        let _ = write!(page, "<th>{}, {unit}</th>", escaped(one.strategy));
    }
    page.push_str("</tr>\n");
    let mut all: Vec<usize> = columns
        .iter()
        .flat_map(|(one, _)| one.points.iter().map(|point| point.0))
        .collect();
    all.sort_unstable();
    all.dedup();
    for cores in all {
        let _ = write!(page, "<tr><td>{cores}</td>");
        for (one, _) in &columns {
            let point = one.points.iter().find(|point| point.0 == cores);
            let value = point.map(|point| point.1 as f64);
            let _ = write!(page, "<td>{}</td>", number(value));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n</details>\n");
}

/// How runs with faults ended.
fn runs(page: &mut String, lines: &[&Line]) {
    let is_run = |line: &&&Line| matches!(line.result, Found::Runs { .. });
    if lines.iter().filter(is_run).count() == 0 {
        return;
    }
    page.push_str(
        "<table>\n<tr><th>protocol</th><th>faults</th><th>cores</th><th>runs</th><th>survived</th>\
         <th>aborted</th><th>violated</th><th>trace</th></tr>\n",
    );
    for line in lines {
        let Found::Runs {
            faults,
            value,
            survived,
            aborted,
            violated,
            trace,
            ..
        } = &line.result
        else {
            continue;
        };
        let class = if *violated > 0 {
            " class=\"wrong\""
        } else {
            ""
        };
        let count = |count: &u64| number(Some(*count as f64));
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td{class}>{}</td><td>{trace}</td></tr>",
            line.conditions.benchmark,
            escaped(faults),
            line.conditions.cores,
            count(value),
            count(survived),
            count(aborted),
            count(violated),
        );
    }
    page.push_str("</table>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Conditions;

    fn line(cores: usize, result: Found) -> Line {
        Line {
            conditions: Conditions {
                accelerator: "sim",
                command: "scripts/sim --machine 'a<b'".into(),
                cores,
                machine: "a<b".into(),
                benchmark: "broadcast",
                revision: "abc".into(),
                seed: 7,
            },
            result,
        }
    }

    fn figure(cores: usize, strategy: &str, unit: &'static str, value: u64) -> Line {
        let result = Found::Figure {
            operation: "to all",
            strategy: strategy.into(),
            unit,
            value,
            samples: 1,
        };
        line(cores, result)
    }

    #[test]
    fn the_page_stands_alone_and_shows_every_figure() {
        let mut lines = Vec::new();
        for cores in [2, 1024, 4096] {
            for strategy in ["unicast", "tree & <more>"] {
                lines.push(figure(
                    cores,
                    strategy,
                    "ns",
                    (cores * strategy.len()) as u64,
                ));
                lines.push(figure(cores, strategy, "messages", 2 * cores as u64));
            }
        }
        lines.push(figure(2, "none", "messages", 0));
        lines.push(line(
            3,
            Found::Runs {
                operation: "faults",
                unit: "runs",
                faults: "random:9".into(),
                value: 9,
                survived: 6,
                aborted: 2,
                violated: 1,
                trace: "00ff".into(),
            },
        ));
        let page = page(&lines);
        for words in [
            "a&lt;b",
            "tree &amp; &lt;more&gt;",
            "unicast, tree &amp; &lt;more&gt;</text>",
            "<td class=\"wrong\">1</td><td>00ff</td>",
            "<td>53,248</td>",
            "time, ns, sim",
        ] {
            assert!(page.contains(words), "{words}: {page}");
        }
        for words in ["http", "src=", "NaN", "inf"] {
            assert!(!page.contains(words), "{words}: {page}");
        }
        assert_eq!(page.matches("<svg").count(), 2);
    }

    #[test]
    fn a_page_of_one_value_or_none_is_in_order() {
        let page_of_one = page(&[figure(2, "unicast", "ns", 1)]);
        assert!(!page_of_one.contains("NaN") && !page_of_one.contains("inf"));
        assert!(page(&[]).contains("No results"));
    }
}
