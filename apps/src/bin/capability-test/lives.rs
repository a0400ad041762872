//! What is moved or deleted while it is in use.

use crate::NAME;
use crate::bench::{Ground, Outcome, Row, comes_true, discard, mint, size};
use crate::children::{REFUSED, WENT_ON, role, start};
use abi::layout::PAGE;
use abi::syscall::{self, DISPATCHER_BYTES, REGISTERS, priority};
use core::sync::atomic::Ordering::Relaxed;
use rt::capability::{
    self, Address, ENDPOINT_BYTES, FIRST_CNODE_SLOTS, Kind, OWN_SPACE, ROOT_CNODE, Rights, slots,
};
use rt::dispatcher::{self, Life, Property};
use rt::interface::FAULT_STATUS;
use rt::memory::Result;
use rt::monitor::{self, Spawn};
use rt::space::{self, MapError, Mapping, PageSize, rights};
use rt::system_call::{self, Error};
use rt::{clock, lrpc};

/// Vector of a page fault.
const PAGE_FAULT: i32 = 14;
/// How long a call from a child may take.
const PATIENCE_NS: u64 = 30_000_000_000;
/// How often others have their turn before they surely have done what they were about.
const TURNS: u32 = 1000;

core::arch::global_asm!(
    ".pushsection .text.capability_test, \"ax\"",
    ".global capability_test_call",
    "capability_test_call:",
    "syscall",
    "int3",
    ".global capability_test_spin",
    "capability_test_spin:",
    "inc rbx",
    "jmp capability_test_spin",
    // Asks about slot r13 again and again; the error is in rbx.
    ".global capability_test_ask",
    "capability_test_ask:",
    "mov rax, r12",
    "mov rdi, r13",
    "xor esi, esi",
    "syscall",
    "mov rbx, rax",
    "inc r14",
    "jmp capability_test_ask",
    ".popsection",
);

unsafe extern "C" {
    // Instructions and no functions: nobody calls them.
    fn capability_test_call();
    fn capability_test_spin();
    fn capability_test_ask();
}

/// Capabilities that are moved while they are in use.
pub fn moves(outcome: &mut Outcome) -> Result {
    mapped_frame(outcome)?;
    entered_table(outcome)?;
    endpoint(outcome)?;
    dispatcher_of_a_child(outcome)
}

/// A frame moved while it is mapped, and deleted.
fn mapped_frame(outcome: &mut Outcome) -> Result {
    let ground = Ground::new(4 * PAGE)?;
    let row = Row::take(3)?;
    let (frame, other, copy) = (row.at(0), row.at(1), row.at(2));
    ground.make_in(Kind::Frame, 0, 4 * PAGE, 1, frame)?;
    // SAFETY: nothing else refers to this memory.
    let mapping = unsafe { Mapping::of(frame, PageSize::Small, rights::WRITE)? };
    let address = mapping.address();
    let word = &mapping.words()[0];
    let entries = |slot| capability::identify(slot).map(|found| found.entries);
    for turn in 1..=3 {
        word.store(turn, Relaxed);
        outcome.expect("a mapped frame", &entries(frame), &Ok(4));
        outcome.expect("its move", &capability::move_to(frame, other), &Ok(()));
        outcome.expect("mapped as before", &word.load(Relaxed), &turn);
        outcome.expect("moved along", &entries(other), &Ok(4));
        // The mapping is the one capability's, not the object's.
        outcome.expect("a copy", &capability::copy(other, copy), &Ok(()));
        outcome.expect("a copy's entries", &entries(copy), &Ok(0));
        outcome.expect("the copy goes", &capability::delete(copy), &Ok(()));
        outcome.expect("mapped as before", &word.load(Relaxed), &turn);
        let protected = space::protect(other, address, rights::READ);
        outcome.expect("protect", &protected, &Ok(()));
        let found = space::translate(OWN_SPACE, address).map(|found| found.rights);
        outcome.expect("protected", &found, &Ok(rights::READ));
        space::protect(other, address, rights::WRITE)?;
        outcome.expect("its move back", &capability::move_to(other, frame), &Ok(()));
    }
    capability::copy(frame, copy)?;
    capability::move_to(frame, other)?;
    outcome.expect("the moved one goes", &capability::delete(other), &Ok(()));
    for page in 0..4 {
        let found = space::translate(OWN_SPACE, address + page * PAGE).map(|_| ());
        outcome.expect("and with it the mapping", &found, &Err(Error::NotMapped));
    }
    outcome.expect("a copy is left", &entries(copy), &Ok(0));
    drop(mapping);
    row.give()?;
    ground.free()
}

/// A page table moved while it is entered in another, and deleted.
fn entered_table(outcome: &mut Outcome) -> Result {
    let address = 0x1200_0000_0000;
    let ground = Ground::new(2 * PAGE)?;
    let row = Row::take(4)?;
    let [root, table, other, copy] = [0, 1, 2, 3].map(|number| row.at(number));
    let entries = |slot| capability::identify(slot).map(|found| found.entries);
    let enter = |table| {
        // SAFETY: an address space of its own.
        unsafe { space::map_table(root, address, table) }
    };
    for is_deleted in [false, true] {
        ground.make_in(Kind::PageTable4, 0, PAGE, 1, root)?;
        ground.make_in(Kind::PageTable3, PAGE, PAGE, 1, table)?;
        outcome.expect("a table", &enter(table), &Ok(()));
        outcome.expect("its move", &capability::move_to(table, other), &Ok(()));
        outcome.expect("moved along", &entries(other), &Ok(1));
        outcome.expect("a copy", &capability::copy(other, copy), &Ok(()));
        outcome.expect("a copy's entries", &entries(copy), &Ok(0));
        let twice = Err(MapError::Refused(Error::CapabilityMapped));
        outcome.expect("entered twice", &enter(copy), &twice);
        let unmapped = space::unmap(copy);
        outcome.expect("by a copy", &unmapped, &Err(Error::NotMapped));
        let missing = || space::translate(root, address).map_err(|error| (error, entries(other)));
        let found = missing().map(|_| ());
        outcome.expect("as before", &found, &Err((Error::NeedTable, Ok(1))));
        if is_deleted {
            outcome.expect("the moved one goes", &capability::delete(other), &Ok(()));
            capability::move_to(copy, other)?;
        } else {
            outcome.expect("unmapped", &space::unmap(other), &Ok(1));
            capability::delete(copy)?;
        }
        // Its place in the root is free again, and it may be entered again.
        outcome.expect("entered again", &enter(other), &Ok(()));
        outcome.expect("again", &entries(other), &Ok(1));
        row.clear()?;
    }
    row.give()?;
    ground.free()
}

/// Waits for a child's next call.
fn receive(endpoint: Address) -> capability::Result<(u64, lrpc::Words)> {
    let deadline = clock::now_ns() + PATIENCE_NS;
    loop {
        match lrpc::receive(endpoint, Some(deadline)) {
            Err(Error::Interrupted) => {}
            received => return received,
        }
    }
}

/// An endpoint moved while somebody is called by it, and deleted.
fn endpoint(outcome: &mut Outcome) -> Result {
    let ground = Ground::new(PAGE)?;
    let row = Row::take(3)?;
    let (one, other, gift) = (row.at(0), row.at(1), row.at(2));
    let badge = 77;
    // At last the child is told its status; or all that it calls by goes, while it waits in the
    // queue, or for an answer.
    for (end, expected) in [
        ("an answer", 9),
        ("a revoke in the queue", REFUSED + Error::PeerGone as i32),
        // Whoever should answer is there still.
        ("a revoke before the answer", 8),
        ("its own capability", REFUSED + Error::EmptySlot as i32),
    ] {
        ground.make_in(Kind::Endpoint, 0, ENDPOINT_BYTES, 1, one)?;
        capability::mint(one, gift, Rights::WRITE, badge)?;
        let child = start(role::CALLER, Some(gift))?;
        for call in 1..=4 {
            let (from, to) = if call % 2 == 1 {
                (one, other)
            } else {
                (other, one)
            };
            let received = receive(from).map(|(badge, words)| (badge, words[0]));
            outcome.expect("a call", &received, &Ok((badge, call)));
            outcome.expect("a move", &capability::move_to(from, to), &Ok(()));
            outcome.refuse("by the old slot", &[from, to], Error::EmptySlot, || {
                lrpc::receive(from, Some(1))
            });
            if call < 4 {
                lrpc::reply([0; 5])?;
            }
        }
        // It is where it began, and the fourth call waits for its answer.
        match end {
            "an answer" => lrpc::reply([9, 0, 0, 0, 0])?,
            "a revoke in the queue" => {
                lrpc::reply([0; 5])?;
                // It has its turn as often as it takes to call again.
                for _ in 0..TURNS {
                    system_call::yield_now();
                }
                outcome.expect(end, &capability::revoke(one), &Ok(()));
                capability::delete(one)?;
            }
            "its own capability" => {
                // Those with the badge go; the endpoint stays, and the call with it.
                capability::mint(one, other, Rights::all(), badge)?;
                outcome.expect(end, &capability::revoke(other), &Ok(()));
                lrpc::reply([0; 5])?;
                capability::delete(other)?;
            }
            _ => {
                outcome.expect(end, &capability::revoke(one), &Ok(()));
                capability::delete(one)?;
                let answered = lrpc::reply([8, 0, 0, 0, 0]);
                outcome.expect("an answer", &answered, &Ok(()));
            }
        }
        let status = monitor::wait(child);
        outcome.expect(end, &status, &Ok(expected));
        row.clear()?;
        ground.clear()?;
    }
    row.give()?;
    ground.free()
}

/// The capability to a child's dispatcher moved while it runs.
fn dispatcher_of_a_child(outcome: &mut Outcome) -> Result {
    let row = Row::take(5)?;
    let (at, other) = (row.at(0), row.at(4));
    let child = Spawn::new(&["exit", "6"]).traced(at).start()?;
    outcome.expect("a child", &dispatcher::state(at), &Ok(Life::Stopped));
    outcome.expect("its move", &capability::move_to(at, other), &Ok(()));
    outcome.expect("moved", &dispatcher::state(other), &Ok(Life::Stopped));
    let old = dispatcher::state(at);
    outcome.expect("by the old slot", &old, &Err(Error::EmptySlot));
    outcome.expect("its start", &dispatcher::start(other), &Ok(()));
    outcome.expect("its stop", &dispatcher::stop(other), &Ok(()));
    outcome.expect("its move back", &capability::move_to(other, at), &Ok(()));
    outcome.expect("its start", &dispatcher::start(at), &Ok(()));
    let status = monitor::wait(child);
    outcome.expect("its status", &status, &Ok(6));
    row.give()?;
    Ok(())
}

/// Capabilities that are deleted while they are in use.
pub fn ends(outcome: &mut Outcome) -> Result {
    for (role, status) in [
        (role::ORPHAN, WENT_ON),
        (role::BARE, WENT_ON),
        (role::EMPTY, FAULT_STATUS + PAGE_FAULT),
    ] {
        let child = start(role, None)?;
        let found = monitor::wait(child);
        outcome.expect(&alloc::format!("{NAME} {role}"), &found, &Ok(status));
    }
    dispatchers_end(outcome)?;
    slots_end(outcome)?;
    last_copies(outcome)
}

/// Where in [`REGISTERS`] a name is.
fn register(name: &str) -> usize {
    let found = REGISTERS.iter().position(|other| *other == name);
    found.unwrap_or(REGISTERS.len())
}

/// A dispatcher in this address space, which is about to run the instructions at `code`.
fn runner(
    slot: Address,
    root: Address,
    code: unsafe extern "C" fn(),
    registers: &[(&str, u64)],
) -> Result {
    dispatcher::configure(slot, Property::CSpace(root))?;
    dispatcher::configure(slot, Property::Priority(priority::NORMAL))?;
    // SAFETY: it runs some of the few instructions above, which touch no memory.
    unsafe { dispatcher::set_space(slot, OWN_SPACE)? };
    let code = ("rip", code as *const () as u64);
    for (name, value) in registers.iter().chain([&code]) {
        dispatcher::write_register(slot, register(name), *value)?;
    }
    Ok(())
}

/// The root CNode of a dispatcher goes while it runs: it finds no slot any more, and goes on.
fn slots_end(outcome: &mut Outcome) -> Result {
    let ground = Ground::new(8 * PAGE)?;
    let row = Row::take(2)?;
    let (root, slot) = (row.at(0), row.at(1));
    let own = Address::new(1, FIRST_CNODE_SLOTS - 1);
    let read = |name| dispatcher::read_register(slot, register(name));
    for turn in 0..3 {
        ground.make_in(Kind::Dispatcher, 4 * PAGE, DISPATCHER_BYTES, 1, slot)?;
        ground.make_in(Kind::CNode, 0, PAGE, 1, root)?;
        // In its own first slot it finds itself: as what it asks about.
        capability::copy(root, own)?;
        capability::copy(root, Address::new(FIRST_CNODE_SLOTS - 1, 1))?;
        capability::delete(own)?;
        let registers = [
            ("r12", syscall::IDENTIFY),
            ("r13", Address::new(1, 1).0),
            ("r14", 0),
        ];
        runner(slot, root, capability_test_ask, &registers)?;
        dispatcher::start(slot)?;
        let asks = |error: u64| {
            let before = read("r14").unwrap_or(0);
            // More than one more: it has asked since.
            comes_true(|| {
                let asked = read("r14").is_ok_and(|asked| asked > before + 2);
                asked && read("rbx") == Ok(error)
            })
        };
        outcome.expect("it finds its root", &asks(0), &true);
        match turn {
            // The one capability that is not its own goes, and nothing changes for it.
            0 => {
                capability::delete(root)?;
                outcome.expect("without the first", &asks(0), &true);
                ground.clear()?;
                outcome.expect_empty("all of it", [slot]);
                continue;
            }
            1 => {
                capability::revoke(root)?;
                capability::delete(root)?;
            }
            // Another in its place.
            _ => {
                ground.make_in(Kind::CNode, PAGE, PAGE, 1, own)?;
                dispatcher::configure(slot, Property::CSpace(own))?;
                outcome.expect("an empty one", &asks(Error::NoSuchSlot as u64), &true);
                for slot in [own, root] {
                    capability::revoke(slot)?;
                    capability::delete(slot)?;
                }
            }
        }
        outcome.expect("without slots", &asks(Error::NoSuchSlot as u64), &true);
        // Nor does it find what comes where its root was: one like that.
        // (While it is stopped: emptying CNodes is for when the core has nothing else to do.)
        dispatcher::stop(slot)?;
        for page in 0..2 {
            ground.make_in(Kind::CNode, page * PAGE, PAGE, 1, own)?;
            capability::copy(own, Address::new(FIRST_CNODE_SLOTS - 1, 1))?;
            capability::delete(own)?;
        }
        dispatcher::start(slot)?;
        outcome.expect("others' slots", &asks(Error::NoSuchSlot as u64), &true);
        let life = dispatcher::state(slot);
        outcome.expect("it goes on", &life, &Ok(Life::Alive));
        ground.clear()?;
    }
    row.give()?;
    ground.free()
}

/// Dispatchers of this domain whose last capability goes: while they run, and by themselves.
fn dispatchers_end(outcome: &mut Outcome) -> Result {
    let ground = Ground::new(8 * PAGE)?;
    let slot = slots::take()?;
    for turn in 0..8 {
        ground.make_in(Kind::Dispatcher, 0, DISPATCHER_BYTES, 1, slot)?;
        let deletes_itself = turn % 2 == 0;
        let code = match deletes_itself {
            true => capability_test_call,
            false => capability_test_spin,
        };
        let registers = [("rax", syscall::DELETE), ("rdi", slot.0), ("rbx", 0)];
        runner(slot, ROOT_CNODE, code, &registers)?;
        outcome.expect("its start", &dispatcher::start(slot), &Ok(()));
        let is_gone = || capability::identify(slot).map(|_| ()) == Err(Error::EmptySlot);
        if deletes_itself {
            outcome.expect("it deletes itself", &comes_true(is_gone), &true);
        } else {
            let count = || dispatcher::read_register(slot, register("rbx"));
            let runs = comes_true(|| count().is_ok_and(|count| count > 0));
            outcome.expect("it runs", &runs, &true);
            match turn % 4 {
                1 => capability::delete(slot)?,
                _ => ground.clear()?,
            }
            outcome.expect("it was deleted", &is_gone(), &true);
        }
        // Its memory is free, and nobody runs in it any more.
        ground.make_in(Kind::Frame, 0, DISPATCHER_BYTES, 1, slot)?;
        clock::sleep_ns(200_000);
        outcome.expect("its memory", &crate::contents::is_zero(slot), &Ok(true));
        capability::delete(slot)?;
    }
    slots::give(slot);
    ground.free()
}

/// Memory is that of another object of each kind as soon as the last capability to one goes.
fn last_copies(outcome: &mut Outcome) -> Result {
    let ground = Ground::new(8 * PAGE)?;
    let row = Row::take(4)?;
    let kinds = crate::bench::OF_RAM;
    for before in kinds {
        for after in kinds {
            ground.make_in(before, 0, size(before), 1, row.at(0))?;
            capability::copy(row.at(0), row.at(1))?;
            mint(row.at(0), row.at(2), Rights::empty())?;
            capability::mint(row.at(0), row.at(3), Rights::empty(), 1)?;
            for last in 0..4 {
                let what = Ground::what(after, 0, size(after), 1);
                let spare = slots::take()?;
                outcome.refuse("one is left", &row.slots(), Error::Overlap, || {
                    capability::retype(ground.ram, &what, spare)
                });
                slots::give(spare);
                capability::delete(row.at(last))?;
            }
            let made = ground.make(after, 0, size(after));
            outcome.expect("none is left", &made.is_ok(), &true);
            discard(made?)?;
        }
    }
    row.give()?;
    ground.free()
}
