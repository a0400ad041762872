//! Which cores are up, after the first view: who comes, who goes, and who is taken for dead.
//!
//! Every core tells the one before it, round the ring of the view, that it is alive. Whoever hears
//! nothing of the core after it for `patience` reports it to the *coordinator*, the lowest core that
//! it does not suspect, and that one asks the suspect itself:
//!
//! ```text
//!  watcher              coordinator             suspect               others
//!    │ Suspect {core} ──────►│ Probe ──────────────►│
//!    │                       │◄────────────── Alive │                     it was only slow
//!    │◄───── Spared {core} ──│
//!
//!                            │ Probe ──────────────► (no answer)
//!                            │ fences it: INIT
//!    │◄─── Gather {ballot} ──│ Gather {ballot} ──────────────────────────►│  promise to follow no
//!    │ Gathered {view} ─────►│◄────────────────────────── Gathered {view} │  lower ballot
//!    │◄────────── View ──────│ View ─────────────────────────────────────►│
//! ```
//!
//! **Suspicion is made true.** A core that does not answer is *fenced* before the others agree to go
//! on without it: an INIT stops it, whatever it was doing. So a core outside of the view does
//! nothing any more, and its memory can be had again. A core that was suspected wrongly learns it
//! from the probe if it is only slow. Else it has stopped; whoever starts it anew sponsors it, and it
//! comes back in a new epoch, with nothing of what it was. What comes from outside of the view is
//! left aside.
//!
//! **Why survivors agree.** A view takes effect where its message arrives, and its coordinator can
//! stop before it has arrived everywhere. The next coordinator fences that one, and asks all others
//! for the view that they hold; where one is newer than its own, it begins again from there. So of
//! all views that anybody alive holds, the newest is what the next one starts from. Two views never
//! have one epoch, since its coordinator is part of the epoch and uses no round twice. Two
//! coordinators that know nothing of each other cannot both go on: either has the other fenced before
//! it asks anybody, and whoever gave a promise refuses views of lower ballots.
//!
//! Cores join and leave by the same way: whoever started one says so ([`Message::Join`]), and
//! whoever leaves asks for it ([`Message::Leave`]); both are said again to a new coordinator. Whoever
//! joins may get a view that the others do not, if its coordinator stops just then. So all that gave
//! their promise know of it ([`Message::Gather`]), and the next coordinator asks those that join as
//! well: who holds a view says so, and the newest is gone on from; who holds none promises only.
//!
//! **Why a new life is not taken for the former one.** A core that was fenced and started anew has
//! lost all that others think it has. They notice if every one of them holds a view without it in
//! between. Three rules see to that:
//!
//! 1. A core without a view answers only to a [`Message::Gather`] that names it as one that joins,
//!    and follows only the view of the last ballot that it answered. Nothing that was meant for its
//!    former life makes it go on as that: it does not answer, and is fenced.
//! 2. Who joins and holds no view is taken into a view only if all views that were answered with are
//!    the one that the coordinator holds, and it is not in that.
//! 3. Else the coordinator makes a view without it first, and begins the next change at once. Whoever
//!    was behind has that view then, or does not follow this coordinator any more.
//!
//! By the first rule, the first view with a new life X is one in which X joined. By the second, all
//! that get it and held any view held one without X when they answered; and having promised this
//! ballot, they follow no view between that one and this. Whoever joins and *does* hold a view is
//! taken in at once, by the second rule or the third: others may count on it already. It cannot be
//! left behind with a view that has the former life of X, since a coordinator that does not hold
//! that view learns of it by the answer.
//!
//! **Settings** are part of the view, so two cores that hold one view have set the same. A core that
//! wants others asks the coordinator ([`Message::Configure`]), and is heard as joining and leaving
//! are. Each view has the settings of the one that it goes on from, or those asked for last.

use crate::core_set::{CoreSet, WORDS};
use crate::view::{Epoch, View};
use abi::limits::MAX_CORES;
use alloc::vec::Vec;

/// Messages between two monitors.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// The sender runs.
    Alive,
    /// The sender hears nothing of this core.
    Suspect {
        /// The core.
        core: usize,
    },
    /// Somebody hears nothing of you: say that you are alive.
    Probe,
    /// The core that you suspect is alive.
    Spared {
        /// The core.
        core: usize,
    },
    /// The sender leads the agreement on a view of this epoch.
    Gather {
        /// The epoch.
        ballot: Epoch,
        /// Who is to be in that view and is not in this one.
        joining: CoreSet,
    },
    /// The sender follows no lower ballot any more, and holds this view.
    Gathered {
        /// The epoch that was asked about.
        ballot: Epoch,
        /// What the sender holds.
        view: View,
    },
    /// The view that holds from now on.
    View(View),
    /// This core runs and is not in the view yet.
    Join {
        /// The core.
        core: usize,
    },
    /// The sender wants to be left out.
    Leave,
    /// The sender wants a view with these settings.
    Configure {
        /// The settings.
        settings: u32,
    },
}

/// Kinds of the messages on the wire.
mod kind {
    use crate::kinds;

    pub const ALIVE: u16 = kinds::kind(&kinds::MEMBERSHIP, 0);
    pub const SUSPECT: u16 = kinds::kind(&kinds::MEMBERSHIP, 1);
    pub const PROBE: u16 = kinds::kind(&kinds::MEMBERSHIP, 2);
    pub const SPARED: u16 = kinds::kind(&kinds::MEMBERSHIP, 3);
    pub const GATHER: u16 = kinds::kind(&kinds::MEMBERSHIP, 4);
    pub const GATHERED: u16 = kinds::kind(&kinds::MEMBERSHIP, 5);
    pub const VIEW: u16 = kinds::kind(&kinds::MEMBERSHIP, 6);
    pub const JOIN: u16 = kinds::kind(&kinds::MEMBERSHIP, 7);
    pub const LEAVE: u16 = kinds::kind(&kinds::MEMBERSHIP, 8);
    pub const CONFIGURE: u16 = kinds::kind(&kinds::MEMBERSHIP, 9);
}

impl Message {
    /// The settings that it bears.
    pub fn settings(&self) -> Option<u32> {
        match self {
            Self::Gathered { view, .. } | Self::View(view) => Some(view.settings),
            Self::Configure { settings } => Some(*settings),
            _ => None,
        }
    }

    /// As kind and words.
    pub fn encode(&self) -> (u16, [u64; 7]) {
        let one = |word| [word, 0, 0, 0, 0, 0, 0];
        let with = |first: u64, view: &View| {
            let [a, b, c, d]: [u64; WORDS] = view.cores.words();
            let settings = u64::from(view.settings);
            [first, view.epoch.word(), a, b, c, d, settings]
        };
        match self {
            Self::Alive => (kind::ALIVE, one(0)),
            Self::Suspect { core } => (kind::SUSPECT, one(*core as u64)),
            Self::Probe => (kind::PROBE, one(0)),
            Self::Spared { core } => (kind::SPARED, one(*core as u64)),
            Self::Gather { ballot, joining } => {
                let [a, b, c, d] = joining.words();
                (kind::GATHER, [ballot.word(), 0, a, b, c, d, 0])
            }
            Self::Gathered { ballot, view } => (kind::GATHERED, with(ballot.word(), view)),
            Self::View(view) => (kind::VIEW, with(0, view)),
            Self::Join { core } => (kind::JOIN, one(*core as u64)),
            Self::Leave => (kind::LEAVE, one(0)),
            Self::Configure { settings } => (kind::CONFIGURE, one(u64::from(*settings))),
        }
    }

    /// From kind and words; `None` for messages that are not membership's, or name a core that no
    /// machine has.
    pub fn decode(kind: u16, words: &[u64; 7]) -> Option<Self> {
        let [first, second, a, b, c, d, settings] = *words;
        let core = || Some(first as usize).filter(|core| *core < MAX_CORES);
        let ballot = Epoch::from_word(first);
        let view = || View {
            epoch: Epoch::from_word(second),
            cores: CoreSet::from_words([a, b, c, d]),
            settings: settings as u32,
        };
        Some(match kind {
            kind::ALIVE => Self::Alive,
            kind::SUSPECT => Self::Suspect { core: core()? },
            kind::PROBE => Self::Probe,
            kind::SPARED => Self::Spared { core: core()? },
            kind::GATHER => Self::Gather {
                ballot,
                joining: view().cores,
            },
            kind::GATHERED => Self::Gathered {
                ballot,
                view: view(),
            },
            kind::VIEW => Self::View(view()),
            kind::JOIN => Self::Join { core: core()? },
            kind::LEAVE => Self::Leave,
            kind::CONFIGURE => Self::Configure {
                settings: first as u32,
            },
            _ => return None,
        })
    }
}

/// What the monitor is to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send a message to a core.
    Send(usize, Message),
    /// Stop a core for good, before anything else happens.
    Fence(usize),
    /// This view holds from now on.
    Installed(View),
    /// This core is not in the view any more.
    Out(View),
}

/// A suspect that the coordinator has asked whether it is alive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Probe {
    core: usize,
    deadline_ns: u64,
}

/// What the coordinator keeps of a change of views.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Change {
    ballot: Epoch,
    /// Who is to join: all know of them who have answered.
    joining: CoreSet,
    /// Those of them who hold a view already.
    holders: CoreSet,
    /// All views that were answered with are the one that the coordinator holds.
    is_even: bool,
    /// Who has not answered yet.
    waiting: CoreSet,
    deadline_ns: u64,
}

/// One monitor's part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Membership {
    own: usize,
    patience_ns: u64,
    /// It takes no part before a coordinator has asked it to.
    is_anew: bool,
    view: View,
    /// No view of a lower epoch is followed.
    promised: Epoch,
    /// Cores of the view that are suspected, here or by who reported to us.
    suspects: CoreSet,
    /// Cores that were fenced from here, and are in the view still.
    fenced: CoreSet,
    /// Who is to be in the next view and is not in this one, as far as the coordinator knows.
    joining: CoreSet,
    /// Who is not to be in the next view.
    leaving: CoreSet,
    /// Cores that were started from here, and are not in the view yet.
    sponsored: CoreSet,
    leaves: bool,
    /// The settings that we asked for.
    wanted: Option<u32>,
    /// The settings of the next view, if they are not to be those of this one.
    settings: Option<u32>,
    probes: Vec<Probe>,
    /// Suspects, and who told us of them.
    reports: Vec<(usize, usize)>,
    /// Whoever coordinates has been told of all suspects.
    is_reported: bool,
    change: Option<Change>,
    /// When the core after us was last heard of.
    heard_ns: u64,
    /// When we are to say that we are alive.
    due_ns: u64,
    /// By when whoever coordinates must have acted on what we know.
    result_ns: Option<u64>,
    /// Who has our promise, and has not sent a view since.
    follows: Option<usize>,
}

impl Membership {
    /// The part of core `own` until the first view: [`Self::begin`] is to follow. Whoever is not heard
    /// of for `patience_ns` is suspected.
    pub fn new(own: usize, patience_ns: u64) -> Self {
        Self {
            own,
            patience_ns,
            is_anew: false,
            view: View::default(),
            promised: Epoch::default(),
            suspects: CoreSet::default(),
            fenced: CoreSet::default(),
            joining: CoreSet::default(),
            leaving: CoreSet::default(),
            sponsored: CoreSet::default(),
            leaves: false,
            wanted: None,
            settings: None,
            probes: Vec::new(),
            reports: Vec::new(),
            is_reported: false,
            change: None,
            heard_ns: 0,
            due_ns: u64::MAX,
            result_ns: None,
            follows: None,
        }
    }

    /// The part of core `own` that was started after the first view: it joins once somebody sponsors
    /// it, and does not answer for whatever ran on this core before.
    pub fn anew(own: usize, patience_ns: u64) -> Self {
        Self {
            is_anew: true,
            ..Self::new(own, patience_ns)
        }
    }

    /// The view that holds.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// All settings that this core knows, and may send: those of its view, those that it asked for, and
    /// those that the next view is to have. Some may be there twice.
    pub fn known_settings(&self) -> impl Iterator<Item = u32> {
        let of_view = Some(self.view.settings);
        [of_view, self.wanted, self.settings].into_iter().flatten()
    }

    /// Whether a change of views is under way: messages of this epoch are to be held back.
    pub fn is_changing(&self) -> bool {
        self.promised > self.view.epoch
    }

    /// When [`Self::on_tick`] is due, in nanoseconds.
    pub fn deadline_ns(&self) -> Option<u64> {
        if self.view.cores.len() < 2 && self.change.is_none() {
            return None;
        }
        let probes = self.probes.iter().map(|probe| probe.deadline_ns);
        let change = self.change.as_ref().map(|change| change.deadline_ns);
        let watched = self
            .watched()
            .map(|_| self.heard_ns.saturating_add(self.patience_ns));
        probes
            .chain(change)
            .chain(watched)
            .chain(self.result_ns)
            .chain([self.due_ns])
            .min()
    }

    /// The core that we watch, unless we have given it up already.
    fn watched(&self) -> Option<usize> {
        let next = self.view.cores.next_after(self.own)?;
        (next != self.own && !self.suspects.contains(next) && !self.fenced.contains(next))
            .then_some(next)
    }

    /// Whoever is to coordinate, for all we know.
    fn coordinator(&self) -> usize {
        let stands = |core: &usize| !self.suspects.contains(*core) && !self.fenced.contains(*core);
        let lowest = self.view.cores.iter().find(stands);
        lowest.unwrap_or(self.own)
    }

    /// The first view came about in another way: see [`crate::formation`]. Without effect if a newer
    /// one holds, or the view is without this core.
    pub fn begin(&mut self, view: View, now_ns: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        if view.epoch > self.view.epoch && view.cores.contains(self.own) {
            self.promised = self.promised.max(view.epoch);
            self.install(view, now_ns, &mut actions);
        }
        actions
    }

    /// A core that we started runs: it is to join. Without effect if it is in the view, as it is until
    /// all have gone on without its former life.
    pub fn sponsor(&mut self, core: usize, now_ns: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        if !self.view.cores.contains(core) {
            self.sponsored.insert(core);
            self.ask(now_ns, &mut actions);
        }
        actions
    }

    /// This core is to leave.
    pub fn leave(&mut self, now_ns: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        self.leaves = true;
        self.ask(now_ns, &mut actions);
        actions
    }

    /// All cores are to have these settings. That is asked of one coordinator after the other until a
    /// view with them is installed here; of settings asked for at the same time, all hold for a
    /// while, and those that a coordinator took last stay.
    pub fn configure(&mut self, settings: u32, now_ns: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        let is_asked = self.view.cores.is_empty() || self.wanted.is_some();
        if is_asked || self.view.settings != settings {
            self.wanted = Some(settings);
            self.ask(now_ns, &mut actions);
        }
        actions
    }

    /// The time is `now_ns`, and all messages that had come by then were handed over.
    pub fn on_tick(&mut self, now_ns: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.due_ns <= now_ns {
            self.due_ns = now_ns.saturating_add(self.patience_ns / 2);
            if let Some(watcher) = self.view.cores.next_before(self.own)
                && watcher != self.own
            {
                actions.push(Action::Send(watcher, Message::Alive));
            }
        }
        if let Some(watched) = self.watched()
            && self.heard_ns.saturating_add(self.patience_ns) <= now_ns
        {
            self.suspect(watched);
        }
        let late = |probe: &&Probe| probe.deadline_ns <= now_ns;
        let dead: Vec<usize> = self
            .probes
            .iter()
            .filter(late)
            .map(|one| one.core)
            .collect();
        if !dead.is_empty() {
            self.probes.retain(|probe| !dead.contains(&probe.core));
            dead.into_iter()
                .for_each(|core| self.fence(core, &mut actions));
            self.begin_change(now_ns, &mut actions);
        }
        if let Some(change) = &mut self.change
            && change.deadline_ns <= now_ns
        {
            let dead = core::mem::take(&mut change.waiting);
            for core in dead.iter() {
                match self.view.cores.contains(core) {
                    true => self.fence(core, &mut actions),
                    // It joins as it is, and is found dead then: so its sponsor learns of it.
                    false => actions.push(Action::Fence(core)),
                }
            }
            self.conclude(now_ns, &mut actions);
        }
        if self.result_ns.is_some_and(|result_ns| result_ns <= now_ns) {
            // Whoever is to coordinate does not. If that one is suspected already, the next in line
            // may not know yet, and is told.
            self.result_ns = None;
            let leader = self.follows.take();
            if !leader.is_some_and(|leader| self.suspects.contains(leader)) {
                self.suspect(leader.unwrap_or_else(|| self.coordinator()));
            }
        }
        self.pursue(now_ns, &mut actions);
        actions
    }

    /// A message came. Whatever it says, at whatever time, it makes sense or is left aside.
    pub fn on_message(&mut self, from: usize, message: &Message, now_ns: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        let is_new = self.view.cores.is_empty();
        if self.fenced.contains(from) {
            return actions;
        }
        let is_part = self.view.cores.contains(from) || self.joining.contains(from);
        if !is_new && !is_part {
            // One that left and was not told, since whoever should have told it stopped, must not
            // take us for dead.
            if matches!(message, Message::Gather { .. } | Message::Probe) {
                actions.push(Action::Send(from, Message::View(self.view.clone())));
            }
            return actions;
        }
        match message {
            Message::Alive => self.heard_of(from, now_ns, &mut actions),
            Message::Suspect { core } => {
                self.suspect(*core);
                if !self.reports.contains(&(*core, from)) {
                    self.reports.push((*core, from));
                }
            }
            // Who asks means its former life, or a view that it did not follow.
            Message::Probe if is_new && self.is_anew => {}
            Message::Probe => actions.push(Action::Send(from, Message::Alive)),
            Message::Spared { core } => {
                self.spare(*core, now_ns, &mut actions);
            }
            Message::Gather { ballot, joining }
                if *ballot > self.promised && (!is_new || joining.contains(self.own)) =>
            {
                self.promised = *ballot;
                // Should the sender stop, they may be in a view that nobody else has got.
                self.joining.extend(joining);
                self.joining.subtract(&self.view.cores);
                self.change = None;
                self.follows = Some(from);
                self.result_ns = Some(self.result_after(now_ns));
                let (ballot, view) = (*ballot, self.view.clone());
                actions.push(Action::Send(from, Message::Gathered { ballot, view }));
            }
            Message::Gathered { ballot, view } => {
                self.gathered(from, *ballot, view, now_ns, &mut actions);
            }
            // This is for whoever was in the view before, or has answered as one that joins.
            Message::View(view) if is_new && view.epoch != self.promised => {}
            Message::View(view) if view.epoch > self.view.epoch => {
                if !view.cores.contains(self.own) {
                    // Whatever was promised: nobody is left out but who asked for it.
                    self.out(view.clone(), &mut actions);
                } else if view.epoch >= self.promised {
                    self.promised = view.epoch;
                    self.install(view.clone(), now_ns, &mut actions);
                }
            }
            Message::Join { core } if !self.view.cores.contains(*core) && !is_new => {
                self.joining.insert(*core);
                self.coordinate(now_ns, &mut actions);
            }
            Message::Leave if !is_new => {
                self.leaving.insert(from);
                self.coordinate(now_ns, &mut actions);
            }
            Message::Configure { settings } if !is_new => {
                self.settings = Some(*settings);
                self.coordinate(now_ns, &mut actions);
            }
            _ => {}
        }
        self.pursue(now_ns, &mut actions);
        actions
    }

    /// By when a coordinator has either made a view or stopped: it waits for probes, and for answers.
    fn result_after(&self, now_ns: u64) -> u64 {
        now_ns.saturating_add(self.patience_ns.saturating_mul(4))
    }

    fn heard_of(&mut self, core: usize, now_ns: u64, actions: &mut Vec<Action>) {
        for (_, reporter) in self.reports.extract_if(.., |(suspect, _)| *suspect == core) {
            actions.push(Action::Send(reporter, Message::Spared { core }));
        }
        self.spare(core, now_ns, actions);
    }

    fn spare(&mut self, core: usize, now_ns: u64, actions: &mut Vec<Action>) {
        self.probes.retain(|probe| probe.core != core);
        if self.suspects.remove(core) && self.coordinator() == core {
            // What we asked of it may have come before the view in which it coordinates.
            self.ask(now_ns, actions);
        }
        if self.watched() == Some(core) {
            self.heard_ns = now_ns;
        }
        if self.suspects.is_empty() && self.follows.is_none() && !self.wants() {
            self.result_ns = None;
        }
    }

    fn suspect(&mut self, core: usize) {
        let is_known = self.suspects.contains(core) || self.fenced.contains(core);
        if core != self.own && self.view.cores.contains(core) && !is_known {
            self.suspects.insert(core);
            self.is_reported = false;
        }
    }

    /// Sees to it that somebody pursues every suspicion: we, if we coordinate, or whoever does.
    fn pursue(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        if self.suspects.is_empty() {
            return;
        }
        let coordinator = self.coordinator();
        if coordinator == self.own {
            let waiting = self.change.as_ref().map(|change| &change.waiting);
            let is_asked = |core: &usize| {
                waiting.is_some_and(|waiting| waiting.contains(*core))
                    || self.probes.iter().any(|probe| probe.core == *core)
            };
            let suspects = self.suspects.iter();
            let unasked: Vec<usize> = suspects.filter(|core| !is_asked(core)).collect();
            for core in unasked {
                let deadline_ns = now_ns.saturating_add(self.patience_ns);
                self.probes.push(Probe { core, deadline_ns });
                actions.push(Action::Send(core, Message::Probe));
            }
        } else if !self.is_reported || self.result_ns.is_none() {
            // It may know of none of them.
            for core in self.suspects.iter() {
                actions.push(Action::Send(coordinator, Message::Suspect { core }));
            }
            self.is_reported = true;
            self.result_ns = Some(self.result_after(now_ns));
        }
    }

    fn fence(&mut self, core: usize, actions: &mut Vec<Action>) {
        self.suspects.remove(core);
        if !self.fenced.contains(core) {
            self.fenced.insert(core);
            actions.push(Action::Fence(core));
        }
    }

    /// Whether there is something that we asked the coordinator for.
    fn wants(&self) -> bool {
        self.leaves || !self.sponsored.is_empty() || self.wanted.is_some()
    }

    /// Asks the coordinator for what we want.
    fn ask(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        if !self.wants() || self.view.cores.is_empty() {
            return;
        }
        let coordinator = self.coordinator();
        if coordinator == self.own {
            self.joining.extend(&self.sponsored);
            if self.leaves {
                self.leaving.insert(self.own);
            }
            self.settings = self.wanted.or(self.settings);
            self.coordinate(now_ns, actions);
            return;
        }
        self.result_ns = Some(self.result_after(now_ns));
        for core in self.sponsored.iter() {
            actions.push(Action::Send(coordinator, Message::Join { core }));
        }
        if self.leaves {
            actions.push(Action::Send(coordinator, Message::Leave));
        }
        if let Some(settings) = self.wanted {
            actions.push(Action::Send(coordinator, Message::Configure { settings }));
        }
    }

    /// Begins a change if we coordinate and none is under way.
    fn coordinate(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        if self.coordinator() == self.own && self.change.is_none() && !self.view.cores.is_empty() {
            self.begin_change(now_ns, actions);
        }
    }

    fn begin_change(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        let newest = self.promised.max(self.view.epoch);
        let ballot = newest.next(self.own);
        if ballot <= newest {
            return; // all rounds are used up, and none is used twice
        }
        self.promised = ballot;
        self.follows = None;
        let mut waiting = self.view.cores.clone();
        waiting.extend(&self.joining);
        waiting.subtract(&self.fenced);
        waiting.remove(self.own);
        for core in waiting.iter() {
            let joining = self.joining.clone();
            actions.push(Action::Send(core, Message::Gather { ballot, joining }));
        }
        self.change = Some(Change {
            ballot,
            joining: self.joining.clone(),
            holders: CoreSet::default(),
            is_even: true,
            waiting,
            deadline_ns: now_ns.saturating_add(self.patience_ns),
        });
        self.conclude(now_ns, actions);
    }

    fn gathered(
        &mut self,
        from: usize,
        ballot: Epoch,
        view: &View,
        now_ns: u64,
        actions: &mut Vec<Action>,
    ) {
        let Some(change) = &mut self.change else {
            return;
        };
        if change.ballot != ballot || !change.waiting.remove(from) {
            return;
        }
        if view.epoch > self.view.epoch {
            // Whoever made this view stopped before we heard of it. It holds, and we go on from it.
            if !view.cores.contains(self.own) {
                self.out(view.clone(), actions);
                return;
            }
            let (fenced, settings) = (self.fenced.clone(), self.settings);
            let (joining, leaving) = (self.joining.clone(), self.leaving.clone());
            self.install(view.clone(), now_ns, actions);
            (self.fenced, self.joining, self.leaving) = (fenced, joining, leaving);
            self.joining.subtract(&self.view.cores);
            self.settings = self.wanted.or(settings);
            self.begin_change(now_ns, actions);
            return;
        }
        if !view.cores.is_empty() {
            change.is_even &= view.epoch == self.view.epoch;
            if !self.view.cores.contains(from) {
                change.holders.insert(from);
            }
        }
        self.conclude(now_ns, actions);
    }

    /// Makes the view if all have answered.
    fn conclude(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        let Some(change) = self.change.take_if(|change| change.waiting.is_empty()) else {
            return;
        };
        let mut cores = self.view.cores.clone();
        // Who is behind first gets a view without those that are new.
        cores.extend(match change.is_even {
            true => &change.joining,
            false => &change.holders,
        });
        cores.subtract(&self.fenced);
        let mut receivers = cores.clone();
        cores.subtract(&self.leaving);
        receivers.remove(self.own);
        let view = View {
            epoch: change.ballot,
            cores,
            settings: self.settings.take().unwrap_or(self.view.settings),
        };
        for core in receivers.iter() {
            actions.push(Action::Send(core, Message::View(view.clone())));
        }
        if view.cores.contains(self.own) {
            self.install(view, now_ns, actions);
        } else {
            self.out(view, actions);
        }
    }

    fn out(&mut self, view: View, actions: &mut Vec<Action>) {
        *self = Self::anew(self.own, self.patience_ns);
        actions.push(Action::Out(view));
    }

    fn install(&mut self, view: View, now_ns: u64, actions: &mut Vec<Action>) {
        self.sponsored.subtract(&view.cores);
        let asked = core::mem::take(&mut self.joining);
        let left = core::mem::take(&mut self.leaving);
        self.suspects = CoreSet::default();
        self.fenced = CoreSet::default();
        self.probes.clear();
        self.reports.clear();
        self.change = None;
        self.follows = None;
        self.result_ns = None;
        // Whoever asked for other settings does so again.
        self.settings = None;
        self.wanted = self.wanted.filter(|wanted| *wanted != view.settings);
        self.heard_ns = now_ns;
        self.due_ns = now_ns;
        self.view = view;
        actions.push(Action::Installed(self.view.clone()));
        // Whoever asked us while the change was under way is not forgotten.
        let open = |core: &usize| !self.view.cores.contains(*core);
        self.joining = asked.iter().filter(open).collect();
        self.leaving = left
            .iter()
            .filter(|core| self.view.cores.contains(*core))
            .collect();
        self.ask(now_ns, actions);
        if !(self.joining.is_empty() && self.leaving.is_empty()) {
            self.coordinate(now_ns, actions);
        }
    }
}
