//! What every core has of the registry: one core's replica, and the updates that change it.

use super::{MAX_NAMES, NAME_BYTES};
use crate::core_set::CoreSet;
use crate::view::Epoch;
use alloc::collections::BTreeMap;
use core::fmt;

/// A name: 1 to 32 bytes, none of them 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name([u8; NAME_BYTES]);

impl Name {
    /// The name of these bytes; `None` if they are none, too many, or have a 0 among them.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() || bytes.contains(&0) {
            return None;
        }
        let mut name = [0; NAME_BYTES];
        name.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self(name))
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        let end = self.0.iter().position(|byte| *byte == 0);
        &self.0[..end.unwrap_or(NAME_BYTES)]
    }

    /// As words of a message, the first byte lowest.
    pub fn words(self) -> [u64; 4] {
        let (words, _) = self.0.as_chunks::<8>();
        core::array::from_fn(|at| u64::from_le_bytes(words[at]))
    }

    /// From words of a message; `None` if they are no name.
    pub fn from_words(words: [u64; 4]) -> Option<Self> {
        let mut bytes = [0; NAME_BYTES];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        let name = Self(bytes);
        let length = name.bytes().len();
        (length > 0 && bytes[length..].iter().all(|byte| *byte == 0)).then_some(name)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{}\"", self.bytes().escape_ascii())
    }
}

/// Who has bound a name, and alone may bind it anew or unbind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The core.
    pub core: u16,
    /// The domain; the core uses no number twice.
    pub domain: u32,
}

/// What a name is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Binding {
    /// The value: nothing is known of it here.
    pub value: u64,
    /// Who has bound it.
    pub owner: Owner,
}

/// What an update does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Binds a name to a value.
    Bind {
        /// The name.
        name: Name,
        /// The value.
        value: u64,
    },
    /// Takes a binding away.
    Unbind {
        /// The name.
        name: Name,
    },
    /// Takes all bindings of the owner away.
    Clear,
}

/// An update, known by its owner's core and the sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Update {
    /// For whom; its core is the one that asks for it.
    pub owner: Owner,
    /// Number among that core's requests; goes round.
    pub sequence: u16,
    /// What it does.
    pub change: Change,
}

impl Update {
    /// The one name that it changes.
    pub(super) fn name(&self) -> Option<&Name> {
        match &self.change {
            Change::Bind { name, .. } | Change::Unbind { name } => Some(name),
            Change::Clear => None,
        }
    }

    /// Whether it and another may not be under way at once: what became of the one decides whether
    /// the other can be.
    pub(super) fn conflicts(&self, other: &Self) -> bool {
        match (self.name(), other.name()) {
            (Some(name), Some(other)) => name == other,
            _ => self.owner == other.owner,
        }
    }
}

/// Why an update comes to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The name belongs to another owner.
    AlreadyBound = 1,
    /// The name is not bound.
    NotBound = 2,
    /// The binding belongs to another owner.
    NotOwner = 3,
    /// There is no room for another name.
    Full = 4,
    /// Too many requests of this core are under way.
    Busy = 5,
}

impl Refusal {
    pub(super) fn from_word(word: u32) -> Option<Self> {
        let all = [
            Self::AlreadyBound,
            Self::NotBound,
            Self::NotOwner,
            Self::Full,
            Self::Busy,
        ];
        all.into_iter().find(|refusal| *refusal as u32 == word)
    }
}

/// How far a replica is: updates are counted anew in each epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Epoch of the view in which all were last brought to one state; 0 on a core that never was.
    pub epoch: Epoch,
    /// Updates since then.
    pub counter: u32,
}

/// Which of a core's last requests were committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Last {
    /// The last that was.
    pub sequence: u16,
    /// Bit `n`: the one with a number lower by `n` was, too.
    pub bits: u16,
}

impl Last {
    pub(super) fn contains(self, sequence: u16) -> bool {
        let back = self.sequence.wrapping_sub(sequence);
        back < 16 && self.bits >> back & 1 != 0
    }

    fn insert(&mut self, sequence: u16) {
        let ahead = sequence.wrapping_sub(self.sequence);
        let moved = self.bits.checked_shl(u32::from(ahead)).unwrap_or(0);
        *self = Self {
            sequence,
            bits: moved | 1,
        };
    }
}

/// One core's copy of the registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Replica {
    /// How far it is.
    pub version: Version,
    /// What is bound.
    pub bindings: BTreeMap<Name, Binding>,
    /// What is done of the cores' requests, so that none is done twice.
    pub done: BTreeMap<u16, Last>,
}

impl Replica {
    /// Whether an update can be, as things are.
    pub(super) fn judge(&self, update: &Update) -> Result<(), Refusal> {
        let bound = update.name().map(|name| self.bindings.get(name));
        let is_ours = |binding: &Binding| binding.owner == update.owner;
        match (update.change, bound.flatten()) {
            (Change::Bind { .. }, Some(binding)) if !is_ours(binding) => Err(Refusal::AlreadyBound),
            (Change::Bind { .. }, None) if self.bindings.len() >= MAX_NAMES => Err(Refusal::Full),
            (Change::Unbind { .. }, None) => Err(Refusal::NotBound),
            (Change::Unbind { .. }, Some(binding)) if !is_ours(binding) => Err(Refusal::NotOwner),
            (Change::Clear, _) if !self.bindings.values().any(is_ours) => Err(Refusal::NotBound),
            _ => Ok(()),
        }
    }

    /// Whether a read of this name may see what the update does.
    pub(super) fn is_touched(&self, name: &Name, by: &Update) -> bool {
        let of_owner = |binding: &Binding| binding.owner == by.owner;
        match by.name() {
            Some(changed) => changed == name,
            None => self.bindings.get(name).is_some_and(of_owner),
        }
    }

    /// Carries out the next update. Hands every name that changes to `changed`.
    pub(super) fn apply(&mut self, update: &Update, mut changed: impl FnMut(Name, Option<u64>)) {
        self.version.counter += 1;
        let core = update.owner.core;
        let last = self.done.entry(core).or_default();
        last.insert(update.sequence);
        match update.change {
            Change::Bind { name, value } => {
                let owner = update.owner;
                self.bindings.insert(name, Binding { value, owner });
                changed(name, Some(value));
            }
            Change::Unbind { name } => {
                self.bindings.remove(&name);
                changed(name, None);
            }
            Change::Clear => self.remove(|owner| owner == update.owner, changed),
        }
    }

    fn remove(
        &mut self,
        is_gone: impl Fn(Owner) -> bool,
        mut changed: impl FnMut(Name, Option<u64>),
    ) {
        self.bindings.retain(|name, binding| {
            let stays = !is_gone(binding.owner);
            if !stays {
                changed(*name, None);
            }
            stays
        });
    }

    /// The first version of an epoch: nothing is left of cores that do not stay.
    pub(super) fn begin(
        &mut self,
        epoch: Epoch,
        stays: &CoreSet,
        changed: impl FnMut(Name, Option<u64>),
    ) {
        self.leave_only(stays, changed);
        self.version = Version { epoch, counter: 0 };
    }

    /// Takes away what cores had that do not stay.
    pub(super) fn leave_only(&mut self, stays: &CoreSet, changed: impl FnMut(Name, Option<u64>)) {
        let is_gone = |core: u16| !stays.contains(core.into());
        self.remove(|owner| is_gone(owner.core), changed);
        self.done.retain(|core, _| !is_gone(*core));
    }
}
