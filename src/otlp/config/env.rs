//! The environment, as the specification of its variables has it: an empty variable is not set.

use std::cell::RefCell;
use std::env::VarError;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::otlp::config::secrets::HIDDEN;
use crate::otlp::config::shown::shown_word;
use crate::otlp::error::Error;

/// Reads variables, and collects what to warn of.
///
/// It reads through a function, so that tests need not change the environment of their process.
pub(crate) struct Env<'a> {
    read: &'a dyn Fn(&str) -> Result<String, VarError>,
    warnings: RefCell<Vec<String>>,
}

impl<'a> Env<'a> {
    pub(crate) fn new(read: &'a dyn Fn(&str) -> Result<String, VarError>) -> Self {
        Env { read, warnings: RefCell::default() }
    }

    /// Reads the same variables, and warns of others.
    #[cfg(feature = "otlp-profiles")]
    pub(crate) fn with_own_warnings(&self) -> Self {
        Env::new(self.read)
    }

    /// A variable that exporting depends on. Its value may be a secret.
    pub(crate) fn get(&self, name: &str) -> Result<Option<Variable>, Error> {
        match (self.read)(name) {
            Ok(value) if value.trim().is_empty() => Ok(None),
            Ok(value) => Ok(Some(Variable::new(name, value.trim()))),
            Err(VarError::NotPresent) => Ok(None),
            Err(VarError::NotUnicode(_)) => Err(Error::setting(name, HIDDEN, "it is not valid UTF-8")),
        }
    }

    /// True if the variable is set to nothing, which counts as not set here but not elsewhere.
    #[cfg(feature = "otlp-tls")]
    pub(crate) fn is_empty(&self, name: &str) -> bool {
        (self.read)(name).is_ok_and(|value| value.is_empty())
    }

    /// As [`get`](Self::get), for a setting of the exporter. The variable for metrics goes before that for all signals.
    pub(crate) fn exporter(&self, setting: &str) -> Result<Option<Variable>, Error> {
        for name in exporter_names(setting) {
            if let Some(variable) = self.get(&name)? {
                return Ok(Some(variable));
            }
        }
        Ok(None)
    }

    /// A variable whose value the specification says to ignore if it cannot be used. Then there is one warning, and the
    /// variable counts as not set.
    pub(crate) fn parse<T>(&self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let variable = match self.get(name) {
            Ok(variable) => variable?,
            Err(error) => {
                self.warn(error.to_string());
                return None;
            }
        };
        match parse(&variable.value) {
            Ok(value) => Some(value),
            Err(problem) => {
                let problem = if variable.is_quoted() { QUOTED.into() } else { problem };
                self.warn(format!("{name}={}: {problem}", shown_word(&variable.value)));
                None
            }
        }
    }

    /// As [`parse`](Self::parse), for a setting of the exporter.
    pub(crate) fn parse_exporter<T>(
        &self,
        setting: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        exporter_names(setting).iter().find_map(|name| self.parse(name, &parse))
    }

    pub(crate) fn warn(&self, warning: String) {
        self.warnings.borrow_mut().push(warning);
    }

    pub(crate) fn into_warnings(self) -> Vec<String> {
        self.warnings.into_inner()
    }
}

fn exporter_names(setting: &str) -> [String; 2] {
    [format!("OTEL_EXPORTER_OTLP_METRICS_{setting}"), format!("OTEL_EXPORTER_OTLP_{setting}")]
}

/// A common mistake in files of variables, where no shell takes the quotes away.
pub(crate) const QUOTED: &str = "the value stands in quotes; remove them";

/// A variable that is set, or the call of the builder that takes its place.
#[derive(Clone)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl Variable {
    pub(crate) fn new(name: &str, value: &str) -> Self {
        Variable { name: name.into(), value: value.into() }
    }

    pub(crate) fn is_quoted(&self) -> bool {
        ['"', '\''].iter().any(|quote| {
            self.value.len() > 1 && self.value.starts_with(*quote) && self.value.ends_with(*quote)
        })
    }
}

/// The meaning of a word, in upper or lower case.
pub(crate) fn choose<T: Copy>(value: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let choice = choices.iter().find(|(text, _)| value.eq_ignore_ascii_case(text));
    choice.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let known: Vec<_> = choices.iter().map(|(text, _)| *text).collect();
        format!("it must be one of: {}", known.join(", "))
    })
}

/// Anything but `true` is false; the specification wants a warning for all but `false`.
pub(crate) fn boolean(value: &str) -> Result<bool, String> {
    choose(value, &[("true", true), ("false", false)])
}

/// A number of milliseconds.
pub(crate) fn milliseconds(value: &str) -> Result<Duration, String> {
    match value.parse() {
        Ok(number) if !value.starts_with('+') => Ok(Duration::from_millis(number)),
        _ => Err("it must be a whole number of milliseconds".into()),
    }
}

/// The entries of a list `key=value,key=value` with percent-encoded values, each with its number from 1. An error is a
/// sentence that quotes nothing, because a value may be a secret.
pub(crate) fn pairs(list: &str) -> impl Iterator<Item = (usize, Result<(String, String), &'static str>)> {
    let entries = list.split(',').map(str::trim).enumerate().filter(|(_, entry)| !entry.is_empty());
    entries.map(|(index, entry)| (index + 1, pair(entry)))
}

fn pair(entry: &str) -> Result<(String, String), &'static str> {
    const FORM: &str = "is not of the form key=value; write a comma inside a value as %2C";
    let (key, value) = entry.split_once('=').ok_or(FORM)?;
    // The end of a value in base64 after a comma, which the entry before it should have.
    if key.trim().is_empty() || !value.is_empty() && value.trim_matches('=').is_empty() {
        return Err(FORM);
    }
    let decode = |text: &str| percent_decode_str(text.trim()).decode_utf8().map(String::from);
    match (decode(key), decode(value)) {
        (Ok(key), Ok(value)) => Ok((key, value)),
        _ => Err("is not UTF-8 after percent-decoding"),
    }
}

/// Runs a test in an environment with these variables alone.
#[cfg(test)]
pub(crate) fn with<T>(set: &[(&str, &str)], test: impl FnOnce(&Env<'_>) -> T) -> T {
    let read = |name: &str| match set.iter().find(|(key, _)| *key == name) {
        Some((_, value)) => Ok((*value).to_owned()),
        None => Err(VarError::NotPresent),
    };
    test(&Env::new(&read))
}

/// Returns the warnings so far.
#[cfg(test)]
pub(crate) fn warnings(env: &Env<'_>) -> Vec<String> {
    env.warnings.borrow().clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_trimmed_and_percent_decoded() {
        let good = |text| pairs(text).map(|(_, pair)| pair.unwrap()).collect::<Vec<_>>();
        assert_eq!(
            good(" a = 1 ,b=x%2Cy%3D%25z,c=,,d=e=f,%6b=%c3%a9"),
            [("a", "1"), ("b", "x,y=%z"), ("c", ""), ("d", "e=f"), ("k", "é")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
        );
        let bad = |text| {
            pairs(text).filter(|(_, pair)| pair.is_err()).map(|(number, _)| number).collect::<Vec<_>>()
        };
        assert_eq!(bad("a=1,b"), [2]);
        assert_eq!(bad("=1,a=2"), [1]);
        assert_eq!(bad("a=%ff,,b"), [1, 3]);
        assert_eq!(bad("api-key=abc,tail=="), [2], "the end of a value");
    }

    #[test]
    fn the_variable_for_metrics_goes_before_that_for_all_signals() {
        let value = |set: &[(&str, &str)]| {
            with(set, |env| env.exporter("TIMEOUT").unwrap().map(|variable| variable.value))
        };
        let (all, metrics) =
            (("OTEL_EXPORTER_OTLP_TIMEOUT", "1"), ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "2"));
        assert_eq!(value(&[]), None);
        assert_eq!(value(&[all]).unwrap(), "1");
        assert_eq!(value(&[all, metrics]).unwrap(), "2");
        let empty = ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", " ");
        assert_eq!(value(&[all, empty]).unwrap(), "1", "an empty one is not set");
        let malformed = ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "2s");
        with(&[all, malformed], |env| {
            assert_eq!(env.parse_exporter("TIMEOUT", milliseconds), Some(Duration::from_millis(1)));
            let warning = "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT=2s: it must be a whole number of milliseconds";
            assert_eq!(warnings(env), [warning]);
        });
    }

    #[test]
    fn a_value_that_is_not_utf8_is_an_error_that_hides_it() {
        let read = |_: &str| Err(VarError::NotUnicode("s\u{fffd}cret".into()));
        let error = Env::new(&read).get("OTEL_EXPORTER_OTLP_HEADERS").err().unwrap();
        assert_eq!(error.to_string(), "OTEL_EXPORTER_OTLP_HEADERS=[hidden]: it is not valid UTF-8");
    }

    #[test]
    fn a_warning_names_quotes_and_hides_long_values() {
        let warned = |value| with(&[("X", value)], |env| (env.parse("X", boolean), warnings(env)));
        assert_eq!(warned("TRUE"), (Some(true), vec![]));
        assert_eq!(warned("1"), (None, vec!["X=1: it must be one of: true, false".to_owned()]));
        assert_eq!(
            warned("\"true\""),
            (None, vec!["X=\"true\": the value stands in quotes; remove them".to_owned()])
        );
        let long = "s3cret-that-went-astray";
        assert_eq!(warned(long), (None, vec!["X=[hidden]: it must be one of: true, false".to_owned()]));
    }
}
