//! Stacks on Linux.

mod clock;
mod copy;
mod handler;
mod memory;
mod modules;
mod pool;
mod proc;
mod registers;
mod rules;
mod sampler;
mod signal;
mod sound;
mod tables;
mod thread;
mod walk;
mod watched;

pub(crate) use pool::{objects, prepare, refresh};
pub(crate) use proc::{thread_name, threads};
pub(crate) use sampler::Sampler;
pub(crate) use thread::of_thread;
pub(crate) use walk::here;

#[cfg(test)]
mod tests;
