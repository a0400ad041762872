//! The contract between the CPU driver, user programs, the boot code and the host tool.
//!
//! Numbers and memory layouts only: nothing here runs. Whatever two sides must agree on
//! stands in this crate once.
//!
//! | module      | what it fixes                                                           |
//! |-------------|-------------------------------------------------------------------------|
//! | [`layout`]  | the two address spaces: where everything lies, kernel and user            |
//! | [`limits`]  | every limit of the system                                                |
//! | [`machine`] | what the first CPU driver found: cores, RAM, and which core owns which    |
//! | [`record`]  | the page at the start of each core's RAM that tells who lives there      |
//! | [`capability`] | kinds of capability, rights, what a domain starts with                |
//! | [`syscall`] | system calls: numbers, arguments, results, errors                        |
//! | [`startup`] | what a domain finds when it starts                                       |
//! | [`exception`] | the processor's exceptions in words                                     |
//! | [`symbols`] | symbol tables                                                             |
//! | [`command_line`] | the words that the host tool passes to the system                    |
#![no_std]
#![forbid(unsafe_code)]

pub mod capability;
pub mod command_line;
pub mod exception;
pub mod layout;
pub mod limits;
pub mod machine;
pub mod record;
pub mod startup;
pub mod symbols;
pub mod syscall;
