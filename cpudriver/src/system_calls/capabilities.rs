//! Calls about capabilities in general.

use super::{Answer, Arguments, DONE, machine, refusal, value};
use crate::dispatcher::own_slots;
use crate::finalise::{UNCLEAN, table_level};
use crate::kernel::{Kernel, STEP};
use crate::lrpc::Outcome;
use crate::processor::{MONITOR, Processor};
use ::capabilities::capability::Marks;
use ::capabilities::{Caller, Capability, Deleted, Progress, Retype, SlotId};
use abi::capability::{INDEX_BITS, Kind, Resource, Rights, SLOT_BYTES};
use abi::layout::{KERNEL_HALF, PAGE};
use abi::syscall::{CLEAN_BYTES, Error, identity};
use loader::paging::{self, TableMemory};

pub fn copy(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let [source, destination, to, from, ..] = arguments;
    let source = kernel.slot_of(from, source)?;
    let destination = kernel.slot_of(to, destination)?;
    kernel.check_clean(source)?;
    let copied = kernel.capabilities.copy(source, destination);
    copied.map_err(refusal)?;
    DONE
}

pub fn mint(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let [source, destination, rights, badge, to, from] = arguments;
    let source = kernel.slot_of(from, source)?;
    let destination = kernel.slot_of(to, destination)?;
    kernel.check_clean(source)?;
    let rights = self::rights(rights)?;
    let minted = kernel.capabilities.mint(source, destination, rights, badge);
    minted.map_err(refusal)?;
    DONE
}

pub fn move_to(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let [source, destination, to, ..] = arguments;
    let source = kernel.slot(source)?;
    let destination = kernel.slot_of(to, destination)?;
    let moved = kernel.capabilities.move_to(source, destination);
    moved.map_err(refusal)?;
    DONE
}

pub fn delete(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let slot = kernel.slot_of(arguments[1], arguments[0])?;
    let caller = kernel.caller();
    let deleted = kernel
        .capabilities
        .delete(caller, slot, &mut kernel.processor);
    let deleted = deleted.map_err(refusal)?;
    kernel.clean();
    value(u64::from(deleted != Deleted::Copy))
}

pub fn revoke(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let slot = kernel.slot_of(arguments[1], arguments[0])?;
    let caller = kernel.caller();
    let step = kernel
        .capabilities
        .revoke_step(caller, slot, STEP, &mut kernel.processor);
    progress(step.map_err(refusal)?)
}

/// What a call that goes on in steps has come to.
fn progress(step: Progress) -> Answer {
    match step {
        Progress::Done => value(0),
        Progress::More => value(1),
        Progress::Blocked => Err(Error::AskMonitor.into()),
    }
}

fn rights(bits: u64) -> Result<Rights, Error> {
    let bits = u8::try_from(bits).map_err(|_| Error::BadArgument)?;
    Rights::from_bits(bits).ok_or(Error::BadArgument)
}

impl Kernel {
    /// Who asks, as the database sees it.
    fn caller(&self) -> Caller {
        if self.processor.current() == Some(MONITOR) {
            Caller::Monitor
        } else {
            Caller::User
        }
    }

    /// Refuses a frame that is not zeroed yet.
    pub fn check_clean(&self, slot: SlotId) -> Result<(), Error> {
        let capability = self.identify(slot)?;
        if is_unclean(&capability) {
            return Err(Error::Unclean);
        }
        Ok(())
    }
}

fn is_unclean(capability: &Capability) -> bool {
    capability.kind == Kind::Frame && capability.attachment & UNCLEAN != 0
}

pub fn retype(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let [source, destination, what, offset, bytes, root] = arguments;
    let slot = kernel.slot(source)?;
    let source = kernel.identify(slot)?;
    if is_unclean(&source) {
        return Err(Error::Unclean.into());
    }
    let first = kernel.slot_of(root, destination)?;
    let what = Retype {
        kind: Kind::from_code(what & 0xff).ok_or(Error::WrongKind)?,
        offset,
        bytes,
        count: what >> 8,
    };
    // All in one CNode: the last must be where an address in the same one says.
    let index = destination & ((1 << INDEX_BITS) - 1);
    let last = index.checked_add(what.count.max(1) - 1);
    if last.is_none_or(|last| last >= 1 << INDEX_BITS) {
        return Err(Error::NoSuchSlot.into());
    }
    if what.count > 1 {
        kernel.slot_of(root, destination + what.count - 1)?;
    }
    let whole = bytes.saturating_mul(what.count);
    if what.kind.is_kernel_object() && what.kind != Kind::CNode && whole > CLEAN_BYTES {
        return Err(Error::WrongCount.into());
    }
    if what.kind == Kind::Dispatcher {
        let free = kernel.processor.free_handles().count() as u64;
        if what.count > free {
            return Err(Error::TooMany.into());
        }
    }
    let caller = kernel.caller();
    let made = kernel.capabilities.retype(caller, slot, &what, first);
    if made == Err(::capabilities::Error::Overlap) {
        // It may be what is left of a container, which nobody else empties while somebody is
        // always ready: who needs the memory does a piece of that, and may ask again.
        kernel.clean();
    }
    made.map_err(refusal)?;
    if caller == Caller::Monitor && kernel.capabilities.is_shared(slot).map_err(refusal)? {
        // The monitor has to learn when the last of what was made is gone.
        for index in 0..what.count {
            let slot = SlotId(first.0 + index * SLOT_BYTES);
            let noted = kernel.capabilities.set_shared(slot, true);
            noted.map_err(refusal)?;
        }
    }

    let base = source.base + offset;
    let is_frame = what.kind == Kind::Frame && source.kind == Kind::Ram;
    if is_frame && !source.marks.contains(Marks::UNREACHABLE) {
        if whole > CLEAN_BYTES {
            for index in 0..what.count {
                let slot = SlotId(first.0 + index * SLOT_BYTES);
                let noted = kernel.capabilities.attach(slot, UNCLEAN, 0);
                noted.map_err(refusal)?;
            }
            return value(1);
        }
        kernel.processor.ram.zero(base, whole);
        return value(0);
    }
    for index in 0..what.count {
        kernel.processor.prepare(what.kind, base + index * bytes);
    }
    value(0)
}

impl Processor {
    /// Makes the object of a capability that was just retyped.
    fn prepare(&mut self, kind: Kind, base: u64) {
        match kind {
            Kind::PageTable1 | Kind::PageTable2 | Kind::PageTable3 | Kind::PageTable4 => {
                self.ram.zero(base, PAGE);
                self.lives.change(base, table_level(kind));
            }
            Kind::Endpoint => self.ram.zero(base, abi::capability::ENDPOINT_BYTES),
            Kind::Dispatcher => {
                // The database cleared its slots.
                self.ram.zero(base, own_slots(base) - base);
                let handle = self.free_handles().next();
                // There is one: see above.
                handle
                    .into_iter()
                    .for_each(|handle| self.create(base, handle));
            }
            _ => {}
        }
        if kind == Kind::PageTable4 {
            for index in paging::index(KERNEL_HALF, 4)..512 {
                let entry = self.ram.read(self.kernel_root, index);
                self.ram.write(base, index, entry);
            }
        }
    }
}

pub fn clean(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let slot = kernel.slot(arguments[0])?;
    let frame = kernel.identify(slot)?;
    if frame.kind != Kind::Frame {
        return Err(Error::WrongKind.into());
    }
    if !is_unclean(&frame) {
        return value(0);
    }
    let done = frame.attachment & !UNCLEAN;
    let bytes = CLEAN_BYTES.min(frame.bytes - done);
    kernel.processor.ram.zero(frame.base + done, bytes);
    let left = frame.bytes - done - bytes;
    let note = if left == 0 {
        0
    } else {
        UNCLEAN | (done + bytes)
    };
    let noted = kernel.capabilities.attach(slot, note, 0);
    noted.map_err(refusal)?;
    value(left)
}

pub fn identify(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let [address, root, ..] = arguments;
    let slot = kernel.slot_of(root, address)?;
    let capability = kernel.identify(slot)?;
    let mut what = capability.kind as u64
        | u64::from(capability.rights.bits()) << 8
        | u64::from(capability.depth) << identity::DEPTH_SHIFT;
    if capability.marks.contains(Marks::UNREACHABLE) {
        what |= identity::UNREACHABLE;
    }
    if is_unclean(&capability) {
        what |= identity::UNCLEAN;
    }
    if kernel.capabilities.is_shared(slot).map_err(refusal)? {
        what |= identity::SHARED;
    }
    let attached = kernel.processor.attached(&capability);
    let entries = attached.map_or(0, |at| at.entries.count);
    Ok(Outcome::Results([
        what,
        capability.base,
        capability.bytes,
        capability.badge,
        entries,
        0,
    ]))
}

pub fn insert(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    /// Kind, rights, depth and the one mark that may come from elsewhere.
    const TAKEN: u64 = 0xffff | identity::SHARED | 0xff << identity::DEPTH_SHIFT;
    let [core, destination, what, base, bytes, root] = arguments;
    machine::check_own_core(kernel, core)?;
    let kind = Kind::from_code(what & 0xff).ok_or(Error::WrongKind)?;
    if !matches!(
        kind,
        Kind::Ram | Kind::Frame | Kind::DeviceFrame | Kind::Doorbell
    ) {
        return Err(Error::WrongKind.into());
    }
    if what & !TAKEN != 0 {
        return Err(Error::BadArgument.into());
    }
    let slot = kernel.slot_of(root, destination)?;
    let mut capability = Capability::original(kind, base, bytes);
    capability.rights = rights(what >> 8 & 0xff)?;
    capability.depth = (what >> identity::DEPTH_SHIFT) as u8;
    let end = base.saturating_add(bytes);
    if kind == Kind::Doorbell {
        let vectors = Resource::Vectors.range();
        if base < vectors.start || vectors.end < end {
            return Err(Error::OutOfRange.into());
        }
    } else if kernel.processor.ram.touches(base, bytes) {
        // What is not covered is the CPU driver's own.
        if kind == Kind::DeviceFrame || !kernel.capabilities.is_covered(base, end) {
            return Err(Error::Conflict.into());
        }
    } else {
        capability.marks = Marks::UNREACHABLE;
        let regions = kernel.processor.machine.cores().iter();
        let mut ram = regions.map(|core| {
            let bytes = core.private_bytes + core.shared_bytes;
            core.region..core.region + bytes
        });
        if kind == Kind::DeviceFrame && ram.any(|ram| base < ram.end && ram.start < end) {
            return Err(Error::Conflict.into());
        }
    }
    let inserted = kernel.capabilities.insert(slot, &capability);
    inserted.map_err(refusal)?;
    if what & identity::SHARED != 0 {
        let noted = kernel.capabilities.set_shared(slot, true);
        noted.map_err(refusal)?;
    }
    DONE
}

/// The object that the arguments of a monitor's call name.
fn object(kernel: &mut Kernel, arguments: Arguments) -> Result<Capability, Error> {
    let [core, kind, base, bytes, depth, _] = arguments;
    machine::check_own_core(kernel, core)?;
    let kind = Kind::from_code(kind).ok_or(Error::WrongKind)?;
    base.checked_add(bytes).ok_or(Error::OutOfRange)?;
    let mut object = Capability::original(kind, base, bytes);
    object.depth = u8::try_from(depth).map_err(|_| Error::BadArgument)?;
    Ok(object)
}

pub fn note_shared(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let object = object(kernel, arguments)?;
    let slot = kernel.capabilities.find(&object).ok_or(Error::NotFound)?;
    let noted = kernel.capabilities.set_shared(slot, arguments[5] != 0);
    noted.map_err(refusal)?;
    DONE
}

pub fn look_up(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let object = object(kernel, arguments)?;
    let is_here = kernel.capabilities.find(&object).is_some();
    let has_parts = kernel.capabilities.has_parts(&object);
    let is_used = kernel.capabilities.is_used(object.base, object.bytes);
    let [here, parts, used] = [is_here, has_parts, is_used].map(u64::from);
    Ok(Outcome::Results([here, parts, used, 0, 0, 0]))
}

pub fn remove(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let object = object(kernel, arguments)?;
    let step = kernel
        .capabilities
        .remove_step(&object, STEP, &mut kernel.processor);
    progress(step)
}

pub fn offer_slot(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    machine::check_own_core(kernel, arguments[0])?;
    let slot = kernel.slot(arguments[1])?;
    if kernel.identify(slot).is_ok() {
        return Err(Error::OccupiedSlot.into());
    }
    kernel.processor.offered_slot = Some(slot);
    DONE
}
