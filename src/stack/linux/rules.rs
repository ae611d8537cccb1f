//! Remembers how the frames of return addresses are left, so that a walk through known code reads no unwind tables.
//!
//! The unwinder has such a memory too, in which two return addresses of one stack may need the same place: each walk then
//! reads the tables for both, at some 6 000 instructions each. A rule here takes 30 instructions and comes from the unwinder,
//! which computes it for a stack that does not exist: the addresses that it reads and the registers that it returns show
//! the rule.

#[cfg(target_arch = "x86_64")]
use framehop::Unwinder as _;
use framehop::{FrameAddress, UnwindRegsNative};

use super::modules::{Modules, UnwinderCache};

/// The number of rules that are remembered for each walk that can run at a time: 64 KiB, of which the used pages are resident.
pub(super) const LEN: usize = 4096;

/// A return address with its rule. 0 is no address.
pub(super) type Entry = [u64; 2];

/// The number of places that a return address can have.
const WAYS: usize = 2;

/// The rules of one list of objects.
pub(super) struct Rules {
    entries: &'static mut [Entry],
    /// The list that the rules belong to.
    list: u64,
    /// The instruction at which a walk began last whose tables have been checked.
    checked: u64,
}

impl Rules {
    /// Returns rules that are kept in `entries`, all of which are 0.
    pub(super) fn new(entries: &'static mut [Entry]) -> Self {
        Rules { entries, list: 0, checked: 0 }
    }

    /// Forgets the rules of other lists than `list`.
    #[inline]
    pub(super) fn begin(&mut self, list: u64) {
        if self.list != list {
            self.entries.fill([0; 2]);
            self.list = list;
            self.checked = 0;
        }
    }

    #[inline]
    fn ways(&mut self, address: u64) -> Option<&mut [Entry; WAYS]> {
        let sets = (self.entries.len() / WAYS).checked_ilog2()?;
        // Two steps, since a shift by 64 is none.
        let set = address.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 1 >> (63 - sets);
        self.entries.get_mut(set as usize * WAYS..)?.first_chunk_mut()
    }

    /// Leaves the frame of a return address, if its rule is known and leads to a caller. Otherwise the registers stay as
    /// they are.
    #[inline]
    pub(super) fn leave(
        &mut self,
        frame: FrameAddress,
        registers: &mut UnwindRegsNative,
        read: &mut impl FnMut(u64) -> Result<u64, ()>,
    ) -> Option<FrameAddress> {
        let FrameAddress::ReturnAddress(address) = frame else { return None };
        let address = u64::from(address);
        let [_, rule] = *self.ways(address)?.iter().find(|[known, _]| *known == address)?;
        FrameAddress::from_return_address(Rule(rule).leave(registers, read)?)
    }

    /// Returns true if the tables of a frame are known to be sound.
    pub(super) fn is_checked(&mut self, frame: FrameAddress) -> bool {
        let address = frame.address();
        match frame {
            FrameAddress::InstructionPointer(_) => self.checked == address,
            FrameAddress::ReturnAddress(_) => {
                self.ways(address).is_some_and(|ways| ways.iter().any(|[known, _]| *known == address))
            }
        }
    }

    /// Notes that the tables of a frame are sound. Those of return addresses are noted when their rules are learnt.
    pub(super) fn note_checked(&mut self, frame: FrameAddress) {
        if let FrameAddress::InstructionPointer(address) = frame {
            self.checked = address;
        }
    }

    /// Learns the rule of a frame that the unwinder has just left.
    pub(super) fn learn(&mut self, frame: FrameAddress, modules: &Modules, cache: &mut UnwinderCache) {
        let FrameAddress::ReturnAddress(address) = frame else { return };
        let address = u64::from(address);
        let Some(ways) = self.ways(address) else { return };
        if ways.iter().all(|[known, _]| *known != address) {
            let rule = Rule::of(frame, modules, cache).unwrap_or(Rule::NONE);
            ways.rotate_right(1);
            ways[0] = [address, rule.0];
        }
    }
}

/// The rule of a frame: the caller's stack pointer is a register plus [`offset`](Self::offset), the return address lies below
/// it, and the caller's frame register is unchanged or lies [`saved`](Self::saved) bytes below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule(u64);

#[cfg(target_arch = "x86_64")]
impl Rule {
    /// A frame that only the unwinder can leave. No caller's stack pointer is equal to a register.
    const NONE: Rule = Rule(0);

    /// The bit that says that the offset is added to the frame register.
    const FROM_FRAME: u64 = 1 << 63;

    fn new(is_from_frame: bool, offset: u64, saved: u64) -> Option<Self> {
        let is_valid = (8..=u64::from(u32::MAX)).contains(&offset) && saved <= 0xFFFF && saved != 8;
        let from = if is_from_frame { Rule::FROM_FRAME } else { 0 };
        is_valid.then_some(Rule(from | saved << 32 | offset))
    }

    #[inline]
    fn offset(self) -> u64 {
        self.0 & 0xFFFF_FFFF
    }

    /// 0 if the frame register is unchanged.
    #[inline]
    fn saved(self) -> u64 {
        self.0 >> 32 & 0xFFFF
    }

    /// Returns the return address, and sets the registers to those of the caller.
    #[inline]
    fn leave(
        self,
        registers: &mut UnwindRegsNative,
        read: &mut impl FnMut(u64) -> Result<u64, ()>,
    ) -> Option<u64> {
        let base = if self.0 & Rule::FROM_FRAME == 0 { registers.sp() } else { registers.bp() };
        let sp = base.checked_add(self.offset())?;
        // The unwinder decides what that means.
        if sp <= registers.sp() {
            return None;
        }
        let caller = read(sp - 8).ok().filter(|caller| *caller != 0)?;
        if self.saved() > 0 {
            let frame = read(sp.checked_sub(self.saved())?).ok()?;
            registers.set_bp(frame);
        }
        registers.set_ip(caller);
        registers.set_sp(sp);
        Some(caller)
    }

    /// Returns the rule of a return address by which the unwinder leaves any frame. `None` if there is none.
    fn of(frame: FrameAddress, modules: &Modules, cache: &mut UnwinderCache) -> Option<Self> {
        /// Registers that are so far apart that their sums with offsets cannot be mistaken.
        const SP: u64 = 1 << 40;
        const BP: u64 = 1 << 44;
        /// What lies at an address is the address with this bit.
        const READ: u64 = 1 << 60;
        let mut registers = UnwindRegsNative::new(frame.address(), SP, BP);
        let mut read = |address: u64| Ok(address | READ);
        let caller = modules.unwinder.unwind_frame(frame, &mut registers, cache, &mut read).ok()??;
        let sp = registers.sp();
        if caller != sp.checked_sub(8)? | READ {
            return None;
        }
        let (is_from_frame, offset) = match (sp.checked_sub(BP), sp.checked_sub(SP)) {
            (Some(offset), _) => (true, offset),
            (None, Some(offset)) => (false, offset),
            (None, None) => return None,
        };
        let saved = match registers.bp() {
            BP => 0,
            read if read & READ != 0 => sp.checked_sub(read & !READ)?,
            _ => return None,
        };
        let is_below = saved != 0 || registers.bp() == BP;
        if is_below { Rule::new(is_from_frame, offset, saved) } else { None }
    }
}

/// On other architectures the unwinder's memory is the only one.
#[cfg(not(target_arch = "x86_64"))]
impl Rule {
    const NONE: Rule = Rule(0);

    fn leave(self, _: &mut UnwindRegsNative, _: &mut impl FnMut(u64) -> Result<u64, ()>) -> Option<u64> {
        None
    }

    fn of(_: FrameAddress, _: &Modules, _: &mut UnwinderCache) -> Option<Self> {
        None
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn a_rule_leaves_its_frame_and_refuses_others() {
        // The stack from address 1000 on holds its own addresses.
        let mut read = |address: u64| if (1000..1200).contains(&address) { Ok(address) } else { Err(()) };
        let leave = |rule: Option<Rule>, sp, bp, read: &mut dyn FnMut(u64) -> Result<u64, ()>| {
            let mut registers = UnwindRegsNative::new(1, sp, bp);
            let mut read = |address| read(address);
            let caller = rule.unwrap().leave(&mut registers, &mut read)?;
            Some((caller, registers.ip(), registers.sp(), registers.bp()))
        };
        assert_eq!(leave(Rule::new(false, 32, 0), 1000, 7, &mut read), Some((1024, 1024, 1032, 7)));
        assert_eq!(leave(Rule::new(false, 32, 24), 1000, 7, &mut read), Some((1024, 1024, 1032, 1008)));
        assert_eq!(leave(Rule::new(true, 16, 16), 1000, 1064, &mut read), Some((1072, 1072, 1080, 1064)));
        // Out of the stack, backwards, without a frame register.
        assert_eq!(leave(Rule::new(false, 4000, 0), 1000, 7, &mut read), None);
        assert_eq!(leave(Rule::new(true, 16, 16), 1064, 1000, &mut read), None);
        assert_eq!(leave(Rule::new(true, 16, 16), 1000, 0, &mut read), None);
        assert_eq!(leave(Some(Rule::NONE), 1000, 1000, &mut read), None);
        let mut null = |_| Ok(0);
        assert_eq!(leave(Rule::new(false, 32, 0), 1000, 7, &mut null), None, "the end of the stack");
        assert_eq!([0, 1 << 32].map(|offset| Rule::new(false, offset, 0)), [None; 2]);
        assert_eq!([8, 1 << 16].map(|saved| Rule::new(false, 16, saved)), [None; 2]);
    }

    #[test]
    fn rules_are_forgotten_with_their_list() {
        let mut rules = Rules::new(Box::leak(Box::new([[0; 2]; 8])));
        let frame = |address| FrameAddress::from_return_address(address).unwrap();
        let leave = |rules: &mut Rules, address| {
            let mut registers = UnwindRegsNative::new(address, 1000, 7);
            rules.leave(frame(address), &mut registers, &mut |at| Ok(at)).is_some()
        };
        rules.begin(1);
        assert!(!leave(&mut rules, 99));
        rules.ways(99).unwrap()[1] = [99, 32];
        assert!(leave(&mut rules, 99) && !leave(&mut rules, 98));
        rules.begin(1);
        assert!(leave(&mut rules, 99));
        rules.begin(2);
        assert!(!leave(&mut rules, 99));
    }
}
