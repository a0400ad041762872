//! Questions: what a capability is, who else has one, what was made from it, what is there.

use crate::capability::{Capability, Marks};
use crate::database::Database;
use crate::error::Error;
use crate::slot::{Link, SlotId, Slots};

impl<S: Slots> Database<S> {
    /// The capability in a slot. O(1).
    #[inline]
    pub fn identify(&self, slot: SlotId) -> Result<Capability, Error> {
        let (_, capability) = self.occupant(slot)?;
        Ok(*capability)
    }

    /// Whether the object of the capability in `slot` is marked as shared with other
    /// cores. O(log n).
    pub fn is_shared(&self, slot: SlotId) -> Result<bool, Error> {
        let link = self.occupied(slot)?;
        Ok(self.object_is_shared(link))
    }

    /// Whether other capabilities are to the same object, whatever their badges.
    /// Amortised O(1).
    pub fn has_copies(&self, slot: SlotId) -> Result<bool, Error> {
        Ok(!self.is_last(self.occupied(slot)?))
    }

    /// All capabilities to the same object, `slot` included. O(log n), each next one
    /// amortised O(1).
    pub fn copies(&self, slot: SlotId) -> Result<impl Iterator<Item = SlotId>, Error> {
        let object = self.tree.capability(self.occupied(slot)?);
        let first = self.tree.first_of(object);
        Ok(self.run(first, |capability| capability.same_object(object)))
    }

    /// Whether something was made from the object and is still there. O(log n).
    pub fn has_descendants(&self, slot: SlotId) -> Result<bool, Error> {
        Ok(self.descendants(slot)?.next().is_some())
    }

    /// All capabilities to what was made from the object, parents before children. Those
    /// of doomed containers are among them. O(log n), each next one amortised O(1).
    pub fn descendants(&self, slot: SlotId) -> Result<impl Iterator<Item = SlotId>, Error> {
        let object = self.tree.capability(self.occupied(slot)?);
        let key = crate::tree::Key {
            badge: u64::MAX,
            ..crate::tree::Key::of(object)
        };
        let first = self.tree.next(self.tree.last_at(&key));
        Ok(self.run(first, |capability| capability.base < object.end()))
    }

    /// A capability to the innermost object whose range holds `number`: an address, or
    /// what [`crate::Resource::range`] makes of a port, a line or a vector. `None` where
    /// nothing does, and where that object is a doomed container. O(log n).
    pub fn object_at(&self, number: u64) -> Option<SlotId> {
        let last = self.tree.last_starting_at(number);
        let at = self.tree.last_reaching(last, number);
        if at.is_none() || self.tree.capability(at).marks.contains(Marks::DOOMED) {
            return None;
        }
        Some(self.tree.id(at))
    }

    /// A capability to this object, if there is one: rights and badge say nothing. O(log n).
    pub fn find(&self, object: &Capability) -> Option<SlotId> {
        let at = self.tree.first_of(object);
        if at.is_none() {
            return None;
        }
        let found = self.tree.capability(at);
        let is_it = found.same_object(object) && found.kind == object.kind;
        (is_it && !found.marks.contains(Marks::DOOMED)).then(|| self.tree.id(at))
    }

    /// Whether there is anything that was made of this object, whether that is still here or not.
    /// What is left of a container counts. O(log n).
    pub fn has_parts(&self, object: &Capability) -> bool {
        let key = crate::tree::Key {
            badge: u64::MAX,
            ..crate::tree::Key::of(object)
        };
        let next = self.tree.next(self.tree.last_at(&key));
        !next.is_none() && object.is_ancestor_of(self.tree.capability(next))
    }

    /// Whether there is a capability to anything that lies in this range. O(log n).
    pub fn is_used(&self, base: u64, bytes: u64) -> bool {
        let whole = Capability {
            base,
            bytes,
            ..Capability::NULL
        };
        let next = self.tree.first_of(&whole);
        !next.is_none() && self.tree.capability(next).base < base.saturating_add(bytes)
    }

    /// Whether one object covers all of `base .. end`. O(log n).
    pub fn is_covered(&self, base: u64, end: u64) -> bool {
        let before = self.tree.last_starting_at(base);
        let Some(last) = end.checked_sub(1).filter(|last| base <= *last) else {
            return false;
        };
        !self.tree.last_reaching(before, last).is_none()
    }

    /// All capabilities whose ranges overlap `base .. end`, the last in the order first.
    /// O(log n) each.
    pub fn overlapping(&self, base: u64, end: u64) -> impl Iterator<Item = SlotId> {
        let last = match end.checked_sub(1) {
            Some(number) if base < end => self.tree.last_starting_at(number),
            _ => Link::NONE,
        };
        let first = self.tree.last_reaching(last, base);
        let found = core::iter::successors(Some(first), move |at| {
            (!at.is_none()).then(|| self.tree.last_reaching(self.tree.previous(*at), base))
        });
        found
            .take_while(|at| !at.is_none())
            .map(|at| self.tree.id(at))
    }

    /// The nodes from `first` on, as long as they fit.
    fn run(&self, first: Link, fits: impl Fn(&Capability) -> bool) -> impl Iterator<Item = SlotId> {
        let all = core::iter::successors(Some(first), |at| {
            (!at.is_none()).then(|| self.tree.next(*at))
        });
        all.take_while(move |at| !at.is_none() && fits(self.tree.capability(*at)))
            .map(|at| self.tree.id(at))
    }
}
