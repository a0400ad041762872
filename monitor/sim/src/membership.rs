//! [`protocols::membership`] in the simulator: the view survives whatever stops.
//!
//! Rules, each checked whenever a view is installed: two views of one epoch are equal; whoever
//! installs a view is in it; epochs of one core only grow; and a core that is left out of a view
//! does nothing any more. In the end all cores that live hold one view, of just them.

use crate::node::{Context, Node, Outcome, Output, Outputs, Protocol};
use protocols::core_set::CoreSet;
use protocols::membership::{Action, Membership, Message};
use protocols::view::{Epoch, View};

/// One core's part.
#[derive(Debug)]
pub struct Member {
    membership: Membership,
    /// What it begins with, unless it is to join.
    first: Option<View>,
}

impl Member {
    /// The view that it holds.
    pub fn view(&self) -> &View {
        self.membership.view()
    }
}

fn carry_out(actions: Vec<Action>, outputs: &mut Outputs<Member>) {
    for action in actions {
        match action {
            Action::Send(to, message) => outputs.push(Output::Send(to, message)),
            Action::Fence(core) => outputs.push(Output::Fence(core)),
            Action::Installed(view) => outputs.push(Output::Note(view)),
            Action::Out(_) => outputs.push(Output::Leave),
        }
    }
}

impl Node for Member {
    type Message = Message;
    /// It installed this view.
    type Note = View;

    fn start(&mut self, now_ns: u64, outputs: &mut Outputs<Self>) {
        if let Some(view) = self.first.take() {
            carry_out(self.membership.begin(view, now_ns), outputs);
        }
    }

    fn on_message(
        &mut self,
        from: usize,
        message: Message,
        now_ns: u64,
        outputs: &mut Outputs<Self>,
    ) {
        carry_out(self.membership.on_message(from, &message, now_ns), outputs);
    }

    fn on_tick(&mut self, now_ns: u64, outputs: &mut Outputs<Self>) {
        carry_out(self.membership.on_tick(now_ns), outputs);
    }

    fn deadline_ns(&self) -> Option<u64> {
        self.membership.deadline_ns()
    }

    fn takes_part(&self) -> bool {
        !self.view().cores.is_empty()
    }

    fn may_sponsor(&self, core: usize) -> bool {
        !self.view().cores.contains(core)
    }

    fn sponsor(&mut self, core: usize, now_ns: u64, outputs: &mut Outputs<Self>) {
        carry_out(self.membership.sponsor(core, now_ns), outputs);
    }

    fn is_upkeep(message: &Message) -> bool {
        matches!(message, Message::Alive)
    }
}

/// A change of views that all cores have come to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// From the fence or the restart that led to it, in nanoseconds.
    pub time_ns: u64,
    /// Messages sent in that time.
    pub messages: u64,
    /// How many cores the view has.
    pub cores: usize,
    /// Whether it is larger than the one before.
    pub is_join: bool,
}

/// What is known of one core.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// The view that it holds, unless it is yet to join.
    epoch: Option<Epoch>,
    lives: bool,
}

/// All cores of a machine.
#[derive(Debug)]
pub struct Members {
    patience_ns: u64,
    first: View,
    cores: Vec<Known>,
    living: usize,
    /// The newest view that anybody holds, and how many that live hold it.
    newest: View,
    holders: usize,
    /// All views that anybody held.
    views: Vec<View>,
    /// What the next change is counted from.
    began: Option<(Context, bool)>,
    /// Changes, each after some fence or restart.
    pub changes: Vec<Change>,
}

impl Members {
    /// So many cores; whoever is not heard of for `patience_ns` is suspected.
    pub fn new(cores: usize, patience_ns: u64) -> Self {
        let first = View {
            epoch: Epoch::default().next(0),
            cores: CoreSet::first(cores),
        };
        let known = Known {
            epoch: None,
            lives: true,
        };
        Self {
            patience_ns,
            first,
            cores: vec![known; cores],
            living: cores,
            newest: View::default(),
            holders: 0,
            views: Vec::new(),
            began: None,
            changes: Vec::new(),
        }
    }

    fn is_settled(&self) -> bool {
        self.holders == self.living && self.newest.cores.len() == self.living
    }

    /// Whoever does something and holds an older view must be in this one.
    fn left_out_are_still(&self, view: &View) -> Result<(), String> {
        for (core, known) in self.cores.iter().enumerate() {
            let is_older = known.epoch.is_some_and(|epoch| epoch < view.epoch);
            if known.lives && is_older && !view.cores.contains(core) {
                return Err(format!("core {core} goes on, and is not in {view:?}"));
            }
        }
        Ok(())
    }

    fn register(&mut self, view: &View) -> Result<(), String> {
        match self.views.iter().find(|known| known.epoch == view.epoch) {
            Some(known) if known.cores != view.cores => Err(format!(
                "two views of epoch {:?}: {:?} and {:?}",
                view.epoch, known.cores, view.cores
            )),
            Some(_) => Ok(()),
            None => {
                self.left_out_are_still(view)?;
                self.views.push(view.clone());
                Ok(())
            }
        }
    }
}

impl Protocol for Members {
    type Node = Member;

    fn node(&mut self, core: usize, anew: bool) -> Member {
        Member {
            membership: Membership::new(core, self.patience_ns),
            first: (!anew).then(|| self.first.clone()),
        }
    }

    fn on_note(&mut self, core: usize, view: View, context: Context) -> Result<(), String> {
        if !view.cores.contains(core) {
            return Err(format!("core {core} installs {view:?} and is not in it"));
        }
        let before = self.cores[core].epoch;
        if before.is_some_and(|before| before >= view.epoch) {
            return Err(format!("core {core} installs {view:?} after {before:?}"));
        }
        self.register(&view)?;
        self.cores[core].epoch = Some(view.epoch);
        if view.epoch > self.newest.epoch {
            self.newest = view;
            self.holders = 1;
        } else if view.epoch == self.newest.epoch {
            self.holders += 1;
        }
        if self.is_settled()
            && let Some((began, is_join)) = self.began.take()
        {
            self.changes.push(Change {
                time_ns: context.now_ns - began.now_ns,
                messages: context.sent - began.sent,
                cores: self.newest.cores.len(),
                is_join,
            });
        }
        Ok(())
    }

    fn on_fence(&mut self, _: usize, context: Context) -> Result<(), String> {
        self.began.get_or_insert((context, false));
        Ok(())
    }

    fn on_stop(&mut self, core: usize, _: Context) {
        let known = &mut self.cores[core];
        self.living -= 1;
        self.holders -= usize::from(known.epoch == Some(self.newest.epoch));
        *known = Known {
            epoch: None,
            lives: false,
        };
        if self.living == 0 {
            self.began = None;
        }
    }

    fn on_restart(&mut self, core: usize, context: Context) {
        self.cores[core].lives = true;
        self.living += 1;
        self.began.get_or_insert((context, true));
    }

    fn outcome(&self) -> Result<Outcome, String> {
        // Whoever is to join needs somebody who takes part.
        let takes_part = |known: &&Known| known.lives && known.epoch.is_some();
        if self.cores.iter().filter(takes_part).count() == 0 {
            return Ok(Outcome::Aborted);
        }
        if self.is_settled() {
            return Ok(Outcome::Survived);
        }
        Err(format!(
            "no agreement within the bound: {} cores live, {} of them hold the newest view, {:?}",
            self.living, self.holders, self.newest
        ))
    }
}
