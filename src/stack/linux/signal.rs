//! Has a running thread copy its own stack, in the handler of a signal.
//!
//! The signal is SIGURG, which is ignored by default and which programs have to expect at any time. It is sent to threads that
//! run, never to threads that wait, since it would end some system calls early in spite of `SA_RESTART`. The handler
//! is installed for one question at a time, and passes signals on to the program's handler.

#![allow(unsafe_code, reason = "signal handlers")]

use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};
use std::time::{Duration, Instant};
use std::{process, thread};

use super::copy::Copy;
use super::handler::{Handler, Info};
use super::memory::KeepErrno;
use super::proc::is_blocked;
use super::registers::Registers;
use crate::stack::reason::Reason;
use crate::stack::types::Stack;

const SIGNAL: libc::c_int = libc::SIGURG;

/// The time limit of an answer. A running thread answers at once unless it has to wait for a CPU.
const TIMEOUT: Duration = Duration::from_millis(100);

static HANDLER: Handler = Handler::new(SIGNAL, handle);
/// The process that asks at the moment: a child that was forked meanwhile does not wait for a thread of its parent.
static ASKING: AtomicU32 = AtomicU32::new(0);
/// The number of the question, times four, and its phase.
static QUESTION: AtomicU64 = AtomicU64::new(0);
/// The buffer for the answer. Kept for the next request.
static ANSWER: AtomicPtr<Copy> = AtomicPtr::new(ptr::null_mut());
/// Why the handler could not copy.
static FAILURE: AtomicU32 = AtomicU32::new(0);

const IDLE: u64 = 0;
const ASKED: u64 = 1;
const COPYING: u64 = 2;
const DONE: u64 = 3;
const PHASES: u64 = 4;

/// Makes the signals of questions differ from those that others send.
const MARK: u64 = 0x6f74_656c << 32;

/// Has a thread of this process copy its stack, and walks the copy.
pub(super) fn ask(thread: u32) -> Result<Stack, Reason> {
    let _turn = Turn::take()?;
    if is_blocked(thread, SIGNAL)? {
        return Err(Reason::SignalBlocked);
    }
    if ANSWER.load(Acquire).is_null() {
        ANSWER.store(Box::into_raw(Copy::new()), Release);
    }
    let number = (QUESTION.load(Relaxed) / PHASES).wrapping_add(1) & (u64::MAX >> 34);
    QUESTION.store(number * PHASES + ASKED, Release);
    let installed = HANDLER.install()?;
    Info::queued(SIGNAL, MARK | number).send(thread)?;
    let is_done = wait(number);
    drop(installed);
    if !is_done {
        return Err(Reason::NoAnswer);
    }
    let failure = FAILURE.load(Acquire).cast_signed();
    if failure != 0 {
        return Err(Reason::Refused { call: "process_vm_readv", errno: failure });
    }
    // SAFETY: it came from a box, and after the answer the handler does not touch it until the next question, which is this
    // thread's to ask while it has the turn.
    let stack = unsafe { ANSWER.load(Acquire).as_ref() }.map(Copy::stack);
    QUESTION.store(number * PHASES + IDLE, Release);
    stack.unwrap_or(Err(Reason::NoAnswer))
}

/// Waits for an answer. Returns true if there is one.
fn wait(number: u64) -> bool {
    let (asked, idle) = (number * PHASES + ASKED, number * PHASES + IDLE);
    let start = Instant::now();
    loop {
        if QUESTION.load(Acquire) == number * PHASES + DONE {
            return true;
        }
        if start.elapsed() >= TIMEOUT {
            if QUESTION.compare_exchange(asked, idle, AcqRel, Acquire).is_ok() {
                return false;
            }
            // The handler is at it, and may have to wait for a CPU. If it takes longer still, it keeps the memory.
            if start.elapsed() >= TIMEOUT * 10 {
                ANSWER.store(ptr::null_mut(), Release);
                QUESTION.store(idle, Release);
                return false;
            }
        }
        thread::sleep(Duration::from_micros(20));
    }
}

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let _errno = KeepErrno::new();
    // SAFETY: the kernel passes it to handlers that ask for it, as this one does.
    let question = unsafe { Info::value_of(info) }.filter(|value| value & (u64::MAX << 32) == MARK);
    let Some(number) = question.map(|value| value & (u64::MAX >> 32)) else {
        // SAFETY: these are a handler's arguments.
        return unsafe { HANDLER.pass_on(signal, info, context) };
    };
    // SAFETY: `context` is this handler's argument.
    unsafe { answer(number, context) };
    // The kernel drops a signal that is sent to a thread while another one of the same number waits for it. Hence the
    // program's may be in this one, as its handler has to expect in any case.
    let mut plain = Info::plain(SIGNAL);
    // SAFETY: these are a handler's arguments; the data is that of a signal without a value.
    unsafe { HANDLER.pass_on(signal, (&raw mut plain).cast(), context) };
}

/// Copies the stack of this thread if this is the question that waits for an answer.
///
/// # Safety
/// `context` is the argument of a signal handler that runs.
unsafe fn answer(number: u64, context: *mut libc::c_void) {
    let copying = number * PHASES + COPYING;
    // A signal that comes late finds another question, or none.
    if QUESTION.compare_exchange(number * PHASES + ASKED, copying, AcqRel, Acquire).is_err() {
        return;
    }
    // SAFETY: the caller says so.
    let registers = unsafe { Registers::of_signal(context) };
    // SAFETY: it came from a box that is never freed. The thread that asks does not read it before the question is answered,
    // and only one handler gets here for each question.
    let result =
        unsafe { ANSWER.load(Acquire).as_mut() }.map_or(Ok(()), |answer| answer.fill_from_own(registers));
    FAILURE.store(result.err().unwrap_or_default().cast_unsigned(), Release);
    // Fails if the thread that asks has given up.
    let _ = QUESTION.compare_exchange(copying, number * PHASES + DONE, AcqRel, Acquire);
}

/// The right to ask, which one thread has at a time.
struct Turn;

impl Turn {
    fn take() -> Result<Turn, Reason> {
        let own = process::id();
        let start = Instant::now();
        loop {
            match ASKING.compare_exchange(0, own, AcqRel, Acquire) {
                Ok(_) => return Ok(Turn),
                // Left over from before a fork.
                Err(other) if other != own => drop(ASKING.compare_exchange(other, 0, AcqRel, Acquire)),
                Err(_) if start.elapsed() > TIMEOUT * 2 => return Err(Reason::Busy),
                Err(_) => thread::sleep(Duration::from_micros(100)),
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        ASKING.store(0, Release);
    }
}
