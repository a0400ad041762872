//! `scripts/bench`: boots each benchmark, takes its figures from the console, and writes them
//! down with everything that it takes to obtain them again.

use crate::accelerator::{self, Accelerator, Choice};
use crate::bundle::{self, System};
use crate::chart;
use crate::comparison;
use crate::console::Recording;
use crate::failure::{BenchmarkError, Failure, OptionError};
use crate::figure::{self, Conditions, Figure};
use crate::harness::last_lines;
use crate::install::{self, Qemu};
use crate::launch::{self, Boot};
use crate::options::{MAX_CORES, RunOptions};
use crate::progress::Progress;
use crate::project::Project;
use crate::run::quoted;
use clap::Args;
use clap::builder::PossibleValuesParser;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// All benchmarks: a line each, and a table of what is expected of its operations.
pub const BENCHMARKS: [Benchmark; 2] = [
    Benchmark::new("micro", "micro", &[2], &MICRO),
    Benchmark::new("lrpc", "micro --only lrpc", &[1], &LRPC),
];

/// Where the figures of [`Operation::barrelfish`] come from.
pub const BARRELFISH: &str = "Barrelfish 2020, same QEMU and method";

/// The unit of [`Operation::target`] and [`Operation::barrelfish`].
pub const TARGET_UNIT: &str = "guest instructions";

const LRPC: [Operation; 3] = [
    Operation::new("null system call", 50, Some(113)),
    Operation::new("LRPC one way", 150, Some(926)),
    Operation::new("context switch between domains", 200, None),
];

const MICRO: [Operation; 7] = [
    Operation::new("null system call", 50, Some(113)),
    Operation::new("LRPC one way", 150, Some(926)),
    Operation::new("context switch between domains", 200, None),
    Operation::new("copy+delete", 1_500, Some(17_766)),
    Operation::new("map+touch+unmap", 2_000, Some(40_339)),
    Operation::new("allocate a 4 KiB frame", 3_000, Some(145_452)),
    Operation::new("typed message over urpc", 160, Some(705)),
];

/// A program of the guest that prints figures.
#[derive(Debug)]
pub struct Benchmark {
    /// Its name, which its figures bear.
    pub name: &'static str,
    /// The program with its arguments.
    command: &'static str,
    /// Cores of the machine when nobody says how many: a boot for each.
    cores: &'static [u32],
    /// What it has to measure; it may measure more.
    pub operations: &'static [Operation],
}

/// What is expected of an operation.
#[derive(Debug)]
pub struct Operation {
    /// Its name.
    pub name: &'static str,
    /// The most that it is to take, in [`TARGET_UNIT`].
    pub target: u32,
    /// What it takes in [`BARRELFISH`], in [`TARGET_UNIT`]; `None`: not measured there.
    pub barrelfish: Option<u32>,
}

impl Benchmark {
    const fn new(
        name: &'static str,
        command: &'static str,
        cores: &'static [u32],
        operations: &'static [Operation],
    ) -> Self {
        Self {
            name,
            command,
            cores,
            operations,
        }
    }

    /// What is expected of the operation of this name, if anything is.
    pub fn operation(&self, name: &str) -> Option<&'static Operation> {
        self.operations
            .iter()
            .find(|operation| operation.name == name)
    }
}

impl Operation {
    const fn new(name: &'static str, target: u32, barrelfish: Option<u32>) -> Self {
        Self {
            name,
            target,
            barrelfish,
        }
    }
}

/// Options of `scripts/bench`.
#[derive(Args, Clone, Debug)]
pub struct BenchOptions {
    /// Benchmarks to run [default: all]
    #[arg(value_name = "NAME", value_parser = PossibleValuesParser::new(BENCHMARKS.map(|one| one.name)))]
    pub names: Vec<String>,
    /// Cores of the machine, such as 2 or 2,4,8-12: one boot for each [default: the benchmark's own]
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub cores: Option<String>,
    /// How QEMU executes the guest
    #[arg(long, value_enum, default_value_t = Choice::Icount)]
    pub accel: Choice,
    /// Folder for results.jsonl and report.html [default: target/bench/NAME]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Fewer samples
    #[arg(long)]
    pub quick: bool,
    /// Another QEMU than the installed one
    #[arg(long, hide = true, value_name = "PATH")]
    pub qemu: Option<PathBuf>,
}

/// The figures of one boot.
#[derive(Debug)]
pub struct Run {
    /// What was run.
    pub benchmark: &'static Benchmark,
    /// How.
    pub conditions: Conditions,
    /// What came out, in the order of measuring.
    pub figures: Vec<Figure>,
    /// Figures left out because the accelerator does not tell their unit.
    pub left_out: usize,
}

/// Runs the benchmarks and returns this process's exit status. A target missed is no failure.
pub fn bench(options: &BenchOptions) -> u8 {
    match try_bench(options) {
        Ok(()) => 0,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.status() as u8
        }
    }
}

fn try_bench(options: &BenchOptions) -> Result<(), Failure> {
    let cores = options
        .cores
        .as_deref()
        .map(|text| core_list(text, 1, MAX_CORES))
        .transpose()?;
    let project = Project::here();
    let qemu = install::find_qemu(options.qemu.as_deref())?;
    let system = bundle::prepare(&project)?;
    let laboratory = Laboratory {
        accelerator: accelerator::choose(options.accel, &project, &system, &qemu),
        revision: project.revision(),
        options,
        qemu,
        system,
    };
    let mut runs = Vec::new();
    for benchmark in &BENCHMARKS {
        let named = options.names.iter().any(|name| name == benchmark.name);
        if !named && !options.names.is_empty() {
            continue;
        }
        if options.out.is_none() {
            runs.clear();
        }
        for cores in cores.as_deref().unwrap_or(benchmark.cores) {
            let run = laboratory.measure(benchmark, *cores)?;
            say(&comparison::table(&run))?;
            runs.push(run);
        }
        let folder = match &options.out {
            Some(folder) => folder.clone(),
            None => project.target.join("bench").join(benchmark.name),
        };
        write(&folder, &runs).map_err(Failure::host(format!(
            "cannot write to {}",
            folder.display()
        )))?;
        say(&format!(
            "results.jsonl and report.html: {}\n",
            folder.display()
        ))?;
    }
    Ok(())
}

fn say(text: &str) -> Result<(), Failure> {
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(Failure::host("cannot write the results"))
}

/// What all boots have in common.
struct Laboratory<'options> {
    options: &'options BenchOptions,
    accelerator: Accelerator,
    revision: String,
    qemu: Qemu,
    system: System,
}

impl Laboratory<'_> {
    /// One boot, with its figures.
    fn measure(&self, benchmark: &'static Benchmark, cores: u32) -> Result<Run, Failure> {
        let quick = if self.options.quick { " --quick" } else { "" };
        let options = RunOptions {
            cores: i64::from(cores),
            accel: self.options.accel,
            exec: format!("{}{quick}", benchmark.command),
            qemu: self.options.qemu.clone(),
            ..RunOptions::defaults()
        };
        let request = options.check()?;
        request.check_program(&self.system.programs)?;
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
            let _progress = Progress::begin(format!("{} on {cores} cores", benchmark.name));
            launch::launch(&boot, &self.system, &self.qemu, &mut console)
        };
        result
            .and_then(|status| run_of(benchmark, accelerator, conditions, status, &console))
            .inspect_err(|_| {
                let said = last_lines(&console.text());
                eprint!("{said}");
                for words in &console.tool {
                    eprintln!("{words}");
                }
                eprintln!("repeat: {}", self.command(benchmark, cores));
            })
    }

    /// The command that obtains the same figures again; where they are written is left out.
    fn command(&self, benchmark: &Benchmark, cores: u32) -> String {
        let mut command = format!(
            "scripts/bench {} --cores {cores} --accel {}",
            benchmark.name, self.accelerator
        );
        if self.options.quick {
            command.push_str(" --quick");
        }
        if let Some(path) = &self.options.qemu {
            command.push_str(&format!(" --qemu {}", quoted(&path.to_string_lossy())));
        }
        command
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
        benchmark,
        conditions,
        left_out: all - figures.len(),
        figures,
    })
}

/// Writes both files, into a folder that need not be there yet.
fn write(folder: &Path, runs: &[Run]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("results.jsonl"), results(runs))?;
    fs::write(folder.join("report.html"), chart::page(runs))
}

/// One JSON object a line and figure.
fn results(runs: &[Run]) -> String {
    runs.iter()
        .flat_map(|run| &run.figures)
        .map(|figure| serde_json::Value::from(figure.record.clone()).to_string() + "\n")
        .collect()
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
pub mod tests {
    use super::*;
    use crate::console::{Console, Moment};
    use crate::failure::Status;

    fn conditions(accelerator: &str) -> Conditions {
        Conditions {
            accelerator: accelerator.to_owned(),
            command: format!("scripts/bench micro --cores 2 --accel {accelerator}"),
            cores: 2,
            memory: "512M".to_owned(),
            qemu: "7.2.22".to_owned(),
            revision: "abc".to_owned(),
            sockets: 1,
        }
    }

    fn line(operation: &str, unit: &str, median: u64) -> String {
        let operation = serde_json::Value::from(operation);
        format!(
            "result {{\"benchmark\":\"micro\",\"operation\":{operation},\"unit\":\"{unit}\",\
             \"minimum\":{median},\"median\":{median},\"p99\":{median},\"samples\":1000,\"core\":0}}"
        )
    }

    /// A run of `micro` that measured these operations.
    pub fn run(accelerator: &str, medians: &[(&str, u64)]) -> Run {
        let conditions = conditions(accelerator);
        let figures = medians
            .iter()
            .map(|(operation, median)| line(operation, TARGET_UNIT, *median))
            .map(|line| figure::parse(&line, "micro", &conditions).unwrap().unwrap())
            .collect();
        Run {
            benchmark: &BENCHMARKS[0],
            conditions,
            figures,
            left_out: 0,
        }
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
        let conditions = conditions(&accelerator.to_string());
        run_of(&BENCHMARKS[0], accelerator, conditions, status, &console)
    }

    fn all_lines(unit: &str) -> Vec<String> {
        MICRO
            .iter()
            .map(|operation| line(operation.name, unit, 7))
            .collect()
    }

    #[test]
    fn takes_all_results_and_nothing_else() {
        let mut lines = all_lines(TARGET_UNIT);
        lines.push(line("another", "rounds", 3));
        let run = run_with(Accelerator::Icount, 0, lines).unwrap();
        assert_eq!((run.figures.len(), run.left_out), (MICRO.len() + 1, 0));
        let text = results(&[run]);
        assert_eq!(text.lines().count(), MICRO.len() + 1);
        assert_eq!(
            text.lines().last().unwrap(),
            "{\"accelerator\":\"icount\",\"benchmark\":\"micro\",\
             \"command\":\"scripts/bench micro --cores 2 --accel icount\",\"core\":0,\"cores\":2,\
             \"median\":3,\"memory\":\"512M\",\"minimum\":3,\"operation\":\"another\",\"p99\":3,\
             \"qemu\":\"7.2.22\",\"revision\":\"abc\",\"samples\":1000,\"sockets\":1,\
             \"unit\":\"rounds\"}"
        );
    }

    #[test]
    fn plain_emulation_gives_counts_alone() {
        let mut lines = all_lines("cycles");
        lines.push(line("another", "ns", 3));
        lines.push(line("one more", "messages", 3));
        let run = run_with(Accelerator::Tcg, 0, lines).unwrap();
        assert_eq!((run.figures.len(), run.left_out), (1, MICRO.len() + 1));
        assert!(!results(&[run]).contains("cycles"));
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

    #[test]
    fn files_are_written_where_no_folder_was() {
        let top = std::env::temp_dir().join(format!("atoll-bench-{}", std::process::id()));
        let folder = top.join("a/b");
        let runs = [run("icount", &[("null system call", 47)])];
        write(&folder, &runs).unwrap();
        let text = fs::read_to_string(folder.join("results.jsonl")).unwrap();
        assert_eq!(text, results(&runs));
        assert!(folder.join("report.html").exists());
        fs::remove_dir_all(top).unwrap();
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

    #[test]
    fn benchmarks_have_names_and_operations_of_their_own() {
        let is_unique = |mut names: Vec<&str>| {
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            names.len() == all
        };
        assert!(is_unique(BENCHMARKS.iter().map(|one| one.name).collect()));
        for benchmark in &BENCHMARKS {
            let operations = benchmark.operations.iter().map(|one| one.name);
            assert!(is_unique(operations.collect()), "{}", benchmark.name);
        }
    }
}
