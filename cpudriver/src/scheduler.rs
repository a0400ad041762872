//! The run queue: round robin, first come, first served.
//!
//! Whom an interrupt wakes goes in front, because a doorbell speaks of a message that
//! somebody waits for; whose time slice is over goes to the back.

use abi::limits::MAX_DISPATCHERS;
use arrayvec::ArrayVec;

/// Handles of the dispatchers that are ready to run.
#[derive(Default)]
pub struct RunQueue {
    ready: ArrayVec<u8, MAX_DISPATCHERS>,
}

impl RunQueue {
    /// Adds one at the back.
    pub fn push_back(&mut self, handle: usize) {
        self.ready.push(handle as u8);
    }

    /// Adds one in front.
    pub fn push_front(&mut self, handle: usize) {
        self.ready.insert(0, handle as u8);
    }

    /// Takes the next.
    pub fn pop(&mut self) -> Option<usize> {
        (!self.ready.is_empty()).then(|| usize::from(self.ready.remove(0)))
    }

    /// Takes one out wherever it stands.
    pub fn remove(&mut self, handle: usize) {
        self.ready.retain(|other| usize::from(*other) != handle);
    }

    /// Whether anybody is ready.
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }
}
