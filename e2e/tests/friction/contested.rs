//! Another controller that always reverts a field. Neither side wins. The operator backs off, and the status names the object.

use std::time::Duration;

use anyhow::ensure;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use slipway_e2e::lab::{Lab, Thing, wait};
use slipway_e2e::wait::Look;
use tokio::task::JoinHandle;

use crate::ledger;
use crate::scene::{REPORTED, RETRIED, describe, is_paced, is_quiet, is_ready_within, ready_edge};

/// The maximum number of attempts before the operator reports the contest: twenty at once, and a few at intervals of 1 s, 2 s, 4 s, …
const TRIES: usize = 26;

pub async fn a_contested_port_is_reported_and_retried_with_back_off(lab: &Lab) -> anyhow::Result<()> {
    let edge = ready_edge(lab).await?;
    is_quiet(lab, &edge).await?;
    let began = ledger::now()?;
    let service = Thing::new("Service", &lab.namespace, "edge-envoy");
    let fight = Fight::over(lab, &service);
    wait("status reports that the Service is contested", REPORTED)
        .until(async || {
            let status = edge.status().await?;
            let is_reported = ["Reconciling", "Stalled"].iter().any(|kind| {
                status.condition(kind).is_some_and(|it| {
                    it.status == "True" && it.reason == "Contested" && it.message.contains("edge-envoy")
                })
            });
            Ok(Look::when(is_reported, describe(&status)))
        })
        .await
        .map_err(|error| {
            let writes = ledger::since(began, &lab.namespace).unwrap_or_default();
            error.context(format!("writes meanwhile: {}", ledger::busiest(&writes)))
        })?;
    let writes = ledger::since(began, &lab.namespace)?;
    let attempts = writes
        .iter()
        .filter(|write| write.object() == format!("services {}/edge-envoy", lab.namespace));
    let attempts = attempts.count();
    ensure!(attempts <= TRIES, "{attempts} attempts; {}", ledger::busiest(&writes));
    is_paced(lab, &edge).await?;
    fight.end();
    wait("the operator has restored the port by a retry", RETRIED)
        .until(async || {
            let port = lab.read(&service).await?["spec"]["ports"][0].clone();
            Ok(Look::when(port["targetPort"] != OTHER_PORT, port.to_string()))
        })
        .await?;
    is_ready_within(lab, &edge, RETRIED).await?;
    is_quiet(lab, &edge).await
}

/// The port that the other controller desires.
const OTHER_PORT: u16 = 9999;

/// A controller that desires another port. It ends when this value is dropped.
struct Fight(JoinHandle<()>);

impl Fight {
    fn over(lab: &Lab, service: &Thing) -> Self {
        let (services, name) = (lab.api(service.kind, &service.namespace), service.name.clone());
        Self(tokio::spawn(async move {
            let mut round = tokio::time::interval(Duration::from_millis(50));
            loop {
                round.tick().await;
                // A failed request is retried in the next round.
                let Ok(found) = services.get(&name).await else { continue };
                let mut ports: Value = found.data["spec"]["ports"].clone();
                if ports[0]["targetPort"] == OTHER_PORT {
                    continue;
                }
                ports[0]["targetPort"] = json!(OTHER_PORT);
                let patch = Patch::Merge(json!({"spec": {"ports": ports}}));
                let _ = services.patch(&name, &PatchParams::default(), &patch).await;
            }
        }))
    }

    fn end(self) {
        drop(self);
    }
}

impl Drop for Fight {
    fn drop(&mut self) {
        self.0.abort();
    }
}
