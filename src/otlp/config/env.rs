//! The environment, as the specification of its variables has it: an empty one is not set.

use std::env::VarError;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::otlp::error::Error;

/// Where variables are read from. A function, so that tests need not change the environment of their process.
pub(in crate::otlp) struct Variables<'a>(pub(in crate::otlp) &'a dyn Fn(&str) -> Result<String, VarError>);

impl Variables<'_> {
    pub(in crate::otlp) fn get(&self, name: &str) -> Result<Option<Variable>, Error> {
        match (self.0)(name) {
            Ok(value) if value.trim().is_empty() => Ok(None),
            Ok(value) => Ok(Some(Variable::new(name, value.trim()))),
            Err(VarError::NotPresent) => Ok(None),
            Err(VarError::NotUnicode(_)) => Err(Error::setting(name, HIDDEN, "it is not valid UTF-8")),
        }
    }

    /// A setting of the exporter, where that for metrics goes before that for all signals.
    pub(in crate::otlp) fn exporter(&self, setting: &str) -> Result<Option<Variable>, Error> {
        match self.get(&format!("OTEL_EXPORTER_OTLP_METRICS_{setting}"))? {
            Some(variable) => Ok(Some(variable)),
            None => self.get(&format!("OTEL_EXPORTER_OTLP_{setting}")),
        }
    }
}

/// What stands for a value that may be a secret.
pub(in crate::otlp) const HIDDEN: &str = "[hidden]";

/// A variable that is set, or the call of the builder that takes its place.
#[derive(Clone, Debug)]
pub(in crate::otlp) struct Variable {
    pub(in crate::otlp) name: String,
    pub(in crate::otlp) value: String,
}

impl Variable {
    pub(in crate::otlp) fn new(name: &str, value: &str) -> Self {
        Variable { name: name.into(), value: value.into() }
    }

    pub(in crate::otlp) fn invalid(&self, problem: impl Into<String>) -> Error {
        Error::setting(&self.name, &self.value, problem)
    }

    /// The meaning of the value, upper or lower case, among those there are.
    pub(in crate::otlp) fn choose<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, Error> {
        choices
            .iter()
            .find(|(text, _)| self.value.eq_ignore_ascii_case(text))
            .map(|(_, meaning)| *meaning)
            .ok_or_else(|| {
                let known: Vec<_> = choices.iter().map(|(text, _)| *text).collect();
                self.invalid(format!("it has to be one of: {}", known.join(", ")))
            })
    }

    pub(in crate::otlp) fn boolean(&self) -> Result<bool, Error> {
        self.choose(&[("true", true), ("false", false)])
    }

    pub(in crate::otlp) fn milliseconds(&self) -> Result<Duration, Error> {
        match self.value.parse() {
            Ok(0) | Err(_) => Err(self.invalid("it has to be a whole number of milliseconds above 0")),
            Ok(number) => Ok(Duration::from_millis(number)),
        }
    }

    /// A list `key=value,key=value` whose values are percent-encoded. The error is a problem, for the caller knows
    /// whether the value may be told.
    pub(in crate::otlp) fn pairs(&self) -> Result<Vec<(String, String)>, String> {
        let entries = self.value.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let decode = |text: &str| percent_decode_str(text.trim()).decode_utf8().map(String::from);
        entries
            .enumerate()
            .map(|(index, entry)| match entry.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => match (decode(key), decode(value)) {
                    (Ok(key), Ok(value)) => Ok((key, value)),
                    _ => Err(format!("entry {} is not UTF-8 when it is percent-decoded", index + 1)),
                },
                _ => Err(format!("entry {} is not of the form key=value", index + 1)),
            })
            .collect()
    }
}

/// For tests: an environment in which only these are set.
#[cfg(test)]
pub(in crate::otlp) fn with<T>(set: &[(&str, &str)], use_it: impl FnOnce(&Variables<'_>) -> T) -> T {
    use_it(&Variables(&|name| match set.iter().find(|(key, _)| *key == name) {
        Some((_, value)) => Ok((*value).to_owned()),
        None => Err(VarError::NotPresent),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_trimmed_and_percent_decoded() {
        let pairs = |text| Variable::new("V", text).pairs();
        assert_eq!(
            pairs(" a = 1 ,b=x%2Cy%3D%25z,c=,,d=e=f,%6b=%c3%a9"),
            Ok([("a", "1"), ("b", "x,y=%z"), ("c", ""), ("d", "e=f"), ("k", "é")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .to_vec())
        );
        assert_eq!(pairs("a=1,b"), Err("entry 2 is not of the form key=value".to_owned()));
        assert_eq!(pairs("=1"), Err("entry 1 is not of the form key=value".to_owned()));
        assert_eq!(pairs("a=%ff"), Err("entry 1 is not UTF-8 when it is percent-decoded".to_owned()));
    }

    #[test]
    fn the_variable_for_metrics_goes_before_that_for_all_signals() {
        let value = |set: &[(&str, &str)]| {
            with(set, |variables| variables.exporter("TIMEOUT").unwrap().map(|variable| variable.value))
        };
        let (all, metrics) =
            (("OTEL_EXPORTER_OTLP_TIMEOUT", "1"), ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "2"));
        assert_eq!(value(&[]), None);
        assert_eq!(value(&[all]).unwrap(), "1");
        assert_eq!(value(&[all, metrics]).unwrap(), "2");
        let empty = ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", " ");
        assert_eq!(value(&[all, empty]).unwrap(), "1", "an empty one is not set");
    }

    #[test]
    fn what_is_not_utf8_is_an_error_that_does_not_tell_the_value() {
        let read = |_: &str| Err(VarError::NotUnicode("s\u{fffd}cret".into()));
        let error = Variables(&read).get("OTEL_EXPORTER_OTLP_HEADERS").unwrap_err();
        assert_eq!(error.to_string(), "OTEL_EXPORTER_OTLP_HEADERS=[hidden]: it is not valid UTF-8");
    }
}
