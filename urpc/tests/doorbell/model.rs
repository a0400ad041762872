//! Cores, their store buffers, memory and doorbells as the states of a model, and what must hold.

use stateright::{Model, Property};
use urpc::Wait;

use crate::cores::{
    Access, At, Core, Duty, Fault, Lines, Pending, Program, SLOTS, Word, covers, slot,
};

pub const IN_ORDER: &str = "messages come in order, and once";
pub const NOT_LOST: &str = "no wake-up is lost";
pub const DRAINED: &str = "all is received in the end, and all sleep";

#[derive(Clone, Debug)]
pub struct Machine {
    pub duties: Vec<Duty>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub cores: Vec<Core>,
    pub halves: Vec<Lines>,
    /// A slot held neither what was expected nor what the last lap left there.
    pub is_wrong: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Run(usize),
    Drain(usize),
    Arrive(usize),
    Interrupt(usize),
    Deadline(usize),
}

impl World {
    pub fn new(machine: &Machine) -> Self {
        let halves = machine.duties.iter().map(|duty| duty.ends.len()).sum();
        let mut world = Self {
            cores: machine.duties.iter().map(Core::new).collect(),
            halves: vec![Lines::default(); halves],
            is_wrong: false,
        };
        for (core, duty) in world.cores.iter_mut().zip(&machine.duties) {
            if duty.is_full {
                for (end, (half, _)) in core.ends.iter_mut().zip(&duty.ends) {
                    end.send_next = SLOTS - 1;
                    for message in 0..SLOTS - 1 {
                        *world.halves[*half].word(Word::Control(slot(message))) = message + 1;
                    }
                }
            }
            core.at = core.begin(duty);
        }
        world
    }

    pub fn run(&mut self, machine: &Machine, core: usize) -> Access {
        let (duty, is_wrong) = (&machine.duties[core], &mut self.is_wrong);
        self.cores[core].access(duty, &mut self.halves, is_wrong)
    }

    /// Takes the steps that nobody else notices.
    fn settle(&mut self, machine: &Machine, core: usize) {
        while self.cores[core].is_unnoticed() {
            self.run(machine, core);
        }
    }

    pub fn drain(&mut self, core: usize) {
        match self.cores[core].buffer.pop_front() {
            Some(Pending::Store(half, word, value)) => *self.halves[half].word(word) = value,
            Some(Pending::Ring(core)) => self.cores[core].under_way += 1,
            None => {}
        }
    }

    pub fn interrupt(&mut self, machine: &Machine, core: usize) {
        let is_forgetful = machine.duties[core].fault == Some(Fault::NothingPending);
        let core = &mut self.cores[core];
        core.requested = false;
        match core.at {
            At::Waiting => core.at = At::Awake(0),
            _ => core.pending = !is_forgetful,
        }
    }

    /// Whether a core waits for what is there, and nobody who is about to ring will wake it.
    fn is_lost(&self, machine: &Machine, core: usize) -> bool {
        let this = &self.cores[core];
        if this.at != At::Waiting || this.requested || this.under_way > 0 {
            return false;
        }
        let ends = this.ends.iter().zip(&machine.duties[core].ends);
        let is_there = ends.map(|(end, (half, peer))| {
            let lines = &self.halves[half ^ 1];
            let message = lines.control[usize::from(slot(end.receive_next))];
            let is_there = covers(end.asleep, Wait::Message) && message == end.receive_next + 1
                || covers(end.asleep, Wait::Room) && lines.acknowledged + SLOTS - 1 > end.send_next;
            (is_there, half ^ 1, *peer)
        });
        let is_about_to_ring = |half, peer: usize| {
            let mut ends = machine.duties[peer].ends.iter();
            let end = ends.position(|(own, _)| *own == half);
            let (end, peer) = (end.expect("a channel has two ends"), &self.cores[peer]);
            peer.ends[end].has_published() || peer.at == At::RingCall(end)
        };
        let rings = |peer: &Core| peer.buffer.contains(&Pending::Ring(core));
        !self.cores.iter().any(rings)
            && is_there
                .filter(|(is_there, ..)| *is_there)
                .any(|(_, half, peer)| !is_about_to_ring(half, peer))
    }

    /// Everything sent was received, and whoever has more to do sleeps.
    fn is_drained(&self, machine: &Machine) -> bool {
        let is_received = machine.duties.iter().zip(&self.cores).all(|(duty, core)| {
            let mut ends = core.ends.iter().zip(&duty.ends);
            ends.all(|(end, (half, peer))| {
                let mut theirs = machine.duties[*peer]
                    .ends
                    .iter()
                    .zip(&self.cores[*peer].ends);
                let peer = theirs.find(|((own, _), _)| *own == half ^ 1);
                peer.is_some_and(|(_, peer)| peer.receive_next == end.send_next) && end.outbox == 0
            })
        });
        let is_at_rest = |(duty, core): (&Duty, &Core)| match duty.program {
            Program::Connection(_) => core.at == At::Done,
            Program::Monitor => core.at == At::Waiting,
        };
        is_received && machine.duties.iter().zip(&self.cores).all(is_at_rest)
    }
}

impl Model for Machine {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        for (number, core) in world.cores.iter().enumerate() {
            let possible = [
                (core.can_run(), Step::Run(number)),
                (!core.buffer.is_empty(), Step::Drain(number)),
                (core.under_way > 0, Step::Arrive(number)),
                (core.requested, Step::Interrupt(number)),
                (
                    core.deadlines > 0 && core.at == At::Waiting,
                    Step::Deadline(number),
                ),
            ];
            steps.extend(
                possible
                    .iter()
                    .filter(|(can, _)| *can)
                    .map(|(_, step)| step),
            );
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        let core = match step {
            Step::Run(core) => {
                next.run(self, core);
                core
            }
            Step::Drain(core) => {
                next.drain(core);
                core
            }
            Step::Arrive(core) => {
                next.cores[core].under_way -= 1;
                next.cores[core].requested = true;
                core
            }
            Step::Interrupt(core) => {
                next.interrupt(self, core);
                core
            }
            Step::Deadline(core) => {
                next.cores[core].deadlines -= 1;
                next.cores[core].at = At::Awake(0);
                core
            }
        };
        next.settle(self, core);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(IN_ORDER, |_, world: &World| !world.is_wrong),
            Property::always(NOT_LOST, |machine: &Self, world: &World| {
                !(0..world.cores.len()).any(|core| world.is_lost(machine, core))
            }),
            Property::always(DRAINED, |machine: &Self, world: &World| {
                let mut steps = Vec::new();
                machine.actions(world, &mut steps);
                !steps.is_empty() || world.is_drained(machine)
            }),
            Property::sometimes("a core sleeps", |_, world: &World| {
                world.cores.iter().any(|core| core.at == At::Waiting)
            }),
            Property::sometimes("a doorbell comes before its wait", |_, world: &World| {
                world
                    .cores
                    .iter()
                    .any(|core| core.pending && core.at == At::Wait)
            }),
        ]
    }
}
