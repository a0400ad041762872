//! Dispatchers that the monitor made, and doorbells.

use super::ram::{Pool, Ram};
use super::space::AddressSpace;
use super::{ask, machine};
use crate::system_call::Error;
use abi::layout::PAGE;
use abi::syscall::{self, DISPATCHER_BYTES, life, priority};

/// What a dispatcher is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It runs, is ready to, or waits.
    Alive,
    /// It ended itself with this status.
    Exited(i32),
    /// It met an exception.
    Faulted {
        /// Exception vector.
        vector: u64,
        /// Error code.
        error: u64,
        /// Instruction pointer.
        instruction: u64,
        /// The address that a page fault complained of.
        address: u64,
    },
}

/// A dispatcher that this monitor made.
#[derive(Debug)]
pub struct Dispatcher {
    handle: u64,
    memory: Ram,
}

impl Dispatcher {
    /// Makes one that starts at `entry`, woken by `vector` of this core.
    pub fn new(
        pool: &mut Pool,
        space: &AddressSpace,
        entry: u64,
        vector: u8,
        name: &str,
    ) -> Result<Self, Error> {
        let memory = pool.take(DISPATCHER_BYTES / PAGE).ok_or(Error::TooMany)?;
        let mut bytes = [0; 16];
        let length = name.len().min(16);
        bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
        let half = |at: usize| {
            bytes[at..at + 8]
                .iter()
                .rev()
                .fold(0, |word, byte| word << 8 | u64::from(*byte))
        };
        let arguments = [
            memory.base,
            space.root,
            entry,
            u64::from(priority::NORMAL) << 8 | u64::from(vector),
            half(0),
            half(8),
        ];
        match ask(syscall::MAKE_DISPATCHER, arguments) {
            Ok(results) => Ok(Self {
                handle: results[0],
                memory,
            }),
            Err(error) => {
                pool.give(memory);
                Err(error)
            }
        }
    }

    /// What it is about.
    pub fn life(&self) -> Life {
        match ask(syscall::DISPATCHER, [self.handle, 0, 0, 0, 0, 0]) {
            Ok([life::EXITED, status, ..]) => Life::Exited(status as i32),
            Ok([life::FAULTED, vector, error, instruction, address]) => Life::Faulted {
                vector,
                error,
                instruction,
                address,
            },
            _ => Life::Alive,
        }
    }

    /// Its registers, in the order of [`syscall::REGISTERS`].
    pub fn registers(&self) -> [u64; syscall::REGISTERS.len()] {
        core::array::from_fn(|index| {
            ask(syscall::REGISTER, [self.handle, index as u64, 0, 0, 0, 0])
                .map_or(0, |results| results[0])
        })
    }

    /// Lets it ring a vector of a core.
    pub fn grant_doorbell(&self, slot: u64, core: usize, vector: u8) -> Result<(), Error> {
        grant(self.handle, slot, core, vector)
    }

    /// Stops it for good.
    pub fn destroy(self, pool: &mut Pool) {
        // It exists, so the call cannot fail.
        let _ = ask(syscall::DESTROY_DISPATCHER, [self.handle, 0, 0, 0, 0, 0]);
        pool.give(self.memory);
    }
}

fn grant(handle: u64, slot: u64, core: usize, vector: u8) -> Result<(), Error> {
    let target = machine().cores().get(core).ok_or(Error::BadArgument)?;
    let arguments = [
        handle,
        slot,
        u64::from(target.apic_id),
        u64::from(vector),
        0,
        0,
    ];
    ask(syscall::GRANT_DOORBELL, arguments).map(|_| ())
}

/// Lets this monitor ring a vector of a core.
pub fn grant_own_doorbell(slot: u64, core: usize, vector: u8) -> Result<(), Error> {
    grant(0, slot, core, vector)
}
