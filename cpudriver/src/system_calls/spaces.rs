//! Calls about address spaces.

use super::{Answer, Arguments, DONE, refusal, value};
use crate::arch::cpu;
use crate::finalise::Attachment;
use crate::kernel::Kernel;
use crate::lrpc::Outcome;
use crate::processor::Processor;
use crate::recording::{is_on, note, write};
use ::capabilities::{Capability, SlotId};
use abi::capability::{Kind, Rights};
use abi::layout::PAGE;
use abi::syscall::{self, Error, rights};
use loader::paging;
use trace::event::{MAP, UNMAP};

pub fn translate(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let [root, address, ..] = arguments;
    let root = kernel.find(root, Kind::PageTable4, Rights::READ)?.base;
    let page = paging::translate(&kernel.processor.ram, root, address)?;
    let results = [page.physical, page.bytes, page.rights, 0, 0, 0];
    Ok(Outcome::Results(results))
}

/// The frame in a slot, if it may be mapped with these rights, and the flags of its entries.
fn frame(kernel: &Kernel, slot: SlotId, asked: u64) -> Result<(Capability, u64), Error> {
    let frame = kernel.identify(slot)?;
    let is_device = frame.kind == Kind::DeviceFrame;
    if !is_device && frame.kind != Kind::Frame {
        return Err(Error::WrongKind);
    }
    let flags = paging::user_flags(asked, is_device)?;
    let mut needed = Rights::READ;
    needed.set(Rights::WRITE, asked & rights::WRITE != 0);
    needed.set(Rights::EXECUTE, asked & rights::EXECUTE != 0);
    if !frame.rights.contains(needed) {
        return Err(Error::NotAllowed);
    }
    Ok((frame, flags))
}

pub fn map(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let [root, address, frame, offset, how_many, asked] = arguments;
    let (count, level) = (how_many & 0xffff_ffff, (how_many >> 32) as u32);
    let root = kernel.find(root, Kind::PageTable4, Rights::WRITE)?.base;
    let slot = kernel.slot(frame)?;
    kernel.check_clean(slot)?;
    let (frame, flags) = self::frame(kernel, slot, asked)?;
    if kernel.processor.attached(&frame).is_some() {
        return Err(Error::CapabilityMapped.into());
    }
    if !(1..=3).contains(&level) || level == 3 && !kernel.processor.giant_pages {
        return Err(Error::BadArgument.into());
    }
    let bytes = count << (12 + 9 * (level - 1));
    let room = frame.bytes.checked_sub(offset);
    if count > syscall::MAP_PAGES || room.is_none_or(|room| room < bytes) {
        return Err(Error::OutOfRange.into());
    }
    let physical = frame.base + offset;
    let ram = &mut kernel.processor.ram;
    let entries = paging::enter(ram, root, address, level, physical, count, flags)?;
    note(MAP, address, (bytes / PAGE) as u32);
    let (place, detail) = kernel.processor.attachment(&entries, level);
    let attached = kernel.capabilities.attach(slot, place, detail);
    attached.map_err(refusal)?;
    DONE
}

pub fn map_table(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let [root, address, table, ..] = arguments;
    let root = kernel.find(root, Kind::PageTable4, Rights::WRITE)?.base;
    let slot = kernel.slot(table)?;
    let table = kernel.identify(slot)?;
    let level = match table.kind {
        Kind::PageTable1 => 1,
        Kind::PageTable2 => 2,
        Kind::PageTable3 => 3,
        _ => return Err(Error::WrongKind.into()),
    };
    // A table in two places would be two names for one piece of an address space, of which
    // an unmap would find only one. (What this very capability entered may be gone by now.)
    let is_own = table.attachment != 0 && kernel.processor.attached(&table).is_none();
    if kernel.processor.lives.is_entered(table.base) && !is_own {
        return Err(Error::CapabilityMapped.into());
    }
    let entries = paging::enter_table(&mut kernel.processor.ram, root, address, level, table.base)?;
    kernel.processor.lives.set_entered(table.base, true);
    let (place, detail) = kernel.processor.attachment(&entries, level + 1);
    let attached = kernel.capabilities.attach(slot, place, detail);
    attached.map_err(refusal)?;
    DONE
}

impl Processor {
    /// Drops the translations of what is mapped there. If it is at `address` of the address space
    /// in use, only those.
    fn forget(&self, at: &Attachment, address: u64) {
        let root = cpu::loaded_root();
        if at.level == 1
            && at.entries.count <= 8
            && paging::holds(&self.ram, root, address, &at.entries, 1)
        {
            for page in 0..at.entries.count {
                cpu::forget_translation(address + page * PAGE);
            }
        } else {
            cpu::forget_translations();
        }
    }
}

/// Records that so many entries were cleared, or changed: in small pages, but of page tables the entries.
#[inline(always)]
fn note_unmapped(address: u64, capability: &Capability, at: &Attachment, entries: u64) {
    if is_on(UNMAP) {
        let pages = entries * at.step(capability.kind) / PAGE;
        write(UNMAP, 0, address, pages as u32);
    }
}

pub fn unmap(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let [capability, address, ..] = arguments;
    let slot = kernel.slot(capability)?;
    let capability = kernel.identify(slot)?;
    kernel.check_clean(slot)?;
    let at = kernel.processor.attached(&capability);
    let cleared = kernel.processor.unmap(&capability);
    let detached = kernel.capabilities.attach(slot, 0, 0);
    detached.map_err(refusal)?;
    let at = at.ok_or(Error::NotMapped)?;
    note_unmapped(address, &capability, &at, cleared);
    if matches!(capability.kind, Kind::Frame | Kind::DeviceFrame) {
        kernel.processor.forget(&at, address);
    } else {
        cpu::forget_translations();
    }
    value(cleared)
}

pub fn protect(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let [capability, address, asked, ..] = arguments;
    let slot = kernel.slot(capability)?;
    let (frame, flags) = frame(kernel, slot, asked)?;
    let at = kernel.processor.attached(&frame).ok_or(Error::NotMapped)?;
    let physical = kernel.processor.mapped_from(&frame, &at);
    let physical = physical.ok_or(Error::NotMapped)?;
    let step = at.step(frame.kind);
    let changed = paging::protect(
        &mut kernel.processor.ram,
        &at.entries,
        physical,
        step,
        flags,
    );
    note_unmapped(address, &frame, &at, changed);
    kernel.processor.forget(&at, address);
    value(changed)
}
