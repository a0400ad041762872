//! Benchmarks of what several cores agree on: `bench-agreement [--quick] [--only PART]`.
//!
//! | part         | what is measured, from … to                                                          |
//! |--------------|--------------------------------------------------------------------------------------|
//! | `unmap`      | a page of a span that `members` cores have written to: the call, until none has it   |
//! | `protect`    | the same until none can write to it                                                  |
//! | `capability` | revoke, retype, delete of what `holders` other cores have a capability to            |
//! | `names`      | bind, look-up, unbind, by a domain of core `from`                                    |
//! | `spawn`      | asking for a domain to having its exit status                                        |
//! | `memory`     | allocate and free frames on `members` cores at once: time of all by number of frames |
//! | `barrier`    | a round among `members` cores, all of which do nothing else                          |
//! | `broadcast`  | a message to `members` cores, until all acknowledgements are back                    |
//! | `agree`      | two-phase commit over the same trees: alone, and with 16 under way                   |
//! | `boot`       | from the start of the machine to the end of each phase, the last: user code          |
//!
//! Under `icount` times are instructions of all cores: what an operation has others do is in it.
//! Where nothing else is said others sleep until they are needed, so being woken is in it too. In
//! `memory`, `barrier` by messages, `broadcast` and `agree` all who take part poll.
//!
//! With times come means over some repetitions, rounded, of what all cores together counted
//! meanwhile: messages between monitors, cache lines written for them, ring crossings.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod boot;
mod capabilities;
mod counted;
mod crowd;
mod members;
mod mesh;
mod names;
mod rounds;
mod spans;
mod spawns;

use alloc::vec::Vec;
use apps::arguments::{MISUSE_STATUS, explain};
use apps::crew::Post;
use apps::laboratory::{Failure, Laboratory, told};
use apps::team::Team;
use rt::clock;

rt::entry!(main);

const USAGE: &str = "bench-agreement [--quick] [--only PART]";

/// What a part needs.
enum Part {
    /// Members of a span on all other cores.
    Team(fn(&mut Laboratory, &mut Team) -> Result<(), Failure>),
    /// Nobody, or whom it starts itself.
    Alone(fn(&mut Laboratory) -> Result<(), Failure>),
}

const NAMES: [&str; 10] = [
    "unmap",
    "protect",
    "capability",
    "names",
    "spawn",
    "memory",
    "barrier",
    "broadcast",
    "agree",
    "boot",
];
const PARTS: [Part; NAMES.len()] = [
    Part::Team(spans::unmap),
    Part::Team(spans::protect),
    Part::Team(capabilities::measure),
    Part::Team(names::measure),
    Part::Alone(spawns::measure),
    Part::Alone(crowd::memory),
    Part::Alone(crowd::barrier),
    Part::Alone(crowd::broadcast),
    Part::Alone(crowd::agree),
    Part::Alone(boot::measure),
];

fn main() -> i32 {
    boot::note(clock::cycles());
    if let Some(post) = Post::take_up() {
        return crowd::work(post);
    }
    let (mut laboratory, only) = match Laboratory::of_program("bench-agreement", &NAMES) {
        Ok((laboratory, only, _)) => (laboratory, only),
        Err(misuse) => return explain(&misuse, USAGE),
    };
    if rt::startup().cores().count() < 2 {
        rt::println!("bench-agreement: it takes at least 2 cores: --cores 2");
        return MISUSE_STATUS;
    }
    let ended = measure(&mut laboratory, only);
    laboratory.close(ended)
}

fn measure(laboratory: &mut Laboratory, only: Option<usize>) -> Result<(), Failure> {
    let mut team: Option<Team> = None;
    for part in only.map_or(0..PARTS.len(), |part| part..part + 1) {
        match PARTS[part] {
            Part::Alone(part) => part(laboratory)?,
            Part::Team(part) => {
                let team = match &mut team {
                    Some(team) => team,
                    none => none.insert(told("members", Team::gather(members::member))?),
                };
                part(laboratory, team)?;
            }
        }
    }
    match team {
        Some(team) => told("end of the members", team.dismiss()),
        None => Ok(()),
    }
}

/// How many cores take part: the powers of two from `least` on, and all.
fn sizes(least: usize) -> Vec<usize> {
    let all = rt::startup().cores().count();
    let doubled = |size: &usize| size.checked_mul(2);
    let powers = core::iter::successors(Some(1), doubled).take_while(|size| *size < all);
    powers.chain([all]).filter(|size| *size >= least).collect()
}
