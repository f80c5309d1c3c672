//! The actions on the ExtensionService and on its observers, and their times. This module draws the actions from a seed, but does not
//! execute them.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

/// The spec of the ExtensionService.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// References the authorization server.
    Valid,
    /// References a Service that does not exist.
    NoSuchService,
    /// References a port that the Service does not have.
    NoSuchPort,
    /// References a Secret, with a certificate authority, that does not exist.
    NoSuchAuthority,
}

/// A fault of a process that observes the ExtensionService.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Deletes a pod of Contour.
    DeleteContour,
    /// Kills a process of Contour; the kubelet restarts the container.
    CrashContour,
    /// Deletes the operator's pod. The operator shuts down cleanly, and another pod replaces it.
    ReplaceOperator,
    /// Kills the operator's process; the kubelet restarts the container.
    CrashOperator,
    /// Stops the operator's process for this time and then continues the process.
    FreezeOperator(Duration),
}

/// One action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Creates the ExtensionService.
    Create(Form),
    /// Changes the ExtensionService.
    Edit(Form),
    /// Deletes the ExtensionService.
    Delete,
    /// Causes a fault of another process.
    Disturb(Fault),
    /// Waits for this time.
    Pause(Duration),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(form) => write!(f, "create {form:?}"),
            Self::Edit(form) => write!(f, "edit {form:?}"),
            Self::Delete => f.write_str("delete"),
            Self::Disturb(fault) => write!(f, "{fault:?}"),
            Self::Pause(time) => write!(f, "{} ms", time.as_millis()),
        }
    }
}

/// The steps from one absence of the ExtensionService to the next: creation, invalid edit and deletion in some order, with pauses.
pub type Cycle = Vec<Step>;

/// Returns `cycles` cycles. The same seed always returns the same cycles.
pub fn script(seed: u64, cycles: usize) -> Vec<Cycle> {
    let mut rng = Rng::with_seed(seed);
    let mut script: Vec<Cycle> = (0..cycles).map(|_| cycle(&mut rng)).collect();
    for fault in faults(&mut rng, cycles) {
        let cycle = rng.usize(..script.len());
        let position = rng.usize(..=script[cycle].len());
        script[cycle].insert(position, Step::Disturb(fault));
    }
    script
}

fn cycle(rng: &mut Rng) -> Cycle {
    let steps: &[Step] = match rng.u8(..3) {
        0 => &[Step::Create(Form::Valid), Step::Edit(invalid(rng)), Step::Delete],
        1 => &[
            Step::Create(Form::Valid),
            Step::Edit(invalid(rng)),
            Step::Edit(Form::Valid),
            Step::Delete,
        ],
        _ => &[
            Step::Create(invalid(rng)),
            Step::Edit(Form::Valid),
            Step::Edit(invalid(rng)),
            Step::Delete,
        ],
    };
    steps.iter().flat_map(|step| [*step, Step::Pause(pause(rng))]).collect()
}

fn invalid(rng: &mut Rng) -> Form {
    *rng.choice(&[Form::NoSuchService, Form::NoSuchPort, Form::NoSuchAuthority])
        .expect("some forms")
}

/// Returns a random pause: zero, a reaction time of the observers (5 ms to 1 s, on a logarithmic scale), or a time that is long enough
/// for everything to settle.
fn pause(rng: &mut Rng) -> Duration {
    match rng.u8(..8) {
        0 => Duration::ZERO,
        1 | 2 => Duration::from_millis(rng.u64(1000..5000)),
        _ => Duration::from_secs_f64(0.005 * 200_f64.powf(rng.f64())),
    }
}

/// Returns at most one fault for every two cycles. A long script has faults of every kind, a short script of some kinds.
fn faults(rng: &mut Rng, cycles: usize) -> Vec<Fault> {
    let of = |share: usize| cycles.div_ceil(share);
    let mut faults = vec![Fault::DeleteContour; of(8)];
    faults.extend(vec![Fault::CrashContour; of(10)]);
    faults.extend(vec![Fault::ReplaceOperator; of(20)]);
    faults.extend(vec![Fault::CrashOperator; of(20)]);
    faults.extend((0..of(20)).map(|_| Fault::FreezeOperator(Duration::from_millis(rng.u64(100..6000)))));
    rng.shuffle(&mut faults);
    faults.truncate(cycles.div_ceil(2));
    faults
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn script_depends_only_on_the_seed() {
        assert_eq!(script(7, 20), script(7, 20));
        assert_ne!(script(7, 20), script(8, 20));
    }

    #[test]
    fn long_script_has_every_action_and_every_fault() {
        for seed in 0..50 {
            let script = script(seed, 20);
            for cycle in &script {
                let has = |wanted: fn(&Step) -> bool| cycle.iter().any(wanted);
                assert!(has(|step| matches!(step, Step::Create(_))), "{cycle:?}");
                assert!(
                    has(|step| matches!(step, Step::Edit(form) if *form != Form::Valid)),
                    "{cycle:?}"
                );
                assert!(has(|step| *step == Step::Delete), "{cycle:?}");
            }
            let faults: HashSet<_> = script
                .iter()
                .flatten()
                .filter_map(|step| match step {
                    Step::Disturb(fault) => Some(std::mem::discriminant(fault)),
                    _ => None,
                })
                .collect();
            assert_eq!(faults.len(), 5, "seed {seed}");
        }
    }
}
