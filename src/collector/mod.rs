//! Takes one consistent sample for each collection of each reader.

mod collect;
#[cfg(test)]
mod tests;
mod total;

pub(crate) use collect::{Collector, Recorder, Unregistered};
