//! A message to all cores and its acknowledgement, by different ways: the least that any operation
//! on replicated state takes, and what the simulator's own speed is measured with.
//!
//! ```text
//!  root                child               its children
//!    │ Down {round} ─────►│ Down {round} ─────►│
//!    │                    │◄───────── Up {round}│    when all below have it
//!    │◄───────── Up {round}│
//! ```
//!
//! Nothing replaces a core that stops: the operation is given up.

use crate::machine::Machine;
use crate::node::{Context, Node, Outcome, Output, Outputs, Protocol};
use crate::tape::Mark;
use std::fmt;
use std::rc::Rc;

/// The kind of a round in recordings: no request of the system has it.
pub const ROUND: u32 = 0x100;

/// Who hands a message on to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// The root speaks to everybody.
    Unicast,
    /// Everybody speaks to so many others.
    Tree(usize),
    /// The root speaks to one core of each socket, and that one to the others of its socket.
    Sockets,
}

impl Way {
    /// Those that are compared.
    pub const ALL: [Self; 4] = [Self::Unicast, Self::Tree(2), Self::Tree(8), Self::Sockets];

    /// The parent of each core; the root, 0, is its own.
    fn parents(self, cores: usize, machine: &Machine) -> Vec<usize> {
        let machine = machine.clone().with_room_for(cores);
        let mut first = 0;
        (0..cores)
            .map(|core| match self {
                Self::Unicast => 0,
                Self::Tree(width) => core.saturating_sub(1) / width,
                Self::Sockets => {
                    if core > 0 && machine.socket(core) != machine.socket(core - 1) {
                        // Cores are numbered socket by socket.
                        first = core;
                        return 0;
                    }
                    first
                }
            })
            .collect()
    }
}

impl fmt::Display for Way {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unicast => formatter.write_str("unicast"),
            Self::Tree(width) => write!(formatter, "{width}-ary tree"),
            Self::Sockets => formatter.write_str("sockets"),
        }
    }
}

#[derive(Debug)]
struct Tree {
    parents: Vec<usize>,
    children: Vec<Vec<usize>>,
}

/// Messages between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// The operation of this round.
    Down(u32),
    /// All below the sender have it.
    Up(u32),
}

/// What the root tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Note {
    /// A round begins.
    Begun(u32),
    /// All have the operation of the round.
    Done(u32),
}

/// One core's part.
#[derive(Debug)]
pub struct Broadcaster {
    core: usize,
    tree: Rc<Tree>,
    rounds: u32,
    round: u32,
    missing: usize,
}

impl Broadcaster {
    fn begin(&mut self, round: u32, outputs: &mut Outputs<Self>) {
        self.round = round;
        let children = &self.tree.children[self.core];
        self.missing = children.len();
        outputs.extend(
            children
                .iter()
                .map(|child| Output::Send(*child, Message::Down(round))),
        );
        if self.missing == 0 {
            self.complete(outputs);
        }
    }

    fn complete(&mut self, outputs: &mut Outputs<Self>) {
        if self.core != 0 {
            let parent = self.tree.parents[self.core];
            outputs.push(Output::Send(parent, Message::Up(self.round)));
            return;
        }
        outputs.push(Output::Note(Note::Done(self.round)));
        if self.round < self.rounds {
            outputs.push(Output::Note(Note::Begun(self.round + 1)));
            self.begin(self.round + 1, outputs);
        }
    }
}

impl Node for Broadcaster {
    type Message = Message;
    type Note = Note;

    fn start(&mut self, _: u64, outputs: &mut Outputs<Self>) {
        if self.core == 0 && self.rounds > 0 {
            outputs.push(Output::Note(Note::Begun(1)));
            self.begin(1, outputs);
        }
    }

    fn on_message(&mut self, from: usize, message: Message, _: u64, outputs: &mut Outputs<Self>) {
        match message {
            Message::Down(round) if from == self.tree.parents[self.core] => {
                self.begin(round, outputs);
            }
            Message::Up(round) if round == self.round && self.missing > 0 => {
                self.missing -= 1;
                if self.missing == 0 {
                    self.complete(outputs);
                }
            }
            Message::Down(_) | Message::Up(_) => {}
        }
    }

    fn label(message: &Message) -> (u16, u64) {
        match message {
            Message::Down(round) => (1, (*round).into()),
            Message::Up(round) => (2, (*round).into()),
        }
    }

    fn mark(note: &Note) -> Option<Mark> {
        Some(match note {
            Note::Begun(round) => Mark::Begin {
                token: (*round).into(),
                kind: ROUND,
            },
            Note::Done(round) => Mark::End {
                token: (*round).into(),
                error: 0,
            },
        })
    }
}

/// So many rounds, one after the other.
#[derive(Debug)]
pub struct Broadcast {
    tree: Rc<Tree>,
    rounds: u32,
    begun_ns: u64,
    sent: u64,
    /// The last round that each core has.
    has: Vec<u32>,
    have_it: usize,
    done: u32,
    is_disturbed: bool,
    /// How long each round took, in nanoseconds.
    pub times_ns: Vec<u64>,
    /// How many messages each round took.
    pub messages: Vec<u64>,
}

impl Broadcast {
    /// On `cores` cores of a machine.
    pub fn new(way: Way, cores: usize, machine: &Machine, rounds: u32) -> Self {
        let parents = way.parents(cores, machine);
        let mut children = vec![Vec::new(); cores];
        for (core, parent) in parents.iter().enumerate().skip(1) {
            children[*parent].push(core);
        }
        Self {
            tree: Rc::new(Tree { parents, children }),
            rounds,
            begun_ns: 0,
            sent: 0,
            has: vec![0; cores],
            have_it: 0,
            done: 0,
            is_disturbed: false,
            times_ns: Vec::new(),
            messages: Vec::new(),
        }
    }

    /// The root ends a round.
    fn all_have_it(&self, round: u32) -> Result<(), String> {
        let cores = self.has.len();
        // One core alone is through with all rounds at once.
        if round > 0 && cores > 1 && self.have_it != cores {
            let have_it = self.have_it;
            return Err(format!(
                "round {round} ends, and {have_it} of {cores} cores have it"
            ));
        }
        Ok(())
    }

    /// A core does nothing for want of a doorbell: without timers, that is for good.
    pub fn expect_lost_doorbells(mut self) -> Self {
        self.is_disturbed = true;
        self
    }
}

impl Protocol for Broadcast {
    type Node = Broadcaster;

    fn node(&mut self, core: usize, anew: bool) -> Broadcaster {
        Broadcaster {
            core,
            tree: Rc::clone(&self.tree),
            rounds: if anew { 0 } else { self.rounds },
            round: 0,
            missing: 0,
        }
    }

    fn after(&mut self, core: usize, node: &Broadcaster, _: Context) -> Result<(), String> {
        // A core that was started anew begins again.
        if node.round > self.has[core] {
            self.has[core] = node.round;
            if core == 0 {
                self.all_have_it(node.round - 1)?;
                self.have_it = 0;
            }
            self.have_it += 1;
        }
        Ok(())
    }

    fn on_note(&mut self, _: usize, note: Note, context: Context) -> Result<(), String> {
        match note {
            Note::Begun(_) => {
                self.begun_ns = context.now_ns;
            }
            Note::Done(round) => {
                self.done = round;
                self.times_ns.push(context.now_ns - self.begun_ns);
                self.messages.push(context.sent - self.sent);
                self.sent = context.sent;
                if round == self.rounds {
                    self.all_have_it(round)?;
                }
            }
        }
        Ok(())
    }

    fn on_stop(&mut self, _: usize, _: Context) {
        self.is_disturbed = true;
    }

    fn is_done(&self) -> bool {
        self.done == self.rounds
    }

    fn outcome(&self) -> Result<Outcome, String> {
        match (self.is_done(), self.is_disturbed) {
            (true, _) => Ok(Outcome::Survived),
            (false, true) => Ok(Outcome::Aborted),
            (false, false) => Err(format!(
                "{} of {} rounds are done, although no core stopped",
                self.done, self.rounds
            )),
        }
    }
}
