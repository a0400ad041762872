//! Frames: memory that a domain shares with others.

use abi::layout::PAGE;
use core::sync::atomic::{AtomicU64, Ordering, fence};
use urpc::{Channel, Side, frame_bytes};

/// Memory shared with other domains, mapped in this one. Whoever has it may write to it at
/// any time, so it is only ever looked at through channels and atomic words.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    address: u64,
    bytes: u64,
    id: u64,
    /// 0 where it is not known.
    physical: u64,
}

impl Frame {
    /// The frame of this number, which is its physical address.
    pub(crate) fn new(address: u64, bytes: u64, id: u64) -> Self {
        Self {
            address,
            bytes,
            id,
            physical: id,
        }
    }

    /// The frame that this domain's parent shares with it.
    pub fn of_parent() -> Option<Self> {
        let start = crate::startup();
        (start.frame != 0).then(|| Self {
            physical: start.frame_physical,
            ..Self::new(start.frame, start.frame_bytes, 0)
        })
    }

    /// Bytes of it.
    pub fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// The number by which the monitor knows it; 0 for a parent's.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// One end of the channel with `slots` slots in each direction that lies at `offset`.
    ///
    /// Both domains name the same place and each another side; the memory must have been
    /// zero before, as it is in a new frame and after [`Frame::clear`].
    ///
    /// # Panics
    /// If the channel does not lie within the frame, aligned to 128 bytes.
    pub fn channel(&self, offset: usize, slots: usize, side: Side) -> Channel {
        let fits = offset
            .checked_add(frame_bytes(slots))
            .is_some_and(|end| end <= self.bytes());
        assert!(
            fits && offset.is_multiple_of(urpc::FRAME_ALIGNMENT),
            "a channel of {slots} slots at {offset} does not fit a frame of {} bytes",
            self.bytes
        );
        // SAFETY: frames stay mapped for the life of the domain, and all accesses to them
        // in this program go through channels and `clear`, which are atomic.
        let channel =
            unsafe { Channel::attach((self.address as usize + offset) as *mut u8, slots, side) };
        match self.physical {
            0 => channel,
            physical => channel.traced(physical + offset as u64, side),
        }
    }

    /// Zeroes the memory of a channel that neither end uses any more.
    ///
    /// # Panics
    /// If the range does not lie within the frame, in whole pages.
    pub fn clear(&self, offset: usize, bytes: usize) {
        let page = PAGE as usize;
        let fits = offset
            .checked_add(bytes)
            .is_some_and(|end| end <= self.bytes());
        assert!(
            fits && (offset | bytes).is_multiple_of(page),
            "whole pages of the frame"
        );
        for at in (offset..offset + bytes).step_by(8) {
            self.word(at / 8).store(0, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
    }

    /// The word with this index, which others may change at any time.
    ///
    /// # Panics
    /// If it does not lie within the frame.
    pub fn word(&self, index: usize) -> &'static AtomicU64 {
        assert!(
            index < self.bytes() / 8,
            "word {index} of a frame of {} bytes",
            self.bytes
        );
        let word = (self.address as usize + index * 8) as *const AtomicU64;
        // SAFETY: an aligned word of the frame, which stays mapped for the life of the domain; other
        // accesses to it are atomic too.
        unsafe { &*word }
    }
}
