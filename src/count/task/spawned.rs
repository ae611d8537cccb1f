//! The tasks that Tokio's hooks have reported and that have not ended. Locked when a task is spawned, named or ends, and
//! for its first poll if it could have a name. Other polls lock it only while such a task waits for its first poll.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::task::Id;

use super::counters::Event;
use super::name::NameId;
use super::thread::{count, uncharged};
use crate::util::mutex::Mutex;

/// The number of named futures that have not been polled yet. While it is 0, no task can turn out to have a name.
pub(crate) static UNPOLLED: Gauge = Gauge(AtomicU64::new(0));

pub(crate) static SPAWNED: Spawned = Spawned::new();

/// A number that goes up and down.
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub(crate) fn remove(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    #[inline]
    pub(crate) fn is_zero(&self) -> bool {
        self.0.load(Relaxed) == 0
    }
}

/// A task that has not ended, and the name of the location where it was spawned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Counted under the location.
    Counted(NameId),
    /// Not counted until its first poll has shown whether the program has named it.
    Pending(NameId),
    /// Counted under the name that the program gave it.
    Named(NameId),
}

impl Task {
    fn named(self) -> Self {
        let (Task::Counted(location) | Task::Pending(location) | Task::Named(location)) = self;
        Task::Named(location)
    }
}

/// All of them. A task's spawn is counted under the lock, before another thread can count its end.
pub(crate) struct Spawned {
    shards: [Mutex<Shard>; Spawned::SHARDS],
    pending: Gauge,
}

struct Shard {
    tasks: HashMap<Id, Task, Hasher>,
    /// The last tasks that ended without having been reported, and whether they had a name. The hooks report the end of a
    /// blocking task, but not its spawn; and while the runtime shuts down, a task's end may come before its spawn.
    unknown: [Option<(Id, bool)>; Shard::UNKNOWN],
    next: usize,
}

/// The standard hasher, in a form that a constant can hold. `benches/task.rs` has its cost.
type Hasher = BuildHasherDefault<DefaultHasher>;

impl Spawned {
    const SHARDS: usize = 16;

    const fn new() -> Self {
        Spawned {
            shards: [const { Mutex::new(Shard::new()) }; Spawned::SHARDS],
            pending: Gauge(AtomicU64::new(0)),
        }
    }

    /// Adds a task that has been spawned. Returns it if it has ended already.
    pub(crate) fn add(&self, id: Id, task: Task) -> Option<Task> {
        uncharged(|| {
            let mut shard = self.shard(id);
            if let Some(named) = shard.take_unknown(id) {
                return Some(if named { task.named() } else { task });
            }
            match task {
                Task::Counted(location) => count(location, Event::Spawned),
                Task::Pending(_) => self.pending.add(),
                Task::Named(_) => {}
            }
            shard.tasks.insert(id, task);
            None
        })
    }

    /// Removes a task that has ended. Returns it if it was added.
    pub(crate) fn remove(&self, id: Id) -> Option<Task> {
        let mut shard = self.shard(id);
        let task = shard.tasks.remove(&id);
        match task {
            Some(Task::Pending(_)) => self.pending.remove(),
            Some(_) => {}
            None => shard.note_unknown(id, false),
        }
        task
    }

    #[inline]
    pub(crate) fn is_pending(&self, id: Id) -> bool {
        !self.pending.is_zero() && self.is_among_the_pending(id)
    }

    #[cold]
    #[inline(never)]
    fn is_among_the_pending(&self, id: Id) -> bool {
        matches!(self.shard(id).tasks.get(&id), Some(Task::Pending(_)))
    }

    /// Counts a pending task under its location, since its first poll has shown no name.
    pub(crate) fn settle(&self, id: Id) {
        self.change(id, |task| match task {
            Task::Pending(location) => Some(Task::Counted(location)),
            _ => None,
        });
    }

    /// Notes that a pending task has a name. Returns whether it was pending.
    pub(crate) fn name(&self, id: Id) -> bool {
        self.change(id, |task| matches!(task, Task::Pending(_)).then(|| task.named()))
    }

    /// Does the same for a named future that is dropped without having been polled, most likely with its task.
    pub(crate) fn name_unpolled(&self, id: Id) -> bool {
        self.name(id) || {
            let mut shard = self.shard(id);
            if !shard.tasks.contains_key(&id) {
                shard.note_unknown(id, true);
            }
            false
        }
    }

    /// Counts a task under its location from now on, since the future that gave it its name has ended.
    pub(crate) fn unname(&self, id: Id) {
        self.change(id, |task| match task {
            Task::Named(location) => Some(Task::Counted(location)),
            _ => None,
        });
    }

    fn change(&self, id: Id, to: impl FnOnce(Task) -> Option<Task>) -> bool {
        let mut shard = self.shard(id);
        let Some(task) = shard.tasks.get_mut(&id) else { return false };
        let Some(changed) = to(*task) else { return false };
        if matches!(task, Task::Pending(_)) {
            self.pending.remove();
        }
        if let Task::Counted(location) = changed {
            count(location, Event::Spawned);
        }
        *task = changed;
        true
    }

    fn shard(&self, id: Id) -> MutexGuard<'_, Shard> {
        let hash = Hasher::new().hash_one(id);
        #[allow(clippy::indexing_slicing, reason = "the remainder is less than the length")]
        self.shards[hash as usize % Spawned::SHARDS].lock()
    }
}

impl Shard {
    /// Far more blocking tasks than end between the end and the spawn of one task, which follow each other.
    const UNKNOWN: usize = 16;

    const fn new() -> Self {
        let tasks = HashMap::with_hasher(Hasher::new());
        Shard { tasks, unknown: [None; Shard::UNKNOWN], next: 0 }
    }

    fn note_unknown(&mut self, id: Id, named: bool) {
        if self.unknown.iter().flatten().any(|(known, _)| *known == id) {
            return;
        }
        // A free place first: an end that waits for its spawn stays, however many others find theirs meanwhile.
        let free = self.unknown.iter().position(Option::is_none);
        let place = free.unwrap_or_else(|| {
            self.next = self.next.wrapping_add(1);
            self.next % Shard::UNKNOWN
        });
        if let Some(place) = self.unknown.get_mut(place) {
            *place = Some((id, named));
        }
    }

    fn take_unknown(&mut self, id: Id) -> Option<bool> {
        let found = self.unknown.iter_mut().find(|known| known.is_some_and(|(known, _)| known == id))?;
        found.take().map(|(_, named)| named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_waits_for_its_spawn_however_many_others_pass() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let id = || runtime.spawn(async {}).id();
        let mut shard = Shard::new();
        // The ends of blocking tasks, whose spawns are never reported.
        (0..100).for_each(|_| shard.note_unknown(id(), false));
        let early = id();
        shard.note_unknown(early, true);
        for _ in 0..1000 {
            let other = id();
            shard.note_unknown(other, false);
            assert_eq!(shard.take_unknown(other), Some(false));
        }
        assert_eq!(shard.take_unknown(early), Some(true));
    }
}
