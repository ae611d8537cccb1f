//! Probes that a profiler outside the process can attach to: `otel_memory:alloc(ptr, size, weight)` and
//! `otel_memory:free(ptr)`, for samples only.
//!
//! A probe is one `nop` and a note in the executable that says where the `nop` is and in which registers its arguments are
//! (the format of SystemTap's user-space probes, which `perf`, `bpftrace` and eBPF profilers read). `readelf -n` shows them.

/// Places a probe here. Its arguments are 64-bit numbers.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
macro_rules! probe {
    ($name:literal, $arguments:expr $(, $argument:ident)*) => {
        // SAFETY:
        // * The code is one `nop`, which changes nothing.
        // * The note lies in a section that is not loaded.
        unsafe {
            std::arch::asm!(
                "990: nop",
                ".pushsection .note.stapsdt, \"\", @note",
                ".balign 4",
                ".4byte 992f - 991f",
                ".4byte 994f - 993f",
                ".4byte 3",
                "991: .asciz \"stapsdt\"",
                "992: .balign 4",
                "993: .8byte 990b",
                ".8byte 0",
                ".8byte 0",
                ".asciz \"otel_memory\"",
                concat!(".asciz \"", $name, "\""),
                concat!(".asciz \"", $arguments, "\""),
                "994: .balign 4",
                ".popsection",
                $($argument = in(reg) $argument,)*
                options(nomem, nostack, preserves_flags),
            );
        }
    };
}

/// Reports a sample to a profiler. `weight` is the number of bytes that it stands for.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#[inline(never)]
pub(super) fn alloc(ptr: *mut u8, size: usize, weight: u64) {
    let (ptr, size) = (ptr.addr() as u64, size as u64);
    #[cfg(target_arch = "x86_64")]
    probe!("alloc", "8@%{ptr} 8@%{size} 8@%{weight}", ptr, size, weight);
    #[cfg(target_arch = "aarch64")]
    probe!("alloc", "8@{ptr} 8@{size} 8@{weight}", ptr, size, weight);
}

/// Reports the end of a sample to a profiler.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#[inline(never)]
pub(super) fn free(ptr: *mut u8) {
    let ptr = ptr.addr() as u64;
    #[cfg(target_arch = "x86_64")]
    probe!("free", "8@%{ptr}", ptr);
    #[cfg(target_arch = "aarch64")]
    probe!("free", "8@{ptr}", ptr);
}

/// Other systems have no such probes.
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub(super) fn alloc(_: *mut u8, _: usize, _: u64) {}

/// Other systems have no such probes.
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub(super) fn free(_: *mut u8) {}
