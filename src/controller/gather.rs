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
use crate::api::vocabulary::labels;
use crate::plan::admission;
use crate::plan::{
    Attempts, Environment, Key, Kind, NamespacePhase, NamespacedName, Object, Observed, Owner, ServiceAccountRef,
    SettingsVerdict, View, decode_deployment,
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
            let (gathered, is_new) = self.gather_once(whose);
            if !is_new {
                return gathered;
            }
        }
    }

    /// Observes one ContourDeployment. The second value reports whether the ContourDeployment asks for more than before.
    fn gather_once(&self, whose: &NamespacedName) -> (Gathered, bool) {
        let NamespacedName { namespace, name } = whose;
        let key = Key::new(Kind::ContourDeployment, namespace, name);
        let Some(object) = self.cache.get(&StoreId::all(Kind::ContourDeployment), &key) else {
            return (Gathered::Gone, false);
        };
        let deployment = match decode_deployment(&object) {
            Ok(deployment) => deployment,
            Err(error) => return (Gathered::Undecodable(error.to_string()), false),
        };
        let mut view = CacheView::new(self, whose);
        let observed = Box::new(Observed::of(&mut view, deployment));
        let gathered = Gathered::Observed(observed, view.unread.into_iter().collect());
        (gathered, view.is_new)
    }

    /// Observes one ContourDeployment once the referenced objects have been read, or after [`READING`]: a namespace that can't be read must
    /// not block the other roles. Without the ExtensionServices there is no plan, because an unread ExtensionService would count as
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
            let is_blind = unread.iter().any(|id| id.kind == Kind::ExtensionService) && !is_deleted;
            return if is_blind {
                Gathered::Unread
            } else {
                Gathered::Observed(observed, unread)
            };
        }
    }
}

/// The cache as a ContourDeployment sees it. Each lookup in a set that depends on references first records that the set is needed and
/// whether the set is unread. Then the lookup reads the set. So a set that was unread at a lookup counts as unread, even if the set is
/// read before the end of the observation.
struct CacheView<'a> {
    sources: &'a Sources<'a>,
    whose: &'a NamespacedName,
    /// Whether the ExtensionServices with Slipway's labels had been read before the first lookup.
    is_served: bool,
    /// Whether the Secrets had been read before the lookup of the objects.
    secrets_synced: bool,
    needs: Needs,
    unread: BTreeSet<StoreId>,
    /// Whether anything is needed that was not needed before.
    is_new: bool,
}

impl<'a> CacheView<'a> {
    fn new(sources: &'a Sources<'a>, whose: &'a NamespacedName) -> Self {
        Self {
            sources,
            whose,
            is_served: sources.cache.is_synced(&StoreId::owned(Kind::ExtensionService)),
            secrets_synced: false,
            needs: Needs::new(),
            unread: BTreeSet::new(),
            is_new: false,
        }
    }

    /// Records that these names of a set are needed.
    fn need<'n>(&mut self, id: &StoreId, names: impl IntoIterator<Item = &'n String>) {
        // The API server may not serve ExtensionServices, and then they cannot be watched.
        if id.kind == Kind::ExtensionService && !self.is_served {
            return;
        }
        if !self.sources.cache.is_synced(id) {
            self.unread.insert(id.clone());
        }
        let needed = self.needs.entry(id.clone()).or_default();
        needed.extend(names.into_iter().cloned());
    }

    fn secrets(&self) -> StoreId {
        StoreId::owned_in(Kind::Secret, &self.whose.namespace)
    }
}

impl View for CacheView<'_> {
    fn objects(&mut self, _: &Owner) -> BTreeMap<Key, Arc<Object>> {
        let (cache, secrets) = (self.sources.cache, self.secrets());
        self.secrets_synced = cache.is_synced(&secrets);
        let objects = cache.owned(self.whose);
        // Slipway can read Secrets only where its own binding grants access to them.
        let grants_access = |object: &Arc<Object>| {
            object.kind == Kind::RoleBinding && object.at("/roleRef/name") == Some(&Value::from("slipway-secrets"))
        };
        if objects.values().any(grants_access) {
            if !self.secrets_synced {
                self.unread.insert(secrets.clone());
            }
            self.needs.insert(secrets, BTreeSet::new());
        }
        objects
    }

    fn unlabelled(&mut self, namespace: &str) -> Vec<Arc<Object>> {
        let id = StoreId::all_in(Kind::ExtensionService, namespace);
        self.need(&id, []);
        self.sources.cache.unlabelled(&id)
    }

    fn extension_service(&mut self, service: &NamespacedName) -> Option<(Arc<Object>, Option<Timestamp>)> {
        let id = StoreId::all_in(Kind::ExtensionService, &service.namespace);
        self.need(&id, [&service.name]);
        let key = Key::new(id.kind, &service.namespace, &service.name);
        let object = self.sources.cache.get(&id, &key)?;
        Some((object, self.sources.cache.unchanged_since(&id, &key)))
    }

    fn services(&mut self, namespace: &str, names: &BTreeSet<String>) -> Vec<Arc<Object>> {
        let id = StoreId::all_in(Kind::Service, namespace);
        self.need(&id, names);
        let keys = names.iter().map(|name| Key::new(id.kind, namespace, name));
        keys.filter_map(|key| self.sources.cache.get(&id, &key)).collect()
    }

    fn ready_services(&mut self, namespace: &str, names: &BTreeSet<String>) -> BTreeSet<String> {
        self.need(&StoreId::all_in(Kind::EndpointSlice, namespace), names);
        let ready = self.sources.cache.ready_services(namespace).into_iter();
        let ready = ready.map(|service| service.name);
        ready.filter(|name| names.contains(name)).collect()
    }

    fn namespace(&mut self, name: &str) -> Option<NamespacePhase> {
        let key = Key::new(Kind::Namespace, "", name);
        let namespace = self.sources.cache.get(&StoreId::all(key.kind), &key)?;
        Some(NamespacePhase::of(&namespace))
    }

    fn environment(&mut self) -> Environment {
        let Sources {
            cache,
            watches,
            answers,
            operator,
        } = *self.sources;
        let references: Vec<StoreId> = self
            .needs
            .keys()
            .filter(|id| id.kind != Kind::Secret)
            .cloned()
            .collect();
        let needed = watches.need(self.whose, std::mem::take(&mut self.needs));
        self.unread.extend(needed.unread);
        self.is_new = needed.is_new;
        let mut missing_crds = watches::missing_crds(cache);
        // The CRD of ExtensionServices may have appeared during the observation. A plan without the stand-ins must not be made.
        if !self.is_served && missing_crds.is_empty() {
            missing_crds.push(watches::EXTENSION_SERVICES.to_owned());
        }
        Environment {
            now: Timestamp::now(),
            operator: operator.clone(),
            missing_crds,
            admission_problems: admission::problems(operator, policies(cache).iter().map(AsRef::as_ref)),
            references_synced: references.iter().all(|id| !self.unread.contains(id)),
            secrets_synced: self.secrets_synced && cache.is_synced(&self.secrets()),
            settings: answers.get(self.whose),
            attempts: answers.attempts(self.whose),
        }
    }
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
    use crate::controller::played;
    use crate::controller::tests::{context, holds};

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

    #[tokio::test]
    async fn an_observation_needs_its_lookups_and_reports_unread_sets() {
        // This API server never answers.
        let (context, _touched) = context(played::client(|_, _| None));
        let whose = NamespacedName::new("a", "edge");
        let sources = Sources {
            cache: &context.cache,
            watches: &context.watches,
            answers: &context.answers,
            operator: &context.options.operator,
        };
        let object = |kind, value: &Value| Object::from_json(kind, value.clone()).expect("an object");
        let deployment = object(
            Kind::ContourDeployment,
            &json!({"metadata": {"namespace": "a", "name": "edge"}, "spec": {"runtimeSettings": {
                "globalExtAuth": {"extensionRef": {"namespace": "auth", "name": "user"}}}}}),
        );
        holds(&context.cache, &StoreId::all(Kind::ContourDeployment), [deployment]);
        let gather = || match sources.gather(&whose) {
            Gathered::Observed(observed, unread) => (observed, unread),
            _ => panic!("the ContourDeployment can be observed"),
        };
        let [users, own, services, slices] = [
            (Kind::ExtensionService, "auth"),
            (Kind::ExtensionService, "a"),
            (Kind::Service, "auth"),
            (Kind::EndpointSlice, "auth"),
        ]
        .map(|(kind, namespace)| StoreId::all_in(kind, namespace));
        let names = |set: &StoreId| context.watches.interest().names(set);

        let (observed, unread) = gather();
        assert!(observed.missing_crds.contains(&watches::EXTENSION_SERVICES.to_owned()));
        assert_eq!(unread, [services.clone(), slices.clone()]);
        assert!(!context.watches.interest().is_needed(&users));

        holds(&context.cache, &StoreId::owned(Kind::ExtensionService), []);
        let (observed, unread) = gather();
        let all = [&services, &slices, &own, &users].map(Clone::clone);
        assert_eq!(unread, all);
        assert!(!observed.references_synced);
        assert_eq!((names(&users), names(&own)), (["user".to_owned()].into(), [].into()));

        let mut view = CacheView::new(&sources, &whose);
        view.unlabelled("a");
        holds(&context.cache, &own, []);
        assert_eq!(view.unread, [own.clone()].into(), "the set was unread at the lookup");

        let user = json!({"metadata": {"namespace": "auth", "name": "user"}, "spec": {"services": [{"name": "one", "port": 9}]}});
        holds(&context.cache, &users, [object(Kind::ExtensionService, &user)]);
        let (observed, unread) = gather();
        assert_eq!(unread, [services.clone(), slices.clone()]);
        let target = NamespacedName::new("auth", "user");
        assert!(observed.extension_services.contains_key(&target) && observed.unchanged_since.contains_key(&target));
        assert_eq!(
            (names(&services), names(&slices)),
            (["one".to_owned()].into(), ["one".to_owned()].into())
        );

        let one = json!({"metadata": {"namespace": "auth", "name": "one"}, "spec": {}});
        holds(&context.cache, &services, [object(Kind::Service, &one)]);
        let labels = json!({"kubernetes.io/service-name": "one"});
        let slice = json!({"metadata": {"namespace": "auth", "name": "one-x", "labels": labels}, "endpoints": [{}]});
        holds(&context.cache, &slices, [object(Kind::EndpointSlice, &slice)]);
        let (observed, unread) = gather();
        assert!(unread.is_empty() && observed.references_synced && !observed.secrets_synced);
        let one = NamespacedName::new("auth", "one");
        assert!(observed.services.contains_key(&one) && observed.ready_services.contains(&one));

        let owner = observed.owner();
        let mut binding = object(Kind::RoleBinding, &json!({"roleRef": {"name": "slipway-secrets"}}));
        binding.metadata = owner.metadata(Kind::RoleBinding, "a", "edge-secrets");
        holds(&context.cache, &StoreId::owned(Kind::RoleBinding), [binding]);
        let (observed, unread) = gather();
        let secrets = StoreId::owned_in(Kind::Secret, "a");
        assert_eq!(unread, std::slice::from_ref(&secrets));
        assert!(observed.references_synced && !observed.secrets_synced);
        holds(&context.cache, &secrets, []);
        assert!(gather().0.secrets_synced);
    }
}
