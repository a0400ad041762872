//! What touches the processor: descriptor tables, the ways in and out of ring 0, the local
//! APIC, page tables behind the direct map, the trampoline. Most of the CPU driver's
//! `unsafe` lives here.

pub mod apic;
pub mod cpu;
pub mod descriptors;
pub mod entry;
pub mod float;
pub mod memory;
pub mod trampoline;

/// The page number for a start-up interrupt, if `page` is the trampoline's.
pub fn trampoline_page_allowed(machine: &abi::machine::Machine, page: u64) -> Option<u8> {
    let expected = machine.trampoline / abi::layout::PAGE;
    (page == expected && expected > 0).then_some(expected as u8)
}
