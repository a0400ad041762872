//! [`protocols::names`] behind whole agents: domains bind, unbind, look up, watch and end.
//!
//! Rules. *Equal at equal versions*: no two replicas of one version differ, at whatever times. The
//! first to have a version is whoever put it in force, so the versions as they come are what the
//! registry is, one after the other, and by that all else is judged: *a read* returns what was in
//! force at some time between its beginning and its end; *what was acknowledged* came into force
//! between its beginning and its end; *nothing changes by itself*: what is bound stays until its
//! owner asks for another thing, or is gone. In the end all that was asked for has an answer, all
//! have one replica and nothing under way, nothing in it is a dead domain's, and whoever watches a
//! name was told of its value last.

mod programs;

pub use programs::{Note, Op, Programs};

use crate::agents::{Judge, Life, Tamper, outcome_of};
use crate::node::{Context, Outcome};
use crate::script::{Asked, Known};
use programs::name;
use protocols::names::{Binding, Name, Refusal, Replica, Version};
use std::collections::{BTreeMap, BTreeSet};

/// Names that programs fight over.
const NAMES: u64 = 6;
/// The operations of a core's first life, at most, and of any later one.
const MOST: u64 = 24;

/// A version in force.
#[derive(Clone, Debug, Default)]
struct InForce {
    replica: Replica,
    /// It did not come by one update alone from the one before: others were in between.
    is_jump: bool,
}

/// What is known of the registry. Times are places in the list of versions.
#[derive(Debug, Default)]
pub struct Registry {
    /// What programs ask for.
    pub asked: Asked<Op>,
    versions: Vec<InForce>,
    by_version: BTreeMap<Version, Replica>,
    /// Of each watch what it was told last, or what there was on its core before.
    told: BTreeMap<(Life, u64), Option<u64>>,
    /// Which binding a value is of.
    values: BTreeMap<u64, (Life, u64)>,
    dead: Vec<Life>,
    has: BTreeMap<usize, Version>,
    quiet: BTreeSet<Life>,
}

impl Registry {
    /// Random operations on all cores; pauses between two of a core are up to `pause_ns`.
    pub fn new(seed: u64, pause_ns: u64) -> Self {
        Self {
            asked: Asked::new(seed, pause_ns),
            versions: vec![InForce::default()],
            ..Self::default()
        }
    }

    /// Instead, one core binds a name `count` times anew, which is measured as `named`, and, but for
    /// core 0, looks it up as often, each `slot_ns` after the other.
    pub fn measured(mut self, core: usize, named: &'static str, count: u64, slot_ns: u64) -> Self {
        let name = name(0);
        let bind = |value| Op::Bind {
            domain: 1,
            name,
            value,
        };
        // The first binds what was not bound.
        let binds =
            (0..count + 1).map(|number| (core, bind(number), (number > 0).then_some(named)));
        let reads =
            (0..count * u64::from(core > 0)).map(|_| (core, Op::Read { name }, Some("look up")));
        self.asked.measure(binds.chain(reads).collect(), slot_ns);
        self
    }

    fn newest(&self) -> &Replica {
        &self.versions[self.versions.len() - 1].replica
    }

    fn now(&self) -> usize {
        self.versions.len() - 1
    }

    /// What the replica of a core has.
    fn value_at(&self, core: usize, name: Name) -> Option<u64> {
        let replica = self.by_version.get(self.has.get(&core)?)?;
        replica.bindings.get(&name).map(|bound| bound.value)
    }

    /// A core's replica is at a version.
    fn has(&mut self, life: Life, replica: Replica) -> Result<(), String> {
        let version = replica.version;
        self.has.insert(life.0, version);
        if let Some(other) = self.by_version.get(&version) {
            if *other != replica {
                return Err(format!(
                    "core {} has {replica:?}, and another had {other:?}",
                    life.0
                ));
            }
            return Ok(());
        }
        self.by_version.insert(version, replica.clone());
        let newest = self.newest().clone();
        if version < newest.version {
            return Ok(());
        }
        self.explain(&newest, &replica)?;
        let is_next =
            version.epoch == newest.version.epoch && version.counter == newest.version.counter + 1;
        self.versions.push(InForce {
            replica,
            is_jump: !is_next,
        });
        Ok(())
    }

    /// Somebody asked for all that is different.
    fn explain(&self, before: &Replica, after: &Replica) -> Result<(), String> {
        let names = before.bindings.keys().chain(after.bindings.keys());
        for name in names {
            let (was, is) = (before.bindings.get(name), after.bindings.get(name));
            if was == is {
                continue;
            }
            let explained = was.is_none_or(|was| self.may_go(name, was))
                && is.is_none_or(|is| self.may_come(name, is));
            if !explained {
                return Err(format!(
                    "{name:?} changes from {was:?} to {is:?}, and nobody asked for that"
                ));
            }
        }
        Ok(())
    }

    fn may_come(&self, name: &Name, is: &Binding) -> bool {
        let Some(key) = self.values.get(&is.value) else {
            return false;
        };
        let known = &self.asked.ops[key];
        let asked = Op::Bind {
            domain: is.owner.domain,
            name: *name,
            value: is.value,
        };
        let is_of_core = key.0.0 == usize::from(is.owner.core);
        known.op == asked && is_of_core && known.end.is_none()
    }

    fn may_go(&self, name: &Name, was: &Binding) -> bool {
        let Some((life, _)) = self.values.get(&was.value) else {
            return false;
        };
        if self.dead.contains(life) {
            return true;
        }
        // Since when it is in force.
        let holds = |one: &InForce| one.replica.bindings.get(name) == Some(was);
        let since = self.versions.iter().rposition(|one| !holds(one));
        let since = since.map_or(0, |at| at + 1);
        let mut ops = self.asked.ops.range((*life, 0)..=(*life, u64::MAX));
        ops.any(|(_, known)| {
            let is_open = known.end.is_none_or(|end| end >= since);
            is_open
                && match known.op {
                    Op::Bind {
                        domain,
                        name: of,
                        value,
                    } => domain == was.owner.domain && of == *name && value != was.value,
                    Op::Unbind { domain, name: of } => domain == was.owner.domain && of == *name,
                    Op::End { domain } => domain == was.owner.domain,
                    Op::Read { .. } | Op::Watch { .. } | Op::Nothing => false,
                }
        })
    }

    /// Whether it may have been so at some time of the operation.
    fn was(&self, known: &Known<Op>, holds: impl Fn(&Replica) -> bool) -> bool {
        let span = &self.versions[known.begun..];
        span.iter().any(|one| holds(&one.replica))
    }

    /// Whether there was anything in between that nobody has seen.
    fn has_jump(&self, known: &Known<Op>) -> bool {
        self.versions[known.begun + 1..]
            .iter()
            .any(|one| one.is_jump)
    }

    fn done(
        &self,
        life: Life,
        known: &Known<Op>,
        result: Result<(), Refusal>,
    ) -> Result<(), String> {
        let by = |domain: u32, binding: &Binding| {
            usize::from(binding.owner.core) == life.0 && binding.owner.domain == domain
        };
        let was = |name: Name, holds: &dyn Fn(Option<&Binding>) -> bool| {
            self.has_jump(known) || self.was(known, |replica| holds(replica.bindings.get(&name)))
        };
        let fine = match (known.op, result) {
            (Op::Bind { name, value, .. }, Ok(())) => was(name, &|bound| {
                bound.is_some_and(|bound| bound.value == value)
            }),
            (Op::Unbind { domain, name }, Ok(())) => {
                was(name, &|bound| bound.is_none_or(|bound| !by(domain, bound)))
            }
            (Op::Bind { domain, name, .. }, Err(Refusal::AlreadyBound))
            | (Op::Unbind { domain, name }, Err(Refusal::NotOwner)) => {
                was(name, &|bound| bound.is_some_and(|bound| !by(domain, bound)))
            }
            (Op::Unbind { name, .. }, Err(Refusal::NotBound)) => {
                was(name, &|bound| bound.is_none())
            }
            (Op::Bind { .. } | Op::Unbind { .. }, Err(Refusal::Busy)) => true,
            _ => false,
        };
        if fine {
            return Ok(());
        }
        Err(format!(
            "core {}: {:?}: {result:?}: that was not so while it was under way",
            life.0, known.op
        ))
    }

    fn value(&self, core: usize, known: &Known<Op>, value: Option<u64>) -> Result<(), String> {
        let Op::Read { name } = known.op else {
            return Err(format!("core {core}: a value of {:?}", known.op));
        };
        let is_it = |replica: &Replica| {
            let bound = replica.bindings.get(&name);
            bound.map(|bound| bound.value) == value
        };
        if self.was(known, is_it) || self.has_jump(known) && self.is_between(name, value) {
            return Ok(());
        }
        Err(format!(
            "core {core} reads {value:?} of {name:?}, which was not in force at any time from {:?} \
             on: it is {:?}",
            self.versions[known.begun].replica.version,
            self.newest().bindings.get(&name)
        ))
    }

    /// Whether a value was bound that no version shows, since another came in the same step.
    fn is_between(&self, name: Name, value: Option<u64>) -> bool {
        let Some(key) = value.and_then(|value| self.values.get(&value)) else {
            return value.is_none();
        };
        let was_seen = self.versions.iter().any(|one| {
            let bound = one.replica.bindings.get(&name);
            bound.map(|bound| bound.value) == value
        });
        !was_seen && matches!(self.asked.ops[key].op, Op::Bind { name: of, .. } if of == name)
    }
}

impl Judge for Registry {
    type Load = Programs;

    fn load(&mut self, life: Life, _: Option<Tamper>) -> Programs {
        Programs::new(self.asked.agenda(life, MOST))
    }

    fn on_note(&mut self, life: Life, note: Note, context: Context) -> Result<(), String> {
        let now = self.now();
        match note {
            Note::Begun(begun) => {
                let key = (life, begun.token);
                match begun.op {
                    Op::Bind { value, .. } => {
                        self.values.insert(value, key);
                    }
                    Op::Watch { name } => {
                        self.told.insert(key, self.value_at(life.0, name));
                    }
                    _ => {}
                }
                self.asked.begin(life, begun, now, context);
                Ok(())
            }
            Note::Done { token, result } => {
                let known = self.asked.end(life, token, &result, now, context)?;
                self.done(life, &known, result)
            }
            Note::Value { token, value } => {
                if let Some(told) = self.told.get_mut(&(life, token)) {
                    *told = value;
                    return Ok(());
                }
                let ended = Ok::<(), Refusal>(());
                let known = self.asked.end(life, token, &ended, now, context)?;
                self.value(life.0, &known, value)
            }
            Note::Busy { token } => {
                let ended = Err(Refusal::Busy);
                self.asked
                    .end(life, token, &ended, now, context)
                    .map(|_| ())
            }
            Note::Has(replica) => self.has(life, replica),
            Note::Quiet(true) => {
                self.quiet.insert(life);
                Ok(())
            }
            Note::Quiet(false) => {
                self.quiet.remove(&life);
                Ok(())
            }
        }
    }

    fn on_stop(&mut self, life: Life) {
        self.dead.push(life);
        self.has.remove(&life.0);
    }

    fn is_done(&self) -> bool {
        self.asked.is_over
    }

    fn outcome(&self, living: &[Life]) -> Result<Outcome, String> {
        let newest = self.newest();
        for life in living {
            let core = &life.0;
            let has = self.has.get(core);
            if has != Some(&newest.version) {
                return Err(format!(
                    "core {core} has {has:?} in the end, and the newest is {:?}",
                    newest.version
                ));
            }
            if !self.quiet.contains(life) {
                return Err(format!("core {core} has something under way in the end"));
            }
        }
        for ((life, token), known) in &self.asked.ops {
            if !living.contains(life) {
                continue;
            }
            match known.op {
                Op::End { domain } => {
                    let of = |binding: &&Binding| {
                        usize::from(binding.owner.core) == life.0 && binding.owner.domain == domain
                    };
                    if let Some(left) = newest.bindings.values().find(of) {
                        return Err(format!("its domain has ended, and this is left: {left:?}"));
                    }
                }
                Op::Watch { name } => {
                    let told = self.told.get(&(*life, *token)).copied().flatten();
                    let bound = newest.bindings.get(&name).map(|bound| bound.value);
                    if told != bound {
                        return Err(format!(
                            "core {}, which watches {name:?}, was told {told:?}, and it is {bound:?}",
                            life.0
                        ));
                    }
                }
                _ => {}
            }
        }
        let must_end = |op: &Op| !matches!(op, Op::End { .. } | Op::Watch { .. });
        let have_ended = self.asked.have_ended(living, must_end)?;
        for (name, binding) in &newest.bindings {
            let life = self.values.get(&binding.value).map(|(life, _)| *life);
            if life.is_none_or(|life| !living.contains(&life)) {
                return Err(format!("{name:?} is bound by the dead: {binding:?}"));
            }
        }
        Ok(outcome_of(!have_ended))
    }
}
