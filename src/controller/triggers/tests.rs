//! Counts wake-ups. A hundred ContourDeployments have a namespace each. All reference one namespace, and each references its own service
//! there.

use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::*;
use crate::api::vocabulary::{FINALIZER, labels};
use crate::controller::decode::{self, Decoded, Form, SERVICE_NAME};
use crate::controller::interest::Needs;
use crate::plan::Object;

const CROWD: usize = 100;

const REFERENCED: [Kind; 3] = [Kind::ExtensionService, Kind::Service, Kind::EndpointSlice];

/// Returns the kept parts of an object.
fn kept<F: Form>(kind: Kind, metadata: &Value, rest: &Value) -> Object {
    let mut json = rest.clone();
    json["metadata"] = metadata.clone();
    let found: Decoded<F> = serde_json::from_str(&json.to_string()).expect("an object");
    found.into_object(kind)
}

fn whose(number: usize) -> NamespacedName {
    NamespacedName::new(format!("home-{number}"), "edge")
}

fn root(number: usize) -> Object {
    let metadata = json!({"namespace": format!("home-{number}"), "name": "edge", "uid": number.to_string(), "resourceVersion": "1"});
    kept::<decode::Ours>(Kind::ContourDeployment, &metadata, &json!({}))
}

/// Returns the stand-in of one ContourDeployment of the crowd, with these labels.
fn stand_in(number: usize, version: usize, labels: &Value) -> Object {
    let metadata = json!({
        "namespace": "auth", "name": format!("edge-ext-auth-{number:010}"), "uid": number.to_string(),
        "resourceVersion": version.to_string(), "labels": labels, "finalizers": [FINALIZER],
    });
    kept::<decode::ExtensionServices>(Kind::ExtensionService, &metadata, &json!({"spec": {"a": version}}))
}

fn marks(number: usize) -> Value {
    let NamespacedName { namespace, name } = whose(number);
    json!({labels::OWNER_NAMESPACE: namespace, labels::OWNER_NAME: name})
}

/// Returns the needs of one ContourDeployment of the crowd.
fn users(kind: Kind, number: usize, version: usize) -> Object {
    let name = format!("auth-{number}");
    let metadata = json!({"namespace": "auth", "name": name, "uid": name, "resourceVersion": version.to_string()});
    match kind {
        Kind::ExtensionService => kept::<decode::ExtensionServices>(kind, &metadata, &json!({"spec": {"a": version}})),
        Kind::Service => kept::<decode::Services>(kind, &metadata, &json!({"spec": {"ports": [{"port": version}]}})),
        _ => slice(number, 0, version, &json!([{"conditions": {"ready": true}}])),
    }
}

/// Returns an EndpointSlice of one of these Services.
fn slice(number: usize, which: usize, version: usize, endpoints: &Value) -> Object {
    let service = format!("auth-{number}");
    let metadata = json!({
        "namespace": "auth", "name": format!("{service}-{which}"), "uid": format!("{number}-{which}"), "generation": version,
        "resourceVersion": version.to_string(), "labels": {SERVICE_NAME: service, "version": version.to_string()},
    });
    kept::<decode::EndpointSlices>(Kind::EndpointSlice, &metadata, &json!({"endpoints": endpoints}))
}

fn namespace(name: &str, version: usize, is_terminating: bool) -> Object {
    let mut metadata = json!({
        "name": name, "uid": name, "resourceVersion": version.to_string(), "labels": {"version": version.to_string()},
        "annotations": {"version": version.to_string()},
    });
    if is_terminating {
        metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    kept::<decode::Existence>(
        Kind::Namespace,
        &metadata,
        &json!({"status": {"phase": version.to_string()}}),
    )
}

struct Crowd {
    cache: Cache,
    interest: Interest,
}

impl Crowd {
    fn new() -> Self {
        let mut crowd = Self {
            cache: Cache::default(),
            interest: Interest::default(),
        };
        for number in 0..CROWD {
            let needs = |kind: Kind| (StoreId::all_in(kind, "auth"), [format!("auth-{number}")].into());
            crowd
                .interest
                .set(&whose(number), Needs::from_iter(REFERENCED.map(needs)));
        }
        for kind in REFERENCED {
            let set = StoreId::all_in(kind, "auth");
            crowd.cache.want(&set, crowd.interest.names(&set));
            let read = crowd.begin(&set, (0..CROWD).map(|number| users(kind, number, 1)));
            assert_eq!(read, 0, "nobody is there yet");
        }
        crowd.begin(&StoreId::all(Kind::ContourDeployment), (0..CROWD).map(root));
        let stand_ins = (0..CROWD).map(|number| stand_in(number, 1, &marks(number)));
        crowd.begin(&StoreId::owned(Kind::ExtensionService), stand_ins);
        let namespaces = (0..CROWD).map(|number| namespace(&format!("home-{number}"), 1, false));
        let others = ["auth", "elsewhere"].map(|name| namespace(name, 1, false));
        crowd.begin(&StoreId::all(Kind::Namespace), namespaces.chain(others));
        crowd
    }

    /// Lists a set by a new watch.
    fn begin(&self, set: &StoreId, objects: impl IntoIterator<Item = Object>) -> usize {
        // The order in which the sets begin makes no difference to these tests.
        self.cache.begin(set);
        self.read(set, objects)
    }

    /// Lists a set by the watch that began last.
    fn read(&self, set: &StoreId, objects: impl IntoIterator<Item = Object>) -> usize {
        let objects = objects.into_iter().map(Event::InitApply);
        let events = [Event::Init].into_iter().chain(objects).chain([Event::InitDone]);
        events.map(|event| self.see(set, event).len()).sum()
    }

    /// Returns the ContourDeployments that an event wakes.
    fn see(&self, set: &StoreId, event: Event<Object>) -> BTreeSet<NamespacedName> {
        let touched = self.cache.apply(set, self.cache.watch(set), event);
        let woken = touched.map(|touched| concerned(&self.cache, &self.interest, &touched));
        let there = self.cache.all(&StoreId::all(Kind::ContourDeployment));
        let mut woken = woken.unwrap_or_default();
        woken.retain(|whose| there.iter().any(|object| object.id() == *whose));
        woken
    }

    fn woken_by(&self, set: &StoreId, object: Object) -> Vec<NamespacedName> {
        self.see(set, Event::Apply(object)).into_iter().collect()
    }
}

#[test]
fn an_event_on_slipways_object_wakes_only_its_owner_and_once() {
    let crowd = Crowd::new();
    let [ours, beside] = [
        StoreId::owned(Kind::ExtensionService),
        StoreId::all_in(Kind::ExtensionService, "auth"),
    ];
    assert_eq!(crowd.woken_by(&ours, stand_in(7, 2, &marks(7))), [whose(7)]);
    // Both sets contain the object, and the second event reports nothing new.
    assert!(crowd.woken_by(&beside, stand_in(7, 2, &marks(7))).is_empty());
    assert_eq!(
        crowd.see(&ours, Event::Delete(stand_in(7, 3, &marks(7)))),
        [whose(7)].into()
    );
    let service = |version: usize| {
        let metadata = json!({
            "namespace": "auth", "name": "edge-ext-auth-0000000007", "resourceVersion": version.to_string(), "labels": marks(7),
        });
        kept::<decode::Ours>(Kind::Service, &metadata, &json!({"spec": {"a": version}}))
    };
    let services = StoreId::owned(Kind::Service);
    crowd.begin(&services, [service(1)]);
    assert_eq!(crowd.woken_by(&services, service(2)), [whose(7)]);
}

#[test]
fn an_event_on_a_referenced_object_wakes_those_who_reference_it() {
    let mut crowd = Crowd::new();
    let unready = slice(7, 0, 2, &json!([{"conditions": {"ready": false}}]));
    let changes = [users(Kind::ExtensionService, 7, 2), users(Kind::Service, 7, 2), unready];
    for change in changes {
        let set = StoreId::all_in(change.kind, "auth");
        assert_eq!(crowd.woken_by(&set, change.clone()), [whose(7)], "{change:?}");
    }
    // Two ContourDeployments ask for the same name, and one of them asks for another name later.
    let set = StoreId::all_in(Kind::Service, "auth");
    let asks_for = |names: [&str; 2]| Needs::from([(set.clone(), names.map(str::to_owned).into())]);
    crowd.interest.set(&whose(8), asks_for(["auth-7", "auth-8"]));
    assert_eq!(crowd.woken_by(&set, users(Kind::Service, 7, 3)), [whose(7), whose(8)]);
    crowd.interest.set(&whose(8), asks_for(["auth-8", "auth-9"]));
    assert_eq!(crowd.woken_by(&set, users(Kind::Service, 7, 4)), [whose(7)]);
    assert_eq!(
        crowd.see(&set, Event::Delete(users(Kind::Service, 7, 5))),
        [whose(7)].into()
    );
}

#[test]
fn a_stand_in_without_labels_wakes_its_former_owner_or_all() {
    let crowd = Crowd::new();
    let beside = StoreId::all_in(Kind::ExtensionService, "auth");
    crowd.woken_by(&beside, stand_in(7, 1, &marks(7)));
    for version in [2, 3] {
        let stripped = stand_in(7, version, &json!({"version": version.to_string()}));
        assert_eq!(crowd.woken_by(&beside, stripped), [whose(7)]);
    }
    let nobodys = stand_in(CROWD, 1, &json!({}));
    assert_eq!(crowd.woken_by(&beside, nobodys.clone()).len(), CROWD);
    assert_eq!(crowd.see(&beside, Event::Delete(nobodys)).len(), CROWD);
}

#[test]
fn only_a_changed_readiness_of_endpoint_slices_wakes() {
    let crowd = Crowd::new();
    let set = StoreId::all_in(Kind::EndpointSlice, "auth");
    let ready = json!([{"addresses": ["192.0.2.1"], "conditions": {"ready": true}}]);
    let unready = json!([{"conditions": {"ready": false}}]);
    let more = json!([{"addresses": ["192.0.2.2"]}, {"conditions": {"ready": false}}]);
    // Another version, generation and label; other endpoints; a second slice that is created and deleted.
    let of_no_interest = [
        Event::Apply(slice(7, 0, 2, &ready)),
        Event::Apply(slice(7, 0, 3, &more)),
        Event::Apply(slice(7, 1, 3, &unready)),
        Event::Apply(slice(7, 1, 4, &ready)),
        Event::Apply(slice(7, 0, 5, &unready)),
        Event::Apply(slice(7, 0, 6, &ready)),
        Event::Delete(slice(7, 1, 7, &unready)),
    ];
    let woken: usize = of_no_interest
        .into_iter()
        .map(|event| crowd.see(&set, event).len())
        .sum();
    assert_eq!(woken, 0);
    for event in [
        Event::Apply(slice(7, 0, 8, &unready)),
        Event::Apply(slice(7, 0, 9, &ready)),
        Event::Delete(slice(7, 0, 10, &ready)),
    ] {
        assert_eq!(crowd.see(&set, event), [whose(7)].into());
    }
    // The relist: all slices have changed, and one has lost its last endpoint.
    let one = |number: usize| slice(number, 0, 20, if number == 8 { &unready } else { &more });
    assert_eq!(
        crowd.read(&set, (0..CROWD).map(one)),
        2,
        "that, and the one that was gone"
    );
}

#[test]
fn a_namespace_wakes_those_in_it_and_around_on_phase_changes() {
    let mut crowd = Crowd::new();
    let set = StoreId::all(Kind::Namespace);
    let quiet = ["auth", "home-7", "elsewhere"].map(|name| crowd.woken_by(&set, namespace(name, 2, false)).len());
    assert_eq!(quiet, [0; 3], "labels and annotations");
    let loud = ["auth", "home-7", "elsewhere"].map(|name| crowd.woken_by(&set, namespace(name, 3, true)).len());
    assert_eq!(loud, [CROWD, 1, 0]);
    crowd.interest.set(&whose(7), Needs::new());
    assert_eq!(crowd.woken_by(&set, namespace("auth", 4, false)).len(), CROWD - 1);
    assert_eq!(crowd.woken_by(&set, namespace("new", 5, false)).len(), 0);
    assert_eq!(crowd.see(&set, Event::Delete(namespace("home-7", 6, true))).len(), 1);
}

#[test]
fn a_relist_wakes_those_that_depend_on_its_changes() {
    let crowd = Crowd::new();
    for (set, change) in [
        (StoreId::all_in(Kind::ExtensionService, "auth"), 3),
        (StoreId::all_in(Kind::Service, "auth"), 3),
        (StoreId::all_in(Kind::EndpointSlice, "auth"), 1),
    ] {
        let same = |number: usize| users(set.kind, number, 1);
        assert_eq!(crowd.read(&set, (0..CROWD).map(same)), 0, "{set:?}");
        let other = |number: usize| users(set.kind, number, if number == 7 { change } else { 1 });
        let expected = usize::from(change != 1);
        assert_eq!(crowd.read(&set, (0..CROWD).map(other)), expected, "{set:?}");
        assert_eq!(crowd.read(&set, (1..CROWD).map(other)), 1, "one is gone: {set:?}");
    }
    let ours = StoreId::owned(Kind::ExtensionService);
    let one = |number: usize| stand_in(number, if number == 7 { 2 } else { 1 }, &marks(number));
    assert_eq!(crowd.read(&ours, (0..CROWD).map(one)), 1);
    let roots = StoreId::all(Kind::ContourDeployment);
    assert_eq!(crowd.read(&roots, (0..CROWD).map(root)), 0);
    // No other event reports an object that was created during the list.
    assert_eq!(crowd.read(&roots, (0..=CROWD).map(root)), 1);
}

#[test]
fn the_first_list_of_a_set_wakes_those_who_wait_for_it() {
    let mut crowd = Crowd::new();
    for set in [
        StoreId::all_in(Kind::ExtensionService, "rate"),
        StoreId::owned_in(Kind::Secret, "home-7"),
    ] {
        crowd
            .interest
            .set(&whose(7), Needs::from([(set.clone(), BTreeSet::new())]));
        assert_eq!(crowd.begin(&set, []), 1);
        assert_eq!(crowd.read(&set, []), 0, "once more");
    }
    // The API server now serves Contour's kinds.
    for kind in [Kind::ExtensionService, Kind::ContourConfiguration] {
        assert_eq!(crowd.begin(&StoreId::owned(kind), []), CROWD, "{kind}");
    }
}
