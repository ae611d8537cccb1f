//! Reads the process by the calls of macOS. It is compiled, but no test runs it.

#![allow(unsafe_code, reason = "calls into libc")]

use std::fs;
use std::mem::MaybeUninit;
use std::time::{Duration, SystemTime};

use super::sample::{Io, Memory, Process, Start};

pub(super) struct Sampler {
    disk_io: bool,
    start: Option<Start>,
}

impl Sampler {
    pub(super) fn new(disk_io: bool) -> Self {
        Sampler { disk_io, start: None }
    }

    pub(super) fn sample(&mut self) -> Process {
        let task: Option<libc::proc_taskinfo> = info();
        let memory = |task: libc::proc_taskinfo| Memory {
            size: task.pti_virtual_size,
            resident: task.pti_resident_size,
        };
        Process {
            memory: task.map(memory),
            threads: task.and_then(|task| task.pti_threadnum.try_into().ok()),
            file_descriptors: file_descriptors(),
            uptime: Start::uptime(&mut self.start, start),
            io: self.disk_io.then(io).flatten(),
            ..Process::by_usage()
        }
    }
}

/// What `proc_pidinfo` returns.
///
/// # Safety
///
/// The type is what the call writes for `FLAVOR`.
unsafe trait Info: Copy {
    const FLAVOR: libc::c_int;
}

// SAFETY: as the system's headers have it.
unsafe impl Info for libc::proc_taskinfo {
    const FLAVOR: libc::c_int = libc::PROC_PIDTASKINFO;
}

// SAFETY: as the system's headers have it.
unsafe impl Info for libc::proc_bsdinfo {
    const FLAVOR: libc::c_int = libc::PROC_PIDTBSDINFO;
}

fn info<T: Info>() -> Option<T> {
    let mut info = MaybeUninit::<T>::uninit();
    let size = libc::c_int::try_from(size_of::<T>()).ok()?;
    let process = std::process::id().try_into().ok()?;
    // SAFETY: `proc_pidinfo` needs a pointer that is valid for writing so many bytes; `info` is one.
    let written = unsafe { libc::proc_pidinfo(process, T::FLAVOR, 0, info.as_mut_ptr().cast(), size) };
    // SAFETY: it has written the whole value, which `T` says is one.
    (written == size).then(|| unsafe { info.assume_init() })
}

fn start() -> Option<SystemTime> {
    let info: libc::proc_bsdinfo = info()?;
    let since = Duration::from_secs(info.pbi_start_tvsec) + Duration::from_micros(info.pbi_start_tvusec);
    SystemTime::UNIX_EPOCH.checked_add(since)
}

fn file_descriptors() -> Option<u64> {
    // One of the entries is the directory that this call reads.
    (fs::read_dir("/dev/fd").ok()?.count() as u64).checked_sub(1)
}

fn io() -> Option<Io> {
    let mut usage = MaybeUninit::<libc::rusage_info_v2>::uninit();
    let process = std::process::id().try_into().ok()?;
    // SAFETY: `proc_pid_rusage` needs a pointer that is valid for writing the structure of this version; `usage` is one.
    let done =
        unsafe { libc::proc_pid_rusage(process, libc::RUSAGE_INFO_V2, usage.as_mut_ptr().cast()) } == 0;
    // SAFETY: on success the call has initialised the whole value.
    let usage = done.then(|| unsafe { usage.assume_init() })?;
    Some(Io { read: usage.ri_diskio_bytesread, written: usage.ri_diskio_byteswritten })
}
