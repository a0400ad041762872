//! What one core does beside its agent: programs that use pages, and its page tables and TLB.

use super::{PAGES, SPACES, space};
use crate::agents::{Hands, Life, Load, Tamper};
use crate::script::{Agenda, Begun, Due, Measured, begins, ends};
use crate::tape::Mark;
use protocols::agent::{Action, Agent};
use protocols::spaces::{self, Error, Mapping, Pages, Rights, SpaceId, Spaces};
use protocols::view::View;
use rt::interface::spaces as requests;
use std::collections::BTreeMap;

/// All that a page is mapped with.
pub(super) const ALL: Rights = Rights::READ;

/// The first frame that an operation maps: no other maps the same.
pub(super) fn frame((core, life): Life, token: u64) -> u64 {
    ((core as u64) << 24 | u64::from(life) << 16 | token) << 4
}

/// The kind of a touch in recordings: a page fault is no request.
pub const TOUCH: u16 = requests::REQUESTS.end - 1;

/// What a program does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Op {
    /// Maps pages.
    Map(SpaceId, Pages),
    /// Unmaps pages.
    Unmap(SpaceId, Pages),
    /// Sets the rights of pages.
    Protect(SpaceId, Pages, Rights),
    /// Reads a page.
    Touch(SpaceId, u64),
    /// Takes a core into the span.
    Join(SpaceId, usize),
    /// Takes its own core out of the span.
    Leave(SpaceId),
    /// The end of what is measured.
    #[default]
    Nothing,
}

/// What a core tells.
#[derive(Clone, Debug, Hash)]
pub enum Note {
    /// A program begins something.
    Begun(Begun<Op>),
    /// It ended.
    Done {
        /// Its number.
        token: u64,
        /// How.
        result: Result<(), Error>,
    },
    /// The core's tables have a page with this frame and these rights, or do not have it any more.
    Has(SpaceId, u64, Option<(u64, Rights)>),
    /// The core says, as a home, that these pages, from this frame on, are free.
    Freed(SpaceId, Pages, u64),
    /// The core holds this view from now on.
    Installed(View),
    /// What the core's agent knows from now on.
    Knows(Knowledge),
}

/// What an agent knows of spaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Knowledge {
    /// The homes of all spaces that have a replica here.
    pub homes: Vec<(SpaceId, usize)>,
    /// Of the spaces whose home is here, what is mapped: page, frame and rights.
    pub mapped: Vec<(SpaceId, u64, u64, Rights)>,
    /// Spaces whose home is here, and does not know all.
    pub recovering: Vec<SpaceId>,
}

impl Knowledge {
    fn of(spaces: &Spaces) -> Self {
        let homes = spaces.replicas();
        let homes = homes.filter_map(|space| Some((space, spaces.home(space)?)));
        let pages = |space| (0..PAGES).map(move |page| (space, page));
        let mapped = spaces.homes().flat_map(pages).filter_map(|(space, page)| {
            let found = spaces.mapped(space, page)?;
            let frame = found.frame + (page - found.pages.first);
            Some((space, page, frame, found.rights))
        });
        let recovering = spaces.homes().filter(|space| spaces.is_recovering(*space));
        Self {
            homes: homes.collect(),
            mapped: mapped.collect(),
            recovering: recovering.collect(),
        }
    }
}

/// Pages to be unmapped, which takes time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unmap {
    work: u64,
    space: SpaceId,
    pages: Pages,
    rights: Rights,
}

/// One core's programs, tables and TLB.
#[derive(Debug)]
pub struct Tables {
    agenda: Agenda<Op, Unmap>,
    table: BTreeMap<(SpaceId, u64), (u64, Rights)>,
    hurries: bool,
    known: Knowledge,
}

impl Tables {
    pub(super) fn new(agenda: Agenda<Op, Unmap>, tamper: Option<Tamper>) -> Self {
        Self {
            agenda,
            table: BTreeMap::new(),
            hurries: tamper == Some(Tamper::Hurries),
            known: Knowledge::default(),
        }
    }

    fn ask(
        &mut self,
        hands: &mut Hands<'_, Note>,
        work: impl FnOnce(&mut Spaces) -> Vec<spaces::Action>,
    ) {
        let actions = hands.agent.with_spaces(work);
        self.take(actions, hands);
    }

    /// Some space that is known here, if any is.
    fn some_space(&mut self, hands: &Hands<'_, Note>) -> SpaceId {
        let mut known = Vec::new();
        for core in hands.agent.view().cores.iter() {
            let spaces = (0..4).flat_map(|life| (0..SPACES).map(move |number| (life, number)));
            let spaces = spaces.map(|(life, number)| space((core, life), number));
            known.extend(spaces.filter(|space| hands.agent.spaces().home(*space).is_some()));
        }
        match known.is_empty() {
            true => space(self.agenda.life, 0),
            false => self.agenda.random.pick(&known),
        }
    }

    fn choose(&mut self, hands: &Hands<'_, Note>) -> Op {
        let space = self.some_space(hands);
        let random = &mut self.agenda.random;
        let first = random.below(PAGES);
        let count = 1 + random.below(3.min(PAGES - first));
        let pages = Pages { first, count };
        let others = &hands.agent.view().cores;
        let place = random.below(others.len() as u64) as usize;
        let other = others.nth(place).unwrap_or(0);
        match random.below(20) {
            0..=4 => Op::Map(space, pages),
            5..=7 => Op::Unmap(space, pages),
            8..=9 => {
                let write = Rights::READ.and(Rights::WRITE);
                let rights = random.pick(&[Rights::READ, Rights::EXECUTE, write]);
                Op::Protect(space, pages, rights)
            }
            10..=14 => Op::Touch(space, first),
            15..=18 => Op::Join(space, other),
            _ => Op::Leave(space),
        }
    }

    fn begin(&mut self, op: Op, measured: Measured, hands: &mut Hands<'_, Note>) {
        let begun = self.agenda.begin(op, measured);
        let token = begun.token;
        let frame = frame(self.agenda.life, token);
        hands.note(Note::Begun(begun));
        self.ask(hands, |spaces| match op {
            Op::Map(space, pages) => {
                let mapping = Mapping {
                    pages,
                    frame,
                    rights: ALL,
                };
                spaces.map(token, space, mapping)
            }
            Op::Unmap(space, pages) => spaces.unmap(token, space, pages),
            Op::Protect(space, pages, rights) => spaces.protect(token, space, pages, rights),
            Op::Touch(space, page) => spaces.fault(token, space, page, Rights::READ),
            Op::Join(space, core) => spaces.join(token, space, core),
            Op::Leave(space) => spaces.leave(token, space),
            Op::Nothing => Vec::new(),
        });
    }

    fn set(
        &mut self,
        space: SpaceId,
        page: u64,
        entry: Option<(u64, Rights)>,
        hands: &mut Hands<'_, Note>,
    ) {
        match entry {
            Some(entry) => self.table.insert((space, page), entry),
            None => self.table.remove(&(space, page)),
        };
        hands.note(Note::Has(space, page, entry));
    }

    fn restrict(
        &mut self,
        space: SpaceId,
        pages: Pages,
        rights: Rights,
        hands: &mut Hands<'_, Note>,
    ) {
        let entries = self.table.range((space, 0)..=(space, u64::MAX));
        let entries = entries.filter(|((_, page), _)| pages.overlaps(Pages::one(*page)));
        let entries: Vec<_> = entries.map(|(key, entry)| (key.1, *entry)).collect();
        for (page, (frame, had)) in entries {
            let left = had.only(rights);
            let entry = (left != Rights::NONE).then_some((frame, left));
            self.set(space, page, entry, hands);
        }
    }
}

impl Load for Tables {
    type Note = Note;

    fn installed(&mut self, hands: &mut Hands<'_, Note>) {
        hands.note(Note::Installed(hands.agent.view().clone()));
        if !self.agenda.installed(hands.now_ns) {
            return;
        }
        let life = self.agenda.life;
        self.ask(hands, |spaces| {
            for number in 0..SPACES {
                // Its number is new: that cannot fail.
                let _ = spaces.create(space(life, number));
            }
            Vec::new()
        });
    }

    fn on_action(&mut self, action: Action, hands: &mut Hands<'_, Note>) {
        let Action::Spaces(action) = action else {
            return;
        };
        match action {
            spaces::Action::Send(..) => {}
            spaces::Action::Freed { space, mapping } => {
                hands.note(Note::Freed(space, mapping.pages, mapping.frame));
            }
            spaces::Action::Map { space, mapping } => {
                let Mapping {
                    pages,
                    frame,
                    rights,
                } = mapping;
                for number in 0..pages.count {
                    let entry = Some((frame + number, rights));
                    self.set(space, pages.first + number, entry, hands);
                }
            }
            spaces::Action::Unmap {
                work,
                space,
                pages,
                rights,
            } => {
                let task = Unmap {
                    work,
                    space,
                    pages,
                    rights,
                };
                self.agenda.take_time(hands.now_ns, task);
                if self.hurries {
                    self.ask(hands, |spaces| spaces.unmapped(work));
                }
            }
            spaces::Action::Done { token, result } => hands.note(Note::Done { token, result }),
        }
    }

    fn on_tick(&mut self, hands: &mut Hands<'_, Note>) {
        match self.agenda.due(hands.now_ns) {
            Some(Due::Op(step)) => {
                let (op, measured) = step.unwrap_or_else(|| (self.choose(hands), None));
                self.begin(op, measured, hands);
                self.agenda.go_on(hands.now_ns);
            }
            Some(Due::Task(task)) => {
                self.restrict(task.space, task.pages, task.rights, hands);
                if !self.hurries {
                    self.ask(hands, |spaces| spaces.unmapped(task.work));
                }
            }
            None => {}
        }
    }

    fn mark(note: &Note) -> Option<Mark> {
        match note {
            Note::Begun(begun) => {
                let kind = match begun.op {
                    Op::Map(..) => Some(requests::MAP),
                    Op::Unmap(..) => Some(requests::UNMAP),
                    Op::Protect(..) => Some(requests::PROTECT),
                    Op::Touch(..) => Some(TOUCH),
                    Op::Join(..) => Some(requests::JOIN),
                    Op::Leave(..) => Some(requests::LEAVE),
                    Op::Nothing => None,
                };
                begins(begun, kind)
            }
            Note::Done { token, result } => ends(*token, *result, |error| error as u64),
            _ => None,
        }
    }

    fn look(&mut self, agent: &Agent, notes: &mut Vec<Note>) {
        let known = Knowledge::of(agent.spaces());
        if known != self.known {
            self.known = known.clone();
            notes.push(Note::Knows(known));
        }
    }

    fn deadline_ns(&self) -> Option<u64> {
        self.agenda.deadline_ns()
    }
}
