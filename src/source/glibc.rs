//! `glibc.*`: the statistics of glibc's `malloc`.

#![cfg_attr(all(target_os = "linux", target_env = "gnu"), allow(unsafe_code, reason = "calls a C library"))]

use crate::settings::Settings;
use crate::source::row::{Row, up_down_counter};
use crate::source::table::{Source, Table};

pub(crate) static TABLE: Table<Mallinfo> = Table {
    name: "glibc",
    about: "The statistics of glibc's `malloc`, if it is the program's global allocator. Opt-in with `glibc(true)`: with many free chunks one reading takes tens of milliseconds, and other threads wait for the allocator meanwhile.",
    attributes: &[],
    rows: &[
        row("glibc.memory.arena", |info, to| to.value(info.arena as u64))
            .description("Bytes in the heaps of the arenas.")
            .origin("`mallinfo2`: `arena`.")
            .advice("This is the memory that `malloc` holds, apart from large allocations. More arenas than CPUs are rarely useful: see `MALLOC_ARENA_MAX`."),
        row("glibc.memory.mapped", |info, to| to.value(info.hblkhd as u64))
            .description("Bytes in large allocations, each of which has a mapping.")
            .origin("`mallinfo2`: `hblkhd`.")
            .advice("The system gets this memory back as soon as it is freed."),
        row("glibc.memory.used", |info, to| to.value(info.uordblks as u64))
            .description("Bytes allocated from the arenas.")
            .origin("`mallinfo2`: `uordblks`.")
            .advice("Contains `rust.memory.used`, the overhead of `malloc` and the memory of C libraries, without large allocations."),
        row("glibc.memory.free", |info, to| to.value(info.fordblks as u64))
            .description("Free bytes in the arenas.")
            .origin("`mallinfo2`: `fordblks`.")
            .advice("A value that stays high means fragmentation: the memory cannot return to the system because a live allocation lies behind it."),
    ],
};

const fn row(
    name: &'static str,
    read: fn(&Mallinfo, &mut crate::source::row::Points<'_, u64>),
) -> Row<Mallinfo> {
    up_down_counter(name, "By", read).opt_in()
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) use libc::mallinfo2 as Mallinfo;

/// A stand-in, so that the rows compile. It has no instance.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) struct Mallinfo {
    arena: usize,
    hblkhd: usize,
    uordblks: usize,
    fordblks: usize,
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn source(settings: &Settings) -> Source {
    use crate::source::row::Scope;

    if !settings.glibc {
        return TABLE.off("not requested");
    }
    let Some(mallinfo2) = mallinfo2() else {
        return TABLE.off("mallinfo2 is missing: it needs glibc 2.33 or later");
    };
    // SAFETY: `mallinfo2` takes no argument and locks each arena while it reads it.
    let read = move || unsafe { mallinfo2() };
    if !is_global(read) {
        return TABLE.off("glibc's malloc is not the global allocator");
    }
    TABLE.on(true, move |visit| visit(&Scope::default(), &read()))
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn source(_: &Settings) -> Source {
    TABLE.off("the C library is not glibc")
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
type Read = unsafe extern "C" fn() -> Mallinfo;

/// Looks the function up at run time. A program that links to it would not start with an older glibc.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn mallinfo2() -> Option<Read> {
    // SAFETY: the name is a C string.
    let function = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"mallinfo2".as_ptr()) };
    // SAFETY: the pointer is null, which is `None`, or glibc's function of that name, which has this type.
    unsafe { std::mem::transmute::<*mut libc::c_void, Option<Read>>(function) }
}

/// Returns true if an allocation of the program raises `malloc`'s figures and its release lowers them.
///
/// The allocation is never written to, so it takes address space only. Other threads may allocate at the same moment,
/// therefore the check is repeated.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn is_global(read: impl Fn() -> Mallinfo) -> bool {
    // More than the free lists that `malloc` counts as allocated can hold.
    const PROBE: usize = 1 << 20;
    let in_use = || {
        let info = read();
        info.uordblks.saturating_add(info.hblkhd)
    };
    (0..4).any(|_| {
        let before = in_use();
        let mut allocation = Vec::<u8>::new();
        let reserved = allocation.try_reserve_exact(PROBE).is_ok();
        std::hint::black_box(&allocation);
        let with = in_use();
        drop(allocation);
        reserved && with >= before.saturating_add(PROBE) && with >= in_use().saturating_add(PROBE)
    })
}
