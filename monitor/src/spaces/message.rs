//! What cores say to each other about address spaces.

use crate::core_set::{CoreSet, WORDS};
use crate::round::{self, Payload};

/// Bits of a page's number, of a number of pages, of a frame's number, and of a space's.
const PAGE_BITS: u32 = 36;
pub(super) const COUNT_BITS: u32 = 28;
pub(super) const FRAME_BITS: u32 = 40;
pub(super) const SPACE_BITS: u32 = 40;

/// Names an address space in the whole machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpaceId(pub(super) u64);

impl SpaceId {
    /// `number`: of the lower 24 bits, not used before on this core, whatever became of it since.
    pub fn new(core: usize, number: u32) -> Self {
        Self((core as u64 & 0xffff) << 24 | u64::from(number) & 0xff_ffff)
    }

    /// As a word for messages.
    pub fn word(self) -> u64 {
        self.0
    }

    /// From that word.
    pub fn from_word(word: u64) -> Self {
        Self(word & ((1 << SPACE_BITS) - 1))
    }
}

/// A range of virtual pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pages {
    /// Number of the first: its address / 4096.
    pub first: u64,
    /// How many.
    pub count: u64,
}

impl Pages {
    /// The whole space; it goes into no message.
    pub const ALL: Self = Self {
        first: 0,
        count: 1 << PAGE_BITS,
    };

    /// One page.
    pub fn one(page: u64) -> Self {
        Self {
            first: page,
            count: 1,
        }
    }

    pub(super) fn end(self) -> u64 {
        self.first + self.count
    }

    /// Whether a page is in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.first < other.end() && other.first < self.end()
    }

    /// Whether this can be mapped, and told in a message.
    pub(super) fn is_sound(self) -> bool {
        let is_small = self.first < 1 << PAGE_BITS && self.count < 1 << COUNT_BITS;
        is_small && self.count > 0 && self.end() <= 1 << PAGE_BITS
    }

    pub(super) fn word(self) -> u64 {
        self.first << COUNT_BITS | self.count & ((1 << COUNT_BITS) - 1)
    }

    pub(super) fn from_word(word: u64) -> Option<Self> {
        let pages = Self {
            first: word >> COUNT_BITS,
            count: word & ((1 << COUNT_BITS) - 1),
        };
        pages.is_sound().then_some(pages)
    }
}

/// What may be done with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rights(pub(super) u8);

impl Rights {
    /// Nothing: not mapped.
    pub const NONE: Self = Self(0);
    /// Read.
    pub const READ: Self = Self(1);
    /// Write.
    pub const WRITE: Self = Self(2);
    /// Execute.
    pub const EXECUTE: Self = Self(4);

    /// These and others.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These as far as others have them too.
    #[must_use]
    pub fn only(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether all of the others are among these.
    pub fn include(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    pub(super) fn from_bits(bits: u64) -> Option<Self> {
        (bits < 8).then_some(Self(bits as u8))
    }
}

/// Pages, the frames behind them, and the rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mapping {
    /// The pages.
    pub pages: Pages,
    /// Number of the first frame: its physical address / 4096. The others follow it.
    pub frame: u64,
    /// The rights.
    pub rights: Rights,
}

impl Mapping {
    /// One page of it, which must be in it.
    pub(super) fn only(self, page: u64) -> Self {
        Self {
            pages: Pages::one(page),
            frame: self.frame + page.saturating_sub(self.pages.first),
            rights: self.rights,
        }
    }

    /// Whether this is some of the other one: the same frames at the same pages.
    pub(super) fn is_part_of(self, whole: Self) -> bool {
        let is_within =
            self.pages.first >= whole.pages.first && self.pages.end() <= whole.pages.end();
        let offset = self.pages.first.wrapping_sub(whole.pages.first);
        is_within && self.frame.wrapping_sub(whole.frame) == offset
    }

    pub(super) fn is_sound(self) -> bool {
        let frames_end = self.frame.saturating_add(self.pages.count);
        let fits = frames_end <= 1 << FRAME_BITS && self.rights != Rights::NONE;
        fits && self.pages.is_sound()
    }
}

/// Why something was not done. The table of the space is as before, but for [`Error::Lost`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Error {
    /// No such space here.
    NoSuchSpace = 1,
    /// This core is not in the span.
    NotMember,
    /// Something is mapped there.
    Exists,
    /// Nothing is mapped there.
    NotMapped,
    /// The page may not be used so.
    NotAllowed,
    /// Too much is under way, or an unmap of the same pages from the same core.
    Busy,
    /// The home stopped, and nothing is mapped now. It may have been in between.
    Lost,
    /// That core is not in the view.
    NoSuchCore,
    /// The table is full.
    Full,
    /// The arguments make no sense.
    Invalid,
}

impl Error {
    pub(super) fn from_code(code: u64) -> Option<Self> {
        [
            Self::NoSuchSpace,
            Self::NotMember,
            Self::Exists,
            Self::NotMapped,
            Self::NotAllowed,
            Self::Busy,
            Self::Lost,
            Self::NoSuchCore,
            Self::Full,
            Self::Invalid,
        ]
        .into_iter()
        .find(|error| *error as u64 == code)
    }
}

/// What a core asks of the home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ask {
    /// Note this as mapped, and grant it.
    Map {
        /// What.
        mapping: Mapping,
        /// It may have been done already: it is granted if something of it is there, and not done
        /// any more.
        again: bool,
    },
    /// Leave the pages no more than these rights, everywhere. The sender has done so.
    Restrict {
        /// The pages.
        pages: Pages,
        /// The rights; none is an unmap.
        rights: Rights,
    },
    /// Grant what is mapped there.
    Fetch {
        /// The page.
        page: u64,
    },
    /// Take this core into the span.
    Join {
        /// The core.
        core: usize,
    },
    /// Take the sender out of the span.
    Leave,
    /// Tell all the span, with the sender in it. Not in messages: a report asks for it.
    Settle,
}

impl Ask {
    /// Whether it changes nothing but who holds what is mapped: asked again, it is done again.
    pub(super) fn is_repeatable(self) -> bool {
        matches!(self, Self::Map { again: true, .. } | Self::Fetch { .. })
    }
}

/// What the home answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// It is done.
    Done,
    /// It is done, and the sender may install this.
    Grant(Mapping),
    /// It is not done.
    Failed(Error),
}

/// Messages between two monitors.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// To the home.
    Ask {
        /// The sender's number for it.
        sequence: u32,
        /// The space.
        space: SpaceId,
        /// What is asked.
        ask: Ask,
    },
    /// From the home.
    Answer {
        /// The number it was asked by.
        sequence: u32,
        /// The answer.
        answer: Answer,
    },
    /// Between home and holders.
    Round(round::Message),
    /// To a new home: the sender's replica has this.
    Holding {
        /// The space.
        space: SpaceId,
        /// What.
        mapping: Mapping,
    },
    /// To a new home: that was all.
    Reported {
        /// The space.
        space: SpaceId,
        /// The span as the sender knows it, itself in it.
        span: CoreSet,
    },
    /// From a new home to a core that is in the span for all that somebody knows.
    Query {
        /// The space.
        space: SpaceId,
    },
    /// To a new home: the sender has no replica.
    Absent {
        /// The space.
        space: SpaceId,
    },
}

/// Kinds of the messages on the wire.
mod kind {
    use crate::kinds;

    pub const ASK: u16 = kinds::kind(&kinds::SPACES, 0);
    pub const ANSWER: u16 = kinds::kind(&kinds::SPACES, 1);
    pub const ROUND: [u16; 2] = [
        kinds::kind(&kinds::SPACES, 2),
        kinds::kind(&kinds::SPACES, 3),
    ];
    pub const HOLDING: u16 = kinds::kind(&kinds::SPACES, 4);
    pub const REPORTED: u16 = kinds::kind(&kinds::SPACES, 5);
    pub const QUERY: u16 = kinds::kind(&kinds::SPACES, 6);
    pub const ABSENT: u16 = kinds::kind(&kinds::SPACES, 7);
}

/// A space, and what fits beside its number in one word.
fn tag(space: SpaceId, rights: Rights, code: u64) -> u64 {
    space.0 | u64::from(rights.0) << SPACE_BITS | code << 48
}

impl Message {
    /// As kind and words. Word 0 is the sequence number in its lower half, and its upper half is free;
    /// word 1 the space (40 bits), rights (8 bits), and a code; word 2 pages (number << 28 | count), a
    /// page or a core; word 3 the frame. Reported has the span in words 2 to 5.
    pub fn encode(&self) -> (u16, [u64; 7]) {
        let words = |first: u32, tag, third, frame| [first.into(), tag, third, frame, 0, 0, 0];
        match self {
            Self::Ask {
                sequence,
                space,
                ask,
            } => {
                let (rights, code, third, frame) = match ask {
                    Ask::Map { mapping, again } => {
                        let code = if *again { 2 } else { 1 };
                        (mapping.rights, code, mapping.pages.word(), mapping.frame)
                    }
                    Ask::Restrict { pages, rights } => (*rights, 3, pages.word(), 0),
                    Ask::Fetch { page } => (Rights::NONE, 4, *page, 0),
                    Ask::Join { core } => (Rights::NONE, 5, *core as u64, 0),
                    Ask::Leave => (Rights::NONE, 6, 0, 0),
                    Ask::Settle => (Rights::NONE, 0, 0, 0),
                };
                let tag = tag(*space, rights, code);
                (kind::ASK, words(*sequence, tag, third, frame))
            }
            Self::Answer { sequence, answer } => {
                let none = SpaceId(0);
                let (tag, pages, frame) = match answer {
                    Answer::Done => (tag(none, Rights::NONE, 0), 0, 0),
                    Answer::Grant(mapping) => {
                        let tag = tag(none, mapping.rights, 0);
                        (tag, mapping.pages.word(), mapping.frame)
                    }
                    Answer::Failed(error) => (tag(none, Rights::NONE, *error as u64), 0, 0),
                };
                (kind::ANSWER, words(*sequence, tag, pages, frame))
            }
            Self::Round(message) => message.encode(kind::ROUND),
            Self::Holding { space, mapping } => {
                let tag = tag(*space, mapping.rights, 0);
                let (pages, frame) = (mapping.pages.word(), mapping.frame);
                (kind::HOLDING, words(0, tag, pages, frame))
            }
            Self::Reported { space, span } => {
                let [a, b, c, d]: [u64; WORDS] = span.words();
                let tag = tag(*space, Rights::NONE, 0);
                (kind::REPORTED, [0, tag, a, b, c, d, 0])
            }
            Self::Query { space } => (kind::QUERY, words(0, space.0, 0, 0)),
            Self::Absent { space } => (kind::ABSENT, words(0, space.0, 0, 0)),
        }
    }

    /// From kind and words; `None` for messages that are not of this protocol, or make no sense.
    pub fn decode(kind: u16, words: &[u64; 7]) -> Option<Self> {
        let [first, second, third, frame, ..] = *words;
        let sequence = first as u32;
        let space = SpaceId(second & ((1 << SPACE_BITS) - 1));
        let rights = Rights::from_bits(second >> SPACE_BITS & 0xff);
        let code = second >> 48;
        let mapping = || {
            let mapping = Mapping {
                pages: Pages::from_word(third)?,
                frame,
                rights: rights?,
            };
            mapping.is_sound().then_some(mapping)
        };
        Some(match kind {
            kind::ASK => {
                let ask = match code {
                    1 | 2 => Ask::Map {
                        mapping: mapping()?,
                        again: code == 2,
                    },
                    3 => Ask::Restrict {
                        pages: Pages::from_word(third)?,
                        rights: rights?,
                    },
                    4 if third < 1 << PAGE_BITS => Ask::Fetch { page: third },
                    5 if third < 1 << 16 => Ask::Join {
                        core: third as usize,
                    },
                    6 => Ask::Leave,
                    _ => return None,
                };
                Self::Ask {
                    sequence,
                    space,
                    ask,
                }
            }
            kind::ANSWER => {
                let answer = match (code, rights?) {
                    (0, Rights::NONE) => Answer::Done,
                    (0, _) => Answer::Grant(mapping()?),
                    _ => Answer::Failed(Error::from_code(code)?),
                };
                Self::Answer { sequence, answer }
            }
            kind::HOLDING => Self::Holding {
                space,
                mapping: mapping()?,
            },
            kind::REPORTED => Self::Reported {
                space,
                span: CoreSet::from_words([words[2], words[3], words[4], words[5]]),
            },
            kind::QUERY => Self::Query { space },
            kind::ABSENT => Self::Absent { space },
            _ => Self::Round(round::Message::decode(kind::ROUND, kind, words)?),
        })
    }
}

/// What a round tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Change {
    Restrict {
        pages: Pages,
        rights: Rights,
    },
    /// The cores of the round are the span, the home only if it says so.
    Span {
        with_home: bool,
    },
}

impl Change {
    pub(super) fn payload(self, space: SpaceId) -> Payload {
        let (low, word) = match self {
            Self::Restrict { pages, rights } => (u64::from(rights.0), pages.word()),
            Self::Span { with_home } => (0x80 | u64::from(with_home), 0),
        };
        Payload {
            tag: space.0 | low << SPACE_BITS,
            word,
        }
    }

    pub(super) fn from_payload(payload: Payload) -> Option<(SpaceId, Self)> {
        let space = SpaceId(payload.tag & ((1 << SPACE_BITS) - 1));
        let change = match payload.tag >> SPACE_BITS {
            0x80 => Self::Span { with_home: false },
            0x81 => Self::Span { with_home: true },
            low => Self::Restrict {
                pages: Pages::from_word(payload.word)?,
                rights: Rights::from_bits(low)?,
            },
        };
        Some((space, change))
    }
}
