//! The operator's memory: it does not grow with what others create.

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Map, Value, json};

use slipway_e2e::lab::made::settled_edge;
use slipway_e2e::lab::players::{self, Kubelet, Verdict, extension_service, judge};
use slipway_e2e::lab::world::{Takes, alone};
use slipway_e2e::lab::{Lab, PATIENT, specification};

/// The operator's memory limit in config/ is 512 MiB.
const BOUND: u64 = 160 << 20;

/// The most that the operator has had in memory since its start.
async fn peak(lab: &Lab) -> anyhow::Result<u64> {
    let pid = lab.world.operator_pid().await?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kibibytes: u64 = kibibytes.context("the operator's memory")?.parse()?;
    Ok(kibibytes << 10)
}

/// An ExtensionService of 0.99 MB.
fn large_extension_service(namespace: &str, name: &str) -> Value {
    let mut object = extension_service(namespace, "500ms");
    object["metadata"]["name"] = json!(name);
    object["spec"]["services"] = json!(vec![json!({"name": "a", "port": 1}); 45_000]);
    object
}

/// A Pod of 1.95 MB with both of Slipway's labels.
fn large_pod(lab: &Lab, namespace: &str, name: &str) -> Value {
    let labels = json!({
        "contour.slipway.dev/contourdeployment": "edge", "contour.slipway.dev/contourdeployment-namespace": lab.namespace,
    });
    let environment = vec![json!({"name": "a"}); 150_000];
    let container = json!({"name": "a", "image": "example.com/nothing:1", "env": environment});
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": {"schedulingGates": [{"name": "example.com/never"}], "containers": [container]},
    })
}

/// Annotations, about as many as Kubernetes takes.
fn many_annotations() -> Map<String, Value> {
    let annotation = |number: usize| (format!("a{number}"), json!("aaaaaaaa"));
    (0..10_000).map(annotation).collect()
}

/// A Service of many ports.
fn large_service(namespace: &str, name: &str) -> Value {
    let port = |port: usize| json!({"name": format!("p{port}"), "port": port});
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": namespace, "name": name, "annotations": many_annotations()},
        "spec": {"clusterIP": "None", "ports": (1..=5_000).map(port).collect::<Vec<_>>()},
    })
}

/// An EndpointSlice of as many endpoints as Kubernetes takes.
fn large_endpoint_slice(namespace: &str, name: &str) -> Value {
    let endpoint = |number: usize| {
        let address = format!("192.0.{}.{}", number / 250, number % 250 + 1);
        json!({"addresses": [address], "hostname": "a"})
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "namespace": namespace, "name": name, "labels": {"kubernetes.io/service-name": name}, "annotations": many_annotations(),
        },
        "endpoints": (0..1_000).map(endpoint).collect::<Vec<_>>(),
    })
}

/// Creates objects, several at once. Each is made when its turn comes: as JSON trees they are as large as for the operator.
async fn create_all<'a>(lab: &Lab, objects: Vec<Box<dyn Fn() -> Value + 'a>>) -> anyhow::Result<()> {
    let create = async |object: Box<dyn Fn() -> Value + 'a>| lab.create(&object()).await.map(drop);
    let created = stream::iter(objects).map(create).buffer_unordered(4);
    created.try_collect().await
}

async fn stays_small(lab: &Lab, when: &str) -> anyhow::Result<()> {
    let peak = peak(lab).await?;
    slipway_e2e::narration::say(format!("{when} the operator's memory has peaked at {} MiB", peak >> 20));
    ensure!(peak < BOUND, "{when} the operator has had {} MiB in memory", peak >> 20);
    Ok(())
}

#[tokio::test]
async fn the_operator_s_memory_does_not_grow_with_what_others_create() {
    alone("memory", Takes::Operator, async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let (auth, alice) = (lab.name("auth"), lab.name("alice"));
        let edge = settled_edge(lab, &auth).await?;
        lab.make_namespace(&alice).await?;
        lab.world.stop_operator().await?;
        lab.world.start_operator().await?;
        lab.world.operator_is_ready().await?;
        lab.settled(&edge).await?;
        stays_small(lab, "before").await?;

        // A tenant of an unrelated namespace, and the editor of the service's.
        let mut objects: Vec<Box<dyn Fn() -> Value>> = Vec::new();
        let (alice, auth) = (&alice, &auth);
        for number in 0..40 {
            let name = format!("large-{number}");
            objects.push(Box::new(move || large_extension_service(alice, &name)));
        }
        for number in 0..6 {
            let name = format!("large-{number}");
            objects.push(Box::new(move || large_pod(lab, alice, &name)));
        }
        for name in (0..8).map(|number| format!("large-{number}")) {
            let [first, second, third] = [name.clone(), name.clone(), name];
            objects.push(Box::new(move || large_extension_service(auth, &first)));
            objects.push(Box::new(move || large_service(auth, &second)));
            objects.push(Box::new(move || large_endpoint_slice(auth, &third)));
        }
        create_all(lab, objects).await?;
        lab.looks_again(&edge, 1).await?;
        stays_small(lab, "while they come").await?;

        lab.world.stop_operator().await?;
        lab.world.start_operator().await?;
        lab.world.operator_is_ready().await?;
        // What is referenced comes later, and is found beside all of that.
        players::auth_server(lab, auth).await?;
        lab.create(&extension_service(auth, "500ms")).await?;
        judge(lab, auth, "auth", Verdict::Valid).await?;
        let is_available = |name: &'static str| {
            lab.status(&edge, "the service is available", PATIENT, move |status| {
                let mut services = status.extension_services.iter();
                services.all(|service| service.name == name && service.state == "Available")
                    && status.is("Ready", "True")
            })
        };
        is_available("auth").await?;

        // So is one that is there already when it is referenced.
        let mut other = extension_service(auth, "500ms");
        other["metadata"]["name"] = json!("other");
        lab.create(&other).await?;
        judge(lab, auth, "other", Verdict::Valid).await?;
        let mut spec = specification(auth);
        spec["runtimeSettings"]["globalExtAuth"]["extensionRef"]["name"] = json!("other");
        lab.edge(&spec).await?;
        is_available("other").await?;
        stays_small(lab, "after the next start").await
    })
    .await;
}
