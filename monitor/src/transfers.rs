//! Capabilities across cores, for domains: what the protocol of [`protocols::regions`] decides is
//! done here to slots.
//!
//! The monitor keeps no capabilities of its own to what domains send: what a slot holds is
//! asked when a request names it, and what this core has of a region is looked up in the CPU
//! driver's database. The CPU driver marks what other cores know. Of that, domains cannot delete the
//! last capability, nor revoke it, nor make anything of it: they have to ask here.
//!
//! # Why nothing survives a revoke
//!
//! Every capability to a region, and every one to what was made of it, is in the database of its
//! core. A core that holds any is known to the owner, and removes all that its database has of the
//! region, parents before children. Meanwhile:
//!
//! * From other cores a copy comes only by [`Monitor::insert_copy`], which the protocol does not ask
//!   for between the holder's `Prepared` and the end of its removal.
//! * Domains may copy and map what they hold until it is gone: each copy is in the database, and
//!   gone as well. They make none between two steps of a removal, for the monitor outranks all
//!   domains and does not block before the last step.
//! * Objects are made of a shared region by the monitor alone; the protocol has none under way when it
//!   asks for the removal, and the range of each is known until there is nothing in it.
//! * What was made of it and was sent on is a region of its own, with the core that made it as its
//!   home: it is revoked, on all cores, before the removal here begins; and it cannot be sent anew
//!   after that ([`Transfers::is_going`]).
//!
//! Memory that a domain gave back, or that it had when it ended, is taken from everybody on this core
//! at once. Regions in it that other cores may hold are revoked then, and nobody gets the memory before
//! the last is [gone](regions::Action::Gone). Memory of a core that was lost is not used again, until the
//! core starts anew: before, all regions in it are revoked ([`Monitor::serve_forgets`]).

mod work;

use crate::Monitor;
use crate::requests::Requester;
use abi::layout::PAGE;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use protocols::regions::{self, Action, OpId, Region};
use rt::authority;
use rt::capability::{self, Address, Identity, Kind, Object, Retype, Rights};
use rt::interface::{self, Error};
use rt::system_call::Error as CallError;

/// Most steps of removals in one turn of the monitor; each takes away some capabilities.
const STEPS: usize = 16;
/// Most operations of one domain that have not ended.
const MAX_OPERATIONS: usize = 8;
/// Most regions that this core keeps in mind for its domains: that it is the home of, and in all. The
/// monitor's heap must have room for them.
const MAX_HOMED: usize = 1024;
const MAX_COPIES: usize = 2048;
/// Most bytes of RAM that are sent as one: they are zeroed before.
const MAX_RAM_BYTES: u64 = 16 << 20;
/// How long to wait before a revoke is asked for again that the protocol was too busy for.
const RETRY_NS: u64 = 1_000_000;

/// What this monitor remembers of them.
#[derive(Default)]
pub struct Transfers {
    next_token: u64,
    operations: BTreeMap<u64, Operation>,
    /// Domains that wait for a capability.
    receivers: BTreeMap<u64, Receiver>,
    /// What the protocol decided, and is not done yet.
    actions: VecDeque<Action>,
    removals: VecDeque<Removal>,
    /// When to ask for revokes again.
    retry_ns: Option<u64>,
    /// Who gave RAM back that others hold a part of: its physical address.
    frees: Vec<(Requester, u64)>,
}

/// Where a capability is to go.
struct Receiver {
    requester: Requester,
    slot: Address,
}

/// What the protocol was asked to do.
enum Operation {
    Send {
        asker: Asker,
        to: usize,
    },
    Retype {
        asker: Asker,
        source: Address,
        what: Retype,
        destination: Address,
        /// What came of it: the CPU driver's answer.
        made: Option<Result<Result<bool, CallError>, Error>>,
    },
    Delete(Asker),
    Revoke {
        asker: Asker,
        slot: Address,
        region: Region,
    },
    /// Of a region whose memory is to be used anew, or of a part of one that is being removed.
    Reclaim(Region),
    /// Nobody waits for it.
    Leave,
}

/// Who asked for something.
#[derive(Clone, Copy)]
struct Asker {
    requester: Requester,
    domain: u64,
}

/// Everything of a region is being taken away here.
struct Removal {
    region: Region,
    /// But this capability of a domain.
    keep: Option<(u64, Address)>,
    then: Then,
}

/// What follows a removal.
enum Then {
    /// The protocol had asked for it.
    Protocol,
    /// A domain had asked for it, about what only this core has.
    Answer(Requester),
}

/// What goes with a copy: see [`Action::Insert`].
///
/// ```text
///  bits 0-31 receiver │ 32-63 sender │ 64-103 job │ 104 is it asked for │ 120-127 rights
/// ```
/// Of receiver and sender, the halves of their ids that are not their core.
struct Terms {
    receiver: u32,
    sender: u32,
    job: u64,
    rights: Rights,
    /// The doorbell of the sender, which the receiver asked for: it goes into the slot that it named
    /// then.
    is_asked_for: bool,
}

impl Terms {
    fn pack(&self) -> u128 {
        u128::from(self.receiver)
            | u128::from(self.sender) << 32
            | u128::from(self.job) << 64
            | u128::from(self.is_asked_for) << 104
            | u128::from(self.rights.bits()) << 120
    }

    fn unpack(word: u128) -> Self {
        Self {
            receiver: word as u32,
            sender: (word >> 32) as u32,
            job: (word >> 64) as u64 & ((1 << 40) - 1),
            rights: Rights::from_bits_truncate((word >> 120) as u8),
            is_asked_for: word >> 104 & 1 == 1,
        }
    }
}

fn object(region: Region) -> Object {
    let Region {
        kind,
        base,
        bytes,
        depth,
    } = region;
    Object {
        kind,
        base,
        bytes,
        depth,
    }
}

fn region(object: Object) -> Region {
    let Object {
        kind,
        base,
        bytes,
        depth,
    } = object;
    Region {
        kind,
        base,
        bytes,
        depth,
    }
}

/// Answers of the CPU driver are results, so that the program learns of them.
fn of_call(result: Result<u64, CallError>) -> [u64; 5] {
    match result {
        Ok(value) => [0, value, 0, 0, 0],
        Err(error) => [error as u64, 0, 0, 0, 0],
    }
}

/// What a domain learns of an operation that failed.
fn refusal(error: regions::Error) -> Error {
    match error {
        regions::Error::Busy => Error::Busy,
        regions::Error::Revoked | regions::Error::NoSuchRegion => Error::Revoked,
        regions::Error::NoSlot => Error::NotWaiting,
        regions::Error::NoReceiver => Error::NoSuchDomain,
        regions::Error::Overlap | regions::Error::Refused => Error::Refused,
    }
}

impl Transfers {
    fn number(&mut self, operation: Operation) -> u64 {
        self.next_token += 1;
        self.operations.insert(self.next_token, operation);
        self.next_token
    }

    fn check_room(&self, domain: u64) -> Result<(), Error> {
        let of_domain = |one: &&Operation| match one {
            Operation::Delete(asker)
            | Operation::Send { asker, .. }
            | Operation::Retype { asker, .. }
            | Operation::Revoke { asker, .. } => asker.domain == domain,
            Operation::Reclaim(_) | Operation::Leave => false,
        };
        let removals = self.removals.iter().filter(|one| {
            let of_domain = one.keep.is_some_and(|(keeper, _)| keeper == domain);
            of_domain && matches!(one.then, Then::Answer(_))
        });
        let operations = self.operations.values().filter(of_domain);
        if operations.count() + removals.count() >= MAX_OPERATIONS {
            return Err(Error::Busy);
        }
        Ok(())
    }

    /// Whether a region is being removed here, or a part of what is.
    fn is_going(&self, region: Region) -> bool {
        let mut removals = self.removals.iter().map(|one| one.region);
        removals.any(|one| {
            let is_inside = one.contains(&region.range());
            is_inside && (region.bytes < one.bytes || region.depth >= one.depth)
        })
    }

    /// When there is something to do, in nanoseconds.
    pub fn deadline_ns(&self) -> Option<u64> {
        self.retry_ns
    }
}

impl Monitor {
    /// Serves a request of a domain of this core.
    pub fn serve_regions(
        &mut self,
        requester: Requester,
        domain: u64,
        kind: u16,
        arguments: [u64; 6],
    ) -> Result<Option<[u64; 5]>, Error> {
        use interface::regions as request;
        let asker = Asker { requester, domain };
        let [a, b, c, d, e, _] = arguments;
        match kind {
            request::SEND => {
                let rights = u8::try_from(c).ok().and_then(Rights::from_bits);
                self.send_capability(asker, Address(a), b, rights.ok_or(Error::BadArgument)?)
            }
            request::RECEIVE => {
                if self.transfers.receivers.contains_key(&domain) {
                    return Err(Error::WaitsAlready);
                }
                let slot = Address(a);
                let found = self.identify(domain, slot);
                if found != Err(CallError::EmptySlot) {
                    return Err(Error::BadSlot);
                }
                let receiver = Receiver { requester, slot };
                self.transfers.receivers.insert(domain, receiver);
                Ok(None)
            }
            request::WITHDRAW => {
                if let Some(receiver) = self.transfers.receivers.remove(&domain) {
                    self.answer(receiver.requester, Err(Error::Withdrawn));
                }
                Ok(Some([0; 5]))
            }
            request::RETYPE => {
                let what = Retype {
                    kind: Kind::from_code(c & 0xff).ok_or(Error::BadArgument)?,
                    offset: d,
                    bytes: e,
                    count: c >> 8,
                };
                self.retype_shared(asker, Address(a), what, Address(b))
            }
            request::DELETE => self.delete_shared(asker, Address(a)),
            request::REVOKE => self.revoke_shared(asker, Address(a)),
            _ => Err(Error::NoSuchRequest),
        }
    }

    /// What is in a slot of a domain of this core.
    fn identify(&mut self, domain: u64, slot: Address) -> Result<Identity, CallError> {
        let domain = self.domains.by_id(domain).ok_or(CallError::NoSuchSlot)?;
        domain.body.identify(slot)
    }

    fn send_capability(
        &mut self,
        asker: Asker,
        slot: Address,
        to: u64,
        rights: Rights,
    ) -> Result<Option<[u64; 5]>, Error> {
        let found = self.identify(asker.domain, slot);
        let found = found.map_err(|_| Error::BadSlot)?;
        let travels = [Kind::Ram, Kind::Frame, Kind::DeviceFrame, Kind::Doorbell];
        if !travels.contains(&found.kind) || found.badge != 0 {
            return Err(Error::StaysHere);
        }
        if !found.rights.contains(rights | Rights::GRANT) {
            return Err(Error::NoRight);
        }
        if found.is_unclean {
            return Err(Error::Unclean);
        }
        let core = (to >> 32) as usize;
        if !self.view().cores.contains(core) {
            return Err(Error::NoSuchCore);
        }
        let what = region(found.object());
        self.check_stays(&what)?;
        let sender = self.domains.by_id(asker.domain);
        let job = sender.ok_or(Error::NoSuchDomain)?.job;
        let terms = Terms {
            receiver: to as u32,
            sender: asker.domain as u32,
            job,
            rights,
            is_asked_for: false,
        };
        if core == self.own {
            self.hand_locally(asker.domain, slot, &terms, found.kind)?;
            return Ok(Some([0; 5]));
        }
        self.transfers.check_room(asker.domain)?;
        self.share(asker.domain, slot, &found)?;
        self.begin_send(asker, what, &terms, core);
        Ok(None)
    }

    fn begin_send(&mut self, asker: Asker, what: Region, terms: &Terms, to: usize) {
        let token = self.transfers.number(Operation::Send { asker, to });
        self.with_regions(|one| one.send(token, what, terms.pack(), to));
    }

    /// Whether a region is not about to go from here.
    fn check_stays(&self, what: &Region) -> Result<(), Error> {
        let is_barred = self.transfers.is_going(*what) || self.agent.regions().is_barred(*what);
        if is_barred || self.is_forgotten(what) {
            return Err(Error::Revoked);
        }
        Ok(())
    }

    /// Sends the doorbell of a domain of this core to one of another that asked for it.
    pub fn send_doorbell(
        &mut self,
        requester: Requester,
        target: u64,
        receiver: u64,
        job: u64,
    ) -> Result<Option<[u64; 5]>, Error> {
        let domain = self.domains.by_id(target).filter(|one| one.job == job);
        let slot = domain.ok_or(Error::NoSuchDomain)?.body.doorbell();
        let found = capability::identify(slot).map_err(|_| Error::Refused)?;
        let what = region(found.object());
        self.check_stays(&what)?;
        self.transfers.check_room(receiver)?;
        self.share(target, slot, &found)?;
        let terms = Terms {
            receiver: receiver as u32,
            sender: target as u32,
            job,
            rights: Rights::WRITE,
            is_asked_for: true,
        };
        let asker = Asker {
            requester,
            domain: receiver,
        };
        self.begin_send(asker, what, &terms, (receiver >> 32) as usize);
        Ok(None)
    }

    /// Sees to it that the protocol knows what is in a slot of a domain.
    fn share(&mut self, domain: u64, slot: Address, found: &Identity) -> Result<(), Error> {
        let what = region(found.object());
        if self.agent.regions().is_shared(what) {
            return Ok(());
        }
        if authority::look_up(&found.object()).parts {
            return Err(Error::InParts);
        }
        if self.agent.regions().homed_in(0..u64::MAX).count() >= MAX_HOMED {
            return Err(Error::NoMemory);
        }
        if found.kind == Kind::Ram && !found.is_unreachable {
            // Others would find in it what its last user left.
            if found.bytes > MAX_RAM_BYTES {
                return Err(Error::TooMuchRam);
            }
            let domain = self.domains.by_id(domain).ok_or(Error::NoSuchDomain)?;
            self.store.wipe(&domain.body, slot, found.bytes)?;
        }
        authority::note_shared(&found.object(), true).map_err(|_| Error::BadSlot)?;
        let mut shared = Ok(());
        self.agent.with_regions(|one| {
            shared = one.share(what, &[]);
            Vec::new()
        });
        shared.map_err(refusal)?;
        self.store.lend_out(what.range());
        Ok(())
    }

    /// The domain that a capability is for, if it may have one from that job, and its slot.
    fn receiver(&mut self, terms: &Terms) -> Result<(u64, Address), regions::Error> {
        let id = (self.own as u64) << 32 | u64::from(terms.receiver);
        let domain = self.domains.by_id(id).filter(|one| one.job == terms.job);
        domain.ok_or(regions::Error::NoReceiver)?;
        let receiver = self.transfers.receivers.get(&id);
        Ok((id, receiver.ok_or(regions::Error::NoSlot)?.slot))
    }

    /// Tells a domain that waited that a capability came into its slot, or that none can.
    fn received(
        &mut self,
        receiver: u64,
        sender: u64,
        kind: Kind,
        rights: Rights,
        put: Result<(), CallError>,
    ) -> Result<(), regions::Error> {
        let is_bad_slot = matches!(put, Err(CallError::OccupiedSlot | CallError::NoSuchSlot));
        if put.is_err() && !is_bad_slot {
            return Err(regions::Error::Refused);
        }
        if let Some(one) = self.transfers.receivers.remove(&receiver) {
            let what = kind as u64 | u64::from(rights.bits()) << 8;
            let answer = match is_bad_slot {
                true => Err(Error::BadSlot),
                false => Ok(Some([sender, what, 0, 0, 0])),
            };
            self.answer(one.requester, answer);
        }
        match is_bad_slot {
            true => Err(regions::Error::NoSlot),
            false => Ok(()),
        }
    }

    /// From a domain of this core to another one.
    fn hand_locally(
        &mut self,
        sender: u64,
        slot: Address,
        terms: &Terms,
        kind: Kind,
    ) -> Result<(), Error> {
        let (receiver, destination) = self.receiver(terms).map_err(refusal)?;
        let (from, to) = self
            .domains
            .two(sender, receiver)
            .ok_or(Error::NoSuchDomain)?;
        let put = from.body.hand(slot, terms.rights, &to.body, destination);
        let done = self.received(receiver, sender, kind, terms.rights, put);
        done.map_err(refusal)
    }

    /// Puts what another core offers into the slot of the domain that it is for.
    fn insert_copy(&mut self, id: OpId, what: Region, terms: u128) {
        let terms = Terms::unpack(terms);
        let sender = (id.core as u64) << 32 | u64::from(terms.sender);
        let is_full = self.agent.regions().copies_in(0..u64::MAX).count() >= MAX_COPIES;
        let is_refused = is_full || self.is_forgotten(&what);
        let done = match (is_refused, terms.is_asked_for) {
            (true, _) => Err(regions::Error::Refused),
            (false, true) => self.insert_doorbell(sender, what, &terms),
            (false, false) => self.receiver(&terms).and_then(|(receiver, slot)| {
                let put = self.put(receiver, slot, what, terms.rights)?;
                self.received(receiver, sender, what.kind, terms.rights, put)
            }),
        };
        self.with_regions(|one| one.inserted(id, done));
    }

    /// Puts a copy of what another core has into a slot of a domain of this core.
    fn put(
        &mut self,
        receiver: u64,
        slot: Address,
        what: Region,
        rights: Rights,
    ) -> Result<Result<(), CallError>, regions::Error> {
        let domain = self.domains.by_id(receiver);
        let body = &domain.ok_or(regions::Error::NoReceiver)?.body;
        Ok(body.insert(slot, &object(what), rights))
    }

    /// Puts a domain's doorbell into the slot for which another one asked for it.
    fn insert_doorbell(
        &mut self,
        target: u64,
        what: Region,
        terms: &Terms,
    ) -> Result<(), regions::Error> {
        let receiver = (self.own as u64) << 32 | u64::from(terms.receiver);
        let asked = self.requests.doorbell_for(receiver, target);
        let slot = *asked.ok_or(regions::Error::NoSlot)?.0;
        let put = self.put(receiver, slot, what, terms.rights)?;
        if let Some((_, outcome)) = self.requests.doorbell_for(receiver, target) {
            *outcome = Some(put);
        }
        put.map_err(|_| regions::Error::NoSlot)
    }

    fn retype_shared(
        &mut self,
        asker: Asker,
        source: Address,
        what: Retype,
        destination: Address,
    ) -> Result<Option<[u64; 5]>, Error> {
        let found = match self.identify(asker.domain, source) {
            Ok(found) => found,
            Err(error) => return Ok(Some(of_call(Err(error)))),
        };
        let from = region(found.object());
        if self.transfers.is_going(from) {
            return Err(Error::Busy);
        }
        if !self.agent.regions().is_shared(from) {
            // Only what it is a part of is shared.
            let made = self.make(asker.domain, source, &what, destination);
            return made.map(|answer| Some(of_call(answer.map(u64::from))));
        }
        let bytes = what.bytes.checked_mul(what.count);
        let start = from.base.checked_add(what.offset);
        let range = start.zip(bytes).and_then(|(start, bytes)| {
            let range = start..start.checked_add(bytes)?;
            from.contains(&range).then_some(range)
        });
        let Some(range) = range else {
            return Ok(Some(of_call(Err(CallError::OutOfRange))));
        };
        self.transfers.check_room(asker.domain)?;
        let token = self.transfers.number(Operation::Retype {
            asker,
            source,
            what,
            destination,
            made: None,
        });
        self.with_regions(|one| one.retype(token, from, range));
        Ok(None)
    }

    /// Makes objects for a domain. What the CPU driver says is a result.
    fn make(
        &mut self,
        domain: u64,
        source: Address,
        what: &Retype,
        destination: Address,
    ) -> Result<Result<bool, CallError>, Error> {
        let domain = self.domains.by_id(domain).ok_or(Error::NoSuchDomain)?;
        let made = self
            .store
            .retype_for(&domain.body, source, what, destination);
        match made {
            Ok(is_unclean) => Ok(Ok(is_unclean)),
            Err(authority::Error::Refused(error)) => Ok(Err(error)),
            Err(error) => Err(error.into()),
        }
    }

    /// A range was granted: the objects are made, if the capability is where it was.
    fn make_granted(&mut self, token: u64, from: Region, sequence: u32) {
        let Some(Operation::Retype {
            asker,
            source,
            what,
            destination,
            ..
        }) = self.transfers.operations.get(&token)
        else {
            self.with_regions(|one| one.retyped(from, sequence, false));
            return;
        };
        let (domain, source, what, destination) = (asker.domain, *source, *what, *destination);
        let found = self.identify(domain, source);
        let result = match found {
            Ok(found) if region(found.object()) == from => {
                self.make(domain, source, &what, destination)
            }
            _ => Err(Error::Revoked),
        };
        let is_made = matches!(result, Ok(Ok(_)));
        if let Some(Operation::Retype { made, .. }) = self.transfers.operations.get_mut(&token) {
            *made = Some(result);
        }
        self.with_regions(|one| one.retyped(from, sequence, is_made));
    }

    fn delete_shared(&mut self, asker: Asker, slot: Address) -> Result<Option<[u64; 5]>, Error> {
        let domain = self.domains.by_id(asker.domain);
        let body = &domain.ok_or(Error::NoSuchDomain)?.body;
        let deleted = body.identify(slot).and_then(|found| {
            let was_last = body.delete(slot)?;
            Ok(was_last.then(|| region(found.object())))
        });
        let what = match deleted {
            Err(error) => return Ok(Some(of_call(Err(error)))),
            Ok(None) => return Ok(Some([0; 5])),
            Ok(Some(what)) => what,
        };
        let is_shared = self.agent.regions().is_shared(what);
        if is_shared {
            let token = self.transfers.number(Operation::Delete(asker));
            self.with_regions(|one| one.delete(token, what));
        }
        self.settle_parts(what.range());
        Ok((!is_shared).then_some([0; 5]))
    }

    fn revoke_shared(&mut self, asker: Asker, slot: Address) -> Result<Option<[u64; 5]>, Error> {
        let found = match self.identify(asker.domain, slot) {
            Ok(found) if found.rights.contains(Rights::REVOKE) => found,
            Ok(_) => return Ok(Some(of_call(Err(CallError::NotRevocable)))),
            Err(error) => return Ok(Some(of_call(Err(error)))),
        };
        let what = region(found.object());
        self.transfers.check_room(asker.domain)?;
        if found.badge == 0 && self.agent.regions().is_shared(what) {
            let token = self.transfers.number(Operation::Revoke {
                asker,
                slot,
                region: what,
            });
            self.with_regions(|one| one.revoke(token, what));
            return Ok(None);
        }
        if self.transfers.is_going(what) {
            return Err(Error::Busy);
        }
        // Only parts of it are shared, or it is a part itself. Copies with its badge are all here.
        self.transfers.removals.push_back(Removal {
            region: what,
            keep: Some((asker.domain, slot)),
            then: Then::Answer(asker.requester),
        });
        Ok(None)
    }

    /// Has the protocol do something.
    fn with_regions(&mut self, work: impl FnOnce(&mut regions::Regions) -> Vec<Action>) {
        let actions = self.agent.with_regions(work);
        self.carry_out(actions);
    }

    /// Notes what the protocol decided. It is done in its turn, when all that was decided with it was
    /// sent: what follows from it must not overtake that.
    pub fn on_regions(&mut self, action: Action) {
        self.transfers.actions.push_back(action);
    }

    /// Takes RAM of a domain back. The answer comes when no core has any of it.
    pub fn free_ram(
        &mut self,
        requester: Requester,
        domain: u64,
        base: u64,
    ) -> Result<Option<[u64; 5]>, Error> {
        self.take_ram(domain, base)?;
        if !self.store.is_late(&(base..base + PAGE)) {
            return Ok(Some([0; 5]));
        }
        self.transfers.frees.push((requester, base));
        Ok(None)
    }

    /// A domain of this core has ended.
    pub fn regions_end(&mut self, domain: u64) {
        self.transfers.receivers.remove(&domain);
    }
}
