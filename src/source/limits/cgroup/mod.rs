//! The control groups of the process.

mod groups;
mod lookup;
#[cfg(test)]
mod tests;

pub(super) use groups::Cgroups;
