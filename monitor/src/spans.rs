//! Domains that span cores: one *member* a core, each a domain of its own core, of one program. They
//! share a range of addresses and nothing else: what is private stays so, code is at equal addresses.
//!
//! The first member is the *root*, and its core the home of the space ([`protocols::spaces`]). Of the
//! range, every core has a part at which it maps memory, its own: so no two choose the same address,
//! and who has to be told that memory is free follows from where it was mapped. When the root ends,
//! all others are killed.
//!
//! ```text
//!  root        its monitor               monitor of the core
//!    │── JOIN ────►│── TEXT…, MEMBER ───────────►│ makes the domain
//!    │             │◄────────────────────── MADE │
//!    │             │   the space: Join {core}    │
//!    │◄─────────── │── GO ──────────────────────►│ starts it
//! ```
//!
//! A core's part in a space outlives its member: as long as memory of the core is mapped in the space,
//! its monitor is in the span, so whoever may be the home hears of that mapping. Then it leaves. When
//! the root has ended, each core unmaps what it mapped, and leaves.
//!
//! Protocol actions are carried out in order; what is to be said about them to the protocol waits
//! until all of them are (`settle_spans`): nothing that follows may overtake a message.

mod forgotten;
mod members;
mod pages;

use crate::Monitor;
use crate::requests::Requester;
use abi::layout::{PAGE, SPAN_PART_BYTES, USER_SPAN, USER_SPAN_END};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use protocols::spaces::{self, Action, Mapping, Pages, Rights, SpaceId, Spaces};
use rt::authority::SharedRam;
use rt::interface::{Error, spaces as interface};

/// Most spaces that a core has a part in.
const MAX_PARTS: usize = 8;
/// Most frames that a core has mapped in one space.
const MAX_MADE: usize = 256;
/// Number of the first page of the range, and pages of a core's part.
const FIRST: u64 = USER_SPAN / PAGE;
const PART_PAGES: u64 = SPAN_PART_BYTES / PAGE;

/// What this monitor remembers of spans.
#[derive(Default)]
pub struct Spans {
    /// The number of the next space that is made here.
    made: u32,
    parts: BTreeMap<SpaceId, Part>,
    /// By token.
    operations: BTreeMap<u64, Operation>,
    joins: BTreeMap<u64, members::Join>,
    next_token: u64,
    /// Text that came from the monitor of a core, for the member that follows it.
    texts: BTreeMap<usize, Vec<u8>>,
    /// Memory of other cores that is free: they do not know yet.
    freed: BTreeMap<(usize, SpaceId), Vec<Mapping>>,
    /// When they are told at the latest.
    freed_due_ns: Option<u64>,
    events: VecDeque<Event>,
    /// How many lists of actions are being carried out, one within another.
    depth: u32,
}

/// This core's part in a space.
struct Part {
    root: u64,
    member: Option<u64>,
    fault: Fault,
    /// A request of the member is under way.
    is_asked: bool,
    /// What was mapped from here, by first page.
    made: BTreeMap<u64, Made>,
    /// The root has ended.
    is_ending: bool,
    /// A member that is to begin when this part has come to an end.
    deferred: Option<members::Asked>,
}

impl Part {
    fn new(root: u64) -> Self {
        Self {
            root,
            member: None,
            fault: Fault::None,
            is_asked: false,
            made: BTreeMap::new(),
            is_ending: false,
            deferred: None,
        }
    }

    /// The lowest place with room for so many pages.
    fn gap(&self, own: Pages, count: u64) -> Option<u64> {
        let mut at = own.first;
        for (first, made) in &self.made {
            if first - at >= count {
                break;
            }
            at = first + made.ram.bytes() / PAGE;
        }
        (own.first + own.count - at >= count).then_some(at)
    }

    /// The frame that a page is of, and its first page.
    fn made_at(&mut self, page: u64) -> Option<(u64, &mut Made)> {
        let (first, made) = self.made.range_mut(..=page).next_back()?;
        (page < first + made.ram.bytes() / PAGE).then_some((*first, made))
    }
}

/// What a member has met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    UnderWay,
    /// It is the end of it.
    Fatal,
}

/// Memory of this core that is mapped in a space.
struct Made {
    ram: SharedRam,
    /// Pages of it that are mapped still.
    left: u64,
}

/// An operation of the protocol under way.
struct Operation {
    space: SpaceId,
    purpose: Purpose,
}

enum Purpose {
    /// To answer with this address.
    Map {
        requester: Requester,
        first: u64,
    },
    Restrict(Requester),
    Join(u64),
    Fault {
        domain: u64,
        page: u64,
        access: Rights,
    },
    /// Of all that was mapped from here, at the end.
    Clear,
    Leave,
    /// Of all that a core had mapped which is to start anew.
    Forget(usize),
}

/// What is left to say or do when all actions are carried out.
enum Event {
    Unmapped(u64),
    Done(u64, Result<(), spaces::Error>),
    /// A part may have come to its end.
    Step(SpaceId),
    /// There may be replicas without a part.
    Orphans,
}

/// Of the numbers of spaces, a life of a core begins at its own number times this, so that none is
/// that of a space of a life before.
const SPACES_OF_LIFE: u32 = 1 << 16;

impl Spans {
    /// None yet, in this life of the core: see [`abi::startup::Startup::life`].
    pub fn new(life: u32) -> Self {
        Self {
            made: life.wrapping_mul(SPACES_OF_LIFE),
            ..Self::default()
        }
    }

    /// Actions are about to be carried out; [`Monitor::settle_spans`] follows.
    pub fn begin(&mut self) {
        self.depth += 1;
    }

    /// Whether operations of a space are under way. They may be of a part that was there before this.
    fn is_at_work(&self, space: SpaceId) -> bool {
        self.operations.values().any(|one| one.space == space)
    }

    /// When memory that is free has to be told of.
    pub fn deadline_ns(&self) -> Option<u64> {
        self.freed_due_ns
    }

    fn space_of(&self, domain: u64) -> Result<SpaceId, Error> {
        let mut parts = self.parts.iter();
        let found = parts.find(|(_, part)| part.member == Some(domain));
        found.map(|(space, _)| *space).ok_or(Error::NotSpanned)
    }

    /// The part of a domain that asks for something, if nothing else is under way for it.
    fn asked_by(&mut self, domain: u64) -> Result<(SpaceId, &mut Part), Error> {
        let space = self.space_of(domain)?;
        let part = self.parts.get_mut(&space).ok_or(Error::NotSpanned)?;
        if part.is_asked {
            return Err(Error::Busy);
        }
        Ok((space, part))
    }

    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }
}

/// What a domain is told of an error of the protocol.
fn told(error: spaces::Error) -> Error {
    match error {
        spaces::Error::NoSuchSpace => Error::SpanEnded,
        spaces::Error::NotMember => Error::NotSpanned,
        spaces::Error::Exists => Error::Refused,
        spaces::Error::NotMapped => Error::NotMapped,
        spaces::Error::NotAllowed => Error::NotAllowed,
        spaces::Error::Busy => Error::Busy,
        spaces::Error::Lost => Error::CoreLost,
        spaces::Error::NoSuchCore => Error::NoSuchCore,
        spaces::Error::Full => Error::TooManyMappings,
        spaces::Error::Invalid => Error::BadArgument,
    }
}

/// The pages of a range of addresses within all that is shared.
fn pages(address: u64, bytes: u64) -> Result<Pages, Error> {
    let end = address.checked_add(bytes).ok_or(Error::BadArgument)?;
    let is_whole = (address | bytes).is_multiple_of(PAGE) && bytes > 0;
    if !is_whole || address < USER_SPAN || end > USER_SPAN_END {
        return Err(Error::BadArgument);
    }
    Ok(Pages {
        first: address / PAGE,
        count: bytes / PAGE,
    })
}

/// A core's part of the range.
fn pages_of(core: usize) -> Pages {
    Pages {
        first: FIRST + core as u64 * PART_PAGES,
        count: PART_PAGES,
    }
}

fn both() -> Rights {
    Rights::READ.and(Rights::WRITE)
}

impl Monitor {
    /// Serves a request of a domain of this core.
    pub fn serve_spaces(
        &mut self,
        requester: Requester,
        domain: u64,
        kind: u16,
        arguments: [u64; 6],
    ) -> Result<Option<[u64; 5]>, Error> {
        let [a, b, c, ..] = arguments;
        match kind {
            interface::BEGIN => self.begin_span(domain).map(|()| Some([0; 5])),
            interface::JOIN => self.begin_join(requester, domain, arguments),
            interface::MAP => self.begin_map(requester, domain, a),
            interface::UNMAP => self.begin_restrict(requester, domain, pages(a, b)?, Rights::NONE),
            interface::PROTECT => {
                let rights = match c {
                    0 => Rights::READ,
                    1 => both(),
                    _ => return Err(Error::BadArgument),
                };
                self.begin_restrict(requester, domain, pages(a, b)?, rights)
            }
            interface::LEAVE => self.leave_span(domain).map(|()| Some([0; 5])),
            _ => Err(Error::NoSuchRequest),
        }
    }

    fn begin_map(
        &mut self,
        requester: Requester,
        domain: u64,
        bytes: u64,
    ) -> Result<Option<[u64; 5]>, Error> {
        let own = self.own_pages();
        let (space, part) = self.spans.asked_by(domain)?;
        if bytes == 0 || !bytes.is_multiple_of(PAGE) {
            return Err(Error::BadArgument);
        }
        if part.made.len() >= MAX_MADE {
            return Err(Error::TooManyMappings);
        }
        let count = bytes / PAGE;
        let first = part.gap(own, count).ok_or(Error::NoMemory)?;
        let ram = self.store.shared_frame(count)?;
        let mapping = Mapping {
            pages: Pages { first, count },
            frame: ram.base() / PAGE,
            rights: both(),
        };
        part.is_asked = true;
        part.made.insert(first, Made { ram, left: count });
        let purpose = Purpose::Map { requester, first };
        self.operate(space, purpose, |one, token| one.map(token, space, mapping));
        Ok(None)
    }

    fn begin_restrict(
        &mut self,
        requester: Requester,
        domain: u64,
        pages: Pages,
        rights: Rights,
    ) -> Result<Option<[u64; 5]>, Error> {
        let (space, part) = self.spans.asked_by(domain)?;
        part.is_asked = true;
        let purpose = Purpose::Restrict(requester);
        self.operate(space, purpose, |one, token| match rights {
            Rights::NONE => one.unmap(token, space, pages),
            rights => one.protect(token, space, pages, rights),
        });
        Ok(None)
    }

    /// Begins an operation of the protocol.
    fn operate(
        &mut self,
        space: SpaceId,
        purpose: Purpose,
        work: impl FnOnce(&mut Spaces, u64) -> Vec<Action>,
    ) {
        let token = self.spans.token();
        let operation = Operation { space, purpose };
        self.spans.operations.insert(token, operation);
        let actions = self.agent.with_spaces(|one| work(one, token));
        self.carry_out(actions);
    }

    /// Does what the protocol decided.
    pub fn on_spaces(&mut self, action: Action) {
        match action {
            Action::Send(to, message) => self.log(&alloc::format!(
                "a message to core {to} that the agent should have sent: {message:?}"
            )),
            Action::Map { space, mapping } => self.enter_granted(space, mapping),
            Action::Unmap {
                work,
                space,
                pages,
                rights,
            } => {
                self.end_user_of_forgotten(space, pages, rights);
                self.restrict_here(space, pages, rights);
                self.spans.events.push_back(Event::Unmapped(work));
            }
            Action::Freed { space, mapping } => self.on_freed(space, mapping),
            Action::Done { token, result } => {
                self.spans.events.push_back(Event::Done(token, result));
            }
        }
    }

    /// All actions of a list are carried out: goes on with what came of them, unless the list is
    /// part of another one.
    pub fn settle_spans(&mut self) {
        self.spans.depth -= 1;
        while self.spans.depth == 0
            && let Some(event) = self.spans.events.pop_front()
        {
            self.spans.begin();
            match event {
                Event::Unmapped(work) => {
                    let actions = self.agent.with_spaces(|one| one.unmapped(work));
                    self.carry_out(actions);
                }
                Event::Done(token, result) => self.operation_done(token, result),
                Event::Step(space) => self.step(space),
                Event::Orphans => self.adopt_orphans(),
            }
            self.spans.depth -= 1;
        }
    }

    /// Something happens when all actions are carried out.
    fn when_settled(&mut self, event: Event) {
        self.spans.events.push_back(event);
        self.spans.begin();
        self.settle_spans();
    }

    fn operation_done(&mut self, token: u64, result: Result<(), spaces::Error>) {
        let Some(Operation { space, purpose }) = self.spans.operations.remove(&token) else {
            return;
        };
        match purpose {
            Purpose::Map { requester, first } => {
                let answer = result.map(|()| [first * PAGE, 0, 0, 0, 0]);
                if result.is_err()
                    && let Some(part) = self.spans.parts.get_mut(&space)
                    && let Some(made) = part.made.remove(&first)
                {
                    self.store.release_frame(made.ram);
                }
                self.answer_member(space, requester, answer.map_err(told));
            }
            Purpose::Restrict(requester) => {
                let answer = result.map(|()| [0; 5]).map_err(told);
                self.answer_member(space, requester, answer);
            }
            Purpose::Join(number) => self.joined(number, result.map_err(told)),
            Purpose::Fault {
                domain,
                page,
                access,
            } => self.page_came(space, domain, page, access, result),
            Purpose::Clear => {
                if result != Err(spaces::Error::Busy)
                    && let Some(part) = self.spans.parts.get_mut(&space)
                {
                    // Nobody has any of it, or nobody is left.
                    for (_, made) in core::mem::take(&mut part.made) {
                        self.store.release_frame(made.ram);
                    }
                }
            }
            Purpose::Leave => {
                if result != Err(spaces::Error::Busy)
                    && let Some(part) = self.spans.parts.remove(&space)
                {
                    self.part_over(part);
                }
            }
            Purpose::Forget(core) => self.space_forgotten(core, space, result),
        }
        if result == Err(spaces::Error::Busy) {
            return;
        }
        // The window of the protocol has room again, for others too.
        let waiting = self.spans.parts.iter();
        let waiting = waiting.filter(|(_, part)| part.member.is_none());
        let waiting: Vec<SpaceId> = waiting.map(|(space, _)| *space).collect();
        let steps = waiting.into_iter().map(Event::Step);
        self.spans.events.extend(steps);
    }

    /// Answers a request of a member.
    fn answer_member(
        &mut self,
        space: SpaceId,
        requester: Requester,
        answer: Result<[u64; 5], Error>,
    ) {
        if let Requester::Domain(domain, _) = requester
            && let Some(part) = self.spans.parts.get_mut(&space)
            && part.member == Some(domain)
        {
            part.is_asked = false;
        }
        self.answer(requester, answer.map(Some));
    }

    /// This core's part of the range.
    fn own_pages(&self) -> Pages {
        pages_of(self.own)
    }
}
