//! Says hello from every core.
//!
//! `hello`
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;
use rt::interface::Error;
use rt::monitor;

rt::entry!(main);

/// The word by which a copy of the program knows that it is only to greet.
const CHILD: &str = "child";

fn main() -> i32 {
    let start = rt::startup();
    if start.arguments().nth(1) == Some(CHILD) {
        greet();
        return 0;
    }
    // All start at once; the lines come in the order in which cores get there.
    let others = start.cores().filter(|core| *core != start.core as usize);
    let begun: Vec<_> = others
        .map(|core| monitor::begin_spawn(core, &["hello", CHILD], None))
        .collect();
    let children: Result<Vec<_>, Error> = begun
        .into_iter()
        .map(|token| token.and_then(monitor::end_spawn))
        .collect();
    greet();
    let statuses: Result<Vec<i32>, Error> =
        children.and_then(|children| children.into_iter().map(monitor::wait).collect());
    match statuses {
        Ok(statuses) => statuses
            .into_iter()
            .find(|status| *status != 0)
            .unwrap_or(0),
        Err(error) => {
            rt::println!("hello: cannot start a child, or wait for it: {error}");
            1
        }
    }
}

fn greet() {
    let start = rt::startup();
    rt::println!("hello from core {} of {}", start.core, start.core_count);
}
