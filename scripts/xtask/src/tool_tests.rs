//! Tests of this tool's own messages and exit statuses, each in a process of its own.

use crate::failure::Status;
use crate::harness::{Outcome, Pass, Ran, Test, Workshop, run_command};
use std::process::Command;
use std::time::Duration;

/// Longest that such a run may take, a build included.
const LIMIT: Duration = Duration::from_secs(600);

/// A command line, and how it has to end.
struct Expectation {
    name: &'static str,
    arguments: &'static [&'static str],
    status: u8,
    stderr: &'static [&'static str],
}

const EXPECTATIONS: [Expectation; 28] = [
    Expectation {
        name: "no-cores",
        arguments: &["run", "--cores", "0"],
        status: Status::BadOption as u8,
        stderr: &["--cores: expected a number from 1 to 255, found 0"],
    },
    Expectation {
        name: "too-many-cores",
        arguments: &["run", "--cores", "256"],
        status: Status::BadOption as u8,
        stderr: &["--cores: expected a number from 1 to 255, found 256"],
    },
    Expectation {
        name: "cores-without-number",
        arguments: &["run", "--cores", "many"],
        status: Status::BadOption as u8,
        stderr: &["invalid value 'many' for '--cores <N>'"],
    },
    Expectation {
        name: "more-sockets-than-cores",
        arguments: &["run", "--cores", "4", "--sockets", "5"],
        status: Status::BadOption as u8,
        stderr: &["--sockets: expected a number from 1 to 4 for 4 cores, found 5"],
    },
    Expectation {
        name: "unknown-option",
        arguments: &["run", "--frobnicate"],
        status: Status::BadOption as u8,
        stderr: &["unexpected argument '--frobnicate'"],
    },
    Expectation {
        name: "unknown-accelerator",
        arguments: &["run", "--accel", "xen"],
        status: Status::BadOption as u8,
        stderr: &["auto, tcg, icount, kvm"],
    },
    Expectation {
        name: "no-timeout",
        arguments: &["run", "--timeout", "0"],
        status: Status::BadOption as u8,
        stderr: &["--timeout: expected at least 1 second"],
    },
    Expectation {
        name: "bad-memory",
        arguments: &["run", "--memory", "lots"],
        status: Status::BadOption as u8,
        stderr: &[
            "--memory: expected an amount with its unit",
            "found \"lots\"",
        ],
    },
    Expectation {
        name: "too-little-memory",
        arguments: &["run", "--cores", "64", "--memory", "512M"],
        status: Status::TooLittleMemory as u8,
        stderr: &["64 cores need at least 576M, found 512M"],
    },
    Expectation {
        name: "unknown-program",
        arguments: &["run", "--exec", "no-such-program 1"],
        status: Status::BadOption as u8,
        stderr: &[
            "there is no program \"no-such-program\"; there are: ",
            "hello",
        ],
    },
    Expectation {
        name: "missing-qemu",
        arguments: &["run", "--qemu", "/nowhere/qemu-system-x86_64"],
        status: Status::MissingTool as u8,
        stderr: &["/nowhere/qemu-system-x86_64", "apt-get install"],
    },
    Expectation {
        name: "refused-by-qemu",
        arguments: &[
            "run",
            "--cores",
            "1",
            "--memory",
            "99999999G",
            "--exec",
            "hello",
        ],
        status: Status::QemuFailed as u8,
        stderr: &["QEMU says:", "repeat: scripts/run --cores 1"],
    },
    Expectation {
        name: "exit-status",
        arguments: &["run", "--cores", "2", "--exec", "exit 7"],
        status: 7,
        stderr: &["repeat: scripts/run --cores 2", "--exec 'exit 7'"],
    },
    Expectation {
        name: "negative-exit-status",
        arguments: &["run", "--cores", "1", "--exec", "exit -1"],
        status: 255,
        stderr: &["ended with status -1", "255 stands for it"],
    },
    Expectation {
        name: "timeout",
        arguments: &[
            "run",
            "--cores",
            "3",
            "--exec",
            "sleep 1000",
            "--timeout",
            "5",
        ],
        status: Status::TimedOut as u8,
        stderr: &[
            "did not end within 5 s",
            "core 0: running",
            "core 2: running",
            "repeat: scripts/run --cores 3",
            "--timeout 5 --exec 'sleep 1000'",
        ],
    },
    Expectation {
        name: "unknown-benchmark",
        arguments: &["bench", "no-such-benchmark"],
        status: Status::BadOption as u8,
        stderr: &[
            "invalid value 'no-such-benchmark'",
            "possible values: micro",
        ],
    },
    Expectation {
        name: "bench-core-list",
        arguments: &["bench", "--cores", "2,many"],
        status: Status::BadOption as u8,
        stderr: &[
            "--cores: expected numbers from 1 to 255",
            "found \"2,many\"",
        ],
    },
    Expectation {
        name: "bench-compare-nothing",
        arguments: &["bench", "compare", "/nowhere/a", "/nowhere/b"],
        status: Status::BenchmarkFailed as u8,
        stderr: &["/nowhere/a/results.jsonl: No such file"],
    },
    Expectation {
        name: "bench-merge-without-folders",
        arguments: &["bench", "merge", "out"],
        status: Status::BadOption as u8,
        stderr: &["<DIR>..."],
    },
    Expectation {
        name: "bench-plan-core-list",
        arguments: &["bench", "plan", "--cores", "0"],
        status: Status::BadOption as u8,
        stderr: &["--cores: expected numbers from 1 to 255"],
    },
    Expectation {
        name: "sim-unknown-protocol",
        arguments: &["sim", "gossip"],
        status: Status::BadOption as u8,
        stderr: &["invalid value 'gossip'", "names, regions, spaces"],
    },
    Expectation {
        name: "sim-no-cores",
        arguments: &["sim", "names", "--cores", "0"],
        status: Status::BadOption as u8,
        stderr: &["--cores: expected numbers from 2 to 256", "found \"0\""],
    },
    Expectation {
        name: "sim-too-many-cores",
        arguments: &["sim", "membership", "--cores", "5000"],
        status: Status::BadOption as u8,
        stderr: &["--cores: expected numbers from 2 to 4096", "found \"5000\""],
    },
    Expectation {
        name: "sim-more-cores-than-a-line-names",
        arguments: &["sim", "spaces", "--cores", "8,257"],
        status: Status::BadOption as u8,
        stderr: &["--cores: expected numbers from 2 to 256", "found \"8,257\""],
    },
    Expectation {
        name: "sim-seed-without-number",
        arguments: &["sim", "names", "--seed", "many"],
        status: Status::BadOption as u8,
        stderr: &["invalid value 'many' for '--seed <S>'"],
    },
    Expectation {
        name: "sim-bad-machine",
        arguments: &["sim", "names", "--machine", "/dev/null"],
        status: Status::BadOption as u8,
        stderr: &["--machine: /dev/null", "missing field `sockets`"],
    },
    // So slow a core does not end its part in time, and nobody stopped: a rule of broadcasts.
    Expectation {
        name: "sim-broken-rule",
        arguments: &[
            "sim",
            "broadcast",
            "--cores",
            "2",
            "--seed",
            "7",
            "--faults",
            "slow 1 by 1000000 at 0ms",
            "--out",
            "target/atoll/sim-broken",
        ],
        status: Status::RuleBroken as u8,
        stderr: &["1 of 1 runs broke a rule"],
    },
    Expectation {
        name: "bench-missing-qemu",
        arguments: &["bench", "--qemu", "/nowhere/qemu-system-x86_64"],
        status: Status::MissingTool as u8,
        stderr: &["/nowhere/qemu-system-x86_64"],
    },
];

/// All of them.
pub fn tests() -> Vec<Test> {
    let mut tests: Vec<Test> = EXPECTATIONS
        .iter()
        .map(|expectation| {
            Test::new(format!("tool/{}", expectation.name), move |_| {
                judge(expectation)
            })
        })
        .collect();
    tests.push(Test::new("tool/quiet", quiet));
    tests.push(Test::new("tool/bench-twice", bench_twice));
    tests.push(Test::new("tool/sim", sim));
    tests
}

fn run_tool(arguments: &[&str]) -> Result<Ran, String> {
    // Not its path: a build may put another file there in the meantime.
    let mut this = Command::new("/proc/self/exe");
    run_command(this.args(arguments), LIMIT)
}

fn judge(expectation: &Expectation) -> Outcome {
    let ran = run_tool(expectation.arguments)?;
    if ran.status.code() != Some(i32::from(expectation.status)) {
        return Err(format!(
            "expected exit status {}, found {}; stderr:\n{}",
            expectation.status, ran.status, ran.stderr
        ));
    }
    for words in expectation.stderr {
        if !ran.stderr.contains(words) {
            return Err(format!(
                "expected {words:?} on stderr, found:\n{}",
                ran.stderr
            ));
        }
    }
    Ok(Pass::Passed(String::new()))
}

/// `--quiet` leaves what the program wrote, and nothing else.
fn quiet(_: &Workshop) -> Outcome {
    let ran = run_tool(&["run", "--cores", "2", "--quiet", "--exec", "hello"])?;
    if !ran.status.success() || ran.stdout.is_empty() || ran.stdout.contains("[core ") {
        return Err(format!(
            "expected the program's lines alone and status 0, found {} and:\n{}{}",
            ran.status, ran.stdout, ran.stderr
        ));
    }
    Ok(Pass::Passed(String::new()))
}

/// Two runs of a benchmark under `icount` give the same bytes, and `compare` and `merge` see none but
/// equal figures.
fn bench_twice(workshop: &Workshop) -> Outcome {
    let top = workshop.project.own_folder().join("bench-twice");
    let results = |name: &str| {
        let folder = top.join(name);
        let _ = std::fs::remove_dir_all(&folder);
        let out = folder.to_string_lossy();
        let ran = run_tool(&["bench", "micro", "--quick", "--cores", "1,2", "--out", &out])?;
        let file = folder.join("results.jsonl");
        let page = std::fs::read_to_string(folder.join("report.html"));
        match (std::fs::read_to_string(&file), page) {
            (Ok(text), Ok(page)) if ran.status.success() => Ok((text, page)),
            (found, _) => Err(format!(
                "expected status 0 and {}, found {}, {found:?} and:\n{}{}",
                file.display(),
                ran.status,
                ran.stdout,
                ran.stderr
            )),
        }
    };
    let ((first, page), (second, other_page)) = (results("first")?, results("second")?);
    if first != second || page != other_page || first.is_empty() {
        return Err(format!(
            "expected the same results twice, found:\n{first}\nand:\n{second}"
        ));
    }
    let folder = |name: &str| top.join(name).to_string_lossy().into_owned();
    let (one, other, both) = (folder("first"), folder("second"), folder("both"));
    let ran = run_tool(&["bench", "compare", &one, &other])?;
    if !ran
        .stdout
        .contains("\n0 figures changed, 0 have other samples")
    {
        return Err(format!(
            "expected no change, found:\n{}{}",
            ran.stdout, ran.stderr
        ));
    }
    let ran = run_tool(&["bench", "merge", &both, &one, &other])?;
    if std::fs::read_to_string(top.join("both/results.jsonl"))
        .ok()
        .as_ref()
        != Some(&first)
    {
        return Err(format!(
            "expected each figure once, found {}{}",
            ran.stdout, ran.stderr
        ));
    }
    Ok(Pass::Passed(format!("{} results", first.lines().count())))
}

/// All protocols, without faults and with them, as a user has them run: twice the same.
fn sim(workshop: &Workshop) -> Outcome {
    let top = workshop.project.own_folder().join("sim");
    let run = |name: &str, more: &[&str]| {
        let folder = top.join(name);
        let _ = std::fs::remove_dir_all(&folder);
        let out = folder.to_string_lossy();
        let mut arguments = vec!["sim", "--seed", "3", "--out", &out];
        arguments.extend(more);
        let ran = run_tool(&arguments)?;
        let read = |file: &str| std::fs::read_to_string(folder.join(file));
        match (read("results.jsonl"), read("report.html")) {
            (Ok(results), Ok(page)) if ran.status.success() => Ok((results, page)),
            (results, _) => Err(format!(
                "expected status 0, results.jsonl and report.html, found {}, {results:?} and:\n{}{}",
                ran.status, ran.stdout, ran.stderr
            )),
        }
    };
    let mut count = 0;
    for (name, more) in [
        ("figures", &["--cores", "2,5,16"][..]),
        ("faults", &["--cores", "2,4", "--faults", "random:20"]),
    ] {
        let (first, second) = (run(name, more)?, run(name, more)?);
        if first != second {
            return Err(format!(
                "expected the same {name} twice, found:\n{first:?}\nand:\n{second:?}"
            ));
        }
        let (results, page) = first;
        for line in results.lines() {
            let line: serde_json::Value = serde_json::from_str(line)
                .map_err(|error| format!("expected JSON, found {line:?}: {error}"))?;
            if line["violated"]
                .as_u64()
                .is_some_and(|violated| violated > 0)
            {
                return Err(format!("expected no rule to be broken, found {line}"));
            }
            count += 1;
        }
        for protocol in simulator::protocol::Protocol::ALL.map(simulator::protocol::Protocol::name)
        {
            let has = |text: &str, words: String| text.contains(&words);
            let is_told = has(&results, format!("\"benchmark\":\"{protocol}\""));
            if !is_told || !has(&page, protocol.to_string()) {
                return Err(format!("expected {name} of {protocol}, found:\n{results}"));
            }
        }
    }
    Ok(Pass::Passed(format!("{count} results")))
}
