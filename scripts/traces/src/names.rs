//! What requests and messages are called: read from the sources that declare their numbers, so that
//! there is no list of them to keep up.

use crate::model::Model;
use std::collections::BTreeMap;
use std::sync::LazyLock;
use trace::event;

/// Requests of domains to monitors, with what stands before their names.
const REQUESTS: [(&str, &str); 5] = [
    ("", include_str!("../../../apps/rt/src/interface.rs")),
    ("", include_str!("../../../apps/rt/src/interface/cores.rs")),
    (
        "name",
        include_str!("../../../apps/rt/src/interface/names.rs"),
    ),
    (
        "region",
        include_str!("../../../apps/rt/src/interface/regions.rs"),
    ),
    (
        "space",
        include_str!("../../../apps/rt/src/interface/spaces.rs"),
    ),
];
/// Ranges of the messages between monitors.
const RANGES: &str = include_str!("../../../monitor/src/kinds.rs");
/// Where those messages are declared.
const MESSAGES: [&str; 12] = [
    include_str!("../../../monitor/src/console.rs"),
    include_str!("../../../monitor/src/costs.rs"),
    include_str!("../../../monitor/src/costs/tables.rs"),
    include_str!("../../../monitor/src/formation.rs"),
    include_str!("../../../monitor/src/membership.rs"),
    include_str!("../../../monitor/src/mesh.rs"),
    include_str!("../../../monitor/src/names/message.rs"),
    include_str!("../../../monitor/src/regions/message.rs"),
    include_str!("../../../monitor/src/spaces/message.rs"),
    include_str!("../../../monitor/src/spans/members.rs"),
    include_str!("../../../monitor/src/spans/pages.rs"),
    include_str!("../../../monitor/src/traces.rs"),
];
/// In the kind of a message between monitors: a domain's request is handed on, or its answer.
const FORWARDED: u16 = 0x100;

/// What monitors say to each other: ranges by their first number, and kinds.
struct Monitors {
    ranges: BTreeMap<u16, (u16, String)>,
    kinds: BTreeMap<u16, String>,
}

static REQUEST_NAMES: LazyLock<BTreeMap<u16, String>> = LazyLock::new(requests);
static MONITORS: LazyLock<Monitors> = LazyLock::new(monitors);

/// An event, with its group in front: `GROUP:EVENT`.
pub fn event(number: u16) -> String {
    let group = event::GROUPS
        .iter()
        .find(|(group, _)| *group == event::group(number));
    let event = event::EVENTS.iter().find(|one| one.number == number);
    match (group, event) {
        (Some((_, group)), Some(event)) => format!("{group}:{}", event.name),
        _ => format!("event {number:#x}"),
    }
}

/// Why there is less or more in a trace than was asked for: events that were to cut it and did not come, cores
/// that were lost, cores that started late.
pub fn remarks(model: &Model) -> Vec<String> {
    let told = model.missing.into_iter().zip(["begin", "end"]);
    let missing = told.filter_map(|(number, what)| Some((number?, what)));
    let text = |(number, what): (u16, &str)| {
        format!(
            "no {} came for the trace to {what} with: it is not cut there",
            event(number)
        )
    };
    let cores = |all: &[u32], what: &str| {
        let numbers: Vec<_> = all.iter().map(u32::to_string).collect();
        let is_one = numbers.len() == 1;
        let (end, was) = if is_one { ("", "was") } else { ("s", "were") };
        let line = format!("core{end} {} {was} {what}", numbers.join(", "));
        (!all.is_empty()).then_some(line)
    };
    let lost = cores(
        &model.lost,
        "lost: what was recorded until then is there, and messages to and from there may lack one end",
    );
    let late = cores(
        &model.late,
        "started while the program ran: what was recorded there before, if anything, is not there",
    );
    missing.map(text).chain(lost).chain(late).collect()
}

/// Name of a request of a domain.
pub fn request(kind: u32) -> String {
    let known = u16::try_from(kind)
        .ok()
        .and_then(|kind| REQUEST_NAMES.get(&kind));
    known
        .cloned()
        .unwrap_or_else(|| format!("request {kind:#x}"))
}

/// Name of a message; those from or to monitors have some, others are between programs.
pub fn message(kind: u16, is_of_monitor: bool) -> String {
    if !is_of_monitor {
        return format!("kind {kind:#x}");
    }
    if let Some(name) = REQUEST_NAMES.get(&(kind & !FORWARDED)) {
        return match kind & FORWARDED {
            0 => name.clone(),
            _ => format!("{name}, handed on"),
        };
    }
    let range = MONITORS.ranges.range(..=kind).next_back();
    match range.filter(|(_, (end, _))| kind < *end) {
        None => format!("kind {kind:#x}"),
        Some((start, (_, range))) => match MONITORS.kinds.range(start..=&kind).next_back() {
            None => format!("{range} {}", kind - start),
            Some((_, name)) => name.clone(), // the first of several that are one
        },
    }
}

fn requests() -> BTreeMap<u16, String> {
    let mut all = BTreeMap::new();
    for (before, source) in REQUESTS {
        for line in source.lines() {
            let Some((name, value)) = constant(line, "u16") else {
                continue;
            };
            if let Some(value) = number(value) {
                let words = format!("{before} {}", spoken(name));
                all.insert(value, words.trim_start().to_owned());
            }
        }
    }
    all
}

fn monitors() -> Monitors {
    let mut ranges = BTreeMap::new();
    let mut starts = BTreeMap::new();
    for line in RANGES.lines() {
        let range = constant(line, "Range<u16>")
            .and_then(|(name, value)| Some((name, value.split_once("..")?)))
            .and_then(|(name, (start, end))| Some((name, number(start)?, number(end)?)));
        if let Some((name, start, end)) = range {
            starts.insert(name, start);
            ranges.insert(start, (end, spoken(name)));
        }
    }
    let mut kinds = BTreeMap::new();
    for source in MESSAGES {
        let mut name = "";
        for line in source.lines() {
            if let Some((_, rest)) = line.split_once("const ") {
                name = rest.split(':').next().unwrap_or_default();
            }
            let kind = line
                .split_once("kinds::kind(&kinds::")
                .and_then(|(_, rest)| rest.split_once(')'))
                .and_then(|(kind, _)| kind.split_once(", "))
                .and_then(|(range, at)| Some((range, starts.get(range)?, number(at)?)));
            if let Some((range, start, at)) = kind {
                // A pair of kinds is a round's: what spreads, and its acknowledgement.
                let mut words = format!("{} {}", spoken(range), spoken(name));
                if at > 0 && kinds.get(&(start + at - 1)) == Some(&words) {
                    words.push_str(", acknowledged");
                }
                kinds.insert(start + at, words);
            }
        }
    }
    Monitors { ranges, kinds }
}

/// Name and value of a public constant of a type that a line declares.
fn constant<'a>(line: &'a str, of: &str) -> Option<(&'a str, &'a str)> {
    let (name, rest) = line.strip_prefix("pub const ")?.split_once(": ")?;
    let value = rest.strip_prefix(of)?.strip_prefix(" = ")?;
    Some((name, value.strip_suffix(';')?))
}

fn number(text: &str) -> Option<u16> {
    match text.strip_prefix("0x") {
        Some(digits) => u16::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `TRY_WAIT` is said "try wait".
fn spoken(name: &str) -> String {
    name.to_lowercase().replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_names_that_the_interface_gives_them() {
        use rt::interface::{self, cores, names, regions, spaces};
        for (kind, name) in [
            (interface::SPAWN, "spawn"),
            (interface::TRY_WAIT, "try wait"),
            (interface::COSTS, "costs"),
            (interface::REPLY, "reply"),
            (cores::STOP_CORE, "stop core"),
            (names::BIND, "name bind"),
            (regions::REVOKE, "region revoke"),
            (spaces::UNMAP, "space unmap"),
        ] {
            assert_eq!(request(kind.into()), name);
            assert_eq!(message(kind, true), name);
            assert_eq!(
                message(kind | FORWARDED, true),
                format!("{name}, handed on")
            );
        }
        assert_eq!(request(0xffff), "request 0xffff");
        assert_eq!(request(0x1_0003), "request 0x10003");
        assert_eq!(message(interface::SPAWN, false), "kind 0x3");
    }

    #[test]
    fn every_request_has_a_name() {
        // No other constant there has 16 bits.
        let declared = REQUESTS.iter().flat_map(|(_, source)| source.lines());
        let declared = declared.filter(|line| line.contains(": u16 = "));
        assert_eq!(REQUEST_NAMES.len(), declared.count());
    }

    #[test]
    fn messages_between_monitors_have_those_of_the_protocols() {
        use protocols::kinds;
        let at = |range: &core::ops::Range<u16>, n| message(kinds::kind(range, n), true);
        assert_eq!(at(&kinds::REGIONS, 9), "regions prepare");
        assert_eq!(at(&kinds::NAMES, 5), "names prepare");
        assert_eq!(at(&kinds::SPACES, 2), "spaces round");
        assert_eq!(at(&kinds::SPACES, 3), "spaces round, acknowledged");
        assert_eq!(at(&kinds::MEMBERSHIP, 10), "membership table");
        assert_eq!(at(&kinds::MESH, 0), "mesh flush");
        assert_eq!(at(&kinds::LENDING, 2), "lending 2");
        assert_eq!(message(0xff00, true), "kind 0xff00");
        // Every range is known, and every declaration was understood.
        assert_eq!(
            MONITORS.ranges.len(),
            RANGES.matches("Range<u16> = ").count()
        );
        let declared = MESSAGES.iter().flat_map(|source| source.lines());
        let declared = declared.filter(|line| line.contains("kinds::kind(&kinds::"));
        assert_eq!(MONITORS.kinds.len(), declared.count());
    }
}
