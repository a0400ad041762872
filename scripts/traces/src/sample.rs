//! Recordings that were made up, for tests: cores that do operations by messages, always the same for the
//! same numbers.
//!
//! On each core there is a monitor (handle 1) and a program (handle 2). The program asks its monitor for
//! something; that one asks other monitors, and answers when all have answered.

use crate::recording::{Core, Header, Recording, User};
use trace::{Record, event, message_flow, operation_flow};

/// Handle of a core's monitor.
pub const MONITOR: u32 = 1;
/// Handle of a core's program.
pub const PROGRAM: u32 = 2;
/// Messages from a monitor: what it asks for, and the answer.
pub const REQUEST: u32 = 0x51;
/// As above.
pub const ANSWER: u32 = 0x52;
/// Flow of the event that the program declares.
pub const USER: u64 = 0x40_1000;

/// Ticks that a message takes at least.
const WIRE: u64 = 300;
/// Exchanges of time with each core, at the start and at the end.
const EXCHANGES: u64 = 20;

/// A run of so many cores (at least 1) with so many messages, whose clocks go alike.
pub fn recording(cores: usize, messages: usize, seed: u64) -> Recording {
    let machine = Machine::new(cores.max(1), seed, |_, time| time);
    machine.run(messages)
}

/// The same, with clocks that differ: each but core 0's is up to 2 ms ahead, and gains or loses up to 8 of
/// 1,000,000 ticks.
pub fn skewed(cores: usize, messages: usize, seed: u64) -> Recording {
    let machine = Machine::new(cores.max(1), seed, |core, time| match core as u64 {
        0 => time,
        core => {
            let mut random = Random(core ^ 0x5eed);
            let offset = random.below(2_000_000);
            let drift = random.below(17);
            time + offset + time / 125_000 * drift / 8 - time / 125_000
        }
    });
    machine.run(messages)
}

/// Numbers without order, the same for a seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// What a core did until now.
struct State {
    now: u64,
    records: Vec<Record>,
    running: Option<u32>,
    is_idle: bool,
    switches: u64,
    sent: u64,
    received: u64,
    operations: u64,
}

struct Machine {
    cores: Vec<State>,
    /// Messages sent, by sender and receiver.
    sequences: Vec<u64>,
    random: Random,
    clock: fn(usize, u64) -> u64,
}

/// A message that was sent: its flow, when it arrives, its first word.
struct Wire {
    flow: u64,
    arrives: u64,
    word: u64,
}

impl Machine {
    fn new(cores: usize, seed: u64, clock: fn(usize, u64) -> u64) -> Self {
        let state = |_| State {
            now: 1_000_000,
            records: Vec::new(),
            running: None,
            is_idle: false,
            switches: 0,
            sent: 0,
            received: 0,
            operations: 0,
        };
        Self {
            cores: (0..cores).map(state).collect(),
            sequences: vec![0; cores * cores],
            random: Random(seed),
            clock,
        }
    }

    fn run(mut self, messages: usize) -> Recording {
        for core in 0..self.cores.len() {
            self.start(core);
        }
        self.exchange(0);
        let mut left = messages;
        let mut round = 0;
        while left > 0 {
            let origin = round % self.cores.len();
            self.operation(origin, &mut left);
            round += 1;
        }
        self.exchange(EXCHANGES);
        self.emit(0, event::PHASE, 0, 0, 8);
        self.finish(messages)
    }

    /// Records an event on a core, some ticks later than its last.
    fn emit(&mut self, core: usize, number: u16, flow: u64, value: u64, detail: u32) {
        let later = 5 + self.random.below(20);
        let state = &mut self.cores[core];
        state.now += later;
        state.records.push(Record {
            tsc: (self.clock)(core, state.now),
            flow,
            value,
            tail: Record::tail(number, 1, detail),
        });
    }

    fn start(&mut self, core: usize) {
        self.emit(core, event::PHASE, 0, 0, 1);
        for (handle, name) in [(MONITOR, *b"monitor\0"), (PROGRAM, *b"sample\0\0")] {
            self.emit(core, event::MADE, u64::from_le_bytes(name), 0, handle);
        }
        self.emit(core, event::PHASE, 0, 0, 2);
        self.runs(core, MONITOR);
    }

    fn runs(&mut self, core: usize, handle: u32) {
        if self.cores[core].running != Some(handle) {
            self.emit(core, event::RUNS, 0, 0, handle);
            let state = &mut self.cores[core];
            state.running = Some(handle);
            state.is_idle = false;
            state.switches += 1;
        }
    }

    fn blocks(&mut self, core: usize, handle: u32, why: u64) {
        self.emit(core, event::BLOCKS, 0, why, handle);
        self.cores[core].running = None;
    }

    fn idle(&mut self, core: usize) {
        if !self.cores[core].is_idle {
            self.emit(core, event::IDLE, 0, 0, 0);
            self.cores[core].is_idle = true;
        }
    }

    /// A message for the monitor is here: a doorbell wakes it where it sleeps.
    fn arrives(&mut self, core: usize, time: u64) {
        let state = &mut self.cores[core];
        state.now = state.now.max(time);
        if state.running != Some(MONITOR) {
            self.emit(core, event::INTERRUPT, 0, 0, 0x41);
            self.emit(core, event::WAKES, 0, 1, MONITOR);
            self.runs(core, MONITOR);
        }
    }

    fn send(&mut self, from: usize, to: usize, kind: u32, word: u64) -> Wire {
        let channel = from * self.cores.len() + to;
        let flow = message_flow(0x10_0000 + channel as u64 * 0x1000, self.sequences[channel]);
        self.sequences[channel] += 1;
        self.cores[from].sent += 1;
        self.emit(from, event::SEND, flow, word, kind);
        Wire {
            flow,
            arrives: self.cores[from].now + WIRE + self.random.below(500),
            word,
        }
    }

    fn receive(&mut self, core: usize, wire: &Wire, kind: u32) {
        self.arrives(core, wire.arrives);
        self.cores[core].received += 1;
        self.emit(core, event::RECEIVE, wire.flow, wire.word, kind);
    }

    /// The program of a core asks its monitor for something, which takes so many messages at most.
    fn operation(&mut self, origin: usize, left: &mut usize) {
        const KINDS: [u32; 3] = [0x20, 0x32, 0x33];
        let kind = KINDS[self.random.below(3) as usize];
        let number = self.cores[origin].operations;
        let flow = operation_flow(origin as u64, number);
        let word = 0x7000_0000 + self.random.below(1 << 16) * 4096;
        self.cores[origin].operations += 1;

        if self.cores[origin].running == Some(MONITOR) {
            self.blocks(origin, MONITOR, 1);
        }
        self.emit(origin, event::WAKES, 0, 0, PROGRAM);
        self.runs(origin, PROGRAM);
        self.emit(origin, event::USER_BEGIN, USER, number, 0);
        self.emit(origin, event::CALL, 0, word, 36);
        self.emit(origin, event::CALL_DONE, 0, 0, 36);
        self.emit(origin, event::BEGIN, flow, word, kind);
        self.emit(origin, event::LRPC_CALL, 0, u64::from(kind), MONITOR);
        self.blocks(origin, PROGRAM, 2);
        self.runs(origin, MONITOR);
        self.emit(origin, event::STEP, flow, word, kind);

        let others = self.cores.len() - 1;
        let asked = 1 + self.random.below(others.clamp(1, 4) as u64) as usize;
        let first = self.random.below(others.max(1) as u64) as usize;
        let mut requests = Vec::new();
        for peer in 0..asked.min(*left) {
            let to = match others {
                0 => 0,
                _ => (origin + 1 + (first + peer) % others) % self.cores.len(),
            };
            *left -= 1;
            requests.push((to, self.send(origin, to, REQUEST, word)));
        }
        self.blocks(origin, MONITOR, 1);
        self.idle(origin);

        let mut answers = Vec::new();
        for (to, request) in &requests {
            self.receive(*to, request, REQUEST);
            self.emit(*to, event::STEP, flow, word, REQUEST);
            self.cores[*to].now += self.random.below(200);
            self.emit(*to, event::UNMAP, 0, word, 1);
            if *left > 0 {
                *left -= 1;
                answers.push(self.send(*to, origin, ANSWER, word));
            }
            self.blocks(*to, MONITOR, 1);
            self.idle(*to);
        }
        answers.sort_by_key(|one| one.arrives);
        for answer in &answers {
            self.receive(origin, answer, ANSWER);
            self.emit(origin, event::STEP, flow, word, ANSWER);
        }

        self.arrives(origin, 0);
        self.emit(origin, event::LRPC_REPLY, 0, 0, PROGRAM);
        self.blocks(origin, MONITOR, 3);
        self.emit(origin, event::WAKES, 0, 0, PROGRAM);
        self.runs(origin, PROGRAM);
        self.emit(origin, event::END, flow, 0, kind);
        self.emit(origin, event::USER_END, USER, number, 0);
        if number.is_multiple_of(4) {
            self.emit(origin, event::USER_EVENT, USER, number, 0);
        }
        self.blocks(origin, PROGRAM, 1);
        self.idle(origin);
    }

    /// Core 0 asks each other core for its time.
    fn exchange(&mut self, first: u64) {
        for core in 1..self.cores.len() {
            for number in first..first + EXCHANGES {
                self.arrives(0, 0);
                self.emit(0, event::PING, 0, number, core as u32);
                let there = WIRE + self.random.below(1000);
                let back = WIRE + self.random.below(1000);
                // A core that is ahead of core 0 answers when it comes to that.
                let now = self.cores[0].now + there;
                self.arrives(core, now);
                self.emit(core, event::PONG, 0, number, 0);
                let now = self.cores[core].now + back;
                self.arrives(0, now);
                self.emit(0, event::PANG, 0, number, core as u32);
            }
        }
    }

    fn finish(self, messages: usize) -> Recording {
        let core = |(number, state): (usize, &State)| Core {
            core: number as u32,
            socket: (number / 8) as u32,
            written: state.records.len() as u64,
            records: state.records.len() as u64,
            sent: state.sent,
            received: state.received,
            switches: state.switches,
            ..Core::default()
        };
        let cores: Vec<Core> = self.cores.iter().enumerate().map(core).collect();
        Recording {
            header: Header {
                version: 1,
                revision: "sample".into(),
                accelerator: "icount".into(),
                command: format!("sample of {} cores, {messages} messages", cores.len()),
                program: "sample".into(),
                hz: 1_000_000_000,
                is_exact: true,
                users: vec![User {
                    program: "sample".into(),
                    address: USER,
                    name: "rounds".into(),
                    text: "{value} of them".into(),
                }],
                cores,
                ..Header::default()
            },
            records: self.cores.into_iter().map(|one| one.records).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(recording: &Recording, number: u16) -> usize {
        let records = recording.records.iter().flatten();
        records.filter(|one| one.event() == number).count()
    }

    #[test]
    fn has_as_many_messages_as_were_asked_for() {
        for (cores, messages) in [(1, 7), (2, 1), (3, 100), (16, 999)] {
            let one = recording(cores, messages, 1);
            assert_eq!(count(&one, event::SEND), messages);
            assert_eq!(count(&one, event::RECEIVE), messages);
            assert_eq!(one.records.len(), cores);
        }
    }

    #[test]
    fn is_the_same_for_a_seed_and_only_for_that() {
        assert_eq!(recording(4, 200, 5), recording(4, 200, 5));
        assert_ne!(recording(4, 200, 5), recording(4, 200, 6));
    }

    #[test]
    fn time_goes_on_on_each_core() {
        for one in [recording(5, 500, 2), skewed(5, 500, 2)] {
            for records in &one.records {
                assert!(records.is_sorted_by_key(|one| one.tsc));
            }
        }
    }
}
