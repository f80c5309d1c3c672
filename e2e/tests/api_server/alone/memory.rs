//! The operator's memory, which does not grow with the objects of other users.

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Map, Value, json};

use slipway_e2e::lab::created::settled_edge;
use slipway_e2e::lab::players::{self, Kubelet, Verdict, extension_service, judge};
use slipway_e2e::lab::world::{Takes, alone};
use slipway_e2e::lab::{Lab, PATIENT, specification};

/// The limit of the test. The operator's memory limit in config/ is 512 MiB.
const BOUND: u64 = 160 << 20;

/// Returns the operator's peak memory usage since its start, in bytes.
async fn peak(lab: &Lab) -> anyhow::Result<u64> {
    let pid = lab.world.operator_pid().await?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kibibytes: u64 = kibibytes.context("reading VmHWM of the operator")?.parse()?;
    Ok(kibibytes << 10)
}

/// Returns an ExtensionService of 0.99 MB.
fn large_extension_service(namespace: &str, name: &str) -> Value {
    let mut object = extension_service(namespace, "500ms");
    object["metadata"]["name"] = json!(name);
    object["spec"]["services"] = json!(vec![json!({"name": "a", "port": 1}); 45_000]);
    object
}

/// Returns a Pod of 1.95 MB with both of Slipway's labels.
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

/// Returns almost as many annotations as Kubernetes accepts.
fn many_annotations() -> Map<String, Value> {
    let annotation = |number: usize| (format!("a{number}"), json!("aaaaaaaa"));
    (0..10_000).map(annotation).collect()
}

/// Returns a Service with many ports.
fn large_service(namespace: &str, name: &str) -> Value {
    let port = |port: usize| json!({"name": format!("p{port}"), "port": port});
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": namespace, "name": name, "annotations": many_annotations()},
        "spec": {"clusterIP": "None", "ports": (1..=5_000).map(port).collect::<Vec<_>>()},
    })
}

/// Returns an EndpointSlice with as many endpoints as Kubernetes accepts.
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

/// Creates objects, several at once. Each object is built just before its creation, because the JSON trees of all objects would
/// take as much memory here as in the operator.
async fn create_all<'a>(lab: &Lab, objects: Vec<Box<dyn Fn() -> Value + 'a>>) -> anyhow::Result<()> {
    let create = async |object: Box<dyn Fn() -> Value + 'a>| lab.create(&object()).await.map(drop);
    let created = stream::iter(objects).map(create).buffer_unordered(4);
    created.try_collect().await
}

/// Prints the operator's peak memory usage. Returns an error if the peak is not below [`BOUND`].
async fn stays_small(lab: &Lab, when: &str) -> anyhow::Result<()> {
    let peak = peak(lab).await?;
    slipway_e2e::narration::say(format!("{when}, the operator's memory peaked at {} MiB", peak >> 20));
    ensure!(
        peak < BOUND,
        "{when}, the operator's memory peaked at {} MiB",
        peak >> 20
    );
    Ok(())
}

#[tokio::test]
async fn operator_memory_does_not_grow_with_objects_of_other_users() {
    alone("memory", Takes::Operator, async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let (auth, alice) = (lab.name("auth"), lab.name("alice"));
        let edge = settled_edge(lab, &auth).await?;
        lab.create_namespace(&alice).await?;
        lab.world.stop_operator().await?;
        lab.world.start_operator().await?;
        lab.world.operator_is_ready().await?;
        lab.settled(&edge).await?;
        stays_small(lab, "before the objects exist").await?;

        // The objects of a tenant of an unrelated namespace, and of an editor of the service's namespace.
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
        lab.reconcile_again(&edge, 1).await?;
        stays_small(lab, "while the objects are created").await?;

        lab.world.stop_operator().await?;
        lab.world.start_operator().await?;
        lab.world.operator_is_ready().await?;
        // The referenced ExtensionService is created later, and the operator finds it among all these objects.
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

        // The operator also finds an ExtensionService that exists before the spec references it.
        let mut other = extension_service(auth, "500ms");
        other["metadata"]["name"] = json!("other");
        lab.create(&other).await?;
        judge(lab, auth, "other", Verdict::Valid).await?;
        let mut spec = specification(auth);
        spec["runtimeSettings"]["globalExtAuth"]["extensionRef"]["name"] = json!("other");
        lab.edge(&spec).await?;
        is_available("other").await?;
        stays_small(lab, "after the restart").await
    })
    .await;
}
