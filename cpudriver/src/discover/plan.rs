//! Numbers nodes and cores and splits RAM at node borders: algorithms only, on what the
//! tables say.
//!
//! A *domain* is the firmware's number of a NUMA node, any 32 bits; a *node* is ours:
//! dense, 0 is where core 0 sits, the others by their distance from it.

use abi::layout::{LARGE_PAGE, PAGE};
use abi::limits::{MAX_CORES, MAX_NODES, MAX_RAM_RANGES};
use abi::machine::{Core, RamRange, trampoline};
use arrayvec::ArrayVec;

/// The first byte that devices may have below 1 MiB: firmware keeps data from here on.
const TRAMPOLINE_END: u64 = 0x9_f000;
/// RAM below is left alone: firmware and devices live there.
const RAM_START: u64 = 1 << 20;

/// Memory and the domain it belongs to: `[base, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryAffinity {
    /// First byte.
    pub base: u64,
    /// First byte behind.
    pub end: u64,
    /// The domain.
    pub domain: u32,
}

/// All of them that are kept.
pub type MemoryAffinities = ArrayVec<MemoryAffinity, { 2 * MAX_NODES }>;

/// Collects cores in place: the boot core, and others in the order of their APIC ids.
pub struct Cores<'a> {
    cores: &'a mut [Core; MAX_CORES],
    count: usize,
    left_out: u32,
}

impl<'a> Cores<'a> {
    /// The boot core alone: it exists, whatever the tables say.
    pub fn new(cores: &'a mut [Core; MAX_CORES], boot_core: u32) -> Self {
        cores[0] = Core {
            apic_id: boot_core,
            ..Core::default()
        };
        Self {
            cores,
            count: 1,
            left_out: 0,
        }
    }

    /// Adds a core. One that is known already (a table may list it as APIC and as x2APIC)
    /// changes nothing.
    pub fn add(&mut self, apic_id: u32) {
        let known = &self.cores[..self.count];
        let Err(at) = known.binary_search_by_key(&apic_id, |core| core.apic_id) else {
            return;
        };
        if self.count == MAX_CORES {
            self.left_out += 1;
            return;
        }
        self.cores[at..=self.count].rotate_right(1);
        self.cores[at] = Core {
            apic_id,
            ..Core::default()
        };
        self.count += 1;
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many did not fit.
    pub fn left_out(&self) -> u32 {
        self.left_out
    }
}

/// Puts a core, one of [`Cores`], into a domain (kept in `node` until they are numbered).
pub fn place_core(cores: &mut [Core], apic_id: u32, domain: u32) {
    if let Ok(index) = cores.binary_search_by_key(&apic_id, |core| core.apic_id) {
        cores[index].node = domain;
    }
}

/// More domains than [`MAX_NODES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyDomains;

/// All domains, at the index of their node.
#[derive(Clone, Debug)]
pub struct Domains(ArrayVec<u32, MAX_NODES>);

impl Domains {
    /// Numbers the domains of all cores and all memory.
    pub fn new(
        cores: &[Core],
        memory: &[MemoryAffinity],
        boot_core: u32,
        distance: impl Fn(u32, u32) -> Option<u8>,
    ) -> Result<Self, TooManyDomains> {
        let home = cores
            .iter()
            .find(|core| core.apic_id == boot_core)
            .map_or(0, |core| core.node);
        let mut domains = ArrayVec::<u32, MAX_NODES>::new();
        let of_memory = memory.iter().map(|range| range.domain);
        for domain in cores.iter().map(|core| core.node).chain(of_memory) {
            if !domains.contains(&domain) {
                domains.try_push(domain).map_err(|_| TooManyDomains)?;
            }
        }
        // Without distances all others are equally far and stay in the firmware's order.
        domains.sort_unstable_by_key(|&domain| {
            (
                domain != home,
                distance(home, domain).unwrap_or(u8::MAX),
                domain,
            )
        });
        Ok(Self(domains))
    }

    /// How many nodes there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The node of a domain; unknown ones count as node 0.
    pub fn node(&self, domain: u32) -> u32 {
        self.0
            .iter()
            .position(|&known| known == domain)
            .unwrap_or(0) as u32
    }

    /// Fills in the distances between nodes, 0 where the firmware has none.
    pub fn fill_distances(
        &self,
        distances: &mut [[u8; MAX_NODES]; MAX_NODES],
        distance: impl Fn(u32, u32) -> Option<u8>,
    ) {
        for (from, row) in self.0.iter().zip(distances) {
            for (to, cell) in self.0.iter().zip(row) {
                *cell = distance(*from, *to).unwrap_or(0);
            }
        }
    }
}

/// Brings cores into their final order: the boot core, then by node, then by APIC id. The
/// domain in `node` becomes the node.
pub fn number_cores(cores: &mut [Core], domains: &Domains, boot_core: u32) {
    for core in cores.iter_mut() {
        core.node = domains.node(core.node);
    }
    cores.sort_unstable_by_key(|core| (core.apic_id != boot_core, core.node, core.apic_id));
}

/// Five free pages in a row for the trampoline: the lowest.
pub fn trampoline(usable: impl Iterator<Item = (u64, u64)>) -> Option<u64> {
    usable
        .filter_map(|(base, end)| {
            let first = base.max(PAGE).checked_next_multiple_of(PAGE)?;
            (first + trampoline::PAGES * PAGE <= end.min(TRAMPOLINE_END)).then_some(first)
        })
        .min()
}

/// Splits free RAM, in ascending order, at the borders between nodes; gives the number of
/// ranges. Ranges without a whole large page are of no use, because RAM is handed out in
/// that unit. Where there are still too many ranges, the smallest go.
pub fn split_ram(
    ram: &mut [RamRange; MAX_RAM_RANGES],
    usable: impl Iterator<Item = (u64, u64)>,
    memory: &[MemoryAffinity],
    domains: &Domains,
) -> usize {
    let mut ranges = ArrayVec::<RamRange, MAX_RAM_RANGES>::new();
    for (base, end) in usable {
        let mut at = base.max(RAM_START);
        while at < end {
            let here = memory
                .iter()
                .find(|range| (range.base..range.end).contains(&at));
            let next = memory
                .iter()
                .flat_map(|range| [range.base, range.end])
                .filter(|&border| border > at && border < end)
                .min()
                .unwrap_or(end);
            let node = u64::from(here.map_or(0, |range| domains.node(range.domain)));
            add_range(
                &mut ranges,
                RamRange {
                    base: at,
                    bytes: next - at,
                    node,
                },
            );
            at = next;
        }
    }
    ranges.retain(|range| holds_large_page(range));
    ram[..ranges.len()].copy_from_slice(&ranges);
    ranges.len()
}

fn holds_large_page(range: &RamRange) -> bool {
    let end = range.base + range.bytes;
    range
        .base
        .checked_next_multiple_of(LARGE_PAGE)
        .is_some_and(|first| first + LARGE_PAGE <= end)
}

fn add_range(ranges: &mut ArrayVec<RamRange, MAX_RAM_RANGES>, new: RamRange) {
    // Two entries of one node may touch; the border between them is none.
    if let Some(last) = ranges.last_mut()
        && last.node == new.node
        && last.base + last.bytes == new.base
    {
        last.bytes += new.bytes;
        return;
    }
    if ranges.is_full() {
        ranges.retain(|range| holds_large_page(range));
    }
    if ranges.is_full() {
        let smallest = (0..ranges.len())
            .min_by_key(|&index| ranges[index].bytes)
            .unwrap_or(0);
        if ranges[smallest].bytes >= new.bytes {
            return;
        }
        ranges.remove(smallest);
    }
    ranges.push(new);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    fn cores(ids: &[(u32, u32)], boot: u32) -> Vec<Core> {
        let mut storage = [Core::default(); MAX_CORES];
        let mut cores = Cores::new(&mut storage, boot);
        ids.iter().for_each(|&(apic_id, _)| cores.add(apic_id));
        let count = cores.count();
        let mut cores = storage[..count].to_vec();
        ids.iter()
            .for_each(|&(apic_id, domain)| place_core(&mut cores, apic_id, domain));
        cores
    }

    fn none(_: u32, _: u32) -> Option<u8> {
        None
    }

    #[test]
    fn the_boot_core_is_first_and_the_rest_goes_by_distance() {
        // Core 20 boots in domain 9; domain 4 is nearer to it than domain 1.
        let ids = [
            (0, 1),
            (1, 1),
            (20, 9),
            (6, 4),
            (7, 4),
            (3, 9),
            (300, 1),
            (20, 9),
        ];
        let mut found = cores(&ids, 20);
        let distance = |from, to| match (from, to) {
            (9, 4) => Some(15),
            (9, 1) => Some(30),
            (a, b) if a == b => Some(10),
            _ => None,
        };
        let domains = Domains::new(&found, &[], 20, distance).unwrap();
        number_cores(&mut found, &domains, 20);
        let order: Vec<_> = found.iter().map(|core| (core.apic_id, core.node)).collect();
        assert_eq!(
            order,
            [(20, 0), (3, 0), (6, 1), (7, 1), (0, 2), (1, 2), (300, 2)]
        );
        let mut distances = [[0; MAX_NODES]; MAX_NODES];
        domains.fill_distances(&mut distances, distance);
        assert_eq!(distances[0][..4], [10, 15, 30, 0]);
        assert_eq!(distances[1][..3], [0, 10, 0]);
    }

    #[test]
    fn too_many_cores_leave_the_boot_core_in() {
        let ids: Vec<_> = (0..MAX_CORES as u32 + 10).map(|id| (id, 0)).collect();
        let mut storage = [Core::default(); MAX_CORES];
        let mut cores = Cores::new(&mut storage, 260);
        ids.iter().for_each(|&(id, _)| cores.add(id));
        assert_eq!((cores.count(), cores.left_out()), (MAX_CORES, 10));
        assert!(storage.is_sorted_by_key(|core| core.apic_id));
        assert_eq!(storage[MAX_CORES - 1].apic_id, 260);
    }

    #[test]
    fn domains_are_limited_and_may_have_memory_only() {
        let range = |domain| MemoryAffinity {
            base: 0,
            end: 1,
            domain,
        };
        let found = cores(&[(0, 2)], 0);
        let domains = Domains::new(&found, &[range(7), range(0)], 0, none).unwrap();
        assert_eq!(
            [
                domains.node(2),
                domains.node(0),
                domains.node(7),
                domains.node(99)
            ],
            [0, 1, 2, 0]
        );
        let many: Vec<_> = (0..MAX_NODES as u32 + 1).map(range).collect();
        assert_eq!(
            Domains::new(&found, &many, 0, none).err(),
            Some(TooManyDomains)
        );
    }

    fn split(usable: &[(u64, u64)], memory: &[MemoryAffinity]) -> Vec<(u64, u64, u64)> {
        let found = cores(&[(0, 0)], 0);
        let domains = Domains::new(&found, memory, 0, none).unwrap();
        let mut ram = [RamRange::default(); MAX_RAM_RANGES];
        let count = split_ram(&mut ram, usable.iter().copied(), memory, &domains);
        ram[..count]
            .iter()
            .map(|range| (range.base, range.base + range.bytes, range.node))
            .collect()
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn ram_is_split_where_nodes_meet() {
        let memory = [
            MemoryAffinity {
                base: 0,
                end: 640 << 10,
                domain: 0,
            },
            MemoryAffinity {
                base: MIB,
                end: 100 * MIB,
                domain: 0,
            },
            MemoryAffinity {
                base: 100 * MIB,
                end: 200 * MIB,
                domain: 0,
            },
            MemoryAffinity {
                base: 200 * MIB,
                end: 300 * MIB,
                domain: 5,
            },
        ];
        let usable = [
            (0x1000, 0x9_f000),
            (MIB, MIB + PAGE),
            (4 * MIB, 250 * MIB),
            (260 * MIB, 400 * MIB),
        ];
        let expected = [
            (4 * MIB, 200 * MIB, 0),
            (200 * MIB, 250 * MIB, 1),
            (260 * MIB, 300 * MIB, 1),
            // Nobody's memory counts as node 0's.
            (300 * MIB, 400 * MIB, 0),
        ];
        assert_eq!(split(&usable, &memory), expected);
        assert_eq!(split(&usable[..2], &memory), []);
        assert_eq!(split(&[(0, 64 * MIB)], &[]), [(MIB, 64 * MIB, 0)]);
    }

    #[test]
    fn of_too_many_ranges_the_largest_stay() {
        let usable: Vec<_> = (1..=80u64)
            .map(|i| (i * 512 * MIB, i * 512 * MIB + (2 + 2 * i) * MIB))
            .collect();
        let kept = split(&usable, &[]);
        assert_eq!(kept.len(), MAX_RAM_RANGES);
        assert_eq!(kept[0].0, 17 * 512 * MIB);
        assert!(kept.is_sorted());
        // Small ones never drive out large ones.
        let small = (1..=80u64).map(|i| (i * 512 * MIB, i * 512 * MIB + PAGE));
        let mixed: Vec<_> = small.chain([(90 << 30, 91 << 30)]).collect();
        assert_eq!(split(&mixed, &[]), vec![(90 << 30, 91 << 30, 0)]);
    }

    #[test]
    fn the_trampoline_is_low_and_never_page_zero() {
        let at = |ranges: &[(u64, u64)]| trampoline(ranges.iter().copied());
        assert_eq!(at(&[(0, 0x9_f000)]), Some(0x1000));
        assert_eq!(at(&[(0x1000, 0x5000), (0x8000, 0x9_f000)]), Some(0x8000));
        assert_eq!(at(&[(0x9_a000, 0xa_0000)]), Some(0x9_a000));
        assert_eq!(at(&[(0x9_b000, 0xa_0000), (MIB, 64 * MIB)]), None);
        assert_eq!(at(&[(0x1800, 0x7000)]), Some(0x2000));
        assert_eq!(at(&[]), None);
    }
}
