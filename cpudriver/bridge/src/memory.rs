//! The memory map: which physical pages are free and what the others are for. It hands
//! out pages; it does not touch them.

use arrayvec::ArrayVec;
use core::fmt;

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Regions that a map holds.
pub const MAX_REGIONS: usize = 256;
/// Nothing is allocated below: the CPU driver wants low pages to start cores with.
const LOWEST_ALLOCATION: u64 = 1 << 20;

/// What a region is for; the numbers are Limine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Kind {
    /// Free.
    Usable = 0,
    /// Not to be touched.
    Reserved = 1,
    /// ACPI tables.
    AcpiReclaimable = 2,
    /// ACPI memory that survives sleep.
    AcpiNvs = 3,
    /// Broken.
    Bad = 4,
    /// The bridge, its responses, page tables and the first stack.
    BootloaderReclaimable = 5,
    /// The CPU driver's image and the bundle.
    ExecutableAndModules = 6,
}

impl Kind {
    /// Whether base revision 3 puts such memory into the higher-half direct map.
    pub fn is_direct_mapped(self) -> bool {
        matches!(
            self,
            Self::Usable | Self::BootloaderReclaimable | Self::ExecutableAndModules
        )
    }
}

/// Pages of one kind: `[base, end)`, page aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First byte.
    pub base: u64,
    /// First byte behind.
    pub end: u64,
    /// What they are for.
    pub kind: Kind,
}

/// Why the map cannot do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// More than [`MAX_REGIONS`] regions.
    TooManyRegions,
    /// No free range is large enough.
    NoRoom {
        /// Bytes that were wanted.
        bytes: u64,
        /// Alignment that was wanted.
        align: u64,
    },
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyRegions => {
                write!(
                    f,
                    "the memory map has more than {MAX_REGIONS} regions; raise MAX_REGIONS"
                )
            }
            Self::NoRoom { bytes, align } => write!(
                f,
                "no {bytes:#x} bytes of free memory, aligned to {align:#x}, between 1 MiB and 4 GiB; \
                 give the machine more memory or make the bundle smaller"
            ),
        }
    }
}

/// All memory there is: sorted, page aligned, without overlap, neighbours of one kind joined.
#[derive(Clone, Debug, Default)]
pub struct Map {
    regions: ArrayVec<Region, MAX_REGIONS>,
}

impl Map {
    /// A map from what firmware reports: possibly unsorted, overlapping, unaligned, empty.
    /// Where entries contradict each other, the more cautious one holds. Page 0 is never
    /// free, because address 0 is nobody's friend.
    pub fn from_firmware<I>(entries: &I) -> Result<Self, MapError>
    where
        I: Iterator<Item = (u64, u64, Kind)> + Clone,
    {
        let mut map = Self::default();
        for kind in [
            Kind::Usable,
            Kind::AcpiReclaimable,
            Kind::AcpiNvs,
            Kind::Reserved,
            Kind::Bad,
        ] {
            for (base, bytes, _) in entries
                .clone()
                .filter(|entry| entry.2 == kind && entry.1 > 0)
            {
                let end = base.saturating_add(bytes).min(1 << 52);
                if kind == Kind::Usable {
                    map.set(base.next_multiple_of(PAGE), end & !(PAGE - 1), kind)?;
                } else {
                    map.set(base & !(PAGE - 1), end.next_multiple_of(PAGE), kind)?;
                }
            }
        }
        map.set(0, PAGE, Kind::Reserved)?;
        Ok(map)
    }

    /// The regions in ascending order.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Makes `[base, end)` of this kind, whatever it was.
    pub fn set(&mut self, base: u64, end: u64, kind: Kind) -> Result<(), MapError> {
        if base >= end {
            return Ok(());
        }
        let mut regions = ArrayVec::new();
        let mut pending = Some(Region { base, end, kind });
        for old in self.regions.iter().copied() {
            push(
                &mut regions,
                Region {
                    end: old.end.min(base),
                    ..old
                },
            )?;
            if old.end > base
                && let Some(region) = pending.take()
            {
                push(&mut regions, region)?;
            }
            push(
                &mut regions,
                Region {
                    base: old.base.max(end),
                    ..old
                },
            )?;
        }
        if let Some(region) = pending {
            push(&mut regions, region)?;
        }
        self.regions = regions;
        Ok(())
    }

    /// Whether all of `[base, end)` is free.
    pub fn is_usable(&self, base: u64, end: u64) -> bool {
        self.regions
            .iter()
            .any(|r| r.kind == Kind::Usable && r.base <= base && end <= r.end)
    }

    /// Takes the lowest free `bytes` (rounded up to pages) from 1 MiB on that end below
    /// 4 GiB, which is what the bridge can reach while it runs.
    pub fn allocate(&mut self, bytes: u64, align: u64, kind: Kind) -> Result<u64, MapError> {
        let wanted = bytes.checked_next_multiple_of(PAGE);
        let fit = wanted.and_then(|wanted| {
            self.regions
                .iter()
                .filter(|r| r.kind == Kind::Usable)
                .find_map(|r| {
                    let base = r
                        .base
                        .max(LOWEST_ALLOCATION)
                        .checked_next_multiple_of(align)?;
                    let end = base.checked_add(wanted)?;
                    (end <= r.end && end <= 1 << 32).then_some((base, end))
                })
        });
        let (base, end) = fit.ok_or(MapError::NoRoom { bytes, align })?;
        self.set(base, end, kind)?;
        Ok(base)
    }

    /// The ranges that belong into the direct map, joined where they touch.
    pub fn direct_mapped(&self) -> ArrayVec<(u64, u64), MAX_REGIONS> {
        let mut ranges = ArrayVec::<(u64, u64), MAX_REGIONS>::new();
        for region in self.regions.iter().filter(|r| r.kind.is_direct_mapped()) {
            match ranges.last_mut() {
                Some(last) if last.1 == region.base => last.1 = region.end,
                // As many ranges as regions at most, so there is always room.
                _ => ranges.push((region.base, region.end)),
            }
        }
        ranges
    }
}

fn push(regions: &mut ArrayVec<Region, MAX_REGIONS>, new: Region) -> Result<(), MapError> {
    if new.base >= new.end {
        return Ok(());
    }
    if let Some(last) = regions.last_mut()
        && last.end == new.base
        && last.kind == new.kind
    {
        last.end = new.end;
        return Ok(());
    }
    regions.try_push(new).map_err(|_| MapError::TooManyRegions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn assert_ordered(map: &Map) {
        for pair in map.regions().windows(2) {
            assert!(pair[0].end <= pair[1].base, "{pair:?} overlap");
            assert!(
                pair[0].end < pair[1].base || pair[0].kind != pair[1].kind,
                "{pair:?} not joined"
            );
        }
        for region in map.regions() {
            assert!(region.base < region.end);
            assert!(region.base.is_multiple_of(PAGE) && region.end.is_multiple_of(PAGE));
        }
    }

    #[test]
    fn firmware_contradictions_are_resolved_with_caution() {
        let entries = [
            (0x10_0000, 0x70_0000, Kind::Usable),
            (0, 0x9_fc00, Kind::Usable),
            (0x20_0800, 0x10, Kind::Reserved),
            (0x30_0000, 0, Kind::Reserved),
            (0x20_0000, 0x2000, Kind::AcpiReclaimable),
            (u64::MAX - 10, 100, Kind::Reserved),
        ];
        let map = Map::from_firmware(&entries.iter().copied()).unwrap();
        assert_ordered(&map);
        let found: Vec<_> = map
            .regions()
            .iter()
            .map(|r| (r.base, r.end, r.kind))
            .collect();
        assert_eq!(
            found[..6],
            [
                (0, 0x1000, Kind::Reserved),
                (0x1000, 0x9_f000, Kind::Usable),
                (0x10_0000, 0x20_0000, Kind::Usable),
                (0x20_0000, 0x20_1000, Kind::Reserved),
                (0x20_1000, 0x20_2000, Kind::AcpiReclaimable),
                (0x20_2000, 0x80_0000, Kind::Usable),
            ]
        );
    }

    #[test]
    fn allocations_are_free_before_and_taken_after() {
        let mut map = Map::from_firmware(&[(0, 64 << 20, Kind::Usable)].into_iter()).unwrap();
        let mut taken = Vec::<(u64, u64)>::new();
        for step in 0..40u64 {
            let (bytes, align) = (1 + step * 5000, if step % 3 == 0 { 2 << 20 } else { PAGE });
            let base = map
                .allocate(bytes, align, Kind::BootloaderReclaimable)
                .unwrap();
            let end = (base + bytes).next_multiple_of(PAGE);
            assert!(base >= LOWEST_ALLOCATION && base.is_multiple_of(align));
            assert!(
                taken.iter().all(|&(b, e)| end <= b || e <= base),
                "given twice"
            );
            assert!(!map.is_usable(base, end));
            taken.push((base, end));
            assert_ordered(&map);
        }
        assert_eq!(map.direct_mapped().as_slice(), [(PAGE, 64 << 20)]);
    }

    #[test]
    fn no_room_is_an_error() {
        let entries = [(0, 4 << 20, Kind::Usable), (4 << 30, 8 << 30, Kind::Usable)];
        let mut map = Map::from_firmware(&entries.into_iter()).unwrap();
        let refused = map.allocate(4 << 20, PAGE, Kind::BootloaderReclaimable);
        assert_eq!(
            refused,
            Err(MapError::NoRoom {
                bytes: 4 << 20,
                align: PAGE
            })
        );
        assert!(
            map.allocate(u64::MAX, PAGE, Kind::BootloaderReclaimable)
                .is_err()
        );
        assert!(
            map.allocate(3 << 20, PAGE, Kind::BootloaderReclaimable)
                .is_ok()
        );
    }

    #[test]
    fn too_many_regions_is_an_error() {
        let entries = (0..600u64).map(|i| (i * 2 * PAGE, PAGE, Kind::Reserved));
        assert_eq!(
            Map::from_firmware(&entries).err(),
            Some(MapError::TooManyRegions)
        );
    }
}
