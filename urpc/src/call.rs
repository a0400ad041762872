//! A call line: calls and their replies by turns in one cache line.
//!
//! A [`Channel`](crate::Channel) takes a line for the call and another for the reply. Who only
//! ever calls and waits for the reply needs one: A writes a call, B writes its reply over it, A
//! the next call over that. Nothing is pipelined, and nobody sleeps: both ends poll.
//!
//! # The frame
//!
//! One [pair of lines](crate::SLOT_BYTES), zero at first, that both ends may write:
//!
//! ```text
//!  byte    0                  56       64         72                         128
//!          ├───── even line ──┬────────┼───── odd line ─────────────────────┤
//!          │ payload, 7 words │control │ A closed │ B closed │ unused        │
//!          └──────────────────┴────────┴────────────────────────────────────┘
//! ```
//!
//! The odd line is written once in a channel's life. A waiting end reads it with each poll, from
//! its own cache.
//!
//! # The invariant
//!
//! > The line belongs to the end whose message comes next: to A before each call, to B before
//! > each reply.
//!
//! Calls and replies are counted by one sequence, so a control word says whose it is. One pair of
//! a release store and an acquire load hands the line over: an end writes the payload, then the
//! control word (release); the other polls that word (acquire), and when it bears the place that
//! comes next, reads the payload. From then on the line is its own. There is no second word to
//! wait for, since a message is only ever overwritten by the end that has just read it. There is
//! no locked instruction and no fence.
//!
//! A call with its reply moves the line twice, and twice an end takes it over that has just read
//! it: four transfers, as many as the two lines of a channel at its best, but all of them of one
//! line, and no acknowledgements. Measured between two cores: see `scripts/bench host`.
//!
//! # A peer that misbehaves
//!
//! It may write anything anywhere at any time, here also over what this end wrote. An end keeps
//! its own account of whose turn it is, and of the control word that it has written last itself.
//! While it waits, the control word is that one, or the message that comes next. Anything else
//! breaks the channel, for good. Nothing that is read is an index, a length or a bound before it
//! was checked in a private copy.
//!
//! # Closing
//!
//! An end closes by its own word in the odd line, whoever's turn it is. The peer reads that word
//! (acquire) only while its turn does not come, then looks at the line once more: what was sent
//! before the close is received before the close is told.

use core::sync::atomic::Ordering::{Acquire, Release};

use crate::message::MAX_HEAD;
use crate::{Line, MappedLine, Message, ReceiveError, SendError, Sequence, Side, Slot, Word};

/// What an end may do next, as it knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The line is this end's to write.
    Own,
    /// The peer's message comes next.
    Peers,
    /// One of the ends has closed.
    Closed,
    Broken,
}

/// One end of a call line: side A calls, side B replies. The memory is two lines, aligned to 128 bytes.
///
/// `send` and `recv` finish in a bounded number of steps whatever the peer does. An end that
/// waits runs [`core::hint::spin_loop`] once between two polls. Dropping an end does not close
/// the channel: [`close`](Self::close) does.
pub struct CallLine<L: Line = MappedLine> {
    line: L,
    side: Side,
    /// The place of the message that comes next, whoever writes it.
    next: Sequence,
    /// What the control word is as long as the peer does not write it.
    left: u64,
    turn: Turn,
    /// Both directions have one sequence, so one ring.
    rings: crate::traced::Rings,
}

impl CallLine {
    /// The end `side` of the call line in the pair of lines at `base`.
    ///
    /// The ends attach in any order at any time: nothing is written here.
    ///
    /// # Safety
    /// From now until the channel is dropped, [`SLOT_BYTES`](crate::SLOT_BYTES) bytes at `base` must
    /// be mapped, readable and writable, and be accessed by nothing in this program but call lines
    /// and atomic operations. (What other programs do to them is their affair.)
    ///
    /// Not for safety, but for the channel to work: the memory was zero before either end used
    /// it, and each side is attached once.
    ///
    /// # Panics
    /// If `base` is null or not a multiple of 128.
    #[must_use]
    pub unsafe fn attach(base: *mut u8, side: Side) -> Self {
        #![allow(unsafe_code)]
        // SAFETY: the caller's promise is the one that is asked for.
        let line = unsafe { MappedLine::new(base) };
        Self::over(line, side, Sequence::FIRST)
    }
}

impl<L: Line> CallLine<L> {
    /// An end over any memory, whose first call has the place `first`. For tests: programs
    /// [`attach`](CallLine::attach).
    #[must_use]
    pub fn over(line: L, side: Side, first: Sequence) -> Self {
        Self {
            line,
            side,
            next: first,
            left: 0,
            turn: match side {
                Side::A => Turn::Own,
                Side::B => Turn::Peers,
            },
            rings: crate::traced::Rings::default(),
        }
    }

    /// Has its messages recorded while that is on: the pair of lines is at this physical address. 0:
    /// they are not.
    #[must_use]
    pub fn traced(mut self, lines: u64) -> Self {
        self.rings = crate::traced::Rings::at(lines, lines);
        self
    }

    /// Sends the next call, or the reply to the call received last.
    ///
    /// # Errors
    /// [`SendError::Full`] while it is the peer's turn; [`SendError::Closed`] and
    /// [`SendError::Broken`] once a receive has told it, or this end has closed.
    #[inline]
    pub fn send(&mut self, message: &Message) -> Result<(), SendError> {
        if self.turn != Turn::Own {
            return Err(self.why_not_sent());
        }
        let slot = self.line.slot();
        slot.write_payload(&message.payload);
        self.rings.sends(self.next, message);
        // Release: who sees this word sees the payload.
        self.left = self.next.control(message.head);
        slot.control().store(self.left, Release);
        self.next = self.next.next();
        self.turn = Turn::Peers;
        Ok(())
    }

    /// Receives the next call, or the reply to the call sent last.
    ///
    /// # Errors
    /// [`ReceiveError::Empty`] while there is none, which is always so while it is this end's turn
    /// to send; [`ReceiveError::Closed`] and [`ReceiveError::Broken`], which are final.
    #[inline]
    pub fn recv(&mut self) -> Result<Message, ReceiveError> {
        if self.turn != Turn::Peers {
            return Err(self.why_not_received());
        }
        // Acquire: the payload is read after it. The word is read once; what is checked is used.
        let mut head = self.look();
        if head > MAX_HEAD {
            head = self.look_again(head)?;
        }
        let payload = self.line.slot().read_payload();
        let message = Message { payload, head };
        self.rings.received(self.next, &message);
        self.next = self.next.next();
        self.turn = Turn::Own;
        Ok(message)
    }

    /// Closes the channel in both directions, whoever's turn it is. The peer still receives what
    /// was sent before; what it sends from now on is lost. A broken channel can be closed too, for
    /// the peer's sake, and stays broken here.
    pub fn close(&mut self) {
        // Release: who sees this word sees the last message.
        self.line.closed(self.side).store(1, Release);
        if self.turn != Turn::Broken {
            self.turn = Turn::Closed;
        }
    }

    /// What is left of the control word once the place that comes next is taken out of it: the
    /// head of a message, or more than that.
    #[inline]
    fn look(&self) -> u64 {
        self.next.head_of(self.line.slot().control().load(Acquire))
    }

    /// The head of a message that has come after all, or why there is none.
    #[cold]
    #[inline(never)]
    fn look_again(&mut self, mut head: u64) -> Result<u64, ReceiveError> {
        if self.next.control(head) == self.left {
            if self.line.closed(self.side.peer()).load(Acquire) == 0 {
                return Err(ReceiveError::Empty);
            }
            // Its last message may have come between the two looks.
            head = self.look();
            if head <= MAX_HEAD {
                return Ok(head);
            }
            if self.next.control(head) == self.left {
                self.turn = Turn::Closed;
                return Err(ReceiveError::Closed);
            }
        }
        self.turn = Turn::Broken;
        Err(ReceiveError::Broken)
    }

    #[cold]
    #[inline(never)]
    fn why_not_sent(&self) -> SendError {
        match self.turn {
            Turn::Own | Turn::Peers => SendError::Full,
            Turn::Closed => SendError::Closed,
            Turn::Broken => SendError::Broken,
        }
    }

    #[cold]
    #[inline(never)]
    fn why_not_received(&self) -> ReceiveError {
        match self.turn {
            Turn::Own | Turn::Peers => ReceiveError::Empty,
            Turn::Closed => ReceiveError::Closed,
            Turn::Broken => ReceiveError::Broken,
        }
    }
}
