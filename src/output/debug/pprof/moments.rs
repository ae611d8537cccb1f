//! Keeps profiles that a viewer compares with later.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use crate::profile::Profile;
use crate::util::mutex::Mutex;

/// The most moments that are kept. A further one replaces the oldest.
const MAX_MOMENTS: usize = 4;

/// The moments that viewers have chosen.
#[derive(Default)]
pub(super) struct Moments(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    last: u64,
    moments: VecDeque<Moment>,
}

/// A profile that was taken at a moment that a viewer has chosen.
#[derive(Clone)]
pub(super) struct Moment {
    pub(super) id: u64,
    /// The name of its endpoint.
    pub(super) endpoint: &'static str,
    pub(super) profile: Arc<Profile>,
}

impl Moments {
    /// Keeps a profile, and returns the number by which it is found.
    pub(super) fn keep(&self, endpoint: &'static str, profile: Profile) -> u64 {
        let mut kept = self.0.lock();
        kept.last += 1;
        let id = kept.last;
        kept.moments.push_back(Moment { id, endpoint, profile: Arc::new(profile) });
        if kept.moments.len() > MAX_MOMENTS {
            kept.moments.pop_front();
        }
        id
    }

    pub(super) fn get(&self, endpoint: &str, id: u64) -> Option<Arc<Profile>> {
        let kept = self.0.lock();
        let found = kept.moments.iter().find(|moment| moment.id == id && moment.endpoint == endpoint);
        found.map(|moment| Arc::clone(&moment.profile))
    }

    /// Returns the moments of an endpoint and their times, the latest first.
    pub(super) fn of(&self, endpoint: &str) -> Vec<(u64, SystemTime)> {
        let kept = self.0.lock();
        let own = kept.moments.iter().rev().filter(|moment| moment.endpoint == endpoint);
        own.map(|moment| (moment.id, moment.profile.time())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_moments_are_kept_and_found_by_their_endpoint_only() {
        let moments = Moments::default();
        let ids: Vec<_> =
            (0..MAX_MOMENTS + 1).map(|_| moments.keep("tasks", crate::profile::tasks())).collect();
        assert!(moments.get("tasks", ids[0]).is_none(), "it was replaced");
        assert!(moments.get("tasks", ids[1]).is_some() && moments.get("heap", ids[1]).is_none());
        let listed: Vec<_> = moments.of("tasks").into_iter().map(|(id, _)| id).collect();
        assert!(listed.iter().rev().eq(&ids[1..]), "{listed:?}");
        assert!(moments.of("heap").is_empty());
    }
}
