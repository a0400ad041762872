//! The monitors' protocols: state machines that are fed with messages and the time, and
//! return what is to be sent and done. No input, no output, no hardware: the monitor
//! program runs them on the system, tests run many of them side by side in one process.
//!
//! | module         | what it is                                                       |
//! |----------------|------------------------------------------------------------------|
//! | [`agent`]      | all of the protocols on one core, behind one epoch               |
//! | [`core_set`]   | a set of cores                                                   |
//! | [`awake`]      | the time by which a core waits for others                        |
//! | [`boot_tree`]  | who starts whom                                                  |
//! | [`formation`]  | how the first view comes about                                   |
//! | [`membership`] | which cores are up from then on, the same on all of them         |
//! | [`view`]       | views, and the epochs that tell them apart                       |
//! | [`tree`]       | who passes a message on to whom                                  |
//! | [`costs`]      | what messages between sockets cost, measured                     |
//! | [`round`]      | a message to many, and one answer of all                         |
//! | [`spaces`]     | one page-table replica a core, and unmaps that hold on all       |
//! | [`regions`]    | capabilities that exist on more than one core                    |
//! | [`names`]      | a registry of names that every core has a copy of                |
//! | [`lending`]    | memory that cores lend each other                                |
//! | [`kinds`]      | kinds of messages, each a protocol's own                         |
//! | [`lines`]      | text that arrives in pieces from many, put together line by line |
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod agent;
pub mod awake;
pub mod boot_tree;
pub mod core_set;
pub mod costs;
pub mod formation;
pub mod kinds;
pub mod lending;
pub mod lines;
pub mod membership;
pub mod names;
pub mod regions;
pub mod round;
pub mod spaces;
#[cfg(test)]
mod test_net;
pub mod tree;
pub mod view;
