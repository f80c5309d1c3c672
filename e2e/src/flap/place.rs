//! The place of the proof: a ContourDeployment on a cluster with Slipway, an authorization server with a mark of its own, and two hosts.
//! The backend of the hosts knows the mark.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::Mode;
use super::backend::Backend;
use super::script::Form;
use crate::certificate::Authority;
use crate::cluster::Cluster;
use crate::edge::Edge;
use crate::hosts::{self, AGREEING};
use crate::places;
use crate::probe::{Caller, Host};
use crate::wait::{Look, Wait};

/// The time limit for steps that start pods, on a busy machine.
const ROLLOUT: Duration = Duration::from_mins(3);

/// The namespace and name of the ContourDeployment.
const EDGE: (&str, &str) = ("projectcontour", "edge");

/// The objects and clients of the proof.
pub struct Place<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// A client with an administrator's rights.
    pub client: Client,
    /// The ContourDeployment.
    pub edge: Edge,
    /// The HTTP host and the HTTPS host.
    pub hosts: [Host; 2],
    /// The backend of both hosts.
    pub backend: Backend,
    services: Api<DynamicObject>,
}

impl<'a> Place<'a> {
    /// Creates all objects. The cluster must have Contour's CRDs, Slipway, and the loaded images.
    pub async fn prepare(cluster: &'a Cluster) -> anyhow::Result<Self> {
        let (client, kubectl) = (cluster.client().await?, cluster.kubectl());
        let mark = format!("{:032x}", fastrand::u128(..));
        let backend = Backend::start(machine(&client).await?, mark.clone()).await?;
        let file = places::fixture("flap.yaml");
        let fixture = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let fixture = fixture
            .replace("\"MARK\"", &format!("{mark:?}"))
            .replace("ADDRESS", &backend.address.ip().to_string())
            .replace("PORT", &backend.address.port().to_string());
        kubectl.apply_text(&fixture).await.context("applying the fixture")?;
        let authority = Authority::new()?;
        let secret = authority.sign("https.flap.test")?.secret("flap", "https-flap-test");
        kubectl.apply(&secret).await.context("storing the certificate")?;
        let (namespace, name) = EDGE;
        let rollout = [
            "-n",
            "auth",
            "rollout",
            "status",
            "deployment/flap-auth",
            "--timeout=120s",
        ];
        kubectl
            .run(&rollout)
            .await
            .context("waiting for the authorization server")?;
        let envoy = hosts::address(&client, namespace, &format!("{name}-envoy")).await?;
        let kind = GroupVersionKind::gvk("projectcontour.io", "v1alpha1", "ExtensionService");
        let services = Api::namespaced_with(client.clone(), "auth", &ApiResource::from_gvk(&kind));
        let https = Host::https(
            "https.flap.test",
            SocketAddr::new(envoy, 443),
            authority.certificate_der(),
        )?;
        Ok(Self {
            cluster,
            edge: Edge::new(client.clone(), namespace, name),
            client,
            hosts: [Host::http("http.flap.test", SocketAddr::new(envoy, 80)), https],
            backend,
            services,
        })
    }

    /// Sets `failOpen`, deletes the ExtensionService, and waits until the status has settled and both hosts answer accordingly.
    pub async fn rest(&self, mode: Mode) -> anyhow::Result<()> {
        self.delete().await?;
        let patch = json!({"spec": {"runtimeSettings": {"globalExtAuth": {"failOpen": mode == Mode::FailOpen}}}});
        let (namespace, name) = EDGE;
        let patch = [
            "-n",
            namespace,
            "patch",
            "cdep",
            name,
            "--type=merge",
            "-p",
            &patch.to_string(),
        ];
        self.cluster.kubectl().run(&patch).await.context("setting failOpen")?;
        let (traffic, without) = match mode {
            Mode::FailClosed => ("Denied", 403),
            Mode::FailOpen => ("AllowedUnchecked", 200),
        };
        Wait::for_it(format!(
            "the ContourDeployment has settled with traffic {traffic} without the service"
        ))
        .within(ROLLOUT)
        .until(async || {
            let status = match self.edge.look_settled().await? {
                Look::Reached(status) => status,
                Look::NotYet(seen) => return Ok(Look::NotYet(seen)),
            };
            let now = status
                .extension_services
                .first()
                .map_or("unknown", |service| &service.traffic);
            Ok(Look::when(now == traffic, format!("the traffic is {now}")))
        })
        .await?;
        self.until_answered(Caller::Anonymous, without).await
    }

    /// Waits until both hosts answer with this status, [`AGREEING`] times in a row.
    pub async fn until_answered(&self, caller: Caller, status: u16) -> anyhow::Result<()> {
        let mut agreed = 0;
        Wait::for_it(format!("both hosts answer {status} to {caller}"))
            .within(ROLLOUT)
            .every(Duration::from_millis(5))
            .silently()
            .until(async || {
                let [http, https] = &self.hosts;
                let (http, https) = tokio::join!(http.get(caller), https.get(caller));
                let right = [&http, &https]
                    .into_iter()
                    .all(|answer| answer.status() == Some(status));
                agreed = if right { agreed + 1 } else { 0 };
                Ok(Look::when(agreed == AGREEING, format!("http {http}, https {https}")))
            })
            .await
    }

    /// Creates the ExtensionService.
    pub async fn create(&self, form: Form) -> anyhow::Result<()> {
        let object = serde_json::from_value(json!({
            "apiVersion": "projectcontour.io/v1alpha1",
            "kind": "ExtensionService",
            "metadata": {"namespace": "auth", "name": "auth"},
            "spec": spec(form),
        }))?;
        self.services
            .create(&PostParams::default(), &object)
            .await
            .with_context(|| format!("creating the ExtensionService ({form:?})"))
            .map(drop)
    }

    /// Changes the ExtensionService.
    pub async fn edit(&self, form: Form) -> anyhow::Result<()> {
        let patch = Patch::Merge(json!({"spec": spec(form)}));
        self.services
            .patch("auth", &PatchParams::default(), &patch)
            .await
            .with_context(|| format!("changing the ExtensionService ({form:?})"))
            .map(drop)
    }

    /// Deletes the ExtensionService. Without finalizers it no longer exists after the response. An absent ExtensionService is not an error.
    pub async fn delete(&self) -> anyhow::Result<()> {
        match self.services.delete("auth", &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(error).context("deleting the ExtensionService"),
        }
    }

    /// Deletes the objects of this proof, except the ContourDeployment.
    pub async fn clear(self) -> anyhow::Result<()> {
        self.delete().await?;
        let kubectl = self.cluster.kubectl();
        let own = [
            "-n",
            "auth",
            "delete",
            "deployment,service",
            "flap-auth",
            "--wait=false",
        ];
        kubectl.run(&own).await?;
        kubectl
            .run(&["delete", "namespace", "flap", "--timeout=60s"])
            .await
            .map(drop)
    }
}

fn spec(form: Form) -> Value {
    let (service, port) = match form {
        Form::NoSuchService => ("nowhere", 9001),
        Form::NoSuchPort => ("flap-auth", 9002),
        Form::Valid | Form::NoSuchAuthority => ("flap-auth", 9001),
    };
    let (protocol, validation) = match form {
        Form::NoSuchAuthority => ("h2", json!({"caSecret": "nowhere", "subjectName": "auth.example.com"})),
        _ => ("h2c", Value::Null),
    };
    json!({"protocol": protocol, "services": [{"name": service, "port": port}], "validation": validation})
}

/// Returns the address at which pods reach this machine: the address before the node's.
async fn machine(client: &Client) -> anyhow::Result<IpAddr> {
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?;
    let node = nodes.items.into_iter().next().context("the cluster has no node")?;
    let addresses = node.status.and_then(|status| status.addresses).unwrap_or_default();
    let internal = addresses.into_iter().find(|address| address.type_ == "InternalIP");
    let internal: Ipv4Addr = internal.context("the node has no address")?.address.parse()?;
    let before = Ipv4Addr::from_bits(internal.to_bits() - 1);
    ensure!(
        before.is_private() || before.octets()[0] == 198,
        "{before} is not an address of the testbed"
    );
    Ok(before.into())
}
