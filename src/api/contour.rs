//! The parts of Contour's own API (`projectcontour.io`, v1.33) that Slipway reads or writes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Contour's API group.
pub const GROUP: &str = "projectcontour.io";

/// The CRDs that Contour needs to start, because it runs informers for them (`cmd/contour/serve.go`, v1.33).
pub const REQUIRED_CRDS: [&str; 4] = [
    "contourconfigurations.projectcontour.io",
    "extensionservices.projectcontour.io",
    "httpproxies.projectcontour.io",
    "tlscertificatedelegations.projectcontour.io",
];

/// The largest spec of an ExtensionService that Slipway copies, in bytes of JSON. A stand-in carries the copy twice: in its spec and, as
/// the last proven form, in an annotation. Kubernetes limits all annotations of an object to 256 KiB (`TotalAnnotationSizeLimitB`,
/// apimachinery 0.34).
pub const LARGEST_SPEC: usize = 64 * 1024;

/// An ExtensionService: a user's object or a stand-in.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ExtensionService {
    /// The metadata of the object.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// The complete spec. A stand-in copies all fields of it, including fields that the installed version adds.
    #[serde(default)]
    pub spec: ExtensionServiceSpec,
    /// The status, which holds Contour's verdict.
    #[serde(default)]
    pub status: ExtensionServiceConditions,
}

/// The spec of an ExtensionService, as the API server stores it.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(transparent)]
pub struct ExtensionServiceSpec(pub Map<String, Value>);

/// A Service that an ExtensionService references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceTarget {
    /// The name of the Service. The Service is in the namespace of the ExtensionService.
    pub name: String,
    /// The port number of the Service.
    pub port: i64,
}

impl ExtensionServiceSpec {
    /// Returns a copy of `spec`, or an empty spec if it is absent.
    pub fn of(spec: Option<&Map<String, Value>>) -> Self {
        Self(spec.cloned().unwrap_or_default())
    }

    /// Returns `timeoutPolicy.response`, which Contour captures once, at container start.
    pub fn response_timeout(&self) -> Option<&str> {
        self.0.get("timeoutPolicy")?.get("response")?.as_str()
    }

    /// Returns `validation.subjectName`, which Contour captures once, at container start.
    pub fn subject_name(&self) -> Option<&str> {
        self.0.get("validation")?.get("subjectName")?.as_str()
    }

    /// Reports whether the spec is too large to be copied. The store keeps an oversized spec as an empty one; no spec on the API server is
    /// empty.
    pub fn is_too_large(&self) -> bool {
        self.0.is_empty() || serde_json::to_vec(&self.0).is_ok_and(|json| json.len() > LARGEST_SPEC)
    }

    /// Returns the Services that the spec references.
    pub fn services(&self) -> Vec<ServiceTarget> {
        let services = self.0.get("services").and_then(Value::as_array);
        services
            .into_iter()
            .flatten()
            .filter_map(|service| {
                Some(ServiceTarget {
                    name: service.get("name")?.as_str()?.to_owned(),
                    port: service.get("port")?.as_i64()?,
                })
            })
            .collect()
    }
}

/// The status of an ExtensionService.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct ExtensionServiceConditions {
    /// The conditions. Contour writes one condition, `Valid`.
    #[serde(default)]
    pub conditions: Vec<DetailedCondition>,
}

/// Contour's `DetailedCondition`.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DetailedCondition {
    /// The condition's type.
    #[serde(rename = "type", default)]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    #[serde(default)]
    pub status: String,
    /// The generation of the object that Contour judged.
    #[serde(default)]
    pub observed_generation: i64,
    /// A human-readable summary.
    #[serde(default)]
    pub message: String,
    /// The errors that Contour found.
    #[serde(default)]
    pub errors: Vec<SubCondition>,
}

/// One error of a `DetailedCondition`.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct SubCondition {
    /// The machine-readable reason, for example `ServiceUnresolvedReference`.
    #[serde(default)]
    pub reason: String,
    /// A human-readable description.
    #[serde(default)]
    pub message: String,
}

/// Contour's verdict on the current generation of an ExtensionService.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Contour has written no verdict, or one on another generation.
    None,
    /// The ExtensionService is valid.
    Valid,
    /// The ExtensionService is invalid, with these errors.
    Invalid(Vec<SubCondition>),
}

impl ExtensionService {
    /// Returns Contour's verdict on the current generation.
    pub fn verdict(&self) -> Verdict {
        match self.valid() {
            Some(condition) if Some(condition.observed_generation) != self.metadata.generation => Verdict::None,
            Some(condition) if condition.status == "True" => Verdict::Valid,
            Some(condition) if condition.status == "False" => Verdict::Invalid(condition.errors.clone()),
            _ => Verdict::None,
        }
    }

    /// Reports whether the verdict is about a deleted object that had the same name. In that case the verdict names a later generation than
    /// the object has.
    pub fn has_the_verdict_on_another(&self) -> bool {
        self.valid()
            .is_some_and(|condition| Some(condition.observed_generation) > self.metadata.generation)
    }

    fn valid(&self) -> Option<&DetailedCondition> {
        let mut conditions = self.status.conditions.iter();
        conditions.find(|condition| condition.type_ == "Valid")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn verdict_counts_only_for_the_current_generation() {
        for (status, observed, says) in [
            ("True", 2, "Valid"),
            ("False", 2, "Invalid([])"),
            ("Unknown", 2, "None"),
            ("True", 1, "None"),
            ("False", 1, "None"),
            ("True", 3, "None"),
        ] {
            let condition = json!({"type": "Valid", "status": status, "observedGeneration": observed});
            let object: ExtensionService = serde_json::from_value(json!({
                "metadata": {"name": "auth", "generation": 2},
                "spec": {},
                "status": {"conditions": [condition]},
            }))
            .expect("an ExtensionService");
            assert_eq!(format!("{:?}", object.verdict()), says, "{status} about {observed}");
            assert_eq!(
                object.has_the_verdict_on_another(),
                observed > 2,
                "{status} about {observed}"
            );
        }
    }
}
