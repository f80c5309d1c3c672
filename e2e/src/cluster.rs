//! A cluster of the testbed: started for one run and ended with it, or one that runs already.

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
    end: Option<Undertaker>,
}

impl Cluster {
    /// Installs what is missing, ends an earlier cluster of this name, and starts a new one.
    ///
    /// It ends with this value, and also when this process dies in any way, unless the variable `KEEP` is `1`.
    pub async fn start(name: &str) -> anyhow::Result<Self> {
        require_root()?;
        testbed(&["install"]).await?;
        testbed(&["down", name]).await?;
        let keep = std::env::var("KEEP").is_ok_and(|value| value == "1");
        let end = if keep { None } else { Some(Undertaker::engage(name)?) };
        testbed(&["up", name]).await?;
        let cluster = Self::of(name, end).await?;
        if keep {
            say(format!(
                "KEEP=1: cluster {name} stays; KUBECONFIG={}",
                cluster.kubeconfig.display()
            ));
        }
        Ok(cluster)
    }

    /// A cluster that somebody else started and will end.
    pub async fn attach(name: &str) -> anyhow::Result<Self> {
        Self::of(name, None).await
    }

    async fn of(name: &str, end: Option<Undertaker>) -> anyhow::Result<Self> {
        let kubeconfig = PathBuf::from(testbed(&["kubeconfig", name]).await?.trim());
        let kubectl = Kubectl::new(PathBuf::from(testbed(&["path", "kubectl"]).await?.trim()), &kubeconfig);
        Ok(Self {
            name: name.to_owned(),
            kubeconfig,
            kubectl,
            end,
        })
    }

    /// kubectl for this cluster.
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// A new client with an administrator's rights. It belongs to the Tokio runtime that it is made in.
    pub async fn client(&self) -> anyhow::Result<Client> {
        self.client_as(None).await
    }

    /// One that the API server takes for this user, of these groups, where somebody is named.
    pub async fn client_as(&self, whom: Option<(&str, &[&str])>) -> anyhow::Result<Client> {
        // A process has one default; a second attempt to set the same changes nothing.
        drop(rustls::crypto::ring::default_provider().install_default());
        let file = Kubeconfig::read_from(&self.kubeconfig)
            .with_context(|| format!("reading {}", self.kubeconfig.display()))?;
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        let mut config = config.context("using the kubeconfig")?;
        if let Some((user, groups)) = whom {
            config.auth_info.impersonate = Some(user.to_owned());
            config.auth_info.impersonate_groups = Some(groups.iter().map(|group| (*group).to_owned()).collect());
        }
        Client::try_from(config).context("making a client")
    }

    /// Gives image archives to the node.
    pub async fn load(&self, archives: &[PathBuf]) -> anyhow::Result<()> {
        let mut arguments = vec!["load", &self.name];
        let archives: Vec<_> = archives.iter().map(|archive| archive.to_string_lossy()).collect();
        arguments.extend(archives.iter().map(AsRef::<str>::as_ref));
        testbed(&arguments).await.map(drop)
    }

    /// The process, on this machine, of a container: `id` is the `containerID` in its pod's status.
    pub async fn pid(&self, id: &str) -> anyhow::Result<String> {
        Ok(testbed(&["pid", &self.name, id]).await?.trim().to_owned())
    }

    /// Ends it now, if it was started here, and waits until nothing of it is left.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.end.take().map_or(Ok(()), Undertaker::call)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            say(format!("cluster {} did not end: {error:#}", self.name));
        }
    }
}

/// The path of Contour's CRDs, of the version that the testbed runs.
pub async fn contour_crds() -> anyhow::Result<PathBuf> {
    Ok(PathBuf::from(testbed(&["path", "crds"]).await?.trim()))
}

/// `testbed ARGUMENTS…`; its messages go to our standard error.
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

/// A process that takes the cluster down as soon as this one lets go of it, even by dying.
///
/// It reads from a pipe whose only writing end is here, and is in a process group of its own, out of the terminal's way.
#[derive(Debug)]
struct Undertaker(Child);

impl Undertaker {
    fn engage(name: &str) -> anyhow::Result<Self> {
        std::process::Command::new("/bin/sh")
            .args(["-c", r#"read -r _; exec "$0" down "$1""#])
            .arg(places::testbed())
            .arg(name)
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .map(Self)
            .context("starting what takes the cluster down in the end")
    }

    fn call(mut self) -> anyhow::Result<()> {
        if let Some(mut pipe) = self.0.stdin.take() {
            pipe.write_all(b"\n").context("asking for the end of the cluster")?;
        }
        let status = self.0.wait().context("waiting for the end of the cluster")?;
        anyhow::ensure!(status.success(), "testbed down: {status}");
        Ok(())
    }
}
