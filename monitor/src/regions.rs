//! Capabilities across cores: send, copy, retype, delete and revoke of regions that more than one
//! core holds.
//!
//! A [`Region`] is what capabilities are to. While one core has it, the protocol knows nothing of
//! it. With the first send it gets a record at one core, its *owner*: who the *holders* are (the
//! cores with a copy, or with objects made from it), and in which ranges objects were made. The core
//! that sent it first is its *home*: there the memory comes back to. Every operation goes to the
//! owner, which does one at a time for a region. Others wait, or are answered [`Error::Busy`].
//!
//! ```text
//!  initiator             owner                 receiver
//!    │ Request(Send) ───────►│ Offer ───────────────►│ Insert: a slot is filled
//!    │◄───────────── Answer ─│◄───────────── Offered │
//!
//!  initiator             owner
//!    │ Request(Retype) ─────►│ no other range overlaps
//!    │◄───────────── Answer ─│                           objects are made; if that fails:
//!    │ Request(Untype) ─────►│                           or when they go
//!    │◄───────────── Answer ─│
//!    │ Request(Drop) ───────►│                           neither copy nor object is left
//!    │◄───────────── Answer ─│
//!
//!  revoker               owner                 every other holder
//!    │ Request(Revoke) ─────►│ Prepare ─────────────►│ begins nothing with the region any more,
//!    │                       │◄──────────── Prepared │ and has ended what it had begun
//!    │◄───────────── Commit ─│ Commit ──────────────►│ RemoveLocal: all copies, and all that was
//!    │ Committed ───────────►│◄─────────── Committed │ made from it
//!    │◄───────────── Answer ─│
//!
//!  owner (without a copy)  next owner            every other holder, and home
//!    │ Typed …, Handover ───►│ Owner ───────────────►│ requests go there from now on
//!    │                       │◄─────────────── Noted │
//!    │◄─────────────── Took ─│ all know
//!    │ Released ────────────►│ begins to act
//!
//!  owner                 home
//!    │ Gone ────────────────►│ no holder is left: the memory is free
//!    │◄──────────── Returned │ the record goes
//! ```
//!
//! A send takes 4 messages, or 2 if the initiator or the receiver is the owner; retype, untype and
//! drop 2 or none. With H holders, a revoke takes 4 for every holder but the owner (the revoker's
//! request, which is its own preparation, and its answer included). Where the owner loses its copy
//! by it, the handover to the revoker is the answer; with Took, Released, and Owner and Noted of a
//! home that is neither of both, that makes 4H at most. A handover has a line more for each range.
//!
//! # Ownership moves
//!
//! When the owner is no holder any more, nothing waits, and all know it as the owner, the record moves
//! to the lowest holder: whose the memory is, the holders that live, and the ranges. What a revoke
//! changed is in it: no range is left then, and no holder but the revoker. The generation does not
//! move, since every holder has its own; nor does what waits.
//! What arrives at the old owner before it is released waits there, and is answered `Moved` then;
//! what arrives at any core that has no record is answered `Moved` at once. The initiator asks again
//! where its own entry points to. That is right: before the old owner released the record,
//! everybody who may ask had noted the new one. So no core needs to remember where records went.
//!
//! # A view changes
//!
//! What was under way is lost. Initiators ask again, with the same number; a receiver remembers how
//! it answered an offer as long as the initiator may ask again. An owner that lives takes the dead
//! off its records and begins anew what it had under way, but for a revoke whose revoker is dead and
//! that no holder was told to carry out. A handover is repeated if both ends live; if only the new
//! owner does, and it has the record, it is the owner; if only the old one does, it still is.
//!
//! Whoever knows a dead core as an owner tells the *recoverer*, the lowest core of the view:
//!
//! ```text
//!  survivor              recoverer
//!    │ Claim, ClaimTyped … ─►│ for each region whose owner was dead for all it knew
//!    │ ClaimRevoked ────────►│ for each removal that a dead owner had asked for
//!    │ Owned ───────────────►│ for each region that it owns and not everybody may know so
//!    │ Inherit, Bequeath … ─►│ what it owns of a dead core's memory, and what that one had made
//!    │ Claimed ─────────────►│ when all have said so:
//!    │◄────────────── Owner ─│ it rebuilt the record, and owns it
//!    │ Noted ───────────────►│
//!    │◄─────────── Redirect ─│ or somebody else owns it, or nobody has it any more
//! ```
//!
//! An entry names another owner only when somebody says so. Until then its requests wait, and the
//! claim is repeated with each view. It is the lowest core, and not one after the dead one, so that
//! all agree although some may have missed a view in between.
//!
//! A holder notes that it was told to carry out a revoke until the owner's revoke slot is used again.
//! So if the owner dies, the recoverer hears of it, and completes it: on those claimants whose copies
//! are of the generation that was revoked, or older. The generation counts a region's revokes.
//!
//! A core that has joined since is not the one that it has the number of: whoever was out of a view
//! is marked as gone wherever it is known as an owner or a home, and numbers of operations begin
//! anew with each life. A recoverer that has just joined learns from the others who is dead.
//!
//! The recoverer is the *heir*: home of whatever a dead core was home of, and it has the ranges that
//! such a core had typed, until nobody has an object that was made there. With each view all of that
//! goes to whoever is the recoverer now, and owners say it again: so no other core has any of it, and
//! what was lost with a view is not lost.
//!
//! When there is no region left whose home was dead, the heir adopts the memory of all the dead
//! ([`Action::Adopt`]), and tells the others. Until it has, each of them keeps in mind whom it saw
//! last in which view, and says so with each view; so who adopts need not have known the dead:
//!
//! ```text
//!  survivor              recoverer             others
//!    │ Missed {core, round} ►│ for each dead core, as far as the sender knows
//!    │ Adopted … ───────────►│ what the sender has adopted itself
//!    │ Claimed ─────────────►│ when all have said so, and nothing is left of the dead:
//!    │◄───────────── Adopted │ Adopted ─────────────►│ forgets them
//! ```
//!
//! Since lives of a core follow each other, a view that had one of them tells all up to that one from
//! all after it.
//!
//! # Invariants
//!
//! * *At most one owner a region.* A record is made by the first send, which is at the only holder;
//!   by a handover, and acts only when the one it came from was released or is dead; or by the
//!   recoverer, if no survivor says that it owns the region. A survivor that owns it says so, unless
//!   all that have to do with it had noted it, and then nobody claims.
//! * *Every holder is known to the owner.* A core counts as a holder from the offer on. It is taken
//!   off by its own Drop, which it sends only when it has nothing and nothing is coming (a copy that
//!   comes after that makes the Drop void, on both sides), by an answer that it holds nothing, or by
//!   a revoke.
//! * *After a revoke nobody but the revoker holds the region.* The owner has all holders, and none
//!   can be added while it is the current operation. Each removes only when all have prepared, so
//!   nothing that was begun before can put anything back. A region made from this one that still
//!   others hold is revoked by whoever is home of it as part of its removal; derivation has no
//!   cycles, so these wait for each other without deadlock.
//! * *Two ranges that were granted never overlap.* The owner grants one after another, and a range
//!   stays until its maker gives it back. A new owner has the ranges from the old one, or from their
//!   makers, or, if both are dead, from the objects that survivors hold.
//! * *Memory returns once.* The owner says Gone only when there is neither copy nor object, and the
//!   home believes the owner that it knows.
mod holder;
mod message;
mod owner;
mod recovery;
#[cfg(test)]
mod tests;

pub use abi::capability::Kind;
pub use message::{Message, Request};

use crate::core_set::CoreSet;
use crate::view::View;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::ops::Range;

/// Most operations that the programs of one core may have under way.
pub const WINDOW: usize = 16;
/// Most operations that wait for one region at its owner.
pub const QUEUE: usize = 32;
/// Most ranges of one region that may be retyped at a time.
pub const RANGES: usize = 32;

/// Marks the number of a core that has been out of some view since: one of that number in a view is
/// another one.
const GONE: usize = 1 << 16;

/// What capabilities are to. It is the same tuple on every core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region {
    /// What kind of thing.
    pub kind: Kind,
    /// Where its range starts, in what the kind's ranges number.
    pub base: u64,
    /// The length of the range: whole pages for memory.
    pub bytes: u64,
    /// How many objects with the same range it was made from.
    pub depth: u8,
}

impl Region {
    /// Whether a range is a part of its own.
    pub fn contains(&self, range: &Range<u64>) -> bool {
        self.base <= range.start
            && range.start < range.end
            && range.end <= self.base.saturating_add(self.bytes)
    }

    /// Whether it has something in common with a range.
    pub fn meets(&self, range: &Range<u64>) -> bool {
        self.base < range.end && range.start < self.range().end
    }

    /// Whether another region may have been made from it, directly or not.
    pub fn may_hold(&self, inner: &Self) -> bool {
        let is_deeper = inner.range() != self.range() || inner.depth > self.depth;
        is_deeper && self.contains(&inner.range())
    }

    /// Its range.
    pub fn range(&self) -> Range<u64> {
        self.base..self.base.saturating_add(self.bytes)
    }
}

/// Names an operation: no two have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId {
    /// The core that began it.
    pub core: usize,
    /// Its number there.
    pub sequence: u32,
}

/// Why an operation did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Error {
    /// Too much is under way, or a revoke: try again later.
    Busy = 1,
    /// Somebody revoked the region meanwhile.
    Revoked,
    /// Something was made in this range already.
    Overlap,
    /// This core holds no such region, or it is not shared.
    NoSuchRegion,
    /// It cannot be: a core that is not up, a range that is not in the region.
    Refused,
    /// The receiver had no slot for it.
    NoSlot,
    /// There is no such receiver.
    NoReceiver,
}

impl Error {
    pub(crate) const ALL: [Self; 7] = [
        Self::Busy,
        Self::Revoked,
        Self::Overlap,
        Self::NoSuchRegion,
        Self::Refused,
        Self::NoSlot,
        Self::NoReceiver,
    ];
}

/// What the monitor is to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send a message to a core.
    Send(usize, Message),
    /// Put a copy of the region into a slot, and say how it went: [`Regions::inserted`].
    Insert {
        /// Names it.
        id: OpId,
        /// What.
        region: Region,
        /// As the sender gave it.
        terms: u128,
    },
    /// The range is granted: make the objects, and say how it went: [`Regions::retyped`].
    Retype {
        /// As given to [`Regions::retype`].
        token: u64,
        /// Of what.
        region: Region,
        /// Where.
        range: Range<u64>,
        /// Names it.
        sequence: u32,
    },
    /// Remove all copies of the region (but, if `keep` says so, the revoker's) and everything made
    /// from it, also what of that other cores hold, which takes a revoke of its own. Say when it is
    /// done: [`Regions::removed`].
    RemoveLocal {
        /// What.
        region: Region,
        /// Whether the copy that the revoke was made with stays.
        keep: bool,
    },
    /// An operation ended.
    Done {
        /// As given to the method that began it.
        token: u64,
        /// How.
        result: Result<(), Error>,
    },
    /// No core holds the region that this core was the first to share: it may be used anew.
    Gone {
        /// What.
        region: Region,
    },
    /// No other core holds the region any more: it needs no protocol.
    Unshared {
        /// What.
        region: Region,
    },
    /// Nobody holds a piece of the memory of this dead core any more, nor of what it had adopted: it
    /// is this core's from now on.
    Adopt {
        /// The core's number.
        core: usize,
        /// The round of a view that it was in. Earlier lives are meant as well, but what another
        /// core has adopted of theirs; later ones are not.
        round: u32,
    },
}

/// A range in which this core made objects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Piece {
    range: Range<u64>,
    sequence: u32,
    /// The objects are being made.
    token: Option<u64>,
    /// A dead core made it; it goes when no core holds any of it.
    is_inherited: bool,
}

/// What a core that has to do with a region knows of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Held {
    /// Whom requests go to. It changes only when somebody says so; dead, it waits for that.
    owner: usize,
    /// Whose memory it is.
    home: usize,
    /// How many revokes the region had seen when the copy came.
    generation: u32,
    /// Whether there is a copy here.
    copy: bool,
    /// Copies that are being put into slots.
    inserting: u32,
    pieces: Vec<Piece>,
    /// A revoke is being prepared by this core.
    barred: Option<Barred>,
    /// The removal that is under way: whether the revoker's copy stays.
    removing: Option<bool>,
    commit: Option<Commit>,
    /// This core is home only because the one that was died.
    is_heir: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Barred {
    owner: usize,
    generation: u32,
    /// Something is under way here: the answer waits for its end.
    waits: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Commit {
    owner: usize,
    generation: u32,
    keep: bool,
}

impl Held {
    fn new(owner: usize, home: usize, generation: u32) -> Self {
        Self {
            owner,
            home,
            generation,
            copy: false,
            inserting: 0,
            pieces: Vec::new(),
            barred: None,
            removing: None,
            commit: None,
            is_heir: false,
        }
    }

    /// Whether the owner is to count this core among the holders.
    fn holds(&self) -> bool {
        let has = self.copy || !self.pieces.is_empty();
        // Until a removal has ended, no other copy may come: it would be removed as well.
        has || self.inserting > 0 || self.removing.is_some()
    }

    /// Whether the CPU driver has something under way with it.
    fn is_busy(&self) -> bool {
        self.inserting > 0 || self.pieces.iter().any(|piece| piece.token.is_some())
    }
}

/// An operation that this core began.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Operation {
    sequence: u32,
    token: Option<u64>,
    region: Region,
    request: Request,
    is_sent: bool,
    /// The copy that it was to use was revoked.
    is_revoked: bool,
    /// A drop that is none any more, because another copy came.
    is_void: bool,
}

/// A range that the owner granted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Granted {
    range: Range<u64>,
    maker: usize,
    sequence: u32,
    /// The one who made it died; `maker` is the heir, who may not know yet.
    is_bequest: bool,
}

/// What the owner knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Record {
    home: usize,
    /// The home died; `home` is the heir, who may not know yet.
    has_heir: bool,
    holders: CoreSet,
    generation: u32,
    ranges: Vec<Granted>,
    queue: VecDeque<(OpId, Request)>,
    current: Option<Current>,
    /// Who may not know yet that this core is the owner.
    unaware: CoreSet,
    /// The record is on its way here from this core, which is the owner until it released it.
    taking: Option<Taking>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Taking {
    from: usize,
    /// All knew, and the owner was told so.
    told: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Current {
    Send {
        id: OpId,
        terms: u128,
        to: usize,
        oldest: u32,
    },
    Revoke {
        /// Nobody: it is completed for a dead owner.
        id: Option<OpId>,
        revoker: usize,
        slot: u8,
        /// Some have removed it: it cannot be given up any more.
        is_committed: bool,
        is_preparing: bool,
        waiting: CoreSet,
    },
    Move {
        to: usize,
        answers: u32,
    },
    Gone,
}

/// A removal that this core did for an owner, until the owner must know that it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Note {
    owner: usize,
    slot: u8,
    region: Region,
    generation: u32,
    revoker: usize,
}

/// The offers that this core answered, until their initiator knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Answered {
    id: OpId,
    result: Result<(), Error>,
}

/// One monitor's part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Regions {
    own: usize,
    /// The view's.
    round: u32,
    cores: CoreSet,
    next_sequence: u32,
    operations: Vec<Operation>,
    held: BTreeMap<Region, Held>,
    records: BTreeMap<Region, Record>,
    /// Copies that are being put into slots.
    incoming: Vec<(OpId, Region)>,
    answered: Vec<Answered>,
    notes: Vec<Note>,
    /// Ranges of records that are on their way here.
    arriving: BTreeMap<Region, Vec<Granted>>,
    /// Who said [`Message::Claimed`]; `None` when the recovery is over, or another core's.
    claimed: Option<CoreSet>,
    claims: BTreeMap<Region, recovery::Claims>,
    /// The dead whose memory nobody has adopted, for all this core knows, and the round of a view
    /// that had them.
    missed: BTreeMap<usize, u32>,
    /// Whose memory this core has adopted: the same.
    adopted: BTreeMap<usize, u32>,
    /// What others say that they have adopted, until all have claimed.
    told: BTreeMap<usize, u32>,
    local: VecDeque<Message>,
    actions: Vec<Action>,
}

impl Regions {
    /// The part of core `own`.
    pub fn new(own: usize) -> Self {
        Self {
            own,
            round: 0,
            cores: CoreSet::default(),
            next_sequence: 1,
            operations: Vec::new(),
            held: BTreeMap::new(),
            records: BTreeMap::new(),
            incoming: Vec::new(),
            answered: Vec::new(),
            notes: Vec::new(),
            arriving: BTreeMap::new(),
            claimed: None,
            claims: BTreeMap::new(),
            missed: BTreeMap::new(),
            adopted: BTreeMap::new(),
            told: BTreeMap::new(),
            local: VecDeque::new(),
            actions: Vec::new(),
        }
    }

    /// A view holds from now on. What was on its way in the one before is lost.
    pub fn installed(&mut self, view: &View) -> Vec<Action> {
        self.install(view);
        self.finish()
    }

    /// A message came. Whatever it says, at whatever time, it makes sense or is left aside.
    pub fn on_message(&mut self, from: usize, message: &Message) -> Vec<Action> {
        if from != self.own && self.cores.contains(from) {
            self.handle(from, message.clone());
        }
        self.finish()
    }

    /// Before a region is sent for the first time: other cores are going to hold it, and these
    /// ranges of it are in use. Nothing happens if it is shared already. [`Error::Busy`]: the ranges
    /// are too many.
    pub fn share(&mut self, region: Region, ranges: &[Range<u64>]) -> Result<(), Error> {
        if self.held.contains_key(&region) {
            return Ok(());
        }
        if ranges.len() > RANGES {
            return Err(Error::Busy);
        }
        // Those who noted a revoke of the region when it was shared before must not take this for that.
        let generation = self.number();
        let mut held = Held::new(self.own, self.own, generation);
        held.copy = true;
        let mut record = Record::new(self.own, generation);
        record.holders.insert(self.own);
        for range in ranges {
            let sequence = self.number();
            let range = range.clone();
            held.pieces.push(Piece::new(range.clone(), sequence, None));
            record.ranges.push(Granted {
                range,
                maker: self.own,
                sequence,
                is_bequest: false,
            });
        }
        self.held.insert(region, held);
        self.records.insert(region, record);
        Ok(())
    }

    /// A copy of a shared region for another core.
    pub fn send(&mut self, token: u64, region: Region, terms: u128, to: usize) -> Vec<Action> {
        if to == self.own || !self.cores.contains(to) {
            return Vec::from([Action::Done {
                token,
                result: Err(Error::Refused),
            }]);
        }
        let oldest = 0; // Filled in where it is sent.
        self.begin(token, region, Request::Send { terms, to, oldest })
    }

    /// Objects are to be made in a range of a shared region: if nobody has made any there,
    /// [`Action::Retype`] follows.
    pub fn retype(&mut self, token: u64, region: Region, range: Range<u64>) -> Vec<Action> {
        if !region.contains(&range) {
            return Vec::from([Action::Done {
                token,
                result: Err(Error::Refused),
            }]);
        }
        self.begin(token, region, Request::Retype(range))
    }

    /// All objects that were made in this range are gone, on all cores.
    pub fn untype(&mut self, region: Region, range: &Range<u64>) -> Vec<Action> {
        self.drop_piece(region, |piece| {
            piece.token.is_none() && piece.range == *range
        });
        self.finish()
    }

    /// The last copy on this core was deleted.
    pub fn delete(&mut self, token: u64, region: Region) -> Vec<Action> {
        self.delete_copy(token, region);
        self.finish()
    }

    /// Nobody but this core is to hold a region that it holds, or that it is the home of. The right
    /// to do so is the caller's to check.
    pub fn revoke(&mut self, token: u64, region: Region) -> Vec<Action> {
        self.begin(token, region, Request::Revoke)
    }

    /// [`Action::Insert`] was carried out.
    pub fn inserted(&mut self, id: OpId, result: Result<(), Error>) -> Vec<Action> {
        self.insert_ended(id, result);
        self.finish()
    }

    /// [`Action::Retype`] was carried out; if it made nothing, the range is free again.
    pub fn retyped(&mut self, region: Region, sequence: u32, is_made: bool) -> Vec<Action> {
        self.retype_ended(region, sequence, is_made);
        self.finish()
    }

    /// [`Action::RemoveLocal`] was carried out.
    pub fn removed(&mut self, region: Region) -> Vec<Action> {
        self.removal_ended(region);
        self.finish()
    }

    /// Whether no copy may be made of the region here, nor a mapping: it is being revoked.
    pub fn is_barred(&self, region: Region) -> bool {
        let is_ours = |operation: &Operation| {
            operation.region == region && operation.request == Request::Revoke
        };
        self.held
            .get(&region)
            .is_some_and(|held| held.barred.is_some() || held.removing.is_some())
            || self.operations.iter().any(is_ours)
    }

    /// Whether this core has to do with a region that others know too.
    pub fn is_shared(&self, region: Region) -> bool {
        self.held.contains_key(&region)
    }

    /// Whether this core owns the region.
    pub fn is_owner(&self, region: Region) -> bool {
        let record = self.records.get(&region);
        record
            .is_some_and(|record| record.taking.is_none() && record.current != Some(Current::Gone))
    }

    /// The regions that this core owns.
    pub fn owned(&self) -> impl Iterator<Item = Region> + '_ {
        let regions = self.records.keys().copied();
        regions.filter(|region| self.is_owner(*region))
    }

    /// The regions made from this one that other cores may hold and that are this core's to revoke.
    pub fn homed_within(&self, region: Region) -> impl Iterator<Item = Region> + '_ {
        let homed = self.homed_in(region.range());
        homed.filter(move |inner| region.may_hold(inner))
    }

    /// The regions that other cores may hold, that are this core's to revoke, and that have something
    /// in common with this range.
    pub fn homed_in(&self, range: Range<u64>) -> impl Iterator<Item = Region> + '_ {
        let own = self.own;
        self.held
            .iter()
            .filter(move |(inner, held)| held.home == own && inner.meets(&range))
            .map(|(inner, _)| *inner)
    }

    /// Whether this core has to do with a region that has something in common with this range, or may
    /// come to be the home of one in this view: the recovery from the losses before has not ended.
    pub fn may_have(&self, range: &Range<u64>) -> bool {
        self.claimed.is_some() || self.held.keys().any(|one| one.meets(range))
    }

    /// The regions that this core counts as having a copy of, and that have something in common
    /// with this range.
    pub fn copies_in(&self, range: Range<u64>) -> impl Iterator<Item = Region> + '_ {
        self.held
            .iter()
            .filter(move |(one, held)| held.copy && held.removing.is_none() && one.meets(&range))
            .map(|(one, _)| *one)
    }

    /// The ranges in which this core has made objects, with what they are of, that have something in
    /// common with this one. Those that it got from a dead core are not among them.
    pub fn made_in(&self, range: Range<u64>) -> impl Iterator<Item = (Region, Range<u64>)> + '_ {
        let is_made = |piece: &&Piece| piece.token.is_none() && !piece.is_inherited;
        let held = self.held.iter().filter(|(_, held)| held.removing.is_none());
        let all = held.flat_map(move |(region, held)| {
            let pieces = held.pieces.iter().filter(is_made);
            pieces.map(|piece| (*region, piece.range.clone()))
        });
        all.filter(move |(_, piece)| piece.start < range.end && range.start < piece.end)
    }

    /// The cores that hold the region, as its owner knows; `None` at all others.
    pub fn holders(&self, region: Region) -> Option<&CoreSet> {
        let record = self.records.get(&region);
        record.map(|record| &record.holders)
    }

    /// Whose memory this core has adopted, as in [`Action::Adopt`].
    pub fn adopted(&self) -> impl Iterator<Item = (usize, u32)> + '_ {
        self.adopted.iter().map(|(core, round)| (*core, *round))
    }

    /// Operations of this core that have not ended.
    pub fn under_way(&self) -> usize {
        self.operations.len()
    }

    /// Carries out what the core had to tell itself, and hands over the actions.
    fn finish(&mut self) -> Vec<Action> {
        while let Some(message) = self.local.pop_front() {
            self.handle(self.own, message);
        }
        core::mem::take(&mut self.actions)
    }

    fn post(&mut self, to: usize, message: Message) {
        if to == self.own {
            self.local.push_back(message);
        } else if self.cores.contains(to) {
            self.actions.push(Action::Send(to, message));
        }
    }

    fn done(&mut self, token: Option<u64>, result: Result<(), Error>) {
        if let Some(token) = token {
            self.actions.push(Action::Done { token, result });
        }
    }

    fn number(&mut self) -> u32 {
        let sequence = self.next_sequence;
        self.next_sequence = sequence.wrapping_add(1).max(1);
        sequence
    }

    fn handle(&mut self, from: usize, message: Message) {
        match message {
            Message::Request {
                sequence,
                region,
                request,
            } => self.requested(from, sequence, region, request),
            Message::Answer {
                sequence,
                region,
                result,
            } => self.answered(sequence, region, result),
            Message::Moved { sequence, region } => self.moved(from, sequence, region),
            Message::Offer {
                id,
                region,
                terms,
                home,
                generation,
                oldest,
            } => {
                let held = Held::new(from, home, generation);
                self.offered(from, id, region, terms, &held, oldest);
            }
            Message::Offered {
                id,
                region,
                result,
                holds,
            } => self.offer_answered(from, id, region, result, holds),
            Message::Prepare { region, generation } => self.prepare(from, region, generation),
            Message::Prepared { region, generation } => self.prepared(from, region, generation),
            Message::Commit {
                region,
                generation,
                slot,
                revoker,
            } => {
                let note = Note {
                    owner: from,
                    slot,
                    region,
                    generation,
                    revoker,
                };
                self.commit(note);
            }
            Message::Committed {
                region,
                generation,
                holds,
            } => self.committed(from, region, generation, holds),
            Message::Typed {
                region,
                range,
                maker,
                sequence,
                is_bequest,
            } => self.range_arrives(
                region,
                Granted {
                    range,
                    maker,
                    sequence,
                    is_bequest,
                },
            ),
            Message::Handover {
                region,
                answers,
                home,
                has_heir,
                holders,
            } => {
                let mut record = Record::new(home, 0);
                (record.has_heir, record.holders) = (has_heir, holders);
                self.record_arrives(from, region, answers, record);
            }
            Message::Took { region } => self.record_taken(from, region),
            Message::Released { region } => self.record_released(from, region),
            Message::Owner { region, home } => self.owner_is(from, region, home),
            Message::Noted { region } => self.noted(from, region),
            Message::Gone { region } => self.gone(from, region),
            Message::Returned { region } => self.returned(from, region),
            Message::Redirect { region, owner } => self.redirected(from, region, owner),
            claim => self.claim_arrives(from, claim),
        }
    }
}

impl Piece {
    fn new(range: Range<u64>, sequence: u32, token: Option<u64>) -> Self {
        Self {
            range,
            sequence,
            token,
            is_inherited: false,
        }
    }
}

impl Record {
    fn new(home: usize, generation: u32) -> Self {
        Self {
            home,
            has_heir: false,
            holders: CoreSet::default(),
            generation,
            ranges: Vec::new(),
            queue: VecDeque::new(),
            current: None,
            unaware: CoreSet::default(),
            taking: None,
        }
    }
}
