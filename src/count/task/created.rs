//! The stacks of a sample of spawns, for the profile of tasks.
//!
//! No spawn is sampled before the first profile is asked for. From then on a thread takes the stack of one in
//! [`PERIOD`] tasks that it spawns: some microseconds, which lie outside the polls that are charged for them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::name::NameId;
use super::thread::uncharged;
use crate::stack;
use crate::util::mutex::Mutex;

/// One task in so many is sampled.
pub(crate) const PERIOD: u32 = 32;
/// Tasks beyond these are not sampled.
const MAX_LIVE: usize = 10_000;

static IS_ON: AtomicBool = AtomicBool::new(false);
static NEXT: AtomicU64 = AtomicU64::new(1);
static LIVE: Mutex<BTreeMap<NonZeroU64, Created>> = Mutex::new(BTreeMap::new());

thread_local! {
    static UNTIL_NEXT: Cell<u32> = const { Cell::new(0) };
}

/// A live task that was sampled when it was spawned.
#[derive(Clone)]
pub(crate) struct Created {
    pub(crate) name: NameId,
    pub(crate) at: Instant,
    pub(crate) stack: Box<[usize]>,
    pub(crate) is_cut: bool,
}

impl Created {
    pub(crate) fn age(&self) -> Duration {
        self.at.elapsed()
    }
}

/// Keeps a sample as long as its task lives. The number is never zero, so that a task without a sample needs no more space.
pub(crate) struct Sampled(NonZeroU64);

impl Drop for Sampled {
    fn drop(&mut self) {
        LIVE.lock().remove(&self.0);
    }
}

/// Samples the spawn of a task if it is its turn.
#[inline]
pub(crate) fn sample(name: NameId) -> Option<Sampled> {
    if IS_ON.load(Relaxed) { sample_in_turn(name) } else { None }
}

#[cold]
#[inline(never)]
fn sample_in_turn(name: NameId) -> Option<Sampled> {
    let until_next = UNTIL_NEXT.get();
    UNTIL_NEXT.set(until_next.checked_sub(1).unwrap_or(PERIOD - 1));
    if until_next > 0 {
        return None;
    }
    uncharged(|| {
        let mut frames = [0; stack::MAX_FRAMES];
        let walked = stack::here(&mut frames);
        let stack = frames.get(..walked.len).unwrap_or_default().into();
        let created = Created { name, at: Instant::now(), stack, is_cut: walked.is_cut };
        let mut live = LIVE.lock();
        if live.len() >= MAX_LIVE {
            return None;
        }
        let id = NonZeroU64::new(NEXT.fetch_add(1, Relaxed))?;
        live.insert(id, created);
        Some(Sampled(id))
    })
}

/// Turns sampling on. Stacks must have been prepared.
pub(crate) fn sample_spawns() {
    IS_ON.store(true, Relaxed);
}

/// Returns the live tasks that were sampled, the oldest first.
pub(crate) fn live_samples() -> Vec<Created> {
    LIVE.lock().values().cloned().collect()
}
