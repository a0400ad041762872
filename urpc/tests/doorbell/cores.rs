//! What a core runs, and each step of it: one access of shared memory and what the core does by
//! itself until the next one.

use std::collections::VecDeque;

use urpc::{Sequence, Wait};

/// Slots of every channel here: the least, so that few messages make a lap. Each message is
/// acknowledged, since a quarter of this is one.
pub const SLOTS: u8 = 4;
/// The bits of `asleep` that say what is waited for.
pub const WAIT_MASK: u8 = 3;

/// A word that one end writes and the other reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Word {
    /// Of this slot: the number of the message, from 1.
    Control(u8),
    /// How many messages.
    Acknowledged,
    /// As in the code.
    Asleep,
}

/// What a step does that others can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Load(Word, u8),
    Store(Word, u8),
    Fence,
    Ring,
    Wait,
}

/// A call of a program on its only channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    Send,
    Receive,
}

/// What runs on a core.
#[derive(Clone, Debug)]
pub enum Program {
    /// A connection, and what is called on it, each call until it succeeds.
    Connection(Vec<Call>),
    /// Receives on all channels, sends what is in its outboxes, and sleeps for all of them.
    Monitor,
}

/// What is wrong with a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No fence between what it publishes and its look at the peer's `asleep`.
    NoRingFence,
    /// No fence between its announcement and its last look.
    NoSleepFence,
    /// No last look before it waits.
    NoLastLook,
    /// Looks at the peer's `asleep` before it writes the line instead of afterwards.
    LooksFirst,
    /// Gives all its sleeps one number.
    OneNumber,
    /// Its kernel forgets a doorbell for which nobody waits yet.
    NothingPending,
}

/// A core: what it runs, and for each of its ends the half it writes and the core of its peer.
/// The peer writes the half `half ^ 1`.
#[derive(Clone, Debug)]
pub struct Duty {
    pub program: Program,
    pub ends: Vec<(usize, usize)>,
    /// What each outbox of a monitor holds at first.
    pub outbox: u8,
    /// It has filled its rings before anybody runs.
    pub is_full: bool,
    /// How often its wait may end by the clock.
    pub deadlines: u8,
    pub fault: Option<Fault>,
}

/// Where a core is: the access that it makes next, and at which of its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum At {
    Acknowledge(usize, Then),
    Poll(usize),
    Idle(usize, Then),
    Room(usize),
    /// Only of a core that looks first.
    EarlyLook(usize),
    Line(usize),
    RingFence(usize),
    RingLook(usize),
    RingCall(usize),
    Announce(usize),
    SleepFence,
    Look(usize),
    LookRoom(usize),
    Wait,
    Waiting,
    Awake(usize),
    Done,
}

/// On whose behalf a step is taken that several calls have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Then {
    Receive,
    Send,
    Ring,
    Sleep,
}

/// What an end keeps to itself: the fields of `Channel` and `Doorbell`, sequences as numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct End {
    pub send_next: u8,
    pub acknowledged_by_peer: u8,
    pub receive_next: u8,
    pub acknowledged_by_us: u8,
    pub asleep: u8,
    pub answered: u8,
    pub doorbell_sent: u8,
    pub doorbell_acknowledged: u8,
    /// Messages that wait to be sent, of a monitor.
    pub outbox: u8,
    /// What a core that looks first has seen.
    pub seen: u8,
}

/// What waits in a store buffer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pending {
    Store(usize, Word, u8),
    /// An interrupt command, for that core.
    Ring(usize),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Core {
    pub at: At,
    /// Which call of a connection is under way.
    pub call: u8,
    /// The call can not succeed yet; or the monitor has moved nothing this time round.
    pub is_idle: bool,
    pub ends: Vec<End>,
    pub buffer: VecDeque<Pending>,
    /// Interrupts on the way here.
    pub under_way: u8,
    /// The interrupt is at the local APIC.
    pub requested: bool,
    /// The kernel has a doorbell that nobody waited for.
    pub pending: bool,
    pub deadlines: u8,
}

/// What one end writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lines {
    pub control: [u8; SLOTS as usize],
    pub acknowledged: u8,
    pub asleep: u8,
}

pub fn slot(message: u8) -> u8 {
    Sequence::nth(u64::from(message)).slot(SLOTS.into()) as u8
}

pub fn covers(waits: u8, wait: Wait) -> bool {
    waits & wait as u8 != 0
}

impl Lines {
    pub fn word(&mut self, word: Word) -> &mut u8 {
        match word {
            Word::Control(slot) => &mut self.control[usize::from(slot)],
            Word::Acknowledged => &mut self.acknowledged,
            Word::Asleep => &mut self.asleep,
        }
    }
}

impl End {
    fn known_room(&self) -> u8 {
        self.acknowledged_by_peer + SLOTS - 1 - self.send_next
    }

    /// An acknowledgement is.
    pub fn is_due(&self) -> bool {
        self.receive_next == self.acknowledged_by_us + SLOTS / 4
    }

    pub fn has_published(&self) -> bool {
        self.doorbell_sent != self.send_next
            || self.doorbell_acknowledged != self.acknowledged_by_us
    }
}

impl Core {
    pub fn new(duty: &Duty) -> Self {
        let end = End {
            outbox: duty.outbox,
            ..End::default()
        };
        Self {
            at: At::Done,
            call: 0,
            is_idle: true,
            ends: vec![end; duty.ends.len()],
            buffer: VecDeque::new(),
            under_way: 0,
            requested: false,
            pending: false,
            deadlines: duty.deadlines,
        }
    }

    /// The head of the program's loop.
    pub fn begin(&mut self, duty: &Duty) -> At {
        match &duty.program {
            Program::Connection(calls) => {
                self.call += u8::from(!self.is_idle);
                self.is_idle = true;
                match calls.get(usize::from(self.call)) {
                    Some(Call::Send) => self.send(0, duty),
                    Some(Call::Receive) => self.receive(0),
                    None => At::Done,
                }
            }
            Program::Monitor => {
                self.is_idle = true;
                self.receive(0)
            }
        }
    }

    fn receive(&self, end: usize) -> At {
        if self.ends[end].is_due() {
            At::Acknowledge(end, Then::Receive)
        } else {
            At::Poll(end)
        }
    }

    fn has_received(&mut self, end: usize, duty: &Duty) -> At {
        self.is_idle = false;
        match duty.program {
            Program::Connection(_) => self.ring(end, duty),
            Program::Monitor => self.receive(end),
        }
    }

    fn has_found_nothing(&mut self, end: usize, duty: &Duty) -> At {
        match duty.program {
            Program::Monitor if end + 1 < self.ends.len() => self.receive(end + 1),
            Program::Monitor => self.flush(0, duty),
            Program::Connection(_) => self.ring(end, duty),
        }
    }

    fn send(&self, end: usize, duty: &Duty) -> At {
        if self.ends[end].known_room() > 0 {
            match duty.fault {
                Some(Fault::LooksFirst) => At::EarlyLook(end),
                _ => At::Line(end),
            }
        } else if self.ends[end].is_due() {
            At::Acknowledge(end, Then::Send)
        } else {
            At::Room(end)
        }
    }

    /// What a monitor does with each end once it has received; then sleep, or the next call.
    fn flush(&mut self, end: usize, duty: &Duty) -> At {
        match self.ends.get(end) {
            Some(this) if this.outbox > 0 => self.send(end, duty),
            Some(_) => self.ring(end, duty),
            None if self.is_idle => At::Announce(0),
            None => self.begin(duty),
        }
    }

    fn ring(&mut self, end: usize, duty: &Duty) -> At {
        if self.ends[end].is_due() {
            At::Acknowledge(end, Then::Ring)
        } else if !self.ends[end].has_published() {
            self.flush(end + 1, duty)
        } else if duty.fault == Some(Fault::NoRingFence) {
            At::RingLook(end)
        } else {
            At::RingFence(end)
        }
    }

    fn waits_for(&self, end: usize, duty: &Duty) -> Wait {
        match &duty.program {
            Program::Connection(calls) => match calls[usize::from(self.call)] {
                Call::Send => Wait::Room,
                Call::Receive => Wait::Message,
            },
            Program::Monitor if self.ends[end].outbox > 0 => Wait::MessageOrRoom,
            Program::Monitor => Wait::Message,
        }
    }

    /// `may_sleep` of this end and those behind it.
    fn look(&self, end: usize, duty: &Duty) -> At {
        if end == self.ends.len() || duty.fault == Some(Fault::NoLastLook) {
            At::Wait
        } else if covers(self.waits_for(end, duty) as u8, Wait::Message) {
            At::Look(end)
        } else {
            At::LookRoom(end)
        }
    }

    /// `may_sleep` once no message is there.
    fn look_for_room(&self, end: usize, duty: &Duty) -> At {
        if covers(self.waits_for(end, duty) as u8, Wait::Room) {
            At::LookRoom(end)
        } else {
            self.look(end + 1, duty)
        }
    }

    /// Makes the access at which this core is, and all that it does by itself until the next one.
    pub fn access(&mut self, duty: &Duty, halves: &mut [Lines], is_wrong: &mut bool) -> Access {
        let mut load = |end: usize, word| {
            let value = *halves[duty.ends[end].0 ^ 1].word(word);
            (value, Access::Load(word, value))
        };
        let mut stored = None;
        let (next, access) = match self.at {
            At::Acknowledge(end, then) => {
                let this = &mut self.ends[end];
                this.acknowledged_by_us = this.receive_next;
                stored = Some((end, Word::Acknowledged, this.acknowledged_by_us));
                let next = match then {
                    Then::Receive => At::Poll(end),
                    Then::Send => At::Room(end),
                    Then::Ring | Then::Sleep => self.ring(end, duty),
                };
                (next, None)
            }
            At::Poll(end) | At::Look(end) => {
                let expected = self.ends[end].receive_next + 1;
                let is_last_look = matches!(self.at, At::Look(_));
                let (control, access) = load(end, Word::Control(slot(expected - 1)));
                let next = if control == expected && is_last_look {
                    At::Awake(0)
                } else if control == expected {
                    self.ends[end].receive_next = expected;
                    self.has_received(end, duty)
                } else {
                    *is_wrong |= control != expected.saturating_sub(SLOTS);
                    match (self.ends[end].known_room() <= SLOTS / 2, is_last_look) {
                        (true, true) => At::Idle(end, Then::Sleep),
                        (true, false) => At::Idle(end, Then::Receive),
                        (false, true) => self.look_for_room(end, duty),
                        (false, false) => self.has_found_nothing(end, duty),
                    }
                };
                (next, Some(access))
            }
            At::Idle(end, then) => {
                let (acknowledged, access) = load(end, Word::Acknowledged);
                self.ends[end].acknowledged_by_peer = acknowledged;
                let next = match then {
                    Then::Sleep => self.look_for_room(end, duty),
                    _ => self.has_found_nothing(end, duty),
                };
                (next, Some(access))
            }
            At::Room(end) | At::LookRoom(end) => {
                let (acknowledged, access) = load(end, Word::Acknowledged);
                self.ends[end].acknowledged_by_peer = acknowledged;
                let next = match (self.at, self.ends[end].known_room()) {
                    (At::Room(_), 0) => self.ring(end, duty),
                    (At::Room(_), _) => self.send(end, duty),
                    (_, 0) => self.look(end + 1, duty),
                    _ => At::Awake(0),
                };
                (next, Some(access))
            }
            At::EarlyLook(end) => {
                let (asleep, access) = load(end, Word::Asleep);
                self.ends[end].seen = asleep;
                (At::Line(end), Some(access))
            }
            At::Line(end) => {
                let this = &mut self.ends[end];
                stored = Some((end, Word::Control(slot(this.send_next)), this.send_next + 1));
                this.send_next += 1;
                this.outbox = this.outbox.saturating_sub(1);
                self.is_idle = false;
                let next = match duty.program {
                    Program::Connection(_) => self.ring(end, duty),
                    Program::Monitor => self.flush(end, duty),
                };
                (next, None)
            }
            At::RingFence(end) => (At::RingLook(end), Some(Access::Fence)),
            At::RingLook(end) => {
                let (mut asleep, access) = load(end, Word::Asleep);
                let this = &mut self.ends[end];
                if duty.fault == Some(Fault::LooksFirst) {
                    asleep = this.seen;
                }
                let is_new = |wait, is_new| if is_new { wait as u8 } else { 0 };
                let published = is_new(Wait::Message, this.doorbell_sent != this.send_next)
                    | is_new(
                        Wait::Room,
                        this.doorbell_acknowledged != this.acknowledged_by_us,
                    );
                this.doorbell_sent = this.send_next;
                this.doorbell_acknowledged = this.acknowledged_by_us;
                let next = if asleep & published != 0 && asleep != this.answered {
                    this.answered = asleep;
                    At::RingCall(end)
                } else {
                    self.flush(end + 1, duty)
                };
                (next, Some(access))
            }
            At::RingCall(end) => {
                self.buffer.push_back(Pending::Ring(duty.ends[end].1));
                (self.flush(end + 1, duty), Some(Access::Ring))
            }
            At::Announce(end) => {
                let wait = self.waits_for(end, duty) as u8;
                let this = &mut self.ends[end];
                this.asleep = match duty.fault {
                    Some(Fault::OneNumber) => wait,
                    _ => ((this.asleep | WAIT_MASK) + 1) | wait,
                };
                stored = Some((end, Word::Asleep, this.asleep));
                let next = if end + 1 < self.ends.len() {
                    At::Announce(end + 1)
                } else if duty.fault == Some(Fault::NoSleepFence) {
                    self.look(0, duty)
                } else {
                    At::SleepFence
                };
                (next, None)
            }
            At::SleepFence => (self.look(0, duty), Some(Access::Fence)),
            At::Wait if self.pending => {
                self.pending = false;
                (At::Awake(0), Some(Access::Wait))
            }
            At::Wait => (At::Waiting, Some(Access::Wait)),
            At::Awake(end) => {
                let this = &mut self.ends[end];
                this.asleep &= !WAIT_MASK;
                stored = Some((end, Word::Asleep, this.asleep));
                let next = if end + 1 < self.ends.len() {
                    At::Awake(end + 1)
                } else {
                    self.begin(duty)
                };
                (next, None)
            }
            At::Waiting | At::Done => unreachable!("it can take no step"),
        };
        self.at = next;
        // A core loads only what others write, so no load is answered by this buffer.
        let access = access.or(stored.map(|(end, word, value)| {
            let half = duty.ends[end].0;
            self.buffer.push_back(Pending::Store(half, word, value));
            Access::Store(word, value)
        }));
        access.expect("every step is an access")
    }

    /// Whether the next step touches nothing but this core, opens no step to it that it had not
    /// anyway, and is none that the properties speak of: then its order among the steps of others,
    /// and among what its buffer and its interrupts do, makes no difference.
    pub fn is_unnoticed(&self) -> bool {
        let is_fence = matches!(self.at, At::RingFence(_) | At::SleepFence);
        let is_stored = matches!(self.at, At::RingCall(_) | At::Announce(_) | At::Awake(_));
        is_stored || is_fence && self.buffer.is_empty()
    }

    pub fn can_run(&self) -> bool {
        match self.at {
            At::Waiting | At::Done => false,
            At::RingFence(_) | At::SleepFence => self.buffer.is_empty(),
            _ => true,
        }
    }
}
