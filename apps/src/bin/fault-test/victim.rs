//! Children, as their handler sees them.

use crate::VICTIM;
use crate::checks::Test;
use crate::children::E;
use crate::code::register;
use abi::layout::PAGE;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Debug;
use core::sync::atomic::Ordering;
use rt::capability::{self, Address, Rights, slots};
use rt::dispatcher::{self, Property};
use rt::interface::Error::NoMemory;
use rt::monitor::{self, Domain, Spawn};
use rt::space::{self, Mapping, PageSize, rights};
use rt::{memory, system_call};

/// Why the test cannot go on.
pub enum Failure {
    /// The core has too little memory for another child.
    NoMemory,
    /// Something else, in words.
    Refused(String),
}

pub type Attempt<T = ()> = Result<T, Failure>;

/// Names the step that a refusal befell.
pub fn at<T, E: Debug>(step: &str, result: Result<T, E>) -> Attempt<T> {
    result.map_err(|error| Failure::Refused(format!("{step}: {error:?}")))
}

/// A child, as its handler sees it.
pub struct Victim {
    pub domain: Domain,
    /// The first of three slots: its dispatcher, its root CNode, its address space.
    pub slots: Address,
    /// Frames that are mapped in it, slots of this program.
    pub frames: Vec<Address>,
    pub is_there: bool,
}

impl Drop for Victim {
    /// Where the test goes on without it.
    fn drop(&mut self) {
        if self.is_there && monitor::kill(self.domain).is_ok() {
            let _ = monitor::wait(self.domain);
        }
    }
}
impl Victim {
    /// A child that was not started yet.
    pub fn new(words: &[&str]) -> Attempt<Self> {
        let row = at("slots", slots::take_row(3))?;
        let words = [&["fault-test"], words].concat();
        let domain = Spawn::new(&words).traced(row).start();
        if domain == Err(NoMemory) {
            (0..3).for_each(|slot| slots::give(row.plus(slot)));
            return Err(Failure::NoMemory);
        }
        Ok(Self {
            domain: at("start of a child", domain)?,
            slots: row,
            frames: Vec::new(),
            is_there: true,
        })
    }

    /// One that will meet an exception, whose handler is at this endpoint.
    pub fn of(harm: usize, handler: Option<Address>) -> Attempt<Self> {
        let victim = Self::new(&[VICTIM, &format!("{harm}")])?;
        victim.handled_by(handler)?;
        Ok(victim)
    }

    pub fn handled_by(&self, handler: Option<Address>) -> Attempt {
        let set = dispatcher::configure(self.slots, Property::FaultHandler(handler));
        at("a fault handler", set)
    }

    /// Gives it a capability to an endpoint.
    pub fn hand(&self, endpoint: Address, hold: Rights) -> Attempt {
        let minted = capability::mint_to(endpoint, self.slots.plus(1), E, hold, 0);
        at("an endpoint for a child", minted)
    }

    /// Lets it run until it is blocked or has ended.
    pub fn start(&self) -> Attempt {
        at("start of a child", dispatcher::start(self.slots))?;
        // Whose call waits for an answer lends this program its priority, which is the child's.
        system_call::yield_now();
        Ok(())
    }

    /// Maps a new page into it, with this at its start.
    pub fn show(&mut self, address: u64, access: u64, content: u64) -> Attempt {
        let frame = at("a frame", memory::frame(PAGE))?;
        {
            // SAFETY: new memory, which is looked at through this mapping alone.
            let page = unsafe { Mapping::of(frame, PageSize::Small, rights::WRITE) };
            let page = at("a mapping", page)?;
            page.words()[0].store(content, Ordering::Relaxed);
        }
        self.frames.push(frame);
        // SAFETY: not an address space of this program's.
        let mapped = unsafe { space::map(self.slots.plus(2), address, frame, 0, 1, access) };
        at("map into a child", mapped)
    }

    pub fn read(&self, name: &str) -> Attempt<u64> {
        let value = dispatcher::read_register(self.slots, register(name));
        at("read of a register", value)
    }

    pub fn write(&self, name: &str, value: u64) -> Attempt {
        let written = dispatcher::write_register(self.slots, register(name), value);
        at("write of a register", written)
    }

    pub fn clear_flag(&self, flag: u64) -> Attempt {
        let flags = self.read("rflags")?;
        if flags & flag == 0 {
            let reason = format!("flag {flag:#x} was not set");
            return Err(Failure::Refused(reason));
        }
        self.write("rflags", flags & !flag)
    }

    /// Waits for its end, which must have this status.
    pub fn end(mut self, test: &mut Test, what: &str, status: i32) -> Attempt {
        let ended = monitor::wait(self.domain);
        self.is_there = false;
        test.expect(&format!("{what}: status"), &ended, &Ok(status));
        for frame in self.frames.drain(..) {
            at("free of a frame", memory::free(frame))?;
        }
        for slot in 0..3 {
            // They went with it.
            slots::give(self.slots.plus(slot));
        }
        Ok(())
    }
}
