//! Drift: Slipway repairs each change that another user makes to Slipway's objects, immediately and without other changes. Leaks:
//! nothing is left behind after any deletion, even if components were down meanwhile (`leaks`).
//!
//! A round uses one ContourDeployment that has settled. The round applies each possible perturbation to each of its objects, in an order
//! that a seed determines. The proof relies only on what the API server reports, and on the order of its versions.

pub mod leaks;
pub mod obstacle;
pub mod owned;
pub mod perturbation;
pub mod proof;
mod surroundings;
pub mod times;
pub mod watches;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use fastrand::Rng;
use futures::StreamExt as _;
use serde_json::{Value, json};

use self::perturbation::{AppliedPerturbation, Perturbation, Target};
use self::surroundings::Bystanders;
use self::times::Times;
use self::watches::{Change, Watches};
use crate::edge::Edge;
use crate::lab::players::{self, Kubelet, Node, Verdict};
use crate::lab::{Lab, PATIENT, PROMPT, QUIET, Thing, audit, wait};
use crate::narration::say;
use crate::wait::Look;

/// The time limit for settling. The limit is longer than the backoff of successions at the rate of one round.
const SETTLES: Duration = Duration::from_mins(2);

/// The workload of Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvoyWorkload {
    /// One pod on each node.
    DaemonSet,
    /// A number of replicas.
    Deployment,
}

impl EnvoyWorkload {
    /// Returns the name of the kind.
    pub fn kind(self) -> &'static str {
        match self {
            Self::DaemonSet => "DaemonSet",
            Self::Deployment => "Deployment",
        }
    }
}

/// The parameters of a round.
#[derive(Clone, Debug)]
pub struct Round {
    /// The suffix of the round's namespace.
    pub name: String,
    /// The seed that determines the order and the details of the perturbations.
    pub seed: u64,
    /// The workload of Envoy.
    pub workload: EnvoyWorkload,
    /// The share of the cases, as (part, parts): every `parts`-th case, starting with case number `part`.
    pub share: (usize, usize),
    /// A filter: only cases with this text in their names.
    pub only: Option<String>,
}

/// The outcome of a round.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The duration of each repair, by perturbation.
    pub times: Times,
    /// The kinds with perturbations.
    pub kinds: BTreeSet<&'static str>,
    /// The number of deletions that the operator requested. Each had the uid of its object.
    pub deletions: usize,
    /// The failed cases and their errors.
    pub failures: Vec<String>,
}

impl Outcome {
    /// Prints the durations. Returns an error if a case failed.
    pub fn check(&self) -> anyhow::Result<()> {
        for (what, line) in self.times.lines() {
            say(format!("{what}: {line}"));
        }
        ensure!(
            self.failures.is_empty(),
            "{} cases failed:\n{}",
            self.failures.len(),
            self.failures.join("\n")
        );
        Ok(())
    }

    /// Adds the outcome of another round.
    pub fn add(&mut self, other: Self) {
        self.times.add(other.times);
        self.kinds.extend(other.kinds);
        self.deletions += other.deletions;
        self.failures.extend(other.failures);
    }
}

/// Runs rounds, `at_once` of them in parallel. Calls `done` after each.
pub async fn rounds(
    lab: &Lab,
    rounds: &[Round],
    at_once: usize,
    mut done: impl FnMut(&Round, &Outcome) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    let _kubelet = Kubelet::of_all(lab);
    let _node = Node::of(lab).await?;
    let watches = Watches::of(lab);
    let mut all = Outcome::default();
    let mut outcomes = futures::stream::iter(rounds)
        .map(|round| {
            let watches = &watches;
            async move { (round, self::round(lab, watches, round).await) }
        })
        .buffer_unordered(at_once);
    while let Some((round, outcome)) = outcomes.next().await {
        let outcome = outcome.unwrap_or_else(|error| {
            let failure = format!("round {} (seed {}): {error:#}", round.name, round.seed);
            say(format!("FAILED: {failure}"));
            Outcome {
                failures: vec![failure],
                ..Outcome::default()
            }
        });
        done(round, &outcome)?;
        all.add(outcome);
    }
    ensure!(!all.times.is_empty() || !all.failures.is_empty(), "no round ran");
    Ok(all)
}

/// The ContourDeployment of a round, and the names of its objects in the settled state.
struct Stage<'a> {
    lab: &'a Lab,
    watches: &'a Watches,
    edge: Edge,
    things: BTreeSet<String>,
}

/// Runs one round.
pub async fn round(lab: &Lab, watches: &Watches, round: &Round) -> anyhow::Result<Outcome> {
    let mut rng = Rng::with_seed(round.seed);
    let namespace = lab.name(&round.name);
    let auth = format!("{namespace}-auth");
    for name in [&namespace, &auth] {
        lab.create_namespace(name).await?;
    }
    let bystanders = Bystanders::create(lab, &[&namespace, &auth]).await?;
    if rng.bool() {
        players::auth_server(lab, &auth).await?;
        lab.create(&players::extension_service(&auth, "500ms")).await?;
        players::judge(lab, &auth, "auth", Verdict::Valid).await?;
    }
    let edge = lab.edge_in(&namespace, &specification(&auth, round.workload)).await?;
    lab.settled(&edge).await?;
    let stage = Stage::set(lab, watches, edge).await?;
    let mark = audit::mark(lab.world)?;
    let mut outcome = Outcome::default();

    let targets = stage.targets()?;
    let mut cases: Vec<(String, Perturbation)> = Vec::new();
    for (masked, target) in &targets {
        outcome.kinds.insert(target.thing.kind);
        let concerned = Perturbation::ALL.into_iter().filter(|what| what.concerns(target));
        cases.extend(concerned.map(|what| (masked.clone(), what)));
    }
    ensure!(!cases.is_empty(), "the round has no cases");
    rng.shuffle(&mut cases);
    let (part, parts) = round.share;
    for (number, (masked, what)) in cases.iter().enumerate().filter(|(number, _)| number % parts == part) {
        // Each case has its own random numbers, so that a single case is the same as in its round.
        let mut rng = Rng::with_seed(round.seed ^ (number as u64).rotate_left(32));
        let name = format!("{masked} {}", what.name());
        if round.only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        match stage.case(masked, *what, &mut rng).await {
            Ok(times) => times.into_iter().for_each(|time| outcome.times.note(what.name(), time)),
            Err(error) => {
                say(format!("FAILED: {name} (seed {}): {error:#}", round.seed));
                outcome.failures.push(format!("{name}: {error:#}"));
            }
        }
    }
    ensure!(!outcome.times.is_empty() || !outcome.failures.is_empty(), "no case ran");

    stage.settled().await?;
    stage.wait_for_unaltered_configuration().await?;
    stage.settled().await?;
    surroundings::check_certificates(lab, &namespace).await?;
    stage.wait_until_quiet(&[&namespace, &auth]).await?;
    let edge = stage.edge;
    edge.delete().await?;
    lab.wait_until_nothing_is_left(&edge).await?;
    bystanders.check_unchanged(lab).await?;
    audit::only_own_objects_written(lab.world, mark, &[&namespace, &auth], edge.name())?;
    outcome.deletions = audit::deletions_by_uid(lab.world, mark, &[&namespace, &auth])?;
    ensure!(
        outcome.deletions > 0,
        "the operator deleted nothing, not even at the end"
    );
    Ok(outcome)
}

/// Returns a spec with one stand-in beside a service and one in the ContourDeployment's own namespace.
fn specification(auth: &str, workload: EnvoyWorkload) -> Value {
    json!({
        // The spec sets the replicas, so that Slipway owns the field.
        "contour": {"deployment": {"replicas": 2}},
        "envoy": {"workloadType": workload.kind(), "networkPublishing": {"type": "NodePortService"}},
        "runtimeSettings": {
            "globalExtAuth": {"extensionRef": {"namespace": auth, "name": "auth"}, "failOpen": false},
            "tracing": {"extensionService": {"namespace": "nowhere", "name": "otel"}},
        },
    })
}

impl<'a> Stage<'a> {
    async fn set(lab: &'a Lab, watches: &'a Watches, edge: Edge) -> anyhow::Result<Self> {
        let by_labels = wait("the watches of the test have caught up", PROMPT)
            .until(async || {
                // By labels and by names, in the whole cluster, for all kinds.
                let is_made = |it: &String| {
                    let kind = it.split(' ').next().unwrap_or_default();
                    kind != "ContourDeployment" && !is_by_others(kind)
                };
                let there: BTreeSet<_> = lab.objects_of(&edge).await?.into_iter().filter(is_made).collect();
                let seen: BTreeSet<_> = watches.of_edge(&edge).keys().map(ToString::to_string).collect();
                Ok(if seen == there && !seen.is_empty() {
                    Look::Reached(watches.of_edge(&edge))
                } else {
                    Look::NotYet(format!("existing: {there:?}, observed: {seen:?}"))
                })
            })
            .await?;
        let things: BTreeSet<_> = by_labels.keys().map(|thing| masked(thing.kind, &thing.name)).collect();
        ensure!(
            things.len() == by_labels.len(),
            "two objects have the same name: {things:?}"
        );
        Ok(Self {
            lab,
            watches,
            edge,
            things,
        })
    }

    /// Returns the objects of the edge now, by their names without hashes.
    fn targets(&self) -> anyhow::Result<BTreeMap<String, Target>> {
        let its = self.watches.of_edge(&self.edge).into_iter();
        its.map(|(thing, object)| {
            Ok((
                masked(thing.kind, &thing.name),
                Target::new(thing, Value::clone(&object))?,
            ))
        })
        .collect()
    }

    fn observe_complete(&self) -> Look<()> {
        let its = self.watches.of_edge(&self.edge);
        let terminating = its
            .values()
            .any(|object| !object["metadata"]["deletionTimestamp"].is_null());
        let names: Vec<_> = its.keys().map(|thing| masked(thing.kind, &thing.name)).collect();
        let complete =
            !terminating && names.len() == self.things.len() && names.iter().all(|name| self.things.contains(name));
        let odd: Vec<_> = names.iter().filter(|name| !self.things.contains(*name)).collect();
        let missing: Vec<_> = self.things.iter().filter(|name| !names.contains(name)).collect();
        Look::when(
            complete,
            format!(
                "{} objects, unexpected {odd:?}, missing {missing:?}, some Terminating: {terminating}",
                names.len()
            ),
        )
    }

    /// Waits until the state is the same as before any case, and the operator has observed that state.
    ///
    /// The operator must reach the state by itself. Only then does this function trigger one more reconcile, by a change that affects only
    /// the status. When the operator has reported the new generation without further changes, the state is final.
    async fn settled(&self) -> anyhow::Result<()> {
        let look = async || {
            Ok(match self.observe_complete() {
                Look::Reached(()) => match self.edge.look_settled().await? {
                    Look::Reached(_) => Look::Reached(()),
                    Look::NotYet(seen) => Look::NotYet(seen),
                },
                not_yet @ Look::NotYet(_) => not_yet,
            })
        };
        let waiting = |what: &str| wait(what, SETTLES).every(Duration::from_millis(25));
        waiting("the initial state is restored").until(look).await?;
        let own = Thing::new("ContourDeployment", self.edge.namespace(), self.edge.name());
        let spec = self.lab.read(&own).await?["spec"].clone();
        let other = if spec["extensionServices"]["readiness"] == "Tolerated" {
            "Required"
        } else {
            "Tolerated"
        };
        self.lab
            .patch(&own, &json!({"spec": {"extensionServices": {"readiness": other}}}))
            .await?;
        waiting("the initial state is restored, and the operator has reconciled again")
            .until(look)
            .await
    }

    /// Waits until the operator has reconciled this edge after all earlier actions.
    async fn wait_for_reconcile(&self) -> anyhow::Result<()> {
        let own = Thing::new("ContourDeployment", self.edge.namespace(), self.edge.name());
        let spec = self.lab.read(&own).await?["spec"].clone();
        let other = if spec["extensionServices"]["readiness"] == "Tolerated" {
            "Required"
        } else {
            "Tolerated"
        };
        self.lab
            .patch(&own, &json!({"spec": {"extensionServices": {"readiness": other}}}))
            .await?;
        wait("the operator has reconciled", PATIENT)
            .every(Duration::from_millis(25))
            .until(async || {
                let status = self.edge.status().await?;
                Ok(Look::when(
                    status.observed_generation == Some(status.generation),
                    status.to_string(),
                ))
            })
            .await
    }

    async fn target(&self, masked: &str) -> anyhow::Result<Target> {
        let mut targets = self.targets()?;
        let known = targets
            .remove(masked)
            .with_context(|| format!("{masked} does not exist"))?;
        let before = self.lab.read(&known.thing).await?;
        Target::new(known.thing, before)
    }

    /// Applies one perturbation to one object. Returns the duration of each repair.
    async fn case(&self, masked: &str, what: Perturbation, rng: &mut Rng) -> anyhow::Result<Vec<Duration>> {
        self.settled().await?;
        let mut target = self.target(masked).await?;
        if target.is_shared() && owned::is_as_created(&target.before) {
            let mut told = self.watches.listen();
            let done = target.unlabel(self.lab).await?;
            self.list_leases(&target).await?;
            told.first(done.version()?, PROMPT, |seen| repaired(&target, &done, seen))
                .await
                .context("repairing a removed label")?;
            self.settled().await?;
            target = self.target(masked).await?;
            ensure!(
                !owned::is_as_created(&target.before),
                "Slipway did not adopt {masked} with server-side apply after its creation"
            );
        }

        let mut told = self.watches.listen();
        let done = target.disturb(self.lab, what, rng).await?;
        self.list_leases(&target).await?;
        let answered = Instant::now();
        let may_be_succeeded = what.may_cost_a_name() && target.is_startup_input();
        let may_go = target.thing.kind == "ContourConfiguration";
        let limit = if may_be_succeeded { PATIENT } else { PROMPT };
        let seen = told.first(done.version()?, limit, |seen| match what {
            _ if may_be_succeeded && target.succession(&seen.thing, &seen.object).is_ok() => Ok(()),
            _ if may_go && seen.thing == target.thing && !seen.is_there && what != Perturbation::Deleted => Ok(()),
            Perturbation::Deleted => recreated(&target, &done, seen),
            _ => repaired(&target, &done, seen),
        });
        let seen = seen.await.with_context(|| done.how.clone())?;
        // The watch may report the repair before the response to the perturbation has arrived.
        let mut times = vec![seen.saturating_duration_since(answered)];
        if what == Perturbation::Finalizer {
            times.extend(
                self.delete_after_hold(&target)
                    .await
                    .with_context(|| done.how.clone())?,
            );
        }
        Ok(times)
    }

    /// Makes the operator list the Leases, if the object is one: the operator does not watch Leases, but lists them every ten minutes and
    /// after each change of the spec.
    async fn list_leases(&self, target: &Target) -> anyhow::Result<()> {
        if target.thing.kind == "Lease" {
            self.wait_for_reconcile().await?;
        }
        Ok(())
    }

    /// Deletes an object with another user's finalizer, and removes the finalizer. Slipway must not change the object until then.
    /// Afterwards Slipway recreates the object, or has already created its successor.
    async fn delete_after_hold(&self, target: &Target) -> anyhow::Result<Option<Duration>> {
        target.begin_to_delete(self.lab).await?;
        self.wait_for_reconcile().await?;
        let now = self.lab.read(&target.thing).await?;
        let nothing = AppliedPerturbation::unchanged(&now);
        let mut told = self.watches.listen();
        target.remove_finalizer(self.lab).await?;
        self.list_leases(target).await?;
        let answered = Instant::now();
        if target.is_startup_input() {
            let gone = |seen: &Change| {
                if seen.thing == target.thing && !seen.is_there {
                    Ok(())
                } else {
                    Err(String::new())
                }
            };
            told.first(nothing.version()?, PATIENT, gone)
                .await
                .context("the object still exists after the removal of the finalizer")?;
            return Ok(None);
        }
        let again = told.first(nothing.version()?, PROMPT, |seen| recreated(target, &nothing, seen));
        Ok(Some(again.await?.saturating_duration_since(answered)))
    }

    /// Checks that Contour uses a configuration that nobody ever altered, with the required content.
    async fn wait_for_unaltered_configuration(&self) -> anyhow::Result<()> {
        // The successor of a configuration that was altered again soon is delayed.
        wait("Contour's arguments name a configuration that nobody altered", SETTLES)
            .until(async || {
                let looked = self.check_configuration().await;
                Ok(looked.map_or_else(|error| Look::NotYet(format!("{error:#}")), Look::Reached))
            })
            .await
    }

    async fn check_configuration(&self) -> anyhow::Result<()> {
        let namespace = self.edge.namespace();
        let deployment = Thing::new("Deployment", namespace, &format!("{}-contour", self.edge.name()));
        let contour = self.lab.read(&deployment).await?;
        let arguments = contour["spec"]["template"]["spec"]["containers"][0]["args"]
            .as_array()
            .cloned();
        let arguments = arguments.unwrap_or_default();
        let named = arguments
            .iter()
            .find_map(|argument| argument.as_str()?.strip_prefix("--contour-config-name="));
        let named = named.context("Contour's arguments name no configuration")?;
        let configuration = self
            .lab
            .read(&Thing::new("ContourConfiguration", namespace, named))
            .await?;
        let captured =
            contour["spec"]["template"]["metadata"]["annotations"]["contour.slipway.dev/startup-inputs"].as_str();
        let captured: Value = serde_json::from_str(captured.context("the startup-inputs annotation is missing")?)?;
        ensure!(
            ["uid", "generation"].map(|field| &captured[field])
                == ["uid", "generation"].map(|field| &configuration["metadata"][field]),
            "{named} was altered after Contour was rolled out: {}",
            configuration["metadata"]
        );
        let block = &configuration["spec"]["globalExtAuth"];
        ensure!(
            block["failOpen"] == json!(false) && block["authPolicy"].is_null(),
            "{block}"
        );
        let reference = |pointer: &str| {
            let text = |key: &str| {
                configuration["spec"]
                    .pointer(&format!("{pointer}/{key}"))
                    .and_then(Value::as_str)
            };
            Some(Thing::new("ExtensionService", text("namespace")?, text("name")?))
        };
        for pointer in ["/globalExtAuth/extensionRef", "/tracing/extensionService"] {
            let stand_in = reference(pointer).with_context(|| format!("{named} has no {pointer}"))?;
            ensure!(
                self.watches.of_edge(&self.edge).contains_key(&stand_in),
                "{named} references {stand_in}, which does not exist"
            );
        }
        Ok(())
    }

    /// Waits until the operator sends no requests. At first, an Event about the last status may still be in progress.
    async fn wait_until_quiet(&self, namespaces: &[&str]) -> anyhow::Result<()> {
        wait("the operator sends no requests", PATIENT)
            .until(async || {
                let mark = audit::mark(self.lab.world)?;
                // Only a wait can show that nothing happens.
                tokio::time::sleep(QUIET).await;
                let mut requests = Vec::new();
                for namespace in namespaces {
                    requests.extend(audit::requests(self.lab.world, mark, namespace)?);
                }
                Ok(Look::when(requests.is_empty(), requests.join("\n")))
            })
            .await
    }
}

/// Reports whether the target itself was observed in its settled state.
fn repaired(target: &Target, done: &AppliedPerturbation, seen: &Change) -> Result<(), String> {
    if seen.thing != target.thing {
        return Err(String::new());
    }
    if !seen.is_there || seen.object["metadata"]["uid"] != target.before["metadata"]["uid"] {
        return Err(format!("{} was deleted", target.thing));
    }
    target.difference(&seen.object, done)
}

/// Reports whether another object with the target's name was observed in its settled state.
fn recreated(target: &Target, done: &AppliedPerturbation, seen: &Change) -> Result<(), String> {
    if seen.thing != target.thing {
        return Err(String::new());
    }
    if !seen.is_there || seen.object["metadata"]["uid"] == target.before["metadata"]["uid"] {
        return Err(format!("{} is not recreated", target.thing));
    }
    target.difference(&seen.object, done)
}

/// Returns the name of an object without its hash, its namespace and other prefixes, with its kind.
fn masked(kind: &str, name: &str) -> String {
    let is_stand_in = ["-ext-auth-", "-rate-limit-", "-tracing-"]
        .iter()
        .any(|role| name.contains(role));
    let name = match name.rsplit_once('-') {
        Some((stem, _)) if is_stand_in || kind == "ContourConfiguration" => format!("{stem}-#"),
        _ => name.to_owned(),
    };
    // The name of a ClusterRoleBinding contains the namespace.
    format!("{} ({kind})", name.rsplit(':').next().unwrap_or_default())
}

/// Reports whether Kubernetes' own controllers create objects of this kind. These controllers also delete them.
fn is_by_others(kind: &str) -> bool {
    ["Pod", "ReplicaSet", "ControllerRevision", "EndpointSlice", "Endpoints"].contains(&kind)
}
