//! A set of cores, as ranges of their numbers: nearly all sets are all cores but a few, and take
//! no more room for thousands of cores than for two. Up to two ranges, and that is what most sets are, take no
//! memory besides the set itself: sets are made and copied with every operation.

use abi::limits::MAX_CORES;
use core::fmt;
use core::ops::Range;
use smallvec::SmallVec;

/// Words of a set in a message: enough for every core of a real machine.
pub const WORDS: usize = MAX_CORES / 64;

/// A set of cores.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct CoreSet {
    /// Not empty, ascending, and with gaps between them.
    ranges: SmallVec<[Range<usize>; 2]>,
}

impl CoreSet {
    /// The cores from 0 to below `cores`.
    pub fn first(cores: usize) -> Self {
        let ranges = core::iter::once(0..cores);
        Self {
            ranges: ranges.filter(|range| !range.is_empty()).collect(),
        }
    }

    /// The set of these words: core `c` is bit `c % 64` of word `c / 64`.
    pub fn from_words(words: [u64; WORDS]) -> Self {
        let mut ranges: SmallVec<[Range<usize>; 2]> = SmallVec::new();
        for (place, mut word) in words.into_iter().enumerate() {
            let mut core = place * 64;
            while word != 0 {
                let gap = word.trailing_zeros();
                word >>= gap;
                core += gap as usize;
                let run = word.trailing_ones();
                word = word.checked_shr(run).unwrap_or(0);
                // A range may go on from one word to the next.
                match ranges.last_mut().filter(|last| last.end == core) {
                    Some(last) => last.end += run as usize,
                    None => ranges.push(core..core + run as usize),
                }
                core += run as usize;
            }
        }
        Self { ranges }
    }

    /// Its words; cores beyond the limit of a message are left out.
    pub fn words(&self) -> [u64; WORDS] {
        let mut words = [0; WORDS];
        for range in &self.ranges {
            for (place, word) in words.iter_mut().enumerate() {
                let within = |core: usize| core.saturating_sub(place * 64).min(64);
                let (start, end) = (within(range.start), within(range.end));
                if start < end {
                    *word |= (u64::MAX >> (64 - (end - start))) << start;
                }
            }
        }
        words
    }

    /// The first range that ends at `core` or behind it.
    fn position(&self, core: usize) -> usize {
        self.ranges.partition_point(|range| range.end < core)
    }

    /// Adds a core.
    pub fn insert(&mut self, core: usize) {
        let at = self.position(core);
        let touched = self.ranges[at..].partition_point(|range| range.start <= core + 1);
        if touched == 0 {
            self.ranges.insert(at, core..core + 1);
            return;
        }
        let end = self.ranges[at + touched - 1].end.max(core + 1);
        let range = &mut self.ranges[at];
        *range = range.start.min(core)..end;
        self.ranges.drain(at + 1..at + touched);
    }

    /// Takes a core out; whether it was in it.
    pub fn remove(&mut self, core: usize) -> bool {
        let at = self.ranges.partition_point(|range| range.end <= core);
        let range = self.ranges.get_mut(at);
        let Some(range) = range.filter(|range| range.contains(&core)) else {
            return false;
        };
        let (before, after) = (range.start..core, core + 1..range.end);
        match (before.is_empty(), after.is_empty()) {
            (true, true) => {
                self.ranges.remove(at);
            }
            (true, false) => *range = after,
            (false, true) => *range = before,
            (false, false) => {
                *range = before;
                self.ranges.insert(at + 1, after);
            }
        }
        true
    }

    /// Whether a core is in it.
    pub fn contains(&self, core: usize) -> bool {
        let at = self.ranges.partition_point(|range| range.end <= core);
        self.ranges
            .get(at)
            .is_some_and(|range| range.contains(&core))
    }

    /// Adds all of another set.
    pub fn extend(&mut self, other: &Self) {
        other.iter().for_each(|core| self.insert(core));
    }

    /// Takes all of another set out.
    pub fn subtract(&mut self, other: &Self) {
        for core in other.iter() {
            self.remove(core);
        }
    }

    /// Whether all of another set are in it.
    pub fn contains_all(&self, other: &Self) -> bool {
        other.ranges.iter().all(|inner| {
            let at = self
                .ranges
                .partition_point(|range| range.end <= inner.start);
            let range = self.ranges.get(at);
            range.is_some_and(|range| range.start <= inner.start && inner.end <= range.end)
        })
    }

    /// How many cores are in it.
    pub fn len(&self) -> usize {
        self.ranges.iter().map(ExactSizeIterator::len).sum()
    }

    /// Whether no core is in it.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Its lowest core.
    pub fn lowest(&self) -> Option<usize> {
        self.ranges.first().map(|range| range.start)
    }

    /// The core after this one, and after the highest the lowest.
    pub fn next_after(&self, core: usize) -> Option<usize> {
        let at = self.ranges.partition_point(|range| range.end <= core + 1);
        match self.ranges.get(at) {
            Some(range) => Some(range.start.max(core + 1)),
            None => self.lowest(),
        }
    }

    /// The core before this one, and before the lowest the highest.
    pub fn next_before(&self, core: usize) -> Option<usize> {
        let before = self.ranges.partition_point(|range| range.start < core);
        match before.checked_sub(1).and_then(|at| self.ranges.get(at)) {
            Some(range) => Some((range.end - 1).min(core - 1)),
            None => self.ranges.last().map(|range| range.end - 1),
        }
    }

    /// Its core at a place in ascending order.
    pub fn nth(&self, mut place: usize) -> Option<usize> {
        for range in &self.ranges {
            if place < range.len() {
                return Some(range.start + place);
            }
            place -= range.len();
        }
        None
    }

    /// The place of a core in ascending order.
    pub fn place(&self, core: usize) -> Option<usize> {
        let mut before = 0;
        for range in &self.ranges {
            if range.contains(&core) {
                return Some(before + core - range.start);
            }
            before += range.len();
        }
        None
    }

    /// Its cores in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + use<'_> {
        self.ranges.iter().cloned().flatten()
    }
}

impl FromIterator<usize> for CoreSet {
    fn from_iter<I: IntoIterator<Item = usize>>(cores: I) -> Self {
        let mut set = Self::default();
        cores.into_iter().for_each(|core| set.insert(core));
        set
    }
}

impl fmt::Debug for CoreSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(&self.ranges).finish()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::test_net::Random;
    use alloc::vec::Vec;
    use std::collections::BTreeSet;

    /// Random insertions and removals, beside a set of the library.
    #[test]
    fn does_what_a_set_does() {
        let mut random = Random(1);
        let (mut set, mut model) = (CoreSet::default(), BTreeSet::new());
        let mut other = CoreSet::default();
        for step in 0..20_000 {
            let core = random.below(40);
            if random.below(2) == 0 {
                set.insert(core);
                model.insert(core);
            } else {
                assert_eq!(set.remove(core), model.remove(&core));
            }
            if step % 7 == 0 {
                other.insert(random.below(40));
            }
            if step % 97 == 0 {
                other = CoreSet::default();
            }
            assert!(set.iter().eq(model.iter().copied()), "{set:?}");
            assert!(set.ranges.iter().all(|range| !range.is_empty()));
            assert!(set.ranges.windows(2).all(|two| two[0].end < two[1].start));
            assert_eq!(set.len(), model.len());
            assert_eq!(set.lowest(), model.first().copied());
            let next = model.range(core + 1..).next().or(model.first());
            assert_eq!(set.next_after(core), next.copied());
            let before = model.range(..core).next_back().or(model.last());
            assert_eq!(set.next_before(core), before.copied());
            assert_eq!(set.contains(core), model.contains(&core));
            assert_eq!(
                set.place(core).and_then(|place| set.nth(place)),
                model.get(&core).copied()
            );
            assert_eq!(
                set.contains_all(&other),
                other.iter().all(|core| model.contains(&core))
            );
            assert_eq!(CoreSet::from_words(set.words()), set);
        }
        for step in 0..2000 {
            let words = core::array::from_fn(|_| match step % 4 {
                0 => random.word() << 33 ^ random.word(),
                1 => random.word() | random.word() << 31,
                2 => u64::MAX >> random.below(64) << random.below(64),
                _ => [0, 1, u64::MAX, 1 << 63][random.below(4)],
            });
            let is_in = |core: &usize| words[core / 64] >> (core % 64) & 1 != 0;
            let set = CoreSet::from_words(words);
            assert_eq!(set, (0..MAX_CORES).filter(is_in).collect());
            assert_eq!(set.words(), words);
        }
        let (mut wide, all) = (CoreSet::first(1000), [u64::MAX; WORDS]);
        assert_eq!(wide.words(), all);
        wide.remove(MAX_CORES);
        assert_eq!(wide.words(), all);
        assert_eq!(CoreSet::first(3).iter().collect::<Vec<_>>(), [0, 1, 2]);
        assert!(CoreSet::first(0).is_empty());
    }
}
