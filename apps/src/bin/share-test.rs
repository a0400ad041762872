//! Shares memory between domains by capabilities, and takes it away again.
//!
//! `share-test`
//!
//! On this core and on the last one, copies of the program are this one's *guests*: each has an
//! endpoint to call, and gets orders in the answers. One more, the *heir*, finds its frame in the
//! capability that it was given at its start, and has nothing else.
//!
//! 1. Parent, heir and two guests share a frame: each sees what each other one writes.
//! 2. A guest gives a frame of its own to its parent, who gives it to another guest. It ends, and
//!    the frame with it: the next access of the other one faults.
//! 3. Guests hold what they can only read: writing faults, and they come by no other right.
//!    Revoked, it is gone from all of them at once, and from nobody else.
//! 4. The frame is revoked, from the heir too. The same memory is zero for the next one.
#![no_std]
#![no_main]

extern crate alloc;

use abi::exception::PAGE_FAULT;
use abi::layout::PAGE;
use alloc::vec::Vec;
use apps::checks::Outcome;
use core::sync::atomic::Ordering::Relaxed;
use rt::capability::{
    self, Address, ENDPOINT_BYTES, GIFT, Identity, Kind, OWN_SPACE, Retype, Rights, slots,
};
use rt::interface::FAULT_STATUS;
use rt::memory::{self, Error as Trouble, Result};
use rt::monitor::{self, Domain, Spawn};
use rt::space::{self, Mapping, PageSize, rights};
use rt::system_call::{self, Error};
use rt::{clock, lrpc};

rt::entry!(main);

/// The words by which a copy knows what it is.
const ON_CORE: &str = "on-core";
const GUEST: &str = "guest";
const HEIR: &str = "heir";

/// What a guest is told to do, the first word of an answer.
mod order {
    /// Nothing: call again.
    pub const IDLE: u64 = 0;
    /// Map what came along, with these rights. Back: an error.
    pub const TAKE: u64 = 1;
    /// Read this word of what was taken last. Back: it.
    pub const LOAD: u64 = 2;
    /// Write to this word of it this value.
    pub const STORE: u64 = 3;
    /// Say what the capability to it is. Back: an error, its rights.
    pub const LOOK: u64 = 4;
    /// Try to do more with it than to read it. Back: errors.
    pub const GRASP: u64 = 5;
    /// Make a frame of it. Back: an error, the rights to that, the error of a writable mapping.
    pub const DERIVE: u64 = 6;
    /// Make a frame with this value in this word, and give it with the next call.
    pub const GIVE: u64 = 7;
    /// Take no more capabilities, or (not 0) take them again.
    pub const CLOSE: u64 = 8;
    /// Say whether any of its words is not zero.
    pub const ANY: u64 = 9;
    /// End with this status.
    pub const END: u64 = 10;
}

/// What lies where in the frame that all share.
mod word {
    /// A new number here asks the heir for a sum.
    pub const ASKED: usize = 0;
    /// The same, when it is done.
    pub const ANSWERED: usize = 1;
    /// The sum of the next three.
    pub const SUM: usize = 2;
    /// The parent's.
    pub const PARENT: usize = 8;
    /// The first guest's.
    pub const FIRST: usize = 9;
    /// The second guest's.
    pub const SECOND: usize = 10;
    /// Somebody's, in the second page.
    pub const FAR: usize = 1000;
}

/// Bytes of the frame.
const BYTES: u64 = 2 * PAGE;
/// Exit status of who met a page fault.
const FAULTED: i32 = FAULT_STATUS + PAGE_FAULT as i32;
/// Badge of what can only be read.
const BADGE: u64 = 77;
/// How long something may take that comes by itself.
const PATIENCE_NS: u64 = 30_000_000_000;
/// How long to wait before looking again.
const PAUSE_NS: u64 = 100_000;
/// Stands for an error of a monitor, where errors of the CPU driver are numbers.
const MONITORS_ERROR: u64 = u64::MAX;

fn main() -> i32 {
    let mut words = rt::startup().arguments().skip(1);
    let ended = match words.next() {
        None => all_cores(),
        Some(ON_CORE) => on_core(),
        Some(GUEST) => guest(),
        Some(HEIR) => heir(),
        Some(_) => {
            rt::println!("usage: share-test");
            return 2;
        }
    };
    ended.unwrap_or_else(|error| {
        rt::println!("share-test: failed: {error}");
        1
    })
}

/// On this core, and on the last one.
fn all_cores() -> Result<i32> {
    let start = rt::startup();
    let last = start
        .cores()
        .last()
        .filter(|last| *last != start.core as usize);
    let mut status = on_core()?;
    if let Some(last) = last {
        let there = Spawn::new(&["share-test", ON_CORE]).on(last).start()?;
        status |= monitor::wait(there)?;
    }
    if status == 0 {
        rt::println!("share-test: passed");
    }
    Ok(status)
}

/// The number that stands for what something came to.
fn code<T>(result: capability::Result<T>) -> u64 {
    result.err().map_or(0, |error| error as u64)
}

/// The same of something about memory.
fn code_of_memory<T>(result: &Result<T>) -> u64 {
    match result {
        Err(Trouble::NotGiven(_)) => MONITORS_ERROR,
        Err(Trouble::Refused(error)) => *error as u64,
        Ok(_) => 0,
    }
}

/// Maps a frame that others have, too.
fn map(frame: Address, with: u64) -> Result<Mapping> {
    // SAFETY: made for this test; all accesses in this program are to atomic words.
    unsafe { Mapping::of(frame, PageSize::Small, with) }
}

/// A guest, as its parent sees it. Its call is not received before there is an order for it.
struct Guest {
    domain: Domain,
    endpoint: Address,
}

impl Guest {
    fn invite() -> Result<Self> {
        let endpoint = memory::object(Kind::Endpoint, ENDPOINT_BYTES)?;
        let gift = slots::take()?;
        capability::mint(endpoint, gift, Rights::WRITE | Rights::GRANT, 0)?;
        let domain = Spawn::new(&["share-test", GUEST]).gift(gift).start()?;
        capability::delete(gift)?;
        slots::give(gift);
        Ok(Self { domain, endpoint })
    }

    /// Its next call.
    fn receive(&self) -> Result<[u64; 5]> {
        let deadline = clock::now_ns() + PATIENCE_NS;
        loop {
            match lrpc::receive(self.endpoint, Some(deadline)) {
                Ok((_, words)) => return Ok(words),
                Err(Error::Interrupted) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes its result, and leaves it calling again.
    fn result(&self) -> Result<[u64; 5]> {
        let words = self.receive()?;
        lrpc::reply([order::IDLE, 0, 0, 0, 0])?;
        Ok(words)
    }

    /// Has it do something.
    fn tell(&self, order: u64, a: u64, b: u64) -> Result<[u64; 5]> {
        self.receive()?;
        lrpc::reply([order, a, b, 0, 0])?;
        self.result()
    }

    /// Gives it a capability, which it maps; the error.
    fn give(&self, frame: Address, with: u64) -> Result<u64> {
        self.receive()?;
        lrpc::reply_give([order::TAKE, with, 0, 0], frame)?;
        Ok(self.result()?[0])
    }

    fn load(&self, word: usize) -> Result<u64> {
        Ok(self.tell(order::LOAD, word as u64, 0)?[0])
    }

    fn store(&self, word: usize, value: u64) -> Result {
        self.tell(order::STORE, word as u64, value)?;
        Ok(())
    }

    /// Has it do something that it does not survive, or end; its exit status.
    fn tell_last(self, order: u64, a: u64, b: u64) -> Result<i32> {
        self.receive()?;
        lrpc::reply([order, a, b, 0, 0])?;
        let status = monitor::wait(self.domain)?;
        memory::free(self.endpoint)?;
        Ok(status)
    }
}

/// All of it, on one core.
fn on_core() -> Result<i32> {
    let mut outcome = Outcome::default();
    let ram = slots::take()?;
    monitor::ram(BYTES, ram)?;
    let what = Retype {
        kind: Kind::Frame,
        offset: 0,
        bytes: BYTES,
        count: 1,
    };
    let frame = slots::take()?;
    capability::retype(ram, &what, frame)?;
    let base = capability::identify(frame)?.base;
    let own = map(frame, rights::WRITE)?;
    let heir = Spawn::new(&["share-test", HEIR]).gift(frame).start()?;
    share(&own, &mut outcome)?;
    giver_ends(&mut outcome)?;
    read_only(&own, &mut outcome)?;

    // From the heir, who looks at it all the time, and not from who revokes.
    own.words()[word::FAR].store(0xdead, Relaxed);
    outcome.expect("the revoke", &capability::revoke(frame), &Ok(()));
    let status = monitor::wait(heir)?;
    outcome.expect("who looks at what was revoked", &status, &FAULTED);
    let kept = own.words()[word::FAR].load(Relaxed);
    outcome.expect("what the parent has still", &kept, &0xdead);
    drop(own);
    capability::delete(frame)?;
    capability::retype(ram, &what, frame)?;
    let again = capability::identify(frame)?.base;
    outcome.expect("the same memory", &again, &base);
    let next = Guest::invite()?;
    outcome.expect("a new frame", &next.give(frame, rights::READ)?, &0);
    let any = next.tell(order::ANY, 0, 0)?[0];
    outcome.expect("what is left in it", &any, &0);
    outcome.expect("the end", &next.tell_last(order::END, 0, 0)?, &0);
    monitor::free_ram(base)?;

    let core = rt::startup().core;
    rt::println!("share-test: core {core}: {} checks", outcome.checks);
    if outcome.bad > 0 {
        rt::println!("share-test: failed: {} checks", outcome.bad);
    }
    Ok(i32::from(outcome.bad > 0))
}

/// Asks the heir for a sum.
fn ask_heir(own: &Mapping) -> Result<u64> {
    let words = own.words();
    let number = words[word::ANSWERED].load(Relaxed) + 100;
    words[word::ASKED].store(number, Relaxed);
    let deadline = clock::now_ns() + PATIENCE_NS;
    while words[word::ANSWERED].load(Relaxed) != number {
        if clock::now_ns() > deadline {
            return Err(Error::TimedOut.into());
        }
        clock::sleep_ns(PAUSE_NS);
    }
    Ok(words[word::SUM].load(Relaxed))
}

/// Parent, heir and two guests see what each of them writes.
fn share(own: &Mapping, outcome: &mut Outcome) -> Result {
    let words = own.words();
    let guests = [Guest::invite()?, Guest::invite()?];
    // Who takes nothing gets nothing, and waits for its answer still.
    guests[0].tell(order::CLOSE, 0, 0)?;
    guests[0].receive()?;
    let refused = lrpc::reply_give([order::TAKE, rights::WRITE, 0, 0], own.frame());
    let expected = Err(Error::NoReceiveSlot);
    outcome.expect("a gift to nowhere", &refused, &expected);
    lrpc::reply([order::CLOSE, 1, 0, 0, 0])?;
    guests[0].result()?;
    for guest in &guests {
        outcome.expect("a share", &guest.give(own.frame(), rights::WRITE)?, &0);
        let [error, held, ..] = guest.tell(order::LOOK, 0, 0)?;
        let rights = capability::identify(own.frame())?.rights;
        let expected = (0, u64::from(rights.bits()));
        outcome.expect("its rights", &(error, held), &expected);
    }
    for round in 1..4 {
        let (far, near) = (1000 * round, 7 * round);
        words[word::PARENT].store(near, Relaxed);
        guests[0].store(word::FIRST, near + 1)?;
        guests[1].store(word::SECOND, near + 2)?;
        guests[0].store(word::FAR, far)?;
        let places = [word::PARENT, word::FIRST, word::SECOND, word::FAR];
        let expected = [near, near + 1, near + 2, far];
        let seen = places.map(|place| words[place].load(Relaxed));
        outcome.expect("what the parent sees", &seen, &expected);
        for guest in &guests {
            for (place, expected) in places.into_iter().zip(expected) {
                outcome.expect("what a guest sees", &guest.load(place)?, &expected);
            }
        }
        let sum = ask_heir(own)?;
        outcome.expect("what the heir sees", &sum, &(3 * near + 3));
        let seen = guests[0].load(word::SUM)?;
        outcome.expect("what is seen of the heir", &seen, &sum);
    }
    for guest in guests {
        let status = guest.tell_last(order::END, 3, 0)?;
        outcome.expect("the end of a guest", &status, &3);
    }
    // Those who are gone took nothing along.
    words[word::PARENT].store(1, Relaxed);
    let expected = words[word::FIRST].load(Relaxed) + words[word::SECOND].load(Relaxed) + 1;
    outcome.expect("the heir after them", &ask_heir(own)?, &expected);
    Ok(())
}

/// A frame that comes with a call, and is gone with who made it.
fn giver_ends(outcome: &mut Outcome) -> Result {
    let (giver, taker) = (Guest::invite()?, Guest::invite()?);
    let place = slots::take()?;
    lrpc::receive_slot(Some(place))?;
    giver.receive()?;
    lrpc::reply([order::GIVE, word::FIRST as u64, 4711, 0, 0])?;
    let gave = giver.result()?[4];
    lrpc::receive_slot(None)?;
    outcome.expect("a capability in a call", &gave, &1);
    let kind = capability::identify(place).map(|found| found.kind);
    outcome.expect("what came", &kind, &Ok(Kind::Frame));
    let mapping = map(place, rights::WRITE)?;
    let found = mapping.words()[word::FIRST].load(Relaxed);
    outcome.expect("what the giver wrote", &found, &4711);
    mapping.words()[word::SECOND].store(815, Relaxed);
    let seen = giver.load(word::SECOND)?;
    outcome.expect("what the giver sees", &seen, &815);
    outcome.expect("handed on", &taker.give(place, rights::WRITE)?, &0);
    taker.store(word::PARENT, 42)?;
    let seen = (taker.load(word::FIRST)?, giver.load(word::PARENT)?);
    outcome.expect("what all three see", &seen, &(4711, 42));
    let address = mapping.address();
    let there = space::translate(OWN_SPACE, address).map(|_| ());
    outcome.expect("a mapping", &there, &Ok(()));

    let ended = giver.tell_last(order::END, 0, 0)?;
    outcome.expect("the giver's end", &ended, &0);
    let left = capability::identify(place).map(|_| ());
    outcome.expect("what came of it", &left, &Err(Error::EmptySlot));
    let there = space::translate(OWN_SPACE, address).map(|_| ());
    outcome.expect("no mapping", &there, &Err(Error::NotMapped));
    let [error, ..] = taker.tell(order::LOOK, 0, 0)?;
    outcome.expect("handed on, and gone", &error, &(Error::EmptySlot as u64));
    let status = taker.tell_last(order::LOAD, word::FIRST as u64, 0)?;
    outcome.expect("an access to what is gone", &status, &FAULTED);
    drop(mapping);
    slots::give(place);
    Ok(())
}

/// What can only be read.
fn read_only(own: &Mapping, outcome: &mut Outcome) -> Result {
    let words = own.words();
    words[word::PARENT].store(100, Relaxed);
    let lot = slots::take()?;
    let share = slots::take()?;
    let plain = slots::take()?;
    capability::mint(own.frame(), lot, Rights::READ | Rights::REVOKE, BADGE)?;
    capability::mint(lot, share, Rights::READ, 0)?;
    capability::mint(own.frame(), plain, Rights::READ, 0)?;

    let mut guests = Vec::new();
    for shared in [share, share, plain] {
        let guest = Guest::invite()?;
        outcome.expect("a read-only share", &guest.give(shared, rights::READ)?, &0);
        outcome.expect("what is read", &guest.load(word::PARENT)?, &100);
        let [error, held, ..] = guest.tell(order::LOOK, 0, 0)?;
        let expected = (0, u64::from(Rights::READ.bits()));
        outcome.expect("a reader's rights", &(error, held), &expected);
        let denied = Error::NotAllowed as u64;
        let expected = [
            denied,
            denied,
            denied,
            Error::MoreRights as u64,
            Error::NotRevocable as u64,
        ];
        let found = guest.tell(order::GRASP, 0, 0)?;
        outcome.expect("a reader that wants more", &found, &expected);
        guests.push(guest);
    }
    // What has a badge, nothing is made of; and what is made of the other is no more than it.
    let found = guests[0].tell(order::DERIVE, 0, 0)?[0];
    outcome.expect("made of a badge", &found, &(Error::Badged as u64));
    let found = guests[2].tell(order::DERIVE, 0, 0)?;
    let held = u64::from((Rights::READ | Rights::REVOKE).bits());
    let expected = [0, held, Error::NotAllowed as u64, 0, 0];
    outcome.expect("made of what is read-only", &found, &expected);

    words[word::PARENT].store(200, Relaxed);
    for guest in &guests {
        outcome.expect("what changed", &guest.load(word::PARENT)?, &200);
    }
    let status = guests
        .remove(0)
        .tell_last(order::STORE, word::PARENT as u64, 300)?;
    outcome.expect("a write to what is read-only", &status, &FAULTED);
    let found = words[word::PARENT].load(Relaxed);
    outcome.expect("what was not written", &found, &200);

    // Revoked by its badge: from those who have it with that, at once.
    let another = Guest::invite()?;
    outcome.expect("another", &another.give(share, rights::READ)?, &0);
    guests.insert(0, another);
    for guest in &guests {
        outcome.expect("before a revoke", &guest.load(word::PARENT)?, &200);
    }
    outcome.expect("a revoke by badge", &capability::revoke(lot), &Ok(()));
    let badge = |found: Identity| found.badge;
    let left = [lot, share, plain].map(|slot| capability::identify(slot).map(badge));
    let expected = [Ok(BADGE), Err(Error::EmptySlot), Ok(0)];
    outcome.expect("what is left", &left, &expected);
    let unharmed = guests.pop();
    for guest in &guests {
        let [error, ..] = guest.tell(order::LOOK, 0, 0)?;
        outcome.expect("a share revoked", &error, &(Error::EmptySlot as u64));
    }
    for guest in guests {
        let status = guest.tell_last(order::LOAD, word::PARENT as u64, 0)?;
        outcome.expect("a read of what was revoked", &status, &FAULTED);
    }
    if let Some(guest) = unharmed {
        outcome.expect("who has another", &guest.load(word::PARENT)?, &200);
        outcome.expect("its end", &guest.tell_last(order::END, 0, 0)?, &0);
    }
    let sum = 200 + words[word::FIRST].load(Relaxed) + words[word::SECOND].load(Relaxed);
    outcome.expect("the heir", &ask_heir(own)?, &sum);
    for slot in [lot, plain] {
        capability::delete(slot)?;
    }
    for slot in [lot, share, plain] {
        slots::give(slot);
    }
    Ok(())
}

/// Looks at the frame that it was given, again and again: adds up what others write.
fn heir() -> Result<i32> {
    let frame = map(GIFT, rights::WRITE)?;
    let words = frame.words();
    loop {
        let asked = words[word::ASKED].load(Relaxed);
        if asked == words[word::ANSWERED].load(Relaxed) {
            clock::sleep_ns(PAUSE_NS);
            continue;
        }
        let parts = [word::PARENT, word::FIRST, word::SECOND];
        let sum = parts.iter().map(|part| words[*part].load(Relaxed)).sum();
        words[word::SUM].store(sum, Relaxed);
        words[word::ANSWERED].store(asked, Relaxed);
    }
}

/// Something that a guest has taken or made: the capability and where it is mapped.
struct Held {
    slot: Address,
    mapping: Mapping,
}

/// Does what it is told.
fn guest() -> Result<i32> {
    let mut arrival = slots::take()?;
    lrpc::receive_slot(Some(arrival))?;
    let mut held: Option<Held> = None;
    let mut gift = None;
    let mut result = [0; 5];
    loop {
        let [a, b, c, d, _] = result;
        let answer = match gift.take() {
            Some(gift) => lrpc::call_give(GIFT, [a, b, c, d], gift)?,
            None => lrpc::call(GIFT, result)?,
        };
        let [what, first, second, ..] = answer;
        result = [0; 5];
        match what {
            order::END => return Ok(first as i32),
            order::CLOSE => lrpc::receive_slot((first != 0).then_some(arrival))?,
            order::TAKE => match map(arrival, first) {
                Ok(mapping) => {
                    let slot = core::mem::replace(&mut arrival, slots::take()?);
                    lrpc::receive_slot(Some(arrival))?;
                    held = Some(Held { slot, mapping });
                }
                error => result[0] = code_of_memory(&error),
            },
            order::GIVE => {
                let mapping = Mapping::zeroed(BYTES, PageSize::Small)?;
                let slot = mapping.frame();
                mapping.words()[first as usize].store(second, Relaxed);
                gift = Some(slot);
                held = Some(Held { slot, mapping });
            }
            _ => {
                if let Some(held) = &held {
                    result = held.obey(what, first, second)?;
                }
            }
        }
    }
}

impl Held {
    /// What a guest is told to do with what it has.
    fn obey(&self, what: u64, first: u64, second: u64) -> Result<[u64; 5]> {
        let words = self.mapping.words();
        let mut result = [0; 5];
        match what {
            order::LOAD => result[0] = words[first as usize].load(Relaxed),
            order::STORE => words[first as usize].store(second, Relaxed),
            order::LOOK => match capability::identify(self.slot) {
                Ok(found) => result[1] = u64::from(found.rights.bits()),
                Err(error) => result[0] = error as u64,
            },
            order::GRASP => {
                let copy = slots::take()?;
                capability::copy(self.slot, copy)?;
                result[0] = code_of_memory(&map(copy, rights::WRITE));
                result[1] = code_of_memory(&map(copy, rights::EXECUTE));
                let protected = space::protect(self.slot, 0, rights::WRITE);
                result[2] = code(protected);
                let other = slots::take()?;
                let more = Rights::READ | Rights::WRITE;
                result[3] = code(capability::mint(self.slot, other, more, 0));
                result[4] = code(capability::revoke(self.slot));
                capability::delete(copy)?;
                slots::give(copy);
                slots::give(other);
            }
            order::DERIVE => {
                let part = slots::take()?;
                let what = Retype {
                    kind: Kind::Frame,
                    offset: PAGE,
                    bytes: PAGE,
                    count: 1,
                };
                let made = capability::retype(self.slot, &what, part);
                result[0] = code(made);
                if made.is_ok() {
                    result[1] = u64::from(capability::identify(part)?.rights.bits());
                    result[2] = code_of_memory(&map(part, rights::WRITE));
                    capability::delete(part)?;
                }
                slots::give(part);
            }
            order::ANY => {
                result[0] = words.iter().fold(0, |any, word| any | word.load(Relaxed));
            }
            _ => system_call::yield_now(),
        }
        Ok(result)
    }
}
