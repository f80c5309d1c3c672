//! The parts of Contour's own API (`projectcontour.io`, v1.33) that Slipway reads or writes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Contour's API group.
pub const GROUP: &str = "projectcontour.io";

/// The CRDs without which Contour does not start (its informers; `cmd/contour/serve.go`, v1.33).
pub const REQUIRED_CRDS: [&str; 4] = [
    "contourconfigurations.projectcontour.io",
    "extensionservices.projectcontour.io",
    "httpproxies.projectcontour.io",
    "tlscertificatedelegations.projectcontour.io",
];

/// The most bytes of JSON that the spec of an ExtensionService may have to be copied. A stand-in carries a copy twice, in its spec and, as what
/// was proved last, in an annotation; all annotations of an object may have 256 KiB (`TotalAnnotationSizeLimitB`, apimachinery 0.34).
pub const LARGEST_SPEC: usize = 64 * 1024;

/// An ExtensionService: the user's, or a stand-in.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ExtensionService {
    /// Its metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Its spec, whole: a stand-in carries all of it, whatever fields the installed version has.
    #[serde(default)]
    pub spec: ExtensionServiceSpec,
    /// Contour's verdict.
    #[serde(default)]
    pub status: ExtensionServiceConditions,
}

/// The spec of an ExtensionService, as it is stored.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(transparent)]
pub struct ExtensionServiceSpec(pub Map<String, Value>);

/// One of the Services behind an ExtensionService.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceTarget {
    /// The Service's name; it is in the ExtensionService's namespace.
    pub name: String,
    /// The port's number.
    pub port: i64,
}

impl ExtensionServiceSpec {
    /// This one.
    pub fn of(spec: Option<&Map<String, Value>>) -> Self {
        Self(spec.cloned().unwrap_or_default())
    }

    /// `timeoutPolicy.response`, which Contour captures once, at container start.
    pub fn response_timeout(&self) -> Option<&str> {
        self.0.get("timeoutPolicy")?.get("response")?.as_str()
    }

    /// `validation.subjectName`, which Contour captures once, at container start.
    pub fn subject_name(&self) -> Option<&str> {
        self.0.get("validation")?.get("subjectName")?.as_str()
    }

    /// Whether it is too large to be copied. What is too large is kept without its fields, which no object on the API server lacks.
    pub fn is_too_large(&self) -> bool {
        self.0.is_empty() || serde_json::to_vec(&self.0).is_ok_and(|json| json.len() > LARGEST_SPEC)
    }

    /// The Services behind it.
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
    /// Contour writes one condition, `Valid`.
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
    /// The generation that was judged.
    #[serde(default)]
    pub observed_generation: i64,
    /// In words.
    #[serde(default)]
    pub message: String,
    /// What is wrong.
    #[serde(default)]
    pub errors: Vec<SubCondition>,
}

/// One error of a `DetailedCondition`.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct SubCondition {
    /// `ServiceUnresolvedReference`, for instance.
    #[serde(default)]
    pub reason: String,
    /// In words.
    #[serde(default)]
    pub message: String,
}

/// What Contour says of the present generation of an ExtensionService.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Nothing, or only something about an older generation.
    None,
    /// It is valid.
    Valid,
    /// It is not, because of this.
    Invalid(Vec<SubCondition>),
}

impl ExtensionService {
    /// Contour's verdict on the present generation.
    pub fn verdict(&self) -> Verdict {
        match self.valid() {
            Some(condition) if Some(condition.observed_generation) != self.metadata.generation => Verdict::None,
            Some(condition) if condition.status == "True" => Verdict::Valid,
            Some(condition) if condition.status == "False" => Verdict::Invalid(condition.errors.clone()),
            _ => Verdict::None,
        }
    }

    /// Whether the verdict on it is about another object, that had its name before: it is about a later generation than there is.
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
    fn a_verdict_is_about_the_present_generation_and_says_yes_or_no() {
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
