//! Finding out what ring 3 may do: a dispatcher that does one thing at a time, and is looked at
//! afterwards.
//!
//! ```text
//!  owner                                           probe
//!    │ registers, START ─────────────────────────────► runs …
//!    │ RECEIVE ┊ blocks                                 … to the next exception
//!    │◄───────────────────── call because of the fault ─┤
//!    │ STOP, REPLY with RESUME ──────────────────────►  stopped where the exception was
//! ```
//!
//! It has the capabilities of its owner, and the address space that its owner gives it.

use abi::capability::ENDPOINT_BYTES;
use abi::syscall::{DISPATCHER_BYTES, REGISTERS, RESUME, priority};
use rt::capability::{Address, Kind, ROOT_CNODE, Result};
use rt::dispatcher::{self, Life, Property};
use rt::system_call::{self, Error};
use rt::{clock, lrpc, memory};

/// How long it may take to the next exception.
const PATIENCE_NS: u64 = 30_000_000_000;
/// How long to wait before looking again.
const PAUSE_NS: u64 = 100_000;
/// How often to look without such a pause.
const SOON: u64 = 100;

/// The exception that a run ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Met {
    /// Exception vector.
    pub vector: u64,
    /// Error code, 0 where the exception has none.
    pub error: u64,
    /// The address that a page fault complained of, else 0.
    pub address: u64,
    /// Instruction pointer.
    pub instruction: u64,
}

/// A dispatcher that runs from exception to exception.
#[derive(Debug)]
pub struct Probe {
    dispatcher: Address,
    endpoint: Address,
}

impl Probe {
    /// A new one, without an address space.
    pub fn new() -> memory::Result<Self> {
        let dispatcher = memory::object(Kind::Dispatcher, DISPATCHER_BYTES)?;
        let endpoint = memory::object(Kind::Endpoint, ENDPOINT_BYTES)?;
        for property in [
            Property::CSpace(ROOT_CNODE),
            Property::FaultHandler(Some(endpoint)),
            Property::Priority(priority::NORMAL),
            Property::Name("probe"),
        ] {
            dispatcher::configure(dispatcher, property)?;
        }
        Ok(Self {
            dispatcher,
            endpoint,
        })
    }

    /// Its dispatcher.
    pub fn dispatcher(&self) -> Address {
        self.dispatcher
    }

    /// Lets it run to the next exception, with these registers set before, by their names.
    pub fn run(&mut self, registers: &[(&str, u64)]) -> Result<Met> {
        self.set(registers)?;
        dispatcher::start(self.dispatcher)?;
        let deadline = clock::now_ns() + PATIENCE_NS;
        let words = loop {
            match lrpc::receive(self.endpoint, Some(deadline)) {
                Ok((_, words)) => break words,
                Err(Error::Interrupted) => {}
                Err(error) => return Err(error),
            }
        };
        dispatcher::stop(self.dispatcher)?;
        lrpc::reply([RESUME, 0, 0, 0, 0])?;
        let [vector, error, address, instruction, _] = words;
        Ok(Met {
            vector,
            error,
            address,
            instruction,
        })
    }

    /// Lets it run to the next exception without anybody to handle that, and tells what it came to.
    pub fn run_to_death(&self, registers: &[(&str, u64)]) -> Result<Life> {
        dispatcher::configure(self.dispatcher, Property::FaultHandler(None))?;
        self.set(registers)?;
        dispatcher::start(self.dispatcher)?;
        let deadline = clock::now_ns() + PATIENCE_NS;
        for turn in 0.. {
            let life = dispatcher::state(self.dispatcher)?;
            if life != Life::Alive || clock::now_ns() > deadline {
                return Ok(life);
            }
            // Most die in their first turn.
            if turn < SOON {
                system_call::yield_now();
            } else {
                clock::sleep_ns(PAUSE_NS);
            }
        }
        Err(Error::TimedOut)
    }

    /// Gives back what it was made of.
    pub fn free(self) -> memory::Result {
        memory::free(self.dispatcher)?;
        memory::free(self.endpoint)
    }

    /// Sets registers by their names.
    fn set(&self, registers: &[(&str, u64)]) -> Result {
        for (name, value) in registers {
            dispatcher::write_register(self.dispatcher, index(name)?, *value)?;
        }
        Ok(())
    }

    /// A register by its name.
    pub fn register(&self, name: &str) -> Result<u64> {
        dispatcher::read_register(self.dispatcher, index(name)?)
    }

    /// All registers, in the order of [`REGISTERS`].
    pub fn registers(&self) -> Result<[u64; REGISTERS.len()]> {
        dispatcher::registers(self.dispatcher)
    }
}

/// Where in [`REGISTERS`] a name is.
fn index(name: &str) -> Result<usize> {
    let index = REGISTERS.iter().position(|other| *other == name);
    index.ok_or(Error::BadArgument)
}
