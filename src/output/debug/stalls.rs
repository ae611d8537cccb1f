//! The stalls that last at present.

use std::time::Duration;

use crate::snapshot::{Attributes, Point, Snapshot};

/// A stall that has not ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stall {
    pub(super) runtime: Option<String>,
    pub(super) cause: Option<String>,
    /// How long the worker has made no progress.
    pub(super) duration: Duration,
}

/// Finds the present stalls in the counters of stalls.
#[derive(Debug, Default)]
pub(super) struct Stalls {
    series: Vec<Series>,
}

/// The stalls of one runtime with one cause.
#[derive(Debug)]
struct Series {
    attributes: Attributes,
    count: f64,
    seconds: f64,
    /// The time of all stalls when the latest one began.
    began_at: f64,
}

impl Stalls {
    /// Returns the stalls during which the snapshot was taken. A stall lasts as long as its time grows, and a new one
    /// begins whenever their count grows.
    pub(super) fn update(&mut self, snapshot: &Snapshot) -> Vec<Stall> {
        let points = |name| snapshot.get(name).map(|reading| reading.points()).unwrap_or_default();
        let counts: &[Point] = points("tokio.worker.stalls");
        let mut present = Vec::new();
        let mut series = Vec::new();
        for point in points("tokio.worker.stall.time") {
            let attributes = point.attributes();
            let count = counts.iter().find(|count| count.attributes() == attributes);
            let (Some(count), Some(seconds)) =
                (count.and_then(|count| count.value().as_f64()), point.value().as_f64())
            else {
                continue;
            };
            let before = self.series.iter().find(|series| series.attributes == *attributes);
            let (last_count, last_seconds, last_began) =
                before.map_or((0.0, 0.0, 0.0), |before| (before.count, before.seconds, before.began_at));
            let grown = seconds - last_seconds;
            let new = count - last_count;
            let began_at = if new > 0.0 { seconds - grown / new } else { last_began };
            if before.is_some() && grown > 0.0 {
                let text = |key| attributes.get(key).map(ToString::to_string);
                present.push(Stall {
                    runtime: text("tokio.runtime.name"),
                    cause: text("tokio.stall.cause"),
                    duration: Duration::try_from_secs_f64(seconds - began_at).unwrap_or_default(),
                });
            }
            series.push(Series { attributes: attributes.clone(), count, seconds, began_at });
        }
        self.series = series;
        present
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::output::json::tests::{none, snapshot};
    use crate::snapshot::Value;

    fn at(count: u64, seconds: f64) -> Snapshot {
        let attributes =
            || none().and("tokio.runtime.name", Arc::<str>::from("io")).and("tokio.stall.cause", "blocked");
        snapshot(
            0,
            vec![
                ("tokio.worker.stalls", attributes(), Value::U64(count)),
                ("tokio.worker.stall.time", attributes(), Value::F64(seconds)),
            ],
        )
    }

    fn durations(samples: impl IntoIterator<Item = (u64, f64)>) -> Vec<Vec<f64>> {
        let mut stalls = Stalls::default();
        let durations = |(count, seconds)| {
            let present = stalls.update(&at(count, seconds));
            present.iter().map(|stall| (stall.duration.as_secs_f64() * 1e6).round() / 1e6).collect()
        };
        samples.into_iter().map(durations).collect()
    }

    #[test]
    fn a_stall_grows_while_it_lasts_and_then_is_gone() {
        let seen = durations([(0, 0.0), (1, 0.5), (1, 1.5), (1, 2.0), (1, 2.0)]);
        assert_eq!(seen, [vec![], vec![0.5], vec![1.5], vec![2.0], vec![]]);
    }

    #[test]
    fn many_short_stalls_are_not_one_long_stall() {
        let seen = durations((0..78).map(|second| (second, second as f64 * 0.7)));
        assert!(seen[1..].iter().all(|stalls| *stalls == [0.7]), "{seen:?}");
    }

    #[test]
    fn stalls_before_the_first_sample_are_over() {
        assert_eq!(durations([(5, 9.0), (5, 9.0)]), [vec![], vec![]] as [Vec<f64>; 2]);
    }

    #[test]
    fn a_stall_has_its_runtime_and_cause() {
        let mut stalls = Stalls::default();
        stalls.update(&at(0, 0.0));
        let stall = stalls.update(&at(1, 0.25)).remove(0);
        assert_eq!((stall.runtime.as_deref(), stall.cause.as_deref()), (Some("io"), Some("blocked")));
    }
}
