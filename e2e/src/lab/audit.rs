//! The operator's requests to the API server, read from the API server's audit log.

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::audit::AuditLog;
pub use crate::audit::Mark;
use crate::lab::world::World;

/// Returns the present end of the audit log.
pub fn mark(world: &World) -> anyhow::Result<Mark> {
    AuditLog::within(&world.state).mark()
}

/// Returns the operator's requests since `since`, as `verb resource namespace/name code`. The result has requests for this namespace and
/// for cluster-scoped objects, without watches.
pub fn requests(world: &World, since: Mark, namespace: &str) -> anyhow::Result<Vec<String>> {
    let entries = entries(world, since)?.into_iter();
    Ok(entries
        .filter(|entry| concerns(entry, namespace))
        .map(|entry| describe(&entry))
        .collect())
}

/// Returns the entries of the audit log for the operator's requests since `since`, without watches.
pub fn entries(world: &World, since: Mark) -> anyhow::Result<Vec<Value>> {
    let lines = AuditLog::within(&world.state).lines(since)?.into_iter();
    let entries = lines.map(|line| serde_json::from_str(&line).context("reading a line of the audit log"));
    let entries: Vec<Value> = entries.collect::<anyhow::Result<_>>()?;
    Ok(entries.into_iter().filter(is_of_the_operator).collect())
}

fn is_of_the_operator(entry: &Value) -> bool {
    entry["userAgent"]
        .as_str()
        .is_some_and(|agent| agent.starts_with("slipway/"))
        && entry["verb"] != "watch"
        && entry["stage"] == "ResponseComplete"
}

fn concerns(entry: &Value, namespace: &str) -> bool {
    let [own, name] = ["namespace", "name"].map(|field| entry["objectRef"][field].as_str().unwrap_or_default());
    own == namespace || (own.is_empty() && (name.is_empty() || name.contains(namespace)))
}

fn describe(entry: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = &entry["objectRef"];
    let resource = [text(&object["resource"]), text(&object["subresource"])].join("/");
    let verb = if text(&entry["requestURI"]).contains("dryRun=All") {
        "try".to_owned()
    } else {
        text(&entry["verb"])
    };
    format!(
        "{verb} {resource} {}/{} {}",
        text(&object["namespace"]),
        text(&object["name"]),
        entry["responseStatus"]["code"]
    )
}

/// Returns the number of the operator's deletions since `since` in these namespaces and of cluster-scoped objects. Returns an error if
/// a deletion has no uid in its preconditions, since such a deletion could delete another object than intended.
pub fn deletions_by_uid(world: &World, since: Mark, namespaces: &[&str]) -> anyhow::Result<usize> {
    let mut count = 0;
    for entry in entries(world, since)? {
        if entry["verb"] != "delete" || !namespaces.iter().any(|namespace| concerns(&entry, namespace)) {
            continue;
        }
        count += 1;
        let uid = entry["requestObject"]["preconditions"]["uid"]
            .as_str()
            .unwrap_or_default();
        ensure!(
            !uid.is_empty(),
            "a deletion without a uid: {} {}",
            describe(&entry),
            entry["requestObject"]
        );
    }
    Ok(count)
}

/// Returns an error if the operator wrote to an object in these namespaces whose name is not one of the edge's names.
pub fn only_own_objects_written(world: &World, since: Mark, namespaces: &[&str], edge: &str) -> anyhow::Result<()> {
    let mut writes = 0;
    for entry in entries(world, since)? {
        let object = &entry["objectRef"];
        // The log has no name for an Event that is being created.
        let is_write = entry["verb"] != "get" && entry["verb"] != "list" && object["resource"] != "events";
        if !is_write || !namespaces.iter().any(|namespace| concerns(&entry, namespace)) {
            continue;
        }
        writes += 1;
        let name = object["name"].as_str().unwrap_or_default();
        let is_own = name == edge
            || name.starts_with(&format!("{edge}-"))
            || namespaces.iter().any(|namespace| name.starts_with(&format!("slipway:{namespace}:{edge}:")))
            // The log has no name for a rejected creation.
            || (name.is_empty() && entry["verb"] == "create");
        ensure!(
            is_own,
            "the operator wrote to an object that is not the edge's: {}",
            describe(&entry)
        );
    }
    ensure!(writes > 0, "the audit log has no write of the operator");
    Ok(())
}

/// Reports whether a request of [`requests`] changes an object. A dry run does not.
pub fn is_write(request: &str) -> bool {
    !["get ", "list ", "try "].iter().any(|verb| request.starts_with(verb))
}
