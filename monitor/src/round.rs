//! A message from a root to a set of cores, and one answer of all.
//!
//! ```text
//!  root                 child                grandchild          the shape: see tree.rs
//!    │ Spread {payload} ──►│ Spread {payload} ───►│
//!    │ works               │ works                │ works
//!    │                     │◄──────────────── Ack │               it and all below it are through
//!    │◄─────────────── Ack │
//!    │ done
//! ```
//!
//! A core acknowledges when it has done its own work and all of its children have acknowledged, so
//! the root learns with the last acknowledgement that all of the set are through. N cores take
//! 2(N-1) messages.
//!
//! The set travels in the message, so nobody has to hold the same idea of who is concerned. Two
//! rounds may pass one another, between two cores too: what the root sends to a core by another way
//! may come before or after the message of the round.
//!
//! A view change ends all rounds ([`Round::installed`]): the root begins anew what it still wants.
//! Work that a core began for a round that is over has a number that no other has, so its end is
//! left aside.

use crate::core_set::CoreSet;
use crate::tree::{Machine, Planner, Strategy};
use crate::view::View;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Rounds of one root that are under way at once.
pub const WINDOW: usize = 16;

/// What a round is about: as much as fits beside the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Payload {
    /// The lower 48 bits count.
    pub tag: u64,
    /// All bits count.
    pub word: u64,
}

/// Messages between two monitors.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Down the tree.
    Spread {
        /// Who began.
        root: usize,
        /// Which of its rounds.
        sequence: u32,
        /// All cores of the tree, the root included.
        set: CoreSet,
        /// What it is about.
        payload: Payload,
    },
    /// Up the tree: the sender and all below it are through.
    Ack {
        /// Who began.
        root: usize,
        /// Which of its rounds.
        sequence: u32,
    },
}

impl Message {
    /// As kind and words; `kinds` are those of the two messages in the protocol that uses them.
    /// Spread: sequence, root << 48 | tag, four words of the set, the payload's word. Ack: sequence,
    /// root. The upper half of word 0 is free.
    pub fn encode(&self, kinds: [u16; 2]) -> (u16, [u64; 7]) {
        match self {
            Self::Spread {
                root,
                sequence,
                set,
                payload,
            } => {
                let [a, b, c, d] = set.words();
                let tag = payload.tag & ((1 << 48) - 1) | (*root as u64) << 48;
                let words = [u64::from(*sequence), tag, a, b, c, d, payload.word];
                (kinds[0], words)
            }
            Self::Ack { root, sequence } => {
                let words = [u64::from(*sequence), *root as u64, 0, 0, 0, 0, 0];
                (kinds[1], words)
            }
        }
    }

    /// From kind and words; `None` for other kinds.
    pub fn decode(kinds: [u16; 2], kind: u16, words: &[u64; 7]) -> Option<Self> {
        let [first, second, a, b, c, d, word] = *words;
        let sequence = first as u32;
        if kind == kinds[0] {
            let tag = second & ((1 << 48) - 1);
            Some(Self::Spread {
                root: (second >> 48) as usize,
                sequence,
                set: CoreSet::from_words([a, b, c, d]),
                payload: Payload { tag, word },
            })
        } else if kind == kinds[1] {
            let root = second as usize;
            Some(Self::Ack { root, sequence })
        } else {
            None
        }
    }
}

/// What whoever embeds this is to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send a message to a core.
    Send(usize, Message),
    /// Do this core's part, then say [`Round::worked`].
    Work {
        /// Names the work; used once.
        work: u64,
        /// The root.
        root: usize,
        /// All cores of the round, the root included.
        set: CoreSet,
        /// What it is about.
        payload: Payload,
    },
    /// All of the set are through with the own round of this number.
    Done {
        /// See [`Round::begin`].
        sequence: u32,
    },
}

/// A round that passes through this core.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Part {
    /// Nobody at the root.
    parent: Option<usize>,
    /// Children that have not acknowledged.
    waiting: CoreSet,
    /// The own work, until it is done.
    work: Option<u64>,
}

/// One core's part in all rounds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Round {
    own: usize,
    planner: Planner,
    view: CoreSet,
    /// By root and sequence.
    parts: BTreeMap<(usize, u32), Part>,
    next_sequence: u32,
    next_work: u64,
}

impl Round {
    /// The part of core `own`, in no view yet.
    pub fn new(own: usize, planner: Planner) -> Self {
        Self {
            own,
            planner,
            view: CoreSet::default(),
            parts: BTreeMap::new(),
            next_sequence: 0,
            next_work: 0,
        }
    }

    /// How rounds spread from now on. All cores must take it up at the same place in the order of
    /// views: right before [`Self::installed`].
    pub fn set_strategy(&mut self, strategy: Strategy, machine: Arc<Machine>) {
        self.planner.set_strategy(strategy, machine);
    }

    /// Rounds that pass through this core now.
    pub fn under_way(&self) -> usize {
        self.parts.len()
    }

    fn of(&self, root: usize) -> usize {
        self.parts.range((root, 0)..=(root, u32::MAX)).count()
    }

    /// Whether [`Self::begin`] would refuse for the number of rounds.
    pub fn is_full(&self) -> bool {
        self.of(self.own) >= WINDOW
    }

    /// Begins a round over a set of cores of the view; the own core counts as in it. `works`: the
    /// own core has work to do as well. `None` where [`WINDOW`] own rounds are under way, or some of
    /// the set are not in the view.
    pub fn begin(
        &mut self,
        mut set: CoreSet,
        payload: Payload,
        works: bool,
    ) -> Option<(u32, Vec<Action>)> {
        set.insert(self.own);
        if self.is_full() || !self.view.contains_all(&set) {
            return None;
        }
        let sequence = self.next_sequence;
        self.next_sequence = sequence.wrapping_add(1);
        let mut actions = Vec::new();
        self.enter(self.own, sequence, &set, payload, works, &mut actions)?;
        self.conclude(self.own, sequence, &mut actions);
        Some((sequence, actions))
    }

    fn enter(
        &mut self,
        root: usize,
        sequence: u32,
        set: &CoreSet,
        payload: Payload,
        works: bool,
        actions: &mut Vec<Action>,
    ) -> Option<()> {
        let place = self.planner.place(set, root)?;
        for child in &place.children {
            let message = Message::Spread {
                root,
                sequence,
                set: set.clone(),
                payload,
            };
            actions.push(Action::Send(*child, message));
        }
        let work = works.then(|| {
            self.next_work += 1;
            let (work, set) = (self.next_work, set.clone());
            actions.push(Action::Work {
                work,
                root,
                set,
                payload,
            });
            work
        });
        let part = Part {
            parent: place.parent,
            waiting: place.children.into_iter().collect(),
            work,
        };
        self.parts.insert((root, sequence), part);
        Some(())
    }

    /// A message came. Whatever it says, at whatever time, it makes sense or is left aside.
    pub fn on_message(&mut self, from: usize, message: &Message) -> Vec<Action> {
        let mut actions = Vec::new();
        match message {
            Message::Spread {
                root,
                sequence,
                set,
                payload,
            } => {
                let is_known = self.parts.contains_key(&(*root, *sequence));
                let is_sound = *root != self.own
                    && self.view.contains_all(set)
                    && self
                        .planner
                        .place(set, *root)
                        .and_then(|place| place.parent)
                        == Some(from);
                if !is_known && is_sound && self.of(*root) < WINDOW {
                    self.enter(*root, *sequence, set, *payload, true, &mut actions);
                }
            }
            Message::Ack { root, sequence } => {
                if let Some(part) = self.parts.get_mut(&(*root, *sequence)) {
                    part.waiting.remove(from);
                    self.conclude(*root, *sequence, &mut actions);
                }
            }
        }
        actions
    }

    /// The own work of this number is done; left aside if its round is over.
    pub fn worked(&mut self, work: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut parts = self.parts.iter_mut();
        if let Some((key, part)) = parts.find(|(_, part)| part.work == Some(work)) {
            let (root, sequence) = *key;
            part.work = None;
            self.conclude(root, sequence, &mut actions);
        }
        actions
    }

    /// Acknowledges if nothing is left to wait for.
    fn conclude(&mut self, root: usize, sequence: u32, actions: &mut Vec<Action>) {
        let key = (root, sequence);
        let part = self.parts.get(&key);
        if !part.is_some_and(|part| part.waiting.is_empty() && part.work.is_none()) {
            return;
        }
        let Some(part) = self.parts.remove(&key) else {
            return;
        };
        actions.push(match part.parent {
            Some(parent) => Action::Send(parent, Message::Ack { root, sequence }),
            None => Action::Done { sequence },
        });
    }

    /// Another view holds: all rounds are over, and nobody is told.
    pub fn installed(&mut self, view: &View) {
        self.parts.clear();
        self.view = view.cores.clone();
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::tree::Machine;
    use crate::view::Epoch;
    use alloc::collections::VecDeque;
    use alloc::sync::Arc;
    use alloc::vec;

    const PAYLOAD: Payload = Payload { tag: 5, word: 6 };

    fn cores(count: usize, strategy: Strategy) -> Vec<Round> {
        let machine = Arc::new(Machine::new(
            (0..count).map(|core| core / 4).collect(),
            |_, _| crate::tree::Cost::default(),
        ));
        let view = View {
            epoch: Epoch::default().next(0),
            cores: CoreSet::first(count),
            settings: 0,
        };
        let round = |own| {
            let mut round = Round::new(own, Planner::new(own, strategy, machine.clone()));
            round.installed(&view);
            round
        };
        (0..count).map(round).collect()
    }

    /// Runs until nothing is on its way; messages in a random order, works end when drawn. Messages
    /// sent, and whether the root was done with all works done.
    fn run(
        rounds: &mut [Round],
        root: usize,
        first: Vec<Action>,
        seed: &mut u64,
    ) -> (usize, usize) {
        let mut wires: Vec<(usize, usize, VecDeque<Message>)> = Vec::new();
        let mut works = Vec::new();
        let (mut sent, mut worked) = (0, 0);
        let mut todo: VecDeque<_> = first.into_iter().map(|action| (root, action)).collect();
        loop {
            while let Some((core, action)) = todo.pop_front() {
                match action {
                    Action::Send(to, message) => {
                        sent += 1;
                        match wires.iter_mut().find(|wire| (wire.0, wire.1) == (core, to)) {
                            Some(wire) => wire.2.push_back(message),
                            None => wires.push((core, to, VecDeque::from([message]))),
                        }
                    }
                    Action::Work { work, payload, .. } => {
                        assert_eq!(payload, PAYLOAD);
                        works.push((core, work));
                    }
                    Action::Done { .. } => {
                        assert!(works.is_empty() && wires.is_empty());
                        assert!(rounds.iter().all(|round| round.under_way() == 0));
                        return (sent, worked);
                    }
                }
            }
            *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let drawn = (*seed >> 33) as usize % (wires.len() + works.len());
            if drawn < works.len() {
                let (core, work) = works.swap_remove(drawn);
                worked += 1;
                todo.extend(
                    rounds[core]
                        .worked(work)
                        .into_iter()
                        .map(|action| (core, action)),
                );
            } else {
                let wire = &mut wires[drawn - works.len()];
                let (from, to) = (wire.0, wire.1);
                let message = wire.2.pop_front().expect("not empty");
                if wire.2.is_empty() {
                    wires.swap_remove(drawn - works.len());
                }
                let actions = rounds[to].on_message(from, &message);
                todo.extend(actions.into_iter().map(|action| (to, action)));
            }
        }
    }

    #[test]
    fn all_work_before_the_root_is_done() {
        let mut seed = 1;
        for count in (1..24).chain([64, 200]) {
            for strategy in [
                Strategy::Unicast,
                Strategy::Tree { arity: 2 },
                Strategy::Sockets { arity: 2 },
                Strategy::Computed,
            ] {
                let mut rounds = cores(count, strategy);
                for root in [0, count / 2, count - 1] {
                    let set: CoreSet = (0..count).filter(|core| core % 3 != 1).collect();
                    let mut all = set.clone();
                    all.insert(root);
                    for works in [false, true] {
                        let (_, actions) = rounds[root]
                            .begin(set.clone(), PAYLOAD, works)
                            .expect("room");
                        let (sent, worked) = run(&mut rounds, root, actions, &mut seed);
                        assert_eq!(sent, 2 * (all.len() - 1));
                        assert_eq!(worked, all.len() - usize::from(!works));
                    }
                }
            }
        }
    }

    #[test]
    fn bounds_hold_and_nonsense_is_left_aside() {
        let mut rounds = cores(3, Strategy::Unicast);
        let all = CoreSet::first(3);
        for sequence in 0..WINDOW as u32 {
            let begun = rounds[0].begin(all.clone(), PAYLOAD, true).expect("room");
            assert_eq!(begun.0, sequence);
        }
        assert!(rounds[0].begin(all.clone(), PAYLOAD, true).is_none());
        assert!(rounds[1].begin(CoreSet::first(4), PAYLOAD, true).is_none());
        for sequence in 0..1000 {
            for (root, from) in [(0, 0), (0, 2), (2, 0), (1, 0), (7, 0)] {
                for set in [CoreSet::first(3), CoreSet::first(4), CoreSet::first(1)] {
                    let message = Message::Spread {
                        root,
                        sequence,
                        set,
                        payload: PAYLOAD,
                    };
                    let (kind, words) = message.encode([1, 2]);
                    assert_eq!(Message::decode([1, 2], kind, &words), Some(message.clone()));
                    rounds[1].on_message(from, &message);
                    let message = Message::Ack { root, sequence };
                    let (kind, words) = message.encode([1, 2]);
                    assert_eq!(Message::decode([1, 2], kind, &words), Some(message.clone()));
                    rounds[1].on_message(from, &message);
                }
            }
        }
        assert!(rounds[1].under_way() <= WINDOW);
        let view = View {
            epoch: Epoch::default().next(0).next(1),
            cores: CoreSet::first(2),
            settings: 0,
        };
        rounds[0].installed(&view);
        assert_eq!(rounds[0].under_way(), 0);
        // Work of a round that is over.
        assert_eq!(rounds[0].worked(1), vec![]);
        assert!(rounds[0].begin(all, PAYLOAD, true).is_none());
    }
}
