//! Messages in traces: by the ring that they are on and their number there.

use crate::{Message, Sequence};
use trace::{Recorder, event, message_flow};

/// The rings of a channel, or of a call line, as flows of their first messages; 0: not traced.
#[derive(Clone, Copy, Default)]
pub(crate) struct Rings {
    /// This end's.
    own: u64,
    /// The peer's.
    peer: u64,
}

impl Rings {
    /// By physical addresses; 0: not traced.
    pub(crate) fn at(own: u64, peer: u64) -> Self {
        Self {
            own: message_flow(own, 0),
            peer: message_flow(peer, 0),
        }
    }

    /// Flow of a message of this end's.
    pub(crate) fn flow(self, place: Sequence) -> u64 {
        match self.own {
            0 => 0,
            ring => ring | place.number(),
        }
    }

    /// A message is in its line, and about to be told: so it is never received before it was sent.
    #[inline(always)]
    pub(crate) fn sends(self, place: Sequence, message: &Message) {
        if Recorder::own().is_on(event::SEND) && self.own != 0 {
            core::hint::cold_path();
            let flow = self.own | place.number();
            Recorder::write_sent(flow, message.payload[0], message.kind().into());
        }
    }

    /// A message was taken out.
    #[inline(always)]
    pub(crate) fn received(self, place: Sequence, message: &Message) {
        if Recorder::own().is_on(event::RECEIVE) && self.peer != 0 {
            core::hint::cold_path();
            let flow = self.peer | place.number();
            Recorder::write_received(flow, message.payload[0], message.kind().into());
        }
    }
}
