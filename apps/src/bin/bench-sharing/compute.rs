//! Kernels over a domain that spans cores: each member runs the same code on its part of the data.

use crate::counts;
use crate::kernels::{KERNELS, Work, data_words};
use alloc::vec::Vec;
use apps::laboratory::{Failure, Laboratory, timed, told};
use core::hint::spin_loop;
use rt::clock::Cycles;
use rt::span::{self, Area};

/// Words of a line.
const LINE: usize = 8;
/// In the area: members, samples, who has come to the barrier, how often all had.
const MEMBERS: usize = 0;
const SAMPLES: usize = 1;
const ARRIVED: usize = LINE;
const PASSED: usize = 2 * LINE;
/// Rank of the member of each core.
const RANKS: usize = 64;
/// A line for the part of a sum of each member, twice, for two sums in a row.
const SUMS: usize = RANKS + 256;
/// What the kernels work on.
const DATA: usize = SUMS + 2 * 256 * LINE;
/// How much slower than a call a sample is.
const SLOWER_BY: usize = 200;

/// A member's view of all of them.
pub struct World {
    area: Area,
    /// The place of this member among all.
    pub rank: usize,
    /// How many there are.
    pub members: usize,
    sums: usize,
}

impl World {
    /// What this member has to do of so much.
    pub fn part(&self, count: usize) -> core::ops::Range<usize> {
        count * self.rank / self.members..count * (self.rank + 1) / self.members
    }

    pub fn get(&self, index: usize) -> u64 {
        self.area.load(DATA + index)
    }

    pub fn set(&self, index: usize, value: u64) {
        self.area.store(DATA + index, value);
    }

    pub fn real(&self, index: usize) -> f64 {
        f64::from_bits(self.get(index))
    }

    pub fn set_real(&self, index: usize, value: f64) {
        self.set(index, value.to_bits());
    }

    /// Waits until all members have come here.
    pub fn barrier(&self) {
        let passed = self.area.load(PASSED);
        if self.area.fetch_add(ARRIVED, 1) + 1 == self.members as u64 {
            self.area.store(ARRIVED, 0);
            self.area.store(PASSED, passed + 1);
        }
        while self.area.load(PASSED) == passed {
            spin_loop();
        }
    }

    /// The sum of what all members bring, the same for each of them, added in order of rank.
    pub fn sum(&mut self, part: f64) -> f64 {
        let at = SUMS + self.sums * 256 * LINE;
        // Nobody is at the next sum but one before all have been at the next.
        self.sums = 1 - self.sums;
        self.area.store(at + self.rank * LINE, part.to_bits());
        self.barrier();
        let parts = (0..self.members).map(|rank| self.area.load(at + rank * LINE));
        parts.map(f64::from_bits).sum()
    }
}

/// What a member runs: all kernels, as often as the root does.
fn member(address: u64) -> i32 {
    let Some(area) = Area::at(address, area_bytes(256)) else {
        return 1;
    };
    let mut world = World {
        area,
        rank: area.load(RANKS + rt::startup().core as usize) as usize,
        members: area.load(MEMBERS) as usize,
        sums: 0,
    };
    for kernel in KERNELS {
        for _ in 0..area.load(SAMPLES) {
            world.barrier();
            together(&mut world, kernel);
        }
    }
    0
}

fn area_bytes(members: usize) -> u64 {
    ((DATA + data_words(members)) as u64 * 8).next_multiple_of(abi::layout::PAGE)
}

pub fn measure(laboratory: &mut Laboratory) -> Result<(), Failure> {
    let here = rt::startup().core as usize;
    let others: Vec<usize> = rt::startup().cores().filter(|core| *core != here).collect();
    let all = others.len() + 1;
    let span = told("a span", span::begin())?;
    let area = told("memory of the span", span.map(area_bytes(all)))?;
    let samples = laboratory.samples(SLOWER_BY) + 1;
    for members in counts(all) {
        area.store(MEMBERS, members as u64);
        area.store(SAMPLES, samples as u64);
        area.store(RANKS + here, 0);
        let mut team = Vec::new();
        for (index, core) in others[..members - 1].iter().enumerate() {
            area.store(RANKS + core, index as u64 + 1);
            team.push(told("a member", span.join(*core, member, area.address()))?);
        }
        let mut world = World {
            area,
            rank: 0,
            members,
            sums: 0,
        };
        let mut wrong = None;
        for kernel in KERNELS {
            let mut times = Vec::new();
            let with = [("members", members as u64)];
            laboratory.within(kernel.name, &with, samples as u64, || {
                for _ in 0..samples {
                    times.push(sample(&mut world, kernel));
                    // The others go on whatever came of it: so does this one.
                    if let Err(reason) = (kernel.check)(&world) {
                        wrong = wrong.or(Some((kernel.name, reason)));
                    }
                }
            });
            // The first fetched everything.
            times.remove(0);
            laboratory.times(kernel.name, &with, times);
        }
        for member in team {
            match told("the end of a member", member.wait())? {
                0 => {}
                _ => return told("the end of a member", Err("it failed")),
            }
        }
        if let Some((kernel, reason)) = wrong {
            return Err(Failure {
                step: kernel,
                reason: reason.into(),
            });
        }
    }
    told("unmapping the memory", span.unmap(area))
}

fn sample(world: &mut World, kernel: &Work) -> Cycles {
    (kernel.prepare)(world);
    // All are there. None begins before the clock was read: that is at the next barrier.
    world.barrier();
    timed(|| together(world, kernel)).0
}

/// From when all may begin to when all have ended.
fn together(world: &mut World, kernel: &Work) {
    world.barrier();
    (kernel.run)(world);
    world.barrier();
}
