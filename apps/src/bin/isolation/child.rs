//! Children: dispatchers in an address space that holds code, data and a stack, and nothing else.

use crate::attempts;
use abi::exception::PAGE_FAULT;
use abi::layout::{PAGE, USER_END, USER_IMAGE};
use apps::mappings::probe::Probe;
use core::sync::atomic::Ordering::Relaxed;
use rt::capability::{Address, Kind};
use rt::dispatcher::{self, Life};
use rt::memory::{self, Result};
use rt::space::{self, Mapping, PageSize, rights};
use rt::system_call::Error;

/// Where the instructions of [`attempts`] are.
pub const CODE: u64 = USER_IMAGE;
/// A page to read and write.
pub const DATA: u64 = CODE + PAGE;
/// A page for the stack, and where that begins.
pub const STACK: u64 = DATA + PAGE;
pub const STACK_TOP: u64 = STACK + PAGE - 64;
/// The last page that there can be: it ends with a system call.
pub const LAST_PAGE: u64 = USER_END - PAGE;

/// What a child died of, and some of its registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    /// Exception vector.
    pub vector: u64,
    /// Error code, 0 where the exception has none.
    pub error: u64,
    /// Instruction pointer.
    pub instruction: u64,
    /// The address that a page fault complained of, else 0.
    pub address: u64,
    /// Its stack.
    pub rsp: u64,
}

/// The address space of the children.
pub struct Space {
    root: Address,
}

impl Space {
    /// A new one.
    pub fn new() -> Result<Self> {
        let root = memory::object(Kind::PageTable4, PAGE)?;
        for address in [CODE, LAST_PAGE] {
            for kind in [Kind::PageTable3, Kind::PageTable2, Kind::PageTable1] {
                let table = memory::object(kind, PAGE)?;
                // SAFETY: an address space of its own.
                unsafe { space::map_table(root, address, table) }.map_err(Error::from)?;
            }
        }
        let space = Self { root };
        space.map(CODE, &attempts::code(), rights::EXECUTE)?;
        space.map(DATA, &[], rights::WRITE)?;
        space.map(STACK, &[], rights::WRITE)?;
        // Breakpoints, and `syscall` as the last instruction there can be.
        let mut last = [0xcccc_cccc_cccc_cccc; PAGE as usize / 8];
        last[PAGE as usize / 8 - 1] = 0x050f_cccc_cccc_cccc;
        space.map(LAST_PAGE, &last, rights::EXECUTE)?;
        Ok(space)
    }

    /// Maps a new page that begins with these words.
    fn map(&self, address: u64, words: &[u64], access: u64) -> Result {
        let frame = memory::frame(PAGE)?;
        {
            // SAFETY: new memory, which is looked at through this mapping alone.
            let page = unsafe { Mapping::of(frame, PageSize::Small, rights::WRITE) }?;
            for (to, from) in page.words().iter().zip(words) {
                to.store(*from, Relaxed);
            }
        }
        // SAFETY: an address space of its own.
        unsafe { space::map(self.root, address, frame, 0, 1, access) }.map_err(Error::from)?;
        Ok(())
    }

    /// A child that was not started yet: its data and stack are known to it.
    pub fn child(&self) -> Result<Probe> {
        let probe = Probe::new()?;
        // SAFETY: an address space of its own.
        unsafe { dispatcher::set_space(probe.dispatcher(), self.root) }?;
        Ok(probe)
    }

    /// Lets a child begin with these registers, beside data in `rdi` and `rsi` and its stack, and
    /// tells what it died of; `None`: it did not.
    pub fn run(&self, registers: &[(&str, u64)]) -> Result<Option<Death>> {
        let probe = self.child()?;
        let usual = [("rdi", DATA), ("rsi", DATA), ("rsp", STACK_TOP)];
        let registers = [&usual, registers].concat();
        let life = probe.run_to_death(&registers)?;
        let death = match life {
            Life::Faulted {
                vector,
                error,
                instruction,
                address,
            } => Some(Death {
                vector,
                error,
                instruction,
                address: if vector == PAGE_FAULT { address } else { 0 },
                rsp: probe.register("rsp")?,
            }),
            _ => None,
        };
        probe.free()?;
        Ok(death)
    }
}
