//! Tests of traces: what is recorded, and what is made of it.

use crate::accelerator::{self, Choice};
use crate::console::Recording as Heard;
use crate::harness::{Outcome, Pass, Test, Workshop, run_command};
use crate::launch::Boot;
use crate::trace::{self, Take, Wanted, files};
use recorder::event::{RUNS, USER_EVENT};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};
use traces::checks::Tools;
use traces::model::Model;
use traces::recording::{Core, Recording};
use traces::sample;

/// A program whose messages cross all cores.
const BUSY: &str = "bench-agreement --quick --only unmap";
/// The same for long enough to fill the rings of 64 cores.
const MANY_ROUNDS: &str = "bench-agreement --only unmap";
/// Tells and finds its own records; with `--spoil` it writes to control pages what does not belong there.
const OWN: &str = "trace-test";
/// Records of a ring that none of these programs fills.
const ENOUGH: i64 = 1 << 18;
/// The large one: cores, and records of all of them.
const MANY: i64 = 64;
const MILLION: u64 = 1_000_000;
/// How long reading a million records out of the guest may take, and writing all files of them.
const READING: Duration = Duration::from_secs(5);
const WRITING: Duration = Duration::from_secs(60);
/// Longest that a command of this tool may take.
const LIMIT: Duration = Duration::from_secs(300);

/// All of them.
pub fn tests() -> Vec<Test> {
    vec![
        Test::new("trace/same-twice", same_twice),
        Test::new("trace/tcg", |workshop| whole(workshop, Choice::Tcg)),
        Test::new("trace/perfetto", of_perfetto),
        Test::new("trace/own-events", own_events),
        Test::new("trace/spoilt", spoilt),
        Test::new("trace/cut-short", cut_short),
        Test::new("trace/million", million),
        Test::new("trace/commands", commands),
    ]
}

/// Records a boot.
fn take(workshop: &Workshop, cores: i64, wanted: &Wanted) -> Result<(Take, Heard), String> {
    let (system, qemu) = (workshop.system()?, workshop.qemu()?);
    let request = wanted.check(cores).map_err(|failure| failure.to_string())?;
    let accelerator = accelerator::choose(request.accel, &workshop.project, system, qemu);
    let limit = accelerator.time_limit(request.cores);
    let boot = Boot {
        limit: Some(request.timeout.unwrap_or(limit)),
        request,
        accelerator,
    };
    let mut console = Heard::default();
    let take = trace::take(&boot, &workshop.project, system, qemu, &mut console);
    Ok((take.map_err(|failure| failure.to_string())?, console))
}

/// The same of a program that ends well, with every ring whole.
fn record(workshop: &Workshop, cores: i64, wanted: &Wanted) -> Result<Recording, String> {
    let (take, console) = take(workshop, cores, wanted)?;
    match take {
        Take {
            ended: Ok(0),
            recording: Some(recording),
            faults,
            ..
        } if faults.is_empty() => Ok(recording),
        Take { ended, faults, .. } => Err(format!(
            "expected exit status 0 and a trace, found {ended:?}, {faults:?}:\n{}{}",
            console.text(),
            console.tool.join("\n")
        )),
    }
}

fn wanted(accel: Choice, exec: &str, records: i64) -> Wanted {
    Wanted {
        accel,
        exec: exec.to_owned(),
        records: Some(records),
        ..Wanted::defaults()
    }
}

/// A trace in which nothing was overwritten agrees with what the CPU drivers and both ends of all
/// channels counted, and no message arrives before it is sent.
fn agrees(recording: &Recording) -> Result<String, String> {
    let all = files::sum(recording);
    if (all.overwritten, all.torn) != (0, 0) || all.written != all.records {
        return Err(format!(
            "expected a record for all that was written, found {all:?}"
        ));
    }
    for (core, records) in recording.header.cores.iter().zip(&recording.records) {
        let runs = records.iter().filter(|record| record.event() == RUNS);
        let runs = runs.count() as u64;
        if runs != core.switches || runs == 0 {
            return Err(format!(
                "core {}: expected a record for each of {} switches, found {runs}",
                core.core, core.switches
            ));
        }
    }
    let model = Model::of(recording);
    let delivered = model.messages.len() as u64;
    if all.sent != all.received || all.sent != delivered || delivered == 0 || model.half != (0, 0) {
        return Err(format!(
            "expected each message to be received, found {} sent, {} received, {delivered} with \
             both ends, half of them {:?}",
            all.sent, all.received, model.half
        ));
    }
    if model.early.1 != 0 {
        return Err(format!(
            "expected no message before it was sent, found {:?}",
            model.early
        ));
    }
    Ok(format!(
        "{} records, {delivered} messages, {} operations, {} early by the bare clocks",
        all.records,
        model.operations.len(),
        model.early.0
    ))
}

/// Two runs give the same bytes, and these agree with what was counted otherwise.
fn same_twice(workshop: &Workshop) -> Outcome {
    let wanted = wanted(Choice::Icount, BUSY, ENOUGH);
    let (first, second) = (record(workshop, 4, &wanted)?, record(workshop, 4, &wanted)?);
    let (one, other) = (first.to_bytes(), second.to_bytes());
    if one != other {
        let at = one.iter().zip(&other).position(|(one, other)| one != other);
        return Err(format!(
            "expected the same bytes twice, found {} and {}, which differ from {at:?} on",
            one.len(),
            other.len()
        ));
    }
    // What the clock counts by is an instruction, and nothing smaller or larger. Where all cores sleep it leaps to
    // the next alarm, which may lie between two; so not all, but nearly all.
    let gaps: Vec<u64> = first
        .records
        .iter()
        .flat_map(|core| core.windows(2).map(|pair| pair[1].tsc - pair[0].tsc))
        .collect();
    let steps_of = |ticks| gaps.iter().filter(|gap| gap.is_multiple_of(ticks)).count();
    let instruction = first.header.ticks_per_instruction;
    let (whole, twice) = (steps_of(instruction), steps_of(2 * instruction));
    if whole * 10 < gaps.len() * 9 || twice * 10 > gaps.len() * 9 {
        return Err(format!(
            "expected times in steps of {instruction} ticks, an instruction, found {whole} of {} such, and \
             {twice} of twice as many",
            gaps.len()
        ));
    }
    Ok(Pass::Passed(agrees(&first)?))
}

/// A run by a clock of the host's agrees with what was counted otherwise.
fn whole(workshop: &Workshop, accel: Choice) -> Outcome {
    let recording = record(workshop, 4, &wanted(accel, BUSY, ENOUGH))?;
    Ok(Pass::Passed(agrees(&recording)?))
}

/// Perfetto's own tools find in the file what the model says: of a run, and of a recording that was made
/// up, whose clocks differ.
fn of_perfetto(workshop: &Workshop) -> Outcome {
    let folder = workshop.project.own_folder();
    let tools = match Tools::find(&folder.join("perfetto")) {
        Ok(tools) => tools,
        Err(reason) => return Ok(Pass::Skipped(reason)),
    };
    let recorded = record(workshop, 4, &wanted(Choice::Icount, BUSY, ENOUGH))?;
    let mut notes = Vec::new();
    for (name, recording) in [("run", recorded), ("sample", sample::skewed(8, 10_000, 1))] {
        let folder = folder.join("trace-perfetto").join(name);
        let model = Model::of(&recording);
        files::write(&folder, &recording, &model).map_err(|failure| failure.to_string())?;
        let said = tools.check(&folder.join(files::PERFETTO), &recording, &model);
        notes.push(format!(
            "{name}: {}",
            said.map_err(|error| format!("{name}: {error}"))?
        ));
    }
    Ok(Pass::Passed(notes.join("; ")))
}

/// What programs declare is found in their files.
fn own_events(workshop: &Workshop) -> Outcome {
    let recording = record(workshop, 2, &wanted(Choice::Icount, OWN, ENOUGH))?;
    let mut found: BTreeMap<u64, u64> = BTreeMap::new();
    for record in recording.records.iter().flatten() {
        if record.event() == USER_EVENT {
            *found.entry(record.flow).or_default() += 1;
        }
    }
    let of_program = |address: &u64| {
        let mut users = recording.header.users.iter();
        users.any(|user| user.address == *address && user.program == OWN)
    };
    if found.is_empty() || !found.keys().all(of_program) {
        return Err(format!(
            "expected events that {OWN} declares, found {found:x?} of {:x?}",
            recording.header.users
        ));
    }
    let model = Model::of(&recording);
    let names = recording.header.users.iter().map(|user| &user.name);
    let missing: Vec<&String> = names
        .filter(|name| !model.spans.iter().any(|span| span.name == **name))
        .collect();
    match missing.is_empty() {
        true => Ok(Pass::Passed(format!(
            "{} declared",
            recording.header.users.len()
        ))),
        false => Err(format!(
            "expected spans of all names, found none of {missing:?}"
        )),
    }
}

/// Whatever is in a ring is read without harm, and is said.
fn spoilt(workshop: &Workshop) -> Outcome {
    let exec = format!("{OWN} --spoil");
    let (take, console) = take(workshop, 2, &wanted(Choice::Icount, &exec, 4096))?;
    let (Ok(0), Some(recording)) = (&take.ended, &take.recording) else {
        return Err(format!(
            "expected exit status 0 and a trace, found {:?}:\n{}",
            take.ended,
            console.text()
        ));
    };
    let torn = files::sum(recording).torn;
    if take.faults.is_empty() && torn == 0 {
        return Err("expected to be told of a spoilt ring, found all in order".to_owned());
    }
    // No file of it is refused either.
    let made = files::made(recording, &Model::of(recording));
    if made.iter().any(|file| file.bytes.is_empty()) {
        return Err("expected all files of a spoilt trace, found an empty one".to_owned());
    }
    Ok(Pass::Passed(format!(
        "{} faults, {torn} torn",
        take.faults.len()
    )))
}

/// A boot that does not end is recorded as far as it came.
fn cut_short(workshop: &Workshop) -> Outcome {
    let asleep = Wanted {
        timeout: Some(20),
        ..wanted(Choice::Tcg, "sleep 1000", 4096)
    };
    let (take, _) = take(workshop, 3, &asleep)?;
    let Some(recording) = take.recording.filter(|_| take.ended.is_err()) else {
        return Err(format!(
            "expected no end but a trace, found {:?}",
            take.ended
        ));
    };
    let ran = |records: &Vec<_>| !records.is_empty();
    match recording.records.iter().all(ran) {
        true => Ok(Pass::Passed(format!(
            "{} records",
            files::sum(&recording).records
        ))),
        false => Err("expected records of all cores, found none of some".to_owned()),
    }
}

/// A million records of many cores are read and written in seconds.
fn million(workshop: &Workshop) -> Outcome {
    let many = Wanted {
        accel: Choice::Tcg,
        exec: MANY_ROUNDS.to_owned(),
        // Core 0, which begins all, has most of them.
        records: Some(1 << 17),
        timeout: Some(400),
        ..Wanted::defaults()
    };
    let (take, console) = take(workshop, MANY, &many)?;
    let (Ok(0), Some(recording)) = (&take.ended, &take.recording) else {
        return Err(format!(
            "expected exit status 0 and a trace, found {:?}:\n{}",
            take.ended,
            console.text()
        ));
    };
    let Core { records, torn, .. } = files::sum(recording);
    if records < MILLION || torn > 0 {
        return Err(format!(
            "expected {MILLION} whole records, found {records}, {torn} torn"
        ));
    }
    let folder = workshop.project.own_folder().join("trace-million");
    let begin = Instant::now();
    let model = Model::of(recording);
    files::write(&folder, recording, &model).map_err(|failure| failure.to_string())?;
    let writing = begin.elapsed();
    if take.reading > READING || writing > WRITING {
        return Err(format!(
            "expected it read within {READING:?} and written within {WRITING:?}, found {:?} and {writing:?}",
            take.reading
        ));
    }
    Ok(Pass::Passed(format!(
        "{records} records read in {:.2} s, written in {:.1} s",
        take.reading.as_secs_f64(),
        writing.as_secs_f64()
    )))
}

/// The commands, as a user has them run.
fn commands(workshop: &Workshop) -> Outcome {
    let top = workshop.project.own_folder().join("trace-commands");
    let _ = std::fs::remove_dir_all(&top);
    let path = |name: &str| top.join(name).to_string_lossy().into_owned();
    let run = |words: &[&str], status: i32, expected: &[&str]| {
        let mut this = Command::new("/proc/self/exe");
        let ran = run_command(this.arg("trace").args(words), LIMIT)?;
        let both = format!("{}{}", ran.stdout, ran.stderr);
        match expected.iter().find(|words| !both.contains(**words)) {
            None if ran.status.code() == Some(status) => Ok(both),
            missing => Err(format!(
                "scripts/trace {words:?}: expected status {status} and {missing:?}, found {} and:\n{both}",
                ran.status
            )),
        }
    };
    let machine = ["--accel", "icount", "--quiet"];
    let record = |exec: &str, folder: &str| {
        let mut words = vec!["--cores", "2", "--out", folder, "--exec", exec];
        words.extend(machine);
        run(
            &words,
            0,
            &[
                "core",
                "overwritten",
                "trace.atoll",
                "before they were sent",
            ],
        )
    };
    let (one, again, other) = (path("one"), path("again"), path("other"));
    record("hello", &one)?;
    record("hello", &again)?;
    record("span-test", &other)?;
    for file in ["trace.atoll", "trace.perfetto-trace", "trace.html"] {
        let file = top.join("one").join(file);
        if !std::fs::metadata(&file).is_ok_and(|file| file.len() > 0) {
            return Err(format!("expected a file {}, found none", file.display()));
        }
    }
    run(&["summary", &one], 0, &["icount"])?;
    run(&["summary", &format!("{other}/trace.html")], 0, &["space"])?;
    run(&["diff", &one, &again], 0, &[])?;
    run(&["diff", &one, &other], 1, &[])?;
    run(
        &["summary", &path("nothing")],
        107,
        &["nothing: No such file"],
    )?;
    run(&["summary", "/dev/null"], 107, &["expected a recording"])?;
    let top = path("scale");
    let mut words = vec!["scale", "--cores", "2,3", "--out", &top, "--exec", "hello"];
    words.extend(machine);
    run(&words, 0, &["trace.html"])?;
    run(&["summary", &format!("{top}/3")], 0, &["3 cores"])?;
    run(
        &["--cores", "2", "--records", "1000"],
        2,
        &["a power of two"],
    )?;
    run(&["scale", "--cores", "2,many"], 2, &["found \"2,many\""])?;
    Ok(Pass::Passed(String::new()))
}
