//! Capabilities: kinds, rights, and how a domain names the ones that it holds.
//!
//! A domain holds capabilities in the slots of CNodes. Its *root CNode* holds capabilities to
//! further CNodes, and an address names a slot in two steps: which slot of the root CNode, and
//! which slot of the CNode that is found there ([`Address`]). The first slot of every CNode is
//! the CPU driver's own, so index 0 names nothing in either step.
//!
//! # What a domain starts with
//!
//! ```text
//!  root CNode            task CNode
//!    1 root CNode itself   1 dispatcher       its own: read and write registers, …
//!    2 task CNode ───────► 2 address space    its own root page table
//!    3 memory CNode        3 monitor doorbell wakes the monitor
//!    4 … its own to use    4 own doorbell     wakes this domain
//!                          5 gift             what its parent gave along; may be empty
//!                         16 … its own to use
//!  memory CNode: the frames of image, stack and heap and the page tables, from slot 1 on
//! ```
//!
//! A monitor starts with the same root and task CNode, without a memory CNode, and in the task
//! CNode with what [`monitor`] lists beside its dispatcher, address space and doorbell.

use crate::layout::PAGE;
use crate::syscall::DISPATCHER_BYTES;
use core::ops::Range;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Names a slot: index into the root CNode above, index into the CNode found there in the lowest
/// [`INDEX_BITS`] bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub u64);

/// Bits of an index into a CNode.
pub const INDEX_BITS: u32 = 12;

impl Address {
    /// Slot `index` of the CNode in slot `cnode` of the root CNode.
    pub const fn new(cnode: u64, index: u64) -> Self {
        Self(cnode << INDEX_BITS | index)
    }

    /// The slot so many further on in the same CNode.
    #[must_use]
    pub const fn plus(self, slots: u64) -> Self {
        Self(self.0 + slots)
    }
}

/// In the root CNode: the root CNode itself.
pub const ROOT_CNODE: Address = Address::new(1, 1);
/// In the root CNode: the task CNode.
pub const TASK_CNODE: Address = Address::new(1, 2);
/// In the root CNode: the memory CNode; not in a monitor.
pub const MEMORY_CNODE: Address = Address::new(1, 3);
/// First slot of the root CNode that is the domain's to use.
pub const FIRST_FREE_CNODE: u64 = 4;

/// Its own dispatcher.
pub const OWN_DISPATCHER: Address = Address::new(2, 1);
/// Its own address space: the root page table.
pub const OWN_SPACE: Address = Address::new(2, 2);
/// The doorbell that wakes the monitor.
pub const MONITOR_DOORBELL: Address = Address::new(2, 3);
/// The doorbell that wakes this domain.
pub const OWN_DOORBELL: Address = Address::new(2, 4);
/// The capability that its parent gave along.
pub const GIFT: Address = Address::new(2, 5);
/// First slot of the task CNode that is the domain's to use.
pub const FIRST_FREE_SLOT: u64 = 16;

/// Slots of a domain's and a monitor's root CNode, and of its task CNode: a page each.
pub const FIRST_CNODE_SLOTS: u64 = PAGE / SLOT_BYTES;

/// What a monitor finds in its task CNode beside dispatcher and address space.
pub mod monitor {
    use super::Address;

    /// All cores of the machine: their vectors, the right to start them, and, since this
    /// core is among them, the authority over its CPU driver.
    pub const CORES: Address = Address::new(2, 6);
    /// Private RAM that nothing uses yet; `free` in the startup page tells where it begins.
    pub const PRIVATE_RAM: Address = Address::new(2, 7);
    /// The bundle of programs: a frame to read and execute.
    pub const BUNDLE: Address = Address::new(2, 8);
    /// On core 0: all I/O ports.
    pub const PORTS: Address = Address::new(2, 9);
    /// On core 0: all interrupt lines.
    pub const LINES: Address = Address::new(2, 10);
}

/// Bytes of a slot, and what its physical address is a multiple of.
pub const SLOT_BYTES: u64 = 64;

/// What the holder of a capability may do.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct Rights(u8);

bitflags::bitflags! {
    impl Rights: u8 {
        /// Read, or receive.
        const READ = 1;
        /// Write, or send.
        const WRITE = 2;
        /// Fetch instructions.
        const EXECUTE = 4;
        /// Send capabilities along.
        const GRANT = 8;
        /// Revoke: take from all others what is to the same object.
        const REVOKE = 16;
    }
}

/// Bytes of an endpoint object.
pub const ENDPOINT_BYTES: u64 = 64;

/// Fewest slots of a CNode. The first slot of every container is the database's own.
pub const MIN_CNODE_SLOTS: u64 = 2;

/// Most slots of a CNode: clearing them must not take long.
pub const MAX_CNODE_SLOTS: u64 = 4096;

/// Slots at the end of a dispatcher's memory, for the capabilities that it lives by (its
/// root CNode, its address space, its fault handler, …). The first is the database's own.
pub const DISPATCHER_SLOTS: u64 = 8;

/// Vectors of a core: core `c` is the range `c * VECTORS .. (c + 1) * VECTORS` of
/// [`Resource::Vectors`].
pub const VECTORS: u64 = 256;

/// What kind of thing a capability is to.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromZeros,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(u8)]
pub enum Kind {
    /// Nothing: an empty slot.
    Null = 0,
    /// Memory without a use yet.
    Ram,
    /// Memory that user code may map.
    Frame,
    /// Device registers that user code may map.
    DeviceFrame,
    /// A page table whose entries are 4 KiB pages.
    PageTable1,
    /// A page directory: entries are 2 MiB pages or page tables of level 1.
    PageTable2,
    /// A page directory pointer table: entries are 1 GiB pages or tables of level 2.
    PageTable3,
    /// A root of an address space.
    PageTable4,
    /// Slots for capabilities.
    CNode,
    /// What is scheduled.
    Dispatcher,
    /// Where calls to a dispatcher arrive.
    Endpoint,
    /// Vectors that may be rung.
    Doorbell,
    /// Interrupt lines that may be received.
    IrqHandler,
    /// I/O ports.
    IoPort,
    /// All vectors of cores, and whatever else a monitor may do to a core.
    Core,
}

/// The line of numbers that ranges lie on, cut into what they number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Bytes of physical address space.
    Memory,
    /// I/O ports.
    Ports,
    /// Global system interrupts.
    Lines,
    /// Interrupt vectors of cores, [`VECTORS`] a core.
    Vectors,
}

impl Resource {
    /// Its part of the line. Port 0x3f8 is `Resource::Ports.range().start + 0x3f8`.
    pub const fn range(self) -> Range<u64> {
        match self {
            Self::Memory => 0..1 << 52,
            Self::Ports => 1 << 60..(1 << 60) + 0x1_0000,
            Self::Lines => 2 << 60..(2 << 60) + (1 << 24),
            Self::Vectors => 3 << 60..(3 << 60) + (VECTORS << 32),
        }
    }
}

impl Kind {
    /// Every kind but [`Kind::Null`].
    pub const ALL: [Self; 14] = [
        Self::Ram,
        Self::Frame,
        Self::DeviceFrame,
        Self::PageTable1,
        Self::PageTable2,
        Self::PageTable3,
        Self::PageTable4,
        Self::CNode,
        Self::Dispatcher,
        Self::Endpoint,
        Self::Doorbell,
        Self::IrqHandler,
        Self::IoPort,
        Self::Core,
    ];

    /// The kind behind a number that a user gave; `None` for 0 and for numbers without
    /// meaning.
    pub fn from_code(code: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u64 == code)
    }

    /// What its ranges number; `None` for [`Kind::Null`].
    pub const fn resource(self) -> Option<Resource> {
        Some(match self {
            Self::Null => return None,
            Self::IoPort => Resource::Ports,
            Self::IrqHandler => Resource::Lines,
            Self::Doorbell | Self::Core => Resource::Vectors,
            _ => Resource::Memory,
        })
    }

    /// Whether an object of kind `result` may be made from one of this kind. What may be
    /// made in two steps may be made in one.
    pub const fn may_become(self, result: Self) -> bool {
        match self {
            Self::Ram => matches!(
                result,
                Self::Ram
                    | Self::Frame
                    | Self::PageTable1
                    | Self::PageTable2
                    | Self::PageTable3
                    | Self::PageTable4
                    | Self::CNode
                    | Self::Dispatcher
                    | Self::Endpoint
            ),
            Self::Core => matches!(result, Self::Core | Self::Doorbell),
            Self::Frame => matches!(result, Self::Frame),
            Self::DeviceFrame => matches!(result, Self::DeviceFrame),
            Self::Doorbell => matches!(result, Self::Doorbell),
            Self::IrqHandler => matches!(result, Self::IrqHandler),
            Self::IoPort => matches!(result, Self::IoPort),
            _ => false,
        }
    }

    /// Whether an object may have this size (bytes, or whatever the range numbers).
    pub const fn accepts_size(self, bytes: u64) -> bool {
        match self {
            Self::Null => false,
            Self::Ram | Self::Frame | Self::DeviceFrame => bytes != 0 && bytes.is_multiple_of(PAGE),
            Self::PageTable1 | Self::PageTable2 | Self::PageTable3 | Self::PageTable4 => {
                bytes == PAGE
            }
            Self::CNode => {
                bytes.is_power_of_two()
                    && bytes >= MIN_CNODE_SLOTS * SLOT_BYTES
                    && bytes <= MAX_CNODE_SLOTS * SLOT_BYTES
            }
            Self::Dispatcher => bytes == DISPATCHER_BYTES,
            Self::Endpoint => bytes == ENDPOINT_BYTES,
            Self::Core => bytes != 0 && bytes.is_multiple_of(VECTORS),
            Self::Doorbell | Self::IrqHandler | Self::IoPort => bytes != 0,
        }
    }

    /// What the base of an object of this size must be a multiple of.
    pub const fn alignment(self, bytes: u64) -> u64 {
        match self {
            Self::CNode if bytes < PAGE => bytes,
            Self::Endpoint => ENDPOINT_BYTES,
            Self::Core => VECTORS,
            Self::Null | Self::Doorbell | Self::IrqHandler | Self::IoPort => 1,
            _ => PAGE,
        }
    }

    /// Whether the CPU driver itself reads and writes objects of this kind, so that they
    /// must lie in memory that it maps.
    pub const fn is_kernel_object(self) -> bool {
        matches!(
            self,
            Self::PageTable1
                | Self::PageTable2
                | Self::PageTable3
                | Self::PageTable4
                | Self::CNode
                | Self::Dispatcher
                | Self::Endpoint
        )
    }

    /// The slots in an object of this kind: the physical address of the first, which is the
    /// CPU driver's own, and how many; `None` where the kind has none.
    pub const fn slots(self, base: u64, bytes: u64) -> Option<(u64, u64)> {
        match self {
            Self::CNode => Some((base, bytes / SLOT_BYTES)),
            Self::Dispatcher => Some((
                base + bytes - DISPATCHER_SLOTS * SLOT_BYTES,
                DISPATCHER_SLOTS,
            )),
            _ => None,
        }
    }
}
