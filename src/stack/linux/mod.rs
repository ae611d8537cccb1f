//! Stacks on Linux.

mod copy;
mod handler;
mod memory;
mod modules;
mod pool;
mod registers;
mod signal;
mod thread;
mod walk;

pub(crate) use pool::{objects, prepare, refresh};
pub(crate) use thread::{of_thread, thread_name, threads};
pub(crate) use walk::here;
