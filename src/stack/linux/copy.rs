//! Walks the copy of another thread's stack.

#![allow(unsafe_code, reason = "a buffer that a signal handler fills")]

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};

use framehop::{FrameAddress, UnwindRegsNative};

use super::memory::{self, MAX_COPY};
use super::modules::Modules;
use super::pool::{self, Cache};
use super::registers::Registers;
use super::walk::{End, walk};
use crate::stack::reason::Reason;
use crate::stack::types::{MAX_FRAMES, Stack};

/// The registers of a thread and the memory from its stack pointer on.
pub(super) struct Copy {
    registers: Registers,
    length: usize,
    bytes: [u8; MAX_COPY],
}

impl Copy {
    /// Returns an empty one. It is large, so that it is made in place on the heap.
    pub(super) fn new() -> Box<Self> {
        let layout = Layout::new::<Copy>();
        // SAFETY: the layout is not empty.
        let copy = unsafe { alloc_zeroed(layout) }.cast::<Copy>();
        if copy.is_null() {
            handle_alloc_error(layout);
        }
        // SAFETY: it was allocated with this layout by the global allocator, and consists of registers, a length and bytes, for
        // all of which zeros are valid.
        unsafe { Box::from_raw(copy) }
    }

    /// Fills it from another thread. Fails with the error's number.
    pub(super) fn fill(&mut self, registers: Registers) -> Result<(), i32> {
        self.fill_up_to(registers, MAX_COPY)
    }

    /// Fills it from the calling thread. Safe to call in a signal handler, except that it may change `errno`. Fails with the
    /// error's number.
    ///
    /// The C library keeps the data of a thread at the top of its stack, which ends the copy: a page more takes 0.7 us. The data
    /// of the main thread lie elsewhere, as a stack that a coroutine brings does.
    pub(super) fn fill_from_own(&mut self, registers: Registers) -> Result<(), i32> {
        // SAFETY: it takes nothing and cannot fail.
        let end = unsafe { libc::pthread_self() } as usize;
        let length = end.checked_sub(registers.sp).filter(|length| (1..MAX_COPY).contains(length));
        self.fill_up_to(registers, length.unwrap_or(MAX_COPY))
    }

    fn fill_up_to(&mut self, registers: Registers, length: usize) -> Result<(), i32> {
        self.registers = registers;
        self.length = 0;
        self.length = memory::copy(registers.sp, self.bytes.get_mut(..length).unwrap_or_default())?;
        Ok(())
    }

    /// Walks the copy.
    pub(super) fn stack(&self) -> Result<Stack, Reason> {
        let stack = pool::with(|modules, cache| {
            // Each other address is a return address, which follows the instruction that it belongs to.
            let mut frames = Vec::with_capacity(MAX_FRAMES);
            frames.push(self.registers.pc.wrapping_add(1));
            let mut attempt = Attempt { copy: self, modules, cache, tries: Attempt::MAX_TRIES };
            let start = FrameAddress::from_instruction_pointer(self.registers.pc as u64);
            let end = attempt.resume(start, self.registers.native(), &mut frames);
            Stack { frames: frames.into(), is_cut: end != End::Root }
        });
        stack.ok_or(Reason::Busy)
    }

    fn word(&self, address: u64) -> Result<u64, ()> {
        let offset = (address as usize).checked_sub(self.registers.sp).ok_or(())?;
        let bytes = self.bytes.get(..self.length).unwrap_or_default();
        bytes
            .get(offset..)
            .and_then(|bytes| bytes.first_chunk())
            .map(|word| u64::from_ne_bytes(*word))
            .ok_or(())
    }
}

/// A walk that goes on where a register is missing.
struct Attempt<'a> {
    copy: &'a Copy,
    modules: &'a Modules,
    cache: &'a mut Cache,
    tries: u32,
}

impl Attempt<'_> {
    const MAX_TRIES: u32 = 24;

    /// Walks from a frame on. Where that ends before the root, it looks for the return address among the words of the stack,
    /// and keeps the first one that leads to the root or, failing that, the longest stack.
    ///
    /// The frame pointer of a waiting thread is not known until a frame has saved it. The frame that needs it before that
    /// has saved it itself, right before its return address.
    fn resume(
        &mut self,
        from: FrameAddress,
        mut registers: UnwindRegsNative,
        frames: &mut Vec<usize>,
    ) -> End {
        let copy = self.copy;
        let mut read = |address| copy.word(address);
        let mut push = |address| {
            let has_room = frames.len() < MAX_FRAMES;
            if has_room {
                frames.push(address);
            }
            has_room
        };
        let end = walk(self.modules, self.cache, from, &mut registers, &mut read, &mut push);
        if end != End::Lost {
            return end;
        }
        let kept = frames.len();
        let mut longest = frames.clone();
        let function = frames.last().and_then(|last| self.modules.function_start(last.wrapping_sub(1)));
        // A function that was jumped to has a caller that calls another one: of all others, the nearest comes first.
        for is_exact in [true, false] {
            let mut at = registers.sp();
            while let Ok(word) = copy.word(at) {
                let saved = copy.word(at.wrapping_sub(8)).unwrap_or_default();
                at += 8;
                if self.fit(word as usize, function).is_none_or(|fit| (fit == Fit::Exact) != is_exact) {
                    continue;
                }
                let Some(left) = self.tries.checked_sub(1) else { break };
                self.tries = left;
                let Some(caller) = FrameAddress::from_return_address(word) else { continue };
                let (pc, sp, fp) = (word as usize, at as usize, saved as usize);
                frames.truncate(kept);
                frames.push(pc);
                if self.resume(caller, Registers { pc, sp, fp, lr: pc }.native(), frames) != End::Lost {
                    return End::Root;
                }
                if frames.len() > longest.len() {
                    longest.clone_from(frames);
                }
            }
        }
        *frames = longest;
        End::Lost
    }

    /// Returns how well a word of the stack fits as the return address of a function. `None` if it is not one at all.
    fn fit(&self, word: usize, function: Option<usize>) -> Option<Fit> {
        if !self.modules.is_walkable(word.wrapping_sub(1)) {
            return None;
        }
        match call_before(word)? {
            Call::To(target) if Some(target) == function => Some(Fit::Exact),
            Call::To(_) | Call::Unknown => Some(Fit::Possible),
        }
    }
}

/// The likelihood that a return address belongs to a function.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// The call before it goes to this function.
    Exact,
    /// The call before it may go anywhere, or goes to a function that may have jumped to this one.
    Possible,
}

/// A call instruction.
#[derive(Debug, PartialEq, Eq)]
enum Call {
    To(usize),
    Unknown,
}

/// Returns the call that ends at an address. `None` if there is none.
#[cfg(target_arch = "x86_64")]
fn call_before(address: usize) -> Option<Call> {
    const LENGTH: usize = 8;
    let mut code = [0; LENGTH];
    let copied = memory::copy(address.checked_sub(LENGTH)?, &mut code).ok()?;
    let offset = || Some(i32::from_le_bytes(*code.last_chunk()?) as isize);
    match code {
        _ if copied < LENGTH => None,
        [_, _, _, 0xe8, ..] => Some(Call::To(address.wrapping_add_signed(offset()?))),
        // Through a table of addresses, as libraries are called.
        [_, _, 0xff, 0x15, ..] => {
            let mut target = [0; 8];
            let copied = memory::copy(address.wrapping_add_signed(offset()?), &mut target).ok()?;
            (copied == target.len()).then(|| Call::To(usize::from_le_bytes(target)))
        }
        // Through a register or memory: the second byte has 2 in its middle.
        [.., 0xff, kind] | [.., 0xff, kind, _] | [.., 0xff, kind, _, _] if is_call(kind) => {
            Some(Call::Unknown)
        }
        [_, _, 0xff, kind, ..] | [_, 0xff, kind, ..] if is_call(kind) => Some(Call::Unknown),
        _ => None,
    }
}

#[cfg(target_arch = "x86_64")]
fn is_call(kind: u8) -> bool {
    kind & 0b0011_1000 == 0b0001_0000
}

/// Returns the call that ends at an address. `None` if there is none.
#[cfg(target_arch = "aarch64")]
fn call_before(address: usize) -> Option<Call> {
    let place = address.checked_sub(4)?;
    let mut code = [0; 4];
    if !address.is_multiple_of(4) || memory::copy(place, &mut code) != Ok(code.len()) {
        return None;
    }
    let code = u32::from_le_bytes(code);
    if code >> 26 == 0b10_0101 {
        let words = ((code << 6).cast_signed() >> 6) as isize;
        Some(Call::To(place.wrapping_add_signed(words * 4)))
    } else {
        (code & 0xffff_fc1f == 0xd63f_0000).then_some(Call::Unknown)
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    fn call_at_the_end_of(code: &[u8]) -> Option<Call> {
        let code = [&[0x90; 8], code].concat();
        call_before(code.as_ptr_range().end.addr())
    }

    #[test]
    fn calls_are_recognised() {
        let code = [0xe8, 2, 0, 0, 0];
        let call = call_at_the_end_of(&code);
        assert!(matches!(call, Some(Call::To(_))), "{call:?}");
        for indirect in [
            &[0xff, 0xd0][..],
            &[0x41, 0xff, 0xd4],
            &[0xff, 0x50, 0x18],
            &[0xff, 0x54, 0x24, 8],
            &[0xff, 0x90, 0, 1, 0, 0],
            &[0xff, 0x94, 0x24, 0, 1, 0, 0],
        ] {
            assert_eq!(call_at_the_end_of(indirect), Some(Call::Unknown), "{indirect:x?}");
        }
        for other in [&[0x90][..], &[0xff, 0xe0], &[0xe9, 0, 0, 0, 0]] {
            assert_eq!(call_at_the_end_of(other), None, "{other:x?}");
        }
    }

    #[test]
    fn an_unmapped_address_has_no_call() {
        assert_eq!(call_before(0), None);
        assert_eq!(call_before(4096), None);
    }
}
