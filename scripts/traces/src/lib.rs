//! Traces on the host: what the rings of the cores held, and what that says.
//!
//! | module      | what it does                                                             |
//! |-------------|--------------------------------------------------------------------------|
//! | `recording` | the file: what each core's ring held, as it was, and what it is of       |
//! | `clocks`    | how the cores' clocks differ, and one time for all                       |
//! | `model`     | who ran when, messages with both ends, operations, spans                 |
//! | `causes`    | what an operation waited for: its chain across cores, its critical path  |
//! | `summary`   | tables for the terminal, and what differs between two traces             |
//! | `perfetto`  | a file for ui.perfetto.dev                                               |
//! | `page`      | a page of its own                                                        |

pub mod clocks;
pub mod model;
pub mod recording;
