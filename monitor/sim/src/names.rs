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

use crate::agents::{Hands, Judge, Life, Load, Stopwatch, Tamper, outcome_of};
use crate::node::{Context, Outcome};
use crate::random::Random;
use protocols::agent::{Action, Agent};
use protocols::names::{self, Binding, Lookup, Name, Refusal, Replica, Version};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Names that programs fight over.
const NAMES: u64 = 6;
/// The operations of a core's first life, at most, and of any later one.
const MOST: u64 = 24;

fn name(number: u64) -> Name {
    Name::new(&[b'a' + (number % 26) as u8]).expect("a letter is a name")
}

/// What a program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// A domain binds a name.
    Bind {
        /// The domain.
        domain: u32,
        /// The name.
        name: Name,
        /// No other binding has this value.
        value: u64,
    },
    /// A domain takes a binding away.
    Unbind {
        /// The domain.
        domain: u32,
        /// The name.
        name: Name,
    },
    /// A domain ends.
    End {
        /// The domain.
        domain: u32,
    },
    /// Somebody looks a name up.
    Read {
        /// The name.
        name: Name,
    },
    /// Somebody is to be told of changes.
    Watch {
        /// The name.
        name: Name,
    },
}

/// What a core tells.
#[derive(Clone, Debug, Hash)]
pub enum Note {
    /// A program begins something.
    Begun {
        /// Its number on this core.
        token: u64,
        /// What.
        op: Op,
        /// What it is measured as.
        measured: Option<&'static str>,
    },
    /// An update ended.
    Done {
        /// Its number.
        token: u64,
        /// How.
        result: Result<(), Refusal>,
    },
    /// A read ended; or, of a watch, what it was told.
    Value {
        /// Its number.
        token: u64,
        /// The value.
        value: Option<u64>,
    },
    /// A read was refused.
    Busy {
        /// Its number.
        token: u64,
    },
    /// The core's replica is this now.
    Has(Replica),
    /// Whether nothing is under way on the core from now on.
    Quiet(bool),
    /// All that was to be measured was.
    Over,
}

/// A step of a run without faults.
#[derive(Clone, Copy, Debug)]
struct Step {
    at_ns: u64,
    op: Op,
    measured: Option<&'static str>,
}

/// The programs of one core.
#[derive(Debug)]
pub struct Programs {
    core: usize,
    life: u32,
    random: Random,
    /// Longest pause between two operations, in nanoseconds.
    pause_ns: u64,
    next_ns: Option<u64>,
    left: u64,
    token: u64,
    domains: Vec<u32>,
    seen: Version,
    is_quiet: bool,
    /// What happens instead, one after the other.
    script: Option<VecDeque<Step>>,
}

impl Programs {
    fn pause(&mut self) -> u64 {
        // Many at once, and then nothing for a while.
        let most = self.random.pick(&[0, 500, 5_000, self.pause_ns]);
        self.random.below(most + 1)
    }

    fn choose(&mut self) -> Op {
        let name = name(self.random.below(NAMES));
        let domain = self.random.pick(&self.domains.clone());
        let value = (self.core as u64) << 40 | u64::from(self.life) << 32 | self.token;
        match self.random.below(16) {
            0..=5 => Op::Bind {
                domain,
                name,
                value,
            },
            6..=7 => Op::Unbind { domain, name },
            8 => {
                // No number is used twice, in any life.
                self.domains.retain(|one| *one != domain);
                self.domains.push(self.life << 16 | self.token as u32);
                Op::End { domain }
            }
            9 => Op::Watch { name },
            _ => Op::Read { name },
        }
    }

    fn begin(&mut self, op: Op, measured: Option<&'static str>, hands: &mut Hands<'_, Note>) {
        let token = self.token;
        self.token += 1;
        hands.note(Note::Begun {
            token,
            op,
            measured,
        });
        let actions = match op {
            Op::Bind {
                domain,
                name,
                value,
            } => hands
                .agent
                .with_names(|names| names.bind(token, domain, name, value)),
            Op::Unbind { domain, name } => hands
                .agent
                .with_names(|names| names.unbind(token, domain, name)),
            Op::End { domain } => hands.agent.with_names(|names| names.domain_ended(domain)),
            Op::Read { name } => {
                let mut found = Lookup::Busy;
                hands.agent.with_names(|names| {
                    found = names.lookup(token, name);
                    Vec::new()
                });
                match found {
                    Lookup::Found(value) => hands.note(Note::Value {
                        token,
                        value: Some(value),
                    }),
                    Lookup::Absent => hands.note(Note::Value { token, value: None }),
                    Lookup::Busy => hands.note(Note::Busy { token }),
                    Lookup::Wait(_) => {}
                }
                return;
            }
            Op::Watch { name } => {
                hands.agent.with_names(|names| {
                    // There are fewer operations than watches may be.
                    let _ = names.watch(token, name, false);
                    Vec::new()
                });
                return;
            }
        };
        self.take(actions, hands);
    }
}

impl Load for Programs {
    type Note = Note;

    fn installed(&mut self, hands: &mut Hands<'_, Note>) {
        if self.next_ns.is_none() && (self.left > 0 || self.script.is_some()) {
            self.next_ns = Some(match &self.script {
                Some(script) => script.front().map_or(u64::MAX, |step| step.at_ns),
                None => hands.now_ns + self.pause(),
            });
        }
    }

    fn on_action(&mut self, action: Action, hands: &mut Hands<'_, Note>) {
        match action {
            Action::Names(names::Action::Done { token, result }) => {
                hands.note(Note::Done { token, result });
            }
            Action::Names(names::Action::LookedUp { token, value }) => {
                hands.note(Note::Value { token, value });
            }
            Action::Names(names::Action::Changed { watch, value, .. }) => {
                let token = watch;
                hands.note(Note::Value { token, value });
            }
            _ => {}
        }
    }

    fn on_tick(&mut self, hands: &mut Hands<'_, Note>) {
        if let Some(script) = &mut self.script {
            let step = script.pop_front();
            self.next_ns = script.front().map(|step| step.at_ns);
            let is_over = script.is_empty();
            if let Some(Step { op, measured, .. }) = step {
                self.begin(op, measured, hands);
            }
            if is_over {
                hands.note(Note::Over);
            }
            return;
        }
        self.left = self.left.saturating_sub(1);
        let op = self.choose();
        self.begin(op, None, hands);
        self.next_ns = (self.left > 0).then(|| hands.now_ns + self.pause());
    }

    fn deadline_ns(&self) -> Option<u64> {
        self.next_ns.filter(|at_ns| *at_ns < u64::MAX)
    }

    fn look(&mut self, agent: &Agent, notes: &mut Vec<Note>) {
        let replica = agent.names().replica();
        if replica.version != self.seen {
            self.seen = replica.version;
            notes.push(Note::Has(replica.clone()));
        }
        let is_quiet = agent.names().is_quiet();
        if is_quiet != self.is_quiet {
            self.is_quiet = is_quiet;
            notes.push(Note::Quiet(is_quiet));
        }
    }
}

/// An operation and its times, in places of the list of versions.
#[derive(Clone, Copy, Debug)]
struct Known {
    op: Op,
    begun: usize,
    done: Option<usize>,
    /// A watch: what it was told last, or what there was on its core before.
    told: Option<Option<u64>>,
}

/// A version in force.
#[derive(Clone, Debug)]
struct InForce {
    replica: Replica,
    /// It did not come by one update alone from the one before: others were in between.
    is_jump: bool,
}

/// What is known of the registry.
#[derive(Debug)]
pub struct Registry {
    seed: u64,
    pause_ns: u64,
    /// A run without faults: from there, so called, so many updates and reads, so often.
    script: Option<(usize, &'static str, u64, u64)>,
    versions: Vec<InForce>,
    by_version: BTreeMap<Version, Replica>,
    ops: BTreeMap<(Life, u64), Known>,
    /// Which binding a value is of.
    values: BTreeMap<u64, (Life, u64)>,
    dead: Vec<Life>,
    has: BTreeMap<usize, Version>,
    quiet: BTreeSet<Life>,
    is_over: bool,
    /// What was measured.
    pub stopwatch: Stopwatch,
}

impl Registry {
    /// Random operations on all cores; pauses between two of a core are up to `pause_ns`.
    pub fn new(seed: u64, pause_ns: u64) -> Self {
        Self {
            seed,
            pause_ns,
            script: None,
            versions: vec![InForce {
                replica: Replica::default(),
                is_jump: false,
            }],
            by_version: BTreeMap::new(),
            ops: BTreeMap::new(),
            values: BTreeMap::new(),
            dead: Vec::new(),
            has: BTreeMap::new(),
            quiet: BTreeSet::new(),
            is_over: false,
            stopwatch: Stopwatch::default(),
        }
    }

    /// Instead, one core binds a name `count` times anew, which is measured as `named`, and, but for
    /// core 0, looks it up as often, each `slot_ns` after the other.
    pub fn measured(mut self, core: usize, named: &'static str, count: u64, slot_ns: u64) -> Self {
        self.script = Some((core, named, count, slot_ns));
        self
    }

    fn steps(&self, core: usize) -> Option<VecDeque<Step>> {
        let (by, named, count, slot_ns) = self.script?;
        let name = name(0);
        let bind = |value| Op::Bind {
            domain: 1,
            name,
            value,
        };
        let mut steps = VecDeque::new();
        // The first binds what was not bound; the last ends the one before.
        for number in 0..count + 1 {
            let measured = (number > 0).then_some(named);
            steps.push_back((bind(number), measured));
        }
        for _ in 0..count * u64::from(by > 0) {
            steps.push_back((Op::Read { name }, Some("look up")));
        }
        steps.push_back((Op::Read { name }, None));
        let at = steps.into_iter().enumerate();
        let steps = at.map(|(number, (op, measured))| Step {
            at_ns: (number as u64 + 1) * slot_ns,
            op,
            measured,
        });
        Some(steps.filter(|_| core == by).collect())
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

    fn is_dead(&self, life: Life) -> bool {
        self.dead.contains(&life)
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
        let known = &self.ops[key];
        let asked = Op::Bind {
            domain: is.owner.domain,
            name: *name,
            value: is.value,
        };
        let is_of_core = key.0.0 == usize::from(is.owner.core);
        known.op == asked && is_of_core && known.done.is_none()
    }

    fn may_go(&self, name: &Name, was: &Binding) -> bool {
        let Some((life, _)) = self.values.get(&was.value) else {
            return false;
        };
        if self.is_dead(*life) {
            return true;
        }
        // Since when it is in force.
        let holds = |one: &InForce| one.replica.bindings.get(name) == Some(was);
        let since = self.versions.iter().rposition(|one| !holds(one));
        let since = since.map_or(0, |at| at + 1);
        let mut ops = self.ops.range((*life, 0)..=(*life, u64::MAX));
        ops.any(|(_, known)| {
            let is_open = known.done.is_none_or(|done| done >= since);
            is_open
                && match known.op {
                    Op::Bind {
                        domain,
                        name: of,
                        value,
                    } => domain == was.owner.domain && of == *name && value != was.value,
                    Op::Unbind { domain, name: of } => domain == was.owner.domain && of == *name,
                    Op::End { domain } => domain == was.owner.domain,
                    Op::Read { .. } | Op::Watch { .. } => false,
                }
        })
    }

    /// Whether it may have been so at some time of the operation.
    fn was(&self, known: &Known, holds: impl Fn(&Replica) -> bool) -> bool {
        let span = &self.versions[known.begun..];
        span.iter().any(|one| holds(&one.replica))
    }

    /// Whether there was anything in between that nobody has seen.
    fn has_jump(&self, known: &Known) -> bool {
        self.versions[known.begun + 1..]
            .iter()
            .any(|one| one.is_jump)
    }

    fn done(&mut self, life: Life, token: u64, result: Result<(), Refusal>) -> Result<(), String> {
        let now = self.now();
        let Some(known) = self.ops.get_mut(&(life, token)) else {
            return Err(format!("{life:?}: the end of {token}, which is nothing"));
        };
        if known.done.replace(now).is_some() {
            return Err(format!("{life:?}: {:?} ended twice", known.op));
        }
        let known = *known;
        let core = life.0;
        let wrong = |what: &str| Err(format!("core {core}: {:?}: {result:?}: {what}", known.op));
        let by = |domain: u32, binding: &Binding| {
            usize::from(binding.owner.core) == core && binding.owner.domain == domain
        };
        let jumped = self.has_jump(&known);
        let fine = match (known.op, result) {
            (Op::Bind { name, value, .. }, Ok(())) => {
                jumped
                    || self.was(&known, |replica| {
                        let bound = replica.bindings.get(&name);
                        bound.is_some_and(|bound| bound.value == value)
                    })
            }
            (Op::Unbind { domain, name }, Ok(())) => {
                jumped
                    || self.was(&known, |replica| {
                        let bound = replica.bindings.get(&name);
                        bound.is_none_or(|bound| !by(domain, bound))
                    })
            }
            (Op::Bind { domain, name, .. }, Err(Refusal::AlreadyBound)) => {
                jumped
                    || self.was(&known, |replica| {
                        let bound = replica.bindings.get(&name);
                        bound.is_some_and(|bound| !by(domain, bound))
                    })
            }
            (Op::Unbind { name, .. }, Err(Refusal::NotBound)) => {
                jumped || self.was(&known, |replica| !replica.bindings.contains_key(&name))
            }
            (Op::Unbind { domain, name }, Err(Refusal::NotOwner)) => {
                jumped
                    || self.was(&known, |replica| {
                        let bound = replica.bindings.get(&name);
                        bound.is_some_and(|bound| !by(domain, bound))
                    })
            }
            (Op::Bind { .. } | Op::Unbind { .. }, Err(Refusal::Busy)) => true,
            _ => false,
        };
        match fine {
            true => Ok(()),
            false => wrong("that was not so while it was under way"),
        }
    }

    fn value(&mut self, life: Life, token: u64, value: Option<u64>) -> Result<(), String> {
        let now = self.now();
        let Some(known) = self.ops.get_mut(&(life, token)) else {
            return Err(format!("{life:?}: the answer to {token}, which is nothing"));
        };
        if let Op::Watch { .. } = known.op {
            known.told = Some(value);
            return Ok(());
        }
        if known.done.replace(now).is_some() {
            return Err(format!("{life:?}: {:?} ended twice", known.op));
        }
        let known = *known;
        let Op::Read { name } = known.op else {
            return Err(format!("{life:?}: a value of {:?}", known.op));
        };
        let is_it = |replica: &Replica| {
            let bound = replica.bindings.get(&name);
            bound.map(|bound| bound.value) == value
        };
        if self.was(&known, is_it) || self.has_jump(&known) && self.is_between(name, value) {
            return Ok(());
        }
        Err(format!(
            "core {} reads {value:?} of {name:?}, which was not in force at any time from {:?} on: \
             it is {:?}",
            life.0,
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
        !was_seen && matches!(self.ops[key].op, Op::Bind { name: of, .. } if of == name)
    }
}

impl Judge for Registry {
    type Load = Programs;

    fn load(&mut self, (core, life): Life, _: Option<Tamper>) -> Programs {
        let mut random = Random::new(self.seed ^ (core as u64 + 1) << 32 ^ u64::from(life) << 56);
        let left = 4 + random.below(MOST - 4);
        Programs {
            core,
            life,
            random,
            pause_ns: self.pause_ns,
            next_ns: None,
            left,
            token: 1,
            domains: vec![life << 16, life << 16 | 0x8000],
            seen: Version::default(),
            is_quiet: false,
            script: self.steps(core),
        }
    }

    fn on_note(&mut self, life: Life, note: Note, context: Context) -> Result<(), String> {
        match note {
            Note::Begun {
                token,
                op,
                measured,
            } => {
                if self.script.is_some() {
                    self.stopwatch.begin(measured, context);
                }
                if let Op::Bind { value, .. } = op {
                    self.values.insert(value, (life, token));
                }
                let told = match op {
                    Op::Watch { name } => Some(self.value_at(life.0, name)),
                    _ => None,
                };
                let known = Known {
                    op,
                    begun: self.now(),
                    done: None,
                    told,
                };
                self.ops.insert((life, token), known);
                Ok(())
            }
            Note::Done { token, result } => {
                self.stopwatch.end(context);
                self.done(life, token, result)
            }
            Note::Value { token, value } => {
                self.stopwatch.end(context);
                self.value(life, token, value)
            }
            Note::Busy { token } => {
                let now = self.now();
                if let Some(known) = self.ops.get_mut(&(life, token)) {
                    known.done = Some(now);
                }
                Ok(())
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
            Note::Over => {
                self.is_over = true;
                Ok(())
            }
        }
    }

    fn on_stop(&mut self, life: Life) {
        self.dead.push(life);
        self.has.remove(&life.0);
    }

    fn is_done(&self) -> bool {
        self.is_over
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
        let mut is_cut_off = false;
        for ((life, _), known) in &self.ops {
            let lives = living.contains(life);
            match known.op {
                Op::End { domain } if lives => {
                    let of = |binding: &&Binding| {
                        usize::from(binding.owner.core) == life.0 && binding.owner.domain == domain
                    };
                    if let Some(left) = newest.bindings.values().find(of) {
                        return Err(format!("its domain has ended, and this is left: {left:?}"));
                    }
                }
                Op::Watch { name } if lives => {
                    let bound = newest.bindings.get(&name).map(|bound| bound.value);
                    if known.told != Some(bound) {
                        return Err(format!(
                            "core {}, which watches {name:?}, was told {:?}, and it is {bound:?}",
                            life.0, known.told
                        ));
                    }
                }
                Op::End { .. } | Op::Watch { .. } => {}
                op if known.done.is_none() && lives => {
                    return Err(format!("core {}: no end of {op:?}", life.0));
                }
                _ => is_cut_off |= known.done.is_none(),
            }
        }
        for (name, binding) in &newest.bindings {
            let life = self.values.get(&binding.value).map(|(life, _)| *life);
            if life.is_none_or(|life| !living.contains(&life)) {
                return Err(format!("{name:?} is bound by the dead: {binding:?}"));
            }
        }
        Ok(outcome_of(is_cut_off))
    }
}
