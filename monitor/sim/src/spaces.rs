//! [`protocols::spaces`] behind whole agents: programs map, unmap, protect and touch pages, and
//! cores join and leave; beside each core is what its page tables and TLB have.
//!
//! Rules. *No page after its unmap*: what had been mapped when an unmap began is on no core when it
//! has returned, and never again. *No right after it was taken*: the same of rights and protects.
//! *What is mapped can be touched*: a touch fails only where an unmap explains it, or a *loss*, and
//! when it succeeds the page is there. *Nothing is mapped twice.* *Whoever leaves has nothing.* *A map
//! that fails leaves nothing.* *What is free is used by nobody*: from when a home says so no core has
//! it, and no home says so twice. In the end all that was asked for has an answer; what a core has is
//! in its home's table; and all that was mapped is in the table of one home that lives, or was freed,
//! or lost.
//!
//! A loss is a view without a core that was in the one before: a home may have been that core, and
//! what no replica has as each of the others installs that view, nobody may know of any more.

mod tables;
#[cfg(test)]
mod tests;

pub use tables::{Knowledge, Note, Op, Tables};

use crate::agents::{Judge, Life, Tamper, outcome_of};
use crate::node::{Context, Outcome};
use crate::script::{Asked, Known, Measured};
use protocols::core_set::CoreSet;
use protocols::spaces::{Error, Pages, Rights, SpaceId};
use protocols::view::{Epoch, View};
use std::collections::{BTreeMap, BTreeSet};

/// Pages that programs fight over.
const PAGES: u64 = 6;
/// The operations of a core's life, at most.
const MOST: u64 = 28;
/// Spaces that a core makes in a life.
const SPACES: u32 = 1;

/// A space that a core makes.
fn space((core, life): Life, number: u32) -> SpaceId {
    SpaceId::new(core, life << 8 | number)
}

/// A page that was mapped, by its frame: no two have the same.
#[derive(Clone, Copy, Debug)]
struct Mapped {
    space: SpaceId,
    page: u64,
    /// The rights that any core may have.
    allowed: Rights,
    /// When its map began.
    begun: usize,
    /// When it was known to be mapped.
    since: Option<usize>,
    /// It was unmapped, or not mapped at all, and nobody may have it.
    is_dead: bool,
    /// A home said that it is free.
    is_freed: bool,
}

/// Frame and rights of each page.
type Table = BTreeMap<(SpaceId, u64), (u64, Rights)>;

/// What is known of a view.
#[derive(Debug, Default)]
struct Installed {
    /// Somebody held a view before that had another core.
    is_loss: bool,
    /// When somebody installed it last.
    last: usize,
    /// The frames that somebody had just then.
    held: BTreeSet<u64>,
}

/// What is known of all spaces.
#[derive(Debug, Default)]
pub struct AddressSpaces {
    /// What programs ask for; its time counts events.
    pub asked: Asked<Op>,
    now: usize,
    frames: BTreeMap<u64, Mapped>,
    /// What each core's tables have.
    tables: BTreeMap<Life, Table>,
    knows: BTreeMap<Life, Knowledge>,
    /// The cores of the view that each core holds.
    views: BTreeMap<Life, CoreSet>,
    installed: BTreeMap<Epoch, Installed>,
    is_cut_off: bool,
}

impl AddressSpaces {
    /// Random operations on all cores; pauses between two of a core are up to `pause_ns`.
    pub fn new(seed: u64, pause_ns: u64) -> Self {
        Self {
            asked: Asked::new(seed, pause_ns),
            ..Self::default()
        }
    }

    /// Instead, a space spans so many cores, and `count` times a page is mapped, touched by all or by
    /// one other, and unmapped, by its home or by another. Each step comes `slot_ns` after the one
    /// before.
    pub fn measured(mut self, cores: usize, count: u64, slot_ns: u64) -> Self {
        let space = space((0, 0), 0);
        let mut steps: Vec<(usize, Op, Measured)> = Vec::new();
        for core in 1..cores {
            steps.push((0, Op::Join(space, core), None));
        }
        let page = 0;
        let last = cores - 1;
        for _ in 0..count {
            for (holders, by, named) in [
                (cores, 0, "unmap a page that all hold, at home"),
                (cores, last, "unmap a page that all hold"),
                (2, 0, "unmap a page that two hold, at home"),
                (2, last, "unmap a page that two hold"),
            ] {
                let pages = Pages::one(page);
                steps.push((0, Op::Map(space, pages), Some("map, at home")));
                for core in cores + 1 - holders..cores {
                    steps.push((core, Op::Touch(space, page), Some("touch")));
                }
                steps.push((by, Op::Unmap(space, pages), Some(named)));
            }
        }
        self.asked.measure(steps, slot_ns);
        self
    }

    /// What is mapped of these pages, or may be.
    fn within(&mut self, space: SpaceId, pages: Pages) -> impl Iterator<Item = &mut Mapped> {
        let frames = self.frames.values_mut();
        frames.filter(move |one| one.space == space && pages.overlaps(Pages::one(one.page)))
    }

    /// Operations that may have been under way at some time since, of the living and the dead.
    fn since(&self, begun: usize) -> impl Iterator<Item = &Known<Op>> {
        let ops = self.asked.ops.values();
        ops.filter(move |known| known.end.is_none_or(|end| end >= begun))
    }

    /// These rights and whatever the protects of these pages leave that may have been under way since.
    fn allowed(&self, mut rights: Rights, space: SpaceId, pages: Pages, begun: usize) -> Rights {
        for known in self.since(begun) {
            match known.op {
                Op::Protect(of, range, left) if of == space && range.overlaps(pages) => {
                    rights = rights.and(left);
                }
                _ => {}
            }
        }
        rights
    }

    fn begin(&mut self, op: Op, first_frame: u64) {
        if let Op::Map(space, pages) = op {
            // What is to be protected may be by then.
            let allowed = self.allowed(tables::ALL, space, pages, self.now);
            for number in 0..pages.count {
                let mapped = Mapped {
                    space,
                    page: pages.first + number,
                    allowed,
                    begun: self.now,
                    since: None,
                    is_dead: false,
                    is_freed: false,
                };
                self.frames.insert(first_frame + number, mapped);
            }
        }
        if let Op::Protect(space, pages, rights) = op {
            for one in self.within(space, pages) {
                one.allowed = one.allowed.and(rights);
            }
        }
    }

    fn end(
        &mut self,
        life: Life,
        token: u64,
        known: &Known<Op>,
        result: Result<(), Error>,
    ) -> Result<(), String> {
        let now = self.now;
        self.is_cut_off |= result == Err(Error::Lost);
        let wrong = |what: String| {
            Err(format!(
                "core {}: {:?}: {result:?}: {what}",
                life.0, known.op
            ))
        };
        match (known.op, result) {
            (Op::Map(space, pages), Ok(())) => {
                let first = tables::frame(life, token);
                for number in 0..pages.count {
                    let page = pages.first + number;
                    if let Some(one) = self.frames.get_mut(&(first + number)) {
                        one.since = Some(now);
                    }
                    if let Some(frame) = self.mapped_twice(space, page, first + number, known.begun)
                    {
                        return wrong(format!("there is frame {frame:#x}"));
                    }
                }
            }
            (Op::Map(_, pages), Err(_)) => {
                let first = tables::frame(life, token);
                for number in 0..pages.count {
                    if let Some(one) = self.frames.get_mut(&(first + number)) {
                        one.is_dead = true;
                    }
                }
                self.check_all()?;
            }
            (Op::Unmap(space, pages), Ok(())) => {
                for one in self.within(space, pages) {
                    one.is_dead |= one.since.is_some_and(|since| since < known.begun);
                }
                self.check_all()?;
            }
            (Op::Protect(space, pages, rights), Ok(())) => {
                let allowed = self.allowed(rights, space, pages, known.begun);
                for one in self.within(space, pages) {
                    if one.since.is_some_and(|since| since < known.begun) {
                        one.allowed = allowed;
                    }
                }
                self.check_all()?;
            }
            (Op::Touch(space, page), Ok(()))
                if !self.tables[&life].contains_key(&(space, page)) =>
            {
                return wrong("the page is not there".into());
            }
            (Op::Touch(space, page), Err(Error::NotMapped)) => {
                if let Some(frame) = self.must_be_there(space, page, known.begun) {
                    return wrong(format!("frame {frame:#x} is mapped"));
                }
            }
            (Op::Leave(space), Ok(())) => {
                let mut left = self.tables[&life].keys().filter(|(of, _)| *of == space);
                if let Some(left) = left.next() {
                    return wrong(format!("it has {left:?}"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether something else was mapped here all the time, without an unmap that may explain this.
    fn mapped_twice(&self, space: SpaceId, page: u64, frame: u64, begun: usize) -> Option<u64> {
        let found = self.must_be_there(space, page, begun);
        found.filter(|found| *found != frame)
    }

    /// What was mapped when something began, and cannot have gone since.
    fn must_be_there(&self, space: SpaceId, page: u64, begun: usize) -> Option<u64> {
        let mut frames = self.frames.iter().filter(|(frame, one)| {
            let is_it = (one.space, one.page) == (space, page) && !one.is_dead;
            is_it && one.since.is_some_and(|since| since < begun) && !self.may_be_lost(**frame)
        });
        frames.find_map(|(frame, one)| {
            let since = one.since.unwrap_or(0);
            let may_go = self.since(since).any(|known| match known.op {
                Op::Unmap(of, pages) => of == space && pages.overlaps(Pages::one(page)),
                _ => false,
            });
            (!may_go).then_some(*frame)
        })
    }

    /// Whether a home may have gone that alone knew of a frame.
    fn may_be_lost(&self, frame: u64) -> bool {
        let begun = self.frames.get(&frame).map_or(0, |one| one.begun);
        let mut after = self.installed.values().filter(|view| begun <= view.last);
        after.any(|view| view.is_loss && !view.held.contains(&frame))
    }

    fn installed(&mut self, life: Life, view: &View) {
        let before = self.views.insert(life, view.cores.clone());
        let known = self.installed.entry(view.epoch).or_default();
        known.is_loss |= before.is_some_and(|before| !view.cores.contains_all(&before));
        known.last = self.now;
        let table = self.tables[&life].values();
        known.held.extend(table.map(|(frame, _)| *frame));
    }

    /// A home says that these pages are free.
    fn freed(&mut self, space: SpaceId, pages: Pages, first: u64) -> Result<(), String> {
        for number in 0..pages.count {
            let (page, frame) = (pages.first + number, first + number);
            let Some(one) = self.frames.get_mut(&frame) else {
                return Err(format!("frame {frame:#x} is free, and nobody mapped it"));
            };
            if (one.space, one.page) != (space, page) {
                return Err(format!("{one:?} is free as page {page} of {space:?}"));
            }
            if std::mem::replace(&mut one.is_freed, true) {
                return Err(format!("frame {frame:#x} is free twice: {one:?}"));
            }
            one.is_dead = true;
        }
        self.check_all()
    }

    fn check_all(&self) -> Result<(), String> {
        for (life, table) in &self.tables {
            for ((space, page), (frame, rights)) in table {
                self.check(*life, *space, *page, *frame, *rights)?;
            }
        }
        Ok(())
    }

    /// Whether a core may have this.
    fn check(
        &self,
        life: Life,
        space: SpaceId,
        page: u64,
        frame: u64,
        rights: Rights,
    ) -> Result<(), String> {
        let core = life.0;
        let Some(mapped) = self.frames.get(&frame) else {
            return Err(format!(
                "core {core} has frame {frame:#x}, which nobody mapped"
            ));
        };
        if (mapped.space, mapped.page) != (space, page) {
            return Err(format!(
                "core {core} has {mapped:?} as page {page} of {space:?}"
            ));
        }
        if mapped.is_dead {
            return Err(format!(
                "core {core} has page {page} of {space:?} (frame {frame:#x}) after its unmap"
            ));
        }
        if !mapped.allowed.include(rights) {
            return Err(format!(
                "core {core} has {rights:?} to page {page} of {space:?} after they were taken: {:?}",
                mapped.allowed
            ));
        }
        Ok(())
    }

    /// In the end: what a core has is in the table of the home, which knows all.
    fn replicas_are_in_tables(&self) -> Result<(), String> {
        let home_of = |core: usize| self.knows.iter().find(|(life, _)| life.0 == core);
        for ((core, _), known) in &self.knows {
            if let Some(space) = known.recovering.first() {
                return Err(format!("core {core}, home of {space:?}, waits in the end"));
            }
        }
        for (life, table) in &self.tables {
            let known = self.knows.get(life);
            for ((space, page), (frame, rights)) in table {
                let homes = known.iter().flat_map(|known| &known.homes);
                let home = homes.clone().find(|(of, _)| of == space);
                let mapped = home.and_then(|(_, home)| home_of(*home));
                let mapped = mapped.iter().flat_map(|(_, home)| &home.mapped);
                let mut it = mapped.filter(|(of, at, ..)| (of, at) == (space, page));
                let is_there =
                    it.any(|(_, _, mapped, allowed)| mapped == frame && allowed.include(*rights));
                if !is_there {
                    return Err(format!(
                        "core {} has page {page} of {space:?} (frame {frame:#x}, {rights:?}) in the \
                         end, and its home, {home:?}, does not",
                        life.0
                    ));
                }
            }
        }
        Ok(())
    }

    /// In the end: what was mapped is in the table of one home, or was freed, or lost.
    fn nothing_is_forgotten(&self) -> Result<(), String> {
        let mut mapped = BTreeSet::new();
        for (space, page, frame, _) in self.knows.values().flat_map(|known| &known.mapped) {
            if !mapped.insert(*frame) {
                return Err(format!("page {page} of {space:?} has two homes"));
            }
        }
        for (frame, one) in &self.frames {
            let is_mapped = mapped.contains(frame);
            if is_mapped && one.is_dead {
                return Err(format!("frame {frame:#x} is mapped in the end: {one:?}"));
            }
            let is_known = is_mapped || one.is_freed || one.since.is_none();
            if !is_known && !self.may_be_lost(*frame) {
                return Err(format!(
                    "frame {frame:#x} is neither mapped nor free in the end: {one:?}"
                ));
            }
        }
        Ok(())
    }
}

impl Judge for AddressSpaces {
    type Load = Tables;

    fn load(&mut self, life: Life, tamper: Option<Tamper>) -> Tables {
        self.tables.insert(life, BTreeMap::new());
        Tables::new(self.asked.agenda(life, MOST), tamper)
    }

    fn on_note(&mut self, life: Life, note: Note, context: Context) -> Result<(), String> {
        self.now += 1;
        let now = self.now;
        match note {
            Note::Begun(begun) => {
                self.begin(begun.op, tables::frame(life, begun.token));
                self.asked.begin(life, begun, now, context);
            }
            Note::Done { token, result } => {
                let known = self.asked.end(life, token, &result, now, context)?;
                self.end(life, token, &known, result)?;
            }
            Note::Freed(space, pages, frame) => self.freed(space, pages, frame)?,
            Note::Installed(view) => self.installed(life, &view),
            Note::Knows(knowledge) => {
                self.knows.insert(life, knowledge);
            }
            Note::Has(space, page, None) => {
                if let Some(table) = self.tables.get_mut(&life) {
                    table.remove(&(space, page));
                }
            }
            Note::Has(space, page, Some((frame, rights))) => {
                self.check(life, space, page, frame, rights)?;
                if let Some(table) = self.tables.get_mut(&life) {
                    table.insert((space, page), (frame, rights));
                }
            }
        }
        Ok(())
    }

    fn on_stop(&mut self, life: Life) {
        self.now += 1;
        self.tables.remove(&life);
        self.knows.remove(&life);
    }

    fn is_done(&self) -> bool {
        self.asked.is_over
    }

    fn outcome(&self, living: &[Life]) -> Result<Outcome, String> {
        let have_ended = self.asked.have_ended(living, |_| true)?;
        self.replicas_are_in_tables()?;
        self.nothing_is_forgotten()?;
        Ok(outcome_of(self.is_cut_off || !have_ended))
    }
}
