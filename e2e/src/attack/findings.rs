//! The unexpected observations of an attack: the comparison with the state before the attacks, and the report.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::ensure;
use serde_json::Value;

use super::Initial;
use super::place::Place;
use super::snapshot::{self, Snapshot};
use crate::narration::say;

/// The phase of an observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The operator runs.
    Running,
    /// The operator was restarted.
    Restarted,
    /// The attackers' objects are deleted, and the operator was restarted again.
    Gone,
    /// The ContourDeployments are deleted.
    Deleted,
}

/// The unexpected observations by place and phase.
pub type Findings = BTreeMap<(usize, Phase), Vec<String>>;

/// The annotation of Envoy's Service that a change of the spec adds.
pub const ROUND: &str = "test.example.com/round";

/// Records the unexpected observations of a phase, by place.
pub fn note(findings: &mut Findings, phase: Phase, found: BTreeMap<usize, Vec<String>>) {
    for (number, wrong) in found {
        findings.entry((number, phase)).or_default().extend(wrong);
    }
}

/// Returns the differences of Slipway's objects from the state before the attacks.
pub fn objects(place: &Place, snapshot: &Snapshot) -> Vec<String> {
    compared(place, &place.before.ours, &snapshot.ours(&place.victim))
}

/// Returns the same as [`objects`], but ignores new names of a stand-in's successor and of a ContourConfiguration.
pub fn likeness(place: &Place, snapshot: &Snapshot) -> Vec<String> {
    compared(place, &place.before.likeness, &snapshot.likeness(&place.victim))
}

fn compared(place: &Place, before: &BTreeMap<String, Value>, now: &BTreeMap<String, Value>) -> Vec<String> {
    let gone = before
        .keys()
        .filter(|name| !now.contains_key(*name))
        .map(|name| format!("deleted: {name}"));
    let others = now.iter().filter_map(|(name, now)| match before.get(name) {
        None => (!place.is_touched(name)).then(|| format!("new: {name}")),
        Some(before) if before != now => Some(format!("{name}{}", snapshot::difference(before, now))),
        Some(_) => None,
    });
    gone.chain(others).collect()
}

/// Returns the reason why a change of the spec was not applied; empty if it was.
pub fn blocked(place: &Place, snapshot: &Snapshot) -> Vec<String> {
    let deployment = snapshot.deployment(&place.victim);
    let service = snapshot.object("Service", &place.victim.home, "edge-envoy");
    // A rejected spec is observed, but not applied.
    let is_applied = service["metadata"]["annotations"][ROUND] == "1" || place.given == Initial::Refused;
    let is_observed = deployment["status"]["observedGeneration"] == deployment["metadata"]["generation"];
    if is_applied && is_observed {
        Vec::new()
    } else {
        vec!["a change of the spec is not applied".to_owned()]
    }
}

/// Prints the table, and returns an error if a row had another outcome than expected.
pub fn report(places: &[Place], findings: &Findings, is_guarded: bool) -> anyhow::Result<()> {
    let mut wrong = String::new();
    for (number, place) in places.iter().enumerate() {
        let found: Vec<_> = findings
            .iter()
            .filter(|((its, _), found)| *its == number && !found.is_empty())
            .collect();
        for row in &place.rows {
            let outcome = row.attack.outcome(is_guarded);
            let verdict = if found.is_empty() {
                "as expected"
            } else {
                "NOT AS EXPECTED"
            };
            say(format!(
                "{}: {:?}, {:?}: {outcome:?}: {verdict}",
                row.attack.name, row.attack.who, row.attack.given
            ));
        }
        for ((_, phase), found) in found {
            writeln!(wrong, "{}, {phase:?}: {}", place.name, found.join("\n    "))?;
        }
    }
    ensure!(
        wrong.is_empty(),
        "policies installed: {is_guarded}; not as expected:\n{wrong}"
    );
    Ok(())
}
