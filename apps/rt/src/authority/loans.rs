//! Shared RAM that cores lend each other.

use super::ram::{Pool, Ram};
use super::store::{MESH_BYTES, Store};
use super::{Error, machine};
use crate::capability::{self, Address, Kind, Object, Rights};
use crate::startup;
use abi::capability::monitor::CORES;
use abi::layout::PAGE;
use alloc::vec::Vec;
use core::ops::Range;

/// RAM that was borrowed in one piece.
#[derive(Debug)]
pub(super) struct Loan {
    pool: Pool,
    pages: u64,
}

impl Loan {
    fn range(&self) -> Range<u64> {
        let start = self.pool.start();
        start..start + self.pages * PAGE
    }
}

impl Store {
    /// Takes shared RAM of this core for another one: `most` pages in one piece, or at least `least`,
    /// and never all that there is. Back: its address, and how many pages.
    pub fn lend(&mut self, least: u64, most: u64) -> Option<(u64, u64)> {
        // Never all of it: what is made of a loan could not be told from what is made of the whole.
        let own = &machine().cores()[startup().core as usize];
        let part = (own.shared_bytes - MESH_BYTES) / PAGE - 1;
        let ram = self.shared.take_most(least, most.min(part)).ok()?;
        Some((ram.base, ram.pages))
    }

    /// What was lent is this core's again: nobody uses it.
    pub fn take_back(&mut self, base: u64, pages: u64) {
        self.shared.give(Ram { base, pages });
    }

    /// Whether this core has so many pages of shared RAM in one piece, of its own or borrowed.
    pub fn has_shared(&self, pages: u64) -> bool {
        self.shared.has(pages) || self.has_loan_for(pages)
    }

    pub(super) fn has_loan_for(&self, pages: u64) -> bool {
        self.loans.iter().any(|loan| loan.pool.has(pages))
    }

    pub(super) fn make_of_loan(&mut self, pages: u64, slot: Address) -> Result<Ram, Error> {
        let mut loans = self.loans.iter_mut();
        let loan = loans.find(|loan| loan.pool.has(pages));
        let loan = loan.ok_or(Error::NoMemory)?;
        loan.pool.make(Kind::Frame, pages, slot)
    }

    /// Nothing is left of a frame that was made of what was borrowed, if that is here still.
    pub(super) fn give_to_loan(&mut self, ram: Ram) {
        let mut loans = self.loans.iter_mut();
        if let Some(loan) = loans.find(|loan| loan.range().contains(&ram.base)) {
            loan.pool.give(ram);
        }
    }

    /// This core has borrowed RAM: frames can be made of it from now on.
    pub fn add_loan(&mut self, base: u64, pages: u64) -> Result<(), Error> {
        let (slot, bytes) = (self.slot()?, pages * PAGE);
        let inserted = capability::insert(CORES, slot, Kind::Ram, Rights::all(), base, bytes);
        if let Err(error) = inserted {
            self.discard(slot);
            return Err(error.into());
        }
        let pool = Pool::new(slot, base, bytes);
        self.loans.push(Loan { pool, pages });
        Ok(())
    }

    /// Where the RAM is that was borrowed and of which nothing is used.
    pub fn unused_loans(&self) -> Vec<u64> {
        let unused = self
            .loans
            .iter()
            .filter(|loan| loan.pool.pages() == loan.pages);
        unused.map(|loan| loan.pool.start()).collect()
    }

    /// Nothing of what was borrowed in this range is had any more: it goes back, or its core starts
    /// anew.
    pub fn drop_loans(&mut self, range: &Range<u64>) {
        let is_in = |loan: &mut Loan| range.contains(&loan.pool.start());
        let gone: Vec<Loan> = self.loans.extract_if(.., is_in).collect();
        for loan in gone {
            self.revoke(loan.pool.capability());
            self.discard(loan.pool.capability());
        }
    }

    /// Pages that were borrowed.
    pub fn pages_borrowed(&self) -> u64 {
        self.loans.iter().map(|loan| loan.pages).sum()
    }
}

/// Whether domains of this core, or its monitor, have anything of this memory.
pub fn uses_any(base: u64, pages: u64) -> bool {
    let all = Object {
        kind: Kind::Ram,
        base,
        bytes: pages * PAGE,
        depth: 0,
    };
    super::look_up(&all).anything
}
