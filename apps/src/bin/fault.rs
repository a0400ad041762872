//! Does what no program may, and dies of it; or checks that others do.
//!
//! `fault KIND | all`
//!
//! Each kind is one thing that the processor refuses in ring 3. The CPU driver ends the
//! domain, its monitor reports it, and its exit status tells the exception's vector. `fault
//! all` starts one child for each kind, here and on another core, compares their exit
//! statuses, and finds everything else alive.
//!
//! This program cannot forbid unsafe code: doing harm is its purpose.
#![no_std]
#![no_main]

extern crate alloc;

use abi::layout::{KERNEL_IMAGE, USER_IMAGE};
use alloc::vec::Vec;
use core::arch::asm;
use core::hint::black_box;
use rt::interface::FAULT_STATUS;
use rt::monitor;

rt::entry!(main);

/// One thing that is refused.
struct Kind {
    name: &'static str,
    /// The exit status of who does it.
    status: i32,
    harm: fn(),
}

const DIVIDE_ERROR: i32 = FAULT_STATUS;
const BREAKPOINT: i32 = FAULT_STATUS + 3;
const INVALID_OPCODE: i32 = FAULT_STATUS + 6;
const GENERAL_PROTECTION: i32 = FAULT_STATUS + 13;
const PAGE_FAULT: i32 = FAULT_STATUS + 14;
/// Of a program that panics, in place of an exception.
const PANIC_STATUS: i32 = 101;

const fn kind(name: &'static str, status: i32, harm: fn()) -> Kind {
    Kind { name, status, harm }
}

const KINDS: [Kind; 14] = [
    kind("null-write", PAGE_FAULT, null_write),
    kind("kernel-read", PAGE_FAULT, kernel_read),
    kind("text-write", PAGE_FAULT, text_write),
    kind("execute-data", PAGE_FAULT, execute_data),
    kind("stack-overflow", PAGE_FAULT, stack_overflow),
    kind("non-canonical", GENERAL_PROTECTION, non_canonical),
    kind("divide", DIVIDE_ERROR, divide),
    kind("invalid-opcode", INVALID_OPCODE, invalid_opcode),
    kind("breakpoint", BREAKPOINT, breakpoint),
    kind("cli", GENERAL_PROTECTION, clear_interrupts),
    kind("port", GENERAL_PROTECTION, port),
    kind("halt", GENERAL_PROTECTION, halt),
    kind("control-register", GENERAL_PROTECTION, control_register),
    kind("panic", PANIC_STATUS, panic_in_ring_3),
];

fn main() -> i32 {
    let mut words = rt::startup().arguments().skip(1);
    match (words.next(), words.next()) {
        (Some("all"), None) => check_all(),
        (Some(name), None) => match KINDS.iter().find(|kind| kind.name == name) {
            Some(kind) => {
                (kind.harm)();
                rt::println!("fault: `{name}` did no harm");
                1
            }
            None => misused(),
        },
        _ => misused(),
    }
}

fn misused() -> i32 {
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    rt::println!("usage: fault all|{}", names.join("|"));
    2
}

/// Starts a child for each kind on this core and on another.
fn check_all() -> i32 {
    let start = rt::startup();
    let here = start.core as usize;
    let other = start.cores().find(|core| *core != here);
    let mut bad = 0;
    for kind in &KINDS {
        for core in [Some(here), other].into_iter().flatten() {
            let status = monitor::spawn(core, &["fault", kind.name], None).and_then(monitor::wait);
            if status != Ok(kind.status) {
                bad += 1;
                rt::println!(
                    "fault: `{}` on core {core} ended with {status:?}, not {}",
                    kind.name,
                    kind.status
                );
            }
        }
    }
    // Whoever is left must still do as it is told.
    for core in start.cores() {
        let status = monitor::spawn(core, &["exit", "42"], None).and_then(monitor::wait);
        if status != Ok(42) {
            bad += 1;
            rt::println!("fault: afterwards, `exit 42` on core {core} ended with {status:?}");
        }
    }
    if bad > 0 {
        rt::println!("fault: failed");
        return 1;
    }
    rt::println!("fault: passed");
    0
}

fn write_to(address: u64) {
    // SAFETY: not safe, and meant to fault: nothing may be written there. If it were
    // possible, the program ends next.
    unsafe { (address as *mut u64).write_volatile(1) };
}

fn read_from(address: u64) {
    // SAFETY: not safe, and meant to fault: nothing may be read there.
    let _ = unsafe { (address as *const u64).read_volatile() };
}

fn null_write() {
    // SAFETY: not safe, and meant to fault. In assembly, since Rust knows about null.
    unsafe { asm!("mov qword ptr [{}], 1", in(reg) 0u64) };
}

fn kernel_read() {
    read_from(KERNEL_IMAGE);
}

fn text_write() {
    write_to(USER_IMAGE);
}

fn non_canonical() {
    read_from(1 << 60);
}

fn execute_data() {
    // A return instruction, on a page of data: run, it would do nothing.
    let code = black_box([0xc3u8; 16]);
    // SAFETY: not safe, and meant to fault: the stack is not executable.
    unsafe { asm!("call {}", in(reg) code.as_ptr(), clobber_abi("C")) };
}

fn stack_overflow() {
    black_box(deeper(black_box(0)));
}

#[allow(unconditional_recursion)] // the point of it
fn deeper(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    black_box(deeper(depth + 1)) + frame[depth as usize % 64]
}

fn divide() {
    // SAFETY: clobbers what it names; faults. In assembly, since Rust checks divisors.
    unsafe { asm!("div {0:e}", in(reg) 0u32, inout("eax") 1 => _, inout("edx") 0 => _) };
}

fn invalid_opcode() {
    // SAFETY: faults, and touches nothing.
    unsafe { asm!("ud2") };
}

fn breakpoint() {
    // SAFETY: traps, and touches nothing.
    unsafe { asm!("int3") };
}

fn clear_interrupts() {
    // SAFETY: refused in ring 3, and touches no memory.
    unsafe { asm!("cli") };
}

fn port() {
    // SAFETY: refused in ring 3: a byte to a port that nobody listens to.
    unsafe { asm!("out 0x80, al", in("al") 0u8) };
}

fn halt() {
    // SAFETY: refused in ring 3, and touches nothing.
    unsafe { asm!("hlt") };
}

fn control_register() {
    let _value: u64;
    // SAFETY: refused in ring 3, and reads only.
    unsafe { asm!("mov {}, cr3", out(reg) _value) };
}

fn panic_in_ring_3() {
    panic!("asked to");
}
