//! Traces: events and spans of a program's own, and when they are recorded.
//!
//! ```no_run
//! # fn example() -> Result<(), rt::interface::Error> {
//! use rt::trace::{self, group};
//!
//! trace::start(group(trace::event::USER) | group(trace::event::MESSAGES))?;
//! for round in 0..10 {
//!     let _round = trace::span!("round", "number {value}", round);
//!     trace::user!("half way", "of {value}", round); // inside of the round
//! }
//! trace::stop()?;
//! # Ok(())
//! # }
//! ```
//!
//! What is recorded, and how, is in the crate `trace`. A system has rings only if its command line asked
//! for them (`trace=`): without, nothing is recorded and nothing refused but [`start`], [`stop`] and
//! [`set_triggers`]. Texts are checked when the program is compiled.

use crate::capability::{self, Address};
use crate::interface::{self, Error};
use crate::monitor;
use alloc::vec::Vec;

pub use ::trace::{
    Control, Fixed, Record, Recorder, Span, TRACE, event, operation_flow, span, user,
};

/// The bit of a group of events, of [`event::GROUPS`].
pub const fn group(number: u32) -> u32 {
    1 << number
}

/// All groups.
pub const ALL: u32 = event::ALL_GROUPS;

/// Whether this core has a ring for records.
pub fn is_there() -> bool {
    capacity() != 0
}

/// Records of the ring; 0: there is none.
pub fn capacity() -> u64 {
    Fixed::own().capacity
}

/// Where a frame lies in physical memory, for [`urpc::Channel::traced`]; 0 where there are no traces.
pub(crate) fn place_of(frame: Address) -> u64 {
    if !is_there() {
        return 0;
    }
    capability::identify(frame).map_or(0, |found| found.base)
}

/// Flow of a domain's request by its token: both the domain and its monitor know it.
pub fn flow_of_request(domain: u64, token: u32) -> u64 {
    const BITS: u32 = 24;
    const MASK: u64 = (1 << BITS) - 1;
    operation_flow(
        domain >> 32,
        (domain & MASK) << BITS | u64::from(token) & MASK,
    )
}

fn ask(what: u64, words: [u64; 3]) -> Result<(), Error> {
    let [a, b, c] = words;
    monitor::ask(0, interface::TRACE, [what, a, b, c, 0, 0]).map(|_| ())
}

/// Has all cores record these groups ([`group`]) from now on, and nothing else. Back when they do. For
/// the program of the command line and its job. Errors: [`Error::NoTrace`], [`Error::NotAllowed`],
/// [`Error::BadArgument`] where there is no such group.
pub fn start(groups: u32) -> Result<(), Error> {
    ask(interface::tracing::ENABLE, [groups.into(), 0, 0])
}

/// Has all cores record nothing any more. Back when they do not. Errors: those of [`start`].
pub fn stop() -> Result<(), Error> {
    ask(interface::tracing::ENABLE, [0; 3])
}

/// Sets the events, on all cores, that the trace begins with, as whoever reads it is to be shown it,
/// and after which a core records nothing more; 0: none. Errors: those of [`start`].
pub fn set_triggers(begin: u16, end: u16) -> Result<(), Error> {
    ask(interface::tracing::TRIGGERS, [begin.into(), end.into(), 0])
}

/// The control page of this core's trace, as it is now; whoever runs on this core may have written
/// there what it liked. All zero where there is none.
pub fn control() -> Control {
    Recorder::own().control()
}

/// Records of this core from index `from` up to `to`, those that were overwritten or are half
/// written aside.
pub fn records(from: u64, to: u64) -> Vec<Record> {
    let kept = to.saturating_sub(capacity());
    let read = |index| Recorder::own().read(index);
    (from.max(kept)..to).filter_map(read).collect()
}
