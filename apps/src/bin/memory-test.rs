//! Writes and checks the RAM of every core: `memory-test [--limit MIB]`
//!
//! A copy on each core, all at once and step by step:
//!
//! 1. takes what RAM its monitor has, up to the limit, and leaves some;
//! 2. makes frames of it, which must come zeroed, and maps them: in 2 MiB pages what is aligned
//!    to them, in 4 KiB pages the rest;
//! 3. runs two patterns over all of it as *moving inversions*: every word is written, then checked
//!    and inverted in ascending order, then checked and inverted back in descending order, then
//!    checked. A word's pattern is made of its physical address, so that memory that two frames,
//!    two addresses or two cores have in common shows;
//! 4. gives it all back.
//!
//! It does so twice: the second time, memory that the first left full must come zeroed again.
//! Afterwards as much memory of each core is free as before.
#![no_std]
#![no_main]

extern crate alloc;

use abi::layout::{LARGE_PAGE, PAGE};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use apps::arguments::{Arguments, explain};
use apps::crew::{Crew, CrewError, Post};
use core::fmt::Debug;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use rt::capability::{self, Address, Kind, Retype, slots};
use rt::interface::Error;
use rt::space::{Mapping, PageSize, rights};
use rt::{clock, monitor, println};
use urpc::Message;

rt::entry!(main);

const USAGE: &str = "memory-test [--limit MIB]";
/// MiB that all cores together write if nothing else is said, and the least that a core may have.
const DEFAULT_MIB: u64 = 40;
const LEAST_MIB: u64 = 3;
/// Free pages that a copy leaves to its monitor, or half of them where there are few.
const LEFT_PAGES: u64 = 512;
/// How often all is done.
const ROUNDS: usize = 2;
/// How long it may take until what was given back is free.
const PATIENCE_NS: u64 = 5_000_000_000;
const PAUSE_NS: u64 = 1_000_000;

/// Orders: take up to so many bytes, write and check them, give them back.
const TAKE: u16 = 1;
const CHECK: u16 = 2;
const GIVE: u16 = 3;
/// Reports: done, with figures, or failed.
const DONE: u16 = 4;
const FAILED: u16 = 5;

/// What is written to the word at a physical address.
const PATTERNS: [fn(u64) -> u64; 2] = [
    |address| address,
    // Every bit of the address somewhere else, and every other bit the other way round.
    |address| address.rotate_left(29) ^ 0xaaaa_aaaa_aaaa_aaaa,
];

fn main() -> i32 {
    if let Some(post) = Post::take_up() {
        return work(post);
    }
    let arguments = Arguments::of_program(&["--limit"]);
    let limit = arguments.and_then(|arguments| arguments.number("--limit", 1..=1 << 20));
    let cores: Vec<usize> = rt::startup().cores().collect();
    let mib = match limit {
        Ok(limit) => limit.unwrap_or((DEFAULT_MIB / cores.len() as u64).max(LEAST_MIB)),
        Err(misuse) => return explain(&misuse, USAGE),
    };
    match run(&cores, mib << 20) {
        Ok(0) => {
            println!("memory-test: passed");
            0
        }
        Ok(bad) => {
            println!("memory-test: failed: {bad} checks");
            1
        }
        Err(error) => {
            println!("memory-test: failed: {error}");
            1
        }
    }
}

/// Free pages of all cores, private and shared.
fn free_pages(cores: &[usize]) -> Vec<Result<(u64, u64), Error>> {
    cores.iter().map(|core| monitor::memory(*core)).collect()
}

/// Returns how many checks failed.
fn run(cores: &[usize], limit: u64) -> Result<u64, CrewError> {
    // What monitors set up at the first time is there before memory is counted.
    Crew::hire(cores, PAGE as usize)?.dismiss()?;
    let mut before = free_pages(cores);
    let mut crew = Crew::hire(cores, PAGE as usize)?;
    // The frame that all share stays with this program.
    let here = cores
        .iter()
        .position(|core| *core == rt::startup().core as usize);
    if let Some(Ok((_, shared))) = here.map(|here| &mut before[here]) {
        *shared -= crew.frame().bytes() as u64 / PAGE;
    }
    let mut bad = 0;
    let mut figures = [0; 3];
    for _ in 0..ROUNDS {
        for order in [TAKE, CHECK, GIVE] {
            for core in cores {
                crew.order(*core, &Message::new(order, [limit, 0, 0, 0, 0, 0, 0]))?;
            }
            for core in cores {
                let report = crew.report(*core)?;
                let [a, b, c, ..] = report.payload;
                if report.kind() != DONE {
                    bad += 1;
                } else if order == TAKE {
                    for (sum, figure) in figures.iter_mut().zip([a, b, c]) {
                        *sum += figure;
                    }
                }
            }
        }
    }
    crew.dismiss()?;
    let deadline = clock::now_ns() + PATIENCE_NS;
    let mut after = free_pages(cores);
    while after != before && clock::now_ns() < deadline {
        clock::sleep_ns(PAUSE_NS);
        after = free_pages(cores);
    }
    for ((core, before), after) in cores.iter().zip(before).zip(after) {
        if before != after {
            println!(
                "memory-test: free pages of core {core}, private and shared: expected {before:?}, \
                 found {after:?}"
            );
            bad += 1;
        }
    }
    let [small, large, pieces] = figures.map(|sum| sum / ROUNDS as u64);
    println!(
        "memory-test: {} cores, {} KiB in 4 KiB pages and {} KiB in 2 MiB pages, of {pieces} pieces",
        cores.len(),
        small >> 10,
        large >> 10
    );
    Ok(bad)
}

/// What a copy does: as it is told.
fn work(mut post: Post) -> i32 {
    let mut held = Held::default();
    let mut free = None;
    while let Some(order) = post.next_order() {
        let outcome = match order.kind() {
            TAKE => held.take(order.payload[0]),
            CHECK => held.check().map(|()| [0; 3]),
            _ => held.give(&mut free).map(|()| [0; 3]),
        };
        let report = match outcome {
            Ok([a, b, c]) => Message::new(DONE, [a, b, c, 0, 0, 0, 0]),
            Err(reason) => {
                println!("memory-test: core {}: {reason}", rt::startup().core);
                Message::new(FAILED, [0; 7])
            }
        };
        post.report(&report);
    }
    0
}

/// Names the step that a refusal befell.
fn at<T, E: Debug>(step: &str, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("{step}: {error:?}"))
}

/// A frame that is mapped.
struct Memory {
    physical: u64,
    mapping: Mapping,
}

impl Memory {
    /// Its words with their physical addresses.
    fn words(&self) -> impl DoubleEndedIterator<Item = (u64, &AtomicU64)> + ExactSizeIterator {
        let words = self.mapping.words().iter().enumerate();
        words.map(|(index, word)| (self.physical + index as u64 * 8, word))
    }

    /// Checks that a word is what it should be, and writes it anew.
    fn exchange(&self, word: (u64, &AtomicU64), expected: u64, new: u64) -> Result<(), String> {
        let (address, word) = word;
        let found = word.load(Relaxed);
        if found != expected {
            let virt = self.mapping.address() + (address - self.physical);
            return Err(format!(
                "{address:#x}, mapped at {virt:#x}: expected {expected:#x}, found {found:#x}"
            ));
        }
        word.store(new, Relaxed);
        Ok(())
    }
}

/// What a copy has taken.
#[derive(Default)]
struct Held {
    /// Pieces of RAM, each with its physical address.
    pieces: Vec<(Address, u64)>,
    memory: Vec<Memory>,
}

impl Held {
    /// Takes up to so many bytes and maps them; says how many bytes in small pages, how many in
    /// large ones, and how many pieces.
    fn take(&mut self, limit: u64) -> Result<[u64; 3], String> {
        let here = rt::startup().core as usize;
        let (free, _) = at("free memory", monitor::memory(here))?;
        let mut left = (free - LEFT_PAGES.min(free / 2)).min(limit / PAGE);
        let mut pages = left;
        while pages > 0 {
            let slot = at("a slot", slots::take())?;
            match monitor::ram(pages * PAGE, slot) {
                Ok(()) => {
                    let base = at("RAM", capability::identify(slot))?.base;
                    self.pieces.push((slot, base));
                    left -= pages;
                    pages = pages.min(left);
                }
                Err(error) => {
                    slots::give(slot);
                    match error {
                        // It has none in one piece.
                        Error::NoMemory => pages /= 2,
                        Error::TooMuchRam => break,
                        error => return Err(format!("{} KiB of RAM: {error:?}", pages * 4)),
                    }
                }
            }
        }
        if self.pieces.is_empty() {
            return Err(format!("no RAM at all, with {free} pages free"));
        }
        for (ram, base) in self.pieces.clone() {
            self.map(ram, base)?;
        }
        let bytes = |size| {
            let all = self.memory.iter().map(|memory| memory.mapping.bytes());
            all.filter(|bytes| bytes.is_multiple_of(LARGE_PAGE) == size)
                .sum()
        };
        Ok([bytes(false), bytes(true), self.pieces.len() as u64])
    }

    /// Makes frames of a piece and maps them.
    fn map(&mut self, ram: Address, base: u64) -> Result<(), String> {
        let end = base + at("RAM", capability::identify(ram))?.bytes;
        let first = base.next_multiple_of(LARGE_PAGE).min(end);
        let last = (end / LARGE_PAGE * LARGE_PAGE).max(first);
        for (from, to, size) in [
            (base, first, PageSize::Small),
            (first, last, PageSize::Large),
            (last, end, PageSize::Small),
        ] {
            if from == to {
                continue;
            }
            let slot = at("a slot", slots::take())?;
            let what = Retype {
                kind: Kind::Frame,
                offset: from - base,
                bytes: to - from,
                count: 1,
            };
            at("a frame", capability::retype(ram, &what, slot))?;
            // SAFETY: new memory, and only the words of this mapping refer to it.
            let mapping = unsafe { Mapping::of(slot, size, rights::WRITE) };
            let mapping = at("a mapping", mapping)?;
            self.memory.push(Memory {
                physical: from,
                mapping,
            });
        }
        Ok(())
    }

    /// Writes and checks all of it.
    fn check(&self) -> Result<(), String> {
        // New frames hold zeros.
        let mut before: fn(u64) -> u64 = |_| 0;
        for pattern in PATTERNS {
            for memory in &self.memory {
                for word in memory.words() {
                    memory.exchange(word, before(word.0), pattern(word.0))?;
                }
            }
            for memory in &self.memory {
                for word in memory.words() {
                    memory.exchange(word, pattern(word.0), !pattern(word.0))?;
                }
            }
            for memory in self.memory.iter().rev() {
                for word in memory.words().rev() {
                    memory.exchange(word, !pattern(word.0), pattern(word.0))?;
                }
            }
            before = pattern;
        }
        for memory in &self.memory {
            for word in memory.words() {
                // What is left here must not be seen by whoever has the memory next.
                memory.exchange(word, before(word.0), !word.0)?;
            }
        }
        Ok(())
    }

    /// Gives all of it back. Page tables and slots stay, so that from the second time on as much
    /// must be free as after the first.
    fn give(&mut self, free: &mut Option<(u64, u64)>) -> Result<(), String> {
        for Memory { mapping, .. } in self.memory.drain(..) {
            let frame = mapping.frame();
            drop(mapping);
            at("delete of a frame", capability::delete(frame))?;
            slots::give(frame);
        }
        for (slot, base) in self.pieces.drain(..) {
            at("return of RAM", monitor::free_ram(base))?;
            slots::give(slot);
        }
        let now = at("free memory", monitor::memory(rt::startup().core as usize))?;
        if let Some(before) = *free
            && before != now
        {
            return Err(format!(
                "free pages when all is given back: expected {before:?}, found {now:?}"
            ));
        }
        *free = Some(now);
        Ok(())
    }
}
