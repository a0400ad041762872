//! The memory of a channel: where each word lies, and all the unsafe code there is.
//!
//! [`Half`] is what a channel needs of the memory one side writes; [`Mapped`] provides it over
//! a frame that two domains map. [`Line`] and [`MappedLine`] are the same for a call line. Which ordering an access has is not decided here but in the
//! code above, so that a model checker's memory runs under the same orderings.
#![allow(unsafe_code)]

use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering, fence};

use crate::{PAYLOAD_WORDS, Sequence, Side};

/// Bytes of one slot: a pair of lines, of which the even one carries messages.
pub const SLOT_BYTES: usize = 128;

/// Least slots a direction: the odd lines of two carry words of the channel, and acknowledging
/// every quarter ring needs quarters.
pub const MIN_SLOTS: usize = 4;

/// Most slots a direction. Deeper rings fall out of the first-level cache and gain nothing.
pub const MAX_SLOTS: usize = 1024;

/// Alignment of a frame in bytes: that of a slot.
pub const FRAME_ALIGNMENT: usize = SLOT_BYTES;

/// Messages that a receiver fetches ahead of itself, on every receive: a line that the sender has
/// not come to yet is still this core's own from the last lap, so fetching it moves nothing.
///
/// Worth a third of the throughput of 64 slots, and nothing to 16 (host, million
/// messages a second with and without it, shared cache / two dies: 162 and 118 / 41 and 32).
/// Nine, since that many messages on lies the slot three back, in rings of up to 64 slots: no
/// other sum than one on the slot's own offset is needed. (Deeper rings fetch some other line.)
const PREFETCH_MESSAGES: u64 = 9;
const PREFETCH_BYTES_BACK: usize = 3 * SLOT_BYTES;

const _: () = assert!(
    (Sequence::nth(PREFETCH_MESSAGES).slot(64) * SLOT_BYTES + PREFETCH_BYTES_BACK)
        .is_multiple_of(64 * SLOT_BYTES)
);

/// Bytes of the frame of a channel with that many slots in each direction.
///
/// # Panics
/// If `slots` is not a power of two from [`MIN_SLOTS`] to [`MAX_SLOTS`].
#[must_use]
pub const fn frame_bytes(slots: usize) -> usize {
    assert!(
        slots.is_power_of_two() && slots >= MIN_SLOTS && slots <= MAX_SLOTS,
        "slots of a channel must be a power of two from 4 to 1024"
    );
    2 * slots * SLOT_BYTES
}

const _: () = assert!(
    frame_bytes(16) == 4096,
    "a channel of 16 slots fits one page"
);

/// Orders all earlier stores before all later loads, on both sides of the sleep handshake.
///
/// For ends of many channels that pay for one fence instead of one a channel: see
/// [`Channel::announce_sleep`](crate::Channel::announce_sleep).
#[inline]
pub fn full_fence() {
    fence(Ordering::SeqCst);
}

/// One shared word.
pub trait Word {
    /// Reads it.
    fn load(&self, ordering: Ordering) -> u64;
    /// Writes it. No word has two writers, so nothing stronger than a store is ever needed.
    fn store(&self, value: u64, ordering: Ordering);
}

impl Word for AtomicU64 {
    #[inline]
    fn load(&self, ordering: Ordering) -> u64 {
        self.load(ordering)
    }

    #[inline]
    fn store(&self, value: u64, ordering: Ordering) {
        self.store(value, ordering);
    }
}

/// One slot: the line of one message.
pub trait Slot {
    /// A shared word of this memory.
    type Word: Word;

    /// The word that says which message is here.
    fn control(&self) -> &Self::Word;
    /// Writes the payload, without any ordering.
    fn write_payload(&self, payload: &[u64; PAYLOAD_WORDS]);
    /// Reads the payload, without any ordering.
    fn read_payload(&self) -> [u64; PAYLOAD_WORDS];
}

/// One half of a frame: everything that one side writes and the other reads.
///
/// Programs use [`Mapped`]. The trait exists so that the code that runs can also be run over the
/// memory of a model checker. Fresh memory is zero throughout.
pub trait Half {
    /// A shared word of this memory.
    type Word: Word;
    /// A slot of this memory.
    type Slot: Slot<Word = Self::Word>;

    /// The slot on which `place` falls.
    fn slot(&self, place: Sequence) -> &Self::Slot;
    /// What tells the processor which slot a reader at `place` will read soon.
    fn prefetch_ahead(&self, place: Sequence) -> impl FnOnce() + use<Self>;
    /// The sequence up to which the writer of this half has received; 0 at first.
    fn acknowledged(&self) -> &Self::Word;
    /// Not 0 once the writer of this half has closed the channel.
    fn closed(&self) -> &Self::Word;
    /// What the writer of this half sleeps for: see [`crate::Wait`].
    fn asleep(&self) -> &Self::Word;
    /// Orders all earlier stores before all later loads.
    fn full_fence();
}

/// The memory of a [`CallLine`](crate::CallLine), which both ends write.
///
/// Programs use [`MappedLine`]; the trait exists for the sake of a model checker, as [`Half`] does.
/// Fresh memory is zero throughout.
pub trait Line {
    /// A shared word of this memory.
    type Word: Word;
    /// A slot of this memory.
    type Slot: Slot<Word = Self::Word>;

    /// The line of calls and replies.
    fn slot(&self) -> &Self::Slot;
    /// Not 0 once that side has closed the channel. Nobody else writes it.
    fn closed(&self, side: Side) -> &Self::Word;
}

/// A pair of lines, as drawn in the crate's documentation.
#[repr(C, align(128))]
pub struct LinePair {
    payload: [AtomicU64; PAYLOAD_WORDS],
    control: AtomicU64,
    odd: [AtomicU64; 8],
}

const _: () = assert!(size_of::<LinePair>() == SLOT_BYTES && offset_of!(LinePair, control) == 56);

const SLOT_SHIFT: u32 = SLOT_BYTES.trailing_zeros();

/// Half of a frame that two ends map.
///
/// Payload words are atomic with relaxed ordering, which compiles to the same plain moves as
/// ordinary words do on targets without vector registers: a peer that writes while we read then
/// is a wrong peer, not undefined behaviour. (A vector copy would be shorter where there is one;
/// but a vector load of words just stored one by one cannot be forwarded from the store buffer.)
pub struct Mapped {
    base: NonNull<LinePair>,
    /// The bits of a byte offset that choose the slot.
    offset_mask: usize,
    /// In place of the `asleep` word in the frame.
    asleep: Option<&'static AtomicU64>,
}

// SAFETY: all access goes through atomic words of memory that `new` demands be valid for as long
// as the value lives, on whatever thread.
unsafe impl Send for Mapped {}
// SAFETY: as above; shared references allow only atomic accesses too.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// The half of the frame at `base` that `writer` writes.
    ///
    /// # Safety
    /// See [`Channel::attach`](crate::Channel::attach).
    ///
    /// # Panics
    /// If `slots` is not a size that [`frame_bytes`] accepts, or `base` is null or not aligned.
    #[must_use]
    pub unsafe fn new(base: *mut u8, slots: usize, writer: Side) -> Self {
        let half_bytes = frame_bytes(slots) / 2;
        let offset = match writer {
            Side::A => 0,
            Side::B => half_bytes,
        };
        assert!(
            base.addr().is_multiple_of(FRAME_ALIGNMENT),
            "the frame of a channel must be aligned to 128 bytes"
        );
        // SAFETY: the caller vouches for `frame_bytes(slots)` bytes, of which this is inside.
        let base = unsafe { base.add(offset) };
        let base = NonNull::new(base.cast()).expect("the frame of a channel must not be null");
        Self {
            base,
            offset_mask: half_bytes - SLOT_BYTES,
            asleep: None,
        }
    }

    /// With an `asleep` word that is not in the frame, since its writer has one for many channels.
    pub(crate) fn sleeping_by(self, word: &'static AtomicU64) -> Self {
        let asleep = Some(word);
        Self { asleep, ..self }
    }

    #[inline]
    fn slot_at(&self, unreduced_offset: usize) -> &LinePair {
        // SAFETY: the mask leaves a multiple of SLOT_BYTES below the half's size, whatever the
        // offset; memory there is valid, aligned and only accessed atomically (see `new`).
        unsafe {
            self.base
                .byte_add(unreduced_offset & self.offset_mask)
                .as_ref()
        }
    }
}

impl Slot for LinePair {
    type Word = AtomicU64;

    #[inline]
    fn control(&self) -> &AtomicU64 {
        &self.control
    }

    #[inline]
    fn write_payload(&self, payload: &[u64; PAYLOAD_WORDS]) {
        for (shared, word) in self.payload.iter().zip(payload) {
            shared.store(*word, Ordering::Relaxed);
        }
    }

    #[inline]
    fn read_payload(&self) -> [u64; PAYLOAD_WORDS] {
        core::array::from_fn(|word| self.payload[word].load(Ordering::Relaxed))
    }
}

impl Half for Mapped {
    type Word = AtomicU64;
    type Slot = LinePair;

    #[inline]
    fn slot(&self, place: Sequence) -> &LinePair {
        self.slot_at(place.unreduced_offset(SLOT_SHIFT))
    }

    #[inline]
    fn prefetch_ahead(&self, place: Sequence) -> impl FnOnce() + use<> {
        let offset = place.unreduced_offset(SLOT_SHIFT) & self.offset_mask;
        let ahead = offset.wrapping_sub(PREFETCH_BYTES_BACK) & self.offset_mask;
        let base = self.base;
        move || {
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            #[allow(
                clippy::pointers_in_nomem_asm_block,
                reason = "a prefetch does not access memory"
            )]
            // SAFETY: a prefetch has no effect a program can observe. (Assembly, since the intrinsic
            // wants vector registers, which programs here need not have.)
            unsafe {
                core::arch::asm!(
                    "prefetcht0 [{} + {}]",
                    in(reg) base.as_ptr(),
                    in(reg) ahead,
                    options(nomem, nostack, preserves_flags)
                );
            }
            #[cfg(not(all(target_arch = "x86_64", not(miri))))]
            let _ = (base, ahead);
        }
    }

    #[inline]
    fn acknowledged(&self) -> &AtomicU64 {
        &self.slot_at(0).odd[0]
    }

    #[inline]
    fn closed(&self) -> &AtomicU64 {
        &self.slot_at(0).odd[1]
    }

    #[inline]
    fn asleep(&self) -> &AtomicU64 {
        match self.asleep {
            Some(word) => word,
            None => &self.slot_at(SLOT_BYTES).odd[0],
        }
    }

    #[inline]
    fn full_fence() {
        full_fence();
    }
}

/// A pair of lines that two ends map: a call line.
pub struct MappedLine(NonNull<LinePair>);

// SAFETY: all access goes through atomic words of memory that `new` demands be valid for as long
// as the value lives, on whatever thread.
unsafe impl Send for MappedLine {}
// SAFETY: as above; shared references allow only atomic accesses too.
unsafe impl Sync for MappedLine {}

impl MappedLine {
    /// The pair of lines at `base`.
    ///
    /// # Safety
    /// See [`CallLine::attach`](crate::CallLine::attach).
    ///
    /// # Panics
    /// If `base` is null or not aligned.
    #[must_use]
    pub unsafe fn new(base: *mut u8) -> Self {
        assert!(
            base.addr().is_multiple_of(FRAME_ALIGNMENT),
            "a call line must be aligned to 128 bytes"
        );
        Self(NonNull::new(base.cast()).expect("a call line must not be null"))
    }

    #[inline]
    fn pair(&self) -> &LinePair {
        // SAFETY: valid, aligned and only accessed atomically (see `new`).
        unsafe { self.0.as_ref() }
    }
}

impl Line for MappedLine {
    type Word = AtomicU64;
    type Slot = LinePair;

    #[inline]
    fn slot(&self) -> &LinePair {
        self.pair()
    }

    #[inline]
    fn closed(&self, side: Side) -> &AtomicU64 {
        &self.pair().odd[side as usize]
    }
}
