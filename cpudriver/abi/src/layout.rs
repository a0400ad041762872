//! The two address spaces of a core.
//!
//! ```text
//!  virtual address          what                                          who     rights
//!  ------------------------------------------------------------------------------------
//!  ffff_ffff_c000_0000  control page and ring of the trace                kernel  rw-
//!  ffff_ffff_b000_0000  kernel stacks, a guard page below each            kernel  rw-
//!  ffff_ffff_a200_0000  symbol table of CPU driver and monitor            kernel  r--
//!  ffff_ffff_a100_0000  log ring                                          kernel  rw-
//!  ffff_ffff_a000_1000  local APIC (uncached)                             kernel  rw-
//!  ffff_ffff_a000_0000  core record                                       kernel  rw-
//!  ffff_ffff_8000_0000  CPU driver image, this core's copy                kernel  r-x r-- rw-
//!  ffff_a000_1000_0000  what never changes of the ring of the trace       user    r--
//!  ffff_a000_0000_0000  control page and ring of the trace, this core's   user    rw-
//!  ffff_8000_0000_0000  + p: private RAM of this core, nobody else's      kernel  rw- (image text: r--)
//!  ------------------------------------------------------------------------------------
//!  0000_7100_0000_0000  startup page                                      user    r--
//!  0000_7000_0000_0000  top of the stack, a guard page below it           user    rw-
//!  0000_1000_0000_0000  memory of domains that span cores, a part for each  user    rw- r--
//!  0000_0060_0000_0000  window: RAM of a core about to start              monitor rw-
//!  0000_0050_0000_0000  mesh: one page a peer core, the channel to it     monitor rw-
//!  0000_0042_0000_0000  log ring of the CPU driver                        monitor r--
//!  0000_0041_0000_0000  machine description                               monitor r--
//!  0000_0040_0000_0000  bundle: every program                             monitor r--
//!  0000_0030_0000_0000  frames that a domain maps for itself              user    rw- r-- r-x
//!  0000_0020_0000_0000  frames shared with other domains                  user    rw-
//!  0000_0010_0000_0000  heap                                              user    rw-
//!  0000_0000_0040_0000  program image                                     user    r-x r-- rw-
//!  ------------------------------------------------------------------------------------
//!  low memory, physical = virtual while a core starts: the trampoline page
//! ```
//!
//! The trace is the one thing in the upper half that ring 3 may touch: it is there in every address space.
//!
//! All cores use the same addresses; what differs is the physical memory behind them.

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Bytes of a large page; RAM changes its owner in this unit.
pub const LARGE_PAGE: u64 = 2 << 20;

/// First address that belongs to the kernel.
pub const KERNEL_HALF: u64 = 0xffff_8000_0000_0000;
/// Where physical address 0 would appear: private RAM of this core is mapped from here.
pub const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;
/// Link address of the CPU driver.
pub const KERNEL_IMAGE: u64 = 0xffff_ffff_8000_0000;
/// The core record, one page.
pub const KERNEL_RECORD: u64 = 0xffff_ffff_a000_0000;
/// Registers of the local APIC, one page.
pub const KERNEL_LOCAL_APIC: u64 = 0xffff_ffff_a000_1000;
/// The log ring, [`crate::limits::LOG_BYTES`] long.
pub const KERNEL_LOG: u64 = 0xffff_ffff_a100_0000;
/// The symbol table.
pub const KERNEL_SYMBOLS: u64 = 0xffff_ffff_a200_0000;
/// Kernel stacks: one for system calls and interrupts, the rest for exceptions that
/// may strike when the first is unusable (IST).
pub const KERNEL_STACKS: u64 = 0xffff_ffff_b000_0000;
/// Bytes of each kernel stack.
pub const KERNEL_STACK_BYTES: u64 = 16 * 1024;
/// How many kernel stacks there are: main, double fault, NMI, machine check.
pub const KERNEL_STACK_COUNT: u64 = 4;

/// Top of kernel stack `index`; the page below each stack is never mapped.
pub const fn kernel_stack_top(index: u64) -> u64 {
    KERNEL_STACKS + (index + 1) * (KERNEL_STACK_BYTES + PAGE)
}

/// The trace of this core ([`trace::TRACE`]) as the CPU driver sees it: ring 0 may not touch what ring 3 may.
pub const KERNEL_TRACE: u64 = 0xffff_ffff_c000_0000;

/// Lowest address a user mapping may have: page zero and its surroundings stay empty so
/// that null pointers fault.
pub const USER_MIN: u64 = 0x1_0000;
/// First address beyond user space. The last page of the lower half must stay empty: a
/// `syscall` at its very end would return to an address that is not canonical, on which
/// `sysret` faults in ring 0. So the whole last entry of the root stays empty: a page table
/// may have got its last entry where it was entered before.
pub const USER_END: u64 = 0x0000_7f80_0000_0000;
/// Link address of programs.
pub const USER_IMAGE: u64 = 0x40_0000;
/// Start of the heap.
pub const USER_HEAP: u64 = 0x10_0000_0000;
/// Start of frames shared with other domains.
pub const USER_FRAMES: u64 = 0x20_0000_0000;
/// Start of the frames that a domain maps for itself.
pub const USER_MAPPINGS: u64 = 0x30_0000_0000;
/// First address beyond them.
pub const USER_MAPPINGS_END: u64 = 0x40_0000_0000;
/// Start of the addresses that all members of a domain that spans cores share.
pub const USER_SPAN: u64 = 0x1000_0000_0000;
/// Bytes of them that each core maps its memory at: core `c` from `USER_SPAN + c * SPAN_PART_BYTES` on.
pub const SPAN_PART_BYTES: u64 = 4 << 30;
/// First address beyond them.
pub const USER_SPAN_END: u64 = USER_SPAN + crate::limits::MAX_CORES as u64 * SPAN_PART_BYTES;
/// End of the stack, which grows down from here.
pub const USER_STACK_TOP: u64 = 0x7000_0000_0000;
/// Bytes of the stack.
pub const USER_STACK_BYTES: u64 = 128 * 1024;
/// The startup page.
pub const USER_STARTUP: u64 = 0x7100_0000_0000;

/// In a monitor: the bundle of programs.
pub const MONITOR_BUNDLE: u64 = 0x40_0000_0000;
/// In a monitor: the machine description.
pub const MONITOR_MACHINE: u64 = 0x41_0000_0000;
/// In a monitor: the log ring of its CPU driver.
pub const MONITOR_LOG: u64 = 0x42_0000_0000;
/// In a monitor: the channel page of core `c` is at `MONITOR_MESH + c * PAGE`.
pub const MONITOR_MESH: u64 = 0x50_0000_0000;
/// In a monitor: RAM of the core it is about to start.
pub const MONITOR_WINDOW: u64 = 0x60_0000_0000;
