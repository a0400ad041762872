//! A file for ui.perfetto.dev: its TrackEvent protocol buffers.
//!
//! A core is a process group: a track for its CPU driver, one for its phases, a thread for each dispatcher,
//! and below that its operations. Who runs is told by the generic kernel scheduling events. A message is an
//! event on either side and a flow from one to the other, with a number of its own.
//!
//! The viewer leaves out, without a word, a flow whose receive is not later than its send: so the receive is
//! moved to a nanosecond after ([`moved`] counts these). Spans of a track that overlap without one being in
//! the other are put on tracks beside it, as a track is a stack.
//!
//! Times are nanoseconds since the model's start on the trace's default clock: clocks were set right before,
//! so no other is needed.

mod protobuf;

use crate::model::{Message, Model, Operation, Running, Span};
use crate::names;
use crate::recording::{Core, Recording};
use protobuf::Writer;
use std::collections::HashMap;
use trace::event;

/// Fields of `TracePacket`, and of what is in it, by the names that Perfetto gives them.
mod field {
    pub const PACKET: u32 = 1;

    pub const TIMESTAMP: u32 = 8;
    pub const TRUSTED_PACKET_SEQUENCE_ID: u32 = 10;
    pub const TRACK_EVENT: u32 = 11;
    pub const INTERNED_DATA: u32 = 12;
    pub const SEQUENCE_FLAGS: u32 = 13;
    pub const TRACK_DESCRIPTOR: u32 = 60;
    pub const GENERIC_KERNEL_TASK_STATE_EVENT: u32 = 117;

    pub mod track_descriptor {
        pub const UUID: u32 = 1;
        pub const NAME: u32 = 2;
        pub const PROCESS: u32 = 3;
        pub const THREAD: u32 = 4;
        pub const PARENT_UUID: u32 = 5;
        pub const CHILD_ORDERING: u32 = 11;
        pub const SIBLING_ORDER_RANK: u32 = 12;
    }
    pub mod process {
        pub const PID: u32 = 1;
        pub const LEGACY_SORT_INDEX: u32 = 3;
        pub const PROCESS_NAME: u32 = 6;
    }
    pub mod thread {
        pub const PID: u32 = 1;
        pub const TID: u32 = 2;
        pub const THREAD_NAME: u32 = 5;
    }
    pub mod track_event {
        pub const DEBUG_ANNOTATIONS: u32 = 4;
        pub const TYPE: u32 = 9;
        pub const NAME_IID: u32 = 10;
        pub const TRACK_UUID: u32 = 11;
        pub const FLOW_IDS: u32 = 47;
        pub const TERMINATING_FLOW_IDS: u32 = 48;
    }
    pub mod annotation {
        pub const UINT_VALUE: u32 = 3;
        pub const STRING_VALUE: u32 = 6;
        pub const POINTER_VALUE: u32 = 7;
        pub const NAME: u32 = 10;
    }
    pub mod interned {
        pub const EVENT_NAMES: u32 = 2;
        pub const IID: u32 = 1;
        pub const NAME: u32 = 2;
    }
    pub mod task_state {
        pub const CPU: u32 = 1;
        pub const COMM: u32 = 2;
        pub const TID: u32 = 3;
        pub const STATE: u32 = 4;
        pub const PRIO: u32 = 5;
    }
}

const SLICE_BEGIN: u64 = 1;
const SLICE_END: u64 = 2;
const INSTANT: u64 = 3;

const RUNNABLE: u64 = 2;
const RUNNING: u64 = 3;
const SLEEPING: u64 = 4;

const STATE_CLEARED: u64 = 1;
const NEEDS_STATE: u64 = 2;

const EXPLICIT: u64 = 3;

/// What the dispatcher of a core's monitor is called.
const MONITOR: &str = "monitor";

/// Tracks beside one that has spans which overlap. What does not fit in these either is cut off.
const MOST_LANES: usize = 32;

/// Messages whose receive is moved to a nanosecond after its send, so that the viewer shows them.
pub fn moved(model: &Model) -> u64 {
    let is_moved = |one: &&Message| one.received <= one.sent;
    model.messages.iter().filter(is_moved).count() as u64
}

/// The file's bytes.
pub fn write(recording: &Recording, model: &Model) -> Vec<u8> {
    let header = &recording.header;
    let places: HashMap<u32, usize> = header
        .cores
        .iter()
        .enumerate()
        .rev() // of two of one number the first counts, as in the model
        .map(|(place, core)| (core.core, place))
        .collect();
    let mut out = File {
        out: Writer::default(),
        names: vec![HashMap::new(); header.cores.len()],
        has_begun: vec![false; header.cores.len()],
        tracks: 0,
        model,
        threads: Vec::new(),
        drivers: Vec::new(),
    };
    out.declare(&header.cores, &places);
    let mut items: HashMap<u64, (usize, Vec<Slice>)> = HashMap::new();
    for span in &model.spans {
        let Some(&place) = places.get(&span.core) else {
            continue;
        };
        let track = out.track_of(place, span);
        if span.begin == span.end && !has_length(span.event) {
            out.instant(place, track, span.begin, &span.name, |one| {
                one.text("text", &span.text);
            });
        } else {
            let slices = items.entry(track).or_insert((place, Vec::new()));
            slices.1.push(Slice::of_span(span));
        }
    }
    for operation in &model.operations {
        let Some(&place) = places.get(&operation.core) else {
            continue;
        };
        let track = out.thread_or_driver(place, operation.dispatcher) | OPERATIONS;
        let slices = items.entry(track).or_insert((place, Vec::new()));
        slices.1.push(Slice::of_operation(operation, model.length));
    }
    let mut items: Vec<_> = items.into_iter().collect();
    items.sort_by_key(|one| one.0);
    for (track, (place, slices)) in items {
        out.slices(place, track, slices);
    }
    for (number, message) in model.messages.iter().enumerate() {
        if let (Some(&from), Some(&to)) = (places.get(&message.from), places.get(&message.to)) {
            out.message(from, to, number as u64 + 1, message);
        }
    }
    out.running(&places);
    out.out.into_bytes()
}

/// Whether an event begins something, however short.
fn has_length(number: u16) -> bool {
    matches!(number, event::CALL | event::USER_BEGIN | event::PHASE)
}

/// Bits of a track's number: which of the tracks that belong to one core or dispatcher.
const OPERATIONS: u64 = 1 << 40;
const PHASES: u64 = 2 << 40;
const LANE: u64 = 1 << 48;

/// The number of a track beside another; the first is that one itself.
const fn beside(track: u64, lane: u64) -> u64 {
    track | (lane * LANE)
}

/// Something with a length, on a track.
#[derive(Clone, Debug)]
struct Slice {
    begin: u64,
    end: u64,
    name: String,
    notes: Notes,
}

#[derive(Clone, Debug)]
enum Notes {
    Text(String),
    Operation {
        flow: u64,
        error: u64,
        is_open: bool,
    },
}

impl Slice {
    fn of_span(span: &Span) -> Self {
        Self {
            begin: span.begin,
            end: span.end,
            name: span.name.clone(),
            notes: Notes::Text(span.text.clone()),
        }
    }

    fn of_operation(one: &Operation, length: u64) -> Self {
        Self {
            begin: one.begin,
            end: one.end.unwrap_or(length).max(one.begin),
            name: names::request(one.kind),
            notes: Notes::Operation {
                flow: one.flow,
                error: one.error,
                is_open: one.end.is_none(),
            },
        }
    }
}

/// Arguments of an event.
struct Annotations<'a>(&'a mut Writer);

impl Annotations<'_> {
    fn one(&mut self, name: &str, write: impl FnOnce(&mut Writer)) {
        self.0
            .message(field::track_event::DEBUG_ANNOTATIONS, |one| {
                one.string(field::annotation::NAME, name);
                write(one);
            });
    }

    fn text(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.one(name, |one| {
                one.string(field::annotation::STRING_VALUE, value);
            });
        }
    }

    fn number(&mut self, name: &str, value: u64) {
        self.one(name, |one| one.uint(field::annotation::UINT_VALUE, value));
    }

    /// In hexadecimal.
    fn word(&mut self, name: &str, value: u64) {
        self.one(name, |one| {
            one.uint(field::annotation::POINTER_VALUE, value);
        });
    }
}

struct File<'a> {
    out: Writer,
    /// By core: numbers of names that were declared.
    names: Vec<HashMap<String, u64>>,
    /// By core: whether its sequence has begun.
    has_begun: Vec<bool>,
    /// Tracks that were declared.
    tracks: u64,
    model: &'a Model,
    /// Tracks of dispatchers, and their thread numbers.
    threads: Vec<(u64, u64)>,
    /// By core: the track of its CPU driver.
    drivers: Vec<u64>,
}

impl File<'_> {
    /// A packet of a core's sequence.
    fn packet(&mut self, place: usize, time: Option<u64>, write: impl FnOnce(&mut Writer)) {
        let flags = match self.has_begun[place] {
            false => STATE_CLEARED | NEEDS_STATE,
            true => NEEDS_STATE,
        };
        self.has_begun[place] = true;
        self.out.message(field::PACKET, |packet| {
            if let Some(time) = time {
                packet.uint(field::TIMESTAMP, time);
            }
            packet.uint(field::TRUSTED_PACKET_SEQUENCE_ID, place as u64 + 1);
            packet.uint(field::SEQUENCE_FLAGS, flags);
            write(packet);
        });
    }

    /// Declares a track, and returns its number.
    fn declare_track(
        &mut self,
        place: usize,
        uuid: u64,
        parent: u64,
        rank: u64,
        write: impl FnOnce(&mut Writer),
    ) {
        use field::track_descriptor::{CHILD_ORDERING, PARENT_UUID, SIBLING_ORDER_RANK, UUID};
        self.tracks += 1;
        self.packet(place, None, |packet| {
            packet.message(field::TRACK_DESCRIPTOR, |track| {
                track.uint(UUID, uuid);
                if parent != 0 {
                    track.uint(PARENT_UUID, parent);
                }
                track.uint(CHILD_ORDERING, EXPLICIT);
                track.uint(SIBLING_ORDER_RANK, rank);
                write(track);
            });
        });
    }

    /// Declares all cores with their CPU drivers and dispatchers.
    fn declare(&mut self, cores: &[Core], places: &HashMap<u32, usize>) {
        use field::track_descriptor::{NAME, PROCESS, THREAD};
        use field::{process, thread};
        for (place, core) in cores.iter().enumerate() {
            let group = place as u64 + 1;
            self.declare_track(place, group, 0, place as u64, |track| {
                track.message(PROCESS, |one| {
                    one.uint(process::PID, group);
                    one.uint(process::LEGACY_SORT_INDEX, place as u64);
                    one.string(process::PROCESS_NAME, &format!("core {}", core.core));
                });
            });
            let driver = (cores.len() + place) as u64 + 1;
            self.declare_track(place, driver, group, 0, |track| {
                track.string(NAME, "CPU driver");
            });
            self.declare_track(place, driver | PHASES, group, 1, |track| {
                track.string(NAME, "phases");
            });
            self.drivers.push(driver);
            let model = self.model;
            self.instant(place, driver, 0, "recorded", |one| {
                one.number("records written", core.written);
                one.number("records overwritten", core.overwritten);
                one.number("records torn", core.torn);
                one.number("messages sent", core.sent);
                one.number("messages received", core.received);
                if place == 0 {
                    one.number("all: sent, receive not recorded", model.half.0);
                    one.number("all: received, send not recorded", model.half.1);
                    one.number("all: early before clocks were set", model.early.0);
                    one.number("all: early after clocks were set", model.early.1);
                    one.number("all: receive moved to after its send", moved(model));
                    one.number("all: ends without a beginning", model.loose);
                    one.number("all: records spoilt", model.spoilt);
                }
            });
        }
        let mut has_monitor = vec![false; cores.len()];
        for (index, dispatcher) in self.model.dispatchers.iter().enumerate() {
            let place = places.get(&dispatcher.core).copied().unwrap_or(0);
            let number = (2 * cores.len() + index) as u64 + 1;
            // The thread with the number of its process is shown first.
            let is_first = dispatcher.name == MONITOR && !has_monitor[place];
            has_monitor[place] |= is_first;
            let group = place as u64 + 1;
            let tid = if is_first { group } else { number };
            self.threads.push((number, tid));
            self.declare_track(place, number, 0, 2, |track| {
                track.message(THREAD, |one| {
                    one.uint(thread::PID, group);
                    one.uint(thread::TID, tid);
                    one.string(thread::THREAD_NAME, &dispatcher.name);
                });
            });
        }
    }

    /// The track of a dispatcher; of the CPU driver where there is none.
    fn thread_or_driver(&self, place: usize, dispatcher: Option<usize>) -> u64 {
        let thread = dispatcher.and_then(|one| self.threads.get(one));
        thread.map_or(self.drivers[place], |one| one.0)
    }

    fn track_of(&self, place: usize, span: &Span) -> u64 {
        match event::group(span.event) {
            event::BOOT => self.drivers[place] | PHASES,
            event::INTERRUPTS | event::MEMORY | event::CAPABILITIES => self.drivers[place],
            _ => self.thread_or_driver(place, span.dispatcher),
        }
    }

    /// An event on a track. Names are declared where they are used first, and go by number from there on.
    fn event(
        &mut self,
        place: usize,
        track: u64,
        time: u64,
        kind: u64,
        name: &str,
        notes: impl FnOnce(&mut Writer),
    ) {
        use field::interned::{EVENT_NAMES, IID, NAME};
        use field::track_event::{NAME_IID, TRACK_UUID, TYPE};
        let known = self.names[place].len() as u64;
        let (iid, is_new) = match self.names[place].get(name) {
            Some(iid) => (*iid, false),
            None => {
                self.names[place].insert(name.to_owned(), known + 1);
                (known + 1, true)
            }
        };
        self.packet(place, Some(time), |packet| {
            if is_new {
                packet.message(field::INTERNED_DATA, |data| {
                    data.message(EVENT_NAMES, |one| {
                        one.uint(IID, iid);
                        one.string(NAME, name);
                    });
                });
            }
            packet.message(field::TRACK_EVENT, |one| {
                one.uint(TYPE, kind);
                one.uint(TRACK_UUID, track);
                one.uint(NAME_IID, iid);
                notes(one);
            });
        });
    }

    fn instant(
        &mut self,
        place: usize,
        track: u64,
        time: u64,
        name: &str,
        notes: impl FnOnce(&mut Annotations<'_>),
    ) {
        self.event(place, track, time, INSTANT, name, |one| {
            notes(&mut Annotations(one));
        });
    }

    fn end(&mut self, place: usize, track: u64, time: u64) {
        self.packet(place, Some(time), |packet| {
            packet.message(field::TRACK_EVENT, |one| {
                one.uint(field::track_event::TYPE, SLICE_END);
                one.uint(field::track_event::TRACK_UUID, track);
            });
        });
    }

    /// Puts slices on a track, and on tracks beside it where they cross.
    fn slices(&mut self, place: usize, track: u64, mut slices: Vec<Slice>) {
        slices.sort_by_key(|one| (one.begin, std::cmp::Reverse(one.end)));
        // By lane: the ends of what is open there, the innermost last.
        let mut lanes: Vec<Vec<u64>> = Vec::new();
        for mut slice in slices {
            for (lane, open) in lanes.iter_mut().enumerate() {
                while let Some(end) = open.pop_if(|end| *end <= slice.begin) {
                    self.end(place, beside(track, lane as u64), end);
                }
            }
            let fits = |open: &Vec<u64>| open.last().is_none_or(|end| slice.end <= *end);
            let lane = lanes.iter().position(fits).unwrap_or_else(|| {
                if lanes.len() < MOST_LANES {
                    self.declare_lane(place, track, lanes.len() as u64);
                    lanes.push(Vec::new());
                }
                lanes.len() - 1
            });
            let open = &mut lanes[lane];
            let end = slice.end;
            slice.end = open.last().map_or(end, |outer| end.min(*outer));
            let uuid = beside(track, lane as u64);
            self.event(place, uuid, slice.begin, SLICE_BEGIN, &slice.name, |one| {
                let mut notes = Annotations(one);
                if slice.end < end {
                    notes.number("cut off; ends at", end);
                }
                match &slice.notes {
                    Notes::Text(text) => notes.text("text", text),
                    Notes::Operation {
                        flow,
                        error,
                        is_open,
                    } => {
                        notes.word("operation", *flow);
                        notes.number("error", *error);
                        if *is_open {
                            notes.text("end", "not recorded");
                        }
                    }
                }
            });
            open.push(slice.end);
        }
        for (lane, open) in lanes.into_iter().enumerate() {
            for end in open.into_iter().rev() {
                self.end(place, beside(track, lane as u64), end);
            }
        }
    }

    /// Declares a track beside another; the first is that track itself.
    fn declare_lane(&mut self, place: usize, track: u64, lane: u64) {
        use field::track_descriptor::NAME;
        let owner = track & (OPERATIONS - 1);
        if track & OPERATIONS != 0 {
            self.declare_track(place, beside(track, lane), owner, 0, |one| {
                one.string(NAME, "operations");
            });
        } else if lane > 0 {
            self.declare_track(place, beside(track, lane), owner, lane, |one| {
                one.string(NAME, "beside");
            });
        }
    }

    /// Both ends of a message and what joins them.
    fn message(&mut self, from: usize, to: usize, number: u64, one: &Message) {
        use field::track_event::{FLOW_IDS, TERMINATING_FLOW_IDS};
        let notes = |event: &mut Writer| {
            let mut notes = Annotations(event);
            notes.word("word", one.word);
            notes.word("flow", one.flow);
        };
        let monitor =
            |who: Option<usize>| who.is_some_and(|who| self.model.dispatchers[who].name == MONITOR);
        let kind = names::message(one.kind, monitor(one.sender) || monitor(one.receiver));
        let track = self.thread_or_driver(from, one.sender);
        let name = format!("send {kind}");
        self.event(from, track, one.sent, INSTANT, &name, |event| {
            notes(event);
            event.fixed64(FLOW_IDS, number);
        });
        let track = self.thread_or_driver(to, one.receiver);
        let name = format!("receive {kind}");
        let time = one.received.max(one.sent + 1);
        self.event(to, track, time, INSTANT, &name, |event| {
            notes(event);
            event.fixed64(TERMINATING_FLOW_IDS, number);
        });
    }

    /// Who runs.
    fn running(&mut self, places: &HashMap<u32, usize>) {
        let model = self.model;
        for (at, one) in model.running.iter().enumerate() {
            let Some(&place) = places.get(&one.core) else {
                continue;
            };
            self.task(place, one, one.begin, RUNNING);
            // Who is followed at once did not block.
            let next = model.running.get(at + 1);
            let is_pushed = next.is_some_and(|next| next.core == one.core && next.begin == one.end);
            let state = if is_pushed { RUNNABLE } else { SLEEPING };
            self.task(place, one, one.end, state);
        }
    }

    fn task(&mut self, place: usize, one: &Running, time: u64, state: u64) {
        use field::task_state::{COMM, CPU, PRIO, STATE, TID};
        let tid = self.threads[one.dispatcher].1;
        let name = &self.model.dispatchers[one.dispatcher].name;
        self.packet(place, Some(time), |packet| {
            packet.message(field::GENERIC_KERNEL_TASK_STATE_EVENT, |event| {
                event.uint(CPU, place as u64);
                event.string(COMM, name);
                event.uint(TID, tid);
                event.uint(STATE, state);
                event.uint(PRIO, 0);
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn one_recording_gives_one_file() {
        let one = sample::skewed(4, 300, 1);
        let file = || write(&one, &Model::of(&one));
        assert_eq!(file(), file());
    }

    #[test]
    fn a_receive_that_is_not_later_is_counted() {
        let one = sample::recording(2, 20, 1);
        let mut model = Model::of(&one);
        assert_eq!(moved(&model), 0);
        model.messages[3].received = model.messages[3].sent;
        model.messages[4].received = 0;
        assert_eq!(moved(&model), 2);
    }
}
