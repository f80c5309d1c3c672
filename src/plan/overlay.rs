//! Overlays: partial pod templates and Services of the user, merged over those that Slipway builds.
//!
//! The merged object is checked, not the overlay. `rules` lists what an overlay may change, and every other field must be as Slipway built it.
//! So a field that a later version of Kubernetes adds is Slipway's until a rule says otherwise.

mod check;
mod mounts;
mod rules;
mod typos;

use k8s_openapi::DeepMerge;
use k8s_openapi::api::core::v1::{PodTemplateSpec, Service};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use self::rules::Rule;

/// The field with the overlay of Contour's pod template.
pub const CONTOUR: &str = "spec.contour.podTemplate";

/// The field with the overlay of Envoy's pod template.
pub const ENVOY: &str = "spec.envoy.podTemplate";

/// The field with the overlay of the Service in front of the Envoys.
pub const SERVICE: &str = "spec.envoy.networkPublishing.service";

/// An object with the user's overlay.
#[derive(Clone, Debug)]
pub struct Overlaid<T> {
    /// The merged object. If there are problems, the object without the overlay.
    pub object: T,
    /// One message for each violation, with the path of the field.
    pub problems: Vec<String>,
}

/// Merges an overlay over Contour's pod template.
pub fn contour(base: PodTemplateSpec, overlay: Option<&Map<String, Value>>) -> Overlaid<PodTemplateSpec> {
    overlaid(base, overlay, CONTOUR, &rules::CONTOUR)
}

/// Merges an overlay over Envoy's pod template.
pub fn envoy(base: PodTemplateSpec, overlay: Option<&Map<String, Value>>) -> Overlaid<PodTemplateSpec> {
    overlaid(base, overlay, ENVOY, &rules::ENVOY)
}

/// Merges an overlay over the Service in front of the Envoys.
pub fn service(base: Service, overlay: Option<&Map<String, Value>>) -> Overlaid<Service> {
    overlaid(base, overlay, SERVICE, &rules::SERVICE)
}

fn overlaid<T>(base: T, overlay: Option<&Map<String, Value>>, field: &str, rule: &Rule) -> Overlaid<T>
where
    T: Clone + DeepMerge + DeserializeOwned + Serialize,
{
    let problems = Vec::new();
    let Some(overlay) = overlay.filter(|overlay| !overlay.is_empty()) else {
        return Overlaid { object: base, problems };
    };
    match merged(&base, overlay, field, rule) {
        Ok(object) => Overlaid { object, problems },
        Err(problems) => Overlaid { object: base, problems },
    }
}

/// Returns the merged object, or one message for each violation.
fn merged<T>(base: &T, overlay: &Map<String, Value>, field: &str, rule: &Rule) -> Result<T, Vec<String>>
where
    T: Clone + DeepMerge + DeserializeOwned + Serialize,
{
    let partial: T = typos::read(overlay, field)?;
    let mut merged = base.clone();
    merged.merge_from(partial);
    let problems = check::check(rule, &json(base), &json(&merged), field);
    if problems.is_empty() { Ok(merged) } else { Err(problems) }
}

fn json(object: &impl Serialize) -> Value {
    serde_json::to_value(object).expect("an object is JSON")
}

#[cfg(test)]
mod tests;
