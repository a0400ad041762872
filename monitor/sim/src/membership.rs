//! [`protocols::membership`] in the simulator: the view survives whatever stops.
//!
//! Rules, each checked whenever a view is installed: two views of one epoch are equal; whoever
//! installs a view is in it; epochs of one core only grow; a core that is left out of a view does
//! nothing any more; and nobody goes from a view that one life of a core has installed to one that
//! another life of it has. In the end all cores that live hold one view, of just them.

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

    fn label(message: &Message) -> (u16, u64) {
        let (kind, words) = message.encode();
        (kind, words[0])
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
#[derive(Clone, Debug)]
struct Known {
    /// The view that it holds, unless it is yet to join.
    epoch: Option<Epoch>,
    /// The one that it held before.
    before: Option<Epoch>,
    lives: bool,
    /// How often it was started anew.
    life: u32,
    /// Which views it has installed, and in which life.
    installed: Vec<(Epoch, u32)>,
}

impl Known {
    /// Which life of it has installed the view of this epoch, if any has.
    fn life_in(&self, epoch: Epoch) -> Option<u32> {
        let mut installed = self.installed.iter().rev();
        installed.find(|one| one.0 == epoch).map(|one| one.1)
    }
}

/// All cores of a machine.
#[derive(Debug)]
pub struct Members {
    patience_ns: u64,
    first: View,
    cores: Vec<Known>,
    /// Those that were started anew.
    renewed: CoreSet,
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
            settings: 0,
        };
        let known = Known {
            epoch: None,
            before: None,
            lives: true,
            life: 0,
            installed: Vec::new(),
        };
        Self {
            patience_ns,
            first,
            cores: vec![known; cores],
            renewed: CoreSet::default(),
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

    /// Whether `of` has noticed it if `core` is in another life than in the view before.
    fn lives_are_told_apart(&self, of: usize, core: usize) -> Result<(), String> {
        let (Some(before), Some(epoch)) = (self.cores[of].before, self.cores[of].epoch) else {
            return Ok(());
        };
        let lives = [before, epoch].map(|epoch| self.cores[core].life_in(epoch));
        match lives {
            [Some(former), Some(life)] if former != life => Err(format!(
                "core {of} goes from {before:?} with life {former} of core {core} to {epoch:?} \
                 with life {life}"
            )),
            _ => Ok(()),
        }
    }

    fn register(&mut self, view: &View) -> Result<(), String> {
        match self.views.iter().find(|known| known.epoch == view.epoch) {
            Some(known) if known != view => Err(format!(
                "two views of epoch {:?}: {known:?} and {view:?}",
                view.epoch
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
            membership: match anew {
                true => Membership::anew(core, self.patience_ns),
                false => Membership::new(core, self.patience_ns),
            },
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
        let known = &mut self.cores[core];
        known.before = known.epoch.replace(view.epoch);
        known.installed.push((view.epoch, known.life));
        for other in self.renewed.iter() {
            self.lives_are_told_apart(core, other)?;
        }
        if self.renewed.contains(core) {
            (0..self.cores.len()).try_for_each(|other| self.lives_are_told_apart(other, core))?;
        }
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
        (known.epoch, known.before, known.lives) = (None, None, false);
        if self.living == 0 {
            self.began = None;
        }
    }

    fn on_restart(&mut self, core: usize, context: Context) {
        self.cores[core].lives = true;
        self.cores[core].life += 1;
        self.renewed.insert(core);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Core 2 misses the view in which core 1 was left out, or does not.
    #[test]
    fn the_judge_tells_lives_apart() {
        let context = Context { now_ns: 1, sent: 0 };
        let view = |round, cores: &[usize]| View {
            epoch: Epoch {
                round,
                coordinator: 0,
            },
            cores: cores.iter().copied().collect(),
            settings: 0,
        };
        for (misses, order) in [(false, [1, 2]), (true, [1, 2]), (true, [2, 1])] {
            let mut judge = Members::new(3, 1000);
            for core in 0..3 {
                judge.on_note(core, view(1, &[0, 1, 2]), context).unwrap();
            }
            judge.on_stop(1, context);
            for core in if misses { vec![0] } else { vec![0, 2] } {
                judge.on_note(core, view(2, &[0, 2]), context).unwrap();
            }
            judge.on_restart(1, context);
            let last = order.map(|core| judge.on_note(core, view(3, &[0, 1, 2]), context));
            assert_eq!(last[0], Ok(()));
            assert_eq!(last[1].is_err(), misses, "{last:?}");
        }
    }
}
