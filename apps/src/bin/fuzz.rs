//! Makes random system calls and sends random requests: `fuzz [--calls N] [--seed S]`.
//!
//! A copy of the program on each core makes N calls each, with numbers and arguments out of
//! a mix of random, extreme and almost right ones, and between them asks random monitors
//! for random things. The same seed makes the same calls. Nothing may come of it: no core
//! is lost, and afterwards every monitor answers, every core has as much memory as before.
#![no_std]
#![no_main]

extern crate alloc;

use abi::layout::{DIRECT_MAP, KERNEL_IMAGE, USER_END, USER_HEAP, USER_STARTUP};
use abi::syscall;
use alloc::format;
use alloc::vec::Vec;
use apps::arguments::{Arguments, explain};
use rt::interface;
use rt::monitor;
use rt::system_call;

rt::entry!(main);

const USAGE: &str = "fuzz [--calls N] [--seed S]";
const DEFAULT_CALLS: u64 = 20_000;
/// The option by which a copy of the program knows that it is one.
const COPY: &str = "--copy";
/// One in so many calls is a request to a monitor.
const REQUEST_EVERY: u64 = 50;

/// Where interesting things begin or end.
const EDGES: [u64; 12] = [
    0,
    1,
    0xfff,
    0x1000,
    USER_HEAP,
    USER_STARTUP,
    USER_END,
    0x8000_0000_0000,
    DIRECT_MAP,
    KERNEL_IMAGE,
    u64::MAX - 0xfff,
    u64::MAX,
];

/// Pseudo-random numbers (SplitMix64; Steele, Lea, Flood, OOPSLA 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// A number that somebody may have forgotten to think of.
    fn word(&mut self) -> u64 {
        match self.below(6) {
            0 => self.below(64),
            1 => EDGES[self.below(EDGES.len() as u64) as usize],
            2 => EDGES[self.below(EDGES.len() as u64) as usize].wrapping_add(self.below(0x2000)),
            3 => 1 << self.below(64),
            4 => self.next() >> self.below(64),
            _ => self.next() & !0xfff,
        }
    }
}

fn main() -> i32 {
    match run() {
        Ok(status) => status,
        Err(misuse) => explain(&misuse, USAGE),
    }
}

fn run() -> Result<i32, apps::arguments::Misuse> {
    let arguments = Arguments::of_program(&["--calls", "--seed", COPY])?;
    let calls = arguments
        .number("--calls", 1..=1_000_000_000)?
        .unwrap_or(DEFAULT_CALLS);
    let seed = arguments.number("--seed", 0..=u64::MAX)?.unwrap_or(1);
    let copy = arguments.number(COPY, 0..=1)?.is_some();
    Ok(if copy {
        annoy(calls, seed)
    } else {
        unleash(calls, seed)
    })
}

/// Starts a copy on every core, and looks at what it left behind.
fn unleash(calls: u64, seed: u64) -> i32 {
    let cores: Vec<usize> = rt::startup().cores().collect();
    // Once, so that what a monitor sets up at the first time is there.
    for core in &cores {
        if let Err(error) = monitor::spawn(*core, &["exit", "0"], None).and_then(monitor::wait) {
            rt::println!("fuzz: core {core} starts no programs: {error}");
            return 1;
        }
    }
    let before: Vec<_> = cores.iter().map(|core| monitor::memory(*core)).collect();
    let mut copies = Vec::new();
    for core in &cores {
        let own_seed = format!(
            "{}",
            seed.wrapping_mul(1_000_003).wrapping_add(*core as u64)
        );
        let words = [
            "fuzz",
            COPY,
            "1",
            "--calls",
            &format!("{calls}"),
            "--seed",
            &own_seed,
        ];
        match monitor::spawn(*core, &words, None) {
            Ok(copy) => copies.push(copy),
            Err(error) => {
                rt::println!("fuzz: cannot start a copy on core {core}: {error}");
                return 1;
            }
        }
    }
    let mut failed = copies
        .into_iter()
        .filter(|copy| monitor::wait(*copy) != Ok(0))
        .count();
    for core in &cores {
        let question = [*core as u64, 2, 3, 4, 5, 0];
        let answer = monitor::ask(*core, interface::ECHO, question);
        if answer != Ok([*core as u64, 2, 3, 4, 5]) {
            rt::println!("fuzz: the monitor of core {core} answers {answer:?}");
            failed += 1;
        }
        if let Err(error) = monitor::spawn(*core, &["exit", "0"], None).and_then(monitor::wait) {
            rt::println!("fuzz: core {core} starts no programs any more: {error}");
            failed += 1;
        }
    }
    let after: Vec<_> = cores.iter().map(|core| monitor::memory(*core)).collect();
    if before != after {
        rt::println!("fuzz: free pages before {before:?}, after {after:?}");
        failed += 1;
    }
    if failed > 0 {
        return 1;
    }
    rt::println!("fuzz: passed");
    0
}

/// The calls of one copy.
fn annoy(calls: u64, seed: u64) -> i32 {
    let mut random = Random(seed);
    let cores: Vec<usize> = rt::startup().cores().collect();
    for call in 0..calls {
        if call % REQUEST_EVERY == 0 {
            request(&mut random, &cores);
            continue;
        }
        let number = match random.below(8) {
            0 => random.word(),
            _ => random.below(syscall::LOG_WRITTEN + 3),
        };
        // These end the program, block it for long, or fill the console.
        if matches!(number, syscall::EXIT | syscall::WAIT | syscall::LOG) {
            continue;
        }
        let arguments = core::array::from_fn(|_| random.word());
        // SAFETY: this domain holds no authority over memory: the calls that could change
        // it are refused, which is what is tested.
        let _ = unsafe { system_call::call(number, arguments) };
    }
    0
}

/// A random request to a random monitor, whose answer nobody waits for.
fn request(random: &mut Random, cores: &[usize]) {
    let core = match random.below(4) {
        0 => random.word() as u32 as usize,
        _ => cores[random.below(cores.len() as u64) as usize],
    };
    let kind = match random.below(3) {
        0 => random.next() as u16,
        _ => random.below(u64::from(interface::REPLY) + 2) as u16,
    };
    if kind == interface::WRITE {
        return;
    }
    let arguments = core::array::from_fn(|_| random.word());
    // Whether it is understood does not matter.
    let _ = monitor::request(core, kind, arguments);
    monitor::discard_answers();
}
