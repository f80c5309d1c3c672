//! The time after which a deleted namespace can be recreated.
//!
//! The API server's admission plugin `NamespaceLifecycle` reads namespaces from a cache. For a moment this cache still contains the
//! deleted namespace. If the namespace is recreated during this time, requests for objects in the new namespace fail: "unable to
//! create new content in namespace … because it is being terminated". Kubernetes' own controllers treat this error as final
//! (`serviceaccounts_controller.go` and `publisher.go` of kube-controller-manager v1.34). So the new namespace may never get its
//! ServiceAccount `default` or its `kube-root-ca.crt`.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use crate::wait::{Look, Wait};

/// The longest lag of the cache.
const LAG: Duration = Duration::from_secs(30);

/// Waits until the admission plugin has also observed the deletion of this namespace, which can no longer be read.
pub async fn wait_until_deletion_is_known(client: &Client, namespace: &str) -> anyhow::Result<()> {
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
    Wait::for_it(format!("admission has observed the deletion of namespace {namespace}"))
        .within(LAG)
        .every(Duration::from_millis(10))
        .silently()
        .until(async || match there.create(&dry_run, &probe).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(Look::Reached(())),
            Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(Look::NotYet(status.message.clone())),
            Err(error) => Err(error.into()),
            Ok(_) => anyhow::bail!("another client recreated the namespace"),
        })
        .await
}
