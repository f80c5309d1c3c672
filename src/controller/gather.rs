//! Fills an [`Observed`] from the cache. The only request of this module is the live read before a deletion.

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
use crate::api::vocabulary::labels;
use crate::plan::admission;
use crate::plan::observe::{Facts, View, observe, phase};
use crate::plan::{
    Attempts, Key, Kind, NamespacePhase, NamespacedName, Object, Observed, ServiceAccountRef, SettingsVerdict,
};

/// The time to wait for sets that are being read for the first time.
const READING: Duration = Duration::from_secs(2);

/// A refusal of the settings counts for this time, because a refusal depends on more than the settings. For example, Contour's CRD may have
/// been replaced by one that knows the settings, or a webhook may have refused them.
const REFUSED: Duration = Duration::from_mins(1);

/// The answers to questions that cost a request, by ContourDeployment: the API server's verdict on the settings with its time, and the
/// results of the last writes.
#[derive(Default)]
pub struct Answers {
    settings: Mutex<HashMap<NamespacedName, (SettingsVerdict, Instant)>>,
    attempts: Mutex<HashMap<NamespacedName, Arc<Attempts>>>,
}

impl Answers {
    /// Stores a verdict.
    pub fn put(&self, whose: &NamespacedName, verdict: SettingsVerdict) {
        self.settings
            .lock()
            .expect("nobody panics with the lock")
            .insert(whose.clone(), (verdict, Instant::now()));
    }

    /// Records the result of a write.
    pub fn note<T>(&self, whose: &NamespacedName, note: impl FnOnce(&mut Attempts) -> T) -> T {
        let mut all = self.attempts.lock().expect("nobody panics with the lock");
        note(Arc::make_mut(all.entry(whose.clone()).or_default()))
    }

    fn attempts(&self, whose: &NamespacedName) -> Arc<Attempts> {
        let all = self.attempts.lock().expect("nobody panics with the lock");
        all.get(whose).cloned().unwrap_or_default()
    }

    /// Returns the time for which a refusal still counts, or None if there is no refusal.
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

/// The sources of an [`Observed`].
pub struct Sources<'a> {
    /// The cache.
    pub cache: &'a Cache,
    /// The watches. An observation starts the watches that the ContourDeployment needs.
    pub watches: &'a Watches,
    /// The stored answers.
    pub answers: &'a Answers,
    /// The ServiceAccount of the operator.
    pub operator: &'a ServiceAccountRef,
}

/// The result of an observation.
pub enum Gathered {
    /// The ContourDeployment does not exist.
    Gone,
    /// This version can't decode the ContourDeployment. The text is the decoder's message.
    Undecodable(String),
    /// Referenced ExtensionServices have not been read yet.
    Unread,
    /// The observed state, and the sets of referenced objects that have not been read yet.
    Observed(Box<Observed>, Vec<StoreId>),
}

impl Sources<'_> {
    /// Observes one ContourDeployment.
    pub fn gather(&self, whose: &NamespacedName) -> Gathered {
        // An object that nobody asked for until now may have changed after this observation read it, and the change woke only those who had
        // asked. So observe again. The loop ends, because the objects that a ContourDeployment asks for depend on existing objects only.
        loop {
            let (gathered, asks_for_more) = self.gather_once(whose);
            if !asks_for_more {
                return gathered;
            }
        }
    }

    /// Observes one ContourDeployment. The second value reports whether the ContourDeployment asks for more than before.
    fn gather_once(&self, whose: &NamespacedName) -> (Gathered, bool) {
        let key = Key::new(Kind::ContourDeployment, &whose.namespace, &whose.name);
        let Some(object) = self.cache.get(&StoreId::all(Kind::ContourDeployment), &key) else {
            return (Gathered::Gone, false);
        };
        let deployment = match read(&object) {
            Ok(deployment) => deployment,
            Err(error) => return (Gathered::Undecodable(error.to_string()), false),
        };
        let mut view = CacheView::of(self.cache);
        let mut missing_crds = watches::missing_crds(self.cache);
        // The CRD may have been created just now. An unwatched kind counts as missing.
        if !view.serves_extension_services && missing_crds.is_empty() {
            missing_crds.push(watches::EXTENSION_SERVICES.to_owned());
        }
        let facts = Facts {
            now: Timestamp::now(),
            operator: self.operator.clone(),
            missing_crds,
            admission_problems: admission::problems(self.operator, policies(self.cache).iter().map(AsRef::as_ref)),
            settings: self.answers.get(whose),
            attempts: self.answers.attempts(whose),
        };
        let mut observed = observe(&mut view, Arc::new(deployment), facts);
        let secrets = StoreId::owned_in(Kind::Secret, &whose.namespace);
        observed.secrets_synced = self.cache.is_synced(&secrets);
        let CacheView {
            mut needs, mut unread, ..
        } = view;
        let around: Vec<StoreId> = needs.keys().cloned().collect();
        if observed.objects.values().any(|object| permits_secrets(object)) {
            if !observed.secrets_synced {
                unread.insert(secrets.clone());
            }
            needs.insert(secrets, BTreeSet::new());
        }
        let needed = self.watches.need(whose, needs);
        unread.extend(needed.unread);
        observed.references_synced = !around.iter().any(|id| unread.contains(id));
        let gathered = Gathered::Observed(Box::new(observed), unread.into_iter().collect());
        (gathered, needed.is_new)
    }

    /// Observes one ContourDeployment once the referenced objects have been read, or after [`READING`]: a namespace that can't be read must
    /// not block the other roles. Without the ExtensionServices there is no observation, because an unread ExtensionService would count as
    /// deleted. Only a deletion needs no ExtensionServices.
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
            let is_deleted = observed.deployment.metadata.deletion_timestamp.is_some();
            let lacks_services = unread.iter().any(|id| id.kind == Kind::ExtensionService);
            return if lacks_services && !is_deleted {
                Gathered::Unread
            } else {
                Gathered::Observed(observed, unread)
            };
        }
    }
}

/// The operator's cache as a source of objects. The view records each set that a lookup needs. A set that is unread before the lookup
/// counts as unread, even if the set is read meanwhile.
struct CacheView<'a> {
    cache: &'a Cache,
    /// Whether ExtensionServices are watched.
    serves_extension_services: bool,
    needs: Needs,
    unread: BTreeSet<StoreId>,
}

impl<'a> CacheView<'a> {
    fn of(cache: &'a Cache) -> Self {
        Self {
            cache,
            serves_extension_services: cache.is_synced(&StoreId::owned(Kind::ExtensionService)),
            needs: Needs::new(),
            unread: BTreeSet::new(),
        }
    }

    fn need(&mut self, kind: Kind, namespace: &str, names: &BTreeSet<String>) -> StoreId {
        let id = StoreId::all_in(kind, namespace);
        self.check_read(&id);
        self.needs.insert(id.clone(), names.clone());
        id
    }

    fn check_read(&mut self, id: &StoreId) {
        if !self.cache.is_synced(id) {
            self.unread.insert(id.clone());
        }
    }
}

impl View for CacheView<'_> {
    fn owned(&self, deployment: &NamespacedName) -> BTreeMap<Key, Arc<Object>> {
        self.cache.owned(deployment)
    }

    fn unlabelled_extension_services(&mut self, namespace: &str) -> Vec<Arc<Object>> {
        let id = StoreId::all_in(Kind::ExtensionService, namespace);
        if self.serves_extension_services {
            self.check_read(&id);
        }
        self.cache.unlabelled(&id)
    }

    fn extension_services(
        &mut self,
        namespace: &str,
        names: &BTreeSet<String>,
    ) -> Vec<(Arc<Object>, Option<Timestamp>)> {
        if !self.serves_extension_services {
            return Vec::new();
        }
        let id = self.need(Kind::ExtensionService, namespace, names);
        let found = names.iter().filter_map(|name| {
            let key = Key::new(Kind::ExtensionService, namespace, name);
            Some((self.cache.get(&id, &key)?, self.cache.unchanged_since(&id, &key)))
        });
        found.collect()
    }

    fn services(&mut self, namespace: &str, names: &BTreeSet<String>) -> Vec<(Arc<Object>, bool)> {
        let id = self.need(Kind::Service, namespace, names);
        self.need(Kind::EndpointSlice, namespace, names);
        let ready = self.cache.ready_services(namespace);
        let found = names.iter().filter_map(|name| {
            let service = self.cache.get(&id, &Key::new(Kind::Service, namespace, name))?;
            let is_ready = ready.contains(&service.id());
            Some((service, is_ready))
        });
        found.collect()
    }

    fn namespace(&self, name: &str) -> Option<NamespacePhase> {
        let key = Key::new(Kind::Namespace, "", name);
        self.cache
            .get(&StoreId::all(Kind::Namespace), &key)
            .as_deref()
            .map(phase)
    }
}

/// Reports whether an object is the binding that permits the operator to read the Secrets of a namespace.
fn permits_secrets(object: &Object) -> bool {
    object.kind == Kind::RoleBinding && object.at("/roleRef/name") == Some(&Value::from("slipway-secrets"))
}

/// Decodes a ContourDeployment. If only the status can't be decoded, another version wrote the status. The result then has no status, and
/// Slipway replaces the status.
fn read(object: &Object) -> Result<ContourDeployment, serde_json::Error> {
    object.parse().or_else(|_| {
        let mut bare = object.clone();
        bare.content.remove("status");
        bare.parse()
    })
}

/// Returns Slipway's admission policies and bindings.
pub fn policies(cache: &Cache) -> Vec<Arc<Object>> {
    [Kind::ValidatingAdmissionPolicy, Kind::ValidatingAdmissionPolicyBinding]
        .into_iter()
        .flat_map(|kind| cache.all(&StoreId::all(kind)))
        .collect()
}

/// Returns the observed state with Contour's Deployment, ReplicaSets and pods as they are on the API server. A watch may lag behind.
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
        let whole = read(&object(1.into(), "Missing")).expect("it is of this version's form");
        assert_eq!(whole.status.expect("it has one").observed_generation, Some(1));
        let bare = read(&object(1.into(), "Sulking")).expect("the specification is of this version's form");
        assert_eq!((bare.spec, bare.status), (whole.spec, None));
        let error = read(&object("two".into(), "Sulking")).expect_err("the specification is not");
        assert!(error.to_string().contains("two"), "{error}");
    }

    #[test]
    fn a_refusal_expires_and_an_acceptance_does_not() {
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
