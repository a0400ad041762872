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

/// Programs that test the system from within: cores, sockets, command, and the line that
/// they end with when all is well.
const PROGRAMS: [(i64, i64, &str, &str); 82] = [
    (1, 1, "isolation", "isolation: passed"),
    (3, 1, "isolation", "isolation: passed"),
    (13, 3, "isolation", "isolation: passed"),
    (64, 1, "isolation", "isolation: passed"),
    (3, 1, "members", "members: passed"),
    (64, 2, "members", "members: passed"),
    (1, 1, "names-test", "names-test: passed"),
    (2, 1, "names-test", "names-test: passed"),
    (4, 2, "names-test", "names-test: passed"),
    (7, 1, "names-test", "names-test: passed"),
    (16, 1, "names-test --rounds 1", "names-test: passed"),
    (1, 1, "span-test", "span-test: passed"),
    (2, 1, "span-test", "span-test: passed"),
    (4, 1, "span-test", "span-test: passed"),
    (7, 1, "span-test", "span-test: passed"),
    (16, 2, "span-test", "span-test: passed"),
    (1, 1, "service-test", "service-test: passed"),
    (2, 1, "service-test", "service-test: passed"),
    (4, 1, "service-test", "service-test: passed"),
    (7, 2, "service-test", "service-test: passed"),
    (16, 1, "service-test", "service-test: passed"),
    (2, 1, "transfer-test", "transfer-test: passed"),
    (4, 2, "transfer-test", "transfer-test: passed"),
    (7, 1, "transfer-test", "transfer-test: passed"),
    (16, 1, "transfer-test", "transfer-test: passed"),
    (1, 1, "trace-harm", "trace-harm: passed"),
    (3, 1, "trace-harm", "trace-harm: passed"),
    (2, 1, "lending-test", "lending-test: passed"),
    (4, 2, "lending-test", "lending-test: passed"),
    (7, 1, "lending-test", "lending-test: passed"),
    (16, 4, "lending-test", "lending-test: passed"),
    (3, 1, "restart-test --rounds 0", "restart-test: passed"),
    (8, 2, "restart-test --rounds 0", "restart-test: passed"),
    (1, 1, "counts", "counts: passed"),
    (2, 1, "counts", "counts: passed"),
    (7, 3, "counts --strategy computed", "counts: passed"),
    (1, 1, "costs-test", "costs-test: passed"),
    (4, 2, "costs-test", "costs-test: passed"),
    (16, 4, "costs-test", "costs-test: passed"),
    (
        16,
        4,
        "counts --strategy sockets --arity 3",
        "counts: passed",
    ),
    (64, 1, "counts --repeat 2", "counts: passed"),
    (64, 2, "counts --repeat 2 --strategy tree", "counts: passed"),
    (3, 1, "fault all", "fault: passed"),
    (4, 1, "channel-test", "channel-test: passed"),
    (1, 1, "spawn-test", "spawn-test: passed"),
    (4, 1, "spawn-test", "spawn-test: passed"),
    (7, 1, "spawn-test", "spawn-test: passed"),
    (16, 2, "spawn-test", "spawn-test: passed"),
    (2, 1, "spawn-test --spawns 10000", "spawn-test: passed"),
    (2, 1, "float-test", "float-test: passed"),
    (1, 1, "hostile-test", "hostile-test: passed"),
    (3, 1, "hostile-test", "hostile-test: passed"),
    (8, 2, "hostile-test", "hostile-test: passed"),
    (1, 1, "scheduler-test", "scheduler-test: passed"),
    (3, 1, "scheduler-test", "scheduler-test: passed"),
    (1, 1, "space-test", "space-test: passed"),
    (3, 1, "space-test", "space-test: passed"),
    (1, 1, "share-test", "share-test: passed"),
    (3, 1, "share-test", "share-test: passed"),
    (1, 1, "lrpc-test", "lrpc-test: passed"),
    (3, 1, "lrpc-test", "lrpc-test: passed"),
    (8, 1, "lrpc-test", "lrpc-test: passed"),
    (1, 1, "fault-test", "fault-test: passed"),
    (3, 1, "fault-test", "fault-test: passed"),
    (2, 1, "debugger", "debugger: passed"),
    (1, 1, "timer-test", "timer-test: passed"),
    (3, 1, "timer-test", "timer-test: passed"),
    (1, 1, "capability-test", "capability-test: passed"),
    (2, 1, "capability-test", "capability-test: passed"),
    (3, 1, "capability-test", "capability-test: passed"),
    (1, 1, "attack-test", "attack-test: passed"),
    (3, 1, "attack-test", "attack-test: passed"),
    (1, 1, "attack-test --only life", "attack-test: passed"),
    (1, 1, "attack-test --only neighbour", "attack-test: passed"),
    (1, 1, "memory-test", "memory-test: passed"),
    (3, 1, "memory-test", "memory-test: passed"),
    (64, 1, "memory-test", "memory-test: passed"),
    (1, 1, "exhaustion-test", "exhaustion-test: passed"),
    (3, 1, "exhaustion-test", "exhaustion-test: passed"),
    (1, 1, "device-test", "device-test: passed"),
    (3, 1, "device-test", "device-test: passed"),
    (2, 1, "fuzz --calls 20000 --seed 7", "fuzz: passed"),
];

/// Programs that lose cores on purpose: cores, command, its last line, and how many are lost in the
/// end.
const LOSSES: [(i64, &str, &str, usize); 17] = [
    (2, "lost-cores --lose 1", "lost-cores: passed", 1),
    (4, "lost-cores --lose 2", "lost-cores: passed", 2),
    (7, "lost-cores --lose 3", "lost-cores: passed", 3),
    (16, "lost-cores --lose 15", "lost-cores: passed", 15),
    (
        7,
        "lost-cores --lose 3 --restart 1",
        "lost-cores: passed",
        0,
    ),
    (4, "transfer-test lose", "transfer-test: passed", 1),
    (7, "transfer-test lose", "transfer-test: passed", 1),
    (2, "span-test --lose member", "span-test: passed", 1),
    (4, "span-test --lose root", "span-test: passed", 1),
    (3, "lending-test --lose 1", "lending-test: passed", 2),
    (3, "restart-test --share 2", "restart-test: passed", 0),
    (7, "restart-test --share 1", "restart-test: passed", 0),
    (7, "costs-test --lives 2", "costs-test: passed", 0),
    (2, "restart-test", "restart-test: passed", 0),
    (4, "restart-test", "restart-test: passed", 0),
    (7, "restart-test", "restart-test: passed", 0),
    (16, "restart-test", "restart-test: passed", 0),
];

/// From QEMU's start to a program at work, for up to 64 and for up to 255 cores.
const BOOT_LIMIT_64: Duration = Duration::from_secs(5);
const BOOT_LIMIT_255: Duration = Duration::from_secs(60);

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
    for (cores, sockets, exec, last) in PROGRAMS {
        let program = exec.replace(' ', "-").replace("--", "");
        tests.push(Test::new(
            format!("boot/{program}-{cores}-cores"),
            move |workshop| {
                let mut options = options(cores, exec);
                options.sockets = sockets;
                let booted = boot(workshop, &options)?.ended_with(0)?;
                match booted.console.program().last() {
                    Some(line) if line == last => Ok(Pass::Passed(String::new())),
                    _ => Err(booted.unexpected(&format!("{last:?} as the last line"))),
                }
            },
        ));
    }
    tests.push(Test::new("boot/print-storm", print_storm));
    tests.push(Test::new("boot/wild-write", wild_write));
    tests.push(Test::new("boot/wild-write-without-hooks", without_hooks));
    for (cores, exec, last, lost) in LOSSES {
        let program = exec.replace(' ', "-").replace("--", "");
        tests.push(Test::new(
            format!("boot/{program}-{cores}-cores-hooks"),
            move |workshop| losses(workshop, cores, exec, last, lost),
        ));
    }
    tests.push(Test::new("boot/kvm", kvm));
    tests.push(Test::new("boot/idle", idle));
    for cores in [8, 13] {
        tests.push(Test::new(
            format!("boot/latency-{cores}-cores"),
            move |workshop| latency(workshop, cores),
        ));
    }
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
    let mut request = options.check().map_err(said)?;
    request.find_program(&system.programs).map_err(said)?;
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
    if (cores, sockets) == (255, 1) {
        // RAM on both sides of the hole below 4 GiB, and more of it than any core expects.
        options.memory = Some("8G".to_owned());
    }
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
    let limit = if cores <= 64 {
        BOOT_LIMIT_64
    } else {
        BOOT_LIMIT_255
    };
    if first.wall > limit {
        return Err(format!(
            "expected the program at work within {limit:?}, found {:?}",
            first.wall
        ));
    }
    Ok(Pass::Passed(format!(
        "program at work after {:.2} s, all over after {:.2} s",
        first.wall.as_secs_f64(),
        booted.wall.as_secs_f64()
    )))
}

/// Lines of all cores come whole, and none is missing.
fn print_storm(workshop: &Workshop) -> Outcome {
    let (cores, lines) = (5, 100);
    let exec = format!("print-storm --lines {lines}");
    let booted = boot(workshop, &options(cores, &exec))?.ended_with(0)?;
    let mut storm: Vec<&str> = booted.console.program().collect();
    let last = storm.pop().unwrap_or("");
    let empty = storm.iter().filter(|line| line.is_empty()).count();
    let full = storm.iter().filter(|line| is_storm_line(line)).count();
    let expected =
        format!("print-storm: {cores} cores, {lines} lines each: {full} full, {empty} empty");
    if last != expected || storm.len() != full + empty || storm.len() as i64 != cores * lines {
        return Err(booted.unexpected(&format!("{} whole lines and {expected:?}", cores * lines)));
    }
    Ok(Pass::Passed(format!("{} lines", storm.len())))
}

/// Whether a line is `storm CORE NUMBER LENGTH SUM PATTERN` with the length and the sum of
/// the bytes of PATTERN.
fn is_storm_line(line: &str) -> bool {
    let fields: Vec<&str> = line.split(' ').collect();
    let ["storm", _, _, length, sum, pattern] = fields[..] else {
        return false;
    };
    let bytes: u64 = pattern.bytes().map(u64::from).sum();
    length == pattern.len().to_string() && sum == bytes.to_string()
}

/// A CPU driver that writes to another core's memory faults, says so and is lost; the
/// others go on.
fn wild_write(workshop: &Workshop) -> Outcome {
    let mut options = options(5, "wild-write --core 3 --victim 1");
    options.test_hooks = true;
    let booted = boot(workshop, &options)?;
    let said = booted.console.tool.join("\n");
    let passed = booted
        .console
        .program()
        .any(|line| line == "wild-write: passed");
    let lost_alone = matches!(
        &booted.result,
        Err(Failure::CoresLost { lost, program: Some(0), .. }) if *lost == [3]
    );
    let reported = said.contains("core 3 lost: its CPU driver panicked")
        && said.contains("PANIC: page fault in the CPU driver, writing to");
    if passed && lost_alone && reported {
        return Ok(Pass::Passed(String::new()));
    }
    Err(booted.unexpected("core 3 and no other to be lost, with its report"))
}

/// Survivors agree to go on without the cores that were lost, and do; who was started anew is not
/// lost.
fn losses(workshop: &Workshop, cores: i64, exec: &str, last: &str, lose: usize) -> Outcome {
    let mut options = options(cores, exec);
    options.test_hooks = true;
    let booted = boot(workshop, &options)?;
    let passed = booted.console.program().any(|line| line == last);
    let lost = match &booted.result {
        Err(Failure::CoresLost {
            lost,
            program: Some(0),
            ..
        }) => Some(lost.len()),
        Ok(0) => Some(0),
        _ => None,
    };
    if passed && lost == Some(lose) {
        return Ok(Pass::Passed(String::new()));
    }
    Err(booted.unexpected(&format!("{lose} cores to be lost, and no others harmed")))
}

/// Without `--test-hooks` no program can do that.
fn without_hooks(workshop: &Workshop) -> Outcome {
    let booted = boot(workshop, &options(3, "wild-write --core 2 --victim 1"))?;
    match booted.result {
        Ok(status) if status != 0 => Ok(Pass::Passed(String::new())),
        _ => Err(booted.unexpected("the program to be refused, and no core lost")),
    }
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

/// The latency matrix, which is also what runs when nobody names a program.
fn latency(workshop: &Workshop, cores: i64) -> Outcome {
    let options = RunOptions {
        cores,
        ..RunOptions::defaults()
    };
    let booted = boot(workshop, &options)?.ended_with(0)?;
    let rows = booted
        .console
        .program()
        .filter(|line| is_matrix_row(line, cores as usize))
        .count();
    // One matrix of minima, one of medians.
    if rows != 2 * cores as usize {
        return Err(booted.unexpected(&format!("two matrices of {cores} cores")));
    }
    Ok(Pass::Passed(String::new()))
}

/// Whether a line is `CORE TIME TIME …` with a time for every core but itself.
fn is_matrix_row(line: &str, cores: usize) -> bool {
    let mut fields = line.split_whitespace();
    let Some(row) = fields.next().and_then(|field| field.parse::<usize>().ok()) else {
        return false;
    };
    let times: Vec<&str> = fields.collect();
    times.len() == cores
        && times.iter().enumerate().all(|(column, time)| {
            if column == row {
                *time == "-"
            } else {
                time.parse().is_ok_and(|time: u64| time > 0)
            }
        })
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

#[cfg(test)]
mod tests {
    use super::{is_matrix_row, is_storm_line};

    #[test]
    fn storm_lines_are_whole() {
        assert!(is_storm_line("storm 0 1 3 294 abc"));
        assert!(!is_storm_line("storm 0 1 3 294 abd"));
        assert!(!is_storm_line("storm 0 1 4 294 abc"));
        assert!(!is_storm_line("storm 0 1 3 storm 1 1 3 294 abc"));
        assert!(!is_storm_line(""));
    }

    #[test]
    fn matrix_rows_have_a_time_for_every_other_core() {
        assert!(is_matrix_row("  1  831    - 1212", 3));
        assert!(!is_matrix_row("core    0    1    2", 3));
        assert!(!is_matrix_row("  1  831    -", 3));
        assert!(!is_matrix_row("  1  831    - 0", 3));
        assert!(!is_matrix_row("  0  831    - 12", 3));
    }
}
