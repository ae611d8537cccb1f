//! Publishes the list of objects to threads that walk, and lends them the memory that a walk needs.
//!
//! A walk may happen inside an allocator, so that it must not lock or allocate. It takes one of a fixed number of workspaces,
//! writes into it which list it reads, and returns it afterwards. A new list replaces the old one by one store; the old
//! one is freed once no workspace names it.

#![allow(unsafe_code, reason = "workspaces are shared by a flag, and lists by pointers")]

use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64};
use std::sync::{Mutex, OnceLock};
use std::thread;

use super::modules::{self, Modules, UnwinderCache, Version};
use super::rules::{self, Rules};
use crate::stack::reason::Reason;
use crate::stack::types::Object;

/// What walks remember of the code that they have passed.
pub(super) struct Cache {
    pub(super) unwinder: UnwinderCache,
    pub(super) rules: Rules,
}

static CURRENT: AtomicPtr<Modules> = AtomicPtr::new(ptr::null_mut());
static WORKSPACES: OnceLock<Box<[Workspace]>> = OnceLock::new();
/// Lists that were replaced while some workspace still named them.
static RETIRED: Mutex<Vec<Retired>> = Mutex::new(Vec::new());
/// The version of the current list.
static ADDED: AtomicU64 = AtomicU64::new(0);
static REMOVED: AtomicU64 = AtomicU64::new(0);

/// The memory of one walk at a time.
#[repr(align(128))]
struct Workspace {
    is_taken: AtomicBool,
    /// The list that is being read.
    list: AtomicPtr<Modules>,
    cache: UnsafeCell<Cache>,
}

// SAFETY: only the thread that has set `is_taken` uses the cache, which may be used by any thread.
unsafe impl Sync for Workspace {}

struct Retired(*mut Modules);

// SAFETY: a list is read by many threads, and freed by the thread that finds it without readers.
unsafe impl Send for Retired {}

/// Makes walking possible, and takes in objects that were loaded since the last call. Allocates and locks.
pub(crate) fn prepare() -> Result<(), Reason> {
    WORKSPACES.get_or_init(|| {
        // A walk takes microseconds, so that twice as many as can run at once leaves room for those that are interrupted.
        let cpus = thread::available_parallelism().map_or(4, usize::from);
        let count = (2 * cpus).clamp(8, 128);
        // All at once, since the system then provides the zeros when a walk first needs them.
        let entries = vec![[0_u64; 2]; count * rules::LEN].leak();
        entries.chunks_exact_mut(rules::LEN).map(Workspace::new).collect()
    });
    refresh();
    let is_walkable = with(|modules, _| modules.objects.iter().any(|o| o.path.is_none() && o.is_walkable));
    if is_walkable == Some(false) { Err(Reason::NoTables) } else { Ok(()) }
}

/// Takes in objects that were loaded or unloaded since the last call, once [`prepare`] has been called. Costs a few hundred
/// nanoseconds if there are none.
pub(crate) fn refresh() {
    if WORKSPACES.get().is_none() {
        return;
    }
    let known = Version { added: ADDED.load(Acquire), removed: REMOVED.load(Acquire) };
    if CURRENT.load(Acquire).is_null() || modules::version() != known {
        publish(Modules::load());
    }
}

/// Returns the objects in memory.
pub(crate) fn objects() -> Vec<Object> {
    with(|modules, _| modules.objects.clone()).unwrap_or_default()
}

/// Calls a function with the current list and a cache. `None` if nothing is prepared or all workspaces are taken. Takes no lock
/// and allocates nothing, unless the function does.
#[inline]
pub(super) fn with<R>(walk: impl FnOnce(&Modules, &mut Cache) -> R) -> Option<R> {
    let workspace = Taken::new(WORKSPACES.get()?)?;
    let modules = workspace.0.protect()?;
    // SAFETY: this thread has taken the workspace, and gives it back after the call.
    let cache = unsafe { &mut *workspace.0.cache.get() };
    cache.rules.begin(modules.id);
    Some(walk(modules, cache))
}

/// Replaces the current list.
///
/// Two threads may do so at once, and the older list may win. Its version then differs from the loader's, so that the next
/// refresh replaces it. A lock would be held for ever in a child that is forked meanwhile.
pub(super) fn publish(modules: Modules) {
    let Version { added, removed } = modules.version;
    let old = CURRENT.swap(Box::into_raw(Box::new(modules)), SeqCst);
    ADDED.store(added, Release);
    REMOVED.store(removed, Release);
    // A list that cannot be noted here is never freed.
    let Ok(mut retired) = RETIRED.try_lock() else { return };
    if !old.is_null() {
        retired.push(Retired(old));
    }
    retired.retain(|list| {
        let is_read = WORKSPACES.get().is_none_or(|workspaces| {
            workspaces.iter().any(|workspace| workspace.list.load(SeqCst) == list.0)
        });
        if !is_read {
            // SAFETY: it came from a box, it is not current any more, and no workspace names it. A workspace that would name it from
            // now on finds that it is not current.
            drop(unsafe { Box::from_raw(list.0) });
        }
        is_read
    });
}

impl Workspace {
    fn new(entries: &'static mut [rules::Entry]) -> Self {
        let cache = Cache { unwinder: UnwinderCache::new_in(), rules: Rules::new(entries) };
        Workspace {
            is_taken: AtomicBool::new(false),
            list: AtomicPtr::new(ptr::null_mut()),
            cache: UnsafeCell::new(cache),
        }
    }

    /// Keeps the current list from being freed while this workspace is taken.
    fn protect(&self) -> Option<&Modules> {
        let mut list = CURRENT.load(Acquire);
        loop {
            self.list.store(list, SeqCst);
            let current = CURRENT.load(SeqCst);
            if current == list {
                // SAFETY: it was current after the workspace named it. The thread that replaces it looks at the workspaces after
                // that, so that it is not freed before the workspace names another one.
                return unsafe { list.as_ref() };
            }
            list = current;
        }
    }
}

struct Taken<'a>(&'a Workspace);

impl<'a> Taken<'a> {
    #[inline]
    fn new(workspaces: &'a [Workspace]) -> Option<Self> {
        // Threads begin at different workspaces, by where their stacks are.
        let marker = 0_u8;
        let first = ((&raw const marker).addr() >> 12).wrapping_mul(0x9E37_79B9) >> 8;
        (0..workspaces.len()).find_map(|next| {
            let workspace = workspaces.get(first.wrapping_add(next) % workspaces.len())?;
            let is_free = workspace.is_taken.compare_exchange(false, true, Acquire, Relaxed).is_ok();
            // Not `then_some`: dropping a `Taken` that was not taken would release the workspace of another thread.
            is_free.then(|| Taken(workspace))
        })
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.list.store(ptr::null_mut(), Release);
        self.0.is_taken.store(false, Release);
    }
}
