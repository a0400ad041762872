//! What the protocol decided, and what follows from it: slots are filled, objects made, capabilities
//! removed in steps.

use super::{Operation, RETRY_NS, Removal, STEPS, Then, object, of_call, refusal, region};
use crate::Monitor;
use crate::requests::Requester;
use abi::layout::PAGE;
use alloc::vec::Vec;
use core::ops::Range;
use protocols::regions::{self, Action, Region};
use rt::interface::Error;
use rt::system_call::Error as CallError;
use rt::{authority, clock};

impl Monitor {
    /// Does what is due; whether there was anything. `looks`: the CPU driver may have put something into
    /// the slot that it was offered.
    pub fn serve_transfers(&mut self, looks: bool) -> bool {
        let mut busy = false;
        while let Some(action) = self.transfers.actions.pop_front() {
            busy = true;
            self.do_as_decided(&action);
        }
        for object in self.store.take_gone(looks) {
            busy = true;
            self.settle(region(object));
        }
        if self
            .transfers
            .retry_ns
            .is_some_and(|at| at <= clock::now_ns())
        {
            self.transfers.retry_ns = None;
        }
        busy |= self.remove();
        self.reclaim_late();
        busy || !self.transfers.actions.is_empty()
    }

    fn do_as_decided(&mut self, action: &Action) {
        match *action {
            Action::Send(..) => {} // The agent does that.
            Action::Insert { id, region, terms } => self.insert_copy(id, region, terms),
            Action::Retype {
                token,
                region,
                sequence,
                ..
            } => self.make_granted(token, region, sequence),
            Action::RemoveLocal { region, keep } => {
                let keeps = |one: &Operation| match one {
                    Operation::Revoke {
                        asker,
                        slot,
                        region: of,
                    } => (*of == region).then_some((asker.domain, *slot)),
                    _ => None,
                };
                let operations = &self.transfers.operations;
                let kept = operations.values().find_map(keeps).filter(|_| keep);
                self.transfers.removals.push_back(Removal {
                    region,
                    keep: kept,
                    then: Then::Protocol,
                });
            }
            Action::Done { token, result } => self.operation_ended(token, result),
            Action::Gone { region } | Action::Unshared { region } => {
                if !self.agent.regions().is_shared(region) {
                    self.shared_no_more(region);
                }
            }
            // Its private RAM is mapped by a CPU driver that may come to life again, and what of the
            // rest is in use nobody knows: none of it is used again, unless the core starts anew.
            Action::Adopt { .. } => {}
        }
    }

    /// Only this core may have anything of a region.
    fn shared_no_more(&mut self, what: Region) {
        let range = what.range();
        let is_part = self.agent.regions().made_in(range.clone()).next().is_some();
        if !is_part {
            // There may be none left.
            let _ = authority::note_shared(&object(what), false);
        }
        self.store.came_back(&range);
        self.settle_parts(range);
        let store = &self.store;
        let frees = &mut self.transfers.frees;
        let is_free = |(_, base): &mut (Requester, u64)| !store.is_late(&(*base..*base + PAGE));
        let free: Vec<_> = frees.extract_if(.., is_free).collect();
        for (requester, _) in free {
            self.answer(requester, Ok(Some([0; 5])));
        }
    }

    fn operation_ended(&mut self, token: u64, result: Result<(), regions::Error>) {
        let Some(operation) = self.transfers.operations.remove(&token) else {
            return;
        };
        let outcome = result.map_err(refusal);
        match operation {
            Operation::Send { asker, to } => {
                let is_lost = !self.view().cores.contains(to);
                let outcome = outcome.map_err(|error| match error {
                    Error::Refused if is_lost => Error::NoSuchCore,
                    error => error,
                });
                self.answer(asker.requester, outcome.map(|()| Some([0; 5])));
            }
            Operation::Retype { asker, made, .. } => {
                let overlap = Ok(of_call(Err(CallError::Overlap)));
                let answer = match (made, result) {
                    (Some(made), _) => made.map(|made| of_call(made.map(u64::from))),
                    (None, Err(regions::Error::Overlap)) => overlap,
                    (None, _) => outcome.map(|()| [0; 5]),
                };
                self.answer(asker.requester, answer.map(Some));
            }
            Operation::Delete(asker) => self.answer(asker.requester, Ok(Some([0; 5]))),
            Operation::Revoke { asker, region, .. } => {
                self.settle(region);
                self.answer(asker.requester, outcome.map(|()| Some([0; 5])));
            }
            Operation::Reclaim(region) => {
                self.settle(region);
                if result.is_err() {
                    self.transfers.retry_ns = Some(clock::now_ns() + RETRY_NS);
                }
            }
            Operation::Leave => {}
        }
    }

    /// Goes on with removals, a bounded number of steps; whether there was anything to do.
    fn remove(&mut self) -> bool {
        let mut busy = false;
        let mut steps = STEPS;
        for _ in 0..self.transfers.removals.len() {
            let Some(removal) = self.transfers.removals.pop_front() else {
                break;
            };
            let inner: Vec<Region> = self.agent.regions().homed_within(removal.region).collect();
            if !inner.is_empty() {
                for one in inner {
                    self.reclaim(one);
                }
                self.transfers.removals.push_back(removal);
                continue;
            }
            busy = true;
            let mut more = true;
            while more && steps > 0 {
                steps -= 1;
                more = self.remove_step(&removal);
            }
            if more {
                self.transfers.removals.push_front(removal);
                break;
            }
            self.removed(&removal);
        }
        busy
    }

    /// A step of a removal; whether more is left to do.
    fn remove_step(&mut self, removal: &Removal) -> bool {
        if let Some((domain, slot)) = removal.keep
            && let Some(domain) = self.domains.by_id(domain)
            && let Ok(found) = domain.body.identify(slot)
            && region(found.object()) == removal.region
            && let Ok(more) = self.store.revoke_step(&domain.body, slot)
        {
            return more;
        }
        match removal.then {
            Then::Protocol => self.store.remove_step(&object(removal.region)),
            // It was not there any more, or another one was.
            Then::Answer(_) => false,
        }
    }

    fn removed(&mut self, removal: &Removal) {
        let what = removal.region;
        if let Then::Protocol = removal.then {
            self.with_regions(|one| one.removed(what));
        }
        let range = what.range();
        let copies: Vec<Region> = self.agent.regions().copies_in(range.clone()).collect();
        for copy in copies {
            self.settle(copy);
        }
        self.settle_parts(range);
        if let Then::Answer(requester) = removal.then {
            self.answer(requester, Ok(Some([0; 5])));
        }
    }

    /// Tells the protocol if this core has no capability to a region any more.
    fn settle(&mut self, what: Region) {
        let range = what.range();
        let mut copies = self.agent.regions().copies_in(range.clone());
        let is_copy = copies.any(|one| one == what);
        drop(copies);
        if is_copy && !authority::look_up(&object(what)).object {
            let token = self.transfers.number(Operation::Leave);
            self.with_regions(|one| one.delete(token, what));
        }
        self.settle_parts(range);
    }

    /// Tells the protocol of what had been made in this range and is gone, on all cores.
    pub(super) fn settle_parts(&mut self, range: Range<u64>) {
        let made: Vec<_> = self.agent.regions().made_in(range).collect();
        for (of, piece) in made {
            let is_whole = of.range() == piece;
            let part = Region {
                base: piece.start,
                bytes: piece.end - piece.start,
                ..of
            };
            let found = authority::look_up(&object(part));
            let is_here = if is_whole {
                found.parts
            } else {
                found.anything
            };
            let mut parts = self.agent.regions().homed_in(piece.clone());
            if !is_here && !parts.any(|one| of.may_hold(&one)) {
                drop(parts);
                self.with_regions(|one| one.untype(of, &piece));
            }
        }
    }

    /// Has a region revoked that this core is the home of, unless that is under way.
    fn reclaim(&mut self, what: Region) {
        let is_under_way = |one: &Operation| match one {
            Operation::Reclaim(region) | Operation::Revoke { region, .. } => *region == what,
            _ => false,
        };
        let operations = &self.transfers.operations;
        if self.transfers.retry_ns.is_none() && !operations.values().any(is_under_way) {
            let token = self.transfers.number(Operation::Reclaim(what));
            self.with_regions(|one| one.revoke(token, what));
        }
    }

    /// Has all regions revoked in memory that is to be used anew.
    pub(super) fn reclaim_late(&mut self) {
        let late: Vec<Range<u64>> = self.store.late().collect();
        for range in late {
            self.reclaim_in(range);
        }
    }

    /// Has all regions revoked that this core is the home of and that have a part of this range.
    pub fn reclaim_in(&mut self, range: Range<u64>) {
        let homed: Vec<Region> = self.agent.regions().homed_in(range).collect();
        for one in homed {
            self.reclaim(one);
        }
    }
}
