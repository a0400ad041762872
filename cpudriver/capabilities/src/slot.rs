//! The 64 bytes that hold a capability and its links.

use crate::capability::Capability;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

pub use abi::capability::SLOT_BYTES;

/// Names a slot by its physical address; 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(pub u64);

/// A slot. All zeros: empty.
///
/// ```text
///   0  capability: base, bytes, badge, attachment (8 each), detail (4), kind, rights, marks, depth
///  40  greatest end in the subtree (8)
///  48  children (2 × 4), parent (4), rank (1), unused (3)
/// ```
#[derive(Clone, Copy, Debug, FromZeros, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Slot {
    pub(crate) capability: Capability,
    /// Greatest end of a range in the subtree below and including this slot.
    pub(crate) reach: u64,
    /// Lower neighbour side, higher neighbour side.
    pub(crate) children: [Link; 2],
    pub(crate) parent: Link,
    /// 1 for a leaf; a missing child counts as 0.
    pub(crate) rank: u8,
    pub(crate) unused: [u8; 3],
}

const _: () = assert!(size_of::<Slot>() as u64 == SLOT_BYTES);

impl Slot {
    /// An empty slot.
    pub const EMPTY: Self = Self {
        capability: Capability::NULL,
        reach: 0,
        children: [Link::NONE; 2],
        parent: Link::NONE,
        rank: 0,
        unused: [0; 3],
    };
}

/// A slot as other slots name it: its distance from the database's origin, in slots. Half
/// the size of an address, and still enough for 256 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub(crate) struct Link(pub u32);

impl Link {
    pub const NONE: Self = Self(0);

    #[inline]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// The memory of slots.
///
/// The database asks only for slots in containers that it holds a capability to, and for
/// slots that its caller named. The caller's part is to name only slots of containers that
/// it has a capability to, and never the first of one, which is the database's own.
pub trait Slots {
    /// The slot with this name.
    fn slot(&self, id: SlotId) -> &Slot;
    /// The slot with this name, for writing.
    fn slot_mut(&mut self, id: SlotId) -> &mut Slot;
    /// Makes `count` empty slots from `first` on out of memory that may hold anything.
    fn clear(&mut self, first: SlotId, count: u64);
}
