//! Core 0 before it has memory of its own: from the boot loader to its copy of the image.
//!
//! Nothing of this stays in use: the image that the boot loader loaded is left behind, and
//! core 0 goes on in a copy that it laid out for itself, as every other core does.

use crate::arch::{cpu, entry, trampoline};
use crate::discover;
use crate::local::Local;
use abi::command_line::CommandLine;
use abi::machine::Machine;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};
use loader::image::{self, ImageError, Parts};
use tar_no_std::TarArchiveRef;

/// The bundle lacks a file, or is none.
enum BundleError {
    NotAnArchive,
    Missing(&'static str),
}

static MACHINE: Local<Machine> = Local::new(Machine::EMPTY);
static LEFT: AtomicBool = AtomicBool::new(false);

/// Whether this copy of the image is the one that the core keeps.
pub fn in_own_memory() -> bool {
    LEFT.load(Ordering::Relaxed)
}

/// Notes that this copy of the image is the one that the core keeps.
pub fn note_own_memory() {
    LEFT.store(true, Ordering::Relaxed);
}

/// Finds the machine, divides it among its cores, lays out core 0, and goes there.
pub fn boot() -> ! {
    // SAFETY: this runs once, and nothing else refers to the static.
    let machine = unsafe { MACHINE.get_mut() };
    // SAFETY: the boot core, once, interrupts off, on the boot loader's page tables.
    let direct_map = match unsafe { discover::discover(machine) } {
        Ok(boot_loader) => boot_loader.direct_map,
        Err(error) => give_up(format_args!("{error}")),
    };
    let options = CommandLine::parse(machine.command_line());
    if let Err(error) = options.trace {
        give_up(format_args!("{error}"));
    }
    let (cores, debug_exit, test_hooks) = (options.cores, options.debug_exit, options.test_hooks);
    (machine.debug_exit, machine.test_hooks) = (debug_exit.into(), test_hooks.into());
    if let Some(cores) = cores {
        machine.core_count = machine.core_count.min(cores.max(1) as u32);
    }
    if let Err(error) = loader::plan::divide(machine) {
        give_up(format_args!(
            "{} MiB of usable RAM are too little for {} cores: each needs {} MiB. \
             Give the machine more memory or fewer cores",
            error.usable >> 20,
            error.cores,
            loader::plan::MIN_REGION_BYTES >> 20
        ));
    }
    let machine = &*machine;
    // SAFETY: the boot loader maps all usable RAM, and the modules, at `direct_map`;
    // nobody uses the trampoline pages or core 0's region yet.
    let (bundle, memory) = unsafe {
        trampoline::install(machine, (direct_map + machine.trampoline) as *mut u8);
        let region = &machine.cores[0];
        (
            core::slice::from_raw_parts(
                (direct_map + machine.bundle) as *const u8,
                machine.bundle_bytes as usize,
            ),
            core::slice::from_raw_parts_mut(
                (direct_map + region.region) as *mut u8,
                region.private_bytes as usize,
            ),
        )
    };
    let page_table = match lay_out(machine, bundle, memory) {
        Ok(Ok(page_table)) => page_table,
        Ok(Err(error)) => give_up(format_args!("{error}")),
        Err(BundleError::NotAnArchive) => {
            give_up(format_args!(
                "the bundle is not a tar archive: build it again"
            ));
        }
        Err(BundleError::Missing(name)) => {
            give_up(format_args!(
                "the bundle has no file `{name}`: build it again"
            ));
        }
    };
    // SAFETY: the copy was made from the bundle's `cpudriver`. It is of this image: both
    // come out of one build.
    unsafe { entry::enter_own_memory(page_table) }
}

fn lay_out(
    machine: &Machine,
    bundle: &[u8],
    memory: &mut [u8],
) -> Result<Result<u64, ImageError>, BundleError> {
    let archive = TarArchiveRef::new(bundle).map_err(|_| BundleError::NotAnArchive)?;
    let file = |name: &'static str| {
        archive
            .entries()
            .find(|entry| entry.filename().as_str() == Ok(name))
            .map(|entry| entry.data())
            .ok_or(BundleError::Missing(name))
    };
    let parts = Parts {
        machine,
        core: 0,
        bundle,
        cpu_driver: file("cpudriver")?,
        monitor: file("monitor")?,
        symbols: [file("cpudriver.sym")?, file("monitor.sym")?],
        anew: None,
    };
    Ok(image::build(&parts, memory).map(|record| record.kernel_page_table))
}

/// The first serial port, which nobody drives yet.
struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // SAFETY: the first serial port; this core is the only one that runs.
            unsafe {
                while x86::io::inb(0x3fd) & 0x20 == 0 {
                    core::hint::spin_loop();
                }
                x86::io::outb(0x3f8, byte);
            }
        }
        Ok(())
    }
}

/// Reports why the system cannot start, and stops.
pub fn give_up(reason: fmt::Arguments<'_>) -> ! {
    // Writing to the serial port cannot fail.
    let _ = writeln!(Serial, "[core 0] PANIC: cannot boot: {reason}");
    // The command line may not have been read yet. Where QEMU's device is missing, the
    // port is nobody's.
    cpu::debug_exit(abi::command_line::PANIC_VALUE);
    cpu::halt()
}
