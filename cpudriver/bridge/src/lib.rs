//! What the bridge decides, without the hardware it runs on: a boot loader's memory map,
//! ELF loading plan, page tables and Limine answers. Not a boot loader: it never touches
//! memory that it was not handed as a slice, so all of it is tested on the host.
//!
//! | module       | what it does                                                            |
//! |--------------|-------------------------------------------------------------------------|
//! | [`handover`] | what any entry (PVH now, multiboot2 later) tells the rest of the bridge   |
//! | [`pvh`]      | reads a PVH start info into a handover                                   |
//! | [`memory`]   | the memory map: who has which physical pages                             |
//! | [`image`]    | finds the CPU driver in the bundle and plans where its segments go        |
//! | [`paging`]   | the page tables that the CPU driver starts on                            |
//! | [`limine`]   | finds Limine requests in the loaded image and writes the responses       |
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod handover;
pub mod image;
pub mod limine;
pub mod memory;
pub mod paging;
pub mod pvh;
