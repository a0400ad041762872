//! RAM of this domain: frames, page tables, CNodes and other objects made of it.
//!
//! The monitor gives RAM in pieces, each a capability. What is asked for is retyped from the
//! first piece with room; ranges that come back join their neighbours. The pieces stay with the
//! domain until it ends. Monitors have a pool of their own ([`crate::authority`]).

use crate::capability::{self, Address, Kind, Retype, slots};
use crate::{interface, monitor, system_call};
use abi::layout::PAGE;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use spin::Mutex;

/// Bytes of the first piece; each further one is twice as large, up to [`LARGEST_PIECE`].
const FIRST_PIECE: u64 = 64 * 1024;
/// Where pieces grow no more, unless something asks for more at once.
const LARGEST_PIECE: u64 = 1 << 20;

/// Why there is no memory for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The monitor gave none.
    NotGiven(interface::Error),
    /// The CPU driver refused to make the object, or there was no slot for it.
    Refused(system_call::Error),
}

impl From<interface::Error> for Error {
    fn from(error: interface::Error) -> Self {
        Self::NotGiven(error)
    }
}

impl From<system_call::Error> for Error {
    fn from(error: system_call::Error) -> Self {
        Self::Refused(error)
    }
}

impl From<Error> for system_call::Error {
    /// For who can tell of system calls only: too little memory is [`Self::TooMany`].
    fn from(error: Error) -> Self {
        match error {
            Error::NotGiven(_) => Self::TooMany,
            Error::Refused(error) => error,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotGiven(error) => write!(formatter, "the monitor gives no memory: {error}"),
            Self::Refused(error) => write!(formatter, "the CPU driver refuses: {error:?}"),
        }
    }
}

/// What a call for memory comes to.
pub type Result<T = ()> = core::result::Result<T, Error>;

/// Numbers that are free, in ranges: first fit, neighbours joined again.
#[derive(Debug)]
pub(crate) struct Ranges {
    /// In ascending order, none empty, never two that touch.
    free: Vec<Range<u64>>,
}

impl Ranges {
    pub(crate) const fn none() -> Self {
        Self { free: Vec::new() }
    }

    /// Takes so many numbers in a row, the first a multiple of `alignment`, a power of two.
    pub(crate) fn take(&mut self, count: u64, alignment: u64) -> Option<u64> {
        let fit = |range: &Range<u64>| {
            let first = range.start.checked_next_multiple_of(alignment)?;
            (first.checked_add(count)? <= range.end).then_some(first)
        };
        let (at, first) = self
            .free
            .iter()
            .enumerate()
            .find_map(|(at, range)| Some((at, fit(range)?)))?;
        let range = self.free[at].clone();
        let (before, after) = (range.start..first, first + count..range.end);
        match (before.is_empty(), after.is_empty()) {
            (true, true) => drop(self.free.remove(at)),
            (true, false) => self.free[at] = after,
            (false, true) => self.free[at] = before,
            (false, false) => {
                self.free[at] = before;
                self.free.insert(at + 1, after);
            }
        }
        Some(first)
    }

    /// Gives numbers back, or the first ones.
    pub(crate) fn give(&mut self, range: Range<u64>) {
        let at = self.free.partition_point(|other| other.start < range.start);
        let joins_next = self.free.get(at).is_some_and(|it| it.start == range.end);
        let before = at.checked_sub(1);
        let before = before.filter(|before| self.free[*before].end == range.start);
        match (before, joins_next) {
            (None, false) => self.free.insert(at, range),
            (None, true) => self.free[at].start = range.start,
            (Some(before), false) => self.free[before].end = range.end,
            (Some(before), true) => self.free[before].end = self.free.remove(at).end,
        }
    }

    /// Whether none of these numbers is free.
    fn are_taken(&self, range: &Range<u64>) -> bool {
        let at = self.free.partition_point(|other| other.end <= range.start);
        self.free.get(at).is_none_or(|it| it.start >= range.end)
    }
}

/// RAM from the monitor.
struct Piece {
    ram: Address,
    range: Range<u64>,
    free: Ranges,
}

static PIECES: Mutex<Vec<Piece>> = Mutex::new(Vec::new());

/// A range that was taken: its first physical address, the RAM it is in, where in it.
struct Place {
    base: u64,
    ram: Address,
    offset: u64,
}

fn take(bytes: u64, alignment: u64) -> Option<Place> {
    PIECES.lock().iter_mut().find_map(|piece| {
        let base = piece.free.take(bytes, alignment)?;
        Some(Place {
            base,
            ram: piece.ram,
            offset: base - piece.range.start,
        })
    })
}

fn give(base: u64, bytes: u64) {
    let mut pieces = PIECES.lock();
    let piece = pieces.iter_mut().find(|piece| piece.range.contains(&base));
    if let Some(piece) = piece {
        piece.free.give(base..base + bytes);
    }
}

/// Asks the monitor for a piece with room for this.
fn grow(bytes: u64, alignment: u64) -> Result {
    let slack = alignment.saturating_sub(PAGE);
    let needed = bytes.saturating_add(slack).checked_next_multiple_of(PAGE);
    let needed = needed.ok_or(interface::Error::NoMemory)?;
    let doublings = PIECES.lock().len().min(63) as u32;
    let usual = (FIRST_PIECE << doublings.min(16)).min(LARGEST_PIECE);
    let ram = slots::take()?;
    let mut asked = usual.max(needed);
    let given = loop {
        match monitor::ram(asked, ram) {
            // Less may do.
            Err(interface::Error::NoMemory) if asked > needed => asked = (asked / 2).max(needed),
            given => break given,
        }
    };
    if let Err(error) = given {
        slots::give(ram);
        return Err(error.into());
    }
    let identity = capability::identify(ram)?;
    let range = identity.base..identity.base + identity.bytes;
    let mut free = Ranges::none();
    free.give(range.clone());
    PIECES.lock().push(Piece { ram, range, free });
    Ok(())
}

/// Makes an object in an empty slot.
fn make(kind: Kind, bytes: u64, alignment: u64, destination: Address) -> Result {
    if !Kind::Ram.may_become(kind) {
        return Err(system_call::Error::WrongKind.into());
    }
    if !kind.accepts_size(bytes) {
        return Err(system_call::Error::WrongSize.into());
    }
    let alignment = alignment.max(kind.alignment(bytes));
    // Ranges that the CPU driver has not done with: emptying a CNode takes it a while.
    let mut in_use = Vec::new();
    let made = loop {
        let Some(place) = take(bytes, alignment) else {
            match grow(bytes, alignment) {
                Ok(()) => continue,
                Err(error) => break Err(error),
            }
        };
        let what = Retype {
            kind,
            offset: place.offset,
            bytes,
            count: 1,
        };
        match capability::retype(place.ram, &what, destination) {
            Ok(()) => break Ok(()),
            Err(system_call::Error::Overlap) => in_use.push(place.base),
            Err(error) => {
                give(place.base, bytes);
                break Err(error.into());
            }
        }
    };
    for base in in_use {
        give(base, bytes);
    }
    made
}

fn make_in_own_slot(kind: Kind, bytes: u64, alignment: u64) -> Result<Address> {
    let slot = slots::take()?;
    match make(kind, bytes, alignment, slot) {
        Ok(()) => Ok(slot),
        Err(error) => {
            slots::give(slot);
            Err(error)
        }
    }
}

/// Makes a zeroed frame of whole pages, in a slot that it takes.
pub fn frame(bytes: u64) -> Result<Address> {
    make_in_own_slot(Kind::Frame, bytes, PAGE)
}

/// The same at a physical address that is a multiple of `alignment`, a power of two: large
/// pages want that.
pub fn frame_aligned(bytes: u64, alignment: u64) -> Result<Address> {
    if !alignment.is_power_of_two() {
        return Err(system_call::Error::BadArgument.into());
    }
    make_in_own_slot(Kind::Frame, bytes, alignment)
}

/// Makes an object of a kind and size that the kind takes, in a slot that it takes.
pub fn object(kind: Kind, bytes: u64) -> Result<Address> {
    make_in_own_slot(kind, bytes, 1)
}

/// The same in an empty slot of the caller's choice.
pub fn object_at(kind: Kind, bytes: u64, destination: Address) -> Result {
    make(kind, bytes, 1, destination)
}

/// Gives an object of this module back: revokes it, deletes it, and gives its slot and its
/// memory back. [`system_call::Error::NotFound`]: it is no such object.
pub fn free(slot: Address) -> Result {
    let identity = capability::identify(slot)?;
    let range = identity.base..identity.base.saturating_add(identity.bytes);
    let is_ours = PIECES.lock().iter().any(|piece| {
        let holds = piece.range.start <= range.start && range.end <= piece.range.end;
        holds && piece.ram != slot && piece.free.are_taken(&range)
    });
    if !is_ours {
        return Err(system_call::Error::NotFound.into());
    }
    capability::revoke(slot)?;
    capability::delete(slot)?;
    slots::give(slot);
    give(identity.base, identity.bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_again() {
        let mut ranges = Ranges::none();
        ranges.give(0x1_0000..0x2_0000);
        let a = ranges.take(0x3000, 1).unwrap();
        let b = ranges.take(0x3000, 1).unwrap();
        let c = ranges.take(0xa000, 1).unwrap();
        assert_eq!((a, b, c), (0x1_0000, 0x1_3000, 0x1_6000));
        assert_eq!(ranges.take(1, 1), None);
        ranges.give(c..c + 0xa000);
        ranges.give(a..a + 0x3000);
        assert_eq!(ranges.take(0xb000, 1), None);
        assert!(ranges.are_taken(&(b..b + 0x3000)));
        assert!(!ranges.are_taken(&(b..b + 0x3001)));
        ranges.give(b..b + 0x3000);
        assert_eq!(ranges.take(0x1_0000, 0x1_0000), Some(0x1_0000));
    }

    #[test]
    fn alignment_leaves_what_comes_before() {
        let mut ranges = Ranges::none();
        ranges.give(0x1000..0x40_0000);
        assert_eq!(ranges.take(0x20_0000, 0x20_0000), Some(0x20_0000));
        assert_eq!(ranges.take(0x20_0000, 0x20_0000), None);
        assert_eq!(ranges.take(0x1f_f000, 0x1000), Some(0x1000));
        assert_eq!(ranges.take(1, 1), None);
        ranges.give(0x1000..0x20_0000);
        ranges.give(0x20_0000..0x40_0000);
        assert_eq!(ranges.free.len(), 1);
    }
}
