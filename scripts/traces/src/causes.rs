//! What an operation waited for: its chain across cores, its critical path.
//!
//! A dispatcher works on one message at a time: what it sends between two that it takes is caused by the
//! first. So the messages form a forest, the cause of each being the one that its sender had taken
//! last. The **critical path** of an operation is walked back from its end: what had its dispatcher
//! taken last, what had the sender of that taken last, and so on to the operation's begin. The hops
//! follow each other without gap or overlap, and each moment of a hop has one [`Cause`]:
//!
//! ```text
//!  sender   ──work──┐ sent                                              time ──►
//!                   ╎wire╎  sleep  ╎ queue ╎ received
//!  receiver         ╎    (does not run)    └───work───┬─other─┬─work──► sends the next
//! ```
//!
//! A message that had to wait for room at its sender counts from when it was to be sent ([`event::STEP`] with
//! the message's flow says so), and that is *queue* too. Where a domain got its answer without a message,
//! the last step that a monitor took for its operation is what let it go on.
//!
//! *Wire* is the smallest delay that the channel had (where it carried few messages: that any between
//! cores had); on one core there is none. Sums along the forest and links across it make the
//! figures of an operation a matter of log n.

use crate::model::{Model, Operation, Step};
use std::collections::HashMap;
use times::Stretches;
use trace::SEQUENCE_BITS;
#[cfg(doc)]
use trace::event;

mod times;

pub use times::{Cause, Shares};

/// Messages from which on a channel's smallest delay is taken for its own.
const ENOUGH: u64 = 4;
/// No message, no operation.
const NONE: u32 = u32::MAX;

/// Who.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Its core.
    pub core: u32,
    /// An index into [`Model::dispatchers`]; `None`: not known.
    pub dispatcher: Option<usize>,
}

/// A piece of a critical path: a message, and what its receiver did until it sent the next of the path,
/// or until the operation's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// An index into [`Model::messages`]; `None`: the first piece, where no message came in.
    pub message: Option<usize>,
    /// Who sent it.
    pub from: Place,
    /// Who took it, and went on.
    pub to: Place,
    /// When it was to be sent; not before the operation began.
    pub begin: u64,
    /// When it was taken.
    pub received: u64,
    /// When the next was sent.
    pub end: u64,
    /// Time from `begin` to `received`.
    pub way: Shares,
    /// Time from `received` to `end`.
    pub stay: Shares,
}

/// What caused what.
pub struct Causes<'a> {
    model: &'a Model,
    /// By core number: where it is in `busy`.
    cores: HashMap<u32, usize>,
    /// By core: when anybody ran there.
    busy: Vec<Stretches>,
    /// By dispatcher: when it ran.
    own: Vec<Stretches>,
    /// By place: the messages it took, in that order.
    taken: Vec<Vec<u32>>,
    /// By message: when it was to be sent, which may be before there was room for it.
    meant: Vec<u64>,
    /// By message: when it was taken, not before it was sent.
    received: Vec<u64>,
    /// By message: how long it was on the wire.
    wire: Vec<u64>,
    /// By message: its cause.
    cause: Vec<u32>,
    /// By message: some cause of its cause, further back, so that a walk takes log n steps.
    jump: Vec<u32>,
    /// By message: how many causes there are before it.
    depth: Vec<u32>,
    /// By message: time of its chain until it was taken.
    total: Vec<Shares>,
    /// By operation: the last step of others for it, when and where.
    steps: Vec<Option<(u64, Place)>>,
    /// Messages by the operation that caused them, and where in that those of each begin.
    caused: (Vec<u32>, Vec<usize>),
}

impl<'a> Causes<'a> {
    /// Works it out: n log n in the messages.
    pub fn of(model: &'a Model) -> Self {
        let mut causes = Self {
            model,
            cores: HashMap::new(),
            busy: Vec::new(),
            own: vec![Stretches::default(); model.dispatchers.len()],
            taken: Vec::new(),
            meant: Vec::new(),
            received: Vec::new(),
            wire: Vec::new(),
            cause: Vec::new(),
            jump: Vec::new(),
            depth: Vec::new(),
            total: Vec::new(),
            steps: Vec::new(),
            caused: (Vec::new(), Vec::new()),
        };
        causes.find_cores();
        causes.find_stretches();
        causes.find_wires();
        causes.find_steps();
        causes.find_takers();
        let owners = causes.link();
        causes.group(&owners);
        causes
    }

    /// How the time of an operation went by; the sum is its length. `None`: it has no end.
    pub fn shares(&self, operation: usize) -> Option<Shares> {
        let (mut shares, mut walk) = (Shares::default(), self.begin_walk(operation)?);
        let begin = walk.begin;
        if let Some(step) = walk.step_back(self) {
            shares += step.stay;
        }
        let Some(last) = self.last_taken(walk.place, walk.end, begin) else {
            return Some(shares + self.stay(walk.place, begin, walk.end));
        };
        let first = self.first_after(last, begin);
        shares += self.stay(walk.place, self.received[last], walk.end);
        shares += self.total[last] - self.total[first];
        shares += self.way(first, begin);
        let meant = self.meant[first];
        if meant > begin {
            shares += self.stay(self.sender(first), begin, meant);
        }
        Some(shares)
    }

    /// How many hops the critical path of an operation has at most; 0: it has no end.
    pub fn hops(&self, operation: usize) -> usize {
        let Some(mut walk) = self.begin_walk(operation) else {
            return 0;
        };
        let step = usize::from(walk.step_back(self).is_some());
        let Some(last) = self.last_taken(walk.place, walk.end, walk.begin) else {
            return step + 1;
        };
        let first = self.first_after(last, walk.begin);
        step + (self.depth[last] - self.depth[first]) as usize + 2
    }

    /// The critical path of an operation, from its begin on. `None`: it has no end.
    pub fn path(&self, operation: usize) -> Option<Vec<Hop>> {
        let mut walk = self.begin_walk(operation)?;
        let begin = walk.begin;
        let mut hops = Vec::new();
        hops.extend(walk.step_back(self));
        let Walk {
            mut who,
            mut place,
            mut end,
            ..
        } = walk;
        let mut next = self.last_taken(place, end, begin);
        while let Some(at) = next {
            let message = &self.model.messages[at];
            let from = Place {
                core: message.from,
                dispatcher: message.sender,
            };
            hops.push(Hop {
                message: Some(at),
                from,
                to: who,
                begin: self.meant[at].max(begin),
                received: self.received[at],
                end,
                way: self.way(at, begin),
                stay: self.stay(place, self.received[at], end),
            });
            (end, who, place) = (self.meant[at].max(begin), from, self.sender(at));
            next = self.cause_of(at).filter(|one| self.received[*one] > begin);
        }
        if end > begin || hops.is_empty() {
            hops.push(Hop {
                message: None,
                from: who,
                to: who,
                begin,
                received: begin,
                end,
                way: Shares::default(),
                stay: self.stay(place, begin, end),
            });
        }
        hops.reverse();
        Some(hops)
    }

    /// The messages that an operation caused, in the order they were sent: those that its dispatcher
    /// sent while no later operation of it was under way, what monitors sent after a step for it, and what
    /// came of them. What others send
    /// after its end counts only where they ran on since they had taken the cause: monitors that
    /// wake up later do so for reasons of their own.
    pub fn messages(&self, operation: usize) -> &[u32] {
        let (all, starts) = &self.caused;
        match (starts.get(operation), starts.get(operation + 1)) {
            (Some(from), Some(to)) => &all[*from..*to],
            _ => &[],
        }
    }

    /// The cause of a message: what its sender had taken last.
    pub fn cause_of(&self, message: usize) -> Option<usize> {
        let cause = *self.cause.get(message)?;
        (cause != NONE).then_some(cause as usize)
    }

    fn find_cores(&mut self) {
        let model = self.model;
        let dispatchers = model.dispatchers.iter().map(|one| one.core);
        let running = model.running.iter().map(|one| one.core);
        let messages = model.messages.iter().flat_map(|one| [one.from, one.to]);
        let operations = model.operations.iter().map(|one| one.core);
        let steps = model.steps.iter().map(|one| one.core);
        let all = dispatchers.chain(running).chain(messages);
        for core in all.chain(operations).chain(steps) {
            let next = self.cores.len();
            self.cores.entry(core).or_insert(next);
        }
        self.busy = vec![Stretches::default(); self.cores.len()];
        self.taken = vec![Vec::new(); model.dispatchers.len() + self.cores.len()];
    }

    fn find_stretches(&mut self) {
        let mut running: Vec<_> = self.model.running.iter().collect();
        running.sort_by_key(|one| (one.core, one.begin));
        let mut last = None;
        for one in running {
            let from = match last {
                Some((core, end)) if core == one.core => one.begin.max(end),
                _ => one.begin,
            };
            if one.end > from {
                last = Some((one.core, one.end));
                self.busy[self.cores[&one.core]].push(from, one.end);
                let dispatcher = self.model.dispatchers.get(one.dispatcher);
                if dispatcher.is_some_and(|it| it.core == one.core) {
                    self.own[one.dispatcher].push(from, one.end);
                }
            }
        }
    }

    fn find_wires(&mut self) {
        let messages = &self.model.messages;
        self.received = messages
            .iter()
            .map(|one| one.received.max(one.sent))
            .collect();
        let mut least: HashMap<u64, (u64, u64)> = HashMap::new();
        let mut least_of_all = u64::MAX;
        for (one, received) in messages.iter().zip(&self.received) {
            let delay = received - one.sent;
            let channel = least
                .entry(one.flow >> SEQUENCE_BITS)
                .or_insert((0, u64::MAX));
            *channel = (channel.0 + 1, channel.1.min(delay));
            if one.from != one.to {
                least_of_all = least_of_all.min(delay);
            }
        }
        let wire = messages.iter().map(|one| {
            let (count, least) = least[&(one.flow >> SEQUENCE_BITS)];
            match one.from == one.to {
                true => 0,
                false if count < ENOUGH => least_of_all,
                false => least,
            }
        });
        self.wire = wire.collect();
    }

    /// What the steps say of messages that had to wait, and of operations.
    fn find_steps(&mut self) {
        let model = self.model;
        let mut waiting: HashMap<u64, Vec<&Step>> = HashMap::new();
        for step in model
            .steps
            .iter()
            .filter(|step| !is_operation(step.flow) && step.flow != 0)
        {
            waiting.entry(step.flow).or_default().push(step);
        }
        let meant = model.messages.iter().map(|one| {
            let steps = waiting.get(&one.flow).map_or(&[][..], Vec::as_slice);
            let last = steps.partition_point(|step| step.at <= one.sent);
            let step = last.checked_sub(1).map(|at| steps[at]);
            step.filter(|step| (step.core, step.dispatcher) == (one.from, one.sender))
                .map_or(one.sent, |step| step.at)
        });
        self.meant = meant.collect();
        let mut taken: HashMap<u64, Vec<(u64, Place)>> = HashMap::new();
        for step in model.steps.iter().filter(|step| is_operation(step.flow)) {
            let place = Place {
                core: step.core,
                dispatcher: step.dispatcher,
            };
            taken.entry(step.flow).or_default().push((step.at, place));
        }
        let steps = model.operations.iter().map(|one| {
            let (begin, end) = bounds(one)?;
            let steps = taken.get(&one.flow)?;
            let count = steps.partition_point(|(at, _)| *at <= end);
            let (at, place) = steps[count.checked_sub(1)?];
            let is_own = (place.core, place.dispatcher) == (one.core, one.dispatcher);
            (at > begin && !is_own).then_some((at, place))
        });
        self.steps = steps.collect();
    }

    /// Who took which messages.
    fn find_takers(&mut self) {
        let mut all: Vec<u32> = (0..self.received.len() as u32).collect();
        all.sort_by_key(|one| (self.received[*one as usize], *one));
        for one in all {
            let place = self.receiver(one as usize);
            self.taken[place].push(one);
        }
    }

    /// Links messages to their causes, and says which operation each belongs to.
    fn link(&mut self) -> Vec<u32> {
        let model = self.model;
        let count = model.messages.len();
        let numbered = model.operations.iter().zip(0u32..);
        let numbers: HashMap<u64, u32> = numbered.map(|(one, at)| (one.flow, at)).collect();
        // The last step for an operation, by place.
        let mut last: Vec<Option<(u64, u32)>> = vec![None; self.taken.len()];
        let mut steps = model.steps.iter().peekable();
        // Operations that have begun, by place, the last on top; those that have ended are taken off
        // when they come to the top.
        let mut open: Vec<Vec<u32>> = vec![Vec::new(); self.taken.len()];
        let mut begins = model.operations.iter().enumerate().peekable();
        let mut owners = vec![NONE; count];
        for (at, message) in model.messages.iter().enumerate() {
            while let Some((number, one)) = begins.next_if(|(_, one)| one.begin <= message.sent) {
                open[self.index(one.core, one.dispatcher)].push(number as u32);
            }
            let place = self.sender(at);
            // What was taken at that very moment counts if it was sent before this.
            let taken = &self.taken[place];
            let now = (self.meant[at], at as u32);
            let count = taken.partition_point(|one| (self.received[*one as usize], *one) < now);
            let cause = match count.checked_sub(1).map(|last| taken[last]) {
                Some(cause) if (cause as usize) < at => cause,
                _ => NONE,
            };
            while let Some(step) = steps.next_if(|step| step.at <= now.0) {
                if let Some(operation) = numbers.get(&step.flow) {
                    last[self.index(step.core, step.dispatcher)] = Some((step.at, *operation));
                }
            }
            let taken = match cause {
                NONE => (0, NONE),
                cause => (self.received[cause as usize], owners[cause as usize]),
            };
            let stepped = last[place].filter(|(at, _)| *at >= taken.0 && *at <= now.0);
            let before = stepped.unwrap_or(taken);
            owners[at] = self.owner(message.sent, place, before, &mut open[place]);
            self.add(at, place, cause);
        }
        owners
    }

    /// The operation that a message which is sent now belongs to: one of its sender's own, or that which the
    /// sender was at work for, and since when.
    fn owner(
        &self,
        sent: u64,
        place: usize,
        (since, before): (u64, u32),
        open: &mut Vec<u32>,
    ) -> u32 {
        let operations = &self.model.operations;
        let has_ended = |one: &mut u32| operations[*one as usize].end.is_some_and(|end| end < sent);
        while open.pop_if(has_ended).is_some() {}
        if let Some(own) = open.last() {
            return *own;
        }
        let Some(operation) = operations.get(before as usize) else {
            return NONE;
        };
        let goes_on = || {
            let own = self.own.get(place);
            place != self.index(operation.core, operation.dispatcher)
                && own.is_some_and(|own| own.is_same(since, sent))
        };
        match operation.end {
            Some(end) if end < sent && !goes_on() => NONE,
            _ => before,
        }
    }

    /// Enters a message into the forest.
    fn add(&mut self, at: usize, place: usize, cause: u32) {
        let mut total = self.way(at, 0);
        if cause == NONE {
            self.jump.push(at as u32);
            self.depth.push(0);
        } else {
            let before = cause as usize;
            let meant = self.meant[at];
            total += self.total[before] + self.stay(place, self.received[before], meant);
            let jump = self.jump[before] as usize;
            let further = self.jump[jump] as usize;
            let is_even =
                self.depth[before] - self.depth[jump] == self.depth[jump] - self.depth[further];
            self.jump.push(if is_even { further as u32 } else { cause });
            self.depth.push(self.depth[before] + 1);
        }
        self.cause.push(cause);
        self.total.push(total);
    }

    fn group(&mut self, owners: &[u32]) {
        let mut starts = vec![0; self.model.operations.len() + 1];
        for owner in owners.iter().filter(|owner| **owner != NONE) {
            starts[*owner as usize + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut next = starts.clone();
        let mut all = vec![0; starts[starts.len() - 1]];
        for (message, owner) in owners.iter().enumerate() {
            if *owner != NONE {
                let place = &mut next[*owner as usize];
                all[*place] = message as u32;
                *place += 1;
            }
        }
        self.caused = (all, starts);
    }

    /// A place's number: dispatchers first, then for each core who is not known.
    fn index(&self, core: u32, dispatcher: Option<usize>) -> usize {
        let dispatchers = self.own.len();
        match dispatcher {
            Some(dispatcher) if dispatcher < dispatchers => dispatcher,
            _ => dispatchers + self.cores[&core],
        }
    }

    fn sender(&self, message: usize) -> usize {
        let message = &self.model.messages[message];
        self.index(message.from, message.sender)
    }

    fn receiver(&self, message: usize) -> usize {
        let message = &self.model.messages[message];
        self.index(message.to, message.receiver)
    }

    /// What a place had taken last by some time, if that was after an operation's begin.
    fn last_taken(&self, place: usize, by: u64, begin: u64) -> Option<usize> {
        let taken = &self.taken[place];
        let count = taken.partition_point(|one| self.received[*one as usize] <= by);
        let last = *taken.get(count.checked_sub(1)?)? as usize;
        (self.received[last] > begin).then_some(last)
    }

    /// The first of a message's chain that was taken after a time, as that message was.
    fn first_after(&self, message: usize, begin: u64) -> usize {
        let mut at = message;
        while let Some(cause) = self.cause_of(at) {
            let jump = self.jump[at] as usize;
            if self.received[jump] > begin {
                at = jump;
            } else if self.received[cause] > begin {
                at = cause;
            } else {
                break;
            }
        }
        at
    }

    /// Time of a place, as its own, another's of its core, and idle.
    fn split(&self, place: usize, from: u64, to: u64) -> (u64, u64, u64) {
        let length = to.saturating_sub(from);
        let core = match self.own.get(place) {
            Some(_) => self.cores[&self.model.dispatchers[place].core],
            None => place - self.own.len(),
        };
        let busy = &self.busy[core];
        if busy.all.is_empty() || length == 0 {
            return (length, 0, 0); // who ran was not recorded
        }
        let all = busy.until(to) - busy.until(from);
        let own = match self.own.get(place) {
            Some(own) => own.until(to) - own.until(from),
            None => all,
        };
        (own, all.saturating_sub(own), length - all)
    }

    /// Time in which a place had a message.
    fn stay(&self, place: usize, from: u64, to: u64) -> Shares {
        let (work, other, sleep) = self.split(place, from, to);
        Shares([work, 0, sleep, 0, other])
    }

    /// Time of a message between sender and receiver, from some time on.
    fn way(&self, message: usize, from: u64) -> Shares {
        let sent = self.model.messages[message].sent;
        let (meant, received) = (self.meant[message], self.received[message]);
        let mut shares = Shares::default();
        if meant < sent && from < sent {
            let (queue, other, sleep) = self.split(self.sender(message), from.max(meant), sent);
            shares += Shares([0, queue, sleep, 0, other]);
        }
        let from = from.max(sent);
        let there = sent
            .saturating_add(self.wire[message])
            .clamp(from, received.max(from));
        let (queue, other, sleep) = self.split(self.receiver(message), there, received);
        shares + Shares([0, queue, sleep, there - from, other])
    }

    /// The end of an operation, from which its path is walked back.
    fn begin_walk(&self, operation: usize) -> Option<Walk> {
        let one = self.model.operations.get(operation)?;
        let (begin, end) = bounds(one)?;
        Some(Walk {
            operation,
            begin,
            end,
            place: self.index(one.core, one.dispatcher),
            who: Place {
                core: one.core,
                dispatcher: one.dispatcher,
            },
        })
    }
}

/// Where the walk along a path is.
struct Walk {
    operation: usize,
    begin: u64,
    end: u64,
    place: usize,
    who: Place,
}

impl Walk {
    /// Where no message brought the answer: back to the last step for the operation.
    fn step_back(&mut self, causes: &Causes) -> Option<Hop> {
        if causes
            .last_taken(self.place, self.end, self.begin)
            .is_some()
        {
            return None;
        }
        let (at, from) = (*causes.steps.get(self.operation)?)?;
        let hop = Hop {
            message: None,
            from,
            to: self.who,
            begin: at,
            received: at,
            end: self.end,
            way: Shares::default(),
            stay: causes.stay(self.place, at, self.end),
        };
        self.place = causes.index(from.core, from.dispatcher);
        (self.end, self.who) = (at, from);
        Some(hop)
    }
}

/// Whether a flow is that of an operation.
fn is_operation(flow: u64) -> bool {
    flow >> 63 == 1
}

/// Begin and end of an operation that has one.
fn bounds(operation: &Operation) -> Option<(u64, u64)> {
    let end = operation.end?;
    Some((operation.begin.min(end), end))
}

#[cfg(test)]
pub(crate) mod tests;
