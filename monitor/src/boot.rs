//! Starts a core.
//!
//! The core's region belongs to nobody: the core did not run yet, or was stopped. This monitor maps the first part of it, has the
//! loader lay out CPU driver, page tables and monitor there, gives it away for good, and sends
//! the core through the trampoline into it. From then on the region is that core's alone.

use crate::bundle;
use loader::image::{self, Anew, ImageError, Parts};
use rt::authority::{self, Store};
use rt::clock;

/// Between INIT and the first start-up interrupt: what processors' manuals ask for.
pub const INIT_NS: u64 = 10_000_000;
/// Between the two start-up interrupts.
const STARTUP_NS: u64 = 200_000;
/// An emulated core needs no such time, and many of them would add up.
const VIRTUAL_NS: u64 = 10_000;

/// Why a core cannot be started.
#[derive(Debug)]
pub enum BootError {
    /// The bundle lacks a file.
    NoFile(&'static str),
    /// Its memory cannot be laid out.
    Image(ImageError),
    /// Its region was given away before, or is no such core's.
    NoRegion,
    /// It takes capabilities that this monitor cannot have.
    Refused(authority::Error),
}

impl core::fmt::Display for BootError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoFile(name) => {
                write!(formatter, "the bundle has no file `{name}`: build it again")
            }
            Self::Image(error) => write!(formatter, "{error}"),
            Self::NoRegion => formatter.write_str("its memory was given away before"),
            Self::Refused(authority::Error::NoMemory) => {
                formatter.write_str("this core has too little memory left")
            }
            Self::Refused(authority::Error::Refused(error)) => {
                write!(formatter, "the CPU driver refused: {error:?}")
            }
        }
    }
}

impl From<authority::Error> for BootError {
    fn from(error: authority::Error) -> Self {
        Self::Refused(error)
    }
}

/// Starts a core; its monitor reports when it runs. `anew`: it comes back.
pub fn boot(store: &mut Store, core: usize, anew: Option<Anew>) -> Result<(), BootError> {
    let file = |name| bundle::file(name).ok_or(BootError::NoFile(name));
    let machine = authority::machine();
    let parts = Parts {
        machine,
        core,
        bundle: authority::bundle(),
        cpu_driver: file("cpudriver")?,
        monitor: file("monitor")?,
        symbols: [file("cpudriver.sym")?, file("monitor.sym")?],
        anew,
    };
    let bytes = image::needed_bytes(&parts).map_err(BootError::Image)?;
    let record = store
        .fill_region(core, bytes, |memory| image::build(&parts, memory))
        .ok_or(BootError::NoRegion)??
        .map_err(BootError::Image)?;
    store.set_trampoline(core, record.kernel_page_table)?;

    // Waiting means blocking: others run meanwhile. (And where QEMU counts instructions, a
    // core that is reset is charged with all that it could have run until the next timer.)
    authority::reset_core(core)?;
    if machine.virtual_machine != 0 {
        clock::sleep_ns(VIRTUAL_NS);
        authority::start_core(core)?;
    } else {
        clock::sleep_ns(INIT_NS);
        authority::start_core(core)?;
        clock::sleep_ns(STARTUP_NS);
        authority::start_core(core)?;
    }
    Ok(())
}
