//! Finds the largest places of a profile.

use std::collections::HashMap;

use super::frames::{first_of_program, is_plumbing, shown};
use super::sampled::{Profile, Sample};
use super::symbols::{Frame, Symbols};

/// A function that holds or uses much, with what it holds or uses.
#[cfg(feature = "debug")]
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) frame: &'a Frame,
    pub(crate) value: i64,
}

/// Returns the places in the program with the largest values, the largest first: of each stack the first function that
/// belongs neither to the standard library nor to Tokio.
#[cfg(feature = "debug")]
pub(crate) fn places<'a>(profile: &Profile, symbols: &'a Symbols, count: usize) -> Vec<Place<'a>> {
    let index = profile.kind.default_value();
    let mut sums: HashMap<(&str, &str, u32), Place<'a>> = HashMap::new();
    for sample in &profile.samples {
        let Some(frame) = first_of_program(&shown(profile.kind, sample, symbols)) else { continue };
        let value = sample.values.get(index).copied().unwrap_or_default();
        let key = (&*frame.name, &*frame.file, frame.line);
        let place = sums.entry(key).or_insert(Place { frame, value: 0 });
        place.value = place.value.saturating_add(value);
    }
    let mut places: Vec<_> = sums.into_values().filter(|place| place.value > 0).collect();
    let order = |place: &Place<'a>| (std::cmp::Reverse(place.value), &place.frame.name, place.frame.line);
    places.sort_by(|a, b| order(a).cmp(&order(b)));
    places.truncate(count);
    places
}

/// A stack with the bytes that it has allocated and not freed since an earlier moment.
#[derive(Debug)]
pub(crate) struct GrownStack {
    pub(crate) bytes: i64,
    /// The first function of the program.
    pub(crate) frame: Option<Frame>,
    /// The functions, leaf first, without those of the standard library and of Tokio.
    pub(crate) stack: Vec<String>,
}

/// Returns the stacks of a heap profile with the largest values, the largest first. Looks up only their names.
pub(crate) fn grown(profile: &Profile, count: usize) -> Vec<GrownStack> {
    let stacks = stacks(profile, count);
    let addresses = stacks.iter().flat_map(|sample| sample.stack.iter().copied());
    let symbols = Symbols::load(addresses, &profile.objects);
    let grown = |sample: &Sample| {
        let locations = shown(profile.kind, sample, &symbols);
        let frames = locations.iter().flat_map(|location| location.frames);
        GrownStack {
            bytes: sample.values.first().copied().unwrap_or_default(),
            frame: first_of_program(&locations).cloned(),
            stack: frames.filter(|frame| !is_plumbing(frame)).map(|frame| frame.name.to_string()).collect(),
        }
    };
    stacks.iter().map(grown).collect()
}

/// Returns the stacks with the largest values, the largest first, whatever their labels.
fn stacks(profile: &Profile, count: usize) -> Vec<Sample> {
    let index = profile.kind.default_value();
    let value = |sample: &Sample| sample.values.get(index).copied().unwrap_or_default();
    let mut sums: HashMap<&[usize], i64> = HashMap::new();
    for sample in &profile.samples {
        let sum = sums.entry(sample.stack()).or_default();
        *sum = sum.saturating_add(value(sample));
    }
    let mut sums: Vec<_> = sums.into_iter().filter(|(_, value)| *value > 0).collect();
    sums.sort_by(|(a, value_a), (b, value_b)| value_b.cmp(value_a).then_with(|| a.cmp(b)));
    sums.truncate(count);
    let sample = |(stack, value): (&[usize], i64)| Sample {
        stack: stack.into(),
        values: vec![value],
        ..Sample::default()
    };
    sums.into_iter().map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sampled::{Label, ProfileKind, SampleType};
    use super::*;

    #[test]
    fn stacks_with_other_labels_are_one() {
        let sample = |address: usize, thread: &'static str, value| Sample {
            stack: [address].into(),
            values: vec![value],
            labels: vec![("thread", Label::from(thread))],
            ..Sample::default()
        };
        let samples = vec![sample(1, "a", 3), sample(1, "b", 4), sample(2, "a", 6), sample(3, "a", -1)];
        let types = [SampleType::new("threads", "count")];
        let profile = Profile::new(ProfileKind::Threads, &types, samples);
        let of = |count| -> Vec<_> {
            stacks(&profile, count).iter().map(|sample| (sample.stack[0], sample.values[0])).collect()
        };
        assert_eq!(of(5), [(1, 7), (2, 6)]);
        assert_eq!(of(1), [(1, 7)]);
    }
}
