//! Measures what it costs that several cores work on the same data:
//! `bench-sharing [--quick] [--only shared-counter|compute]`.
//!
//! | part             | what is done                                                              |
//! |------------------|---------------------------------------------------------------------------|
//! | `shared-counter` | all members add to counters of 1 to 8 lines: under a lock, atomically, by messages to one of them that has the counters for itself, each to counters of its own |
//! | `compute`        | three kernels over a domain that spans cores, checked against a reference: conjugate gradient, FFT, integer sort |
//!
//! Each is done by 1, 2, 4, … and all cores (`members`). Under `icount` a time is what all cores
//! executed meanwhile, those that wait included: so it does not fall with the number of members, and
//! what it rises by is what working together costs.
#![no_std]
#![no_main]

extern crate alloc;

mod compute;
mod counter;
mod kernels;

use alloc::vec::Vec;
use apps::arguments::explain;
use apps::crew::Post;
use apps::laboratory::{Failure, Laboratory};

rt::entry!(main);

const USAGE: &str = "bench-sharing [--quick] [--only shared-counter|compute]";
const PARTS: [&str; 2] = ["shared-counter", "compute"];

fn main() -> i32 {
    if let Some(post) = Post::take_up() {
        return counter::work(post);
    }
    let (mut laboratory, only) = match Laboratory::of_program("bench-sharing", &PARTS) {
        Ok((laboratory, only, _)) => (laboratory, only),
        Err(misuse) => return explain(&misuse, USAGE),
    };
    let ended = measure(&mut laboratory, only);
    laboratory.close(ended)
}

fn measure(laboratory: &mut Laboratory, only: Option<usize>) -> Result<(), Failure> {
    if only != Some(1) {
        counter::measure(laboratory)?;
    }
    if only != Some(0) {
        compute::measure(laboratory)?;
    }
    Ok(())
}

/// 1, 2, 4, … of so many, and all.
fn counts(all: usize) -> Vec<usize> {
    let powers = core::iter::successors(Some(1), |count| Some(count * 2));
    let mut counts: Vec<usize> = powers.take_while(|count| *count < all).collect();
    counts.push(all);
    counts
}
