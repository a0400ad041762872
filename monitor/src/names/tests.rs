//! Many monitors in one process, over wires with delays, with cores that stop and start.

extern crate std;

use super::*;
use crate::test_net::Random;
use alloc::boxed::Box;
use alloc::format;
use alloc::vec;
use std::collections::{BTreeMap, VecDeque};
use std::println;

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

/// A core that is up: views are installed on one core after the other.
#[derive(Clone)]
struct Core {
    names: Names,
    view: View,
    /// Views that are to be installed next.
    views: VecDeque<View>,
}

/// An answer that somebody waits for.
enum Asked {
    Update,
    Read { name: Name, since: usize },
}

struct World {
    cores: BTreeMap<usize, Core>,
    wires: BTreeMap<(usize, usize), VecDeque<(Epoch, Message)>>,
    view: View,
    asked: BTreeMap<(usize, u64), Asked>,
    results: Vec<(usize, u64, Result<(), Refusal>)>,
    /// One replica of each version.
    versions: BTreeMap<Version, Replica>,
    /// When the first core was at each.
    times: BTreeMap<Version, usize>,
    now: usize,
    sent: usize,
    token: u64,
    /// Name and value, when it was asked for and when it was answered.
    reads: Vec<(Name, Option<u64>, usize, usize)>,
    reads_waited: usize,
    changes: Vec<(usize, Name, Option<u64>)>,
}

impl World {
    fn new(cores: usize) -> Self {
        let mut world = Self {
            cores: BTreeMap::new(),
            wires: BTreeMap::new(),
            view: View::default(),
            asked: BTreeMap::new(),
            results: vec![],
            versions: BTreeMap::new(),
            times: BTreeMap::new(),
            now: 0,
            sent: 0,
            token: 0,
            reads: vec![],
            reads_waited: 0,
            changes: vec![],
        };
        world.change(|members| *members = CoreSet::first(cores));
        world.run();
        world.sent = 0;
        world
    }

    /// Decides on the next view: whoever is not in it stops, whoever is new starts.
    fn change(&mut self, edit: impl FnOnce(&mut CoreSet)) {
        edit(&mut self.view.cores);
        let members = self.view.cores.clone();
        self.view.epoch = self.view.epoch.next(members.lowest().unwrap());
        self.cores.retain(|core, _| members.contains(*core));
        self.wires.retain(|(from, to), _| {
            members.contains(*to) && (members.contains(*from) || from % 2 == 0)
        });
        self.asked.retain(|(core, _), _| members.contains(*core));
        for core in members.iter() {
            let view = self.view.clone();
            let entry = self.cores.entry(core).or_insert_with(|| Core {
                names: Names::new(core),
                view: View::default(),
                views: VecDeque::new(),
            });
            entry.views.push_back(view);
        }
    }

    fn stop_and_change(&mut self, core: usize) {
        self.change(|members| {
            members.remove(core);
        });
    }

    fn carry_out(&mut self, core: usize, actions: Vec<Action>) {
        self.now += 1;
        // One message may bring about several versions at the coordinator: what it sends tells.
        let epoch = self.cores[&core].view.epoch;
        let is_alone = self.cores[&core].view.cores.len() == 1;
        let is_synced = |action: &Action| matches!(action, Action::Send(_, Message::Synced { .. }));
        let synced = actions.iter().rposition(is_synced);
        let mut reached = |counter| {
            let time = self.times.entry(Version { epoch, counter });
            time.or_insert(self.now);
        };
        if synced.is_some() {
            reached(0);
        }
        if synced.is_some() || self.versions.contains_key(&Version { epoch, counter: 0 }) {
            for action in actions.iter().skip(synced.unwrap_or(0)) {
                if let Action::Send(_, Message::Commit { counter, .. }) = action {
                    reached(*counter);
                }
            }
        }
        self.observe(core);
        for action in actions {
            match action {
                Action::Send(to, message) => {
                    assert_ne!(to, core);
                    let (kind, words) = message.encode();
                    assert!(words[0] >> 32 == 0);
                    assert_eq!(Message::decode(kind, &words).as_ref(), Some(&message));
                    self.sent += 1;
                    if self.cores.contains_key(&to) {
                        let wire = self.wires.entry((core, to)).or_default();
                        wire.push_back((epoch, message));
                    }
                }
                Action::Done { token, result } => {
                    assert!(matches!(
                        self.asked.remove(&(core, token)),
                        Some(Asked::Update)
                    ));
                    self.results.push((core, token, result));
                }
                Action::LookedUp { token, value } => {
                    self.reads_waited += 1;
                    match self.asked.remove(&(core, token)) {
                        // A core that is alone does many steps at once, and tells nobody.
                        Some(Asked::Read { .. }) if is_alone => {}
                        Some(Asked::Read { name, since }) => self.check_read(name, value, since),
                        _ => panic!("an answer to nothing"),
                    }
                }
                Action::Changed { name, value, .. } => self.changes.push((core, name, value)),
            }
        }
    }

    /// Replicas are equal at equal versions; the first that is at one says what was when.
    fn observe(&mut self, core: usize) {
        let replica = self.cores[&core].names.replica().clone();
        if !self.cores[&core].names.is_synced() {
            return;
        }
        self.times.entry(replica.version).or_insert(self.now);
        let first = self.versions.entry(replica.version);
        let first = first.or_insert_with(|| replica.clone());
        assert_eq!(*first, replica, "core {core}");
    }

    /// Every read saw what was bound at some moment between its call and its answer.
    fn check_reads(&mut self) {
        for (name, value, since, until) in self.reads.drain(..) {
            let starts = self.versions.keys().map(|version| self.times[version]);
            let ends = starts.clone().skip(1).chain([usize::MAX]);
            let eras = self.versions.values().zip(starts.zip(ends));
            let mut fits = eras.filter(|(replica, (start, end))| {
                let bound = replica.bindings.get(&name).map(|binding| binding.value);
                bound == value && *start <= until && since < *end
            });
            assert!(
                fits.next().is_some(),
                "{name:?} was not {value:?} from {since} to {until}"
            );
        }
    }

    fn check_read(&mut self, name: Name, value: Option<u64>, since: usize) {
        self.reads.push((name, value, since, self.now));
    }

    fn with(&mut self, core: usize, work: impl FnOnce(&mut Names, u64) -> Vec<Action>) -> u64 {
        self.token += 1;
        let token = self.token;
        self.asked.insert((core, token), Asked::Update);
        let actions = work(&mut self.cores.get_mut(&core).unwrap().names, token);
        self.carry_out(core, actions);
        token
    }

    fn bind(&mut self, core: usize, domain: u32, name: Name, value: u64) -> u64 {
        self.with(core, |names, token| names.bind(token, domain, name, value))
    }

    fn unbind(&mut self, core: usize, domain: u32, name: Name) -> u64 {
        self.with(core, |names, token| names.unbind(token, domain, name))
    }

    fn end(&mut self, core: usize, domain: u32) {
        let actions = self
            .cores
            .get_mut(&core)
            .unwrap()
            .names
            .domain_ended(domain);
        self.carry_out(core, actions);
    }

    fn read(&mut self, core: usize, name: Name) -> Lookup {
        self.token += 1;
        let (token, since) = (self.token, self.now);
        let sent = self.sent;
        let lookup = self.cores.get_mut(&core).unwrap().names.lookup(token, name);
        assert_eq!(sent, self.sent, "look-ups send nothing");
        match lookup {
            Lookup::Found(value) => self.check_read(name, Some(value), since),
            Lookup::Absent => self.check_read(name, None, since),
            Lookup::Wait(token) => {
                self.asked
                    .insert((core, token), Asked::Read { name, since });
            }
            Lookup::Busy => panic!("so many reads?"),
        }
        lookup
    }

    /// One message arrives, or one core installs its next view.
    fn step(&mut self, random: &mut Random) -> bool {
        let mut choices: Vec<(usize, usize)> = self
            .cores
            .iter()
            .filter(|(_, one)| !one.views.is_empty())
            .map(|(core, _)| (*core, *core))
            .collect();
        // What is of an epoch that the receiver has not installed waits.
        choices.extend(
            self.wires
                .iter()
                .filter(|((_, to), wire)| {
                    let epoch = self.cores[to].view.epoch;
                    wire.front().is_some_and(|(of, _)| *of <= epoch)
                })
                .map(|(ends, _)| *ends),
        );
        if choices.is_empty() {
            return false;
        }
        let (from, to) = choices[random.below(choices.len())];
        let core = self.cores.get_mut(&to).unwrap();
        let actions = if from == to {
            core.view = core.views.pop_front().unwrap();
            // A core may have heard of the last of several views only.
            if !core.views.is_empty() && random.below(2) == 0 && core.view.epoch.round > 1 {
                core.view = core.views.pop_front().unwrap();
            }
            let view = core.view.clone();
            core.names.installed(&view)
        } else {
            let wire = self.wires.get_mut(&(from, to)).unwrap();
            let (epoch, message) = wire.pop_front().unwrap();
            if epoch == core.view.epoch {
                core.names.on_message(from, &message)
            } else {
                vec![]
            }
        };
        self.carry_out(to, actions);
        true
    }

    fn run(&mut self) {
        let mut random = Random(1);
        while self.step(&mut random) {}
        self.check_quiet();
    }

    fn check_quiet(&self) {
        assert_eq!(self.asked.len(), 0, "somebody waits for an answer");
        let mut replicas = self.cores.values().map(|core| core.names.replica());
        let first = replicas.next().unwrap();
        assert!(replicas.all(|replica| replica == first));
        for core in self.cores.values() {
            let names = &core.names;
            assert!(names.is_synced() && names.is_idle(), "{names:?}");
            assert!(names.queue.is_empty() && names.under_way.is_empty());
            assert!(names.prepared.is_empty() && names.incoming.is_none());
        }
    }

    fn result(&self, token: u64) -> Result<(), Refusal> {
        let mut results = self.results.iter();
        results.find(|(_, of, _)| *of == token).unwrap().2
    }
}

/// N cores take at most 3(N-1) messages an update, and a refusal takes one answer.
#[test]
fn few_messages() {
    for cores in [1, 2, 3, 4, 7, 64, 250] {
        let mut world = World::new(cores);
        let most = 3 * (cores - 1);
        let first = world.bind(0, 1, name("by the coordinator"), 1);
        world.run();
        assert_eq!(world.sent, most);
        assert_eq!(world.result(first), Ok(()));
        let last = cores - 1;
        world.sent = 0;
        let token = world.bind(last, 1, name("by another"), 2);
        world.run();
        assert_eq!(world.result(token), Ok(()));
        assert!(world.sent <= most);
        assert_eq!(world.sent, if cores > 1 { 3 * cores - 4 } else { 0 });
        for name in [name("one"), name("two"), name("three")] {
            world.bind(last, 7, name, 3);
        }
        world.run();
        world.sent = 0;
        world.end(last, 7);
        world.run();
        assert!(world.sent <= most, "a domain's end is one update");
        assert_eq!(world.cores[&0].names.replica().bindings.len(), 2);
        world.sent = 0;
        let token = world.unbind(last, 2, name("by another"));
        world.run();
        assert_eq!(world.result(token), Err(Refusal::NotOwner));
        assert_eq!(world.sent, if cores > 1 { 2 } else { 0 });
        world.sent = 0;
        for core in 0..cores {
            assert_eq!(world.read(core, name("by another")), Lookup::Found(2));
            assert_eq!(world.read(core, name("one")), Lookup::Absent);
        }
        assert_eq!(world.sent, 0);
    }
}

#[test]
fn refusals() {
    let mut world = World::new(3);
    let mut try_it = |core, domain, text: &str, value: Option<u64>| {
        let token = match value {
            Some(value) => world.bind(core, domain, name(text), value),
            None => world.unbind(core, domain, name(text)),
        };
        world.run();
        world.result(token)
    };
    assert_eq!(try_it(1, 1, "a", Some(1)), Ok(()));
    assert_eq!(try_it(1, 1, "a", Some(2)), Ok(()), "anew");
    assert_eq!(try_it(1, 2, "a", Some(3)), Err(Refusal::AlreadyBound));
    assert_eq!(try_it(2, 1, "a", Some(3)), Err(Refusal::AlreadyBound));
    assert_eq!(try_it(2, 1, "a", None), Err(Refusal::NotOwner));
    assert_eq!(try_it(0, 1, "b", None), Err(Refusal::NotBound));
    assert_eq!(try_it(1, 1, "a", None), Ok(()));
    for number in 0..MAX_NAMES {
        let text = format!("name {number}");
        assert_eq!(try_it(number % 3, 1, &text, Some(0)), Ok(()));
    }
    assert_eq!(try_it(0, 1, "one more", Some(1)), Err(Refusal::Full));
    assert_eq!(try_it(0, 1, "name 0", Some(1)), Ok(()));
    assert_eq!(try_it(0, 1, "name 0", None), Ok(()));
    assert_eq!(try_it(2, 1, "one more", Some(1)), Ok(()));
}

#[test]
fn too_many_at_once() {
    let mut world = World::new(2);
    let tokens: Vec<u64> = (0..WINDOW as u64 + 3)
        .map(|number| world.bind(1, 1, name(&format!("{number}")), number))
        .collect();
    world.run();
    let refused = |token: &&u64| world.result(**token) == Err(Refusal::Busy);
    assert_eq!(tokens.iter().filter(refused).count(), 3);
    // Numbers go round many times, by commits and by refusals, and are not mistaken for old ones.
    let mut world = World::new(2);
    for round in 0..70_000 {
        let token = world.unbind(1, 1, name("nothing"));
        world.run();
        assert_eq!(world.result(token), Err(Refusal::NotBound));
        if round % 7 == 0 {
            let token = world.bind(1, 1, name("something"), round);
            world.run();
            assert_eq!(world.result(token), Ok(()));
        }
        world.results.clear();
        world.versions.clear();
    }
}

#[test]
fn watches() {
    let mut world = World::new(3);
    let names = &mut world.cores.get_mut(&2).unwrap().names;
    names.watch(1, name("a"), false).unwrap();
    names.watch(2, name("a"), true).unwrap();
    world.bind(1, 1, name("a"), 1);
    world.run();
    assert_eq!(world.changes.len(), 2);
    world.bind(1, 1, name("ab"), 2);
    world.bind(1, 1, name("b"), 3);
    world.run();
    assert_eq!(world.changes.len(), 3);
    assert_eq!(world.changes[2], (2, name("ab"), Some(2)));
    world.changes.clear();
    world.stop_and_change(1);
    world.run();
    assert_eq!(world.changes.len(), 3, "what a core had bound vanishes");
    assert!(world.changes.iter().all(|(_, _, value)| value.is_none()));
    world.bind(0, 1, name("a"), 9);
    world.run();
    world.change(|members| members.insert(1));
    world.run();
    assert_eq!(
        world.read(1, name("a")),
        Lookup::Found(9),
        "it was told all"
    );
    world.changes.clear();
    world.cores.get_mut(&2).unwrap().names.unwatch(2);
    world.unbind(0, 1, name("a"));
    world.run();
    assert_eq!(world.changes.len(), 1);
}

#[test]
fn names_are_checked() {
    assert_eq!(Name::new(b""), None);
    assert_eq!(Name::new(&[b'x'; 33]), None);
    assert_eq!(Name::new(b"a\0b"), None);
    let longest = Name::new(&[b'x'; 32]).unwrap();
    assert_eq!(longest.bytes().len(), 32);
    assert_eq!(Name::from_words(longest.words()), Some(longest));
    assert_eq!(Name::from_words([0x6100, 0, 0, 0]), None);
    assert_eq!(Name::from_words([0x61, 0x61, 0, 0]), None);
    assert_eq!(Name::from_words([0x61, 0, 0, 0]), Some(name("a")));
}

/// Updates, reads, cores that stop and start, in any order: seeds tell one run from another.
fn churn(seed: u64) -> (usize, usize) {
    let mut random = Random(seed);
    let cores = 1 + random.below(6);
    let mut world = World::new(cores);
    let names: Vec<Name> = (0..1 + random.below(6))
        .map(|number| name(&format!("name {number}")))
        .collect();
    let rate = 1 + random.below(12);
    let faults = random.below(40) + 1;
    for _ in 0..600 {
        let living: Vec<usize> = world.cores.keys().copied().collect();
        let core = living[random.below(living.len())];
        let (of, domain) = (names[random.below(names.len())], random.below(2) as u32);
        match random.below(4 * rate) {
            0 => {
                let value = world.token;
                world.bind(core, domain, of, value);
            }
            1 => {
                world.unbind(core, domain, of);
            }
            2 => world.end(core, domain),
            3..6 => {
                world.read(core, of);
            }
            _ => {}
        }
        match random.below(25 * faults) {
            0 if living.len() > 1 => world.stop_and_change(core),
            1 => {
                let new = random.below(cores + 2);
                if !world.view.cores.contains(new) {
                    world.change(|members| members.insert(new));
                }
            }
            2 => world.change(|_| {}),
            _ => {}
        }
        world.step(&mut random);
        if random.below(3) == 0 {
            world.step(&mut random);
        }
    }
    while world.step(&mut random) {}
    world.check_quiet();
    for name in names {
        for core in world.cores.keys().copied().collect::<Vec<_>>() {
            assert!(!matches!(world.read(core, name), Lookup::Wait(_)));
        }
    }
    let reads = world.reads.len();
    world.check_reads();
    (reads, world.reads_waited)
}

#[test]
fn replicas_agree_whatever_happens() {
    let seeds = std::env::var("SEEDS").map_or(3_000, |seeds| seeds.parse().unwrap());
    let (mut reads, mut waited) = (0, 0);
    for seed in 0..seeds {
        let result = std::panic::catch_unwind(|| churn(seed));
        let Ok((some, of_them)) = result else {
            panic!("seed {seed}");
        };
        reads += some;
        waited += of_them;
    }
    println!("{reads} reads, {waited} of them waited");
    assert!(waited > 0 && waited < reads);
}

/// Any message from anybody at any time: no panic, nothing that grows without end.
#[test]
fn garbage_does_no_harm() {
    let mut random = Random(5);
    for own in [0, 1] {
        let mut names = Box::new(Names::new(own));
        for round in 0..200_000u32 {
            let kind = 0xa0 + random.below(24) as u16;
            let small = |random: &mut Random| random.below(4) as u64;
            let mut words = [0; 7].map(|_: u64| small(&mut random));
            words[1] = 0x61 + small(&mut random);
            if random.below(2) == 0 {
                (words[2], words[3], words[4]) = (0, 0, 0);
            }
            if random.below(9) == 0 {
                words[random.below(7)] = u64::MAX >> random.below(64);
            }
            let from = random.below(5);
            if let Some(message) = Message::decode(kind, &words) {
                names.on_message(from, &message);
            }
            if random.below(50) == 0 {
                names.bind(1, 1, name("a"), 1);
                names.lookup(1, name("a"));
            }
            if round % 1000 == 0 {
                names.installed(&View {
                    epoch: Epoch {
                        round: round + 1,
                        coordinator: 0,
                    },
                    cores: CoreSet::first(4),
                    settings: 0,
                });
            }
        }
        assert!(names.pending.len() <= WINDOW && names.prepared.len() <= PIPELINE);
        assert!(names.queue.len() <= 5 * WINDOW && names.reads.len() <= MAX_READS);
        assert!(names.replica.bindings.len() <= MAX_NAMES);
    }
}

/// Hands over all messages among these cores, and what they lead to; what else was to be done.
fn settle(cores: &mut [Names], first: Vec<(usize, Action)>) -> Vec<(usize, Action)> {
    let mut open = VecDeque::from(first);
    let mut others = vec![];
    while let Some((from, action)) = open.pop_front() {
        let Action::Send(to, message) = action else {
            others.push((from, action));
            continue;
        };
        if let Some(receiver) = cores.iter_mut().find(|one| one.own == to) {
            let actions = receiver.on_message(from, &message);
            open.extend(actions.into_iter().map(|action| (to, action)));
        }
    }
    others
}

fn install(cores: &mut [Names], view: &View) -> Vec<(usize, Action)> {
    let all = cores.iter_mut().flat_map(|one| {
        let own = one.own;
        let actions = one.installed(view).into_iter();
        actions.map(move |action| (own, action))
    });
    all.collect()
}

fn view(round: u32, cores: &[usize]) -> View {
    let coordinator = cores.iter().min().map_or(0, |core| *core as u16);
    View {
        epoch: Epoch { round, coordinator },
        cores: cores.iter().copied().collect(),
        settings: 0,
    }
}

#[test]
fn what_a_former_core_had_asked_for_is_not_the_new_ones() {
    let mut cores = vec![Names::new(0), Names::new(1)];
    let first = install(&mut cores, &view(1, &[0, 1]));
    settle(&mut cores, first);
    let bound = cores[1].bind(1, 1, name("old"), 1);
    settle(&mut cores, bound.into_iter().map(|one| (1, one)).collect());
    assert_eq!(cores[0].replica().bindings.len(), 1);
    // Core 1 is back, and asks for something before it was told what there is.
    cores[1] = Names::new(1);
    let second = install(&mut cores, &view(2, &[0, 1]));
    assert_eq!(cores[1].bind(7, 1, name("new"), 2), vec![]);
    let token = 7;
    let result = Ok(());
    let done = (1, Action::Done { token, result });
    assert_eq!(settle(&mut cores, second), [done]);
    let binding = cores[0].replica().bindings[&name("new")];
    assert_eq!(binding.value, 2);
}

#[test]
fn what_only_its_initiator_knows_of_is_in_force_before_anybody_reads() {
    let mut cores = vec![Names::new(1), Names::new(2)];
    let first = install(&mut cores, &view(1, &[1, 2]));
    settle(&mut cores, first);
    let request = cores[1].bind(1, 1, name("a"), 5);
    let Action::Send(1, request) = &request[0] else {
        panic!("{request:?}");
    };
    // The coordinator commits it, shows it to a program, and stops before it has told anybody.
    cores[0].on_message(2, request);
    assert_eq!(cores[0].lookup(1, name("a")), Lookup::Found(5));
    cores[0] = Names::new(0);
    let second = install(&mut cores, &view(2, &[0, 2]));
    assert_eq!(cores[0].lookup(2, name("a")), Lookup::Wait(2));
    let (token, value) = (2, Some(5));
    let others = settle(&mut cores, second);
    assert!(others.contains(&(0, Action::LookedUp { token, value })));
    let (token, result) = (1, Ok(()));
    assert!(others.contains(&(2, Action::Done { token, result })));
}

fn exchange(all: &mut [Names], from: usize, actions: Vec<Action>) {
    let sent = |from: usize, actions: Vec<Action>| actions.into_iter().map(move |one| (from, one));
    let mut open: VecDeque<(usize, Action)> = sent(from, actions).collect();
    while let Some((from, action)) = open.pop_front() {
        if let Action::Send(to, message) = action {
            let actions = all[to].on_message(from, &message);
            open.extend(sent(to, actions));
        }
    }
}

/// A name of a core that is gone is bound by another one, and the coordinator that did so stops
/// before it has told anybody: the last core does so, too, before anybody reads.
#[test]
fn what_the_dead_had_bound_is_not_in_the_way() {
    let view = |round, cores: &[usize]| View {
        epoch: Epoch {
            round,
            coordinator: cores[0] as u16,
        },
        cores: cores.iter().copied().collect(),
        settings: 0,
    };
    let mut all: Vec<Names> = (0..3).map(Names::new).collect();
    let first = view(1, &[0, 1, 2]);
    let installed: Vec<_> = all.iter_mut().map(|one| one.installed(&first)).collect();
    for (core, actions) in installed.into_iter().enumerate() {
        exchange(&mut all, core, actions);
    }
    let actions = all[0].bind(1, 1, name("b"), 4);
    exchange(&mut all, 0, actions);
    assert_eq!(all[2].lookup(1, name("b")), Lookup::Found(4));
    // Core 0 has stopped; what goes to it is lost.
    all[2].bind(1, 1, name("b"), 7);
    all[1].installed(&view(2, &[1, 2]));
    for action in all[2].installed(&view(2, &[1, 2])) {
        if let Action::Send(1, message) = action {
            all[1].on_message(2, &message);
        }
    }
    assert_eq!(all[1].lookup(2, name("b")), Lookup::Found(7));
    // What core 1 has sent is lost with it.
    let actions = all[2].installed(&view(3, &[2]));
    let (token, result) = (1, Ok(()));
    assert!(
        actions.contains(&Action::Done { token, result }),
        "{actions:?}"
    );
    assert_eq!(all[2].lookup(2, name("b")), Lookup::Found(7));
}
