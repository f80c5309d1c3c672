//! Refusals in the service's namespace do not block the ingress. The role falls back to a blackhole at home, which is the namespace of
//! the ContourDeployment. The status reports the fallback, and the operator retries.
//!
//! A refused update moves no stand-in. A webhook that does not respond does not count as a refusal.

use std::time::Duration;

use anyhow::ensure;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};
use slipway_e2e::edge::{Edge, Status};
use slipway_e2e::lab::{Lab, Thing, players, specification, wait};
use slipway_e2e::wait::Look;

use crate::ledger;
use crate::never_taken::changes_stand_ins;
use crate::policy::{self, Policy};
use crate::scene::{
    READY, RETRIED, auth_of, auth_service, describe, is_paced, is_quiet, is_ready, is_ready_within, ready_edge,
};

/// The two kinds that Slipway creates in a service's namespace.
const KINDS: policy::Resources<'static> = &[("", "services"), ("projectcontour.io", "extensionservices")];

/// The message of the policy for objects without the label.
const REQUIRED: &str = "the label cost-centre is required here";

pub async fn a_required_label_moves_the_stand_in_home(lab: &Lab) -> anyhow::Result<()> {
    let auth = auth_service(lab).await?;
    let policy = required(&auth);
    let probe = policy::service(&auth, "probe");
    policy.impose(lab, &probe).await?;
    let edge = lab.edge(&specification(&auth)).await?;
    falls_back(lab, &edge, REQUIRED).await?;
    is_paced(lab, &edge).await?;
    policy.lift(lab, &probe).await?;
    is_retried(lab, &edge, &auth).await
}

pub async fn a_quota_on_services_moves_the_stand_in_home(lab: &Lab) -> anyhow::Result<()> {
    let auth = auth_service(lab).await?;
    let quota = Quota::of(lab, &auth, "services", &policy::service(&auth, "probe")).await?;
    let edge = lab.edge(&specification(&auth)).await?;
    falls_back(lab, &edge, "exceeded quota").await?;
    is_paced(lab, &edge).await?;
    quota.lift(lab).await?;
    is_retried(lab, &edge, &auth).await
}

pub async fn a_quota_on_extension_services_moves_the_stand_in_home(lab: &Lab) -> anyhow::Result<()> {
    let auth = auth_service(lab).await?;
    let resource = "count/extensionservices.projectcontour.io";
    let quota = Quota::of(lab, &auth, resource, &policy::extension_service(&auth, "probe")).await?;
    let edge = lab.edge(&specification(&auth)).await?;
    falls_back(lab, &edge, "quota").await?;
    is_paced(lab, &edge).await?;
    quota.lift(lab).await?;
    is_retried(lab, &edge, &auth).await
}

/// A stand-in that is changed at its creation is not usable, so the operator treats the change like a refusal.
pub async fn a_stand_in_changed_by_others_moves_home(lab: &Lab) -> anyhow::Result<()> {
    let auth = auth_service(lab).await?;
    let policy = changes_stand_ins(&auth);
    let probe = policy::extension_service(&auth, "edge-probe");
    policy.impose(lab, &probe).await?;
    let edge = lab.edge(&specification(&auth)).await?;
    falls_back(lab, &edge, "spec.protocol").await?;
    is_paced(lab, &edge).await?;
    policy.lift(lab, &probe).await?;
    is_retried(lab, &edge, &auth).await
}

pub async fn a_refused_update_does_not_move_the_stand_in(lab: &Lab) -> anyhow::Result<()> {
    let edge = ready_edge(lab).await?;
    is_quiet(lab, &edge).await?;
    let auth = lab.name("auth");
    let policy = required(&auth);
    let probe = policy::service(&auth, "probe");
    policy.impose(lab, &probe).await?;
    let rolled = edge.rolled_state().await?;
    // The owner of the service adds the required label, and changes a field that the operator copies.
    let mut edited = players::extension_service(&auth, "500ms");
    edited["metadata"]["labels"] = json!({"cost-centre": "7"});
    edited["spec"]["services"][0]["weight"] = json!(7);
    lab.apply(&edited).await?;
    wait("status reports that the stand-in cannot be updated", READY)
        .until(async || {
            let status = edge.status().await?;
            let reports = |kind: &str| {
                let condition = status.condition(kind);
                condition.is_some_and(|it| it.status == "True" && it.message.contains(REQUIRED))
            };
            Ok(Look::when(
                reports("Reconciling") || reports("Stalled"),
                describe(&status),
            ))
        })
        .await?;
    is_paced(lab, &edge).await?;
    let status = edge.status().await?;
    ensure!(
        stand_in_is_in(&status, &auth),
        "the stand-in was moved: {}",
        describe(&status)
    );
    ensure!(edge.rolled_state().await? == rolled, "a workload was rolled out");
    ensure!(
        status
            .extension_services
            .iter()
            .all(|service| service.traffic == "Enforced"),
        "the last copy is not enforced: {}",
        describe(&status)
    );
    policy.lift(lab, &probe).await?;
    let name = status.extension_services[0].stand_in.as_ref().map(|it| it.name.clone());
    let stand_in = Thing::new("ExtensionService", &auth, &name.unwrap_or_default());
    wait("the operator has updated the stand-in by a retry", RETRIED)
        .until(async || {
            let now = lab.read(&stand_in).await?["spec"]["services"][0].clone();
            Ok(Look::when(now["weight"] == 7, now.to_string()))
        })
        .await?;
    is_ready(lab, &edge).await.map(drop)
}

pub async fn an_unreachable_webhook_does_not_stall(lab: &Lab) -> anyhow::Result<()> {
    let auth = auth_service(lab).await?;
    let webhook = DeadWebhook::of(lab, &auth).await?;
    let edge = lab.edge(&specification(&auth)).await?;
    wait("status reports that the operator waits for the webhook", READY)
        .until(async || {
            let status = edge.status().await?;
            let is_reported = status
                .condition("Reconciling")
                .is_some_and(|it| it.status == "True" && it.message.contains("webhook"));
            Ok(Look::when(is_reported, describe(&status)))
        })
        .await?;
    is_paced(lab, &edge).await?;
    let status = edge.status().await?;
    ensure!(!status.is("Stalled", "True"), "edge is Stalled: {}", describe(&status));
    webhook.lift(lab).await?;
    is_ready_within(lab, &edge, RETRIED).await?;
    is_quiet(lab, &edge).await
}

/// Waits until the role's stand-in is at home, the status reports the reason, and Contour and Envoy run nevertheless. Returns an error
/// if requests are not denied.
async fn falls_back(lab: &Lab, edge: &Edge, why: &str) -> anyhow::Result<()> {
    let (began, auth) = (ledger::now()?, auth_of(lab));
    let fallen = wait(
        "the role has fallen back to the blackhole at home, and Contour and Envoy run",
        READY,
    )
    .until(async || {
        let settled = edge.look_settled().await?;
        let status = edge.status().await?;
        let runs = status.is("ContourAvailable", "True") && status.is("EnvoyAvailable", "True");
        let is_reported = status
            .extension_services
            .iter()
            .all(|service| service.message.contains(why) && service.message.contains(&auth));
        let is_home = stand_in_is_in(&status, &lab.namespace);
        Ok(match settled {
            Look::Reached(status) if runs && is_reported && is_home => Look::Reached(status),
            _ => Look::NotYet(describe(&status)),
        })
    })
    .await;
    let status = fallen.map_err(|error| {
        let writes = ledger::since(began, &lab.namespace).unwrap_or_default();
        error.context(format!("writes meanwhile: {}", ledger::busiest(&writes)))
    })?;
    ensure!(
        status.is("Ready", "False")
            && status
                .extension_services
                .iter()
                .all(|service| service.traffic == "Denied"),
        "Ready is not False, or requests are not denied: {}",
        describe(&status)
    );
    Ok(())
}

/// Waits until the operator has created the formerly refused stand-in by a retry, and Contour is rolled out to the stand-in.
async fn is_retried(lab: &Lab, edge: &Edge, auth: &str) -> anyhow::Result<()> {
    let status = is_ready_within(lab, edge, RETRIED).await?;
    ensure!(stand_in_is_in(&status, auth), "{}", describe(&status));
    is_quiet(lab, edge).await?;
    let left = lab.all("ExtensionService", &lab.namespace, edge).await?;
    ensure!(left.is_empty(), "a stand-in is left at home: {left:?}");
    Ok(())
}

/// Reports whether the status has exactly one service, with a stand-in in this namespace.
fn stand_in_is_in(status: &Status, namespace: &str) -> bool {
    let services = &status.extension_services;
    let is_in_namespace = |stand_in: &slipway_e2e::edge::StandIn| stand_in.namespace == namespace;
    services.len() == 1
        && services
            .iter()
            .all(|service| service.stand_in.as_ref().is_some_and(is_in_namespace))
}

/// Returns a policy that requires the label on both kinds.
fn required(namespace: &str) -> Policy {
    Policy::refuses_unless(
        "required",
        namespace,
        KINDS,
        "object.metadata.?labels[?'cost-centre'].hasValue()",
        REQUIRED,
    )
}

/// A quota of zero.
struct Quota {
    thing: Thing,
    probe: Value,
}

impl Quota {
    async fn of(lab: &Lab, namespace: &str, resource: &str, probe: &Value) -> anyhow::Result<Self> {
        let quota = json!({
            "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"namespace": namespace, "name": "none"},
            "spec": {"hard": {resource: "0"}},
        });
        lab.create(&quota).await?;
        let quota = Self {
            thing: Thing::new("ResourceQuota", namespace, "none"),
            probe: probe.clone(),
        };
        quota.is_in_force(lab, true).await?;
        Ok(quota)
    }

    async fn lift(&self, lab: &Lab) -> anyhow::Result<()> {
        lab.delete(&self.thing).await?;
        self.is_in_force(lab, false).await
    }

    async fn is_in_force(&self, lab: &Lab, expected: bool) -> anyhow::Result<()> {
        wait(&format!("the quota is in force: {expected}"), Duration::from_secs(30))
            .until(async || {
                let response = policy::dry_run(lab, &self.probe).await?;
                let refused = response.as_str().is_some_and(|message| message.contains("quota"));
                Ok(Look::when(refused == expected, response.to_string()))
            })
            .await
    }
}

/// The kind that configures the webhook.
const WEBHOOKS: &str = "ValidatingWebhookConfiguration";

/// A webhook that must allow each write but does not respond, because no process listens on its port.
struct DeadWebhook {
    name: String,
    probe: Value,
}

impl DeadWebhook {
    async fn of(lab: &Lab, namespace: &str) -> anyhow::Result<Self> {
        let name = format!("{namespace}.friction.test");
        let rule = |(group, resource): &(&str, &str)| json!({"apiGroups": [group], "apiVersions": ["*"], "resources": [resource], "operations": ["CREATE", "UPDATE"]});
        let object = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": name, "labels": policy::labels(lab)},
            "webhooks": [{
                "name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
                "timeoutSeconds": 1,
                // The API server's own loopback interface. No process listens on port 1.
                "clientConfig": {"url": "https://127.0.0.1:1/"},
                "rules": KINDS.iter().map(rule).collect::<Vec<_>>(),
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            }],
        });
        let webhook = Self {
            name,
            probe: policy::service(namespace, "probe"),
        };
        policy::api(lab, WEBHOOKS, "v1")
            .create(&PostParams::default(), &serde_json::from_value(object)?)
            .await?;
        webhook.is_in_force(lab, true).await?;
        Ok(webhook)
    }

    async fn lift(&self, lab: &Lab) -> anyhow::Result<()> {
        policy::api(lab, WEBHOOKS, "v1")
            .delete(&self.name, &DeleteParams::default())
            .await?;
        self.is_in_force(lab, false).await
    }

    async fn is_in_force(&self, lab: &Lab, expected: bool) -> anyhow::Result<()> {
        wait(&format!("the webhook is in force: {expected}"), Duration::from_secs(30))
            .until(async || {
                let response = policy::dry_run(lab, &self.probe).await?;
                let failed = response
                    .as_str()
                    .is_some_and(|message| message.contains("failed calling webhook"));
                Ok(Look::when(failed == expected, response.to_string()))
            })
            .await
    }
}
