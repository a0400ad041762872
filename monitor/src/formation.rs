//! How the first view comes about: every core that boots tells who started it.
//!
//! ```text
//!  parent                     child                      any two cores
//!    │ boot: memory, SIPI ──────►│
//!    │◄────────────── Started ───│                        its monitor runs
//!    │                           │ … brings up its own children …
//!    │◄─────────── Joined {set} ─│                        all that came up below it
//!    │
//!  core 0, when all below it have joined or are given up, decides on the view:
//!    │ View {epoch, set} ───────►│ … handed on down the tree …
//!    │                           │◄── Hello {epoch} ───►│ everybody with everybody
//!    │◄──────── Connected {set} ─│                        all below heard from all
//! ```
//!
//! A child that does not start in time is given up: the rest goes on without it and what it
//! would have brought up. Later views are [`crate::membership`]'s.

use crate::boot_tree;
use crate::core_set::CoreSet;
use crate::view::{Epoch, View};
use alloc::vec::Vec;

/// How long a child's monitor may take from the start-up interrupt on, in nanoseconds.
pub const START_LIMIT_NS: u64 = 60_000_000_000;
/// How long a child may take for what it brings up itself, in nanoseconds.
pub const JOIN_LIMIT_NS: u64 = 120_000_000_000;

/// Messages between two monitors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The sender's monitor runs.
    Started,
    /// These cores came up below the sender, itself included.
    Joined(CoreSet),
    /// The view that holds from now on.
    View(View),
    /// The sender holds the view of this epoch and can be reached.
    Hello {
        /// Epoch of the view.
        epoch: Epoch,
    },
    /// These cores, the sender and those below it, have heard from everybody.
    Connected(CoreSet),
}

/// Kinds of the messages on the wire.
mod kind {
    use crate::kinds;

    pub const STARTED: u16 = kinds::kind(&kinds::FORMATION, 0);
    pub const JOINED: u16 = kinds::kind(&kinds::FORMATION, 1);
    pub const VIEW: u16 = kinds::kind(&kinds::FORMATION, 2);
    pub const HELLO: u16 = kinds::kind(&kinds::FORMATION, 3);
    pub const CONNECTED: u16 = kinds::kind(&kinds::FORMATION, 4);
}

impl Message {
    /// As kind and words.
    pub fn encode(&self) -> (u16, [u64; 7]) {
        let with = |first: u64, set: &CoreSet| {
            let [a, b, c, d] = set.words();
            [first, a, b, c, d, 0, 0]
        };
        match self {
            Self::Started => (kind::STARTED, [0; 7]),
            Self::Joined(set) => (kind::JOINED, with(0, set)),
            Self::View(view) => (kind::VIEW, with(view.epoch.word(), &view.cores)),
            Self::Hello { epoch } => (kind::HELLO, with(epoch.word(), &CoreSet::default())),
            Self::Connected(set) => (kind::CONNECTED, with(0, set)),
        }
    }

    /// From kind and words; `None` for messages that are not membership's.
    pub fn decode(kind: u16, words: &[u64; 7]) -> Option<Self> {
        let [first, a, b, c, d, ..] = *words;
        let set = CoreSet::from_words([a, b, c, d]);
        Some(match kind {
            kind::STARTED => Self::Started,
            kind::JOINED => Self::Joined(set),
            kind::VIEW => Self::View(View {
                epoch: Epoch::from_word(first),
                cores: set,
                settings: 0,
            }),
            kind::HELLO => Self::Hello {
                epoch: Epoch::from_word(first),
            },
            kind::CONNECTED => Self::Connected(set),
            _ => return None,
        })
    }
}

/// What the monitor is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a core.
    Boot(usize),
    /// Send a message to a core.
    Send(usize, Message),
    /// Report that a core did not come up, and how far it had come.
    GiveUp(usize, Progress),
    /// Report that the view was installed.
    Installed(View),
    /// Report that all cores have heard from all (core 0 only).
    AllConnected,
}

/// How far a child has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing was heard from it.
    Booting,
    /// Its monitor runs, and brings up others.
    Started,
    /// It and all below it are up.
    Joined,
    /// It was given up.
    GivenUp,
}

#[derive(Debug)]
struct Child {
    core: usize,
    progress: Progress,
    deadline_ns: u64,
}

/// One monitor's part.
#[derive(Debug)]
pub struct Formation {
    own: usize,
    parent: Option<usize>,
    children: Vec<Child>,
    /// Own core and all that joined below.
    below: CoreSet,
    joined: bool,
    view: View,
    heard: CoreSet,
    /// Cores below, own included, that have heard from everybody.
    connected: CoreSet,
    reported: bool,
}

impl Formation {
    /// The part of core `own` in a machine of `cores`.
    pub fn new(own: usize, cores: usize) -> Self {
        let children = boot_tree::children(own, cores);
        Self {
            own,
            parent: boot_tree::parent(own, cores),
            children: children
                .into_iter()
                .map(|range| Child {
                    core: range.start,
                    progress: Progress::Booting,
                    deadline_ns: 0,
                })
                .collect(),
            below: [own].into_iter().collect(),
            joined: false,
            view: View::default(),
            heard: CoreSet::default(),
            connected: CoreSet::default(),
            reported: false,
        }
    }

    /// The part of a core that comes back: it is all over, and what comes of it is left aside.
    pub fn over(own: usize) -> Self {
        Self {
            own,
            parent: None,
            children: Vec::new(),
            below: CoreSet::default(),
            joined: true,
            view: View::default(),
            heard: CoreSet::default(),
            connected: CoreSet::default(),
            reported: true,
        }
    }

    /// The view that holds.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// When [`Self::on_tick`] is due, in nanoseconds.
    pub fn deadline_ns(&self) -> Option<u64> {
        let waiting =
            |child: &&Child| matches!(child.progress, Progress::Booting | Progress::Started);
        self.children
            .iter()
            .filter(waiting)
            .map(|child| child.deadline_ns)
            .min()
    }

    /// The monitor runs.
    pub fn start(&mut self, now_ns: u64) -> Vec<Action> {
        let mut actions: Vec<Action> = self
            .parent
            .map(|parent| Action::Send(parent, Message::Started))
            .into_iter()
            .collect();
        for child in &mut self.children {
            child.deadline_ns = now_ns + START_LIMIT_NS;
            actions.push(Action::Boot(child.core));
        }
        self.join_if_complete(&mut actions);
        actions
    }

    /// The time is `now_ns`.
    pub fn on_tick(&mut self, now_ns: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        for child in &mut self.children {
            let waiting = matches!(child.progress, Progress::Booting | Progress::Started);
            if waiting && child.deadline_ns <= now_ns {
                actions.push(Action::GiveUp(child.core, child.progress));
                child.progress = Progress::GivenUp;
            }
        }
        if !actions.is_empty() {
            self.join_if_complete(&mut actions);
        }
        actions
    }

    /// A core could not even be booted.
    pub fn boot_failed(&mut self, core: usize) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Some(child) = self.children.iter_mut().find(|child| child.core == core)
            && child.progress == Progress::Booting
        {
            child.progress = Progress::GivenUp;
            actions.push(Action::GiveUp(core, Progress::Booting));
            self.join_if_complete(&mut actions);
        }
        actions
    }

    /// A message came. Whatever it says, at whatever time, it makes sense or is left aside.
    pub fn on_message(&mut self, from: usize, message: &Message, now_ns: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        let child = self.children.iter_mut().find(|child| child.core == from);
        match (message, child) {
            (Message::Started, Some(child)) if child.progress == Progress::Booting => {
                child.progress = Progress::Started;
                child.deadline_ns = now_ns + JOIN_LIMIT_NS;
            }
            (Message::Joined(set), Some(child)) if child.progress == Progress::Started => {
                child.progress = Progress::Joined;
                self.below.extend(set);
                self.join_if_complete(&mut actions);
            }
            (Message::View(view), None)
                if self.parent == Some(from)
                    && view.epoch > self.view.epoch
                    && view.cores.contains(self.own) =>
            {
                self.install(view.clone(), &mut actions);
            }
            (Message::Hello { epoch }, _) if *epoch >= self.view.epoch => {
                // It may come before the view does.
                self.heard.insert(from);
                self.report_if_connected(&mut actions);
            }
            (Message::Connected(set), Some(_)) => {
                self.connected.extend(set);
                self.report_if_connected(&mut actions);
            }
            _ => {}
        }
        actions
    }

    fn join_if_complete(&mut self, actions: &mut Vec<Action>) {
        let settled =
            |child: &Child| matches!(child.progress, Progress::Joined | Progress::GivenUp);
        if self.joined || !self.children.iter().all(settled) {
            return;
        }
        self.joined = true;
        match self.parent {
            Some(parent) => actions.push(Action::Send(parent, Message::Joined(self.below.clone()))),
            None => {
                let view = View {
                    epoch: self.view.epoch.next(self.own),
                    cores: self.below.clone(),
                    settings: 0,
                };
                self.install(view, actions);
            }
        }
    }

    fn install(&mut self, view: View, actions: &mut Vec<Action>) {
        actions.push(Action::Installed(view.clone()));
        for child in self
            .children
            .iter()
            .filter(|child| child.progress == Progress::Joined)
        {
            actions.push(Action::Send(child.core, Message::View(view.clone())));
        }
        // Begin with the next in number, so that not everybody greets core 0 at once.
        let (after, before): (Vec<_>, Vec<_>) = view
            .cores
            .iter()
            .filter(|core| *core != self.own)
            .partition(|core| *core > self.own);
        for core in after.into_iter().chain(before) {
            actions.push(Action::Send(core, Message::Hello { epoch: view.epoch }));
        }
        self.view = view;
        self.heard.insert(self.own);
        self.report_if_connected(actions);
    }

    fn report_if_connected(&mut self, actions: &mut Vec<Action>) {
        if self.view.epoch == Epoch::default()
            || self.reported
            || !self.heard.contains_all(&self.view.cores)
        {
            return;
        }
        self.connected.insert(self.own);
        if !self.connected.contains_all(&self.below) {
            return;
        }
        self.reported = true;
        actions.push(match self.parent {
            Some(parent) => Action::Send(parent, Message::Connected(self.below.clone())),
            None => Action::AllConnected,
        });
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::test_net::Random;
    use std::collections::VecDeque;

    /// Many monitors in one process; a message is delivered in any order but per pair.
    struct Machine {
        monitors: Vec<Option<Formation>>,
        dead: CoreSet,
        wires: Vec<((usize, usize), VecDeque<Message>)>,
        now_ns: u64,
        random: Random,
        given_up: Vec<usize>,
        all_connected: bool,
        sent: usize,
    }

    impl Machine {
        fn new(cores: usize, dead: &[usize], seed: u64) -> Self {
            let mut machine = Self {
                monitors: (0..cores).map(|_| None).collect(),
                dead: dead.iter().copied().collect(),
                wires: Vec::new(),
                now_ns: 0,
                random: Random(seed),
                given_up: Vec::new(),
                all_connected: false,
                sent: 0,
            };
            machine.boot(0);
            machine.run();
            machine
        }

        fn boot(&mut self, core: usize) {
            if self.dead.contains(core) {
                return;
            }
            let mut monitor = Formation::new(core, self.monitors.len());
            let actions = monitor.start(self.now_ns);
            assert!(
                self.monitors[core].replace(monitor).is_none(),
                "core {core} was started twice"
            );
            self.carry_out(core, actions);
        }

        fn carry_out(&mut self, core: usize, actions: Vec<Action>) {
            for action in actions {
                match action {
                    Action::Boot(child) => self.boot(child),
                    Action::Send(to, message) => {
                        let (kind, words) = message.encode();
                        assert_eq!(Message::decode(kind, &words), Some(message.clone()));
                        self.sent += 1;
                        match self.wires.iter_mut().find(|(ends, _)| *ends == (core, to)) {
                            Some((_, wire)) => wire.push_back(message),
                            None => self.wires.push(((core, to), [message].into())),
                        }
                    }
                    Action::GiveUp(child, _) => self.given_up.push(child),
                    Action::Installed(view) => assert!(view.cores.contains(core)),
                    Action::AllConnected => self.all_connected = true,
                }
            }
        }

        fn run(&mut self) {
            loop {
                self.wires.retain(|(_, wire)| !wire.is_empty());
                if self.wires.is_empty() {
                    let next = self
                        .monitors
                        .iter()
                        .flatten()
                        .filter_map(Formation::deadline_ns)
                        .min();
                    let Some(next) = next else { return };
                    self.now_ns = next;
                    for core in 0..self.monitors.len() {
                        if let Some(monitor) = &mut self.monitors[core] {
                            let actions = monitor.on_tick(next);
                            self.carry_out(core, actions);
                        }
                    }
                    continue;
                }
                let at = self.random.below(self.wires.len());
                let ((from, to), wire) = &mut self.wires[at];
                let (from, to) = (*from, *to);
                let message = wire.pop_front().expect("not empty");
                if let Some(monitor) = &mut self.monitors[to] {
                    let actions = monitor.on_message(from, &message, self.now_ns);
                    self.carry_out(to, actions);
                }
            }
        }
    }

    #[test]
    fn all_cores_end_with_one_view_and_all_connected() {
        for cores in [1, 2, 3, 8, 13, 64, 255] {
            for seed in 0..if cores > 60 { 2 } else { 50 } {
                let machine = Machine::new(cores, &[], seed);
                assert!(machine.all_connected, "{cores} cores, seed {seed}");
                let expected = View {
                    epoch: Epoch::default().next(0),
                    cores: (0..cores).collect(),
                    settings: 0,
                };
                for monitor in machine.monitors.iter().flatten() {
                    assert_eq!(*monitor.view(), expected);
                }
                // Hellos, and four messages along each edge of the tree.
                assert_eq!(machine.sent, cores * (cores - 1) + 4 * (cores - 1));
            }
        }
    }

    #[test]
    fn cores_that_do_not_start_are_left_out_with_what_they_bring_up() {
        for seed in 0..50 {
            let machine = Machine::new(13, &[5, 6], seed);
            assert!(machine.all_connected);
            let mut left_out = machine.given_up.clone();
            left_out.sort_unstable();
            assert!(left_out.contains(&6));
            let view = machine.monitors[0].as_ref().expect("core 0 runs").view();
            assert!(
                !view.cores.contains(5)
                    && !view.cores.contains(6)
                    && view.cores.contains(12) == machine.monitors[12].is_some()
            );
            for (core, monitor) in machine.monitors.iter().enumerate() {
                assert_eq!(monitor.is_some(), view.cores.contains(core));
                if let Some(monitor) = monitor {
                    assert_eq!(monitor.view(), view);
                }
            }
        }
    }

    #[test]
    fn messages_out_of_place_change_nothing() {
        let mut monitor = Formation::new(0, 4);
        monitor.start(0);
        let all: CoreSet = (0..4).collect();
        for message in [
            Message::Joined(all.clone()), // before Started
            Message::View(View {
                epoch: Epoch {
                    round: 9,
                    coordinator: 2,
                },
                cores: all.clone(),
                settings: 0,
            }), // from a child
            Message::Hello {
                epoch: Epoch::default(),
            },
        ] {
            assert_eq!(monitor.on_message(2, &message, 0), []);
            assert_eq!(*monitor.view(), View::default());
        }
        assert_eq!(monitor.on_message(77, &Message::Started, 0), []);
        assert_eq!(Message::decode(0x3f, &[0; 7]), None);
    }
}
