//! The init of a Linux that measures the operations nearest to ours, says what they take, and
//! powers off: `init ACCELERATOR CORES [--quick]`, as the kernel takes it from its command line.
//!
//! It needs nothing but the kernel, `/dev/console` and itself as `/init`. Lines and method are
//! those of the guest's own benchmarks: samples with the first ones left out, each timed by itself,
//! the clock's own cost taken off.
//!
//! | module       | what is measured                                                           |
//! |--------------|----------------------------------------------------------------------------|
//! | `calls`      | system calls and round trips, on one core and across                       |
//! | `mappings`   | mapping, unmapping and protecting a page while threads use the space       |
//! | `tasks`      | threads and processes, from their start to having waited for them          |
//! | `memory`     | allocation on all cores at once                                            |
//! | `laboratory` | samples and the lines that tell them                                       |
//! | `host`       | the few things that only system calls do: pinning, shared words, power     |

mod calls;
mod host;
mod laboratory;
mod mappings;
mod memory;
mod tasks;

use host::{Done, Failure};
use laboratory::{Laboratory, Times, cycles};
use std::process::ExitCode;

/// The word by which a copy of the program knows that it has only to end.
const EXIT: &str = "exit";
const QUICK: &str = "--quick";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if words == [EXIT] {
        return ExitCode::SUCCESS;
    }
    // On a host it would only be in the way, and switch nothing off.
    if std::process::id() != 1 {
        eprintln!("linux-peer: expected to be the first process of a machine of its own");
        return ExitCode::from(2);
    }
    // A panic of the first process would be one of the kernel's.
    std::panic::set_hook(Box::new(|panic| {
        println!("linux-peer: failed: {panic}");
        host::power_off(false)
    }));
    let ended = measure_all(&words);
    if let Err(Failure { step, reason }) = &ended {
        println!("linux-peer: failed: {step}: {reason}");
    }
    host::power_off(ended.is_ok())
}

fn measure_all(words: &[&str]) -> Done {
    let (accelerator, cores, is_quick) = arguments(words)?;
    host::pin(0)?;
    let first = cycles();
    host::start_cores(cores)?;
    let all = cycles();
    let found = host::cores()?;
    if found != cores {
        return host::failed(
            "counting cores",
            &format!("expected {cores}, found {found}"),
        );
    }
    let laboratory = Laboratory::open(Times::of(accelerator), is_quick);
    laboratory.power_on("power-on to user code, one core up", first);
    laboratory.power_on("power-on to user code, all cores up", all);
    calls::measure(&laboratory, cores)?;
    mappings::measure(&laboratory, cores)?;
    tasks::measure(&laboratory, cores)?;
    memory::measure(&laboratory, cores)
}

/// The accelerator's name, the cores there have to be, and whether to be quick.
fn arguments<'words>(words: &[&'words str]) -> Done<(&'words str, usize, bool)> {
    let (words, is_quick) = match words {
        [words @ .., QUICK] => (words, true),
        words => (words, false),
    };
    let read = match words {
        [accelerator, cores] => cores.parse().ok().map(|cores| (*accelerator, cores)),
        _ => None,
    };
    match read {
        Some((accelerator, cores)) => Ok((accelerator, cores, is_quick)),
        None => host::failed(
            "reading the arguments",
            &format!("expected ACCELERATOR CORES [--quick], found {words:?}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::arguments;

    #[test]
    fn the_kernels_words_are_understood() {
        assert_eq!(arguments(&["icount", "2"]).unwrap(), ("icount", 2, false));
        assert_eq!(
            arguments(&["kvm", "16", "--quick"]).unwrap(),
            ("kvm", 16, true)
        );
        for words in [&[][..], &["icount"], &["icount", "two"], &["a", "1", "b"]] {
            assert!(arguments(words).is_err(), "{words:?}");
        }
    }
}
