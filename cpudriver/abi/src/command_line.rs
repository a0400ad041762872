//! The words that the host tool passes to the system.
//!
//! ```text
//! exit=isa-debug-exit test-hooks cores=8 -- urpc-latency --rounds 100
//! └──────── words for the system ──────┘    └─ program and arguments ┘
//! ```
//!
//! | word                  | meaning                                                         |
//! |-----------------------|-----------------------------------------------------------------|
//! | `exit=isa-debug-exit` | powering off writes to port 0xf4, which ends QEMU               |
//! | `accel=NAME`          | how the machine is run: the label of every figure measured      |
//! | `test-hooks`          | CPU drivers and monitors obey calls that do harm on purpose     |
//! | `cores=N`             | how many cores to start at the most                             |
//! | `trace=RECORDS`       | each core has a ring of so many records, and records all        |
//! | `trace=RECORDS,A+B`   | … records the groups A and B (see [`trace::event::GROUPS`])      |
//! | `trace=RECORDS,none`  | … records nothing until a program says so; `none+A`: A then     |
//! | `trace=…,…,START,STOP`| … keeps what comes from one event until another (numbers; 0: none) |

use core::fmt;
use trace::MAX_RECORDS;
use trace::event::{ALL_GROUPS, GROUPS};

/// A command line taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandLine<'a> {
    /// Powering off writes to port 0xf4.
    pub debug_exit: bool,
    /// How the machine is run: `tcg`, `icount`, `kvm`, …; "unknown" where nobody says.
    pub accelerator: &'a str,
    /// Calls that do harm on purpose are obeyed.
    pub test_hooks: bool,
    /// How many cores to start at the most; `None`: all.
    pub cores: Option<usize>,
    /// What is recorded, or the `trace=` word that cannot be made out.
    pub trace: Result<Trace, BadTrace<'a>>,
    /// The program to run once all monitors are up, with its arguments.
    pub program: Option<&'a str>,
}

/// What each core records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Records of the ring of each core, a power of two; 0: there is none.
    pub records: u64,
    /// Groups that are recorded while recording is on, a bit each; 0 where there is no ring.
    pub groups: u32,
    /// Recording is on from the start.
    pub from_start: bool,
    /// Event from which on the host tool keeps records, and one after which a core records nothing more; 0:
    /// none.
    pub start: u16,
    /// As above.
    pub stop: u16,
}

/// What follows `trace=`, and makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadTrace<'a>(pub &'a str);

impl fmt::Display for BadTrace<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.0;
        write!(
            formatter,
            "`trace={word}` is not RECORDS[,GROUPS[,START,STOP]]: RECORDS is 0 or a power of two up to {MAX_RECORDS}, \
             GROUPS are joined by `+`, START and STOP are numbers of events: all, none"
        )?;
        for (_, name) in GROUPS {
            write!(formatter, ", {name}")?;
        }
        Ok(())
    }
}

impl Trace {
    fn parse(word: &str) -> Result<Self, BadTrace<'_>> {
        let mut parts = word.split(',');
        let records: u64 = parts
            .next()
            .and_then(|records| records.parse().ok())
            .ok_or(BadTrace(word))?;
        let names = parts.next();
        let mut event = || parts.next().map_or(Ok(0), str::parse);
        let (Ok(start), Ok(stop), None) = (event(), event(), parts.next()) else {
            return Err(BadTrace(word));
        };
        if records != 0 && !records.is_power_of_two() || records > MAX_RECORDS {
            return Err(BadTrace(word));
        }
        let (mut groups, mut from_start) = (0, true);
        for name in names.into_iter().flat_map(|names| names.split('+')) {
            match GROUPS.iter().find(|(_, known)| *known == name) {
                Some((number, _)) => groups |= 1 << number,
                None if name == "none" => from_start = false,
                None if name == "all" => groups = ALL_GROUPS,
                None => return Err(BadTrace(word)),
            }
        }
        if groups == 0 {
            groups = ALL_GROUPS;
        }
        Ok(match records {
            0 => Self::default(),
            _ => Self {
                records,
                groups,
                from_start,
                start,
                stop,
            },
        })
    }
}

/// Value written to port 0xf4 when the system powered off in good order: QEMU's own exit
/// status is then `(EXIT_VALUE << 1) | 1`. A triple fault makes it 0, a refused option 1.
pub const EXIT_VALUE: u8 = 0x2a;

/// Value written to port 0xf4 when core 0 met a fault of its own: its report is in the log
/// ring, or on the console where the system had not got that far.
pub const PANIC_VALUE: u8 = 0x2b;

impl<'a> CommandLine<'a> {
    /// Takes a command line apart. Words that it does not know are left aside: a boot
    /// loader may add some of its own.
    pub fn parse(line: &'a str) -> Self {
        let line = line.trim();
        let (words, program) = match line.strip_prefix("-- ") {
            Some(program) => ("", Some(program)),
            None => match line.split_once(" -- ") {
                Some((words, program)) => (words, Some(program)),
                None => (line, None),
            },
        };
        let mut parsed = Self {
            debug_exit: false,
            accelerator: "unknown",
            test_hooks: false,
            cores: None,
            trace: Ok(Trace::default()),
            program: program.map(str::trim).filter(|program| !program.is_empty()),
        };
        for word in words.split_ascii_whitespace() {
            match word.split_once('=') {
                Some(("exit", "isa-debug-exit")) => parsed.debug_exit = true,
                Some(("accel", name)) => parsed.accelerator = name,
                Some(("cores", number)) => parsed.cores = number.parse().ok(),
                Some(("trace", ring)) => parsed.trace = Trace::parse(ring),
                None if word == "test-hooks" => parsed.test_hooks = true,
                _ => {}
            }
        }
        parsed
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn takes_words_and_program_apart() {
        let line = CommandLine::parse(
            "exit=isa-debug-exit accel=tcg quiet cores=8 test-hooks -- hello -- x",
        );
        assert_eq!(
            line,
            CommandLine {
                debug_exit: true,
                accelerator: "tcg",
                test_hooks: true,
                cores: Some(8),
                trace: Ok(Trace::default()),
                program: Some("hello -- x"),
            }
        );
    }

    #[test]
    fn what_is_recorded() {
        let trace = |line| CommandLine::parse(line).trace;
        let made = |records, groups, from_start| {
            Ok(Trace {
                records,
                groups,
                from_start,
                start: 0,
                stop: 0,
            })
        };
        assert_eq!(trace("trace=4096"), made(4096, ALL_GROUPS, true));
        assert_eq!(
            trace("trace=1,lrpc+messages"),
            made(1, 1 << 2 | 1 << 6, true)
        );
        assert_eq!(
            trace("x trace=4194304,none -- y"),
            made(1 << 22, ALL_GROUPS, false)
        );
        assert_eq!(trace("trace=8,none+boot"), made(8, 1 << 8, false));
        let triggered = Trace {
            start: 1537,
            stop: 260,
            ..made(8, ALL_GROUPS, true).unwrap()
        };
        assert_eq!(trace("trace=8,all,1537,260"), Ok(triggered));
        for nothing in ["", "-- trace=8", "trace=0", "trace=0,boot"] {
            assert_eq!(trace(nothing), Ok(Trace::default()));
        }
        for bad in [
            "",
            "x",
            "-1",
            "3",
            "8388608",
            "8,",
            "8,boats",
            "8,boot+",
            "8,boot,lrpc",
            "8,boot,1,",
            "8,boot,1,65536",
            "8,boot,1,2,3",
        ] {
            let line = std::format!("trace={bad}");
            assert_eq!(CommandLine::parse(&line).trace, Err(BadTrace(bad)), "{bad}");
        }
        let text = std::format!("{}", BadTrace("5"));
        assert!(
            text.contains("`trace=5`") && text.ends_with("user, clocks"),
            "{text}"
        );
    }

    #[test]
    fn a_program_alone_and_nothing_at_all() {
        assert_eq!(CommandLine::parse("-- hello").program, Some("hello"));
        assert_eq!(CommandLine::parse(" -- "), CommandLine::parse(""));
        assert_eq!(CommandLine::parse("").program, None);
        assert_eq!(CommandLine::parse("cores=x").cores, None);
    }
}
