//! The database, and what puts capabilities into slots: insert, copy, mint, move.

use crate::capability::{Capability, Marks};
use crate::error::Error;
use crate::slot::{Link, SLOT_BYTES, SlotId, Slots};
use crate::tree::{Key, Tree};
use abi::capability::Rights;

/// Who asks. The CPU driver says so; a user cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Any domain: what concerns other cores is answered with [`Error::AskMonitor`].
    User,
    /// The monitor of this core, which has asked the other cores.
    Monitor,
}

/// All capabilities of one core.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct Database<S> {
    pub(crate) tree: Tree<S>,
    /// First of the doomed containers; see [`crate::removal`].
    pub(crate) doomed: Link,
}

impl<S: Slots> Database<S> {
    /// An empty database. Slots, and all kernel objects with slots in them, lie after
    /// `origin`, a multiple of 64, and at most 256 GiB beyond.
    pub const fn new(slots: S, origin: u64) -> Self {
        Self {
            tree: Tree::new(slots, origin),
            doomed: Link::NONE,
        }
    }

    /// How many capabilities there are.
    pub const fn count(&self) -> u64 {
        self.tree.count()
    }

    /// The memory of the slots.
    pub const fn slots(&self) -> &S {
        &self.tree.slots
    }

    /// The memory of the slots. What is in slots is the database's alone to change.
    pub const fn slots_mut(&mut self) -> &mut S {
        &mut self.tree.slots
    }

    /// A slot with a capability that can be used.
    #[inline]
    pub(crate) fn occupied(&self, slot: SlotId) -> Result<Link, Error> {
        Ok(self.occupant(slot)?.0)
    }

    /// The same, and the capability.
    #[inline]
    pub(crate) fn occupant(&self, slot: SlotId) -> Result<(Link, &Capability), Error> {
        let link = self.tree.link(slot).ok_or(Error::BadSlot)?;
        let capability = self.tree.capability(link);
        if capability.is_null() || capability.marks.contains(Marks::DOOMED) {
            return Err(Error::EmptySlot);
        }
        Ok((link, capability))
    }

    /// A slot without a capability.
    #[inline]
    pub(crate) fn empty(&self, slot: SlotId) -> Result<Link, Error> {
        let link = self.tree.link(slot).ok_or(Error::BadSlot)?;
        if self.tree.capability(link).is_null() {
            Ok(link)
        } else {
            Err(Error::OccupiedSlot)
        }
    }

    /// Puts a capability into `destination` that was not made from one here: at boot, or
    /// one that came from another core. It may be a copy of what is here, below it or
    /// above it, but not across it. The attachment and the marks but
    /// [`Marks::UNREACHABLE`] are not taken over; the slots of a container must be in use
    /// here already or have been cleared.
    ///
    /// O(log n + k) for k capabilities that it covers.
    pub fn insert(&mut self, destination: SlotId, capability: &Capability) -> Result<(), Error> {
        let destination = self.empty(destination)?;
        let kind = capability.kind;
        let resource = kind.resource().ok_or(Error::WrongKind)?.range();
        if !kind.accepts_size(capability.bytes) {
            return Err(Error::WrongSize);
        }
        let (base, bytes) = (capability.base, capability.bytes);
        let room = resource.end.checked_sub(base).ok_or(Error::OutOfRange)?;
        if base < resource.start || room < bytes {
            return Err(Error::OutOfRange);
        }
        if !base.is_multiple_of(kind.alignment(bytes)) {
            return Err(Error::Misaligned);
        }
        let is_unreachable = capability.marks.contains(Marks::UNREACHABLE);
        if kind.is_kernel_object() && is_unreachable || !self.can_reach_slots(capability) {
            return Err(Error::Unreachable);
        }
        self.check_nested(capability)?;
        let position = self.tree.last_at(&Key::of(capability));
        let mut new = capability.duplicate();
        new.marks = capability.marks & Marks::UNREACHABLE;
        self.tree.insert_after(position, destination, new);
        // The mark that stands for the object stays with the first capability to it.
        let next = self.tree.next(destination);
        if !next.is_none() && self.tree.capability(next).same_object(&new) {
            let marks = &mut self.tree.node_mut(next).capability.marks;
            let moved = *marks & Marks::SHARED;
            marks.remove(moved);
            self.tree
                .node_mut(destination)
                .capability
                .marks
                .insert(moved);
        }
        Ok(())
    }

    /// Checks a capability from outside against the invariant.
    fn check_nested(&self, new: &Capability) -> Result<(), Error> {
        let tree = &self.tree;
        // Across its start: the innermost range around it ends inside. Across its end: alike.
        if let Some(before) = new.base.checked_sub(1) {
            let at = tree.last_reaching(tree.last_starting_at(before), new.base);
            if !at.is_none() && tree.capability(at).end() < new.end() {
                return Err(Error::Overlap);
            }
        }
        let last = tree.last_starting_at(new.end() - 1);
        let at = tree.last_reaching(last, new.end());
        if !at.is_none() && tree.capability(at).base > new.base {
            return Err(Error::Overlap);
        }
        // Above it, the same, or below it.
        let key = Key {
            badge: u64::MAX,
            ..Key::of(new)
        };
        let position = tree.last_at(&key);
        let around = tree.last_reaching(position, new.end() - 1);
        if !around.is_none() {
            let around = tree.capability(around);
            let fits = if around.same_object(new) {
                let differing = (around.marks ^ new.marks) & Marks::UNREACHABLE;
                around.kind == new.kind && differing.is_empty()
            } else {
                may_lie_in(new, around)
            };
            if !fits || around.marks.contains(Marks::DOOMED) {
                return Err(Error::Conflict);
            }
        }
        let mut at = tree.next(position);
        while !at.is_none() && tree.capability(at).base < new.end() {
            if !may_lie_in(tree.capability(at), new) {
                return Err(Error::Conflict);
            }
            at = tree.next(at);
        }
        Ok(())
    }

    /// Whether the slots in an object, if there are any, lie where slots can be named.
    pub(crate) fn can_reach_slots(&self, object: &Capability) -> bool {
        match object.kind.slots(object.base, object.bytes) {
            None => true,
            Some((first, count)) => {
                let last = SlotId(first + (count - 1) * SLOT_BYTES);
                self.tree.link(SlotId(first)).is_some() && self.tree.link(last).is_some()
            }
        }
    }

    /// Puts another capability to the same object into `destination`, with the same badge
    /// and rights. Amortised O(1).
    pub fn copy(&mut self, source: SlotId, destination: SlotId) -> Result<(), Error> {
        let (source, capability) = self.occupant(source)?;
        let destination = self.empty(destination)?;
        let capability = capability.duplicate();
        self.tree.insert_after(source, destination, capability);
        Ok(())
    }

    /// Puts another capability to the same object into `destination`, with these rights
    /// and, where `badge` is not 0, this badge. O(log n).
    pub fn mint(
        &mut self,
        source: SlotId,
        destination: SlotId,
        rights: Rights,
        badge: u64,
    ) -> Result<(), Error> {
        let source = self.occupied(source)?;
        let destination = self.empty(destination)?;
        let mut capability = self.tree.capability(source).duplicate();
        if !capability.rights.contains(rights) {
            return Err(Error::MoreRights);
        }
        capability.rights = rights;
        let mut position = source;
        if badge != 0 {
            if capability.badge != 0 {
                return Err(Error::AlreadyBadged);
            }
            capability.badge = badge;
            position = self.tree.last_at(&Key::of(&capability));
        }
        self.tree.insert_after(position, destination, capability);
        Ok(())
    }

    /// Moves a capability to `destination`, with its attachment. O(1).
    pub fn move_to(&mut self, source: SlotId, destination: SlotId) -> Result<(), Error> {
        let source = self.occupied(source)?;
        let destination = self.empty(destination)?;
        self.tree.relocate(source, destination);
        Ok(())
    }

    /// Sets the attachment of a capability, and its detail. O(1).
    pub fn attach(&mut self, slot: SlotId, attachment: u64, detail: u32) -> Result<(), Error> {
        let link = self.occupied(slot)?;
        let capability = &mut self.tree.node_mut(link).capability;
        capability.attachment = attachment;
        capability.attachment_detail = detail;
        Ok(())
    }

    /// Says whether other cores have capabilities to this object, or to what was made from
    /// it. O(log n).
    pub fn set_shared(&mut self, slot: SlotId, shared: bool) -> Result<(), Error> {
        let link = self.occupied(slot)?;
        let first = self.tree.first_of(self.tree.capability(link));
        let marks = &mut self.tree.node_mut(first).capability.marks;
        marks.set(Marks::SHARED, shared);
        Ok(())
    }

    /// Whether the object of a capability is marked as shared with other cores.
    pub(crate) fn object_is_shared(&self, link: Link) -> bool {
        let capability = self.tree.capability(link);
        let previous = self.tree.previous(link);
        if previous.is_none() || !self.tree.capability(previous).same_object(capability) {
            return capability.marks.contains(Marks::SHARED); // it is the first
        }
        let first = self.tree.first_of(capability);
        self.tree.capability(first).marks.contains(Marks::SHARED)
    }
}

/// Whether an object may be part of another: of a kind that is made from it, and out of
/// the CPU driver's reach where the other is.
fn may_lie_in(inner: &Capability, outer: &Capability) -> bool {
    let is_reachable = !inner.marks.contains(Marks::UNREACHABLE);
    outer.kind.may_become(inner.kind) && !(outer.marks.contains(Marks::UNREACHABLE) && is_reachable)
}
