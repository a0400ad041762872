//! What shared memory is for, as programs announce it and as the monitors lay it out.
//!
//! A program says in a line of its own what lies at a physical address, before it measures:
//!
//! ```text
//! structure {"at":3145728,"bytes":4096,"structure":"channel","slots":16,"cores":[0,1]}
//! structure {"at":3149824,"bytes":64,"structure":"shared counters","field":"next ticket"}
//! ```
//!
//! With `slots` it is a channel of `urpc`, whose side A is the first core's and side B the second's;
//! its fields are then told by the crate's own layout. What is announced later takes the place of
//! what lay there before. A region's lines are named by what was announced when its `region` line
//! came; a region without one by what was announced last. Channels between monitors need no announcement: they lie
//! where the core records say that a core's shared RAM begins.

use super::figures::Work;
use super::{CoherenceError, LINE, read_line};
use crate::console::{Console, Moment, is_log_line};
use abi::layout::PAGE;
use abi::limits::{MAX_CORES, PAGE_CHANNEL_SLOTS};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use urpc::{Field, MAX_SLOTS, MIN_SLOTS, Side, field_at};

/// What begins the lines that this is about.
const STRUCTURE: &str = "structure {";
const REGION: &str = "region {";

/// What a line of memory is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Name {
    /// What it is part of; empty: nobody said.
    pub structure: String,
    /// Which part.
    pub field: String,
    /// Which slot of a channel.
    pub slot: Option<usize>,
}

/// What a program says of a stretch of memory.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Structure {
    /// Physical address.
    at: u64,
    bytes: u64,
    structure: String,
    #[serde(default)]
    field: String,
    slots: Option<usize>,
    #[serde(default)]
    cores: Vec<usize>,
}

impl Structure {
    fn overlaps(&self, other: &Self) -> bool {
        self.at < other.at.saturating_add(other.bytes)
            && other.at < self.at.saturating_add(self.bytes)
    }

    /// What the line at this address is for, if it lies within.
    fn name(&self, line: u64) -> Option<Name> {
        let offset = line.checked_sub(self.at)?;
        if offset >= self.bytes {
            return None;
        }
        match (self.slots, &self.cores[..]) {
            (Some(slots), [a, b]) => {
                let structure = format!("{} of cores {a} and {b}", self.structure);
                channel(structure, slots, [*a, *b], offset as usize)
            }
            _ => Some(Name {
                structure: self.structure.clone(),
                field: self.field.clone(),
                slot: None,
            }),
        }
    }

    /// What is wrong with it, if anything is.
    fn wrong(&self) -> Option<&'static str> {
        match self.slots {
            Some(slots)
                if !slots.is_power_of_two() || !(MIN_SLOTS..=MAX_SLOTS).contains(&slots) =>
            {
                Some("slots: expected a power of two from 4 to 1024")
            }
            Some(_) if self.cores.len() != 2 => Some("cores: expected those of both ends"),
            _ => None,
        }
    }
}

/// What the line at an offset in a channel's frame is for.
fn channel(structure: String, slots: usize, cores: [usize; 2], offset: usize) -> Option<Name> {
    let mut fields: Vec<(Side, Field)> = Vec::new();
    for word in (offset..offset + LINE as usize).step_by(8) {
        let found = field_at(slots, word)?;
        if found.1 != Field::Unused && !fields.contains(&found) {
            fields.push(found);
        }
    }
    let slot = fields.iter().find_map(|(_, field)| match field {
        Field::Message(slot) => Some(*slot),
        _ => None,
    });
    let words: Vec<&str> = fields
        .iter()
        .map(|(_, field)| match field {
            Field::Message(_) => "messages",
            Field::Acknowledged => "acknowledged",
            Field::Closed => "closed",
            Field::Asleep => "asleep",
            Field::Unused => "unused",
        })
        .collect();
    let field = match fields.first() {
        None => "unused".to_owned(),
        Some((side, _)) => format!("{} by core {}", words.join(", "), cores[*side as usize]),
    };
    Some(Name {
        structure,
        field,
        slot,
    })
}

/// What a line of a core's shared RAM is for, by its distance from where that begins, on a machine of
/// so many cores: the monitors' channels, and behind core 0's the words by which they sleep.
pub fn of_monitors(core: usize, distance: u64, cores: usize) -> Option<Name> {
    let page = usize::try_from(distance / PAGE).ok()?;
    if page < cores {
        let structure = format!("channel of monitors {core} and {page}");
        let offset = (distance % PAGE) as usize;
        return (page > core)
            .then(|| channel(structure, PAGE_CHANNEL_SLOTS, [core, page], offset))?;
    }
    let sleeper = distance.checked_sub(MAX_CORES as u64 * PAGE)? / LINE;
    (core == 0 && sleeper < cores as u64).then(|| Name {
        structure: "sleep words of monitors".to_owned(),
        field: format!("asleep by core {sleeper}"),
        slot: None,
    })
}

/// What was announced.
#[derive(Debug, Default)]
pub struct Names {
    regions: BTreeMap<u8, Vec<Structure>>,
    last: Vec<Structure>,
}

impl Names {
    /// By a program's lines.
    ///
    /// # Errors
    /// A line that begins like an announcement and is none.
    pub fn of<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Self, CoherenceError> {
        let mut names = Self::default();
        for line in lines {
            if line.starts_with(STRUCTURE) {
                let structure: Structure = read_line(&line[STRUCTURE.len() - 1..])?;
                if let Some(reason) = structure.wrong() {
                    return Err(CoherenceError::Malformed {
                        line: line.to_owned(),
                        reason: reason.to_owned(),
                    });
                }
                names.last.retain(|one| !one.overlaps(&structure));
                names.last.push(structure);
            } else if line.starts_with(REGION) {
                let work: Work = read_line(&line[REGION.len() - 1..])?;
                names.regions.insert(work.region, names.last.clone());
            }
        }
        Ok(names)
    }

    /// What a line of this physical address was for in a region; `None`: nobody said.
    pub fn name(&self, region: u8, line: u64) -> Option<Name> {
        let known = self.regions.get(&region).unwrap_or(&self.last);
        known.iter().find_map(|one| one.name(line))
    }
}

/// Passes on what there is to say, and keeps the lines that [`Names`] are made of.
pub struct Listener<'a> {
    to: &'a mut dyn Console,
    heard: Vec<String>,
}

impl<'a> Listener<'a> {
    /// In front of another.
    pub fn before(to: &'a mut dyn Console) -> Self {
        Self {
            to,
            heard: Vec::new(),
        }
    }

    /// The lines so far.
    pub fn heard(&self) -> impl Iterator<Item = &str> {
        self.heard.iter().map(String::as_str)
    }
}

impl Console for Listener<'_> {
    fn guest(&mut self, line: &str, at: Moment) -> io::Result<()> {
        if !is_log_line(line) && (line.starts_with(STRUCTURE) || line.starts_with(REGION)) {
            self.heard.push(line.to_owned());
        }
        self.to.guest(line, at)
    }

    fn running(&mut self, at: Moment) {
        self.to.running(at);
    }

    fn tool(&mut self, words: &str) {
        self.to.tool(words);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Recording;

    const CHANNEL: &str =
        r#"structure {"at":8192,"bytes":4096,"structure":"channel","slots":16,"cores":[0,3]}"#;
    const TICKET: &str =
        r#"structure {"at":8256,"bytes":64,"structure":"counters","field":"next ticket"}"#;
    const TOLD: &str = r#"region {"region":1,"operation":"call","times":4,"slots":16}"#;

    fn named(names: &Names, region: u8, line: u64) -> (String, String, Option<usize>) {
        let Name {
            structure,
            field,
            slot,
        } = names.name(region, line).unwrap_or_default();
        (structure, field, slot)
    }

    #[test]
    fn lines_of_a_channel_are_told_by_side_and_slot() {
        let names = Names::of([CHANNEL]).unwrap();
        let of = |offset: u64| {
            let (structure, field, slot) = named(&names, 1, 8192 + offset);
            assert_eq!(structure, "channel of cores 0 and 3");
            (field, slot)
        };
        assert_eq!(of(5 * 128), ("messages by core 0".into(), Some(5)));
        assert_eq!(of(2048 + 128), ("messages by core 3".into(), Some(1)));
        assert_eq!(of(64), ("acknowledged, closed by core 0".into(), None));
        assert_eq!(of(2048 + 128 + 64), ("asleep by core 3".into(), None));
        assert_eq!(of(2 * 128 + 64), ("unused".into(), None));
        assert_eq!(names.name(1, 8128), None);
        assert_eq!(names.name(1, 8192 + 4096), None);
    }

    #[test]
    fn a_region_is_named_by_what_was_announced_before_its_line() {
        let names = Names::of(["words", CHANNEL, TOLD, "structures", TICKET]).unwrap();
        let (structure, ..) = named(&names, 1, 8256);
        assert!(structure.starts_with("channel"), "{structure}");
        let ticket = ("counters".to_owned(), "next ticket".to_owned(), None);
        assert_eq!(named(&names, 2, 8256), ticket);
        // The channel made way as a whole.
        assert_eq!(names.name(2, 8192), None);
    }

    #[test]
    fn announcements_that_are_none_are_errors() {
        for (line, words) in [
            (
                CHANNEL.replace("\"slots\":16", "\"slots\":17"),
                "power of two",
            ),
            (CHANNEL.replace("[0,3]", "[0]"), "both ends"),
            (CHANNEL.replace("slots", "slits"), "unknown field"),
            (TOLD.replace(":1,", ":,"), "expected value"),
        ] {
            let error = Names::of([line.as_str()]).unwrap_err().to_string();
            assert!(error.contains(words), "{line}: {error}");
        }
    }

    #[test]
    fn monitors_channels_lie_by_the_number_of_the_higher_core() {
        let of = |core, distance| {
            let Name {
                structure, field, ..
            } = of_monitors(core, distance, 4)?;
            Some(format!("{structure}: {field}"))
        };
        let found = of(1, 3 * PAGE + 2048);
        let expected = "channel of monitors 1 and 3: messages by core 3";
        assert_eq!(found.as_deref(), Some(expected));
        assert_eq!((of(1, PAGE), of(1, 0), of(1, 4 * PAGE)), (None, None, None));
        let words = MAX_CORES as u64 * PAGE;
        let found = of(0, words + 2 * LINE);
        let expected = "sleep words of monitors: asleep by core 2";
        assert_eq!(found.as_deref(), Some(expected));
        assert_eq!((of(1, words), of(0, words + 4 * LINE)), (None, None));
    }

    #[test]
    fn a_listener_keeps_a_programs_announcements_and_passes_all_on() {
        let mut recording = Recording::default();
        let mut listener = Listener::before(&mut recording);
        let log = format!("[core 0] {TICKET}");
        for line in [CHANNEL, "words", log.as_str(), TOLD] {
            listener.guest(line, Moment::default()).unwrap();
        }
        assert_eq!(listener.heard().collect::<Vec<_>>(), [CHANNEL, TOLD]);
        assert_eq!(recording.guest.len(), 4);
    }
}
