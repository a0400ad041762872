//! The control word: which message of the endless sequence a line holds, and its head.

use crate::message::HEAD_MASK;

/// What a step must be multiplied by to make one, of 32 bits: Newton's method doubles the bits that are right.
const INVERSE: u32 = {
    let step = (STEP >> SHIFT) as u32;
    let mut inverse = step; // right in three bits, as for every odd number
    let mut bits = 3;
    while bits < u32::BITS {
        inverse = inverse.wrapping_mul(2u32.wrapping_sub(step.wrapping_mul(inverse)));
        bits *= 2;
    }
    inverse
};

/// A place in the endless sequence of messages of one direction, in the form in which it stands
/// in control words, so that neither end shifts or multiplies to compare it.
///
/// Sequences are compared for equality and subtracted over distances of at most one lap;
/// everything wraps, after 2^40 messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence(u64);

/// Set in every control word, so that zeroed memory holds no message of any sequence.
const PRESENT: u64 = 1 << 23;

/// Bit at which the sequence stands.
const SHIFT: u32 = 24;

/// What one message adds. The factor is odd, hence visits all slots of a power of two before it
/// comes back, and scatters neighbours in time over the ring.
const STEP: u64 = 21 << SHIFT;

impl Sequence {
    /// The first message of a channel.
    pub const FIRST: Self = Self(PRESENT);

    /// The place `messages` after the first one.
    #[must_use]
    pub const fn nth(messages: u64) -> Self {
        Self::FIRST.plus(messages)
    }

    /// The number below `slots` (a power of two) of the slot that this place falls on.
    #[inline]
    #[must_use]
    pub const fn slot(self, slots: usize) -> usize {
        (self.0 >> SHIFT) as usize & (slots - 1)
    }

    /// The byte offset of that slot for slots of `1 << shift` bytes, before it is reduced to the
    /// size of the ring.
    #[inline]
    pub(crate) const fn unreduced_offset(self, shift: u32) -> usize {
        (self.0 >> (SHIFT - shift)) as usize
    }

    /// The place one message on.
    #[inline]
    pub(crate) const fn next(self) -> Self {
        Self(self.0.wrapping_add(STEP))
    }

    /// Messages before this place, modulo 2^28: the inverse of [`Self::nth`].
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u64 {
        let number = ((self.0 >> SHIFT) as u32).wrapping_mul(INVERSE);
        (number & ((1 << 28) - 1)) as u64
    }

    /// The place `messages` on.
    #[inline]
    pub(crate) const fn plus(self, messages: u64) -> Self {
        Self(self.0.wrapping_add(STEP.wrapping_mul(messages)))
    }

    /// Messages from `earlier`, which lies at most a lap back, to here.
    pub(crate) const fn since(self, earlier: Self) -> u64 {
        self.0.wrapping_sub(earlier.0) / STEP
    }

    /// Whether more than `messages` lie between `earlier`, which is at most a lap back, and here.
    #[inline]
    pub(crate) const fn is_beyond(self, earlier: Self, messages: u64) -> bool {
        self.0.wrapping_sub(earlier.0) > STEP.wrapping_mul(messages)
    }

    /// The control word of the message at this place: the inverse of [`Self::head_of`]. (A sum
    /// of what has no bit in common, which is one instruction where a union is two.)
    #[inline]
    pub(crate) const fn control(self, head: u64) -> u64 {
        self.0.wrapping_add(head)
    }

    /// What is left of a control word once this place is taken out: a head if the word belongs
    /// to this place, else a number above all heads.
    #[inline]
    pub(crate) const fn head_of(self, control: u64) -> u64 {
        control.wrapping_sub(self.0)
    }

    /// Whether a control word belongs to this place, whatever its head.
    pub(crate) const fn owns(self, control: u64) -> bool {
        self.head_of(control) <= HEAD_MASK
    }

    /// This place as the word by which a receiver acknowledges all before it. Never zero.
    pub(crate) const fn to_word(self) -> u64 {
        self.0
    }

    /// The place that an acknowledging word names, if it lies from `first` to `last`.
    pub(crate) const fn from_word(word: u64, first: Self, last: Self) -> Option<Self> {
        let advance = word.wrapping_sub(first.0);
        if advance <= last.0.wrapping_sub(first.0) && advance.is_multiple_of(STEP) {
            Some(Self(word))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_know_their_number() {
        for number in [0, 1, 2, 20, 21, 22, 1 << 27, (1 << 28) - 1] {
            assert_eq!(Sequence::nth(number).number(), number);
        }
        assert_eq!(Sequence::nth((1 << 28) + 3).number(), 3);
        assert_eq!(Sequence::nth((1 << 40) + 5).number(), 5);
    }
}
