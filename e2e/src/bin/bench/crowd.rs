//! A crowd of ContourDeployments whose pods match no node. Their pods stay Pending, so the benchmark measures the operator, the API server
//! and the controllers, but not the start of pods. Each references an ExtensionService that does not exist, so stand-ins are included.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use slipway_e2e::edge::OWNER_NAME;
use slipway_e2e::leftovers;
use slipway_e2e::wait::{Look, Wait};

use crate::baseline::create_namespace;

/// The number of parallel requests of the benchmark.
const AT_ONCE: usize = 8;

/// A number of ContourDeployments in some namespaces.
pub struct Crowd {
    client: Client,
    /// Namespace and name of each.
    members: Vec<(String, String)>,
}

impl Crowd {
    /// Creates `namespaces` namespaces called `prefix-0`, `prefix-1`, …, for `count` ContourDeployments. Does not create these yet.
    pub async fn prepare(client: &Client, prefix: &str, count: usize, namespaces: usize) -> anyhow::Result<Self> {
        for number in 0..namespaces {
            create_namespace(client, &format!("{prefix}-{number}")).await?;
        }
        let members = (0..count)
            .map(|number| (format!("{prefix}-{}", number % namespaces), format!("edge-{number}")))
            .collect();
        Ok(Self {
            client: client.clone(),
            members,
        })
    }

    /// Returns the number of ContourDeployments.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Creates the ContourDeployments.
    pub async fn create(&self) -> anyhow::Result<()> {
        let requests = self.members.iter().map(|(namespace, name)| {
            let api = self.api(namespace);
            async move {
                let object = contour_deployment(namespace, name)?;
                let created = api.create(&PostParams::default(), &object).await;
                created.with_context(|| format!("creating ContourDeployment {namespace}/{name}"))
            }
        });
        stream::iter(requests)
            .buffer_unordered(AT_ONCE)
            .try_for_each(async |_| Ok(()))
            .await
    }

    /// Waits until each has its Envoy workload, the last of its objects.
    pub async fn until_built(&self, limit: Duration) -> anyhow::Result<()> {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", "DaemonSet"));
        let envoys = Api::<DynamicObject>::all_with(self.client.clone(), &kind);
        let ours = ListParams::default().labels(OWNER_NAME);
        Wait::for_it(format!("{} Envoy workloads exist", self.len()))
            .within(limit)
            .every(Duration::from_millis(if self.len() == 1 { 20 } else { 500 }))
            .silently()
            .until(async || {
                let list = envoys.list_metadata(&ours).await?;
                let count = list.iter().filter(|it| it.name_any().ends_with("-envoy")).count();
                Ok(Look::when(count == self.len(), format!("{count} exist")))
            })
            .await
    }

    /// Deletes the ContourDeployments.
    pub async fn delete(&self) -> anyhow::Result<()> {
        let requests = self.members.iter().map(|(namespace, name)| {
            let api = self.api(namespace);
            async move {
                let deleted = api.delete(name, &DeleteParams::default()).await;
                deleted.with_context(|| format!("deleting ContourDeployment {namespace}/{name}"))
            }
        });
        stream::iter(requests)
            .buffer_unordered(AT_ONCE)
            .try_for_each(async |_| Ok(()))
            .await
    }

    /// Waits until no ContourDeployment exists.
    pub async fn until_gone(&self, limit: Duration) -> anyhow::Result<()> {
        let api = Api::<DynamicObject>::all_with(self.client.clone(), &kind());
        Wait::for_it("no ContourDeployment is left")
            .within(limit)
            .every(Duration::from_millis(if self.len() == 1 { 20 } else { 250 }))
            .silently()
            .until(async || {
                let count = api.list_metadata(&ListParams::default()).await?.items.len();
                Ok(Look::when(count == 0, format!("{count} are left")))
            })
            .await
    }

    /// Waits until no object of any kind in the cluster has Slipway's label.
    pub async fn until_nothing_is_left(&self, limit: Duration) -> anyhow::Result<()> {
        let mut kinds = leftovers::listable_kinds(&self.client).await?;
        kinds.retain(|kind| kind.kind != "Event");
        let ours = ListParams::default().labels(OWNER_NAME);
        Wait::for_it("no object of the ContourDeployments is left")
            .within(limit)
            .every(Duration::from_millis(250))
            .silently()
            .until(async || {
                let mut left = BTreeMap::new();
                for kind in &kinds {
                    let api = Api::<DynamicObject>::all_with(self.client.clone(), kind);
                    let count = match api.list_metadata(&ours).await {
                        Ok(list) => list.items.len(),
                        // The kind can be listed only under some condition.
                        Err(kube::Error::Api(status)) if [404, 405].contains(&status.code) => 0,
                        Err(error) => return Err(error).with_context(|| format!("listing {}", kind.plural)),
                    };
                    if count > 0 {
                        left.insert(kind.kind.clone(), count);
                    }
                }
                Ok(Look::when(left.is_empty(), format!("{left:?}")))
            })
            .await
    }

    /// Deletes the namespaces. Does not wait until they no longer exist.
    pub async fn delete_namespaces(self) -> anyhow::Result<()> {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Namespace"));
        let api = Api::<DynamicObject>::all_with(self.client.clone(), &kind);
        let mut names: Vec<_> = self.members.iter().map(|(namespace, _)| namespace).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            api.delete(name, &DeleteParams::default())
                .await
                .with_context(|| format!("deleting namespace {name}"))?;
        }
        Ok(())
    }

    fn api(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &kind())
    }
}

/// Returns the names of all ContourDeployments.
pub async fn present(client: &Client) -> anyhow::Result<Vec<String>> {
    let api = Api::<DynamicObject>::all_with(client.clone(), &kind());
    let list = api.list_metadata(&ListParams::default()).await;
    let list = list.context("listing ContourDeployments")?;
    Ok(list.iter().map(ResourceExt::name_any).collect())
}

fn kind() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(
        "contour.slipway.dev",
        "v1alpha1",
        "ContourDeployment",
    ))
}

fn contour_deployment(namespace: &str, name: &str) -> anyhow::Result<DynamicObject> {
    let nowhere = json!({"nodeSelector": {"slipway-bench": "no-such-node"}});
    serde_json::from_value(json!({
        "apiVersion": "contour.slipway.dev/v1alpha1",
        "kind": "ContourDeployment",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "contour": {"deployment": {"replicas": 1}, "nodePlacement": nowhere},
            "envoy": {"nodePlacement": nowhere, "networkPublishing": {"type": "ClusterIPService"}},
            "runtimeSettings": {"globalExtAuth": {"extensionRef": {"namespace": namespace, "name": "auth"}}},
        },
    }))
    .context("a ContourDeployment")
}
