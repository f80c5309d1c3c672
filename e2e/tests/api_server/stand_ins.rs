//! Stand-ins, which Contour's configuration references in place of the user's ExtensionService. The tests cover the whole life
//! cycle of the ExtensionService.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use slipway_e2e::edge::Edge;
use slipway_e2e::wait::Look;

use slipway_e2e::lab::created::{FINALIZER, settled_edge};
use slipway_e2e::lab::players::{self, Kubelet, Verdict, extension_service, judge, wait_for_stand_in_services};
use slipway_e2e::lab::world::beside_others;
use slipway_e2e::lab::{Lab, PATIENT, PROMPT, Thing, specification, wait};

/// Returns the current stand-in of an edge with one reference, as reported in its status.
async fn stand_in(edge: &Edge) -> anyhow::Result<Thing> {
    let status = edge.status().await?;
    let service = status.extension_services.first().context("a service in the status")?;
    let stand_in = service.stand_in.as_ref().context("its stand-in")?;
    Ok(Thing::new("ExtensionService", &stand_in.namespace, &stand_in.name))
}

/// Waits until status and metrics report this state of the service and this treatment of traffic.
async fn state_is(lab: &Lab, edge: &Edge, state: &str, traffic: &str) -> anyhow::Result<()> {
    let matches = |status: &slipway_e2e::edge::Status| {
        status
            .extension_services
            .iter()
            .all(|service| service.state == state && service.traffic == traffic)
    };
    let status = lab
        .status(
            edge,
            &format!("the service is {state}, traffic is {traffic}"),
            PROMPT,
            |status| !status.extension_services.is_empty() && matches(status),
        )
        .await?;
    // The metrics report the same state, with the labels that the dashboards use.
    let service = status.extension_services.first().context("a service in the status")?;
    ensure!(service.state == state);
    let owner = [
        ("contourdeployment_namespace", edge.namespace()),
        ("contourdeployment", edge.name()),
    ];
    let all = [
        &owner[..],
        &[("role", "GlobalExternalAuthorization"), ("extension_service", "auth")],
    ]
    .concat();
    wait("the metrics report the same state as the status", PROMPT)
        .until(async || {
            let metrics = lab.metrics().await?;
            let available: Vec<_> = metrics.of("slipway_extension_service_available", &all).collect();
            let expected = f64::from(u8::from(state == "Available"));
            let has_namespace = available
                .iter()
                .all(|(labels, _)| labels.contains_key("extension_service_namespace"));
            let shown: Vec<_> = metrics
                .of("slipway_extension_service_state", &all)
                .filter(|(_, value)| *value > 0.0)
                .map(|(labels, _)| labels["state"].clone())
                .collect();
            let is_right =
                available.iter().map(|(_, value)| *value).eq([expected]) && has_namespace && shown == [state];
            Ok(Look::when(
                is_right,
                format!("available {available:?}, states {shown:?}"),
            ))
        })
        .await
}

/// Returns how many transitions to this state the metrics count in the test's namespace.
async fn transitions(lab: &Lab, to: &str) -> anyhow::Result<f64> {
    let labels = [("contourdeployment_namespace", lab.namespace.as_str()), ("to", to)];
    Ok(lab
        .metrics()
        .await?
        .sum("slipway_extension_service_transitions_total", &labels))
}

/// Reports whether the object has Slipway's finalizer, and no other one.
fn is_held(object: &Value) -> bool {
    object["metadata"]["finalizers"] == json!([FINALIZER])
}

/// Returns an error unless an Event reports each transition of the service.
async fn events_report_transitions(lab: &Lab) -> anyhow::Result<()> {
    let events = lab
        .world
        .kubectl()
        .json(&["get", "events", "-n", &lab.namespace])
        .await?;
    let found: Vec<_> = events["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|event| event["involvedObject"]["kind"] == "ContourDeployment")
        .collect();
    for (reason, kind) in [
        ("ExtensionServiceMissing", "Warning"),
        ("ExtensionServicePending", "Warning"),
        ("ExtensionServiceAvailable", "Normal"),
        ("ExtensionServiceInvalid", "Warning"),
        ("AsSpecified", "Normal"),
    ] {
        ensure!(
            found
                .iter()
                .any(|event| event["reason"] == reason && event["type"] == kind),
            "no Event {kind} {reason}: {found:#?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn the_stand_in_has_a_copy_from_the_verdict_until_the_deletion() {
    beside_others("life", async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let auth = lab.name("auth");
        let edge = settled_edge(lab, &auth).await?;
        state_is(lab, &edge, "Missing", "Denied").await?;
        let first = stand_in(&edge).await?;
        ensure!(first.namespace == auth, "{first}");
        let blackhole = Thing::new("Service", &auth, &first.name);
        for thing in [&first, &blackhole] {
            ensure!(is_held(&lab.read(thing).await?), "{thing} has no finalizer");
        }
        let service = lab.read(&blackhole).await?;
        ensure!(
            service["spec"]["clusterIP"] == "None" && service["spec"]["selector"].is_null(),
            "{service}"
        );
        wait_for_stand_in_services(lab, &first, &[&first.name]).await?;

        // The ExtensionService exists without a verdict. The operator does not copy it, however often the operator reconciles.
        players::auth_server(lab, &auth).await?;
        lab.create(&extension_service(&auth, "500ms")).await?;
        state_is(lab, &edge, "Pending", "Denied").await?;
        lab.reconcile_again(&edge, 3).await?;
        let present = stand_in(&edge).await?;
        wait_for_stand_in_services(lab, &present, &[&present.name]).await?;

        judge(lab, &auth, "auth", Verdict::Valid).await?;
        let copied = wait("the stand-in has a copy", PROMPT)
            .until(async || {
                let found = lab.read(&stand_in(&edge).await?).await?;
                Ok(if found["spec"]["services"][0]["name"] == "auth" {
                    Look::Reached(found)
                } else {
                    Look::NotYet(found["spec"].to_string())
                })
            })
            .await?;
        ensure!(
            copied["spec"]["timeoutPolicy"]["response"] == "500ms" && copied["spec"]["protocol"] == "h2c",
            "{}",
            copied["spec"]
        );
        state_is(lab, &edge, "Available", "Enforced").await?;
        let count = transitions(lab, "Available").await?;
        ensure!(
            (0.5..1.5).contains(&count),
            "the service became available {count} times"
        );
        let labels = [
            ("contourdeployment_namespace", lab.namespace.as_str()),
            ("contourdeployment", "edge"),
            ("role", "GlobalExternalAuthorization"),
            ("extension_service_namespace", &auth),
            ("extension_service", "auth"),
        ];
        let available = lab.metrics().await?.sum("slipway_extension_service_available", &labels);
        ensure!(available > 0.5, "with {labels:?} the metric is {available}");
        lab.status(&edge, "edge is ready", PATIENT, |status| {
            status.is("Ready", "True") && status.is("Degraded", "False")
        })
        .await?;
        lab.settled(&edge).await?;

        // The new generation has no verdict, so the last copy with a valid verdict stays.
        let rolled = edge.rolled_state().await?;
        let present = stand_in(&edge).await?;
        let mut edited = extension_service(&auth, "500ms");
        edited["spec"]["services"][0]["weight"] = json!(7);
        lab.apply(&edited).await?;
        lab.reconcile_again(&edge, 2).await?;
        let now = lab.read(&present).await?;
        ensure!(
            now["spec"]["services"][0]["name"] == "auth" && now["spec"]["services"][0]["weight"] != 7,
            "{}",
            now["spec"]
        );
        judge(lab, &auth, "auth", Verdict::Invalid("ServicePortError")).await?;
        state_is(lab, &edge, "Invalid", "Enforced").await?;
        wait_for_stand_in_services(lab, &present, &["auth"]).await?;
        judge(lab, &auth, "auth", Verdict::Valid).await?;
        wait("the new generation is copied", PROMPT)
            .until(async || {
                let now = lab.read(&present).await?["spec"]["services"][0].clone();
                Ok(Look::when(now["weight"] == 7, now.to_string()))
            })
            .await?;
        state_is(lab, &edge, "Available", "Enforced").await?;

        lab.delete(&Thing::new("ExtensionService", &auth, "auth")).await?;
        let withdrawn = wait_for_stand_in_services(lab, &present, &[&present.name]).await?;
        // The timeout that Contour captured stays, so recreating the service rolls out nothing.
        ensure!(
            withdrawn["spec"]["timeoutPolicy"]["response"] == "500ms",
            "{}",
            withdrawn["spec"]
        );
        ensure!(is_held(&withdrawn), "the finalizer was removed");
        state_is(lab, &edge, "Missing", "Denied").await?;
        lab.create(&extension_service(&auth, "500ms")).await?;
        judge(lab, &auth, "auth", Verdict::Valid).await?;
        wait_for_stand_in_services(lab, &present, &["auth"]).await?;
        state_is(lab, &edge, "Available", "Enforced").await?;
        ensure!(edge.rolled_state().await? == rolled, "a workload was rolled out");

        events_report_transitions(lab).await
    })
    .await;
}

#[tokio::test]
async fn the_blackhole_replaces_a_copy_while_its_service_is_missing() {
    beside_others("withdrawn", async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let auth = players::valid_auth(lab).await?;
        let edge = lab.edge(&specification(&auth)).await?;
        lab.settled(&edge).await?;
        state_is(lab, &edge, "Available", "Enforced").await?;
        let present = stand_in(&edge).await?;
        lab.delete(&Thing::new("Service", &auth, "auth")).await?;
        wait_for_stand_in_services(lab, &present, &[&present.name]).await?;
        state_is(lab, &edge, "Invalid", "Denied").await?;
        players::auth_server(lab, &auth).await?;
        wait_for_stand_in_services(lab, &present, &["auth"]).await?;
        state_is(lab, &edge, "Available", "Enforced").await?;

        // Contour's verdicts reject the stand-in, and the user's object as well.
        judge(lab, &auth, "auth", Verdict::Invalid("TLSUpstreamValidation")).await?;
        wait_for_stand_in_services(lab, &present, &["auth"]).await?;
        judge(lab, &auth, &present.name, Verdict::Invalid("TLSUpstreamValidation")).await?;
        wait_for_stand_in_services(lab, &present, &[&present.name]).await?;
        judge(lab, &auth, "auth", Verdict::Valid).await?;
        wait_for_stand_in_services(lab, &present, &["auth"]).await?;

        // A reason that concerns the judging Contour itself does not withdraw the copy.
        judge(lab, &auth, "auth", Verdict::Invalid("SecretNotValid")).await?;
        judge(lab, &auth, &present.name, Verdict::Invalid("SecretNotValid")).await?;
        lab.reconcile_again(&edge, 2).await?;
        wait_for_stand_in_services(lab, &present, &["auth"]).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_service_without_ready_endpoints_keeps_its_copy() {
    beside_others("endpoints", async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let auth = players::valid_auth(lab).await?;
        let mut spec = specification(&auth);
        spec["runtimeSettings"]["globalExtAuth"]["failOpen"] = json!(true);
        let edge = lab.edge(&spec).await?;
        lab.settled(&edge).await?;
        state_is(lab, &edge, "Available", "Enforced").await?;
        let slice = Thing::new("EndpointSlice", &auth, "auth");
        lab.patch(
            &slice,
            &json!({"endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": false}}]}),
        )
        .await?;
        state_is(lab, &edge, "NoEndpoints", "AllowedUnchecked").await?;
        let status = edge.status().await?;
        ensure!(
            status.is("Ready", "True") && status.is("Degraded", "True"),
            "failOpen: {status}"
        );
        wait_for_stand_in_services(lab, &stand_in(&edge).await?, &["auth"]).await?;
        let unchecked = async || {
            anyhow::Ok(lab.metrics().await?.sum(
                "slipway_extension_service_unchecked_seconds_total",
                &[("contourdeployment_namespace", &lab.namespace)],
            ))
        };
        let before = unchecked().await?;
        wait("the metric counts the time without checks", PROMPT)
            .until(async || {
                let now = unchecked().await?;
                Ok(Look::when(now > before + 0.1, format!("{before} and {now}")))
            })
            .await?;
        lab.patch(
            &slice,
            &json!({"endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": true}}]}),
        )
        .await?;
        state_is(lab, &edge, "Available", "Enforced").await
    })
    .await;
}

#[tokio::test]
async fn a_tolerated_missing_service_does_not_affect_ready() {
    beside_others("tolerated", async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let mut spec = specification("nowhere");
        let edge = lab.edge(&spec).await?;
        let status = lab.settled(&edge).await?;
        ensure!(status.is("Ready", "False") && status.is("Degraded", "True"), "{status}");
        ensure!(
            status
                .condition("Ready")
                .is_some_and(|ready| ready.reason == "ExtensionServiceMissing"),
            "{status}"
        );
        spec["extensionServices"] = json!({"readiness": "Tolerated"});
        lab.edge(&spec).await?;
        lab.status(&edge, "Ready and Degraded are True", PROMPT, |status| {
            status.is("Ready", "True") && status.is("Degraded", "True")
        })
        .await?;
        let denied = [("contourdeployment_namespace", lab.namespace.as_str())];
        wait("the metric counts the time of denied requests", PROMPT)
            .until(async || {
                let seconds = lab
                    .metrics()
                    .await?
                    .sum("slipway_extension_service_denied_seconds_total", &denied);
                Ok(Look::when(seconds > 0.0, format!("{seconds} s")))
            })
            .await
    })
    .await;
}

#[tokio::test]
async fn the_stand_in_follows_its_namespace_and_does_not_block_it() {
    beside_others("namespace", async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let auth = lab.name("auth");
        let edge = lab.edge(&specification(&auth)).await?;
        lab.settled(&edge).await?;
        ensure!(
            stand_in(&edge).await?.namespace == lab.namespace,
            "the service's namespace does not exist, so the stand-in must be in the namespace of edge"
        );
        lab.create_namespace(&auth).await?;
        let is_in = async |place: &str| {
            wait(&format!("the stand-in is in {place}, and only there"), PATIENT)
                .until(async || {
                    let here = stand_in(&edge).await?;
                    let [own, other] = [
                        lab.all("ExtensionService", &lab.namespace, &edge).await?.len(),
                        lab.all("ExtensionService", &auth, &edge).await?.len(),
                    ];
                    let only = if place == auth {
                        (own, other) == (0, 1)
                    } else {
                        (own, other) == (1, 0)
                    };
                    Ok(Look::when(
                        here.namespace == place && only,
                        format!("{here}; {own} and {other} in both; {}", edge.status().await?),
                    ))
                })
                .await
        };
        is_in(&auth).await?;
        lab.settled(&edge).await?;
        players::auth_server(lab, &auth).await?;
        lab.create(&extension_service(&auth, "500ms")).await?;
        judge(lab, &auth, "auth", Verdict::Valid).await?;
        state_is(lab, &edge, "Available", "Enforced").await?;
        lab.settled(&edge).await?;

        let namespace = Thing::new("Namespace", "", &auth);
        lab.delete(&namespace).await?;
        wait("the namespace is deleted", PATIENT)
            .until(async || {
                let found = lab.find(&namespace).await?;
                let conditions = found.as_ref().map(|it| it["status"]["conditions"].to_string());
                Ok(Look::when(
                    found.is_none(),
                    format!("{conditions:?}; {}", edge.status().await?),
                ))
            })
            .await?;
        is_in(&lab.namespace).await?;
        state_is(lab, &edge, "Missing", "Denied").await
    })
    .await;
}

#[tokio::test]
async fn each_role_has_its_own_stand_in() {
    beside_others("roles", async |lab: &Lab| {
        let mut spec = specification("nowhere");
        let missing = json!({"namespace": "nowhere", "name": "auth"});
        spec["runtimeSettings"]["rateLimitService"] = json!({"extensionService": missing, "domain": "d"});
        spec["runtimeSettings"]["tracing"] = json!({"extensionService": missing});
        let edge = lab.edge(&spec).await?;
        let status = lab
            .status(&edge, "all three services are reported", PROMPT, |status| {
                status.extension_services.len() == 3
            })
            .await?;
        let traffic: Vec<_> = status
            .extension_services
            .iter()
            .map(|service| service.traffic.as_str())
            .collect();
        ensure!(traffic == ["Denied", "Denied", "NotSampled"], "{traffic:?}");
        let deployment = Thing::new("Deployment", &lab.namespace, "edge-contour");
        lab.wait_until_exists(&deployment, PROMPT).await?;
        let configuration = lab.only("ContourConfiguration", &lab.namespace, &edge).await?["spec"].clone();
        let named = [
            "/globalExtAuth/extensionRef/name",
            "/rateLimitService/extensionService/name",
            "/tracing/extensionService/name",
        ]
        .map(|pointer| {
            configuration
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        });
        let mut existing: Vec<_> = lab
            .all("ExtensionService", &lab.namespace, &edge)
            .await?
            .iter()
            .filter_map(|it| it["metadata"]["name"].as_str().map(str::to_owned))
            .collect();
        existing.sort();
        ensure!(existing == named, "existing: {existing:?}, referenced: {named:?}");
        Ok(())
    })
    .await;
}

/// Adds this many labels and one annotation to an object. The annotation is as long as possible: the API server or etcd refuses one
/// more byte. Returns an error if the API server refuses every annotation.
async fn fill_up(lab: &Lab, object: &Thing, labels: usize) -> anyhow::Result<()> {
    let label = |number: usize| (format!("their-{number}"), json!("x".repeat(63)));
    let labels: serde_json::Map<String, Value> = (0..labels).map(label).collect();
    lab.patch(object, &json!({"metadata": {"labels": labels}})).await?;
    let (mut fits, mut does_not) = (0, 512 * 1024);
    while does_not - fits > 1 {
        let pad = usize::midpoint(fits, does_not);
        let patch = json!({"metadata": {"annotations": {"theirs": "x".repeat(pad)}}});
        match lab.patch(object, &patch).await {
            Ok(()) => fits = pad,
            Err(_) => does_not = pad,
        }
    }
    ensure!(fits > 0, "the API server refuses every annotation of {object}");
    let patch = json!({"metadata": {"annotations": {"theirs": "x".repeat(fits)}}});
    lab.patch(object, &patch).await
}

#[tokio::test]
async fn a_stand_in_filled_up_by_others_still_becomes_a_blackhole() {
    beside_others("full", async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let auth = lab.name("auth");
        let edge = settled_edge(lab, &auth).await?;
        // With one label, the limit of the API server for all annotations applies. With 13,500 labels, the size limit of etcd
        // applies.
        for labels in [1, 13_500] {
            players::auth_server(lab, &auth).await?;
            lab.apply(&extension_service(&auth, "500ms")).await?;
            judge(lab, &auth, "auth", Verdict::Valid).await?;
            state_is(lab, &edge, "Available", "Enforced").await?;
            let present = stand_in(&edge).await?;
            lab.settled(&edge).await?;
            fill_up(lab, &present, labels).await?;
            lab.delete(&Thing::new("Service", &auth, "auth")).await?;
            let withdrawn = wait_for_stand_in_services(lab, &present, &[&present.name]).await?;
            ensure!(
                withdrawn["metadata"]["annotations"]["theirs"].is_null()
                    && withdrawn["metadata"]["labels"]["their-0"].is_null(),
                "the labels or annotations of other users are still on the stand-in"
            );
            ensure!(is_held(&withdrawn), "the finalizer was removed");
            state_is(lab, &edge, "Invalid", "Denied").await?;
        }
        Ok(())
    })
    .await;
}
