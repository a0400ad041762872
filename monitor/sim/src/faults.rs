//! What goes wrong in a run, and when.
//!
//! A schedule is text, its faults parted by `;`:
//!
//! | fault                          | what happens                                                   |
//! |--------------------------------|----------------------------------------------------------------|
//! | `stop 3 at 1ms`                | the core does nothing any more; what it was sending is cut off |
//! | `stop 3 at 1ms after 2`        | from then on it stops once it has sent 2 messages, upkeep aside |
//! | `freeze 2 at 2ms for 5ms`      | it does nothing for a time, and then goes on                   |
//! | `slow 4 by 10 at 1ms for 1ms`  | all that it does takes 10 times as long; without `for`: for good |
//! | `delay 1->2 by 3ms at 1ms for 2ms` | what is sent there in that time takes so much longer       |
//! | `lose-doorbell 5 at 1ms`       | the next doorbell of the core wakes nobody                     |
//! | `restart 3 at 9ms`             | a fresh monitor starts there, and a core that lives sponsors it |
//!
//! Times are numbers with `ns`, `us`, `ms` or `s`. Order within a pair of cores holds whatever
//! happens.

use crate::random::Random;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// The latest that anything happens: an hour.
const MAX_NS: u64 = 3_600_000_000_000;
/// The most that a core may be slowed by.
const MAX_FACTOR: u64 = 1_000_000;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A core stops.
    Stop {
        /// The core.
        core: usize,
        /// After so many messages, upkeep aside; 0: at once.
        after: u64,
    },
    /// A core does nothing for a time.
    Freeze {
        /// The core.
        core: usize,
        /// How long, in nanoseconds.
        for_ns: u64,
    },
    /// A core takes longer for all that it does.
    Slow {
        /// The core.
        core: usize,
        /// How many times as long.
        factor: u64,
        /// How long that lasts, in nanoseconds; `None`: for good.
        for_ns: Option<u64>,
    },
    /// Messages from one core to another take longer.
    Delay {
        /// Who sends.
        from: usize,
        /// Who receives.
        to: usize,
        /// How much longer, in nanoseconds.
        by_ns: u64,
        /// How long that lasts, in nanoseconds.
        for_ns: u64,
    },
    /// A doorbell is not heard.
    LoseDoorbell {
        /// The core whose it is.
        core: usize,
    },
    /// A fresh monitor starts on a core.
    Restart {
        /// The core.
        core: usize,
    },
}

/// A fault with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    /// When, in nanoseconds from the beginning.
    pub at_ns: u64,
    /// What.
    pub kind: Kind,
}

impl Fault {
    /// When it has no more effect by itself, in nanoseconds.
    pub fn over_ns(&self) -> u64 {
        self.at_ns
            + match self.kind {
                Kind::Freeze { for_ns, .. } => for_ns,
                Kind::Slow { for_ns, .. } => for_ns.unwrap_or(0),
                Kind::Delay { by_ns, for_ns, .. } => by_ns + for_ns,
                Kind::Stop { .. } | Kind::LoseDoorbell { .. } | Kind::Restart { .. } => 0,
            }
    }

    /// The highest core that it names.
    fn core(&self) -> usize {
        match self.kind {
            Kind::Stop { core, .. }
            | Kind::Freeze { core, .. }
            | Kind::Slow { core, .. }
            | Kind::LoseDoorbell { core }
            | Kind::Restart { core } => core,
            Kind::Delay { from, to, .. } => from.max(to),
        }
    }
}

/// Faults, in the order in which they were named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Schedule(pub Vec<Fault>);

impl Schedule {
    /// Faults that a seed determines: some, within the first `within_ns`, of lengths up to some
    /// times `patience_ns`.
    pub fn random(seed: u64, cores: usize, within_ns: u64, patience_ns: u64) -> Self {
        let mut random = Random::new(seed ^ 0x6661_756c_7473);
        let count = 1 + random.below(5);
        let mut length = {
            let mut random = Random::new(random.word());
            // Short ones as often as long ones.
            move || {
                let most = patience_ns.saturating_mul(8).max(2);
                let bits = 64 - most.leading_zeros();
                let bits = 1 + random.below(bits.into()) as u32;
                1 + random.below((u64::MAX >> (64 - bits)).min(most))
            }
        };
        let faults = (0..count).map(|_| {
            let core = random.below(cores as u64) as usize;
            let kind = match random.below(12) {
                0..=1 => Kind::Stop { core, after: 0 },
                // In the middle of something, which a time alone hardly ever hits.
                2..=3 => Kind::Stop {
                    core,
                    after: 1 + random.below(2 * cores as u64),
                },
                4..=6 => Kind::Freeze {
                    core,
                    for_ns: length(),
                },
                7 => Kind::Slow {
                    core,
                    factor: 2 + random.below(2000),
                    for_ns: Some(length()),
                },
                8..=9 if cores > 1 => Kind::Delay {
                    from: core,
                    to: (core + 1 + random.below(cores as u64 - 1) as usize) % cores,
                    by_ns: length(),
                    for_ns: length(),
                },
                10 => Kind::Restart { core },
                _ => Kind::LoseDoorbell { core },
            };
            Fault {
                at_ns: random.below(within_ns),
                kind,
            }
        });
        let mut faults: Vec<Fault> = faults.collect();
        faults.sort_by_key(|fault| fault.at_ns);
        Self(faults)
    }

    /// When the last of them is over, in nanoseconds.
    pub fn over_ns(&self) -> u64 {
        self.0.iter().map(Fault::over_ns).max().unwrap_or(0)
    }

    /// The highest core that they name.
    pub fn highest_core(&self) -> Option<usize> {
        self.0.iter().map(Fault::core).max()
    }
}

/// Why a text is no schedule.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FaultError {
    /// No fault at all, or none of those that there are.
    #[error(
        "expected faults such as 'stop 3 at 1ms; freeze 2 at 2ms for 5ms; slow 4 by 10 at 1ms; \
         delay 1->2 by 3ms at 1ms for 2ms; lose-doorbell 5 at 1ms; restart 3 at 9ms', found {0:?}"
    )]
    Unknown(String),
    /// A fault with words missing, wrong or left over.
    #[error("{fault:?}: expected {expected}")]
    Malformed {
        /// As it was given.
        fault: String,
        /// What it ought to be.
        expected: String,
    },
}

impl FromStr for Schedule {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let faults: Vec<&str> = text.split(';').map(str::trim).collect();
        let faults = faults.iter().filter(|fault| !fault.is_empty());
        let faults: Vec<Fault> = faults.map(|fault| parse(fault)).collect::<Result<_, _>>()?;
        if faults.is_empty() {
            return Err(FaultError::Unknown(text.into()));
        }
        Ok(Self(faults))
    }
}

fn parse(text: &str) -> Result<Fault, FaultError> {
    let malformed = |expected: &str| FaultError::Malformed {
        fault: text.into(),
        expected: expected.into(),
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    let (name, form) = match words.first().copied().unwrap_or_default() {
        name @ "stop" => (name, "stop CORE at TIME [after COUNT]"),
        name @ "freeze" => (name, "freeze CORE at TIME for TIME"),
        name @ "slow" => (name, "slow CORE by FACTOR at TIME [for TIME]"),
        name @ "delay" => (name, "delay CORE->CORE by TIME at TIME for TIME"),
        name @ "lose-doorbell" => (name, "lose-doorbell CORE at TIME"),
        name @ "restart" => (name, "restart CORE at TIME"),
        _ => return Err(FaultError::Unknown(text.into())),
    };
    let wrong = || malformed(form);
    let (target, rest) = words[1..].split_first().ok_or_else(wrong)?;
    // What follows are pairs of a word and a value, each word once, in any order.
    let mut values = [("by", None), ("at", None), ("for", None), ("after", None)];
    for pair in rest.chunks(2) {
        let [word, value] = pair else {
            return Err(wrong());
        };
        let known = values.iter_mut().find(|(known, _)| known == word);
        let (_, place) = known
            .filter(|(_, value)| value.is_none())
            .ok_or_else(wrong)?;
        *place = Some(*value);
    }
    let [by, at, lasts, after] = values.map(|(_, value)| value);
    let time = |text: &str| {
        time(text).ok_or_else(|| malformed(&format!("a time up to 1 h such as 5ms, not {text:?}")))
    };
    let core = |text: &str| text.parse::<u16>().map(usize::from).map_err(|_| wrong());
    let at_ns = time(at.ok_or_else(wrong)?)?;
    if after.is_some() && name != "stop" {
        return Err(wrong());
    }
    let after = after.map(str::parse);
    let kind = match (name, by, lasts) {
        ("stop", None, None) => Kind::Stop {
            core: core(target)?,
            after: after.unwrap_or(Ok(0)).map_err(|_| wrong())?,
        },
        ("freeze", None, Some(lasts)) => Kind::Freeze {
            core: core(target)?,
            for_ns: time(lasts)?,
        },
        ("slow", Some(by), lasts) => Kind::Slow {
            core: core(target)?,
            factor: by
                .parse()
                .ok()
                .filter(|factor| (1..=MAX_FACTOR).contains(factor))
                .ok_or_else(|| {
                    malformed(&format!("a factor from 1 to {MAX_FACTOR}, not {by:?}"))
                })?,
            for_ns: lasts.map(time).transpose()?,
        },
        ("delay", Some(by), Some(lasts)) => {
            let (from, to) = target.split_once("->").ok_or_else(wrong)?;
            let (from, to) = (core(from)?, core(to)?);
            if from == to {
                return Err(malformed("two cores"));
            }
            Kind::Delay {
                from,
                to,
                by_ns: time(by)?,
                for_ns: time(lasts)?,
            }
        }
        ("lose-doorbell", None, None) => Kind::LoseDoorbell {
            core: core(target)?,
        },
        ("restart", None, None) => Kind::Restart {
            core: core(target)?,
        },
        _ => return Err(wrong()),
    };
    Ok(Fault { at_ns, kind })
}

/// Reads `5ms`, `0.5us`.
fn time(text: &str) -> Option<u64> {
    let unit = text.find(|letter: char| letter.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit);
    let unit_ns = match unit {
        "ns" => 1.0,
        "us" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        _ => return None,
    };
    let is_plain = number
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let time = number.parse::<f64>().ok().filter(|_| is_plain)? * unit_ns;
    (time <= MAX_NS as f64).then_some(time.round() as u64)
}

impl fmt::Display for Schedule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Fault { at_ns, kind }) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str("; ")?;
            }
            match kind {
                Kind::Stop { core, after: 0 } => write!(formatter, "stop {core} at {at_ns}ns"),
                Kind::Stop { core, after } => {
                    write!(formatter, "stop {core} at {at_ns}ns after {after}")
                }
                Kind::Freeze { core, for_ns } => {
                    write!(formatter, "freeze {core} at {at_ns}ns for {for_ns}ns")
                }
                Kind::Slow {
                    core,
                    factor,
                    for_ns,
                } => {
                    write!(formatter, "slow {core} by {factor} at {at_ns}ns")?;
                    for_ns.map_or(Ok(()), |for_ns| write!(formatter, " for {for_ns}ns"))
                }
                Kind::Delay {
                    from,
                    to,
                    by_ns,
                    for_ns,
                } => write!(
                    formatter,
                    "delay {from}->{to} by {by_ns}ns at {at_ns}ns for {for_ns}ns"
                ),
                Kind::LoseDoorbell { core } => {
                    write!(formatter, "lose-doorbell {core} at {at_ns}ns")
                }
                Kind::Restart { core } => write!(formatter, "restart {core} at {at_ns}ns"),
            }?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_read_and_written() {
        let text = "stop 3 at 1ms; freeze 2 at 2ms for 5ms; slow 4 by 10 at 1ms; \
                    delay 1->2 by 3ms at 1ms for 2ms; lose-doorbell 5 at 0.5us; restart 3 at 9ms;";
        let schedule: Schedule = text.parse().unwrap();
        assert_eq!(schedule.0.len(), 6);
        assert_eq!(schedule.0[4].at_ns, 500);
        assert_eq!(schedule.over_ns(), 9_000_000);
        assert_eq!(schedule.highest_core(), Some(5));
        assert_eq!(schedule.to_string().parse(), Ok(schedule));
        let slow = "slow 1 by 3 for 2ms at 1ms".parse::<Schedule>().unwrap();
        assert_eq!(slow.over_ns(), 3_000_000);
    }

    #[test]
    fn random_schedules_can_be_written_down() {
        for seed in 0..2000 {
            let schedule = Schedule::random(seed, 1 + seed as usize % 9, 1_000_000, 100_000);
            assert_eq!(schedule.to_string().parse(), Ok(schedule.clone()));
            assert!(schedule.highest_core().unwrap() <= seed as usize % 9);
        }
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for (text, words) in [
            ("", "expected faults such as"),
            (" ; ", "expected faults such as"),
            ("halt 3 at 1ms", "found \"halt 3 at 1ms\""),
            ("stop 3", "expected stop CORE at TIME"),
            ("stop -3 at 1ms", "expected stop CORE at TIME"),
            ("stop 3 at 1ms at 2ms", "expected stop CORE at TIME"),
            ("stop 3 at 1ms for 2ms", "expected stop CORE at TIME"),
            (
                "stop 3 at 1ms after x",
                "expected stop CORE at TIME [after COUNT]",
            ),
            ("freeze 3 at 1ms for 1ms after 1", "expected freeze CORE"),
            ("stop 3 at 1", "a time up to 1 h such as 5ms, not \"1\""),
            ("stop 3 at 1h", "not \"1h\""),
            ("stop 3 at 1e9ms", "not \"1e9ms\""),
            ("stop 3 at 3601s", "not \"3601s\""),
            ("stop 3 at -1ms", "not \"-1ms\""),
            ("freeze 2 at 2ms", "freeze CORE at TIME for TIME"),
            ("slow 2 by 0 at 2ms", "a factor from 1 to"),
            ("delay 1-2 by 1ms at 1ms for 1ms", "delay CORE->CORE"),
            ("delay 1->1 by 1ms at 1ms for 1ms", "two cores"),
            ("stop 1 at 1ms, stop 2 at 1ms", "expected stop CORE"),
        ] {
            let error = text.parse::<Schedule>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
