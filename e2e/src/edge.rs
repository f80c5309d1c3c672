//! A ContourDeployment on the cluster and the objects that Slipway created for it: status, pods, rollouts.
//!
//! Names and labels are literals here, not constants of the product. They are the product's interface, and a test must fail
//! when they change.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, Client, ResourceExt as _};
use serde::Deserialize;

use crate::wait::Look;

/// The label with the name of the ContourDeployment that an object belongs to.
pub const OWNER_NAME: &str = "contour.slipway.dev/contourdeployment";
/// The label with the namespace of that ContourDeployment.
pub const OWNER_NAMESPACE: &str = "contour.slipway.dev/contourdeployment-namespace";
/// The label of pods with their [`Component`].
pub const COMPONENT: &str = "app.kubernetes.io/component";

/// A component of an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// The control plane.
    Contour,
    /// The data plane.
    Envoy,
}

impl Component {
    /// Returns the value of the label [`COMPONENT`].
    pub fn label(self) -> &'static str {
        match self {
            Self::Contour => "contour",
            Self::Envoy => "envoy",
        }
    }
}

/// A condition of a status.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// The type, for example `Ready`.
    pub r#type: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// A reason in CamelCase.
    #[serde(default)]
    pub reason: String,
    /// An explanation for people.
    #[serde(default)]
    pub message: String,
    /// The generation that the condition describes.
    pub observed_generation: Option<i64>,
}

/// The status of a ContourDeployment.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// The generation that the status describes.
    pub observed_generation: Option<i64>,
    /// The conditions.
    pub conditions: Vec<Condition>,
    /// The referenced services.
    pub extension_services: Vec<ExtensionService>,
    /// The fields of Slipway's objects that other controllers or users set.
    pub fields_decided_by_others: Vec<DecidedByOthers>,
    /// The ContourDeployment's `metadata.generation`, for comparison.
    #[serde(skip)]
    pub generation: i64,
}

/// The status of one referenced service.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExtensionService {
    /// The service's name.
    pub name: String,
    /// `Missing`, `Pending`, `Invalid`, `NoEndpoints` or `Available`.
    pub state: String,
    /// `Enforced`, `AllowedUnchecked`, `Denied` or `NotSampled`.
    pub traffic: String,
    /// The stand-in that Contour's configuration references instead of the service.
    pub stand_in: Option<StandIn>,
    /// The reason why the service is not available, or why Contour does not yet use it.
    #[serde(default)]
    pub message: String,
}

/// Fields of an object that other controllers or users set.
#[derive(Clone, Debug, Deserialize)]
pub struct DecidedByOthers {
    /// The object's kind.
    pub kind: String,
    /// The object's namespace; empty for cluster-scoped kinds.
    #[serde(default)]
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The fields.
    pub fields: Vec<String>,
}

/// The namespace and name of a stand-in.
#[derive(Clone, Debug, Deserialize)]
pub struct StandIn {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Status {
    /// Returns the condition of this type.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.r#type == kind)
    }

    /// Reports whether the condition of this type has this status. An absent condition has the status `Unknown`.
    pub fn is(&self, kind: &str, status: &str) -> bool {
        self.condition(kind).map_or("Unknown", |condition| &condition.status) == status
    }

    /// Reports whether the status describes the newest generation and `Reconciling` is not `True`.
    pub fn is_current(&self) -> bool {
        self.observed_generation == Some(self.generation) && !self.is("Reconciling", "True")
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.conditions.is_empty() {
            f.write_str("no conditions")?;
        }
        let mut first = true;
        for kind in ["Ready", "Degraded", "Reconciling", "Stalled"] {
            let Some(condition) = self.condition(kind) else {
                continue;
            };
            let comma = if std::mem::take(&mut first) { "" } else { ", " };
            write!(f, "{comma}{kind} {} ({})", condition.status, condition.reason)?;
        }
        if self.observed_generation != Some(self.generation) {
            let observed = self.observed_generation.unwrap_or(-1);
            write!(
                f,
                ", observed generation {observed}, current generation {}",
                self.generation
            )?;
        }
        Ok(())
    }
}

/// The pods of one component at one moment, without those that are terminating.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    ready: BTreeMap<String, bool>,
    /// The sum of the restarts of all containers.
    pub restarts: i32,
    /// The number of terminating pods.
    pub ending: usize,
}

impl Pods {
    /// Returns the uids of the pods.
    pub fn uids(&self) -> BTreeSet<String> {
        self.ready.keys().cloned().collect()
    }

    /// Reports whether at least one pod exists and all pods are ready.
    pub fn all_ready(&self) -> bool {
        !self.ready.is_empty() && self.ready.values().all(|ready| *ready)
    }
}

impl fmt::Display for Pods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ready = self.ready.values().filter(|ready| **ready).count();
        write!(f, "{ready}/{} ready, {} restarts", self.ready.len(), self.restarts)
    }
}

/// The state that changes only if a component is rolled out or a pod is recreated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolledState {
    revision: u64,
    pods: BTreeSet<String>,
}

/// A ContourDeployment, identified by namespace and name.
#[derive(Clone)]
pub struct Edge {
    client: Client,
    namespace: String,
    name: String,
}

impl Edge {
    /// Returns the ContourDeployment `namespace/name`, whether or not it exists.
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Returns the namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the selector for the labels of all objects that belong to this ContourDeployment.
    pub fn selector(&self) -> String {
        format!("{OWNER_NAME}={},{OWNER_NAMESPACE}={}", self.name, self.namespace)
    }

    fn api(&self) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("contour.slipway.dev", "v1alpha1", "ContourDeployment");
        Api::namespaced_with(self.client.clone(), &self.namespace, &ApiResource::from_gvk(&kind))
    }

    /// Returns the status. The status is empty if the ContourDeployment has none yet.
    pub async fn status(&self) -> anyhow::Result<Status> {
        let object = self
            .api()
            .get(&self.name)
            .await
            .context("reading the ContourDeployment")?;
        let status = object.data.get("status").cloned();
        let mut status: Status = match status {
            Some(value) => serde_json::from_value(value).context("reading the ContourDeployment's status")?,
            None => Status::default(),
        };
        status.generation = object.metadata.generation.unwrap_or(0);
        Ok(status)
    }

    /// Requests the deletion of the ContourDeployment. An absent ContourDeployment is not an error.
    pub async fn delete(&self) -> anyhow::Result<()> {
        match self.api().delete(&self.name, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(error).context("deleting the ContourDeployment"),
        }
    }

    /// Returns the pods of one component.
    pub async fn pods(&self, component: Component) -> anyhow::Result<Pods> {
        let selector = format!("{},{COMPONENT}={}", self.selector(), component.label());
        let api = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
        let list = api
            .list(&ListParams::default().labels(&selector))
            .await
            .context("listing pods")?;
        let mut pods = Pods::default();
        for pod in list {
            if pod.metadata.deletion_timestamp.is_some() {
                pods.ending += 1;
                continue;
            }
            let uid = pod.uid().unwrap_or_default();
            let status = pod.status.unwrap_or_default();
            let containers = [status.container_statuses, status.init_container_statuses];
            pods.restarts += containers
                .iter()
                .flatten()
                .flatten()
                .map(|status| status.restart_count)
                .sum::<i32>();
            let conditions = status.conditions.unwrap_or_default();
            pods.ready.insert(
                uid,
                conditions.iter().any(|it| it.type_ == "Ready" && it.status == "True"),
            );
        }
        Ok(pods)
    }

    /// Returns the revision of Contour's Deployment, which counts its rollouts. The revision is 0 if the Deployment does not exist.
    pub async fn revision(&self) -> anyhow::Result<u64> {
        let api = Api::<Deployment>::namespaced(self.client.clone(), &self.namespace);
        let deployment = api
            .get_opt(&format!("{}-contour", self.name))
            .await
            .context("reading Contour's Deployment")?;
        let revision = deployment.and_then(|it| it.annotations().get("deployment.kubernetes.io/revision").cloned());
        revision.map_or(Ok(0), |text| {
            text.parse().with_context(|| format!("the revision {text:?}"))
        })
    }

    /// Returns the state that a rollout changes: Contour's revision and the uids of all pods that are not terminating.
    pub async fn rolled_state(&self) -> anyhow::Result<RolledState> {
        let mut pods = self.pods(Component::Contour).await?.uids();
        pods.extend(self.pods(Component::Envoy).await?.uids());
        Ok(RolledState {
            revision: self.revision().await?,
            pods,
        })
    }

    /// Observes whether the status is current, all pods are ready, and no Contour pod of an earlier template is left.
    pub async fn look_settled(&self) -> anyhow::Result<Look<Status>> {
        let status = self.status().await?;
        let contour = self.pods(Component::Contour).await?;
        let envoy = self.pods(Component::Envoy).await?;
        let settled = status.is_current() && contour.all_ready() && contour.ending == 0 && envoy.all_ready();
        if settled {
            return Ok(Look::Reached(status));
        }
        let ending = if contour.ending > 0 {
            format!(" ({} terminating)", contour.ending)
        } else {
            String::new()
        };
        Ok(Look::NotYet(format!(
            "{status}; Contour {contour}{ending}; Envoy {envoy}"
        )))
    }
}
