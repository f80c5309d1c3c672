//! The status of each referenced ExtensionService.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::vocabulary::reasons;
use crate::api::{ExtensionServiceState, ExtensionServiceStatus, StandInRef};
use crate::plan::assess::{AssessedRole, Assessment};
use crate::plan::object::NamespacedName;
use crate::plan::observed::whole_seconds;
use crate::plan::traffic;

/// Returns the entries of the status.
pub fn extension_services(assessment: &Assessment<'_>, roles: &[AssessedRole]) -> Vec<ExtensionServiceStatus> {
    let before = assessment.deployment.status.as_ref();
    let describe = |role: &AssessedRole| {
        let AssessedRole { seen: role, traffic } = role;
        let NamespacedName { namespace, name } = role.reference.target.clone();
        let last = before.into_iter().flat_map(|status| &status.extension_services);
        let since = last
            .filter(|last| last.role == role.reference.role && (&last.namespace, &last.name) == (&namespace, &name))
            .find(|last| last.state == role.state)
            .map_or_else(|| Time(whole_seconds(assessment.now)), |last| last.since.clone());
        let message = role
            .message
            .as_ref()
            .map(|message| match traffic::consequence(&role.reference, *traffic) {
                Some(consequence) => format!("{message}: {consequence}"),
                None => message.clone(),
            });
        let stand_in = role
            .stand_in
            .clone()
            .map(|NamespacedName { namespace, name }| StandInRef { namespace, name });
        ExtensionServiceStatus {
            role: role.reference.role,
            namespace,
            name,
            state: role.state,
            since,
            fail_open: role.reference.fail_open,
            traffic: *traffic,
            stand_in,
            message,
        }
    };
    roles.iter().map(describe).collect()
}

/// Returns how many ExtensionServices are available, for example `1/2`.
pub fn available(services: &[ExtensionServiceStatus]) -> String {
    let available = services
        .iter()
        .filter(|service| service.state == ExtensionServiceState::Available);
    format!("{}/{}", available.count(), services.len())
}

/// Returns the reason for a state.
pub fn reason_of(state: ExtensionServiceState) -> &'static str {
    match state {
        ExtensionServiceState::Missing => reasons::EXTENSION_SERVICE_MISSING,
        ExtensionServiceState::Blocked => reasons::EXTENSION_SERVICE_BLOCKED,
        ExtensionServiceState::Pending => reasons::EXTENSION_SERVICE_PENDING,
        ExtensionServiceState::Invalid => reasons::EXTENSION_SERVICE_INVALID,
        ExtensionServiceState::NoEndpoints => reasons::EXTENSION_SERVICE_NO_ENDPOINTS,
        ExtensionServiceState::Available => reasons::EXTENSION_SERVICE_AVAILABLE,
    }
}

/// Returns the reason of the first of these services and the messages of all of them. Returns None if there are none.
pub fn summary<'a>(services: impl Iterator<Item = &'a ExtensionServiceStatus>) -> Option<(&'static str, String)> {
    let mut services = services.peekable();
    let reason = reason_of(services.peek()?.state);
    let messages: BTreeSet<_> = services.filter_map(|service| service.message.clone()).collect();
    Some((reason, messages.into_iter().collect::<Vec<_>>().join("; ")))
}
