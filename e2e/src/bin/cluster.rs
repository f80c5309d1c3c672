//! `make cluster`: a real one-node cluster for daily work, with Contour's CRDs and a Slipway built from the present code. Another run
//! rebuilds Slipway and updates the same cluster.

use slipway_e2e::cluster::{Cluster, testbed};
use slipway_e2e::installation;
use slipway_e2e::narration::{show, title};

/// The cluster's name; `make cluster-down` stops the cluster.
const NAME: &str = "dev";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    title("a cluster for daily work");
    testbed(&["install"]).await?;
    let kubeconfig = testbed(&["up", NAME]).await?;
    let cluster = Cluster::attach(NAME).await?;
    installation::everything(&cluster).await?;
    // The image has the same name as the previous one, so only a new pod uses it.
    let restart = [
        "-n",
        installation::SLIPWAY_NAMESPACE,
        "rollout",
        "restart",
        "deployment/slipway",
    ];
    cluster.kubectl().run(&restart).await?;
    installation::slipway(&cluster).await?;
    let kubectl = testbed(&["path", "kubectl"]).await?;
    title("the cluster runs");
    show(&format!(
        "export KUBECONFIG={}\nalias kubectl={}\nkubectl apply -f config/samples/contourdeployment.yaml\nkubectl get cdep -A -w",
        kubeconfig.trim(),
        kubectl.trim()
    ));
    Ok(())
}
