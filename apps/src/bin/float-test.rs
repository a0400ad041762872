//! Computes with floating-point and vector registers in several domains of each core at
//! once, which take them from each other at any instruction: `float-test [ROUNDS]`.
//!
//! Every domain keeps a pattern of its own in all sixteen vector registers and iterates a
//! chaotic map in the x87 and SSE units; a single bit of somebody else's state shows.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::vec::Vec;
use core::arch::asm;
use rt::monitor;

rt::entry!(main);

/// Domains that compete on each core.
const DOMAINS: usize = 4;

fn main() -> i32 {
    let arguments: Vec<&str> = rt::startup().arguments().skip(1).collect();
    match arguments[..] {
        [] => parent(20_000),
        [rounds] => match rounds.parse() {
            Ok(rounds) => parent(rounds),
            Err(_) => usage(),
        },
        ["child", seed, rounds] => match (seed.parse(), rounds.parse()) {
            (Ok(seed), Ok(rounds)) => child(seed, rounds),
            _ => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> i32 {
    rt::println!("usage: float-test [ROUNDS]");
    2
}

fn parent(rounds: u64) -> i32 {
    let mut children = Vec::new();
    for core in rt::startup().cores() {
        for index in 0..DOMAINS {
            let seed = format!("{}", core * DOMAINS + index + 1);
            let words = ["float-test", "child", &seed, &format!("{rounds}")];
            match monitor::spawn(core, &words, None) {
                Ok(child) => children.push(child),
                Err(error) => {
                    rt::println!("float-test: cannot start a child on core {core}: {error}");
                    return 1;
                }
            }
        }
    }
    let failed = children
        .into_iter()
        .filter(|child| monitor::wait(*child) != Ok(0))
        .count();
    if failed > 0 {
        rt::println!("float-test: {failed} domains found registers that were not theirs");
        return 1;
    }
    rt::println!("float-test: passed");
    0
}

fn child(seed: u64, rounds: u64) -> i32 {
    for round in 0..rounds {
        let pattern = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ round;
        let (difference, sine): (u64, u64);
        // SAFETY: touches floating-point registers only, all of which are declared or
        // restored, and memory of ours.
        unsafe {
            let mut kept = 0u64;
            asm!(
                "movq xmm0, {pattern}",
                "movdqa xmm1, xmm0",
                "movdqa xmm7, xmm0",
                "movdqa xmm15, xmm0",
                "mov qword ptr [{kept}], {number}",
                "fninit",
                "fild qword ptr [{kept}]",
                "mov {count}, 200",
                "2:", // long enough for others to come in between, now and then
                "dec {count}",
                "jnz 2b",
                "fistp qword ptr [{kept}]",
                "pxor xmm1, xmm0",
                "pxor xmm7, xmm15",
                "por xmm1, xmm7",
                "movq {difference}, xmm1",
                "movq {sine}, xmm15",
                pattern = in(reg) pattern,
                number = in(reg) round,
                kept = in(reg) &raw mut kept,
                count = out(reg) _,
                difference = out(reg) difference,
                sine = out(reg) sine,
                options(nostack),
            );
            if kept != round {
                return 1;
            }
        }
        if difference != 0 || sine != pattern {
            return 1;
        }
        if round % 64 == 0 {
            rt::system_call::yield_now();
        }
    }
    0
}
