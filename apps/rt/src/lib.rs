//! The runtime that every user program links, the monitor included: start-up, heap,
//! printing, time, channels, and what the monitor does for a program.
//!
//! ```ignore (for the guest's target)
//! #![no_std]
//! #![no_main]
//! rt::entry!(main);
//!
//! fn main() -> i32 {
//!     rt::println!("hello from core {}", rt::startup().core);
//!     0
//! }
//! ```
//!
//! | module          | what it gives                                                      |
//! |-----------------|--------------------------------------------------------------------|
//! | [`clock`]       | time                                                               |
//! | [`connection`]  | a channel with a doorbell: sends and receives that wait            |
//! | [`console`]     | `print!` and `println!`                                            |
//! | [`frame`]       | memory shared with other domains                                   |
//! | [`interface`]   | the messages between a domain and its monitor                      |
//! | [`monitor`]     | spawn, wait, kill, frames, RAM, doorbells: what the monitor does   |
//! | [`names`]       | names that all cores know: bind, look up, watch                    |
//! | [`coordination`]| locks, semaphores, barriers over all cores, made of names          |
//! | [`service`]     | channels between domains that know each other's name               |
//! | [`system_call`] | what the CPU driver does for us                                    |
//! | [`capability`]  | capabilities: copy, retype, delete, revoke, and slots for them     |
//! | [`memory`]      | RAM of our own, and objects made of it                             |
//! | [`space`]       | mapping frames                                                     |
//! | [`span`]        | domains that run on several cores and share addresses              |
//! | [`dispatcher`]  | setting up, stopping and looking at dispatchers                    |
//! | [`device`]      | I/O ports, device memory, interrupt lines                          |
//! | [`lrpc`]        | calls to domains of the same core                                  |
//! | [`transfer`]    | capabilities for domains of any core                               |
//! | [`trace`]       | events and spans of a program's own, and when traces are recorded  |
//! | [`region`]      | marks for who counts from outside                                  |
//! | [`authority`]   | for monitors alone: what domains are made of, other cores          |
//!
//! A domain has one dispatcher, so nothing here runs in parallel with anything else of it.
#![no_std]

extern crate alloc;

pub mod authority;
pub mod capability;
pub mod clock;
pub mod connection;
pub mod console;
pub mod coordination;
pub mod device;
pub mod dispatcher;
pub mod frame;
mod heap;
pub mod interface;
pub mod lrpc;
pub mod memory;
pub mod monitor;
pub mod names;
pub mod region;
pub mod service;
pub mod space;
pub mod span;
mod start;
pub mod system_call;
pub mod trace;
pub mod transfer;

pub use start::{abort, run, startup};

/// Names the function that a program begins with: `fn main() -> i32`, the exit status.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        /// The program's first instructions.
        #[unsafe(no_mangle)]
        extern "C" fn _start() -> ! {
            $crate::run($main)
        }
    };
}
