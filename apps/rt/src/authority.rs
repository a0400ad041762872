//! For monitors alone: RAM, domains, other cores, the serial port.
//!
//! A monitor starts with capabilities to all of that ([`abi::capability::monitor`]). Here they
//! become what it works with:
//!
//! | type          | what it is                                                           |
//! |---------------|----------------------------------------------------------------------|
//! | [`Store`]     | RAM that is free, empty slots, and the monitor's own address space   |
//! | [`Body`]      | everything that a domain consists of, made of one piece of RAM       |
//! | [`SharedRam`] | a frame that domains of several cores may map                        |
//! | [`Device`]    | ports, device memory or an interrupt line, for a domain              |
//! | [`KernelLog`] | the log of this core's CPU driver                                    |
//!
//! Memory is handed around as values that cannot be copied; their capabilities do not leave
//! this module but to domains. So nothing here is mapped twice in the monitor itself.

mod body;
mod cores;
mod device;
mod foreign;
mod loans;
mod log;
mod mesh;
mod ram;
pub mod serial;
mod slots;
mod space;
mod store;

pub use body::{Body, HEAP_CHUNK_BYTES, Life, MAX_HEAP_BYTES, Paged, Region};
pub use cores::*;
pub use device::{Device, IoApic, Route};
pub use foreign::{Found, look_up, note_shared};
pub use loans::uses_any;
pub use log::KernelLog;
pub use store::{SharedRam, Store, vector_range, vectors_of};

use crate::system_call::{self, call};
use abi::layout::{MONITOR_BUNDLE, MONITOR_MACHINE};
use abi::machine::Machine;
use abi::syscall::woken;

/// Why a monitor could not do something with its capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Too little RAM is left, or there are no more slots.
    NoMemory,
    /// The CPU driver refused.
    Refused(system_call::Error),
}

impl From<system_call::Error> for Error {
    fn from(error: system_call::Error) -> Self {
        Self::Refused(error)
    }
}

fn ask(number: u64, arguments: [u64; 6]) -> Result<[u64; 5], system_call::Error> {
    // SAFETY: the callers pass calls that map and start nothing in this address space.
    unsafe { call(number, arguments) }.map_err(|(error, _)| error)
}

/// Blocks as [`system_call::wait`] does; whether the CPU driver has something for the monitor: text, a domain that
/// ended or misses a page, a capability.
pub fn wait(deadline_ns: Option<u64>) -> bool {
    system_call::woken(deadline_ns) & woken::NEWS != 0
}

/// The machine description.
pub fn machine() -> &'static Machine {
    // SAFETY: the loader mapped it into every monitor, read-only, for its life.
    unsafe { &*(MONITOR_MACHINE as *const Machine) }
}

/// The bundle of programs, a tar archive.
pub fn bundle() -> &'static [u8] {
    // SAFETY: the loader mapped it into every monitor, read-only, for its life.
    unsafe {
        core::slice::from_raw_parts(MONITOR_BUNDLE as *const u8, machine().bundle_bytes as usize)
    }
}
