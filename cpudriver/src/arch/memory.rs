//! The private RAM of this core, reached through the direct map: page tables, slots, and
//! the objects that dispatchers and endpoints are.

use abi::layout::{DIRECT_MAP, PAGE};
use abi::machine::Core;
use capabilities::{Slot, SlotId, Slots};
use loader::paging::TableMemory;

/// The private RAM of this core. Whatever it hands out lies inside.
#[derive(Clone, Copy)]
pub struct PrivateRam {
    start: u64,
    end: u64,
    /// How far from the start the last slot may lie: slots are looked at so often that one
    /// comparison has to do.
    last_slot: u64,
}

impl PrivateRam {
    /// The private RAM of the core that runs this.
    ///
    /// # Safety
    /// The direct map must map it, and `core` be the core that runs this.
    pub unsafe fn new(core: &Core) -> Self {
        Self {
            start: core.region,
            end: core.region + core.private_bytes,
            last_slot: core.private_bytes - size_of::<Slot>() as u64,
        }
    }

    /// Whether any byte of `[physical, physical + bytes)` lies inside.
    pub fn touches(&self, physical: u64, bytes: u64) -> bool {
        physical < self.end && self.start < physical.saturating_add(bytes)
    }

    /// Whether `[physical, physical + bytes)` lies inside.
    pub fn holds(&self, physical: u64, bytes: u64) -> bool {
        physical >= self.start
            && physical
                .checked_add(bytes)
                .is_some_and(|end| end <= self.end)
    }

    /// Where `bytes` at `physical` lie in the direct map; `None` where they are not ours.
    pub fn pointer<T>(&self, physical: u64, bytes: u64) -> Option<*mut T> {
        self.holds(physical, bytes)
            .then_some((DIRECT_MAP + physical) as *mut T)
    }

    /// Zeroes whole words, if they are private RAM.
    pub fn zero(&mut self, physical: u64, bytes: u64) {
        if let Some(place) = self.pointer::<u64>(physical, bytes) {
            // SAFETY: private RAM of this core, mapped writable. Whoever calls just made an
            // object of it, which nobody refers to yet.
            unsafe { place.write_bytes(0, (bytes / 8) as usize) };
        }
    }
}

impl TableMemory for PrivateRam {
    fn read(&self, table: u64, index: usize) -> u64 {
        // A table outside of private RAM reads as empty: nothing is mapped through it.
        let Some(entries) = self.pointer::<u64>(table, PAGE) else {
            return 0;
        };
        // SAFETY: inside a page of private RAM; `index` is below 512. Volatile, because
        // the processor sets accessed and dirty bits.
        unsafe { entries.add(index & 0x1ff).read_volatile() }
    }

    fn write(&mut self, table: u64, index: usize, entry: u64) {
        if let Some(entries) = self.pointer::<u64>(table, PAGE) {
            // SAFETY: as above.
            unsafe { entries.add(index & 0x1ff).write_volatile(entry) };
        }
    }
}

impl PrivateRam {
    #[inline]
    fn slot_pointer(&self, id: SlotId) -> *mut Slot {
        let distance = id.0.wrapping_sub(self.start);
        assert!(
            distance <= self.last_slot,
            "slots lie in private RAM: so does whatever has slots"
        );
        (DIRECT_MAP + id.0) as *mut Slot
    }
}

impl Slots for PrivateRam {
    #[inline]
    fn slot(&self, id: SlotId) -> &Slot {
        // SAFETY: a slot of a container, aligned, written only through this database; it
        // was cleared when the container was made.
        unsafe { &*self.slot_pointer(id) }
    }

    #[inline]
    fn slot_mut(&mut self, id: SlotId) -> &mut Slot {
        // SAFETY: as above, and the database is borrowed for as long.
        unsafe { &mut *self.slot_pointer(id) }
    }

    fn clear(&mut self, first: SlotId, count: u64) {
        self.zero(first.0, count * size_of::<Slot>() as u64);
    }
}

/// For each page of private RAM, which life as a page table it is in: the number changes when
/// it becomes one and when it ceases to be one. So who remembers the number next to the page's
/// address knows later whether it is the same table still. And whether it is entered in
/// another table: that may be so only once.
#[derive(Clone, Copy)]
pub struct TableLives {
    region: u64,
    pages: u64,
    lives: *mut u32,
}

/// What of the word is the life: in the lowest bits the level of the table, above it a number.
/// The number comes round again, the sooner the more somebody wants it to; the level keeps that
/// from doing harm: an entry is never taken for one of a table of another level.
const LIFE: u32 = (1 << 22) - 1;
/// Bits of the level in it.
const LEVEL_BITS: u32 = 2;
/// The table is entered in another one.
const ENTERED: u32 = 1 << 31;

impl TableLives {
    /// The lives that the loader set aside at `physical`.
    ///
    /// # Safety
    /// There must be one `u32` for each page of `core`'s private RAM, in it, and nobody
    /// else's to write.
    pub unsafe fn new(core: &Core, physical: u64) -> Self {
        Self {
            region: core.region,
            pages: core.private_bytes / PAGE,
            lives: (DIRECT_MAP + physical) as *mut u32,
        }
    }

    fn life(&self, table: u64) -> Option<*mut u32> {
        let page = table.checked_sub(self.region)? / PAGE;
        (page < self.pages).then(|| self.lives.wrapping_add(page as usize))
    }

    fn word(&self, table: u64) -> u32 {
        // SAFETY: inside the array; see `new`.
        self.life(table).map_or(0, |life| unsafe { life.read() })
    }

    fn set(&mut self, table: u64, word: u32) {
        if let Some(life) = self.life(table) {
            // SAFETY: inside the array; see `new`.
            unsafe { life.write(word) };
        }
    }

    /// Which life a page is in.
    pub fn of(&self, table: u64) -> u32 {
        self.word(table) & LIFE
    }

    /// A page became a page table of this level, or ceased to be one.
    pub fn change(&mut self, table: u64, level: u32) {
        let number = (self.word(table) & LIFE) >> LEVEL_BITS;
        let level = level & ((1 << LEVEL_BITS) - 1);
        self.set(table, ((number + 1) << LEVEL_BITS | level) & LIFE);
    }

    /// Whether a table is entered in another one.
    pub fn is_entered(&self, table: u64) -> bool {
        self.word(table) & ENTERED != 0
    }

    /// Notes whether a table is entered in another one.
    pub fn set_entered(&mut self, table: u64, entered: bool) {
        let word = self.word(table) & LIFE;
        self.set(table, if entered { word | ENTERED } else { word });
    }
}
