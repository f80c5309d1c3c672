//! The operator's HTTP server: probes and metrics.

use anyhow::ensure;
use slipway_e2e::wait::Look;

use slipway_e2e::lab::operator;
use slipway_e2e::lab::world::beside_others;
use slipway_e2e::lab::{Lab, PROMPT, specification, wait};

#[tokio::test]
async fn the_operator_serves_probes_and_metrics() {
    beside_others("probes", async |lab: &Lab| {
        for path in ["/livez", "/readyz", "/metrics"] {
            let (code, body) = operator::get(lab.world.address(), path).await?;
            ensure!(code == 200, "{path}: {code} {body}");
        }
        let (code, _) = operator::get(lab.world.address(), "/debug").await?;
        ensure!(code == 404, "/debug: {code}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_deleted_contour_deployment_leaves_no_metrics() {
    beside_others("metrics-gone", async |lab: &Lab| {
        let edge = lab.edge(&specification("nowhere")).await?;
        let own = [("contourdeployment_namespace", lab.namespace.as_str())];
        let series = async || {
            anyhow::Ok(
                lab.metrics()
                    .await?
                    .of("slipway_contourdeployment_condition", &own)
                    .count(),
            )
        };
        wait("the ContourDeployment has series", PROMPT)
            .until(async || Ok(Look::when(series().await? > 0, "none")))
            .await?;
        edge.delete().await?;
        lab.wait_until_nothing_is_left(&edge).await?;
        wait("the ContourDeployment has no series", PROMPT)
            .until(async || {
                let count = series().await?;
                Ok(Look::when(count == 0, format!("{count} series")))
            })
            .await
    })
    .await;
}
