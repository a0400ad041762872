//! Tests that boot: machines of many shapes, what programs print, and how they end.

use crate::accelerator::{self, Accelerator, Choice};
use crate::console::{Console, Moment, Recording};
use crate::failure::Failure;
use crate::harness::{Outcome, Pass, Test, Workshop};
use crate::launch::{self, Boot};
use crate::options::RunOptions;
use crate::strip;
use std::io;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Machines on which `hello` runs: cores and sockets.
const SHAPES: [(i64, i64); 18] = [
    (1, 1),
    (2, 1),
    (3, 1),
    (8, 1),
    (13, 1),
    (32, 1),
    (64, 1),
    (128, 1),
    (255, 1),
    (2, 2),
    (3, 2),
    (8, 4),
    (13, 3),
    (32, 2),
    (64, 8),
    (64, 64),
    (128, 4),
    (255, 5),
];

/// Cores that idle, for how long, and how much of a host core that may take.
const IDLE_CORES: i64 = 64;
const IDLE_TIME: Duration = Duration::from_secs(20);
const IDLE_SHARE: f64 = 0.05;

/// All of them.
pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for (cores, sockets) in SHAPES {
        let name = match sockets {
            1 => format!("boot/{cores}-cores"),
            _ => format!("boot/{cores}-cores-{sockets}-sockets"),
        };
        tests.push(Test::new(name, move |workshop| {
            hello(workshop, cores, sockets)
        }));
    }
    tests.push(Test::new("boot/kvm", kvm));
    tests.push(Test::new("boot/idle", idle));
    tests.push(Test::new("boot/latency", latency));
    tests.push(Test::new("boot/debugger", debugger));
    for (name, exec) in [
        ("boot/icount-hello", "hello"),
        ("boot/icount-latency", "urpc-latency"),
    ] {
        tests.push(Test::new(name, move |workshop| same_twice(workshop, exec)));
    }
    tests
}

/// One boot with what it said.
struct Booted {
    result: Result<i32, Failure>,
    console: Recording,
    wall: Duration,
}

impl Booted {
    /// Everything that was said, for the message of a failed test.
    fn transcript(&self) -> String {
        let end = match &self.result {
            Ok(status) => format!("exit status {status}"),
            Err(failure) => format!("error: {failure}"),
        };
        format!(
            "{}{}\n{end}",
            crate::harness::last_lines(&self.console.text()),
            self.console.tool.join("\n")
        )
    }

    /// The test's failure, with the transcript.
    fn unexpected(&self, expected: &str) -> String {
        format!("expected {expected}, found:\n{}", self.transcript())
    }

    /// Passes only a boot whose program ended with `status`.
    fn ended_with(self, status: i32) -> Result<Self, String> {
        match self.result {
            Ok(found) if found == status => Ok(self),
            _ => Err(self.unexpected(&format!("exit status {status}"))),
        }
    }
}

fn boot(workshop: &Workshop, options: &RunOptions) -> Result<Booted, String> {
    let (system, qemu) = (workshop.system()?, workshop.qemu()?);
    let said = |failure: Failure| failure.to_string();
    let request = options.check().map_err(said)?;
    request.check_program(&system.programs).map_err(said)?;
    let accelerator = accelerator::choose(request.accel, &workshop.project, system, qemu);
    let limit = request
        .timeout
        .unwrap_or_else(|| accelerator.time_limit(request.cores));
    let boot = Boot {
        request,
        accelerator,
        limit: Some(limit),
    };
    let mut console = Recording::default();
    let start = Instant::now();
    let result = launch::launch(&boot, system, qemu, &mut console);
    Ok(Booted {
        result,
        console,
        wall: start.elapsed(),
    })
}

fn options(cores: i64, exec: &str) -> RunOptions {
    RunOptions {
        cores,
        accel: Choice::Tcg,
        exec: exec.to_owned(),
        ..RunOptions::defaults()
    }
}

/// The first of the program's own lines, and when it came.
fn first_line(booted: &Booted) -> Option<(Moment, &str)> {
    booted
        .console
        .guest
        .iter()
        .find(|(_, line)| !crate::console::is_log_line(line))
        .map(|(at, line)| (*at, line.as_str()))
}

fn hello(workshop: &Workshop, cores: i64, sockets: i64) -> Outcome {
    let mut options = options(cores, "hello");
    options.sockets = sockets;
    let booted = boot(workshop, &options)?.ended_with(0)?;
    let mut expected: Vec<String> = (0..cores)
        .map(|core| format!("hello from core {core} of {cores}"))
        .collect();
    let mut found: Vec<&str> = booted.console.program().collect();
    expected.sort_unstable();
    found.sort_unstable();
    if found != expected {
        return Err(booted.unexpected(&format!("one line from each of {cores} cores")));
    }
    let first = first_line(&booted).map(|(at, _)| at).unwrap_or_default();
    Ok(Pass::Passed(format!(
        "program at work after {:.2} s, all over after {:.2} s",
        first.wall.as_secs_f64(),
        booted.wall.as_secs_f64()
    )))
}

/// Whatever `auto` chooses has to work.
fn kvm(workshop: &Workshop) -> Outcome {
    let mut options = options(2, "hello");
    options.accel = Choice::Auto;
    let chosen = accelerator::choose(
        Choice::Auto,
        &workshop.project,
        workshop.system()?,
        workshop.qemu()?,
    );
    boot(workshop, &options)?.ended_with(0)?;
    Ok(Pass::Passed(format!("auto is {chosen} here")))
}

/// A machine with nothing to do leaves the host alone.
fn idle(workshop: &Workshop) -> Outcome {
    let seconds = IDLE_TIME.as_secs();
    let booted =
        boot(workshop, &options(IDLE_CORES, &format!("sleep {seconds}")))?.ended_with(0)?;
    let Some((begin, _)) = first_line(&booted) else {
        return Err(booted.unexpected("a line of `sleep` before it sleeps"));
    };
    let end = booted.console.last_seen;
    let wall = end.wall.saturating_sub(begin.wall);
    if wall + Duration::from_secs(1) < IDLE_TIME {
        return Err(booted.unexpected(&format!(
            "{seconds} s from the first line to the end, not {:.1} s",
            wall.as_secs_f64()
        )));
    }
    let share = (end.cpu - begin.cpu).as_secs_f64() / wall.as_secs_f64();
    let found = format!(
        "{IDLE_CORES} idle cores took {:.2} % of a host core for {:.1} s",
        share * 100.0,
        wall.as_secs_f64()
    );
    if share < IDLE_SHARE {
        Ok(Pass::Passed(found))
    } else {
        Err(format!(
            "expected less than {} %: {found}",
            IDLE_SHARE * 100.0
        ))
    }
}

/// The program that runs when nobody names one.
fn latency(workshop: &Workshop) -> Outcome {
    let booted = boot(workshop, &RunOptions::defaults())?.ended_with(0)?;
    if booted.console.program().count() < 8 {
        return Err(booted.unexpected("a matrix of 8 cores"));
    }
    Ok(Pass::Passed(String::new()))
}

/// Follows the advice of `--gdb` to the letter, with a breakpoint at the entry of the CPU
/// driver and a farewell added.
fn debugger(workshop: &Workshop) -> Outcome {
    if Command::new("gdb").arg("--version").output().is_err() {
        return Ok(Pass::Skipped(
            "expected gdb, found none; install it with: sudo apt-get install gdb".to_owned(),
        ));
    }
    let (system, qemu) = (workshop.system()?, workshop.qemu()?);
    let path = &system.executables.cpudriver;
    let file = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let entry = strip::parse(&file)?.ehdr.e_entry;
    let mut options = options(2, "hello");
    options.gdb = true;
    let boot = Boot {
        request: options.check().map_err(|failure| failure.to_string())?,
        accelerator: Accelerator::Tcg,
        limit: Some(Duration::from_secs(90)),
    };
    let mut console = DebuggerConsole {
        breakpoint: entry,
        debugger: None,
        recording: Recording::default(),
    };
    let result = launch::launch(&boot, system, qemu, &mut console);
    let debugger = console
        .debugger
        .ok_or("expected a line with the gdb command, found none")?;
    let output = debugger
        .wait_with_output()
        .map_err(|error| format!("gdb: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let stop = said.lines().find(|line| line.contains("Breakpoint 1, "));
    match (stop, result) {
        (Some(stop), Ok(0)) if !stop.contains(" ?? ()") => Ok(Pass::Passed(stop.to_owned())),
        (_, result) => Err(format!(
            "expected gdb to stop with a symbol at {entry:#x} and the boot to go on to its end, \
             found {result:?} and:\n{said}{}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

/// Starts the debugger as soon as it is told how.
struct DebuggerConsole {
    breakpoint: u64,
    debugger: Option<Child>,
    recording: Recording,
}

impl Console for DebuggerConsole {
    fn guest(&mut self, line: &str, at: Moment) -> io::Result<()> {
        self.recording.guest(line, at)
    }

    fn tool(&mut self, words: &str) {
        let Some(command) = words
            .lines()
            .map(str::trim)
            .find(|line| line.starts_with("gdb "))
        else {
            return self.recording.tool(words);
        };
        let command = format!(
            "{command} -batch -ex 'break *{:#x}' -ex continue -ex 'delete' -ex detach",
            self.breakpoint
        );
        self.debugger = Command::new("sh")
            .args(["-c", &command])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .ok();
    }
}

/// Two runs under `icount` write the same bytes, time stamps included.
fn same_twice(workshop: &Workshop, exec: &str) -> Outcome {
    let mut options = options(8, exec);
    options.accel = Choice::Icount;
    let first = boot(workshop, &options)?.ended_with(0)?.console.text();
    let second = boot(workshop, &options)?.ended_with(0)?.console.text();
    if first == second {
        return Ok(Pass::Passed(format!("{} bytes", first.len())));
    }
    let difference = first
        .lines()
        .zip(second.lines())
        .find(|(one, other)| one != other);
    Err(match difference {
        Some((one, other)) => format!("first: {one}\nsecond: {other}"),
        None => format!(
            "one is the beginning of the other: {} and {} bytes",
            first.len(),
            second.len()
        ),
    })
}
