//! Executes the waves of a plan. This module makes no decisions. An answer that contradicts the observed state goes into the cache, and the
//! next plan decides.

use futures::StreamExt;
use futures::stream;
use jiff::Timestamp;
use kube::Client;
use tracing::{debug, info, warn};

use super::cache::Cache;
use super::client::{self, Effect, Error};
use super::gather::{self, Answers};
use crate::plan::{Failure, FailureCause, Key, NamespacedName, Object, Observed, Owner, Wave, Write, plan};
use crate::telemetry::{Metrics, WriteOutcome};

/// The number of concurrent requests of one wave.
const AT_ONCE: usize = 8;

/// Executes waves.
pub struct Apply<'a> {
    /// The client of the API server.
    pub client: &'a Client,
    /// Receives the answers.
    pub cache: &'a Cache,
    /// Records the result of each write.
    pub answers: &'a Answers,
    /// Counts the writes.
    pub metrics: &'a Metrics,
    /// The ContourDeployment of the waves.
    pub owner: &'a Owner,
}

/// The result of a write.
enum WriteResult {
    Done,
    /// The observed state is out of date, or another controller changed the object during the write. The cache contains the current object.
    Stale,
    /// The namespace of another user refuses the creation. Another plan is needed.
    Refused,
    /// The write failed in the namespace of another user. The failure blocks nothing, and the next plan takes the failure into account.
    Aside,
    Failed(Failure),
}

impl Apply<'_> {
    /// Executes the waves in order, and stops after the first wave that does not succeed completely.
    pub async fn waves(&self, waves: &[Wave], observed: &Observed) -> Vec<Failure> {
        for wave in waves.iter().filter(|wave| !wave.writes.is_empty()) {
            let writes = match self.writes(wave, observed).await {
                Ok(writes) => writes,
                Err(failure) => return vec![failure],
            };
            let outcomes: Vec<WriteResult> = stream::iter(writes)
                .map(|write| self.write(write))
                .buffer_unordered(AT_ONCE)
                .collect()
                .await;
            let stale = |outcome: &WriteResult| matches!(outcome, WriteResult::Stale | WriteResult::Refused);
            let stale = outcomes.iter().any(stale);
            let failures: Vec<Failure> = outcomes
                .into_iter()
                .filter_map(|outcome| match outcome {
                    WriteResult::Failed(failure) => Some(failure),
                    WriteResult::Done | WriteResult::Stale | WriteResult::Refused | WriteResult::Aside => None,
                })
                .collect();
            if stale || !failures.is_empty() {
                return failures;
            }
        }
        Vec::new()
    }

    /// Returns the writes of a wave. If the wave deletes possible startup inputs of a container, returns only the writes that are still
    /// planned after a live read.
    async fn writes(&self, wave: &Wave, observed: &Observed) -> Result<Vec<Write>, Failure> {
        if !wave.needs_live_read {
            return Ok(wave.writes.clone());
        }
        let fresh = gather::read_live(self.client, observed)
            .await
            .map_err(|error| Failure {
                key: Key::new(crate::plan::Kind::Pod, &self.owner.namespace, &self.owner.contour()),
                cause: FailureCause::Transient,
                message: format!("the live read of Contour's Deployment, ReplicaSets and pods failed: {error}"),
            })?;
        let still: Vec<Write> = plan(&fresh)
            .waves
            .into_iter()
            .filter(|fresh| fresh.needs_live_read)
            .flat_map(|fresh| fresh.writes)
            .collect();
        Ok(wave
            .writes
            .iter()
            .filter(|write| still.contains(write))
            .cloned()
            .collect())
    }

    /// Executes a write and counts it.
    async fn write(&self, write: Write) -> WriteResult {
        let (verb, key) = (verb(&write), write.key());
        let whose: NamespacedName = NamespacedName::new(&*self.owner.namespace, &*self.owner.name);
        let result = execute(self.client, &write, Effect::Stored).await;
        let refused = result.as_ref().err().map(Error::label);
        let kind = key.kind.name();
        let outcome = match result {
            Ok(answer) => {
                info!(%key, verb, "written");
                let now = Timestamp::now();
                let is_ours = self
                    .answers
                    .note(&whose, |attempts| attempts.taken(&write, answer.as_ref(), now));
                let gone = match &write {
                    Write::Delete(target) => answer.is_none().then_some(target),
                    Write::Release(target) => answer
                        .as_ref()
                        .is_none_or(|object| object.is_terminating() && target.other_finalizers.is_empty())
                        .then_some(target),
                    _ => None,
                };
                match (gone, answer) {
                    (Some(target), _) => self.cache.note_gone(&key, Some(&target.uid)),
                    (None, Some(object)) => self.cache.note(&object, &whose),
                    (None, None) => {}
                }
                if is_ours { WriteResult::Done } else { WriteResult::Stale }
            }
            Err(error)
                if matches!(error.reason(), "AlreadyExists" | "Conflict" | "NotFound")
                    || is_failed_test(&error, &write) =>
            {
                debug!(%key, verb, %error, "the object is not as observed");
                match self.read_after(&write, &key, &whose, &error).await {
                    WriteResult::Failed(failure) => self.failed(&write, failure, &whose),
                    outcome => outcome,
                }
            }
            Err(error) => self.failed(&write, failure(key, &error), &whose),
        };
        self.metrics.wrote(kind, verb, counted(&outcome, refused));
        outcome
    }

    /// Classifies a failure. A failure in the ContourDeployment's own namespace stops the later waves. A failure in another namespace is
    /// only recorded, and the next plan works without the object. A creation that may still succeed is the exception.
    fn failed(&self, write: &Write, failure: Failure, whose: &NamespacedName) -> WriteResult {
        if !self.owner.is_elsewhere(&failure.key) {
            return WriteResult::Failed(failure);
        }
        warn!(object = %failure.key, cause = ?failure.cause, message = %failure.message, "a write failed");
        let now = Timestamp::now();
        self.answers
            .note(whose, |attempts| attempts.failed(write, failure.clone(), now));
        match write {
            Write::Create(_) if failure.cause == FailureCause::Transient => WriteResult::Failed(failure),
            Write::Create(_) => WriteResult::Refused,
            _ => WriteResult::Aside,
        }
    }

    /// Reads the current object.
    async fn read_after(&self, write: &Write, key: &Key, whose: &NamespacedName, error: &Error) -> WriteResult {
        match client::get(self.client, key).await {
            Ok(Some(live)) if matches!(write, Write::Create(_)) && !self.owner.owns(&live) => {
                WriteResult::Failed(Failure {
                    key: key.clone(),
                    cause: FailureCause::Collision,
                    message: "an object of this name exists and is not Slipway's; rename one of the two, or delete it"
                        .to_owned(),
                })
            }
            Ok(Some(live)) => {
                self.cache.note(&live, whose);
                WriteResult::Stale
            }
            Ok(None) if matches!(write, Write::Create(_)) => WriteResult::Failed(failure(key.clone(), error)),
            Ok(None) => {
                self.cache.note_gone(key, None);
                WriteResult::Stale
            }
            Err(error) => WriteResult::Failed(failure(key.clone(), &error)),
        }
    }
}

/// Sends a write. Returns the object in the answer, or None if the object is gone. A dry run does adopt the creation of the object, because
/// the API server would otherwise keep the fields of the creation beside those of the apply.
pub async fn execute(client: &Client, write: &Write, effect: Effect) -> Result<Option<Object>, Error> {
    match write {
        Write::Create(object) => client::create(client, object, effect).await.map(Some),
        Write::Apply { object, adopt_creation } => {
            if let Some((entry, version)) = adopt_creation {
                client::adopt_creation(client, &object.key(), *entry, version).await?;
            }
            client::apply(client, object, effect).await.map(Some)
        }
        Write::Replace(object) => client::replace(client, object, effect).await.map(Some),
        Write::Delete(target) => client::delete(client, target, effect).await,
        Write::Hold(target) => client::set_finalizer(client, target, true, effect).await.map(Some),
        Write::Release(target) => client::set_finalizer(client, target, false, effect).await.map(Some),
    }
}

/// Returns the metric label of a write. A name that is already in use is an error only if another user owns the object.
fn counted(outcome: &WriteResult, refused: Option<&'static str>) -> WriteOutcome {
    match outcome {
        WriteResult::Done => WriteOutcome::Success,
        WriteResult::Stale => WriteOutcome::Stale,
        WriteResult::Refused | WriteResult::Aside | WriteResult::Failed(_) => {
            WriteOutcome::Error(refused.unwrap_or("Other"))
        }
    }
}

/// Returns the metric label of a kind of write.
fn verb(write: &Write) -> &'static str {
    match write {
        Write::Create(_) => "create",
        Write::Apply { .. } => "apply",
        Write::Replace(_) => "replace",
        Write::Delete(_) => "delete",
        Write::Hold(_) => "hold",
        Write::Release(_) => "release",
    }
}

/// Reports whether the object has changed between its creation and the adoption of the creation.
pub fn is_failed_test(error: &Error, write: &Write) -> bool {
    let adopts = matches!(
        write,
        Write::Apply {
            adopt_creation: Some(_),
            ..
        }
    );
    adopts && error.is_failed_test()
}

/// Returns the failure that an error of the API server describes.
pub fn failure(key: Key, error: &Error) -> Failure {
    let cause = match error.code() {
        403 if error.is_namespace_terminating() => FailureCause::NamespaceTerminating,
        403 => FailureCause::Forbidden,
        // The policy's parameters are the ContourDeployments of the namespace. The API server's cache may lack a new ContourDeployment. The
        // API server then answers 422 (config/admission/operator-access.yaml).
        422 if error.to_string().contains("'slipway-operator-access'") => FailureCause::AccessPending,
        400 | 422 => FailureCause::Refused,
        // Server-side apply of a field that the CRD does not declare (Kubernetes 1.34).
        500 if error.to_string().contains("field not declared in schema") => FailureCause::Refused,
        // etcd rejects requests of more than 1.5 MiB (`--max-request-bytes`, etcd 3.6).
        500 if error.to_string().contains("request is too large") => FailureCause::Refused,
        _ => FailureCause::Transient,
    };
    Failure {
        key,
        cause,
        message: error.to_string(),
    }
}

#[cfg(test)]
mod tests;
