//! `scripts/bench`: boots each benchmark, takes its figures from the console, and writes them
//! down with everything that it takes to obtain them again.
//!
//! | module        | what it does                                              |
//! |---------------|-----------------------------------------------------------|
//! | [`catalogue`] | what there is to measure, and what is expected of it      |
//! | [`results`]   | folders of results                                        |
//! | [`compare`]   | what changed between two folders                          |
//! | [`merge`]     | joins folders                                             |
//! | [`pictures`]  | the report's pictures as files                            |
//! | [`plan`]      | the boots of a run as commands of their own               |
//! | [`baseline`]  | holds the main figures against those that were kept       |

pub mod baseline;
pub mod catalogue;
pub mod compare;
pub mod merge;
pub mod pictures;
pub mod plan;
pub mod results;

use crate::accelerator::{self, Accelerator, Choice};
use crate::bundle::{self, System};
use crate::coherence;
use crate::coherence::estimate::{self, Model};
use crate::comparison;
use crate::console::Recording;
use crate::failure::{BenchmarkError, Failure, OptionError};
use crate::figure::{self, Conditions, Figure};
use crate::harness::last_lines;
use crate::install::{self, Qemu};
use crate::interrupt;
use crate::launch::{self, Boot};
use crate::linux;
use crate::options::{MAX_CORES, RunOptions};
use crate::progress::{Estimate, Progress};
use crate::project::Project;
use crate::run::quoted;
use catalogue::{BENCHMARKS, Benchmark};
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
pub use results::Run;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Options of `scripts/bench`.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchOptions {
    /// Something else than measuring.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What to measure.
    #[command(flatten)]
    pub measuring: Measuring,
    /// Folder for results.jsonl and report.html [default: target/bench/NAME; target/bench/all for
    /// more than one]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// What there is to do with results.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Measures urpc beside other channels, between two threads of the host
    Host(crate::peers::HostOptions),
    /// Says what changed from folder A to folder B, and by how much
    Compare(compare::CompareOptions),
    /// Joins folders of results into one, with a report of all
    Merge(merge::MergeOptions),
    /// Writes the pictures of a folder's report, each as an SVG file of its own
    Pictures(pictures::PictureOptions),
    /// Writes one command a boot, for GNU parallel or a Slurm array; merge joins their folders
    Plan(plan::PlanOptions),
    /// Holds the main operations' icount figures against those of the sources' baseline
    Baseline(baseline::BaselineOptions),
}

/// What to measure, and how.
#[derive(Args, Clone, Debug)]
pub struct Measuring {
    /// Benchmarks to run [default: all]
    #[arg(value_name = "NAME", value_parser = PossibleValuesParser::new(BENCHMARKS.iter().map(|one| one.name)))]
    pub names: Vec<String>,
    /// Cores of the machine, such as 2 or 2,4,8-12: one boot for each [default: the benchmark's own]
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub cores: Option<String>,
    /// How QEMU executes the guest
    #[arg(long, value_enum, default_value_t = Choice::Icount)]
    pub accel: Choice,
    /// Fewer samples
    #[arg(long)]
    pub quick: bool,
    /// Counts the cache lines that move between cores, too
    #[arg(long)]
    pub coherence: bool,
    /// For --coherence: the machine to estimate nanoseconds for, by name (qemu, two-socket,
    /// eight-socket) or file; repeatable [default: two-socket and eight-socket]
    #[arg(long, value_name = "MACHINE", requires = "coherence")]
    pub machine: Vec<String>,
    /// Boots Linux too, on the same machines, and measures the nearest operations of its own
    #[arg(long)]
    pub with_linux: bool,
    /// Another QEMU than the installed one
    #[arg(long, hide = true, value_name = "PATH")]
    pub qemu: Option<PathBuf>,
}

/// A boot to be made.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// What is run.
    pub benchmark: &'static Benchmark,
    /// On how many cores.
    pub cores: u32,
}

impl Measuring {
    /// What `scripts/bench` without options measures.
    pub fn defaults() -> Self {
        Self {
            names: Vec::new(),
            cores: None,
            accel: Choice::Icount,
            quick: false,
            coherence: false,
            machine: Vec::new(),
            with_linux: false,
            qemu: None,
        }
    }

    /// All boots, in order. A number of cores that is too small for a benchmark is left out.
    ///
    /// # Errors
    /// A list of cores that is none, or too small for all benchmarks.
    pub fn steps(&self) -> Result<Vec<Step>, OptionError> {
        let is_wanted = |benchmark: &&Benchmark| {
            self.names.is_empty() || self.names.iter().any(|name| name == benchmark.name)
        };
        let wanted = || BENCHMARKS.iter().filter(is_wanted);
        let listed = match &self.cores {
            Some(text) => {
                let least = wanted().map(|one| one.least_cores).min().unwrap_or(1);
                Some(core_list(text, least as usize, MAX_CORES)?)
            }
            None => None,
        };
        let steps_of = |benchmark: &'static Benchmark| {
            let cores = listed.as_deref().unwrap_or(benchmark.cores).to_vec();
            let enough = move |cores: &u32| *cores >= benchmark.least_cores;
            let step = move |cores| Step { benchmark, cores };
            cores.into_iter().filter(enough).map(step)
        };
        Ok(wanted().flat_map(steps_of).collect())
    }

    /// The accelerator as it was asked for.
    fn accelerator(&self) -> String {
        let value = clap::ValueEnum::to_possible_value(&self.accel);
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The machines that nanoseconds are estimated for.
    fn models(&self) -> Result<Vec<Model>, OptionError> {
        match (self.coherence, &self.machine[..]) {
            (false, _) => Ok(Vec::new()),
            (true, []) => estimate::DEFAULT.into_iter().map(Model::named).collect(),
            (true, names) => names.iter().map(|name| Model::named(name)).collect(),
        }
    }

    /// The words behind `scripts/bench` that make one boot.
    pub fn words(&self, benchmark: &Benchmark, cores: u32, accelerator: &str) -> String {
        let mut words = format!("{} --cores {cores} --accel {accelerator}", benchmark.name);
        if self.quick {
            words.push_str(" --quick");
        }
        if self.coherence {
            words.push_str(" --coherence");
        }
        for name in &self.machine {
            words.push_str(&format!(" --machine {}", quoted(name)));
        }
        if let Some(path) = &self.qemu {
            words.push_str(&format!(" --qemu {}", quoted(&path.to_string_lossy())));
        }
        words
    }
}

/// Does what was asked for and returns this process's exit status. A target missed is no failure.
pub fn bench(options: &BenchOptions) -> u8 {
    let done = match &options.command {
        Some(Command::Host(options)) => return crate::peers::host(options),
        None => measure_all(options),
        Some(Command::Compare(options)) => compare::compare(options).and_then(|text| say(&text)),
        Some(Command::Pictures(options)) => pictures::pictures(options).and_then(|text| say(&text)),
        Some(Command::Merge(options)) => merge::merge(options).and_then(|text| say(&text)),
        Some(Command::Plan(options)) => plan::plan(options, &Project::here())
            .and_then(|(commands, help)| say(&commands).map(|()| eprint!("{help}"))),
        Some(Command::Baseline(options)) => {
            baseline::baseline(options, &Project::here()).and_then(|text| say(&text))
        }
    };
    match done {
        Ok(()) => 0,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.status() as u8
        }
    }
}

/// Makes all boots, and writes the results of each as soon as there are any. A benchmark that fails
/// does not keep the others from being measured.
fn measure_all(options: &BenchOptions) -> Result<(), Failure> {
    let measuring = &options.measuring;
    let steps = measuring.steps()?;
    let project = Project::here();
    let laboratory = Laboratory::open(measuring, &project)?;
    let folder = match (&options.out, &measuring.names[..]) {
        (Some(folder), _) => folder.clone(),
        (None, [name]) => project.target.join("bench").join(name),
        (None, _) => project.target.join("bench/all"),
    };
    let mut runs = Vec::new();
    let mut failed: Vec<(Step, Failure)> = Vec::new();
    let mut estimate = Estimate::begin(steps.iter().map(|step| step.cores));
    for step in &steps {
        let name = format!("{} on {} cores", step.benchmark.name, step.cores);
        let measured = match interrupt::asked() {
            true => Err(Failure::Interrupted),
            false => laboratory.measure(step.benchmark, step.cores, &estimate.of(&name)),
        };
        estimate.advance();
        match measured {
            Ok(run) => {
                say(&comparison::table(&run))?;
                runs.push(run);
                write(&folder, &runs)?;
            }
            Err(Failure::Interrupted) => {
                let (done, all) = (runs.len(), steps.len());
                match done {
                    0 => eprintln!("interrupted before the first of {all} boots ended"),
                    _ => eprintln!(
                        "interrupted: {done} of {all} boots are in {}",
                        folder.display()
                    ),
                }
                return Err(Failure::Interrupted);
            }
            Err(failure) => {
                if steps.len() > 1 {
                    eprintln!("error: {failure}");
                }
                failed.push((*step, failure));
            }
        }
    }
    if measuring.with_linux && !runs.is_empty() {
        for run in laboratory.linux(&project, &runs)? {
            let ours = runs
                .iter()
                .filter(|one| one.conditions.cores == run.conditions.cores);
            let ours: Vec<&Figure> = ours.flat_map(|one| &one.figures).collect();
            say(&linux::table(&ours, &run.figures))?;
            runs.push(run);
            write(&folder, &runs)?;
        }
    }
    if !runs.is_empty() {
        say(&format!(
            "{} and {}: {}\n",
            results::RESULTS,
            results::REPORT,
            folder.display()
        ))?;
    }
    if steps.len() > 1 {
        for (step, _) in &failed {
            eprintln!("failed: {} on {} cores", step.benchmark.name, step.cores);
        }
    }
    match failed.into_iter().next() {
        Some((_, failure)) => Err(failure),
        None => Ok(()),
    }
}

fn write(folder: &Path, runs: &[Run]) -> Result<(), Failure> {
    let cannot = format!("cannot write to {}", folder.display());
    results::write(folder, runs).map_err(Failure::host(cannot))
}

fn say(text: &str) -> Result<(), Failure> {
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(Failure::host("cannot write the results"))
}

/// What all boots have in common.
pub struct Laboratory<'options> {
    measuring: &'options Measuring,
    accelerator: Accelerator,
    revision: String,
    qemu: Qemu,
    system: System,
    models: Vec<Model>,
}

impl<'options> Laboratory<'options> {
    /// Finds QEMU and builds the system.
    ///
    /// # Errors
    /// What is missing, or does not build.
    pub fn open(measuring: &'options Measuring, project: &Project) -> Result<Self, Failure> {
        let models = measuring.models()?;
        let qemu = install::find_qemu(measuring.qemu.as_deref())?;
        let system = bundle::prepare(project)?;
        let accelerator = match measuring.coherence {
            false => accelerator::choose(measuring.accel, project, &system, &qemu),
            true => coherence::prepare(measuring.accel, project)?,
        };
        Ok(Self {
            accelerator,
            revision: project.revision(),
            measuring,
            qemu,
            system,
            models,
        })
    }

    /// One boot, with its figures; `progress`: what a person sees meanwhile.
    ///
    /// # Errors
    /// Why there are no figures to trust.
    pub fn measure(
        &self,
        benchmark: &'static Benchmark,
        cores: u32,
        progress: &str,
    ) -> Result<Run, Failure> {
        let quick = if self.measuring.quick { " --quick" } else { "" };
        let counted = self.measuring.coherence.then(|| {
            let name = format!("coherence-{}-{cores}.jsonl", benchmark.name);
            Project::here().own_folder().join(name)
        });
        let options = RunOptions {
            cores: i64::from(cores),
            accel: self.measuring.accel,
            exec: format!("{}{quick}", benchmark.command),
            coherence: counted.clone(),
            qemu: self.measuring.qemu.clone(),
            ..RunOptions::defaults()
        };
        let mut request = options.check()?;
        request.find_program(&self.system.programs)?;
        let accelerator = self.accelerator;
        let boot = Boot {
            limit: Some(accelerator.time_limit(request.cores)),
            request,
            accelerator,
        };
        let conditions = Conditions {
            accelerator: accelerator.to_string(),
            command: self.command(benchmark, cores),
            cores,
            memory: boot.request.memory.to_string(),
            qemu: self.qemu.version.clone(),
            revision: self.revision.clone(),
            sockets: boot.request.sockets,
        };
        let mut console = Recording::default();
        let result = {
            let _progress = Progress::begin(progress);
            launch::launch(&boot, &self.system, &self.qemu, &mut console)
        };
        result
            .and_then(|status| match &counted {
                None => Ok(status),
                Some(file) => {
                    let notes = coherence::tell(file, benchmark.name, &self.models, &mut console)?;
                    for note in notes {
                        eprintln!("{note}");
                    }
                    Ok(status)
                }
            })
            .and_then(|status| run_of(benchmark, accelerator, conditions, status, &console))
            .inspect_err(|failure| {
                if matches!(failure, Failure::Interrupted) {
                    return;
                }
                let said = last_lines(&console.text());
                eprint!("{said}");
                for words in &console.tool {
                    eprintln!("{words}");
                }
                eprintln!("repeat: {}", self.command(benchmark, cores));
            })
    }

    /// A boot of Linux for each machine of these runs.
    fn linux(&self, project: &Project, runs: &[Run]) -> Result<Vec<Run>, Failure> {
        let peer = linux::prepare(project)?;
        let mut theirs: Vec<Run> = Vec::new();
        for run in runs {
            let is_same = |other: &Run| {
                let (one, other) = (&run.conditions, &other.conditions);
                (one.cores, one.sockets) == (other.cores, other.sockets)
            };
            if theirs.iter().any(is_same) {
                continue;
            }
            let conditions = Conditions {
                command: format!("{} --with-linux", run.conditions.command),
                ..run.conditions.clone()
            };
            let quick = self.measuring.quick;
            let figures = linux::run(&peer, &self.qemu, self.accelerator, quick, &conditions)?;
            theirs.push(Run {
                name: linux::NAME.to_owned(),
                conditions,
                figures,
                left_out: 0,
            });
        }
        Ok(theirs)
    }

    /// The command that obtains the same figures again; where they are written is left out.
    fn command(&self, benchmark: &Benchmark, cores: u32) -> String {
        let accelerator = self.accelerator.to_string();
        let words = self.measuring.words(benchmark, cores, &accelerator);
        format!("scripts/bench {words}")
    }
}

/// What a benchmark printed before it ended with `status`.
fn run_of(
    benchmark: &'static Benchmark,
    accelerator: Accelerator,
    conditions: Conditions,
    status: i32,
    console: &Recording,
) -> Result<Run, Failure> {
    if status != 0 {
        let program = benchmark.name;
        return Err(BenchmarkError::Program { program, status }.into());
    }
    let mut figures: Vec<Figure> = Vec::new();
    for line in console.program() {
        if !figure::parse_more(line, figures.last_mut())? {
            figures.extend(figure::parse(line, benchmark.name, &conditions)?);
        }
    }
    let missing: Vec<&str> = benchmark
        .operations
        .iter()
        .map(|operation| operation.name)
        .filter(|name| figures.iter().all(|figure| figure.operation != *name))
        .collect();
    // All that is expected so far are times.
    if accelerator.tells_time() && !missing.is_empty() {
        return Err(BenchmarkError::Missing {
            missing,
            found: figures.into_iter().map(|figure| figure.operation).collect(),
        }
        .into());
    }
    let all = figures.len();
    figures.retain(|figure| accelerator.tells(figure.unit));
    Ok(Run {
        name: benchmark.name.to_owned(),
        conditions,
        left_out: all - figures.len(),
        figures,
    })
}

/// Reads `2`, `2,4,8-12`: each number once, in order.
pub fn core_list(text: &str, minimum: usize, maximum: usize) -> Result<Vec<u32>, OptionError> {
    let number = |text: &str| {
        let number = text.trim().parse::<u32>().ok()?;
        (minimum..=maximum)
            .contains(&(number as usize))
            .then_some(number)
    };
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        (first <= last).then_some(first..=last)
    };
    let mut cores = BTreeSet::new();
    for part in text.split(',') {
        cores.extend(range(part).ok_or_else(|| OptionError::CoreList {
            found: text.to_owned(),
            minimum,
            maximum,
        })?);
    }
    Ok(cores.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::{Console, Moment};
    use crate::failure::Status;
    use catalogue::TARGET_UNIT;
    use results::tests::conditions;

    fn line(operation: &str, unit: &str, median: u64) -> String {
        let operation = serde_json::Value::from(operation);
        format!(
            "result {{\"benchmark\":\"micro\",\"operation\":{operation},\"unit\":\"{unit}\",\
             \"minimum\":{median},\"median\":{median},\"p99\":{median},\"samples\":1000,\"core\":0}}"
        )
    }

    /// What a boot of `micro` comes to that wrote these lines.
    fn run_with(
        accelerator: Accelerator,
        status: i32,
        lines: impl IntoIterator<Item = String>,
    ) -> Result<Run, Failure> {
        let mut console = Recording::default();
        console
            .guest("[core 0] result of nobody's", Moment::default())
            .unwrap();
        console
            .guest("micro: some words", Moment::default())
            .unwrap();
        for line in lines {
            console.guest(&line, Moment::default()).unwrap();
        }
        let conditions = conditions("micro", &accelerator.to_string(), 2);
        run_of(&BENCHMARKS[0], accelerator, conditions, status, &console)
    }

    fn all_lines(unit: &str) -> Vec<String> {
        BENCHMARKS[0]
            .operations
            .iter()
            .map(|operation| line(operation.name, unit, 7))
            .collect()
    }

    #[test]
    fn takes_all_results_and_nothing_else() {
        let mut lines = all_lines(TARGET_UNIT);
        lines.push(line("another", "rounds", 3));
        let run = run_with(Accelerator::Icount, 0, lines).unwrap();
        assert_eq!(
            (run.figures.len(), run.left_out),
            (BENCHMARKS[0].operations.len() + 1, 0)
        );
        let text = results::lines(&[run]);
        assert_eq!(text.lines().count(), BENCHMARKS[0].operations.len() + 1);
        assert_eq!(
            text.lines().last().unwrap(),
            "{\"revision\":\"abc\",\"benchmark\":\"micro\",\"operation\":\"another\",\
             \"accelerator\":\"icount\",\"command\":\"scripts/bench micro --cores 2 --accel icount\",\"core\":0,\"cores\":2,\
             \"median\":3,\"memory\":\"512M\",\"minimum\":3,\"p99\":3,\
             \"qemu\":\"7.2.22\",\"samples\":1000,\"sockets\":1,\
             \"unit\":\"rounds\"}"
        );
    }

    #[test]
    fn plain_emulation_gives_counts_alone() {
        let mut lines = all_lines("cycles");
        lines.push(line("another", "ns", 3));
        lines.push(line("one more", "messages", 3));
        let run = run_with(Accelerator::Tcg, 0, lines).unwrap();
        assert_eq!(
            (run.figures.len(), run.left_out),
            (1, BENCHMARKS[0].operations.len() + 1)
        );
        assert!(!results::lines(&[run]).contains("cycles"));
        assert!(
            run_with(Accelerator::Tcg, 0, [])
                .unwrap()
                .figures
                .is_empty()
        );
    }

    #[test]
    fn a_failed_program_and_missing_results_are_errors() {
        let failure = run_with(Accelerator::Icount, 3, all_lines(TARGET_UNIT)).unwrap_err();
        assert_eq!(failure.status(), Status::BenchmarkFailed);
        assert!(
            failure.to_string().contains("ended with status 3"),
            "{failure}"
        );

        let lines = all_lines(TARGET_UNIT).split_off(2);
        let failure = run_with(Accelerator::Icount, 0, lines).unwrap_err();
        assert_eq!(failure.status(), Status::BenchmarkFailed);
        let text = failure.to_string();
        assert!(
            text.contains("\"null system call\", \"LRPC one way\""),
            "{text}"
        );

        let failure = run_with(Accelerator::Icount, 0, []).unwrap_err();
        assert!(failure.to_string().contains("found none"), "{failure}");

        let mut lines = all_lines(TARGET_UNIT);
        lines[3].pop();
        let failure = run_with(Accelerator::Icount, 0, lines).unwrap_err();
        assert_eq!(failure.status(), Status::BenchmarkFailed);
    }

    /// The tool's command line, as far as it is about benchmarks.
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: BenchOptions,
    }

    #[test]
    fn machines_are_for_counted_lines_and_the_command_repeats_them() {
        let read = |line: &str| {
            let words = ["bench"].into_iter().chain(line.split(' '));
            <Line as clap::Parser>::try_parse_from(words).map(|line| line.options.measuring)
        };
        let names = |measuring: &Measuring| measuring.models().map(|models| models.len());
        assert!(read("micro --machine qemu").is_err());
        assert_eq!(names(&read("micro").unwrap()).unwrap(), 0);
        assert_eq!(names(&read("micro --coherence").unwrap()).unwrap(), 2);
        let measuring = read("micro --coherence --machine qemu --machine two-socket").unwrap();
        assert_eq!(names(&measuring).unwrap(), 2);
        let words = measuring.words(&BENCHMARKS[0], 2, "icount");
        assert!(
            words.ends_with(" --coherence --machine 'qemu' --machine 'two-socket'"),
            "{words}"
        );
        let error = names(&read("micro --coherence --machine none").unwrap()).unwrap_err();
        assert!(error.to_string().contains("--machine: none"), "{error}");
    }

    #[test]
    fn lists_of_cores_are_read_or_refused() {
        let core_list = |text| core_list(text, 1, 255);
        assert_eq!(core_list("2").unwrap(), [2]);
        assert_eq!(core_list("8, 2,4-6,5").unwrap(), [2, 4, 5, 6, 8]);
        assert_eq!(core_list("1-255").unwrap().len(), 255);
        for text in [
            "",
            "0",
            "256",
            "-1",
            "1-",
            "6-4",
            "2,,3",
            "two",
            "1-99999999999",
        ] {
            let error = core_list(text).unwrap_err();
            assert!(error.to_string().contains("from 1 to 255"), "{error}");
        }
    }
}
