//! Further dispatchers of this domain, in its own address space.
//!
//! They run beside the main program, so they keep to what takes no lock: system calls, the clock,
//! atomic words.

use abi::syscall::{DISPATCHER_BYTES, REGISTERS};
use alloc::boxed::Box;
use rt::capability::{self, Address, Kind, OWN_SPACE, ROOT_CNODE};
use rt::dispatcher::{self, Property};
use rt::memory;

/// Words of a stack.
const STACK_WORDS: usize = 1024;

/// What one executes: with an argument, and without an end.
pub type Code = extern "C" fn(u64) -> !;

/// The top of a new stack. It stays: nobody knows when the last has run on it.
pub fn stack() -> u64 {
    let words = Box::leak(Box::new([0u64; STACK_WORDS]));
    words.as_ptr_range().end as u64 & !15
}

/// Sets a register by its name.
pub fn set(dispatcher: Address, name: &str, value: u64) -> capability::Result {
    let register = REGISTERS.iter().position(|one| *one == name);
    let register = register.ok_or(rt::system_call::Error::BadArgument)?;
    dispatcher::write_register(dispatcher, register, value)
}

/// Sets up a new dispatcher to execute this from the top of a stack on.
pub fn prepare(
    it: Address,
    code: Code,
    argument: u64,
    stack: u64,
    priority: u8,
) -> capability::Result {
    dispatcher::configure(it, Property::CSpace(ROOT_CNODE))?;
    dispatcher::configure(it, Property::Priority(priority))?;
    // SAFETY: it executes code of this program on a stack of its own, and that code shares with
    // others what is atomic and nothing else.
    unsafe { dispatcher::set_space(it, OWN_SPACE)? };
    set(it, "rip", code as *const () as u64)?;
    set(it, "rdi", argument)?;
    // As after a call.
    set(it, "rsp", stack - 8)
}

/// A new dispatcher that is ready to be started.
pub fn thread(code: Code, argument: u64, priority: u8) -> memory::Result<Address> {
    let it = memory::object(Kind::Dispatcher, DISPATCHER_BYTES)?;
    prepare(it, code, argument, stack(), priority)?;
    Ok(it)
}
