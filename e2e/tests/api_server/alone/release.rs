//! `slipway release`, for users who uninstalled the operator too early.

use anyhow::{Context as _, ensure};
use serde_json::json;
use slipway_e2e::lab::created::{FINALIZER, settled_edge};
use slipway_e2e::lab::players::Kubelet;
use slipway_e2e::lab::world::{Takes, alone};
use slipway_e2e::lab::{Lab, PATIENT, PROMPT, Thing, specification, wait};
use slipway_e2e::wait::Look;
use slipway_e2e::{binaries, command};

use slipway_e2e::drift::leaks::wait_until_namespace_is_deleted;

/// The ServiceAccount that runs `slipway release`.
const RELEASER: &str = "releaser";

/// Creates the ServiceAccount and grants it the permission to release. Returns the ClusterRoleBinding.
async fn releaser(lab: &Lab) -> anyhow::Result<Thing> {
    let account = json!({"namespace": lab.namespace, "name": RELEASER});
    lab.apply(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account}))
        .await?;
    let binding = lab.name(RELEASER);
    lab.apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": binding},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "slipway-releaser"},
        "subjects": [{"kind": "ServiceAccount", "namespace": lab.namespace, "name": RELEASER}],
    }))
    .await?;
    let user = format!("system:serviceaccount:{}:{RELEASER}", lab.namespace);
    let question = [
        "auth",
        "can-i",
        "release",
        "contourdeployments.contour.slipway.dev",
        "-A",
        "--as",
        user.as_str(),
    ];
    wait("the API server has observed the grant", PROMPT)
        .until(async || {
            Ok(Look::when(
                lab.world.kubectl().run(&question).await.is_ok(),
                "the user may not release",
            ))
        })
        .await?;
    Ok(Thing::new("ClusterRoleBinding", "", &binding))
}

/// Runs `slipway release` as a user who has only ClusterRole slipway-releaser. Returns stdout.
async fn release(lab: &Lab, arguments: &[&str]) -> anyhow::Result<String> {
    let mut slipway = tokio::process::Command::new(binaries::slipway().await?);
    slipway
        .arg("release")
        .args(arguments)
        .env("KUBECONFIG", lab.world.kubeconfig_of(&lab.namespace, RELEASER).await?);
    command::watched(&mut slipway).await.context("slipway release")
}

#[tokio::test]
async fn release_removes_abandoned_finalizers_and_keeps_those_in_use() {
    alone("release", Takes::Operator, async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let auth = lab.name("auth");
        let edge = settled_edge(lab, &auth).await?;
        let other = lab.name("other");
        lab.create_namespace(&other).await?;
        let _others_kubelet = Kubelet::of(&lab.client, &other);
        let in_use = lab.edge_in(&other, &specification(&auth)).await?;
        lab.settled(&in_use).await?;
        let binding = releaser(lab).await?;
        lab.world.stop_operator().await?;
        edge.delete().await?;

        let held = release(lab, &["--dry-run"]).await?;
        ensure!(
            held.lines().count() == 3 && held.lines().all(|line| line.ends_with(": held")),
            "a stand-in, a blackhole and the ContourDeployment are held: {held}"
        );
        let printed = release(lab, &[]).await?;
        ensure!(printed == held.replace(": held", ": released"), "{printed}");
        let deployment = Thing::new("ContourDeployment", &lab.namespace, "edge");
        wait("the ContourDeployment is deleted", PATIENT)
            .until(async || Ok(Look::when(lab.find(&deployment).await?.is_none(), "it still exists")))
            .await?;
        let stand_in = lab.only("ExtensionService", &auth, &in_use).await?;
        ensure!(
            stand_in["metadata"]["finalizers"] == json!([FINALIZER]),
            "the finalizer of a stand-in in use was removed: {}",
            stand_in["metadata"]
        );

        // A namespace keeps terminating until the finalizer of its stand-in is removed.
        let namespace = Thing::new("Namespace", "", &auth);
        lab.delete(&namespace).await?;
        release(lab, &["--all"]).await?;
        wait_until_namespace_is_deleted(lab, &namespace).await?;
        ensure!(
            release(lab, &["--all"]).await?.starts_with("nothing is held"),
            "objects are still held"
        );
        lab.delete(&binding).await
    })
    .await;
}
