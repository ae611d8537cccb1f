//! The stacks of all threads: waiting ones, which are not disturbed, and running ones.

#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks, reason = "system calls that are in plain sight")]

use std::hint::black_box;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry_instrumentation_runtime::profile;
use support::signals;
use support::syscalls::{self, Call};
use support::tasks::alone;

/// The stack of a thread, as text.
fn stack_of(name: &str) -> Option<String> {
    let text = profile::threads().to_string();
    let label = format!("thread={name} ");
    text.split("\n\n").find(|section| section.contains(&label)).map(str::to_owned)
}

/// Waits until the stack of a thread shows a function and goes to the thread's start.
fn assert_shown(name: &str, function: &str) {
    let start = Instant::now();
    loop {
        let stack = stack_of(name);
        if stack.as_ref().is_some_and(|stack| stack.contains(function) && !stack.contains("cut off")) {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(300), "{name}: no {function} in {stack:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

static IS_OVER: AtomicBool = AtomicBool::new(false);
static LOCK: Mutex<()> = Mutex::new(());

#[inline(never)]
fn waits_in_sleep() {
    thread::sleep(Duration::from_secs(60));
    black_box(());
}

#[inline(never)]
fn waits_for_a_lock() {
    drop(black_box(LOCK.lock()));
}

#[inline(never)]
fn waits_in_read(mut pipe: io::PipeReader) {
    let _ = black_box(pipe.read(&mut [0]));
}

#[inline(never)]
fn waits_in_park() {
    while !IS_OVER.load(SeqCst) {
        thread::park();
    }
    black_box(());
}

#[inline(never)]
fn waits_for_a_condition() {
    let lock = Mutex::new(());
    let guard = lock.lock().unwrap();
    let _ = black_box(Condvar::new().wait_timeout(guard, Duration::from_secs(60)));
}

#[inline(never)]
fn waits_for_a_message(receiver: &mpsc::Receiver<()>) {
    let _ = black_box(receiver.recv());
}

#[inline(never)]
fn looks_up_a_name() {
    // A stack in the C library's resolver, which may answer at once.
    while !IS_OVER.load(SeqCst) {
        let _ = black_box(std::net::ToSocketAddrs::to_socket_addrs(&("localhost", 80)));
    }
}

#[inline(never)]
fn computes() {
    let mut sum = 0_u64;
    while !IS_OVER.load(SeqCst) {
        for number in 0..10_000_u64 {
            sum = black_box(sum.wrapping_mul(31).wrapping_add(number));
        }
    }
}

/// Waits when its thread ends.
struct WaitsAtTheEnd;

impl Drop for WaitsAtTheEnd {
    #[inline(never)]
    fn drop(&mut self) {
        while !IS_OVER.load(SeqCst) {
            thread::sleep(Duration::from_millis(50));
        }
        black_box(());
    }
}

fn waits_in_a_destructor() {
    thread_local!(static AT_THE_END: WaitsAtTheEnd = const { WaitsAtTheEnd });
    AT_THE_END.with(|_| ());
}

#[test]
fn the_function_that_waits_or_runs_is_named() {
    let _alone = alone();
    let held = LOCK.lock().unwrap();
    let (pipe, _writer) = io::pipe().unwrap();
    let (_sender, receiver) = mpsc::channel();
    let start = |name: &str, run: Box<dyn FnOnce() + Send>| {
        thread::Builder::new().name(name.into()).spawn(run).unwrap();
    };
    start("sleeps", Box::new(waits_in_sleep));
    start("locks", Box::new(waits_for_a_lock));
    start("reads", Box::new(|| waits_in_read(pipe)));
    start("parks", Box::new(waits_in_park));
    start("condition", Box::new(waits_for_a_condition));
    start("receives", Box::new(move || waits_for_a_message(&receiver)));
    start("resolves", Box::new(looks_up_a_name));
    start("computes", Box::new(computes));
    start("ends", Box::new(waits_in_a_destructor));
    assert_shown("sleeps", "waits_in_sleep");
    assert_shown("locks", "waits_for_a_lock");
    assert_shown("reads", "waits_in_read");
    assert_shown("parks", "waits_in_park");
    assert_shown("condition", "waits_for_a_condition");
    assert_shown("receives", "waits_for_a_message");
    assert_shown("resolves", "looks_up_a_name");
    assert_shown("computes", "computes");
    assert_shown("ends", "WaitsAtTheEnd");
    // The calling thread.
    assert!(profile::threads().to_string().contains("the_function_that_waits_or_runs_is_named"));
    IS_OVER.store(true, SeqCst);
    drop(held);
}

/// Returns how often a repeated system call ends early while stacks are taken.
fn interruptions(call: Call) -> (usize, usize) {
    let is_over = std::sync::Arc::new(AtomicBool::new(false));
    let until = std::sync::Arc::clone(&is_over);
    let caller = thread::spawn(move || {
        let (mut calls, mut ended_early) = (0, 0);
        while !until.load(SeqCst) {
            ended_early += usize::from(call());
            calls += 1;
        }
        (calls, ended_early)
    });
    for _ in 0..30 {
        profile::threads();
        thread::sleep(Duration::from_millis(5));
    }
    is_over.store(true, SeqCst);
    caller.join().unwrap()
}

#[test]
fn waiting_system_calls_are_not_disturbed() {
    let _alone = alone();
    let mut disturbed = 0;
    for (name, call) in syscalls::waiting(40) {
        let (calls, ended_early) = interruptions(call);
        println!("{name:24} {calls:4} calls, {ended_early} ended early");
        assert!(calls > 0, "{name}");
        disturbed += ended_early;
    }
    // A call may begin between the check of a running thread and the signal to it.
    assert!(disturbed <= 1, "{disturbed} ended early");
}

#[test]
fn a_handler_of_the_programs_gets_its_signals_and_stays() {
    let _alone = alone();
    let (handler, _) = signals::install(libc::SIGURG);
    let is_over = std::sync::Arc::new(AtomicBool::new(false));
    let until = std::sync::Arc::clone(&is_over);
    let runner = thread::Builder::new().name("own signals".into()).spawn(move || {
        let mut sent = 0;
        while !until.load(SeqCst) {
            assert_eq!(unsafe { libc::raise(libc::SIGURG) }, 0);
            sent += 1;
        }
        sent
    });
    const QUESTIONS: usize = 8;
    // A thread that a busy machine gives no CPU does not answer.
    const MOST_QUESTIONS: usize = 400;
    let (mut questions, mut stacks) = (0, 0);
    while questions < QUESTIONS || stacks == 0 && questions < MOST_QUESTIONS {
        stacks += usize::from(stack_of("own signals").is_some_and(|stack| stack.contains("raise")));
        questions += 1;
    }
    is_over.store(true, SeqCst);
    let sent: usize = runner.unwrap().join().unwrap();
    assert!(stacks > 0, "no stack of the thread that runs");
    // The kernel merges a signal with one of the same number that the thread has yet to take, such as a question's. So the
    // handler is called for each question too, and misses nothing.
    let seen = signals::seen();
    assert!((sent..=sent + questions * 2).contains(&seen), "{seen} of {sent} signals");
    let mut after = MaybeUninit::<libc::sigaction>::uninit();
    let after = unsafe {
        assert_eq!(libc::sigaction(libc::SIGURG, std::ptr::null(), after.as_mut_ptr()), 0);
        after.assume_init()
    };
    assert_eq!((after.sa_sigaction, after.sa_flags & libc::SA_RESTART), (handler, libc::SA_RESTART));
}

#[test]
fn a_thread_that_blocks_the_signal_is_reported_and_left_alone() {
    let _alone = alone();
    let is_over = std::sync::Arc::new(AtomicBool::new(false));
    let until = std::sync::Arc::clone(&is_over);
    let blocker = thread::Builder::new().name("blocks signals".into()).spawn(move || {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        unsafe {
            libc::sigfillset(set.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        }
        while !until.load(SeqCst) {
            std::hint::spin_loop();
        }
    });
    let start = Instant::now();
    let is_reported = loop {
        let profile = profile::threads();
        let text = profile.to_string();
        if text.contains("thread=blocks signals") && text.contains("[no stack]") {
            break profile.error() == Some(&profile::Error::NoAnswer);
        }
        assert!(start.elapsed() < Duration::from_secs(300), "{text}");
    };
    is_over.store(true, SeqCst);
    blocker.unwrap().join().unwrap();
    assert!(is_reported);
}

/// A library that is loaded after the list of objects, and unloaded again.
#[test]
fn frames_of_a_library_that_was_loaded_later_are_walked() {
    let _alone = alone();
    // Loads the list.
    assert!(!profile::threads().samples().is_empty());
    let directory = tempfile::tempdir().unwrap();
    let (source, library) = (directory.path().join("later.rs"), directory.path().join("liblater.so"));
    let code = "#[unsafe(no_mangle)] pub extern \"C\" fn called_later(run: extern \"C\" fn()) { run(); std::hint::black_box(()); }";
    std::fs::write(&source, code).unwrap();
    let rustc = std::env::var_os("RUSTC").unwrap_or("rustc".into());
    let built = std::process::Command::new(rustc)
        .args(["--edition", "2024", "--crate-type", "cdylib", "-o"])
        .args([&library, &source])
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let path = std::ffi::CString::new(library.into_os_string().into_encoded_bytes()).unwrap();

    static WAITS: AtomicBool = AtomicBool::new(false);
    extern "C" fn sleep_in_callback() {
        while WAITS.load(SeqCst) {
            thread::sleep(Duration::from_millis(100));
        }
        black_box(());
    }
    for round in 0..2 {
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        assert!(!handle.is_null());
        let function = unsafe { libc::dlsym(handle, c"called_later".as_ptr()) };
        assert!(!function.is_null());
        type Called = extern "C" fn(extern "C" fn());
        let called = unsafe { std::mem::transmute::<*mut libc::c_void, Called>(function) };
        let name = format!("later {round}");
        WAITS.store(true, SeqCst);
        let sleeper = thread::Builder::new().name(name.clone()).spawn(move || called(sleep_in_callback));
        assert_shown(&name, "called_later");
        assert_shown(&name, "sleep_in_callback");
        WAITS.store(false, SeqCst);
        sleeper.unwrap().join().unwrap();
        assert_eq!(unsafe { libc::dlclose(handle) }, 0);
        assert!(!profile::threads().samples().is_empty());
    }
}
