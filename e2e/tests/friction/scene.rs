//! A ContourDeployment with its authorization service, and the checks on its behavior.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use slipway_e2e::edge::{Edge, Status};
use slipway_e2e::lab::{Lab, Thing, players, specification, wait};
use slipway_e2e::wait::Look;

use crate::ledger::{self, Moment};

/// The limit for a ContourDeployment to become ready, while two dozen others run.
pub const READY: Duration = Duration::from_mins(1);

/// The limit for a retry of a write that kept failing. The operator's longest back-off is a minute.
pub const RETRIED: Duration = Duration::from_secs(75);

/// The limit for a problem to be reported. For 30 s the operator treats a problem as possibly temporary.
pub const REPORTED: Duration = Duration::from_secs(50);

/// The maximum number of writes to each object after the ContourDeployment was ready, until the operator stops writing.
const LAST_WRITES: usize = 2;

/// The maximum number of writes, in [`A_WHILE`], to an object that cannot reach its desired state: writes at intervals of 0.2 s, 0.4 s,
/// 0.8 s, …, and one more because the test triggers a reconcile.
const PACED: usize = 8;

/// How long a test watches the operator between two steps of a case.
pub const A_WHILE: Duration = Duration::from_secs(8);

/// How long a test watches the operator at the end of a case that runs beside others. The time is longer than the operator's longest
/// back-off.
pub const A_MINUTE: Duration = Duration::from_secs(62);

/// Returns the namespace of a case's authorization service.
pub fn auth_of(lab: &Lab) -> String {
    lab.name("auth")
}

/// Creates the namespace of the authorization service, and all objects that the owner of the service creates there. Returns the
/// namespace.
pub async fn auth_service(lab: &Lab) -> anyhow::Result<String> {
    let auth = auth_of(lab);
    lab.create_namespace(&auth).await?;
    players::auth_server(lab, &auth).await?;
    lab.create(&players::extension_service(&auth, "500ms")).await?;
    Ok(auth)
}

/// Creates a ContourDeployment with the usual spec, and waits until it is ready and its service is enforced.
pub async fn ready_edge(lab: &Lab) -> anyhow::Result<Edge> {
    let auth = auth_service(lab).await?;
    let edge = lab.edge(&specification(&auth)).await?;
    is_ready(lab, &edge).await?;
    Ok(edge)
}

/// Waits for the same state as without interference: ready, settled, all pods available, and the service enforced.
pub async fn is_ready(lab: &Lab, edge: &Edge) -> anyhow::Result<Status> {
    is_ready_within(lab, edge, READY).await
}

/// Does the same as [`is_ready`], with another limit.
pub async fn is_ready_within(lab: &Lab, edge: &Edge, limit: Duration) -> anyhow::Result<Status> {
    let began = ledger::now()?;
    let ready = wait("the ContourDeployment is ready, and its service enforced", limit)
        .until(async || {
            let settled = edge.look_settled().await?;
            let status = edge.status().await?;
            let enforced = status
                .extension_services
                .iter()
                .all(|service| service.traffic == "Enforced");
            Ok(match settled {
                Look::Reached(status) if status.is("Ready", "True") && enforced => Look::Reached(status),
                _ => Look::NotYet(describe(&status)),
            })
        })
        .await;
    ready.with_context(|| format!("writes meanwhile: {}", writes_since(began, lab)))
}

/// Returns an error unless the operator stops writing. The ContourDeployment must be ready at the start. From then on, the operator may
/// write to each object at most twice. Then the operator must not write for a while, even if the test triggers a reconcile.
pub async fn is_quiet(lab: &Lab, edge: &Edge) -> anyhow::Result<()> {
    is_quiet_since(lab, edge, ledger::now()?, A_WHILE).await
}

/// Does the same as [`is_quiet`], but the operator must not write for a minute.
pub async fn stays_quiet(lab: &Lab, edge: &Edge) -> anyhow::Result<()> {
    is_quiet_since(lab, edge, ledger::now()?, A_MINUTE).await
}

/// Does the same as [`is_quiet`] from an earlier moment, but the operator must not write for this long.
pub async fn is_quiet_since(lab: &Lab, edge: &Edge, began: Moment, long: Duration) -> anyhow::Result<()> {
    let listening = Instant::now();
    wait("the operator has stopped writing", Duration::from_secs(20))
        .until(async || {
            let silence = ledger::silence(began, &lab.namespace)?;
            let is_silent = silence.unwrap_or(listening.elapsed()) > Duration::from_secs(2);
            Ok(Look::when(is_silent, writes_since(began, lab)))
        })
        .await?;
    let writes = ledger::since(began, &lab.namespace)?;
    for (object, count) in ledger::by_object(&writes) {
        ensure!(
            count <= LAST_WRITES,
            "{count} writes to {object} after edge was ready; {}",
            ledger::busiest(&writes)
        );
    }
    let quiet = ledger::now()?;
    lab.trigger_reconcile(&Thing::new("ContourDeployment", edge.namespace(), edge.name()))
        .await?;
    // Only waiting can prove that nothing happens.
    tokio::time::sleep(long).await;
    let writes = ledger::since(quiet, &lab.namespace)?;
    ensure!(
        writes.is_empty(),
        "edge was ready, but in {} s: {}",
        long.as_secs(),
        ledger::busiest(&writes)
    );
    Ok(())
}

/// Returns an error if the operator writes to an object more than [`PACED`] times in a while.
pub async fn is_paced(lab: &Lab, edge: &Edge) -> anyhow::Result<()> {
    let began = ledger::now()?;
    lab.trigger_reconcile(&Thing::new("ContourDeployment", edge.namespace(), edge.name()))
        .await?;
    tokio::time::sleep(A_WHILE).await;
    let writes = ledger::since(began, &lab.namespace)?;
    for (object, count) in ledger::by_object(&writes) {
        ensure!(
            count <= PACED,
            "{count} writes to {object} in {} s; {}",
            A_WHILE.as_secs(),
            ledger::busiest(&writes)
        );
    }
    Ok(())
}

/// Returns an error unless the status reports that others decide this field of this object.
pub fn others_decide(status: &Status, kind: &str, name: &str, field: &str) -> anyhow::Result<()> {
    let is_named = status.fields_decided_by_others.iter().any(|decided| {
        decided.kind == kind && decided.name == name && decided.fields.iter().any(|path| path.contains(field))
    });
    ensure!(
        is_named,
        "status does not report that others decide {field} of {kind} {name}: {:?}",
        status.fields_decided_by_others
    );
    Ok(())
}

/// Returns an error if the status reports that others decide any field.
pub fn others_decide_nothing(status: &Status) -> anyhow::Result<()> {
    let decided = &status.fields_decided_by_others;
    ensure!(
        decided.is_empty(),
        "no other controller interferes, but status reports: {decided:?}"
    );
    Ok(())
}

/// Waits until the ContourDeployment is Stalled for one of these reasons, and the message contains all of these parts.
pub async fn stalled(lab: &Lab, edge: &Edge, reasons: &[&str], parts: &[&str]) -> anyhow::Result<Status> {
    let began = ledger::now()?;
    let what = format!("edge is Stalled ({reasons:?}) and names {parts:?}");
    let stalled = wait(&what, REPORTED)
        .until(async || {
            let status = edge.status().await?;
            let is_reported = status.is_current()
                && status.condition("Stalled").is_some_and(|stalled| {
                    let contains = |part: &&str| stalled.message.contains(*part);
                    stalled.status == "True" && reasons.contains(&stalled.reason.as_str()) && parts.iter().all(contains)
                });
            Ok(if is_reported {
                Look::Reached(status)
            } else {
                Look::NotYet(describe(&status))
            })
        })
        .await;
    let status = stalled.with_context(|| format!("writes meanwhile: {}", writes_since(began, lab)))?;
    ensure!(
        status.is("Ready", "False"),
        "edge is Stalled, but Ready is not False: {}",
        describe(&status)
    );
    Ok(status)
}

/// Describes a status completely, for messages.
pub fn describe(status: &Status) -> String {
    let mut text = status.to_string();
    for kind in ["Reconciling", "Stalled", "Ready"] {
        if let Some(condition) = status.condition(kind) {
            let _ = write!(text, "; {kind}: {}", condition.message);
        }
    }
    for service in &status.extension_services {
        let place = service.stand_in.as_ref().map(|stand_in| &stand_in.namespace);
        let (state, traffic, message) = (&service.state, &service.traffic, &service.message);
        let _ = write!(text, "; service {state}, {traffic}, stand-in in {place:?}, {message:?}");
    }
    if !status.fields_decided_by_others.is_empty() {
        let _ = write!(text, "; decided by others: {:?}", status.fields_decided_by_others);
    }
    text
}

/// Describes the writes since a moment, for messages.
fn writes_since(began: Moment, lab: &Lab) -> String {
    let writes = ledger::since(began, &lab.namespace);
    writes.map_or_else(|error| format!("{error:#}"), |writes| ledger::busiest(&writes))
}

/// Returns the names of the configurations that Contour's ReplicaSets reference, including ReplicaSets without replicas.
pub async fn configurations_rolled_to(lab: &Lab, edge: &Edge) -> anyhow::Result<Vec<String>> {
    let sets = lab.all("ReplicaSet", edge.namespace(), edge).await?;
    let arguments = sets.iter().filter_map(|set| {
        let arguments = set.pointer("/spec/template/spec/containers/0/args")?.as_array()?;
        let name = |argument: &Value| Some(argument.as_str()?.strip_prefix("--contour-config-name=")?.to_owned());
        arguments.iter().find_map(name)
    });
    Ok(arguments.collect())
}
