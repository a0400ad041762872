//! Has a domain on every core print at once, so that a test can look whether lines mix.
//!
//! `print-storm [--lines N]`
//!
//! Each line but the empty ones reads
//!
//! ```text
//! storm CORE NUMBER LENGTH SUM PATTERN
//! ```
//!
//! where LENGTH is the bytes of PATTERN, SUM the sum of its bytes, and PATTERN the same
//! letters over and over from another one on for each core and line. Every tenth line is
//! empty. The program's last line tells how many of each there must be.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use apps::arguments::{Arguments, explain};
use rt::monitor;

rt::entry!(main);

const USAGE: &str = "print-storm [--lines N]";
/// Lines of each core.
const DEFAULT_LINES: u64 = 200;
/// Bytes of the longest line, about.
const LONGEST: u64 = 1000;
/// Each line of this number and its multiples is empty.
const EMPTY_EVERY: u64 = 10;

fn main() -> i32 {
    let start = rt::startup();
    let mut words = start.arguments().skip(1);
    if words.next() == Some("child") {
        let lines = words.next().and_then(|word| word.parse().ok());
        storm(u64::from(start.core), lines.unwrap_or(DEFAULT_LINES));
        return 0;
    }
    let asked = Arguments::of_program(&["--lines"])
        .and_then(|arguments| arguments.number("--lines", 1..=100_000));
    let lines = match asked {
        Ok(asked) => asked.unwrap_or(DEFAULT_LINES),
        Err(misuse) => return explain(&misuse, USAGE),
    };
    let count = format!("{lines}");
    let here = start.core as usize;
    let children: Vec<_> = start
        .cores()
        .filter(|core| *core != here)
        .map(|core| monitor::begin_spawn(core, &["print-storm", "child", &count], None))
        .collect();
    let children: Vec<_> = children
        .into_iter()
        .map(|token| token.and_then(monitor::end_spawn))
        .collect();
    storm(u64::from(start.core), lines);
    let mut bad = 0;
    for child in children {
        match child.and_then(monitor::wait) {
            Ok(0) => {}
            Ok(status) => {
                bad += 1;
                rt::println!("print-storm: a child ended with status {status}");
            }
            Err(error) => {
                bad += 1;
                rt::println!("print-storm: a child is missing: {error}");
            }
        }
    }
    let cores = u64::from(start.core_count);
    let empty = lines.div_ceil(EMPTY_EVERY) * cores;
    rt::println!(
        "print-storm: {cores} cores, {lines} lines each: {} full, {empty} empty",
        lines * cores - empty
    );
    i32::from(bad > 0)
}

fn storm(core: u64, lines: u64) {
    for number in 0..lines {
        if number % EMPTY_EVERY == 0 {
            rt::println!();
            continue;
        }
        // All lengths up to the longest, in an order that differs from core to core.
        let length = (number * 37 + core * 101) % (LONGEST + 1);
        let letter = |place: u64| b'a' + ((core + number + place) % 26) as u8;
        let pattern: String = (0..length).map(|place| char::from(letter(place))).collect();
        let sum: u64 = pattern.bytes().map(u64::from).sum();
        // In pieces: what makes a line whole is its end.
        rt::print!("storm {core} {number} ");
        rt::println!("{length} {sum} {pattern}");
    }
}
