//! Divides RAM among the cores: every core gets one contiguous region, as large as an
//! even share allows, from its own NUMA node where that has enough.

use abi::layout::LARGE_PAGE;
use abi::limits::{MAX_CORES, MAX_RAM_RANGES, MIN_PRIVATE_BYTES, MIN_SHARED_BYTES};
use abi::machine::{Core, Machine, RamRange};
use arrayvec::ArrayVec;

/// Least RAM of a core, in bytes.
pub const MIN_REGION_BYTES: u64 = MIN_PRIVATE_BYTES + MIN_SHARED_BYTES;

/// There is less RAM than the cores need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLittleMemory {
    /// Cores that must share it.
    pub cores: usize,
    /// Usable bytes in whole large pages.
    pub usable: u64,
}

type Ranges = ArrayVec<RamRange, MAX_RAM_RANGES>;

/// Gives every core of the machine its region.
///
/// Where one node has too little RAM for its cores, nodes are left out of account and all
/// cores share all RAM: a far region is better than none.
pub fn divide(machine: &mut Machine) -> Result<(), TooLittleMemory> {
    let ranges: Ranges = machine.ram().iter().filter_map(whole_large_pages).collect();
    let count = machine.cores().len();
    let nodes = machine.node_count.max(1);
    let cores = &mut machine.cores[..count.min(MAX_CORES)];

    let by_node = (0..nodes).all(|node| {
        let near: Ranges = ranges
            .iter()
            .filter(|range| range.node == u64::from(node))
            .copied()
            .collect();
        assign(cores.iter_mut().filter(|core| core.node == node), &near)
    });
    if by_node || assign(cores.iter_mut(), &ranges) {
        return Ok(());
    }
    Err(TooLittleMemory {
        cores: count,
        usable: ranges.iter().map(|range| range.bytes).sum(),
    })
}

/// The part of a range that whole large pages cover.
fn whole_large_pages(range: &RamRange) -> Option<RamRange> {
    let base = range.base.checked_next_multiple_of(LARGE_PAGE)?;
    let end = range.base.checked_add(range.bytes)? / LARGE_PAGE * LARGE_PAGE;
    (end > base).then(|| RamRange {
        base,
        bytes: end - base,
        node: range.node,
    })
}

/// Gives each of `cores` a region out of `ranges`; false where they do not suffice.
fn assign<'a>(cores: impl Iterator<Item = &'a mut Core>, ranges: &Ranges) -> bool {
    let cores: ArrayVec<&mut Core, MAX_CORES> = cores.collect();
    if cores.is_empty() {
        return true;
    }
    let fit = |share: u64| ranges.iter().map(|range| range.bytes / share).sum::<u64>();
    // The largest share, in large pages, of which there are enough.
    let (mut enough, mut too_much) = (
        0,
        ranges.iter().map(|r| r.bytes).max().unwrap_or(0) / LARGE_PAGE + 1,
    );
    while enough + 1 < too_much {
        let middle = enough + (too_much - enough) / 2;
        if fit(middle * LARGE_PAGE) >= cores.len() as u64 {
            enough = middle;
        } else {
            too_much = middle;
        }
    }
    let share = enough * LARGE_PAGE;
    if share < MIN_REGION_BYTES {
        return false;
    }
    let mut places = ranges
        .iter()
        .flat_map(|range| (0..range.bytes / share).map(move |index| range.base + index * share));
    for core in cores {
        let Some(region) = places.next() else {
            return false;
        };
        core.region = region;
        // Most of what a core does stays on it: the private part is the larger one.
        let private = (share / 8 * 5) / LARGE_PAGE * LARGE_PAGE;
        core.private_bytes = private.max(MIN_PRIVATE_BYTES);
        core.shared_bytes = share - core.private_bytes;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn machine(cores: &[u32], ram: &[(u64, u64, u64)]) -> Machine {
        let mut machine = Machine::EMPTY;
        machine.core_count = cores.len() as u32;
        machine.node_count = cores.iter().max().map_or(1, |node| node + 1);
        for (core, node) in machine.cores.iter_mut().zip(cores) {
            core.node = *node;
        }
        machine.ram_count = ram.len() as u32;
        for (range, (base, bytes, node)) in machine.ram.iter_mut().zip(ram) {
            *range = RamRange {
                base: *base,
                bytes: *bytes,
                node: *node,
            };
        }
        machine
    }

    #[test]
    fn cores_get_ram_of_their_node() {
        let mut machine = machine(
            &[0, 0, 1],
            &[(1 << 20, 63 << 20, 0), (64 << 20, 64 << 20, 1)],
        );
        divide(&mut machine).expect("enough");
        assert_eq!(machine.cores()[0].region, 2 << 20);
        assert!(machine.cores()[1].region < 64 << 20);
        assert_eq!(machine.cores()[2].region, 64 << 20);
        assert_eq!(
            machine.cores()[2].private_bytes + machine.cores()[2].shared_bytes,
            64 << 20
        );
    }

    #[test]
    fn a_node_without_ram_borrows_and_too_little_is_an_error() {
        let mut poor = machine(&[0, 1], &[(0, 64 << 20, 0)]);
        divide(&mut poor).expect("enough in all");
        assert!(poor.cores()[1].private_bytes >= MIN_PRIVATE_BYTES);

        let mut none = machine(&[0, 0, 0], &[(0, 16 << 20, 0)]);
        assert_eq!(
            divide(&mut none),
            Err(TooLittleMemory {
                cores: 3,
                usable: 16 << 20
            })
        );
    }

    proptest! {
        #[test]
        fn regions_are_disjoint_aligned_and_inside_ram(
            nodes in proptest::collection::vec(0u32..4, 1..40),
            sizes in proptest::collection::vec((1u64..200 << 20, 0u64..4), 1..8),
        ) {
            let mut at = 1 << 20;
            let mut ram = std::vec::Vec::new();
            for (bytes, node) in sizes {
                ram.push((at, bytes, node));
                at += bytes + 0x3000;
            }
            let mut machine = machine(&nodes, &ram);
            if divide(&mut machine).is_ok() {
                let mut regions: std::vec::Vec<_> = machine.cores().iter()
                    .map(|core| (core.region, core.region + core.private_bytes + core.shared_bytes))
                    .collect();
                for core in machine.cores() {
                    prop_assert!(core.private_bytes >= MIN_PRIVATE_BYTES);
                    prop_assert!(core.shared_bytes >= MIN_SHARED_BYTES);
                    prop_assert_eq!((core.region | core.private_bytes | core.shared_bytes) % LARGE_PAGE, 0);
                }
                for (start, end) in &regions {
                    prop_assert!(ram.iter().any(|(base, bytes, _)| base <= start && end <= &(base + bytes)));
                }
                regions.sort_unstable();
                for pair in regions.windows(2) {
                    prop_assert!(pair[0].1 <= pair[1].0);
                }
            }
        }
    }

    extern crate std;
}
