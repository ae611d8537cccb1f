//! The parts of the library that threads share without a lock, under a model checker, which tries every order in which
//! their threads can meet, with every value that the memory model lets them read. A package of its own, because Tokio and
//! others look at loom's usual `--cfg loom` too and leave out what this crate's tests need.
//!
//! `cargo test -p model --release`

#![cfg(test)]
#![allow(dead_code, reason = "these are the library's own files, and the model uses some of what is in them")]
#![allow(clippy::unnecessary_min_or_max, reason = "the model has a single size class")]

mod slots;
mod tasks;
