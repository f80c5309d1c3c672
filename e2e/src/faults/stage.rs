//! The stage that executes plans one at a time: an API server, a proxy in front of it, the operator behind the proxy, and stand-ins
//! for the kubelet and Contour.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use kube::api::ListParams;
use kube::client::ConfigExt as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;

use crate::edge::{Component, Edge, Status};
use crate::lab::audit::{self, Mark};
use crate::lab::contour::Contour;
use crate::lab::operator::{self, Setup};
use crate::lab::players::{self, Node};
use crate::lab::world::World;
use crate::lab::{Lab, Thing, wait};
use crate::wait::Look;

use super::history::History;
use super::proxy::{Proxy, Upstream};
use super::seat::Seat;
use super::state::{self, State};
use super::workload::Base;

/// The namespace of the ContourDeployment. All runs use the same names, so that runs can be compared.
const NAMESPACE: &str = "faults";

/// The namespace of the authorization service.
const AUTH: &str = "faults-auth";

/// The time without a write after which the operator is idle. The first retry after a failure happens sooner.
const QUIET: Duration = Duration::from_millis(600);

/// The time limit for the creation of a base and for the cleanup.
const CALM: Duration = Duration::from_mins(1);

/// The stage of the plans.
pub struct Stage {
    /// The API server.
    pub world: &'static World,
    /// The namespace of the ContourDeployment.
    pub lab: Lab,
    /// The namespace of the authorization service.
    pub auth: String,
    /// The proxy between the operator and the API server.
    pub proxy: Proxy,
    /// The seat of the operator.
    pub seat: Arc<Seat>,
    /// The commits since the last base.
    pub history: History,
    /// The stand-ins for Contour and for the kubelet of its namespace.
    pub contour: Contour,
    _node: Node,
}

impl Stage {
    /// Builds a stage on a new API server of this name, which ends with this process.
    pub async fn build(name: &str) -> anyhow::Result<Self> {
        // The world has to outlive all spawned tasks.
        let world: &'static World = Box::leak(Box::new(World::without_operator(name).await?));
        let lab = Lab::new(world, NAMESPACE).await?;
        lab.create_namespace(AUTH).await?;
        players::auth_server(&lab, AUTH).await?;
        let kubeconfig = world.files.join("kubeconfig-of-the-proxy");
        let seat = Arc::new(Seat::new(Setup {
            binary: world.setup.binary,
            kubeconfig: kubeconfig.clone(),
            log: world.setup.log.clone(),
            address: operator::free_address()?,
        }));
        let proxy = Proxy::start(upstream(&world.setup.kubeconfig).await?, seat.clone()).await?;
        let mut config = serde_json::to_value(Kubeconfig::read_from(&world.setup.kubeconfig)?)?;
        for cluster in config["clusters"].as_array_mut().into_iter().flatten() {
            cluster["cluster"] = serde_json::json!({"server": format!("http://{}", proxy.address)});
        }
        std::fs::write(&kubeconfig, config.to_string()).context("writing the operator's kubeconfig")?;
        Ok(Self {
            world,
            history: History::begin(&lab),
            contour: Contour::of(&lab.client, NAMESPACE),
            _node: Node::of(&lab).await?,
            auth: AUTH.to_owned(),
            lab,
            proxy,
            seat,
        })
    }

    /// Returns the ContourDeployment.
    pub fn edge(&self) -> Edge {
        Edge::new(self.lab.client.clone(), NAMESPACE, "edge")
    }

    /// Reads the present state.
    pub async fn state(&self) -> anyhow::Result<State> {
        state::read(&self.lab, &[NAMESPACE, AUTH]).await
    }

    /// Creates a base without any fault, with a new operator.
    pub async fn prepare(&self, base: Base) -> anyhow::Result<()> {
        self.seat.kill();
        self.proxy.script.begin(None);
        self.history.forget();
        self.seat.take()?;
        base.create(&self.lab, &self.auth).await?;
        self.operator_is_ready().await?;
        if base != Base::Nothing {
            wait("the base has settled", CALM)
                .every(Duration::from_millis(50))
                .until(async || {
                    Ok(match self.look_settled().await? {
                        Look::Reached(status) if base == Base::Enforced && !status.is("Ready", "True") => {
                            Look::NotYet(status.to_string())
                        }
                        settled => settled,
                    })
                })
                .await?;
        }
        Ok(())
    }

    /// Observes whether the ContourDeployment's status is current and the operator is idle. Envoy may have no pods: without nodes, a
    /// DaemonSet creates none.
    pub async fn look_settled(&self) -> anyhow::Result<Look<Status>> {
        let edge = self.edge();
        let (status, contour) = (edge.status().await?, edge.pods(Component::Contour).await?);
        let settled = status.is_current() && contour.all_ready() && contour.ending == 0 && self.is_quiet();
        Ok(if settled {
            Look::Reached(status)
        } else {
            Look::NotYet(format!("{status}; Contour {contour}"))
        })
    }

    /// Reports whether the operator is idle.
    pub fn is_quiet(&self) -> bool {
        let last = self.proxy.script.last_write();
        last.is_none_or(|last| last.elapsed() > QUIET)
    }

    /// Waits until the operator is ready.
    pub async fn operator_is_ready(&self) -> anyhow::Result<()> {
        operator::until_ready(self.seat.setup().address, CALM).await
    }

    /// Deletes all objects of a run. An object that the operator cannot delete on its own is an error.
    pub async fn clean_up(&self) -> anyhow::Result<()> {
        self.proxy.script.begin(None);
        self.seat.take()?;
        self.edge().delete().await?;
        let service = Thing::new("ExtensionService", &self.auth, "auth");
        if self.lab.find(&service).await?.is_some() {
            self.lab.delete(&service).await?;
        }
        let fixed = format!("Service {}/auth", self.auth);
        let started = Instant::now();
        loop {
            let state = self.state().await?;
            let mut left: Vec<String> = state.into_keys().filter(|name| *name != fixed).collect();
            for kind in ["ReplicaSet", "Pod"] {
                let list = self
                    .lab
                    .api(kind, NAMESPACE)
                    .list_metadata(&ListParams::default())
                    .await?;
                left.extend(list.items.iter().filter_map(|object| object.metadata.name.clone()));
            }
            if left.is_empty() {
                return Ok(());
            }
            if started.elapsed() > CALM {
                bail!("left behind: {}", left.join(", "));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Returns the present ends of the logs.
    pub fn log_mark(&self) -> anyhow::Result<LogMark> {
        Ok(LogMark {
            log: self.world.setup.log.metadata().map_or(0, |log| log.len()),
            audit: audit::mark(self.world)?,
        })
    }

    /// Writes the operator's log since `since` to `file`, and the matching entries of the audit log to a file beside it.
    pub fn keep_log(&self, since: &LogMark, file: &Path) -> anyhow::Result<()> {
        let log = std::fs::read(&self.world.setup.log)?;
        let mark = usize::try_from(since.log)?;
        ensure!(mark <= log.len(), "the log was truncated");
        let requests = audit::entries(self.world, since.audit)?.into_iter();
        let requests = requests.map(|entry| entry.to_string()).collect::<Vec<_>>().join("\n");
        for (file, content) in [
            (file.to_owned(), &log[mark..]),
            (file.with_extension("audit.jsonl"), requests.as_bytes()),
        ] {
            std::fs::write(&file, content).with_context(|| format!("writing {}", file.display()))?;
        }
        Ok(())
    }
}

/// A position in the operator's log and in the audit log.
#[derive(Clone, Copy, Debug)]
pub struct LogMark {
    log: u64,
    audit: Mark,
}

/// Returns the API server of a kubeconfig. The kubeconfig must contain only a token: the API server would take the user of a client
/// certificate for the operator.
async fn upstream(kubeconfig: &Path) -> anyhow::Result<Upstream> {
    let file = Kubeconfig::read_from(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    let authority = config
        .cluster_url
        .authority()
        .context("the API server's URL has no address")?;
    Ok(Upstream {
        authority: authority.to_string(),
        tls: Arc::new(config.rustls_client_config()?),
    })
}

/// Reports whether Contour's Deployment exists in this state.
pub fn has_contour(state: &State) -> bool {
    state
        .get(&format!("Deployment {NAMESPACE}/edge-contour"))
        .is_some_and(Value::is_object)
}
