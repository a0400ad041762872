//! Figures as one page: for each benchmark the pictures that its parameters call for, what others
//! have published, and for each boot all numbers in a table.
//!
//! | figures with                              | picture                                     |
//! |-------------------------------------------|---------------------------------------------|
//! | `from` and `to`                           | a heat map                                  |
//! | a number that was varied, see [`sweeps`]  | lines, with the Universal Scalability Law   |
//! | neither                                   | a row on a scale, with target               |

use crate::bench::Run;
use crate::bench::catalogue::{BARRELFISH, PUBLISHED, Published};
use crate::comparison::{self, number, verdict};
use crate::figure::Figure;
use crate::page::{self, END, definitions, distinct, escaped, shortened};
use crate::plot::{self, LETTERS};
use crate::sweeps::{self, PAIR, Scaling, Sweep};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Lengths in the chart of rows, in pixels: the scale with the room beside it, a row, and the room
/// above the rows.
const SIDE: f64 = 14.0;
const SCALE: f64 = plot::WIDTH - 2.0 * SIDE;
const ROW: f64 = 42.0;
const HEAD: f64 = 58.0;
/// Rows of one such chart, and of a table that stands open.
const ROWS: usize = 14;
const OPEN_ROWS: usize = 40;

/// The whole page.
pub fn page(runs: &[Run]) -> String {
    let mut page = page::begin("Atoll: benchmarks");
    if runs.is_empty() {
        page.push_str("<p>No results.</p>\n");
    }
    let kind = |run: &Run| {
        let conditions = &run.conditions;
        (
            run.name.clone(),
            conditions.accelerator.clone(),
            conditions.sockets,
        )
    };
    for wanted in distinct(runs.iter().map(kind)) {
        let runs: Vec<&Run> = runs.iter().filter(|run| kind(run) == wanted).collect();
        section(&mut page, &runs);
    }
    page.push_str(END);
    page
}

/// A benchmark, on machines that differ in their number of cores.
fn section(page: &mut String, runs: &[&Run]) {
    let Some(first) = runs.first() else {
        return;
    };
    let all = |of: &dyn Fn(&Run) -> String| {
        let mut all = distinct(runs.iter().map(|run| of(run)));
        all.retain(|one| !one.is_empty());
        all.join(", ")
    };
    let sockets = |run: &Run| match run.conditions.sockets {
        0 => String::new(),
        count => count.to_string(),
    };
    let mut machine = format!("cores {}", all(&|run| run.conditions.cores.to_string()));
    for (name, value) in [
        ("sockets", all(&sockets)),
        ("memory", all(&|run| run.conditions.memory.clone())),
    ] {
        if !value.is_empty() {
            let _ = write!(machine, "; {name} {value}");
        }
    }
    let obtained = |run: &Run| match run.conditions.qemu.as_str() {
        "" => run.conditions.accelerator.clone(),
        qemu => format!("{} (QEMU {qemu})", run.conditions.accelerator),
    };
    let _ = writeln!(page, "<h2>{}</h2>", escaped(&first.name));
    let mut rows = vec![
        ("machine", machine),
        ("obtained by", all(&obtained)),
        ("revision", all(&|run| run.conditions.revision.clone())),
    ];
    if runs.iter().any(|run| run.compares()) {
        rows.push(("Barrelfish", BARRELFISH.to_owned()));
    }
    let estimates = comparison::estimates(runs.iter().flat_map(|run| &run.figures));
    rows.extend(estimates.into_iter().map(|words| ("estimates", words)));
    definitions(page, &rows);
    let sweeps = sweeps::of(runs);
    heat_maps(page, runs);
    let mut laws = Vec::new();
    page.push_str("<div class=\"charts\">\n");
    for (title, sweeps) in by_unit(&sweeps) {
        laws.extend(swept(page, first, &title, &sweeps));
    }
    page.push_str("</div>\n");
    sweeps::laws(page, &laws);
    published(page, runs);
    for run in runs {
        let _ = writeln!(
            page,
            "<h3>{} on {} core{}</h3>\n<p class=\"note\">repeat: <code>{}</code></p>",
            escaped(&run.name),
            run.conditions.cores,
            if run.conditions.cores == 1 { "" } else { "s" },
            escaped(&run.conditions.command)
        );
        let is_single = |figure: &&Figure| {
            !sweeps::is_pair(figure, runs) && !sweeps.iter().any(|sweep| sweep.has(figure))
        };
        let single: Vec<&Figure> = run.figures.iter().filter(is_single).collect();
        page.push_str("<div class=\"charts\">\n");
        for unit in distinct(single.iter().map(|figure| figure.unit)) {
            let of_unit: Vec<&Figure> = single
                .iter()
                .copied()
                .filter(|figure| figure.unit == unit)
                .collect();
            for figures in of_unit.chunks(balanced(of_unit.len())) {
                rows_on_a_scale(page, run, figures);
            }
        }
        page.push_str("</div>\n");
        if run.figures.is_empty() {
            page.push_str("<p>No figures: the accelerator tells none of its units.</p>\n");
        } else {
            table(page, run);
        }
    }
}

/// Rows of charts of equal height, none too high.
fn balanced(rows: usize) -> usize {
    rows.div_ceil(rows.div_ceil(ROWS).max(1)).max(1)
}

/// What a heat map is called, its first figure, and its cells: from, to, and the value.
type Map<'run> = (String, &'run Figure, Vec<(u64, u64, f64)>);

/// Figures by pairs of cores: one picture for each boot, operation and unit.
fn heat_maps(page: &mut String, runs: &[&Run]) {
    let mut maps: Vec<Map<'_>> = Vec::new();
    for figure in runs.iter().flat_map(|run| &run.figures) {
        let [Some(from), Some(to)] = PAIR.map(|key| figure.parameter(key)) else {
            continue;
        };
        if !sweeps::is_pair(figure, runs) {
            continue;
        }
        let name = format!(
            "{}, {} cores",
            figure.name_without(&PAIR),
            figure.conditions.cores
        );
        let cell = (from, to, figure.value);
        match maps
            .iter_mut()
            .find(|map| map.0 == name && map.1.unit == figure.unit)
        {
            Some(map) => map.2.push(cell),
            None => maps.push((name, figure, vec![cell])),
        }
    }
    if maps.is_empty() {
        return;
    }
    page.push_str("<div class=\"charts\">\n");
    for (name, figure, cells) in maps {
        plot::heat_map(page, &name, &format!("{name}: {}", figure.label()), &cells);
    }
    page.push_str("</div>\n");
}

/// Sweeps of one unit over one thing.
fn by_unit<'all, 'run>(sweeps: &'all [Sweep<'run>]) -> Vec<(String, Vec<&'all Sweep<'run>>)> {
    let key = |sweep: &Sweep<'_>| format!("{} by {}", sweep.label(), sweep.axis);
    let kinds = distinct(sweeps.iter().map(key));
    let of_kind = |kind: String| {
        let all = sweeps.iter().filter(|sweep| key(sweep) == kind);
        (kind.clone(), all.collect())
    };
    kinds.into_iter().map(of_kind).collect()
}

/// Lines of one unit: a picture for each operation that has several, the others together. Back come
/// those that are throughput.
fn swept(page: &mut String, run: &Run, title: &str, sweeps: &[&Sweep<'_>]) -> Vec<Scaling> {
    let mut groups: Vec<Vec<&Sweep<'_>>> = Vec::new();
    let mut alone = Vec::new();
    for operation in distinct(sweeps.iter().map(|sweep| sweep.operation())) {
        let its: Vec<&Sweep<'_>> = sweeps
            .iter()
            .copied()
            .filter(|sweep| sweep.operation() == operation)
            .collect();
        match its.len() {
            1 => alone.extend(its),
            _ => groups.push(its),
        }
    }
    let pools = groups.into_iter().chain(std::iter::once(alone));
    let pools: Vec<Vec<&Sweep<'_>>> = pools
        .flat_map(|pool| pool.chunks(8).map(<[_]>::to_vec).collect::<Vec<_>>())
        .collect();
    for pool in &pools {
        let series: Vec<_> = pool.iter().map(|sweep| sweep.series()).collect();
        let better = if pool[0].unit().is_rate() {
            "more"
        } else {
            "less"
        };
        let caption = format!("{}; logarithmic, {better} is better", pool[0].label());
        let lines = plot::Lines {
            title,
            caption: &caption,
            across: pool[0].axis,
            is_linear: false,
            rows: series.len(),
        };
        plot::lines(page, &lines, &series);
    }
    let work = run.benchmark().and_then(|benchmark| benchmark.work);
    let mut laws = Vec::new();
    for pool in &pools {
        let scaled: Vec<_> = pool
            .iter()
            .filter_map(|sweep| sweep.scaling(work))
            .collect();
        let Some(first) = scaled.first() else {
            continue;
        };
        let series: Vec<_> = scaled.iter().map(Scaling::series).collect();
        let lines = plot::Lines {
            title,
            caption: &first.caption,
            across: pool[0].axis,
            is_linear: true,
            rows: series.len(),
        };
        plot::lines(page, &lines, &series);
        laws.extend(scaled);
    }
    laws
}

/// What others have published of the like, beside ours.
fn published(page: &mut String, runs: &[&Run]) {
    let Some(run) = runs.first() else {
        return;
    };
    let its: Vec<&Published> = PUBLISHED
        .iter()
        .filter(|one| one.beside.contains(&run.name.as_str()))
        .collect();
    if its.is_empty() {
        return;
    }
    page.push_str(
        "<h3>published figures</h3>\n<div class=\"wide\"><table class=\"published\">\n\
         <tr><th>operation</th><th>system</th><th>figure</th><th>unit</th><th class=\"words\">source</th></tr>\n",
    );
    for one in its {
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}, published</td><td class=\"words\">{}</td></tr>",
            escaped(one.operation),
            one.system,
            one.figure,
            one.unit,
            escaped(one.source)
        );
    }
    // The nearest that we have, on the first boot; pairs of cores have a picture of their own.
    let is_near = |figure: &&Figure| match run.name.as_str() {
        "micro" | "lrpc" => figure.operation.contains("LRPC"),
        _ => !sweeps::is_pair(figure, runs),
    };
    let times = run.figures.iter().filter(|figure| figure.unit.is_time());
    let ours = times.filter(is_near);
    for figure in ours.take(12) {
        let _ = writeln!(
            page,
            "<tr><td>{}, cores {}</td><td>Atoll</td><td>{}</td><td>{}</td><td class=\"words\">this run</td></tr>",
            escaped(&figure.name()),
            figure.conditions.cores,
            number(Some(figure.value)),
            escaped(&figure.label())
        );
    }
    page.push_str(
        "</table></div>\n<p class=\"note\">Published figures were measured by their authors on their \
         machines of 2009, in cycles: beside guest instructions they give an order of magnitude, and \
         no ratio.</p>\n",
    );
}

/// A row a figure on a logarithmic scale: dot, target, and the other system.
fn rows_on_a_scale(page: &mut String, run: &Run, figures: &[&Figure]) {
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
    let x = |value: f64| SIDE + value.max(1.0).log10() / decades * SCALE;
    let bottom = HEAD + ROW * figures.len() as f64;
    let label = figures[0].label();
    let better = if figures[0].unit.is_rate() {
        "more"
    } else {
        "less"
    };
    let _ = writeln!(
        page,
        "<svg class=\"chart\" viewBox=\"0 0 {} {}\" role=\"img\">\n<title>{}</title>",
        plot::WIDTH,
        bottom + 8.0,
        escaped(&format!("{}, {label}", run.name))
    );
    let caption = format!("{label}; logarithmic, {better} is better");
    let others = figures.iter().any(|figure| expected(figure).0.is_some());
    legend(page, &caption, others);
    for decade in 0..=decades as i32 {
        let value = 10f64.powi(decade);
        let at = x(value);
        let anchor = match decade {
            0 => "start",
            last if f64::from(last) == decades => "end",
            _ => "middle",
        };
        // The numbers of so many decades would run into each other.
        let is_told = decades <= 5.0 || decade % 2 == 0;
        let text = if is_told {
            number(Some(value))
        } else {
            String::new()
        };
        let _ = writeln!(
            page,
            "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{HEAD}\" x2=\"{at:.1}\" y2=\"{bottom}\"/>\
             <text class=\"small\" x=\"{at:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{text}</text>",
            HEAD - 6.0,
        );
    }
    for (row, figure) in figures.iter().enumerate() {
        let top = HEAD + ROW * row as f64;
        let y = top + 30.0;
        let (target, other) = expected(figure);
        let figure_told = number(Some(figure.value));
        let mut expected_told = String::new();
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
                y - 8.0,
                y + 8.0
            );
            let _ = write!(expected_told, " (target {}", number(Some(target)));
            if let Some(other) = other {
                let _ = write!(expected_told, ", Barrelfish {}", number(Some(other)));
            }
            expected_told.push(')');
        }
        let name = figure.name();
        let numbers = figure_told.len() + expected_told.len() * 4 / 5;
        let room = LETTERS.saturating_sub(numbers + 2);
        let _ = writeln!(
            page,
            "<circle class=\"figure\" cx=\"{at:.1}\" cy=\"{y:.1}\" r=\"6\"/>\
             <text x=\"2\" y=\"{2:.1}\">{0}<title>{1}</title></text>\
             <text x=\"{3}\" y=\"{2:.1}\" text-anchor=\"end\"><tspan class=\"strong\">{figure_told}</tspan>\
             <tspan class=\"small\">{expected_told}</tspan></text>",
            escaped(&shortened(&name, room)),
            escaped(&name),
            top + 16.0,
            plot::WIDTH - 2.0
        );
    }
    page.push_str("</svg>\n");
}

/// What the marks mean, and what the scale is.
fn legend(page: &mut String, caption: &str, others: bool) {
    let _ = write!(
        page,
        "<text x=\"2\" y=\"14\">{}</text>\
         <circle class=\"figure\" cx=\"10\" cy=\"28\" r=\"6\"/><text x=\"22\" y=\"32\">Atoll</text>",
        escaped(&shortened(caption, LETTERS))
    );
    if others {
        page.push_str(
            "<line class=\"target\" x1=\"80\" y1=\"20\" x2=\"80\" y2=\"36\"/><text x=\"90\" y=\"32\">target</text>\
             <circle class=\"other\" cx=\"152\" cy=\"28\" r=\"5\"/><text x=\"164\" y=\"32\">Barrelfish</text>",
        );
    }
    page.push('\n');
}

fn table(page: &mut String, run: &Run) {
    let is_long = run.figures.len() > OPEN_ROWS;
    if is_long {
        let _ = writeln!(
            page,
            "<details><summary>all {} figures</summary>",
            run.figures.len()
        );
    }
    let has_target = run
        .figures
        .iter()
        .any(|figure| run.expected(figure).is_some());
    let has_samples = run
        .figures
        .iter()
        .any(|figure| !figure.distribution().is_empty())
        && !is_long;
    page.push_str(
        "<div class=\"wide\"><table class=\"figures\">\n<tr><th>operation</th><th>unit</th><th>figure</th>\
         <th>minimum</th><th>p99</th><th>samples</th>",
    );
    if has_samples {
        page.push_str("<th class=\"words\">distribution</th>");
    }
    if has_target {
        page.push_str("<th>target</th><th>met</th><th>Barrelfish</th>");
    }
    page.push_str("</tr>\n");
    // What is common to many is worked out once.
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    for figure in &run.figures {
        let label = figure.label();
        let label = labels
            .entry(label.clone())
            .or_insert_with(|| escaped(&label));
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{label}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>",
            escaped(&figure.name()),
            number(Some(figure.value)),
            number(figure.minimum),
            number(figure.p99),
            number(figure.samples.map(|count| count as f64)),
        );
        if has_samples {
            page.push_str("<td>");
            plot::histogram(page, &figure.distribution());
            page.push_str("</td>");
        }
        if has_target {
            let (operation, met) = (run.expected(figure), run.met(figure));
            let class = if met == Some(false) {
                " class=\"missed\""
            } else {
                ""
            };
            let _ = write!(
                page,
                "<td>{}</td><td{class}>{}</td><td>{}</td>",
                number(operation.map(|operation| operation.target.into())),
                verdict(met),
                number(operation.and_then(|operation| operation.barrelfish.map(f64::from))),
            );
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
    if is_long {
        page.push_str("</details>\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::{conditions, figure, run};

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
        assert!(!page.contains("http") && !page.contains("src=") && !page.contains("<script"));
        for words in [
            "47</tspan><tspan class=\"small\"> (target 50, Barrelfish 113)",
            " (target 1,500, Barrelfish 17,766)",
            "<td class=\"missed\">NO</td>",
            "guest instructions, icount",
            BARRELFISH,
            "a &lt; b &amp; &quot;c&quot;",
            "757–1,549</td><td>cycles, published",
            "repeat: <code>scripts/bench micro --cores 2 --accel icount",
        ] {
            assert!(page.contains(words), "{words}: {page}");
        }
        assert_eq!(page.matches("class=\"figure\"").count(), 3 + 1);
        assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
    }

    #[test]
    fn a_page_without_figures_says_so() {
        let page_of_none = page(&[run("tcg", &[])]);
        assert!(page_of_none.contains("No figures") && !page_of_none.contains("<svg"));
        assert!(page(&[]).contains("No results"));
    }

    #[test]
    fn pairs_become_a_heat_map_and_core_counts_lines() {
        let mut runs = Vec::new();
        for cores in [2, 3, 4, 8] {
            let conditions = conditions("micro", "icount", cores);
            let mut figures = vec![figure(
                &conditions,
                "micro",
                "grows",
                "",
                u64::from(cores * 100),
            )];
            for from in 0..cores {
                for to in (0..cores).filter(|to| *to != from) {
                    let with = format!(",\"from\":{from},\"to\":{to}");
                    figures.push(figure(
                        &conditions,
                        "micro",
                        "hop",
                        &with,
                        u64::from(from * 10 + to),
                    ));
                }
            }
            runs.push(Run {
                name: "micro".to_owned(),
                conditions,
                figures,
                left_out: 0,
            });
        }
        let page = page(&runs);
        assert_eq!(page.matches("to core</text>").count(), 4);
        assert_eq!(page.matches("<polyline stroke=").count(), 1, "{page}");
        // Neither of them stands in a row of its own besides.
        assert_eq!(page.matches("class=\"figure\"").count(), 0);
        assert!(
            page.contains(
                "<td>hop, from 7, to 3</td><td>guest instructions, icount</td><td>73</td>"
            )
        );
        assert!(page.contains("all 57 figures"));
        assert!(!page.contains("NaN") && !page.contains("inf"));
    }
}
