//! Requests about cores that start and stop.
//!
//! Only the program that the command line named and the domains of its job may ask:
//! [`super::Error::NotAllowed`].

/// All of them.
pub const REQUESTS: core::ops::Range<u16> = 0x38..0x40;

/// Has the monitor that is asked start a core that does not run: the core. It is answered when that
/// core is in the view of the monitor that was asked. [`super::Error::NoSuchCore`],
/// [`super::Error::CoreRuns`], [`super::Error::CoreSilent`], [`super::Error::NoImage`],
/// [`super::Error::NoMemory`].
pub const START_CORE: u16 = 0x38;
/// Has the core that is asked leave: its domains are killed, then it is in no view any more and does
/// nothing until it is started again. It is answered when the view without it holds at the monitor
/// of the domain that asks; not at all to domains of the core itself, which end with it.
/// [`super::Error::CoreNeeded`], [`super::Error::Busy`] while it starts others.
pub const STOP_CORE: u16 = 0x39;
