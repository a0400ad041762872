//! What CPU drivers and monitors of all cores have counted, summed up.

use rt::interface::counter;
use rt::monitor;

/// Indices into `abi::record::Counters`.
const SYSTEM_CALLS: u64 = 0;
const SWITCHES: u64 = 1;
const INTERRUPTS: u64 = 2;

/// Sums over all cores.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Messages between monitors of one class.
    pub messages: u64,
    /// Cache lines written in the channels between monitors.
    pub lines: u64,
    /// System calls and interrupts.
    pub crossings: u64,
    /// Context switches.
    pub switches: u64,
}

impl Tally {
    /// All that was counted so far; `class` is one of [`counter`].
    fn now(class: u64) -> Self {
        let sum = |index| -> u64 {
            let cores = rt::startup().cores();
            cores
                .map(|core| monitor::counter(core, index).unwrap_or(0))
                .sum()
        };
        Self {
            messages: sum(class),
            lines: sum(counter::LINES),
            crossings: sum(SYSTEM_CALLS) + sum(INTERRUPTS),
            switches: sum(SWITCHES),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            messages: self.messages - before.messages,
            lines: self.lines - before.lines,
            crossings: self.crossings - before.crossings,
            switches: self.switches - before.switches,
        }
    }
}

/// What so many repetitions add, and the counting itself.
pub fn measure(class: u64, repeat: u64, mut work: impl FnMut(u64)) -> Tally {
    let before = Tally::now(class);
    for number in 0..repeat {
        work(number);
    }
    Tally::now(class).since(before)
}
