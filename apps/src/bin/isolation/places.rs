//! Memory that is not a child's own, and the edges of what is an address.

use crate::Outcome;
use crate::attempts::{BREAKPOINT, PROTECTION, places_of};
use crate::child::{DATA, Death, LAST_PAGE, STACK_TOP, Space};
use abi::exception::PAGE_FAULT;
use abi::layout::{DIRECT_MAP, KERNEL_HALF, PAGE, USER_END, USER_MIN, kernel_stack_top};
use alloc::format;
use alloc::vec::Vec;
use apps::mappings;
use core::sync::atomic::Ordering::Relaxed;
use rt::capability;
use rt::memory::Result;
use rt::space::{Mapping, PageSize};

/// Bits of the error code of a page fault.
const PRESENT: u64 = 1;
const WRITE: u64 = 2;
const USER: u64 = 4;
const FETCH: u64 = 16;

const STACK_FAULT: u64 = 12;

/// Devices, by physical address: I/O APIC, HPET, local APIC, the text screen.
const DEVICES: [u64; 4] = [0xfec0_0000, 0xfed0_0000, 0xfee0_0000, 0xb_8000];

/// How long children spin, in cycles: some slices of time.
const SPIN: u64 = 60_000_000;

/// The edges of the two halves. No word or instruction here reaches across one.
const EDGES: [u64; 9] = [
    0,
    USER_MIN - 8,
    USER_END,
    0x0000_7fff_ffff_fff8,
    0x0000_8000_0000_0000,
    0x0800_0000_0000_0000,
    0xffff_7fff_ffff_fff8,
    KERNEL_HALF,
    0xffff_ffff_ffff_fff8,
];

/// Whether the processor takes it for an address at all.
const fn is_canonical(address: u64) -> bool {
    address < 1 << 47 || address >= KERNEL_HALF
}

/// Tries them all.
pub fn all(outcome: &mut Outcome) -> Result {
    let core = rt::startup().core as usize;
    let kernel = mappings::of_core(core)?;
    let space = Space::new()?;
    let mut places: Vec<u64> = EDGES.to_vec();
    for range in &kernel {
        places.extend([range.address, range.address + range.bytes - 8]);
    }
    places.extend(DEVICES);
    places.extend(DEVICES.map(|device| DIRECT_MAP + device));
    // This program's own memory: at its address, and where the kernel has it.
    let secret = Mapping::zeroed(PAGE, PageSize::Small)?;
    let physical = capability::identify(secret.frame())?.base;
    places.extend([secret.address(), DIRECT_MAP + physical]);
    places.extend([abi::layout::USER_HEAP, abi::layout::USER_STARTUP]);
    let is_mapped = |address: u64| {
        let mut ranges = kernel.iter();
        ranges.any(|range| (range.address..=range.address + (range.bytes - 1)).contains(&address))
    };
    // Only what is recorded may be written by ring 3, and how much that can be, read.
    let is_open = |address: u64, written: bool| {
        let mut ranges = kernel.iter().filter(|range| range.is_open());
        ranges.any(|range| {
            (range.address..=range.address + (range.bytes - 1)).contains(&address)
                && (range.is_writable() || !written)
        })
    };
    let open = kernel.iter().filter(|range| range.is_open()).count();
    outcome.expect("ranges that are open", &open, &2);
    for place in places {
        let present = if is_mapped(place) { PRESENT } else { 0 };
        for (name, error) in [("read", 0), ("write", WRITE), ("jump", FETCH)] {
            let expected = match name {
                "jump" => Some(error | USER | present),
                _ if is_open(place, name == "write") => None,
                _ => Some(error | USER | present),
            };
            access(&space, name, place, expected, outcome)?;
        }
        let below = place.wrapping_sub(8);
        let expected = match is_open(below, true) {
            true => None,
            false if is_mapped(below) || place == USER_END => Some(USER | WRITE | PRESENT),
            false => Some(USER | WRITE),
        };
        stack(&space, place, expected, outcome)?;
    }
    for rsp in [0x0000_8000_0000_0000, kernel_stack_top(0), 8] {
        interrupted(&space, rsp, outcome)?;
    }
    outcome.expect(
        "what was to be written",
        &secret.words()[0].load(Relaxed),
        &0,
    );
    drop(secret);
    last_page(&space, outcome)?;
    resumed(&space, outcome)
}

/// Whether a child came to the breakpoint behind an instruction.
fn went_on(death: &Death, at: u64) -> bool {
    death.vector == BREAKPOINT && (at + 1..=at + 15).contains(&death.instruction)
}

/// Reads, writes or executes at a place: it faults with this error code, or is allowed.
fn access(
    space: &Space,
    name: &str,
    place: u64,
    error: Option<u64>,
    outcome: &mut Outcome,
) -> Result {
    let (_, at) = places_of(name);
    let death = space.run(&[("rip", at), ("rdi", place)])?;
    let instruction = if name == "jump" { place } else { at };
    let is_right = death.is_some_and(|death| match is_canonical(place) {
        _ if error.is_none() => went_on(&death, at),
        true => {
            (death.vector, death.error, death.address, death.instruction)
                == (PAGE_FAULT, error.unwrap_or(0), place, instruction)
        }
        // A jump may be what faults, or its destination.
        false => {
            (death.vector, death.error) == (PROTECTION, 0)
                && [at, instruction].contains(&death.instruction)
        }
    });
    outcome.check(&format!("{name} of {place:#x}"), is_right, &death, &error);
    Ok(())
}

/// Has its stack there: at system calls nothing comes of it, and a push faults with this error code, or is
/// allowed.
fn stack(space: &Space, rsp: u64, error: Option<u64>, outcome: &mut Outcome) -> Result {
    for name in ["system_call", "wait"] {
        let (begin, at) = places_of(name);
        let death = space.run(&[("rip", begin), ("rsp", rsp)])?;
        let found = death.map(|death| (death.vector, death.instruction, death.rsp));
        // `syscall` and a breakpoint.
        let expected = Some((BREAKPOINT, at + 3, rsp));
        outcome.expect(&format!("{name} with rsp {rsp:#x}"), &found, &expected);
    }
    let (at, _) = places_of("push");
    let death = space.run(&[("rip", at), ("rsp", rsp)])?;
    let place = rsp.wrapping_sub(8);
    let is_right = death.is_some_and(|death| match is_canonical(place) {
        _ if error.is_none() => went_on(&death, at),
        true => {
            (death.vector, death.error, death.address) == (PAGE_FAULT, error.unwrap_or(0), place)
        }
        false => [STACK_FAULT, PROTECTION].contains(&death.vector) && death.error == 0,
    });
    outcome.check(&format!("push at {rsp:#x}"), is_right, &death, &error);
    Ok(())
}

/// Is interrupted with such a stack, and goes on.
fn interrupted(space: &Space, rsp: u64, outcome: &mut Outcome) -> Result {
    let (begin, at) = places_of("spin");
    let death = space.run(&[("rip", begin), ("rsi", SPIN), ("rsp", rsp)])?;
    let found = death.map(|death| (death.vector, death.instruction, death.rsp));
    let expected = Some((BREAKPOINT, at + 2, rsp));
    outcome.expect(&format!("interrupts with rsp {rsp:#x}"), &found, &expected);
    Ok(())
}

/// A system call that returns to the first address that is not a child's.
fn last_page(space: &Space, outcome: &mut Outcome) -> Result {
    let begin = LAST_PAGE + PAGE - 2;
    // Nothing, going behind others, waiting: back by both ways out.
    for call in [0, abi::syscall::YIELD, abi::syscall::WAIT, u64::MAX] {
        let death = space.run(&[("rip", begin), ("rax", call), ("rdi", 1)])?;
        let found =
            death.map(|death| (death.vector, death.error, death.address, death.instruction));
        let expected = Some((PAGE_FAULT, USER | FETCH, USER_END, USER_END));
        outcome.expect(&format!("call {call:#x} at the end"), &found, &expected);
    }
    Ok(())
}

/// A handler lets go on whoever jumped where there is nothing: it only jumps again.
fn resumed(space: &Space, outcome: &mut Outcome) -> Result {
    let (_, at) = places_of("jump");
    for place in EDGES {
        let mut child = space.child()?;
        let first = child.run(&[("rip", at), ("rdi", place), ("rsp", STACK_TOP)])?;
        let second = child.run(&[])?;
        outcome.expect(&format!("jump to {place:#x}, resumed"), &second, &first);
        // Whatever it was, it is not stuck.
        let (breakpoint, _) = places_of("system_call");
        let third = child.run(&[("rip", breakpoint), ("rsp", DATA)])?;
        outcome.expect("somewhere else", &third.vector, &BREAKPOINT);
        child.free()?;
    }
    Ok(())
}
