//! Linux beside us: Debian's cloud kernel in the very same QEMU with a program of ours as its first
//! process, which measures the nearest operations; and one table of both.

mod cpio;
mod fetch;
mod pairs;
pub mod tests;

use crate::accelerator::Accelerator;
use crate::failure::{BenchmarkError, BuildError, Failure};
use crate::figure::{self, Conditions, Figure};
use crate::harness::last_lines;
use crate::install::Qemu;
use crate::interrupt;
use crate::launch::Boot;
use crate::memory::GuestMemory;
use crate::options::RunOptions;
use crate::progress::Progress;
use crate::project::Project;
use crate::qemu::Process;
use crate::serial::Serial;
use crate::strip;
use abi::command_line::EXIT_VALUE;
use cpio::Kind;
pub use pairs::table;
use serde::Deserialize;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

const PACKAGE: &str = "linux-peer";
/// What the program is compiled for: static, so that the kernel needs no other file.
const TARGET: &str = "x86_64-unknown-linux-gnu";
const FLAGS: &str = "-C target-feature=+crt-static -C relocation-model=static";
/// What the kernel is told. The program starts the other cores: see its `host::start_cores`.
const KERNEL_WORDS: &str = "console=ttyS0 quiet panic=-1 maxcpus=1";
const INTERVAL: Duration = Duration::from_millis(20);

/// A Linux ready to boot.
#[derive(Debug)]
pub struct Peer {
    kernel: PathBuf,
    ram_disk: PathBuf,
}

/// Fetches the kernel where it is not there yet, and packs the program.
pub fn prepare(project: &Project) -> Result<Peer, Failure> {
    let _progress = Progress::begin("fetching and building Linux");
    let folder = project.own_folder().join("linux");
    let kernel = fetch::kernel(&folder)?;
    let mut cargo = project.cargo();
    let output = cargo
        .args(["build", "--quiet", "--release", "--package", PACKAGE])
        .args(["--target", TARGET])
        .env("RUSTFLAGS", FLAGS)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .map_err(BuildError::NoCargo)?;
    if !output.status.success() {
        let messages = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(BuildError::Compiler { messages }.into());
    }
    let program = project.target.join(TARGET).join("release").join(PACKAGE);
    let file =
        fs::read(&program).map_err(Failure::host(format!("cannot read {}", program.display())))?;
    // What the kernel would load with debug information is time at boot.
    let program = strip::strip(&file).map_err(|found| BuildError::BadElf {
        path: program,
        found,
    })?;
    let archive = cpio::archive(&[
        ("dev", Kind::Folder),
        ("dev/console", Kind::Device(5, 1)),
        ("init", Kind::Executable(&program)),
    ]);
    let ram_disk = folder.join("init.cpio");
    fs::write(&ram_disk, archive).map_err(Failure::host(format!(
        "cannot write {}",
        ram_disk.display()
    )))?;
    Ok(Peer { kernel, ram_disk })
}

/// What its runs are called among those of our benchmarks.
pub const NAME: &str = "linux";

/// Boots it on a machine of these conditions' cores and sockets, and returns what it measured. Plain
/// `tcg` has no times, so nothing is booted and nothing comes.
pub fn run(
    peer: &Peer,
    qemu: &Qemu,
    accelerator: Accelerator,
    is_quick: bool,
    conditions: &Conditions,
) -> Result<Vec<Figure>, Failure> {
    if !accelerator.tells_time() {
        return Ok(Vec::new());
    }
    let _progress = Progress::begin(format!("Linux on {} cores", conditions.cores));
    let options = RunOptions {
        cores: conditions.cores.into(),
        sockets: conditions.sockets as i64,
        memory: Some(conditions.memory.clone()),
        ..RunOptions::defaults()
    };
    let boot = Boot {
        request: options.check()?,
        accelerator,
        limit: Some(accelerator.time_limit(conditions.cores as usize)),
    };
    let quick = if is_quick { " --quick" } else { "" };
    let words = format!(
        "{KERNEL_WORDS} -- {accelerator} {}{quick}",
        conditions.cores
    );
    let lines = boot_to_end(peer, qemu, &boot, &words)?;
    let mut figures: Vec<Figure> = Vec::new();
    for line in &lines {
        if !figure::parse_more(line, figures.last_mut())? {
            figures.extend(parse(line, conditions)?);
        }
    }
    figures.retain(|figure| accelerator.tells(figure.unit));
    Ok(figures)
}

/// The figure in a line, of whatever benchmark.
fn parse(line: &str, conditions: &Conditions) -> Result<Option<Figure>, BenchmarkError> {
    #[derive(Deserialize)]
    struct Named {
        benchmark: String,
    }
    let named = line
        .strip_prefix("result ")
        .and_then(|json| serde_json::from_str::<Named>(json).ok());
    let name = named.map_or_else(String::new, |named| named.benchmark);
    figure::parse(line, &name, conditions)
}

/// The lines of a boot that ended well.
fn boot_to_end(peer: &Peer, qemu: &Qemu, boot: &Boot, words: &str) -> Result<Vec<String>, Failure> {
    let request = &boot.request;
    let memory = GuestMemory::create(request.memory.bytes, request.sockets)
        .map_err(Failure::host("cannot make a file for the guest's RAM"))?;
    let mut serial =
        Serial::create().map_err(Failure::host("cannot make a file for the guest's console"))?;
    let mut process = Process::start_with(
        boot,
        &peer.kernel,
        &peer.ram_disk,
        words,
        qemu,
        &memory,
        &serial,
    )?;
    let start = Instant::now();
    let mut lines = Vec::new();
    let ended = loop {
        let ended = process
            .ended()
            .map_err(Failure::host("cannot wait for QEMU"))?;
        lines.extend(
            serial
                .lines()
                .map_err(Failure::host("cannot read the guest's console"))?,
        );
        if let Some(status) = ended {
            lines.extend(serial.rest());
            break Ok(status);
        }
        if interrupt::asked() {
            break Err(Failure::Interrupted);
        }
        if let Some(limit) = boot.limit.filter(|limit| start.elapsed() >= *limit) {
            break Err(Failure::TimedOut { limit });
        }
        thread::sleep(INTERVAL);
    };
    let verdict = ended.and_then(|status| match status.code() {
        Some(code) if code == i32::from(EXIT_VALUE) * 2 + 1 => Ok(()),
        Some(0) => Err(Failure::GuestReset),
        Some(status) if status % 2 == 1 && status > 1 => Err(BenchmarkError::Program {
            program: PACKAGE,
            status,
        }
        .into()),
        _ => Err(Failure::Qemu {
            status: status.to_string(),
            stderr: process.messages(),
        }),
    });
    if verdict.is_err() {
        eprint!("{}", last_lines(&lines.join("\n")));
    }
    verdict.map(|()| lines)
}
