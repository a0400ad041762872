//! Dispatchers that make each other anew, and never use up a time slice.
//!
//! What somebody else gets of the core beside them is compared with what it gets beside a single one
//! that computes, within one run. It is counted in a frame that both domains have mapped.

use crate::threads::{prepare, stack, thread};
use crate::{PART, Test, here};
use abi::layout::PAGE;
use abi::limits::TIME_SLICE_NS;
use abi::syscall::DISPATCHER_BYTES;
use abi::syscall::priority::NORMAL;
use core::sync::atomic::{AtomicU64, Ordering};
use rt::capability::{self, Address, GIFT, Kind, Retype, slots};
use rt::memory::{self, Result};
use rt::monitor::{self, Spawn};
use rt::space::{Mapping, PageSize, rights};
use rt::{clock, dispatcher, println, system_call};

/// How long it is counted.
const SPAN_NS: u64 = 16 * TIME_SLICE_NS;
/// How long a dispatcher has before it makes the other one anew.
const HOP_NS: u64 = TIME_SLICE_NS * 2 / 5;
/// One that goes well suffices: what the scheduler does wrong, it does every time.
const ATTEMPTS: usize = 4;
/// What must be left to others, as a part of what is beside one.
const LEAST: u64 = 4;

/// The RAM of the two, the slots of their dispatchers and the tops of their stacks.
static RAM: AtomicU64 = AtomicU64::new(0);
static SLOTS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
static STACKS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
/// How often one has made the other, and how often that failed.
static HOPS: AtomicU64 = AtomicU64::new(0);
static FAILURES: AtomicU64 = AtomicU64::new(0);

/// The part of the other domain: it counts.
pub fn count() -> i32 {
    // SAFETY: only the words of this mapping refer to the frame's memory.
    let Ok(frame) = (unsafe { Mapping::of(GIFT, PageSize::Small, rights::WRITE) }) else {
        return 1;
    };
    let [counter, ..] = frame.words() else {
        return 1;
    };
    loop {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Makes one of the two anew.
fn make(number: usize) -> capability::Result {
    let it = Address(SLOTS[number].load(Ordering::Relaxed));
    if capability::identify(it).is_ok() {
        capability::delete(it)?;
    }
    let what = Retype {
        kind: Kind::Dispatcher,
        offset: number as u64 * DISPATCHER_BYTES,
        bytes: DISPATCHER_BYTES,
        count: 1,
    };
    capability::retype(Address(RAM.load(Ordering::Relaxed)), &what, it)?;
    let top = STACKS[number].load(Ordering::Relaxed);
    prepare(it, hop, number as u64, top, NORMAL)?;
    dispatcher::start(it)
}

/// One of the two: computes for less than a time slice, and makes the other one.
extern "C" fn hop(number: u64) -> ! {
    let end = clock::now_ns() + HOP_NS;
    while clock::now_ns() < end {}
    let made = make(usize::from(number == 0));
    let counter = if made.is_ok() { &HOPS } else { &FAILURES };
    counter.fetch_add(1, Ordering::Relaxed);
    loop {
        system_call::wait(None);
    }
}

extern "C" fn compute(_: u64) -> ! {
    loop {
        core::hint::black_box(clock::now_ns());
    }
}

/// How far the other domain counts in a while.
fn counted(counter: &AtomicU64) -> u64 {
    clock::sleep_ns(2 * TIME_SLICE_NS);
    let before = counter.load(Ordering::Relaxed);
    clock::sleep_ns(SPAN_NS);
    counter.load(Ordering::Relaxed) - before
}

/// Beside the two, the other domain gets at least a quarter of what it gets beside one.
pub fn starve(test: &mut Test) -> Result {
    let frame = Mapping::zeroed(PAGE, PageSize::Small)?;
    let [counter, ..] = frame.words() else {
        return Ok(());
    };
    let name = rt::startup().arguments().next().unwrap_or("");
    let words = [name, PART, "count"];
    let child = Spawn::new(&words).gift(frame.frame()).start()?;
    while counter.load(Ordering::Relaxed) == 0 {
        clock::sleep_ns(TIME_SLICE_NS / 10);
    }
    let ram = slots::take()?;
    monitor::ram(2 * DISPATCHER_BYTES, ram)?;
    RAM.store(ram.0, Ordering::Relaxed);
    for (slot, top) in SLOTS.iter().zip(&STACKS) {
        slot.store(slots::take()?.0, Ordering::Relaxed);
        top.store(stack(), Ordering::Relaxed);
    }
    let mut fair = false;
    for _ in 0..ATTEMPTS {
        let one = thread(compute, 0, NORMAL)?;
        dispatcher::start(one)?;
        let beside_one = counted(counter);
        memory::free(one)?;

        let hops = HOPS.load(Ordering::Relaxed);
        make(0)?;
        let beside_two = counted(counter);
        for slot in &SLOTS {
            let slot = Address(slot.load(Ordering::Relaxed));
            if capability::identify(slot).is_ok() {
                capability::delete(slot)?;
            }
        }
        let hops = HOPS.load(Ordering::Relaxed) - hops;
        test.expect("they made each other", &(hops > 1), &true);
        fair = beside_one > 0 && beside_two >= beside_one / LEAST;
        if fair {
            break;
        }
        println!("attack-test: starve: {beside_one} beside one, {beside_two} beside two");
    }
    test.expect("a quarter of that is left", &fair, &true);
    test.expect("failures", &FAILURES.load(Ordering::Relaxed), &0);
    monitor::free_ram(capability::identify(ram)?.base)?;
    slots::give(ram);
    for slot in &SLOTS {
        slots::give(Address(slot.load(Ordering::Relaxed)));
    }
    monitor::kill(child)?;
    let _ = monitor::wait(child)?;
    let echo = monitor::memory(here()).is_ok();
    test.expect("the monitor afterwards", &echo, &true);
    Ok(())
}
