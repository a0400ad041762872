//! What the CPU drivers map: nothing that another one maps.

use abi::layout::PAGE;
use alloc::vec::Vec;
use apps::mappings::{self, Mapping};

/// Up to so many cores, each has its line.
const MAX_LINES: usize = 16;

/// What one core maps.
struct Core {
    core: usize,
    memory: Vec<Mapping>,
    devices: Vec<Mapping>,
}

impl Core {
    fn writable_bytes(&self) -> u64 {
        let writable = self.memory.iter().filter(|range| range.is_writable());
        // The same memory may be writable at two addresses, and counts once.
        let mut ranges: Vec<_> = writable
            .map(|range| (range.physical, range.physical_end()))
            .collect();
        ranges.sort_unstable();
        let mut end = 0;
        ranges.iter().fold(0, |bytes, range| {
            let start = range.0.max(end);
            end = end.max(range.1);
            bytes + range.1.saturating_sub(start)
        })
    }

    /// All the RAM that is the core's own: what its direct map holds, a single range.
    fn own_ram(&self) -> Option<(u64, u64)> {
        let direct = || self.memory.iter().filter(|range| range.is_direct());
        let first = direct().map(|range| range.physical).min()?;
        let last = direct().map(Mapping::physical_end).max()?;
        let bytes: u64 = direct().map(|range| range.bytes).sum();
        (bytes == last - first).then_some((first, last))
    }
}

/// Asks all cores what they map, and checks it; returns how many violations there are.
pub fn check() -> usize {
    let mut cores = Vec::new();
    for core in rt::startup().cores() {
        match mappings::of_core(core) {
            Ok(all) => {
                let (devices, memory) = all.into_iter().partition(Mapping::is_device);
                cores.push(Core {
                    core,
                    memory,
                    devices,
                });
            }
            Err(error) => {
                rt::println!("isolation: core {core} does not tell: {error}");
                return 1;
            }
        }
    }
    let failures = count_failures(&cores);
    show(&cores);
    failures
}

/// Checks all, and tells what is wrong.
fn count_failures(cores: &[Core]) -> usize {
    let mut failures = 0;
    let mut fail = |text: core::fmt::Arguments<'_>| {
        failures += 1;
        rt::println!("isolation: {text}");
    };
    for core in cores {
        let number = core.core;
        if !core.memory.iter().any(Mapping::is_writable) {
            // A test that sees nothing must not pass.
            fail(format_args!("core {number} tells of no writable memory"));
        }
        for device in &core.devices {
            let the_only = core.devices.len() == 1 && device.bytes == PAGE;
            if !the_only || Some(device.physical) != first_device(cores) {
                fail(format_args!(
                    "core {number} maps {:#x}-{:#x} uncached, which is not the local APIC's page",
                    device.physical,
                    device.physical_end()
                ));
            }
        }
        let executable = || core.memory.iter().filter(|range| range.is_executable());
        for writable in core.memory.iter().filter(|range| range.is_writable()) {
            for text in executable().filter(|text| overlap(writable, text)) {
                fail(format_args!(
                    "core {number} may write at {:#x} what it executes at {:#x}",
                    writable.address, text.address
                ));
            }
        }
    }
    // In the order of physical addresses, whatever overlaps another core's is found from the
    // range that reaches farthest so far.
    let mut all: Vec<(usize, &Mapping)> = cores
        .iter()
        .flat_map(|core| core.memory.iter().map(move |range| (core.core, range)))
        .collect();
    all.sort_by_key(|(core, range)| (range.physical, *core));
    let mut farthest: Option<(usize, &Mapping)> = None;
    for (core, range) in all {
        if let Some((other, before)) = farthest
            && other != core
            && overlap(before, range)
        {
            fail(format_args!(
                "cores {other} and {core} both map {:#x}{}",
                range.physical,
                if before.is_writable() || range.is_writable() {
                    ", writable"
                } else {
                    ""
                }
            ));
        }
        if farthest.is_none_or(|(_, before)| range.physical_end() >= before.physical_end()) {
            farthest = Some((core, range));
        }
    }
    for core in cores {
        let number = core.core;
        let Some((first, last)) = core.own_ram() else {
            fail(format_args!("core {number} owns no single range of RAM"));
            continue;
        };
        let outside = |range: &&Mapping| range.physical < first || range.physical_end() > last;
        for range in core.memory.iter().filter(outside) {
            fail(format_args!(
                "core {number} maps {:#x}-{:#x} outside of its own {first:#x}-{last:#x}",
                range.physical,
                range.physical_end()
            ));
        }
    }
    failures
}

fn first_device(cores: &[Core]) -> Option<u64> {
    let first = cores.iter().flat_map(|core| &core.devices).next()?;
    Some(first.physical)
}

fn overlap(a: &Mapping, b: &Mapping) -> bool {
    a.physical < b.physical_end() && b.physical < a.physical_end()
}

fn show(cores: &[Core]) {
    for core in cores.iter().take(MAX_LINES) {
        let (first, last) = core.own_ram().unwrap_or_default();
        rt::println!(
            "core {}: {} KiB mapped writable, all within {first:#x}-{last:#x}; {} ranges of \
             memory, {} of devices",
            core.core,
            core.writable_bytes() >> 10,
            core.memory.len(),
            core.devices.len()
        );
    }
    let least = cores.iter().map(Core::writable_bytes).min().unwrap_or(0);
    let most = cores.iter().map(Core::writable_bytes).max().unwrap_or(0);
    rt::println!(
        "{} cores: each maps {} to {} KiB writable, no two the same page",
        cores.len(),
        least >> 10,
        most >> 10
    );
    if let Some(physical) = first_device(cores) {
        rt::println!(
            "left aside: the local APIC at {physical:#x}, uncached: each core's own device"
        );
    }
}
