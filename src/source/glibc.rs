//! `glibc.*`: what glibc's `malloc` says of itself.

#![cfg_attr(all(target_os = "linux", target_env = "gnu"), allow(unsafe_code, reason = "asks a C library"))]

use crate::settings::Settings;
use crate::source::row::{Row, up_down_counter};
use crate::source::table::{Source, Table};

pub(crate) static TABLE: Table<Mallinfo> = Table {
    name: "glibc",
    about: "What glibc's `malloc` says of itself, where it is the program's global allocator. On request, with `glibc(true)`: with many free chunks one reading takes tens of milliseconds, during which other threads wait for the allocator.",
    attributes: &[],
    rows: &[
        row("glibc.memory.arena", |info, to| to.value(info.arena as u64))
            .description("Bytes in the heaps of `malloc`'s arenas.")
            .origin("`mallinfo2`: `arena`.")
            .advice("What `malloc` has of the system, but for large allocations. More arenas than CPUs are rarely of use: see `MALLOC_ARENA_MAX`."),
        row("glibc.memory.mapped", |info, to| to.value(info.hblkhd as u64))
            .description("Bytes in large allocations that are mapped one by one.")
            .origin("`mallinfo2`: `hblkhd`.")
            .advice("Given back to the system as soon as they are freed."),
        row("glibc.memory.used", |info, to| to.value(info.uordblks as u64))
            .description("Bytes allocated from the arenas.")
            .origin("`mallinfo2`: `uordblks`.")
            .advice("`rust.memory.used` with `malloc`'s own overhead, less what is mapped, and what C libraries beside it take."),
        row("glibc.memory.free", |info, to| to.value(info.fordblks as u64))
            .description("Bytes that are free in the arenas.")
            .origin("`mallinfo2`: `fordblks`.")
            .advice("High for long: fragmentation, memory that cannot go back to the system because something behind it is alive."),
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

/// Never made.
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
        return TABLE.off("not asked for");
    }
    let Some(mallinfo2) = mallinfo2() else {
        return TABLE.off("this glibc has no mallinfo2, which came with 2.33");
    };
    // SAFETY: it takes nothing and locks what it reads.
    let read = move || unsafe { mallinfo2() };
    if !is_global(read) {
        return TABLE.off("glibc's malloc is not the global allocator");
    }
    TABLE.on(true, move |visit| visit(&Scope::default(), &read()))
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn source(_: &Settings) -> Source {
    TABLE.off("this is not glibc")
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
type Read = unsafe extern "C" fn() -> Mallinfo;

/// Looked up when it is asked for: programs that name it could not be started with an older glibc.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn mallinfo2() -> Option<Read> {
    // SAFETY: the name ends with a zero.
    let function = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"mallinfo2".as_ptr()) };
    // SAFETY: it is null, which is `None`, or glibc's function of that name, which has this type.
    unsafe { std::mem::transmute::<*mut libc::c_void, Option<Read>>(function) }
}

/// Whether what the program allocates shows in `malloc`'s figures and is gone from them afterwards. It is never touched,
/// so it is address space alone. Other threads may allocate at the same moment: hence several attempts.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn is_global(read: impl Fn() -> Mallinfo) -> bool {
    // More than `malloc` keeps in lists that it counts as allocated.
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
