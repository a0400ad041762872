//! System calls.
//!
//! Number in `rax`, arguments in `rdi rsi rdx r10 r8 r9`; back come an [`Error`] (0: none)
//! in `rax` and results in `rdi rsi rdx r10 r8`. `rcx` and `r11` are lost, as the
//! `syscall` instruction wants it. No call takes a pointer: the CPU driver never reads or
//! writes memory at an address that a user named, so there is nothing to check and
//! nothing to fault on. What is larger than registers travels in frames between users.
//!
//! Calls from [`MAP_TABLE`] on belong to the monitor, which holds the authority over its core.

/// Does nothing; measures the way in and out.
pub const NULL: u64 = 0;
/// Adds text to this domain's line in the CPU driver's log; a newline ends the line.
/// `rdi` bytes (at most 40) in the words that follow, least significant byte first.
pub const LOG: u64 = 1;
/// Goes behind all that are ready at this priority, if there are any.
pub const YIELD: u64 = 2;
/// Blocks until a doorbell is pending or the clock reaches `rdi` nanoseconds (0: no
/// deadline), and takes the doorbell. Back: `rdi` = 1 by doorbell, 0 by deadline.
pub const WAIT: u64 = 3;
/// Ends this domain with status `rdi` (an `i32`).
pub const EXIT: u64 = 4;
/// Rings the doorbell in slot `rdi`.
pub const RING: u64 = 5;

/// Enters a page table into a domain's address space: root `rdi`, address `rsi`, level of
/// the new table `rdx` (1 to 3), its page `r10`, which the CPU driver zeroes. This page, and
/// the memory of the two calls that make an object below, must be private RAM that the monitor
/// was given; the CPU driver refuses what the loader filled, and memory of dispatchers.
pub const MAP_TABLE: u64 = 16;
/// Maps pages: root `rdi`, address `rsi`, physical address `rdx`, pages `r10` (at most
/// [`MAP_PAGES`]), rights `r8` ([`rights`]). All or nothing; [`Error::NeedTable`] comes with
/// the level in `rdi`. Memory that this core's CPU driver uses itself (what the loader filled,
/// and dispatchers) is refused; of other physical memory (the regions of other cores, device
/// registers) the monitor may map whatever it wants.
pub const MAP: u64 = 17;
/// Unmaps pages: root `rdi`, address `rsi`, pages `rdx`. Back: `rdi` pages that were mapped.
pub const UNMAP: u64 = 18;
/// Makes a page a PML4 with the kernel half in it: page `rdi`.
pub const MAKE_ROOT: u64 = 19;
/// Makes a dispatcher: its memory `rdi` ([`DISPATCHER_BYTES`] of private RAM, page
/// aligned, in no other dispatcher's use), root `rsi`, entry point `rdx`; in `r10` the vector
/// that wakes it in the lowest byte and its [`priority`] above; the name in `r8` and `r9`,
/// eight bytes each. Back: `rdi` its handle, which the calls below take.
pub const MAKE_DISPATCHER: u64 = 20;
/// Stops dispatcher `rdi` for good; its memory is free afterwards.
pub const DESTROY_DISPATCHER: u64 = 21;
/// Asks after dispatcher `rdi`. Back: `rdi` a [`life`], `rsi` exit status, or for a fault
/// its vector, `rdx` error code, `r10` instruction pointer, `r8` faulting address.
pub const DISPATCHER: u64 = 22;
/// Reads register `rsi` of dispatcher `rdi`: see [`REGISTERS`]. Back: `rdi`.
pub const REGISTER: u64 = 23;
/// Lets dispatcher `rdi` ring: slot `rsi`, core with APIC id `rdx`, vector `r10`.
pub const GRANT_DOORBELL: u64 = 24;
/// Sends an INIT to the core with APIC id `rdi`.
pub const SEND_INIT: u64 = 25;
/// Sends a start-up interrupt to the core with APIC id `rdi`, page `rsi` (below 1 MiB).
pub const SEND_STARTUP: u64 = 26;
/// Reads the byte at I/O port `rdi`. Back: `rdi`.
pub const PORT_READ: u64 = 27;
/// Writes `rsi` bytes (at most 32) to I/O port `rdi`, from `rdx r10 r8 r9`.
pub const PORT_WRITE: u64 = 28;
/// Powers off with exit status `rdi` (an `i32`). Does not return.
pub const POWER_OFF: u64 = 29;
/// The next range of addresses at or after `rdi` that the kernel half maps: back `rdi`
/// address, `rsi` physical address, `rdx` bytes, `r10` rights; [`Error::NotFound`] at the end.
pub const KERNEL_MAPPING: u64 = 30;
/// Test hook: writes to physical address `rdi` as a stray kernel pointer would.
pub const WILD_WRITE: u64 = 31;
/// Tells the world that this core's monitor is at work, and the epoch `rdi` of the view
/// that it holds (0: none yet).
pub const RUNNING: u64 = 32;
/// Reads counter `rdi`: an index into [`crate::record::Counters`]. Back: `rdi`.
pub const COUNTER: u64 = 33;

/// Bytes that the CPU driver ever wrote to its log. Back: `rdi`.
pub const LOG_WRITTEN: u64 = 34;

/// Most pages in one call of [`MAP`] or [`UNMAP`]: what one page table holds.
pub const MAP_PAGES: u64 = 512;

/// Bytes of a dispatcher object.
pub const DISPATCHER_BYTES: u64 = 16 * 1024;

/// Names of the registers that [`REGISTER`] reads, by index.
pub const REGISTERS: [&str; 18] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15", "rip", "rflags",
];

/// Rights of a mapping. Readable is always included; writable and executable together
/// are refused.
pub mod rights {
    /// Readable.
    pub const READ: u64 = 0;
    /// Writable.
    pub const WRITE: u64 = 1;
    /// Executable.
    pub const EXECUTE: u64 = 2;
    /// Not cached, for device registers.
    pub const UNCACHED: u64 = 4;
}

/// Priorities, of which there are [`crate::limits::PRIORITIES`]: the highest that is ready
/// runs, and its equals take turns.
pub mod priority {
    /// What shall run only where nobody else wants to.
    pub const LOW: u8 = 2;
    /// Programs.
    pub const NORMAL: u8 = 4;
    /// The monitor, which all programs of its core wait for.
    pub const MONITOR: u8 = 6;
}

/// What a dispatcher is about.
pub mod life {
    /// It runs, is ready to, or waits.
    pub const ALIVE: u64 = 0;
    /// It ended itself.
    pub const EXITED: u64 = 1;
    /// It met an exception.
    pub const FAULTED: u64 = 2;
}

/// Why a system call did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Error {
    /// There is no such call.
    NoSuchCall = 1,
    /// The caller does not hold the authority for it.
    NotAllowed = 2,
    /// An argument lies outside of what the call takes.
    BadArgument = 3,
    /// An address is not aligned as it must be.
    Misaligned = 4,
    /// A user mapping would lie in the kernel's half, or wrap around.
    KernelHalf = 5,
    /// A page table on the way is missing.
    NeedTable = 6,
    /// Something is mapped there already.
    AlreadyMapped = 7,
    /// Nothing is there.
    NotFound = 8,
    /// Writable and executable at once.
    WritableAndExecutable = 9,
    /// That memory is not this core's private RAM, or its CPU driver uses it itself.
    ForeignMemory = 10,
    /// No doorbell is in that slot.
    NoDoorbell = 11,
    /// The vector wakes somebody else already, or is not a doorbell's.
    BadVector = 12,
    /// The system was not started with test hooks.
    TestHooksOff = 13,
    /// The core carries as many dispatchers as it can.
    TooMany = 14,
}

impl Error {
    /// The error behind a number from `rax`; `None` for 0 and for numbers without meaning.
    pub const fn from_code(code: u64) -> Option<Self> {
        Some(match code {
            1 => Self::NoSuchCall,
            2 => Self::NotAllowed,
            3 => Self::BadArgument,
            4 => Self::Misaligned,
            5 => Self::KernelHalf,
            6 => Self::NeedTable,
            7 => Self::AlreadyMapped,
            8 => Self::NotFound,
            9 => Self::WritableAndExecutable,
            10 => Self::ForeignMemory,
            11 => Self::NoDoorbell,
            12 => Self::BadVector,
            13 => Self::TestHooksOff,
            14 => Self::TooMany,
            _ => return None,
        })
    }
}

/// First interrupt vector that may serve as a doorbell.
pub const FIRST_DOORBELL: u64 = 0x40;
/// Last interrupt vector that may serve as a doorbell.
pub const LAST_DOORBELL: u64 = 0xef;
