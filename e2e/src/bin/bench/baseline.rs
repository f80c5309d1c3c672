//! The baseline: the speed of the API server on this machine, at this moment, with a plain loop of server-side applies. The other figures
//! are compared with the baseline.

use std::time::Duration;

use anyhow::Context as _;
use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use slipway_e2e::cluster::Cluster;
use slipway_e2e::wait::{Look, Wait};
use tokio::time::Instant;

use slipway_e2e::numbers::{percentile, seconds};

/// The number of applies that are not measured, to open connections and fill caches.
const WARM_UP: usize = 20;
/// The number of sequential applies.
const SEQUENTIAL: usize = 200;
/// The number of parallel clients.
const CLIENTS: usize = 8;
/// The number of applies of each parallel client.
const EACH: usize = 50;

const NAMESPACE: &str = "bench-baseline";

/// The latency and the maximum rate.
#[derive(Clone, Copy, Debug)]
pub struct Baseline {
    /// L: the median duration of one apply with one client.
    pub latency: Duration,
    /// The 99th percentile of the same durations.
    pub latency_p99: Duration,
    /// X: the applies per second with [`CLIENTS`] clients.
    pub rate: f64,
}

impl Baseline {
    /// Measures in a namespace of its own, which is deleted at the end.
    pub async fn measure(cluster: &Cluster) -> anyhow::Result<Self> {
        let client = cluster.client().await?;
        let namespaces = Api::<Namespace>::all(client.clone());
        create_namespace(&client, NAMESPACE).await?;
        let loops = Loop::new(client);
        loops.run("warm-up", WARM_UP).await?;
        let mut latencies = loops.run("one", SEQUENTIAL).await?;
        latencies.sort_unstable();

        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let client = Loop::new(cluster.client().await?);
            client.run(&format!("warm-up-{number}"), 1).await?;
            clients.push((format!("many-{number}"), client));
        }
        let start = Instant::now();
        try_join_all(clients.iter().map(|(prefix, client)| client.run(prefix, EACH))).await?;
        let taken = start.elapsed();

        namespaces
            .delete(NAMESPACE, &DeleteParams::default())
            .await
            .context("deleting the baseline's namespace")?;
        Wait::for_it("the baseline's namespace no longer exists")
            .within(Duration::from_mins(3))
            .silently()
            .until(async || {
                Ok(Look::when(
                    namespaces.get_opt(NAMESPACE).await?.is_none(),
                    "the namespace is terminating",
                ))
            })
            .await?;
        #[allow(clippy::cast_precision_loss)] // A few hundred.
        let rate = (CLIENTS * EACH) as f64 / seconds(taken);
        Ok(Self {
            latency: percentile(&latencies, 50),
            latency_p99: percentile(&latencies, 99),
            rate,
        })
    }
}

/// Creates a namespace. An existing namespace is not an error.
pub async fn create_namespace(client: &Client, name: &str) -> anyhow::Result<()> {
    let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).context("a namespace")?;
    let made = Api::<Namespace>::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await;
    match made {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(error) => Err(error).with_context(|| format!("creating namespace {name}")),
    }
}

/// One client.
struct Loop(Api<Deployment>);

impl Loop {
    fn new(client: Client) -> Self {
        Self(Api::namespaced(client, NAMESPACE))
    }

    /// Applies `count` new Deployments, one after the other, and returns the duration of each.
    async fn run(&self, prefix: &str, count: usize) -> anyhow::Result<Vec<Duration>> {
        let parameters = PatchParams::apply("slipway-bench").force();
        let mut taken = Vec::with_capacity(count);
        for number in 0..count {
            let name = format!("{prefix}-{number}");
            let patch = Patch::Apply(deployment(&name));
            let start = Instant::now();
            self.0
                .patch(&name, &parameters, &patch)
                .await
                .context("applying a Deployment")?;
            taken.push(start.elapsed());
        }
        Ok(taken)
    }
}

fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "nothing", "image": "nowhere.invalid/nothing:1"}]},
            },
        },
    })
}
