//! Which of the domain's slots are empty.
//!
//! The task CNode has some for a start. When they run low, a domain makes further CNodes of
//! its own RAM ([`crate::memory`]) and puts them into its root CNode, until that is full. A
//! monitor makes them itself and says so ([`add_cnode`]).

use super::{Address, FIRST_CNODE_SLOTS, FIRST_FREE_CNODE, FIRST_FREE_SLOT, Result, SLOT_BYTES};
use crate::system_call::Error;
use crate::{memory, startup};
use abi::capability::{INDEX_BITS, Kind, MAX_CNODE_SLOTS, ROOT_CNODE, TASK_CNODE};
use alloc::vec::Vec;
use spin::{LazyLock, Mutex};

/// Slots of a CNode that a domain adds: 16 KiB.
const ADDED_SLOTS: u64 = 256;
/// So few are left when a domain adds a CNode: doing so takes a slot for RAM.
const RESERVE: u64 = 4;

/// The slot's index in its CNode.
const fn index(slot: Address) -> u64 {
    slot.0 & ((1 << INDEX_BITS) - 1)
}

/// The slots of a CNode.
struct CNode {
    /// Its own slot in the root CNode.
    index: u64,
    /// A bit for each slot, set where it is empty.
    empty: Vec<u64>,
}

struct Slots {
    cnodes: Vec<CNode>,
    /// Empty ones in all.
    left: u64,
    /// In the root CNode, where the next CNode goes.
    next_cnode: u64,
    is_growing: bool,
}

static SLOTS: LazyLock<Mutex<Slots>> = LazyLock::new(|| {
    let mut slots = Slots {
        cnodes: Vec::new(),
        left: 0,
        next_cnode: FIRST_FREE_CNODE,
        is_growing: false,
    };
    slots.add(index(TASK_CNODE), FIRST_FREE_SLOT..FIRST_CNODE_SLOTS);
    Mutex::new(slots)
});

impl Slots {
    fn add(&mut self, index: u64, range: core::ops::Range<u64>) {
        let mut empty = alloc::vec![0; range.end.div_ceil(64) as usize];
        for slot in range.clone() {
            empty[slot as usize / 64] |= 1 << (slot % 64);
        }
        self.left += range.end.saturating_sub(range.start);
        self.cnodes.push(CNode { index, empty });
    }

    /// The youngest CNodes come first: they are the ones with room.
    fn take(&mut self) -> Option<Address> {
        for cnode in self.cnodes.iter_mut().rev() {
            for (at, word) in cnode.empty.iter_mut().enumerate() {
                if *word != 0 {
                    let bit = word.trailing_zeros();
                    *word &= *word - 1;
                    self.left -= 1;
                    return Some(Address::new(cnode.index, at as u64 * 64 + u64::from(bit)));
                }
            }
        }
        None
    }

    fn take_row(&mut self, count: u64) -> Option<Address> {
        for cnode in self.cnodes.iter_mut().rev() {
            let mut run = 0;
            for slot in 0..cnode.empty.len() as u64 * 64 {
                let is_empty = cnode.empty[slot as usize / 64] >> (slot % 64) & 1 != 0;
                run = if is_empty { run + 1 } else { 0 };
                if run == count {
                    let first = slot + 1 - count;
                    for taken in first..=slot {
                        cnode.empty[taken as usize / 64] &= !(1 << (taken % 64));
                    }
                    self.left -= count;
                    return Some(Address::new(cnode.index, first));
                }
            }
        }
        None
    }
}

/// Takes an empty slot. [`Error::TooMany`]: all that there can be are in use, or there is no
/// memory for more.
pub fn take() -> Result<Address> {
    let mut slots = SLOTS.lock();
    if slots.left <= RESERVE && !slots.is_growing && startup().monitor_channel != 0 {
        drop(slots);
        // If it cannot grow, the reserve is for use.
        let _ = grow(ADDED_SLOTS);
        slots = SLOTS.lock();
    }
    slots.take().ok_or(Error::TooMany)
}

/// Takes empty slots next to each other, the first of which it returns. Errors as above.
pub fn take_row(count: u64) -> Result<Address> {
    if count == 0 {
        return Err(Error::WrongCount);
    }
    let can_grow = startup().monitor_channel != 0;
    let mut slots = SLOTS.lock();
    if (!can_grow || slots.left >= count.saturating_add(RESERVE))
        && let Some(first) = slots.take_row(count)
    {
        return Ok(first);
    }
    drop(slots);
    if !can_grow || count >= MAX_CNODE_SLOTS {
        return Err(Error::TooMany);
    }
    grow((count + 1).next_power_of_two().max(ADDED_SLOTS))?;
    SLOTS.lock().take_row(count).ok_or(Error::TooMany)
}

/// Gives a slot back, which is empty again.
pub fn give(slot: Address) {
    let mut slots = SLOTS.lock();
    let (above, at) = (slot.0 >> INDEX_BITS, index(slot));
    let cnode = slots.cnodes.iter_mut().find(|cnode| cnode.index == above);
    let Some(word) = cnode.and_then(|cnode| cnode.empty.get_mut(at as usize / 64)) else {
        return;
    };
    let bit = 1 << (at % 64);
    if *word & bit == 0 {
        *word |= bit;
        slots.left += 1;
    }
}

/// Adds the empty CNode with so many slots that is in slot `index` of the root CNode.
pub fn add_cnode(index: u64, slots: u64) {
    SLOTS.lock().add(index, 1..slots);
}

/// Makes a CNode of RAM of this domain.
fn grow(count: u64) -> Result {
    SLOTS.lock().is_growing = true;
    let made = make_cnode(count * SLOT_BYTES);
    let mut slots = SLOTS.lock();
    slots.is_growing = false;
    slots.add(made?, 1..count);
    Ok(())
}

/// Makes a CNode in the next empty slot of the root CNode, which it returns.
fn make_cnode(bytes: u64) -> Result<u64> {
    loop {
        let at = SLOTS.lock().next_cnode;
        if at >= FIRST_CNODE_SLOTS {
            return Err(Error::TooMany);
        }
        SLOTS.lock().next_cnode += 1;
        let destination = Address::new(index(ROOT_CNODE), at);
        match memory::object_at(Kind::CNode, bytes, destination) {
            Ok(()) => return Ok(at),
            // The program has put something there itself.
            Err(memory::Error::Refused(Error::OccupiedSlot)) => {}
            Err(error) => {
                SLOTS.lock().next_cnode = at;
                return Err(error.into());
            }
        }
    }
}
