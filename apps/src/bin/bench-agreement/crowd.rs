//! Workers on other cores that poll with the root, and what they measure together.

use crate::mesh::{self, Node};
use crate::rounds::{self, BATCH, FRAMES, WARM_UP};
use crate::sizes;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use apps::crew::{Crew, Post};
use apps::laboratory::{Failure, Laboratory, told};
use protocols::tree::{Cost, Machine, Strategy};
use rt::clock::Cycles;
use rt::interface::strategy;
use rt::monitor;
use urpc::Message;

/// What workers are told to do: the kind of the order. Its words: the most members that there are, the
/// worker's number, members, rounds.
mod order {
    /// Meet at a barrier over the tree.
    pub const BARRIER: u16 = 1;
    /// Meet at a barrier of names.
    pub const NAMED: u16 = 2;
    /// Allocate frames and free them.
    pub const ALLOCATE: u16 = 3;
    /// Pass messages on and answer them, so many.
    pub const SERVE: u16 = 4;
}

/// Kinds of reports; the first word of one that all went well is the sum of what the worker was told.
const DONE: u16 = 1;
const FAILED: u16 = 2;

/// A round of names, of messages by many, of a batch is so many times as slow as a call.
const SLOWER_NAMES: usize = 100;
const SLOWER: usize = 10;
const SLOWER_BATCH: usize = 50;

/// The trees, and how operations over them are named.
const TREES: [(&str, Strategy); 4] = [
    ("unicast", Strategy::Unicast),
    ("tree of arity 2", Strategy::Tree { arity: 2 }),
    ("sockets, arity 2", Strategy::Sockets { arity: 2 }),
    ("computed tree", Strategy::Computed),
];

/// Does what it is told, and sleeps in between.
pub fn work(mut post: Post) -> i32 {
    while let Some(order) = post.next_order() {
        let report = match carry_out(&post, &order) {
            Ok(sum) => Message::new(DONE, [sum, 0, 0, 0, 0, 0, 0]),
            Err(failure) => {
                let core = rt::startup().core;
                rt::println!(
                    "bench-agreement: core {core}: {}: {}",
                    failure.step,
                    failure.reason
                );
                Message::new(FAILED, [0; 7])
            }
        };
        post.report(&report);
    }
    0
}

fn carry_out(post: &Post, order: &Message) -> Result<u64, Failure> {
    let [most, number, members, count, ..] = order.payload;
    let mut node = Node::new(post.frame(), most as usize, number as usize);
    match order.kind() {
        order::BARRIER => drop(rounds::barriers(&mut node, count as usize)?),
        order::NAMED => {
            let members = members as usize;
            let name = barrier_name(members);
            drop(rounds::named_barriers(&name, members, count as usize)?);
        }
        order::ALLOCATE => drop(rounds::allocate(&mut node, count as usize)?),
        _ => node.serve(count)?,
    }
    Ok(node.sum())
}

fn barrier_name(members: usize) -> String {
    format!("bench{members}")
}

/// The crew, and the root.
struct Crowd {
    crew: Crew,
    /// All of them, the root's first.
    cores: Vec<usize>,
    machine: Machine,
}

impl Crowd {
    fn gather() -> Result<Self, Failure> {
        let start = rt::startup();
        let own = start.core as usize;
        let others: Vec<usize> = start.cores().filter(|core| *core != own).collect();
        let cores: Vec<usize> = core::iter::once(own)
            .chain(others.iter().copied())
            .collect();
        let crew = told("workers", Crew::hire(&others, mesh::bytes(cores.len())))?;
        let sockets = start.node.iter().map(|node| usize::from(*node)).collect();
        Ok(Self {
            crew,
            cores,
            machine: Machine::new(sockets, |_, _| Cost::default()),
        })
    }

    /// Has the monitors measure what messages cost here, which the computed tree goes by.
    fn with_costs(mut self) -> Result<Self, Failure> {
        told("costs", monitor::set_strategy(strategy::COMPUTED, 1))?;
        let core = rt::startup().core as usize;
        let sockets = self.machine.socket_count();
        let mut costs = Vec::with_capacity(sockets * sockets);
        for (from, to) in self.machine.pairs() {
            let cost = told("costs", monitor::costs(core, from, to))?;
            let cost = told("costs", cost.ok_or("there are none"))?;
            let [send_ns, latency_ns, receive_ns] =
                [cost.send_ns, cost.latency_ns, cost.receive_ns].map(|ns| ns as u32);
            costs.push(Cost {
                send_ns,
                latency_ns,
                receive_ns,
            });
        }
        self.machine = self
            .machine
            .with_costs(|from, to| costs[from * sockets + to]);
        told("strategy", monitor::set_strategy(strategy::UNICAST, 1))?;
        Ok(self)
    }

    /// Has the first so many cores do something over a tree, the root too. `count` is what workers
    /// are told. Back: what came of it at the root, after all have reported that they were told
    /// numbers with the same sum.
    fn together<R>(
        &mut self,
        strategy: Strategy,
        order: u16,
        members: usize,
        count: u64,
        root: impl FnOnce(&mut Node) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        let most = self.cores.len();
        let cores = &self.cores[..members];
        let frame = *self.crew.frame();
        mesh::plan(&frame, most, cores, strategy, &self.machine)?;
        for (number, core) in cores.iter().enumerate().skip(1) {
            let words = [most as u64, number as u64, members as u64, count, 0, 0, 0];
            told("order", self.crew.order(*core, &Message::new(order, words)))?;
        }
        let mut node = Node::new(&frame, most, 0);
        let result = root(&mut node)?;
        for core in &cores[1..] {
            let report = told("report", self.crew.report(*core))?;
            if report.kind() != DONE || report.payload[0] != node.sum() {
                return told("report", Err(format!("core {core} did something else")));
            }
        }
        Ok(result)
    }

    fn dismiss(self) -> Result<(), Failure> {
        told("end of the workers", self.crew.dismiss())
    }
}

fn without_warm_up(mut times: Vec<Cycles>) -> Vec<Cycles> {
    times.drain(..WARM_UP.min(times.len()));
    times
}

/// Times of one of so many, for [`Laboratory::times`].
fn each(laboratory: &Laboratory, times: Vec<Cycles>, of: u64) -> Vec<Cycles> {
    let overhead = laboratory.overhead().0;
    let part = |time: Cycles| Cycles(time.0.saturating_sub(overhead) / of + overhead);
    without_warm_up(times).into_iter().map(part).collect()
}

/// Allocation on several cores at once.
pub fn memory(laboratory: &mut Laboratory) -> Result<(), Failure> {
    let mut crowd = Crowd::gather()?;
    let rounds = WARM_UP + laboratory.samples(SLOWER_BATCH);
    for members in sizes(1) {
        let tree = Strategy::Tree { arity: 2 };
        let with = [("members", members as u64)];
        let (operation, frames) = ("allocate and free a 4 KiB frame", members * FRAMES);
        let times = laboratory.within(operation, &with, (rounds * frames) as u64, || {
            crowd.together(tree, order::ALLOCATE, members, rounds as u64, |node| {
                rounds::allocate(node, rounds)
            })
        })?;
        let times = each(laboratory, times, frames as u64);
        laboratory.times(operation, &with, times);
    }
    crowd.dismiss()
}

/// Barriers over channels, and of names.
pub fn barrier(laboratory: &mut Laboratory) -> Result<(), Failure> {
    let mut crowd = Crowd::gather()?;
    let rounds = WARM_UP + laboratory.samples(SLOWER);
    for (name, strategy) in &TREES[..2] {
        for members in sizes(2) {
            let with = [("members", members as u64)];
            let operation = format!("barrier over channels, {name}");
            let times = laboratory.within(&operation, &with, rounds as u64, || {
                crowd.together(*strategy, order::BARRIER, members, rounds as u64, |node| {
                    rounds::barriers(node, rounds)
                })
            })?;
            laboratory.times(&operation, &with, without_warm_up(times));
        }
    }
    let rounds = WARM_UP + laboratory.samples(SLOWER_NAMES);
    for members in sizes(2) {
        let (operation, with) = ("barrier of names", [("members", members as u64)]);
        let count = rounds as u64;
        let times = laboratory.within(operation, &with, count, || {
            crowd.together(Strategy::Unicast, order::NAMED, members, count, |_| {
                rounds::named_barriers(&barrier_name(members), members, rounds)
            })
        })?;
        laboratory.times(operation, &with, without_warm_up(times));
    }
    crowd.dismiss()
}

/// A message to all and the answers.
pub fn broadcast(laboratory: &mut Laboratory) -> Result<(), Failure> {
    let mut crowd = Crowd::gather()?.with_costs()?;
    let rounds = WARM_UP + laboratory.samples(SLOWER);
    for (name, strategy) in TREES {
        for members in sizes(2) {
            let (operation, with) = (format!("broadcast, {name}"), [("members", members as u64)]);
            let times = laboratory.within(&operation, &with, rounds as u64, || {
                crowd.together(strategy, order::SERVE, members, rounds as u64, |node| {
                    rounds::broadcasts(node, members as u64, rounds)
                })
            })?;
            laboratory.times(&operation, &with, without_warm_up(times));
        }
    }
    crowd.dismiss()
}

/// Two-phase commit.
pub fn agree(laboratory: &mut Laboratory) -> Result<(), Failure> {
    let mut crowd = Crowd::gather()?.with_costs()?;
    let rounds = WARM_UP + laboratory.samples(SLOWER);
    let batches = WARM_UP + laboratory.samples(SLOWER_BATCH);
    for (name, strategy) in TREES {
        for members in sizes(2) {
            let with = [("members", members as u64)];
            let messages = 2 * rounds as u64;
            let operation = format!("agree, {name}");
            let times = laboratory.within(&operation, &with, rounds as u64, || {
                crowd.together(strategy, order::SERVE, members, messages, |node| {
                    rounds::agreements(node, members as u64, rounds)
                })
            })?;
            laboratory.times(&operation, &with, without_warm_up(times));
            let agreements = BATCH * batches as u64;
            let operation = format!("agree, 16 under way, {name}");
            let times = laboratory.within(&operation, &with, agreements, || {
                crowd.together(strategy, order::SERVE, members, 2 * agreements, |node| {
                    rounds::pipelines(node, members as u64, batches)
                })
            })?;
            let times = each(laboratory, times, BATCH);
            laboratory.times(&operation, &with, times);
        }
    }
    crowd.dismiss()
}
