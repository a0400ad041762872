//! Registers that a parent writes: what could harm the kernel is refused or not taken.

use crate::Outcome;
use crate::attempts::{BREAKPOINT, places_of};
use crate::child::{STACK_TOP, Space};
use abi::capability::ENDPOINT_BYTES;
use abi::exception::PAGE_FAULT;
use abi::layout::{DIRECT_MAP, KERNEL_HALF, KERNEL_IMAGE, PAGE, USER_END, USER_MIN};
use abi::syscall::{self, REGISTERS};
use alloc::format;
use apps::mappings::probe::Probe;
use rt::capability::{Address, Kind, OWN_DISPATCHER};
use rt::dispatcher::{self, Life, Property};
use rt::memory::{self, Result};
use rt::system_call::Error;
use rt::{clock, lrpc, system_call};

/// Flags that ring 3 may change: arithmetic, trap, direction, resume, alignment, identification.
const TAKEN: u64 = 0x25_0dd5;
/// Flags that are always set.
const ALWAYS: u64 = 0x202;
const TRAP: u64 = 0x100;
/// A program does not see it of itself.
const RESUME: u64 = 0x1_0000;
/// Vector of what comes of [`TRAP`].
const DEBUG: u64 = 1;
/// Error code of a fetch where nothing is.
const FETCH: u64 = 0x14;
/// How long a child may take to its system call.
const PATIENCE_NS: u64 = 5_000_000_000;

/// Instruction pointers of which none is a child's.
const REFUSED: [u64; 11] = [
    0,
    USER_MIN - 1,
    USER_END,
    0x0000_7fff_ffff_ffff,
    0x0000_8000_0000_0000,
    0x8000_0000_0000_0000,
    0xffff_7fff_ffff_ffff,
    KERNEL_HALF,
    DIRECT_MAP + PAGE,
    KERNEL_IMAGE,
    u64::MAX,
];

/// What a child is doing when its registers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    /// Stopped at an exception that it met.
    Stopped,
    /// In a system call that nothing ends.
    Waiting,
    /// In a system call that a call ends, by which the kernel goes on with it right away.
    Receiving,
    Dead,
}

use State::{Dead, New, Receiving, Stopped, Waiting};

const STATES: [State; 5] = [New, Stopped, Waiting, Receiving, Dead];

/// A child, and where it receives.
struct Child {
    probe: Probe,
    state: State,
    endpoint: Address,
}

fn number(name: &str) -> usize {
    let found = REGISTERS.iter().position(|it| *it == name);
    found.unwrap_or(usize::MAX)
}

impl Child {
    /// A child that does this.
    fn new(space: &Space, state: State) -> Result<Self> {
        let mut child = Self {
            probe: space.child()?,
            state,
            endpoint: memory::object(Kind::Endpoint, ENDPOINT_BYTES)?,
        };
        let (begin, at) = places_of("system_call");
        let registers = [("rip", begin), ("rsp", STACK_TOP)];
        let (call, argument) = match state {
            New => return Ok(child),
            Stopped => {
                child.probe.run(&registers)?;
                return Ok(child);
            }
            Dead => {
                child.probe.run_to_death(&registers)?;
                return Ok(child);
            }
            Waiting => (syscall::WAIT, 0),
            Receiving => (syscall::RECEIVE, child.endpoint.0),
        };
        let registers = [("rip", at), ("rax", call), ("rdi", argument), ("rsi", 0)];
        for (name, value) in registers {
            child.write(name, value)?;
        }
        child.write("rsp", STACK_TOP)?;
        dispatcher::start(child.probe.dispatcher())?;
        // It is behind the call when it blocks there.
        let deadline = clock::now_ns() + PATIENCE_NS;
        while child.probe.register("rip")? != at + 2 {
            if clock::now_ns() > deadline {
                return Err(Error::TimedOut.into());
            }
            system_call::yield_now();
        }
        Ok(child)
    }

    fn write(&self, name: &str, value: u64) -> rt::capability::Result {
        dispatcher::write_register(self.probe.dispatcher(), number(name), value)
    }

    /// Lets it go on with an instruction pointer; `None`: nothing makes it.
    fn go_on(&self, rip: u64, outcome: &mut Outcome) -> Result<Option<Life>> {
        let registers = [("rip", rip), ("rsp", STACK_TOP)];
        Ok(Some(match self.state {
            New | Stopped => self.probe.run_to_death(&registers)?,
            Waiting => return Ok(None),
            Receiving => {
                let nobody = Property::FaultHandler(None);
                dispatcher::configure(self.probe.dispatcher(), nobody)?;
                for (name, value) in registers {
                    self.write(name, value)?;
                }
                let answer = lrpc::call(self.endpoint, [0; 5]);
                outcome.expect("an answer of the dead", &answer, &Err(Error::PeerGone));
                dispatcher::state(self.probe.dispatcher())?
            }
            Dead => {
                self.write("rip", rip)?;
                dispatcher::start(self.probe.dispatcher())?;
                system_call::yield_now();
                dispatcher::state(self.probe.dispatcher())?
            }
        }))
    }

    fn free(self) -> Result {
        self.probe.free()?;
        memory::free(self.endpoint)
    }
}

/// Tries them all.
pub fn all(outcome: &mut Outcome) -> Result {
    let space = Space::new()?;
    for state in STATES {
        let child = Child::new(&space, state)?;
        refusals(&child, outcome)?;
        child.free()?;
        for bits in (0..64).map(|bit| 1 << bit).chain([0, u64::MAX]) {
            let child = Child::new(&space, state)?;
            flags(&child, bits, outcome)?;
            child.free()?;
        }
        // The first and the last address that are taken. An instruction begins at the last.
        for (rip, address) in [(USER_MIN, USER_MIN), (USER_END - 1, USER_END)] {
            let child = Child::new(&space, state)?;
            let life = child.go_on(rip, outcome)?;
            let expected = Life::Faulted {
                vector: PAGE_FAULT,
                error: FETCH,
                instruction: rip,
                address,
            };
            let what = format!("rip {rip:#x}, {state:?}");
            match life {
                None => {}
                // Whoever is dead stays so, of what it died of.
                Some(Life::Faulted { vector, .. }) if state == Dead => {
                    outcome.expect(&what, &vector, &BREAKPOINT);
                }
                Some(life) => outcome.expect(&what, &life, &expected),
            }
            child.free()?;
        }
    }
    let own = dispatcher::write_register(OWN_DISPATCHER, number("rip"), USER_MIN);
    outcome.expect("the own rip", &own, &Err(Error::BadArgument));
    Ok(())
}

/// What is refused leaves everything as it was.
fn refusals(child: &Child, outcome: &mut Outcome) -> Result {
    let state = child.state;
    let before = child.probe.registers()?;
    for rip in REFUSED {
        let what = format!("rip {rip:#x}, {state:?}");
        outcome.expect(&what, &child.write("rip", rip), &Err(Error::BadArgument));
    }
    // There are no segments, no control registers, and nothing behind them.
    let none = REGISTERS.len();
    for register in [none, none + 1, none + 2, 64, 1 << 32, usize::MAX] {
        let dispatcher = child.probe.dispatcher();
        let what = format!("register {register:#x}, {state:?}");
        let written = dispatcher::write_register(dispatcher, register, 0);
        outcome.expect(&what, &written, &Err(Error::BadArgument));
        let read = dispatcher::read_register(dispatcher, register);
        outcome.expect(&what, &read, &Err(Error::BadArgument));
    }
    let after = child.probe.registers()?;
    outcome.expect(&format!("registers, {state:?}"), &after, &before);
    Ok(())
}

/// Only flags that ring 3 may change are taken, and the child finds the same of itself.
fn flags(child: &Child, bits: u64, outcome: &mut Outcome) -> Result {
    child.write("rflags", bits)?;
    let expected = bits & TAKEN | ALWAYS;
    let found = child.probe.register("rflags")?;
    let what = format!("flags {bits:#x}, {:?}", child.state);
    outcome.expect(&what, &found, &expected);
    let (begin, at) = places_of("flags");
    let Some(life) = child.go_on(begin, outcome)? else {
        return Ok(());
    };
    let Life::Faulted {
        vector,
        instruction,
        ..
    } = life
    else {
        outcome.check(&what, false, &life, &"a breakpoint");
        return Ok(());
    };
    match child.state {
        Dead => {}
        // Before the first instruction, where a system call returns, or behind it.
        _ if bits & TRAP != 0 => {
            let is_right = vector == DEBUG && [begin, at].contains(&instruction);
            outcome.check(&what, is_right, &(vector, instruction), &(DEBUG, at));
        }
        _ => {
            let seen = child.probe.register("rax")?;
            outcome.expect(&what, &(vector, seen), &(BREAKPOINT, expected & !RESUME));
        }
    }
    Ok(())
}
