//! Sleep and wake-up: who announces what, who looks when, and the two fences between.

use core::sync::atomic::Ordering::{Acquire, Relaxed};

use crate::channel::State;
use crate::message::MAX_HEAD;
use crate::{Channel, Half, Sequence, Slot, Word};

/// What a sleeping end waits for. That the channel ends wakes it in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Wait {
    /// A message to receive.
    Message = 1,
    /// Room to send.
    Room = 2,
    /// Either.
    MessageOrRoom = 3,
}

impl Wait {
    const fn covers(self, other: Self) -> bool {
        self as u64 & other as u64 != 0
    }
}

/// The bits of an `asleep` word that say what its writer waits for; none while it is awake. The
/// other bits number its sleeps.
const WAIT_MASK: u64 = 3;

/// What one end remembers of the handshake.
pub(crate) struct Doorbell {
    /// This end's `asleep` word.
    asleep: u64,
    /// The peer's sleep for which a doorbell was already asked for.
    answered: u64,
    /// What was published when the peer's `asleep` word was looked at last.
    sent: Sequence,
    acknowledged: Sequence,
    /// The channel was closed since.
    pub(crate) closing: bool,
}

impl Doorbell {
    pub(crate) fn new(first: Sequence) -> Self {
        Self {
            asleep: 0,
            answered: 0,
            sent: first,
            acknowledged: first,
            closing: false,
        }
    }

    /// How often this end has announced sleep, and withdrawn it.
    pub(crate) fn announced(&self) -> u64 {
        let is_asleep = self.asleep & WAIT_MASK != 0;
        self.asleep / (WAIT_MASK + 1) * 2 - u64::from(is_asleep)
    }
}

/// Sleep on many channels at once, announced in one word that all peers read.
///
/// Who waits for whatever comes on any of its channels would else write a line in each of them with
/// every sleep, and another with every wake-up. The three steps are those of
/// [`Channel::announce_sleep`]: announce here, one full fence, then ask each channel whether it
/// [may sleep](Channel::may_sleep), for what it waits for itself; the channels' own announcements
/// are not used. What is announced is what any of them waits for; a peer may ring for
/// what its channel does not wait for, which costs a look.
#[derive(Debug)]
pub struct Sleeper<'word, W: Word> {
    word: &'word W,
    asleep: u64,
    /// What the word said at first.
    first: u64,
}

impl<'word, W: Word> Sleeper<'word, W> {
    /// By this word, which nobody else writes. Sleeps are numbered on from what it says: a peer that
    /// has answered one of whoever had the word before takes none of these for that.
    pub fn new(word: &'word W) -> Self {
        let asleep = word.load(Relaxed) & !WAIT_MASK;
        word.store(asleep, Relaxed);
        Self {
            word,
            asleep,
            first: asleep,
        }
    }

    /// Announces that this end is about to sleep on all of its channels.
    pub fn announce(&mut self, wait: Wait) {
        self.asleep = (self.asleep | WAIT_MASK).wrapping_add(1) | wait as u64;
        self.word.store(self.asleep, Relaxed);
    }

    /// Withdraws the announcement; does nothing if there is none.
    pub fn awake(&mut self) {
        if self.asleep & WAIT_MASK != 0 {
            self.asleep &= !WAIT_MASK;
            self.word.store(self.asleep, Relaxed);
        }
    }

    /// How often it has written the word.
    pub fn lines_written(&self) -> u64 {
        let is_asleep = self.asleep & WAIT_MASK != 0;
        (self.asleep - self.first) / (WAIT_MASK + 1) * 2 - u64::from(is_asleep)
    }
}

impl<H: Half> Channel<H> {
    /// Announces that this end is about to sleep, and says whether it may: `true` if what it
    /// waits for is not there and the channel has not ended. Then it may block until its
    /// doorbell rings; the doorbell must be one that stays rung until the sleeper looks. On
    /// `false` it is awake again and should send or receive.
    ///
    /// One sleep is answered by one doorbell. So after each doorbell, even a spurious one, call
    /// [`awake`](Self::awake) or announce anew.
    ///
    /// Before it, ring the peer's doorbell if it [needs](Self::peer_needs_doorbell) that: a peer
    /// asleep will not wake this end.
    #[must_use]
    pub fn prepare_sleep(&mut self, wait: Wait) -> bool {
        self.announce_sleep(wait);
        H::full_fence();
        let may_sleep = self.may_sleep(wait);
        if !may_sleep {
            self.awake();
        }
        may_sleep
    }

    /// The first of three steps for an end of many channels: announce sleep on each, call
    /// [`full_fence`](crate::full_fence) once, then ask each whether it [may sleep](Self::may_sleep). If one
    /// may not, be [`awake`](Self::awake) on all.
    #[inline]
    pub fn announce_sleep(&mut self, wait: Wait) {
        let sleep = (self.doorbell.asleep | WAIT_MASK).wrapping_add(1);
        self.doorbell.asleep = sleep | wait as u64;
        self.own.asleep().store(self.doorbell.asleep, Relaxed);
    }

    /// The last of the three steps: whether what this end announced to wait for is still not
    /// there. It stays announced either way.
    #[must_use]
    pub fn may_sleep(&mut self, wait: Wait) -> bool {
        if wait.covers(Wait::Message) {
            if matches!(self.state, State::PeerClosed | State::ClosedHere) {
                return false;
            }
            let control = self.peer.slot(self.receive_next).control().load(Acquire);
            let head = self.receive_next.head_of(control);
            if head <= MAX_HEAD {
                return false;
            }
            // Decides whether the word is an end; and says so in the state.
            self.explain(head);
        }
        if wait.covers(Wait::Room) && self.free_slots() > 0 {
            return false;
        }
        self.state == State::Open
    }

    /// Withdraws the announcement of sleep; does nothing if there is none.
    #[inline]
    pub fn awake(&mut self) {
        if self.doorbell.asleep & WAIT_MASK != 0 {
            self.doorbell.asleep &= !WAIT_MASK;
            self.own.asleep().store(self.doorbell.asleep, Relaxed);
        }
    }

    /// Whether the peer sleeps and waits for something that this end has sent, acknowledged or
    /// closed since the last call. If so, the caller rings its doorbell: the next call says
    /// `false` until the peer sleeps anew.
    ///
    /// To be called after one or several sends, receives, or a close. Costs a full fence if
    /// anything was published since the last call, else a few instructions.
    #[must_use]
    pub fn peer_needs_doorbell(&mut self) -> bool {
        if !self.has_published() {
            return false;
        }
        H::full_fence();
        self.peer_needs_doorbell_after_fence()
    }

    /// The first of three steps for an end that has published on many channels: whether this is
    /// one of them. If any is, call [`full_fence`](crate::full_fence) once, then ask each whether
    /// its [peer needs a doorbell](Self::peer_needs_doorbell_after_fence).
    #[must_use]
    pub fn has_published(&mut self) -> bool {
        // What is due to be acknowledged is published now, or a peer might wait for it.
        self.acknowledge_if_due();
        self.doorbell.sent != self.send_next
            || self.doorbell.acknowledged != self.acknowledged_by_us
            || self.doorbell.closing
    }

    /// The last of the three steps: what [`peer_needs_doorbell`](Self::peer_needs_doorbell) says.
    #[must_use]
    pub fn peer_needs_doorbell_after_fence(&mut self) -> bool {
        let mut published = 0;
        if self.doorbell.sent != self.send_next {
            published |= Wait::Message as u64;
        }
        if self.doorbell.acknowledged != self.acknowledged_by_us {
            published |= Wait::Room as u64;
        }
        if self.doorbell.closing {
            published |= Wait::MessageOrRoom as u64;
        }
        self.doorbell.sent = self.send_next;
        self.doorbell.acknowledged = self.acknowledged_by_us;
        self.doorbell.closing = false;

        let asleep = self.peer.asleep().load(Relaxed);
        let due = asleep & published != 0 && asleep != self.doorbell.answered;
        if due {
            self.doorbell.answered = asleep;
        }
        due
    }
}
