//! Fills an [`Observed`] from the cache. No request is made here, but for the live look before a deletion.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::Client;
use serde_json::Value;

use super::cache::{Cache, StoreId};
use super::client;
use super::interest::Needs;
use super::watches::{self, Watches};
use crate::api::ContourDeployment;
use crate::api::contour::ExtensionService;
use crate::api::vocabulary::labels;
use crate::plan::admission;
use crate::plan::{
    Attempts, Key, Kind, NamespacePhase, NamespacedName, Object, Observed, Owner, ServiceAccountRef, SettingsVerdict,
    bears_our_name, ours, services, stand_in_namespaces, targets,
};

/// How long to wait for sets of objects that are being read for the first time.
const READING: Duration = Duration::from_secs(2);

/// A refusal is asked about again after this time: it depends on more than the settings. Contour's CRD may have been replaced
/// by one that knows them, and what stands between us and the API server may have said so in its place.
const REFUSED: Duration = Duration::from_mins(1);

/// Answers that cost a request, by ContourDeployment: what the API server said of its settings, and when; and what came of the last
/// writes.
#[derive(Default)]
pub struct Answers {
    settings: Mutex<HashMap<NamespacedName, (SettingsVerdict, Instant)>>,
    attempts: Mutex<HashMap<NamespacedName, Arc<Attempts>>>,
}

impl Answers {
    /// Remembers an answer.
    pub fn put(&self, whose: &NamespacedName, verdict: SettingsVerdict) {
        self.settings
            .lock()
            .expect("nobody panics with the lock")
            .insert(whose.clone(), (verdict, Instant::now()));
    }

    /// Remembers what came of a write.
    pub fn note<T>(&self, whose: &NamespacedName, note: impl FnOnce(&mut Attempts) -> T) -> T {
        let mut all = self.attempts.lock().expect("nobody panics with the lock");
        note(Arc::make_mut(all.entry(whose.clone()).or_default()))
    }

    fn attempts(&self, whose: &NamespacedName) -> Arc<Attempts> {
        let all = self.attempts.lock().expect("nobody panics with the lock");
        all.get(whose).cloned().unwrap_or_default()
    }

    /// How long a refusal still counts, if there is one.
    pub fn asks_again_in(&self, whose: &NamespacedName) -> Option<Duration> {
        let answers = self.settings.lock().expect("nobody panics with the lock");
        match answers.get(whose)? {
            (SettingsVerdict::Refused { .. }, when) => Some(REFUSED.saturating_sub(when.elapsed())),
            _ => None,
        }
    }

    /// Forgets a ContourDeployment.
    pub fn forget(&self, whose: &NamespacedName) {
        let settings = self.settings.lock();
        settings.expect("nobody panics with the lock").remove(whose);
        let attempts = self.attempts.lock();
        attempts.expect("nobody panics with the lock").remove(whose);
    }

    fn get(&self, whose: &NamespacedName) -> SettingsVerdict {
        self.settings
            .lock()
            .expect("nobody panics with the lock")
            .get(whose)
            .filter(|(verdict, when)| !matches!(verdict, SettingsVerdict::Refused { .. }) || when.elapsed() < REFUSED)
            .map(|(verdict, _)| verdict.clone())
            .unwrap_or_default()
    }
}

/// Where an [`Observed`] comes from.
pub struct Sources<'a> {
    /// What the watches have seen.
    pub cache: &'a Cache,
    /// The watches; those that this ContourDeployment needs are started.
    pub watches: &'a Watches,
    /// What was asked.
    pub answers: &'a Answers,
    /// Who we are.
    pub operator: &'a ServiceAccountRef,
}

/// What came of it.
pub enum Gathered {
    /// It does not exist any more.
    Gone,
    /// It is not of the form that this version reads; in words.
    Undecodable(String),
    /// ExtensionServices that matter to it have not been read yet.
    Unread,
    /// This; and what it refers to and has not been read yet.
    Observed(Box<Observed>, Vec<StoreId>),
}

impl Sources<'_> {
    /// Observes one ContourDeployment.
    pub fn gather(&self, whose: &NamespacedName) -> Gathered {
        // What it did not ask for until now may have changed after it was read here, and others alone were told. What it asks for depends
        // on what is there, so that this ends.
        loop {
            let (gathered, is_new) = self.gather_once(whose);
            if !is_new {
                return gathered;
            }
        }
    }

    /// Observes it, and says whether it asks for anything that it did not ask for before.
    fn gather_once(&self, whose: &NamespacedName) -> (Gathered, bool) {
        let NamespacedName { namespace, name } = whose;
        let key = Key::new(Kind::ContourDeployment, namespace, name);
        let Some(object) = self.cache.get(&StoreId::all(Kind::ContourDeployment), &key) else {
            return (Gathered::Gone, false);
        };
        let deployment = match read(&object) {
            Ok(deployment) => deployment,
            Err(error) => return (Gathered::Undecodable(error.to_string()), false),
        };
        let owner = Owner::of(&deployment.metadata);
        let settings = &deployment.spec.runtime_settings;
        let mut objects = self.cache.owned(whose);
        let places = stand_in_namespaces(&owner, settings, objects.values().map(AsRef::as_ref));
        // A stand-in that lost its labels while nobody looked is known by its name.
        for place in &places {
            let nameless = self.cache.unlabelled(&StoreId::all_in(Kind::ExtensionService, place));
            let nameless = nameless.into_iter().filter(|object| bears_our_name(&owner, object));
            objects.extend(nameless.map(|object| (object.key(), object)));
        }
        let targets = targets(settings, ours(&owner, settings, &objects));
        let is_served = self.cache.is_synced(&StoreId::owned(Kind::ExtensionService));
        let mut missing_crds = watches::missing_crds(self.cache);
        // The CRD may have come just now; what is not watched yet is not decided on.
        if !is_served && missing_crds.is_empty() {
            missing_crds.push(watches::EXTENSION_SERVICES.to_owned());
        }
        // What is unread now counts as unread, whatever is read meanwhile: what follows may have been looked up before.
        let mut unread = BTreeSet::new();
        let mut need = |wanted: &Needs| {
            unread.extend(wanted.keys().filter(|id| !self.cache.is_synced(id)).cloned());
        };
        let mut wanted = Needs::new();
        if is_served {
            for place in places {
                let here = targets.iter().filter(|target| target.namespace == place);
                let names = here.map(|target| target.name.clone()).collect();
                wanted.insert(StoreId::all_in(Kind::ExtensionService, &place), names);
            }
        }
        need(&wanted);
        let extension_services = self.extension_services(&targets);
        let unchanged_since = self.unchanged_since(&targets);
        let referenced: BTreeSet<String> = targets.iter().map(|target| target.namespace.clone()).collect();
        let services = services(&extension_services, ours(&owner, settings, &objects));
        for namespace in &referenced {
            let here = services.iter().filter(|service| service.namespace == *namespace);
            let names: BTreeSet<String> = here.map(|service| service.name.clone()).collect();
            for kind in [Kind::Service, Kind::EndpointSlice] {
                wanted.insert(StoreId::all_in(kind, namespace), names.clone());
            }
        }
        let secrets = StoreId::owned_in(Kind::Secret, namespace);
        // Secrets can be read only where our own binding allows it.
        let binding = |object: &Arc<Object>| {
            object.kind == Kind::RoleBinding && object.at("/roleRef/name") == Some(&Value::from("slipway-secrets"))
        };
        let around: Vec<StoreId> = wanted.keys().cloned().collect();
        if objects.values().any(binding) {
            wanted.insert(secrets.clone(), BTreeSet::new());
        }
        need(&wanted);
        let needed = self.watches.need(whose, wanted);
        unread.extend(needed.unread);
        let observed = Box::new(Observed {
            now: Timestamp::now(),
            operator: self.operator.clone(),
            namespaces: self.namespaces(referenced.iter().chain([namespace])),
            missing_crds,
            admission_problems: admission::problems(self.operator, policies(self.cache).iter().map(AsRef::as_ref)),
            extension_services,
            unchanged_since,
            services: self.services(&referenced),
            ready_services: self.ready_services(&referenced),
            references_synced: around.iter().all(|id| !unread.contains(id)),
            secrets_synced: self.cache.is_synced(&secrets),
            settings: self.answers.get(whose),
            issued: None,
            failures: Vec::new(),
            attempts: self.answers.attempts(whose),
            objects,
            deployment: Arc::new(deployment),
        });
        let gathered = Gathered::Observed(observed, unread.into_iter().collect());
        (gathered, needed.is_new)
    }

    /// Observes one ContourDeployment once everything that it refers to has been read. That is waited for, but not for long: a
    /// namespace that can't be read must not keep the rest from being looked after. Without ExtensionServices there is no plan: one
    /// that was not read yet would be taken for deleted. Only a deletion needs none.
    pub async fn gather_read(&self, whose: &NamespacedName) -> Gathered {
        let deadline = tokio::time::Instant::now() + READING;
        loop {
            let (observed, unread) = match self.gather(whose) {
                Gathered::Observed(observed, unread) if !unread.is_empty() => (observed, unread),
                gathered => return gathered,
            };
            let is_read = self.cache.wait_for(&unread);
            if tokio::time::timeout_at(deadline, is_read).await.is_ok() {
                continue;
            }
            let is_going = observed.deployment.metadata.deletion_timestamp.is_some();
            let is_blind = unread.iter().any(|id| id.kind == Kind::ExtensionService) && !is_going;
            return if is_blind {
                Gathered::Unread
            } else {
                Gathered::Observed(observed, unread)
            };
        }
    }

    fn namespaces<'a>(&self, names: impl Iterator<Item = &'a String>) -> BTreeMap<String, NamespacePhase> {
        let phase = |name: &String| {
            let namespace = self
                .cache
                .get(&StoreId::all(Kind::Namespace), &Key::new(Kind::Namespace, "", name))?;
            let phase = if namespace.is_terminating() {
                NamespacePhase::Terminating
            } else {
                NamespacePhase::Active
            };
            Some((name.clone(), phase))
        };
        names.filter_map(phase).collect()
    }

    fn extension_services(
        &self,
        targets: &BTreeSet<NamespacedName>,
    ) -> BTreeMap<NamespacedName, Arc<ExtensionService>> {
        let parse = |target: &NamespacedName| {
            let key = Key::new(Kind::ExtensionService, &target.namespace, &target.name);
            let id = StoreId::all_in(Kind::ExtensionService, &target.namespace);
            let object = self.cache.get(&id, &key)?;
            // One that can't be read is as good as absent; the API server's schema lets none through.
            Some((target.clone(), Arc::new(object.parse().ok()?)))
        };
        targets.iter().filter_map(parse).collect()
    }

    fn unchanged_since(&self, targets: &BTreeSet<NamespacedName>) -> BTreeMap<NamespacedName, Timestamp> {
        let since = |target: &NamespacedName| {
            let id = StoreId::all_in(Kind::ExtensionService, &target.namespace);
            let key = Key::new(Kind::ExtensionService, &target.namespace, &target.name);
            Some((target.clone(), self.cache.unchanged_since(&id, &key)?))
        };
        targets.iter().filter_map(since).collect()
    }

    fn services(&self, namespaces: &BTreeSet<String>) -> BTreeMap<NamespacedName, Arc<Object>> {
        let all = namespaces
            .iter()
            .flat_map(|namespace| self.cache.all(&StoreId::all_in(Kind::Service, namespace)));
        all.map(|service| (service.id(), service)).collect()
    }

    fn ready_services(&self, namespaces: &BTreeSet<String>) -> BTreeSet<NamespacedName> {
        let namespaces = namespaces.iter();
        namespaces
            .flat_map(|namespace| self.cache.ready_services(namespace))
            .collect()
    }
}

/// The ContourDeployment; without its status, if only that can't be read: another version wrote it, and it is written anew.
fn read(object: &Object) -> Result<ContourDeployment, serde_json::Error> {
    object.parse().or_else(|_| {
        let mut bare = object.clone();
        bare.content.remove("status");
        bare.parse()
    })
}

/// The admission policies and bindings that are ours.
pub fn policies(cache: &Cache) -> Vec<Arc<Object>> {
    [Kind::ValidatingAdmissionPolicy, Kind::ValidatingAdmissionPolicyBinding]
        .into_iter()
        .flat_map(|kind| cache.all(&StoreId::all(kind)))
        .collect()
}

/// The same, with Contour's Deployment, ReplicaSets and pods as the API server has them now: a watch may lag behind.
pub async fn read_live(client: &Client, observed: &Observed) -> Result<Observed, client::Error> {
    let owner = observed.owner();
    let selector = format!(
        "{}={},{}={}",
        labels::OWNER_NAMESPACE,
        owner.namespace,
        labels::OWNER_NAME,
        owner.name
    );
    let mut fresh = observed.clone();
    for kind in [Kind::Deployment, Kind::ReplicaSet, Kind::Pod] {
        let listed = client::list(client, kind, &owner.namespace, &selector).await?;
        fresh.objects.retain(|key, _| key.kind != kind);
        fresh
            .objects
            .extend(listed.into_iter().map(|object| (object.key(), Arc::new(object))));
    }
    Ok(fresh)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_that_cannot_be_read_is_left_out_and_a_specification_is_not() {
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
        let whole = read(&object(1.into(), "Missing")).expect("it is of this version's form");
        assert_eq!(whole.status.expect("it has one").observed_generation, Some(1));
        let bare = read(&object(1.into(), "Sulking")).expect("the specification is of this version's form");
        assert_eq!((bare.spec, bare.status), (whole.spec, None));
        let error = read(&object("two".into(), "Sulking")).expect_err("the specification is not");
        assert!(error.to_string().contains("two"), "{error}");
    }

    #[test]
    fn a_refusal_is_asked_about_again_and_an_acceptance_is_not() {
        let whose = NamespacedName::new("a", "edge");
        let long_ago = Instant::now()
            .checked_sub(REFUSED)
            .expect("the clock has run for so long");
        let answers = Answers::default();
        let put = |verdict: SettingsVerdict, when| {
            let mut all = answers.settings.lock().expect("nobody panics with the lock");
            all.insert(whose.clone(), (verdict, when));
        };
        let refused = SettingsVerdict::Refused {
            hash: "x".to_owned(),
            message: String::new(),
        };
        let accepted = SettingsVerdict::Accepted {
            hash: "x".to_owned(),
            spec: serde_json::Map::new(),
        };
        put(refused.clone(), Instant::now());
        assert!(matches!(answers.get(&whose), SettingsVerdict::Refused { .. }));
        assert!(answers.asks_again_in(&whose).is_some_and(|wait| wait <= REFUSED));
        put(refused, long_ago);
        assert!(!matches!(answers.get(&whose), SettingsVerdict::Refused { .. }));
        assert_eq!(answers.asks_again_in(&whose), Some(Duration::ZERO));
        put(accepted, long_ago);
        assert!(matches!(answers.get(&whose), SettingsVerdict::Accepted { .. }));
        assert_eq!(answers.asks_again_in(&whose), None);
    }
}
