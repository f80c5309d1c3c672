//! `kubectl apply` refuses invalid ContourDeployments with a message that names the field.

use anyhow::ensure;
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};

use slipway_e2e::lab::world::beside_others;
use slipway_e2e::lab::{Lab, contour_deployment, specification};

/// A change to a valid ContourDeployment (a JSON pointer and a value), and the texts that the error message must contain.
type Case = (&'static str, Value, &'static [&'static str]);

const AUTH: &str = "/spec/runtimeSettings/globalExtAuth";

fn cases() -> Vec<Case> {
    let all = [
        unknown_fields(),
        values_of_the_wrong_type(),
        invalid_references(),
        values_that_contour_or_envoy_rejects(),
        empty_or_out_of_range_values(),
        fields_that_slipway_sets(),
        settings_of_the_workloads(),
        invalid_names(),
    ];
    all.into_iter().flatten().collect()
}

/// Returns cases with fields that do not exist.
fn unknown_fields() -> Vec<Case> {
    vec![
        (
            "/spec/contour",
            json!({"replica": 2}),
            &["unknown field", "spec.contour.replica"],
        ),
        (
            "/spec/envoy",
            json!({"deployments": {}}),
            &["unknown field", "spec.envoy.deployments"],
        ),
        ("/spec/enovy", json!({}), &["unknown field", "spec.enovy"]),
        (
            "/spec/runtimeSettings/globalExtAuth/failopen",
            json!(true),
            &["unknown field", "spec.runtimeSettings.globalExtAuth.failopen"],
        ),
        (
            "/spec/contour",
            json!({"deployment": {"replica": 2}}),
            &["unknown field", "spec.contour.deployment.replica"],
        ),
    ]
}

/// Returns cases with values of the wrong type, and with values that the enumeration does not contain.
fn values_of_the_wrong_type() -> Vec<Case> {
    vec![
        (
            "/spec/contour",
            json!({"deployment": {"replicas": "two"}}),
            &["spec.contour.deployment.replicas", "integer"],
        ),
        (
            "/spec/runtimeSettings/globalExtAuth/failOpen",
            json!("false"),
            &["spec.runtimeSettings.globalExtAuth.failOpen", "boolean"],
        ),
        (
            "/spec/contour",
            json!({"logLevel": "verbose"}),
            &["spec.contour.logLevel", "info", "debug"],
        ),
        (
            "/spec/envoy",
            json!({"logLevel": "verbose"}),
            &["spec.envoy.logLevel", "critical"],
        ),
        (
            "/spec/envoy",
            json!({"workloadType": "StatefulSet"}),
            &["spec.envoy.workloadType", "DaemonSet", "Deployment"],
        ),
        (
            "/spec/envoy",
            json!({"networkPublishing": {"type": "LoadBalancer"}}),
            &["spec.envoy.networkPublishing.type", "LoadBalancerService"],
        ),
        (
            "/spec/extensionServices",
            json!({"readiness": "Optional"}),
            &["spec.extensionServices.readiness", "Tolerated"],
        ),
        ("/spec/runtimeSettings", json!([]), &["spec.runtimeSettings", "object"]),
    ]
}

/// Returns cases with invalid references.
fn invalid_references() -> Vec<Case> {
    vec![
        (
            "/spec/runtimeSettings/globalExtAuth/extensionRef",
            json!({"name": "auth"}),
            &["spec.runtimeSettings.globalExtAuth.extensionRef.namespace", "Required"],
        ),
        (
            "/spec/runtimeSettings/globalExtAuth/extensionRef",
            json!({"namespace": "auth"}),
            &["spec.runtimeSettings.globalExtAuth.extensionRef.name", "Required"],
        ),
        (
            AUTH,
            json!({"failOpen": true}),
            &["spec.runtimeSettings.globalExtAuth.extensionRef", "Required"],
        ),
        (
            "/spec/runtimeSettings/globalExtAuth/extensionRef/name",
            json!(""),
            &["spec.runtimeSettings.globalExtAuth.extensionRef.name"],
        ),
        (
            "/spec/runtimeSettings/globalExtAuth/extensionRef/namespace",
            json!(""),
            &["spec.runtimeSettings.globalExtAuth.extensionRef.namespace"],
        ),
        (
            "/spec/runtimeSettings/globalExtAuth/extensionRef/name",
            json!("Auth"),
            &["spec.runtimeSettings.globalExtAuth.extensionRef.name"],
        ),
        (
            "/spec/runtimeSettings/globalExtAuth/extensionRef/apiVersion",
            json!("v1"),
            &[
                "spec.runtimeSettings.globalExtAuth.extensionRef",
                "apiVersion must be projectcontour.io/v1alpha1",
            ],
        ),
        (
            "/spec/runtimeSettings/rateLimitService",
            json!({"domain": "d", "extensionService": {"namespace": "a"}}),
            &[
                "spec.runtimeSettings.rateLimitService.extensionService.name",
                "Required",
            ],
        ),
        (
            "/spec/runtimeSettings/tracing",
            json!({"extensionService": {"name": "a"}}),
            &["spec.runtimeSettings.tracing.extensionService.namespace", "Required"],
        ),
        (
            "/spec/runtimeSettings/tracing",
            json!({}),
            &["spec.runtimeSettings.tracing.extensionService", "Required"],
        ),
    ]
}

/// Returns cases with values that Contour or Envoy rejects.
fn values_that_contour_or_envoy_rejects() -> Vec<Case> {
    let limits = |domain: &str| json!({"extensionService": {"namespace": "a", "name": "b"}, "domain": domain});
    let tracing = |tag: Value| json!({"extensionService": {"namespace": "a", "name": "b"}, "customTags": [tag]});
    vec![
        (
            "/spec/runtimeSettings/globalExtAuth/responseTimeout",
            json!("soon"),
            &["spec.runtimeSettings.globalExtAuth.responseTimeout"],
        ),
        (
            "/spec/runtimeSettings/rateLimitService",
            limits(""),
            &["spec.runtimeSettings.rateLimitService.domain"],
        ),
        (
            "/spec/runtimeSettings/rateLimitService",
            json!({"extensionService": {"namespace": "a", "name": "b"}}),
            &["spec.runtimeSettings.rateLimitService.domain", "Required"],
        ),
        (
            "/spec/runtimeSettings/tracing",
            tracing(json!({"tagName": "t"})),
            &[
                "spec.runtimeSettings.tracing.customTags[0]",
                "exactly one of literal and requestHeaderName",
            ],
        ),
        (
            "/spec/runtimeSettings/tracing",
            tracing(json!({"tagName": "t", "literal": "a", "requestHeaderName": "b"})),
            &[
                "spec.runtimeSettings.tracing.customTags[0]",
                "exactly one of literal and requestHeaderName",
            ],
        ),
        (
            "/spec/runtimeSettings/tracing",
            tracing(json!({"literal": "a"})),
            &["spec.runtimeSettings.tracing.customTags[0].tagName", "Required"],
        ),
    ]
}

/// Returns cases with empty strings, empty lists, and numbers that are out of range.
fn empty_or_out_of_range_values() -> Vec<Case> {
    vec![
        ("/spec/contour", json!({"image": ""}), &["spec.contour.image"]),
        (
            "/spec/contour",
            json!({"deployment": {"replicas": 0}}),
            &["spec.contour.deployment.replicas", "greater than or equal to 1"],
        ),
        (
            "/spec/contour",
            json!({"deployment": {"replicas": 1001}}),
            &["spec.contour.deployment.replicas", "less than or equal to 1000"],
        ),
        (
            "/spec/contour",
            json!({"kubernetesLogLevel": 10}),
            &["spec.contour.kubernetesLogLevel", "less than or equal to 9"],
        ),
        (
            "/spec/contour",
            json!({"kubernetesLogLevel": -1}),
            &["spec.contour.kubernetesLogLevel", "greater than or equal to 0"],
        ),
        (
            "/spec/runtimeSettings/tracing",
            json!({"extensionService": {"namespace": "a", "name": "b"}, "customTags": []}),
            &["spec.runtimeSettings.tracing.customTags"],
        ),
        (
            "/spec/contour",
            json!({"nodePlacement": {"tolerations": []}}),
            &["spec.contour.nodePlacement.tolerations"],
        ),
    ]
}

/// Returns cases with fields that Slipway sets, and with fields that Slipway does not support.
fn fields_that_slipway_sets() -> Vec<Case> {
    vec![
        (
            "/spec/runtimeSettings/xdsServer",
            json!({"port": 1}),
            &["spec.runtimeSettings", "xdsServer is set by Slipway"],
        ),
        (
            "/spec/runtimeSettings/gateway",
            json!({"gatewayRef": {}}),
            &["spec.runtimeSettings", "gateway (Gateway API) is not supported"],
        ),
        (
            "/spec/runtimeSettings/envoy",
            json!({"service": {"namespace": "a", "name": "b"}}),
            &["spec.runtimeSettings", "envoy.service is set by Slipway"],
        ),
        (
            "/spec/envoy",
            json!({"deployment": {"replicas": 3}}),
            &["spec.envoy", "need workloadType: Deployment"],
        ),
    ]
}

/// Returns cases with invalid settings of the workloads.
fn settings_of_the_workloads() -> Vec<Case> {
    vec![
        (
            "/spec/contour",
            json!({"logFormat": "xml"}),
            &["spec.contour.logFormat", "json"],
        ),
        (
            "/spec/contour",
            json!({"deployment": {"minReadySeconds": 301}}),
            &["spec.contour.deployment.minReadySeconds", "less than or equal to 300"],
        ),
        (
            "/spec/contour",
            json!({"deployment": {"strategy": {"kind": "Recreate"}}}),
            &["unknown field", "spec.contour.deployment.strategy.kind"],
        ),
        (
            "/spec/contour",
            json!({"kubernetesClient": {"qps": 0}}),
            &["spec.contour.kubernetesClient.qps", "greater than or equal to 1"],
        ),
        (
            "/spec/contour",
            json!({"leaderElection": {"retryPeriod": 2}}),
            &["spec.contour.leaderElection.retryPeriod", "string"],
        ),
        (
            "/spec/contour",
            json!({"podTemplate": []}),
            &["spec.contour.podTemplate", "object"],
        ),
        (
            "/spec/envoy",
            json!({"workloadType": "Deployment", "daemonSet": {"minReadySeconds": 1}}),
            &["spec.envoy", "need workloadType: DaemonSet"],
        ),
        (
            "/spec/envoy",
            json!({"shutdown": {"gracePeriodSeconds": 0}}),
            &["spec.envoy.shutdown.gracePeriodSeconds", "greater than or equal to 1"],
        ),
        (
            "/spec/envoy",
            json!({"baseID": -1}),
            &["spec.envoy.baseID", "greater than or equal to 0"],
        ),
        (
            "/spec/envoy",
            json!({"extraArgs": [1]}),
            &["spec.envoy.extraArgs[0]", "string"],
        ),
        (
            "/spec/envoy",
            json!({"overloadMaxHeapSize": "2Gi"}),
            &["spec.envoy.overloadMaxHeapSize", "integer"],
        ),
    ]
}

/// Returns cases with invalid names.
fn invalid_names() -> Vec<Case> {
    vec![
        ("/metadata/name", json!("Edge"), &["metadata.name", "lowercase"]),
        (
            "/metadata/name",
            json!("1edge"),
            &["metadata.name must be a DNS-1035 label"],
        ),
        (
            "/metadata/name",
            json!("edge.one"),
            &["metadata.name must be a DNS-1035 label"],
        ),
        (
            "/metadata/name",
            json!("e".repeat(41)),
            &["metadata.name must be a DNS-1035 label of at most 40 characters"],
        ),
    ]
}

#[tokio::test]
async fn kubectl_apply_refuses_invalid_values_and_names_the_field() {
    beside_others("bad-input", async |lab: &Lab| {
        let outcomes: Vec<String> = futures::stream::iter(cases().into_iter().enumerate())
            .map(async |(number, case)| problem_with(lab, number, &case).await)
            .buffer_unordered(4)
            .try_collect()
            .await?;
        let problems: Vec<_> = outcomes.into_iter().filter(|outcome| !outcome.is_empty()).collect();
        ensure!(
            problems.is_empty(),
            "{} of {} cases failed:\n{}",
            problems.len(),
            cases().len(),
            problems.join("\n")
        );
        let list = lab
            .world
            .kubectl()
            .run(&["get", "cdep", "-n", &lab.namespace, "-o", "name"])
            .await?;
        ensure!(list.is_empty(), "an invalid object was stored: {list}");
        Ok(())
    })
    .await;
}

/// Returns the problem with the outcome of a case, or an empty string if the case passes.
async fn problem_with(lab: &Lab, number: usize, (pointer, value, expected): &Case) -> anyhow::Result<String> {
    let mut object = contour_deployment(&lab.namespace, &specification("auth"));
    object["metadata"]["name"] = json!(format!("case-{number}"));
    let (parent, key) = pointer.rsplit_once('/').expect("the pointer has a parent");
    object.pointer_mut(parent).expect("the parent is in the valid object")[key] = value.clone();
    Ok(match lab.world.kubectl().apply(&object).await {
        Ok(_) => format!("{pointer} = {value} was accepted"),
        Err(error) => {
            let text = format!("{error:#}");
            let missing: Vec<_> = expected.iter().filter(|part| !text.contains(**part)).collect();
            if missing.is_empty() {
                String::new()
            } else {
                format!("{pointer} = {value}: {missing:?} is not in: {text}")
            }
        }
    })
}

#[tokio::test]
async fn the_api_server_accepts_the_samples() {
    beside_others("samples", async |lab: &Lab| {
        for sample in ["contourdeployment.yaml", "auth-extensionservice.yaml", "auth.yaml"] {
            let file = slipway_e2e::places::sample(sample);
            // An error about a missing namespace is not a problem of the sample.
            let applied = lab
                .world
                .kubectl()
                .run(&["apply", "--dry-run=server", "-f", &file.to_string_lossy()])
                .await;
            let refusals: Vec<String> = match applied {
                Ok(_) => Vec::new(),
                Err(error) => format!("{error:#}")
                    .lines()
                    .filter(|line| line.starts_with("Error") || line.contains("invalid"))
                    .map(str::to_owned)
                    .collect(),
            };
            let refusals: Vec<_> = refusals
                .iter()
                .filter(|line| !line.contains("namespaces \"") || !line.contains("not found"))
                .collect();
            ensure!(refusals.is_empty(), "{sample}: {refusals:?}");
        }
        Ok(())
    })
    .await;
}
