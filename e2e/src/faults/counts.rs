//! The numbers of the operator's creations and deletions of each object, from the API server's audit log.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::lab::audit::{self, Mark};
use crate::lab::world::World;

/// The numbers by verb and object: `create secrets faults/edge-xds-ca`.
pub type Counts = BTreeMap<String, usize>;

/// Returns the numbers since this mark. Refused requests do not count, because they have no effect. Events do not count, because they
/// change nothing.
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

/// Returns the counts without the objects that were created and deleted again.
pub fn net(counts: &Counts) -> Counts {
    let of = |verb: &str, object: &str| counts.get(&format!("{verb} {object}")).copied().unwrap_or_default();
    let objects = counts
        .keys()
        .filter_map(|key| key.split_once(' '))
        .map(|(_, object)| object);
    let mut net = Counts::new();
    for object in objects {
        let (created, deleted) = (of("create", object), of("delete", object));
        net.insert(format!("create {object}"), created.saturating_sub(deleted));
        net.insert(format!("delete {object}"), deleted.saturating_sub(created));
    }
    net
}

/// Returns the differences between two sets of numbers.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_creation_and_a_deletion_cancel_each_other() {
        let counts = |all: &[(&str, usize)]| {
            all.iter()
                .map(|(key, count)| ((*key).to_owned(), *count))
                .collect::<Counts>()
        };
        let expected = counts(&[("create services a/b", 1), ("delete pods a/c", 1)]);
        let moved = counts(&[
            ("create services a/b", 2),
            ("delete services a/b", 1),
            ("delete pods a/c", 1),
            ("create services a/d", 1),
            ("delete services a/d", 1),
        ]);
        assert_ne!(differences(&expected, &moved), Vec::<String>::new());
        assert_eq!(differences(&net(&expected), &net(&moved)), Vec::<String>::new());
        let left = counts(&[("create services a/b", 2), ("delete pods a/c", 1)]);
        assert_ne!(differences(&net(&expected), &net(&left)), Vec::<String>::new());
    }
}
