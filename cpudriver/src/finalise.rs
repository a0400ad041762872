//! What goes with a capability: mappings, objects, and what a dispatcher lived by.

use crate::arch::cpu;
use crate::dispatcher::{CSpace, Link, own_slot, own_slots};
use crate::kernel::Kernel;
use crate::processor::Processor;
use abi::capability::{Kind, Resource, SLOT_BYTES, VECTORS};
use abi::layout::{DIRECT_MAP, PAGE};
use abi::limits::MAX_DISPATCHERS;
use abi::syscall::Error;
use capabilities::{Capability, Finalise, SlotId};
use loader::paging::{self, ADDRESS, Entries, PRESENT, TableMemory};

/// In the attachment of a frame: it is not zeroed yet; the rest is how far it is.
pub const UNCLEAN: u64 = 1 << 63;

/// Where a capability is mapped, as its attachment says: the table's physical address, level and
/// first index; in the detail how many entries, and the table's life.
///
/// ```text
///  attachment  table (page aligned) │ level (3 bits, from bit 9) │ index (9 bits)
///  detail      life (22 bits) │ entries (10 bits)
/// ```
#[derive(Clone, Copy)]
pub struct Attachment {
    pub entries: Entries,
    pub level: u32,
}

/// Level of a page table of this kind.
pub fn table_level(kind: Kind) -> u32 {
    kind as u32 - Kind::PageTable1 as u32 + 1
}

impl Attachment {
    /// How far apart the memory is that the entries lead to.
    pub fn step(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Frame | Kind::DeviceFrame => PAGE << (9 * (self.level - 1)),
            _ => PAGE, // a page table
        }
    }
}

impl Processor {
    /// Words for the attachment of what is mapped there.
    pub fn attachment(&self, entries: &Entries, level: u32) -> (u64, u32) {
        let place = entries.table | u64::from(level) << 9 | entries.index as u64;
        let life = self.lives.of(entries.table);
        (place, life << 10 | entries.count as u32)
    }

    /// Where a capability is mapped; `None`: nowhere, or in a table that is gone.
    pub fn attached(&self, capability: &Capability) -> Option<Attachment> {
        let (place, detail) = (capability.attachment, capability.attachment_detail);
        if place == 0 || place & UNCLEAN != 0 {
            return None;
        }
        let entries = Entries {
            table: place & ADDRESS,
            index: (place & 0x1ff) as usize,
            count: u64::from(detail & 0x3ff),
        };
        let level = (place >> 9 & 7) as u32;
        (self.lives.of(entries.table) == detail >> 10).then_some(Attachment { entries, level })
    }

    /// Physical address that the first entry leads to, if what all of them would lead to from there
    /// is the capability's own. (What it remembers may be of an earlier life with the same number.)
    pub fn mapped_from(&self, capability: &Capability, at: &Attachment) -> Option<u64> {
        let entry = self.ram.read(at.entries.table, at.entries.index);
        let step = at.step(capability.kind);
        let physical = entry & ADDRESS & !(step - 1);
        let end = physical + at.entries.count * step;
        let inside = capability.base <= physical && end <= capability.end();
        (entry & PRESENT != 0 && inside).then_some(physical)
    }

    /// Takes what is mapped by a capability out of the page table; returns how many entries.
    pub fn unmap(&mut self, capability: &Capability) -> u64 {
        let is_frame = matches!(capability.kind, Kind::Frame | Kind::DeviceFrame);
        if !is_frame && capability.attachment != 0 {
            // It was this capability that it was entered by, and that table may be gone.
            self.lives.set_entered(capability.base, false);
        }
        let Some(at) = self.attached(capability) else {
            return 0;
        };
        let Some(physical) = self.mapped_from(capability, &at) else {
            return 0;
        };
        let step = at.step(capability.kind);
        paging::clear(&mut self.ram, &at.entries, physical, step)
    }

    /// Whose slot this is, of those that dispatchers live by, and which.
    fn owner_of(&self, slot: SlotId) -> Option<(usize, u64)> {
        for handle in 0..MAX_DISPATCHERS {
            if let Some(base) = self.physical(handle)
                && let Some(offset) = slot.0.checked_sub(own_slots(base))
                && offset < abi::capability::DISPATCHER_SLOTS * SLOT_BYTES
            {
                return Some((handle, offset / SLOT_BYTES));
            }
        }
        None
    }

    /// A dispatcher lost a capability that it lived by.
    fn bereave(&mut self, handle: usize, which: u64) {
        let kernel_root = self.kernel_root;
        let Some(dispatcher) = self.dispatcher(handle) else {
            return;
        };
        match which {
            own_slot::CSPACE => dispatcher.cspace = CSpace::default(),
            own_slot::SPACE => {
                dispatcher.root = kernel_root;
                self.stop(handle);
            }
            own_slot::DOORBELL => {
                let vector = core::mem::take(&mut dispatcher.vector);
                self.doorbells[usize::from(vector)] = Link::NOBODY;
            }
            _ => {}
        }
    }
}

impl Finalise for Processor {
    fn capability_gone(&mut self, slot: SlotId, capability: &Capability) {
        match capability.kind {
            Kind::Frame
            | Kind::DeviceFrame
            | Kind::PageTable1
            | Kind::PageTable2
            | Kind::PageTable3
                if self.unmap(capability) > 0 =>
            {
                cpu::forget_translations();
            }
            Kind::CNode | Kind::PageTable4 | Kind::Doorbell => {
                if let Some((handle, which)) = self.owner_of(slot) {
                    self.bereave(handle, which);
                }
            }
            _ => {}
        }
    }

    fn object_gone(&mut self, object: &Capability) {
        match object.kind {
            Kind::Dispatcher => {
                if let Some(handle) = self.handle_at(object.base) {
                    self.destroy(handle);
                }
            }
            Kind::Endpoint => {
                let endpoint = self.endpoint(object.base);
                // Without an owner nobody receives there either.
                if endpoint.is_some_and(|one| one.owner != Link::NOBODY || one.queued != 0) {
                    self.close(object.base);
                }
            }
            Kind::PageTable1 | Kind::PageTable2 | Kind::PageTable3 | Kind::PageTable4 => {
                self.lives.change(object.base, table_level(object.kind));
                if cpu::loaded_root() == object.base {
                    // SAFETY: the kernel's own page table, without a lower half.
                    unsafe { cpu::switch_address_space(self.kernel_root) };
                    self.attention = true;
                }
            }
            _ => {}
        }
    }

    fn container_emptied(&mut self, _container: &Capability) {}

    fn slot_of_monitor(&self) -> Option<SlotId> {
        self.offered_slot
    }

    fn moved_to_monitor(&mut self, _slot: SlotId, _capability: &Capability) {
        self.tell_monitor();
    }
}

impl Kernel {
    /// Gives a dispatcher a capability that it lives by: its own copy, and what follows from it.
    pub fn endow(&mut self, handle: usize, which: u64, source: SlotId) -> Result<(), Error> {
        let capability = self.identify(source)?;
        let base = self.processor.physical(handle).ok_or(Error::NotFound)?;
        let vector = match which {
            own_slot::DOORBELL => Some(self.processor.own_vector(handle, &capability)?),
            _ => None,
        };
        self.relieve(handle, which);
        let place = SlotId(own_slots(base) + which * SLOT_BYTES);
        let copied = self.capabilities.copy(source, place);
        copied.map_err(crate::system_calls::refusal)?;
        let dispatcher = self.processor.dispatcher(handle).ok_or(Error::NotFound)?;
        match which {
            own_slot::CSPACE => {
                dispatcher.cspace = CSpace {
                    slots: DIRECT_MAP + capability.base,
                    bytes: capability.bytes,
                };
            }
            own_slot::SPACE => {
                dispatcher.root = capability.base;
                // The current one goes on in it at once.
                if self.processor.current() == Some(handle) {
                    // SAFETY: retyping, or the loader, put this core's kernel half into it.
                    unsafe { cpu::switch_address_space(capability.base) };
                }
            }
            own_slot::DOORBELL => {
                let vector = vector.unwrap_or_default();
                dispatcher.vector = vector;
                self.processor.doorbells[usize::from(vector)] = Link::to(handle);
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes a capability back that a dispatcher lived by, to make room for another.
    pub fn relieve(&mut self, handle: usize, which: u64) {
        let Some(base) = self.processor.physical(handle) else {
            return;
        };
        let slot = SlotId(own_slots(base) + which * SLOT_BYTES);
        let was_stopped = self.processor.dispatcher(handle).map(|one| one.stopped);
        let caller = capabilities::Caller::Monitor;
        // It may hold none; and where it does, it is not the last one that matters to others.
        let _ = self.capabilities.delete(caller, slot, &mut self.processor);
        // Losing its address space stopped it, and it is about to get another.
        if was_stopped == Some(false) {
            self.processor.start(handle);
        }
    }
}

impl Processor {
    /// The vector of a doorbell that is to wake `handle`.
    fn own_vector(&self, handle: usize, doorbell: &Capability) -> Result<u8, Error> {
        let number = doorbell.base - Resource::Vectors.range().start;
        let (core, vector) = (number / VECTORS, number % VECTORS);
        let is_one = core == self.own_core() && doorbell.bytes == 1;
        let is_doorbells =
            (abi::syscall::FIRST_DOORBELL..=abi::syscall::LAST_DOORBELL).contains(&vector);
        let owner = self.doorbells[vector as usize];
        let is_free = owner == Link::NOBODY || owner == Link::to(handle);
        if is_one && is_doorbells && is_free {
            Ok(vector as u8)
        } else {
            Err(Error::BadVector)
        }
    }
}
