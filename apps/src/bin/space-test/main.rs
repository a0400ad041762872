//! Builds address spaces out of capabilities, and looks whether every access does what it should.
//!
//! `space-test`
//!
//! All is done twice: in the address space of this domain, where the processor remembers
//! translations from one look to the next, and in one made from scratch. In each, a dispatcher
//! of this domain's ([`apps::mappings::probe`]) reads, writes and executes, and the exceptions
//! that it meets are compared with what should be mapped.
//!
//! | part           | what it is about                                                        |
//! |----------------|-------------------------------------------------------------------------|
//! | `scratch`      | an address space without anything, and its first instruction            |
//! | `tables`       | page tables of all levels, each asked for when it is missing            |
//! | `rights`       | all rights of mappings and of capabilities, asked for and changed later |
//! | `places`       | offsets, rows of pages, what lies around them, the ends of tables       |
//! | `refusals`     | every error, and that nothing changes where there is one                |
//! | `unclean`      | frames that are not zeroed yet                                          |
//! | `large_pages`  | pages of 2 MiB, and of 1 GiB where there is so much memory              |
//! | `frames_go`    | frames deleted, revoked and moved while they are mapped                 |
//! | `tables_go`    | page tables deleted, unmapped and revoked while pages are mapped        |
//! | `tables_again` | memory of page tables used again: what was mapped before is forgotten   |
//! | `spaces_go`    | address spaces that go while a dispatcher runs in them                  |
#![no_std]
#![no_main]

extern crate alloc;

mod large;
mod places;
mod refusals;
mod removal;
mod rights;
mod spaces;
mod world;

use large::Large;
use places::{places, tables};
use refusals::{refusals, unclean};
use removal::{frames_go, tables_again, tables_go};
use rights::{rights_of_capabilities, rights_of_mappings};
use rt::memory::Result;
use rt::system_call::Error;
use spaces::{both_at_once, death, spaces_go};
use world::{AREA, Outcome, discard, own, scratch};

rt::entry!(main);

fn main() -> i32 {
    if rt::startup().arguments().count() > 1 {
        rt::println!("usage: space-test");
        return 2;
    }
    let mut outcome = Outcome::default();
    if let Err(error) = run(&mut outcome) {
        rt::println!("space-test: failed: {error}");
        return 1;
    }
    rt::println!("space-test: {} checks", outcome.checks);
    if outcome.bad > 0 {
        rt::println!("space-test: failed: {} checks", outcome.bad);
        return 1;
    }
    rt::println!("space-test: passed");
    0
}

fn run(outcome: &mut Outcome) -> Result {
    let large = Large::make()?;
    for world in [own, scratch] {
        let mut world = world(outcome)?;
        let world = &mut world;
        tables(world, outcome)?;
        rights_of_mappings(world, outcome)?;
        rights_of_capabilities(world, outcome)?;
        places(world, outcome)?;
        refusals(world, outcome)?;
        unclean(world, outcome)?;
        large.test(world, outcome)?;
        frames_go(world, outcome)?;
        tables_go(world, outcome)?;
        tables_again(world, outcome)?;
        for table in world.tables {
            discard(table)?;
        }
        world.expect_nothing(outcome, "the area at last", AREA, (Error::NeedTable, 3))?;
    }
    both_at_once(outcome)?;
    death(outcome)?;
    spaces_go(outcome)
}
