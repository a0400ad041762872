//! Dispatchers: setting them up, starting and stopping them, looking at them.
//!
//! For whoever has the capability to one: a monitor, a parent that traces its child, a
//! debugger. What they do to a dispatcher of this domain's own address space, only
//! [`set_space`] could make matter to Rust code here, so that is the unsafe one.

use crate::capability::{Address, Result};
use crate::system_call::call;
use abi::limits::DISPATCHER_NAME_BYTES;
use abi::syscall::{self, REGISTERS, life, property};

fn ask(number: u64, arguments: [u64; 6]) -> Result<[u64; 5]> {
    // SAFETY: a dispatcher in the own address space is `set_space`'s matter; others do
    // nothing to memory of this program.
    unsafe { call(number, arguments) }.map_err(|(error, _)| error)
}

/// What to set up in a dispatcher. It keeps copies of the capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property<'a> {
    /// Its root CNode.
    CSpace(Address),
    /// The endpoint that is called when it meets an exception; `None` for nobody.
    FaultHandler(Option<Address>),
    /// What wakes it: a doorbell of this core, one vector, nobody else's.
    Doorbell(Address),
    /// Its priority, at most the caller's own: see [`abi::syscall::priority`].
    Priority(u8),
    /// Its name, of which the first sixteen bytes count.
    Name(&'a str),
}

/// Sets up a property of a dispatcher.
pub fn configure(dispatcher: Address, property: Property<'_>) -> Result {
    let (property, value) = match property {
        Property::CSpace(root) => (property::CSPACE, [root.0, 0]),
        Property::FaultHandler(endpoint) => (
            property::FAULT_HANDLER,
            [endpoint.map_or(0, |endpoint| endpoint.0), 0],
        ),
        Property::Doorbell(doorbell) => (property::DOORBELL, [doorbell.0, 0]),
        Property::Priority(priority) => (property::PRIORITY, [u64::from(priority), 0]),
        Property::Name(name) => (property::NAME, words_of(name)),
    };
    let [a, b] = value;
    ask(syscall::CONFIGURE, [dispatcher.0, property, a, b, 0, 0]).map(|_| ())
}

/// As much of a name as fits two words, cut between characters.
fn words_of(name: &str) -> [u64; 2] {
    let end = (0..=name.len().min(DISPATCHER_NAME_BYTES)).rev();
    let end = end.into_iter().find(|end| name.is_char_boundary(*end));
    let mut words = [0; 2];
    for (index, byte) in name.bytes().take(end.unwrap_or(0)).enumerate() {
        words[index / 8] |= u64::from(byte) << (index % 8 * 8);
    }
    words
}

/// Sets up the address space of a dispatcher: a root page table.
///
/// # Safety
/// If the address space is the caller's own: whatever the dispatcher executes from then on is
/// part of this program, and is sound beside the rest of it.
pub unsafe fn set_space(dispatcher: Address, root: Address) -> Result {
    ask(
        syscall::CONFIGURE,
        [dispatcher.0, property::SPACE, root.0, 0, 0, 0],
    )
    .map(|_| ())
}

/// Lets a dispatcher run on.
pub fn start(dispatcher: Address) -> Result {
    ask(syscall::START, [dispatcher.0, 0, 0, 0, 0, 0]).map(|_| ())
}

/// Stops a dispatcher until it is started.
pub fn stop(dispatcher: Address) -> Result {
    ask(syscall::STOP, [dispatcher.0, 0, 0, 0, 0, 0]).map(|_| ())
}

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
    /// It was not started yet, or was stopped.
    Stopped,
}

/// What a dispatcher is about.
pub fn state(dispatcher: Address) -> Result<Life> {
    let [about, first, error, instruction, address] =
        ask(syscall::STATE, [dispatcher.0, 0, 0, 0, 0, 0])?;
    Ok(match about {
        life::EXITED => Life::Exited(first as i32),
        life::FAULTED => Life::Faulted {
            vector: first,
            error,
            instruction,
            address,
        },
        life::STOPPED => Life::Stopped,
        _ => Life::Alive,
    })
}

/// Reads a register, an index into [`REGISTERS`].
pub fn read_register(dispatcher: Address, register: usize) -> Result<u64> {
    ask(
        syscall::READ_REGISTER,
        [dispatcher.0, register as u64, 0, 0, 0, 0],
    )
    .map(|results| results[0])
}

/// All registers, in the order of [`REGISTERS`].
pub fn registers(dispatcher: Address) -> Result<[u64; REGISTERS.len()]> {
    let mut registers = [0; REGISTERS.len()];
    for (index, register) in registers.iter_mut().enumerate() {
        *register = read_register(dispatcher, index)?;
    }
    Ok(registers)
}

/// Writes a register, an index into [`REGISTERS`], of a dispatcher other than the caller's own.
pub fn write_register(dispatcher: Address, register: usize, value: u64) -> Result {
    ask(
        syscall::WRITE_REGISTER,
        [dispatcher.0, register as u64, value, 0, 0, 0],
    )
    .map(|_| ())
}
