//! Contour without Slipway, with a reference to an ExtensionService that does not exist: the contrast.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use crate::kubectl::Kubectl;
use crate::places;
use crate::wait::{Look, Wait};

const NAMESPACE: &str = "stock";

/// Runs stock Contour in its own namespace until Contour crashes. Returns the fatal log line.
pub async fn crash_line(kubectl: &Kubectl) -> anyhow::Result<String> {
    kubectl
        .apply_file(&places::fixture("stock-contour.yaml"))
        .await
        .context("starting stock Contour")?;
    Wait::for_it("stock Contour has exited and restarted")
        .until(async || {
            let pods = kubectl
                .json(&["-n", NAMESPACE, "get", "pods", "-l", "app=contour"])
                .await?;
            let restarts = pods["items"][0]["status"]["containerStatuses"][0]["restartCount"].as_u64();
            Ok(Look::when(
                restarts > Some(0),
                format!("{} restarts", restarts.unwrap_or(0)),
            ))
        })
        .await?;
    Wait::for_it("the log of stock Contour has a fatal line")
        .until(async || {
            // For a moment after a container exits, either log may be unreadable.
            for which in ["--previous=true", "--previous=false"] {
                let log = kubectl
                    .run(&["-n", NAMESPACE, "logs", "deployment/contour", which])
                    .await
                    .unwrap_or_default();
                if let Some(line) = log.lines().find(|line| line.contains("level=fatal")) {
                    return Ok(Look::Reached(line.to_owned()));
                }
            }
            Ok(Look::NotYet(
                "neither the current nor the previous container logged a fatal line".to_owned(),
            ))
        })
        .await
}

/// Deletes stock Contour and waits until its namespace no longer exists.
pub async fn remove(kubectl: &Kubectl) -> anyhow::Result<()> {
    let file = places::fixture("stock-contour.yaml");
    kubectl
        .run(&["delete", "--wait=false", "-f", &file.to_string_lossy()])
        .await
        .context("deleting stock Contour")?;
    let everywhere = ["get", "namespaces", "--field-selector", "metadata.name=stock"];
    Wait::for_it("stock Contour's namespace no longer exists")
        .within(Duration::from_secs(90))
        .until(async || {
            let namespaces: Value = kubectl.json(&everywhere).await?;
            let left = namespaces["items"].as_array().is_some_and(|items| !items.is_empty());
            Ok(Look::when(!left, "the namespace is terminating"))
        })
        .await
}
