//! The tasks of this library, which the hooks do not count.

use std::cell::Cell;

thread_local! {
    static IS_OWN: Cell<bool> = const { Cell::new(false) };
}

/// Runs a function that spawns one task of this library. The hooks count no task that is spawned where that one is.
pub(crate) fn uncounted<R>(spawn: impl FnOnce() -> R) -> R {
    /// Also runs if the spawn panics.
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            IS_OWN.with(|own| own.set(false));
        }
    }

    IS_OWN.with(|own| own.set(true));
    let _reset = Reset;
    spawn()
}

/// Returns whether the task that is being spawned on this thread belongs to this library. Only the first call after
/// [`uncounted`] has begun returns true, since a hook of the program may spawn tasks in its turn.
#[cfg(tokio_unstable)]
pub(crate) fn take_is_own() -> bool {
    IS_OWN.with(|own| own.take())
}
