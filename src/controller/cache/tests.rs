use serde_json::{Value, json};

use super::*;
use crate::api::vocabulary::{FINALIZER, labels};
use crate::controller::decode::SERVICE_NAME;

fn secret(version: &str) -> Object {
    let labels = json!({labels::OWNER_NAMESPACE: "a", labels::OWNER_NAME: "edge"});
    let metadata = json!({"namespace": "a", "name": "s", "uid": "1", "resourceVersion": version, "labels": labels});
    Object::from_json(Kind::Secret, json!({"metadata": metadata})).expect("an object")
}

/// Returns a cache in which the first watch of this set has begun.
fn begun(id: StoreId) -> (Cache, StoreId) {
    let cache = Cache::default();
    assert_eq!(cache.begin(&id), 1);
    (cache, id)
}

fn after_its_deletion() -> (Cache, StoreId, NamespacedName) {
    let (cache, id) = begun(StoreId::owned(Kind::Secret));
    cache.apply(&id, 1, Event::Apply(secret("7")));
    cache.apply(&id, 1, Event::Delete(secret("9")));
    (cache, id, NamespacedName::new("a", "edge"))
}

#[test]
fn unchanged_since_depends_on_the_generation_only() {
    let object = |version: u32, uid: &str, generation: u32| {
        let metadata = json!({
            "namespace": "auth", "name": "auth", "uid": uid, "resourceVersion": version.to_string(), "generation": generation,
        });
        Object::from_json(Kind::ExtensionService, json!({"metadata": metadata})).expect("an object")
    };
    let (cache, id) = begun(StoreId::owned(Kind::ExtensionService));
    let since = || cache.unchanged_since(&id, &object(1, "1", 1).key());
    assert_eq!(since(), None);
    cache.apply(&id, 1, Event::Apply(object(1, "1", 1)));
    let first = since();
    assert!(first.is_some());
    cache.apply(&id, 1, Event::Apply(object(2, "1", 1)));
    assert_eq!(since(), first, "another version");
    for event in [Event::Init, Event::InitApply(object(3, "1", 1)), Event::InitDone] {
        cache.apply(&id, 1, event);
    }
    assert_eq!(since(), first, "read anew");
    cache.note(&object(4, "1", 1), &NamespacedName::new("a", "edge"));
    assert_eq!(since(), first, "an answer");
    cache.apply(&id, 1, Event::Apply(object(5, "1", 2)));
    let second = since();
    assert_ne!(second, first, "another generation");
    cache.apply(&id, 1, Event::Apply(object(6, "2", 2)));
    assert_ne!(since(), second, "another object");
    cache.apply(&id, 1, Event::Delete(object(7, "2", 2)));
    assert_eq!(since(), None);
}

#[test]
fn an_answer_after_the_deletion_does_not_restore_the_object() {
    let (cache, _, whose) = after_its_deletion();
    cache.note(&secret("8"), &whose);
    assert!(cache.owned(&whose).is_empty());
}

#[test]
fn an_unlabelled_stand_in_keeps_its_owner_while_its_uid_stays() {
    let stand_in = |version: &str, uid: &str, labels: Value| {
        let metadata = json!({
            "namespace": "auth", "name": "edge-ext-auth-x", "uid": uid, "resourceVersion": version, "labels": labels,
            "finalizers": [FINALIZER],
        });
        Object::from_json(Kind::ExtensionService, json!({"metadata": metadata})).expect("an object")
    };
    let (cache, id) = begun(StoreId::all_in(Kind::ExtensionService, "auth"));
    let whose = NamespacedName::new("a", "edge");
    let labels = json!({labels::OWNER_NAMESPACE: "a", labels::OWNER_NAME: "edge"});
    cache.apply(&id, 1, Event::Apply(stand_in("1", "1", labels)));
    for version in ["2", "3"] {
        let touched = cache.apply(
            &id,
            1,
            Event::Apply(stand_in(version, "1", json!({"version": version}))),
        );
        let change = only(touched);
        assert!(change.owners.contains(&whose) && !change.is_nobodys, "{change:?}");
        assert_eq!(cache.owned(&whose).len(), 1);
    }
    cache.apply(&id, 1, Event::Apply(stand_in("4", "2", json!({}))));
    assert!(cache.owned(&whose).is_empty());
}

#[test]
fn an_object_that_only_left_the_set_is_known_after_a_read() {
    let (cache, id, whose) = after_its_deletion();
    cache.note(&secret("9"), &whose);
    assert!(cache.get(&id, &secret("9").key()).is_some());
}

/// Returns an object of a kind with these labels.
fn labelled(kind: Kind, id: &str, version: &str, labels: &Value) -> Object {
    let (namespace, name) = id.split_once('/').expect("a namespace and a name");
    let metadata =
        json!({"namespace": namespace, "name": name, "uid": id, "resourceVersion": version, "labels": labels});
    Object::from_json(kind, json!({"metadata": metadata})).expect("an object")
}

fn plain(kind: Kind, id: &str) -> Object {
    labelled(kind, id, "1", &json!({}))
}

fn names(cache: &Cache, id: &StoreId) -> BTreeSet<String> {
    cache.all(id).iter().map(|object| object.name().to_owned()).collect()
}

fn wanted(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn only(touched: Option<Touched>) -> Change {
    let changes = touched.expect("something is not as it was").changes;
    let [change] = <[Change; 1]>::try_from(changes).expect("one change");
    change
}

fn read(cache: &Cache, id: &StoreId, watch: u64, objects: impl IntoIterator<Item = Object>) -> Option<Touched> {
    cache.apply(id, watch, Event::Init);
    for object in objects {
        cache.apply(id, watch, Event::InitApply(object));
    }
    cache.apply(id, watch, Event::InitDone)
}

#[test]
fn only_referenced_names_of_a_namespace_are_kept_and_wake() {
    for kind in [Kind::ExtensionService, Kind::Service, Kind::EndpointSlice] {
        let (cache, id) = begun(StoreId::all_in(kind, "auth"));
        assert!(cache.want(&id, wanted(&["x"])), "it was not asked for before");
        let object = |name: &str, version: &str| {
            let labels = json!({SERVICE_NAME: name});
            labelled(kind, &format!("auth/{name}"), version, &labels)
        };
        let others = (0..1_000).map(|number| object(&format!("other-{number}"), "1"));
        let touched = read(&cache, &id, 1, others.chain([object("x", "1")]));
        let touched = touched.expect("somebody waits for it");
        // A Service without ready endpoints is no change.
        let changes = usize::from(kind != Kind::EndpointSlice);
        assert!(touched.is_first_read && touched.changes.len() == changes, "{touched:?}");
        assert_eq!(names(&cache, &id), wanted(&["x"]));
        for event in [Event::Apply(object("other", "2")), Event::Delete(object("other", "3"))] {
            assert!(cache.apply(&id, 1, event).is_none());
        }
        cache.note(&object("other", "4"), &NamespacedName::new("home", "edge"));
        assert_eq!(names(&cache, &id), wanted(&["x"]));
        // No ContourDeployment references the object any more.
        assert!(!cache.want(&id, wanted(&[])));
        assert!(cache.is_synced(&id) && cache.all(&id).is_empty());
    }
}

#[test]
fn a_new_name_is_unread_until_a_later_watch_has_listed_the_set() {
    let (cache, id) = begun(StoreId::all_in(Kind::ExtensionService, "auth"));
    let object = |name: &str| plain(Kind::ExtensionService, &format!("auth/{name}"));
    cache.want(&id, wanted(&["x"]));
    read(&cache, &id, 1, [object("x"), object("y")]);
    assert!(cache.is_synced(&id));
    // The first watch is listing the set when a ContourDeployment asks for another name.
    cache.apply(&id, 1, Event::Init);
    assert!(cache.want(&id, wanted(&["x", "y"])));
    assert!(!cache.is_synced(&id));
    assert_eq!(cache.begin(&id), 2);
    assert!(cache.apply(&id, 1, Event::InitDone).is_none());
    assert!(
        !cache.is_synced(&id),
        "a former watch says nothing of what is asked for now"
    );
    assert_eq!(names(&cache, &id), wanted(&["x"]), "what is known stays known");
    read(&cache, &id, 2, [object("x"), object("y")]);
    assert!(cache.is_synced(&id));
    assert_eq!(names(&cache, &id), wanted(&["x", "y"]));
    // A stopped watch restores nothing.
    cache.forget(&id);
    read(&cache, &id, 2, [object("x")]);
    assert!(!cache.is_synced(&id) && cache.all(&id).is_empty());
}

#[test]
fn objects_with_slipways_finalizer_are_kept_unreferenced() {
    let (cache, id) = begun(StoreId::all_in(Kind::ExtensionService, "auth"));
    let mut stand_in = plain(Kind::ExtensionService, "auth/edge-ext-auth-x");
    stand_in.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    read(&cache, &id, 1, [stand_in.clone()]);
    assert_eq!(cache.unlabelled(&id).len(), 1);
    (stand_in.metadata.finalizers, stand_in.metadata.resource_version) = (None, Some("2".to_owned()));
    assert!(cache.apply(&id, 1, Event::Apply(stand_in)).is_some());
    assert!(cache.all(&id).is_empty());
}

#[test]
fn the_number_of_endpoint_slices_of_a_service_is_limited() {
    let (cache, id) = begun(StoreId::all_in(Kind::EndpointSlice, "auth"));
    cache.want(&id, wanted(&["x"]));
    let slice = |number: usize| {
        let labels = json!({SERVICE_NAME: "x"});
        labelled(Kind::EndpointSlice, &format!("auth/{number}"), "1", &labels)
    };
    for number in 0..MOST + 10 {
        cache.apply(&id, 1, Event::Apply(slice(number)));
    }
    assert_eq!(cache.all(&id).len(), MOST);
    read(&cache, &id, 1, (MOST..3 * MOST).map(slice));
    assert_eq!(cache.all(&id).len(), MOST);
    // Events about known objects are still processed.
    let known = cache.all(&id)[0].clone();
    cache.apply(&id, 1, Event::Delete(Object::clone(&known)));
    assert_eq!(cache.all(&id).len(), MOST - 1);
}

#[test]
fn objects_that_a_tenant_labels_elsewhere_are_not_kept() {
    let both = json!({labels::OWNER_NAMESPACE: "home", labels::OWNER_NAME: "edge"});
    let one = json!({labels::OWNER_NAME: "edge"});
    for (kind, name, labels, is_kept) in [
        (Kind::Pod, "alice/a", &both, false),
        (Kind::Pod, "alice/a", &one, false),
        (Kind::Pod, "home/a", &both, true),
        (Kind::ReplicaSet, "alice/a", &one, false),
        (Kind::Lease, "alice/a", &one, false),
        (Kind::ExtensionService, "alice/a", &both, false),
        (Kind::ExtensionService, "alice/edge-ext-auth-0123456789", &both, true),
        (Kind::Service, "alice/edge-ext-auth-0123456789", &both, true),
    ] {
        let (cache, id) = begun(StoreId::owned(kind));
        let touched = cache.apply(&id, 1, Event::Apply(labelled(kind, name, "1", labels)));
        assert_eq!(cache.all(&id).len(), usize::from(is_kept), "{kind} {name} {labels}");
        assert_eq!(touched.is_some(), is_kept, "{kind} {name} {labels}");
    }
}

#[test]
fn the_newer_state_of_an_object_in_two_sets_counts() {
    let (cache, ours) = begun(StoreId::owned(Kind::ExtensionService));
    let beside = StoreId::all_in(Kind::ExtensionService, "auth");
    assert_eq!(cache.begin(&beside), 2);
    let both = json!({labels::OWNER_NAMESPACE: "home", labels::OWNER_NAME: "edge"});
    let stand_in = |version: &str| {
        let mut object = labelled(Kind::ExtensionService, "auth/edge-ext-auth-0123456789", version, &both);
        object.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        object
    };
    let seen = || {
        let owned = cache.owned(&NamespacedName::new("home", "edge"));
        owned.into_values().map(|object| version(&object)).collect::<Vec<_>>()
    };
    cache.apply(&ours, 1, Event::Apply(stand_in("5")));
    cache.apply(&beside, 2, Event::Apply(stand_in("4")));
    assert_eq!(seen(), [5]);
    cache.apply(&beside, 2, Event::Apply(stand_in("6")));
    assert_eq!(seen(), [6]);
}

#[test]
fn a_relist_reports_only_changes() {
    let (cache, id) = begun(StoreId::owned(Kind::Pod));
    let pod = |number: usize, version: &str, mark: &str| {
        let labels = json!({labels::OWNER_NAMESPACE: "home", labels::OWNER_NAME: "edge", "mark": mark});
        labelled(Kind::Pod, &format!("home/{number}"), version, &labels)
    };
    let first = read(&cache, &id, 1, (0..100).map(|number| pod(number, "1", "")));
    assert!(first.is_some_and(|touched| touched.is_first_read && touched.changes.len() == 100));
    let again = read(&cache, &id, 1, (0..100).map(|number| pod(number, "2", "")));
    assert!(again.is_none(), "another version is no change: {again:?}");
    let others = [pod(1, "3", "other"), pod(100, "3", "")];
    let same = (2..100).map(|number| pod(number, "2", ""));
    let touched = read(&cache, &id, 1, same.chain(others)).expect("it is other than before");
    let names: Vec<_> = touched.changes.iter().map(|change| change.name.as_str()).collect();
    assert!(!touched.is_first_read);
    assert_eq!(names, ["0", "1", "100"], "one is gone, one is other, one has come");
    assert!(touched.changes.iter().all(|change| change.owners.len() == 1));
}

#[test]
fn the_event_of_an_answered_write_is_reported_to_others() {
    let ours = StoreId::owned(Kind::ExtensionService);
    let (cache, beside) = begun(StoreId::all_in(Kind::ExtensionService, "auth"));
    assert_eq!(cache.begin(&ours), 2);
    let both = json!({labels::OWNER_NAMESPACE: "home", labels::OWNER_NAME: "edge"});
    let stand_in = |version: &str| {
        let mut object = labelled(Kind::ExtensionService, "auth/edge-ext-auth-0123456789", version, &both);
        object.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        object.annotate("version", version.to_owned());
        object
    };
    cache.note(&stand_in("5"), &NamespacedName::new("home", "edge"));
    assert!(
        cache.apply(&ours, 2, Event::Apply(stand_in("5"))).is_none(),
        "its owner knows it"
    );
    let change = only(cache.apply(&beside, 1, Event::Apply(stand_in("5"))));
    assert!(change.owners.is_empty(), "who asks for it by name does not: {change:?}");
    assert!(cache.apply(&beside, 1, Event::Apply(stand_in("6"))).is_some());
    // The same state from the other set.
    assert!(
        only(cache.apply(&ours, 2, Event::Apply(stand_in("6"))))
            .owners
            .is_empty()
    );
    // The object gets another owner. The former owner observes the former state in the other set until that set has the new state, too.
    let mut taken = stand_in("7");
    let labels = taken.metadata.labels.as_mut().expect("it has some");
    labels.insert(labels::OWNER_NAMESPACE.to_owned(), "elsewhere".to_owned());
    for (id, watch) in [(&beside, 1), (&ours, 2)] {
        let change = only(cache.apply(id, watch, Event::Apply(taken.clone())));
        assert_eq!(change.owners.len(), 2);
    }
    // An answer showed that the object is gone. The others learn this from the relist.
    cache.note_gone(&taken.key(), None);
    let touched = read(&cache, &beside, 1, []).expect("it was unread");
    assert_eq!(touched.changes.len(), 1);
}

#[test]
fn a_listed_set_belongs_to_one_owner_and_stores_answers() {
    let id = StoreId::owned_in(Kind::Lease, "home");
    let lease = |owner: &str, name: &str| {
        let labels = json!({labels::OWNER_NAMESPACE: "home", labels::OWNER_NAME: owner});
        labelled(Kind::Lease, &format!("home/{name}"), "1", &labels)
    };
    let cache = Cache::default();
    let [edge, other] = ["edge", "other"].map(|name| NamespacedName::new("home", name));
    cache.open(&id);
    cache.note(&lease("edge", "made"), &edge);
    cache.note_listed(&id, &other, Some(vec![lease("other", "other")]));
    assert_eq!(names(&cache, &id), wanted(&["made", "other"]));
    cache.note_listed(&id, &edge, Some(vec![lease("edge", "left")]));
    assert_eq!(names(&cache, &id), wanted(&["left", "other"]));
    for whose in [&edge, &other] {
        cache.note_listed(&id, whose, None);
    }
    assert!(cache.stores.read().expect("no panic").is_empty());
}
