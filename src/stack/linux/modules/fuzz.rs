//! Walks through objects whose headers and tables are random.

use arbitrary::{Result, Unstructured};

use super::*;
use crate::stack::linux::pool::Cache;
use crate::stack::linux::registers::Registers;
use crate::stack::linux::rules::Rules;
use crate::stack::linux::walk::walk;
use crate::stack::types::MAX_FRAMES;
use crate::util::fuzz::{edited, overwrite, peak, run};

/// Where the parts of the object begin. The code comes first.
const NOTES: usize = 0x400;
const INDEX: usize = 0x480;
const FRAMES: usize = 0x600;
/// The length of each function, and the number of functions.
const FUNCTION: usize = 0x80;
const FUNCTIONS: usize = NOTES / FUNCTION;

/// The registers by their numbers in the tables: the stack pointer, the frame pointer, the return address.
#[cfg(target_arch = "x86_64")]
const REGISTERS: [u8; 3] = [7, 6, 16];
#[cfg(target_arch = "aarch64")]
const REGISTERS: [u8; 3] = [31, 29, 30];

/// An object in a buffer, whose addresses are offsets.
fn object(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut bytes = vec![0x90; NOTES];
    bytes.extend([4_u32, 20, 3].map(u32::to_le_bytes).concat());
    bytes.extend(b"GNU\0");
    bytes.resize(INDEX, 7);
    bytes.resize(FRAMES, 0);
    let [sp, fp, ra] = REGISTERS;
    // Version 1, the augmentation "zR", factors 1 and -8, pointers relative to their place in four bytes. The caller's
    // stack pointer is this one plus 8, and the return address lies below it.
    let common = [1, b'z', b'R', 0, 1, 0x78, ra, 1, 0x1b, 0x0c, sp, 8, 0x80 | ra, 1];
    entry(&mut bytes, 0, &common);
    let mut rows = Vec::new();
    for function in 0..FUNCTIONS {
        let at = bytes.len();
        let start = function * FUNCTION;
        rows.extend([start, at].map(|place| (place as i32 - INDEX as i32).to_le_bytes()).concat());
        let relative = (start as i32 - (at as i32 + 8)).to_le_bytes();
        let mut content = [&relative[..], &(FUNCTION as u32).to_le_bytes(), &[0]].concat();
        for _ in 0..u.int_in_range(0..=5)? {
            instruction(u, &mut content, [sp, fp, ra])?;
        }
        entry(&mut bytes, at - FRAMES + 4, &content);
    }
    bytes.extend([0; 4]);
    let frames = (FRAMES as i32 - (INDEX as i32 + 4)).to_le_bytes();
    let index = [&[1, 0x1b, 3, 0x3b][..], &frames, &(FUNCTIONS as u32).to_le_bytes(), &rows].concat();
    bytes[INDEX..INDEX + index.len()].copy_from_slice(&index);
    Ok(bytes)
}

/// Adds an entry of `.eh_frame` with its length and its kind.
fn entry(bytes: &mut Vec<u8>, kind: usize, content: &[u8]) {
    let length = (content.len() + 4).next_multiple_of(4);
    bytes.extend((length as u32).to_le_bytes());
    bytes.extend((kind as u32).to_le_bytes());
    bytes.extend(content);
    bytes.resize(bytes.len() + length - 4 - content.len(), 0);
}

/// Adds an instruction of the table, of those that compilers write, or with an expression.
fn instruction(u: &mut Unstructured<'_>, to: &mut Vec<u8>, [sp, fp, ra]: [u8; 3]) -> Result<()> {
    let register = *u.choose(&[sp, fp, ra, 0, 3])?;
    match u.int_in_range(0..=9)? {
        0 => to.push(0x40 | u.int_in_range(0..=0x3f)?),
        1 => to.extend([0x0e, u.int_in_range(0..=0x7f)?]),
        2 => to.extend([0x0c, register, u.int_in_range(0..=0x7f)?]),
        3 => to.extend([0x0d, register]),
        4 => to.extend([0x80 | register & 0x3f, u.int_in_range(0..=0x7f)?]),
        5 => to.extend([[0x0a], [0x0b]][usize::from(u.arbitrary::<bool>()?)]),
        6 => to.extend([0x05, register, u.arbitrary()?, u.int_in_range(0..=0x7f)?]),
        7 => to.extend(u.arbitrary::<[u8; 5]>()?),
        kind => {
            let expression = expression(u, sp)?;
            to.extend(if kind == 8 { vec![0x0f] } else { vec![*u.choose(&[0x10, 0x16])?, register] });
            to.push(expression.len() as u8);
            to.extend(expression);
        }
    }
    Ok(())
}

/// Returns an expression: that of a table of imported functions, one with a jump, or any.
fn expression(u: &mut Unstructured<'_>, sp: u8) -> Result<Vec<u8>> {
    let of_sp = [0x70 + sp, 8];
    let rest = match u.int_in_range(0..=4)? {
        0 => vec![0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22],
        1 => vec![0x2f, u.int_in_range(0xf0..=0xff)?, 0xff],
        2 => vec![0x31, 0x28, u.int_in_range(0xf0..=0xff)?, 0xff],
        3 => vec![0x06],
        _ => u.arbitrary::<[u8; 7]>()?.to_vec(),
    };
    Ok([&of_sp[usize::from(u.ratio(1, 8)?) * 2..], &rest].concat())
}

fn header(kind: u32, flags: u32, [start, length]: [u64; 2]) -> libc::Elf64_Phdr {
    libc::Elf64_Phdr {
        p_type: kind,
        p_flags: flags,
        p_offset: start,
        p_vaddr: start,
        p_paddr: start,
        p_filesz: length,
        p_memsz: length,
        p_align: 1,
    }
}

/// Returns headers of an object. What the loader has mapped is right, and the rest may be wrong.
fn headers(u: &mut Unstructured<'_>, length: u64) -> Result<Vec<libc::Elf64_Phdr>> {
    let (index, notes) = ((FRAMES - INDEX) as u64, (INDEX - NOTES) as u64);
    let mut headers = vec![
        header(libc::PT_LOAD, libc::PF_R | libc::PF_X, [0, length]),
        header(libc::PT_GNU_EH_FRAME, libc::PF_R, [INDEX as u64, index]),
        header(libc::PT_NOTE, libc::PF_R, [NOTES as u64, notes]),
    ];
    if u.ratio(1, 4)? {
        let field = |u: &mut Unstructured<'_>| match u.int_in_range(0..=2)? {
            0 => u.arbitrary(),
            1 => u.int_in_range(0..=2 * length),
            _ => Ok(*u.choose(&[0, 1, u64::MAX, u64::MAX - 7, 1 << 63])?),
        };
        let kind = *u.choose(&[libc::PT_GNU_EH_FRAME, libc::PT_NOTE])?;
        headers.insert(1, header(kind, u.arbitrary()?, [field(u)?, field(u)?]));
    }
    Ok(headers)
}

/// Walks from each function of the object. Returns the number of return addresses.
fn walk_all(u: &mut Unstructured<'_>, modules: &Modules, cache: &mut Cache, bias: usize) -> Result<usize> {
    const STACK: usize = 0x7000_0000_0000;
    let mut count = 0;
    let seed: usize = u.arbitrary()?;
    for function in 0..FUNCTIONS {
        let within = u.int_in_range(0..=FUNCTION - 1)?;
        let fp = *u.choose(&[0, 1, STACK + 64, STACK + 4096, usize::MAX])?;
        let pc = bias + function * FUNCTION + within;
        let registers = Registers { pc, sp: STACK, fp, lr: bias + within };
        let mut read = |address: u64| {
            let offset = (address as usize).wrapping_sub(STACK);
            let is_there = offset < 1 << 16 && offset.is_multiple_of(8);
            let word = offset.wrapping_mul(0x9E37_79B9).wrapping_add(seed) >> 8;
            // Most are return addresses, others lead along the stack or nowhere.
            let word =
                if word.is_multiple_of(5) { STACK + word % (1 << 16) / 8 * 8 } else { bias + word % NOTES };
            if is_there { Ok(word as u64) } else { Err(()) }
        };
        let mut len = 0;
        let mut push = |_| {
            len += 1;
            len < MAX_FRAMES
        };
        let start = FrameAddress::from_instruction_pointer(pc as u64);
        cache.rules.begin(modules.id);
        let (_, held) = peak(|| walk(modules, cache, start, &mut registers.native(), &mut read, &mut push));
        assert_eq!(held, 0, "a walk allocates nothing");
        count += len;
    }
    Ok(count)
}

#[test]
fn any_tables_are_walked_through_or_refused() {
    let mut cache = Cache {
        unwinder: UnwinderCache::new_in(),
        rules: Rules::new(Box::leak(vec![[0; 2]; 64].into_boxed_slice())),
    };
    run(20_000, 1 << 20, |u| {
        let mut bytes = object(u)?;
        for _ in 0..u.int_in_range(0..=3)? {
            overwrite(u, &mut bytes[INDEX..])?;
        }
        let headers = headers(u, bytes.len() as u64)?;
        let image = Image { bias: bytes.as_ptr().expose_provenance(), headers: &headers };
        let mut modules = Modules::new();
        modules.add(&image, false, PathBuf::new());
        for address in [0, image.bias, image.bias + 0x111, image.bias + bytes.len(), usize::MAX] {
            modules.function_start(address);
            modules.is_walkable(address);
        }
        Ok(walk_all(u, &modules, &mut cache, image.bias)? > 0)
    });
}

#[test]
fn any_notes_have_a_build_id_or_none() {
    let mut notes = Vec::new();
    for (kind, content) in [(1_u32, &[1_u8, 2, 3][..]), (3, &[7; 20]), (5, &[0; 16])] {
        notes.extend([4_u32, content.len() as u32, kind].map(u32::to_le_bytes).concat());
        notes.extend_from_slice(b"GNU\0");
        notes.extend_from_slice(content);
        notes.resize(notes.len().next_multiple_of(4), 0);
    }
    run(4_000, 1 << 18, |u| {
        let notes = edited(u, &[&notes])?;
        let id = build_id(&notes);
        if let Some(id) = id {
            assert!(notes.as_ptr_range().contains(&id.as_ptr()) || id.is_empty());
        }
        Ok(id.is_some())
    });
}
