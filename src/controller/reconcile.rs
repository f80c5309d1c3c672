//! One reconcile: gather, plan and apply until nothing is left to write, and then write the status.

use std::time::{Duration, Instant};

use kube::runtime::controller::Action;
use tracing::{debug, warn};

use super::apply::{self, Apply};
use super::client::{self, Effect};
use super::gather::{Gathered, Sources};
use super::{Context, leases, undecodable};
use crate::issuer;
use crate::plan::{
    Failure, FailureCause, Key, Kind, NamespacedName, Object, Observed, Plan, Question, SettingsVerdict, Write,
    patience_left, plan, unsettled,
};
use crate::telemetry::ReconcileOutcome;

/// The maximum number of plans in one reconcile. No sequence of waves needs more.
const ROUNDS: usize = 12;

/// The time until the next reconcile if nothing happens, plus or minus a fifth.
pub const RESYNC: Duration = Duration::from_mins(10);

/// The minimum time until the next reconcile if nothing happens.
const AT_LEAST: Duration = Duration::from_millis(50);

/// The time until the next reconcile if objects could not be read. A successful read wakes the ContourDeployment at once.
const UNREAD: Duration = Duration::from_secs(5);

/// The time that an API server needs to process a new binding.
const BINDING_SETTLES: Duration = Duration::from_secs(5);

/// The time that an API server needs to process the ContourDeployments that an admission policy refers to. Usually milliseconds; 22 s were
/// observed right after the installation of the CRD (Kubernetes 1.34).
const POLICY_SETTLES: Duration = Duration::from_secs(35);

/// Reconciles one ContourDeployment. Never fails: the status reports failures, and the operator retries.
pub async fn reconcile(context: &Context, whose: &NamespacedName) -> Action {
    if let Some(left) = context.agenda.begin(whose) {
        return Action::requeue(left);
    }
    let started = Instant::now();
    let (action, outcome) = rounds(context, whose).await;
    context.telemetry.metrics.objects_in_backoff(context.backoff.len());
    context
        .telemetry
        .metrics
        .reconciled(&whose.namespace, &whose.name, outcome, started.elapsed());
    action
}

/// The end of a reconcile.
type End = (Action, ReconcileOutcome);

async fn rounds(context: &Context, whose: &NamespacedName) -> End {
    let mut leases_are_read = leases::read_if_due(context, whose).await;
    for round in 1..=ROUNDS {
        let (mut observed, mut planned) = match observe_and_plan(context, whose).await {
            Ok(seen) => seen,
            Err(end) => return end,
        };
        if !leases_are_read && leases::decide(&observed, &planned) {
            if let Err(error) = leases::read(context, whose).await {
                warn!(?whose, %error, "the list of the Leases failed; the deletion waits");
                return (
                    Action::requeue(context.backoff.next(whose)),
                    ReconcileOutcome::Error("leases"),
                );
            }
            leases_are_read = true;
            (observed, planned) = match observe_and_plan(context, whose).await {
                Ok(seen) => seen,
                Err(end) => return end,
            };
        }
        if planned.is_settled() {
            return settle(context, whose, &observed, planned).await;
        }
        let owner = observed.owner();
        let apply = Apply {
            client: &context.client,
            cache: &context.cache,
            answers: &context.answers,
            metrics: &context.telemetry.metrics,
            owner: &owner,
        };
        let mut failures = apply.waves(&planned.waves, &observed).await;
        note_bindings(context, whose, &planned);
        if failures.is_empty() {
            failures.extend(answer(context, whose, &planned).await);
        }
        if failures.is_empty() && round == ROUNDS {
            failures = unsettled(&planned, &observed);
        }
        if !failures.is_empty() {
            return fail(context, whose, *observed, failures).await;
        }
    }
    unreachable!("the last round settles or fails")
}

/// Observes a ContourDeployment and computes a plan, unless no plan is possible.
async fn observe_and_plan(context: &Context, whose: &NamespacedName) -> Result<(Box<Observed>, Plan), End> {
    let mut observed = match sources(context).gather_read(whose).await {
        Gathered::Observed(observed, _) => observed,
        Gathered::Gone => {
            context.forget(whose);
            return Err((Action::await_change(), ReconcileOutcome::Success));
        }
        Gathered::Unread => {
            warn!(
                ?whose,
                "the ExtensionServices that it references have not been read; no plan is made until they are"
            );
            return Err((Action::requeue(UNREAD), ReconcileOutcome::Error("unread")));
        }
        Gathered::Undecodable(message) => {
            let action = undecodable::report(context, whose, &message).await;
            return Err((action, ReconcileOutcome::Error("undecodable")));
        }
    };
    let mut planned = plan(&observed);
    if let Some(Question::Certificates(request)) = planned
        .questions
        .iter()
        .find(|question| matches!(question, Question::Certificates(_)))
    {
        match issuer::issue(request, observed.now) {
            Ok(issued) => {
                observed.issued = Some(issued);
                planned = plan(&observed);
            }
            Err(error) => warn!(%error, "certificates could not be issued"),
        }
    }
    Ok((observed, planned))
}

fn sources(context: &Context) -> Sources<'_> {
    Sources {
        cache: &context.cache,
        watches: &context.watches,
        answers: &context.answers,
        operator: &context.options.operator,
    }
}

/// Ends a reconcile after which nothing is left to write.
async fn settle(
    context: &Context,
    whose: &NamespacedName,
    observed: &Observed,
    planned: Plan,
) -> (Action, ReconcileOutcome) {
    context.retry(context.backoff.succeeded(whose));
    context.has_access(whose);
    if let Err(error) = report(context, whose, observed, &planned).await {
        let delay = context.backoff.next(whose);
        warn!(?whose, %error, "the status could not be written");
        return (Action::requeue(delay), ReconcileOutcome::Error("status"));
    }
    let waits = Waits {
        resync: context.backoff.jittered(RESYNC),
        requeue_after: planned.requeue_after,
        refusal: context.answers.asks_again_in(whose),
        leases: leases::requeue_after(context, whose, observed),
    };
    let wait = waits.shortest(&observed.settings);
    context.agenda.settle(whose, wait);
    (Action::requeue(wait), ReconcileOutcome::Success)
}

/// The reason for the next reconcile of a settled ContourDeployment, if nothing happens, and the time until then.
struct Waits {
    /// An event may have been missed.
    resync: Duration,
    /// The plan requests a time.
    requeue_after: Option<Duration>,
    /// A stored refusal expires. The API server may accept the same settings later.
    refusal: Option<Duration>,
    /// The Leases are not watched.
    leases: Duration,
}

impl Waits {
    fn shortest(&self, settings: &SettingsVerdict) -> Duration {
        // An expired refusal that no plan uses (for example during a deletion) causes no question.
        let is_refused = matches!(settings, SettingsVerdict::Refused { .. });
        let refusal = self.refusal.filter(|_| is_refused);
        let waits = [self.requeue_after, refusal, Some(self.leases)].into_iter().flatten();
        waits.fold(self.resync, Duration::min).max(AT_LEAST)
    }
}

/// Ends a reconcile with failed writes: reports the failures and backs off.
async fn fail(
    context: &Context,
    whose: &NamespacedName,
    mut observed: Observed,
    failures: Vec<Failure>,
) -> (Action, ReconcileOutcome) {
    let settles = |failure: &Failure| match failure.cause {
        FailureCause::Forbidden => context.has_new_binding(whose, BINDING_SETTLES),
        FailureCause::AccessPending => context.waits_for_access(whose, POLICY_SETTLES),
        _ => false,
    };
    if failures.iter().all(settles) {
        debug!(
            ?whose,
            "access is new, and the API server does not know of it yet; trying again"
        );
        return (Action::requeue(Duration::from_millis(50)), ReconcileOutcome::Success);
    }
    for failure in &failures {
        warn!(?whose, object = %failure.key, cause = ?failure.cause, message = %failure.message, "a write failed");
    }
    // The cache contains the writes that succeeded. The status describes this state.
    if let Gathered::Observed(fresh, _) = sources(context).gather(whose) {
        observed = *fresh;
    }
    observed.failures = failures;
    let planned = plan(&observed);
    if let Err(error) = report(context, whose, &observed, &planned).await {
        warn!(?whose, %error, "the status could not be written");
    }
    // Retry when the patience ends, because the status then asks for help.
    let delay = context.backoff.next(whose);
    let patience = patience_left(&planned.status, observed.now);
    let delay = patience.map_or(delay, |left| delay.min(left + Duration::from_millis(100)));
    (Action::requeue(delay), ReconcileOutcome::Error("write"))
}

/// Gets the answers to the questions of a plan.
async fn answer(context: &Context, whose: &NamespacedName, planned: &Plan) -> Vec<Failure> {
    let mut failures = Vec::new();
    for question in &planned.questions {
        if let Question::Settings {
            hash,
            candidate,
            others,
        } = question
        {
            let answer = check(context, hash, candidate, others).await;
            let outcome = match answer {
                Ok(SettingsVerdict::Accepted { .. }) => ReconcileOutcome::Success,
                _ => ReconcileOutcome::Error("refused"),
            };
            context.telemetry.metrics.tried(outcome);
            match answer {
                Ok(verdict) => context.answers.put(whose, verdict),
                Err(failure) => failures.push(failure),
            }
        }
    }
    failures
}

/// Asks the API server for its verdict on settings, by dry runs. Returns a failure if the API server gives no verdict.
async fn check(
    context: &Context,
    hash: &str,
    candidate: &Object,
    others: &[(&'static str, Write)],
) -> Result<SettingsVerdict, Failure> {
    let refused = |message: String| SettingsVerdict::Refused {
        hash: hash.to_owned(),
        message,
    };
    let verdict = match client::create(&context.client, candidate, Effect::DryRun).await {
        Ok(answer) => SettingsVerdict::of(hash, candidate, &answer),
        Err(error) if matches!(error.code(), 400 | 422) => refused(error.to_string()),
        Err(error) => return Err(apply::failure(candidate.key(), &error)),
    };
    if !matches!(verdict, SettingsVerdict::Accepted { .. }) {
        return Ok(verdict);
    }
    for (field, write) in others {
        let Err(error) = apply::execute(&context.client, write, Effect::DryRun).await else {
            continue;
        };
        let mut failure = apply::failure(write.key(), &error);
        if apply::is_failed_test(&error, write) {
            failure.cause = FailureCause::Transient;
        }
        match failure.cause {
            FailureCause::Refused => return Ok(refused(format!("{field}: {error}"))),
            // The write itself reports that another user's object has the name.
            _ if error.reason() == "AlreadyExists" => {}
            _ => return Err(failure),
        }
    }
    Ok(verdict)
}

/// Writes the status if it differs, and publishes Events about the changes.
async fn report(
    context: &Context,
    whose: &NamespacedName,
    observed: &Observed,
    planned: &Plan,
) -> Result<(), client::Error> {
    context
        .telemetry
        .metrics
        .observe_status(&whose.namespace, &whose.name, &planned.status, observed.now);
    if observed.deployment.status.as_ref() == Some(&planned.status) {
        return Ok(());
    }
    let key = Key::new(Kind::ContourDeployment, &whose.namespace, &whose.name);
    // The object may have been deleted with the removal of its finalizer.
    let status = serde_json::to_value(&planned.status)?;
    context.cache.note_status(&key, &status);
    match client::replace_status(&context.client, &key, &status).await {
        Ok(object) => context.cache.note(&object, whose),
        Err(error) if error.code() == 404 => return Ok(()),
        Err(error) => return Err(error),
    }
    context.tell(&observed.deployment, &planned.events);
    Ok(())
}

/// Records the creation of the operator's own bindings. For some seconds afterwards, a 403 may only mean that the API server has not
/// processed the binding yet.
fn note_bindings(context: &Context, whose: &NamespacedName, planned: &Plan) {
    let binding = |write: &Write| matches!(write, Write::Create(object) if object.kind == Kind::RoleBinding);
    if planned.waves.iter().flat_map(|wave| &wave.writes).any(binding) {
        context.note_binding(whose);
    }
}

#[cfg(test)]
mod tests;
