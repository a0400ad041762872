//! Requests about address spaces that span cores.

/// All of them.
pub const REQUESTS: core::ops::Range<u16> = 0x30..0x38;
