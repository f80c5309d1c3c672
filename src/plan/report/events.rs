//! The Events for changes since the last status.

use super::services::reason_of;
use crate::api::vocabulary::conditions as types;
use crate::api::{ContourDeployment, ContourDeploymentStatus, ExtensionServiceState};
use crate::plan::waves::{Event, Severity};

/// Returns the Events for the changes since the last status.
pub fn events(deployment: &ContourDeployment, status: &ContourDeploymentStatus) -> Vec<Event> {
    let before = deployment.status.as_ref();
    let was = |type_: &str| {
        before
            .into_iter()
            .flat_map(|status| &status.conditions)
            .find(|condition| condition.type_ == type_)
    };
    let mut events = Vec::new();
    for condition in &status.conditions {
        let good = condition.status == "True";
        let severity = match condition.type_.as_str() {
            types::READY | types::RECONCILING if good => Severity::Normal,
            types::STALLED if good => Severity::Warning,
            types::CONFIGURATION_VALID if condition.status == "False" => Severity::Warning,
            _ => continue,
        };
        let same = was(&condition.type_)
            .is_some_and(|last| last.status == condition.status && last.reason == condition.reason);
        let event = Event {
            severity,
            reason: condition.reason.clone(),
            note: condition.message.clone(),
        };
        // Two conditions may have the same reason and message.
        if !same && !events.contains(&event) {
            events.push(event);
        }
    }
    for service in &status.extension_services {
        let last = before
            .into_iter()
            .flat_map(|status| &status.extension_services)
            .find(|last| last.role == service.role);
        if last.is_none_or(|last| {
            (last.state, &last.namespace, &last.name) != (service.state, &service.namespace, &service.name)
        }) {
            let available = service.state == ExtensionServiceState::Available;
            let severity = if available { Severity::Normal } else { Severity::Warning };
            let note = service
                .message
                .clone()
                .unwrap_or_else(|| format!("ExtensionService {}/{} is available", service.namespace, service.name));
            events.push(Event {
                severity,
                reason: reason_of(service.state).to_owned(),
                note,
            });
        }
    }
    events
}
