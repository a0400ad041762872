//! A set of cores.

use abi::limits::MAX_CORES;
use core::fmt;

/// Words of a set: it fits into one message.
pub const WORDS: usize = MAX_CORES / 64;

/// A set of cores.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct CoreSet([u64; WORDS]);

impl CoreSet {
    /// The set of these words: core `c` is bit `c % 64` of word `c / 64`.
    pub const fn from_words(words: [u64; WORDS]) -> Self {
        Self(words)
    }

    /// Its words.
    pub const fn words(&self) -> [u64; WORDS] {
        self.0
    }

    /// Adds a core; numbers beyond the limit are left out.
    pub fn insert(&mut self, core: usize) {
        if let Some(word) = self.0.get_mut(core / 64) {
            *word |= 1 << (core % 64);
        }
    }

    /// Whether a core is in it.
    pub fn contains(&self, core: usize) -> bool {
        self.0
            .get(core / 64)
            .is_some_and(|word| word >> (core % 64) & 1 != 0)
    }

    /// Adds all of another set.
    pub fn extend(&mut self, other: &Self) {
        for (word, more) in self.0.iter_mut().zip(other.0) {
            *word |= more;
        }
    }

    /// Whether all of another set are in it.
    pub fn contains_all(&self, other: &Self) -> bool {
        self.0
            .iter()
            .zip(other.0)
            .all(|(word, all)| word & all == all)
    }

    /// How many cores are in it.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether no core is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its cores in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + use<> {
        let set = *self;
        (0..MAX_CORES).filter(move |core| set.contains(*core))
    }
}

impl FromIterator<usize> for CoreSet {
    fn from_iter<I: IntoIterator<Item = usize>>(cores: I) -> Self {
        let mut set = Self::default();
        for core in cores {
            set.insert(core);
        }
        set
    }
}

impl fmt::Debug for CoreSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.iter()).finish()
    }
}
