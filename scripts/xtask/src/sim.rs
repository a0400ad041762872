//! `scripts/sim`: runs protocols in the simulator, and writes down what they cost or how they
//! fared with faults.

mod recording;
mod replay;

use crate::bench::core_list;
use crate::comparison::number;
use crate::failure::{Failure, OptionError};
use crate::interrupt;
use crate::progress::Progress;
use crate::project::Project;
use crate::run::quoted;
use crate::sim_page;
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::Serialize;
use simulator::campaign::{self, Broken, Campaign, Tally};
use simulator::faults::Schedule;
use simulator::machine::{Machine, SHIPPED};
use simulator::node::Outcome;
use simulator::protocol::{Figure, MAX_CORES, Protocol, Unit};
use simulator::tape::Tape;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;
use traces::model::Model;
use traces::replay::Load;

/// Cores when nobody says how many: of figures, of replays, and of campaigns.
const FIGURES_ON: &str = "2,4,8,16,32,64,128,256,512,1024,2048,4096";
const REPLAYS_ON: &str = "2,4,8,16,32,64,128,256,512,1024";
const CAMPAIGNS_ON: &str = "2,3,5,8";
/// Cores of one schedule of faults, at least.
const SCHEDULE_ON: usize = 8;
/// The machine of runs with faults when nobody names one.
const FAULTS_ON: &str = "two-socket";

/// Options of `scripts/sim`.
#[derive(Args, Clone, Debug)]
pub struct SimOptions {
    /// Protocols to run [default: all]
    #[arg(value_name = "PROTOCOL", value_parser = PossibleValuesParser::new(Protocol::ALL.map(Protocol::name)))]
    pub protocols: Vec<String>,
    /// Cores, such as 2 or 2,4,8-12: a run for each [default: 2,4,8,...,4096; 2,3,5,8 for random
    /// faults; 8 for others]
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub cores: Option<String>,
    /// Seed of all that is random; the first of a campaign
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Faults, such as 'stop 3 at 1ms; freeze 2 at 2ms for 5ms; slow 4 by 10 at 1ms; delay 1->2 by
    /// 3ms at 1ms for 2ms; lose-doorbell 5 at 1ms; restart 3 at 9ms'; or random:COUNT: so many seeds
    /// for each number of cores
    #[arg(long, value_name = "FAULTS", allow_hyphen_values = true)]
    pub faults: Option<String>,
    /// Machine: a file (TOML), or qemu, two-socket, eight-socket; may be given more than once
    /// [default: those three; two-socket with faults]
    #[arg(long, value_name = "FILE")]
    pub machine: Vec<String>,
    /// Folder for results.jsonl and report.html [default: target/sim]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Record the run, of one protocol on one number of cores and one machine, in a folder:
    /// trace.atoll, trace.perfetto-trace and trace.html
    #[arg(long, value_name = "DIR")]
    pub trace: Option<PathBuf>,
    /// Instead of protocols: what a recorded run (trace.atoll, or its folder) asked of its monitors,
    /// with what that cost, on other numbers of cores [default: as many as recorded, and
    /// 2,4,8,...,1024]. With --machine, messages, doorbells and sleep cost what that one says
    #[arg(long, value_name = "TRACE")]
    pub from: Option<PathBuf>,
    /// Other recorded runs of the same program, which predictions are compared with
    #[arg(long, value_name = "TRACE", requires = "from")]
    pub with: Vec<PathBuf>,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Faults {
    None,
    Schedule(Schedule),
    /// So many seeds.
    Random(u64),
}

/// What was asked for, checked.
#[derive(Debug)]
struct Request {
    protocols: Vec<Protocol>,
    cores: Vec<usize>,
    machines: Vec<(String, Machine)>,
    faults: Faults,
    seed: u64,
    trace: Option<PathBuf>,
    replay: Option<Replay>,
}

/// Recorded runs.
#[derive(Debug)]
struct Replay {
    from: PathBuf,
    load: Load,
    program: String,
    accelerator: String,
    /// Times of requests by kind, ascending, by number of cores.
    measured: BTreeMap<usize, BTreeMap<u32, Vec<u64>>>,
}

/// How results were obtained.
#[derive(Clone, Debug, Serialize)]
pub struct Conditions {
    /// Always `sim`.
    pub accelerator: &'static str,
    /// The command that obtains them again.
    pub command: String,
    /// Cores of the run.
    pub cores: usize,
    /// The machine's name.
    pub machine: String,
    /// The protocol.
    pub benchmark: &'static str,
    /// Of the sources.
    pub revision: String,
    /// The seed, or the first one.
    pub seed: u64,
}

/// A line of the results.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// How it was obtained.
    #[serde(flatten)]
    pub conditions: Conditions,
    /// What was obtained.
    #[serde(flatten)]
    pub result: Found,
}

/// What was obtained.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Found {
    /// What something costs.
    Figure {
        /// What was done.
        operation: &'static str,
        /// By which strategy.
        strategy: String,
        /// What the value is told in.
        unit: &'static str,
        /// The figure.
        value: u64,
        /// It is the median of so many.
        samples: usize,
    },
    /// How runs with faults ended.
    Runs {
        /// Always `faults`.
        operation: &'static str,
        /// Always `runs`.
        unit: &'static str,
        /// The faults.
        faults: String,
        /// How many runs.
        value: u64,
        /// In which everything was done.
        survived: u64,
        /// In which something was given up in good order.
        aborted: u64,
        /// Which broke a rule.
        violated: u64,
        /// Hash of all that happened.
        trace: String,
    },
}

/// Simulates, and returns this process's exit status.
pub fn sim(options: &SimOptions) -> u8 {
    match try_sim(options) {
        Ok(()) => 0,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.status() as u8
        }
    }
}

fn try_sim(options: &SimOptions) -> Result<(), Failure> {
    let request = options.check()?;
    let project = Project::here();
    let mut work = Work {
        revision: project.revision(),
        lines: Vec::new(),
        runs: 0,
        broken: 0,
        delivered: 0,
        begun: Instant::now(),
        request,
    };
    match work.request.replay.is_some() {
        true => work.replays()?,
        false => work.run()?,
    }
    let folder = match &options.out {
        Some(folder) => folder.clone(),
        None => project.target.join("sim"),
    };
    write(&folder, &work.lines).map_err(Failure::host(format!(
        "cannot write to {}",
        folder.display()
    )))?;
    let seconds = work.begun.elapsed().as_secs_f64();
    say(&format!(
        "{} simulated messages in {seconds:.1} s\nresults.jsonl and report.html: {}\n",
        number(Some(work.delivered as f64)),
        folder.display()
    ))?;
    match work.broken {
        0 => Ok(()),
        count => Err(Failure::RuleBroken {
            count,
            runs: work.runs,
        }),
    }
}

fn say(text: &str) -> Result<(), Failure> {
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(Failure::host("cannot write the results"))
}

impl SimOptions {
    /// Checks every option before anything is run.
    fn check(&self) -> Result<Request, OptionError> {
        let together = |option: &'static str, reason: &'static str| {
            Err(OptionError::Together { option, reason })
        };
        if self.from.is_some() && !self.protocols.is_empty() {
            return together("--from", "expected no protocol: the trace says what runs");
        }
        if self.faults.is_some() && self.from.is_some() {
            return together("--from", "expected no --faults: a replay has none");
        }
        if self.faults.is_some() && self.trace.is_some() {
            return together(
                "--trace",
                "expected no --faults: runs with faults are not recorded",
            );
        }
        let replay = match &self.from {
            Some(from) => Some(Replay::read(from, &self.with)?),
            None => None,
        };
        let named = |protocol: &Protocol| {
            self.protocols.is_empty() || self.protocols.iter().any(|name| name == protocol.name())
        };
        let faults = self.faults.as_deref().map_or(Ok(Faults::None), faults)?;
        let highest = match &faults {
            Faults::Schedule(schedule) => schedule.highest_core(),
            Faults::None | Faults::Random(_) => None,
        };
        let cores = match (&self.cores, &faults) {
            (Some(text), _) => text.clone(),
            (None, Faults::None) if replay.is_some() => {
                let recorded = replay.iter().flat_map(|replay| replay.measured.keys());
                let recorded = recorded.filter(|cores| **cores > 1);
                let recorded: Vec<String> = recorded.map(usize::to_string).collect();
                [&recorded[..], &[REPLAYS_ON.to_owned()]].concat().join(",")
            }
            (None, Faults::None) => FIGURES_ON.to_owned(),
            (None, Faults::Random(_)) => CAMPAIGNS_ON.to_owned(),
            (None, Faults::Schedule(_)) => {
                let cores = highest.map_or(0, |highest| highest + 1).max(SCHEDULE_ON);
                cores.min(MAX_CORES).to_string()
            }
        };
        // Whoever names a protocol wants it on all of them.
        let is_named = |protocol: &&Protocol| !self.protocols.is_empty() && named(protocol);
        let named_most = Protocol::ALL
            .iter()
            .filter(is_named)
            .map(|one| one.max_cores());
        let most = match (&self.cores, &faults) {
            (None, Faults::None) => MAX_CORES,
            _ => named_most.min().unwrap_or(MAX_CORES),
        };
        let cores = core_list(&cores, 2, most)?;
        let cores: Vec<usize> = cores.into_iter().map(|cores| cores as usize).collect();
        let fewest = cores.first().copied().unwrap_or(2);
        if let Some(core) = highest.filter(|core| *core >= fewest) {
            let cores = fewest;
            return Err(OptionError::NoSuchCore { core, cores });
        }
        let machines: Vec<&str> = match (self.machine.is_empty(), &faults) {
            (false, _) => self.machine.iter().map(String::as_str).collect(),
            (true, _) if replay.is_some() => Vec::new(),
            (true, Faults::None) => SHIPPED.map(|(name, _)| name).to_vec(),
            (true, _) => vec![FAULTS_ON],
        };
        let machines = machines
            .into_iter()
            .map(|name| Ok((name.into(), machine(name)?)));
        let machines = machines.collect::<Result<Vec<_>, _>>()?;
        let request = Request {
            protocols: Protocol::ALL.into_iter().filter(named).collect(),
            cores,
            machines,
            faults,
            seed: self.seed,
            trace: self.trace.clone(),
            replay,
        };
        let protocols = match request.replay {
            Some(_) => 1,
            None => request.protocols.len(),
        };
        let runs = protocols * request.cores.len() * request.machines.len().max(1);
        if request.trace.is_some() && runs != 1 {
            return together(
                "--trace",
                "expected one protocol, one number of cores and one machine: a trace is of one run",
            );
        }
        Ok(request)
    }
}

fn faults(text: &str) -> Result<Faults, OptionError> {
    let Some(count) = text.trim().strip_prefix("random:") else {
        return text.parse().map(Faults::Schedule).map_err(|error| {
            let reason = format!("{error}");
            OptionError::Faults { reason }
        });
    };
    let count = count.parse::<NonZero<u64>>();
    count.map(|count| Faults::Random(count.get())).map_err(|_| {
        let reason = format!("expected a number of seeds, at least 1, found {text:?}");
        OptionError::Faults { reason }
    })
}

/// The shipped machine of this name, or the one in this file.
///
/// # Errors
/// It is neither.
pub fn machine(name: &str) -> Result<Machine, OptionError> {
    if let Some(machine) = Machine::shipped(name) {
        return Ok(machine);
    }
    let path = Path::new(name);
    let wrong = |reason: String| OptionError::Machine {
        found: name.to_owned(),
        reason,
        shipped: SHIPPED.map(|(name, _)| name).to_vec(),
    };
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let short = path.file_stem().unwrap_or(path.as_os_str());
    Machine::parse(&short.to_string_lossy(), &text).map_err(|error| wrong(error.to_string()))
}

/// All runs that one command asks for.
struct Work {
    request: Request,
    revision: String,
    lines: Vec<Line>,
    runs: u64,
    broken: u64,
    delivered: u64,
    begun: Instant,
}

impl Work {
    fn run(&mut self) -> Result<(), Failure> {
        let machines = std::mem::take(&mut self.request.machines);
        for (name, machine) in &machines {
            report_panics(name);
            for protocol in self.request.protocols.clone() {
                let most = protocol.max_cores();
                if self.request.cores.iter().any(|cores| *cores > most) {
                    let name = protocol.name();
                    say(&format!("{name:<10}  runs on up to {most} cores\n"))?;
                }
                let mut all = self.request.cores.clone();
                all.retain(|cores| *cores <= most);
                for cores in all {
                    let conditions = Conditions {
                        accelerator: "sim",
                        command: command(name, protocol, cores, self.request.seed, ""),
                        cores,
                        machine: machine.name.clone(),
                        benchmark: protocol.name(),
                        revision: self.revision.clone(),
                        seed: self.request.seed,
                    };
                    let _progress = Progress::begin(format!(
                        "{} on {cores} cores, {}",
                        protocol.name(),
                        machine.name
                    ));
                    match self.request.faults.clone() {
                        Faults::None => self.figures(name, machine, protocol, &conditions)?,
                        Faults::Schedule(schedule) => {
                            self.one(name, machine, protocol, conditions, &schedule)?;
                        }
                        Faults::Random(count) => {
                            self.campaign(name, machine, protocol, conditions, count)?;
                        }
                    }
                    if interrupt::asked() {
                        return Err(Failure::Interrupted);
                    }
                }
            }
        }
        self.request.machines = machines;
        Ok(())
    }

    fn figures(
        &mut self,
        name: &str,
        machine: &Machine,
        protocol: Protocol,
        conditions: &Conditions,
    ) -> Result<(), Failure> {
        self.runs += 1;
        let (cores, seed) = (conditions.cores, conditions.seed);
        let tape = self.request.trace.is_some().then(|| Tape::new(cores));
        let mut measured = match protocol.figures(machine, cores, seed, tape) {
            Ok(measured) => measured,
            Err(violation) => {
                self.broken += 1;
                return say(&format!(
                    "{} on {cores} cores, {name}: at {} ns: {}\nrepeat: {}\n",
                    protocol.name(),
                    violation.at_ns,
                    violation.rule,
                    conditions.command
                ));
            }
        };
        self.delivered += measured.delivered;
        if let (Some(folder), Some(tape)) = (self.request.trace.clone(), measured.tape.take()) {
            let program = format!("{} on {}", protocol.name(), machine.name);
            let command = format!("{} --trace {}", conditions.command, shown(&folder));
            self.keep(&folder, tape, machine, command, program)?;
        }
        for figure in measured.figures {
            say(&format!(
                "{:<10}  {:<12}  {cores:>4} cores  {:<35}  {:<11}  {:>12} {}, sim\n",
                protocol.name(),
                machine.name,
                figure.operation,
                figure.strategy,
                number(Some(figure.value as f64)),
                unit(&figure),
            ))?;
            self.lines.push(Line {
                conditions: conditions.clone(),
                result: Found::Figure {
                    operation: figure.operation,
                    unit: unit(&figure),
                    value: figure.value,
                    samples: figure.samples,
                    strategy: figure.strategy,
                },
            });
        }
        Ok(())
    }

    fn one(
        &mut self,
        name: &str,
        machine: &Machine,
        protocol: Protocol,
        conditions: Conditions,
        schedule: &Schedule,
    ) -> Result<(), Failure> {
        let (cores, seed) = (conditions.cores, conditions.seed);
        let report = protocol.run(machine, cores, seed, schedule.clone(), false);
        let mut tally = Tally {
            delivered: report.counts.delivered,
            hash: report.hash,
            ..Tally::default()
        };
        match report.outcome {
            Ok(Outcome::Survived) => tally.survived = 1,
            Ok(Outcome::Aborted) => tally.aborted = 1,
            Err(violation) => {
                tally.violated = 1;
                tally.broken.push(Broken {
                    seed,
                    schedule: schedule.clone(),
                    violation,
                    hash: report.hash,
                });
            }
        }
        let faults = schedule.to_string();
        self.tell(name, machine, protocol, conditions, &faults, tally)
    }

    fn campaign(
        &mut self,
        name: &str,
        machine: &Machine,
        protocol: Protocol,
        conditions: Conditions,
        count: u64,
    ) -> Result<(), Failure> {
        let campaign = Campaign {
            protocol,
            machine,
            cores: conditions.cores,
            seed: conditions.seed,
            count,
        };
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let tally = campaign.run(threads, interrupt::asked);
        let faults = format!("random:{count}");
        self.tell(name, machine, protocol, conditions, &faults, tally)
    }

    fn tell(
        &mut self,
        name: &str,
        machine: &Machine,
        protocol: Protocol,
        mut conditions: Conditions,
        faults: &str,
        tally: Tally,
    ) -> Result<(), Failure> {
        let (cores, seed) = (conditions.cores, conditions.seed);
        let runs = tally.survived + tally.aborted + tally.violated;
        self.runs += runs;
        self.broken += tally.violated;
        self.delivered += tally.delivered;
        conditions.command = command(name, protocol, cores, seed, faults);
        let (survived, aborted, violated) = (tally.survived, tally.aborted, tally.violated);
        let trace = format!("{:016x}", tally.hash);
        say(&format!(
            "{:<10}  {:<12}  {cores:>4} cores  {runs} runs from seed {seed}: {survived} survived, \
             {aborted} aborted, {violated} violated; trace {trace}\n",
            protocol.name(),
            machine.name,
        ))?;
        for broken in tally.broken {
            let faults = match self.request.faults {
                Faults::Random(_) => "random:1",
                Faults::None | Faults::Schedule(_) => faults,
            };
            say(&told(name, machine, protocol, cores, &broken, faults))?;
        }
        self.lines.push(Line {
            conditions,
            result: Found::Runs {
                operation: "faults",
                unit: "runs",
                faults: faults.to_owned(),
                value: runs,
                survived,
                aborted,
                violated,
                trace,
            },
        });
        Ok(())
    }
}

impl Work {
    /// Writes a tape down.
    fn keep(
        &self,
        folder: &Path,
        tape: Tape,
        machine: &Machine,
        command: String,
        program: String,
    ) -> Result<(), Failure> {
        let revision = self.revision.clone();
        let named = recording::Named {
            revision,
            command,
            program,
        };
        let recording = recording::recording(tape, machine, named);
        say(&recording::write(folder, &recording)?)
    }

    /// What a recorded run asked for, on each number of cores.
    fn replays(&mut self) -> Result<(), Failure> {
        let Some(replay) = self.request.replay.take() else {
            return Ok(());
        };
        let machines = std::mem::take(&mut self.request.machines);
        say(&replay.told())?;
        let mut chosen: Vec<(Option<&str>, Machine)> = machines
            .iter()
            .map(|(name, one)| {
                (
                    Some(name.as_str()),
                    replay::machine(&replay.load, Some(one)),
                )
            })
            .collect();
        if chosen.is_empty() {
            chosen.push((None, replay::machine(&replay.load, None)));
        }
        for (name, machine) in &chosen {
            say(&format!(
                "{:<8}  {:>5}  {:>13}  {:>13}  {:>13}  {:>13}  {:>8}  {:>8}  machine\n",
                "request", "cores", "predicted p50", "p99", "measured p50", "p99", "error", "p99",
            ))?;
            for cores in self.request.cores.clone() {
                self.replay(&replay, *name, machine, cores)?;
                if interrupt::asked() {
                    return Err(Failure::Interrupted);
                }
            }
        }
        Ok(())
    }

    fn replay(
        &mut self,
        replay: &Replay,
        name: Option<&str>,
        machine: &Machine,
        cores: usize,
    ) -> Result<(), Failure> {
        let seed = self.request.seed;
        let mut command = format!(
            "scripts/sim --from {} --cores {cores} --seed {seed}",
            shown(&replay.from)
        );
        if let Some(name) = name {
            command.push_str(&format!(" --machine {}", shown(Path::new(name))));
        }
        let (plan, left_out) = replay::plan(&replay.load, cores);
        let _progress = Progress::begin(format!("replay on {cores} cores, {}", machine.name));
        let tape = self.request.trace.is_some().then(|| Tape::new(cores));
        self.runs += 1;
        let mut predicted = match plan.run(machine, seed, tape) {
            Ok(predicted) => predicted,
            Err(impossible) => {
                self.broken += 1;
                return say(&format!(
                    "on {cores} cores: {}\nrepeat: {command}\n",
                    impossible.0
                ));
            }
        };
        self.delivered += predicted.delivered;
        if let (Some(folder), Some(tape)) = (self.request.trace.clone(), predicted.tape.take()) {
            let program = format!("{}, simulated", replay.program);
            let command = format!("{command} --trace {}", shown(&folder));
            self.keep(&folder, tape, machine, command, program)?;
        }
        let measured = replay.measured.get(&cores);
        for (kind, times_ns) in &predicted.times_ns {
            let kind = u32::from(*kind);
            let Some(((median, most), operation)) =
                replay::percentiles(times_ns).zip(replay::name(kind))
            else {
                continue;
            };
            let around = replay.load.costs.around.get(&kind).copied().unwrap_or(0);
            let (median, most) = (median + around, most + around);
            let found = measured.and_then(|measured| measured.get(&kind));
            let found =
                found.and_then(|times_ns| Some((replay::percentiles(times_ns)?, times_ns.len())));
            let off = |predicted: u64, measured: Option<u64>| match measured {
                Some(measured) => format!("{:+.1}%", replay::error(predicted, measured)),
                None => "-".into(),
            };
            let of = |value: Option<u64>| number(value.map(|value| value as f64));
            let (found_median, found_most) = found.map_or((None, None), |((median, most), _)| {
                (Some(median), Some(most))
            });
            say(&format!(
                "{operation:<8}  {cores:>5}  {:>13}  {:>13}  {:>13}  {:>13}  {:>8}  {:>8}  {}\n",
                of(Some(median)),
                of(Some(most)),
                of(found_median),
                of(found_most),
                off(median, found_median),
                off(most, found_most),
                machine.name,
            ))?;
            let values = [
                ("predicted p50", Some((median, times_ns.len()))),
                ("predicted p99", Some((most, times_ns.len()))),
                (
                    "measured p50",
                    found.map(|((median, _), count)| (median, count)),
                ),
                (
                    "measured p99",
                    found.map(|((_, most), count)| (most, count)),
                ),
            ];
            for (strategy, value) in values {
                let Some((value, samples)) = value else {
                    continue;
                };
                self.lines.push(Line {
                    conditions: Conditions {
                        accelerator: "sim",
                        command: command.clone(),
                        cores,
                        machine: machine.name.clone(),
                        benchmark: "replay",
                        revision: self.revision.clone(),
                        seed,
                    },
                    result: Found::Figure {
                        operation,
                        strategy: strategy.into(),
                        unit: "ns",
                        value,
                        samples,
                    },
                });
            }
        }
        for (kind, count) in &predicted.failed {
            let operation = replay::name((*kind).into()).unwrap_or("");
            say(&format!(
                "{operation:<8}  {cores:>5}  {count} failed in the simulation\n"
            ))?;
        }
        for (what, count) in left_out {
            say(&format!(
                "{:<8}  {cores:>5}  not simulated: {count} {what}\n",
                ""
            ))?;
        }
        Ok(())
    }
}

impl Replay {
    /// Reads all recordings.
    fn read(from: &Path, with: &[PathBuf]) -> Result<Self, OptionError> {
        let first = recording::read("--from", from)?;
        let load = Load::of(&first, &Model::of(&first));
        let mut measured = BTreeMap::from([(load.cores, load.measured())]);
        if load.streams.is_empty() {
            return Err(OptionError::Recording {
                option: "--from",
                found: from.display().to_string(),
                reason: "expected requests of programs, found none: record the group `protocols`"
                    .into(),
            });
        }
        for other in with {
            let other = recording::read("--with", other)?;
            let load = Load::of(&other, &Model::of(&other));
            let times = load.measured();
            measured.entry(load.cores).or_insert(times);
        }
        Ok(Self {
            from: from.into(),
            load,
            program: first.header.program,
            accelerator: first.header.accelerator,
            measured,
        })
    }

    /// What is known of the recorded run.
    fn told(&self) -> String {
        let (load, costs) = (&self.load, &self.load.costs);
        let poll = match costs.poll {
            Some(poll) => format!("polls for {}", number(Some(poll as f64))),
            None => "never sleeps".into(),
        };
        let ns = |value: u64| number(Some(value as f64));
        let mut text = format!(
            "{}: {} cores, {}{}\nmedians, ns: send {}, flight {}, receive {}, ring {}, wake {}; a \
             receiver {poll}\n",
            self.program,
            load.cores,
            self.accelerator,
            match load.is_serial {
                true => ": all cores run by turns on one processor, and so do the simulated ones",
                false => "",
            },
            ns(costs.send),
            ns(costs.flight),
            ns(costs.receive),
            ns(costs.ring),
            ns(costs.wake),
        );
        let samples = costs.samples.iter();
        let samples: Vec<String> = samples
            .map(|(what, count)| format!("{what} {count}"))
            .collect();
        text.push_str(&format!("samples: {}\n", samples.join(", ")));
        let handles = costs.handle.iter();
        let handles: Vec<String> = handles
            .map(|(kind, value)| format!("{kind:#x} {}", ns(*value)))
            .collect();
        text.push_str(&format!(
            "work by kind of message, ns: {}\n",
            handles.join(", ")
        ));
        let rounds = match load.arity {
            Some(arity) => format!("each core tells up to {arity} others"),
            None => "one core tells all".into(),
        };
        text.push_str(&format!("rounds: from core {}; {rounds}\n", load.home));
        for (what, count) in &load.left_out {
            text.push_str(&format!("left out: {count} {what}\n"));
        }
        text
    }
}

/// A path as a shell reads it.
fn shown(path: &Path) -> String {
    let path = path.display().to_string();
    let is_plain = path
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte));
    if is_plain { path } else { quoted(&path) }
}

/// A run that broke a rule, with its last events, which come from the same run once more.
fn told(
    name: &str,
    machine: &Machine,
    protocol: Protocol,
    cores: usize,
    broken: &Broken,
    faults: &str,
) -> String {
    let Broken { seed, schedule, .. } = broken;
    let again = protocol.run(machine, cores, *seed, schedule.clone(), true);
    let mut text = format!(
        "violated: seed {seed}, at {} ns: {}\n  faults: {schedule}\n  the last events:\n",
        broken.violation.at_ns, broken.violation.rule
    );
    for event in again.trace {
        text.push_str(&format!("    {event}\n"));
    }
    if again.hash != broken.hash {
        text.push_str("  the same seed gave another run: the simulator is not deterministic\n");
    }
    let command = command(name, protocol, cores, *seed, faults);
    text + &format!("  trace {:016x}\n  repeat: {command}\n", broken.hash)
}

/// The command that does the same again.
fn command(machine: &str, protocol: Protocol, cores: usize, seed: u64, faults: &str) -> String {
    let is_plain = machine
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte));
    let machine = if is_plain {
        machine.to_owned()
    } else {
        quoted(machine)
    };
    let mut command = format!(
        "scripts/sim {} --cores {cores} --seed {seed} --machine {machine}",
        protocol.name()
    );
    if faults.starts_with("random:") {
        command.push_str(&format!(" --faults {faults}"));
    } else if !faults.is_empty() {
        command.push_str(&format!(" --faults {}", quoted(faults)));
    }
    command
}

/// A protocol that panics takes this process along: at least it is said which run that was.
fn report_panics(machine: &str) {
    let machine = machine.to_owned();
    let _ = std::panic::take_hook();
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        if let Some((protocol, cores, seed)) = campaign::running() {
            let command = command(&machine, protocol, cores, seed, "random:1");
            eprintln!("error: a protocol panicked; repeat: {command}");
        }
    }));
}

fn unit(figure: &Figure) -> &'static str {
    match figure.unit {
        Unit::Nanoseconds => "ns",
        Unit::Messages => "messages",
    }
}

/// Writes both files, into a folder that need not be there yet.
fn write(folder: &Path, lines: &[Line]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut results = String::new();
    for line in lines {
        results.push_str(&serde_json::to_string(line)?);
        results.push('\n');
    }
    fs::write(folder.join("results.jsonl"), results)?;
    fs::write(folder.join("report.html"), sim_page::page(lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> SimOptions {
        SimOptions {
            protocols: Vec::new(),
            cores: None,
            seed: 1,
            faults: None,
            machine: Vec::new(),
            out: None,
            trace: None,
            from: None,
            with: Vec::new(),
        }
    }

    #[test]
    fn all_protocols_are_asked_for_on_more_cores_than_some_can() {
        let mut options = options();
        options.cores = Some("4096".into());
        assert_eq!(options.check().unwrap().cores, [4096]);
        options.protocols = vec!["membership".into()];
        assert_eq!(options.check().unwrap().cores, [4096]);
        (options.cores, options.protocols) = (None, vec!["names".into()]);
        assert_eq!(options.check().unwrap().cores.len(), 12);
    }

    #[test]
    fn defaults_follow_from_what_is_asked() {
        let request = options().check().unwrap();
        assert_eq!((request.cores.len(), request.machines.len()), (12, 3));
        assert_eq!(request.protocols, Protocol::ALL);
        let mut options = options();
        options.faults = Some("random:100".into());
        options.protocols = vec!["membership".into()];
        let request = options.check().unwrap();
        assert_eq!((request.cores.len(), request.machines.len()), (4, 1));
        assert_eq!(request.faults, Faults::Random(100));
        assert_eq!(request.protocols, [Protocol::Membership]);
        options.faults = Some("stop 11 at 1ms".into());
        assert_eq!(options.check().unwrap().cores, [12]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let with = |change: fn(&mut SimOptions)| {
            let mut options = options();
            change(&mut options);
            options.check().unwrap_err().to_string()
        };
        for (error, words) in [
            (with(|it| it.cores = Some("1".into())), "from 2 to 4096"),
            (with(|it| it.cores = Some("4097".into())), "from 2 to 4096"),
            (
                with(|it| {
                    it.cores = Some("257".into());
                    it.protocols = vec!["broadcast".into(), "spaces".into()];
                }),
                "from 2 to 256",
            ),
            (with(|it| it.faults = Some("halt 3".into())), "random:COUNT"),
            (
                with(|it| it.faults = Some(String::new())),
                "expected faults",
            ),
            (
                with(|it| it.faults = Some("random:0".into())),
                "found \"random:0\"",
            ),
            (with(|it| it.faults = Some("random:x".into())), "at least 1"),
            (
                with(|it| it.faults = Some("stop 4096 at 1ms".into())),
                "found 4096",
            ),
            (
                with(|it| {
                    it.faults = Some("stop 7 at 1ms".into());
                    it.cores = Some("4,9".into());
                }),
                "expected cores from 0 to 3, found 7: --cores has a run on 4",
            ),
            (
                with(|it| it.machine = vec!["/nowhere.toml".into()]),
                "--machine: /nowhere.toml: No such file",
            ),
            (
                with(|it| it.machine = vec!["/dev/null".into()]),
                "missing field `sockets`",
            ),
        ] {
            assert!(error.contains(words), "{words}: {error}");
        }
    }

    #[test]
    fn a_command_is_what_a_shell_reads() {
        assert_eq!(
            command(
                "my file",
                Protocol::Broadcast,
                4,
                7,
                "delay 1->2 by 1ms at 1ms for 1ms"
            ),
            "scripts/sim broadcast --cores 4 --seed 7 --machine 'my file' \
             --faults 'delay 1->2 by 1ms at 1ms for 1ms'"
        );
        assert_eq!(
            command("qemu", Protocol::Membership, 2, 1, "random:1"),
            "scripts/sim membership --cores 2 --seed 1 --machine qemu --faults random:1"
        );
    }
}
