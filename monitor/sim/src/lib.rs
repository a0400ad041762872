//! Runs the monitors' protocols without machines.
#![forbid(unsafe_code)]
