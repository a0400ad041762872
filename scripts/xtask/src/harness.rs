//! `scripts/test`: the harness. It runs one test after the other, because a boot wants the
//! whole machine, and ends with one line that counts them.

use crate::bundle::{self, System};
use crate::install::{self, Qemu};
use crate::interrupt;
use crate::progress::Progress;
use crate::project::Project;
use crate::{
    bench_tests, boot_tests, coherence_tests, host_tests, image_tests, linux, tool_tests,
    trace_page_tests, trace_tests,
};
use clap::Args;
use rustix::fs::MemfdFlags;
use std::cell::OnceCell;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Lines of a failed command's output that are shown.
const LAST_LINES: usize = 80;

/// Options of `scripts/test`.
#[derive(Args, Clone, Debug)]
pub struct TestOptions {
    /// Runs only tests whose name contains this
    #[arg(value_name = "FILTER")]
    pub filter: Option<String>,
    /// Lists the tests instead of running them
    #[arg(long)]
    pub list: bool,
    /// Another QEMU than the installed one
    #[arg(long, hide = true, value_name = "PATH")]
    pub qemu: Option<PathBuf>,
}

/// How a test ended when it did not fail.
pub enum Pass {
    /// It passed; something worth knowing about it, or nothing.
    Passed(String),
    /// It could not be run here, for this reason.
    Skipped(String),
}

/// How a test ended; the error says what was expected and what was found.
pub type Outcome = Result<Pass, String>;

/// A test with its name.
pub struct Test {
    /// What it is called, `GROUP/NAME`.
    pub name: String,
    /// Runs it.
    pub run: Box<dyn Fn(&Workshop) -> Outcome>,
}

impl Test {
    /// A test of this name.
    pub fn new(name: impl Into<String>, run: impl Fn(&Workshop) -> Outcome + 'static) -> Self {
        Self {
            name: name.into(),
            run: Box::new(run),
        }
    }
}

/// What tests share: the sources, QEMU, and the system, built when first asked for.
pub struct Workshop {
    /// The sources.
    pub project: Project,
    qemu_given: Option<PathBuf>,
    qemu: OnceCell<Result<Qemu, String>>,
    system: OnceCell<Result<System, String>>,
}

impl Workshop {
    /// QEMU, installed if need be.
    pub fn qemu(&self) -> Result<&Qemu, String> {
        self.qemu
            .get_or_init(|| {
                install::find_qemu(self.qemu_given.as_deref())
                    .map_err(|failure| failure.to_string())
            })
            .as_ref()
            .map_err(Clone::clone)
    }

    /// The system, ready to boot.
    pub fn system(&self) -> Result<&System, String> {
        self.system
            .get_or_init(|| bundle::prepare(&self.project).map_err(|failure| failure.to_string()))
            .as_ref()
            .map_err(Clone::clone)
    }
}

/// What a command wrote and how it ended.
pub struct Ran {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// Runs a command with its descendants to its end, or kills them all when it takes too long
/// or the tests are interrupted.
pub fn run_command(command: &mut Command, limit: Duration) -> Result<Ran, String> {
    let file = |name| rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC).map(File::from);
    let cannot = |error: io::Error| format!("{command:?} did not run: {error}");
    let (mut stdout, mut stderr) =
        (|| Ok::<_, io::Error>((file("stdout")?, file("stderr")?)))().map_err(cannot)?;
    let (for_stdout, for_stderr) =
        (|| Ok::<_, io::Error>((stdout.try_clone()?, stderr.try_clone()?)))().map_err(cannot)?;
    let mut child = match command
        .stdin(Stdio::null())
        .stdout(for_stdout)
        .stderr(for_stderr)
        .process_group(0)
        .spawn()
    {
        Ok(child) => child,
        Err(error) => return Err(format!("{command:?} did not run: {error}")),
    };
    let start = Instant::now();
    let end = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Ok(status),
            Ok(None) if interrupt::asked() => break Err("interrupted".to_owned()),
            Ok(None) if start.elapsed() > limit => {
                break Err(format!("did not end within {} s", limit.as_secs()));
            }
            Ok(None) => thread::sleep(Duration::from_millis(20)),
            Err(error) => break Err(format!("cannot be waited for: {error}")),
        }
    };
    let text = |file: &mut File| {
        let mut bytes = Vec::new();
        let _ = file.rewind();
        let _ = file.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    };
    match end {
        Ok(status) => Ok(Ran {
            status,
            stdout: text(&mut stdout),
            stderr: text(&mut stderr),
        }),
        Err(why) => {
            // The command leads a process group of its own; TERM lets a tool clean up.
            let group = rustix::process::Pid::from_child(&child);
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::TERM);
            thread::sleep(Duration::from_millis(300));
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            let _ = child.wait();
            Err(format!(
                "{command:?} {why}\n{}{}",
                last_lines(&text(&mut stdout)),
                last_lines(&text(&mut stderr))
            ))
        }
    }
}

/// The end of a long text.
pub fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut end = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
    if !end.is_empty() {
        end.push('\n');
    }
    end
}

/// Runs the tests and returns this process's exit status.
pub fn test(options: &TestOptions) -> u8 {
    let filter = options.filter.as_deref().unwrap_or("");
    let mut tests: Vec<Test> = host_tests::tests();
    tests.extend(image_tests::tests());
    tests.extend(tool_tests::tests());
    tests.extend(bench_tests::tests());
    tests.extend(boot_tests::tests());
    tests.extend(coherence_tests::tests());
    tests.extend(trace_tests::tests());
    tests.extend(trace_page_tests::tests());
    tests.extend(linux::tests::tests());
    tests.retain(|test| test.name.contains(filter));
    if tests.is_empty() {
        eprintln!(
            "error: expected part of a test's name, found {filter:?}, which no test has; \
             scripts/test --list names them all"
        );
        return 2;
    }
    if options.list {
        for test in &tests {
            println!("{}", test.name);
        }
        return 0;
    }
    let workshop = Workshop {
        project: Project::here(),
        qemu_given: options.qemu.clone(),
        qemu: OnceCell::new(),
        system: OnceCell::new(),
    };
    run_all(&tests, &workshop)
}

fn run_all(tests: &[Test], workshop: &Workshop) -> u8 {
    let start = Instant::now();
    let mut passed = 0;
    let mut skipped = 0;
    let mut failed = Vec::new();
    for test in tests {
        if interrupt::asked() {
            eprintln!("interrupted before {}", test.name);
            break;
        }
        let begin = Instant::now();
        let outcome = {
            let _progress = Progress::begin(test.name.clone());
            (test.run)(workshop)
        };
        if outcome.is_err() && interrupt::asked() {
            eprintln!("interrupted during {}", test.name);
            break;
        }
        let seconds = begin.elapsed().as_secs_f64();
        let (verdict, note) = match outcome {
            Ok(Pass::Passed(note)) => {
                passed += 1;
                ("ok", note)
            }
            Ok(Pass::Skipped(reason)) => {
                skipped += 1;
                ("skipped", reason)
            }
            Err(message) => {
                failed.push(test.name.as_str());
                ("FAILED", format!("\n{message}"))
            }
        };
        let note = match note.trim_end() {
            "" => String::new(),
            note => format!(": {}", note.replace('\n', "\n    ")),
        };
        println!("{:<40} {seconds:7.1} s  {verdict}{note}", test.name);
    }
    println!("\n{:.0} s in all", start.elapsed().as_secs_f64());
    for name in &failed {
        println!("failed: {name}    (again: scripts/test {name})");
    }
    let interrupted = passed + skipped + failed.len() < tests.len();
    let skipped = match skipped {
        0 => String::new(),
        count => format!(", {count} skipped"),
    };
    println!("{passed} passed, {} failed{skipped}", failed.len());
    if interrupted {
        crate::failure::Status::Interrupted as u8
    } else {
        u8::from(!failed.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn commands_give_both_outputs_and_their_status() {
        let ran = run_command(
            Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]),
            Duration::from_secs(10),
        )
        .unwrap();
        assert_eq!(ran.status.code(), Some(3));
        assert_eq!(
            (ran.stdout.as_str(), ran.stderr.as_str()),
            ("out\n", "err\n")
        );
    }

    #[test]
    fn commands_that_take_too_long_die_with_their_children() {
        let error = run_command(
            Command::new("sh").args(["-c", "sleep 4711 & echo $!; wait"]),
            Duration::from_secs(1),
        )
        .err()
        .unwrap();
        assert!(error.contains("did not end within 1 s"), "{error}");
        let child = error.lines().nth(1).unwrap();
        // Whoever inherited it may not have looked yet that it is dead.
        let status = std::fs::read_to_string(format!("/proc/{child}/status"));
        assert!(
            status.is_ok_and(|status| status.contains("State:\tZ"))
                || !Path::new("/proc").join(child).exists(),
            "{error}"
        );
    }

    #[test]
    fn only_the_end_of_long_output_is_shown() {
        let text: String = (0..200).map(|number| format!("{number}\n")).collect();
        let end = last_lines(&text);
        assert!(end.starts_with("120\n") && end.ends_with("199\n"));
        assert_eq!(last_lines(""), "");
    }
}
