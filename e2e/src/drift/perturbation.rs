//! Another user's changes to an object, and the allowed states afterwards. Each perturbation is a real change; anything else is an error.

use anyhow::{Context as _, bail, ensure};
use fastrand::Rng;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use super::owned::{self, Leaf};
use super::watches::version_of;
use crate::edge::{OWNER_NAME, OWNER_NAMESPACE};
use crate::lab::created::{APPLIED, FINALIZER};
use crate::lab::{Lab, Thing};

/// A finalizer of another user.
pub const HOLD: &str = "test.example.com/hold";

/// The label that is removed to trigger a repair where the perturbation itself needs none.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// A change of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Perturbation {
    /// Deletes the object.
    Deleted,
    /// Changes or removes a field of Slipway's, or adds a field where Slipway owns all fields.
    Content,
    /// Removes all labels of Slipway's. A ClusterRoleBinding keeps one of the two owner labels. The binding has no other mark, so without
    /// both labels it would no longer be Slipway's.
    Labels,
    /// Removes the ownerReference.
    Owner,
    /// Removes Slipway's annotations.
    Annotation,
    /// Removes Slipway's finalizer.
    OurFinalizer,
    /// Adds another user's finalizer. Afterwards the object is deleted, and the finalizer is removed after a while.
    Finalizer,
    /// Applies another field manager's own fields.
    ForeignFields,
    /// Applies a field of Slipway's with another field manager, by force.
    Takeover,
}

impl Perturbation {
    /// All perturbations.
    pub const ALL: [Self; 9] = [
        Self::Deleted,
        Self::Content,
        Self::Labels,
        Self::Owner,
        Self::Annotation,
        Self::OurFinalizer,
        Self::Finalizer,
        Self::ForeignFields,
        Self::Takeover,
    ];

    /// Returns the name of the perturbation.
    pub fn name(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Content => "content changed",
            Self::Labels => "labels stripped",
            Self::Owner => "ownerReference stripped",
            Self::Annotation => "annotations stripped",
            Self::OurFinalizer => "our finalizer stripped",
            Self::Finalizer => "finalizer added",
            Self::ForeignFields => "foreign fields applied",
            Self::Takeover => "our field taken over",
        }
    }

    /// Reports whether this perturbation may replace an object that a Contour captures by a successor with another name. Such an object
    /// cannot be recreated while it is terminating, and its label and annotations confirm the content that its name stands for.
    pub fn may_cost_a_name(self) -> bool {
        matches!(self, Self::Deleted | Self::Labels | Self::Annotation)
    }

    /// Reports whether the target has the property that this perturbation changes.
    pub fn concerns(self, target: &Target) -> bool {
        let metadata = &target.before["metadata"];
        match self {
            Self::Owner => metadata["ownerReferences"].is_array(),
            Self::OurFinalizer => target.is_held(),
            Self::Content => target.has_content(),
            _ => true,
        }
    }
}

/// An object in its settled state.
#[derive(Clone, Debug)]
pub struct Target {
    /// The reference to the object.
    pub thing: Thing,
    /// The object.
    pub before: Value,
    leaves: Vec<Leaf>,
}

/// A perturbation that was applied.
#[derive(Debug)]
pub struct AppliedPerturbation {
    /// The object in the API server's response, or the object's last state.
    pub answer: Value,
    /// Another user's fields, which must be preserved.
    pub foreign: Value,
    /// A variable field, with the value that it must not keep.
    spoilt: Option<(Leaf, Option<Value>)>,
    /// A description of the change.
    pub how: String,
}

impl AppliedPerturbation {
    fn of(answer: Value, how: impl Into<String>) -> Self {
        Self {
            answer,
            foreign: Value::Null,
            spoilt: None,
            how: how.into(),
        }
    }

    /// Returns a description of an unchanged object.
    pub fn unchanged(now: &Value) -> Self {
        Self::of(now.clone(), "nothing")
    }

    /// Returns the resource version after the change.
    pub fn version(&self) -> anyhow::Result<u64> {
        version_of(&self.answer)
    }
}

impl Target {
    /// Returns a target from the object's present state.
    pub fn new(thing: Thing, before: Value) -> anyhow::Result<Self> {
        let leaves = owned::leaves(&before)?;
        ensure!(!leaves.is_empty(), "Slipway owns no field of {thing}: {before}");
        Ok(Self { thing, before, leaves })
    }

    /// Reports whether the object has Slipway's finalizer: stand-ins and blackholes.
    pub fn is_held(&self) -> bool {
        let finalizers = self.before["metadata"]["finalizers"].as_array();
        finalizers.into_iter().flatten().any(|finalizer| finalizer == FINALIZER)
    }

    /// Reports whether a Contour captures the object: stand-ins, blackholes and configurations.
    pub fn is_startup_input(&self) -> bool {
        self.is_held() || self.thing.kind == "ContourConfiguration"
    }

    fn has_whole_spec(&self) -> bool {
        matches!(self.thing.kind, "ExtensionService" | "ContourConfiguration")
    }

    fn is_blackhole(&self) -> bool {
        self.thing.kind == "Service" && self.is_held()
    }

    /// Reports whether Slipway writes the object by server-side apply.
    pub fn is_shared(&self) -> bool {
        !self.has_whole_spec() && !self.is_blackhole()
    }

    fn has_content(&self) -> bool {
        self.content().next().is_some()
    }

    /// Returns the fields that Slipway repairs.
    fn content(&self) -> impl Iterator<Item = &Leaf> {
        let left_to_others = |leaf: &&Leaf| {
            // An autoscaler owns the replicas if the spec has no number (the spec has one for Contour). Contour itself owns the Lease.
            (self.thing.name.ends_with("-envoy") && leaf.is_at(&["spec", "replicas"])) || self.thing.kind == "Lease"
        };
        // Slipway writes a blackhole by updates, so defaulted fields also appear as Slipway's.
        let defaulted = |leaf: &&Leaf| {
            let place = leaf.pointer(&self.before).unwrap_or_default();
            self.is_blackhole() && !["/spec/ports/0/port", "/spec/ports/0/name"].contains(&place.as_str())
        };
        self.leaves
            .iter()
            .filter(|leaf| !leaf.is_metadata() && leaf.is_filled())
            .filter(move |leaf| !left_to_others(leaf) && !defaulted(leaf))
    }

    /// Returns an error with the first difference from the settled state, for an object with the target's name.
    pub fn difference(&self, now: &Value, done: &AppliedPerturbation) -> Result<(), String> {
        if !now["metadata"]["deletionTimestamp"].is_null() {
            return Err(format!("{} is Terminating", self.thing));
        }
        let is_recreated = now["metadata"]["uid"] != self.before["metadata"]["uid"];
        for leaf in &self.leaves {
            // Slipway marks a recreated ContourConfiguration after Contour's next rollout, which may wait for a minute.
            if is_recreated && leaf.is_rollout_mark() {
                continue;
            }
            let value = leaf.of(now);
            let is_so = if leaf.is_variable() {
                value.is_some()
            } else {
                value.is_some_and(|value| leaf.is_equal(value))
            };
            if !is_so {
                return Err(format!(
                    "{:?} is {value:?}, was {}",
                    leaf.pointer(&self.before),
                    leaf.value
                ));
            }
        }
        if let Some((leaf, value)) = &done.spoilt
            && leaf.of(now) == value.as_ref()
        {
            return Err(format!("{:?} is still {value:?}", leaf.pointer(&self.before)));
        }
        if self.has_whole_spec() && now["spec"] != self.before["spec"] {
            return Err(format!("spec is {}, was {}", now["spec"], self.before["spec"]));
        }
        if self.is_blackhole() && !(now["spec"]["selector"].is_null() && now["spec"]["externalName"].is_null()) {
            return Err(format!("the blackhole has a destination: {}", now["spec"]));
        }
        contains(now, &done.foreign).map_err(|missing| format!("another user's field is missing: {missing}"))
    }

    /// Returns an error if another object is not the target's successor. The error is empty for an unrelated object.
    pub fn succession(&self, other: &Thing, now: &Value) -> Result<(), String> {
        let metadata = &now["metadata"];
        let is_other =
            other.kind == self.thing.kind && other.namespace == self.thing.namespace && other.name != self.thing.name;
        let role = "contour.slipway.dev/role";
        if !is_other
            || metadata["labels"][OWNER_NAMESPACE] != self.before["metadata"]["labels"][OWNER_NAMESPACE]
            || metadata["labels"][role] != self.before["metadata"]["labels"][role]
        {
            // An unrelated object.
            return Err(String::new());
        }
        let expected = self.before["spec"].to_string().replace(&self.thing.name, &other.name);
        let expected: Value = serde_json::from_str(&expected).map_err(|error| error.to_string())?;
        if self.has_whole_spec() && now["spec"] != expected {
            return Err(format!("the successor's spec is {}, not {expected}", now["spec"]));
        }
        let finalizers = metadata["finalizers"] == self.before["metadata"]["finalizers"];
        if !finalizers || !metadata["deletionTimestamp"].is_null() {
            return Err(format!("the successor is {metadata}"));
        }
        Ok(())
    }

    /// Applies a perturbation.
    pub async fn disturb(&self, lab: &Lab, what: Perturbation, rng: &mut Rng) -> anyhow::Result<AppliedPerturbation> {
        let done = match what {
            Perturbation::Deleted => self.delete(lab).await?,
            Perturbation::Content => self.change(lab, rng).await?,
            Perturbation::Labels => self.strip_labels(lab, rng).await?,
            Perturbation::Owner => {
                self.merge(lab, &json!({"ownerReferences": null}), "ownerReferences")
                    .await?
            }
            Perturbation::Annotation => self.strip_annotations(lab, rng).await?,
            Perturbation::OurFinalizer => self.merge(lab, &json!({"finalizers": null}), "finalizers").await?,
            Perturbation::Finalizer => {
                let mut finalizers = self.before["metadata"]["finalizers"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default();
                finalizers.push(json!(HOLD));
                let change = json!({"finalizers": finalizers, "labels": {MANAGED_BY: null}});
                let mut done = self
                    .merge(lab, &change, "finalizer of another user, and a label")
                    .await?;
                done.foreign = json!({"metadata": {"finalizers": [HOLD]}});
                done
            }
            Perturbation::ForeignFields => self.add(lab).await?,
            Perturbation::Takeover => self.take_over(lab, rng).await?,
        };
        if what != Perturbation::Deleted {
            ensure!(
                self.difference(&done.answer, &done).is_err(),
                "{}: the object did not change",
                done.how
            );
        }
        Ok(done)
    }

    /// Removes a label, so that Slipway applies the object. Afterwards the managed fields contain only the fields that Slipway sets.
    pub async fn unlabel(&self, lab: &Lab) -> anyhow::Result<AppliedPerturbation> {
        self.merge(lab, &json!({"labels": {MANAGED_BY: null}}), "label").await
    }

    /// Patches metadata as a user that the policies on marks do not restrict. These policies protect the marks from other users.
    async fn merge(&self, lab: &Lab, metadata: &Value, how: &str) -> anyhow::Result<AppliedPerturbation> {
        let api = lab.unguarded(self.thing.kind, &self.thing.namespace);
        let patch = Patch::Merge(json!({"metadata": metadata}));
        let answer = api.patch(&self.thing.name, &PatchParams::default(), &patch).await;
        let answer = answer.with_context(|| format!("patching {}", self.thing))?;
        Ok(AppliedPerturbation::of(serde_json::to_value(answer)?, how))
    }

    async fn delete(&self, lab: &Lab) -> anyhow::Result<AppliedPerturbation> {
        lab.delete(&self.thing).await?;
        Ok(AppliedPerturbation::of(self.before.clone(), "deletion"))
    }

    async fn strip_labels(&self, lab: &Lab, rng: &mut Rng) -> anyhow::Result<AppliedPerturbation> {
        let mut labels: Vec<_> = self
            .leaves
            .iter()
            .filter_map(|leaf| {
                Some(
                    leaf.pointer(&self.before)?
                        .strip_prefix("/metadata/labels/")?
                        .replace("~1", "/"),
                )
            })
            .collect();
        if self.thing.kind == "ClusterRoleBinding" {
            let stays = [OWNER_NAME, OWNER_NAMESPACE][rng.usize(..2)];
            labels.retain(|label| label != stays);
        }
        ensure!(
            labels.len() > 2,
            "Slipway owns too few labels of {}: {labels:?}",
            self.thing
        );
        let how = labels.join(", ");
        let labels: serde_json::Map<_, _> = labels.into_iter().map(|label| (label, Value::Null)).collect();
        self.merge(lab, &json!({"labels": labels}), &how).await
    }

    async fn strip_annotations(&self, lab: &Lab, rng: &mut Rng) -> anyhow::Result<AppliedPerturbation> {
        let annotations = self.before["metadata"]["annotations"]
            .as_object()
            .context("annotations")?;
        let own = annotations
            .keys()
            .filter(|key| key.starts_with("contour.slipway.dev/"))
            .cloned();
        let stripped = if rng.bool() {
            vec![APPLIED.to_owned()]
        } else {
            own.collect()
        };
        let how = stripped.join(", ");
        let annotations: serde_json::Map<_, _> = stripped.into_iter().map(|key| (key, Value::Null)).collect();
        self.merge(lab, &json!({"annotations": annotations}), &how).await
    }

    /// Changes a field of Slipway's to the first other value that the API server accepts.
    async fn change(&self, lab: &Lab, rng: &mut Rng) -> anyhow::Result<AppliedPerturbation> {
        if let Some(addition) = self.addition().filter(|_| rng.bool()) {
            let answer = self
                .json_patch(lab, addition.clone())
                .await?
                .context("the API server rejected the addition")?;
            return Ok(AppliedPerturbation::of(answer, addition.to_string()));
        }
        let mut leaves: Vec<_> = self.content().collect();
        rng.shuffle(&mut leaves);
        for leaf in leaves {
            let pointer = leaf.pointer(&self.before).context("the field is missing")?;
            for other in leaf.others(rng) {
                let patch = match &other {
                    Some(value) => json!([{"op": "replace", "path": pointer, "value": value}]),
                    None => json!([{"op": "remove", "path": pointer}]),
                };
                let Some(answer) = self.json_patch(lab, patch).await? else {
                    continue;
                };
                // The value does not change if the API server defaults the field to the same value, or keeps the field.
                if leaf.of(&answer) != Some(&leaf.value) {
                    let how = format!("{pointer}: {} → {:?}", leaf.value, leaf.of(&answer));
                    let mut done = AppliedPerturbation::of(answer, how);
                    done.spoilt = leaf.is_variable().then(|| (leaf.clone(), other));
                    return Ok(done);
                }
            }
        }
        bail!("the API server accepts no other value of any field of {}", self.thing)
    }

    /// Returns a forbidden addition: it would bypass the authorization.
    fn addition(&self) -> Option<Value> {
        let add = |path: &str, value: Value| json!({"op": "add", "path": path, "value": value});
        match self.thing.kind {
            "ExtensionService" => Some(json!([add("/spec/loadBalancerPolicy", json!({"strategy": "Random"}))])),
            "ContourConfiguration" => Some(json!([add(
                "/spec/globalExtAuth/authPolicy",
                json!({"disabled": true})
            )])),
            // Only a Service without a selector may have both families on any cluster.
            "Service" if self.is_blackhole() => Some(json!([
                add("/spec/selector", json!({"app": "mallory"})),
                add("/spec/ipFamilyPolicy", json!("SingleStack")),
                add("/spec/ipFamilies", json!(["IPv4"])),
            ])),
            _ => None,
        }
    }

    /// Returns the API for a user that changes the object's content. Where a policy protects the content, the user is one that the policy
    /// treats as the operator.
    fn content_api(&self, lab: &Lab) -> Api<DynamicObject> {
        let Thing { kind, namespace, .. } = &self.thing;
        if self.is_startup_input() || *kind == "Secret" {
            lab.unguarded(kind, namespace)
        } else {
            lab.api(kind, namespace)
        }
    }

    /// Returns the patched object, or None if the API server rejects the value.
    async fn json_patch(&self, lab: &Lab, patch: Value) -> anyhow::Result<Option<Value>> {
        let api = self.content_api(lab);
        let patch = Patch::<()>::Json(serde_json::from_value(patch)?);
        match api.patch(&self.thing.name, &PatchParams::default(), &patch).await {
            Ok(answer) => Ok(Some(serde_json::to_value(answer)?)),
            Err(kube::Error::Api(status)) if [400, 422].contains(&status.code) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("changing {}", self.thing)),
        }
    }

    async fn apply(&self, lab: &Lab, parameters: &PatchParams, mut object: Value) -> Result<Value, kube::Error> {
        object["apiVersion"] = self.before["apiVersion"].clone();
        object["kind"] = json!(self.thing.kind);
        let api = self.content_api(lab);
        let answer = api.patch(&self.thing.name, parameters, &Patch::Apply(object)).await?;
        serde_json::to_value(answer).map_err(kube::Error::SerdeError)
    }

    /// Applies another user's fields, and removes a label to trigger a repair.
    async fn add(&self, lab: &Lab) -> anyhow::Result<AppliedPerturbation> {
        let (key, value) = ("test.example.com/mine", "stays");
        let mut foreign = match self.thing.kind {
            "Deployment" | "DaemonSet" => json!({"spec": {"revisionHistoryLimit": 7}}),
            "Service" if !self.is_held() => json!({"spec": {"sessionAffinity": "ClientIP"}}),
            "ServiceAccount" => json!({"imagePullSecrets": [{"name": "pull"}]}),
            "Secret" => json!({"data": {"mine": "c3RheXM="}}),
            "Lease" => json!({"spec": {"holderIdentity": "contour"}}),
            _ => json!({}),
        };
        foreign["metadata"] = json!({"labels": {key: value}, "annotations": {key: value}});
        // Not by force: none of these fields may be Slipway's.
        let applied = self
            .apply(lab, &PatchParams::apply("a-neighbour"), foreign.clone())
            .await;
        applied.with_context(|| format!("applying {foreign} to {}", self.thing))?;
        let mut done = self.unlabel(lab).await?;
        done.foreign = foreign;
        Ok(done)
    }

    /// Applies a field of Slipway's with another manager, together with a field of that manager.
    async fn take_over(&self, lab: &Lab, rng: &mut Rng) -> anyhow::Result<AppliedPerturbation> {
        let foreign = json!({"metadata": {"labels": {"test.example.com/usurper": "stays"}}});
        let parameters = PatchParams::apply("a-usurper").force();
        let mut leaves: Vec<_> = self.content().collect();
        rng.shuffle(&mut leaves);
        let label = ["metadata", "labels", MANAGED_BY];
        leaves.extend(self.leaves.iter().filter(|leaf| leaf.is_at(&label)));
        for leaf in leaves {
            for other in leaf.others(rng).into_iter().flatten() {
                let mut object = leaf.alone(other.clone())?;
                merge(&mut object, &foreign);
                let answer = match self.apply(lab, &parameters, object).await {
                    Ok(answer) => answer,
                    Err(kube::Error::Api(status)) if [400, 422, 500].contains(&status.code) => continue,
                    Err(error) => return Err(error).with_context(|| format!("taking over {}", self.thing)),
                };
                if leaf.of(&answer) != Some(&leaf.value) {
                    let mut done = AppliedPerturbation::of(
                        answer,
                        format!("{:?}: {} → {other}", leaf.pointer(&self.before), leaf.value),
                    );
                    done.foreign = foreign;
                    done.spoilt = leaf.is_variable().then(|| (leaf.clone(), Some(other)));
                    return Ok(done);
                }
            }
        }
        bail!("no field of {} can be taken over", self.thing)
    }

    /// Removes the other user's finalizer from an object that is being deleted.
    pub async fn remove_finalizer(&self, lab: &Lab) -> anyhow::Result<()> {
        let now = lab.read(&self.thing).await?;
        let finalizers = now["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        let held = finalizers.iter().any(|finalizer| finalizer == HOLD);
        ensure!(held, "the foreign finalizer of {} was removed", self.thing);
        ensure!(
            !now["metadata"]["deletionTimestamp"].is_null(),
            "{} is not Terminating",
            self.thing
        );
        lab.remove_finalizer(&self.thing, HOLD).await
    }

    /// Requests the deletion of the object. Does not wait.
    pub async fn begin_to_delete(&self, lab: &Lab) -> anyhow::Result<()> {
        let api = lab.api(self.thing.kind, &self.thing.namespace);
        let answer = api.delete(&self.thing.name, &DeleteParams::default()).await;
        let answer = answer.with_context(|| format!("deleting {}", self.thing))?;
        ensure!(answer.is_left(), "{} was deleted in spite of a finalizer", self.thing);
        Ok(())
    }
}

/// Returns an error with a missing part unless `object` contains all of `part`; compares lists as sets.
fn contains(object: &Value, part: &Value) -> Result<(), String> {
    match (object, part) {
        (_, Value::Null) => Ok(()),
        (Value::Object(fields), Value::Object(wanted)) => wanted
            .iter()
            .try_for_each(|(key, part)| contains(fields.get(key).unwrap_or(&Value::Null), part)),
        (Value::Array(items), Value::Array(wanted)) => wanted.iter().try_for_each(|part| {
            if items.contains(part) {
                Ok(())
            } else {
                Err(part.to_string())
            }
        }),
        _ if object == part => Ok(()),
        _ => Err(part.to_string()),
    }
}

fn merge(object: &mut Value, other: &Value) {
    match (object, other) {
        (Value::Object(fields), Value::Object(others)) => {
            for (key, value) in others {
                merge(fields.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (object, other) => *object = other.clone(),
    }
}
