//! Cores that stop in good order, and cores that start anew.
//!
//! ```text
//!  starter                core 0            all others of the view        the core
//!    │ TURN ────────────────►│                                             (in no view)
//!    │◄────────── YOUR_TURN ─│  one at a time
//!    │ INIT ─────────────────────────────────────────────────────────────►│ quiet
//!    │ FORGET ────────────────────────────────►│ frames, channel: gone
//!    │◄────────────────────────────  FORGOTTEN │
//!    │ memory, SIPI ─────────────────────────────────────────────────────►│ connects with all
//!    │◄───────────────────────────────────────────────────────────── UP ──│
//!    │ … membership: sponsor, Gather, View with it …
//!    │ TURN: done ──────────►│
//! ```
//!
//! **Nothing of the former life is used.** Who is told to forget a core, and holds a view at least
//! as new as the starter's, kills the domains that share a frame of it, and the members of spans that
//! have mapped what it had mapped there; sees to it that all of that is unmapped in its spaces and that
//! all regions in its memory are revoked that this core is the home of; waits until this core has none
//! of them; takes from all domains what they have of its memory, and zeroes the page of its channel
//! with it (see `forgets`). Only when all members of the view have done so is the memory filled. With
//! another view, all are asked again. Who is no member yet was started before and joins before the next
//! turn: a turn ends when the starter holds the view with the core that it started, and whoever has the
//! next one waits for that view, so it asks that core too.
//!
//! **Both ends of a channel begin anew.** Both have zeroed the page, or were told of each other
//! first afterwards: a survivor connects when membership sends to the core, of which it learns
//! from the starter once that has heard from it, or in the view with it. The core itself connects
//! with all of the starter's view before it says that it is up. Should one of these be lost before
//! its first view, it has sent nothing there, and connects anew if that one comes back.
//!
//! Until it is told to forget a core, a monitor listens to it, for it may have left and not know.

mod forgets;

use crate::boot::{self, BootError};
use crate::mesh;
use crate::requests::{Requester, value};
use crate::{Monitor, domains};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::vec::Vec;
use forgets::Forgets;
pub use forgets::memory_of;
use loader::image::Anew;
use protocols::core_set::CoreSet;
use protocols::formation::START_LIMIT_NS;
use protocols::spaces::SpaceId;
use rt::authority;
use rt::clock;
use rt::interface::{Error, cores};
use urpc::Message;

/// How long others may take to forget a core that is to start, in nanoseconds.
const FORGET_LIMIT_NS: u64 = 30_000_000_000;

/// Most domains that wait for the start of one core.
const MAX_REQUESTERS: usize = 64;

/// A core that this monitor was asked to start.
struct Start {
    core: usize,
    requesters: Vec<Requester>,
}

/// How far the first of the starts is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// There is none, or it waits for its turn.
    Turn,
    /// It is its turn once a view of this round holds.
    View(u32),
    /// The core was stopped; what it had begun is over at this time.
    Quiet(u64),
    /// All of the view were told to forget it, this core as well.
    Forget {
        /// Those that have not.
        waiting: CoreSet,
        /// The round of the view that they have to hold.
        round: u32,
        /// The start is given up then.
        until_ns: u64,
    },
    /// It was started, and is to report by then.
    Up(u64),
    /// It runs, and is to join.
    Join,
}

/// How far this core is with stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// Its domains are to end.
    Ending,
    /// What it has to say is on its way.
    Flushing,
    /// It has asked to be left out.
    Leaving,
}

/// What a monitor has to do with cores that stop and start.
pub struct Restarts {
    /// Those that this monitor was asked for; the first is under way.
    starts: VecDeque<Start>,
    stage: Stage,
    /// On core 0: whose turn it is, and who comes next.
    turns: VecDeque<usize>,
    /// On core 0: the round of the view in which the last one who had a turn ended it.
    round: u32,
    /// What is to be forgotten in views that do not hold here yet: who asks, what, the round.
    held: Vec<(usize, usize, u32)>,
    forgets: Forgets,
    /// Requests that came before this core's first view.
    early: Vec<(usize, Message)>,
    stop: Option<Stop>,
}

impl Default for Restarts {
    fn default() -> Self {
        Self {
            starts: VecDeque::new(),
            stage: Stage::Turn,
            turns: VecDeque::new(),
            round: 0,
            held: Vec::new(),
            forgets: Forgets::default(),
            early: Vec::new(),
            stop: None,
        }
    }
}

impl Restarts {
    /// When the first start is to go on or is given up, or something that is to be forgotten is to be
    /// seen to, in nanoseconds.
    pub fn deadline_ns(&self) -> Option<u64> {
        let of_stage = match self.stage {
            Stage::Quiet(at_ns) | Stage::Up(at_ns) => Some(at_ns),
            Stage::Forget { until_ns, .. } => Some(until_ns),
            _ => None,
        };
        let of_forgets = self.forgets.deadline_ns();
        of_stage.into_iter().chain(of_forgets).min()
    }

    /// The memory of a core that is to be forgotten was unmapped in a space, or could not be by now.
    pub fn space_forgotten(&mut self, core: usize, space: SpaceId, is_done: bool) {
        self.forgets.space_done(core, space, is_done);
    }

    /// Whether this core is about to stop: it does nothing more for anybody.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_some()
    }
}

impl Monitor {
    /// Serves a request of a domain, on whichever core, that this monitor was asked for.
    pub fn serve_cores(
        &mut self,
        requester: Requester,
        kind: u16,
        core: u64,
        job: u64,
    ) -> Result<Option<[u64; 5]>, Error> {
        if job != domains::PROGRAM {
            return Err(Error::NotAllowed);
        }
        match kind {
            _ if self.restarts.is_stopping() => Err(Error::NoSuchCore),
            cores::START_CORE => self.begin_start(requester, core).map(|()| None),
            cores::STOP_CORE if self.own == 0 => Err(Error::CoreNeeded),
            cores::STOP_CORE if !self.restarts.starts.is_empty() => Err(Error::Busy),
            cores::STOP_CORE => {
                self.restarts.stop = Some(Stop::Ending);
                Ok(None) // the view without this core is the answer
            }
            _ => Err(Error::NoSuchRequest),
        }
    }

    fn begin_start(&mut self, requester: Requester, core: u64) -> Result<(), Error> {
        let core = usize::try_from(core).unwrap_or(usize::MAX);
        if core >= authority::machine().cores().len() {
            return Err(Error::NoSuchCore);
        }
        if self.view().cores.contains(core) {
            return Err(Error::CoreRuns);
        }
        if core == 0 {
            return Err(Error::CoreNeeded);
        }
        if !self.view().cores.contains(0) {
            return Err(Error::CoreLost); // nobody gives turns any more
        }
        let starts = &mut self.restarts.starts;
        if let Some(start) = starts.iter_mut().find(|start| start.core == core) {
            if start.requesters.len() >= MAX_REQUESTERS {
                return Err(Error::Busy);
            }
            start.requesters.push(requester);
            return Ok(());
        }
        let requesters = [requester].into();
        starts.push_back(Start { core, requesters });
        if starts.len() == 1 {
            self.ask_for_turn(true);
        }
        Ok(())
    }

    /// The core that is being started from here.
    fn starting(&self) -> Option<usize> {
        self.restarts.starts.front().map(|start| start.core)
    }

    fn round(&self) -> u32 {
        self.view().epoch.round
    }

    fn tell_monitor(&mut self, to: usize, kind: u16, [a, b]: [u64; 2]) {
        let message = Message::new(kind, [a, b, 0, 0, 0, 0, 0]);
        self.mesh.send(&mut self.store, to, &message);
    }

    /// Asks core 0 for a turn, or says that ours is over.
    fn ask_for_turn(&mut self, wants: bool) {
        if self.own == 0 {
            self.on_turn(0, wants, self.round());
        } else {
            self.tell_monitor(0, mesh::TURN, [wants.into(), self.round().into()]);
        }
    }

    /// On core 0: somebody wants a turn, or ends its own.
    fn on_turn(&mut self, from: usize, wants: bool, round: u32) {
        let turns = &mut self.restarts.turns;
        if wants {
            turns.push_back(from);
            if turns.len() == 1 {
                self.give_turn();
            }
        } else if turns.pop_front_if(|first| *first == from).is_some() {
            self.restarts.round = self.restarts.round.max(round);
            self.give_turn();
        }
    }

    fn give_turn(&mut self) {
        let round = self.restarts.round;
        match self.restarts.turns.front() {
            Some(0) => self.on_my_turn(round),
            Some(core) => self.tell_monitor(*core, mesh::YOUR_TURN, [round.into(), 0]),
            None => {}
        }
    }

    fn on_my_turn(&mut self, round: u32) {
        if self.starting().is_some() && self.restarts.stage == Stage::Turn {
            self.restarts.stage = Stage::View(round);
            self.go_on_in_view();
        }
    }

    /// Takes a message if it is about cores that start.
    pub fn on_restart_message(&mut self, from: usize, message: &Message) -> bool {
        let [first, second, ..] = message.payload;
        match message.kind() {
            mesh::TURN if self.own == 0 => self.on_turn(from, first != 0, second as u32),
            mesh::YOUR_TURN if from == 0 => self.on_my_turn(first as u32),
            mesh::FORGET => self.on_forget(from, first as usize, second as u32),
            mesh::FORGOTTEN => self.on_forgotten(from, first as usize, second as u32),
            mesh::UP => {
                if self.starting() == Some(from) && matches!(self.restarts.stage, Stage::Up(_)) {
                    self.restarts.stage = Stage::Join;
                    let now_ns = self.awake.at(clock::now_ns());
                    let actions = self.agent.with_membership(|one| one.sponsor(from, now_ns));
                    self.carry_out(actions);
                }
            }
            _ => return false,
        }
        true
    }

    /// Somebody is about to start a core that is in no view.
    fn on_forget(&mut self, from: usize, core: usize, round: u32) {
        if core >= authority::machine().cores().len() {
            // It is no core.
        } else if self.round() < round {
            self.restarts.held.push((from, core, round));
        } else if !self.view().cores.contains(core) {
            self.forget_core(core, from, round);
        } // else whoever asks finds it in the view too
    }

    /// Nothing of a core is used here any more: says so to whoever asked.
    fn core_forgotten(&mut self, core: usize, asker: usize, round: u32) {
        if asker == self.own {
            self.on_forgotten(asker, core, round);
        } else {
            self.tell_monitor(asker, mesh::FORGOTTEN, [core as u64, round.into()]);
        }
    }

    /// A core of the view has forgotten one that is to start.
    fn on_forgotten(&mut self, from: usize, core: usize, asked_in: u32) {
        let is_it = self.starting() == Some(core);
        if let Stage::Forget { waiting, round, .. } = &mut self.restarts.stage
            && is_it
            && *round == asked_in
        {
            waiting.remove(from);
            self.fill_if_forgotten();
        }
    }

    /// Has all of the view forget the core that is being started.
    fn ask_to_forget(&mut self, core: usize, until_ns: u64) {
        let (waiting, round) = (self.view().cores.clone(), self.round());
        let mut others = waiting.clone();
        others.remove(self.own);
        self.restarts.stage = Stage::Forget {
            waiting,
            round,
            until_ns,
        };
        for other in others.iter() {
            self.tell_monitor(other, mesh::FORGET, [core as u64, round.into()]);
        }
        self.forget_core(core, self.own, round);
    }

    /// It is our turn: the core is stopped for good, as soon as our view is new enough.
    fn go_on_in_view(&mut self) {
        let (Some(core), Stage::View(round)) = (self.starting(), &self.restarts.stage) else {
            return;
        };
        if self.round() < *round {
            return;
        }
        if self.view().cores.contains(core) {
            return self.end_start(Err(Error::CoreRuns));
        }
        match authority::reset_core(core) {
            Ok(()) => self.restarts.stage = Stage::Quiet(clock::now_ns() + boot::INIT_NS),
            Err(error) => self.end_start(Err(error.into())),
        }
    }

    /// Time has passed; whether anything came of it.
    pub fn restarts_tick(&mut self, now_ns: u64) -> bool {
        match self.restarts.stop {
            Some(Stop::Ending) => {
                self.end_all();
                self.restarts.stop = Some(Stop::Flushing);
                return true;
            }
            Some(Stop::Flushing) if self.mesh.is_flushed() => {
                self.restarts.stop = Some(Stop::Leaving);
                let now_ns = self.awake.at(now_ns);
                let actions = self.agent.with_membership(|one| one.leave(now_ns));
                self.carry_out(actions);
                return true;
            }
            _ => {}
        }
        let Some(core) = self.starting() else {
            return false;
        };
        match self.restarts.stage {
            Stage::Quiet(at_ns) if at_ns <= now_ns => {
                self.ask_to_forget(core, now_ns + FORGET_LIMIT_NS);
            }
            Stage::Forget { until_ns, .. } if until_ns <= now_ns => {
                self.log(&format!(
                    "core {core} cannot be started: its memory is in use"
                ));
                self.end_start(Err(Error::Busy));
            }
            Stage::Up(at_ns) if at_ns <= now_ns => {
                // However late it may come.
                let _ = authority::reset_core(core);
                self.mesh.lose(core);
                self.end_start(Err(Error::CoreSilent));
            }
            _ => return false,
        }
        true
    }

    /// Fills the core's memory and lets it run, if nobody uses anything of it any more.
    fn fill_if_forgotten(&mut self) {
        let (Some(core), Stage::Forget { waiting, .. }) = (self.starting(), &self.restarts.stage)
        else {
            return;
        };
        if !waiting.is_empty() {
            return;
        }
        let anew = Anew {
            life: self.round(),
            sponsor: self.own,
            cores: self.view().cores.words(),
        };
        // Its first message must find somebody who listens.
        self.mesh.connect(&mut self.store, core);
        match boot::boot(&mut self.store, core, Some(anew)) {
            Ok(()) => self.restarts.stage = Stage::Up(clock::now_ns() + START_LIMIT_NS),
            Err(error) => {
                self.mesh.lose(core);
                self.log(&format!("core {core} cannot be started: {error}"));
                let error = match error {
                    BootError::Refused(error) => error.into(),
                    _ => Error::NoImage,
                };
                self.end_start(Err(error));
            }
        }
    }

    /// Tells who asked for it how a start ended, and begins the next.
    fn end_start(&mut self, outcome: Result<(), Error>) {
        let Some(start) = self.restarts.starts.pop_front() else {
            return;
        };
        let answer = outcome.and_then(|()| value(0));
        for requester in start.requesters {
            self.answer(requester, answer.map(Some));
        }
        self.restarts.stage = Stage::Turn;
        self.ask_for_turn(false);
        match self.starting() {
            Some(_) if self.view().cores.contains(0) => self.ask_for_turn(true),
            Some(_) => self.end_start(Err(Error::CoreLost)), // as all that follow
            None => {}
        }
    }

    /// Another view holds.
    pub fn restarts_installed(&mut self) {
        let (cores, round) = (self.view().cores.clone(), self.round());
        let first = self.restarts.turns.front().copied();
        self.restarts.turns.retain(|core| cores.contains(*core));
        if self.restarts.turns.front().copied() != first {
            self.give_turn();
        }
        self.restarts.forgets.installed(&cores);
        let due = self.restarts.held.extract_if(.., |(_, _, of)| *of <= round);
        for (from, core, round) in due.collect::<Vec<_>>() {
            self.on_forget(from, core, round);
        }
        for (from, message) in core::mem::take(&mut self.restarts.early) {
            if cores.contains(from) {
                self.on_request_message(from, &message);
            }
        }
        let Some(core) = self.starting() else { return };
        match &mut self.restarts.stage {
            Stage::Turn if !cores.contains(0) => {
                // Nobody gives turns any more.
                self.end_start(Err(Error::CoreLost));
            }
            Stage::Turn => {}
            Stage::View(_) => self.go_on_in_view(),
            Stage::Quiet(_) | Stage::Forget { .. } if cores.contains(core) => {
                self.end_start(Err(Error::CoreRuns));
            }
            Stage::Quiet(_) => {}
            // What was lost with others may have been theirs to revoke; and one whose starter was lost
            // may have joined meanwhile.
            Stage::Forget { until_ns, .. } => {
                let until_ns = *until_ns;
                self.ask_to_forget(core, until_ns);
            }
            Stage::Up(_) | Stage::Join => {
                if cores.contains(core) {
                    self.end_start(Ok(()));
                }
            }
        }
    }

    /// Keeps a request that came before this core's first view; whether it did.
    pub fn keep_for_first_view(&mut self, from: usize, message: &Message) -> bool {
        let is_early = self.view().cores.is_empty();
        if is_early {
            self.restarts.early.push((from, *message));
        }
        is_early
    }

    /// This core is in no view any more: it does nothing from now on.
    pub fn stop(&mut self) -> ! {
        if self.restarts.stop != Some(Stop::Leaving) {
            // It was not asked to, so it counts as lost.
            authority::running(0);
        }
        authority::stop()
    }
}
