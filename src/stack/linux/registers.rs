//! The registers that a walk starts from.

#![allow(unsafe_code, reason = "reads registers and the context of a signal")]

use framehop::UnwindRegsNative;

/// The registers from which a walk starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Registers {
    pub(super) pc: usize,
    pub(super) sp: usize,
    /// 0 where it is not known.
    pub(super) fp: usize,
    /// aarch64 only: the return address of a function that has not saved it.
    pub(super) lr: usize,
}

impl Registers {
    /// Reads the registers of the function that this is inlined into.
    #[inline(always)]
    #[cfg(target_arch = "x86_64")]
    pub(super) fn here() -> Self {
        let (pc, sp, fp);
        // SAFETY: it reads three registers and changes nothing else.
        unsafe {
            std::arch::asm!(
                "lea {pc}, [rip]", "mov {sp}, rsp", "mov {fp}, rbp",
                pc = out(reg) pc, sp = out(reg) sp, fp = out(reg) fp,
                options(nomem, nostack, preserves_flags),
            );
        }
        Registers { pc, sp, fp, lr: 0 }
    }

    /// Reads the registers of the function that this is inlined into.
    #[inline(always)]
    #[cfg(target_arch = "aarch64")]
    pub(super) fn here() -> Self {
        let (pc, sp, fp, lr);
        // SAFETY: it reads four registers and changes nothing else.
        unsafe {
            std::arch::asm!(
                "adr {pc}, .", "mov {sp}, sp", "mov {fp}, x29", "mov {lr}, x30",
                pc = out(reg) pc, sp = out(reg) sp, fp = out(reg) fp, lr = out(reg) lr,
                options(nomem, nostack, preserves_flags),
            );
        }
        Registers { pc, sp, fp, lr }
    }

    /// Returns the registers at the moment that a signal came.
    ///
    /// # Safety
    /// `context` is the third argument of a signal handler, while that handler runs.
    pub(super) unsafe fn of_signal(context: *const libc::c_void) -> Self {
        // SAFETY: the caller says so, and the kernel passes a pointer to such a structure.
        let machine = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext };
        #[cfg(target_arch = "x86_64")]
        {
            let register = |index: i32| machine.gregs.get(index as usize).map_or(0, |value| *value as usize);
            Registers {
                pc: register(libc::REG_RIP),
                sp: register(libc::REG_RSP),
                fp: register(libc::REG_RBP),
                lr: 0,
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            let register = |index: usize| machine.regs.get(index).map_or(0, |value| *value as usize);
            Registers { pc: machine.pc as usize, sp: machine.sp as usize, fp: register(29), lr: register(30) }
        }
    }

    pub(super) fn native(self) -> UnwindRegsNative {
        // The unwinder takes a frame pointer of 0 for the end of the stack. Nothing can be read at 1.
        #[cfg(target_arch = "x86_64")]
        return UnwindRegsNative::new(self.pc as u64, self.sp as u64, self.fp.max(1) as u64);
        // Addresses have at most 48 bits here; a signature of the return address may be above them.
        #[cfg(target_arch = "aarch64")]
        return UnwindRegsNative::new_with_ptr_auth_mask(
            framehop::aarch64::PtrAuthMask::from_max_known_address((1 << 48) - 1),
            self.lr as u64,
            self.sp as u64,
            self.fp.max(1) as u64,
        );
    }
}
