//! The tasks that Tokio's hooks have told of and that have not ended yet. Locked when a task is spawned, named or
//! ends, and for its first poll if it could have a name, never for any other poll.

use crate::util::mutex::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::MutexGuard;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

use tokio::task::Id;

use super::counters::Event;
use super::names::NameId;
use super::thread::{count, unseen};

/// How many named futures have not been polled yet: while there is none, no task can turn out to have a name.
pub(crate) static UNPOLLED: Unpolled = Unpolled(AtomicU64::new(0));

pub(crate) static SPAWNED: Spawned = Spawned::new();

/// A number of futures.
pub(crate) struct Unpolled(AtomicU64);

impl Unpolled {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub(crate) fn remove(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    pub(crate) fn any(&self) -> bool {
        self.0.load(Relaxed) != 0
    }
}

/// A task that has not ended, and the name of the place where it was spawned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Counted under that.
    Counted(NameId),
    /// Not counted until its first poll has told whether it has a name of its own.
    Pending(NameId),
    /// Counted under a name of its own.
    Named(NameId),
}

impl Task {
    fn named(self) -> Self {
        let (Task::Counted(place) | Task::Pending(place) | Task::Named(place)) = self;
        Task::Named(place)
    }
}

/// All of them. A task's spawn is counted under the lock, before another thread can count its end.
pub(crate) struct Spawned {
    shards: [Mutex<Shard>; Spawned::SHARDS],
    /// How many are pending, by the low bits of their number: 0 spares a poll the lock.
    pending: [AtomicU32; Spawned::PENDING],
}

struct Shard {
    tasks: HashMap<u64, Task, BuildHasherDefault<Spread>>,
    /// The last ones to end that had not been told of, and whether they had a name. The hooks hear of the end of
    /// a blocking task, but not of its spawn; and where the runtime shuts down meanwhile, of a task's end first.
    unknown: [(u64, bool); Shard::UNKNOWN],
    next: usize,
}

impl Spawned {
    const SHARDS: usize = 16;
    const PENDING: usize = 1 << 10;

    const fn new() -> Self {
        Spawned {
            shards: [const { Mutex::new(Shard::new()) }; Spawned::SHARDS],
            pending: [const { AtomicU32::new(0) }; Spawned::PENDING],
        }
    }

    /// A task that has been spawned. Gives the same back if it has ended already.
    pub(crate) fn add(&self, id: Id, task: Task) -> Option<Task> {
        let number = number(id);
        unseen(|| {
            let mut shard = self.shard(number);
            if let Some(named) = shard.take_unknown(number) {
                return Some(if named { task.named() } else { task });
            }
            match task {
                Task::Counted(place) => count(place, Event::Spawned),
                Task::Pending(_) => drop(self.pending_like(number).fetch_add(1, Relaxed)),
                Task::Named(_) => {}
            }
            shard.tasks.insert(number, task);
            None
        })
    }

    /// The task, which has ended, if it had been told of.
    pub(crate) fn remove(&self, id: Id) -> Option<Task> {
        let number = number(id);
        let mut shard = self.shard(number);
        let task = shard.tasks.remove(&number);
        match task {
            Some(Task::Pending(_)) => drop(self.pending_like(number).fetch_sub(1, Relaxed)),
            Some(_) => {}
            None => shard.note_unknown(number, false),
        }
        task
    }

    /// Whether the task is pending.
    #[inline]
    pub(crate) fn is_pending(&self, id: Id) -> bool {
        let number = number(id);
        self.pending_like(number).load(Relaxed) != 0 && self.is_pending_indeed(number)
    }

    #[cold]
    #[inline(never)]
    fn is_pending_indeed(&self, number: u64) -> bool {
        matches!(self.shard(number).tasks.get(&number), Some(Task::Pending(_)))
    }

    /// A pending task turns out to have no name of its own.
    pub(crate) fn settle(&self, id: Id) {
        self.change(id, |task| match task {
            Task::Pending(place) => Some(Task::Counted(place)),
            _ => None,
        });
    }

    /// A pending task turns out to have a name. Whether it was pending.
    pub(crate) fn name(&self, id: Id) -> bool {
        self.change(id, |task| matches!(task, Task::Pending(_)).then(|| task.named()))
    }

    /// The same, as far as can be told: a named future in it is dropped without ever having been polled.
    pub(crate) fn name_unpolled(&self, id: Id) -> bool {
        let number = number(id);
        self.name(id) || {
            let mut shard = self.shard(number);
            if !shard.tasks.contains_key(&number) {
                shard.note_unknown(number, true);
            }
            false
        }
    }

    /// The future that gave the task its name has ended, and the task has not.
    pub(crate) fn unname(&self, id: Id) {
        self.change(id, |task| match task {
            Task::Named(place) => Some(Task::Counted(place)),
            _ => None,
        });
    }

    fn change(&self, id: Id, to: impl FnOnce(Task) -> Option<Task>) -> bool {
        let number = number(id);
        let mut shard = self.shard(number);
        let Some(task) = shard.tasks.get_mut(&number) else { return false };
        let Some(changed) = to(*task) else { return false };
        if matches!(task, Task::Pending(_)) {
            self.pending_like(number).fetch_sub(1, Relaxed);
        }
        if let Task::Counted(place) = changed {
            count(place, Event::Spawned);
        }
        *task = changed;
        true
    }

    fn shard(&self, number: u64) -> MutexGuard<'_, Shard> {
        at(&self.shards, number).lock()
    }

    #[inline]
    fn pending_like(&self, number: u64) -> &AtomicU32 {
        at(&self.pending, number)
    }
}

/// The element for a number, in turn.
#[inline]
fn at<T, const N: usize>(list: &[T; N], number: u64) -> &T {
    #[allow(clippy::indexing_slicing, reason = "the remainder is less than the length")]
    &list[number as usize % N]
}

impl Shard {
    /// Far more than end between a task's end and its spawn, which follow each other.
    const UNKNOWN: usize = 16;

    const fn new() -> Self {
        let tasks = HashMap::with_hasher(BuildHasherDefault::new());
        // No task has the number 0.
        Shard { tasks, unknown: [(0, false); Shard::UNKNOWN], next: 0 }
    }

    fn note_unknown(&mut self, number: u64, named: bool) {
        if self.unknown.iter().any(|(known, _)| *known == number) {
            return;
        }
        if let Some(place) = self.unknown.get_mut(self.next % Shard::UNKNOWN) {
            *place = (number, named);
        }
        self.next = self.next.wrapping_add(1);
    }

    fn take_unknown(&mut self, number: u64) -> Option<bool> {
        let place = self.unknown.iter_mut().find(|(known, _)| *known == number)?;
        Some(std::mem::take(place).1)
    }
}

/// A task's number. Tokio keeps it to itself, but hashes it.
#[inline]
fn number(id: Id) -> u64 {
    let mut number = Number(0);
    id.hash(&mut number);
    number.0
}

/// Takes a number as it is.
struct Number(u64);

impl Hasher for Number {
    #[inline]
    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Spreads numbers that follow each other over all bits.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    #[inline]
    fn write_u64(&mut self, number: u64) {
        self.0 = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut number = Number(self.0);
        number.write(bytes);
        self.write_u64(number.0);
    }

    fn finish(&self) -> u64 {
        self.0.rotate_left(32)
    }
}
