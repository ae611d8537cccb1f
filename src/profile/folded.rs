//! Writes a profile as lines of semicolons.

use super::frames::shown;
use super::sampled::Profile;
use super::symbols::Symbols;

/// Takes the place of what is missing at the root end of a stack.
pub(crate) const CUT: &str = "[frames cut off]";
/// Takes the place of a stack that is not known.
pub(crate) const UNKNOWN: &str = "[no stack]";

pub(super) fn encode(profile: &Profile, symbols: &Symbols) -> String {
    let index = profile.kind.default_value();
    let mut lines = String::new();
    for sample in &profile.samples {
        let mut names = Vec::new();
        if sample.stack.is_empty() {
            names.push(sample.stand_in.unwrap_or(UNKNOWN).to_owned());
        } else if sample.is_cut {
            names.push(CUT.to_owned());
        }
        for place in shown(profile.kind, sample, symbols).iter().rev() {
            if place.frames.is_empty() {
                names.push(format!("{:#x}", place.address));
            }
            names.extend(place.frames.iter().rev().map(|frame| frame.name.replace(';', ":")));
        }
        let value = sample.values.get(index).copied().unwrap_or_default();
        lines.push_str(&names.join(";"));
        lines.push_str(&format!(" {value}\n"));
    }
    lines
}
