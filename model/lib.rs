//! Checks the code that threads share without a lock. The model checker tries every order of the threads, with every value
//! that the memory model lets them read. A separate package, because Tokio and other crates also react to loom's usual
//! `--cfg loom` and then lack parts that these tests need.
//!
//! `cargo test -p model --release`

#![cfg(test)]
#![allow(dead_code, reason = "these are the library's own files, and the model uses some of what is in them")]
#![allow(clippy::unnecessary_min_or_max, reason = "the model has a single size class")]

mod samples;
mod slots;
mod tasks;
