//! What the first CPU driver found out about its machine, and which core owns which RAM.
//!
//! Core 0 fills one [`Machine`] from the boot loader's answers, ACPI and CPUID; every core
//! that starts another hands it a copy. It never changes afterwards.
//!
//! Core numbers are Atoll's own: dense, 0 is the core that booted, the others sorted by
//! node so that neighbours in number are neighbours in the machine. APIC ids may be sparse.

use crate::limits::{COMMAND_LINE_BYTES, MAX_CORES, MAX_NODES, MAX_RAM_RANGES};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// I/O APICs that are used; large machines have one for each part of each socket.
pub const MAX_IO_APICS: usize = 64;

/// ISA interrupts, of which each has one override at the most.
pub const MAX_OVERRIDES: usize = 16;

/// One core: how to reach it, where it sits, and the RAM that is its own.
///
/// The region is `[region, region + private_bytes + shared_bytes)`: its CPU driver maps
/// the private part and nothing else; the shared part is only ever mapped by user code.
/// All three are multiples of [`crate::layout::LARGE_PAGE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Core {
    /// Local APIC id.
    pub apic_id: u32,
    /// NUMA node (SRAT proximity domain, renumbered densely).
    pub node: u32,
    /// Physical address of the core's RAM; its first page is the core record.
    pub region: u64,
    /// Bytes that the core's CPU driver maps.
    pub private_bytes: u64,
    /// Bytes behind the private ones that only user code maps.
    pub shared_bytes: u64,
}

/// A range of usable RAM.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RamRange {
    /// Physical address.
    pub base: u64,
    /// Bytes.
    pub bytes: u64,
    /// NUMA node.
    pub node: u64,
}

/// An I/O APIC: where interrupt lines of devices arrive.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct IoApic {
    /// Physical address of its registers.
    pub address: u64,
    /// The first of its lines: a global system interrupt. It knows itself how many it has.
    pub first_line: u64,
}

/// An ISA interrupt that arrives at another line than its own, or otherwise than usual.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Override {
    /// The ISA interrupt.
    pub source: u32,
    /// Where it arrives: a global system interrupt.
    pub line: u32,
    /// 1: it is active while the line is low.
    pub active_low: u32,
    /// 1: it lasts as long as the line is active; 0: it is the line's becoming active.
    pub level: u32,
}

/// The machine description.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Machine {
    /// Cores in `cores`.
    pub core_count: u32,
    /// Ranges in `ram`.
    pub ram_count: u32,
    /// NUMA nodes; at least 1.
    pub node_count: u32,
    /// 1 where a hypervisor or emulator announces itself (CPUID.1:ECX.31): start-up
    /// delays meant for hardware are then cut short.
    pub virtual_machine: u32,
    /// 1: powering off writes to QEMU's `isa-debug-exit` port.
    pub debug_exit: u32,
    /// 1: calls that do harm on purpose are obeyed.
    pub test_hooks: u32,
    /// I/O APICs in `io_apics`.
    pub io_apic_count: u32,
    /// Overrides in `overrides`.
    pub override_count: u32,
    /// All I/O APICs.
    pub io_apics: [IoApic; MAX_IO_APICS],
    /// All overrides of ISA interrupts.
    pub overrides: [Override; MAX_OVERRIDES],
    /// All cores.
    pub cores: [Core; MAX_CORES],
    /// Usable RAM before it was divided among the cores, in ascending order.
    pub ram: [RamRange; MAX_RAM_RANGES],
    /// SLIT distances `[from][to]`, 10 = local; zero where the firmware gave none.
    pub distance: [[u8; MAX_NODES]; MAX_NODES],
    /// Time-stamp counter when the first CPU driver started: zero of the system's clock.
    pub tsc_start: u64,
    /// Time-stamp counter ticks a second.
    pub tsc_hz: u64,
    /// Local APIC timer ticks a second, undivided.
    pub apic_timer_hz: u64,
    /// Physical address of the ACPI root pointer.
    pub rsdp: u64,
    /// Physical address of the local APIC registers.
    pub local_apic: u64,
    /// Physical address of the HPET registers, or 0.
    pub hpet: u64,
    /// Physical address of PCI segment 0's configuration space, or 0.
    pub pci_config: u64,
    /// Physical address of the bundle of programs (a tar archive), page aligned.
    pub bundle: u64,
    /// Bytes of the bundle.
    pub bundle_bytes: u64,
    /// Physical address of five pages below 1 MiB with which cores are started; see
    /// [`crate::machine::trampoline`].
    pub trampoline: u64,
    /// Bytes of `command_line`.
    pub command_line_bytes: u64,
    /// The system's command line, UTF-8; see [`crate::command_line`].
    pub command_line: [u8; COMMAND_LINE_BYTES],
}

impl Machine {
    /// A machine with nothing in it.
    pub const EMPTY: Self = zerocopy::transmute!([0u8; size_of::<Machine>()]);

    /// The cores there are.
    pub fn cores(&self) -> &[Core] {
        &self.cores[..(self.core_count as usize).min(MAX_CORES)]
    }

    /// The RAM there is.
    pub fn ram(&self) -> &[RamRange] {
        &self.ram[..(self.ram_count as usize).min(MAX_RAM_RANGES)]
    }

    /// The I/O APICs there are.
    pub fn io_apics(&self) -> &[IoApic] {
        &self.io_apics[..(self.io_apic_count as usize).min(MAX_IO_APICS)]
    }

    /// The overrides of ISA interrupts there are.
    pub fn overrides(&self) -> &[Override] {
        &self.overrides[..(self.override_count as usize).min(MAX_OVERRIDES)]
    }

    /// The command line; empty where it is not UTF-8.
    pub fn command_line(&self) -> &str {
        let bytes = (self.command_line_bytes as usize).min(COMMAND_LINE_BYTES);
        core::str::from_utf8(&self.command_line[..bytes]).unwrap_or("")
    }
}

/// The pages below 1 MiB through which every core passes from real mode to its CPU driver.
///
/// ```text
///  page 0  code, the same for all cores
///  page 1  table of [`Entry`], written by whoever starts the core
///  page 2  PML4 ┐
///  page 3  PDPT ├ identity map of the first 2 MiB, used for a few instructions
///  page 4  PD   ┘
/// ```
pub mod trampoline {
    use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

    /// Pages that the trampoline takes.
    pub const PAGES: u64 = 5;
    /// Offset of the table, in bytes.
    pub const TABLE: u64 = 4096;

    /// What a starting core looks up by its APIC id. The table holds one for each core,
    /// at the index of the core's number.
    #[repr(C)]
    #[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
    pub struct Entry {
        /// Local APIC id, plus 1 so that an unused entry matches nobody.
        pub apic_id_plus_one: u64,
        /// Physical address of the core's first PML4.
        pub page_table: u64,
    }
}
