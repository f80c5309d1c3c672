//! Observations of the victims: all objects at one moment, the operator's requests since a moment, and the number of reconciles of each
//! victim.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use anyhow::Context as _;
use kube::ResourceExt as _;
use kube::api::ListParams;
use serde_json::{Map, Value, json};

use super::forged::{FORGED_DATA, PERSISTED_STATE, STARTUP_INPUTS, Victim};
use crate::differences;
use crate::edge::{COMPONENT, Component, OWNER_NAME, OWNER_NAMESPACE};
use crate::lab::created::{APPLIED, FINALIZER};
use crate::lab::{Lab, audit};

/// The observed kinds.
const KINDS: [&str; 13] = [
    "ContourDeployment",
    "ClusterRoleBinding",
    "RoleBinding",
    "ServiceAccount",
    "Secret",
    "Lease",
    "Service",
    "ExtensionService",
    "ContourConfiguration",
    "Deployment",
    "DaemonSet",
    "ReplicaSet",
    "Pod",
];

/// The kinds that the Deployment controller creates for Slipway's objects, and deletes with them.
const COPIES: [&str; 2] = ["ReplicaSet", "Pod"];

/// All objects of the observed kinds.
#[derive(Debug)]
pub struct Snapshot(Vec<(&'static str, Value)>);

impl Snapshot {
    /// Lists the objects.
    pub async fn of(lab: &Lab) -> anyhow::Result<Self> {
        let mut objects = Vec::new();
        for kind in KINDS {
            let list = lab.api(kind, "").list(&ListParams::default()).await;
            for object in list.with_context(|| format!("listing {kind}s"))? {
                objects.push((kind, serde_json::to_value(object)?));
            }
        }
        Ok(Self(objects))
    }

    fn find(&self, is_it: impl Fn(&str, &Value) -> bool) -> Value {
        let mut objects = self.0.iter();
        let found = objects.find(|(kind, object)| is_it(kind, object));
        found.map(|(_, object)| object.clone()).unwrap_or_default()
    }

    /// Returns the ContourDeployment, or null.
    pub fn deployment(&self, victim: &Victim) -> Value {
        self.find(|kind, object| kind == "ContourDeployment" && object["metadata"]["namespace"] == *victim.home)
    }

    /// Returns the ContourDeployment's status without observed generations.
    pub fn status(&self, victim: &Victim) -> Value {
        let mut status = self.deployment(victim)["status"].take();
        forget(&mut status, "observedGeneration");
        status
    }

    /// Returns the object of this kind, namespace and name, or null.
    pub fn object(&self, wanted: &str, namespace: &str, name: &str) -> Value {
        self.find(|kind, object| {
            let metadata = &object["metadata"];
            kind == wanted
                && metadata["name"] == name
                && metadata["namespace"].as_str().unwrap_or_default() == namespace
        })
    }

    /// Returns the victim with all facts that an attacker may know now.
    pub fn known(&self, victim: &Victim) -> Victim {
        let pod = self.find(|kind, object| {
            let (metadata, of_ours) = (&object["metadata"], "ReplicaSet");
            kind == "Pod"
                && metadata["namespace"] == *victim.home
                && metadata["labels"][COMPONENT] == Component::Contour.label()
                && metadata["ownerReferences"][0]["kind"] == of_ours
                && metadata["deletionTimestamp"].is_null()
        });
        let mut known = Victim {
            pod,
            deployment: self.object("Deployment", &victim.home, "edge-contour"),
            ..victim.clone()
        };
        let captured = known.captured();
        let configuration = captured["configuration"].as_str().unwrap_or_default();
        known.configuration = self.object("ContourConfiguration", &victim.home, configuration);
        let stand_in = captured["standIns"][0].as_str().and_then(|id| id.split_once('/'));
        let (namespace, name) = stand_in.unwrap_or_default();
        known.stand_in = self.object("ExtensionService", namespace, name);
        let text = |object: Value| object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        known.uid = text(self.deployment(victim));
        known.service = text(self.object("ExtensionService", &victim.auth, "auth"));
        known
    }

    /// Returns the missing objects with which a Contour that starts now would exit.
    pub fn dangling(&self, victim: &Victim) -> Vec<String> {
        let known = self.known(victim);
        let captured = known.captured();
        let mut needed = vec![("ContourConfiguration", &*known.home, captured["configuration"].as_str())];
        for id in captured["standIns"].as_array().into_iter().flatten() {
            let (namespace, name) = id.as_str().and_then(|id| id.split_once('/')).unwrap_or_default();
            needed.extend(["ExtensionService", "Service"].map(|kind| (kind, namespace, Some(name))));
        }
        let is_missing = |(kind, namespace, name): &(&str, &str, Option<&str>)| {
            let metadata = &self.object(kind, namespace, name.unwrap_or_default())["metadata"];
            metadata["uid"].is_null() || metadata["deletionTimestamp"].is_string()
        };
        let missing = needed.iter().filter(|needed| is_missing(needed));
        missing.map(|needed| format!("Contour misses {needed:?}")).collect()
    }

    /// Returns Slipway's part of all objects with the labels of this ContourDeployment.
    pub fn ours(&self, victim: &Victim) -> BTreeMap<String, Value> {
        let labelled = self.0.iter().filter(|(kind, object)| {
            let labels = &object["metadata"]["labels"];
            !COPIES.contains(kind) && labels[OWNER_NAME] == "edge" && labels[OWNER_NAMESPACE] == *victim.home
        });
        labelled
            .map(|(kind, object)| (described(kind, object), essence(kind, object)))
            .collect()
    }

    /// Returns the same as [`ours`](Self::ours), without the parts that a rollout changes. These parts are the names of the stand-in and of
    /// the ContourConfiguration that Contour uses, and the uids of their objects. The content of certificates is ignored, too.
    pub fn likeness(&self, victim: &Victim) -> BTreeMap<String, Value> {
        let known = self.known(victim);
        let names = [(&known.configuration, "CONFIGURATION"), (&known.stand_in, "STAND-IN")];
        let unnamed = |text: &str| {
            let names = names
                .iter()
                .map(|(object, word)| (object["metadata"]["name"].as_str(), word));
            let known = names.filter_map(|(name, word)| Some((name?, word)));
            known.fold(text.to_owned(), |text, (name, word)| text.replace(name, word))
        };
        let ours = self.ours(victim).into_iter();
        ours.map(|(name, mut essence)| {
            for key in ["uid", "generation"] {
                forget(&mut essence, key);
            }
            // The label is a hash of everything else.
            for (marks, key) in [
                ("annotations", STARTUP_INPUTS),
                ("labels", "contour.slipway.dev/template"),
            ] {
                if let Some(value) = essence["spec"]["template"]["metadata"][marks].get_mut(key) {
                    *value = captured(value);
                }
            }
            if name.starts_with("ContourConfiguration ") {
                forget(&mut essence, "annotations");
            }
            for (_, data) in essence["data"].as_object_mut().into_iter().flatten() {
                let is_forged = *data == FORGED_DATA;
                *data = json!({"is forged": is_forged});
            }
            let text = unnamed(&essence.to_string());
            (unnamed(&name), serde_json::from_str(&text).unwrap_or_default())
        })
        .collect()
    }
}

/// Returns the captured inputs of a container, without the uid and generation of the ContourConfiguration.
fn captured(annotation: &Value) -> Value {
    let text = annotation.as_str().unwrap_or_default();
    let mut captured: Value = serde_json::from_str(text).unwrap_or_default();
    forget(&mut captured, "uid");
    forget(&mut captured, "generation");
    captured
}

/// Returns `kind namespace/name`, in the form of [`Thing`](crate::lab::Thing).
fn described(kind: &str, object: &Value) -> String {
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default();
    match text("namespace") {
        "" => format!("{kind} {}", text("name")),
        namespace => format!("{kind} {namespace}/{}", text("name")),
    }
}

/// Returns the part of an object that Slipway determines.
fn essence(kind: &str, object: &Value) -> Value {
    let metadata = &object["metadata"];
    let mut annotations = metadata["annotations"].as_object().cloned().unwrap_or_default();
    // The persisted state records past actions; their results are in the spec. The Deployment controller writes its own annotations.
    let others = ["test.example.com/", "deployment.kubernetes.io/"];
    annotations.retain(|key, _| {
        key != APPLIED && key != PERSISTED_STATE && !others.iter().any(|prefix| key.starts_with(prefix))
    });
    let finalizers = metadata["finalizers"].as_array();
    let is_held = finalizers.is_some_and(|finalizers| finalizers.contains(&json!(FINALIZER)));
    let mut essence = Map::from_iter([
        ("annotations".to_owned(), Value::Object(annotations)),
        ("is held".to_owned(), json!(is_held)),
    ]);
    for key in ["uid", "labels", "ownerReferences", "deletionTimestamp"] {
        essence.insert(key.to_owned(), metadata[key].clone());
    }
    // Each change of a template causes a rollout, even a change that is reverted.
    if kind == "Deployment" || kind == "DaemonSet" {
        essence.insert("generation".to_owned(), metadata["generation"].clone());
    }
    let content: &[&str] = if kind == "Lease" {
        &[]
    } else {
        &["spec", "data", "roleRef", "subjects"]
    };
    for key in content {
        essence.insert((*key).to_owned(), object[*key].clone());
    }
    let mut essence = Value::Object(essence);
    // Different weights with the same effect are Slipway's nudges of Contour.
    for service in essence["spec"]["services"].as_array_mut().into_iter().flatten() {
        forget(service, "weight");
    }
    // The API server sets these fields of a Service that does not contain them.
    for key in ["ipFamilies", "ipFamilyPolicy"] {
        forget(&mut essence["spec"], key);
    }
    essence
}

fn forget(value: &mut Value, key: &str) {
    match value {
        Value::Object(fields) => {
            fields.remove(key);
            fields.values_mut().for_each(|value| forget(value, key));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| forget(value, key)),
        _ => {}
    }
}

/// Returns the content of a status without times and messages.
pub fn summary(status: &Value) -> Value {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let conditions: Map<String, Value> = conditions
        .map(|it| {
            (
                it["type"].as_str().unwrap_or_default().to_owned(),
                json!([it["status"], it["reason"]]),
            )
        })
        .collect();
    let services = status["extensionServices"].as_array().into_iter().flatten();
    let services: Vec<_> = services.map(|it| json!([it["state"], it["traffic"]])).collect();
    json!({"conditions": conditions, "services": services})
}

/// Returns a short description of the differences between two values.
pub fn difference(before: &Value, now: &Value) -> String {
    differences::of_values(before, now).join("; ")
}

/// Returns the operator's writes in the namespaces of a ContourDeployment, and all of its requests about the forbidden namespace.
pub fn requests(entries: &[Value], victim: &Victim) -> Vec<String> {
    let ours = [&victim.home, &victim.auth, &victim.alice];
    let mine = entries.iter().filter(|entry| {
        let text = |key: &str| entry["objectRef"][key].as_str().unwrap_or_default();
        let uri = entry["requestURI"].as_str().unwrap_or_default();
        let is_read = entry["verb"] == "get" || entry["verb"] == "list" || uri.contains("dryRun=All");
        let is_here = ours.iter().any(|place| text("namespace") == *place)
            || (text("namespace").is_empty() && text("name").contains(&format!(":{}:", victim.home)))
            || (text("namespace").is_empty() && text("name").ends_with(&format!("-{}", victim.home)));
        is_here && !is_read || uri.contains(&victim.elsewhere)
    });
    mine.map(audit_line).collect()
}

fn audit_line(entry: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = &entry["objectRef"];
    let resource = [&object["resource"], &object["subresource"]].map(text);
    let resource = resource.join("/");
    format!(
        "{} {} {}/{} {}",
        text(&entry["verb"]),
        resource.trim_end_matches('/'),
        text(&object["namespace"]),
        text(&object["name"]),
        entry["responseStatus"]["code"]
    )
}

/// Returns the operator's requests since then.
pub fn entries(lab: &Lab, since: audit::Mark) -> anyhow::Result<Vec<Value>> {
    audit::entries(lab.world, since)
}

/// Returns the present end of the operator's log.
pub fn log_end(lab: &Lab) -> anyhow::Result<u64> {
    Ok(lab.world.setup.log.metadata().context("the operator's log")?.len())
}

/// Returns the number of reconciles of each ContourDeployment since then, by namespace.
pub fn reconciles(lab: &Lab, since: u64) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut log = File::open(&lab.world.setup.log).context("opening the operator's log")?;
    log.seek(SeekFrom::Start(since))?;
    let mut text = Vec::new();
    log.read_to_end(&mut text)?;
    let mut count = BTreeMap::new();
    // The last line may be incomplete.
    for line in String::from_utf8_lossy(&text).lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        let object = line["object"].as_str().unwrap_or_default();
        if line["message"] == "reconciled"
            && let Some((_, namespace)) = object.split_once("/edge.")
        {
            *count.entry(namespace.to_owned()).or_default() += 1;
        }
    }
    Ok(count)
}

/// Returns the namespaces of the existing ContourDeployments.
pub async fn deployments(lab: &Lab) -> anyhow::Result<Vec<String>> {
    let list = lab
        .api("ContourDeployment", "")
        .list_metadata(&ListParams::default())
        .await;
    let list = list.context("listing ContourDeployments")?;
    Ok(list.into_iter().filter_map(|object| object.namespace()).collect())
}
