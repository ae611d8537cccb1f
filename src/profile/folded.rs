//! Writes a profile as lines of semicolons.

use super::frames::{shown, stand_in};
use super::sampled::Profile;
use super::symbols::Symbols;

impl Profile {
    /// Returns one line for each stack: its functions from the root to the leaf, separated by semicolons, a space and the value
    /// that is shown first. Tools that draw flame graphs read it. Takes as long as [`to_pprof`](Self::to_pprof).
    pub fn to_folded(&self) -> String {
        encode(self, &Symbols::of_profile(self))
    }
}

pub(super) fn encode(profile: &Profile, symbols: &Symbols) -> String {
    let index = profile.kind.default_value();
    let mut lines = String::new();
    for sample in &profile.samples {
        let mut names: Vec<String> = stand_in(sample).map(str::to_owned).into_iter().collect();
        for place in shown(profile.kind, sample, symbols).iter().rev() {
            if place.frames.is_empty() {
                names.push(format!("{:#x}", place.address));
            }
            names.extend(place.frames.iter().rev().map(|frame| one_word(&frame.name)));
        }
        let value = sample.values.get(index).copied().unwrap_or_default();
        lines.push_str(&names.join(";"));
        lines.push_str(&format!(" {value}\n"));
    }
    lines
}

/// Returns a name without the characters that separate names and lines.
fn one_word(name: &str) -> String {
    let replaced = |char: char| match char {
        ';' => ':',
        char if char.is_control() => ' ',
        char => char,
    };
    name.chars().map(replaced).collect()
}
