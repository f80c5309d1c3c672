//! The shared environment of the tests: one cluster with Slipway, and one ContourDeployment. Each test starts by bringing the
//! ContourDeployment into the state that the test needs.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::api::PostParams;
use kube::{Api, Client};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use slipway_e2e::cluster::Cluster;
use slipway_e2e::edge::{COMPONENT, Component, Edge, Status};
use slipway_e2e::hosts::Hosts;
use slipway_e2e::installation::{self, AuthService};
use slipway_e2e::leftovers;
use slipway_e2e::narration::{say, title};
use slipway_e2e::wait::{Look, Wait};
use tokio::sync::{Mutex, OnceCell};

/// The limit for operations that start pods.
pub const ROLLOUT: Duration = Duration::from_mins(2);

/// The namespace of every ContourDeployment in these tests.
pub const NAMESPACE: &str = "projectcontour";

/// The only cluster of this process, or the reason why its start failed. The cluster ends with the process.
static WORLD: OnceCell<Result<World, String>> = OnceCell::const_new();

/// The lock that runs the tests one at a time, because the tests change the same objects.
static TURN: Mutex<()> = Mutex::const_new(());

struct World {
    cluster: Cluster,
    authority: CertificateDer<'static>,
}

impl World {
    async fn create() -> anyhow::Result<Self> {
        // `CLUSTER=name` selects a running cluster, for daily work.
        let cluster = match std::env::var("CLUSTER") {
            Ok(name) if !name.is_empty() => Cluster::attach(&name).await?,
            _ => Cluster::start("e2e").await?,
        };
        installation::everything(&cluster).await?;
        let authority = installation::backend(&cluster).await?;
        Ok(Self { cluster, authority })
    }
}

/// Runs one test after the previous test has ended. If the test fails, prints diagnostics and panics.
pub async fn play(name: &str, test: impl AsyncFnOnce(&Stage) -> anyhow::Result<()>) {
    let _turn = TURN.lock().await;
    let world = WORLD
        .get_or_init(async || World::create().await.map_err(|error| format!("{error:#}")))
        .await;
    let world = world
        .as_ref()
        .unwrap_or_else(|error| panic!("the start of the cluster failed: {error}"));
    title(name);
    let outcome = async {
        let stage = Stage::of(world).await?;
        Box::pin(test(&stage)).await?;
        stage.no_restarts(&stage.edge).await
    };
    if let Err(error) = Box::pin(outcome).await {
        installation::diagnose(&world.cluster).await;
        panic!("{error:#}");
    }
}

/// The value of `failOpen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// Without the authorization server, Envoy denies requests.
    Denied,
    /// Without the authorization server, Envoy lets requests pass.
    Passed,
}

/// The parts of the authorization service that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Nothing; the namespace does not exist either.
    Nothing,
    /// The server, but no ExtensionService.
    Server,
    /// The server and the ExtensionService.
    Complete,
}

/// The clients and objects of a test.
pub struct Stage {
    world: &'static World,
    /// The test's own client.
    pub client: Client,
    /// The ContourDeployment `edge`.
    pub edge: Edge,
    /// The ExtensionService `auth/auth`.
    pub service: AuthService,
}

impl Stage {
    async fn of(world: &'static World) -> anyhow::Result<Self> {
        let client = world.cluster.client().await?;
        let edge = Edge::new(client.clone(), NAMESPACE, "edge");
        let service = AuthService::new(&client)?;
        Ok(Self {
            world,
            client,
            edge,
            service,
        })
    }

    /// Returns the cluster.
    pub fn cluster(&self) -> &'static Cluster {
        &self.world.cluster
    }

    /// Runs kubectl and returns its stdout.
    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.world.cluster.kubectl().run(arguments).await
    }

    /// Runs kubectl and parses its stdout as JSON.
    pub async fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        self.world.cluster.kubectl().json(arguments).await
    }

    /// Brings all objects from any state into this state, and waits until `edge` has settled.
    pub async fn given(&self, without: Without, auth: Auth) -> anyhow::Result<Hosts> {
        // A failed test may have left the operator stopped.
        installation::start_operator(&self.world.cluster).await?;
        if auth != Auth::Complete {
            self.service.delete().await?;
        }
        if auth == Auth::Nothing {
            self.kubectl(&["delete", "namespace", "auth", "--ignore-not-found", "--timeout=120s"])
                .await?;
        } else {
            installation::auth_server(&self.world.cluster).await?;
        }
        self.apply_edge(without).await?;
        if auth == Auth::Complete {
            self.service.ensure().await?;
        }
        self.settled(auth).await?;
        say(format!(
            "given: requests without the authorization server are {without:?}, parts of the authorization service: {auth:?}"
        ));
        self.hosts().await
    }

    /// Applies the ContourDeployment `edge`.
    pub async fn apply_edge(&self, without: Without) -> anyhow::Result<()> {
        let reference = json!({"namespace": "auth", "name": "auth"});
        // By default, Envoy denies a request whose check takes more than 200 ms. On a busy machine, some checks take longer.
        let settings = json!({
            "globalExtAuth": {"extensionRef": reference, "failOpen": without == Without::Passed, "responseTimeout": "10s"},
        });
        self.apply_deployment("edge", &settings).await
    }

    /// Applies a ContourDeployment with these settings.
    pub async fn apply_deployment(&self, name: &str, settings: &Value) -> anyhow::Result<()> {
        let object = json!({
            "apiVersion": "contour.slipway.dev/v1alpha1",
            "kind": "ContourDeployment",
            "metadata": {"namespace": NAMESPACE, "name": name},
            "spec": {
                "contour": {"image": "ghcr.io/projectcontour/contour:v1.33.8"},
                "envoy": {
                    "image": "docker.io/envoyproxy/envoy:distroless-v1.38.3",
                    "networkPublishing": {"type": "ClusterIPService"},
                },
                "runtimeSettings": settings,
            },
        });
        // The commands of the documentation delete the namespace.
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        self.cluster().kubectl().apply(&namespace).await?;
        self.cluster().kubectl().apply(&object).await.map(drop)
    }

    /// Waits until `edge` has settled and its status reports this state of the authorization service.
    pub async fn settled(&self, auth: Auth) -> anyhow::Result<Status> {
        let state = if auth == Auth::Complete { "Available" } else { "Missing" };
        let place = if auth == Auth::Nothing { NAMESPACE } else { "auth" };
        Wait::for_it(format!(
            "edge has settled, the service is {state}, its stand-in is in namespace {place}"
        ))
        .within(ROLLOUT)
        .until(async || {
            let status = match self.edge.look_settled().await? {
                Look::Reached(status) => status,
                Look::NotYet(seen) => return Ok(Look::NotYet(seen)),
            };
            let Some(service) = status.extension_services.first() else {
                return Ok(Look::NotYet("the status has no service".to_owned()));
            };
            let found = service
                .stand_in
                .as_ref()
                .map_or("no namespace", |stand_in| &stand_in.namespace);
            if service.state == state && found == place {
                return Ok(Look::Reached(status));
            }
            Ok(Look::NotYet(format!(
                "the service is {}, its stand-in is in {found}",
                service.state
            )))
        })
        .await
    }

    /// Waits until the status reports this state of the authorization service and this treatment of requests.
    pub async fn wait_for_service(&self, state: &str, traffic: &str) -> anyhow::Result<Status> {
        Wait::for_it(format!("the service is {state}, requests are {traffic}"))
            .until(async || {
                let status = self.edge.status().await?;
                let service = status.extension_services.first();
                Ok(match service.map(|service| (&*service.state, &*service.traffic)) {
                    Some(seen) if seen == (state, traffic) => Look::Reached(status),
                    seen => Look::NotYet(format!("{seen:?}")),
                })
            })
            .await
    }

    /// Returns the two hosts behind the Envoy of `edge`.
    pub async fn hosts(&self) -> anyhow::Result<Hosts> {
        Hosts::behind(&self.client, NAMESPACE, "edge-envoy", &self.world.authority).await
    }

    /// Deletes a ContourDeployment and waits until none of its objects is left.
    pub async fn remove(&self, edge: &Edge) -> anyhow::Result<()> {
        edge.delete().await?;
        Wait::for_it(format!("no object of {} is left", edge.name()))
            .until(async || {
                let left = leftovers::of(&self.client, edge).await?;
                Ok(Look::when(left.is_empty(), format!("left: {left:?}")))
            })
            .await
    }

    /// Deletes the pods of Contour and waits until their replacements are ready.
    pub async fn replace_contour(&self) -> anyhow::Result<()> {
        let before = self.edge.pods(Component::Contour).await?.uids();
        let selector = format!("{},{COMPONENT}={}", self.edge.selector(), Component::Contour.label());
        self.kubectl(&["-n", NAMESPACE, "delete", "pods", "-l", &selector, "--wait=false"])
            .await?;
        Wait::for_it("the new pods of Contour are ready")
            .within(ROLLOUT)
            .until(async || {
                let pods = self.edge.pods(Component::Contour).await?;
                let others = pods.uids().is_disjoint(&before);
                Ok(Look::when(
                    others && pods.all_ready() && pods.ending == 0,
                    format!("{pods}, {} terminating", pods.ending),
                ))
            })
            .await
    }

    /// Grants Contour the permission to write verdicts, or revokes the permission, and waits until the API server enforces the
    /// change.
    pub async fn allow_verdicts(&self, allowed: bool) -> anyhow::Result<()> {
        let mut role = self.json(&["get", "clusterrole", "slipway-contour"]).await?;
        let statuses = |rule: &&mut Value| rule["resources"].to_string().contains("httpproxies/status");
        let rules = role["rules"].as_array_mut().context("rules")?;
        let resources = rules.iter_mut().find(statuses).context("a rule for statuses")?["resources"].as_array_mut();
        let resources = resources.context("its resources")?;
        resources.retain(|resource| resource != "extensionservices/status");
        resources.extend(allowed.then(|| "extensionservices/status".into()));
        let patch = json!({"rules": role["rules"]}).to_string();
        let change = ["patch", "clusterrole", "slipway-contour", "--type=merge", "-p", &patch];
        self.kubectl(&change).await?;
        let review = json!({
            "spec": {
                "user": format!("system:serviceaccount:{NAMESPACE}:edge-contour"),
                "resourceAttributes": {
                    "group": "projectcontour.io", "resource": "extensionservices", "subresource": "status",
                    "namespace": "auth", "verb": "update",
                },
            },
        });
        let review: SubjectAccessReview = serde_json::from_value(review)?;
        Wait::for_it(format!("Contour may write verdicts: {allowed}"))
            .until(async || {
                let reviews = Api::<SubjectAccessReview>::all(self.client.clone());
                let answer = reviews.create(&PostParams::default(), &review).await?;
                let status = answer.status.context("an answer")?;
                Ok(Look::when(status.allowed == allowed, format!("{status:?}")))
            })
            .await
    }

    /// Patches the spec of the ExtensionService.
    pub async fn edit_service(&self, spec: &Value) -> anyhow::Result<()> {
        let patch = json!({"spec": spec}).to_string();
        let edit = [
            "-n",
            "auth",
            "patch",
            "extensionservice",
            "auth",
            "--type=merge",
            "-p",
            &patch,
        ];
        self.kubectl(&edit).await.map(drop)
    }

    /// Waits until the stand-in meets the condition, and returns the stand-in. Slipway may replace the stand-in meanwhile.
    pub async fn stand_in(&self, what: &str, is_met: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        Wait::for_it(format!("the stand-in {what}"))
            .within(ROLLOUT)
            .until(async || {
                let status = self.edge.status().await?;
                let service = status.extension_services.first().context("a service in the status")?;
                let stand_in = service.stand_in.as_ref().context("a stand-in in the status")?;
                let get = ["-n", &stand_in.namespace, "get", "extensionservice", &stand_in.name];
                let object = self.json(&get).await?;
                Ok(if is_met(&object) {
                    Look::Reached(object)
                } else {
                    Look::NotYet(format!("{} {}", object["spec"], object["status"]))
                })
            })
            .await
    }

    /// Fails if a container of Contour or Envoy ever restarted.
    pub async fn no_restarts(&self, edge: &Edge) -> anyhow::Result<()> {
        for component in [Component::Contour, Component::Envoy] {
            let pods = edge.pods(component).await.context("counting restarts")?;
            ensure!(pods.restarts == 0, "{component:?}: {pods}");
        }
        Ok(())
    }
}
