//! Reports a stored ContourDeployment that this version can't decode, for example after a downgrade.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::runtime::controller::Action;
use tracing::warn;

use super::cache::StoreId;
use super::{Context, client};
use crate::api::ContourDeploymentStatus;
use crate::api::vocabulary::{conditions, reasons};
use crate::plan::{Key, Kind, NamespacedName};

/// The maximum length of the error in the message. The error quotes the value, which may be longer than the API permits.
const LONGEST_ERROR: usize = 512;

/// Reports that a ContourDeployment can't be decoded, unless the status reports this already. The present conditions decide, not their
/// generation: another version may have reported the same generation as Ready.
pub async fn report(context: &Context, whose: &NamespacedName, error: &str) -> Action {
    warn!(?whose, %error, "the ContourDeployment can't be decoded");
    match write(context, whose, error).await {
        Ok(()) => {
            context.retry(context.backoff.succeeded(whose));
            Action::await_change()
        }
        Err(error) => {
            warn!(?whose, %error, "the status could not be written");
            Action::requeue(context.backoff.next(whose))
        }
    }
}

async fn write(context: &Context, whose: &NamespacedName, error: &str) -> Result<(), client::Error> {
    let key = Key::new(Kind::ContourDeployment, &whose.namespace, &whose.name);
    let Some(known) = context.cache.get(&StoreId::all(key.kind), &key) else {
        return Ok(());
    };
    let before = known.at("/status").cloned();
    let before: Option<ContourDeploymentStatus> = before.and_then(|status| serde_json::from_value(status).ok());
    let now = Timestamp::now();
    let status = status(before.as_ref(), known.metadata.generation, error, now);
    let metrics = &context.telemetry.metrics;
    metrics.observe_status(&whose.namespace, &whose.name, &status, now);
    if before.as_ref() == Some(&status) {
        return Ok(());
    }
    let status = serde_json::to_value(&status)?;
    context.cache.note_status(&key, &status);
    match client::replace_status(&context.client, &key, &status).await {
        Ok(object) => context.cache.note(&object, whose),
        // The object was just deleted.
        Err(error) if error.code() == 404 => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Returns the conditions: not Ready, and a user must act. Nothing else is known.
fn status(
    before: Option<&ContourDeploymentStatus>,
    generation: Option<i64>,
    error: &str,
    now: Timestamp,
) -> ContourDeploymentStatus {
    let error: String = error.chars().take(LONGEST_ERROR).collect();
    let message = format!("this version of Slipway cannot decode the stored object: {error}; apply a valid object");
    let condition = |type_: &str, status: &str| {
        let conditions = before.into_iter().flat_map(|before| &before.conditions);
        let mut same = conditions.filter(|condition| condition.type_ == type_ && condition.status == status);
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reasons::UNDECODABLE.to_owned(),
            message: message.clone(),
            observed_generation: generation,
            last_transition_time: same
                .next()
                .map_or(Time(now), |condition| condition.last_transition_time.clone()),
        }
    };
    ContourDeploymentStatus {
        observed_generation: generation,
        conditions: vec![
            condition(conditions::READY, "False"),
            condition(conditions::STALLED, "True"),
        ],
        ..ContourDeploymentStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn the_report_is_written_once_and_replaces_older_reports() {
        let ready = Condition {
            type_: conditions::READY.to_owned(),
            status: "True".to_owned(),
            reason: reasons::AS_SPECIFIED.to_owned(),
            message: String::new(),
            observed_generation: Some(3),
            last_transition_time: Time(at(1)),
        };
        let before = ContourDeploymentStatus {
            observed_generation: Some(3),
            conditions: vec![ready],
            contour: Some("2/2".to_owned()),
            ..ContourDeploymentStatus::default()
        };
        let first = status(Some(&before), Some(3), "replicas: \"two\"", at(10));
        assert_eq!(first.observed_generation, Some(3));
        assert_eq!(first.contour, None);
        let said = first
            .conditions
            .iter()
            .map(|it| (it.type_.as_str(), it.status.as_str(), it.last_transition_time.0));
        assert_eq!(
            said.collect::<Vec<_>>(),
            [("Ready", "False", at(10)), ("Stalled", "True", at(10))]
        );
        assert!(first.conditions.iter().all(|it| it.message.contains("\"two\"")));
        assert_eq!(status(Some(&first), Some(3), "replicas: \"two\"", at(20)), first);
        let edited = status(Some(&first), Some(4), "replicas: \"three\"", at(30));
        assert_ne!(edited, first);
        assert_eq!(edited.conditions[0].last_transition_time, Time(at(10)));
    }

    #[test]
    fn a_long_error_fits_into_a_condition() {
        let long = status(None, None, &"x".repeat(100_000), at(1));
        assert!(long.conditions[0].message.len() < 1024);
    }
}
