//! The profiles that are exported next, as changes since those that were delivered.

use std::time::SystemTime;

use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::profiles::v1development::{ResourceProfiles, ScopeProfiles};
use opentelemetry_sdk::Resource;

use crate::profile::{self, Encoder, Profile};

/// The profiles of memory and stalls, each as a change since the last one that was delivered.
pub(crate) struct Taken {
    resource: ResourceProfiles,
    changes: [Changes; 2],
    encoder: Encoder,
    has_begun: bool,
}

/// One kind of profile. A change that is not delivered is part of the next one.
struct Changes {
    take: fn() -> Profile,
    /// `None` before the first delivery.
    delivered: Option<Profile>,
    /// The one under way.
    pending: Option<Profile>,
    since: SystemTime,
}

impl Taken {
    pub(crate) fn new(resource: &Resource) -> Self {
        let resource = ResourceProfiles {
            resource: Some(resource.into()),
            scope_profiles: Vec::new(),
            schema_url: resource.schema_url().unwrap_or_default().to_owned(),
        };
        let changes = [profile::heap as fn() -> Profile, profile::stalls].map(Changes::new);
        Taken { resource, changes, encoder: Encoder::default(), has_begun: false }
    }

    /// Takes what is due and returns the message. `None` if it would be empty.
    ///
    /// At the end there are changes only if there were some before: a process that is over before the first profile is
    /// due does not wait for one.
    pub(crate) fn message(
        &mut self,
        cpu: Option<Profile>,
        are_changes_due: bool,
        is_last: bool,
    ) -> Option<ExportProfilesServiceRequest> {
        for changes in &mut self.changes {
            changes.pending = None;
        }
        let mut profiles = Vec::from_iter(cpu);
        if are_changes_due && (self.has_begun || !is_last) {
            self.has_begun = true;
            profiles.extend(self.changes.iter_mut().map(Changes::take));
        }
        let (profiles, dictionary) = self.encoder.encode(&profiles);
        if profiles.is_empty() {
            // Nothing has changed since.
            self.delivered();
            return None;
        }
        let scope = InstrumentationScope {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            ..InstrumentationScope::default()
        };
        let scope = ScopeProfiles { scope: Some(scope), profiles, schema_url: String::new() };
        let resource = ResourceProfiles { scope_profiles: vec![scope], ..self.resource.clone() };
        Some(ExportProfilesServiceRequest { resource_profiles: vec![resource], dictionary: Some(dictionary) })
    }

    /// The last message has arrived: the next changes begin with it.
    pub(crate) fn delivered(&mut self) {
        for changes in &mut self.changes {
            if let Some(pending) = changes.pending.take() {
                changes.delivered = Some(pending);
            }
        }
    }
}

impl Changes {
    fn new(take: fn() -> Profile) -> Self {
        Changes { take, delivered: None, pending: None, since: SystemTime::now() }
    }

    fn take(&mut self) -> Profile {
        let now = (self.take)();
        let change = match &self.delivered {
            Some(delivered) => now.delta(delivered),
            None => now.since(self.since),
        };
        self.pending = Some(now);
        change
    }
}
