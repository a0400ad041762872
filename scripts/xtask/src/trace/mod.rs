//! `scripts/trace`: boots with a ring of records in each core's RAM, reads the rings when the guest
//! is at its end, and writes what they held for viewers and for people.
//!
//! | module    | what it does                                        |
//! |-----------|-----------------------------------------------------|
//! | [`rings`] | what the cores left in their RAM                    |
//! | [`users`] | events that programs declare                        |
//! | [`words`] | what was asked for, checked                         |
//! | [`files`] | the files of a trace, and what terminals show of it |

pub mod files;
pub mod rings;
pub mod users;
pub mod words;

use crate::accelerator::{self, Accelerator};
use crate::bench::core_list;
use crate::bundle::{self, System};
use crate::console::{Console, Terminal};
use crate::failure::{Failure, TraceError};
use crate::install::{self, Qemu};
use crate::interrupt;
use crate::launch::{self, Boot};
use crate::options::{DEFAULT_CORES, MAX_CORES, Request};
use crate::project::Project;
use crate::run::as_exit_status;
use clap::{Args, Subcommand};
use recorder::event::{EVENTS, USER, group};
use rings::{Clockwork, Ring};
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use traces::model::Model;
use traces::recording::{Header, Recording};
use traces::scale::Point;
pub use words::{Rings, Wanted};

/// Most records of all cores together that `scale` makes room for on its own: 2 GiB.
const MOST_IN_ALL: u64 = 1 << 26;
/// Ticks a second where nobody measured them: those of `icount`.
const DEFAULT_HZ: u64 = 1_000_000_000;

/// Options of `scripts/trace`.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct TraceOptions {
    /// Something else than recording.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Cores of the machine, 1 to 255
    #[arg(long, value_name = "N", default_value_t = DEFAULT_CORES, allow_negative_numbers = true)]
    pub cores: i64,
    /// What to record.
    #[command(flatten)]
    pub wanted: Wanted,
}

/// What there is to do with traces.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Shows for each kind of operation how often, how long, and what the time went into
    Summary(SummaryOptions),
    /// Shows what is different in trace B; exit status 1 if anything is
    Diff(DiffOptions),
    /// Records one trace a core count, and shows what grows with the cores and why
    Scale(ScaleOptions),
}

/// Options of `scripts/trace summary`.
#[derive(Args, Clone, Debug)]
pub struct SummaryOptions {
    /// The trace: its folder, or any of the files in it
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Options of `scripts/trace diff`.
#[derive(Args, Clone, Debug)]
pub struct DiffOptions {
    /// One trace: its folder, or any of the files in it
    #[arg(value_name = "A")]
    pub first: PathBuf,
    /// The other
    #[arg(value_name = "B")]
    pub second: PathBuf,
}

/// Options of `scripts/trace scale`.
#[derive(Args, Clone, Debug)]
pub struct ScaleOptions {
    /// Cores of the machines, such as 2,4,8-12: one trace for each, in a folder of that name
    #[arg(
        long,
        value_name = "LIST",
        default_value = "2,4,8,16",
        allow_hyphen_values = true
    )]
    pub cores: String,
    /// What to record.
    #[command(flatten)]
    pub wanted: Wanted,
}

/// Does what was asked for and returns this process's exit status: of a recording, that of the
/// program in the guest.
pub fn trace(options: &TraceOptions) -> u8 {
    let done = match &options.command {
        None => record(options),
        Some(Command::Summary(options)) => {
            files::summary(&options.file).and_then(|text| say(&text))
        }
        Some(Command::Diff(options)) => files::diff(&options.first, &options.second)
            .and_then(|(is_same, text)| say(&text).map(|_| u8::from(!is_same))),
        Some(Command::Scale(options)) => scale(options),
    };
    done.unwrap_or_else(|failure| {
        eprintln!("error: {failure}");
        failure.status() as u8
    })
}

fn say(text: &str) -> Result<u8, Failure> {
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(Failure::host("cannot write the results"))?;
    Ok(0)
}

/// One trace.
fn record(options: &TraceOptions) -> Result<u8, Failure> {
    let wanted = &options.wanted;
    let mut request = wanted.check(options.cores)?;
    let studio = Studio::open(std::slice::from_mut(&mut request))?;
    let folder = wanted.folder(&studio.project);
    let mut terminal = Terminal {
        quiet: request.quiet,
    };
    let take = studio.record(request, &mut terminal)?;
    take.tell(&mut terminal);
    if let Some(recording) = &take.recording {
        let model = Model::of(recording);
        say(&files::table(recording))?;
        say(&files::messages(&model))?;
        say(&files::write(&folder, recording, &model)?)?;
    }
    take.status(&mut terminal)
}

/// One trace a core count.
fn scale(options: &ScaleOptions) -> Result<u8, Failure> {
    let wanted = &options.wanted;
    let cores = core_list(&options.cores, 1, MAX_CORES)?;
    let mut requests: Vec<Request> = cores
        .iter()
        .map(|cores| wanted.check(i64::from(*cores)))
        .collect::<Result<_, _>>()?;
    let studio = Studio::open(&mut requests)?;
    let top = wanted.folder(&studio.project);
    let mut terminal = Terminal {
        quiet: wanted.quiet,
    };
    let mut points = Vec::new();
    for mut request in requests {
        let cores = request.cores;
        let take = loop {
            if interrupt::asked() {
                return Err(Failure::Interrupted);
            }
            let take = studio.record(request.clone(), &mut terminal)?;
            take.tell(&mut terminal);
            // Operations that are half there cannot be compared with whole ones.
            let enough = take.recording.as_ref().and_then(files::enough);
            let larger = enough.filter(|records| {
                wanted.records.is_none() && records * cores as u64 <= MOST_IN_ALL
            });
            let (Some(records), Ok(0)) = (larger, &take.ended) else {
                break take;
            };
            terminal.tool(&format!(
                "{cores} cores: the rings were too small; again with --records {records}"
            ));
            let larger = Wanted {
                records: Some(records as i64),
                exec: request.exec.clone(),
                ..wanted.clone()
            };
            request = larger.check(cores as i64)?;
        };
        if let Some(recording) = &take.recording {
            let model = Model::of(recording);
            say(&files::messages(&model))?;
            say(&files::write(
                &top.join(cores.to_string()),
                recording,
                &model,
            )?)?;
            points.push(Point::of(cores as u32, recording, &model));
        }
        let status = take.status(&mut terminal)?;
        if status != 0 {
            eprintln!("error: the program ended with status {status} on {cores} cores: expected 0");
            return Ok(status);
        }
    }
    say(&traces::scale::report(&points))
}

/// What it takes to record.
pub struct Studio {
    /// The sources.
    pub project: Project,
    system: System,
    qemu: Qemu,
    accelerator: Accelerator,
}

/// One boot that was recorded.
pub struct Take {
    /// Status of the program, or why there is none.
    pub ended: Result<i32, Failure>,
    /// What was recorded; `None`: no core came so far.
    pub recording: Option<Recording>,
    /// What is wrong with rings, in words.
    pub faults: Vec<String>,
    /// How long it took to read the rings.
    pub reading: Duration,
}

impl Studio {
    /// With the system built, and the programs of these requests found in it. They differ in nothing else than
    /// the size of the machine.
    fn open(requests: &mut [Request]) -> Result<Self, Failure> {
        let project = Project::here();
        let first = requests.first().map(|one| (one.qemu.clone(), one.accel));
        let (qemu, accel) = first.unwrap_or((None, accelerator::Choice::Auto));
        let qemu = install::find_qemu(qemu.as_deref())?;
        let system = bundle::prepare(&project)?;
        for request in requests {
            request.find_program(&system.programs)?;
        }
        let accelerator = accelerator::choose(accel, &project, &system, &qemu);
        Ok(Self {
            project,
            system,
            qemu,
            accelerator,
        })
    }

    /// Boots, and reads what the cores left when that has come to its end, whatever the end was.
    fn record(&self, request: Request, console: &mut dyn Console) -> Result<Take, Failure> {
        let limit = request
            .timeout
            .unwrap_or_else(|| self.accelerator.time_limit(request.cores));
        let boot = Boot {
            limit: Some(limit),
            request,
            accelerator: self.accelerator,
        };
        take(&boot, &self.project, &self.system, &self.qemu, console)
    }
}

/// One boot of a request with rings, recorded.
///
/// # Errors
/// An executable that cannot be read. How the boot ended is told apart.
pub fn take(
    boot: &Boot,
    project: &Project,
    system: &System,
    qemu: &Qemu,
    console: &mut dyn Console,
) -> Result<Take, Failure> {
    let rings = boot.request.trace.clone().unwrap_or_default();
    let (mut left, mut clockwork) = (Vec::new(), Clockwork::default());
    let mut reading = Duration::ZERO;
    let ended = launch::launch_and_look(boot, system, qemu, console, &mut |memory, guest| {
        let begin = Instant::now();
        clockwork = Clockwork::read(memory, guest);
        left = rings::read(memory, guest, &clockwork, boot.request.cores, rings.records);
        reading = begin.elapsed();
    });
    let mut faults = Vec::new();
    for ring in &left {
        let core = ring.core.core;
        faults.extend(
            ring.faults
                .iter()
                .map(|fault| format!("core {core}: {fault}")),
        );
    }
    if left.iter().all(|ring| ring.core.written == 0) {
        return Ok(Take {
            ended,
            recording: None,
            faults,
            reading,
        });
    }
    // A program may have asked for others than the command line.
    let (start, stop) = left.first().map_or((0, 0), |ring| ring.triggers);
    let header = Header {
        version: 1,
        revision: project.revision(),
        accelerator: boot.accelerator.to_string(),
        command: words::command(boot),
        program: boot.request.exec.clone(),
        hz: clockwork.hz.unwrap_or(DEFAULT_HZ),
        is_exact: boot.accelerator == Accelerator::Icount,
        ticks_per_instruction: boot.accelerator.ticks_per_instruction(),
        start,
        stop,
        users: users::declared(&system.executables, &addresses(&left))?,
        cores: left.iter().map(|ring| ring.core.clone()).collect(),
    };
    let records = left.into_iter().map(|ring| ring.records).collect();
    Ok(Take {
        ended,
        recording: Some(Recording { header, records }),
        faults,
        reading,
    })
}

/// Where programs' own events are declared, by their records.
fn addresses(rings: &[Ring]) -> BTreeSet<u64> {
    let records = rings.iter().flat_map(|ring| &ring.records);
    let own = records.filter(|record| {
        group(record.event()) == USER && EVENTS.iter().any(|one| one.number == record.event())
    });
    own.map(|record| record.flow).collect()
}

impl Take {
    /// Tells what is not as it should be.
    fn tell(&self, console: &mut dyn Console) {
        if let Err(failure) = &self.ended {
            console.tool(&format!("error: {failure}"));
            if self.recording.is_some() {
                console.tool("what the cores had recorded until then is written all the same");
            }
        }
        for fault in &self.faults {
            console.tool(&format!("warning: {fault}"));
        }
    }

    /// This process's exit status.
    fn status(self, console: &mut Terminal) -> Result<u8, Failure> {
        match (self.ended, self.recording) {
            // It has been told.
            (Err(failure), _) => Ok(failure.status() as u8),
            (Ok(_), None) => Err(TraceError::Nothing.into()),
            (Ok(status), Some(_)) => Ok(as_exit_status(status, console)),
        }
    }
}
