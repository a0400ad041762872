//! How members begin and end.

use super::{Event, Fault, MAX_PARTS, Part, Purpose, pages};
use crate::Monitor;
use crate::domains::{self, Spawn};
use crate::requests::{Requester, add_text, value};
use abi::layout::{USER_SPAN, USER_SPAN_END};
use alloc::vec::Vec;
use protocols::core_set::CoreSet;
use protocols::kinds;
use protocols::spaces::{Pages, Rights, SpaceId};
use rt::authority::Paged;
use rt::interface::Error;
use urpc::Message;

/// Makes a member, of the text before: number, space, root, bytes of name and arguments, function, its
/// argument, job.
const MEMBER: u16 = kinds::kind(&kinds::SPANS, 0);
/// A piece of that text.
const TEXT: u16 = kinds::kind(&kinds::SPANS, 1);
/// The answer: number, error, the domain.
const MADE: u16 = kinds::kind(&kinds::SPANS, 2);
/// It is in the span, and may begin: space, domain, root.
const GO: u16 = kinds::kind(&kinds::SPANS, 3);
/// The root has ended, or the member is not wanted: space, root.
const END: u16 = kinds::kind(&kinds::SPANS, 4);

/// The numbers of spaces that their core chooses from, in turn.
const NUMBERS: u32 = 1 << 24;

/// A member that is about to be.
pub(super) struct Join {
    requester: Requester,
    space: SpaceId,
    root: u64,
    core: usize,
    child: Option<u64>,
}

/// What [`MEMBER`] asks for.
pub(super) struct Asked {
    from: usize,
    words: [u64; 7],
    text: Vec<u8>,
}

impl Monitor {
    pub(super) fn begin_span(&mut self, domain: u64) -> Result<(), Error> {
        if self.spans.space_of(domain).is_ok() {
            return Err(Error::AlreadySpanned);
        }
        if self.spans.parts.len() >= MAX_PARTS {
            return Err(Error::TooManySpans);
        }
        let root = self.domains.by_id(domain).ok_or(Error::NoSuchDomain)?;
        root.body.set_paged(Paged::Span, USER_SPAN..USER_SPAN_END)?;
        let space = SpaceId::new(self.own, self.spans.made % NUMBERS);
        self.spans.made = self.spans.made.wrapping_add(1);
        let mut created = Ok(());
        self.agent.with_spaces(|one| {
            created = one.create(space);
            Vec::new()
        });
        created.map_err(super::told)?;
        let mut part = Part::new(domain);
        part.member = Some(domain);
        self.spans.parts.insert(space, part);
        Ok(())
    }

    pub(super) fn begin_join(
        &mut self,
        requester: Requester,
        domain: u64,
        arguments: [u64; 6],
    ) -> Result<Option<[u64; 5]>, Error> {
        let [core, function, argument, sizes, ..] = arguments;
        let core = usize::try_from(core).unwrap_or(usize::MAX);
        let Requester::Domain(_, token) = requester else {
            return Err(Error::NoSuchRequest);
        };
        let text = self.text_of(domain, token)?;
        let (space, part) = self.spans.asked_by(domain)?;
        if part.root != domain {
            return Err(Error::NotAllowed);
        }
        if core == self.own {
            return Err(Error::AlreadySpanned);
        }
        if !self.view().cores.contains(core) {
            return Err(Error::NoSuchCore);
        }
        let coming = self.requests.spawns_of(domain);
        self.family.prepare(domain, coming, 0)?;
        let mut text = domains::split(text, sizes)?;
        let root = self.domains.by_id(domain).ok_or(Error::NoSuchDomain)?;
        text.environment.clone_from(&root.environment);
        let (job, bytes) = (root.job, text.arguments.len() as u64);
        if text.arguments.len() + text.environment.len() > abi::limits::ARGUMENT_BYTES {
            return Err(Error::TooLong);
        }
        let number = self.spans.token();
        let join = Join {
            requester,
            space,
            root: domain,
            core,
            child: None,
        };
        self.spans.joins.insert(number, join);
        if let Some(part) = self.spans.parts.get_mut(&space) {
            part.is_asked = true;
        }
        self.send_text(core, TEXT, &text);
        let words = [number, space.word(), domain, bytes, function, argument, job];
        self.tell(core, MEMBER, words);
        Ok(None)
    }

    fn tell(&mut self, core: usize, kind: u16, words: [u64; 7]) {
        let message = Message::new(kind, words);
        self.mesh.send(&mut self.store, core, &message);
    }

    /// Takes a message of another monitor if it is about spans.
    pub fn on_span_message(&mut self, from: usize, message: &Message) -> bool {
        let words = message.payload;
        let space = SpaceId::from_word(words[0]);
        match message.kind() {
            TEXT => add_text(self.spans.texts.entry(from).or_default(), message),
            MEMBER => {
                let text = self.spans.texts.remove(&from).unwrap_or_default();
                self.member_asked(Asked { from, words, text });
            }
            MADE => {
                let [number, error, child, ..] = words;
                self.member_made(number, Error::from_code(error).map_or(Ok(child), Err));
            }
            GO => self.member_goes(space, words[1], words[2]),
            END => self.span_ended(space, words[1]),
            pages::FREED => self.freed_by_home(&words),
            _ => return false,
        }
        true
    }

    /// Makes a member for the root on another core, or tells why not; later, if this core is about to
    /// leave that space.
    pub(super) fn member_asked(&mut self, asked: Asked) {
        let [number, space, root, ..] = asked.words;
        let (from, space) = (asked.from, SpaceId::from_word(space));
        let is_full = self.spans.parts.len() >= MAX_PARTS;
        let is_at_work = self.spans.is_at_work(space);
        let place = match self.spans.parts.get_mut(&space) {
            Some(part) if part.is_ending => Err(Error::SpanEnded),
            Some(part) if part.member.is_some() => Err(Error::AlreadySpanned),
            Some(part) if is_at_work => {
                part.deferred = Some(asked);
                return;
            }
            Some(_) => Ok(()),
            None if is_full => Err(Error::TooManySpans),
            None => {
                self.spans.parts.insert(space, Part::new(root));
                Ok(())
            }
        };
        let made = place.and_then(|()| self.make_member(space, asked));
        let (error, child) = match made {
            Ok(child) => (0, child),
            Err(error) => (error as u64, 0),
        };
        self.tell(from, MADE, [number, error, child, 0, 0, 0, 0]);
        self.when_settled(Event::Step(space));
    }

    fn make_member(&mut self, space: SpaceId, asked: Asked) -> Result<u64, Error> {
        let [_, _, root, bytes, function, argument, job] = asked.words;
        let spawn = Spawn {
            text: domains::split(asked.text, bytes)?,
            frame: None,
            parent: root,
            job: Some(job),
            gift: None,
            traced: None,
            member: Some((function, argument)),
        };
        let id = self.spawn(&spawn)?;
        if let Some(part) = self.spans.parts.get_mut(&space) {
            part.member = Some(id);
            (part.fault, part.is_asked) = (Fault::None, false);
        }
        Ok(id)
    }

    /// Whether the root that a join is for is there still.
    fn is_wanted(&self, join: &Join) -> bool {
        let part = self.spans.parts.get(&join.space);
        part.is_some_and(|part| part.member == Some(join.root))
    }

    /// A member was made, or not.
    fn member_made(&mut self, number: u64, made: Result<u64, Error>) {
        let Some(mut join) = self.spans.joins.remove(&number) else {
            return;
        };
        let child = match made {
            Ok(child) => child,
            Err(error) => return self.answer_member(join.space, join.requester, Err(error)),
        };
        if !self.is_wanted(&join) {
            return self.tell(
                join.core,
                END,
                [join.space.word(), join.root, 0, 0, 0, 0, 0],
            );
        }
        self.adopt(child, join.root, None);
        join.child = Some(child);
        let (space, core) = (join.space, join.core);
        self.spans.joins.insert(number, join);
        self.operate(space, Purpose::Join(number), |one, token| {
            one.join(token, space, core)
        });
    }

    /// The space has a core's member in its span, or not.
    pub(super) fn joined(&mut self, number: u64, result: Result<(), Error>) {
        let Some(join) = self.spans.joins.remove(&number) else {
            return;
        };
        let (space, child) = (join.space, join.child.unwrap_or_default());
        let is_wanted = self.is_wanted(&join);
        if result.is_ok() && is_wanted {
            self.tell(join.core, GO, [space.word(), child, join.root, 0, 0, 0, 0]);
        } else {
            self.disown(child);
            self.tell(join.core, END, [space.word(), join.root, 0, 0, 0, 0, 0]);
        }
        let answer = result.and_then(|()| value(child));
        self.answer_member(space, join.requester, answer);
    }

    /// A member of this core is in its span.
    fn member_goes(&mut self, space: SpaceId, child: u64, root: u64) {
        if let Some(part) = self.spans.parts.get(&space) {
            if part.member == Some(child)
                && let Some(domain) = self.domains.by_id(child)
            {
                // It was made here, with all that it takes.
                let _ = domain.body.start();
            }
            return;
        }
        // It was killed before; then this core has nothing to do there.
        self.spans.parts.insert(space, Part::new(root));
        self.when_settled(Event::Step(space));
    }

    /// The root of a space has ended.
    fn span_ended(&mut self, space: SpaceId, root: u64) {
        let part = self.spans.parts.get_mut(&space);
        let Some(part) = part.filter(|part| part.root == root) else {
            return;
        };
        part.is_ending = true;
        if let Some(member) = part.member {
            // It is of this core, so it is found.
            let _ = self.kill(member);
        }
        self.when_settled(Event::Step(space));
    }

    /// A member, not the root, goes on without the span.
    pub(super) fn leave_span(&mut self, id: u64) -> Result<(), Error> {
        let (space, part) = self.spans.asked_by(id)?;
        if part.root == id {
            return Err(Error::NotAllowed);
        }
        let domain = self.domains.by_id(id).ok_or(Error::NoSuchDomain)?;
        domain.body.set_paged(Paged::Span, 0..0)?;
        self.restrict_here(space, Pages::ALL, Rights::NONE);
        self.part_empty(space);
        Ok(())
    }

    /// A domain of this core has ended.
    pub fn spaces_end(&mut self, id: u64) {
        let Ok(space) = self.spans.space_of(id) else {
            return;
        };
        let is_root = self.spans.parts.get(&space).map(|part| part.root) == Some(id);
        if is_root {
            let span = self.agent.spaces().span(space).cloned();
            for core in span.iter().flat_map(CoreSet::iter) {
                if core != self.own {
                    self.tell(core, END, [space.word(), id, 0, 0, 0, 0, 0]);
                }
            }
        }
        if let Some(part) = self.spans.parts.get_mut(&space) {
            part.is_ending |= is_root;
        }
        self.part_empty(space);
    }

    /// A part has no member any more.
    fn part_empty(&mut self, space: SpaceId) {
        if let Some(part) = self.spans.parts.get_mut(&space) {
            part.member = None;
            (part.fault, part.is_asked) = (Fault::None, false);
        }
        self.when_settled(Event::Step(space));
    }

    /// A core was lost: roots there are no more, and what it was asked for does not come.
    pub fn spans_lost_with(&mut self, core: usize) {
        self.spans.texts.remove(&core);
        self.spans.freed.retain(|(maker, _), _| *maker != core);
        let joins = self.spans.joins.iter();
        let lost = joins.filter(|(_, join)| join.core == core && join.child.is_none());
        let lost: Vec<u64> = lost.map(|(number, _)| *number).collect();
        for number in lost {
            self.member_made(number, Err(Error::CoreLost));
        }
        let parts = self.spans.parts.iter();
        let ended = parts.filter(|(_, part)| (part.root >> 32) as usize == core);
        let ended: Vec<(SpaceId, u64)> = ended.map(|(space, part)| (*space, part.root)).collect();
        for (space, root) in ended {
            self.span_ended(space, root);
        }
        self.when_settled(Event::Orphans);
    }

    /// Replicas whose member was killed before it began, and whose root was lost before it said so.
    pub(super) fn adopt_orphans(&mut self) {
        let replicas: Vec<SpaceId> = self.agent.spaces().replicas().collect();
        for space in replicas {
            self.spans
                .parts
                .entry(space)
                .or_insert_with(|| Part::new(0));
            self.when_settled(Event::Step(space));
        }
    }

    /// Goes on with a part that has no member: clears away what was mapped from here, if the span has
    /// ended, and leaves once there is nothing.
    pub(super) fn step(&mut self, space: SpaceId) {
        let own = self.own_pages();
        let is_at_work = self.spans.is_at_work(space);
        let Some(part) = self.spans.parts.get_mut(&space) else {
            return;
        };
        if part.member.is_some() || is_at_work {
            return;
        }
        if let Some(asked) = part.deferred.take() {
            self.member_asked(asked);
        } else if part.made.is_empty() {
            self.operate(space, Purpose::Leave, |one, token| one.leave(token, space));
        } else if part.is_ending {
            self.operate(space, Purpose::Clear, |one, token| {
                one.unmap(token, space, own)
            });
        }
    }

    /// A part is over.
    pub(super) fn part_over(&mut self, part: Part) {
        if let Some(asked) = part.deferred {
            self.member_asked(asked);
        }
    }
}
