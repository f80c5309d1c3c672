//! What the tests share: one cluster with Slipway on it, and one ContourDeployment that each test first brings into the
//! state that it starts from.

use std::path::PathBuf;
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
use slipway_e2e::narration::{say, title};
use slipway_e2e::wait::{Look, Wait};
use slipway_e2e::{images, leftovers};
use tokio::sync::{Mutex, OnceCell};

/// For what pulls up pods.
pub const ROLLOUT: Duration = Duration::from_mins(2);

/// The namespace of every ContourDeployment here.
pub const NAMESPACE: &str = "projectcontour";

/// The one cluster of this process, or why there is none. It ends with the process.
static WORLD: OnceCell<Result<World, String>> = OnceCell::const_new();

/// Whose turn it is: the tests change the same objects.
static TURN: Mutex<()> = Mutex::const_new(());

struct World {
    cluster: Cluster,
    authority: CertificateDer<'static>,
}

impl World {
    async fn make() -> anyhow::Result<Self> {
        // `CLUSTER=name` uses one that runs already, for daily work.
        let cluster = match std::env::var("CLUSTER") {
            Ok(name) if !name.is_empty() => Cluster::attach(&name).await?,
            _ => Cluster::start("e2e").await?,
        };
        let archives: Vec<PathBuf> = images::build().await?;
        cluster.load(&archives).await?;
        installation::contour_crds(&cluster).await?;
        let authority = installation::backend(&cluster).await?;
        installation::slipway(&cluster).await?;
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        cluster.kubectl().apply(&namespace).await?;
        Ok(Self { cluster, authority })
    }
}

/// Runs one test when it is its turn; if it fails, shows what helps to find out why.
pub async fn play(name: &str, test: impl AsyncFnOnce(&Stage) -> anyhow::Result<()>) {
    let _turn = TURN.lock().await;
    let world = WORLD
        .get_or_init(async || World::make().await.map_err(|error| format!("{error:#}")))
        .await;
    let world = world
        .as_ref()
        .unwrap_or_else(|error| panic!("there is no cluster to test on: {error}"));
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

/// What `failOpen` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// Without the authorization server requests are denied.
    Denied,
    /// Without the authorization server requests pass.
    Passed,
}

/// What there is of the authorization service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Not even the namespace.
    Nothing,
    /// The server, but no ExtensionService.
    Server,
    /// The server and the ExtensionService.
    Complete,
}

/// What a test works with.
pub struct Stage {
    world: &'static World,
    /// Its own client.
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

    /// The cluster itself.
    pub fn cluster(&self) -> &'static Cluster {
        &self.world.cluster
    }

    /// Runs kubectl.
    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.world.cluster.kubectl().run(arguments).await
    }

    /// Runs kubectl and reads the JSON that it prints.
    pub async fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        self.world.cluster.kubectl().json(arguments).await
    }

    /// Brings everything into this state, from whatever it is in, and waits until it has settled.
    pub async fn given(&self, without: Without, auth: Auth) -> anyhow::Result<Hosts> {
        // A test that failed may have left it away.
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
            "given: without authorization {without:?}, authorization {auth:?}"
        ));
        self.hosts().await
    }

    /// Applies the ContourDeployment `edge`.
    pub async fn apply_edge(&self, without: Without) -> anyhow::Result<()> {
        let reference = json!({"namespace": "auth", "name": "auth"});
        let settings = json!({"globalExtAuth": {"extensionRef": reference, "failOpen": without == Without::Passed}});
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
        self.world.cluster.kubectl().apply(&object).await.map(drop)
    }

    /// Waits until `edge` has settled and its status tells of this state of the authorization service.
    pub async fn settled(&self, auth: Auth) -> anyhow::Result<Status> {
        let state = if auth == Auth::Complete { "Available" } else { "Missing" };
        let place = if auth == Auth::Nothing { NAMESPACE } else { "auth" };
        Wait::for_it(format!(
            "it has settled, the service {state}, its stand-in in namespace {place}"
        ))
        .within(ROLLOUT)
        .until(async || {
            let status = match self.edge.look_settled().await? {
                Look::Reached(status) => status,
                Look::NotYet(seen) => return Ok(Look::NotYet(seen)),
            };
            let Some(service) = status.extension_services.first() else {
                return Ok(Look::NotYet("no service in the status".to_owned()));
            };
            let there = service
                .stand_in
                .as_ref()
                .map_or("nowhere", |stand_in| &stand_in.namespace);
            if service.state == state && there == place {
                return Ok(Look::Reached(status));
            }
            Ok(Look::NotYet(format!(
                "the service is {}, its stand-in in {there}",
                service.state
            )))
        })
        .await
    }

    /// Waits until the status says this of the authorization service: its state, and what happens to requests.
    pub async fn until_service(&self, state: &str, traffic: &str) -> anyhow::Result<Status> {
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

    /// The two hosts behind the Envoy of `edge`.
    pub async fn hosts(&self) -> anyhow::Result<Hosts> {
        Hosts::behind(&self.client, NAMESPACE, "edge-envoy", &self.world.authority).await
    }

    /// Deletes a ContourDeployment and waits until nothing of it is left.
    pub async fn remove(&self, edge: &Edge) -> anyhow::Result<()> {
        edge.delete().await?;
        Wait::for_it(format!("nothing is left of {}", edge.name()))
            .until(async || {
                let left = leftovers::of(&self.client, edge).await?;
                Ok(Look::when(left.is_empty(), format!("left: {left:?}")))
            })
            .await
    }

    /// Deletes the pods of Contour and waits until others are ready in their place.
    pub async fn replace_contour(&self) -> anyhow::Result<()> {
        let before = self.edge.pods(Component::Contour).await?.uids();
        let selector = format!("{},{COMPONENT}={}", self.edge.selector(), Component::Contour.label());
        self.kubectl(&["-n", NAMESPACE, "delete", "pods", "-l", &selector, "--wait=false"])
            .await?;
        Wait::for_it("other pods of Contour are ready")
            .within(ROLLOUT)
            .until(async || {
                let pods = self.edge.pods(Component::Contour).await?;
                let others = pods.uids().is_disjoint(&before);
                Ok(Look::when(
                    others && pods.all_ready() && pods.ending == 0,
                    format!("{pods}, {} ending", pods.ending),
                ))
            })
            .await
    }

    /// Takes from Contour the right to write verdicts, or gives it back; and waits until the API server heeds that.
    pub async fn let_contour_judge(&self, may: bool) -> anyhow::Result<()> {
        let mut role = self.json(&["get", "clusterrole", "slipway-contour"]).await?;
        let statuses = |rule: &&mut Value| rule["resources"].to_string().contains("httpproxies/status");
        let rules = role["rules"].as_array_mut().context("rules")?;
        let resources = rules.iter_mut().find(statuses).context("a rule for statuses")?["resources"].as_array_mut();
        let resources = resources.context("its resources")?;
        resources.retain(|resource| resource != "extensionservices/status");
        resources.extend(may.then(|| "extensionservices/status".into()));
        let patch = json!({"rules": role["rules"]}).to_string();
        let change = ["patch", "clusterrole", "slipway-contour", "--type=merge", "-p", &patch];
        self.kubectl(&change).await?;
        let asked = json!({
            "spec": {
                "user": format!("system:serviceaccount:{NAMESPACE}:edge-contour"),
                "resourceAttributes": {
                    "group": "projectcontour.io", "resource": "extensionservices", "subresource": "status",
                    "namespace": "auth", "verb": "update",
                },
            },
        });
        let asked: SubjectAccessReview = serde_json::from_value(asked)?;
        Wait::for_it(format!("Contour may write verdicts: {may}"))
            .until(async || {
                let reviews = Api::<SubjectAccessReview>::all(self.client.clone());
                let answer = reviews.create(&PostParams::default(), &asked).await?;
                let status = answer.status.context("an answer")?;
                Ok(Look::when(status.allowed == may, format!("{status:?}")))
            })
            .await
    }

    /// Changes the specification of the ExtensionService.
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

    /// The stand-in, once this is so. There may be another one by then.
    pub async fn stand_in(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        Wait::for_it(format!("the stand-in {what}"))
            .within(ROLLOUT)
            .until(async || {
                let status = self.edge.status().await?;
                let service = status.extension_services.first().context("a service in the status")?;
                let stand_in = service.stand_in.as_ref().context("a stand-in in the status")?;
                let get = ["-n", &stand_in.namespace, "get", "extensionservice", &stand_in.name];
                let object = self.json(&get).await?;
                Ok(if is_so(&object) {
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
