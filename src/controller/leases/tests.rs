use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::*;
use crate::api::vocabulary::FINALIZER;
use crate::controller::decode::Form as _;
use crate::controller::reconcile::reconcile;
use crate::controller::tests::{context, holds};
use crate::controller::{Context, played};
use crate::plan::Object;

fn whose() -> NamespacedName {
    NamespacedName::new("home", "edge")
}

/// Returns a ContourDeployment that is being deleted, with Slipway's finalizer.
fn going() -> Object {
    let metadata = json!({
        "namespace": "home", "name": "edge", "uid": "1", "resourceVersion": "1", "finalizers": [FINALIZER],
        "deletionTimestamp": "2026-01-01T00:00:00Z",
    });
    Object::from_json(Kind::ContourDeployment, json!({"metadata": metadata, "spec": {}})).expect("an object")
}

fn lease() -> Value {
    let labels = json!({labels::OWNER_NAMESPACE: "home", labels::OWNER_NAME: "edge"});
    json!({"metadata": {"namespace": "home", "name": "edge-contour", "uid": "2", "resourceVersion": "2", "labels": labels}})
}

/// Returns the answers of an API server with these Leases, and the requests that it received, except those of watches. None: the API server
/// refuses to list the Leases.
fn server(leases: Arc<Mutex<Option<Vec<Value>>>>) -> (Context, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    let client = played::client_with_body(move |method, path, mut sent| {
        let plural = path.rsplit("/namespaces/home/").next().unwrap_or_default();
        if plural == "leases" || method != http::Method::GET {
            log.lock().unwrap().push(format!("{method} {plural}"));
        }
        let list = |items: Vec<Value>| Some((200, json!({"metadata": {"resourceVersion": "1"}, "items": items})));
        match (method.as_str(), plural) {
            ("GET", "leases") => match leases.lock().unwrap().clone() {
                Some(leases) => list(leases),
                None => played::refusal(503, "ServiceUnavailable"),
            },
            ("GET", _) => list(Vec::new()),
            ("DELETE", _) => Some((200, json!({"kind": "Status", "status": "Success"}))),
            ("PATCH", "contourdeployments/edge") => {
                let mut object = going();
                object.metadata.finalizers = None;
                Some((200, object.to_json()))
            }
            ("PATCH", _) => Some((200, going().to_json())),
            _ => {
                sent["metadata"]["uid"] = json!(plural);
                sent["metadata"]["resourceVersion"] = json!("3");
                Some((201, sent))
            }
        }
    });
    let (context, _touched) = context(client);
    holds(&context.cache, &StoreId::all(Kind::ContourDeployment), [going()]);
    holds(&context.cache, &StoreId::owned(Kind::RoleBinding), []);
    (context, asked)
}

#[tokio::test]
async fn the_end_of_a_deletion_waits_for_a_list_of_the_leases() {
    let leases = Arc::new(Mutex::new(Some(Vec::new())));
    let (context, asked) = server(leases.clone());
    // The Leases were listed a minute ago. A deletion lists them again.
    read(&context, &whose()).await.expect("it is listed");
    *leases.lock().unwrap() = None;
    for _ in 0..2 {
        reconcile(&context, &whose()).await;
    }
    assert_eq!(*asked.lock().unwrap(), ["GET leases"; 3], "nothing is written");
    assert_eq!(context.backoff.len(), 1);
    *leases.lock().unwrap() = Some(Vec::new());
    reconcile(&context, &whose()).await;
    assert_eq!(
        asked.lock().unwrap()[3..],
        ["GET leases", "PATCH contourdeployments/edge"]
    );
    assert!(
        context
            .cache
            .get(&StoreId::all(Kind::ContourDeployment), &going().key())
            .is_none()
    );
}

#[tokio::test]
async fn a_remaining_lease_is_deleted_before_the_contour_deployment() {
    let leases = Arc::new(Mutex::new(Some(Vec::new())));
    let (context, asked) = server(leases.clone());
    let namespace = json!({"metadata": {"name": "home"}});
    let namespace = Object::from_json(Kind::Namespace, namespace).expect("an object");
    holds(&context.cache, &StoreId::all(Kind::Namespace), [namespace]);
    read(&context, &whose()).await.expect("it is listed");
    *leases.lock().unwrap() = Some(vec![lease()]);
    reconcile(&context, &whose()).await;
    let asked = asked.lock().unwrap();
    let writes: Vec<_> = asked.iter().filter(|asked| !asked.starts_with("POST")).collect();
    assert_eq!(
        writes,
        [
            "GET leases",
            "GET leases",
            "DELETE leases/edge-contour",
            "PATCH contourdeployments/edge"
        ]
    );
}

#[tokio::test]
async fn leases_are_listed_every_ten_minutes_and_failures_do_no_harm() {
    let leases = Arc::new(Mutex::new(Some(vec![lease()])));
    let (context, asked) = server(leases.clone());
    for expected in [true, false, false] {
        assert_eq!(read_if_due(&context, &whose()).await, expected);
    }
    assert_eq!(context.cache.owned(&whose()).len(), 1);
    let wait = context.leases.wait(&whose(), None);
    assert!(wait > RESYNC / 2 && wait <= RESYNC * 2, "{wait:?}");
    context.leases.list_in(&whose(), None, Duration::ZERO);
    *leases.lock().unwrap() = None;
    assert!(!read_if_due(&context, &whose()).await);
    assert_eq!(context.cache.owned(&whose()).len(), 1, "what is known stays known");
    assert!(context.leases.wait(&whose(), None) <= FAILED * 2);
    assert_eq!(asked.lock().unwrap().len(), 2);
    context.forget(&whose());
    assert!(context.cache.owned(&whose()).is_empty() && context.leases.wait(&whose(), None).is_zero());
}

#[tokio::test]
async fn the_list_of_the_leases_follows_all_pages() {
    let queries = Arc::new(Mutex::new(Vec::new()));
    let log = queries.clone();
    let (context, _touched) = context(played::client_with_query(move |_, uri, _| {
        let query = uri.query().unwrap_or_default();
        let is_asked = |parameter: &str| query.split('&').any(|asked| asked == parameter);
        let page = log.lock().unwrap().len();
        log.lock().unwrap().push(is_asked(&format!("limit={}", Marks::PAGE)));
        let (expected, token) = [(None, "one"), (Some("continue=one"), "two"), (Some("continue=two"), "")][page];
        if expected.map_or(query.contains("continue="), |expected| !is_asked(expected)) {
            return played::refusal(400, "BadRequest");
        }
        let mut lease = lease();
        lease["metadata"]["name"] = json!(format!("edge-{page}"));
        Some((
            200,
            json!({"metadata": {"resourceVersion": "1", "continue": token}, "items": [lease]}),
        ))
    }));
    read(&context, &whose()).await.expect("it is listed");
    assert_eq!(*queries.lock().unwrap(), [true; 3]);
    let found = context.cache.owned(&whose());
    let names: Vec<_> = found.keys().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["edge-0", "edge-1", "edge-2"]);
}

#[test]
fn another_generation_makes_a_list_due() {
    let leases = Leases::default();
    assert!(leases.wait(&whose(), Some(1)).is_zero());
    leases.list_in(&whose(), Some(1), Duration::from_hours(1));
    assert!(!leases.wait(&whose(), Some(1)).is_zero());
    assert!(leases.wait(&whose(), Some(2)).is_zero());
}
