//! Tests that need no guest: unit and property tests, lints, documentation, model checks.

use crate::comparison::number;
use crate::harness::{Outcome, Pass, Test, last_lines, run_command};
use crate::install::runs;
use crate::project::{GUEST_TARGET, Project};
use std::fs;
use std::process::Command;
use std::time::Duration;

/// Longest that one of these commands may take, a first build included.
const LIMIT: Duration = Duration::from_secs(900);

/// Packages whose whole build is for the host.
const HOST_PACKAGES: [&str; 11] = [
    "abi",
    "capabilities",
    "coherence",
    "linux-peer",
    "loader",
    "peers",
    "sim",
    "trace",
    "traces",
    "urpc",
    "xtask",
];
/// Packages for the guest's target; their libraries, if any, hold no code that only runs
/// there, and so are tested on the host.
const GUEST_PACKAGES: [&str; 5] = ["cpudriver", "bridge", "monitor", "apps", "rt"];
/// Packages of [`GUEST_PACKAGES`] with a library that is tested on the host.
const GUEST_LIBRARIES_ON_HOST: [&str; 4] = ["bridge", "monitor", "apps", "rt"];

/// Makes a test harness show what passed tests print, in one piece each.
const SHOW_MODELS: [&str; 2] = ["--", "--show-output"];

/// All of them.
pub fn tests() -> Vec<Test> {
    let mut tests = vec![
        command("host/format", |project| {
            cargo(
                project,
                &["fmt", "--all", "--check", "--message-format", "short"],
            )
        }),
        command("host/clippy", |project| {
            let mut cargo = cargo(project, &["clippy", "--all-targets"]);
            packages(&mut cargo, &HOST_PACKAGES);
            cargo.args(["--", "-D", "warnings"]);
            cargo
        }),
        command("host/clippy-guest", |project| {
            let mut cargo = cargo(project, &["clippy", "--target", GUEST_TARGET]);
            packages(&mut cargo, &GUEST_PACKAGES);
            cargo.args(["--", "-D", "warnings"]);
            cargo
        }),
        command("host/documentation", |project| {
            let mut cargo = cargo(project, &["doc", "--no-deps"]);
            packages(&mut cargo, &HOST_PACKAGES);
            cargo.env("RUSTDOCFLAGS", "-D warnings");
            cargo
        }),
        command("host/documentation-guest", |project| {
            let mut cargo = cargo(project, &["doc", "--no-deps", "--target", GUEST_TARGET]);
            packages(&mut cargo, &GUEST_PACKAGES);
            cargo.env("RUSTDOCFLAGS", "-D warnings");
            cargo
        }),
    ];
    for package in HOST_PACKAGES {
        let name = format!("host/{package}");
        let make = move |project: &Project| {
            let mut cargo = cargo(project, &["test", "--package", package]);
            // The tool is there as a release build already; millions of messages and of
            // capability operations would take minutes without optimisation.
            if matches!(package, "capabilities" | "sim" | "xtask" | "urpc") {
                cargo.arg("--release");
            }
            match package {
                "sim" => drop(cargo.args(SHOW_MODELS)),
                // The models of the doorbell are a test of their own.
                "urpc" => drop(cargo.args(["--", "--skip", "doorbell"])),
                _ => {}
            }
            cargo
        };
        tests.push(match package {
            "sim" => model_checks(name, make),
            _ => command(name, make),
        });
    }
    for package in GUEST_LIBRARIES_ON_HOST {
        tests.push(command(format!("host/{package}"), move |project| {
            cargo(project, &["test", "--lib", "--package", package])
        }));
    }
    tests.push(command("model/urpc-loom", |project| {
        let mut cargo = cargo(
            project,
            &["test", "--release", "--package", "urpc", "--test", "loom"],
        );
        cargo.env("RUSTFLAGS", "--cfg loom");
        // Other flags, other results: they would push each other out of one folder.
        cargo.arg("--target-dir").arg(project.target.join("loom"));
        cargo
    }));
    tests.push(model_checks("model/urpc-doorbell", |project| {
        let doorbell = ["--package", "urpc", "--test", "doorbell"];
        let mut cargo = cargo(project, &["test", "--release"]);
        cargo.args(doorbell).args(SHOW_MODELS);
        cargo
    }));
    tests.push(Test::new("model/urpc-miri", |workshop| {
        if let Err(reason) = need_miri() {
            return Ok(Pass::Skipped(reason));
        }
        let mut miri = Command::new("rustup");
        miri.args(["run", "nightly", "cargo", "miri", "test"])
            .args(["--package", "urpc", "--target-dir"])
            .arg(workshop.project.target.join("miri"))
            .current_dir(&workshop.project.root);
        judge(&mut miri)
    }));
    tests
}

fn cargo(project: &Project, words: &[&str]) -> Command {
    let mut cargo = project.cargo();
    cargo.args(words);
    cargo
}

fn packages(cargo: &mut Command, names: &[&str]) {
    for name in names {
        cargo.args(["--package", name]);
    }
}

/// A test that passes when a command ends with 0.
fn command(name: impl Into<String>, make: impl Fn(&Project) -> Command + 'static) -> Test {
    Test::new(name, move |workshop| judge(&mut make(&workshop.project)))
}

fn judge(command: &mut Command) -> Outcome {
    let output = output_of(command)?;
    Ok(Pass::Passed(counted(&output)))
}

/// What a command that ends with 0 writes to stdout; the error says how else it ended.
fn output_of(command: &mut Command) -> Result<String, String> {
    command.env("CARGO_TERM_COLOR", "never");
    let ran = run_command(command, LIMIT)?;
    if !ran.status.success() {
        return Err(format!(
            "{command:?} ended with {}\n{}{}",
            ran.status,
            last_lines(&ran.stderr),
            last_lines(&ran.stdout)
        ));
    }
    Ok(ran.stdout)
}

/// A test that passes when a command ends with 0 and has checked models. It says how many, and
/// how many states they have; a file in the tool's folder has a line for each.
fn model_checks(name: impl Into<String>, make: impl Fn(&Project) -> Command + 'static) -> Test {
    let name = name.into();
    let file = format!("{}.txt", name.replace('/', "-"));
    Test::new(name, move |workshop| {
        let project = &workshop.project;
        let output = output_of(&mut make(project))?;
        let models = models(&output);
        if models.is_empty() {
            return Err("expected lines `model NAME: COUNT states`, found none".to_owned());
        }
        let folder = project.own_folder().join("models");
        let path = folder.join(&file);
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(&path, listed(&models)))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        let states: u64 = models.iter().map(|(_, states)| states).sum();
        let path = path.strip_prefix(&project.root).unwrap_or(&path);
        Ok(Pass::Passed(format!(
            "{}; {} models, {} states ({})",
            counted(&output),
            models.len(),
            number(Some(states as f64)),
            path.display()
        )))
    })
}

/// The models that were checked to the end, with their states: lines `model NAME: COUNT states`.
fn models(output: &str) -> Vec<(&str, u64)> {
    output
        .lines()
        .filter_map(|line| line.strip_prefix("model ")?.strip_suffix(" states"))
        .filter_map(|line| {
            let (name, states) = line.rsplit_once(": ")?;
            Some((name, states.parse().ok()?))
        })
        .collect()
}

/// A line a model, in order of their names, the counts below each other.
fn listed(models: &[(&str, u64)]) -> String {
    let mut models = models.to_vec();
    models.sort_unstable();
    let line = |(name, states): &(&str, u64)| {
        format!("{:>12} states  {name}\n", number(Some(*states as f64)))
    };
    models.iter().map(line).collect()
}

/// How many tests cargo's harnesses ran; empty where they ran none.
fn counted(output: &str) -> String {
    let count: u64 = output
        .lines()
        .filter_map(|line| line.strip_prefix("test result: ok. "))
        .filter_map(|rest| rest.split_once(" passed"))
        .filter_map(|(count, _)| count.parse::<u64>().ok())
        .sum();
    match count {
        0 => String::new(),
        count => format!("{count} tests"),
    }
}

/// Sees to it that Miri is there, or says why it cannot be.
fn need_miri() -> Result<(), String> {
    let has = || rustup(&["run", "nightly", "cargo", "miri", "--version"]);
    if has() {
        return Ok(());
    }
    let install = [
        "toolchain",
        "install",
        "nightly",
        "--profile",
        "minimal",
        "--component",
        "miri",
        "--component",
        "rust-src",
    ];
    // A nightly that is there already keeps its date: only the components are added.
    let installed = if rustup(&["run", "nightly", "rustc", "--version"]) {
        rustup(&[
            "component",
            "add",
            "--toolchain",
            "nightly",
            "miri",
            "rust-src",
        ])
    } else {
        rustup(&install)
    };
    if installed && has() {
        return Ok(());
    }
    Err(format!(
        "expected Miri, found none, and it could not be installed with: rustup {}",
        install.join(" ")
    ))
}

fn rustup(words: &[&str]) -> bool {
    runs(&mut Command::new("rustup"), words)
}

#[cfg(test)]
mod tests {
    use super::{counted, listed, models};

    #[test]
    fn adds_up_what_the_harnesses_counted() {
        let output = "test result: ok. 3 passed; 0 failed\nnoise\ntest result: ok. 4 passed; 0";
        assert_eq!(counted(output), "7 tests");
        assert_eq!(counted("test result: ok. 0 passed; 0 failed"), "");
    }

    #[test]
    fn models_are_collected_from_what_tests_print() {
        let output = "---- three_cores stdout ----\n\
                      model names, 3 cores, joins: None: 58947 states\n\
                      mutation names, AsksOnce: \"all is answered\", 12 states\n\
                      model without a count: some states\n\
                      test model_of_it ... ok\n\
                      model names, 2 cores, joins: Some(1): 1200 states\n";
        let found = models(output);
        let expected = [
            ("names, 3 cores, joins: None", 58947),
            ("names, 2 cores, joins: Some(1)", 1200),
        ];
        assert_eq!(found, expected);
        assert_eq!(
            listed(&found),
            "       1,200 states  names, 2 cores, joins: Some(1)\n      \
             58,947 states  names, 3 cores, joins: None\n"
        );
        assert!(models("test result: ok. 3 passed").is_empty());
    }
}
