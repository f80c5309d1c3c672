//! A stand-in for Contour on an API server without nodes. The stand-in does what Slipway can observe.
//!
//! At its start the stand-in reads the same objects as the real Contour, and exits if they do not exist. While one of its pods is ready,
//! the stand-in writes a verdict on every `ExtensionService`. The stand-in checks all of them again when a pod starts or when the
//! generation of one of them changes. A change of a Service that they reference does not trigger a check (v1.33,
//! `internal/dag/cache.go`, `serviceTriggersRebuild`).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::edge::{COMPONENT, Component};
use crate::lab::players::{Verdict, is_running, running, verdict};

/// The interval between rounds. The real Contour needs about 18 ms for a verdict, but no test depends on that time.
const PACE: Duration = Duration::from_millis(100);

/// A stand-in for the kubelet of a namespace, and for Contour in Contour's pods, until this value is dropped.
///
/// A pod of Contour becomes ready once it has started. The start never waits for a verdict, because verdicts come from ready pods.
#[derive(Debug)]
pub struct Contour {
    task: JoinHandle<()>,
    exits: Arc<Mutex<BTreeSet<String>>>,
}

impl Contour {
    /// Starts the stand-in for the pods of a namespace. It writes verdicts on every `ExtensionService` of the cluster.
    pub fn of(client: &Client, namespace: &str) -> Self {
        Self::among(client, Api::namespaced(client.clone(), namespace))
    }

    /// Starts the stand-in for the pods of all namespaces.
    pub fn everywhere(client: &Client) -> Self {
        Self::among(client, Api::all(client.clone()))
    }

    fn among(client: &Client, pods: Api<Pod>) -> Self {
        let exits = Arc::<Mutex<BTreeSet<String>>>::default();
        let mut player = ContourPlayer {
            client: client.clone(),
            pods,
            exits: Arc::clone(&exits),
            looked_at: None,
        };
        let task = tokio::spawn(async move {
            let mut round = tokio::time::interval(PACE);
            loop {
                round.tick().await;
                // The next round retries after any error.
                let _ = player.play().await;
            }
        });
        Self { task, exits }
    }

    /// Returns the containers of Contour that exited at their start since the last call, and the reasons.
    pub fn exits(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.exits.lock().expect("the lock is not poisoned"))
    }
}

impl Drop for Contour {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct ContourPlayer {
    client: Client,
    pods: Api<Pod>,
    exits: Arc<Mutex<BTreeSet<String>>>,
    /// The ExtensionServices with a verdict and the running pods of Contour, or None if a verdict could not be written.
    looked_at: Option<BTreeSet<Trigger>>,
}

/// The uid and generation of an object. A change of this set triggers a check of all ExtensionServices.
type Trigger = (Option<String>, Option<i64>);

impl ContourPlayer {
    async fn play(&mut self) -> anyhow::Result<()> {
        let mut started = BTreeSet::<Trigger>::new();
        for pod in self.pods.list(&ListParams::default()).await? {
            let its = Api::<Pod>::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
            let is_contour = pod
                .labels()
                .get(COMPONENT)
                .is_some_and(|value| value == Component::Contour.label());
            if !is_running(&pod) {
                if is_contour && let Some(why) = self.exits_at_start(&pod).await? {
                    // If the pod was deleted, its objects may have been deleted with it; then no container has started.
                    let now = its.get_opt(&pod.name_any()).await?;
                    if now.is_some_and(|now| now.uid() == pod.uid()) {
                        let exit = format!("{} exited: {why}", pod.name_any());
                        self.exits.lock().expect("the lock is not poisoned").insert(exit);
                    }
                    continue;
                }
                its.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(running()))
                    .await?;
            }
            if is_contour && pod.metadata.deletion_timestamp.is_none() {
                started.insert((pod.uid(), None));
            }
        }
        if started.is_empty() {
            self.looked_at = None;
            return Ok(());
        }
        self.judge(started).await
    }

    /// Returns the reason why the container of a pod exits, or None. The container exits if its configuration does not exist, or an
    /// ExtensionService that the configuration references (v1.33, `getExtensionSvcConfig`).
    async fn exits_at_start(&self, pod: &Pod) -> anyhow::Result<Option<String>> {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let mut arguments = containers.flat_map(|container| container.args.iter().flatten());
        let Some(name) = arguments.find_map(|argument| argument.strip_prefix("--contour-config-name=")) else {
            return Ok(Some("the arguments name no configuration".to_owned()));
        };
        let namespace = pod.namespace().unwrap_or_default();
        let Some(configuration) = self.get("ContourConfiguration", &namespace, name).await? else {
            return Ok(Some(format!("ContourConfiguration {name} does not exist")));
        };
        let references = [
            "/spec/globalExtAuth/extensionRef",
            "/spec/rateLimitService/extensionService",
            "/spec/tracing/extensionService",
        ];
        for reference in references.iter().filter_map(|path| configuration.data.pointer(path)) {
            let part = |field: &str| reference[field].as_str().unwrap_or_default().to_owned();
            let (namespace, name) = (part("namespace"), part("name"));
            if self.get("ExtensionService", &namespace, &name).await?.is_none() {
                return Ok(Some(format!("ExtensionService {namespace}/{name} does not exist")));
            }
        }
        Ok(None)
    }

    async fn get(&self, kind: &str, namespace: &str, name: &str) -> anyhow::Result<Option<DynamicObject>> {
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &resource(kind));
        api.get_opt(name)
            .await
            .with_context(|| format!("reading {kind} {name}"))
    }

    /// Writes a verdict on each `ExtensionService` that lacks the present verdict, if a check was triggered.
    async fn judge(&mut self, started: BTreeSet<Trigger>) -> anyhow::Result<()> {
        let all = Api::<DynamicObject>::all_with(self.client.clone(), &resource("ExtensionService"));
        let list = all.list(&ListParams::default()).await?;
        let mut triggers = started;
        triggers.extend(list.iter().map(|object| (object.uid(), object.metadata.generation)));
        if self.looked_at.as_ref() == Some(&triggers) {
            return Ok(());
        }
        self.looked_at = None;
        let mut all_said = true;
        let services = Api::<Service>::all(self.client.clone());
        let services = services.list(&ListParams::default()).await?.items;
        for object in list {
            let is_resolved = resolves(&object, &services);
            if is_judged(&object, is_resolved) {
                continue;
            }
            let said = if is_resolved {
                Verdict::Valid
            } else {
                Verdict::Invalid("ServiceUnresolvedReference")
            };
            // The patch applies only to the version that was checked; the next round checks a newer version.
            let mut patch = verdict(object.metadata.generation.unwrap_or_default(), said);
            patch["metadata"] = json!({"resourceVersion": object.metadata.resource_version});
            let namespace = object.namespace().unwrap_or_default();
            let its =
                Api::<DynamicObject>::namespaced_with(self.client.clone(), &namespace, &resource("ExtensionService"));
            // An ExtensionService that was just changed or deleted must not block the verdicts on the others.
            let said = its
                .patch_status(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch))
                .await;
            all_said &= said.is_ok();
        }
        self.looked_at = all_said.then_some(triggers);
        Ok(())
    }
}

/// Returns the resource of one of Contour's kinds.
fn resource(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("projectcontour.io", "v1alpha1", kind))
}

/// Reports whether each referenced Service exists in the cluster with the referenced port.
fn resolves(object: &DynamicObject, services: &[Service]) -> bool {
    let mut wanted = object.data["spec"]["services"].as_array().into_iter().flatten();
    wanted.all(|wanted| {
        let its = |service: &&Service| {
            service.namespace() == object.namespace() && Some(service.name_any().as_str()) == wanted["name"].as_str()
        };
        let Some(spec) = services.iter().find(its).and_then(|service| service.spec.as_ref()) else {
            return false;
        };
        let mut ports = spec.ports.iter().flatten();
        spec.type_.as_deref() != Some("ExternalName") && ports.any(|port| wanted["port"] == port.port)
    })
}

/// Reports whether the present generation already has this verdict.
fn is_judged(object: &DynamicObject, is_valid: bool) -> bool {
    let mut conditions = object.data["status"]["conditions"].as_array().into_iter().flatten();
    let its = |condition: &&Value| condition["type"] == "Valid";
    conditions.find(its).is_some_and(|valid| {
        valid["observedGeneration"] == json!(object.metadata.generation)
            && valid["status"] == if is_valid { "True" } else { "False" }
    })
}
