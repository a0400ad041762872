//! Tests the registry of names, and what is made of it: locks, semaphores, barriers.
//!
//! `names-test [--rounds COUNT]`
//!
//! One domain on each core takes part; on one core, two. They check that
//!
//! - a binding is found on every core as soon as `bind` has returned, and nowhere after `unbind`;
//! - of many who bind one name at once, one gets it, and all learn whose it is;
//! - who watches learns of every change in order, or that it missed some;
//! - names of a domain that ends, by itself or not, are free;
//! - locks exclude, semaphores let so many in, barriers hold all back until the last has come;
//! - whatever makes no sense is answered with the error that says so.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod alone;
mod together;

use alloc::format;
use alloc::vec::Vec;
use apps::arguments::{Arguments, explain};
use apps::checks::Outcome;
use rt::frame::Frame;
use rt::monitor::{self, Domain, Spawn};

rt::entry!(main);

const USAGE: &str = "usage: names-test [--rounds COUNT]";

/// How often everything that is done by all at once is repeated.
const DEFAULT_ROUNDS: u64 = 3;

/// The word by which a copy knows that it takes part, and what it is to do.
const PART: &str = "part";

fn main() -> i32 {
    let start = rt::startup();
    let mut outcome = Outcome::default();
    if start.arguments().nth(1) == Some(PART) {
        let mut words = start.arguments().skip(2);
        let scene = words.next().unwrap_or("");
        let numbers: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
        together::take_part(scene, &numbers, &mut outcome);
        return i32::from(outcome.bad > 0);
    }
    let asked = Arguments::of_program(&["--rounds"])
        .and_then(|arguments| arguments.number("--rounds", 1..=1000));
    let rounds = match asked {
        Ok(asked) => asked.unwrap_or(DEFAULT_ROUNDS),
        Err(misuse) => return explain(&misuse, USAGE),
    };
    alone::bind_and_unbind(&mut outcome);
    alone::what_makes_no_sense(&mut outcome);
    alone::watches(&mut outcome);
    alone::full(&mut outcome);
    let cores: Vec<usize> = start.cores().collect();
    // Two where there is one core: what excludes must exclude domains of one core as well.
    let places = match cores[..] {
        [only] => Vec::from([only, only]),
        _ => cores,
    };
    for scene in together::SCENES {
        let cast = Cast::start(&places, scene, rounds, &mut outcome);
        cast.end(&mut outcome);
    }
    together::owners_end(&places, &mut outcome);
    let left = rt::names::list("").map(|names| names.len());
    outcome.expect("names that are left", &left, &Ok(0));
    rt::println!(
        "names-test: {} domains, {} checks",
        places.len(),
        outcome.checks
    );
    if outcome.bad > 0 {
        rt::println!("names-test: failed: {} checks", outcome.bad);
        return 1;
    }
    rt::println!("names-test: passed");
    0
}

/// Copies of the program that do one thing together, and share a page.
pub struct Cast {
    domains: Vec<Domain>,
    /// What they count in.
    pub frame: Option<Frame>,
}

impl Cast {
    /// Starts one at each place; each is told how many they are, which one it is, and the rounds.
    pub fn start(places: &[usize], scene: &str, rounds: u64, outcome: &mut Outcome) -> Self {
        let frame = monitor::frame(4096);
        outcome.expect("a page to share", &frame.is_ok(), &true);
        let begun: Vec<_> = places
            .iter()
            .enumerate()
            .map(|(index, core)| {
                let numbers = [places.len() as u64, index as u64, rounds];
                let [count, index, rounds] = numbers.map(|number| format!("{number}"));
                let words = ["names-test", PART, scene, &count, &index, &rounds];
                let spawn = Spawn::new(&words).on(*core);
                match &frame {
                    Ok(frame) => spawn.frame(frame).begin(),
                    Err(_) => spawn.begin(),
                }
            })
            .collect();
        let mut domains = Vec::new();
        for token in begun {
            match token.and_then(monitor::end_spawn) {
                Ok(domain) => domains.push(domain),
                Err(error) => outcome.expect("a spawn", &Err(error), &Ok(())),
            }
        }
        let frame = frame.ok();
        Self { domains, frame }
    }

    /// The domains.
    pub fn domains(&self) -> &[Domain] {
        &self.domains
    }

    /// Waits for all; each must have found all as it should be.
    pub fn end(self, outcome: &mut Outcome) {
        for domain in self.domains {
            outcome.expect("the status of a part", &monitor::wait(domain), &Ok(0));
        }
    }
}
