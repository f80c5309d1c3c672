//! What tests and proofs on a real API server share: the server with Slipway on it (`world`), the operator as a process
//! (`operator`), those who are not there, played (`players`), and, here, one test's place: its namespaces, and what it does and
//! sees there.

pub mod audit;
pub mod contour;
pub mod made;
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

/// What the operator does at once is there by then. It takes milliseconds; the rest is patience with a busy machine. The
/// operator's own clocks are far slower: it looks at everything again after ten minutes.
pub const PROMPT: Duration = Duration::from_secs(10);

/// For what goes through controllers of Kubernetes' own, or comes after a backoff.
pub const PATIENT: Duration = Duration::from_secs(40);

/// How long a CRD may take to go: the API server gives each of its own tries to delete the objects a minute
/// (`crd_finalizer.go` of apiextensions-apiserver v0.34), and there has to be time for another one.
pub const CRD_GOES: Duration = Duration::from_secs(150);

/// The annotation by which a test makes the operator look again.
pub(crate) const POKE: &str = "test.example.com/poke";

/// What a test works with.
pub struct Lab {
    /// The API server and the operator.
    pub world: &'static World,
    /// For this test's runtime.
    pub client: Client,
    unguarded: Client,
    /// The test's own namespace.
    pub namespace: String,
    namespaces: Mutex<Vec<String>>,
    files: AtomicUsize,
}

impl Lab {
    /// With a namespace of this name.
    pub async fn new(world: &'static World, name: &str) -> anyhow::Result<Self> {
        let lab = Self {
            world,
            client: world.client().await?,
            unguarded: world.unguarded_client().await?,
            namespace: name.to_owned(),
            namespaces: Mutex::default(),
            files: AtomicUsize::default(),
        };
        lab.make_namespace(name).await?;
        Ok(lab)
    }

    /// Makes a namespace, which goes when the test ends.
    pub async fn make_namespace(&self, name: &str) -> anyhow::Result<()> {
        self.namespaces
            .lock()
            .expect("nobody panics with the lock")
            .push(name.to_owned());
        self.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
            .await
            .map(drop)
    }

    /// A name that no other test has.
    pub fn name(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.namespace)
    }

    /// The objects of a kind; `namespace` is empty for kinds that live in none.
    pub fn api(&self, kind: &str, namespace: &str) -> Api<DynamicObject> {
        api(&self.client, kind, namespace)
    }

    /// The same, for one whom the policies on marks and content take for the operator: as if they were not installed. The policies
    /// on what the operator does do hold.
    pub fn unguarded(&self, kind: &str, namespace: &str) -> Api<DynamicObject> {
        api(&self.unguarded, kind, namespace)
    }

    /// The API server, for whoever it takes for this user.
    pub async fn client_of(&self, user: &str) -> anyhow::Result<Client> {
        self.world.client_of(user).await
    }

    /// Server-side apply, as a user of that name. The object's namespace must be in it.
    pub async fn apply(&self, object: &Value) -> anyhow::Result<DynamicObject> {
        let (kind, namespace, name) = identity(object)?;
        let parameters = PatchParams::apply("a-user").force();
        let applied = self
            .api(kind, namespace)
            .patch(name, &parameters, &Patch::Apply(object))
            .await;
        applied.with_context(|| format!("applying {kind} {name}"))
    }

    /// Creates an object that must not exist.
    pub async fn create(&self, object: &Value) -> anyhow::Result<DynamicObject> {
        let (kind, namespace, name) = identity(object)?;
        let parsed = serde_json::from_value(object.clone())?;
        self.api(kind, namespace)
            .create(&PostParams::default(), &parsed)
            .await
            .with_context(|| format!("creating {kind} {name}"))
    }

    /// A ContourDeployment `edge` in the test's namespace.
    pub async fn edge(&self, spec: &Value) -> anyhow::Result<Edge> {
        self.edge_in(&self.namespace, spec).await
    }

    /// A ContourDeployment `edge`.
    pub async fn edge_in(&self, namespace: &str, spec: &Value) -> anyhow::Result<Edge> {
        self.apply(&contour_deployment(namespace, spec)).await?;
        Ok(Edge::new(self.client.clone(), namespace, "edge"))
    }

    /// A file with an object in it, for kubectl.
    pub fn file(&self, object: &Value) -> anyhow::Result<String> {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let path = self.world.files.join(format!("{}-{number}.json", self.namespace));
        std::fs::write(&path, object.to_string()).with_context(|| format!("writing {}", path.display()))?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// An object, if it is there.
    pub async fn find(&self, object: &Thing) -> anyhow::Result<Option<Value>> {
        let found = self.api(object.kind, &object.namespace).get_opt(&object.name).await;
        found
            .with_context(|| format!("reading {object}"))?
            .map(|found| Ok(serde_json::to_value(found)?))
            .transpose()
    }

    /// An object that is there.
    pub async fn read(&self, object: &Thing) -> anyhow::Result<Value> {
        self.find(object)
            .await?
            .with_context(|| format!("{object} does not exist"))
    }

    /// A JSON merge patch.
    pub async fn patch(&self, object: &Thing, patch: &Value) -> anyhow::Result<()> {
        let api = self.api(object.kind, &object.namespace);
        let patched = api
            .patch(&object.name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        patched.map(drop).with_context(|| format!("patching {object}"))
    }

    /// Takes a finalizer away from an object, while others may be taking theirs away.
    pub async fn let_go(&self, object: &Thing, finalizer: &str) -> anyhow::Result<()> {
        wait(&format!("{object} is let go"), PATIENT)
            .until(async || {
                let metadata = self.read(object).await?["metadata"].take();
                let mut finalizers = metadata["finalizers"].as_array().cloned().unwrap_or_default();
                finalizers.retain(|held| held != finalizer);
                let left = json!({"finalizers": finalizers, "resourceVersion": metadata["resourceVersion"]});
                match self.patch(object, &json!({"metadata": left})).await {
                    Err(error) if is_conflict(&error) => Ok(Look::NotYet("somebody was quicker".to_owned())),
                    patched => patched.map(Look::Reached),
                }
            })
            .await
    }

    /// Deletes an object; its end is not waited for.
    pub async fn delete(&self, object: &Thing) -> anyhow::Result<()> {
        let api = self.api(object.kind, &object.namespace);
        api.delete(&object.name, &DeleteParams::default())
            .await
            .map(drop)
            .with_context(|| format!("deleting {object}"))
    }

    /// The only object of a kind in a namespace that belongs to an edge.
    pub async fn only(&self, kind: &'static str, namespace: &str, edge: &Edge) -> anyhow::Result<Value> {
        let mut found = self.all(kind, namespace, edge).await?;
        ensure!(
            found.len() == 1,
            "there are {} {kind}s of {} in {namespace}",
            found.len(),
            edge.name()
        );
        Ok(found.remove(0))
    }

    /// The objects of a kind in a namespace that belong to an edge.
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

    /// Waits until a status is so.
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

    /// Waits until Contour and Envoy are rolled out and everything is reported. It takes somebody who plays the kubelet.
    pub async fn settled(&self, edge: &Edge) -> anyhow::Result<Status> {
        wait("the ContourDeployment has settled", PATIENT)
            .until(async || edge.look_settled().await)
            .await
    }

    /// Makes the operator look at an edge again `times` times, and waits until it has.
    pub async fn looks_again(&self, edge: &Edge, times: u32) -> anyhow::Result<()> {
        let object = Thing::new("ContourDeployment", edge.namespace(), edge.name());
        for _ in 0..times {
            let before = self.metrics().await?.sum("slipway_reconciles_total", &[]);
            // Another value each time, or nothing would change.
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
            let patch = json!({"metadata": {"annotations": {POKE: now.as_nanos().to_string()}}});
            self.patch(&object, &patch).await?;
            wait("the operator has looked again", PROMPT)
                .until(async || {
                    let now = self.metrics().await?.sum("slipway_reconciles_total", &[]);
                    Ok(Look::when(now > before, format!("{now} reconciles")))
                })
                .await?;
        }
        Ok(())
    }

    /// The operator's metrics.
    pub async fn metrics(&self) -> anyhow::Result<Metrics> {
        let (code, text) = operator::get(self.world.address(), "/metrics").await?;
        ensure!(code == 200, "/metrics answers {code}");
        Metrics::parse(&text)
    }

    /// Everything that belongs to an edge, in no namespace or in the test's own: in those of other tests there are
    /// stand-ins of the same first letters.
    pub async fn belongings(&self, edge: &Edge) -> anyhow::Result<BTreeSet<String>> {
        Ok(self.belongings_of_each(&[edge]).await?.remove(0))
    }

    /// The same of several, of each by itself.
    pub async fn belongings_of_each(&self, edges: &[&Edge]) -> anyhow::Result<Vec<BTreeSet<String>>> {
        let namespaces = self.namespaces.lock().expect("nobody panics with the lock").clone();
        let is_here = |object: &String| {
            let place = object.split_once(' ').and_then(|(_, name)| name.split_once('/'));
            place.is_none_or(|(namespace, _)| namespaces.iter().any(|own| own == namespace))
        };
        let all = leftovers::of_each(&self.client, edges).await?.into_iter();
        Ok(all.map(|them| them.into_iter().filter(is_here).collect()).collect())
    }

    /// Waits until nothing belongs to this edge any more.
    pub async fn nothing_is_left(&self, edge: &Edge) -> anyhow::Result<()> {
        // Kubernetes' garbage collector hears of a CRD that was just installed half a minute late, and deletes for it later still.
        wait("nothing is left of the ContourDeployment", Duration::from_mins(2))
            .every(Duration::from_millis(200))
            .until(async || {
                let left = self.belongings(edge).await?;
                Ok(Look::when(left.is_empty(), format!("left: {left:?}")))
            })
            .await
    }

    /// Waits until no ContourDeployment is there at all.
    pub async fn nothing_is_left_of_others(&self) -> anyhow::Result<()> {
        wait("the ContourDeployments of other tests are gone", Duration::from_mins(1))
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
                Ok(Look::when(left.is_empty(), format!("those in {}", left.join(", "))))
            })
            .await
    }

    /// Prints what there is in the test's namespaces.
    pub async fn show(&self) {
        let namespaces = self.namespaces.lock().expect("nobody panics with the lock").clone();
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

    /// Deletes the test's namespaces; nothing is waited for.
    pub async fn clean_up(&self) {
        let namespaces = self.namespaces.lock().expect("nobody panics with the lock").clone();
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

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Thing {
    /// Its kind.
    pub kind: &'static str,
    /// Its namespace; empty for kinds that live in none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Thing {
    /// The object of this kind, namespace and name.
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

/// The objects of a kind; `namespace` is empty for kinds that live in none.
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

/// A silent wait.
pub fn wait(what: &str, limit: Duration) -> Wait {
    Wait::for_it(what)
        .within(limit)
        .every(Duration::from_millis(100))
        .silently()
}

/// A ContourDeployment `edge`.
pub fn contour_deployment(namespace: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "contour.slipway.dev/v1alpha1", "kind": "ContourDeployment",
        "metadata": {"namespace": namespace, "name": "edge"}, "spec": spec,
    })
}

/// The specification of most tests: Envoy as a Deployment (there are no nodes), and a required authorization service `auth`.
pub fn specification(auth_namespace: &str) -> Value {
    json!({
        "envoy": {"workloadType": "Deployment", "networkPublishing": {"type": "ClusterIPService"}},
        "runtimeSettings": {"globalExtAuth": {"extensionRef": {"namespace": auth_namespace, "name": "auth"}, "failOpen": false}},
    })
}

/// Whether somebody wrote to the object since it was read.
fn is_conflict(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 409)
}

fn identity(object: &Value) -> anyhow::Result<(&str, &str, &str)> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let (Some(kind), Some(name)) = (text("/kind"), text("/metadata/name")) else {
        bail!("no object: {object}")
    };
    Ok((kind, text("/metadata/namespace").unwrap_or_default(), name))
}

/// The samples of a scrape.
#[derive(Debug)]
pub struct Metrics(Vec<(String, BTreeMap<String, String>, f64)>);

impl Metrics {
    /// Label values here have no commas and no quotes in them.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let samples = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .map(|line| {
                let (series, value) = line.rsplit_once(' ').with_context(|| format!("no sample: {line}"))?;
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
                    value.parse().with_context(|| format!("no number: {line}"))?,
                ))
            });
        samples.collect::<anyhow::Result<_>>().map(Self)
    }

    /// The samples of this name that have these labels among theirs.
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

    /// Their sum.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.of(name, labels).map(|(_, value)| value).sum()
    }
}
