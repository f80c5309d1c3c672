//! Drift: what somebody else does to the objects that Slipway made is put right, at once and nothing but that. Leaks: whatever
//! happens and whoever is down meanwhile, nothing is left behind (`leaks`).
//!
//! A round takes one ContourDeployment that has settled, and does to each of its objects each thing that may be done to it, in
//! an order that a seed gives. Everything between them, what is seen and in which order, is the API server's own word.

pub mod leaks;
pub mod obstacle;
pub mod ours;
pub mod perturbation;
pub mod sight;
mod surroundings;
pub mod times;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use fastrand::Rng;
use futures::StreamExt as _;
use serde_json::{Value, json};

use self::perturbation::{Disturbed, Perturbation, Target};
use self::sight::{Seen, Sight};
use self::surroundings::Bystanders;
use self::times::Times;
use crate::edge::Edge;
use crate::lab::players::{self, Kubelet, Node, Verdict};
use crate::lab::{Lab, PATIENT, PROMPT, Thing, audit, wait};
use crate::narration::say;
use crate::wait::Look;

/// How long nothing may happen to count as nothing.
const QUIET: Duration = Duration::from_secs(4);

/// Longer than successions are backed off that follow each other as often as in one round.
const SETTLES: Duration = Duration::from_mins(2);

/// What Envoy runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// On each node.
    DaemonSet,
    /// So many.
    Deployment,
}

impl Workload {
    /// The name of the kind.
    pub fn kind(self) -> &'static str {
        match self {
            Self::DaemonSet => "DaemonSet",
            Self::Deployment => "Deployment",
        }
    }
}

/// What a round does.
#[derive(Clone, Debug)]
pub struct Round {
    /// The name of its namespace ends with it.
    pub name: String,
    /// Gives the order, and what exactly is done.
    pub seed: u64,
    /// What Envoy runs as.
    pub workload: Workload,
    /// Which of the cases: every so-manieth, beginning with this one.
    pub share: (usize, usize),
    /// Only cases whose name contains this.
    pub only: Option<String>,
}

/// What came of a round.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How long each repair took, by perturbation.
    pub times: Times,
    /// The kinds that were disturbed.
    pub kinds: BTreeSet<&'static str>,
    /// Deletions that the operator asked for; each had the uid of what it deleted.
    pub deletions: usize,
    /// The cases that failed, and why.
    pub failures: Vec<String>,
}

impl Outcome {
    /// Adds what came of another round.
    pub fn add(&mut self, other: Self) {
        self.times.add(other.times);
        self.kinds.extend(other.kinds);
        self.deletions += other.deletions;
        self.failures.extend(other.failures);
    }
}

/// Does rounds, so many at once; `done` is told of each.
pub async fn rounds(
    lab: &Lab,
    rounds: &[Round],
    at_once: usize,
    mut done: impl FnMut(&Round, &Outcome) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    let _kubelet = Kubelet::of_all(lab);
    let _node = Node::of(lab).await?;
    let sight = Sight::of(lab);
    let mut all = Outcome::default();
    let mut outcomes = futures::stream::iter(rounds)
        .map(|round| {
            let sight = &sight;
            async move { (round, self::round(lab, sight, round).await) }
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
    ensure!(!all.times.is_empty() || !all.failures.is_empty(), "no round was done");
    Ok(all)
}

/// The ContourDeployment of a round, and what belongs to it when all is well.
struct Stage<'a> {
    lab: &'a Lab,
    sight: &'a Sight,
    edge: Edge,
    things: BTreeSet<String>,
}

/// Does one round.
pub async fn round(lab: &Lab, sight: &Sight, round: &Round) -> anyhow::Result<Outcome> {
    let mut rng = Rng::with_seed(round.seed);
    let namespace = lab.name(&round.name);
    let auth = format!("{namespace}-auth");
    for name in [&namespace, &auth] {
        lab.make_namespace(name).await?;
    }
    let bystanders = Bystanders::make(lab, &[&namespace, &auth]).await?;
    if rng.bool() {
        players::auth_server(lab, &auth).await?;
        lab.create(&players::extension_service(&auth, "500ms")).await?;
        players::judge(lab, &auth, "auth", Verdict::Valid).await?;
    }
    let edge = lab.edge_in(&namespace, &specification(&auth, round.workload)).await?;
    lab.settled(&edge).await?;
    let stage = Stage::set(lab, sight, edge).await?;
    let mark = audit::mark(lab.world)?;
    let mut outcome = Outcome::default();

    let targets = stage.targets()?;
    let mut cases: Vec<(String, Perturbation)> = Vec::new();
    for (masked, target) in &targets {
        outcome.kinds.insert(target.thing.kind);
        let concerned = Perturbation::ALL.into_iter().filter(|what| what.concerns(target));
        cases.extend(concerned.map(|what| (masked.clone(), what)));
    }
    ensure!(!cases.is_empty(), "there is nothing to disturb");
    rng.shuffle(&mut cases);
    let (part, parts) = round.share;
    for (number, (masked, what)) in cases.iter().enumerate().filter(|(number, _)| number % parts == part) {
        // Of its own, so that one case alone is the same as in its round.
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
    ensure!(
        !outcome.times.is_empty() || !outcome.failures.is_empty(),
        "no case was tried"
    );

    stage.settled().await?;
    stage.configuration_is_unaltered().await?;
    stage.settled().await?;
    surroundings::certificates_fit(lab, &namespace).await?;
    stage.is_quiet(&[&namespace, &auth]).await?;
    let edge = stage.edge;
    edge.delete().await?;
    lab.nothing_is_left(&edge).await?;
    bystanders.are_as_they_were(lab).await?;
    audit::only_own_objects_written(lab.world, mark, &[&namespace, &auth], edge.name())?;
    outcome.deletions = audit::deletions_by_uid(lab.world, mark, &[&namespace, &auth])?;
    ensure!(
        outcome.deletions > 0,
        "the operator deleted nothing, not even at the end"
    );
    Ok(outcome)
}

/// One stand-in beside a service, one in the ContourDeployment's own namespace.
fn specification(auth: &str, workload: Workload) -> Value {
    json!({
        // Said, so that it is Slipway's.
        "contour": {"deployment": {"replicas": 2}},
        "envoy": {"workloadType": workload.kind(), "networkPublishing": {"type": "NodePortService"}},
        "runtimeSettings": {
            "globalExtAuth": {"extensionRef": {"namespace": auth, "name": "auth"}, "failOpen": false},
            "tracing": {"extensionService": {"namespace": "nowhere", "name": "otel"}},
        },
    })
}

impl<'a> Stage<'a> {
    async fn set(lab: &'a Lab, sight: &'a Sight, edge: Edge) -> anyhow::Result<Self> {
        let by_labels = wait("the watches of the test have caught up", PROMPT)
            .until(async || {
                // By labels and by names, in the whole cluster, whatever the kind.
                let is_made = |it: &String| {
                    let kind = it.split(' ').next().unwrap_or_default();
                    kind != "ContourDeployment" && !is_by_others(kind)
                };
                let there: BTreeSet<_> = lab.belongings(&edge).await?.into_iter().filter(is_made).collect();
                let seen: BTreeSet<_> = sight.of_edge(&edge).keys().map(ToString::to_string).collect();
                Ok(if seen == there && !seen.is_empty() {
                    Look::Reached(sight.of_edge(&edge))
                } else {
                    Look::NotYet(format!("there are {there:?}, seen are {seen:?}"))
                })
            })
            .await?;
        let things: BTreeSet<_> = by_labels.keys().map(|thing| masked(thing.kind, &thing.name)).collect();
        ensure!(things.len() == by_labels.len(), "two objects have one name: {things:?}");
        Ok(Self {
            lab,
            sight,
            edge,
            things,
        })
    }

    /// What belongs to the edge now, by names without hashes.
    fn targets(&self) -> anyhow::Result<BTreeMap<String, Target>> {
        let its = self.sight.of_edge(&self.edge).into_iter();
        its.map(|(thing, object)| {
            Ok((
                masked(thing.kind, &thing.name),
                Target::new(thing, Value::clone(&object))?,
            ))
        })
        .collect()
    }

    fn look_complete(&self) -> Look<()> {
        let its = self.sight.of_edge(&self.edge);
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
                "{} objects, odd {odd:?}, missing {missing:?}, some Terminating: {terminating}",
                names.len()
            ),
        )
    }

    /// Waits until everything is as it was before any case, and the operator has seen that. It comes to that by itself; only
    /// then is it asked to look once more, by a change that concerns its status alone: once it has answered that there is
    /// nothing left to do, nothing changes any more.
    async fn settled(&self) -> anyhow::Result<()> {
        let look = async || {
            Ok(match self.look_complete() {
                Look::Reached(()) => match self.edge.look_settled().await? {
                    Look::Reached(_) => Look::Reached(()),
                    Look::NotYet(seen) => Look::NotYet(seen),
                },
                not_yet @ Look::NotYet(_) => not_yet,
            })
        };
        let waiting = |what: &str| wait(what, SETTLES).every(Duration::from_millis(25));
        waiting("all is as it was").until(look).await?;
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
        waiting("all is as it was, and the operator has looked again")
            .until(look)
            .await
    }

    /// Waits until the operator has looked at this edge after what was done before.
    async fn looked_at(&self) -> anyhow::Result<()> {
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
        wait("the operator has looked", PATIENT)
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
            .with_context(|| format!("there is no {masked}"))?;
        let before = self.lab.read(&known.thing).await?;
        Target::new(known.thing, before)
    }

    /// One object, one perturbation. Returns how long each repair took.
    async fn case(&self, masked: &str, what: Perturbation, rng: &mut Rng) -> anyhow::Result<Vec<Duration>> {
        self.settled().await?;
        let mut target = self.target(masked).await?;
        if target.is_shared() && ours::is_as_created(&target.before) {
            let mut told = self.sight.listen();
            let done = target.unlabel(self.lab).await?;
            told.first(done.version()?, PROMPT, |seen| repaired(&target, &done, seen))
                .await
                .context("without a label")?;
            self.settled().await?;
            target = self.target(masked).await?;
            ensure!(
                !ours::is_as_created(&target.before),
                "Slipway's creation of {masked} was not adopted"
            );
        }

        let mut told = self.sight.listen();
        let done = target.disturb(self.lab, what, rng).await?;
        let answered = Instant::now();
        let may_be_succeeded = what.may_cost_a_name() && target.is_startup_input();
        let may_go = target.thing.kind == "ContourConfiguration";
        let limit = if may_be_succeeded { PATIENT } else { PROMPT };
        let seen = told.first(done.version()?, limit, |seen| match what {
            _ if may_be_succeeded && target.succession(&seen.thing, &seen.object).is_ok() => Ok(()),
            _ if may_go && seen.thing == target.thing && !seen.is_there && what != Perturbation::Deleted => Ok(()),
            Perturbation::Deleted => made_again(&target, &done, seen),
            _ => repaired(&target, &done, seen),
        });
        let seen = seen.await.with_context(|| done.how.clone())?;
        // The repair may be told before the answer to the perturbation has come.
        let mut times = vec![seen.saturating_duration_since(answered)];
        if what == Perturbation::Finalizer {
            times.extend(self.goes_late(&target).await.with_context(|| done.how.clone())?);
        }
        Ok(times)
    }

    /// Deletes an object that somebody else's finalizer holds, and lets it go: until then it is left alone, then it is made
    /// again, or succeeded already.
    async fn goes_late(&self, target: &Target) -> anyhow::Result<Option<Duration>> {
        target.begin_to_delete(self.lab).await?;
        self.looked_at().await?;
        let now = self.lab.read(&target.thing).await?;
        let nothing = Disturbed::of_itself(&now);
        let mut told = self.sight.listen();
        target.let_go(self.lab).await?;
        let answered = Instant::now();
        if target.is_startup_input() {
            let gone = |seen: &Seen| {
                if seen.thing == target.thing && !seen.is_there {
                    Ok(())
                } else {
                    Err(String::new())
                }
            };
            told.first(nothing.version()?, PATIENT, gone)
                .await
                .context("it did not go at last")?;
            return Ok(None);
        }
        let again = told.first(nothing.version()?, PROMPT, |seen| made_again(target, &nothing, seen));
        Ok(Some(again.await?.saturating_duration_since(answered)))
    }

    /// The configuration that Contour runs on is one that nobody ever altered, and says what it must.
    async fn configuration_is_unaltered(&self) -> anyhow::Result<()> {
        // One that was altered again soon after has to stay for a while.
        wait("Contour is given a configuration that nobody altered", SETTLES)
            .until(async || {
                let looked = self.look_at_configuration().await;
                Ok(looked.map_or_else(|error| Look::NotYet(format!("{error:#}")), Look::Reached))
            })
            .await
    }

    async fn look_at_configuration(&self) -> anyhow::Result<()> {
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
        let named = named.context("Contour is given no configuration")?;
        let configuration = self
            .lab
            .read(&Thing::new("ContourConfiguration", namespace, named))
            .await?;
        let captured =
            contour["spec"]["template"]["metadata"]["annotations"]["contour.slipway.dev/startup-inputs"].as_str();
        let captured: Value = serde_json::from_str(captured.context("nothing is captured")?)?;
        ensure!(
            ["uid", "generation"].map(|field| &captured[field])
                == ["uid", "generation"].map(|field| &configuration["metadata"][field]),
            "{named} was altered after Contour was rolled: {}",
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
                self.sight.of_edge(&self.edge).contains_key(&stand_in),
                "{named} names {stand_in}, which is not there"
            );
        }
        Ok(())
    }

    /// Nothing is asked any more. An Event about the last status may still be on its way at first.
    async fn is_quiet(&self, namespaces: &[&str]) -> anyhow::Result<()> {
        wait("nothing is asked any more", PATIENT)
            .until(async || {
                let mark = audit::mark(self.lab.world)?;
                // That nothing happens can only be seen by waiting.
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

/// Whether the same object was seen in good order.
fn repaired(target: &Target, done: &Disturbed, seen: &Seen) -> Result<(), String> {
    if seen.thing != target.thing {
        return Err(String::new());
    }
    if !seen.is_there || seen.object["metadata"]["uid"] != target.before["metadata"]["uid"] {
        return Err(format!("{} was deleted", target.thing));
    }
    target.difference(&seen.object, done)
}

/// Whether another object of the name was seen in good order.
fn made_again(target: &Target, done: &Disturbed, seen: &Seen) -> Result<(), String> {
    if seen.thing != target.thing {
        return Err(String::new());
    }
    if !seen.is_there || seen.object["metadata"]["uid"] == target.before["metadata"]["uid"] {
        return Err(format!("{} is not made again", target.thing));
    }
    target.difference(&seen.object, done)
}

/// What an object is called whatever the hash in its name, and wherever it is.
fn masked(kind: &str, name: &str) -> String {
    let is_stand_in = ["-ext-auth-", "-rate-limit-", "-tracing-"]
        .iter()
        .any(|role| name.contains(role));
    let name = match name.rsplit_once('-') {
        Some((stem, _)) if is_stand_in || kind == "ContourConfiguration" => format!("{stem}-#"),
        _ => name.to_owned(),
    };
    // Of a ClusterRoleBinding's name the namespace is a part.
    format!("{} ({kind})", name.rsplit(':').next().unwrap_or_default())
}

/// What Kubernetes' own controllers make of what Slipway made is theirs to remove.
fn is_by_others(kind: &str) -> bool {
    ["Pod", "ReplicaSet", "ControllerRevision", "EndpointSlice", "Endpoints"].contains(&kind)
}
