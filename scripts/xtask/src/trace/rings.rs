//! The cores' rings, read out of the guest's RAM.
//!
//! Control pages and rings are written by domains too, and so nothing in them is believed but how
//! many records were written, and that only as far as the records themselves agree: how long a ring
//! is, the command line said, and where it lies, the CPU driver's own record says.

use crate::guest::{Core, Guest};
use crate::memory::GuestMemory;
use abi::limits::DISPATCHER_NAME_BYTES;
use abi::machine::Machine;
use recorder::{CONTROL_BYTES, Control, Record, lap};
use traces::recording;
use zerocopy::FromBytes;

/// What a core left.
#[derive(Debug, Default, PartialEq)]
pub struct Ring {
    /// What is known of the core.
    pub core: recording::Core,
    /// Its records, oldest first.
    pub records: Vec<Record>,
    /// Events that start and end the trace, as its control page says; 0: none.
    pub triggers: (u32, u32),
    /// What is wrong with its ring.
    pub faults: Vec<String>,
}

/// What the machine says of itself.
#[derive(Debug, Default, PartialEq)]
pub struct Clockwork {
    /// Ticks of the time-stamp counter a second; `None`: nobody measured them.
    pub hz: Option<u64>,
    /// Node of each core.
    sockets: Vec<u32>,
}

impl Clockwork {
    /// As core 0 wrote it down.
    pub fn read(memory: &GuestMemory, guest: &Guest) -> Self {
        let mut bytes = vec![0; size_of::<Machine>()];
        let machine = guest.core(0).and_then(|core| {
            core.read(memory, core.record.machine, &mut bytes)?;
            Machine::ref_from_bytes(&bytes).ok()
        });
        machine.map_or_else(Self::default, |machine| Self {
            hz: Some(machine.tsc_hz).filter(|hz| *hz > 0),
            sockets: machine.cores.iter().map(|core| core.node).collect(),
        })
    }
}

/// The rings of all cores, by number. A core that left none has an empty one, and says why.
pub fn read(
    memory: &GuestMemory,
    guest: &Guest,
    clockwork: &Clockwork,
    cores: usize,
    capacity: u64,
) -> Vec<Ring> {
    let lost = guest.lost(cores);
    let ring = |number: u32| {
        let mut ring = match guest.core(number) {
            Some(core) => of_core(memory, core, capacity),
            None => Err("it left no record".to_owned()),
        }
        .unwrap_or_else(|fault| Ring {
            faults: vec![fault],
            ..Ring::default()
        });
        ring.core.core = number;
        let socket = clockwork.sockets.get(number as usize);
        ring.core.socket = socket.copied().unwrap_or(0);
        ring.core.records = ring.records.len() as u64;
        ring.core.is_lost = lost.contains(&number);
        let record = guest.core(number).map(|core| &core.record);
        ring.core.switches = record.map_or(0, |record| record.counters.switches);
        ring.core.names = record.map_or_else(Vec::new, |record| names(&record.names));
        ring
    };
    (0..cores as u32).map(ring).collect()
}

/// Names by handle, as far as there are any.
fn names(names: &[[u8; DISPATCHER_NAME_BYTES]]) -> Vec<String> {
    let used = names.iter().rposition(|name| name[0] != 0);
    let names = &names[..used.map_or(0, |last| last + 1)];
    let text = |name: &[u8; DISPATCHER_NAME_BYTES]| {
        let end = name.iter().position(|byte| *byte == 0);
        String::from_utf8_lossy(&name[..end.unwrap_or(name.len())]).into_owned()
    };
    names.iter().map(text).collect()
}

fn of_core(memory: &GuestMemory, core: &Core, capacity: u64) -> Result<Ring, String> {
    let record = &core.record;
    if record.trace == 0 {
        return Err("it has no ring".to_owned());
    }
    let bytes = CONTROL_BYTES + capacity * size_of::<Record>() as u64;
    let begin = record.trace.checked_sub(record.region);
    let end = begin.and_then(|begin| begin.checked_add(bytes));
    if end.is_none_or(|end| end > record.private_bytes) {
        return Err(format!(
            "its ring is said to lie at {:#x}, outside of its private RAM",
            record.trace
        ));
    }
    let mut held = vec![0; bytes as usize];
    core.read(memory, record.trace, &mut held)
        .ok_or("its ring is said to lie outside of memory")?;
    let (page, records) = held.split_at(CONTROL_BYTES as usize);
    let (control, _) = Control::read_from_prefix(page).map_err(|error| error.to_string())?;
    let records: Vec<Record> = records
        .chunks_exact(size_of::<Record>())
        .filter_map(|one| Record::read_from_bytes(one).ok())
        .collect();
    Ok(put_in_order(&control, &records))
}

/// A ring as it was written: `records` by place, any number but 0 of them.
fn put_in_order(control: &Control, records: &[Record]) -> Ring {
    let capacity = records.len() as u64;
    let mut ring = Ring::default();
    if control.capacity != capacity || control.shift != u64::from(capacity.ilog2()) {
        ring.faults.push(format!(
            "its control page was written to: it says {} records, which were {capacity}",
            control.capacity
        ));
    }
    let kept = control.next.min(capacity);
    let oldest = control.next - kept;
    let held = (oldest..control.next).map(|index| (index, records[(index % capacity) as usize]));
    let sound = held.filter(|(index, record)| record.lap() == lap(*index, capacity));
    ring.records = sound.map(|(_, record)| record).collect();
    // In the first lap, places that are still to come were never written.
    let unknown = records[kept as usize..].iter();
    let unknown = unknown.filter(|record| record.tail != 0).count();
    if unknown > 0 {
        ring.faults.push(format!(
            "its control page was written to: it says {} records, and {unknown} lie behind them",
            control.next
        ));
    }
    ring.core.written = control.next;
    ring.core.overwritten = oldest;
    ring.core.torn = kept - ring.records.len() as u64;
    ring.core.sent = control.sent;
    ring.core.received = control.received;
    ring.triggers = (control.start, control.stop);
    ring
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::{FromZeros, IntoBytes};

    const CAPACITY: u64 = 8;

    fn control(next: u64) -> Control {
        let mut control = Control::new_zeroed();
        (control.capacity, control.shift, control.next) = (CAPACITY, 3, next);
        control
    }

    /// A ring in which so many were written, each with its index as its time.
    fn written(count: u64) -> Vec<Record> {
        let mut records = vec![Record::default(); CAPACITY as usize];
        for tsc in 0..count {
            records[(tsc % CAPACITY) as usize] = Record {
                tsc,
                tail: Record::tail(0x601, lap(tsc, CAPACITY), 0),
                ..Record::default()
            };
        }
        records
    }

    fn times(ring: &Ring) -> Vec<u64> {
        ring.records.iter().map(|record| record.tsc).collect()
    }

    #[test]
    fn records_come_in_the_order_of_their_indices() {
        for count in 0..3 * CAPACITY {
            let ring = put_in_order(&control(count), &written(count));
            let oldest = count.saturating_sub(CAPACITY);
            assert_eq!(times(&ring), (oldest..count).collect::<Vec<_>>());
            assert_eq!((ring.core.written, ring.core.overwritten), (count, oldest));
            assert_eq!((ring.core.torn, ring.faults.len()), (0, 0), "{count}");
        }
    }

    #[test]
    fn what_was_half_written_is_torn() {
        // The place was taken, but what is in it is of the lap before; another was never written.
        let ring = put_in_order(&control(12), &written(11));
        assert_eq!(times(&ring), [4, 5, 6, 7, 8, 9, 10]);
        assert_eq!((ring.core.written, ring.core.torn), (12, 1));
        let ring = put_in_order(&control(3), &written(2));
        assert_eq!((times(&ring), ring.core.torn), (vec![0, 1], 1));
    }

    #[test]
    fn whatever_a_domain_writes_nothing_is_lost_unsaid() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for round in 0..20_000 {
            let mut control = control(random() >> (random() % 64));
            let mut records = written(random() % 40);
            match round % 4 {
                0 => control.capacity = random(),
                1 => control.shift = random(),
                2 => records[(random() % CAPACITY) as usize].tail = random(),
                _ => control.next = u64::MAX - random() % 9,
            }
            let ring = put_in_order(&control, &records);
            let core = &ring.core;
            let told = core.overwritten + core.torn + ring.records.len() as u64;
            assert_eq!(told, core.written);
            assert!(ring.records.len() <= CAPACITY as usize);
        }
        let ring = put_in_order(&control(2), &written(6));
        assert_eq!(times(&ring), [0, 1]);
        assert!(ring.faults[0].contains("4 lie behind"), "{ring:?}");
        let mut spoiled = control(5);
        spoiled.capacity = 1 << 60;
        let ring = put_in_order(&spoiled, &written(5));
        assert_eq!(times(&ring).len(), 5);
        assert!(ring.faults[0].contains("which were 8"), "{ring:?}");
    }

    /// A guest with one core whose RAM begins at 8 MiB, its ring said to lie there.
    fn guest(trace: u64, private_bytes: u64) -> (GuestMemory, Guest) {
        let memory = GuestMemory::create(64 << 20, 1).unwrap();
        let region = 8 << 20;
        let (mut record, _) =
            crate::guest::tests::record(0, abi::record::state::STOPPED, region, "");
        (record.trace, record.private_bytes) = (trace, private_bytes);
        record.counters.switches = 7;
        record.machine = u64::MAX;
        record.names[0][..7].copy_from_slice(b"monitor");
        record.names[2] = [b'a'; DISPATCHER_NAME_BYTES];
        let (_, path) = memory.files().next().unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        let write = |bytes: &[u8], at: u64| {
            std::os::unix::fs::FileExt::write_all_at(&file, bytes, at).unwrap();
        };
        write(record.as_bytes(), region);
        write(control(3).as_bytes(), 10 << 20);
        write(written(3).as_bytes(), (10 << 20) + CONTROL_BYTES);
        let mut guest = Guest::default();
        guest.look(&memory, 1);
        (memory, guest)
    }

    #[test]
    fn a_ring_is_found_by_its_cores_record() {
        let (memory, guest) = guest(10 << 20, 4 << 20);
        let clockwork = Clockwork::read(&memory, &guest);
        assert_eq!(clockwork, Clockwork::default());
        let rings = read(&memory, &guest, &clockwork, 2, CAPACITY);
        assert_eq!(times(&rings[0]), [0, 1, 2]);
        assert_eq!((rings[0].core.records, rings[0].core.switches), (3, 7));
        assert!(rings[0].faults.is_empty());
        assert_eq!(rings[0].core.names, ["monitor", "", "aaaaaaaaaaaaaaaa"]);
        assert_eq!(rings[1].core.core, 1);
        assert_eq!(rings[1].faults, ["it left no record"]);
        assert!(!rings[0].core.is_lost && rings[1].core.is_lost);
    }

    #[test]
    fn a_ring_that_is_nowhere_is_said_to_be() {
        for (trace, private, expected) in [
            (0, 4 << 20, "it has no ring"),
            (4096, 4 << 20, "outside of its private RAM"),
            (u64::MAX - 8, 4 << 20, "outside of its private RAM"),
            ((12 << 20) - 4096, 4 << 20, "outside of its private RAM"),
            (1 << 62, u64::MAX, "outside of memory"),
        ] {
            let (memory, guest) = guest(trace, private);
            let rings = read(&memory, &guest, &Clockwork::default(), 1, CAPACITY);
            assert!(rings[0].faults[0].contains(expected), "{:?}", rings[0]);
            assert!(rings[0].records.is_empty());
        }
    }
}
