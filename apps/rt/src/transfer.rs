//! Capabilities for domains of the same job, on this core or another.
//!
//! A receiver says where the next capability is to go ([`receive`], or [`Receiving`] to do something
//! else meanwhile), a sender names the receiver ([`send`]). What came is a capability like any other:
//! it can be mapped, copied, handed on. The monitors know which cores hold the object, so
//! [`capability::retype`], [`capability::delete`] and [`capability::revoke`] do on all cores
//! what they say: a range becomes something once only, and whatever was revoked is nowhere left.
//!
//! RAM, frames, device frames and doorbells travel, without badges, and as long as nothing was made of
//! them; what was made of them later travels as well. RAM becomes RAM or frames on a core that it does
//! not belong to: what its CPU driver would have to reach cannot be made of it. Frames made there are
//! not zeroed: they hold what domains of the same job left in them. A doorbell goes everywhere with the
//! domain that it wakes. ([`monitor::doorbell`] asks for that of another domain.)

use crate::capability::{self, Address, Kind, Retype, Rights};
use crate::clock;
use crate::interface::{Error, regions};
use crate::monitor::{self, Domain, Token};
use crate::startup;
use crate::system_call::{self, Error as CallError};

/// How long to wait before the first attempt is repeated, and at most.
const FIRST_PAUSE_NS: u64 = 50_000;
const LAST_PAUSE_NS: u64 = 5_000_000;

/// A capability that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Who sent it.
    pub from: Domain,
    /// What it is to.
    pub kind: Kind,
    /// What it allows.
    pub rights: Rights,
}

fn ask(kind: u16, arguments: [u64; 6]) -> Result<[u64; 5], Error> {
    monitor::ask(startup().core as usize, kind, arguments)
}

/// Waits a little, longer each time.
fn pause(pause_ns: &mut u64) {
    let until = clock::now_ns() + *pause_ns;
    while clock::now_ns() < until {
        system_call::wait(Some(until));
    }
    *pause_ns = (*pause_ns * 2).min(LAST_PAUSE_NS);
}

/// Does again what somebody was too busy for.
pub(crate) fn patiently<T>(mut work: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let mut pause_ns = FIRST_PAUSE_NS;
    loop {
        match work() {
            Err(Error::Busy) => pause(&mut pause_ns),
            done => return done,
        }
    }
}

/// Gives a domain a copy of a capability with all its rights. Waits until the domain wants one: until
/// it ends, if need be.
pub fn send(slot: Address, to: Domain) -> Result<(), Error> {
    let rights = match capability::identify(slot) {
        Ok(found) => found.rights,
        Err(_) => return Err(Error::BadSlot),
    };
    let mut pause_ns = FIRST_PAUSE_NS;
    loop {
        match try_send(slot, to, rights) {
            Err(Error::NotWaiting | Error::Busy) => pause(&mut pause_ns),
            sent => return sent,
        }
    }
}

/// Gives a domain a copy of a capability with these rights. [`Error::NotWaiting`]: it wants none now.
pub fn try_send(slot: Address, to: Domain, rights: Rights) -> Result<(), Error> {
    let rights = u64::from(rights.bits());
    ask(regions::SEND, [slot.0, to.0, rights, 0, 0, 0]).map(|_| ())
}

/// Waits until a capability comes, into an empty slot.
pub fn receive(slot: Address) -> Result<Received, Error> {
    Receiving::begin(slot)?.wait()
}

/// A slot that waits for a capability; there is one at a time.
#[derive(Debug)]
#[must_use = "what comes is said here"]
pub struct Receiving(Token);

impl Receiving {
    /// From now on a capability may come into this empty slot.
    pub fn begin(slot: Address) -> Result<Self, Error> {
        let core = startup().core as usize;
        monitor::request(core, regions::RECEIVE, [slot.0, 0, 0, 0, 0, 0]).map(Self)
    }

    /// Whether one came by now, or none will.
    pub fn poll(&self) -> Option<Result<Received, Error>> {
        monitor::try_answer(&self.0).map(|answer| answer.map(received))
    }

    /// Waits until one comes.
    pub fn wait(self) -> Result<Received, Error> {
        monitor::answer(self.0).map(received)
    }

    /// Waits no longer; what has come by now has come.
    pub fn withdraw(self) -> Result<Option<Received>, Error> {
        ask(regions::WITHDRAW, [0; 6])?;
        match self.wait() {
            Ok(received) => Ok(Some(received)),
            Err(Error::Withdrawn) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn received([from, what, ..]: [u64; 5]) -> Received {
    Received {
        from: Domain(from),
        kind: Kind::from_code(what & 0xff).unwrap_or(Kind::Null),
        rights: Rights::from_bits_truncate((what >> 8) as u8),
    }
}

/// Has the monitor do what the CPU driver would not without the other cores. A monitor itself has
/// nobody to ask.
fn ask_about(kind: u16, arguments: [u64; 6]) -> capability::Result<u64> {
    if startup().monitor_channel == 0 {
        return Err(CallError::AskMonitor);
    }
    match patiently(|| ask(kind, arguments)) {
        Ok([error, result, ..]) => CallError::from_code(error).map_or(Ok(result), Err),
        Err(Error::BadSlot | Error::Revoked) => Err(CallError::EmptySlot),
        Err(Error::NoMemory) => Err(CallError::TooMany),
        Err(_) => Err(CallError::AskMonitor),
    }
}

/// See [`capability::retype`]. Whether frames are left to be zeroed.
pub(crate) fn retype(
    source: Address,
    what: &Retype,
    destination: Address,
) -> capability::Result<bool> {
    let kind = what.kind as u64 | what.count << 8;
    let arguments = [source.0, destination.0, kind, what.offset, what.bytes, 0];
    ask_about(regions::RETYPE, arguments).map(|result| result == 1)
}

/// See [`capability::delete`].
pub(crate) fn delete(slot: Address) -> capability::Result {
    ask_about(regions::DELETE, [slot.0, 0, 0, 0, 0, 0]).map(|_| ())
}

/// See [`capability::revoke`].
pub(crate) fn revoke(slot: Address) -> capability::Result {
    ask_about(regions::REVOKE, [slot.0, 0, 0, 0, 0, 0]).map(|_| ())
}
