//! Which of Tokio's tasks a named future belongs to: under the hooks, a task that has a name is not counted under
//! the place where it was spawned as well.

#[cfg(tokio_unstable)]
pub(crate) use with_hooks::Membership;
#[cfg(not(tokio_unstable))]
pub(crate) use without_hooks::Membership;

#[cfg(not(tokio_unstable))]
mod without_hooks {
    /// Nothing but named futures is counted.
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

    use super::super::hooks;
    use super::super::spawned::{SPAWNED, UNPOLLED};

    /// What a named future is to the task that it is polled in.
    pub(crate) enum Membership {
        /// Not polled yet, and made while that task was polled, if any.
        Unpolled(Option<Id>),
        /// It gave the task its name.
        Namer(Id),
        /// A part of some task, counted beside it.
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
                Membership::Namer(task) => hooks::mark_named(task),
                Membership::Unpolled(maker) => self.first_poll(maker),
            }
        }

        fn first_poll(&mut self, maker: Option<Id>) {
            *self = Membership::Part;
            // A task takes the name of a future that was made outside it, in its very first poll. What it makes
            // itself is a part of it.
            if let Some(task) = try_id()
                && Some(task) != maker
                && hooks::is_in_first_poll(task)
                && SPAWNED.name(task)
            {
                hooks::mark_named(task);
                *self = Membership::Namer(task);
            }
            UNPOLLED.remove();
        }

        /// When the future completes, panics or is dropped.
        #[inline]
        pub(crate) fn end(&mut self) {
            match std::mem::replace(self, Membership::Part) {
                Membership::Part => {}
                Membership::Namer(task) => hooks::mark_namer_ended(task),
                Membership::Unpolled(maker) => {
                    // Dropped with the task, most likely, which then ends without having been polled.
                    if let Some(task) = try_id()
                        && Some(task) != maker
                        && SPAWNED.name_unpolled(task)
                    {
                        hooks::mark_named(task);
                        hooks::mark_namer_ended(task);
                    }
                    UNPOLLED.remove();
                }
            }
        }
    }
}
