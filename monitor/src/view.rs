//! Views: which cores are up, and the epochs that tell them apart.

use crate::core_set::CoreSet;
use core::fmt;

/// Number of a view. No two views have the same: a coordinator uses no round twice, and its own
/// number is part of the epoch.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    /// Counts the attempts to agree on a view; 0 before the first.
    pub round: u32,
    /// The core that led this one.
    pub coordinator: u16,
}

impl Epoch {
    /// The round that `core` leads after this epoch; after the last round it is not higher.
    pub fn next(self, core: usize) -> Self {
        Self {
            round: self.round.saturating_add(1),
            coordinator: core as u16,
        }
    }

    /// As one word.
    pub fn word(self) -> u64 {
        u64::from(self.round) << 16 | u64::from(self.coordinator)
    }

    /// From one word.
    pub fn from_word(word: u64) -> Self {
        Self {
            round: (word >> 16) as u32,
            coordinator: word as u16,
        }
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.round, self.coordinator)
    }
}

/// Which cores are up, and what they have set alike. Views of one epoch are equal everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct View {
    /// Its number.
    pub epoch: Epoch,
    /// The cores.
    pub cores: CoreSet,
    /// What all of them have set alike; 0 in the first view. What it means is up to who sets it: see
    /// [`crate::membership::Membership::configure`].
    pub settings: u32,
}

impl View {
    /// The core that decides on the next view, and on the order of whatever is the same
    /// everywhere: the lowest.
    pub fn coordinator(&self) -> Option<usize> {
        self.cores.lowest()
    }
}
