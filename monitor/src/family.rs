//! Children of this core's domains, on whichever core they run, and the frames that this
//! core's domains made and share with them.
//!
//! A frame's RAM is free again when no domain has it mapped: neither the one that made it,
//! nor a child that it was given to, nor one that another core is just about to start.

use crate::Monitor;
use crate::domains::{Request, SharedFrame};
use crate::mesh;
use crate::requests::{Answer, Requester, value};
use abi::layout::PAGE;
use alloc::collections::btree_map::Entry;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::ops::Range;
use rt::authority::{SharedRam, Store};
use rt::interface::{Error, LOST_STATUS};
use urpc::Message;

/// Most children of one domain, and of all domains of a core together, that nobody has
/// waited for.
const MAX_CHILDREN: usize = 512;
const MAX_CHILDREN_OF_CORE: usize = 4096;
/// Most frames of one domain, and of all domains of a core together.
const MAX_FRAMES: usize = 256;
const MAX_FRAMES_OF_CORE: usize = 2048;

/// Most waits for the end of domains that are not one's children: on a core, and of one domain; and
/// how many ends that are over a core remembers.
const MAX_WATCHERS: usize = 1024;
pub const MAX_WATCHERS_OF_DOMAIN: usize = 64;
const REMEMBERED_ENDS: usize = 256;

/// Somebody who is no parent waits for the end of a domain of this core.
struct Watcher {
    domain: u64,
    by: u64,
    requester: Requester,
}

/// A domain of this core that has ended.
struct End {
    domain: u64,
    job: u64,
    parent: u64,
    status: i32,
}

/// A child of a domain of this core.
struct Child {
    parent: u64,
    status: Option<i32>,
    waiter: Option<Requester>,
}

/// A frame that was made here.
struct Frame {
    ram: SharedRam,
    maker: u64,
    /// Domains that have it mapped.
    users: Vec<u64>,
    /// Children that other cores were asked to start with it.
    coming: usize,
}

/// A frame of another core that domains of this one share.
struct Lent {
    ram: SharedRam,
    /// Domains that have it mapped.
    users: usize,
}

/// Children and frames of a core.
#[derive(Default)]
pub struct Family {
    children: BTreeMap<u64, Child>,
    /// By physical address, which is the frame's id.
    frames: BTreeMap<u64, Frame>,
    /// By physical address.
    lent: BTreeMap<u64, Lent>,
    watchers: Vec<Watcher>,
    /// The last ones.
    ends: VecDeque<End>,
}

impl Family {
    /// `coming`: its children that other cores were asked to start.
    fn check_room_for_child(&self, parent: u64, coming: usize) -> Result<(), Error> {
        let own = self
            .children
            .values()
            .filter(|child| child.parent == parent)
            .count();
        if own + coming >= MAX_CHILDREN || self.children.len() >= MAX_CHILDREN_OF_CORE {
            return Err(Error::TooManyChildren);
        }
        Ok(())
    }

    /// The frame of this id, if the domain made it; `None` for id 0.
    fn frame_of(&self, domain: u64, id: u64) -> Result<Option<SharedFrame>, Error> {
        if id == 0 {
            return Ok(None);
        }
        let frame = self.frames.get(&id).filter(|frame| frame.maker == domain);
        let bytes = frame.ok_or(Error::NoSuchFrame)?.ram.bytes();
        Ok(Some(SharedFrame {
            physical: id,
            bytes,
        }))
    }

    /// Checks whether a domain may have a child that shares the frame of this id.
    pub fn prepare(
        &self,
        parent: u64,
        coming: usize,
        frame: u64,
    ) -> Result<Option<SharedFrame>, Error> {
        self.check_room_for_child(parent, coming)?;
        self.frame_of(parent, frame)
    }

    /// The RAM of a frame that a domain of this core is to share. It counts as one more user of
    /// another core's frame until [`Self::give_back`].
    pub fn borrow(&mut self, store: &mut Store, frame: SharedFrame) -> Result<&SharedRam, Error> {
        if let Some(own) = self.frames.get(&frame.physical) {
            return Ok(&own.ram);
        }
        let lent = match self.lent.entry(frame.physical) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let ram = store.foreign_frame(frame.physical, frame.bytes)?;
                entry.insert(Lent { ram, users: 0 })
            }
        };
        lent.users += 1;
        Ok(&lent.ram)
    }

    /// A domain of this core has the frame of another core no more. With the last one, whoever
    /// was handed a capability to it loses that.
    pub fn give_back(&mut self, store: &mut Store, frame: SharedFrame) {
        if let Entry::Occupied(mut entry) = self.lent.entry(frame.physical) {
            entry.get_mut().users -= 1;
            if entry.get().users == 0 {
                store.release_frame(entry.remove().ram);
            }
        }
    }

    /// Domains that made, or have mapped, frames in a range of physical memory.
    pub fn makers_in(&self, range: &Range<u64>) -> Vec<u64> {
        let frames = self.frames.range(range.clone());
        let users = frames.flat_map(|(_, frame)| frame.users.iter().chain([&frame.maker]));
        users.copied().collect()
    }

    /// Another core was asked to start a child with this frame.
    pub fn expect(&mut self, frame: Option<u64>) {
        if let Some(frame) = frame.and_then(|id| self.frames.get_mut(&id)) {
            frame.coming += 1;
        }
    }
}

impl Monitor {
    /// Starts a program on this core for one of its own domains.
    pub fn spawn_child(&mut self, parent: u64, job: u64, request: Request) -> Answer {
        let coming = self.requests.spawns_of(parent);
        let frame = self.family.prepare(parent, coming, request.frame)?;
        let spawn = request.by(parent, job, frame);
        let child = self.spawn(&spawn)?;
        self.adopt(child, parent, frame.map(|frame| frame.physical));
        value(child)
    }

    /// Another core has started a child that was expected, or has not.
    pub fn on_spawn_reply(&mut self, parent: u64, frame: Option<u64>, reply: &Answer) {
        if let Some(frame) = frame.and_then(|id| self.family.frames.get_mut(&id)) {
            // Unless it is another one at that place: its core started anew meanwhile.
            frame.coming = frame.coming.saturating_sub(1);
        }
        match reply {
            Ok([child, ..]) => self.adopt(*child, parent, frame),
            Err(_) => self.free_unused_frames(),
        }
    }

    /// Notes a child of a domain of this core, which may be gone by now.
    pub fn adopt(&mut self, child: u64, parent: u64, frame: Option<u64>) {
        if let Some(frame) = frame.and_then(|id| self.family.frames.get_mut(&id)) {
            frame.users.push(child);
        }
        if self.domains.by_id(parent).is_some() {
            let child_of = Child {
                parent,
                status: None,
                waiter: None,
            };
            self.family.children.insert(child, child_of);
        }
    }

    /// Forgets a child of which its parent never heard.
    pub fn disown(&mut self, child: u64) {
        self.family.children.remove(&child);
    }

    /// Answers with a frame for a domain of this core: its address there, its bytes, its id; now, or
    /// when there is memory for it of another core.
    pub fn frame_for(
        &mut self,
        requester: Requester,
        domain: u64,
        bytes: u64,
    ) -> Result<Option<[u64; 5]>, Error> {
        match self.frame_of_memory_here(domain, bytes) {
            Err(Error::NoMemory) if !self.store.has_shared(bytes.div_ceil(PAGE)) => {
                self.borrow_for(requester, domain, bytes)
            }
            answer => answer.map(Some),
        }
    }

    /// Makes a frame of shared RAM that this core has, or has borrowed.
    pub fn frame_of_memory_here(&mut self, domain: u64, bytes: u64) -> Answer {
        let frames = &self.family.frames;
        let own = frames
            .values()
            .filter(|frame| frame.maker == domain)
            .count();
        if own >= MAX_FRAMES || frames.len() >= MAX_FRAMES_OF_CORE {
            return Err(Error::NoMemory);
        }
        let (address, ram) = self.make_frame(domain, bytes)?;
        let (id, bytes) = (ram.base(), ram.bytes());
        let made = Frame {
            ram,
            maker: domain,
            users: [domain].into(),
            coming: 0,
        };
        self.family.frames.insert(id, made);
        Ok([address, bytes, id, 0, 0])
    }

    /// Frames in a range of another core's memory are none any more.
    pub fn forget_frames(&mut self, range: &Range<u64>) {
        let frames = self.family.frames.extract_if(range.clone(), |_, _| true);
        let gone: Vec<Frame> = frames.map(|(_, frame)| frame).collect();
        for frame in gone {
            self.store.release_frame(frame.ram);
        }
    }

    /// The child of a domain of this core.
    fn child_of(&mut self, parent: u64, child: u64) -> Result<&mut Child, Error> {
        let entry = self.family.children.get_mut(&child);
        let entry = entry.filter(|entry| entry.parent == parent);
        entry.ok_or(Error::NoSuchDomain)
    }

    /// Answers with the exit status of a child, now or when it has ended.
    pub fn wait_for(
        &mut self,
        requester: Requester,
        parent: u64,
        child: u64,
    ) -> Result<Option<[u64; 5]>, Error> {
        let entry = self.child_of(parent, child)?;
        match entry.status {
            Some(status) => {
                self.family.children.remove(&child);
                value(u64::from(status as u32)).map(Some)
            }
            None => {
                // Who waits twice gets one answer to the end.
                if let Some(before) = entry.waiter.replace(requester) {
                    self.answer(before, Err(Error::Busy));
                }
                Ok(None)
            }
        }
    }

    /// Answers with the exit status of a domain of this core, for another of its job that is not its
    /// parent: now, if it was among the last that ended, or when it has ended.
    pub fn watch_end(
        &mut self,
        requester: Requester,
        (by, job): (u64, u64),
        domain: u64,
    ) -> Result<Option<[u64; 5]>, Error> {
        let alive = self.domains.by_id(domain).filter(|_| domain != by);
        if alive.is_some_and(|alive| alive.job == job) {
            let watchers = &self.family.watchers;
            let own = watchers.iter().filter(|watcher| watcher.by == by).count();
            if own >= MAX_WATCHERS_OF_DOMAIN || watchers.len() >= MAX_WATCHERS {
                return Err(Error::Busy);
            }
            let watcher = Watcher {
                domain,
                by,
                requester,
            };
            self.family.watchers.push(watcher);
            return Ok(None);
        }
        let mut ends = self.family.ends.iter();
        // Its parent has been told once.
        let end = ends.find(|end| end.domain == domain && end.job == job && end.parent != by);
        let status = end.ok_or(Error::NoSuchDomain)?.status;
        value(u64::from(status as u32)).map(Some)
    }

    /// A domain of another core that waited has ended.
    pub fn forget_watcher(&mut self, requester: Requester) {
        let watchers = &mut self.family.watchers;
        watchers.retain(|watcher| watcher.requester != requester);
    }

    /// Answers whether a child has ended, and with its exit status if so.
    pub fn try_wait_for(&mut self, parent: u64, child: u64) -> Answer {
        match self.child_of(parent, child)?.status {
            Some(status) => {
                self.family.children.remove(&child);
                Ok([1, u64::from(status as u32), 0, 0, 0])
            }
            None => Ok([0; 5]),
        }
    }

    /// A domain of this core ended: its parent's monitor learns of it, and what it held
    /// here is given up.
    pub fn tell_of_exit(&mut self, id: u64, job: u64, status: i32, parent: u64) {
        self.withdraw_waits_of(id);
        let family = &mut self.family;
        family.children.retain(|_, child| child.parent != id);
        family.watchers.retain(|watcher| watcher.by != id);
        if family.ends.len() >= REMEMBERED_ENDS {
            family.ends.pop_front();
        }
        let domain = id;
        family.ends.push_back(End {
            domain,
            job,
            parent,
            status,
        });
        let is_of = |watcher: &mut Watcher| watcher.domain == id;
        let watchers: Vec<Watcher> = family.watchers.extract_if(.., is_of).collect();
        for watcher in watchers {
            self.answer(watcher.requester, value(u64::from(status as u32)).map(Some));
        }
        self.release_frames(id);
        let core = (parent >> 32) as usize;
        if parent == 0 || core == self.own {
            self.child_exited(id, status);
        } else {
            let words = [id, u64::from(status as u32), parent, 0, 0, 0, 0];
            self.mesh
                .send(&mut self.store, core, &Message::new(mesh::EXITED, words));
        }
    }

    /// A child ended, on whichever core.
    pub fn child_exited(&mut self, child: u64, status: i32) {
        self.release_frames(child);
        let entry = self.family.children.get_mut(&child);
        let Some(entry) = entry.filter(|entry| entry.status.is_none()) else {
            return; // its parent is gone, or takes it for lost
        };
        entry.status = Some(status);
        if let Some(waiter) = entry.waiter {
            self.family.children.remove(&child);
            self.answer(waiter, value(u64::from(status as u32)).map(Some));
        }
    }

    /// A core was lost, and all domains on it with it.
    pub fn children_lost_with(&mut self, core: usize) {
        let is_there = |watcher: &Watcher| (watcher.by >> 32) as usize == core;
        self.family.watchers.retain(|watcher| !is_there(watcher));
        let children = self.family.children.iter();
        let lost = children.filter(|(child, _)| (*child >> 32) as usize == core);
        let lost = lost.filter(|(_, entry)| entry.status.is_none());
        let mut lost: Vec<u64> = lost.map(|(child, _)| *child).collect();
        for frame in self.family.frames.values() {
            lost.extend(
                frame
                    .users
                    .iter()
                    .filter(|user| (*user >> 32) as usize == core),
            );
        }
        for child in lost {
            self.child_exited(child, LOST_STATUS);
        }
    }

    /// A domain has no frame mapped any more.
    fn release_frames(&mut self, domain: u64) {
        for frame in self.family.frames.values_mut() {
            frame.users.retain(|user| *user != domain);
        }
        self.free_unused_frames();
    }

    /// Frames that nobody has mapped, or is about to, are free.
    fn free_unused_frames(&mut self) {
        let mut free = Vec::new();
        for (id, frame) in &self.family.frames {
            if frame.users.is_empty() && frame.coming == 0 {
                free.push(*id);
            }
        }
        for id in free {
            if let Some(frame) = self.family.frames.remove(&id) {
                self.store.release_frame(frame.ram);
            }
        }
    }
}
