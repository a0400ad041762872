//! What every way into the bridge has in common; not how a particular one is parsed.

use crate::memory::Map;
use arrayvec::ArrayVec;

/// Longest command line, in bytes without the closing zero. QEMU keeps it below 4 KiB.
pub const COMMAND_LINE_BYTES: usize = 4095;

/// Answers to the firmware type request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Firmware {
    /// PC BIOS, or a virtual machine without UEFI.
    Bios = 0,
    /// 64-bit UEFI.
    Uefi64 = 2,
}

/// A piece of physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Physical address.
    pub base: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What the loader before us told. Nothing in it points into memory that may be reused.
#[derive(Clone, Debug)]
pub struct Handover {
    /// All memory, still without the bridge's own pages.
    pub map: Map,
    /// Physical address of the ACPI root pointer.
    pub rsdp: u64,
    /// The command line without its closing zero.
    pub command_line: ArrayVec<u8, COMMAND_LINE_BYTES>,
    /// The bundle: a tar archive.
    pub bundle: Extent,
    /// What started the machine.
    pub firmware: Firmware,
}
