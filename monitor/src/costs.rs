//! What messages between sockets cost, measured on the machine as it runs.
//!
//! The strategy [`crate::tree::Strategy::Computed`] goes by what a message costs its sender, on its way
//! and its receiver. A core that is asked for it, the *surveyor*, has the lowest core of each socket
//! measure, one after the other, so that no two measurements disturb each other:
//!
//! ```text
//!  surveyor               lowest core of socket s       lowest core of socket t
//!   │ Survey ────────────────►│ Ping {number} ─────────────────►│   the sender knows how long it
//!   │                         │◄────── Pong {number, receive_ns}│   took to send, the receiver how
//!   │                         │   and again, 32 times           │   long to take it
//!   │◄── Measured {t, cost} ──│
//!   │                         │   so with each other socket, and with the second core of its own
//!   │ Survey ──► lowest core of the next socket
//!   │
//!   │  all rows are there: a table, which all get before any settings that name it ([`tables`])
//! ```
//!
//! Of each figure the least counts: what came between costs time and nothing else. The latency is half
//! of the round trip less what both ends are busy for; so a doorbell that wakes the receiver is part
//! of it. What is shorter than the clock can tell counts as one nanosecond.
//!
//! **What cannot be measured is derived**: within a socket of one core, and from and to sockets
//! without a core that is up. Such a pair has the figures that the machine was described with (by
//! its firmware), times what the measured pairs have of theirs, all in all.
//!
//! **A core that stops** answers nothing; the view that follows begins all anew. So a survey ends, as
//! every survey of a view without faults does, after a number of messages that is known before:
//! `2 * PINGS` a pair, and one for each pair and each socket.

pub mod tables;

use crate::core_set::CoreSet;
use crate::kinds;
use crate::tree::{Cost, Machine};
use crate::view::View;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use tables::{pack, unpack};

/// Pings of a pair.
pub const PINGS: u32 = 32;

/// Messages between two monitors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// The sender wants to know what messages from this core to other sockets cost.
    Survey,
    /// To be answered at once.
    Ping {
        /// The sender's number for it.
        number: u32,
    },
    /// The answer.
    Pong {
        /// That number.
        number: u32,
        /// How long it took to receive the ping, in nanoseconds; `None` where that was not measured.
        receive_ns: Option<u32>,
    },
    /// What a message from the sender to a core of this socket costs.
    Measured {
        /// The socket.
        socket: usize,
        /// Each figure is at least 1.
        cost: Cost,
    },
}

/// Kinds of the messages on the wire.
mod kind {
    use crate::kinds;

    pub const SURVEY: u16 = kinds::kind(&kinds::COSTS, 0);
    pub const PING: u16 = kinds::kind(&kinds::COSTS, 1);
    pub const PONG: u16 = kinds::kind(&kinds::COSTS, 2);
    pub const MEASURED: u16 = kinds::kind(&kinds::COSTS, 3);
}

impl Message {
    /// As kind and words; the first word has 32 bits.
    pub fn encode(&self) -> (u16, [u64; 7]) {
        let two = |first: u64, second: u64| [first, second, 0, 0, 0, 0, 0];
        match *self {
            Self::Survey => (kind::SURVEY, two(0, 0)),
            Self::Ping { number } => (kind::PING, two(number.into(), 0)),
            Self::Pong { number, receive_ns } => {
                let receive_ns = receive_ns.map_or(u64::MAX, u64::from);
                (kind::PONG, two(number.into(), receive_ns))
            }
            Self::Measured { socket, cost } => (kind::MEASURED, two(socket as u64, pack(cost))),
        }
    }

    /// From kind and words; `None` for what is no message of surveys.
    pub fn decode(kind: u16, words: &[u64; 7]) -> Option<Self> {
        if !kinds::COSTS.contains(&kind) {
            return None;
        }
        let number = words[0] as u32;
        Some(match kind {
            kind::SURVEY => Self::Survey,
            kind::PING => Self::Ping { number },
            kind::PONG => Self::Pong {
                number,
                receive_ns: u32::try_from(words[1]).ok(),
            },
            kind::MEASURED => Self::Measured {
                socket: words[0] as usize,
                cost: unpack(words[1])?,
            },
            _ => return None,
        })
    }
}

/// What the monitor is to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send a message to a core.
    Send(usize, Message),
    /// Send [`Message::Ping`] to a core and say how long that took: [`Costs::sent`].
    Ping {
        /// The core.
        to: usize,
        /// Of the ping.
        number: u32,
    },
    /// A ping came: say how long it took to receive it, by [`Costs::answer`].
    Answer {
        /// Who sent it.
        to: usize,
        /// Of the ping.
        number: u32,
    },
    /// All costs are known, from each socket to each, row by row.
    Surveyed(Vec<Cost>),
}

/// What a surveyor has so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Survey {
    /// Whose lowest core is measuring.
    socket: usize,
    costs: BTreeMap<(usize, usize), Cost>,
}

/// What a core measures for a surveyor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Row {
    surveyor: usize,
    /// Sockets, and the core of each that is pinged: the first one now.
    targets: VecDeque<(usize, usize)>,
    /// The ping that is under way.
    number: u32,
    /// When it began, and how long it took to send, once that is known.
    sent: Option<(u64, u64)>,
    /// Pings to the present target that were answered.
    answered: u32,
    least: Least,
}

/// The least of each figure, in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Least {
    round_trip: u64,
    send: u64,
    receive: Option<u32>,
}

impl Default for Least {
    fn default() -> Self {
        Self {
            round_trip: u64::MAX,
            send: u64::MAX,
            receive: None,
        }
    }
}

impl Least {
    fn cost(&self) -> Cost {
        let receive = self.receive.map_or(0, u64::from);
        let latency = (self.round_trip / 2).saturating_sub(self.send.saturating_add(receive));
        let known = |ns: u64| u32::try_from(ns).unwrap_or(u32::MAX).max(1);
        Cost {
            send_ns: known(self.send),
            latency_ns: known(latency),
            receive_ns: known(receive),
        }
    }
}

/// One core's part in surveys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Costs {
    own: usize,
    machine: Arc<Machine>,
    view: CoreSet,
    survey: Option<Survey>,
    row: Option<Row>,
    /// Other surveyors that wait for a row.
    waiting: VecDeque<usize>,
    /// The last ping's.
    number: u32,
}

impl Costs {
    /// The part of core `own`, in no view yet. `machine` must be the same on all cores: its sockets
    /// are what is measured, its costs what is derived from.
    pub fn new(own: usize, machine: Arc<Machine>) -> Self {
        Self {
            own,
            machine,
            view: CoreSet::default(),
            survey: None,
            row: None,
            waiting: VecDeque::new(),
            number: 0,
        }
    }

    /// Whether this core is a surveyor now.
    pub fn is_surveying(&self) -> bool {
        self.survey.is_some()
    }

    /// Measures all costs: [`Action::Surveyed`] follows, in this view or a later one. Without effect
    /// while that is under way.
    pub fn survey(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.survey.is_none() {
            self.survey = Some(Survey::default());
            self.ask_next(&mut actions);
        }
        actions
    }

    /// Another view holds: a survey begins anew, and rows are asked for again by who wants them.
    pub fn installed(&mut self, view: &View) -> Vec<Action> {
        self.view = view.cores.clone();
        self.row = None;
        self.waiting.clear();
        match self.survey.take() {
            Some(_) => self.survey(),
            None => Vec::new(),
        }
    }

    /// A message of this view came at `now_ns`. Whatever it says, it makes sense or is left aside.
    pub fn on_message(&mut self, from: usize, message: &Message, now_ns: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        match *message {
            Message::Survey => self.begin_row(from, &mut actions),
            Message::Ping { number } => actions.push(Action::Answer { to: from, number }),
            Message::Pong { number, receive_ns } => {
                self.answered(from, number, receive_ns, now_ns, &mut actions);
            }
            Message::Measured { socket, cost } => self.measured(from, socket, cost, &mut actions),
        }
        actions
    }

    /// A ping was sent: that began at `began_ns` and took `took_ns`.
    pub fn sent(&mut self, number: u32, began_ns: u64, took_ns: u64) -> Vec<Action> {
        if let Some(row) = &mut self.row
            && row.number == number
        {
            row.sent = Some((began_ns, took_ns));
        }
        Vec::new()
    }

    /// It took so long to receive a ping, from taking its line to here; `None`: nobody looked.
    pub fn answer(&mut self, to: usize, number: u32, took_ns: Option<u64>) -> Vec<Action> {
        let receive_ns = took_ns.map(|ns| u32::try_from(ns).unwrap_or(u32::MAX));
        Vec::from([Action::Send(to, Message::Pong { number, receive_ns })])
    }

    /// The core that measures for a socket.
    fn measurer(&self, socket: usize) -> Option<usize> {
        let mut cores = self.view.iter();
        cores.find(|core| self.machine.socket(*core) == socket)
    }

    /// Whom a core pings, by socket.
    fn targets(&self, from: usize) -> VecDeque<(usize, usize)> {
        let mut targets = BTreeMap::new();
        for core in self.view.iter().filter(|core| *core != from) {
            targets.entry(self.machine.socket(core)).or_insert(core);
        }
        targets.into_iter().collect()
    }

    fn ask_next(&mut self, actions: &mut Vec<Action>) {
        while let Some(survey) = &self.survey {
            if survey.socket >= self.machine.socket_count() {
                let costs = completed(&self.machine, &survey.costs);
                self.survey = None;
                actions.push(Action::Surveyed(costs));
                return;
            }
            let measurer = self.measurer(survey.socket);
            match measurer.filter(|core| !self.targets(*core).is_empty()) {
                Some(core) if core == self.own => return self.begin_row(core, actions),
                Some(core) => return actions.push(Action::Send(core, Message::Survey)),
                None => {}
            }
            if let Some(survey) = &mut self.survey {
                survey.socket += 1;
            }
        }
    }

    fn begin_row(&mut self, surveyor: usize, actions: &mut Vec<Action>) {
        if let Some(row) = &self.row {
            if row.surveyor != surveyor && !self.waiting.contains(&surveyor) {
                self.waiting.push_back(surveyor);
            }
            return;
        }
        self.row = Some(Row {
            surveyor,
            targets: self.targets(self.own),
            number: 0,
            sent: None,
            answered: 0,
            least: Least::default(),
        });
        self.ping(actions);
    }

    /// Pings the first target; without one, the row has ended.
    fn ping(&mut self, actions: &mut Vec<Action>) {
        let Some(row) = &mut self.row else {
            return;
        };
        if let Some(&(_, to)) = row.targets.front() {
            self.number = self.number.wrapping_add(1);
            let number = self.number;
            (row.number, row.sent) = (number, None);
            actions.push(Action::Ping { to, number });
            return;
        }
        self.row = None;
        if let Some(next) = self.waiting.pop_front() {
            self.begin_row(next, actions);
        }
    }

    fn answered(
        &mut self,
        from: usize,
        number: u32,
        receive_ns: Option<u32>,
        now_ns: u64,
        actions: &mut Vec<Action>,
    ) {
        let Some(row) = self.row.as_mut().filter(|row| row.number == number) else {
            return;
        };
        let target = row.targets.front().filter(|(_, core)| *core == from);
        let (Some(&(socket, _)), Some((began_ns, took_ns))) = (target, row.sent) else {
            return;
        };
        let least = &mut row.least;
        least.round_trip = least.round_trip.min(now_ns.saturating_sub(began_ns));
        least.send = least.send.min(took_ns);
        least.receive = [least.receive, receive_ns].into_iter().flatten().min();
        row.answered += 1;
        if row.answered < PINGS {
            return self.ping(actions);
        }
        let cost = least.cost();
        let surveyor = row.surveyor;
        row.targets.pop_front();
        (row.answered, row.least) = (0, Least::default());
        // Its last figure comes after the row has ended.
        self.ping(actions);
        if surveyor == self.own {
            self.measured(surveyor, socket, cost, actions);
        } else {
            actions.push(Action::Send(surveyor, Message::Measured { socket, cost }));
        }
    }

    fn measured(&mut self, from: usize, socket: usize, cost: Cost, actions: &mut Vec<Action>) {
        let Some(row) = self.survey.as_ref().map(|survey| survey.socket) else {
            return;
        };
        let targets = self.targets(from);
        let is_due = targets.iter().any(|(of, _)| *of == socket);
        // Nobody else measures now.
        if self.measurer(row) != Some(from) || !is_due {
            return;
        }
        let Some(survey) = &mut self.survey else {
            return;
        };
        survey.costs.insert((row, socket), cost);
        if survey.costs.range((row, 0)..(row + 1, 0)).count() == targets.len() {
            survey.socket += 1;
            self.ask_next(actions);
        }
    }
}

/// All costs, of which some were measured.
fn completed(machine: &Machine, measured: &BTreeMap<(usize, usize), Cost>) -> Vec<Cost> {
    let figures = |cost: Cost| [cost.send_ns, cost.latency_ns, cost.receive_ns].map(u64::from);
    let (mut found, mut described) = ([0; 3], [0; 3]);
    for (&(from, to), cost) in measured {
        let pair = figures(*cost)
            .into_iter()
            .zip(figures(machine.between(from, to)));
        for (index, (one, other)) in pair.enumerate() {
            found[index] += one;
            described[index] += other;
        }
    }
    let derived = |(from, to)| {
        let mut derived = figures(machine.between(from, to));
        for (index, figure) in derived.iter_mut().enumerate() {
            if found[index] > 0 && described[index] > 0 {
                *figure = figure.saturating_mul(found[index]) / described[index];
            }
        }
        let [send_ns, latency_ns, receive_ns] =
            derived.map(|ns| u32::try_from(ns).unwrap_or(u32::MAX).max(1));
        Cost {
            send_ns,
            latency_ns,
            receive_ns,
        }
    };
    let cost = |pair: (usize, usize)| {
        let measured = measured.get(&pair).copied();
        measured.unwrap_or_else(|| derived(pair))
    };
    machine.pairs().map(cost).collect()
}

#[cfg(test)]
mod tests;
