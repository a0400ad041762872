//! Domains that span cores: `span-test`; `span-test cost` for a figure; `span-test --lose member` or
//! `--lose root` with `--test-hooks`.
//!
//! A copy of the program begins a span and takes members on all other cores into it.
//!
//! 1. What is refused: requests of who is in no span, ranges that are none, joins that cannot be.
//! 2. All see what each other writes; memory of each core, in one page table and across two.
//! 3. Each core in turn unmaps a page while others write to it without end. Once the unmap has
//!    returned, none of their writes counts: all die of a page fault, and the memory, free again, stays
//!    zero. Parts of a mapping go, and the rest stays.
//! 4. Read-only pages can be read, and writing is the end; writable again, they can be written.
//! 5. All cores map, write, protect and unmap at once, pages of their own and the same pages.
//! 6. Members end with their statuses, leave, and others begin in their place.
//! 7. Spans end with their root, however that ends, whatever members do meanwhile; in the end every
//!    core has as much memory as in the beginning.
#![no_std]
#![no_main]

extern crate alloc;

mod ends;
mod team;
mod work;

use apps::arguments::MISUSE_STATUS;
use apps::checks::Outcome;
use rt::{monitor, span};

rt::entry!(main);

/// Exit status of a domain that died of a page fault.
const PAGE_FAULT_STATUS: i32 = rt::interface::FAULT_STATUS + abi::exception::PAGE_FAULT as i32;
/// Exit status of a copy that may not begin a span because there are enough.
const TOO_MANY: i32 = 5;

fn main() -> i32 {
    let mut outcome = Outcome::default();
    let mut words = rt::startup().arguments().skip(1);
    match (words.next(), words.next()) {
        (None, _) => ends::all(&mut outcome),
        (Some("--lose"), Some(what @ ("member" | "root"))) => {
            if rt::startup().core_count < 2 {
                rt::println!("span-test: there must be a core to lose: --cores 2 or more");
                return MISUSE_STATUS;
            }
            match what {
                "root" => ends::lose_root(&mut outcome),
                _ => ends::lose_member(&mut outcome),
            }
        }
        (Some("work"), _) => {
            work::all(&mut outcome);
            return status(&outcome);
        }
        (Some("end"), Some(how)) => return ends::root(how),
        (Some("touch"), Some(how)) => return work::touch(how),
        (Some("hold"), _) => return hold(),
        (Some("cost"), _) => return work::cost(),
        _ => {
            rt::println!("usage: span-test [cost | --lose member|root]");
            return MISUSE_STATUS;
        }
    }
    if outcome.bad == 0 {
        rt::println!("span-test: passed");
    }
    status(&outcome)
}

fn status(outcome: &Outcome) -> i32 {
    i32::from(outcome.bad > 0)
}

/// Has a span until it is killed, if there is room for one.
fn hold() -> i32 {
    match span::begin() {
        Ok(_) => loop {
            rt::clock::sleep_ns(1_000_000_000);
        },
        Err(rt::interface::Error::TooManySpans) => TOO_MANY,
        Err(_) => 1,
    }
}

/// The cores that are up, this one first.
fn cores() -> alloc::vec::Vec<usize> {
    let own = rt::startup().core as usize;
    let others = rt::startup().cores().filter(|core| *core != own);
    [own].into_iter().chain(others).collect()
}

/// Free memory of all these cores.
fn memory(cores: &[usize]) -> alloc::vec::Vec<Result<(u64, u64), rt::interface::Error>> {
    cores.iter().map(|core| monitor::memory(*core)).collect()
}
