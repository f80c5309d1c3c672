//! `ContourDeployment.status`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::role::Role;

/// The observed state of a ContourDeployment.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ContourDeploymentStatus {
    /// The `metadata.generation` that Slipway observed when it computed this status. −1 in a new object that Slipway has not observed
    /// yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The conditions, at most one of each type. The section Conditions of the reference page describes the types.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The state of each referenced ExtensionService, one entry for each role. Absent if the spec references none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extension_services: Vec<ExtensionServiceStatus>,
    /// The number of available ExtensionServices and the number of referenced ones, for example `1/2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension_services_available: Option<String>,
    /// Fields of Slipway's objects whose values another party decides: a mutating webhook, a policy, or a default of the API server.
    /// Slipway accepts these values. Absent if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields_decided_by_others: Vec<OverruledFields>,
    /// The number of ready Contour pods and the number of desired ones, for example `2/2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contour: Option<String>,
    /// The number of ready Envoy pods and the number of desired ones, for example `3/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envoy: Option<String>,
}

/// Fields of one object whose values another party decides.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OverruledFields {
    /// The kind of the object.
    pub kind: String,
    /// The namespace of the object. Absent for cluster-scoped kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The name of the object.
    pub name: String,
    /// The paths of the fields, for example `spec.template.spec.containers[contour].image`.
    pub fields: Vec<String>,
}

/// The state of a referenced ExtensionService.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ExtensionServiceStatus {
    /// The purpose of the reference.
    pub role: Role,
    /// The namespace of the ExtensionService.
    pub namespace: String,
    /// The name of the ExtensionService.
    pub name: String,
    /// The state of the ExtensionService. `Missing`: it does not exist. `Blocked`: it exists, and its namespace refuses the stand-in beside
    /// it. `Pending`: Contour has not judged it, or not its current spec. `Invalid`: Contour finds it invalid, its Service is missing, or
    /// Slipway can't copy it. `NoEndpoints`: it is valid and has no ready endpoint. `Available`: it is valid and has a ready endpoint.
    pub state: ExtensionServiceState,
    /// The time of the last change of `state`.
    pub since: Time,
    /// The value of `failOpen` in the spec. Absent for tracing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_open: Option<bool>,
    /// The current effect on requests, according to the configuration that is rolled out, which may differ from the spec. `Enforced`: Envoy
    /// asks the service. `AllowedUnchecked`: requests pass, and the service is not asked. `Denied`: requests are denied, and the service is
    /// not asked. `NotSampled`: requests pass and are not traced (tracing only). `Unknown`: a pod runs a Contour with an unknown
    /// configuration.
    pub traffic: Traffic,
    /// The stand-in that Contour's configuration references in place of the ExtensionService. Absent while there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stand_in: Option<StandInRef>,
    /// A human-readable explanation of why the ExtensionService is not available. Absent if it is available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A reference to a stand-in.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StandInRef {
    /// The namespace of the stand-in.
    pub namespace: String,
    /// The name of the stand-in.
    pub name: String,
}

/// The state of a referenced ExtensionService.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExtensionServiceState {
    /// The ExtensionService does not exist.
    Missing,
    /// The ExtensionService exists, and Slipway can't create the stand-in beside it because the namespace refuses the stand-in.
    Blocked,
    /// Contour has no verdict on the ExtensionService, or none on its current spec. The last valid spec stays in use.
    Pending,
    /// Contour finds the ExtensionService invalid, its Service is missing, or Slipway can't copy it.
    Invalid,
    /// The ExtensionService is valid and has no ready endpoint.
    NoEndpoints,
    /// The ExtensionService is valid and has at least one ready endpoint.
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

/// The effect on requests for which Envoy should ask the ExtensionService.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Traffic {
    /// Envoy asks the service.
    Enforced,
    /// Requests pass, and the service is not asked.
    AllowedUnchecked,
    /// Requests are denied, and the service is not asked.
    Denied,
    /// Requests pass and are not traced (tracing only).
    NotSampled,
    /// The effect is unknown: a pod runs a Contour, and the configuration that this Contour has read is not known.
    Unknown,
}

impl Traffic {
    /// Every effect.
    pub const ALL: [Self; 5] = [
        Self::Enforced,
        Self::AllowedUnchecked,
        Self::Denied,
        Self::NotSampled,
        Self::Unknown,
    ];
}
