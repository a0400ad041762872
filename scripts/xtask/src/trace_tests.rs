//! Tests of traces: what is recorded, and what is made of it.

use crate::accelerator::{self, Choice};
use crate::console::Recording as Heard;
use crate::failure::Failure;
use crate::harness::{Outcome, Pass, Test, Workshop, run_command};
use crate::launch::Boot;
use crate::trace::{self, Take, Wanted, files};
use recorder::Record;
use recorder::event::{CLOCKS, MAP, RUNS, UNMAP, USER_BEGIN, USER_EVENT, group};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};
use traces::causes::{Cause, Causes};
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

/// Programs that must do the same with rings: cores, command, its last line, and the groups that are recorded.
const WITH_RINGS: [(i64, &str, &str, &str); 9] = [
    (1, "trace-harm", "trace-harm: passed", "all"),
    (3, "trace-harm", "trace-harm: passed", "all"),
    (3, "trace-harm", "trace-harm: passed", "none"),
    (1, "isolation", "isolation: passed", "all"),
    (3, "isolation", "isolation: passed", "all"),
    (1, "trace-test", "trace-test: passed", "all"),
    (3, "trace-test", "trace-test: passed", "none"),
    (3, "trace-test", "trace-test: passed", "user+messages"),
    (3, "trace-test --spoil", "trace-test: passed", "none"),
];
/// Programs that lose cores: cores, command, how many are lost in the end.
const LOSSES: [(i64, &str, usize); 3] = [
    (4, "lost-cores --lose 1", 1),
    (7, "lost-cores --lose 3 --restart 1", 0),
    (4, "restart-test", 0),
];
/// The request to unmap a page of a space that several cores share.
const UNMAP_REQUEST: u32 = 0x33;
/// Cores of the machines whose traces are compared: as many as it takes for a law.
const SCALE: [u32; 4] = [2, 3, 4, 8];

/// All of them.
pub fn tests() -> Vec<Test> {
    let mut tests = vec![
        Test::new("trace/same-twice", same_twice),
        Test::new("trace/tcg", |workshop| whole(workshop, Choice::Tcg)),
        Test::new("trace/perfetto", of_perfetto),
        Test::new("trace/own-events", own_events),
        Test::new("trace/spoilt", spoilt),
        Test::new("trace/cut-short", cut_short),
        Test::new("trace/million", million),
        Test::new("trace/commands", commands),
        Test::new("trace/triggers", triggers),
        Test::new("trace/scale", scale),
    ];
    for (cores, exec, last, groups) in WITH_RINGS {
        let program = exec.replace(' ', "-").replace("--", "");
        let name = match groups {
            "all" => format!("trace/{program}-{cores}-cores"),
            _ => format!("trace/{program}-{cores}-cores-{groups}"),
        };
        tests.push(Test::new(name, move |workshop| {
            with_rings(workshop, cores, exec, last, groups)
        }));
    }
    for (cores, exec, lost) in LOSSES {
        let program = exec.replace(' ', "-").replace("--", "");
        tests.push(Test::new(
            format!("trace/{program}-{cores}-cores"),
            move |workshop| losses(workshop, cores, exec, lost),
        ));
    }
    tests
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
    if (model.loose, model.spoilt) != (0, 0) {
        return Err(format!(
            "expected a beginning of all that ends, found {} without, {} records spoilt",
            model.loose, model.spoilt
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
    // A benchmark by its name, as `scripts/bench` has it.
    let mut words = vec!["--cores", "2", "--out", &one, "--exec", "unmap --quick"];
    words.extend(machine);
    run(&words, 0, &["unmap a page of 2 cores", "trace.html"])?;
    run(
        &["summary", &one],
        0,
        &["bench-agreement --only unmap --quick"],
    )?;
    run(
        &["--cores", "2", "--exec", "nosuch"],
        2,
        &[
            "there is no program \"nosuch\"",
            "hello",
            "the benchmarks",
            "unmap",
        ],
    )?;
    run(
        &["--groups", "boot", "--stop", "send"],
        2,
        &["expected an event of what is recorded (--groups boot), found messages:send"],
    )?;
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

/// A program that spoils traces, or has them recorded itself, ends well with a ring in each core.
fn with_rings(workshop: &Workshop, cores: i64, exec: &str, last: &str, groups: &str) -> Outcome {
    let wanted = Wanted {
        groups: groups.to_owned(),
        ..wanted(Choice::Tcg, exec, 1 << 16)
    };
    let (take, console) = take(workshop, cores, &wanted)?;
    match (&take.ended, console.program().last()) {
        (Ok(0), Some(line)) if line == last => {
            Ok(Pass::Passed(format!("{} faults", take.faults.len())))
        }
        _ => Err(format!(
            "expected {last:?}, found {:?}:\n{}{}",
            take.ended,
            console.text(),
            console.tool.join("\n")
        )),
    }
}

/// What cores recorded until they were lost is there, and so is all of the others.
fn losses(workshop: &Workshop, cores: i64, exec: &str, lost: usize) -> Outcome {
    let wanted = Wanted {
        test_hooks: true,
        ..wanted(Choice::Tcg, exec, ENOUGH)
    };
    let (take, console) = take(workshop, cores, &wanted)?;
    let gone = match &take.ended {
        Ok(0) => Some(0),
        Err(Failure::CoresLost {
            lost,
            program: Some(0),
            ..
        }) => Some(lost.len()),
        _ => None,
    };
    let (Some(true), Some(recording)) = (gone.map(|gone| gone == lost), &take.recording) else {
        return Err(format!(
            "expected {lost} cores lost, status 0 and a trace, found {:?}:\n{}",
            take.ended,
            console.text()
        ));
    };
    let model = Model::of(recording);
    let all = files::sum(recording);
    let is_empty = |records: &Vec<_>| records.is_empty();
    if recording.records.iter().any(is_empty) || all.overwritten > 0 || model.early.1 > 0 {
        return Err(format!(
            "expected records of all cores, none overwritten and no message before it was sent, found \
             {all:?}, early {:?}",
            model.early
        ));
    }
    // Whoever was lost for good is said to be, and whoever came back.
    let said = files::messages(&model);
    let is_said = match lost {
        0 => model.lost.is_empty() && !model.late.is_empty() && said.contains("started while the"),
        _ => model.lost.len() == lost && model.late.is_empty() && said.contains(" lost: what was"),
    };
    if !is_said {
        return Err(format!(
            "expected to be told who was lost, found {:?}, {:?} and:\n{said}",
            model.lost, model.late
        ));
    }
    // Who is lost may be in the middle of a record.
    if all.torn > lost as u64 || take.faults.len() > lost {
        return Err(format!(
            "expected whole rings, found {all:?}, {:?}",
            take.faults
        ));
    }
    // Of the survivors, each switch.
    let told = recording.header.cores.iter().zip(&recording.records);
    let whole = told.filter(|(core, records)| {
        let runs = records.iter().filter(|record| record.event() == RUNS);
        runs.count() as u64 == core.switches
    });
    let whole = whole.count();
    if whole + lost < recording.records.len() {
        return Err(format!(
            "expected a record for each switch of all but {lost} cores, found them of {whole}"
        ));
    }
    let made = files::made(recording, &model);
    let summary = traces::summary::table(recording, &model);
    if made.iter().any(|file| file.bytes.is_empty()) || summary.is_empty() {
        return Err("expected all files and a summary, found an empty one".to_owned());
    }
    Ok(Pass::Passed(format!(
        "{} messages, half of them {:?}, {} operations",
        model.messages.len(),
        model.half,
        model.operations.len()
    )))
}

/// A trace begins with the event that starts it, and ends with the next of those that end it.
fn triggers(workshop: &Workshop) -> Outcome {
    let record_cut = |exec: &str, start: Option<&str>, stop: Option<&str>| {
        let wanted = Wanted {
            start: start.map(str::to_owned),
            stop: stop.map(str::to_owned),
            ..wanted(Choice::Icount, exec, ENOUGH)
        };
        record(workshop, 3, &wanted)
    };
    // Pages are mapped long before one is unmapped: that ends nothing.
    let recording = record_cut("span-test", Some("unmap"), Some("memory:map"))?;
    let model = Model::of(&recording);
    let ends = (model.spans.first(), model.spans.last());
    let (Some(first), Some(last)) = ends else {
        return Err("expected something that happened, found nothing".to_owned());
    };
    let all = recording.records.iter().flatten().count();
    let found = (
        first.event,
        last.event,
        first.begin,
        last.end,
        model.missing,
    );
    let expected = (UNMAP, MAP, 0, model.length, [None; 2]);
    let is_in = |event| model.spans.iter().filter(|one| one.event == event).count();
    if found != expected || is_in(MAP) != 1 || model.length == 0 || model.spans.len() * 2 > all {
        return Err(format!(
            "expected a trace from the first unmap to the map after it, found {found:?}, not {expected:?}, \
             {} maps in it, {} of {all} records",
            is_in(MAP),
            model.spans.len()
        ));
    }
    // A core on which it began has recorded nothing after it ended there, but how clocks differ.
    let stopped = recording.records.iter().filter(|records| {
        let records = records.iter().filter(|one| group(one.event()) != CLOCKS);
        let begun: Vec<_> = records.skip_while(|one| one.event() != UNMAP).collect();
        let end = begun.iter().position(|one| one.event() == MAP);
        end.is_some_and(|end| end + 1 == begun.len())
    });
    if stopped.count() == 0 {
        return Err("expected a ring that ends with the event that ends the trace".to_owned());
    }
    // What never comes cuts nothing, and that is said; nor does an end before it.
    let recording = record_cut("hello", Some("user:begin"), Some("phase"))?;
    let model = Model::of(&recording);
    let said = files::messages(&model);
    let whole = recording.records.iter().map(Vec::len).min().unwrap_or(0);
    if model.missing[0] != Some(USER_BEGIN) || !said.contains("no user:begin came") || whole < 100 {
        return Err(format!(
            "expected to be told that nothing began, and everything, found {whole} records and:\n{said}"
        ));
    }
    // An end alone: boot stops at once.
    let recording = record_cut("hello", None, Some("boot:phase"))?;
    let of_core = |records: &Vec<Record>| {
        let others = records.iter().filter(|one| group(one.event()) != CLOCKS);
        others.count()
    };
    let counts: Vec<usize> = recording.records.iter().map(of_core).collect();
    match counts == [1; 3] && Model::of(&recording).length < 1_000_000_000 {
        true => Ok(Pass::Passed(String::new())),
        false => Err(format!("expected one record a core, found {counts:?}")),
    }
}

/// The table of several traces says what the traces say one by one, and names the cause that grows most.
fn scale(workshop: &Workshop) -> Outcome {
    let top = workshop.project.own_folder().join("trace-scale");
    let _ = std::fs::remove_dir_all(&top);
    let cores = SCALE.map(|cores| cores.to_string()).join(",");
    let mut this = Command::new("/proc/self/exe");
    this.args(["trace", "scale", "--accel", "icount", "--quiet"]);
    this.args(["--cores", &cores, "--exec", "unmap --quick", "--out"]);
    let ran = run_command(this.arg(&top), LIMIT)?;
    let table = ran.stdout.split("\nspace unmap: ").nth(1);
    let Some(table) = table.filter(|_| ran.status.success()) else {
        return Err(format!(
            "expected a table of space unmap, found {}:\n{}{}",
            ran.status, ran.stdout, ran.stderr
        ));
    };
    let table = table.split("\n\n").next().unwrap_or(table);
    let wrong = |what: String| format!("{what}:\n{table}");
    let mut rows = table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let heads = rows.next().unwrap_or_default();
    let mut sums = Vec::new();
    let mut rates = Vec::new();
    for (cores, row) in SCALE.into_iter().zip(rows) {
        let recording =
            files::read(&top.join(cores.to_string())).map_err(|error| error.to_string())?;
        if files::sum(&recording).overwritten > 0 {
            return Err(wrong(format!("expected all records of {cores} cores")));
        }
        let model = Model::of(&recording);
        let causes = Causes::of(&model);
        let kinds = traces::summary::kinds(&model, &causes);
        let kind = kinds.get(&UNMAP_REQUEST);
        let kind = kind.ok_or_else(|| wrong("expected unmaps".to_owned()))?;
        let ended = kind.latencies.len() as f64;
        let instructions = |ns: u64| ns as f64 / recording.header.ticks_per_instruction as f64;
        let own = kind.operations.iter().map(|one| &model.operations[*one]);
        let begin = own.clone().map(|one| one.begin).min().unwrap_or(0);
        let end = own.filter_map(|one| one.end).max().unwrap_or(0);
        let rate = ended * 1e6 * f64::from(cores) / instructions(end - begin);
        let mean = instructions(kind.shares.sum()) / ended;
        rates.push((f64::from(cores), rate));
        for (head, expected) in [
            ("CORES", f64::from(cores)),
            ("COUNT", kind.operations.len() as f64),
            ("MEAN", mean),
            ("RATE", rate),
        ] {
            let at = heads.iter().position(|one| *one == head);
            let found = at
                .and_then(|at| row.get(at))
                .map(|text| text.replace(',', ""));
            let found = found.and_then(|text| text.parse::<f64>().ok());
            if found.is_none_or(|found| (found - expected).abs() > expected * 0.01) {
                return Err(wrong(format!(
                    "expected {head} {expected:.1} on {cores} cores, found {found:?}"
                )));
            }
        }
        sums.push(Cause::ALL.map(|cause| instructions(kind.shares[cause]) / ended));
    }
    let (Some(first), Some(last), Some(fit)) =
        (sums.first(), sums.last(), traces::usl::fit(&rates))
    else {
        return Err(wrong("expected all numbers of cores, and a law".to_owned()));
    };
    let lambda = table
        .split("λ ")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next());
    let lambda = lambda.and_then(|text| text.replace(',', "").parse::<f64>().ok());
    if lambda.is_none_or(|found| (found - fit.law.lambda).abs() > fit.law.lambda * 0.02) {
        return Err(wrong(format!(
            "expected λ {:.2}, found {lambda:?}",
            fit.law.lambda
        )));
    }
    let growth = |at: &usize| last[*at] - first[*at];
    let most = (0..Cause::ALL.len()).max_by(|one, other| growth(one).total_cmp(&growth(other)));
    let cause = most.map_or("", |at| Cause::ALL[at].name());
    let named = table
        .lines()
        .skip_while(|line| !line.contains("it grows by"))
        .nth(1);
    match named.and_then(|line| line.split("%  ").nth(1)) {
        Some(text) if text.starts_with(cause) => Ok(Pass::Passed(text.trim().to_owned())),
        named => Err(wrong(format!(
            "expected {cause} to be named first, found {named:?}"
        ))),
    }
}
