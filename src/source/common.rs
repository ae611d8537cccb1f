//! The attributes that every series has: checks those that the builder was given.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use opentelemetry::{KeyValue, Value};

use crate::metric::Metric;
use crate::snapshot::{AttributeValue, Attributes, CommonAttributes};
use crate::source::table::Group;
use crate::util::log;
use crate::util::mutex::Mutex;

/// Returns the attributes that can be used, and logs a warning about the others. Of one key, the last value counts.
pub(crate) fn common_attributes(attributes: &[KeyValue], catalogue: &[Group]) -> Option<CommonAttributes> {
    let mut common = BTreeMap::new();
    for KeyValue { key, value, .. } in attributes {
        let key = key.as_str();
        if key.is_empty() || is_used(key, catalogue) {
            log::warn("an attribute for every series is ignored: the library uses its key", key);
        } else if common.len() >= Attributes::MAX_COMMON && !common.contains_key(key) {
            log::warn("an attribute for every series is ignored: there are too many", key);
        } else {
            common.insert(intern(key), attribute_value(value));
        }
    }
    (!common.is_empty()).then(|| common.into_iter().collect())
}

fn is_used(key: &str, catalogue: &[Group]) -> bool {
    let by_metric =
        |metric: &&'static Metric| [metric.attribute(), metric.opt_in_attribute()].contains(&Some(key));
    catalogue.iter().any(|group| group.attributes.contains(&key) || group.metrics.iter().any(by_metric))
}

/// Returns the key as a text that lives as long as the process. Equal keys are stored once.
fn intern(key: &str) -> &'static str {
    static KEYS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut keys = KEYS.lock();
    if let Some(known) = keys.get(key) {
        return known;
    }
    let key: &'static str = String::leak(key.to_owned());
    keys.insert(key);
    key
}

fn attribute_value(value: &Value) -> AttributeValue {
    match value {
        Value::I64(number) => AttributeValue::Int(*number),
        other => AttributeValue::Shared(Arc::from(other.as_str().as_ref())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::catalogue;

    #[test]
    fn keys_of_the_library_are_ignored_and_the_last_value_of_a_key_counts() {
        let used =
            catalogue().iter().find_map(|group| group.attributes.first().copied()).expect("there is one");
        let row = catalogue().iter().flat_map(|group| &group.metrics).find_map(|metric| metric.attribute());
        let attributes = [
            KeyValue::new("tenant", "a"),
            KeyValue::new(used, "mine"),
            KeyValue::new(row.expect("there is one"), "mine"),
            KeyValue::new("", "nothing"),
            KeyValue::new("cell", 7),
            KeyValue::new("tenant", "b"),
            KeyValue::new("canary", true),
        ];
        let common = common_attributes(&attributes, &catalogue()).expect("some are good");
        let common: Vec<_> = common.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(common, ["canary=true", "cell=7", "tenant=b"]);
        assert_eq!(common_attributes(&attributes[1..4], &catalogue()), None);
    }

    #[test]
    fn attributes_beyond_the_limit_are_ignored() {
        let many: Vec<_> = (10..40).map(|number| KeyValue::new(format!("key{number}"), number)).collect();
        let common = common_attributes(&many, &[]).expect("some are good");
        assert_eq!(common.len(), Attributes::MAX_COMMON);
    }
}
