//! Objects that other cores have capabilities to: what a monitor does about them at its CPU
//! driver, for itself and for its domains.
//!
//! Memory that a domain had comes back to the [`Store`] when the domain ends, or gives it back; but
//! as long as other cores hold a part of it (the monitor says which: [`Store::lend_out`]), nobody
//! else gets it.

use super::ram::Ram;
use super::{Body, Error, Store, ask};
use crate::capability::{self, Address, Identity, Kind, Object, Retype, Rights};
use crate::system_call;
use abi::capability::monitor::CORES;
use abi::layout::PAGE;
use abi::syscall;
use alloc::vec::Vec;
use core::ops::Range;

/// Memory, or a vector, that was taken back here while others hold a part of it.
#[derive(Debug)]
struct Late {
    range: Range<u64>,
    pool: From,
}

/// Which pool memory goes back to.
#[derive(Clone, Copy, Debug)]
pub(super) enum From {
    Private,
    Shared,
    /// What was borrowed from another core.
    Loan,
    /// None: a device, or a vector.
    Nowhere,
}

/// What a store knows of other cores' capabilities.
#[derive(Debug)]
pub(super) struct Foreign {
    /// Where the CPU driver puts the last capability to what others know too, when the slots go
    /// that it was in; what takes away everything of a domain's may take that away again.
    offered: Address,
    /// What was found there, and is deleted.
    gone: Vec<Object>,
    /// What other cores may hold of this core's memory.
    away: Vec<Range<u64>>,
    late: Vec<Late>,
}

/// What there is of an object on this core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// A capability to it.
    pub object: bool,
    /// One to something that was made of it.
    pub parts: bool,
    /// One to something that covers no more than its range.
    pub anything: bool,
}

impl Object {
    /// As the calls take it.
    fn arguments(&self, last: u64) -> [u64; 6] {
        let (kind, depth) = (self.kind as u64, u64::from(self.depth));
        [CORES.0, kind, self.base, self.bytes, depth, last]
    }
}

/// Has the CPU driver note that other cores know an object, or know it no more.
pub fn note_shared(object: &Object, is_shared: bool) -> capability::Result {
    ask(syscall::NOTE_SHARED, object.arguments(u64::from(is_shared))).map(|_| ())
}

/// What is here of an object.
pub fn look_up(object: &Object) -> Found {
    let found = ask(syscall::LOOK_UP, object.arguments(0));
    // The call cannot fail for what is named rightly.
    let [object, parts, anything, ..] = found.unwrap_or_default();
    Found {
        object: object != 0,
        parts: parts != 0,
        anything: anything != 0,
    }
}

fn meet(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

impl Foreign {
    /// `offered`: a slot for this alone.
    pub(super) fn new(offered: Address) -> Result<Self, Error> {
        ask(syscall::OFFER_SLOT, [CORES.0, offered.0, 0, 0, 0, 0])?;
        Ok(Self {
            offered,
            gone: Vec::new(),
            away: Vec::new(),
            late: Vec::new(),
        })
    }

    /// Takes out what the CPU driver put into the slot; whether there was anything.
    fn collect(&mut self) -> bool {
        let Ok(found) = capability::identify(self.offered) else {
            return false;
        };
        self.gone.push(found.object());
        // The only capability to it, in a slot of ours: it cannot fail.
        let _ = capability::delete(self.offered);
        true
    }

    /// Does `step` until it says that nothing is left, and makes room where the CPU driver asks for it.
    pub(super) fn in_steps(&mut self, mut step: impl FnMut() -> capability::Result<bool>) {
        loop {
            match step() {
                Ok(true) => {}
                Err(system_call::Error::AskMonitor) if self.collect() => {}
                _ => return,
            }
        }
    }
}

impl Store {
    /// Takes from everybody on this core what is to the object of a capability of the monitor's, or
    /// made of it.
    pub(super) fn revoke(&mut self, slot: Address) {
        self.foreign
            .in_steps(|| capability::revoke_step(Address(0), slot));
    }

    /// Memory of which nothing is left here goes back to its pool, now or when no other core holds
    /// any of it.
    pub(super) fn give_back(&mut self, ram: Ram, pool: From) {
        let range = ram.base..ram.base + ram.pages * PAGE;
        if !self.is_kept_back(&range, pool) {
            self.give(ram, pool);
        }
    }

    /// Whether other cores hold a part of what goes back to a pool: then it has to wait.
    fn is_kept_back(&mut self, range: &Range<u64>, pool: From) -> bool {
        let is_away = self.foreign.away.iter().any(|away| meet(away, range));
        if is_away {
            let range = range.clone();
            self.foreign.late.push(Late { range, pool });
        }
        is_away
    }

    /// A vector of this core is to be used anew, now or when no other core may ring it any more.
    pub(super) fn give_vector_back(&mut self, vector: &Range<u64>) {
        self.is_kept_back(vector, From::Nowhere);
    }

    /// Other cores are going to hold a part of the memory of this core.
    pub fn lend_out(&mut self, range: Range<u64>) {
        self.foreign.away.push(range);
    }

    /// No other core holds what was lent out as this any more.
    pub fn came_back(&mut self, range: &Range<u64>) {
        let Foreign { away, late, .. } = &mut self.foreign;
        if let Some(at) = away.iter().position(|one| one == range) {
            away.swap_remove(at);
        }
        let is_late = |one: &mut Late| !away.iter().any(|away| meet(away, &one.range));
        let free: Vec<Late> = late.extract_if(.., is_late).collect();
        for Late { range, pool } in free {
            let pages = (range.end - range.start) / PAGE;
            self.give(
                Ram {
                    base: range.start,
                    pages,
                },
                pool,
            );
        }
    }

    /// What was taken back here, and others hold a part of.
    pub fn late(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.foreign.late.iter().map(|late| late.range.clone())
    }

    /// Whether any of this was taken back here while others hold a part of it.
    pub fn is_late(&self, range: &Range<u64>) -> bool {
        self.late().any(|late| meet(&late, range))
    }

    /// The objects whose last capability here went with the slots of a domain, and that others know.
    /// `looks`: the CPU driver, which rings when there is one, is asked for another.
    pub fn take_gone(&mut self, looks: bool) -> Vec<Object> {
        // With the slot empty, the CPU driver goes on, and may put the next one there.
        while looks && self.foreign.collect() {}
        core::mem::take(&mut self.foreign.gone)
    }

    /// A step of taking away everything on this core that is to an object or was made of it; whether
    /// more is left to do.
    pub fn remove_step(&mut self, object: &Object) -> bool {
        let step = ask(syscall::REMOVE, object.arguments(0)).map(|results| results[0] != 0);
        self.is_more(step)
    }

    /// The same for what [`crate::capability::revoke`] takes away from all but a slot of a domain.
    pub fn revoke_step(&mut self, body: &Body, slot: Address) -> capability::Result<bool> {
        let step = capability::revoke_step(body.root(), slot);
        match step {
            Err(system_call::Error::AskMonitor) => Ok(self.is_more(step)),
            step => step,
        }
    }

    fn is_more(&mut self, step: capability::Result<bool>) -> bool {
        match step {
            Ok(more) => more,
            Err(system_call::Error::AskMonitor) => self.foreign.collect(),
            Err(_) => false,
        }
    }

    /// Makes objects for a domain, as [`crate::capability::retype`] does, of what other cores know too.
    /// Whether they are frames that are left to be zeroed.
    pub fn retype_for(
        &mut self,
        body: &Body,
        source: Address,
        what: &Retype,
        destination: Address,
    ) -> Result<bool, Error> {
        let own = self.slot()?;
        let made = capability::copy_from(body.root(), source, own)
            .and_then(|()| capability::make_here(own, what, body.root(), destination));
        self.discard(own);
        Ok(made?)
    }

    /// Zeroes RAM in a slot of a domain, of which nothing was made.
    pub fn wipe(&mut self, body: &Body, slot: Address, bytes: u64) -> Result<(), Error> {
        let [ram, frame] = self.slots()?;
        let what = Retype {
            kind: Kind::Frame,
            offset: 0,
            bytes,
            count: 1,
        };
        let wiped = capability::copy_from(body.root(), slot, ram)
            .and_then(|()| capability::retype(ram, &what, frame));
        self.discard(frame);
        self.discard(ram);
        Ok(wiped?)
    }
}

impl Body {
    /// What is in one of its slots.
    pub fn identify(&self, slot: Address) -> capability::Result<Identity> {
        capability::identify_in(self.root(), slot)
    }

    /// Deletes what is in one of its slots; whether it was the last capability here to its object.
    pub fn delete(&self, slot: Address) -> capability::Result<bool> {
        capability::delete_in(self.root(), slot)
    }

    /// Gives a capability to another domain of this core.
    pub fn hand(
        &self,
        slot: Address,
        rights: Rights,
        to: &Self,
        destination: Address,
    ) -> capability::Result {
        capability::mint_between(self.root(), slot, to.root(), destination, rights)
    }

    /// Puts a capability that came from another core into one of its slots.
    pub fn insert(&self, slot: Address, object: &Object, rights: Rights) -> capability::Result {
        capability::insert_object(CORES, self.root(), slot, object, rights)
    }
}
