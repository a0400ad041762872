//! What a run is recorded on: [`trace::Record`]s as a system would have written them, one ring a core
//! without end. One nanosecond is one tick, and all clocks are one.
//!
//! Every core has one dispatcher, its monitor. It runs while the core is busy. A message belongs to
//! the operation that it was sent for: whatever a monitor does with it, it does for that one, and so
//! it does what its timer is for. Channels have the addresses of rings that nobody has, one for each
//! sender and receiver.

use std::collections::{BTreeMap, BTreeSet};
use trace::{Record, event, lap, message_flow, operation_flow};

/// The handle of each core's dispatcher.
pub const MONITOR: u32 = 1;
/// Bytes between two rings.
const RING: u64 = 4096;
/// More records than any viewer shows, of all cores.
const MAX_RECORDS: u64 = 1 << 26;

/// What a note says of an operation of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It begins.
    Begin {
        /// Its number on this core.
        token: u64,
        /// The kind of request, as the system numbers it.
        kind: u32,
    },
    /// It ends.
    End {
        /// Its number on this core.
        token: u64,
        /// The error; 0: none.
        error: u64,
    },
    /// Nothing is recorded from now on, or all is again.
    Mute(bool),
}

/// Time between two runs on one tape, in nanoseconds.
const BETWEEN_NS: u64 = 10_000;

/// One core's part.
#[derive(Clone, Debug, Default)]
pub struct CoreTape {
    /// In order of time.
    pub records: Vec<Record>,
    /// Messages sent and received.
    pub sent: u64,
    /// As above.
    pub received: u64,
    /// How often the core began to run something after it had been idle.
    pub switches: u64,
    /// Records that there was no room for.
    pub lost: u64,
    /// Until when it is busy; `None`: it never was.
    busy_ns: Option<u64>,
    /// What its timer is for.
    operation: u64,
    /// Its operations that have not ended: kinds by token.
    open: BTreeMap<u64, u32>,
}

/// All cores.
#[derive(Clone, Debug, Default)]
pub struct Tape {
    /// By number.
    pub cores: Vec<CoreTape>,
    /// Messages of each sender and receiver.
    sequences: BTreeMap<(usize, usize), u64>,
    /// Operations that have not ended, by flow.
    open: BTreeSet<u64>,
    /// What is being done, of whatever core.
    current: u64,
    /// Runs before this one, and when this one began.
    runs: u64,
    begun_ns: u64,
    end_ns: u64,
    count: u64,
    is_muted: bool,
}

impl Tape {
    /// Of so many cores.
    pub fn new(cores: usize) -> Self {
        let mut tape = Self {
            cores: vec![CoreTape::default(); cores],
            ..Self::default()
        };
        let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
        let name = (word(b"monitor\0"), 0);
        for core in 0..cores {
            tape.write(core, 0, event::MADE, name.0, name.1, MONITOR);
        }
        tape
    }

    /// Records that nobody kept.
    pub fn lost(&self) -> u64 {
        self.cores.iter().map(|core| core.lost).sum()
    }

    fn write(&mut self, core: usize, at_ns: u64, number: u16, flow: u64, value: u64, detail: u32) {
        if self.is_muted {
            return;
        }
        if self.count >= MAX_RECORDS {
            self.cores[core].lost += 1;
            return;
        }
        self.count += 1;
        let at_ns = self.begun_ns + at_ns;
        self.end_ns = self.end_ns.max(at_ns);
        let records = &mut self.cores[core].records;
        let tail = Record::tail(number, lap(0, 1), detail);
        records.push(Record {
            tsc: at_ns,
            flow,
            value,
            tail,
        });
    }

    /// Nothing is recorded from now on, or all is again.
    pub fn mute(&mut self, is_muted: bool) {
        self.is_muted = is_muted;
        for core in &mut self.cores {
            core.busy_ns = None;
        }
    }

    /// The core does something from then on, until then.
    pub fn works(&mut self, core: usize, from_ns: u64, until_ns: u64) {
        if self.is_muted {
            return;
        }
        let it = &mut self.cores[core];
        let busy_ns = it.busy_ns;
        it.busy_ns = Some(until_ns.max(busy_ns.unwrap_or(0)));
        if busy_ns.is_some_and(|busy_ns| from_ns <= busy_ns) {
            return;
        }
        it.switches += 1;
        if let Some(busy_ns) = busy_ns {
            self.write(core, busy_ns, event::IDLE, 0, 0, 0);
        }
        self.write(core, from_ns, event::RUNS, 0, 0, MONITOR);
    }

    /// The core does something for itself: whatever operation its timer is for.
    pub fn ticks(&mut self, core: usize) {
        let operation = self.cores[core].operation;
        self.current = match self.open.contains(&operation) {
            true => operation,
            false => 0,
        };
    }

    /// A message is in its line. Returns its flow and what it is sent for.
    pub fn sends(
        &mut self,
        from: usize,
        to: usize,
        at_ns: u64,
        (kind, word): (u16, u64),
    ) -> (u64, u64) {
        if self.is_muted {
            return (0, 0);
        }
        let sequence = self.sequences.entry((from, to)).or_default();
        let ring = (from * self.cores.len() + to + 1) as u64 * RING;
        let flow = message_flow(ring, *sequence);
        *sequence += 1;
        self.cores[from].sent += 1;
        self.write(from, at_ns, event::SEND, flow, word, kind.into());
        (flow, self.current)
    }

    /// A message was taken out.
    pub fn receives(
        &mut self,
        to: usize,
        at_ns: u64,
        (flow, operation): (u64, u64),
        (kind, word): (u16, u64),
    ) {
        self.current = operation;
        // It was sent when nothing was recorded.
        if flow == 0 {
            return;
        }
        let it = &mut self.cores[to];
        it.received += 1;
        if operation != 0 {
            it.operation = operation;
        }
        self.write(to, at_ns, event::RECEIVE, flow, word, kind.into());
        if operation != 0 {
            self.write(to, at_ns, event::STEP, operation, word, kind.into());
        }
    }

    /// A node tells of an operation.
    pub fn marks(&mut self, core: usize, at_ns: u64, mark: Mark) {
        match mark {
            Mark::Mute(is_muted) => self.mute(is_muted),
            Mark::Begin { token, kind } => {
                let flow = self.operation(core, token);
                self.open.insert(flow);
                self.cores[core].open.insert(token, kind);
                self.write(core, at_ns, event::BEGIN, flow, 0, kind);
                self.current = flow;
                self.cores[core].operation = flow;
            }
            // What never began, or ended before, has no end.
            Mark::End { token, error } => {
                if let Some(kind) = self.cores[core].open.remove(&token) {
                    let flow = self.operation(core, token);
                    self.open.remove(&flow);
                    self.write(core, at_ns, event::END, flow, error, kind);
                }
            }
        }
    }

    fn operation(&self, core: usize, token: u64) -> u64 {
        operation_flow(core as u64, self.runs << 32 | token)
    }

    /// The core does nothing any more: what it would have done later, it has not.
    pub fn stops(&mut self, core: usize, at_ns: u64) {
        let it = &mut self.cores[core];
        let until = self.begun_ns + at_ns;
        let keep = it.records.partition_point(|record| record.tsc <= until);
        for record in it.records.drain(keep..) {
            self.count -= 1;
            match record.event() {
                event::SEND => it.sent -= 1,
                event::RECEIVE => it.received -= 1,
                event::RUNS => it.switches -= 1,
                _ => {}
            }
        }
        it.busy_ns = it.busy_ns.map(|busy_ns| busy_ns.min(at_ns));
    }

    /// The run is over; another one would begin some time later.
    pub fn end(&mut self) {
        for core in 0..self.cores.len() {
            if let Some(busy_ns) = self.cores[core].busy_ns.take() {
                self.write(core, busy_ns, event::IDLE, 0, 0, 0);
            }
            self.cores[core].operation = 0;
            self.cores[core].open.clear();
        }
        self.open.clear();
        self.current = 0;
        self.runs += 1;
        self.begun_ns = self.end_ns + BETWEEN_NS;
    }
}
