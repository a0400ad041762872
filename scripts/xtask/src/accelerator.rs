//! How QEMU executes the guest, and the probe that tells whether KVM is worth it.

use crate::bundle::System;
use crate::console::Recording;
use crate::failure::Failure;
use crate::install::Qemu;
use crate::launch::{self, Boot};
use crate::options::RunOptions;
use crate::progress::Progress;
use crate::project::Project;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::time::Duration;

/// How long the probe's guest may take. Emulation needs a fraction of it; a KVM that
/// interprets kernel code, as some nested ones do, needs hours.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// What a person can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// kvm where a boot shows that it works, else tcg
    Auto,
    /// Emulation, all cores in turns on one host thread
    Tcg,
    /// Emulation by a virtual clock that counts instructions: every run is the same
    Icount,
    /// The host's processors
    Kvm,
}

/// What QEMU is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// Emulation, all cores in turns on one host thread.
    Tcg,
    /// The same with a clock that counts instructions.
    Icount,
    /// The host's processors.
    Kvm,
}

/// 2^3 ns of the guest's clock an instruction.
const ICOUNT: &str = "shift=3,sleep=off";
const ICOUNT_SHIFT: u32 = 3;

impl Accelerator {
    /// Ticks of the guest's time-stamp counter, one a nanosecond, that an instruction takes; 0: nobody
    /// counts instructions.
    pub fn ticks_per_instruction(self) -> u64 {
        match self {
            Self::Icount => 1 << ICOUNT_SHIFT,
            Self::Tcg | Self::Kvm => 0,
        }
    }

    /// QEMU's arguments for it.
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Tcg => &["-accel", "tcg,thread=single", "-cpu", "max"],
            Self::Icount => &[
                "-accel",
                "tcg,thread=single",
                "-cpu",
                "max",
                // Any fixed shift will do; `auto` and `sleep=on` look at the host's clock.
                "-icount",
                ICOUNT,
                "-rtc",
                "base=2020-01-01T00:00:00,clock=vm",
            ],
            // Nested hosts offer a register of Intel's mitigations that they then refuse.
            Self::Kvm => &["-accel", "kvm", "-cpu", "host,arch-capabilities=off"],
        }
    }

    /// Time that a boot of so many cores with some work gets when nobody says how much.
    pub fn time_limit(self, cores: usize) -> Duration {
        let seconds = 60 + cores as u64;
        Duration::from_secs(match self {
            Self::Tcg | Self::Kvm => seconds,
            Self::Icount => seconds * 4,
        })
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcg => "tcg",
            Self::Icount => "icount",
            Self::Kvm => "kvm",
        })
    }
}

/// Turns a choice into an accelerator; `auto` may boot a guest to find out.
pub fn choose(choice: Choice, project: &Project, system: &System, qemu: &Qemu) -> Accelerator {
    match choice {
        Choice::Tcg => Accelerator::Tcg,
        Choice::Icount => Accelerator::Icount,
        Choice::Kvm => Accelerator::Kvm,
        Choice::Auto if kvm_works(project, system, qemu) => Accelerator::Kvm,
        Choice::Auto => Accelerator::Tcg,
    }
}

/// What a probe found, good for as long as the host runs.
#[derive(Serialize, Deserialize, PartialEq, Eq, Debug)]
struct Probe {
    host_boot: String,
    qemu: String,
    works: bool,
}

fn kvm_works(project: &Project, system: &System, qemu: &Qemu) -> bool {
    if OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_err()
    {
        return false;
    }
    let file = project.own_folder().join("kvm-probe.json");
    let host_boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let known = fs::read(&file)
        .ok()
        .and_then(|text| serde_json::from_slice::<Probe>(&text).ok())
        .filter(|probe| probe.host_boot == host_boot && probe.qemu == qemu.version);
    if let Some(probe) = known {
        return probe.works;
    }
    let Some(works) = probe(system, qemu) else {
        return false;
    };
    let probe = Probe {
        host_boot,
        qemu: qemu.version.clone(),
        works,
    };
    if let Ok(text) = serde_json::to_vec(&probe) {
        // Without the note the next run probes again.
        let _ = fs::write(&file, text);
    }
    works
}

/// Boots one core under KVM. `None`: it failed for a reason that says nothing about KVM.
fn probe(system: &System, qemu: &Qemu) -> Option<bool> {
    let _progress = Progress::begin("trying KVM");
    let options = RunOptions {
        cores: 1,
        exec: "hello".to_owned(),
        ..RunOptions::defaults()
    };
    let boot = Boot {
        request: options.check().ok()?,
        accelerator: Accelerator::Kvm,
        limit: Some(PROBE_LIMIT),
    };
    match launch::launch(&boot, system, qemu, &mut Recording::default()) {
        Ok(0) => Some(true),
        // QEMU says at once when the host has no virtualisation after all.
        Err(Failure::TimedOut { .. } | Failure::Qemu { .. }) => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn icount_depends_on_no_clock_of_the_host() {
        let arguments = Accelerator::Icount.arguments().join(" ");
        assert!(arguments.contains("sleep=off") && arguments.contains("clock=vm"));
        assert!(!arguments.contains("auto") && !arguments.contains("multi"));
    }

    #[test]
    fn time_limits_grow_with_the_machine() {
        assert_eq!(Accelerator::Tcg.time_limit(8), Duration::from_secs(68));
        assert_eq!(Accelerator::Icount.time_limit(64), Duration::from_secs(496));
    }
}
