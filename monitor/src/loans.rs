//! Memory that this core borrows for its domains' frames, and lends.
//!
//! Shared RAM only: no CPU driver maps that. A frame that finds too little on its own core waits for
//! a piece of another's. What is unused for a while goes back.

use crate::Monitor;
use crate::requests::Requester;
use abi::layout::PAGE;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use protocols::lending::{self, Action, Loan};
use rt::authority;
use rt::clock;
use rt::interface::Error;

/// What is borrowed at a time, in pages, if it is there: 4 MiB.
const PIECE: u64 = 1024;
/// Most frames of one domain that wait for memory.
const MAX_WAITING: usize = 8;
/// How long borrowed memory stays of which nothing is used, in nanoseconds.
const IDLE_NS: u64 = 20_000_000;
/// How often this core looks whether memory of a dead borrower is used, in nanoseconds.
const LOOK_NS: u64 = 10_000_000;

/// A frame that waits for memory.
struct Waiting {
    requester: Requester,
    domain: u64,
    bytes: u64,
}

/// What this monitor remembers of memory that cores lend each other.
#[derive(Default)]
pub struct Loans {
    /// By token.
    waiting: BTreeMap<u64, Waiting>,
    next_token: u64,
    /// Memory of dead borrowers: pages, by lender and address; and when it is looked at next.
    watches: BTreeMap<(usize, u64), u64>,
    look_ns: Option<u64>,
    /// When what is unused goes back.
    idle_ns: Option<u64>,
}

impl Loans {
    /// When there is something to do, in nanoseconds.
    pub fn deadline_ns(&self) -> Option<u64> {
        self.look_ns.into_iter().chain(self.idle_ns).min()
    }
}

fn told(error: lending::Error) -> Error {
    match error {
        lending::Error::NoMemory => Error::NoMemory,
        lending::Error::Busy => Error::Busy,
    }
}

impl Monitor {
    /// Borrows memory for a frame. The answer comes later.
    pub fn borrow_for(
        &mut self,
        requester: Requester,
        domain: u64,
        bytes: u64,
    ) -> Result<Option<[u64; 5]>, Error> {
        let cores = authority::machine().cores().iter();
        if cores.map(|core| core.shared_bytes).max() < Some(bytes) {
            return Err(Error::NoMemory); // nobody need be asked
        }
        let waiting = self.loans.waiting.values();
        if waiting.filter(|one| one.domain == domain).count() >= MAX_WAITING {
            return Err(Error::Busy);
        }
        self.loans.next_token += 1;
        let token = self.loans.next_token;
        let waiting = Waiting {
            requester,
            domain,
            bytes,
        };
        self.loans.waiting.insert(token, waiting);
        let pages = bytes.div_ceil(PAGE);
        self.with_lending(|one| one.borrow(token, pages, pages.max(PIECE)));
        Ok(None)
    }

    fn with_lending(&mut self, work: impl FnOnce(&mut lending::Lending) -> Vec<Action>) {
        let actions = self.agent.with_lending(work);
        self.carry_out(actions);
    }

    /// Does what the protocol decided.
    pub fn on_lending(&mut self, action: &Action) {
        match *action {
            Action::Send(to, message) => self.log(&alloc::format!(
                "a message to core {to} that the agent should have sent: {message:?}"
            )),
            Action::Lend {
                work, least, most, ..
            } => {
                let piece = self.store.lend(least, most);
                self.with_lending(|one| one.lent(work, piece));
            }
            Action::TakeBack { base, pages } => self.store.take_back(base, pages),
            Action::Watch {
                lender,
                base,
                pages,
            } => {
                self.loans.watches.insert((lender, base), pages);
                self.loans.look_ns = Some(clock::now_ns());
            }
            Action::Unwatch { lender, base } => {
                self.loans.watches.remove(&(lender, base));
            }
            Action::Done { token, result } => self.borrowed(token, result),
        }
    }

    /// A frame has the memory that it waited for, or gets none.
    fn borrowed(&mut self, token: u64, result: Result<Loan, lending::Error>) {
        let added = result.map_err(told).and_then(|loan| {
            let added = self.store.add_loan(loan.base, loan.pages);
            if added.is_err() {
                self.with_lending(|one| one.give_back(loan.base));
            }
            Ok(added?)
        });
        let Some(waiting) = self.loans.waiting.remove(&token) else {
            return;
        };
        // Memory may have become free here meanwhile.
        let answer = match added {
            Err(error) if !self.store.has_shared(waiting.bytes.div_ceil(PAGE)) => Err(error),
            _ => self.frame_of_memory_here(waiting.domain, waiting.bytes),
        };
        self.answer(waiting.requester, answer.map(Some));
    }

    /// Time has passed; whether anything came of it.
    pub fn loans_tick(&mut self, now_ns: u64) -> bool {
        let mut busy = false;
        if self.loans.look_ns.is_some_and(|at| at <= now_ns) {
            let watches = self.loans.watches.iter();
            let clear = watches.filter(|((_, base), pages)| !authority::uses_any(*base, **pages));
            let clear: Vec<(usize, u64)> = clear.map(|(watch, _)| *watch).collect();
            for (lender, base) in clear {
                busy = true;
                self.loans.watches.remove(&(lender, base));
                self.with_lending(|one| one.cleared(lender, base));
            }
            let is_over = self.loans.watches.is_empty();
            self.loans.look_ns = (!is_over).then_some(now_ns + LOOK_NS);
        }
        let unused = self.store.unused_loans();
        match self.loans.idle_ns {
            _ if unused.is_empty() => self.loans.idle_ns = None,
            None => self.loans.idle_ns = Some(now_ns + IDLE_NS),
            Some(at) if now_ns < at => {}
            Some(_) => {
                busy = true;
                self.loans.idle_ns = None;
                for base in unused {
                    self.store.drop_loans(&(base..base + 1));
                    self.with_lending(|one| one.give_back(base));
                }
            }
        }
        busy
    }

    /// A core is about to start anew: nothing that was borrowed from it is had here.
    pub fn forget_loans_of(&mut self, core: usize) {
        let mut gone = Vec::new();
        self.with_lending(|one| {
            gone = one.drop_loans(core);
            Vec::new()
        });
        for Loan { base, .. } in gone {
            self.store.drop_loans(&(base..base + 1));
        }
    }
}
