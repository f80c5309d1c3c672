//! The pure core: `plan(&Observed) -> Plan`. The core has no clock, no randomness and no client. [`Observed`] contains every input of a
//! decision, and [`Plan`] contains every action. A decision that can be made in the core is made in the core.

pub mod admission;
mod assess;
mod attempts;
mod backoff;
mod certificates;
mod compare;
mod configuration;
mod converge;
mod deletion;
mod desire;
mod diff;
mod failure;
pub mod issuing;
mod names;
mod object;
mod observe;
mod observed;
mod operand;
mod overlay;
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
pub use observe::{Environment, Snapshot, View, decode_deployment};
pub use observed::{NamespacePhase, Observed, ServiceAccountRef, SettingsVerdict, has_ready_endpoint};
pub use ownership::of as ours;
pub use report::{Besides, DEGRADED, READY, Rule, patience_left};
pub use waves::{Event, Plan, Question, Severity, Wave};
pub use write::{Target, Write};

/// Computes the plan for the ContourDeployment of `observed`.
pub fn plan(observed: &Observed) -> Plan {
    let classified = ownership::classify(observed);
    let assessment = assess::assess(&classified);
    let steps = desire::desire(&assessment);
    let waves = diff::diff(steps, &assessment, &classified);
    report::report(assessment, waves)
}

/// Returns one failure for each write that is left after too many rounds of writes. The cause is a bug, or another controller that cannot
/// be distinguished from a bug.
pub fn unsettled(plan: &Plan, observed: &Observed) -> Vec<Failure> {
    let writes = plan.waves.iter().flat_map(|wave| &wave.writes);
    writes.map(|write| diff::unsettled(write, observed)).collect()
}
