//! Shows a stack as a panic's backtrace does.

use std::fmt;

use super::frames::Place;

/// Shows the frames of a stack, each with its number, name, file and line.
pub(crate) struct Backtrace<'a>(pub(crate) &'a [Place<'a>]);

impl fmt::Display for Backtrace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut number = 0;
        for place in self.0 {
            if place.frames.is_empty() {
                writeln!(f, "{number:>4}: {:#x}", place.address)?;
                number += 1;
            }
            for frame in place.frames {
                writeln!(f, "{number:>4}: {}", frame.name)?;
                if !frame.file.is_empty() {
                    writeln!(f, "             at {}:{}", frame.file, frame.line)?;
                }
                number += 1;
            }
        }
        Ok(())
    }
}
