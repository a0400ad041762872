//! Traces: when they are recorded on all cores, by which clocks, and what of the monitors' own work.
//!
//! ```text
//!  core 0              each other core, one after the other
//!    │ PING ──────────────►│  event PING here, PONG there when it is taken,
//!    │◄────────────── PONG │  PANG here; again and again
//! ```
//!
//! Clocks are compared before the program starts and after it has ended. All of this happens only where
//! there are rings for records.

use crate::Monitor;
use crate::requests::Requester;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::vec::Vec;
use protocols::core_set::CoreSet;
use protocols::kinds;
use rt::clock;
use rt::interface::{Error, tracing};
use rt::trace::{self, Recorder, event};
use urpc::Message;

/// Core 0 has something else recorded: number of the change, then as in [`tracing`].
const CHANGE: u16 = kinds::kind(&kinds::TRACES, 0);
/// It is so here: number of the change.
const CHANGED: u16 = kinds::kind(&kinds::TRACES, 1);
/// Core 0 asks for the time: number of the exchange.
const PING: u16 = kinds::kind(&kinds::TRACES, 2);
/// The answer, by that number.
const PONG: u16 = kinds::kind(&kinds::TRACES, 3);

/// Most changes under way.
const MAX_CHANGES: usize = 16;
/// Exchanges with a core in a row, and with all cores together.
const ROUNDS: u64 = 16;
const ROUNDS_IN_ALL: u64 = 512;
const LEAST_ROUNDS: u64 = 2;
/// The part of core 0's ring that they may take.
const SHARE: u64 = 16;
/// How long all of them may take, in nanoseconds.
const LIMIT_NS: u64 = 10_000_000_000;

/// A change that cores have not answered yet.
struct Change {
    number: u64,
    requester: Requester,
    waiting: CoreSet,
}

/// What comes after clocks were compared.
#[derive(Clone, Copy, Debug)]
pub enum Then {
    /// The program starts.
    Program,
    /// The power goes, with this exit status.
    PowerOff(i32),
}

/// Clocks are being compared.
struct Exchange {
    /// With these cores, the first of them now.
    left: VecDeque<usize>,
    /// So many times with each; so many were.
    rounds: u64,
    done: u64,
    /// The one that is under way.
    number: u64,
    deadline_ns: u64,
    then: Then,
}

/// What a monitor remembers of traces.
#[derive(Default)]
pub struct Traces {
    changes: Vec<Change>,
    /// Of the last change, of the last exchange.
    number: u64,
    exchanges: u64,
    exchange: Option<Exchange>,
    /// What holds, for cores that come back.
    enabled: Option<[u64; 3]>,
    triggers: Option<[u64; 3]>,
}

/// Records that a phase of [`event::PHASES`] begins.
pub fn phase(number: u32) {
    Recorder::own().record(event::PHASE, 0, 0, number);
}

/// Records a step for an operation, if it is known for which.
#[inline]
pub fn step(flow: u64, value: u64, kind: u16) {
    Recorder::own().record(event::STEP, flow, value, kind.into());
}

/// Records a step for the request of a domain.
pub fn step_of(domain: u64, token: u32, value: u64, kind: u16) {
    let recorder = Recorder::own();
    if recorder.is_on(event::STEP) {
        let flow = trace::flow_of_request(domain, token);
        recorder.write(event::STEP, flow, value, kind.into());
    }
}

/// Whether words of [`tracing`] say something that can be done.
fn is_sound([what, a, b]: [u64; 3]) -> bool {
    match what {
        tracing::ENABLE => a & !u64::from(trace::ALL) == 0 && b == 0,
        tracing::TRIGGERS => {
            let is_event = |number: u64| {
                number == 0
                    || event::EVENTS
                        .iter()
                        .any(|one| u64::from(one.number) == number)
            };
            is_event(a) && is_event(b)
        }
        _ => false,
    }
}

/// Has it so on this core.
fn apply([what, a, b]: [u64; 3]) {
    match what {
        tracing::ENABLE => Recorder::own().enable(a as u32),
        _ => Recorder::own().set_triggers(a as u32, b as u32),
    }
}

impl Monitor {
    /// All cores are to record something else.
    pub fn change_traces(
        &mut self,
        requester: Requester,
        job: u64,
        words: [u64; 3],
    ) -> Result<Option<[u64; 5]>, Error> {
        if self.own != 0 {
            return Err(Error::OtherCore);
        }
        if self.program != Some(job) {
            return Err(Error::NotAllowed);
        }
        if !trace::is_there() {
            return Err(Error::NoTrace);
        }
        if !is_sound(words) {
            return Err(Error::BadArgument);
        }
        if self.traces.changes.len() >= MAX_CHANGES {
            return Err(Error::Busy);
        }
        match words[0] {
            tracing::ENABLE => self.traces.enabled = Some(words),
            _ => self.traces.triggers = Some(words),
        }
        self.traces.number += 1;
        let number = self.traces.number;
        apply(words);
        let others = self.others();
        for core in others.iter() {
            self.send_change(core, number, words);
        }
        if others.is_empty() {
            return Ok(Some([0; 5]));
        }
        self.traces.changes.push(Change {
            number,
            requester,
            waiting: others,
        });
        Ok(None)
    }

    /// All other cores of the view.
    fn others(&self) -> CoreSet {
        let cores = self.view().cores.iter();
        cores.filter(|core| *core != self.own).collect()
    }

    fn send_change(&mut self, core: usize, number: u64, [what, a, b]: [u64; 3]) {
        let message = Message::new(CHANGE, [number, what, a, b, 0, 0, 0]);
        self.mesh.send(&mut self.store, core, &message);
    }

    /// A core came back: what is recorded elsewhere is recorded there, too.
    pub fn trace_core_that_came(&mut self, core: usize) {
        if self.own == 0 {
            let holds = [self.traces.triggers, self.traces.enabled];
            for words in holds.into_iter().flatten() {
                self.send_change(core, 0, words);
            }
        }
    }

    /// A core was lost: nothing is waited for from it.
    pub fn traces_lost_with(&mut self, core: usize) {
        for number in self
            .traces
            .changes
            .iter()
            .map(|one| one.number)
            .collect::<Vec<_>>()
        {
            self.changed(core, number);
        }
        if let Some(exchange) = &mut self.traces.exchange {
            let is_current = exchange.left.front() == Some(&core);
            exchange.left.retain(|one| *one != core);
            if is_current {
                exchange.done = 0;
                self.send_clock_ping();
            }
        }
    }

    fn changed(&mut self, core: usize, number: u64) {
        let changes = &mut self.traces.changes;
        let Some(at) = changes.iter().position(|one| one.number == number) else {
            return;
        };
        changes[at].waiting.remove(core);
        if changes[at].waiting.is_empty() {
            let requester = changes.remove(at).requester;
            self.answer(requester, Ok(Some([0; 5])));
        }
    }

    /// Takes a message of another monitor if it is about traces.
    pub fn on_trace_message(&mut self, from: usize, message: &Message) -> bool {
        let [number, what, a, b, ..] = message.payload;
        match message.kind() {
            CHANGE if from == 0 => {
                if trace::is_there() && is_sound([what, a, b]) {
                    apply([what, a, b]);
                }
                let answer = Message::new(CHANGED, [number, 0, 0, 0, 0, 0, 0]);
                self.mesh.send(&mut self.store, from, &answer);
            }
            CHANGED => self.changed(from, number),
            PING if from == 0 => {
                Recorder::own().write(event::PONG, 0, number, self.own as u32);
                let answer = Message::new(PONG, [number, 0, 0, 0, 0, 0, 0]);
                self.mesh.send(&mut self.store, from, &answer);
                self.mesh.flush();
            }
            PONG => self.clock_answered(from, number),
            _ => return false,
        }
        true
    }

    /// Compares this core's clock with those of all others, if there are traces to need it, and goes on.
    pub fn compare_clocks(&mut self, then: Then) {
        let others = self.others();
        if !trace::is_there() || others.is_empty() {
            return self.go_on(then);
        }
        let cores = others.len() as u64;
        let room = trace::capacity() / SHARE / (2 * cores);
        let rounds = ROUNDS.min(ROUNDS_IN_ALL / cores).min(room);
        self.traces.exchange = Some(Exchange {
            left: others.iter().collect(),
            rounds: rounds.max(LEAST_ROUNDS),
            done: 0,
            number: 0,
            deadline_ns: clock::now_ns() + LIMIT_NS,
            then,
        });
        self.send_clock_ping();
    }

    fn send_clock_ping(&mut self) {
        let Some(exchange) = &mut self.traces.exchange else {
            return;
        };
        let Some(core) = exchange.left.front().copied() else {
            let then = exchange.then;
            self.traces.exchange = None;
            return self.go_on(then);
        };
        self.traces.exchanges += 1;
        let number = self.traces.exchanges;
        exchange.number = number;
        Recorder::own().write(event::PING, 0, number, core as u32);
        let ping = Message::new(PING, [number, 0, 0, 0, 0, 0, 0]);
        self.mesh.send(&mut self.store, core, &ping);
        self.mesh.flush();
    }

    fn clock_answered(&mut self, from: usize, number: u64) {
        let Some(exchange) = &mut self.traces.exchange else {
            return;
        };
        if exchange.number != number || exchange.left.front() != Some(&from) {
            return; // of one that was given up
        }
        Recorder::own().write(event::PANG, 0, number, from as u32);
        exchange.done += 1;
        if exchange.done == exchange.rounds {
            exchange.done = 0;
            exchange.left.pop_front();
        }
        self.send_clock_ping();
    }

    /// When clocks must have been compared.
    pub fn clocks_deadline_ns(&self) -> Option<u64> {
        let exchange = self.traces.exchange.as_ref();
        exchange.map(|exchange| exchange.deadline_ns)
    }

    /// Time has passed; whether anything came of it.
    pub fn clocks_tick(&mut self, now_ns: u64) -> bool {
        let is_late = self.clocks_deadline_ns().is_some_and(|at| at <= now_ns);
        if let Some(exchange) = self.traces.exchange.take_if(|_| is_late) {
            let left: Vec<usize> = exchange.left.into();
            self.log(&format!(
                "the clocks of cores {left:?} could not be compared in time"
            ));
            self.go_on(exchange.then);
        }
        is_late
    }

    fn go_on(&mut self, then: Then) {
        match then {
            Then::Program => self.start_program(),
            Then::PowerOff(status) => self.begin_power_off(status),
        }
    }
}
