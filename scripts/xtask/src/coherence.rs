//! Cache lines that move between cores, counted by our plugin for QEMU (`scripts/coherence`).
//!
//! The plugin writes what it counted when QEMU ends. It knows neither which core is which nor what
//! memory is for: the core records tell, so this module writes the file anew with both.
//!
//! | first key  | what the line tells                                                             |
//! |------------|---------------------------------------------------------------------------------|
//! | `region`   | with `core`: what a core did in a region of interest, and how many lines it moved |
//! | `region`   | with `by`: how many lines came to a core by reads, or writes, from which others  |
//! | `region`   | with `line`: how a line moved in it, where it lies, what it is for, and which code moved it |
//! | `private`  | a line of a core's private RAM that two cores touched after boot                |
//! | `foreign`  | a page of a core's private RAM that another core touched after boot             |
//! | `total`    | how many of either there are                                                    |
//!
//! The boot is over when the first region begins. What a line is for: see [`names`]; what its moves
//! would cost on a machine: see [`estimate`].

mod code;
mod counts;
pub mod estimate;
mod figures;
pub mod names;

use crate::accelerator::{Accelerator, Choice};
use crate::bundle::System;
use crate::failure::{BuildError, Failure, OptionError};
use crate::guest::{Core, Guest};
use crate::install::Qemu;
use crate::launch::Boot;
use crate::progress::Progress;
use crate::project::Project;
use code::Code;
pub use counts::{Breach, By, CoreCounts, Counts, Line, Way};
pub use figures::tell;
pub use names::Listener;
use names::{Name, Names};
use serde::Deserialize;
use std::fs;
use std::path::Path;
use thiserror::Error;

/// First version of QEMU whose plugins are told guest-physical addresses; before, they were told
/// places in the RAM of all nodes.
const TELLS_PHYSICAL: (u32, u32) = (8, 2);
/// Bytes of a line.
const LINE: u64 = 64;
/// Fields whose lines are told of each operation: the busiest.
const FIELDS: usize = 8;

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
    Way(Way),
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

/// What is known of the machine that the counts are of.
struct Machine<'a> {
    guest: &'a Guest,
    /// Our number of each core by QEMU's.
    numbers: Vec<usize>,
    node_bytes: u64,
    tells_physical: bool,
    code: Code,
    names: Names,
}

/// Reads what the plugin wrote, says what it means, and writes it down so. `heard`: the program's
/// lines that a [`Listener`] kept.
pub fn resolve<'a>(
    file: &Path,
    boot: &Boot,
    qemu: &Qemu,
    system: &System,
    guest: &Guest,
    heard: impl Iterator<Item = &'a str>,
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
        names: Names::of(heard)?,
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
                Raw::Way(way) => counts.ways.push(Way {
                    from: self.all(&way.from),
                    to: self.number(way.to),
                    ..way
                }),
                Raw::Line(line) => counts.lines.push(self.line(&line)),
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

    fn line(&self, line: &RawLine) -> Line {
        let owner = self.owner(line.line);
        let name = owner.as_ref().and_then(|owner| {
            let said = self.names.name(line.region, owner.physical);
            said.or_else(|| {
                let distance = owner.distance.checked_sub(owner.private_bytes)?;
                names::of_monitors(owner.core, distance, self.numbers.len())
            })
        });
        let Name {
            structure,
            field,
            slot,
        } = name.unwrap_or_default();
        Line {
            region: line.region,
            line: self.place(line.line),
            distance: owner.map(|owner| owner.distance),
            structure,
            field,
            slot,
            reads: line.reads,
            writes: line.writes,
            readers: self.all(&line.readers),
            writers: self.all(&line.writers),
            read_at: self.code.at(line.read_at),
            write_at: self.code.at(line.write_at),
        }
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
                private_bytes: record.private_bytes,
                distance,
                physical: record.region + distance,
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
                ..
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
    /// Bytes of the core's RAM that lie before what it shares.
    private_bytes: u64,
    /// From the beginning of the core's RAM.
    distance: u64,
    /// Physical address.
    physical: u64,
}

#[cfg(test)]
mod tests {
    use super::estimate::Model;
    use super::*;
    use crate::console::{Console, Moment, Recording};
    use crate::guest::tests::record;
    use crate::memory::GuestMemory;
    use abi::layout::KERNEL_HALF;
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
        read_with(text, tells_physical, &[])
    }

    fn read_with(
        text: &str,
        tells_physical: bool,
        heard: &[&str],
    ) -> Result<Counts, CoherenceError> {
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
            names: Names::of(heard.iter().copied())?,
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
        // The second line of that page: none of a channel of the monitors' on two cores.
        assert_eq!((line.structure.as_str(), line.slot), ("", None));
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

    /// A line of core 0's, which is QEMU's core 1, at a distance in what it shares.
    fn shared_line(distance: u64, reads: u64, writes: u64) -> String {
        let line = REGION + 4 * MIB + distance;
        format!(
            "{{\"region\":1,\"line\":{line},\"reads\":{reads},\"writes\":{writes},\"readers\":[0],\"writers\":[1],\"read_at\":0,\"write_at\":0}}\n"
        )
    }

    #[test]
    fn lines_get_the_names_that_were_announced_and_the_monitors() {
        let at = REGION + 4 * MIB + (1 << 20);
        let announced = format!(
            "structure {{\"at\":{at},\"bytes\":4096,\"structure\":\"channel\",\"slots\":16,\"cores\":[0,1]}}"
        );
        let mut text = HEAD.to_owned();
        for (distance, reads, writes) in [
            ((1 << 20) + 3 * 128, 7, 6),
            ((1 << 20) + 5 * 128, 2, 1),
            ((1 << 20) + 2048 + 64, 1, 1),
            (4096, 1, 0),
            (3 << 20, 9, 9),
        ] {
            text += &shared_line(distance, reads, writes);
        }
        text += "{\"region\":1,\"by\":\"write\",\"from\":[0],\"to\":1,\"times\":8}\n";
        text += &format!("{{\"page\":{REGION},\"bytes\":4096,\"touched_by\":[1]}}\n");
        let counts = read_with(&text, true, &[&announced]).unwrap();
        assert_eq!(
            counts.fields(1),
            [
                ("channel of cores 0 and 1", "messages by core 0", 9, 7),
                (
                    "channel of cores 0 and 1",
                    "acknowledged, closed by core 1",
                    1,
                    1
                ),
                ("channel of monitors 0 and 1", "messages by core 0", 1, 0),
            ]
        );
        let summary = counts.summary();
        for words in [
            "16 times channel of cores 0 and 1: messages by core 0: 9 by reads",
            "(channel of cores 0 and 1: messages by core 0, slot 3): read by [1]",
        ] {
            assert!(summary.contains(words), "{summary}");
        }
        // Ours are QEMU's the other way round.
        assert_eq!((&counts.ways[0].from[..], counts.ways[0].to), (&[1][..], 0));
        assert_eq!(Counts::of(&counts.text()).unwrap().text(), counts.text());
    }

    #[test]
    fn a_benchmarks_lines_are_told_by_operation() {
        let file = std::env::temp_dir().join(format!("atoll-coherence-{}", std::process::id()));
        let own = REGION;
        let text = format!(
            "{HEAD}{{\"region\":1,\"by\":\"read\",\"from\":[0],\"to\":1,\"times\":10}}\n\
             {{\"region\":1,\"by\":\"write\",\"from\":[0],\"to\":1,\"times\":8}}\n{}\
             {{\"page\":{own},\"bytes\":4096,\"touched_by\":[1]}}\n",
            shared_line(4096, 2, 3)
        );
        fs::write(&file, read(&text, true).unwrap().text()).unwrap();
        let mut console = Recording::default();
        let said = "region {\"region\":1,\"operation\":\"call\",\"times\":4,\"slots\":16}";
        console.guest(said, Moment::default()).unwrap();
        let text = "sockets = 1\ncores_per_socket = 1\ncores_per_cache = 1\n[cache]\nsend = 1\n\
            flight = 1\nreceive = 1\n[cost]\nhandle = 1\nring = 1\nwake = 1\npoll = 1\n";
        let small = file.with_extension("toml");
        fs::write(&small, text).unwrap();
        let models = ["two-socket", &small.to_string_lossy()].map(Model::named);
        let told = tell(&file, "bench", &models.map(Result::unwrap), &mut console);
        let _ = fs::remove_file(&file);
        let _ = fs::remove_file(&small);
        let notes = told.unwrap();
        assert!(
            notes.len() == 1 && notes[0].contains("fewer cores than this run, which has 2"),
            "{notes:?}"
        );
        let lines: Vec<&str> = console.program().skip(1).collect();
        assert_eq!(
            lines[0],
            "result {\"benchmark\":\"bench\",\"by_reads\":2.5,\"by_writes\":2.0,\"operation\":\"transfers: call\",\"slots\":16,\"times\":4,\"unit\":\"cache lines\",\"value\":4.5}"
        );
        assert_eq!(
            lines[1],
            "result {\"benchmark\":\"bench\",\"by_reads\":0.5,\"by_writes\":0.75,\"field\":\"messages by core 0\",\"operation\":\"of these: call\",\"slots\":16,\"structure\":\"channel of monitors 0 and 1\",\"times\":4,\"unit\":\"cache lines\",\"value\":1.25}"
        );
        // Reads of 51 ns and writes of 17 ns: 10 and 8 of them by 4 calls.
        assert_eq!(
            lines[2],
            "result {\"benchmark\":\"bench\",\"machine\":\"two-socket\",\"operation\":\"lines alone: call\",\"slots\":16,\"source\":\"Baumann et al., The Multikernel, SOSP 2009, table of URPC performance\",\"times\":4,\"unit\":\"nanoseconds (estimate)\",\"value\":161.5}"
        );
        assert!(
            lines[3].contains("\"private lines touched by two cores\"")
                && lines[3].contains("\"value\":0")
        );
        assert_eq!(lines.len(), 5);
    }
}
