//! What the simulator found, as one HTML file that opens without a network: for each operation its
//! time and its messages against the number of cores, and all numbers in a table.

use crate::comparison::number;
use crate::page::{self, END, definitions, distinct, escaped};
use crate::plot::{self, Series};
use crate::sim::{Found, Line};
use std::fmt::Write;

/// The whole page.
pub fn page(lines: &[Line]) -> String {
    let mut page = page::begin("Atoll: simulated monitors");
    if let Some(line) = lines.first() {
        let conditions = &line.conditions;
        definitions(
            &mut page,
            &[
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
            ],
        );
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
    page.push_str(END);
    page
}

/// The operations of a protocol.
fn figures(page: &mut String, protocol: &str, lines: &[&Line]) {
    let operation = |line: &&Line| match &line.result {
        Found::Figure { operation, .. } => Some(*operation),
        Found::Runs { .. } => None,
    };
    for wanted in distinct(lines.iter().filter_map(operation)) {
        let name = format!("{protocol}: {wanted}");
        let _ = writeln!(page, "<h3>{}</h3>\n<div class=\"charts\">", escaped(&name));
        let of = |wanted_unit: &str| series(lines, wanted, wanted_unit);
        let (times, messages) = (of("ns"), of("messages"));
        let rows = times.len().max(messages.len());
        chart(page, "time, ns, sim", &name, &times, rows);
        chart(page, "messages, sim", &name, &messages, rows);
        page.push_str("</div>\n");
        table(page, &times, &messages);
    }
}

fn series(lines: &[&Line], wanted: &str, wanted_unit: &str) -> Vec<Series> {
    let mut all: Vec<Series> = Vec::new();
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
        let point = (line.conditions.cores as f64, *value as f64);
        match all.iter_mut().find(|one| one.name == *strategy) {
            Some(one) => one.points.push(point),
            None => all.push(Series {
                name: strategy.clone(),
                points: vec![point],
                curve: Vec::new(),
            }),
        }
    }
    all
}

/// Lines over the number of cores.
fn chart(page: &mut String, label: &str, name: &str, all: &[Series], rows: usize) {
    let caption = format!("{label}; logarithmic, less is better");
    let lines = plot::Lines {
        title: name,
        caption: &caption,
        across: "cores",
        is_linear: false,
        rows,
    };
    plot::lines(page, &lines, all);
}

/// All values: a row for each number of cores.
fn table(page: &mut String, times: &[Series], messages: &[Series]) {
    page.push_str(
        "<details><summary>numbers</summary>\n<div class=\"wide\"><table>\n<tr><th>cores</th>",
    );
    let columns: Vec<(&Series, &str)> = times
        .iter()
        .map(|one| (one, "ns"))
        .chain(messages.iter().map(|one| (one, "messages")))
        .collect();
    for (one, unit) in &columns {
        let _ = write!(page, "<th>{}, {unit}</th>", escaped(&one.name));
    }
    page.push_str("</tr>\n");
    let mut all: Vec<f64> = columns
        .iter()
        .flat_map(|(one, _)| one.points.iter().map(|point| point.0))
        .collect();
    all.sort_unstable_by(f64::total_cmp);
    all.dedup();
    for cores in all {
        let _ = write!(page, "<tr><td>{cores}</td>");
        for (one, _) in &columns {
            let point = one.points.iter().find(|point| point.0 == cores);
            let value = point.map(|point| point.1);
            let _ = write!(page, "<td>{}</td>", number(value));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n</details>\n");
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
            "unicast, tree &amp; &lt;more&gt;<title>",
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
