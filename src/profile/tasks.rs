//! Live tasks by the place that created them.

use std::time::Duration;

use super::error::Error;
use super::sampled::{Label, Profile, ProfileKind, Sample, SampleType};
use crate::count::task::{self, Created, Event, NameId};
use crate::stack;

pub(super) const TYPES: [SampleType; 1] = [SampleType::new("tasks", "count")];

/// Returns the live tasks by name, with the stacks that created them.
///
/// The sum of each name is exact: it is the number that `rust.task.count` reports, of futures that were given a name or a
/// location, of requests under `TaskNameLayer`, and of all tasks under `task_hooks`. The label `task` is the name. The
/// first call starts to take the stacks of one in 32 tasks spawned from then on, those of `task_hooks` excepted. The live
/// tasks among these say how the number is divided between stacks, and the label `age` how old they are: `seconds`,
/// `minutes` (a minute or more) or `hours` (an hour or more). Tasks that leak grow old. A name without such tasks has one
/// sample without a stack.
///
/// ```
/// use opentelemetry_instrumentation_runtime::{TaskExt, profile};
///
/// let task = std::future::pending::<()>().with_task_name("leak");
/// let tasks = profile::tasks();
/// assert_eq!(tasks.exact_total(), Some(1));
/// assert!(tasks.to_folded().contains("1"));
/// # drop(task);
/// ```
pub fn tasks() -> Profile {
    // Without stacks there are the names and their numbers.
    let prepared = stack::prepare();
    if prepared.is_ok() {
        task::sample_spawns();
    }
    let created = task::live_samples();
    let (mut names, mut totals) = (Vec::new(), Vec::new());
    task::totals(&mut names, &mut totals);
    let mut samples = Vec::new();
    let mut total = 0;
    for (index, ((name, _), totals)) in names.iter().zip(&totals).enumerate() {
        let live = totals.of(Event::Spawned).saturating_sub(totals.ended());
        if live > 0 {
            total += live;
            let created: Vec<_> =
                created.iter().filter(|created| created.name == NameId::new(index)).collect();
            samples.extend(divide(name, live, &created));
        }
    }
    let error = prepared.err().map(Error::from);
    let exact_total = Some(total);
    Profile { error, exact_total, ..Profile::new(ProfileKind::Tasks, &TYPES, samples) }
}

/// Divides the number of live tasks of a name among those that were sampled. The sum stays exact.
fn divide(name: &'static str, live: u64, created: &[&Created]) -> Vec<Sample> {
    let task = ("task", Label::from(name));
    let value = |value: u64| vec![i64::try_from(value).unwrap_or(i64::MAX)];
    // A task may have ended since it was listed.
    let known =
        created.get(..created.len().min(usize::try_from(live).unwrap_or(usize::MAX))).unwrap_or_default();
    if known.is_empty() {
        return vec![Sample { values: value(live), labels: vec![task], ..Sample::default() }];
    }
    let count = known.len() as u64;
    let (each, rest) = (live / count, live % count);
    let share = |index: usize| each + u64::from((index as u64) < rest);
    let sample = |(index, created): (usize, &&Created)| Sample {
        stack: created.stack.clone(),
        is_cut: created.is_cut,
        values: value(share(index)),
        labels: vec![task.clone(), ("age", Label::from(age_class(created.age())))],
        ..Sample::default()
    };
    known.iter().enumerate().map(sample).collect()
}

fn age_class(age: Duration) -> &'static str {
    match age.as_secs() {
        0..60 => "seconds",
        60..3600 => "minutes",
        _ => "hours",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_sum_stays_exact_however_many_were_sampled() {
        let created = |seconds: u64, address: usize| Created {
            name: NameId::OTHER,
            at: Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap_or_else(Instant::now),
            stack: Box::from([address]),
            is_cut: false,
        };
        let list = [created(0, 1), created(61, 2), created(0, 1)];
        for sampled in 0..=3 {
            for live in 1..20 {
                let list: Vec<_> = list.iter().take(sampled).collect();
                let sum: i64 = divide("name", live, &list).iter().map(|sample| sample.values[0]).sum();
                assert_eq!(sum, live as i64, "{sampled} sampled of {live}");
            }
        }
        assert_eq!(
            [0, 59, 60, 3599, 3600].map(|age| age_class(Duration::from_secs(age))),
            ["seconds", "seconds", "minutes", "minutes", "hours"]
        );
    }
}
