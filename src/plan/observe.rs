//! Observes one ContourDeployment and its surroundings. The operator, `slipway render` and the tests all build [`Observed`] here. They
//! differ only in the source of the objects, which is a [`View`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::attempts::Attempts;
use super::object::{Key, Kind, NamespacedName, Object, Owner};
use super::observed::{NamespacePhase, Observed, ServiceAccountRef, SettingsVerdict};
use super::{ownership, stand_in};
use crate::api::ContourDeployment;

/// A source of objects: the operator's cache, documents, or a simulated API server.
///
/// A lookup with names also declares an interest: the operator watches the objects that it has looked up.
pub trait View {
    /// Returns every object with the labels of a ContourDeployment.
    fn owned(&self, deployment: &NamespacedName) -> BTreeMap<Key, Arc<Object>>;

    /// Returns the ExtensionServices of a namespace that have the labels of no ContourDeployment. The result may lack those without
    /// Slipway's finalizer.
    fn unlabelled_extension_services(&mut self, namespace: &str) -> Vec<Arc<Object>>;

    /// Returns the ExtensionServices with these names, each with the time since which it has been observed in its current generation.
    fn extension_services(
        &mut self,
        namespace: &str,
        names: &BTreeSet<String>,
    ) -> Vec<(Arc<Object>, Option<Timestamp>)>;

    /// Returns the Services with these names, each with whether it has a ready endpoint.
    fn services(&mut self, namespace: &str, names: &BTreeSet<String>) -> Vec<(Arc<Object>, bool)>;

    /// Returns the phase of a namespace, or None if the namespace does not exist.
    fn namespace(&self, name: &str) -> Option<NamespacePhase>;
}

/// The inputs of a plan that do not come from objects around the ContourDeployment.
pub struct Facts {
    /// The current time.
    pub now: Timestamp,
    /// The ServiceAccount of the operator.
    pub operator: ServiceAccountRef,
    /// Contour's CRDs that the API server does not serve.
    pub missing_crds: Vec<String>,
    /// The differences between the admission policies in the cluster and those that this version ships, each as a message.
    pub admission_problems: Vec<String>,
    /// The API server's verdict on the settings.
    pub settings: SettingsVerdict,
    /// The results of Slipway's own last writes.
    pub attempts: Arc<Attempts>,
}

/// Observes a ContourDeployment. The result assumes that all objects have been read.
pub fn observe(view: &mut impl View, deployment: Arc<ContourDeployment>, facts: Facts) -> Observed {
    let owner = Owner::of(&deployment.metadata);
    let settings = &deployment.spec.runtime_settings;
    let mut objects = view.owned(&NamespacedName::new(&owner.namespace, &owner.name));
    let places = ownership::namespaces(&owner, settings, objects.values().map(AsRef::as_ref));
    // A stand-in that lost its labels while the operator was down is identified by its name.
    for place in &places {
        let unlabelled = view.unlabelled_extension_services(place).into_iter();
        let stand_ins = unlabelled.filter(|object| stand_in::bears_our_name(&owner, object));
        objects.extend(stand_ins.map(|object| (object.key(), object)));
    }
    let ours = || ownership::of(&owner, settings, &objects);
    let targets = stand_in::targets(settings, ours());
    let (mut extension_services, mut unchanged_since) = (BTreeMap::new(), BTreeMap::new());
    for place in &places {
        for (object, since) in view.extension_services(place, &names_in(place, &targets)) {
            unchanged_since.extend(since.map(|since| (object.id(), since)));
            // An object that can't be decoded counts as absent. The API server's schema admits none.
            if let Ok(service) = object.parse() {
                extension_services.insert(object.id(), Arc::new(service));
            }
        }
    }
    let referenced: BTreeSet<&String> = targets.iter().map(|target| &target.namespace).collect();
    let named = stand_in::services(&extension_services, ours());
    let (mut services, mut ready_services) = (BTreeMap::new(), BTreeSet::new());
    for namespace in &referenced {
        for (service, is_ready) in view.services(namespace, &names_in(namespace, &named)) {
            ready_services.extend(is_ready.then(|| service.id()));
            services.insert(service.id(), service);
        }
    }
    let around = referenced.into_iter().chain([&owner.namespace]);
    let namespaces = around.filter_map(|name| Some((name.clone(), view.namespace(name)?)));
    Observed {
        now: facts.now,
        operator: facts.operator,
        namespaces: namespaces.collect(),
        missing_crds: facts.missing_crds,
        admission_problems: facts.admission_problems,
        extension_services,
        unchanged_since,
        services,
        ready_services,
        references_synced: true,
        secrets_synced: true,
        settings: facts.settings,
        issued: None,
        failures: Vec::new(),
        attempts: facts.attempts,
        objects,
        deployment,
    }
}

/// Returns the names of these objects that are in one namespace.
fn names_in(namespace: &str, of: &BTreeSet<NamespacedName>) -> BTreeSet<String> {
    let here = of.iter().filter(|id| id.namespace == namespace);
    here.map(|id| id.name.clone()).collect()
}

/// Returns the phase of a Namespace.
pub fn phase(namespace: &Object) -> NamespacePhase {
    debug_assert_eq!(namespace.kind, Kind::Namespace);
    if namespace.is_terminating() {
        NamespacePhase::Terminating
    } else {
        NamespacePhase::Active
    }
}
