//! The world that the tests share: one API server with Slipway installed as a user does, and one operator. Each test has its own namespace
//! and runs in parallel with others. A test that stops the operator or changes shared objects runs alone.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cluster::{self, Cluster};
use crate::kubectl::Kubectl;
use crate::narration::{say, show};
use crate::wait::{Look, Wait};
use crate::{binaries, places};
use anyhow::{Context as _, bail, ensure};
use futures::FutureExt as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, ListParams, PostParams};
use kube::config::Kubeconfig;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell, RwLock};

use crate::lab::operator::{self, Exit, Operator, Setup};
use crate::lab::{self, CRD_DELETION, Lab};

/// The namespace of the operator.
pub const SYSTEM: &str = "slipway-system";

/// The operator's user name at the API server.
pub const OPERATOR: &str = "system:serviceaccount:slipway-system:slipway";

/// The group of users with all rights that no policy restricts.
const ADMINISTRATORS: &[&str] = &["system:masters"];

/// The world of this process, or the reason why it could not be created. The world ends with the process.
static WORLD: OnceCell<Result<World, String>> = OnceCell::const_new();

/// The lock of the tests. Parallel tests lock for reading, a test that runs alone locks for writing.
static TURN: RwLock<()> = RwLock::const_new(());

/// Runs a test in parallel with others, in namespaces with the prefix `name`.
pub async fn beside_others(name: &str, test: impl AsyncFnOnce(&Lab) -> anyhow::Result<()>) {
    let _turn = TURN.read().await;
    run(name, test).await;
}

/// The shared objects that a test takes away. They are restored after the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// At most the operator.
    Operator,
    /// Contour's CRDs.
    ContourCrds,
    /// Parts of Slipway's installation.
    Installation,
}

/// Runs a test alone, after the objects of other tests no longer exist.
pub async fn alone(name: &str, takes: Takes, test: impl AsyncFnOnce(&Lab) -> anyhow::Result<()>) {
    let _turn = TURN.write().await;
    run(name, async |lab: &Lab| {
        lab.wait_until_no_others_are_left().await?;
        let outcome = AssertUnwindSafe(Box::pin(test(lab))).catch_unwind().await;
        let restored = lab.world.restore(takes).await;
        let outcome = outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (outcome, restored.context("restoring the shared objects")) {
            (Err(error), Err(other)) => Err(error.context(format!("then, {other:#}"))),
            (outcome, restored) => outcome.and(restored),
        }
    })
    .await;
}

async fn run(name: &str, test: impl AsyncFnOnce(&Lab) -> anyhow::Result<()>) {
    let world = WORLD
        .get_or_init(async || World::create().await.map_err(|error| format!("{error:#}")))
        .await;
    let world = world
        .as_ref()
        .unwrap_or_else(|error| panic!("the API server for the tests could not be started: {error}"));
    run_on(world, name, test).await;
}

/// Runs a test on an API server, in namespaces with the prefix `name`. Prints the objects if the test fails.
pub async fn run_on(world: &'static World, name: &str, test: impl AsyncFnOnce(&Lab) -> anyhow::Result<()>) {
    let lab = Lab::new(world, name).await.unwrap_or_else(|error| panic!("{error:#}"));
    let started = Instant::now();
    let outcome = AssertUnwindSafe(Box::pin(test(&lab))).catch_unwind().await;
    say(format!("{name} took {:.1} s", started.elapsed().as_secs_f64()));
    if !matches!(outcome, Ok(Ok(()))) {
        // The error comes first, so that a shortened log still contains the error.
        if let Ok(Err(error)) = &outcome {
            say(format!("{name} failed: {error:#}"));
        }
        say("the operator's last warnings and errors:");
        show(&operator::complaints(&world.setup.log));
        lab.show().await;
    }
    lab.clean_up().await;
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("{error:#}"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// The API server and the operator.
#[derive(Debug)]
pub struct World {
    cluster: Cluster,
    /// The testbed's folder of this cluster.
    pub state: PathBuf,
    /// The folder for files of this run: the operator's log and kubeconfig, and objects for kubectl.
    pub files: PathBuf,
    /// The settings of the operator's start.
    pub setup: Setup,
    operator: Mutex<Option<Operator>>,
    /// A process that stops the cluster when its standard input closes. The input closes when this process ends in any way.
    _guard: Option<Child>,
}

impl World {
    async fn create() -> anyhow::Result<Self> {
        let world = Self::without_operator(&format!("api-{}", std::process::id())).await?;
        world.restore(Takes::Operator).await?;
        Ok(world)
    }

    /// Starts an API server of this name, and installs Slipway and Contour's CRDs. Does not start the operator.
    pub async fn without_operator(name: &str) -> anyhow::Result<Self> {
        Self::start_with(name, &[]).await
    }

    /// Does the same as [`without_operator`](Self::without_operator), with these options of `testbed up`.
    pub async fn start_with(name: &str, options: &[&str]) -> anyhow::Result<Self> {
        let binary = binaries::slipway().await?;
        let guard = if std::env::var("KEEP").is_ok_and(|value| value == "1") {
            None
        } else {
            Some(ends_with_us(name)?)
        };
        let up = [&["up", name, "--no-node"], options].concat();
        let admin = PathBuf::from(cluster::testbed(&up).await?.trim());
        let cluster = Cluster::attach(name).await?;
        let state = admin
            .parent()
            .context("the path of the kubeconfig has no parent")?
            .to_owned();
        install(&cluster).await?;
        let files = places::target().join("lab").join(name);
        std::fs::create_dir_all(&files).with_context(|| format!("creating {}", files.display()))?;
        let kubeconfig = files.join("kubeconfig");
        write_kubeconfig(&cluster, &admin, SYSTEM, "slipway", &kubeconfig).await?;
        let log = files.join("operator.log");
        let setup = Setup {
            binary,
            kubeconfig,
            log,
            address: operator::free_address()?,
        };
        let world = Self {
            cluster,
            state,
            files,
            setup,
            operator: Mutex::default(),
            _guard: guard,
        };
        world.install_contour_crds().await?;
        Ok(world)
    }

    /// Writes a kubeconfig with the token of a ServiceAccount, and returns the path.
    pub async fn kubeconfig_of(&self, namespace: &str, account: &str) -> anyhow::Result<PathBuf> {
        let file = self.files.join(format!("{namespace}-{account}.kubeconfig"));
        write_kubeconfig(&self.cluster, &self.state.join("kubeconfig"), namespace, account, &file).await?;
        Ok(file)
    }

    /// Returns a client that impersonates this user.
    pub async fn client_of(&self, user: &str) -> anyhow::Result<kube::Client> {
        self.cluster.client_as(Some((user, &[]))).await
    }

    /// Installs the policy on HTTPProxies, which is not part of Slipway's installation.
    pub async fn install_httpproxy_policy(&self) -> anyhow::Result<()> {
        let folder = places::repository().join("config/httpproxies");
        self.kubectl()
            .run(&["apply", "-k", &folder.to_string_lossy()])
            .await
            .map(drop)
            .context("installing the policy on HTTPProxies")
    }

    /// Returns kubectl with an administrator's rights.
    pub fn kubectl(&self) -> &Kubectl {
        self.cluster.kubectl()
    }

    /// Returns a client for this test's own runtime.
    pub async fn client(&self) -> anyhow::Result<kube::Client> {
        self.cluster.client().await
    }

    /// Returns a client with all rights that the policies on marks and content treat as the operator.
    pub async fn unguarded_client(&self) -> anyhow::Result<kube::Client> {
        self.cluster.client_as(Some((OPERATOR, ADMINISTRATORS))).await
    }

    /// Returns the address that the operator listens on.
    pub fn address(&self) -> SocketAddr {
        self.setup.address
    }

    /// Starts the operator. Does not wait until the operator is ready.
    pub async fn start_operator(&self) -> anyhow::Result<()> {
        let mut operator = self.operator.lock().await;
        ensure!(operator.is_none(), "the operator runs already");
        *operator = Some(Operator::start(&self.setup)?);
        Ok(())
    }

    /// Terminates the operator and waits for its exit.
    pub async fn stop_operator(&self) -> anyhow::Result<Exit> {
        let operator = self.operator.lock().await.take();
        operator.context("the operator does not run")?.terminate().await
    }

    /// Returns the operator's process id.
    pub async fn operator_pid(&self) -> anyhow::Result<u32> {
        let operator = self.operator.lock().await;
        operator
            .as_ref()
            .map(Operator::pid)
            .context("the operator does not run")
    }

    /// Waits until `/readyz` returns 200.
    pub async fn operator_is_ready(&self) -> anyhow::Result<()> {
        operator::until_ready(self.address(), Duration::from_secs(20)).await
    }

    /// Restores the shared objects that a test took away, and waits until the operator is ready.
    pub async fn restore(&self, taken: Takes) -> anyhow::Result<()> {
        match taken {
            Takes::Operator => {}
            Takes::ContourCrds => self.install_contour_crds().await?,
            Takes::Installation => install(&self.cluster).await?,
        }
        if self.operator.lock().await.is_none() {
            self.start_operator().await?;
        }
        self.operator_is_ready().await
    }

    /// Installs Contour's CRDs, and waits until their objects can be created.
    pub async fn install_contour_crds(&self) -> anyhow::Result<()> {
        let all = Api::<CustomResourceDefinition>::all(self.cluster.client().await?);
        let of_contour = async || -> anyhow::Result<Vec<_>> {
            let crds = all.list(&ListParams::default()).await.context("listing CRDs")?.items;
            Ok(crds
                .into_iter()
                .filter(|crd| crd.spec.group == "projectcontour.io")
                .collect())
        };
        Wait::for_it("no CRD of an earlier test is terminating")
            .within(CRD_DELETION)
            .silently()
            .until(async || {
                let crds = of_contour().await?.into_iter();
                let mut leaving = crds.filter(|crd| crd.metadata.deletion_timestamp.is_some());
                let first = leaving
                    .next()
                    .map(|crd| format!("{}: {:?}", crd.name_any(), crd.status));
                Ok(Look::when(first.is_none(), first.unwrap_or_default()))
            })
            .await?;
        let file = cluster::contour_crds().await?;
        let apply = ["apply", "--server-side", "-f", &file.to_string_lossy()];
        self.kubectl().run(&apply).await?;
        Wait::for_it("Contour's CRDs are served")
            .silently()
            .until(async || {
                let crds = of_contour().await?;
                let unserved: Vec<_> = crds.iter().filter(|crd| !is_established(crd)).collect();
                let words: Vec<_> = unserved
                    .iter()
                    .map(|crd| format!("{}: {:?}", crd.name_any(), crd.status))
                    .collect();
                Ok(Look::when(
                    unserved.is_empty() && !crds.is_empty(),
                    format!("not served: {}", words.join(", ")),
                ))
            })
            .await
    }
}

/// Reports whether objects of this kind can be created. The API server itself delays creations for two seconds after that.
fn is_established(crd: &CustomResourceDefinition) -> bool {
    let conditions = crd.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut established = conditions.filter(|condition| condition.type_ == "Established");
    established.any(|condition| condition.status == "True")
}

/// Runs `kubectl apply -k config/default`, and waits until the installation is in force.
async fn install(cluster: &Cluster) -> anyhow::Result<()> {
    let folder = places::repository().join("config/default");
    cluster
        .kubectl()
        .run(&["apply", "-k", &folder.to_string_lossy()])
        .await
        .context("installing Slipway")?;
    policies_are_in_force(cluster).await
}

/// Waits until the API server enforces the admission policies. The API server activates the policies in groups, in the order of their
/// creation. So it suffices to check the first, the middle and the last of them.
async fn policies_are_in_force(cluster: &Cluster) -> anyhow::Result<()> {
    let administrator = cluster.client().await?;
    let operator = cluster.client_as(Some((OPERATOR, ADMINISTRATORS))).await?;
    let labels = json!({"contour.slipway.dev/contourdeployment": "probe"});
    let binding = |kind: &str, labels: &Value| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": "probe", "labels": labels},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "slipway-operand"},
        })
    };
    let service =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "probe"}, "spec": {"ports": [{"port": 1}]}});
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "probe", "labels": labels}});
    // Only the named policy rejects its probe.
    let probes = [
        (
            "slipway-cluster-wide-access",
            &administrator,
            binding("ClusterRoleBinding", &json!({})),
        ),
        ("slipway-marks", &administrator, account),
        // The ContourDeployment of the labels does not exist.
        ("slipway-operator-access", &operator, binding("RoleBinding", &labels)),
        ("slipway-operator-objects", &operator, service),
    ];
    for (policy, client, object) in probes {
        Wait::for_it(format!("{policy} is in force"))
            .silently()
            .until(async || {
                let said = refusal(client, &object).await?;
                Ok(Look::when(said.contains(&format!("'{policy}'")), said))
            })
            .await?;
    }
    Ok(())
}

/// Returns the API server's error for the creation of an object in namespace `default`, or of a cluster-scoped object.
async fn refusal(client: &kube::Client, object: &Value) -> anyhow::Result<String> {
    let parsed: DynamicObject = serde_json::from_value(object.clone())?;
    let kind = object["kind"].as_str().unwrap_or_default();
    let namespace = if kind == "ClusterRoleBinding" { "" } else { "default" };
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let tried = lab::api(client, kind, namespace).create(&dry_run, &parsed).await;
    Ok(tried.map_or_else(|error| error.to_string(), |_| format!("{kind} was accepted")))
}

/// Starts a process that stops the cluster when this process closes its pipe, even by dying.
fn ends_with_us(name: &str) -> anyhow::Result<Child> {
    Command::new("/bin/sh")
        .args(["-c", r#"read -r _; exec "$0" down "$1" >/dev/null 2>&1"#])
        .arg(places::testbed())
        .arg(name)
        .stdin(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("starting the process that stops the cluster")
}

/// Writes a kubeconfig like the administrator's, with a ServiceAccount's token instead of the certificate.
async fn write_kubeconfig(
    cluster: &Cluster,
    admin: &Path,
    namespace: &str,
    account: &str,
    file: &Path,
) -> anyhow::Result<()> {
    let token = ["create", "token", account, "-n", namespace, "--duration=24h"];
    let token = cluster.kubectl().run(&token).await?;
    let mut config = serde_json::to_value(Kubeconfig::read_from(admin)?)?;
    let Some(users) = config["users"].as_array_mut() else {
        bail!("{} has no users", admin.display())
    };
    for user in users {
        user["user"] = json!({"token": token.trim()});
    }
    std::fs::write(file, config.to_string()).with_context(|| format!("writing {}", file.display()))
}
