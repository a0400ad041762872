//! A channel with a doorbell: sends and receives that wait.
//!
//! Who waits polls a little, because an answer is often near, and then blocks: a core that
//! spins for long would keep others from running.

use crate::system_call;
use abi::capability::Address;
use urpc::{Channel, Message, ReceiveError, SendError, Wait};

/// Polls before a wait for a peer on another core blocks.
const POLLS: u32 = 32;

/// The channel will carry no more messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The peer closed it.
    Closed,
    /// The peer wrote what no peer may write.
    Broken,
}

/// One end of a channel, and the doorbell of the other.
pub struct Connection {
    channel: Channel,
    doorbell: Option<Address>,
    /// Polls before a wait blocks.
    polls: u32,
}

impl Connection {
    /// Joins a channel with the doorbell that wakes its peer. Without one, the peer
    /// must not sleep.
    pub fn new(channel: Channel, doorbell: Option<Address>) -> Self {
        Self {
            channel,
            doorbell,
            polls: POLLS,
        }
    }

    /// The same for a peer on this very core: it cannot run while this one polls, so a wait
    /// blocks at once.
    pub fn on_this_core(channel: Channel, doorbell: Option<Address>) -> Self {
        Self {
            channel,
            doorbell,
            polls: 0,
        }
    }

    /// The channel itself, for who polls or sends in batches.
    pub fn channel(&mut self) -> &mut Channel {
        &mut self.channel
    }

    /// Rings the peer if it sleeps and something was published for it.
    pub fn ring_if_needed(&mut self) {
        if self.channel.peer_needs_doorbell()
            && let Some(doorbell) = self.doorbell
        {
            // A doorbell that is none is the caller's mistake, and harms nobody else.
            let _ = system_call::ring(doorbell);
        }
    }

    /// Sends, and waits for room where there is none.
    pub fn send(&mut self, message: &Message) -> Result<(), Ended> {
        let mut polls = 0;
        loop {
            match self.channel.send(message) {
                Ok(()) => {
                    self.ring_if_needed();
                    return Ok(());
                }
                Err(SendError::Full) => self.wait(&mut polls, Wait::Room),
                Err(SendError::Closed) => return Err(Ended::Closed),
                Err(SendError::Broken) => return Err(Ended::Broken),
            }
        }
    }

    /// Receives, and waits for a message where there is none.
    pub fn receive(&mut self) -> Result<Message, Ended> {
        let mut polls = 0;
        loop {
            match self.channel.recv() {
                Ok(message) => {
                    self.ring_if_needed();
                    return Ok(message);
                }
                Err(ReceiveError::Empty) => self.wait(&mut polls, Wait::Message),
                Err(ReceiveError::Closed) => return Err(Ended::Closed),
                Err(ReceiveError::Broken) => return Err(Ended::Broken),
            }
        }
    }

    /// Closes the channel, and tells a peer that sleeps.
    pub fn close(&mut self) {
        self.channel.close();
        self.ring_if_needed();
    }

    /// Waits a little for what is not there: a poll, or after many of them, which `polls`
    /// counts from 0, until the doorbell rings. It may return early; look again.
    pub fn wait(&mut self, polls: &mut u32, wait: Wait) {
        if *polls < self.polls {
            *polls += 1;
            core::hint::spin_loop();
            return;
        }
        self.wait_until(None, wait);
    }

    /// Blocks until the doorbell rings or the clock reaches the deadline. It may return early; look
    /// again.
    pub fn wait_until(&mut self, deadline_ns: Option<u64>, wait: Wait) {
        self.ring_if_needed();
        if self.channel.prepare_sleep(wait) {
            system_call::wait(deadline_ns);
            self.channel.awake();
        }
    }
}
