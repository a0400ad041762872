//! Services: channels between domains that know no more of each other than a name.
//!
//! ```text
//!  client                    monitors                     server
//!    │ look the name up: who                               │ binds the name
//!    │ sends it a frame, whatever is in it ───────────────►│ learns who it is
//!    │◄─────────────────────────── sends a frame of its own │ makes a channel in it
//!    │ … messages, each a cache line, and doorbells …       │
//! ```
//!
//! Client and server may be on one core or on two, of one job. The channel lies in the server's memory:
//! a client that ends, or breaks its channel, takes nothing from the server. A session that the server
//! is through with keeps its memory until the client has closed it as well, or many more have come. A
//! server that ends takes the channel with it: whoever of its clients touches that then faults, as it
//! would for any memory that its owner revokes.

use crate::capability::{self, Address, Rights, slots};
use crate::connection::Connection;
use crate::interface::Error;
use crate::monitor::{self, Domain};
use crate::space::{Mapping, PageSize};
use crate::transfer::Receiving;
use crate::{clock, memory, names, startup, system_call, trace, transfer};
use abi::layout::PAGE;
use abi::limits::PAGE_CHANNEL_SLOTS;
use abi::syscall::rights;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use spin::Mutex;
use urpc::{Channel, Side};

/// How long a client has to take its channel, in nanoseconds, and between two attempts.
const PATIENCE_NS: u64 = 1_000_000_000;
const PAUSE_NS: u64 = 50_000;

/// A connection with the memory that its channel lies in.
pub struct Session {
    /// Until it is dropped; the connection goes first.
    body: Option<(Connection, Mapping)>,
    peer: Domain,
    doorbell: Address,
    is_server: bool,
}

/// Most sessions whose memory is kept for clients that have not closed them.
const MAX_RETIRED: usize = 64;

/// Sessions that the server is through with: their clients may not be.
static RETIRED: Mutex<VecDeque<(Connection, Mapping)>> = Mutex::new(VecDeque::new());

/// Lets go of what clients are through with, too.
fn bury_retired() {
    let mut retired = RETIRED.lock();
    retired.retain_mut(|(connection, _)| !connection.channel().peer_has_closed());
    while retired.len() > MAX_RETIRED {
        retired.pop_front();
    }
}

impl Session {
    /// Who is at the other end.
    pub fn peer(&self) -> Domain {
        self.peer
    }

    /// The channel, with its doorbell.
    pub fn connection(&mut self) -> &mut Connection {
        match &mut self.body {
            Some((connection, _)) => connection,
            None => unreachable!("only a session that is dropped has no connection"),
        }
    }

    fn over(mapping: Mapping, side: Side, peer: Domain) -> Result<Self, Error> {
        let doorbell = monitor::doorbell(peer)?;
        // SAFETY: a page of zeroes at first, mapped as long as the channel is there, since the channel
        // is always dropped first; all accesses to it are the channel's, and so are the peer's or its
        // own mistake.
        let channel =
            unsafe { Channel::attach(mapping.address() as *mut u8, PAGE_CHANNEL_SLOTS, side) };
        let channel = channel.traced(trace::place_of(mapping.frame()), side);
        let is_near = peer.core() == startup().core as usize;
        let connection = match is_near {
            true => Connection::on_this_core(channel, Some(doorbell)),
            false => Connection::new(channel, Some(doorbell)),
        };
        Ok(Self {
            body: Some((connection, mapping)),
            peer,
            doorbell,
            is_server: matches!(side, Side::A),
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some((mut connection, mapping)) = self.body.take() {
            let frame = mapping.frame();
            // Once a client has said so, the server may take the page away: nothing here looks at it
            // after that, so the server is rung whether it sleeps or not.
            connection.channel().close();
            let _ = system_call::ring(self.doorbell);
            if self.is_server {
                RETIRED.lock().push_back((connection, mapping));
                bury_retired();
            } else {
                drop((connection, mapping));
                release(frame);
            }
        }
        // A copy of our own.
        let _ = capability::delete(self.doorbell);
        slots::give(self.doorbell);
    }
}

/// Most clients of a service that have not taken their channels yet; the next one waits.
const MAX_GUESTS: usize = 64;

/// A client whose channel it has not taken yet.
#[derive(Debug)]
struct Guest {
    client: Domain,
    mapping: Mapping,
    deadline_ns: u64,
}

/// A name that clients can connect with.
#[derive(Debug)]
pub struct Service {
    name: String,
    /// Where the next client's card comes.
    slot: Address,
    receiving: Option<Receiving>,
    guests: Vec<Guest>,
}

impl Service {
    /// Binds the name. From now on this domain receives no capabilities but by this.
    ///
    /// # Errors
    /// Those of [`names::bind`]; [`Error::WaitsAlready`].
    pub fn export(name: &str) -> Result<Self, Error> {
        let slot = slots::take().map_err(|_| Error::NoMemory)?;
        let receiving = Receiving::begin(slot)?;
        if let Err(error) = names::bind(name, startup().domain) {
            let _ = receiving.withdraw();
            release(slot);
            return Err(error);
        }
        Ok(Self {
            name: name.into(),
            slot,
            receiving: Some(receiving),
            guests: Vec::new(),
        })
    }

    /// The next client, if there is one. To be asked again and again: it is here that clients are
    /// answered.
    ///
    /// # Errors
    /// This domain has no memory left, or its monitor is gone.
    pub fn poll(&mut self) -> Result<Option<Session>, Error> {
        bury_retired();
        let receiving = self.receiving.as_ref();
        let receiving = receiving.filter(|_| self.guests.len() < MAX_GUESTS);
        if let Some(come) = receiving.and_then(Receiving::poll) {
            self.receiving = None;
            // What is in it does not matter, only who sent it. It may have been revoked by now.
            let _ = capability::delete(self.slot);
            self.receiving = Some(Receiving::begin(self.slot)?);
            let mapping = Mapping::zeroed(PAGE, PageSize::Small);
            self.guests.push(Guest {
                client: come?.from,
                mapping: mapping.map_err(|_| Error::NoMemory)?,
                deadline_ns: clock::now_ns() + PATIENCE_NS,
            });
        }
        let hold = Rights::READ | Rights::WRITE;
        let mut index = 0;
        while let Some(guest) = self.guests.get(index) {
            match transfer::try_send(guest.mapping.frame(), guest.client, hold) {
                Ok(()) => {
                    let Guest {
                        client, mapping, ..
                    } = self.guests.swap_remove(index);
                    // It may have ended meanwhile.
                    if let Ok(session) = Session::over(mapping, Side::A, client) {
                        return Ok(Some(session));
                    }
                }
                Err(Error::NotWaiting | Error::Busy) if clock::now_ns() < guest.deadline_ns => {
                    index += 1;
                }
                Err(_) => drop(self.guests.swap_remove(index)),
            }
        }
        Ok(None)
    }

    /// Waits for the next client.
    ///
    /// # Errors
    /// As in [`Self::poll`].
    pub fn accept(&mut self) -> Result<Session, Error> {
        loop {
            if let Some(session) = self.poll()? {
                return Ok(session);
            }
            clock::sleep_ns(PAUSE_NS);
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = names::unbind(&self.name);
        if let Some(receiving) = self.receiving.take() {
            let _ = receiving.withdraw();
        }
        release(self.slot);
    }
}

/// Gives a slot back, with what may be in it.
fn release(slot: Address) {
    let _ = capability::delete(slot);
    slots::give(slot);
}

/// Connects with the service of this name; waits until there is one.
///
/// # Errors
/// [`Error::BadName`]; the service ended meanwhile: [`Error::NoSuchDomain`] or
/// [`Error::NoSuchCore`].
pub fn connect(name: &str) -> Result<Session, Error> {
    let server = names::await_binding(name)?.domain;
    let slot = slots::take().map_err(|_| Error::NoMemory)?;
    let session = exchange(name, server, slot).and_then(|()| {
        // SAFETY: it is only ever accessed by way of the channel.
        let mapping = unsafe { Mapping::of(slot, PageSize::Small, rights::WRITE) };
        Session::over(mapping.map_err(|_| Error::NoMemory)?, Side::B, server)
    });
    if session.is_err() {
        release(slot);
    }
    session
}

/// Sends the server a card, and waits for the frame that it sends in return.
fn exchange(name: &str, server: Domain, slot: Address) -> Result<(), Error> {
    let card = memory::frame(PAGE).map_err(|_| Error::NoMemory)?;
    // Before it has the card: from then on the server does not wait for long.
    let receiving = Receiving::begin(slot);
    let sent = receiving.and_then(|receiving| match transfer::send(card, server) {
        Ok(()) => Ok(receiving),
        Err(error) => receiving.withdraw().and(Err(error)),
    });
    // Nobody needs it any more.
    let _ = memory::free(card);
    let receiving = sent?;
    let come = loop {
        if let Some(come) = receiving.poll() {
            break come;
        }
        if names::lookup(name).map(|binding| binding.domain) != Ok(server) {
            break receiving.withdraw()?.ok_or(Error::NoSuchDomain);
        }
        clock::sleep_ns(PAUSE_NS);
    };
    match come?.from == server {
        true => Ok(()),
        false => Err(Error::NotAllowed),
    }
}
