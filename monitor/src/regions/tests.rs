extern crate std;
use super::*;
use crate::test_net::{Random, view};
use std::collections::BTreeMap as Wires;

const PAGE: u64 = 4096;

fn region() -> Region {
    Region {
        kind: Kind::Frame,
        base: 0x40_0000,
        bytes: 16 * PAGE,
        depth: 1,
    }
}

fn range(pages: Range<u64>) -> Range<u64> {
    let base = region().base;
    base + pages.start * PAGE..base + pages.end * PAGE
}

/// What a core may make in the first pages.
fn part(pages: u64) -> Region {
    Region {
        bytes: pages * PAGE,
        depth: 0,
        ..region()
    }
}

/// Monitors whose CPU drivers do at once what they are asked.
struct Machine {
    monitors: Vec<Regions>,
    wires: Wires<(usize, usize), VecDeque<Message>>,
    sent: usize,
    ended: Vec<(u64, Result<(), Error>)>,
    free: Vec<usize>,
    /// By whom, and whose.
    adopted: Vec<(usize, usize)>,
    random: Random,
}

impl Machine {
    fn new(cores: usize, seed: u64) -> Self {
        let mut machine = Self {
            monitors: (0..cores).map(Regions::new).collect(),
            wires: Wires::new(),
            sent: 0,
            ended: Vec::new(),
            free: Vec::new(),
            adopted: Vec::new(),
            random: Random(seed),
        };
        let all: Vec<usize> = (0..cores).collect();
        machine.change(1, &all, &[]);
        machine.run();
        machine
    }

    /// The next view, of these; the new ones of them know nothing. What was under way is lost.
    fn change(&mut self, round: u32, cores: &[usize], new: &[usize]) {
        self.change_at(cores, round, cores, new);
    }

    /// The same, where not all live long enough to install it.
    fn change_at(&mut self, installers: &[usize], round: u32, cores: &[usize], new: &[usize]) {
        self.wires.clear();
        for core in new {
            self.monitors[*core] = Regions::new(*core);
        }
        for core in installers {
            self.act(*core, |one| one.installed(&view(round, cores)));
        }
    }

    /// Hands over what one has sent to another.
    fn deliver(&mut self, from: usize, to: usize) {
        for message in self.wires.remove(&(from, to)).unwrap_or_default() {
            self.act(to, |one| one.on_message(from, &message));
        }
    }

    /// One does something.
    fn act(&mut self, core: usize, work: impl FnOnce(&mut Regions) -> Vec<Action>) {
        let actions = work(&mut self.monitors[core]);
        self.carry_out(core, actions);
    }

    /// An operation that succeeds.
    fn does(&mut self, core: usize, operation: impl FnOnce(&mut Regions) -> Vec<Action>) {
        assert_eq!(self.count(core, operation).1, Ok(()));
    }

    /// An operation that does not.
    fn fails(
        &mut self,
        core: usize,
        error: Error,
        operation: impl FnOnce(&mut Regions) -> Vec<Action>,
    ) {
        assert_eq!(self.count(core, operation).1, Err(error));
    }

    /// The messages that an operation takes, and how it ends.
    fn count(
        &mut self,
        core: usize,
        operation: impl FnOnce(&mut Regions) -> Vec<Action>,
    ) -> (usize, Result<(), Error>) {
        let before = self.sent;
        self.ended.clear();
        self.act(core, operation);
        self.run();
        assert_eq!(self.ended.len(), 1);
        (self.sent - before, self.ended[0].1)
    }

    fn carry_out(&mut self, core: usize, actions: Vec<Action>) {
        for action in actions {
            let more = match action {
                Action::Send(to, message) => {
                    let (kind, words) = message.encode();
                    assert_eq!(Message::decode(kind, &words), Some(message.clone()));
                    self.sent += 1;
                    self.wires.entry((core, to)).or_default().push_back(message);
                    continue;
                }
                Action::Done { token, result } => {
                    self.ended.push((token, result));
                    continue;
                }
                Action::Gone { .. } => {
                    self.free.push(core);
                    continue;
                }
                Action::Adopt { core: dead, .. } => {
                    self.adopted.push((core, dead));
                    continue;
                }
                Action::Unshared { .. } => continue,
                Action::Insert { id, .. } => self.monitors[core].inserted(id, Ok(())),
                Action::Retype {
                    region, sequence, ..
                } => self.monitors[core].retyped(region, sequence, true),
                Action::RemoveLocal { region, .. } => self.monitors[core].removed(region),
            };
            self.carry_out(core, more);
        }
    }

    fn run(&mut self) {
        loop {
            self.wires.retain(|_, wire| !wire.is_empty());
            if self.wires.is_empty() {
                return;
            }
            let at = self.random.below(self.wires.len());
            let (&(from, to), wire) = self.wires.iter_mut().nth(at).expect("there are so many");
            let message = wire.pop_front().expect("not empty");
            self.act(to, |one| one.on_message(from, &message));
        }
    }

    /// A region of core `home` that the cores up to `holders` hold.
    fn shared(cores: usize, home: usize, holders: usize, seed: u64) -> Self {
        let mut machine = Self::new(cores, seed);
        machine.monitors[home].share(region(), &[]).expect("new");
        for to in (0..holders).filter(|to| *to != home) {
            let (messages, result) = machine.count(home, |one| one.send(1, region(), 7, to));
            assert_eq!((messages, result), (2, Ok(())));
        }
        machine
    }
}

#[test]
fn a_send_takes_four_messages() {
    let mut machine = Machine::shared(4, 0, 2, 1);
    let (messages, result) = machine.count(1, |one| one.send(1, region(), 7, 3));
    assert_eq!((messages, result), (4, Ok(())));
    let (messages, result) = machine.count(2, |one| one.send(1, region(), 7, 3));
    assert_eq!((messages, result), (0, Err(Error::NoSuchRegion)));
    machine.fails(1, Error::Refused, |one| one.send(1, region(), 7, 9));
}

#[test]
fn a_revoke_takes_four_messages_a_holder() {
    for holders in [2, 3, 5, 16, 64] {
        for seed in 0..10 {
            // By the owner, and by a holder, to which ownership moves.
            let mut machine = Machine::shared(holders, 0, holders, seed);
            let (messages, result) = machine.count(0, |one| one.revoke(1, region()));
            assert_eq!((messages, result), (4 * (holders - 1), Ok(())));
            assert!(!machine.monitors[0].is_shared(region()));
            let mut machine = Machine::shared(holders, 0, holders, seed);
            let (messages, result) = machine.count(holders - 1, |one| one.revoke(1, region()));
            assert_eq!(result, Ok(()));
            assert!(messages <= 4 * holders, "{messages} for {holders}");
            assert!(machine.monitors[holders - 1].is_owner(region()));
            // Where home, owner and revoker are three.
            let mut machine = Machine::shared(holders + 1, 0, holders + 1, seed);
            machine.does(0, |one| one.delete(1, region()));
            assert!(machine.monitors[1].is_owner(region()));
            let (messages, result) = machine.count(holders, |one| one.revoke(1, region()));
            assert_eq!(result, Ok(()));
            assert!(messages <= 4 * holders, "{messages} for {holders}");
            assert!(machine.monitors[holders].is_owner(region()));
        }
    }
}

#[test]
fn ranges_are_granted_once() {
    let mut machine = Machine::shared(3, 0, 3, 1);
    let (messages, result) = machine.count(1, |one| one.retype(1, region(), range(0..4)));
    assert_eq!((messages, result), (2, Ok(())));
    machine.fails(2, Error::Overlap, |one| {
        one.retype(1, region(), range(3..5))
    });
    machine.act(1, |one| one.untype(region(), &range(0..4)));
    machine.run();
    machine.does(2, |one| one.retype(1, region(), range(3..5)));
    machine.fails(2, Error::Refused, |one| {
        one.retype(1, region(), range(15..17))
    });
}

#[test]
fn memory_returns_when_the_last_piece_goes() {
    let mut machine = Machine::shared(3, 0, 3, 1);
    machine.does(1, |one| one.retype(1, region(), range(0..4)));
    for core in 0..3 {
        machine.does(core, |one| one.delete(1, region()));
    }
    assert!(machine.free.is_empty());
    machine.act(1, |one| one.untype(region(), &range(0..4)));
    machine.run();
    assert_eq!(machine.free, [0]);
    assert!(machine.monitors.iter().all(|one| !one.is_shared(region())));
}

#[test]
fn what_a_dead_core_had_made_goes_with_the_last_who_has_it() {
    // Core 1 makes a region of core 0's, gives it to core 2, and stops.
    let mut machine = Machine::shared(3, 0, 2, 1);
    machine.does(1, |one| one.retype(1, region(), range(0..4)));
    let inner = part(4);
    machine.monitors[1].share(inner, &[]).expect("new");
    machine.does(1, |one| one.send(1, inner, 7, 2));
    machine.change(2, &[0, 2], &[]);
    machine.run();
    machine.fails(0, Error::Overlap, |one| {
        one.retype(1, region(), range(3..5))
    });
    assert!(machine.monitors[0].homed_within(region()).eq([inner]));
    machine.does(2, |one| one.delete(1, inner));
    // Now the range is free, and nobody else has the region.
    assert!(!machine.monitors[0].is_shared(region()) && !machine.monitors[0].is_shared(inner));
}

#[test]
fn what_a_dead_core_made_of_what_it_made_takes_all_of_its_range() {
    // Core 0 owns all three, and made the second of the first, and the third of the second.
    let mut machine = Machine::shared(3, 0, 3, 1);
    let middle = Region {
        bytes: 4 * PAGE,
        depth: 0,
        ..region()
    };
    let part = Region {
        bytes: PAGE,
        ..middle
    };
    let _ = machine.count(0, |one| one.retype(1, region(), range(0..4)));
    machine.monitors[0]
        .share(middle, &[range(0..1)])
        .expect("new");
    machine.monitors[0].share(part, &[]).expect("new");
    for inner in [middle, part] {
        let (_, result) = machine.count(0, |one| one.send(1, inner, 7, 1));
        assert_eq!(result, Ok(()));
    }
    machine.change(2, &[1, 2], &[]);
    machine.run();
    let (_, result) = machine.count(2, |one| one.retype(1, region(), range(1..5)));
    assert_eq!(result, Err(Error::Overlap));
    let (_, result) = machine.count(2, |one| one.retype(1, region(), range(4..5)));
    assert_eq!(result, Ok(()));
}

#[test]
fn what_a_region_was_made_of_is_no_part_of_it() {
    let mut one = Regions::new(0);
    let all = Region {
        depth: region().depth + 1,
        ..region()
    };
    let part = part(1);
    for shared in [region(), all, part] {
        one.share(shared, &[]).expect("new");
    }
    assert!(one.homed_within(region()).eq([part, all]));
    assert!(one.homed_within(all).eq([part]));
    assert_eq!(one.homed_within(part).count(), 0);
    assert_eq!(one.homed_in(range(0..1)).count(), 3);
    assert_eq!(one.copies_in(range(1..2)).count(), 2);
    assert_eq!(one.made_in(range(0..1)).count(), 0);
}

#[test]
fn messages_out_of_place_change_nothing() {
    let mut random = Random(1);
    let mut machine = Machine::shared(3, 0, 2, 1);
    for _ in 0..100_000 {
        let kind = 0x80 + random.below(32) as u16;
        let mut words = random.words(false);
        let (_, line) = Message::Noted { region: region() }.encode();
        if random.below(2) == 0 {
            words[1..3].copy_from_slice(&line[1..3]);
        }
        if let Some(message) = Message::decode(kind, &words) {
            let (core, from) = (random.below(3), random.below(4));
            machine.monitors[core].on_message(from, &message);
        }
    }
    assert_eq!(Message::decode(0x7f, &[0; 7]), None);
    assert_eq!(Message::decode(0x81, &[0; 7]), None);
}

#[test]
fn whoever_has_just_joined_adopts_the_memory_of_the_dead() {
    let mut machine = Machine::new(3, 1);
    machine.change(2, &[1, 2], &[]);
    machine.run();
    assert_eq!(machine.adopted, [(1, 0)]);
    // Core 0 is back, is the lowest, and has never heard of core 2.
    machine.change(3, &[0, 1], &[0]);
    machine.run();
    assert_eq!(machine.adopted, [(1, 0), (0, 2)]);
}

#[test]
fn what_the_recoverer_was_to_adopt_goes_to_the_next() {
    let mut machine = Machine::new(3, 1);
    machine.change(2, &[1, 2], &[]);
    // Core 1 has not heard from core 2, which stops, and core 0 is back.
    machine.change(3, &[0, 1], &[0]);
    machine.run();
    assert_eq!(machine.adopted, [(0, 0), (0, 2)]);
}

/// Core 1 owns what core 0 is home of.
fn owned_elsewhere() -> Machine {
    let mut machine = Machine::new(3, 1);
    machine.monitors[0].share(region(), &[]).unwrap();
    machine.does(0, |regions| regions.send(1, region(), 7, 1));
    machine.does(0, |regions| regions.delete(2, region()));
    assert!(machine.monitors[1].is_owner(region()));
    machine
}

#[test]
fn a_dead_owner_is_dead_although_its_number_is_back() {
    let mut machine = owned_elsewhere();
    machine.change(2, &[0, 2], &[]);
    // Nobody has claimed anything when core 1 is back.
    machine.change(3, &[0, 1, 2], &[1]);
    machine.run();
    assert_eq!(machine.free, [0]);
}

#[test]
fn a_region_waits_for_what_a_dead_core_made_from_it() {
    let mut machine = owned_elsewhere();
    let inner = part(2);
    let first = inner.range();
    machine.does(1, |regions| regions.retype(1, region(), first));
    machine.monitors[1].share(inner, &[]).unwrap();
    for core in [0, 2] {
        machine.does(1, |regions| regions.send(2, inner, 7, core));
    }
    machine.change(2, &[0, 2], &[]);
    machine.run();
    assert_eq!((machine.free.len(), machine.adopted.len()), (0, 0));
    for core in [0, 2] {
        machine.does(core, |regions| regions.delete(3, inner));
    }
    assert_eq!(
        (&machine.free[..], &machine.adopted[..]),
        (&[0][..], &[(0, 1)][..])
    );
}

#[test]
fn what_a_region_was_made_from_is_not_within_it() {
    let mut machine = Machine::new(2, 1);
    let deeper = Region {
        depth: 2,
        ..region()
    };
    let whole = [region().range()];
    machine.monitors[0].share(region(), &whole).unwrap();
    machine.monitors[0].share(deeper, &[]).unwrap();
    let within = |of| machine.monitors[0].homed_within(of).collect::<Vec<_>>();
    assert_eq!(within(region()), [deeper]);
    assert_eq!(within(deeper), []);
}

#[test]
fn whom_nobody_was_told_of_is_not_forgotten() {
    let mut machine = Machine::new(4, 1);
    machine.change(2, &[1, 2, 3], &[]);
    machine.change(3, &[0, 1, 2], &[0]);
    // Core 0 has heard nothing of those that it was to adopt from, and stops again.
    machine.change(4, &[1, 2], &[]);
    machine.run();
    assert_eq!(machine.adopted, [(1, 0), (1, 3)]);
}

#[test]
fn what_somebody_has_adopted_is_not_adopted_again() {
    let mut machine = Machine::new(3, 1);
    machine.change(2, &[1, 2], &[]);
    machine.deliver(2, 1);
    // Core 2 is not told of it.
    assert_eq!(machine.adopted, [(1, 0)]);
    machine.change(3, &[0, 1, 2], &[0]);
    machine.run();
    assert_eq!(machine.adopted, [(1, 0)]);
    // The next life of core 0 is another one.
    machine.change(4, &[1, 2], &[]);
    machine.run();
    assert_eq!(machine.adopted, [(1, 0), (1, 0)]);
}

#[test]
fn the_heir_is_who_recovers_now() {
    let mut machine = Machine::shared(4, 0, 4, 1);
    machine.does(0, |one| one.retype(1, region(), range(0..4)));
    let inner = part(4);
    machine.monitors[0].share(inner, &[]).expect("new");
    machine.does(0, |one| one.send(1, inner, 7, 3));
    machine.does(1, |one| one.delete(1, region()));
    let homed = |machine: &Machine, core: usize| {
        let homed = machine.monitors[core].homed_in(region().range());
        homed.collect::<Vec<_>>()
    };
    let views: [(&[usize], &[usize]); 2] = [(&[1, 2, 3], &[]), (&[0, 1, 2, 3], &[0])];
    for (round, (cores, new)) in (2..).zip(views) {
        machine.change(round, cores, new);
        machine.run();
        assert_eq!(homed(&machine, cores[0]), [inner, region()]);
        machine.fails(2, Error::Overlap, |one| {
            one.retype(1, region(), range(3..5))
        });
    }
    // It has neither a copy nor anything else of it any more.
    assert!(!machine.monitors[1].is_shared(region()));
    assert_eq!(machine.adopted, []);
    for (core, one) in [(2, region()), (3, inner), (3, region())] {
        machine.does(core, |monitor| monitor.delete(1, one));
    }
    assert_eq!(
        (&machine.adopted[..], machine.free.len()),
        (&[(0, 0)][..], 0)
    );
    assert!(machine.monitors.iter().all(|one| !one.is_shared(region())));
}

#[test]
fn a_record_on_its_way_counts_the_dead() {
    let mut machine = owned_by_1_of_2();
    machine.act(1, |one| one.delete(9, region()));
    machine.deliver(1, 0);
    // Core 0 has the record, and core 1 has not released it. Core 2, the home, dies; core 1 is
    // dead before it knows so, and core 2 is back.
    machine.change_at(&[0], 2, &[0, 1], &[]);
    machine.change(3, &[0, 2], &[2]);
    machine.run();
    assert!(machine.monitors[0].is_owner(region()));
    assert_eq!((machine.adopted.len(), machine.free.len()), (0, 0));
    machine.does(0, |one| one.delete(1, region()));
    assert_eq!(machine.adopted, [(0, 1), (0, 2)]);
    assert_eq!(machine.free, []);
}

/// Core 1 owns what core 2 is home of, and core 0 has it too.
fn owned_by_1_of_2() -> Machine {
    let mut machine = Machine::shared(3, 2, 2, 1);
    machine.does(0, |one| one.delete(1, region()));
    machine.does(2, |one| one.delete(1, region()));
    machine.does(1, |one| one.send(1, region(), 7, 0));
    assert!(machine.monitors[1].is_owner(region()));
    machine
}

#[test]
fn whoever_drops_a_region_keeps_what_it_inherits_of_it() {
    let mut machine = Machine::shared(3, 2, 2, 1);
    machine.does(1, |one| one.retype(1, region(), range(0..4)));
    let inner = part(4);
    machine.monitors[1].share(inner, &[]).expect("new");
    machine.does(1, |one| one.send(1, inner, 7, 2));
    machine.act(0, |one| one.delete(9, region()));
    // Its drop is lost, sent again, and there before it knows that it is core 1's heir.
    machine.change(2, &[0, 2], &[]);
    machine.deliver(0, 2);
    machine.run();
    machine.fails(2, Error::Overlap, |one| {
        one.retype(1, region(), range(3..5))
    });
    machine.does(2, |one| one.delete(1, inner));
    // The range is free, and the home alone has the region.
    let alive = [0, 2].map(|core| machine.monitors[core].is_shared(region()));
    assert_eq!(alive, [false; 2]);
    assert_eq!(machine.adopted, [(0, 1)]);
}
