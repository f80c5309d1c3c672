//! A cluster of the testbed: either started and stopped by this process, or already running.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use anyhow::{Context as _, bail};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::process::Command;

use crate::kubectl::Kubectl;
use crate::narration::say;
use crate::{command, places};

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    name: String,
    kubeconfig: PathBuf,
    kubectl: Kubectl,
    end: Option<Stopper>,
}

impl Cluster {
    /// Installs missing programs, stops an earlier cluster of this name, and starts a new cluster.
    ///
    /// The cluster stops when this value is dropped, and also when this process dies in any way. With the environment variable
    /// `KEEP=1` the cluster keeps running.
    pub async fn start(name: &str) -> anyhow::Result<Self> {
        require_root()?;
        testbed(&["install"]).await?;
        testbed(&["down", name]).await?;
        let keep = std::env::var("KEEP").is_ok_and(|value| value == "1");
        let end = if keep { None } else { Some(Stopper::start(name)?) };
        testbed(&["up", name]).await?;
        let cluster = Self::of(name, end).await?;
        if keep {
            say(format!(
                "KEEP=1: cluster {name} keeps running; KUBECONFIG={}",
                cluster.kubeconfig.display()
            ));
        }
        Ok(cluster)
    }

    /// Returns a cluster that another process started and will stop.
    pub async fn attach(name: &str) -> anyhow::Result<Self> {
        Self::of(name, None).await
    }

    async fn of(name: &str, end: Option<Stopper>) -> anyhow::Result<Self> {
        let kubeconfig = PathBuf::from(testbed(&["kubeconfig", name]).await?.trim());
        let kubectl = Kubectl::new(PathBuf::from(testbed(&["path", "kubectl"]).await?.trim()), &kubeconfig);
        Ok(Self {
            name: name.to_owned(),
            kubeconfig,
            kubectl,
            end,
        })
    }

    /// Returns kubectl for this cluster.
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// Returns a new client with an administrator's rights. The client belongs to the Tokio runtime that this function runs in.
    pub async fn client(&self) -> anyhow::Result<Client> {
        self.client_as(None).await
    }

    /// Returns a new client that impersonates this user with these groups, or an administrator's client for None.
    pub async fn client_as(&self, whom: Option<(&str, &[&str])>) -> anyhow::Result<Client> {
        // A process has one default provider; a second call has no effect.
        drop(rustls::crypto::ring::default_provider().install_default());
        let file = Kubeconfig::read_from(&self.kubeconfig)
            .with_context(|| format!("reading {}", self.kubeconfig.display()))?;
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        let mut config = config.context("using the kubeconfig")?;
        if let Some((user, groups)) = whom {
            config.auth_info.impersonate = Some(user.to_owned());
            config.auth_info.impersonate_groups = Some(groups.iter().map(|group| (*group).to_owned()).collect());
        }
        Client::try_from(config).context("creating a client")
    }

    /// Loads image archives onto the node.
    pub async fn load(&self, archives: &[PathBuf]) -> anyhow::Result<()> {
        let mut arguments = vec!["load", &self.name];
        let archives: Vec<_> = archives.iter().map(|archive| archive.to_string_lossy()).collect();
        arguments.extend(archives.iter().map(AsRef::<str>::as_ref));
        testbed(&arguments).await.map(drop)
    }

    /// Returns the process id, on this machine, of a container. `id` is the `containerID` in its pod's status.
    pub async fn pid(&self, id: &str) -> anyhow::Result<String> {
        Ok(testbed(&["pid", &self.name, id]).await?.trim().to_owned())
    }

    /// Stops the cluster, if this process started it, and waits until the cluster has stopped completely.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.end.take().map_or(Ok(()), Stopper::stop)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            say(format!("cluster {} did not stop: {error:#}", self.name));
        }
    }
}

/// Returns the path of Contour's CRDs, of the Contour version that the testbed runs.
pub async fn contour_crds() -> anyhow::Result<PathBuf> {
    Ok(PathBuf::from(testbed(&["path", "crds"]).await?.trim()))
}

/// Runs `testbed ARGUMENTS…` and returns its standard output. Messages appear on this process's standard error.
pub async fn testbed(arguments: &[&str]) -> anyhow::Result<String> {
    command::watched(Command::new(places::testbed()).args(arguments)).await
}

fn require_root() -> anyhow::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").context("the testbed needs Linux")?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1));
    if effective != Some("0") {
        bail!("a real cluster needs root: run this as root");
    }
    Ok(())
}

/// A process that stops the cluster when this process closes its pipe, even by dying.
///
/// The child reads from a pipe that only this process can write to. The child has its own process group, so signals from the
/// terminal do not reach it.
#[derive(Debug)]
struct Stopper(Child);

impl Stopper {
    fn start(name: &str) -> anyhow::Result<Self> {
        std::process::Command::new("/bin/sh")
            .args(["-c", r#"read -r _; exec "$0" down "$1""#])
            .arg(places::testbed())
            .arg(name)
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .map(Self)
            .context("starting the process that stops the cluster")
    }

    fn stop(mut self) -> anyhow::Result<()> {
        if let Some(mut pipe) = self.0.stdin.take() {
            pipe.write_all(b"\n").context("requesting the stop of the cluster")?;
        }
        let status = self.0.wait().context("waiting until the cluster has stopped")?;
        anyhow::ensure!(status.success(), "testbed down: {status}");
        Ok(())
    }
}
