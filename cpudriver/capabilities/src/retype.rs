//! Retype: making objects out of a range.

use crate::capability::{Capability, Marks};
use crate::database::{Caller, Database};
use crate::error::Error;
use crate::slot::{Link, SLOT_BYTES, SlotId, Slots};
use abi::capability::Kind;
use abi::capability::Rights;

/// Most objects that one call makes.
pub const MAX_OBJECTS: u64 = 256;

/// Most slots that one call clears in the containers that it makes.
pub const MAX_CLEARED_SLOTS: u64 = 4096;

/// What is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retype {
    /// Kind of the objects.
    pub kind: Kind,
    /// Where the first starts, from the start of the source's range; the others follow
    /// without gaps.
    pub offset: u64,
    /// Length of each: bytes for memory, else ports, lines or vectors.
    pub bytes: u64,
    /// How many, 1 to [`MAX_OBJECTS`].
    pub count: u64,
}

impl<S: Slots> Database<S> {
    /// Makes objects out of the range of `source`, and puts the capabilities to them into
    /// `what.count` slots from `destination` on, which must be one container's. All or
    /// nothing. They have the rights of the source, and the right to revoke: whatever is
    /// to an object just made comes from who made it.
    ///
    /// The slots in the objects are empty afterwards; everything else in their memory is as
    /// it was, and the CPU driver's to clear.
    ///
    /// O(m + log n) for m objects.
    pub fn retype(
        &mut self,
        caller: Caller,
        source: SlotId,
        what: &Retype,
        destination: SlotId,
    ) -> Result<(), Error> {
        let (link, source) = self.occupant(source)?;
        let source = *source;
        let first = self.object_to_make(&source, what)?;
        let end = first.base + what.bytes * what.count;
        let destinations = self.empty(destination)?;
        for index in 1..what.count {
            self.empty(nth(destination, index)?)?;
        }
        if caller == Caller::User && self.object_is_shared(link) {
            return Err(Error::AskMonitor);
        }
        let mut position = self.free_range(&source, first.base, end)?;
        for index in 0..what.count {
            let mut object = first;
            object.base += index * what.bytes;
            if let Some((first, count)) = what.kind.slots(object.base, what.bytes) {
                self.tree.slots.clear(SlotId(first), count);
            }
            let link = Link(destinations.0 + index as u32);
            self.tree.insert_after(position, link, object);
            position = link;
        }
        Ok(())
    }

    /// Checks everything about a retype but what else there is, and returns the first
    /// capability that it makes.
    fn object_to_make(&self, source: &Capability, what: &Retype) -> Result<Capability, Error> {
        let Retype {
            kind, bytes, count, ..
        } = *what;
        if source.badge != 0 {
            return Err(Error::Badged);
        }
        if !source.kind.may_become(kind) {
            return Err(Error::WrongKind);
        }
        if !kind.accepts_size(bytes) {
            return Err(Error::WrongSize);
        }
        if !(1..=MAX_OBJECTS).contains(&count) {
            return Err(Error::WrongCount);
        }
        let whole = bytes.checked_mul(count).ok_or(Error::OutOfRange)?;
        let room = source.bytes.checked_sub(what.offset);
        if room.is_none_or(|room| room < whole) {
            return Err(Error::OutOfRange);
        }
        let base = source.base + what.offset;
        if !base.is_multiple_of(kind.alignment(bytes)) {
            return Err(Error::Misaligned);
        }
        if kind.is_kernel_object() && source.marks.contains(Marks::UNREACHABLE) {
            return Err(Error::Unreachable);
        }
        if let Some((_, slots)) = kind.slots(base, bytes) {
            if slots * count > MAX_CLEARED_SLOTS {
                return Err(Error::WrongCount);
            }
            // They must lie where slots can be named: the first object's and the last's.
            for base in [base, base + whole - bytes] {
                if !self.can_reach_slots(&Capability::original(kind, base, bytes)) {
                    return Err(Error::Unreachable);
                }
            }
        }
        let depth = if bytes == source.bytes {
            source.depth.checked_add(1).ok_or(Error::TooDeep)?
        } else {
            0
        };
        Ok(Capability {
            base,
            depth,
            rights: source.rights | Rights::REVOKE,
            marks: source.marks & Marks::UNREACHABLE,
            ..Capability::original(kind, base, bytes)
        })
    }

    /// Checks that nothing made from `source` overlaps a part of its range, and returns
    /// the last capability that stands before whatever starts there.
    fn free_range(&self, source: &Capability, base: u64, end: u64) -> Result<Link, Error> {
        let before = self.tree.last_starting_at(base);
        // The innermost object around `base`. The source is around it, so it is the
        // source or below it.
        let around = self.tree.last_reaching(before, base);
        if !self.tree.capability(around).same_object(source) {
            return Err(Error::Overlap);
        }
        let after = self.tree.next(before);
        if !after.is_none() && self.tree.capability(after).base < end {
            return Err(Error::Overlap);
        }
        Ok(before)
    }
}

/// The slot `index` slots after `first`.
fn nth(first: SlotId, index: u64) -> Result<SlotId, Error> {
    let address = first.0.checked_add(index * SLOT_BYTES);
    address.map(SlotId).ok_or(Error::BadSlot)
}
