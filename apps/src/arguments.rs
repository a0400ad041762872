//! The words after a program's name: `--option VALUE` pairs, and what is wrong with them.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::ops::RangeInclusive;

/// Exit status of a program that was not used as it must be.
pub const MISUSE_STATUS: i32 = 2;

/// What is wrong with a program's arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misuse {
    /// No such option.
    Unknown(String),
    /// An option without its value.
    NoValue(String),
    /// An option that must be there.
    Missing(&'static str),
    /// A value that is not a number of the range.
    BadNumber {
        /// The option.
        option: &'static str,
        /// What was given.
        found: String,
        /// What it takes.
        range: RangeInclusive<u64>,
    },
    /// A value that is none of these words.
    BadChoice {
        /// The option.
        option: &'static str,
        /// What was given.
        found: String,
        /// What it takes.
        words: Vec<&'static str>,
    },
    /// Not a list of cores.
    BadList(String),
    /// A core that is not up.
    NoSuchCore {
        /// What was given.
        core: usize,
        /// The cores there are.
        up: Vec<usize>,
    },
}

impl fmt::Display for Misuse {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(word) => write!(formatter, "`{word}` is no option of it"),
            Self::NoValue(option) => write!(formatter, "`{option}` wants a value"),
            Self::Missing(option) => write!(formatter, "`{option}` must be given"),
            Self::BadNumber {
                option,
                found,
                range,
            } => write!(
                formatter,
                "`{option}` takes a number from {} to {}, not `{found}`",
                range.start(),
                range.end()
            ),
            Self::BadChoice {
                option,
                found,
                words,
            } => write!(
                formatter,
                "`{option}` takes one of {}, not `{found}`",
                words.join(", ")
            ),
            Self::BadList(found) => write!(
                formatter,
                "expected a list of cores such as 0,2,5-7 or all, found `{found}`"
            ),
            Self::NoSuchCore { core, up } => {
                write!(formatter, "core {core} is not up; up are ")?;
                write_list(formatter, up)
            }
        }
    }
}

/// Writes ascending numbers, runs of them as `first-last`.
fn write_list(formatter: &mut fmt::Formatter<'_>, numbers: &[usize]) -> fmt::Result {
    for (index, run) in numbers.chunk_by(|a, b| a + 1 == *b).enumerate() {
        let comma = if index > 0 { "," } else { "" };
        match run {
            [single] => write!(formatter, "{comma}{single}")?,
            [first, .., last] => write!(formatter, "{comma}{first}-{last}")?,
            [] => {}
        }
    }
    Ok(())
}

/// Options with their values.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    values: Vec<(String, String)>,
}

impl Arguments {
    /// Reads the words of this program, which knows these options.
    pub fn of_program(known: &[&str]) -> Result<Self, Misuse> {
        Self::read(rt::startup().arguments().skip(1), known)
    }

    /// Reads words; each option takes a value, after a space or `=`.
    pub fn read<'a>(
        mut words: impl Iterator<Item = &'a str>,
        known: &[&str],
    ) -> Result<Self, Misuse> {
        let mut values = Vec::new();
        while let Some(word) = words.next() {
            let (option, value) = match word.split_once('=') {
                Some((option, value)) => (option, Some(value)),
                None => (word, None),
            };
            if !known.contains(&option) {
                return Err(Misuse::Unknown(word.to_string()));
            }
            let value = value.or_else(|| words.next());
            let value = value.ok_or_else(|| Misuse::NoValue(option.to_string()))?;
            values.push((option.to_string(), value.to_string()));
        }
        Ok(Self { values })
    }

    /// The last value of an option.
    fn value(&self, option: &str) -> Option<&str> {
        let found = self.values.iter().rev().find(|(name, _)| name == option);
        found.map(|(_, value)| value.as_str())
    }

    /// A number, if the option was given.
    pub fn number(
        &self,
        option: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, Misuse> {
        let Some(text) = self.value(option) else {
            return Ok(None);
        };
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.map(Some).ok_or_else(|| Misuse::BadNumber {
            option,
            found: text.to_string(),
            range,
        })
    }

    /// Which of some words, by their places, if the option was given.
    pub fn choice(
        &self,
        option: &'static str,
        words: &[&'static str],
    ) -> Result<Option<usize>, Misuse> {
        let Some(text) = self.value(option) else {
            return Ok(None);
        };
        let place = words.iter().position(|word| *word == text);
        place.map(Some).ok_or_else(|| Misuse::BadChoice {
            option,
            found: text.to_string(),
            words: words.to_vec(),
        })
    }

    /// A core that is up, if the option was given.
    pub fn core(&self, option: &'static str, up: &[usize]) -> Result<Option<usize>, Misuse> {
        let Some(core) = self.number(option, 0..=u64::from(u32::MAX))? else {
            return Ok(None);
        };
        check(core as usize, up).map(Some)
    }

    /// Cores that are up, in ascending order: all of them unless the option names some.
    pub fn cores(&self, option: &str, up: &[usize]) -> Result<Vec<usize>, Misuse> {
        match self.value(option) {
            None | Some("all") => Ok(up.to_vec()),
            Some(text) => list(text, up),
        }
    }
}

fn check(core: usize, up: &[usize]) -> Result<usize, Misuse> {
    if up.contains(&core) {
        return Ok(core);
    }
    let up = up.to_vec();
    Err(Misuse::NoSuchCore { core, up })
}

/// Reads a list such as `0,2,5-7`.
fn list(text: &str, up: &[usize]) -> Result<Vec<usize>, Misuse> {
    let bad = || Misuse::BadList(text.to_string());
    let number = |word: &str| word.parse::<usize>().map_err(|_| bad());
    let mut cores = Vec::new();
    for piece in text.split(',') {
        let (first, last) = piece.split_once('-').unwrap_or((piece, piece));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(bad());
        }
        for core in first..=last {
            // Ends at the first that is not there, however long the range.
            cores.push(check(core, up)?);
        }
    }
    cores.sort_unstable();
    cores.dedup();
    Ok(cores)
}

/// Tells a person how to use the program; returns the exit status.
pub fn explain(misuse: &Misuse, usage: &str) -> i32 {
    let name = rt::startup().arguments().next().unwrap_or("?");
    rt::println!("{name}: {misuse}");
    rt::println!("usage: {usage}");
    MISUSE_STATUS
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: [usize; 5] = [0, 1, 2, 4, 5];

    fn read(words: &str) -> Result<Arguments, Misuse> {
        Arguments::read(words.split_ascii_whitespace(), &["--cores", "--rounds"])
    }

    #[test]
    fn reads_numbers_and_lists() {
        let arguments = read("--rounds 7 --cores=4-5,0,4 --rounds=9").unwrap();
        assert_eq!(arguments.number("--rounds", 1..=9), Ok(Some(9)));
        assert_eq!(arguments.cores("--cores", &UP), Ok([0, 4, 5].into()));
        let none = read("").unwrap();
        assert_eq!(none.number("--rounds", 1..=9), Ok(None));
        assert_eq!(none.cores("--cores", &UP), Ok(UP.into()));
    }

    #[test]
    fn says_what_is_wrong() {
        let message = |misuse: Misuse| misuse.to_string();
        assert_eq!(message(read("x").unwrap_err()), "`x` is no option of it");
        assert_eq!(
            message(read("--rounds").unwrap_err()),
            "`--rounds` wants a value"
        );
        let arguments = read("--rounds 10 --cores 0-18446744073709551615").unwrap();
        assert_eq!(
            message(arguments.number("--rounds", 1..=9).unwrap_err()),
            "`--rounds` takes a number from 1 to 9, not `10`"
        );
        assert_eq!(
            message(arguments.cores("--cores", &UP).unwrap_err()),
            "core 3 is not up; up are 0-2,4-5"
        );
        for bad in ["5-4", "", "1,,2", "one", "-1"] {
            assert!(matches!(list(bad, &UP), Err(Misuse::BadList(_))), "{bad}");
        }
    }
}
