//! What the operator asked the API server, from the API server's own audit log.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::lab::world::World;

/// A moment in the audit log.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

/// Now.
pub fn mark(world: &World) -> anyhow::Result<Mark> {
    let file = world.state.join("audit.log");
    Ok(Mark(
        file.metadata()
            .with_context(|| format!("looking at {}", file.display()))?
            .len(),
    ))
}

/// The operator's requests since then, watches left out, that concern this namespace or none: `verb resource namespace/name`.
pub fn requests(world: &World, since: Mark, namespace: &str) -> anyhow::Result<Vec<String>> {
    let entries = entries(world, since)?.into_iter();
    Ok(entries
        .filter(|entry| concerns(entry, namespace))
        .map(|entry| describe(&entry))
        .collect())
}

/// The operator's requests since then, watches left out, as the audit log has them.
pub fn entries(world: &World, since: Mark) -> anyhow::Result<Vec<Value>> {
    let mut file = File::open(world.state.join("audit.log")).context("opening the audit log")?;
    file.seek(SeekFrom::Start(since.0))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    // The last line may be half written; the request that it is about then is not answered yet.
    let entries = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(entries.filter(is_of_the_operator).collect())
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

/// How many deletions the operator asked for since then in these namespaces or in none. An error if one could have met another
/// object than the one that it was meant for: none but the right uid may be in its preconditions.
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

/// An error if the operator wrote to anything in these namespaces that does not bear an edge's name.
pub fn only_own_objects_written(world: &World, since: Mark, namespaces: &[&str], edge: &str) -> anyhow::Result<()> {
    let mut writes = 0;
    for entry in entries(world, since)? {
        let object = &entry["objectRef"];
        // An event is not named before it is made.
        let is_write = entry["verb"] != "get" && entry["verb"] != "list" && object["resource"] != "events";
        if !is_write || !namespaces.iter().any(|namespace| concerns(&entry, namespace)) {
            continue;
        }
        writes += 1;
        let name = object["name"].as_str().unwrap_or_default();
        let is_own = name == edge
            || name.starts_with(&format!("{edge}-"))
            || namespaces.iter().any(|namespace| name.starts_with(&format!("slipway:{namespace}:{edge}:")))
            // A creation that was refused has no name in the log.
            || (name.is_empty() && entry["verb"] == "create");
        ensure!(
            is_own,
            "the operator wrote to what is not its own: {}",
            describe(&entry)
        );
    }
    ensure!(writes > 0, "the audit log knows of no write of the operator's");
    Ok(())
}

/// Whether a request of [`requests`] changes something. A dry run does not.
pub fn is_write(request: &str) -> bool {
    !["get ", "list ", "try "].iter().any(|verb| request.starts_with(verb))
}
