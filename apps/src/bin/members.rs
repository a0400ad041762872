//! Asks the monitor of every core which cores are up, and compares the answers.
//!
//! `members`
//!
//! The set of cores that are up is the first thing that all monitors replicate: at the end of
//! the boot they must all hold the same, under the same epoch.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;
use rt::interface::Error;
use rt::monitor;

rt::entry!(main);

type View = (u64, [u64; 4]);

fn main() -> i32 {
    let start = rt::startup();
    if start.arguments().count() > 1 {
        rt::println!("usage: members");
        return 2;
    }
    let expected = start.cores;
    let answers: Vec<(usize, Result<View, Error>)> = start
        .cores()
        .map(|core| (core, monitor::view(core)))
        .collect();
    let Some((first, Ok((epoch, set)))) = answers.first().copied() else {
        rt::println!("members: failed: the first core's monitor has no view");
        return 1;
    };
    let mut bad = 0;
    for (core, answer) in &answers {
        match answer {
            Ok(view) if *view == (epoch, set) => {}
            Ok((other_epoch, other)) => {
                bad += 1;
                rt::println!(
                    "members: core {core} says epoch {other_epoch}, cores {:?}; core {first} \
                     says epoch {epoch}, cores {:?}",
                    members(other),
                    members(&set)
                );
            }
            Err(error) => {
                bad += 1;
                rt::println!("members: core {core} does not say: {error}");
            }
        }
    }
    if set != expected {
        bad += 1;
        rt::println!(
            "members: the view holds cores {:?}; this program was started with {:?}",
            members(&set),
            members(&expected)
        );
    }
    rt::println!(
        "members: {} of {} monitors hold epoch {epoch} with {} cores",
        answers
            .iter()
            .filter(|(_, answer)| *answer == Ok((epoch, set)))
            .count(),
        answers.len(),
        members(&set).len()
    );
    if bad > 0 {
        rt::println!("members: failed");
        return 1;
    }
    rt::println!("members: passed");
    0
}

fn members(set: &[u64; 4]) -> Vec<usize> {
    let bits = set.len() * 64;
    (0..bits)
        .filter(|core| set[core / 64] >> (core % 64) & 1 != 0)
        .collect()
}
