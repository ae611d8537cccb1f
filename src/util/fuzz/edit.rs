//! Edits true inputs at random.

use arbitrary::Unstructured;

use super::memory;

/// The longest result, in bytes.
const MAX_LENGTH: usize = 1 << 16;

/// Numbers that are at or beyond a limit, and words in their place.
const NUMBERS: [&str; 14] = [
    "0",
    "-1",
    "+1",
    "1.5",
    "1e400",
    "NaN",
    "0x10",
    "",
    "max",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999999999999999999999999",
];

/// Texts that parsers trip over.
const ODD: [&[u8]; 20] = [
    b"\0",
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b"(",
    b")",
    b"{",
    b"[",
    b"\"",
    b"'",
    b"\\",
    b"%",
    b",",
    b"=",
    b":",
    b"/..",
    b"\xff\xfe",
    "\u{feff}".as_bytes(),
    "\u{1f980}".as_bytes(),
];

/// Returns one of the true inputs with up to four edits, or with none.
pub(crate) fn edited(u: &mut Unstructured<'_>, inputs: &[&[u8]]) -> arbitrary::Result<Vec<u8>> {
    let mut bytes = u.choose(inputs)?.to_vec();
    for _ in 0..u.int_in_range(0..=4)? {
        let at = u.int_in_range(0..=bytes.len())?;
        let length = u.int_in_range(0..=64)?.min(bytes.len() - at);
        let part = at..at + length;
        match u.int_in_range(0..=19)? {
            0 | 10 => bytes.truncate(at),
            1 | 11 => drop(bytes.drain(part)),
            2 | 12 => bytes[part].iter_mut().try_for_each(|byte| u.arbitrary().map(|new| *byte = new))?,
            3 => drop(bytes.splice(part, u.arbitrary::<[u8; 6]>()?)),
            4 => {
                // A part of another one.
                let other = *u.choose(inputs)?;
                let from = u.int_in_range(0..=other.len())?;
                let to = u.int_in_range(from..=other.len())?;
                drop(bytes.splice(part, other[from..to].iter().copied()));
            }
            5 | 6 | 13..=15 => {
                let number = numbers_from(&bytes, at);
                drop(bytes.splice(number, u.choose(&NUMBERS)?.bytes()));
            }
            7 => {
                // Deep nesting and long lists. Seldom, since it takes long.
                let repeated = bytes[part].repeat(1 << u.int_in_range(0..=12)?);
                drop(bytes.splice(at..at, repeated));
            }
            8 | 16 => drop(bytes.splice(at..at, u.choose(&ODD)?.iter().copied())),
            _ => overwrite(u, &mut bytes)?,
        }
        bytes.truncate(MAX_LENGTH);
    }
    bytes.shrink_to_fit();
    memory::forget_peak();
    Ok(bytes)
}

/// Writes a random or an extreme number over some bytes.
#[allow(dead_code, reason = "where stacks cannot be walked, no parser needs it")]
pub(crate) fn overwrite(u: &mut Unstructured<'_>, bytes: &mut [u8]) -> arbitrary::Result<()> {
    const EXTREME: [u64; 9] = [0, 1, 0x7f, 0x80, 0xff, 0x7fff_ffff, 0x8000_0000, u32::MAX as u64, u64::MAX];
    let at = u.int_in_range(0..=bytes.len())?;
    let number = if u.arbitrary()? { u.arbitrary()? } else { *u.choose(&EXTREME)? };
    let width = (*u.choose(&[1, 2, 4, 8])?).min(bytes.len() - at);
    bytes[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
    Ok(())
}

/// As [`edited`], for code that takes texts.
#[allow(
    dead_code,
    reason = "without the features `otlp` and `debug`, no parser takes a text on some systems"
)]
pub(crate) fn edited_text(u: &mut Unstructured<'_>, inputs: &[&str]) -> arbitrary::Result<String> {
    let inputs: Vec<_> = inputs.iter().map(|input| input.as_bytes()).collect();
    let text = String::from_utf8_lossy(&edited(u, &inputs)?).into_owned();
    memory::forget_peak();
    Ok(text)
}

/// Returns the place of the first number at `at` or behind it.
fn numbers_from(bytes: &[u8], at: usize) -> std::ops::Range<usize> {
    let start = at + bytes[at..].iter().take_while(|byte| !byte.is_ascii_digit()).count();
    let end = start + bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    start..end
}
