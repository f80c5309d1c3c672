//! The pure core: `plan(&Observed) -> Plan`. No clock, no randomness, no client: what a decision depends on is in
//! [`Observed`], what is to be done is in [`Plan`]. If a decision can be made here, it is made here.

pub mod admission;
mod assess;
mod attempts;
mod backoff;
mod certificates;
mod compare;
mod configuration;
mod deletion;
mod desire;
mod diff;
mod failure;
pub mod issuing;
mod names;
mod object;
mod observed;
mod operand;
mod ownership;
mod removal;
mod report;
mod rollout;
mod settings;
mod stand_in;
mod startup_inputs;
mod step;
mod succession;
mod traffic;
mod usage;
mod views;
mod waves;
mod write;

pub use attempts::Attempts;
pub use compare::differences;
pub use failure::{Failure, FailureCause};
pub use names::{hash, hash_json};
pub use object::{Key, Kind, NamespacedName, Object, Owner};
pub use observed::{NamespacePhase, Observed, ServiceAccountRef, SettingsVerdict, has_ready_endpoint};
pub use ownership::{namespaces as stand_in_namespaces, of as ours};
pub use report::{Besides, DEGRADED, READY, Rule, patience_left};
pub use stand_in::{bears_our_name, services, targets};
pub use waves::{Event, Plan, Question, Severity, Wave};
pub use write::{Target, Write};

/// What to do about this ContourDeployment now.
pub fn plan(observed: &Observed) -> Plan {
    let classified = ownership::classify(observed);
    let assessment = assess::assess(&classified);
    let steps = desire::desire(&assessment);
    let waves = diff::diff(steps, &assessment, &classified);
    report::report(assessment, waves)
}

/// What is still to be written when one write has followed another for too long: a bug, or somebody's doing that nothing else tells
/// from one.
pub fn unsettled(plan: &Plan, observed: &Observed) -> Vec<Failure> {
    let writes = plan.waves.iter().flat_map(|wave| &wave.writes);
    writes.map(|write| diff::unsettled(write, observed)).collect()
}
