//! What is counted, by region of interest and core.
//!
//! A region is a stretch of the machine's time: it lasts while any core has begun it and not ended
//! it, and all that every core does meanwhile counts, so that the peers of who measures are in it.
//! Regions may overlap; each counts for itself.

use crate::code::{MAX_REGIONS, Mark};
use crate::lines::{CoreSet, LINE, Lines, Move, Transfer};
use std::collections::{BTreeMap, HashMap};

/// What a core did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Instructions executed.
    pub instructions: u64,
    /// Accesses to RAM that read.
    pub loads: u64,
    /// Accesses to RAM that wrote.
    pub stores: u64,
    /// Accesses to device memory.
    pub device: u64,
    /// Lines that moved by [`Transfer::Read`].
    pub reads: u64,
    /// Lines that moved by [`Transfer::Write`].
    pub writes: u64,
}

impl Counts {
    fn add(&mut self, more: &Self) {
        self.instructions += more.instructions;
        self.loads += more.loads;
        self.stores += more.stores;
        self.device += more.device;
        self.reads += more.reads;
        self.writes += more.writes;
    }
}

/// How a line moved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// Times that a core read what another had written.
    pub reads: u64,
    /// Times that a core wrote what others held.
    pub writes: u64,
    /// Who read so.
    pub readers: CoreSet,
    /// Who wrote so.
    pub writers: CoreSet,
    /// Address of the last instruction that read so; 0: none.
    pub read_at: u64,
    /// Address of the last instruction that wrote so; 0: none.
    pub write_at: u64,
}

/// A region of interest.
#[derive(Clone, Debug, Default)]
pub struct Region {
    /// Cores that are in it.
    inside: CoreSet,
    /// Times that it was begun.
    pub begun: u64,
    /// What each core did.
    pub cores: Vec<Counts>,
    /// The lines that moved, by address.
    pub lines: HashMap<u64, Moves>,
    /// Who had lines from whom, and how many.
    pub ways: BTreeMap<Move, u64>,
}

/// An access to memory.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// First byte, in RAM.
    pub address: u64,
    /// How many of them, all in one page.
    pub bytes: u64,
    /// Whether it writes.
    pub is_store: bool,
    /// Whether it is part of a locked instruction.
    pub is_locked: bool,
    /// Address of the instruction (virtual).
    pub at: u64,
}

/// All counts.
#[derive(Debug)]
pub struct Counter {
    /// Who holds which line.
    pub lines: Lines,
    regions: Vec<Region>,
    /// Numbers of the regions that last.
    active: Vec<usize>,
    /// What each core did since regions changed last.
    since: Vec<Counts>,
    /// Accesses whose place in RAM QEMU could not tell.
    pub unresolved: u64,
}

impl Counter {
    /// For a machine of so many cores.
    pub fn new(cores: usize) -> Self {
        let region = Region {
            cores: vec![Counts::default(); cores],
            ..Region::default()
        };
        Self {
            lines: Lines::default(),
            regions: vec![region; MAX_REGIONS],
            active: Vec::new(),
            since: vec![Counts::default(); cores],
            unresolved: 0,
        }
    }

    /// A core executes an instruction.
    pub fn instruction(&mut self, core: usize) {
        self.since[core].instructions += 1;
    }

    /// A core passes a mark. The first one ends the boot: from then on it is kept who touches what.
    pub fn mark(&mut self, core: usize, mark: Mark) {
        self.settle();
        match mark {
            Mark::Begin(number) => {
                self.lines.watch();
                self.regions[number].inside.insert(core);
                self.regions[number].begun += 1;
            }
            Mark::End(number) => self.regions[number].inside.remove(core),
        }
        let regions = self.regions.iter().enumerate();
        let active = regions.filter(|(_, region)| region.inside.len() > 0);
        self.active = active.map(|(number, _)| number).collect();
    }

    /// A core accesses device memory.
    pub fn device(&mut self, core: usize) {
        self.since[core].device += 1;
    }

    /// A core accesses RAM.
    pub fn access(&mut self, core: usize, access: &Access) {
        let counts = &mut self.since[core];
        if access.is_store {
            counts.stores += 1;
        } else {
            counts.loads += 1;
        }
        let first = access.address / LINE;
        let last = (access.address + access.bytes.max(1) - 1) / LINE;
        for line in first..=last {
            let address = line * LINE;
            let takes = access.is_store || access.is_locked;
            let Some(moved) = self.lines.access(core, address, takes) else {
                continue;
            };
            match moved.transfer {
                Transfer::Read => counts.reads += 1,
                Transfer::Write => counts.writes += 1,
            }
            for number in &self.active {
                let region = &mut self.regions[*number];
                let moves = region.lines.entry(address).or_default();
                moves.count(core, moved.transfer, access.at);
                *region.ways.entry(moved).or_default() += 1;
            }
        }
    }

    /// Hands what was counted to the regions that it belongs to.
    fn settle(&mut self) {
        for (core, counts) in self.since.iter_mut().enumerate() {
            for number in &self.active {
                self.regions[*number].cores[core].add(counts);
            }
            *counts = Counts::default();
        }
    }

    /// The regions that were ever begun, by number.
    pub fn regions(&mut self) -> impl Iterator<Item = (usize, &Region)> {
        self.settle();
        let regions = self.regions.iter().enumerate();
        regions.filter(|(_, region)| region.begun > 0)
    }
}

impl Moves {
    /// Times that it moved.
    pub fn all(&self) -> u64 {
        self.reads + self.writes
    }

    fn count(&mut self, core: usize, transfer: Transfer, at: u64) {
        let (times, cores, last) = match transfer {
            Transfer::Read => (&mut self.reads, &mut self.readers, &mut self.read_at),
            Transfer::Write => (&mut self.writes, &mut self.writers, &mut self.write_at),
        };
        *times += 1;
        cores.insert(core);
        *last = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(address: u64, is_store: bool) -> Access {
        Access {
            address,
            bytes: 8,
            is_store,
            is_locked: false,
            at: 0x1000 + address,
        }
    }

    fn region(counter: &mut Counter, number: usize) -> Region {
        let found = counter.regions().find(|(found, _)| *found == number);
        found.unwrap().1.clone()
    }

    #[test]
    fn what_lies_outside_of_a_region_moves_lines_but_does_not_count() {
        let mut counter = Counter::new(2);
        counter.instruction(0);
        counter.access(0, &access(0, true));
        counter.mark(0, Mark::Begin(1));
        counter.instruction(1);
        counter.access(1, &access(0, false));
        counter.device(1);
        counter.mark(0, Mark::End(1));
        counter.instruction(1);
        counter.access(1, &access(0, true));
        let region = region(&mut counter, 1);
        assert_eq!(region.cores[0], Counts::default());
        let expected = Counts {
            instructions: 1,
            loads: 1,
            device: 1,
            reads: 1,
            ..Counts::default()
        };
        assert_eq!(region.cores[1], expected);
        let moves = &region.lines[&0];
        assert_eq!((moves.reads, moves.writes), (1, 0));
        assert_eq!((moves.read_at, moves.write_at), (0x1000, 0));
        assert!(moves.readers.contains(1) && !moves.readers.contains(0));
        let ways: Vec<_> = region.ways.iter().collect();
        let [(way, 1)] = ways[..] else {
            panic!("{ways:?}");
        };
        assert_eq!((way.transfer, way.to), (Transfer::Read, 1));
        assert!(way.from.contains(0) && way.from.len() == 1);
        assert_eq!(counter.regions().count(), 1);
    }

    #[test]
    fn a_region_lasts_while_any_core_is_in_it_and_regions_overlap() {
        let mut counter = Counter::new(2);
        counter.mark(0, Mark::Begin(1));
        counter.mark(1, Mark::Begin(1));
        counter.mark(0, Mark::End(1));
        counter.instruction(0);
        counter.mark(0, Mark::Begin(2));
        counter.instruction(0);
        counter.mark(1, Mark::End(1));
        counter.instruction(0);
        // It was never begun by this core: nothing happens.
        counter.mark(1, Mark::End(2));
        counter.instruction(0);
        let counts = [1, 2].map(|number| region(&mut counter, number));
        assert_eq!(
            counts.each_ref().map(|one| one.cores[0].instructions),
            [2, 3]
        );
        assert_eq!(counts.map(|one| one.begun), [2, 1]);
    }

    #[test]
    fn an_access_over_the_border_moves_both_lines() {
        let mut counter = Counter::new(2);
        counter.mark(0, Mark::Begin(0));
        counter.access(0, &access(60, true));
        counter.access(1, &access(60, false));
        counter.access(1, &access(56, false));
        let region = region(&mut counter, 0);
        assert_eq!((region.cores[1].loads, region.cores[1].reads), (2, 2));
        assert_eq!(region.lines.len(), 2);
    }

    #[test]
    fn a_locked_instruction_takes_its_line_once() {
        let mut counter = Counter::new(2);
        counter.mark(0, Mark::Begin(0));
        counter.access(0, &access(0, true));
        for is_store in [false, true] {
            let locked = Access {
                is_locked: true,
                ..access(0, is_store)
            };
            counter.access(1, &locked);
        }
        let counts = region(&mut counter, 0).cores[1];
        assert_eq!((counts.loads, counts.stores), (1, 1));
        assert_eq!((counts.reads, counts.writes), (0, 1));
    }
}
