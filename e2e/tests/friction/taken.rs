//! Changes by other controllers to Slipway's objects as they are written, which Slipway accepts. The ContourDeployment becomes Ready
//! as without the changes, and the operator stops writing.

use anyhow::ensure;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use slipway_e2e::edge::Edge;
use slipway_e2e::lab::{Lab, Thing, specification, wait};
use slipway_e2e::wait::Look;

use crate::ledger;
use crate::policy::{self, EVERYTHING, Policy, WORKLOADS};
use crate::scene::{
    A_WHILE, READY, auth_service, is_quiet, is_quiet_since, is_ready, others_decide, others_decide_nothing, ready_edge,
    stays_quiet,
};

/// An expression that rewrites each image to a mirror.
const MIRRORED: &str = "
    Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{
        containers: object.spec.template.spec.containers.map(c, Object.spec.template.spec.containers{
            name: c.name, image: c.image.startsWith('mirror.test/') ? c.image : 'mirror.test/' + c.image}),
        initContainers: object.spec.template.spec.?initContainers.orValue([]).map(c, Object.spec.template.spec.initContainers{
            name: c.name, image: c.image.startsWith('mirror.test/') ? c.image : 'mirror.test/' + c.image})
    }}}}";

/// An expression that adds a container.
const SIDECAR: &str = "
    Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: [
        Object.spec.template.spec.containers{name: 'mesh', image: 'mesh.test/proxy:1'}
    ]}}}}";

/// An expression that adds an environment variable to each container.
const ENVIRONMENT: &str = "
    Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{
        containers: object.spec.template.spec.containers.map(c, Object.spec.template.spec.containers{
            name: c.name, env: [Object.spec.template.spec.containers.env{name: 'HTTPS_PROXY', value: 'proxy.test:3128'}]})
    }}}}";

/// An expression that adds a toleration. In server-side apply, a list of tolerations is atomic.
const TOLERATION: &str = "
    has(object.spec.template.spec.tolerations)
    ? (object.spec.template.spec.tolerations.exists(t, t.?key.orValue('') == 'spot') ? []
        : [JSONPatch{op: 'add', path: '/spec/template/spec/tolerations/-', value: {'key': 'spot', 'operator': 'Exists'}}])
    : [JSONPatch{op: 'add', path: '/spec/template/spec/tolerations', value: [{'key': 'spot', 'operator': 'Exists'}]}]";

/// An expression that adds a label to every object.
const LABEL: &str = "
    has(object.metadata.labels)
    ? [JSONPatch{op: 'add', path: '/metadata/labels/team', value: 'edge'}]
    : [JSONPatch{op: 'add', path: '/metadata/labels', value: {'team': 'edge'}}]";

pub async fn an_edge_without_interference_stays_quiet(lab: &Lab) -> anyhow::Result<()> {
    let edge = ready_edge(lab).await?;
    stays_quiet(lab, &edge).await?;
    others_decide_nothing(&edge.status().await?)
}

pub async fn rewritten_images_are_accepted(lab: &Lab) -> anyhow::Result<()> {
    let policy = Policy::applies("images", &lab.namespace, WORKLOADS, MIRRORED);
    policy
        .impose(lab, &policy::deployment(&lab.namespace, "edge-probe"))
        .await?;
    let edge = ready_edge(lab).await?;
    is_quiet(lab, &edge).await?;
    let status = edge.status().await?;
    for name in ["edge-contour", "edge-envoy"] {
        others_decide(&status, "Deployment", name, "image")?;
    }
    // A later change by another user is drift, which the operator repairs.
    let change =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "envoy", "image": "mirror.test/other:1"}]}}}});
    let kept = lab.read(&deployment(lab, "edge-envoy")).await?;
    let envoys = lab.api("Deployment", &lab.namespace);
    envoys
        .patch("edge-envoy", &PatchParams::default(), &Patch::Strategic(&change))
        .await?;
    wait("the operator has restored the image", READY)
        .until(async || {
            let [now, before] = [&lab.read(&deployment(lab, "edge-envoy")).await?, &kept]
                .map(|envoy| each(envoy, "/spec/template/spec/containers", "image"));
            Ok(Look::when(now == before, format!("{now:?}, expected {before:?}")))
        })
        .await?;
    is_rolled_out(lab, "edge-envoy").await?;
    is_ready(lab, &edge).await?;
    // The desired image changes. The operator writes the new image, and accepts the rewritten image again.
    let mut spec = specification(&lab.name("auth"));
    spec["envoy"]["image"] = json!("example.test/envoy:2");
    lab.edge(&spec).await?;
    wait("Envoy has the new image from the mirror", READY)
        .until(async || {
            let envoy = lab.read(&deployment(lab, "edge-envoy")).await?;
            let images = each(&envoy, "/spec/template/spec/containers", "image");
            Ok(Look::when(
                images.contains(&json!("mirror.test/example.test/envoy:2")),
                format!("{images:?}; {}", edge.status().await?),
            ))
        })
        .await?;
    is_rolled_out(lab, "edge-envoy").await?;
    is_ready(lab, &edge).await?;
    stays_quiet(lab, &edge).await?;
    others_decide(&edge.status().await?, "Deployment", "edge-envoy", "image")
}

pub async fn injected_containers_and_variables_are_accepted(lab: &Lab) -> anyhow::Result<()> {
    let probe = policy::deployment(&lab.namespace, "edge-probe");
    for (name, expression) in [("sidecar", SIDECAR), ("environment", ENVIRONMENT)] {
        let policy = Policy::applies(name, &lab.namespace, WORKLOADS, expression);
        policy.impose(lab, &probe).await?;
    }
    let edge = ready_edge(lab).await?;
    stays_quiet(lab, &edge).await?;
    for name in ["edge-contour", "edge-envoy"] {
        let found = lab.read(&deployment(lab, name)).await?;
        let names = each(&found, "/spec/template/spec/containers", "name");
        ensure!(names.contains(&json!("mesh")), "{name} has containers {names:?}");
        ensure!(found.to_string().contains("HTTPS_PROXY"), "{name}: {}", found["spec"]);
    }
    Ok(())
}

pub async fn an_injected_toleration_is_accepted(lab: &Lab) -> anyhow::Result<()> {
    let policy = Policy::patches("toleration", &lab.namespace, WORKLOADS, "true", TOLERATION);
    policy
        .impose(lab, &policy::deployment(&lab.namespace, "edge-probe"))
        .await?;
    let auth = auth_service(lab).await?;
    let mut spec = specification(&auth);
    for part in ["contour", "envoy"] {
        spec[part]["nodePlacement"] =
            json!({"tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}]});
    }
    let edge = lab.edge(&spec).await?;
    is_ready(lab, &edge).await?;
    stays_quiet(lab, &edge).await?;
    let status = edge.status().await?;
    for name in ["edge-contour", "edge-envoy"] {
        others_decide(&status, "Deployment", name, "tolerations")?;
        let keys = each(
            &lab.read(&deployment(lab, name)).await?,
            "/spec/template/spec/tolerations",
            "key",
        );
        ensure!(
            keys == [json!("dedicated"), json!("spot")],
            "{name} has tolerations {keys:?}"
        );
    }
    Ok(())
}

pub async fn an_added_label_is_accepted(lab: &Lab) -> anyhow::Result<()> {
    let auth = lab.name("auth");
    lab.create_namespace(&auth).await?;
    for namespace in [&lab.namespace, &auth] {
        let policy = Policy::patches("label", namespace, EVERYTHING, "true", LABEL);
        policy.impose(lab, &policy::service(namespace, "edge-probe")).await?;
    }
    let edge = ready_edge(lab).await?;
    stays_quiet(lab, &edge).await?;
    let stand_in = lab.only("ExtensionService", &auth, &edge).await?;
    let contour = lab.read(&deployment(lab, "edge-contour")).await?;
    for object in [&stand_in, &contour] {
        ensure!(object["metadata"]["labels"]["team"] == "edge", "{}", object["metadata"]);
    }
    Ok(())
}

pub async fn an_overwritten_label_is_accepted(lab: &Lab) -> anyhow::Result<()> {
    let auth = lab.name("auth");
    lab.create_namespace(&auth).await?;
    let path = "/metadata/labels/app.kubernetes.io~1managed-by";
    let patches = format!("[JSONPatch{{op: 'add', path: '{path}', value: 'platform'}}]");
    let has_labels = "object.metadata.?labels[?'app.kubernetes.io/managed-by'].hasValue()";
    for namespace in [&lab.namespace, &auth] {
        let policy = Policy::patches("relabel", namespace, EVERYTHING, has_labels, &patches);
        let mut probe = policy::service(namespace, "edge-probe");
        probe["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": "me"});
        policy.impose(lab, &probe).await?;
    }
    let edge = ready_edge(lab).await?;
    stays_quiet(lab, &edge).await?;
    let status = edge.status().await?;
    let stand_in = lab.only("ExtensionService", &auth, &edge).await?;
    let name = stand_in["metadata"]["name"].as_str().unwrap_or_default();
    for (kind, name) in [
        ("Deployment", "edge-contour"),
        ("Service", "edge-envoy"),
        ("ExtensionService", name),
    ] {
        others_decide(&status, kind, name, "managed-by")?;
    }
    ensure!(
        stand_in["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "platform",
        "{}",
        stand_in["metadata"]
    );
    Ok(())
}

/// The policies remove an annotation from the spec, and the annotation that records what Slipway applied last.
pub async fn removed_annotations_are_accepted(lab: &Lab) -> anyhow::Result<()> {
    let auth = lab.name("auth");
    lab.create_namespace(&auth).await?;
    for (number, annotation) in ["example.test/internal", "contour.slipway.dev/applied"]
        .iter()
        .enumerate()
    {
        let path = format!("/metadata/annotations/{}", annotation.replace('/', "~1"));
        let patches = format!("[JSONPatch{{op: 'remove', path: '{path}'}}]");
        let has_it = format!("object.metadata.?annotations[?'{annotation}'].hasValue()");
        for namespace in [&lab.namespace, &auth] {
            let policy = Policy::patches(&format!("strip-{number}"), namespace, EVERYTHING, &has_it, &patches);
            let mut probe = policy::service(namespace, "edge-probe");
            // With another annotation, so that the admission policy on Slipway's marks does not refuse the probe.
            probe["metadata"]["annotations"] = json!({*annotation: "probe", "example.test/other": "probe"});
            policy.impose(lab, &probe).await?;
        }
    }
    let auth = auth_service(lab).await?;
    let mut spec = specification(&auth);
    spec["envoy"]["networkPublishing"]["serviceAnnotations"] = json!({"example.test/internal": "yes"});
    let edge = lab.edge(&spec).await?;
    is_ready(lab, &edge).await?;
    stays_quiet(lab, &edge).await?;
    others_decide(&edge.status().await?, "Service", "edge-envoy", "example.test/internal")
}

pub async fn a_removed_field_is_accepted(lab: &Lab) -> anyhow::Result<()> {
    let policy = Policy::patches(
        "drop",
        &lab.namespace,
        WORKLOADS,
        "has(object.spec.template.spec.affinity)",
        "[JSONPatch{op: 'remove', path: '/spec/template/spec/affinity'}]",
    );
    policy
        .impose(lab, &policy::deployment(&lab.namespace, "edge-probe"))
        .await?;
    let edge = ready_edge(lab).await?;
    stays_quiet(lab, &edge).await?;
    let status = edge.status().await?;
    for name in ["edge-contour", "edge-envoy"] {
        others_decide(&status, "Deployment", name, "affinity")?;
    }
    Ok(())
}

/// A restarted operator does not know the results of earlier writes, so it may write each desired object once more.
pub async fn a_restarted_operator_accepts_all_changes_at_once(lab: &Lab) -> anyhow::Result<()> {
    let probe = policy::deployment(&lab.namespace, "edge-probe");
    let policies = [
        Policy::applies("images", &lab.namespace, WORKLOADS, MIRRORED),
        Policy::applies("sidecar", &lab.namespace, WORKLOADS, SIDECAR),
        Policy::applies("environment", &lab.namespace, WORKLOADS, ENVIRONMENT),
        Policy::patches("toleration", &lab.namespace, WORKLOADS, "true", TOLERATION),
        Policy::patches("label", &lab.namespace, EVERYTHING, "true", LABEL),
    ];
    for policy in &policies {
        policy.impose(lab, &probe).await?;
    }
    let auth = auth_service(lab).await?;
    let mut spec = specification(&auth);
    spec["contour"]["nodePlacement"] = json!({"tolerations": [{"key": "dedicated", "operator": "Exists"}]});
    let edge = lab.edge(&spec).await?;
    is_ready(lab, &edge).await?;
    is_quiet(lab, &edge).await?;
    let rolled = edge.rolled_state().await?;
    lab.world.stop_operator().await?;
    let stopped = ledger::now()?;
    let restarted = async {
        start_operator(lab, &edge).await?;
        is_quiet_since(lab, &edge, stopped, A_WHILE).await?;
        is_ready(lab, &edge).await?;
        ensure!(
            edge.rolled_state().await? == rolled,
            "a workload was rolled out without a change"
        );
        let status = edge.status().await?;
        others_decide(&status, "Deployment", "edge-contour", "tolerations")?;
        others_decide(&status, "Deployment", "edge-envoy", "image")
    };
    let outcome = restarted.await;
    lab.world.restore(slipway_e2e::lab::world::Takes::Operator).await?;
    outcome
}

/// Starts the operator, and waits until the operator has reconciled the edge.
async fn start_operator(lab: &Lab, edge: &Edge) -> anyhow::Result<()> {
    lab.world.start_operator().await?;
    lab.world.operator_is_ready().await?;
    let own = [("contourdeployment_namespace", edge.namespace())];
    wait("the operator has reconciled edge", READY)
        .until(async || {
            let metrics = lab.metrics().await?;
            let count = metrics.of("slipway_contourdeployment_condition", &own).count();
            Ok(Look::when(count > 0, "edge has no series yet"))
        })
        .await
}

/// Waits until all pods of a Deployment are available in the current revision.
async fn is_rolled_out(lab: &Lab, name: &str) -> anyhow::Result<()> {
    wait(&format!("{name} is rolled out"), READY)
        .until(async || {
            let found = lab.read(&deployment(lab, name)).await?;
            let status = &found["status"];
            let is_observed = status["observedGeneration"] == found["metadata"]["generation"];
            let counts = ["replicas", "updatedReplicas", "availableReplicas"].map(|count| &status[count]);
            let is_done = is_observed && counts.iter().all(|count| **count == found["spec"]["replicas"]);
            Ok(Look::when(is_done, status.to_string()))
        })
        .await
}

fn deployment(lab: &Lab, name: &str) -> Thing {
    Thing::new("Deployment", &lab.namespace, name)
}

/// Returns a field of each item of a list.
fn each(object: &Value, list: &str, field: &str) -> Vec<Value> {
    let items = object.pointer(list).and_then(Value::as_array);
    items.into_iter().flatten().map(|item| item[field].clone()).collect()
}
