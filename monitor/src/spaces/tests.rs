//! Many monitors side by side, with an oracle that installs views.

extern crate std;
use super::*;
use crate::tree::{Cost, Machine};
use crate::view::Epoch;
use alloc::sync::Arc;
use alloc::vec;
use std::collections::BTreeSet;

const SPACE: SpaceId = SpaceId(0);
const STRATEGIES: [Strategy; 5] = [
    Strategy::Unicast,
    Strategy::Tree { arity: 1 },
    Strategy::Tree { arity: 3 },
    Strategy::Sockets { arity: 2 },
    Strategy::Computed,
];

fn mapping(first: u64, count: u64, frame: u64, rights: Rights) -> Mapping {
    Mapping {
        pages: Pages { first, count },
        frame,
        rights,
    }
}

fn both() -> Rights {
    Rights::READ.and(Rights::WRITE)
}

/// What a program asked for.
#[derive(Clone, Copy, Debug)]
enum Wish {
    Map(Mapping),
    Restrict(Pages, Rights),
    Fault(u64, Rights),
    Join(usize),
    Leave,
}

/// An operation that has begun.
struct Begun {
    core: usize,
    wish: Wish,
    /// Maps that had returned by then.
    before: BTreeSet<u64>,
}

struct World {
    monitors: Vec<Option<Spaces>>,
    /// Frame and rights of each page, as the hardware of each core has them.
    tlbs: Vec<BTreeMap<u64, (u64, Rights)>>,
    wires: BTreeMap<(usize, usize), VecDeque<Message>>,
    works: Vec<(usize, u64, Pages, Rights)>,
    epoch: Epoch,
    sent: usize,
    begun: BTreeMap<u64, Begun>,
    results: BTreeMap<u64, Result<(), Error>>,
    /// Frames of maps that have returned, and frames that must not be seen any more.
    returned: BTreeSet<u64>,
    dead: BTreeSet<u64>,
    pages_of: BTreeMap<u64, u64>,
    next_token: u64,
    next_frame: u64,
    seed: u64,
}

impl World {
    fn new(cores: usize, strategy: Strategy, seed: u64) -> Self {
        let cost = |from: usize, to: usize| Cost {
            send_ns: 50 + 50 * from.abs_diff(to) as u32,
            latency_ns: 100,
            receive_ns: 50,
        };
        let sockets = (0..cores).map(|core| core / 4).collect();
        let machine = Arc::new(Machine::new(sockets, cost));
        let spaces = |own| {
            Some(Spaces::new(
                own,
                Planner::new(own, strategy, machine.clone()),
            ))
        };
        let mut world = Self {
            monitors: (0..cores).map(spaces).collect(),
            tlbs: vec![BTreeMap::new(); cores],
            wires: BTreeMap::new(),
            works: Vec::new(),
            epoch: Epoch::default(),
            sent: 0,
            begun: BTreeMap::new(),
            results: BTreeMap::new(),
            returned: BTreeSet::new(),
            dead: BTreeSet::new(),
            pages_of: BTreeMap::new(),
            next_token: 0,
            next_frame: 1000,
            seed,
        };
        world.install();
        world.monitors[0]
            .as_mut()
            .expect("up")
            .create(SPACE)
            .expect("new");
        world
    }

    /// A world in which the space spans all.
    fn spanned(cores: usize, strategy: Strategy, seed: u64) -> Self {
        let mut world = Self::new(cores, strategy, seed);
        for core in 1..cores {
            let token = world.begin(0, Wish::Join(core));
            world.settle();
            assert_eq!(world.results[&token], Ok(()));
        }
        world
    }

    fn random(&mut self, below: usize) -> usize {
        let seed = &mut self.seed;
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*seed >> 33) as usize % below
    }

    fn living(&self) -> CoreSet {
        let up = |core: &usize| self.monitors[*core].is_some();
        (0..self.monitors.len()).filter(up).collect()
    }

    fn begin(&mut self, core: usize, wish: Wish) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        let before = self.returned.clone();
        self.begun.insert(token, Begun { core, wish, before });
        let monitor = self.monitors[core].as_mut().expect("up");
        let actions = match wish {
            Wish::Map(mapping) => monitor.map(token, SPACE, mapping),
            Wish::Restrict(pages, Rights::NONE) => monitor.unmap(token, SPACE, pages),
            Wish::Restrict(pages, rights) => monitor.protect(token, SPACE, pages, rights),
            Wish::Fault(page, access) => monitor.fault(token, SPACE, page, access),
            Wish::Join(other) => monitor.join(token, SPACE, other),
            Wish::Leave => monitor.leave(token, SPACE),
        };
        self.carry_out(core, actions);
        token
    }

    fn carry_out(&mut self, core: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(to, message) => {
                    assert_ne!(to, core);
                    let (kind, words) = message.encode();
                    assert!(words[0] <= u64::from(u32::MAX));
                    assert_eq!(Message::decode(kind, &words).as_ref(), Some(&message));
                    self.sent += 1;
                    if self.monitors[to].is_some() {
                        self.wires.entry((core, to)).or_default().push_back(message);
                    }
                }
                Action::Map { mapping, .. } => {
                    for at in 0..mapping.pages.count {
                        let frame = mapping.frame + at;
                        assert!(!self.dead.contains(&frame), "{frame} comes back on {core}");
                        let page = mapping.pages.first + at;
                        self.tlbs[core].insert(page, (frame, mapping.rights));
                    }
                }
                Action::Unmap {
                    work,
                    pages,
                    rights,
                    ..
                } => self.works.push((core, work, pages, rights)),
                Action::Freed { mapping, .. } => {
                    for frame in mapping.frame..mapping.frame + mapping.pages.count {
                        let held = |(other, _): &(u64, Rights)| *other == frame;
                        let is_held = self.tlbs.iter().any(|tlb| tlb.values().any(held));
                        assert!(!is_held, "{frame} is free and in use");
                        self.dead.insert(frame);
                    }
                }
                Action::Done { token, result } => self.done(core, token, result),
            }
        }
    }

    fn done(&mut self, core: usize, token: u64, result: Result<(), Error>) {
        let begun = self.begun.remove(&token).expect("once");
        assert_eq!(begun.core, core);
        self.results.insert(token, result);
        match (begun.wish, result) {
            (Wish::Map(mapping), Ok(())) => {
                let frames = mapping.frame..mapping.frame + mapping.pages.count;
                self.returned.extend(frames.clone());
                self.pages_of.extend(frames.zip(mapping.pages.first..));
            }
            (Wish::Map(mapping), Err(_)) => {
                for frame in mapping.frame..mapping.frame + mapping.pages.count {
                    let held = |(other, _): &(u64, Rights)| *other == frame;
                    let is_held = self.tlbs.iter().any(|tlb| tlb.values().any(held));
                    assert!(!is_held, "{frame} is in use, and its map failed");
                    self.dead.insert(frame);
                }
            }
            (Wish::Restrict(pages, Rights::NONE), Ok(())) => {
                // What was mapped before the unmap began is gone for good.
                let pages_of = &self.pages_of;
                let gone = begun.before.iter().filter(|frame| {
                    pages_of
                        .get(frame)
                        .is_some_and(|page| pages.overlaps(Pages::one(*page)))
                });
                self.dead.extend(gone);
                for tlb in &self.tlbs {
                    for (_, (frame, _)) in tlb.range(pages.first..pages.end()) {
                        assert!(!begun.before.contains(frame), "{frame} is there still");
                    }
                }
            }
            (Wish::Leave, Ok(())) => assert!(self.tlbs[core].is_empty()),
            _ => {}
        }
    }

    fn finish_work(&mut self, at: usize) {
        let (core, work, pages, rights) = self.works.swap_remove(at);
        self.tlbs[core].retain(|page, (_, held)| {
            if pages.overlaps(Pages::one(*page)) {
                *held = held.only(rights);
            }
            *held != Rights::NONE
        });
        let actions = self.monitors[core].as_mut().expect("up").unmapped(work);
        self.carry_out(core, actions);
    }

    /// Something happens; `false` if nothing can.
    fn step(&mut self) -> bool {
        let events = self.wires.len() + self.works.len();
        if events == 0 {
            return false;
        }
        let drawn = self.random(events);
        if drawn < self.works.len() {
            self.finish_work(drawn);
        } else {
            let at = drawn - self.works.len();
            let (from, to) = *self.wires.keys().nth(at).expect("in");
            let wire = self.wires.get_mut(&(from, to)).expect("in");
            let message = wire.pop_front().expect("not empty");
            if wire.is_empty() {
                self.wires.remove(&(from, to));
            }
            let actions = self.monitors[to]
                .as_mut()
                .expect("up")
                .on_message(from, &message);
            self.carry_out(to, actions);
        }
        self.check();
        true
    }

    fn settle(&mut self) {
        for _ in 0..1_000_000 {
            if !self.step() {
                assert!(self.begun.is_empty(), "{:#?} never end", self.monitors);
                return;
            }
        }
        panic!("no end");
    }

    /// All translations are in the home's table, with at least the rights of the replica.
    fn check(&self) {
        for core in self.living().iter() {
            let monitor = self.monitors[core].as_ref().expect("up");
            for (page, (frame, rights)) in &self.tlbs[core] {
                let held = monitor.held(SPACE, *page).expect("the record has it");
                assert_eq!(held.frame + page - held.pages.first, *frame);
                let home = monitor.home(SPACE).expect("a member");
                let home = self.monitors[home].as_ref();
                if let Some(home) = home.filter(|home| !home.is_recovering(SPACE)) {
                    let Some(entry) = home.homes.get(&SPACE) else {
                        continue; // it has not heard of it yet
                    };
                    let (mapping, entry) = entry.table.at(*page).expect("it is mapped");
                    assert_eq!(mapping.frame + page - mapping.pages.first, *frame);
                    assert!(
                        entry.holders.contains(core),
                        "{core} is not known to hold {page}"
                    );
                    assert!(mapping.rights.include(*rights));
                }
            }
        }
    }

    fn stop(&mut self, core: usize) {
        self.monitors[core] = None;
        self.tlbs[core].clear();
        self.works.retain(|work| work.0 != core);
        self.wires.retain(|(_, to), _| *to != core);
        self.begun.retain(|_, begun| begun.core != core);
    }

    fn install(&mut self) {
        let cores = self.living();
        self.epoch = self.epoch.next(cores.lowest().expect("somebody"));
        let epoch = self.epoch;
        let view = View {
            epoch,
            cores,
            settings: 0,
        };
        self.wires.clear();
        // In any order, but a message of the new view waits until the receiver has it.
        let mut sent = Vec::new();
        for core in view.cores.iter() {
            sent.push((
                core,
                self.monitors[core].as_mut().expect("up").installed(&view),
            ));
        }
        for (core, actions) in sent {
            self.carry_out(core, actions);
        }
    }
}

#[test]
fn an_unmap_is_at_most_two_messages_a_core() {
    for strategy in STRATEGIES {
        for cores in [1, 2, 3, 4, 5, 9, 16, 64] {
            for initiator in (0..cores).filter(|core| cores < 64 || core % 21 == 0) {
                let mut world = World::spanned(cores, strategy, initiator as u64);
                let mapped = mapping(7, 3, 100, both());
                let mapper = initiator / 2;
                world.sent = 0;
                world.begin(mapper, Wish::Map(mapped));
                world.settle();
                assert_eq!(world.sent, if mapper == 0 { 0 } else { 2 });
                for core in 0..cores {
                    world.begin(core, Wish::Fault(8, Rights::READ));
                }
                world.settle();
                assert!(world.tlbs.iter().all(|tlb| tlb.len() == 3));
                world.sent = 0;
                world.begin(initiator, Wish::Restrict(mapped.pages, Rights::READ));
                world.settle();
                assert_eq!(world.sent, 2 * (cores - 1), "{strategy:?}: protect");
                assert!(
                    world
                        .tlbs
                        .iter()
                        .all(|tlb| tlb.values().all(|it| it.1 == Rights::READ))
                );
                world.sent = 0;
                world.begin(initiator, Wish::Restrict(mapped.pages, Rights::NONE));
                world.settle();
                assert_eq!(world.sent, 2 * (cores - 1), "{strategy:?}: unmap");
                assert!(world.tlbs.iter().all(BTreeMap::is_empty));
                assert!(world.results.values().all(|result| *result == Ok(())));
            }
        }
    }
}

#[test]
fn only_holders_hear_of_an_unmap() {
    let mut world = World::spanned(16, Strategy::Tree { arity: 2 }, 1);
    let mapped = mapping(7, 1, 100, both());
    world.begin(3, Wish::Map(mapped));
    world.settle();
    world.begin(5, Wish::Fault(7, Rights::WRITE));
    world.settle();
    world.sent = 0;
    let token = world.begin(3, Wish::Restrict(mapped.pages, Rights::NONE));
    world.settle();
    assert_eq!((world.sent, world.results[&token]), (4, Ok(())));
    world.sent = 0;
    let token = world.begin(3, Wish::Restrict(mapped.pages, Rights::NONE));
    let fault = world.begin(5, Wish::Fault(7, Rights::READ));
    world.settle();
    assert_eq!((world.sent, world.results[&token]), (4, Ok(())));
    assert_eq!(world.results[&fault], Err(Error::NotMapped));
}

#[test]
fn rights_are_kept() {
    let mut world = World::spanned(3, Strategy::Unicast, 1);
    let mut run = |core, wish| {
        let token = world.begin(core, wish);
        world.settle();
        world.results[&token]
    };
    assert_eq!(run(1, Wish::Map(mapping(0, 10, 50, Rights::READ))), Ok(()));
    assert_eq!(
        run(2, Wish::Map(mapping(9, 2, 90, Rights::READ))),
        Err(Error::Exists)
    );
    assert_eq!(
        run(2, Wish::Fault(3, Rights::WRITE)),
        Err(Error::NotAllowed)
    );
    assert_eq!(run(2, Wish::Fault(3, Rights::READ)), Ok(()));
    let some = Pages { first: 2, count: 3 };
    assert_eq!(run(1, Wish::Restrict(some, both())), Ok(()));
    assert_eq!(run(2, Wish::Fault(3, Rights::WRITE)), Ok(()));
    assert_eq!(
        run(2, Wish::Fault(5, Rights::WRITE)),
        Err(Error::NotAllowed)
    );
    let beyond = Pages {
        first: 10,
        count: 5,
    };
    assert_eq!(
        run(1, Wish::Restrict(beyond, both())),
        Err(Error::NotMapped)
    );
    assert_eq!(run(1, Wish::Restrict(beyond, Rights::NONE)), Ok(()));
    assert_eq!(run(0, Wish::Join(7)), Err(Error::NoSuchCore));
    assert_eq!(run(2, Wish::Leave), Ok(()));
    assert_eq!(
        run(2, Wish::Fault(3, Rights::READ)),
        Err(Error::NoSuchSpace)
    );
    assert_eq!(
        run(
            1,
            Wish::Restrict(
                Pages {
                    first: 0,
                    count: 10
                },
                Rights::NONE
            )
        ),
        Ok(())
    );
    assert_eq!(run(0, Wish::Leave), Ok(()));
    assert_eq!(run(1, Wish::Map(mapping(3, 1, 60, both()))), Ok(()));
    assert_eq!(run(1, Wish::Leave), Ok(()));
    for core in 0..3 {
        let monitor = world.monitors[core].as_ref().expect("up");
        assert!(monitor.homes.is_empty() && monitor.replicas.is_empty());
    }
}

/// Random wishes on overlapping pages, messages and works in any order, cores that stop.
fn campaign(cores: usize, strategy: Strategy, seed: u64, stops: usize) -> [usize; 2] {
    let mut world = match seed % 4 {
        0 => World::new(cores, strategy, seed),
        _ => World::spanned(cores, strategy, seed),
    };
    let mut stops = stops.min(cores - 1);
    let mut counts = [0; 2];
    for _ in 0..400 {
        match world.random(12) {
            0..4 => {
                let is_member = |core: &usize| {
                    let monitor = world.monitors[*core].as_ref();
                    monitor.is_some_and(|monitor| monitor.span(SPACE).is_some())
                };
                let members: CoreSet = (0..cores).filter(is_member).collect();
                let Some(core) = members.nth(world.random(members.len().max(1))) else {
                    continue;
                };
                let first = world.random(6) as u64;
                let count = 1 + world.random(3) as u64;
                let pages = Pages { first, count };
                let rights = [Rights::READ, both()][world.random(2)];
                let wish = match world.random(12) {
                    0..3 => {
                        world.next_frame += 10;
                        Wish::Map(mapping(first, count, world.next_frame, rights))
                    }
                    3..5 => Wish::Restrict(pages, Rights::NONE),
                    5 => Wish::Restrict(pages, rights),
                    6..10 => Wish::Fault(first, rights),
                    10 => Wish::Join(world.random(cores)),
                    _ if members.len() > 1 && world.random(3) == 0 => Wish::Leave,
                    _ => continue,
                };
                world.begin(core, wish);
            }
            4 if stops > 0 && world.random(20) == 0 => {
                let living = world.living();
                let core = living.nth(world.random(living.len())).expect("in");
                world.stop(core);
                stops -= 1;
                for _ in 0..world.random(6) {
                    world.step();
                }
                world.install();
            }
            _ => {
                world.step();
            }
        }
    }
    world.settle();
    for result in world.results.values() {
        counts[usize::from(result.is_err())] += 1;
    }
    for core in world.living().iter() {
        let monitor = world.monitors[core].as_ref().expect("up");
        assert_eq!(monitor.under_way(), 0);
        assert!(monitor.works.is_empty() && monitor.round.under_way() == 0);
        assert!(
            monitor
                .answered
                .values()
                .all(|answers| answers.len() <= WINDOW)
        );
        for home in monitor.homes.values() {
            assert!(home.queue.is_empty() && home.active.is_empty() && home.recovery.is_none());
        }
        if let Some(replica) = monitor.replicas.get(&SPACE) {
            let home = world.monitors[replica.home].as_ref().expect("up");
            assert_eq!(home.homes[&SPACE].span, replica.span);
        }
    }
    counts
}

#[test]
fn nothing_comes_back_whatever_happens() {
    let mut counts = [0; 2];
    for seed in 0..3000 {
        let cores = 1 + seed as usize % 7;
        let strategy = STRATEGIES[seed as usize / 7 % STRATEGIES.len()];
        for (all, one) in counts.iter_mut().zip(campaign(cores, strategy, seed, 2)) {
            *all += one;
        }
    }
    std::println!("{} operations done, {} refused", counts[0], counts[1]);
    assert!(counts[0] > counts[1] / 2, "{counts:?}");
}

/// Words at random, from cores of the view and others: no panic, and what is asked for and told in
/// rounds makes nothing grow. Reports are believed, as only monitors send them.
#[test]
fn nonsense_is_left_aside() {
    for believed in [false, true] {
        let mut world = World::spanned(3, Strategy::Unicast, 5);
        for _ in 0..100_000 {
            let kind = 0x90 + world.random(8) as u16;
            let mut words = [0; 7];
            for word in &mut words {
                let bits = world.random(1 << 16) as u64;
                let small = bits & 7;
                *word = match world.random(6) {
                    0 => bits,
                    1 => small,
                    2 => bits << 40,
                    3 => (bits << 28) | (1 + small),
                    4 => small << 48 | (bits >> 3 & 15) << 40,
                    _ => u64::MAX,
                };
            }
            let Some(message) = Message::decode(kind, &words) else {
                continue;
            };
            if matches!(message, Message::Holding { .. } | Message::Reported { .. }) && !believed {
                continue;
            }
            let (to, from) = (world.random(3), world.random(5));
            let monitor = world.monitors[to].as_mut().expect("up");
            for action in monitor.on_message(from, &message) {
                if let Action::Unmap { work, .. } = action {
                    monitor.unmapped(work);
                }
            }
            assert!(monitor.works.len() < 100 && monitor.round.under_way() <= 3 * WINDOW);
            assert!(believed || monitor.homes.len() <= 1);
            let queued = |home: &Home| home.queue.len();
            let longest = monitor.homes.values().map(queued).max();
            assert!(longest.is_none_or(|longest| longest <= 4 * WINDOW + 4));
        }
    }
}

/// More unmaps than rounds at once, of many spaces: all end.
#[test]
fn rounds_are_waited_for() {
    let mut world = World::spanned(4, Strategy::Unicast, 9);
    for core in 0..4 {
        for at in 0..WINDOW as u64 {
            let page = 100 * core as u64 + at;
            world.begin(core, Wish::Map(mapping(page, 1, 1000 + page, both())));
        }
        world.settle();
    }
    for reader in 0..4 {
        for owner in 0..4 {
            for at in 0..WINDOW as u64 {
                world.begin(reader, Wish::Fault(100 * owner + at, Rights::READ));
            }
            world.settle();
        }
    }
    world.sent = 0;
    let mut tokens = Vec::new();
    for core in 0..4 {
        for at in 0..WINDOW as u64 {
            let pages = Pages::one(100 * core as u64 + at);
            tokens.push(world.begin(core, Wish::Restrict(pages, Rights::NONE)));
        }
        let more = world.begin(core, Wish::Fault(100 * core as u64, Rights::READ));
        assert_eq!(world.results[&more], Err(Error::Busy));
    }
    world.settle();
    assert_eq!(world.sent, 4 * WINDOW * 6);
    assert!(tokens.iter().all(|token| world.results[token] == Ok(())));
    assert!(world.tlbs.iter().all(BTreeMap::is_empty));
}

/// The home stops in the midst of an unmap: the next one finishes it, in few messages.
#[test]
fn the_next_core_takes_over() {
    for strategy in STRATEGIES {
        for cores in [2, 3, 8, 16] {
            for steps in 0..20 {
                let mut world = World::spanned(cores, strategy, steps);
                let mapped = mapping(7, 3, 100, both());
                world.begin(1, Wish::Map(mapped));
                world.settle();
                for core in 0..cores {
                    world.begin(core, Wish::Fault(8, Rights::READ));
                }
                world.settle();
                let initiator = cores - 1;
                let token = world.begin(initiator, Wish::Restrict(mapped.pages, Rights::NONE));
                for _ in 0..steps {
                    world.step();
                }
                world.stop(0);
                world.sent = 0;
                world.install();
                let monitor = world.monitors[initiator].as_ref().expect("up");
                assert_eq!(monitor.home(SPACE), Some(1));
                world.settle();
                assert_eq!(world.results[&token], Ok(()));
                assert!(world.tlbs.iter().all(BTreeMap::is_empty));
                // Reports and queries, who is in the span, the unmap.
                assert!(world.sent <= 7 * (cores - 1), "{} for {cores}", world.sent);
            }
        }
    }
}

/// A map has returned: then its core has it, and tells the next home of it, whatever was under way.
#[test]
fn whoever_maps_holds_it() {
    for strategy in STRATEGIES {
        for seed in 0..160 {
            let mut world = World::spanned(4, strategy, seed);
            let map = world.begin(2, Wish::Map(mapping(4, 2, 100, both())));
            match seed % 4 {
                0 => world.begin(2, Wish::Restrict(Pages::one(5), Rights::NONE)),
                1 => world.begin(2, Wish::Restrict(Pages::one(5), Rights::READ)),
                // Its round makes grants old.
                _ => world.begin(1, Wish::Leave),
            };
            for _ in 0..seed / 4 % 10 {
                world.step();
            }
            if seed % 4 == 3 {
                // The home has done it, and its answer is lost.
                world.stop(3);
                world.install();
            }
            world.settle();
            assert_eq!(world.results[&map], Ok(()));
            world.stop(0);
            world.install();
            let touch = world.begin(2, Wish::Fault(4, Rights::WRITE));
            world.settle();
            assert_eq!(world.results[&touch], Ok(()), "{strategy:?}, {seed}");
            assert_eq!(world.tlbs[2][&4], (100, both()));
        }
    }
}

/// Of what others have protected in part, a home that takes over hears in parts.
#[test]
fn a_map_in_parts_is_the_same_map() {
    let mut done = 0;
    for steps in 0..40 {
        let mut world = World::spanned(4, Strategy::Unicast, steps);
        let map = world.begin(2, Wish::Map(mapping(4, 2, 100, both())));
        // All but the answer.
        let answered = |world: &World| world.wires.contains_key(&(0, 2));
        while !answered(&world) {
            world.step();
        }
        let answer = world.wires.remove(&(0, 2));
        for wish in [
            Wish::Fault(4, Rights::WRITE),
            Wish::Restrict(Pages::one(5), Rights::READ),
        ] {
            let token = world.begin(3, wish);
            for _ in 0..20 {
                world.step();
            }
            done += usize::from(world.results.get(&token) == Some(&Ok(())));
        }
        assert!(answer.is_some());
        world.stop(0);
        world.install();
        world.settle();
        assert_eq!(world.results[&map], Ok(()), "core 3 has it");
    }
    assert!(done >= 40, "{done}");
}

/// The last of the span stop while the home is outside of it.
#[test]
fn what_nobody_can_ask_for_is_free() {
    let mut world = World::spanned(3, Strategy::Unicast, 1);
    world.begin(1, Wish::Map(mapping(4, 2, 100, both())));
    world.begin(2, Wish::Fault(4, Rights::READ));
    world.settle();
    world.begin(0, Wish::Leave);
    world.settle();
    assert!(world.dead.is_empty());
    world.stop(1);
    world.stop(2);
    world.install();
    assert_eq!(world.dead, BTreeSet::from([100, 101]));
    let home = world.monitors[0].as_ref().expect("up");
    assert!(home.homes.is_empty());
}

/// All messages come back as they went.
#[test]
fn messages_are_one_line() {
    let space = SpaceId::new(255, 0xff_ffff);
    let all = both().and(Rights::EXECUTE);
    let last = mapping((1 << 36) - 5, 5, (1 << 40) - 5, all);
    let asks = [
        Ask::Map {
            mapping: last,
            again: false,
        },
        Ask::Map {
            mapping: last,
            again: true,
        },
        Ask::Restrict {
            pages: last.pages,
            rights: Rights::NONE,
        },
        Ask::Restrict {
            pages: last.pages,
            rights: all,
        },
        Ask::Fetch {
            page: (1 << 36) - 1,
        },
        Ask::Join { core: 255 },
        Ask::Leave,
    ];
    let sequence = u32::MAX;
    let asks = asks.map(|ask| Message::Ask {
        sequence,
        space,
        ask,
    });
    let answers = [
        Answer::Done,
        Answer::Grant(last),
        Answer::Failed(Error::Invalid),
    ];
    let answers = answers.map(|answer| Message::Answer { sequence, answer });
    let span = CoreSet::first(256);
    let others = [
        Message::Holding {
            space,
            mapping: last,
        },
        Message::Reported {
            space,
            span: span.clone(),
        },
        Message::Query { space },
        Message::Absent { space },
    ];
    for message in asks.into_iter().chain(answers).chain(others) {
        let (kind, words) = message.encode();
        assert_eq!(Message::decode(kind, &words), Some(message));
    }
    for change in [
        Change::Restrict {
            pages: last.pages,
            rights: all,
        },
        Change::Span { with_home: false },
        Change::Span { with_home: true },
    ] {
        let message = round::Message::Spread {
            root: 255,
            sequence,
            set: span.clone(),
            payload: change.payload(space),
        };
        let (kind, words) = Message::Round(message.clone()).encode();
        assert_eq!(Message::decode(kind, &words), Some(Message::Round(message)));
        assert_eq!(
            Change::from_payload(change.payload(space)),
            Some((space, change))
        );
    }
}
