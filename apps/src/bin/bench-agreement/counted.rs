//! Counts of what an operation has all cores do.

use apps::laboratory::{Count, Failure, Laboratory};
use apps::tally::{Tally, measure};
use rt::interface::counter;

/// How often it is done for that.
pub const REPEAT: u64 = 32;

/// Does it so often, numbers from 0, and tells the means, rounded: what is counted anyway, and the
/// counting itself, are taken off.
pub fn count(
    laboratory: &mut Laboratory,
    operation: &str,
    with: &[(&str, u64)],
    mut work: impl FnMut(u64) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let nothing = measure(counter::MESSAGES, REPEAT, |_| {});
    let mut ended = Ok(());
    let found = laboratory.within(operation, with, REPEAT, || {
        measure(counter::MESSAGES, REPEAT, |number| {
            if ended.is_ok() {
                ended = work(number);
            }
        })
    });
    ended?;
    let mean = |of: fn(&Tally) -> u64| {
        let more = of(&found).saturating_sub(of(&nothing));
        (more + REPEAT / 2) / REPEAT
    };
    laboratory.count(operation, with, Count::Messages, mean(|all| all.messages));
    laboratory.count(operation, with, Count::CacheLines, mean(|all| all.lines));
    laboratory.count(operation, with, Count::Crossings, mean(|all| all.crossings));
    Ok(())
}
