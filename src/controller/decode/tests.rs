use kube::api::ObjectList;
use kube::core::WatchEvent;
use serde_json::json;

use super::metadata::ENTRIES;
use super::*;
use crate::api::vocabulary::{FIELD_MANAGER, FINALIZER, labels};
use crate::plan::has_ready_endpoint;

/// Returns the kept parts of this object.
fn kept<F: Form>(kind: Kind, json: &Value) -> Object {
    let found: Decoded<F> = serde_json::from_str(&json.to_string()).expect("an object");
    found.into_object(kind)
}

/// Returns the length of the kept parts as JSON. The memory is about proportional to this length.
fn length(object: &Object) -> usize {
    object.to_json().to_string().len()
}

/// Returns metadata of the maximum size of an object.
fn large_metadata() -> Value {
    let entries: Map<String, Value> = (0..100_000).map(|number| (format!("a{number}"), json!(""))).collect();
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "1"});
    let mut finalizers = vec![json!("example.com/a"); 20_000];
    finalizers.extend(vec![json!(FINALIZER); 20_000]);
    let mut labels = entries.clone();
    labels.insert(labels::OWNER_NAME.to_owned(), json!("edge"));
    labels.insert(labels::OWNER_NAMESPACE.to_owned(), json!("home"));
    labels.insert(SERVICE_NAME.to_owned(), json!("auth"));
    json!({
        "name": "a", "namespace": "alice", "uid": "1", "resourceVersion": "7", "generation": 3,
        "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-01T00:00:01Z",
        "labels": labels, "annotations": entries, "ownerReferences": vec![owner; 10_000], "finalizers": finalizers,
        "managedFields": vec![json!({"manager": "a", "operation": "Update", "fieldsV1": {"f:a": {}}}); 10_000],
    })
}

#[test]
fn a_pod_keeps_its_phase_and_limited_metadata() {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": large_metadata(),
        "spec": {"containers": [{"env": vec![json!({"name": "a"}); 150_000]}]},
        "status": {"phase": "Running", "conditions": vec![json!({"type": "Ready"}); 10_000]},
    });
    let pod = kept::<Pods>(Kind::Pod, &pod);
    assert_eq!(
        Value::Object(pod.content.clone()),
        json!({"status": {"phase": "Running"}})
    );
    assert!(length(&pod) < 100_000, "{}", length(&pod));
    assert_eq!((pod.id().to_string(), pod.uid()), ("alice/a".to_owned(), "1"));
    let metadata = &pod.metadata;
    assert_eq!(
        (metadata.generation, metadata.resource_version.as_deref()),
        (Some(3), Some("7"))
    );
    assert!(pod.is_terminating() && metadata.creation_timestamp.is_some());
    assert_eq!(metadata.owner_references.as_ref().map(Vec::len), Some(ENTRIES));
    // Everything that the core reads is kept, wherever it is in the object.
    assert_eq!(pod.label(labels::OWNER_NAME), Some("edge"));
    assert_eq!(pod.label(labels::OWNER_NAMESPACE), Some("home"));
    assert!(pod.has_our_finalizer());
    assert_eq!(metadata.finalizers.as_ref().map(Vec::len), Some(ENTRIES + 1));
}

#[test]
fn a_replica_set_keeps_everything_except_the_pod_spec() {
    let set = |annotation: &str| {
        json!({
            "metadata": {"name": "a", "namespace": "alice"},
            "spec": {"replicas": 2, "template": {
                "metadata": {"annotations": {"a": annotation}},
                "spec": {"containers": vec![json!({"name": "a"}); 100_000]},
            }},
            "status": {
                "observedGeneration": 1, "replicas": 2, "readyReplicas": 1, "availableReplicas": 0,
                "conditions": vec![json!({"message": "a"}); 100_000],
            },
        })
    };
    let kept_set = kept::<ReplicaSets>(Kind::ReplicaSet, &set("captured"));
    let expected = json!({
        "spec": {"replicas": 2, "template": {"metadata": {"annotations": {"a": "captured"}}}},
        "status": {"observedGeneration": 1, "replicas": 2, "readyReplicas": 1, "availableReplicas": 0},
    });
    assert_eq!(Value::Object(kept_set.content), expected);
    // Kubernetes itself permits at most 256 KiB of annotations.
    let longest = kept::<ReplicaSets>(Kind::ReplicaSet, &set(&"a".repeat(256 * 1024)));
    assert!(longest.at("/spec/template/metadata").is_some());
    let longer = kept::<ReplicaSets>(Kind::ReplicaSet, &set(&"a".repeat(LONGEST_TEMPLATE)));
    assert!(length(&longer) < 1_000);
}

#[test]
fn a_users_service_keeps_its_type_and_port_numbers() {
    let ports = (1..=30_000).map(|port| json!({"name": format!("port-{port}"), "port": port, "protocol": "TCP"}));
    let service = json!({
        "metadata": large_metadata(),
        "spec": {"type": "ExternalName", "externalName": "a.example.com", "ports": ports.collect::<Vec<_>>(), "selector": {"a": "b"}},
        "status": {"loadBalancer": {"ingress": vec![json!({"ip": "192.0.2.1"}); 1_000]}},
    });
    let service = kept::<Services>(Kind::Service, &service);
    let numbers: Vec<_> = (1..=PORTS).collect();
    assert_eq!(
        Value::Object(service.content.clone()),
        json!({"spec": {"type": "ExternalName", "ports": numbers}})
    );
    assert!(length(&service) < 2_000, "{}", length(&service));
    assert!(service.metadata.creation_timestamp.is_some() && service.is_terminating());
    assert_eq!(service.uid(), "1");
}

#[test]
fn an_endpoint_slice_keeps_its_service_and_its_readiness() {
    let slice = |conditions: &Value| {
        let endpoint = json!({"addresses": vec!["192.0.2.1"; 100], "conditions": conditions});
        let unready = json!({"addresses": ["192.0.2.1"], "conditions": {"ready": false}});
        let mut endpoints = vec![unready; 999];
        endpoints.push(endpoint);
        json!({"metadata": large_metadata(), "addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 1}]})
    };
    for (conditions, is_ready) in [
        (json!({"ready": true}), true),
        (json!({"ready": false}), false),
        (json!({"ready": null}), true),
        (json!({}), true),
        (json!(null), true),
    ] {
        let json = slice(&conditions);
        let found = kept::<EndpointSlices>(Kind::EndpointSlice, &json);
        assert_eq!(has_ready_endpoint(&found), is_ready, "{conditions}");
        let whole = Object::from_json(Kind::EndpointSlice, json).expect("an object");
        assert_eq!(has_ready_endpoint(&whole), is_ready, "{conditions}");
        assert_eq!(found.label(SERVICE_NAME), Some("auth"));
        assert!(length(&found) < 250, "{}", length(&found));
    }
    for endpoints in [json!([]), json!(null)] {
        let json = json!({"metadata": {"name": "a"}, "endpoints": endpoints});
        assert!(!has_ready_endpoint(&kept::<EndpointSlices>(Kind::EndpointSlice, &json)));
    }
}

#[test]
fn a_namespace_or_crd_keeps_its_name_and_deletion() {
    let found = kept::<Existence>(
        Kind::Namespace,
        &json!({"metadata": large_metadata(), "spec": {"a": "b"}}),
    );
    assert!(found.is_terminating() && found.content.is_empty());
    assert!(length(&found) < 200, "{}", length(&found));
    let mut altered = large_metadata();
    altered["resourceVersion"] = json!("8");
    altered["generation"] = json!(4);
    altered["labels"] = json!({SERVICE_NAME: "other"});
    let mut altered = kept::<Existence>(Kind::Namespace, &json!({"metadata": altered}));
    altered
        .metadata
        .resource_version
        .clone_from(&found.metadata.resource_version);
    assert_eq!(altered, found);
}

#[test]
fn a_too_long_extension_service_spec_becomes_empty() {
    let object = |spec: &Value, status: &Value| json!({"metadata": {"name": "a"}, "spec": spec, "status": status});
    let condition = json!({"type": "Valid", "status": "True", "observedGeneration": 3, "errors": []});
    let status = json!({"conditions": [condition], "loadBalancer": {"a": "b"}});
    let spec_of = |count: usize| json!({"services": vec![json!({"name": "a", "port": 1}); count], "protocol": "h2"});
    // The exact maximum length.
    let mut longest = spec_of(2_900);
    let rest = LARGEST_SPEC - longest.to_string().len() - r#","a":"""#.len();
    longest["a"] = json!("a".repeat(rest));
    assert_eq!(longest.to_string().len(), LARGEST_SPEC);
    let found = kept::<ExtensionServices>(Kind::ExtensionService, &object(&longest, &status));
    assert_eq!(found.at("/spec"), Some(&longest));
    assert_eq!(found.at("/status"), Some(&json!({"conditions": status["conditions"]})));

    longest["a"] = json!("a".repeat(rest + 1));
    for spec in [longest, spec_of(45_000)] {
        let found = kept::<ExtensionServices>(Kind::ExtensionService, &object(&spec, &status));
        assert_eq!(found.at("/spec"), Some(&json!({})));
        assert!(found.at("/status/conditions/0").is_some(), "the verdict is kept");
    }
    let endless = json!({"conditions": vec![&status["conditions"][0]; 10_000]});
    let found = kept::<ExtensionServices>(Kind::ExtensionService, &object(&spec_of(1), &endless));
    assert_eq!(
        (found.at("/spec"), found.at("/status")),
        (Some(&spec_of(1)), Some(&json!({})))
    );
}

#[test]
fn a_malformed_object_does_not_block_other_objects() {
    for strange in [
        json!(null),
        json!(1),
        json!("a"),
        json!([1]),
        json!(true),
        json!(-1),
        json!(0.5),
    ] {
        let json =
            json!({"metadata": {"name": "a", "labels": null, "finalizers": null}, "spec": strange, "status": strange});
        assert_eq!(kept::<Pods>(Kind::Pod, &json).name(), "a");
        assert_eq!(kept::<ExtensionServices>(Kind::ExtensionService, &json).name(), "a");
    }
}

#[test]
fn slipways_objects_are_kept_whole_with_their_creation_entry() {
    let entry = |manager: &str| json!({"manager": manager, "operation": "Update", "fieldsV1": {"f:a": {}}});
    let labels: Map<String, Value> = (0..1_000).map(|number| (format!("a{number}"), json!(""))).collect();
    let json = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "a", "labels": labels, "managedFields": [entry("kubectl"), entry(FIELD_MANAGER), entry(FIELD_MANAGER)]},
        "spec": {"template": {"spec": {"containers": [{"name": "a"}]}}}, "status": {"replicas": 1},
    });
    let whole = Object::from_json(Kind::Deployment, json.clone()).expect("an object");
    assert_eq!(whole.creation_entry, Some(1));
    assert_eq!(kept::<Ours>(Kind::Deployment, &json), whole);
}

#[test]
fn lists_and_events_are_decoded_in_any_field_order() {
    let item = r#"{"metadata":{"name":"a"},"spec":{"services":[{"name":"a","port":1}]}}"#;
    let list =
        format!(r#"{{"kind":"List","apiVersion":"v1","items":[{item},{item}],"metadata":{{"resourceVersion":"1"}}}}"#);
    let list: ObjectList<Decoded<ExtensionServices>> = serde_json::from_str(&list).expect("a list");
    assert_eq!(list.items.len(), 2);
    for text in [
        format!(r#"{{"type":"ADDED","object":{item}}}"#),
        format!(r#"{{"object":{item},"type":"ADDED"}}"#),
    ] {
        let event: WatchEvent<Decoded<ExtensionServices>> = serde_json::from_str(&text).expect("an event");
        let WatchEvent::Added(found) = event else {
            panic!("{event:?}")
        };
        assert!(
            found
                .into_object(Kind::ExtensionService)
                .at("/spec/services/0")
                .is_some()
        );
    }
}

/// A stored object has at most 1.5 MB. A Pod is not stored as JSON, and its JSON may have about twice this size. kube's client briefly
/// holds three copies of a page's text.
#[test]
fn a_page_of_the_largest_objects_takes_less_than_100_mb() {
    fn page<F: Form>() -> u32 {
        F::PAGE
    }
    let of_anybody = [
        page::<Marks>(),
        page::<Pods>(),
        page::<ReplicaSets>(),
        page::<Services>(),
        page::<EndpointSlices>(),
        page::<ExtensionServices>(),
    ];
    for page in of_anybody {
        assert!(page * 3 * 4 < 100, "{page} objects in a page");
    }
    assert!(page::<Existence>() * 3 * 2 < 100);
}
