//! Who holds which line, and what an access moves.

use std::collections::BTreeMap;

/// Bytes of a line.
pub const LINE: u64 = 64;
/// Lines that are kept together.
const LINES: usize = 64;
/// Bytes of those.
pub const PAGE: u64 = LINE * LINES as u64;
/// Most cores.
pub const MAX_CORES: usize = 256;

/// A set of cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CoreSet([u64; MAX_CORES / 64]);

impl CoreSet {
    /// Adds a core.
    pub fn insert(&mut self, core: usize) {
        self.0[core / 64] |= 1 << (core % 64);
    }

    /// Takes a core out.
    pub fn remove(&mut self, core: usize) {
        self.0[core / 64] &= !(1 << (core % 64));
    }

    /// Adds all of another set.
    pub fn extend(&mut self, other: &Self) {
        for (word, more) in self.0.iter_mut().zip(other.0) {
            *word |= more;
        }
    }

    /// Whether a core is in it.
    pub fn contains(&self, core: usize) -> bool {
        self.0[core / 64] & (1 << (core % 64)) != 0
    }

    /// How many there are.
    pub fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// The cores, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        (0..MAX_CORES).filter(|core| self.contains(*core))
    }
}

/// What made a line move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transfer {
    /// A read of a line that another core wrote last.
    Read,
    /// A write to a line that others hold.
    Write,
}

/// A line that moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Move {
    /// What made it move.
    pub transfer: Transfer,
    /// Who it came to.
    pub to: usize,
    /// Who it came from: the last writer for a read, all others that held it for a write.
    pub from: CoreSet,
}

/// What is known of a line.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    /// Who has a copy: the last writer, and the readers since.
    holders: CoreSet,
    /// Who wrote it last.
    writer: Option<u8>,
    /// Who touched it since [`Lines::watch`].
    touched: CoreSet,
}

/// All lines that were ever touched.
#[derive(Debug, Default)]
pub struct Lines {
    pages: BTreeMap<u64, Box<[Line; LINES]>>,
    is_watching: bool,
}

impl Lines {
    /// From now on it is kept who touches a line.
    pub fn watch(&mut self) {
        self.is_watching = true;
    }

    /// An access of a core to the line that holds the byte at `address`. What moved, if anything
    /// did.
    pub fn access(&mut self, core: usize, address: u64, is_store: bool) -> Option<Move> {
        let page = self
            .pages
            .entry(address / PAGE)
            .or_insert_with(|| Box::new([Line::default(); LINES]));
        let line = &mut page[(address % PAGE / LINE) as usize];
        if self.is_watching {
            line.touched.insert(core);
        }
        let moved = |transfer, from| Move {
            transfer,
            to: core,
            from,
        };
        if !is_store {
            let held = line.holders.contains(core);
            line.holders.insert(core);
            let writer = line.writer.filter(|_| !held)?;
            let mut from = CoreSet::default();
            from.insert(usize::from(writer));
            return Some(moved(Transfer::Read, from));
        }
        line.writer = u8::try_from(core).ok();
        let mut others = line.holders;
        others.remove(core);
        line.holders = CoreSet::default();
        line.holders.insert(core);
        (others.len() > 0).then_some(moved(Transfer::Write, others))
    }

    /// Each line that two cores or more touched since [`Self::watch`], by its address, ascending.
    pub fn shared(&self) -> impl Iterator<Item = (u64, &CoreSet)> {
        self.pages.iter().flat_map(|(page, lines)| {
            let lines = lines.iter().enumerate();
            let shared = lines.filter(|(_, line)| line.touched.len() > 1);
            shared.map(move |(at, line)| (page * PAGE + at as u64 * LINE, &line.touched))
        })
    }

    /// Each page that was touched since [`Self::watch`], by its address, ascending, and by whom.
    pub fn touched(&self) -> impl Iterator<Item = (u64, CoreSet)> {
        self.pages.iter().filter_map(|(page, lines)| {
            let mut touched = CoreSet::default();
            for line in lines.iter() {
                touched.extend(&line.touched);
            }
            (touched.len() > 0).then_some((page * PAGE, touched))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: bool = false;
    const STORE: bool = true;

    impl Lines {
        /// What made the line move, if it did.
        fn moved(&mut self, core: usize, address: u64, is_store: bool) -> Option<Transfer> {
            self.access(core, address, is_store)
                .map(|moved| moved.transfer)
        }
    }

    #[test]
    fn a_line_stays_with_who_alone_uses_it() {
        let mut lines = Lines::default();
        for access in [LOAD, STORE, LOAD, STORE, STORE] {
            assert_eq!(lines.moved(3, 0x1000, access), None);
        }
    }

    #[test]
    fn what_nobody_wrote_is_read_by_all_for_nothing() {
        let mut lines = Lines::default();
        assert_eq!(lines.moved(0, 0, LOAD), None);
        assert_eq!(lines.moved(255, 63, LOAD), None);
        // The writer sends two copies away, by one request.
        assert_eq!(lines.moved(1, 8, STORE), Some(Transfer::Write));
        assert_eq!(lines.moved(0, 0, LOAD), Some(Transfer::Read));
        assert_eq!(lines.moved(0, 8, LOAD), None);
        assert_eq!(lines.moved(255, 0, LOAD), Some(Transfer::Read));
    }

    #[test]
    fn a_writer_takes_the_line_from_readers_and_from_a_writer() {
        let mut lines = Lines::default();
        assert_eq!(lines.moved(0, 0, STORE), None);
        assert_eq!(lines.moved(1, 0, STORE), Some(Transfer::Write));
        assert_eq!(lines.moved(0, 0, LOAD), Some(Transfer::Read));
        // Both hold it now, and each write of either has to be told.
        assert_eq!(lines.moved(0, 0, STORE), Some(Transfer::Write));
        assert_eq!(lines.moved(0, 0, STORE), None);
        // Its neighbour is another line.
        assert_eq!(lines.moved(1, 64, STORE), None);
    }

    #[test]
    fn a_ping_pong_moves_four_lines_a_round_trip() {
        let mut lines = Lines::default();
        let mut round = || {
            let steps = [(0, 0, STORE), (1, 0, LOAD), (1, 64, STORE), (0, 64, LOAD)];
            let moved = steps.map(|(core, at, access)| lines.moved(core, at, access));
            moved.into_iter().flatten().count()
        };
        assert_eq!(round(), 2);
        assert_eq!((round(), round()), (4, 4));
    }

    #[test]
    fn a_line_comes_from_its_last_writer_or_from_all_who_hold_it() {
        let mut lines = Lines::default();
        let mut came = |core, access| {
            let moved = lines.access(core, 0, access)?;
            let from: Vec<usize> = moved.from.iter().collect();
            Some((moved.transfer, moved.to, from))
        };
        assert_eq!(came(255, STORE), None);
        assert_eq!(came(3, LOAD), Some((Transfer::Read, 3, vec![255])));
        assert_eq!(came(4, LOAD), Some((Transfer::Read, 4, vec![255])));
        assert_eq!(came(3, STORE), Some((Transfer::Write, 3, vec![4, 255])));
        assert_eq!(came(4, LOAD), Some((Transfer::Read, 4, vec![3])));
        assert_eq!(came(5, STORE), Some((Transfer::Write, 5, vec![3, 4])));
    }

    #[test]
    fn who_touched_what_counts_from_the_watch_on() {
        let mut lines = Lines::default();
        lines.access(0, 0, STORE);
        lines.access(1, 0, LOAD);
        assert_eq!(lines.shared().count() + lines.touched().count(), 0);
        lines.watch();
        lines.access(1, 0, LOAD);
        lines.access(2, 2 * PAGE + 64, STORE);
        lines.access(3, 2 * PAGE + 64, LOAD);
        lines.access(4, 2 * PAGE, LOAD);
        let shared: Vec<_> = lines
            .shared()
            .map(|(at, who)| (at, who.iter().collect()))
            .collect();
        assert_eq!(shared, [(2 * PAGE + 64, vec![2, 3])]);
        let touched: Vec<_> = lines
            .touched()
            .map(|(at, who)| (at, who.iter().collect()))
            .collect();
        assert_eq!(touched, [(0, vec![1]), (2 * PAGE, vec![2, 3, 4])]);
    }
}
