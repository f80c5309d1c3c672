//! What is done to the ExtensionService and to those who follow it, and when: drawn from a seed, nothing carried out.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

/// What the ExtensionService's spec says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The authorization server.
    Valid,
    /// A Service that does not exist.
    NoSuchService,
    /// A port that its Service does not have.
    NoSuchPort,
    /// A Secret with an authority's certificate that does not exist.
    NoSuchAuthority,
}

/// What is done to a process that has to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A pod of Contour is deleted.
    DeleteContour,
    /// A process of Contour is killed: its container starts again.
    CrashContour,
    /// The operator's pod is deleted: it ends in good order, and another one comes.
    ReplaceOperator,
    /// The operator's process is killed: its container starts again.
    CrashOperator,
    /// The operator's process is stopped for some time, and then goes on as if nothing had been.
    FreezeOperator(Duration),
}

/// One thing that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The ExtensionService is created.
    Create(Form),
    /// It is changed.
    Edit(Form),
    /// It is deleted.
    Delete,
    /// Something else is disturbed.
    Disturb(Fault),
    /// Nothing, for some time.
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

/// From one absence of the ExtensionService to the next: created, made invalid and deleted, in some order, with pauses.
pub type Cycle = Vec<Step>;

/// So many cycles, always the same for a seed.
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

/// None at all, within the reaction times of those who follow (5 ms to a second, as many short ones as long ones), or long
/// enough for everything to come to rest.
fn pause(rng: &mut Rng) -> Duration {
    match rng.u8(..8) {
        0 => Duration::ZERO,
        1 | 2 => Duration::from_millis(rng.u64(1000..5000)),
        _ => Duration::from_secs_f64(0.005 * 200_f64.powf(rng.f64())),
    }
}

/// One for every other cycle at most: in a long script some of each kind, in a short one some of some kinds.
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
    fn a_seed_makes_the_same_script_and_another_seed_another() {
        assert_eq!(script(7, 20), script(7, 20));
        assert_ne!(script(7, 20), script(8, 20));
    }

    #[test]
    fn every_cycle_creates_makes_invalid_and_deletes_and_every_fault_comes_in_a_long_script() {
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
