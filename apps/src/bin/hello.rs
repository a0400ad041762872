//! Says hello from every core.
#![no_std]
#![no_main]

use rt::monitor;

rt::entry!(main);

fn main() -> i32 {
    let start = rt::startup();
    let child = start.arguments().nth(1) == Some("child");
    if !child {
        // Everybody starts at once; the lines come in the order in which cores get there.
        let children: Result<Vec<_>, _> = start
            .cores()
            .filter(|core| *core != start.core as usize)
            .map(|core| monitor::spawn(core, &["hello", "child"], None))
            .collect();
        rt::println!("hello from core {} of {}", start.core, start.core_count);
        return match children {
            Ok(children) => children.into_iter().map(|child| monitor::wait(child).unwrap_or(1)).max().unwrap_or(0),
            Err(error) => {
                rt::println!("hello: cannot start a child: {error}");
                1
            }
        };
    }
    rt::println!("hello from core {} of {}", start.core, start.core_count);
    0
}

extern crate alloc;
use alloc::vec::Vec;
