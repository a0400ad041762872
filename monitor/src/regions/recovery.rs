//! What a view change asks for: who was lost, who owns now what they owned, and who gets their
//! memory. The lowest core of the view, the *recoverer*, puts together what the others claim.

use super::*;

/// What the recoverer was told about a region.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Claims {
    claimants: Vec<Claimant>,
    ranges: Vec<Granted>,
    /// Who removed what it held, for which generation and revoker.
    revoked: Vec<(usize, u32, usize)>,
    owner: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Claimant {
    core: usize,
    generation: u32,
    home: usize,
    holds: bool,
}

impl Regions {
    fn recoverer(&self) -> usize {
        self.cores.lowest().unwrap_or(self.own)
    }

    pub(super) fn install(&mut self, view: &View) {
        let mut dead = core::mem::replace(&mut self.cores, view.cores.clone());
        self.is_new = dead.is_empty();
        dead.subtract(&view.cores);
        if self.is_new {
            // What a former core of this number began is another operation.
            self.next_sequence = (view.epoch.round << 16) | 1;
        }
        self.missed = None;
        self.local.clear();
        self.arriving.clear();
        self.claims.clear();
        let is_unfinished = self.claimed.take().is_some();
        let recoverer = self.recoverer();
        if is_unfinished && recoverer != self.own {
            // The next one hears of what these had.
            let is_open = |(_, regions): &(&usize, &BTreeSet<Region>)| regions.is_empty();
            let open = self.legacies.iter().filter(is_open);
            let dead: CoreSet = open.map(|(core, _)| *core).collect();
            self.legacies.retain(|core, _| !dead.contains(*core));
            self.post(recoverer, Message::Missed { dead });
        }
        if recoverer == self.own {
            self.claimed = Some(CoreSet::default());
            for core in dead.iter() {
                self.legacies.entry(core).or_default();
            }
        }
        let cores = &self.cores;
        self.answered.retain(|one| cores.contains(one.id.core));
        let mark = |core: &mut usize| {
            if !cores.contains(*core) {
                *core |= GONE;
            }
        };
        for held in self.held.values_mut() {
            held.barred = None;
            held.commit = None;
            mark(&mut held.owner);
            mark(&mut held.home);
        }
        for note in &mut self.notes {
            mark(&mut note.owner);
        }
        let regions: Vec<Region> = self.records.keys().copied().collect();
        for region in regions {
            self.restart(region);
        }
        self.claim(dead);
        for operation in &mut self.operations {
            operation.is_sent = false;
        }
        let mut regions: Vec<Region> = self.operations.iter().map(|one| one.region).collect();
        regions.dedup();
        for region in regions {
            self.end_void(region);
            self.dispatch(region);
        }
    }

    /// An owner goes on after a view change: whatever waited is asked for again, and what was under
    /// way begins anew.
    fn restart(&mut self, region: Region) {
        let (own, recoverer) = (self.own, self.recoverer());
        let cores = self.cores.clone();
        let Some(record) = self.records.get_mut(&region) else {
            return;
        };
        record.queue.clear();
        if let Some(taking) = record.taking.clone() {
            if !cores.contains(taking.from) {
                // It cannot act any more, and the record is as it left it.
                record.taking = None;
            } else if taking.told {
                self.post(taking.from, Message::Took { region });
            } else {
                // The owner sends it again. Whoever is gone must not come back with a number.
                record.holders = record
                    .holders
                    .iter()
                    .filter(|one| cores.contains(*one))
                    .collect();
                record.unaware = record
                    .unaware
                    .iter()
                    .filter(|one| cores.contains(*one))
                    .collect();
                return;
            }
        }
        self.replace_the_dead(region, recoverer);
        let Some(record) = self.records.get_mut(&region) else {
            return;
        };
        let mut tells = record.taking.is_none();
        match record.current.clone() {
            Some(Current::Send { id, to, .. }) if !cores.contains(to) => {
                record.current = None;
                self.answer(Some(id), region, Err(Error::Refused));
            }
            Some(Current::Send { .. }) => self.offer(region),
            Some(Current::Revoke {
                id,
                revoker,
                slot,
                is_committed,
                ..
            }) => {
                if is_committed || cores.contains(revoker) {
                    self.prepare_all(region, id, revoker, slot, is_committed);
                } else {
                    record.current = None;
                }
            }
            Some(Current::Move { to, .. }) if !cores.contains(to) => {
                record.current = None;
                record.unaware = record.interested(own);
            }
            Some(Current::Move { to, answers }) => {
                self.hand_over(region, to, answers);
                tells = false;
            }
            Some(Current::Gone) => {
                let home = record.home;
                self.post(home, Message::Gone { region });
                tells = false;
            }
            None => {}
        }
        let Some(record) = self.records.get_mut(&region) else {
            return;
        };
        if tells && !record.unaware.is_empty() {
            self.post(recoverer, Message::Owned { region });
            self.tell(region);
        }
        self.proceed(region);
    }

    /// The dead hold nothing; what they had made, and their memory, goes to the recoverer.
    fn replace_the_dead(&mut self, region: Region, recoverer: usize) {
        let own = self.own;
        let cores = self.cores.clone();
        let Some(record) = self.records.get_mut(&region) else {
            return;
        };
        record.holders = record
            .holders
            .iter()
            .filter(|core| cores.contains(*core))
            .collect();
        record.unaware = record
            .unaware
            .iter()
            .filter(|core| cores.contains(*core))
            .collect();
        let from = record.home;
        let home_died = !cores.contains(from);
        if home_died {
            record.home = recoverer;
        }
        let (home, generation) = (record.home, record.generation);
        let mut bequests = Vec::new();
        for granted in &mut record.ranges {
            if !cores.contains(granted.maker) {
                granted.maker = recoverer;
                granted.is_bequest = true;
                record.holders.insert(recoverer);
            }
            if granted.is_bequest {
                let bequest = Message::Bequeath {
                    region,
                    range: granted.range.clone(),
                    sequence: granted.sequence,
                    generation,
                    home,
                };
                bequests.push((granted.maker, bequest));
            }
        }
        if home_died {
            if record.current != Some(Current::Gone) {
                record.unaware = record.interested(own);
            }
            if let Some(held) = self.held.get_mut(&region) {
                held.home = recoverer;
            }
            bequests.insert(0, (recoverer, Message::Inherit { region, from }));
        }
        for (heir, bequest) in bequests {
            if heir == own {
                // At once: what follows builds on it.
                self.claim_arrives(own, bequest);
            } else {
                self.post(heir, bequest);
            }
        }
    }

    /// Tells the recoverer what this core has to do with regions whose owner is dead.
    fn claim(&mut self, dead: CoreSet) {
        let recoverer = self.recoverer();
        let mut claims = Vec::new();
        for (region, held) in &self.held {
            if self.cores.contains(held.owner) {
                continue;
            }
            let region = *region;
            claims.push(Message::Claim {
                region,
                generation: held.generation,
                home: held.home,
                holds: held.holds(),
            });
            for piece in &held.pieces {
                claims.push(Message::ClaimTyped {
                    region,
                    range: piece.range.clone(),
                    sequence: piece.sequence,
                });
            }
        }
        for note in &self.notes {
            if !self.cores.contains(note.owner) {
                claims.push(Message::ClaimRevoked {
                    region: note.region,
                    generation: note.generation,
                    revoker: note.revoker,
                });
            }
        }
        for claim in claims {
            self.post(recoverer, claim);
        }
        let dead = (!self.is_new).then_some(dead);
        self.post(recoverer, Message::Claimed { dead });
    }

    pub(super) fn claim_arrives(&mut self, from: usize, claim: Message) {
        // A bequest may come again when the recovery is another core's.
        if self.claimed.is_none() && !matches!(claim, Message::Bequeath { .. }) {
            return;
        }
        match claim {
            Message::Claim {
                region,
                generation,
                home,
                holds,
            } => {
                let claims = self.claims.entry(region).or_default();
                claims.claimants.push(Claimant {
                    core: from,
                    generation,
                    home,
                    holds,
                });
            }
            Message::ClaimTyped {
                region,
                range,
                sequence,
            } => {
                let claims = self.claims.entry(region).or_default();
                claims.ranges.push(Granted {
                    range,
                    maker: from,
                    sequence,
                    is_bequest: false,
                });
            }
            Message::ClaimRevoked {
                region,
                generation,
                revoker,
            } => {
                let claims = self.claims.entry(region).or_default();
                claims.revoked.push((from, generation, revoker));
            }
            Message::Owned { region } => {
                self.claims.entry(region).or_default().owner = Some(from);
            }
            Message::Inherit { region, from: dead } => self.inherit(from, region, dead),
            Message::Bequeath {
                region,
                range,
                sequence,
                generation,
                home,
            } => {
                let new = Held::new(from, home, generation);
                let held = self.held.entry(region).or_insert(new);
                if !held.pieces.iter().any(|piece| piece.range == range) {
                    held.pieces.push(Piece {
                        is_inherited: true,
                        ..Piece::new(range, sequence, None)
                    });
                }
                self.settle_legacies();
            }
            Message::Missed { dead } => {
                for core in dead.iter() {
                    self.legacies.entry(core).or_default();
                }
            }
            Message::Claimed { dead } => {
                // Who was missing already in a view that somebody has seen is taken care of.
                if let Some(dead) = dead.filter(|_| self.is_new) {
                    let missed = self.missed.get_or_insert_with(|| dead.clone());
                    *missed = missed.iter().filter(|core| dead.contains(*core)).collect();
                }
                if let Some(claimed) = &mut self.claimed {
                    claimed.insert(from);
                    if claimed.contains_all(&self.cores) {
                        self.claimed = None;
                        for core in self.missed.take().iter().flat_map(CoreSet::iter) {
                            self.legacies.entry(core).or_default();
                        }
                        self.recover();
                    }
                }
            }
            _ => {}
        }
    }

    /// This core is the home of a region from now on.
    fn inherit(&mut self, owner: usize, region: Region, dead: usize) {
        let own = self.own;
        let dead = dead % GONE;
        let new = Held::new(owner, own, 0);
        let held = self.held.entry(region).or_insert(new);
        held.home = own;
        if held.inherited_from.is_none() {
            held.inherited_from = Some(dead);
            self.legacies.entry(dead).or_default().insert(region);
        }
    }

    /// All have claimed.
    fn recover(&mut self) {
        let own = self.own;
        let mut rebuilt = Vec::new();
        for (region, claims) in core::mem::take(&mut self.claims) {
            let is_ours = self.records.contains_key(&region).then_some(own);
            let owner = is_ours.or(claims.owner);
            let is_home = |one: &Claimant| one.core == one.home;
            let is_alive = claims.claimants.iter().any(|one| one.holds || is_home(one));
            if owner.is_none() && is_alive {
                let revoker = self.rebuild(region, claims);
                rebuilt.push((region, revoker));
                continue;
            }
            let mut told: CoreSet = claims.claimants.iter().map(|one| one.core).collect();
            told.extend(&claims.revoked.iter().map(|(core, ..)| *core).collect());
            for core in told.iter() {
                self.post(core, Message::Redirect { region, owner });
            }
        }
        self.find_pieces(&rebuilt);
        for (region, revoker) in rebuilt {
            if let (Some(revoker), Some(slot)) = (revoker, self.free_slot()) {
                self.prepare_all(region, None, revoker, slot, true);
            }
            self.tell(region);
            self.dispatch(region);
        }
        let due = self.held.iter().filter(|(_, held)| held.commit.is_some());
        let due: Vec<Region> = due.map(|(region, _)| *region).collect();
        for region in due {
            self.remove_if_due(region);
        }
        self.settle_legacies();
    }

    /// Owns a region whose owner is dead; acts when all records are there, and what was made. The
    /// revoker of a revoke that is to be completed.
    fn rebuild(&mut self, region: Region, claims: Claims) -> Option<usize> {
        let own = self.own;
        let Claims {
            claimants,
            ranges,
            revoked,
            ..
        } = claims;
        let known = claimants.iter().map(|one| one.home);
        let home = known.clone().find(|home| self.cores.contains(*home));
        let dead = known.clone().find(|home| !self.cores.contains(*home));
        let holding = || claimants.iter().filter(|one| one.holds);
        let newest = holding().map(|one| one.generation).max();
        let mut record = Record::new(home.unwrap_or(own), newest.unwrap_or(0));
        record.holders = holding().map(|one| one.core).collect();
        record.ranges = ranges;
        record.unaware = claimants.iter().map(|one| one.core).collect();
        record
            .unaware
            .extend(&revoked.iter().map(|(core, ..)| *core).collect());
        record.unaware.insert(record.home);
        record.unaware.remove(own);
        // A revoke that somebody had begun to carry out is carried out: those that hold what it was
        // to remove have a generation that is not newer.
        let is_open = |(_, generation, revoker): &&(usize, u32, usize)| {
            holding().any(|one| one.core != *revoker && one.generation <= *generation)
        };
        let open = revoked.iter().filter(is_open).max_by_key(|one| one.1);
        let open = open.copied();
        if let Some((_, generation, _)) = open {
            record.generation = generation;
        }
        let (home, generation) = (record.home, record.generation);
        let held = self
            .held
            .entry(region)
            .or_insert(Held::new(own, home, generation));
        (held.owner, held.home) = (own, home);
        for note in &mut self.notes {
            if note.region == region && !self.cores.contains(note.owner) {
                (note.owner, note.slot) = (own, u8::MAX);
            }
        }
        self.records.insert(region, record);
        if let (true, Some(dead)) = (home == own, dead) {
            self.inherit(own, region, dead);
        }
        open.map(|(_, _, revoker)| revoker)
    }

    /// Where both the owner of a region and the maker of an object in it died, nobody told of the
    /// object's range. If others hold the object, this core has it as an inherited region.
    fn find_pieces(&mut self, rebuilt: &[(Region, Option<usize>)]) {
        let own = self.own;
        let inherited: Vec<Region> = self.legacies.values().flatten().copied().collect();
        for (region, _) in rebuilt {
            for inner in &inherited {
                let range = inner.range();
                let sequence = self.number();
                let Some(record) = self.records.get_mut(region) else {
                    continue;
                };
                let covers = region.may_hold(inner);
                if !covers || record.overlaps(&range) || !region.kind.may_become(inner.kind) {
                    continue;
                }
                record.ranges.push(Granted {
                    range: range.clone(),
                    maker: own,
                    sequence,
                    is_bequest: false,
                });
                record.holders.insert(own);
                if let Some(held) = self.held.get_mut(region) {
                    held.pieces.push(Piece {
                        is_inherited: true,
                        ..Piece::new(range, sequence, None)
                    });
                }
                // This core holds the region for others' sake: its programs need not wait.
                for operation in &mut self.operations {
                    operation.is_void |=
                        operation.region == *region && operation.request == Request::Drop;
                }
                self.end_void(*region);
            }
        }
    }

    /// Gives back inherited ranges that nobody holds anything of, and adopts the memory of the dead
    /// when no survivor holds any.
    pub(super) fn settle_legacies(&mut self) {
        if self.claimed.is_some() {
            return;
        }
        let mut free = Vec::new();
        for (region, held) in &self.held {
            for piece in held.pieces.iter().filter(|piece| piece.is_inherited) {
                let meets = |inner: &Region| {
                    region.may_hold(inner)
                        && inner.base < piece.range.end
                        && piece.range.start < inner.range().end
                };
                if !self.legacies.values().flatten().any(meets) {
                    free.push((*region, piece.sequence));
                }
            }
        }
        for (region, sequence) in free {
            self.drop_piece(region, |piece| {
                piece.is_inherited && piece.sequence == sequence
            });
        }
        if self.legacies.values().all(BTreeSet::is_empty) {
            for core in core::mem::take(&mut self.legacies).into_keys() {
                self.actions.push(Action::Adopt { core });
            }
        }
    }

    pub(super) fn redirected(&mut self, from: usize, region: Region, owner: Option<usize>) {
        if from != self.recoverer() {
            return;
        }
        let cores = &self.cores;
        let is_lost = |note: &Note| note.region == region && !cores.contains(note.owner);
        match owner {
            Some(owner) => {
                for note in self.notes.iter_mut().filter(|note| is_lost(note)) {
                    (note.owner, note.slot) = (owner, u8::MAX);
                }
                if let Some(held) = self.held.get_mut(&region)
                    && !cores.contains(held.owner)
                {
                    held.owner = owner;
                }
                self.dispatch(region);
            }
            None => {
                self.notes.retain(|note| !is_lost(note));
                self.end_all(region);
                self.tidy(region);
            }
        }
    }
}
