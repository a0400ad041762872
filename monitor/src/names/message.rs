//! What the monitors say to each other about names, and how it looks on the wire.
//!
//! | message                        | word 0                   | 1 to 4 | 5     | 6                 |
//! |--------------------------------|--------------------------|--------|-------|-------------------|
//! | Request, Prepare, Commit, Held | counter (of a version)   | name   | value | owner, sequence   |
//! | Entry                          |                          | name   | value | owner             |
//! | Prepared                       | counter                  |        |       |                   |
//! | Refused                        | sequence, refusal        |        |       |                   |
//! | State, Fetch, Fetched          | counter                  | epoch  |       |                   |
//! | Last                           | core, sequence           | bits   |       |                   |
//! | Whole                          |                          |        |       |                   |
//! | Synced                         | counter                  | fresh  | epoch |                   |
//!
//! Word 0 has 32 bits of ours. Word 6 is the core in bits 0 to 15, the sequence number in bits 16 to
//! 31, the domain above.

use super::{Binding, Change, Last, Name, Owner, Refusal, Update, Version};
use crate::core_set::{CoreSet, WORDS};
use crate::view::Epoch;

/// Messages between two monitors.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// To the coordinator: the sender, whose the update is, answers no reads of its names until it
    /// is committed or refused.
    Request(Update),
    /// The coordinator gives an update this version: answer no reads of its names.
    Prepare {
        /// The version, within this epoch.
        counter: u32,
        /// What is to be done.
        update: Update,
    },
    /// The sender answers no reads of them.
    Prepared {
        /// The version.
        counter: u32,
    },
    /// This update is in force.
    Commit {
        /// The version, within the epoch of the receiver's replica.
        counter: u32,
        /// What has been done.
        update: Update,
    },
    /// The sender's request comes to nothing.
    Refused {
        /// Number of the request.
        sequence: u16,
        /// Why.
        refusal: Refusal,
    },
    /// To the coordinator of a new view: the sender has prepared this, and has not heard that it was
    /// committed. Comes before its [`Message::State`].
    Held {
        /// The version, within the epoch of the sender's replica.
        counter: u32,
        /// What was prepared.
        update: Update,
    },
    /// To the coordinator of a new view: the sender's replica is at this version, and it answers no
    /// reads.
    State(Version),
    /// From the coordinator: the sender's replica is at this version only, and the receiver's is ahead.
    Fetch(Version),
    /// A whole replica follows: what the receiver has is of no use.
    Whole,
    /// One binding of it.
    Entry {
        /// The name.
        name: Name,
        /// What it is bound to.
        binding: Binding,
    },
    /// What is done of a core's requests.
    Last {
        /// The core.
        core: u16,
        /// Its last requests.
        last: Last,
    },
    /// With what came before, the receiver is at this version.
    Fetched(Version),
    /// With what came before, the receiver is at this version. Bindings of cores that are not in the
    /// view, or have joined only now, are void; that is the first version of this epoch.
    Synced {
        /// The version, before that.
        version: Version,
        /// Cores that have joined.
        fresh: CoreSet,
    },
}

/// Kinds of the messages on the wire.
mod kind {
    use crate::kinds;

    /// The first of three, by what changes: bind, unbind, clear.
    pub const REQUEST: u16 = kinds::kind(&kinds::NAMES, 0);
    pub const PREPARE: u16 = kinds::kind(&kinds::NAMES, 3);
    pub const COMMIT: u16 = kinds::kind(&kinds::NAMES, 6);
    pub const HELD: u16 = kinds::kind(&kinds::NAMES, 9);
    pub const PREPARED: u16 = kinds::kind(&kinds::NAMES, 12);
    pub const REFUSED: u16 = kinds::kind(&kinds::NAMES, 13);
    pub const STATE: u16 = kinds::kind(&kinds::NAMES, 14);
    pub const FETCH: u16 = kinds::kind(&kinds::NAMES, 15);
    pub const WHOLE: u16 = kinds::kind(&kinds::NAMES, 16);
    pub const ENTRY: u16 = kinds::kind(&kinds::NAMES, 17);
    pub const LAST: u16 = kinds::kind(&kinds::NAMES, 18);
    pub const FETCHED: u16 = kinds::kind(&kinds::NAMES, 19);
    pub const SYNCED: u16 = kinds::kind(&kinds::NAMES, 20);
}

fn name_words(name: Option<Name>, first: u32, value: u64, last: u64) -> [u64; 7] {
    let [a, b, c, d] = name.map_or([0; 4], Name::words);
    [u64::from(first), a, b, c, d, value, last]
}

fn owner_word(owner: Owner, sequence: u16) -> u64 {
    u64::from(owner.core) | u64::from(sequence) << 16 | u64::from(owner.domain) << 32
}

fn owner_of(word: u64) -> Owner {
    Owner {
        core: word as u16,
        domain: (word >> 32) as u32,
    }
}

fn encode_update(base: u16, counter: u32, update: &Update) -> (u16, [u64; 7]) {
    let (offset, name, value) = match update.change {
        Change::Bind { name, value } => (0, Some(name), value),
        Change::Unbind { name } => (1, Some(name), 0),
        Change::Clear => (2, None, 0),
    };
    let last = owner_word(update.owner, update.sequence);
    (base + offset, name_words(name, counter, value, last))
}

fn decode_update(offset: u16, words: &[u64; 7]) -> Option<Update> {
    let [_, a, b, c, d, value, last] = *words;
    let name = Name::from_words([a, b, c, d]);
    let change = match offset {
        0 => Change::Bind { name: name?, value },
        1 => Change::Unbind { name: name? },
        _ => Change::Clear,
    };
    Some(Update {
        owner: owner_of(last),
        sequence: (last >> 16) as u16,
        change,
    })
}

impl Message {
    /// As kind and words.
    pub fn encode(&self) -> (u16, [u64; 7]) {
        let two = |first: u32, second| [u64::from(first), second, 0, 0, 0, 0, 0];
        let version = |version: &Version| two(version.counter, version.epoch.word());
        match self {
            Self::Request(update) => encode_update(kind::REQUEST, 0, update),
            Self::Prepare { counter, update } => encode_update(kind::PREPARE, *counter, update),
            Self::Commit { counter, update } => encode_update(kind::COMMIT, *counter, update),
            Self::Held { counter, update } => encode_update(kind::HELD, *counter, update),
            Self::Prepared { counter } => (kind::PREPARED, two(*counter, 0)),
            Self::Refused { sequence, refusal } => {
                let first = u32::from(*sequence) | (*refusal as u32) << 16;
                (kind::REFUSED, two(first, 0))
            }
            Self::State(state) => (kind::STATE, version(state)),
            Self::Fetch(state) => (kind::FETCH, version(state)),
            Self::Fetched(state) => (kind::FETCHED, version(state)),
            Self::Whole => (kind::WHOLE, [0; 7]),
            Self::Entry { name, binding } => {
                let last = owner_word(binding.owner, 0);
                (kind::ENTRY, name_words(Some(*name), 0, binding.value, last))
            }
            Self::Last { core, last } => {
                let first = u32::from(*core) | u32::from(last.sequence) << 16;
                (kind::LAST, two(first, u64::from(last.bits)))
            }
            Self::Synced { version, fresh } => {
                let [a, b, c, d]: [u64; WORDS] = fresh.words();
                let first = u64::from(version.counter);
                (kind::SYNCED, [first, a, b, c, d, version.epoch.word(), 0])
            }
        }
    }

    /// From kind and words; `None` for messages that are not of names, or make no sense.
    pub fn decode(kind: u16, words: &[u64; 7]) -> Option<Self> {
        let [first, a, b, c, d, value, last] = *words;
        let counter = first as u32;
        let update = |base: u16| decode_update(kind - base, words);
        let version = |epoch| Version {
            epoch: Epoch::from_word(epoch),
            counter,
        };
        Some(match kind {
            kind::REQUEST..kind::PREPARE => Self::Request(update(kind::REQUEST)?),
            kind::PREPARE..kind::COMMIT => Self::Prepare {
                counter,
                update: update(kind::PREPARE)?,
            },
            kind::COMMIT..kind::HELD => Self::Commit {
                counter,
                update: update(kind::COMMIT)?,
            },
            kind::HELD..kind::PREPARED => Self::Held {
                counter,
                update: update(kind::HELD)?,
            },
            kind::PREPARED => Self::Prepared { counter },
            kind::REFUSED => Self::Refused {
                sequence: first as u16,
                refusal: Refusal::from_word(counter >> 16)?,
            },
            kind::STATE => Self::State(version(a)),
            kind::FETCH => Self::Fetch(version(a)),
            kind::FETCHED => Self::Fetched(version(a)),
            kind::WHOLE => Self::Whole,
            kind::ENTRY => Self::Entry {
                name: Name::from_words([a, b, c, d])?,
                binding: Binding {
                    value,
                    owner: owner_of(last),
                },
            },
            kind::LAST => Self::Last {
                core: first as u16,
                last: Last {
                    sequence: (first >> 16) as u16,
                    bits: a as u16,
                },
            },
            kind::SYNCED => Self::Synced {
                version: version(value),
                fresh: CoreSet::from_words([a, b, c, d]),
            },
            _ => return None,
        })
    }
}
