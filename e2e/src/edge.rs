//! A ContourDeployment on the cluster, and what Slipway made of it: status, pods, rollouts.
//!
//! Names and labels are written out here, not taken from the product: they are its interface, and a change must show.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, Client, ResourceExt as _};
use serde::Deserialize;

use crate::wait::Look;

/// Label: name of the ContourDeployment that an object belongs to.
pub const OWNER_NAME: &str = "contour.slipway.dev/contourdeployment";
/// Label: its namespace.
pub const OWNER_NAMESPACE: &str = "contour.slipway.dev/contourdeployment-namespace";
/// Label of pods: [`Component`].
pub const COMPONENT: &str = "app.kubernetes.io/component";

/// Which pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// The control plane.
    Contour,
    /// The data plane.
    Envoy,
}

impl Component {
    /// The value of the label [`COMPONENT`].
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
    /// `Ready`, for instance.
    pub r#type: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word.
    #[serde(default)]
    pub reason: String,
    /// A sentence.
    #[serde(default)]
    pub message: String,
    /// The generation that it is about.
    pub observed_generation: Option<i64>,
}

/// The status of a ContourDeployment.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// The generation that it is about.
    pub observed_generation: Option<i64>,
    /// The conditions.
    pub conditions: Vec<Condition>,
    /// The referenced services.
    pub extension_services: Vec<ExtensionService>,
    /// What somebody else decides of Slipway's own objects.
    pub fields_decided_by_others: Vec<DecidedByOthers>,
    /// `metadata.generation`, for comparison.
    #[serde(skip)]
    pub generation: i64,
}

/// One referenced service.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExtensionService {
    /// Its name.
    pub name: String,
    /// `Missing`, `Pending`, `Invalid`, `NoEndpoints` or `Available`.
    pub state: String,
    /// `Enforced`, `AllowedUnchecked`, `Denied` or `NotSampled`.
    pub traffic: String,
    /// What Contour's configuration references in its place.
    pub stand_in: Option<StandIn>,
    /// Why it is not available, or not where it should be.
    #[serde(default)]
    pub message: String,
}

/// Fields of an object that somebody else decides.
#[derive(Clone, Debug, Deserialize)]
pub struct DecidedByOthers {
    /// The object's kind.
    pub kind: String,
    /// Its namespace; empty for kinds that live in none.
    #[serde(default)]
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Which fields.
    pub fields: Vec<String>,
}

/// Where a stand-in is.
#[derive(Clone, Debug, Deserialize)]
pub struct StandIn {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Status {
    /// The condition of this type.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.r#type == kind)
    }

    /// Whether the condition of this type has this status; an absent one has `Unknown`.
    pub fn is(&self, kind: &str, status: &str) -> bool {
        self.condition(kind).map_or("Unknown", |condition| &condition.status) == status
    }

    /// Whether it is about the newest generation and nothing is on its way.
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
            write!(f, ", of generation {observed} while {} is wanted", self.generation)?;
        }
        Ok(())
    }
}

/// The pods of one component at one moment, those that are ending left out.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    ready: BTreeMap<String, bool>,
    /// Restarts of all their containers together.
    pub restarts: i32,
    /// How many are ending.
    pub ending: usize,
}

impl Pods {
    /// Their uids.
    pub fn uids(&self) -> BTreeSet<String> {
        self.ready.keys().cloned().collect()
    }

    /// Whether there are some and all are ready.
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

/// What stays the same as long as nothing is rolled out or restarted by its pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolledState {
    revision: u64,
    pods: BTreeSet<String>,
}

/// One ContourDeployment.
#[derive(Clone)]
pub struct Edge {
    client: Client,
    namespace: String,
    name: String,
}

impl Edge {
    /// `namespace/name`, whether or not it exists.
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The labels that everything made for it carries, as a selector.
    pub fn selector(&self) -> String {
        format!("{OWNER_NAME}={},{OWNER_NAMESPACE}={}", self.name, self.namespace)
    }

    fn api(&self) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("contour.slipway.dev", "v1alpha1", "ContourDeployment");
        Api::namespaced_with(self.client.clone(), &self.namespace, &ApiResource::from_gvk(&kind))
    }

    /// Its status, empty before there is one.
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

    /// Asks for its deletion; one that is gone is fine.
    pub async fn delete(&self) -> anyhow::Result<()> {
        match self.api().delete(&self.name, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(error).context("deleting the ContourDeployment"),
        }
    }

    /// The pods of one component.
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

    /// How often Contour's Deployment was rolled: its revision. 0 if it does not exist.
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

    /// What a rollout would change: Contour's revision and the uids of all pods that are not ending.
    pub async fn rolled_state(&self) -> anyhow::Result<RolledState> {
        let mut pods = self.pods(Component::Contour).await?.uids();
        pods.extend(self.pods(Component::Envoy).await?.uids());
        Ok(RolledState {
            revision: self.revision().await?,
            pods,
        })
    }

    /// Whether its status is current and all its pods are ready, those of earlier templates gone.
    pub async fn look_settled(&self) -> anyhow::Result<Look<Status>> {
        let status = self.status().await?;
        let contour = self.pods(Component::Contour).await?;
        let envoy = self.pods(Component::Envoy).await?;
        let settled = status.is_current() && contour.all_ready() && contour.ending == 0 && envoy.all_ready();
        if settled {
            return Ok(Look::Reached(status));
        }
        let ending = if contour.ending > 0 {
            format!(" ({} ending)", contour.ending)
        } else {
            String::new()
        };
        Ok(Look::NotYet(format!(
            "{status}; Contour {contour}{ending}; Envoy {envoy}"
        )))
    }
}
