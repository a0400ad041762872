//! One boot from start to verdict.

use crate::accelerator::Accelerator;
use crate::bundle::System;
use crate::coherence;
use crate::console::{Console, Moment};
use crate::failure::Failure;
use crate::guest::{Core, Guest};
use crate::install::Qemu;
use crate::interrupt;
use crate::memory::GuestMemory;
use crate::options::Request;
use crate::qemu::Process;
use crate::report;
use crate::serial::Serial;
use abi::command_line::{EXIT_VALUE, PANIC_VALUE};
use std::collections::BTreeSet;
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

/// How often the console is looked at.
const CONSOLE_INTERVAL: Duration = Duration::from_millis(10);
/// How often the core records are looked at.
const RECORD_INTERVAL: Duration = Duration::from_millis(200);
/// QEMU's exit status when the guest powered off in good order.
const POWERED_OFF: i32 = exit_status(EXIT_VALUE);
/// QEMU's exit status when core 0 met a fault of its own.
const PANICKED: i32 = exit_status(PANIC_VALUE);
/// QEMU's exit status when the bridge found nothing to start.
const BRIDGE_STOPPED: i32 = exit_status(0x10);

/// QEMU's exit status after the guest wrote `value` to its exit port.
const fn exit_status(value: u8) -> i32 {
    ((value as i32) << 1) | 1
}

/// A boot to be made.
#[derive(Clone, Debug)]
pub struct Boot {
    /// The machine and its task.
    pub request: Request,
    /// How QEMU executes it.
    pub accelerator: Accelerator,
    /// When to give up; `None`: never.
    pub limit: Option<Duration>,
}

/// How a boot came to its end.
enum Ending {
    /// QEMU ended.
    Qemu(ExitStatus),
    /// Core 0 or every core panicked.
    Panicked,
    /// Time is up.
    TimedOut(Duration),
    /// Ctrl-C.
    Interrupted,
}

/// Boots, passes on what the guest writes, and returns the exit status of the program that
/// ran in it.
pub fn launch(
    boot: &Boot,
    system: &System,
    qemu: &Qemu,
    console: &mut dyn Console,
) -> Result<i32, Failure> {
    launch_and_look(boot, system, qemu, console, &mut |_, _| ())
}

/// The same; `look` sees what the guest left in its RAM, whichever way it came to its end.
pub fn launch_and_look(
    boot: &Boot,
    system: &System,
    qemu: &Qemu,
    console: &mut dyn Console,
    look: &mut dyn FnMut(&GuestMemory, &Guest),
) -> Result<i32, Failure> {
    let request = &boot.request;
    let mut console = coherence::Listener::before(console);
    let memory = GuestMemory::create(request.memory.bytes, request.sockets)
        .map_err(Failure::host("cannot make a file for the guest's RAM"))?;
    let mut serial =
        Serial::create().map_err(Failure::host("cannot make a file for the guest's console"))?;
    let mut process = Process::start(boot, &system.bridge, &system.bundle, qemu, &memory, &serial)?;
    if let Some(port) = process.gdb_port {
        console.tool(&system.how_to_attach(port, request.program()));
    }
    let mut guest = Guest::default();
    let ending = attend(
        boot,
        &mut process,
        &memory,
        &mut guest,
        &mut serial,
        &mut console,
    )?;
    let messages = process.messages();
    process.kill();
    guest.look(&memory, request.cores);
    look(&memory, &guest);
    let mut verdict = judge(&ending, &guest, request.cores, &messages);
    if let (Ok(_), Some(file)) = (&verdict, &request.coherence) {
        match coherence::resolve(file, boot, qemu, system, &guest, console.heard()) {
            Ok(counts) => console.tool(counts.summary().trim_end()),
            Err(failure) => verdict = Err(failure),
        }
    }
    if let Err(failure) = &verdict {
        let words = report::cores(failure, &memory, &guest, request.cores);
        if !words.is_empty() {
            console.tool(&words);
        }
        if !matches!(failure, Failure::Qemu { .. }) && !messages.is_empty() {
            console.tool(&format!("QEMU says:\n{messages}"));
        }
    }
    verdict
}

/// Stays with the guest until it ends or has to be ended.
fn attend(
    boot: &Boot,
    process: &mut Process,
    memory: &GuestMemory,
    guest: &mut Guest,
    serial: &mut Serial,
    console: &mut dyn Console,
) -> Result<Ending, Failure> {
    let cores = boot.request.cores;
    let start = Instant::now();
    let mut now = Moment::default();
    let mut last_look = start;
    let mut reported = BTreeSet::new();
    loop {
        // Asked first, so that what it wrote before its end is read below.
        let ended = process
            .ended()
            .map_err(Failure::host("cannot wait for QEMU"))?;
        now.wall = start.elapsed();
        let lines = serial
            .lines()
            .map_err(Failure::host("cannot read the guest's console"))?;
        if let Some(cpu) = process.cpu_time().filter(|_| !lines.is_empty()) {
            now.cpu = cpu;
        }
        let rest = if ended.is_some() { serial.rest() } else { None };
        for line in lines.into_iter().chain(rest) {
            console
                .guest(&line, now)
                .map_err(Failure::host("cannot write the guest's output"))?;
        }
        if last_look.elapsed() >= RECORD_INTERVAL || ended.is_some() {
            last_look = Instant::now();
            guest.look(memory, cores);
            if let Some(cpu) = process.cpu_time() {
                now.cpu = cpu;
            }
            if ended.is_none() {
                console.running(now);
            }
            for (number, core) in guest.cores() {
                // A core that was started anew may panic again.
                let life = (*number, core.record.started_tsc);
                if core.panicked() && reported.insert(life) {
                    console.tool(&report::panicked(memory, core));
                }
            }
            let lost = guest.cores().values().filter(|core| core.panicked());
            let lost = lost.count();
            let hopeless = guest.core(0).is_some_and(Core::panicked) || (lost >= cores && lost > 0);
            if hopeless && ended.is_none() {
                return Ok(Ending::Panicked);
            }
        }
        if let Some(status) = ended {
            return Ok(Ending::Qemu(status));
        }
        if interrupt::asked() {
            return Ok(Ending::Interrupted);
        }
        if let Some(limit) = boot.limit.filter(|limit| now.wall >= *limit) {
            return Ok(Ending::TimedOut(limit));
        }
        thread::sleep(CONSOLE_INTERVAL);
    }
}

/// What became of it all.
fn judge(ending: &Ending, guest: &Guest, cores: usize, messages: &str) -> Result<i32, Failure> {
    let panicked = guest.core(0).is_some_and(Core::panicked);
    match ending {
        Ending::Interrupted => Err(Failure::Interrupted),
        Ending::Panicked => Err(Failure::GuestPanicked),
        Ending::Qemu(_) if panicked => Err(Failure::GuestPanicked),
        Ending::TimedOut(limit) => Err(Failure::TimedOut { limit: *limit }),
        Ending::Qemu(status) => match status.code() {
            Some(POWERED_OFF) => {
                let program = guest.exit_status();
                let lost = guest.lost(cores);
                if !lost.is_empty() {
                    return Err(Failure::CoresLost {
                        lost,
                        cores,
                        program,
                    });
                }
                program.ok_or(Failure::NoExitStatus)
            }
            Some(PANICKED) => Err(Failure::GuestPanicked),
            Some(BRIDGE_STOPPED) => Err(Failure::BridgeStopped),
            Some(0) => Err(Failure::GuestReset),
            _ => Err(Failure::Qemu {
                status: status.to_string(),
                stderr: messages.to_owned(),
            }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Recording;
    use crate::failure::Status;
    use crate::options::RunOptions;
    use abi::record::state;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use zerocopy::IntoBytes;

    /// A stand-in for QEMU: a script that finds the files it was given and acts as told.
    struct FakeQemu {
        folder: PathBuf,
        qemu: Qemu,
    }

    impl FakeQemu {
        fn new(name: &str, acts: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("atoll-{name}-{}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            let path = folder.join("qemu");
            let script = format!(
                r#"#!/bin/bash
for word in "$@"; do
    case $word in
        file:*) serial=${{word#file:}} ;;
        *mem-path=*) ram=${{word##*mem-path=}} ;;
    esac
done
# record FILE MEBIBYTES
record() {{ dd if="{0}/$1" of="$ram" bs=1M seek="$2" conv=notrunc status=none; }}
{acts}
"#,
                folder.display()
            );
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            Self {
                folder,
                qemu: Qemu {
                    path,
                    version: "0".to_owned(),
                },
            }
        }

        fn record(&self, name: &str, core: u32, state: u32, status: Option<i32>, log: &str) {
            let region = u64::from(core + 1) << 23;
            let (mut record, mut bytes) = crate::guest::tests::record(core, state, region, log);
            record.has_exit_status = u32::from(status.is_some());
            record.exit_status = status.unwrap_or(0);
            let head = record.as_bytes();
            bytes[..head.len()].copy_from_slice(head);
            fs::write(self.folder.join(name), bytes).unwrap();
        }

        fn boot(&self, cores: i64, limit: u64) -> (Result<i32, Failure>, Recording) {
            let options = RunOptions {
                cores,
                ..RunOptions::defaults()
            };
            let boot = Boot {
                request: options.check().unwrap(),
                accelerator: Accelerator::Tcg,
                limit: Some(Duration::from_secs(limit)),
            };
            let mut console = Recording::default();
            let result = launch(&boot, &System::default(), &self.qemu, &mut console);
            (result, console)
        }
    }

    impl Drop for FakeQemu {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }

    #[test]
    fn a_good_boot_gives_the_programs_status_and_lines() {
        let fake = FakeQemu::new(
            "good",
            "printf '[core 0] up\\nhello\\nno newline' > $serial\nrecord r0 8; record r1 16; exit 85",
        );
        fake.record("r0", 0, state::STOPPED, Some(7), "");
        fake.record("r1", 1, state::RUNNING, None, "");
        let (result, console) = fake.boot(2, 20);
        assert_eq!(result.unwrap(), 7);
        assert_eq!(
            console.program().collect::<Vec<_>>(),
            ["hello", "no newline"]
        );
        assert_eq!(console.guest.len(), 3);
        assert!(console.tool.is_empty(), "{:?}", console.tool);
    }

    #[test]
    fn a_lost_core_fails_the_boot_though_the_program_ended_well() {
        let fake = FakeQemu::new(
            "lost",
            "record r0 8; record r1 16; sleep 1; record done 8; exit 85",
        );
        fake.record("r0", 0, state::RUNNING, None, "");
        fake.record("done", 0, state::STOPPED, Some(0), "");
        fake.record(
            "r1",
            1,
            state::PANICKED,
            None,
            "page fault at 0x1000\nin wild_write\n",
        );
        let (result, console) = fake.boot(3, 20);
        let failure = result.unwrap_err();
        assert_eq!(failure.status(), Status::CoreLost);
        let text = failure.to_string();
        assert!(text.contains("lost 2 of 3 cores: 1, 2"), "{text}");
        assert!(text.contains("itself ended with status 0"), "{text}");
        let said = console.tool.join("\n");
        assert!(said.contains("core 1 lost"), "{said}");
        assert_eq!(said.matches("page fault at 0x1000").count(), 1, "{said}");
        assert!(said.contains("core 2 left no record"), "{said}");
    }

    #[test]
    fn a_core_that_came_back_or_was_stopped_is_not_lost() {
        let fake = FakeQemu::new(
            "back",
            "record r0 8; record r1 16; record r2 24; sleep 1; record back 16; record done 8; exit 85",
        );
        fake.record("r0", 0, state::RUNNING, None, "");
        fake.record("r1", 1, state::PANICKED, None, "page fault\n");
        fake.record("r2", 2, state::STOPPED, None, "");
        fake.record("back", 1, state::RUNNING, None, "");
        fake.record("done", 0, state::STOPPED, Some(3), "");
        let (result, console) = fake.boot(3, 20);
        assert_eq!(result.unwrap(), 3);
        assert!(console.tool.join("\n").contains("core 1 lost"));
    }

    #[test]
    fn a_panic_of_core_0_ends_the_boot_at_once() {
        let fake = FakeQemu::new("panic", "record r0 8; exec sleep 60");
        fake.record("r0", 0, state::PANICKED, None, "panicked at main.rs\n");
        let start = Instant::now();
        let (result, console) = fake.boot(1, 60);
        assert_eq!(result.unwrap_err().status(), Status::GuestPanicked);
        assert!(start.elapsed() < Duration::from_secs(20));
        assert!(console.tool.join("\n").contains("panicked at main.rs"));
    }

    #[test]
    fn a_hang_ends_by_the_limit_with_the_last_words_of_each_core() {
        let fake = FakeQemu::new("hang", "record r0 8; exec sleep 60");
        fake.record("r0", 0, state::STARTED, None, "reading ACPI\n");
        let (result, console) = fake.boot(2, 1);
        assert_eq!(result.unwrap_err().status(), Status::TimedOut);
        let said = console.tool.join("\n");
        assert!(said.contains("reading ACPI"), "{said}");
        assert!(said.contains("started, its monitor not running"), "{said}");
        assert!(said.contains("core 1 left no record"), "{said}");
    }

    #[test]
    fn a_reset_a_refusal_and_a_missing_status_are_told_apart() {
        let (result, console) = FakeQemu::new("reset", "echo odd >&2; exit 0").boot(1, 20);
        assert_eq!(result.unwrap_err().status(), Status::GuestReset);
        assert!(console.tool.join("\n").contains("QEMU says:\nodd"));

        let (result, _) = FakeQemu::new("refusal", "echo no such cpu >&2; exit 1").boot(1, 20);
        let failure = result.unwrap_err();
        assert_eq!(failure.status(), Status::QemuFailed);
        assert!(failure.to_string().contains("no such cpu"), "{failure}");

        let (result, console) = FakeQemu::new("early", "echo why > $serial; exit 87").boot(1, 20);
        assert_eq!(result.unwrap_err().status(), Status::GuestPanicked);
        assert_eq!(console.guest[0].1, "why");

        let (result, _) = FakeQemu::new("bridge", "exit 33").boot(1, 20);
        let failure = result.unwrap_err();
        assert!(matches!(failure, Failure::BridgeStopped), "{failure}");

        let fake = FakeQemu::new("no-status", "record r0 8; exit 85");
        fake.record("r0", 0, state::STOPPED, None, "");
        let failure = fake.boot(1, 20).0.unwrap_err();
        assert!(matches!(failure, Failure::NoExitStatus), "{failure}");
        assert_eq!(failure.status(), Status::GuestPanicked);
    }

    #[test]
    fn the_process_is_gone_afterwards() {
        let fake = FakeQemu::new("gone", "echo $$ > $serial; exec sleep 60");
        let (result, console) = fake.boot(1, 1);
        assert_eq!(result.unwrap_err().status(), Status::TimedOut);
        let process: u32 = console.guest[0].1.parse().unwrap();
        assert!(!PathBuf::from(format!("/proc/{process}")).exists());
    }
}
