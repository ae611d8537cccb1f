//! Reads what the system knows of a thread of this process: its CPU time, and whether it waits or runs.
//!
//! Where the system has no such figures, or forbids them, every function returns `None`, `State::Unknown` or nothing.

#[cfg(target_os = "linux")]
pub(super) use linux::{cpu_time, current, pool, run_delay, state};
#[cfg(not(target_os = "linux"))]
pub(super) use unknown::{cpu_time, current, pool, run_delay, state};

#[cfg(target_os = "linux")]
mod linux {
    #![allow(unsafe_code, reason = "calls into libc")]

    use std::fs::{self, File};
    use std::io::Read;
    use std::mem::MaybeUninit;
    use std::time::Duration;

    use crate::watch::observe::{State, ThreadTime};

    const THREADS: &str = "/proc/self/task";

    /// Returns the system's id of the calling thread.
    pub(crate) fn current() -> Option<u32> {
        // SAFETY: `gettid` takes nothing and only returns a number.
        u32::try_from(unsafe { libc::gettid() }).ok()
    }

    /// Returns the CPU time that a thread of this process has used, exact to the moment.
    ///
    /// A system call instead of `/proc/self/task/ID/schedstat`: it takes 0.3 us, and that file lags behind by up to a
    /// tick of the kernel's clock while the thread runs.
    pub(crate) fn cpu_time(id: u32) -> Option<ThreadTime> {
        /// The kernel's `CPUCLOCK_PERTHREAD_MASK` and `CPUCLOCK_SCHED`.
        const SCHEDULED_TIME_OF_THREAD: libc::clockid_t = 4 | 2;
        let clock = (!libc::clockid_t::try_from(id).ok()?) << 3 | SCHEDULED_TIME_OF_THREAD;
        let mut time = MaybeUninit::<libc::timespec>::uninit();
        // SAFETY: `clock_gettime` asks for a pointer that a `timespec` can be written to, and refuses a clock that does
        // not exist, such as that of a thread that has ended.
        let done = unsafe { libc::clock_gettime(clock, time.as_mut_ptr()) } == 0;
        // SAFETY: on success it has written all of it.
        let time = done.then(|| unsafe { time.assume_init() })?;
        let cpu = Duration::new(time.tv_sec.try_into().ok()?, time.tv_nsec.try_into().ok()?);
        Some(ThreadTime { id, cpu })
    }

    /// Returns what a thread is doing.
    pub(crate) fn state(id: u32) -> State {
        let mut text = [0; 128];
        let read = File::open(format!("{THREADS}/{id}/stat")).and_then(|mut file| file.read(&mut text));
        read.ok().and_then(|length| text.get(..length)).map_or(State::Unknown, parse)
    }

    /// Returns how long a thread has waited for a CPU in all, until it was last given one.
    pub(crate) fn run_delay(id: u32) -> Option<Duration> {
        let text = fs::read_to_string(format!("{THREADS}/{id}/schedstat")).ok()?;
        Some(Duration::from_nanos(text.split_ascii_whitespace().nth(1)?.parse().ok()?))
    }

    /// The state follows the thread's name, which stands in parentheses and may contain some.
    pub(super) fn parse(stat: &[u8]) -> State {
        let name_end = stat.iter().rposition(|byte| *byte == b')');
        match name_end.and_then(|end| stat.get(end + 1..end + 3)) {
            Some(b" S" | b" D" | b" I") => State::Waiting,
            Some(b" R") => State::Runnable,
            _ => State::Unknown,
        }
    }

    /// Returns the threads that have the same name as this one, its number aside: Tokio gives its workers and the
    /// threads for blocking work the same name. The names of those that `is_known` are not read again. `None` if they
    /// cannot be listed.
    pub(crate) fn pool(id: u32, is_known: impl Fn(u32) -> bool) -> Option<Vec<ThreadTime>> {
        let name = name(id)?;
        let mut threads = Vec::new();
        for entry in fs::read_dir(THREADS).ok()? {
            let other: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            // A thread that ends meanwhile has neither name nor time.
            if other != id && (is_known(other) || self::name(other).as_ref() == Some(&name)) {
                threads.extend(cpu_time(other));
            }
        }
        Some(threads)
    }

    fn name(id: u32) -> Option<String> {
        let mut name = fs::read_to_string(format!("{THREADS}/{id}/comm")).ok()?;
        let length = name.trim_end().trim_end_matches(|last: char| last.is_ascii_digit()).len();
        name.truncate(length);
        Some(name)
    }
}

#[cfg(not(target_os = "linux"))]
mod unknown {
    use std::time::Duration;

    use crate::watch::observe::{State, ThreadTime};

    pub(crate) fn current() -> Option<u32> {
        None
    }

    pub(crate) fn cpu_time(_: u32) -> Option<ThreadTime> {
        None
    }

    pub(crate) fn run_delay(_: u32) -> Option<Duration> {
        None
    }

    pub(crate) fn state(_: u32) -> State {
        State::Unknown
    }

    pub(crate) fn pool(_: u32, _: impl Fn(u32) -> bool) -> Option<Vec<ThreadTime>> {
        None
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::watch::observe::State;

    #[test]
    fn the_state_is_read_after_the_name() {
        for (stat, state) in [
            (&b"7 (a) S 1 2"[..], State::Waiting),
            (b"7 (a b) R) D 1", State::Waiting),
            (b"7 () R 1", State::Runnable),
            (b"7 (a) T 1", State::Unknown),
            (b"7 (a) Z 1", State::Unknown),
            (b"7 (a)", State::Unknown),
            (b"7 (a S", State::Unknown),
            (b"", State::Unknown),
        ] {
            assert_eq!(linux::parse(stat), state, "{}", String::from_utf8_lossy(stat));
        }
    }

    #[test]
    fn a_thread_that_waits_uses_no_time_and_one_that_has_ended_is_unknown() {
        let (send, id) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let other = thread::Builder::new().name("waits-7".into()).spawn(move || {
            send.send(current().unwrap()).unwrap();
            ended.recv().unwrap_err();
        });
        let id = id.recv().unwrap();
        while state(id) != State::Waiting {
            thread::yield_now();
        }
        let before = cpu_time(id).unwrap();
        thread::sleep(Duration::from_millis(20));
        assert_eq!(cpu_time(id), Some(before));
        drop(end);
        other.unwrap().join().unwrap();
        // The kernel removes the thread a moment after it has been joined.
        while cpu_time(id).is_some() {
            thread::yield_now();
        }
        assert_eq!(state(id), State::Unknown);
        assert_eq!(pool(id, |_| false), None);
    }

    #[test]
    fn the_time_of_a_thread_that_computes_rises() {
        let id = current().unwrap();
        let before = cpu_time(id).unwrap().cpu;
        let start = Instant::now();
        while cpu_time(id).unwrap().cpu < before + Duration::from_millis(5) {
            assert!(start.elapsed() < Duration::from_secs(20));
        }
        assert_eq!(state(id), State::Runnable);
    }

    #[test]
    fn a_pool_has_the_threads_of_one_name() {
        let (send, ids) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let ended = std::sync::Arc::new(std::sync::Mutex::new(ended));
        let threads: Vec<_> = ["pool-1", "pool-22", "other"]
            .map(|name| {
                let (send, ended) = (send.clone(), ended.clone());
                let body = move || {
                    send.send(current().unwrap()).unwrap();
                    ended.lock().unwrap().recv().unwrap_err();
                };
                thread::Builder::new().name(name.into()).spawn(body).unwrap()
            })
            .into();
        let ids: Vec<u32> = ids.iter().take(3).collect();
        let pools: usize = ids.iter().map(|id| pool(*id, |_| false).unwrap().len()).sum();
        assert_eq!(pools, 2, "two see each other");
        drop(end);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

#[cfg(all(test, target_os = "linux"))]
mod fuzz {
    use super::linux::parse;
    use crate::util::fuzz::{edited, run};
    use crate::watch::observe::State;

    #[test]
    fn any_stat_has_a_state_or_an_unknown_one() {
        const STATS: [&[u8]; 3] = [
            b"8757 (tokio-runtime-w) S 8691 8691 3180 0 -1 4194304 100 0 0 0 0 0 0 0 20 0 17 0 152872 31334400 360\n",
            b"8758 (a) R 1 (b)) D 1 2 3 4\n",
            b"8759 (worker-7) R 8691 8691 3180 0 -1 4194304 100 0 0 0 0\n",
        ];
        run(4_000, 1 << 18, |u| {
            let text = edited(u, &STATS)?;
            let state = parse(&text);
            assert!(state == State::Unknown || text.contains(&b')'), "{text:?}");
            Ok(state != State::Unknown)
        });
    }
}
