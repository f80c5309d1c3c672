//! What the service's namespace refuses does not hold up the ingress: the role falls back to the blackhole at home, says so, and
//! is tried again by itself. A refused update moves nothing, and a webhook that does not answer is no refusal.

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
    READY, TRIED_AGAIN, auth_of, auth_service, is_paced, is_quiet, is_ready, is_ready_within, ready_edge, told,
};

/// Both kinds that Slipway makes in a service's namespace.
const KINDS: policy::Resources<'static> = &[("", "services"), ("projectcontour.io", "extensionservices")];

/// What the policy says to who has forgotten the label.
const REQUIRED: &str = "the label cost-centre is required here";

pub async fn a_label_is_required_in_the_service_s_namespace(lab: &Lab) -> anyhow::Result<()> {
    let auth = auth_service(lab).await?;
    let policy = required(&auth);
    let probe = policy::service(&auth, "probe");
    policy.impose(lab, &probe).await?;
    let edge = lab.edge(&specification(&auth)).await?;
    falls_back(lab, &edge, REQUIRED).await?;
    is_paced(lab, &edge).await?;
    policy.lift(lab, &probe).await?;
    is_tried_again(lab, &edge, &auth).await
}

pub async fn no_services_are_left_in_the_service_s_namespace(lab: &Lab) -> anyhow::Result<()> {
    let auth = auth_service(lab).await?;
    let quota = Quota::of(lab, &auth, "services", &policy::service(&auth, "probe")).await?;
    let edge = lab.edge(&specification(&auth)).await?;
    falls_back(lab, &edge, "exceeded quota").await?;
    is_paced(lab, &edge).await?;
    quota.lift(lab).await?;
    is_tried_again(lab, &edge, &auth).await
}

pub async fn no_extension_services_are_left_in_the_service_s_namespace(lab: &Lab) -> anyhow::Result<()> {
    let auth = auth_service(lab).await?;
    let resource = "count/extensionservices.projectcontour.io";
    let quota = Quota::of(lab, &auth, resource, &policy::extension_service(&auth, "probe")).await?;
    let edge = lab.edge(&specification(&auth)).await?;
    falls_back(lab, &edge, "quota").await?;
    is_paced(lab, &edge).await?;
    quota.lift(lab).await?;
    is_tried_again(lab, &edge, &auth).await
}

/// What is changed as it is made can't be used, and is as good as refused.
pub async fn stand_ins_are_changed_in_the_service_s_namespace(lab: &Lab) -> anyhow::Result<()> {
    let auth = auth_service(lab).await?;
    let policy = changes_stand_ins(&auth);
    let probe = policy::extension_service(&auth, "edge-probe");
    policy.impose(lab, &probe).await?;
    let edge = lab.edge(&specification(&auth)).await?;
    falls_back(lab, &edge, "spec.protocol").await?;
    is_paced(lab, &edge).await?;
    policy.lift(lab, &probe).await?;
    is_tried_again(lab, &edge, &auth).await
}

pub async fn an_update_of_the_stand_in(lab: &Lab) -> anyhow::Result<()> {
    let edge = ready_edge(lab).await?;
    is_quiet(lab, &edge).await?;
    let auth = lab.name("auth");
    let policy = required(&auth);
    let probe = policy::service(&auth, "probe");
    policy.impose(lab, &probe).await?;
    let rolled = edge.rolled_state().await?;
    // The owner of the service does what is required, and changes something that has to be copied.
    let mut edited = players::extension_service(&auth, "500ms");
    edited["metadata"]["labels"] = json!({"cost-centre": "7"});
    edited["spec"]["services"][0]["weight"] = json!(7);
    lab.apply(&edited).await?;
    wait("it says that the stand-in can't be changed", READY)
        .until(async || {
            let status = edge.status().await?;
            let says = |kind: &str| {
                let condition = status.condition(kind);
                condition.is_some_and(|it| it.status == "True" && it.message.contains(REQUIRED))
            };
            Ok(Look::when(says("Reconciling") || says("Stalled"), told(&status)))
        })
        .await?;
    is_paced(lab, &edge).await?;
    let status = edge.status().await?;
    ensure!(stand_in_is_in(&status, &auth), "the role was moved: {}", told(&status));
    ensure!(edge.rolled_state().await? == rolled, "something was rolled out");
    ensure!(
        status
            .extension_services
            .iter()
            .all(|service| service.traffic == "Enforced"),
        "the former copy is in use: {}",
        told(&status)
    );
    policy.lift(lab, &probe).await?;
    let name = status.extension_services[0].stand_in.as_ref().map(|it| it.name.clone());
    let stand_in = Thing::new("ExtensionService", &auth, &name.unwrap_or_default());
    wait("the stand-in follows again, by itself", TRIED_AGAIN)
        .until(async || {
            let now = lab.read(&stand_in).await?["spec"]["services"][0].clone();
            Ok(Look::when(now["weight"] == 7, now.to_string()))
        })
        .await?;
    is_ready(lab, &edge).await.map(drop)
}

pub async fn a_webhook_of_the_service_s_namespace_does_not_answer(lab: &Lab) -> anyhow::Result<()> {
    let auth = auth_service(lab).await?;
    let webhook = DeadWebhook::of(lab, &auth).await?;
    let edge = lab.edge(&specification(&auth)).await?;
    wait("it says that it waits for the webhook", READY)
        .until(async || {
            let status = edge.status().await?;
            let says = status
                .condition("Reconciling")
                .is_some_and(|it| it.status == "True" && it.message.contains("webhook"));
            Ok(Look::when(says, told(&status)))
        })
        .await?;
    is_paced(lab, &edge).await?;
    let status = edge.status().await?;
    ensure!(!status.is("Stalled", "True"), "a person was called: {}", told(&status));
    webhook.answers_again(lab).await?;
    is_ready_within(lab, &edge, TRIED_AGAIN).await?;
    is_quiet(lab, &edge).await
}

/// The role's stand-in is at home, status says why, Contour and Envoy run all the same, and requests are denied.
async fn falls_back(lab: &Lab, edge: &Edge, why: &str) -> anyhow::Result<()> {
    let (began, auth) = (ledger::now()?, auth_of(lab));
    let fallen = wait(
        "the role has fallen back to the blackhole at home, and all else goes on",
        READY,
    )
    .until(async || {
        let settled = edge.look_settled().await?;
        let status = edge.status().await?;
        let runs = status.is("ContourAvailable", "True") && status.is("EnvoyAvailable", "True");
        let says = status
            .extension_services
            .iter()
            .all(|service| service.message.contains(why) && service.message.contains(&auth));
        let is_home = stand_in_is_in(&status, &lab.namespace);
        Ok(match settled {
            Look::Reached(status) if runs && says && is_home => Look::Reached(status),
            _ => Look::NotYet(told(&status)),
        })
    })
    .await;
    let status = fallen.map_err(|error| {
        let writes = ledger::since(began, &lab.namespace).unwrap_or_default();
        error.context(format!("meanwhile: {}", ledger::busiest(&writes)))
    })?;
    ensure!(
        status.is("Ready", "False")
            && status
                .extension_services
                .iter()
                .all(|service| service.traffic == "Denied"),
        "nobody can be asked: {}",
        told(&status)
    );
    Ok(())
}

/// What was refused is made by itself as soon as it is not refused any more, and Contour is rolled to it.
async fn is_tried_again(lab: &Lab, edge: &Edge, auth: &str) -> anyhow::Result<()> {
    let status = is_ready_within(lab, edge, TRIED_AGAIN).await?;
    ensure!(stand_in_is_in(&status, auth), "{}", told(&status));
    is_quiet(lab, edge).await?;
    let left = lab.all("ExtensionService", &lab.namespace, edge).await?;
    ensure!(left.is_empty(), "a stand-in was left at home: {left:?}");
    Ok(())
}

fn stand_in_is_in(status: &Status, namespace: &str) -> bool {
    let services = &status.extension_services;
    let is_there = |place: &slipway_e2e::edge::StandIn| place.namespace == namespace;
    services.len() == 1
        && services
            .iter()
            .all(|service| service.stand_in.as_ref().is_some_and(is_there))
}

fn required(namespace: &str) -> Policy {
    Policy::refuses_unless(
        "required",
        namespace,
        KINDS,
        "object.metadata.?labels[?'cost-centre'].hasValue()",
        REQUIRED,
    )
}

/// A quota that leaves nothing.
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

    async fn is_in_force(&self, lab: &Lab, wanted: bool) -> anyhow::Result<()> {
        wait(&format!("the quota is in force: {wanted}"), Duration::from_secs(30))
            .until(async || {
                let answer = policy::answer(lab, &self.probe).await?;
                let refused = answer.as_str().is_some_and(|message| message.contains("quota"));
                Ok(Look::when(refused == wanted, answer.to_string()))
            })
            .await
    }
}

/// The kind of such webhooks' configurations.
const WEBHOOKS: &str = "ValidatingWebhookConfiguration";

/// A webhook that has to allow what is written, and does not answer: nobody listens on its port.
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
                // The API server's own loopback interface; port 1 is nobody's.
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

    async fn answers_again(&self, lab: &Lab) -> anyhow::Result<()> {
        policy::api(lab, WEBHOOKS, "v1")
            .delete(&self.name, &DeleteParams::default())
            .await?;
        self.is_in_force(lab, false).await
    }

    async fn is_in_force(&self, lab: &Lab, wanted: bool) -> anyhow::Result<()> {
        wait(&format!("the webhook is in force: {wanted}"), Duration::from_secs(30))
            .until(async || {
                let answer = policy::answer(lab, &self.probe).await?;
                let failed = answer
                    .as_str()
                    .is_some_and(|message| message.contains("failed calling webhook"));
                Ok(Look::when(failed == wanted, answer.to_string()))
            })
            .await
    }
}
