//! The input of the plan. [`Observed`] contains everything that a decision depends on, including the time and key material.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::attempts::Attempts;
use super::failure::Failure;
use super::issuing::Issued;
use super::object::{Key, Kind, NamespacedName, Object, Owner};
use crate::api::contour::ExtensionService;
use crate::api::{ContourDeployment, ContourDeploymentSpec};
use crate::contour::version::Version;

/// One ContourDeployment and its surroundings, at one moment.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The current time.
    pub now: Timestamp,
    /// The ContourDeployment.
    pub deployment: Arc<ContourDeployment>,
    /// The ServiceAccount of the operator, which is the subject of the operator's own bindings.
    pub operator: ServiceAccountRef,
    /// Every object with the labels of this ContourDeployment: Slipway's objects, and the pods and ReplicaSets that controllers create from
    /// them. Objects of other users may carry the labels, too. The plan starts with filtering them out (`plan/ownership.rs`).
    pub objects: BTreeMap<Key, Arc<Object>>,
    /// The phases of the relevant namespaces: the ContourDeployment's own namespace and the referenced ones, which contain
    /// `extension_services` or would contain them. Absent namespaces are not in the map.
    pub namespaces: BTreeMap<String, NamespacePhase>,
    /// Contour's CRDs that the API server does not serve.
    pub missing_crds: Vec<String>,
    /// The differences between the admission policies in the cluster and those that this version ships, each as a message.
    pub admission_problems: Vec<String>,
    /// The users' referenced ExtensionServices.
    pub extension_services: BTreeMap<NamespacedName, Arc<ExtensionService>>,
    /// The time since which each ExtensionService has been observed in its current generation. For an absent entry, the time is the
    /// creation time.
    pub unchanged_since: BTreeMap<NamespacedName, Timestamp>,
    /// The Services in the referenced namespaces that a referenced ExtensionService or a stand-in names. Blackholes are in `objects`.
    pub services: BTreeMap<NamespacedName, Arc<Object>>,
    /// The Services of the same names that have at least one ready endpoint.
    pub ready_services: BTreeSet<NamespacedName>,
    /// Whether all objects in the referenced namespaces have been read.
    pub references_synced: bool,
    /// Whether the Secrets of the ContourDeployment's namespace have been read. Reading requires access that is granted first.
    pub secrets_synced: bool,
    /// The API server's verdict on the settings, if a verdict was requested.
    pub settings: SettingsVerdict,
    /// Certificates that were issued at the plan's request.
    pub issued: Option<Issued>,
    /// The failures of this round.
    pub failures: Vec<Failure>,
    /// The results of Slipway's own last writes.
    pub attempts: Arc<Attempts>,
}

/// A ServiceAccount.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ServiceAccountRef {
    pub namespace: String,
    pub name: String,
}

/// Whether a namespace that exists is being deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum NamespacePhase {
    Active,
    Terminating,
}

impl NamespacePhase {
    /// Returns the phase of this namespace.
    pub fn of(namespace: &Object) -> Self {
        if namespace.is_terminating() {
            Self::Terminating
        } else {
            Self::Active
        }
    }
}

/// The API server's verdict on a ContourConfiguration with the user's settings (a strict dry run of its creation).
#[derive(Clone, Debug, Default, PartialEq)]
pub enum SettingsVerdict {
    /// No verdict was requested.
    #[default]
    Unchecked,
    /// The API server accepts the settings. The spec has the defaults of the CRD.
    Accepted {
        /// Hash of the settings that were checked.
        hash: String,
        /// The spec with the defaults.
        spec: Map<String, Value>,
    },
    /// The API server rejects the settings.
    Refused {
        /// Hash of the settings that were checked.
        hash: String,
        /// The API server's message, with the path of the field.
        message: String,
    },
}

/// The inputs of the desired objects, apart from decisions.
#[derive(Clone, Debug)]
pub struct Instance<'a> {
    /// The ContourDeployment as an owner.
    pub owner: Owner,
    /// The spec of the ContourDeployment.
    pub spec: &'a ContourDeploymentSpec,
    /// The ServiceAccount of the operator.
    pub operator: &'a ServiceAccountRef,
}

impl Instance<'_> {
    /// Returns the version of Contour whose rules apply.
    pub fn version(&self) -> Version {
        Version::for_image(self.spec.contour.image.as_deref())
    }
}

impl Observed {
    /// Returns the inputs of the desired objects.
    pub fn instance(&self) -> Instance<'_> {
        Instance {
            owner: self.owner(),
            spec: &self.deployment.spec,
            operator: &self.operator,
        }
    }

    /// Returns the ContourDeployment as an owner.
    pub fn owner(&self) -> Owner {
        Owner::of(&self.deployment.metadata)
    }

    /// Returns the version of Contour whose rules apply.
    pub fn version(&self) -> Version {
        Version::for_image(self.deployment.spec.contour.image.as_deref())
    }

    /// Returns one of the observed objects.
    pub fn object(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Object> {
        self.objects.get(&Key::new(kind, namespace, name)).map(AsRef::as_ref)
    }

    /// Returns all observed objects of one kind.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.objects
            .values()
            .map(AsRef::as_ref)
            .filter(move |object| object.kind == kind)
    }

    /// Returns the phase of a namespace, or None if the namespace does not exist.
    pub fn namespace(&self, name: &str) -> Option<NamespacePhase> {
        self.namespaces.get(name).copied()
    }
}

/// Truncates a time to whole seconds, as Kubernetes stores times. A finer time would look like a change at each comparison.
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Reports whether an EndpointSlice has a ready endpoint. An endpoint without `conditions.ready` is ready (discovery.k8s.io/v1,
/// `EndpointConditions.ready`).
pub fn has_ready_endpoint(slice: &Object) -> bool {
    let endpoints = slice.at("/endpoints").and_then(Value::as_array);
    endpoints
        .into_iter()
        .flatten()
        .any(|endpoint| endpoint.pointer("/conditions/ready").and_then(Value::as_bool) != Some(false))
}
