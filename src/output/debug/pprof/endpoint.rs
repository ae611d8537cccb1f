//! The list of profiles, and how each is taken.

use std::time::Duration;

use axum::http::StatusCode;

use super::request::DEFAULT_CPU;
use super::work::Client;
use crate::profile::{self, Error, Profile};

/// The profiles, in the order of the index.
pub(super) static ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        name: "heap",
        alias: None,
        title: "Memory in use",
        about: "which code holds memory, by sampled allocations; needs a heap profile that runs",
        take: Take::Now(profile::heap),
    },
    Endpoint {
        name: "allocs",
        alias: None,
        title: "Memory allocated",
        about: "which code has allocated memory since the heap profile was started",
        take: Take::Now(profile::allocs),
    },
    Endpoint {
        name: "stalls",
        alias: Some("block"),
        title: "Stalls",
        about: "what Tokio's workers did while they were stalled, by time",
        take: Take::Now(profile::stalls),
    },
    Endpoint {
        name: "tasks",
        alias: Some("goroutine"),
        title: "Tasks",
        about: "the tasks that live, by name",
        take: Take::Now(profile::tasks),
    },
    Endpoint {
        name: "threads",
        alias: None,
        title: "Threads",
        about: "the stack of every thread at present",
        take: Take::Now(profile::threads),
    },
    Endpoint {
        name: "profile",
        alias: None,
        title: "CPU time",
        about: "which code uses CPU time, for 30 seconds or those of the parameter; one at a time",
        take: Take::Cpu,
    },
];

pub(super) struct Endpoint {
    pub(super) name: &'static str,
    /// The name of the same profile in Go.
    pub(super) alias: Option<&'static str>,
    /// The title of its page.
    pub(super) title: &'static str,
    pub(super) about: &'static str,
    pub(super) take: Take,
}

pub(super) enum Take {
    /// Takes the profile of this moment; with `seconds`, the change in that time.
    Now(fn() -> Profile),
    /// Takes a profile of the CPU time from now on.
    Cpu,
}

impl Endpoint {
    /// Takes the profile.
    ///
    /// # Errors
    /// The reason why there is none.
    pub(super) fn take(&self, seconds: Option<Duration>, client: &Client) -> Result<Profile, Error> {
        let profile = match (&self.take, seconds) {
            (Take::Now(take), None) => take(),
            (Take::Now(take), Some(seconds)) => {
                let earlier = take();
                if is_empty_by_error(&earlier) || !client.wait(seconds) {
                    earlier
                } else {
                    take().delta(&earlier)
                }
            }
            (Take::Cpu, seconds) => {
                profile::cpu_while(seconds.unwrap_or(DEFAULT_CPU), |pause| client.wait(pause))?
            }
        };
        match profile.error() {
            Some(error) if is_empty_by_error(&profile) => Err(error.clone()),
            _ => Ok(profile),
        }
    }
}

fn is_empty_by_error(profile: &Profile) -> bool {
    profile.error().is_some() && profile.samples().is_empty()
}

/// Returns the status of an answer that has no profile.
pub(super) fn status(error: &Error) -> StatusCode {
    match error {
        Error::AlreadyRunning => StatusCode::CONFLICT,
        Error::InvalidDuration => StatusCode::BAD_REQUEST,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}
