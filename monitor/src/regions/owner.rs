//! The part of a region's owner: one operation at a time.

use super::*;

impl Regions {
    pub(super) fn requested(
        &mut self,
        from: usize,
        sequence: u32,
        region: Region,
        request: Request,
    ) {
        let id = OpId {
            core: from,
            sequence,
        };
        let Some(record) = self.records.get_mut(&region) else {
            return self.post(from, Message::Moved { sequence, region });
        };
        let is_current = match &record.current {
            Some(Current::Send { id: other, .. }) => *other == id,
            Some(Current::Revoke { id: other, .. }) => *other == Some(id),
            _ => false,
        };
        if is_current || record.queue.iter().any(|(other, _)| *other == id) {
            return;
        }
        // A core has at most one drop and its ranges to give back: these find room always.
        let gives = matches!(request, Request::Drop | Request::Untype(..));
        let of_core = record.queue.iter().filter(|(other, _)| other.core == from);
        if !gives && record.queue.len() >= QUEUE || of_core.count() > QUEUE + RANGES {
            return self.answer(Some(id), region, Err(Error::Busy));
        }
        record.queue.push_back((id, request));
        self.proceed(region);
    }

    pub(super) fn answer(&mut self, id: Option<OpId>, region: Region, result: Result<(), Error>) {
        if let Some(OpId { core, sequence }) = id {
            let answer = Message::Answer {
                sequence,
                region,
                result,
            };
            self.post(core, answer);
        }
    }

    /// Goes on to whatever is next.
    pub(super) fn proceed(&mut self, region: Region) {
        while let Some(record) = self.records.get_mut(&region) {
            if record.current.is_some() || record.taking.is_some() {
                return;
            }
            match record.queue.pop_front() {
                Some((id, request)) => self.start(region, id, request),
                None => return self.rest(region),
            }
        }
    }

    fn start(&mut self, region: Region, id: OpId, request: Request) {
        let cores = &self.cores;
        let Some(record) = self.records.get_mut(&region) else {
            return;
        };
        let holds = record.holders.contains(id.core);
        let may = holds
            || match request {
                Request::Revoke => record.home == id.core,
                Request::Drop | Request::Untype(..) => true,
                _ => false,
            };
        if !may {
            return self.answer(Some(id), region, Err(Error::NoSuchRegion));
        }
        let result = match request {
            Request::Send { to, .. } if !cores.contains(to) => Err(Error::Refused),
            Request::Send { terms, to, oldest } => {
                // From the offer on it counts as a holder.
                record.holders.insert(to);
                record.current = Some(Current::Send {
                    id,
                    terms,
                    to,
                    oldest,
                });
                return self.offer(region);
            }
            Request::Retype(range) => record.grant(region, id, range),
            Request::Untype(range, granted) => {
                let is_it = |one: &Granted| {
                    one.maker == id.core && one.range == range && one.sequence == granted
                };
                if let Some(at) = record.ranges.iter().position(is_it) {
                    record.ranges.remove(at);
                }
                Ok(())
            }
            Request::Drop => {
                let stays = |one: &Granted| one.is_bequest || one.maker != id.core;
                record.ranges.retain(stays);
                if !record.has_bequest(id.core) {
                    record.holders.remove(id.core);
                }
                Ok(())
            }
            Request::Revoke => {
                let Some(slot) = self.free_slot() else {
                    return self.answer(Some(id), region, Err(Error::Busy));
                };
                return self.prepare_all(region, Some(id), id.core, slot, false);
            }
        };
        self.answer(Some(id), region, result);
    }

    pub(super) fn offer(&mut self, region: Region) {
        let Some(record) = self.records.get(&region) else {
            return;
        };
        let Some(Current::Send {
            id,
            terms,
            to,
            oldest,
        }) = record.current
        else {
            return;
        };
        let offer = Message::Offer {
            id,
            region,
            terms,
            home: record.home,
            generation: record.generation,
            oldest,
        };
        self.post(to, offer);
    }

    pub(super) fn offer_answered(
        &mut self,
        from: usize,
        id: OpId,
        region: Region,
        result: Result<(), Error>,
        holds: bool,
    ) {
        let Some(record) = self.records.get_mut(&region) else {
            return;
        };
        // A late answer says nothing of the offer that is under way.
        let is_late = matches!(
            &record.current,
            Some(Current::Send { id: other, to, .. }) if *to == from && *other != id
        );
        if is_late {
            return;
        }
        if holds {
            record.holders.insert(from);
            // What it dropped before was another copy.
            let is_old =
                |(id, request): &(OpId, Request)| id.core == from && *request == Request::Drop;
            let (old, others) = record.queue.drain(..).partition::<Vec<_>, _>(is_old);
            record.queue = others.into();
            for (id, _) in old {
                self.answer(Some(id), region, Ok(()));
            }
        } else if !record.has_bequest(from) {
            record.holders.remove(from);
        }
        let Some(record) = self.records.get_mut(&region) else {
            return;
        };
        let is_it = |current: &mut Current| matches!(current, Current::Send { id: other, to, .. } if *other == id && *to == from);
        if record.current.take_if(is_it).is_some() {
            self.answer(Some(id), region, result);
        }
        self.proceed(region);
    }

    /// A number for a revoke that no other revoke of this owner has.
    pub(super) fn free_slot(&self) -> Option<u8> {
        let is_used = |number: &u8| {
            self.records.values().any(
                |record| matches!(record.current, Some(Current::Revoke { slot, .. }) if slot == *number),
            )
        };
        (0..WINDOW as u8).find(|slot| !is_used(slot))
    }

    /// The first phase of a revoke.
    pub(super) fn prepare_all(
        &mut self,
        region: Region,
        id: Option<OpId>,
        revoker: usize,
        slot: u8,
        is_committed: bool,
    ) {
        let Some(record) = self.records.get_mut(&region) else {
            return;
        };
        let mut waiting = record.holders.clone();
        // It prepared before it asked.
        waiting.remove(revoker);
        let generation = record.generation;
        record.current = Some(Current::Revoke {
            id,
            revoker,
            slot,
            is_committed,
            is_preparing: true,
            waiting: waiting.clone(),
        });
        for core in waiting.iter() {
            self.post(core, Message::Prepare { region, generation });
        }
        if waiting.is_empty() {
            self.commit_all(region);
        }
    }

    pub(super) fn prepared(&mut self, from: usize, region: Region, generation: u32) {
        let Some(record) = self.records.get_mut(&region) else {
            return;
        };
        let of_now = record.generation == generation;
        if let Some(Current::Revoke {
            is_preparing: true,
            waiting,
            ..
        }) = &mut record.current
            && of_now
            && waiting.remove(from)
            && waiting.is_empty()
        {
            self.commit_all(region);
        }
    }

    /// The second phase.
    fn commit_all(&mut self, region: Region) {
        let Some(record) = self.records.get_mut(&region) else {
            return;
        };
        let (holders, generation) = (record.holders.clone(), record.generation);
        let Some(Current::Revoke {
            revoker,
            slot,
            is_committed,
            is_preparing,
            waiting,
            ..
        }) = &mut record.current
        else {
            return;
        };
        (*is_committed, *is_preparing) = (true, false);
        waiting.clone_from(&holders);
        let (revoker, slot) = (*revoker, *slot);
        for core in holders.iter() {
            let commit = Message::Commit {
                region,
                generation,
                slot,
                revoker,
            };
            self.post(core, commit);
        }
        if holders.is_empty() {
            self.revoke_ended(region);
        }
    }

    pub(super) fn committed(&mut self, from: usize, region: Region, generation: u32, holds: bool) {
        let Some(record) = self.records.get_mut(&region) else {
            return;
        };
        let of_now = record.generation == generation;
        let Some(Current::Revoke {
            is_preparing: false,
            waiting,
            revoker,
            ..
        }) = &mut record.current
        else {
            return;
        };
        if !of_now || !waiting.remove(from) {
            return;
        }
        let is_over = waiting.is_empty();
        if !(holds && *revoker == from) {
            record.holders.remove(from);
        }
        if is_over {
            self.revoke_ended(region);
        }
    }

    fn revoke_ended(&mut self, region: Region) {
        let own = self.own;
        let Some(record) = self.records.get_mut(&region) else {
            return;
        };
        let Some(Current::Revoke { id, revoker, .. }) = record.current.take() else {
            return;
        };
        record.ranges.clear();
        record.generation = record.generation.wrapping_add(1);
        let (holders, home) = (record.holders.clone(), record.home);
        let stays = |(id, request): &(OpId, Request)| {
            holders.contains(id.core) || *request == Request::Revoke && id.core == home
        };
        let (queue, late) = record.queue.drain(..).partition::<Vec<_>, _>(stays);
        record.queue = queue.into();
        // If the record goes to the revoker, it is the answer.
        let moves = record.must_move(own) == Some(revoker)
            && record.queue.is_empty()
            && record.unaware.is_empty();
        match id.filter(|id| moves && id.core == revoker) {
            Some(id) => self.hand_over(region, revoker, id.sequence),
            None => self.answer(id, region, Ok(())),
        }
        for (id, request) in late {
            let is_gift = matches!(request, Request::Drop | Request::Untype(..));
            let result = if is_gift { Ok(()) } else { Err(Error::Revoked) };
            self.answer(Some(id), region, result);
        }
        self.proceed(region);
    }

    /// Nothing is asked for: does anybody need the record here?
    fn rest(&mut self, region: Region) {
        let own = self.own;
        let Some(record) = self.records.get_mut(&region) else {
            return;
        };
        if !record.unaware.is_empty() {
            return;
        }
        let home = record.home;
        if record.holders.is_empty() {
            if home == own {
                let wants = self.operations.iter().any(|one| one.region == region);
                let held = self.held.get(&region);
                if !wants && held.is_none_or(|held| !held.holds() && held.removing.is_none()) {
                    self.records.remove(&region);
                    self.home_again(region);
                }
            } else {
                record.current = Some(Current::Gone);
                self.post(home, Message::Gone { region });
            }
        } else if let Some(to) = record.must_move(own) {
            self.hand_over(region, to, 0);
        } else if home == own && record.holders.len() == 1 {
            self.unshare(region);
        }
    }

    /// Where only the home holds the region, and all pieces are its own, it is as any other.
    fn unshare(&mut self, region: Region) {
        let wants = self.operations.iter().any(|one| one.region == region);
        let Some(held) = self.held.get(&region).filter(|_| !wants) else {
            return;
        };
        let is_plain = held.copy
            && !held.is_busy()
            && held.removing.is_none()
            && held.commit.is_none()
            && !held.is_heir
            && !held.pieces.iter().any(|piece| piece.is_inherited);
        if is_plain {
            self.records.remove(&region);
            self.held.remove(&region);
            self.actions.push(Action::Unshared { region });
        }
    }

    pub(super) fn hand_over(&mut self, region: Region, to: usize, answers: u32) {
        let Some(record) = self.records.get_mut(&region) else {
            return;
        };
        record.current = Some(Current::Move { to, answers });
        let handover = Message::Handover {
            region,
            answers,
            home: record.home,
            has_heir: record.has_heir,
            holders: record.holders.clone(),
        };
        for Granted {
            range,
            maker,
            sequence,
            is_bequest,
        } in record.ranges.clone()
        {
            let typed = Message::Typed {
                region,
                range,
                maker,
                sequence,
                is_bequest,
            };
            self.post(to, typed);
        }
        self.post(to, handover);
    }

    pub(super) fn range_arrives(&mut self, region: Region, granted: Granted) {
        if self.arriving.len() >= 8 * WINDOW && !self.arriving.contains_key(&region) {
            return;
        }
        let ranges = self.arriving.entry(region).or_default();
        if ranges.len() < RANGES {
            ranges.push(granted);
        }
    }

    pub(super) fn record_arrives(
        &mut self,
        from: usize,
        region: Region,
        answers: u32,
        mut record: Record,
    ) {
        record.ranges = self.arriving.remove(&region).unwrap_or_default();
        let mut told = false;
        if let Some(before) = self.records.get_mut(&region) {
            let Some(taking) = before.taking.as_ref().filter(|one| one.from == from) else {
                return;
            };
            told = taking.told;
            record.queue = core::mem::take(&mut before.queue);
            record.unaware = before.unaware.clone();
        }
        let Some(held) = self.held.get_mut(&region) else {
            return;
        };
        (held.owner, held.home) = (self.own, record.home);
        record.generation = held.generation;
        record.taking = Some(Taking { from, told });
        if !told {
            record.unaware = record.interested(self.own);
            // It gave the record away.
            record.unaware.remove(from);
        }
        self.records.insert(region, record);
        if answers != 0 {
            self.answered(answers, region, Ok(()));
        }
        self.tell(region);
    }

    /// Says who owns the region to all that may not know.
    pub(super) fn tell(&mut self, region: Region) {
        let Some(record) = self.records.get_mut(&region) else {
            return;
        };
        let (unaware, home) = (record.unaware.clone(), record.home);
        for core in unaware.iter() {
            self.post(core, Message::Owner { region, home });
        }
        if unaware.is_empty() {
            self.all_know(region);
        }
    }

    fn all_know(&mut self, region: Region) {
        let Some(record) = self.records.get_mut(&region) else {
            return;
        };
        match &mut record.taking {
            Some(taking) => {
                taking.told = true;
                let from = taking.from;
                self.post(from, Message::Took { region });
            }
            None => self.proceed(region),
        }
    }

    pub(super) fn noted(&mut self, from: usize, region: Region) {
        if let Some(record) = self.records.get_mut(&region)
            && record.unaware.remove(from)
            && record.unaware.is_empty()
        {
            self.all_know(region);
        }
    }

    pub(super) fn record_taken(&mut self, from: usize, region: Region) {
        let record = self.records.get(&region).map(|record| &record.current);
        match record {
            Some(Some(Current::Move { to, .. })) if *to == from => {}
            Some(_) => return,
            None => return self.post(from, Message::Released { region }),
        }
        let record = self.records.remove(&region);
        if let Some(held) = self.held.get_mut(&region) {
            held.owner = from;
        }
        self.post(from, Message::Released { region });
        for (OpId { core, sequence }, _) in record.into_iter().flat_map(|record| record.queue) {
            self.post(core, Message::Moved { sequence, region });
        }
        self.tidy(region);
    }

    pub(super) fn record_released(&mut self, from: usize, region: Region) {
        if let Some(record) = self.records.get_mut(&region)
            && record
                .taking
                .take_if(|one| one.from == from && one.told)
                .is_some()
        {
            self.proceed(region);
        }
    }

    pub(super) fn returned(&mut self, from: usize, region: Region) {
        let record = self.records.get(&region);
        let is_it = |record: &&Record| record.home == from && record.current == Some(Current::Gone);
        if record.filter(is_it).is_none() {
            return;
        }
        let record = self.records.remove(&region);
        for (id, request) in record.into_iter().flat_map(|record| record.queue) {
            let is_gift = matches!(request, Request::Drop | Request::Untype(..));
            let result = if is_gift {
                Ok(())
            } else {
                Err(Error::NoSuchRegion)
            };
            self.answer(Some(id), region, result);
        }
        self.tidy(region);
    }
}

impl Record {
    fn grant(&mut self, region: Region, id: OpId, range: Range<u64>) -> Result<(), Error> {
        let same = |one: &Granted| {
            one.maker == id.core && one.sequence == id.sequence && one.range == range
        };
        if self.ranges.iter().any(same) {
            return Ok(());
        }
        if !region.contains(&range) {
            return Err(Error::Refused);
        }
        if self.overlaps(&range) {
            return Err(Error::Overlap);
        }
        if self.ranges.len() >= RANGES {
            return Err(Error::Busy);
        }
        self.ranges.push(Granted {
            range,
            maker: id.core,
            sequence: id.sequence,
            is_bequest: false,
        });
        Ok(())
    }

    pub(super) fn overlaps(&self, range: &Range<u64>) -> bool {
        let meets = |one: &Granted| one.range.start < range.end && range.start < one.range.end;
        self.ranges.iter().any(meets)
    }

    /// Whether a core holds the region as an heir. If it says that it does not, it did not know yet.
    fn has_bequest(&self, core: usize) -> bool {
        let is_it = |one: &Granted| one.is_bequest && one.maker == core;
        self.ranges.iter().any(is_it)
    }

    /// Everybody else who must know who owns the region.
    pub(super) fn interested(&self, own: usize) -> CoreSet {
        let mut cores = self.holders.clone();
        cores.insert(self.home);
        cores.remove(own);
        cores
    }

    /// Where the record must go, if its owner is no holder any more.
    fn must_move(&self, own: usize) -> Option<usize> {
        if self.holders.contains(own) {
            return None;
        }
        self.holders.lowest()
    }
}
