//! Everything that can go wrong, each with its own message and exit status.

use crate::coherence::CoherenceError;
use crate::size::Size;
use std::fmt::Write;
use std::io;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;
use thiserror::Error;

/// Exit statuses of the tool's own. Any other comes from the program that ran in the
/// guest, and so may one of these: the message on stderr tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// An option has a value that it cannot have.
    BadOption = 2,
    /// A tool is missing and could not be installed.
    MissingTool = 69,
    /// The system does not build.
    BuildFailed = 70,
    /// QEMU did not start, or broke down.
    QemuFailed = 71,
    /// The host refused a file, memory or the output.
    HostFailed = 74,
    /// The guest panicked on core 0, or ended without an exit status.
    GuestPanicked = 101,
    /// A core was lost; the program may have ended well on the others.
    CoreLost = 102,
    /// The guest reset itself, as after a triple fault.
    GuestReset = 103,
    /// The memory asked for does not suffice for the cores asked for.
    TooLittleMemory = 104,
    /// A benchmark failed, or gave no results to trust.
    BenchmarkFailed = 105,
    /// A simulated run broke a rule.
    RuleBroken = 106,
    /// A trace could not be read, or does not hold what it should.
    BadTrace = 107,
    /// The guest did not end within the time allowed.
    TimedOut = 124,
    /// Ctrl-C, or a request to terminate.
    Interrupted = 130,
}

impl Status {
    /// All of them with what they mean, for `--help`.
    pub const MEANINGS: [(Self, &str); 14] = [
        (Self::BadOption, "an option has a value that it cannot have"),
        (
            Self::MissingTool,
            "a tool is missing and could not be installed",
        ),
        (Self::BuildFailed, "the system does not build"),
        (Self::QemuFailed, "QEMU did not start, or broke down"),
        (
            Self::HostFailed,
            "the host refused a file, memory or the output",
        ),
        (
            Self::GuestPanicked,
            "the guest panicked on core 0, or ended without an exit status",
        ),
        (
            Self::CoreLost,
            "a core was lost, even if the program ended well",
        ),
        (
            Self::GuestReset,
            "the guest reset itself, as after a triple fault",
        ),
        (
            Self::TooLittleMemory,
            "--memory does not suffice for --cores",
        ),
        (
            Self::BenchmarkFailed,
            "a benchmark failed, or gave no results to trust",
        ),
        (Self::RuleBroken, "a simulated run broke a rule"),
        (
            Self::BadTrace,
            "a trace could not be read, or there was none to write",
        ),
        (Self::TimedOut, "the guest did not end within --timeout"),
        (Self::Interrupted, "Ctrl-C, or a request to terminate"),
    ];
}

/// The exit statuses as `--help` of `scripts/run` lists them.
pub static STATUS_HELP: LazyLock<String> = LazyLock::new(|| {
    statuses(
        "Exit status: that of the program which ran in the guest, 0 only if all went well. \
         The tool's own:\n",
    )
});

/// The same for `scripts/bench`.
pub static BENCH_STATUS_HELP: LazyLock<String> = LazyLock::new(|| {
    statuses("Exit status: 0 if all went well, even if a target is missed. Else:\n")
});

/// The same for `scripts/sim`.
pub static SIM_STATUS_HELP: LazyLock<String> =
    LazyLock::new(|| statuses("Exit status: 0 if no run broke a rule. Else:\n"));

fn statuses(head: &str) -> String {
    let mut help = head.to_owned();
    for (status, meaning) in Status::MEANINGS {
        let _ = writeln!(help, "  {:>3}  {meaning}", status as u8);
    }
    help
}

/// An option with a value that it cannot have.
#[derive(Debug, Error)]
pub enum OptionError {
    /// `--cores` out of range.
    #[error("--cores: expected a number from 1 to {maximum}, found {found}")]
    Cores {
        /// What was given.
        found: i64,
        /// The most there can be.
        maximum: usize,
    },
    /// `--cores` of a benchmark is no list, or out of range.
    #[error(
        "--cores: expected numbers from {minimum} to {maximum}, such as 2 or 2,4,8-12, found {found:?}"
    )]
    CoreList {
        /// What was given.
        found: String,
        /// The least there can be.
        minimum: usize,
        /// The most there can be.
        maximum: usize,
    },
    /// `--sockets` out of range.
    #[error(
        "--sockets: expected a number from 1 to {maximum} for {cores} cores, found {found}: \
         every socket has a core, and NUMA nodes are at most {nodes}"
    )]
    Sockets {
        /// What was given.
        found: i64,
        /// The most there can be with so many cores.
        maximum: usize,
        /// Cores of the machine.
        cores: usize,
        /// The most NUMA nodes there can be.
        nodes: usize,
    },
    /// `--memory` is not an amount of memory.
    #[error("--memory: expected an amount with its unit, such as 512M or 8G, found {found:?}")]
    Memory {
        /// What was given.
        found: String,
    },
    /// `--timeout 0`.
    #[error("--timeout: expected at least 1 second, found 0; --gdb runs without a limit")]
    NoTime,
    /// `--exec` without a word in it.
    #[error("--exec: expected a program and its arguments, such as 'hello', found nothing")]
    NoProgram,
    /// `--exec` with a character that the command line cannot carry.
    #[error("--exec: expected printable text, found the control character {found:?}")]
    ControlCharacter {
        /// The character.
        found: char,
    },
    /// `--exec` too long.
    #[error(
        "--exec: expected at most {maximum} bytes, found {found}; shorten the program's arguments"
    )]
    ProgramTooLong {
        /// Its length.
        found: usize,
        /// The longest that a program can be given.
        maximum: usize,
    },
    /// The whole command line too long.
    #[error(
        "the guest's command line may have {maximum} bytes and would have {found}; \
         shorten the program's arguments in --exec"
    )]
    CommandLineTooLong {
        /// Its length.
        found: usize,
        /// The longest that the system takes.
        maximum: usize,
    },
    /// `--records` is no size of a ring.
    #[error("--records: expected a power of two from {minimum} to {maximum}, found {found}")]
    Records {
        /// What was given.
        found: i64,
        /// The least there can be.
        minimum: u64,
        /// The most there can be.
        maximum: u64,
    },
    /// `--groups` names a group that there is not.
    #[error(
        "--groups: expected names joined by +, or all, or none, found {found:?}; there are: {}",
        .groups.join(", ")
    )]
    Groups {
        /// What was given.
        found: String,
        /// What there is.
        groups: Vec<&'static str>,
    },
    /// `--start` or `--stop` names an event that there is not.
    #[error(
        "{option}: expected an event, found {found:?}, which is none or several; there are: {}",
        .events.join(", ")
    )]
    Event {
        /// The option.
        option: &'static str,
        /// What was given.
        found: String,
        /// What there is.
        events: Vec<String>,
    },
    /// `--machine` is no machine.
    #[error("--machine: {found}: {reason}; there are also: {}", .shipped.join(", "))]
    Machine {
        /// What was given.
        found: String,
        /// What is wrong with it.
        reason: String,
        /// The machines that need no file.
        shipped: Vec<&'static str>,
    },
    /// A recording that is none.
    #[error("{option}: {found}: {reason}")]
    Recording {
        /// The option that names it.
        option: &'static str,
        /// What was given.
        found: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Options of the simulator that do not go together.
    #[error("{option}: {reason}")]
    Together {
        /// The option.
        option: &'static str,
        /// Why not.
        reason: &'static str,
    },
    /// `--start` or `--stop` names an event that is not recorded.
    #[error("{option}: expected an event of what is recorded (--groups {groups}), found {found}")]
    NotRecorded {
        /// The option.
        option: &'static str,
        /// The event.
        found: String,
        /// What is recorded.
        groups: String,
    },
    /// `--faults` is neither a schedule nor a campaign.
    #[error("--faults: {reason}; or random:COUNT, such as random:1000")]
    Faults {
        /// What is wrong with it.
        reason: String,
    },
    /// `--faults` names a core that is not there.
    #[error("--faults: expected cores from 0 to {}, found {core}: --cores has a run on {cores}", .cores - 1)]
    NoSuchCore {
        /// The core.
        core: usize,
        /// How many there are.
        cores: usize,
    },
    /// A plugin sees nothing of what the host's processors do.
    #[error(
        "--coherence: expected --accel icount or tcg, found kvm: only emulation counts cache lines"
    )]
    CoherenceWithKvm,
    /// `--exec` names no program of the bundle, and no benchmark.
    #[error("--exec: there is no program {found:?}; there are: {}; and the benchmarks {}", .programs.join(", "), .benchmarks.join(", "))]
    UnknownProgram {
        /// What was given.
        found: String,
        /// What there is.
        programs: Vec<String>,
        /// Benchmarks that are called otherwise than a program.
        benchmarks: Vec<&'static str>,
    },
}

/// Why the system could not be built or packed.
#[derive(Debug, Error)]
pub enum BuildError {
    /// cargo did not start.
    #[error("cargo did not start: {0}; is Rust installed? See https://rustup.rs")]
    NoCargo(#[source] io::Error),
    /// The compiler found errors.
    #[error("the system does not build; the compiler says:\n{messages}")]
    Compiler {
        /// What cargo and the compiler wrote.
        messages: String,
    },
    /// The build went well without a binary that a boot needs.
    #[error("the build made no binary {name:?} in package {package:?}; add one to its Cargo.toml")]
    NoBinary {
        /// The binary.
        name: &'static str,
        /// The package that ought to have it.
        package: &'static str,
    },
    /// A binary is not an ELF64 file with segments.
    #[error("{path}: expected an ELF64 executable for x86-64, found {found}")]
    BadElf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
    },
}

/// Why a benchmark gave no figures.
#[derive(Debug, Error)]
pub enum BenchmarkError {
    /// It failed.
    #[error("{program} ended with status {status}: expected 0; what it said stands above")]
    Program {
        /// Its name.
        program: &'static str,
        /// How it ended.
        status: i32,
    },
    /// A line of results that cannot be read.
    #[error(
        "expected `result` and one JSON object with benchmark, operation, unit and value or \
         median, found {line:?}: {reason}"
    )]
    Malformed {
        /// The line.
        line: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of results that cannot be read.
    #[error("{}: {reason}; expected a folder that scripts/bench --out or merge wrote", .path.display())]
    Results {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Folders that tell different figures of the same.
    #[error(
        "the folders contradict each other; compare them with scripts/bench compare, or leave one \
         out:\n    {}",
        .conflicts.join("\n    ")
    )]
    Conflict {
        /// Each figure, with both values and where they stand.
        conflicts: Vec<String>,
    },
    /// A baseline that cannot be read.
    #[error("{}: {reason}; scripts/bench baseline --update writes it anew", .path.display())]
    BaselineFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Figures that are not those of the baseline.
    #[error(
        "the baseline allows a change of {allowed_percent} %, at least {least}; \
         expected figures like that, found:\n    {}\n\
         if that is intended: scripts/bench baseline --update",
        .changes.join("\n    ")
    )]
    Baseline {
        /// The change that is allowed.
        allowed_percent: f64,
        /// The change that is allowed however small the figure is.
        least: f64,
        /// What changed, from what to what.
        changes: Vec<String>,
    },
    /// Not all that it has to measure was measured.
    #[error("expected results also for {missing:?}, found {}", listed(.found))]
    Missing {
        /// Operations without a result.
        missing: Vec<&'static str>,
        /// Operations with one.
        found: Vec<String>,
    },
}

/// Why there is no trace.
#[derive(Debug, Error)]
pub enum TraceError {
    /// A file that cannot be read.
    #[error("{}: {reason}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No core left a ring.
    #[error("no core left a trace: the boot ended before the first one had a ring")]
    Nothing,
}

/// Why a command did not end well.
#[derive(Debug, Error)]
pub enum Failure {
    /// A bad option.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// A missing tool.
    #[error("expected {tool}, found none. Install it, then run this again:\n    {install}")]
    MissingTool {
        /// The tool.
        tool: String,
        /// The command that installs it.
        install: String,
    },
    /// A failed build.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A failed benchmark.
    #[error(transparent)]
    Benchmark(#[from] BenchmarkError),
    /// Cache lines could not be counted.
    #[error(transparent)]
    Coherence(#[from] CoherenceError),
    /// There is no trace.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// QEMU said no.
    #[error("QEMU ended with {status}: expected the guest to power off. QEMU says:\n{stderr}")]
    Qemu {
        /// How it ended.
        status: String,
        /// What it wrote.
        stderr: String,
    },
    /// Simulated runs that broke rules.
    #[error("{count} of {runs} runs broke a rule; they stand above")]
    RuleBroken {
        /// How many.
        count: u64,
        /// Of how many.
        runs: u64,
    },
    /// The host said no.
    #[error("{what}: {source}")]
    Host {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Core 0 met a fault of its own.
    #[error("the guest panicked: core 0 is lost; its report stands above")]
    GuestPanicked,
    /// The bridge could not start the CPU driver.
    #[error("the bridge could not start the CPU driver; its reason stands above")]
    BridgeStopped,
    /// Powered off, but the program left no status.
    #[error(
        "the guest powered off without an exit status for its program; \
         expected one in the record of core 0"
    )]
    NoExitStatus,
    /// Cores were lost on the way.
    #[error("lost {} of {cores} cores: {}{}", .lost.len(), numbers(.lost), program_ended(*.program))]
    CoresLost {
        /// Their numbers.
        lost: Vec<u32>,
        /// Cores of the machine.
        cores: usize,
        /// Status of the program, where it came so far.
        program: Option<i32>,
    },
    /// Reset without a word.
    #[error("the guest reset itself, as after a triple fault: expected a power-off")]
    GuestReset,
    /// Too little memory.
    #[error(
        "--memory: {cores} cores need at least {least}, found {found}; ask for more, or leave \
         --memory out"
    )]
    TooLittleMemory {
        /// Cores asked for.
        cores: usize,
        /// What they need.
        least: Size,
        /// What was given.
        found: Size,
    },
    /// No end in sight.
    #[error("the guest did not end within {} s; give --timeout a larger number if it only needs longer", .limit.as_secs())]
    TimedOut {
        /// The time it had.
        limit: Duration,
    },
    /// Stopped from outside.
    #[error("interrupted")]
    Interrupted,
}

impl Failure {
    /// For `map_err`: names what was tried when the host refused it.
    pub fn host(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Host { what, source }
    }

    /// The exit status that goes with it.
    pub fn status(&self) -> Status {
        match self {
            Self::Option(_) => Status::BadOption,
            Self::MissingTool { .. } => Status::MissingTool,
            Self::Build(_) => Status::BuildFailed,
            Self::Benchmark(_) | Self::Coherence(_) => Status::BenchmarkFailed,
            Self::RuleBroken { .. } => Status::RuleBroken,
            Self::Trace(_) => Status::BadTrace,
            Self::Qemu { .. } => Status::QemuFailed,
            Self::Host { .. } => Status::HostFailed,
            Self::GuestPanicked | Self::BridgeStopped | Self::NoExitStatus => Status::GuestPanicked,
            Self::CoresLost { .. } => Status::CoreLost,
            Self::GuestReset => Status::GuestReset,
            Self::TooLittleMemory { .. } => Status::TooLittleMemory,
            Self::TimedOut { .. } => Status::TimedOut,
            Self::Interrupted => Status::Interrupted,
        }
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    format!("{names:?}")
}

fn program_ended(status: Option<i32>) -> String {
    match status {
        Some(status) => format!(" (the program itself ended with status {status})"),
        None => String::new(),
    }
}

/// `3, 5-8, 12`: numbers as people list them.
pub fn numbers(sorted: &[u32]) -> String {
    let mut text = String::new();
    let mut rest = sorted;
    while let [first, ..] = rest {
        let run = rest
            .iter()
            .zip(*first..)
            .take_while(|(number, expected)| *number == expected)
            .count();
        if !text.is_empty() {
            text.push_str(", ");
        }
        let last = rest[run - 1];
        let _ = match run {
            1 => write!(text, "{first}"),
            2 => write!(text, "{first}, {last}"),
            _ => write!(text, "{first}-{last}"),
        };
        rest = &rest[run..];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_listed_as_ranges() {
        assert_eq!(numbers(&[]), "");
        assert_eq!(numbers(&[3]), "3");
        assert_eq!(numbers(&[0, 1, 4, 5, 6, 9]), "0, 1, 4-6, 9");
    }

    #[test]
    fn every_status_is_its_own_and_in_the_help() {
        for (index, (status, meaning)) in Status::MEANINGS.iter().enumerate() {
            assert!(*status as u8 != 0);
            assert!(
                Status::MEANINGS[..index]
                    .iter()
                    .all(|(other, _)| other != status)
            );
            assert!(STATUS_HELP.contains(&format!("{:>3}  {meaning}\n", *status as u8)));
        }
    }
}
