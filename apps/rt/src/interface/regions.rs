//! Requests about capabilities that go to other cores.

/// All of them.
pub const REQUESTS: core::ops::Range<u16> = 0x28..0x30;
