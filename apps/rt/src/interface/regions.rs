//! Requests about capabilities that go to other cores. They go to the domain's own monitor, whatever
//! core the request names. "Slot" is an address among the asking domain's slots.

/// All of them.
pub const REQUESTS: core::ops::Range<u16> = 0x28..0x30;

/// Gives a domain of the same job, on whichever core, a copy of a capability: the slot, the domain,
/// the [`Rights`](abi::capability::Rights) of the copy, none of which the capability may lack. The
/// capability must have the right to grant, and the domain wait with [`RECEIVE`].
pub const SEND: u16 = 0x28;
/// Waits until a capability comes, and puts it into a slot: an empty one. Back: the domain that sent
/// it; its kind in the lowest byte and its rights in the next.
pub const RECEIVE: u16 = 0x29;
/// Waits no longer: whatever has not come by then is refused, and the waiting [`RECEIVE`] is answered
/// [`Error::Withdrawn`](super::Error::Withdrawn).
pub const WITHDRAW: u16 = 0x2a;
/// [`RETYPE`](abi::syscall::RETYPE) of what other cores have capabilities to as well, into slots of
/// the asking domain: source, first destination, kind and count, offset, bytes. Back: the error of
/// the system call or 0, and its result.
pub const RETYPE: u16 = 0x2b;
/// [`DELETE`](abi::syscall::DELETE) of such a capability: the slot. Back: the error of the system call
/// or 0.
pub const DELETE: u16 = 0x2c;
/// [`REVOKE`](abi::syscall::REVOKE) of such a capability, to its end: the slot. Back: as above.
pub const REVOKE: u16 = 0x2d;
