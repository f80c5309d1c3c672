//! The restarted containers of Contour and Envoy. The restarts that this proof caused are excluded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt as _};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::edge::Edge;
use crate::wait::{Look, Wait};

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Container {
    /// The pod's uid.
    pub pod: String,
    /// The container's name.
    pub name: String,
}

/// The recorded state of a container.
#[derive(Clone, Debug, Default)]
struct ContainerState {
    pod: String,
    before: i32,
    restarts: i32,
    /// The exit before each restart, as far as it was observed.
    ends: Vec<String>,
    is_gone: bool,
}

type ContainerStates = Arc<Mutex<BTreeMap<Container, ContainerState>>>;

/// A watch on the pods of a ContourDeployment. The watch also records restarts of pods that are deleted soon afterwards.
pub struct Restarts {
    recorded: ContainerStates,
    watch: JoinHandle<()>,
}

impl Restarts {
    /// Starts the watch.
    pub async fn watch(client: &Client, edge: &Edge) -> anyhow::Result<Self> {
        let api = Api::<Pod>::namespaced(client.clone(), edge.namespace());
        let selector = edge.selector();
        let recorded = ContainerStates::default();
        let version = relist(&api, &selector, &recorded).await?;
        for seen in recorded.lock().expect("the lock is not poisoned").values_mut() {
            seen.before = seen.restarts;
        }
        let watch = tokio::spawn(follow(api, selector, version, Arc::clone(&recorded)));
        Ok(Self { recorded, watch })
    }

    /// Waits until each of these crashes has caused a restart. Ignores crashes in pods that were deleted.
    pub async fn until_shown(&self, crashes: &[Container]) -> anyhow::Result<()> {
        Wait::for_it("every killed container has restarted")
            .silently()
            .until(async || {
                let recorded = self.recorded.lock().expect("the lock is not poisoned");
                let behind: Vec<_> = tallied(crashes)
                    .into_iter()
                    .filter(|(container, count)| {
                        recorded
                            .get(container)
                            .is_some_and(|seen| !seen.is_gone && seen.restarts - seen.before < *count)
                    })
                    .collect();
                Ok(Look::when(behind.is_empty(), format!("not yet: {behind:?}")))
            })
            .await
    }

    /// Returns descriptions of the restarts that these crashes do not explain.
    pub fn unexplained(&self, crashes: &[Container]) -> Vec<String> {
        let induced = tallied(crashes);
        let recorded = self.recorded.lock().expect("the lock is not poisoned");
        recorded
            .iter()
            .filter_map(|(container, seen)| {
                let ours = induced.get(container).copied().unwrap_or_default();
                let restarts = seen.restarts - seen.before;
                (restarts > ours).then(|| {
                    format!(
                        "{} of pod {} restarted {restarts} times, {ours} of them after a kill by this proof: {}",
                        container.name,
                        seen.pod,
                        seen.ends.join("; ")
                    )
                })
            })
            .collect()
    }
}

impl Drop for Restarts {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

fn tallied(crashes: &[Container]) -> BTreeMap<Container, i32> {
    let mut tally = BTreeMap::new();
    for crash in crashes {
        *tally.entry(crash.clone()).or_default() += 1;
    }
    tally
}

async fn relist(api: &Api<Pod>, selector: &str, recorded: &ContainerStates) -> anyhow::Result<String> {
    let list = api.list(&ListParams::default().labels(selector)).await;
    let list = list.context("listing pods")?;
    for pod in &list.items {
        note(recorded, pod);
    }
    list.metadata.resource_version.context("a list without a version")
}

async fn follow(api: Api<Pod>, selector: String, mut version: String, recorded: ContainerStates) {
    loop {
        let ended = follow_from(&api, &selector, &version, &recorded).await;
        // A watch usually ends without an error; after an error, waits a moment before the next request.
        if ended.is_err() {
            sleep(Duration::from_millis(100)).await;
        }
        if let Ok(next) = relist(&api, &selector, &recorded).await {
            version = next;
        }
    }
}

async fn follow_from(api: &Api<Pod>, selector: &str, version: &str, recorded: &ContainerStates) -> anyhow::Result<()> {
    let parameters = WatchParams::default().labels(selector);
    let mut events = Box::pin(api.watch(&parameters, version).await?);
    while let Some(event) = events.try_next().await? {
        match event {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) => note(recorded, &pod),
            WatchEvent::Deleted(pod) => {
                note(recorded, &pod);
                let uid = pod.uid().unwrap_or_default();
                let mut recorded = recorded.lock().expect("the lock is not poisoned");
                for (container, seen) in recorded.iter_mut() {
                    seen.is_gone |= container.pod == uid;
                }
            }
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(status) => anyhow::bail!("the watch failed: {}", status.message),
        }
    }
    Ok(())
}

fn note(recorded: &ContainerStates, pod: &Pod) {
    let mut recorded = recorded.lock().expect("the lock is not poisoned");
    let Some(status) = &pod.status else { return };
    let containers = [&status.init_container_statuses, &status.container_statuses];
    for container in containers.into_iter().flatten().flatten() {
        let key = Container {
            pod: pod.uid().unwrap_or_default(),
            name: container.name.clone(),
        };
        let seen = recorded.entry(key).or_default();
        seen.pod = pod.name_any();
        if container.restart_count > seen.restarts {
            seen.restarts = container.restart_count;
            seen.ends.push(end_of(container));
        }
    }
}

fn end_of(container: &ContainerStatus) -> String {
    let last = container
        .last_state
        .as_ref()
        .and_then(|state| state.terminated.as_ref());
    last.map_or("the exit was not observed".to_owned(), |end| {
        format!(
            "exit code {} ({})",
            end.exit_code,
            end.reason.as_deref().unwrap_or("no reason")
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(restarts: i32, exit_code: i32) -> Pod {
        let container = json!({
            "name": "contour", "image": "", "imageID": "", "ready": true, "restartCount": restarts,
            "lastState": {"terminated": {"exitCode": exit_code, "reason": "Error"}},
        });
        let pod = json!({"metadata": {"name": "a", "uid": "1"}, "status": {"containerStatuses": [container]}});
        serde_json::from_value(pod).expect("a pod")
    }

    #[tokio::test]
    async fn unexplained_excludes_restarts_of_killed_containers() {
        let recorded = ContainerStates::default();
        note(&recorded, &pod(1, 137));
        note(&recorded, &pod(2, 1));
        let watch = tokio::spawn(async {});
        let restarts = Restarts { recorded, watch };
        let crash = Container {
            pod: "1".to_owned(),
            name: "contour".to_owned(),
        };
        assert_eq!(
            restarts.unexplained(&[crash.clone(), crash.clone()]),
            Vec::<String>::new()
        );
        let unexplained = restarts.unexplained(&[crash]);
        assert!(unexplained[0].contains("exit code 1 (Error)"), "{unexplained:?}");
    }
}
