//! Tests of what `scripts/bench` writes: the page as a browser shows it, and the figures against
//! the baseline.

use crate::bench::results::{self, REPORT, Run};
use crate::browser;
use crate::comparison::number;
use crate::figure::{self, Conditions, Figure};
use crate::harness::{Outcome, Pass, Test, Workshop, run_command};
use serde::Deserialize;
use std::process::Command;
use std::time::Duration;

/// Longest that such a test may take, a build included.
const LIMIT: Duration = Duration::from_secs(600);
/// A page that looks at the report in a window as wide as a phone and in one as wide as a desk.
const LOOKER_ON: &str = r#"<!DOCTYPE html><html><body>
<iframe width="390" height="800" src="report.html"></iframe>
<iframe width="1100" height="800" src="report.html"></iframe>
<pre id="seen"></pre>
<script>
const wrong = [];
onerror = (message) => { wrong.push(String(message)); };
onload = () => {
  let rows = [];
  for (const frame of document.querySelectorAll("iframe")) {
    const page = frame.contentDocument, width = frame.width;
    if (page.documentElement.scrollWidth > width) wrong.push(`wider than ${width}`);
    if (page.querySelector("script, link, img")) wrong.push("not one file without scripts");
    for (const chart of page.querySelectorAll("svg.chart")) {
      const name = chart.querySelector("title").textContent;
      const place = chart.getBoundingClientRect(), box = chart.viewBox.baseVal;
      if (place.width < 200 || place.height < 80) wrong.push(`${name}: too small at ${width}`);
      const texts = [...chart.querySelectorAll("text")].map((text) => [text.textContent, text.getBBox()]);
      for (const [text, at] of texts) {
        if (at.x < -1 || at.y < -1 || at.x + at.width > box.width + 1 || at.y + at.height > box.height + 1)
          wrong.push(`${name}: "${text}" leaves the picture`);
      }
      texts.forEach(([one, a], index) => texts.slice(index + 1).forEach(([other, b]) => {
        const across = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x);
        const down = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y);
        if (across > 1 && down > 4) wrong.push(`${name}: "${one}" covers "${other}"`);
      }));
    }
    rows = [...page.querySelectorAll("table.figures tr")]
      .map((row) => [...row.querySelectorAll("td")].slice(0, 6).map((cell) => cell.textContent).join("|"))
      .filter((row) => row);
    if (frame.width == 390) continue;
    document.getElementById("seen").textContent =
      JSON.stringify({ wrong, rows, charts: page.querySelectorAll("svg.chart").length });
  }
};
</script></body></html>
"#;

/// What it saw.
#[derive(Debug, Deserialize)]
struct Seen {
    wrong: Vec<String>,
    rows: Vec<String>,
    charts: usize,
}

/// All of them.
pub fn tests() -> Vec<Test> {
    vec![
        Test::new("bench/page", page),
        Test::new("bench/baseline", baseline),
    ]
}

/// The main operations take what the baseline of the sources says.
fn baseline(_: &Workshop) -> Outcome {
    let mut this = Command::new("/proc/self/exe");
    let ran = run_command(this.args(["bench", "baseline"]), LIMIT)?;
    match ran.status.success() {
        true => Ok(Pass::Passed(ran.stdout)),
        false => Err(format!("{}{}", ran.stdout, ran.stderr)),
    }
}

/// A page with every kind of picture shows the numbers of its results, on a phone and on a desk.
fn page(workshop: &Workshop) -> Outcome {
    let Some(browser) = browser::find() else {
        return Ok(browser::missing());
    };
    let folder = workshop.project.own_folder().join("bench-page");
    let cannot = |error: std::io::Error| format!("{}: {error}", folder.display());
    results::write(&folder, &runs_of_all_kinds()?).map_err(cannot)?;
    let seen: Seen = browser::look(browser, &folder, LOOKER_ON)?;
    if !seen.wrong.is_empty() {
        return Err(format!(
            "{}:\n{}",
            folder.join(REPORT).display(),
            seen.wrong.join("\n")
        ));
    }
    // As they stand in the file, not as they were made.
    let read = results::read(&folder).map_err(|error| error.to_string())?;
    let mut expected: Vec<String> = read.iter().flat_map(|run| &run.figures).map(row).collect();
    let mut found = seen.rows;
    expected.sort_unstable();
    found.sort_unstable();
    if found != expected {
        return Err(format!(
            "expected the rows\n{expected:#?}\nfound\n{found:#?}"
        ));
    }
    if seen.charts < 5 {
        return Err(format!(
            "expected pictures of all kinds, found {}",
            seen.charts
        ));
    }
    Ok(Pass::Passed(format!(
        "{} figures, {} pictures",
        found.len(),
        seen.charts
    )))
}

fn row(figure: &Figure) -> String {
    let samples = figure.samples.map(|count| count as f64);
    let numbers = [Some(figure.value), figure.minimum, figure.p99, samples].map(number);
    format!("{}|{}|{}", figure.name(), figure.label(), numbers.join("|"))
}

/// Boots with figures for every kind of picture.
fn runs_of_all_kinds() -> Result<Vec<Run>, String> {
    let mut figures = Vec::new();
    for cores in [1u64, 2, 3, 4, 8, 12] {
        let of = |benchmark: &str, accelerator: &str| Conditions {
            accelerator: accelerator.to_owned(),
            command: format!("scripts/bench {benchmark} --cores {cores}"),
            cores: cores as u32,
            memory: "512M".to_owned(),
            qemu: "7.2.22".to_owned(),
            revision: "of a test".to_owned(),
            sockets: 1,
        };
        let mut add = |benchmark: &str,
                       accelerator: &str,
                       unit: &str,
                       operation: &str,
                       with: &str,
                       value: f64| {
            let least = (value * 0.9).floor();
            let line = format!(
                "result {{\"benchmark\":\"{benchmark}\",\"operation\":\"{operation}\",\"unit\":\"{unit}\",\
                 \"minimum\":{least},\"median\":{value},\"p99\":{value},\"samples\":10,\"core\":0{with},\
                 \"distribution\":[[{least},3],[{value},7]]}}"
            );
            let conditions = of(benchmark, accelerator);
            let figure = figure::parse(&line, benchmark, &conditions);
            figures.extend(figure.map_err(|error| error.to_string())?);
            Ok::<(), String>(())
        };
        let few = cores <= 2;
        for (operation, value) in [
            ("null system call", 42.0),
            ("allocate a 4 KiB frame", 1_929.0),
            ("typed message over urpc", 48.5),
            (
                "an operation whose name is longer than there is room for in a picture",
                602_934.0,
            ),
            ("less < more & none", 0.0),
        ] {
            if few {
                add(
                    "micro",
                    "icount",
                    "guest instructions",
                    operation,
                    "",
                    value,
                )?;
            }
        }
        for from in 0..cores {
            for to in (0..cores).filter(|to| *to != from) {
                let with = format!(",\"from\":{from},\"to\":{to}");
                let value = 1_000 + 40 * from.abs_diff(to);
                add(
                    "urpc-latency",
                    "icount",
                    "guest instructions",
                    "round trip",
                    &with,
                    value as f64,
                )?;
            }
        }
        for strategy in ["tree", "unicast"] {
            let with = format!(",\"strategy\":\"{strategy}\"");
            let value = (strategy.len() as u64 * 100 * cores) as f64;
            add(
                "broadcast",
                "icount",
                "guest instructions",
                "to all",
                &with,
                value,
            )?;
        }
        if few {
            for bytes in [8u64, 64, 4_096, 65_536] {
                let with = format!(",\"bytes\":{bytes}");
                let value = bytes as f64 * cores as f64 / 8.0;
                add("bulk", "icount", "guest instructions", "copy", &with, value)?;
            }
        }
        let members = cores as f64;
        let rate =
            1e5 * members / (1.0 + 0.05 * (members - 1.0) + 0.01 * members * (members - 1.0));
        add(
            "urpc-throughput",
            "kvm",
            "messages/s",
            "stream",
            "",
            rate.round(),
        )?;
    }
    Ok(results::by_boot(figures))
}
