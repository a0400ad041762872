//! Which word of a channel a byte of its frame belongs to: for who looks at the memory from outside.

use crate::{SLOT_BYTES, Side, frame_bytes};

/// What a word of a channel's frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// Payload or control word of the slot of this number.
    Message(usize),
    /// How far the writer has received.
    Acknowledged,
    /// Whether the writer has closed the channel.
    Closed,
    /// What the writer sleeps for.
    Asleep,
    /// Nothing.
    Unused,
}

/// What the byte at `offset` in the frame of a channel with that many slots is for, and which side
/// writes it; `None`: it lies behind the frame.
///
/// # Panics
/// If `slots` is not a size that [`frame_bytes`] accepts.
#[must_use]
pub const fn field_at(slots: usize, offset: usize) -> Option<(Side, Field)> {
    let bytes = frame_bytes(slots);
    if offset >= bytes {
        return None;
    }
    let side = if offset < bytes / 2 { Side::A } else { Side::B };
    let slot = offset % (bytes / 2) / SLOT_BYTES;
    let field = match (slot, offset % SLOT_BYTES) {
        (_, 0..64) => Field::Message(slot),
        (0, 64..72) => Field::Acknowledged,
        (0, 72..80) => Field::Closed,
        (1, 64..72) => Field::Asleep,
        _ => Field::Unused,
    };
    Some((side, field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Half, LinePair, Mapped, PAYLOAD_WORDS, Sequence, Slot};
    use core::mem::MaybeUninit;
    use core::sync::atomic::AtomicU64;

    /// Each word of a frame is for what the code that runs takes it for.
    #[test]
    #[allow(unsafe_code)]
    fn words_are_where_the_channel_has_them() {
        const MOST: usize = 64;
        #[repr(align(128))]
        struct Frame(MaybeUninit<[u8; frame_bytes(MOST)]>);
        let mut frame = Frame(MaybeUninit::zeroed());
        let base = frame.0.as_mut_ptr().cast::<u8>();
        for slots in [4, 16, MOST] {
            let mut seen = 0;
            for side in [Side::A, Side::B] {
                // SAFETY: zeroed, aligned, and longer than the frame of so many slots.
                let half = unsafe { Mapped::new(base, slots, side) };
                let mut expect = |address: usize, field| {
                    let offset = address - base.addr();
                    for byte in offset..offset + 8 {
                        assert_eq!(field_at(slots, byte), Some((side, field)), "byte {byte}");
                    }
                    seen += 8;
                };
                let word = |word: &AtomicU64| core::ptr::from_ref(word).addr();
                expect(word(half.acknowledged()), Field::Acknowledged);
                expect(word(half.closed()), Field::Closed);
                expect(word(half.asleep()), Field::Asleep);
                for number in 0..slots as u64 {
                    let place = Sequence::nth(number);
                    let field = Field::Message(place.slot(slots));
                    let slot: &LinePair = half.slot(place);
                    let first = core::ptr::from_ref(slot).addr();
                    for index in 0..PAYLOAD_WORDS {
                        expect(first + 8 * index, field);
                    }
                    expect(word(slot.control()), field);
                }
            }
            let all = 0..frame_bytes(slots);
            let used = all.filter(|byte| {
                field_at(slots, *byte).is_some_and(|(_, field)| field != Field::Unused)
            });
            assert_eq!(used.count(), seen);
            assert_eq!(field_at(slots, frame_bytes(slots)), None);
        }
    }
}
