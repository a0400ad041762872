//! Removal: delete, revoke, and emptying what held capabilities.
//!
//! Every step takes one capability away and leaves a database in which everything else
//! may be done.
//!
//! When the last capability to a container goes (a CNode, or a dispatcher, which holds
//! the capabilities that it lives by), those in it must go too, and those may be to
//! containers again. So it is *doomed*: its capability moves into its own first slot,
//! which nobody else may use, and into a list of all that are doomed.
//! [`Database::clean_step`] empties them, slot by slot, then takes that capability away
//! as well. Until then the memory counts as in use.
//!
//! In a doomed container's capability the attachment holds its neighbours in that list and
//! the detail the next slot to empty.

use crate::capability::{Capability, Marks};
use crate::database::{Caller, Database};
use crate::error::Error;
use crate::slot::{Link, SLOT_BYTES, SlotId, Slots};
use abi::capability::Rights;

/// What the CPU driver does when something goes. It cannot use the database meanwhile.
pub trait Finalise {
    /// This capability is about to leave its slot: undo what it alone holds, such as a
    /// mapping.
    fn capability_gone(&mut self, slot: SlotId, capability: &Capability);

    /// The last capability to this object went: stop it, forget it. Called right after
    /// [`Finalise::capability_gone`]. The memory may be used again afterwards, except a
    /// container's.
    fn object_gone(&mut self, object: &Capability);

    /// The slots in this container are empty: its memory may be used again.
    fn container_emptied(&mut self, container: &Capability);

    /// A doomed container holds the last capability of this core to an object that other
    /// cores know too: only the monitor may delete it. Returns the slot of the monitor's that
    /// it is moved to, if that is empty; `None` where there is none.
    fn slot_of_monitor(&self) -> Option<SlotId>;

    /// This capability was moved there.
    fn moved_to_monitor(&mut self, slot: SlotId, capability: &Capability);
}

/// What a delete took away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// One of several capabilities to an object.
    Copy,
    /// The last one: the object is gone.
    Object,
    /// The last one to a container: it is doomed, and [`Database::clean_step`] empties it.
    Container,
}

/// How far an operation in steps has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing is left to do.
    Done,
    /// The budget is used up: call again.
    More,
    /// The monitor has no empty slot for what only it may delete: call again when it has.
    Blocked,
}

impl<S: Slots> Database<S> {
    /// Takes the capability out of a slot. O(log n), amortised O(1) if there are others
    /// to its object.
    pub fn delete(
        &mut self,
        caller: Caller,
        slot: SlotId,
        finalise: &mut impl Finalise,
    ) -> Result<Deleted, Error> {
        let link = self.occupied(slot)?;
        let is_last = self.is_last(link);
        if is_last && caller == Caller::User && self.is_marked_shared(link) {
            return Err(Error::AskMonitor);
        }
        Ok(self.take(link, is_last, finalise))
    }

    /// Takes away other capabilities to the object of the one in `slot` and everything
    /// made from it, at most `budget` capabilities and slots of containers. If `slot` has
    /// a badge, only other capabilities with the same badge. Parents go before children, so
    /// that nobody can make more of what is being revoked for ever.
    ///
    /// Where it is [`Progress::More`], others may do what they like before the next call.
    /// If `slot` is in a container that goes, the revoke ends with it; what is left can be
    /// revoked from above. So between calls the slot must be looked up anew.
    /// [`Error::AskMonitor`] comes before the first step if the object itself is shared with
    /// other cores, and later if something made from it is.
    ///
    /// O(k log n) for k capabilities.
    pub fn revoke_step(
        &mut self,
        caller: Caller,
        slot: SlotId,
        mut budget: u32,
        finalise: &mut impl Finalise,
    ) -> Result<Progress, Error> {
        let link = self.occupied(slot)?;
        if !self.tree.capability(link).rights.contains(Rights::REVOKE) {
            return Err(Error::NotRevocable);
        }
        if caller == Caller::User && self.object_is_shared(link) {
            return Err(Error::AskMonitor);
        }
        // Copies that stand before it. None of them is the last capability to the object.
        while let Some(victim) = self.victim(link, self.tree.previous(link)) {
            if budget == 0 {
                return Ok(Progress::More);
            }
            budget -= 1;
            self.take(victim, false, finalise);
        }
        // Copies that stand behind it, and what was made from the object. What stands before
        // the victim is always `link`.
        let mut next = self.tree.next(link);
        while let Some(victim) = self.victim(link, next) {
            if budget == 0 {
                return Ok(Progress::More);
            }
            if self.tree.capability(victim).marks.contains(Marks::DOOMED) {
                match self.empty_container(victim, &mut budget, finalise) {
                    Progress::Done if self.tree.capability(link).is_null() => break,
                    Progress::Done => next = self.tree.next(link),
                    unfinished => return Ok(unfinished),
                }
                continue;
            }
            budget -= 1;
            next = self.tree.next(victim);
            let is_last = !self.same_object(link, victim) && !self.same_object(next, victim);
            if is_last && caller == Caller::User && self.is_marked_shared(victim) {
                return Err(Error::AskMonitor);
            }
            if self.take(victim, is_last, finalise) == Deleted::Container {
                next = self.tree.next(link); // it stands in another slot now
            }
        }
        Ok(Progress::Done)
    }

    /// Takes away all capabilities to an object and everything made from it, at most `budget`
    /// capabilities and slots of containers, parents before children: for the monitor, which has
    /// asked the other cores. The object need not be here itself.
    ///
    /// O(k log n) for k capabilities.
    pub fn remove_step(
        &mut self,
        object: &Capability,
        mut budget: u32,
        finalise: &mut impl Finalise,
    ) -> Progress {
        loop {
            let victim = self.tree.first_of(object);
            if victim.is_none() {
                return Progress::Done;
            }
            let found = self.tree.capability(victim);
            if !found.same_object(object) && !object.is_ancestor_of(found) {
                return Progress::Done;
            }
            if budget == 0 {
                return Progress::More;
            }
            if found.marks.contains(Marks::DOOMED) {
                match self.empty_container(victim, &mut budget, finalise) {
                    Progress::Done => continue,
                    unfinished => return unfinished,
                }
            }
            budget -= 1;
            let is_last = !self.same_object(self.tree.next(victim), victim);
            self.take(victim, is_last, finalise);
        }
    }

    /// Empties doomed containers, at most `budget` slots of them.
    pub fn clean_step(&mut self, mut budget: u32, finalise: &mut impl Finalise) -> Progress {
        while !self.doomed.is_none() {
            if budget == 0 {
                return Progress::More;
            }
            match self.empty_container(self.doomed, &mut budget, finalise) {
                Progress::Done => {}
                unfinished => return unfinished,
            }
        }
        Progress::Done
    }

    /// Whether there are doomed containers.
    pub const fn needs_cleaning(&self) -> bool {
        !self.doomed.is_none()
    }

    /// `neighbour`, if a revoke of the capability in `link` takes it away.
    fn victim(&self, link: Link, neighbour: Link) -> Option<Link> {
        if neighbour.is_none() {
            return None;
        }
        let (target, other) = (self.tree.capability(link), self.tree.capability(neighbour));
        let is_victim = if target.badge != 0 {
            other.same_object(target) && other.badge == target.badge
        } else {
            other.same_object(target) || target.is_ancestor_of(other)
        };
        is_victim.then_some(neighbour)
    }

    /// Whether there is another capability, and to the same object.
    fn same_object(&self, other: Link, link: Link) -> bool {
        let capability = self.tree.capability(link);
        !other.is_none() && self.tree.capability(other).same_object(capability)
    }

    /// Whether no other capability is to the same object.
    pub(crate) fn is_last(&self, link: Link) -> bool {
        // A copy stands behind what it was made from, and goes more often.
        !self.same_object(self.tree.previous(link), link)
            && !self.same_object(self.tree.next(link), link)
    }

    /// Whether this capability bears the mark for its object. The last one always does.
    fn is_marked_shared(&self, link: Link) -> bool {
        self.tree.capability(link).marks.contains(Marks::SHARED)
    }

    /// Takes a capability away.
    fn take(&mut self, link: Link, is_last: bool, finalise: &mut impl Finalise) -> Deleted {
        let capability = *self.tree.capability(link);
        finalise.capability_gone(self.tree.id(link), &capability);
        if is_last {
            finalise.object_gone(&capability);
            if let Some(own) = self.own_slot(&capability) {
                self.doom(link, own);
                return Deleted::Container;
            }
        } else if capability.marks.contains(Marks::SHARED) {
            // It was the first to its object; now the next one is.
            let next = self.tree.next(link);
            let marks = &mut self.tree.node_mut(next).capability.marks;
            marks.insert(Marks::SHARED);
        }
        self.tree.remove(link);
        if is_last {
            Deleted::Object
        } else {
            Deleted::Copy
        }
    }

    /// The slot that a container is doomed in.
    fn own_slot(&self, capability: &Capability) -> Option<Link> {
        let (first, _) = capability.kind.slots(capability.base, capability.bytes)?;
        self.tree.link(SlotId(first))
    }

    /// Moves the last capability to a container into it, and into the list.
    fn doom(&mut self, link: Link, own: Link) {
        self.tree.relocate(link, own);
        let next = self.doomed;
        self.set_listed(own, Link::NONE, next);
        let capability = &mut self.tree.node_mut(own).capability;
        capability.marks = Marks::DOOMED | capability.marks & Marks::UNREACHABLE;
        capability.attachment_detail = 1;
        if !next.is_none() {
            let (_, after) = self.listed(next);
            self.set_listed(next, own, after);
        }
        self.doomed = own;
    }

    /// The doomed containers before and after this one in the list.
    fn listed(&self, own: Link) -> (Link, Link) {
        let attachment = self.tree.capability(own).attachment;
        (Link((attachment >> 32) as u32), Link(attachment as u32))
    }

    fn set_listed(&mut self, own: Link, previous: Link, next: Link) {
        let attachment = u64::from(previous.0) << 32 | u64::from(next.0);
        self.tree.node_mut(own).capability.attachment = attachment;
    }

    /// Empties one doomed container as far as the budget goes.
    fn empty_container(
        &mut self,
        own: Link,
        budget: &mut u32,
        finalise: &mut impl Finalise,
    ) -> Progress {
        let container = *self.tree.capability(own);
        let slots = container.kind.slots(container.base, container.bytes);
        let (first, count) = slots.unwrap_or((0, 0));
        let mut index = container.attachment_detail;
        let progress = loop {
            if u64::from(index) >= count {
                break Progress::Done;
            }
            if *budget == 0 {
                break Progress::More;
            }
            *budget -= 1;
            let slot = SlotId(first + u64::from(index) * SLOT_BYTES);
            let Ok(link) = self.occupied(slot) else {
                index += 1;
                continue;
            };
            let is_last = self.is_last(link);
            if is_last && self.is_marked_shared(link) {
                let Some(slot) = finalise.slot_of_monitor() else {
                    break Progress::Blocked;
                };
                let Ok(place) = self.empty(slot) else {
                    break Progress::Blocked;
                };
                self.tree.relocate(link, place);
                finalise.moved_to_monitor(slot, self.tree.capability(place));
            } else {
                self.take(link, is_last, finalise);
            }
            index += 1;
        };
        if progress != Progress::Done {
            self.tree.node_mut(own).capability.attachment_detail = index;
            return progress;
        }
        let (previous, next) = self.listed(own);
        if previous.is_none() {
            self.doomed = next;
        } else {
            let (before, _) = self.listed(previous);
            self.set_listed(previous, before, next);
        }
        if !next.is_none() {
            let (_, after) = self.listed(next);
            self.set_listed(next, previous, after);
        }
        self.tree.remove(own);
        let mut container = container.duplicate();
        container.marks.remove(Marks::DOOMED);
        finalise.container_emptied(&container);
        Progress::Done
    }
}
