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
    /// The program to run once all monitors are up, with its arguments.
    pub program: Option<&'a str>,
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
            program: program.map(str::trim).filter(|program| !program.is_empty()),
        };
        for word in words.split_ascii_whitespace() {
            match word.split_once('=') {
                Some(("exit", "isa-debug-exit")) => parsed.debug_exit = true,
                Some(("accel", name)) => parsed.accelerator = name,
                Some(("cores", number)) => parsed.cores = number.parse().ok(),
                None if word == "test-hooks" => parsed.test_hooks = true,
                _ => {}
            }
        }
        parsed
    }
}

#[cfg(test)]
mod tests {
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
                program: Some("hello -- x"),
            }
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
