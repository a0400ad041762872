//! What is mapped in a space.

use super::MAX_ENTRIES;
use super::message::{Answer, Mapping, Pages, Rights};
use crate::core_set::CoreSet;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Some pages of a table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    pub(super) count: u64,
    pub(super) frame: u64,
    pub(super) rights: Rights,
    /// Cores that may have it; only the home keeps them.
    pub(super) holders: CoreSet,
}

impl Entry {
    pub(super) fn mapping(&self, first: u64) -> Mapping {
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
pub(super) struct Table(pub(super) BTreeMap<u64, Entry>);

impl Table {
    /// Entries that have pages among these, the last one first.
    pub(super) fn overlapping(&self, pages: Pages) -> impl Iterator<Item = (Mapping, &Entry)> {
        let before = self.0.range(..pages.end()).rev();
        let all = before.map(|(first, entry)| (entry.mapping(*first), entry));
        all.take_while(move |(mapping, _)| mapping.pages.end() > pages.first)
    }

    pub(super) fn at(&self, page: u64) -> Option<(Mapping, &Entry)> {
        self.overlapping(Pages::one(page)).next()
    }

    pub(super) fn put(&mut self, mapping: Mapping, holders: CoreSet) {
        let entry = Entry {
            count: mapping.pages.count,
            frame: mapping.frame,
            rights: mapping.rights,
            holders,
        };
        self.0.insert(mapping.pages.first, entry);
    }

    /// Notes a core as a holder of an entry, and says so.
    pub(super) fn grant(&mut self, mapping: Mapping, to: usize) -> Answer {
        if let Some(entry) = self.0.get_mut(&mapping.pages.first) {
            entry.holders.insert(to);
        }
        Answer::Grant(mapping)
    }

    /// Takes these pages out; what there was of them.
    pub(super) fn carve(&mut self, pages: Pages) -> Vec<(Mapping, CoreSet)> {
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
    pub(super) fn restrict(&mut self, pages: Pages, rights: Rights) {
        for (mut mapping, holders) in self.carve(pages) {
            mapping.rights = mapping.rights.only(rights);
            if mapping.rights != Rights::NONE {
                self.put(mapping, holders);
            }
        }
    }

    /// Whether some of these pages have rights beyond these.
    pub(super) fn exceeds(&self, pages: Pages, rights: Rights) -> bool {
        let mut found = self.overlapping(pages);
        found.any(|(mapping, _)| !rights.include(mapping.rights))
    }

    /// Whether there is no room for the pieces that are left when these pages go.
    pub(super) fn is_too_full_for(&self, pages: Pages) -> bool {
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
    pub(super) fn merge(&mut self, held: Mapping, holder: usize) {
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
