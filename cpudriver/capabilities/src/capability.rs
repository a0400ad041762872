//! A capability: a kind, a range, rights, a badge.

use abi::capability::{Kind, Rights};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// What is special about a capability.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct Marks(u8);

bitflags::bitflags! {
    impl Marks: u8 {
        /// Memory that the CPU driver does not map. What is made from it bears the mark too.
        const UNREACHABLE = 1;
        /// Other cores have capabilities to this object, or to what was made from it. The
        /// first capability to the object in the order bears the mark for all of them.
        const SHARED = 2;
        /// The last capability to this object went, but its slots are not empty yet.
        const DOOMED = 4;
    }
}

/// A capability. 40 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Capability {
    /// Where its range starts on the line of [`crate::Resource`]s; for memory a physical
    /// address.
    pub base: u64,
    /// Length of its range: bytes for memory, else ports, lines or vectors.
    pub bytes: u64,
    /// Its badge; 0: none.
    pub badge: u64,
    /// Belongs to the CPU driver and to this one capability: 0 in every copy, and kept by
    /// a move. Meant for where a frame or a page table is mapped: physical address of the
    /// table and index of the first entry in its low twelve bits.
    pub attachment: u64,
    /// More of the same: how many entries, and which life of the table.
    pub attachment_detail: u32,
    /// What it is to.
    pub kind: Kind,
    /// What its holder may do.
    pub rights: Rights,
    /// What is special about it.
    pub marks: Marks,
    /// How many objects of the same range this one was made from.
    pub depth: u8,
}

impl Capability {
    /// No capability.
    pub const NULL: Self = Self {
        base: 0,
        bytes: 0,
        badge: 0,
        attachment: 0,
        attachment_detail: 0,
        kind: Kind::Null,
        rights: Rights::empty(),
        marks: Marks::empty(),
        depth: 0,
    };

    /// A capability with all rights to what was not made from anything.
    pub const fn original(kind: Kind, base: u64, bytes: u64) -> Self {
        Self {
            base,
            bytes,
            kind,
            rights: Rights::all(),
            ..Self::NULL
        }
    }

    /// Whether it is none.
    #[inline]
    pub const fn is_null(&self) -> bool {
        matches!(self.kind, Kind::Null)
    }

    /// First number beyond its range. Does not overflow for what a database holds.
    #[inline]
    pub const fn end(&self) -> u64 {
        self.base + self.bytes
    }

    /// Whether both are to the same object.
    #[inline]
    pub const fn same_object(&self, other: &Self) -> bool {
        self.base == other.base && self.bytes == other.bytes && self.depth == other.depth
    }

    /// Whether this is to an ancestor of the other's object. Right for two capabilities of
    /// one database: see the crate's invariant.
    #[inline]
    pub const fn is_ancestor_of(&self, other: &Self) -> bool {
        self.base <= other.base
            && other.end() <= self.end()
            && (self.bytes > other.bytes || self.depth < other.depth)
    }

    /// The same without what belongs to one capability alone.
    pub(crate) const fn duplicate(&self) -> Self {
        Self {
            attachment: 0,
            attachment_detail: 0,
            marks: self.marks.difference(Marks::SHARED),
            ..*self
        }
    }
}
