//! Finds the Tokio task that a named future belongs to: under the hooks, a task that has a name is not counted under the
//! location of its spawn as well.

#[cfg(tokio_unstable)]
pub(crate) use with_hooks::Membership;
#[cfg(not(tokio_unstable))]
pub(crate) use without_hooks::Membership;

#[cfg(not(tokio_unstable))]
mod without_hooks {
    /// Without hooks only named futures are counted, and nothing must be found.
    pub(crate) struct Membership;

    impl Membership {
        #[inline]
        pub(crate) fn new() -> Self {
            Membership
        }

        #[inline]
        pub(crate) fn poll(&mut self) {}

        #[inline]
        pub(crate) fn end(&mut self) {}
    }
}

#[cfg(tokio_unstable)]
mod with_hooks {
    use tokio::task::{Id, try_id};

    use super::super::frames;
    use super::super::spawned::{SPAWNED, UNPOLLED};

    /// The relation of a named future to the task that polls it.
    pub(crate) enum Membership {
        /// Not polled yet. It was made while that task was polled, if any.
        Unpolled(Option<Id>),
        /// It gave the task its name.
        Namer(Id),
        /// A part of a task, counted beside it.
        Part,
    }

    impl Membership {
        #[inline]
        pub(crate) fn new() -> Self {
            UNPOLLED.add();
            Membership::Unpolled(try_id())
        }

        /// At the start of a poll.
        #[inline]
        pub(crate) fn poll(&mut self) {
            match *self {
                Membership::Part => {}
                Membership::Namer(task) => frames::mark_named(task),
                Membership::Unpolled(maker) => self.first_poll(maker),
            }
        }

        fn first_poll(&mut self, maker: Option<Id>) {
            *self = Membership::Part;
            // A task takes the name of a future that was made outside it, in its very first poll. A future that the
            // task makes itself is a part of it.
            if let Some(task) = try_id()
                && Some(task) != maker
                && frames::is_in_first_poll(task)
                && SPAWNED.name(task)
            {
                frames::mark_named(task);
                *self = Membership::Namer(task);
            }
            UNPOLLED.remove();
        }

        /// Leaves when the future completes, panics or is dropped.
        #[inline]
        pub(crate) fn end(&mut self) {
            match std::mem::replace(self, Membership::Part) {
                Membership::Part => {}
                Membership::Namer(task) => frames::mark_namer_ended(task),
                Membership::Unpolled(maker) => {
                    // Most likely it is dropped with the task, which then ends without having been polled.
                    if let Some(task) = try_id()
                        && Some(task) != maker
                        && SPAWNED.name_unpolled(task)
                    {
                        frames::mark_named(task);
                        frames::mark_namer_ended(task);
                    }
                    UNPOLLED.remove();
                }
            }
        }
    }
}
