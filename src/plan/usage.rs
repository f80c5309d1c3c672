//! What is in use: the ContourConfigurations and stand-ins that a Contour container has captured, or may capture when it
//! starts again. They are never pruned.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::configuration::is_intact;
use super::object::{Kind, Object, Owner};
use super::observed::{NamespacedName, Observed};
use crate::api::vocabulary::{annotations, labels};

/// What a Contour container captures at its start, as it is written on the pod template. It is all that is needed to make the
/// ContourConfiguration again, for as long as a container may read it, whatever the specification says by then.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Captured {
    /// The ContourConfiguration's name.
    pub configuration: String,
    /// The annotation `SETTINGS` of the ContourConfiguration.
    pub settings: String,
    /// How many ContourConfigurations it succeeds that somebody altered.
    #[serde(skip_serializing_if = "is_zero")]
    pub salt: u32,
    /// The ContourConfiguration's spec.
    pub spec: Map<String, Value>,
    /// The stand-ins that it references, `namespace/name`.
    pub stand_ins: Vec<String>,
}

/// What is in use.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// ContourConfigurations, by name.
    pub configurations: BTreeMap<String, Captured>,
    /// Stand-ins; their blackholes bear the same names.
    pub stand_ins: BTreeSet<NamespacedName>,
    /// The Deployment controller or a ReplicaSet controller has not caught up: pods may come that nobody can see yet, so
    /// that nothing may go.
    pub uncertain: bool,
}

impl Usage {
    /// What the Deployment's template, its ReplicaSets with replicas and its pods have captured.
    pub fn of(observed: &Observed) -> Self {
        let mut usage = Self::default();
        let owner = observed.owner();
        let contour = owner.contour();
        let deployments = observed
            .of_kind(Kind::Deployment)
            .filter(|object| object.name() == contour);
        let replica_sets = observed.of_kind(Kind::ReplicaSet).filter(|object| is_contour(object));
        for object in deployments.chain(replica_sets) {
            usage.uncertain |= !has_caught_up(object);
            let may_start_pods =
                object.kind == Kind::Deployment || object.at("/spec/replicas").and_then(Value::as_i64) != Some(0);
            if may_start_pods {
                usage.add(&owner, object.at("/spec/template/metadata/annotations"));
            }
        }
        for pod in contour_pods(observed) {
            usage.add(&owner, serde_json::to_value(&pod.metadata.annotations).ok().as_ref());
        }
        // A configuration that is in use tells by itself what it references, should a pod's annotation have been changed.
        for configuration in observed.of_kind(Kind::ContourConfiguration) {
            if usage.configurations.contains_key(configuration.name()) {
                usage.stand_ins.extend(references(configuration));
            }
        }
        usage
    }

    /// Whether an object is one that a container may read, or what such a one needs.
    pub fn holds(&self, observed: &Observed, object: &Object) -> bool {
        match object.kind {
            Kind::ContourConfiguration => self.uncertain || self.configurations.contains_key(object.name()),
            Kind::ExtensionService => {
                let id = (object.namespace().to_owned(), object.name().to_owned());
                self.uncertain || self.stand_ins.contains(&id)
            }
            // A blackhole stays as long as a stand-in of its name exists.
            Kind::Service if object.has_our_finalizer() => observed
                .object(Kind::ExtensionService, object.namespace(), object.name())
                .is_some(),
            _ => false,
        }
    }

    /// Adds what the plan names.
    pub fn add_captured(&mut self, captured: &Captured) {
        self.configurations
            .insert(captured.configuration.clone(), captured.clone());
        let pairs = captured
            .stand_ins
            .iter()
            .filter_map(|stand_in| stand_in.split_once('/'));
        self.stand_ins
            .extend(pairs.map(|(namespace, name)| (namespace.to_owned(), name.to_owned())));
    }

    /// Adds what somebody says that a container has captured. It is in use in any case; what is in it counts only if its name
    /// bears it out.
    fn add(&mut self, owner: &Owner, annotations: Option<&Value>) {
        let Some(captured) = captured(annotations) else { return };
        let known = self.configurations.get(&captured.configuration).cloned();
        self.add_captured(&captured);
        if let Some(known) = known.filter(|known| is_intact(owner, known)) {
            self.configurations.insert(known.configuration.clone(), known);
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's form
fn is_zero(salt: &u32) -> bool {
    *salt == 0
}

/// The annotation on a pod, or on a pod template.
pub fn captured(annotations: Option<&Value>) -> Option<Captured> {
    serde_json::from_str(annotations?.get(annotations::CAPTURED)?.as_str()?).ok()
}

/// Contour's pods, Terminating ones included: their containers may still be running, and may start again. Pods that have
/// ended for good do not count.
pub fn contour_pods(observed: &Observed) -> impl Iterator<Item = &Object> {
    observed.of_kind(Kind::Pod).filter(|pod| is_contour(pod)).filter(|pod| {
        !matches!(
            pod.at("/status/phase").and_then(Value::as_str),
            Some("Succeeded" | "Failed")
        )
    })
}

/// The ExtensionServices that a ContourConfiguration references.
pub fn references(configuration: &Object) -> Vec<NamespacedName> {
    [
        "/spec/globalExtAuth/extensionRef",
        "/spec/rateLimitService/extensionService",
        "/spec/tracing/extensionService",
    ]
    .into_iter()
    .filter_map(|pointer| {
        let reference = configuration.at(pointer)?;
        let text = |key: &str| Some(reference.get(key)?.as_str()?.to_owned());
        Some((text("namespace")?, text("name")?))
    })
    .collect()
}

/// Whether a pod or a ReplicaSet is of Contour's Deployment.
pub fn is_contour(object: &Object) -> bool {
    object.label(labels::COMPONENT) == Some("contour")
}

fn has_caught_up(object: &Object) -> bool {
    let observed = object.at("/status/observedGeneration").and_then(Value::as_i64);
    observed.is_some() && observed >= object.metadata.generation
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::api::vocabulary::FINALIZER;
    use crate::plan::operand::tests;

    #[test]
    fn what_a_container_may_read_is_held_and_a_blackhole_as_long_as_there_is_a_stand_in_of_its_name() {
        let object = |kind, name: &str| {
            let metadata = json!({"namespace": "auth", "name": name, "finalizers": [FINALIZER]});
            Object::from_json(kind, json!({"metadata": metadata})).expect("an object")
        };
        let mut observed = tests::observed(&json!({}));
        let stand_in = object(Kind::ExtensionService, "used");
        observed.objects.insert(stand_in.key(), Arc::new(stand_in.clone()));
        let mut usage = Usage::default();
        usage.add_captured(&Captured {
            configuration: "used".to_owned(),
            stand_ins: vec!["auth/used".to_owned()],
            ..Captured::default()
        });
        for (kind, name, held, held_if_uncertain) in [
            (Kind::ContourConfiguration, "used", true, true),
            (Kind::ContourConfiguration, "other", false, true),
            (Kind::ExtensionService, "used", true, true),
            (Kind::ExtensionService, "other", false, true),
            (Kind::Service, "used", true, true),
            (Kind::Service, "other", false, false),
            (Kind::Deployment, "used", false, false),
        ] {
            for (uncertain, expected) in [(false, held), (true, held_if_uncertain)] {
                usage.uncertain = uncertain;
                let found = usage.holds(&observed, &object(kind, name));
                assert_eq!(found, expected, "{kind} {name}, uncertain: {uncertain}");
            }
        }
        let mut of_the_user = object(Kind::Service, "used");
        of_the_user.metadata.finalizers = None;
        assert!(!usage.holds(&observed, &of_the_user));
        let mut elsewhere = stand_in;
        elsewhere.metadata.namespace = Some("auth2".to_owned());
        usage.uncertain = false;
        assert!(!usage.holds(&observed, &elsewhere));
    }
}
