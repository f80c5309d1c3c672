//! What a real API server makes of what it is sent, and what others do to it: each rule by which Slipway compares the two.

use anyhow::{Context as _, ensure};
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use slipway::plan::{Kind, Object, differences};
use slipway_e2e::lab::Lab;
use slipway_e2e::lab::world::beside_others;

/// An object, what somebody else makes of it, and in which fields it differs then from what was sent.
struct Case {
    rule: &'static str,
    kind: Kind,
    content: Value,
    change: Value,
    differs_in: &'static [&'static str],
}

/// A Deployment of no pods. `pod` is what its pod has beside its only container, `container` what that has beside its name and image.
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

fn pod_of(change: &Value) -> Value {
    json!({"spec": {"template": {"spec": change}}})
}

#[allow(clippy::too_many_lines)] // a table
fn cases() -> Vec<Case> {
    let nothing = || json!({});
    let requests = json!({"resources": {"requests": {"cpu": "1000m", "memory": "1024Mi"}}});
    let container = json!({"env": [{"name": "A", "value": "1"}], "args": ["one"]});
    let with = |more: Value| {
        let mut ours = container.clone();
        for (key, value) in more.as_object().into_iter().flatten() {
            ours[key] = value.clone();
        }
        ours["name"] = json!("a");
        ours
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
            "quantities are stored in their canonical form",
            deployment(&nothing(), &requests),
            nothing(),
            &[],
        ),
        of_deployment(
            "other quantities differ",
            deployment(&nothing(), &requests),
            pod_of(
                &json!({"containers": [with(json!({"image": image["image"], "resources": {"requests": {"cpu": "2", "memory": "1Gi"}}}))]}),
            ),
            &["spec.template.spec.containers[a].resources.requests"],
        ),
        of_deployment(
            "a map that is one value may have nothing beside ours",
            deployment(&json!({"nodeSelector": {"kubernetes.io/os": "linux"}}), &nothing()),
            pod_of(&json!({"nodeSelector": {"theirs": "true"}})),
            &["spec.template.spec.nodeSelector"],
        ),
        of_deployment(
            "other maps may",
            deployment(&nothing(), &nothing()),
            json!({"metadata": {"labels": {"theirs": "true"}}, "spec": {"minReadySeconds": 7}}),
            &[],
        ),
        of_deployment(
            "a list that is merged may have items of others beside ours",
            deployment(&nothing(), &container),
            pod_of(&json!({"containers": [
                {"name": "theirs", "image": "example.com/b:1"},
                with(json!({"image": image["image"], "env": [{"name": "THEIRS", "value": "2"}, {"name": "A", "value": "1"}]})),
            ]})),
            &[],
        ),
        of_deployment(
            "our items in it are ours",
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
            "a list that is one value may have nothing beside ours",
            deployment(&nothing(), &container),
            pod_of(&json!({"containers": [with(json!({"image": image["image"], "args": ["one", "two"]}))]})),
            &["spec.template.spec.containers[a].args"],
        ),
        Case {
            rule: "subjects are one value, though they have names",
            kind: Kind::RoleBinding,
            content: json!({
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}, "subjects": [subject("a")],
            }),
            change: json!({"subjects": [subject("a"), subject("b")]}),
            differs_in: &["subjects"],
        },
        Case {
            rule: "of what is ours as a whole additions differ, too",
            kind: Kind::ExtensionService,
            content: json!({"spec": {"protocol": "h2c", "services": [{"name": "a", "port": 9}]}}),
            change: json!({"spec": {"timeoutPolicy": {"response": "9s"}}}),
            differs_in: &["spec.timeoutPolicy"],
        },
    ]
}

async fn differs(lab: &Lab, number: usize, case: &Case) -> anyhow::Result<()> {
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
        "it differs in {found:?}, not in {:?}",
        case.differs_in
    );
    Ok(())
}

#[tokio::test]
async fn what_the_api_server_stores_differs_from_what_it_was_sent_only_where_somebody_changed_what_is_ours() {
    beside_others("rules", async |lab: &Lab| {
        for (number, case) in cases().iter().enumerate() {
            differs(lab, number, case).await.context(case.rule)?;
        }
        Ok(())
    })
    .await;
}
