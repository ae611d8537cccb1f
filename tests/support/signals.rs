//! A signal handler of the program, which counts its signals.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

static SEEN: AtomicUsize = AtomicUsize::new(0);

extern "C" fn see(_: libc::c_int) {
    SEEN.fetch_add(1, SeqCst);
}

/// Installs the handler for a signal. Returns its address and the previous action.
pub fn install(signal: libc::c_int) -> (usize, libc::sigaction) {
    let handler = see as extern "C" fn(libc::c_int) as usize;
    let mut before = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: a zeroed action is valid, the handler only adds to an atomic number, and `sigaction` fills `before` in.
    let before = unsafe {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(libc::sigaction(signal, &action, before.as_mut_ptr()), 0);
        before.assume_init()
    };
    (handler, before)
}

/// Returns the number of signals so far.
pub fn seen() -> usize {
    SEEN.load(SeqCst)
}
