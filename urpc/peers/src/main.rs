//! Measures urpc and other channels between two pinned threads of the host, side by side.
//!
//! | module        | what it does                                                  |
//! |---------------|---------------------------------------------------------------|
//! | [`end`]       | what all subjects have in common, and the loops that time them |
//! | [`memory`]    | the floor, and what blocks in the kernel                      |
//! | [`crates`]    | urpc and other crates' channels                               |
//! | [`subject`]   | the list of all that is measured                              |
//! | [`placement`] | on which CPUs the threads run, and how far apart these are    |
//! | [`rounds`]    | interleaved rounds, with the placement beside every sample    |
//! | [`count`]     | instructions, by executing a child step by step               |
//! | [`report`]    | result lines and tables                                       |
//!
//! It ends with 0 when all was measured, whatever came out, with 2 when it cannot measure here or
//! was asked for what it does not know, and with 1 when a message arrived altered or the kernel
//! refused something. Ctrl-C ends it after the round that runs, with what is there.

mod count;
mod crates;
mod end;
mod memory;
mod placement;
mod report;
mod rounds;
mod subject;

use report::Who;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

const USAGE: &str = "usage: peers [--quick] [--rounds N] [--cpus A,B] [--count]
  --quick     few rounds
  --rounds N  so many rounds, 1 to 100000 [default: 400; 60 with --quick]
  --cpus A,B  the two CPUs to measure between [default: two of different cores, if there are]
  --count     count instructions and do nothing else";

const ROUNDS: usize = 400;
const QUICK_ROUNDS: usize = 60;

struct Options {
    rounds: usize,
    cpus: Option<[usize; 2]>,
    count_only: bool,
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut rounds = None;
    let mut quick = false;
    let (mut cpus, mut count_only) = (None, false);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => quick = true,
            "--count" => count_only = true,
            "--rounds" => {
                let value = words.next().unwrap_or_default();
                let number = value
                    .parse()
                    .ok()
                    .filter(|number| (1..=100_000).contains(number));
                rounds =
                    Some(number.ok_or(format!("--rounds: expected 1 to 100000, found {value:?}"))?);
            }
            "--cpus" => {
                let value = words.next().unwrap_or_default();
                let pair = value.split_once(',').and_then(|(a, b)| {
                    let pair = [a.trim().parse().ok()?, b.trim().parse().ok()?];
                    (pair[0] != pair[1]).then_some(pair)
                });
                cpus = Some(pair.ok_or(format!(
                    "--cpus: expected two CPUs such as 0,1, found {value:?}"
                ))?);
            }
            _ => return Err(format!("unknown option {word:?}")),
        }
    }
    let rounds = rounds.unwrap_or(if quick { QUICK_ROUNDS } else { ROUNDS });
    Ok(Options {
        rounds,
        cpus,
        count_only,
    })
}

/// The two CPUs to measure between, if there are two.
fn two_cpus(wanted: Option<[usize; 2]>) -> Result<[usize; 2], String> {
    let allowed = placement::allowed();
    match wanted {
        Some(cpus) => match cpus.into_iter().find(|cpu| !allowed.contains(cpu)) {
            Some(cpu) => Err(format!(
                "CPU {cpu} is none that this process may use: these are {allowed:?}"
            )),
            None => Ok(cpus),
        },
        None => placement::choose(&allowed).ok_or(format!(
            "expected two CPUs to measure between, found {allowed:?}; nothing was measured"
        )),
    }
}

extern "C" fn on_interrupt(_: libc::c_int) {
    rounds::STOP.store(true, Ordering::Relaxed);
}

fn main() -> ExitCode {
    let refuse = |reason: String| {
        eprintln!("error: {reason}");
        ExitCode::from(2)
    };
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(reason) => return refuse(format!("{reason}\n{USAGE}")),
    };
    // The counted children are forked while there is one thread only.
    let counted = count::count();
    let instructions = match &counted {
        Ok(counts) => report::of_counts(counts),
        Err(error) => format!("\ninstructions: not counted: {error}\n"),
    };
    if options.count_only {
        print!("{instructions}");
        return ExitCode::from(if counted.is_ok() { 0 } else { 2 });
    }
    let cpus = match two_cpus(options.cpus) {
        Ok(cpus) => cpus,
        Err(reason) => return refuse(reason),
    };
    let handler = on_interrupt as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: all that the handler does is to store to an atomic word.
    unsafe { libc::signal(libc::SIGINT, handler) };
    let subjects = subject::all();
    let who: Vec<Who> = subjects.iter().map(Who::of).collect();
    let results = rounds::measure(subjects, cpus, options.rounds);
    println!("host: between CPUs {} and {}", cpus[0], cpus[1]);
    print!("{}{instructions}", report::of(&results, &who));
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &str) -> Result<Options, String> {
        options(words.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_are_checked() {
        assert_eq!(parsed("").map(|options| options.rounds), Ok(ROUNDS));
        assert_eq!(
            parsed("--quick").map(|options| options.rounds),
            Ok(QUICK_ROUNDS)
        );
        assert_eq!(
            parsed("--quick --rounds 7").map(|options| options.rounds),
            Ok(7)
        );
        assert_eq!(
            parsed("--cpus 3,1").map(|options| options.cpus),
            Ok(Some([3, 1]))
        );
        for words in [
            "--rounds 0",
            "--rounds",
            "--rounds x",
            "--cpus 1,1",
            "--cpus 1",
            "--fast",
        ] {
            assert!(parsed(words).is_err(), "{words}");
        }
    }
}
