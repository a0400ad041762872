//! What all subjects have in common: two ends between which numbered messages travel, and the
//! loops that send, check and time them.

use std::hint::black_box;
use std::sync::atomic::{Ordering, compiler_fence};
use std::time::Instant;

/// A message: 56 bytes.
pub type Words = [u64; 7];

/// One end of a two-way connection.
pub trait End: Send + 'static {
    /// Sends a message, when there is room.
    fn send(&mut self, words: &Words);
    /// Receives the next message, when it is there.
    fn recv(&mut self) -> Words;
}

/// Polls until something is there, with one `pause` between two polls.
#[inline]
pub fn poll<T>(mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(it) = look() {
            return it;
        }
        std::hint::spin_loop();
    }
}

/// Message number `number`.
#[inline]
fn message(number: u64) -> Words {
    std::array::from_fn(|word| number ^ (word as u64) << 56)
}

#[inline]
fn check(number: u64, found: &Words) {
    if *found != message(number) {
        wrong(number, found);
    }
}

#[cold]
fn wrong(number: u64, found: &Words) -> ! {
    eprintln!(
        "error: message {number}: expected {:x?}, found {found:x?}",
        message(number)
    );
    std::process::exit(1);
}

/// How much is done at a time: batches of which each is timed, of messages that are not.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Number of the first message.
    pub first: u64,
    /// Batches.
    pub batches: usize,
    /// Messages, or calls with their replies, in each.
    pub size: u64,
}

impl Load {
    fn numbers(self) -> std::ops::Range<u64> {
        self.first..self.first + self.batches as u64 * self.size
    }

    /// Nanoseconds that one message takes, by batch.
    fn time(self, mut one: impl FnMut(u64)) -> Vec<f64> {
        let mut numbers = self.numbers();
        let mut last = Instant::now();
        let times = (0..self.batches).map(|_| {
            for number in numbers.by_ref().take(self.size as usize) {
                one(number);
            }
            let now = Instant::now();
            let taken = now - last;
            last = now;
            taken.as_nanos() as f64 / self.size as f64
        });
        times.collect()
    }
}

/// What an end can be made to do, whatever it is.
pub trait Runner: Send {
    /// Sends calls and waits for the reply to each: nanoseconds a round trip, by batch.
    fn call(&mut self, load: Load) -> Vec<f64>;
    /// Replies to calls.
    fn reply(&mut self, load: Load);
    /// Sends without waiting.
    fn produce(&mut self, load: Load);
    /// Receives what another end produces: nanoseconds a message, by batch.
    fn consume(&mut self, load: Load) -> Vec<f64>;
}

/// An end in lines of its own, whatever lies beside it in memory: what one end notes must not
/// take lines from the other.
#[repr(align(128))]
struct Apart<E>(E);

impl<E: End> Runner for Apart<E> {
    fn call(&mut self, load: Load) -> Vec<f64> {
        load.time(|number| {
            self.0.send(&message(number));
            check(!number, &self.0.recv());
        })
    }

    fn reply(&mut self, load: Load) {
        for number in load.numbers() {
            check(number, &self.0.recv());
            self.0.send(&message(!number));
        }
    }

    fn produce(&mut self, load: Load) {
        for number in load.numbers() {
            self.0.send(&message(number));
        }
    }

    fn consume(&mut self, load: Load) -> Vec<f64> {
        load.time(|number| check(number, &self.0.recv()))
    }
}

/// Both ends in one hand.
pub trait Pair {
    /// Sends and receives `rounds` messages in each direction, and does nothing else but to bring
    /// them from memory and back.
    fn pass(&mut self, rounds: usize);
    /// Does what [`pass`](Self::pass) does beside that.
    fn idle(&self, rounds: usize);
    /// Each end for a thread.
    fn part(self: Box<Self>) -> [Box<dyn Runner>; 2];
}

impl<E: End> Pair for [E; 2] {
    #[inline(never)]
    fn pass(&mut self, rounds: usize) {
        let [here, there] = self;
        // At each fence anybody may read and write this.
        let mut memory = [message(1), [0; 7]];
        let [words, received] = black_box(&mut memory);
        for _ in 0..rounds {
            here.send(words);
            compiler_fence(Ordering::SeqCst);
            *received = there.recv();
            compiler_fence(Ordering::SeqCst);
            there.send(words);
            compiler_fence(Ordering::SeqCst);
            *received = here.recv();
            compiler_fence(Ordering::SeqCst);
        }
        black_box(memory);
    }

    #[inline(never)]
    fn idle(&self, rounds: usize) {
        let mut memory = [message(1), [0; 7]];
        black_box(&mut memory);
        for _ in 0..rounds {
            compiler_fence(Ordering::SeqCst);
        }
        black_box(memory);
    }

    fn part(self: Box<Self>) -> [Box<dyn Runner>; 2] {
        self.map(|end| Box::new(Apart(end)) as Box<dyn Runner>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_differ_in_every_word() {
        let words = message(5);
        assert!(
            words
                .iter()
                .all(|word| words.iter().filter(|it| *it == word).count() == 1)
        );
        assert_ne!(message(5), message(!5));
    }

    #[test]
    fn a_batch_holds_its_size() {
        let load = Load {
            first: 7,
            batches: 3,
            size: 4,
        };
        let mut seen = Vec::new();
        assert_eq!(load.time(|number| seen.push(number)).len(), 3);
        assert!(seen.into_iter().eq(7..19));
    }
}
