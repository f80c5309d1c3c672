//! The execution of the whole table: the victims, the attacks, and after each phase a fence and an observation of all changes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures::future::try_join_all;
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::Request;
use serde_json::{Value, json};

use super::findings::{Findings, Phase, ROUND, blocked, likeness, note, objects, report};
use super::forged::Victim;
use super::place::{Place, Row, places};
use super::snapshot::{self, Snapshot};
use super::{Attack, Attacker, Initial, OperatorState, Outcome, Step, rights, table};
use crate::lab::contour::Contour;
use crate::lab::players::Kubelet;
use crate::lab::{Lab, PROMPT, Thing, audit, specification, wait};
use crate::narration::say;
use crate::wait::Look;

/// The time limit for rollouts of all victims at the same time.
const LONG: Duration = Duration::from_mins(3);

/// The time limit for repairs and for one rollout.
const REPAIR: Duration = Duration::from_secs(45);

/// Plays the table. `is_guarded` means that the policies are installed. The error names the rows with another outcome than expected.
pub async fn play(lab: &Lab, is_guarded: bool) -> anyhow::Result<()> {
    let chosen = std::env::var("ONLY").unwrap_or_default();
    let is_apart = std::env::var("APART").is_ok_and(|value| value == "1");
    let rows = table().into_iter();
    let rows: Vec<Attack> = rows
        .filter(|row| chosen.is_empty() || chosen.split(',').any(|name| name == row.name))
        .collect();
    ensure!(!rows.is_empty(), "no row has a name of {chosen}");
    let mut clients = BTreeMap::new();
    for who in Attacker::ALL {
        clients.insert(who, who.client(lab).await?);
    }
    let game = Game {
        lab,
        is_guarded,
        clients,
    };
    let mut places = places(lab, rows, is_guarded, is_apart);
    // One stand-in for Contour judges for all places. The stand-in for the kubelet covers all namespaces except the unrelated ones.
    let _contour = Contour::of(&lab.client, &lab.namespace);
    let _kubelet = Kubelet::of_all(lab);
    game.prepare(&mut places).await?;
    let mut findings = Findings::new();
    let played = game.phases(&mut places, &mut findings).await;
    let reported = report(&places, &findings, is_guarded);
    match (played, reported) {
        (Err(error), Err(before)) => Err(error.context(format!("{before:#}"))),
        (played, reported) => played.and(reported),
    }
}

struct Game<'a> {
    lab: &'a Lab,
    is_guarded: bool,
    clients: BTreeMap<Attacker, Client>,
}

impl Game<'_> {
    /// Creates the initial states.
    async fn prepare(&self, places: &mut [Place]) -> anyhow::Result<()> {
        let lab = self.lab;
        for grant in rights::everywhere() {
            lab.apply(&grant).await?;
        }
        lab.edge(&specification("nowhere")).await?;
        try_join_all(places.iter().map(|place| place.create(lab))).await?;
        given(lab, places, false).await?;
        try_join_all(places.iter().map(|place| place.finish(lab))).await?;
        given(lab, places, true).await?;
        wait("the operator writes nothing any more", LONG)
            .until(async || {
                let mark = audit::mark(lab.world)?;
                fence(lab, places).await?;
                let entries = snapshot::entries(lab, mark)?;
                let written: Vec<_> = places
                    .iter()
                    .flat_map(|it| snapshot::requests(&entries, &it.victim))
                    .collect();
                Ok(Look::when(written.is_empty(), written.join(", ")))
            })
            .await?;
        let snapshot = Snapshot::of(lab).await?;
        places.iter_mut().try_for_each(|place| place.remember(&snapshot))?;
        say(format!(
            "{} rows on {} ContourDeployments",
            places.iter().map(|it| it.rows.len()).sum::<usize>(),
            places.len()
        ));
        Ok(())
    }

    async fn phases(&self, places: &mut [Place], findings: &mut Findings) -> anyhow::Result<()> {
        self.first(places, findings).await?;
        self.restarted(places, findings).await?;
        self.gone(places, findings).await?;
        self.deleted(places, findings).await
    }

    /// Executes the attacks while the operator runs.
    async fn first(&self, places: &mut [Place], findings: &mut Findings) -> anyhow::Result<()> {
        let mark = audit::mark(self.lab.world)?;
        self.attack(places, Phase::Running, findings, |row| {
            row.attack.when == OperatorState::Running
        })
        .await?;
        for place in places.iter().filter(|place| place.given == Initial::NotYet) {
            place.create_deployment(self.lab).await?;
        }
        self.look(places, mark, Phase::Running, findings).await
    }

    /// Restarts the operator, and executes the other attacks while the operator is stopped. Then changes the specs.
    async fn restarted(&self, places: &mut [Place], findings: &mut Findings) -> anyhow::Result<()> {
        let mark = audit::mark(self.lab.world)?;
        self.lab.world.stop_operator().await?;
        self.attack(places, Phase::Restarted, findings, |row| {
            row.attack.when == OperatorState::Stopped
        })
        .await?;
        self.start().await?;
        self.look(places, mark, Phase::Restarted, findings).await?;
        let round = json!({"spec": {"envoy": {"networkPublishing": {"serviceAnnotations": {ROUND: "1"}}}}});
        for place in places.iter() {
            self.lab.patch(&place.deployment(), &round).await?;
        }
        let late = self.eventually(places, blocked).await?;
        note(findings, Phase::Restarted, late);
        Ok(())
    }

    /// Deletes the attackers' objects, and restarts the operator once more.
    async fn gone(&self, places: &mut [Place], findings: &mut Findings) -> anyhow::Result<()> {
        let mark = audit::mark(self.lab.world)?;
        for place in places.iter_mut() {
            for row in &mut place.rows {
                self.delete_created(row).await.with_context(|| row.attack.name)?;
            }
        }
        fence(self.lab, places).await?;
        self.lab.world.stop_operator().await?;
        self.start().await?;
        self.look(places, mark, Phase::Gone, findings).await
    }

    /// Repeats the attacks that can be repeated, and deletes the ContourDeployments.
    async fn deleted(&self, places: &mut [Place], findings: &mut Findings) -> anyhow::Result<()> {
        self.attack(places, Phase::Deleted, findings, |row| {
            !matches!(row.attack.outcome(self.is_guarded), Outcome::Role(_))
        })
        .await?;
        fence(self.lab, places).await?;
        for place in places.iter() {
            self.lab.delete(&place.deployment()).await?;
        }
        for place in places
            .iter_mut()
            .filter(|place| place.rows.iter().any(|row| row.attack.may_hold))
        {
            for row in &mut place.rows {
                self.delete_created(row).await.with_context(|| row.attack.name)?;
            }
        }
        let left = self
            .eventually(places, |place, snapshot| {
                let metadata = snapshot.deployment(&place.victim)["metadata"].take();
                if metadata.is_null() {
                    return Vec::new();
                }
                let conditions = &snapshot.status(&place.victim)["conditions"];
                vec![format!(
                    "the deletion of the ContourDeployment does not complete: {conditions}"
                )]
            })
            .await?;
        note(findings, Phase::Deleted, left);
        Ok(())
    }

    async fn start(&self) -> anyhow::Result<()> {
        self.lab.world.start_operator().await?;
        self.lab.world.operator_is_ready().await
    }

    /// Executes the attacks that are due, with the facts that are known now.
    async fn attack(
        &self,
        places: &mut [Place],
        phase: Phase,
        findings: &mut Findings,
        is_due: impl Fn(&Row) -> bool,
    ) -> anyhow::Result<()> {
        let snapshot = Snapshot::of(self.lab).await?;
        for (number, place) in places.iter_mut().enumerate() {
            let victim = snapshot.known(&place.victim);
            for row in place.rows.iter_mut().filter(|row| is_due(row)) {
                if let Err(error) = self.execute(row, &victim).await {
                    let words = format!("{} could not be executed: {error:#}", row.attack.name);
                    findings.entry((number, phase)).or_default().push(words);
                }
            }
        }
        Ok(())
    }

    async fn execute(&self, row: &mut Row, victim: &Victim) -> anyhow::Result<()> {
        let who = row.attack.who;
        for step in (row.attack.steps)(victim) {
            match self.ask(who, &step).await? {
                Ok(()) => {}
                Err(refusal) => {
                    row.refused = Some(refusal);
                    return Ok(());
                }
            }
            let thing = step.thing()?;
            row.touched.push(thing.clone());
            if !matches!(step, Step::Create(_)) {
                continue;
            }
            if thing.kind == "Namespace" {
                // An administrator who lets users create namespaces also grants them rights in these namespaces.
                for grant in rights::grants(who, victim) {
                    self.lab.apply(&grant).await?;
                }
            }
            row.made.push(thing);
        }
        Ok(())
    }

    /// Sends one request. The inner error is the rejection by one of Slipway's policies. Retries while a new right is not yet in force.
    async fn ask(&self, who: Attacker, step: &Step) -> anyhow::Result<Result<(), String>> {
        let client = &self.clients[&who];
        wait(&format!("{who:?} may do this: {step:?}"), PROMPT)
            .until(async || {
                let error = match client.request::<Value>(request(self.lab, step)?).await {
                    Ok(_) => return Ok(Look::Reached(Ok(()))),
                    Err(kube::Error::Api(error)) => error,
                    Err(error) => return Err(error.into()),
                };
                let is_policy = error.message.contains("ValidatingAdmissionPolicy 'slipway-");
                match error.code {
                    _ if is_policy && self.is_guarded => Ok(Look::Reached(Err(error.message.clone()))),
                    403 => Ok(Look::NotYet(error.message.clone())),
                    _ => bail!("{step:?}: {}", error.message),
                }
            })
            .await
    }

    /// Deletes the attacker's objects and removes their finalizers.
    async fn delete_created(&self, row: &mut Row) -> anyhow::Result<()> {
        let client = &self.clients[&row.attack.who];
        for thing in row.made.drain(..).rev() {
            let api = self.lab.api(thing.kind, &thing.namespace);
            let delete = Request::new(api.resource_url()).delete(&thing.name, &DeleteParams::default())?;
            match client.request::<Value>(delete).await {
                Err(kube::Error::Api(error)) if error.code == 404 => continue,
                deleted => deleted.map(drop)?,
            }
            if thing.kind == "Namespace" {
                continue;
            }
            wait(&format!("{thing} no longer exists"), REPAIR)
                .until(async || {
                    let Some(found) = self.lab.find(&thing).await? else {
                        return Ok(Look::Reached(()));
                    };
                    let unheld = Step::Patch(thing.clone(), json!({"metadata": {"finalizers": null}}));
                    match client.request::<Value>(request(self.lab, &unheld)?).await {
                        Ok(_) => {}
                        Err(kube::Error::Api(error)) if error.code == 404 => {}
                        Err(error) => return Err(error.into()),
                    }
                    Ok(Look::NotYet(found["metadata"].to_string()))
                })
                .await?;
        }
        Ok(())
    }

    /// Runs a fence and records the unexpected observations. Repairs and rollouts are waited for.
    async fn look(
        &self,
        places: &[Place],
        mark: audit::Mark,
        phase: Phase,
        findings: &mut Findings,
    ) -> anyhow::Result<()> {
        fence(self.lab, places).await?;
        let entries = snapshot::entries(self.lab, mark)?;
        let at_once = |place: &&Place| place.outcome(self.is_guarded).leaves_all_as_it_is();
        let snapshot = Snapshot::of(self.lab).await?;
        for (number, place) in places.iter().enumerate().filter(|(_, place)| at_once(place)) {
            let mut wrong = self.written(place, &entries);
            wrong.extend(self.changed(place, &snapshot, phase));
            if !wrong.is_empty() {
                findings.entry((number, phase)).or_default().extend(wrong);
            }
        }
        let late = self
            .eventually(places, |place, snapshot| {
                if at_once(&place) {
                    return Vec::new();
                }
                self.differs(place, snapshot, phase)
            })
            .await?;
        note(findings, phase, late);
        let due = match phase {
            Phase::Running => Some(OperatorState::Running),
            Phase::Restarted => Some(OperatorState::Stopped),
            Phase::Gone | Phase::Deleted => None,
        };
        for (number, place) in places.iter().enumerate() {
            let wrong = self.admission_differences(place, due);
            findings.entry((number, phase)).or_default().extend(wrong);
        }
        say(format!("{phase:?}: observed"));
        Ok(())
    }

    /// Returns the attacks that were accepted or rejected against the table.
    fn admission_differences(&self, place: &Place, due: Option<OperatorState>) -> Vec<String> {
        let rows = place.rows.iter().filter(|row| Some(row.attack.when) == due);
        let wrong = rows.filter_map(|row| {
            let expected = row.attack.outcome(self.is_guarded) == Outcome::Refused;
            match &row.refused {
                Some(words) if !expected => Some(format!("{} was rejected: {words}", row.attack.name)),
                None if expected => Some(format!("{} was accepted", row.attack.name)),
                _ => None,
            }
        });
        wrong.collect()
    }

    /// Returns the unexpected writes of the operator.
    fn written(&self, place: &Place, entries: &[Value]) -> Vec<String> {
        let pruned = place
            .rows
            .iter()
            .filter(|row| row.attack.outcome(self.is_guarded) == Outcome::Pruned);
        let prunable: Vec<_> = pruned
            .flat_map(|row| &row.touched)
            .map(|it| format!("{}/{} ", it.namespace, it.name))
            .collect();
        let removes = |line: &String| {
            ["delete ", "patch ", "update "]
                .iter()
                .any(|verb| line.starts_with(verb))
        };
        let is_pruning = |line: &String| removes(line) && prunable.iter().any(|name| line.contains(name.as_str()));
        let lines = snapshot::requests(entries, &place.victim).into_iter();
        let mut lines: Vec<_> = lines
            .filter(|line| !is_pruning(line))
            .map(|line| format!("the operator: {line}"))
            .collect();
        if lines.len() > 12 {
            let more = lines.len() - 10;
            lines.truncate(10);
            lines.push(format!("and {more} more requests"));
        }
        lines
    }

    /// Returns all differences from the state before the attacks.
    #[allow(clippy::unused_self)] // one of several kinds of observation
    fn changed(&self, place: &Place, snapshot: &Snapshot, phase: Phase) -> Vec<String> {
        let now = snapshot.status(&place.victim);
        let mut changed = objects(place, snapshot);
        let pruned = place
            .rows
            .iter()
            .filter(|row| row.attack.outcome(self.is_guarded) == Outcome::Pruned);
        // The operator lists Leases at its start and every ten minutes, and does not watch them.
        let is_listed_later = |thing: &Thing| thing.kind == "Lease" && phase == Phase::Running;
        for thing in pruned.flat_map(|row| &row.made).filter(|thing| !is_listed_later(thing)) {
            let metadata = &snapshot.object(thing.kind, &thing.namespace, &thing.name)["metadata"];
            if metadata.is_object() && metadata["deletionTimestamp"].is_null() {
                changed.push(format!("not pruned: {thing}"));
            }
        }
        if now != place.before.status {
            changed.push(format!("status{}", snapshot::difference(&place.before.status, &now)));
        }
        changed
    }

    /// Returns the differences from the expected outcome.
    fn differs(&self, place: &Place, snapshot: &Snapshot, phase: Phase) -> Vec<String> {
        let now = snapshot::summary(&snapshot.status(&place.victim));
        let alike = || {
            let before = snapshot::summary(&place.before.status);
            let difference = snapshot::difference(&before, &now);
            if difference.is_empty() {
                Vec::new()
            } else {
                vec![format!("status{difference}")]
            }
        };
        match place.outcome(self.is_guarded) {
            Outcome::Repaired => [objects(place, snapshot), alike()].concat(),
            Outcome::Role(traffic) => {
                let is = |condition: &str| now["conditions"][condition][0] == "True";
                // Slipway retries a rejected write for half a minute before it reports the need for action. Nothing else waits for these
                // retries.
                let is_refused = now["conditions"]["Reconciling"][1] == "Refused";
                let goes_on = is("ContourAvailable") && is("EnvoyAvailable") && (!is("Reconciling") || is_refused);
                let seen = now["services"][0][1].as_str().unwrap_or_default();
                // After the attacker's objects are deleted, either value is right.
                let is_right = seen == traffic || (phase == Phase::Gone && ["Denied", "Enforced"].contains(&seen));
                let mut wrong = snapshot.dangling(&place.victim);
                if !(goes_on && is_right) {
                    wrong.push(now.to_string());
                }
                wrong
            }
            _ => [likeness(place, snapshot), alike()].concat(),
        }
    }

    /// Observes all places until there are no differences, or until the time limit for repairs. Returns the differences that are left.
    async fn eventually(
        &self,
        places: &[Place],
        wrong: impl Fn(&Place, &Snapshot) -> Vec<String>,
    ) -> anyhow::Result<BTreeMap<usize, Vec<String>>> {
        let (seen, before) = (RefCell::new(BTreeMap::new()), RefCell::new(Vec::new()));
        let waited = wait("all places have the expected outcome", REPAIR)
            .every(Duration::from_millis(500))
            .until(async || {
                let snapshot = Snapshot::of(self.lab).await?;
                let mut left = BTreeMap::new();
                for (number, place) in places.iter().enumerate() {
                    let wrong = wrong(place, &snapshot);
                    if !wrong.is_empty() {
                        left.insert(number, wrong);
                    }
                }
                let is_empty = left.is_empty();
                if !is_empty {
                    before.replace(left.keys().map(|number| &*places[*number].name).collect());
                }
                seen.replace(left);
                Ok(Look::when(is_empty, String::new()))
            })
            .await;
        let left = seen.into_inner();
        say(format!(
            "the last places with differences: {}",
            before.into_inner().join(" ")
        ));
        if waited.is_err() && left.is_empty() {
            waited?;
        }
        Ok(left)
    }
}

/// Waits until all places have their initial states.
async fn given(lab: &Lab, places: &[Place], is_finished: bool) -> anyhow::Result<()> {
    let made: Vec<_> = places.iter().filter(|place| place.given != Initial::NotYet).collect();
    wait("the ContourDeployments have their initial states", LONG)
        .every(Duration::from_millis(500))
        .until(async || {
            let snapshot = Snapshot::of(lab).await?;
            let words: Vec<_> = made
                .iter()
                .map(|place| place.is_as_given(&snapshot, is_finished))
                .collect();
            let words: Vec<_> = words.into_iter().filter(|words| !words.is_empty()).collect();
            Ok(Look::when(words.is_empty(), words.join("; ")))
        })
        .await
}

/// Triggers a reconcile of each ContourDeployment and waits for it, twice. A reconcile that began after the first trigger has observed
/// everything that existed before.
async fn fence(lab: &Lab, places: &[Place]) -> anyhow::Result<()> {
    let there = snapshot::deployments(lab).await?;
    let places: Vec<_> = places
        .iter()
        .filter(|place| there.contains(&place.victim.home))
        .collect();
    for _ in 0..2 {
        let since = snapshot::log_end(lab)?;
        for place in &places {
            lab.trigger_reconcile(&place.deployment()).await?;
        }
        wait("each ContourDeployment was reconciled", LONG)
            .until(async || {
                let done = snapshot::reconciles(lab, since)?;
                let left: Vec<_> = places
                    .iter()
                    .filter(|it| !done.contains_key(&it.victim.home))
                    .map(|it| &*it.name)
                    .collect();
                Ok(Look::when(left.is_empty(), left.join(", ")))
            })
            .await?;
    }
    Ok(())
}

fn request(lab: &Lab, step: &Step) -> anyhow::Result<hyper::Request<Vec<u8>>> {
    let thing = step.thing()?;
    let api = lab.api(thing.kind, &thing.namespace);
    let request = Request::new(api.resource_url());
    let parameters = PatchParams::default();
    Ok(match step {
        Step::Create(object) => request.create(&PostParams::default(), serde_json::to_vec(object)?)?,
        Step::Patch(_, patch) => request.patch(&thing.name, &parameters, &Patch::Merge(patch))?,
        Step::PatchStatus(_, patch) => {
            request.patch_subresource("status", &thing.name, &parameters, &Patch::Merge(patch))?
        }
        Step::Delete(_) => request.delete(&thing.name, &DeleteParams::default())?,
    })
}
