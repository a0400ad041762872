//! Has cores borrow memory from each other: `lending-test [--lose 1]` (with `--test-hooks` then).
//!
//! - on each core in turn, a program makes more frames than its own core has memory for, and uses all
//!   of them;
//! - on all at once, until nobody has any left: each is told so;
//! - a program shares what its core has borrowed with a child on another core; either of them ends
//!   first, and memory is home when both have;
//! - with `--lose 1`, the core of such a program is lost: what it had borrowed comes home, but not
//!   before the child has ended; then the core that has lent something is lost: the borrower goes on.
//!
//! After each, all memory is home again: every core has as much as before, nothing borrowed or lent.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use abi::layout::PAGE;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use apps::arguments::{Arguments, explain};
use apps::checks::Outcome;
use apps::mappings;
use core::sync::atomic::Ordering;
use rt::frame::Frame;
use rt::interface::{self, Error};
use rt::monitor::{self, Domain};
use rt::{clock, startup};

rt::entry!(main);

const USAGE: &str = "lending-test [--lose 1]";
const NAME: &str = "lending-test";
/// The word by which a copy knows that it has a role.
const ROLE: &str = "role";
/// How long what is expected may take, and how long to wait before looking again.
const PATIENCE_NS: u64 = 300_000_000_000;
const PAUSE_NS: u64 = 5_000_000;
/// How long memory must stay away that somebody uses.
const STAYS_NS: u64 = 60_000_000;
/// A program makes frames of this part of its core's memory.
const PARTS: u64 = 8;
/// Frames of which a program has borrowed the memory.
const BORROWED: usize = 3;

/// Words of the frame that a copy shares with who started it: the copy's child; whether the copy is
/// to end.
const CHILD: usize = 0;
const END: usize = 1;

fn main() -> i32 {
    let words: Vec<&str> = startup().arguments().collect();
    if let [_, ROLE, role, ..] = words[..] {
        return match play(role, words.get(3).copied()) {
            Ok(()) => 0,
            Err(failure) => {
                let core = startup().core;
                rt::println!("{NAME}: core {core}: {role}: {failure}");
                1
            }
        };
    }
    let asked = Arguments::of_program(&["--lose"]);
    let lose = match asked.and_then(|arguments| arguments.number("--lose", 0..=1)) {
        Ok(lose) => lose == Some(1),
        Err(misuse) => return explain(&misuse, USAGE),
    };
    let cores: Vec<usize> = startup().cores().collect();
    if cores.len() < 2 {
        rt::println!("{NAME}: there must be a core to borrow from: --cores 2 or more");
        return 2;
    }
    let mut test = Test {
        cores,
        outcome: Outcome::default(),
    };
    match test.run(lose) {
        Ok(()) if test.outcome.bad == 0 => {
            rt::println!("{NAME}: passed");
            0
        }
        Ok(()) => {
            let Outcome { bad, checks } = test.outcome;
            rt::println!("{NAME}: failed: {bad} of {checks} checks");
            1
        }
        Err(failure) => {
            rt::println!("{NAME}: failed: {failure}");
            1
        }
    }
}

type Failed = String;

fn told(what: &str) -> impl FnOnce(Error) -> Failed {
    let what = String::from(what);
    move |error| format!("{what}: {error}")
}

fn pause() {
    clock::sleep_ns(PAUSE_NS);
}

/// The frames of a copy, each page with a number of its own in its first and its last word.
struct Frames(Vec<Frame>);

impl Frames {
    const WORDS: usize = PAGE as usize / 8;

    fn number(at: usize, page: usize) -> u64 {
        (u64::from(startup().core) << 48) + ((at as u64) << 32) + page as u64 + 1
    }

    /// Makes one more, which must be zero.
    fn add(&mut self, bytes: u64) -> Result<Result<(), Failed>, Error> {
        let frame = monitor::frame(bytes as usize)?;
        let at = self.0.len();
        for page in 0..frame.bytes() / PAGE as usize {
            for word in [0, Self::WORDS - 1] {
                let word = frame.word(page * Self::WORDS + word);
                let old = word.swap(Self::number(at, page), Ordering::Relaxed);
                if old != 0 {
                    return Ok(Err(format!(
                        "frame {at}, page {page} is not empty: {old:x}"
                    )));
                }
            }
        }
        self.0.push(frame);
        Ok(Ok(()))
    }

    fn check(&self) -> Result<(), Failed> {
        for (at, frame) in self.0.iter().enumerate() {
            for page in 0..frame.bytes() / PAGE as usize {
                for word in [0, Self::WORDS - 1] {
                    let found = frame
                        .word(page * Self::WORDS + word)
                        .load(Ordering::Relaxed);
                    let expected = Self::number(at, page);
                    if found != expected {
                        return Err(format!(
                            "frame {at}, page {page}: expected {expected:x}, found {found:x}"
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes frames until this core has borrowed memory for some.
    fn borrow() -> Result<Self, Failed> {
        let core = startup().core as usize;
        let (_, pages) = monitor::memory(core).map_err(told("memory"))?;
        let bytes = (pages / PARTS).max(1) * PAGE;
        let mut frames = Self(Vec::new());
        let mut borrowed = 0;
        while borrowed < BORROWED {
            frames.add(bytes).map_err(told("a frame"))??;
            let (from_others, _) = monitor::loans(core).map_err(told("loans"))?;
            borrowed += usize::from(from_others > 0);
            if frames.0.len() as u64 > 2 * PARTS {
                return Err(format!(
                    "{} frames, and nothing is borrowed",
                    frames.0.len()
                ));
            }
        }
        frames.check()?;
        Ok(frames)
    }
}

/// What a copy does.
fn play(role: &str, argument: Option<&str>) -> Result<(), Failed> {
    let number = argument.and_then(|word| word.parse::<u64>().ok());
    let number = || number.ok_or_else(|| String::from("a number is missing"));
    match role {
        "borrow" => Frames::borrow()?.check(),
        "all" => {
            let bytes = number()?;
            let mut frames = Frames(Vec::new());
            loop {
                match frames.add(bytes) {
                    Ok(made) => made?,
                    Err(Error::NoMemory) => break,
                    Err(error) => return Err(format!("frame {}: {error}", frames.0.len())),
                }
            }
            frames.check()
        }
        "share" => {
            let orders = Frame::of_parent().ok_or("no frame of the parent")?;
            let frames = Frames::borrow()?;
            let last = frames.0.len() - 1;
            let arguments = [NAME, ROLE, "child", &format!("{}", Frames::number(last, 0))];
            let child = monitor::spawn(number()? as usize, &arguments, frames.0.last());
            let child = child.map_err(told("a child"))?;
            orders.word(CHILD).store(child.0, Ordering::Release);
            while orders.word(END).load(Ordering::Acquire) == 0 {
                pause();
            }
            frames.check()
        }
        "child" => {
            let (frame, first) = (
                Frame::of_parent().ok_or("no frame of the parent")?,
                number()?,
            );
            loop {
                for page in 0..frame.bytes() / PAGE as usize {
                    let found = frame.word(page * Frames::WORDS).load(Ordering::Relaxed);
                    if found != first + page as u64 {
                        return Err(format!("page {page}: {found:x}, not {first:x} and on"));
                    }
                }
                pause();
            }
        }
        _ => Err(String::from("no such role")),
    }
}

/// A copy that has borrowed, and shares that with a child.
struct Sharer {
    domain: Domain,
    child: Domain,
    orders: Frame,
}

struct Test {
    cores: Vec<usize>,
    outcome: Outcome,
}

/// Of each core: free pages of shared memory, pages borrowed, pages lent.
type Memory = Vec<(u64, u64, u64)>;

impl Test {
    fn memory(&self) -> Result<Memory, Failed> {
        let of = |core: &usize| {
            let (_, shared) = monitor::memory(*core)?;
            let (borrowed, lent) = monitor::loans(*core)?;
            Ok((shared, borrowed, lent))
        };
        let memory = self.cores.iter().map(of);
        memory.collect::<Result<_, _>>().map_err(told("memory"))
    }

    /// Waits until something is so of all cores' memory.
    fn until(&self, what: &str, is_so: impl Fn(&Memory) -> bool) -> Result<(), Failed> {
        let deadline_ns = clock::now_ns() + PATIENCE_NS;
        loop {
            let memory = self.memory()?;
            if is_so(&memory) {
                return Ok(());
            }
            if clock::now_ns() > deadline_ns {
                return Err(format!("{what}: free, borrowed, lent: {memory:?}"));
            }
            pause();
        }
    }

    fn until_home(&self, what: &str, before: &Memory) -> Result<(), Failed> {
        self.until(
            &format!("{what}: not all is home, which was {before:?}"),
            |now| now == before,
        )
    }

    fn lent(memory: &Memory) -> u64 {
        memory.iter().map(|(_, _, lent)| lent).sum()
    }

    fn ended(&mut self, what: &str, domain: Domain) {
        let status = monitor::wait(domain);
        self.outcome.expect(what, &status, &Ok(0));
    }

    fn run(&mut self, lose: bool) -> Result<(), Failed> {
        let before = self.memory()?;
        let own = startup().core as usize;
        for core in self.cores.clone() {
            let copy = monitor::spawn(core, &[NAME, ROLE, "borrow"], None);
            self.ended("a borrower", copy.map_err(told("a borrower"))?);
            self.until_home("one borrower", &before)?;
        }
        let all: u64 = before.iter().map(|(shared, ..)| shared).sum();
        // Frames of one domain are limited, too: no limit but that of memory must be met.
        let bytes = format!("{}", all / 128 * PAGE);
        let copies = self.cores.iter();
        let copies =
            copies.map(|core| monitor::begin_spawn(*core, &[NAME, ROLE, "all", &bytes], None));
        let copies: Vec<_> = copies.collect();
        for copy in copies {
            let copy = copy.and_then(monitor::end_spawn);
            self.ended("one of all", copy.map_err(told("one of all"))?);
        }
        self.until_home("all at once", &before)?;

        let others: Vec<usize> = self
            .cores
            .iter()
            .copied()
            .filter(|core| *core != own)
            .collect();
        let borrower = others[others.len() - 1];
        let third = *others[..others.len() - 1].last().unwrap_or(&own);
        for is_child_first in [true, false] {
            let (base, sharer) = self.share(borrower, third)?;
            if is_child_first {
                self.end_child(&sharer)?;
                sharer.orders.word(END).store(1, Ordering::Release);
                self.ended("a parent", sharer.domain);
            } else {
                sharer.orders.word(END).store(1, Ordering::Release);
                self.ended("a parent", sharer.domain);
                self.stays_lent()?;
                self.end_child(&sharer)?;
            }
            self.until_home("shared with a child", &base)?;
        }
        if lose {
            self.lose_borrower(borrower, third)?;
            self.lose_lender(own)?;
        }
        let Outcome { bad, checks } = self.outcome;
        rt::println!("{checks} checks, {bad} bad");
        Ok(())
    }

    /// Starts a copy that shares what it has borrowed with a child; back: memory before that but for
    /// the frame of its orders.
    fn share(&mut self, borrower: usize, third: usize) -> Result<(Memory, Sharer), Failed> {
        let orders = monitor::frame(PAGE as usize).map_err(told("a frame"))?;
        let before = self.memory()?;
        let arguments = [NAME, ROLE, "share", &format!("{third}")];
        let domain = monitor::spawn(borrower, &arguments, Some(&orders));
        let domain = domain.map_err(told("a parent"))?;
        let deadline_ns = clock::now_ns() + PATIENCE_NS;
        let child = loop {
            let child = orders.word(CHILD).load(Ordering::Acquire);
            if child != 0 {
                break Domain(child);
            }
            if clock::now_ns() > deadline_ns {
                return Err(String::from("a parent has no child"));
            }
            pause();
        };
        let sharer = Sharer {
            domain,
            child,
            orders,
        };
        self.stays_lent()?;
        Ok((before, sharer))
    }

    fn end_child(&mut self, sharer: &Sharer) -> Result<(), Failed> {
        // A child that found wrong words has ended, and cannot be killed.
        monitor::kill(sharer.child).map_err(told("the child"))
    }

    /// What is in use does not come home.
    fn stays_lent(&mut self) -> Result<(), Failed> {
        let until_ns = clock::now_ns() + STAYS_NS;
        while clock::now_ns() < until_ns {
            let memory = self.memory()?;
            if Self::lent(&memory) == 0 {
                return Err(format!("nothing is lent while a child uses it: {memory:?}"));
            }
            pause();
        }
        Ok(())
    }

    /// Stops a core by a wild write of its CPU driver, and waits until all others know.
    fn lose(&mut self, core: usize) -> Result<(), Failed> {
        let (epoch, _) = monitor::view(startup().core as usize).map_err(told("the view"))?;
        let target = mappings::of_core(startup().core as usize).map_err(told("mappings"))?;
        let target = target
            .iter()
            .filter(|range| range.is_writable() && !range.is_device());
        let target = target
            .max_by_key(|range| range.bytes)
            .ok_or("no memory to hit")?;
        let words = [target.physical + target.bytes / 2, 0, 0, 0, 0, 0];
        let answer = monitor::ask(core, interface::WILD_WRITE, words);
        if answer != Err(Error::CoreLost) {
            return Err(format!("core {core} answered {answer:?}; is the hook on?"));
        }
        self.cores.retain(|one| *one != core);
        for one in self.cores.clone() {
            while monitor::view(one).map_err(told("the view"))?.0 == epoch {
                pause();
            }
        }
        Ok(())
    }

    fn lose_borrower(&mut self, borrower: usize, third: usize) -> Result<(), Failed> {
        let (mut before, sharer) = self.share(borrower, third)?;
        before.remove(
            self.cores
                .iter()
                .position(|core| *core == borrower)
                .ok_or("no borrower")?,
        );
        self.lose(borrower)?;
        self.stays_lent()?;
        self.end_child(&sharer)?;
        self.until_home("the borrower was lost", &before)
    }

    fn lose_lender(&mut self, own: usize) -> Result<(), Failed> {
        if self.cores.len() < 2 {
            return Ok(()); // the borrower was the other one
        }
        let (mut before, sharer) = self.share(own, own)?;
        let memory = self.memory()?;
        let lender = memory.iter().position(|(_, _, lent)| *lent > 0);
        let lender = lender.ok_or("nobody lends")?;
        let core = self.cores[lender];
        before.remove(lender);
        self.lose(core)?;
        let has = monitor::loans(own).map(|(borrowed, _)| borrowed > 0);
        self.outcome
            .expect("what the lost core had lent is there", &has, &Ok(true));
        // Both go on, with all that they have written.
        sharer.orders.word(END).store(1, Ordering::Release);
        self.ended("a parent whose lender was lost", sharer.domain);
        self.end_child(&sharer)?;
        self.until_home("the lender was lost", &before)
    }
}
