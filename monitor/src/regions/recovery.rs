//! What a view change asks for: who was lost, who owns now what they owned, and who gets their
//! memory. The lowest core of the view, the *recoverer*, puts together what the others claim.

use super::*;
use core::cmp::Reverse;

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

/// Marks a core that is not among these as gone for good.
fn mark(cores: &CoreSet, core: &mut usize) {
    if !cores.contains(*core) {
        *core |= GONE;
    }
}

/// Of two views that a core was in, the newer one counts.
fn note_life(lives: &mut BTreeMap<usize, u32>, core: usize, round: u32) {
    let last = lives.entry(core).or_default();
    *last = round.max(*last);
}

impl Regions {
    fn recoverer(&self) -> usize {
        self.cores.lowest().unwrap_or(self.own)
    }

    pub(super) fn install(&mut self, view: &View) {
        let mut dead = core::mem::replace(&mut self.cores, view.cores.clone());
        if dead.is_empty() {
            // What a former core of this number began is another operation.
            self.next_sequence = (view.epoch.round << 16) | 1;
        }
        dead.subtract(&view.cores);
        let last_round = core::mem::replace(&mut self.round, view.epoch.round);
        self.missed
            .extend(dead.iter().map(|core| (core, last_round)));
        self.told.clear();
        self.local.clear();
        self.arriving.clear();
        self.claims.clear();
        let recoverer = self.recoverer();
        self.claimed = (recoverer == self.own).then(CoreSet::default);
        let cores = &self.cores;
        self.answered.retain(|one| cores.contains(one.id.core));
        let mark = |core: &mut usize| mark(cores, core);
        for held in self.held.values_mut() {
            held.barred = None;
            held.commit = None;
            mark(&mut held.owner);
            mark(&mut held.home);
            if recoverer != self.own && core::mem::take(&mut held.is_heir) {
                // Another is from now on.
                held.home |= GONE;
            }
        }
        for note in &mut self.notes {
            mark(&mut note.owner);
        }
        let regions: Vec<Region> = self.records.keys().copied().collect();
        for region in regions {
            self.restart(region);
        }
        self.claim();
        for operation in &mut self.operations {
            operation.is_sent = false;
        }
        let mut regions: Vec<Region> = self.operations.iter().map(|one| one.region).collect();
        regions.dedup();
        for region in regions {
            self.end_void(region);
            self.dispatch(region);
        }
        let regions: Vec<Region> = self.held.keys().copied().collect();
        for region in regions {
            self.shed(region);
        }
    }

    /// What this core has only as an heir goes if another core is the recoverer now. If the owner is
    /// dead, that is when there is another: the next recoverer is to hear of it.
    pub(super) fn shed(&mut self, region: Region) {
        let is_heir = self.recoverer() == self.own;
        let Some(held) = self.held.get_mut(&region).filter(|_| !is_heir) else {
            return;
        };
        if !self.cores.contains(held.owner) {
            return;
        }
        let before = held.pieces.len();
        held.pieces.retain(|piece| !piece.is_inherited);
        if held.pieces.len() < before {
            self.leave_if_empty(region);
        }
        self.tidy(region);
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
                mark(&cores, &mut record.home);
                for granted in &mut record.ranges {
                    mark(&cores, &mut granted.maker);
                }
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
        let mut tells = true;
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
        let home_died = !cores.contains(record.home) || record.has_heir && record.home != recoverer;
        if home_died {
            (record.home, record.has_heir) = (recoverer, true);
        }
        let (home, generation) = (record.home, record.generation);
        let mut bequests = Vec::new();
        for granted in &mut record.ranges {
            granted.is_bequest |= !cores.contains(granted.maker);
            if granted.is_bequest {
                granted.maker = recoverer;
                record.holders.insert(recoverer);
                let bequest = Message::Bequeath {
                    region,
                    range: granted.range.clone(),
                    sequence: granted.sequence,
                    generation,
                    home,
                };
                bequests.push(bequest);
            }
        }
        if home_died {
            if record.current != Some(Current::Gone) {
                record.unaware = record.interested(own);
            }
            if let Some(held) = self.held.get_mut(&region) {
                held.home = recoverer;
            }
        }
        if record.has_heir {
            bequests.insert(0, Message::Inherit { region });
        }
        for bequest in bequests {
            if recoverer == own {
                // At once: what follows builds on it.
                self.claim_arrives(own, bequest);
            } else {
                self.post(recoverer, bequest);
            }
        }
    }

    /// Tells the recoverer who is dead, and what this core has to do with regions whose owner is.
    fn claim(&mut self) {
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
                    is_inherited: piece.is_inherited,
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
        for (core, round) in self.missed.clone() {
            self.post(recoverer, Message::Missed { core, round });
        }
        for (core, round) in self.adopted.clone() {
            self.post(recoverer, Message::Adopted { core, round });
        }
        self.post(recoverer, Message::Claimed);
    }

    pub(super) fn claim_arrives(&mut self, from: usize, claim: Message) {
        let Some(claimed) = &mut self.claimed else {
            if let Message::Adopted { core, round } = claim {
                self.forget(core, round);
            }
            return;
        };
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
                is_inherited,
            } => {
                let claims = self.claims.entry(region).or_default();
                // Two that were heirs may have the same.
                if !claims.ranges.iter().any(|one| one.range == range) {
                    claims.ranges.push(Granted {
                        range,
                        maker: if is_inherited { self.own } else { from },
                        sequence,
                        is_bequest: is_inherited,
                    });
                }
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
            Message::Inherit { region } => self.inherit(from, region),
            Message::Bequeath {
                region,
                range,
                sequence,
                generation,
                home,
            } => {
                let new = Held::new(from, home, generation);
                self.held.entry(region).or_insert(new);
                self.inherit_piece(region, range, sequence);
            }
            Message::Missed { core, round } => note_life(&mut self.missed, core, round),
            Message::Adopted { core, round } => note_life(&mut self.told, core, round),
            Message::Claimed => {
                claimed.insert(from);
                if claimed.contains_all(&self.cores) {
                    self.claimed = None;
                    for (core, round) in core::mem::take(&mut self.told) {
                        self.forget(core, round);
                    }
                    self.recover();
                }
            }
            _ => {}
        }
    }

    /// The memory of a core's lives up to the one in the view of this round is somebody's.
    fn forget(&mut self, core: usize, round: u32) {
        if self.missed.get(&core).is_some_and(|last| *last <= round) {
            self.missed.remove(&core);
            if self.recoverer() == self.own {
                self.tell_adopted(core, round);
            }
        }
    }

    fn tell_adopted(&mut self, core: usize, round: u32) {
        let mut others = self.cores.clone();
        others.remove(self.own);
        for other in others.iter() {
            self.post(other, Message::Adopted { core, round });
        }
    }

    /// This core is the home of a region from now on.
    fn inherit(&mut self, owner: usize, region: Region) {
        let new = Held::new(owner, self.own, 0);
        let held = self.held.entry(region).or_insert(new);
        (held.home, held.is_heir) = (self.own, true);
    }

    /// This core has a range that a dead one had retyped from now on, for others' sake: its programs
    /// need not wait for it.
    fn inherit_piece(&mut self, region: Region, range: Range<u64>, sequence: u32) {
        let Some(held) = self.held.get_mut(&region) else {
            return;
        };
        if !held.pieces.iter().any(|piece| piece.range == range) {
            held.pieces.push(Piece {
                is_inherited: true,
                ..Piece::new(range, sequence, None)
            });
        }
        self.void_drops(region);
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
        self.settle();
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
        // A home knows that it is.
        let home = claimants.iter().find(|one| one.core == one.home);
        let home = home.map(|one| one.core);
        let holding = || claimants.iter().filter(|one| one.holds);
        let newest = holding().map(|one| one.generation).max();
        let mut record = Record::new(home.unwrap_or(own), newest.unwrap_or(0));
        record.holders = holding().map(|one| one.core).collect();
        let inherited: Vec<Granted> = ranges
            .iter()
            .filter(|one| one.is_bequest)
            .cloned()
            .collect();
        if !inherited.is_empty() {
            record.holders.insert(own);
        }
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
        let generation = record.generation;
        let held = self
            .held
            .entry(region)
            .or_insert(Held::new(own, record.home, generation));
        (held.owner, held.home) = (own, record.home);
        held.is_heir |= home.is_none();
        record.has_heir = held.is_heir;
        for note in &mut self.notes {
            if note.region == region && !self.cores.contains(note.owner) {
                (note.owner, note.slot) = (own, u8::MAX);
            }
        }
        self.records.insert(region, record);
        for one in inherited {
            self.inherit_piece(region, one.range, one.sequence);
        }
        open.map(|(_, _, revoker)| revoker)
    }

    /// Where both the owner of a region and the maker of an object in it died, nobody told of the
    /// object's range. If others hold the object, this core has it as an inherited region.
    fn find_pieces(&mut self, rebuilt: &[(Region, Option<usize>)]) {
        let own = self.own;
        // What others were made from comes first: the range of a part must not stand in its way.
        let mut inherited: Vec<Region> = self.inherited().collect();
        inherited.sort_by_key(|inner| (Reverse(inner.bytes), inner.depth));
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
                    is_bequest: true,
                });
                record.holders.insert(own);
                self.inherit_piece(*region, range, sequence);
            }
        }
    }

    /// The regions whose home was dead.
    fn inherited(&self) -> impl Iterator<Item = Region> + '_ {
        let heir_of = self.held.iter().filter(|(_, held)| held.is_heir);
        heir_of.map(|(region, _)| *region)
    }

    /// Gives back inherited ranges that nobody holds anything of, and adopts the memory of the dead
    /// when no survivor holds any.
    pub(super) fn settle(&mut self) {
        if self.claimed.is_some() || self.recoverer() != self.own {
            return;
        }
        let mut free = Vec::new();
        for (region, held) in &self.held {
            for piece in held.pieces.iter().filter(|piece| piece.is_inherited) {
                let meets = |inner: &Region| region.may_hold(inner) && inner.meets(&piece.range);
                if !self.inherited().any(|inner| meets(&inner)) {
                    free.push((*region, piece.sequence));
                }
            }
        }
        for (region, sequence) in free {
            self.drop_piece(region, |piece| {
                piece.is_inherited && piece.sequence == sequence
            });
        }
        if self.inherited().next().is_none() {
            for (core, round) in core::mem::take(&mut self.missed) {
                note_life(&mut self.adopted, core, round);
                self.actions.push(Action::Adopt { core, round });
                self.tell_adopted(core, round);
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
                self.shed(region);
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
