//! Random operations on a database and on the model, compared after each.

use super::model::{Model, is_slot_name};
use super::structure::check;
use super::{Event, Memory, ORIGIN, PRIVATE_BYTES, Recorder};
use crate::capability::{Capability, Marks};
use crate::{Caller, Database, Deleted, Error, Kind, Progress, Resource, Retype, Rights};
use crate::{SLOT_BYTES, SlotId, Slots};
use abi::capability::{ENDPOINT_BYTES, VECTORS};
use abi::layout::PAGE;
use abi::syscall::DISPATCHER_BYTES;
use proptest::prelude::*;

const BOOT_SLOTS: u64 = 64;
const UNREACHABLE: u64 = 1 << 40;
const DEVICES: u64 = 0xa_0000;

/// Numbers that an operation is made of.
type Numbers = (u8, u32, u32, u32, u32, u64);

struct World {
    database: Database<Memory>,
    model: Model,
    /// A revoke under way, and its budget a step.
    revoking: Option<(SlotId, u32)>,
    /// How many more are to be deleted because all slots were in use.
    purging: u32,
    seen: Seen,
}

/// What came about, so that a test that tests nothing is noticed.
#[derive(Debug, Default)]
struct Seen {
    made: u64,
    deleted: u64,
    doomed: u64,
    emptied: u64,
    adopted: u64,
    blocked: u64,
    revokes_done: u64,
    revokes_in_steps: u64,
    inserted_between: u64,
    overlaps: u64,
    full: u64,
    most: u64,
    deepest: u8,
}

fn originals() -> [Capability; 6] {
    let start = ORIGIN + BOOT_SLOTS * SLOT_BYTES;
    let mut unreachable = Capability::original(Kind::Ram, UNREACHABLE, 16 << 20);
    unreachable.marks = Marks::UNREACHABLE;
    [
        Capability::original(Kind::Ram, start, PRIVATE_BYTES - BOOT_SLOTS * SLOT_BYTES),
        unreachable,
        Capability::original(Kind::DeviceFrame, DEVICES, 16 * PAGE),
        Capability::original(Kind::IoPort, Resource::Ports.range().start, 0x1_0000),
        Capability::original(Kind::IrqHandler, Resource::Lines.range().start, 256),
        Capability::original(Kind::Core, Resource::Vectors.range().start, 8 * VECTORS),
    ]
}

impl World {
    fn new() -> Self {
        let mut memory = Memory::new();
        memory.clear(SlotId(ORIGIN + SLOT_BYTES), BOOT_SLOTS - 1);
        let mut world = Self {
            database: Database::new(memory, ORIGIN),
            model: Model::default(),
            revoking: None,
            purging: 0,
            seen: Seen::default(),
        };
        let slots = (1..BOOT_SLOTS).map(|index| ORIGIN + index * SLOT_BYTES);
        world.model.boot_slots = slots.collect();
        for (index, capability) in originals().iter().enumerate() {
            let slot = SlotId(world.model.boot_slots[index]);
            world.model.insert(slot, capability).unwrap();
            world.database.insert(slot, capability).unwrap();
        }
        world
    }

    /// A slot that holds something, mostly.
    fn source(&self, pick: u32) -> SlotId {
        match pick % 64 {
            0 => SlotId(u64::MAX - u64::from(pick) * 7),
            1 => SlotId(0),
            2 => SlotId(ORIGIN + u64::from(pick) % 63 + 1),
            3 => self.any(pick),
            _ if self.model.held.is_empty() => self.any(pick),
            _ => {
                let index = (pick / 64) as usize % self.model.held.len();
                SlotId(*self.model.held.keys().nth(index).unwrap())
            }
        }
    }

    fn any(&self, pick: u32) -> SlotId {
        let slots = self.model.user_slots();
        SlotId(slots[(pick / 64) as usize % slots.len()])
    }

    fn empty_slots(&self) -> Vec<u64> {
        let mut slots = self.model.user_slots();
        slots.retain(|slot| !self.model.held.contains_key(slot));
        slots
    }

    /// A slot that is empty, mostly.
    fn destination(&mut self, pick: u32) -> SlotId {
        match pick % 64 {
            0..8 => self.source(pick / 64),
            _ => {
                let empty = self.empty_slots();
                if empty.is_empty() {
                    self.seen.full += 1;
                    return self.any(pick);
                }
                SlotId(empty[(pick / 64) as usize % empty.len()])
            }
        }
    }

    /// Whether a removal should rather not be, lest little is left: where the source is a
    /// container, or wide.
    fn is_spared(&self, source: u32, pick: u32) -> bool {
        let Some(held) = self.model.held.get(&self.source(source).0) else {
            return false;
        };
        let object = &self.model.objects[held.object];
        let is_container = object.kind.slots(object.base, object.bytes).is_some();
        let is_wide = object.bytes > 64 * PAGE;
        !pick.is_multiple_of(4) && is_container || !pick.is_multiple_of(16) && is_wide
    }

    /// Puts the original capabilities back that are gone.
    fn restore(&mut self, pick: u32) {
        let original = originals()[pick as usize % 6];
        let base = original.base;
        if self
            .model
            .alive()
            .any(|(_, object)| object.base == base && object.bytes == original.bytes)
        {
            return;
        }
        if let Some(slot) = self.empty_slots().first() {
            let slot = SlotId(*slot);
            assert_eq!(
                self.database.insert(slot, &original),
                self.model.insert(slot, &original)
            );
        }
    }

    fn caller(pick: u32) -> Caller {
        if pick.is_multiple_of(4) {
            Caller::Monitor
        } else {
            Caller::User
        }
    }

    fn step(&mut self, (operation, a, b, c, d, wide): Numbers) {
        // A caller that goes on with a revoke looks its slot up anew.
        let users = self.model.user_slots();
        self.revoking = self.revoking.filter(|(slot, _)| users.contains(&slot.0));
        if let Some((slot, budget)) = self.revoking
            && operation % 3 == 0
        {
            self.revoke(slot, budget, c);
            self.compare();
        }
        self.restore(wide as u32 >> 8);
        if self.empty_slots().is_empty() {
            self.purging = 10 + a % 80;
        }
        if self.purging > 0 && operation % 2 == 0 {
            self.purging -= 1;
            self.delete(self.source(c), d);
        }
        match operation % 32 {
            0..2 => {
                let (source, destination) = (self.source(a), self.destination(b));
                let answer = self.database.copy(source, destination);
                assert_eq!(answer, self.model.copy(source, destination));
            }
            2..4 => {
                let (source, destination) = (self.source(a), self.destination(b));
                let rights = Rights::from_bits_retain(match c % 8 {
                    0 => wide as u8,
                    _ => (wide as u8 & 31) | 16,
                });
                let badge = match d % 4 {
                    0 => wide,
                    1 => u64::from(d / 4 % 3),
                    _ => 0,
                };
                let rights = if c % 2 == 0 {
                    let held = self.model.held.get(&source.0);
                    held.map_or(rights, |held| held.rights & rights)
                } else {
                    rights
                };
                let answer = self.database.mint(source, destination, rights, badge);
                assert_eq!(answer, self.model.mint(source, destination, rights, badge));
            }
            4 | 5 => {
                let (source, destination) = (self.source(a), self.destination(b));
                let answer = self.database.move_to(source, destination);
                assert_eq!(answer, self.model.move_to(source, destination));
            }
            6 => {
                let source = self.source(a);
                let answer = self.database.attach(source, wide, b);
                assert_eq!(answer, self.model.attach(source, (wide, b)));
            }
            7 => {
                let (source, shared) = (self.source(a), b.is_multiple_of(3));
                let answer = self.database.set_shared(source, shared);
                assert_eq!(answer, self.model.set_shared(source, shared));
            }
            8..21 => self.retype(a, b, c, d, wide),
            21..25 if self.is_spared(a, d) => {}
            21..25 => self.delete(self.source(a), b),
            25 | 26 if self.is_spared(a, d) => {}
            25 if self.revoking.is_none() => {
                let slot = self.source(a);
                self.revoking = Some((slot, c % 4 + 1));
                self.revoke(slot, c % 4, d);
            }
            26 => self.revoke(self.source(a), b % 6, c),
            27 => self.clean(b % 8, c),
            28 => self.clean(b % 64, c),
            29 | 30 => self.insert(a, b, c, d, wide),
            _ => self.compare_revokes(a, b),
        }
        self.compare();
        self.query(a, wide);
    }

    fn retype(&mut self, a: u32, b: u32, c: u32, d: u32, wide: u64) {
        // Mostly something that something can be made from.
        let fits = |slot: &SlotId| {
            self.model.held.get(&slot.0).is_some_and(|held| {
                let kind = self.model.objects[held.object].kind;
                held.badge == 0 && Kind::ALL.iter().any(|other| kind.may_become(*other))
            })
        };
        let tries = (0..8).map(|index| self.source(a.wrapping_add(index * 64)));
        let source = tries.clone().find(fits).filter(|_| !c.is_multiple_of(8));
        let source = source.unwrap_or_else(|| self.source(a));
        let object = self
            .model
            .held
            .get(&source.0)
            .map(|held| self.model.objects[held.object].clone());
        let (from, room) = object.map_or((Kind::Ram, 0), |object| (object.kind, object.bytes));
        let kinds: Vec<Kind> = Kind::ALL
            .into_iter()
            .filter(|kind| from.may_become(*kind))
            .collect();
        let kind = match c % 16 {
            0 => Kind::ALL[(c / 16) as usize % Kind::ALL.len()],
            1..5 if from == Kind::Ram => Kind::Ram,
            5..8 if from == Kind::Ram => Kind::CNode,
            _ if kinds.is_empty() => Kind::Frame,
            _ => kinds[(c / 16) as usize % kinds.len()],
        };
        let some = u64::from(d);
        let mut bytes = match kind {
            Kind::CNode => SLOT_BYTES << (some % 8),
            Kind::Dispatcher => DISPATCHER_BYTES,
            Kind::Endpoint => ENDPOINT_BYTES,
            Kind::Doorbell | Kind::IrqHandler | Kind::IoPort => some % 16,
            Kind::Core => VECTORS * (some % 3),
            Kind::Ram => PAGE * (1 << (some % 7)),
            Kind::Null | Kind::Frame | Kind::DeviceFrame => PAGE * (some % 5),
            _ => PAGE,
        };
        let mut count = [1, 1, 1, 1, 1, 2, 3, 8, 1, 1, 2, 1, 1, 4, 1, 0][(d >> 8) as usize % 16];
        let unit = kind.alignment(bytes).max(1);
        let places = room / unit + 1;
        let mut offset = match d >> 29 {
            0 => 0,
            1..7 => wide % places * unit,
            _ => wide % (places.min(8)) * unit,
        };
        match (d >> 16) % 32 {
            0 => bytes = wide,
            1 => offset = wide,
            2 => count = wide,
            3 => (bytes, offset, count) = (u64::MAX, u64::MAX, u64::MAX),
            4 => (bytes, count) = (1 << 63, 2),
            5 => offset = u64::MAX - wide % (4 * PAGE),
            6 => offset += 8,
            7..12 => (bytes, offset, count) = (room, 0, 1),
            _ => {}
        }
        let what = Retype {
            kind,
            offset,
            bytes,
            count,
        };
        let destination = self.destination(b);
        // The caller's part: as many slots as there are objects, in one container.
        let slots = self.model.user_slots();
        let needed = if count <= crate::retype::MAX_OBJECTS {
            count
        } else {
            0
        };
        if is_slot_name(destination)
            && (0..needed).any(|i| !slots.contains(&(destination.0 + i * SLOT_BYTES)))
        {
            return;
        }
        let caller = Self::caller(a >> 16);
        let answer = self.database.retype(caller, source, &what, destination);
        assert_eq!(
            answer,
            self.model.retype(caller, source, &what, destination),
            "{what:?}"
        );
        match answer {
            Ok(()) => self.seen.made += count,
            Err(Error::Overlap) => self.seen.overlaps += 1,
            Err(_) => {}
        }
    }

    fn delete(&mut self, slot: SlotId, pick: u32) {
        let caller = Self::caller(pick);
        let mut told = Recorder::default();
        let expected = self.model.may_delete(caller, slot);
        let answer = self.database.delete(caller, slot, &mut told);
        assert_eq!(answer.map(|_| ()), expected);
        let Ok(deleted) = answer else {
            assert_eq!(told.events, []);
            return;
        };
        self.model.follow(1, &told, |_, other| other == slot.0);
        assert!(!self.model.held.contains_key(&slot.0));
        let expected = match told.events[..] {
            [Event::Gone(..)] => Deleted::Copy,
            [Event::Gone(..), Event::Object(object)]
                if object.kind.slots(object.base, object.bytes).is_some() =>
            {
                self.seen.doomed += 1;
                Deleted::Container
            }
            [Event::Gone(..), Event::Object(_)] => Deleted::Object,
            _ => panic!("{:?}", told.events),
        };
        assert_eq!(deleted, expected);
        self.seen.deleted += 1;
    }

    /// Someone who notes, with up to two slots for the monitor.
    fn recorder(&self, pick: u32) -> Recorder {
        let mut told = Recorder::default();
        let empty = self.empty_slots();
        if !empty.is_empty() {
            let index = (pick / 4) as usize % empty.len();
            let two = empty.iter().cycle().skip(index).take(empty.len().min(2));
            let boot = two.filter(|slot| self.model.boot_slots.contains(slot));
            told.inbox = boot
                .take(pick as usize % 3)
                .map(|slot| SlotId(*slot))
                .collect();
        }
        told
    }

    fn revoke(&mut self, slot: SlotId, budget: u32, pick: u32) {
        let caller = Self::caller(pick / 3);
        let mut told = self.recorder(pick);
        let answer = self.database.revoke_step(caller, slot, budget, &mut told);
        self.model.revoke(caller, slot, budget, answer, &told);
        self.forget(&told);
        match answer {
            Ok(Progress::More) => self.seen.revokes_in_steps += 1,
            Ok(Progress::Blocked) => self.seen.blocked += 1,
            Ok(Progress::Done) => {
                self.seen.revokes_done += 1;
                self.revoking = None;
            }
            Err(_) => self.revoking = None,
        }
    }

    fn clean(&mut self, budget: u32, pick: u32) {
        let mut told = self.recorder(pick);
        let answer = self.database.clean_step(budget, &mut told);
        self.model.clean(budget, answer, &told);
        self.forget(&told);
        self.seen.blocked += u64::from(answer == Progress::Blocked);
    }

    fn forget(&mut self, told: &Recorder) {
        for event in &told.events {
            if let Event::Emptied(container) = event {
                let (first, count) = container
                    .kind
                    .slots(container.base, container.bytes)
                    .unwrap();
                self.database.slots_mut().forget(SlotId(first), count);
                self.seen.emptied += 1;
            }
            self.seen.adopted += u64::from(matches!(event, Event::Adopted(..)));
        }
    }

    fn insert(&mut self, a: u32, b: u32, c: u32, d: u32, wide: u64) {
        let all = originals();
        let mut new = match self.model.held.get(&self.source(a).0) {
            Some(held) if !c.is_multiple_of(4) => {
                let mut new = self.model.capability(held);
                if self.model.objects[held.object].base >= UNREACHABLE {
                    new.marks = Marks::UNREACHABLE;
                }
                new
            }
            _ => all[c as usize / 4 % all.len()],
        };
        new.badge = u64::from(b >> 30);
        let some = wide % 8;
        match d % 16 {
            0..4 => {}
            4 => new.depth = new.depth.wrapping_add(1),
            5 => new.depth = new.depth.wrapping_sub(1),
            6..9 => {
                (new.base, new.bytes) = (new.base.wrapping_sub(some * PAGE), (some + 1) * PAGE);
            }
            9 | 10 => {
                (new.base, new.bytes) = (new.base & !(16 * PAGE - 1), 16 * PAGE);
            }
            11 => new.kind = Kind::ALL[some as usize],
            12 => (new.base, new.bytes) = (wide, u64::MAX - wide / 2),
            13 => new.base = new.base.wrapping_add(8 * some),
            14 => new.marks ^= Marks::UNREACHABLE,
            _ => new.kind = Kind::Null,
        }
        let destination = self.destination(b);
        let objects = self.model.objects.len();
        let expected = self.model.insert(destination, &new);
        if expected.is_ok() && self.model.objects.len() > objects {
            self.seen.inserted_between += 1;
            if let Some((first, count)) = new.kind.slots(new.base, new.bytes) {
                self.database.slots_mut().clear(SlotId(first), count);
            }
        }
        assert_eq!(self.database.insert(destination, &new), expected, "{new:?}");
    }

    /// A revoke at once and one in steps end alike.
    fn compare_revokes(&self, a: u32, b: u32) {
        let slot = self.source(a);
        let (mut at_once, mut in_steps) = (self.database.clone(), self.database.clone());
        let mut told = Recorder::default();
        let answer = at_once.revoke_step(Caller::Monitor, slot, u32::MAX, &mut told);
        let mut told_in_steps = Recorder::default();
        let mut budgets = 0;
        let answer_in_steps = loop {
            budgets += 1;
            let budget = b.rotate_left(budgets) % 4;
            match in_steps.revoke_step(Caller::Monitor, slot, budget, &mut told_in_steps) {
                Ok(Progress::More) => {}
                answer => break answer,
            }
            assert!(budgets < 100_000, "no end");
        };
        if self.model.held.contains_key(&slot.0) && at_once.identify(slot).is_err() {
            // It was in a container that went. How much more of that went depends on the
            // budget, and which container comes next too.
            assert!(in_steps.identify(slot).is_err());
            let answer = at_once.clean_step(u32::MAX, &mut told);
            let in_steps = in_steps.clean_step(u32::MAX, &mut told_in_steps);
            if answer == Progress::Blocked || in_steps == Progress::Blocked {
                return;
            }
            // So does which capability to an object is its last.
            let sorted = |told: &Recorder| {
                let mut all: Vec<String> = told.events.iter().map(essence).collect();
                all.sort_unstable();
                all
            };
            assert_eq!(sorted(&told), sorted(&told_in_steps));
        } else {
            assert_eq!(answer, answer_in_steps);
            assert_eq!(told.events, told_in_steps.events);
        }
        assert_eq!(check(&at_once), check(&in_steps));
    }

    fn compare(&mut self) {
        let all = check(&self.database);
        let usable = || {
            all.iter()
                .filter(|(_, found)| !found.marks.contains(Marks::DOOMED))
        };
        assert_eq!(usable().count(), self.model.held.len());
        assert_eq!(all.len() - usable().count(), self.model.doomed.len());
        assert_eq!(
            self.database.needs_cleaning(),
            !self.model.doomed.is_empty()
        );
        for (slot, capability) in usable() {
            let held = self.model.held.get(&slot.0).expect("not in the model");
            self.model.compare(held, capability);
            assert_eq!(self.database.identify(*slot), Ok(*capability));
            self.seen.deepest = self.seen.deepest.max(capability.depth);
        }
        self.seen.most = self.seen.most.max(all.len() as u64);
    }

    fn query(&self, pick: u32, wide: u64) {
        let slot = self.source(pick);
        let (model, database) = (&self.model, &self.database);
        if let Some(held) = model.held.get(&slot.0) {
            let slots = |fits: &dyn Fn(usize) -> bool| -> Vec<u64> {
                let all = model.held.iter().filter(|(_, other)| fits(other.object));
                all.map(|(slot, _)| *slot).collect()
            };
            let copies = slots(&|object| object == held.object);
            assert_eq!(sorted(database.copies(slot).unwrap()), copies);
            assert_eq!(database.has_copies(slot), Ok(copies.len() > 1));
            assert_eq!(
                database.is_shared(slot),
                Ok(model.objects[held.object].shared)
            );
            let mut below = slots(&|object| model.descends(object, held.object));
            for doomed in &model.doomed {
                if model.descends(*doomed, held.object) {
                    let object = &model.objects[*doomed];
                    below.push(object.kind.slots(object.base, object.bytes).unwrap().0);
                }
            }
            below.sort_unstable();
            assert_eq!(database.has_descendants(slot), Ok(!below.is_empty()));
            assert_eq!(sorted(database.descendants(slot).unwrap()), below);
        } else {
            let error = if is_slot_name(slot) {
                Error::EmptySlot
            } else {
                Error::BadSlot
            };
            assert_eq!(database.identify(slot), Err(error));
            assert_eq!(database.has_copies(slot), Err(error));
            assert_eq!(database.has_descendants(slot), Err(error));
            assert_eq!(database.copies(slot).err(), Some(error));
        }

        let number = match wide % 4 {
            0 => wide,
            1 => UNREACHABLE + wide / 4 % (17 << 20),
            _ => ORIGIN + wide / 4 % PRIVATE_BYTES,
        };
        let around = model
            .alive()
            .filter(|(_, object)| object.base <= number && number < object.base + object.bytes);
        let innermost = around
            .map(|(index, _)| index)
            .reduce(|a, b| if model.descends(b, a) { b } else { a })
            .filter(|index| !model.doomed.contains(index));
        let found = database.object_at(number);
        assert_eq!(found.map(|slot| model.held[&slot.0].object), innermost);

        let end = number.saturating_add(wide / 8 % (8 * PAGE));
        let mut overlapping: Vec<u64> = Vec::new();
        for (index, object) in model.alive() {
            if object.base < end && number < object.base + object.bytes && number < end {
                if model.doomed.contains(&index) {
                    overlapping.push(object.kind.slots(object.base, object.bytes).unwrap().0);
                }
                let held = model.held.iter().filter(|(_, held)| held.object == index);
                overlapping.extend(held.map(|(slot, _)| *slot));
            }
        }
        overlapping.sort_unstable();
        assert_eq!(sorted(database.overlapping(number, end)), overlapping);
    }

    /// Ends everything: revokes from every boot slot, cleans, and finds nothing left.
    fn finish(&mut self) {
        for slot in self.model.boot_slots.clone() {
            let slot = SlotId(slot);
            if !self.model.held.contains_key(&slot.0) {
                continue;
            }
            self.model.set_shared(slot, false).unwrap();
            self.database.set_shared(slot, false).unwrap();
            self.delete(slot, 0);
        }
        let ancestors_agree = |world: &Self| {
            let all: Vec<_> = world.model.held.iter().collect();
            for (slot, held) in &all {
                let capability = world.database.identify(SlotId(**slot)).unwrap();
                for (other, other_held) in &all {
                    let other = world.database.identify(SlotId(**other)).unwrap();
                    assert_eq!(
                        capability.is_ancestor_of(&other),
                        world.model.descends(other_held.object, held.object)
                    );
                }
            }
        };
        ancestors_agree(self);
        // What is left lies in containers that hold each other.
        while let Some(slot) = self.model.held.keys().next().copied() {
            self.delete(SlotId(slot), 0);
            self.compare();
        }
        let mut told = Recorder::default();
        let answer = self.database.clean_step(u32::MAX, &mut told);
        self.model.clean(u32::MAX, answer, &told);
        self.forget(&told);
        assert_eq!(answer, Progress::Done);
        assert_eq!(self.database.count(), 0);
        assert_eq!(self.model.alive().count(), 0);
    }
}

/// What does not depend on the order in which capabilities to one object go.
fn essence(event: &Event) -> String {
    let object = |object: &Capability| (object.kind, object.base, object.bytes, object.depth);
    match event {
        Event::Gone(slot, capability) => format!("gone {slot:?} {:?}", object(capability)),
        Event::Object(gone) => format!("object {:?}", object(gone)),
        Event::Emptied(container) => format!("emptied {:?}", object(container)),
        Event::Adopted(capability, _) => format!("adopted {:?}", object(capability)),
    }
}

fn sorted(slots: impl Iterator<Item = SlotId>) -> Vec<u64> {
    let mut all: Vec<u64> = slots.map(|slot| slot.0).collect();
    all.sort_unstable();
    all
}

fn run(operations: &[Numbers]) -> Seen {
    let mut world = World::new();
    for operation in operations {
        world.step(*operation);
    }
    world.finish();
    world.seen
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 200, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn database_and_model_agree(
        operations in prop::collection::vec(any::<Numbers>(), 1000..1400)
    ) {
        let seen = run(&operations);
        if std::env::var_os("SHOW_SEEN").is_some() {
            println!("{seen:?}");
        }
    }
}

/// The generator reaches what it is there to reach.
#[test]
fn random_operations_reach_every_corner() {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let mixed = state ^ state >> 29;
        mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ state >> 32
    };
    let mut operations = Vec::new();
    for _ in 0..20_000 {
        let (a, b) = (next(), next());
        let parts = (a as u32, (a >> 32) as u32, b as u32, (b >> 32) as u32);
        operations.push((next() as u8, parts.0, parts.1, parts.2, parts.3, next()));
    }
    let seen = run(&operations);
    println!("{seen:?}");
    for (what, count) in [
        ("made", seen.made),
        ("deleted", seen.deleted),
        ("doomed", seen.doomed),
        ("emptied", seen.emptied),
        ("adopted", seen.adopted),
        ("blocked", seen.blocked),
        ("revokes done", seen.revokes_done),
        ("revokes in steps", seen.revokes_in_steps),
        ("inserted", seen.inserted_between),
        ("overlaps", seen.overlaps),
        ("deepest", u64::from(seen.deepest)),
    ] {
        assert!(count >= 3, "{what}: {count}");
    }
}
