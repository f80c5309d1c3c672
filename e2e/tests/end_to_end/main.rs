//! End-to-end tests on a real cluster: real API server, kubelet, Contour, Envoy and authorization server.
//!
//! The tests need root and everything that `e2e/testbed/testbed check` checks. On a machine without these, the tests fail. The
//! tests run one at a time.

mod attacks;
mod stage;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use slipway_e2e::edge::{COMPONENT, Component, Edge};
use slipway_e2e::flap::place::Place;
use slipway_e2e::flap::{self, Mode};
use slipway_e2e::narration::say;
use slipway_e2e::probe::Caller;
use slipway_e2e::wait::{Look, Wait};
use slipway_e2e::{installation, leftovers};
use tokio::time::Instant;

use crate::stage::{Auth, NAMESPACE, ROLLOUT, Without, play};

#[tokio::test]
async fn contour_starts_and_denies_without_the_auth_namespace() {
    play("starts before anything exists", async |stage| {
        stage.remove(&stage.edge).await?;
        let hosts = stage.given(Without::Denied, Auth::Nothing).await?;
        for caller in [Caller::Anonymous, Caller::Authorized] {
            hosts.until(caller, 403).await?;
        }
        let status = stage.edge.status().await?;
        ensure!(status.is("Ready", "False") && status.is("Degraded", "True"), "{status}");
        let reason = status.condition("Ready").map(|ready| ready.reason.as_str());
        ensure!(reason == Some("ExtensionServiceMissing"), "the reason is {reason:?}");
        let service = status.extension_services.first().context("a service in the status")?;
        ensure!(service.traffic == "Denied", "the status reports {}", service.traffic);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn both_hosts_enforce_a_created_extension_service() {
    play("enforced after its creation", async |stage| {
        let hosts = stage.given(Without::Denied, Auth::Server).await?;
        hosts.until(Caller::Authorized, 403).await?;
        let sent = stage.service.create().await?;
        hosts.enforced_since(sent).await?;
        let status = stage.settled(Auth::Complete).await?;
        ensure!(status.is("Ready", "True") && status.is("Degraded", "False"), "{status}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn deleting_the_extension_service_denies_on_both_hosts() {
    play("survives deletion", async |stage| {
        let hosts = stage.given(Without::Denied, Auth::Complete).await?;
        hosts.until(Caller::Anonymous, 401).await?;
        hosts.until(Caller::Authorized, 200).await?;
        let before = stage.edge.rolled_state().await?;
        stage.service.delete().await?;
        hosts.change(Caller::Anonymous, &[401], 403).await?;
        hosts.change(Caller::Authorized, &[200], 403).await?;
        let status = stage.settled(Auth::Server).await?;
        ensure!(status.is("Ready", "False") && status.is("Degraded", "True"), "{status}");
        let proxies = stage.json(&["-n", "demo", "get", "httpproxies"]).await?;
        let proxies = proxies["items"].as_array().context("HTTPProxies")?;
        ensure!(
            proxies.iter().all(|proxy| proxy["status"]["currentStatus"] == "valid"),
            "{proxies:?}"
        );

        let sent = stage.service.create().await?;
        hosts.enforced_since(sent).await?;
        stage.settled(Auth::Complete).await?;
        ensure!(
            stage.edge.rolled_state().await? == before,
            "a workload was rolled out or a pod was replaced"
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn replaced_contour_pods_start_without_the_extension_service() {
    play("replaced pods", async |stage| {
        let hosts = stage.given(Without::Denied, Auth::Server).await?;
        hosts.until(Caller::Anonymous, 403).await?;
        let ((), watched) = hosts.watch_until(stage.replace_contour()).await?;
        watched.only(&[403])
    })
    .await;
}

#[tokio::test]
async fn the_old_service_is_enforced_until_the_new_one_exists() {
    play("an edit that references a later Service", async |stage| {
        let later = ["-n", "auth", "delete", "service", "later", "--ignore-not-found"];
        stage.kubectl(&later).await?;
        stage.given(Without::Denied, Auth::Complete).await?;
        // By default Envoy denies a request whose check takes more than 200 ms. On a busy machine, some checks take longer.
        let default_timeout = stage.edge.revision().await?;
        stage
            .edit_service(&json!({"timeoutPolicy": {"response": "10s"}}))
            .await?;
        let has_long_timeout = |object: &Value| object["spec"]["timeoutPolicy"]["response"] == "10s";
        stage.stand_in("has a timeout of 10 s", has_long_timeout).await?;
        Wait::for_it("Contour is rolled out to a stand-in with that timeout")
            .until(async || {
                let revision = stage.edge.revision().await?;
                Ok(Look::when(revision > default_timeout, format!("revision {revision}")))
            })
            .await?;
        stage.settled(Auth::Complete).await?;
        let hosts = stage.hosts().await?;
        hosts.until(Caller::Anonymous, 401).await?;
        let names = |service: &'static str| move |object: &Value| object["spec"]["services"][0]["name"] == service;
        let edited = async {
            stage
                .edit_service(&json!({"services": [{"name": "later", "port": 9001}]}))
                .await?;
            let invalid = stage.wait_for_service("Invalid", "Enforced").await?;
            ensure!(invalid.is("Degraded", "True"), "{invalid}");
            stage.stand_in("keeps the old spec", names("auth")).await?;
            hosts.enforced_since(Instant::now()).await?;
            let service = json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "auth", "name": "later"},
                "spec": {"selector": {"app.kubernetes.io/name": "auth"}, "ports": [{"port": 9001}]},
            });
            stage.cluster().kubectl().apply(&service).await?;
            stage.stand_in("has the new spec", names("later")).await?;
            stage.settled(Auth::Complete).await?;
            hosts.enforced_since(Instant::now()).await
        };
        let (_, watched) = hosts.watch_until(edited).await?;
        watched.only(&[401])?;
        // The next test starts with the spec of the sample.
        stage.service.delete().await?;
        stage.kubectl(&later).await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn contour_uses_a_blackhole_that_the_operator_recreated() {
    play("a deleted blackhole", async |stage| {
        let hosts = stage.given(Without::Denied, Auth::Server).await?;
        hosts.until(Caller::Authorized, 403).await?;
        installation::stop_operator(stage.cluster()).await?;
        let stand_in = stage.stand_in("exists", |_| true).await?;
        let of = |path: &str| stand_in.pointer(path).and_then(Value::as_str).context("a name");
        let blackhole = [
            "-n",
            of("/metadata/namespace")?,
            "service",
            of("/spec/services/0/name")?,
        ];
        let [flag, namespace, kind, name] = blackhole;
        let no_finalizers = r#"{"metadata":{"finalizers":null}}"#;
        stage
            .kubectl(&[
                flag,
                namespace,
                "patch",
                kind,
                name,
                "--type=merge",
                "-p",
                no_finalizers,
            ])
            .await?;
        stage.kubectl(&[flag, namespace, "delete", kind, name]).await?;
        // A running Contour does not observe the deletion of the blackhole. A Contour that starts without the blackhole does.
        stage.replace_contour().await?;
        let is_valid = |status: &'static str| {
            move |object: &Value| {
                let conditions = object["status"]["conditions"].as_array();
                let valid = conditions
                    .into_iter()
                    .flatten()
                    .find(|condition| condition["type"] == "Valid");
                valid.is_some_and(|valid| {
                    valid["status"] == status && valid["observedGeneration"] == object["metadata"]["generation"]
                })
            }
        };
        stage.stand_in("is not valid", is_valid("False")).await?;

        installation::start_operator(stage.cluster()).await?;
        stage.stand_in("is valid again", is_valid("True")).await?;
        hosts.until(Caller::Authorized, 403).await?;
        stage.settled(Auth::Server).await?;
        let sent = stage.service.create().await?;
        hosts.enforced_since(sent).await?;
        stage.settled(Auth::Complete).await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn a_service_with_the_verdict_of_its_predecessor_is_enforced() {
    play("the verdict of a predecessor", async |stage| {
        let hosts = stage.given(Without::Denied, Auth::Server).await?;
        hosts.until(Caller::Authorized, 403).await?;
        // An ExtensionService can be recreated just when Contour writes the verdict on its predecessor. This patch leaves the new
        // object in the same state.
        installation::stop_operator(stage.cluster()).await?;
        let sent = stage.service.create().await?;
        let status = r#"{"status":{"conditions":[{"type":"Valid","status":"True","observedGeneration":9,"reason":"Valid","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}"#;
        let patch = ["-n", "auth", "patch", "extensionservice", "auth", "--subresource=status", "--type=merge", "-p", status];
        stage.kubectl(&patch).await?;
        hosts.until(Caller::Authorized, 403).await?;
        installation::start_operator(stage.cluster()).await?;
        hosts.enforced_since(sent).await?;
        stage.settled(Auth::Complete).await?;
        let listed = ["-n", "auth", "get", "extensionservices", "-o", "name"];
        let names = stage.kubectl(&listed).await?;
        ensure!(names.contains("edge-trial-"), "Contour wrote its own verdict on the ExtensionService: {names}");

        stage.service.delete().await?;
        hosts.until(Caller::Authorized, 403).await?;
        stage.settled(Auth::Server).await?;
        let names = stage.kubectl(&listed).await?;
        ensure!(!names.contains("edge-trial-"), "the trial still exists: {names}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_extension_service_with_a_lost_verdict_is_enforced() {
    play("a lost verdict", async |stage| {
        let hosts = stage.given(Without::Denied, Auth::Server).await?;
        hosts.until(Caller::Authorized, 403).await?;
        let lost = async {
            stage.allow_verdicts(false).await?;
            let sent = stage.service.create().await?;
            let created = stage.json(&["-n", "auth", "get", "extensionservice", "auth"]).await?;
            let created = created["metadata"]["creationTimestamp"].as_str().context("a time")?;
            let since = format!("--since-time={created}");
            let selector = format!("{},{COMPONENT}={}", stage.edge.selector(), Component::Contour.label());
            Wait::for_it("Contour cannot write its verdict")
                .until(async || {
                    let logs = stage
                        .kubectl(&["-n", NAMESPACE, "logs", "-l", &selector, "--tail=-1", &since])
                        .await?;
                    let parts = ["unable to update status", "forbidden", "name=auth "];
                    let is_logged = logs.lines().any(|line| parts.iter().all(|part| line.contains(part)));
                    Ok(Look::when(is_logged, "Contour's log has no such error"))
                })
                .await?;
            let pending = stage.wait_for_service("Pending", "Denied").await?;
            ensure!(pending.is("Ready", "False"), "{pending}");
            Ok(sent)
        };
        let lost = lost.await;
        // The next test needs a Contour that may write verdicts, even if this test fails.
        let restored = stage.allow_verdicts(true).await;
        let sent = lost?;
        restored?;
        hosts.until(Caller::Authorized, 200).await?;
        hosts.enforced_since(sent).await?;
        stage.settled(Auth::Complete).await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn fail_open_lets_requests_pass_after_the_service_is_deleted() {
    play("fails open", async |stage| {
        let hosts = stage.given(Without::Passed, Auth::Complete).await?;
        hosts.until(Caller::Anonymous, 401).await?;
        stage.service.delete().await?;
        // Until an Envoy connects to a Contour with failOpen, that Envoy denies requests.
        hosts.change(Caller::Anonymous, &[401, 403], 200).await?;
        let status = stage.settled(Auth::Server).await?;
        ensure!(status.is("Ready", "True") && status.is("Degraded", "True"), "{status}");
        let service = status.extension_services.first().context("a service in the status")?;
        ensure!(
            service.traffic == "AllowedUnchecked",
            "the status reports {}",
            service.traffic
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn deleting_the_auth_namespace_completes_and_opens_no_host() {
    play("namespace deleted", async |stage| {
        let hosts = stage.given(Without::Denied, Auth::Complete).await?;
        hosts.until(Caller::Anonymous, 401).await?;
        let deletion = stage.kubectl(&["delete", "namespace", "auth", "--timeout=120s"]);
        let (_, watched) = hosts.watch_until(deletion).await?;
        watched.only(&[401, 403])?;
        stage.settled(Auth::Nothing).await?;
        hosts.until(Caller::Anonymous, 403).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn contour_starts_without_rate_limit_and_tracing_services() {
    play("rate limit and tracing missing", async |stage| {
        let other = Edge::new(stage.client.clone(), NAMESPACE, "limits");
        let missing = |name: &str| json!({"namespace": "nowhere", "name": name});
        let settings = json!({
            "rateLimitService": {"extensionService": missing("limits"), "domain": "demo", "failOpen": true},
            "tracing": {"extensionService": missing("traces")},
        });
        stage.apply_deployment(other.name(), &settings).await?;
        let status = Wait::for_it("the ContourDeployment has settled")
            .within(ROLLOUT)
            .until(async || other.look_settled().await)
            .await?;
        ensure!(status.extension_services.len() == 2, "{:?}", status.extension_services);
        for service in &status.extension_services {
            ensure!(service.state == "Missing", "{service:?}");
        }
        ensure!(status.is("Degraded", "True"), "{status}");
        stage.no_restarts(&other).await?;
        stage.remove(&other).await
    })
    .await;
}

#[tokio::test]
async fn deleting_a_contourdeployment_leaves_no_objects() {
    play("nothing is left", async |stage| {
        // In this state the stand-in is in another namespace.
        stage.given(Without::Denied, Auth::Complete).await?;
        let before = leftovers::of(&stage.client, &stage.edge).await?;
        ensure!(
            before
                .iter()
                .any(|object| object.starts_with("ExtensionService auth/edge-ext-auth-")),
            "{before:?}"
        );
        ensure!(
            before.contains("ClusterRoleBinding slipway:projectcontour:edge:contour"),
            "{before:?}"
        );
        ensure!(before.contains("Lease projectcontour/edge-contour"), "{before:?}");
        stage.remove(&stage.edge).await
    })
    .await;
}

#[tokio::test]
async fn traffic_stays_correct_while_the_extension_service_flaps() {
    play("flapping under traffic", async |stage| {
        stage.service.delete().await?;
        stage.remove(&stage.edge).await?;
        let seed = std::env::var("SEED").map_or(Ok(1), |seed| seed.parse())?;
        say(format!("seed {seed}; `make prove-flap` plays many more cycles"));
        let place = Place::prepare(stage.cluster()).await?;
        for (mode, cycles) in [(Mode::FailClosed, 3), (Mode::FailOpen, 2)] {
            let outcome = flap::chunk(&place, mode, seed, cycles).await?;
            ensure!(
                outcome.failures.is_empty(),
                "seed {seed}, {mode}:\n{}",
                outcome.failures.join("\n")
            );
        }
        place.clear().await?;
        stage.remove(&stage.edge).await
    })
    .await;
}

#[tokio::test]
async fn an_unknown_contour_setting_is_refused_with_its_path() {
    play("unknown setting", async |stage| {
        stage.given(Without::Denied, Auth::Server).await?;
        let before = stage.edge.rolled_state().await?;
        let configurations = ["-n", NAMESPACE, "get", "contourconfigurations", "-o", "name"];
        let named = stage.kubectl(&configurations).await?;
        let patch = |value: &str| format!(r#"{{"spec":{{"runtimeSettings":{{"envoy":{value}}}}}}}"#);
        let arguments =
            |patch: &str| ["-n", NAMESPACE, "patch", "cdep", "edge", "--type=merge", "-p", patch].map(str::to_owned);
        let wrong = arguments(&patch(r#"{"listener":{"useProxyProtokol":true}}"#));
        stage.kubectl(&wrong.each_ref().map(String::as_str)).await?;
        let edge = &stage.edge;
        let message = Wait::for_it("the configuration is refused")
            .until(async || {
                let status = edge.status().await?;
                let refused = status.condition("ConfigurationValid").filter(|condition| {
                    condition.status == "False" && condition.observed_generation == Some(status.generation)
                });
                Ok(refused.map_or_else(
                    || Look::NotYet(format!("{:?}", status.condition("ConfigurationValid"))),
                    |condition| Look::Reached(condition.message.clone()),
                ))
            })
            .await?;
        ensure!(
            message.contains("envoy.listener.useProxyProtokol"),
            "the message does not contain the path: {message}"
        );
        ensure!(
            stage.edge.status().await?.is("Stalled", "True"),
            "Stalled is not True: {}",
            stage.edge.status().await?
        );
        ensure!(stage.edge.rolled_state().await? == before, "a workload was rolled out");
        ensure!(
            stage.kubectl(&configurations).await? == named,
            "the configurations changed"
        );

        let right = arguments(&patch("null"));
        stage.kubectl(&right.each_ref().map(String::as_str)).await?;
        stage.settled(Auth::Server).await?;
        ensure!(
            stage.edge.status().await?.is("ConfigurationValid", "True"),
            "the configuration is still refused"
        );
        Ok(())
    })
    .await;
}

/// Real Contour and Envoy exit on an argument that they do not understand.
#[tokio::test]
async fn contour_and_envoy_run_with_every_workload_setting() {
    play("every setting of the workloads", async |stage| {
        let hosts = stage.given(Without::Denied, Auth::Complete).await?;
        hosts.until(Caller::Authorized, 200).await?;
        let sidecar = json!({
            "name": "extra", "image": "ghcr.io/projectcontour/contour:v1.33.8",
            "command": ["contour", "envoy", "shutdown-manager", "--serve-port=8095"],
            "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
        });
        let patch = json!({"spec": {
            "contour": {
                "deployment": {"minReadySeconds": 1, "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}},
                "logFormat": "json", "kubernetesClient": {"qps": 50, "burst": 100},
                "leaderElection": {"leaseDuration": "20s", "renewDeadline": "12s", "retryPeriod": "1s"},
                "podTemplate": {"spec": {"containers": [{"name": "contour", "livenessProbe": {"periodSeconds": 11}}]}},
            },
            "envoy": {
                "daemonSet": {"minReadySeconds": 1, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "50%"}}},
                "shutdown": {
                    "drainDelay": "100ms", "checkDelay": "100ms", "checkInterval": "200ms", "minOpenConnections": 1,
                    "gracePeriodSeconds": 60,
                },
                "baseID": 7, "overloadMaxHeapSize": 2_000_000_000, "overloadMaxDownstreamConnections": 10_000,
                "extraArgs": [
                    "--concurrency=2", "--drain-strategy=immediate", "--drain-time-s=30", "--file-flush-interval-msec=500",
                    "--file-flush-min-size-kb=1", "--local-address-ip-version=v4", "--log-format=[%T][%l] %v=x", "--log-format-escaped",
                    "--service-zone=a", "--skip-deprecated-logs", "--cpuset-threads",
                ],
                "podTemplate": {"spec": {"volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "16Mi"}}], "containers": [sidecar]}},
            },
        }});
        let generation = stage.edge.status().await?.generation;
        let arguments = ["-n", NAMESPACE, "patch", "cdep", "edge", "--type=merge", "-p", &patch.to_string()];
        stage.kubectl(&arguments).await?;
        let status = stage.settled(Auth::Complete).await?;
        ensure!(status.generation > generation && status.is("Ready", "True"), "{status}");
        let pods = stage.json(&["-n", NAMESPACE, "get", "pods", "-l", "app.kubernetes.io/component=envoy", "-o", "json"]).await?;
        let containers = pods.pointer("/items/0/spec/containers").and_then(Value::as_array).context("a pod of Envoy")?;
        ensure!(containers.iter().any(|container| container["name"] == "extra"), "{containers:?}");
        let hosts = stage.hosts().await?;
        hosts.until(Caller::Anonymous, 401).await?;
        hosts.until(Caller::Authorized, 200).await?;
        stage.no_restarts(&stage.edge).await?;
        stage.remove(&stage.edge).await
    })
    .await;
}
