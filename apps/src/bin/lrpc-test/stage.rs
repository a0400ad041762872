//! The stage: puppets, their scripts, and what the director thinks of them.

use crate::PUPPET;
use crate::puppet::{
    Answer, BOARD, COMMON, COUNTER, DONE, FIRST_RESULT, FIRST_STEP, LENGTH, MAX_STEPS, SCRIPT,
    STEPS, STRIDE,
};
use crate::step::{DONE_WELL, Step};
use abi::layout::PAGE;
use abi::syscall::{self, property};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Debug;
use core::sync::atomic::Ordering;
use rt::capability::{self, Address, ENDPOINT_BYTES, Kind, OWN_DISPATCHER, Rights, slots};
use rt::dispatcher::{self, Life};
use rt::interface::{Error::NoMemory, KILLED_STATUS};
use rt::monitor::{self, Domain, Spawn};
use rt::space::{self, Mapping, PageSize, rights};
use rt::system_call::{self, Error};
use rt::{clock, memory, println};

/// How long something may take that comes by itself.
pub const PATIENCE_NS: u64 = 20_000_000_000;
/// How long to wait before looking again.
pub const PAUSE_NS: u64 = 500_000;

/// Why a scene cannot be played.
pub enum Failure {
    /// The core has too little memory for all its puppets.
    NoMemory,
    /// Something else, in words.
    Refused(String),
}

pub type Attempt<T = ()> = Result<T, Failure>;

/// Names the step that a refusal befell.
pub fn at<T, E: Debug>(step: &str, result: Result<T, E>) -> Attempt<T> {
    result.map_err(|error| Failure::Refused(format!("{step}: {error:?}")))
}

/// The same for what takes memory.
pub fn made<T, E: Into<memory::Error>>(step: &str, result: Result<T, E>) -> Attempt<T> {
    match result.map_err(Into::into) {
        Err(memory::Error::NotGiven(NoMemory)) => Err(Failure::NoMemory),
        result => at(step, result),
    }
}

/// A puppet, as the director sees it.
pub struct Puppet {
    pub domain: Domain,
    /// The first of three slots: its dispatcher, its root CNode, its address space.
    pub slots: Address,
    pub bell: Address,
    board: Mapping,
    /// Further capabilities to what is mapped in it, slots of the director's.
    mapped: Vec<Address>,
    script: u64,
    is_there: bool,
}

/// Puppets by their place on the stage.
pub type Who = usize;

/// The director, its puppets, and what it thinks of them.
pub struct Stage {
    pub scene: &'static str,
    pub puppets: Vec<Puppet>,
    pub endpoints: Vec<Address>,
    pub common: Mapping,
    pub bad: u64,
}

impl Stage {
    pub fn expect<T: PartialEq + Debug>(&mut self, what: &str, found: &T, expected: &T) {
        if found != expected {
            self.bad += 1;
            let scene = self.scene;
            println!("lrpc-test: {scene}: {what}: expected {expected:?}, found {found:?}");
        }
    }

    /// A new puppet of this priority. It waits for its first script.
    pub fn puppet(&mut self, priority: u8) -> Attempt<Who> {
        let board = made("a board", Mapping::zeroed(PAGE, PageSize::Small))?;
        let row = at("slots", slots::take_row(3))?;
        let begun = Spawn::new(&["lrpc-test", PUPPET]).traced(row).start();
        if begun == Err(NoMemory) {
            (0..3).for_each(|slot| slots::give(row.plus(slot)));
        }
        let domain = made("start of a puppet", begun)?;
        let mut puppet = Puppet {
            domain,
            slots: row,
            bell: at("doorbell of a puppet", monitor::doorbell(domain))?,
            board,
            mapped: Vec::new(),
            script: 0,
            is_there: true,
        };
        let frame = puppet.board.frame();
        puppet.show(frame, BOARD)?;
        puppet.show(self.common.frame(), COMMON)?;
        at("start of a puppet", dispatcher::start(row))?;
        self.puppets.push(puppet);
        let who = self.puppets.len() - 1;
        let lower = [
            OWN_DISPATCHER.0,
            property::PRIORITY,
            priority.into(),
            0,
            0,
            0,
        ];
        self.begin(who, &[Step(syscall::CONFIGURE, lower)])?;
        self.found("priority of a puppet", who, &[DONE_WELL]);
        Ok(who)
    }

    pub fn puppets<const N: usize>(&mut self, priorities: [u8; N]) -> Attempt<[Who; N]> {
        let mut all = [0; N];
        for (who, priority) in all.iter_mut().zip(priorities) {
            *who = self.puppet(priority)?;
        }
        Ok(all)
    }

    /// A new endpoint, in a slot of the director's.
    pub fn endpoint(&mut self) -> Attempt<Address> {
        let endpoint = memory::object(Kind::Endpoint, ENDPOINT_BYTES);
        let endpoint = made("an endpoint", endpoint)?;
        self.endpoints.push(endpoint);
        Ok(endpoint)
    }

    /// Gives a puppet a capability, with these rights and a badge.
    pub fn hand(
        &self,
        who: Who,
        source: Address,
        slot: Address,
        hold: Rights,
        badge: u64,
    ) -> Attempt {
        let root = self.puppets[who].slots.plus(1);
        let minted = capability::mint_to(source, root, slot, hold, badge);
        at("a capability for a puppet", minted)
    }

    /// Lets puppets call, and one receive, at an endpoint: all find it in the same slot. Badges
    /// count from 1 on, in their order.
    pub fn link(&mut self, slot: Address, server: Who, clients: &[Who]) -> Attempt<Address> {
        let endpoint = self.endpoint()?;
        self.hand(server, endpoint, slot, Rights::READ, 0)?;
        for (client, badge) in clients.iter().zip(1..) {
            let hold = Rights::WRITE | Rights::GRANT;
            self.hand(*client, endpoint, slot, hold, badge)?;
        }
        Ok(endpoint)
    }

    /// Writes a script for a puppet that somebody else will wake.
    pub fn prepare(&mut self, who: Who, steps: &[Step]) -> Attempt {
        if steps.len() > MAX_STEPS {
            return Err(Failure::Refused("a script that is too long".to_string()));
        }
        let puppet = &mut self.puppets[who];
        let board = puppet.board.words();
        for (index, Step(number, arguments)) in steps.iter().enumerate() {
            let place = &board[FIRST_STEP + index * STRIDE..];
            place[0].store(*number, Ordering::Relaxed);
            for (place, argument) in place[1..].iter().zip(arguments) {
                place.store(*argument, Ordering::Relaxed);
            }
        }
        board[LENGTH].store(steps.len() as u64, Ordering::Relaxed);
        board[STEPS].store(0, Ordering::Relaxed);
        puppet.script += 1;
        board[SCRIPT].store(puppet.script, Ordering::Release);
        Ok(())
    }

    /// Has a puppet that waits begin with a script. Then all puppets have come to rest, but for
    /// those that wait for the clock.
    pub fn begin(&mut self, who: Who, steps: &[Step]) -> Attempt {
        self.prepare(who, steps)?;
        self.ring(who)
    }

    pub fn ring(&mut self, who: Who) -> Attempt {
        at(
            "ring of a puppet",
            system_call::ring(self.puppets[who].bell),
        )
    }

    /// What a step came to, if it is done.
    pub fn result(&self, who: Who, step: usize) -> Option<Answer> {
        let board = self.puppets[who].board.words();
        if board[STEPS].load(Ordering::Acquire) <= step as u64 {
            return None;
        }
        let at = FIRST_RESULT + step * STRIDE;
        let word = |index: usize| board[at + index].load(Ordering::Relaxed);
        Some(match Error::from_code(word(0)) {
            None => Ok((word(1), core::array::from_fn(|index| word(2 + index)))),
            Some(error) => Err(error),
        })
    }

    /// Checks what the steps of a puppet came to.
    pub fn found(&mut self, what: &str, who: Who, expected: &[Option<Answer>]) {
        for (step, expected) in expected.iter().enumerate() {
            let found = self.result(who, step);
            self.expect(&format!("{what}, step {step}"), &found, expected);
        }
    }

    /// Has a puppet carry out a script, and checks what comes of it.
    pub fn script(&mut self, what: &str, who: Who, steps: &[(Step, Option<Answer>)]) -> Attempt {
        let (steps, expected): (Vec<_>, Vec<_>) = steps.iter().copied().unzip();
        self.begin(who, &steps)?;
        self.found(what, who, &expected);
        Ok(())
    }

    /// Sleeps until a puppet has done its script.
    pub fn finish(&mut self, what: &str, who: Who) -> Attempt {
        let deadline = clock::now_ns() + PATIENCE_NS;
        let puppet = &self.puppets[who];
        while puppet.board.words()[DONE].load(Ordering::Acquire) != puppet.script {
            if clock::now_ns() >= deadline {
                let reason = format!("{what}: a puppet does not finish");
                return Err(Failure::Refused(reason));
            }
            clock::sleep_ns(PAUSE_NS);
        }
        Ok(())
    }

    /// Waits for a puppet that ends.
    pub fn ended(&mut self, what: &str, who: Who, status: i32) {
        let ended = monitor::wait(self.puppets[who].domain);
        self.puppets[who].is_there = false;
        self.expect(what, &ended, &Ok(status));
    }

    pub fn kill(&mut self, who: Who) -> Attempt {
        at("kill of a puppet", monitor::kill(self.puppets[who].domain))?;
        self.ended("status of a puppet that was killed", who, KILLED_STATUS);
        Ok(())
    }

    /// Stops a puppet, wherever it is.
    pub fn stop(&mut self, who: Who) -> Attempt {
        let row = self.puppets[who].slots;
        at("stop of a puppet", dispatcher::stop(row))?;
        self.expect(
            "a puppet that was stopped",
            &dispatcher::state(row),
            &Ok(Life::Stopped),
        );
        Ok(())
    }

    pub fn start(&mut self, who: Who) -> Attempt {
        let row = self.puppets[who].slots;
        at("start of a puppet", dispatcher::start(row))?;
        self.expect(
            "a puppet that was started",
            &dispatcher::state(row),
            &Ok(Life::Alive),
        );
        Ok(())
    }

    /// Ends all puppets, and takes their endpoints back.
    pub fn clear(&mut self) -> Attempt {
        for who in 0..self.puppets.len() {
            if self.puppets[who].is_there {
                self.kill(who)?;
            }
        }
        for puppet in self.puppets.drain(..) {
            for slot in puppet.mapped {
                at("delete of a page", capability::delete(slot))?;
                slots::give(slot);
            }
            // They went with the domain.
            for slot in 0..3 {
                slots::give(puppet.slots.plus(slot));
            }
            slots::give(puppet.bell);
        }
        for endpoint in self.endpoints.drain(..) {
            at("free of an endpoint", memory::free(endpoint))?;
        }
        self.common.words()[COUNTER].store(0, Ordering::Relaxed);
        Ok(())
    }
}

impl Puppet {
    /// Maps a frame into it.
    pub fn show(&mut self, frame: Address, address: u64) -> Attempt {
        let copy = at("a slot", slots::take())?;
        at("copy of a frame", capability::copy(frame, copy))?;
        let pages = at("a frame", capability::identify(copy))?.bytes / PAGE;
        let root = self.slots.plus(2);
        // SAFETY: not an address space of this program's, and both look at the memory by atomic
        // words alone.
        let mapped = unsafe { space::map(root, address, copy, 0, pages, rights::WRITE) };
        at("map into a puppet", mapped)?;
        self.mapped.push(copy);
        Ok(())
    }
}
