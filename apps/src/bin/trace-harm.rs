//! Spoils the trace of its core, and shows that nobody else is the worse for it.
//!
//! `trace-harm`: with `trace=RECORDS` on the system's command line and without
//!
//! The control page and the ring are ring 3's to write to. Whatever stands there, CPU driver, monitor and
//! other domains go on: they write their records into the ring, wherever the control page says that it is, and
//! nothing anywhere else. What can be written otherwise of the kernel half, `isolation` finds out.
#![no_std]
#![no_main]

extern crate alloc;

use abi::syscall;
use alloc::vec::Vec;
use apps::checks::Outcome;
use core::mem::offset_of;
use rt::monitor;
use rt::space::{Mapping, PageSize};
use rt::system_call;
use trace::event::{CALL, CALL_DONE, CALLS};
use trace::{CONTROL_BYTES, Control, FIXED, Fixed, Record, TRACE, lap};

rt::entry!(main);

/// The word by which a copy of the program knows what it is: it spoils all, and ends without tidying up.
const VANDAL: &str = "vandal";
/// Words of the control page that mean something.
const WORDS: usize = size_of::<Control>() / 8;
/// How often to look for what must be there if nobody comes in between.
const ATTEMPTS: usize = 20;
/// Status of a copy that did what it was for.
const DONE: i32 = 42;

fn main() -> i32 {
    if rt::startup().arguments().nth(1) == Some(VANDAL) {
        return vandal();
    }
    let mut outcome = Outcome::default();
    let before = control();
    check_ring(&mut outcome);
    let patterns = patterns();
    for pattern in &patterns {
        spoil(pattern);
        live(&mut outcome);
    }
    // Others do the same, on all cores, and end in the middle of it.
    spoil(&patterns[0]);
    let vandals: Vec<_> = rt::startup()
        .cores()
        .map(|core| monitor::spawn(core, &["trace-harm", VANDAL], None))
        .collect();
    for vandal in vandals {
        outcome.expect("a vandal's end", &vandal.and_then(monitor::wait), &Ok(DONE));
    }
    live(&mut outcome);
    check_ring(&mut outcome);
    set_control(&before);
    let fixed = fixed();
    rt::println!(
        "trace-harm: {} records a core, {} checks on {} cores",
        fixed.capacity,
        outcome.checks,
        rt::startup().cores().count()
    );
    if outcome.bad > 0 {
        rt::println!("trace-harm: failed: {} checks", outcome.bad);
        return 1;
    }
    rt::println!("trace-harm: passed");
    0
}

fn fixed() -> Fixed {
    // SAFETY: the page is mapped in every address space, and never changes.
    unsafe { (FIXED as *const Fixed).read() }
}

fn control() -> Control {
    // SAFETY: the page is mapped in every address space. Volatile, because others write to it.
    unsafe { (TRACE as *const Control).read_volatile() }
}

fn set_control(control: &Control) {
    // SAFETY: as above, and this may be written to.
    unsafe { (TRACE as *mut Control).write_volatile(*control) };
}

fn record(index: u64) -> Record {
    let place = index % fixed().capacity;
    let records = (TRACE + CONTROL_BYTES) as *const Record;
    // SAFETY: so many are mapped behind the control page.
    unsafe { records.add(place as usize).read_volatile() }
}

/// What the control page is filled with.
fn patterns() -> Vec<[u64; WORDS]> {
    const NEXT: usize = offset_of!(Control, next) / 8;
    const SHIFT: usize = offset_of!(Control, shift) / 8;
    const CAPACITY: usize = offset_of!(Control, capacity) / 8;
    const STOP: usize = offset_of!(Control, stop) / 8;
    let mut patterns = Vec::from([[u64::MAX; WORDS], [0; WORDS]]);
    // On, with a ring that would reach to all sorts of places: our code, the kernel's, what is not canonical.
    for place in [0x40_0000, 0xffff_ffff_8000_0000, 0x7100_0000_0000, 1 << 47] {
        for shift in [0, 63, 64, u64::MAX] {
            let mut words = [0; WORDS];
            words[0] = u64::MAX;
            words[NEXT] = u64::wrapping_sub(place, TRACE + CONTROL_BYTES) / 32;
            (words[SHIFT], words[CAPACITY]) = (shift, 1 << 59);
            patterns.push(words);
        }
    }
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..8 {
        patterns.push([0; WORDS].map(|_: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        }));
    }
    let mut stops = [0; WORDS];
    // Everything is on, and ends with the first call; or begins with each.
    const { assert!(offset_of!(Control, enabled) == 0 && offset_of!(Control, awaited) == 4) };
    for awaited in [Control::awaiting(0, CALL.into()), CALL.into()] {
        stops[0] = u64::from(awaited) << 32 | u64::from(u32::MAX);
        stops[STOP] = u64::from(CALL) << 32 | u64::from(CALL);
        patterns.push(stops);
    }
    patterns
}

/// Fills the control page, all of it, and the ring.
fn spoil(pattern: &[u64; WORDS]) {
    let words = fixed().capacity as usize * size_of::<Record>() / 8;
    // SAFETY: the control page is mapped, and the ring behind it.
    unsafe {
        let ring = (TRACE + CONTROL_BYTES) as *mut u64;
        for word in 0..words {
            ring.add(word).write_volatile(pattern[word % WORDS]);
        }
        let page = TRACE as *mut u64;
        // The first words last: on with it.
        for word in (0..CONTROL_BYTES as usize / 8).rev() {
            page.add(word).write_volatile(pattern[word % WORDS]);
        }
    }
}

/// System calls, memory, a domain on each core: all as ever.
fn live(outcome: &mut Outcome) {
    system_call::null();
    system_call::yield_now();
    let page = Mapping::zeroed(4096, PageSize::Small);
    let word = page.map(|page| {
        let word = &page.words()[7];
        word.store(7, core::sync::atomic::Ordering::Relaxed);
        word.load(core::sync::atomic::Ordering::Relaxed)
    });
    outcome.expect("a page", &word, &Ok(7));
    for core in rt::startup().cores() {
        let ended = monitor::spawn(core, &["exit", "5"], None).and_then(monitor::wait);
        outcome.expect("a domain", &ended, &Ok(5));
    }
}

/// What the CPU driver records stands where it should, and the event that ends it does.
fn check_ring(outcome: &mut Outcome) {
    let capacity = fixed().capacity;
    let index = (capacity * 5).wrapping_sub(1);
    // From a call's beginning to its end. A ring of one record holds the last alone.
    let expected: Vec<_> = [(index, CALL), (index.wrapping_add(1), CALL_DONE)]
        .into_iter()
        .filter(|(_, event)| capacity > 1 || capacity == 1 && *event == CALL_DONE)
        .map(|(index, event)| (event, syscall::NULL as u32, lap(index, capacity)))
        .collect();
    let expected = match capacity {
        0 => (1 << CALLS, index, expected),
        _ => (0, index + 2, expected),
    };
    let mut found = record_call(index);
    // Somebody else may have come in between.
    for _ in 0..ATTEMPTS {
        if found == expected {
            break;
        }
        found = record_call(index);
    }
    outcome.expect("what is on, the next, and the records", &found, &expected);
}

/// Has a call recorded from this index on; returns what is on then, the next index, and the records: event,
/// call, lap.
fn record_call(index: u64) -> (u32, u64, Vec<(u16, u32, u16)>) {
    let mut set = control();
    // Whoever looks at these is led astray.
    (set.capacity, set.shift) = (u64::MAX, u64::MAX);
    (set.start, set.stop) = (0, CALL_DONE.into());
    set.awaited = Control::awaiting(set.start, set.stop);
    (set.enabled, set.next) = (1 << CALLS, index);
    set_control(&set);
    system_call::null();
    let after = control();
    let records = (0..2.min(fixed().capacity)).rev().map(|back| {
        let record = record(index.wrapping_add(1) - back);
        (record.event(), record.detail(), record.lap())
    });
    (after.enabled, after.next, records.collect())
}

/// Spoils the trace of its core many times over while others record, and leaves it so.
fn vandal() -> i32 {
    for _ in 0..3 {
        for pattern in &patterns() {
            spoil(pattern);
            system_call::yield_now();
        }
    }
    DONE
}
