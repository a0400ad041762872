//! RAM that the monitor holds, and the pool of what is free.

use super::Error;
use crate::capability::{self, Address, Kind, Retype};
use abi::layout::PAGE;
use alloc::vec::Vec;

/// Physical memory: whole pages in a row.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ram {
    pub(super) base: u64,
    pub(super) pages: u64,
}

impl Ram {
    /// Cuts off the first `pages`.
    fn split(&mut self, pages: u64) -> Self {
        let front = Self {
            base: self.base,
            pages,
        };
        self.base += pages * PAGE;
        self.pages -= pages;
        front
    }
}

/// A capability to RAM, and which of it is free: first fit, neighbours joined again.
#[derive(Debug)]
pub(super) struct Pool {
    capability: Address,
    start: u64,
    /// In ascending order, never two that touch.
    free: Vec<Ram>,
}

impl Pool {
    /// A pool of the RAM that `capability` is to, all of it free.
    pub fn new(capability: Address, start: u64, bytes: u64) -> Self {
        let all = Ram {
            base: start,
            pages: bytes / PAGE,
        };
        Self {
            capability,
            start,
            free: [all].into(),
        }
    }

    /// Takes pages in a row.
    pub fn take(&mut self, pages: u64) -> Result<Ram, Error> {
        let mut fits = self.free.iter();
        let at = fits.position(|ram| ram.pages >= pages);
        let at = at.ok_or(Error::NoMemory)?;
        let ram = self.free[at].split(pages);
        if self.free[at].pages == 0 {
            self.free.remove(at);
        }
        Ok(ram)
    }

    /// Takes `most` pages in a row, or else the longest row there is of at least `least`.
    pub fn take_most(&mut self, least: u64, most: u64) -> Result<Ram, Error> {
        let longest = self.free.iter().map(|ram| ram.pages).max().unwrap_or(0);
        let pages = longest.min(most);
        if pages < least {
            return Err(Error::NoMemory);
        }
        self.take(pages)
    }

    /// Whether there are so many pages in a row.
    pub fn has(&self, pages: u64) -> bool {
        self.free.iter().any(|ram| ram.pages >= pages)
    }

    /// The capability to all of it.
    pub fn capability(&self) -> Address {
        self.capability
    }

    /// Where it starts.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Takes pages and makes one object of them, whose capability goes into `destination`.
    pub fn make(&mut self, kind: Kind, pages: u64, destination: Address) -> Result<Ram, Error> {
        let ram = self.take(pages)?;
        let what = Retype {
            kind,
            offset: ram.base - self.start,
            bytes: pages * PAGE,
            count: 1,
        };
        match capability::retype(self.capability, &what, destination) {
            Ok(()) => Ok(ram),
            Err(error) => {
                self.give(ram);
                Err(error.into())
            }
        }
    }

    /// Gives pages back of which nothing is made any more.
    pub fn give(&mut self, ram: Ram) {
        if ram.pages == 0 {
            return;
        }
        let at = self.free.partition_point(|other| other.base < ram.base);
        self.free.insert(at, ram);
        for left in [at, at.wrapping_sub(1)] {
            let touch = |left: usize| {
                let (a, b) = (self.free.get(left)?, self.free.get(left + 1)?);
                (a.base + a.pages * PAGE == b.base).then_some(b.pages)
            };
            if left != usize::MAX
                && let Some(pages) = touch(left)
            {
                self.free[left].pages += pages;
                self.free.remove(left + 1);
            }
        }
    }

    /// Free pages.
    pub fn pages(&self) -> u64 {
        self.free.iter().map(|ram| ram.pages).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_joins_what_comes_back() {
        let mut pool = Pool::new(Address(1), 0x10_0000, 10 * PAGE);
        let a = pool.take(3).expect("three");
        let b = pool.take(3).expect("three more");
        let c = pool.take(4).expect("the rest");
        assert_eq!(pool.take(1), Err(Error::NoMemory));
        assert_eq!((a.base, b.base, c.base), (0x10_0000, 0x10_3000, 0x10_6000));
        pool.give(c);
        pool.give(a);
        assert_eq!(pool.take(5), Err(Error::NoMemory));
        pool.give(b);
        assert_eq!(pool.pages(), 10);
        assert_eq!(pool.take(10).map(|ram| ram.pages), Ok(10));
    }

    #[test]
    fn a_pool_gives_what_it_has_of_what_is_wanted() {
        let mut pool = Pool::new(Address(1), 0x10_0000, 10 * PAGE);
        let pages = |taken: Result<Ram, Error>| taken.map(|ram| ram.pages);
        assert_eq!(pages(pool.take_most(1, 4)), Ok(4));
        assert!(pool.has(6) && !pool.has(7));
        assert_eq!(pages(pool.take_most(7, 9)), Err(Error::NoMemory));
        assert_eq!(pages(pool.take_most(2, 9)), Ok(6));
        assert_eq!(pages(pool.take_most(1, 1)), Err(Error::NoMemory));
    }
}
