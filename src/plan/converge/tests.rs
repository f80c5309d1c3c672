use serde_json::json;

use super::*;

fn service(ports: &Value) -> Object {
    let metadata = json!({"name": "edge-envoy", "namespace": "projectcontour"});
    Object::from_json(Kind::Service, json!({"metadata": metadata, "spec": {"ports": ports}})).expect("a Service")
}

#[test]
fn changed_ports_are_restored_and_ports_of_others_are_kept() {
    let ours = json!({"name": "http", "port": 80, "protocol": "TCP"});
    let also_ours = json!({"name": "https", "port": 443, "protocol": "TCP"});
    let theirs = json!({"name": "quic", "port": 443, "protocol": "UDP"});
    let desired = service(&json!([ours, also_ours]));
    let ports =
        |live: &Value| renumbered(&desired, &service(live)).and_then(|put_right| put_right.at("/spec/ports").cloned());
    let moved = json!({"name": "http", "port": 8080, "protocol": "TCP", "nodePort": 30080});
    let put_right = json!({"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080});
    assert_eq!(
        ports(&json!([moved, also_ours, theirs])),
        Some(json!([put_right, also_ours, theirs]))
    );
    let other_protocol = json!({"name": "http", "port": 80, "protocol": "UDP"});
    assert_eq!(ports(&json!([other_protocol])), Some(json!([ours, also_ours])));
    // A port with Slipway's number under another name cannot exist beside Slipway's port.
    let in_the_way = json!({"name": "mine", "port": 443, "protocol": "TCP"});
    assert_eq!(ports(&json!([moved, in_the_way])), Some(json!([put_right, also_ours])));
    assert_eq!(ports(&json!([ours, also_ours, theirs])), None, "no port conflicts");
    assert_eq!(
        ports(&json!([ours, in_the_way])),
        None,
        "server-side apply resolves this"
    );
    let by_the_user = json!({"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30000});
    let replaced = renumbered(&service(&json!([by_the_user])), &service(&json!([moved])));
    assert_eq!(
        replaced.expect("the numbers conflict").at("/spec/ports"),
        Some(&json!([by_the_user]))
    );
    let mut lease = desired.clone();
    lease.kind = Kind::Lease;
    assert_eq!(renumbered(&lease, &service(&json!([moved]))), None);
}

#[test]
fn only_the_changed_ports_of_a_container_are_restored() {
    let workload = |kind, containers: Value| {
        let spec = json!({"template": {"spec": {"containers": containers}}});
        Object::from_json(kind, json!({"metadata": {"name": "e", "namespace": "n"}, "spec": spec})).unwrap()
    };
    let port = |number: u32| json!([{"name": "http", "containerPort": number, "protocol": "TCP"}]);
    for kind in [Kind::Deployment, Kind::DaemonSet] {
        let desired = workload(kind, json!([{"name": "envoy", "image": "new", "ports": port(8080)}]));
        let theirs = json!({"name": "sidecar", "ports": port(1)});
        let live = |number| {
            workload(
                kind,
                json!([theirs, {"name": "envoy", "image": "old", "ports": port(number)}]),
            )
        };
        let put_right = renumbered(&desired, &live(9)).expect("the numbers conflict");
        let mut partly = live(8080);
        partly.annotate(annotations::APPLIED, String::new());
        assert_eq!(put_right, partly, "the image is applied in a later write");
        assert_eq!(renumbered(&desired, &live(8080)), None);
    }
}
