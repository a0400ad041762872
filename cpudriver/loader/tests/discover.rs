//! Tests of the parts of discovery that need no hardware: the CPU driver itself builds
//! for bare metal only, so they run here.
#![allow(dead_code)]

#[path = "../../src/discover/plan.rs"]
mod plan;
#[path = "../../src/discover/tables.rs"]
mod tables;
