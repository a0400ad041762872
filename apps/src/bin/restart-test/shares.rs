//! Memory of a core that is lost, which others have: capabilities that it sent, and what it mapped in
//! spans. It is theirs until the core starts anew, and nobody's afterwards.

use crate::spans::{self, Step};
use crate::workers::{EMPTY, Order, Workers};
use crate::{Failed, Test, begin_start, on};
use abi::exception::PAGE_FAULT;
use abi::layout::PAGE;
use alloc::format;
use alloc::vec::Vec;
use rt::frame::Frame;
use rt::interface::{FAULT_STATUS, KILLED_STATUS};
use rt::monitor::{self, Domain};

/// A frame of the core's, RAM of it, and a frame that another core made of that RAM.
const FRAME: u64 = 0;
const RAM: u64 = 1;
const MADE: u64 = 2;
const RAM_BYTES: u64 = 8 * PAGE;
/// What is written into the first word of both frames.
const WORDS: [(u64, u64); 2] = [(FRAME, 77), (MADE, 88)];
/// How often the new life shares its memory.
const SHARES: usize = 6;
/// The status of a domain that touched what is not there.
pub const TOUCHED: i32 = FAULT_STATUS + PAGE_FAULT as i32;

impl Test {
    /// Lives of the last core, each with memory that others have.
    pub fn share(&mut self, lives: usize) -> Result<(), Failed> {
        // What a life shares goes with the domain that does it.
        for life in 0..lives {
            self.play(self.up[0], &["share", &format!("{life}")])?;
            self.as_before(&[])?;
        }
        if self.up.len() > 3 {
            self.play(self.up[0], &["share-two"])?;
            self.as_before(&[])?;
        }
        rt::println!("{} checks, {lives} lives", self.outcome.checks);
        Ok(())
    }

    /// One of these lives; or two cores at once, if there is none.
    pub fn share_once(&mut self, life: Option<usize>) -> Result<(), Failed> {
        let up = self.up.clone();
        let (core, rest) = up.split_last().ok_or("no core")?;
        match life {
            Some(life) => self.share_in(life, *core, rest),
            None => self.share_and_lose_two(*core, up[2]),
        }
    }

    fn share_in(&mut self, life: usize, core: usize, rest: &[usize]) -> Result<(), Failed> {
        let mut workers = Workers::hire(&self.up)?;
        self.give_all(&mut workers, core, rest)?;
        let (root, frame) = self.begin_root(life, core)?;

        self.lose_all(&[core])?;
        workers.0.forget(core);
        self.agree(rest)?;
        for other in rest {
            for (cell, expected) in WORDS {
                let found = workers.run(*other, Order::Load, cell, 0)?;
                self.outcome
                    .expect("memory of a lost core", &found, &expected);
            }
        }
        let sponsor = rest[life % rest.len()];
        monitor::start_core_from(sponsor, core).map_err(on(core, "a start"))?;
        let up = self.up.clone();
        self.agree(&up)?;
        self.has_nothing(&mut workers, rest)?;
        // Who touches it notices.
        let toucher = rest[life % rest.len()];
        let domain = workers.0.domain(toucher).ok_or("nobody is there")?;
        workers.begin(toucher, Order::Load, FRAME, 0)?;
        let status = monitor::wait(domain).map_err(on(toucher, "a touch"))?;
        self.outcome.expect("a touch", &status, &TOUCHED);
        workers.0.forget(toucher);
        workers.dismiss()?;

        spans::say(&frame, Step::Started);
        let status = monitor::wait(root).map_err(on(root.core(), "a root"))?;
        let expected = match spans::root_uses(life) {
            true => KILLED_STATUS,
            false => 0,
        };
        self.outcome
            .expect("the root of a span", &status, &expected);
        let child = self.child(core, &["span-here"])?;
        let status = monitor::wait(child).map_err(on(core, "a span"))?;
        self.outcome.expect("a span of the new life", &status, &0);

        // The memory is shared anew, again and again.
        let mut workers = Workers::hire(&self.up)?;
        for _ in 0..SHARES {
            self.give_all(&mut workers, core, rest)?;
            for (cell, expected) in WORDS {
                for other in rest {
                    let found = workers.run(*other, Order::Load, cell, 0)?;
                    self.outcome.expect("memory anew", &found, &expected);
                }
            }
            let revoker = rest[life % rest.len()];
            workers.run(revoker, Order::Revoke, FRAME, 0)?;
            workers.run(core, Order::FreeRam, RAM, 0)?;
            for other in rest {
                let look = workers.run(*other, Order::Look, FRAME, 0)?;
                let is_there = look != EMPTY;
                self.outcome
                    .expect("a revoke", &is_there, &(*other == revoker));
                for cell in [RAM, MADE] {
                    let look = workers.run(*other, Order::Look, cell, 0)?;
                    self.outcome.expect("a revoke", &look, &EMPTY);
                }
            }
            for one in self.up.clone() {
                for cell in [FRAME, RAM, MADE] {
                    workers.run(one, Order::Clear, cell, 0)?;
                }
            }
        }
        workers.dismiss()
    }

    /// The core's copy gives all others a frame, and RAM of which one of them makes a frame for all.
    fn give_all(
        &mut self,
        workers: &mut Workers,
        core: usize,
        rest: &[usize],
    ) -> Result<(), Failed> {
        workers.run(core, Order::Frame, FRAME, 0)?;
        workers.run(core, Order::Ram, RAM, RAM_BYTES)?;
        for other in rest {
            workers.give(core, *other, FRAME)?;
            workers.give(core, *other, RAM)?;
        }
        let maker = rest[rest.len() - 1];
        workers.run(maker, Order::Retype, RAM, MADE)?;
        for other in rest.iter().filter(|other| **other != maker) {
            workers.give(maker, *other, MADE)?;
        }
        for other in rest {
            for (cell, _) in WORDS {
                workers.run(*other, Order::Map, cell, 0)?;
            }
        }
        for (cell, value) in WORDS {
            workers.run(maker, Order::Store, cell, value)?;
        }
        Ok(())
    }

    /// Nobody has anything of a former life.
    fn has_nothing(&mut self, workers: &mut Workers, rest: &[usize]) -> Result<(), Failed> {
        for other in rest {
            for cell in [FRAME, RAM, MADE] {
                let found = workers.run(*other, Order::Look, cell, 0)?;
                self.outcome
                    .expect("memory of a former life", &found, &EMPTY);
            }
        }
        Ok(())
    }

    /// Starts the root of a span over all cores, and waits until the core's memory is used there.
    fn begin_root(&mut self, life: usize, core: usize) -> Result<(Domain, Frame), Failed> {
        let home = self.up[0];
        let frame = monitor::frame(PAGE as usize).map_err(on(home, "a frame"))?;
        let (core, life) = (format!("{core}"), format!("{life}"));
        let words = [crate::NAME, crate::ROLE, "span", &core, &life];
        let root = monitor::spawn(home, &words, Some(&frame)).map_err(on(home, "a root"))?;
        self.seen.insert(root);
        while !spans::is_at(&frame, Step::Ready) {
            let ended = monitor::try_wait(root).map_err(on(home, "a root"))?;
            if let Some(status) = ended {
                return Err(format!("the root of a span ended with {status}"));
            }
            rt::clock::sleep_ns(crate::PAUSE_NS / 10);
        }
        Ok((root, frame))
    }

    /// Another core, which has some of the core's memory as well, is lost while that is started.
    fn share_and_lose_two(&mut self, core: usize, other: usize) -> Result<(), Failed> {
        let mut workers = Workers::hire(&self.up)?;
        let up = self.up.clone();
        let is_rest = |one: &usize| *one != core && *one != other;
        let mut rest: Vec<usize> = up.iter().copied().filter(is_rest).collect();
        // It makes something of the RAM, and so is the home of that.
        rest.push(other);
        self.give_all(&mut workers, core, &rest)?;
        self.lose_all(&[core])?;
        workers.0.forget(core);
        self.agree(&up[..up.len() - 1])?;
        let start = begin_start(up[1], core).map_err(on(core, "a start"))?;
        self.lose_all(&[other])?;
        workers.0.forget(other);
        rest.pop();
        monitor::answer(start).map_err(on(core, "a start"))?;
        let started = monitor::start_core(other);
        started.map_err(on(other, "a start"))?;
        self.agree(&up)?;
        self.has_nothing(&mut workers, &rest)?;
        workers.dismiss()
    }
}
