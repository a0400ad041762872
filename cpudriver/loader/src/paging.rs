//! Four-level page tables as data: enter, look up, remove, enumerate.
//!
//! Who owns the memory behind a table differs (the loader's slice, the CPU driver's direct
//! map, a test's vector), so every function takes a [`TableMemory`].

use abi::layout::{KERNEL_HALF, LARGE_PAGE, PAGE, USER_END, USER_MIN};
use abi::syscall::{Error, rights};

/// The entry is in use.
pub const PRESENT: u64 = 1;
/// Writes are allowed.
pub const WRITABLE: u64 = 1 << 1;
/// Ring 3 may use it.
pub const USER: u64 = 1 << 2;
/// Accesses bypass the cache (with write-through, strong uncached).
pub const UNCACHED: u64 = (1 << 3) | (1 << 4);
/// In a PD entry: a 2 MiB page rather than a table.
pub const LARGE: u64 = 1 << 7;
/// The translation survives a change of address space: kernel half only.
pub const GLOBAL: u64 = 1 << 8;
/// Instructions may not be fetched.
pub const NO_EXECUTE: u64 = 1 << 63;

/// The bits of an entry that hold a physical address.
pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

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

/// The table of `level` that translates `address`; where one is missing, the level of the
/// one that is, and where a large page is in the way, level 0.
fn table(memory: &impl TableMemory, root: u64, address: u64, level: u32) -> Result<u64, u32> {
    let mut at = root;
    let mut current = 4;
    while current > level {
        let entry = memory.read(at, index(address, current));
        current -= 1;
        if entry & PRESENT == 0 {
            return Err(current);
        }
        if entry & LARGE != 0 {
            return Err(0);
        }
        at = entry & ADDRESS;
    }
    Ok(at)
}

/// Why a mapping was refused: the error for the caller, and for [`Error::NeedTable`] the
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
        match level {
            0 => Error::AlreadyMapped.into(),
            level => Self {
                error: Error::NeedTable,
                level: level.into(),
            },
        }
    }
}

/// Checks that `[address, address + pages * PAGE)` is a proper piece of user space.
pub fn check_user_range(address: u64, pages: u64) -> Result<(), Error> {
    if !address.is_multiple_of(PAGE) {
        return Err(Error::Misaligned);
    }
    if pages == 0 || pages > abi::syscall::MAP_PAGES {
        return Err(Error::BadArgument);
    }
    if address < USER_MIN {
        return Err(Error::BadArgument);
    }
    if address >= USER_END || address + pages * PAGE > USER_END {
        return Err(Error::KernelHalf);
    }
    Ok(())
}

/// Entry bits for a user mapping with these [`rights`].
pub fn user_flags(asked: u64) -> Result<u64, Error> {
    if asked & !(rights::WRITE | rights::EXECUTE | rights::UNCACHED) != 0 {
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
    if asked & rights::UNCACHED != 0 {
        flags |= UNCACHED;
    }
    Ok(flags)
}

/// Maps `pages` 4 KiB pages from `address` to physical `physical` on. All or nothing: the
/// tables are unchanged when it is refused.
pub fn map(
    memory: &mut impl TableMemory,
    root: u64,
    address: u64,
    physical: u64,
    pages: u64,
    flags: u64,
) -> Result<(), Refusal> {
    if !physical.is_multiple_of(PAGE) || !address.is_multiple_of(PAGE) {
        return Err(Error::Misaligned.into());
    }
    if physical & !ADDRESS != 0 || physical.saturating_add(pages * PAGE) & !(ADDRESS | 0xfff) != 0 {
        return Err(Error::BadArgument.into());
    }
    for page in 0..pages {
        let at = address + page * PAGE;
        let leaf = table(memory, root, at, 1).map_err(Refusal::missing)?;
        if memory.read(leaf, index(at, 1)) & PRESENT != 0 {
            return Err(Error::AlreadyMapped.into());
        }
    }
    for page in 0..pages {
        let at = address + page * PAGE;
        let leaf = table(memory, root, at, 1).map_err(Refusal::missing)?;
        memory.write(leaf, index(at, 1), (physical + page * PAGE) | flags);
    }
    Ok(())
}

/// Maps one 2 MiB page.
pub fn map_large(
    memory: &mut impl TableMemory,
    root: u64,
    address: u64,
    physical: u64,
    flags: u64,
) -> Result<(), Refusal> {
    if !(address | physical).is_multiple_of(LARGE_PAGE) {
        return Err(Error::Misaligned.into());
    }
    let directory = table(memory, root, address, 2).map_err(Refusal::missing)?;
    if memory.read(directory, index(address, 2)) & PRESENT != 0 {
        return Err(Error::AlreadyMapped.into());
    }
    memory.write(directory, index(address, 2), physical | flags | LARGE);
    Ok(())
}

/// Checks that the table of `level` (1 to 3) that translates `address` can be entered: it is
/// not there yet, and the one above it is.
pub fn check_no_table(
    memory: &impl TableMemory,
    root: u64,
    address: u64,
    level: u32,
) -> Result<(), Refusal> {
    let above = table(memory, root, address, level + 1).map_err(Refusal::missing)?;
    if memory.read(above, index(address, level + 1)) & PRESENT != 0 {
        return Err(Error::AlreadyMapped.into());
    }
    Ok(())
}

/// Enters a zeroed page as the table of `level` (1 to 3) that translates `address`.
pub fn map_table(
    memory: &mut impl TableMemory,
    root: u64,
    address: u64,
    level: u32,
    page: u64,
    flags: u64,
) -> Result<(), Refusal> {
    check_no_table(memory, root, address, level)?;
    let above = table(memory, root, address, level + 1).map_err(Refusal::missing)?;
    memory.write(above, index(address, level + 1), page | flags);
    Ok(())
}

/// Unmaps what is mapped by 4 KiB pages in a range, and calls `gone` with each address.
pub fn unmap(
    memory: &mut impl TableMemory,
    root: u64,
    address: u64,
    pages: u64,
    mut gone: impl FnMut(u64),
) -> u64 {
    let mut count = 0;
    for page in 0..pages {
        let at = address + page * PAGE;
        let Ok(leaf) = table(memory, root, at, 1) else {
            continue;
        };
        if memory.read(leaf, index(at, 1)) & PRESENT != 0 {
            memory.write(leaf, index(at, 1), 0);
            gone(at);
            count += 1;
        }
    }
    count
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
    /// [`WRITABLE`], [`USER`], [`NO_EXECUTE`] and [`UNCACHED`] as they apply.
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
            let bytes = PAGE << (9 * (level - 1));
            return Ok(Mapping {
                address: address & !(bytes - 1),
                physical: entry & ADDRESS & !(bytes - 1),
                bytes,
                flags: allowed | denied | (entry & UNCACHED),
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
    use proptest::prelude::*;
    use std::collections::{BTreeMap, HashMap};

    #[derive(Clone, Default, PartialEq, Debug)]
    struct Tables {
        tables: HashMap<u64, std::vec::Vec<u64>>,
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
        fn map_all(
            &mut self,
            root: u64,
            at: u64,
            to: u64,
            pages: u64,
            flags: u64,
        ) -> Result<(), Error> {
            for _ in 0..8 {
                match map(self, root, at, to, pages, flags) {
                    Err(Refusal {
                        error: Error::NeedTable,
                        level,
                    }) => {
                        // The missing one may translate any page of the range.
                        let page = self.page();
                        let mut done = false;
                        for offset in [0, (pages - 1) * PAGE] {
                            done = done
                                || map_table(
                                    self,
                                    root,
                                    at + offset,
                                    level as u32,
                                    page,
                                    PRESENT | WRITABLE | USER,
                                )
                                .is_ok();
                        }
                        assert!(done);
                    }
                    other => return other.map_err(|refusal| refusal.error),
                }
            }
            panic!("more than eight tables for one page table's worth of pages");
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

    #[test]
    fn refusals_each_have_their_own_error_and_change_nothing() {
        let (mut tables, root) = Tables::new();
        tables
            .map_all(root, 0x40_0000, 0x8000, 4, PRESENT | USER)
            .expect("free");
        let before = tables.clone();
        assert_eq!(
            map(&mut tables, root, 0x40_3000, 0x1000, 2, PRESENT).map_err(|refusal| refusal.error),
            Err(Error::AlreadyMapped)
        );
        assert_eq!(
            map(&mut tables, root, 0x80_0000_0000, 0x1000, 1, PRESENT),
            Err(Refusal {
                error: Error::NeedTable,
                level: 3
            })
        );
        assert_eq!(
            map(&mut tables, root, 0x40_0000, 0x1001, 1, PRESENT).map_err(|refusal| refusal.error),
            Err(Error::Misaligned)
        );
        assert_eq!(check_user_range(USER_END - PAGE, 2), Err(Error::KernelHalf));
        assert_eq!(check_user_range(KERNEL_HALF, 1), Err(Error::KernelHalf));
        assert_eq!(check_user_range(u64::MAX - 4095, 2), Err(Error::KernelHalf));
        assert_eq!(check_user_range(0x1000, 1), Err(Error::BadArgument));
        assert_eq!(check_user_range(0x10_0001, 1), Err(Error::Misaligned));
        assert_eq!(check_user_range(0x10_0000, 0), Err(Error::BadArgument));
        assert_eq!(check_user_range(0x10_0000, 513), Err(Error::BadArgument));
        assert_eq!(
            user_flags(rights::WRITE | rights::EXECUTE),
            Err(Error::WritableAndExecutable)
        );
        assert_eq!(user_flags(1 << 9), Err(Error::BadArgument));
        assert_eq!(tables, before);
    }

    #[test]
    fn enumerates_runs_of_both_page_sizes() {
        let (mut tables, root) = Tables::new();
        let kernel = PRESENT | WRITABLE | NO_EXECUTE;
        tables
            .map_all(root, KERNEL_HALF, 0, 3, kernel)
            .expect("free");
        tables
            .map_all(
                root,
                KERNEL_HALF + 3 * PAGE,
                3 * PAGE,
                1,
                PRESENT | NO_EXECUTE,
            )
            .expect("free");
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
        tables.map_all(root, top, 0x7000, 1, PRESENT).expect("free");

        let mut seen = std::vec::Vec::new();
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

    proptest! {
        /// Against a map of pages: what was mapped is found, what was unmapped is not.
        #[test]
        fn agrees_with_a_plain_map(steps in proptest::collection::vec(
            (any::<bool>(), 0u64..3000, 1u64..40, 0u64..4096), 1..200)) {
            let (mut tables, root) = Tables::new();
            let mut model = BTreeMap::new();
            // A range that crosses borders of tables of every level.
            let base = (1u64 << 39) - 1000 * PAGE;
            for (enter, first, pages, physical) in steps {
                let at = base + first * PAGE;
                let range = first..first + pages;
                if enter {
                    let free = range.clone().all(|page| !model.contains_key(&page));
                    let answer = tables.map_all(root, at, physical * PAGE, pages, PRESENT | USER);
                    prop_assert_eq!(answer.is_ok(), free);
                    if free {
                        for page in range {
                            model.insert(page, physical + page - first);
                        }
                    }
                } else {
                    let count = unmap(&mut tables, root, at, pages, |_| ());
                    let expected = range.filter(|page| model.remove(page).is_some()).count();
                    prop_assert_eq!(count as usize, expected);
                }
            }
            for page in 0..3100 {
                let found = lookup(&tables, root, base + page * PAGE).ok().map(|mapping| mapping.physical / PAGE);
                prop_assert_eq!(found, model.get(&page).copied());
            }
        }
    }
}
