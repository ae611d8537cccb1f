//! Writes profiles as OTLP does: with one dictionary for all, and a profile for each type of value.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Range;
use std::path::Path;
use std::time::UNIX_EPOCH;

use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use opentelemetry_proto::tonic::profiles::v1development as proto;
use proto::ProfilesDictionary;
use uuid::Uuid;

use super::frames::{Location, shown, stand_in};
use super::sampled::{Label, Profile, Sample, SampleType, add_up};
use super::symbols::{Frame, Symbols, object_at};
use crate::stack::Object;

/// The attribute of a mapping with the build id of its file.
const BUILD_ID: &str = "process.executable.build_id.gnu";

/// Encodes profiles, and keeps the names of the addresses that it has seen, since most occur in each profile.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    symbols: Symbols,
    /// Where the code is that the names belong to.
    code: Vec<Range<usize>>,
}

impl Encoder {
    /// The most addresses whose names are kept. They take some hundred bytes each.
    const MAX_ADDRESSES: usize = 50_000;

    /// Returns the profiles that have samples, and their dictionary. Looks up the names of new addresses, as
    /// [`Profile::to_pprof`] does.
    ///
    /// Samples keep the labels that have a bounded number of values, under the names of the metrics' attributes: a backend
    /// may keep a series for each.
    pub(crate) fn encode(&mut self, profiles: &[Profile]) -> (Vec<proto::Profile>, ProfilesDictionary) {
        let Some(last) = profiles.last() else { return (Vec::new(), ProfilesDictionary::default()) };
        let code: Vec<_> = last.objects.iter().map(|object| object.code.clone()).collect();
        if code != self.code || self.symbols.len() > Self::MAX_ADDRESSES {
            *self = Encoder { symbols: Symbols::default(), code };
        }
        let stacks = profiles.iter().flat_map(|profile| &profile.samples).map(|sample| &sample.stack);
        self.symbols.extend(stacks.flat_map(|stack| stack.iter().copied()), &last.objects);
        let mut tables = Tables::new(&last.objects);
        let profiles = profiles.iter().flat_map(|profile| tables.profiles(profile, &self.symbols)).collect();
        (profiles, tables.dictionary)
    }
}

/// The dictionary under construction. The first element of each table stands for nothing.
struct Tables<'a> {
    dictionary: ProfilesDictionary,
    objects: &'a [Object],
    texts: HashMap<String, i32>,
    mappings: HashMap<usize, i32>,
    functions: HashMap<[i32; 2], i32>,
    locations: HashMap<LocationKey, i32>,
    stacks: HashMap<Vec<i32>, i32>,
    attributes: HashMap<(i32, String), i32>,
}

#[derive(PartialEq, Eq, Hash)]
enum LocationKey {
    Address { address: usize, skipped: usize },
    StandIn(&'static str),
}

/// A sample with the numbers of its stack and its attributes.
struct Numbered {
    values: Vec<i64>,
    stack: i32,
    attributes: Vec<i32>,
}

impl<'a> Tables<'a> {
    fn new(objects: &'a [Object]) -> Self {
        Tables {
            dictionary: ProfilesDictionary {
                mapping_table: vec![proto::Mapping::default()],
                location_table: vec![proto::Location::default()],
                function_table: vec![proto::Function::default()],
                link_table: vec![proto::Link::default()],
                string_table: vec![String::new()],
                attribute_table: vec![proto::KeyValueAndUnit::default()],
                stack_table: vec![proto::Stack::default()],
            },
            objects,
            texts: HashMap::from([(String::new(), 0)]),
            mappings: HashMap::new(),
            functions: HashMap::new(),
            locations: HashMap::new(),
            stacks: HashMap::from([(Vec::new(), 0)]),
            attributes: HashMap::new(),
        }
    }

    fn profiles(&mut self, profile: &Profile, symbols: &Symbols) -> Vec<proto::Profile> {
        let samples = add_up(profile.samples.iter().map(with_bounded_labels).collect());
        let samples: Vec<_> = samples.iter().map(|sample| self.numbered(profile, sample, symbols)).collect();
        let start =
            profile.time.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(profile.duration);
        let with_values = |tables: &mut Self, (index, sample_type): (usize, &SampleType)| {
            let samples: Vec<_> = samples.iter().filter_map(|sample| sample.of_type(index)).collect();
            if samples.is_empty() {
                return None;
            }
            // A backend may name the profile by the type of its period.
            let (period_type, period) = profile.period.or(profile.types.first().map(|first| (*first, 1)))?;
            Some(proto::Profile {
                sample_type: Some(tables.value_type(*sample_type)),
                samples,
                time_unix_nano: u64::try_from(start.as_nanos()).unwrap_or(u64::MAX),
                duration_nano: u64::try_from(profile.duration.as_nanos()).unwrap_or(u64::MAX),
                period_type: Some(tables.value_type(period_type)),
                period,
                profile_id: Uuid::new_v4().into_bytes().into(),
                ..proto::Profile::default()
            })
        };
        profile.types.iter().enumerate().filter_map(|typed| with_values(self, typed)).collect()
    }

    fn numbered(&mut self, profile: &Profile, sample: &Sample, symbols: &Symbols) -> Numbered {
        let mut locations: Vec<_> =
            shown(profile.kind, sample, symbols).iter().map(|place| self.location(place)).collect();
        locations.extend(stand_in(sample).map(|name| self.stand_in(name)));
        let stacks = &mut self.dictionary.stack_table;
        let stack = number_of(&mut self.stacks, locations.clone(), || {
            let stack = proto::Stack { location_indices: locations };
            add(stacks, stack)
        });
        let attributes = sample.labels.iter().filter_map(|(key, label)| match label {
            Label::Text(text) => Some(self.attribute(key, text)),
            Label::Number(..) => None,
        });
        Numbered { values: sample.values.clone(), stack, attributes: attributes.collect() }
    }

    fn location(&mut self, place: &Location<'_>) -> i32 {
        let key = LocationKey::Address { address: place.address, skipped: place.skipped };
        if let Some(known) = self.locations.get(&key) {
            return *known;
        }
        let mapping_index = self.mapping(place.address);
        let line = |frame: &Frame| proto::Line {
            function_index: self.function(&frame.name, &frame.file),
            line: frame.line.into(),
            column: 0,
        };
        let location = proto::Location {
            mapping_index,
            // Within the call rather than after it.
            address: (place.address as u64).saturating_sub(1),
            lines: place.frames.iter().map(line).collect(),
            attribute_indices: Vec::new(),
        };
        let locations = &mut self.dictionary.location_table;
        number_of(&mut self.locations, key, || add(locations, location))
    }

    /// A location that is no place in the code.
    fn stand_in(&mut self, name: &'static str) -> i32 {
        let line = proto::Line { function_index: self.function(name, ""), ..proto::Line::default() };
        let location = proto::Location { lines: vec![line], ..proto::Location::default() };
        let locations = &mut self.dictionary.location_table;
        number_of(&mut self.locations, LocationKey::StandIn(name), || add(locations, location))
    }

    /// Names are whole, so that those of the linker would add to the size alone.
    fn function(&mut self, name: &str, file: &str) -> i32 {
        let (name, file) = (self.text(name), self.text(file));
        let function =
            proto::Function { name_strindex: name, filename_strindex: file, ..proto::Function::default() };
        let functions = &mut self.dictionary.function_table;
        number_of(&mut self.functions, [name, file], || add(functions, function))
    }

    fn mapping(&mut self, address: usize) -> i32 {
        let Some(object) = object_at(self.objects, address) else { return 0 };
        let start = object.code.start;
        if let Some(known) = self.mappings.get(&start) {
            return *known;
        }
        let executable = std::fs::read_link("/proc/self/exe").unwrap_or_default();
        let path: &Path = object.path.as_deref().unwrap_or(&executable);
        let build_id: String = object.build_id.iter().map(|byte| format!("{byte:02x}")).collect();
        let mapping = proto::Mapping {
            memory_start: start as u64,
            memory_limit: object.code.end as u64,
            file_offset: object.file_offset as u64,
            filename_strindex: self.text(&path.to_string_lossy()),
            attribute_indices: match build_id.as_str() {
                "" => Vec::new(),
                build_id => vec![self.attribute(BUILD_ID, build_id)],
            },
        };
        let mappings = &mut self.dictionary.mapping_table;
        number_of(&mut self.mappings, start, || add(mappings, mapping))
    }

    fn attribute(&mut self, key: &str, value: &str) -> i32 {
        let key_strindex = self.text(key);
        let attributes = &mut self.dictionary.attribute_table;
        number_of(&mut self.attributes, (key_strindex, value.to_owned()), || {
            let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
            add(attributes, proto::KeyValueAndUnit { key_strindex, value: Some(value), unit_strindex: 0 })
        })
    }

    fn value_type(&mut self, sample_type: SampleType) -> proto::ValueType {
        proto::ValueType {
            type_strindex: self.text(sample_type.name),
            unit_strindex: self.text(sample_type.unit),
        }
    }

    fn text(&mut self, text: &str) -> i32 {
        if let Some(known) = self.texts.get(text) {
            return *known;
        }
        let texts = &mut self.dictionary.string_table;
        number_of(&mut self.texts, text.to_owned(), || add(texts, text.to_owned()))
    }
}

impl Numbered {
    /// Returns the sample with one of its values. `None` if that is zero.
    fn of_type(&self, index: usize) -> Option<proto::Sample> {
        let value = *self.values.get(index).filter(|value| **value != 0)?;
        Some(proto::Sample {
            stack_index: self.stack,
            attribute_indices: self.attributes.clone(),
            values: vec![value],
            ..proto::Sample::default()
        })
    }
}

/// Keeps the labels that are texts, with the names that their values have as attributes of metrics.
fn with_bounded_labels(sample: &Sample) -> Sample {
    let name = |key| match key {
        "task" => "rust.task.name",
        "runtime" => "tokio.runtime.name",
        "cause" => "tokio.stall.cause",
        "thread" => "thread.name",
        other => other,
    };
    let labels = sample.labels.iter().filter(|(_, label)| matches!(label, Label::Text(_)));
    Sample { labels: labels.map(|(key, label)| (name(key), label.clone())).collect(), ..sample.clone() }
}

/// Returns the number of what is in a table, and adds it if it is new.
fn number_of<K: Eq + Hash>(known: &mut HashMap<K, i32>, key: K, add: impl FnOnce() -> i32) -> i32 {
    *known.entry(key).or_insert_with(add)
}

/// Adds an element to a table and returns its number.
fn add<T>(table: &mut Vec<T>, element: T) -> i32 {
    let number = i32::try_from(table.len()).unwrap_or(i32::MAX);
    table.push(element);
    number
}
