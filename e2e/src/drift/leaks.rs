//! Leaks: the deletion of a ContourDeployment or of a part of it, while the operator runs or not, and with an obstacle. In the end,
//! exactly the objects of the remaining spec must exist.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use fastrand::Rng;
use futures::future::try_join_all;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::obstacle::{Obstacle, RaisedObstacle};
use super::watches::{self, Watches};
use super::{is_by_others, masked};
use crate::edge::Edge;
use crate::lab::created::name;
use crate::lab::players::{self, Kubelet, Node, Verdict};
use crate::lab::{Lab, PATIENT, Thing, specification, wait};
use crate::wait::Look;

/// The action of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Deletes the ContourDeployment.
    Delete,
    /// Deletes the ContourDeployment's namespace.
    DeleteNamespace,
    /// Deletes the namespace of the service.
    DeleteServiceNamespace,
    /// Deletes both namespaces.
    DeleteBothNamespaces,
    /// Changes Envoy's workload to a DaemonSet.
    ToDaemonSet,
    /// Changes Envoy's workload to a Deployment.
    ToDeployment,
    /// Changes the reference to another namespace.
    ReferElsewhere,
    /// Changes the reference to another ExtensionService in the same namespace.
    Rename,
    /// Removes the reference.
    RemoveReference,
}

/// The existing parts of the referenced service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// A valid ExtensionService with its Service.
    Valid,
    /// Only the namespace.
    Missing,
    /// Not even the namespace.
    NoNamespace,
}

/// The operator's state during the action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The operator runs.
    Up,
    /// The operator is started after the action.
    Down,
}

/// The state of Contour's CRDs during the action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crds {
    /// The CRDs are installed.
    Installed,
    /// The CRDs are being deleted.
    Deleted,
}

/// One scenario of a deletion.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// The action.
    pub act: Act,
    /// The referenced service.
    pub service: Service,
    /// The obstacle that blocks the deletion of one object for a while.
    pub obstacle: Obstacle,
}

const fn scenario(act: Act, service: Service, obstacle: Obstacle) -> Scenario {
    Scenario { act, service, obstacle }
}

/// All scenarios with Contour's CRDs installed.
pub const ALL: [Scenario; 18] = [
    scenario(Act::Delete, Service::Valid, Obstacle::None),
    scenario(Act::Delete, Service::Missing, Obstacle::None),
    scenario(Act::Delete, Service::NoNamespace, Obstacle::None),
    scenario(Act::Delete, Service::Valid, Obstacle::Finalizer),
    scenario(Act::Delete, Service::Missing, Obstacle::Finalizer),
    scenario(Act::Delete, Service::Valid, Obstacle::Refusal),
    scenario(Act::Delete, Service::NoNamespace, Obstacle::Refusal),
    scenario(Act::DeleteNamespace, Service::Missing, Obstacle::None),
    scenario(Act::DeleteNamespace, Service::NoNamespace, Obstacle::None),
    scenario(Act::DeleteServiceNamespace, Service::Valid, Obstacle::None),
    scenario(Act::DeleteServiceNamespace, Service::Missing, Obstacle::None),
    scenario(Act::DeleteBothNamespaces, Service::Valid, Obstacle::None),
    scenario(Act::ToDaemonSet, Service::Valid, Obstacle::None),
    scenario(Act::ToDeployment, Service::Missing, Obstacle::None),
    scenario(Act::ReferElsewhere, Service::Valid, Obstacle::None),
    scenario(Act::Rename, Service::Valid, Obstacle::None),
    scenario(Act::RemoveReference, Service::Valid, Obstacle::None),
    scenario(Act::RemoveReference, Service::NoNamespace, Obstacle::None),
];

/// The scenarios that must also work without Contour's CRDs.
pub const WITHOUT_CRDS: [Scenario; 5] = [
    scenario(Act::Delete, Service::Valid, Obstacle::None),
    scenario(Act::Delete, Service::NoNamespace, Obstacle::None),
    scenario(Act::DeleteNamespace, Service::Missing, Obstacle::None),
    scenario(Act::DeleteNamespace, Service::NoNamespace, Obstacle::None),
    scenario(Act::DeleteBothNamespaces, Service::Valid, Obstacle::None),
];

impl std::fmt::Display for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}, service {:?}", self.act, self.service)?;
        match self.obstacle {
            Obstacle::None => Ok(()),
            obstacle => write!(f, ", {obstacle:?}"),
        }
    }
}

/// Several scenarios in parallel, each with its own ContourDeployment.
#[derive(Debug)]
pub struct Batch<'a> {
    /// The prefix of the names of the batch's namespaces.
    pub name: &'a str,
    /// The scenarios.
    pub scenarios: &'a [Scenario],
    /// The operator's state.
    pub operator: Operator,
    /// The state of Contour's CRDs.
    pub crds: Crds,
    /// The seed that chooses the objects with obstacles.
    pub seed: u64,
}

/// Runs a batch and returns the duration of each scenario.
///
/// The duration starts when the operator is ready, the action is done and the obstacle is removed, whichever is last. It ends when
/// exactly the remaining objects exist.
pub async fn run(lab: &Lab, batch: &Batch<'_>) -> anyhow::Result<Vec<(String, Duration)>> {
    ensure!(!batch.scenarios.is_empty(), "the batch has no scenarios");
    let _kubelet = Kubelet::of_all(lab);
    let _node = Node::of(lab).await?;
    let watches = Watches::of(lab);
    let mut rng = Rng::with_seed(batch.seed);
    let mut cases = Vec::new();
    for (number, scenario) in batch.scenarios.iter().enumerate() {
        cases.push(LeakCase::begin(lab, *scenario, &lab.name(&format!("{}-{number}", batch.name))).await?);
    }
    for case in &mut cases {
        case.settle(lab, &mut rng)
            .await
            .with_context(|| case.scenario.to_string())?;
    }
    if batch.operator == Operator::Down {
        lab.world.stop_operator().await?;
    }
    if batch.crds == Crds::Deleted {
        delete_crds(lab).await?;
    }
    for case in &mut cases {
        case.act(lab, batch.crds)
            .await
            .with_context(|| case.scenario.to_string())?;
    }
    if batch.operator == Operator::Down {
        for case in &cases {
            case.wait_for_kubernetes(lab).await?;
        }
        lab.world.start_operator().await?;
        lab.world.operator_is_ready().await?;
        let ready = Instant::now();
        for case in &cases {
            case.since.set(ready);
        }
    }
    let clearing = cases.iter().map(async |case| {
        let cleared = case.remove_obstacle(lab).await;
        cleared.with_context(|| case.scenario.to_string())
    });
    let (cleared, times) = tokio::join!(try_join_all(clearing), wait_until_clean(lab, &watches, &cases));
    cleared?;
    let times = times?;
    for case in &cases {
        case.wait_for_namespaces(lab)
            .await
            .with_context(|| case.scenario.to_string())?;
    }
    Ok(times)
}

/// One scenario in progress.
struct LeakCase {
    scenario: Scenario,
    edge: Edge,
    auth: String,
    spec: Value,
    /// The objects that remain at the end, without hashes in their names.
    left: BTreeSet<String>,
    way: RaisedObstacle,
    since: Cell<Instant>,
    is_clear: Cell<bool>,
}

impl LeakCase {
    async fn begin(lab: &Lab, scenario: Scenario, namespace: &str) -> anyhow::Result<Self> {
        let auth = format!("{namespace}-auth");
        lab.create_namespace(namespace).await?;
        if scenario.service != Service::NoNamespace {
            lab.create_namespace(&auth).await?;
        }
        if scenario.service == Service::Valid {
            players::auth_server(lab, &auth).await?;
            lab.create(&players::extension_service(&auth, "500ms")).await?;
            players::judge(lab, &auth, "auth", Verdict::Valid).await?;
        }
        let mut spec = specification(&auth);
        if scenario.act == Act::ToDeployment {
            spec["envoy"]["workloadType"] = json!("DaemonSet");
        }
        let edge = lab.edge_in(namespace, &spec).await?;
        Ok(Self {
            scenario,
            edge,
            auth,
            spec,
            left: BTreeSet::new(),
            way: RaisedObstacle::Nothing,
            since: Cell::new(Instant::now()),
            is_clear: Cell::new(scenario.obstacle == Obstacle::None),
        })
    }

    /// Waits until the edge has settled, and raises the obstacle.
    async fn settle(&mut self, lab: &Lab, rng: &mut Rng) -> anyhow::Result<()> {
        lab.settled(&self.edge).await?;
        let all = lab.objects_of(&self.edge).await?;
        let made = named(&all);
        ensure!(made.len() > 15, "too few objects exist: {made:?}");
        let victims = all.iter().filter_map(|object| thing(object)).collect();
        self.way = self.scenario.obstacle.raise(lab, victims, rng).await?;
        self.left = match self.scenario.act {
            Act::Delete | Act::DeleteNamespace | Act::DeleteBothNamespaces => BTreeSet::new(),
            Act::DeleteServiceNamespace | Act::ReferElsewhere | Act::Rename => made,
            Act::ToDaemonSet => exchanged(made, "edge-envoy (Deployment)", "edge-envoy (DaemonSet)")?,
            Act::ToDeployment => exchanged(made, "edge-envoy (DaemonSet)", "edge-envoy (Deployment)")?,
            Act::RemoveReference => made.into_iter().filter(|name| !name.contains("-ext-auth-")).collect(),
        };
        Ok(())
    }

    async fn act(&mut self, lab: &Lab, crds: Crds) -> anyhow::Result<()> {
        let namespace = |name: &str| Thing::new("Namespace", "", name);
        let own = Thing::new("ContourDeployment", self.edge.namespace(), self.edge.name());
        match self.scenario.act {
            Act::Delete => {
                self.edge.delete().await?;
                if crds == Crds::Installed && self.scenario.obstacle != Obstacle::None {
                    ensure!(
                        lab.find(&own).await?.is_some(),
                        "the ContourDeployment did not wait for the operator"
                    );
                }
            }
            Act::DeleteNamespace => lab.delete(&namespace(self.edge.namespace())).await?,
            Act::DeleteServiceNamespace => lab.delete(&namespace(&self.auth)).await?,
            Act::DeleteBothNamespaces => {
                lab.delete(&namespace(&self.auth)).await?;
                lab.delete(&namespace(self.edge.namespace())).await?;
            }
            Act::ToDaemonSet => {
                self.patch(lab, &json!({"envoy": {"workloadType": "DaemonSet"}}))
                    .await?;
            }
            Act::ToDeployment => {
                self.patch(lab, &json!({"envoy": {"workloadType": "Deployment"}}))
                    .await?;
            }
            Act::ReferElsewhere => {
                let other = format!("{}-other", self.edge.namespace());
                lab.create_namespace(&other).await?;
                self.patch(lab, &reference(&json!({"namespace": other}))).await?;
            }
            Act::Rename => self.patch(lab, &reference(&json!({"name": "another"}))).await?,
            Act::RemoveReference => self.patch(lab, &json!({"runtimeSettings": null})).await?,
        }
        self.since.set(Instant::now());
        Ok(())
    }

    async fn patch(&mut self, lab: &Lab, spec: &Value) -> anyhow::Result<()> {
        let own = Thing::new("ContourDeployment", self.edge.namespace(), self.edge.name());
        lab.patch(&own, &json!({"spec": spec})).await?;
        self.spec = lab.read(&own).await?["spec"].clone();
        Ok(())
    }

    /// Waits until Kubernetes has deleted its part of the namespace. The rest waits for the operator, which does not run.
    async fn wait_for_kubernetes(&self, lab: &Lab) -> anyhow::Result<()> {
        if !matches!(self.scenario.act, Act::DeleteNamespace | Act::DeleteBothNamespaces) {
            return Ok(());
        }
        wait(
            "only objects with Slipway's finalizers are left in the namespace",
            PATIENT,
        )
        .until(async || {
            let [secrets, bindings] =
                ["Secret", "RoleBinding"].map(|kind| lab.all(kind, self.edge.namespace(), &self.edge));
            let left = secrets.await?.len() + bindings.await?.len();
            Ok(Look::when(left == 0, format!("{left} Secrets and RoleBindings")))
        })
        .await
    }

    async fn remove_obstacle(&self, lab: &Lab) -> anyhow::Result<()> {
        if self.is_clear.get() {
            return Ok(());
        }
        self.way.wait_until_met(lab).await?;
        // The ContourDeployment must wait for the object that cannot be deleted.
        let own = Thing::new("ContourDeployment", self.edge.namespace(), self.edge.name());
        ensure!(
            lab.find(&own).await?.is_some(),
            "the ContourDeployment was deleted before the last of its objects"
        );
        self.way.remove(lab).await?;
        self.since.set(Instant::now());
        self.is_clear.set(true);
        Ok(())
    }

    /// Returns the unexpected objects and the missing objects; empty if exactly the expected objects exist.
    fn difference(&self, there: &BTreeSet<String>) -> Vec<String> {
        if !self.is_clear.get() {
            return vec!["the obstacle has not been removed".to_owned()];
        }
        let terminating = there.iter().filter(|object| object.ends_with("(terminating)"));
        let names = named(there);
        let places = there.iter().filter(|object| {
            let elsewhere = self.scenario.act == Act::ReferElsewhere && object.contains(&format!(" {}/", self.auth));
            // No object at all, pods included, may outlive the ContourDeployment.
            elsewhere || self.left.is_empty()
        });
        let wrong = names.symmetric_difference(&self.left);
        let mut difference: Vec<_> = wrong.chain(terminating).chain(places).cloned().collect();
        difference.dedup();
        difference
    }

    async fn wait_for_namespaces(&self, lab: &Lab) -> anyhow::Result<()> {
        let [own, auth] = [self.edge.namespace(), &self.auth].map(|name| Thing::new("Namespace", "", name));
        let deleted: &[Thing] = match self.scenario.act {
            Act::DeleteNamespace => &[own],
            Act::DeleteServiceNamespace => &[auth],
            Act::DeleteBothNamespaces => &[own, auth],
            _ => {
                if !self.left.is_empty() {
                    lab.settled(&self.edge).await?;
                }
                return Ok(());
            }
        };
        for namespace in deleted {
            wait_until_namespace_is_deleted(lab, namespace).await?;
        }
        Ok(())
    }
}

/// Waits until a deleted namespace no longer exists.
pub async fn wait_until_namespace_is_deleted(lab: &Lab, namespace: &Thing) -> anyhow::Result<()> {
    wait(&format!("{namespace} no longer exists"), PATIENT)
        .until(async || {
            let found = lab.find(namespace).await?;
            let conditions = found.as_ref().map(|it| it["status"]["conditions"].to_string());
            Ok(Look::when(found.is_none(), conditions.unwrap_or_default()))
        })
        .await
}

/// Waits until each case has left exactly its remaining objects. The watches determine the durations. Afterwards, lists of all kinds in the
/// cluster, by labels and names, confirm the result.
async fn wait_until_clean(lab: &Lab, watches: &Watches, cases: &[LeakCase]) -> anyhow::Result<Vec<(String, Duration)>> {
    let mut times = BTreeMap::new();
    wait("only the expected objects are left", Duration::from_mins(1))
        .every(Duration::from_millis(20))
        .until(async || {
            let mut open = Vec::new();
            for (number, case) in cases.iter().enumerate() {
                let difference = case.difference(&watches.described(&case.edge));
                if difference.is_empty() {
                    times.entry(number).or_insert_with(|| case.since.get().elapsed());
                } else {
                    // An object that exists again was not deleted for good.
                    times.remove(&number);
                    open.push(format!("{}: {}", case.scenario, difference.join(", ")));
                }
            }
            Ok(Look::when(open.is_empty(), open.join("; ")))
        })
        .await?;
    let edges: Vec<_> = cases.iter().map(|case| &case.edge).collect();
    wait(
        "lists of all kinds confirm that only the expected objects are left",
        Duration::from_mins(1),
    )
    .until(async || {
        let there = lab.objects_of_each(&edges).await?;
        let differences = cases
            .iter()
            .zip(&there)
            .map(|(case, there)| (case.scenario, case.difference(there)));
        let open: Vec<_> = differences.filter(|(_, difference)| !difference.is_empty()).collect();
        Ok(Look::when(open.is_empty(), format!("{open:?}")))
    })
    .await?;
    let names = cases.iter().map(|case| case.scenario.to_string());
    Ok(names.zip(times.into_values()).collect())
}

/// Returns the names of Slipway's objects without hashes. Excludes objects of Kubernetes' own controllers and the ContourDeployment.
fn named(objects: &BTreeSet<String>) -> BTreeSet<String> {
    let things = objects.iter().filter_map(|object| thing(object));
    things.map(|thing| masked(thing.kind, &thing.name)).collect()
}

/// Returns the reference to an object of Slipway from its description, or None for other objects.
fn thing(object: &str) -> Option<Thing> {
    let (kind, place) = object.split_once(' ')?;
    let kind = watches::created_kinds().find(|made| *made == kind && !is_by_others(kind))?;
    let place = place.split(' ').next()?;
    let (namespace, name) = place.split_once('/').unwrap_or(("", place));
    Some(Thing::new(kind, namespace, name))
}

fn exchanged(mut names: BTreeSet<String>, old: &str, new: &str) -> anyhow::Result<BTreeSet<String>> {
    ensure!(names.remove(old), "{old} does not exist: {names:?}");
    names.insert(new.to_owned());
    Ok(names)
}

fn reference(change: &Value) -> Value {
    json!({"runtimeSettings": {"globalExtAuth": {"extensionRef": change}}})
}

/// Requests the deletion of Contour's CRDs. The deletion may have to wait for the operator.
async fn delete_crds(lab: &Lab) -> anyhow::Result<()> {
    let crds = lab.api("CustomResourceDefinition", "");
    let all = crds.list_metadata(&kube::api::ListParams::default()).await?;
    let mut deleted = 0;
    for crd in all {
        let crd = serde_json::to_value(crd)?;
        if name(&crd)?.ends_with(".projectcontour.io") {
            crds.delete(name(&crd)?, &DeleteParams::default()).await?;
            deleted += 1;
        }
    }
    ensure!(deleted > 0, "Contour's CRDs do not exist");
    Ok(())
}
