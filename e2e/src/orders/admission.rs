//! When a namespace that was deleted may be made again.
//!
//! The API server's admission (`NamespaceLifecycle`) reads namespaces from a cache, which for a moment still holds the one that
//! was deleted. Made again within it, the new one gets nothing: "unable to create new content in namespace … because it is being
//! terminated". Kubernetes' own controllers take that for final (`serviceaccounts_controller.go` and `publisher.go` of
//! kube-controller-manager v1.34), so that its ServiceAccount `default` or its `kube-root-ca.crt` may never come.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use crate::wait::{Look, Wait};

/// How long the cache may lag.
const LAG: Duration = Duration::from_secs(30);

/// Waits until admission knows, too, that this namespace, which is deleted and not to be read any more, is gone.
pub async fn knows_of_the_end_of(client: &Client, namespace: &str) -> anyhow::Result<()> {
    let probe = ConfigMap {
        metadata: ObjectMeta {
            name: Some("probe".to_owned()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    };
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let there = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    Wait::for_it(format!("admission knows that namespace {namespace} is gone"))
        .within(LAG)
        .every(Duration::from_millis(10))
        .silently()
        .until(async || match there.create(&dry_run, &probe).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(Look::Reached(())),
            Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(Look::NotYet(status.message.clone())),
            Err(error) => Err(error.into()),
            Ok(_) => anyhow::bail!("somebody made it again"),
        })
        .await
}
