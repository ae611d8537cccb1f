//! The lines of a plot and the units of their values.

use std::sync::Arc;

use crate::util::scale::{self, BYTES, COUNTS, scaled};

/// The number of samples that a plot shows, one a second.
pub(super) const SECONDS: usize = 600;
/// The most points of a drawn line: one for two pixels.
pub(super) const MAX_POINTS: usize = 200;

/// A line of a plot, the latest value last.
pub(super) struct Line {
    pub(super) name: Arc<str>,
    /// NaN where nothing could be read.
    pub(super) values: Vec<f64>,
}

impl Line {
    pub(super) fn latest(&self) -> Option<f64> {
        self.values.last().copied().filter(|value| value.is_finite())
    }
}

/// Returns how many of `samples` values make one point.
pub(super) fn values_per_point(samples: usize) -> usize {
    samples.div_ceil(MAX_POINTS).max(1)
}

#[derive(Clone, Copy)]
pub(super) enum Unit {
    Bytes,
    Count,
    Seconds,
    Share,
}

impl Unit {
    /// The smallest upper end of the scale, so that noise does not look like load.
    pub(super) fn min_top(self) -> f64 {
        match self {
            Unit::Bytes => 1000.0,
            Unit::Count => 1.0,
            Unit::Seconds => 0.001,
            Unit::Share => 1.0,
        }
    }

    /// Returns a value with three digits and its unit.
    pub(super) fn text(self, value: f64) -> String {
        match self {
            Unit::Share => format!("{:.0} %", value * 100.0),
            Unit::Bytes => scaled(value, BYTES),
            Unit::Count => scaled(value, COUNTS),
            Unit::Seconds => scaled(value, scale::SECONDS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_three_digits_and_a_unit() {
        let cases = [
            (Unit::Bytes, 0.0, "0 B"),
            (Unit::Bytes, 999.0, "999 B"),
            (Unit::Bytes, 1536.0, "1.54 kB"),
            (Unit::Bytes, 50e6, "50 MB"),
            (Unit::Bytes, 123_456_789.0, "123 MB"),
            (Unit::Bytes, 1e18, "1000000 TB"),
            (Unit::Count, 0.25, "0.25"),
            (Unit::Count, 1234.0, "1.23 k"),
            (Unit::Count, 100.0, "100"),
            (Unit::Seconds, 0.0, "0 µs"),
            (Unit::Seconds, 0.0025, "2.5 ms"),
            (Unit::Seconds, 10.0, "10 s"),
            (Unit::Share, 0.5, "50 %"),
        ];
        for (unit, value, text) in cases {
            assert_eq!(unit.text(value), text);
        }
    }
}
