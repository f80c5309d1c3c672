//! How often the operator created and deleted each object, from the API server's own audit log.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::lab::audit::{self, Mark};
use crate::lab::world::World;

/// By verb and object: `create secrets faults/edge-xds-ca`.
pub type Counts = BTreeMap<String, usize>;

/// What the API server did for the operator since then. A request that it refused did nothing; Events tell and change nothing.
pub fn since(world: &World, mark: Mark) -> anyhow::Result<Counts> {
    let mut counts = Counts::new();
    for entry in audit::entries(world, mark)? {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let verb = text(&entry["verb"]);
        let object = &entry["objectRef"];
        let did = entry["responseStatus"]["code"].as_u64().is_some_and(|code| code < 300);
        let tried = text(&entry["requestURI"]).contains("dryRun=All");
        if !["create", "delete"].contains(&verb.as_str()) || !did || tried || object["resource"] == "events" {
            continue;
        }
        let name = format!("{}/{}", text(&object["namespace"]), text(&object["name"]));
        *counts
            .entry(format!("{verb} {} {name}", text(&object["resource"])))
            .or_default() += 1;
    }
    Ok(counts)
}

/// Where two differ, in words.
pub fn differences(expected: &Counts, found: &Counts) -> Vec<String> {
    let all = expected
        .keys()
        .chain(found.keys().filter(|key| !expected.contains_key(*key)));
    all.filter_map(|key| {
        let [expected, found] = [expected, found].map(|counts| counts.get(key).copied().unwrap_or_default());
        (expected != found).then(|| format!("{key}: {found} times, expected {expected}"))
    })
    .collect()
}
