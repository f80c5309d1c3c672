//! The properties that must hold in every state and at every step. The numbers are those of the invariants in docs/architecture.md.

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

/// Reasons that are about the target of a stand-in (docs/decisions/0005-withdrawn-and-retired.md).
const WITHDRAWING: [&str; 4] = [
    "ServiceUnresolvedReference",
    "UnsupportedServiceType",
    "TLSUpstreamValidation",
    "CACertificateNotDelegated",
];

/// The mark of a withdrawn copy in the persisted state of a stand-in.
const WITHDRAWN: &str = "\"withdrawn\":true";

/// The greatest salt that Slipway writes.
pub const MOST_SALT: u64 = 1_000_000;

impl Model {
    /// Returns the problems of this state.
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
                    "I1: {} runs on a spec of {} that Slipway never planned",
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
                        "I1: {} asks {}, which is neither a blackhole nor a copy that Contour has judged valid",
                        self.items.key(pod.key),
                        self.items.key(*stand_in)
                    ));
                }
            }
        }
        problems
    }

    /// Reports whether no request passes unchecked through this stand-in: the stand-in is a blackhole, or a copy of a spec of the
    /// user that Contour has judged valid. Slipway is not responsible for a spec that another user wrote. The check of the final
    /// state shows that Slipway repairs such a spec.
    fn is_closed(&self, state: &State, item: &Item, owner: Option<usize>) -> bool {
        let name = &self.items.key(item.key).name;
        let has_a_way_out = |service: KeyId| self.live(state, service).is_some_and(|service| service.has_a_way_out);
        let is_blackhole = item
            .services
            .iter()
            .all(|(service, _)| self.items.key(*service).name == *name && !has_a_way_out(*service));
        let is_proven = (0..3).any(|form| self.forms[form] == item.unweighted && state.judged & 1 << form != 0);
        (item.owner == owner && (is_blackhole || is_proven)) || self.foreign.contains(&item.spec)
    }

    /// Returns a problem if a container cannot start, or could not start now. Slipway is not responsible for an object that
    /// another user deleted.
    pub fn check_exit(&self, state: &State, pod: KeyId, missing: KeyId) -> Option<String> {
        let by_another_user = state.slot(missing).extra == 1;
        (!by_another_user).then(|| {
            format!(
                "I2: a container of {} exits at its start: {} does not exist",
                self.items.key(pod),
                self.items.key(missing)
            )
        })
    }

    /// Returns the problems of a request and of its result.
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
                problems.push(format!(
                    "I6: {} is an object of another user, and was written",
                    key_of(write)
                ));
            }
            let takes_away = matches!(write, Write::Delete(_) | Write::Release(_));
            if self.items.is_aside(key) && !takes_away {
                problems.push(format!(
                    "I6: {} is an object of a tenant, and was changed",
                    key_of(write)
                ));
            }
            if let Write::Delete(target) = write
                && live.object.uid() != target.uid
            {
                problems.push(format!(
                    "I6: {} was deleted, but is not the observed object",
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

    /// Returns a problem if a copy is replaced with a blackhole although the user's object and the target of the copy are in
    /// order (rule 3).
    fn check_denial(&self, state: &State, key: KeyId, live: &Item, object: &Object) -> Option<String> {
        let was_copy = self.forms.contains(&live.unweighted);
        let is_blackhole = object.at("/spec/services/0/name") == Some(&Value::from(object.name()));
        let seen = |key: KeyId| self.items.get(state.slot(key).view);
        let user = seen(self.keys.extension_service);
        // The persisted state of a nudge contains a uid, too.
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
        // A tenant beside the service writes a withdrawal and deletes the object while the operator executes the plan.
        let was_said = self.scope.tenant_in == AUTH
            && object
                .annotation(annotations::PERSISTED_STATE)
                .is_some_and(|memory| memory.contains(WITHDRAWN));
        (was_copy && is_blackhole && !gone && !unresolved && !withdrawn && !was_said)
            .then(|| format!("rule 3: {} becomes a blackhole without a reason", self.items.key(key)))
    }

    /// Returns the stand-ins that a write of the operator makes unusable for running containers. The operator may not have
    /// observed the deletion of the user's Service when it planned (docs/limits.md). The operator must respect the
    /// state that it had observed, and its own objects.
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

    /// Returns the differences that objects in an unreferenced namespace cause in the plan. The plan without these objects must
    /// be the same, except for deletions and releases of these objects, and for the release of the ContourDeployment, which waits
    /// for them.
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
                "influence: {} is written because of an object of a tenant",
                key_of(write)
            ));
        } else if let Some(write) = expected.iter().find(|write| !with.contains(write)) {
            problems.push(format!(
                "influence: {} is not written because of an object of a tenant",
                key_of(write)
            ));
        }
        // The status reports objects that Slipway cannot delete.
        let told = |plan: &Plan| {
            let mut status = plan.status.clone();
            status
                .conditions
                .retain(|it| it.type_ != "Degraded" || it.reason != "LeftBehind");
            serde_json::to_value(status).expect("JSON")
        };
        let is_said = planned.status.conditions.iter().any(|it| it.reason == "LeftBehind");
        if theirs == 0 && !is_being_deleted && !is_said && told(planned) != told(&without) {
            problems.push("influence: the status differs because of an object of a tenant".to_owned());
        }
        problems
    }

    /// Returns the problems of a plan: a configuration that lacks a block, has another `failOpen`, or does not match the hash in
    /// its name.
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
                Some(_) => problems.push(format!("I1: {} is written with other content", object.key())),
                None => {
                    let (wanted, block) = (&settings["globalExtAuth"], &content["globalExtAuth"]);
                    let differs = |field: &str| wanted[field] != block[field];
                    if wanted.is_null() != block.is_null() || differs("failOpen") || differs("authPolicy") {
                        problems.push(format!("I1: {} asks {block}, but the spec has {wanted}", object.key()));
                    }
                    self.originals.insert(key, spec);
                }
            }
        }
        problems
    }
}

/// Returns a problem if a counter exceeds its bound. Slipway reads the counters back from annotations, which other users may have
/// written.
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
