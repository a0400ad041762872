//! Kinds of capability: what range each may cover, and which is made from which.

use crate::slot::{SLOT_BYTES, SlotId};
use abi::layout::PAGE;
use abi::syscall::DISPATCHER_BYTES;
use core::ops::Range;
use zerocopy::{FromZeros, Immutable, IntoBytes, KnownLayout};

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

    /// The slots in an object of this kind: the first, which is the database's own, and
    /// how many; `None` where the kind has none.
    pub const fn slots(self, base: u64, bytes: u64) -> Option<(SlotId, u64)> {
        match self {
            Self::CNode => Some((SlotId(base), bytes / SLOT_BYTES)),
            Self::Dispatcher => Some((
                SlotId(base + bytes - DISPATCHER_SLOTS * SLOT_BYTES),
                DISPATCHER_SLOTS,
            )),
            _ => None,
        }
    }
}
