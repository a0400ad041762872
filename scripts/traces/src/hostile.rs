//! Whatever is in a file of a recording: each part of this crate says what is wrong with it, or makes
//! something of it, and never more than in proportion to the file.

use crate::causes::Causes;
use crate::model::Model;
use crate::recording::Recording;
use crate::replay::Load;
use crate::scale::{self, Point};
use crate::{diff, page, perfetto, sample, summary};

/// Changed files.
const FILES: usize = 3_000;
/// What may be made of a file that is hardly larger than the sound one, in bytes.
const MOST: usize = 4 << 20;

/// xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// Numbers at which something ends, and others.
    fn number(&mut self) -> u64 {
        let shift = self.next() % 64;
        match self.next() % 6 {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << shift,
            3 => (1 << shift) - 1,
            4 => self.next() >> shift,
            _ => self.next() % 16,
        }
    }
}

/// Changes some bytes, a stretch of them, or the length.
fn bytes_changed(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len());
        match random.below(5) {
            0 => bytes.truncate(at),
            1 => bytes.extend_from_within(at..),
            2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            3 => {
                let end = (at + random.below(64)).min(bytes.len());
                bytes[at..end].fill(random.next() as u8);
            }
            _ => {
                let word = random.number().to_le_bytes();
                for (byte, new) in bytes[at..].iter_mut().zip(word) {
                    *byte = new;
                }
            }
        }
    }
}

/// Changes what the header says, in ways that JSON allows, and words of records.
fn content_changed(one: &mut Recording, random: &mut Random) {
    let header = &mut one.header;
    match random.below(8) {
        0 => header.hz = random.number(),
        1 => header.ticks_per_instruction = random.number(),
        2 => header.is_exact = !header.is_exact,
        3 => (header.start, header.stop) = (random.number() as u32, random.number() as u32),
        4 => header.program = "\u{0}</script>\u{1b}[2J".repeat(random.below(9)),
        5 => {
            let at = random.below(header.cores.len());
            let core = &mut header.cores[at];
            (core.core, core.socket) = (random.number() as u32, random.number() as u32);
        }
        6 => {
            let at = random.below(header.cores.len());
            let core = &mut header.cores[at];
            (core.written, core.overwritten) = (random.number(), random.number());
            (core.torn, core.sent, core.received) =
                (random.number(), random.number(), random.number());
            core.switches = random.number();
        }
        _ => header.accelerator = "sim".to_owned(),
    }
    for _ in 0..random.below(60) {
        let core = random.below(one.records.len());
        let records = &mut one.records[core];
        let (at, other) = (random.below(records.len()), random.below(records.len()));
        let Some(mut record) = records.get(at).copied() else {
            continue;
        };
        match random.below(8) {
            0 => record.tsc = random.number(),
            1 => record.tsc = record.tsc.wrapping_add(random.number()),
            2 => record.flow = random.number(),
            3 => record.flow = records[other].flow,
            4 => record.value = random.number(),
            5 => record.tail = record.tail & 0xffff | random.number() << 32,
            6 => record.tail = record.tail & !0xffff | records[other].tail & 0xffff,
            _ => record = records[other],
        }
        records[at] = record;
    }
}

/// Makes all that there is to make of a recording, and returns how much that is.
fn made_of(one: &Recording, sound: &Recording) -> usize {
    let model = Model::of(one);
    let causes = Causes::of(&model);
    let paths = (0..model.operations.len()).filter_map(|one| causes.path(one));
    let hops: usize = paths.map(|path| path.len()).sum();
    let cores = one.header.cores.len() as u32;
    let text = scale::report(&[
        Point::of(cores, one, &model),
        Point::of(2, sound, &Model::of(sound)),
    ]);
    let load = Load::of(one, &model);
    let measured: usize = load.measured().values().map(Vec::len).sum();
    hops * 64
        + measured
        + text.len()
        + summary::table(one, &model).len()
        + perfetto::write(one, &model).len()
        + page::write(one, &model).len()
        + diff::table(&[one.clone(), sound.clone()]).len()
}

#[test]
fn any_file_gives_an_error_or_a_trace() {
    let sound = sample::recording(2, 60, 5);
    let bytes = sound.to_bytes();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut refused, mut read) = (0, 0);
    for file in 0..FILES {
        let mut changed = if file % 3 == 0 {
            bytes.clone()
        } else {
            let mut one = sound.clone();
            content_changed(&mut one, &mut random);
            one.to_bytes()
        };
        if file % 3 != 1 {
            bytes_changed(&mut changed, &mut random);
        }
        match Recording::from_bytes(&changed) {
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
            Ok(one) => {
                let made = made_of(&one, &sound);
                assert!(made < MOST, "file {file}: {made} bytes");
                read += 1;
            }
        }
    }
    // Of both, many: or this tests nothing.
    assert!(
        refused > FILES / 10 && read > FILES / 3,
        "{refused}, {read}"
    );
}

#[test]
fn what_is_no_recording_is_refused() {
    let bytes = sample::recording(2, 20, 5).to_bytes();
    let header = u64::from_le_bytes(bytes[8..16].try_into().unwrap());
    for (at, word) in [
        (0, *b"ATOLLTRD"),
        (8, (header - 1).to_le_bytes()),
        (8, (header + 1).to_le_bytes()),
        (8, u64::MAX.to_le_bytes()),
        (8, (1u64 << 63).to_le_bytes()),
    ] {
        let mut bad = bytes.clone();
        bad[at..at + 8].copy_from_slice(&word);
        assert!(Recording::from_bytes(&bad).is_err(), "{at}: {word:?}");
    }
    // More records than there can be memory for.
    let mut many = Recording::from_bytes(&bytes).unwrap();
    for records in [u64::MAX, u64::MAX / 32, 1 << 40] {
        many.header.cores[1].records = records;
        assert!(Recording::from_bytes(&many.to_bytes()).is_err());
    }
}
