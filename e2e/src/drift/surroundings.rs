//! The surroundings of a ContourDeployment's objects: objects of other users, which Slipway must not touch, and the validity of the
//! certificates.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use kube::api::{Patch, PatchParams, PostParams};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};

use crate::edge::{OWNER_NAME, OWNER_NAMESPACE};
use crate::lab::{Lab, Thing};

/// Objects of other users beside Slipway's. They differ from Slipway's objects as little as possible.
pub struct Bystanders(Vec<(Thing, Value)>);

impl Bystanders {
    /// Creates the objects in these namespaces.
    pub async fn create(lab: &Lab, namespaces: &[&str]) -> anyhow::Result<Self> {
        let mut made = Vec::new();
        for namespace in namespaces {
            for object in foreign(namespace, namespaces[0]) {
                let kind = super::watches::created_kinds()
                    .find(|kind| object["kind"] == *kind)
                    .context("not a kind that Slipway creates")?;
                let name = object["metadata"]["name"].as_str().context("a name")?;
                let stored = if object["metadata"]["labels"][OWNER_NAME].is_null() {
                    serde_json::to_value(lab.create(&object).await?)?
                } else {
                    create_with_one_label(lab, kind, &object).await?
                };
                made.push((
                    Thing::new(kind, namespace, name),
                    stored["metadata"]["resourceVersion"].clone(),
                ));
            }
        }
        Ok(Self(made))
    }

    /// Checks that nobody has written to any of them.
    pub async fn check_unchanged(&self, lab: &Lab) -> anyhow::Result<()> {
        for (thing, version) in &self.0 {
            let now = lab.read(thing).await?;
            ensure!(
                now["metadata"]["resourceVersion"] == *version,
                "{thing} was changed: {now}"
            );
        }
        Ok(())
    }
}

/// Creates an object and removes one of its two owner labels. The policies allow only the operator to create such an object, and forbid the
/// operator an object without this label. But an object from a time before the policies may exist.
async fn create_with_one_label(lab: &Lab, kind: &str, object: &Value) -> anyhow::Result<Value> {
    let namespace = object["metadata"]["namespace"].as_str().context("a namespace")?;
    let name = object["metadata"]["name"].as_str().context("a name")?;
    let api = lab.unguarded(kind, namespace);
    let parsed = serde_json::from_value(object.clone())?;
    api.create(&PostParams::default(), &parsed)
        .await
        .with_context(|| format!("creating {kind} {namespace}/{name}"))?;
    let patch = Patch::Merge(json!({"metadata": {"labels": {OWNER_NAME: null}}}));
    let stored = api.patch(name, &PatchParams::default(), &patch).await;
    Ok(serde_json::to_value(
        stored.with_context(|| format!("patching {kind} {namespace}/{name}"))?,
    )?)
}

/// Returns objects of kinds that no controller of Kubernetes' own writes to.
fn foreign(namespace: &str, edge: &str) -> Vec<Value> {
    // One of the two owner labels will be removed.
    let metadata = json!({
        "namespace": namespace, "name": "neighbour",
        "labels": {"app.kubernetes.io/managed-by": "slipway", OWNER_NAMESPACE: edge, OWNER_NAME: "neighbour"},
    });
    // A RoleBinding with one of the labels needs a ContourDeployment, which does not exist yet.
    let unowned = json!({
        "namespace": namespace, "name": "neighbour", "labels": {"app.kubernetes.io/managed-by": "slipway"},
    });
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"});
    vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"a": "Yg=="}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 1}]}}),
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {}}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": unowned, "roleRef": role}),
        json!({
            "apiVersion": "projectcontour.io/v1alpha1", "kind": "ExtensionService", "metadata": metadata,
            "spec": {"services": [{"name": "neighbour", "port": 1}]},
        }),
        json!({"apiVersion": "projectcontour.io/v1alpha1", "kind": "ContourConfiguration", "metadata": metadata, "spec": {}}),
    ]
}

/// Checks that the authority of Contour and Envoy signed both certificates.
pub async fn check_certificates(lab: &Lab, namespace: &str) -> anyhow::Result<()> {
    for name in ["edge-contour-cert", "edge-envoy-cert"] {
        let secret = Thing::new("Secret", namespace, name);
        let data = lab.read(&secret).await?["data"].clone();
        let pem = |key: &str| {
            let text = data[key].as_str().with_context(|| format!("{secret} has no {key}"))?;
            let bytes: k8s_openapi::ByteString = serde_json::from_value(json!(text))?;
            CertificateDer::pem_slice_iter(&bytes.0)
                .collect::<Result<Vec<_>, _>>()
                .with_context(|| format!("{key} of {secret}"))
        };
        let mut roots = rustls::RootCertStore::empty();
        for authority in pem("ca.crt")? {
            roots.add(authority)?;
        }
        let (roots, provider) = (Arc::new(roots), Arc::new(rustls::crypto::ring::default_provider()));
        let chain = pem("tls.crt")?;
        let own = chain.first().with_context(|| format!("{secret} has no certificate"))?;
        // Contour is the server, Envoy the client.
        let verdict = if name.contains("envoy") {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build()?;
            verifier.verify_client_cert(own, &chain[1..], UnixTime::now()).map(drop)
        } else {
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build()?;
            let contour = ServerName::try_from("contour")?;
            verifier
                .verify_server_cert(own, &chain[1..], &contour, &[], UnixTime::now())
                .map(drop)
        };
        verdict.with_context(|| format!("{secret} does not match its authority"))?;
    }
    Ok(())
}
