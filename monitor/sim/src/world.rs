//! The simulated machine: cores that are busy with one thing at a time, and messages under way.
//!
//! ```text
//!   sender     │■ send ■│                                 busy
//!   flight              ╰── flight + jitter + delay ──╮
//!   receiver                 … polls, or sleeps …     │▒ wake ▒│■ receive ■│■ handle ■│■ send …
//! ```
//!
//! A message that arrives while its receiver is busy waits in the receiver's inbox. A receiver that
//! had nothing to do for as long as it polls sleeps; the sender then rings, which costs both sides
//! time. Messages of a pair arrive in order: flights between two cores take equally long, and where
//! a fault or jitter changes that, the last arrival is kept for as long as it lies ahead. So memory
//! is linear in cores and messages under way.
//!
//! A core that stops or freezes does so in the middle of what it is doing: what it would have sent
//! later is cut off, or comes later. What was sent from or to a core before it was started anew is
//! lost: its channels are new.

use crate::faults::{Fault, Kind, Schedule};
use crate::machine::{Machine, TICK};
use crate::node::{Context, Node, Outcome, Output, Outputs, Protocol};
use crate::queue::{Entry, Queue, Slots};
use crate::random::{Random, TraceHash};
use crate::tape::Tape;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// How often a core is started anew because it was fenced.
const MAX_RESTARTS: u32 = 3;
/// How many of the last events a traced run keeps.
const TRACED: usize = 60;

/// What a run is determined by, its protocol and machine aside.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How many cores there are.
    pub cores: usize,
    /// The seed of all that is random.
    pub seed: u64,
    /// What goes wrong.
    pub schedule: Schedule,
    /// Flights take up to so much longer, in nanoseconds.
    pub jitter_ns: u64,
    /// How long after a fence the core is started anew, and how long until that is tried again, in
    /// nanoseconds.
    pub restart_ns: u64,
    /// How long after the last fault, fence or restart all has to be well, in nanoseconds.
    pub bound_ns: u64,
    /// A run with more events has no end.
    pub max_events: u64,
    /// Whether the last events are kept as text.
    pub is_traced: bool,
}

/// Why a message was not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lost {
    /// Its receiver had stopped.
    Stopped,
    /// Its sender stopped before it was sent.
    Unsent,
    /// Its sender or its receiver was started anew since.
    Renewed,
}

/// What happened, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Things that happened.
    pub events: u64,
    /// Messages sent.
    pub sent: u64,
    /// Messages handed over.
    pub delivered: u64,
    /// Messages that were lost, by [`Lost`].
    pub lost: [u64; 3],
    /// Messages still on their way, or in an inbox.
    pub under_way: u64,
    /// The most messages that were on their way at once.
    pub most_under_way: usize,
    /// Doorbells that woke a core.
    pub doorbells: u64,
    /// Doorbells that did not.
    pub doorbells_lost: u64,
    /// Cores that stopped: by faults, and as others or they themselves wanted.
    pub stops: u64,
    /// Cores that were started anew.
    pub restarts: u64,
}

impl Counts {
    /// Whether every message is accounted for.
    pub fn add_up(&self) -> bool {
        self.sent == self.delivered + self.lost.iter().sum::<u64>() + self.under_way
    }
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When, in nanoseconds.
    pub at_ns: u64,
    /// Which rule, and how.
    pub rule: String,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Report {
    /// Well, or with a rule broken.
    pub outcome: Result<Outcome, Violation>,
    /// Hash of all that happened: equal for equal runs.
    pub hash: u64,
    /// What happened.
    pub counts: Counts,
    /// When it ended, in nanoseconds.
    pub end_ns: u64,
    /// The last events, if the run was traced.
    pub trace: Vec<String>,
    /// All of it, if the run was recorded.
    pub tape: Option<Tape>,
}

/// What is in the queue: small, and the rest in slots.
#[derive(Clone, Copy, Debug)]
enum What {
    /// A message is there.
    Arrive(u32),
    /// A node's own doing takes effect.
    Effect(u32),
    /// The core has time for the next thing.
    Ready(u32),
    /// The core's timer.
    Tick(u32),
    /// A fault by its number.
    Fault(u32),
    /// The core has sent all that it is to send.
    Stop(u32),
    /// A slowness passes.
    Recover(u32),
    /// The core is to be started anew.
    Restart(u32),
}

#[derive(Debug)]
struct Envelope<M> {
    from: u32,
    to: u32,
    from_life: u32,
    to_life: u32,
    /// When the sender was done with it.
    sent_ns: u64,
    /// So much later than in the queue, since the sender froze before it had sent it.
    late_ns: u64,
    /// On the tape: its flow, and what it was sent for.
    flows: (u64, u64),
    message: M,
}

#[derive(Debug)]
struct Effect<N> {
    core: u32,
    life: u32,
    /// Messages that had been sent by then, upkeep aside.
    sent: u64,
    at_ns: u64,
    /// So much later than in the queue, since the core froze before.
    late_ns: u64,
    deed: Deed<N>,
}

#[derive(Debug)]
enum Deed<N> {
    Fence(usize),
    Leave,
    Note(N),
}

#[derive(Debug)]
struct Core<N> {
    /// `None`: it has stopped.
    node: Option<N>,
    /// Counts how often it was started.
    life: u32,
    busy_ns: u64,
    /// Slots of messages that have arrived.
    inbox: VecDeque<u32>,
    /// When [`What::Ready`] comes; `u64::MAX`: not at all.
    ready_ns: u64,
    /// When [`What::Tick`] comes; `u64::MAX`: not at all.
    tick_ns: u64,
    /// A tick is due, after so many messages that came before.
    tick_after: Option<usize>,
    slow: u64,
    slow_until_ns: u64,
    stopped_ns: u64,
    doorbells_to_lose: u32,
    /// It stops after so many messages.
    stop_after: Option<u64>,
    /// Restarts because of a fence.
    restarts: u32,
    restart_is_due: bool,
    /// Who sees to it that it takes part, and that one's life.
    sponsor: Option<(usize, u32)>,
}

impl<N> Core<N> {
    fn is_asleep(&self, at_ns: u64, poll_ns: u64) -> bool {
        self.ready_ns == u64::MAX && at_ns > self.busy_ns.saturating_add(poll_ns)
    }
}

/// Between two cores, as long as it is not what the machine says.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    last_ns: u64,
    by_ns: u64,
    until_ns: u64,
}

type Links = HashMap<u64, Link, BuildHasherDefault<TraceHash>>;

/// A machine with a protocol on it.
pub struct World<P: Protocol> {
    protocol: P,
    machine: Machine,
    setup: Setup,
    random: Random,
    now_ns: u64,
    end_ns: u64,
    queue: Queue<What>,
    cores: Vec<Core<P::Node>>,
    messages: Slots<Envelope<<P::Node as Node>::Message>>,
    effects: Slots<Effect<<P::Node as Node>::Note>>,
    outputs: Outputs<P::Node>,
    links: Links,
    under_way: usize,
    /// Until when the one processor is taken that all cores run on by turns, where there is one.
    taken_ns: u64,
    /// Messages sent, upkeep aside.
    operations: u64,
    counts: Counts,
    hash: TraceHash,
    trace: VecDeque<String>,
    violation: Option<Violation>,
    tape: Option<Box<Tape>>,
}

impl<P: Protocol> World<P> {
    /// All cores start at time 0.
    pub fn new(protocol: P, machine: &Machine, setup: Setup) -> Self {
        Self::recorded(protocol, machine, setup, None)
    }

    /// The same; all that happens is recorded on a tape, after what is there. It changes nothing of
    /// what happens.
    pub fn recorded(mut protocol: P, machine: &Machine, setup: Setup, tape: Option<Tape>) -> Self {
        let cores = (0..setup.cores).map(|core| Core {
            node: Some(protocol.node(core, false)),
            life: 0,
            busy_ns: 0,
            inbox: VecDeque::new(),
            ready_ns: u64::MAX,
            tick_ns: u64::MAX,
            tick_after: None,
            slow: 1,
            slow_until_ns: 0,
            stopped_ns: u64::MAX,
            doorbells_to_lose: 0,
            stop_after: None,
            restarts: 0,
            restart_is_due: false,
            sponsor: None,
        });
        let cores = cores.collect();
        let mut world = Self {
            protocol,
            machine: machine.clone().with_room_for(setup.cores),
            random: Random::new(setup.seed),
            now_ns: 0,
            end_ns: setup.schedule.over_ns().saturating_add(setup.bound_ns),
            queue: Queue::default(),
            cores,
            messages: Slots::default(),
            effects: Slots::default(),
            outputs: Vec::new(),
            links: Links::default(),
            under_way: 0,
            taken_ns: 0,
            operations: 0,
            counts: Counts::default(),
            hash: TraceHash::default(),
            trace: VecDeque::new(),
            violation: None,
            tape: tape.map(Box::new),
            setup,
        };
        for (index, fault) in world.setup.schedule.0.iter().enumerate() {
            world.queue.push(fault.at_ns, What::Fault(index as u32));
        }
        for core in 0..world.cores.len() {
            world.call(core, Node::start);
        }
        world
    }

    /// Runs to the end.
    pub fn run(mut self) -> (P, Report) {
        while self.violation.is_none() && !self.protocol.is_done() {
            let Some(entry) = self.queue.pop().filter(|entry| entry.at_ns <= self.end_ns) else {
                break;
            };
            self.now_ns = entry.at_ns;
            self.step(entry);
            if self.counts.events > self.setup.max_events {
                let most = self.setup.max_events;
                self.violate(format!("no end in sight after {most} events"));
            }
        }
        let outcome = match self.violation.take() {
            Some(violation) => Err(violation),
            None => self.protocol.outcome().map_err(|rule| Violation {
                at_ns: self.now_ns,
                rule,
            }),
        };
        self.counts.under_way = self.under_way as u64;
        let tape = self.tape.take().map(|mut tape| {
            tape.end();
            *tape
        });
        let report = Report {
            tape,
            outcome,
            hash: self.hash.finish(),
            counts: self.counts,
            end_ns: self.now_ns,
            trace: self.trace.into(),
        };
        (self.protocol, report)
    }

    fn step(&mut self, entry: Entry<What>) {
        match entry.what {
            What::Arrive(slot) => self.arrive(slot),
            What::Ready(core) => self.ready(core as usize),
            What::Tick(core) => self.timer(core as usize),
            What::Effect(slot) => self.take_effect(slot),
            What::Fault(index) => self.fault(self.setup.schedule.0[index as usize]),
            What::Stop(core) => {
                let core = core as usize;
                self.record("stops", core, &0, String::new);
                self.stop(core);
            }
            What::Recover(core) => {
                let core = &mut self.cores[core as usize];
                if core.slow_until_ns <= entry.at_ns {
                    core.slow = 1;
                }
            }
            What::Restart(core) => self.restart(core as usize),
        }
    }

    /// Something happened that belongs to the trace.
    fn record(
        &mut self,
        what: &'static str,
        core: usize,
        detail: &impl Hash,
        text: impl Fn() -> String,
    ) {
        self.counts.events += 1;
        self.hash.write_u64(self.now_ns);
        self.hash.write_usize(core);
        what.hash(&mut self.hash);
        detail.hash(&mut self.hash);
        if self.setup.is_traced {
            if self.trace.len() == TRACED {
                self.trace.pop_front();
            }
            let text = format!("{:>12} ns  core {core} {what} {}", self.now_ns, text());
            self.trace.push_back(text);
        }
    }

    fn violate(&mut self, rule: String) {
        let at_ns = self.now_ns;
        self.violation.get_or_insert(Violation { at_ns, rule });
    }

    fn check(&mut self, result: Result<(), String>) {
        if let Err(rule) = result {
            self.violate(rule);
        }
    }

    fn context(&self) -> Context {
        Context {
            now_ns: self.now_ns,
            sent: self.operations,
        }
    }

    /// Not before all is well again, or should be.
    fn disturbed(&mut self) {
        let end_ns = self.now_ns.saturating_add(self.setup.bound_ns);
        self.end_ns = self.end_ns.max(end_ns);
    }

    fn arrive(&mut self, slot: u32) {
        let envelope = self.messages.get_mut(slot);
        let (from, to) = (envelope.from as usize, envelope.to as usize);
        let late_ns = std::mem::take(&mut envelope.late_ns);
        if late_ns > 0 {
            self.queue.push(self.now_ns + late_ns, What::Arrive(slot));
            return;
        }
        let sender = &self.cores[from];
        let receiver = &self.cores[to];
        if sender.life != envelope.from_life || receiver.life != envelope.to_life {
            return self.lose(slot, Lost::Renewed);
        }
        if envelope.sent_ns > sender.stopped_ns {
            return self.lose(slot, Lost::Unsent);
        }
        if receiver.node.is_none() {
            return self.lose(slot, Lost::Stopped);
        }
        let now_ns = self.now_ns;
        let cost = self.machine.cost;
        let core = &mut self.cores[to];
        if core.ready_ns != u64::MAX {
            core.inbox.push_back(slot);
        } else if core.busy_ns > now_ns {
            core.inbox.push_back(slot);
            self.be_ready(to, 0);
        } else if core.is_asleep(now_ns, cost.poll) {
            core.inbox.push_back(slot);
            if core.doorbells_to_lose > 0 {
                core.doorbells_to_lose -= 1;
                self.counts.doorbells_lost += 1;
                self.record("misses its doorbell", to, &from, || {
                    format!("from core {from}")
                });
            } else {
                self.counts.doorbells += 1;
                self.be_ready(to, cost.wake);
            }
        } else {
            self.deliver(slot);
        }
    }

    fn lose(&mut self, slot: u32, why: Lost) {
        let envelope = self.messages.remove(slot);
        self.under_way -= 1;
        self.counts.lost[why as usize] += 1;
        let (from, to) = (envelope.from, envelope.to as usize);
        self.record("does not get", to, &(from, why as u32), || {
            format!("{:?} from core {from}: {why:?}", envelope.message)
        });
    }

    /// The core goes on once it is not busy, `after_ns` from now at the earliest.
    fn be_ready(&mut self, core: usize, after_ns: u64) {
        let it = &mut self.cores[core];
        let at_ns = it.busy_ns.max(self.now_ns.saturating_add(after_ns));
        if at_ns < it.ready_ns {
            it.ready_ns = at_ns;
            self.queue.push(at_ns, What::Ready(core as u32));
        }
    }

    /// The core has time, and goes on for as long as nothing else happens meanwhile.
    fn ready(&mut self, core: usize) {
        if self.cores[core].ready_ns != self.now_ns {
            return;
        }
        self.cores[core].ready_ns = u64::MAX;
        while self.violation.is_none() && self.cores[core].node.is_some() {
            let it = &mut self.cores[core];
            if it.inbox.is_empty() && it.tick_after.is_none() {
                break;
            }
            if it.busy_ns > self.now_ns {
                if it.busy_ns >= self.queue.next_ns() || it.busy_ns > self.end_ns {
                    self.be_ready(core, 0);
                    break;
                }
                self.now_ns = it.busy_ns;
            }
            if it.tick_after == Some(0) {
                it.tick_after = None;
                self.tick(core);
            } else if let Some(slot) = it.inbox.pop_front() {
                it.tick_after = it.tick_after.map(|count| count - 1);
                self.deliver(slot);
            }
        }
    }

    fn deliver(&mut self, slot: u32) {
        let envelope = self.messages.remove(slot);
        self.under_way -= 1;
        self.counts.delivered += 1;
        let (from, to) = (envelope.from as usize, envelope.to as usize);
        let message = envelope.message;
        self.record("gets", to, &(from, &message), || {
            format!("{message:?} from core {from}")
        });
        let label = P::Node::label(&message);
        self.spend(to, self.machine.distance(from, to).receive);
        if let Some(tape) = &mut self.tape {
            tape.receives(to, self.cores[to].busy_ns, envelope.flows, label);
        }
        self.spend(to, self.machine.handle(label.0));
        self.call(to, |node, now_ns, outputs| {
            node.on_message(from, message, now_ns, outputs);
        });
    }

    fn timer(&mut self, core: usize) {
        let it = &mut self.cores[core];
        if it.tick_ns != self.now_ns {
            return;
        }
        it.tick_ns = u64::MAX;
        let Some(deadline_ns) = it.node.as_ref().and_then(Node::deadline_ns) else {
            return;
        };
        if deadline_ns > self.now_ns {
            return self.set_timer(core);
        }
        let wake_ns = match it.is_asleep(self.now_ns, self.machine.cost.poll) {
            true => self.machine.cost.wake,
            false => 0,
        };
        it.tick_after = Some(it.inbox.len());
        self.be_ready(core, wake_ns);
    }

    fn set_timer(&mut self, core: usize) {
        let it = &mut self.cores[core];
        let deadline_ns = it.node.as_ref().and_then(Node::deadline_ns);
        if let Some(deadline_ns) = deadline_ns
            && it.tick_after.is_none()
        {
            let at_ns = deadline_ns.max(it.busy_ns).max(self.now_ns + 1);
            if at_ns < it.tick_ns {
                it.tick_ns = at_ns;
                self.queue.push(at_ns, What::Tick(core as u32));
            }
        }
    }

    fn tick(&mut self, core: usize) {
        self.record("has its time come", core, &0, String::new);
        if let Some(tape) = &mut self.tape {
            tape.ticks(core);
        }
        self.spend(core, self.machine.handle(TICK));
        self.call(core, Node::on_tick);
    }

    /// The core is busy for so long.
    fn spend(&mut self, core: usize, cost_ns: u64) {
        let it = &mut self.cores[core];
        let from_ns = it.busy_ns.max(self.now_ns).max(self.taken_ns);
        it.busy_ns = from_ns + cost_ns * it.slow;
        if self.machine.is_serial {
            self.taken_ns = it.busy_ns;
        }
        if let Some(tape) = &mut self.tape {
            tape.works(core, from_ns, it.busy_ns);
        }
    }

    /// Asks a node, and carries out what it wants.
    fn call(&mut self, core: usize, ask: impl FnOnce(&mut P::Node, u64, &mut Outputs<P::Node>)) {
        let mut outputs = std::mem::take(&mut self.outputs);
        let it = &mut self.cores[core];
        it.busy_ns = it.busy_ns.max(self.now_ns);
        if let Some(node) = &mut it.node {
            ask(node, it.busy_ns, &mut outputs);
        }
        for output in outputs.drain(..) {
            let cost = self.machine.cost;
            match output {
                Output::Send(to, message) => self.send(core, to, message),
                Output::Fence(other) => {
                    self.spend(core, cost.ring);
                    self.effect(core, Deed::Fence(other));
                }
                Output::Work(cost_ns) => self.spend(core, cost_ns),
                Output::Leave => self.effect(core, Deed::Leave),
                Output::Note(note) => {
                    let at_ns = self.cores[core].busy_ns;
                    if let Some(tape) = &mut self.tape
                        && let Some(mark) = P::Node::mark(&note)
                    {
                        tape.works(core, at_ns, at_ns);
                        tape.marks(core, at_ns, mark);
                    }
                    self.effect(core, Deed::Note(note));
                }
            }
        }
        self.outputs = outputs;
        self.set_timer(core);
        let context = self.context();
        if let Some(node) = &self.cores[core].node {
            let result = self.protocol.after(core, node, context);
            self.check(result);
        }
    }

    fn effect(&mut self, core: usize, deed: Deed<<P::Node as Node>::Note>) {
        let it = &self.cores[core];
        let slot = self.effects.insert(Effect {
            core: core as u32,
            life: it.life,
            sent: self.operations,
            at_ns: it.busy_ns,
            late_ns: 0,
            deed,
        });
        self.queue.push(it.busy_ns, What::Effect(slot));
    }

    fn send(&mut self, from: usize, to: usize, message: <P::Node as Node>::Message) {
        if to == from || to >= self.cores.len() {
            return self.violate(format!("core {from} sends to core {to}: {message:?}"));
        }
        let cost = self.machine.cost;
        let distance = *self.machine.distance(from, to);
        let receiver = &self.cores[to];
        let to_life = receiver.life;
        let rings = receiver.is_asleep(self.cores[from].busy_ns, cost.poll);
        self.spend(from, distance.send + if rings { cost.ring } else { 0 });
        let sender = &self.cores[from];
        let sent_ns = sender.busy_ns;
        let mut at_ns = sent_ns + distance.flight;
        if self.setup.jitter_ns > 0 || !self.links.is_empty() {
            at_ns = self.arrival(from, to, sent_ns, at_ns);
        }
        self.counts.sent += 1;
        let flows = match &mut self.tape {
            Some(tape) => tape.sends(from, to, sent_ns, P::Node::label(&message)),
            None => (0, 0),
        };
        if !P::Node::is_upkeep(&message) {
            self.operations += 1;
            if let Some(left) = &mut self.cores[from].stop_after {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.cores[from].stop_after = None;
                    self.queue.push(sent_ns, What::Stop(from as u32));
                }
            }
        }
        self.under_way += 1;
        self.counts.most_under_way = self.counts.most_under_way.max(self.under_way);
        let slot = self.messages.insert(Envelope {
            from: from as u32,
            to: to as u32,
            from_life: self.cores[from].life,
            to_life,
            sent_ns,
            late_ns: 0,
            flows,
            message,
        });
        self.queue.push(at_ns, What::Arrive(slot));
    }

    /// When a message arrives that would at `at_ns` by the machine: later, and in order.
    fn arrival(&mut self, from: usize, to: usize, sent_ns: u64, at_ns: u64) -> u64 {
        let jitter_ns = match self.setup.jitter_ns {
            0 => 0,
            most => self.random.below(most + 1),
        };
        let mut at_ns = at_ns + jitter_ns;
        let key = key(from, to);
        if jitter_ns == 0 && !self.links.contains_key(&key) {
            return at_ns;
        }
        if self.links.len() > 2 * self.under_way + 64 {
            let now_ns = self.now_ns;
            let lasts = |link: &Link| link.last_ns > now_ns || link.until_ns > now_ns;
            self.links.retain(|_, link| lasts(link));
        }
        let link = self.links.entry(key).or_default();
        if sent_ns < link.until_ns {
            at_ns += link.by_ns;
        }
        link.last_ns = at_ns.max(link.last_ns + 1);
        link.last_ns
    }

    fn take_effect(&mut self, slot: u32) {
        let effect = self.effects.get_mut(slot);
        let core = effect.core as usize;
        let it = &self.cores[core];
        if it.life != effect.life || it.node.is_none() {
            self.effects.remove(slot);
            return;
        }
        let late_ns = std::mem::take(&mut effect.late_ns);
        if late_ns > 0 {
            self.queue.push(self.now_ns + late_ns, What::Effect(slot));
            return;
        }
        let Effect { sent, deed, .. } = self.effects.remove(slot);
        let context = Context {
            now_ns: self.now_ns,
            sent,
        };
        match deed {
            Deed::Fence(other) => {
                self.record("fences", core, &other, || format!("core {other}"));
                if other >= self.cores.len() {
                    return self.violate(format!("core {core} fences core {other}"));
                }
                let result = self.protocol.on_fence(other, context);
                self.check(result);
                self.stop(other);
                self.restart_later(other);
            }
            Deed::Leave => {
                self.record("leaves", core, &0, String::new);
                let result = self.protocol.on_fence(core, context);
                self.check(result);
                self.stop(core);
                self.restart_later(core);
            }
            Deed::Note(note) => {
                self.record("says", core, &note, || format!("{note:?}"));
                let result = self.protocol.on_note(core, note, context);
                self.check(result);
            }
        }
    }

    fn stop(&mut self, core: usize) {
        let it = &mut self.cores[core];
        if it.node.take().is_none() {
            return;
        }
        it.stopped_ns = self.now_ns;
        if let Some(tape) = &mut self.tape {
            tape.stops(core, self.now_ns);
        }
        (it.ready_ns, it.tick_ns, it.tick_after) = (u64::MAX, u64::MAX, None);
        self.counts.stops += 1;
        for slot in std::mem::take(&mut it.inbox) {
            self.lose(slot, Lost::Stopped);
        }
        self.protocol.on_stop(core, self.context());
        self.disturbed();
    }

    fn restart_later(&mut self, core: usize) {
        let it = &mut self.cores[core];
        if it.restarts < MAX_RESTARTS && !it.restart_is_due {
            it.restarts += 1;
            it.restart_is_due = true;
            let at_ns = self.now_ns + self.setup.restart_ns;
            self.queue.push(at_ns, What::Restart(core as u32));
            self.disturbed();
        }
    }

    /// Starts a core anew if somebody would have it, and sees to it that it has a sponsor until it
    /// takes part.
    fn restart(&mut self, core: usize) {
        let takes_part = |it: &Core<P::Node>| it.node.as_ref().is_some_and(Node::takes_part);
        if self.cores[core].node.is_some() && takes_part(&self.cores[core]) {
            return;
        }
        let mut others = (0..self.cores.len()).filter(|other| *other != core);
        let Some(sponsor) = others.find(|other| takes_part(&self.cores[*other])) else {
            return;
        };
        let node = self.cores[sponsor].node.as_ref();
        let is_willing = node.is_some_and(|node| node.may_sponsor(core));
        let it = &mut self.cores[core];
        if it.node.is_none() && !it.restart_is_due {
            return;
        }
        if is_willing && it.node.is_none() {
            it.restart_is_due = false;
            it.life += 1;
            it.stopped_ns = u64::MAX;
            it.busy_ns = self.now_ns;
            it.sponsor = None;
            it.stop_after = None;
            it.node = Some(self.protocol.node(core, true));
            self.counts.restarts += 1;
            self.record("is started anew by", core, &sponsor, || {
                format!("core {sponsor}")
            });
            self.protocol.on_restart(core, self.context());
            self.call(core, Node::start);
            self.disturbed();
        }
        let it = &self.cores[core];
        let is_sponsored = it.sponsor.is_some_and(|(sponsor, life)| {
            let sponsor = &self.cores[sponsor];
            sponsor.life == life && sponsor.node.is_some()
        });
        if is_willing && it.node.is_some() && !is_sponsored {
            let life = self.cores[sponsor].life;
            self.cores[core].sponsor = Some((sponsor, life));
            self.record("sponsors", sponsor, &core, || format!("core {core}"));
            self.spend(sponsor, self.machine.cost.handle);
            self.call(sponsor, |node, now_ns, outputs| {
                node.sponsor(core, now_ns, outputs);
            });
        }
        let at_ns = self.now_ns + self.setup.restart_ns.max(1);
        self.queue.push(at_ns, What::Restart(core as u32));
    }

    /// What the core is doing, and what it would have sent by then, comes so much later.
    fn freeze(&mut self, core: usize, for_ns: u64) {
        let now_ns = self.now_ns;
        let it = &mut self.cores[core];
        it.busy_ns = it.busy_ns.max(now_ns) + for_ns;
        let (life, of) = (it.life, core as u32);
        for envelope in self.messages.iter_mut() {
            if envelope.from == of && envelope.from_life == life && envelope.sent_ns > now_ns {
                envelope.sent_ns += for_ns;
                envelope.late_ns += for_ns;
            }
        }
        for effect in self.effects.iter_mut() {
            if effect.core == of && effect.life == life && effect.at_ns > now_ns {
                effect.at_ns += for_ns;
                effect.late_ns += for_ns;
            }
        }
        for (key, link) in &mut self.links {
            if key >> 32 == core as u64 {
                link.last_ns += for_ns;
            }
        }
    }

    fn fault(&mut self, fault: Fault) {
        let named = Schedule(vec![fault]);
        let core = match fault.kind {
            Kind::Stop { core, .. }
            | Kind::Freeze { core, .. }
            | Kind::Slow { core, .. }
            | Kind::LoseDoorbell { core }
            | Kind::Restart { core } => core,
            Kind::Delay { from, .. } => from,
        };
        if fault.at_ns > self.now_ns || core >= self.cores.len() {
            return;
        }
        self.record("meets a fault:", core, &fault, || named.to_string());
        let it = &mut self.cores[core];
        match fault.kind {
            Kind::Stop { after: 0, .. } => self.stop(core),
            Kind::Stop { after, .. } => it.stop_after = Some(after),
            Kind::Freeze { for_ns, .. } => self.freeze(core, for_ns),
            Kind::Slow { factor, for_ns, .. } => {
                it.slow = factor;
                it.slow_until_ns = for_ns.map_or(u64::MAX, |for_ns| self.now_ns + for_ns);
                if for_ns.is_some() {
                    self.queue
                        .push(it.slow_until_ns, What::Recover(core as u32));
                }
            }
            Kind::Delay {
                from,
                to,
                by_ns,
                for_ns,
            } => {
                let link = self.links.entry(key(from, to)).or_default();
                (link.by_ns, link.until_ns) = (by_ns, self.now_ns + for_ns);
            }
            Kind::LoseDoorbell { .. } => it.doorbells_to_lose += 1,
            Kind::Restart { .. } => {
                self.stop(core);
                self.cores[core].restart_is_due = true;
                self.restart(core);
            }
        }
    }
}

fn key(from: usize, to: usize) -> u64 {
    (from as u64) << 32 | to as u64
}
