//! What is to happen, in order of time, and of what was put in first where times are equal.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Something small that is to happen at a time.
#[derive(Clone, Copy, Debug)]
pub struct Entry<T> {
    /// When, in nanoseconds.
    pub at_ns: u64,
    number: u64,
    /// What.
    pub what: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    /// The earliest is the greatest: it is on top of the heap.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_ns, other.number).cmp(&(self.at_ns, self.number))
    }
}

/// The queue.
#[derive(Debug)]
pub struct Queue<T> {
    heap: BinaryHeap<Entry<T>>,
    next: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            next: 0,
        }
    }
}

impl<T> Queue<T> {
    /// Puts an entry in.
    pub fn push(&mut self, at_ns: u64, what: T) {
        let number = self.next;
        self.next += 1;
        self.heap.push(Entry {
            at_ns,
            number,
            what,
        });
    }

    /// Takes the earliest out.
    pub fn pop(&mut self) -> Option<Entry<T>> {
        self.heap.pop()
    }

    /// When the earliest is due; never where there is none.
    pub fn next_ns(&self) -> u64 {
        self.heap.peek().map_or(u64::MAX, |entry| entry.at_ns)
    }
}

/// Values with numbers that are used again.
#[derive(Debug)]
pub struct Slots<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slots<T> {
    /// Puts a value in; its number.
    pub fn insert(&mut self, value: T) -> u32 {
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(value);
                slot
            }
            None => {
                self.slots.push(Some(value));
                (self.slots.len() - 1) as u32
            }
        }
    }

    /// The value of a number.
    pub fn get_mut(&mut self, slot: u32) -> &mut T {
        self.slots[slot as usize].as_mut().expect("in use")
    }

    /// All values.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().flatten()
    }

    /// Takes a value out.
    pub fn remove(&mut self, slot: u32) -> T {
        self.free.push(slot);
        self.slots[slot as usize].take().expect("in use")
    }

    /// How many values there have been at once.
    pub fn room(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_comes_first_and_then_what_came_first() {
        let mut queue = Queue::default();
        for (at_ns, what) in [(5, 'a'), (3, 'b'), (5, 'c'), (3, 'd'), (1, 'e')] {
            queue.push(at_ns, what);
        }
        assert_eq!(queue.next_ns(), 1);
        let order: String = std::iter::from_fn(|| queue.pop().map(|entry| entry.what)).collect();
        assert_eq!(order, "ebdac");
        assert_eq!(queue.next_ns(), u64::MAX);
    }

    #[test]
    fn slots_are_used_again() {
        let mut slots = Slots::default();
        for round in 0..100 {
            let (a, b) = (slots.insert(round), slots.insert(-round));
            assert_eq!((slots.remove(a), slots.remove(b)), (round, -round));
        }
        assert_eq!(slots.room(), 2);
    }
}
