//! One time for all cores.
//!
//! Core 0 asks each other core for its time, many times, at the start and at the end of a run. Its clock is
//! set by the exchange with the shortest way there and back, in the middle of which the other core is taken
//! to have answered; between start and end the difference is interpolated. A core that was not asked is set
//! by messages in both directions: the shortest of each are taken to take alike. At last cause comes before
//! effect: a core is set later, as far as needed, where a message would arrive before it was sent.
//!
//! Clocks that contradict nothing are left as they are: where cores share a clock (`icount`, `tcg`, a machine
//! whose counters start together), to measure it would only add an error.

use crate::matching::{Pair, early};
use crate::recording::Recording;
use std::collections::{BTreeMap, HashMap};
use trace::event;

/// How a core's clock goes: `time = (tsc - base) + offset + drift * (tsc - base)`, in ticks of core 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Clock {
    /// Time-stamp counter from which it is counted.
    pub base: u64,
    /// Ticks to add.
    pub offset: i64,
    /// Ticks to add for each tick.
    pub drift: f64,
}

impl Clock {
    /// What core 0's counter showed when this core's showed `tsc`.
    pub fn time(&self, tsc: u64) -> i64 {
        let since = tsc.wrapping_sub(self.base).cast_signed();
        let gained = match self.drift {
            0.0 => 0,
            drift => (since as f64 * drift) as i64,
        };
        since.wrapping_add(self.offset).wrapping_add(gained)
    }
}

/// Core 0 asked, the other answered, the answer was there: each by its own clock.
#[derive(Clone, Copy, Debug)]
struct Exchange {
    ping: u64,
    pong: u64,
    pang: u64,
}

impl Exchange {
    fn ticks(&self) -> u64 {
        self.pang - self.ping
    }

    /// What core 0's clock showed in the middle.
    fn middle(&self) -> i64 {
        (self.ping + self.ticks() / 2).cast_signed()
    }

    /// Whether both clocks may be one.
    fn agrees(&self) -> bool {
        self.ping <= self.pong && self.pong <= self.pang
    }
}

/// More than this no clock gains: a recording that says so was spoilt.
const MOST_DRIFT: f64 = 0.01;
/// Rounds of [`repair`], which are as many as there are cores between the two ends of a chain of messages.
const ROUNDS: usize = 64;

/// The clock of each core, in the order of the recording. `pairs`: messages that both ends are known of.
pub fn of(recording: &Recording, kept: &[Vec<u32>], pairs: &[Pair]) -> Vec<Clock> {
    let cores = recording.records.len();
    let mut clocks = vec![Clock::default(); cores];
    let mut is_set = vec![false; cores];
    let numbers = recording.header.cores.iter().map(|one| one.core);
    let reference = numbers.clone().position(|core| core == 0).unwrap_or(0);
    let asked = exchanges(recording, kept, reference);
    for (core, number) in numbers.enumerate().take(cores) {
        is_set[core] = core == reference;
        if let Some(clock) = asked.get(&number).and_then(|one| estimate(one))
            && core != reference
        {
            clocks[core] = clock;
            is_set[core] = true;
        }
    }
    if is_set.contains(&false) {
        let delays = delays(pairs, &clocks);
        place(&mut clocks, is_set, &delays);
    }
    repair(clocks, pairs, reference)
}

/// The exchanges of core 0 with each other core, by its number, in the order of time.
fn exchanges(
    recording: &Recording,
    kept: &[Vec<u32>],
    reference: usize,
) -> HashMap<u32, Vec<Exchange>> {
    let all = |core: usize| {
        kept[core]
            .iter()
            .map(move |&at| &recording.records[core][at as usize])
    };
    let mut all_asked: HashMap<(u32, u64), Vec<(u64, u64)>> = HashMap::new();
    let mut open = HashMap::new();
    if reference < kept.len() {
        for record in all(reference) {
            let exchange = (record.detail(), record.value);
            if record.event() == event::PING {
                open.insert(exchange, record.tsc);
            } else if record.event() == event::PANG
                && let Some(ping) = open.remove(&exchange)
                && ping <= record.tsc
            {
                all_asked
                    .entry(exchange)
                    .or_default()
                    .push((ping, record.tsc));
            }
        }
    }
    let mut exchanges: HashMap<u32, Vec<Exchange>> = HashMap::new();
    let mut answered: HashMap<(u32, u64), usize> = HashMap::new();
    for (core, header) in recording.header.cores.iter().enumerate().take(kept.len()) {
        for record in all(core).filter(|one| one.event() == event::PONG) {
            let exchange = (header.core, record.value);
            // Numbers may come again: the n-th answer belongs to the n-th question.
            let nth = answered.entry(exchange).or_default();
            if let Some(&(ping, pang)) = all_asked.get(&exchange).and_then(|one| one.get(*nth)) {
                let pong = record.tsc;
                let of_core = exchanges.entry(header.core).or_default();
                of_core.push(Exchange { ping, pong, pang });
            }
            *nth += 1;
        }
    }
    for of_core in exchanges.values_mut() {
        of_core.sort_by_key(|one| one.ping);
    }
    exchanges
}

/// The clock of a core, by its exchanges in the order of time.
fn estimate(exchanges: &[Exchange]) -> Option<Clock> {
    let (first, last) = (exchanges.first()?, exchanges.last()?);
    if exchanges.iter().all(Exchange::agrees) {
        return Some(Clock::default());
    }
    // What lies before the largest gap is the start, if most of the run lies in that gap.
    let gap = |at: &usize| exchanges[at + 1].ping - exchanges[*at].ping;
    let largest = (0..exchanges.len() - 1).max_by_key(gap);
    let middle = largest.filter(|at| gap(at) > (last.ping - first.ping) / 4 * 3);
    let shortest = |of: &[Exchange]| of.iter().min_by_key(|one| one.ticks()).copied();
    let start = shortest(&exchanges[..middle.map_or(exchanges.len(), |at| at + 1)])?;
    let offset = start.middle();
    let end = middle.and_then(|at| shortest(&exchanges[at + 1..]));
    let drift = end.map_or(0.0, |end| {
        let ticks = end.pong.wrapping_sub(start.pong).cast_signed() as f64;
        let of_zero = (end.middle() - offset) as f64;
        (of_zero - ticks) / ticks
    });
    Some(Clock {
        base: start.pong,
        offset,
        drift: if drift.abs() < MOST_DRIFT { drift } else { 0.0 },
    })
}

/// The shortest time that a message took from one core to another, by the clocks as they are.
fn delays(pairs: &[Pair], clocks: &[Clock]) -> BTreeMap<(u32, u32), i64> {
    let mut delays = BTreeMap::new();
    for (send, receive) in pairs {
        if send.core != receive.core {
            let delay = receive.time(clocks).saturating_sub(send.time(clocks));
            let shortest = delays.entry((send.core, receive.core)).or_insert(delay);
            *shortest = delay.min(*shortest);
        }
    }
    delays
}

/// Sets the clocks that are not set, by messages to and from cores whose clocks are.
fn place(clocks: &mut [Clock], mut is_set: Vec<bool>, delays: &BTreeMap<(u32, u32), i64>) {
    let mut shifts = vec![0i64; clocks.len()];
    loop {
        // The least that a clock must be set later, and the most that it may.
        let mut least: Vec<Option<i64>> = vec![None; clocks.len()];
        let mut most: Vec<Option<i64>> = vec![None; clocks.len()];
        for (&(from, to), &delay) in delays {
            let (from, to) = (from as usize, to as usize);
            if is_set[from] && !is_set[to] {
                let shift = shifts[from].saturating_sub(delay);
                least[to] = Some(least[to].map_or(shift, |one| one.max(shift)));
            }
            if !is_set[from] && is_set[to] {
                let shift = shifts[to].saturating_add(delay);
                most[from] = Some(most[from].map_or(shift, |one| one.min(shift)));
            }
        }
        let reached = |core: &usize| least[*core].is_some() || most[*core].is_some();
        let has_both = |core: &usize| least[*core].is_some() && most[*core].is_some();
        let open: Vec<usize> = (0..clocks.len()).filter(|one| !is_set[*one]).collect();
        let mut next: Vec<usize> = open.iter().copied().filter(has_both).collect();
        if next.is_empty() {
            // Where messages go one way alone, the clock is set no further than they ask for.
            next = open.iter().copied().filter(reached).take(1).collect();
        }
        if next.is_empty() {
            break;
        }
        for core in next {
            shifts[core] = match (least[core], most[core]) {
                (Some(least), Some(most)) if least > 0 || most < 0 => least.midpoint(most),
                (Some(least), None) => least.max(0),
                (None, Some(most)) => most.min(0),
                _ => 0,
            };
            is_set[core] = true;
        }
    }
    for (clock, shift) in clocks.iter_mut().zip(shifts) {
        clock.offset = clock.offset.wrapping_add(shift);
    }
}

/// Sets clocks later where messages would arrive before they were sent. Where messages contradict each
/// other, and fewer do not come of it, clocks stay as they are.
fn repair(clocks: Vec<Clock>, pairs: &[Pair], reference: usize) -> Vec<Clock> {
    let before = early(pairs, &clocks);
    if before == 0 {
        return clocks;
    }
    let delays = delays(pairs, &clocks);
    let mut shifts = vec![0i64; clocks.len()];
    for _ in 0..ROUNDS {
        let mut is_done = true;
        for (&(from, to), &delay) in &delays {
            let needed = shifts[from as usize].saturating_sub(delay);
            if shifts[to as usize] < needed {
                shifts[to as usize] = needed;
                is_done = false;
            }
        }
        if is_done {
            break;
        }
    }
    let zero = shifts[reference];
    let shifted: Vec<Clock> = clocks
        .iter()
        .zip(&shifts)
        .map(|(clock, shift)| Clock {
            offset: clock.offset.wrapping_add(shift.wrapping_sub(zero)),
            ..*clock
        })
        .collect();
    match early(pairs, &shifted) < before {
        true => shifted,
        false => clocks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use crate::sample;
    use trace::Record;

    fn without_exchanges(mut recording: Recording) -> Recording {
        for records in &mut recording.records {
            records.retain(|one| event::group(one.event()) != event::CLOCKS);
        }
        recording
    }

    #[test]
    fn clocks_that_agree_stay_as_they_are() {
        let one = sample::recording(5, 2000, 3);
        for one in [without_exchanges(one.clone()), one] {
            let model = Model::of(&one);
            assert_eq!(model.early, (0, 0));
            assert_eq!(model.clocks, vec![Clock::default(); 5]);
        }
    }

    #[test]
    fn clocks_that_differ_are_set_by_exchanges() {
        let skewed = sample::skewed(6, 4000, 3);
        let model = Model::of(&skewed);
        assert!(model.early.0 > 1000, "{:?}", model.early);
        assert_eq!(model.early.1, 0);
        // What is true is known: a record of each core at its beginning and its end, by a clock for all.
        let plain = sample::recording(6, 4000, 3);
        for (core, clock) in model.clocks.iter().enumerate() {
            for at in [0, plain.records[core].len() - 1] {
                let time = clock.time(skewed.records[core][at].tsc);
                let off = time - plain.records[core][at].tsc.cast_signed();
                assert!(off.abs() < 600, "core {core}, record {at}: {off}");
            }
        }
    }

    #[test]
    fn drift_is_interpolated() {
        let exchange = |ping: u64, pong| Exchange {
            ping,
            pong,
            pang: ping + 100,
        };
        // The other core gains 5 of 1,000 ticks, and is 10,000 behind at first.
        let clock = estimate(&[exchange(100_000, 90_050), exchange(200_000, 190_550)]).unwrap();
        assert_eq!(clock.time(90_050), 100_050);
        assert_eq!(clock.time(190_550), 200_050);
        assert_eq!(clock.time(140_300), 150_050);
        // What no clock does is not believed.
        let spoilt = estimate(&[exchange(100_000, 90_050), exchange(200_000, 90_051)]).unwrap();
        assert_eq!(spoilt.drift, 0.0);
        assert_eq!(estimate(&[]), None);
    }

    #[test]
    fn the_shortest_way_there_and_back_counts() {
        let clock = estimate(&[
            Exchange {
                ping: 1000,
                pong: 1,
                pang: 9000,
            },
            Exchange {
                ping: 10_000,
                pong: 9_020,
                pang: 10_040,
            },
            Exchange {
                ping: 20_000,
                pong: 18_900,
                pang: 23_000,
            },
        ])
        .unwrap();
        assert_eq!(clock.time(9_020), 10_020);
    }

    #[test]
    fn without_exchanges_messages_set_clocks() {
        let skewed = without_exchanges(sample::skewed(6, 4000, 3));
        let model = Model::of(&skewed);
        assert!(model.early.0 > 1000, "{:?}", model.early);
        assert_eq!(model.early.1, 0);
        let plain = sample::recording(6, 4000, 3);
        let start = skewed.records[4][0].tsc;
        let first = without_exchanges(plain).records[4][0].tsc.cast_signed();
        assert!((model.clocks[4].time(start) - first).abs() < 1000);
    }

    #[test]
    fn a_core_that_messages_only_go_to_is_set_late_enough() {
        let message = |flow, tsc, number| Record {
            tsc,
            flow,
            value: 0,
            tail: Record::tail(number, 1, 0),
        };
        let mut one = sample::recording(2, 0, 1);
        one.records = vec![
            vec![message(1, 5000, event::SEND), message(2, 6000, event::SEND)],
            vec![
                message(1, 100, event::RECEIVE),
                message(2, 1050, event::RECEIVE),
            ],
        ];
        let model = Model::of(&one);
        assert_eq!(model.early, (2, 0));
        assert_eq!(model.clocks[1].time(1050), 6000);
    }

    #[test]
    fn messages_that_contradict_each_other_are_counted() {
        let message = |flow, tsc, number| Record {
            tsc,
            flow,
            value: 0,
            tail: Record::tail(number, 1, 0),
        };
        let mut one = sample::recording(2, 0, 1);
        one.records = vec![
            vec![
                message(1, 5000, event::SEND),
                message(2, 4000, event::RECEIVE),
            ],
            vec![
                message(1, 4500, event::RECEIVE),
                message(2, 4600, event::SEND),
            ],
        ];
        let model = Model::of(&one);
        // One of the two must be early, however the clocks are set.
        assert_eq!(model.early, (2, 1));
    }
}
