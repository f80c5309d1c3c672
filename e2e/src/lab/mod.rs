//! The common foundation of tests and proofs on a real API server: the server with Slipway (`world`), the operator as a process
//! (`operator`), and stand-ins for absent components (`players`). This module contains the lab of one test: its namespaces, and the
//! actions and observations in them.

pub mod audit;
pub mod contour;
pub mod created;
pub mod operator;
pub mod players;
pub mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use crate::edge::{Edge, Status};
use crate::leftovers;
use crate::narration::{say, show};
use crate::wait::{Look, Wait};
use anyhow::{Context as _, bail, ensure};
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use kube::{Api, Client};
use serde_json::{Value, json};

use self::world::World;

/// The time limit for immediate actions of the operator. They take milliseconds; the rest is a margin for a busy machine. The operator's
/// periodic reconcile is far slower, at ten minutes.
pub const PROMPT: Duration = Duration::from_secs(10);

/// The time limit for actions of Kubernetes' own controllers, or after a backoff.
pub const PATIENT: Duration = Duration::from_secs(40);

/// The time limit for the deletion of a CRD. The API server allows one minute for each attempt to delete the objects
/// (`crd_finalizer.go` of apiextensions-apiserver v0.34), and five CRDs are deleted at once. On a busy machine a CRD without any object needed
/// more than a second attempt.
pub const CRD_DELETION: Duration = Duration::from_mins(5);

/// The time without a request after which the operator counts as idle.
pub const QUIET: Duration = Duration::from_secs(4);

/// The annotation with which a test triggers a reconcile.
pub(crate) const RECONCILE_TRIGGER: &str = "test.example.com/poke";

/// The lab of one test.
pub struct Lab {
    /// The API server and the operator.
    pub world: &'static World,
    /// A client of this test's runtime.
    pub client: Client,
    unguarded: Client,
    /// The test's own namespace.
    pub namespace: String,
    namespaces: Mutex<Vec<String>>,
    files: AtomicUsize,
}

impl Lab {
    /// Returns a lab with a namespace of this name.
    pub async fn new(world: &'static World, name: &str) -> anyhow::Result<Self> {
        let lab = Self {
            world,
            client: world.client().await?,
            unguarded: world.unguarded_client().await?,
            namespace: name.to_owned(),
            namespaces: Mutex::default(),
            files: AtomicUsize::default(),
        };
        lab.create_namespace(name).await?;
        Ok(lab)
    }

    /// Creates a namespace, which is deleted when the test ends.
    pub async fn create_namespace(&self, name: &str) -> anyhow::Result<()> {
        self.namespaces
            .lock()
            .expect("the lock is not poisoned")
            .push(name.to_owned());
        self.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
            .await
            .map(drop)
    }

    /// Returns a name that no other test uses.
    pub fn name(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.namespace)
    }

    /// Returns the API of a kind; `namespace` is empty for cluster-scoped kinds.
    pub fn api(&self, kind: &str, namespace: &str) -> Api<DynamicObject> {
        api(&self.client, kind, namespace)
    }

    /// Returns the API of a kind for a user that the policies on marks and content treat as the operator, as if these policies were not
    /// installed. The policies on the operator's own requests still apply.
    pub fn unguarded(&self, kind: &str, namespace: &str) -> Api<DynamicObject> {
        api(&self.unguarded, kind, namespace)
    }

    /// Returns a client that impersonates this user.
    pub async fn client_of(&self, user: &str) -> anyhow::Result<Client> {
        self.world.client_of(user).await
    }

    /// Applies an object with server-side apply, as the field manager `a-user`. The object must contain its namespace.
    pub async fn apply(&self, object: &Value) -> anyhow::Result<DynamicObject> {
        let (kind, namespace, name) = identity(object)?;
        let parameters = PatchParams::apply("a-user").force();
        let applied = self
            .api(kind, namespace)
            .patch(name, &parameters, &Patch::Apply(object))
            .await;
        applied.with_context(|| format!("applying {kind} {name}"))
    }

    /// Creates an object, which must not exist yet.
    pub async fn create(&self, object: &Value) -> anyhow::Result<DynamicObject> {
        let (kind, namespace, name) = identity(object)?;
        let parsed = serde_json::from_value(object.clone())?;
        self.api(kind, namespace)
            .create(&PostParams::default(), &parsed)
            .await
            .with_context(|| format!("creating {kind} {name}"))
    }

    /// Applies a ContourDeployment `edge` in the test's namespace.
    pub async fn edge(&self, spec: &Value) -> anyhow::Result<Edge> {
        self.edge_in(&self.namespace, spec).await
    }

    /// Applies a ContourDeployment `edge` in a namespace.
    pub async fn edge_in(&self, namespace: &str, spec: &Value) -> anyhow::Result<Edge> {
        self.apply(&contour_deployment(namespace, spec)).await?;
        Ok(Edge::new(self.client.clone(), namespace, "edge"))
    }

    /// Writes an object to a file for kubectl and returns the path.
    pub fn file(&self, object: &Value) -> anyhow::Result<String> {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let path = self.world.files.join(format!("{}-{number}.json", self.namespace));
        std::fs::write(&path, object.to_string()).with_context(|| format!("writing {}", path.display()))?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// Returns an object, or None if the object does not exist.
    pub async fn find(&self, object: &Thing) -> anyhow::Result<Option<Value>> {
        let found = self.api(object.kind, &object.namespace).get_opt(&object.name).await;
        found
            .with_context(|| format!("reading {object}"))?
            .map(|found| Ok(serde_json::to_value(found)?))
            .transpose()
    }

    /// Waits until an object exists.
    pub async fn wait_until_exists(&self, object: &Thing, limit: Duration) -> anyhow::Result<()> {
        wait(&format!("{object} exists"), limit)
            .until(async || {
                Ok(Look::when(
                    self.find(object).await?.is_some(),
                    "the object does not exist",
                ))
            })
            .await
    }

    /// Returns an object, or an error if the object does not exist.
    pub async fn read(&self, object: &Thing) -> anyhow::Result<Value> {
        self.find(object)
            .await?
            .with_context(|| format!("{object} does not exist"))
    }

    /// Patches an object with a JSON merge patch.
    pub async fn patch(&self, object: &Thing, patch: &Value) -> anyhow::Result<()> {
        let api = self.api(object.kind, &object.namespace);
        let patched = api
            .patch(&object.name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        patched.map(drop).with_context(|| format!("patching {object}"))
    }

    /// Removes a finalizer from an object. Other clients may remove theirs at the same time.
    pub async fn remove_finalizer(&self, object: &Thing, finalizer: &str) -> anyhow::Result<()> {
        wait(&format!("the finalizer of {object} is removed"), PATIENT)
            .until(async || {
                let metadata = self.read(object).await?["metadata"].take();
                let mut finalizers = metadata["finalizers"].as_array().cloned().unwrap_or_default();
                finalizers.retain(|held| held != finalizer);
                let left = json!({"finalizers": finalizers, "resourceVersion": metadata["resourceVersion"]});
                match self.patch(object, &json!({"metadata": left})).await {
                    Err(error) if is_conflict(&error) => {
                        Ok(Look::NotYet("another client wrote the object first".to_owned()))
                    }
                    patched => patched.map(Look::Reached),
                }
            })
            .await
    }

    /// Deletes an object. Does not wait until the object no longer exists.
    pub async fn delete(&self, object: &Thing) -> anyhow::Result<()> {
        let api = self.api(object.kind, &object.namespace);
        api.delete(&object.name, &DeleteParams::default())
            .await
            .map(drop)
            .with_context(|| format!("deleting {object}"))
    }

    /// Returns the only object of a kind in a namespace that belongs to an edge.
    pub async fn only(&self, kind: &'static str, namespace: &str, edge: &Edge) -> anyhow::Result<Value> {
        let mut found = self.all(kind, namespace, edge).await?;
        ensure!(
            found.len() == 1,
            "found {} {kind}s of {} in {namespace}",
            found.len(),
            edge.name()
        );
        Ok(found.remove(0))
    }

    /// Returns the objects of a kind in a namespace that belong to an edge.
    pub async fn all(&self, kind: &'static str, namespace: &str, edge: &Edge) -> anyhow::Result<Vec<Value>> {
        let list = self
            .api(kind, namespace)
            .list(&ListParams::default().labels(&edge.selector()))
            .await;
        let list = list.with_context(|| format!("listing {kind}s"))?;
        Ok(list
            .items
            .into_iter()
            .map(serde_json::to_value)
            .collect::<Result<_, _>>()?)
    }

    /// Waits until a status of the present generation fulfills a condition.
    pub async fn status(
        &self,
        edge: &Edge,
        what: &str,
        limit: Duration,
        is_so: impl Fn(&Status) -> bool,
    ) -> anyhow::Result<Status> {
        wait(what, limit)
            .until(async || {
                let status = edge.status().await?;
                if status.observed_generation == Some(status.generation) && is_so(&status) {
                    return Ok(Look::Reached(status));
                }
                let said = status
                    .condition("Ready")
                    .map_or_else(String::new, |ready| format!(": {}", ready.message));
                Ok(Look::NotYet(format!("{status}{said}")))
            })
            .await
    }

    /// Waits until Contour and Envoy are rolled out and the status has settled. This needs a stand-in for the kubelet.
    pub async fn settled(&self, edge: &Edge) -> anyhow::Result<Status> {
        wait("the ContourDeployment has settled", PATIENT)
            .until(async || edge.look_settled().await)
            .await
    }

    /// Triggers a reconcile of a ContourDeployment. Does not wait for the reconcile.
    pub async fn trigger_reconcile(&self, deployment: &Thing) -> anyhow::Result<()> {
        // Each patch has another value, because an unchanged object triggers no reconcile.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let patch = json!({"metadata": {"annotations": {RECONCILE_TRIGGER: now.as_nanos().to_string()}}});
        self.patch(deployment, &patch).await
    }

    /// Triggers `times` reconciles of an edge, and waits for each.
    pub async fn reconcile_again(&self, edge: &Edge, times: u32) -> anyhow::Result<()> {
        let object = Thing::new("ContourDeployment", edge.namespace(), edge.name());
        for _ in 0..times {
            let before = self.metrics().await?.sum("slipway_reconciles_total", &[]);
            self.trigger_reconcile(&object).await?;
            wait("the operator has reconciled again", PROMPT)
                .until(async || {
                    let now = self.metrics().await?.sum("slipway_reconciles_total", &[]);
                    Ok(Look::when(now > before, format!("{now} reconciles")))
                })
                .await?;
        }
        Ok(())
    }

    /// Returns the operator's metrics.
    pub async fn metrics(&self) -> anyhow::Result<Metrics> {
        let (code, text) = operator::get(self.world.address(), "/metrics").await?;
        ensure!(code == 200, "/metrics answers {code}");
        Metrics::parse(&text)
    }

    /// Returns all objects of an edge that are cluster-scoped or in the test's namespaces. Namespaces of other tests may have stand-ins
    /// with the same prefix.
    pub async fn objects_of(&self, edge: &Edge) -> anyhow::Result<BTreeSet<String>> {
        Ok(self.objects_of_each(&[edge]).await?.remove(0))
    }

    /// Returns the same as [`objects_of`](Self::objects_of) for several edges, one set for each.
    pub async fn objects_of_each(&self, edges: &[&Edge]) -> anyhow::Result<Vec<BTreeSet<String>>> {
        let namespaces = self.namespaces.lock().expect("the lock is not poisoned").clone();
        let is_here = |object: &String| {
            let place = object.split_once(' ').and_then(|(_, name)| name.split_once('/'));
            place.is_none_or(|(namespace, _)| namespaces.iter().any(|own| own == namespace))
        };
        let all = leftovers::of_each(&self.client, edges).await?.into_iter();
        Ok(all.map(|them| them.into_iter().filter(is_here).collect()).collect())
    }

    /// Waits until no object of this edge is left.
    pub async fn wait_until_nothing_is_left(&self, edge: &Edge) -> anyhow::Result<()> {
        // Kubernetes' garbage collector discovers a new CRD only half a minute later, and deletes its objects even later.
        wait("no object of the ContourDeployment is left", Duration::from_mins(2))
            .every(Duration::from_millis(200))
            .until(async || {
                let left = self.objects_of(edge).await?;
                Ok(Look::when(left.is_empty(), format!("left: {left:?}")))
            })
            .await
    }

    /// Waits until no ContourDeployment exists.
    pub async fn wait_until_no_others_are_left(&self) -> anyhow::Result<()> {
        wait(
            "the ContourDeployments of other tests no longer exist",
            Duration::from_mins(1),
        )
        .until(async || {
            let list = self
                .api("ContourDeployment", "")
                .list_metadata(&ListParams::default())
                .await?;
            let left: Vec<_> = list
                .items
                .iter()
                .filter_map(|object| object.metadata.namespace.clone())
                .collect();
            Ok(Look::when(left.is_empty(), format!("left in {}", left.join(", "))))
        })
        .await
    }

    /// Prints the objects in the test's namespaces.
    pub async fn show(&self) {
        let namespaces = self.namespaces.lock().expect("the lock is not poisoned").clone();
        for namespace in namespaces {
            let kinds = "cdep,deployments,daemonsets,services,extensionservices,contourconfigurations,pods,events";
            let printed = self
                .world
                .kubectl()
                .run(&["get", "-n", &namespace, kinds, "-o", "wide"])
                .await;
            say(format!("in namespace {namespace}:"));
            show(&printed.unwrap_or_else(|error| format!("{error:#}")));
        }
    }

    /// Deletes the test's namespaces. Does not wait until they no longer exist.
    pub async fn clean_up(&self) {
        let namespaces = self.namespaces.lock().expect("the lock is not poisoned").clone();
        for namespace in namespaces {
            let everywhere = self.api("Namespace", "");
            if let Err(error) = everywhere.delete(&namespace, &DeleteParams::default()).await
                && !matches!(&error, kube::Error::Api(status) if status.is_not_found())
            {
                say(format!("namespace {namespace} could not be deleted: {error}"));
            }
        }
    }
}

/// A reference to an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Thing {
    /// The object's kind.
    pub kind: &'static str,
    /// The object's namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// The object's name.
    pub name: String,
}

impl Thing {
    /// Returns the reference to the object of this kind, namespace and name.
    pub fn new(kind: &'static str, namespace: &str, name: &str) -> Self {
        Self {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

impl std::fmt::Display for Thing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, namespace, name } = self;
        if namespace.is_empty() {
            write!(f, "{kind} {name}")
        } else {
            write!(f, "{kind} {namespace}/{name}")
        }
    }
}

/// Returns the API of a kind; `namespace` is empty for cluster-scoped kinds.
pub fn api(client: &Client, kind: &str, namespace: &str) -> Api<DynamicObject> {
    let (group, version) = match kind {
        "ContourDeployment" => ("contour.slipway.dev", "v1alpha1"),
        "ExtensionService" | "ContourConfiguration" => ("projectcontour.io", "v1alpha1"),
        "HTTPProxy" => ("projectcontour.io", "v1"),
        "Deployment" | "DaemonSet" | "ReplicaSet" | "ControllerRevision" => ("apps", "v1"),
        "Lease" => ("coordination.k8s.io", "v1"),
        "EndpointSlice" => ("discovery.k8s.io", "v1"),
        "CustomResourceDefinition" => ("apiextensions.k8s.io", "v1"),
        "ValidatingAdmissionPolicy" | "ValidatingAdmissionPolicyBinding" => ("admissionregistration.k8s.io", "v1"),
        "Role" | "RoleBinding" | "ClusterRole" | "ClusterRoleBinding" => ("rbac.authorization.k8s.io", "v1"),
        _ => ("", "v1"),
    };
    let mut resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    if kind == "HTTPProxy" {
        "httpproxies".clone_into(&mut resource.plural);
    }
    if namespace.is_empty() {
        Api::all_with(client.clone(), &resource)
    } else {
        Api::namespaced_with(client.clone(), namespace, &resource)
    }
}

/// Returns a wait without progress messages.
pub fn wait(what: &str, limit: Duration) -> Wait {
    Wait::for_it(what)
        .within(limit)
        .every(Duration::from_millis(100))
        .silently()
}

/// Returns a ContourDeployment `edge`.
pub fn contour_deployment(namespace: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "contour.slipway.dev/v1alpha1", "kind": "ContourDeployment",
        "metadata": {"namespace": namespace, "name": "edge"}, "spec": spec,
    })
}

/// Returns the spec of most tests: Envoy as a Deployment (there are no nodes), and a required authorization service `auth`.
pub fn specification(auth_namespace: &str) -> Value {
    json!({
        "envoy": {"workloadType": "Deployment", "networkPublishing": {"type": "ClusterIPService"}},
        "runtimeSettings": {"globalExtAuth": {"extensionRef": {"namespace": auth_namespace, "name": "auth"}, "failOpen": false}},
    })
}

/// Reports whether the error is a conflict: another client wrote to the object after the read.
fn is_conflict(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 409)
}

fn identity(object: &Value) -> anyhow::Result<(&str, &str, &str)> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let (Some(kind), Some(name)) = (text("/kind"), text("/metadata/name")) else {
        bail!("not an object: {object}")
    };
    Ok((kind, text("/metadata/namespace").unwrap_or_default(), name))
}

/// The samples of a scrape.
#[derive(Debug)]
pub struct Metrics(Vec<(String, BTreeMap<String, String>, f64)>);

impl Metrics {
    /// Parses a scrape. Label values must not contain commas or quotes.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let samples = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .map(|line| {
                let (series, value) = line.rsplit_once(' ').with_context(|| format!("not a sample: {line}"))?;
                let (name, labels) = series.split_once('{').unwrap_or((series, ""));
                let pairs = labels
                    .trim_end_matches('}')
                    .split(',')
                    .filter_map(|pair| pair.split_once('='));
                let labels = pairs
                    .map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned()))
                    .collect();
                Ok((
                    name.to_owned(),
                    labels,
                    value.parse().with_context(|| format!("not a number: {line}"))?,
                ))
            });
        samples.collect::<anyhow::Result<_>>().map(Self)
    }

    /// Returns the samples of this name that have at least these labels.
    pub fn of<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = (&'a BTreeMap<String, String>, f64)> {
        let has = move |own: &BTreeMap<String, String>| {
            labels
                .iter()
                .all(|(key, value)| own.get(*key).is_some_and(|other| other == value))
        };
        self.0
            .iter()
            .filter(move |(own, its, _)| own == name && has(its))
            .map(|(_, labels, value)| (labels, *value))
    }

    /// Returns the sum of these samples.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.of(name, labels).map(|(_, value)| value).sum()
    }
}
