//! Calls about capabilities in general.

use super::{Answer, Arguments, DONE, machine, refusal, value};
use crate::dispatcher::own_slots;
use crate::finalise::{UNCLEAN, table_level};
use crate::kernel::{Kernel, STEP};
use crate::lrpc::Outcome;
use crate::processor::{MONITOR, Processor};
use ::capabilities::capability::Marks;
use ::capabilities::{Caller, Capability, Progress, Retype, SlotId};
use abi::capability::{INDEX_BITS, Kind, Rights, SLOT_BYTES};
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
    let [source, destination, rights, badge, to, _] = arguments;
    let source = kernel.slot(source)?;
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
    let slot = kernel.slot(arguments[0])?;
    let caller = kernel.caller();
    let deleted = kernel
        .capabilities
        .delete(caller, slot, &mut kernel.processor);
    deleted.map_err(refusal)?;
    kernel.clean();
    DONE
}

pub fn revoke(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let slot = kernel.slot(arguments[0])?;
    let caller = kernel.caller();
    let step = kernel
        .capabilities
        .revoke_step(caller, slot, STEP, &mut kernel.processor);
    match step.map_err(refusal)? {
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
    let mut what = capability.kind as u64 | u64::from(capability.rights.bits()) << 8;
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
    let [core, destination, what, base, bytes, _] = arguments;
    machine::check_own_core(kernel, core)?;
    let kind = Kind::from_code(what & 0xff).ok_or(Error::WrongKind)?;
    if !matches!(kind, Kind::Ram | Kind::Frame | Kind::DeviceFrame) {
        return Err(Error::WrongKind.into());
    }
    if kernel.processor.ram.touches(base, bytes) {
        return Err(Error::Conflict.into());
    }
    let mut capability = Capability::original(kind, base, bytes);
    capability.rights = rights(what >> 8)?;
    capability.marks = Marks::UNREACHABLE;
    let slot = kernel.slot(destination)?;
    let inserted = kernel.capabilities.insert(slot, &capability);
    inserted.map_err(refusal)?;
    DONE
}
