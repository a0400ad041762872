//! Memory that is a page table again and again.
//!
//! A capability remembers in which table it is mapped, and in which life of that table's memory.
//! Whoever makes page tables there chooses what lives they are; a capability that was mapped in an
//! earlier one must have no power over what is there now.

use crate::Test;
use abi::layout::PAGE;
use alloc::format;
use rt::capability::{self, Address, Kind, OWN_SPACE, Retype, Rights, slots};
use rt::memory::{self, Result};
use rt::monitor;
use rt::space::{self, rights};
use rt::system_call::Error;

/// Where the tables are entered: one of level 3 translates all of it.
const AREA: u64 = 0x1300_0000_0000;
/// How often the memory is used again at most, without coming round.
const FEW: u64 = 4;
/// How often it takes for the number of a life to come round: it has 20 bits, and changes when a
/// table is made and when it goes.
const ROUND: u64 = 1 << 19;

const KINDS: [Kind; 3] = [Kind::PageTable1, Kind::PageTable2, Kind::PageTable3];

fn enter(address: u64, table: Address) -> Result {
    // SAFETY: only this module maps anything in the area, and nothing refers to it.
    unsafe { space::map_table(OWN_SPACE, address, table) }.map_err(Error::from)?;
    Ok(())
}

fn map(address: u64, frame: Address, offset: u64, pages: u64, rights: u64) -> Result {
    // SAFETY: as above, and the frames here are for nothing else.
    let mapped = unsafe { space::map(OWN_SPACE, address, frame, offset, pages, rights) };
    mapped.map_err(Error::from)?;
    Ok(())
}

/// Memory for page tables in the area, of which the first page is used again and again.
struct Bench {
    ram: Address,
    /// What is made of the first page.
    table: Address,
    /// Tables of level 3 and 2 above a table of level 1.
    above: [Address; 2],
    /// A table of level 1 below a table of level 2.
    below: Address,
    frame: Address,
    copy: Address,
}

impl Bench {
    fn new(pages: u64) -> Result<Self> {
        let ram = slots::take()?;
        monitor::ram(pages * PAGE, ram)?;
        let bench = Self {
            ram,
            table: slots::take()?,
            above: [
                memory::object(Kind::PageTable3, PAGE)?,
                memory::object(Kind::PageTable2, PAGE)?,
            ],
            below: memory::object(Kind::PageTable1, PAGE)?,
            frame: memory::frame(PAGE)?,
            copy: slots::take()?,
        };
        capability::copy(bench.frame, bench.copy)?;
        enter(AREA, bench.above[0])?;
        Ok(bench)
    }

    fn make(&self, level: usize) -> Result {
        let what = Retype {
            kind: KINDS[level - 1],
            offset: 0,
            bytes: PAGE,
            count: 1,
        };
        capability::retype(self.ram, &what, self.table)?;
        Ok(())
    }

    /// Makes a table of this level and enters it, with a table of level 1 below one of level 2.
    fn set_up(&self, level: usize, below: Address) -> Result {
        self.make(level)?;
        if level == 1 {
            enter(AREA, self.above[1])?;
            enter(AREA, self.table)
        } else {
            enter(AREA, self.table)?;
            enter(AREA, below)
        }
    }

    /// The table goes.
    fn take_down(&self, level: usize) -> Result {
        capability::delete(self.table)?;
        if level == 1 {
            space::unmap(self.above[1])?;
        }
        Ok(())
    }

    /// So many lives: the last of them is over too.
    fn pass(&self, lives: u64, levels: &[usize]) -> Result {
        for life in 0..lives {
            self.make(levels[(life % levels.len() as u64) as usize])?;
            capability::delete(self.table)?;
        }
        Ok(())
    }

    fn free(self) -> Result {
        memory::free(self.frame)?;
        for table in self.above {
            memory::free(table)?;
        }
        memory::free(self.below)?;
        monitor::free_ram(capability::identify(self.ram)?.base)?;
        for slot in [self.ram, self.table, self.copy] {
            slots::give(slot);
        }
        Ok(())
    }
}

/// What is mapped at the start of the area, and with which rights.
fn seen() -> capability::Result<(u64, u64)> {
    space::translate(OWN_SPACE, AREA).map(|page| (page.physical, page.rights))
}

/// A frame was mapped in a table of level 1. So many makings later, its memory is a table of
/// `level`.
fn stale_frame(test: &mut Test, bench: &Bench, level: usize, makings: u64) -> Result {
    bench.set_up(1, bench.below)?;
    map(AREA, bench.frame, 0, 1, rights::READ)?;
    bench.take_down(1)?;
    bench.pass(makings - 1, &[level])?;
    bench.set_up(level, bench.below)?;
    map(AREA, bench.copy, 0, 1, rights::READ)?;
    let there = Ok((capability::identify(bench.frame)?.base, rights::READ));
    let what = format!("a frame in a table of level 1, {makings} tables (level {level}) ago");
    test.expect(&what, &seen(), &there);
    let entries = capability::identify(bench.frame).map(|found| found.entries);
    test.expect(&format!("{what}: entries"), &entries, &Ok(0));
    let protected = space::protect(bench.frame, 0, rights::WRITE);
    let not_mapped = Error::NotMapped;
    test.expect(&format!("{what}: protect"), &protected, &Err(not_mapped));
    test.expect(&format!("{what}: protected"), &seen(), &there);
    let unmapped = space::unmap(bench.frame);
    test.expect(&format!("{what}: unmap"), &unmapped, &Err(not_mapped));
    test.expect(&format!("{what}: unmapped"), &seen(), &there);
    test.expect("the other mapping", &space::unmap(bench.copy), &Ok(1));
    if level == 2 {
        space::unmap(bench.below)?;
    }
    bench.take_down(level)
}

/// A table was entered in one of level 2. So many makings later, the memory of that one is a table of
/// level 2 again.
fn stale_table(test: &mut Test, bench: &Bench, makings: u64) -> Result {
    let entered = memory::object(Kind::PageTable1, PAGE)?;
    bench.set_up(2, entered)?;
    bench.take_down(2)?;
    bench.pass(makings - 1, &[2, 1, 3])?;
    bench.set_up(2, bench.below)?;
    map(AREA, bench.copy, 0, 1, rights::READ)?;
    let there = Ok((capability::identify(bench.copy)?.base, rights::READ));
    let what = format!("a table in a table, {makings} tables ago");
    let entries = capability::identify(entered).map(|found| found.entries);
    test.expect(&format!("{what}: entries"), &entries, &Ok(0));
    let unmapped = space::unmap(entered);
    test.expect(&format!("{what}: unmap"), &unmapped, &Err(Error::NotMapped));
    test.expect(&format!("{what}: unmapped"), &seen(), &there);
    test.expect("the other mapping", &space::unmap(bench.copy), &Ok(1));
    space::unmap(bench.below)?;
    bench.take_down(2)?;
    memory::free(entered)
}

/// Few lives.
pub fn lives(test: &mut Test) -> Result {
    let bench = Bench::new(1)?;
    for makings in 1..=FEW {
        stale_frame(test, &bench, 1, makings)?;
        stale_frame(test, &bench, 2, makings)?;
        stale_table(test, &bench, makings)?;
    }
    bench.free()
}

/// So many that the number of a life comes round, in a table of another level: what the frame says
/// of its entries is not about these.
pub fn life(test: &mut Test) -> Result {
    let bench = Bench::new(1)?;
    stale_frame(test, &bench, 2, ROUND)?;
    bench.free()
}

/// The same in a table of the same level. There may be power over the frame's own pages, but none over
/// what lies behind them in memory and in the table.
pub fn neighbour(test: &mut Test) -> Result {
    let bench = Bench::new(4)?;
    let [frame, copy, behind, guest] = [
        slots::take()?,
        slots::take()?,
        slots::take()?,
        slots::take()?,
    ];
    for (page, pages, slot) in [(1, 2, frame), (3, 1, behind)] {
        let what = Retype {
            kind: Kind::Frame,
            offset: page * PAGE,
            bytes: pages * PAGE,
            count: 1,
        };
        capability::retype(bench.ram, &what, slot)?;
    }
    capability::copy(frame, copy)?;
    // What somebody would hand out who wants to be the only one to write.
    capability::mint(behind, guest, Rights::READ, 0)?;
    bench.set_up(1, bench.below)?;
    map(AREA, frame, 0, 2, rights::READ)?;
    bench.take_down(1)?;
    bench.pass(ROUND - 1, &[1])?;
    bench.set_up(1, bench.below)?;
    map(AREA, copy, PAGE, 1, rights::READ)?;
    map(AREA + PAGE, guest, 0, 1, rights::READ)?;
    // Whether that is refused, and what becomes of the frame's own page, is its holder's matter.
    let protected = space::protect(frame, 0, rights::WRITE);
    let found = space::translate(OWN_SPACE, AREA + PAGE).map(|page| (page.physical, page.rights));
    let expected = Ok((capability::identify(behind)?.base, rights::READ));
    let what = format!("a page of somebody else, after {protected:?}");
    test.expect(&what, &found, &expected);
    bench.take_down(1)?;
    for slot in [frame, copy, behind, guest] {
        capability::delete(slot)?;
        slots::give(slot);
    }
    bench.free()
}
