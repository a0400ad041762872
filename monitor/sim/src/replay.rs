//! What a recorded run asked of its monitors, asked again on another number of cores: the protocols'
//! own state machines, on a machine that costs what the recorded one did.
//!
//! ```text
//!  home               others with something to prepare      all
//!    │ space, members,        │                               │
//!    │ pages that they hold   │                               │
//!    │ Prepare ──────────────►│ copies that others hold, …    │
//!    │◄──────────────── Ready │                               │
//!    │ Go ───────────────────────────────────────────────────►│ the streams begin
//! ```
//!
//! A stream is what one program asked for, one after the other, with its pauses. Nothing fails here,
//! and no view changes; so messages need not fit the system's lines, whose sets of cores end at
//! [`crate::agents::MAX_CORES`], and there may be as many cores as the simulator takes.

use crate::machine::Machine;
use crate::node::{Context, Node, Outcome, Output, Outputs, Protocol};
use crate::tape::{Mark, Tape};
use crate::world::{Setup, Violation, World};
use protocols::core_set::CoreSet;
use protocols::names::{self, Lookup, Name, Names};
use protocols::regions::{self, Kind, Region, Regions};
use protocols::spaces::{self, Mapping, Pages, Rights, SpaceId, Spaces};
use protocols::tree::{Planner, Strategy};
use protocols::view::{Epoch, View};
use rt::interface::names::{BIND, LOOKUP, UNBIND};
use rt::interface::regions::REVOKE;
use rt::interface::spaces::{MAP, PROTECT, UNMAP};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

/// The kinds of requests that can be asked again.
pub const KINDS: [u16; 7] = [BIND, UNBIND, LOOKUP, MAP, UNMAP, PROTECT, REVOKE];
/// Most steps that need something in the one space.
pub const MAX_PAGES: usize = spaces::MAX_ENTRIES - 24;
/// Most names that are bound at a time.
pub const MAX_NAMES: usize = names::MAX_NAMES;

/// Kinds of the messages that prepare a run; no others have them.
const PREPARES: u16 = 0xfff0;

/// What a program asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The kind of request: one of [`KINDS`].
    pub kind: u16,
    /// The pause before, in nanoseconds.
    pub gap_ns: u64,
    /// The pause is counted from the beginning of the step before, not from its end.
    pub overlaps: bool,
    /// How many other cores have to do with it.
    pub reach: usize,
}

/// What one program asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// Its core.
    pub core: usize,
    /// One after the other.
    pub steps: Vec<Step>,
}

/// A run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// How many cores there are.
    pub cores: usize,
    /// The home of the space.
    pub home: usize,
    /// How many others a core tells in a round, itself; `None`: the home tells all.
    pub arity: Option<usize>,
    /// What is asked for.
    pub streams: Vec<Stream>,
    /// What a monitor does with a request before it sends anything, in nanoseconds.
    pub requests: BTreeMap<u16, u64>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Predicted {
    /// How long each took that did not fail, in nanoseconds, by kind, ascending.
    pub times_ns: BTreeMap<u16, Vec<u64>>,
    /// How many failed, by kind.
    pub failed: BTreeMap<u16, u64>,
    /// Messages that were handed over.
    pub delivered: u64,
    /// All of it, if it was recorded.
    pub tape: Option<Tape>,
}

/// Why nothing came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impossible(pub String);

impl Plan {
    /// Runs it.
    pub fn run(
        self,
        machine: &Machine,
        seed: u64,
        tape: Option<Tape>,
    ) -> Result<Predicted, Impossible> {
        let cores = self.cores;
        let in_range = |stream: &Stream| {
            let mut steps = stream.steps.iter();
            stream.core < cores
                && steps.all(|step| KINDS.contains(&step.kind) && step.reach < cores)
        };
        if cores < 1 || self.home >= cores || !self.streams.iter().all(in_range) {
            return Err(Impossible("a plan with cores that it does not have".into()));
        }
        let steps: usize = self.streams.iter().map(|stream| stream.steps.len()).sum();
        let setup = Setup {
            cores,
            seed,
            schedule: Default::default(),
            jitter_ns: 0,
            restart_ns: 0,
            bound_ns: u64::MAX / 2,
            // Each step reaches all at most, in a handful of messages; so does each join before.
            max_events: 64 * (cores + steps + 16) as u64 * (cores as u64 + 16),
            is_traced: false,
        };
        let mut tape = tape;
        if let Some(tape) = &mut tape {
            tape.mute(true);
        }
        let replay = Replay {
            layout: Rc::new(Layout::of(self)),
            open: BTreeMap::new(),
            ended: 0,
            steps,
            predicted: Predicted::default(),
        };
        let (done, report) = World::recorded(replay, machine, setup, tape).run();
        let told =
            |Violation { at_ns, rule }: Violation| Impossible(format!("at {at_ns} ns: {rule}"));
        report.outcome.map_err(told)?;
        let mut predicted = done.predicted;
        for times_ns in predicted.times_ns.values_mut() {
            times_ns.sort_unstable();
        }
        predicted.delivered = report.counts.delivered;
        predicted.tape = report.tape;
        Ok(predicted)
    }
}

/// The plan, and what each step is about.
#[derive(Debug)]
struct Layout {
    plan: Plan,
    /// By stream and step: a number that no other step has.
    first: Vec<u64>,
    /// Who is in the span of the space, the home aside.
    members: Vec<usize>,
}

impl Layout {
    fn of(plan: Plan) -> Self {
        let mut next = 0;
        let first = plan.streams.iter().map(|stream| {
            let first = next;
            next += stream.steps.len() as u64;
            first
        });
        let first = first.collect();
        let mut layout = Self {
            plan,
            first,
            members: Vec::new(),
        };
        let mut members = CoreSet::default();
        for (stream, step) in layout.steps() {
            if [MAP, UNMAP, PROTECT].contains(&step.1.kind) {
                for core in layout.holders(stream, step.1) {
                    members.insert(core);
                }
            }
        }
        members.remove(layout.plan.home);
        layout.members = members.iter().collect();
        layout
    }

    /// All steps: the stream, and the step's number in all.
    fn steps(&self) -> impl Iterator<Item = (&Stream, (u64, Step))> {
        self.plan
            .streams
            .iter()
            .zip(&self.first)
            .flat_map(|(stream, first)| {
                let steps = stream.steps.iter().zip(*first..);
                steps.map(move |(step, number)| (stream, (number, *step)))
            })
    }

    /// The cores that have what a step is about: its own, for what is in the space the home, and as
    /// many others as it reaches.
    fn holders(&self, stream: &Stream, step: Step) -> Vec<usize> {
        let mut holders = vec![stream.core];
        if step.kind != REVOKE && self.plan.home != stream.core {
            holders.push(self.plan.home);
        }
        for core in 0..self.plan.cores {
            if holders.len() > step.reach {
                break;
            }
            if !holders.contains(&core) && (step.kind == REVOKE || core != self.plan.home) {
                holders.push(core);
            }
        }
        holders
    }
}

fn space(home: usize) -> SpaceId {
    SpaceId::new(home, 0)
}

fn mapping(number: u64) -> Mapping {
    Mapping {
        pages: Pages::one(number),
        frame: number + 1,
        rights: Rights::WRITE,
    }
}

fn region(number: u64) -> Region {
    Region {
        kind: Kind::Ram,
        base: (number + 1) << 12,
        bytes: 1 << 12,
        depth: 0,
    }
}

/// Names go round, since there is not room for all.
fn name(number: u64) -> Option<Name> {
    Name::new(format!("n{}", number % (MAX_NAMES as u64 - 1)).as_bytes())
}

/// Messages between two nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Prepare what you need.
    Prepare,
    /// Hold this page.
    Touch(u64),
    /// That is done.
    Ready,
    /// Begin.
    Go,
    /// Of the system's own.
    Names(names::Message),
    /// As above.
    Regions(regions::Message),
    /// As above.
    Spaces(spaces::Message),
}

/// What a node tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Note {
    /// All is prepared.
    Go,
    /// A step begins: its number on this core, and the kind of request.
    Begun(u64, u16),
    /// It ended: its number, the kind, the error.
    Done(u64, u16, u64),
}

/// What is to be prepared.
#[derive(Clone, Copy, Debug)]
enum Todo {
    Join(usize),
    Map(u64),
    Touch(u64, usize),
    Prepare(usize),
    Share(u64, usize),
    Bind(u64),
    /// All others are to say that they are ready.
    Go,
}

/// What a token is of.
#[derive(Clone, Copy, Debug)]
enum Asked {
    /// Something to be prepared, of this core.
    Todo,
    /// Or of another one, that is to be told.
    For(usize),
    /// A step of this stream of the core.
    Step(usize, u16),
}

/// How far a stream is.
#[derive(Debug)]
struct Cursor {
    /// Its number in the plan.
    stream: usize,
    next: usize,
    /// When the next step begins.
    due_ns: Option<u64>,
    /// Steps under way.
    open: usize,
}

/// One core.
#[derive(Debug)]
pub struct Replayer {
    core: usize,
    layout: Rc<Layout>,
    names: Names,
    regions: Regions,
    spaces: Spaces,
    todo: VecDeque<Todo>,
    /// Something is being prepared.
    is_preparing: bool,
    /// Who have not said that they are ready.
    missing: usize,
    cursors: Vec<Cursor>,
    next_token: u64,
    asked: BTreeMap<u64, Asked>,
}

/// What a protocol wants.
enum Wants {
    Names(names::Action),
    Regions(regions::Action),
    Spaces(spaces::Action),
}

impl Replayer {
    fn new(core: usize, layout: &Rc<Layout>) -> Self {
        let plan = &layout.plan;
        let strategy = match plan.arity {
            Some(arity) => Strategy::Tree { arity },
            None => Strategy::Unicast,
        };
        let planner = Planner::new(core, strategy, Arc::default());
        let own = plan.streams.iter().enumerate();
        let own = own.filter(|(_, stream)| stream.core == core);
        let cursors = own.map(|(stream, _)| Cursor {
            stream,
            next: 0,
            due_ns: None,
            open: 0,
        });
        Self {
            core,
            layout: Rc::clone(layout),
            names: Names::new(core),
            regions: Regions::new(core),
            spaces: Spaces::new(core, planner),
            todo: VecDeque::new(),
            is_preparing: false,
            missing: 0,
            cursors: cursors.collect(),
            next_token: 0,
            asked: BTreeMap::new(),
        }
    }

    fn token(&mut self, asked: Asked) -> u64 {
        self.next_token += 1;
        self.asked.insert(self.next_token, asked);
        self.next_token
    }

    /// What this core prepares for its own steps.
    fn own_todo(&mut self) {
        let layout = Rc::clone(&self.layout);
        let own = layout
            .steps()
            .filter(|(stream, _)| stream.core == self.core);
        for (stream, (number, step)) in own {
            match step.kind {
                REVOKE => {
                    let others = layout.holders(stream, step).into_iter().skip(1);
                    self.todo.extend(others.map(|to| Todo::Share(number, to)));
                }
                UNBIND => self.todo.push_back(Todo::Bind(number)),
                _ => {}
            }
        }
    }

    /// What the home prepares.
    fn home_todo(&mut self) {
        let layout = Rc::clone(&self.layout);
        let mut others = CoreSet::default();
        self.todo
            .extend(layout.members.iter().map(|core| Todo::Join(*core)));
        for (stream, (number, step)) in layout.steps() {
            others.insert(stream.core);
            if [UNMAP, PROTECT].contains(&step.kind) {
                self.todo.push_back(Todo::Map(number));
                let holders = layout.holders(stream, step).into_iter();
                let holders = holders.filter(|core| *core != self.core);
                self.todo
                    .extend(holders.map(|core| Todo::Touch(number, core)));
            }
        }
        others.remove(self.core);
        self.todo.extend(others.iter().map(Todo::Prepare));
        self.own_todo();
        self.todo.push_back(Todo::Go);
    }

    /// Prepares the next thing.
    fn prepare(&mut self, now_ns: u64, outputs: &mut Outputs<Self>) {
        while !self.is_preparing {
            let home = self.layout.plan.home;
            let Some(todo) = self.todo.pop_front() else {
                return;
            };
            self.is_preparing = true;
            match todo {
                Todo::Join(core) => {
                    let token = self.token(Asked::Todo);
                    let actions = self.spaces.join(token, space(home), core);
                    self.take(actions, Wants::Spaces, now_ns, outputs);
                }
                Todo::Map(number) => {
                    let token = self.token(Asked::Todo);
                    let actions = self.spaces.map(token, space(home), mapping(number));
                    self.take(actions, Wants::Spaces, now_ns, outputs);
                }
                Todo::Touch(number, core) => {
                    outputs.push(Output::Send(core, Message::Touch(number)));
                }
                Todo::Prepare(core) => {
                    outputs.push(Output::Send(core, Message::Prepare));
                    self.missing += 1;
                    self.is_preparing = false;
                }
                Todo::Share(number, to) => {
                    let token = self.token(Asked::Todo);
                    // It is new: that cannot fail.
                    let _ = self.regions.share(region(number), &[]);
                    let actions = self.regions.send(token, region(number), 0, to);
                    self.take(actions, Wants::Regions, now_ns, outputs);
                }
                Todo::Bind(number) => match name(number) {
                    Some(name) => {
                        let token = self.token(Asked::Todo);
                        let actions = self.names.bind(token, 1, name, number);
                        self.take(actions, Wants::Names, now_ns, outputs);
                    }
                    None => self.is_preparing = false,
                },
                Todo::Go if self.core != home => {
                    outputs.push(Output::Send(home, Message::Ready));
                    self.is_preparing = false;
                }
                Todo::Go => return self.go_if_ready(now_ns, outputs),
            }
        }
    }

    /// The home begins when all are ready.
    fn go_if_ready(&mut self, now_ns: u64, outputs: &mut Outputs<Self>) {
        if self.missing > 0 || !self.todo.is_empty() {
            return;
        }
        self.is_preparing = false;
        let mut others = CoreSet::default();
        for stream in &self.layout.plan.streams {
            others.insert(stream.core);
        }
        others.remove(self.core);
        outputs.extend(others.iter().map(|core| Output::Send(core, Message::Go)));
        outputs.push(Output::Note(Note::Go));
        self.go(now_ns);
    }

    fn go(&mut self, now_ns: u64) {
        for cursor in &mut self.cursors {
            let steps = &self.layout.plan.streams[cursor.stream].steps;
            cursor.due_ns = steps.first().map(|step| now_ns.saturating_add(step.gap_ns));
        }
    }

    /// A step is due.
    fn begin(&mut self, at: usize, now_ns: u64, outputs: &mut Outputs<Self>) {
        let layout = Rc::clone(&self.layout);
        let cursor = &mut self.cursors[at];
        let steps = &layout.plan.streams[cursor.stream].steps;
        let step = steps[cursor.next];
        let number = layout.first[cursor.stream] + cursor.next as u64;
        cursor.next += 1;
        cursor.open += 1;
        cursor.due_ns = match steps.get(cursor.next) {
            Some(next) if next.overlaps => Some(now_ns.saturating_add(next.gap_ns)),
            _ => None,
        };
        let token = self.token(Asked::Step(at, step.kind));
        outputs.push(Output::Note(Note::Begun(token, step.kind)));
        let work_ns = layout.plan.requests.get(&step.kind).copied();
        outputs.push(Output::Work(work_ns.unwrap_or(0)));
        let (space, page) = (space(layout.plan.home), Pages::one(number));
        match (step.kind, name(number)) {
            (MAP, _) => {
                let actions = self.spaces.map(token, space, mapping(number));
                self.take(actions, Wants::Spaces, now_ns, outputs);
            }
            (UNMAP, _) => {
                let actions = self.spaces.unmap(token, space, page);
                self.take(actions, Wants::Spaces, now_ns, outputs);
            }
            (PROTECT, _) => {
                let actions = self.spaces.protect(token, space, page, Rights::READ);
                self.take(actions, Wants::Spaces, now_ns, outputs);
            }
            (REVOKE, _) => {
                let _ = self.regions.share(region(number), &[]);
                let actions = self.regions.revoke(token, region(number));
                self.take(actions, Wants::Regions, now_ns, outputs);
            }
            (BIND, Some(name)) => {
                let actions = self.names.bind(token, 1, name, number);
                self.take(actions, Wants::Names, now_ns, outputs);
            }
            (UNBIND, Some(name)) => {
                let actions = self.names.unbind(token, 1, name);
                self.take(actions, Wants::Names, now_ns, outputs);
            }
            (_, Some(name)) => match self.names.lookup(token, name) {
                Lookup::Found(_) | Lookup::Absent => self.done(token, 0, now_ns, outputs),
                Lookup::Busy => self.done(token, 1, now_ns, outputs),
                Lookup::Wait(_) => {}
            },
            (_, None) => self.done(token, 1, now_ns, outputs),
        }
    }

    /// What was asked for has an answer.
    fn done(&mut self, token: u64, error: u64, now_ns: u64, outputs: &mut Outputs<Self>) {
        match self.asked.remove(&token) {
            Some(Asked::Todo) => {
                self.is_preparing = false;
                self.prepare(now_ns, outputs);
            }
            Some(Asked::For(core)) => outputs.push(Output::Send(core, Message::Ready)),
            Some(Asked::Step(at, kind)) => {
                outputs.push(Output::Note(Note::Done(token, kind, error)));
                let cursor = &mut self.cursors[at];
                cursor.open -= 1;
                let steps = &self.layout.plan.streams[cursor.stream].steps;
                if let Some(next) = steps.get(cursor.next)
                    && !next.overlaps
                    && cursor.open == 0
                {
                    cursor.due_ns = Some(now_ns.saturating_add(next.gap_ns));
                }
            }
            None => {}
        }
    }

    /// Does what a protocol wants, and what it wants then.
    fn take<A>(
        &mut self,
        actions: Vec<A>,
        of: fn(A) -> Wants,
        now_ns: u64,
        outputs: &mut Outputs<Self>,
    ) {
        let mut all: VecDeque<Wants> = actions.into_iter().map(of).collect();
        while let Some(wants) = all.pop_front() {
            match wants {
                Wants::Names(names::Action::Send(to, message)) => {
                    outputs.push(Output::Send(to, Message::Names(message)));
                }
                Wants::Names(names::Action::Done { token, result }) => {
                    let error = result.err().map_or(0, |refusal| refusal as u64 + 1);
                    self.done(token, error, now_ns, outputs);
                }
                Wants::Names(names::Action::LookedUp { token, .. }) => {
                    self.done(token, 0, now_ns, outputs);
                }
                Wants::Names(names::Action::Changed { .. }) => {}
                Wants::Regions(regions::Action::Send(to, message)) => {
                    outputs.push(Output::Send(to, Message::Regions(message)));
                }
                Wants::Regions(regions::Action::Insert { id, .. }) => {
                    let more = self.regions.inserted(id, Ok(()));
                    all.extend(more.into_iter().map(Wants::Regions));
                }
                Wants::Regions(regions::Action::Retype {
                    region, sequence, ..
                }) => {
                    let more = self.regions.retyped(region, sequence, true);
                    all.extend(more.into_iter().map(Wants::Regions));
                }
                Wants::Regions(regions::Action::RemoveLocal { region, .. }) => {
                    let more = self.regions.removed(region);
                    all.extend(more.into_iter().map(Wants::Regions));
                }
                Wants::Regions(regions::Action::Done { token, result }) => {
                    let error = result.err().map_or(0, |error| error as u64);
                    self.done(token, error, now_ns, outputs);
                }
                Wants::Regions(
                    regions::Action::Gone { .. }
                    | regions::Action::Unshared { .. }
                    | regions::Action::Adopt { .. },
                ) => {}
                Wants::Spaces(spaces::Action::Send(to, message)) => {
                    outputs.push(Output::Send(to, Message::Spaces(message)));
                }
                Wants::Spaces(spaces::Action::Unmap { work, .. }) => {
                    let more = self.spaces.unmapped(work);
                    all.extend(more.into_iter().map(Wants::Spaces));
                }
                Wants::Spaces(spaces::Action::Done { token, result }) => {
                    let error = result.err().map_or(0, |error| error as u64);
                    self.done(token, error, now_ns, outputs);
                }
                Wants::Spaces(spaces::Action::Map { .. } | spaces::Action::Freed { .. }) => {}
            }
        }
    }
}

impl Node for Replayer {
    type Message = Message;
    type Note = Note;

    fn start(&mut self, now_ns: u64, outputs: &mut Outputs<Self>) {
        let view = View {
            epoch: Epoch::default().next(0),
            cores: CoreSet::first(self.layout.plan.cores),
            settings: 0,
        };
        let actions = self.regions.installed(&view);
        self.take(actions, Wants::Regions, now_ns, outputs);
        let actions = self.spaces.installed(&view);
        self.take(actions, Wants::Spaces, now_ns, outputs);
        let actions = self.names.installed(&view);
        self.take(actions, Wants::Names, now_ns, outputs);
        if self.core == self.layout.plan.home {
            // The first of its core: that cannot fail.
            let _ = self.spaces.create(space(self.core));
            self.home_todo();
            self.prepare(now_ns, outputs);
        }
    }

    fn on_message(
        &mut self,
        from: usize,
        message: Message,
        now_ns: u64,
        outputs: &mut Outputs<Self>,
    ) {
        match message {
            Message::Prepare => {
                self.own_todo();
                self.todo.push_back(Todo::Go);
                self.prepare(now_ns, outputs);
            }
            Message::Touch(number) => {
                let token = self.token(Asked::For(from));
                let space = space(self.layout.plan.home);
                let actions = self.spaces.fault(token, space, number, Rights::READ);
                self.take(actions, Wants::Spaces, now_ns, outputs);
            }
            Message::Ready => {
                // Whoever was asked to hold a page comes while others are not asked yet.
                match self.missing {
                    0 => {
                        self.is_preparing = false;
                        self.prepare(now_ns, outputs);
                    }
                    _ => {
                        self.missing -= 1;
                        self.go_if_ready(now_ns, outputs);
                    }
                }
            }
            Message::Go => self.go(now_ns),
            Message::Names(message) => {
                let actions = self.names.on_message(from, &message);
                self.take(actions, Wants::Names, now_ns, outputs);
            }
            Message::Regions(message) => {
                let actions = self.regions.on_message(from, &message);
                self.take(actions, Wants::Regions, now_ns, outputs);
            }
            Message::Spaces(message) => {
                let actions = self.spaces.on_message(from, &message);
                self.take(actions, Wants::Spaces, now_ns, outputs);
            }
        }
    }

    fn on_tick(&mut self, now_ns: u64, outputs: &mut Outputs<Self>) {
        let is_due = |cursor: &Cursor| cursor.due_ns.is_some_and(|at_ns| at_ns <= now_ns);
        if let Some(at) = self.cursors.iter().position(is_due) {
            self.begin(at, now_ns, outputs);
        }
    }

    fn deadline_ns(&self) -> Option<u64> {
        self.cursors.iter().filter_map(|cursor| cursor.due_ns).min()
    }

    fn label(message: &Message) -> (u16, u64) {
        let (kind, words) = match message {
            Message::Prepare | Message::Touch(_) | Message::Ready | Message::Go => {
                return (PREPARES, 0);
            }
            Message::Names(message) => message.encode(),
            Message::Regions(message) => message.encode(),
            Message::Spaces(message) => message.encode(),
        };
        (kind, words[0])
    }

    fn mark(note: &Note) -> Option<Mark> {
        Some(match *note {
            Note::Go => Mark::Mute(false),
            Note::Begun(token, kind) => Mark::Begin {
                token,
                kind: kind.into(),
            },
            Note::Done(token, _, error) => Mark::End { token, error },
        })
    }
}

/// Sees to it that all is done, and takes the times.
#[derive(Debug)]
struct Replay {
    layout: Rc<Layout>,
    /// When each began, by core and its number there.
    open: BTreeMap<(usize, u64), u64>,
    ended: usize,
    steps: usize,
    predicted: Predicted,
}

impl Protocol for Replay {
    type Node = Replayer;

    fn node(&mut self, core: usize, _anew: bool) -> Replayer {
        Replayer::new(core, &self.layout)
    }

    fn on_note(&mut self, core: usize, note: Note, context: Context) -> Result<(), String> {
        match note {
            Note::Go => {}
            Note::Begun(token, _) => {
                self.open.insert((core, token), context.now_ns);
            }
            Note::Done(token, kind, error) => {
                let begun_ns = self.open.remove(&(core, token));
                let begun_ns = begun_ns.ok_or("the end of nothing")?;
                self.ended += 1;
                if error == 0 {
                    let times_ns = self.predicted.times_ns.entry(kind).or_default();
                    times_ns.push(context.now_ns - begun_ns);
                } else {
                    *self.predicted.failed.entry(kind).or_default() += 1;
                }
            }
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.ended == self.steps
    }

    fn outcome(&self) -> Result<Outcome, String> {
        match self.is_done() {
            true => Ok(Outcome::Survived),
            false => Err(format!(
                "{} of {} requests have an end",
                self.ended, self.steps
            )),
        }
    }
}
