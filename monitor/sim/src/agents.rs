//! Whole agents in the simulator: [`protocols::agent`], as the system runs it, on every core, and
//! beside it what a monitor has to do with, emulated: a *load*.
//!
//! ```text
//!           ┌──────────── node ────────────┐
//!  lines    │ agent ── actions ──► load    │  notes        judge: what the protocol promises,
//! ────────► │   ▲                   │      │ ────────────► and that there is one view
//!           │   └── requests, ends ─┘      │
//!           └──────────────────────────────┘
//! ```
//!
//! A judge goes by notes alone. They take effect in the order in which the node does things, between
//! what it sends before and after: so what is noted on one core and, later, on another may have
//! happened in that order.

use crate::membership::Members;
use crate::node::{Context, Node, Outcome, Output, Outputs, Protocol};
use crate::tape::Mark;
use protocols::agent::{Action, Agent, Line};
use protocols::core_set::{CoreSet, WORDS};
use protocols::costs::tables::{Table, settings_of};
use protocols::kinds;
use protocols::membership::{Membership, Message};
use protocols::tree::{self, Strategy};
use protocols::view::{Epoch, View};
use std::collections::VecDeque;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

/// The most cores that agents can have to do with: a set of more does not fit a line.
pub const MAX_CORES: usize = 64 * WORDS;

/// The number of the table that computed trees go by.
const TABLE: u32 = 1 << 8;

/// What a monitor is to do, and what is to be told of it, in this order.
#[derive(Debug)]
enum Deed<N> {
    Action(Action),
    Note(N),
}

/// What a load acts by.
#[derive(Debug)]
pub struct Hands<'node, N> {
    /// The agent of the core.
    pub agent: &'node mut Agent,
    /// The core's time, in nanoseconds.
    pub now_ns: u64,
    deeds: &'node mut VecDeque<Deed<N>>,
}

impl<N> Hands<'_, N> {
    /// Tells the judge something.
    pub fn note(&mut self, note: N) {
        self.deeds.push_back(Deed::Note(note));
    }
}

/// What a core does beside its agent: programs, and what they know and have.
pub trait Load: Sized {
    /// What it tells its judge.
    type Note: Debug + Hash;

    /// A view holds: the first that this core is in, or another.
    fn installed(&mut self, _hands: &mut Hands<'_, Self::Note>) {}

    /// The agent wants something done; never anything of messages or views.
    fn on_action(&mut self, action: Action, hands: &mut Hands<'_, Self::Note>);

    /// The time that [`Self::deadline_ns`] named is there.
    fn on_tick(&mut self, hands: &mut Hands<'_, Self::Note>);

    /// When [`Self::on_tick`] is due, in nanoseconds.
    fn deadline_ns(&self) -> Option<u64>;

    /// What the judge has to know of the agent's state, where that has changed.
    fn look(&mut self, _agent: &Agent, _notes: &mut Vec<Self::Note>) {}

    /// What a note says of an operation.
    fn mark(_note: &Self::Note) -> Option<Mark> {
        None
    }

    /// Takes what the agent returned: to be done after all that was to be done before.
    fn take(&mut self, actions: Vec<Action>, hands: &mut Hands<'_, Self::Note>) {
        let mut notes = Vec::new();
        self.look(hands.agent, &mut notes);
        let notes = notes.into_iter().map(Deed::Note);
        // Whatever an agent does in a view, it does after it fenced whom it leaves out.
        let installs = |action: &Action| matches!(action, Action::Installed(_));
        let at = actions.iter().rposition(installs).map_or(0, |at| at + 1);
        let mut actions = actions.into_iter().map(Deed::Action);
        hands.deeds.extend(actions.by_ref().take(at));
        hands.deeds.extend(notes);
        hands.deeds.extend(actions);
    }
}

/// What a test does wrong on behalf of all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tamper {
    /// Messages of older views pass for such of this one.
    TakesOld,
    /// Messages of newer views pass for such of this one: nothing is held back.
    TakesNew,
    /// What is to be removed or unmapped is said to be so before it is.
    Hurries,
}

/// One core.
#[derive(Debug)]
pub struct AgentNode<L: Load> {
    agent: Agent,
    load: L,
    /// What it begins with, unless it is to join.
    first: Option<View>,
    deeds: VecDeque<Deed<L::Note>>,
    tamper: Option<Tamper>,
}

/// What a node tells.
#[derive(Debug, Hash)]
pub enum Note<N> {
    /// It installed this view.
    Installed(View),
    /// It knows settings whose table it does not have.
    Tableless,
    /// Something of its load.
    Of(N),
}

impl<L: Load> AgentNode<L> {
    /// Has something done with agent and load, and does what follows from it.
    fn act(
        &mut self,
        now_ns: u64,
        outputs: &mut Outputs<Self>,
        work: impl FnOnce(&mut L, &mut Hands<'_, L::Note>),
    ) {
        let mut hands = Hands {
            agent: &mut self.agent,
            now_ns,
            deeds: &mut self.deeds,
        };
        work(&mut self.load, &mut hands);
        while let Some(deed) = hands.deeds.pop_front() {
            match deed {
                Deed::Note(note) => outputs.push(Output::Note(Note::Of(note))),
                Deed::Action(Action::Send(to, line)) => outputs.push(Output::Send(to, line)),
                Deed::Action(Action::Fence(core)) => outputs.push(Output::Fence(core)),
                Deed::Action(Action::Out(_)) => outputs.push(Output::Leave),
                Deed::Action(Action::Installed(view)) => {
                    outputs.push(Output::Note(Note::Installed(view)));
                    if hands.agent.counters().tableless > 0 {
                        outputs.push(Output::Note(Note::Tableless));
                    }
                    self.load.installed(&mut hands);
                }
                Deed::Action(action) => self.load.on_action(action, &mut hands),
            }
        }
    }
}

impl<L: Load> Node for AgentNode<L> {
    type Message = Line;
    type Note = Note<L::Note>;

    fn start(&mut self, now_ns: u64, outputs: &mut Outputs<Self>) {
        let Some(view) = self.first.take() else {
            return;
        };
        self.act(now_ns, outputs, |load, hands| {
            let begin = |membership: &mut Membership| membership.begin(view, now_ns);
            let actions = hands.agent.with_membership(begin);
            load.take(actions, hands);
        });
    }

    fn on_message(
        &mut self,
        from: usize,
        mut line: Line,
        now_ns: u64,
        outputs: &mut Outputs<Self>,
    ) {
        if !kinds::MEMBERSHIP.contains(&line.kind) {
            let (own, own_bits) = (self.agent.view().epoch.round, line.words[0] as u32);
            let round = (line.words[0] >> 32) as u32;
            let passes = match self.tamper {
                Some(Tamper::TakesOld) => round < own,
                Some(Tamper::TakesNew) => round > own && own > 0,
                Some(Tamper::Hurries) | None => false,
            };
            if passes {
                line.words[0] = u64::from(own) << 32 | u64::from(own_bits);
            }
        }
        self.act(now_ns, outputs, |load, hands| {
            let actions = hands.agent.on_message(from, &line, now_ns);
            load.take(actions, hands);
        });
    }

    fn on_tick(&mut self, now_ns: u64, outputs: &mut Outputs<Self>) {
        let is_due = |deadline_ns: Option<u64>| deadline_ns.is_some_and(|at_ns| at_ns <= now_ns);
        if is_due(self.agent.deadline_ns()) {
            self.act(now_ns, outputs, |load, hands| {
                let actions = hands.agent.on_tick(now_ns);
                load.take(actions, hands);
            });
        }
        if is_due(self.load.deadline_ns()) {
            self.act(now_ns, outputs, Load::on_tick);
        }
    }

    fn deadline_ns(&self) -> Option<u64> {
        let both = [self.agent.deadline_ns(), self.load.deadline_ns()];
        both.into_iter().flatten().min()
    }

    fn takes_part(&self) -> bool {
        !self.agent.view().cores.is_empty()
    }

    fn may_sponsor(&self, core: usize) -> bool {
        !self.agent.view().cores.contains(core)
    }

    fn sponsor(&mut self, core: usize, now_ns: u64, outputs: &mut Outputs<Self>) {
        self.act(now_ns, outputs, |load, hands| {
            let actions = hands
                .agent
                .with_membership(|membership| membership.sponsor(core, now_ns));
            load.take(actions, hands);
        });
    }

    fn is_upkeep(line: &Line) -> bool {
        Message::decode(line.kind, &line.words) == Some(Message::Alive)
    }

    fn label(line: &Line) -> (u16, u64) {
        (line.kind, line.words[0])
    }

    fn mark(note: &Note<L::Note>) -> Option<Mark> {
        match note {
            Note::Of(note) => L::mark(note),
            Note::Installed(_) | Note::Tableless => None,
        }
    }
}

/// Which of a core's lives: it begins another one when it is started anew.
pub type Life = (usize, u32);

/// Sees to it that what a protocol promises holds. Errors say which rule was broken.
pub trait Judge {
    /// What runs on each core.
    type Load: Load;

    /// What runs on a core in a life of it.
    fn load(&mut self, life: Life, tamper: Option<Tamper>) -> Self::Load;

    /// A core tells something.
    fn on_note(
        &mut self,
        life: Life,
        note: <Self::Load as Load>::Note,
        context: Context,
    ) -> Result<(), String>;

    /// Somebody installs a view; `life_of` tells in which life each core is.
    fn on_view(&mut self, _view: &View, _life_of: &dyn Fn(usize) -> Life) {}

    /// A core does nothing any more.
    fn on_stop(&mut self, life: Life);

    /// Whether what was to be measured was.
    fn is_done(&self) -> bool {
        false
    }

    /// All that live hold one view, of just them, and had time enough for all that they began.
    fn outcome(&self, living: &[Life]) -> Result<Outcome, String>;
}

/// All cores of a machine.
#[derive(Debug)]
pub struct Agents<J> {
    members: Members,
    /// What is known of the protocol.
    pub judge: J,
    patience_ns: u64,
    machine: Arc<tree::Machine>,
    strategy: Strategy,
    /// The life of each core, and whether it lasts.
    lives: Vec<(u32, bool)>,
    tamper: Option<Tamper>,
}

impl<J: Judge> Agents<J> {
    /// So many cores, at most [`MAX_CORES`]; whoever is not heard of for `patience_ns` is suspected.
    pub fn new(judge: J, cores: usize, patience_ns: u64) -> Self {
        Self {
            members: Members::new(cores, patience_ns),
            judge,
            patience_ns,
            machine: Arc::default(),
            strategy: Strategy::Unicast,
            lives: vec![(0, true); cores],
            tamper: None,
        }
    }

    /// Rounds spread in this way, over this machine.
    pub fn with_strategy(mut self, strategy: Strategy, machine: &Arc<tree::Machine>) -> Self {
        (self.strategy, self.machine) = (strategy, Arc::clone(machine));
        self
    }

    /// All nodes do this wrong.
    pub fn tampered(mut self, tamper: Tamper) -> Self {
        self.tamper = Some(tamper);
        self
    }
}

impl<J: Judge> Protocol for Agents<J> {
    type Node = AgentNode<J::Load>;

    fn node(&mut self, core: usize, anew: bool) -> Self::Node {
        if anew {
            self.lives[core].0 += 1;
        }
        let make = if anew { Agent::anew } else { Agent::new };
        let mut agent = make(core, self.patience_ns, Arc::clone(&self.machine));
        let mut settings = self.strategy.settings();
        if self.strategy == Strategy::Computed {
            // As if it had been surveyed; whoever starts anew has to get it from others.
            settings = settings_of(TABLE);
            if !anew {
                agent.give_table(Table::described(TABLE, &self.machine));
            }
        }
        let first = View {
            epoch: Epoch::default().next(0),
            cores: CoreSet::first(self.lives.len()),
            settings,
        };
        AgentNode {
            agent,
            load: self.judge.load((core, self.lives[core].0), self.tamper),
            first: (!anew).then_some(first),
            deeds: VecDeque::new(),
            tamper: self.tamper,
        }
    }

    fn on_note(
        &mut self,
        core: usize,
        note: Note<<J::Load as Load>::Note>,
        context: Context,
    ) -> Result<(), String> {
        match note {
            Note::Installed(view) => {
                let life_of = |core: usize| (core, self.lives.get(core).map_or(0, |one| one.0));
                self.judge.on_view(&view, &life_of);
                self.members.on_note(core, view, context)
            }
            Note::Tableless => Err(format!("core {core} lacks the table that its view names")),
            Note::Of(note) => {
                let life = (core, self.lives[core].0);
                self.judge.on_note(life, note, context)
            }
        }
    }

    fn on_fence(&mut self, core: usize, context: Context) -> Result<(), String> {
        self.members.on_fence(core, context)
    }

    fn on_stop(&mut self, core: usize, context: Context) {
        self.lives[core].1 = false;
        self.judge.on_stop((core, self.lives[core].0));
        self.members.on_stop(core, context);
    }

    fn on_restart(&mut self, core: usize, context: Context) {
        self.lives[core].1 = true;
        self.members.on_restart(core, context);
    }

    fn is_done(&self) -> bool {
        self.judge.is_done()
    }

    fn outcome(&self) -> Result<Outcome, String> {
        // Whoever is left to join, and has nobody to join, has done nothing.
        if self.members.outcome()? == Outcome::Aborted {
            return Ok(Outcome::Aborted);
        }
        let lives = self.lives.iter().enumerate();
        let living: Vec<Life> = lives
            .filter(|(_, (_, lives))| *lives)
            .map(|(core, (life, _))| (core, *life))
            .collect();
        self.judge.outcome(&living)
    }
}

/// Measures operations, one after the other: when each ended, and all messages until the next.
#[derive(Debug, Default)]
pub struct Stopwatch {
    open: Option<(&'static str, Context, Option<u64>)>,
    /// What was done, how long it took in nanoseconds, and the messages.
    pub samples: Vec<(&'static str, u64, u64)>,
}

impl Stopwatch {
    /// Something else begins, which is measured if it has a name. All messages of what was measured
    /// have been sent.
    pub fn begin(&mut self, name: Option<&'static str>, context: Context) {
        if let Some((name, begun, Some(end_ns))) = self.open.take() {
            let messages = context.sent - begun.sent;
            self.samples.push((name, end_ns - begun.now_ns, messages));
        }
        self.open = name.map(|name| (name, context, None));
    }

    /// What is measured has ended.
    pub fn end(&mut self, context: Context) {
        if let Some((_, _, end_ns)) = &mut self.open {
            *end_ns = Some(context.now_ns);
        }
    }
}

/// The machine as agents know it.
pub fn described(machine: &crate::machine::Machine, cores: usize) -> Arc<tree::Machine> {
    let machine = machine.clone().with_room_for(cores);
    let sockets: Vec<usize> = (0..cores).map(|core| machine.socket(core)).collect();
    // One core of each socket stands for it, and two for the costs within.
    let some = |socket: usize, last: bool| {
        let found = match last {
            false => sockets.iter().position(|of| *of == socket),
            true => sockets.iter().rposition(|of| *of == socket),
        };
        found.unwrap_or(0)
    };
    let cost = |from: usize, to: usize| {
        let distance = machine.distance(some(from, false), some(to, true));
        let narrow = |ns: u64| u32::try_from(ns).unwrap_or(u32::MAX);
        tree::Cost {
            send_ns: narrow(distance.send),
            latency_ns: narrow(distance.flight),
            receive_ns: narrow(distance.receive + machine.cost.handle),
        }
    };
    Arc::new(tree::Machine::new(sockets.clone(), cost))
}

/// How rounds spread, by name.
pub fn strategies() -> [(&'static str, Strategy); 6] {
    [
        ("unicast", Strategy::Unicast),
        ("2-ary tree", Strategy::Tree { arity: 2 }),
        ("4-ary tree", Strategy::Tree { arity: 4 }),
        ("8-ary tree", Strategy::Tree { arity: 8 }),
        ("sockets", Strategy::Sockets { arity: 8 }),
        ("computed", Strategy::Computed),
    ]
}

/// The outcome where some of what was begun ended with its core, or not.
pub fn outcome_of(is_cut_off: bool) -> Outcome {
    match is_cut_off {
        true => Outcome::Aborted,
        false => Outcome::Survived,
    }
}
