//! RAM that the monitor holds, and the pool of what is free.

use super::machine;
use crate::startup;
use abi::layout::PAGE;
use abi::limits::MAX_CORES;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Physical memory of this core, or of one that does not run yet: whole pages in a row.
#[derive(Debug, PartialEq, Eq)]
pub struct Ram {
    pub(super) base: u64,
    pub(super) pages: u64,
}

/// What was taken already: private RAM, shared RAM, the regions of other cores.
static TAKEN: [AtomicBool; 2] = [const { AtomicBool::new(false) }; 2];
static REGIONS_TAKEN: [AtomicU64; MAX_CORES / 64] = [const { AtomicU64::new(0) }; MAX_CORES / 64];

impl Ram {
    /// The RAM that only this core's CPU driver maps; to be had once.
    pub fn private() -> Option<Self> {
        let core = &machine().cores()[startup().core as usize];
        let base = startup().free;
        let end = core.region + core.private_bytes;
        (!TAKEN[0].swap(true, Ordering::Relaxed)).then_some(Self {
            base,
            pages: (end - base) / PAGE,
        })
    }

    /// The RAM of this core that no CPU driver maps, for frames that cores share; to be had
    /// once. The channels to cores of higher number come before it.
    pub fn shared() -> Option<Self> {
        let core = &machine().cores()[startup().core as usize];
        let base = core.region + core.private_bytes + MAX_CORES as u64 * PAGE;
        let end = core.region + core.private_bytes + core.shared_bytes;
        (!TAKEN[1].swap(true, Ordering::Relaxed)).then_some(Self {
            base,
            pages: (end - base) / PAGE,
        })
    }

    /// The first `bytes` of the region of a core that does not run yet; to be had once.
    pub fn of_unbooted_core(core: usize, bytes: u64) -> Option<Self> {
        let region = machine().cores().get(core)?;
        let bit = 1 << (core % 64);
        let taken = REGIONS_TAKEN[core / 64].fetch_or(bit, Ordering::Relaxed) & bit != 0;
        let fits = bytes <= region.private_bytes && core != startup().core as usize;
        (fits && !taken).then_some(Self {
            base: region.region,
            pages: bytes.div_ceil(PAGE),
        })
    }

    /// Its physical address.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Pages of it.
    pub fn pages(&self) -> u64 {
        self.pages
    }

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

/// Free RAM: first fit, neighbours joined again.
#[derive(Debug, Default)]
pub struct Pool {
    /// In ascending order, never two that touch.
    free: Vec<Ram>,
}

impl Pool {
    /// A pool of this RAM.
    pub fn new(ram: Option<Ram>) -> Self {
        Self {
            free: ram.into_iter().collect(),
        }
    }

    /// Takes pages in a row.
    pub fn take(&mut self, pages: u64) -> Option<Ram> {
        let at = self.free.iter().position(|ram| ram.pages >= pages)?;
        let ram = self.free[at].split(pages);
        if self.free[at].pages == 0 {
            self.free.remove(at);
        }
        Some(ram)
    }

    /// Gives pages back.
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

    /// Pages in it.
    pub fn pages(&self) -> u64 {
        self.free.iter().map(|ram| ram.pages).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_joins_what_comes_back() {
        let mut pool = Pool::new(Some(Ram {
            base: 0x10_0000,
            pages: 10,
        }));
        let a = pool.take(3).expect("three");
        let b = pool.take(3).expect("three more");
        let c = pool.take(4).expect("the rest");
        assert_eq!(pool.take(1), None);
        assert_eq!(
            (a.base(), b.base(), c.base()),
            (0x10_0000, 0x10_3000, 0x10_6000)
        );
        pool.give(c);
        pool.give(a);
        assert_eq!(pool.take(5), None);
        pool.give(b);
        assert_eq!(pool.pages(), 10);
        assert_eq!(pool.take(10).map(|ram| ram.pages()), Some(10));
    }
}
