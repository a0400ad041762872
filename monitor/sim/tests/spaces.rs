//! Address spaces, checked exhaustively: all cores but one stop at any points while two cores change the
//! mapping of one page and others touch it. And the checks themselves: protocols that leave something
//! out are caught.

use protocols::core_set::CoreSet;
use protocols::round;
use protocols::spaces::{Action, Answer, Error, Mapping, Message, Pages, Rights, SpaceId, Spaces};
use protocols::tree::{Machine, Planner, Strategy};
use protocols::view::{Epoch, View};
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

const PAGE: u64 = 5;
/// What is mapped in the beginning.
const FIRST_FRAME: u64 = 1;
/// More messages than any run needs.
const MOST_SENT: usize = 80;

fn space() -> SpaceId {
    SpaceId::new(0, 1)
}

fn mapping(frame: u64) -> Mapping {
    Mapping {
        pages: Pages::one(PAGE),
        frame,
        rights: Rights::READ,
    }
}

/// What a program does, once, at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Wish {
    Map(u64),
    Unmap,
    Fault,
    Join(usize),
    Leave,
}

/// What a protocol may leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutation {
    /// A holder acknowledges before its local unmap.
    AcknowledgeEarly,
    /// The home takes one child for done as soon as it has sent to it.
    ForgetOneChild,
    /// The initiator does not unmap locally.
    SkipInitiator,
    /// What was granted is installed, whatever has happened since.
    InstallOldGrants,
    /// A new home takes whoever has not reported yet for empty.
    HurryRecovery,
}

struct Cores {
    cores: usize,
    /// How many of them the space spans in the beginning.
    span: usize,
    is_mapped: bool,
    strategy: Strategy,
    wishes: Vec<(usize, Wish)>,
    crashes: usize,
    mutation: Option<Mutation>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    /// Nobody: it has stopped.
    monitors: Vec<Option<Spaces>>,
    /// The frame that each core's page table and TLB have for the page.
    tlbs: Vec<Option<u64>>,
    wires: BTreeMap<(usize, usize), VecDeque<Message>>,
    /// Local unmaps under way: core, work, and whether the monitor waits for it.
    works: BTreeSet<(usize, u64, bool)>,
    epoch: Epoch,
    crashes: usize,
    /// Somebody has stopped and is in the view still.
    is_view_old: bool,
    /// How many of the wishes of each core have begun.
    begun: Vec<bool>,
    results: Vec<Option<Result<(), Error>>>,
    /// For each unmap, the frames that had been mapped when it began.
    before: Vec<BTreeSet<u64>>,
    /// Frames that no core may see any more.
    dead: BTreeSet<u64>,
    sent: usize,
    is_wrong: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Begin(usize),
    Deliver(usize, usize),
    Unmapped(usize, u64),
    Crash(usize),
    Install,
}

impl State {
    fn living(&self) -> CoreSet {
        let up = |core: &usize| self.monitors[*core].is_some();
        (0..self.monitors.len()).filter(up).collect()
    }

    fn is_quiet(&self) -> bool {
        self.wires.is_empty() && self.works.is_empty() && !self.is_view_old
    }

    /// Every translation is in the table of the home, if that one lives and knows its table.
    fn is_known_at_home(&self) -> bool {
        self.living().iter().all(|core| {
            let (Some(frame), Some(monitor)) = (self.tlbs[core], &self.monitors[core]) else {
                return true;
            };
            let Some(home) = monitor.home(space()) else {
                return false;
            };
            let home = self.monitors[home].as_ref();
            let knows = |home: &&Spaces| home.is_home(space()) && !home.is_recovering(space());
            home.filter(knows).is_none_or(|home| {
                let mapped = home.mapped(space(), PAGE);
                mapped.is_some_and(|mapped| mapped.frame == frame)
            })
        })
    }
}

impl Cores {
    fn carry_out(&self, state: &mut State, core: usize, actions: Vec<Action>, of_round: bool) {
        for action in actions {
            match action {
                Action::Send(to, message) => {
                    assert_ne!(to, core, "a message to oneself: {message:?}");
                    state.sent += 1;
                    let forged = self.forged(core, to, &message);
                    let is_query = matches!(message, Message::Query { .. });
                    if state.monitors[to].is_some() && !(forged.is_some() && is_query) {
                        state
                            .wires
                            .entry((core, to))
                            .or_default()
                            .push_back(message);
                    }
                    if let Some(answer) = forged
                        && let Some(monitor) = state.monitors[core].as_mut()
                    {
                        let actions = monitor.on_message(to, &answer);
                        self.carry_out(state, core, actions, false);
                    }
                }
                Action::Map { mapping, .. } => Self::enter(state, core, mapping.frame),
                Action::Unmap { work, .. } => {
                    let early = self.mutation == Some(Mutation::AcknowledgeEarly) && of_round;
                    let skip = self.mutation == Some(Mutation::SkipInitiator) && !of_round;
                    if !skip {
                        state.works.insert((core, work, !early));
                    }
                    if (early || skip)
                        && let Some(monitor) = state.monitors[core].as_mut()
                    {
                        let actions = monitor.unmapped(work);
                        self.carry_out(state, core, actions, of_round);
                    }
                }
                Action::Freed { mapping, .. } => {
                    let at = PAGE.saturating_sub(mapping.pages.first);
                    let frame = mapping.frame + at;
                    // Whoever has it still uses memory of somebody else.
                    state.is_wrong |= state.tlbs.contains(&Some(frame));
                    state.dead.insert(frame);
                }
                Action::Done { token, result } => self.done(state, token as usize, result),
            }
        }
    }

    /// The answer that a mutation makes up.
    fn forged(&self, core: usize, to: usize, message: &Message) -> Option<Message> {
        match (self.mutation?, message) {
            (
                Mutation::ForgetOneChild,
                Message::Round(round::Message::Spread { root, sequence, .. }),
            ) if *root == core && to == self.cores - 1 => {
                let (root, sequence) = (*root, *sequence);
                Some(Message::Round(round::Message::Ack { root, sequence }))
            }
            (Mutation::HurryRecovery, Message::Query { space }) => {
                Some(Message::Absent { space: *space })
            }
            _ => None,
        }
    }

    fn enter(state: &mut State, core: usize, frame: u64) {
        state.tlbs[core] = Some(frame);
        state.is_wrong |= state.dead.contains(&frame);
    }

    fn done(&self, state: &mut State, wish: usize, result: Result<(), Error>) {
        let Some(known) = state.results.get_mut(wish) else {
            return; // of the beginning
        };
        state.is_wrong |= known.is_some();
        *known = Some(result);
        let (core, wish_is) = self.wishes[wish];
        if wish_is == Wish::Unmap && result.is_ok() {
            state.dead.extend(&state.before[wish]);
            state.is_wrong |= state
                .tlbs
                .iter()
                .flatten()
                .any(|frame| state.dead.contains(frame));
        }
        if let Wish::Map(_) = wish_is
            && result.is_ok()
            && state.crashes == self.crashes
            && !self.wishes.iter().any(|(_, wish)| *wish == Wish::Unmap)
        {
            let done = self.wishes.iter().zip(&state.results);
            let maps = done.filter(|(wish, result)| {
                matches!(wish.1, Wish::Map(_)) && **result == Some(Ok(()))
            });
            state.is_wrong |= maps.count() > 1;
        }
        if wish_is == Wish::Leave && result.is_ok() {
            state.is_wrong |= state.tlbs[core].is_some();
        }
    }

    fn begin(&self, state: &mut State, token: usize, core: usize, wish: Wish) {
        let Some(monitor) = state.monitors[core].as_mut() else {
            return;
        };
        let number = token as u64;
        let actions = match wish {
            Wish::Map(frame) => monitor.map(number, space(), mapping(frame)),
            Wish::Unmap => monitor.unmap(number, space(), Pages::one(PAGE)),
            Wish::Fault => monitor.fault(number, space(), PAGE, Rights::READ),
            Wish::Join(other) => monitor.join(number, space(), other),
            Wish::Leave => monitor.leave(number, space()),
        };
        self.carry_out(state, core, actions, false);
    }

    fn deliver(&self, state: &mut State, from: usize, to: usize) -> Option<()> {
        let wire = state.wires.get_mut(&(from, to))?;
        let message = wire.pop_front()?;
        if wire.is_empty() {
            state.wires.remove(&(from, to));
        }
        if let Message::Answer {
            answer: Answer::Grant(mapping),
            ..
        } = &message
            && self.mutation == Some(Mutation::InstallOldGrants)
        {
            Self::enter(state, to, mapping.frame);
        }
        let of_round = matches!(message, Message::Round(_));
        let actions = state.monitors[to].as_mut()?.on_message(from, &message);
        self.carry_out(state, to, actions, of_round);
        Some(())
    }

    fn finish_work(&self, state: &mut State, core: usize, work: u64) -> Option<()> {
        let is_waited_for = state.works.contains(&(core, work, true));
        state
            .works
            .retain(|(of, number, _)| (*of, *number) != (core, work));
        state.tlbs[core] = None;
        if is_waited_for {
            let actions = state.monitors[core].as_mut()?.unmapped(work);
            self.carry_out(state, core, actions, false);
        }
        Some(())
    }

    fn install(&self, state: &mut State) {
        let cores = state.living();
        state.epoch = state.epoch.next(cores.lowest().unwrap_or(0));
        let epoch = state.epoch;
        let view = View {
            epoch,
            cores,
            settings: 0,
        };
        state.wires.clear();
        state.is_view_old = false;
        for core in view.cores.iter() {
            if let Some(monitor) = state.monitors[core].as_mut() {
                let actions = monitor.installed(&view);
                self.carry_out(state, core, actions, false);
            }
        }
    }

    /// Where nobody unmaps or leaves, a map that has returned is in force on its core, whatever
    /// becomes of the home.
    fn is_held_by_whoever_mapped(&self, state: &State) -> bool {
        let goes = |(_, wish): &(usize, Wish)| matches!(wish, Wish::Unmap | Wish::Leave);
        let mut done = self.wishes.iter().zip(&state.results);
        self.wishes.iter().any(goes)
            || done.all(|((core, wish), result)| match (wish, result) {
                (Wish::Map(frame), Some(Ok(()))) if state.monitors[*core].is_some() => {
                    state.tlbs[*core] == Some(*frame)
                }
                _ => true,
            })
    }

    /// The beginning: all of the span have the page, or nobody.
    fn beginning(&self) -> State {
        let machine = Arc::new(Machine::default());
        let spaces = |own| {
            let planner = Planner::new(own, self.strategy, machine.clone());
            Some(Spaces::new(own, planner))
        };
        let mut state = State {
            monitors: (0..self.cores).map(spaces).collect(),
            tlbs: vec![None; self.cores],
            wires: BTreeMap::new(),
            works: BTreeSet::new(),
            epoch: Epoch::default(),
            crashes: self.crashes,
            is_view_old: false,
            begun: vec![false; self.wishes.len()],
            results: vec![None; self.wishes.len()],
            before: vec![BTreeSet::new(); self.wishes.len()],
            dead: BTreeSet::new(),
            sent: 0,
            is_wrong: false,
        };
        let faithful = Self {
            wishes: Vec::new(),
            mutation: None,
            ..*self
        };
        faithful.install(&mut state);
        let first = state.monitors[0].as_mut().expect("up");
        first.create(space()).expect("it is new");
        let joins = (1..self.span).map(|core| (0, Wish::Join(core)));
        let maps = [(0, Wish::Map(FIRST_FRAME))];
        let faults = (1..self.span).map(|core| (core, Wish::Fault));
        let mapped = maps.into_iter().chain(faults).filter(|_| self.is_mapped);
        for (core, wish) in joins.chain(mapped) {
            faithful.begin(&mut state, usize::MAX, core, wish);
            while let Some((from, to)) = state.wires.keys().next().copied() {
                faithful.deliver(&mut state, from, to);
            }
        }
        let expected = |core| (self.is_mapped && core < self.span).then_some(FIRST_FRAME);
        assert!((0..self.cores).all(|core| state.tlbs[core] == expected(core)));
        state.sent = 0;
        state
    }
}

impl Model for Cores {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![self.beginning()]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        for (wish, (core, _)) in self.wishes.iter().enumerate() {
            if !state.begun[wish] && state.monitors[*core].is_some() {
                steps.push(Step::Begin(wish));
            }
        }
        let wires = state.wires.keys();
        steps.extend(wires.map(|(from, to)| Step::Deliver(*from, *to)));
        let works = state.works.iter();
        steps.extend(works.map(|(core, work, _)| Step::Unmapped(*core, *work)));
        if state.crashes > 0 {
            steps.extend(state.living().iter().map(Step::Crash));
        }
        if state.is_view_old {
            steps.push(Step::Install);
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        match step {
            Step::Begin(wish) => {
                next.begun[wish] = true;
                let (core, what) = self.wishes[wish];
                if what == Wish::Unmap {
                    let returned = |(wish, result): (&(usize, Wish), &Option<_>)| match wish.1 {
                        Wish::Map(frame) if *result == Some(Ok(())) => Some(frame),
                        _ => None,
                    };
                    let maps = self.wishes.iter().zip(&next.results).filter_map(returned);
                    let first = self.is_mapped.then_some(FIRST_FRAME);
                    next.before[wish] = maps.chain(first).collect();
                }
                self.begin(&mut next, wish, core, what);
            }
            Step::Deliver(from, to) => self.deliver(&mut next, from, to)?,
            Step::Unmapped(core, work) => self.finish_work(&mut next, core, work)?,
            Step::Crash(core) => {
                next.crashes -= 1;
                next.monitors[core] = None;
                next.tlbs[core] = None;
                next.works.retain(|(of, _, _)| *of != core);
                next.wires.retain(|(_, to), _| *to != core);
                next.is_view_old = !next.living().is_empty();
            }
            Step::Install => self.install(&mut next),
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no page after its unmap", |_, state: &State| {
                !state.is_wrong
            }),
            Property::always("replicas are in the table", |_, state: &State| {
                state.is_known_at_home()
            }),
            Property::always("whoever mapped has it", |model: &Self, state: &State| {
                model.is_held_by_whoever_mapped(state)
            }),
            Property::always("bounded time", |_, state: &State| {
                let mut living = state.monitors.iter().flatten();
                state.sent < MOST_SENT
                    && (!state.is_quiet() || living.all(|monitor| monitor.under_way() == 0))
            }),
        ]
    }
}

fn explore(model: Cores) -> Result<usize, Vec<&'static str>> {
    let checker = model
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .threads(2)
        .spawn_bfs()
        .join();
    let failures: Vec<_> = checker.discoveries().into_keys().collect();
    if failures.is_empty() {
        assert!(checker.is_done());
        return Ok(checker.unique_state_count());
    }
    Err(failures)
}

/// On every core each; `others` besides, as they are.
fn check(
    name: &str,
    cores: usize,
    span: usize,
    is_mapped: bool,
    wishes: &[Wish],
    others: &[(usize, Wish)],
) {
    let mut total = 0;
    let strategies = match cores {
        2 => vec![Strategy::Unicast],
        _ => vec![Strategy::Unicast, Strategy::Tree { arity: 1 }],
    };
    for strategy in strategies {
        for code in 0..span.pow(wishes.len() as u32) {
            let place = |at: usize| code / span.pow(at as u32) % span;
            let placed = wishes
                .iter()
                .enumerate()
                .map(|(at, wish)| (place(at), *wish));
            let wishes: Vec<_> = placed.chain(others.iter().copied()).collect();
            let model = Cores {
                cores,
                span,
                is_mapped,
                strategy,
                wishes: wishes.clone(),
                crashes: cores - 1,
                mutation: None,
            };
            match explore(model) {
                Ok(states) => total += states,
                Err(failures) => panic!("{name}: {wishes:?}, {strategy:?}: {failures:?}"),
            }
        }
    }
    println!("model spaces, {name}, {cores} cores, all placements: {total} states");
}

#[test]
fn unmap_against_map() {
    for cores in [2, 3] {
        let wishes = [Wish::Unmap, Wish::Map(2)];
        check(
            "unmap against map",
            cores,
            cores,
            true,
            &wishes,
            &[(cores - 1, Wish::Fault)],
        );
        check(
            "map, unmap",
            cores,
            cores,
            false,
            &wishes,
            &[(cores - 1, Wish::Fault)],
        );
    }
}

#[test]
fn map_against_map() {
    for cores in [2, 3] {
        let wishes = [Wish::Map(2), Wish::Map(3)];
        check(
            "map against map",
            cores,
            cores,
            false,
            &wishes,
            &[(cores - 1, Wish::Fault)],
        );
    }
}

#[test]
fn map_against_join() {
    for cores in [2, 3] {
        let new = cores - 1;
        let wishes = [Wish::Map(2), Wish::Join(new)];
        let touch = [(new, Wish::Fault)];
        check("map against join", cores, new, false, &wishes, &touch);
    }
}

#[test]
fn unmap_against_unmap() {
    for cores in [2, 3] {
        let wishes = [Wish::Unmap, Wish::Unmap];
        check(
            "unmap against unmap",
            cores,
            cores,
            true,
            &wishes,
            &[(cores - 1, Wish::Fault)],
        );
    }
}

#[test]
fn unmap_against_join_and_leave() {
    for cores in [2, 3] {
        let new = cores - 1;
        let join = [Wish::Unmap, Wish::Join(new)];
        check(
            "unmap against join",
            cores,
            new,
            true,
            &join,
            &[(new, Wish::Fault)],
        );
        let leave = [Wish::Unmap, Wish::Leave];
        check(
            "unmap against leave",
            cores,
            cores,
            true,
            &leave,
            &[(new, Wish::Fault)],
        );
    }
}

/// What is left out shows.
#[test]
fn mutations_are_caught() {
    let caught = |mutation, crashes, is_mapped, strategy, wishes: &[(usize, Wish)]| {
        let model = Cores {
            cores: 3,
            span: 3,
            is_mapped,
            strategy,
            wishes: wishes.to_vec(),
            crashes,
            mutation,
        };
        explore(model)
    };
    let unmap = [(0, Wish::Unmap)];
    let afar = [(1, Wish::Unmap)];
    // The grant comes straight from the home, the round by way of core 1.
    let race = [(0, Wish::Unmap), (1, Wish::Map(2)), (2, Wish::Fault)];
    let star = Strategy::Unicast;
    let chain = Strategy::Tree { arity: 1 };
    for (mutation, crashes, is_mapped, strategy, wishes) in [
        (Mutation::AcknowledgeEarly, 0, true, star, &unmap[..]),
        (Mutation::AcknowledgeEarly, 0, true, chain, &unmap),
        (Mutation::AcknowledgeEarly, 0, true, star, &afar),
        (Mutation::ForgetOneChild, 0, true, star, &unmap),
        (Mutation::ForgetOneChild, 0, true, star, &afar),
        (Mutation::SkipInitiator, 0, true, star, &unmap),
        (Mutation::SkipInitiator, 0, true, star, &afar),
        (Mutation::InstallOldGrants, 0, false, chain, &race),
        (Mutation::HurryRecovery, 1, true, star, &afar),
    ] {
        assert!(caught(None, crashes, is_mapped, strategy, wishes).is_ok());
        match caught(Some(mutation), crashes, is_mapped, strategy, wishes) {
            Ok(_) => panic!("{mutation:?} is not caught by {wishes:?}"),
            Err(failures) => println!("mutation spaces, {mutation:?}: {failures:?}"),
        }
    }
}
