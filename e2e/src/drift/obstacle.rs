//! Obstacles that block the deletion of an object for a while.

use anyhow::{Context as _, bail};
use fastrand::Rng;
use kube::api::DeleteParams;
use serde_json::json;
use slipway::plan::Kind;

use super::perturbation::HOLD;
use crate::lab::{Lab, PATIENT, Thing, audit, wait};
use crate::wait::Look;

/// The kind of obstacle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// No obstacle.
    None,
    /// One object has a finalizer of another user.
    Finalizer,
    /// An admission policy rejects the deletion of one object.
    Refusal,
}

/// A raised obstacle.
#[derive(Debug)]
pub enum RaisedObstacle {
    /// No obstacle.
    Nothing,
    /// The object with the finalizer.
    Finalizer(Thing),
    /// The object of the policy, and the position in the audit log when the policy was in force.
    Refusal(Thing, audit::Mark),
}

impl Obstacle {
    /// Raises the obstacle for a random one of these objects.
    pub async fn raise(self, lab: &Lab, victims: Vec<Thing>, rng: &mut Rng) -> anyhow::Result<RaisedObstacle> {
        // The garbage collector deletes the operator's own access, and no controller waits for that deletion.
        let mut victims = victims
            .into_iter()
            .filter(|victim| !victim.name.contains("-slipway-"))
            .collect::<Vec<_>>();
        rng.shuffle(&mut victims);
        let victim = victims.pop().context("no object can have an obstacle")?;
        Ok(match self {
            Self::None => RaisedObstacle::Nothing,
            Self::Finalizer => {
                let now = lab.read(&victim).await?;
                let mut finalizers = now["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
                finalizers.push(json!(HOLD));
                lab.patch(&victim, &json!({"metadata": {"finalizers": finalizers}}))
                    .await?;
                RaisedObstacle::Finalizer(victim)
            }
            Self::Refusal => {
                for object in policy(&victim)? {
                    lab.apply(&object).await?;
                }
                wait(&format!("{victim} can't be deleted"), PATIENT)
                    .until(async || {
                        Ok(Look::when(
                            is_refused(lab, &victim).await?,
                            "the deletion is still possible",
                        ))
                    })
                    .await?;
                RaisedObstacle::Refusal(victim, audit::mark(lab.world)?)
            }
        })
    }
}

impl RaisedObstacle {
    /// Waits until the operator has met the obstacle.
    pub async fn wait_until_met(&self, lab: &Lab) -> anyhow::Result<()> {
        let met = async || {
            Ok(match self {
                Self::Nothing => Look::Reached(()),
                Self::Finalizer(victim) => {
                    let now = lab
                        .find(victim)
                        .await?
                        .with_context(|| format!("{victim} was deleted in spite of a finalizer"))?;
                    let since = &now["metadata"]["deletionTimestamp"];
                    Look::when(!since.is_null(), "the deletion has not been requested yet")
                }
                Self::Refusal(victim, mark) => {
                    let tried = audit::requests(lab.world, *mark, &victim.namespace)?;
                    let deletion = format!(
                        "delete {}/ {}/{} ",
                        kind(victim)?.plural(),
                        victim.namespace,
                        victim.name
                    );
                    let refusals = tried.iter().filter(|request| request.starts_with(&deletion));
                    let is_refused = refusals
                        .filter(|request| request.ends_with("403") || request.ends_with("422"))
                        .count()
                        > 0;
                    Look::when(is_refused, format!("no request {deletion}was rejected"))
                }
            })
        };
        wait(&format!("the operator has met {self:?}"), PATIENT)
            .until(met)
            .await
    }

    /// Removes the obstacle.
    pub async fn remove(&self, lab: &Lab) -> anyhow::Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Finalizer(victim) => lab.remove_finalizer(victim, HOLD).await,
            Self::Refusal(victim, _) => {
                for object in policy(victim)?.iter().rev() {
                    let kind = if object["kind"] == "ValidatingAdmissionPolicy" {
                        "ValidatingAdmissionPolicy"
                    } else {
                        "ValidatingAdmissionPolicyBinding"
                    };
                    lab.delete(&Thing::new(
                        kind,
                        "",
                        object["metadata"]["name"].as_str().unwrap_or_default(),
                    ))
                    .await?;
                }
                wait(&format!("{victim} can be deleted again"), PATIENT)
                    .until(async || {
                        Ok(Look::when(
                            !is_refused(lab, victim).await?,
                            "the deletion is still impossible",
                        ))
                    })
                    .await
            }
        }
    }
}

/// Reports whether the API server would reject a deletion.
async fn is_refused(lab: &Lab, victim: &Thing) -> anyhow::Result<bool> {
    let try_it = DeleteParams {
        dry_run: true,
        ..DeleteParams::default()
    };
    match lab
        .api(victim.kind, &victim.namespace)
        .delete(&victim.name, &try_it)
        .await
    {
        Ok(_) => Ok(false),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(kube::Error::Api(status)) if status.message.contains("not now") => Ok(true),
        Err(error) => bail!("dry run of the deletion of {victim}: {error}"),
    }
}

fn kind(victim: &Thing) -> anyhow::Result<Kind> {
    let kind = Kind::ALL.iter().find(|kind| kind.name() == victim.kind);
    kind.copied()
        .with_context(|| format!("{} is not one of Slipway's kinds", victim.kind))
}

/// Returns the policy and its binding.
fn policy(victim: &Thing) -> anyhow::Result<[serde_json::Value; 2]> {
    let kind = kind(victim)?;
    let name = format!("refuse-{}-{}", victim.namespace, victim.name).replace(':', "-");
    let api_version = "admissionregistration.k8s.io/v1";
    let rule = json!({
        "apiGroups": [kind.group()], "apiVersions": ["*"], "resources": [kind.plural()], "operations": ["DELETE"],
    });
    let it = format!(
        "request.namespace == '{}' && request.name == '{}'",
        victim.namespace, victim.name
    );
    Ok([
        json!({
            "apiVersion": api_version, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
            "spec": {
                "failurePolicy": "Fail", "matchConstraints": {"resourceRules": [rule]},
                "matchConditions": [{"name": "it", "expression": it}],
                "validations": [{"expression": "false", "message": "not now", "reason": "Forbidden"}],
            },
        }),
        json!({
            "apiVersion": api_version, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        }),
    ])
}
