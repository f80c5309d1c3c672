//! Each rule by which Slipway compares an object that it sent with the object that a real API server stores. The stored object can
//! differ because of the API server and because of other users.

use anyhow::{Context as _, ensure};
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use slipway::plan::{Kind, Object, differences};
use slipway_e2e::lab::Lab;
use slipway_e2e::lab::world::beside_others;

/// An object, a change by another user, and the fields in which the stored object then differs from the sent object.
struct Case {
    rule: &'static str,
    kind: Kind,
    content: Value,
    change: Value,
    differs_in: &'static [&'static str],
}

/// Returns a Deployment with 0 replicas and one container. `pod` has the other fields of the pod template's spec. `container` has
/// the container's fields other than name and image.
fn deployment(pod: &Value, container: &Value) -> Value {
    let mut container = container.clone();
    container["name"] = json!("a");
    container["image"] = json!("example.com/a:1");
    let mut pod = pod.clone();
    pod["containers"] = json!([container]);
    let labels = json!({"app": "a"});
    json!({"spec": {
        "replicas": 0, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod},
    }})
}

/// Returns a change to the spec of a Deployment's pod template.
fn pod_of(change: &Value) -> Value {
    json!({"spec": {"template": {"spec": change}}})
}

#[allow(clippy::too_many_lines)] // a table
fn cases() -> Vec<Case> {
    let nothing = || json!({});
    let requests = json!({"resources": {"requests": {"cpu": "1000m", "memory": "1024Mi"}}});
    let container = json!({"env": [{"name": "A", "value": "1"}], "args": ["one"]});
    let with = |more: Value| {
        let mut changed = container.clone();
        for (key, value) in more.as_object().into_iter().flatten() {
            changed[key] = value.clone();
        }
        changed["name"] = json!("a");
        changed
    };
    let subject = |name: &str| json!({"kind": "ServiceAccount", "name": name, "namespace": "default"});
    let of_deployment = |rule, content: Value, change: Value, differs_in| Case {
        rule,
        kind: Kind::Deployment,
        content,
        change,
        differs_in,
    };
    let image = json!({"image": "example.com/a:1"});
    vec![
        of_deployment(
            "empty values are not stored",
            deployment(
                &json!({"tolerations": [{"key": "dedicated", "operator": "Exists", "effect": ""}], "hostNetwork": null}),
                &json!({"args": [], "resources": {}}),
            ),
            nothing(),
            &[],
        ),
        of_deployment(
            "zero values of some fields are not stored",
            deployment(
                &json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
                &json!({
                    "stdin": false, "stdinOnce": false, "tty": false, "ports": [{"name": "p", "containerPort": 1, "hostPort": 0}],
                    "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": false}],
                    "readinessProbe": {"tcpSocket": {"port": 1}, "initialDelaySeconds": 0},
                }),
            ),
            nothing(),
            &[],
        ),
        of_deployment(
            "single quantities are stored in their canonical form",
            deployment(
                &json!({"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1024Mi"}}]}),
                &json!({"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1000m"}}}]}),
            ),
            nothing(),
            &[],
        ),
        of_deployment(
            "quantities are stored in their canonical form",
            deployment(&nothing(), &requests),
            nothing(),
            &[],
        ),
        of_deployment(
            "changed quantities differ",
            deployment(&nothing(), &requests),
            pod_of(
                &json!({"containers": [with(json!({"image": image["image"], "resources": {"requests": {"cpu": "2", "memory": "1Gi"}}}))]}),
            ),
            &["spec.template.spec.containers[a].resources.requests"],
        ),
        of_deployment(
            "an atomic map may not have additional entries",
            deployment(&json!({"nodeSelector": {"kubernetes.io/os": "linux"}}), &nothing()),
            pod_of(&json!({"nodeSelector": {"theirs": "true"}})),
            &["spec.template.spec.nodeSelector"],
        ),
        of_deployment(
            "other maps may have additional entries",
            deployment(&nothing(), &nothing()),
            json!({"metadata": {"labels": {"theirs": "true"}}, "spec": {"minReadySeconds": 7}}),
            &[],
        ),
        of_deployment(
            "a merged list may have additional items of other users",
            deployment(&nothing(), &container),
            pod_of(&json!({"containers": [
                {"name": "theirs", "image": "example.com/b:1"},
                with(json!({"image": image["image"], "env": [{"name": "THEIRS", "value": "2"}, {"name": "A", "value": "1"}]})),
            ]})),
            &[],
        ),
        of_deployment(
            "Slipway's items in a merged list may not be changed",
            deployment(&nothing(), &container),
            pod_of(
                &json!({"containers": [with(json!({"image": "example.com/b:1", "env": [{"name": "A", "value": "2"}]}))]}),
            ),
            &[
                "spec.template.spec.containers[a].env[A].value",
                "spec.template.spec.containers[a].image",
            ],
        ),
        of_deployment(
            "an atomic list may not have additional items",
            deployment(&nothing(), &container),
            pod_of(&json!({"containers": [with(json!({"image": image["image"], "args": ["one", "two"]}))]})),
            &["spec.template.spec.containers[a].args"],
        ),
        Case {
            rule: "subjects are an atomic list, although they have names",
            kind: Kind::RoleBinding,
            content: json!({
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}, "subjects": [subject("a")],
            }),
            change: json!({"subjects": [subject("a"), subject("b")]}),
            differs_in: &["subjects"],
        },
        Case {
            rule: "in a spec that belongs to Slipway as a whole, additional fields differ",
            kind: Kind::ExtensionService,
            content: json!({"spec": {"protocol": "h2c", "services": [{"name": "a", "port": 9}]}}),
            change: json!({"spec": {"timeoutPolicy": {"response": "9s"}}}),
            differs_in: &["spec.timeoutPolicy"],
        },
    ]
}

/// Creates and changes the object of a case. Returns an error if Slipway's comparison finds other fields than expected.
async fn finds_expected_differences(lab: &Lab, number: usize, case: &Case) -> anyhow::Result<()> {
    let mut sent = case.content.clone();
    let name = format!("rule-{number}");
    sent["metadata"] = json!({"namespace": lab.namespace, "name": name});
    let mut object = sent.clone();
    object["apiVersion"] = json!(case.kind.api_version());
    object["kind"] = json!(case.kind.name());
    let api = lab.api(case.kind.name(), &lab.namespace);
    let mut live: DynamicObject = api
        .create(&PostParams::default(), &serde_json::from_value(object)?)
        .await?;
    if case.change != json!({}) {
        live = api
            .patch(&name, &PatchParams::default(), &Patch::Merge(&case.change))
            .await?;
    }
    let sent = Object::from_json(case.kind, sent)?;
    let live = Object::from_json(case.kind, serde_json::to_value(live)?)?;
    let found: Vec<_> = differences(&sent, &live).into_keys().collect();
    ensure!(
        found == case.differs_in,
        "found differences in {found:?}, expected {:?}",
        case.differs_in
    );
    Ok(())
}

#[tokio::test]
async fn a_stored_object_differs_only_in_changed_slipway_fields() {
    beside_others("rules", async |lab: &Lab| {
        for (number, case) in cases().iter().enumerate() {
            finds_expected_differences(lab, number, case).await.context(case.rule)?;
        }
        Ok(())
    })
    .await;
}
