//! What must hold in every state and at every step. The numbers are those of the invariants in docs/design.md.

use serde_json::Value;
use slipway::api::vocabulary::annotations;
use slipway::plan::{Kind, Object, Observed, Plan, Write};

use crate::api_server::Refusal;
use crate::items::{Id, Item, KeyId, Said};
use crate::model::Model;
use crate::plans::FACTS;
use crate::requests::key_of;
use crate::scopes::{ALICE, AUTH};
use crate::state::{Container, State};

/// Reasons that speak of what a stand-in points at (docs/design.md, "Rules of a stand-in", 3).
const WITHDRAWING: [&str; 4] = [
    "ServiceUnresolvedReference",
    "UnsupportedServiceType",
    "TLSUpstreamValidation",
    "CACertificateNotDelegated",
];

/// In the memory of a stand-in.
const WITHDRAWN: &str = "\"withdrawn\":true";

/// No salt of Slipway's is greater.
pub const MOST_SALT: u64 = 1_000_000;

impl Model {
    /// What is wrong in this state.
    pub fn check_state(&self, state: &State) -> Vec<String> {
        let mut problems = Vec::new();
        for pod in state.of_kind(&self.items, Kind::Pod) {
            if let Some(missing) = self.missing(state, pod.key) {
                problems.extend(self.check_exit(state, pod.key, missing));
            }
            let Container::Running(captured) = Container::of(pod.extra) else {
                continue;
            };
            let captured = &self.captured[captured as usize];
            let owner = self.item(pod.live).owner;
            let original = self.originals.get(&captured.configuration);
            if original != Some(&captured.spec) && !self.foreign.contains(&captured.spec) {
                problems.push(format!(
                    "I1: {} runs on {} in a form that was never planned",
                    self.items.key(pod.key),
                    self.items.key(captured.configuration)
                ));
            }
            for (stand_in, _) in &captured.facts {
                let Some(item) = self.live(state, *stand_in) else {
                    continue;
                };
                if !self.is_closed(state, item, owner) {
                    problems.push(format!(
                        "I1: {} asks {}, which is neither a blackhole nor a copy that Contour has found valid",
                        self.items.key(pod.key),
                        self.items.key(*stand_in)
                    ));
                }
            }
        }
        problems
    }

    /// Whether nothing passes unchecked by this stand-in: it is a blackhole, or a copy of a form of the user's object that Contour
    /// has judged valid. What a foreigner wrote is not Slipway's doing; that it is put right the end shows.
    fn is_closed(&self, state: &State, item: &Item, owner: Option<usize>) -> bool {
        let name = &self.items.key(item.key).name;
        let has_a_way_out = |service: KeyId| {
            let ways = ["/spec/selector", "/spec/externalName"];
            let service = self.live(state, service);
            service.is_some_and(|service| ways.iter().any(|way| service.object.at(way).is_some()))
        };
        let is_blackhole = item
            .services
            .iter()
            .all(|(service, _)| self.items.key(*service).name == *name && !has_a_way_out(*service));
        let is_proven = (0..3).any(|form| self.forms[form] == item.unweighted && state.judged & 1 << form != 0);
        (item.owner == owner && (is_blackhole || is_proven)) || self.foreign.contains(&item.spec)
    }

    /// A container can't start, or could not if it was started now. What a foreigner has deleted is his doing.
    pub fn check_exit(&self, state: &State, pod: KeyId, missing: KeyId) -> Option<String> {
        let by_foreigner = state.slot(missing).extra == 1;
        (!by_foreigner).then(|| {
            format!(
                "I2: a container of {} exits if it starts: {} does not exist",
                self.items.key(pod),
                self.items.key(missing)
            )
        })
    }

    /// What is wrong with a request, and with its result.
    pub fn check_write(
        &self,
        state: &State,
        owner: usize,
        key: KeyId,
        write: &Write,
        result: Result<Id, Refusal>,
    ) -> Vec<String> {
        let mut problems = Vec::new();
        let live = self.live(state, key);
        if let (Ok(_), Some(live)) = (result, live) {
            if !self.is_owned_by(live, owner) {
                problems.push(format!("I6: {} is somebody else's, and was written", key_of(write)));
            }
            let takes_away = matches!(write, Write::Delete(_) | Write::Release(_));
            if self.items.is_aside(key) && !takes_away {
                problems.push(format!("I6: {} is a tenant's, and was changed", key_of(write)));
            }
            if let Write::Delete(target) = write
                && live.object.uid() != target.uid
            {
                problems.push(format!(
                    "I6: {} was deleted, which is another than was observed",
                    key_of(write)
                ));
            }
        }
        if let Write::Create(object) | Write::Replace(object) = write {
            problems.extend(check_numbers(object));
        }
        if let (Write::Replace(object), Some(live), Ok(_)) = (write, live, result)
            && object.kind == Kind::ExtensionService
        {
            problems.extend(self.check_denial(state, key, live, object));
        }
        problems
    }

    /// A copy is given up only for what is wrong with the object or with what it points at (rule 3).
    fn check_denial(&self, state: &State, key: KeyId, live: &Item, object: &Object) -> Option<String> {
        let was_copy = self.forms.contains(&live.unweighted);
        let is_blackhole = object.at("/spec/services/0/name") == Some(&Value::from(object.name()));
        let seen = |key: KeyId| self.items.get(state.slot(key).view);
        let user = seen(self.keys.extension_service);
        // What Contour was nudged for bears a uid, too.
        let gone = user.is_none_or(|user| {
            let proved = format!("\"proven\":{{\"uid\":\"{}\"", user.object.uid());
            let remembered = object.annotation(annotations::PERSISTED_STATE);
            !remembered.is_some_and(|remembered| remembered.contains(&proved))
        });
        let unresolved = live
            .services
            .iter()
            .any(|(service, port)| seen(*service).is_none_or(|service| !service.ports.contains(port)));
        let withdrawing =
            |item: &Item| matches!(&item.said, Said::Invalid(reason) if WITHDRAWING.contains(&reason.as_str()));
        let withdrawn = state
            .slots
            .iter()
            .filter_map(|slot| self.items.get(slot.view))
            .any(|item| {
                item.kind() == Kind::ExtensionService
                    && (item.owner == live.owner || self.is_nameless(item))
                    && !self.items.is_aside(item.key)
                    && (withdrawing(item) || remembers_withdrawal(item))
            });
        // A tenant beside the service says so, and takes that back while the plan is carried out.
        let was_said = self.scope.tenant_in == AUTH
            && object
                .annotation(annotations::PERSISTED_STATE)
                .is_some_and(|memory| memory.contains(WITHDRAWN));
        (was_copy && is_blackhole && !gone && !unresolved && !withdrawn && !was_said)
            .then(|| format!("rule 3: {} is made a blackhole for no reason", self.items.key(key)))
    }

    /// What a write of the operator's takes from containers: an ExtensionService that was usable is not any more. That the user's
    /// Service is gone the operator may not have seen yet when it planned (docs/design.md, "Limits"); what it saw then, and what is
    /// its own, it must heed.
    pub fn check_captured(&self, before: &State, after: &State) -> Vec<String> {
        let mut problems = Vec::new();
        let was_planned_before = before.control.iter().any(|control| control.plan != 0);
        for pod in before.of_kind(&self.items, Kind::Pod) {
            let Container::Running(captured) = Container::of(pod.extra) else {
                continue;
            };
            for (stand_in, _) in &self.captured[captured as usize].facts {
                let usable = |state: &State| {
                    self.live(state, *stand_in)
                        .is_some_and(|item| self.is_resolved(state, item))
                };
                let services = self
                    .live(after, *stand_in)
                    .map(|item| item.services.as_slice())
                    .unwrap_or_default();
                let unseen = services.iter().any(|(service, _)| {
                    *service == self.keys.service && (was_planned_before || after.slot(*service).view != 0)
                });
                if usable(before) && !usable(after) && !unseen {
                    problems.push(format!(
                        "rule 1: {} drops its HTTPS hosts, because {} is not usable any more",
                        self.items.key(pod.key),
                        self.items.key(*stand_in)
                    ));
                }
            }
        }
        problems
    }

    /// What stands where nothing refers to steers nothing: without it the plan is the same, but for what takes it away, and for the end
    /// of a deletion, which waits for that.
    pub fn check_steered(&self, seen: &[u32], planned: &Plan) -> Vec<String> {
        let is_theirs = |id: &u32| self.items.get(*id).is_some_and(|item| self.items.is_aside(item.key));
        let (facts, objects) = seen.split_at(FACTS);
        if self.scope.tenant_in != ALICE || !objects.iter().any(is_theirs) {
            return Vec::new();
        }
        let others = objects.iter().filter(|id| !is_theirs(id));
        let without: Vec<u32> = facts.iter().chain(others).copied().collect();
        let (observed, without) = self.planned(&without).expect("the ContourDeployment is seen");
        let writes = |plan: &Plan| {
            let writes = plan.waves.iter().flat_map(|wave| &wave.writes);
            let (theirs, ours): (Vec<_>, Vec<_>) = writes.cloned().partition(|write| key_of(write).namespace == ALICE);
            (theirs.len(), ours)
        };
        let ((theirs, with), (_, mut expected)) = (writes(planned), writes(&without));
        let is_being_deleted = observed.deployment.metadata.deletion_timestamp.is_some();
        if is_being_deleted && theirs > 0 {
            expected
                .retain(|write| !matches!(write, Write::Release(target) if target.key.kind == Kind::ContourDeployment));
        }
        let mut problems = Vec::new();
        if let Some(write) = with.iter().find(|write| !expected.contains(write)) {
            problems.push(format!(
                "steered: {} is written because of what a tenant made",
                key_of(write)
            ));
        } else if let Some(write) = expected.iter().find(|write| !with.contains(write)) {
            problems.push(format!(
                "steered: {} is not written because of what a tenant made",
                key_of(write)
            ));
        }
        // What can't be taken away is said.
        let told = |plan: &Plan| {
            let mut status = plan.status.clone();
            status
                .conditions
                .retain(|it| it.type_ != "Degraded" || it.reason != "LeftBehind");
            serde_json::to_value(status).expect("JSON")
        };
        let is_said = planned.status.conditions.iter().any(|it| it.reason == "LeftBehind");
        if theirs == 0 && !is_being_deleted && !is_said && told(planned) != told(&without) {
            problems.push("steered: the status is another because of what a tenant made".to_owned());
        }
        problems
    }

    /// What is wrong with a plan: a configuration lacks a block, has another `failOpen`, or another content than its name says.
    pub fn check_plan(&mut self, observed: &Observed, planned: &Plan) -> Vec<String> {
        let settings = serde_json::to_value(&observed.deployment.spec.runtime_settings).expect("JSON");
        let mut problems = Vec::new();
        for write in planned.waves.iter().flat_map(|wave| &wave.writes) {
            let (Write::Create(object) | Write::Replace(object)) = write else {
                continue;
            };
            if object.kind != Kind::ContourConfiguration {
                continue;
            }
            let key = self.items.key_id(&object.key());
            let content = object.at("/spec").cloned().unwrap_or_default();
            let spec = self.items.spec(&content);
            match self.originals.get(&key) {
                Some(original) if *original == spec => {}
                Some(_) => problems.push(format!("I1: {} is written with another content", object.key())),
                None => {
                    let (wanted, block) = (&settings["globalExtAuth"], &content["globalExtAuth"]);
                    let differs = |field: &str| wanted[field] != block[field];
                    if wanted.is_null() != block.is_null() || differs("failOpen") || differs("authPolicy") {
                        problems.push(format!(
                            "I1: {} is to ask {block}, and the specification says {wanted}",
                            object.key()
                        ));
                    }
                    self.originals.insert(key, spec);
                }
            }
        }
        problems
    }
}

/// Numbers come back from annotations, which others may have written, and are counted up: they have an end.
fn check_numbers(object: &Object) -> Option<String> {
    const MOST: [(&str, u64); 2] = [("salt", MOST_SALT), ("moves", 1000)];
    let memory: Value = serde_json::from_str(object.annotation(annotations::PERSISTED_STATE)?).ok()?;
    let number = |field: &str| memory[field].as_u64().unwrap_or_default();
    let (field, _) = MOST.into_iter().find(|(field, most)| number(field) > *most)?;
    Some(format!(
        "bounds: {} is written with {field} {}",
        object.key(),
        number(field)
    ))
}

fn remembers_withdrawal(item: &Item) -> bool {
    item.object
        .metadata
        .annotations
        .iter()
        .flatten()
        .any(|(_, text)| text.contains(WITHDRAWN))
}
