//! Walks stacks by unwind tables.

#![allow(unsafe_code, reason = "reads the calling thread's stack")]

use std::cell::Cell;
use std::ptr;

use framehop::{FrameAddress, UnwindRegsNative, Unwinder};

use super::memory::{KeepErrno, PAGE, is_readable};
use super::modules::Modules;
use super::pool::{self, Cache};
use super::registers::Registers;
use crate::stack::types::{MAX_FRAMES, Walked};

thread_local! {
    /// Without a destructor, hence there to the very end of the thread.
    static IS_WALKING: Cell<bool> = const { Cell::new(false) };
}

/// Writes the return addresses of the calling thread's stack, leaf first, beginning with the one in the caller. Takes no
/// lock, allocates nothing and does not panic, so that an allocator can call it. Writes nothing before
/// [`prepare`](crate::stack::prepare) was called, and nothing when it is called inside itself.
#[inline(never)]
pub(crate) fn here(out: &mut [usize; MAX_FRAMES]) -> Walked {
    if IS_WALKING.replace(true) {
        return Walked::default();
    }
    let errno = KeepErrno::new();
    let registers = Registers::here();
    let walked = pool::with(|modules, cache| here_with(modules, cache, registers, out));
    drop(errno);
    IS_WALKING.set(false);
    walked.unwrap_or_default()
}

fn here_with(
    modules: &Modules,
    cache: &mut Cache,
    registers: Registers,
    out: &mut [usize; MAX_FRAMES],
) -> Walked {
    let mut readable = 0;
    let mut read = |address: u64| {
        let address = address as usize;
        // Tables that are wrong, or a register that is no frame pointer, may lead anywhere.
        if address < registers.sp || !address.is_multiple_of(8) {
            return Err(());
        }
        if readable != address / PAGE {
            if !is_readable(address) {
                return Err(());
            }
            readable = address / PAGE;
        }
        // SAFETY: eight aligned bytes of a page that can be read, since the kernel has just read them. They belong to the
        // stack of this thread, which stays mapped and which no other thread changes while this function runs.
        Ok(unsafe { ptr::with_exposed_provenance::<u64>(address).read_volatile() })
    };
    let mut len = 0;
    let mut push = |address| match out.get_mut(len) {
        Some(slot) => {
            *slot = address;
            len += 1;
            true
        }
        None => false,
    };
    let start = FrameAddress::from_instruction_pointer(registers.pc as u64);
    let end = walk(modules, cache, start, &mut registers.native(), &mut read, &mut push);
    Walked { len, is_cut: end != End::Root }
}

/// The end of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// At the function that the thread began with.
    Root,
    /// Tables, memory or a register are missing.
    Lost,
    /// The caller has no more room.
    Full,
}

/// Walks from a frame to the root, and hands out each return address until `push` returns false. At the end, the registers
/// are those of the last frame.
#[inline]
pub(super) fn walk(
    modules: &Modules,
    cache: &mut Cache,
    start: FrameAddress,
    registers: &mut UnwindRegsNative,
    read: &mut impl FnMut(u64) -> Result<u64, ()>,
    push: &mut impl FnMut(usize) -> bool,
) -> End {
    let mut frame = start;
    loop {
        if let Some(caller) = cache.rules.leave(frame, registers, read) {
            frame = caller;
            if !push(frame.address() as usize) {
                return End::Full;
            }
            continue;
        }
        // Without tables the unwinder would take the frame register for a frame pointer.
        if !modules.is_walkable(frame.address_for_lookup() as usize) {
            return End::Lost;
        }
        if !cache.rules.is_checked(frame) {
            if !modules.is_sound(frame) {
                return End::Lost;
            }
            cache.rules.note_checked(frame);
        }
        match modules.unwinder.unwind_frame(frame, registers, &mut cache.unwinder, read) {
            Ok(Some(address)) => match FrameAddress::from_return_address(address) {
                Some(caller) => {
                    cache.rules.learn(frame, modules, &mut cache.unwinder);
                    frame = caller;
                }
                None => return End::Root,
            },
            Ok(None) => return End::Root,
            Err(_) => return End::Lost,
        }
        if !push(frame.address() as usize) {
            return End::Full;
        }
    }
}
