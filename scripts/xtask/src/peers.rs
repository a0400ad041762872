//! `scripts/bench host`: urpc beside other channels, between two threads of the host.

use crate::failure::{BenchmarkError, BuildError, Failure};
use crate::figure::{self, Conditions, Figure};
use crate::progress::Progress;
use crate::project::Project;
use clap::Args;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What its figures bear as their benchmark.
const NAME: &str = "host";

/// Options of `scripts/bench host`.
#[derive(Args, Clone, Debug, Default)]
pub struct HostOptions {
    /// Folder for results.jsonl [default: target/bench/host]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Fewer rounds
    #[arg(long)]
    pub quick: bool,
    /// So many rounds, 1 to 100000 [default: 400; 60 with --quick]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub rounds: Option<String>,
    /// The two CPUs to measure between, such as 0,1 [default: two of different cores]
    #[arg(long, value_name = "A,B", allow_hyphen_values = true)]
    pub cpus: Option<String>,
}

impl HostOptions {
    /// As the program that measures takes them; it also checks them.
    fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if self.quick {
            words.push("--quick".to_owned());
        }
        for (name, value) in [("--rounds", &self.rounds), ("--cpus", &self.cpus)] {
            if let Some(value) = value {
                words.extend([name.to_owned(), value.clone()]);
            }
        }
        words
    }
}

/// Builds and runs it, shows its table, writes results.jsonl, and returns this process's exit
/// status. A target missed is no failure; Ctrl-C keeps the rounds that were done.
pub fn host(options: &HostOptions) -> u8 {
    match try_host(options) {
        Ok(()) => 0,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.status() as u8
        }
    }
}

fn try_host(options: &HostOptions) -> Result<(), Failure> {
    let project = Project::here();
    let program = build(&project)?;
    let figures = measure(&program, options, &conditions(&project, options))?;
    let folder = match &options.out {
        Some(folder) => folder.clone(),
        None => project.target.join("bench").join(NAME),
    };
    write(&folder, &figures).map_err(Failure::host(format!(
        "cannot write to {}",
        folder.display()
    )))?;
    say(&format!("results.jsonl: {}\n", folder.display()))
}

/// Compiles the program that measures.
fn build(project: &Project) -> Result<PathBuf, Failure> {
    let _progress = Progress::begin("building the peers");
    let mut cargo = project.cargo();
    cargo.args(["build", "--quiet", "--release", "--package", "peers"]);
    let output = cargo.output().map_err(BuildError::NoCargo)?;
    if !output.status.success() {
        let messages = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(BuildError::Compiler { messages }.into());
    }
    Ok(project.target.join("release").join("peers"))
}

/// Runs it to its end: its figures are kept, all else that it says is passed on.
fn measure(
    program: &Path,
    options: &HostOptions,
    conditions: &Conditions,
) -> Result<Vec<Figure>, Failure> {
    let cannot = || Failure::host(format!("cannot run {}", program.display()));
    let mut child = Command::new(program)
        .args(options.words())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(cannot())?;
    let mut figures = Vec::new();
    let mut malformed = None;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.map_err(cannot())?;
            match figure::parse(&line, NAME, conditions) {
                Ok(Some(figure)) => figures.push(figure),
                Ok(None) => say(&format!("{line}\n"))?,
                Err(error) => malformed = Some(error),
            }
        }
    }
    let status = child.wait().map_err(cannot())?;
    match (status.code(), malformed) {
        (Some(0), None) => Ok(figures),
        (Some(0), Some(error)) => Err(error.into()),
        (code, _) => Err(BenchmarkError::Program {
            program: NAME,
            status: code.unwrap_or(-1),
        }
        .into()),
    }
}

fn say(text: &str) -> Result<(), Failure> {
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(Failure::host("cannot write the results"))
}

/// The host, as far as Linux tells.
fn conditions(project: &Project, options: &HostOptions) -> Conditions {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (cores, sockets) = cores_and_sockets(&read("/proc/cpuinfo"));
    let memory = read("/proc/meminfo");
    let memory = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let words = options.words().into_iter().map(|word| format!(" {word}"));
    Conditions {
        accelerator: "host".to_owned(),
        command: format!("scripts/bench host{}", words.collect::<String>()),
        cores,
        memory: memory.unwrap_or("unknown").trim().to_owned(),
        qemu: "none".to_owned(),
        revision: project.revision(),
        sockets,
    }
}

fn cores_and_sockets(cpuinfo: &str) -> (u32, usize) {
    let values = |key: &str| -> Vec<&str> {
        let lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        lines
            .filter(|(name, _)| name.trim() == key)
            .map(|(_, value)| value.trim())
            .collect()
    };
    let sockets: BTreeSet<&str> = values("physical id").into_iter().collect();
    (values("processor").len() as u32, sockets.len().max(1))
}

fn write(folder: &Path, figures: &[Figure]) -> io::Result<()> {
    let lines = figures
        .iter()
        .map(|figure| Value::from(figure.record.clone()).to_string() + "\n");
    fs::create_dir_all(folder)?;
    fs::write(folder.join("results.jsonl"), lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn said(script: &str) -> Result<Vec<Figure>, Failure> {
        let conditions = conditions(&Project::here(), &HostOptions::default());
        let name = format!("peers-{}-{}", std::process::id(), script.len());
        let program = std::env::temp_dir().join(name);
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        let mut permissions = fs::metadata(&program).unwrap().permissions();
        permissions.set_mode(0o700);
        fs::set_permissions(&program, permissions).unwrap();
        let result = measure(&program, &HostOptions::default(), &conditions);
        fs::remove_file(&program).unwrap();
        result
    }

    #[test]
    fn result_lines_become_figures_and_failures_are_told() {
        let line = r#"{"benchmark":"host","operation":"round trip","unit":"ns","median":59.5,"placement":"near"}"#;
        let figures = said(&format!("echo 'result {line}'; echo a table")).unwrap();
        assert_eq!(figures.len(), 1);
        assert_eq!(figures[0].value, 59.5);
        assert_eq!(figures[0].record["placement"], "near");
        assert_eq!(figures[0].record["accelerator"], "host");
        let failed = said("exit 2").unwrap_err().to_string();
        assert!(failed.contains("status 2"), "{failed}");
        let malformed = said("echo 'result {}' ").unwrap_err().to_string();
        assert!(malformed.contains("missing field"), "{malformed}");
    }

    #[test]
    fn processors_are_counted() {
        let text = "processor\t: 0\nphysical id\t: 0\n\nprocessor\t: 1\nphysical id\t: 1\n";
        assert_eq!(cores_and_sockets(text), (2, 2));
        assert_eq!(cores_and_sockets(""), (0, 1));
    }

    #[test]
    fn options_are_passed_on() {
        let options = HostOptions {
            quick: true,
            cpus: Some("2,3".to_owned()),
            ..HostOptions::default()
        };
        assert_eq!(options.words(), ["--quick", "--cpus", "2,3"]);
        let command = conditions(&Project::here(), &options).command;
        assert_eq!(command, "scripts/bench host --quick --cpus 2,3");
    }
}
