//! What the kernel halves of the cores map, as their CPU drivers tell it, and, in [`probe`], what
//! ring 3 can do with it.

pub mod probe;

use abi::layout::{DIRECT_MAP, PAGE};
use abi::syscall::rights;
use alloc::vec::Vec;
use rt::interface::{self, Error};
use rt::monitor;
use trace::{FIXED, TRACE};

/// Most ranges of one core; more means that the answers go round in circles.
const MAX_RANGES: usize = 4096;

/// A range of addresses in the kernel half of one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First virtual address.
    pub address: u64,
    /// First physical address.
    pub physical: u64,
    /// Bytes.
    pub bytes: u64,
    /// Of [`rights`].
    pub rights: u64,
}

impl Mapping {
    /// The physical address behind its end.
    pub fn physical_end(&self) -> u64 {
        self.physical.saturating_add(self.bytes)
    }

    /// Whether it may be written.
    pub fn is_writable(&self) -> bool {
        self.rights & rights::WRITE != 0
    }

    /// Whether it may be executed.
    pub fn is_executable(&self) -> bool {
        self.rights & rights::EXECUTE != 0
    }

    /// Whether it belongs to the direct map: the private RAM that the core owns.
    pub fn is_direct(&self) -> bool {
        self.address == DIRECT_MAP.wrapping_add(self.physical)
    }

    /// Whether it is of the trace, and ring 3 may do what [`Self::rights`] say.
    pub fn is_open(&self) -> bool {
        (TRACE..FIXED + PAGE).contains(&self.address)
    }

    /// Whether it is a device and no memory.
    pub fn is_device(&self) -> bool {
        self.rights & rights::UNCACHED != 0
    }
}

/// All that the kernel half of a core maps, in the order of addresses.
pub fn of_core(core: usize) -> Result<Vec<Mapping>, Error> {
    let mut mappings = Vec::new();
    let mut from = 0;
    while mappings.len() < MAX_RANGES {
        let [address, physical, bytes, rights, _] =
            monitor::ask(core, interface::MAPPING, [from, 0, 0, 0, 0, 0])?;
        if bytes == 0 {
            break;
        }
        mappings.push(Mapping {
            address,
            physical,
            bytes,
            rights,
        });
        // The last range may end where addresses do.
        match address.checked_add(bytes) {
            Some(next) => from = next,
            None => break,
        }
    }
    Ok(mappings)
}
