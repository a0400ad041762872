//! Regions of interest: what lies between a beginning and an end is counted by who looks from
//! outside, such as `scripts/run --coherence`, which counts cache lines that move between cores.
//!
//! A mark is one instruction that does nothing on any x86-64 processor,
//!
//! ```text
//! 0f 1f 84 00 NN WW 0a 70    nop dword ptr [rax + rax + 0x700aWWNN]
//! ```
//!
//! with the number of the region in NN and `be` (begin) or `ed` (end) in WW. It reads no memory
//! and changes no register, so programs need not know whether anybody looks. A region is a
//! stretch of the machine's time: it lasts until whoever began it ends it, and all that every
//! core does meanwhile counts.

use core::arch::{asm, global_asm};

/// Numbers of regions are below.
pub const REGIONS: u8 = 64;

/// The region of this number, below [`REGIONS`], begins.
#[inline(always)]
pub fn begin<const NUMBER: u8>() {
    const { assert!(NUMBER < REGIONS) };
    // SAFETY: no operation. What is before it in the program stays there, for the compiler takes
    // it to touch memory.
    unsafe {
        asm!(
            ".byte 0x0f, 0x1f, 0x84, 0x00, {number}, 0xbe, 0x0a, 0x70",
            number = const NUMBER,
            options(nostack, preserves_flags)
        );
    }
}

/// The region of this number, below [`REGIONS`], ends.
#[inline(always)]
pub fn end<const NUMBER: u8>() {
    const { assert!(NUMBER < REGIONS) };
    // SAFETY: as in `begin`.
    unsafe {
        asm!(
            ".byte 0x0f, 0x1f, 0x84, 0x00, {number}, 0xed, 0x0a, 0x70",
            number = const NUMBER,
            options(nostack, preserves_flags)
        );
    }
}

/// A region whose number is known only as the program runs begins; a number of [`REGIONS`] or more
/// is none.
pub fn begin_number(number: u8) {
    pass(&raw const atoll_region_begin, number);
}

/// It ends.
pub fn end_number(number: u8) {
    pass(&raw const atoll_region_end, number);
}

/// Passes the mark of this number in a table.
#[inline(never)]
fn pass(table: *const u8, number: u8) {
    if number >= REGIONS {
        return;
    }
    let entry = table.addr() + ENTRY * usize::from(number);
    // SAFETY: the entry is a mark and a return: it changes nothing but the stack's unused part.
    unsafe { asm!("call {}", in(reg) entry, options(preserves_flags)) };
}

/// Bytes of an entry of the tables.
const ENTRY: usize = 16;

unsafe extern "C" {
    static atoll_region_begin: u8;
    static atoll_region_end: u8;
}

global_asm!(
    ".pushsection .text.atoll_region, \"ax\", @progbits",
    ".macro atoll_regions name, way",
    ".balign 16",
    ".global \\name",
    "\\name:",
    ".set atoll_region_number, 0",
    ".rept {regions}",
    ".byte 0x0f, 0x1f, 0x84, 0x00, atoll_region_number, \\way, 0x0a, 0x70",
    "ret",
    ".balign {entry}, 0xcc",
    ".set atoll_region_number, atoll_region_number + 1",
    ".endr",
    ".endm",
    "atoll_regions atoll_region_begin, 0xbe",
    "atoll_regions atoll_region_end, 0xed",
    ".popsection",
    regions = const REGIONS,
    entry = const ENTRY,
);
