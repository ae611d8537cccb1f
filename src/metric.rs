//! The description of a metric: one row of the catalogue.

/// The instrument a metric is reported through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A monotonic sum.
    Counter,
    /// A sum that may fall.
    UpDownCounter,
    /// A value whose sum over processes means nothing.
    Gauge,
    /// A distribution.
    Histogram,
}

/// When a metric is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Availability {
    /// Whenever its source exists.
    Default,
    /// When asked for.
    OptIn,
    /// When compiled with `--cfg tokio_unstable`.
    Unstable,
}

/// The description of a metric. There is one for each row of the catalogue, the same in every build.
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

    /// The name under which the metric is exported.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The kind of its instrument.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Its unit, in UCUM notation.
    pub const fn unit(&self) -> &'static str {
        self.unit
    }

    /// What is counted, in one sentence.
    pub const fn description(&self) -> &'static str {
        self.description
    }

    /// Where the number comes from.
    pub const fn origin(&self) -> &'static str {
        self.origin
    }

    /// What it means when it moves, and what to do then.
    pub const fn advice(&self) -> &'static str {
        self.advice
    }

    /// When it is reported.
    pub const fn availability(&self) -> Availability {
        self.availability
    }

    /// The attribute that tells the points of one reading apart, beside those that its whole source carries
    /// (the runtime's or the task's name).
    pub const fn attribute(&self) -> Option<&'static str> {
        self.attribute
    }

    /// The attribute by which its points are told apart further when that is asked for.
    pub const fn opt_in_attribute(&self) -> Option<&'static str> {
        self.opt_in_attribute
    }
}
