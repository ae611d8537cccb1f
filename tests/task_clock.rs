//! The unit tests of the clock for polls, for machines on which the library's own unit tests take long to build.

#![allow(dead_code, clippy::unwrap_used, reason = "the library uses it, and a test fails by panicking")]

#[path = "../src/count/task/clock.rs"]
mod clock;
