//! What the lines that moved would cost on another machine: an estimate, for emulation has no caches.
//!
//! A machine file divides what a message of one line takes from one core to another into `send`,
//! `flight` and `receive`, whose sum is the published latency one way. The line of a message moves
//! twice, and so each part has its transfer:
//!
//! | transfer                                          | costs                                   |
//! |---------------------------------------------------|-----------------------------------------|
//! | a read of what another core wrote last            | `flight` + `receive` of these two cores |
//! | a write that takes the line away from all others  | `send`, of the dearest of them          |
//!
//! The estimate is the sum over all transfers, as if no two overlapped. So a round trip comes to
//! twice the latency one way; what cores do side by side, as in a stream, takes less than the sum;
//! a locked instruction, which waits for its line as a read does, takes more than its `send`; and
//! what cores compute meanwhile is not in it. Emulation runs the cores by turns, each for thousands of
//! instructions unless it waits: so where cores contend, as for a lock, lines move far less often
//! than on a processor, and the estimate is a floor. Who waits for a message lets others run, so there
//! each message moves its line as it would. Cores are placed in order: socket by socket.

use super::{By, Counts};
use crate::failure::OptionError;
use crate::sim;
use serde_json::{Map, Value};
use simulator::machine::{Machine, SHIPPED};
use std::fs;

/// The machines when nobody names one.
pub const DEFAULT: [&str; 2] = ["two-socket", "eight-socket"];
/// What begins the comment in a machine file that says where its figures are from.
const SOURCE: &str = "Source:";

/// A machine to estimate for.
#[derive(Debug)]
pub struct Model {
    machine: Machine,
    source: String,
}

impl Model {
    /// The shipped machine of this name, or the one in this file.
    ///
    /// # Errors
    /// It is neither.
    pub fn named(name: &str) -> Result<Self, OptionError> {
        let machine = sim::machine(name)?;
        let shipped = SHIPPED.iter().find(|(shipped, _)| *shipped == name);
        let text = match shipped {
            Some((_, text)) => (*text).to_owned(),
            // It was read just now; without its comments the estimate is the same.
            None => fs::read_to_string(name).unwrap_or_default(),
        };
        let source = source(&text).unwrap_or_else(|| format!("{name}, which names none"));
        Ok(Self { machine, source })
    }

    /// Why there is no estimate for so many cores, if there is none: a machine that was made larger
    /// would no longer be the one whose figures were published.
    pub fn refuses(&self, cores: usize) -> Option<String> {
        let machine = &self.machine;
        (machine.clone().with_room_for(cores) != *machine).then(|| {
            format!(
                "no estimate for {}: it has fewer cores than this run, which has {cores}",
                machine.name
            )
        })
    }

    /// Nanoseconds that the lines which moved in a region take, one after the other.
    pub fn nanoseconds(&self, counts: &Counts, region: u8) -> u64 {
        let ways = counts.ways.iter().filter(|way| way.region == region);
        let cost = |from: usize, to: usize, by: By| {
            let distance = self.machine.distance(from, to);
            match by {
                By::Read => distance.flight + distance.receive,
                By::Write => distance.send,
            }
        };
        ways.map(|way| {
            let each = way.from.iter().map(|from| cost(*from, way.to, way.by));
            way.times * each.max().unwrap_or(0)
        })
        .sum()
    }

    /// The keys of a figure that say what it is an estimate of.
    pub fn describe(&self, record: &mut Map<String, Value>) {
        record.insert("machine".to_owned(), self.machine.name.clone().into());
        record.insert("source".to_owned(), self.source.clone().into());
    }
}

/// Where a machine file says that its figures are from: the comment that begins with the word, up to
/// a colon or its end.
fn source(text: &str) -> Option<String> {
    let mut comment = text
        .lines()
        .map_while(|line| line.strip_prefix('#'))
        .map(str::trim)
        .skip_while(|line| !line.starts_with(SOURCE));
    let first = comment.next()?.strip_prefix(SOURCE)?;
    let rest = comment.take_while(|line| !line.is_empty());
    let all: Vec<&str> = std::iter::once(first.trim()).chain(rest).collect();
    let all = all.join(" ");
    let (named, _) = all.split_once(": ").unwrap_or((&all, ""));
    Some(named.trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::Way;
    use super::*;

    fn way(by: By, from: &[usize], to: usize, times: u64) -> Way {
        Way {
            region: 1,
            by,
            from: from.to_vec(),
            to,
            times,
        }
    }

    fn of(name: &str, ways: &[Way]) -> u64 {
        let counts = Counts {
            ways: ways.to_vec(),
            ..Counts::default()
        };
        Model::named(name).unwrap().nanoseconds(&counts, 1)
    }

    /// A round trip: each end writes its line, which the other holds, and reads the other's.
    fn round_trip(here: usize, there: usize) -> [Way; 4] {
        [
            way(By::Write, &[there], here, 1),
            way(By::Read, &[here], there, 1),
            way(By::Write, &[here], there, 1),
            way(By::Read, &[there], here, 1),
        ]
    }

    #[test]
    fn a_round_trip_takes_twice_the_published_way() {
        for (name, here, there, one_way) in [
            ("two-socket", 0, 1, 68),
            ("two-socket", 0, 2, 214),
            ("two-socket", 1, 4, 214),
            ("eight-socket", 0, 3, 269),
            ("eight-socket", 0, 4, 307),
            ("eight-socket", 0, 8, 309),
        ] {
            let found = of(name, &round_trip(here, there));
            assert_eq!(found, 2 * one_way, "{name}, {here} and {there}");
        }
    }

    #[test]
    fn a_write_costs_what_the_farthest_holder_does() {
        // By the cache, one hop and two hops: 45 ns each; so with a machine that tells them apart.
        let text = SHIPPED[2].1.replacen("send = 45", "send = 7", 1);
        let text = text.replacen("send = 45", "send = 60", 1);
        let model = Model {
            machine: Machine::parse("uneven", &text).unwrap(),
            source: String::new(),
        };
        let sum = |from: &[usize]| {
            let counts = Counts {
                ways: vec![
                    way(By::Write, from, 0, 10),
                    Way {
                        region: 2,
                        ..way(By::Read, &[1], 0, 1)
                    },
                ],
                ..Counts::default()
            };
            model.nanoseconds(&counts, 1)
        };
        assert_eq!((sum(&[1]), sum(&[8]), sum(&[1, 4, 8])), (70, 450, 600));
    }

    #[test]
    fn a_machine_too_small_is_none_to_estimate_for() {
        let model = Model::named("two-socket").unwrap();
        assert_eq!(model.refuses(8), None);
        let words = model.refuses(9).unwrap();
        assert!(
            words.contains("two-socket") && words.contains('9'),
            "{words}"
        );
        assert!(Model::named("nine-socket").is_err());
    }

    #[test]
    fn sources_are_taken_from_the_files() {
        let of = |name| Model::named(name).unwrap().source;
        let paper = "Baumann et al., The Multikernel, SOSP 2009, table of URPC performance";
        assert_eq!(
            (of("two-socket"), of("eight-socket")),
            (paper.into(), paper.into())
        );
        let own = of("qemu");
        assert!(
            own.starts_with("`scripts/run --cores 8") && own.ends_with("as the README shows it"),
            "{own}"
        );
        assert_eq!(
            source("# Source: measured.\nsockets = 1"),
            Some("measured".into())
        );
        assert_eq!(source("sockets = 1\n# Source: none"), None);
    }
}
