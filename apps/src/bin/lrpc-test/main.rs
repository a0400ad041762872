//! Calls between domains of one core, from all sides: `lrpc-test`.
//!
//! The program directs *puppets*: copies of itself that make the system calls they are told, one
//! script after the other. The director has the lowest priority there is. So whenever it runs, each
//! puppet has either finished its script or is blocked, and no check depends on time.
//!
//! All of it takes place on the core that the program runs on, and, by another copy of it, on the
//! last core at the same time.
//!
//! | scene       | what is checked                                                              |
//! |-------------|------------------------------------------------------------------------------|
//! | `words`     | words and badges both ways, the same on every path through the CPU driver     |
//! | `badges`    | the smallest and the largest badge, and words of that kind                    |
//! | `queue`     | who queues is served by priority, then in the order of coming                 |
//! | `give`      | capabilities that go with calls and answers                                   |
//! | `gone`      | servers and endpoints that go while others wait for them                      |
//! | `heirs`     | endpoints that go over from one that ended to others                          |
//! | `evicted`   | memory of endpoints that a third domain takes back                            |
//! | `killed`    | clients that are killed                                                       |
//! | `stopped`   | clients and servers that are stopped and started at each point                |
//! | `bells`     | bells and deadlines that come while a call is on its way                      |
//! | `deadlock`  | calls in circles; chains that are none                                        |
//! | `misuse`    | every other error                                                             |
//! | `hostile`   | addresses, slots and numbers that are meant to deceive the fast paths          |
//! | `payload`   | contents of a frame that client and server share                              |
//! | `inversion` | nobody waits for a lower priority than its own                                |
//! | `storm`     | tens of thousands of calls, with vector registers that are to survive         |
#![no_std]
#![no_main]

extern crate alloc;

mod bells;
mod ends;
mod errors;
mod exchange;
mod give;
mod heirs;
mod hostile;
mod load;
mod puppet;
mod registers;
mod stage;
mod step;
mod vectors;

use abi::layout::PAGE;
use alloc::format;
use alloc::vec::Vec;
use rt::capability::OWN_DISPATCHER;
use rt::dispatcher::{self, Property};
use rt::monitor;
use rt::println;
use rt::space::{Mapping, PageSize};
use stage::{Attempt, Failure, Stage, at, made};

rt::entry!(main);

/// The words by which a copy of the program knows what it is.
const PUPPET: &str = "puppet";
const ELSEWHERE: &str = "elsewhere";

/// Priority of the director: below all puppets.
pub const LOWEST: u8 = 0;

/// Free pages of a core that suffice for all scenes.
const AMPLE_PAGES: u64 = 4096;

fn main() -> i32 {
    match rt::startup().arguments().nth(1) {
        Some(PUPPET) => puppet::puppet(),
        Some(ELSEWHERE) => direct(),
        None => everywhere(),
        Some(word) => {
            println!("lrpc-test: `{word}` is no option of it");
            println!("usage: lrpc-test");
            2
        }
    }
}

/// Plays all scenes on this core, and on the last one.
fn everywhere() -> i32 {
    let start = rt::startup();
    let here = start.core as usize;
    let elsewhere = start.cores().filter(|core| *core != here).last();
    let begun = elsewhere.map(|core| monitor::begin_spawn(core, &["lrpc-test", ELSEWHERE], None));
    let mut status = direct();
    if let Some(token) = begun {
        let ended = token.and_then(monitor::end_spawn).and_then(monitor::wait);
        if ended != Ok(0) {
            println!("lrpc-test: expected status 0 of the copy on the last core, found {ended:?}");
            status = 1;
        }
    }
    if status == 0 {
        println!("lrpc-test: passed");
    }
    status
}

type Scene = (&'static str, fn(&mut Stage) -> Attempt);

const SCENES: [Scene; 16] = [
    ("words", exchange::words),
    ("badges", exchange::badges),
    ("queue", exchange::queue),
    ("give", give::give),
    ("gone", ends::gone),
    ("heirs", heirs::heirs),
    ("evicted", heirs::evicted),
    ("killed", ends::killed),
    ("stopped", ends::stopped),
    ("bells", bells::bells),
    ("deadlock", errors::deadlock),
    ("misuse", errors::misuse),
    ("hostile", hostile::hostile),
    ("payload", exchange::shared_payload),
    ("inversion", load::inversion),
    ("storm", load::storm),
];

/// Plays all scenes on this core; returns the exit status.
fn direct() -> i32 {
    match play() {
        Ok(0) => 0,
        Ok(bad) => {
            println!("lrpc-test: failed: {bad} checks");
            1
        }
        Err(Failure::NoMemory) => {
            println!("lrpc-test: failed: the core has too little memory left");
            1
        }
        Err(Failure::Refused(reason)) => {
            println!("lrpc-test: failed: {reason}");
            1
        }
    }
}

/// Plays all scenes; returns how many checks failed.
fn play() -> Attempt<u64> {
    let lowered = dispatcher::configure(OWN_DISPATCHER, Property::Priority(LOWEST));
    at("priority of the director", lowered)?;
    let free = monitor::memory(rt::startup().core as usize);
    let (free, _) = at("free memory", free)?;
    let mut stage = Stage {
        scene: "",
        puppets: Vec::new(),
        endpoints: Vec::new(),
        common: made("a common page", Mapping::zeroed(PAGE, PageSize::Small))?,
        bad: 0,
    };
    for (name, scene) in SCENES {
        stage.scene = name;
        match scene(&mut stage) {
            Ok(()) => {}
            Err(Failure::NoMemory) if free < AMPLE_PAGES => {
                println!("lrpc-test: {name} is left out: there is too little memory for it");
            }
            Err(Failure::NoMemory) => {
                let reason = format!("{name}: no memory, of {free} pages");
                return Err(Failure::Refused(reason));
            }
            Err(Failure::Refused(reason)) => {
                return Err(Failure::Refused(format!("{name}: {reason}")));
            }
        }
        stage.clear()?;
    }
    Ok(stage.bad)
}
