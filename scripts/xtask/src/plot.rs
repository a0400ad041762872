//! Pictures of figures, as SVG: lines, heat maps, histograms. All are as wide as a phone shows in
//! letters that can be read, and no wider on a desk.

use crate::comparison::number;
use crate::page::{escaped, shortened};
use std::fmt::Write;

/// Width of a picture, in its own pixels.
pub const WIDTH: f64 = 430.0;
/// Lengths in a chart of lines: its plot, and the room around it.
const LEFT: f64 = 72.0;
const RIGHT: f64 = 20.0;
const HEAD: f64 = 30.0;
const HEIGHT: f64 = 220.0;
const FOOT: f64 = 44.0;
/// A row of the legend.
const ROW: f64 = 18.0;
/// Letters that fit into a line of a picture.
pub const LETTERS: usize = 58;
/// Letters of the legend.
const NAME: usize = 54;

/// Colours that people tell apart however they see them (Okabe and Ito).
const COLOURS: [&str; 9] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#b8a800",
    "#888888",
];

/// Values of one thing against another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// What it is of.
    pub name: String,
    /// Measured points, ascending.
    pub points: Vec<(f64, f64)>,
    /// A curve fitted to them; empty: the points are joined.
    pub curve: Vec<(f64, f64)>,
}

/// How a chart of lines is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Lines<'text> {
    /// For whoever does not see it.
    pub title: &'text str,
    /// Unit and label of the values.
    pub caption: &'text str,
    /// What stands along the lower edge.
    pub across: &'text str,
    /// Both axes from 0; else both logarithmic.
    pub is_linear: bool,
    /// Rows of the legend, so that charts side by side are of one height.
    pub rows: usize,
}

/// One axis: what it shows, over so many pixels.
struct Axis {
    least: f64,
    most: f64,
    /// Takes a value to where it stands between the two.
    place: fn(f64) -> f64,
    pixels: f64,
}

impl Axis {
    fn at(&self, value: f64) -> f64 {
        let span = (self.most - self.least).max(f64::MIN_POSITIVE);
        ((self.place)(value) - self.least) / span * self.pixels
    }
}

/// A step of an axis from 0 that people like to read, at most so many of them.
fn step(most: f64, steps: f64) -> f64 {
    let raw = (most / steps).max(f64::MIN_POSITIVE);
    let decade = 10f64.powf(raw.log10().floor());
    let nice = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * decade);
    nice.into_iter()
        .find(|step| *step >= raw * 0.999)
        .unwrap_or(10.0 * decade)
}

/// Lines over something that was varied.
pub fn lines(page: &mut String, chart: &Lines<'_>, all: &[Series]) {
    // A logarithm knows no 0: those stand in the table alone.
    let shown = |one: &Series| {
        let mut one = one.clone();
        one.points.retain(|point| chart.is_linear || point.1 > 0.0);
        one
    };
    let all: Vec<Series> = all
        .iter()
        .map(shown)
        .filter(|one| !one.points.is_empty())
        .collect();
    let points = || {
        all.iter()
            .flat_map(|one| one.points.iter().chain(&one.curve))
    };
    let Some(furthest) = points().map(|point| point.0).reduce(f64::max) else {
        return;
    };
    let nearest = points().map(|point| point.0).fold(f64::MAX, f64::min);
    let highest = points()
        .map(|point| point.1)
        .fold(f64::MIN_POSITIVE, f64::max);
    let lowest = points().map(|point| point.1).fold(f64::MAX, f64::min);
    let width = WIDTH - LEFT - RIGHT;
    let (across, up) = if chart.is_linear {
        let up = step(highest, 5.0);
        (
            Axis {
                least: 0.0,
                most: furthest,
                place: |value| value,
                pixels: width,
            },
            Axis {
                least: 0.0,
                most: (highest / up).ceil() * up,
                place: |value| value,
                pixels: HEIGHT,
            },
        )
    } else {
        let place: fn(f64) -> f64 = if nearest < 1.0 {
            |value| value.ln_1p()
        } else {
            f64::ln
        };
        let (least, most) = (place(nearest), place(furthest));
        let floor = lowest.log10().floor();
        (
            Axis {
                least,
                most: most.max(least + 2f64.ln()),
                place,
                pixels: width,
            },
            Axis {
                least: floor,
                most: highest.log10().ceil().max(floor + 1.0),
                place: f64::log10,
                pixels: HEIGHT,
            },
        )
    };
    let bottom = HEAD + HEIGHT;
    let x = |value: f64| LEFT + across.at(value);
    let y = |value: f64| bottom - up.at(value);
    let right = WIDTH - RIGHT;
    let _ = writeln!(
        page,
        "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {}\" role=\"img\">\n<title>{}: {}</title>\n\
         <text x=\"4\" y=\"16\">{}</text>",
        bottom + FOOT + ROW * chart.rows as f64,
        escaped(chart.title),
        escaped(chart.caption),
        escaped(&shortened(chart.caption, LETTERS))
    );
    let marks_up: Vec<f64> = if chart.is_linear {
        let step = step(highest, 5.0);
        (0..=(up.most / step).round() as i32)
            .map(|count| f64::from(count) * step)
            .collect()
    } else {
        (up.least as i32..=up.most as i32)
            .map(|decade| 10f64.powi(decade))
            .collect()
    };
    for value in marks_up {
        let at = y(value);
        let _ = writeln!(
            page,
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/>\
             <text class=\"small\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            mark(value)
        );
    }
    // As many marks as can be read.
    let mut marks: Vec<f64> = all
        .iter()
        .flat_map(|one| &one.points)
        .map(|point| point.0)
        .collect();
    marks.sort_unstable_by(f64::total_cmp);
    marks.dedup();
    let mut free = 0.0;
    for value in marks {
        let at = x(value);
        let text = mark(value);
        let half = 3.5 * text.len() as f64;
        // At the edge it stands a little to the left of its place.
        let middle = at.min(WIDTH - half - 1.0);
        if middle - half < free {
            continue;
        }
        free = middle + half + 5.0;
        let _ = writeln!(
            page,
            "<line class=\"axis\" x1=\"{at:.1}\" y1=\"{bottom}\" x2=\"{at:.1}\" y2=\"{}\"/>\
             <text class=\"small\" x=\"{middle:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
            bottom + 4.0,
            bottom + 16.0
        );
    }
    let _ = writeln!(
        page,
        "<polyline class=\"axis\" points=\"{LEFT},{HEAD} {LEFT},{bottom} {right},{bottom}\"/>\
         <text class=\"small\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
        LEFT + width / 2.0,
        bottom + 32.0,
        escaped(chart.across)
    );
    let path = |points: &[(f64, f64)]| {
        let mut path = String::new();
        for (across, up) in points {
            let _ = write!(path, "{:.1},{:.1} ", x(*across), y(*up));
        }
        path.truncate(path.trim_end().len());
        path
    };
    for (row, (names, colour, one)) in merged(&all).into_iter().enumerate() {
        let (line, class) = match one.curve.is_empty() {
            true => (path(&one.points), ""),
            false => (path(&one.curve), " class=\"fit\""),
        };
        let _ = writeln!(
            page,
            "<polyline{class} stroke=\"{colour}\" points=\"{line}\"/>"
        );
        for point in &one.points {
            let _ = write!(
                page,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                x(point.0),
                y(point.1)
            );
        }
        let at = bottom + FOOT + ROW * (row as f64 + 0.5);
        let _ = writeln!(
            page,
            "<line x1=\"8\" y1=\"{0:.1}\" x2=\"28\" y2=\"{0:.1}\" stroke=\"{colour}\" stroke-width=\"3\"/>\
             <text x=\"36\" y=\"{at:.1}\">{1}<title>{2}</title></text>",
            at - 4.5,
            escaped(&shortened(&names, NAME)),
            escaped(&names)
        );
    }
    page.push_str("</svg>\n");
}

/// A number at an axis.
fn mark(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        0.01..=9_999_999.0 => number(Some(value)),
        _ => format!("{value:.0e}"),
    }
}

/// Series, each with its colour; those with the same values as one.
fn merged(all: &[Series]) -> Vec<(String, &'static str, &Series)> {
    let mut lines: Vec<(String, &'static str, &Series)> = Vec::new();
    for (index, one) in all.iter().enumerate() {
        match lines
            .iter_mut()
            .find(|(_, _, other)| other.points == one.points)
        {
            Some((names, _, _)) => {
                let _ = write!(names, ", {}", one.name);
            }
            None => lines.push((one.name.clone(), COLOURS[index % COLOURS.len()], one)),
        }
    }
    lines
}

/// Values by pairs of cores, `(from, to, value)`, in a square; darker is more.
pub fn heat_map(page: &mut String, title: &str, caption: &str, cells: &[(u64, u64, f64)]) {
    const EDGE: f64 = 46.0;
    const TOP: f64 = 58.0;
    let mut cores: Vec<u64> = cells.iter().flat_map(|cell| [cell.0, cell.1]).collect();
    cores.sort_unstable();
    cores.dedup();
    let least = cells.iter().map(|cell| cell.2).fold(f64::MAX, f64::min);
    let most = cells.iter().map(|cell| cell.2).fold(f64::MIN, f64::max);
    if cells.is_empty() {
        return;
    }
    let cell = ((WIDTH - EDGE - 8.0) / cores.len() as f64).min(64.0);
    let side = cell * cores.len() as f64;
    let _ = writeln!(
        page,
        "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {:.1}\" role=\"img\">\n<title>{}: {}</title>\n\
         <text x=\"4\" y=\"16\">{}</text>\n\
         <text class=\"small\" x=\"{EDGE}\" y=\"34\">to core</text>\
         <text class=\"small\" x=\"4\" y=\"{}\">from</text>",
        TOP + side + 44.0,
        escaped(title),
        escaped(caption),
        escaped(&shortened(caption, LETTERS)),
        TOP - 6.0
    );
    // Every core that has room for its number.
    let every = (14.0 / cell).ceil().max(1.0) as usize;
    for (index, core) in cores.iter().enumerate().step_by(every) {
        let middle = cell * (index as f64 + 0.5);
        let _ = writeln!(
            page,
            "<text class=\"small\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{core}</text>\
             <text class=\"small\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{core}</text>",
            EDGE + middle,
            TOP - 6.0,
            EDGE - 6.0,
            TOP + middle + 4.0
        );
    }
    let share = |value: f64| match most > least {
        true => (value - least) / (most - least),
        false => 0.0,
    };
    for (from, to, value) in cells {
        let place = |core: &u64| cores.binary_search(core).unwrap_or(0) as f64 * cell;
        let (x, y) = (EDGE + place(to), TOP + place(from));
        let text = number(Some(*value));
        let _ = write!(
            page,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{0:.1}\" height=\"{0:.1}\" fill=\"{1}\">\
             <title>{from} to {to}: {text}</title></rect>",
            cell - (cell / 20.0).min(1.0),
            shade(share(*value))
        );
        if 6.6 * text.len() as f64 + 2.0 <= cell {
            let class = if share(*value) > 0.5 {
                "small light"
            } else {
                "small"
            };
            let _ = writeln!(
                page,
                "<text class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
                x + cell / 2.0,
                y + cell / 2.0 + 4.0
            );
        }
    }
    let y = TOP + side + 12.0;
    for part in 0..40 {
        let _ = write!(
            page,
            "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"4.2\" height=\"12\" fill=\"{}\"/>",
            EDGE + 60.0 + 4.0 * f64::from(part),
            shade(f64::from(part) / 39.0)
        );
    }
    let _ = writeln!(
        page,
        "<text class=\"small\" x=\"{}\" y=\"{2:.1}\" text-anchor=\"end\">{3}</text>\
         <text class=\"small\" x=\"{1}\" y=\"{2:.1}\">{4}</text>\n</svg>",
        EDGE + 54.0,
        EDGE + 228.0,
        y + 10.0,
        number(Some(least)),
        number(Some(most))
    );
}

/// From near white to dark blue.
fn shade(share: f64) -> String {
    let mix = |light: f64, dark: f64| (light + (dark - light) * share).round();
    format!(
        "rgb({},{},{})",
        mix(229.0, 8.0),
        mix(240.0, 48.0),
        mix(250.0, 107.0)
    )
}

/// How often each value came: a small picture for a row of a table.
pub fn histogram(page: &mut String, values: &[(f64, u64)]) {
    const BARS: usize = 24;
    let (Some(first), Some(last)) = (values.first(), values.last()) else {
        return;
    };
    let span = last.0 - first.0;
    let mut bars = [0u64; BARS];
    for (value, count) in values {
        let share = if span > 0.0 {
            (value - first.0) / span
        } else {
            0.5
        };
        bars[((share * BARS as f64) as usize).min(BARS - 1)] += count;
    }
    let most = bars.iter().copied().max().unwrap_or(1).max(1) as f64;
    let _ = write!(
        page,
        "<svg viewBox=\"0 0 120 18\" role=\"img\"><title>{} to {}</title>\
         <line class=\"grid\" x1=\"0\" y1=\"17.5\" x2=\"120\" y2=\"17.5\"/>",
        number(Some(first.0)),
        number(Some(last.0))
    );
    for (index, count) in bars.into_iter().enumerate().filter(|(_, count)| *count > 0) {
        // One sample of a thousand is still to be seen.
        let height = (count as f64 / most * 17.0).max(1.0);
        let _ = write!(
            page,
            "<rect class=\"bar\" x=\"{}\" y=\"{:.1}\" width=\"4.5\" height=\"{height:.1}\"/>",
            5 * index,
            17.5 - height
        );
    }
    page.push_str("</svg>");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(is_linear: bool) -> Lines<'static> {
        Lines {
            title: "t",
            caption: "c",
            across: "cores",
            is_linear,
            rows: 2,
        }
    }

    fn is_sound(page: &str) {
        for words in ["NaN", "inf"] {
            assert!(!page.contains(words), "{page}");
        }
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    }

    #[test]
    fn lines_join_points_and_show_fits() {
        let one = Series {
            name: "a < b".into(),
            points: vec![(0.0, 3.0), (10.0, 5.0), (1000.0, 70.0)],
            curve: Vec::new(),
        };
        let two = Series {
            name: "fitted".into(),
            points: vec![(1.0, 0.0), (8.0, 5.0)],
            curve: vec![(1.0, 1.0), (9.0, 6.0)],
        };
        for is_linear in [false, true] {
            let mut page = String::new();
            lines(&mut page, &chart(is_linear), &[one.clone(), two.clone()]);
            is_sound(&page);
            assert!(
                page.contains("a &lt; b") && page.contains("class=\"fit\""),
                "{page}"
            );
            // A logarithm knows no 0.
            let dots = if is_linear { 5 } else { 4 };
            assert_eq!(page.matches("<circle").count(), dots);
        }
        let mut page = String::new();
        lines(&mut page, &chart(false), &[Series::default()]);
        assert_eq!(page, "");
    }

    #[test]
    fn one_point_and_the_value_zero_are_in_order() {
        for point in [(1.0, 1.0), (4.0, 0.0), (0.0, 0.0)] {
            let points = vec![point];
            let one = Series {
                name: "x".into(),
                points,
                curve: Vec::new(),
            };
            for is_linear in [false, true] {
                let mut page = String::new();
                lines(&mut page, &chart(is_linear), std::slice::from_ref(&one));
                is_sound(&page);
            }
        }
    }

    #[test]
    fn heat_maps_have_a_cell_a_pair() {
        let mut page = String::new();
        let cells: Vec<_> = (0..4)
            .flat_map(|from| (0..4).map(move |to| (from, to, (from * 4 + to) as f64)))
            .filter(|(from, to, _)| from != to)
            .collect();
        heat_map(&mut page, "t", "c", &cells);
        is_sound(&page);
        assert_eq!(page.matches("<rect").count(), 12 + 40);
        assert!(page.contains("<title>2 to 3: 11</title>"), "{page}");
        let mut page = String::new();
        heat_map(&mut page, "t", "c", &[(0, 1, 5.0), (1, 0, 5.0)]);
        is_sound(&page);
    }

    #[test]
    fn histograms_show_every_sample() {
        let mut page = String::new();
        histogram(&mut page, &[(40.0, 999), (41.0, 1), (80.0, 3)]);
        is_sound(&page);
        assert_eq!(page.matches("class=\"bar\"").count(), 2);
        let mut page = String::new();
        histogram(&mut page, &[(7.0, 5)]);
        is_sound(&page);
    }

    #[test]
    fn steps_are_round() {
        assert_eq!(step(10.0, 5.0), 2.0);
        assert_eq!(step(0.9, 5.0), 0.2);
        assert_eq!(step(1234.0, 5.0), 500.0);
    }
}
