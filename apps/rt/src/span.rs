//! Domains that span cores: one program on several cores, with a range of addresses in common.
//!
//! ```no_run
//! # fn example() -> Result<(), rt::interface::Error> {
//! use rt::span::{self, Area, Span};
//!
//! fn work(address: u64) -> i32 {
//!     let area = Area::at(address, 4096).expect("of the span");
//!     area.fetch_add(0, 1);
//!     0
//! }
//!
//! let span = span::begin()?;
//! let area = span.map(4096)?;
//! let member = span.join(1, work, area.address())?;
//! assert_eq!(member.wait()?, 0);
//! assert_eq!(area.load(0), 1);
//! span.unmap(area)?; // nobody can touch it any more
//! # Ok(())
//! # }
//! ```
//!
//! Whoever begins the span is its *root*; one *member* a core joins it. Each is a domain of its own:
//! image, heap, stack and capabilities are private, and only what is mapped by the span is at the same
//! address for all of them. It comes to a core when it is touched there first. Touching what is not
//! mapped, or not so, ends the member with a page fault; when the root ends, all members are killed.
//!
//! What a member on a core had mapped stays when that core is lost, for whoever has touched it or does
//! so. When the core is started anew, all of it is unmapped, and members that have it are killed: its
//! memory is the new life's. The others go on, and the root may join a member there again.

use crate::interface::{Error, spaces};
use crate::monitor::{self, Domain};
use crate::startup;
use abi::layout::{USER_SPAN, USER_SPAN_END};
use core::sync::atomic::{AtomicU64, Ordering};

/// The span that this domain is a member of.
#[derive(Clone, Copy, Debug)]
pub struct Span(());

/// Makes this domain the root of a span. Errors: [`Error::AlreadySpanned`], [`Error::TooManySpans`].
pub fn begin() -> Result<Span, Error> {
    ask(spaces::BEGIN, [0; 6]).map(|_| Span(()))
}

/// The span that this domain was joined to.
pub fn joined() -> Option<Span> {
    (startup().function != 0).then_some(Span(()))
}

/// What a member runs in place of `main`.
pub type Function = fn(u64) -> i32;

/// What this member runs, and with what.
pub(crate) fn function() -> Option<(Function, u64)> {
    let (address, argument) = (startup().function, startup().argument);
    if address == 0 {
        return None;
    }
    // SAFETY: `join` took it for a function of this type, in the same program at the same address.
    let function = unsafe { core::mem::transmute::<*const (), Function>(address as *const ()) };
    Some((function, argument))
}

fn ask(kind: u16, arguments: [u64; 6]) -> Result<[u64; 5], Error> {
    monitor::ask(startup().core as usize, kind, arguments)
}

impl Span {
    /// Starts this program as a member on another core, which has none: it runs `function` in place
    /// of `main`, and ends with what that returns. Back once it is in the span. Only the root may.
    ///
    /// Errors: [`Error::NotAllowed`], [`Error::AlreadySpanned`], [`Error::NoSuchCore`],
    /// [`Error::TooManySpans`], [`Error::CoreLost`], and those of a spawn.
    pub fn join(self, core: usize, function: Function, argument: u64) -> Result<Member, Error> {
        let arguments = startup().raw_text().0;
        let function = function as *const () as u64;
        let words = [
            core as u64,
            function,
            argument,
            arguments.len() as u64,
            0,
            0,
        ];
        let here = startup().core as usize;
        let token = monitor::request_with_text(here, spaces::JOIN, arguments, words)?;
        let [domain, ..] = monitor::answer(token)?;
        Ok(Member(Domain(domain)))
    }

    /// Maps zeroed memory for all members, readable and writable: whole pages of this core's RAM.
    pub fn map(self, bytes: u64) -> Result<Area, Error> {
        let [address, ..] = ask(spaces::MAP, [bytes, 0, 0, 0, 0, 0])?;
        Ok(Area { address, bytes })
    }

    /// Unmaps memory on all cores, or a part of it, in whole pages, whoever mapped it. Afterwards
    /// nobody can use what was there; of what is mapped nowhere, there is nothing to do.
    pub fn unmap(self, area: Area) -> Result<(), Error> {
        ask(spaces::UNMAP, [area.address, area.bytes, 0, 0, 0, 0]).map(|_| ())
    }

    /// Lets all members read only, or read and write. Errors: [`Error::NotMapped`].
    pub fn protect(self, area: Area, is_writable: bool) -> Result<(), Error> {
        let words = [area.address, area.bytes, u64::from(is_writable), 0, 0, 0];
        ask(spaces::PROTECT, words).map(|_| ())
    }

    /// Takes this domain, which is not the root, out of the span. What it mapped stays.
    pub fn leave(self) -> Result<(), Error> {
        ask(spaces::LEAVE, [0; 6]).map(|_| ())
    }
}

/// A member, as the root sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member(pub Domain);

impl Member {
    /// Waits for it to end, and returns its exit status.
    pub fn wait(self) -> Result<i32, Error> {
        monitor::wait(self.0)
    }

    /// Ends it.
    pub fn kill(self) -> Result<(), Error> {
        monitor::kill(self.0)
    }
}

/// Addresses of the range that all members share. All accesses are atomic, as others have them too;
/// where nothing is mapped, they end this domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    address: u64,
    bytes: u64,
}

impl Area {
    /// These addresses; `None`: not of the range, or not aligned to 8 bytes.
    pub fn at(address: u64, bytes: u64) -> Option<Self> {
        let end = address.checked_add(bytes)?;
        let fits = address >= USER_SPAN && end <= USER_SPAN_END;
        (fits && address.is_multiple_of(8)).then_some(Self { address, bytes })
    }

    /// Where it starts.
    pub fn address(self) -> u64 {
        self.address
    }

    /// Its length.
    pub fn bytes(self) -> u64 {
        self.bytes
    }

    /// A part of it; `None` where it ends before.
    pub fn part(self, offset: u64, bytes: u64) -> Option<Self> {
        let end = offset.checked_add(bytes)?;
        (end <= self.bytes && offset.is_multiple_of(8)).then(|| Self {
            address: self.address + offset,
            bytes,
        })
    }

    /// # Panics
    /// If the word does not lie in the area.
    fn word(&self, index: usize) -> &AtomicU64 {
        assert!((index as u64) < self.bytes / 8, "word {index} of {self:x?}");
        let offset = index as u64 * 8;
        // SAFETY: an aligned word of the range, where there is nothing but memory of spans, of which
        // programs only have these atomic words. Where there is none, the access ends this domain.
        unsafe { AtomicU64::from_ptr((self.address + offset) as *mut u64) }
    }

    /// Reads a word.
    ///
    /// # Panics
    /// If the word does not lie in the area. So in all of these.
    pub fn load(&self, index: usize) -> u64 {
        self.word(index).load(Ordering::Acquire)
    }

    /// Writes a word.
    pub fn store(&self, index: usize, value: u64) {
        self.word(index).store(value, Ordering::Release);
    }

    /// Adds to a word; returns what was there.
    pub fn fetch_add(&self, index: usize, value: u64) -> u64 {
        self.word(index).fetch_add(value, Ordering::AcqRel)
    }
}
