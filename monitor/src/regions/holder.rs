//! The part of a core that begins operations, or has a region.

use super::*;

impl Regions {
    pub(super) fn begin(&mut self, token: u64, region: Region, request: Request) -> Vec<Action> {
        let held = self.held.get(&region);
        let may = held
            .is_some_and(|held| held.copy || request == Request::Revoke && held.home == self.own);
        let of_programs = self.operations.iter().filter(|one| one.token.is_some());
        // Receivers remember what they answered from the oldest operation on.
        let is_far = self
            .oldest()
            .is_some_and(|oldest| self.next_sequence.wrapping_sub(oldest) as usize >= 8 * WINDOW);
        if !may {
            self.done(Some(token), Err(Error::NoSuchRegion));
        } else if of_programs.count() >= WINDOW || is_far || self.is_barred(region) {
            self.done(Some(token), Err(Error::Busy));
        } else {
            self.add(Some(token), region, request);
        }
        self.finish()
    }

    fn oldest(&self) -> Option<u32> {
        self.operations.iter().map(|one| one.sequence).min()
    }

    fn add(&mut self, token: Option<u64>, region: Region, request: Request) {
        let sequence = self.number();
        self.operations.push(Operation {
            sequence,
            token,
            region,
            request,
            is_sent: false,
            is_revoked: false,
            is_void: false,
        });
        self.dispatch(region);
    }

    /// Sends what waits for an owner to be known, or for the CPU driver.
    pub(super) fn dispatch(&mut self, region: Region) {
        let Some(held) = self.held.get(&region) else {
            return;
        };
        let (owner, is_busy, holds) = (held.owner, held.is_busy(), held.holds());
        if !self.cores.contains(owner) {
            return;
        }
        let oldest_now = self.oldest().unwrap_or(0);
        let mut requests = Vec::new();
        let first = self.operations.iter().filter(|one| one.region == region);
        let first = first.map(|one| one.sequence).min();
        for operation in &mut self.operations {
            let waits = match operation.request {
                // It is the revoker's own preparation: nothing may be under way here.
                Request::Revoke => is_busy || first != Some(operation.sequence),
                // Another copy is coming, for all we know.
                Request::Drop => holds,
                _ => false,
            };
            if operation.region != region || operation.is_sent || waits || operation.is_void {
                continue;
            }
            operation.is_sent = true;
            if let Request::Send { oldest, .. } = &mut operation.request {
                *oldest = oldest_now;
            }
            requests.push(Message::Request {
                sequence: operation.sequence,
                region,
                request: operation.request.clone(),
            });
        }
        for request in requests {
            self.post(owner, request);
        }
    }

    /// An operation of this core ended.
    pub(super) fn answered(&mut self, sequence: u32, region: Region, result: Result<(), Error>) {
        let is_it = |one: &Operation| one.sequence == sequence && one.region == region;
        let Some(at) = self.operations.iter().position(is_it) else {
            return;
        };
        let operation = self.operations.remove(at);
        let result = match result {
            Err(Error::NoSuchRegion) if operation.is_revoked => Err(Error::Revoked),
            result => result,
        };
        let mut ends = Some(result);
        match operation.request {
            Request::Retype(range) if result.is_ok() => {
                ends = None;
                self.granted(operation.token, region, range, sequence);
            }
            // Whoever drops what it does not hold has what it wanted.
            Request::Drop => ends = Some(result.or(Ok(()))),
            Request::Untype(..) => self.leave_if_empty(region),
            _ => {}
        }
        if let Some(result) = ends {
            self.done(operation.token, result);
        }
        // A revoke may have waited for it.
        self.dispatch(region);
        self.tidy(region);
    }

    fn granted(&mut self, token: Option<u64>, region: Region, range: Range<u64>, sequence: u32) {
        let Some(token) = token else { return };
        match self.held.get_mut(&region).filter(|held| held.copy) {
            Some(held) => {
                let piece = Piece::new(range.clone(), sequence, Some(token));
                held.pieces.push(piece);
                self.actions.push(Action::Retype {
                    token,
                    region,
                    range,
                    sequence,
                });
            }
            None => {
                // The copy was deleted meanwhile: the range goes back.
                self.done(Some(token), Err(Error::NoSuchRegion));
                self.add(None, region, Request::Untype(range, sequence));
            }
        }
    }

    pub(super) fn moved(&mut self, from: usize, sequence: u32, region: Region) {
        let is_it = |one: &&mut Operation| one.sequence == sequence && one.region == region;
        let Some(operation) = self.operations.iter_mut().find(is_it) else {
            return;
        };
        let is_void = operation.is_void;
        match self.held.get(&region) {
            Some(held) if held.owner != from && !is_void => {
                operation.is_sent = false;
                self.dispatch(region);
            }
            _ => self.answered(sequence, region, Err(Error::NoSuchRegion)),
        }
    }

    pub(super) fn retype_ended(&mut self, region: Region, sequence: u32, is_made: bool) {
        let held = self.held.get_mut(&region);
        let is_it = |piece: &&mut Piece| piece.sequence == sequence && piece.token.is_some();
        let Some(piece) = held.and_then(|held| held.pieces.iter_mut().find(is_it)) else {
            return;
        };
        let token = piece.token.take();
        let result = if is_made { Ok(()) } else { Err(Error::Refused) };
        self.done(token, result);
        if !is_made {
            self.drop_piece(region, |piece| piece.sequence == sequence);
        }
        self.idle(region);
    }

    /// Gives a range back, if there is one such.
    pub(super) fn drop_piece(&mut self, region: Region, is_it: impl Fn(&Piece) -> bool) {
        let Some(held) = self.held.get_mut(&region) else {
            return;
        };
        if let Some(at) = held.pieces.iter().position(is_it) {
            let piece = held.pieces.remove(at);
            self.add(None, region, Request::Untype(piece.range, piece.sequence));
        }
    }

    pub(super) fn delete_copy(&mut self, token: u64, region: Region) {
        let Some(held) = self.held.get_mut(&region).filter(|held| held.copy) else {
            return self.done(Some(token), Err(Error::NoSuchRegion));
        };
        held.copy = false;
        if held.holds() {
            self.done(Some(token), Ok(()));
        } else {
            self.add(Some(token), region, Request::Drop);
        }
    }

    pub(super) fn offered(
        &mut self,
        from: usize,
        id: OpId,
        region: Region,
        terms: u128,
        offer: &Held,
        oldest: u32,
    ) {
        let mut new = offer.clone();
        new.owner = from;
        let held = self.held.entry(region).or_insert(new);
        (held.owner, held.home, held.generation) = (from, offer.home, offer.generation);
        let initiator = id.core;
        self.answered
            .retain(|one| one.id.core != initiator || one.id.sequence >= oldest);
        if self.incoming.iter().any(|(other, _)| *other == id) {
            return;
        }
        if let Some(one) = self.answered.iter().find(|one| one.id == id) {
            let result = one.result;
            return self.answer_offer(id, region, result);
        }
        if let Some(held) = self.held.get_mut(&region) {
            held.inserting += 1;
        }
        self.incoming.push((id, region));
        self.actions.push(Action::Insert { id, region, terms });
    }

    /// This core holds the region again: what was to drop it is none any more.
    pub(super) fn void_drops(&mut self, region: Region) {
        for operation in &mut self.operations {
            operation.is_void |= operation.region == region && operation.request == Request::Drop;
        }
        self.end_void(region);
    }

    /// Ends drops that are none any more and that nobody is going to answer.
    pub(super) fn end_void(&mut self, region: Region) {
        let is_void = |one: &Operation| one.region == region && one.is_void && !one.is_sent;
        while let Some(operation) = self.operations.iter().find(|one| is_void(one)) {
            let sequence = operation.sequence;
            self.answered(sequence, region, Ok(()));
        }
    }

    fn answer_offer(&mut self, id: OpId, region: Region, result: Result<(), Error>) {
        let Some(held) = self.held.get(&region) else {
            return;
        };
        let (owner, holds) = (held.owner, held.holds());
        let answer = Message::Offered {
            id,
            region,
            result,
            holds,
        };
        if self.cores.contains(owner) {
            self.post(owner, answer);
            self.tidy(region);
        } else if !holds {
            // Whoever is to own it was told that there is a copy here.
            self.leave(region);
        }
    }

    /// Drops the region unless that is under way.
    fn leave(&mut self, region: Region) {
        let drops =
            |one: &Operation| one.region == region && one.request == Request::Drop && !one.is_void;
        if !self.operations.iter().any(drops) {
            self.add(None, region, Request::Drop);
        }
    }

    pub(super) fn insert_ended(&mut self, id: OpId, result: Result<(), Error>) {
        let Some(at) = self.incoming.iter().position(|(other, _)| *other == id) else {
            return;
        };
        let (_, region) = self.incoming.remove(at);
        self.answered.push(Answered { id, result });
        let Some(held) = self.held.get_mut(&region) else {
            return;
        };
        held.inserting = held.inserting.saturating_sub(1);
        if result.is_ok() {
            held.copy = true;
            self.void_drops(region);
        }
        self.answer_offer(id, region, result);
        self.idle(region);
    }

    /// Something with the region ended here: what waited for it goes on.
    fn idle(&mut self, region: Region) {
        let Some(held) = self.held.get_mut(&region).filter(|held| !held.is_busy()) else {
            return;
        };
        if let Some(barred) = held.barred.as_mut().filter(|barred| barred.waits) {
            barred.waits = false;
            let (owner, generation) = (barred.owner, barred.generation);
            self.post(owner, Message::Prepared { region, generation });
        }
        self.remove_if_due(region);
        self.dispatch(region);
    }

    pub(super) fn prepare(&mut self, from: usize, region: Region, generation: u32) {
        if let Some(held) = self.held.get_mut(&region) {
            let waits = held.is_busy();
            held.barred = Some(Barred {
                owner: from,
                generation,
                waits,
            });
            if waits {
                return;
            }
        }
        self.post(from, Message::Prepared { region, generation });
    }

    pub(super) fn commit(&mut self, note: Note) {
        let Note {
            owner,
            region,
            generation,
            revoker,
            ..
        } = note;
        let keep = revoker == self.own;
        self.notes
            .retain(|other| (other.owner, other.slot) != (note.owner, note.slot));
        if !keep {
            self.note(note);
            for operation in &mut self.operations {
                operation.is_revoked |= operation.region == region;
            }
        }
        let Some(held) = self.held.get_mut(&region) else {
            let committed = Message::Committed {
                region,
                generation,
                holds: false,
            };
            return self.post(owner, committed);
        };
        held.commit = Some(Commit {
            owner,
            generation,
            keep,
        });
        self.remove_if_due(region);
    }

    pub(super) fn note(&mut self, note: Note) {
        // More there are only if owners died: their revokes were completed long ago.
        if self.notes.len() >= 64 * WINDOW {
            self.notes.remove(0);
        }
        self.notes.push(note);
    }

    /// Begins the removal that was asked for. At the revoker, what it had asked for before comes
    /// first; all others have nothing under way since they prepared.
    pub(super) fn remove_if_due(&mut self, region: Region) {
        if self.claimed.is_some() {
            // This core may come to be home of what was made from it.
            return;
        }
        let Some(held) = self.held.get_mut(&region) else {
            return;
        };
        let Some(keep) = held.commit.as_ref().map(|commit| commit.keep) else {
            return;
        };
        if held.removing.is_some() || keep && held.is_busy() {
            return;
        }
        held.removing = Some(keep);
        self.actions.push(Action::RemoveLocal { region, keep });
    }

    pub(super) fn removal_ended(&mut self, region: Region) {
        let Some(held) = self.held.get_mut(&region) else {
            return;
        };
        let Some(kept) = held.removing.take() else {
            return;
        };
        held.copy &= kept;
        held.pieces.clear();
        if let Some(commit) = held.commit.take() {
            if kept && !commit.keep {
                held.commit = Some(commit);
                return self.remove_if_due(region);
            }
            held.barred = None;
            let generation = commit.generation;
            if kept {
                held.generation = generation.wrapping_add(1);
            }
            let committed = Message::Committed {
                region,
                generation,
                holds: held.copy,
            };
            self.post(commit.owner, committed);
        } else if !held.holds() {
            // The owner died, and the next one takes this core for a holder.
            self.leave(region);
        }
        self.dispatch(region);
        self.tidy(region);
    }

    pub(super) fn owner_is(&mut self, from: usize, region: Region, home: usize) {
        if let Some(held) = self.held.get_mut(&region) {
            (held.owner, held.home) = (from, home);
        } else if home == self.own {
            self.held.insert(region, Held::new(from, home, 0));
        }
        for note in &mut self.notes {
            if note.region == region && !self.cores.contains(note.owner) {
                note.owner = from;
                note.slot = u8::MAX;
            }
        }
        self.post(from, Message::Noted { region });
        self.shed(region);
        self.dispatch(region);
    }

    pub(super) fn gone(&mut self, from: usize, region: Region) {
        let is_it = |held: &&Held| held.home == self.own && held.owner == from && !held.holds();
        if self.held.get(&region).filter(is_it).is_some() {
            self.home_again(region);
        }
        self.post(from, Message::Returned { region });
    }

    /// The region came back to where it was shared first.
    pub(super) fn home_again(&mut self, region: Region) {
        let Some(held) = self.held.remove(&region) else {
            return;
        };
        match held.is_heir {
            true => self.settle(),
            false => self.actions.push(Action::Gone { region }),
        }
        self.end_all(region);
    }

    /// Ends what this core wanted of a region that is no more.
    pub(super) fn end_all(&mut self, region: Region) {
        let of_it = |one: &&Operation| one.region == region;
        // The end of one may begin another: a drop.
        while let Some(operation) = self.operations.iter().find(of_it) {
            let sequence = operation.sequence;
            self.answered(sequence, region, Err(Error::NoSuchRegion));
        }
    }

    /// Sees to it that the region is left when nothing of it is left here.
    pub(super) fn tidy(&mut self, region: Region) {
        if self.operations.iter().any(|one| one.region == region) {
            return;
        }
        if self.records.contains_key(&region) {
            self.proceed(region);
        }
        let is_kept = self.records.contains_key(&region);
        let Some(held) = self.held.get(&region) else {
            return;
        };
        let is_idle = !held.holds() && held.removing.is_none() && held.commit.is_none();
        if is_idle && !is_kept && held.home != self.own {
            self.held.remove(&region);
        }
    }

    /// After a range was given back: if that was the last, and no copy is left either, drop.
    pub(super) fn leave_if_empty(&mut self, region: Region) {
        let held = self.held.get(&region);
        if held.is_some_and(|held| !held.holds() && held.removing.is_none()) {
            self.leave(region);
        }
    }
}
