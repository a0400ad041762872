//! Several address spaces, and those that go.

use crate::places::tables;
use crate::world::*;
use abi::exception::PAGE_FAULT;
use abi::layout::PAGE;
use abi::syscall;
use rt::capability::{self, Kind, Retype, slots};
use rt::dispatcher::{self, Life};
use rt::memory::{self, Result};
use rt::space::{self, rights};
use rt::system_call::Error;

/// Bytes of the RAM that roots are made of.
const ROOT_BYTES: u64 = PAGE;

/// One frame in two address spaces.
pub fn both_at_once(outcome: &mut Outcome) -> Result {
    let mut worlds = [own(outcome)?, scratch(outcome)?];
    for world in &mut worlds {
        tables(world, outcome)?;
    }
    let frame = memory::frame(PAGE)?;
    worlds[0].mark(frame)?;
    let copies = [copy(frame)?, copy(frame)?];
    for (world, copy) in worlds.iter_mut().zip(copies) {
        let wish = page(copy, AREA, rights::WRITE);
        world.settle(outcome, "in both", &wish)?;
    }
    for writer in 0..2 {
        let value = 100 + writer as u64;
        let written = worlds[writer].write(AREA + 24, value)?;
        outcome.expect("a write in one", &written, &Done(0));
        let found = worlds[1 - writer].read(AREA + 24)?;
        outcome.expect("the write in the other", &found, &Done(value));
    }
    // A table is in one address space only.
    let twin = copy(worlds[0].tables[0])?;
    let there = worlds[1].enter(END, twin);
    outcome.expect("a table in both", &there, &no(Error::CapabilityMapped));
    discard(twin)?;
    // One less in one of them; then the frame is taken back from both.
    outcome.expect("unmap in one", &space::unmap(copies[0]), &Ok(1));
    let gone = (Error::NotMapped, 0);
    worlds[0].expect_nothing(outcome, "unmapped here", AREA, gone)?;
    let expected = small(&page(copies[1], AREA, rights::WRITE))?;
    worlds[1].expect_page(outcome, "unmapped there", AREA, expected)?;
    worlds[0].settle(outcome, "again", &page(copies[0], AREA, rights::READ))?;
    outcome.expect("a revoke", &capability::revoke(frame), &Ok(()));
    for (world, slot) in worlds.iter_mut().zip(copies) {
        world.expect_nothing(outcome, "revoked in both", AREA, gone)?;
        outcome.expect("a revoked slot", &is_empty(slot), &true);
        slots::give(slot);
        for table in world.tables {
            discard(table)?;
        }
    }
    memory::free(frame)
}

/// Without anybody to handle its exception, a dispatcher dies of it, and what it met can be read.
pub fn death(outcome: &mut Outcome) -> Result {
    for world in [own, scratch] {
        let World { probe, .. } = world(outcome)?;
        let dispatcher = probe.dispatcher();
        let from = code(space_test_read);
        let life = probe.run_to_death(&[("rip", from), ("rdi", AREA)])?;
        let expected = Life::Faulted {
            vector: PAGE_FAULT,
            error: fault::READ,
            instruction: from,
            address: AREA,
        };
        outcome.expect("a death", &life, &expected);
        // Whoever is dead stays so.
        outcome.expect("a start", &dispatcher::start(dispatcher), &Ok(()));
        let life = dispatcher::state(dispatcher)?;
        outcome.expect("life after it", &life, &expected);
        memory::free(dispatcher)?;
    }
    Ok(())
}

/// Address spaces that go while a dispatcher runs in them, and are made again.
pub fn spaces_go(outcome: &mut Outcome) -> Result {
    let bench = Bench::new(ROOT_BYTES)?;
    // The monitor keeps the right to revoke its RAM for itself.
    let ram = bench.make(Kind::Ram, 0, PAGE)?;
    let what = Retype {
        kind: Kind::PageTable4,
        offset: 0,
        bytes: PAGE,
        count: 1,
    };
    let root = slots::take()?;
    capability::retype(ram, &what, root)?;
    let World { mut probe, .. } = scratch_of(root, outcome)?;
    let dispatcher = probe.dispatcher();
    // All others: that is the dispatcher's own.
    outcome.expect("a revoke", &capability::revoke(root), &Ok(()));
    let lost = (dispatcher::state(dispatcher), dispatcher::start(dispatcher));
    let expected = (Ok(Life::Stopped), Err(Error::NotReady));
    outcome.expect("without its address space", &lost, &expected);
    // It was only lent: with it again, everything is as it was.
    // SAFETY: an address space of its own.
    unsafe { dispatcher::set_space(dispatcher, root)? };
    let from = code(space_test_read);
    let met = probe.run(&[("rip", from), ("rdi", from)])?;
    outcome.expect("with it again", &met.vector, &BREAKPOINT);

    // It takes its own address space back, while it is in use.
    let revoke = [
        ("rip", code(space_test_call)),
        ("rax", syscall::REVOKE),
        ("rdi", ram.0),
    ];
    let life = probe.run_to_death(&revoke)?;
    outcome.expect("who took its own space back", &life, &Life::Stopped);
    outcome.expect("the root", &is_empty(root), &true);
    let start = dispatcher::start(dispatcher);
    outcome.expect("its start", &start, &Err(Error::NotReady));
    let answer = dispatcher::read_register(dispatcher, 0);
    outcome.expect("its revoke", &answer, &Ok(0));

    // The same memory is another root, which knows nothing of the first.
    slots::give(root);
    let root = slots::take()?;
    capability::retype(ram, &what, root)?;
    let mut world = scratch_of(root, outcome)?;
    tables(&mut world, outcome)?;
    let [.., top] = world.tables;
    discard(top)?;
    let missing = (Error::NeedTable, 3);
    world.expect_nothing(outcome, "no table of level 3", AREA, missing)?;
    bench.free()?;
    let state = dispatcher::state(world.probe.dispatcher());
    outcome.expect("RAM taken back", &state, &Ok(Life::Stopped));
    Ok(())
}
