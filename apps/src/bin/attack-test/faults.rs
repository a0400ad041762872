//! Fault handlers that give their victims up.

use crate::Test;
use crate::threads::thread;
use abi::capability::ENDPOINT_BYTES;
use abi::syscall::priority::{LOW, NORMAL};
use alloc::format;
use rt::capability::{Address, Kind, OWN_DOORBELL};
use rt::dispatcher::{self, Life, Property};
use rt::lrpc::{self, Words};
use rt::memory::{self, Result};
use rt::system_call::{self, Error};

/// Vector of the exception that an instruction without meaning is.
const INVALID_OPCODE: u64 = 6;
/// The answer of a handler: anything but `RESUME`.
const DIED: Words = [0; 5];

/// Meets an exception at once.
extern "C" fn faults(_: u64) -> ! {
    // SAFETY: the instruction has no effect but the exception.
    unsafe { core::arch::asm!("ud2", options(noreturn)) }
}

/// Waits for a call, whatever rings meanwhile: its words.
fn receive(endpoint: Address) -> Result<Words> {
    loop {
        match lrpc::receive(endpoint, None) {
            Ok((_, words)) => return Ok(words),
            Err(Error::Interrupted) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A victim, whose fault is with this handler now: vector, error, address and instruction.
fn victim(test: &mut Test, endpoint: Address, priority: u8) -> Result<(Address, u64)> {
    let victim = thread(faults, 0, priority)?;
    dispatcher::configure(victim, Property::FaultHandler(Some(endpoint)))?;
    dispatcher::start(victim)?;
    let [vector, error, address, instruction, _] = receive(endpoint)?;
    let what = format!("the fault of a victim of priority {priority}");
    test.expect(&what, &(vector, error, address), &(INVALID_OPCODE, 0, 0));
    Ok((victim, instruction))
}

/// Whether a victim has died, and of what.
fn bury(test: &mut Test, victim: Address, instruction: u64) -> Result {
    let died = Life::Faulted {
        vector: INVALID_OPCODE,
        error: 0,
        instruction,
        address: 0,
    };
    test.expect("the victim", &dispatcher::state(victim), &Ok(died));
    let answered = lrpc::reply(DIED);
    test.expect("a second answer", &answered, &Err(Error::NoCaller));
    memory::free(victim)
}

/// A fault handler that answers "died" goes on.
pub fn die(test: &mut Test) -> Result {
    let endpoint = memory::object(Kind::Endpoint, ENDPOINT_BYTES)?;
    for priority in [LOW, NORMAL, LOW] {
        let (victim, instruction) = victim(test, endpoint, priority)?;
        test.expect("the answer", &lrpc::reply(DIED), &Ok(()));
        bury(test, victim, instruction)?;
    }
    memory::free(endpoint)
}

/// The same by an answer that waits for the next call.
pub fn die_receive(test: &mut Test) -> Result {
    let endpoint = memory::object(Kind::Endpoint, ENDPOINT_BYTES)?;
    for priority in [LOW, NORMAL, LOW] {
        let (victim, instruction) = victim(test, endpoint, priority)?;
        system_call::ring(OWN_DOORBELL)?;
        let answered = lrpc::reply_receive(endpoint, DIED);
        test.expect("the answer", &answered, &Err(Error::Interrupted));
        bury(test, victim, instruction)?;
    }
    // A victim whose fault comes while another one's is answered.
    let (first, at_first) = victim(test, endpoint, LOW)?;
    let second = thread(faults, 0, LOW)?;
    dispatcher::configure(second, Property::FaultHandler(Some(endpoint)))?;
    dispatcher::start(second)?;
    let mut next = lrpc::reply_receive(endpoint, DIED);
    while next == Err(Error::Interrupted) {
        next = lrpc::receive(endpoint, None);
    }
    let vector = next.map(|(_, words)| words[0]);
    test.expect("the next fault", &vector, &Ok(INVALID_OPCODE));
    test.expect("the last answer", &lrpc::reply(DIED), &Ok(()));
    bury(test, first, at_first)?;
    bury(test, second, at_first)?;
    memory::free(endpoint)
}
