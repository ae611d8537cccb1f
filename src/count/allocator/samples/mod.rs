//! The samples of the heap profile: live blocks by address, and sums by where they were allocated.
//!
//! Everything lies in separately mapped memory and in atomic words: no lock, so that neither threads nor a
//! child after `fork` wait for each other. Threads meet only where they sample at the same place, or where two addresses
//! share a cache line of the table, and then one atomic instruction repeats. A stack is walked before anything is shared.

mod atomic;
mod filter;
mod memory;
mod probes;
mod sites;
mod store;
mod table;

pub(crate) use sites::{FRACTION, SiteTotals, Sum};
pub(crate) use store::{
    Taken, align_of, dropped, end, for_each_site, prepare, put_back, record, take, variance_in_use,
    without_samples,
};
