//! What was asked for, checked: how much is recorded, of what, from when until when.

use crate::accelerator::Choice;
use crate::failure::{Failure, OptionError};
use crate::launch::Boot;
use crate::options::{Request, RunOptions};
use crate::project::Project;
use crate::run::quoted;
use abi::layout::LARGE_PAGE;
use clap::Args;
use recorder::event::{EVENTS, Event, GROUPS, group};
use recorder::{CONTROL_BYTES, MAX_RECORDS, Record};
use std::fmt::Write;
use std::path::PathBuf;
use traces::names;

/// The program when nobody names one: its messages cross every core.
const DEFAULT_PROGRAM: &str = "bench-agreement --quick --only unmap";
/// Fewest records of a ring: a page.
const LEAST_RECORDS: u64 = CONTROL_BYTES / size_of::<Record>() as u64;
/// Records of all cores together when nobody says how many, and of each, at least: core 0, which begins most, has
/// far more than others.
const RECORDS_IN_ALL: u64 = 1_000_000;
const RECORDS_OF_ONE: u64 = 1 << 17;
/// The private share of a core's RAM, in which its ring lies.
const PRIVATE: (u64, u64) = (5, 8);
/// Words for all groups, and for none.
const ALL: &str = "all";
const NONE: &str = "none";

/// What to record, and of what.
#[derive(Args, Clone, Debug)]
pub struct Wanted {
    /// Sockets, each a NUMA node of its own: 1 up to the number of cores, at most 64
    #[arg(
        long,
        value_name = "S",
        default_value_t = 1,
        allow_negative_numbers = true
    )]
    pub sockets: i64,
    /// Memory of the machine, such as 512M or 8G [default: 16M a core and what its ring takes, at
    /// least 512M]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub memory: Option<String>,
    /// How QEMU executes the guest
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    pub accel: Choice,
    /// Program to run once all monitors are up; its exit status becomes this command's
    #[arg(long, value_name = "PROGRAM ARGS", default_value = DEFAULT_PROGRAM, allow_hyphen_values = true)]
    pub exec: String,
    /// Ends the run after so many seconds [default: 60 and 1 a core; with icount 4 times that]
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Folder for trace.atoll, trace.perfetto-trace and trace.html [default: target/trace]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Newest records that each core keeps, a power of two [default: a million in all, and 131072 each, at least]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub records: Option<i64>,
    /// What is recorded, such as messages+protocols; none: nothing, until a program starts it
    #[arg(long, value_name = "GROUP+GROUP", default_value = ALL)]
    pub groups: String,
    /// Keeps what came from the first such event on, such as unmap or protocols:begin
    #[arg(long, value_name = "EVENT")]
    pub start: Option<String>,
    /// Keeps what came until the first such event after that
    #[arg(long, value_name = "EVENT")]
    pub stop: Option<String>,
    /// Leaves out the log lines of CPU drivers and monitors
    #[arg(long)]
    pub quiet: bool,
    /// Lets programs do harm to the system on purpose, for tests of its isolation
    #[arg(long, hide = true)]
    pub test_hooks: bool,
    /// Another QEMU than the installed one
    #[arg(long, hide = true, value_name = "PATH")]
    pub qemu: Option<PathBuf>,
}

/// The rings of a boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rings {
    /// Records of each core's, a power of two.
    pub records: u64,
    /// Groups that are recorded, as the system is told; `None`: all.
    pub groups: Option<String>,
    /// Event from which on records are kept.
    pub start: Option<u16>,
    /// Event until which they are.
    pub stop: Option<u16>,
}

impl Wanted {
    /// What `scripts/trace` records without options.
    pub fn defaults() -> Self {
        Self {
            sockets: 1,
            memory: None,
            accel: Choice::Auto,
            exec: DEFAULT_PROGRAM.to_owned(),
            timeout: None,
            out: None,
            records: None,
            groups: ALL.to_owned(),
            start: None,
            stop: None,
            quiet: false,
            test_hooks: false,
            qemu: None,
        }
    }

    /// Checks every option, for a machine of so many cores.
    pub fn check(&self, cores: i64) -> Result<Request, Failure> {
        let records = match self.records {
            None => default_records(cores),
            Some(found) => u64::try_from(found)
                .ok()
                .filter(|count| (LEAST_RECORDS..=MAX_RECORDS).contains(count))
                .filter(|count| count.is_power_of_two())
                .ok_or(OptionError::Records {
                    found,
                    minimum: LEAST_RECORDS,
                    maximum: MAX_RECORDS,
                })?,
        };
        let rings = Rings {
            records,
            groups: groups(&self.groups)?,
            start: event("--start", self.start.as_deref(), &self.groups)?,
            stop: event("--stop", self.stop.as_deref(), &self.groups)?,
        };
        let options = RunOptions {
            cores,
            sockets: self.sockets,
            memory: self.memory.clone(),
            accel: self.accel,
            exec: self.exec.clone(),
            timeout: self.timeout,
            coherence: None,
            gdb: false,
            quiet: self.quiet,
            test_hooks: self.test_hooks,
            qemu: self.qemu.clone(),
            trace: Some(rings),
        };
        options.check()
    }

    /// Where the files go.
    pub fn folder(&self, project: &Project) -> PathBuf {
        let default = || project.target.join("trace");
        self.out.clone().unwrap_or_else(default)
    }
}

/// Records of a core when nobody says how many.
fn default_records(cores: i64) -> u64 {
    let cores = u64::try_from(cores).unwrap_or(1).max(1);
    let share = RECORDS_IN_ALL.div_ceil(cores).next_power_of_two();
    share.max(RECORDS_OF_ONE)
}

/// Groups as the system is told; `None`: all.
fn groups(text: &str) -> Result<Option<String>, OptionError> {
    let is_known = |name: &str| GROUPS.iter().any(|(_, known)| *known == name);
    match text {
        ALL => Ok(None),
        NONE => Ok(Some(NONE.to_owned())),
        names if names.split('+').all(is_known) => Ok(Some(names.to_owned())),
        found => Err(OptionError::Groups {
            found: found.to_owned(),
            groups: GROUPS.iter().map(|(_, name)| *name).collect(),
        }),
    }
}

/// An event by its name, with or without its group's in front. It must be of these groups.
fn event(
    option: &'static str,
    text: Option<&str>,
    groups: &str,
) -> Result<Option<u16>, OptionError> {
    let Some(text) = text else { return Ok(None) };
    // Where nothing is recorded until a program starts it, that says what.
    let is_recorded = |event: &Event| {
        let is_its = |(number, name): &(u32, &str)| {
            *number == group(event.number) && groups.split('+').any(|one| one == *name)
        };
        matches!(groups, ALL | NONE) || GROUPS.iter().any(is_its)
    };
    let is_meant = |event: &&Event| event.name == text || names::event(event.number) == text;
    let mut meant = EVENTS.iter().filter(is_meant);
    match (meant.next(), meant.next()) {
        (Some(event), None) if is_recorded(event) => Ok(Some(event.number)),
        (Some(event), None) => Err(OptionError::NotRecorded {
            option,
            found: names::event(event.number),
            groups: groups.to_owned(),
        }),
        _ => Err(OptionError::Event {
            option,
            found: text.to_owned(),
            events: EVENTS.iter().map(|one| names::event(one.number)).collect(),
        }),
    }
}

impl Rings {
    /// The word of it on the system's command line, a space in front.
    pub fn words(&self) -> String {
        let mut words = format!(" trace={}", self.records);
        let is_triggered = self.start.is_some() || self.stop.is_some();
        match &self.groups {
            Some(groups) => words.extend([",", groups]),
            None if is_triggered => words.extend([",", ALL]),
            None => {}
        }
        if is_triggered {
            let [start, stop] = [self.start, self.stop].map(Option::unwrap_or_default);
            let _ = write!(words, ",{start},{stop}");
        }
        words
    }

    /// MiB of RAM that each core needs for its ring.
    pub fn mebibytes(&self) -> u64 {
        let bytes = CONTROL_BYTES + self.records * size_of::<Record>() as u64;
        let share = (bytes * PRIVATE.1).div_ceil(PRIVATE.0);
        share.next_multiple_of(LARGE_PAGE) >> 20
    }
}

/// The command that records this again.
pub fn command(boot: &Boot) -> String {
    let request = &boot.request;
    let mut words = vec![
        "scripts/trace".to_owned(),
        format!("--cores {}", request.cores),
        format!("--sockets {}", request.sockets),
        format!("--memory {}", request.memory),
        format!("--accel {}", boot.accelerator),
    ];
    if let Some(limit) = boot.limit {
        words.push(format!("--timeout {}", limit.as_secs()));
    }
    if let Some(rings) = &request.trace {
        words.push(format!("--records {}", rings.records));
        words.extend(rings.groups.iter().map(|names| format!("--groups {names}")));
        for (option, number) in [("--start", rings.start), ("--stop", rings.stop)] {
            words
                .extend(number.map(|number| format!("{option} {}", quoted(&names::event(number)))));
        }
    }
    if request.test_hooks {
        words.push("--test-hooks".to_owned());
    }
    words.push(format!("--exec {}", quoted(&request.exec)));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accelerator::Accelerator;
    use crate::failure::Status;
    use crate::trace::TraceOptions;
    use clap::Parser;
    use recorder::event::SEND;

    /// A command line, as the tool reads it.
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: TraceOptions,
    }

    fn read(line: &str) -> Result<Request, Failure> {
        let words = std::iter::once("trace").chain(line.split_whitespace());
        let options = Line::try_parse_from(words).unwrap().options;
        options.wanted.check(options.cores)
    }

    fn rings(line: &str) -> Rings {
        read(line).unwrap().trace.unwrap()
    }

    #[test]
    fn the_system_is_told_what_to_record() {
        let line = "--cores 4 --records 4096 --groups messages+user --start send --stop user:end";
        let request = read(line).unwrap();
        assert_eq!(
            request.command_line(Accelerator::Icount),
            format!(
                "exit=isa-debug-exit accel=icount trace=4096,messages+user,{SEND},{} -- {DEFAULT_PROGRAM}",
                recorder::event::USER_END
            )
        );
        assert_eq!(rings("--groups none").groups.as_deref(), Some("none"));
        assert_eq!(rings("").words(), " trace=131072");
        let words = rings("--groups none --start send").words();
        assert_eq!(words, format!(" trace=131072,none,{SEND},0"));
        let words = rings("--start send").words();
        assert_eq!(words, format!(" trace=131072,all,{SEND},0"));
    }

    #[test]
    fn a_million_records_fit_by_default() {
        for cores in [1, 2, 3, 8, 64, 100, 255] {
            let request = read(&format!("--cores {cores}")).unwrap();
            let rings = request.trace.unwrap();
            assert!(rings.records * cores >= 1_000_000, "{cores}");
            // In the private part of a core's share, beside what a core has without a ring.
            let share = request.memory.bytes / cores - (16 << 20);
            let ring = CONTROL_BYTES + rings.records * 32;
            assert!(
                share * PRIVATE.0 / PRIVATE.1 >= ring || cores <= 8,
                "{cores}"
            );
        }
        assert_eq!(rings("--cores 64").records, 131_072);
        assert_eq!(rings("--cores 1").records, 1 << 20);
    }

    #[test]
    fn bad_values_say_what_is_expected() {
        for (line, expected) in [
            ("--cores 0", "expected a number from 1 to 255, found 0"),
            ("--cores -1", "expected a number from 1 to 255, found -1"),
            ("--records 0", "a power of two from 128 to 4194304, found 0"),
            ("--records -8", "found -8"),
            ("--records 1000", "found 1000"),
            ("--records 8388608", "found 8388608"),
            ("--groups what", "found \"what\""),
            ("--groups messages,user", "joined by +"),
            ("--groups messages+", "there are: dispatch"),
            ("--start begin", "which is none or several"),
            ("--stop nothing", "--stop: expected an event"),
            ("--start lrpc:send", "--start: expected an event"),
            (
                "--groups user+boot --stop send",
                "--stop: expected an event of what is recorded (--groups user+boot), found messages:send",
            ),
            ("--timeout 0", "at least 1 second"),
        ] {
            let failure = read(line).unwrap_err();
            assert!(failure.to_string().contains(expected), "{line}: {failure}");
            assert_eq!(failure.status(), Status::BadOption, "{line}");
        }
        let failure = read("--records 4194304 --memory 512M").unwrap_err();
        assert_eq!(failure.status(), Status::TooLittleMemory);
    }

    #[test]
    fn the_command_records_the_same_again() {
        let line = "--cores 3 --records 256 --groups messages+protocols --start protocols:begin --exec hello";
        let request = read(line).unwrap();
        let boot = Boot {
            request: request.clone(),
            accelerator: Accelerator::Icount,
            limit: None,
        };
        let command = command(&boot).replace('\'', "");
        let again = read(command.strip_prefix("scripts/trace ").unwrap()).unwrap();
        assert_eq!(again.trace, request.trace);
        assert_eq!(
            again.command_line(Accelerator::Icount),
            request.command_line(Accelerator::Icount)
        );
    }
}
