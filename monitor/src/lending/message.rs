//! What the monitors say to each other about memory that they lend, and how it looks on the wire.
//!
//! | message  | word 0   | 1     | 2     |
//! |----------|----------|-------|-------|
//! | Ask      | sequence | least | most  |
//! | Lent     | sequence | base  | pages |
//! | None     | sequence |       |       |
//! | Return   | sequence | base  |       |
//! | Returned | sequence |       |       |
//! | Clear    |          | base  | pages |
//! | Cleared  |          | base  |       |
//!
//! Word 0 has 32 bits of ours. Addresses are physical, and lengths are in pages.

use crate::kinds::{self, LENDING};

/// Messages between two monitors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// The sender wants to borrow.
    Ask {
        /// Its number there.
        sequence: u32,
        /// Pages without which it is of no use.
        least: u64,
        /// More than these are not wanted.
        most: u64,
    },
    /// This is the receiver's until it returns it.
    Lent {
        /// Of the ask.
        sequence: u32,
        /// Where it is.
        base: u64,
        /// How much.
        pages: u64,
    },
    /// The sender has not so much.
    None {
        /// Of the ask.
        sequence: u32,
    },
    /// The receiver has this back.
    Return {
        /// Of the ask.
        sequence: u32,
        /// Where it is.
        base: u64,
    },
    /// The sender has it back.
    Returned {
        /// Of the ask.
        sequence: u32,
    },
    /// The borrower of this died: say when no domain there uses any of it.
    Clear {
        /// Where it is.
        base: u64,
        /// How much.
        pages: u64,
    },
    /// None does.
    Cleared {
        /// Where it is.
        base: u64,
    },
}

impl Message {
    /// Kind and payload.
    pub fn encode(&self) -> (u16, [u64; 7]) {
        let (n, [sequence, a, b]) = match *self {
            Self::Ask {
                sequence,
                least,
                most,
            } => (0, [sequence.into(), least, most]),
            Self::Lent {
                sequence,
                base,
                pages,
            } => (1, [sequence.into(), base, pages]),
            Self::None { sequence } => (2, [sequence.into(), 0, 0]),
            Self::Return { sequence, base } => (3, [sequence.into(), base, 0]),
            Self::Returned { sequence } => (4, [sequence.into(), 0, 0]),
            Self::Clear { base, pages } => (5, [0, base, pages]),
            Self::Cleared { base } => (6, [0, base, 0]),
        };
        (kinds::kind(&LENDING, n), [sequence, a, b, 0, 0, 0, 0])
    }

    /// From kind and payload; `None` if that is none of these.
    pub fn decode(kind: u16, words: &[u64; 7]) -> Option<Self> {
        let [first, a, b, ..] = *words;
        let sequence = first as u32;
        Some(match kind.checked_sub(LENDING.start)? {
            0 => Self::Ask {
                sequence,
                least: a,
                most: b,
            },
            1 => Self::Lent {
                sequence,
                base: a,
                pages: b,
            },
            2 => Self::None { sequence },
            3 => Self::Return { sequence, base: a },
            4 => Self::Returned { sequence },
            5 => Self::Clear { base: a, pages: b },
            6 => Self::Cleared { base: a },
            _ => return None,
        })
    }
}
