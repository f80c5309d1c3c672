//! Installs Slipway, the fixtures and the sample on a cluster as a user does: with `kubectl apply`.

use std::time::Duration;

use anyhow::Context as _;
use kube::api::{ApiResource, DeleteParams, DynamicObject, PostParams};
use kube::{Api, Client};
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;

use crate::certificate::Authority;
use crate::cluster::{self, Cluster};
use crate::hosts::HTTPS_HOST;
use crate::kubectl::Kubectl;
use crate::narration::say;
use crate::wait::{Look, Wait};
use crate::{images, places};

/// The namespace of Slipway itself.
pub const SLIPWAY_NAMESPACE: &str = "slipway-system";

/// Builds and loads the images, and installs Contour's CRDs and Slipway.
pub async fn everything(cluster: &Cluster) -> anyhow::Result<()> {
    say("building the static binaries and their images");
    cluster.load(&images::build().await?).await?;
    contour_crds(cluster).await?;
    slipway(cluster).await
}

/// Installs Contour's CRDs with server-side apply. The CRDs are too large for the annotation of client-side apply.
pub async fn contour_crds(cluster: &Cluster) -> anyhow::Result<()> {
    let file = cluster::contour_crds().await?;
    let kubectl = cluster.kubectl();
    kubectl
        .run(&["apply", "--server-side", "-f", &file.to_string_lossy()])
        .await
        .context("installing Contour's CRDs")?;
    established(
        kubectl,
        &["extensionservices.projectcontour.io", "httpproxies.projectcontour.io"],
    )
    .await
}

/// Installs Slipway as the README describes, and waits until Slipway's Deployment is available.
pub async fn slipway(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    let folder = places::repository().join("config/default");
    kubectl
        .run(&["apply", "-k", &folder.to_string_lossy()])
        .await
        .context("installing Slipway")?;
    established(kubectl, &["contourdeployments.contour.slipway.dev"]).await?;
    let rollout = [
        "-n",
        SLIPWAY_NAMESPACE,
        "rollout",
        "status",
        "deployment/slipway",
        "--timeout=60s",
    ];
    kubectl
        .run(&rollout)
        .await
        .context("waiting for Slipway's Deployment")?;
    Ok(())
}

/// Starts the operator after [`stop_operator`]. Does not wait until the operator runs.
pub async fn start_operator(cluster: &Cluster) -> anyhow::Result<()> {
    scale_operator(cluster, 1).await
}

/// Stops the operator and waits until its pod no longer exists.
pub async fn stop_operator(cluster: &Cluster) -> anyhow::Result<()> {
    scale_operator(cluster, 0).await?;
    Wait::for_it("the operator's pod no longer exists")
        .silently()
        .until(async || {
            let pods = ["-n", SLIPWAY_NAMESPACE, "get", "pods", "-o", "name"];
            let pods = cluster.kubectl().run(&pods).await?;
            Ok(Look::when(pods.trim().is_empty(), pods))
        })
        .await
}

async fn scale_operator(cluster: &Cluster, replicas: u8) -> anyhow::Result<()> {
    let replicas = format!("--replicas={replicas}");
    let scale = ["-n", SLIPWAY_NAMESPACE, "scale", "deployment/slipway", &replicas];
    cluster.kubectl().run(&scale).await.map(drop)
}

/// Creates the backend and its two hosts. Returns the certificate of the authority that signed the HTTPS host's certificate.
pub async fn backend(cluster: &Cluster) -> anyhow::Result<CertificateDer<'static>> {
    let kubectl = cluster.kubectl();
    kubectl
        .apply_file(&places::fixture("backend.yaml"))
        .await
        .context("starting the backend")?;
    let authority = Authority::new()?;
    let secret = authority.sign(HTTPS_HOST)?.secret("demo", "https-demo-test");
    kubectl
        .apply(&secret)
        .await
        .context("storing the HTTPS host's certificate")?;
    let rollout = ["-n", "demo", "rollout", "status", "deployment/httpbin", "--timeout=60s"];
    kubectl.run(&rollout).await.context("waiting for the backend")?;
    Ok(authority.certificate_der())
}

/// Creates namespace `auth` with the authorization server and its Service, and waits until the server is ready.
pub async fn auth_server(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    kubectl
        .apply_file(&places::sample("auth.yaml"))
        .await
        .context("starting the authorization server")?;
    let rollout = ["-n", "auth", "rollout", "status", "deployment", "--timeout=60s"];
    kubectl
        .run(&rollout)
        .await
        .context("waiting for the authorization server")?;
    Ok(())
}

async fn established(kubectl: &Kubectl, names: &[&str]) -> anyhow::Result<()> {
    let names: Vec<_> = names.iter().map(|name| format!("crd/{name}")).collect();
    let mut arguments = vec!["wait", "--for=condition=Established", "--timeout=30s"];
    arguments.extend(names.iter().map(String::as_str));
    kubectl
        .run(&arguments)
        .await
        .map(drop)
        .context("waiting until the CRDs are served")
}

/// The ExtensionService `auth/auth` of the samples. Direct API requests create and delete it, so that durations can be measured
/// from the request itself.
pub struct AuthService {
    api: Api<DynamicObject>,
    object: DynamicObject,
}

impl AuthService {
    /// Reads the sample.
    pub fn new(client: &Client) -> anyhow::Result<Self> {
        let file = places::sample("auth-extensionservice.yaml");
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let object: DynamicObject =
            serde_saphyr::from_str(&text).with_context(|| format!("reading {}", file.display()))?;
        let types = object
            .types
            .as_ref()
            .with_context(|| format!("{} has no kind", file.display()))?;
        let (group, version) = types
            .api_version
            .split_once('/')
            .context("the sample's apiVersion has no group")?;
        let resource = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: types.api_version.clone(),
            kind: types.kind.clone(),
            plural: "extensionservices".to_owned(),
        };
        let namespace = object
            .metadata
            .namespace
            .as_deref()
            .context("the sample has no namespace")?;
        Ok(Self {
            api: Api::namespaced_with(client.clone(), namespace, &resource),
            object,
        })
    }

    /// Creates the ExtensionService. Returns the time immediately before the request.
    pub async fn create(&self) -> anyhow::Result<Instant> {
        let sent = Instant::now();
        self.api
            .create(&PostParams::default(), &self.object)
            .await
            .context("creating the ExtensionService")?;
        Ok(sent)
    }

    /// Creates the ExtensionService if it does not exist.
    pub async fn ensure(&self) -> anyhow::Result<()> {
        if self
            .api
            .get_opt(self.name())
            .await
            .context("reading the ExtensionService")?
            .is_none()
        {
            self.create().await?;
        }
        Ok(())
    }

    fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }

    /// Deletes the ExtensionService and waits until it no longer exists. An absent ExtensionService is not an error.
    pub async fn delete(&self) -> anyhow::Result<()> {
        let name = self.name();
        match self.api.delete(name, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
            Err(error) => return Err(error).context("deleting the ExtensionService"),
        }
        Wait::for_it("the ExtensionService no longer exists")
            .every(Duration::from_millis(10))
            .silently()
            .until(async || {
                Ok(Look::when(
                    self.api.get_opt(name).await?.is_none(),
                    "the ExtensionService still exists",
                ))
            })
            .await
    }
}

/// Prints the state of the cluster for the analysis of a failure. Errors are printed, not returned.
pub async fn diagnose(cluster: &Cluster) {
    let questions: [&[&str]; 9] = [
        &["get", "pods", "--all-namespaces", "-o", "wide"],
        &[
            "get",
            "cdep,contourconfigurations,extensionservices,httpproxies",
            "--all-namespaces",
        ],
        &["describe", "cdep", "--all-namespaces"],
        &[
            "get",
            "events",
            "--all-namespaces",
            "--sort-by=.lastTimestamp",
            "--field-selector=type!=Normal",
        ],
        &["-n", SLIPWAY_NAMESPACE, "logs", "deployment/slipway", "--tail=60"],
        // Logs of all pods: only the leader reports what happened to a verdict.
        &[
            "-n",
            "projectcontour",
            "logs",
            "--selector=app.kubernetes.io/component=contour",
            "--prefix",
            "--tail=60",
        ],
        &["get", "extensionservices", "--all-namespaces", "-o", "yaml"],
        &["get", "leases", "--namespace=projectcontour", "-o", "yaml"],
        &["-n", "auth", "logs", "deployment/auth", "--tail=5"],
    ];
    for question in questions {
        say(format!("kubectl {}", question.join(" ")));
        match cluster.kubectl().run(question).await {
            Ok(printed) => crate::narration::show(&printed),
            Err(error) => crate::narration::show(&format!("{error:#}")),
        }
    }
}
