//! What members have mapped, what they miss, and what is free again.

use super::{Event, FIRST, Fault, PART_PAGES, Purpose};
use crate::Monitor;
use abi::layout::{PAGE, USER_HEAP, USER_SPAN, USER_SPAN_END};
use abi::syscall::MAP_PAGES;
use alloc::format;
use protocols::kinds;
use protocols::spaces::{self, Mapping, Pages, Rights, SpaceId};
use rt::authority::{Life, MAX_HEAP_BYTES};
use rt::clock;
use rt::interface::Error;
use urpc::Message;

/// Memory that is free: the space, then up to three times pages (first << 28 | count) and the number
/// of their first frame.
pub(super) const FREED: u16 = kinds::kind(&kinds::SPANS, 5);
/// How many of these one message holds.
const FREED_BATCH: usize = 3;
/// How long memory that is free may wait for more of its kind, in nanoseconds.
const FREED_WAIT_NS: u64 = 10_000_000;
/// Pages of private RAM that members do not get for page tables.
const RESERVED_PAGES: u64 = 64;
/// Bits of a page fault's error code: a write, the fetch of an instruction.
const WRITE: u64 = 1 << 1;
const FETCH: u64 = 1 << 4;

/// The part of pages that lies in a range.
fn within(pages: Pages, first: u64, end: u64) -> Pages {
    let from = pages.first.max(first);
    let to = (pages.first + pages.count).min(end);
    Pages {
        first: from,
        count: to.saturating_sub(from),
    }
}

impl Monitor {
    /// A domain touched a page that is not there: whether it goes on, or will.
    pub fn page_for(&mut self, number: usize, error: u64, address: u64) -> bool {
        let Some(domain) = self.domains.by_number(number) else {
            return false;
        };
        let id = domain.id;
        if (USER_HEAP..USER_HEAP + MAX_HEAP_BYTES).contains(&address) {
            return self.heap_for(number, address);
        }
        let Ok(space) = self.spans.space_of(id) else {
            return false;
        };
        let Some(part) = self.spans.parts.get_mut(&space) else {
            return false;
        };
        match part.fault {
            Fault::UnderWay => return true,
            Fault::Fatal => return false,
            Fault::None if !(USER_SPAN..USER_SPAN_END).contains(&address) => return false,
            Fault::None => part.fault = Fault::UnderWay,
        }
        let page = address / PAGE;
        let access = match error {
            _ if error & FETCH != 0 => Rights::EXECUTE,
            _ if error & WRITE != 0 => Rights::WRITE,
            _ => Rights::READ,
        };
        if domain.body.has(address, error & WRITE != 0) {
            // It has changed its page tables itself.
            domain.body.take_out(&mut self.store, page * PAGE, 1);
        }
        let purpose = Purpose::Fault {
            domain: id,
            page,
            access,
        };
        self.operate(space, purpose, |one, token| {
            one.fault(token, space, page, access)
        });
        let part = self.spans.parts.get(&space);
        part.is_some_and(|part| part.fault != Fault::Fatal)
    }

    /// A domain touched a part of its heap that was not mapped yet: whether it goes on.
    fn heap_for(&mut self, number: usize, address: u64) -> bool {
        let Some(domain) = self.domains.by_number(number) else {
            return false;
        };
        match domain.body.touch_heap(&mut self.store, address) {
            Ok(is_new) => is_new && domain.body.start().is_ok(),
            Err(error) => {
                let id = domain.id;
                self.log(&format!(
                    "domain {id:#x}: no heap at {address:#x}: {error:?}"
                ));
                false
            }
        }
    }

    /// The protocol has done what it can for a page.
    pub(super) fn page_came(
        &mut self,
        space: SpaceId,
        id: u64,
        page: u64,
        access: Rights,
        result: Result<(), spaces::Error>,
    ) {
        let of_it = |part: &&mut super::Part| part.member == Some(id);
        if self.spans.parts.get_mut(&space).filter(of_it).is_none() {
            return;
        }
        let entered = match result {
            Ok(()) => self.enter_held(space, id, page, access),
            Err(error) => Err(super::told(error)),
        };
        let fault = match entered {
            Ok(()) => {
                // Unless it was stopped meanwhile: it touches the page again then.
                if let Some(domain) = self.domains.by_id(id)
                    && matches!(domain.body.life(), Life::Paging { .. })
                {
                    // It has an address space: it ran in it.
                    let _ = domain.body.start();
                }
                Fault::None
            }
            Err(Error::Busy) => {
                // Served again when something has happened.
                self.looks_next_time = true;
                Fault::None
            }
            Err(Error::NotMapped | Error::NotAllowed) => Fault::Fatal,
            Err(error) => {
                let address = page * PAGE;
                self.log(&format!(
                    "domain {id:#x}: no page for {address:#x}: {error}"
                ));
                Fault::Fatal
            }
        };
        if let Some(part) = self.spans.parts.get_mut(&space) {
            part.fault = fault;
            // Who looks finds that it ended.
            self.has_news |= fault == Fault::Fatal;
        }
    }

    /// Enters what the replica has for a page, as far as one page table goes, unless that was done.
    /// Where it does not have it any more, the page is touched again.
    fn enter_held(
        &mut self,
        space: SpaceId,
        id: u64,
        page: u64,
        access: Rights,
    ) -> Result<(), Error> {
        let is_write = access == Rights::WRITE;
        let domain = self.domains.by_id(id).ok_or(Error::NoSuchDomain)?;
        if domain.body.has(page * PAGE, is_write) {
            return Ok(());
        }
        let held = self.agent.spaces().usable(space, page);
        let Some(held) = held.filter(|held| held.rights.include(access)) else {
            return Ok(());
        };
        let block = page / MAP_PAGES * MAP_PAGES;
        let pages = within(held.pages, block, block + MAP_PAGES);
        let mapping = Mapping {
            pages,
            frame: held.frame + (pages.first - held.pages.first),
            rights: held.rights,
        };
        self.enter_here(space, id, mapping)
    }

    fn enter_here(&mut self, space: SpaceId, id: u64, mapping: Mapping) -> Result<(), Error> {
        if self.store.pages().0 < RESERVED_PAGES {
            return Err(Error::NoMemory);
        }
        let is_own = self.maker_of(mapping.pages) == self.own;
        let part = self.spans.parts.get_mut(&space);
        let part = part.ok_or(Error::SpanEnded)?;
        let made = part.made_at(mapping.pages.first);
        let own = match made {
            Some((_, made)) if is_own => Some(&made.ram),
            None if is_own => return Err(Error::NotMapped),
            _ => None,
        };
        let domain = self.domains.by_id(id).ok_or(Error::NoSuchDomain)?;
        let place = (mapping.pages.first * PAGE, mapping.pages.count);
        let is_writable = mapping.rights.include(Rights::WRITE);
        let physical = mapping.frame * PAGE;
        domain
            .body
            .enter(&mut self.store, place, physical, is_writable, own)?;
        Ok(())
    }

    /// Enters what was granted. What does not fit, or is large, comes when it is touched.
    pub(super) fn enter_granted(&mut self, space: SpaceId, mapping: Mapping) {
        let part = self.spans.parts.get(&space);
        let Some(id) = part.and_then(|part| part.member) else {
            return;
        };
        self.restrict_here(space, mapping.pages, Rights::NONE);
        if mapping.pages.count <= MAP_PAGES {
            let _ = self.enter_here(space, id, mapping);
        }
    }

    /// Leaves pages no more than these rights in the page tables of this core's member.
    pub(super) fn restrict_here(&mut self, space: SpaceId, pages: Pages, rights: Rights) {
        let part = self.spans.parts.get(&space);
        let Some(id) = part.and_then(|part| part.member) else {
            return; // a domain's mappings go with it
        };
        let Some(domain) = self.domains.by_id(id) else {
            return;
        };
        let Pages { first, count } = within(pages, FIRST, USER_SPAN_END / PAGE);
        let address = first * PAGE;
        if rights == Rights::NONE {
            domain.body.take_out(&mut self.store, address, count);
        } else if !rights.include(Rights::WRITE) {
            domain.body.make_read_only(&mut self.store, address, count);
        }
    }

    /// The core that mapped these pages.
    pub(super) fn maker_of(&self, pages: Pages) -> usize {
        (pages.first.saturating_sub(FIRST) / PART_PAGES) as usize
    }

    /// The home says that no core has these pages any more.
    pub(super) fn on_freed(&mut self, space: SpaceId, mapping: Mapping) {
        let maker = self.maker_of(mapping.pages);
        if maker == self.own {
            self.free(space, mapping.pages, mapping.frame);
        } else if self.view().cores.contains(maker) {
            let waiting = self.spans.freed.entry((maker, space)).or_default();
            waiting.push(mapping);
            if waiting.len() >= FREED_BATCH {
                self.send_freed(maker, space);
            } else if self.spans.freed_due_ns.is_none() {
                self.spans.freed_due_ns = Some(clock::now_ns() + FREED_WAIT_NS);
            }
        }
    }

    fn send_freed(&mut self, maker: usize, space: SpaceId) {
        let freed = self.spans.freed.remove(&(maker, space)).unwrap_or_default();
        let mut words = [space.word(), 0, 0, 0, 0, 0, 0];
        for (place, Mapping { pages, frame, .. }) in words[1..].chunks_mut(2).zip(freed) {
            place.copy_from_slice(&[pages.first << 28 | pages.count, frame]);
        }
        let message = Message::new(FREED, words);
        self.mesh.send(&mut self.store, maker, &message);
    }

    /// Tells other cores of memory that is free, if it has waited long enough.
    pub fn send_freed_if_due(&mut self, now_ns: u64) {
        if self.spans.freed_due_ns.is_some_and(|due| due <= now_ns) {
            self.spans.freed_due_ns = None;
            while let Some((maker, space)) = self.spans.freed.keys().next().copied() {
                self.send_freed(maker, space);
            }
        }
    }

    /// Another core's monitor says that memory of this core is free.
    pub(super) fn freed_by_home(&mut self, words: &[u64; 7]) {
        let space = SpaceId::from_word(words[0]);
        for entry in words[1..].chunks(2).filter(|entry| entry[0] != 0) {
            let pages = Pages {
                first: entry[0] >> 28,
                count: entry[0] & ((1 << 28) - 1),
            };
            self.free(space, pages, entry[1]);
        }
    }

    /// Pages of this core's memory are not mapped any more; with the last of its frame, that is free.
    fn free(&mut self, space: SpaceId, pages: Pages, frame: u64) {
        let Some(part) = self.spans.parts.get_mut(&space) else {
            return;
        };
        let Some((first, made)) = part.made_at(pages.first) else {
            return;
        };
        if made.ram.base() / PAGE + (pages.first - first) != frame {
            return;
        }
        made.left = made.left.saturating_sub(pages.count);
        if made.left == 0
            && let Some(made) = part.made.remove(&first)
        {
            self.store.release_frame(made.ram);
            self.when_settled(Event::Step(space));
        }
    }
}
