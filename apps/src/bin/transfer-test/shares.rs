//! A frame on all cores, and its end.

use crate::cells::Order;
use crate::{Failure, PATIENCE_NS, Result, Stage, ends_with};
use abi::exception::PAGE_FAULT;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use rt::capability::slots;
use rt::interface::FAULT_STATUS;
use rt::monitor::{self, Domain};
use rt::space::{Mapping, PageSize, rights};
use rt::{clock, system_call, transfer};

/// The word by which a copy knows that it is to receive a frame, write to it, and look at it until
/// it cannot.
pub const TOUCH: &str = "touch";

/// Words of the copies on each core, and of the children.
const COPIES: u64 = 0;
const CHILDREN: u64 = 256;

/// What a child does.
pub fn touch() -> i32 {
    let Ok(slot) = slots::take() else { return 1 };
    if transfer::receive(slot).is_err() {
        return 2;
    }
    // SAFETY: made for this test; all accesses in this program are to atomic words.
    let Ok(mapping) = (unsafe { Mapping::of(slot, PageSize::Small, rights::WRITE) }) else {
        return 3;
    };
    let own = CHILDREN as usize + rt::startup().core as usize;
    mapping.words()[own].store(1, Relaxed);
    loop {
        // Ends when the frame is revoked.
        mapping.words()[own].load(Relaxed);
        system_call::wait(Some(clock::now_ns() + 100_000));
    }
}

pub fn check(stage: &mut Stage) -> Result {
    let home = stage.home;
    let others: Vec<usize> = stage.cores[1..].to_vec();
    stage.must("a frame", home, Order::frame(1))?;
    stage.must("a mapping at home", home, Order::map(1))?;
    for core in others.clone() {
        stage.give(home, 1, core, 1)?;
        stage.must("a mapping", core, Order::map(1))?;
    }
    // All write, and all see all.
    for core in stage.cores.clone() {
        let (index, value) = (COPIES + core as u64, 1000 + core as u64);
        stage.must("a store", core, Order::store(1, index, value))?;
    }
    for core in stage.cores.clone() {
        for other in stage.cores.clone() {
            let index = COPIES + other as u64;
            let seen = stage.must("a load", core, Order::load(1, index))?;
            let value = 1000 + other as u64;
            stage
                .outcome
                .expect("another core's word", &seen.values[0], &value);
        }
    }
    let children = children(stage)?;
    stage.must("a revoke", home, Order::revoke(1))?;
    for core in others.clone() {
        let left = stage.on(core, Order::look(1))?;
        stage
            .outcome
            .expect("what a revoke left", &left.error, &crate::cells::EMPTY);
        stage.must("unmapping what is gone", core, Order::unmap(1))?;
    }
    for child in children {
        let status = FAULT_STATUS + PAGE_FAULT as i32;
        ends_with(
            &mut stage.outcome,
            "a child without its frame",
            child,
            status,
        )?;
    }
    let index = COPIES + home as u64;
    let kept = stage.must("the revoker's copy", home, Order::load(1, index))?;
    stage
        .outcome
        .expect("its contents", &kept.values[0], &(1000 + home as u64));
    stage.must("no mapping", home, Order::unmap(1))?;
    let found = stage.must("the revoker's copy", home, Order::look(1))?;
    stage
        .outcome
        .expect("shared after the revoke", &found.values[3], &0);
    stage.must("freeing", home, Order::free(1))?;
    Ok(())
}

/// Starts a child on each core that looks at the frame until it is gone.
fn children(stage: &mut Stage) -> Result<Vec<Domain>> {
    let (home, cores) = (stage.home, stage.cores.clone());
    let started = cores
        .iter()
        .map(|core| monitor::begin_spawn(*core, &["transfer-test", TOUCH], None));
    let started: Vec<_> = started.collect::<core::result::Result<_, _>>()?;
    let mut children = Vec::new();
    for token in started {
        children.push(monitor::end_spawn(token)?);
    }
    for child in &children {
        stage.must("a send to a child", home, Order::send(1, *child))?;
    }
    let deadline = clock::now_ns() + PATIENCE_NS;
    for core in cores {
        let index = CHILDREN + core as u64;
        while stage.on(home, Order::load(1, index))?.values[0] == 0 {
            if clock::now_ns() > deadline {
                return Err(Failure::Monitor(rt::interface::Error::NotWaiting));
            }
            system_call::wait(Some(clock::now_ns() + 100_000));
        }
        // So that a later child's is seen.
        stage.must("a store", home, Order::store(1, index, 0))?;
    }
    Ok(children)
}
