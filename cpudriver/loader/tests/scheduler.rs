//! Tests of the CPU driver's scheduling policy, which itself builds for bare metal only.
#![allow(dead_code)]

#[path = "../../src/scheduler.rs"]
mod scheduler;
