use std::sync::{Arc, Mutex};

use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::*;
use crate::controller::cache::StoreId;
use crate::controller::tests::{context, holds};
use crate::controller::{played, triggers};
use crate::plan::Object;

#[test]
fn the_earliest_reason_decides_and_expired_refusals_do_not() {
    let refused = SettingsVerdict::Refused {
        hash: String::new(),
        message: String::new(),
    };
    let unchecked = SettingsVerdict::Unchecked;
    let [hour, minute, second] = [3600, 60, 1].map(Duration::from_secs);
    for (requeue_after, refusal, settings, expected) in [
        (None, None, &unchecked, hour),
        (Some(minute), None, &unchecked, minute),
        (Some(minute), Some(second), &refused, second),
        (Some(second), Some(minute), &refused, second),
        (Some(minute), Some(Duration::ZERO), &unchecked, minute),
        (Some(Duration::ZERO), None, &unchecked, AT_LEAST),
    ] {
        let waits = Waits {
            resync: hour,
            requeue_after,
            refusal,
            leases: hour,
        };
        assert_eq!(
            waits.shortest(settings),
            expected,
            "{requeue_after:?} {refusal:?} {settings:?}"
        );
    }
}

/// Returns the number of plans, according to the metrics.
fn plans(context: &Context) -> usize {
    let text = context.telemetry.metrics.encode(jiff::Timestamp::now());
    let counts = text
        .lines()
        .filter(|line| line.starts_with("slipway_reconciles_total{"));
    counts
        .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
        .sum()
}

fn root(version: u32, annotation: &str, status: Option<&Value>) -> Object {
    let metadata = json!({
        "namespace": "home", "name": "edge", "uid": "1", "resourceVersion": version.to_string(), "generation": 1,
        "annotations": {"a": annotation},
    });
    let mut json = json!({"metadata": metadata, "spec": {}});
    if let Some(status) = status {
        json["status"] = status.clone();
    }
    Object::from_json(Kind::ContourDeployment, json).expect("an object")
}

#[tokio::test]
async fn a_settled_contour_deployment_ignores_its_own_status_event() {
    let written = Arc::new(Mutex::new(Vec::<Value>::new()));
    let requests = written.clone();
    let (context, _touched) = context(played::client_with_body(move |method, _, sent| {
        if method == http::Method::GET {
            return Some((200, json!({"metadata": {"resourceVersion": "1"}, "items": []})));
        }
        let status = sent[0]["value"].clone();
        requests.lock().unwrap().push(status.clone());
        Some((200, root(2, "", Some(&status)).to_json()))
    }));
    let whose = NamespacedName::new("home", "edge");
    let roots = StoreId::all(Kind::ContourDeployment);
    let woken = holds(&context.cache, &roots, [root(1, "", None)]);
    assert_eq!(triggers::wake(&context, &woken), [whose.clone()].into());
    // Contour's CRDs do not exist, so the plan only reports this.
    reconcile(&context, &whose).await;
    assert_eq!((plans(&context), written.lock().unwrap().len()), (1, 1));
    let status = written.lock().unwrap()[0].clone();
    assert_eq!(status["observedGeneration"], 1);

    // The operator's own status, whether the event or the answer arrives first.
    let see = |object: Object| {
        context
            .cache
            .apply(&roots, context.cache.watch(&roots), Event::Apply(object))
    };
    assert!(see(root(2, "", Some(&status))).is_none());
    context
        .cache
        .note_status(&root(2, "", None).key(), &json!({"observedGeneration": 2}));
    assert!(see(root(3, "", Some(&json!({"observedGeneration": 2})))).is_none());
    assert!(see(root(4, "", Some(&status))).is_some(), "somebody else's");
    context.cache.note_status(&root(2, "", None).key(), &status);

    // An edit that the answer shows first is older than the answer, and is reported with the answer's event.
    context.cache.note(&root(7, "edited", Some(&status)), &whose);
    assert!(see(root(6, "edited", None)).is_none());
    assert!(see(root(7, "edited", Some(&status))).is_some());

    // Calls without a reason.
    for _ in 0..10 {
        reconcile(&context, &whose).await;
    }
    assert_eq!((plans(&context), written.lock().unwrap().len()), (1, 1));
    let namespace = Object::from_json(Kind::Namespace, json!({"metadata": {"name": "home"}})).expect("an object");
    let reasons = [
        holds(&context.cache, &StoreId::all(Kind::Namespace), [namespace]),
        see(root(8, "other", Some(&status))).expect("it was edited"),
    ];
    for (count, reason) in reasons.iter().enumerate() {
        triggers::wake(&context, reason);
        for _ in 0..10 {
            reconcile(&context, &whose).await;
        }
        assert_eq!(plans(&context), 2 + count, "{reason:?}");
    }
    assert_eq!(written.lock().unwrap().len(), 1, "nothing is to be said");
}

#[tokio::test]
async fn an_unsettled_contour_deployment_is_planned_each_time() {
    let (context, _touched) = context(played::client(|_, _| played::refusal(500, "InternalError")));
    let whose = NamespacedName::new("home", "edge");
    holds(
        &context.cache,
        &StoreId::all(Kind::ContourDeployment),
        [root(1, "", None)],
    );
    for count in 1..=3 {
        reconcile(&context, &whose).await;
        assert_eq!(plans(&context), count, "its status could not be written");
    }
}
