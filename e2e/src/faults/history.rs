//! Every state of the objects that decide whether requests are checked, in the order of the API server's commits, and the
//! invariants that must hold after each commit.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::{DynamicObject, ListParams};
use kube::runtime::watcher::{self, Event};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::lab::{Lab, PATIENT, wait};
use crate::wait::Look;

/// The kinds that the history records.
const KINDS: [&str; 4] = ["ContourConfiguration", "ExtensionService", "Deployment", "Pod"];

/// One commit. Versions are revisions of etcd, so all kinds have a common order.
#[derive(Clone, Debug)]
struct Commit {
    version: u64,
    kind: &'static str,
    name: String,
    /// The object after the commit, or None after a deletion.
    object: Option<Value>,
}

/// The recorder of all commits from [`begin`](Self::begin) until this value is dropped.
#[derive(Debug)]
pub struct History {
    commits: Arc<Mutex<Vec<Commit>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for History {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl History {
    /// Starts the recording. The cluster must not have objects of these kinds yet.
    pub fn begin(lab: &Lab) -> Self {
        let commits = Arc::<Mutex<Vec<Commit>>>::default();
        let tasks = KINDS.map(|kind| {
            let (api, commits) = (lab.api(kind, ""), commits.clone());
            tokio::spawn(async move {
                let mut events = watcher::watcher(api, watcher::Config::default()).boxed();
                while let Some(event) = events.next().await {
                    if let Ok(event) = event {
                        note(kind, event, &commits);
                    }
                }
            })
        });
        Self {
            commits,
            tasks: tasks.into(),
        }
    }

    /// Discards all commits except the last one of each object that still exists.
    pub fn forget(&self) {
        let mut commits = self.commits.lock().expect("the lock is not poisoned");
        let mut last = BTreeMap::new();
        commits.sort_by_key(|commit| commit.version);
        for commit in commits.drain(..) {
            last.insert((commit.kind, commit.name.clone()), commit);
        }
        commits.extend(last.into_values().filter(|commit| commit.object.is_some()));
    }

    /// Waits until every commit up to now is recorded.
    pub async fn catch_up(&self, lab: &Lab) -> anyhow::Result<()> {
        for kind in KINDS {
            wait(&format!("all commits of {kind}s are recorded"), PATIENT)
                .every(Duration::from_millis(10))
                .until(async || {
                    // Lists again in each iteration, so an object that is deleted meanwhile must be recorded as deleted, too.
                    let list = lab.api(kind, "").list_metadata(&ListParams::default()).await?;
                    let there: BTreeMap<String, u64> = list
                        .items
                        .iter()
                        .map(|object| (full_name(&object.metadata), version(&object.metadata)))
                        .collect();
                    let seen = self.present(kind);
                    let older = there
                        .iter()
                        .find(|(name, version)| seen.get(*name).is_none_or(|seen| seen < version));
                    let more = seen.keys().find(|name| !there.contains_key(*name));
                    Ok(Look::when(
                        older.is_none() && more.is_none(),
                        format!("{older:?} {more:?}"),
                    ))
                })
                .await?;
        }
        Ok(())
    }

    fn present(&self, kind: &str) -> BTreeMap<String, u64> {
        let commits = self.commits.lock().expect("the lock is not poisoned");
        let mut last: BTreeMap<String, (u64, bool)> = BTreeMap::new();
        for commit in commits.iter().filter(|commit| commit.kind == kind) {
            let state = (commit.version, commit.object.is_some());
            let entry = last.entry(commit.name.clone()).or_insert(state);
            *entry = (*entry).max(state);
        }
        last.into_iter()
            .filter(|(_, (_, there))| *there)
            .map(|(name, (version, _))| (name, version))
            .collect()
    }

    /// Returns the number of commits checked, and the violations, each with its commit.
    pub fn violations(&self) -> (usize, Vec<String>) {
        let mut commits = self.commits.lock().expect("the lock is not poisoned").clone();
        commits.sort_by_key(|commit| commit.version);
        let mut world = BTreeMap::new();
        let mut found = Vec::new();
        for commit in &commits {
            let key = (commit.kind, commit.name.clone());
            match &commit.object {
                Some(object) => world.insert(key, object.clone()),
                None => world.remove(&key),
            };
            let wrong = wrong(&world);
            found.extend(wrong.map(|wrong| {
                format!(
                    "after version {} of {} {}: {wrong}",
                    commit.version, commit.kind, commit.name
                )
            }));
        }
        (commits.len(), found)
    }
}

fn note(kind: &'static str, event: Event<DynamicObject>, commits: &Mutex<Vec<Commit>>) {
    let (object, gone) = match event {
        Event::Apply(object) | Event::InitApply(object) => (object, false),
        Event::Delete(object) => (object, true),
        Event::Init | Event::InitDone => return,
    };
    commits.lock().expect("the lock is not poisoned").push(Commit {
        version: version(&object.metadata),
        kind,
        name: full_name(&object.metadata),
        object: (!gone).then(|| serde_json::to_value(object).unwrap_or_default()),
    });
}

fn full_name(object: &kube::core::ObjectMeta) -> String {
    let [namespace, name] = [&object.namespace, &object.name].map(|it| it.as_deref().unwrap_or_default());
    format!("{namespace}/{name}")
}

fn version(object: &kube::core::ObjectMeta) -> u64 {
    object
        .resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or_default()
}

type Objects = BTreeMap<(&'static str, String), Value>;

/// Returns the first violation of an invariant: a configuration without checks, or a Contour without its configuration or stand-in.
fn wrong(world: &Objects) -> Option<String> {
    let of = |wanted: &'static str| world.iter().filter(move |((kind, _), _)| *kind == wanted);
    for ((_, name), configuration) in of("ContourConfiguration") {
        let check = &configuration["spec"]["globalExtAuth"];
        if check["extensionRef"]["name"].as_str().is_none() {
            return Some(format!("ContourConfiguration {name} has no globalExtAuth"));
        }
        if check["failOpen"].as_bool() == Some(true) {
            return Some(format!("ContourConfiguration {name} has failOpen: true"));
        }
    }
    let contours = of("Deployment")
        .map(|((_, name), object)| {
            (
                name,
                &object["metadata"]["namespace"],
                &object["spec"]["template"]["spec"],
            )
        })
        .chain(
            of("Pod")
                .filter(|(_, pod)| !has_ended(pod))
                .map(|((_, name), pod)| (name, &pod["metadata"]["namespace"], &pod["spec"])),
        );
    for (who, namespace, spec) in contours {
        let Some(configuration) = configuration(spec) else {
            continue;
        };
        let name = format!("{}/{configuration}", namespace.as_str().unwrap_or_default());
        let Some(configuration) = world.get(&("ContourConfiguration", name.clone())) else {
            return Some(format!("{who} names ContourConfiguration {name}, which does not exist"));
        };
        let reference = &configuration["spec"]["globalExtAuth"]["extensionRef"];
        let [namespace, name] = ["namespace", "name"].map(|field| reference[field].as_str().unwrap_or_default());
        let stand_in = format!("{namespace}/{name}");
        if !world.contains_key(&("ExtensionService", stand_in.clone())) {
            return Some(format!("{who} uses stand-in {stand_in}, which does not exist"));
        }
    }
    None
}

fn has_ended(pod: &Value) -> bool {
    ["Succeeded", "Failed"]
        .iter()
        .any(|phase| pod["status"]["phase"] == *phase)
}

/// Returns the name of the configuration that Contour reads with this pod spec.
fn configuration(spec: &Value) -> Option<&str> {
    let containers = spec["containers"].as_array()?;
    let mut arguments = containers
        .iter()
        .filter_map(|container| container["args"].as_array())
        .flatten();
    arguments.find_map(|argument| argument.as_str()?.strip_prefix("--contour-config-name="))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn world(fail_open: bool, stand_in: bool) -> Objects {
        let check = json!({"failOpen": fail_open, "extensionRef": {"namespace": "auth", "name": "s"}});
        let arguments = json!(["serve", "--contour-config-name=c"]);
        let template = json!({"spec": {"containers": [{"args": arguments}]}});
        let mut world = Objects::from([
            (
                ("ContourConfiguration", "a/c".to_owned()),
                json!({"spec": {"globalExtAuth": check}}),
            ),
            (
                ("Deployment", "a/d".to_owned()),
                json!({"metadata": {"namespace": "a"}, "spec": {"template": template}}),
            ),
        ]);
        if stand_in {
            world.insert(("ExtensionService", "auth/s".to_owned()), json!({}));
        }
        world
    }

    #[test]
    fn wrong_reports_each_violated_invariant() {
        assert_eq!(wrong(&world(false, true)), None);
        assert!(wrong(&world(true, true)).expect("wrong").contains("failOpen"));
        assert!(wrong(&world(false, false)).expect("wrong").contains("stand-in auth/s"));
        let mut without = world(false, true);
        without.remove(&("ContourConfiguration", "a/c".to_owned()));
        assert!(wrong(&without).expect("wrong").contains("does not exist"));
    }
}
