//! A ContourDeployment with its authorization service in place, and what is to be seen of it.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use slipway_e2e::edge::{Edge, Status};
use slipway_e2e::lab::{Lab, Thing, players, specification, wait};
use slipway_e2e::wait::Look;

use crate::ledger::{self, Moment};

/// A ContourDeployment is ready by then, with two dozen others beside it.
pub const READY: Duration = Duration::from_mins(1);

/// What failed for a while is tried again by then: the operator's longest back-off is a minute.
pub const TRIED_AGAIN: Duration = Duration::from_secs(75);

/// What is wrong is reported by then: for 30 s it may be on its way to be cured.
pub const REPORTED: Duration = Duration::from_secs(50);

/// How many requests may go to each object after all was well, until nothing is written any more.
const LAST_WORDS: usize = 2;

/// How many requests may go, in [`A_WHILE`], to an object that can't be had as it is wanted: at 0.2 s, 0.4 s, 0.8 s, … from each other,
/// and one because a test makes the operator look again.
const PACED: usize = 8;

/// How long the operator is watched between two steps of a case.
pub const A_WHILE: Duration = Duration::from_secs(8);

/// How long it is watched at the end of a case that runs beside others: longer than its longest back-off.
pub const A_MINUTE: Duration = Duration::from_secs(62);

/// The namespace of a case's authorization service.
pub fn auth_of(lab: &Lab) -> String {
    lab.name("auth")
}

/// Makes the namespace of the authorization service, and in it what its owner makes: all that it takes.
pub async fn auth_service(lab: &Lab) -> anyhow::Result<String> {
    let auth = auth_of(lab);
    lab.make_namespace(&auth).await?;
    players::auth_server(lab, &auth).await?;
    lab.create(&players::extension_service(&auth, "500ms")).await?;
    Ok(auth)
}

/// A ContourDeployment of the usual specification, ready, with its service enforced.
pub async fn ready_edge(lab: &Lab) -> anyhow::Result<Edge> {
    let auth = auth_service(lab).await?;
    let edge = lab.edge(&specification(&auth)).await?;
    is_ready(lab, &edge).await?;
    Ok(edge)
}

/// Waits until it is as without any friction: ready, nothing on its way, all of its pods there, its service asked.
pub async fn is_ready(lab: &Lab, edge: &Edge) -> anyhow::Result<Status> {
    is_ready_within(lab, edge, READY).await
}

/// The same, with another limit.
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
                _ => Look::NotYet(told(&status)),
            })
        })
        .await;
    ready.with_context(|| format!("meanwhile: {}", written(began, lab)))
}

/// From now on, a moment at which all is well, the operator writes to each object twice at most, and then for a while nothing any
/// more, not even when something makes it look again.
pub async fn is_quiet(lab: &Lab, edge: &Edge) -> anyhow::Result<()> {
    is_quiet_since(lab, edge, ledger::now()?, A_WHILE).await
}

/// The same, and nothing for a minute.
pub async fn stays_quiet(lab: &Lab, edge: &Edge) -> anyhow::Result<()> {
    is_quiet_since(lab, edge, ledger::now()?, A_MINUTE).await
}

/// The same from a moment on that has passed, and then nothing for this long.
pub async fn is_quiet_since(lab: &Lab, edge: &Edge, began: Moment, long: Duration) -> anyhow::Result<()> {
    let listening = Instant::now();
    wait("the operator has had its last word", Duration::from_secs(20))
        .until(async || {
            let silence = ledger::silence(began, &lab.namespace)?;
            let is_silent = silence.unwrap_or(listening.elapsed()) > Duration::from_secs(2);
            Ok(Look::when(is_silent, written(began, lab)))
        })
        .await?;
    let words = ledger::since(began, &lab.namespace)?;
    for (object, count) in ledger::by_object(&words) {
        ensure!(
            count <= LAST_WORDS,
            "{count} writes to {object} after all was well; {}",
            ledger::busiest(&words)
        );
    }
    let quiet = ledger::now()?;
    poke(lab, edge).await?;
    // That nothing happens can only be seen by waiting.
    tokio::time::sleep(long).await;
    let words = ledger::since(quiet, &lab.namespace)?;
    ensure!(
        words.is_empty(),
        "all was well, and in {} s: {}",
        long.as_secs(),
        ledger::busiest(&words)
    );
    Ok(())
}

/// For a while, the operator writes to no object more often than [`PACED`].
pub async fn is_paced(lab: &Lab, edge: &Edge) -> anyhow::Result<()> {
    let began = ledger::now()?;
    poke(lab, edge).await?;
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

/// Makes the operator look again.
pub async fn poke(lab: &Lab, edge: &Edge) -> anyhow::Result<()> {
    let object = Thing::new("ContourDeployment", edge.namespace(), edge.name());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let patch = json!({"metadata": {"annotations": {"test.example.com/poke": now.as_nanos().to_string()}}});
    lab.patch(&object, &patch).await
}

/// An error unless status says that somebody else decides this field of this object of the test's namespace.
pub fn somebody_else_decides(status: &Status, kind: &str, name: &str, field: &str) -> anyhow::Result<()> {
    let is_named = status.fields_decided_by_others.iter().any(|decided| {
        decided.kind == kind && decided.name == name && decided.fields.iter().any(|path| path.contains(field))
    });
    ensure!(
        is_named,
        "status does not say that somebody else decides {field} of {kind} {name}: {:?}",
        status.fields_decided_by_others
    );
    Ok(())
}

/// An error if status says that somebody else decides something.
pub fn nobody_else_decides(status: &Status) -> anyhow::Result<()> {
    let decided = &status.fields_decided_by_others;
    ensure!(decided.is_empty(), "nobody is in the way, and status says: {decided:?}");
    Ok(())
}

/// Waits until status calls a person, for one of these reasons, naming all of this.
pub async fn stalled(lab: &Lab, edge: &Edge, reasons: &[&str], words: &[&str]) -> anyhow::Result<Status> {
    let began = ledger::now()?;
    let stalled = wait(&format!("it is Stalled ({reasons:?}), and names {words:?}"), REPORTED)
        .until(async || {
            let status = edge.status().await?;
            let is_so = status.is_current()
                && status.condition("Stalled").is_some_and(|stalled| {
                    let says = |word: &&str| stalled.message.contains(*word);
                    stalled.status == "True" && reasons.contains(&stalled.reason.as_str()) && words.iter().all(says)
                });
            Ok(if is_so {
                Look::Reached(status)
            } else {
                Look::NotYet(told(&status))
            })
        })
        .await;
    let status = stalled.with_context(|| format!("meanwhile: {}", written(began, lab)))?;
    ensure!(status.is("Ready", "False"), "it is Stalled and: {}", told(&status));
    Ok(status)
}

/// All of a status, in words.
pub fn told(status: &Status) -> String {
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

fn written(began: Moment, lab: &Lab) -> String {
    let writes = ledger::since(began, &lab.namespace);
    writes.map_or_else(|error| format!("{error:#}"), |writes| ledger::busiest(&writes))
}

/// What pods of Contour are made from: the names of the configurations that its ReplicaSets name, those without replicas too.
pub async fn configurations_rolled_to(lab: &Lab, edge: &Edge) -> anyhow::Result<Vec<String>> {
    let sets = lab.all("ReplicaSet", edge.namespace(), edge).await?;
    let arguments = sets.iter().filter_map(|set| {
        let arguments = set.pointer("/spec/template/spec/containers/0/args")?.as_array()?;
        let name = |argument: &Value| Some(argument.as_str()?.strip_prefix("--contour-config-name=")?.to_owned());
        arguments.iter().find_map(name)
    });
    Ok(arguments.collect())
}
