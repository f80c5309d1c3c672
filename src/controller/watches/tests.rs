use std::pin::pin;

use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use super::*;
use crate::controller::played;
use crate::controller::tests::context;
use crate::controller::triggers::wake;

fn object(kind: Kind, name: &str) -> Object {
    Object::from_json(kind, json!({"metadata": {"namespace": "a", "name": name}})).expect("an object")
}

#[test]
fn only_contours_and_slipways_crds_are_kept_or_wake() {
    let is_wanted = |name: &str| is_wanted(&Event::Apply(object(Kind::CustomResourceDefinition, name)));
    assert!(contour::REQUIRED_CRDS.iter().all(|name| is_wanted(name)));
    assert!(with_contour().iter().all(|(name, _)| is_wanted(name)));
    assert!(is_wanted("contourdeployments.contour.slipway.dev"));
    let others = (0..1_000).map(|number| format!("{number}.example.com"));
    assert_eq!(others.filter(|name| is_wanted(name)).count(), 0);
}

#[test]
fn leases_are_not_watched() {
    assert!(always().iter().all(|id| id.kind != Kind::Lease));
}

/// Returns a page with one ContourDeployment, and no events after the page.
#[allow(clippy::unnecessary_wraps)] // as all answers are
fn page(fields: &Value) -> played::Answer {
    let entry = json!({"manager": "kubectl", "operation": "Update", "fieldsV1": fields});
    let metadata = json!({
        "namespace": "home", "name": "edge", "uid": "1", "resourceVersion": "1", "managedFields": [entry],
        "annotations": {"a": "a".repeat(10_000)},
    });
    let items = json!([{"apiVersion": "contour.slipway.dev/v1alpha1", "kind": "ContourDeployment", "metadata": metadata, "spec": {}}]);
    Some((200, json!({"metadata": {"resourceVersion": "1"}, "items": items})))
}

/// Lists all ContourDeployments. Returns what kube's controller received, in bytes of JSON, and the reported changes.
async fn read(context: &crate::controller::Context, touched: &mut UnboundedReceiver<Touched>) -> (usize, Touched) {
    let mut root = pin!(context.watches.root());
    let mut bytes = 0;
    while let Some(Ok(event)) = root.next().await {
        match event {
            Event::InitApply(reference) => bytes += serde_json::to_string(&reference).expect("JSON").len(),
            Event::InitDone => break,
            _ => {}
        }
    }
    (bytes, touched.recv().await.expect("something was read"))
}

#[tokio::test]
async fn the_controller_gets_references_without_managed_fields() {
    let fields: Value = json!(vec![json!({"f:a": {}}); 100_000]);
    let (context, mut touched) = context(played::client(move |_, _| page(&fields)));
    let (bytes, seen) = read(&context, &mut touched).await;
    assert!((1..200).contains(&bytes), "{bytes} bytes");
    let key = Key::new(Kind::ContourDeployment, "home", "edge");
    let kept = context.cache.get(&StoreId::all(key.kind), &key).expect("it was read");
    assert_eq!(kept.metadata.managed_fields, None);
    assert!(kept.annotation("a").is_some(), "all the rest is kept");
    assert_eq!(wake(&context, &seen), [kept.id()].into());
}

#[tokio::test]
async fn contours_crd_starts_its_watch_whose_first_list_wakes_all() {
    let (context, mut touched) = context(played::client(|_, path| {
        let is_root = path.contains("contourdeployments");
        let empty = Some((200, json!({"metadata": {"resourceVersion": "1"}, "items": []})));
        if is_root { page(&json!({})) } else { empty }
    }));
    let (_, seen) = read(&context, &mut touched).await;
    assert_eq!(wake(&context, &seen).len(), 1);
    let crds = StoreId::all(Kind::CustomResourceDefinition);
    let number = context.cache.begin(&crds);
    for event in [Event::Init, Event::InitDone] {
        context.cache.apply(&crds, number, event);
    }
    assert!(context.watches.of_contour().is_empty());
    let crd = object(Kind::CustomResourceDefinition, EXTENSION_SERVICES);
    let seen = context
        .cache
        .apply(&crds, number, Event::Apply(crd))
        .expect("it has come");
    assert_eq!(wake(&context, &seen).len(), 1);
    let started = context.watches.of_contour();
    assert_eq!(started, [StoreId::owned(Kind::ExtensionService)]);
    let seen = touched.recv().await.expect("it is read");
    assert!(seen.set == started[0] && seen.is_first_read && seen.changes.is_empty());
    assert_eq!(wake(&context, &seen).len(), 1);
    assert!(context.agenda.begin(&NamespacedName::new("home", "edge")).is_none());
}
