//! The rules for conditions: one condition of each type, `observedGeneration` always set, `lastTransitionTime` changed only with `status`,
//! and never both Reconciling and Stalled (kstatus).

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::api::ContourDeployment;
use crate::api::vocabulary::conditions as types;
use crate::plan::observed::whole_seconds;

/// The maximum length of a message in characters. The API allows 32 KiB, but a message should fit on a screen.
const LONGEST_MESSAGE: usize = 1024;

/// The order of the conditions, with the summary first.
const ORDER: [&str; 10] = [
    types::READY,
    types::DEGRADED,
    types::RECONCILING,
    types::STALLED,
    types::EXTENSION_SERVICES_AVAILABLE,
    types::CONTOUR_AVAILABLE,
    types::ENVOY_AVAILABLE,
    types::CONFIGURATION_VALID,
    types::CONTOUR_VERSION_SUPPORTED,
    types::ADMISSION_POLICIES_INSTALLED,
];

/// The conditions that are being collected.
pub struct Conditions<'a> {
    deployment: &'a ContourDeployment,
    time: Timestamp,
    now: Vec<Condition>,
}

impl<'a> Conditions<'a> {
    /// Creates an empty collection.
    pub fn of(deployment: &'a ContourDeployment, time: Timestamp) -> Self {
        Self {
            deployment,
            time,
            now: Vec::new(),
        }
    }

    /// Sets a condition to True or False.
    pub fn set(&mut self, type_: &'static str, status: bool, reason: &str, message: &str) {
        self.put(type_, if status { "True" } else { "False" }, reason, message);
    }

    /// Sets a condition to Unknown.
    pub fn unknown(&mut self, type_: &'static str, reason: &str, message: &str) {
        self.put(type_, "Unknown", reason, message);
    }

    /// Returns the time for which a change has been in progress.
    pub fn reconciles_for(&self) -> Duration {
        let since = self
            .last(types::RECONCILING)
            .map_or(self.time, |condition| condition.last_transition_time.0);
        Duration::try_from(self.time.duration_since(since)).unwrap_or_default()
    }

    /// Reports whether the last status was Stalled for this reason.
    pub fn was_stalled(&self, reason: &str) -> bool {
        self.last(types::STALLED)
            .is_some_and(|condition| condition.reason == reason)
    }

    /// Returns the conditions in order. A condition that was not set keeps its last value, or is Unknown. So every known type exists from
    /// the first reconciliation on.
    pub fn finish(mut self) -> Vec<Condition> {
        for type_ in ORDER {
            if matches!(type_, types::RECONCILING | types::STALLED)
                || self.now.iter().any(|condition| condition.type_ == type_)
            {
                continue;
            }
            match self.last(type_).cloned() {
                Some(mut last) => {
                    last.observed_generation = self.deployment.metadata.generation;
                    self.now.push(last);
                }
                None => self.unknown(type_, "Unknown", "Slipway has not determined this condition yet"),
            }
        }
        self.now
            .sort_by_key(|condition| ORDER.iter().position(|type_| *type_ == condition.type_));
        self.now
    }

    fn last(&self, type_: &str) -> Option<&'a Condition> {
        let status = self.deployment.status.as_ref()?;
        status.conditions.iter().find(|condition| condition.type_ == type_)
    }

    fn put(&mut self, type_: &'static str, status: &str, reason: &str, message: &str) {
        let last = self.last(type_).filter(|last| last.status == status);
        let condition = Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: shortened(message),
            observed_generation: self.deployment.metadata.generation,
            last_transition_time: last.map_or_else(
                || Time(whole_seconds(self.time)),
                |last| last.last_transition_time.clone(),
            ),
        };
        self.now.retain(|other| other.type_ != type_);
        self.now.push(condition);
    }
}

fn shortened(message: &str) -> String {
    match message.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}
