//! Four-level page tables as data: enter, look up, change, clear, enumerate.
//!
//! Who owns the memory behind a table differs (the loader's slice, the CPU driver's direct
//! map, a test's vector), so every function takes a [`TableMemory`]. What the CPU remembers of a
//! translation is the caller's to make it forget.
//!
//! Pages come in three levels, which are those of the tables that their entries are in: 1 (4 KiB),
//! 2 (2 MiB) and 3 (1 GiB). *Flags* are always written as in the entry of a 4 KiB page: that a
//! large page says so, and has its cache attribute in another bit, is seen to here.

use abi::layout::{KERNEL_HALF, PAGE, USER_END, USER_MIN};
use abi::syscall::{Error, rights};

/// The entry is in use.
pub const PRESENT: u64 = 1;
/// Writes are allowed.
pub const WRITABLE: u64 = 1 << 1;
/// Ring 3 may use it.
pub const USER: u64 = 1 << 2;
/// Writes go through the cache to memory.
pub const WRITE_THROUGH: u64 = 1 << 3;
/// Accesses bypass the cache (with write-through, strong uncached).
pub const UNCACHED: u64 = WRITE_THROUGH | (1 << 4);
/// The CPU has used the entry.
pub const ACCESSED: u64 = 1 << 5;
/// The CPU has written to the page.
pub const DIRTY: u64 = 1 << 6;
/// In an entry of level 2 or 3: a large page rather than a table.
pub const LARGE: u64 = 1 << 7;
/// In the entry of a 4 KiB page: entry 4 of the page attribute table applies, which the CPU driver
/// makes write-combining. The bit is [`LARGE`] one level up.
pub const WRITE_COMBINING: u64 = 1 << 7;
/// The translation survives a change of address space: kernel half only.
pub const GLOBAL: u64 = 1 << 8;
/// Instructions may not be fetched.
pub const NO_EXECUTE: u64 = 1 << 63;

/// The bits of an entry that hold a physical address.
pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Where a large page has [`WRITE_COMBINING`].
const LARGE_WRITE_COMBINING: u64 = 1 << 12;
/// Entries of a table.
const ENTRIES: u64 = 512;

/// Memory that holds page tables, named by physical address.
pub trait TableMemory {
    /// Reads entry `index` (below 512) of the table at `table`.
    fn read(&self, table: u64, index: usize) -> u64;
    /// Writes entry `index` (below 512) of the table at `table`.
    fn write(&mut self, table: u64, index: usize, entry: u64);
}

/// Index into the table of `level` (4 = PML4 … 1 = page table) for an address.
pub const fn index(address: u64, level: u32) -> usize {
    ((address >> (3 + 9 * level)) & 0x1ff) as usize
}

/// Bytes of a page of `level` (1 to 3).
pub const fn page_bytes(level: u32) -> u64 {
    PAGE << (9 * (level - 1))
}

/// Why a change was refused: the error for the caller, and for [`Error::NeedTable`] the
/// level of the missing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error.
    pub error: Error,
    /// Level of the missing table, else 0.
    pub level: u64,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { error, level: 0 }
    }
}

impl Refusal {
    fn missing(level: u32) -> Self {
        Self {
            error: Error::NeedTable,
            level: level.into(),
        }
    }
}

/// A row of entries in one page table: where something was entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entries {
    /// Physical address of the table that holds them.
    pub table: u64,
    /// Index of the first.
    pub index: usize,
    /// How many: at least 1, and the last is within the table.
    pub count: u64,
}

/// The table of `level` that translates `address`. Errors: [`Error::NeedTable`],
/// [`Error::WrongLevel`] where a large page translates it.
fn table(memory: &impl TableMemory, root: u64, address: u64, level: u32) -> Result<u64, Refusal> {
    let mut at = root;
    let mut current = 4;
    while current > level {
        let entry = memory.read(at, index(address, current));
        current -= 1;
        if entry & PRESENT == 0 {
            return Err(Refusal::missing(current));
        }
        if entry & LARGE != 0 {
            return Err(Error::WrongLevel.into());
        }
        at = entry & ADDRESS;
    }
    Ok(at)
}

/// Writes `count` entries, `entry` and then each `step` more than the one before, from
/// the one for `address` on into its table of `level`. All or nothing.
fn write_row(
    memory: &mut impl TableMemory,
    root: u64,
    address: u64,
    level: u32,
    count: u64,
    entry: u64,
    step: u64,
) -> Result<Entries, Refusal> {
    let first = index(address, level);
    if count > ENTRIES - first as u64 {
        return Err(Error::OutOfRange.into());
    }
    let table = table(memory, root, address, level)?;
    let row = || (first..).zip(0..count);
    for (index, _) in row() {
        let there = memory.read(table, index);
        if there & PRESENT != 0 {
            // In the lowest level the bit tells of the cache, and everything is a page.
            let same_level = level == 1 || (there ^ entry) & LARGE == 0;
            return Err(if same_level {
                Error::AlreadyMapped.into()
            } else {
                Error::WrongLevel.into()
            });
        }
    }
    for (index, i) in row() {
        memory.write(table, index, entry + i * step);
    }
    Ok(Entries {
        table,
        index: first,
        count,
    })
}

/// Enters pages of `level`, whoever may use them.
fn write_pages(
    memory: &mut impl TableMemory,
    root: u64,
    address: u64,
    level: u32,
    physical: u64,
    count: u64,
    flags: u64,
) -> Result<Entries, Refusal> {
    let bytes = page_bytes(level);
    if count == 0 {
        return Err(Error::WrongCount.into());
    }
    if !address.is_multiple_of(bytes) {
        return Err(Error::Misaligned.into());
    }
    check_physical(physical, bytes, count)?;
    let entry = physical | flags_of_page(flags, bytes);
    write_row(memory, root, address, level, count, entry, bytes)
}

/// Checks that `count` times `bytes` (a power of two, at least a page) can be at `physical`.
fn check_physical(physical: u64, bytes: u64, count: u64) -> Result<(), Error> {
    if !physical.is_multiple_of(bytes) {
        return Err(Error::Misaligned);
    }
    let end = ADDRESS + PAGE;
    if physical >= end || count > (end - physical) / bytes {
        return Err(Error::BadArgument);
    }
    Ok(())
}

/// Checks a level (1 to 3) and that `bytes` from `address` on are user space.
fn check_user(address: u64, level: u32, bytes: u64) -> Result<(), Error> {
    if !(1..=3).contains(&level) || address < USER_MIN {
        return Err(Error::BadArgument);
    }
    if address >= USER_END || bytes > USER_END - address {
        return Err(Error::KernelHalf);
    }
    Ok(())
}

/// What the entry of a page of so many bytes says beside its address.
const fn flags_of_page(flags: u64, bytes: u64) -> u64 {
    if bytes == PAGE {
        flags
    } else if flags & WRITE_COMBINING != 0 {
        flags | LARGE | LARGE_WRITE_COMBINING
    } else {
        flags | LARGE
    }
}

/// The cache attribute in the entry of a page of so many bytes, as flags.
const fn cache_of_page(entry: u64, bytes: u64) -> u64 {
    let combining = if bytes == PAGE {
        WRITE_COMBINING
    } else {
        LARGE_WRITE_COMBINING
    };
    if entry & combining == 0 {
        entry & UNCACHED
    } else {
        entry & UNCACHED | WRITE_COMBINING
    }
}

/// Flags of a user mapping with these [`rights`], of a device's registers or of RAM. Errors:
/// [`Error::WritableAndExecutable`], and [`Error::BadArgument`] for what is not a right, for
/// more than one cache attribute and for one that does not suit: devices are uncached unless they
/// are write-combining, and RAM is not write-combining.
pub fn user_flags(asked: u64, device: bool) -> Result<u64, Error> {
    let cache = rights::UNCACHED | rights::WRITE_THROUGH | rights::WRITE_COMBINING;
    if asked & !(rights::WRITE | rights::EXECUTE | cache) != 0 {
        return Err(Error::BadArgument);
    }
    if asked & rights::WRITE != 0 && asked & rights::EXECUTE != 0 {
        return Err(Error::WritableAndExecutable);
    }
    let mut flags = PRESENT | USER;
    if asked & rights::WRITE != 0 {
        flags |= WRITABLE;
    }
    if asked & rights::EXECUTE == 0 {
        flags |= NO_EXECUTE;
    }
    flags |= match (asked & cache, device) {
        (0, false) => 0,
        (0, true) | (rights::UNCACHED, _) => UNCACHED,
        (rights::WRITE_THROUGH, false) => WRITE_THROUGH,
        (rights::WRITE_COMBINING, true) => WRITE_COMBINING,
        _ => return Err(Error::BadArgument),
    };
    Ok(flags)
}

/// The [`rights`] that a page with these flags gives: what [`user_flags`] was asked for, and of a
/// device always the cache attribute.
pub const fn rights_of(flags: u64) -> u64 {
    let mut rights = match flags & (UNCACHED | WRITE_COMBINING) {
        0 => 0,
        WRITE_THROUGH => rights::WRITE_THROUGH,
        WRITE_COMBINING => rights::WRITE_COMBINING,
        _ => rights::UNCACHED,
    };
    if flags & WRITABLE != 0 {
        rights |= rights::WRITE;
    }
    if flags & NO_EXECUTE == 0 {
        rights |= rights::EXECUTE;
    }
    rights
}

/// Maps `count` user pages of `level` (1 to 3) at `address` to what is at `physical`. All or
/// nothing: the tables are unchanged when it is refused. Errors, where several apply the first:
///
/// - [`Error::BadArgument`]: another level, or an address below [`USER_MIN`];
/// - [`Error::KernelHalf`]: beyond [`USER_END`];
/// - [`Error::WrongCount`]: no pages;
/// - [`Error::Misaligned`]: one of the addresses, for pages of that size;
/// - [`Error::BadArgument`]: beyond what a physical address may be;
/// - [`Error::OutOfRange`]: more than the rest of the one table that they must be in;
/// - [`Error::NeedTable`]: a table on the way is missing;
/// - [`Error::WrongLevel`]: a larger page is there, or a table for smaller ones;
/// - [`Error::AlreadyMapped`]: a page of that size is there.
pub fn enter(
    memory: &mut impl TableMemory,
    root: u64,
    address: u64,
    level: u32,
    physical: u64,
    count: u64,
    flags: u64,
) -> Result<Entries, Refusal> {
    // A level out of range is refused below; no page of it has a size.
    let bytes = page_bytes(level.clamp(1, 3)).saturating_mul(count);
    check_user(address, level, bytes)?;
    write_pages(memory, root, address, level, physical, count, flags)
}

/// Enters a page table as the one of `level` (1 to 3) that translates `address`, which may be
/// any user page that it shall translate. Errors as [`enter`], by the size of a page;
/// [`Error::WrongLevel`] says that a large page is there.
pub fn enter_table(
    memory: &mut impl TableMemory,
    root: u64,
    address: u64,
    level: u32,
    table: u64,
) -> Result<Entries, Refusal> {
    check_user(address, level, PAGE)?;
    if !address.is_multiple_of(PAGE) {
        return Err(Error::Misaligned.into());
    }
    check_physical(table, PAGE, 1)?;
    let entry = table | PRESENT | WRITABLE | USER;
    write_row(memory, root, address, level + 1, 1, entry, 0)
}

/// Maps `pages` 4 KiB pages, all of them in one page table, in either half. Errors as [`enter`]
/// but for those of user space.
pub fn map(
    memory: &mut impl TableMemory,
    root: u64,
    address: u64,
    physical: u64,
    pages: u64,
    flags: u64,
) -> Result<(), Refusal> {
    write_pages(memory, root, address, 1, physical, pages, flags).map(drop)
}

/// Maps one 2 MiB page, in either half. Errors as [`map`].
pub fn map_large(
    memory: &mut impl TableMemory,
    root: u64,
    address: u64,
    physical: u64,
    flags: u64,
) -> Result<(), Refusal> {
    write_pages(memory, root, address, 2, physical, 1, flags).map(drop)
}

/// Enters a zeroed page as the table of `level` (1 to 3) that translates `address`, in either
/// half. Errors: [`Error::NeedTable`], [`Error::AlreadyMapped`], [`Error::WrongLevel`].
pub fn map_table(
    memory: &mut impl TableMemory,
    root: u64,
    address: u64,
    level: u32,
    page: u64,
    flags: u64,
) -> Result<(), Refusal> {
    write_row(memory, root, address, level + 1, 1, page | flags, 0).map(drop)
}

/// Replaces those of the entries that are present and point to `physical` and each `step`
/// further on: the bytes of a page, and for a page table its own. Returns how many.
fn replace(
    memory: &mut impl TableMemory,
    entries: &Entries,
    physical: u64,
    step: u64,
    new: impl Fn(u64) -> u64,
) -> u64 {
    let mut replaced = 0;
    for (index, i) in (entries.index..).zip(0..entries.count) {
        let entry = memory.read(entries.table, index);
        // Of a large page, bits of the address are others; of a table in its place, all count.
        let same_size = step == PAGE || entry & LARGE != 0;
        let there = entry & ADDRESS & !(step - 1);
        if entry & PRESENT != 0 && same_size && there == physical + i * step {
            memory.write(entries.table, index, new(entry));
            replaced += 1;
        }
    }
    replaced
}

/// Clears those of the entries that are present and point to `physical` and each `step` further
/// on: the bytes of a page, and for a page table [`PAGE`]. Returns how many. What else was
/// entered there since stays.
pub fn clear(memory: &mut impl TableMemory, entries: &Entries, physical: u64, step: u64) -> u64 {
    replace(memory, entries, physical, step, |_| 0)
}

/// Gives pages other flags: those that [`clear`] would clear. Whether they were accessed and
/// written to stays. Returns how many.
pub fn protect(
    memory: &mut impl TableMemory,
    entries: &Entries,
    physical: u64,
    step: u64,
    flags: u64,
) -> u64 {
    let kept = ADDRESS & !(step - 1) | ACCESSED | DIRTY;
    let flags = flags_of_page(flags, step);
    replace(memory, entries, physical, step, |entry| {
        entry & kept | flags
    })
}

/// Whether the first of the entries, in a table of `level` (1 to 4), is what translates user
/// address `address`.
pub fn holds(
    memory: &impl TableMemory,
    root: u64,
    address: u64,
    entries: &Entries,
    level: u32,
) -> bool {
    address < USER_END
        && index(address, level) == entries.index
        && table(memory, root, address, level) == Ok(entries.table)
}

/// Where a user address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Physical address of the page.
    pub physical: u64,
    /// Bytes of the page.
    pub bytes: u64,
    /// Its [`rights`].
    pub rights: u64,
}

/// The page around a user address. Errors: [`Error::KernelHalf`], [`Error::NeedTable`],
/// [`Error::NotMapped`].
pub fn translate(
    memory: &impl TableMemory,
    root: u64,
    address: u64,
) -> Result<Translation, Refusal> {
    if address >= USER_END {
        return Err(Error::KernelHalf.into());
    }
    match lookup(memory, root, address) {
        Ok(page) => Ok(Translation {
            physical: page.physical,
            bytes: page.bytes,
            rights: rights_of(page.flags),
        }),
        Err(0) => Err(Error::NotMapped.into()),
        Err(level) => Err(Refusal::missing(level)),
    }
}

/// A run of mapped addresses whose physical addresses are contiguous and rights equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Virtual address.
    pub address: u64,
    /// Physical address.
    pub physical: u64,
    /// Bytes.
    pub bytes: u64,
    /// [`WRITABLE`], [`USER`], [`NO_EXECUTE`], [`UNCACHED`] and [`WRITE_COMBINING`] as they
    /// apply.
    pub flags: u64,
}

/// The first mapping of the kernel half at or after `from`.
pub fn next_kernel_mapping(memory: &impl TableMemory, root: u64, from: u64) -> Option<Mapping> {
    let mut at = from.max(KERNEL_HALF) & !(PAGE - 1);
    let mut found: Option<Mapping> = None;
    loop {
        let (piece, bytes) = match lookup(memory, root, at) {
            Ok(mapping) => {
                // A look-up tells of the whole page around the address.
                let skipped = at - mapping.address;
                let mapping = Mapping {
                    address: at,
                    physical: mapping.physical + skipped,
                    bytes: mapping.bytes - skipped,
                    ..mapping
                };
                (Some(mapping), mapping.bytes)
            }
            Err(level) => {
                let span = PAGE << (9 * level);
                (None, span - at % span)
            }
        };
        match (&mut found, piece) {
            (None, Some(mapping)) => found = Some(mapping),
            (Some(run), Some(mapping))
                if mapping.flags == run.flags && mapping.physical == run.physical + run.bytes =>
            {
                run.bytes += mapping.bytes;
            }
            (Some(_), _) => return found,
            (None, None) => {}
        }
        match at.checked_add(bytes) {
            Some(next) => at = next,
            None => return found,
        }
    }
}

/// The page around an address, or the level of the entry that is not present (0: of the
/// page itself, 3: nothing in the whole 512 GiB).
pub fn lookup(memory: &impl TableMemory, root: u64, address: u64) -> Result<Mapping, u32> {
    let mut at = root;
    let mut level = 4;
    let mut allowed = WRITABLE | USER;
    let mut denied = 0;
    loop {
        let entry = memory.read(at, index(address, level));
        if entry & PRESENT == 0 {
            return Err(level - 1);
        }
        allowed &= entry;
        denied |= entry & NO_EXECUTE;
        if level == 1 || (entry & LARGE != 0 && level <= 3) {
            let bytes = page_bytes(level);
            return Ok(Mapping {
                address: address & !(bytes - 1),
                physical: entry & ADDRESS & !(bytes - 1),
                bytes,
                flags: allowed | denied | cache_of_page(entry, bytes),
            });
        }
        at = entry & ADDRESS;
        level -= 1;
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use abi::layout::LARGE_PAGE;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, HashMap};
    use std::vec::Vec;

    const GIB: u64 = 1 << 30;
    const PLAIN: u64 = PRESENT | USER | NO_EXECUTE;

    #[derive(Clone, PartialEq, Debug)]
    struct Tables {
        tables: HashMap<u64, Vec<u64>>,
        next: u64,
    }

    impl Tables {
        fn new() -> (Self, u64) {
            let mut tables = Self {
                tables: HashMap::new(),
                next: 0x10_0000,
            };
            let root = tables.page();
            (tables, root)
        }
        fn page(&mut self) -> u64 {
            self.next += PAGE;
            self.tables.insert(self.next, std::vec![0; 512]);
            self.next
        }
        /// Adds what is missing of the tables down to `level`.
        fn grow(&mut self, root: u64, address: u64, level: u32) {
            for level in (level..=3).rev() {
                if table(self, root, address, level).is_err() {
                    let page = self.page();
                    map_table(self, root, address, level, page, PRESENT | WRITABLE | USER)
                        .expect("missing");
                }
            }
        }
        fn map_all(&mut self, root: u64, at: u64, to: u64, pages: u64, flags: u64) {
            self.grow(root, at, 1);
            map(self, root, at, to, pages, flags).expect("free");
        }
    }

    impl TableMemory for Tables {
        fn read(&self, table: u64, index: usize) -> u64 {
            self.tables[&table][index]
        }
        fn write(&mut self, table: u64, index: usize, entry: u64) {
            self.tables.get_mut(&table).expect("a table")[index] = entry;
        }
    }

    /// Four pages of 4 KiB at 4 MiB, one of 2 MiB at 6 MiB, one of 1 GiB at 1 GiB.
    fn three_sizes() -> (Tables, u64) {
        let (mut tables, root) = Tables::new();
        tables.grow(root, 0x40_0000, 1);
        for (address, level, count) in [(0x40_0000, 1, 4), (0x60_0000, 2, 1), (GIB, 3, 1)] {
            enter(&mut tables, root, address, level, 0, count, PLAIN).expect("free");
        }
        (tables, root)
    }

    #[test]
    fn refusals_each_have_their_own_error_and_change_nothing() {
        use Error::*;
        let (mut tables, root) = three_sizes();
        let before = tables.clone();
        let free = 0x40_4000;
        let last_gib = USER_END + PAGE - GIB;
        let physical_end = ADDRESS + PAGE;
        // Address, level, physical address, count.
        for (address, level, physical, count, error) in [
            (free, 0, 0, 1, BadArgument),
            (free, 4, 0, 1, BadArgument),
            (free, u32::MAX, 0, 1, BadArgument),
            (0, 1, 0, 1, BadArgument),
            (0, 2, 0, 1, BadArgument),
            (0, 3, 0, 1, BadArgument),
            (USER_MIN - PAGE, 1, 0, 2, BadArgument),
            (USER_END, 1, 0, 1, KernelHalf),
            (USER_END, 1, 0, 0, KernelHalf),
            (KERNEL_HALF, 1, 0, 1, KernelHalf),
            (ADDRESS, 1, 0, 1, KernelHalf),
            (!0xfff, 1, 0, 1, KernelHalf),
            (USER_END - PAGE, 1, 0, 2, KernelHalf),
            (USER_END + PAGE - LARGE_PAGE, 2, 0, 1, KernelHalf),
            (last_gib, 3, 0, 1, KernelHalf),
            (free, 1, 0, u64::MAX, KernelHalf),
            (2 * GIB, 3, 0, 1 << 34, KernelHalf),
            (free, 1, 0, 0, WrongCount),
            (free + 1, 1, 0, 1, Misaligned),
            (LARGE_PAGE + PAGE, 2, 0, 1, Misaligned),
            (2 * GIB + LARGE_PAGE, 3, 0, 1, Misaligned),
            (free, 1, 0x1001, 1, Misaligned),
            (LARGE_PAGE, 2, PAGE, 1, Misaligned),
            (2 * GIB, 3, LARGE_PAGE, 1, Misaligned),
            (free, 1, physical_end, 1, BadArgument),
            (free, 1, 1 << 63, 1, BadArgument),
            (free, 1, physical_end - PAGE, 2, BadArgument),
            (2 * GIB, 3, physical_end - GIB, 2, BadArgument),
            (free, 1, 0, 509, OutOfRange),
            (free + 507 * PAGE, 1, 0, 2, OutOfRange),
            (GIB - LARGE_PAGE, 2, 0, 2, OutOfRange),
            (511 * GIB, 3, 0, 2, OutOfRange),
            (0x60_1000, 1, 0, 1, WrongLevel),
            (GIB + LARGE_PAGE, 2, 0, 1, WrongLevel),
            (GIB + PAGE, 1, 0, 1, WrongLevel),
            // Tables where large pages should be, behind a free entry in the first case.
            (LARGE_PAGE, 2, 0, 2, WrongLevel),
            (0x40_0000, 2, 0, 1, WrongLevel),
            (0x40_3000, 1, 0, 2, AlreadyMapped),
            (0x60_0000, 2, 0, 2, AlreadyMapped),
            (GIB, 3, 0, 2, AlreadyMapped),
        ] {
            assert_eq!(
                enter(&mut tables, root, address, level, physical, count, PLAIN),
                Err(error.into()),
                "{address:#x} {level} {physical:#x} {count}"
            );
        }
        for (address, level, missing) in [
            (512 * GIB, 3, 3),
            (512 * GIB, 1, 3),
            (2 * GIB, 2, 2),
            (2 * GIB, 1, 2),
            (0x80_0000, 1, 1),
        ] {
            assert_eq!(
                enter(&mut tables, root, address, level, 0, 1, PLAIN),
                Err(Refusal::missing(missing)),
                "{address:#x} {level}"
            );
        }
        assert_eq!(tables, before);
    }

    #[test]
    fn refusals_of_tables() {
        use Error::*;
        let (mut tables, root) = three_sizes();
        let before = tables.clone();
        for (address, level, table, error) in [
            (0x80_0000, 0, 0, BadArgument),
            (0x80_0000, 4, 0, BadArgument),
            (USER_MIN - PAGE, 1, 0, BadArgument),
            (USER_END, 1, 0, KernelHalf),
            (KERNEL_HALF, 3, 0, KernelHalf),
            (0x80_0001, 1, 0, Misaligned),
            (0x80_0000, 1, 1, Misaligned),
            (0x80_0000, 1, ADDRESS + PAGE, BadArgument),
            (0x40_0000, 1, 0, AlreadyMapped),
            (0x80_0000, 2, 0, AlreadyMapped),
            (0x80_0000, 3, 0, AlreadyMapped),
            (0x60_0000, 1, 0, WrongLevel),
            (GIB, 2, 0, WrongLevel),
            (GIB, 1, 0, WrongLevel),
        ] {
            assert_eq!(
                enter_table(&mut tables, root, address, level, table),
                Err(error.into()),
                "{address:#x} {level} {table:#x}"
            );
        }
        for (address, level, missing) in [(2 * GIB, 1, 2), (512 * GIB, 1, 3), (512 * GIB, 2, 3)] {
            assert_eq!(
                enter_table(&mut tables, root, address, level, 0),
                Err(Refusal::missing(missing)),
                "{address:#x} {level}"
            );
        }
        assert_eq!(tables, before);
    }

    #[test]
    fn all_of_user_space_can_be_mapped() {
        let (mut tables, root) = Tables::new();
        for address in [USER_MIN, USER_END - PAGE] {
            for level in [3, 2, 1] {
                let page = tables.page();
                let entries = enter_table(&mut tables, root, address, level, page).expect("free");
                assert_eq!(entries.count, 1);
                let entry = tables.read(entries.table, entries.index);
                assert_eq!(entry, page | PRESENT | WRITABLE | USER);
                assert!(holds(&tables, root, address, &entries, level + 1));
            }
            let entries = enter(&mut tables, root, address, 1, 0x7000, 1, PLAIN).expect("free");
            assert_eq!(entries.index, index(address, 1));
            assert_eq!(tables.read(entries.table, entries.index), 0x7000 | PLAIN);
        }
        // The last of physical memory.
        let (last, address) = (ADDRESS + PAGE - GIB, 8 * GIB);
        enter(&mut tables, root, address, 3, last, 1, PLAIN).expect("free");
        let page = translate(&tables, root, address).expect("mapped");
        assert_eq!(page.physical, last);
        // As many as a table holds.
        let base = 9 * GIB;
        tables.grow(root, base, 2);
        enter(&mut tables, root, base, 2, 0, 512, PLAIN).expect("free");
        let last = translate(&tables, root, base + GIB - 1).expect("mapped");
        assert_eq!(last.physical, 511 * LARGE_PAGE);
    }

    #[test]
    fn rights_become_flags_and_come_back() {
        for asked in 0..1 << 6 {
            for device in [false, true] {
                let both = asked & 3 == rights::WRITE | rights::EXECUTE;
                let (cache, comes_back) = match (asked >> 2, device) {
                    (0, false) => (0, asked),
                    (0, true) => (0b11 << 3, asked | rights::UNCACHED),
                    (1, _) => (0b11 << 3, asked),
                    (2, false) => (0b01 << 3, asked),
                    (4, true) => (1 << 7, asked),
                    _ => {
                        assert!(user_flags(asked, device).is_err());
                        if !both {
                            assert_eq!(user_flags(asked, device), Err(Error::BadArgument));
                        }
                        continue;
                    }
                };
                let expected = match asked & 3 {
                    0 => Ok(PRESENT | USER | NO_EXECUTE | cache),
                    1 => Ok(PRESENT | USER | NO_EXECUTE | WRITABLE | cache),
                    2 => Ok(PRESENT | USER | cache),
                    _ => Err(Error::WritableAndExecutable),
                };
                assert_eq!(user_flags(asked, device), expected, "{asked:#x} {device}");
                if let Ok(flags) = expected {
                    assert_eq!(rights_of(flags), comes_back);
                }
            }
        }
        assert_eq!(user_flags(1 << 63, true), Err(Error::BadArgument));
    }

    #[test]
    fn the_cache_attribute_is_where_the_size_of_the_page_wants_it() {
        let (mut tables, root) = Tables::new();
        let combining = user_flags(rights::WRITE_COMBINING, true).expect("proper");
        let through = user_flags(rights::WRITE_THROUGH | rights::WRITE, false).expect("proper");
        let others = PRESENT | USER | NO_EXECUTE;
        let used = ACCESSED | DIRTY;
        for (level, bits) in [(1, 1 << 7), (2, 1 << 7 | 1 << 12), (3, 1 << 7 | 1 << 12)] {
            let bytes = page_bytes(level);
            let (address, physical) = (4 * u64::from(level) * GIB, 5 * bytes);
            tables.grow(root, address, level);
            let entries =
                enter(&mut tables, root, address, level, physical, 2, combining).expect("free");
            let (table, first) = (entries.table, entries.index);
            for i in [0, 1] {
                let entry = tables.read(table, first + i as usize);
                assert_eq!(entry, (physical + i * bytes) | others | bits);
                let page = translate(&tables, root, address + (i + 1) * bytes - 1);
                assert_eq!(
                    page,
                    Ok(Translation {
                        physical: physical + i * bytes,
                        bytes,
                        rights: rights::WRITE_COMBINING
                    })
                );
            }
            // What is there is a page of that size, whatever the bit might say elsewhere.
            assert_eq!(
                enter(&mut tables, root, address, level, 0, 1, through),
                Err(Error::AlreadyMapped.into())
            );
            tables.write(table, first, tables.read(table, first) | used);
            assert_eq!(protect(&mut tables, &entries, physical, bytes, through), 2);
            let large = if level == 1 { 0 } else { LARGE };
            let flags = others | WRITABLE | 1 << 3 | large;
            assert_eq!(tables.read(table, first), physical | flags | used);
            assert_eq!(tables.read(table, first + 1), (physical + bytes) | flags);
            assert_eq!(
                protect(&mut tables, &entries, physical, bytes, combining),
                2
            );
            assert_eq!(tables.read(table, first), physical | others | bits | used);
            assert_eq!(clear(&mut tables, &entries, physical, bytes), 2);
            assert_eq!([0, 1].map(|i| tables.read(table, first + i)), [0, 0]);
        }
    }

    #[test]
    fn what_was_entered_since_is_neither_cleared_nor_protected() {
        let (mut tables, root) = Tables::new();
        let at = 0x40_0000;
        tables.grow(root, at, 1);
        let entries = enter(&mut tables, root, at, 1, 0x8000, 4, PLAIN).expect("free");
        let second = Entries {
            index: entries.index + 1,
            count: 2,
            ..entries
        };
        assert_eq!(clear(&mut tables, &second, 0x9000, PAGE), 2);
        enter(&mut tables, root, at + PAGE, 1, 0x8000, 1, PLAIN).expect("free");
        let before = tables.clone();
        let writable = PLAIN | WRITABLE;
        assert_eq!(protect(&mut tables, &second, 0x9000, PAGE, writable), 0);
        assert_eq!(clear(&mut tables, &second, 0x9000, PAGE), 0);
        assert_eq!(tables, before);
        assert_eq!(protect(&mut tables, &entries, 0x8000, PAGE, writable), 2);
        assert_eq!(clear(&mut tables, &entries, 0x8000, PAGE), 2);
        let page = translate(&tables, root, at + PAGE).expect("another's");
        assert_eq!((page.physical, page.rights), (0x8000, rights::READ));

        // A table in the place of a large page whose address begins alike.
        let large = 0x60_0000;
        let entries = enter(&mut tables, root, large, 2, 0, 1, PLAIN).expect("free");
        assert_eq!(clear(&mut tables, &entries, 0, LARGE_PAGE), 1);
        let page = tables.page();
        assert!(page < LARGE_PAGE);
        let entered = enter_table(&mut tables, root, large, 1, page).expect("free");
        assert_eq!(entered, entries);
        let before = tables.clone();
        assert_eq!(clear(&mut tables, &entries, 0, LARGE_PAGE), 0);
        assert_eq!(protect(&mut tables, &entries, 0, LARGE_PAGE, PLAIN), 0);
        assert_eq!(clear(&mut tables, &entered, page + PAGE, PAGE), 0);
        assert_eq!(tables, before);
        assert_eq!(clear(&mut tables, &entered, page, PAGE), 1);
        assert_eq!(translate(&tables, root, large), Err(Refusal::missing(1)));
    }

    #[test]
    fn translates_user_addresses_only() {
        let (mut tables, root) = three_sizes();
        let kernel = PRESENT | WRITABLE;
        tables.map_all(root, KERNEL_HALF, 0, 1, kernel);
        tables.map_all(root, USER_END, 0, 1, kernel);
        for address in [KERNEL_HALF, USER_END, 1 << 62 | 0x40_0000, u64::MAX] {
            assert_eq!(
                translate(&tables, root, address),
                Err(Error::KernelHalf.into())
            );
        }
        for (address, refusal) in [
            (0x40_4000, Error::NotMapped.into()),
            (0, Refusal::missing(1)),
            (2 * GIB, Refusal::missing(2)),
            (512 * GIB, Refusal::missing(3)),
        ] {
            assert_eq!(translate(&tables, root, address), Err(refusal));
        }
    }

    #[test]
    fn a_page_gives_no_more_than_the_tables_above_it() {
        let (mut tables, root) = three_sizes();
        let address = 0x40_0000;
        let writable = PRESENT | USER | WRITABLE;
        let page = table(&tables, root, address, 1).expect("there");
        tables.write(page, 0, writable);
        for level in [2, 3, 4] {
            let above = table(&tables, root, address, level).expect("there");
            let entry = tables.read(above, index(address, level));
            for (changed, flags) in [
                (entry & !WRITABLE, USER),
                (entry & !USER, WRITABLE),
                (entry | NO_EXECUTE, USER | WRITABLE | NO_EXECUTE),
                (entry, USER | WRITABLE),
            ] {
                tables.write(above, index(address, level), changed);
                let found = lookup(&tables, root, address).map(|page| page.flags);
                assert_eq!(found, Ok(flags));
            }
        }
    }

    #[test]
    fn an_address_is_held_by_its_own_entries_only() {
        let (tables, root) = three_sizes();
        let pages = Entries {
            table: table(&tables, root, 0x40_0000, 1).expect("there"),
            index: 0,
            count: 4,
        };
        assert!(holds(&tables, root, 0x40_0000, &pages, 1));
        assert!(holds(&tables, root, 0x40_0fff, &pages, 1));
        // Not the first, not that table, not that level, and not canonical.
        for address in [0x40_1000, 0x60_0000, 0x80_0000, GIB, 512 * GIB] {
            assert!(!holds(&tables, root, address, &pages, 1), "{address:#x}");
        }
        assert!(!holds(&tables, root, 0x40_0000, &pages, 2));
        assert!(!holds(&tables, root, 1 << 48 | 0x40_0000, &pages, 1));
        let own = Entries {
            table: root,
            index: index(KERNEL_HALF, 4),
            count: 1,
        };
        assert!(!holds(&tables, root, KERNEL_HALF, &own, 4));
    }

    #[test]
    fn enumerates_runs_of_both_page_sizes() {
        let (mut tables, root) = Tables::new();
        let kernel = PRESENT | WRITABLE | NO_EXECUTE;
        tables.map_all(root, KERNEL_HALF, 0, 3, kernel);
        tables.map_all(
            root,
            KERNEL_HALF + 3 * PAGE,
            3 * PAGE,
            1,
            PRESENT | NO_EXECUTE,
        );
        map_large(
            &mut tables,
            root,
            KERNEL_HALF + LARGE_PAGE,
            LARGE_PAGE,
            kernel,
        )
        .expect("free");
        map_large(
            &mut tables,
            root,
            KERNEL_HALF + 2 * LARGE_PAGE,
            2 * LARGE_PAGE,
            kernel,
        )
        .expect("free");
        let top = 0xffff_ffff_ffff_f000;
        tables.map_all(root, top, 0x7000, 1, PRESENT);

        let mut seen = Vec::new();
        let mut from = 0;
        while let Some(mapping) = next_kernel_mapping(&tables, root, from) {
            seen.push((
                mapping.address - KERNEL_HALF,
                mapping.physical,
                mapping.bytes,
                mapping.flags,
            ));
            match mapping.address.checked_add(mapping.bytes) {
                Some(next) => from = next,
                None => break,
            }
        }
        assert_eq!(
            seen,
            [
                (0, 0, 3 * PAGE, WRITABLE | NO_EXECUTE),
                (3 * PAGE, 3 * PAGE, PAGE, NO_EXECUTE),
                (
                    LARGE_PAGE,
                    LARGE_PAGE,
                    2 * LARGE_PAGE,
                    WRITABLE | NO_EXECUTE
                ),
                (top - KERNEL_HALF, 0x7000, PAGE, 0),
            ]
        );
    }

    /// What tables and pages there should be, by the first address that they translate.
    #[derive(Default)]
    struct Model {
        pages: BTreeMap<u64, Translation>,
        /// By level too: where the table is.
        tables: BTreeMap<(u32, u64), u64>,
    }

    /// Bytes that an entry of `level` translates.
    fn span(level: u32) -> u64 {
        PAGE << (9 * (level - 1))
    }

    impl Model {
        fn page(&self, address: u64) -> Option<Translation> {
            let (first, page) = self.pages.range(..=address).next_back()?;
            (address - first < page.bytes).then_some(*page)
        }

        fn table(&self, root: u64, address: u64, level: u32) -> Option<u64> {
            match level {
                4 => Some(root),
                _ => {
                    let first = address & !(span(level + 1) - 1);
                    self.tables.get(&(level, first)).copied()
                }
            }
        }

        fn translate(&self, address: u64) -> Result<Translation, Refusal> {
            if let Some(page) = self.page(address) {
                return Ok(page);
            }
            let missing = (1..=3)
                .rev()
                .find(|level| self.table(0, address, *level).is_none());
            Err(missing.map_or(Error::NotMapped.into(), Refusal::missing))
        }

        /// Why `count` entries of `level` cannot be entered, if they cannot.
        fn refusal(&self, address: u64, level: u32, count: u64, pages: bool) -> Option<Refusal> {
            let last = address + (count - 1) * span(level);
            if address / span(level + 1) != last / span(level + 1) {
                return Some(Error::OutOfRange.into());
            }
            for level in (level..=3).rev() {
                if self
                    .page(address)
                    .is_some_and(|page| page.bytes == span(level + 1))
                {
                    return Some(Error::WrongLevel.into());
                }
                if self.table(0, address, level).is_none() {
                    return Some(Refusal::missing(level));
                }
            }
            for at in (address..=last).step_by(span(level) as usize) {
                let page = self
                    .pages
                    .get(&at)
                    .is_some_and(|page| page.bytes == span(level));
                let table = level > 1 && self.table(0, at, level - 1).is_some();
                if page || table {
                    return Some(if page == pages {
                        Error::AlreadyMapped.into()
                    } else {
                        Error::WrongLevel.into()
                    });
                }
            }
            None
        }
    }

    /// Something that was entered once.
    #[derive(Clone, Copy, Debug)]
    struct Record {
        entries: Entries,
        address: u64,
        level: u32,
        physical: u64,
        table: bool,
    }

    impl Record {
        fn step(&self) -> u64 {
            if self.table { PAGE } else { span(self.level) }
        }

        /// Addresses of those entries that point to `physical` and what follows it.
        fn matching(&self, model: &Model, physical: u64) -> Vec<u64> {
            let mut matching = Vec::new();
            for i in 0..self.entries.count {
                let at = self.address + i * span(self.level);
                let there = if self.table {
                    model.table(0, at, self.level - 1)
                } else {
                    let page = model.pages.get(&at);
                    page.filter(|page| page.bytes == span(self.level))
                        .map(|page| page.physical)
                };
                if there == Some(physical + i * self.step()) {
                    matching.push(at);
                }
            }
            matching
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// Address, level, number of the physical page, count, rights and whether of a device,
        /// and whether tables that are missing are entered first.
        Enter(u64, u32, u64, u64, (u64, bool), bool),
        /// Address, level of the table.
        Table(u64, u32),
        /// Which record, and by how many pages its physical address is wrong.
        Clear(usize, u64),
        Protect(usize, u64, (u64, bool)),
    }

    /// First and last entries of tables of every level, on both sides of 512 GiB.
    fn addresses() -> impl Strategy<Value = u64> {
        let ends = prop_oneof![0u64..3, 509u64..512];
        (511u64..514, ends.clone(), ends)
            .prop_map(|(huge, large, small)| huge * GIB + large * LARGE_PAGE + small * PAGE)
    }

    fn access() -> impl Strategy<Value = (u64, bool)> {
        (0u64..3, 0usize..3, any::<bool>()).prop_map(|(change, cache, device)| {
            let own = if device {
                rights::WRITE_COMBINING
            } else {
                rights::WRITE_THROUGH
            };
            (change | [0, rights::UNCACHED, own][cache], device)
        })
    }

    /// What asking for these rights gives.
    fn granted(asked: u64, device: bool) -> u64 {
        let cached = asked & !(rights::WRITE | rights::EXECUTE) == 0;
        asked
            | if device && cached {
                rights::UNCACHED
            } else {
                0
            }
    }

    fn steps() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (addresses(), 1u32..4, 0u64..4, 1u64..4, access(), prop::bool::weighted(0.8))
                .prop_map(|(at, level, physical, count, access, grow)| {
                    Step::Enter(at & !(span(level) - 1), level, physical, count, access, grow)
                }),
            1 => (addresses(), 1u32..4).prop_map(|(at, level)| Step::Table(at, level)),
            3 => (any::<usize>(), prop_oneof![4 => Just(0), 1 => Just(1u64)])
                .prop_map(|(record, off)| Step::Clear(record, off)),
            2 => (any::<usize>(), prop_oneof![4 => Just(0), 1 => Just(1u64)], access())
                .prop_map(|(record, off, access)| Step::Protect(record, off, access)),
        ]
    }

    /// Tables, what they should say, and what was entered into those that are still in use.
    struct World {
        tables: Tables,
        root: u64,
        model: Model,
        records: Vec<Record>,
    }

    impl World {
        fn enter_table(&mut self, address: u64, level: u32) -> Result<(), TestCaseError> {
            let page = self.tables.page();
            let expected =
                self.model
                    .refusal(address & !(span(level + 1) - 1), level + 1, 1, false);
            let found = enter_table(&mut self.tables, self.root, address, level, page);
            prop_assert_eq!(found.err(), expected);
            if let Ok(entries) = found {
                let address = address & !(span(level + 1) - 1);
                let above = self.model.table(self.root, address, level + 1);
                prop_assert_eq!(Some(entries.table), above);
                self.model.tables.insert((level, address), page);
                self.records.push(Record {
                    entries,
                    address,
                    level: level + 1,
                    physical: page,
                    table: true,
                });
            }
            Ok(())
        }

        fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
            match step {
                Step::Table(address, level) => self.enter_table(address, level)?,
                Step::Enter(address, level, number, count, (asked, device), grow) => {
                    let flags = user_flags(asked, device).expect("proper");
                    let physical = number * span(level);
                    let found = loop {
                        let before = self.tables.clone();
                        let (root, tables) = (self.root, &mut self.tables);
                        let found = enter(tables, root, address, level, physical, count, flags);
                        prop_assert!(found.is_ok() || self.tables == before);
                        match found {
                            Err(Refusal {
                                error: Error::NeedTable,
                                level,
                            }) if grow => self.enter_table(address, level as u32)?,
                            _ => break found,
                        }
                    };
                    let expected = self.model.refusal(address, level, count, true);
                    prop_assert_eq!(found.err(), expected);
                    let Ok(entries) = found else {
                        return Ok(());
                    };
                    for i in 0..count {
                        let page = Translation {
                            physical: physical + i * span(level),
                            bytes: span(level),
                            rights: granted(asked, device),
                        };
                        self.model.pages.insert(address + i * span(level), page);
                    }
                    self.records.push(Record {
                        entries,
                        address,
                        level,
                        physical,
                        table: false,
                    });
                }
                _ if self.records.is_empty() => (),
                Step::Clear(record, off) => {
                    let record = self.records[record % self.records.len()];
                    let physical = record.physical + off * record.step();
                    let matching = record.matching(&self.model, physical);
                    let found = clear(&mut self.tables, &record.entries, physical, record.step());
                    prop_assert_eq!(found, matching.len() as u64);
                    for at in matching {
                        let gone = at..at + span(record.level);
                        self.model.pages.retain(|at, _| !gone.contains(at));
                        self.model
                            .tables
                            .retain(|(level, at), _| *level >= record.level || !gone.contains(at));
                    }
                }
                Step::Protect(record, off, (asked, device)) => {
                    let record = self.records[record % self.records.len()];
                    if record.table {
                        return Ok(());
                    }
                    let flags = user_flags(asked, device).expect("proper");
                    let physical = record.physical + off * record.step();
                    let matching = record.matching(&self.model, physical);
                    let step = record.step();
                    let found = protect(&mut self.tables, &record.entries, physical, step, flags);
                    prop_assert_eq!(found, matching.len() as u64);
                    for at in matching {
                        let page = self.model.pages.get_mut(&at).expect("it matched");
                        page.rights = granted(asked, device);
                    }
                }
            }
            Ok(())
        }

        /// Forgets what was entered into tables that are in use no more.
        fn check_records(&mut self) -> Result<(), TestCaseError> {
            for record in core::mem::take(&mut self.records) {
                let Record {
                    entries,
                    address,
                    level,
                    ..
                } = record;
                let used = self.model.table(self.root, address, level) == Some(entries.table);
                let held = |at| holds(&self.tables, self.root, at, &entries, level);
                prop_assert_eq!(held(address), used);
                prop_assert!(!held(address + span(level)));
                if used {
                    self.records.push(record);
                }
            }
            Ok(())
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        /// Pages of all sizes and tables, entered, changed and cleared at random, also by records
        /// that are out of date: the answers and what is mapped at the end are those of the model.
        #[test]
        fn agrees_with_a_plain_map(steps in prop::collection::vec(steps(), 1..80)) {
            let (tables, root) = Tables::new();
            let mut world = World { tables, root, model: Model::default(), records: Vec::new() };
            for step in steps {
                let before = world.tables.clone();
                let (pages, known) = (world.model.pages.clone(), world.model.tables.clone());
                world.step(step)?;
                world.check_records()?;
                if pages == world.model.pages && known == world.model.tables {
                    // Nothing was to change. (A table that was refused was made all the same.)
                    for (at, contents) in &before.tables {
                        prop_assert_eq!(contents, &world.tables.tables[at]);
                    }
                }
            }
            for huge in 510..516 {
                for large in (0..6).chain(507..512) {
                    for small in (0..6).chain(507..512) {
                        let at = huge * GIB + large * LARGE_PAGE + small * PAGE + 0x123;
                        prop_assert_eq!(translate(&world.tables, root, at), world.model.translate(at));
                    }
                }
            }
        }
    }
}
