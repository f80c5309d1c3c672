//! Fields that other controllers must not decide, because the authorization checks depend on these fields. After such a change, the
//! ContourDeployment is Stalled, and the message names object and field. Contour never runs with the change, or is never rolled out
//! to the change. The operator backs off.

use std::collections::BTreeSet;

use anyhow::ensure;
use serde_json::json;
use slipway_e2e::edge::{Component, Edge, Status};
use slipway_e2e::lab::{Lab, Thing, specification};

use crate::policy::{self, Policy};
use crate::scene::{RETRIED, auth_service, configurations_rolled_to, is_paced, is_ready_within, ready_edge, stalled};

/// The reason for a changed field that only Slipway may decide.
const NOT_TAKEN: &str = "NotTaken";

/// The reason for a change in the response to the dry run of a configuration, before the configuration is written.
const REFUSED: &str = "ConfigurationRefused";

/// A condition that matches all objects of a ContourDeployment `edge`.
const IS_OF_THE_EDGE: &str = "object.metadata.?name.orValue('').startsWith('edge-')";

/// A change to a configuration that lets anonymous requests pass.
const UNCHECKED: &str = "[JSONPatch{op: 'add', path: '/spec/globalExtAuth/authPolicy', value: {'disabled': true}}]";

pub async fn a_changed_stand_in_spec_starts_no_contour(lab: &Lab) -> anyhow::Result<()> {
    let auth = auth_service(lab).await?;
    let mut imposed = Vec::new();
    // The policy also applies in the namespace of the edge. With a policy only in the service's namespace, the role would fall back
    // to the namespace of the edge (see `refused`).
    for namespace in [&auth, &lab.namespace] {
        let policy = changes_stand_ins(namespace);
        let probe = policy::extension_service(namespace, "edge-probe");
        policy.impose(lab, &probe).await?;
        imposed.push((policy, probe));
    }
    let edge = lab.edge(&specification(&auth)).await?;
    let status = stalled(lab, &edge, &[NOT_TAKEN], &["ExtensionService", "spec.protocol"]).await?;
    is_not_enforced(&status)?;
    is_paced(lab, &edge).await?;
    let rolled = configurations_rolled_to(lab, &edge).await?;
    ensure!(rolled.is_empty(), "Contour was started: {rolled:?}");
    for (policy, probe) in &imposed {
        policy.lift(lab, probe).await?;
    }
    is_ready_within(lab, &edge, RETRIED).await.map(drop)
}

pub async fn a_changed_blackhole_selector_starts_no_contour(lab: &Lab) -> anyhow::Result<()> {
    let auth = lab.name("auth");
    lab.create_namespace(&auth).await?;
    for namespace in [&auth, &lab.namespace] {
        let policy = Policy::patches(
            "blackhole",
            namespace,
            &[("", "services")],
            "object.metadata.?name.orValue('').startsWith('edge-ext-auth-')",
            "[JSONPatch{op: 'add', path: '/spec/selector', value: {'app': 'anything'}}]",
        );
        policy
            .impose(lab, &policy::service(namespace, "edge-ext-auth-probe"))
            .await?;
    }
    let edge = lab.edge(&specification(&auth)).await?;
    stalled(lab, &edge, &[NOT_TAKEN], &["Service", "spec.selector"]).await?;
    is_paced(lab, &edge).await?;
    let rolled = configurations_rolled_to(lab, &edge).await?;
    ensure!(rolled.is_empty(), "Contour was started: {rolled:?}");
    Ok(())
}

/// The dry run shows the change, so the operator does not write the configuration.
pub async fn a_configuration_changed_in_the_dry_run_starts_no_contour(lab: &Lab) -> anyhow::Result<()> {
    a_changed_configuration_starts_no_contour(lab, "true", REFUSED).await
}

/// The policy does not apply to dry runs, so the operator observes the change after the creation.
pub async fn a_configuration_changed_at_creation_starts_no_contour(lab: &Lab) -> anyhow::Result<()> {
    a_changed_configuration_starts_no_contour(
        lab,
        "!request.dryRun || object.metadata.name == 'edge-probe'",
        NOT_TAKEN,
    )
    .await
}

async fn a_changed_configuration_starts_no_contour(
    lab: &Lab,
    applies: &str,
    reason: &'static str,
) -> anyhow::Result<()> {
    let policy = unchecked(lab, applies);
    let probe = policy::configuration(&lab.namespace, "edge-probe");
    policy.impose(lab, &probe).await?;
    let auth = auth_service(lab).await?;
    let edge = lab.edge(&specification(&auth)).await?;
    let parts = ["ContourConfiguration", "globalExtAuth.authPolicy"];
    let status = stalled(lab, &edge, &[reason], &parts).await?;
    is_not_enforced(&status)?;
    is_paced(lab, &edge).await?;
    nothing_runs(lab, &edge).await?;
    policy.lift(lab, &probe).await?;
    is_ready_within(lab, &edge, RETRIED).await.map(drop)
}

/// The policy is created when the edge is ready. Then the desired configuration changes.
pub async fn a_later_configuration_changed_by_others_is_not_rolled_out(lab: &Lab) -> anyhow::Result<()> {
    let edge = ready_edge(lab).await?;
    let before: BTreeSet<_> = configurations_rolled_to(lab, &edge).await?.into_iter().collect();
    ensure!(
        before.len() == 1,
        "Contour is not rolled out to exactly one configuration: {before:?}"
    );
    let pods = edge.pods(Component::Contour).await?.uids();
    let policy = unchecked(lab, "true");
    let probe = policy::configuration(&lab.namespace, "edge-probe");
    policy.impose(lab, &probe).await?;
    let mut spec = specification(&lab.name("auth"));
    spec["runtimeSettings"]["enableExternalNameService"] = json!(true);
    lab.edge(&spec).await?;
    stalled(
        lab,
        &edge,
        &[REFUSED],
        &["ContourConfiguration", "globalExtAuth.authPolicy"],
    )
    .await?;
    is_paced(lab, &edge).await?;
    let after: BTreeSet<_> = configurations_rolled_to(lab, &edge).await?.into_iter().collect();
    ensure!(
        after == before,
        "Contour was rolled out to another configuration: {after:?}, expected {before:?}"
    );
    ensure!(
        edge.pods(Component::Contour).await?.uids() == pods,
        "pods of Contour were replaced"
    );
    policy.lift(lab, &probe).await?;
    is_ready_within(lab, &edge, RETRIED).await?;
    let configurations = lab.all("ContourConfiguration", &lab.namespace, &edge).await?;
    ensure!(
        configurations
            .iter()
            .all(|it| it.pointer("/spec/globalExtAuth/authPolicy").is_none()),
        "{configurations:?}"
    );
    Ok(())
}

pub async fn a_changed_contour_command_starts_no_envoy(lab: &Lab) -> anyhow::Result<()> {
    let policy = Policy::patches(
        "command",
        &lab.namespace,
        &[("apps", "deployments")],
        "object.metadata.name == 'edge-contour'",
        "[
            JSONPatch{op: 'add', path: '/spec/template/spec/containers/0/command', value: ['/injected/wrapper', 'contour']},
            JSONPatch{op: 'add', path: '/spec/template/spec/containers/0/args',
                value: object.spec.template.spec.containers[0].args.filter(a, a != '--debug') + ['--debug']}
        ]",
    );
    policy
        .impose(lab, &policy::deployment(&lab.namespace, "edge-contour"))
        .await?;
    let auth = auth_service(lab).await?;
    let edge = lab.edge(&specification(&auth)).await?;
    stalled(
        lab,
        &edge,
        &[NOT_TAKEN],
        &["Deployment", "edge-contour", "command", "args"],
    )
    .await?;
    is_paced(lab, &edge).await?;
    let envoy = lab
        .find(&Thing::new("Deployment", &lab.namespace, "edge-envoy"))
        .await?;
    ensure!(envoy.is_none(), "Envoy was started with a changed Contour");
    Ok(())
}

pub async fn a_changed_contour_account_starts_no_envoy(lab: &Lab) -> anyhow::Result<()> {
    let policy = Policy::patches(
        "account",
        &lab.namespace,
        &[("apps", "deployments")],
        "object.metadata.name == 'edge-contour'",
        "[
            JSONPatch{op: 'add', path: '/spec/template/spec/serviceAccountName', value: 'another'},
            JSONPatch{op: 'add', path: '/spec/selector/matchLabels/another', value: 'yes'},
            JSONPatch{op: 'add', path: '/spec/template/metadata/labels/another', value: 'yes'},
            JSONPatch{op: 'add', path: '/spec/template/spec/volumes', value: [{'name': dyn('contour-cert'), 'emptyDir': dyn({})}]},
            JSONPatch{op: 'add', path: '/spec/template/spec/containers/0/volumeMounts',
                value: [{'name': 'contour-cert', 'mountPath': '/elsewhere'}]}
        ]",
    );
    policy
        .impose(lab, &policy::deployment(&lab.namespace, "edge-contour"))
        .await?;
    let auth = auth_service(lab).await?;
    let edge = lab.edge(&specification(&auth)).await?;
    let fields = ["serviceAccountName", "spec.selector", "volumes", "volumeMounts"];
    let parts = [&["Deployment", "edge-contour"], &fields[..]].concat();
    stalled(lab, &edge, &[NOT_TAKEN], &parts).await?;
    is_paced(lab, &edge).await?;
    let envoy = lab
        .find(&Thing::new("Deployment", &lab.namespace, "edge-envoy"))
        .await?;
    ensure!(envoy.is_none(), "Envoy was started with a changed Contour");
    Ok(())
}

/// Returns a policy that disables the authorization check in each configuration that meets the condition.
fn unchecked(lab: &Lab, condition: &str) -> Policy {
    let configurations = &[("projectcontour.io", "contourconfigurations")];
    let condition = format!("{IS_OF_THE_EDGE} && ({condition})");
    Policy::patches("unchecked", &lab.namespace, configurations, &condition, UNCHECKED)
}

/// Returns an error if a Contour or an Envoy was started.
async fn nothing_runs(lab: &Lab, edge: &Edge) -> anyhow::Result<()> {
    let rolled = configurations_rolled_to(lab, edge).await?;
    ensure!(rolled.is_empty(), "Contour was rolled out to {rolled:?}");
    let envoy = Thing::new("Deployment", &lab.namespace, "edge-envoy");
    ensure!(lab.find(&envoy).await?.is_none(), "Envoy was started without a Contour");
    Ok(())
}

/// Returns a policy that changes the protocol of every stand-in in a namespace.
pub fn changes_stand_ins(namespace: &str) -> Policy {
    Policy::patches(
        "stand-in",
        namespace,
        &[("projectcontour.io", "extensionservices")],
        IS_OF_THE_EDGE,
        "[JSONPatch{op: 'add', path: '/spec/protocol', value: 'h2'}]",
    )
}

/// Returns an error if the status reports a service as enforced, although Contour does not run.
fn is_not_enforced(status: &Status) -> anyhow::Result<()> {
    let services = &status.extension_services;
    ensure!(
        services.iter().all(|service| service.traffic != "Enforced"),
        "{services:?}"
    );
    Ok(())
}
