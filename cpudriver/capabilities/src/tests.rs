//! Tests: one for every error, the structure, and a state machine against a model.

mod machine;
mod model;
mod structure;
mod units;

use crate::{Capability, Finalise, SLOT_BYTES, Slot, SlotId, Slots};

/// Origin of the test databases, and start of the RAM that holds slots.
pub const ORIGIN: u64 = 0x10_0000;
/// Bytes of RAM that can hold slots.
pub const PRIVATE_BYTES: u64 = 0x20_0000;

/// Memory that knows which part of it is slots: anything else panics.
#[derive(Clone)]
pub struct Memory(Vec<Option<Slot>>);

impl Memory {
    pub fn new() -> Self {
        Self(vec![None; (PRIVATE_BYTES / SLOT_BYTES) as usize])
    }

    fn index(id: SlotId) -> usize {
        assert!(id.0.is_multiple_of(SLOT_BYTES) && id.0 > ORIGIN, "{id:?}");
        ((id.0 - ORIGIN) / SLOT_BYTES) as usize
    }

    /// These are slots no more.
    pub fn forget(&mut self, first: SlotId, count: u64) {
        let start = Self::index(first);
        for slot in &mut self.0[start..start + count as usize] {
            assert!(slot.take().expect("a slot").capability.is_null());
        }
    }
}

impl Slots for Memory {
    fn slot(&self, id: SlotId) -> &Slot {
        self.0[Self::index(id)].as_ref().expect("a slot")
    }

    fn slot_mut(&mut self, id: SlotId) -> &mut Slot {
        self.0[Self::index(id)].as_mut().expect("a slot")
    }

    fn clear(&mut self, first: SlotId, count: u64) {
        let start = Self::index(first);
        for slot in &mut self.0[start..start + count as usize] {
            assert!(slot.is_none(), "slots in use are cleared");
            *slot = Some(Slot::EMPTY);
        }
    }
}

/// What a CPU driver was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Gone(SlotId, Capability),
    Object(Capability),
    Emptied(Capability),
    Adopted(Capability, SlotId),
}

/// Notes everything.
#[derive(Default)]
pub struct Recorder {
    pub events: Vec<Event>,
    /// Empty slots of the monitor.
    pub inbox: Vec<SlotId>,
}

impl Finalise for Recorder {
    fn capability_gone(&mut self, slot: SlotId, capability: &Capability) {
        self.events.push(Event::Gone(slot, *capability));
    }

    fn object_gone(&mut self, object: &Capability) {
        self.events.push(Event::Object(*object));
    }

    fn container_emptied(&mut self, container: &Capability) {
        self.events.push(Event::Emptied(*container));
    }

    fn slot_of_monitor(&self) -> Option<SlotId> {
        self.inbox.last().copied()
    }

    fn moved_to_monitor(&mut self, slot: SlotId, capability: &Capability) {
        assert_eq!(self.inbox.pop(), Some(slot));
        self.events.push(Event::Adopted(*capability, slot));
    }
}
