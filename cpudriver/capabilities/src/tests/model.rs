//! The reference: sets, lists, and a parent for every object that ever was. Ancestry is
//! history here, never a comparison of ranges.

use super::{Event, ORIGIN, Recorder};
use crate::capability::Marks;
use crate::retype::{MAX_CLEARED_SLOTS, MAX_OBJECTS};
use crate::{Caller, Capability, Error, Kind, Progress, Retype, Rights, SLOT_BYTES, SlotId};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
pub struct Object {
    pub kind: Kind,
    pub base: u64,
    pub bytes: u64,
    depth: u8,
    unreachable: bool,
    pub shared: bool,
    parent: Option<usize>,
    alive: bool,
}

impl Object {
    fn end(&self) -> u64 {
        self.base + self.bytes
    }

    fn covers(&self, other: &Self) -> bool {
        self.base <= other.base && other.end() <= self.end()
    }

    fn overlaps(&self, base: u64, end: u64) -> bool {
        self.base < end && base < self.end()
    }

    fn slots(&self) -> Vec<u64> {
        match self.kind.slots(self.base, self.bytes) {
            None => Vec::new(),
            Some((first, count)) => (0..count).map(|i| first + i * SLOT_BYTES).collect(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Held {
    pub object: usize,
    pub badge: u64,
    pub rights: Rights,
    pub attachment: (u64, u32),
}

#[derive(Clone, Debug, Default)]
pub struct Model {
    pub objects: Vec<Object>,
    pub held: BTreeMap<u64, Held>,
    pub doomed: BTreeSet<usize>,
    /// Slots that are in no object.
    pub boot_slots: Vec<u64>,
}

/// Whether a number can name a slot of the test databases at all.
pub fn is_slot_name(id: SlotId) -> bool {
    id.0 > ORIGIN
        && id.0.is_multiple_of(SLOT_BYTES)
        && (id.0 - ORIGIN) / SLOT_BYTES <= u64::from(u32::MAX)
}

impl Model {
    fn source(&self, slot: SlotId) -> Result<Held, Error> {
        if !is_slot_name(slot) {
            return Err(Error::BadSlot);
        }
        self.held.get(&slot.0).cloned().ok_or(Error::EmptySlot)
    }

    fn destination(&self, slot: SlotId) -> Result<(), Error> {
        if !is_slot_name(slot) {
            return Err(Error::BadSlot);
        }
        if self.held.contains_key(&slot.0) {
            return Err(Error::OccupiedSlot);
        }
        Ok(())
    }

    /// Slots that users may name, the containers' own ones left out.
    pub fn user_slots(&self) -> Vec<u64> {
        let mut all = self.boot_slots.clone();
        for (index, object) in self.objects.iter().enumerate() {
            if object.alive && !self.doomed.contains(&index) {
                all.extend(object.slots().into_iter().skip(1));
            }
        }
        all
    }

    pub fn descends(&self, mut object: usize, ancestor: usize) -> bool {
        while let Some(parent) = self.objects[object].parent {
            if parent == ancestor {
                return true;
            }
            object = parent;
        }
        false
    }

    pub fn holders(&self, object: usize) -> usize {
        self.held
            .values()
            .filter(|held| held.object == object)
            .count()
    }

    /// What `identify` should say.
    pub fn capability(&self, held: &Held) -> Capability {
        let object = &self.objects[held.object];
        Capability {
            badge: held.badge,
            rights: held.rights,
            attachment: held.attachment.0,
            attachment_detail: held.attachment.1,
            depth: object.depth,
            ..Capability::original(object.kind, object.base, object.bytes)
        }
    }

    pub fn insert(&mut self, slot: SlotId, new: &Capability) -> Result<(), Error> {
        self.destination(slot)?;
        let range = new.kind.resource().ok_or(Error::WrongKind)?.range();
        if !new.kind.accepts_size(new.bytes) {
            return Err(Error::WrongSize);
        }
        let end = u128::from(new.base) + u128::from(new.bytes);
        if new.base < range.start || end > u128::from(range.end) {
            return Err(Error::OutOfRange);
        }
        if !new.base.is_multiple_of(new.kind.alignment(new.bytes)) {
            return Err(Error::Misaligned);
        }
        let object = Object {
            kind: new.kind,
            base: new.base,
            bytes: new.bytes,
            depth: new.depth,
            unreachable: new.marks.contains(Marks::UNREACHABLE),
            shared: false,
            parent: None,
            alive: true,
        };
        let mut slots = object.slots().into_iter();
        if new.kind.is_kernel_object() && object.unreachable
            || slots.any(|slot| !is_slot_name(SlotId(slot)))
        {
            return Err(Error::Unreachable);
        }
        let alive = || (0..self.objects.len()).filter(|index| self.objects[*index].alive);
        for index in alive() {
            let other = &self.objects[index];
            if other.overlaps(object.base, object.end())
                && !other.covers(&object)
                && !object.covers(other)
            {
                return Err(Error::Overlap);
            }
        }
        let same = |other: &Object| other.base == object.base && other.bytes == object.bytes;
        let is_above =
            |a: &Object, b: &Object| a.covers(b) && (!same(a) || !same(b) || a.depth < b.depth);
        let identical = alive().find(|index| {
            let other = &self.objects[*index];
            same(other) && other.depth == object.depth
        });
        let above: Vec<usize> = alive()
            .filter(|i| is_above(&self.objects[*i], &object))
            .collect();
        let below: Vec<usize> = alive()
            .filter(|i| is_above(&object, &self.objects[*i]))
            .collect();
        let fits = |inner: &Object, outer: &Object| {
            outer.kind.may_become(inner.kind) && (inner.unreachable || !outer.unreachable)
        };
        if let Some(index) = identical {
            let other = &self.objects[index];
            if other.kind != object.kind
                || other.unreachable != object.unreachable
                || self.doomed.contains(&index)
            {
                return Err(Error::Conflict);
            }
        } else if above.iter().any(|i| !fits(&object, &self.objects[*i]))
            || below.iter().any(|i| !fits(&self.objects[*i], &object))
        {
            return Err(Error::Conflict);
        }
        let index = identical.unwrap_or_else(|| {
            // Not history, as there is none: it takes its place between those it fits.
            let index = self.objects.len();
            let nearest = above.iter().copied().max_by_key(|i| {
                let other = &self.objects[*i];
                (u64::MAX - other.bytes, other.depth)
            });
            self.objects.push(object);
            self.objects[index].parent = nearest;
            for child in &below {
                let is_direct = !below.iter().any(|other| self.descends(*child, *other));
                if is_direct {
                    self.objects[*child].parent = Some(index);
                }
            }
            index
        });
        let held = Held {
            object: index,
            badge: new.badge,
            rights: new.rights,
            attachment: (0, 0),
        };
        self.held.insert(slot.0, held);
        Ok(())
    }

    pub fn copy(&mut self, source: SlotId, destination: SlotId) -> Result<(), Error> {
        let held = self.source(source)?;
        self.destination(destination)?;
        let copy = Held {
            attachment: (0, 0),
            ..held
        };
        self.held.insert(destination.0, copy);
        Ok(())
    }

    pub fn mint(
        &mut self,
        source: SlotId,
        destination: SlotId,
        rights: Rights,
        badge: u64,
    ) -> Result<(), Error> {
        let held = self.source(source)?;
        self.destination(destination)?;
        if rights.bits() & !held.rights.bits() != 0 {
            return Err(Error::MoreRights);
        }
        if badge != 0 && held.badge != 0 {
            return Err(Error::AlreadyBadged);
        }
        let minted = Held {
            object: held.object,
            badge: badge | held.badge,
            rights,
            attachment: (0, 0),
        };
        self.held.insert(destination.0, minted);
        Ok(())
    }

    pub fn move_to(&mut self, source: SlotId, destination: SlotId) -> Result<(), Error> {
        let held = self.source(source)?;
        self.destination(destination)?;
        self.held.remove(&source.0);
        self.held.insert(destination.0, held);
        Ok(())
    }

    pub fn attach(&mut self, slot: SlotId, attachment: (u64, u32)) -> Result<(), Error> {
        self.source(slot)?;
        self.held.get_mut(&slot.0).unwrap().attachment = attachment;
        Ok(())
    }

    pub fn set_shared(&mut self, slot: SlotId, shared: bool) -> Result<(), Error> {
        let held = self.source(slot)?;
        self.objects[held.object].shared = shared;
        Ok(())
    }

    pub fn retype(
        &mut self,
        caller: Caller,
        source: SlotId,
        what: &Retype,
        destination: SlotId,
    ) -> Result<(), Error> {
        let held = self.source(source)?;
        let object = self.objects[held.object].clone();
        let &Retype {
            kind,
            offset,
            bytes,
            count,
        } = what;
        if held.badge != 0 {
            return Err(Error::Badged);
        }
        if !object.kind.may_become(kind) {
            return Err(Error::WrongKind);
        }
        if !kind.accepts_size(bytes) {
            return Err(Error::WrongSize);
        }
        if count == 0 || count > MAX_OBJECTS {
            return Err(Error::WrongCount);
        }
        let end = u128::from(offset) + u128::from(bytes) * u128::from(count);
        if end > u128::from(object.bytes) {
            return Err(Error::OutOfRange);
        }
        let base = object.base + offset;
        if !base.is_multiple_of(kind.alignment(bytes)) {
            return Err(Error::Misaligned);
        }
        if kind.is_kernel_object() && object.unreachable {
            return Err(Error::Unreachable);
        }
        let made: Vec<Object> = (0..count)
            .map(|index| Object {
                kind,
                base: base + index * bytes,
                bytes,
                depth: 0,
                unreachable: object.unreachable,
                shared: false,
                parent: Some(held.object),
                alive: true,
            })
            .collect();
        if made
            .iter()
            .map(|made| made.slots().len() as u64)
            .sum::<u64>()
            > MAX_CLEARED_SLOTS
        {
            return Err(Error::WrongCount);
        }
        let mut slots = made.iter().flat_map(Object::slots);
        if slots.any(|slot| !is_slot_name(SlotId(slot))) {
            return Err(Error::Unreachable);
        }
        let whole = bytes == object.bytes;
        if whole && object.depth == 255 {
            return Err(Error::TooDeep);
        }
        for index in 0..count {
            let slot = destination.0.checked_add(index * SLOT_BYTES);
            self.destination(SlotId(slot.ok_or(Error::BadSlot)?))?;
        }
        if caller == Caller::User && object.shared {
            return Err(Error::AskMonitor);
        }
        for (index, other) in self.objects.iter().enumerate() {
            if other.alive
                && self.descends(index, held.object)
                && other.overlaps(base, base + bytes * count)
            {
                return Err(Error::Overlap);
            }
        }
        for (index, mut object) in made.into_iter().enumerate() {
            object.depth = if whole {
                self.objects[held.object].depth + 1
            } else {
                0
            };
            let held = Held {
                object: self.objects.len(),
                badge: 0,
                rights: held.rights | Rights::REVOKE,
                attachment: (0, 0),
            };
            self.objects.push(object);
            self.held
                .insert(destination.0 + index as u64 * SLOT_BYTES, held);
        }
        Ok(())
    }

    /// What a delete should answer, before anything went.
    pub fn may_delete(&self, caller: Caller, slot: SlotId) -> Result<(), Error> {
        let held = self.source(slot)?;
        let is_last = self.holders(held.object) == 1;
        if caller == Caller::User && is_last && self.objects[held.object].shared {
            return Err(Error::AskMonitor);
        }
        Ok(())
    }

    /// Whether a revoke of `slot` should take away what is in `other`.
    pub fn is_victim(&self, slot: u64, other: u64) -> bool {
        let (Some(target), Some(victim)) = (self.held.get(&slot), self.held.get(&other)) else {
            return false;
        };
        if slot == other {
            return false;
        }
        if target.badge != 0 {
            return target.object == victim.object && target.badge == victim.badge;
        }
        target.object == victim.object || self.descends(victim.object, target.object)
    }

    /// Checks what a revoke answered, and that what it took away was its to take.
    pub fn revoke(
        &mut self,
        caller: Caller,
        slot: SlotId,
        budget: u32,
        answer: Result<Progress, Error>,
        told: &Recorder,
    ) {
        let target = match self.source(slot) {
            Err(error) => return assert_eq!((answer, told.events.len()), (Err(error), 0)),
            Ok(target) => target,
        };
        if !target.rights.contains(Rights::REVOKE) {
            assert_eq!((answer, told.events.len()), (Err(Error::NotRevocable), 0));
            return;
        }
        if caller == Caller::User && self.objects[target.object].shared {
            assert_eq!((answer, told.events.len()), (Err(Error::AskMonitor), 0));
            return;
        }
        let is_doomed_below = |model: &Self, slot: u64| {
            let mut doomed = model.doomed.iter();
            doomed.any(|index| {
                model.descends(*index, target.object)
                    && model.objects[*index].slots().contains(&slot)
            })
        };
        let victims_of = target.clone();
        self.follow(budget, told, |model, other| {
            let is_victim = if model.held.contains_key(&slot.0) {
                model.is_victim(slot.0, other)
            } else {
                model.held.get(&other).is_some_and(|held| {
                    held.object == victims_of.object
                        || model.descends(held.object, victims_of.object)
                })
            };
            is_victim || is_doomed_below(model, other)
        });
        let remaining = || {
            let mut others = self
                .held
                .keys()
                .filter(|other| self.is_victim(slot.0, **other));
            let doomed = self
                .doomed
                .iter()
                .find(|i| self.descends(**i, target.object));
            (others.next(), doomed.filter(|_| target.badge == 0))
        };
        match answer {
            Ok(Progress::Done) => {
                if self.held.contains_key(&slot.0) {
                    assert_eq!(remaining(), (None, None));
                }
            }
            Ok(Progress::More) => assert_ne!(remaining(), (None, None)),
            Ok(Progress::Blocked) => assert!(told.inbox.is_empty()),
            Err(error) => {
                assert_eq!((error, caller), (Error::AskMonitor, Caller::User));
                let mut others = self.held.iter();
                assert!(others.any(|(other, held)| self.is_victim(slot.0, *other)
                    && self.objects[held.object].shared
                    && self.holders(held.object) == 1));
            }
        }
    }

    /// Checks what a cleaning took away.
    pub fn clean(&mut self, budget: u32, answer: Progress, told: &Recorder) {
        self.follow(budget, told, Self::is_in_doomed);
        match answer {
            Progress::Done => assert!(self.doomed.is_empty()),
            Progress::More => assert!(!self.doomed.is_empty()),
            Progress::Blocked => assert!(told.inbox.is_empty()),
        }
    }

    fn is_in_doomed(&self, slot: u64) -> bool {
        let mut doomed = self.doomed.iter();
        doomed.any(|index| self.objects[*index].slots().contains(&slot))
    }

    /// Does what the CPU driver was told, and checks each thing.
    pub fn follow(&mut self, budget: u32, told: &Recorder, may_go: impl Fn(&Self, u64) -> bool) {
        let gone = told
            .events
            .iter()
            .filter(|event| matches!(event, Event::Gone(..)));
        assert!(
            gone.count() as u64 <= u64::from(budget),
            "more than the budget"
        );
        let mut last_gone = None;
        for event in &told.events {
            match event {
                Event::Gone(slot, capability) => {
                    assert!(may_go(self, slot.0), "{slot:?} must stay");
                    let held = self.held.remove(&slot.0).expect("went already");
                    self.compare(&held, capability);
                    let was_last = self.holders(held.object) == 0;
                    last_gone = was_last.then_some(held.object);
                }
                Event::Object(_) => {
                    let object = last_gone.take().expect("not the last");
                    if self.objects[object].slots().is_empty() {
                        self.objects[object].alive = false;
                    } else {
                        self.doomed.insert(object);
                    }
                    continue;
                }
                Event::Emptied(container) => {
                    let index = *self
                        .doomed
                        .iter()
                        .find(|index| self.objects[**index].base == container.base)
                        .expect("not doomed");
                    let slots = self.objects[index].slots();
                    assert!(!slots.iter().any(|slot| self.held.contains_key(slot)));
                    self.doomed.remove(&index);
                    self.objects[index].alive = false;
                }
                Event::Adopted(capability, to) => {
                    let matching = self.held.iter().find(|(slot, held)| {
                        self.is_in_doomed(**slot)
                            && self.objects[held.object].shared
                            && self.holders(held.object) == 1
                            && self.capability(held).same_object(capability)
                    });
                    let slot = *matching.expect("not the monitor's matter").0;
                    let held = self.held.remove(&slot).unwrap();
                    assert!(self.held.insert(to.0, held).is_none());
                }
            }
            let is_object = matches!(event, Event::Gone(..)) && last_gone.is_some();
            if is_object {
                let next = told
                    .events
                    .iter()
                    .skip_while(|other| *other != event)
                    .nth(1);
                assert!(
                    matches!(next, Some(Event::Object(_))),
                    "nobody told of the last"
                );
            }
        }
    }

    pub fn compare(&self, held: &Held, capability: &Capability) {
        let object = &self.objects[held.object];
        let mut plain = *capability;
        plain.marks = Marks::empty();
        assert_eq!(plain, self.capability(held));
        assert_eq!(
            capability.marks.contains(Marks::UNREACHABLE),
            object.unreachable
        );
        assert!(!capability.marks.contains(Marks::DOOMED));
    }

    pub fn alive(&self) -> impl Iterator<Item = (usize, &Object)> {
        self.objects
            .iter()
            .enumerate()
            .filter(|(_, object)| object.alive)
    }
}
