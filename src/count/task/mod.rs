//! Counts tasks by name: see [`TaskExt::with_task_name`].

mod chunks;
mod clock;
mod counted;
mod counters;
#[cfg(feature = "profile")]
mod created;
#[cfg(tokio_unstable)]
mod frames;
#[cfg(tokio_unstable)]
mod hooks;
mod location;
mod lookup;
mod membership;
mod name;
mod named;
mod names;
mod own;
mod run_delay;
mod settings;
mod spawn;
#[cfg(tokio_unstable)]
mod spawned;
mod sync;
mod thread;
mod totals;
mod waker;

pub(crate) use clock::nanos;
#[cfg(feature = "tower")]
pub(crate) use counted::Counted;
pub(crate) use counters::{Event, Totals};
#[cfg(feature = "profile")]
pub(crate) use created::{Created, live_samples, sample_spawns};
#[cfg(tokio_unstable)]
pub use hooks::{TaskHooks, task_hooks};
#[cfg(feature = "tower")]
pub(crate) use lookup::{known_name, name_of_str, name_of_text, name_of_two};
#[allow(unused_imports, reason = "the layer and profiles use `NameId`")]
pub(crate) use name::{NameId, NameOrigin};
pub use named::{NamedTask, TaskExt};
pub(crate) use own::uncounted;
pub(crate) use settings::{scheduled_time, set_scheduled_time, set_slow_poll_threshold, slow_poll_threshold};
pub use spawn::{spawn, spawn_blocking, spawn_blocking_named};
#[cfg(feature = "view")]
pub(crate) use totals::max_names;
#[allow(unused_imports, reason = "each build uses some of them")]
pub(crate) use totals::{
    count_stall_of_thread, current_poll, current_task, current_task_name, set_name_limit, task_name, totals,
};
