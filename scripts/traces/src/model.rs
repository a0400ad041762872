//! What the records say: who ran when, messages with both ends, operations, spans.
//!
//! Times are nanoseconds since the first record, by one clock for all cores.

use crate::clocks::Clock;
use crate::reading;
use crate::recording::Recording;

/// A stretch of time in which one dispatcher had a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// Where.
    pub core: u32,
    /// Who: an index into [`Model::dispatchers`].
    pub dispatcher: usize,
    /// From when.
    pub begin: u64,
    /// Until when.
    pub end: u64,
}

/// A dispatcher of a core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatcher {
    /// Its core.
    pub core: u32,
    /// Its handle there; the same may be another's later.
    pub handle: u32,
    /// Its name: that of its program.
    pub name: String,
}

/// A message that both ends are known of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Channel and sequence number.
    pub flow: u64,
    /// Sender and receiver: cores.
    pub from: u32,
    /// As above.
    pub to: u32,
    /// Sender and receiver: dispatchers.
    pub sender: Option<usize>,
    /// As above.
    pub receiver: Option<usize>,
    /// When it was in its line.
    pub sent: u64,
    /// When it was taken out.
    pub received: u64,
    /// Its kind.
    pub kind: u16,
    /// Its first word.
    pub word: u64,
}

/// What a domain asked its monitor for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its number.
    pub flow: u64,
    /// Who asked.
    pub core: u32,
    /// As above.
    pub dispatcher: Option<usize>,
    /// Kind of the request.
    pub kind: u32,
    /// From when.
    pub begin: u64,
    /// Until when it was answered; `None`: not any more.
    pub end: Option<u64>,
    /// Error it ended with; 0: none.
    pub error: u64,
}

/// Something that took time, or (begin = end) happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where.
    pub core: u32,
    /// Who ran; `None`: nobody, or it was not recorded.
    pub dispatcher: Option<usize>,
    /// The event it begins with.
    pub event: u16,
    /// What to call it.
    pub name: String,
    /// Its arguments, in words.
    pub text: String,
    /// From when.
    pub begin: u64,
    /// Until when.
    pub end: u64,
}

/// A monitor took a step for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Number of the operation.
    pub flow: u64,
    /// Where.
    pub core: u32,
    /// Who ran.
    pub dispatcher: Option<usize>,
    /// Kind of what it got.
    pub kind: u32,
    /// Argument.
    pub value: u64,
    /// When.
    pub at: u64,
}

/// All that a trace says.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// All dispatchers that there were.
    pub dispatchers: Vec<Dispatcher>,
    /// Who ran, by core and time.
    pub running: Vec<Running>,
    /// Times that a core was given to another dispatcher, in the order of the recording's cores: records that
    /// one runs. There are more stretches than that, as the one that ran before the core was idle may go on.
    pub switches: Vec<u64>,
    /// By the time they were sent.
    pub messages: Vec<Message>,
    /// Messages of which one end alone was recorded: sent, and received.
    pub half: (u64, u64),
    /// Messages that arrive before they are sent, before the clocks were set right, and after.
    pub early: (u64, u64),
    /// By the time they began.
    pub operations: Vec<Operation>,
    /// By time. Each is among the spans too, as something that happened.
    pub steps: Vec<Step>,
    /// By the time they began.
    pub spans: Vec<Span>,
    /// Ends of operations, calls and spans whose beginning was not recorded.
    pub loose: u64,
    /// The events that were to start the trace and to end it, but that no core recorded: it is not cut there.
    pub missing: [Option<u16>; 2],
    /// Cores that were lost: what they recorded until then is there.
    pub lost: Vec<u32>,
    /// Cores that started when the program ran already. If they did before, their rings were cleared.
    pub late: Vec<u32>,
    /// Records that no program wrote that keeps to the rules: of an event that there is not, or days away from
    /// all others. They are left out.
    pub spoilt: u64,
    /// How the clock of each core goes, in the order of the recording.
    pub clocks: Vec<Clock>,
    /// Nanoseconds from the first record to the last.
    pub length: u64,
}

impl Model {
    /// What a recording says, from the event that started it to the one that ended it.
    pub fn of(recording: &Recording) -> Self {
        reading::model(recording)
    }
}
