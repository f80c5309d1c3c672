//! What others must not decide, because what is checked depends on it: Stalled, naming object and field; Contour never runs on
//! it, or is never rolled to it; and the writes have an end.

use std::collections::BTreeSet;

use anyhow::ensure;
use serde_json::json;
use slipway_e2e::edge::{Component, Edge, Status};
use slipway_e2e::lab::{Lab, Thing, specification};

use crate::policy::{self, Policy};
use crate::scene::{
    TRIED_AGAIN, auth_service, configurations_rolled_to, is_paced, is_ready_within, ready_edge, stalled,
};

/// The reason of what must be Slipway's, and is changed as it is written.
const NOT_TAKEN: &str = "NotTaken";

/// The reason of what is changed in the answer to the dry run of a configuration, before anything of it is written.
const REFUSED: &str = "ConfigurationRefused";

/// Whatever is made for a ContourDeployment `edge`.
const IS_OF_THE_EDGE: &str = "object.metadata.?name.orValue('').startsWith('edge-')";

/// Anonymous requests pass.
const UNCHECKED: &str = "[JSONPatch{op: 'add', path: '/spec/globalExtAuth/authPolicy', value: {'disabled': true}}]";

pub async fn the_spec_of_a_stand_in(lab: &Lab) -> anyhow::Result<()> {
    let auth = auth_service(lab).await?;
    let mut imposed = Vec::new();
    // At home, too: from the service's namespace alone the role falls back (`refused`).
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
    is_ready_within(lab, &edge, TRIED_AGAIN).await.map(drop)
}

pub async fn the_selector_of_a_blackhole(lab: &Lab) -> anyhow::Result<()> {
    let auth = lab.name("auth");
    lab.make_namespace(&auth).await?;
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

/// The dry run shows it: nothing is written.
pub async fn the_spec_of_the_first_configuration(lab: &Lab) -> anyhow::Result<()> {
    let policy = unchecked(lab, "true");
    let probe = policy::configuration(&lab.namespace, "edge-probe");
    policy.impose(lab, &probe).await?;
    let auth = auth_service(lab).await?;
    let edge = lab.edge(&specification(&auth)).await?;
    let words = ["ContourConfiguration", "globalExtAuth.authPolicy"];
    let status = stalled(lab, &edge, &[REFUSED], &words).await?;
    is_not_enforced(&status)?;
    is_paced(lab, &edge).await?;
    nothing_runs_on_it(lab, &edge).await?;
    policy.lift(lab, &probe).await?;
    is_ready_within(lab, &edge, TRIED_AGAIN).await.map(drop)
}

/// What leaves dry runs alone is seen when it is written.
pub async fn the_spec_of_a_configuration_as_it_is_written(lab: &Lab) -> anyhow::Result<()> {
    let policy = unchecked(lab, "!request.dryRun || object.metadata.name == 'edge-probe'");
    let probe = policy::configuration(&lab.namespace, "edge-probe");
    policy.impose(lab, &probe).await?;
    let auth = auth_service(lab).await?;
    let edge = lab.edge(&specification(&auth)).await?;
    let words = ["ContourConfiguration", "globalExtAuth.authPolicy"];
    let status = stalled(lab, &edge, &[NOT_TAKEN], &words).await?;
    is_not_enforced(&status)?;
    is_paced(lab, &edge).await?;
    nothing_runs_on_it(lab, &edge).await?;
    policy.lift(lab, &probe).await?;
    is_ready_within(lab, &edge, TRIED_AGAIN).await.map(drop)
}

/// The policy comes when all is well, and what is wanted changes after that.
pub async fn the_spec_of_a_later_configuration(lab: &Lab) -> anyhow::Result<()> {
    let edge = ready_edge(lab).await?;
    let before: BTreeSet<_> = configurations_rolled_to(lab, &edge).await?.into_iter().collect();
    ensure!(before.len() == 1, "it is rolled to one configuration: {before:?}");
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
        "Contour was rolled to another: {after:?}, not {before:?}"
    );
    ensure!(
        edge.pods(Component::Contour).await?.uids() == pods,
        "pods were replaced"
    );
    policy.lift(lab, &probe).await?;
    is_ready_within(lab, &edge, TRIED_AGAIN).await?;
    let configurations = lab.all("ContourConfiguration", &lab.namespace, &edge).await?;
    ensure!(
        configurations
            .iter()
            .all(|it| it.pointer("/spec/globalExtAuth/authPolicy").is_none()),
        "{configurations:?}"
    );
    Ok(())
}

pub async fn contour_s_command_and_arguments(lab: &Lab) -> anyhow::Result<()> {
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
    ensure!(envoy.is_none(), "Envoy follows a Contour that is not ours");
    Ok(())
}

pub async fn contour_s_account_selector_volumes_and_mounts(lab: &Lab) -> anyhow::Result<()> {
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
    let words = [&["Deployment", "edge-contour"], &fields[..]].concat();
    stalled(lab, &edge, &[NOT_TAKEN], &words).await?;
    is_paced(lab, &edge).await?;
    let envoy = lab
        .find(&Thing::new("Deployment", &lab.namespace, "edge-envoy"))
        .await?;
    ensure!(envoy.is_none(), "Envoy follows a Contour that is not ours");
    Ok(())
}

/// A policy that switches the check off in each configuration while this holds as well.
fn unchecked(lab: &Lab, condition: &str) -> Policy {
    let configurations = &[("projectcontour.io", "contourconfigurations")];
    let condition = format!("{IS_OF_THE_EDGE} && ({condition})");
    Policy::patches("unchecked", &lab.namespace, configurations, &condition, UNCHECKED)
}

/// No Contour was started, and so no Envoy.
async fn nothing_runs_on_it(lab: &Lab, edge: &Edge) -> anyhow::Result<()> {
    let rolled = configurations_rolled_to(lab, edge).await?;
    ensure!(rolled.is_empty(), "Contour was rolled to {rolled:?}");
    let envoy = Thing::new("Deployment", &lab.namespace, "edge-envoy");
    ensure!(
        lab.find(&envoy).await?.is_none(),
        "Envoy follows a Contour that is not there"
    );
    Ok(())
}

/// A policy that changes what every stand-in of a namespace says.
pub fn changes_stand_ins(namespace: &str) -> Policy {
    Policy::patches(
        "stand-in",
        namespace,
        &[("projectcontour.io", "extensionservices")],
        IS_OF_THE_EDGE,
        "[JSONPatch{op: 'add', path: '/spec/protocol', value: 'h2'}]",
    )
}

/// Nobody is asked while Contour does not run.
fn is_not_enforced(status: &Status) -> anyhow::Result<()> {
    let services = &status.extension_services;
    ensure!(
        services.iter().all(|service| service.traffic != "Enforced"),
        "{services:?}"
    );
    Ok(())
}
