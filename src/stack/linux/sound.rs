//! Refuses unwind tables that the unwinder cannot take.
//!
//! The unwinder computes with what tables say, and follows the jumps of their expressions. In a damaged table a jump may lead
//! back for ever, and a sum may overflow, which is a panic in a program with overflow checks. A walk happens inside an
//! allocator, which can have neither. So the rows of a function are looked at before the unwinder reads them first.

use std::cmp::Ordering;
use std::ops::Range;

use framehop::FrameAddress;
use gimli::{
    BaseAddresses, CallFrameInstruction, EhFrame, EhFrameOffset, Encoding, EndianSlice, LittleEndian,
    Operation, Register, UnwindExpression, UnwindSection,
};

use super::tables::Tables;

/// No frame is larger, and no register is saved farther from its end.
const MAX_OFFSET: i64 = 1 << 31;
/// The frame register, whose value may be anything. The unwinder reads the return address eight bytes below the caller's
/// stack pointer on x86-64, so that this must not be less than eight.
const FRAME_REGISTER: Option<Register> =
    if cfg!(target_arch = "x86_64") { Some(gimli::X86_64::RBP) } else { None };

type Section<'a> = EhFrame<EndianSlice<'a, LittleEndian>>;

/// The unwind tables of an object. Addresses are those of the file.
pub(super) struct UnwindTables {
    /// The addresses of the code in memory.
    pub(super) code: Range<usize>,
    /// The difference of an address in memory and in the file.
    pub(super) bias: usize,
    pub(super) index_address: u64,
    pub(super) index: Tables,
    pub(super) frames_address: u64,
    pub(super) frames: Tables,
}

impl UnwindTables {
    /// Returns where the function begins that an address in memory lies in, if one begins before it.
    pub(super) fn function_start(&self, address: usize) -> Option<usize> {
        let place = self.bias.wrapping_add(self.index_address as usize);
        last_before(place, &self.index, address)
    }

    /// Returns true if the unwinder can leave a frame in this code.
    pub(super) fn is_sound(&self, frame: FrameAddress) -> bool {
        let address = frame.address_for_lookup().wrapping_sub(self.bias as u64);
        self.check(address) == Some(true)
    }

    fn check(&self, address: u64) -> Option<bool> {
        let mut frames = EhFrame::new(&self.frames, LittleEndian);
        frames.set_address_size(8);
        let bases =
            BaseAddresses::default().set_eh_frame(self.frames_address).set_eh_frame_hdr(self.index_address);
        let offset = self.entry(address)?.checked_sub(self.frames_address)?;
        let offset =
            EhFrameOffset(usize::try_from(offset).ok().filter(|offset| *offset < self.frames.len())?);
        let Ok(entry) = frames.fde_from_offset(&bases, offset, EhFrame::cie_from_offset) else {
            // The unwinder tries the frame pointer.
            return Some(true);
        };
        let common = entry.cie();
        let mut rows = Rows {
            frames: &frames,
            encoding: common.encoding(),
            factor: common.data_alignment_factor(),
            caller: Caller::default(),
            remembered: [Caller::default(); 8],
            depth: 0,
        };
        let mut instructions = common.instructions(&frames, &bases);
        let mut own_instructions = entry.instructions(&frames, &bases);
        // A malformed instruction ends the unwinder's reading too.
        let mut all = std::iter::from_fn(|| instructions.next().ok().flatten())
            .chain(std::iter::from_fn(|| own_instructions.next().ok().flatten()));
        Some(all.all(|instruction| rows.is_sound(&instruction) == Some(true)))
    }

    /// Returns the address of the entry of the function that an address lies in, as the unwinder finds it.
    fn entry(&self, address: u64) -> Option<u64> {
        let absolute =
            |offset: [u8; 4]| self.index_address.wrapping_add_signed(i32::from_le_bytes(offset).into());
        let start = |row: &[u8; 8]| absolute(*row.first_chunk().unwrap_or(&[0; 4]));
        let mut rows = rows(&self.index)?;
        while rows.len() > 1 {
            let (before, from) = rows.split_at(rows.len() / 2);
            match start(from.first()?).cmp(&address) {
                Ordering::Equal => {
                    rows = from;
                    break;
                }
                Ordering::Less => rows = from,
                Ordering::Greater => rows = before,
            }
        }
        Some(absolute(*rows.first()?.last_chunk()?))
    }
}

/// Returns the rows of an index: the addresses of functions and of their entries. `None` if the index has another form.
pub(super) fn rows(index: &[u8]) -> Option<&[[u8; 8]]> {
    // Every linker writes the number of functions in four bytes, and a sorted table of their addresses and of the
    // places of their tables, each in four bytes relative to the index.
    const COUNT_32: u8 = 0x03;
    const SORTED_RELATIVE_32: u8 = 0x3b;
    let [_, _, COUNT_32, SORTED_RELATIVE_32] = *index.first_chunk()? else { return None };
    let (rows, _) = index.get(12..)?.as_chunks::<8>();
    let count = u32::from_le_bytes(*index.get(8..)?.first_chunk()?) as usize;
    rows.get(..count)
}

/// Returns the last function in an index that begins at an address or before it.
fn last_before(place: usize, index: &[u8], address: usize) -> Option<usize> {
    let start = |row: &[u8; 8]| {
        let [a, b, c, d, ..] = *row;
        place.wrapping_add_signed(i32::from_le_bytes([a, b, c, d]) as isize)
    };
    let rows = rows(index)?;
    rows.get(rows.partition_point(|row| start(row) <= address).checked_sub(1)?).map(start)
}

/// The caller's stack pointer: a register and a distance from it.
#[derive(Clone, Copy, Default)]
struct Caller {
    register: Option<Register>,
    offset: i64,
}

impl Caller {
    fn is_sound(self) -> bool {
        let is_anything = self.register.is_some() && self.register == FRAME_REGISTER;
        let least = if is_anything { 8 } else { 0 };
        (least..=MAX_OFFSET).contains(&self.offset)
    }
}

/// The instructions of one function, as far as they were read.
struct Rows<'a> {
    frames: &'a Section<'a>,
    encoding: Encoding,
    /// The unit of the offsets of registers.
    factor: i64,
    caller: Caller,
    remembered: [Caller; 8],
    depth: usize,
}

impl Rows<'_> {
    fn is_sound(&mut self, instruction: &CallFrameInstruction<usize>) -> Option<bool> {
        use CallFrameInstruction as Is;

        let factor = self.factor;
        let factored = |offset: i64| offset.checked_mul(factor);
        let is_near = |offset: i64| (-MAX_OFFSET..=MAX_OFFSET).contains(&offset);
        match *instruction {
            Is::DefCfa { register, offset } => {
                self.caller = Caller { register: Some(register), offset: offset.try_into().ok()? };
            }
            Is::DefCfaSf { register, factored_offset } => {
                self.caller = Caller { register: Some(register), offset: factored(factored_offset)? };
            }
            Is::DefCfaRegister { register } => self.caller.register = Some(register),
            Is::DefCfaOffset { offset } => self.caller.offset = offset.try_into().ok()?,
            Is::DefCfaOffsetSf { factored_offset } => self.caller.offset = factored(factored_offset)?,
            Is::RememberState => {
                *self.remembered.get_mut(self.depth)? = self.caller;
                self.depth += 1;
            }
            Is::RestoreState => {
                self.depth = self.depth.checked_sub(1)?;
                self.caller = *self.remembered.get(self.depth)?;
            }
            Is::Offset { factored_offset, .. } | Is::ValOffset { factored_offset, .. } => {
                return Some(is_near(factored(factored_offset.try_into().ok()?)?));
            }
            Is::OffsetExtendedSf { factored_offset, .. } | Is::ValOffsetSf { factored_offset, .. } => {
                return Some(is_near(factored(factored_offset)?));
            }
            Is::DefCfaExpression { expression } => {
                return Some(self.is_straight(expression)? && self.is_caller(expression)?);
            }
            Is::Expression { expression, .. } | Is::ValExpression { expression, .. } => {
                return self.is_straight(expression);
            }
            _ => {}
        }
        Some(self.caller.is_sound())
    }

    /// Returns true if an expression has no jumps.
    fn is_straight(&self, expression: UnwindExpression<usize>) -> Option<bool> {
        let mut operations = expression.get(self.frames).ok()?.operations(self.encoding);
        while let Ok(Some(operation)) = operations.next() {
            if matches!(operation, Operation::Bra { .. } | Operation::Skip { .. }) {
                return Some(false);
            }
        }
        Some(true)
    }

    /// Returns true if an expression for the caller's stack pointer cannot be near zero: it is one of the two that
    /// compilers and linkers write.
    fn is_caller(&self, expression: UnwindExpression<usize>) -> Option<bool> {
        if FRAME_REGISTER.is_none() {
            return Some(true);
        }
        let mut operations = expression.get(self.frames).ok()?.operations(self.encoding);
        let mut next = || operations.next().ok().flatten();
        let Operation::RegisterOffset { register, offset, .. } = next()? else { return Some(false) };
        Some(match next()? {
            // Saved on the stack. The unwinder does not read it.
            Operation::Deref { .. } => true,
            // In a table of imported functions, after whose second instruction it is eight bytes more.
            Operation::RegisterOffset { .. } => {
                register == gimli::X86_64::RSP
                    && (0..=MAX_OFFSET).contains(&offset)
                    && matches!(next()?, Operation::UnsignedConstant { .. })
                    && matches!(next()?, Operation::And)
                    && matches!(next()?, Operation::UnsignedConstant { .. })
                    && matches!(next()?, Operation::Ge)
                    && matches!(next()?, Operation::UnsignedConstant { value: 0..=3 })
                    && matches!(next()?, Operation::Shl)
                    && matches!(next()?, Operation::Plus)
                    && next().is_none()
            }
            _ => false,
        })
    }
}
