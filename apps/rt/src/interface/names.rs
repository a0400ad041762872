//! Requests about the registry of names, of which every core has a copy.
//!
//! A name is 1 to 32 bytes, none of them 0: in four words, the first byte lowest, filled up with
//! zeros. These requests go to the domain's own monitor, whatever core they name.

/// All of them.
pub const REQUESTS: core::ops::Range<u16> = 0x20..0x28;

/// Binds a name, or this domain's own binding anew: the name, the value. It is answered when every
/// core's copy says so. [`super::Error::NameTaken`], [`super::Error::TooManyNames`].
pub const BIND: u16 = 0x20;
/// Takes a binding of this domain away: the name. [`super::Error::NotBound`],
/// [`super::Error::NotOwner`].
pub const UNBIND: u16 = 0x21;
/// Looks a name up. Back: the value, and the domain that bound it. [`super::Error::NotBound`].
pub const LOOKUP: u16 = 0x22;
/// From now on tells of every change of a name, or, with 1 in the fifth argument, of every name that
/// begins with it, by an event ([`event`]). At most [`MAX_WATCHES`] for a domain.
pub const WATCH: u16 = 0x23;
/// Ends a watch: the token that it was asked for with. No event of it comes after the answer.
pub const UNWATCH: u16 = 0x24;
/// The first name after this one (four zeros: of all) that this core's copy has, which may be
/// older than what [`LOOKUP`] finds. Back: the name, the value; [`super::Error::NotBound`] at the end.
pub const NEXT: u16 = 0x25;

/// Watches that a domain may have.
pub const MAX_WATCHES: usize = 16;

/// What word 1 of an event says. Word 2 is the value, words 3 to 6 are the name.
pub mod event {
    /// The name is not bound any more.
    pub const UNBOUND: u64 = 0;
    /// The name is bound to the value.
    pub const BOUND: u64 = 1;
    /// The domain did not take its events: this watch has ended.
    pub const OVERRUN: u64 = 2;
}
