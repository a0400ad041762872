//! What cores do together, as each of them does it. The root measures.

use crate::mesh::{Node, UNDER_WAY, kind};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::vec::Vec;
use apps::laboratory::{Failure, at, timed, told};
use rt::capability::Address;
use rt::clock::Cycles;
use rt::coordination::Barrier;
use rt::memory;

/// Rounds for warming up.
pub const WARM_UP: usize = 4;
/// Frames that each core allocates, and then frees, in a sample.
pub const FRAMES: usize = 32;
/// Agreements of a sample where several are under way.
pub const BATCH: u64 = 64;

/// Meets the others so often; how long each round took.
pub fn barriers(node: &mut Node, rounds: usize) -> Result<Vec<Cycles>, Failure> {
    (0..rounds)
        .map(|_| {
            let (time, done) = timed(|| node.barrier());
            done?;
            Ok(time)
        })
        .collect()
}

/// The same at a barrier of names among `members` domains.
pub fn named_barriers(name: &str, members: usize, rounds: usize) -> Result<Vec<Cycles>, Failure> {
    let mut barrier = told("a barrier", Barrier::new(name, members))?;
    (0..rounds)
        .map(|_| {
            let (time, done) = timed(|| barrier.wait());
            told("a barrier", done)?;
            Ok(time)
        })
        .collect()
}

/// Allocates frames and frees them, all cores at once; how long each round took all.
pub fn allocate(node: &mut Node, rounds: usize) -> Result<Vec<Cycles>, Failure> {
    let mut times = Vec::with_capacity(rounds);
    let mut frames: Vec<Address> = Vec::with_capacity(FRAMES);
    for _ in 0..rounds {
        node.barrier()?;
        let (time, done) = timed(|| {
            for _ in 0..FRAMES {
                frames.push(memory::frame(abi::layout::PAGE)?);
            }
            frames.drain(..).try_for_each(memory::free)
        });
        // All have done their part only after the next barrier.
        let (rest, ended) = timed(|| node.barrier());
        told("memory", done)?;
        ended?;
        times.push(Cycles(time.0 + rest.0));
    }
    Ok(times)
}

/// The root tells all a number, again and again; how long each took to be answered by all.
pub fn broadcasts(node: &mut Node, members: u64, rounds: usize) -> Result<Vec<Cycles>, Failure> {
    (0..rounds as u64)
        .map(|round| {
            let (time, agreed) = timed(|| {
                node.tell(kind::TELL, round)?;
                node.answer()
            });
            check(agreed?, members)?;
            Ok(time)
        })
        .collect()
}

/// The root has all agree to a number in two phases, again and again; how long each took.
pub fn agreements(node: &mut Node, members: u64, rounds: usize) -> Result<Vec<Cycles>, Failure> {
    (0..rounds as u64)
        .map(|round| {
            let (time, agreed) = timed(|| {
                let number = node.tell(kind::PREPARE, round)?;
                check(node.answer()?, members)?;
                node.tell(kind::COMMIT, number)?;
                node.answer()
            });
            check(agreed?, members)?;
            Ok(time)
        })
        .collect()
}

/// The same with several under way, [`BATCH`] in a round: how long a round took.
pub fn pipelines(node: &mut Node, members: u64, rounds: usize) -> Result<Vec<Cycles>, Failure> {
    (0..rounds)
        .map(|_| {
            let (time, done) = timed(|| pipeline(node, members));
            done?;
            Ok(time)
        })
        .collect()
}

fn pipeline(node: &mut Node, members: u64) -> Result<(), Failure> {
    // Numbers of messages that prepare, `None` for those that commit, in the order of answers.
    let mut under_way: VecDeque<Option<u64>> = VecDeque::new();
    let (mut begun, mut ended) = (0, 0);
    while ended < BATCH {
        while begun < BATCH && begun - ended < UNDER_WAY {
            under_way.push_back(Some(node.tell(kind::PREPARE, begun)?));
            begun += 1;
        }
        check(node.answer()?, members)?;
        match under_way.pop_front().flatten() {
            Some(number) => {
                node.tell(kind::COMMIT, number)?;
                under_way.push_back(None);
            }
            None => ended += 1,
        }
    }
    Ok(())
}

fn check(agreed: u64, members: u64) -> Result<(), Failure> {
    match agreed == members {
        true => Ok(()),
        false => at("agreement", Err(format!("{agreed} of {members} agreed"))),
    }
}
