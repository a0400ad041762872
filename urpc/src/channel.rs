//! One end of a channel: the data path, and how a channel ends.

use core::fmt;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{Acquire, Release};

use crate::message::{CLOSING_HEAD, MAX_HEAD};
use crate::{Half, Mapped, Message, Sequence, Slot, Word, frame_bytes};

/// Which end of a channel: A writes the first half of the frame, B the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Writes the first half.
    A,
    /// Writes the second half.
    B,
}

impl Side {
    /// The other end.
    #[must_use]
    pub const fn peer(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// Why a message was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// All slots hold messages that the peer has not acknowledged: try again later.
    Full,
    /// One of the ends has closed the channel. Final.
    Closed,
    /// The peer wrote what no peer writes. Final.
    Broken,
}

/// Why no message was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveError {
    /// The peer has sent nothing more yet: try again later.
    Empty,
    /// This end has closed the channel, or the peer has and all it sent before was received.
    /// Final.
    Closed,
    /// The peer wrote what no peer writes. Final.
    Broken,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the channel is full: wait until the peer has received",
            Self::Closed => "the channel is closed",
            Self::Broken => {
                "the channel is broken: its peer wrote no valid acknowledgement or message"
            }
        })
    }
}

impl fmt::Display for ReceiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the channel is empty: wait until the peer has sent",
            Self::Closed => "the channel is closed",
            Self::Broken => {
                "the channel is broken: its peer wrote no valid acknowledgement or message"
            }
        })
    }
}

impl core::error::Error for SendError {}
impl core::error::Error for ReceiveError {}

/// How far the life of a channel has come, as this end knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Open,
    /// The peer has closed; messages it sent before may still be in the ring.
    PeerClosing,
    /// The peer has closed and all its messages were received.
    PeerClosed,
    /// This end has closed.
    ClosedHere,
    Broken,
}

/// One end of a channel. See the crate's documentation for the memory behind it.
///
/// `send` and `recv` finish in a bounded number of steps whatever the peer does. An end that
/// waits by polling runs [`core::hint::spin_loop`] once between two polls.
///
/// A batch of sends and receives is followed by one [`peer_needs_doorbell`](Self::peer_needs_doorbell),
/// unless the peer only polls. Dropping an end does not close the channel: [`close`](Self::close) does.
pub struct Channel<H: Half = Mapped> {
    /// What this end writes, and the peer's half.
    pub(crate) own: H,
    pub(crate) peer: H,
    pub(crate) slots: u64,

    /// The next message to send, and the one for which no room is known.
    pub(crate) send_next: Sequence,
    pub(crate) send_limit: Sequence,
    /// The next message to receive, and the one before which to acknowledge.
    pub(crate) receive_next: Sequence,
    pub(crate) receive_limit: Sequence,
    // Once the channel is no longer open, a limit equals its next: all calls then take the slow
    // path, which knows the state, and the fast path need not look at it.
    pub(crate) state: State,
    /// What the peer acknowledged last: all before it is room again.
    acknowledged_by_peer: Sequence,
    /// What this end acknowledged last.
    pub(crate) acknowledged_by_us: Sequence,

    pub(crate) doorbell: crate::sleep::Doorbell,
    rings: crate::traced::Rings,
}

impl Channel {
    /// The end `side` of the channel in the frame at `base`, with `slots` slots in each direction.
    ///
    /// The ends attach in any order at any time: nothing is written here, and a message sent
    /// before the peer attached waits for it.
    ///
    /// # Safety
    /// From now until the channel is dropped, [`frame_bytes(slots)`](frame_bytes) bytes at `base` must be
    /// mapped, readable and writable, and be accessed by nothing in this program but channels
    /// and atomic operations. (What other programs do to them is their affair: see "A peer that
    /// misbehaves" in the crate's documentation.)
    ///
    /// Not for safety, but for the channel to work: the memory was zero before either end used
    /// it, both ends name the same number of slots, and each side is attached once.
    ///
    /// # Panics
    /// If `slots` is not a power of two from 4 to 1024, or `base` is null or not a multiple of 128.
    #[must_use]
    pub unsafe fn attach(base: *mut u8, slots: usize, side: Side) -> Self {
        #![allow(unsafe_code)]
        // SAFETY: the caller's promise is the one that is asked for.
        let (own, peer) = unsafe {
            (
                Mapped::new(base, slots, side),
                Mapped::new(base, slots, side.peer()),
            )
        };
        Self::over(own, peer, slots, Sequence::FIRST)
    }

    /// With `asleep` words outside of the frame: that by which this end's [`Sleeper`](crate::Sleeper)
    /// announces sleep on all of its channels at once, and the peer's. Both ends must do so, before
    /// either sleeps.
    #[must_use]
    pub fn with_sleep_words(self, own: &'static AtomicU64, peer: &'static AtomicU64) -> Self {
        Self {
            own: self.own.sleeping_by(own),
            peer: self.peer.sleeping_by(peer),
            ..self
        }
    }
}

impl<H: Half> Channel<H> {
    /// An end over any memory, which begins at `first` in both directions. For tests: programs
    /// [`attach`](Channel::attach).
    ///
    /// # Panics
    /// If `slots` is not a power of two from 4 to 1024.
    #[must_use]
    pub fn over(own: H, peer: H, slots: usize, first: Sequence) -> Self {
        let _ = frame_bytes(slots);
        let slots = slots as u64;
        Self {
            own,
            peer,
            slots,
            send_next: first,
            send_limit: first.plus(slots - 1),
            receive_next: first,
            receive_limit: first.plus(slots / 4),
            state: State::Open,
            acknowledged_by_peer: first,
            acknowledged_by_us: first,
            doorbell: crate::sleep::Doorbell::new(first),
            rings: crate::traced::Rings::default(),
        }
    }

    /// Has its messages recorded while that is on: the frame that this is the end `side` of begins at
    /// this physical address. 0: they are not.
    #[must_use]
    pub fn traced(mut self, frame: u64, side: Side) -> Self {
        let half_bytes = frame_bytes(self.slots as usize) as u64 / 2;
        let ring = |writer| match (frame, writer) {
            (0, _) => 0,
            (_, Side::A) => frame,
            (_, Side::B) => frame + half_bytes,
        };
        self.rings = crate::traced::Rings::at(ring(side), ring(side.peer()));
        self
    }

    /// What a message is known by in traces that is sent after so many others; 0: they are not recorded.
    #[must_use]
    pub fn flow_ahead(&self, messages: u64) -> u64 {
        self.rings.flow(self.send_next.plus(messages))
    }

    /// Messages that fit each direction at a time: one less than the slots.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots as usize - 1
    }

    /// Lines that this end has written since it [attached](Channel::attach): one for each message, one
    /// for each quarter of a ring that it received, two for each sleep. What its writes cost other
    /// cores follows from it.
    #[must_use]
    pub fn lines_written(&self) -> u64 {
        let sent = self.send_next.since(Sequence::FIRST);
        let acknowledged = self.acknowledged_by_us.since(Sequence::FIRST);
        sent + acknowledged / (self.slots / 4) + self.doorbell.announced()
    }

    /// Messages that can be sent now without an error; 0 if the channel is not open.
    pub fn free_slots(&mut self) -> usize {
        self.look_for_acknowledgement();
        self.send_limit.since(self.send_next) as usize
    }

    /// Sends one message.
    ///
    /// # Errors
    /// [`SendError`]; the message was not sent. That the peer has closed shows at the latest
    /// when the ring is full: what was sent meanwhile is lost, as it is when the peer closes
    /// before it receives it.
    #[inline(always)] // a call would cost as much as the message
    pub fn send(&mut self, message: &Message) -> Result<(), SendError> {
        if self.send_next == self.send_limit {
            self.find_room()?;
        }
        let place = self.send_next;
        let slot = self.own.slot(place);
        slot.write_payload(&message.payload);
        self.rings.sends(place, message);
        // Release: whoever sees this word sees the payload.
        slot.control().store(place.control(message.head), Release);
        self.send_next = place.next();
        Ok(())
    }

    /// Sends as many of `messages` as there is room for, in order, and says how many.
    ///
    /// # Errors
    /// [`SendError`] if not even the first was sent.
    #[inline]
    pub fn send_batch(&mut self, messages: &[Message]) -> Result<usize, SendError> {
        for (sent, message) in messages.iter().enumerate() {
            match self.send(message) {
                Err(error) if sent == 0 => return Err(error),
                Err(_) => return Ok(sent),
                Ok(()) => {}
            }
        }
        Ok(messages.len())
    }

    /// Receives the next message.
    ///
    /// # Errors
    /// [`ReceiveError`].
    #[inline(always)] // a call would cost as much as the message
    pub fn recv(&mut self) -> Result<Message, ReceiveError> {
        if self.receive_next == self.receive_limit {
            self.acknowledge_or_fail()?;
        }
        let place = self.receive_next;
        let (slot, prefetch_ahead) = (self.peer.slot(place), self.peer.prefetch_ahead(place));
        // Acquire: the payload is read after it. The word is read once; what is checked is used.
        let control = slot.control().load(Acquire);
        let head = place.head_of(control);
        if head > MAX_HEAD {
            return Err(self.why_nothing(place, control));
        }
        prefetch_ahead();
        let payload = slot.read_payload();
        self.receive_next = place.next();
        let message = Message { payload, head };
        self.rings.received(place, &message);
        Ok(message)
    }

    /// Receives as many messages as have come and fit, in order, and says how many.
    ///
    /// # Errors
    /// [`ReceiveError`] if not even one was received.
    #[inline]
    pub fn recv_batch(&mut self, messages: &mut [Message]) -> Result<usize, ReceiveError> {
        let room = messages.len();
        for (received, message) in messages.iter_mut().enumerate() {
            match self.recv() {
                Ok(next) => *message = next,
                Err(error) if received == 0 => return Err(error),
                Err(_) => return Ok(received),
            }
        }
        Ok(room)
    }

    /// Closes the channel in both directions. The peer still receives what was sent before; what
    /// it sent and this end has not received is lost.
    ///
    /// A sleeping peer must learn of it: call [`peer_needs_doorbell`](Self::peer_needs_doorbell)
    /// afterwards. A broken channel can be closed too, for the peer's sake, and stays broken here.
    pub fn close(&mut self) {
        if self.state == State::ClosedHere {
            return;
        }
        // The word in the ring comes after all messages, and there is always a slot for it. The
        // other is for a peer that waits for room and does not receive.
        let place = self.send_next;
        self.own
            .slot(place)
            .control()
            .store(place.control(CLOSING_HEAD), Release);
        self.own.closed().store(1, Release);
        self.doorbell.closing = true;
        if self.state != State::Broken {
            self.end(State::ClosedHere);
        }
    }

    /// Whether the peer has said that it closes the channel, whatever this end has done: nothing that
    /// it writes comes after that.
    #[must_use]
    pub fn peer_has_closed(&self) -> bool {
        self.peer.closed().load(Acquire) != 0
    }

    /// Acknowledges what was received if that is due, or says why nothing is received any more.
    #[cold]
    #[inline(never)]
    fn acknowledge_or_fail(&mut self) -> Result<(), ReceiveError> {
        match self.state {
            State::Broken => return Err(ReceiveError::Broken),
            State::PeerClosed | State::ClosedHere => return Err(ReceiveError::Closed),
            State::Open | State::PeerClosing => {}
        }
        self.acknowledge_if_due();
        Ok(())
    }

    /// The slow paths of both directions come by here, so that an end that waits to send, or
    /// goes to sleep, does not keep an acknowledgement back that its peer may wait for.
    pub(crate) fn acknowledge_if_due(&mut self) {
        if self.receive_next == self.receive_limit
            && matches!(self.state, State::Open | State::PeerClosing)
        {
            // Release: the payloads were read before it, and the sender may now overwrite them.
            self.own
                .acknowledged()
                .store(self.receive_next.to_word(), Release);
            self.acknowledged_by_us = self.receive_next;
            self.receive_limit = self.receive_next.plus(self.slots / 4);
        }
    }

    /// Why the control word at the expected place is not that of a message. Who polls comes by here with
    /// each poll.
    #[inline]
    fn why_nothing(&mut self, place: Sequence, control: u64) -> ReceiveError {
        let a_lap_ago = place.plus(self.slots.wrapping_neg());
        let is_old = control == 0 || a_lap_ago.owns(control);
        // Room is known of open channels alone; where little is, `explain` looks for more.
        if is_old && self.send_limit.is_beyond(self.send_next, self.slots / 2) {
            return ReceiveError::Empty;
        }
        self.explain(place.head_of(control))
    }

    /// Why what is left of a control word, once the expected place is taken out of it, is not
    /// the head of a message.
    #[cold]
    #[inline(never)]
    pub(crate) fn explain(&mut self, head: u64) -> ReceiveError {
        let place = self.receive_next;
        let control = place.control(head);
        let a_lap_ago = place.plus(self.slots.wrapping_neg());
        if head == CLOSING_HEAD {
            self.end(State::PeerClosed);
            ReceiveError::Closed
        } else if (control == 0 || a_lap_ago.owns(control)) && self.state == State::Open {
            // An idle moment: look for acknowledgements before a send has to wait for that line.
            if !self.send_limit.is_beyond(self.send_next, self.slots / 2) {
                self.look_for_acknowledgement();
            }
            match self.state {
                State::Broken => ReceiveError::Broken,
                _ => ReceiveError::Empty,
            }
        } else {
            // Garbage; or an empty ring of a peer that says it has closed, whose closing word must
            // then have been there.
            self.end(State::Broken);
            ReceiveError::Broken
        }
    }

    /// Makes room known for at least one message, or says why there is none.
    #[cold]
    #[inline(never)]
    fn find_room(&mut self) -> Result<(), SendError> {
        self.acknowledge_if_due();
        self.look_for_acknowledgement();
        match self.state {
            State::Broken => Err(SendError::Broken),
            State::PeerClosing | State::PeerClosed | State::ClosedHere => Err(SendError::Closed),
            State::Open if self.send_next == self.send_limit => Err(SendError::Full),
            State::Open => Ok(()),
        }
    }

    /// Reads what the peer says of this end's messages, and believes it if it can be true.
    pub(crate) fn look_for_acknowledgement(&mut self) {
        if self.state != State::Open {
            return;
        }
        if self.peer.closed().load(Acquire) != 0 {
            self.state = State::PeerClosing;
            self.send_limit = self.send_next;
            return;
        }
        // Acquire: slots are written again only after the peer has read them.
        let word = self.peer.acknowledged().load(Acquire);
        if word == 0 {
            return; // The peer has acknowledged nothing yet.
        }
        match Sequence::from_word(word, self.acknowledged_by_peer, self.send_next) {
            Some(acknowledged) => {
                self.acknowledged_by_peer = acknowledged;
                self.send_limit = acknowledged.plus(self.slots - 1);
            }
            None => self.end(State::Broken),
        }
    }

    /// Enters a state from which nothing is sent or received any more.
    fn end(&mut self, state: State) {
        self.state = state;
        self.send_limit = self.send_next;
        self.receive_limit = self.receive_next;
    }
}
