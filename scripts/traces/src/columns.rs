//! Tables and figures for a terminal 100 columns wide.

use crate::recording::Header;

/// Columns of the terminal.
pub const WIDTH: usize = 100;

/// What the times of a trace are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Instructions of all cores together, which repeat to the digit.
    Instructions,
    /// Nanoseconds of a machine.
    Nanoseconds,
    /// Nanoseconds that a simulator made.
    Simulated,
    /// An emulator's, which say nothing of a machine: shares and counts alone are told.
    Unreal,
}

impl Unit {
    /// Those of a recording.
    pub fn of(header: &Header) -> Self {
        match header.accelerator.as_str() {
            "sim" => Self::Simulated,
            "kvm" => Self::Nanoseconds,
            _ if header.is_exact => Self::Instructions,
            _ => Self::Unreal,
        }
    }

    /// Whether a time may be told.
    pub fn is_told(self) -> bool {
        self != Self::Unreal
    }

    /// What a reader has to know of them.
    pub const fn note(self) -> &'static str {
        match self {
            Self::Instructions => {
                "times are guest instructions of all cores together, the same in every run"
            }
            Self::Nanoseconds => "times are nanoseconds of this machine",
            Self::Simulated => "times are simulated nanoseconds, of no machine",
            Self::Unreal => {
                "emulated without a count of instructions: times say nothing of a machine and are \
                 left out; shares are of the emulator's time"
            }
        }
    }

    /// One of it, in words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Instructions => "instructions",
            Self::Nanoseconds => "ns",
            Self::Simulated => "simulated ns",
            Self::Unreal => "emulator's ns",
        }
    }

    /// A model's nanoseconds in it.
    pub fn ticks(self, nanoseconds: u64, header: &Header) -> u64 {
        match self {
            Self::Instructions if header.hz > 0 => {
                let rate = u128::from(header.instruction_rate());
                let all = u128::from(nanoseconds) * rate + 500_000_000;
                u64::try_from(all / 1_000_000_000).unwrap_or(u64::MAX)
            }
            _ => nanoseconds,
        }
    }
}

/// A table. Columns whose head begins with `<` stand left, the others right; cells that are too long
/// make their column wider.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// One with these heads.
    pub fn new<Cell: Into<String>>(heads: impl IntoIterator<Item = Cell>) -> Self {
        let mut table = Self::default();
        table.row(heads);
        table
    }

    /// Adds a row.
    pub fn row<Cell: Into<String>>(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Whether there is nothing but heads.
    pub fn is_empty(&self) -> bool {
        self.rows.len() <= 1
    }

    /// As it is printed.
    pub fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let cells = cells.map(|cell| cell.trim_start_matches('<'));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (at, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let between = if column == 0 { "" } else { "  " };
                let head = &self.rows[0].get(column);
                let is_left = head.is_some_and(|head| head.starts_with('<'));
                let cell = if at == 0 {
                    cell.trim_start_matches('<')
                } else {
                    cell
                };
                line += &match is_left {
                    true => format!("{between}{cell:<width$}"),
                    false => format!("{between}{cell:>width$}"),
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// All digits, in groups of three.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three significant digits.
pub fn digits(value: f64) -> String {
    let size = value.abs();
    if value < 0.0 {
        format!("-{}", digits(size))
    } else if size >= 100.0 {
        grouped(size.round() as u64)
    } else if size == 0.0 {
        "0".to_owned()
    } else if size < 1e-4 {
        format!("{value:.1e}")
    } else {
        let places = (2.0 - size.log10().floor()).max(0.0) as usize;
        format!("{value:.places$}")
    }
}

/// Seven characters, eight at the very most: all digits below 100,000, then thousands, millions or more.
pub fn short(value: u64) -> String {
    const UNITS: [&str; 5] = ["k", "M", "G", "T", "P"];
    if value < 100_000 {
        return grouped(value);
    }
    let (mut size, mut unit) = (value as f64 / 1e3, 0);
    while size >= 9999.5 && unit + 1 < UNITS.len() {
        (size, unit) = (size / 1e3, unit + 1);
    }
    let digits = match size {
        _ if size < 99.995 => format!("{size:.2}"),
        _ if size < 999.95 => format!("{size:.1}"),
        _ => grouped(size.round() as u64),
    };
    format!("{digits} {}", UNITS[unit])
}

/// A difference, with its sign.
pub fn signed(before: u64, after: u64) -> String {
    match after >= before {
        true => format!("+{}", grouped(after - before)),
        false => format!("−{}", grouped(before - after)),
    }
}

/// Part of a whole in percent: "-" of nothing, and "<1" where it is not none of it.
pub fn percent(part: u64, whole: u64) -> String {
    match (part, whole) {
        (_, 0) => "-".to_owned(),
        (0, _) => "0".to_owned(),
        _ => match (part as f64 * 100.0 / whole as f64).round() {
            share if share < 1.0 => "<1".to_owned(),
            share => format!("{share}"),
        },
    }
}

/// An average, with one place below 100.
pub fn average(sum: u64, count: u64) -> String {
    let value = sum as f64 / count.max(1) as f64;
    match count {
        0 => "-".to_owned(),
        _ if value >= 100.0 => short(value.round() as u64),
        _ => format!("{value:.1}"),
    }
}

/// The value below or at which a share of sorted values lies; 0 of none.
pub fn percentile(sorted: &[u64], share: f64) -> u64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    let at = rank.clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied().unwrap_or(0)
}

/// Shortens a text to so many characters.
pub fn clipped(text: &str, most: usize) -> String {
    match text.chars().count() <= most {
        true => text.to_owned(),
        false => {
            text.chars()
                .take(most.saturating_sub(1))
                .collect::<String>()
                + "…"
        }
    }
}

/// Breaks words into lines, those after the first indented so far.
pub fn wrapped(text: &str, indent: usize) -> String {
    let mut lines = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > WIDTH {
            lines.push('\n');
            lines.push_str(&" ".repeat(indent));
            lines.push_str(word);
            column = indent + length;
        } else {
            if column > 0 {
                lines.push(' ');
                column += 1;
            }
            lines.push_str(word);
            column += length;
        }
    }
    lines.push('\n');
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_say_what_they_are() {
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(short(99_999), "99,999");
        assert_eq!(short(100_000), "100.0 k");
        assert_eq!(short(12_345_678), "12.35 M");
        assert_eq!(short(123_456_789), "123.5 M");
        assert_eq!(short(9_999_000), "9,999 k");
        assert_eq!(short(9_999_999), "10.00 M");
        assert!((0..64).all(|bit| short(u64::MAX >> bit).chars().count() <= 8));
        assert_eq!(percent(1, 1000), "<1");
        assert_eq!((percent(0, 5), percent(1, 0)), ("0".into(), "-".into()));
        assert_eq!(percent(2, 3), "67");
        assert_eq!(signed(5, 3), "−2");
        assert_eq!(average(7, 2), "3.5");
        let values: Vec<u64> = (1..=100).collect();
        let at = |share| percentile(&values, share);
        assert_eq!((at(0.5), at(0.99), at(1.0), at(0.0)), (50, 99, 100, 1));
        assert_eq!(percentile(&[], 0.5), 0);
    }

    #[test]
    fn tables_stand_in_columns_and_words_in_lines() {
        let mut table = Table::new(["<what", "n", "<text"]);
        table.row(["a longer one", "1,000", "so"]);
        assert_eq!(
            table.text(),
            "what              n  text\na longer one  1,000  so\n"
        );
        let lines = wrapped(&"word ".repeat(50), 2);
        assert!(lines.lines().all(|line| line.chars().count() <= WIDTH));
        assert!(lines.lines().nth(1).unwrap().starts_with("  word"));
        assert_eq!(clipped("abcdef", 4), "abc…");
    }

    #[test]
    fn nanoseconds_become_instructions_where_those_were_counted() {
        let header = Header {
            accelerator: "icount".into(),
            is_exact: true,
            hz: 500_000_000,
            ..Header::default()
        };
        let unit = Unit::of(&header);
        assert_eq!(unit, Unit::Instructions);
        assert_eq!(unit.ticks(1000, &header), 500);
        assert_eq!(unit.ticks(u64::MAX, &header), u64::MAX / 2 + 1);
        let eighths = Header {
            ticks_per_instruction: 8,
            hz: 4_000_000_000,
            ..header
        };
        assert_eq!(unit.ticks(1000, &eighths), 500);
        let tcg = Header {
            accelerator: "tcg".into(),
            ..Header::default()
        };
        assert!(!Unit::of(&tcg).is_told());
    }
}
