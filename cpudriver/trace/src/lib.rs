//! Traces: what the cores of a run did, record by record.
//!
//! Each core has one ring of records in its own RAM. CPU driver, monitor and domains of that core
//! write to it, and nobody else: the ring is mapped at one address in every address space of the
//! core, ring 3 included, so that a record takes a few stores and no call. A place in it is taken by
//! one `xadd` without `lock`, which is enough against interrupts of the same core. The host tool
//! reads the rings out of the guest's memory when the run is over.
//!
//! Who writes to the ring can spoil it, and nothing else: no part of the system reads it, and where it is
//! and how large, everybody knows from a page that ring 3 cannot write to. Without
//! `trace=` on the system's command line there is the control page, which says that everything is off, and
//! one page in place of the ring, for those who write to it all the same. All that is recorded is there for all domains of its core to read, the first words of messages
//! too: it is for studies.
//!
//! ```text
//!  TRACE            TRACE + 4096                                      FIXED
//!  ┌──────────────┬──────────────────────────────────────────────┐   ┌───────┐
//!  │ Control      │ Record 0 │ Record 1 │ …  capacity, 2^n        │ … │ Fixed │
//!  └──────────────┴──────────────────────────────────────────────┘   └───────┘
//! ```
//!
//! A *flow* names what belongs together on several cores: of a message, the channel and the
//! sequence number in it ([`message_flow`]); of an operation, its number ([`operation_flow`]). Both ends of a
//! channel work it out on their own.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod event;
mod recorder;

pub use recorder::{Recorder, Span, User};

use core::mem::offset_of;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Where the control page is in every address space of a core, readable and writable in ring 3; the
/// records lie behind it. An entry of the root page table for this alone.
pub const TRACE: u64 = 0xffff_a000_0000_0000;
/// Where what never changes of a ring is, see [`Fixed`]: ring 3 can read it, and no more.
pub const FIXED: u64 = TRACE + (256 << 20);
/// Bytes of the control page.
pub const CONTROL_BYTES: u64 = 4096;
/// Most records of a core: 2^22, which are 128 MiB.
pub const MAX_RECORDS: u64 = 1 << 22;

/// One record.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Record {
    /// Time-stamp counter of this core.
    pub tsc: u64,
    /// What it belongs to; 0: nothing.
    pub flow: u64,
    /// Argument; what it means, [`event::EVENTS`] says.
    pub value: u64,
    /// Event in bits 0 to 15; in bits 16 to 31 the [`lap`] of its place, written last: a record whose lap is
    /// another is half written, or was overwritten; in bits 32 to 63 the second argument.
    pub tail: u64,
}

impl Record {
    /// Puts one together.
    #[inline(always)]
    pub const fn tail(event: u16, lap: u16, detail: u32) -> u64 {
        event as u64 | (lap as u64) << 16 | (detail as u64) << 32
    }

    /// Which event.
    pub const fn event(&self) -> u16 {
        self.tail as u16
    }

    /// Lap of the ring that it was written in.
    pub const fn lap(&self) -> u16 {
        (self.tail >> 16) as u16
    }

    /// Second argument.
    pub const fn detail(&self) -> u32 {
        (self.tail >> 32) as u32
    }
}

/// Times that the ring had been filled when the record with this index was written, plus one (memory
/// that was never written is 0), modulo 2^16.
pub const fn lap(index: u64, capacity: u64) -> u16 {
    (index / capacity + 1) as u16
}

/// What never changes of a ring. Everybody who writes to it goes by this: the control page is there to be
/// spoiled, and whoever believed it could be led to write anywhere.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Fixed {
    /// Records of the ring, a power of two; 0: there is none.
    pub capacity: u64,
    /// Binary logarithm of the capacity; without a ring 0, as if it had one record, for which there is a page.
    pub shift: u64,
    /// The bits of an index that are the place in the ring.
    pub mask: u64,
}

impl Fixed {
    /// That of a ring of so many records: a power of two, or 0.
    pub const fn new(capacity: u64) -> Self {
        Self {
            capacity,
            shift: if capacity == 0 {
                0
            } else {
                capacity.trailing_zeros() as u64
            },
            mask: capacity.saturating_sub(1),
        }
    }
}

/// Bytes of control page and ring.
pub const fn bytes(records: u64) -> u64 {
    CONTROL_BYTES + records * size_of::<Record>() as u64
}

/// The control page of a core: what is recorded, and how much was.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Control {
    /// Groups that are recorded: bit [`event::group`] of an event. 0: off.
    pub enabled: u32,
    /// The event that does something next, in bits 0 to 15: [`Self::start`], then [`Self::stop`]. Bit 16
    /// ([`BEGUN`]): the first came, or none is to come.
    pub awaited: u32,
    /// Records of the ring, a power of two; 0: there is none, and nothing can be recorded.
    pub capacity: u64,
    /// Binary logarithm of the capacity.
    pub shift: u64,
    /// Index of the next record, from 0 on without end.
    pub next: u64,
    /// Event that starts the trace, and one that ends it; 0: none. Until the first, the ring goes on
    /// as a flight recorder, and the host tool cuts there; the first of the second that comes to the same ring
    /// after that stops this ring, and the host tool cuts there what others recorded.
    pub start: u32,
    /// As above.
    pub stop: u32,
    /// Messages that were sent and received while that was recorded.
    pub sent: u64,
    /// As above.
    pub received: u64,
    /// Number of the next operation that begins here.
    pub operation: u64,
}

/// In [`Control::awaited`]: what comes is the event that ends the trace.
pub const BEGUN: u32 = 1 << 16;

impl Control {
    /// What [`Self::awaited`] is at first, with these events to start and to end the trace.
    pub const fn awaiting(start: u32, stop: u32) -> u32 {
        match start as u16 {
            0 => stop as u16 as u32 | BEGUN,
            start => start as u32,
        }
    }
}

const _: () = assert!(size_of::<Record>() == 32);
const _: () = assert!(size_of::<Control>() == 64);
const _: () = assert!(offset_of!(Control, enabled) == 0);
const _: () = assert!(TRACE + bytes(MAX_RECORDS) <= FIXED);

/// Bits of a [`message_flow`] that count messages.
pub const SEQUENCE_BITS: u32 = 28;

/// Flow of the message with a sequence number on the ring whose first byte has this physical address.
/// Numbers come again after 2^28 messages, and channels in memory that was used before: so the host
/// tool matches the n-th send of a flow with its n-th receive.
#[inline(always)]
pub const fn message_flow(ring: u64, sequence: u64) -> u64 {
    (ring >> 6) << SEQUENCE_BITS | sequence & ((1 << SEQUENCE_BITS) - 1)
}

/// Flow of an operation: the core that it began on, and its number there.
#[inline(always)]
pub const fn operation_flow(core: u64, number: u64) -> u64 {
    1 << 63 | core << 48 | number & ((1 << 48) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_comes_apart_again() {
        let record = Record {
            tail: Record::tail(0x0602, 0xfffe, 0x8765_4321),
            ..Record::default()
        };
        assert_eq!(record.event(), 0x0602);
        assert_eq!(record.lap(), 0xfffe);
        assert_eq!(record.detail(), 0x8765_4321);
    }

    #[test]
    fn no_lap_is_that_of_memory_that_was_never_written() {
        assert_eq!(lap(0, 8), 1);
        assert_eq!(lap(7, 8), 1);
        assert_eq!(lap(8, 8), 2);
    }

    #[test]
    fn flows_of_channels_side_by_side_differ() {
        let flows = [
            message_flow(0x1000, 0),
            message_flow(0x1000, 1),
            message_flow(0x1040, 0),
            operation_flow(0, 0),
            operation_flow(1, 0),
        ];
        for (at, flow) in flows.iter().enumerate() {
            assert!(!flows[at + 1..].contains(flow));
        }
    }
}
