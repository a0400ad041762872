//! Core records and logs, found in the guest's RAM whether the cores live or not.

use crate::memory::{GuestMemory, Place};
use abi::layout::LARGE_PAGE;
use abi::limits::{DISPATCHER_NAME_BYTES, LOG_BYTES, MAX_CORES};
use abi::record::{CoreRecord, MAGIC, VERSION, state};
use std::collections::BTreeMap;
use zerocopy::FromBytes;

/// What is known of a core.
#[derive(Clone, Debug)]
pub struct Core {
    /// Where its record lies.
    pub place: Place,
    /// The record as it was read last.
    pub record: CoreRecord,
}

impl Core {
    /// Whether the core's CPU driver met a fault of its own.
    pub fn panicked(&self) -> bool {
        self.record.state == state::PANICKED
    }

    /// Whether the core is at work, or was until it was stopped in good order.
    pub fn well(&self) -> bool {
        matches!(self.record.state, state::RUNNING | state::STOPPED) && self.record.epoch > 0
    }

    /// Its state in words.
    pub fn state(&self) -> &'static str {
        match self.record.state {
            state::LOADED => "laid out, never ran",
            state::STARTED => "started, its monitor not running",
            state::RUNNING if self.record.epoch == 0 => "running, but not a member",
            state::RUNNING => "running",
            state::PANICKED => "panicked",
            state::STOPPED => "stopped",
            _ => "in a state without a name",
        }
    }

    /// The dispatcher that ran last; empty where there was none, or where its name is said to
    /// lie outside of memory.
    pub fn current(&self, memory: &GuestMemory) -> String {
        let mut name = [0; DISPATCHER_NAME_BYTES];
        let address = self.record.current_name;
        if address == 0 || self.read(memory, address, &mut name).is_none() {
            return String::new();
        }
        let end = name.iter().position(|byte| *byte == 0);
        String::from_utf8_lossy(&name[..end.unwrap_or(name.len())]).into_owned()
    }

    /// Fills `buffer` from this core's RAM at a physical address; `None` where that lies
    /// outside.
    pub fn read(&self, memory: &GuestMemory, physical: u64, buffer: &mut [u8]) -> Option<()> {
        // Addresses and files differ by the holes; within a core's RAM there are none.
        let distance = physical.checked_sub(self.record.region)?;
        let place = Place {
            node: self.place.node,
            offset: self.place.offset.checked_add(distance)?,
        };
        memory.read(place, buffer).ok()
    }
}

/// All cores of a guest that left a record.
#[derive(Debug, Default)]
pub struct Guest {
    cores: BTreeMap<u32, Core>,
}

impl Guest {
    /// Reads all records again, and looks for new ones while there are fewer than
    /// `expected`.
    pub fn look(&mut self, memory: &GuestMemory, expected: usize) {
        for core in self.cores.values_mut() {
            if let Some(record) = read_record(memory, core.place) {
                core.record = record;
            }
        }
        if self.cores.len() < expected {
            for place in memory.written_places(LARGE_PAGE) {
                if let Some(record) = read_record(memory, place) {
                    self.cores
                        .entry(record.core)
                        .or_insert(Core { place, record });
                }
            }
        }
    }

    /// The cores, by number.
    pub fn cores(&self) -> &BTreeMap<u32, Core> {
        &self.cores
    }

    /// Core `number`, if it left a record.
    pub fn core(&self, number: u32) -> Option<&Core> {
        self.cores.get(&number)
    }

    /// Exit status of the program on the command line.
    pub fn exit_status(&self) -> Option<i32> {
        let record = &self.core(0)?.record;
        (record.has_exit_status == 1).then_some(record.exit_status)
    }

    /// Those of `cores` cores that panicked, never came up, left no record, or run without
    /// being members: the others gave them up.
    pub fn lost(&self, cores: usize) -> Vec<u32> {
        (0..cores as u32)
            .filter(|number| !self.core(*number).is_some_and(Core::well))
            .collect()
    }
}

/// The lines in a core's log, oldest first. The first one may have lost its beginning.
pub fn log_lines(memory: &GuestMemory, core: &Core) -> Vec<String> {
    let mut ring = vec![0; LOG_BYTES];
    if core.read(memory, core.record.log, &mut ring).is_none() {
        return Vec::new();
    }
    let (old, new) = core.record.log_pieces(&ring);
    let text = [old, new].concat();
    String::from_utf8_lossy(&text)
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

/// The record at `place`, if there is one that makes sense.
fn read_record(memory: &GuestMemory, place: Place) -> Option<CoreRecord> {
    let mut bytes = [0; size_of::<CoreRecord>()];
    memory.read(place, &mut bytes[..8]).ok()?;
    if bytes[..8] != MAGIC.to_le_bytes() {
        return None;
    }
    memory.read(place, &mut bytes).ok()?;
    let record = CoreRecord::read_from_bytes(&bytes).ok()?;
    let sensible = record.version == VERSION
        && (record.core as usize) < MAX_CORES
        && record.region.is_multiple_of(LARGE_PAGE);
    sensible.then_some(record)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::fs::OpenOptions;
    use std::os::unix::fs::FileExt;
    use zerocopy::{FromZeros, IntoBytes};

    /// A record of a core whose RAM starts at guest-physical `region`.
    pub fn record(core: u32, state: u32, region: u64, log: &str) -> (CoreRecord, Vec<u8>) {
        let mut record = CoreRecord::new_zeroed();
        record.epoch = 1;
        record.magic = MAGIC;
        record.version = VERSION;
        record.core = core;
        record.state = state;
        record.region = region;
        record.current_name = region + 4096;
        record.log = region + 8192;
        record.log_written = log.len() as u64;
        let mut bytes = record.as_bytes().to_vec();
        bytes.resize(4096, 0);
        bytes.extend_from_slice(b"hello");
        bytes.resize(8192, 0);
        bytes.extend_from_slice(log.as_bytes());
        bytes.resize(8192 + LOG_BYTES, 0);
        (record, bytes)
    }

    fn put(memory: &GuestMemory, node: usize, offset: u64, bytes: &[u8]) {
        let (_, path) = memory.files().nth(node).unwrap();
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(bytes, offset).unwrap();
    }

    #[test]
    fn finds_records_in_every_node_and_their_logs_by_distance() {
        let memory = GuestMemory::create(4 << 30, 2).unwrap();
        let mut guest = Guest::default();
        guest.look(&memory, 2);
        assert!(guest.cores().is_empty());
        assert_eq!(guest.lost(2), [0, 1]);

        put(
            &memory,
            0,
            8 << 20,
            &record(0, state::RUNNING, 8 << 20, "one\ntwo\n").1,
        );
        // Beyond the hole the guest's addresses and the file's differ.
        put(
            &memory,
            1,
            64 << 20,
            &record(1, state::STARTED, (4 << 30) + (64 << 20), "three\n").1,
        );
        guest.look(&memory, 2);
        assert_eq!(guest.lost(2), [1]);
        assert_eq!(log_lines(&memory, guest.core(0).unwrap()), ["one", "two"]);
        assert_eq!(log_lines(&memory, guest.core(1).unwrap()), ["three"]);
        assert_eq!(guest.core(1).unwrap().current(&memory), "hello");

        put(
            &memory,
            1,
            64 << 20,
            &record(1, state::PANICKED, (4 << 30) + (64 << 20), "").1,
        );
        guest.look(&memory, 2);
        assert!(guest.core(1).unwrap().panicked());
        assert_eq!(guest.exit_status(), None);
    }

    #[test]
    fn a_core_that_the_others_gave_up_is_lost_though_it_runs() {
        let memory = GuestMemory::create(64 << 20, 1).unwrap();
        let mut guest = Guest::default();
        for core in 0..2 {
            let region = u64::from(core + 1) << 23;
            let (mut record, _) = record(core, state::RUNNING, region, "");
            record.epoch = 1 - core;
            put(&memory, 0, region, record.as_bytes());
        }
        guest.look(&memory, 2);
        assert_eq!(guest.lost(2), [1]);
        assert_eq!(guest.core(1).unwrap().state(), "running, but not a member");
    }

    #[test]
    fn takes_nothing_for_a_record_that_is_none() {
        let memory = GuestMemory::create(64 << 20, 1).unwrap();
        let (mut wrong, _) = record(0, state::RUNNING, 0, "");
        wrong.version = VERSION + 1;
        put(&memory, 0, 0, wrong.as_bytes());
        let (mut wrong, _) = record(7, state::RUNNING, 0, "");
        wrong.core = 256;
        put(&memory, 0, 2 << 20, wrong.as_bytes());
        // Not at a multiple of 2 MiB:
        put(
            &memory,
            0,
            (4 << 20) + 4096,
            &record(1, state::RUNNING, 0, "").1,
        );
        let mut guest = Guest::default();
        guest.look(&memory, 8);
        assert!(guest.cores().is_empty());
    }

    #[test]
    fn names_may_be_full_missing_or_garbage() {
        let memory = GuestMemory::create(64 << 20, 1).unwrap();
        let place = Place {
            node: 0,
            offset: 2 << 20,
        };
        let (record, _) = record(0, state::RUNNING, 1 << 30, "");
        let mut core = Core { place, record };
        for (name, expected) in [
            (&[0; 16], ""),
            (b"0123456789abcdef", "0123456789abcdef"),
            (b"a\xff\0\xfe456789abcdef", "a\u{fffd}"),
        ] {
            put(&memory, 0, place.offset + 4096, name);
            assert_eq!(core.current(&memory), expected);
        }
        core.record.current_name = 0;
        assert_eq!(core.current(&memory), "");
    }

    #[test]
    fn addresses_outside_of_memory_give_nothing() {
        let memory = GuestMemory::create(64 << 20, 1).unwrap();
        for region in [2 << 20, 1 << 63] {
            let (mut wrong, _) = record(0, state::RUNNING, region, "");
            wrong.log_written = 5;
            let beyond_end = region + (2 << 20) - 8;
            for address in [0, 1, beyond_end, u64::MAX - LOG_BYTES as u64, u64::MAX] {
                wrong.log = address;
                wrong.current_name = address;
                let core = Core {
                    place: Place {
                        node: 0,
                        offset: 62 << 20,
                    },
                    record: wrong,
                };
                assert_eq!(
                    log_lines(&memory, &core),
                    [""; 0],
                    "{region:#x} {address:#x}"
                );
                assert_eq!(core.current(&memory), "", "{region:#x} {address:#x}");
            }
        }
    }
}
