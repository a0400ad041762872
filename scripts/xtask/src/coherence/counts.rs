//! What was counted, as the file tells it that this tool writes, and in words.

use super::{CoherenceError, FIELDS, read_line};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Lines of a region that people are told of.
const TOLD: usize = 4;

/// What a core did in a region.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct CoreCounts {
    /// Number of the region.
    pub region: u8,
    /// Times that it was begun.
    pub begun: u64,
    /// The core.
    pub core: usize,
    /// Instructions executed.
    pub instructions: u64,
    /// Accesses to RAM that read.
    pub loads: u64,
    /// Accesses to RAM that wrote.
    pub stores: u64,
    /// Accesses to device memory.
    pub device: u64,
    /// Lines moved by a read of what another core wrote last.
    pub reads: u64,
    /// Lines moved by a write to what others held.
    pub writes: u64,
}

/// What made a line move.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// A read of what another core wrote last.
    Read,
    /// A write to what others held.
    Write,
}

/// How many lines came to a core from the same others in a region.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Way {
    /// Number of the region.
    pub region: u8,
    /// What made them move.
    pub by: By,
    /// Who they came from: the last writer for a read, all others that held the line for a write.
    pub from: Vec<usize>,
    /// Who they came to.
    pub to: usize,
    /// How many.
    pub times: u64,
}

/// How a line moved in a region.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Line {
    /// Number of the region.
    pub region: u8,
    /// Where it lies.
    pub line: String,
    /// From the beginning of the RAM of the core that it belongs to.
    pub distance: Option<u64>,
    /// What it is part of; empty: nobody said.
    pub structure: String,
    /// Which part of that.
    pub field: String,
    /// Which slot of a channel it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<usize>,
    /// Times that a core read what another had written.
    pub reads: u64,
    /// Times that a core wrote what others held.
    pub writes: u64,
    /// Who read so.
    pub readers: Vec<usize>,
    /// Who wrote so.
    pub writers: Vec<usize>,
    /// The code that read so last; empty: none did.
    pub read_at: String,
    /// The code that wrote so last; empty: none did.
    pub write_at: String,
}

/// Private RAM that others than its core touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Where it lies.
    pub place: String,
    /// Cores that touched it.
    pub touched_by: Vec<usize>,
}

/// All that was counted.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// What cores did, by region and core.
    pub cores: Vec<CoreCounts>,
    /// Who had lines from whom, by region.
    pub ways: Vec<Way>,
    /// The busiest lines, by region.
    pub lines: Vec<Line>,
    /// Lines of private RAM that two cores touched.
    pub private: Vec<Breach>,
    /// Pages of private RAM that others than their core touched.
    pub foreign: Vec<Breach>,
    /// Accesses that QEMU could not place.
    pub unresolved: u64,
}

/// The last line of the file.
#[derive(Deserialize, Serialize)]
struct Totals {
    private_lines_of_two_cores: usize,
    private_pages_of_others: usize,
    unresolved: u64,
}

/// A line of the file as this tool writes it.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Told {
    Core(CoreCounts),
    Way(Way),
    Line(Line),
    Private {
        private: String,
        touched_by: Vec<usize>,
    },
    Foreign {
        foreign: String,
        touched_by: Vec<usize>,
    },
    Total {
        total: Totals,
    },
}

impl Counts {
    /// Reads what [`Self::text`] wrote.
    pub fn of(text: &str) -> Result<Self, CoherenceError> {
        let mut counts = Self::default();
        for line in text.lines() {
            match read_line(line)? {
                Told::Core(core) => counts.cores.push(core),
                Told::Way(way) => counts.ways.push(way),
                Told::Line(line) => counts.lines.push(line),
                Told::Private {
                    private: place,
                    touched_by,
                } => counts.private.push(Breach { place, touched_by }),
                Told::Foreign {
                    foreign: place,
                    touched_by,
                } => counts.foreign.push(Breach { place, touched_by }),
                Told::Total { total } => counts.unresolved = total.unresolved,
            }
        }
        Ok(counts)
    }

    /// The file, as it is read again by [`Self::of`].
    pub fn text(&self) -> String {
        let total = Totals {
            private_lines_of_two_cores: self.private.len(),
            private_pages_of_others: self.foreign.len(),
            unresolved: self.unresolved,
        };
        let cores = self.cores.iter().cloned().map(Told::Core);
        let ways = self.ways.iter().cloned().map(Told::Way);
        let lines = self.lines.iter().cloned().map(Told::Line);
        let private = self.private.iter().cloned();
        let private = private.map(|Breach { place, touched_by }| Told::Private {
            private: place,
            touched_by,
        });
        let foreign = self.foreign.iter().cloned();
        let foreign = foreign.map(|Breach { place, touched_by }| Told::Foreign {
            foreign: place,
            touched_by,
        });
        let all = cores.chain(ways).chain(lines).chain(private).chain(foreign);
        all.chain([Told::Total { total }])
            .filter_map(|told| serde_json::to_string(&told).ok())
            .map(|line| line + "\n")
            .collect()
    }

    /// Lines that moved in a region, by reads and by writes.
    pub fn transfers(&self, region: u8) -> (u64, u64) {
        let cores = self.cores.iter().filter(|one| one.region == region);
        cores.fold((0, 0), |(reads, writes), one| {
            (reads + one.reads, writes + one.writes)
        })
    }

    /// Lines that moved in a region by structure and field, with moves by reads and by writes, busiest
    /// first; only of those that have a name.
    pub fn fields(&self, region: u8) -> Vec<(&str, &str, u64, u64)> {
        let mut fields: BTreeMap<(&str, &str), (u64, u64)> = BTreeMap::new();
        let named = |line: &&Line| line.region == region && !line.structure.is_empty();
        for line in self.lines.iter().filter(named) {
            let (reads, writes) = fields.entry((&line.structure, &line.field)).or_default();
            *reads += line.reads;
            *writes += line.writes;
        }
        let mut fields: Vec<_> = fields
            .into_iter()
            .map(|((structure, field), (reads, writes))| (structure, field, reads, writes))
            .collect();
        // What is as busy stays in order of names.
        fields.sort_by_key(|(_, _, reads, writes)| u64::MAX - (reads + writes));
        fields
    }

    /// Cores of the machine; 0: no region began.
    pub fn machine(&self) -> usize {
        let last = self.cores.iter().map(|one| one.core).max();
        last.map_or(0, |core| core + 1)
    }

    /// For people.
    pub fn summary(&self) -> String {
        let mut text = String::new();
        let mut regions: Vec<u8> = self.cores.iter().map(|one| one.region).collect();
        regions.dedup();
        for region in regions {
            let (reads, writes) = self.transfers(region);
            let _ = writeln!(
                text,
                "region {region}: {} cache lines moved: {reads} by reads, {writes} by writes",
                reads + writes
            );
            for one in self.cores.iter().filter(|one| one.region == region) {
                let _ = writeln!(
                    text,
                    "    core {}: {} instructions, {} loads, {} stores, {} lines by reads, {} by writes",
                    one.core, one.instructions, one.loads, one.stores, one.reads, one.writes
                );
            }
            for (structure, field, reads, writes) in self.fields(region).into_iter().take(FIELDS) {
                let _ = writeln!(
                    text,
                    "    {} times {structure}: {field}: {reads} by reads, {writes} by writes",
                    reads + writes
                );
            }
            for line in self
                .lines
                .iter()
                .filter(|line| line.region == region)
                .take(TOLD)
            {
                let _ = writeln!(
                    text,
                    "    {} times {}{}: read by {:?} at {}; written by {:?} at {}",
                    line.reads + line.writes,
                    line.line,
                    line.named(),
                    line.readers,
                    line.read_at,
                    line.writers,
                    line.write_at
                );
            }
        }
        if self.cores.is_empty() {
            return "no region of interest began, so nothing was counted\n".to_owned();
        }
        let _ = writeln!(
            text,
            "private RAM of CPU drivers after boot: {} lines touched by two cores, {} pages touched by another core",
            self.private.len(),
            self.foreign.len()
        );
        for (what, breach) in self
            .private
            .iter()
            .map(|one| ("line", one))
            .chain(self.foreign.iter().map(|one| ("page", one)))
            .take(2 * TOLD)
        {
            let _ = writeln!(
                text,
                "    {what} {}: touched by {:?}",
                breach.place, breach.touched_by
            );
        }
        text
    }
}

impl Line {
    /// What it is for, in words that follow where it lies.
    fn named(&self) -> String {
        let slot = self.slot.map(|slot| format!(", slot {slot}"));
        let slot = slot.unwrap_or_default();
        match self.structure.as_str() {
            "" => String::new(),
            structure => format!(" ({structure}: {}{slot})", self.field),
        }
    }
}
