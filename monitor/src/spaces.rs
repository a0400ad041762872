//! Address spaces of domains that span cores: one page-table replica a core, and an unmap that
//! returns when no core can use the old translation any more.
//!
//! Each space has a *home* core that puts what changes it in order. It keeps the table of what is
//! mapped, and which cores hold each entry:
//!
//! ```text
//!  initiator            home                  holder              holder
//!    │ unmaps locally    │                      │                   │
//!    │ Ask {restrict} ──►│ Spread {restrict} ──►│ Spread ──────────►│    a round: see round.rs
//!    │                   │ unmaps locally       │ unmaps locally    │ unmaps locally
//!    │                   │◄──────────────── Ack │◄────────────── Ack│
//!    │◄────────── Answer │ takes the entry out of the table
//!    │ returns
//!
//!    │ Ask {map} ───────►│ notes the entry, held by the initiator
//!    │◄─────────── Grant │
//!    │ Ask {fetch} ─────►│ notes one more holder          after a page fault
//!    │◄─────────── Grant │
//! ```
//!
//! **Mappings travel on demand.** A map costs two messages (none at home), and a core that never
//! touches a page never hears of it: not of its map, nor of its unmap, which goes to the holders
//! only. An eager map would cost 2(N-1) messages, and so would every unmap. The price is one fault
//! and two messages for each further core, once per entry.
//!
//! **Why nobody can use a page after its unmap returned.** Every core that has a translation is
//! noted as holder of the entry, before it is told of it. The home does not grant, map or restrict
//! what overlaps an operation under way; all that waits its turn. All holders but the initiator are
//! in the round and acknowledge after their local unmap; the initiator has done so before it asked.
//! What could bring a translation back is a grant that was sent before and comes after. Between home
//! and holder messages may pass one another, as a round goes by its tree. So whoever takes part in a
//! round while it waits for an answer does not install what that answer grants: a map counts as done
//! without it (the next touch faults), a fetch asks again. An initiator installs nothing that
//! overlaps its own unmap, and asks for such pages only after it.
//!
//! Two unmaps of one page both return after all is done: the second one waits at the home and finds
//! nothing left. To protect is the same with other rights: replicas only lose rights by it; whatever
//! rights are new come with the next fault. To unmap is to leave no rights.
//!
//! **Cores join and leave the span** in the same order, by a round over all of the span: after a join
//! all know of the new core, and only then it is granted anything. It begins with an empty replica,
//! so it never has an old translation. Whoever leaves unmaps all before it asks.
//!
//! **View changes.** Cores that are gone hold nothing. Initiators ask again; what the home has done
//! already it answers again, without a grant, as the grant may be old. Where the home is gone, the
//! next core of the view takes over, in the span or not: all know it without a word, while what
//! members know of the span may differ by a join that was under way. Every member reports what it
//! holds (`Holding`, then `Reported` with the span it knows), and the home waits until all have
//! reported that anybody who reported knows of, or said that they were never told (`Query`, `Absent`).
//! Those are all who hold anything: a core is granted nothing before all others know of it. A last round tells all the span; whoever did not
//! hear it by the next view change reports again. A home that outlives a view change in the midst of a
//! join or leave tells all the span anew, with whoever may have been told in it. A map that the old home may have done or not fails
//! with [`Error::Lost`] unless the entry is there: it is never done twice. An unmap is asked for again.
//! Mappings that only cores outside of the view held are gone with them.

use crate::core_set::{CoreSet, WORDS};
use crate::round::{self, Payload, Round};
use crate::tree::{Planner, Strategy};
use crate::view::View;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

pub use crate::round::WINDOW;

/// Most spaces that one core makes.
pub const MAX_SPACES: usize = 4096;
/// Most entries of one space.
pub const MAX_ENTRIES: usize = 1 << 16;

/// Bits of a page's number, of a number of pages, of a frame's number, and of a space's.
const PAGE_BITS: u32 = 36;
const COUNT_BITS: u32 = 28;
const FRAME_BITS: u32 = 40;
const SPACE_BITS: u32 = 40;

/// Names an address space in the whole machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpaceId(u64);

impl SpaceId {
    /// `number`: of the lower 24 bits, not used before on this core, whatever became of it since.
    pub fn new(core: usize, number: u32) -> Self {
        Self((core as u64 & 0xffff) << 24 | u64::from(number) & 0xff_ffff)
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

    fn end(self) -> u64 {
        self.first + self.count
    }

    /// Whether a page is in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.first < other.end() && other.first < self.end()
    }

    /// Whether this can be mapped, and told in a message.
    fn is_sound(self) -> bool {
        let is_small = self.first < 1 << PAGE_BITS && self.count < 1 << COUNT_BITS;
        is_small && self.count > 0 && self.end() <= 1 << PAGE_BITS
    }

    fn word(self) -> u64 {
        self.first << COUNT_BITS | self.count & ((1 << COUNT_BITS) - 1)
    }

    fn from_word(word: u64) -> Option<Self> {
        let pages = Self {
            first: word >> COUNT_BITS,
            count: word & ((1 << COUNT_BITS) - 1),
        };
        pages.is_sound().then_some(pages)
    }
}

/// What may be done with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rights(u8);

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

    fn from_bits(bits: u64) -> Option<Self> {
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
    fn only(self, page: u64) -> Self {
        Self {
            pages: Pages::one(page),
            frame: self.frame + page.saturating_sub(self.pages.first),
            rights: self.rights,
        }
    }

    fn is_sound(self) -> bool {
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
    fn from_code(code: u64) -> Option<Self> {
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
        /// Another home may have done it already.
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
enum Change {
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
    fn payload(self, space: SpaceId) -> Payload {
        let (low, word) = match self {
            Self::Restrict { pages, rights } => (u64::from(rights.0), pages.word()),
            Self::Span { with_home } => (0x80 | u64::from(with_home), 0),
        };
        Payload {
            tag: space.0 | low << SPACE_BITS,
            word,
        }
    }

    fn from_payload(payload: Payload) -> Option<(SpaceId, Self)> {
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

/// What the monitor is to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send a message to a core.
    Send(usize, Message),
    /// Enter this into the local page table, at once; what is there of the same pages gives way.
    Map {
        /// The space.
        space: SpaceId,
        /// What.
        mapping: Mapping,
    },
    /// Leave the pages no more than these rights in the local page table, and flush what the local
    /// TLB has of them; then say [`Spaces::unmapped`].
    Unmap {
        /// Names the work; used once.
        work: u64,
        /// The space.
        space: SpaceId,
        /// The pages.
        pages: Pages,
        /// The rights; with none the pages are not mapped any more.
        rights: Rights,
    },
    /// What was asked for under this token has come to this.
    Done {
        /// The caller's.
        token: u64,
        /// How it ended.
        result: Result<(), Error>,
    },
}

/// Some pages of a table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Entry {
    count: u64,
    frame: u64,
    rights: Rights,
    /// Cores that may have it; only the home keeps them.
    holders: CoreSet,
}

impl Entry {
    fn mapping(&self, first: u64) -> Mapping {
        Mapping {
            pages: Pages {
                first,
                count: self.count,
            },
            frame: self.frame,
            rights: self.rights,
        }
    }
}

/// What is mapped; by first page, without overlaps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Table(BTreeMap<u64, Entry>);

impl Table {
    /// Entries that have pages among these, the last one first.
    fn overlapping(&self, pages: Pages) -> impl Iterator<Item = (Mapping, &Entry)> {
        let before = self.0.range(..pages.end()).rev();
        let all = before.map(|(first, entry)| (entry.mapping(*first), entry));
        all.take_while(move |(mapping, _)| mapping.pages.end() > pages.first)
    }

    fn at(&self, page: u64) -> Option<(Mapping, &Entry)> {
        self.overlapping(Pages::one(page)).next()
    }

    fn put(&mut self, mapping: Mapping, holders: CoreSet) {
        let entry = Entry {
            count: mapping.pages.count,
            frame: mapping.frame,
            rights: mapping.rights,
            holders,
        };
        self.0.insert(mapping.pages.first, entry);
    }

    /// Takes these pages out; what there was of them.
    fn carve(&mut self, pages: Pages) -> Vec<(Mapping, CoreSet)> {
        let found: Vec<Mapping> = self
            .overlapping(pages)
            .map(|(mapping, _)| mapping)
            .collect();
        let mut carved = Vec::new();
        for whole in found {
            let Some(entry) = self.0.remove(&whole.pages.first) else {
                continue;
            };
            let part = |first: u64, end: u64| Mapping {
                pages: Pages {
                    first,
                    count: end.saturating_sub(first),
                },
                frame: whole.frame + (first - whole.pages.first),
                rights: whole.rights,
            };
            let first = whole.pages.first.max(pages.first);
            let end = whole.pages.end().min(pages.end());
            for rest in [part(whole.pages.first, first), part(end, whole.pages.end())] {
                if rest.pages.count > 0 {
                    self.put(rest, entry.holders.clone());
                }
            }
            carved.push((part(first, end), entry.holders));
        }
        carved
    }

    /// Leaves these pages no more than these rights.
    fn restrict(&mut self, pages: Pages, rights: Rights) {
        for (mut mapping, holders) in self.carve(pages) {
            mapping.rights = mapping.rights.only(rights);
            if mapping.rights != Rights::NONE {
                self.put(mapping, holders);
            }
        }
    }

    /// Whether some of these pages have rights beyond these.
    fn exceeds(&self, pages: Pages, rights: Rights) -> bool {
        let mut found = self.overlapping(pages);
        found.any(|(mapping, _)| !rights.include(mapping.rights))
    }

    /// Whether there is no room for the pieces that are left when these pages go.
    fn is_too_full_for(&self, pages: Pages) -> bool {
        let ends = [pages.first, pages.end() - 1];
        let is_split = |page: u64| {
            let found = self.at(page);
            found.is_some_and(|(mapping, _)| {
                mapping.pages.first < pages.first || mapping.pages.end() > pages.end()
            })
        };
        self.0.len() >= MAX_ENTRIES && ends.into_iter().any(is_split)
    }

    /// A core holds this: it is mapped, whoever else may say so.
    fn merge(&mut self, held: Mapping, holder: usize) {
        let mut page = held.pages.first;
        for (mut mapping, mut holders) in self.carve(held.pages).into_iter().rev() {
            // The gap before it, then what is there already.
            let part = |first: u64, end: u64| Mapping {
                pages: Pages {
                    first,
                    count: end.saturating_sub(first),
                },
                frame: held.frame + (first - held.pages.first),
                rights: held.rights,
            };
            let gap = part(page, mapping.pages.first);
            if gap.pages.count > 0 {
                self.put(gap, CoreSet::from_iter([holder]));
            }
            page = mapping.pages.end();
            mapping.rights = mapping.rights.and(held.rights);
            holders.insert(holder);
            self.put(mapping, holders);
        }
        if page < held.pages.end() {
            let rest = Mapping {
                pages: Pages {
                    first: page,
                    count: held.pages.end() - page,
                },
                frame: held.frame + (page - held.pages.first),
                rights: held.rights,
            };
            self.put(rest, CoreSet::from_iter([holder]));
        }
    }
}

/// A space that has a replica here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Replica {
    home: usize,
    span: CoreSet,
    /// What the local page table has, or a little more.
    table: Table,
    /// The home knows of us, and all of the span know it.
    is_settled: bool,
}

/// Something that was asked of the home.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Request {
    from: usize,
    sequence: u32,
    ask: Ask,
}

/// A space whose home is here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Home {
    span: CoreSet,
    table: Table,
    /// In the order in which they came.
    queue: VecDeque<Request>,
    /// Rounds under way, by sequence.
    active: BTreeMap<u32, Request>,
    /// Until all have reported; the span is who has.
    recovery: Option<Recovery>,
}

/// What a new home does not know yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Recovery {
    /// Somebody knows of them, and they have not reported.
    waiting: CoreSet,
    /// They say that they have no replica.
    absent: CoreSet,
}

/// How far an own operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// It waits for a local unmap.
    Local,
    /// It waits for the end of another one.
    Held,
    /// It waits for the home.
    Asked {
        /// A round has passed since: what is granted may be old.
        is_old: bool,
    },
}

/// An operation of this core.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Operation {
    token: u64,
    space: SpaceId,
    ask: Ask,
    /// What a fetch is for.
    access: Rights,
    stage: Stage,
}

impl Operation {
    /// The pages that must not come back before it is over.
    fn restricted(&self) -> Option<Pages> {
        match self.ask {
            Ask::Restrict { pages, .. } => Some(pages),
            Ask::Leave => Some(Pages::ALL),
            _ => None,
        }
    }
}

/// A local unmap under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Work {
    space: SpaceId,
    pages: Pages,
    rights: Rights,
    cause: Cause,
}

/// What goes on after a local unmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Cause {
    Operation(u32),
    Round(u64),
}

/// One monitor's part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spaces {
    own: usize,
    view: View,
    round: Round,
    replicas: BTreeMap<SpaceId, Replica>,
    homes: BTreeMap<SpaceId, Home>,
    /// Whose own rounds are under way, by sequence.
    rounds: BTreeMap<u32, SpaceId>,
    /// Something waits until a round ends.
    is_starved: bool,
    operations: BTreeMap<u32, Operation>,
    next_sequence: u32,
    works: BTreeMap<u64, Work>,
    next_work: u64,
    /// What each core's last operations came to: it may ask again after a view change.
    answered: BTreeMap<usize, VecDeque<(u32, Answer)>>,
}

impl Spaces {
    /// The part of core `own`, in no view yet.
    pub fn new(own: usize, planner: Planner) -> Self {
        Self {
            own,
            view: View::default(),
            round: Round::new(own, planner),
            replicas: BTreeMap::new(),
            homes: BTreeMap::new(),
            rounds: BTreeMap::new(),
            is_starved: false,
            operations: BTreeMap::new(),
            next_sequence: 0,
            works: BTreeMap::new(),
            next_work: 0,
            answered: BTreeMap::new(),
        }
    }

    /// See [`Round::set_strategy`].
    pub fn set_strategy(&mut self, strategy: Strategy) {
        self.round.set_strategy(strategy);
    }

    /// The home of a space that has a replica here.
    pub fn home(&self, space: SpaceId) -> Option<usize> {
        self.replicas.get(&space).map(|replica| replica.home)
    }

    /// The span of a space, as far as it is known here.
    pub fn span(&self, space: SpaceId) -> Option<&CoreSet> {
        self.replicas.get(&space).map(|replica| &replica.span)
    }

    /// What the local page table has for a page, unless its unmap is under way.
    pub fn held(&self, space: SpaceId, page: u64) -> Option<Mapping> {
        let (mapping, _) = self.replicas.get(&space)?.table.at(page)?;
        Some(mapping)
    }

    /// What is mapped for a page, if the home is here and knows.
    pub fn mapped(&self, space: SpaceId, page: u64) -> Option<Mapping> {
        let home = self.homes.get(&space)?;
        Some(home.table.at(page)?.0)
    }

    /// Whether the home of a space is here, and knows of it.
    pub fn is_home(&self, space: SpaceId) -> bool {
        self.homes.contains_key(&space)
    }

    /// Own operations that have not come to an end.
    pub fn under_way(&self) -> usize {
        self.operations.len()
    }

    /// Whether this home waits for reports.
    pub fn is_recovering(&self, space: SpaceId) -> bool {
        let home = self.homes.get(&space);
        home.is_some_and(|home| home.recovery.is_some())
    }

    /// Makes a space whose home and only core is this one.
    ///
    /// # Errors
    ///
    /// The name is in use here, or there are [`MAX_SPACES`].
    pub fn create(&mut self, space: SpaceId) -> Result<(), Error> {
        if self.replicas.contains_key(&space) || self.homes.contains_key(&space) {
            return Err(Error::Exists);
        }
        if self.replicas.len() >= MAX_SPACES {
            return Err(Error::Full);
        }
        let span = CoreSet::from_iter([self.own]);
        let replica = Replica {
            home: self.own,
            span: span.clone(),
            table: Table::default(),
            is_settled: true,
        };
        self.replicas.insert(space, replica);
        let home = Home {
            span,
            table: Table::default(),
            queue: VecDeque::new(),
            active: BTreeMap::new(),
            recovery: None,
        };
        self.homes.insert(space, home);
        Ok(())
    }

    /// Maps pages where nothing is mapped. Other cores take it when they touch it: see
    /// [`Self::fault`].
    pub fn map(&mut self, token: u64, space: SpaceId, mapping: Mapping) -> Vec<Action> {
        let ask = Ask::Map {
            mapping,
            again: false,
        };
        if !mapping.is_sound() {
            return refuse(token, Error::Invalid);
        }
        if self.is_blocked(space, mapping.pages) {
            return refuse(token, Error::Busy);
        }
        self.start(token, space, ask, Rights::NONE)
    }

    /// Unmaps pages on all cores. It is done when no core can use what was there.
    pub fn unmap(&mut self, token: u64, space: SpaceId, pages: Pages) -> Vec<Action> {
        self.restrict(token, space, pages, Rights::NONE)
    }

    /// Sets the rights of what is mapped of these pages. It is done when no core can use rights that
    /// are gone; new rights come with the next fault.
    pub fn protect(
        &mut self,
        token: u64,
        space: SpaceId,
        pages: Pages,
        rights: Rights,
    ) -> Vec<Action> {
        if rights == Rights::NONE {
            return refuse(token, Error::Invalid);
        }
        self.restrict(token, space, pages, rights)
    }

    fn restrict(
        &mut self,
        token: u64,
        space: SpaceId,
        pages: Pages,
        rights: Rights,
    ) -> Vec<Action> {
        if !pages.is_sound() {
            return refuse(token, Error::Invalid);
        }
        self.start(token, space, Ask::Restrict { pages, rights }, rights)
    }

    /// A program of this core touched a page that the local page table does not have, or not so.
    pub fn fault(&mut self, token: u64, space: SpaceId, page: u64, access: Rights) -> Vec<Action> {
        if !Pages::one(page).is_sound() {
            return refuse(token, Error::Invalid);
        }
        let held = self.held(space, page);
        if held.is_some_and(|held| held.rights.include(access))
            && !self.is_blocked(space, Pages::one(page))
        {
            let result = Ok(());
            return [Action::Done { token, result }].into();
        }
        self.start(token, space, Ask::Fetch { page }, access)
    }

    /// Takes another core into the span; done when it can begin there. It begins with nothing mapped.
    pub fn join(&mut self, token: u64, space: SpaceId, core: usize) -> Vec<Action> {
        self.start(token, space, Ask::Join { core }, Rights::NONE)
    }

    /// Takes this core out of the span; all that it has mapped goes.
    pub fn leave(&mut self, token: u64, space: SpaceId) -> Vec<Action> {
        self.start(token, space, Ask::Leave, Rights::NONE)
    }

    fn start(&mut self, token: u64, space: SpaceId, ask: Ask, access: Rights) -> Vec<Action> {
        let Some(replica) = self.replicas.get(&space) else {
            return refuse(token, Error::NoSuchSpace);
        };
        if self.operations.len() >= WINDOW {
            return refuse(token, Error::Busy);
        }
        if let Ask::Restrict { pages, .. } = ask
            && replica.table.is_too_full_for(pages)
        {
            return refuse(token, Error::Full);
        }
        let mut actions = Vec::new();
        let mut sequence = self.next_sequence;
        while self.operations.contains_key(&sequence) {
            sequence = sequence.wrapping_add(1);
        }
        self.next_sequence = sequence.wrapping_add(1);
        let mut operation = Operation {
            token,
            space,
            ask,
            access,
            stage: Stage::Held,
        };
        let rights = if ask == Ask::Leave {
            Rights::NONE
        } else {
            access
        };
        let restricted = operation.restricted();
        let local = restricted.filter(|pages| replica.table.exceeds(*pages, rights));
        if local.is_some() {
            operation.stage = Stage::Local;
        }
        self.operations.insert(sequence, operation);
        if let Some(pages) = local {
            let cause = Cause::Operation(sequence);
            self.work(space, pages, rights, cause, &mut actions);
        } else if matches!(ask, Ask::Fetch { .. }) {
            self.release(&mut actions);
        } else {
            self.ask(sequence, &mut actions);
        }
        actions
    }

    /// Whether pages of the local replica are about to go: nothing of them may come back before.
    fn is_blocked(&self, space: SpaceId, pages: Pages) -> bool {
        let of_operation = |operation: &Operation| {
            let restricted = operation.restricted();
            operation.space == space && restricted.is_some_and(|range| range.overlaps(pages))
        };
        let of_work = |work: &Work| work.space == space && work.pages.overlaps(pages);
        self.operations.values().any(of_operation) || self.works.values().any(of_work)
    }

    fn work(
        &mut self,
        space: SpaceId,
        pages: Pages,
        rights: Rights,
        cause: Cause,
        actions: &mut Vec<Action>,
    ) {
        self.next_work += 1;
        let work = self.next_work;
        let under_way = Work {
            space,
            pages,
            rights,
            cause,
        };
        self.works.insert(work, under_way);
        actions.push(Action::Unmap {
            work,
            space,
            pages,
            rights,
        });
    }

    /// The local unmap of this number is done.
    pub fn unmapped(&mut self, work: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(work) = self.works.remove(&work) else {
            return actions;
        };
        if let Some(replica) = self.replicas.get_mut(&work.space) {
            replica.table.restrict(work.pages, work.rights);
        }
        match work.cause {
            Cause::Operation(sequence) => self.ask(sequence, &mut actions),
            Cause::Round(work) => {
                let of_round = self.round.worked(work);
                self.carry_out(of_round, &mut actions);
            }
        }
        self.release(&mut actions);
        actions
    }

    /// Sends what an own operation asks to the home.
    fn ask(&mut self, sequence: u32, actions: &mut Vec<Action>) {
        let Some(operation) = self.operations.get_mut(&sequence) else {
            return;
        };
        let Some(replica) = self.replicas.get(&operation.space) else {
            let result = Err(Error::NoSuchSpace);
            self.finish(sequence, result, actions);
            return;
        };
        operation.stage = Stage::Asked { is_old: false };
        let message = Message::Ask {
            sequence,
            space: operation.space,
            ask: operation.ask,
        };
        self.send(replica.home, message, actions);
    }

    /// Fetches that nothing stands in the way of any more.
    fn release(&mut self, actions: &mut Vec<Action>) {
        let is_free = |operation: &Operation| match operation.ask {
            Ask::Fetch { page } => !self.is_blocked(operation.space, Pages::one(page)),
            _ => false,
        };
        let held = |operation: &Operation| operation.stage == Stage::Held;
        let free: Vec<u32> = self
            .operations
            .iter()
            .filter(|(_, operation)| held(operation) && is_free(operation))
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in free {
            // One may have released another meanwhile.
            if self.operations.get(&sequence).is_some_and(held) {
                self.ask(sequence, actions);
            }
        }
    }

    fn finish(&mut self, sequence: u32, result: Result<(), Error>, actions: &mut Vec<Action>) {
        if let Some(operation) = self.operations.remove(&sequence) {
            let token = operation.token;
            actions.push(Action::Done { token, result });
        }
    }

    fn send(&mut self, to: usize, message: Message, actions: &mut Vec<Action>) {
        if to == self.own {
            self.receive(self.own, &message, actions);
        } else {
            actions.push(Action::Send(to, message));
        }
    }

    /// A message came. Whatever it says, at whatever time, it makes sense or is left aside.
    pub fn on_message(&mut self, from: usize, message: &Message) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.view.cores.contains(from) && from != self.own {
            self.receive(from, message, &mut actions);
        }
        actions
    }

    fn receive(&mut self, from: usize, message: &Message, actions: &mut Vec<Action>) {
        match message {
            Message::Ask {
                sequence,
                space,
                ask,
            } => self.asked(from, *sequence, *space, *ask, actions),
            Message::Answer { sequence, answer } => {
                self.on_answer(from, *sequence, *answer, actions);
            }
            Message::Round(message) => {
                let of_round = self.round.on_message(from, message);
                self.carry_out(of_round, actions);
            }
            Message::Holding { space, mapping } => {
                self.reporting(*space).table.merge(*mapping, from);
            }
            Message::Reported { space, span } => self.reported(from, *space, span, actions),
            Message::Query { space } => {
                // Whoever has a replica has reported.
                if !self.replicas.contains_key(space) {
                    self.send(from, Message::Absent { space: *space }, actions);
                }
            }
            Message::Absent { space } => {
                let home = self.homes.get_mut(space);
                let recovery = home.and_then(|home| home.recovery.as_mut());
                if let Some(recovery) = recovery
                    && recovery.waiting.remove(from)
                {
                    recovery.absent.insert(from);
                    self.recover(*space, actions);
                }
            }
        }
    }

    fn on_answer(&mut self, from: usize, sequence: u32, answer: Answer, actions: &mut Vec<Action>) {
        let Some(operation) = self.operations.get_mut(&sequence) else {
            return;
        };
        let Stage::Asked { is_old } = operation.stage else {
            return;
        };
        let (space, ask, access) = (operation.space, operation.ask, operation.access);
        if self.home(space).is_some_and(|home| home != from) {
            return;
        }
        let mut result = match answer {
            Answer::Failed(error) => Err(error),
            Answer::Done | Answer::Grant(_) => Ok(()),
        };
        if let Answer::Grant(mut mapping) = answer {
            if let Ask::Fetch { page } = ask
                && self.is_blocked(space, mapping.pages)
            {
                // The page that was touched may be free of what stands in the way of others.
                mapping = mapping.only(page);
            }
            let can_install = !is_old && !self.is_blocked(space, mapping.pages);
            if can_install && mapping.rights.include(access) {
                self.install(space, mapping, actions);
            } else if !can_install && matches!(ask, Ask::Fetch { .. }) {
                if let Some(operation) = self.operations.get_mut(&sequence) {
                    operation.stage = Stage::Held;
                }
                self.release(actions);
                return;
            } else if can_install {
                result = Err(Error::NotAllowed);
            }
        }
        if ask == Ask::Leave && matches!(result, Ok(()) | Err(Error::NoSuchSpace)) {
            result = Ok(());
            self.replicas.remove(&space);
        }
        self.finish(sequence, result, actions);
        self.release(actions);
    }

    /// Enters what was granted.
    fn install(&mut self, space: SpaceId, mapping: Mapping, actions: &mut Vec<Action>) {
        if let Some(replica) = self.replicas.get_mut(&space) {
            replica.table.carve(mapping.pages);
            replica.table.put(mapping, CoreSet::default());
            actions.push(Action::Map { space, mapping });
        }
    }

    /// What the rounds are to do.
    fn carry_out(&mut self, of_round: Vec<round::Action>, actions: &mut Vec<Action>) {
        for action in of_round {
            match action {
                round::Action::Send(to, message) => {
                    actions.push(Action::Send(to, Message::Round(message)));
                }
                round::Action::Work {
                    work,
                    root,
                    set,
                    payload,
                } => self.take_part(work, root, set, payload, actions),
                round::Action::Done { sequence } => self.round_done(sequence, actions),
            }
        }
    }

    fn take_part(
        &mut self,
        work: u64,
        root: usize,
        mut set: CoreSet,
        payload: Payload,
        actions: &mut Vec<Action>,
    ) {
        let change = Change::from_payload(payload);
        if let Some((space, _)) = change {
            for operation in self.operations.values_mut() {
                if let Stage::Asked { is_old } = &mut operation.stage {
                    *is_old |= operation.space == space;
                }
            }
        }
        match change {
            Some((space, Change::Restrict { pages, rights })) => {
                let replica = self.replicas.get(&space);
                if replica.is_some_and(|replica| replica.table.exceeds(pages, rights)) {
                    self.work(space, pages, rights, Cause::Round(work), actions);
                    return;
                }
            }
            Some((space, Change::Span { with_home })) => {
                if !with_home {
                    set.remove(root);
                }
                if set.contains(self.own) {
                    let replica = self.replicas.entry(space).or_insert_with(|| Replica {
                        home: root,
                        span: CoreSet::default(),
                        table: Table::default(),
                        is_settled: true,
                    });
                    replica.home = root;
                    replica.span = set;
                    replica.is_settled = true;
                }
            }
            None => {}
        }
        let of_round = self.round.worked(work);
        self.carry_out(of_round, actions);
    }

    // What the home does.

    fn asked(
        &mut self,
        from: usize,
        sequence: u32,
        space: SpaceId,
        ask: Ask,
        actions: &mut Vec<Action>,
    ) {
        let mut answered = self.answered.get(&from).into_iter().flatten();
        let known = answered.find(|(number, _)| *number == sequence);
        let at_once = if let Some((_, answer)) = known {
            Some(*answer)
        } else if let Some(home) = self.homes.get_mut(&space) {
            let request = Request {
                from,
                sequence,
                ask,
            };
            let waiting = home.queue.iter().filter(|other| other.from == from);
            if waiting.count() >= WINDOW || ask == Ask::Settle {
                Some(Answer::Failed(Error::Busy))
            } else {
                home.queue.push_back(request);
                None
            }
        } else {
            Some(Answer::Failed(Error::NoSuchSpace))
        };
        match at_once {
            Some(answer) => self.send(from, Message::Answer { sequence, answer }, actions),
            None => self.pump(space, actions),
        }
    }

    /// Does what can be done of what was asked, in order where the pages overlap.
    fn pump(&mut self, space: SpaceId, actions: &mut Vec<Action>) {
        while let Some(request) = self.next_request(space) {
            self.serve(space, request, actions);
        }
    }

    fn next_request(&mut self, space: SpaceId) -> Option<Request> {
        let is_full = self.round.is_full();
        let home = self.homes.get_mut(&space)?;
        if home.recovery.is_some() {
            return None;
        }
        let range = |request: &Request| match request.ask {
            Ask::Map { mapping, .. } => mapping.pages,
            Ask::Restrict { pages, .. } => pages,
            Ask::Fetch { page } => {
                let found = home.table.at(page);
                found.map_or(Pages::one(page), |(mapping, _)| mapping.pages)
            }
            Ask::Join { .. } | Ask::Leave | Ask::Settle => Pages::ALL,
        };
        let needs_round =
            |request: &Request| !matches!(request.ask, Ask::Map { .. } | Ask::Fetch { .. });
        let mut taken: Vec<Pages> = home.active.values().map(range).collect();
        let mut found = None;
        for (at, request) in home.queue.iter().enumerate() {
            let pages = range(request);
            let is_free = !taken.iter().any(|other| other.overlaps(pages));
            if is_free && is_full && needs_round(request) {
                self.is_starved = true;
            } else if is_free {
                found = Some(at);
                break;
            }
            taken.push(pages);
        }
        home.queue.remove(found?)
    }

    /// Nothing that overlaps is under way, and a round can begin.
    fn serve(&mut self, space: SpaceId, request: Request, actions: &mut Vec<Action>) {
        let Some(home) = self.homes.get_mut(&space) else {
            return;
        };
        let from = request.from;
        let is_member = home.span.contains(from) || request.ask == Ask::Settle;
        let answer = match request.ask {
            Ask::Leave if !is_member => Answer::Done,
            _ if !is_member => Answer::Failed(Error::NotMember),
            Ask::Map { mapping, again } => {
                let same = |(other, _): (Mapping, &Entry)| {
                    (other.pages, other.frame) == (mapping.pages, mapping.frame)
                };
                let mut there = home.table.overlapping(mapping.pages).peekable();
                if there.peek().is_some() {
                    let is_same = again && there.all(same);
                    drop(there);
                    if is_same {
                        Answer::Done
                    } else {
                        Answer::Failed(Error::Exists)
                    }
                } else if again {
                    Answer::Failed(Error::Lost)
                } else if home.table.0.len() >= MAX_ENTRIES {
                    Answer::Failed(Error::Full)
                } else {
                    drop(there);
                    home.table.put(mapping, CoreSet::from_iter([from]));
                    Answer::Grant(mapping)
                }
            }
            Ask::Fetch { page } => match home.table.at(page) {
                Some((mapping, _)) => {
                    if let Some(entry) = home.table.0.get_mut(&mapping.pages.first) {
                        entry.holders.insert(from);
                    }
                    Answer::Grant(mapping)
                }
                None => Answer::Failed(Error::NotMapped),
            },
            Ask::Restrict { pages, rights } => {
                let mut holders = CoreSet::default();
                let mut is_mapped = false;
                for (mapping, entry) in home.table.overlapping(pages) {
                    is_mapped = true;
                    if !rights.include(mapping.rights) {
                        holders.extend(&entry.holders);
                    }
                }
                holders.remove(from);
                if !is_mapped && rights != Rights::NONE {
                    Answer::Failed(Error::NotMapped)
                } else if home.table.is_too_full_for(pages) {
                    Answer::Failed(Error::Full)
                } else if holders.is_empty() {
                    self.complete(space, &request, actions);
                    return;
                } else {
                    let works = holders.contains(self.own);
                    let change = Change::Restrict { pages, rights };
                    self.begin_round(space, request, holders, change, works, actions);
                    return;
                }
            }
            Ask::Join { core } if !self.view.cores.contains(core) => {
                Answer::Failed(Error::NoSuchCore)
            }
            Ask::Join { core } if home.span.contains(core) => Answer::Done,
            Ask::Join { .. } | Ask::Leave | Ask::Settle => {
                let span = span_after(home, &request);
                if span.is_empty() {
                    // Nobody is left; the leaver may have asked for more.
                    let later = core::mem::take(&mut home.queue);
                    self.homes.remove(&space);
                    self.answer(&request, Answer::Done, actions);
                    for request in later {
                        let answer = Answer::Failed(Error::NoSuchSpace);
                        self.answer(&request, answer, actions);
                    }
                    return;
                }
                let with_home = span.contains(self.own);
                let change = Change::Span { with_home };
                self.begin_round(space, request, span, change, with_home, actions);
                return;
            }
        };
        self.answer(&request, answer, actions);
    }

    fn begin_round(
        &mut self,
        space: SpaceId,
        request: Request,
        set: CoreSet,
        change: Change,
        works: bool,
        actions: &mut Vec<Action>,
    ) {
        let begun = self.round.begin(set, change.payload(space), works);
        let Some(home) = self.homes.get_mut(&space) else {
            return;
        };
        match begun {
            Some((sequence, of_round)) => {
                home.active.insert(sequence, request);
                self.rounds.insert(sequence, space);
                self.carry_out(of_round, actions);
            }
            // It was said that there is room; the next round that ends tries again.
            None => home.queue.push_front(request),
        }
    }

    fn round_done(&mut self, sequence: u32, actions: &mut Vec<Action>) {
        let Some(space) = self.rounds.remove(&sequence) else {
            return;
        };
        let home = self.homes.get_mut(&space);
        let Some(request) = home.and_then(|home| home.active.remove(&sequence)) else {
            return;
        };
        self.complete(space, &request, actions);
        self.pump(space, actions);
        if core::mem::take(&mut self.is_starved) {
            // There is room for a round again.
            let waits =
                |(space, home): (&SpaceId, &Home)| (!home.queue.is_empty()).then_some(*space);
            let waiting: Vec<SpaceId> = self.homes.iter().filter_map(waits).collect();
            for space in waiting {
                self.pump(space, actions);
            }
        }
    }

    /// All who are concerned have done what was asked.
    fn complete(&mut self, space: SpaceId, request: &Request, actions: &mut Vec<Action>) {
        if let Some(home) = self.homes.get_mut(&space) {
            match request.ask {
                Ask::Restrict { pages, rights } => {
                    for (mut mapping, holders) in home.table.carve(pages) {
                        mapping.rights = rights;
                        if rights != Rights::NONE {
                            home.table.put(mapping, holders);
                        }
                    }
                }
                Ask::Join { .. } | Ask::Leave | Ask::Settle => {
                    home.span = span_after(home, request);
                    let span = &home.span;
                    let left = |core: &usize| !span.contains(*core);
                    for entry in home.table.0.values_mut() {
                        let gone: CoreSet = entry.holders.iter().filter(left).collect();
                        entry.holders.subtract(&gone);
                    }
                }
                Ask::Map { .. } | Ask::Fetch { .. } => {}
            }
        }
        self.answer(request, Answer::Done, actions);
    }

    fn answer(&mut self, request: &Request, answer: Answer, actions: &mut Vec<Action>) {
        let (from, sequence) = (request.from, request.sequence);
        match request.ask {
            Ask::Settle => return,
            // Asked again, it is done again.
            Ask::Fetch { .. } => {}
            _ => {
                let answered = self.answered.entry(from).or_default();
                answered.truncate(WINDOW - 1);
                let later = match answer {
                    // What was granted may be gone by then.
                    Answer::Grant(_) => Answer::Done,
                    other => other,
                };
                answered.push_front((sequence, later));
            }
        }
        self.send(from, Message::Answer { sequence, answer }, actions);
    }

    // View changes.

    /// The home record of a space that somebody reports on.
    fn reporting(&mut self, space: SpaceId) -> &mut Home {
        self.homes.entry(space).or_insert_with(|| Home {
            span: CoreSet::default(),
            table: Table::default(),
            queue: VecDeque::new(),
            active: BTreeMap::new(),
            recovery: Some(Recovery::default()),
        })
    }

    fn reported(&mut self, from: usize, space: SpaceId, span: &CoreSet, actions: &mut Vec<Action>) {
        let view = self.view.cores.clone();
        let home = self.reporting(space);
        let Some(recovery) = &mut home.recovery else {
            let settle = settle(from);
            if !home.queue.contains(&settle) {
                home.queue.push_back(settle);
            }
            self.pump(space, actions);
            return;
        };
        home.span.insert(from);
        recovery.waiting.remove(from);
        let is_new = |core: &usize| {
            let known = [&home.span, &recovery.waiting, &recovery.absent];
            view.contains(*core) && !known.into_iter().any(|known| known.contains(*core))
        };
        let new: CoreSet = span.iter().filter(is_new).collect();
        recovery.waiting.extend(&new);
        for core in new.iter() {
            self.send(core, Message::Query { space }, actions);
        }
        self.recover(space, actions);
    }

    /// Goes on if all have reported.
    fn recover(&mut self, space: SpaceId, actions: &mut Vec<Action>) {
        if let Some(home) = self.homes.get_mut(&space)
            && let Some(first) = home.span.lowest()
            && let Some(recovery) = &home.recovery
            && recovery.waiting.is_empty()
        {
            home.recovery = None;
            home.queue.push_front(settle(first));
            self.pump(space, actions);
        }
    }

    /// Another view holds. All messages of the view before are lost.
    pub fn installed(&mut self, view: &View) -> Vec<Action> {
        let mut actions = Vec::new();
        self.view = view.clone();
        self.round.installed(view);
        self.rounds.clear();
        self.is_starved = false;
        let is_up = |core: &usize| view.cores.contains(*core);
        let living = |cores: &CoreSet| cores.iter().filter(is_up).collect::<CoreSet>();
        self.answered.retain(|core, _| is_up(core));
        let mut disturbed = Vec::new();
        self.homes.retain(|space, home| {
            home.span = living(&home.span);
            home.queue.clear();
            let active = core::mem::take(&mut home.active);
            for request in active.values() {
                // Some were told and some not: those who may take themselves for members are.
                match request.ask {
                    Ask::Join { core } if is_up(&core) => home.span.insert(core),
                    Ask::Settle if is_up(&request.from) => home.span.insert(request.from),
                    Ask::Join { .. } | Ask::Leave | Ask::Settle => {}
                    _ => continue,
                }
                if let Some(first) = home.span.lowest() {
                    home.queue.push_back(settle(first));
                    disturbed.push(*space);
                }
            }
            for entry in home.table.0.values_mut() {
                entry.holders = living(&entry.holders);
            }
            // Whoever has reported does so again.
            home.recovery.is_none() && !home.span.is_empty()
        });
        let mut reports = Vec::new();
        for (space, replica) in &mut self.replicas {
            replica.span = living(&replica.span);
            if !is_up(&replica.home) {
                replica.home = view.cores.next_after(replica.home).unwrap_or(self.own);
                replica.is_settled = false;
                for operation in self.operations.values_mut() {
                    if let Ask::Map { again, .. } = &mut operation.ask
                        && operation.space == *space
                    {
                        *again = true;
                    }
                }
            }
            if !replica.is_settled {
                let held = replica.table.0.iter();
                for (first, entry) in held {
                    let mapping = entry.mapping(*first);
                    let space = *space;
                    reports.push((replica.home, Message::Holding { space, mapping }));
                }
                let span = replica.span.clone();
                let space = *space;
                reports.push((replica.home, Message::Reported { space, span }));
            }
        }
        for (home, message) in reports {
            self.send(home, message, &mut actions);
        }
        for space in disturbed {
            self.pump(space, &mut actions);
        }
        let asked = |operation: &Operation| matches!(operation.stage, Stage::Asked { .. });
        let operations = self.operations.iter();
        let again: Vec<u32> = operations
            .filter(|(_, operation)| asked(operation))
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in again {
            self.ask(sequence, &mut actions);
        }
        self.release(&mut actions);
        actions
    }
}

fn refuse(token: u64, error: Error) -> Vec<Action> {
    let result = Err(error);
    [Action::Done { token, result }].into()
}

/// Asks to tell all the span.
fn settle(from: usize) -> Request {
    Request {
        from,
        sequence: 0,
        ask: Ask::Settle,
    }
}

/// The span after what was asked.
fn span_after(home: &Home, request: &Request) -> CoreSet {
    let mut span = home.span.clone();
    match request.ask {
        Ask::Join { core } => span.insert(core),
        Ask::Settle => span.insert(request.from),
        Ask::Leave => {
            span.remove(request.from);
        }
        _ => {}
    }
    span
}

#[cfg(test)]
mod tests;
