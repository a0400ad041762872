//! Requests about domains that span cores. They go to the domain's own monitor, whatever core the
//! request names; each waits for the answer to the one before it ([`Error::Busy`](super::Error::Busy)).

/// Makes the asking domain the root of a span, and its first member.
pub const BEGIN: u16 = 0x30;
/// Starts a member on a core, by the root: the core, which has none; the address of the function that
/// it begins with; what that is given; bytes of its name and arguments, as in
/// [`SPAWN`](super::SPAWN), with the text before. Back: the domain, a child of the root, once it is
/// in the span.
pub const JOIN: u16 = 0x31;
/// Maps zeroed memory of this core for all members: bytes, whole pages. Back: the address.
pub const MAP: u16 = 0x32;
/// Unmaps on all cores what is mapped there: address, bytes, whole pages. Once it is answered, nobody
/// can use any of it.
pub const UNMAP: u16 = 0x33;
/// Sets the rights of what is mapped there, readable with 0 and writable too with 1: address, bytes,
/// rights. Once it is answered, nobody can use rights that are gone.
pub const PROTECT: u16 = 0x34;
/// Takes the asking domain, not the root, out of its span, without ending it.
pub const LEAVE: u16 = 0x35;
/// All of them.
pub const REQUESTS: core::ops::Range<u16> = BEGIN..0x38;
