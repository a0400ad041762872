//! Channels along the edges of a tree, and what its nodes do with messages.
//!
//! In the frame that all share, the plan says who is whose child; behind it lies for each core the
//! channel to its parent. Cores are numbered by their place among those that take part, the root's is
//! the first.
//!
//! A message goes down the tree, and when a node has done with it and all below have answered, its
//! answer goes up: how many have agreed. Several may be under way; they are answered in order.

use alloc::vec::Vec;
use apps::crew::poll;
use apps::laboratory::{Failure, told};
use core::sync::atomic::Ordering::Relaxed;
use protocols::core_set::CoreSet;
use protocols::tree::{Machine, Strategy, Tree};
use rt::frame::Frame;
use urpc::{Channel, Message, ReceiveError, Side, frame_bytes};

/// Slots of a channel: more than [`UNDER_WAY`], as room is told of late.
const SLOTS: usize = 32;
/// Most messages under way.
pub const UNDER_WAY: u64 = 16;
/// Answers that are remembered: more than are under way.
const WINDOW: usize = 32;

/// Kinds of messages.
pub mod kind {
    /// All are told a number.
    pub const TELL: u16 = 1;
    /// Whether all can take a number.
    pub const PREPARE: u16 = 2;
    /// All take the number that message so many prepared.
    pub const COMMIT: u16 = 3;
    /// How many have agreed to a message.
    pub const ANSWER: u16 = 4;
    /// All below have come to a barrier; or from above: all have.
    pub const ALL_HERE: u16 = 5;
}

/// Words of the plan for a node: parent, place of the first child in the list, number of children.
const NODE_WORDS: usize = 3;
const NOBODY: u64 = u64::MAX;

/// Bytes of the plan for so many nodes: whole pages.
fn plan_bytes(nodes: usize) -> usize {
    (nodes * (NODE_WORDS + 1) * 8).next_multiple_of(abi::layout::PAGE as usize)
}

/// Bytes at the start of the frame that trees of at most so many nodes take: whole pages.
pub fn bytes(nodes: usize) -> usize {
    plan_bytes(nodes) + nodes * frame_bytes(SLOTS)
}

/// Writes down a tree over these cores, from the first one. Nobody may be using another.
pub fn plan(
    frame: &Frame,
    most: usize,
    cores: &[usize],
    strategy: Strategy,
    machine: &Machine,
) -> Result<(), Failure> {
    let mut set = CoreSet::default();
    cores.iter().for_each(|core| set.insert(*core));
    let tree = cores
        .first()
        .and_then(|root| Tree::new(strategy, machine, &set, *root));
    let tree = told("a tree", tree.ok_or("without cores"))?;
    frame.clear(0, bytes(most));
    let number = |core: usize| cores.iter().position(|other| *other == core);
    let mut listed = 0;
    for (node, core) in cores.iter().enumerate() {
        let place = tree.place(*core).unwrap_or_default();
        let parent = place.parent.and_then(number);
        let words = [
            parent.map_or(NOBODY, |parent| parent as u64),
            listed as u64,
            place.children.len() as u64,
        ];
        for (at, word) in words.into_iter().enumerate() {
            frame.word(node * NODE_WORDS + at).store(word, Relaxed);
        }
        for child in place.children.into_iter().filter_map(number) {
            let at = most * NODE_WORDS + listed;
            frame.word(at).store(child as u64, Relaxed);
            listed += 1;
        }
    }
    Ok(())
}

/// Answers to a message so far.
#[derive(Clone, Copy, Default)]
struct Gathered {
    /// Children that have not answered.
    missing: usize,
    /// Cores that have agreed.
    agreed: u64,
}

/// A node at work.
pub struct Node {
    parent: Option<Channel>,
    children: Vec<Channel>,
    gathered: [Gathered; WINDOW],
    /// Messages that came, and those that were answered; numbers count from 0.
    came: u64,
    answered: u64,
    /// What each message prepared.
    prepared: [u64; WINDOW],
    /// The sum of all numbers that it was told, or took.
    sum: u64,
}

impl Node {
    /// The node of this number, of at most so many, as planned.
    pub fn new(frame: &Frame, most: usize, node: usize) -> Self {
        let word = |at: usize| frame.word(at).load(Relaxed);
        let [parent, first, count] = [0, 1, 2].map(|at| word(node * NODE_WORDS + at));
        let channel = |node: usize, side| {
            let offset = plan_bytes(most) + node.min(most - 1) * frame_bytes(SLOTS);
            frame.channel(offset, SLOTS, side)
        };
        let list = most * NODE_WORDS + first as usize;
        let children = (0..count as usize).map(|at| word(list + at) as usize);
        Self {
            parent: (parent != NOBODY).then(|| channel(node, Side::B)),
            children: children.map(|child| channel(child, Side::A)).collect(),
            gathered: [Gathered::default(); WINDOW],
            came: 0,
            answered: 0,
            prepared: [0; WINDOW],
            sum: 0,
        }
    }

    /// The sum of all numbers that it was told or took.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// A message comes: it goes on to the children first.
    fn take(&mut self, message: &Message) -> Result<(), Failure> {
        for child in &mut self.children {
            told("message to a child", child.send(message))?;
        }
        let [number, value, ..] = message.payload;
        let own = number as usize % WINDOW;
        match message.kind() {
            kind::TELL => self.sum += value,
            kind::PREPARE => self.prepared[own] = value,
            // The value is the number of the message that prepared it.
            _ => self.sum += self.prepared[value as usize % WINDOW],
        }
        self.gathered[own] = Gathered {
            missing: self.children.len(),
            agreed: 1,
        };
        self.came += 1;
        Ok(())
    }

    /// Takes what answers of children are there.
    fn gather(&mut self) -> Result<(), Failure> {
        for child in &mut self.children {
            match child.recv() {
                Ok(answer) => {
                    let [number, agreed, ..] = answer.payload;
                    let gathered = &mut self.gathered[number as usize % WINDOW];
                    gathered.missing = gathered.missing.saturating_sub(1);
                    gathered.agreed += agreed;
                }
                Err(ReceiveError::Empty) => {}
                Err(error) => return told("answer of a child", Err(error)),
            }
        }
        Ok(())
    }

    /// How many have agreed to the next message, once all below have answered.
    fn next_answer(&mut self) -> Option<(u64, u64)> {
        let number = self.answered;
        let gathered = self.gathered[number as usize % WINDOW];
        if number == self.came || gathered.missing > 0 {
            return None;
        }
        self.answered += 1;
        Some((number, gathered.agreed))
    }

    /// Below the root: passes so many messages on, and answers them.
    pub fn serve(&mut self, count: u64) -> Result<(), Failure> {
        while self.answered < count {
            let parent = told("a node", self.parent.as_mut().ok_or("it is the root"))?;
            match parent.recv() {
                Ok(message) => self.take(&message)?,
                Err(ReceiveError::Empty) => core::hint::spin_loop(),
                Err(error) => return told("message of the parent", Err(error)),
            }
            self.gather()?;
            while let Some((number, agreed)) = self.next_answer() {
                let answer = Message::new(kind::ANSWER, [number, agreed, 0, 0, 0, 0, 0]);
                if let Some(parent) = &mut self.parent {
                    told("answer", parent.send(&answer))?;
                }
            }
        }
        Ok(())
    }

    /// The root: sends a message to all; its number.
    pub fn tell(&mut self, kind: u16, value: u64) -> Result<u64, Failure> {
        let number = self.came;
        self.take(&Message::new(kind, [number, value, 0, 0, 0, 0, 0]))?;
        Ok(number)
    }

    /// The root: waits until all have answered the next message; how many have agreed.
    pub fn answer(&mut self) -> Result<u64, Failure> {
        loop {
            self.gather()?;
            if let Some((_, agreed)) = self.next_answer() {
                return Ok(agreed);
            }
            core::hint::spin_loop();
        }
    }

    /// Waits until all nodes have come here as often.
    pub fn barrier(&mut self) -> Result<(), Failure> {
        let message = Message::new(kind::ALL_HERE, [0; 7]);
        let gone = "another node has gone";
        for child in &mut self.children {
            told("a child at a barrier", poll(child).ok_or(gone))?;
        }
        if let Some(parent) = &mut self.parent {
            told("arrival at a barrier", parent.send(&message))?;
            told("end of a barrier", poll(parent).ok_or(gone))?;
        }
        for child in &mut self.children {
            told("end of a barrier", child.send(&message))?;
        }
        Ok(())
    }
}
