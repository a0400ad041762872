//! What a protocol has to be for the simulator to run it: a machine for each core, and a judge who
//! sees all of them.

use crate::tape::Mark;
use std::fmt::Debug;
use std::hash::Hash;

/// What a node wants to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output<M, N> {
    /// Send a message to a core.
    Send(usize, M),
    /// Stop a core.
    Fence(usize),
    /// Stop this core: it has left in good order.
    Leave,
    /// Tell the judge something.
    Note(N),
    /// Be busy for so long, in nanoseconds.
    Work(u64),
}

/// The outputs of a node.
pub type Outputs<N> = Vec<Output<<N as Node>::Message, <N as Node>::Note>>;

/// One monitor's part of a protocol. Times are in nanoseconds.
pub trait Node {
    /// What nodes send to each other.
    type Message: Debug + Hash;
    /// What a node tells its judge.
    type Note: Debug + Hash;

    /// The core runs.
    fn start(&mut self, now_ns: u64, outputs: &mut Outputs<Self>);

    /// A message came.
    fn on_message(
        &mut self,
        from: usize,
        message: Self::Message,
        now_ns: u64,
        outputs: &mut Outputs<Self>,
    );

    /// The time that [`Self::deadline_ns`] named is there, and all messages that had come by then
    /// were handed over.
    fn on_tick(&mut self, _now_ns: u64, _outputs: &mut Outputs<Self>) {}

    /// When [`Self::on_tick`] is due.
    fn deadline_ns(&self) -> Option<u64> {
        None
    }

    /// Whether it takes part: a core that was started anew does not at first.
    fn takes_part(&self) -> bool {
        true
    }

    /// Whether it would have `core` started anew now.
    fn may_sponsor(&self, _core: usize) -> bool {
        true
    }

    /// The core `core` was started anew, and this node is to see to it that it takes part.
    fn sponsor(&mut self, _core: usize, _now_ns: u64, _outputs: &mut Outputs<Self>) {}

    /// Whether a message belongs to no operation: it is not counted.
    fn is_upkeep(_message: &Self::Message) -> bool {
        false
    }

    /// What a message is on the wire, in a recording and where kinds cost differently: its kind and
    /// its first word.
    fn label(_message: &Self::Message) -> (u16, u64) {
        (0, 0)
    }

    /// What a note says of an operation.
    fn mark(_note: &Self::Note) -> Option<Mark> {
        None
    }
}

/// What is known beside what a node says.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The time, in nanoseconds.
    pub now_ns: u64,
    /// Messages sent so far, upkeep aside.
    pub sent: u64,
}

/// How a run ended that broke no rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// All that was to be done was done.
    Survived,
    /// Something was given up, as it may be after a fault.
    Aborted,
}

/// Makes the nodes of a protocol, and sees to it that its rules hold. An error of any method says
/// which rule was broken, and ends the run.
pub trait Protocol {
    /// Its nodes.
    type Node: Node;

    /// The node of a core, started for the first time or anew.
    fn node(&mut self, core: usize, anew: bool) -> Self::Node;

    /// A node has done something: checked after every event, so it must not take long.
    fn after(&mut self, _core: usize, _node: &Self::Node, _context: Context) -> Result<(), String> {
        Ok(())
    }

    /// A node tells something.
    fn on_note(
        &mut self,
        core: usize,
        note: <Self::Node as Node>::Note,
        context: Context,
    ) -> Result<(), String>;

    /// A core was stopped, by another or by itself; that it stopped by a fault, nobody knows.
    fn on_fence(&mut self, _core: usize, _context: Context) -> Result<(), String> {
        Ok(())
    }

    /// A core does nothing any more.
    fn on_stop(&mut self, _core: usize, _context: Context) {}

    /// A core was started anew.
    fn on_restart(&mut self, _core: usize, _context: Context) {}

    /// Whether nothing is left to be done, so that the run may end before its time.
    fn is_done(&self) -> bool {
        false
    }

    /// The run is over: all faults were over long enough ago.
    fn outcome(&self) -> Result<Outcome, String>;
}
