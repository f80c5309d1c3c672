//! Executes a script and records each action before its execution.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use fastrand::Rng;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt as _};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::answers::Book;
use super::place::Place;
use super::restarts::Container;
use super::script::{Fault, Step};
use crate::edge::{COMPONENT, Component};
use crate::installation::SLIPWAY_NAMESPACE;
use crate::wait::{Look, Wait};

/// The restarts of a container after which its pod is deleted instead of killed. Kubelet restarts a container immediately after its first
/// exit, and 10 s after the second. Later pauses would grow to minutes.
const STARTED_AGAIN: i32 = 2;

/// The number of executions of each fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    /// Deleted pods of Contour.
    pub contours_deleted: u32,
    /// Killed processes of Contour.
    pub contours_crashed: u32,
    /// Faults of the operator: deleted pods, killed processes, and processes stopped for a time.
    pub operators: u32,
}

impl Faults {
    /// Adds other faults.
    pub fn add(&mut self, other: Self) {
        self.contours_deleted += other.contours_deleted;
        self.contours_crashed += other.contours_crashed;
        self.operators += other.operators;
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} Contour pods deleted, {} Contour processes killed, the operator killed, replaced or stopped {} times",
            self.contours_deleted, self.contours_crashed, self.operators
        )
    }
}

/// The executor of a script.
pub struct Player<'a> {
    place: &'a Place<'a>,
    book: Arc<Book>,
    rng: Rng,
    thaws: Vec<Child>,
    /// The executed faults.
    pub faults: Faults,
    /// The killed containers of Contour, one entry for each kill.
    pub crashes: Vec<Container>,
}

/// The pods of a Deployment.
#[derive(Clone)]
struct Deployment {
    pods: Api<Pod>,
    selector: String,
}

impl<'a> Player<'a> {
    /// Returns a player that chooses victims by this seed.
    pub fn new(place: &'a Place<'a>, book: Arc<Book>, seed: u64) -> Self {
        Self {
            place,
            book,
            rng: Rng::with_seed(seed),
            thaws: Vec::new(),
            faults: Faults::default(),
            crashes: Vec::new(),
        }
    }

    /// Executes one step.
    pub async fn step(&mut self, step: Step) -> anyhow::Result<()> {
        match step {
            Step::Pause(time) => {
                sleep(time).await;
                return Ok(());
            }
            Step::Disturb(fault) => {
                self.book.fault(step.to_string());
                return self.disturb(fault).await.with_context(|| step.to_string());
            }
            Step::Create(_) | Step::Edit(_) | Step::Delete => self.book.service(step.to_string()),
        }
        match step {
            Step::Create(form) => self.place.create(form).await,
            Step::Edit(form) => self.place.edit(form).await,
            _ => {
                self.place.delete().await?;
                self.book.deleted();
                Ok(())
            }
        }
    }

    /// Waits until every stopped process has been continued.
    pub async fn thawed(&mut self) -> anyhow::Result<()> {
        for mut thaw in self.thaws.drain(..) {
            ensure!(thaw.wait().await?.success(), "a stopped process could not be continued");
        }
        Ok(())
    }

    async fn disturb(&mut self, fault: Fault) -> anyhow::Result<()> {
        match fault {
            Fault::DeleteContour => {
                self.faults.contours_deleted += 1;
                self.contour().delete_one(&mut self.rng).await
            }
            Fault::CrashContour => {
                let victim = self.contour().kill_one(self.place, &mut self.rng).await?;
                if let Some(container) = victim {
                    self.crashes.push(container);
                    self.faults.contours_crashed += 1;
                } else {
                    self.faults.contours_deleted += 1;
                }
                Ok(())
            }
            Fault::ReplaceOperator => {
                self.faults.operators += 1;
                self.operator().delete_one(&mut self.rng).await
            }
            Fault::CrashOperator => {
                self.faults.operators += 1;
                self.operator().kill_one(self.place, &mut self.rng).await.map(drop)
            }
            Fault::FreezeOperator(time) => {
                self.faults.operators += 1;
                let (_, pid) = self.operator().running(self.place, &mut self.rng).await?;
                // A separate process continues the operator even if this process dies.
                let thaw = Command::new("/bin/sh")
                    .args(["-c", r#"kill -STOP "$0" && sleep "$1"; kill -CONT "$0" || true"#, &pid])
                    .arg(time.as_secs_f64().to_string())
                    .spawn()
                    .context("stopping the operator")?;
                self.thaws.push(thaw);
                Ok(())
            }
        }
    }

    fn contour(&self) -> Deployment {
        let edge = &self.place.edge;
        Deployment {
            pods: Api::namespaced(self.place.client.clone(), edge.namespace()),
            selector: format!("{},{COMPONENT}={}", edge.selector(), Component::Contour.label()),
        }
    }

    fn operator(&self) -> Deployment {
        Deployment {
            pods: Api::namespaced(self.place.client.clone(), SLIPWAY_NAMESPACE),
            selector: "app.kubernetes.io/name=slipway,app.kubernetes.io/component=operator".to_owned(),
        }
    }
}

impl Deployment {
    /// Returns a random pod that runs and is not terminating.
    async fn one(&self, rng: &mut Rng) -> anyhow::Result<Pod> {
        Wait::for_it(format!("a pod runs ({})", self.selector))
            .every(Duration::from_millis(50))
            .silently()
            .until(async || {
                let list = self.pods.list(&ListParams::default().labels(&self.selector)).await?;
                let mut running: Vec<_> = list.items.into_iter().filter(is_running).collect();
                if running.is_empty() {
                    return Ok(Look::NotYet("no pod runs".to_owned()));
                }
                running.sort_by_key(|pod| (pod.creation_timestamp(), pod.name_any()));
                let chosen = rng.usize(..running.len());
                Ok(Look::Reached(running.swap_remove(chosen)))
            })
            .await
    }

    async fn delete_one(&self, rng: &mut Rng) -> anyhow::Result<()> {
        let pod = self.one(rng).await?;
        self.pods
            .delete(&pod.name_any(), &DeleteParams::default())
            .await
            .with_context(|| format!("deleting pod {}", pod.name_any()))
            .map(drop)
    }

    /// Kills the process of a random pod and returns its container. Deletes the pod instead, and returns None, if the container has already
    /// restarted [`STARTED_AGAIN`] times.
    async fn kill_one(&self, place: &Place<'_>, rng: &mut Rng) -> anyhow::Result<Option<Container>> {
        let (pod, pid) = self.running(place, rng).await?;
        if restarts(&pod) >= STARTED_AGAIN {
            self.pods
                .delete(&pod.name_any(), &DeleteParams::default())
                .await
                .with_context(|| format!("deleting pod {}", pod.name_any()))?;
            return Ok(None);
        }
        let sent = Command::new("kill")
            .args(["-s", "KILL", &pid])
            .status()
            .await
            .context("running kill")?;
        ensure!(sent.success(), "kill: {sent}");
        Ok(Some(Container {
            pod: pod.uid().unwrap_or_default(),
            name: container(&pod).map(|status| status.name.clone()).unwrap_or_default(),
        }))
    }

    /// Returns a random running pod with the process id of its container.
    async fn running(&self, place: &Place<'_>, rng: &mut Rng) -> anyhow::Result<(Pod, String)> {
        Wait::for_it(format!("a pod's process is found ({})", self.selector))
            .every(Duration::from_millis(50))
            .silently()
            .until(async || {
                let pod = self.one(rng).await?;
                let id = container(&pod)
                    .and_then(|status| status.container_id.clone())
                    .unwrap_or_default();
                // The container in the pod's status may have exited by now.
                Ok(match place.cluster.pid(&id).await {
                    Ok(pid) => Look::Reached((pod, pid)),
                    Err(error) => Look::NotYet(format!("{error:#}")),
                })
            })
            .await
    }
}

/// Returns the status of the only container: Contour's pods and the operator's pods have one container.
fn container(pod: &Pod) -> Option<&k8s_openapi::api::core::v1::ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

fn is_running(pod: &Pod) -> bool {
    let running = container(pod).and_then(|status| status.state.as_ref()?.running.as_ref());
    pod.metadata.deletion_timestamp.is_none() && running.is_some()
}

fn restarts(pod: &Pod) -> i32 {
    container(pod).map_or(0, |status| status.restart_count)
}
