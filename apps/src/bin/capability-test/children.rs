//! What copies of the program do for those that started them.

use crate::NAME;
use crate::bench::ask;
use crate::revoke::Tree;
use abi::syscall::{self, priority};
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use rt::capability::{
    self, Address, GIFT, MEMORY_CNODE, MONITOR_DOORBELL, OWN_DISPATCHER, OWN_DOORBELL, OWN_SPACE,
    ROOT_CNODE, Rights, TASK_CNODE, slots,
};
use rt::dispatcher::{self, Property};
use rt::memory::Result;
use rt::monitor::{self, Domain, Spawn};
use rt::space::{Mapping, PageSize, rights};
use rt::system_call::{self, Error};
use rt::{clock, lrpc};

/// The words by which a copy knows its part.
pub mod role {
    /// Calls who gave it an endpoint, until it is told to go.
    pub const CALLER: &str = "caller";
    /// Deletes the capability to its own dispatcher, and goes on.
    pub const ORPHAN: &str = "orphan";
    /// Deletes its slots, and goes on.
    pub const BARE: &str = "bare";
    /// Deletes its memory.
    pub const EMPTY: &str = "empty";
    /// Revokes trees.
    pub const REVISER: &str = "reviser";
}

/// Status of a caller that got an error: this plus its number.
pub const REFUSED: i32 = 1000;
/// Status of who went on as it should.
pub const WENT_ON: i32 = 5;
/// Status of who could not do its part.
const FAILED: i32 = 90;
/// Most revokes of a reviser that nobody stops.
const MOST_REVOKES: u64 = 4000;

/// Words that a reviser shares with who started it.
pub mod word {
    /// Calls of a revoke that has not ended.
    pub const CALLS: usize = 0;
    /// Revokes that have ended.
    pub const REVOKES: usize = 1;
    /// Not 0: it is to go.
    pub const STOP: usize = 2;
}

/// Starts a copy of the program with a gift.
pub fn start(role: &str, gift: Option<Address>) -> Result<Domain> {
    let words = [NAME, role];
    let spawn = Spawn::new(&words);
    let spawn = match gift {
        Some(gift) => spawn.gift(gift),
        None => spawn,
    };
    Ok(spawn.start()?)
}

/// The part of a copy; its exit status.
pub fn play(role: &str) -> i32 {
    match role {
        role::CALLER => caller(),
        role::ORPHAN => orphan(),
        role::BARE => bare(),
        role::EMPTY => empty(),
        role::REVISER => match revise() {
            Ok(()) => 0,
            Err(error) => {
                rt::println!("{NAME}: the reviser: {error}");
                FAILED
            }
        },
        _ => {
            rt::println!("usage: {NAME}");
            2
        }
    }
}

/// Calls until it is told its status.
fn caller() -> i32 {
    for call in 1.. {
        match lrpc::call(GIFT, [call, 0, 0, 0, 0]) {
            Ok([0, ..]) => {}
            Ok([status, ..]) => return status as i32,
            Err(error) => return REFUSED + error as i32,
        }
    }
    FAILED
}

fn orphan() -> i32 {
    // The monitor has another, or this would be the end.
    let steps = [
        capability::revoke(OWN_DISPATCHER) == Err(Error::NotRevocable),
        capability::delete(OWN_DISPATCHER) == Ok(()),
        capability::delete(OWN_DISPATCHER) == Err(Error::EmptySlot),
        dispatcher::state(OWN_DISPATCHER) == Err(Error::EmptySlot),
    ];
    clock::sleep_ns(1000);
    system_call::yield_now();
    match steps.iter().all(|step| *step) {
        true => WENT_ON,
        false => FAILED,
    }
}

fn bare() -> i32 {
    let deleted = [
        OWN_SPACE,
        OWN_DOORBELL,
        OWN_DISPATCHER,
        MONITOR_DOORBELL,
        TASK_CNODE,
    ];
    let mut is_right = deleted
        .into_iter()
        .all(|slot| capability::delete(slot) == Ok(()));
    is_right &= capability::identify(OWN_SPACE).map(|_| ()) == Err(Error::NoSuchSlot);
    is_right &= capability::identify(TASK_CNODE).map(|_| ()) == Err(Error::EmptySlot);
    is_right &= capability::delete(ROOT_CNODE) == Ok(());
    is_right &= capability::identify(ROOT_CNODE).map(|_| ()) == Err(Error::NoSuchSlot);
    is_right &= capability::delete(MEMORY_CNODE) == Err(Error::NoSuchSlot);
    clock::sleep_ns(1000);
    system_call::exit(if is_right { WENT_ON } else { FAILED })
}

fn empty() -> i32 {
    // Its code is behind it, so it does not come far.
    let _ = capability::delete(MEMORY_CNODE);
    for _ in 0..1000 {
        clock::sleep_ns(100_000);
    }
    FAILED
}

/// Grows and revokes trees, and tells how far it is.
fn revise() -> Result {
    // SAFETY: nothing else here refers to its memory, and all look at it as atomic words.
    let shared = unsafe { Mapping::of(GIFT, PageSize::Small, rights::WRITE)? };
    let words = shared.words();
    // Whoever else is ready goes first.
    dispatcher::configure(OWN_DISPATCHER, Property::Priority(priority::LOW))?;
    let tree = Tree::new()?;
    for revokes in 1..=MOST_REVOKES {
        tree.grow()?;
        let mut calls = 0;
        while ask(syscall::REVOKE, [tree.root.0, 0, 0, 0, 0, 0])?[0] == 1 {
            calls += 1;
            words[word::CALLS].store(calls, Relaxed);
        }
        words[word::CALLS].store(0, Relaxed);
        words[word::REVOKES].store(revokes, Relaxed);
        capability::delete(tree.root)?;
        if words[word::STOP].load(Relaxed) != 0 {
            break;
        }
    }
    tree.grow()?;
    tree.fell()
}

/// A copy of the program that revokes, as who started it sees it.
pub struct Reviser {
    domain: Domain,
    shared: Mapping,
    gift: Address,
}

impl Reviser {
    /// Starts one on this core.
    pub fn start() -> Result<Self> {
        let shared = Mapping::zeroed(abi::layout::PAGE, PageSize::Small)?;
        let gift = slots::take()?;
        capability::mint(shared.frame(), gift, Rights::READ | Rights::WRITE, 0)?;
        let domain = start(role::REVISER, Some(gift))?;
        Ok(Self {
            domain,
            shared,
            gift,
        })
    }

    /// What it shares.
    pub fn words(&self) -> &[AtomicU64] {
        self.shared.words()
    }

    /// Its status, if it has ended.
    pub fn status(&self) -> Result<Option<i32>> {
        Ok(monitor::try_wait(self.domain)?)
    }

    /// Its status, when it has ended.
    pub fn wait(&self) -> Result<i32> {
        Ok(monitor::wait(self.domain)?)
    }

    /// Takes back what it was given.
    pub fn forget(self) -> Result {
        capability::delete(self.gift)?;
        slots::give(self.gift);
        Ok(())
    }
}
