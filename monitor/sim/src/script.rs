//! What programs ask for, at random or by a script whose operations are measured: on each core an
//! [`Agenda`], and with the judge what was [`Asked`]. The default operation is none: it is the end of
//! a script.

use crate::agents::{Life, Stopwatch};
use crate::node::Context;
use crate::random::Random;
use crate::tape::Mark;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;

/// The random operations of a core's life, at least.
const LEAST: u64 = 4;

/// What an operation is measured as, if it is.
pub type Measured = Option<&'static str>;

/// A program begins something.
#[derive(Clone, Debug, Hash)]
pub struct Begun<O> {
    /// Its number on this core.
    pub token: u64,
    /// What.
    pub op: O,
    /// What it is measured as.
    pub measured: Measured,
}

/// That an operation begins, of whatever kind of request; the end of a script is none.
pub fn begins<O>(begun: &Begun<O>, kind: Option<u16>) -> Option<Mark> {
    kind.map(|kind| Mark::Begin {
        token: begun.token,
        kind: kind.into(),
    })
}

/// That an operation ended, with this error if it failed.
pub fn ends<E: Copy>(
    token: u64,
    result: Result<(), E>,
    code: impl FnOnce(E) -> u64,
) -> Option<Mark> {
    let error = result.err().map_or(0, code);
    Some(Mark::End { token, error })
}

/// A step of a script.
#[derive(Clone, Debug)]
struct Step<O> {
    at_ns: u64,
    core: usize,
    op: O,
    measured: Measured,
}

/// What is due on a core.
#[derive(Debug)]
pub enum Due<O, T> {
    /// A program's next operation; `None`: any. Then [`Agenda::go_on`].
    Op(Option<(O, Measured)>),
    /// Something else.
    Task(T),
}

/// What one core's programs ask for, and what else takes time there.
#[derive(Debug)]
pub struct Agenda<O, T> {
    /// Whose it is.
    pub life: Life,
    /// What the core draws by.
    pub random: Random,
    /// The number of the next operation.
    pub token: u64,
    pause_ns: u64,
    left: u64,
    script: Option<VecDeque<Step<O>>>,
    has_begun: bool,
    /// By time; `None` is the next operation.
    due: Vec<(u64, Option<T>)>,
}

impl<O, T> Agenda<O, T> {
    /// A view holds: whether it is the first, with which the programs begin.
    pub fn installed(&mut self, now_ns: u64) -> bool {
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        if is_first {
            self.go_on(now_ns);
        }
        is_first
    }

    /// The programs go on to the next operation, if there is one.
    pub fn go_on(&mut self, now_ns: u64) {
        let at_ns = match &self.script {
            Some(script) => script.front().map(|step| step.at_ns),
            None if self.left == 0 => None,
            None => {
                // Many at once, and then nothing for a while.
                let most = self.random.pick(&[0, 500, 5_000, self.pause_ns]);
                Some(now_ns + self.random.below(most + 1))
            }
        };
        self.due.extend(at_ns.map(|at_ns| (at_ns, None)));
    }

    /// An operation begins: it has a number from now on.
    pub fn begin(&mut self, op: O, measured: Measured) -> Begun<O> {
        let token = self.token;
        self.token += 1;
        Begun {
            token,
            op,
            measured,
        }
    }

    /// A task is due at a time, in nanoseconds.
    pub fn at(&mut self, at_ns: u64, task: T) {
        self.due.push((at_ns, Some(task)));
    }

    /// A task is due when a CPU driver has done something, and when that is, in nanoseconds.
    pub fn take_time(&mut self, now_ns: u64, task: T) -> u64 {
        let mut at_ns = now_ns;
        if self.pause_ns > 0 {
            let most = self.random.pick(&[0, 300, 3_000, 30_000]);
            at_ns += self.random.below(most + 1);
        }
        self.at(at_ns, task);
        at_ns
    }

    /// Whether something fails that may.
    pub fn fails(&mut self) -> bool {
        self.pause_ns > 0 && self.random.below(8) == 0
    }

    /// What is due now.
    pub fn due(&mut self, now_ns: u64) -> Option<Due<O, T>> {
        let due = self.due.iter().position(|(at_ns, _)| *at_ns <= now_ns)?;
        if let (_, Some(task)) = self.due.remove(due) {
            return Some(Due::Task(task));
        }
        self.left = self.left.saturating_sub(1);
        let step = self.script.as_mut().and_then(VecDeque::pop_front);
        Some(Due::Op(step.map(|step| (step.op, step.measured))))
    }

    /// When something is due, in nanoseconds.
    pub fn deadline_ns(&self) -> Option<u64> {
        self.due.iter().map(|(at_ns, _)| *at_ns).min()
    }
}

/// An operation that has begun.
#[derive(Clone, Debug)]
pub struct Known<O> {
    /// What.
    pub op: O,
    /// When it began, by the judge's time.
    pub begun: usize,
    /// When it ended.
    pub end: Option<usize>,
}

/// All that programs ask for.
#[derive(Debug, Default)]
pub struct Asked<O> {
    seed: u64,
    pause_ns: u64,
    /// A run without faults.
    script: Option<Vec<Step<O>>>,
    /// All that has begun, by whom and by its number there.
    pub ops: BTreeMap<(Life, u64), Known<O>>,
    /// All that was to be measured was.
    pub is_over: bool,
    /// What was measured.
    pub stopwatch: Stopwatch,
}

impl<O: Clone + Debug + Default + PartialEq> Asked<O> {
    /// Random operations on all cores; pauses between two of a core are up to `pause_ns`.
    pub fn new(seed: u64, pause_ns: u64) -> Self {
        Self {
            seed,
            pause_ns,
            ..Self::default()
        }
    }

    /// Instead, these operations on these cores, each `slot_ns` after the one before.
    pub fn measure(&mut self, mut steps: Vec<(usize, O, Measured)>, slot_ns: u64) {
        steps.push((0, O::default(), None));
        let steps = (1..).zip(steps).map(|(slot, (core, op, measured))| Step {
            at_ns: slot * slot_ns,
            core,
            op,
            measured,
        });
        self.pause_ns = 0;
        self.script = Some(steps.collect());
    }

    /// Whether operations are measured.
    pub fn is_measured(&self) -> bool {
        self.script.is_some()
    }

    /// What a core asks for in a life: fewer than `most` operations, where they are random.
    pub fn agenda<T>(&self, life: Life, most: u64) -> Agenda<O, T> {
        let (core, number) = life;
        let seed = self.seed ^ (core as u64 + 1) << 32 ^ u64::from(number) << 56;
        let mut random = Random::new(seed);
        let left = LEAST + random.below(most - LEAST);
        let own = |steps: &Vec<Step<O>>| {
            let own = steps.iter().filter(|step| step.core == core);
            own.cloned().collect()
        };
        Agenda {
            life,
            random,
            token: 1,
            pause_ns: self.pause_ns,
            left,
            script: self.script.as_ref().map(own),
            has_begun: false,
            due: Vec::new(),
        }
    }

    /// Something has begun.
    pub fn begin(&mut self, life: Life, begun: Begun<O>, now: usize, context: Context) {
        if self.is_measured() {
            self.stopwatch.begin(begun.measured, context);
        }
        if begun.op == O::default() {
            self.is_over = true;
            return;
        }
        let known = Known {
            op: begun.op,
            begun: now,
            end: None,
        };
        self.ops.insert((life, begun.token), known);
    }

    /// What was begun by this number, if anything was.
    pub fn get(&self, life: Life, token: u64) -> Result<&Known<O>, String> {
        let known = self.ops.get(&(life, token));
        known.ok_or_else(|| format!("{life:?}: the end of {token}, which is nothing"))
    }

    /// Something has ended. What is measured does not fail.
    pub fn end<E: Debug>(
        &mut self,
        life: Life,
        token: u64,
        result: &Result<(), E>,
        now: usize,
        context: Context,
    ) -> Result<Known<O>, String> {
        self.stopwatch.end(context);
        let mut known = self.get(life, token)?.clone();
        if known.end.replace(now).is_some() {
            return Err(format!("{life:?}: {:?} ended twice", known.op));
        }
        if self.is_measured() && result.is_err() {
            return Err(format!("{:?}: {result:?}", known.op));
        }
        self.ops.insert((life, token), known.clone());
        Ok(known)
    }

    /// In the end: all of it has ended that a core asked for that lives. Whether all has.
    pub fn have_ended(
        &self,
        living: &[Life],
        must_end: impl Fn(&O) -> bool,
    ) -> Result<bool, String> {
        let ops = self.ops.iter();
        let mut open = ops.filter(|(_, known)| known.end.is_none() && must_end(&known.op));
        let is_all = open.clone().next().is_none();
        match open.find(|((life, _), _)| living.contains(life)) {
            Some(((life, _), known)) => Err(format!("core {}: no end of {:?}", life.0, known.op)),
            None => Ok(is_all),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: Context = Context { now_ns: 0, sent: 0 };
    const LIFE: Life = (1, 0);

    #[test]
    fn what_begins_ends_once() {
        let mut asked: Asked<u8> = Asked::new(1, 1_000);
        let mut agenda = asked.agenda::<()>(LIFE, 24);
        for op in [5, 6] {
            asked.begin(LIFE, agenda.begin(op, None), 3, CONTEXT);
        }
        let mut end = |token| asked.end(LIFE, token, &Err(()), 7, CONTEXT);
        let known = end(1).expect("it has begun");
        assert_eq!((known.op, known.begun, known.end), (5, 3, Some(7)));
        assert!(end(1).is_err() && end(9).is_err());
        assert!(asked.have_ended(&[LIFE], |_| true).is_err());
        assert_eq!(asked.have_ended(&[LIFE], |op| *op != 6), Ok(true));
        assert_eq!(asked.have_ended(&[(1, 1)], |_| true), Ok(false));
    }

    #[test]
    fn a_script_is_followed_and_measured() {
        let mut asked: Asked<u8> = Asked::new(1, 1_000);
        asked.measure(vec![(1, 5, Some("five")), (0, 6, None), (1, 7, None)], 100);
        let mut agenda = asked.agenda::<()>(LIFE, 24);
        assert!(agenda.installed(40) && !agenda.installed(50));
        for (at_ns, op) in [(100, 5), (300, 7)] {
            assert_eq!(agenda.deadline_ns(), Some(at_ns));
            assert!(agenda.due(at_ns - 1).is_none());
            let Some(Due::Op(Some((found, measured)))) = agenda.due(at_ns) else {
                panic!("nothing is due at {at_ns} ns");
            };
            assert_eq!(found, op);
            asked.begin(LIFE, agenda.begin(op, measured), 0, CONTEXT);
            agenda.go_on(at_ns);
        }
        assert_eq!(agenda.deadline_ns(), None);
        assert!(
            asked.end(LIFE, 1, &Err(()), 0, CONTEXT).is_err(),
            "it failed"
        );
        let mut last = asked.agenda::<()>((0, 0), 24);
        last.installed(0);
        assert_eq!(last.deadline_ns(), Some(200));
        asked.begin((0, 0), last.begin(0, None), 0, CONTEXT);
        assert!(asked.is_over);
    }
}
