//! [`protocols::regions`] behind whole agents: cores send, copy, retype, delete and revoke, and
//! beside each is what its CPU driver would know: slots with copies, and objects made from them.
//!
//! Rules. *At most one owner a region.* *Nothing is left after a revoke*: nobody but the revoker has a
//! copy, and nobody anything made from it. *No two objects in one range*: a range is granted only
//! where nothing is. *Memory is somebody's*: it comes back only when nobody has any of it, and never
//! twice; in the end all of it is held, or free at its home, or was adopted from the dead; and no
//! range is taken for an object that nobody has. In the end all that was asked for has an answer.

mod driver;

pub use driver::{Driver, Note, Op};

use crate::agents::{Judge, Life, Tamper, outcome_of};
use crate::node::{Context, Outcome};
use crate::script::{Asked, Measured};
use protocols::regions::{Kind, Region};
use protocols::view::View;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Bytes of a page.
const PAGE: u64 = 4096;
/// Pages of a piece of memory that a core has for itself in the beginning.
const PAGES: u64 = 8;
/// How many such pieces.
const ROOTS: u64 = 2;
/// The operations of a core's life, at most.
const MOST: u64 = 24;

/// A piece of memory that a core has in the beginning of a life.
fn root((core, life): Life, number: u64) -> Region {
    let place = (core as u64) << 24 | u64::from(life) << 16 | number;
    Region {
        kind: Kind::Ram,
        base: (place + 1) << 16,
        bytes: PAGES * PAGE,
        depth: 0,
    }
}

/// Whose each piece of memory is.
#[derive(Debug, Default)]
pub struct Ledger {
    owners: BTreeMap<Region, Life>,
    dead: BTreeSet<Life>,
    /// What nobody holds.
    free: BTreeSet<Region>,
}

/// What is known of one core.
#[derive(Debug, Default)]
struct Known {
    copies: BTreeMap<Region, u32>,
    /// What was made, or is being made, and from what.
    made: BTreeMap<Region, Region>,
}

/// What is known of all memory.
#[derive(Debug, Default)]
pub struct Memory {
    /// What programs ask for; no time of it matters.
    pub asked: Asked<Op>,
    /// How many pieces of memory core 0 has, and any other.
    roots: [u64; 2],
    ledger: Rc<RefCell<Ledger>>,
    lives: BTreeMap<Life, Known>,
    owners: BTreeMap<Region, BTreeSet<Life>>,
    /// Who made each object.
    makers: BTreeMap<Region, Life>,
    /// Who is in each view, by its round.
    views: BTreeMap<u32, BTreeSet<Life>>,
    /// Whom each has been in a view with: nobody else can tell that they are dead.
    witnessed: BTreeMap<Life, BTreeSet<Life>>,
}

impl Memory {
    /// Random operations on all cores; pauses between two of a core are up to `pause_ns`.
    pub fn new(seed: u64, pause_ns: u64) -> Self {
        Self {
            asked: Asked::new(seed, pause_ns),
            roots: [ROOTS; 2],
            ..Self::default()
        }
    }

    /// Instead, so many cores come to hold a region that core 0 has, and it is revoked, by its owner
    /// and by another one, `count` times each; then copies are sent and ranges retyped by whoever is
    /// not the owner. Each step comes `slot_ns` after the one before.
    pub fn measured(mut self, holders: usize, count: u64, slot_ns: u64) -> Self {
        let mut steps: Vec<(usize, Op, Measured)> = Vec::new();
        let mut number = 0;
        for (revoker, named) in [(1, "revoke, not by the owner"), (0, "revoke, by the owner")] {
            for _ in 0..count {
                let region = root((0, 0), number);
                number += 1;
                steps.push((0, Op::Take(region), None));
                for to in 1..holders {
                    let is_last = to + 1 == holders && holders > 2;
                    // The last copy comes from one that is not the owner.
                    let (from, named) = match is_last {
                        true => (1, Some("send, not by the owner")),
                        false => (0, Some("send, by the owner")),
                    };
                    steps.push((from, Op::Send(region, to), named));
                }
                let first = region.base..region.base + PAGE;
                let named_retype = Some("retype, not by the owner");
                steps.push((1, Op::Retype(region, first), named_retype));
                let second = region.base + PAGE..region.base + 2 * PAGE;
                let named_retype = Some("retype, by the owner");
                steps.push((0, Op::Retype(region, second), named_retype));
                steps.push((revoker, Op::Revoke(region), Some(named)));
            }
        }
        self.roots = [number, 0];
        self.asked.measure(steps, slot_ns);
        self
    }

    fn known(&mut self, life: Life) -> &mut Known {
        self.lives.entry(life).or_default()
    }

    /// Who has the region, or anything made from it.
    fn holder(&self, region: &Region) -> Option<(Life, Region)> {
        self.lives.iter().find_map(|(life, known)| {
            let all = known.copies.keys().chain(known.made.keys());
            let mut all = all.filter(|one| *one == region || region.may_hold(one));
            all.next().map(|one| (*life, *one))
        })
    }

    /// An object is about to be made in a range.
    fn grant(&mut self, life: Life, parent: Region, child: Region) -> Result<(), String> {
        let range = child.range();
        for (other, known) in &self.lives {
            let all = known.copies.keys().chain(known.made.keys());
            for one in all.filter(|one| parent.may_hold(one)) {
                if one.meets(&range) {
                    return Err(format!(
                        "core {} makes {child:?} from {parent:?}, and core {} has {one:?}",
                        life.0, other.0
                    ));
                }
            }
        }
        self.makers.insert(child, life);
        self.known(life).made.insert(child, parent);
        Ok(())
    }

    fn revoked(&self, life: Life, region: &Region) -> Result<(), String> {
        let has_it = |known: &Known| known.copies.contains_key(region);
        if !self.lives.get(&life).is_some_and(has_it) {
            // It has deleted its own meanwhile: its home may have it anew.
            return Ok(());
        }
        for (other, known) in &self.lives {
            let may = *other == life;
            let copies = known.copies.keys().filter(|one| *one == region && !may);
            let all = known.copies.keys().chain(known.made.keys());
            let made = all.filter(|one| region.may_hold(one));
            if let Some(left) = copies.chain(made).next() {
                return Err(format!(
                    "core {} has revoked {region:?}, and core {} has {left:?}",
                    life.0, other.0
                ));
            }
        }
        Ok(())
    }

    fn is_freed(&mut self, by: Life, region: Region) -> Result<(), String> {
        if let Some((life, held)) = self.holder(&region) {
            return Err(format!(
                "memory came back to core {}, and core {} has {held:?}",
                by.0, life.0
            ));
        }
        let owner = self.ledger.borrow().owners.get(&region).copied();
        if owner != Some(by) || !self.ledger.borrow_mut().free.insert(region) {
            return Err(format!(
                "memory came back twice, or to the wrong core: {region:?}, of {owner:?}, to {by:?}"
            ));
        }
        Ok(())
    }

    fn adopted(&mut self, by: Life, core: usize, round: u32) -> Result<(), String> {
        let last = self.views.get(&round).and_then(|lives| {
            let mut of_core = lives.iter().filter(|life| life.0 == core);
            of_core.next().copied()
        });
        let Some(last) = last else {
            return Err(format!(
                "core {} adopts from core {core}, which was not in view {round}",
                by.0
            ));
        };
        let mut ledger = self.ledger.borrow_mut();
        if !ledger.dead.contains(&last) {
            return Err(format!("core {} adopts from {last:?}, which lives", by.0));
        }
        let owners = ledger.owners.iter();
        let of_it = owners.filter(|(_, owner)| owner.0 == core && owner.1 <= last.1);
        let estate: Vec<Region> = of_it.map(|(region, _)| *region).collect();
        for region in estate {
            if let Some((life, held)) = self.holder(&region) {
                return Err(format!(
                    "core {} adopts memory, and core {} has {held:?}",
                    by.0, life.0
                ));
            }
            ledger.owners.insert(region, by);
            ledger.free.insert(region);
        }
        Ok(())
    }
}

impl Judge for Memory {
    type Load = Driver;

    fn load(&mut self, life: Life, tamper: Option<Tamper>) -> Driver {
        self.lives.insert(life, Known::default());
        let roots = self.roots[usize::from(life.0 > 0)];
        for root in (0..roots).map(|number| root(life, number)) {
            let mut ledger = self.ledger.borrow_mut();
            ledger.owners.insert(root, life);
            ledger.free.insert(root);
        }
        let agenda = self.asked.agenda(life, MOST);
        Driver::new(agenda, Rc::clone(&self.ledger), tamper)
    }

    fn on_note(&mut self, life: Life, note: Note, context: Context) -> Result<(), String> {
        match note {
            Note::Begun(begun) => self.asked.begin(life, begun, 0, context),
            Note::Done { token, result } => {
                let known = self.asked.end(life, token, &result, 0, context)?;
                if let (Op::Revoke(region), Ok(())) = (&known.op, result) {
                    self.revoked(life, region)?;
                }
            }
            Note::Copies(region, 0) => {
                self.known(life).copies.remove(&region);
            }
            Note::Copies(region, count) => {
                self.known(life).copies.insert(region, count);
            }
            Note::Made(child, Some(parent)) => self.grant(life, parent, child)?,
            Note::Made(child, None) => {
                self.known(life).made.remove(&child);
            }
            Note::Owns(region, false) => {
                if let Some(owners) = self.owners.get_mut(&region) {
                    owners.remove(&life);
                }
            }
            Note::Owns(region, true) => {
                let owners = self.owners.entry(region).or_default();
                owners.insert(life);
                if owners.len() > 1 {
                    return Err(format!("two owners of {region:?}: {owners:?}"));
                }
            }
            Note::Free(region) => self.is_freed(life, region)?,
            Note::Taken(region) => {
                let owner = self.ledger.borrow().owners.get(&region).copied();
                if owner != Some(life) || self.holder(&region).is_some() {
                    return Err(format!("core {} uses memory of {owner:?}", life.0));
                }
            }
            Note::Adopted(core, round) => self.adopted(life, core, round)?,
            Note::Installed(view) => {
                let lives = self.views.get(&view.epoch.round).cloned();
                let witnessed = self.witnessed.entry(life).or_default();
                witnessed.extend(lives.into_iter().flatten());
            }
        }
        Ok(())
    }

    fn on_view(&mut self, view: &View, life_of: &dyn Fn(usize) -> Life) {
        let lives = || view.cores.iter().map(life_of).collect();
        self.views.entry(view.epoch.round).or_insert_with(lives);
    }

    fn on_stop(&mut self, life: Life) {
        self.ledger.borrow_mut().dead.insert(life);
        self.lives.remove(&life);
        for owners in self.owners.values_mut() {
            owners.remove(&life);
        }
    }

    fn is_done(&self) -> bool {
        self.asked.is_over
    }

    fn outcome(&self, living: &[Life]) -> Result<Outcome, String> {
        let mut is_cut_off = !self.asked.have_ended(living, |_| true)?;
        for (life, known) in &self.lives {
            for (child, parent) in &known.made {
                let held = |known: &Known| {
                    let mut copies = known.copies.keys();
                    copies.any(|one| one == child || child.may_hold(one))
                };
                if !self.lives.values().any(held) {
                    return Err(format!(
                        "core {}: nobody has {child:?}, and it takes up a range of {parent:?}",
                        life.0
                    ));
                }
            }
        }
        let ledger = self.ledger.borrow();
        // Whoever is to adopt waits until nobody holds anything of the dead.
        let all = ledger.owners.iter().chain(&self.makers);
        let mut of_dead = all.filter(|(_, owner)| !living.contains(owner));
        let waits = of_dead.any(|(region, _)| self.holder(region).is_some());
        for (region, owner) in &ledger.owners {
            let is_held = self.holder(region).is_some();
            let saw_it = |one: &Life| {
                self.witnessed
                    .get(one)
                    .is_some_and(|all| all.contains(owner))
            };
            if !living.iter().any(saw_it) {
                // It was in no view, or nobody is left of its last one.
                is_cut_off |= self.witnessed.values().flatten().any(|one| one == owner);
                continue;
            }
            if !is_held && !ledger.free.contains(region) && living.contains(owner) {
                return Err(format!("memory is lost: {region:?} of {owner:?}"));
            }
            if !waits && !living.contains(owner) {
                return Err(format!("nobody adopts {region:?} of {owner:?}"));
            }
        }
        for (region, owners) in &self.owners {
            let holds = |known: &Known| known.copies.contains_key(region);
            let others = self.lives.values().filter(|known| holds(known)).count();
            if others > 1 && owners.is_empty() {
                return Err(format!(
                    "{others} cores hold {region:?}, and nobody owns it"
                ));
            }
        }
        Ok(outcome_of(is_cut_off))
    }
}
