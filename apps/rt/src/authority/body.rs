//! What a domain consists of.
//!
//! Everything that it starts with is made of one piece of RAM: dispatcher, CNodes, page tables,
//! frames. Taking that piece back takes all of it from whoever has it by then, and ends the
//! domain. What it gets to keep has not the right to revoke where the monitor has a capability
//! to the same object that it relies on.

mod pieces;

pub use self::pieces::Paged;
use self::pieces::Piece;
use super::space::{self, Mapping, pieces};
use super::store::{Block, SharedRam, Store, make_doorbell, vector_range};
use super::{Error, ask};
use crate::capability::{self, Address, Kind, Rights};
use crate::{startup, system_call, trace};
use abi::capability::monitor::BUNDLE;
use abi::capability::{
    FIRST_CNODE_SLOTS, GIFT, INDEX_BITS, MEMORY_CNODE, MONITOR_DOORBELL, OWN_DISPATCHER,
    OWN_DOORBELL, OWN_SPACE, ROOT_CNODE, SLOT_BYTES, TASK_CNODE,
};
use abi::layout::{PAGE, USER_HEAP, USER_STACK_BYTES, USER_STACK_TOP, USER_STARTUP};
use abi::limits::DISPATCHER_NAME_BYTES;
use abi::syscall::{self, DISPATCHER_BYTES, REGISTERS, life, priority, property, rights};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use urpc::Channel;

/// While a domain is made, the CNode in slot `n` of its root CNode is in slot `WORKSHOP + n` of
/// the monitor's, and its root CNode is itself in the first of these. So what is in them has
/// addresses of the monitor's own: those of the domain, plus this.
const WORKSHOP: u64 = super::slots::LAST;

const _: () = assert!(WORKSHOP + 3 < FIRST_CNODE_SLOTS);

/// The address that a slot of the domain has in the monitor while the domain is made.
const fn inside(slot: Address) -> Address {
    Address(slot.0 + (WORKSHOP << INDEX_BITS))
}

/// Where one of its CNodes is in the monitor's root CNode meanwhile.
const fn workshop(cnode: Address) -> Address {
    let index = cnode.0 & ((1 << INDEX_BITS) - 1);
    Address::new(1, WORKSHOP + index)
}

/// What a domain gets of objects that the monitor relies on.
const USE: Rights = Rights::READ.union(Rights::WRITE);

/// Bytes of a domain's heap that are mapped at once.
pub const HEAP_CHUNK_BYTES: u64 = 64 << 10;
/// Most bytes of a domain's heap.
pub const MAX_HEAP_BYTES: u64 = 64 * HEAP_CHUNK_BYTES;

/// A part of an address space that is about to be made.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// Where it starts, page-aligned.
    pub address: u64,
    /// Pages.
    pub pages: u64,
    /// Whether it takes RAM: all but the bundle's pages and frames of others do.
    pub is_fresh: bool,
}

/// What a dispatcher is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It runs, is ready to, or waits.
    Alive,
    /// It was not started yet, or was stopped.
    Stopped,
    /// It ended itself with this status.
    Exited(i32),
    /// It waits for a page: see [`Body::set_paged`].
    Paging {
        /// Error code of the page fault.
        error: u64,
        /// The address that it touched.
        address: u64,
    },
    /// It met an exception.
    Faulted {
        /// Exception vector.
        vector: u64,
        /// Error code.
        error: u64,
        /// The address that a page fault complained of.
        address: u64,
    },
}

/// What a domain consists of. Slots are the monitor's.
#[derive(Debug)]
pub struct Body {
    /// What it started with comes first; then page tables for frames that it was lent.
    blocks: Vec<Block>,
    /// RAM that it asked for.
    ram: Vec<Block>,
    root: Address,
    space: Address,
    dispatcher: Address,
    doorbell: Address,
    /// What that rings, once it does.
    vector: Option<Range<u64>>,
    channel: Address,
    stack: Address,
    /// Mappings of frames that it was lent, and page tables for them.
    held: Vec<Address>,
    /// The chunks of its heap that are mapped, a bit each.
    heap: u64,
    /// What is mapped of a span, by address.
    pieces: BTreeMap<u64, Piece>,
    /// Where the piece was that gave way last.
    evicted: u64,
    /// Next slot of its memory CNode.
    next: Address,
}

impl Body {
    /// Takes memory for a domain with these regions, in ascending order, and makes its CNodes,
    /// its dispatcher and its empty address space.
    pub fn new(store: &mut Store, regions: &[Region]) -> Result<Self, Error> {
        let ranges = regions.iter().map(|region| (region.address, region.pages));
        let tables = space::tables(&ranges);
        let mapped: usize = ranges.map(|(at, pages)| pieces(at, pages).count()).sum();
        let slots = 1 + tables + mapped as u64;
        let memory = slots.max(FIRST_CNODE_SLOTS).next_power_of_two() * SLOT_BYTES;
        let fresh = regions.iter().filter(|region| region.is_fresh);
        let pages = DISPATCHER_BYTES / PAGE
            + 2 // root and task CNode
            + memory / PAGE
            + 1 // root page table
            + tables
            + fresh.map(|region| region.pages).sum::<u64>();

        let [root, space, dispatcher, doorbell, channel, stack] = store.slots()?;
        let block = store.block(pages);
        let mut body = Self {
            blocks: Vec::new(),
            ram: Vec::new(),
            root,
            space,
            dispatcher,
            doorbell,
            vector: None,
            channel,
            stack,
            held: Vec::new(),
            heap: 0,
            pieces: BTreeMap::new(),
            evicted: 0,
            next: inside(Address::new(3, 1)),
        };
        let made = block.and_then(|mut block| {
            let made = body.make_objects(&mut block, memory);
            body.blocks.push(block);
            made
        });
        match made {
            Ok(()) => Ok(body),
            Err(error) => {
                body.dissolve(store, None);
                Err(error)
            }
        }
    }

    fn make_objects(&self, block: &mut Block, memory_cnode_bytes: u64) -> Result<(), Error> {
        const { assert!(MEMORY_CNODE.0 == ROOT_CNODE.0 + 2) };
        block.make(Kind::Dispatcher, DISPATCHER_BYTES, self.dispatcher)?;
        for cnode in [ROOT_CNODE, TASK_CNODE] {
            block.make(Kind::CNode, PAGE, workshop(cnode))?;
        }
        block.make(Kind::CNode, memory_cnode_bytes, workshop(MEMORY_CNODE))?;
        block.make(Kind::PageTable4, PAGE, self.space)?;
        capability::mint(workshop(ROOT_CNODE), inside(ROOT_CNODE), USE, 0)?;
        capability::mint(self.dispatcher, inside(OWN_DISPATCHER), USE, 0)?;
        capability::mint(self.space, inside(OWN_SPACE), USE, 0)?;
        Ok(())
    }

    /// Takes the next slot of the memory CNode.
    fn memory_slot(&mut self) -> Address {
        let slot = self.next;
        self.next = slot.plus(1);
        slot
    }

    /// Makes a frame and maps it: zeroes but for `contents`, `lead` bytes from its start.
    pub fn place(
        &mut self,
        store: &mut Store,
        region: &Region,
        access: u64,
        lead: u64,
        contents: &[u8],
    ) -> Result<(), Error> {
        let frame = self.memory_slot();
        self.blocks[0].make(Kind::Frame, region.pages * PAGE, frame)?;
        if !contents.is_empty() {
            store.write(frame, lead, contents)?;
        }
        for (address, offset, pages) in pieces(region.address, region.pages) {
            let mut piece = frame;
            if offset > 0 {
                // A capability is mapped at one place at a time.
                piece = self.memory_slot();
                capability::copy(frame, piece)?;
            }
            self.map(piece, address, offset, pages, access)?;
        }
        Ok(())
    }

    /// Maps the first chunk of its heap, which every domain touches.
    pub fn place_heap(&mut self, store: &mut Store) -> Result<(), Error> {
        let first = Region {
            address: USER_HEAP,
            pages: HEAP_CHUNK_BYTES / PAGE,
            is_fresh: true,
        };
        self.heap = 1;
        self.place(store, &first, rights::WRITE, 0, &[])
    }

    /// Maps the chunk of its heap that an address lies in; whether it was not there yet. Its RAM was set aside
    /// when the domain was made, so it is there for whoever touches it; zeroed it is only now, which for all of
    /// the heap would take longer than all else of a spawn together.
    pub fn touch_heap(&mut self, store: &mut Store, address: u64) -> Result<bool, Error> {
        let chunk = (address - USER_HEAP) / HEAP_CHUNK_BYTES;
        if self.heap & 1 << chunk != 0 {
            return Ok(false);
        }
        let frame = store.slot()?;
        self.held.push(frame);
        self.blocks[0].make(Kind::Frame, HEAP_CHUNK_BYTES, frame)?;
        let mapping = Mapping {
            address: USER_HEAP + chunk * HEAP_CHUNK_BYTES,
            frame,
            offset: 0,
            pages: HEAP_CHUNK_BYTES / PAGE,
            level: 1,
            rights: rights::WRITE,
        };
        self.map_held(store, &mapping)?;
        self.heap |= 1 << chunk;
        Ok(true)
    }

    /// Maps a part of a frame of somebody else, with rights of their choice.
    fn place_copies(
        &mut self,
        frame: Address,
        offset: u64,
        region: &Region,
        access: u64,
        hold: Rights,
    ) -> Result<(), Error> {
        for (address, at, pages) in pieces(region.address, region.pages) {
            let piece = self.memory_slot();
            capability::mint(frame, piece, hold, 0)?;
            self.map(piece, address, offset + at, pages, access)?;
        }
        Ok(())
    }

    /// Maps a part of the bundle.
    pub fn place_bundle(&mut self, region: &Region, offset: u64, access: u64) -> Result<(), Error> {
        let hold = Rights::READ | Rights::EXECUTE;
        self.place_copies(BUNDLE, offset, region, access, hold)
    }

    /// Maps a frame that its parent shares with it.
    pub fn place_shared(&mut self, region: &Region, frame: &SharedRam) -> Result<(), Error> {
        self.place_copies(frame.capability, 0, region, rights::WRITE, USE)
    }

    /// Makes its stack.
    pub fn place_stack(&mut self, region: &Region) -> Result<(), Error> {
        self.blocks[0].make(Kind::Frame, region.pages * PAGE, self.stack)?;
        self.place_copies(self.stack, 0, region, rights::WRITE, USE)
    }

    /// Makes the channel to its monitor, who knows the domain by this number; back comes the
    /// monitor's end.
    pub fn place_channel(
        &mut self,
        store: &mut Store,
        region: &Region,
        number: usize,
    ) -> Result<Channel, Error> {
        self.blocks[0].make(Kind::Frame, PAGE, self.channel)?;
        self.place_copies(self.channel, 0, region, rights::WRITE, USE)?;
        store.domain_channel(number, self.channel)
    }

    /// Where the channel to its monitor lies in physical memory; 0 where there are no traces.
    pub fn channel_place(&self) -> u64 {
        trace::place_of(self.channel)
    }

    /// Maps within one page table, and makes those that are missing of the first block.
    fn map(
        &mut self,
        frame: Address,
        address: u64,
        offset: u64,
        pages: u64,
        access: u64,
    ) -> Result<(), Error> {
        let mapping = Mapping {
            address,
            frame,
            offset,
            pages,
            level: 1,
            rights: access,
        };
        let (block, next) = (&mut self.blocks[0], &mut self.next);
        let table = |kind| {
            let slot = *next;
            block.make(kind, PAGE, slot)?;
            *next = slot.plus(1);
            Ok(slot)
        };
        // SAFETY: not this monitor's own address space.
        unsafe { space::map(self.space, &mapping, table) }
    }

    /// Fits it out to run: it begins at `entry`, is woken by `vector` of this core, and gets a
    /// copy of `gift`, the parent and the slot there, if there is one.
    pub fn finish(
        &mut self,
        entry: u64,
        vector: u8,
        name: &str,
        gift: Option<(&Self, Address)>,
    ) -> Result<(), Error> {
        let core = startup().core as usize;
        make_doorbell(core, vector, self.doorbell)?;
        self.vector = Some(vector_range(core, vector));
        capability::mint(OWN_DOORBELL, inside(MONITOR_DOORBELL), Rights::WRITE, 0)?;
        let own = USE | Rights::GRANT;
        capability::mint(self.doorbell, inside(OWN_DOORBELL), own, 0)?;
        if let Some((parent, slot)) = gift {
            capability::copy_from(parent.root, slot, inside(GIFT))?;
        }
        for cnode in [TASK_CNODE, MEMORY_CNODE] {
            capability::move_to(workshop(cnode), inside(cnode))?;
        }
        capability::move_to(workshop(ROOT_CNODE), self.root)?;

        let mut bytes = [0; DISPATCHER_NAME_BYTES];
        let length = name.floor_char_boundary(bytes.len());
        bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
        let [low, high]: [u64; 2] = zerocopy::transmute!(bytes);
        for (property, value, more) in [
            (property::CSPACE, self.root.0, 0),
            (property::SPACE, self.space.0, 0),
            (property::DOORBELL, self.doorbell.0, 0),
            (property::PRIORITY, u64::from(priority::NORMAL), 0),
            (property::NAME, low, high),
        ] {
            let arguments = [self.dispatcher.0, property, value, more, 0, 0];
            ask(syscall::CONFIGURE, arguments)?;
        }
        // As after a call of the entry point: the stack is 8 off a multiple of 16.
        for (register, value) in [
            ("rip", entry),
            ("rsp", USER_STACK_TOP - 8),
            ("rdi", USER_STARTUP),
        ] {
            let index = REGISTERS.iter().position(|name| *name == register);
            let index = index.map_or(0, |index| index as u64);
            ask(
                syscall::WRITE_REGISTER,
                [self.dispatcher.0, index, value, 0, 0, 0],
            )?;
        }
        Ok(())
    }

    /// Lets it run.
    pub fn start(&self) -> Result<(), Error> {
        ask(syscall::START, [self.dispatcher.0, 0, 0, 0, 0, 0])?;
        Ok(())
    }

    /// Puts its dispatcher, its root CNode and its address space into three slots of another
    /// domain, from this one on.
    pub fn show_to(&self, tracer: &Self, slot: Address) -> Result<(), Error> {
        for (number, object) in [self.dispatcher, self.root, self.space].iter().enumerate() {
            tracer.grant(*object, slot.plus(number as u64), USE)?;
        }
        Ok(())
    }

    /// Its root CNode.
    pub(super) fn root(&self) -> Address {
        self.root
    }

    /// Puts a capability of the monitor's into one of its slots.
    pub(super) fn grant(&self, object: Address, slot: Address, hold: Rights) -> Result<(), Error> {
        Ok(capability::mint_to(object, self.root, slot, hold, 0)?)
    }

    /// The doorbell that wakes it.
    pub fn doorbell(&self) -> Address {
        self.doorbell
    }

    /// Puts somebody's doorbell into one of its slots.
    pub fn grant_doorbell(&self, doorbell: Address, slot: Address) -> Result<(), Error> {
        self.grant(doorbell, slot, Rights::WRITE)
    }

    /// Wakes it.
    pub fn ring(&self) {
        // It is there as long as this is.
        let _ = system_call::ring(self.doorbell);
    }

    /// Makes RAM for it, whose capability goes into one of its slots.
    pub fn give_ram(&mut self, store: &mut Store, pages: u64, slot: Address) -> Result<(), Error> {
        let block = store.block(pages)?;
        let hold = Rights::all().difference(Rights::REVOKE);
        match self.grant(block.capability(), slot, hold) {
            Ok(()) => {
                self.ram.push(block);
                Ok(())
            }
            Err(error) => {
                store.release(block);
                Err(error)
            }
        }
    }

    /// Takes the RAM at a physical address back; whether it was this domain's.
    pub fn take_ram(&mut self, store: &mut Store, base: u64) -> bool {
        let at = self.ram.iter().position(|block| block.base() == base);
        if let Some(at) = at {
            store.release(self.ram.swap_remove(at));
        }
        at.is_some()
    }

    /// How many pieces of RAM it asked for and has still.
    pub fn pieces_of_ram(&self) -> usize {
        self.ram.len()
    }

    /// Maps a frame into it, later than at its start: all of it, or nothing is left of the attempt.
    pub fn lend(
        &mut self,
        store: &mut Store,
        address: u64,
        frame: &SharedRam,
    ) -> Result<(), Error> {
        let (held, blocks) = (self.held.len(), self.blocks.len());
        let lent = self.lend_pieces(store, address, frame);
        if lent.is_err() {
            for slot in self.held.drain(held..) {
                store.discard(slot);
            }
            for block in self.blocks.drain(blocks..) {
                store.release(block);
            }
        }
        lent
    }

    fn lend_pieces(
        &mut self,
        store: &mut Store,
        address: u64,
        frame: &SharedRam,
    ) -> Result<(), Error> {
        for (address, offset, pages) in pieces(address, frame.bytes() / PAGE) {
            let piece = store.slot()?;
            self.held.push(piece);
            capability::mint(frame.capability, piece, USE, 0)?;
            let mapping = Mapping {
                address,
                frame: piece,
                offset,
                pages,
                level: 1,
                rights: rights::WRITE,
            };
            self.map_held(store, &mapping)?;
        }
        Ok(())
    }

    /// Maps, and makes the page tables that are missing of further RAM.
    fn map_held(&mut self, store: &mut Store, mapping: &Mapping) -> Result<(), Error> {
        let (blocks, held) = (&mut self.blocks, &mut self.held);
        let table = |kind| {
            let slot = store.slot()?;
            held.push(slot);
            let mut block = store.block(1)?;
            let made = block.make(kind, PAGE, slot);
            blocks.push(block);
            made.map(|()| slot)
        };
        // SAFETY: not this monitor's own address space.
        unsafe { space::map(self.space, mapping, table) }
    }

    /// What it is about.
    pub fn life(&self) -> Life {
        match ask(syscall::STATE, [self.dispatcher.0, 0, 0, 0, 0, 0]) {
            Ok([life::EXITED, status, ..]) => Life::Exited(status as i32),
            Ok([life::FAULTED, vector, error, _, address]) => Life::Faulted {
                vector,
                error,
                address,
            },
            Ok([life::STOPPED, ..]) => Life::Stopped,
            Ok([life::PAGING, _, error, _, address]) => Life::Paging { error, address },
            _ => Life::Alive,
        }
    }

    /// Its registers, in the order of [`REGISTERS`].
    pub fn registers(&self) -> [u64; REGISTERS.len()] {
        core::array::from_fn(|index| {
            let arguments = [self.dispatcher.0, index as u64, 0, 0, 0, 0];
            ask(syscall::READ_REGISTER, arguments).map_or(0, |results| results[0])
        })
    }

    /// Lets `work` read words of its stack, by their addresses there. `None` is beyond it, or
    /// not aligned.
    pub fn read_stack<R>(
        &self,
        store: &mut Store,
        work: impl FnOnce(&dyn Fn(u64) -> Option<u64>) -> R,
    ) -> Result<R, Error> {
        let bottom = USER_STACK_TOP - USER_STACK_BYTES;
        let pages = USER_STACK_BYTES / PAGE;
        store.look(self.stack, 0, pages, rights::READ, |window| {
            work(&|address: u64| {
                let inside = (bottom..USER_STACK_TOP).contains(&address);
                (inside && address.is_multiple_of(8)).then(|| {
                    let offset = (address - bottom) as usize;
                    // SAFETY: a word of the stack, mapped there; others may have it mapped too,
                    // so the access is atomic.
                    let word = unsafe { AtomicU64::from_ptr(window.add(offset).cast()) };
                    word.load(Ordering::Relaxed)
                })
            })
        })
    }

    /// Ends it, and takes everything back: the number and this monitor's end of its channel, if
    /// it has one, included.
    pub fn dissolve(mut self, store: &mut Store, channel: Option<(usize, Channel)>) {
        if let Some((number, channel)) = channel {
            store.close_domain_channel(number, self.channel, channel);
        }
        self.drop_pieces(store);
        for slot in self.held {
            store.discard(slot);
        }
        for block in self.blocks.into_iter().chain(self.ram) {
            store.release(block);
        }
        store.revoke(self.doorbell);
        for slot in [
            self.root,
            self.space,
            self.dispatcher,
            self.doorbell,
            self.channel,
            self.stack,
        ] {
            store.discard(slot);
        }
        if let Some(vector) = self.vector {
            store.give_vector_back(&vector);
        }
    }
}
