//! Memory that cores lend each other: a core that has too little borrows from the nearest that has
//! some, returns what it does not need any more, and nothing is lost or used twice when either stops.
//!
//! ```text
//!  borrower              nearest               next
//!    │ Ask ─────────────────►│ Lend: has none         │
//!    │◄──────────────── None ─│                       │
//!    │ Ask ───────────────────────────────────────────►│ Lend: so much
//!    │◄─────────────────────────────────────────── Lent ─│
//!    │ Return ────────────────────────────────────────►│ TakeBack
//!    │◄─────────────────────────────────────── Returned ─│
//!
//!  (borrower: dead)      lender                all others of the view
//!                           │ Clear ────────────────►│ Watch: nothing of it is used here, or no more
//!                           │◄────────────── Cleared │
//!                           │ TakeBack: all, and this core itself, have said so
//! ```
//!
//! An *ask* goes to one core after another, in the order of nearness, and has a number of its own at
//! each: a loan is named by its borrower and that number. A loan takes 2 messages for each core that
//! is asked, its return 2. A core asks for one at a time; up to [`QUEUE`] asks wait.
//!
//! # A view changes
//!
//! What was under way is lost. The borrower asks again with the same number, and the lender, which
//! remembers the last number of each borrower, answers with the same loan. The borrower returns again
//! what it has no answer for; the number tells the loan that it returns from one of the same memory that
//! was made since.
//!
//! *The borrower dies.* What it had borrowed may be shared by domains of any core. The lender asks all
//! of them, and takes it back when each has said that nothing of it is used there; who has not yet said so is
//! asked again in each view. A core that joined since has nothing of it.
//!
//! *The lender dies.* The borrower keeps the loan, and when it gives it back there is nobody to return
//! it to. Before the lender's core starts anew, its loans are to be dropped: [`Lending::drop_loans`].
//!
//! # Invariants
//!
//! * *Nothing is lent twice.* The lender takes memory from what it has free for each number once.
//! * *What came back is used by nobody.* Either its borrower returned it, which it does when nobody uses
//!   it any more; or its borrower is dead, and so begins no use of it, and each core that was in the
//!   view has none.
//! * *Nothing is lost.* What is lent is with a borrower that lives, or on its way to or from it, which
//!   is repeated until it is there; or its borrower is dead, and all are asked until they have answered.

mod message;
#[cfg(test)]
mod tests;

pub use message::Message;

use crate::core_set::CoreSet;
use crate::view::View;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

/// Most asks of one core that wait for their turn, the one under way included.
pub const QUEUE: usize = 64;
/// Most loans that one core has.
pub const LOANS: usize = 128;
/// Most loans that one core has given.
pub const LENT: usize = 1024;

/// Memory of another core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Loan {
    /// Whose it is.
    pub lender: usize,
    /// Its physical address.
    pub base: u64,
    /// How much.
    pub pages: u64,
}

/// Why nothing was borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Error {
    /// No core of the view has so much in one piece.
    NoMemory,
    /// Too much is under way, or borrowed.
    Busy,
}

/// What the monitor is to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send a message to a core.
    Send(usize, Message),
    /// Take memory in one piece from what is free here, and say what it is: [`Lending::lent`].
    Lend {
        /// Names it.
        work: u64,
        /// Who wants it.
        to: usize,
        /// Pages without which it is of no use.
        least: u64,
        /// More than these are not wanted.
        most: u64,
    },
    /// What was lent is this core's again, and free.
    TakeBack {
        /// Its physical address.
        base: u64,
        /// How much.
        pages: u64,
    },
    /// Say when no domain of this core uses any of this memory: [`Lending::cleared`]. It is used by
    /// nobody new.
    Watch {
        /// Whose it is.
        lender: usize,
        /// Its physical address.
        base: u64,
        /// How much.
        pages: u64,
    },
    /// Nobody wants to know that any more.
    Unwatch {
        /// As it was said to watch.
        lender: usize,
        /// As it was said to watch.
        base: u64,
    },
    /// An ask ended.
    Done {
        /// As given to [`Lending::borrow`].
        token: u64,
        /// What this core may use from now on, at least as much as it asked for.
        result: Result<Loan, Error>,
    },
}

/// An ask of this core.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Ask {
    token: u64,
    least: u64,
    most: u64,
    /// Who was asked, and with which number.
    asked: Option<(usize, u32)>,
    /// Who may be asked yet.
    left: VecDeque<usize>,
}

/// What this core has borrowed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Borrowed {
    loan: Loan,
    is_returning: bool,
    /// Its lender died.
    is_orphan: bool,
}

/// The last ask of another core.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Book {
    sequence: u32,
    answer: Answer,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Answer {
    Deciding(u64),
    Lent(u64),
    None,
}

/// What this core has lent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Lent {
    pages: u64,
    to: usize,
    sequence: u32,
    /// The borrower is dead, and these have not said that they use nothing of it.
    waiting: Option<CoreSet>,
}

/// One core's part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lending {
    own: usize,
    /// The nearest first; who is not in it comes after them, by number.
    order: Vec<usize>,
    cores: CoreSet,
    /// The first is under way.
    asks: VecDeque<Ask>,
    sequence: u32,
    /// By number.
    borrowed: BTreeMap<u32, Borrowed>,
    /// By borrower.
    books: BTreeMap<usize, Book>,
    works: u64,
    /// By physical address.
    lent: BTreeMap<u64, Lent>,
    /// What lenders, and which memory of theirs, wait for.
    watches: BTreeSet<(usize, u64)>,
}

impl Lending {
    /// Of core `own`, in no view yet. `order`: other cores, the nearest first; whoever is not among
    /// them comes after them, by number.
    pub fn new(own: usize, order: Vec<usize>) -> Self {
        Self {
            own,
            order,
            cores: CoreSet::default(),
            asks: VecDeque::new(),
            sequence: 0,
            borrowed: BTreeMap::new(),
            books: BTreeMap::new(),
            works: 0,
            lent: BTreeMap::new(),
            watches: BTreeSet::new(),
        }
    }

    /// What this core has borrowed and not given back.
    pub fn loans(&self) -> impl Iterator<Item = Loan> + '_ {
        let kept = self.borrowed.values().filter(|one| !one.is_returning);
        kept.map(|one| one.loan)
    }

    /// Pages of this core that others have, or had when they died, and that did not come back.
    pub fn pages_lent(&self) -> u64 {
        self.lent.values().map(|one| one.pages).sum()
    }

    /// Whether an answer of another core is waited for.
    pub fn is_waiting(&self) -> bool {
        let returns = self.borrowed.values().any(|one| one.is_returning);
        let clears = self.lent.values().any(|one| one.waiting.is_some());
        returns || clears || !self.asks.is_empty()
    }

    /// Borrows memory in one piece, `least` pages of it or up to `most`. It ends with
    /// [`Action::Done`].
    pub fn borrow(&mut self, token: u64, least: u64, most: u64) -> Vec<Action> {
        let room = LOANS.saturating_sub(self.borrowed.len());
        if self.asks.len() >= QUEUE.min(room) {
            let result = Err(Error::Busy);
            return [Action::Done { token, result }].into();
        }
        let least = least.max(1);
        self.asks.push_back(Ask {
            token,
            least,
            most: most.max(least),
            asked: None,
            left: VecDeque::new(),
        });
        let mut actions = Vec::new();
        if self.asks.len() == 1 {
            self.begin_ask();
            self.ask_on(&mut actions);
        }
        actions
    }

    /// Nobody on any core uses anything of the loan at this address, and nobody will: it goes back
    /// to its lender, if that lives. What this core has not borrowed is left aside.
    pub fn give_back(&mut self, base: u64) -> Vec<Action> {
        let is_it = |one: &Borrowed| one.loan.base == base && !one.is_returning;
        let found = self.borrowed.iter_mut().find(|(_, one)| is_it(one));
        let Some((&sequence, one)) = found else {
            return Vec::new();
        };
        if one.is_orphan {
            self.borrowed.remove(&sequence);
            return Vec::new();
        }
        one.is_returning = true;
        let back = Message::Return { sequence, base };
        [Action::Send(one.loan.lender, back)].into()
    }

    /// A core that died starts anew: what was borrowed from it is nobody's loan any more. Back: what
    /// that is. Nobody may use any of it afterwards.
    pub fn drop_loans(&mut self, lender: usize) -> Vec<Loan> {
        let is_of = |_: &u32, one: &mut Borrowed| one.loan.lender == lender && one.is_orphan;
        let gone = self.borrowed.extract_if(.., is_of);
        gone.map(|(_, one)| one.loan).collect()
    }

    /// What there is to lend: its address and pages.
    pub fn lent(&mut self, work: u64, piece: Option<(u64, u64)>) -> Vec<Action> {
        let mut books = self.books.iter_mut();
        let found = books.find(|(_, book)| book.answer == Answer::Deciding(work));
        let Some((&to, book)) = found else {
            // Whoever wanted it is dead.
            let back = piece.map(|(base, pages)| Action::TakeBack { base, pages });
            return back.into_iter().collect();
        };
        let sequence = book.sequence;
        book.answer = piece.map_or(Answer::None, |(base, _)| Answer::Lent(base));
        if let Some((base, pages)) = piece {
            let waiting = None;
            let lent = Lent {
                pages,
                to,
                sequence,
                waiting,
            };
            self.lent.insert(base, lent);
        }
        [self.answer(to, sequence)].into()
    }

    /// No domain of this core uses any of the memory that was to be watched.
    pub fn cleared(&mut self, lender: usize, base: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.watches.remove(&(lender, base)) {
            if lender == self.own {
                self.on_cleared(lender, base, &mut actions);
            } else {
                actions.push(Action::Send(lender, Message::Cleared { base }));
            }
        }
        actions
    }

    /// Another view holds.
    pub fn installed(&mut self, view: &View) -> Vec<Action> {
        let mut actions = Vec::new();
        let before = core::mem::replace(&mut self.cores, view.cores.clone());
        let cores = &self.cores;
        // Whoever has joined since is not the one that it has the number of.
        let stays = |core: usize| before.contains(core) && cores.contains(core);
        self.books.retain(|core, _| stays(*core));
        self.watches.retain(|(lender, base)| {
            let (lender, base) = (*lender, *base);
            if !stays(lender) {
                actions.push(Action::Unwatch { lender, base });
            }
            stays(lender)
        });
        for one in self.borrowed.values_mut() {
            one.is_orphan |= !stays(one.loan.lender);
        }
        // Nobody answers a return to the dead, and who is back has all of its memory.
        self.borrowed.retain(|_, one| {
            !one.is_orphan || !one.is_returning && !cores.contains(one.loan.lender)
        });
        for (&sequence, one) in &self.borrowed {
            if one.is_returning {
                let base = one.loan.base;
                let back = Message::Return { sequence, base };
                actions.push(Action::Send(one.loan.lender, back));
            }
        }
        for (&base, one) in &mut self.lent {
            let pages = one.pages;
            match &mut one.waiting {
                Some(waiting) => *waiting = waiting.iter().filter(|core| stays(*core)).collect(),
                None if stays(one.to) => continue,
                None => {
                    one.waiting = Some(cores.clone());
                    let lender = self.own;
                    self.watches.insert((lender, base));
                    actions.push(Action::Watch {
                        lender,
                        base,
                        pages,
                    });
                }
            }
            let others = one.waiting.iter().flat_map(CoreSet::iter);
            let others = others.filter(|core| *core != self.own);
            actions.extend(others.map(|core| Action::Send(core, Message::Clear { base, pages })));
        }
        let ended: Vec<u64> = self.lent.keys().copied().collect();
        if let Some(ask) = self.asks.front_mut() {
            ask.left.retain(|core| stays(*core));
            ask.asked = ask.asked.filter(|(core, _)| stays(*core));
        }
        for base in ended {
            self.take_back_if_clear(base, &mut actions);
        }
        self.ask_on(&mut actions);
        actions
    }

    /// A message came. Whatever it says, it makes sense or is left aside.
    pub fn on_message(&mut self, from: usize, message: &Message) -> Vec<Action> {
        let mut actions = Vec::new();
        if from == self.own || !self.cores.contains(from) {
            return actions;
        }
        match *message {
            Message::Ask {
                sequence,
                least,
                most,
            } => self.on_ask(from, sequence, (least, most), &mut actions),
            Message::Lent {
                sequence,
                base,
                pages,
            } => {
                let is_enough = |ask: &&Ask| ask.least <= pages;
                if self.asked(from, sequence).filter(is_enough).is_some() {
                    let loan = Loan {
                        lender: from,
                        base,
                        pages,
                    };
                    let one = Borrowed {
                        loan,
                        is_returning: false,
                        is_orphan: false,
                    };
                    self.borrowed.insert(sequence, one);
                    self.end_ask(Ok(loan), &mut actions);
                }
            }
            Message::None { sequence } => {
                if self.asked(from, sequence).is_some() {
                    self.asks[0].asked = None;
                    self.ask_on(&mut actions);
                }
            }
            Message::Return { sequence, base } => {
                let found = self.lent.get(&base).filter(|one| {
                    one.to == from && one.sequence == sequence && one.waiting.is_none()
                });
                if let Some(pages) = found.map(|one| one.pages) {
                    self.lent.remove(&base);
                    actions.push(Action::TakeBack { base, pages });
                }
                actions.push(Action::Send(from, Message::Returned { sequence }));
            }
            Message::Returned { sequence } => {
                let found = self.borrowed.get(&sequence);
                if found.is_some_and(|one| one.is_returning && one.loan.lender == from) {
                    self.borrowed.remove(&sequence);
                }
            }
            Message::Clear { base, pages } => {
                let lender = from;
                let has_room = self.watches.len() < LENT * self.cores.len();
                if has_room && self.watches.insert((lender, base)) {
                    actions.push(Action::Watch {
                        lender,
                        base,
                        pages,
                    });
                }
            }
            Message::Cleared { base } => self.on_cleared(from, base, &mut actions),
        }
        actions
    }

    fn on_ask(
        &mut self,
        from: usize,
        sequence: u32,
        (least, most): (u64, u64),
        actions: &mut Vec<Action>,
    ) {
        if let Some(book) = self.books.get(&from).filter(|one| one.sequence == sequence) {
            // Asked again. While it is being decided, the answer is about to come.
            if !matches!(book.answer, Answer::Deciding(_)) {
                actions.push(self.answer(from, sequence));
            }
            return;
        }
        let of_it = self.lent.values().filter(|one| one.to == from).count();
        if of_it >= LOANS || self.lent.len() >= LENT || least == 0 || most < least {
            let answer = Answer::None;
            self.books.insert(from, Book { sequence, answer });
            actions.push(self.answer(from, sequence));
            return;
        }
        self.works += 1;
        let work = self.works;
        let answer = Answer::Deciding(work);
        self.books.insert(from, Book { sequence, answer });
        actions.push(Action::Lend {
            work,
            to: from,
            least,
            most,
        });
    }

    /// The answer to the last ask of a core, once it is decided.
    fn answer(&self, to: usize, sequence: u32) -> Action {
        let lent = match self.books.get(&to).map(|book| &book.answer) {
            Some(Answer::Lent(base)) => self.lent.get_key_value(base),
            _ => None,
        };
        let lent = lent.filter(|(_, one)| one.to == to && one.sequence == sequence);
        let message = match lent {
            Some((&base, one)) => Message::Lent {
                sequence,
                base,
                pages: one.pages,
            },
            None => Message::None { sequence },
        };
        Action::Send(to, message)
    }

    /// The ask under way, if this core was asked with this number.
    fn asked(&self, core: usize, sequence: u32) -> Option<&Ask> {
        let front = self.asks.front();
        front.filter(|ask| ask.asked == Some((core, sequence)))
    }

    /// The first ask is under way from now on.
    fn begin_ask(&mut self) {
        let (own, cores) = (self.own, &self.cores);
        let Some(ask) = self.asks.front_mut() else {
            return;
        };
        let near = self.order.iter().copied();
        let others = cores.iter().filter(|core| !self.order.contains(core));
        let all = near.chain(others);
        ask.left = all
            .filter(|core| *core != own && cores.contains(*core))
            .collect();
    }

    /// Asks who was asked already, or the next.
    fn ask_on(&mut self, actions: &mut Vec<Action>) {
        let Some(ask) = self.asks.front_mut() else {
            return;
        };
        if ask.asked.is_none()
            && let Some(core) = ask.left.pop_front()
        {
            self.sequence = self.sequence.wrapping_add(1);
            ask.asked = Some((core, self.sequence));
        }
        let Some((core, sequence)) = ask.asked else {
            return self.end_ask(Err(Error::NoMemory), actions);
        };
        let message = Message::Ask {
            sequence,
            least: ask.least,
            most: ask.most,
        };
        actions.push(Action::Send(core, message));
    }

    fn end_ask(&mut self, result: Result<Loan, Error>, actions: &mut Vec<Action>) {
        if let Some(ask) = self.asks.pop_front() {
            let token = ask.token;
            actions.push(Action::Done { token, result });
        }
        self.begin_ask();
        self.ask_on(actions);
    }

    /// A core uses nothing of this memory of a dead borrower.
    fn on_cleared(&mut self, core: usize, base: u64, actions: &mut Vec<Action>) {
        if let Some(one) = self.lent.get_mut(&base)
            && let Some(waiting) = &mut one.waiting
        {
            waiting.remove(core);
            self.take_back_if_clear(base, actions);
        }
    }

    fn take_back_if_clear(&mut self, base: u64, actions: &mut Vec<Action>) {
        let is_clear = |one: &&Lent| one.waiting.as_ref().is_some_and(CoreSet::is_empty);
        if let Some(pages) = self.lent.get(&base).filter(is_clear).map(|one| one.pages) {
            self.lent.remove(&base);
            actions.push(Action::TakeBack { base, pages });
        }
    }
}
