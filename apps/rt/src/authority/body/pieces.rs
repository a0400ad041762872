//! Memory that comes and goes while a domain runs: its part in a span.
//!
//! It is mapped piece by piece, each by a capability of its own, which the domain never has: when
//! that goes, so does the mapping, and the CPU driver flushes the TLB. A piece lies within one page
//! table. Where a part of one has to go, all of it goes, and the rest is mapped anew; no instruction
//! of the domain can come in between, as it is of the monitor's core.

use super::super::space::{Mapping, pieces};
use super::super::store::{SharedRam, Store};
use super::super::{Error, ask};
use super::{Body, USE};
use crate::capability::{self, Address, Kind};
use abi::capability::monitor::CORES;
use abi::layout::PAGE;
use abi::syscall::{self, PAGED_RANGES, property, rights};
use alloc::vec::Vec;
use core::ops::Range;

/// Most pieces of one domain: beyond that, others give way. All that a monitor has of slots must do
/// for all domains.
const MAX_PIECES: usize = 256;

/// What of an address space is mapped as it is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paged {
    /// Its part of a span.
    Span,
    /// Its heap: see [`Body::touch_heap`].
    Heap,
}

const _: () = assert!((Paged::Heap as usize) < PAGED_RANGES);

/// What is mapped by one capability.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// Where the capability is.
    slot: Address,
    pages: u64,
    physical: u64,
    is_writable: bool,
    /// The frame that it is a part of, if that is of this core's RAM, and its physical address.
    own: Option<(Address, u64)>,
}

impl Piece {
    /// The pages of it between two addresses; it starts at the first of these three.
    fn part(&self, at: u64, from: u64, to: u64) -> Option<(u64, Self)> {
        let (from, to) = (from.max(at), to.min(at + self.pages * PAGE));
        let part = Self {
            pages: to.checked_sub(from)? / PAGE,
            physical: self.physical + (from - at),
            ..*self
        };
        (part.pages > 0).then_some((from, part))
    }
}

impl Body {
    /// From now on, page faults at these addresses are for the monitor: see [`property::PAGED`].
    pub fn set_paged(&self, part: Paged, range: Range<u64>) -> Result<(), Error> {
        let arguments = [
            self.dispatcher.0,
            property::PAGED,
            range.start,
            range.end,
            part as u64,
            0,
        ];
        ask(syscall::CONFIGURE, arguments)?;
        Ok(())
    }

    /// Maps physical memory at an address, in place of what is there: of this core's frame, or of
    /// another core's where there is none. After an error, a part may be mapped.
    pub fn enter(
        &mut self,
        store: &mut Store,
        (address, pages): (u64, u64),
        physical: u64,
        is_writable: bool,
        own: Option<&SharedRam>,
    ) -> Result<(), Error> {
        self.take_out(store, address, pages);
        let own = own.map(|frame| (frame.capability, frame.base()));
        for (at, offset, pages) in pieces(address, pages) {
            let piece = Piece {
                slot: Address(0),
                pages,
                physical: physical + offset,
                is_writable,
                own,
            };
            self.enter_piece(store, at, piece)?;
        }
        Ok(())
    }

    /// Unmaps pages.
    pub fn take_out(&mut self, store: &mut Store, address: u64, pages: u64) {
        self.cut(store, address, pages, |_| None);
    }

    /// Leaves pages no right to write.
    pub fn make_read_only(&mut self, store: &mut Store, address: u64, pages: u64) {
        self.cut(store, address, pages, |piece| {
            Some(Piece {
                is_writable: false,
                ..piece
            })
        });
    }

    /// Whether an address is mapped, for writing if that is asked.
    pub fn has(&self, address: u64, is_write: bool) -> bool {
        let before = self.pieces.range(..=address).next_back();
        before.is_some_and(|(at, piece)| {
            address < at + piece.pages * PAGE && (piece.is_writable || !is_write)
        })
    }

    /// Unmaps pages, and maps of them what `instead` makes of it. What cannot be mapped again for
    /// lack of memory is not: it is touched again, and entered then.
    fn cut(
        &mut self,
        store: &mut Store,
        address: u64,
        pages: u64,
        instead: impl Fn(Piece) -> Option<Piece>,
    ) {
        let end = address + pages * PAGE;
        let before = self.pieces.range(..end).rev();
        let inside = before.take_while(|(at, piece)| *at + piece.pages * PAGE > address);
        let inside: Vec<(u64, Piece)> = inside.map(|(at, piece)| (*at, *piece)).collect();
        for (at, piece) in inside {
            let middle = piece.part(at, address, end);
            let new = middle.and_then(|(at, part)| Some((at, instead(part)?)));
            if new.is_some() && !piece.is_writable || self.pieces.remove(&at).is_none() {
                continue; // it is like that already, or gave way to another one
            }
            store.discard(piece.slot);
            let rest = [
                piece.part(at, at, address),
                new,
                piece.part(at, end, u64::MAX),
            ];
            for (at, piece) in rest.into_iter().flatten() {
                let _ = self.enter_piece(store, at, piece);
            }
        }
    }

    /// Maps one piece.
    fn enter_piece(&mut self, store: &mut Store, at: u64, mut piece: Piece) -> Result<(), Error> {
        while self.pieces.len() >= MAX_PIECES {
            self.evict(store);
        }
        let slot = store.slot()?;
        piece.slot = slot;
        let bytes = piece.pages * PAGE;
        let (made, offset) = match piece.own {
            Some((frame, base)) => (capability::mint(frame, slot, USE, 0), piece.physical - base),
            None => (
                capability::insert(CORES, slot, Kind::Frame, USE, piece.physical, bytes),
                0,
            ),
        };
        let mapping = Mapping {
            address: at,
            frame: slot,
            offset,
            pages: piece.pages,
            level: 1,
            rights: if piece.is_writable {
                rights::WRITE
            } else {
                rights::READ
            },
        };
        let mapped = made
            .map_err(Error::from)
            .and_then(|()| self.map_held(store, &mapping));
        match mapped {
            Ok(()) => {
                self.pieces.insert(at, piece);
            }
            Err(_) => store.discard(slot),
        }
        mapped
    }

    /// Unmaps some piece, each in its turn.
    fn evict(&mut self, store: &mut Store) {
        let next = self.pieces.range(self.evicted + 1..).next();
        let victim = next.or_else(|| self.pieces.iter().next());
        if let Some((at, piece)) = victim.map(|(at, piece)| (*at, *piece)) {
            self.evicted = at;
            self.pieces.remove(&at);
            store.discard(piece.slot);
        }
    }

    /// Gives back all pieces, with the domain.
    pub(super) fn drop_pieces(&mut self, store: &mut Store) {
        for piece in core::mem::take(&mut self.pieces).into_values() {
            store.discard(piece.slot);
        }
    }
}
