//! System calls.
//!
//! Number in `rax`, arguments in `rdi rsi rdx r10 r8 r9`; back come an [`Error`] (0: none)
//! in `rax` and results in `rdi rsi rdx r10 r8 r9`. `rcx` and `r11` are lost, as the
//! `syscall` instruction wants it. No call takes a pointer: the CPU driver never reads or
//! writes memory at an address that a user named, so there is nothing to check and
//! nothing to fault on. What is larger than registers travels in frames between users.
//!
//! "Capability" as an argument is the [`Address`](crate::capability::Address) of a slot.
//! Where a call puts capabilities somewhere, a *root* says in whose slots: the capability to
//! the root CNode there, with the right to write; 0 is the caller's own. Errors that any
//! call with capabilities may give: [`Error::NoSuchSlot`], [`Error::EmptySlot`],
//! [`Error::WrongKind`] and [`Error::NotAllowed`].

/// Does nothing; measures the way in and out.
pub const NULL: u64 = 0;
/// Adds text to this domain's line in the CPU driver's log; a newline ends the line.
/// `rdi` bytes (at most 40) in the words that follow, least significant byte first.
pub const LOG: u64 = 1;
/// Goes behind all that are ready at this priority, if there are any.
pub const YIELD: u64 = 2;
/// Blocks until a doorbell is pending or the clock reaches `rdi` nanoseconds (0: no
/// deadline), and takes the doorbell. Back: `rdi` = 0 by deadline, else [`woken`].
pub const WAIT: u64 = 3;

/// What a [`WAIT`] says that ended before its deadline.
pub mod woken {
    /// A doorbell rang.
    pub const DOORBELL: u64 = 1;
    /// To the monitor, with the bit above: the CPU driver has something for it: text in the log, a dispatcher
    /// that ended or misses a page, a capability that was moved to it.
    pub const NEWS: u64 = 2;
}
/// Ends this domain with status `rdi` (an `i32`).
pub const EXIT: u64 = 4;
/// Rings the doorbell `rdi` (right: write).
pub const RING: u64 = 5;

/// Calls whoever receives on endpoint `rdi` (right: write) with five words in
/// `rsi rdx r10 r8 r9`, and blocks until the answer is there: five words in the same
/// registers. Errors: [`Error::PeerGone`], [`Error::Deadlock`].
pub const CALL: u64 = 6;
/// The same with four words, and in `r9` a capability of which the receiver gets a copy
/// (right on the endpoint: grant). Errors also: [`Error::NoReceiveSlot`].
pub const CALL_GIVE: u64 = 7;
/// Blocks until a call arrives at endpoint `rdi` (right: read), a doorbell is pending
/// ([`Error::Interrupted`], and the doorbell is taken), or the clock reaches `rsi` nanoseconds
/// (0: no deadline; [`Error::TimedOut`]). Back: `rdi` the badge of the capability that was called,
/// the words. One dispatcher at a time receives on an endpoint ([`Error::Busy`]), on at most
/// [`crate::limits::MAX_ENDPOINTS`] endpoints, and it must answer before it receives again
/// ([`Error::MustReply`]).
pub const RECEIVE: u64 = 8;
/// Answers the call that was received last, with the words in `rsi rdx r10 r8 r9`, and
/// goes on as [`RECEIVE`] on endpoint `rdi` without deadline.
pub const REPLY_RECEIVE: u64 = 9;
/// Answers the call that was received last, with the words in `rsi rdx r10 r8 r9`.
/// Errors: [`Error::NoCaller`].
pub const REPLY: u64 = 10;
/// The same with four words, and in `r9` a capability of which the caller gets a copy.
/// Errors also: [`Error::NoReceiveSlot`]; then nothing was answered yet.
pub const REPLY_GIVE: u64 = 11;
/// Capabilities that come with calls and answers are put into the slot with address `rdi`
/// (0: none are taken). It must be empty when one comes, else its sender gets
/// [`Error::NoReceiveSlot`].
pub const RECEIVE_SLOT: u64 = 12;

/// Puts another capability to the same object into a slot: source `rdi`, destination `rsi`,
/// root of the destination `rdx`, root of the source `r10`.
pub const COPY: u64 = 16;
/// The same with fewer rights and, where it is not 0, a badge: source `rdi`, destination `rsi`,
/// rights `rdx`, badge `r10`, root of the destination `r8`, root of the source `r9`.
pub const MINT: u64 = 17;
/// Moves a capability, with what is mapped by it: source `rdi`, destination `rsi`, root of
/// the destination `rdx`.
pub const MOVE: u64 = 18;
/// Makes objects of a part of what `rdi` is to: first destination `rsi`, in `rdx` the kind in
/// the lowest byte and the count above, offset `r10`, bytes of each `r8`, root of the
/// destination `r9`. Page tables, CNodes, dispatchers and endpoints are made empty; frames are
/// zeroed, unless [`CLEAN_BYTES`] do not suffice for all of them: then they are *unclean*,
/// and before anything but deleting them and moving them is done, [`CLEAN`] must have been called as
/// often as it takes. Frames of RAM that the CPU driver does not map are as they were.
/// Back: `rdi` = 1 where frames are unclean.
pub const RETYPE: u64 = 19;
/// Zeroes [`CLEAN_BYTES`] more of unclean frame `rdi`. Back: `rdi` bytes still to zero.
pub const CLEAN: u64 = 20;
/// Takes the capability out of slot `rdi`, root `rsi`; what is mapped by it is unmapped, and an object
/// without further capabilities is gone. Back: `rdi` = 1 where it was the last one to its object.
/// Errors: [`Error::AskMonitor`] for the last one here to what other cores know too.
pub const DELETE: u64 = 21;
/// Takes away all other capabilities to the object of capability `rdi` (right: revoke), or those
/// with the same badge if it has one, and all to what was made of it; its root is `rsi`. Back: `rdi` = 1
/// where more is left to do: call again. Errors: [`Error::AskMonitor`] where other cores know the
/// object, or something that was made of it.
pub const REVOKE: u64 = 22;
/// Asks about capability `rdi`, root `rsi`. Back: in `rdi` its kind in the lowest byte, its rights in
/// the next, [`identity`] bits above, the depth of the object in the fourth; `rsi` base, `rdx` bytes, `r10` badge, `r8` how many entries of
/// page tables it fills.
pub const IDENTIFY: u64 = 23;
/// Makes a capability to what came from another core, or was there from the start: core `rdi`,
/// destination `rsi`, in `rdx` kind, rights and depth as [`IDENTIFY`] gives them and, where others know
/// the object, [`identity::SHARED`]; base `r10`, bytes `r8`, root of the destination `r9`. For memory of
/// cores and of devices. It must fit what is here already: in this core's private RAM only what some
/// capability here covers, and no device in any core's RAM, else [`Error::Conflict`].
pub const INSERT: u64 = 24;

/// Maps a part of a frame: root page table `rdi` (right: write), address `rsi`, frame `rdx`,
/// offset in the frame `r10`, in `r8` the number of pages in the low half and their level in the
/// high one (1: 4 KiB, 2: 2 MiB, 3: 1 GiB), [`rights`] `r9`. All of it must lie in one page
/// table. A capability is mapped at one place at a time. Errors: [`Error::Misaligned`],
/// [`Error::KernelHalf`], [`Error::NeedTable`] (back: `rdi` the level of the missing table),
/// [`Error::WrongLevel`] (a larger page is there), [`Error::AlreadyMapped`], [`Error::CapabilityMapped`],
/// [`Error::OutOfRange`], [`Error::WritableAndExecutable`], [`Error::NotAllowed`], [`Error::Unclean`].
pub const MAP: u64 = 32;
/// Enters a page table of level 1 to 3: root page table `rdi` (right: write), address `rsi`, page
/// table `rdx`. Errors as above.
pub const MAP_TABLE: u64 = 33;
/// Unmaps what is mapped by a capability to a frame or a page table `rdi`. If it is mapped at
/// address `rsi` of the caller's own address space, this is faster for who says so. Back: `rdi`
/// entries that were cleared. Errors: [`Error::NotMapped`].
pub const UNMAP: u64 = 34;
/// Changes the [`rights`] of what is mapped by frame `rdi`, at address `rsi` as above, to `rdx`.
pub const PROTECT: u64 = 35;
/// Translates: root page table `rdi` (right: read), address `rsi`. Back: `rdi` physical address of the
/// page, `rsi` its bytes, `rdx` [`rights`]. Errors: [`Error::NeedTable`], [`Error::NotMapped`].
pub const TRANSLATE: u64 = 36;

/// Sets up dispatcher `rdi` (right: write): property `rsi` (see [`property`]), value `rdx` and `r10`.
pub const CONFIGURE: u64 = 48;
/// Lets dispatcher `rdi` (right: write) run on that is stopped or waits for a page; whoever has ended
/// stays so. Errors: [`Error::NotReady`] if it has no address space.
pub const START: u64 = 49;
/// Stops dispatcher `rdi` (right: write) until it is started. Who waits for its answer
/// goes on waiting.
pub const STOP: u64 = 50;
/// Asks after dispatcher `rdi` (right: read). Back: `rdi` a [`life`], `rsi` exit status, or for a
/// fault or a missing page the exception's vector, `rdx` error code, `r10` instruction pointer, `r8` faulting address.
pub const STATE: u64 = 51;
/// Reads register `rsi` of dispatcher `rdi` (right: read): see [`REGISTERS`]. Back: `rdi`.
pub const READ_REGISTER: u64 = 52;
/// Writes `rdx` to register `rsi` of dispatcher `rdi` (right: write), which is not the caller's own. Of
/// `rflags`, only what ring 3 may change is taken; `rip` must be a user address.
pub const WRITE_REGISTER: u64 = 53;

/// Reads one value of `rdx` bytes (1, 2 or 4) at port `rsi`, counted from the first, of I/O ports
/// `rdi` (right: read). Back: `rdi`. Errors: [`Error::BadArgument`] for another width,
/// [`Error::OutOfRange`] if not all of its ports are the capability's.
pub const PORT_READ: u64 = 56;
/// Writes `rdx` bytes (at most 24), one after the other, to port `rsi` of I/O ports `rdi` (right:
/// write), from `r10 r8 r9`. Errors as above.
pub const PORT_WRITE: u64 = 57;
/// Writes one value of `rdx` bytes (1, 2 or 4), the lowest ones of `r10`, to port `rsi` of I/O ports
/// `rdi` (right: write). Errors as above.
pub const PORT_WRITE_VALUE: u64 = 58;

/// Sends an INIT to a core: core capability `rdi`, number of the core `rsi`, not this one.
pub const SEND_INIT: u64 = 64;
/// Sends a start-up interrupt to a core: as above, and the page `rdx` (below 1 MiB).
pub const SEND_STARTUP: u64 = 65;
/// Powers off with exit status `rsi` (an `i32`). Does not return. For this and all calls
/// below, `rdi` is a capability to this core.
pub const POWER_OFF: u64 = 66;
/// The next range of addresses at or after `rsi` that the kernel half maps: back `rdi`
/// address, `rsi` physical address, `rdx` bytes, `r10` rights; [`Error::NotFound`] at the end.
pub const KERNEL_MAPPING: u64 = 67;
/// Test hook: writes to physical address `rsi` as a stray kernel pointer would.
pub const WILD_WRITE: u64 = 68;
/// Tells the world that this core's monitor is at work, and the epoch `rsi` of the view
/// that it holds (0: none yet).
pub const RUNNING: u64 = 69;
/// Reads counter `rsi`: an index into [`crate::record::Counters`]. Back: `rdi`.
pub const COUNTER: u64 = 70;
/// Bytes that the CPU driver ever wrote to its log. Back: `rdi`.
pub const LOG_WRITTEN: u64 = 71;
/// Notes (`r9` = 1) or forgets (0) that other cores know an object: kind `rsi`, base `rdx`, bytes `r10`,
/// depth `r8`. Until then only this core's monitor takes away the last capability to it here, revokes it,
/// or makes something of it: others are told to ask ([`Error::AskMonitor`]). What the monitor makes of it
/// is noted as well. Errors: [`Error::NotFound`] where there is no capability to it here.
pub const NOTE_SHARED: u64 = 72;
/// Asks what is here of an object, named as above. Back: `rdi` = 1 if there is a capability to it, `rsi`
/// = 1 if there is one to anything that was made of it, `rdx` = 1 if there is one to anything that covers
/// no more than its range.
pub const LOOK_UP: u64 = 73;
/// Takes away all capabilities to an object, named as above, and all to what was made of it. Back: `rdi`
/// = 1 where more is left to do: call again.
pub const REMOVE: u64 = 74;
/// Offers the empty slot `rsi`, once and for all. When a domain's slots go, and with them the last
/// capability here to what other cores know, that is moved there as soon as it is empty, and the monitor
/// is rung, to take it out. [`REVOKE`] and [`REMOVE`] stop with [`Error::AskMonitor`] where it is not empty.
pub const OFFER_SLOT: u64 = 75;
/// Stops this core in good order: it does nothing any more until it is started anew. Does not
/// return.
pub const STOP_CORE: u64 = 76;
/// The highest number of a call.
pub const LAST: u64 = STOP_CORE;

/// Most pages in one call of [`MAP`]: what one page table holds.
pub const MAP_PAGES: u64 = 512;

/// Most bytes that one call zeroes.
pub const CLEAN_BYTES: u64 = 256 * 1024;

/// Bits above kind and rights in what [`IDENTIFY`] says.
pub mod identity {
    /// Memory that the CPU driver does not map.
    pub const UNREACHABLE: u64 = 1 << 16;
    /// A frame that is not zeroed yet.
    pub const UNCLEAN: u64 = 1 << 17;
    /// Other cores have capabilities to the object too.
    pub const SHARED: u64 = 1 << 18;
    /// Where the depth of the object is: so many of the same range it was made from.
    pub const DEPTH_SHIFT: u32 = 24;
}

/// What [`CONFIGURE`] sets. A capability is copied: the dispatcher keeps one of its own.
pub mod property {
    /// Its root CNode: a CNode (right: write).
    pub const CSPACE: u64 = 1;
    /// Its address space: a root page table (right: write).
    pub const SPACE: u64 = 2;
    /// Who is called when it meets an exception: an endpoint (right: write), 0 for nobody. The
    /// words of the call: exception vector, error code, faulting address, `rip`, `rsp`.
    /// The first word of the answer: [`super::RESUME`] or anything else, and it has died of it.
    pub const FAULT_HANDLER: u64 = 3;
    /// What wakes it: a doorbell of this core, one vector, nobody else's ([`super::Error::BadVector`]).
    pub const DOORBELL: u64 = 4;
    /// Its priority, at most the caller's own: see [`super::priority`].
    pub const PRIORITY: u64 = 5;
    /// Its name: sixteen bytes of UTF-8, filled up with zeros.
    pub const NAME: u64 = 6;
    /// Addresses that others map pages at, as they are touched: the first, the first beyond, and which of the
    /// dispatcher's [`super::PAGED_RANGES`] ranges this is.
    /// A page fault there is not told to the fault handler, nor is it the end: the dispatcher is
    /// [`super::life::PAGING`], and the monitor's doorbell rings. Once started, it begins anew with
    /// the same instruction. Who waits for its answer goes on waiting. In the beginning there are
    /// none.
    pub const PAGED: u64 = 7;
}

/// Ranges of addresses of a dispatcher that others map pages at.
pub const PAGED_RANGES: usize = 2;

/// Answer of a fault handler: go on where the exception was.
pub const RESUME: u64 = 1;

/// Bytes of a dispatcher object.
pub const DISPATCHER_BYTES: u64 = 16 * 1024;

/// Names of the registers that [`READ_REGISTER`] reads, by index.
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
    /// Not cached. Device registers are never cached unless they are write-combining.
    pub const UNCACHED: u64 = 4;
    /// Writes go through the cache to memory.
    pub const WRITE_THROUGH: u64 = 8;
    /// Not cached, and writes may be put together: for device frames.
    pub const WRITE_COMBINING: u64 = 16;
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
    /// It was not started yet, or was stopped.
    pub const STOPPED: u64 = 3;
    /// It waits for a page: see [`super::property::PAGED`].
    pub const PAGING: u64 = 4;
}

/// Why a system call did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Error {
    /// There is no such call.
    NoSuchCall = 1,
    /// The capability lacks the right that it takes.
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
    /// The capability is to another kind of object than it takes, or none of that kind can be
    /// made of it.
    WrongKind = 10,
    /// The address does not name a slot.
    NoSuchSlot = 11,
    /// The slot that should hold a capability holds none.
    EmptySlot = 12,
    /// The slot that should be empty is not.
    OccupiedSlot = 13,
    /// The system was not started with test hooks.
    TestHooksOff = 14,
    /// The core carries as many dispatchers, or the dispatcher receives on as many endpoints, as
    /// it can.
    TooMany = 15,
    /// A minted capability would have rights that its source has not.
    MoreRights = 16,
    /// The source has a badge already, and a badge is for ever.
    AlreadyBadged = 17,
    /// Nothing can be made of a capability with a badge.
    Badged = 18,
    /// Objects of that kind do not come in that size.
    WrongSize = 19,
    /// No objects at all, or more than one call makes.
    WrongCount = 20,
    /// It would not fit the range of the capability.
    OutOfRange = 21,
    /// A kernel object would lie in memory that the CPU driver does not map.
    Unreachable = 22,
    /// An object made of all of another that was made of all of another, and so on, 255 times.
    TooDeep = 23,
    /// Something else was made of a part of that range.
    Overlap = 24,
    /// What is inserted claims a range that is known as something else.
    Conflict = 25,
    /// The capability was minted without the right to revoke.
    NotRevocable = 26,
    /// Other cores have to agree first: ask the monitor.
    AskMonitor = 27,
    /// The frame was not zeroed yet.
    Unclean = 28,
    /// The capability is mapped already: copy it to map it a second time.
    CapabilityMapped = 29,
    /// Nothing is mapped by the capability, or at the address.
    NotMapped = 30,
    /// A page of another size is in the way, or the page table is of another level.
    WrongLevel = 31,
    /// Whoever should answer is gone.
    PeerGone = 32,
    /// The call could never be answered: whoever should answer waits for the caller.
    Deadlock = 33,
    /// A call that was received was not answered yet.
    MustReply = 34,
    /// Nobody waits for an answer.
    NoCaller = 35,
    /// A doorbell rang.
    Interrupted = 36,
    /// The clock reached the deadline.
    TimedOut = 37,
    /// The other side has no empty slot for the capability.
    NoReceiveSlot = 38,
    /// Another dispatcher receives on the endpoint.
    Busy = 39,
    /// The vector wakes somebody else already, or is not a doorbell's.
    BadVector = 40,
    /// The dispatcher has no address space.
    NotReady = 41,
    /// The machine has no such device.
    NoDevice = 42,
}

impl Error {
    /// Every error, in the order of the codes from 1 on.
    pub const ALL: [Self; 42] = [
        Self::NoSuchCall,
        Self::NotAllowed,
        Self::BadArgument,
        Self::Misaligned,
        Self::KernelHalf,
        Self::NeedTable,
        Self::AlreadyMapped,
        Self::NotFound,
        Self::WritableAndExecutable,
        Self::WrongKind,
        Self::NoSuchSlot,
        Self::EmptySlot,
        Self::OccupiedSlot,
        Self::TestHooksOff,
        Self::TooMany,
        Self::MoreRights,
        Self::AlreadyBadged,
        Self::Badged,
        Self::WrongSize,
        Self::WrongCount,
        Self::OutOfRange,
        Self::Unreachable,
        Self::TooDeep,
        Self::Overlap,
        Self::Conflict,
        Self::NotRevocable,
        Self::AskMonitor,
        Self::Unclean,
        Self::CapabilityMapped,
        Self::NotMapped,
        Self::WrongLevel,
        Self::PeerGone,
        Self::Deadlock,
        Self::MustReply,
        Self::NoCaller,
        Self::Interrupted,
        Self::TimedOut,
        Self::NoReceiveSlot,
        Self::Busy,
        Self::BadVector,
        Self::NotReady,
        Self::NoDevice,
    ];

    /// The error behind a number from `rax`; `None` for 0 and for numbers without meaning.
    pub const fn from_code(code: u64) -> Option<Self> {
        if code == 0 || code > Self::ALL.len() as u64 {
            return None;
        }
        Some(Self::ALL[code as usize - 1])
    }
}

/// First interrupt vector that may serve as a doorbell.
pub const FIRST_DOORBELL: u64 = 0x40;
/// Last interrupt vector that may serve as a doorbell.
pub const LAST_DOORBELL: u64 = 0xef;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_comes_back_from_its_code() {
        for error in Error::ALL {
            assert_eq!(Error::from_code(error as u64), Some(error));
        }
        for code in [0, Error::ALL.len() as u64 + 1, u64::MAX] {
            assert_eq!(Error::from_code(code), None);
        }
    }
}
