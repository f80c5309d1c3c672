//! What somebody else changes: ours is repaired, theirs is left alone.

use anyhow::{Context as _, ensure};
use futures::StreamExt as _;
use serde_json::{Value, json};
use slipway_e2e::edge::{OWNER_NAME, OWNER_NAMESPACE};
use slipway_e2e::wait::Look;

use slipway_e2e::lab::made::{APPLIED, FINALIZER, made_for, settled_edge};
use slipway_e2e::lab::players::Kubelet;
use slipway_e2e::lab::world::beside_others;
use slipway_e2e::lab::{Lab, PROMPT, Thing, specification, wait};

/// A change to what is ours in an object, as a merge patch, and where to see that it was repaired.
fn change(thing: &Thing, live: &Value) -> Option<(Value, &'static str)> {
    let is_blackhole = thing.kind == "Service" && !thing.name.ends_with("-contour") && !thing.name.ends_with("-envoy");
    Some(match thing.kind {
        "RoleBinding" | "ClusterRoleBinding" => (
            json!({"subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": "mallory"}]}),
            "/subjects",
        ),
        "ServiceAccount" if thing.name.ends_with("-envoy") => (
            json!({"automountServiceAccountToken": true}),
            "/automountServiceAccountToken",
        ),
        // Only a headless Service without a selector may be of both families on any cluster.
        "Service" if is_blackhole => (
            json!({"spec": {"selector": {"app": "mallory"}, "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]}}),
            "/spec/selector",
        ),
        "Service" => (
            json!({"spec": {"selector": {"app.kubernetes.io/component": "mallory"}}}),
            "/spec/selector",
        ),
        "ExtensionService" => (json!({"spec": {"services": [{"name": "mallory", "port": 1}]}}), "/spec"),
        "Deployment" => {
            let mut containers = live["spec"]["template"]["spec"]["containers"].clone();
            containers[0]["image"] = json!("mallory");
            (
                json!({"spec": {"template": {"spec": {"containers": containers}}}}),
                "/spec/template/spec/containers",
            )
        }
        // What is in the Lease is Contour's; what is in a Secret is tested by itself; an altered ContourConfiguration is succeeded
        // by another.
        _ => return None,
    })
}

/// Waits until an object is again as it was at this place.
async fn is_repaired(lab: &Lab, thing: &Thing, how: &str, pointer: &str, before: Option<&Value>) -> anyhow::Result<()> {
    wait(&format!("{thing}, {how}, is repaired"), PROMPT)
        .until(async || {
            let now = lab.find(thing).await?;
            let now = now.as_ref().and_then(|now| now.pointer(pointer));
            Ok(Look::when(
                now == before,
                format!("{pointer} is {}", now.unwrap_or(&Value::Null)),
            ))
        })
        .await
}

async fn repairs(lab: &Lab, thing: &Thing) -> anyhow::Result<()> {
    let before = lab.read(thing).await?;
    let holds = before["metadata"]["finalizers"].is_array();
    if let Some((patch, pointer)) = change(thing, &before) {
        lab.patch(thing, &patch).await?;
        is_repaired(lab, thing, "changed", pointer, before.pointer(pointer)).await?;
    }
    // One mark of ours at a time: without any of them an object is somebody else's.
    let mut strippings = vec![("without its annotation", json!({"annotations": {APPLIED: null}}))];
    if thing.kind == "ClusterRoleBinding" {
        strippings.push((
            "without a label",
            json!({"labels": {"app.kubernetes.io/managed-by": null}}),
        ));
    } else {
        strippings.push((
            "without our labels",
            json!({"labels": {OWNER_NAME: null, OWNER_NAMESPACE: null}}),
        ));
    }
    if before["metadata"]["ownerReferences"].is_array() {
        strippings.push(("without its owner", json!({"ownerReferences": null})));
    }
    if holds {
        strippings.push(("without its finalizer", json!({"finalizers": null})));
    }
    for (how, metadata) in strippings {
        lab.patch(thing, &json!({"metadata": metadata})).await?;
        for part in ["labels", "ownerReferences", "finalizers"] {
            let before = before["metadata"].get(part);
            is_repaired(lab, thing, how, &format!("/metadata/{part}"), before).await?;
        }
        // Its value may be another one by now: certificates are issued anew when their authority is deleted.
        wait(&format!("{thing}, {how}, has its annotation"), PROMPT)
            .until(async || {
                let annotations = lab.read(thing).await?["metadata"]["annotations"].clone();
                Ok(Look::when(annotations[APPLIED].is_string(), annotations.to_string()))
            })
            .await?;
    }
    // What has a finalizer does not simply come back; a test of its own is about that.
    if holds {
        return Ok(());
    }
    lab.delete(thing).await?;
    wait(&format!("{thing}, deleted, is made again"), PROMPT)
        .until(async || {
            let now = lab.find(thing).await?.unwrap_or_default();
            let uid = &now["metadata"]["uid"];
            Ok(Look::when(
                uid.is_string() && *uid != before["metadata"]["uid"],
                format!("its uid is {uid}"),
            ))
        })
        .await?;
    let pointers = [
        "/metadata/labels",
        "/metadata/ownerReferences",
        "/subjects",
        "/roleRef",
        "/spec/selector",
    ];
    // A Secret that comes back has new certificates in it, a configuration may follow another stand-in by now.
    for pointer in pointers {
        is_repaired(lab, thing, "deleted and made again", pointer, before.pointer(pointer)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn every_object_is_repaired_when_it_is_changed_stripped_of_a_mark_or_deleted() {
    beside_others("drift", async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let auth = lab.name("auth");
        let edge = settled_edge(lab, &auth).await?;
        let things = made_for(lab, &edge, &auth).await?;
        // Several at once: one object's trouble must not keep another's from being repaired.
        let repairs = futures::stream::iter(&things).map(|thing| repairs(lab, thing));
        let outcomes: Vec<_> = repairs.buffer_unordered(4).collect().await;
        let complaints: Vec<_> = outcomes
            .into_iter()
            .filter_map(|outcome| outcome.err().map(|error| format!("{error:#}")))
            .collect();
        ensure!(
            complaints.is_empty(),
            "{} of {} objects:\n{}",
            complaints.len(),
            things.len(),
            complaints.join("\n")
        );
        lab.settled(&edge).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_ports_of_a_service_are_repaired_when_somebody_edits_a_number() {
    beside_others("ports", async |lab: &Lab| {
        let edge = lab.edge(&specification("nowhere")).await?;
        for name in ["edge-contour", "edge-envoy"] {
            let service = Thing::new("Service", &lab.namespace, name);
            wait("the Service is made", PROMPT)
                .until(async || {
                    Ok(Look::when(
                        lab.find(&service).await?.is_some(),
                        edge.status().await?.to_string(),
                    ))
                })
                .await?;
            let before = lab.read(&service).await?["spec"]["ports"].clone();
            let mut ports = before.clone();
            ports[0]["port"] = json!(9999);
            lab.patch(&service, &json!({"spec": {"ports": ports}})).await?;
            wait(&format!("our ports are in {service} again"), PROMPT)
                .until(async || {
                    let now = lab.read(&service).await?["spec"]["ports"].clone();
                    let has_all = before.as_array().into_iter().flatten().all(|port| {
                        now.as_array().is_some_and(|all| {
                            all.iter()
                                .any(|other| other["port"] == port["port"] && other["targetPort"] == port["targetPort"])
                        })
                    });
                    Ok(Look::when(has_all, format!("{now}; {}", edge.status().await?)))
                })
                .await?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_certificate_that_is_spoilt_or_deleted_is_issued_again() {
    beside_others("certificates", async |lab: &Lab| {
        let edge = lab.edge(&specification("nowhere")).await?;
        let deployment = Thing::new("Deployment", &lab.namespace, "edge-contour");
        wait("Contour is made", PROMPT)
            .until(async || {
                Ok(Look::when(
                    lab.find(&deployment).await?.is_some(),
                    edge.status().await?.to_string(),
                ))
            })
            .await?;
        for name in ["edge-contour-cert", "edge-envoy-cert", "edge-xds-ca"] {
            let secret = Thing::new("Secret", &lab.namespace, name);
            let before = lab.read(&secret).await?["data"].clone();
            let keys: Vec<String> = before.as_object().context("data")?.keys().cloned().collect();
            for key in keys {
                lab.patch(&secret, &json!({"data": {&key: "bWFsbG9yeQ=="}})).await?;
                wait(&format!("{key} of {secret} is no rubbish any more"), PROMPT)
                    .until(async || {
                        Ok(Look::when(
                            lab.read(&secret).await?["data"][&key] != "bWFsbG9yeQ==",
                            edge.status().await?.to_string(),
                        ))
                    })
                    .await?;
            }
            lab.delete(&secret).await?;
            wait(&format!("{secret} is there again"), PROMPT)
                .until(async || {
                    Ok(Look::when(
                        lab.find(&secret)
                            .await?
                            .is_some_and(|secret| secret["data"].is_object()),
                        edge.status().await?.to_string(),
                    ))
                })
                .await?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_stand_in_or_blackhole_that_is_deleted_gets_a_successor_before_it_goes() {
    beside_others("succession", async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let auth = lab.name("auth");
        let edge = settled_edge(lab, &auth).await?;
        for kind in ["ExtensionService", "Service"] {
            let stand_in = lab.only("ExtensionService", &auth, &edge).await?;
            let old = Thing::new(kind, &auth, stand_in["metadata"]["name"].as_str().context("a name")?);
            lab.delete(&old).await?;
            ensure!(lab.find(&old).await?.is_some(), "nothing held {old}");
            wait(
                &format!("{old} has gone and another one is in its place"),
                slipway_e2e::lab::PATIENT,
            )
            .until(async || {
                let now = lab.all("ExtensionService", &auth, &edge).await?;
                let blackholes = lab.all("Service", &auth, &edge).await?;
                let names = |all: &[Value]| {
                    all.iter()
                        .filter_map(|it| it["metadata"]["name"].as_str().map(str::to_owned))
                        .collect::<Vec<_>>()
                };
                let (now, blackholes) = (names(&now), names(&blackholes));
                Ok(Look::when(
                    now.len() == 1 && now == blackholes && now[0] != old.name,
                    format!("{now:?}, {blackholes:?}; {}", edge.status().await?),
                ))
            })
            .await?;
            let configuration = lab.settled(&edge).await?;
            let named = configuration
                .extension_services
                .first()
                .and_then(|service| service.stand_in.as_ref())
                .context("a stand-in")?;
            ensure!(named.name != old.name, "the status still names {old}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn what_others_add_stays() {
    beside_others("foreign", async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let auth = lab.name("auth");
        let edge = settled_edge(lab, &auth).await?;
        let things = made_for(lab, &edge, &auth).await?;
        let (key, value) = ("example.com/mine", "stays");
        let added = json!({"metadata": {"labels": {key: value}, "annotations": {key: value}}});
        for thing in &things {
            lab.patch(thing, &added).await?;
        }
        let own = |kind, name: &str| Thing::new(kind, &lab.namespace, name);
        let fields: [(Thing, Value, &str); 6] = [
            // An autoscaler's, and an administrator's.
            (
                own("Deployment", "edge-contour"),
                json!({"spec": {"replicas": 3}}),
                "/spec/replicas",
            ),
            (
                own("Deployment", "edge-envoy"),
                json!({"spec": {"minReadySeconds": 1}}),
                "/spec/minReadySeconds",
            ),
            (
                own("Service", "edge-envoy"),
                json!({"spec": {"sessionAffinity": "ClientIP"}}),
                "/spec/sessionAffinity",
            ),
            (
                own("ServiceAccount", "edge-contour"),
                json!({"imagePullSecrets": [{"name": "pull"}]}),
                "/imagePullSecrets",
            ),
            (
                own("Secret", "edge-contour-cert"),
                json!({"data": {"mine": "c3RheXM="}}),
                "/data/mine",
            ),
            (
                own("Lease", "edge-contour"),
                json!({"spec": {"holderIdentity": "contour"}}),
                "/spec/holderIdentity",
            ),
        ];
        for (thing, patch, _) in &fields {
            lab.patch(thing, patch).await?;
        }
        // Each object is repaired once, so that it is not merely left alone.
        for thing in &things {
            lab.patch(
                thing,
                &json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}}),
            )
            .await?;
            is_repaired(
                lab,
                thing,
                "without a label",
                "/metadata/labels/app.kubernetes.io~1managed-by",
                Some(&json!("slipway")),
            )
            .await?;
            let metadata = lab.read(thing).await?["metadata"].clone();
            ensure!(
                metadata["labels"][key] == value && metadata["annotations"][key] == value,
                "{thing}: {metadata}"
            );
            let is_held = thing.namespace == auth;
            ensure!(
                (metadata["finalizers"] == json!([FINALIZER])) == is_held,
                "{thing}: {}",
                metadata["finalizers"]
            );
        }
        for (thing, patch, pointer) in &fields {
            let now = lab.read(thing).await?;
            ensure!(
                now.pointer(pointer) == patch.pointer(pointer),
                "{pointer} of {thing} is {:?}",
                now.pointer(pointer)
            );
        }
        Ok(())
    })
    .await;
}
