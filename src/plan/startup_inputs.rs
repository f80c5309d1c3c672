//! What a Contour container captures at its start, and who says so. Contour's pods and ReplicaSets are told apart by the
//! controller's uid: labels and annotations alone are anybody's word.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::names::{hash, hash_json};
use super::object::{Kind, NamespacedName, Object, Owner};
use super::observed::Observed;
use super::views::{TemplateMetadata, pod_phase, wanted_replicas};
use crate::api::vocabulary::{annotations, labels};
use crate::api::{Role, RuntimeSettings};

/// What a Contour container captures at its start, as it is written on the pod template. It is all that is needed to recreate the
/// ContourConfiguration, for as long as a container may read it, whatever the specification says by then.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StartupInputs {
    /// The ContourConfiguration's name.
    pub configuration: String,
    /// Which object of that name, in which form.
    #[serde(flatten)]
    pub identity: Identity,
    /// The uid of the ContourConfiguration in whose place this one was created, because that one hangs in its deletion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_place_of: Option<String>,
    /// The ContourConfiguration's spec.
    pub spec: Map<String, Value>,
    /// The stand-ins that it references, `namespace/name`.
    pub stand_ins: Vec<String>,
}

/// An object in one of its forms. The API server chooses both: nobody can make another object or another form look the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Identity {
    /// Another object of the same name has another.
    uid: String,
    /// It is raised by every change of the spec.
    pub generation: i64,
}

impl Identity {
    /// Of an object as it is now.
    pub fn of(object: &Object) -> Self {
        Self {
            uid: object.uid().to_owned(),
            generation: object.metadata.generation.unwrap_or_default(),
        }
    }
}

impl StartupInputs {
    /// What a Deployment's or a ReplicaSet's pod template says.
    pub fn of_template(object: &Object) -> Option<Self> {
        let template = TemplateMetadata::of(object);
        Self::parse(template.annotations.get(annotations::STARTUP_INPUTS)?)
    }

    /// What a pod's own annotation says. Whoever may write the pod may have changed it.
    pub fn of_pod(pod: &Object) -> Option<Self> {
        Self::parse(pod.annotation(annotations::STARTUP_INPUTS)?)
    }

    fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Whether this is what the configuration's name was made from. What stands on a pod may have been written by anybody, or by a
    /// Slipway of another version.
    pub fn is_intact(&self, owner: &Owner) -> bool {
        self.configuration == configuration_name(owner, &self.spec, self.in_place_of.as_deref())
    }

    /// Whether the ContourConfiguration is still the one that was captured.
    pub fn is_unchanged(&self, observed: &Observed) -> bool {
        self.live(observed)
            .is_some_and(|live| Identity::of(live) == self.identity)
    }

    /// The ContourConfiguration of this name.
    pub fn live<'a>(&self, observed: &'a Observed) -> Option<&'a Object> {
        let namespace = &observed.owner().namespace;
        observed.object(Kind::ContourConfiguration, namespace, &self.configuration)
    }

    /// The settings. What is captured was accepted, so that it is of their form.
    pub fn settings(&self) -> RuntimeSettings {
        serde_json::from_value(Value::Object(self.spec.clone())).unwrap_or_default()
    }

    /// The stand-ins, by namespace and name.
    pub fn stand_ins(&self) -> impl Iterator<Item = NamespacedName> {
        let pairs = self.stand_ins.iter().filter_map(|stand_in| stand_in.split_once('/'));
        pairs.map(|(namespace, name)| NamespacedName::new(namespace, name))
    }
}

/// Contour's workload in the ContourDeployment's namespace.
pub struct Contours<'a> {
    /// Its Deployment.
    pub deployment: Option<&'a Object>,
    /// The ReplicaSets that this Deployment controls.
    pub replica_sets: Vec<&'a Object>,
    /// The pods that these ReplicaSets control and that have not ended for good, each with its ReplicaSet. Terminating ones are among
    /// them: their containers may still be running, and may start again.
    pub pods: Vec<(&'a Object, &'a Object)>,
    /// ReplicaSets and pods that Contour's selector matches and that nothing of the above controls. They may be ours (the
    /// Deployment was deleted and its pods were left), or anybody's: nothing that they need is taken away, and nothing else is
    /// done on their word.
    pub strangers: Vec<&'a Object>,
}

impl<'a> Contours<'a> {
    /// Finds them among the objects of the ContourDeployment's namespace.
    pub fn of(observed: &'a Observed) -> Self {
        let owner = observed.owner();
        Self::among(&owner, observed.objects.values().map(AsRef::as_ref))
    }

    /// The same, among these objects; those of other namespaces do not count.
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

    /// The hash that the Deployment's pod template bears as a label.
    pub fn template(&self) -> Option<&'a str> {
        TemplateMetadata::of(self.deployment?).labels.remove(labels::TEMPLATE)
    }

    /// The pod templates whose word counts: that of the Deployment, and those of its ReplicaSets that have pods, or may make some.
    pub fn templates(&self) -> impl Iterator<Item = &'a Object> {
        let has_pods = |set: &&Object| self.pods.iter().any(|(_, of)| of.uid() == set.uid());
        let in_use = move |set: &&'a Object| wanted_replicas(set) != Some(0) || has_pods(set);
        self.deployment
            .into_iter()
            .chain(self.replica_sets.iter().copied().filter(in_use))
    }

    /// All pods that may run a Contour, strangers included.
    pub fn all_pods(&self) -> impl Iterator<Item = &'a Object> {
        let strangers = self.strangers.iter().copied().filter(|object| object.kind == Kind::Pod);
        self.pods.iter().map(|(pod, _)| *pod).chain(strangers)
    }

    /// All ReplicaSets that may make one, strangers included.
    pub fn all_replica_sets(&self) -> impl Iterator<Item = &'a Object> {
        let strangers = self.strangers.iter().copied();
        let strangers = strangers.filter(|object| object.kind == Kind::ReplicaSet);
        self.replica_sets.iter().copied().chain(strangers)
    }
}

/// Whether a pod has ended for good.
fn has_ended(pod: &Object) -> bool {
    matches!(pod_phase(pod).as_str(), "Succeeded" | "Failed")
}

/// The ExtensionServices that the spec of a ContourConfiguration references.
pub fn references(spec: &Map<String, Value>) -> Vec<NamespacedName> {
    Role::ALL
        .into_iter()
        .filter_map(|role| role.referenced(spec))
        .map(NamespacedName::from)
        .collect()
}

/// The name of a ContourConfiguration of this spec, which may stand in the place of another that hangs in its deletion.
pub fn configuration_name(owner: &Owner, spec: &Map<String, Value>, in_place_of: Option<&str>) -> String {
    let spec = hash_json(spec);
    let parts = [&owner.namespace, &owner.name, &spec].map(String::as_str);
    owner.configuration(&hash(parts.into_iter().chain(in_place_of)))
}
