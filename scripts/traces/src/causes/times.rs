//! Time by cause, and stretches of it.

use std::ops::{Add, AddAssign, Index, Sub};

/// What a moment of a critical path went by with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The dispatcher that had taken the message ran.
    Work,
    /// The message was there, its receiver ran, and had others to serve first.
    Queue,
    /// The core was idle: its dispatcher had to be woken.
    Sleep,
    /// The message was under way.
    Wire,
    /// Another dispatcher had the core.
    Other,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Work,
        Self::Queue,
        Self::Sleep,
        Self::Wire,
        Self::Other,
    ];

    /// For people.
    pub const fn name(self) -> &'static str {
        ["work", "queue", "sleep", "wire", "other"][self as usize]
    }
}

/// Nanoseconds by cause, in the order of [`Cause::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shares(pub [u64; 5]);

impl Shares {
    /// All of it.
    pub fn sum(&self) -> u64 {
        self.0
            .iter()
            .fold(0, |sum: u64, one| sum.saturating_add(*one))
    }
}

impl Index<Cause> for Shares {
    type Output = u64;

    fn index(&self, cause: Cause) -> &u64 {
        &self.0[cause as usize]
    }
}

impl Add for Shares {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| {
            self.0[at].saturating_add(other.0[at])
        }))
    }
}

impl AddAssign for Shares {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Shares {
    type Output = Self;

    /// Nothing is below 0.
    fn sub(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| {
            self.0[at].saturating_sub(other.0[at])
        }))
    }
}

/// Stretches of time, one after the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Stretches {
    /// Begin, end, and time in those before.
    pub all: Vec<(u64, u64, u64)>,
}

impl Stretches {
    /// Adds one; it does not begin before the last has ended, nor end before it begins.
    pub fn push(&mut self, begin: u64, end: u64) {
        let before = self
            .all
            .last()
            .map_or(0, |(begin, end, before)| before + (end - begin));
        self.all.push((begin, end, before));
    }

    /// The last that begins by then.
    fn at(&self, time: u64) -> Option<usize> {
        self.all
            .partition_point(|(begin, ..)| *begin <= time)
            .checked_sub(1)
    }

    /// Time in them until then.
    pub fn until(&self, time: u64) -> u64 {
        self.at(time).map_or(0, |at| {
            let (begin, end, before) = self.all[at];
            before + (end.min(time) - begin)
        })
    }

    /// Whether both times lie in the same one.
    pub fn is_same(&self, one: u64, other: u64) -> bool {
        let at = self.at(one);
        at == self.at(other) && at.is_some_and(|at| one.max(other) <= self.all[at].1)
    }
}
