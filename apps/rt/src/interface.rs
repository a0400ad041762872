//! The messages between a domain and its monitor, as numbers.
//!
//! A request names a core; the domain's own monitor serves those for its core and hands on
//! the others. So a domain needs one channel only.
//!
//! ```text
//!  request   word 0: token (low half), core (high half)   words 1-6: arguments
//!  reply     word 0: token                                word 1: Error   words 2-6: results
//! ```

pub mod cores;
pub mod names;
pub mod regions;
pub mod spaces;

/// Bytes for the console; a newline ends a line. No reply.
pub const WRITE: u16 = 1;
/// Up to 48 bytes of text for the next [`SPAWN`] with the same token. No reply.
pub const TEXT: u16 = 2;
/// Starts a program on a core, with the text before: its name and arguments, divided by zero
/// bytes, then its environment in the same way. The arguments:
///
/// 1. a frame to share with it (an id, 0 for none);
/// 2. the address of a capability of the asking domain that it gets a copy of (0 for none), and
/// 3. the first of three empty slots of the asking domain, into which its dispatcher, its root
///    CNode and its address space are put in place of starting it (0: it is started); both on
///    the same core only;
/// 4. bytes of its name and arguments; the rest of the text is the environment, or with
///    [`INHERIT`] it is that of the asking domain.
///
/// Back: the domain.
pub const SPAWN: u16 = 3;
/// Waits for the end of a domain that this one started, once; or of any other of the same job, on
/// whatever core, as often as one likes as long as it runs and some time afterwards. Back: the exit
/// status.
pub const WAIT: u16 = 4;
/// Ends a domain of the same job.
pub const KILL: u16 = 5;
/// Makes a frame that can be shared: bytes. Back: address, bytes, id.
pub const FRAME: u16 = 6;
/// Asks for the doorbell of a domain of the same job: the domain, and the empty slot of the
/// asking domain that it is put into.
pub const DOORBELL: u16 = 7;
/// Asks a core's monitor which cores are up. Back: epoch, then the set's four words.
pub const VIEW: u16 = 8;
/// Asks what the kernel half of a core maps at or after an address. Back: address,
/// physical address, bytes, rights; 0 bytes at the end.
pub const MAPPING: u16 = 9;
/// Test hook: has a core's CPU driver write to a physical address that is not its own.
pub const WILD_WRITE: u16 = 10;
/// Reads one of a core's counters: an index into [`abi::record::Counters`], or one of [`counter`].
/// Back: its value.
pub const COUNTER: u16 = 11;
/// Sends back what it was sent.
pub const ECHO: u16 = 12;
/// Asks how much memory a core has left. Back: free pages of private RAM, of its own shared RAM;
/// pages of other cores' shared RAM that it has borrowed; and pages of its own that it has lent, or
/// had lent to cores that were lost, where others use them still.
pub const MEMORY: u16 = 13;
/// Makes RAM of the domain's own: bytes, a multiple of the page size, and the empty slot of
/// the asking domain that the capability is put into. It stays until [`FREE`] or the domain's end.
pub const RAM: u16 = 14;
/// Takes RAM back, and with it everything that was made of it: its physical address.
pub const FREE: u16 = 15;
/// Asks whether a domain that this one started has ended. Back: 1 if so, and its exit status;
/// then it was waited for.
pub const TRY_WAIT: u16 = 16;
/// Asks for the domain with the lowest number from this one on, at least 1, on a core. Back: the
/// domain, with its [`state`] in the highest byte; its parent; its job; two words of its name,
/// UTF-8, filled up with zeros. [`Error::NoSuchDomain`] at the end.
pub const LIST: u16 = 17;
/// Asks core 0 for a device, for a domain of that core: the kind of capability; the first port, the
/// physical address or the interrupt line; how many ports, bytes (whole pages) or 1; and the
/// empty slot of the asking domain that the capability is put into. It stays until [`RELEASE`] or the
/// domain's end.
///
/// Only the program that the command line named may ask ([`Error::NotAllowed`]); it may give copies
/// to others. Nobody gets ([`Error::InUse`]) what another has, nor
///
/// * the ports of the first serial port, of the interrupt controllers of old (0x20, 0x21, 0xa0, 0xa1),
///   and those that end everything: 0xf4 to 0xf7 and 0xcf9;
/// * RAM, the first 640 KiB, the bundle, the local APIC and the megabyte from it on, through which
///   interrupts are sent, and I/O APICs;
/// * lines whose interrupts last as long as the line is active ([`Error::ByLevel`]): those of PCI.
pub const DEVICE: u16 = 18;
/// Gives a device back: its kind, and first port, address or line. All to whom it was given lose it.
pub const RELEASE: u16 = 19;
/// The interrupt line in a slot of the asking domain, the first argument, rings that domain from
/// now on (second argument 1), and nobody else; or it rings it no more (0). That also ends with
/// the domain, and with [`RELEASE`] by who had the line first. Only on core 0.
pub const IRQ: u16 = 20;
/// Asks where something of the machine is: what, as [`located`] has it, and its number. Back: as
/// said there, or [`Error::NoSuchDevice`].
pub const LOCATE: u16 = 21;
/// Has all monitors spread what goes to many cores by another strategy: [`strategy`], and its arity.
/// Core 0 is to be asked, by a domain of the job that the command line named
/// ([`Error::NotAllowed`]). Back, nothing, when a view with it holds on core 0; other cores may still be
/// about to install it.
pub const STRATEGY: u16 = 22;
/// Asks a core what a message costs between two nodes of the machine, as all cores have agreed on it:
/// from which, to which. Back: the number of the table of costs that the core's view names, then for how many
/// nanoseconds the sender is busy, the message under way, and the receiver busy; all 0 while the
/// strategy is not [`strategy::COMPUTED`]. [`Error::BadArgument`] where there are not so many nodes.
pub const COSTS: u16 = 23;
/// Has all cores record other events in their traces, as [`tracing`] has it. Core 0 is to be asked, by a
/// domain of the job that the command line named ([`Error::NotAllowed`]). Back, nothing, when all
/// cores do.
pub const TRACE: u16 = 24;
/// All requests; those of [`names`], [`regions`], [`spaces`] and [`cores`] have ranges of their own.
pub const REQUESTS: core::ops::Range<u16> = TEXT..0x60;
/// The answer to a request.
pub const REPLY: u16 = 0x60;
/// Something that the domain asked to be told of; which request began it is in the token of word 0.
pub const EVENT: u16 = 0x61;

/// Bytes of text in one [`TEXT`] message.
pub const TEXT_BYTES: usize = 48;

/// In [`SPAWN`], beside the bytes of arguments: the child has its parent's environment.
pub const INHERIT: u64 = 1 << 32;

/// What a monitor counts, for [`COUNTER`]: all since its start.
pub mod counter {
    /// Messages to other monitors.
    pub const MESSAGES: u64 = 0x100;
    /// Of these: about which cores are up.
    pub const OF_MEMBERSHIP: u64 = 0x101;
    /// About names.
    pub const OF_NAMES: u64 = 0x102;
    /// About capabilities on several cores.
    pub const OF_REGIONS: u64 = 0x103;
    /// About address spaces that span cores.
    pub const OF_SPACES: u64 = 0x104;
    /// Requests handed on for domains, answers to them, exits; memory that is lent or given back.
    pub const OF_REQUESTS: u64 = 0x105;
    /// Text, and everything else.
    pub const OF_OTHERS: u64 = 0x106;
    /// Cache lines written in the channels to other monitors: messages, acknowledgements, sleep.
    pub const LINES: u64 = 0x107;
    /// Messages of older views that were refused.
    pub const REFUSED: u64 = 0x108;
    /// Messages of newer views that had to wait.
    pub const HELD_BACK: u64 = 0x109;
    /// Views whose table of costs was not there: none.
    pub const TABLELESS: u64 = 0x10a;
    /// When the core's monitor began, on the system's clock, in nanoseconds.
    pub const BEGAN_NS: u64 = 0x10b;
    /// When the first view held, of core 0: all cores were up.
    pub const UP_NS: u64 = 0x10c;
    /// When all monitors had heard from each other, of core 0.
    pub const CONNECTED_NS: u64 = 0x10d;
}

/// What [`LOCATE`] is asked for.
pub mod located {
    /// The HPET, of which there is number 0. Back: physical address, bytes.
    pub const HPET: u64 = 1;
    /// PCI's configuration space, of which number 0 is that of bus 0 in segment 0. Back: physical
    /// address, bytes.
    pub const PCI_CONFIG: u64 = 2;
    /// The interrupt of ISA with this number, below 16. Back: its line, 1, and 1 again if it lasts as
    /// long as the line is active, else 0.
    pub const ISA_LINE: u64 = 3;
}

/// How a message to many cores is spread, for [`STRATEGY`].
pub mod strategy {
    /// Whoever has something to say sends it to each.
    pub const UNICAST: u64 = 0;
    /// A tree: each core sends it to so many others.
    pub const TREE: u64 = 1;
    /// Such a tree over nodes of the machine; one core of each sends it to the others of its node.
    pub const SOCKETS: u64 = 2;
    /// A tree by what messages between nodes cost. That is measured first, each time this is asked
    /// for.
    pub const COMPUTED: u64 = 3;
    /// The highest arity.
    pub const MAX_ARITY: u64 = 256;
}

/// What is to change, for [`TRACE`].
pub mod tracing {
    /// The groups that are recorded: a bit each.
    pub const ENABLE: u64 = 1;
    /// The events that the trace starts with, and after which it stops; 0: none.
    pub const TRIGGERS: u64 = 2;
}

/// What becomes of a domain, as [`LIST`] says it.
pub mod state {
    /// It runs, is ready to, or waits.
    pub const ALIVE: u64 = 0;
    /// It was not started yet, or was stopped.
    pub const STOPPED: u64 = 1;
    /// It has ended, or is about to.
    pub const ENDING: u64 = 2;
    /// Where in the word it is.
    pub const SHIFT: u32 = 56;
}

/// Exit status of a domain that met an exception: this plus the exception's vector.
pub const FAULT_STATUS: i32 = 128;
/// Exit status of a domain that was killed, or whose core was stopped in good order.
pub const KILLED_STATUS: i32 = 137;
/// Exit status of a domain whose core was lost.
pub const LOST_STATUS: i32 = 145;

/// Why a monitor did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Error {
    /// No such request.
    NoSuchRequest = 1,
    /// No such core, or it is not up.
    NoSuchCore = 2,
    /// The bundle has no program of that name.
    NoSuchProgram = 3,
    /// The program's file is not one that may be loaded.
    BadProgram = 4,
    /// No such domain, or none of this job.
    NoSuchDomain = 5,
    /// No such frame, or none that this domain made.
    NoSuchFrame = 6,
    /// The core has too little memory left.
    NoMemory = 7,
    /// The core carries as many domains as it can.
    TooManyDomains = 8,
    /// An argument lies outside of what the request takes.
    BadArgument = 9,
    /// The system was not started with test hooks.
    TestHooksOff = 10,
    /// The domain has as many pieces of RAM as it may have.
    TooMuchRam = 11,
    /// The channel to the monitor ended.
    MonitorGone = 12,
    /// Too much is under way to that core: wait for answers, then ask again.
    Busy = 13,
    /// The domain has as many children that it has not waited for as it may have.
    TooManyChildren = 14,
    /// Name, arguments and environment are longer than [`abi::limits::ARGUMENT_BYTES`].
    TooLong = 15,
    /// Capabilities go to domains of the same core only.
    OtherCore = 16,
    /// The address names no slot of the asking domain, an empty one where there should be a
    /// capability, or one with a capability that should be empty.
    BadSlot = 17,
    /// The CPU driver refused what the monitor asked of it.
    Refused = 18,
    /// Another domain may ask for that, this one may not.
    NotAllowed = 19,
    /// The system uses the device, or another domain has it.
    InUse = 20,
    /// The machine has no such device, or the domain does not have it.
    NoSuchDevice = 21,
    /// Interrupts that last as long as their line is active are not supported.
    ByLevel = 22,
    /// The core that was asked was lost before it answered: whether it did what it was asked is
    /// not known.
    CoreLost = 23,
    /// A name is 1 to 32 bytes, none of them 0.
    BadName = 24,
    /// Another domain has bound the name.
    NameTaken = 25,
    /// Nobody has bound the name.
    NotBound = 26,
    /// Another domain has bound the name: it alone may unbind it.
    NotOwner = 27,
    /// The registry is full.
    TooManyNames = 28,
    /// The domain has as many watches as it may have, or all domains of its core together.
    TooManyWatches = 29,
    /// Capabilities of that kind, or with a badge, stay on their core.
    StaysHere = 32,
    /// The capability lacks the right to grant, or a right that the copy is to have.
    NoRight = 33,
    /// The frame was not zeroed yet.
    Unclean = 34,
    /// Something was made of it already: only the parts can be sent.
    InParts = 35,
    /// The receiver does not wait for a capability, or its slot is not empty.
    NotWaiting = 36,
    /// Somebody revoked the capability.
    Revoked = 37,
    /// The domain waits for a capability already.
    WaitsAlready = 38,
    /// The domain gave up waiting.
    Withdrawn = 39,
    /// The domain is in no span.
    NotSpanned = 40,
    /// The domain is in a span, or the core has a member of it.
    AlreadySpanned = 41,
    /// Nothing is mapped there.
    NotMapped = 42,
    /// The core takes part in as many spans as it can.
    TooManySpans = 43,
    /// The domain has mapped as many pieces, or the span is cut in as many, as may be.
    TooManyMappings = 44,
    /// The span has ended.
    SpanEnded = 45,
    /// The core is up already.
    CoreRuns = 48,
    /// Core 0 has console and devices: it is neither stopped nor started.
    CoreNeeded = 49,
    /// The core was started, and was not heard of in time.
    CoreSilent = 50,
    /// The core's memory cannot be laid out; the log says why.
    NoImage = 51,
    /// The system was started without room for traces (`trace=` on its command line).
    NoTrace = 56,
}

impl Error {
    /// The error behind a number; `None` for 0.
    pub const fn from_code(code: u64) -> Option<Self> {
        Some(match code {
            0 => return None,
            2 => Self::NoSuchCore,
            3 => Self::NoSuchProgram,
            4 => Self::BadProgram,
            5 => Self::NoSuchDomain,
            6 => Self::NoSuchFrame,
            7 => Self::NoMemory,
            8 => Self::TooManyDomains,
            9 => Self::BadArgument,
            10 => Self::TestHooksOff,
            11 => Self::TooMuchRam,
            12 => Self::MonitorGone,
            13 => Self::Busy,
            14 => Self::TooManyChildren,
            15 => Self::TooLong,
            16 => Self::OtherCore,
            17 => Self::BadSlot,
            18 => Self::Refused,
            19 => Self::NotAllowed,
            20 => Self::InUse,
            21 => Self::NoSuchDevice,
            22 => Self::ByLevel,
            23 => Self::CoreLost,
            24 => Self::BadName,
            25 => Self::NameTaken,
            26 => Self::NotBound,
            27 => Self::NotOwner,
            28 => Self::TooManyNames,
            29 => Self::TooManyWatches,
            32 => Self::StaysHere,
            33 => Self::NoRight,
            34 => Self::Unclean,
            35 => Self::InParts,
            36 => Self::NotWaiting,
            37 => Self::Revoked,
            38 => Self::WaitsAlready,
            39 => Self::Withdrawn,
            40 => Self::NotSpanned,
            41 => Self::AlreadySpanned,
            42 => Self::NotMapped,
            43 => Self::TooManySpans,
            44 => Self::TooManyMappings,
            45 => Self::SpanEnded,
            48 => Self::CoreRuns,
            49 => Self::CoreNeeded,
            50 => Self::CoreSilent,
            51 => Self::NoImage,
            56 => Self::NoTrace,
            _ => Self::NoSuchRequest,
        })
    }
}

impl core::fmt::Display for Error {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(match self {
            Self::NoSuchRequest => "the monitor knows no such request",
            Self::NoSuchCore => "no such core is up",
            Self::NoSuchProgram => "the bundle has no program of that name",
            Self::BadProgram => "the program's file cannot be loaded",
            Self::NoSuchDomain => "no such domain in this job",
            Self::NoSuchFrame => "no such frame of this domain",
            Self::NoMemory => "the core has too little memory left: start with more memory",
            Self::TooManyDomains => "the core carries as many domains as it can",
            Self::BadArgument => "an argument out of range",
            Self::TestHooksOff => "the system was started without test hooks",
            Self::TooMuchRam => "the domain has as many pieces of RAM as it may have",
            Self::Busy => "too much is under way to that core: wait for answers first",
            Self::TooManyChildren => "too many children: wait for some of them first",
            Self::MonitorGone => "the channel to the monitor ended",
            Self::TooLong => "arguments and environment are too long together",
            Self::OtherCore => "capabilities go to domains of the same core only",
            Self::BadSlot => "no such slot, or not empty, or nothing in it",
            Self::Refused => "the CPU driver refused what the monitor asked of it",
            Self::NotAllowed => "only the program on the command line may ask for that",
            Self::InUse => "the system or another domain uses the device",
            Self::NoSuchDevice => "no such device, or not this domain's",
            Self::ByLevel => "interrupts by level are not supported",
            Self::CoreLost => "the core that was to answer was lost: ask again on another one",
            Self::BadName => "a name is 1 to 32 bytes, none of them 0",
            Self::NameTaken => "another domain has bound the name",
            Self::NotBound => "nobody has bound the name",
            Self::NotOwner => "another domain has bound the name: it alone may unbind it",
            Self::TooManyNames => "the registry is full: unbind something first",
            Self::TooManyWatches => "too many watches: end one first",
            Self::StaysHere => "such a capability stays on its core",
            Self::NoRight => "the capability lacks a right that it takes",
            Self::Unclean => "the frame was not zeroed yet",
            Self::InParts => "something was made of it already: send the parts",
            Self::NotWaiting => "the receiver waits for no capability",
            Self::Revoked => "somebody revoked the capability",
            Self::WaitsAlready => "the domain waits for a capability already",
            Self::Withdrawn => "the domain gave up waiting",
            Self::NotSpanned => "the domain is in no span",
            Self::AlreadySpanned => "the domain, or one on that core, is in the span already",
            Self::NotMapped => "nothing is mapped there",
            Self::TooManySpans => "the core takes part in as many spans as it can",
            Self::TooManyMappings => "too much is mapped apart: unmap some of it first",
            Self::SpanEnded => "the span has ended",
            Self::CoreRuns => "the core is up already",
            Self::CoreNeeded => "core 0 has console and devices, and cannot be stopped",
            Self::CoreSilent => "the core was started and was not heard of in time",
            Self::NoImage => "the core's memory cannot be laid out: the log says why",
            Self::NoTrace => "there is no room for traces: start the system with trace=RECORDS",
        })
    }
}

impl From<crate::authority::Error> for Error {
    fn from(error: crate::authority::Error) -> Self {
        use crate::authority::Error::{NoMemory, Refused};
        use crate::system_call::Error as Call;
        match error {
            NoMemory => Self::NoMemory,
            Refused(Call::TooMany) => Self::TooManyDomains,
            Refused(Call::NoSuchSlot | Call::EmptySlot | Call::OccupiedSlot) => Self::BadSlot,
            Refused(_) => Self::Refused,
        }
    }
}
