//! Reads the process by the calls of Windows. It is compiled, but no test runs it.

#![allow(unsafe_code, reason = "calls into windows-sys")]

use std::mem::MaybeUninit;
use std::time::{Duration, SystemTime};

use windows_sys::Win32::Foundation::FILETIME;
use windows_sys::Win32::System::ProcessStatus::{K32GetProcessMemoryInfo, PROCESS_MEMORY_COUNTERS};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, GetProcessTimes};

use super::sample::{CpuTime, Memory, Process, Start};

pub(super) struct Sampler {
    start: Option<Start>,
}

impl Sampler {
    /// The system counts the bytes of all input and output together, not those of the disks.
    pub(super) fn new(_disk_io: bool) -> Self {
        Sampler { start: None }
    }

    pub(super) fn sample(&mut self) -> Process {
        let times = Times::read();
        Process {
            cpu: times
                .as_ref()
                .map(|times| CpuTime { user: times.user.as_secs_f64(), system: times.kernel.as_secs_f64() }),
            memory: memory(),
            uptime: Start::uptime(&mut self.start, || Some(times?.start)),
            ..Process::default()
        }
    }
}

#[derive(Clone, Copy)]
struct Times {
    start: SystemTime,
    user: Duration,
    kernel: Duration,
}

impl Times {
    fn read() -> Option<Self> {
        /// The steps of a `FILETIME` from 1601 to 1970.
        const EPOCH: u64 = 116_444_736_000_000_000;
        let mut times = [FILETIME { dwLowDateTime: 0, dwHighDateTime: 0 }; 4];
        let [start, end, kernel, user] = &mut times;
        // SAFETY: the call needs a process, which this one's pseudo handle is, and pointers to four times.
        let done = unsafe { GetProcessTimes(GetCurrentProcess(), start, end, kernel, user) } != 0;
        let [start, _, kernel, user] = times.map(steps);
        let start = SystemTime::UNIX_EPOCH.checked_add(duration(start.checked_sub(EPOCH)?))?;
        done.then(|| Times { start, user: duration(user), kernel: duration(kernel) })
    }
}

fn steps(time: FILETIME) -> u64 {
    u64::from(time.dwHighDateTime) << 32 | u64::from(time.dwLowDateTime)
}

/// Converts steps of 100 ns.
fn duration(steps: u64) -> Duration {
    Duration::from_nanos(steps.saturating_mul(100))
}

fn memory() -> Option<Memory> {
    let mut counters = MaybeUninit::<PROCESS_MEMORY_COUNTERS>::zeroed();
    let size = u32::try_from(size_of::<PROCESS_MEMORY_COUNTERS>()).ok()?;
    // SAFETY: the call needs a process, and a pointer that is valid for writing so many bytes; `counters` is one.
    let done = unsafe { K32GetProcessMemoryInfo(GetCurrentProcess(), counters.as_mut_ptr(), size) } != 0;
    // SAFETY: it is made of integers, and was zeroed.
    let counters = done.then(|| unsafe { counters.assume_init() })?;
    Some(Memory { size: counters.PagefileUsage as u64, resident: counters.WorkingSetSize as u64 })
}
