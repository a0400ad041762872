//! Traces on the host: what the rings of the cores held, and what that says.
//!
//! | module      | what it does                                                             |
//! |-------------|--------------------------------------------------------------------------|
//! | `recording` | the file: what each core's ring held, as it was, and what it is of       |
//! | `clocks`    | how the cores' clocks differ, and one time for all                       |
//! | `reading`   | record by record, what a core says of who ran and what it did            |
//! | `matching`  | both ends of each message                                                |
//! | `model`     | who ran when, messages with both ends, operations, spans                 |
//! | `causes`    | what an operation waited for: its chain across cores, its critical path  |
//! | `names`     | what kinds of requests and messages are called                           |
//! | `summary`   | tables for the terminal                                                  |
//! | `diff`      | what differs between two traces                                          |
//! | `scale`     | what grows with the number of cores, and why                             |
//! | `columns`   | tables and figures for the terminal                                      |
//! | `usl`       | the Universal Scalability Law, fitted                                    |
//! | `replay`    | what a simulation needs to know of a run                                 |
//! | `perfetto`  | a file for ui.perfetto.dev                                               |
//! | `page`      | a page of its own                                                        |
//! | `sample`    | recordings made up, for tests                                            |
pub mod causes;
pub mod checks;
pub mod clocks;
pub mod columns;
pub mod diff;
#[cfg(test)]
mod hostile;
mod matching;
pub mod model;
pub mod names;
pub mod page;
pub mod perfetto;
mod reading;
pub mod recording;
pub mod replay;
pub mod sample;
pub mod scale;
pub mod summary;
pub mod usl;
