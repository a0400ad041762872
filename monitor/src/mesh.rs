//! Channels to all other monitors.
//!
//! Every pair of cores has a page of its own for one, at a place that both can compute; so
//! a channel is there as soon as both know of each other, without anybody's help. What does
//! not fit into a ring waits here in order.

use abi::limits::MAX_CORES;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU64;
use protocols::core_set::CoreSet;
use protocols::kinds;
use rt::authority::Store;
use rt::capability::Address;
use rt::interface::counter;
use rt::system_call;
use rt::trace::{Recorder, event};
use urpc::{Channel, Message, ReceiveError, SendError, Sleeper, Wait};

/// Set in the kind of requests and replies that one monitor hands on to another.
pub const FORWARDED: u16 = 0x100;
/// Core 0 wants to power off: send what you have, then [`FLUSHED`].
pub const FLUSH: u16 = kinds::kind(&kinds::MESH, 0);
/// That was all.
pub const FLUSHED: u16 = kinds::kind(&kinds::MESH, 1);
/// A domain ended: itself, its exit status, its parent.
pub const EXITED: u16 = kinds::kind(&kinds::MESH, 2);
/// The sender was started anew and runs.
pub const UP: u16 = kinds::kind(&kinds::MESH, 3);
/// To core 0: the sender wants to start a core (1), or has started one (0) and holds the view of
/// this round. One starts at a time.
pub const TURN: u16 = kinds::kind(&kinds::MESH, 4);
/// It is your turn, once you hold the view of this round.
pub const YOUR_TURN: u16 = kinds::kind(&kinds::MESH, 5);
/// This core was stopped and is about to be started anew: use nothing of it any more, once you hold
/// the view of this round.
pub const FORGET: u16 = kinds::kind(&kinds::MESH, 6);
/// Nothing of this core is used here any more.
pub const FORGOTTEN: u16 = kinds::kind(&kinds::MESH, 7);

/// Messages that wait for room, beyond which nothing is added for domains.
const BACKLOG: usize = 256;

struct Peer {
    channel: Channel,
    doorbell: Address,
    outbox: VecDeque<Message>,
    ended: bool,
}

/// The channels of one monitor.
pub struct Mesh {
    own: usize,
    /// Sleep is announced on all channels by one word: a monitor on 64 cores would else write 126
    /// lines for each of its sleeps.
    sleeper: Sleeper<'static, AtomicU64>,
    /// By core number.
    peers: Vec<Option<Peer>>,
    /// The cores that there is a channel with.
    connected: Vec<usize>,
    ended: Vec<usize>,
    /// Whether anything was sent or received since [`Self::flush`], and whether anything waited for room then.
    is_stirred: bool,
    is_behind: bool,
    /// Whether anything was sent or received since [`Self::take_traffic`].
    has_traffic: bool,
    /// Cores that are in no view any more, and were not connected anew.
    lost: CoreSet,
    /// Messages sent, by [`counter`].
    sent: [u64; CLASSES],
}

/// Kinds of messages that are counted apart.
const CLASSES: usize = (counter::OF_OTHERS - counter::MESSAGES) as usize;

/// As what a message of this kind is counted.
fn class(kind: u16) -> u64 {
    match kind {
        kind if of_membership(kind) => counter::OF_MEMBERSHIP,
        kind if kinds::NAMES.contains(&kind) => counter::OF_NAMES,
        kind if kinds::REGIONS.contains(&kind) => counter::OF_REGIONS,
        kind if kinds::SPACES.contains(&kind) => counter::OF_SPACES,
        kind if kinds::SPANS.contains(&kind) || kinds::LENDING.contains(&kind) => {
            counter::OF_REQUESTS
        }
        kind if kind & FORWARDED != 0 || kind == EXITED => counter::OF_REQUESTS,
        _ => counter::OF_OTHERS,
    }
}

fn of_membership(kind: u16) -> bool {
    kinds::MEMBERSHIP.contains(&kind)
}

impl Mesh {
    /// No channels yet.
    pub fn new(own: usize, store: &Store) -> Self {
        Self {
            own,
            sleeper: store.sleeper(),
            peers: (0..MAX_CORES).map(|_| None).collect(),
            connected: Vec::new(),
            ended: Vec::new(),
            is_stirred: false,
            is_behind: false,
            has_traffic: false,
            lost: CoreSet::default(),
            sent: [0; CLASSES],
        }
    }

    /// One of its counters, as [`counter`] numbers them.
    pub fn counted(&self, index: u64) -> Option<u64> {
        let channels = self.peers.iter().flatten();
        match index {
            counter::MESSAGES => Some(self.sent.iter().sum()),
            counter::LINES => {
                let lines: u64 = channels.map(|peer| peer.channel.lines_written()).sum();
                Some(lines + self.sleeper.lines_written())
            }
            counter::OF_MEMBERSHIP..=counter::OF_OTHERS => {
                Some(self.sent[(index - counter::OF_MEMBERSHIP) as usize])
            }
            _ => None,
        }
    }

    /// Sends a message, or keeps it until there is room. What is meant for a core that was lost goes
    /// nowhere, but for messages about who is up: that core may have left and not know it yet, or
    /// run anew.
    pub fn send(&mut self, store: &mut Store, to: usize, message: &Message) {
        let may_connect = !self.lost.contains(to) || of_membership(message.kind());
        if may_connect && self.peers.get(to).is_some_and(Option::is_none) {
            self.connect(store, to);
        }
        self.send_connected(to, message);
    }

    /// Sends to a core that this one is connected with already.
    pub fn send_connected(&mut self, to: usize, message: &Message) {
        if self.lost.contains(to) && !of_membership(message.kind()) {
            return;
        }
        if let Some(Some(peer)) = self.peers.get_mut(to)
            && !peer.ended
        {
            self.sent[(class(message.kind()) - counter::OF_MEMBERSHIP) as usize] += 1;
            self.is_stirred = true;
            peer.outbox.push_back(*message);
            if peer.outbox.len() == 1 {
                peer.push();
            }
            peer.record_delay();
        }
    }

    /// Makes the channel to a core usable, if it is not: that of its present life.
    pub fn connect(&mut self, store: &mut Store, to: usize) {
        if to == self.own || to >= MAX_CORES || self.peers[to].is_some() {
            return;
        }
        let doorbell = store.monitor_doorbell(to);
        let ends = doorbell.and_then(|doorbell| Ok((doorbell, store.mesh_channel(to)?)));
        match ends {
            Ok((doorbell, channel)) => {
                self.peers[to] = Some(Peer {
                    channel,
                    doorbell,
                    outbox: VecDeque::new(),
                    ended: false,
                });
                self.lost.remove(to);
                if !self.connected.contains(&to) {
                    self.connected.push(to);
                }
            }
            Err(_) => self.ended.push(to),
        }
    }

    /// A core is in no view any more: nothing is sent to it but about who is up.
    pub fn lose(&mut self, core: usize) {
        self.lost.insert(core);
        if let Some(Some(peer)) = self.peers.get_mut(core) {
            peer.outbox.retain(|message| of_membership(message.kind()));
        }
    }

    /// Whether a core is in no view any more, and was not connected anew.
    pub fn is_lost(&self, core: usize) -> bool {
        self.lost.contains(core)
    }

    /// Ends a channel in which nothing was sent; [`Self::connect`] makes it anew.
    pub fn disconnect(&mut self, store: &mut Store, core: usize) {
        if let Some(peer) = self.peers.get_mut(core).and_then(Option::take) {
            store.close_mesh_channel(core, peer.channel);
        }
    }

    /// Ends the channel with a core that was stopped; [`Self::connect`] makes it anew.
    pub fn forget(&mut self, store: &mut Store, core: usize) {
        self.lose(core);
        self.disconnect(store, core);
        if store.clear_mesh_page(core).is_err() {
            self.ended.push(core);
        }
    }

    /// Whether nothing waits for room but what is meant for cores that were lost.
    pub fn is_flushed(&self) -> bool {
        let peers = self.peers.iter().enumerate();
        let mut peers = peers.filter_map(|(core, peer)| Some((core, peer.as_ref()?)));
        peers.all(|(core, peer)| peer.ended || peer.outbox.is_empty() || self.lost.contains(core))
    }

    /// Whether so much waits to be sent to a core that nothing should be added.
    pub fn is_backed_up(&self, to: usize) -> bool {
        let peer = self.peers.get(to).and_then(Option::as_ref);
        peer.is_some_and(|peer| peer.outbox.len() > BACKLOG)
    }

    /// How many cores there is a channel with; they are numbered by [`Self::peer`].
    pub fn connected(&self) -> usize {
        self.connected.len()
    }

    /// The core of the channel with this number.
    pub fn peer(&self, index: usize) -> usize {
        self.connected[index]
    }

    /// Takes the next message of a core.
    pub fn receive(&mut self, from: usize) -> Option<Message> {
        let peer = self.peers[from].as_mut()?;
        if peer.ended {
            return None;
        }
        match peer.channel.recv() {
            Ok(message) => {
                self.is_stirred = true;
                Some(message)
            }
            Err(ReceiveError::Empty) => None,
            Err(ReceiveError::Closed | ReceiveError::Broken) => {
                peer.ended = true;
                peer.outbox.clear();
                self.ended.push(from);
                None
            }
        }
    }

    /// The cores whose channels ended since the last call.
    pub fn take_ended(&mut self) -> Vec<usize> {
        core::mem::take(&mut self.ended)
    }

    /// Whether anything was sent or received since the last call.
    pub fn take_traffic(&mut self) -> bool {
        core::mem::take(&mut self.has_traffic)
    }

    /// Whether everybody was rung for what was sent and received.
    pub fn is_settled(&self) -> bool {
        !self.is_stirred
    }

    /// Sends what waits and rings who sleeps; whether anything moved.
    pub fn flush(&mut self) -> bool {
        if self.is_settled() && !self.is_behind {
            return false;
        }
        self.has_traffic |= core::mem::take(&mut self.is_stirred);
        let mut moved = false;
        let mut published = false;
        self.is_behind = false;
        for core in &self.connected {
            if let Some(peer) = &mut self.peers[*core]
                && !peer.ended
            {
                moved |= !peer.outbox.is_empty() && peer.push();
                self.is_behind |= !peer.outbox.is_empty();
                published |= peer.channel.has_published();
            }
        }
        if !published {
            return moved;
        }
        urpc::full_fence();
        for core in &self.connected {
            if let Some(peer) = &mut self.peers[*core]
                && !peer.ended
                && peer.channel.has_published()
                && peer.channel.peer_needs_doorbell_after_fence()
            {
                // The monitor has it for good.
                let _ = system_call::ring(peer.doorbell);
            }
        }
        moved
    }

    /// Step one of going to sleep; see [`urpc`].
    pub fn announce_sleep(&mut self) {
        self.sleeper.announce(match self.is_behind {
            true => Wait::MessageOrRoom,
            false => Wait::Message,
        });
    }

    /// Step three.
    pub fn may_sleep(&mut self) -> bool {
        let peers = &mut self.peers;
        self.connected.iter().all(|core| match &mut peers[*core] {
            Some(peer) => peer.ended || peer.channel.may_sleep(peer.wait()),
            None => true,
        })
    }

    /// Back again.
    pub fn awake(&mut self) {
        self.sleeper.awake();
    }
}

impl Peer {
    fn wait(&self) -> Wait {
        if self.outbox.is_empty() {
            Wait::Message
        } else {
            Wait::MessageOrRoom
        }
    }

    /// Records what the message that was added last is sent for, if that has to wait for room: then
    /// something else is under way when it is sent.
    fn record_delay(&self) {
        let recorder = Recorder::own();
        if recorder.is_on(event::STEP)
            && let Some(last) = self.outbox.back()
        {
            let flow = self.channel.flow_ahead(self.outbox.len() as u64 - 1);
            recorder.write(event::STEP, flow, last.payload[0], last.kind().into());
        }
    }

    /// Moves what fits into the ring.
    fn push(&mut self) -> bool {
        let mut moved = false;
        while let Some(message) = self.outbox.front() {
            match self.channel.send(message) {
                Ok(()) => {
                    self.outbox.pop_front();
                    moved = true;
                }
                Err(SendError::Full) => break,
                Err(SendError::Closed | SendError::Broken) => {
                    self.outbox.clear(); // reported when it is received from
                    break;
                }
            }
        }
        moved
    }
}
