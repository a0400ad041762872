//! What one core does beside its agent: programs that bind names, and look them up.

use super::NAMES;
use crate::agents::{Hands, Load};
use crate::script::{Agenda, Begun, Due, Measured, begins, ends};
use crate::tape::Mark;
use protocols::agent::{Action, Agent};
use protocols::names::{self, Lookup, Name, Refusal, Replica, Version};
use rt::interface::names as requests;
use std::convert::Infallible;

/// A name, by number.
pub(super) fn name(number: u64) -> Name {
    Name::new(&[b'a' + (number % 26) as u8]).expect("a letter is a name")
}

/// What a program does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
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
    /// The end of what is measured.
    #[default]
    Nothing,
}

/// What a core tells.
#[derive(Clone, Debug, Hash)]
pub enum Note {
    /// A program begins something.
    Begun(Begun<Op>),
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
}

/// The programs of one core.
#[derive(Debug)]
pub struct Programs {
    agenda: Agenda<Op, Infallible>,
    domains: Vec<u32>,
    seen: Version,
    is_quiet: bool,
}

impl Programs {
    pub(super) fn new(agenda: Agenda<Op, Infallible>) -> Self {
        let life = agenda.life.1;
        Self {
            agenda,
            domains: vec![life << 16, life << 16 | 0x8000],
            seen: Version::default(),
            is_quiet: false,
        }
    }

    fn choose(&mut self) -> Op {
        let Agenda {
            life: (core, life),
            random,
            token,
            ..
        } = &mut self.agenda;
        let name = name(random.below(NAMES));
        let domain = random.pick(&self.domains);
        let value = (*core as u64) << 40 | u64::from(*life) << 32 | *token;
        match random.below(16) {
            0..=5 => Op::Bind {
                domain,
                name,
                value,
            },
            6..=7 => Op::Unbind { domain, name },
            8 => {
                // No number is used twice, in any life.
                self.domains.retain(|one| *one != domain);
                self.domains.push(*life << 16 | *token as u32);
                Op::End { domain }
            }
            9 => Op::Watch { name },
            _ => Op::Read { name },
        }
    }

    fn begin(&mut self, op: Op, measured: Measured, hands: &mut Hands<'_, Note>) {
        let begun = self.agenda.begin(op, measured);
        let token = begun.token;
        hands.note(Note::Begun(begun));
        let mut found = None;
        let actions = hands.agent.with_names(|names| match op {
            Op::Bind {
                domain,
                name,
                value,
            } => names.bind(token, domain, name, value),
            Op::Unbind { domain, name } => names.unbind(token, domain, name),
            Op::End { domain } => names.domain_ended(domain),
            Op::Read { name } => {
                found = Some(names.lookup(token, name));
                Vec::new()
            }
            Op::Watch { name } => {
                // There are fewer operations than watches may be.
                let _ = names.watch(token, name, false);
                Vec::new()
            }
            Op::Nothing => Vec::new(),
        });
        match found {
            Some(Lookup::Found(value)) => hands.note(Note::Value {
                token,
                value: Some(value),
            }),
            Some(Lookup::Absent) => hands.note(Note::Value { token, value: None }),
            Some(Lookup::Busy) => hands.note(Note::Busy { token }),
            Some(Lookup::Wait(_)) | None => {}
        }
        self.take(actions, hands);
    }
}

impl Load for Programs {
    type Note = Note;

    fn installed(&mut self, hands: &mut Hands<'_, Note>) {
        self.agenda.installed(hands.now_ns);
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
        if let Some(Due::Op(step)) = self.agenda.due(hands.now_ns) {
            let (op, measured) = step.unwrap_or_else(|| (self.choose(), None));
            self.begin(op, measured, hands);
            self.agenda.go_on(hands.now_ns);
        }
    }

    fn deadline_ns(&self) -> Option<u64> {
        self.agenda.deadline_ns()
    }

    fn mark(note: &Note) -> Option<Mark> {
        match note {
            Note::Begun(begun) => {
                let kind = match begun.op {
                    Op::Bind { .. } => Some(requests::BIND),
                    Op::Unbind { .. } => Some(requests::UNBIND),
                    Op::Read { .. } => Some(requests::LOOKUP),
                    // These have no end that anybody waits for.
                    Op::Watch { .. } | Op::End { .. } | Op::Nothing => None,
                };
                begins(begun, kind)
            }
            Note::Done { token, result } => ends(*token, *result, |refusal| refusal as u64),
            Note::Value { token, .. } => ends(*token, Ok::<(), u64>(()), |_| 0),
            Note::Busy { token } => ends(*token, Err(Refusal::Busy), |refusal| refusal as u64),
            Note::Has(_) | Note::Quiet(_) => None,
        }
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
