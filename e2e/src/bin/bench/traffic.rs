//! The sample ContourDeployment with traffic. Measures the time until a new service is enforced, and the time from the opening of the gate
//! between Contour's and Envoy's rollout until Envoy is written.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures::stream::{BoxStream, SelectAll};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::{
    ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, WatchEvent, WatchParams,
};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use slipway_e2e::cluster::Cluster;
use slipway_e2e::edge::{COMPONENT, Component, Edge, OWNER_NAME};
use slipway_e2e::hosts::Hosts;
use slipway_e2e::installation::{self, AuthService};
use slipway_e2e::narration::say;
use slipway_e2e::probe::Caller;
use slipway_e2e::wait::{Look, Wait};
use slipway_e2e::{leftovers, places};
use tokio::time::{Instant, timeout};

use slipway_e2e::numbers::millis;

/// The time limit for steps that start pods: the pods may occupy both cores of the machine.
const ROLLOUT: Duration = Duration::from_mins(3);
/// The time limit for watch events.
const NOTICED: Duration = Duration::from_secs(30);

/// The sample `projectcontour/edge`, settled, with its authorization server ready and no ExtensionService.
pub struct Traffic {
    client: Client,
    edge: Edge,
    hosts: Hosts,
    service: AuthService,
}

/// One reaction. Each duration starts at the creation request of the ExtensionService.
#[derive(Clone, Copy, Debug)]
pub struct Reaction {
    /// The time until Contour's verdict on the user's object is valid.
    pub verdict: Duration,
    /// The time until the stand-in has the copy.
    pub copied: Duration,
    /// The time until both hosts enforce checks.
    pub enforced: Duration,
}

impl Traffic {
    /// Creates the sample, and waits until both hosts deny all requests.
    pub async fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        let client = cluster.client().await?;
        let authority = installation::backend(cluster).await?;
        installation::auth_server(cluster).await?;
        let sample = places::sample("contourdeployment.yaml");
        cluster
            .kubectl()
            .apply_file(&sample)
            .await
            .context("applying the sample")?;
        let edge = Edge::new(client.clone(), "projectcontour", "edge");
        let hosts = Hosts::behind(&client, "projectcontour", "edge-envoy", &authority).await?;
        let service = AuthService::new(&client)?;
        let traffic = Self {
            client,
            edge,
            hosts,
            service,
        };
        traffic.until_denied().await?;
        Ok(traffic)
    }

    /// Creates the ExtensionService, measures the reaction, and deletes the ExtensionService.
    pub async fn reaction(&self) -> anyhow::Result<Reaction> {
        let kind = GroupVersionKind::gvk("projectcontour.io", "v1alpha1", "ExtensionService");
        let objects = Api::all_with(self.client.clone(), &ApiResource::from_gvk(&kind));
        let mut events = follow(&objects, &ListParams::default()).await?;
        let sent = self.service.create().await?;
        let ((verdict, copied), enforced) = tokio::try_join!(
            async {
                timeout(NOTICED, verdict_and_copy(&mut events))
                    .await
                    .context("the watch did not report the verdict and the copy")?
            },
            self.hosts.enforced_since(sent),
        )?;
        let reaction = Reaction {
            verdict: verdict.duration_since(sent),
            copied: copied.duration_since(sent),
            enforced,
        };
        say(format!(
            "valid after {:.1} ms, copied after {:.1} ms, enforced on both hosts after {:.1} ms",
            millis(reaction.verdict),
            millis(reaction.copied),
            millis(reaction.enforced)
        ));
        self.until_settled("Ready", "True").await?;
        self.service.delete().await?;
        self.until_denied().await?;
        Ok(reaction)
    }

    /// Changes both log levels, so that Contour is rolled out and Envoy waits for that rollout. Returns the time from the gate's opening to
    /// the change of Envoy's DaemonSet, as watches of this process report them.
    ///
    /// The gate is open under the operator's own condition: Contour's Deployment is complete and available, and its old pods no longer
    /// exist. Returns None if the watches reported the write first. Separate watches do not preserve the order of close events.
    pub async fn gate(&self, levels: [&str; 2]) -> anyhow::Result<Option<Duration>> {
        self.until_settled("Ready", "False").await?;
        let mut seen = ContourState {
            old: self.edge.pods(Component::Contour).await?.uids(),
            before: self.generation("Deployment", "edge-contour").await?,
            ..ContourState::default()
        };
        let envoy = self.generation("DaemonSet", "edge-envoy").await?;
        let everything = ListParams::default();
        let pods = everything.clone().labels(&format!(
            "{},{COMPONENT}={}",
            self.edge.selector(),
            Component::Contour.label()
        ));
        let mut events = SelectAll::new();
        events.push(follow(&self.workloads("Deployment"), &everything).await?);
        events.push(follow(&self.workloads("DaemonSet"), &everything).await?);
        events.push(follow(&self.pods(), &pods).await?);
        self.set_log_levels(levels).await?;

        let mut open_since = None;
        let written = timeout(ROLLOUT, async {
            while let Some(event) = events.next().await {
                let event = event?;
                let now = Instant::now();
                if let Event::Present(object) = &event
                    && object.name_any() == "edge-envoy"
                {
                    if object.metadata.generation > Some(envoy) {
                        return Ok(now);
                    }
                    continue;
                }
                seen.note(event);
                open_since = seen.is_open().then(|| open_since.unwrap_or(now));
            }
            bail!("the watches ended")
        });
        let written = written.await.context("Envoy was not written")??;
        let taken: Option<Duration> = open_since.map(|open: Instant| written.duration_since(open));
        say(match taken {
            Some(taken) => format!("Envoy was written {:.1} ms after the gate opened", millis(taken)),
            None => "Envoy was written when the gate opened; the watches cannot measure the time between".to_owned(),
        });
        Ok(taken)
    }

    /// Deletes the sample and waits until none of its objects is left. Does not wait for the deletion of its namespaces.
    pub async fn end(self, cluster: &Cluster) -> anyhow::Result<()> {
        self.edge.delete().await?;
        Wait::for_it("no object of the sample is left")
            .within(ROLLOUT)
            .silently()
            .until(async || {
                let left: Vec<_> = leftovers::of(&self.client, &self.edge).await?.into_iter().collect();
                Ok(Look::when(left.is_empty(), left.join(", ")))
            })
            .await?;
        let deletion = ["delete", "namespace", "projectcontour", "auth", "demo", "--wait=false"];
        cluster.kubectl().run(&deletion).await.map(drop)
    }

    async fn until_settled(&self, condition: &str, value: &str) -> anyhow::Result<()> {
        Wait::for_it(format!("the sample has settled with {condition} {value}"))
            .within(ROLLOUT)
            .silently()
            .until(async || {
                Ok(match self.edge.look_settled().await? {
                    Look::Reached(status) => Look::when(status.is(condition, value), status.to_string()),
                    Look::NotYet(seen) => Look::NotYet(seen),
                })
            })
            .await
    }

    async fn until_denied(&self) -> anyhow::Result<()> {
        self.until_settled("Ready", "False").await?;
        Wait::for_it("both hosts deny all requests")
            .silently()
            .until(async || {
                let both = self.hosts.get(Caller::Authorized).await;
                Ok(Look::when(both.are(403), both.to_string()))
            })
            .await
    }

    async fn set_log_levels(&self, [contour, envoy]: [&str; 2]) -> anyhow::Result<()> {
        let kind = GroupVersionKind::gvk("contour.slipway.dev", "v1alpha1", "ContourDeployment");
        let api = Api::<DynamicObject>::namespaced_with(
            self.client.clone(),
            self.edge.namespace(),
            &ApiResource::from_gvk(&kind),
        );
        let patch = json!({"spec": {"contour": {"logLevel": contour}, "envoy": {"logLevel": envoy}}});
        api.patch(self.edge.name(), &PatchParams::default(), &Patch::Merge(patch))
            .await
            .context("changing log levels")?;
        Ok(())
    }

    async fn generation(&self, kind: &str, name: &str) -> anyhow::Result<i64> {
        let object = self.workloads(kind).get(name).await;
        let object = object.with_context(|| format!("reading {kind} {name}"))?;
        Ok(object.metadata.generation.unwrap_or(0))
    }

    fn workloads(&self, kind: &str) -> Api<DynamicObject> {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", kind));
        Api::namespaced_with(self.client.clone(), self.edge.namespace(), &kind)
    }

    fn pods(&self) -> Api<DynamicObject> {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Pod"));
        Api::namespaced_with(self.client.clone(), self.edge.namespace(), &kind)
    }
}

/// One watch event.
enum Event {
    Present(Box<DynamicObject>),
    Gone(Box<DynamicObject>),
}

/// Returns the events from now on.
async fn follow(
    api: &Api<DynamicObject>,
    what: &ListParams,
) -> anyhow::Result<BoxStream<'static, anyhow::Result<Event>>> {
    let list = api.list_metadata(&what.clone().limit(1)).await.context("listing")?;
    let version = list.metadata.resource_version.context("a list without a version")?;
    let mut parameters = WatchParams::default();
    parameters.label_selector.clone_from(&what.label_selector);
    let events = api.watch(&parameters, &version).await.context("starting a watch")?;
    let events = events.map_err(anyhow::Error::from).try_filter_map(async |event| {
        Ok(match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => Some(Event::Present(Box::new(object))),
            WatchEvent::Deleted(object) => Some(Event::Gone(Box::new(object))),
            WatchEvent::Bookmark(_) => None,
            WatchEvent::Error(status) => bail!("a watch failed: {}", status.message),
        })
    });
    Ok(events.boxed())
}

/// Returns the times of Contour's verdict on the user's ExtensionService and of a stand-in's copy of its services.
async fn verdict_and_copy(
    events: &mut BoxStream<'static, anyhow::Result<Event>>,
) -> anyhow::Result<(Instant, Instant)> {
    let (mut verdict, mut wanted) = (None, Value::Null);
    while let Some(event) = events.next().await {
        let Event::Present(object) = event? else { continue };
        let now = Instant::now();
        let services = &object.data["spec"]["services"];
        if !object.labels().contains_key(OWNER_NAME) {
            wanted.clone_from(services);
            if verdict.is_none() && is_valid(&object) {
                verdict = Some(now);
            }
        } else if let Some(verdict) = verdict
            && *services == wanted
        {
            return Ok((verdict, now));
        } else {
            ensure!(*services != wanted, "a stand-in has a copy before Contour's verdict");
        }
    }
    bail!("the watch ended")
}

/// Reports whether Contour's verdict on the present generation is valid.
fn is_valid(object: &DynamicObject) -> bool {
    let conditions = object.data["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| {
        condition["type"] == "Valid"
            && condition["status"] == "True"
            && condition["observedGeneration"].as_i64() == object.metadata.generation
    })
}

/// The state of Contour, as the watches reported it.
#[derive(Default)]
struct ContourState {
    before: i64,
    old: BTreeSet<String>,
    complete: bool,
}

impl ContourState {
    fn note(&mut self, event: Event) {
        match event {
            Event::Gone(object) => {
                self.old.remove(&object.uid().unwrap_or_default());
            }
            Event::Present(object) if object.name_any() == "edge-contour" => self.complete = self.is_complete(&object),
            // The operator also treats a pod in its final phase like a deleted pod.
            Event::Present(object) => {
                if let Some("Succeeded" | "Failed") = object.data["status"]["phase"].as_str() {
                    self.old.remove(&object.uid().unwrap_or_default());
                }
            }
        }
    }

    fn is_open(&self) -> bool {
        self.complete && self.old.is_empty()
    }

    fn is_complete(&self, deployment: &DynamicObject) -> bool {
        let generation = deployment.metadata.generation;
        let (spec, status) = (&deployment.data["spec"], &deployment.data["status"]);
        let available = status["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|condition| condition["type"] == "Available" && condition["status"] == "True");
        generation > Some(self.before)
            && status["observedGeneration"].as_i64() == generation
            && status["updatedReplicas"] == spec["replicas"]
            && status["replicas"] == spec["replicas"]
            && available
    }
}
