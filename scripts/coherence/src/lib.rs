//! A plugin for QEMU's emulation that counts the cache lines that move between cores.
//!
//! For each line of 64 bytes of RAM it keeps who wrote it last and who holds a copy: a cache of
//! each core that never runs full. So a line moves only because another core wants it, and the
//! counts are a floor for those of a processor. Under `icount`, all cores in turns on one host
//! thread, they are the same in every run.
//!
//! | module     | what it gives                                                     |
//! |------------|-------------------------------------------------------------------|
//! | `lines`    | who holds which line, and what an access moves                    |
//! | `counter`  | what is counted, by region of interest and core                   |
//! | `code`     | which instructions mean something here, by their bytes            |
//! | `output`   | the file that is written at the end                               |
//! | `plugin`   | QEMU's side                                                       |
//!
//! Counted is what instructions load and store in RAM, each line of it once an access; a locked
//! instruction takes its line for writing at once, as processors do. Not counted: instruction
//! fetch, the processor's own walks through page tables and what it pushes for an interrupt or
//! exception (QEMU shows neither), and device memory, whose accesses have a number of their own.
//!
//! QEMU is told `-plugin PATH,out=FILE`.

mod code;
mod counter;
mod lines;
mod output;
// Tests run without QEMU, whose functions a plugin finds only inside of it.
#[cfg(not(test))]
mod plugin;
