//! What several of the programs here share: arguments, workers on other cores, figures.
//!
//! | module        | what it gives                                                        |
//! |---------------|----------------------------------------------------------------------|
//! | [`arguments`] | options and their errors                                             |
//! | [`checks`]    | what a test program counts and says                                  |
//! | [`crew`]      | copies of a program on other cores, each with a channel for orders    |
//! | [`figures`]   | how times of this run are obtained, and their unit                   |
//! | [`laboratory`] | samples of benchmarks, and how they are told                       |
//! | [`mappings`]  | what the kernels of cores have mapped                                |
//! | [`pattern`]   | contents of test messages                                            |
//! | [`table`]     | a matrix of pairs of cores as text                                   |
//! | [`tally`]     | what all cores have counted                                          |
//! | [`team`]      | members of a span on other cores, which carry out orders             |
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod arguments;
pub mod checks;
pub mod crew;
pub mod figures;
pub mod laboratory;
pub mod mappings;
pub mod pattern;
pub mod table;
pub mod tally;
pub mod team;
