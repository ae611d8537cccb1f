//! Describes a metric: one row of the catalogue.

/// The kind of instrument that reports a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A sum that never falls.
    Counter,
    /// A sum that may fall.
    UpDownCounter,
    /// A value whose sum over processes has no meaning.
    Gauge,
    /// A distribution of values in buckets.
    Histogram,
}

/// The condition under which a metric is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Availability {
    /// Reported wherever its source exists.
    Default,
    /// Reported if a method of [`Builder`](crate::Builder) turns it on.
    OptIn,
    /// Reported if the program is compiled with `--cfg tokio_unstable`.
    Unstable,
}

/// The description of a metric: its name, kind, unit and meaning.
///
/// Each row of the [`catalogue`](crate::catalogue) has one. It is the same in every build.
///
/// ```
/// use opentelemetry_instrumentation_runtime::{Kind, catalogue};
///
/// let metrics: Vec<_> = catalogue().into_iter().flat_map(|group| group.metrics).collect();
/// let used = metrics.iter().find(|metric| metric.name() == "rust.memory.used");
/// assert!(used.is_some_and(|metric| metric.kind() == Kind::UpDownCounter && metric.unit() == "By"));
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) unit: &'static str,
    pub(crate) description: &'static str,
    pub(crate) origin: &'static str,
    pub(crate) advice: &'static str,
    pub(crate) availability: Availability,
    pub(crate) attribute: Option<&'static str>,
    pub(crate) opt_in_attribute: Option<&'static str>,
}

impl Metric {
    pub(crate) const fn new(name: &'static str, kind: Kind, unit: &'static str) -> Self {
        Metric {
            name,
            kind,
            unit,
            description: "",
            origin: "",
            advice: "",
            availability: Availability::Default,
            attribute: None,
            opt_in_attribute: None,
        }
    }

    /// Returns the name under which the metric is exported, such as `rust.memory.used`.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the kind of the metric's instrument.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the unit in UCUM notation: `By` for bytes, `s` for seconds, `{task}` for a count of tasks.
    pub const fn unit(&self) -> &'static str {
        self.unit
    }

    /// Returns one sentence that says what the metric measures. It is exported with the metric.
    pub const fn description(&self) -> &'static str {
        self.description
    }

    /// Returns one or more sentences that say where the number comes from.
    pub const fn origin(&self) -> &'static str {
        self.origin
    }

    /// Returns one or more sentences that say what a change means and what to do about it.
    pub const fn advice(&self) -> &'static str {
        self.advice
    }

    /// Returns the condition under which the metric is reported.
    pub const fn availability(&self) -> Availability {
        self.availability
    }

    /// Returns the attribute that distinguishes the points of one reading.
    ///
    /// The attributes that the whole source has, such as the name of the runtime or task, are in
    /// [`Group::attributes`](crate::Group::attributes).
    pub const fn attribute(&self) -> Option<&'static str> {
        self.attribute
    }

    /// Returns the attribute that further distinguishes the points if a method of [`Builder`](crate::Builder) turns it on.
    pub const fn opt_in_attribute(&self) -> Option<&'static str> {
        self.opt_in_attribute
    }
}
