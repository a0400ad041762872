//! Runs the monitors' protocols without machines: thousands of monitors in one process, on a
//! machine that a file describes, with everything that can go wrong going wrong. A seed
//! determines a run completely.
//!
//! | module         | what it is                                                       |
//! |----------------|------------------------------------------------------------------|
//! | [`node`]       | what a protocol has to be to run here                            |
//! | [`world`]      | the simulated machine                                            |
//! | [`machine`]    | what messages cost there, from a file                            |
//! | [`faults`]     | what goes wrong, by schedule or by seed                          |
//! | [`queue`]      | what is to happen, in order                                      |
//! | [`random`]     | numbers and hashes that a seed determines                        |
//! | [`protocol`]   | all protocols by name: figures without faults, runs with faults  |
//! | [`campaign`]   | many runs with faults                                            |
//! | [`membership`] | [`protocols::membership`], and its rules                         |
//! | [`broadcast`]  | a message to all cores by different ways                         |
//! | [`agents`]     | whole agents, as the system runs them                            |
//! | [`script`]     | what programs ask for there, at random or in order               |
//! | [`replay`]     | what a recorded run asked for, on another number of cores        |
//! | [`tape`]       | what a run is recorded on                                        |
//! | [`names`]      | [`protocols::names`] on agents, and its rules                    |
//! | [`regions`]    | [`protocols::regions`] on agents, and its rules                  |
//! | [`spaces`]     | [`protocols::spaces`] on agents, and its rules                   |
#![forbid(unsafe_code)]

pub mod agents;
pub mod broadcast;
pub mod campaign;
pub mod faults;
pub mod machine;
pub mod membership;
pub mod names;
pub mod node;
pub mod protocol;
pub mod queue;
pub mod random;
pub mod regions;
pub mod replay;
pub mod script;
pub mod spaces;
pub mod tape;
pub mod world;
