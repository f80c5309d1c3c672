//! The operator's process in the host's /proc: the binary of the image, in its container.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};
use slipway_e2e::installation::SLIPWAY_NAMESPACE;
use slipway_e2e::wait::{Look, Wait};

/// A running operator.
#[derive(Debug)]
pub struct Operator(PathBuf);

/// The resident memory of the operator, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// The whole resident memory (`VmRSS`).
    pub resident: u64,
    /// The resident memory without the pages of the binary, which the kernel may drop (`RssAnon`).
    pub anonymous: u64,
    /// The highest resident memory so far (`VmHWM`).
    pub peak: u64,
}

impl Operator {
    /// Waits until exactly one operator pod exists and is ready, and returns its process.
    pub async fn find(client: &Client) -> anyhow::Result<Self> {
        let pods = Api::<Pod>::namespaced(client.clone(), SLIPWAY_NAMESPACE);
        let selector = ListParams::default().labels("app.kubernetes.io/name=slipway");
        Wait::for_it("exactly one operator runs and is ready")
            .silently()
            .until(async || {
                let list = pods.list(&selector).await.context("listing Slipway's pods")?;
                let [pod] = list.items.as_slice() else {
                    return Ok(Look::NotYet(format!("{} pods", list.items.len())));
                };
                let Some(container) = ready_container(pod) else {
                    return Ok(Look::NotYet("the pod is not ready".to_owned()));
                };
                Ok(process_of(&container).map_or_else(
                    || Look::NotYet(format!("container {container} has no process")),
                    |process| Look::Reached(Self(process)),
                ))
            })
            .await
    }

    /// Returns the present memory.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        let status = fs::read_to_string(self.0.join("status")).context("the operator's process no longer exists")?;
        let bytes = |field: &str| {
            let value = status
                .lines()
                .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
            let kib = value.and_then(|value| value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
            kib.map(|kib| kib * 1024)
                .with_context(|| format!("the process status has no {field}"))
        };
        Ok(Memory {
            resident: bytes("VmRSS")?,
            anonymous: bytes("RssAnon")?,
            peak: bytes("VmHWM")?,
        })
    }

    /// Returns the CPU time of the present threads. The source is `schedstat`, which counts nanoseconds. `stat` counts hundredths of a
    /// second, which is too coarse for an idle process.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let mut nanos = 0;
        for task in fs::read_dir(self.0.join("task")).context("the operator's process no longer exists")? {
            // A thread may exit meanwhile.
            let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            nanos += text
                .split_whitespace()
                .next()
                .and_then(|first| first.parse::<u64>().ok())
                .unwrap_or(0);
        }
        Ok(Duration::from_nanos(nanos))
    }
}

/// Returns the id of the pod's container, or None if the container is not ready.
fn ready_container(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    let (_, id) = status.container_id.as_ref()?.split_once("://")?;
    (status.ready && pod.metadata.deletion_timestamp.is_none()).then(|| id.to_owned())
}

/// Returns the process in the cgroup of this container. The cgroup has only one process.
fn process_of(container: &str) -> Option<PathBuf> {
    let is_process = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let folders = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    folders.map(|folder| folder.path()).find(|path| {
        is_process(path) && fs::read_to_string(path.join("cgroup")).is_ok_and(|text| text.contains(container))
    })
}
