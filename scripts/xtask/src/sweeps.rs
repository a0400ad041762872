//! Figures against something that was varied: which they are, and how what was done in parallel
//! scales.

use crate::bench::Run;
use crate::bench::catalogue::Work;
use crate::comparison::number;
use crate::figure::{Figure, Unit};
use crate::page::{distinct, escaped};
use crate::plot::Series;

use std::fmt::Write;
use traces::columns::digits;
use traces::usl::{self, Fit};

/// The parameters of a figure that is of a pair of cores.
pub const PAIR: [&str; 2] = ["from", "to"];
/// The number of cores that take part, and that of the machine.
const MEMBERS: &str = "members";
const CORES: &str = "cores";
/// What is shown along the lower edge, the first of them that was varied. After these comes any
/// other number.
const AXES: [&str; 7] = [MEMBERS, CORES, "bytes", "depth", "idle", "holders", "lines"];
/// Values that something must have had to count as varied.
const LEAST_VALUES: usize = 3;
/// A throughput is told for so many of the unit of time.
const PER: f64 = 1e6;
/// Points of a fitted curve.
const CURVE: usize = 60;

/// The figures of one operation against one thing; all else was the same.
#[derive(Debug)]
pub struct Sweep<'run> {
    /// What was varied.
    pub axis: &'static str,
    name: String,
    figures: Vec<(f64, &'run Figure)>,
}

/// What was done in parallel, as a throughput.
#[derive(Debug)]
pub struct Scaling {
    /// Unit and label.
    pub caption: String,
    name: String,
    points: Vec<(f64, f64)>,
    fit: Option<Fit>,
}

/// Whether a figure is of one of several pairs of cores. Where all are of one pair, it goes without
/// saying.
pub fn is_pair(figure: &Figure, runs: &[&Run]) -> bool {
    let pair = |figure: &Figure| PAIR.map(|key| figure.parameter(key));
    let own = pair(figure);
    let is_other = |other: &Figure| {
        other.operation == figure.operation
            && other.conditions.cores == figure.conditions.cores
            && pair(other) != own
    };
    let mut figures = runs.iter().flat_map(|run| &run.figures);
    own.iter().all(Option::is_some) && figures.any(is_other)
}

/// The value along an axis.
fn value(figure: &Figure, axis: &str) -> Option<u64> {
    match axis {
        CORES => Some(figure.conditions.cores.into()),
        key => figure.parameter(key),
    }
}

/// All sweeps of a benchmark.
pub fn of<'run>(runs: &[&'run Run]) -> Vec<Sweep<'run>> {
    let figures: Vec<&Figure> = runs
        .iter()
        .flat_map(|run| &run.figures)
        .filter(|figure| !is_pair(figure, runs))
        .collect();
    let family = |figure: &Figure| (figure.operation.clone(), figure.unit);
    let mut sweeps = Vec::new();
    for wanted in distinct(figures.iter().map(|figure| family(figure))) {
        let its: Vec<&Figure> = figures
            .iter()
            .copied()
            .filter(|figure| family(figure) == wanted)
            .collect();
        let is_varied = |axis: &&&str| {
            let all = its.iter().filter_map(|figure| value(figure, axis));
            distinct(all).len() >= LEAST_VALUES
        };
        let Some(axis) = AXES.iter().find(is_varied) else {
            continue;
        };
        // A line for each number of cores, unless each has but one point then.
        let lines = by_line(&its, axis, *axis != CORES);
        let lines = match lines.iter().any(|line| line.figures.len() >= LEAST_VALUES) {
            true => lines,
            false => by_line(&its, axis, false),
        };
        sweeps.extend(lines.into_iter().filter(Sweep::is_one));
    }
    sweeps
}

fn by_line<'run>(figures: &[&'run Figure], axis: &'static str, by_cores: bool) -> Vec<Sweep<'run>> {
    let cores = distinct(figures.iter().map(|figure| figure.conditions.cores));
    let mut lines: Vec<Sweep<'run>> = Vec::new();
    for figure in figures {
        let Some(at) = value(figure, axis) else {
            continue;
        };
        // Of which pair is clear, where there is one.
        let [from, to] = PAIR;
        let mut name = figure.name_without(&[axis, from, to]);
        if by_cores && cores.len() > 1 {
            let _ = write!(name, ", {} cores", figure.conditions.cores);
        }
        let point = (at as f64, *figure);
        match lines.iter_mut().find(|line| line.name == name) {
            Some(line) => line.figures.push(point),
            None => lines.push(Sweep {
                axis,
                name,
                figures: vec![point],
            }),
        }
    }
    for line in &mut lines {
        line.figures.sort_by(|one, other| one.0.total_cmp(&other.0));
    }
    lines
}

impl Sweep<'_> {
    /// Whether each point along the axis has one figure.
    fn is_one(&self) -> bool {
        let is_before = |pair: &[(f64, &Figure)]| pair[0].0 < pair[1].0;
        self.figures.len() >= LEAST_VALUES && self.figures.windows(2).all(is_before)
    }

    /// Whether a figure is in it.
    pub fn has(&self, figure: &Figure) -> bool {
        self.figures
            .iter()
            .any(|(_, one)| std::ptr::eq(*one, figure))
    }

    /// What was measured.
    pub fn operation(&self) -> &str {
        &self.figures[0].1.operation
    }

    /// What it is told in.
    pub fn unit(&self) -> Unit {
        self.figures[0].1.unit
    }

    /// The same with how it was obtained.
    pub fn label(&self) -> String {
        self.figures[0].1.label()
    }

    /// As it is drawn.
    pub fn series(&self) -> Series {
        let point = |(at, figure): &(f64, &Figure)| (*at, figure.value);
        Series {
            name: self.name.clone(),
            points: self.figures.iter().map(point).collect(),
            curve: Vec::new(),
        }
    }

    /// Its throughput against the number of cores; `None`: it is no throughput.
    pub fn scaling(&self, work: Option<Work>) -> Option<Scaling> {
        if self.axis != CORES && self.axis != MEMBERS {
            return None;
        }
        let (unit, label) = (self.unit(), self.label());
        let is_counted = self.figures[0].1.conditions.accelerator == "icount";
        let what = match work {
            _ if unit.is_rate() => label,
            Some(work) if unit.is_time() => {
                let what = match work {
                    Work::Each => "operations",
                    Work::Shared => "pieces of work",
                };
                let whose = if is_counted { " of a core" } else { "" };
                format!("{what} in 1,000,000 {unit}{whose}, {}", self.accelerator())
            }
            _ => return None,
        };
        let throughput = |(members, figure): &(f64, &Figure)| {
            if unit.is_rate() {
                return (*members, figure.value);
            }
            // The clock counts what all cores execute: done at once, it takes a core its share.
            let time = if is_counted {
                figure.value / members
            } else {
                figure.value
            };
            let done = if work == Some(Work::Each) {
                *members
            } else {
                1.0
            };
            (*members, PER * done / time)
        };
        let points: Vec<(f64, f64)> = self
            .figures
            .iter()
            .filter(|(_, figure)| figure.value > 0.0)
            .map(throughput)
            .collect();
        Some(Scaling {
            caption: what,
            name: self.name.clone(),
            fit: usl::fit(&points),
            points,
        })
    }

    fn accelerator(&self) -> &str {
        &self.figures[0].1.conditions.accelerator
    }
}

impl Scaling {
    /// As it is drawn: what was measured, and the law.
    pub fn series(&self) -> Series {
        let most = self.points.iter().map(|point| point.0).fold(1.0, f64::max);
        let curve = self.fit.iter().flat_map(|fit| {
            (0..=CURVE).map(move |step| {
                let members = 1.0 + (most - 1.0) * step as f64 / CURVE as f64;
                (members, fit.law.at(members))
            })
        });
        Series {
            name: self.name.clone(),
            points: self.points.clone(),
            curve: curve.collect(),
        }
    }
}

/// The laws that were fitted, in a table.
pub fn laws(page: &mut String, all: &[Scaling]) {
    let fitted: Vec<(&Scaling, &Fit)> = all
        .iter()
        .filter_map(|one| one.fit.as_ref().map(|fit| (one, fit)))
        .collect();
    if fitted.is_empty() {
        return;
    }
    page.push_str(
        "<div class=\"wide\"><table class=\"laws\">\n<tr><th>Universal Scalability Law, 95 % intervals</th>\
         <th>throughput</th><th>λ, one alone</th><th>σ, contention</th><th>κ, coherence</th>\
         <th>predicted peak</th></tr>\n",
    );
    for (scaling, fit) in fitted {
        let law = &fit.law;
        let with = |value: f64, (least, most): (f64, f64)| {
            format!("{} [{}, {}]", digits(value), digits(least), digits(most))
        };
        let most = scaling
            .points
            .iter()
            .map(|point| point.0)
            .fold(1.0, f64::max);
        let peak = match law.peak().filter(|peak| *peak < PER) {
            None => "none".to_owned(),
            Some(peak) => {
                let beyond = if peak > most {
                    ", beyond what was measured"
                } else {
                    ""
                };
                format!(
                    "{} at {} cores{beyond}",
                    digits(law.at(peak)),
                    number(Some(peak.round()))
                )
            }
        };
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{peak}</td></tr>",
            escaped(&scaling.name),
            escaped(&scaling.caption),
            with(law.lambda, fit.intervals[0]),
            with(law.sigma, fit.intervals[1]),
            with(law.kappa, fit.intervals[2]),
        );
    }
    page.push_str(
        "</table></div>\n<p class=\"note\">X(N) = λN / (1 + σ(N−1) + κN(N−1)), least squares of the \
         relative error, intervals by a bootstrap of the residuals. Under icount the clock counts what \
         all cores execute; a core's time is taken to be its share of that.</p>\n",
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::{conditions, figure};

    fn boot(cores: u32, with: &[(&str, u64)]) -> Run {
        let conditions = conditions("micro", "icount", cores);
        let figures = with
            .iter()
            .map(|(with, value)| figure(&conditions, "micro", "add", with, *value));
        Run {
            name: "micro".to_owned(),
            figures: figures.collect(),
            conditions,
            left_out: 0,
        }
    }

    fn of_all(runs: &[Run]) -> Vec<Sweep<'_>> {
        of(&runs.iter().collect::<Vec<_>>())
    }

    #[test]
    fn what_was_varied_is_found() {
        let runs: Vec<Run> = [2, 4, 8]
            .map(|cores| boot(cores, &[("", 7), (",\"strategy\":\"tree\"", 9)]))
            .into();
        let sweeps = of_all(&runs);
        let names: Vec<_> = sweeps
            .iter()
            .map(|sweep| (sweep.axis, sweep.name.as_str()))
            .collect();
        assert_eq!(names, [("cores", "add"), ("cores", "add, strategy tree")]);
        assert!(sweeps[0].has(&runs[1].figures[0]) && !sweeps[0].has(&runs[1].figures[1]));

        let with = [
            (",\"bytes\":64", 1),
            (",\"bytes\":1024", 2),
            (",\"bytes\":8", 3),
        ];
        let runs = [boot(2, &with), boot(4, &with)];
        let sweeps = of_all(&runs);
        assert_eq!(sweeps.len(), 2);
        assert_eq!(sweeps[1].name, "add, 4 cores");
        assert_eq!(
            sweeps[0].series().points,
            [(8.0, 3.0), (64.0, 1.0), (1024.0, 2.0)]
        );

        // Two numbers of cores are no sweep, and a figure that came twice is none.
        assert!(of_all(&[boot(2, &[("", 1)]), boot(4, &[("", 2)])]).is_empty());
        let twice: Vec<Run> = [2, 4, 8]
            .map(|cores| boot(cores, &[("", 1), ("", 2)]))
            .into();
        assert!(of_all(&twice).is_empty());
    }

    #[test]
    fn members_of_machines_of_their_size_are_one_line() {
        let runs: Vec<Run> = [2u32, 4, 8]
            .map(|cores| {
                boot(
                    cores,
                    &[(&format!(",\"members\":{cores}"), u64::from(cores))],
                )
            })
            .into();
        let sweeps = of_all(&runs);
        assert_eq!((sweeps.len(), sweeps[0].axis), (1, "members"));
    }

    #[test]
    fn times_become_throughput_by_the_work_that_they_are_of() {
        // Each of the members executes 100 instructions, whatever the others do.
        let runs: Vec<Run> = [1, 2, 4, 8]
            .map(|cores| boot(cores, &[("", 100 * u64::from(cores))]))
            .into();
        let sweeps = of_all(&runs);
        assert!(sweeps[0].scaling(None).is_none());
        let scaling = sweeps[0].scaling(Some(Work::Each)).unwrap();
        assert_eq!(
            scaling.points,
            [(1.0, 1e4), (2.0, 2e4), (4.0, 4e4), (8.0, 8e4)]
        );
        assert!(
            scaling
                .caption
                .ends_with("guest instructions of a core, icount")
        );
        let law = scaling.fit.as_ref().unwrap().law;
        assert!((law.lambda - 1e4).abs() < 1e-3 && law.sigma < 1e-9 && law.kappa < 1e-9);
        let scaling = sweeps[0].scaling(Some(Work::Shared)).unwrap();
        assert_eq!(
            scaling.points,
            [(1.0, 1e4), (2.0, 1e4), (4.0, 1e4), (8.0, 1e4)]
        );
        let mut page = String::new();
        laws(&mut page, &[scaling]);
        assert!(
            page.contains("X(N)") && page.contains("<td>none</td>"),
            "{page}"
        );
    }

    #[test]
    fn digits_are_three() {
        for (value, text) in [
            (0.0, "0"),
            (0.0512, "0.0512"),
            (1.0, "1.00"),
            (12345.6, "12,346"),
            (-12345.6, "-12,346"),
            (-0.5, "-0.500"),
            (2e-7, "2.0e-7"),
        ] {
            assert_eq!(digits(value), text);
        }
    }
}
