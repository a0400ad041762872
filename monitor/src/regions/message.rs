//! What the monitors say to each other about regions, and how it lies in a line.
//!
//! ```text
//!  word 0   sequence number, slot or generation, 32 bits
//!  word 1   base of the region
//!  word 2   its kind (bits 0-6), whether its home is an heir (7), depth (8-15), length in its units
//!           (16-55), home core (56-63)
//!  words 3-6 of the message's own: ranges as start and end, cores as numbers or as a set
//! ```
//!
//! The unit of a length is a page for memory, and one port, line or vector for the rest.

use super::{Error, OpId, Region};
use super::{GONE, Kind};
use crate::core_set::CoreSet;
use abi::capability::Resource;
use abi::layout::PAGE;
use core::ops::Range;

/// What an initiator asks of an owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Give a copy to a core.
    Send {
        /// What the copy may be used for, and by whom; the protocol hands it on unread.
        terms: u128,
        /// The core.
        to: usize,
        /// The lowest sequence number that the initiator still waits for.
        oldest: u32,
    },
    /// Objects are to be made in this range.
    Retype(Range<u64>),
    /// The objects made in this range are gone; the sequence number is the one it was granted to.
    Untype(Range<u64>, u32),
    /// The initiator has neither a copy nor a piece any more.
    Drop,
    /// Nobody but the initiator is to hold the region.
    Revoke,
}

/// Messages between two monitors, each about one region but [`Message::Claimed`],
/// [`Message::Missed`] and [`Message::Adopted`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The fields that all have: `sequence` of the request, and `region`.
pub enum Message {
    /// Initiator to owner.
    Request {
        sequence: u32,
        region: Region,
        request: Request,
    },
    /// Owner to initiator: how it ended.
    Answer {
        sequence: u32,
        region: Region,
        result: Result<(), Error>,
    },
    /// The sender does not own the region (any more): whoever told the receiver so is right.
    Moved { sequence: u32, region: Region },
    /// Owner to receiver: a copy.
    Offer {
        id: OpId,
        region: Region,
        terms: u128,
        home: usize,
        generation: u32,
        oldest: u32,
    },
    /// Receiver to owner: whether the copy was put into a slot, and whether any is there now.
    Offered {
        id: OpId,
        region: Region,
        result: Result<(), Error>,
        holds: bool,
    },
    /// Owner to holder: begin nothing with the region from now on.
    Prepare { region: Region, generation: u32 },
    /// Holder to owner: nothing is under way with it here.
    Prepared { region: Region, generation: u32 },
    /// Owner to holder: remove it, but the copies of the revoker. A slot is used again when its
    /// revoke has ended everywhere.
    Commit {
        region: Region,
        generation: u32,
        slot: u8,
        revoker: usize,
    },
    /// Holder to owner: removed; whether a copy is left (the revoker's).
    Committed {
        region: Region,
        generation: u32,
        holds: bool,
    },
    /// Owner to the next owner, before [`Message::Handover`]: a range that was retyped.
    Typed {
        region: Region,
        range: Range<u64>,
        maker: usize,
        sequence: u32,
        is_bequest: bool,
    },
    /// Owner to the next owner: the record. `answers` is the sequence number of the receiver's
    /// revoke that ended with it, 0 for none.
    Handover {
        region: Region,
        answers: u32,
        home: usize,
        has_heir: bool,
        holders: CoreSet,
    },
    /// Next owner to owner: everybody knows; forget the record.
    Took { region: Region },
    /// Owner to next owner: forgotten, it is yours.
    Released { region: Region },
    /// To holders and home: the sender owns the region from now on (or will, when all know).
    Owner { region: Region, home: usize },
    /// The answer.
    Noted { region: Region },
    /// Owner to home: nobody holds the region.
    Gone { region: Region },
    /// The answer: forget the record.
    Returned { region: Region },
    /// To the recoverer: the owner that the sender knew is dead.
    Claim {
        region: Region,
        generation: u32,
        home: usize,
        holds: bool,
    },
    /// After its [`Message::Claim`]: a range that the sender retyped.
    ClaimTyped {
        region: Region,
        range: Range<u64>,
        sequence: u32,
        is_inherited: bool,
    },
    /// To the recoverer: the sender has removed what it held, for a revoke of a dead owner.
    ClaimRevoked {
        region: Region,
        generation: u32,
        revoker: usize,
    },
    /// To the recoverer: the sender owns the region, and some may not know.
    Owned { region: Region },
    /// To the recoverer: the home of this region is dead, and the sender owns the region.
    Inherit { region: Region },
    /// To the recoverer: a range of the sender's region that a dead core had retyped.
    Bequeath {
        region: Region,
        range: Range<u64>,
        sequence: u32,
        generation: u32,
        home: usize,
    },
    /// To the recoverer: that was all.
    Claimed,
    /// Before [`Message::Claimed`], to the recoverer: this core was in the view of this round and is
    /// dead, and nobody has adopted its memory, for all the sender knows.
    Missed { core: usize, round: u32 },
    /// Before [`Message::Claimed`], to the recoverer: the sender has adopted the memory of the lives
    /// of this core up to the one in the view of this round. Later, from the recoverer: somebody has.
    Adopted { core: usize, round: u32 },
    /// Recoverer to a claimant: this core owns the region; `None`: there is none such any more.
    Redirect {
        region: Region,
        owner: Option<usize>,
    },
}

/// Kinds of the messages on the wire.
mod kind {
    use crate::kinds;

    pub const SEND: u16 = kinds::kind(&kinds::REGIONS, 0);
    pub const RETYPE: u16 = kinds::kind(&kinds::REGIONS, 1);
    pub const UNTYPE: u16 = kinds::kind(&kinds::REGIONS, 2);
    pub const DROP: u16 = kinds::kind(&kinds::REGIONS, 3);
    pub const REVOKE: u16 = kinds::kind(&kinds::REGIONS, 4);
    pub const ANSWER: u16 = kinds::kind(&kinds::REGIONS, 5);
    pub const MOVED: u16 = kinds::kind(&kinds::REGIONS, 6);
    pub const OFFER: u16 = kinds::kind(&kinds::REGIONS, 7);
    pub const OFFERED: u16 = kinds::kind(&kinds::REGIONS, 8);
    pub const PREPARE: u16 = kinds::kind(&kinds::REGIONS, 9);
    pub const PREPARED: u16 = kinds::kind(&kinds::REGIONS, 10);
    pub const COMMIT: u16 = kinds::kind(&kinds::REGIONS, 11);
    pub const COMMITTED: u16 = kinds::kind(&kinds::REGIONS, 12);
    pub const TYPED: u16 = kinds::kind(&kinds::REGIONS, 13);
    pub const HANDOVER: u16 = kinds::kind(&kinds::REGIONS, 14);
    pub const TOOK: u16 = kinds::kind(&kinds::REGIONS, 15);
    pub const RELEASED: u16 = kinds::kind(&kinds::REGIONS, 16);
    pub const OWNER: u16 = kinds::kind(&kinds::REGIONS, 17);
    pub const NOTED: u16 = kinds::kind(&kinds::REGIONS, 18);
    pub const GONE: u16 = kinds::kind(&kinds::REGIONS, 19);
    pub const RETURNED: u16 = kinds::kind(&kinds::REGIONS, 20);
    pub const CLAIM: u16 = kinds::kind(&kinds::REGIONS, 21);
    pub const CLAIM_TYPED: u16 = kinds::kind(&kinds::REGIONS, 22);
    pub const CLAIM_REVOKED: u16 = kinds::kind(&kinds::REGIONS, 23);
    pub const OWNED: u16 = kinds::kind(&kinds::REGIONS, 24);
    pub const INHERIT: u16 = kinds::kind(&kinds::REGIONS, 25);
    pub const CLAIMED: u16 = kinds::kind(&kinds::REGIONS, 26);
    pub const BEQUEATH: u16 = kinds::kind(&kinds::REGIONS, 27);
    pub const REDIRECT: u16 = kinds::kind(&kinds::REGIONS, 28);
    pub const MISSED: u16 = kinds::kind(&kinds::REGIONS, 29);
    pub const ADOPTED: u16 = kinds::kind(&kinds::REGIONS, 30);
}

/// Set in the word of the region's shape where its home is an heir.
const HEIR: u64 = 1 << 7;

/// A core and the round of a view that it was in.
fn life(core: usize, round: u32) -> [u64; 7] {
    [0, core as u64, u64::from(round), 0, 0, 0, 0]
}

/// Units of a kind's lengths, in what its ranges number.
fn unit(kind: Kind) -> u64 {
    match kind.resource() {
        Some(Resource::Memory) => PAGE,
        _ => 1,
    }
}

/// First word, region, home, and the message's own words.
fn line(first: u32, region: &Region, home: usize, own: [u64; 4]) -> [u64; 7] {
    let shape = region.kind as u64
        | u64::from(region.depth) << 8
        | (region.bytes / unit(region.kind)) << 16
        | (home as u64) << 56;
    let [a, b, c, d] = own;
    [u64::from(first), region.base, shape, a, b, c, d]
}

fn result_word(result: Result<(), Error>) -> u64 {
    result.map_or_else(|error| error as u64, |()| 0)
}

fn result_from(word: u64) -> Option<Result<(), Error>> {
    if word == 0 {
        return Some(Ok(()));
    }
    let error = Error::ALL.into_iter().find(|error| *error as u64 == word);
    error.map(Err)
}

impl Message {
    /// As kind and words.
    pub fn encode(&self) -> (u16, [u64; 7]) {
        match self {
            Self::Request {
                sequence,
                region,
                request,
            } => {
                let (kind, own) = match request {
                    Request::Send { terms, to, oldest } => {
                        let numbers = *to as u64 | u64::from(*oldest) << 32;
                        (
                            kind::SEND,
                            [*terms as u64, (*terms >> 64) as u64, numbers, 0],
                        )
                    }
                    Request::Retype(range) => (kind::RETYPE, [range.start, range.end, 0, 0]),
                    Request::Untype(range, granted) => {
                        let granted = u64::from(*granted);
                        (kind::UNTYPE, [range.start, range.end, granted, 0])
                    }
                    Request::Drop => (kind::DROP, [0; 4]),
                    Request::Revoke => (kind::REVOKE, [0; 4]),
                };
                (kind, line(*sequence, region, 0, own))
            }
            Self::Answer {
                sequence,
                region,
                result,
            } => {
                let own = [result_word(*result), 0, 0, 0];
                (kind::ANSWER, line(*sequence, region, 0, own))
            }
            Self::Moved { sequence, region } => (kind::MOVED, line(*sequence, region, 0, [0; 4])),
            Self::Offer {
                id,
                region,
                terms,
                home,
                generation,
                oldest,
            } => {
                let numbers = u64::from(*generation) | u64::from(*oldest) << 32;
                let own = [
                    *terms as u64,
                    (*terms >> 64) as u64,
                    numbers,
                    id.core as u64,
                ];
                (kind::OFFER, line(id.sequence, region, *home, own))
            }
            Self::Offered {
                id,
                region,
                result,
                holds,
            } => {
                let own = [result_word(*result), id.core as u64, u64::from(*holds), 0];
                (kind::OFFERED, line(id.sequence, region, 0, own))
            }
            Self::Prepare { region, generation } => {
                (kind::PREPARE, line(*generation, region, 0, [0; 4]))
            }
            Self::Prepared { region, generation } => {
                (kind::PREPARED, line(*generation, region, 0, [0; 4]))
            }
            Self::Commit {
                region,
                generation,
                slot,
                revoker,
            } => {
                let own = [u64::from(*slot), *revoker as u64, 0, 0];
                (kind::COMMIT, line(*generation, region, 0, own))
            }
            Self::Committed {
                region,
                generation,
                holds,
            } => {
                let own = [u64::from(*holds), 0, 0, 0];
                (kind::COMMITTED, line(*generation, region, 0, own))
            }
            Self::Typed {
                region,
                range,
                maker,
                sequence,
                is_bequest,
            } => {
                let flag = u64::from(*is_bequest);
                let own = [range.start, range.end, *maker as u64, flag];
                (kind::TYPED, line(*sequence, region, 0, own))
            }
            Self::Handover {
                region,
                answers,
                home,
                has_heir,
                holders,
            } => {
                let mut words = line(*answers, region, *home, holders.words());
                words[2] |= if *has_heir { HEIR } else { 0 };
                (kind::HANDOVER, words)
            }
            Self::Took { region } => (kind::TOOK, line(0, region, 0, [0; 4])),
            Self::Released { region } => (kind::RELEASED, line(0, region, 0, [0; 4])),
            Self::Owner { region, home } => (kind::OWNER, line(0, region, *home, [0; 4])),
            Self::Noted { region } => (kind::NOTED, line(0, region, 0, [0; 4])),
            Self::Gone { region } => (kind::GONE, line(0, region, 0, [0; 4])),
            Self::Returned { region } => (kind::RETURNED, line(0, region, 0, [0; 4])),
            Self::Claim {
                region,
                generation,
                home,
                holds,
            } => {
                let own = [u64::from(*holds), u64::from(*home >= GONE), 0, 0];
                (kind::CLAIM, line(*generation, region, *home % GONE, own))
            }
            Self::ClaimTyped {
                region,
                range,
                sequence,
                is_inherited,
            } => {
                let own = [range.start, range.end, u64::from(*is_inherited), 0];
                (kind::CLAIM_TYPED, line(*sequence, region, 0, own))
            }
            Self::ClaimRevoked {
                region,
                generation,
                revoker,
            } => {
                let own = [*revoker as u64, 0, 0, 0];
                (kind::CLAIM_REVOKED, line(*generation, region, 0, own))
            }
            Self::Owned { region } => (kind::OWNED, line(0, region, 0, [0; 4])),
            Self::Inherit { region } => (kind::INHERIT, line(0, region, 0, [0; 4])),
            Self::Bequeath {
                region,
                range,
                sequence,
                generation,
                home,
            } => {
                let own = [range.start, range.end, u64::from(*generation), 0];
                (kind::BEQUEATH, line(*sequence, region, *home, own))
            }
            Self::Claimed => (kind::CLAIMED, [0; 7]),
            Self::Missed { core, round } => (kind::MISSED, life(*core, *round)),
            Self::Adopted { core, round } => (kind::ADOPTED, life(*core, *round)),
            Self::Redirect { region, owner } => {
                let own = [owner.map_or(0, |owner| owner as u64 + 1), 0, 0, 0];
                (kind::REDIRECT, line(0, region, 0, own))
            }
        }
    }

    /// From kind and words; `None` for messages that are not about regions, or make no sense.
    pub fn decode(kind: u16, words: &[u64; 7]) -> Option<Self> {
        if kind == kind::CLAIMED {
            return Some(Self::Claimed);
        }
        if [kind::MISSED, kind::ADOPTED].contains(&kind) {
            let [_, core, round, ..] = *words;
            let core = usize::try_from(core).ok().filter(|core| *core < GONE)?;
            let round = round as u32;
            return Some(match kind {
                kind::MISSED => Self::Missed { core, round },
                _ => Self::Adopted { core, round },
            });
        }
        if !(kind::SEND..=kind::REDIRECT).contains(&kind) {
            return None;
        }
        let [first, base, shape, a, b, c, d] = *words;
        let of_region = Kind::from_code(shape & 0x7f)?;
        let region = Region {
            kind: of_region,
            base,
            bytes: (shape >> 16 & ((1 << 40) - 1)) * unit(of_region),
            depth: (shape >> 8) as u8,
        };
        let sequence = first as u32;
        let generation = sequence;
        let home = (shape >> 56) as usize;
        let request = |request| {
            Some(Self::Request {
                sequence,
                region,
                request,
            })
        };
        let id = OpId {
            core: b as usize,
            sequence,
        };
        let terms = u128::from(a) | u128::from(b) << 64;
        Some(match kind {
            kind::SEND => {
                return request(Request::Send {
                    terms,
                    to: (c as u32) as usize,
                    oldest: (c >> 32) as u32,
                });
            }
            kind::RETYPE => return request(Request::Retype(a..b)),
            kind::UNTYPE => return request(Request::Untype(a..b, c as u32)),
            kind::DROP => return request(Request::Drop),
            kind::REVOKE => return request(Request::Revoke),
            kind::ANSWER => Self::Answer {
                sequence,
                region,
                result: result_from(a)?,
            },
            kind::MOVED => Self::Moved { sequence, region },
            kind::OFFER => Self::Offer {
                id: OpId {
                    core: d as usize,
                    sequence,
                },
                region,
                terms,
                home,
                generation: c as u32,
                oldest: (c >> 32) as u32,
            },
            kind::OFFERED => Self::Offered {
                id,
                region,
                result: result_from(a)?,
                holds: c != 0,
            },
            kind::PREPARE => Self::Prepare { region, generation },
            kind::PREPARED => Self::Prepared { region, generation },
            kind::COMMIT => Self::Commit {
                region,
                generation,
                slot: a as u8,
                revoker: b as usize,
            },
            kind::COMMITTED => Self::Committed {
                region,
                generation,
                holds: a != 0,
            },
            kind::TYPED => Self::Typed {
                region,
                range: a..b,
                maker: c as usize,
                sequence,
                is_bequest: d != 0,
            },
            kind::HANDOVER => Self::Handover {
                region,
                answers: sequence,
                home,
                has_heir: shape & HEIR != 0,
                holders: CoreSet::from_words([a, b, c, d]),
            },
            kind::TOOK => Self::Took { region },
            kind::RELEASED => Self::Released { region },
            kind::OWNER => Self::Owner { region, home },
            kind::NOTED => Self::Noted { region },
            kind::GONE => Self::Gone { region },
            kind::RETURNED => Self::Returned { region },
            kind::CLAIM => Self::Claim {
                region,
                generation,
                home: if b == 0 { home } else { home | GONE },
                holds: a != 0,
            },
            kind::CLAIM_TYPED => Self::ClaimTyped {
                region,
                range: a..b,
                sequence,
                is_inherited: c != 0,
            },
            kind::CLAIM_REVOKED => Self::ClaimRevoked {
                region,
                generation,
                revoker: a as usize,
            },
            kind::OWNED => Self::Owned { region },
            kind::INHERIT => Self::Inherit { region },
            kind::BEQUEATH => Self::Bequeath {
                region,
                range: a..b,
                sequence,
                generation: c as u32,
                home,
            },
            kind::REDIRECT => Self::Redirect {
                region,
                owner: a.checked_sub(1).map(|owner| owner as usize),
            },
            _ => return None,
        })
    }
}
