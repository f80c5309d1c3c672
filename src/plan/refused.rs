//! What is done while the settings are refused, or the API server has not said yet whether it takes them: what ran goes on running, on
//! the configuration that it had, with its access and with certificates that do not run out. Nothing of the new specification is
//! applied; only what somebody deleted of a running Contour or Envoy is made again, on the last configuration that was
//! completely rolled out.

use std::sync::Arc;
use std::time::Duration;

use super::captured::Captured;
use super::diff::Desired;
use super::object::Object;
use super::observed::Observed;
use super::operand::{self, Operand};
use super::rollout::{self, Rollout};
use super::usage::Usage;
use super::{Question, Wave, certificates, configurations_in_use, deletion};

/// What is on its way out and in nobody's use: its deletion began before the specification was refused, and our finalizer must
/// hold neither it nor its namespace. Nothing else is pruned.
fn going(observed: &Observed, leftovers: &[Arc<Object>], usage: &Usage) -> Wave {
    let going = observed.objects.values().chain(leftovers).map(AsRef::as_ref);
    let going =
        going.filter(|object| object.is_terminating() && object.has_our_finalizer() && !usage.holds(observed, object));
    Wave {
        look_first: true,
        ..deletion::removal("what no Contour uses any more and is on its way out", going, observed)
    }
}

/// What there is to do, after these waves. `last_good` is in use.
pub fn plan(
    observed: &Observed,
    leftovers: &[Arc<Object>],
    waves: &mut Vec<Wave>,
    usage: &Usage,
    last_good: Option<&Captured>,
) -> (Vec<Question>, Option<Duration>) {
    if rollout::contour(observed).rollout == Rollout::Absent && last_good.is_none() {
        return (Vec::new(), None);
    }
    let certificates = certificates::plan(observed);
    let has_certificates = certificates.are_complete();
    let access = operand::access::contour(observed);
    waves.push(Wave::converge(
        "certificates, Contour's access",
        certificates.desired.into_iter().chain(access),
        observed,
    ));
    waves.push(Wave::converge(
        "configurations in use",
        configurations_in_use(observed, usage, None),
        observed,
    ));
    if let Some(last_good) = last_good.filter(|_| has_certificates) {
        let Operand {
            services,
            contour,
            envoy,
        } = Operand::of(observed, last_good);
        let is_absent = |desired: &Desired| !observed.objects.contains_key(&desired.object.key());
        let again = |name, desired: Vec<Desired>| Wave::converge(name, desired.into_iter().filter(is_absent), observed);
        waves.push(again("services that were deleted", services));
        waves.push(again("a Contour that was deleted", vec![contour]));
        // An Envoy of the other workload type may be what ran.
        if !rollout::has_envoy(observed) {
            waves.push(again("Envoys that were deleted", vec![envoy]));
        }
    }
    if waves.iter().all(|wave| wave.writes.is_empty()) {
        waves.push(going(observed, leftovers, usage));
    }
    let questions = certificates.request.into_iter().map(Question::Certificates).collect();
    (questions, certificates.renew_in)
}
