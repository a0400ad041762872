//! What a monitor has: RAM, empty slots, and its own address space.

use super::foreign::{Foreign, From};
use super::loans::Loan;
use super::ram::{Pool, Ram};
use super::slots::{ADDED_SLOTS, Slots, cnode_index};
use super::space::{self, Mapping};
use super::{Error, machine};
use crate::capability::{self, Address, Kind, Retype, Rights};
use crate::startup;
use abi::capability::monitor::{CORES, PRIVATE_RAM};
use abi::capability::{OWN_DOORBELL, OWN_SPACE, Resource, SLOT_BYTES, VECTORS};
use abi::layout::{LARGE_PAGE, MONITOR_WINDOW, PAGE};
use abi::limits::MAX_CORES;
use abi::syscall::{FIRST_DOORBELL, MAP_PAGES, rights};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;

/// Pages of a CNode that is added.
const CNODE_PAGES: u64 = ADDED_SLOTS * SLOT_BYTES / PAGE;

/// Where large pages are looked at.
const LARGE_WINDOW: u64 = MONITOR_WINDOW + (1 << 30);

/// What of a region's RAM is for the channels between monitors: see [`super::mesh`].
pub(super) const MESH_BYTES: u64 = (MAX_CORES as u64 + SLEEP_PAGES) * PAGE;

/// Pages of the monitors' sleep words, a line each, behind the channels of core 0.
pub(super) const SLEEP_PAGES: u64 = (MAX_CORES as u64 * CACHE_LINE).div_ceil(PAGE);
pub(super) const CACHE_LINE: u64 = 64;

/// What a monitor has, and its address space.
#[derive(Debug)]
pub struct Store {
    /// RAM that only this core's CPU driver maps.
    private: Pool,
    /// RAM of this core that no CPU driver maps, for frames that cores share.
    pub(super) shared: Pool,
    /// RAM of other cores that this one has borrowed, for the same.
    pub(super) loans: Vec<Loan>,
    slots: Slots,
    pub(super) foreign: Foreign,
    /// Doorbells of other cores' monitors.
    doorbells: BTreeMap<usize, Address>,
}

/// RAM with one owner, of which objects are made from front to back.
#[derive(Debug)]
pub(super) struct Block {
    ram: Ram,
    capability: Address,
    /// Bytes that objects were made of.
    used: u64,
}

/// A frame that domains of several cores may map: of shared RAM that is this core's or that it has
/// borrowed, or of another core's that its monitor lets domains of this one have.
#[derive(Debug)]
pub struct SharedRam {
    ram: Ram,
    pub(super) capability: Address,
    /// Where its RAM goes when nobody has it mapped.
    pool: From,
}

impl SharedRam {
    /// Its physical address.
    pub fn base(&self) -> u64 {
        self.ram.base
    }

    /// Bytes of it.
    pub fn bytes(&self) -> u64 {
        self.ram.pages * PAGE
    }
}

impl Block {
    /// Makes an object of the next bytes; its capability goes into `destination`.
    pub fn make(&mut self, kind: Kind, bytes: u64, destination: Address) -> Result<(), Error> {
        let what = Retype {
            kind,
            offset: self.used,
            bytes,
            count: 1,
        };
        capability::retype(self.capability, &what, destination)?;
        self.used += bytes;
        Ok(())
    }

    /// The capability to all of it.
    pub fn capability(&self) -> Address {
        self.capability
    }

    /// Its physical address.
    pub fn base(&self) -> u64 {
        self.ram.base
    }
}

impl Store {
    /// All that there is, with the channel pages of this core mapped and zeroed. To be made
    /// once: the CPU driver refuses a second.
    pub fn new() -> Result<Self, Error> {
        let core = &machine().cores()[startup().core as usize];
        let free = startup().free;
        let end = core.region + core.private_bytes;
        let (shared, bytes) = (end + MESH_BYTES, core.shared_bytes - MESH_BYTES);
        let mut slots = Slots::new();
        let slot = slots.take().ok_or(Error::NoMemory)?;
        let foreign = Foreign::new(slots.take().ok_or(Error::NoMemory)?)?;
        capability::insert(CORES, slot, Kind::Ram, Rights::all(), shared, bytes)?;
        let mut store = Self {
            private: Pool::new(PRIVATE_RAM, free, end - free),
            shared: Pool::new(slot, shared, bytes),
            loans: Vec::new(),
            slots,
            foreign,
            doorbells: BTreeMap::new(),
        };
        store.open_mesh()?;
        Ok(store)
    }

    /// Free pages: of private RAM, of shared RAM.
    pub fn pages(&self) -> (u64, u64) {
        (self.private.pages(), self.shared.pages())
    }

    /// Takes an empty slot; where there is none, in a new CNode.
    pub(super) fn slot(&mut self) -> Result<Address, Error> {
        if let Some(slot) = self.slots.take() {
            return Ok(slot);
        }
        let number = self.slots.next().ok_or(Error::NoMemory)?;
        let index = cnode_index(number);
        let mut block = self.block_at(CNODE_PAGES, Address::new(1, index - 1))?;
        if let Err(error) = block.make(Kind::CNode, CNODE_PAGES * PAGE, Address::new(1, index)) {
            let ram = self.reclaim(block);
            self.private.give(ram);
            return Err(error);
        }
        self.slots.add(number);
        self.slots.take().ok_or(Error::NoMemory)
    }

    /// Takes several empty slots.
    pub(super) fn slots<const N: usize>(&mut self) -> Result<[Address; N], Error> {
        let mut taken = [Address(0); N];
        for index in 0..N {
            match self.slot() {
                Ok(slot) => taken[index] = slot,
                Err(error) => {
                    for slot in &taken[..index] {
                        self.discard(*slot);
                    }
                    return Err(error);
                }
            }
        }
        Ok(taken)
    }

    /// Gives a slot back, without the capability in it, if there is one.
    pub(super) fn discard(&mut self, slot: Address) {
        // It may be empty already: whatever was made of something went with that.
        let _ = capability::delete(slot);
        if let Some(number) = self.slots.give(slot) {
            let ram = Address::new(1, cnode_index(number) - 1);
            // All of what it identifies is known: the capability was made here.
            if let Ok(what) = capability::identify(ram) {
                let (base, pages) = (what.base, what.bytes / PAGE);
                let block = Block {
                    ram: Ram { base, pages },
                    capability: ram,
                    used: 0,
                };
                let ram = self.reclaim(block);
                self.private.give(ram);
            }
        }
    }

    /// Takes private RAM for one owner.
    pub(super) fn block(&mut self, pages: u64) -> Result<Block, Error> {
        let slot = self.slot()?;
        let block = self.block_at(pages, slot);
        if block.is_err() {
            self.discard(slot);
        }
        block
    }

    fn block_at(&mut self, pages: u64, capability: Address) -> Result<Block, Error> {
        let ram = self.private.make(Kind::Ram, pages, capability)?;
        Ok(Block {
            ram,
            capability,
            used: 0,
        })
    }

    /// Takes a block back, and from everybody what was made of it.
    pub(super) fn release(&mut self, block: Block) {
        let slot = block.capability;
        let ram = self.reclaim(block);
        self.give_back(ram, From::Private);
        self.discard(slot);
    }

    /// Takes from everybody on this core what was made of a block, and deletes the capability to it.
    #[allow(clippy::needless_pass_by_value)] // nobody has it afterwards
    fn reclaim(&mut self, block: Block) -> Ram {
        // Nobody else has the right to revoke it, so it is there, and the calls cannot fail.
        self.revoke(block.capability);
        let _ = capability::delete(block.capability);
        block.ram
    }

    /// Memory that nobody holds.
    pub(super) fn give(&mut self, ram: Ram, pool: From) {
        match pool {
            From::Private => self.private.give(ram),
            From::Shared => self.shared.give(ram),
            From::Loan => self.give_to_loan(ram),
            From::Nowhere => {}
        }
    }

    /// Makes an object of private RAM that is there for good; back comes its slot.
    fn object(&mut self, kind: Kind, pages: u64) -> Result<Address, Error> {
        let slot = self.slot()?;
        match self.private.make(kind, pages, slot) {
            Ok(_) => Ok(slot),
            Err(error) => {
                self.discard(slot);
                Err(error)
            }
        }
    }

    /// Maps into the monitor's own address space.
    ///
    /// # Safety
    /// As [`space::map`] has it.
    pub(super) unsafe fn map(&mut self, mapping: &Mapping) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { space::map(OWN_SPACE, mapping, |kind| self.object(kind, 1)) }
    }

    /// Maps a part of a frame, at most [`MAP_PAGES`], at the window, and lets `work` at it.
    pub(super) fn look<R>(
        &mut self,
        frame: Address,
        offset: u64,
        pages: u64,
        rights: u64,
        work: impl FnOnce(*mut u8) -> R,
    ) -> Result<R, Error> {
        let mapping = Mapping {
            address: MONITOR_WINDOW,
            frame,
            offset,
            pages,
            level: 1,
            rights,
        };
        // SAFETY: the window is for this alone, and nothing is mapped there but during a look.
        unsafe { self.map(&mapping)? };
        let result = work(MONITOR_WINDOW as *mut u8);
        space::unmap(frame, MONITOR_WINDOW)?;
        Ok(result)
    }

    /// Writes to a frame that nobody has mapped.
    pub(super) fn write(&mut self, frame: Address, at: u64, contents: &[u8]) -> Result<(), Error> {
        let start = at / PAGE * PAGE;
        let pages = (at + contents.len() as u64 - start).div_ceil(PAGE);
        let mut rest = contents;
        let mut lead = (at - start) as usize;
        for (_, offset, pages) in space::pieces(0, pages) {
            let room = (pages * PAGE) as usize - lead;
            let (piece, others) = rest.split_at(rest.len().min(room));
            self.look(frame, start + offset, pages, rights::WRITE, |window| {
                // SAFETY: so much of the frame is mapped there, and nowhere else.
                unsafe {
                    let to = window.add(lead);
                    to.copy_from_nonoverlapping(piece.as_ptr(), piece.len());
                }
            })?;
            (rest, lead) = (others, 0);
        }
        Ok(())
    }

    /// Takes shared RAM of this core, makes a frame of it and zeroes that, for domains to map.
    pub fn shared_frame(&mut self, pages: u64) -> Result<SharedRam, Error> {
        self.frame_of(pages, false)
    }

    /// As [`Self::shared_frame`]; where this core has too little, of what it has borrowed.
    pub fn any_frame(&mut self, pages: u64) -> Result<SharedRam, Error> {
        let borrowed = !self.shared.has(pages) && self.has_loan_for(pages);
        self.frame_of(pages, borrowed)
    }

    fn frame_of(&mut self, pages: u64, borrowed: bool) -> Result<SharedRam, Error> {
        let slot = self.slot()?;
        let made = match borrowed {
            false => self.shared.make(Kind::Frame, pages, slot),
            true => self.make_of_loan(pages, slot),
        };
        let ram = match made {
            Ok(ram) => ram,
            Err(error) => {
                self.discard(slot);
                return Err(error);
            }
        };
        let frame = SharedRam {
            ram,
            capability: slot,
            pool: if borrowed { From::Loan } else { From::Shared },
        };
        // The CPU driver does not reach it, so it could not zero it.
        for (_, offset, pages) in space::pieces(0, pages) {
            let zeroed = self.look(slot, offset, pages, rights::WRITE, |window| {
                // SAFETY: so much of the frame is mapped there, and nowhere else.
                unsafe { window.write_bytes(0, (pages * PAGE) as usize) }
            });
            if let Err(error) = zeroed {
                self.release_frame(frame);
                return Err(error);
            }
        }
        Ok(frame)
    }

    /// The frame that another core's monitor lets domains of this one have.
    pub fn foreign_frame(&mut self, base: u64, bytes: u64) -> Result<SharedRam, Error> {
        let access = Rights::READ | Rights::WRITE | Rights::REVOKE;
        let capability = self.slot()?;
        match capability::insert(CORES, capability, Kind::Frame, access, base, bytes) {
            Ok(()) => Ok(SharedRam {
                ram: Ram {
                    base,
                    pages: bytes / PAGE,
                },
                capability,
                pool: From::Nowhere,
            }),
            Err(error) => {
                self.discard(capability);
                Err(error.into())
            }
        }
    }

    /// Takes a frame from all domains of this core that have it. If it was made here, its RAM is
    /// free afterwards.
    pub fn release_frame(&mut self, frame: SharedRam) {
        self.revoke(frame.capability);
        self.discard(frame.capability);
        if !matches!(frame.pool, From::Nowhere) {
            self.give_back(frame.ram, frame.pool);
        }
    }

    /// Lets `work` at the first `bytes` of a region that no core runs in yet, whole large
    /// pages.
    ///
    /// # Safety
    /// Nobody may use that memory.
    pub(super) unsafe fn look_at_region<R>(
        &mut self,
        region: u64,
        bytes: u64,
        work: impl FnOnce(&mut [u8]) -> R,
    ) -> Result<R, Error> {
        let access = Rights::READ | Rights::WRITE;
        let frame = self.slot()?;
        let inserted = capability::insert(CORES, frame, Kind::Frame, access, region, bytes);
        let mapping = Mapping {
            address: LARGE_WINDOW,
            frame,
            offset: 0,
            pages: bytes / LARGE_PAGE,
            level: 2,
            rights: rights::WRITE,
        };
        let result = inserted.map_err(Error::from).and_then(|()| {
            // SAFETY: the large window is for this alone.
            unsafe { self.map(&mapping)? };
            // SAFETY: mapped there just now; nobody else uses it, says the caller.
            Ok(work(unsafe {
                core::slice::from_raw_parts_mut(LARGE_WINDOW as *mut u8, bytes as usize)
            }))
        });
        // The last capability to it, and with it the mapping, goes.
        self.discard(frame);
        result
    }

    /// Gives the monitor's heap more memory, for good: what it keeps grows with the cores and
    /// domains that it has to do with. To be called once: the address is taken then.
    pub fn extend_heap(&mut self, pages: u64) -> Result<(), Error> {
        let start = startup().heap + startup().heap_bytes;
        let frame = self.object(Kind::Frame, pages)?;
        for (address, offset, pages) in space::pieces(start, pages) {
            // A capability is mapped at one place at a time.
            let piece = if offset == 0 {
                frame
            } else {
                let copy = self.slot()?;
                capability::copy(frame, copy)?;
                copy
            };
            let mapping = Mapping {
                address,
                frame: piece,
                offset,
                pages,
                level: 1,
                rights: rights::WRITE,
            };
            // SAFETY: nothing else is ever behind the heap.
            unsafe { self.map(&mapping)? };
        }
        // SAFETY: mapped just now, and the frame is not used for anything else.
        unsafe { crate::heap::extend(start, pages * PAGE) };
        Ok(())
    }

    /// The doorbell of the monitor of a core.
    pub fn monitor_doorbell(&mut self, core: usize) -> Result<Address, Error> {
        if core == startup().core as usize {
            return Ok(OWN_DOORBELL);
        }
        if let Some(slot) = self.doorbells.get(&core) {
            return Ok(*slot);
        }
        let slot = self.slot()?;
        if let Err(error) = make_doorbell(core, FIRST_DOORBELL as u8, slot) {
            self.discard(slot);
            return Err(error);
        }
        self.doorbells.insert(core, slot);
        Ok(slot)
    }
}

/// Makes the doorbell of a vector of a core.
pub(super) fn make_doorbell(core: usize, vector: u8, slot: Address) -> Result<(), Error> {
    let what = Retype {
        kind: Kind::Doorbell,
        offset: core as u64 * VECTORS + u64::from(vector),
        bytes: 1,
        count: 1,
    };
    Ok(capability::retype(CORES, &what, slot)?)
}

/// The range of a vector of a core among all of the machine.
pub fn vector_range(core: usize, vector: u8) -> Range<u64> {
    let first = vectors_of(core).start + u64::from(vector);
    first..first + 1
}

/// The range of the vectors of a core among all of the machine.
pub fn vectors_of(core: usize) -> Range<u64> {
    let first = Resource::Vectors.range().start + core as u64 * VECTORS;
    first..first + VECTORS
}

const _: () = assert!(MAP_PAGES == LARGE_PAGE / PAGE);
