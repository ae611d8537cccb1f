//! The difference between two profiles.

#[cfg(feature = "otlp-profiles")]
use std::time::SystemTime;

use super::sampled::{Profile, add_up};

impl Profile {
    /// Returns the profile as the change since a moment at which nothing was sampled yet.
    #[cfg(feature = "otlp-profiles")]
    pub(crate) fn since(&self, moment: SystemTime) -> Profile {
        let duration = self.time.duration_since(moment).unwrap_or_default();
        Profile { duration, ..self.clone() }
    }

    /// Returns the change since an earlier profile of the same kind: each value is this profile's less the earlier one's,
    /// so that values may be negative. Samples without any change are left out.
    ///
    /// ```no_run
    /// use opentelemetry_instrumentation_runtime::profile;
    ///
    /// let earlier = profile::threads();
    /// std::thread::sleep(std::time::Duration::from_secs(10));
    /// println!("{}", profile::threads().delta(&earlier).to_folded());
    /// ```
    #[must_use]
    pub fn delta(&self, earlier: &Profile) -> Profile {
        let mut samples = self.samples.clone();
        samples.extend(earlier.samples.iter().cloned().map(|mut sample| {
            for value in &mut sample.values {
                *value = value.saturating_neg();
            }
            sample
        }));
        let mut samples = add_up(samples);
        samples.retain(|sample| sample.values.iter().any(|value| *value != 0));
        let difference = |now: Option<u64>, before: Option<u64>| now?.checked_sub(before?);
        let mut delta = Profile {
            samples,
            duration: self.time.duration_since(earlier.time).unwrap_or_default(),
            // The samples in between have another error, which neither profile knows.
            standard_error: None,
            exact_total: difference(self.exact_total, earlier.exact_total),
            ..self.clone()
        };
        delta.sort();
        delta
    }
}

#[cfg(test)]
mod tests {
    use super::super::sampled::{Label, ProfileKind, Sample, SampleType};
    use super::*;

    fn profile(samples: &[(usize, i64)], exact: u64) -> Profile {
        let sample = |(address, value): &(usize, i64)| Sample {
            stack: [*address].into(),
            values: vec![*value],
            ..Sample::default()
        };
        let types = [SampleType::new("threads", "count")];
        let mut profile = Profile::new(ProfileKind::Threads, &types, samples.iter().map(sample).collect());
        profile.exact_total = Some(exact);
        profile
    }

    fn content(profile: &Profile) -> Vec<(usize, i64)> {
        profile.samples().iter().map(|sample| (sample.stack()[0], sample.values()[0])).collect()
    }

    #[test]
    fn equal_stacks_are_added_up_and_the_largest_comes_first() {
        assert_eq!(content(&profile(&[(1, 2), (2, 4), (1, 3)], 0)), [(1, 5), (2, 4)]);
    }

    #[test]
    fn a_place_whose_blocks_grow_is_the_same_place() {
        let with_size = |value, size| {
            let mut profile = profile(&[(1, value)], 0);
            profile.samples[0].labels.push(("bytes", Label::Number(size, "bytes")));
            profile
        };
        let delta = with_size(5, 100).delta(&with_size(2, 10));
        assert_eq!(content(&delta), [(1, 3)]);
        assert_eq!(delta.samples()[0].labels, [("bytes", Label::Number(100, "bytes"))]);
    }

    #[test]
    fn a_delta_has_new_grown_and_ended_stacks() {
        let delta = profile(&[(1, 5), (2, 7), (3, 1)], 13).delta(&profile(&[(2, 4), (3, 1), (4, 2)], 7));
        assert_eq!(content(&delta), [(1, 5), (2, 3), (4, -2)]);
        assert_eq!((delta.total(), delta.exact_total()), (6, Some(6)));
        assert!(delta.delta(&delta).samples().is_empty());
    }
}
