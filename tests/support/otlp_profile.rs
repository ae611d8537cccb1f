//! Reads profiles in OTLP: follows the numbers of the dictionary.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::profiles::v1development::{
    Function, KeyValueAndUnit, Link, Location, Mapping, Profile, ProfilesDictionary, Stack, ValueType,
};

/// A sample with its names.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The type of the value, such as `inuse_space/bytes`.
    pub kind: String,
    /// The leaf first.
    pub functions: Vec<String>,
    pub attributes: BTreeMap<String, String>,
    pub value: i64,
}

/// Returns all samples. Fails on anything that the protocol forbids.
pub fn rows(message: &ExportProfilesServiceRequest) -> Vec<Row> {
    let dictionary = message.dictionary.as_ref().expect("a dictionary");
    check(dictionary);
    let mut rows = Vec::new();
    for profile in profiles(message) {
        let kind = kind(dictionary, profile.sample_type.as_ref().unwrap());
        assert!(!profile.samples.is_empty(), "{kind} has no samples");
        for sample in &profile.samples {
            let [value] = sample.values[..] else { panic!("{sample:?}") };
            let stack = at(&dictionary.stack_table, sample.stack_index);
            let locations = stack.location_indices.iter().map(|index| at(&dictionary.location_table, *index));
            let lines = locations.flat_map(|location| &location.lines);
            let function = |index| text(dictionary, at(&dictionary.function_table, index).name_strindex);
            rows.push(Row {
                kind: kind.clone(),
                functions: lines.map(|line| function(line.function_index)).collect(),
                attributes: sample
                    .attribute_indices
                    .iter()
                    .map(|index| attribute(dictionary, *index))
                    .collect(),
                value,
            });
        }
    }
    rows
}

pub fn profiles(message: &ExportProfilesServiceRequest) -> impl Iterator<Item = &Profile> {
    let scopes = message.resource_profiles.iter().flat_map(|resource| &resource.scope_profiles);
    scopes.flat_map(|scope| &scope.profiles)
}

/// Returns the sum of the values of one type, of samples with a function.
pub fn sum(rows: &[Row], kind: &str, function: &str) -> i64 {
    let has_function = |row: &&Row| row.functions.iter().any(|name| name.contains(function));
    rows.iter().filter(|row| row.kind == kind).filter(has_function).map(|row| row.value).sum()
}

pub fn kind(dictionary: &ProfilesDictionary, value_type: &ValueType) -> String {
    format!("{}/{}", text(dictionary, value_type.type_strindex), text(dictionary, value_type.unit_strindex))
}

pub fn at<T>(table: &[T], index: i32) -> &T {
    table.get(usize::try_from(index).unwrap()).unwrap_or_else(|| panic!("{index} of {}", table.len()))
}

fn text(dictionary: &ProfilesDictionary, index: i32) -> String {
    at(&dictionary.string_table, index).clone()
}

fn attribute(dictionary: &ProfilesDictionary, index: i32) -> (String, String) {
    let KeyValueAndUnit { key_strindex, value, unit_strindex } = at(&dictionary.attribute_table, index);
    assert_eq!(*unit_strindex, 0);
    match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(value)) => (text(dictionary, *key_strindex), value.clone()),
        other => panic!("{other:?}"),
    }
}

/// The rules of the protocol: the first element of each table is the zero value, and no element occurs twice.
fn check(dictionary: &ProfilesDictionary) {
    fn starts_with_zero<T: Default + PartialEq>(table: &[T]) {
        assert!(table.first() == Some(&T::default()));
    }
    starts_with_zero::<String>(&dictionary.string_table);
    starts_with_zero::<Mapping>(&dictionary.mapping_table);
    starts_with_zero::<Location>(&dictionary.location_table);
    starts_with_zero::<Function>(&dictionary.function_table);
    starts_with_zero::<Link>(&dictionary.link_table);
    starts_with_zero::<KeyValueAndUnit>(&dictionary.attribute_table);
    starts_with_zero::<Stack>(&dictionary.stack_table);
    let all = dictionary.string_table.len();
    assert_eq!(dictionary.string_table.iter().collect::<BTreeSet<_>>().len(), all, "a text twice");
    assert_eq!(
        dictionary.function_table.iter().collect::<HashSet<_>>().len(),
        dictionary.function_table.len()
    );
    assert_eq!(dictionary.mapping_table.iter().collect::<HashSet<_>>().len(), dictionary.mapping_table.len());
    let stacks: HashSet<_> = dictionary.stack_table.iter().map(|stack| &stack.location_indices).collect();
    assert_eq!(stacks.len(), dictionary.stack_table.len(), "a stack twice");
    for location in &dictionary.location_table[1..] {
        let mapping = at(&dictionary.mapping_table, location.mapping_index);
        if location.mapping_index != 0 {
            assert!((mapping.memory_start..=mapping.memory_limit).contains(&location.address), "{mapping:?}");
        }
    }
}
