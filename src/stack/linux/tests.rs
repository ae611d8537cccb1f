//! Compares stacks with those of the system's unwinder.

use std::hint::black_box;

use super::{here, prepare};
use crate::stack::types::{MAX_FRAMES, Walked};

/// The stack of one moment twice: ours, and that of `_Unwind_Backtrace`.
#[inline(never)]
fn both() -> (Vec<usize>, Walked, Vec<usize>) {
    let mut frames = [0; MAX_FRAMES];
    let walked = here(&mut frames);
    let mut theirs = Vec::new();
    backtrace::trace(|frame| {
        theirs.push(frame.ip().addr());
        true
    });
    // Theirs may end with the caller that the first function does not have.
    theirs.retain(|address| *address != 0);
    (frames[..walked.len].to_vec(), walked, theirs)
}

#[inline(never)]
fn at_depth<R>(depth: usize, call: fn() -> R) -> R {
    let result = if depth == 0 { call() } else { at_depth(depth - 1, call) };
    black_box(&result);
    result
}

#[test]
fn a_stack_is_that_of_the_systems_unwinder() {
    prepare().unwrap();
    // The first walk learns the rules of the frames, and the others follow them.
    for depth in [0, 1, 10, 30, 30, 10, 0] {
        let (ours, walked, theirs) = at_depth(depth, both);
        assert!(!walked.is_cut, "{ours:x?}");
        assert!(ours.len() > depth + 3, "{ours:x?}");
        // The first address is a different call in the same function.
        assert!(theirs.ends_with(&ours[1..]), "depth {depth}: ours {ours:x?}, theirs {theirs:x?}");
    }
}

#[test]
fn a_deep_stack_is_cut_at_the_root() {
    prepare().unwrap();
    let (ours, walked, theirs) = at_depth(200, both);
    assert_eq!((ours.len(), walked.is_cut), (MAX_FRAMES, true));
    let place = theirs.windows(MAX_FRAMES - 1).position(|part| part == &ours[1..]);
    assert!(place.is_some(), "ours {ours:x?}, theirs {theirs:x?}");
}

#[test]
fn many_threads_walk_at_once_while_the_list_is_replaced() {
    prepare().unwrap();
    std::thread::scope(|scope| {
        let walkers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let stacks: Vec<_> = (0..2000).map(|_| at_depth(5, both).0).collect();
                    stacks.iter().filter(|stack| *stack == &stacks[0]).count()
                })
            })
            .collect();
        for _ in 0..20 {
            super::pool::publish(super::modules::Modules::load());
        }
        for walker in walkers {
            let equal = walker.join().unwrap();
            assert!(equal > 1990, "{equal} of 2000");
        }
    });
}

#[test]
fn a_walk_leaves_the_error_number_alone() {
    prepare().unwrap();
    let mut frames = [0; MAX_FRAMES];
    // A walk that found an unreadable page would leave EFAULT, and one that found a readable page EINVAL.
    let error = std::fs::File::open("/nowhere/at/all").map(drop);
    let walked = here(&mut frames);
    let after = std::io::Error::last_os_error();
    assert!(walked.len > 3 && error.is_err());
    assert_eq!(after.raw_os_error(), Some(libc::ENOENT));
}

/// The length of the stack in this function, or 0 if it is cut.
fn length() -> usize {
    let mut frames = [0; MAX_FRAMES];
    let walked = here(&mut frames);
    if walked.is_cut { 0 } else { walked.len }
}

#[test]
fn a_child_after_fork_walks_its_stack() {
    #![allow(unsafe_code, reason = "`fork`")]
    prepare().unwrap();
    let expected = length();
    assert!(expected > 3);
    // SAFETY: the child walks, which takes no lock and allocates nothing, and ends at once.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let is_equal = length() == expected;
        // SAFETY: it ends the child.
        unsafe { libc::_exit(if is_equal { 7 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: the status is writable.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7, "{status:x}");
}

#[test]
fn a_thread_that_ends_walks_its_stack_in_a_destructor() {
    use std::cell::RefCell;
    use std::sync::mpsc::{Sender, channel};

    struct AtTheEnd(Sender<usize>);

    impl Drop for AtTheEnd {
        fn drop(&mut self) {
            self.0.send(length()).unwrap();
        }
    }

    thread_local!(static AT_THE_END: RefCell<Option<AtTheEnd>> = const { RefCell::new(None) });
    prepare().unwrap();
    let (sender, received) = channel();
    std::thread::spawn(move || AT_THE_END.set(Some(AtTheEnd(sender)))).join().unwrap();
    assert!(received.recv().unwrap() > 3);
}
