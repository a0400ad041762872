//! Lays out a core's first memory: its own copy of the CPU driver, page tables, monitor.
//!
//! Core 0's CPU driver uses it for itself, monitors use it for every core they start, so
//! all cores come to life from memory that looks the same. Nothing here touches hardware:
//! physical memory is a byte slice, so all of it is tested on the host.
//!
//! | module      | what it does                                                     |
//! |-------------|------------------------------------------------------------------|
//! | [`plan`]    | divides RAM among the cores, near ones first                     |
//! | [`program`] | reads an ELF file and refuses what cannot be run safely          |
//! | [`paging`]  | page tables: enter, look up, remove, enumerate                    |
//! | [`image`]   | builds the memory of one core out of the three                   |
#![no_std]
#![forbid(unsafe_code)]

pub mod image;
pub mod paging;
pub mod plan;
pub mod program;
