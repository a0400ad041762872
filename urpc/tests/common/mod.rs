//! A frame on the heap for two ends, or an end and a vandal, of one process.
#![allow(dead_code, reason = "each test file uses its part")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use urpc::{Channel, FRAME_ALIGNMENT, Mapped, Message, Sequence, Side, frame_bytes};

/// Zeroed memory for a channel; lives until the last of its ends is gone.
#[derive(Clone)]
pub struct Frame(Arc<Allocation>);

struct Allocation {
    base: *mut u8,
    layout: Layout,
    slots: usize,
}

// SAFETY: the memory is accessed through atomic words only.
unsafe impl Send for Allocation {}
// SAFETY: as above.
unsafe impl Sync for Allocation {}

impl Drop for Allocation {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and nobody holds the frame any more.
        unsafe { dealloc(self.base, self.layout) }
    }
}

/// One end, and the frame that it must not outlive.
pub struct End {
    pub channel: Channel,
    _frame: Frame,
}

impl Frame {
    pub fn new(slots: usize) -> Self {
        let layout = Layout::from_size_align(frame_bytes(slots), FRAME_ALIGNMENT).unwrap();
        // SAFETY: the size is not zero.
        let base = unsafe { alloc_zeroed(layout) };
        if base.is_null() {
            handle_alloc_error(layout);
        }
        Self(Arc::new(Allocation {
            base,
            layout,
            slots,
        }))
    }

    pub fn attach(&self, side: Side) -> End {
        // SAFETY: zeroed, aligned, large enough; the end keeps the frame alive.
        let channel = unsafe { Channel::attach(self.0.base, self.0.slots, side) };
        End {
            channel,
            _frame: self.clone(),
        }
    }

    /// An end whose sequences begin at `first`, as both ends of a frame must.
    pub fn attach_at(&self, side: Side, first: Sequence) -> End {
        let Allocation { base, slots, .. } = *self.0;
        // SAFETY: as in `attach`.
        let (own, peer) = unsafe {
            (
                Mapped::new(base, slots, side),
                Mapped::new(base, slots, side.peer()),
            )
        };
        End {
            channel: Channel::over(own, peer, slots, first),
            _frame: self.clone(),
        }
    }

    /// All words of the frame.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: inside the allocation; everybody accesses it through atomic words.
        unsafe { std::slice::from_raw_parts(self.0.base.cast(), self.0.layout.size() / 8) }
    }

    /// The words that `side` writes.
    pub fn half(&self, side: Side) -> &[AtomicU64] {
        let (a, b) = self.words().split_at(self.words().len() / 2);
        match side {
            Side::A => a,
            Side::B => b,
        }
    }
}

/// The message that a test sends as number `number`: kind, length and payload follow from it.
pub fn message(number: u64) -> Message {
    let words: [u64; 7] = std::array::from_fn(|word| mix(number.wrapping_mul(8) + word as u64));
    let mut message = Message::from_bytes(number as u16, &[0; 56][..number as usize % 57]).unwrap();
    message.payload = words;
    message
}

/// SplitMix64: spreads a number over all bits.
pub fn mix(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// Seeded random numbers.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(mix(self.0))
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
