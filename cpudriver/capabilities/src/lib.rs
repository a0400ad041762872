//! The capability derivation database: which capabilities there are, what each was made
//! from, and what goes when one is revoked. No hardware in it, and no kernel object: the
//! CPU driver supplies the memory of the slots ([`Slots`]) and is told what went
//! ([`Finalise`]).
//!
//! | module         | what it is                                                        |
//! |----------------|-------------------------------------------------------------------|
//! | [`capability`] | a capability: a kind, a range, rights, a badge                    |
//! | [`slot`]       | the 64 bytes that hold a capability and its links                 |
//! | `tree`         | the balanced tree through all slots                               |
//! | [`database`]   | insert, copy, mint, move                                          |
//! | [`retype`]     | making objects out of a range                                     |
//! | [`removal`]    | delete, revoke, and emptying what held capabilities               |
//! | [`query`]      | who else, what below, what is there                               |
//! | [`error`]      | why an operation did nothing                                      |
//!
//! # Objects, copies, badges
//!
//! Every resource is a number on one line ([`Resource`]): bytes of physical memory,
//! I/O ports, interrupt lines, vectors of cores. A capability covers a range of it. An
//! *object* is the tuple (base, bytes, depth); all capabilities with the same tuple are to
//! the same object and of the same kind. *Depth* is 0, but where an object was made of all
//! of another (`Ram` → `Ram` or `Ram` → `Frame` of the same range) it is one more than the
//! other's. A *badge* (not 0) is given at most once, by whoever holds a capability to the
//! object without one; it divides the capabilities to one object into lots that can be
//! revoked one by one.
//!
//! # Order and invariant
//!
//! The tree is ordered by (base ascending, bytes descending, depth ascending, badge
//! ascending); capabilities equal in all four stand together in no particular order.
//!
//! **Invariant.** Of two objects that overlap, one covers the other; and if their ranges
//! are equal, their depths differ.
//!
//! Then *x is an ancestor of y* exactly if x's range is greater than y's and covers it, or
//! the ranges are equal and x's depth is smaller. No parent is stored, because none is needed:
//!
//! * Derivation implies cover: [`retype`](Database::retype) checks the range, and depth
//!   counts up where ranges are equal.
//! * Cover implies derivation. Let y lie in x, and let the later of both be made by a
//!   retype of s. If y is the later and s were above x, then x would be a descendant of s
//!   that overlaps y: refused. So s is x or below it, and y derives from x. If x is the
//!   later, s covers it and so covers y, a descendant of s that overlaps x: refused. So
//!   this does not happen.
//! * Deleting an object, however many are made from it, cannot break either: the objects
//!   that remain have not changed, and what was below the one deleted is still covered
//!   by what was above it.
//! * What comes from outside ([`Database::insert`]: at boot, or from another core) is
//!   checked against the invariant itself. The tuple and the kind identify an object on
//!   every core alike.
//!
//! So the descendants of an object are the run that follows its capabilities in the order
//! and ends at the first base beyond its end; copies are neighbours; the last capability
//! to an object is the one without neighbours of the same object. Whether something typed
//! overlaps a range asks for one thing more, the greatest end in each subtree of the tree.
//!
//! # Cost
//!
//! n capabilities: each operation is O(log n), copy, move and delete of a copy amortised
//! O(1); a retype of m objects is O(m + log n), and m is bounded. Revoke of k capabilities is
//! O(k log n) in as many steps as the caller likes.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod capability;
pub mod database;
pub mod error;
pub mod query;
pub mod removal;
pub mod retype;
pub mod slot;
mod tree;

#[cfg(test)]
mod tests;

pub use abi::capability::{Kind, Resource, Rights};
pub use capability::Capability;
pub use database::{Caller, Database};
pub use error::Error;
pub use removal::{Deleted, Finalise, Progress};
pub use retype::Retype;
pub use slot::{SLOT_BYTES, Slot, SlotId, Slots};
