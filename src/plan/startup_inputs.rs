//! The startup inputs of a Contour container, and their sources. The uid of the controller identifies Contour's pods and ReplicaSets,
//! because everyone can write labels and annotations.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::names::{hash, hash_json};
use super::object::{Kind, NamespacedName, Object, Owner};
use super::observed::Observed;
use super::views::{TemplateMetadata, pod_phase, wanted_replicas};
use crate::api::vocabulary::{annotations, labels};
use crate::api::{Role, RuntimeSettings};

/// The startup inputs of a Contour container, as the pod template contains them. The inputs are sufficient to recreate the
/// ContourConfiguration for as long as a container may read it, whatever the current spec is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StartupInputs {
    /// The name of the ContourConfiguration.
    pub configuration: String,
    /// The identity of the ContourConfiguration of that name.
    #[serde(flatten)]
    pub identity: Identity,
    /// The uid of the ContourConfiguration that this one replaces, because that one is stuck in its deletion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_place_of: Option<String>,
    /// The spec of the ContourConfiguration.
    pub spec: Map<String, Value>,
    /// The stand-ins that the spec references, as `namespace/name`.
    pub stand_ins: Vec<String>,
}

/// An object in one of its forms. The API server chooses both values, so no other object and no other form of the object can have them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Identity {
    /// The uid, which another object of the same name does not have.
    uid: String,
    /// The generation, which every change of the spec increments.
    pub generation: i64,
}

impl Identity {
    /// Returns the current identity of an object.
    pub fn of(object: &Object) -> Self {
        Self {
            uid: object.uid().to_owned(),
            generation: object.metadata.generation.unwrap_or_default(),
        }
    }
}

impl StartupInputs {
    /// Returns the inputs in the pod template of a Deployment or a ReplicaSet.
    pub fn of_template(object: &Object) -> Option<Self> {
        let template = TemplateMetadata::of(object);
        Self::parse(template.annotations.get(annotations::STARTUP_INPUTS)?)
    }

    /// Returns the inputs in a pod's own annotation. Everyone with write access to the pod can change the annotation.
    pub fn of_pod(pod: &Object) -> Option<Self> {
        Self::parse(pod.annotation(annotations::STARTUP_INPUTS)?)
    }

    fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Reports whether the name of the configuration was computed from these inputs. Another user, or a Slipway of another version, may
    /// have written the annotation of a pod.
    pub fn is_intact(&self, owner: &Owner) -> bool {
        self.configuration == configuration_name(owner, &self.spec, self.in_place_of.as_deref())
    }

    /// Reports whether the ContourConfiguration still has the identity in these inputs.
    pub fn is_unchanged(&self, observed: &Observed) -> bool {
        self.live(observed)
            .is_some_and(|live| Identity::of(live) == self.identity)
    }

    /// Returns the existing ContourConfiguration of this name.
    pub fn live<'a>(&self, observed: &'a Observed) -> Option<&'a Object> {
        let namespace = &observed.owner().namespace;
        observed.object(Kind::ContourConfiguration, namespace, &self.configuration)
    }

    /// Returns the settings. Startup inputs were accepted, so they have the form of settings.
    pub fn settings(&self) -> RuntimeSettings {
        serde_json::from_value(Value::Object(self.spec.clone())).unwrap_or_default()
    }

    /// Returns the namespaces and names of the stand-ins.
    pub fn stand_ins(&self) -> impl Iterator<Item = NamespacedName> {
        let pairs = self.stand_ins.iter().filter_map(|stand_in| stand_in.split_once('/'));
        pairs.map(|(namespace, name)| NamespacedName::new(namespace, name))
    }
}

/// Contour's workload in the namespace of the ContourDeployment.
pub struct Contours<'a> {
    /// Contour's Deployment.
    pub deployment: Option<&'a Object>,
    /// The ReplicaSets that this Deployment controls.
    pub replica_sets: Vec<&'a Object>,
    /// The pods that these ReplicaSets control and that have not ended, each with its ReplicaSet. Terminating pods are included, because
    /// their containers may still run and may start again.
    pub pods: Vec<(&'a Object, &'a Object)>,
    /// ReplicaSets and pods that match Contour's selector and that none of the objects above controls. Slipway may have created them (the
    /// Deployment was deleted and its pods were left), or another user. Slipway deletes nothing that they need, and takes no other action
    /// on their behalf.
    pub strangers: Vec<&'a Object>,
}

impl<'a> Contours<'a> {
    /// Finds Contour's workload among the observed objects.
    pub fn of(observed: &'a Observed) -> Self {
        let owner = observed.owner();
        Self::among(&owner, observed.objects.values().map(AsRef::as_ref))
    }

    /// Finds Contour's workload among these objects. Objects of other namespaces do not count.
    pub fn among(owner: &Owner, objects: impl Iterator<Item = &'a Object> + Clone) -> Self {
        let at_home = objects.filter(|object| object.namespace() == owner.namespace && owner.owns(object));
        let deployment = at_home
            .clone()
            .find(|object| object.kind == Kind::Deployment && object.name() == owner.contour());
        let (mut replica_sets, mut pods, mut strangers) = (Vec::new(), Vec::new(), Vec::new());
        let of_contour = at_home.filter(|object| object.label(labels::COMPONENT) == Some("contour"));
        for set in of_contour.clone().filter(|object| object.kind == Kind::ReplicaSet) {
            if deployment.is_some_and(|deployment| set.is_controlled_by(deployment)) {
                replica_sets.push(set);
            } else {
                strangers.push(set);
            }
        }
        for pod in of_contour.filter(|object| object.kind == Kind::Pod && !has_ended(object)) {
            match replica_sets.iter().find(|set| pod.is_controlled_by(set)) {
                Some(set) => pods.push((pod, *set)),
                None => strangers.push(pod),
            }
        }
        Self {
            deployment,
            replica_sets,
            pods,
            strangers,
        }
    }

    /// Returns the hash in the template label of the Deployment's pod template.
    pub fn template(&self) -> Option<&'a str> {
        TemplateMetadata::of(self.deployment?).labels.remove(labels::TEMPLATE)
    }

    /// Returns the trusted pod templates: those of the Deployment and of its ReplicaSets that have pods or may create pods.
    pub fn templates(&self) -> impl Iterator<Item = &'a Object> {
        let has_pods = |set: &&Object| self.pods.iter().any(|(_, of)| of.uid() == set.uid());
        let in_use = move |set: &&'a Object| wanted_replicas(set) != Some(0) || has_pods(set);
        self.deployment
            .into_iter()
            .chain(self.replica_sets.iter().copied().filter(in_use))
    }

    /// Returns all pods that may run a Contour, strangers included.
    pub fn all_pods(&self) -> impl Iterator<Item = &'a Object> {
        let strangers = self.strangers.iter().copied().filter(|object| object.kind == Kind::Pod);
        self.pods.iter().map(|(pod, _)| *pod).chain(strangers)
    }

    /// Returns all ReplicaSets that may create such a pod, strangers included.
    pub fn all_replica_sets(&self) -> impl Iterator<Item = &'a Object> {
        let strangers = self.strangers.iter().copied();
        let strangers = strangers.filter(|object| object.kind == Kind::ReplicaSet);
        self.replica_sets.iter().copied().chain(strangers)
    }
}

/// Reports whether a pod has ended and will not run again.
fn has_ended(pod: &Object) -> bool {
    matches!(pod_phase(pod).as_str(), "Succeeded" | "Failed")
}

/// Returns the ExtensionServices that the spec of a ContourConfiguration references.
pub fn references(spec: &Map<String, Value>) -> Vec<NamespacedName> {
    Role::ALL
        .into_iter()
        .filter_map(|role| role.referenced(spec))
        .map(NamespacedName::from)
        .collect()
}

/// Returns the name of a ContourConfiguration with this spec. `in_place_of` is the uid of another one that is stuck in its deletion, if
/// there is one.
pub fn configuration_name(owner: &Owner, spec: &Map<String, Value>, in_place_of: Option<&str>) -> String {
    let spec = hash_json(spec);
    let parts = [&owner.namespace, &owner.name, &spec].map(String::as_str);
    owner.configuration(&hash(parts.into_iter().chain(in_place_of)))
}
