//! The host tool: builds the system, boots it in QEMU, and runs every test there is.
//!
//! | module              | what it does                                                      |
//! |---------------------|-------------------------------------------------------------------|
//! | [`options`]         | what a person asked for, checked                                  |
//! | [`size`]            | amounts of memory as people write them                            |
//! | [`failure`]         | everything that can go wrong, each with its own exit status       |
//! | [`project`]         | where the sources and the build results lie                       |
//! | [`install`]         | finds QEMU, installs it where it may                              |
//! | [`build`]           | compiles the system                                               |
//! | [`strip`]           | cuts an ELF file down to what a loader reads                      |
//! | [`symbols`]         | the symbol table as the CPU driver reads it                       |
//! | [`bundle`]          | packs all programs into the one archive that a boot carries       |
//! | [`accelerator`]     | how QEMU executes the guest, and the probe for KVM                |
//! | [`topology`]        | cores, sockets and NUMA nodes as QEMU wants to be told            |
//! | [`memory`]          | the guest's RAM, readable from outside                            |
//! | [`guest`]           | core records and logs found in that RAM                           |
//! | [`serial`]          | the guest's console, line by line                                 |
//! | [`qemu`]            | one QEMU process, which never outlives its owner                  |
//! | [`console`]         | where lines of guest and tool go                                  |
//! | [`launch`]          | one boot from start to verdict                                    |
//! | [`coherence`]       | cache lines that move between cores, counted by a QEMU plugin     |
//! | [`report`]          | what is said about cores when a boot failed                       |
//! | [`run`]             | `scripts/run`                                                     |
//! | [`mod@bench`]       | `scripts/bench`                                                   |
//! | [`figure`]          | the lines by which benchmarks say what they measured              |
//! | [`mod@linux`]       | Linux under the same QEMU, and its figures beside ours            |
//! | [`comparison`]      | figures beside their targets, for people                          |
//! | [`chart`]           | the same as a page with charts                                    |
//! | [`sweeps`]          | figures against what was varied                                   |
//! | [`plot`]            | pictures                                                          |
//! | [`mod@page`]        | what pages have in common                                         |
//! | [`sim`]             | `scripts/sim`                                                     |
//! | [`sim_page`]        | what it found, as a page with charts                              |
//! | [`mod@trace`]       | `scripts/trace`                                                   |
//! | [`harness`]         | `scripts/test`                                                    |
//! | [`host_tests`]      | tests that need no guest                                          |
//! | [`image_tests`]     | tests that look into the executables                              |
//! | [`tool_tests`]      | tests of this tool's own messages and exit statuses               |
//! | [`bench_tests`]     | tests of what benchmarks write                                    |
//! | [`coherence_tests`] | tests that count cache lines                                      |
//! | [`boot_tests`]      | tests that boot                                                   |
//! | [`trace_tests`]     | tests of traces                                                   |
//! | [`trace_page_tests`] | tests of their page, in a browser                                |
//! | [`browser`]         | a browser that looks at pages, for tests                          |
#![forbid(unsafe_code)]

mod accelerator;
mod bench;
mod bench_tests;
mod boot_tests;
mod browser;
mod build;
mod bundle;
mod chart;
mod coherence;
mod coherence_tests;
mod comparison;
mod console;
mod failure;
mod figure;
mod guest;
mod harness;
mod host_tests;
mod image_tests;
mod install;
mod interrupt;
mod launch;
mod linux;
mod memory;
mod options;
mod page;
mod peers;
mod plot;
mod progress;
mod project;
mod qemu;
mod report;
mod run;
mod serial;
mod sim;
mod sim_page;
mod size;
mod strip;
mod sweeps;
mod symbols;
mod tool_tests;
mod topology;
mod trace;
mod trace_page_tests;
mod trace_tests;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// The host tool of Atoll; `scripts/` holds an entry point for each command.
#[derive(Parser)]
#[command(name = "scripts", bin_name = "scripts", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Boots the system in QEMU and runs a program on it.
    #[command(after_help = failure::STATUS_HELP.as_str())]
    Run(options::RunOptions),
    /// Runs every benchmark, or those named, and writes their results.
    #[command(after_help = failure::BENCH_STATUS_HELP.as_str())]
    Bench(bench::BenchOptions),
    /// Simulates the monitors' protocols on many cores: what they cost, or what faults do to them.
    #[command(after_help = failure::SIM_STATUS_HELP.as_str())]
    Sim(sim::SimOptions),
    /// Records what every core did in a run, and makes a timeline, pages and tables of it.
    #[command(after_help = failure::STATUS_HELP.as_str())]
    Trace(Box<trace::TraceOptions>),
    /// Runs every test there is, or those whose name contains FILTER.
    Test(harness::TestOptions),
}

fn main() -> ExitCode {
    interrupt::watch();
    let status = match Arguments::parse().command {
        Command::Run(options) => run::run(&options),
        Command::Bench(options) => bench::bench(&options),
        Command::Sim(options) => sim::sim(&options),
        Command::Trace(options) => trace::trace(&options),
        Command::Test(options) => harness::test(&options),
    };
    ExitCode::from(status)
}
