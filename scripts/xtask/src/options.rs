//! What a person asked for, checked.

use crate::accelerator::{Accelerator, Choice};
use crate::bench::catalogue;
use crate::failure::{Failure, OptionError};
use crate::size::Size;
use crate::trace::Rings;
use abi::limits::{ARGUMENT_BYTES, COMMAND_LINE_BYTES, MAX_NODES};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// Most cores: xAPIC has 255 addresses for them.
pub const MAX_CORES: usize = 255;
/// Cores when nobody says how many.
pub const DEFAULT_CORES: i64 = 8;
/// The program when nobody names one.
const DEFAULT_PROGRAM: &str = "urpc-latency";
/// Least memory of a core, and what the machine needs besides.
const LEAST_PER_CORE: u64 = 8;
const LEAST_BESIDES: u64 = 64;
/// Memory of a core when nobody says how much, and the least for the machine.
const DEFAULT_PER_CORE: u64 = 16;
const DEFAULT_LEAST: u64 = 512;

/// Options of `scripts/run`.
#[derive(Args, Clone, Debug)]
pub struct RunOptions {
    /// Cores of the machine, 1 to 255
    #[arg(long, value_name = "N", default_value_t = DEFAULT_CORES, allow_negative_numbers = true)]
    pub cores: i64,
    /// Sockets, each a NUMA node of its own: 1 up to the number of cores, at most 64
    #[arg(
        long,
        value_name = "S",
        default_value_t = 1,
        allow_negative_numbers = true
    )]
    pub sockets: i64,
    /// Memory of the machine, such as 512M or 8G [default: 16M a core, at least 512M]
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
    /// Counts the cache lines that move between cores, by region of interest, and writes them here
    #[arg(long, value_name = "FILE")]
    pub coherence: Option<PathBuf>,
    /// Waits for a debugger before the first instruction and prints how to attach one
    #[arg(long)]
    pub gdb: bool,
    /// Leaves out the log lines of CPU drivers and monitors
    #[arg(long)]
    pub quiet: bool,
    /// Lets programs do harm to the system on purpose, for tests of its isolation
    #[arg(long, hide = true)]
    pub test_hooks: bool,
    /// Another QEMU than the installed one
    #[arg(long, hide = true, value_name = "PATH")]
    pub qemu: Option<PathBuf>,
    /// What is recorded; see `scripts/trace`.
    #[arg(skip)]
    pub trace: Option<Rings>,
}

/// A machine and what it is to do, checked and complete but for the accelerator.
#[derive(Clone, Debug)]
pub struct Request {
    /// Cores, 1 to [`MAX_CORES`].
    pub cores: usize,
    /// Sockets, 1 to `cores`.
    pub sockets: usize,
    /// RAM, which divides into large pages for each socket.
    pub memory: Size,
    /// How QEMU is to execute the guest.
    pub accel: Choice,
    /// Program and arguments.
    pub exec: String,
    /// When to give up; `None`: the default for the accelerator.
    pub timeout: Option<Duration>,
    /// Where to write the cache lines that moved; `None`: count none.
    pub coherence: Option<PathBuf>,
    /// Wait for a debugger.
    pub gdb: bool,
    /// Without log lines.
    pub quiet: bool,
    /// With `test-hooks` on the command line.
    pub test_hooks: bool,
    /// The QEMU asked for.
    pub qemu: Option<PathBuf>,
    /// What is recorded; `None`: nothing.
    pub trace: Option<Rings>,
}

impl RunOptions {
    /// What `scripts/run` without options asks for.
    pub fn defaults() -> Self {
        Self {
            cores: DEFAULT_CORES,
            sockets: 1,
            memory: None,
            accel: Choice::Auto,
            exec: DEFAULT_PROGRAM.to_owned(),
            timeout: None,
            coherence: None,
            gdb: false,
            quiet: false,
            test_hooks: false,
            qemu: None,
            trace: None,
        }
    }

    /// Checks every option that can be checked before anything is built.
    pub fn check(&self) -> Result<Request, Failure> {
        let cores = in_range(self.cores, MAX_CORES).ok_or(OptionError::Cores {
            found: self.cores,
            maximum: MAX_CORES,
        })?;
        let most_sockets = cores.min(MAX_NODES);
        let sockets = in_range(self.sockets, most_sockets).ok_or(OptionError::Sockets {
            found: self.sockets,
            maximum: most_sockets,
            cores,
            nodes: MAX_NODES,
        })?;
        let ring = self.trace.as_ref().map_or(0, Rings::mebibytes);
        let memory = match &self.memory {
            None => Size::mebibytes(((DEFAULT_PER_CORE + ring) * cores as u64).max(DEFAULT_LEAST)),
            Some(text) => Size::parse(text).ok_or_else(|| OptionError::Memory {
                found: text.clone(),
            })?,
        };
        let least = Size::mebibytes((LEAST_PER_CORE + ring) * cores as u64 + LEAST_BESIDES);
        if memory < least {
            return Err(Failure::TooLittleMemory {
                cores,
                least,
                found: memory,
            });
        }
        if self.timeout == Some(0) {
            return Err(OptionError::NoTime.into());
        }
        let exec = self.exec.trim();
        if exec.is_empty() {
            return Err(OptionError::NoProgram.into());
        }
        if let Some(found) = exec.chars().find(|letter| letter.is_control()) {
            return Err(OptionError::ControlCharacter { found }.into());
        }
        let request = Request {
            cores,
            sockets,
            memory: memory.rounded_to(sockets),
            accel: self.accel,
            exec: exec.to_owned(),
            timeout: self.timeout.map(Duration::from_secs),
            coherence: self.coherence.clone(),
            gdb: self.gdb,
            quiet: self.quiet,
            test_hooks: self.test_hooks,
            qemu: self.qemu.clone(),
            trace: self.trace.clone(),
        };
        request.fits()?;
        Ok(request)
    }
}

impl Request {
    /// The words that the system gets.
    pub fn command_line(&self, accelerator: Accelerator) -> String {
        let hooks = if self.test_hooks { " test-hooks" } else { "" };
        let rings = self.trace.as_ref().map(Rings::words).unwrap_or_default();
        format!(
            "exit=isa-debug-exit accel={accelerator}{hooks}{rings} -- {}",
            self.exec
        )
    }

    /// The name of the program alone.
    pub fn program(&self) -> &str {
        self.exec.split_whitespace().next().unwrap_or("")
    }

    /// Finds the program among those of the bundle. A benchmark's name stands for its command, where no program
    /// is called that: `unmap --quick` for `bench-agreement --only unmap --quick`.
    ///
    /// # Errors
    /// Neither is called that, or the command is too long.
    pub fn find_program(&mut self, programs: &[String]) -> Result<(), Failure> {
        let found = self.program();
        if programs.iter().any(|program| program == found) {
            return Ok(());
        }
        let Some(benchmark) = catalogue::find(found) else {
            let is_other = |name: &&str| programs.iter().all(|program| program != name);
            let names = catalogue::BENCHMARKS.iter().map(|one| one.name);
            return Err(OptionError::UnknownProgram {
                found: found.to_owned(),
                programs: programs.to_vec(),
                benchmarks: names.filter(is_other).collect(),
            }
            .into());
        };
        let arguments = &self.exec[found.len()..];
        self.exec = format!("{}{arguments}", benchmark.command);
        self.fits()
    }

    /// Refuses what is longer than the system reads.
    fn fits(&self) -> Result<(), Failure> {
        if self.exec.len() > ARGUMENT_BYTES {
            return Err(OptionError::ProgramTooLong {
                found: self.exec.len(),
                maximum: ARGUMENT_BYTES,
            }
            .into());
        }
        // The one whose name is longest, as it is not known yet which it will be.
        let command_line = self.command_line(Accelerator::Icount);
        if command_line.len() > COMMAND_LINE_BYTES {
            return Err(OptionError::CommandLineTooLong {
                found: command_line.len(),
                maximum: COMMAND_LINE_BYTES,
            }
            .into());
        }
        Ok(())
    }
}

fn in_range(found: i64, maximum: usize) -> Option<usize> {
    usize::try_from(found)
        .ok()
        .filter(|number| (1..=maximum).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Status;
    use abi::command_line::CommandLine;

    fn with(change: impl FnOnce(&mut RunOptions)) -> Result<Request, Failure> {
        let mut options = RunOptions::defaults();
        change(&mut options);
        options.check()
    }

    #[test]
    fn the_system_reads_the_command_line_as_it_was_meant() {
        let request = with(|options| {
            options.exec = " hello  -- world ".into();
            options.test_hooks = true;
        })
        .unwrap();
        let line = request.command_line(Accelerator::Icount);
        let parsed = CommandLine::parse(&line);
        assert!(parsed.debug_exit && parsed.test_hooks);
        assert_eq!(parsed.accelerator, "icount");
        assert_eq!(parsed.program, Some("hello  -- world"));
        assert_eq!(request.program(), "hello");
    }

    #[test]
    fn cores_and_sockets_have_their_ranges() {
        for cores in [-1, 0, 256, 1 << 40] {
            let failure = with(|options| options.cores = cores).unwrap_err();
            assert!(
                failure.to_string().contains("from 1 to 255"),
                "{cores}: {failure}"
            );
        }
        assert_eq!(with(|options| options.cores = 255).unwrap().cores, 255);
        for sockets in [-1, 0, 9] {
            let failure = with(|options| options.sockets = sockets).unwrap_err();
            assert!(
                failure.to_string().contains("from 1 to 8"),
                "{sockets}: {failure}"
            );
        }
        assert!(
            with(|options| (options.cores, options.sockets) = (255, 65))
                .unwrap_err()
                .to_string()
                .contains("from 1 to 64")
        );
    }

    #[test]
    fn memory_grows_with_cores_and_has_a_least() {
        assert_eq!(with(|_| ()).unwrap().memory, Size::parse("512M").unwrap());
        let many = with(|options| options.cores = 255).unwrap();
        assert_eq!(many.memory, Size::parse("4080M").unwrap());
        let failure = with(|options| options.memory = Some("127M".into())).unwrap_err();
        assert_eq!(failure.status(), Status::TooLittleMemory);
        assert!(failure.to_string().contains("at least 128M"), "{failure}");
        assert!(with(|options| options.memory = Some("128M".into())).is_ok());
        let failure = with(|options| options.memory = Some("much".into())).unwrap_err();
        assert_eq!(failure.status(), Status::BadOption);
    }

    #[test]
    fn the_name_of_a_benchmark_stands_for_its_command() {
        let found = |exec: &str, programs: &[&str]| {
            let mut request = with(|options| options.exec = exec.into())?;
            let programs: Vec<_> = programs.iter().map(|one| (*one).to_owned()).collect();
            request.find_program(&programs).map(|()| request.exec)
        };
        let unmap = "bench-agreement --only unmap";
        assert_eq!(found("unmap", &["hello"]).unwrap(), unmap);
        assert_eq!(
            found(" unmap --quick  -x", &["hello"]).unwrap(),
            format!("{unmap} --quick  -x")
        );
        // A program of that name comes first.
        assert_eq!(found("unmap 1", &["hello", "unmap"]).unwrap(), "unmap 1");
        assert_eq!(
            found("micro --only x", &["micro"]).unwrap(),
            "micro --only x"
        );
        // It is short enough only until it is known what it stands for.
        let failure = found(&format!("unmap {}", "x".repeat(1010)), &[]).unwrap_err();
        assert!(
            failure.to_string().contains("at most 1024 bytes"),
            "{failure}"
        );
        assert_eq!(failure.status(), Status::BadOption);
    }

    #[test]
    fn programs_are_known_and_short_enough() {
        let mut request = with(|options| options.exec = "nosuch 1 2".into()).unwrap();
        let failure = request
            .find_program(&["hello".into(), "micro".into()])
            .unwrap_err();
        let text = failure.to_string();
        let expected = "--exec: there is no program \"nosuch\"; there are: hello, micro; and the benchmarks lrpc, ";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains(", unmap, "), "{text}");
        assert!(!text[expected.len()..].contains("micro"), "{text}");
        assert_eq!(failure.status(), Status::BadOption);
        for (exec, expected) in [
            (" ".to_owned(), "found nothing"),
            ("a\nb".to_owned(), "control character '\\n'"),
            ("x".repeat(1025), "at most 1024 bytes, found 1025"),
        ] {
            let failure = with(|options| options.exec = exec).unwrap_err();
            assert!(failure.to_string().contains(expected), "{failure}");
            assert_eq!(failure.status(), Status::BadOption);
        }
        let failure = with(|options| options.timeout = Some(0)).unwrap_err();
        assert_eq!(failure.status(), Status::BadOption);
    }
}
