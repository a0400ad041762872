//! Which of the monitor's slots are empty.
//!
//! The lowest is always taken first, so that CNodes which were only needed for a while
//! become empty again, and their memory is given back.

use crate::capability::{Address, FIRST_CNODE_SLOTS, FIRST_FREE_CNODE, FIRST_FREE_SLOT};
use abi::capability::{INDEX_BITS, TASK_CNODE};
use alloc::vec::Vec;

/// Slots of a CNode that is added: 16 KiB.
pub(super) const ADDED_SLOTS: u64 = 256;

/// A CNode that is added takes two slots of the root CNode: the RAM that it is made of, and
/// itself. This one is for the RAM of the first.
const FIRST: u64 = FIRST_FREE_CNODE;

/// First slot of the root CNode that is not for added CNodes.
pub(super) const LAST: u64 = FIRST_CNODE_SLOTS - 4;

/// A bit for each slot, set where it is empty.
type Empty = [u64; ADDED_SLOTS as usize / 64];

/// The empty slots of all CNodes of the monitor.
#[derive(Debug)]
pub(super) struct Slots {
    task: Empty,
    /// The RAM of the CNode with index `FIRST + 2 * n` is at that index, itself at the next.
    added: Vec<Option<Empty>>,
}

/// The slots of a new CNode: the first is the CPU driver's.
const NEW: Empty = [!1, !0, !0, !0];

impl Slots {
    /// The empty slots of a monitor that starts.
    pub fn new() -> Self {
        Self {
            task: [!0 << FIRST_FREE_SLOT, 0, 0, 0],
            added: Vec::new(),
        }
    }

    /// Takes a slot.
    pub fn take(&mut self) -> Option<Address> {
        let task = TASK_CNODE.0 & ((1 << INDEX_BITS) - 1);
        let added = self.added.iter_mut().enumerate();
        let added = added.filter_map(|(n, empty)| Some((cnode_index(n), empty.as_mut()?)));
        for (cnode, empty) in [(task, &mut self.task)].into_iter().chain(added) {
            for (at, word) in empty.iter_mut().enumerate() {
                if *word != 0 {
                    let bit = u64::from(word.trailing_zeros());
                    *word &= *word - 1;
                    return Some(Address::new(cnode, at as u64 * 64 + bit));
                }
            }
        }
        None
    }

    /// Where the next CNode goes: its number.
    pub fn next(&self) -> Option<usize> {
        let gap = self.added.iter().position(Option::is_none);
        let number = gap.unwrap_or(self.added.len());
        (cnode_index(number) < LAST).then_some(number)
    }

    /// Adds the CNode of this number.
    pub fn add(&mut self, number: usize) {
        if number == self.added.len() {
            self.added.push(None);
        }
        self.added[number] = Some(NEW);
    }

    /// Gives a slot back. If its CNode is empty now, it is forgotten: its number.
    pub fn give(&mut self, slot: Address) -> Option<usize> {
        let (cnode, at) = (slot.0 >> INDEX_BITS, slot.0 & ((1 << INDEX_BITS) - 1));
        let bit = 1 << (at % 64);
        if cnode < FIRST {
            self.task[at as usize / 64] |= bit;
            return None;
        }
        let number = (cnode - FIRST) as usize / 2;
        let empty = self.added.get_mut(number)?;
        let slots = empty.as_mut()?;
        slots[at as usize / 64] |= bit;
        if *slots != NEW {
            return None;
        }
        *empty = None;
        Some(number)
    }
}

/// Where in the root CNode the CNode of this number is; the RAM that it is made of is before it.
pub(super) const fn cnode_index(number: usize) -> u64 {
    FIRST + 2 * number as u64 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_is_taken_once_and_empty_cnodes_go() {
        let mut slots = Slots::new();
        let mut taken = Vec::new();
        for number in 0..3 {
            while let Some(slot) = slots.take() {
                taken.push(slot);
            }
            assert_eq!(slots.next(), Some(number));
            slots.add(number);
        }
        let own = FIRST_CNODE_SLOTS - FIRST_FREE_SLOT;
        assert_eq!(taken.len() as u64, own + 2 * (ADDED_SLOTS - 1));
        let mut sorted = taken.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), taken.len());

        let gone: Vec<usize> = taken
            .drain(..)
            .filter_map(|slot| slots.give(slot))
            .collect();
        assert_eq!(gone, [0, 1]);
        assert_eq!(slots.next(), Some(0));
        assert_eq!(slots.take(), Some(Address::new(2, FIRST_FREE_SLOT)));
    }

    #[test]
    fn the_root_cnode_ends() {
        let mut slots = Slots::new();
        while let Some(number) = slots.next() {
            slots.add(number);
        }
        assert!(slots.added.len() >= 27);
        assert!(cnode_index(slots.added.len() - 1) < LAST);
    }
}
