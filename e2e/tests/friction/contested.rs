//! Somebody who always changes a field back. Neither wins; the operator's tries become rare, and status says whom it is about.

use std::time::Duration;

use anyhow::ensure;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use slipway_e2e::lab::{Lab, Thing, wait};
use slipway_e2e::wait::Look;
use tokio::task::JoinHandle;

use crate::ledger;
use crate::scene::{REPORTED, TRIED_AGAIN, is_paced, is_quiet, is_ready_within, ready_edge, told};

/// Tries until a fight is called one: twenty at once, and a few at 1 s, 2 s, 4 s, … from each other.
const TRIES: usize = 26;

pub async fn somebody_keeps_changing_a_port_back(lab: &Lab) -> anyhow::Result<()> {
    let edge = ready_edge(lab).await?;
    is_quiet(lab, &edge).await?;
    let began = ledger::now()?;
    let service = Thing::new("Service", &lab.namespace, "edge-envoy");
    let fight = Fight::over(lab, &service);
    wait("status says that the Service is contested", REPORTED)
        .until(async || {
            let status = edge.status().await?;
            let says = ["Reconciling", "Stalled"].iter().any(|kind| {
                status.condition(kind).is_some_and(|it| {
                    it.status == "True" && it.reason == "Contested" && it.message.contains("edge-envoy")
                })
            });
            Ok(Look::when(says, told(&status)))
        })
        .await
        .map_err(|error| {
            let writes = ledger::since(began, &lab.namespace).unwrap_or_default();
            error.context(format!("meanwhile: {}", ledger::busiest(&writes)))
        })?;
    let writes = ledger::since(began, &lab.namespace)?;
    let tries = writes
        .iter()
        .filter(|write| write.object() == format!("services {}/edge-envoy", lab.namespace));
    let tries = tries.count();
    ensure!(tries <= TRIES, "{tries} tries; {}", ledger::busiest(&writes));
    is_paced(lab, &edge).await?;
    fight.end();
    wait("the port is Slipway's again, by itself", TRIED_AGAIN)
        .until(async || {
            let port = lab.read(&service).await?["spec"]["ports"][0].clone();
            Ok(Look::when(port["targetPort"] != THEIRS, port.to_string()))
        })
        .await?;
    is_ready_within(lab, &edge, TRIED_AGAIN).await?;
    is_quiet(lab, &edge).await
}

/// What the other one wants.
const THEIRS: u16 = 9999;

/// A controller that wants another port.
struct Fight(JoinHandle<()>);

impl Fight {
    fn over(lab: &Lab, service: &Thing) -> Self {
        let (services, name) = (lab.api(service.kind, &service.namespace), service.name.clone());
        Self(tokio::spawn(async move {
            let mut round = tokio::time::interval(Duration::from_millis(50));
            loop {
                round.tick().await;
                // Whatever fails is tried again in the next round.
                let Ok(found) = services.get(&name).await else { continue };
                let mut ports: Value = found.data["spec"]["ports"].clone();
                if ports[0]["targetPort"] == THEIRS {
                    continue;
                }
                ports[0]["targetPort"] = json!(THEIRS);
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
