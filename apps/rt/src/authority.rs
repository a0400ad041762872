//! For monitors alone: RAM, address spaces, dispatchers, other cores, the serial port.
//!
//! The CPU driver refuses these calls to anybody else. Memory is handed around as [`Ram`],
//! which cannot be copied: who has it may write to it, and nobody else in this program can.

mod cores;
mod dispatcher;
mod log;
mod ram;
pub mod serial;
mod space;

pub use cores::*;
pub use dispatcher::{Dispatcher, Life, grant_own_doorbell};
pub use log::KernelLog;
pub use ram::{Pool, Ram};
pub use space::{
    AddressSpace, Window, clear_mesh, close_domain_channel, domain_channel, extend_heap,
    mesh_channel,
};

use crate::system_call::{Error, call};
use abi::layout::{MONITOR_BUNDLE, MONITOR_MACHINE};
use abi::machine::Machine;

fn ask(number: u64, arguments: [u64; 6]) -> Result<[u64; 5], Error> {
    // SAFETY: what the calls do to memory goes through `Ram`, of which nobody else in this
    // program has a copy; each caller below keeps to that.
    unsafe { call(number, arguments) }.map_err(|(error, _)| error)
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
