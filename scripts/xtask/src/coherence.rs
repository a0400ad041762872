//! Cache lines that move between cores, counted by our plugin for QEMU (`scripts/coherence`).
//!
//! The plugin writes what it counted when QEMU ends. It knows neither which core is which nor what
//! memory is for: the core records tell, so this module writes the file anew with both.
//!
//! | first key  | what the line tells                                                             |
//! |------------|---------------------------------------------------------------------------------|
//! | `region`   | with `core`: what a core did in a region of interest, and how many lines it moved |
//! | `region`   | with `line`: how a line moved in it, where it lies, and which code moved it      |
//! | `private`  | a line of a core's private RAM that two cores touched after boot                |
//! | `foreign`  | a page of a core's private RAM that another core touched after boot             |
//! | `total`    | how many of either there are                                                    |
//!
//! The boot is over when the first region begins.

use crate::accelerator::{Accelerator, Choice};
use crate::bundle::System;
use crate::console::{Console, Moment, Recording};
use crate::failure::{BuildError, Failure, OptionError};
use crate::guest::{Core, Guest};
use crate::install::Qemu;
use crate::launch::Boot;
use crate::progress::Progress;
use crate::project::Project;
use crate::symbols;
use abi::layout::KERNEL_HALF;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use thiserror::Error;

/// First version of QEMU whose plugins are told guest-physical addresses; before, they were told
/// places in the RAM of all nodes.
const TELLS_PHYSICAL: (u32, u32) = (8, 2);
/// Lines of a region that people are told of.
const TOLD: usize = 4;

/// Why counts came to nothing.
#[derive(Debug, Error)]
pub enum CoherenceError {
    /// The file or a program's line is not as it should be.
    #[error("cache lines were counted, but this cannot be read: {line:?}: {reason}")]
    Malformed {
        /// What was found.
        line: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Not every core can be told.
    #[error(
        "cache lines were counted for {expected} cores, but {found} core records tell which they are"
    )]
    Records {
        /// Cores of the machine.
        expected: usize,
        /// Records found.
        found: usize,
    },
    /// No core touched RAM of its own.
    #[error(
        "cache lines were counted, but not one in its core's own RAM: QEMU's addresses mean something else than expected"
    )]
    Nowhere,
}

/// Builds the plugin.
fn build(project: &Project) -> Result<(), Failure> {
    let _progress = Progress::begin("building the plugin");
    let mut cargo = project.cargo();
    cargo.args(["build", "--quiet", "--release", "--package", "coherence"]);
    let output = cargo.output().map_err(BuildError::NoCargo)?;
    if !output.status.success() {
        let messages = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(BuildError::Compiler { messages }.into());
    }
    Ok(())
}

/// What QEMU is told for a boot that is counted.
pub fn arguments(boot: &Boot) -> Vec<String> {
    let Some(file) = &boot.request.coherence else {
        return Vec::new();
    };
    let library = Project::here().target.join("release/libcoherence.so");
    let argument = format!("{},out={}", escaped(&library), escaped(file));
    vec!["-plugin".to_owned(), argument]
}

/// As a value among QEMU's options.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

/// What QEMU is to execute a guest by whose cache lines are counted, with the plugin built.
pub fn prepare(choice: Choice, project: &Project) -> Result<Accelerator, Failure> {
    let accelerator = match choice {
        Choice::Kvm => return Err(OptionError::CoherenceWithKvm.into()),
        Choice::Tcg => Accelerator::Tcg,
        Choice::Auto | Choice::Icount => Accelerator::Icount,
    };
    build(project)?;
    Ok(accelerator)
}

/// A line of the plugin's file.
#[derive(Deserialize)]
#[serde(untagged)]
enum Raw {
    Core(CoreCounts),
    Line(RawLine),
    Shared {
        shared: u64,
        touched_by: Vec<usize>,
    },
    Page {
        page: u64,
        bytes: u64,
        touched_by: Vec<usize>,
    },
    Machine {
        cores: usize,
        unresolved: u64,
    },
}

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

#[derive(Deserialize)]
struct RawLine {
    region: u8,
    line: u64,
    reads: u64,
    writes: u64,
    readers: Vec<usize>,
    writers: Vec<usize>,
    read_at: u64,
    write_at: u64,
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

/// What is known of the machine that the counts are of.
struct Machine<'a> {
    guest: &'a Guest,
    /// Our number of each core by QEMU's.
    numbers: Vec<usize>,
    node_bytes: u64,
    tells_physical: bool,
    code: Code,
}

/// Reads what the plugin wrote, says what it means, and writes it down so.
pub fn resolve(
    file: &Path,
    boot: &Boot,
    qemu: &Qemu,
    system: &System,
    guest: &Guest,
) -> Result<Counts, Failure> {
    let text = fs::read_to_string(file)
        .map_err(Failure::host(format!("cannot read {}", file.display())))?;
    let request = &boot.request;
    let machine = Machine {
        guest,
        numbers: numbers(guest, request.cores)?,
        node_bytes: request.memory.bytes / request.sockets as u64,
        tells_physical: tells_physical(&qemu.version),
        code: Code::of(system, request.program()),
    };
    let counts = machine.read(&text)?;
    fs::write(file, counts.text())
        .map_err(Failure::host(format!("cannot write {}", file.display())))?;
    Ok(counts)
}

fn read_line<T: serde::de::DeserializeOwned>(line: &str) -> Result<T, CoherenceError> {
    serde_json::from_str(line).map_err(|error| CoherenceError::Malformed {
        line: line.to_owned(),
        reason: error.to_string(),
    })
}

/// Our number of each core by QEMU's, which go by APIC id.
fn numbers(guest: &Guest, cores: usize) -> Result<Vec<usize>, CoherenceError> {
    let mut known: Vec<_> = guest
        .cores()
        .values()
        .map(|core| (core.record.apic_id, core.record.core as usize))
        .collect();
    if known.len() != cores {
        return Err(CoherenceError::Records {
            expected: cores,
            found: known.len(),
        });
    }
    known.sort_unstable();
    Ok(known.into_iter().map(|(_, number)| number).collect())
}

fn tells_physical(version: &str) -> bool {
    let mut parts = version
        .split('.')
        .map_while(|part| part.parse::<u32>().ok());
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    version >= TELLS_PHYSICAL
}

impl Machine<'_> {
    fn read(&self, text: &str) -> Result<Counts, CoherenceError> {
        let mut counts = Counts::default();
        let mut is_placed = false;
        for line in text.lines() {
            match read_line(line)? {
                Raw::Machine { cores, unresolved } => {
                    if cores != self.numbers.len() {
                        return Err(CoherenceError::Records {
                            expected: cores,
                            found: self.numbers.len(),
                        });
                    }
                    counts.unresolved = unresolved;
                }
                Raw::Core(core) => counts.cores.push(CoreCounts {
                    core: self.number(core.core),
                    ..core
                }),
                Raw::Line(line) => counts.lines.push(Line {
                    region: line.region,
                    line: self.place(line.line),
                    distance: self.owner(line.line).map(|owner| owner.distance),
                    reads: line.reads,
                    writes: line.writes,
                    readers: self.all(&line.readers),
                    writers: self.all(&line.writers),
                    read_at: self.code.at(line.read_at),
                    write_at: self.code.at(line.write_at),
                }),
                Raw::Shared { shared, touched_by } => {
                    if self.owner(shared).is_some_and(|place| place.is_private) {
                        let place = self.place(shared);
                        counts.private.push(Breach {
                            place,
                            touched_by: self.all(&touched_by),
                        });
                    }
                }
                Raw::Page {
                    page,
                    bytes,
                    touched_by,
                } => {
                    let touched_by = self.all(&touched_by);
                    // A run may reach from one core's memory into another's.
                    for page in (page..page + bytes).step_by(4096) {
                        let Some(found) = self.owner(page).filter(|place| place.is_private) else {
                            continue;
                        };
                        let owner = found.core;
                        is_placed |= touched_by == [owner];
                        if touched_by.iter().any(|core| *core != owner) {
                            let place = self.place(page);
                            counts.foreign.push(Breach {
                                place,
                                touched_by: touched_by.clone(),
                            });
                        }
                    }
                }
            }
        }
        // Else addresses would mean something else than is taken for granted here.
        if !is_placed && !counts.cores.is_empty() {
            return Err(CoherenceError::Nowhere);
        }
        counts.cores.sort_by_key(|one| (one.region, one.core));
        Ok(counts)
    }

    fn number(&self, core: usize) -> usize {
        self.numbers.get(core).copied().unwrap_or(core)
    }

    fn all(&self, cores: &[usize]) -> Vec<usize> {
        let mut cores: Vec<_> = cores.iter().map(|core| self.number(*core)).collect();
        cores.sort_unstable();
        cores
    }

    /// Byte of a core's RAM that an address of QEMU's means, if it lies there.
    fn distance(&self, core: &Core, address: u64) -> Option<u64> {
        if self.tells_physical {
            return address.checked_sub(core.record.region);
        }
        // The RAM of a node has its place in that of all nodes, and is told relative to that of the
        // node before: so every other stretch of a node's size is one.
        let node = address / (2 * self.node_bytes);
        let offset = address % (2 * self.node_bytes);
        (node == core.place.node as u64 && offset < self.node_bytes)
            .then(|| offset.checked_sub(core.place.offset))?
    }

    /// Whose RAM an address lies in.
    fn owner(&self, address: u64) -> Option<Owner> {
        self.guest.cores().values().find_map(|core| {
            let distance = self.distance(core, address)?;
            let record = &core.record;
            (distance < record.private_bytes + record.shared_bytes).then_some(Owner {
                core: record.core as usize,
                is_private: distance < record.private_bytes,
                distance,
            })
        })
    }

    /// Where an address lies, in words.
    fn place(&self, address: u64) -> String {
        match self.owner(address) {
            None => format!("outside of all cores' RAM, {address:#x}"),
            Some(Owner {
                core,
                is_private,
                distance,
            }) => {
                let kind = if is_private { "private" } else { "shared" };
                format!("core {core}, {kind}, {distance:#x}")
            }
        }
    }
}

/// Whose RAM it is.
struct Owner {
    core: usize,
    is_private: bool,
    /// From the beginning of the core's RAM.
    distance: u64,
}

/// The functions of who may have moved a line, each sorted by address.
struct Code {
    kernel: Vec<(u64, String)>,
    /// All user code lies at the same addresses: the monitor's and the program's.
    user: Vec<(String, Vec<(u64, String)>)>,
}

impl Code {
    fn of(system: &System, program: &str) -> Self {
        let executables = &system.executables;
        let mut user = vec![("monitor".to_owned(), functions(&executables.monitor))];
        if let Some(path) = executables.programs.get(program) {
            user.push((program.to_owned(), functions(path)));
        }
        Self {
            kernel: functions(&executables.cpudriver),
            user,
        }
    }

    /// What an address of code may mean; empty for 0.
    fn at(&self, address: u64) -> String {
        if address == 0 {
            return String::new();
        }
        let names: Vec<String> = if address >= KERNEL_HALF {
            name(&self.kernel, address)
                .map(|name| format!("cpudriver: {name}"))
                .into_iter()
                .collect()
        } else {
            let named = |(program, functions): &(String, Vec<_>)| {
                name(functions, address).map(|name| format!("{program}: {name}"))
            };
            self.user.iter().filter_map(named).collect()
        };
        if names.is_empty() {
            return format!("{address:#x}");
        }
        format!("{address:#x} ({})", names.join(" | "))
    }
}

fn functions(path: &Path) -> Vec<(u64, String)> {
    // Names are a help, not a need.
    let table = fs::read(path)
        .ok()
        .and_then(|file| symbols::table(&file).ok())
        .unwrap_or_default();
    let line = |line: &str| {
        let (address, name) = line.split_once(' ')?;
        Some((u64::from_str_radix(address, 16).ok()?, name.to_owned()))
    };
    table.lines().filter_map(line).collect()
}

fn name(functions: &[(u64, String)], address: u64) -> Option<&str> {
    let at = functions.partition_point(|(start, _)| *start <= address);
    functions
        .get(at.checked_sub(1)?)
        .map(|(_, name)| name.as_str())
}

impl Counts {
    /// Reads what [`Self::text`] wrote.
    pub fn of(text: &str) -> Result<Self, CoherenceError> {
        let mut counts = Self::default();
        for line in text.lines() {
            match read_line(line)? {
                Told::Core(core) => counts.cores.push(core),
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

    fn text(&self) -> String {
        let total = Totals {
            private_lines_of_two_cores: self.private.len(),
            private_pages_of_others: self.foreign.len(),
            unresolved: self.unresolved,
        };
        let cores = self.cores.iter().cloned().map(Told::Core);
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
        let all = cores.chain(lines).chain(private).chain(foreign);
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
            for line in self
                .lines
                .iter()
                .filter(|line| line.region == region)
                .take(TOLD)
            {
                let _ = writeln!(
                    text,
                    "    {} times {}: read by {:?} at {}; written by {:?} at {}",
                    line.reads + line.writes,
                    line.line,
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

/// What a program says that it did in a region.
#[derive(Deserialize)]
struct Work {
    region: u8,
    operation: String,
    times: u64,
    #[serde(flatten)]
    with: serde_json::Map<String, serde_json::Value>,
}

/// Adds to what a benchmark said the lines that it moved, as if it had said so itself.
pub fn tell(file: &Path, benchmark: &str, console: &mut Recording) -> Result<(), Failure> {
    let text = fs::read_to_string(file)
        .map_err(Failure::host(format!("cannot read {}", file.display())))?;
    let counts = Counts::of(&text)?;
    let mut lines = Vec::new();
    for line in console
        .program()
        .filter_map(|line| line.strip_prefix("region "))
    {
        let work: Work = read_line(line)?;
        let (reads, writes) = counts.transfers(work.region);
        let mut record = work.with;
        let operation = format!("transfers: {}", work.operation);
        let each = |lines: u64| lines as f64 / work.times.max(1) as f64;
        for (key, value) in [
            ("benchmark", benchmark.into()),
            ("operation", operation.into()),
            ("unit", "cache lines".into()),
            ("value", each(reads + writes).into()),
            ("by_reads", each(reads).into()),
            ("by_writes", each(writes).into()),
            ("times", work.times.into()),
        ] {
            record.insert(key.to_owned(), value);
        }
        lines.push(serde_json::Value::from(record));
    }
    for (operation, count) in [
        ("private lines touched by two cores", counts.private.len()),
        (
            "private pages touched by another core",
            counts.foreign.len(),
        ),
    ] {
        // Nobody looked at who touches what before a region began.
        if !counts.cores.is_empty() {
            lines.push(serde_json::json!({ "benchmark": benchmark, "operation": operation, "unit": "count", "value": count }));
        }
    }
    for line in lines {
        let told = console.guest(&format!("result {line}"), Moment::default());
        told.map_err(Failure::host("cannot keep the results"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::tests::record;
    use crate::memory::GuestMemory;
    use abi::record::state;
    use std::fs::OpenOptions;
    use std::os::unix::fs::FileExt;

    const MIB: u64 = 1 << 20;
    /// RAM of each of two nodes, with a core in each: QEMU's core 0 is our core 1.
    const NODE: u64 = 64 * MIB;
    const REGION: u64 = 8 * MIB;

    fn guest() -> Guest {
        let memory = GuestMemory::create(2 * NODE, 2).unwrap();
        for core in 0..2_u32 {
            let node = u64::from(core);
            let (mut record, mut bytes) = record(core, state::RUNNING, node * NODE + REGION, "");
            record.apic_id = 1 - core;
            record.private_bytes = 4 * MIB;
            record.shared_bytes = 4 * MIB;
            let head = zerocopy::IntoBytes::as_bytes(&record);
            bytes[..head.len()].copy_from_slice(head);
            let (_, path) = memory.files().nth(core as usize).unwrap();
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(&bytes, REGION).unwrap();
        }
        let mut guest = Guest::default();
        guest.look(&memory, 2);
        guest
    }

    fn read(text: &str, tells_physical: bool) -> Result<Counts, CoherenceError> {
        let guest = guest();
        let machine = Machine {
            guest: &guest,
            numbers: numbers(&guest, 2).unwrap(),
            node_bytes: NODE,
            tells_physical,
            code: Code {
                kernel: vec![(KERNEL_HALF, "trap".to_owned())],
                user: Vec::new(),
            },
        };
        machine.read(text)
    }

    const HEAD: &str = r#"{"cores":2,"unresolved":3}
{"region":1,"begun":1,"core":0,"instructions":9,"loads":8,"stores":7,"device":0,"reads":6,"writes":5}
{"region":1,"begun":1,"core":1,"instructions":9,"loads":8,"stores":7,"device":0,"reads":4,"writes":3}
"#;

    #[test]
    fn cores_and_lines_get_our_names() {
        // Of the second node in the RAM of both, as old versions tell it; shared, then private.
        let [shared, own] = [2 * NODE + REGION + 4 * MIB + 64, 2 * NODE + REGION];
        let text = format!(
            "{HEAD}{{\"region\":1,\"line\":{shared},\"reads\":1,\"writes\":2,\"readers\":[0],\"writers\":[1],\"read_at\":{},\"write_at\":0}}\n\
             {{\"shared\":{shared},\"touched_by\":[0,1]}}\n{{\"page\":{own},\"bytes\":8192,\"touched_by\":[0]}}\n",
            KERNEL_HALF + 4
        );
        let counts = read(&text, false).unwrap();
        assert_eq!(counts.transfers(1), (10, 8));
        assert_eq!(counts.cores[0].reads, 4);
        let line = &counts.lines[0];
        assert_eq!(line.line, "core 1, shared, 0x400040");
        assert_eq!((&line.readers[..], &line.writers[..]), (&[1][..], &[0][..]));
        assert_eq!(
            (
                line.read_at.ends_with("(cpudriver: trap)"),
                line.write_at.as_str()
            ),
            (true, "")
        );
        assert!(counts.private.is_empty() && counts.foreign.is_empty());
        assert_eq!(Counts::of(&counts.text()).unwrap().text(), counts.text());
        assert!(counts.summary().contains("0 lines touched by two cores"));
    }

    #[test]
    fn private_memory_that_others_touch_is_told() {
        let own = NODE + REGION;
        let text = format!(
            "{HEAD}{{\"shared\":{},\"touched_by\":[0,1]}}\n{{\"page\":{own},\"bytes\":4096,\"touched_by\":[0]}}\n\
             {{\"page\":{REGION},\"bytes\":8192,\"touched_by\":[0]}}\n",
            own + 128
        );
        let counts = read(&text, true).unwrap();
        assert_eq!(counts.private[0].place, "core 1, private, 0x80");
        assert_eq!(counts.private[0].touched_by, [0, 1]);
        assert_eq!(counts.foreign.len(), 2);
        assert_eq!(counts.foreign[1].place, "core 0, private, 0x1000");
        assert_eq!(counts.foreign[1].touched_by, [1]);
    }

    #[test]
    fn addresses_that_make_no_sense_are_no_result() {
        let text = format!("{HEAD}{{\"page\":0,\"bytes\":4096,\"touched_by\":[0]}}\n");
        assert!(matches!(read(&text, true), Err(CoherenceError::Nowhere)));
        assert!(matches!(
            read("{}", true),
            Err(CoherenceError::Malformed { .. })
        ));
        assert!(matches!(
            read("{\"cores\":3,\"unresolved\":0}", true),
            Err(CoherenceError::Records { .. })
        ));
        assert!(matches!(
            numbers(&guest(), 3),
            Err(CoherenceError::Records {
                expected: 3,
                found: 2
            })
        ));
    }

    #[test]
    fn versions_differ_in_what_they_tell() {
        assert!(!tells_physical("7.2.22") && !tells_physical("8.1.0"));
        assert!(tells_physical("8.2.0") && tells_physical("10.0.2"));
    }

    #[test]
    fn a_benchmarks_lines_are_told_by_operation() {
        let file = std::env::temp_dir().join(format!("atoll-coherence-{}", std::process::id()));
        let own = REGION;
        let text = format!("{HEAD}{{\"page\":{own},\"bytes\":4096,\"touched_by\":[1]}}\n");
        fs::write(&file, read(&text, true).unwrap().text()).unwrap();
        let mut console = Recording::default();
        let said = "region {\"region\":1,\"operation\":\"call\",\"times\":4,\"slots\":16}";
        console.guest(said, Moment::default()).unwrap();
        let told = tell(&file, "bench", &mut console);
        let _ = fs::remove_file(&file);
        told.unwrap();
        let lines: Vec<&str> = console.program().skip(1).collect();
        assert_eq!(
            lines[0],
            "result {\"benchmark\":\"bench\",\"by_reads\":2.5,\"by_writes\":2.0,\"operation\":\"transfers: call\",\"slots\":16,\"times\":4,\"unit\":\"cache lines\",\"value\":4.5}"
        );
        assert!(
            lines[1].contains("\"private lines touched by two cores\"")
                && lines[1].contains("\"value\":0")
        );
        assert_eq!(lines.len(), 3);
    }
}
