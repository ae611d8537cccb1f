//! Installs a signal handler, passes on the signals of others, and restores the handler that was there before.

#![allow(unsafe_code, reason = "signal handlers")]

use std::mem::{self, MaybeUninit};
use std::ptr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Release};

use crate::stack::reason::Reason;

type Function = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);

/// The handler of one signal.
pub(super) struct Handler {
    signal: libc::c_int,
    function: Function,
    /// The function of the earlier handler, `SIG_DFL` or `SIG_IGN`.
    earlier: AtomicUsize,
    earlier_flags: AtomicUsize,
}

impl Handler {
    pub(super) const fn new(signal: libc::c_int, function: Function) -> Self {
        Handler {
            signal,
            function,
            earlier: AtomicUsize::new(libc::SIG_DFL),
            earlier_flags: AtomicUsize::new(0),
        }
    }

    /// Installs it until the result is dropped. One at a time.
    pub(super) fn install(&'static self) -> Result<Installed, Reason> {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: a structure of integers and pointers, for all of which zeros are valid. No signal comes in the middle of
        // the handler: each set can be filled.
        let mut action = unsafe {
            libc::sigfillset(&raw mut (*action.as_mut_ptr()).sa_mask);
            action.assume_init()
        };
        action.sa_sigaction = self.function as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
        // Before a signal can come, which may have to be passed on.
        let now = set(self.signal, None)?;
        self.remember(&now);
        let earlier = set(self.signal, Some(&action))?;
        self.remember(&earlier);
        Ok(Installed { handler: self, earlier })
    }

    fn remember(&self, action: &libc::sigaction) {
        self.earlier_flags.store(action.sa_flags.cast_unsigned() as usize, Release);
        self.earlier.store(action.sa_sigaction, Release);
    }

    /// Calls the earlier handler. Without one it does nothing, since the library expects these signals.
    ///
    /// # Safety
    /// The arguments are those of a handler that runs.
    pub(super) unsafe fn pass_on(
        &self,
        signal: libc::c_int,
        info: *mut libc::siginfo_t,
        context: *mut libc::c_void,
    ) {
        let earlier = self.earlier.load(Acquire);
        if matches!(earlier, libc::SIG_DFL | libc::SIG_IGN) || earlier == self.function as usize {
            return;
        }
        let with_info = self.earlier_flags.load(Acquire) & libc::SA_SIGINFO.cast_unsigned() as usize != 0;
        // SAFETY: the system holds it for a handler of this kind, by its flags. It gets the arguments of a handler.
        unsafe {
            if with_info {
                mem::transmute::<usize, Function>(earlier)(signal, info, context);
            } else {
                mem::transmute::<usize, extern "C" fn(libc::c_int)>(earlier)(signal);
            }
        }
    }
}

/// A handler while it is installed.
pub(super) struct Installed {
    handler: &'static Handler,
    earlier: libc::sigaction,
}

impl Drop for Installed {
    fn drop(&mut self) {
        // Ignoring the signal drops those that wait for a thread to take them, which might end the process where that is the
        // default. With a handler of the program they reach it, since the program's own signals may be among them.
        let has_none = matches!(self.earlier.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN);
        let mut ignore = self.earlier;
        ignore.sa_sigaction = libc::SIG_IGN;
        ignore.sa_flags = 0;
        let Ok(present) = set(self.handler.signal, has_none.then_some(&ignore)) else { return };
        // A handler that the program has installed meanwhile stays.
        let is_ours = present.sa_sigaction == self.handler.function as usize;
        let _ = set(self.handler.signal, Some(if is_ours { &self.earlier } else { &present }));
    }
}

fn set(signal: libc::c_int, action: Option<&libc::sigaction>) -> Result<libc::sigaction, Reason> {
    let mut before = MaybeUninit::uninit();
    let action = action.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: the action is null or a whole one, whose function is a handler of this kind; the other pointer can be
    // written to.
    if unsafe { libc::sigaction(signal, action, before.as_mut_ptr()) } != 0 {
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or_default();
        return Err(Reason::Refused { call: "sigaction", errno });
    }
    // SAFETY: on success it has been written.
    Ok(unsafe { before.assume_init() })
}

/// The data of a signal: the part of the kernel's structure that all kinds of a queued signal share. libc's has no
/// fields to write.
#[repr(C, align(8))]
pub(super) struct Info {
    signal: i32,
    errno: i32,
    code: i32,
    _pad: i32,
    process: i32,
    user: u32,
    value: u64,
    _rest: [u64; 12],
}

const _: () = assert!(size_of::<Info>() == size_of::<libc::siginfo_t>());

impl Info {
    /// A signal that this process sends itself with a value.
    pub(super) fn queued(signal: libc::c_int, value: u64) -> Self {
        Info { code: libc::SI_QUEUE, value, ..Info::plain(signal) }
    }

    /// A signal that this process sends one of its threads. Safe to call in a signal handler.
    pub(super) fn plain(signal: libc::c_int) -> Self {
        // SAFETY: these calls take nothing and cannot fail.
        let (process, user) = unsafe { (libc::getpid(), libc::getuid()) };
        Info { signal, errno: 0, code: libc::SI_TKILL, _pad: 0, process, user, value: 0, _rest: [0; 12] }
    }

    /// Sends it to a thread of this process.
    pub(super) fn send(&self, thread: u32) -> Result<(), Reason> {
        let thread = libc::c_long::from(thread);
        // SAFETY: the kernel reads the structure.
        let result = unsafe {
            libc::syscall(
                libc::SYS_rt_tgsigqueueinfo,
                libc::c_long::from(self.process),
                thread,
                self.signal,
                self,
            )
        };
        if result == 0 {
            return Ok(());
        }
        match std::io::Error::last_os_error().raw_os_error() {
            Some(libc::ESRCH) => Err(Reason::Ended),
            errno => Err(Reason::Refused { call: "rt_tgsigqueueinfo", errno: errno.unwrap_or_default() }),
        }
    }

    /// Returns the value of a signal that this process has sent with one.
    ///
    /// # Safety
    /// The argument is that of a signal handler that asks for it.
    pub(super) unsafe fn value_of(info: *const libc::siginfo_t) -> Option<u64> {
        // SAFETY: the caller says so, and it has the same layout.
        let info = unsafe { &*info.cast::<Info>() };
        // SAFETY: it takes nothing and cannot fail.
        let is_own = || info.process == unsafe { libc::getpid() };
        (info.code == libc::SI_QUEUE && is_own()).then_some(info.value)
    }

    /// Returns the value of a timer and how many of its signals were missed before this one.
    ///
    /// # Safety
    /// The argument is that of a signal handler that asks for it.
    pub(super) unsafe fn timer_of(info: *const libc::siginfo_t) -> Option<(u64, u32)> {
        // SAFETY: the caller says so. A timer's signal has the number of the timer and of missed signals in place of the
        // process and the user.
        let info = unsafe { &*info.cast::<Info>() };
        (info.code == libc::SI_TIMER).then_some((info.value, info.user))
    }
}
