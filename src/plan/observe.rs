//! The construction of an [`Observed`] from objects. The operator, the offline rendering and the tests share it. They differ in the
//! [`View`] that finds the objects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::attempts::Attempts;
use super::object::{Key, Kind, NamespacedName, Object, Owner};
use super::observed::{NamespacePhase, Observed, ServiceAccountRef, SettingsVerdict, has_ready_endpoint};
use super::{ownership, stand_in};
use crate::api::ContourDeployment;
use crate::api::vocabulary::labels;

/// The source of the objects of an observation: the operator's cache, documents, or a simulated API server. [`Observed::of`] calls
/// [`View::environment`] after all other methods, so a view can record what was looked up.
pub trait View {
    /// Returns the objects with the labels of this owner, and the objects that the view attributes to this owner for another reason.
    fn objects(&mut self, owner: &Owner) -> BTreeMap<Key, Arc<Object>>;

    /// Returns the ExtensionServices of a namespace that lack one of Slipway's labels. ExtensionServices without Slipway's finalizer may be
    /// left out.
    fn unlabelled(&mut self, namespace: &str) -> Vec<Arc<Object>>;

    /// Returns an ExtensionService of a user, and the time since which its generation is the current one, if that time is known.
    fn extension_service(&mut self, id: &NamespacedName) -> Option<(Arc<Object>, Option<Timestamp>)>;

    /// Returns the Services of a namespace that have one of these names.
    fn services(&mut self, namespace: &str, names: &BTreeSet<String>) -> Vec<Arc<Object>>;

    /// Returns those of these names whose Service has a ready endpoint.
    fn ready_services(&mut self, namespace: &str, names: &BTreeSet<String>) -> BTreeSet<String>;

    /// Returns the phase of a namespace, or None if the namespace does not exist.
    fn namespace(&mut self, name: &str) -> Option<NamespacePhase>;

    /// Returns the facts that are not objects.
    fn environment(&mut self) -> Environment;
}

/// The facts of an observation that are not objects. The fields of [`Observed`] with the same names document them.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Environment {
    pub now: Timestamp,
    pub operator: ServiceAccountRef,
    pub missing_crds: Vec<String>,
    pub admission_problems: Vec<String>,
    pub references_synced: bool,
    pub secrets_synced: bool,
    pub settings: SettingsVerdict,
    pub attempts: Arc<Attempts>,
}

impl Environment {
    /// Returns the environment of an operator that has just started, has read everything, and has the shipped ServiceAccount.
    pub fn at(now: Timestamp) -> Self {
        Self {
            now,
            operator: ServiceAccountRef {
                namespace: "slipway-system".to_owned(),
                name: "slipway".to_owned(),
            },
            missing_crds: Vec::new(),
            admission_problems: Vec::new(),
            references_synced: true,
            secrets_synced: true,
            settings: SettingsVerdict::Unchecked,
            attempts: Arc::default(),
        }
    }
}

impl Observed {
    /// Observes a ContourDeployment.
    pub fn of(view: &mut impl View, deployment: ContourDeployment) -> Self {
        let owner = Owner::of(&deployment.metadata);
        let settings = &deployment.spec.runtime_settings;
        let mut objects = view.objects(&owner);
        for namespace in ownership::namespaces(&owner, settings, objects.values().map(AsRef::as_ref)) {
            // The name identifies a stand-in that lost its labels while no operator was running.
            let unlabelled = view.unlabelled(&namespace).into_iter();
            let stand_ins = unlabelled.filter(|object| stand_in::bears_our_name(&owner, object));
            objects.extend(stand_ins.map(|object| (object.key(), object)));
        }
        let ours: Vec<&Object> = ownership::of(&owner, settings, &objects).collect();
        let targets = stand_in::targets(settings, ours.iter().copied());
        let mut extension_services = BTreeMap::new();
        let mut unchanged_since = BTreeMap::new();
        for target in &targets {
            let Some((object, since)) = view.extension_service(target) else {
                continue;
            };
            unchanged_since.extend(since.map(|since| (target.clone(), since)));
            // An ExtensionService that cannot be decoded counts as absent. The schema of the API server rejects such objects.
            if let Ok(service) = object.parse() {
                extension_services.insert(target.clone(), Arc::new(service));
            }
        }
        let relevant = stand_in::services(&extension_services, ours.into_iter());
        let referenced: BTreeSet<&String> = targets.iter().map(|target| &target.namespace).collect();
        let mut services = BTreeMap::new();
        let mut ready_services = BTreeSet::new();
        for namespace in &referenced {
            let here = relevant.iter().filter(|service| service.namespace == **namespace);
            let names: BTreeSet<String> = here.map(|service| service.name.clone()).collect();
            let found = view.services(namespace, &names).into_iter();
            services.extend(found.map(|service| (service.id(), service)));
            let ready = view.ready_services(namespace, &names).into_iter();
            ready_services.extend(ready.map(|name| NamespacedName::new(*namespace, name)));
        }
        let namespaces = referenced.into_iter().chain([&owner.namespace]);
        let namespaces = namespaces
            .filter_map(|name| Some((name.clone(), view.namespace(name)?)))
            .collect();
        let environment = view.environment();
        Self {
            now: environment.now,
            deployment: Arc::new(deployment),
            operator: environment.operator,
            objects,
            namespaces,
            missing_crds: environment.missing_crds,
            admission_problems: environment.admission_problems,
            extension_services,
            unchanged_since,
            services,
            ready_services,
            references_synced: environment.references_synced,
            secrets_synced: environment.secrets_synced,
            settings: environment.settings,
            issued: None,
            failures: Vec::new(),
            attempts: environment.attempts,
        }
    }
}

/// Decodes a ContourDeployment. A status that cannot be decoded is left out, because another version of Slipway wrote it and this version
/// replaces it.
pub fn decode_deployment(object: &Object) -> Result<ContourDeployment, serde_json::Error> {
    object.parse().or_else(|_| {
        let mut bare = object.clone();
        bare.content.remove("status");
        bare.parse()
    })
}

/// A view of objects in memory: of documents, or of a simulated API server.
///
/// The view attributes to an owner all objects with the owner's marks, also those that lack a label. The operator's cache learns of such
/// objects when the API server answers that an object already exists.
#[derive(Debug)]
pub struct Snapshot<'a> {
    /// All objects.
    pub objects: &'a BTreeMap<Key, Object>,
    /// The time since which each object has its current generation. Objects may be missing here.
    pub unchanged_since: &'a BTreeMap<Key, Timestamp>,
    /// The facts that are not objects.
    pub environment: Environment,
}

impl Snapshot<'_> {
    fn of_kind(&self, kind: Kind, namespace: &str) -> impl Iterator<Item = &Object> {
        let objects = self.objects.values();
        objects.filter(move |object| object.kind == kind && object.namespace() == namespace)
    }
}

impl View for Snapshot<'_> {
    fn objects(&mut self, owner: &Owner) -> BTreeMap<Key, Arc<Object>> {
        let marked = |(key, object): &(&Key, &Object)| key.kind.is_observed_by_label() && owner.owns(object);
        let objects = self.objects.iter().filter(marked);
        objects
            .map(|(key, object)| (key.clone(), Arc::new(object.clone())))
            .collect()
    }

    fn unlabelled(&mut self, namespace: &str) -> Vec<Arc<Object>> {
        let extension_services = self.of_kind(Kind::ExtensionService, namespace);
        let lacks_label = |object: &&Object| {
            let labels = [labels::OWNER_NAMESPACE, labels::OWNER_NAME];
            labels.iter().any(|label| object.label(label).is_none())
        };
        extension_services.filter(lacks_label).cloned().map(Arc::new).collect()
    }

    fn extension_service(&mut self, id: &NamespacedName) -> Option<(Arc<Object>, Option<Timestamp>)> {
        let key = Key::new(Kind::ExtensionService, &id.namespace, &id.name);
        let object = self.objects.get(&key)?;
        Some((Arc::new(object.clone()), self.unchanged_since.get(&key).copied()))
    }

    fn services(&mut self, namespace: &str, names: &BTreeSet<String>) -> Vec<Arc<Object>> {
        let services = self.of_kind(Kind::Service, namespace);
        let services = services.filter(|service| names.contains(service.name()));
        services.cloned().map(Arc::new).collect()
    }

    fn ready_services(&mut self, namespace: &str, names: &BTreeSet<String>) -> BTreeSet<String> {
        let slices = self.of_kind(Kind::EndpointSlice, namespace);
        let ready = slices.filter(|slice| has_ready_endpoint(slice));
        let services = ready.filter_map(|slice| slice.label("kubernetes.io/service-name"));
        services
            .filter(|name| names.contains(*name))
            .map(str::to_owned)
            .collect()
    }

    fn namespace(&mut self, name: &str) -> Option<NamespacePhase> {
        let namespace = self.objects.get(&Key::new(Kind::Namespace, "", name))?;
        Some(NamespacePhase::of(namespace))
    }

    fn environment(&mut self) -> Environment {
        self.environment.clone()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_undecodable_status_is_dropped_and_such_a_spec_is_not() {
        let object = |replicas: Value, state: &str| {
            let service = json!({
                "role": "Tracing", "namespace": "a", "name": "b", "since": "2026-11-30T00:00:00Z", "traffic": "Enforced", "state": state,
            });
            let json = json!({
                "metadata": {"namespace": "a", "name": "edge"},
                "spec": {"contour": {"deployment": {"replicas": replicas}}},
                "status": {"observedGeneration": 1, "extensionServices": [service]},
            });
            Object::from_json(Kind::ContourDeployment, json).expect("an object")
        };
        let whole = decode_deployment(&object(1.into(), "Missing")).expect("this version wrote the object");
        assert_eq!(whole.status.expect("a status").observed_generation, Some(1));
        let bare = decode_deployment(&object(1.into(), "Sulking")).expect("this version can decode the spec");
        assert_eq!((bare.spec, bare.status), (whole.spec, None));
        let error =
            decode_deployment(&object("two".into(), "Sulking")).expect_err("this version cannot decode the spec");
        assert!(error.to_string().contains("two"), "{error}");
    }

    #[test]
    fn an_observation_contains_only_labelled_and_referenced_objects() {
        let labels = json!({labels::OWNER_NAMESPACE: "home", labels::OWNER_NAME: "edge"});
        let mut objects = BTreeMap::new();
        let mut add = |kind: Kind, namespace: &str, name: &str, mut value: Value| {
            value["metadata"]["namespace"] = namespace.into();
            value["metadata"]["name"] = name.into();
            let object = Object::from_json(kind, value).expect("an object");
            objects.insert(object.key(), object);
        };
        for namespace in ["home", "auth", "other"] {
            add(Kind::Namespace, "", namespace, json!({"metadata": {"labels": labels}}));
            let spec = json!({"services": [{"name": "one", "port": 9}]});
            add(Kind::ExtensionService, namespace, "user", json!({"spec": spec}));
            for name in ["one", "two"] {
                add(Kind::Service, namespace, name, json!({}));
                let labels = json!({"kubernetes.io/service-name": name, labels::OWNER_NAMESPACE: "home", labels::OWNER_NAME: "edge"});
                let slice = json!({"metadata": {"labels": labels}, "endpoints": [{}]});
                add(Kind::EndpointSlice, namespace, name, slice);
            }
        }
        add(Kind::Pod, "home", "ours", json!({"metadata": {"labels": labels}}));
        add(Kind::Pod, "home", "theirs", json!({}));
        add(Kind::ExtensionService, "auth", "bare", json!({}));
        add(
            Kind::ExtensionService,
            "auth",
            "ours",
            json!({"metadata": {"labels": labels}}),
        );
        let now = Timestamp::UNIX_EPOCH;
        let key = Key::new(Kind::ExtensionService, "auth", "user");
        let mut snapshot = Snapshot {
            objects: &objects,
            unchanged_since: &BTreeMap::from([(key, now)]),
            environment: Environment::at(now),
        };
        let deployment = json!({
            "metadata": {"namespace": "home", "name": "edge"},
            "spec": {"runtimeSettings": {"globalExtAuth": {"extensionRef": {"namespace": "auth", "name": "user"}}}},
        });
        let deployment = Object::from_json(Kind::ContourDeployment, deployment).expect("an object");
        let deployment = decode_deployment(&deployment).expect("a ContourDeployment");
        let observed = Observed::of(&mut snapshot, deployment);
        let [user, one] = ["user", "one"].map(|name| NamespacedName::new("auth", name));
        let ours = [
            Key::new(Kind::ExtensionService, "auth", "ours"),
            Key::new(Kind::Pod, "home", "ours"),
        ];
        assert_eq!(observed.objects.into_keys().collect::<Vec<_>>(), ours);
        assert!(observed.extension_services.into_keys().eq([user.clone()]));
        assert_eq!(observed.unchanged_since, [(user, now)].into());
        assert!(observed.services.into_keys().eq([one.clone()]));
        assert_eq!(observed.ready_services, [one].into());
        assert_eq!(observed.namespaces.into_keys().collect::<Vec<_>>(), ["auth", "home"]);
        let unlabelled = snapshot.unlabelled("auth");
        let unlabelled: Vec<_> = unlabelled.iter().map(|object| object.name()).collect();
        assert_eq!(unlabelled, ["bare", "user"]);
    }
}
