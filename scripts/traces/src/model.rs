//! What the records say: who ran when, messages with both ends, operations, spans.
//!
//! Times are nanoseconds since the first record, by one clock for all cores.

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

/// All that a trace says.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// All dispatchers that there were.
    pub dispatchers: Vec<Dispatcher>,
    /// Who ran, by core and time.
    pub running: Vec<Running>,
    /// By the time they were sent.
    pub messages: Vec<Message>,
    /// Messages of which one end alone was recorded: sent, and received.
    pub half: (u64, u64),
    /// Messages that arrive before they are sent, before the clocks were set right, and after.
    pub early: (u64, u64),
    /// By the time they began.
    pub operations: Vec<Operation>,
    /// By the time they began.
    pub spans: Vec<Span>,
    /// Nanoseconds from the first record to the last.
    pub length: u64,
}
