//! Stand-ins: the ExtensionServices that Contour's configuration references in place of the users'. One for each role always
//! exists, so that Contour always starts; where it points decides what happens to requests.
//!
//! The rules are in docs/design.md, "Rules of a stand-in". This file applies them to one role; `name` says which stand-in is
//! planned, `judge` what state the user's object is in, `trial` how it is judged where Contour does not do that, `memory` what is
//! remembered, `blackhole` what points at nothing.

mod blackhole;
mod judge;
mod memory;
mod name;
mod nudge;
mod trial;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value};

use super::attempts::Refusal;
use super::captured::{Captured, Contours};
use super::diff::Desired;
use super::object::{Kind, Object, Owner};
use super::observed::{NamespacePhase, NamespacedName, Observed};
use super::succession;
use super::usage::Usage;
use crate::api::contour::{ExtensionService, ExtensionServiceSpec, Verdict};
use crate::api::vocabulary::{FINALIZER, annotations, labels};
use crate::api::{ExtensionServiceState, Role, RuntimeSettings};

pub use blackhole::{BLACKHOLE, is_blackhole};
use judge::Judgement;
pub use memory::{Facts, Memory, Proven};
use nudge::Due;

/// A reference of the specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// What for.
    pub role: Role,
    /// The user's ExtensionService.
    pub target: NamespacedName,
    /// What is asked for while it can't be asked; none for tracing.
    pub fail_open: Option<bool>,
}

/// The references of the settings, in the order of the roles.
pub fn references(settings: &RuntimeSettings) -> Vec<Reference> {
    let auth = settings.global_ext_auth.as_ref().map(|auth| Reference {
        role: Role::GlobalExternalAuthorization,
        target: (auth.extension_ref.namespace.clone(), auth.extension_ref.name.clone()),
        fail_open: Some(auth.fail_open),
    });
    let rate_limit = settings.rate_limit_service.as_ref().map(|service| Reference {
        role: Role::RateLimit,
        target: (
            service.extension_service.namespace.clone(),
            service.extension_service.name.clone(),
        ),
        fail_open: Some(service.fail_open),
    });
    let tracing = settings.tracing.as_ref().map(|tracing| Reference {
        role: Role::Tracing,
        target: (
            tracing.extension_service.namespace.clone(),
            tracing.extension_service.name.clone(),
        ),
        fail_open: None,
    });
    auth.into_iter().chain(rate_limit).chain(tracing).collect()
}

/// What is planned for the references of the specification, and for what older containers still use.
#[derive(Clone, Debug, Default)]
pub struct StandIns {
    /// One for each reference of the specification.
    pub roles: Vec<RolePlan>,
    /// Stand-ins as they shall be: the planned ones, and those that a container may still have captured. Trials, too.
    pub objects: Vec<Desired>,
    /// Their blackholes.
    pub blackholes: Vec<Desired>,
    /// When one that has to stay for a while may be succeeded, or Contour is to be nudged again.
    pub look_again: Option<Duration>,
}

/// What is planned for one role.
#[derive(Clone, Debug)]
pub struct RolePlan {
    /// What is seen of its reference.
    pub seen: SeenRole,
    /// The stand-in that Contour's configuration names.
    pub planned: NamespacedName,
}

/// What is seen of a reference.
#[derive(Clone, Debug)]
pub struct SeenRole {
    /// The reference.
    pub reference: Reference,
    /// What state the user's object is in.
    pub state: ExtensionServiceState,
    /// Why it is not available.
    pub message: Option<String>,
    /// The stand-in for it, if there is one.
    pub stand_in: Option<NamespacedName>,
}

impl SeenRole {
    /// Nothing can be made beside the user's object, which exists or does not.
    fn is_blocked(&mut self, exists: bool, why: &str) {
        let (namespace, _) = &self.reference.target;
        let words = format!("Slipway can't make its stand-in in namespace {namespace}, and tries again: {why}");
        if exists {
            self.state = ExtensionServiceState::Blocked;
            self.message = Some(words);
        } else {
            let missing = self.message.take().map(|missing| format!("{missing}; {words}"));
            self.message = missing.or(Some(words));
        }
    }
}

/// What a stand-in points at.
#[derive(Clone, Debug, PartialEq)]
enum Target {
    /// Nothing: requests are denied, or pass, as `failOpen` says.
    Blackhole,
    /// A copy of a spec that Contour has judged valid.
    Mirror(Proven),
}

/// A stand-in that exists.
struct Existing<'a> {
    object: &'a Object,
    role: Role,
    memory: Memory,
}

impl Existing<'_> {
    fn id(&self) -> NamespacedName {
        (self.object.namespace().to_owned(), self.object.name().to_owned())
    }

    fn stands_for(&self, target: &NamespacedName) -> bool {
        self.memory.reference.as_ref() == Some(target)
    }

    /// How long it has to stay the planned one, if it has to. From a namespace that is being deleted it must go at once: it
    /// would hold that.
    fn stays(&self, observed: &Observed) -> Option<Duration> {
        if observed.namespace(self.object.namespace()) != Some(NamespacePhase::Active) {
            return None;
        }
        succession::stand_in_stays(self.object, self.memory.moves, observed.now)
    }
}

/// The users' ExtensionServices that matter: those of the settings, and those that stand-ins of ours beside them stand for.
pub fn targets<'a>(settings: &RuntimeSettings, ours: impl Iterator<Item = &'a Object>) -> BTreeSet<NamespacedName> {
    let stand_ins = ours.filter(|object| object.kind == Kind::ExtensionService);
    let remembered = stand_ins.filter_map(|object| {
        let reference = Memory::of(object).reference;
        reference.filter(|(namespace, _)| namespace == object.namespace())
    });
    references(settings)
        .into_iter()
        .map(|reference| reference.target)
        .chain(remembered)
        .collect()
}

/// Whether an ExtensionService without our labels is a stand-in of this owner's: its name is made from what it remembers.
pub fn bears_our_name(owner: &Owner, object: &Object) -> bool {
    object.has_our_finalizer() && name::proved_role(owner, object, &Memory::of(object)).is_some()
}

/// The plan for these references, and for what is in use beside them.
pub fn plan(observed: &Observed, references: Vec<Reference>, in_use: &Usage) -> StandIns {
    let owner = observed.owner();
    let existing = existing(observed);
    let mut plan = StandIns::default();
    for reference in references {
        let seen = Seen::of(observed, &existing, &reference.target, reference.role);
        let place = |home: String| {
            let facts = name::facts(observed, &existing, &reference, &seen, home == reference.target.0);
            let (name, salt) = name::name(observed, &owner, &existing, reference.role, &home, &facts);
            ((home, name), salt, facts)
        };
        let current = name::current(observed, &existing, &reference);
        let (mut planned, mut salt, mut facts) = place(name::home(observed, &reference, &owner));
        let refusal = refusal(observed, &owner, &planned, current);
        if let Some(refusal) = &refusal {
            plan.look_again = plan.look_again.into_iter().chain([refusal.wait]).min();
            let beside = current.map(Existing::id).filter(|current| current.0 == planned.0);
            if let Some(current) = beside.filter(|current| is_whole(observed, current)) {
                planned = current;
            } else {
                (planned, salt, facts) = place(owner.namespace.clone());
            }
        }
        if let Some(current) = current.filter(|current| current.id() != planned)
            && let Some(wait) = current.stays(observed)
        {
            plan.look_again = [plan.look_again, Some(wait)].into_iter().flatten().min();
            planned = current.id();
        }
        let live = existing.iter().find(|existing| existing.id() == planned);
        let mut memory = live.map_or_else(
            || Memory {
                salt,
                pinned: facts,
                ..Memory::default()
            },
            |live| live.memory.clone(),
        );
        if let Some(before) = current.filter(|current| current.id() != planned) {
            let moves = succession::next_move(before.object, before.memory.moves, observed.now);
            memory.moves = memory.moves.max(moves);
        }
        plan.add(
            observed,
            &owner,
            &planned,
            reference.role,
            memory,
            &reference.target,
            &seen,
            live.map(|live| live.object),
        );
        let blocked = refusal.filter(|_| planned.0 != reference.target.0);
        let exists = seen.user.is_some();
        let mut seen = seen.role(reference, Some(planned.clone()));
        if let Some(refusal) = blocked {
            seen.is_blocked(exists, &refusal.message);
        }
        plan.roles.push(RolePlan { seen, planned });
    }
    // What a container may have captured stays as good as it can be until that container is gone: it goes on following the
    // object that it was made for, whatever the specification says now.
    let planned: Vec<_> = plan.roles.iter().map(|role| role.planned.clone()).collect();
    for old in existing.iter().filter(|existing| !planned.contains(&existing.id())) {
        let id = old.id();
        // A memory that was lost does not say for whom; what the role references now is the best guess.
        let now = || {
            plan.roles
                .iter()
                .map(|role| &role.seen.reference)
                .find(|reference| reference.role == old.role)
        };
        let remembered = old.memory.reference.clone();
        if let Some(target) = remembered.or_else(|| now().map(|reference| reference.target.clone()))
            && in_use.holds(observed, old.object)
        {
            let seen = Seen::of(observed, &existing, &target, old.role);
            plan.add(
                observed,
                &owner,
                &id,
                old.role,
                old.memory.clone(),
                &target,
                &seen,
                Some(old.object),
            );
        }
    }
    plan.add_deleted(observed, &owner, &existing, in_use);
    plan
}

/// Why the planned stand-in can't be made in its namespace, if that is so. What is there already is not made; but one that
/// somebody changes as we make it is none of ours, unless Contour runs on it.
fn refusal(
    observed: &Observed,
    owner: &Owner,
    planned: &NamespacedName,
    current: Option<&Existing<'_>>,
) -> Option<Refusal> {
    let refusal = observed.attempts.refusal(&planned.0, observed.now);
    let is_current = current.is_some_and(|current| current.id() == *planned);
    let is_there = is_whole(observed, planned) && (is_current || !observed.attempts.is_overruled(planned));
    refusal.filter(|_| planned.0 != owner.namespace && !is_there)
}

/// Whether a stand-in and its blackhole exist and stay.
fn is_whole(observed: &Observed, (namespace, name): &NamespacedName) -> bool {
    [Kind::ExtensionService, Kind::Service].into_iter().all(|kind| {
        let object = observed.object(kind, namespace, name);
        object.is_some_and(|object| !object.is_terminating())
    })
}

/// What is seen of a reference for which nothing is planned.
pub fn see(observed: &Observed, reference: Reference) -> SeenRole {
    let existing = existing(observed);
    let seen = Seen::of(observed, &existing, &reference.target, reference.role);
    let mine = existing
        .iter()
        .filter(|existing| existing.role == reference.role && existing.stands_for(&reference.target));
    let stand_in = mine.map(Existing::id).next();
    seen.role(reference, stand_in)
}

/// What is seen of a user's ExtensionService in one role.
struct Seen<'a> {
    user: Option<&'a ExtensionService>,
    proven: Option<Proven>,
    judgement: Judgement,
    due: Option<Due>,
}

impl<'a> Seen<'a> {
    fn of(observed: &'a Observed, existing: &[Existing<'_>], target: &NamespacedName, role: Role) -> Self {
        let user = observed.extension_services.get(target).map(AsRef::as_ref);
        let mine: Vec<_> = existing
            .iter()
            .filter(|existing| existing.role == role && existing.stands_for(target))
            .collect();
        // Contour's word on the user's object is that on its trial, if it needs one.
        let trial = user.and_then(|user| trial::of(observed, target, user));
        let judged = trial.as_ref().or(user);
        let verdict = judged.map(ExtensionService::verdict);
        let proven = proven(&mine, user, verdict.as_ref());
        let outdated = || judge::outdated(observed, &target.0, judged?);
        // Of an object that is to be tried Contour never says anything.
        let heard_of = trial.as_ref().or(user.filter(|user| !trial::needs_one(user)));
        let unheard = heard_of.and_then(|object| judge::unheard(observed, &target.0, object));
        let is_overdue = unheard.as_ref().is_some_and(Due::is_due);
        let judgement = judge::judge(observed, target, verdict.as_ref(), is_overdue, proven.as_ref(), &mine);
        let due = outdated().or(unheard);
        Self {
            user,
            proven,
            judgement,
            due,
        }
    }

    fn role(self, reference: Reference, stand_in: Option<NamespacedName>) -> SeenRole {
        let Judgement { state, message, .. } = self.judgement;
        SeenRole {
            reference,
            state,
            message,
            stand_in,
        }
    }

    fn target(&self) -> Target {
        match &self.proven {
            Some(proven) if !self.judgement.copy_is_bad => Target::Mirror(proven.clone()),
            _ => Target::Blackhole,
        }
    }
}

impl StandIns {
    /// Adds a stand-in with its blackhole.
    #[allow(clippy::too_many_arguments)] // one place, two callers
    fn add(
        &mut self,
        observed: &Observed,
        owner: &Owner,
        (namespace, name): &NamespacedName,
        role: Role,
        mut memory: Memory,
        user: &NamespacedName,
        seen: &Seen<'_>,
        live: Option<&Object>,
    ) {
        // Only Services of its own namespace may stand behind an ExtensionService.
        let target = if *namespace == user.0 {
            seen.target()
        } else {
            Target::Blackhole
        };
        memory.tainted |= taints(observed, &memory.pinned, &target, live);
        memory.reference = Some(user.clone());
        memory.evicted = seen.proven.is_some() && seen.judgement.copy_is_bad;
        memory.proven.clone_from(&seen.proven);
        let mut spec = match target {
            Target::Blackhole => blackhole::spec(name, &memory.pinned),
            Target::Mirror(proven) => proven.spec.0,
        };
        let said = live.and_then(|live| live.parse::<ExtensionService>().ok());
        let own = said
            .as_ref()
            .and_then(|said| judge::outdated(observed, namespace, said));
        let dues = || seen.due.iter().chain(&own);
        self.look_again = self.look_again.into_iter().chain(dues().map(|due| due.next)).min();
        memory.nudge = match dues().find(|due| due.is_due()) {
            Some(due) => due.given(memory.nudge),
            // It stays as long as the stand-in points where it did. Taking it back would be one more thing for Contour to judge;
            // where two Contours disagree there would be no end to giving it and taking it back.
            None => memory
                .nudge
                .filter(|_| said.is_some_and(|said| points_alike(&said.spec.0, &spec))),
        };
        if let Some(nudge) = &memory.nudge {
            nudge.put_into(&mut spec);
        }
        let metadata = |kind| {
            let mut metadata = owner.metadata(kind, namespace, name);
            metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
            metadata
                .labels
                .get_or_insert_default()
                .insert(labels::ROLE.to_owned(), role.slug().to_owned());
            metadata
        };
        let mut stand_in = Object {
            kind: Kind::ExtensionService,
            metadata: metadata(Kind::ExtensionService),
            content: Map::from_iter([("spec".to_owned(), Value::Object(spec))]),
            creation_entry: None,
        };
        stand_in.annotate(annotations::MEMORY, memory.to_text());
        self.objects.push(Desired::whole_spec(stand_in));

        self.blackholes.push(blackhole::service(metadata(Kind::Service)));

        // One for all roles that reference it; and where nothing can be made any more, none.
        let is_active = observed.namespace(&user.0) == Some(NamespacePhase::Active);
        let trial = seen.user.filter(|_| is_active);
        let trial = trial.and_then(|object| trial::desired(owner, user, object));
        let is_new = |trial: &Desired| {
            self.objects
                .iter()
                .all(|other| other.object.key() != trial.object.key())
        };
        self.objects.extend(trial.filter(is_new));
    }
}

impl StandIns {
    /// Stand-ins that a container has captured and that somebody deleted altogether, finalizer and all: the next start of that
    /// container would fail. What they promised is lost, so that they are tainted; and what a pod's annotation says counts only
    /// where stand-ins are made anyway.
    fn add_deleted(&mut self, observed: &Observed, owner: &Owner, existing: &[Existing<'_>], in_use: &Usage) {
        let is_there = |id: &NamespacedName| {
            existing.iter().any(|existing| existing.id() == *id) || self.roles.iter().any(|role| role.planned == *id)
        };
        let deleted: Vec<_> = in_use.stand_ins.iter().filter(|id| !is_there(id)).cloned().collect();
        for id in deleted {
            let made_for = |role: &&RolePlan| {
                owner.is_stand_in(&id.1) && id.1.starts_with(&owner.stand_in(role.seen.reference.role, ""))
            };
            let Some(reference) = self.roles.iter().find(made_for).map(|role| role.seen.reference.clone()) else {
                continue;
            };
            let is_home = id.0 == owner.namespace || id.0 == reference.target.0;
            if !is_home || observed.namespace(&id.0) != Some(NamespacePhase::Active) {
                continue;
            }
            let seen = Seen::of(observed, existing, &reference.target, reference.role);
            let memory = Memory {
                tainted: true,
                ..Memory::default()
            };
            self.add(
                observed,
                owner,
                &id,
                reference.role,
                memory,
                &reference.target,
                &seen,
                None,
            );
        }
    }
}

/// The stand-ins that exist.
fn existing(observed: &Observed) -> Vec<Existing<'_>> {
    let owner = observed.owner();
    let stand_ins = observed.of_kind(Kind::ExtensionService);
    stand_ins
        .filter_map(|object| {
            let mut memory = Memory::of(object);
            // A stand-in beside one object can't stand for an object of another namespace.
            let is_home = object.namespace() == owner.namespace;
            let may_stand_for = |(namespace, _): &NamespacedName| is_home || namespace == object.namespace();
            if !memory.reference.as_ref().is_none_or(may_stand_for) {
                memory = Memory::unreadable();
            }
            // A name is made from what it promises: it says for which role, should its label be gone; and a memory that
            // promises something else is not of our writing.
            let proved = name::proved_role(&owner, object, &memory);
            let role = object.label(labels::ROLE).and_then(Role::from_slug).or(proved)?;
            if proved != Some(role) {
                memory.tainted = true;
                memory.pinned = Facts::default();
                memory.salt = 0;
            }
            Some(Existing { object, role, memory })
        })
        .collect()
}

/// The newest spec of the user's present object that Contour has judged valid: the present one, or one that a stand-in
/// remembers. An object that was deleted and made again (another uid) has proved nothing yet.
fn proven(
    existing: &[&Existing<'_>],
    user: Option<&ExtensionService>,
    verdict: Option<&Verdict<'_>>,
) -> Option<Proven> {
    let user = user?;
    let uid = user.metadata.uid.clone().unwrap_or_default();
    let generation = user.metadata.generation.unwrap_or_default();
    if verdict == Some(&Verdict::Valid) {
        return Some(Proven {
            uid,
            generation,
            spec: user.spec.clone(),
        });
    }
    let remembered = existing.iter().filter_map(|existing| existing.memory.proven.as_ref());
    remembered
        .filter(|proven| proven.uid == uid)
        .max_by_key(|proven| proven.generation)
        .cloned()
}

/// Whether two specs name the same Services and ports.
fn points_alike(one: &Map<String, Value>, other: &Map<String, Value>) -> bool {
    let services = |spec: &Map<String, Value>| ExtensionServiceSpec(spec.clone()).services();
    services(one) == services(other)
}

/// Whether this content makes a container that starts now capture something else than the stand-in's name says.
fn taints(observed: &Observed, pinned: &Facts, target: &Target, live: Option<&Object>) -> bool {
    if live.is_some_and(|live| is_altered(live, pinned)) {
        return true;
    }
    let Target::Mirror(proven) = target else { return false };
    if Facts::of(&proven.spec) != *pinned {
        return true;
    }
    // A blackhole can't carry a subject name (that needs a CA certificate). Containers that started meanwhile captured none.
    let Some(live) = live.filter(|_| pinned.subject_name.is_some()) else {
        return false;
    };
    let was_blackhole = live.at("/spec/validation").is_none();
    let id = format!("{}/{}", live.namespace(), live.name());
    was_blackhole
        && Contours::of(observed)
            .pods
            .iter()
            .any(|(_, set)| Captured::of_template(set).is_none_or(|captured| captured.stand_ins.contains(&id)))
}

/// Whether somebody else changed the facts: a container that started meanwhile has captured what its name does not say.
fn is_altered(live: &Object, pinned: &Facts) -> bool {
    let seen = Facts::of(&spec_of(live));
    let no_subject = seen.subject_name.is_none() && is_blackhole(live);
    seen.response != pinned.response || (seen.subject_name != pinned.subject_name && !no_subject)
}

fn spec_of(stand_in: &Object) -> ExtensionServiceSpec {
    ExtensionServiceSpec(
        stand_in
            .at("/spec")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default(),
    )
}
