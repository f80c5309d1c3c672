//! What the plan is made from. Everything that a decision depends on is in here, time and key material included.

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

/// One ContourDeployment and everything around it, at one moment.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The time.
    pub now: Timestamp,
    /// The ContourDeployment.
    pub deployment: Arc<ContourDeployment>,
    /// Where the operator runs: the subject of its own bindings.
    pub operator: ServiceAccountRef,
    /// Every object that carries the labels of this ContourDeployment: ours, and the pods and ReplicaSets made from ours. Others may
    /// carry them, too; the plan begins with sorting them out (`plan/ours.rs`).
    pub objects: BTreeMap<Key, Arc<Object>>,
    /// The namespaces that matter here (its own, and those it references); absent ones are not in the map.
    pub namespaces: BTreeMap<String, NamespacePhase>,
    /// Contour's CRDs that are not served.
    pub missing_crds: Vec<String>,
    /// What of the admission policies is absent or not as this version ships it, in words.
    pub admission_problems: Vec<String>,
    /// The referenced ExtensionServices, the users' own.
    pub extension_services: BTreeMap<NamespacedName, Arc<ExtensionService>>,
    /// Since when each of them has been seen in its present form; one that is not here: since its creation.
    pub unchanged_since: BTreeMap<NamespacedName, Timestamp>,
    /// The Services in the referenced namespaces.
    pub services: BTreeMap<NamespacedName, Arc<Object>>,
    /// The Services in the referenced namespaces that have at least one ready endpoint.
    pub ready_services: BTreeSet<NamespacedName>,
    /// Whether everything in the referenced namespaces has been read.
    pub references_synced: bool,
    /// Whether the Secrets of the ContourDeployment's namespace have been read; that needs access which is granted first.
    pub secrets_synced: bool,
    /// What the API server says of the settings, if it was asked.
    pub settings: SettingsVerdict,
    /// Certificates that were issued on the plan's demand.
    pub issued: Option<Issued>,
    /// What could not be done in this round.
    pub failures: Vec<Failure>,
    /// What came of our own last writes.
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

/// What the API server says of a ContourConfiguration with the user's settings (a strict dry run of its creation).
#[derive(Clone, Debug, Default, PartialEq)]
pub enum SettingsVerdict {
    /// Nobody asked.
    #[default]
    Unchecked,
    /// It takes them; this is the spec with the CRD's defaults filled in.
    Accepted {
        /// Hash of the settings that were checked.
        hash: String,
        /// With defaults.
        spec: Map<String, Value>,
    },
    /// It refuses them.
    Refused {
        /// Hash of the settings that were checked.
        hash: String,
        /// The API server's words, with the field's path.
        message: String,
    },
}

/// What the desired objects of a ContourDeployment are made from, beside what is decided.
#[derive(Clone, Debug)]
pub struct Instance<'a> {
    /// The ContourDeployment as an owner.
    pub owner: Owner,
    /// What its author wants.
    pub spec: &'a ContourDeploymentSpec,
    /// Where the operator runs.
    pub operator: &'a ServiceAccountRef,
}

impl Observed {
    /// The ContourDeployment, as the desired objects need it.
    pub fn instance(&self) -> Instance<'_> {
        Instance {
            owner: self.owner(),
            spec: &self.deployment.spec,
            operator: &self.operator,
        }
    }

    /// The ContourDeployment as an owner.
    pub fn owner(&self) -> Owner {
        Owner::of(&self.deployment.metadata)
    }

    /// One object of ours.
    pub fn object(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Object> {
        self.objects.get(&Key::new(kind, namespace, name)).map(AsRef::as_ref)
    }

    /// All objects of ours of one kind.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.objects
            .values()
            .map(AsRef::as_ref)
            .filter(move |object| object.kind == kind)
    }

    /// Whether a namespace exists, and how.
    pub fn namespace(&self, name: &str) -> Option<NamespacePhase> {
        self.namespaces.get(name).copied()
    }
}

/// Kubernetes stores times in whole seconds; anything finer would look like a change at each comparison.
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Whether anybody answers behind an EndpointSlice. An endpoint without a word on its readiness is ready
/// (discovery.k8s.io/v1, `EndpointConditions.ready`).
pub fn has_ready_endpoint(slice: &Object) -> bool {
    let endpoints = slice.at("/endpoints").and_then(Value::as_array);
    endpoints
        .into_iter()
        .flatten()
        .any(|endpoint| endpoint.pointer("/conditions/ready").and_then(Value::as_bool) != Some(false))
}
