//! Writes random profiles in every form, and reads them back.

mod proto;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use arbitrary::{Result, Unstructured};
use flate2::read::GzDecoder;
use prost::Message;

use super::error::Error;
use super::sampled::{Label, Profile, ProfileKind, Sample, SampleType};
use super::symbols::{Frame, Symbols};
#[cfg(feature = "monitor")]
use super::top;
use super::tree::Tree;
use super::{flame, folded, frames, pprof};
use crate::stack::Object;
use crate::util::fuzz::run;

/// The most memory that a profile and one of its forms take.
const MAX_BYTES: usize = 8 << 20;
const KINDS: [ProfileKind; 6] = [
    ProfileKind::Heap,
    ProfileKind::Allocs,
    ProfileKind::Stalls,
    ProfileKind::Cpu,
    ProfileKind::Tasks,
    ProfileKind::Threads,
];
const TYPES: [SampleType; 5] = [
    SampleType::new("alloc_objects", "count"),
    SampleType::new("alloc_space", "bytes"),
    SampleType::new("inuse_objects", "count"),
    SampleType::new("inuse_space", "bytes"),
    SampleType::new("cpu", "nanoseconds"),
];
/// Parts of the names of functions.
const NAMES: [&str; 16] = [
    "main",
    "shop::cart::add",
    "tokio::runtime::scheduler::multi_thread::worker::run",
    "tokio::runtime::task::harness::poll",
    "alloc::vec::Vec<T,A>::push",
    "core::iter::Iterator::collect",
    "<T as shop::Trait>::call",
    "std::thread::sleep",
    "__rust_alloc",
    "<script>alert(1)</script>",
    "a;b c 7",
    "a\nb\r\0",
    "",
    "\u{1f980}::é",
    "<<<<::>>>->::",
    "{{closure}}",
];
const FILES: [&str; 5] = [
    "",
    "/rustc/59807616/library/core/src/iter.rs",
    "/home/me/.cargo/registry/src/index-1/tokio-1.54.1/src/runtime/task/core.rs",
    "src/main.rs",
    "<&\">",
];

fn text(u: &mut Unstructured<'_>) -> Result<String> {
    let parts = u.int_in_range(0..=2)?;
    (0..=parts).map(|_| u.choose(&NAMES).copied()).collect()
}

/// Mostly an ordinary value.
fn value(u: &mut Unstructured<'_>) -> Result<i64> {
    match u.int_in_range(0..=15)? {
        0 => Ok(*u.choose(&[i64::MIN, i64::MAX, i64::MIN + 1])?),
        1..=4 => Ok(0),
        _ => u.int_in_range(-1000..=1 << 40),
    }
}

fn frame(u: &mut Unstructured<'_>) -> Result<Frame> {
    let (name, mangled, file) = (text(u)?, text(u)?, *u.choose(&FILES)?);
    Ok(Frame { mangled: mangled.into(), name: name.into(), file: file.into(), line: u.arbitrary()? })
}

fn sample(u: &mut Unstructured<'_>, types: usize) -> Result<Sample> {
    const ADDRESSES: [usize; 10] =
        [0, 1, 0x1000, 0x1001, 0x1800, 0x2000, 0x2001, 0x5000, 0x7fff_0000, usize::MAX];
    let stack = (0..u.int_in_range(0..=12)?).map(|_| u.choose(&ADDRESSES).copied()).collect::<Result<_>>()?;
    let label = |u: &mut Unstructured<'_>| {
        let key = *u.choose(&["task", "thread", "cause", "bytes", "runtime"])?;
        let number = Label::Number(u.arbitrary()?, u.choose(&["bytes", ""])?);
        Ok((key, if u.arbitrary()? { Label::from(text(u)?) } else { number }))
    };
    Ok(Sample {
        stack,
        is_cut: u.arbitrary()?,
        stand_in: u.arbitrary::<bool>()?.then_some("[threads that ended unseen]"),
        values: (0..types).map(|_| value(u)).collect::<Result<_>>()?,
        labels: (0..u.int_in_range(0..=3)?).map(|_| label(u)).collect::<Result<_>>()?,
    })
}

fn profile(u: &mut Unstructured<'_>) -> Result<Profile> {
    let types = u.int_in_range(0..=TYPES.len())?;
    let samples = (0..u.int_in_range(0..=8)?).map(|_| sample(u, types)).collect::<Result<_>>()?;
    let object = |start: usize| Object {
        code: start..start + 0x1000,
        bias: start / 2,
        file_offset: 0x400,
        path: Some(PathBuf::from("/nowhere/lib.so")),
        build_id: [0xab, start as u8].into(),
        is_walkable: true,
    };
    let times = [Duration::ZERO, Duration::from_secs(1 << 31), Duration::from_nanos(u64::MAX), Duration::MAX];
    let mut profile = Profile {
        types: TYPES[..types].to_vec(),
        objects: [object(0x1000), object(0x4800)].into(),
        time: UNIX_EPOCH.checked_add(*u.choose(&times)?).unwrap_or(UNIX_EPOCH),
        duration: *u.choose(&times)?,
        period: if u.arbitrary()? { Some((TYPES[1], u.arbitrary()?)) } else { None },
        exact_total: u.arbitrary()?,
        standard_error: u.arbitrary()?,
        error: u.arbitrary::<bool>()?.then_some(Error::NotRunning),
        comments: if u.arbitrary()? { vec![text(u)?] } else { Vec::new() },
        ..Profile::new(*u.choose(&KINDS)?, &[], samples)
    };
    profile.sort();
    Ok(profile)
}

/// The names of some of the addresses.
fn symbols(u: &mut Unstructured<'_>, profile: &Profile) -> Result<Symbols> {
    let mut named = HashMap::new();
    for address in profile.samples.iter().flat_map(|sample| sample.stack.iter()) {
        let frames = (0..u.int_in_range(0..=3)?).map(|_| frame(u)).collect::<Result<_>>()?;
        named.entry(*address).or_insert(frames);
    }
    Ok(Symbols::of_frames(named))
}

/// True if sums do not reach a limit of the type.
fn is_small(profile: &Profile) -> bool {
    profile.samples.iter().flat_map(|sample| &sample.values).all(|value| value.unsigned_abs() < 1 << 50)
}

impl proto::Profile {
    fn text(&self, index: i64) -> &str {
        &self.string_table[usize::try_from(index).unwrap()]
    }

    fn type_of(&self, value_type: &proto::ValueType) -> (&str, &str) {
        (self.text(value_type.name), self.text(value_type.unit))
    }

    /// The address, and the functions with their files and lines.
    fn place(&self, location: u64) -> (u64, Vec<[String; 4]>) {
        // Numbers begin with 1 and have no gaps.
        let location = &self.location[location as usize - 1];
        let lines = location.line.iter().map(|line| {
            let function = &self.function[line.function_id as usize - 1];
            let texts = [function.name, function.system_name, function.filename]
                .map(|text| self.text(text).to_owned());
            let [name, mangled, file] = texts;
            [name, mangled, file, line.line.to_string()]
        });
        (location.address, lines.collect())
    }
}

fn assert_equal(decoded: &proto::Profile, profile: &Profile, symbols: &Symbols) {
    assert_eq!(decoded.string_table.first().map(String::as_str), Some(""));
    for (index, location) in decoded.location.iter().enumerate() {
        assert_eq!(location.id as usize, index + 1);
        let mapping = (location.mapping_id as usize).checked_sub(1).map(|index| &decoded.mapping[index]);
        let is_in = |mapping: &proto::Mapping| {
            (mapping.memory_start..mapping.memory_limit).contains(&location.address)
        };
        assert!(mapping.is_none_or(is_in));
    }
    let ids = decoded.function.iter().map(|function| function.id as usize);
    assert!(ids.eq(1..=decoded.function.len()));
    assert_eq!(decoded.mapping.len(), profile.objects.len());
    for (mapping, object) in decoded.mapping.iter().zip(&*profile.objects) {
        let build_id = format!("{:02x}{:02x}", object.build_id[0], object.build_id[1]);
        assert_eq!(
            (mapping.memory_start as usize, decoded.text(mapping.build_id)),
            (object.code.start, &*build_id)
        );
    }
    let types = |of: &SampleType| (of.name, of.unit);
    assert!(decoded.sample_type.iter().map(|of| decoded.type_of(of)).eq(profile.types.iter().map(types)));
    assert_eq!(
        decoded.period_type.as_ref().map(|of| decoded.type_of(of)),
        profile.period.map(|(of, _)| types(&of))
    );
    assert_eq!(decoded.period, profile.period.map_or(0, |(_, period)| period));
    assert_eq!(decoded.comment.len(), profile.comments.len() + usize::from(profile.error.is_some()));
    let default = profile.types.get(profile.kind.default_value()).map_or("", |of| of.name);
    assert_eq!(decoded.text(decoded.default_sample_type), default);
    assert_eq!(decoded.duration_nanos as u128, profile.duration.as_nanos().min(i64::MAX as u128));
    assert!(decoded.time_nanos >= 0);
    assert_eq!(decoded.sample.len(), profile.samples.len());
    for (written, sample) in decoded.sample.iter().zip(&profile.samples) {
        assert_eq!(written.value, sample.values);
        let mut places: Vec<_> =
            written.location_id.iter().map(|location| decoded.place(*location)).collect();
        if let Some(name) = frames::stand_in(sample) {
            let [of, mangled, ..] = places.pop().unwrap().1.remove(0);
            assert_eq!((&*of, &*mangled), (name, name));
        }
        let line = |frame: &Frame| {
            let texts = [&frame.name, &frame.mangled, &frame.file].map(|text| text.to_string());
            let [name, mangled, file] = texts;
            [name, mangled, file, frame.line.to_string()]
        };
        let expected = frames::shown(profile.kind, sample, symbols);
        let expected = expected.iter().map(|place| {
            ((place.address as u64).saturating_sub(1), place.frames.iter().map(line).collect::<Vec<_>>())
        });
        assert_eq!(places, expected.collect::<Vec<_>>());
        let labels = written.label.iter().map(|label| {
            let (text, unit) = (decoded.text(label.str), decoded.text(label.num_unit));
            (decoded.text(label.key), text, label.num, unit)
        });
        let expected = sample.labels.iter().map(|(key, label)| match label {
            Label::Text(text) => (*key, &**text, 0, ""),
            Label::Number(number, unit) => (*key, "", *number, *unit),
        });
        assert!(labels.eq(expected));
    }
}

#[test]
fn any_profile_is_read_back_from_pprof_as_it_was() {
    run(1_000, MAX_BYTES, |u| {
        let profile = profile(u)?;
        let symbols = symbols(u, &profile)?;
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(
            &mut GzDecoder::new(&*pprof::encode(&profile, &symbols, None)),
            &mut bytes,
        )
        .unwrap();
        assert_equal(&proto::Profile::decode(&*bytes).unwrap(), &profile, &symbols);
        Ok(!profile.samples.is_empty())
    });
}

#[test]
fn any_profile_has_a_tree_whose_sums_hold_and_a_picture() {
    run(1_000, MAX_BYTES, |u| {
        let profile = profile(u)?;
        let symbols = symbols(u, &profile)?;
        let tree = Tree::new(&profile, &symbols);
        assert_eq!(tree.nodes[0].value, tree.total());
        for (index, node) in tree.nodes.iter().enumerate() {
            assert!(node.value >= 0 && (index == 0 || node.parent < index));
            assert!(index == 0 || tree.nodes[node.parent].children.contains(&index));
            let children = || node.children.iter().map(|child| tree.nodes[*child].value);
            let sum: i128 = children().map(i128::from).sum();
            assert!(sum <= node.value.into() || node.value == i64::MAX, "{sum} in {}", node.value);
            assert!(children().is_sorted_by(|a, b| a >= b));
        }
        if is_small(&profile) {
            let index = profile.kind.default_value();
            let values = || profile.samples.iter().filter_map(|sample| sample.values.get(index));
            let positive: i64 = values().filter(|value| **value > 0).sum();
            assert!(tree.total() <= positive && tree.total() >= values().sum());
        }
        let svg = flame::draw(&profile, &symbols);
        assert_eq!(svg.matches("<svg").count(), svg.matches("</svg>").count());
        assert!(!svg.contains("<script") && svg.len() < 4000 * 2000);
        assert!(svg.chars().all(|char| char == '\n' || !char.is_control()), "{svg:?}");
        Ok(tree.total() > 0)
    });
}

#[test]
fn any_profile_has_a_line_of_text_for_each_stack() {
    run(1_000, MAX_BYTES, |u| {
        let profile = profile(u)?;
        let symbols = symbols(u, &profile)?;
        let index = profile.kind.default_value();
        let value = |sample: &Sample| sample.values.get(index).copied().unwrap_or_default();
        let folded = folded::encode(&profile, &symbols);
        let values: Vec<i64> =
            folded.lines().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
        assert_eq!(values, profile.samples.iter().map(value).collect::<Vec<_>>());
        #[cfg(feature = "debug")]
        for place in top::places(&profile, &symbols, 5) {
            assert!(place.value > 0);
        }
        #[cfg(feature = "monitor")]
        assert!(top::grown(&profile, 5).len() <= 5);
        assert!(profile.to_string().lines().count() >= 2 * profile.samples.len());
        let total = profile.total();
        let delta = profile.delta(&profile.clone());
        // The smallest number has no opposite.
        assert!(delta.samples.is_empty() || !is_small(&profile));
        Ok(total > 0)
    });
}

#[test]
#[cfg(feature = "otlp-profiles")]
fn any_profiles_keep_their_sums_in_otlp() {
    run(1_000, MAX_BYTES, |u| {
        let profiles = [profile(u)?, profile(u)?];
        let (written, dictionary) = super::otlp::Encoder::default().encode(&profiles);
        let text = |index: i32| &*dictionary.string_table[usize::try_from(index).unwrap()];
        for stack in &dictionary.stack_table {
            for location in &stack.location_indices {
                let location = &dictionary.location_table[usize::try_from(*location).unwrap()];
                let mapping = &dictionary.mapping_table[usize::try_from(location.mapping_index).unwrap()];
                text(mapping.filename_strindex);
                for line in &location.lines {
                    let function = &dictionary.function_table[usize::try_from(line.function_index).unwrap()];
                    text(function.name_strindex);
                }
            }
        }
        for profile in &written {
            for sample in &profile.samples {
                assert!(dictionary.stack_table.get(sample.stack_index as usize).is_some());
                for attribute in &sample.attribute_indices {
                    text(dictionary.attribute_table[usize::try_from(*attribute).unwrap()].key_strindex);
                }
            }
        }
        if profiles.iter().all(is_small) {
            let sum = |name: &str| -> i64 {
                let of_type = |profile: &&_| {
                    let profile: &opentelemetry_proto::tonic::profiles::v1development::Profile = profile;
                    text(profile.sample_type.as_ref().unwrap().type_strindex) == name
                };
                written
                    .iter()
                    .filter(of_type)
                    .flat_map(|profile| &profile.samples)
                    .flat_map(|sample| &sample.values)
                    .sum()
            };
            for (index, of) in TYPES.iter().enumerate() {
                let samples = profiles.iter().flat_map(|profile| &profile.samples);
                let expected: i64 = samples.filter_map(|sample| sample.values.get(index)).sum();
                assert_eq!(sum(of.name), expected, "{}", of.name);
            }
        }
        Ok(!written.is_empty())
    });
}
