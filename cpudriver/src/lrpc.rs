//! LRPC: a call from one dispatcher to another of the same core, and the answer.
//!
//! ```text
//!  client ── CALL ──► endpoint ──► server receives: runs on the client's time
//!  client ◄─ answer ── REPLY_RECEIVE, which waits for the next call as well
//! ```
//!
//! This is the slow path, which knows everything: callers that queue, doorbells in between,
//! deadlines, capabilities that go along, faults. What is most frequent and simplest, the entry
//! does by itself ([`crate::arch::entry`]).
//!
//! **Invariants.** `client.server` is the server exactly if `server.caller` is the client, and then
//! the client is `Calling`. `endpoint.receiver` is somebody exactly if that one is `Receiving`
//! there and not stopped. `endpoint.owner` is somebody exactly if the endpoint is in that one's
//! `endpoints`. `endpoint.queued` counts those that are `Queued` there.

use crate::dispatcher::{Link, State, own_slot, own_slots};
use crate::kernel::Kernel;
use crate::processor::{Processor, blocked, woken};
use crate::recording::{self, note};
use crate::scheduler::Wake;
use crate::system_calls::refusal;
use abi::capability::{Kind, Rights, SLOT_BYTES};
use abi::layout::DIRECT_MAP;
use abi::syscall::{Error, RESUME};
use capabilities::SlotId;
use trace::event::{LRPC_CALL, LRPC_REPLY};

/// Words of a call and of an answer.
pub type Words = [u64; 5];

/// What a call comes to at once.
pub enum Outcome {
    /// No results: what is in their registers means nothing.
    Done,
    /// These results.
    Results([u64; 6]),
    /// The current dispatcher blocks. Until it is answered, these stand in its registers.
    Blocked([u64; 6]),
}

fn with(first: u64, words: Words) -> [u64; 6] {
    let [a, b, c, d, e] = words;
    [first, a, b, c, d, e]
}

impl Processor {
    /// The one that stands first in the queue of an endpoint: of the highest priority, and of
    /// those who came first.
    fn first_in_queue(&mut self, endpoint: u64) -> Option<usize> {
        let queue = self.queue(endpoint);
        let rank = |handle: &usize| {
            let caller = self.dispatcher(*handle);
            caller.map(|caller| (u8::MAX - caller.priority, caller.ticket))
        };
        queue.into_iter().min_by_key(rank)
    }

    /// Ends the wait of a server with a call.
    fn deliver(&mut self, server: usize, endpoint: u64, message: [u64; 6]) {
        if let Some(endpoint) = self.endpoint(endpoint) {
            endpoint.receiver = Link::NOBODY;
        }
        self.forget_deadline(server);
        let Some(one) = self.dispatcher(server) else {
            return;
        };
        one.state = State::Runnable;
        one.answer(0, message);
        woken(server, Wake::Call);
        if one.owes_turns {
            self.rouse(server, Wake::Call);
        }
    }

    /// Checks that whoever receives at `endpoint` can ever answer `client`.
    fn check_call(&mut self, client: usize, endpoint: u64) -> Result<(), Error> {
        let at = self.endpoint(endpoint).ok_or(Error::PeerGone)?;
        if at.orphaned {
            return Err(Error::PeerGone);
        }
        // Whoever waits for itself, through however many others, would wait for ever.
        let mut server = at.owner.handle();
        for _ in 0..abi::limits::MAX_DISPATCHERS {
            let Some(handle) = server else {
                return Ok(());
            };
            if handle == client {
                return Err(Error::Deadlock);
            }
            let one = self.dispatcher(handle).ok_or(Error::PeerGone)?;
            let (state, next, queue) = (one.state, one.server, one.endpoint);
            server = match state {
                State::Calling => next.handle(),
                State::Queued => self.endpoint(queue).and_then(|queue| queue.owner.handle()),
                _ => return Ok(()),
            };
        }
        Err(Error::Deadlock)
    }

    /// `client` stands in the queue of an endpoint, or, where a server waits there, has called it.
    /// Returns that server. The words of a fault are in the client's registers; those of
    /// a system call will be, by the time that somebody asks for them.
    fn call(&mut self, client: usize, endpoint: u64, badge: u64) -> Option<usize> {
        self.attention = true;
        let ticket = self.ticket();
        let server = self.endpoint(endpoint)?.receiver.handle();
        let caller = self.dispatcher(client)?;
        (caller.endpoint, caller.badge, caller.ticket) = (endpoint, badge, ticket);
        match server {
            Some(server) => {
                self.connect(client, server);
                blocked(client, State::Calling);
            }
            None => {
                caller.state = State::Queued;
                blocked(client, State::Queued);
                self.endpoint(endpoint)?.queued += 1;
            }
        }
        server
    }

    /// A call of `client` is for `server` to answer.
    fn connect(&mut self, client: usize, server: usize) {
        if let Some(caller) = self.dispatcher(client) {
            caller.state = State::Calling;
            caller.server = Link::to(server);
        }
        if let Some(server) = self.dispatcher(server) {
            server.caller = Link::to(client);
        }
    }

    /// The current server answers.
    fn reply(&mut self, words: Words) -> Result<(), Error> {
        let server = self.current_dispatcher().ok_or(Error::NotFound)?;
        let client = server.caller.handle().ok_or(Error::NoCaller)?;
        server.caller = Link::NOBODY;
        let caller = self.dispatcher(client).ok_or(Error::NoCaller)?;
        caller.server = Link::NOBODY;
        caller.state = State::Runnable;
        let is_fault = core::mem::take(&mut caller.in_fault);
        if !is_fault {
            caller.answer(0, with(0, words));
        }
        note(LRPC_REPLY, words[0], client as u32);
        if is_fault && words[0] != RESUME {
            self.end(client, State::Faulted);
        } else {
            woken(client, Wake::Call);
            self.rouse(client, Wake::Call);
        }
        // The server ran on its client's time; from now on it runs on its own.
        let server = self.current();
        server
            .into_iter()
            .for_each(|server| self.rouse(server, Wake::Call));
        Ok(())
    }
}

impl Kernel {
    /// [`abi::syscall::CALL`], and [`abi::syscall::CALL_GIVE`] where the last word is a capability.
    pub fn call(&mut self, endpoint: u64, mut words: Words, give: bool) -> Result<Outcome, Error> {
        let mut rights = Rights::WRITE;
        rights.set(Rights::GRANT, give);
        let capability = self.find(endpoint, Kind::Endpoint, rights)?;
        let (base, badge) = (capability.base, capability.badge);
        let current = self.processor.current().ok_or(Error::NotFound)?;
        self.processor.check_call(current, base)?;
        let source = words[4];
        if give {
            let given = self.slot(source)?;
            self.check_clean(given)?;
            let at = self.processor.endpoint(base).ok_or(Error::PeerGone)?;
            if let Some(server) = at.receiver.handle() {
                self.give(current, source, server)?;
                words[4] = 1;
            }
        }
        if let Some(client) = self.processor.current_dispatcher() {
            client.gives = give;
        }
        if recording::is_on(LRPC_CALL) {
            let at = self.processor.endpoint(base);
            let owner = at.and_then(|at| at.owner.handle());
            let server = owner.map_or(u32::MAX, |owner| owner as u32);
            recording::write(LRPC_CALL, 0, words[0], server);
        }
        if let Some(server) = self.processor.call(current, base, badge) {
            self.processor.deliver(server, base, with(badge, words));
        }
        Ok(Outcome::Blocked(with(badge, words)))
    }

    /// Takes the next call out of the queue of an endpoint, for this server: badge and words.
    /// A caller whose capability cannot be given hears why, and the next one is taken.
    fn dequeue(&mut self, server: usize, endpoint: u64) -> Option<[u64; 6]> {
        loop {
            let client = self.processor.first_in_queue(endpoint)?;
            let caller = self.processor.dispatcher(client)?;
            let (badge, mut words, gives) = (caller.badge, caller.words(), caller.gives);
            if gives && !caller.in_fault {
                if let Err(error) = self.give(client, words[4], server) {
                    self.processor.fail(client, error);
                    continue;
                }
                words[4] = 1;
            }
            self.processor.endpoint(endpoint)?.queued -= 1;
            self.processor.connect(client, server);
            return Some(with(badge, words));
        }
    }

    /// Lets a dispatcher run on that was stopped.
    pub fn start(&mut self, handle: usize) {
        self.processor.start(handle);
        let Some(server) = self.processor.dispatcher(handle) else {
            return;
        };
        let (state, endpoint) = (server.state, server.endpoint);
        if state == State::Receiving
            && let Some(message) = self.dequeue(handle, endpoint)
        {
            self.processor.deliver(handle, endpoint, message);
            self.processor.rouse(handle, Wake::Call);
        }
    }

    /// [`abi::syscall::RECEIVE`].
    pub fn receive(&mut self, endpoint: u64, deadline_ns: u64) -> Result<Outcome, Error> {
        let base = self.find(endpoint, Kind::Endpoint, Rights::READ)?.base;
        let current = self.processor.current().ok_or(Error::NotFound)?;
        self.own_endpoint(base)?;
        let server = self.processor.dispatcher(current).ok_or(Error::NotFound)?;
        if server.caller != Link::NOBODY {
            return Err(Error::MustReply);
        }
        if core::mem::take(&mut server.pending) {
            return Err(Error::Interrupted);
        }
        if let Some(message) = self.dequeue(current, base) {
            // Others that queue run their server from now on, too.
            self.processor.rouse(current, Wake::Call);
            return Ok(Outcome::Results(message));
        }
        if !self.processor.block(State::Receiving, deadline_ns) {
            return Err(Error::TimedOut);
        }
        if let Some(server) = self.processor.dispatcher(current) {
            server.endpoint = base;
        }
        if let Some(endpoint) = self.processor.endpoint(base) {
            endpoint.receiver = Link::to(current);
        }
        Ok(Outcome::Blocked([0; 6]))
    }

    /// Nobody but the current dispatcher receives at this endpoint from now on.
    fn own_endpoint(&mut self, base: u64) -> Result<(), Error> {
        let current = self.processor.current().ok_or(Error::NotFound)?;
        let endpoint = self.processor.endpoint(base).ok_or(Error::NotFound)?;
        match endpoint.owner.handle() {
            Some(owner) if owner == current => return Ok(()),
            Some(_) => return Err(Error::Busy),
            None => {}
        }
        let server = self.processor.dispatcher(current).ok_or(Error::NotFound)?;
        let added = server.endpoints.try_push(base);
        added.map_err(|_| Error::TooMany)?;
        if let Some(endpoint) = self.processor.endpoint(base) {
            endpoint.owner = Link::to(current);
            endpoint.orphaned = false;
            if endpoint.queued != 0 {
                self.processor.rouse(current, Wake::Call);
            }
        }
        Ok(())
    }

    /// [`abi::syscall::REPLY`], and [`abi::syscall::REPLY_GIVE`] where the last word is a capability.
    pub fn reply(&mut self, mut words: Words, give: bool) -> Result<(), Error> {
        if give {
            let current = self.processor.current().ok_or(Error::NotFound)?;
            let server = self.processor.dispatcher(current).ok_or(Error::NotFound)?;
            let client = server.caller.handle().ok_or(Error::NoCaller)?;
            self.give(current, words[4], client)?;
            words[4] = 1;
        }
        self.processor.reply(words)
    }

    /// Puts a copy of a capability of one dispatcher where another wants those that come.
    fn give(&mut self, from: usize, source: u64, to: usize) -> Result<(), Error> {
        let giver = self.processor.dispatcher(from).ok_or(Error::PeerGone)?;
        let cspace = giver.cspace;
        let source = self.slot_in(cspace, source)?;
        self.check_clean(source)?;
        let taker = self.processor.dispatcher(to).ok_or(Error::PeerGone)?;
        let (cspace, address) = (taker.cspace, taker.receive_slot);
        let place = self.slot_in(cspace, address);
        let place = place.map_err(|_| Error::NoReceiveSlot)?;
        match self.capabilities.copy(source, place) {
            Err(capabilities::Error::OccupiedSlot) => Err(Error::NoReceiveSlot),
            result => result.map_err(refusal),
        }
    }

    /// The current dispatcher met an exception: it waits for a page, or its fault handler hears of it,
    /// or it has died.
    pub fn fault(&mut self) {
        let Some(current) = self.processor.current() else {
            return;
        };
        let Some(dispatcher) = self.processor.dispatcher(current) else {
            return;
        };
        if dispatcher.is_paged_fault() {
            self.processor.await_page(current);
            return;
        }
        dispatcher.in_fault = true;
        let own = core::ptr::from_mut(dispatcher) as u64 - DIRECT_MAP;
        let slot = SlotId(own_slots(own) + own_slot::FAULT_HANDLER * SLOT_BYTES);
        if let Ok(handler) = self.capabilities.identify(slot)
            && self.processor.check_call(current, handler.base).is_ok()
        {
            let called = self.processor.call(current, handler.base, handler.badge);
            if let Some(server) = called
                && let Some(caller) = self.processor.dispatcher(current)
            {
                let message = with(handler.badge, caller.words());
                self.processor.deliver(server, handler.base, message);
            }
        } else {
            self.processor.end(current, State::Faulted);
        }
    }
}
