//! Address spaces: mapping frames, in this domain's own and in others.
//!
//! The functions are one system call each, with a root page table as the address space. In the
//! own one, [`Mapping`] finds the place and adds the page tables.

use crate::capability::{self, Address, Kind, OWN_SPACE, Result, slots};
use crate::memory::{self, Ranges};
use crate::system_call::{Error, call};
use abi::layout::{PAGE, USER_MAPPINGS, USER_MAPPINGS_END};
use abi::syscall::{self, MAP_PAGES};
use alloc::vec::Vec;
use core::sync::atomic::AtomicU64;
use spin::{LazyLock, Mutex};

pub use abi::syscall::rights;

/// Sizes of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum PageSize {
    /// 4 KiB.
    Small = 1,
    /// 2 MiB.
    Large = 2,
    /// 1 GiB.
    Huge = 3,
}

impl PageSize {
    /// Bytes of such a page.
    pub const fn bytes(self) -> u64 {
        PAGE << (9 * (self as u64 - 1))
    }

    /// Bytes that a page table of such pages maps, and so the most that one call does.
    pub const fn table_bytes(self) -> u64 {
        self.bytes() * MAP_PAGES
    }
}

/// Why nothing was mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// A page table of this level, 1 to 3, is missing on the way.
    NeedTable(u64),
    /// Anything else.
    Refused(Error),
}

impl MapError {
    fn of((error, result): (Error, u64)) -> Self {
        match error {
            Error::NeedTable => Self::NeedTable(result),
            error => Self::Refused(error),
        }
    }
}

impl From<MapError> for Error {
    fn from(error: MapError) -> Self {
        match error {
            MapError::NeedTable(_) => Self::NeedTable,
            MapError::Refused(error) => error,
        }
    }
}

/// What part of a frame to map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it starts in the frame.
    pub offset: u64,
    /// Pages of it, at most [`MAP_PAGES`].
    pub pages: u64,
    /// How large the pages are.
    pub size: PageSize,
}

/// Maps 4 KiB pages of a frame into an address space; see [`map_part`].
///
/// # Safety
/// As of [`map_part`].
pub unsafe fn map(
    root: Address,
    address: u64,
    frame: Address,
    offset: u64,
    pages: u64,
    rights: u64,
) -> core::result::Result<(), MapError> {
    let part = Part {
        offset,
        pages,
        size: PageSize::Small,
    };
    // SAFETY: the caller's promise.
    unsafe { map_part(root, address, frame, &part, rights) }
}

/// Maps a part of a frame into an address space, with [`rights`]. All of it must lie in one
/// page table, and the capability must not be mapped already.
///
/// # Safety
/// If the address space is the caller's own: nothing refers to these addresses, whatever was
/// mapped there before; and to the frame's memory nothing refers by another address, unless
/// all accesses are atomic.
pub unsafe fn map_part(
    root: Address,
    address: u64,
    frame: Address,
    part: &Part,
    rights: u64,
) -> core::result::Result<(), MapError> {
    let Part {
        offset,
        pages,
        size,
    } = *part;
    if pages > MAP_PAGES {
        return Err(MapError::Refused(Error::OutOfRange));
    }
    let pages = pages | (size as u64) << 32;
    // SAFETY: the caller's promise.
    unsafe {
        call(
            syscall::MAP,
            [root.0, address, frame.0, offset, pages, rights],
        )
    }
    .map(|_| ())
    .map_err(MapError::of)
}

/// Enters a page table into an address space, for whatever it covers around `address`.
///
/// # Safety
/// If the address space is the caller's own: what the table maps already, now or later by way
/// of another address space, is as if mapped by [`map_part`].
pub unsafe fn map_table(
    root: Address,
    address: u64,
    table: Address,
) -> core::result::Result<(), MapError> {
    // SAFETY: the caller's promise.
    unsafe { call(syscall::MAP_TABLE, [root.0, address, table.0, 0, 0, 0]) }
        .map(|_| ())
        .map_err(MapError::of)
}

fn ask(number: u64, arguments: [u64; 6]) -> Result<[u64; 5]> {
    // SAFETY: the callers below take memory away or look; see `capability`.
    unsafe { call(number, arguments) }.map_err(|(error, _)| error)
}

/// Unmaps what is mapped by this capability to a frame or a page table; returns how many
/// entries were cleared.
pub fn unmap(capability: Address) -> Result<u64> {
    unmap_at(capability, 0)
}

/// The same, faster, if it is mapped at this address of the own address space; if it is
/// not, it is unmapped all the same.
pub fn unmap_at(capability: Address, address: u64) -> Result<u64> {
    ask(syscall::UNMAP, [capability.0, address, 0, 0, 0, 0]).map(|results| results[0])
}

/// Changes the [`rights`] of what is mapped by a frame; `address` is where in the own
/// address space, or 0.
pub fn protect(frame: Address, address: u64, rights: u64) -> Result {
    ask(syscall::PROTECT, [frame.0, address, rights, 0, 0, 0]).map(|_| ())
}

/// What is behind an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Physical address of the page.
    pub physical: u64,
    /// Bytes of the page.
    pub bytes: u64,
    /// Its [`rights`].
    pub rights: u64,
}

/// Says what an address space has behind an address.
pub fn translate(root: Address, address: u64) -> Result<Translation> {
    let [physical, bytes, rights, ..] = ask(syscall::TRANSLATE, [root.0, address, 0, 0, 0, 0])?;
    Ok(Translation {
        physical,
        bytes,
        rights,
    })
}

/// Addresses for mappings that are in no use, by the size of their pages: where small pages have
/// been, a page table stays, and no large page fits any more.
static PLACES: LazyLock<Mutex<[Ranges; 3]>> = LazyLock::new(|| {
    let bytes = USER_MAPPINGS_END - USER_MAPPINGS;
    let ends = [0, bytes / 4, bytes / 2, bytes].map(|offset| USER_MAPPINGS + offset);
    Mutex::new(core::array::from_fn(|size| {
        let mut places = Ranges::none();
        places.give(ends[size]..ends[size + 1]);
        places
    }))
});

/// A frame that is mapped in this domain, at addresses of its own; unmapped when dropped.
///
/// What is inside may change at any time, by other mappings of the frame: it is looked at
/// as atomic words, or by who knows better as bytes. Whoever unmaps it behind its back
/// ([`capability::delete`], [`memory::free`], …) makes every later access fault.
#[derive(Debug)]
pub struct Mapping {
    address: u64,
    bytes: u64,
    size: PageSize,
    frame: Address,
    /// Further capabilities to the frame, for what is beyond the first page table.
    copies: Vec<Address>,
    owns_frame: bool,
}

impl Mapping {
    /// A new frame of this domain's memory, zeroed, to read and write. It goes with the mapping.
    pub fn zeroed(bytes: u64, size: PageSize) -> memory::Result<Self> {
        let bytes = bytes
            .checked_next_multiple_of(size.bytes())
            .ok_or(Error::WrongSize)?;
        let frame = memory::frame_aligned(bytes, size.bytes())?;
        // SAFETY: new memory, and only the words of this mapping refer to it.
        match unsafe { Self::of(frame, size, rights::WRITE) } {
            Ok(mut mapping) => {
                mapping.owns_frame = true;
                Ok(mapping)
            }
            Err(error) => {
                memory::free(frame)?;
                Err(error)
            }
        }
    }

    /// All of a frame, with [`rights`]. Base and bytes must be multiples of the page size.
    /// The capability stays where it is as long, and is not mapped elsewhere.
    ///
    /// # Safety
    /// To the memory of the frame nothing in this program refers, unless all accesses are
    /// atomic: it is not the image, the stack or the heap.
    pub unsafe fn of(frame: Address, size: PageSize, rights: u64) -> memory::Result<Self> {
        let bytes = capability::identify(frame)?.bytes;
        if bytes == 0 || !bytes.is_multiple_of(size.bytes()) {
            return Err(Error::WrongSize.into());
        }
        let table_bytes = size.table_bytes();
        // What fits one page table must not lie across two.
        let alignment = bytes.checked_next_power_of_two().unwrap_or(table_bytes);
        let alignment = alignment.min(table_bytes);
        let address = PLACES.lock()[size as usize - 1].take(bytes, alignment);
        let address = address.ok_or(Error::OutOfRange)?;
        let part = |done: u64| Part {
            offset: done,
            pages: (bytes - done).min(table_bytes) / size.bytes(),
            size,
        };
        // SAFETY: the address is in no use, and the frame's memory is the caller's promise.
        if let Err(error) = unsafe { map_here(address, frame, &part(0), rights) } {
            PLACES.lock()[size as usize - 1].give(address..address + bytes);
            return Err(error);
        }
        let mut mapping = Self {
            address,
            bytes,
            size,
            frame,
            copies: Vec::new(),
            owns_frame: false,
        };
        for done in (table_bytes..bytes).step_by(table_bytes as usize) {
            let copy = slots::take()?;
            let copied = capability::copy(frame, copy);
            // SAFETY: as above.
            let mapped = copied
                .map_err(memory::Error::from)
                .and_then(|()| unsafe { map_here(address + done, copy, &part(done), rights) });
            if let Err(error) = mapped {
                if copied.is_ok() {
                    capability::delete(copy)?;
                }
                slots::give(copy);
                return Err(error);
            }
            mapping.copies.push(copy);
        }
        Ok(mapping)
    }

    /// Where it begins.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Bytes of it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The capability to the frame.
    pub fn frame(&self) -> Address {
        self.frame
    }

    /// Its words. Without the right to write, a store to them faults.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: mapped as long as this is borrowed, at addresses that nothing else has;
        // whole pages of words, of which every bit pattern is one; others access the
        // memory atomically, by the contract of `of`.
        unsafe {
            core::slice::from_raw_parts(
                self.address as *const AtomicU64,
                (self.bytes / size_of::<AtomicU64>() as u64) as usize,
            )
        }
    }

    /// Its bytes.
    ///
    /// # Safety
    /// Nobody writes to the memory of the frame, in whichever domain, as long as they are
    /// borrowed.
    pub unsafe fn as_bytes(&self) -> &[u8] {
        // SAFETY: mapped as long as this is borrowed; that nobody writes is the caller's promise.
        unsafe { core::slice::from_raw_parts(self.address as *const u8, self.bytes as usize) }
    }

    /// Its bytes, to write.
    ///
    /// # Safety
    /// Nobody else reads or writes the memory of the frame, in whichever domain, as long as
    /// they are borrowed; and the mapping has the right to write.
    pub unsafe fn as_bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: mapped as long as this is borrowed, and the caller's promise.
        unsafe { core::slice::from_raw_parts_mut(self.address as *mut u8, self.bytes as usize) }
    }

    /// Changes its [`rights`].
    pub fn protect(&mut self, rights: u64) -> Result {
        for (capability, address) in self.pieces() {
            protect(capability, address, rights)?;
        }
        Ok(())
    }

    /// The capabilities that it is mapped by, and where each begins.
    fn pieces(&self) -> impl Iterator<Item = (Address, u64)> {
        let all = core::iter::once(self.frame).chain(self.copies.iter().copied());
        let addresses = (self.address..).step_by(self.size.table_bytes() as usize);
        all.zip(addresses)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let mut is_clear = true;
        for (capability, address) in self.pieces() {
            is_clear &= unmap_at(capability, address).is_ok();
        }
        // If somebody moved or deleted a capability, what is at the addresses is not known, and
        // they are not used again.
        if is_clear {
            let range = self.address..self.address + self.bytes;
            PLACES.lock()[self.size as usize - 1].give(range);
        }
        for copy in &self.copies {
            if capability::delete(*copy).is_ok() {
                slots::give(*copy);
            }
        }
        if self.owns_frame {
            // A frame that is gone already needs no freeing.
            let _ = memory::free(self.frame);
        }
    }
}

/// Maps a part of a frame into the own address space, with the page tables it takes. Those
/// stay: what comes there next needs them again.
///
/// # Safety
/// As of [`map_part`] for the own address space.
unsafe fn map_here(address: u64, frame: Address, part: &Part, rights: u64) -> memory::Result {
    loop {
        // SAFETY: the caller's promise.
        let level = match unsafe { map_part(OWN_SPACE, address, frame, part, rights) } {
            Ok(()) => return Ok(()),
            Err(MapError::NeedTable(level)) => level,
            Err(MapError::Refused(error)) => return Err(error.into()),
        };
        let kind = match level {
            1 => Kind::PageTable1,
            2 => Kind::PageTable2,
            _ => Kind::PageTable3,
        };
        let table = memory::object(kind, PAGE)?;
        // SAFETY: the table is new and empty.
        if let Err(error) = unsafe { map_table(OWN_SPACE, address, table) } {
            memory::free(table)?;
            return Err(Error::from(error).into());
        }
    }
}
