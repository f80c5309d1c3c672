//! Converts the steps and the existing objects to the required writes. A converged ContourDeployment requires none.

use std::collections::BTreeSet;

use super::assess::Assessment;
use super::compare::{self, Comparison, Differences, compare};
use super::converge;
use super::failure::{Failure, FailureCause};
use super::names::hash_json;
use super::object::{Key, Object, Owner};
use super::observed::Observed;
use super::ownership::Classified;
use super::removal;
use super::step::{Content, Step, When};
use super::waves::{Held, Wave};
use super::write::{Desired, Fields, Write};
use crate::api::OverruledFields;
use crate::api::vocabulary::annotations;

/// Returns the waves for these steps, up to the first wave that blocks the rest.
pub fn diff(steps: Vec<Step>, assessment: &Assessment<'_>, classified: &Classified) -> Vec<Wave> {
    let observed = &classified.observed;
    let named: BTreeSet<Key> = steps.iter().flat_map(Step::keys).collect();
    let mut waves = Vec::<Wave>::new();
    let mut is_settled = true;
    for Step {
        name,
        content,
        when,
        comes_first,
    } in steps
    {
        let is_due = match when {
            When::Now => true,
            When::Later => false,
            When::AfterThatBefore => waves.last().is_none_or(Wave::is_done),
            When::Settled => is_settled,
        };
        if !is_due {
            continue;
        }
        let exists = |desired: &Desired| observed.objects.contains_key(&desired.object.key());
        let is_removal = matches!(content, Content::Remove(_));
        let wave = match content {
            Content::Converge(desired) => wave(name, desired, observed),
            Content::Restore(desired) => wave(name, desired.into_iter().filter(|desired| !exists(desired)), observed),
            Content::Remove(selection) => removal::wave(name, selection, &named, assessment, classified),
            Content::Write(write) => Wave::of(name, write.into_iter().collect()),
        };
        is_settled &= is_removal || wave.writes.is_empty();
        let blocks = wave.blocks() || (comes_first && !wave.is_done());
        waves.push(wave);
        if blocks {
            break;
        }
    }
    waves
}

/// Returns the wave of writes that brings these objects to the desired state.
fn wave(name: &'static str, desired: impl IntoIterator<Item = Desired>, observed: &Observed) -> Wave {
    let owner = observed.owner();
    let mut wave = Wave::of(name, Vec::new());
    for desired in desired {
        match need(&desired, observed, &owner) {
            Need::Write(write) => wave.writes.push(write),
            Need::Nothing(fields) if fields.is_empty() => {}
            Need::Nothing(fields) => wave.overruled.push(overruled(&desired.object, fields)),
            Need::Wait(held) => {
                wave.requeue_after = wave.requeue_after.into_iter().chain([held.wait]).min();
                wave.held.push(held);
            }
        }
    }
    wave
}

/// The action that a desired object requires.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // one at a time, and not for long
pub enum Need {
    /// No action. These fields have values that another client set in Slipway's own write, and Slipway accepts the values.
    Nothing(Vec<String>),
    /// A write.
    Write(Write),
    /// A write that waits.
    Wait(Held),
}

/// Returns the action that brings the live object to the desired state.
pub fn need(desired: &Desired, observed: &Observed, owner: &Owner) -> Need {
    let key = desired.object.key();
    let live = observed.objects.get(&key).map(AsRef::as_ref);
    let live = live.filter(|live| owner.owns(live));
    let wanted = hash_json(&(&desired.object.metadata, &desired.object.content));
    let mut object = desired.object.clone();
    object.annotate(annotations::APPLIED, wanted.clone());
    let is_decisive = key.kind.is_startup_input();
    let wait = observed.attempts.wait(&key, &wanted, is_decisive, observed.now);
    let Some(live) = live else {
        let refusal = observed.attempts.refusal(&key.namespace, observed.now);
        if let Some(refusal) = refusal.filter(|_| owner.is_elsewhere(&key)) {
            return Need::Wait(Held {
                failure: None,
                wait: refusal.wait,
                blocks: false,
            });
        }
        return match wait {
            Some(wait) => {
                let failure = observed.attempts.failure(&key, &wanted).cloned();
                Need::Wait(Held {
                    failure: Some(failure.unwrap_or_else(|| deleted(&key))),
                    wait,
                    blocks: true,
                })
            }
            None => Need::Write(Write::Create(object)),
        };
    };
    converge::adopt_initial(&mut object, live, desired.fields);
    // A terminating object can be changed, but the API server accepts no new finalizer on the object.
    if live.is_terminating() && matches!(desired.fields, Fields::Whole(_) | Fields::Sealed { .. }) {
        object.metadata.finalizers.clone_from(&live.metadata.finalizers);
    }
    let overruled = observed.attempts.overruled(&key, &wanted);
    let is_overruled =
        |field: &String, found: &Comparison| overruled.is_some_and(|fields| fields.get(field) == Some(found));
    let (taken, left): (Differences, Differences) = compare(&object, live, desired.fields)
        .into_iter()
        .partition(|(field, found)| is_overruled(field, found) && !found.must_be_ours);
    let is_left_alone = live.is_terminating() && matches!(desired.fields, Fields::Shared { .. } | Fields::MetadataOnly);
    if left.is_empty() || is_left_alone {
        return Need::Nothing(taken.into_keys().collect());
    }
    if let Some(wait) = wait {
        let failure = observed.attempts.failure(&key, &wanted).cloned();
        let failure = failure.unwrap_or_else(|| {
            changed(
                &key,
                &left,
                left.iter().any(|(field, value)| is_overruled(field, value)),
            )
        });
        let is_not_ours = left.values().any(|found| found.must_be_ours);
        return Need::Wait(Held {
            failure: Some(failure),
            wait,
            blocks: is_not_ours && !owner.is_elsewhere(&key),
        });
    }
    let is_bare = observed.attempts.leaves_others_out(&key);
    Need::Write(converge::write(object, live, desired.fields, is_bare))
}

/// Returns the failure for a write after too many rounds.
pub fn unsettled(write: &Write, observed: &Observed) -> Failure {
    let key = write.key();
    let sent = match write {
        Write::Create(sent) | Write::Apply { object: sent, .. } | Write::Replace(sent) => Some(sent),
        Write::Delete(_) | Write::Hold(_) | Write::Release(_) => None,
    };
    let live = observed.objects.get(&key);
    let fields = sent.zip(live).map(|(sent, live)| compare::differences(sent, live));
    let fields: Vec<_> = fields.into_iter().flatten().map(|(field, _)| field).collect();
    let message = if fields.is_empty() {
        "Slipway keeps writing this object, but the object never reaches the desired state; find the other client in \
         the API server's audit log"
            .to_owned()
    } else {
        format!(
            "Slipway keeps writing {}, but the values do not persist; find the other client with kubectl get --show-managed-fields",
            fields.join(", ")
        )
    };
    Failure {
        key,
        cause: FailureCause::Unsettled,
        message,
    }
}

/// Returns the fields of an object whose values another client decided, in the form of the status.
fn overruled(object: &Object, fields: Vec<String>) -> OverruledFields {
    OverruledFields {
        kind: object.kind.name().to_owned(),
        namespace: object.metadata.namespace.clone(),
        name: object.name().to_owned(),
        fields,
    }
}

/// Returns the failure for an object that another client keeps deleting.
fn deleted(key: &Key) -> Failure {
    Failure {
        key: key.clone(),
        cause: FailureCause::Contested,
        message: "another user or controller keeps deleting this object; Slipway recreates it with back-off; find the \
                  client in the API server's audit log"
            .to_owned(),
    }
}

/// Returns the failure for fields that another client changes, either in Slipway's own write (`as_we_write`) or repeatedly after the write.
fn changed(key: &Key, fields: &Differences, as_we_write: bool) -> Failure {
    let fields = fields.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let (cause, message) = if as_we_write {
        let message = format!(
            "a mutating webhook or policy changes {fields} in Slipway's write, but these fields must have Slipway's values; \
             exempt the object from the webhook or policy"
        );
        (FailureCause::NotTaken, message)
    } else {
        let message = format!(
            "another user or controller keeps changing {fields}; Slipway reverts the change with back-off; find the \
             client with kubectl get --show-managed-fields"
        );
        (FailureCause::Contested, message)
    };
    Failure {
        key: key.clone(),
        cause,
        message,
    }
}

#[cfg(test)]
mod tests;
