//! `ContourDeployment.status`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::role::Role;

/// What Slipway saw and did.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ContourDeploymentStatus {
    /// The `metadata.generation` that this status is about; −1: not seen yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions, a map by type. Their meaning is documented on the constants in `vocabulary`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The referenced ExtensionServices, one entry for each role.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extension_services: Vec<ExtensionServiceStatus>,
    /// How many of them are available, `1/2` for instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension_services_available: Option<String>,
    /// Fields that somebody else decides: a mutating webhook, a policy, or a default of the API server's. Slipway takes them as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields_decided_by_others: Vec<OverruledFields>,
    /// Ready pods of Contour, `2/2` for instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contour: Option<String>,
    /// Ready pods of Envoy, `3/3` for instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envoy: Option<String>,
}

/// Fields of an object that somebody else decides.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OverruledFields {
    /// The object's kind.
    pub kind: String,
    /// Its namespace; absent for kinds without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// The fields' paths, `spec.template.spec.containers[contour].image` for instance.
    pub fields: Vec<String>,
}

/// A referenced ExtensionService.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ExtensionServiceStatus {
    /// What it is referenced for.
    pub role: Role,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What state it is in.
    pub state: ExtensionServiceState,
    /// Since when it is in that state.
    pub since: Time,
    /// What the specification asks for while the service can't be asked; absent for tracing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_open: Option<bool>,
    /// What happens to requests now, by what is rolled out (not by what the specification asks for).
    pub traffic: Traffic,
    /// The object that Contour's configuration references in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stand_in: Option<StandInRef>,
    /// Why it is not available, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Where a stand-in is.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StandInRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What state a referenced ExtensionService is in.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExtensionServiceState {
    /// It does not exist.
    Missing,
    /// It exists, and Slipway can't make its stand-in beside it: its namespace refuses that.
    Blocked,
    /// Contour has not judged it yet, or says nothing of its present form; the last valid one stays in use.
    Pending,
    /// Contour says that it is not valid, or its Service is missing.
    Invalid,
    /// It is valid and no endpoint of it is ready.
    NoEndpoints,
    /// It is valid and at least one endpoint of it is ready.
    Available,
}

impl ExtensionServiceState {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::Missing,
        Self::Blocked,
        Self::Pending,
        Self::Invalid,
        Self::NoEndpoints,
        Self::Available,
    ];
}

/// What happens to requests that the ExtensionService should see.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Traffic {
    /// The service is asked.
    Enforced,
    /// They pass, and nobody is asked.
    AllowedUnchecked,
    /// They are denied, and nobody is asked.
    Denied,
    /// They pass, and leave no trace (tracing only).
    NotSampled,
    /// Nobody can say: a pod runs a Contour, and what that has read is not known.
    Unknown,
}

impl Traffic {
    /// All of it.
    pub const ALL: [Self; 5] = [
        Self::Enforced,
        Self::AllowedUnchecked,
        Self::Denied,
        Self::NotSampled,
        Self::Unknown,
    ];
}
