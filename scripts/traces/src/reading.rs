//! Makes a [`Model`] of the records, core by core in the order of time.

use crate::clocks::{self, Clock};
use crate::matching::{End, Ends, early};
use crate::model::{Dispatcher, Message, Model, Operation, Running, Span, Step};
use crate::recording::{self, Header, Recording, User};
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use trace::{Record, event};

/// Ticks that a record can lie away from the middle one: a day and more at 3 GHz.
const FAR: u64 = 1 << 48;

/// Of [`event::PHASES`]: the CPU driver begins, the program does.
const CPU_DRIVER: u32 = 1;
const PROGRAM: u32 = 7;
const _: () = assert!(event::PHASES.len() > PROGRAM as usize);

/// What [`Model::of`] does.
pub fn model(recording: &Recording) -> Model {
    let (kept, spoilt) = keep(recording);
    let ends = Ends::of(recording, &kept);
    let clocks = clocks::of(recording, &kept, &ends.single());
    let lines: Vec<Line> = kept
        .iter()
        .enumerate()
        .map(|(core, kept)| line(&recording.records[core], kept, &clocks[core]))
        .collect();
    let (window, missing) = Window::of(recording, &lines);
    let mut reading = Reading {
        header: &recording.header,
        window,
        model: Model {
            spoilt,
            missing,
            lost: lost(recording),
            late: late(recording, &lines),
            length: window.ns(window.end),
            ..Model::default()
        },
        operations: HashMap::new(),
        ends: Vec::new(),
    };
    let mut who = Vec::new();
    for (core, line) in lines.iter().enumerate() {
        who.push(reading.core(core, &recording.records[core], line));
    }
    reading.messages(recording, &ends, &clocks, &who);
    let mut model = reading.finish();
    model.clocks = clocks;
    model
}

/// Places of the records that are what they say, by core, and how many are not.
fn keep(recording: &Recording) -> (Vec<Vec<u32>>, u64) {
    let mut is_known = [false; 1 << 16];
    for one in event::EVENTS {
        is_known[usize::from(one.number)] = true;
    }
    let all = || recording.records.iter().flatten();
    let mut times: Vec<u64> = all()
        .filter(|one| is_known[usize::from(one.event())])
        .map(|one| one.tsc)
        .collect();
    let middle = match times.len() / 2 {
        0 => times.first().copied().unwrap_or(0),
        half => *times.select_nth_unstable(half).1,
    };
    let is_sound =
        |one: &Record| is_known[usize::from(one.event())] && one.tsc.abs_diff(middle) < FAR;
    // Records without a header's core are of nobody.
    let cores = recording.header.cores.len();
    let of_core = |(core, records): (usize, &Vec<Record>)| {
        let places = 0..u32::try_from(records.len()).unwrap_or(u32::MAX);
        match core < cores {
            true => places
                .filter(|at| is_sound(&records[*at as usize]))
                .collect(),
            false => Vec::new(),
        }
    };
    let kept: Vec<Vec<u32>> = recording.records.iter().enumerate().map(of_core).collect();
    let spoilt = all().count() - kept.iter().map(Vec::len).sum::<usize>();
    (kept, spoilt as u64)
}

/// Records of a core: when, by the clock of all, and their places.
type Line = Vec<(i64, u32)>;

/// An interrupt may write its records between another's place and its time: so time orders them.
fn line(records: &[Record], kept: &[u32], clock: &Clock) -> Line {
    let mut line: Line = kept
        .iter()
        .map(|&at| (clock.time(records[at as usize].tsc), at))
        .collect();
    line.sort();
    line
}

/// Cores that were lost.
fn lost(recording: &Recording) -> Vec<u32> {
    let cores = recording.header.cores.iter();
    cores
        .filter(|core| core.is_lost)
        .map(|core| core.core)
        .collect()
}

/// Cores whose first record is that of their start, later than that of the program.
fn late(recording: &Recording, lines: &[Line]) -> Vec<u32> {
    let phase = |core: usize, at: u32| {
        let record = &recording.records[core][at as usize];
        (record.event() == event::PHASE).then(|| record.detail())
    };
    let program = lines.iter().enumerate().find_map(|(core, line)| {
        let mut begins = line
            .iter()
            .filter(|one| phase(core, one.1) == Some(PROGRAM));
        begins.next().map(|one| one.0)
    });
    let cores = recording.header.cores.iter().enumerate();
    let is_late = |(core, header): &(usize, &recording::Core)| {
        let first = lines.get(*core).and_then(|line| line.first());
        first.zip(program).is_some_and(|(&(time, at), program)| {
            header.overwritten == 0 && phase(*core, at) == Some(CPU_DRIVER) && time > program
        })
    };
    cores
        .filter(is_late)
        .map(|(_, header)| header.core)
        .collect()
}

/// The stretch of time that a model is of.
#[derive(Clone, Copy, Debug)]
struct Window {
    begin: i64,
    end: i64,
    hz: u64,
}

impl Window {
    /// From the first event that starts the trace to the next that ends it; where there is none, from the
    /// first record to the last. The other result: which were asked for, and are nowhere.
    fn of(recording: &Recording, lines: &[Line]) -> (Self, [Option<u16>; 2]) {
        let header = &recording.header;
        // The first after one that is known: its time, core and place.
        let first_of = |number: u32, after: Option<(i64, usize, u32)>| {
            let of_core = |(core, line): (usize, &Line)| {
                let records = &recording.records[core];
                let is_it = |&(time, at): &(i64, u32)| {
                    u32::from(records[at as usize].event()) == number
                        && after.is_none_or(|after| (time, core, at) > after)
                };
                let found = line.iter().copied().find(is_it);
                found.map(|(time, at)| (time, core, at))
            };
            let found = lines.iter().enumerate().filter_map(of_core);
            (number != 0).then(|| found.min()).flatten()
        };
        let ends = |line: &Line| Some((line.first()?.0, line.last()?.0));
        let begin = lines.iter().filter_map(ends).map(|one| one.0).min();
        let end = lines.iter().filter_map(ends).map(|one| one.1).max();
        let start = first_of(header.start, None);
        let before = lines.iter().filter_map(ends).next();
        let nowhere = |number: u32, found: bool| match u16::try_from(number) {
            Ok(number @ 1..) if !found && before.is_some() => Some(number),
            _ => None,
        };
        // What ends the trace ends nothing that has not begun.
        let stop = match (header.start, start) {
            (1.., None) => None,
            _ => first_of(header.stop, start),
        };
        let missing = [
            nowhere(header.start, start.is_some()),
            nowhere(header.stop, stop.is_some()),
        ];
        let begin = start.map(|one| one.0).or(begin).unwrap_or(0);
        let end = stop.map(|one| one.0).or(end).unwrap_or(begin);
        let window = Self {
            begin,
            end,
            hz: if header.hz == 0 {
                1_000_000_000
            } else {
                header.hz
            },
        };
        (window, missing)
    }

    fn contains(&self, time: i64) -> bool {
        (self.begin..=self.end).contains(&time)
    }

    /// Nanoseconds since it began.
    fn ns(&self, time: i64) -> u64 {
        let ticks = time.clamp(self.begin, self.end).abs_diff(self.begin);
        match self.hz {
            1_000_000_000 => ticks,
            hz => u64::try_from(u128::from(ticks) * 1_000_000_000 / u128::from(hz))
                .unwrap_or(u64::MAX),
        }
    }
}

/// Nobody, in what [`Reading::core`] returns.
const NOBODY: u32 = u32::MAX;

struct Reading<'a> {
    header: &'a Header,
    window: Window,
    model: Model,
    /// Operations that are not answered yet.
    operations: HashMap<u64, usize>,
    /// Ends of operations: flow, when, error. They may be on a core that is read before the beginning's.
    ends: Vec<(u64, u64, u64)>,
}

/// What is known of a core at a time.
struct Core<'a> {
    number: u32,
    /// Names by handle, of those that there were last.
    names: &'a [String],
    /// Dispatchers by handle.
    handles: HashMap<u32, usize>,
    /// Handles of those whose start was not recorded.
    nameless: HashSet<u32>,
    /// Who runs, and since when.
    running: Option<(usize, i64)>,
    /// Who ran last, and is the one to go on where nobody else is said to run.
    last: Option<usize>,
    /// Who has ended, and is still in the call that it ended by.
    leaving: Option<usize>,
    /// When the last was woken.
    woken: Option<i64>,
    is_idle: bool,
    switches: u64,
    /// Spans that have begun, by who runs and what ends them: where they are, and what they are of.
    open: HashMap<(u32, u16), Vec<(usize, u64)>>,
    /// The phase that it is in.
    phase: Option<usize>,
}

impl Core<'_> {
    /// Who runs, or is on its way out of the core.
    fn current(&self) -> Option<usize> {
        let last = self.last.filter(|_| !self.is_idle);
        self.running.map(|one| one.0).or(last).or(self.leaving)
    }

    /// The CPU driver records that a dispatcher runs where that is another than the last, and that one resumes
    /// after the core was idle. One that was woken before that goes on without a record: what only ring 3 can
    /// have done says so, and then it has run since it was woken.
    fn goes_on(&mut self, record: &Record, time: i64) {
        let is_of_ring_3 = matches!(
            event::group(record.event()),
            event::MESSAGES | event::PROTOCOLS | event::USER | event::CLOCKS
        ) || matches!(record.event(), event::CALL | event::LRPC_CALL);
        if self.running.is_none() && is_of_ring_3 {
            self.running = self.last.map(|last| (last, self.woken.unwrap_or(time)));
            self.is_idle &= self.running.is_none();
            self.woken = None;
        }
    }
}

impl Reading<'_> {
    /// Reads the records of a core, and returns who ran at each, by its place.
    fn core(&mut self, place: usize, records: &[Record], line: &Line) -> Vec<u32> {
        let header = self.header.cores.get(place);
        let mut core = Core {
            number: header.map_or(0, |one| one.core),
            names: header.map_or(&[], |one| &one.names),
            handles: HashMap::new(),
            nameless: HashSet::new(),
            running: None,
            last: None,
            leaving: None,
            woken: None,
            is_idle: false,
            switches: 0,
            open: HashMap::new(),
            phase: None,
        };
        let mut who = vec![NOBODY; records.len()];
        // Who stops first has run from the first record on.
        let mut switches = line.iter().map(|(_, at)| &records[*at as usize]);
        let first = switches.find(|one| {
            matches!(
                one.event(),
                event::RUNS | event::RESUMES | event::IDLE | event::BLOCKS | event::ENDED
            )
        });
        if let Some(one) = first.filter(|one| matches!(one.event(), event::BLOCKS | event::ENDED)) {
            let dispatcher = self.dispatcher(&mut core, one.detail());
            core.running = line.first().map(|(time, _)| (dispatcher, *time));
            core.last = Some(dispatcher);
        }
        for &(time, at) in line {
            if time > self.window.end {
                break;
            }
            let record = &records[at as usize];
            if event::group(record.event()) == event::DISPATCH {
                self.dispatch(&mut core, record, time);
            } else {
                core.goes_on(record, time);
                if self.window.contains(time) {
                    self.happens(&mut core, record, time);
                }
            }
            who[at as usize] = core.current().map_or(NOBODY, |one| one as u32);
        }
        self.stops(&mut core, self.window.end);
        self.model.switches.push(core.switches);
        let length = self.model.length;
        for span in core
            .open
            .into_values()
            .flatten()
            .map(|one| one.0)
            .chain(core.phase)
        {
            self.model.spans[span].end = length;
        }
        who
    }

    /// The dispatcher with this handle, even if its start was not recorded.
    fn dispatcher(&mut self, core: &mut Core<'_>, handle: u32) -> usize {
        let all = &mut self.model.dispatchers;
        *core.handles.entry(handle).or_insert_with(|| {
            let known = core.names.get(handle as usize);
            all.push(Dispatcher {
                core: core.number,
                handle,
                name: clean(known.map_or("", String::as_str), handle),
            });
            core.nameless.insert(handle);
            all.len() - 1
        })
    }

    fn dispatch(&mut self, core: &mut Core<'_>, record: &Record, time: i64) {
        let handle = record.detail();
        match record.event() {
            event::MADE => {
                let name = name(record);
                // One is made without a name, and gets it later.
                let known = core.handles.get(&handle).copied();
                if let Some(known) = known.filter(|_| core.nameless.contains(&handle)) {
                    if !name.is_empty() {
                        core.nameless.remove(&handle);
                        self.model.dispatchers[known].name = clean(&name, handle);
                    }
                    return;
                }
                if name.is_empty() {
                    core.nameless.insert(handle);
                }
                let dispatchers = &mut self.model.dispatchers;
                core.handles.insert(handle, dispatchers.len());
                dispatchers.push(Dispatcher {
                    core: core.number,
                    handle,
                    name: clean(&name, handle),
                });
            }
            event::RUNS | event::RESUMES => {
                self.left(core, time);
                let dispatcher = self.dispatcher(core, handle);
                let is_switch = record.event() == event::RUNS && self.window.contains(time);
                core.switches += u64::from(is_switch);
                core.last = Some(dispatcher);
                core.is_idle = false;
                if core.running.is_none_or(|one| one.0 != dispatcher) {
                    self.stops(core, time);
                    core.running = Some((dispatcher, time));
                }
            }
            event::IDLE => {
                self.left(core, time);
                self.stops(core, time);
                core.is_idle = true;
                core.woken = None;
            }
            event::WAKES => {
                let known = core.handles.get(&handle);
                if known.is_some() && known == core.last.as_ref() {
                    core.woken = core.woken.or(Some(time));
                }
            }
            event::BLOCKS | event::ENDED => {
                let known = core.handles.get(&handle).copied();
                if known.is_some() && known == core.running.map(|one| one.0) {
                    self.stops(core, time);
                    core.woken = None;
                }
                if record.event() == event::ENDED {
                    let is_last = known.is_some() && known == core.last;
                    match known {
                        // By its own call, whose end comes yet.
                        Some(_) if is_last && !core.is_idle => core.leaving = known,
                        Some(known) => self.closes(core, known, time),
                        None => {}
                    }
                    core.last = core.last.filter(|_| !is_last);
                    core.handles.remove(&handle);
                    core.nameless.remove(&handle);
                }
            }
            _ => {}
        }
    }

    /// Who ended by a call of its own is out of the core.
    fn left(&mut self, core: &mut Core<'_>, time: i64) {
        if let Some(left) = core.leaving.take() {
            self.closes(core, left, time);
        }
    }

    /// What a dispatcher began, and can never end, ends now.
    fn closes(&mut self, core: &mut Core<'_>, dispatcher: usize, time: i64) {
        let at = self.window.ns(time);
        for (whose, open) in &mut core.open {
            if whose.0 as usize == dispatcher {
                for (span, _) in open.drain(..) {
                    self.model.spans[span].end = at;
                }
            }
        }
    }

    /// Nobody runs any more.
    fn stops(&mut self, core: &mut Core<'_>, time: i64) {
        if let Some((dispatcher, since)) = core.running.take()
            && (time > self.window.begin || since == time)
            && time >= self.window.begin
        {
            self.model.running.push(Running {
                core: core.number,
                dispatcher,
                begin: self.window.ns(since),
                end: self.window.ns(time),
            });
        }
    }

    fn happens(&mut self, core: &mut Core<'_>, record: &Record, time: i64) {
        let at = self.window.ns(time);
        let dispatcher = core.current();
        let number = record.event();
        match number {
            event::BEGIN => {
                self.operations
                    .insert(record.flow, self.model.operations.len());
                self.model.operations.push(Operation {
                    flow: record.flow,
                    core: core.number,
                    dispatcher,
                    kind: record.detail(),
                    begin: at,
                    end: None,
                    error: 0,
                });
                return;
            }
            event::END => {
                self.ends.push((record.flow, at, record.value));
                return;
            }
            event::SEND | event::RECEIVE | event::PING | event::PONG | event::PANG => return,
            event::STEP => self.model.steps.push(Step {
                flow: record.flow,
                core: core.number,
                dispatcher,
                kind: record.detail(),
                value: record.value,
                at,
            }),
            _ => {}
        }
        // What a span is of: the number of the call, the event of the program.
        let (begins, subject) = match number {
            event::CALL | event::CALL_DONE => (event::CALL, u64::from(record.detail())),
            event::USER_BEGIN | event::USER_END => (event::USER_BEGIN, record.flow),
            _ => (number, 0),
        };
        let whose = (dispatcher.map_or(NOBODY, |one| one as u32), begins);
        if matches!(number, event::CALL_DONE | event::USER_END) {
            let open = core.open.entry(whose).or_default();
            let Some(nth) = open.iter().rposition(|one| one.1 == subject) else {
                self.model.loose += 1;
                return;
            };
            // What began within it, and never ended, ends with it.
            let own = open[nth].0;
            for (span, _) in open.drain(nth..) {
                self.model.spans[span].end = at;
            }
            if number == event::CALL_DONE && record.value != 0 {
                // Writing to a string does not fail.
                let _ = write!(self.model.spans[own].text, ": error {}", record.value);
            }
            return;
        }
        let span = self.model.spans.len();
        let (name, text) = self.words(record, dispatcher);
        self.model.spans.push(Span {
            core: core.number,
            dispatcher,
            event: number,
            name,
            text,
            begin: at,
            end: at,
        });
        match number {
            event::CALL => {
                // A call that does not return (an end, a resumption) lasts until the next.
                for (span, _) in core.open.entry(whose).or_default().drain(..) {
                    self.model.spans[span].end = at;
                }
                core.open.entry(whose).or_default().push((span, subject));
            }
            event::USER_BEGIN => core.open.entry(whose).or_default().push((span, subject)),
            event::PHASE => {
                if let Some(last) = core.phase.replace(span) {
                    self.model.spans[last].end = at;
                }
            }
            _ => {}
        }
    }

    /// What to call an event, and its arguments in words.
    fn words(&self, record: &Record, dispatcher: Option<usize>) -> (String, String) {
        let number = record.event();
        if event::group(number) == event::USER
            && let Some(user) = self.user(record.flow, dispatcher)
        {
            return (user.name.clone(), render(&user.text, record));
        }
        let declared = event::EVENTS.iter().find(|one| one.number == number);
        let (name, text) = declared.map_or(("", ""), |one| (one.name, one.text));
        if number == event::PHASE
            && let Some(phase) = event::PHASES.get(record.detail() as usize)
        {
            return ((*phase).to_owned(), String::new());
        }
        (name.to_owned(), render(text, record))
    }

    /// What a program declared; programs may have declared something at the same address.
    fn user(&self, address: u64, dispatcher: Option<usize>) -> Option<&User> {
        let program = dispatcher.map_or("", |one| &self.model.dispatchers[one].name);
        let here = || {
            self.header
                .users
                .iter()
                .filter(|one| one.address == address)
        };
        // Names in the ring are cut to 16 bytes.
        let is_own = |one: &&User| !program.is_empty() && one.program.starts_with(program);
        here().find(is_own).or_else(|| here().next())
    }

    /// Puts both ends of messages together.
    fn messages(&mut self, recording: &Recording, ends: &Ends, clocks: &[Clock], who: &[Vec<u32>]) {
        let window = self.window;
        let is_in = |end: &End| window.contains(end.time(clocks));
        let (mut pairs, left) = ends.pairs(clocks);
        let count = |ends: &[End]| ends.iter().filter(|one| is_in(one)).count() as u64;
        self.model.half = (count(&left.sends), count(&left.receives));
        pairs.retain(|(send, receive)| {
            let (sent, received) = (is_in(send), is_in(receive));
            self.model.half.0 += u64::from(sent && !received);
            self.model.half.1 += u64::from(received && !sent);
            sent && received
        });
        let raw = vec![Clock::default(); clocks.len()];
        self.model.early = (early(&pairs, &raw), early(&pairs, clocks));
        let cores = &self.header.cores;
        let dispatcher = |end: &End| {
            let one = who[end.core as usize][end.record as usize];
            (one != NOBODY).then_some(one as usize)
        };
        let message = |(send, receive): &(End, End)| {
            let record = &recording.records[send.core as usize][send.record as usize];
            Message {
                flow: send.flow,
                from: cores[send.core as usize].core,
                to: cores[receive.core as usize].core,
                sender: dispatcher(send),
                receiver: dispatcher(receive),
                sent: window.ns(send.time(clocks)),
                received: window.ns(receive.time(clocks)),
                kind: record.detail() as u16,
                word: record.value,
            }
        };
        self.model.messages = pairs.iter().map(message).collect();
    }

    /// Brings all in its order.
    fn finish(mut self) -> Model {
        self.ends.sort_unstable();
        let model = &mut self.model;
        for (flow, at, error) in self.ends {
            match self.operations.get(&flow) {
                Some(&one)
                    if model.operations[one].end.is_none() && model.operations[one].begin <= at =>
                {
                    model.operations[one].end = Some(at);
                    model.operations[one].error = error;
                }
                _ => model.loose += 1,
            }
        }
        model.running.sort_by_key(|one| (one.core, one.begin));
        model
            .messages
            .sort_by_key(|one| (one.sent, one.received, one.flow));
        model.operations.sort_by_key(|one| (one.begin, one.core));
        model.steps.sort_by_key(|one| (one.at, one.core));
        model.spans.sort_by_key(|one| (one.begin, one.core));
        self.model
    }
}

/// The name in a record that a dispatcher was made: 16 bytes at most.
fn name(record: &Record) -> String {
    let bytes = [record.flow.to_le_bytes(), record.value.to_le_bytes()].concat();
    let end = bytes.iter().position(|one| *one == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

/// A name as it can be shown: anybody may have written it.
fn clean(name: &str, handle: u32) -> String {
    match name.trim() {
        "" => format!("dispatcher {handle}"),
        name => name.replace(char::is_control, "?"),
    }
}

/// The text of an event with its arguments.
fn render(text: &str, record: &Record) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let (argument, after) = after.split_once('}').unwrap_or((after, ""));
        let (argument, is_hex) = match argument.strip_suffix(":x") {
            Some(argument) => (argument, true),
            None => (argument, false),
        };
        let value = match argument {
            "flow" => record.flow,
            "value" => record.value,
            "detail" => u64::from(record.detail()),
            _ => 0,
        };
        // Writing to a string does not fail.
        let _ = match is_hex {
            true => write!(out, "{value:#x}"),
            false => write!(out, "{value}"),
        };
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests;
