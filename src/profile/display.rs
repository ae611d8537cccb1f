//! Shows stacks as a panic's backtrace does.

use std::fmt;

use super::frames::{Location, shown, stand_in};
use super::sampled::{Label, Profile};
use super::symbols::Symbols;

/// Shows the frames of a stack, each with its number, name, file and line.
pub(crate) struct Backtrace<'a>(pub(crate) &'a [Location<'a>]);

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

/// Shows each stack with its values and labels, for people. Looks up names as [`Profile::to_pprof`] does.
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let symbols = Symbols::of_profile(self);
        for sample in &self.samples {
            for (value, sample_type) in sample.values.iter().zip(&self.types) {
                match sample_type.unit {
                    "count" => write!(f, "{value} {} ", sample_type.name)?,
                    unit => write!(f, "{value} {unit} ({}) ", sample_type.name)?,
                }
            }
            for (key, label) in &sample.labels {
                match label {
                    Label::Text(text) => write!(f, "{key}={text} ")?,
                    Label::Number(number, unit) => write!(f, "{key}={number} {unit} ")?,
                }
            }
            writeln!(f)?;
            write!(f, "{}", Backtrace(&shown(self.kind, sample, &symbols)))?;
            if let Some(name) = stand_in(sample) {
                writeln!(f, "      {name}")?;
            }
            writeln!(f)?;
        }
        self.comments.iter().try_for_each(|comment| writeln!(f, "{comment}"))?;
        self.error.iter().try_for_each(|error| writeln!(f, "{error}"))
    }
}
