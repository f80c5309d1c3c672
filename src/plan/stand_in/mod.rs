//! Stand-ins: the ExtensionServices that Contour's configuration references in place of the users' ExtensionServices. A stand-in for each
//! role always exists, so Contour can always start. The target of the stand-in decides how requests are treated.
//!
//! The rules are in docs/decisions (rules 1 to 14). `decision` determines the target of a stand-in and the reason, `evidence`
//! collects the facts for the decision, and `name` determines which stand-in is planned. This file plans the stand-ins for each reference
//! and for older containers. `persisted` defines the persisted state, and `trial` gets a verdict on objects that Contour never judges.
//! `nudge` makes Contour reconcile again. `object` and `blackhole` build the objects.

mod blackhole;
mod decision;
mod evidence;
mod name;
mod nudge;
mod object;
mod persisted;
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::attempts::Refusal;
use super::object::{Kind, NamespacedName, Object, Owner};
use super::observed::{NamespacePhase, Observed};
use super::startup_inputs::{Contours, StartupInputs};
use super::succession;
use super::usage::Usage;
use crate::api::contour::{ExtensionService, ExtensionServiceSpec};
use crate::api::vocabulary::labels;
use crate::api::{ExtensionServiceState, Role, RuntimeSettings};

pub use blackhole::is_blackhole;
use decision::{PointsAt, decide};
use evidence::Evidence;
pub use evidence::is_unusable;
pub use persisted::{Facts, PersistedState, Proven};

/// A reference to an ExtensionService in the spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The role of the ExtensionService.
    pub role: Role,
    /// The user's ExtensionService.
    pub target: NamespacedName,
    /// `failOpen` in the spec. None for tracing.
    pub fail_open: Option<bool>,
}

/// Returns the references of the settings, in the order of the roles.
pub fn references(settings: &RuntimeSettings) -> Vec<Reference> {
    let reference = |role: Role| {
        let specified = role.specified(settings)?;
        Some(Reference {
            role,
            target: NamespacedName::new(specified.namespace, specified.name),
            fail_open: specified.fail_open,
        })
    };
    Role::ALL.into_iter().filter_map(reference).collect()
}

/// The plan for the references of the spec and for the stand-ins that older containers still use.
#[derive(Clone, Debug, Default)]
pub struct StandIns {
    /// The plans for the references of the spec.
    pub roles: Vec<RolePlan>,
    /// The planned stand-ins, and the stand-ins that a container may still use.
    pub all: Vec<StandIn>,
    /// The time until a stand-in that must stay may be succeeded, or until the next nudge of Contour.
    pub requeue_after: Option<Duration>,
}

/// A desired stand-in.
#[derive(Clone, Debug)]
pub struct StandIn {
    /// The namespace and the name, which the blackhole shares.
    pub id: NamespacedName,
    /// The role of the ExtensionService.
    role: Role,
    /// The persisted state of the stand-in.
    persisted: PersistedState,
    /// The target of the stand-in, and the reason.
    points_at: PointsAt,
    /// Whether the stand-in and its blackhole exist.
    pub exists: bool,
    /// The user's ExtensionService, if a trial of the object is needed.
    tried: Option<ExtensionService>,
}

/// The plan for one role.
#[derive(Clone, Debug)]
pub struct RolePlan {
    /// The observed state of the role's reference.
    pub seen: ObservedRole,
    /// The stand-in that Contour's configuration names.
    pub planned: NamespacedName,
}

/// The observed state of a reference.
#[derive(Clone, Debug)]
pub struct ObservedRole {
    /// The reference.
    pub reference: Reference,
    /// The state of the user's ExtensionService.
    pub state: ExtensionServiceState,
    /// The reason why the ExtensionService is not available.
    pub message: Option<String>,
    /// The stand-in for the ExtensionService, if one exists.
    pub stand_in: Option<NamespacedName>,
}

impl ObservedRole {
    fn of(reference: Reference, evidence: &Evidence<'_>, stand_in: Option<NamespacedName>) -> Self {
        let decision = decide(evidence, &reference.target.namespace);
        Self {
            state: decision.state(),
            message: decision.message(&reference.target),
            reference,
            stand_in,
        }
    }

    /// Records that Slipway cannot create the stand-in. `exists`: whether the user's ExtensionService exists.
    fn is_blocked(&mut self, exists: bool, why: &str) {
        let NamespacedName { namespace, .. } = &self.reference.target;
        let words = format!("Slipway cannot create the stand-in in namespace {namespace} and retries: {why}");
        if exists {
            self.state = ExtensionServiceState::Blocked;
            self.message = Some(words);
        } else {
            let missing = self.message.take().map(|missing| format!("{missing}; {words}"));
            self.message = missing.or(Some(words));
        }
    }
}

/// A stand-in that exists.
struct Existing<'a> {
    object: &'a Object,
    role: Role,
    persisted: PersistedState,
}

impl Existing<'_> {
    fn id(&self) -> NamespacedName {
        self.object.id()
    }

    fn stands_for(&self, target: &NamespacedName) -> bool {
        self.persisted.reference.as_ref() == Some(target)
    }

    /// Returns the time for which the stand-in must stay the planned one, or None. In a terminating namespace the stand-in is replaced
    /// immediately, because it would hold the namespace.
    fn stays(&self, observed: &Observed) -> Option<Duration> {
        if observed.namespace(self.object.namespace()) != Some(NamespacePhase::Active) {
            return None;
        }
        succession::stand_in_stays(self.object, self.persisted.moves, observed.now)
    }
}

/// Returns the relevant ExtensionServices of users: those of the settings, and those that Slipway's stand-ins in the same namespace
/// replace.
pub fn targets<'a>(settings: &RuntimeSettings, ours: impl Iterator<Item = &'a Object>) -> BTreeSet<NamespacedName> {
    let stand_ins = ours.filter(|object| object.kind == Kind::ExtensionService);
    let remembered = stand_ins.filter_map(|object| {
        let reference = PersistedState::of(object).reference;
        reference.filter(|reference| reference.namespace == object.namespace())
    });
    references(settings)
        .into_iter()
        .map(|reference| reference.target)
        .chain(remembered)
        .collect()
}

/// Returns the relevant Services, except blackholes: those that these ExtensionServices of users name, and those that Slipway's stand-ins
/// name in their spec or in their persisted state.
pub fn services<'a>(
    users: &BTreeMap<NamespacedName, Arc<ExtensionService>>,
    ours: impl Iterator<Item = &'a Object>,
) -> BTreeSet<NamespacedName> {
    let mut services = BTreeSet::new();
    let mut add = |namespace: &str, stand_in: &str, spec: &ExtensionServiceSpec| {
        let named = spec.services().into_iter().filter(|service| service.name != stand_in);
        services.extend(named.map(|service| NamespacedName::new(namespace, service.name)));
    };
    for (id, user) in users {
        add(&id.namespace, "", &user.spec);
    }
    for object in ours.filter(|object| object.kind == Kind::ExtensionService) {
        add(
            object.namespace(),
            object.name(),
            &ExtensionServiceSpec::of(object.spec()),
        );
        if let Some(proven) = PersistedState::of(object).proven {
            add(object.namespace(), object.name(), &proven.spec);
        }
    }
    services
}

/// Reports whether an ExtensionService without Slipway's labels is a stand-in of this owner. The name of a stand-in is computed from its
/// persisted state.
pub fn bears_our_name(owner: &Owner, object: &Object) -> bool {
    object.has_our_finalizer() && name::proved_role(owner, object, &PersistedState::of(object)).is_some()
}

/// Returns the plan for these references and for the stand-ins in use.
pub fn assess(observed: &Observed, references: Vec<Reference>, in_use: &Usage) -> StandIns {
    let owner = observed.owner();
    let existing = existing(observed);
    let mut plan = StandIns::default();
    for reference in references {
        plan.add_referenced(observed, &owner, &existing, reference);
    }
    plan.add_used(observed, &existing, in_use);
    plan.add_deleted(observed, &owner, &existing, in_use);
    plan
}

/// Returns the observed state of a reference for which nothing is planned.
pub fn observe(observed: &Observed, reference: Reference) -> ObservedRole {
    let existing = existing(observed);
    let target = reference.target.clone();
    let evidence = Evidence::of(observed, &existing, &target, reference.role);
    let mine = existing
        .iter()
        .filter(|existing| existing.role == reference.role && existing.stands_for(&reference.target));
    let stand_in = mine.map(Existing::id).next();
    ObservedRole::of(reference, &evidence, stand_in)
}

/// Returns the reason why the planned stand-in cannot be created in its namespace, or None. An existing stand-in needs no creation. But a
/// stand-in that another client changes in Slipway's write counts as refused, unless Contour runs with the stand-in.
fn refusal(
    observed: &Observed,
    owner: &Owner,
    planned: &NamespacedName,
    current: Option<&Existing<'_>>,
) -> Option<Refusal> {
    let refusal = observed.attempts.refusal(&planned.namespace, observed.now);
    let is_current = current.is_some_and(|current| current.id() == *planned);
    let is_there = is_whole(observed, planned) && (is_current || !observed.attempts.is_overruled(planned));
    refusal.filter(|_| planned.namespace != owner.namespace && !is_there)
}

/// Reports whether a stand-in and its blackhole exist and are not being deleted.
fn is_whole(observed: &Observed, NamespacedName { namespace, name }: &NamespacedName) -> bool {
    [Kind::ExtensionService, Kind::Service].into_iter().all(|kind| {
        let object = observed.object(kind, namespace, name);
        object.is_some_and(|object| !object.is_terminating())
    })
}

impl StandIns {
    /// Adds the stand-in that Contour's configuration names for a reference.
    fn add_referenced(&mut self, observed: &Observed, owner: &Owner, existing: &[Existing<'_>], reference: Reference) {
        let target = reference.target.clone();
        let evidence = Evidence::of(observed, existing, &target, reference.role);
        let place = |home: String| {
            let facts = name::facts(observed, existing, &reference, &evidence, home == target.namespace);
            let (name, salt) = name::name(observed, owner, existing, reference.role, &home, &facts);
            (NamespacedName::new(home, name), salt, facts)
        };
        let current = name::current(observed, existing, &reference);
        let (mut planned, mut salt, mut facts) = place(name::home(observed, &reference, owner));
        let refusal = refusal(observed, owner, &planned, current);
        if let Some(refusal) = &refusal {
            self.requeue_in(refusal.wait);
            let beside = current
                .map(Existing::id)
                .filter(|current| current.namespace == planned.namespace);
            if let Some(current) = beside.filter(|current| is_whole(observed, current)) {
                planned = current;
            } else {
                (planned, salt, facts) = place(owner.namespace.clone());
            }
        }
        if let Some(current) = current.filter(|current| current.id() != planned)
            && let Some(wait) = current.stays(observed)
        {
            self.requeue_in(wait);
            planned = current.id();
        }
        let live = existing.iter().find(|existing| existing.id() == planned);
        let mut persisted = live.map_or_else(
            || PersistedState {
                salt,
                pinned: facts,
                ..PersistedState::default()
            },
            |live| live.persisted.clone(),
        );
        if let Some(before) = current.filter(|current| current.id() != planned) {
            let moves = succession::next_move(before.object, before.persisted.moves, observed.now);
            persisted.moves = persisted.moves.max(moves);
        }
        self.add(observed, planned.clone(), reference.role, persisted, live, &evidence);
        let blocked = refusal.filter(|_| planned.namespace != target.namespace);
        let mut seen = ObservedRole::of(reference, &evidence, Some(planned.clone()));
        if let Some(refusal) = blocked {
            seen.is_blocked(evidence.user.is_some(), &refusal.message);
        }
        self.roles.push(RolePlan { seen, planned });
    }

    /// Adds the stand-ins that a container may have read. Such a stand-in keeps following its original ExtensionService until that
    /// container has ended, whatever the current spec is.
    fn add_used(&mut self, observed: &Observed, existing: &[Existing<'_>], in_use: &Usage) {
        let planned: Vec<_> = self.roles.iter().map(|role| role.planned.clone()).collect();
        let others = existing.iter().filter(|existing| !planned.contains(&existing.id()));
        for old in others.filter(|existing| in_use.holds(observed, existing.object)) {
            // A stand-in without readable persisted state does not name its ExtensionService. The current reference of the role is the best
            // guess.
            let mut references = self.roles.iter().map(|role| &role.seen.reference);
            let now = references.find(|reference| reference.role == old.role);
            let target = old.persisted.reference.clone().or_else(|| Some(now?.target.clone()));
            if let Some(target) = target {
                let evidence = Evidence::of(observed, existing, &target, old.role);
                self.add(
                    observed,
                    old.id(),
                    old.role,
                    old.persisted.clone(),
                    Some(old),
                    &evidence,
                );
            }
        }
    }

    /// Adds stand-ins that a container has read and that another user deleted together with the finalizer. Without them, the next start of
    /// that container would fail. The facts behind their names are lost, so the recreated stand-ins are retired. The annotation of a pod
    /// counts only for namespaces in which Slipway creates stand-ins anyway.
    fn add_deleted(&mut self, observed: &Observed, owner: &Owner, existing: &[Existing<'_>], in_use: &Usage) {
        let is_there = |id: &NamespacedName| {
            existing.iter().any(|existing| existing.id() == *id) || self.roles.iter().any(|role| role.planned == *id)
        };
        let deleted: Vec<_> = in_use.stand_ins.iter().filter(|id| !is_there(id)).cloned().collect();
        for id in deleted {
            let made_for = |role: &&RolePlan| {
                owner.is_stand_in(&id.name) && id.name.starts_with(&owner.stand_in(role.seen.reference.role, ""))
            };
            let Some(reference) = self.roles.iter().find(made_for).map(|role| role.seen.reference.clone()) else {
                continue;
            };
            let is_home = id.namespace == owner.namespace || id.namespace == reference.target.namespace;
            if !is_home || observed.namespace(&id.namespace) != Some(NamespacePhase::Active) {
                continue;
            }
            let evidence = Evidence::of(observed, existing, &reference.target, reference.role);
            let persisted = PersistedState {
                retired: true,
                ..PersistedState::default()
            };
            self.add(observed, id, reference.role, persisted, None, &evidence);
        }
    }

    /// Adds a stand-in with this persisted state. `live` is the existing stand-in, if there is one.
    fn add(
        &mut self,
        observed: &Observed,
        id: NamespacedName,
        role: Role,
        mut persisted: PersistedState,
        live: Option<&Existing<'_>>,
        evidence: &Evidence<'_>,
    ) {
        let points_at = decide(evidence, &id.namespace);
        let live = live.map(|live| live.object);
        persisted.retired |= retires(observed, &persisted.pinned, &points_at, live);
        persisted.reference = Some(evidence.target.clone());
        persisted.withdrawn = decide(evidence, &evidence.target.namespace).is_withdrawn();
        persisted.proven.clone_from(&evidence.proven);
        let said = live.and_then(|live| live.parse::<ExtensionService>().ok());
        let own = said
            .as_ref()
            .and_then(|said| evidence::outdated(observed, &id.namespace, said));
        let dues = || evidence.due.iter().chain(&own);
        dues().for_each(|due| self.requeue_in(due.next));
        persisted.nudge = match dues().find(|due| due.is_due()) {
            Some(due) => due.given(persisted.nudge),
            // The nudge stays as long as the target of the stand-in stays. Reverting the nudge would require another verdict from Contour.
            // If two Contours disagreed, nudging and reverting would never end.
            None => persisted.nudge.filter(|_| {
                said.is_some_and(|said| said.spec.services() == points_at.spec(&id.name, &persisted.pinned).services())
            }),
        };
        // All roles that reference the object share one trial. In a terminating namespace there is no trial, because nothing can be
        // created.
        let NamespacedName { namespace, .. } = evidence.target;
        let is_active = observed.namespace(namespace) == Some(NamespacePhase::Active);
        let tried = evidence.user.filter(|user| is_active && trial::needs_one(user));
        let is_new = |user: &&ExtensionService| {
            let mut tried = self.all.iter().filter_map(|other| other.tried.as_ref());
            !tried.any(|other| other.metadata.uid == user.metadata.uid)
        };
        self.all.push(StandIn {
            exists: is_there(observed, &id),
            role,
            persisted,
            points_at,
            tried: tried.filter(is_new).cloned(),
            id,
        });
    }

    fn requeue_in(&mut self, wait: Duration) {
        self.requeue_after = self.requeue_after.into_iter().chain([wait]).min();
    }
}

/// Reports whether a stand-in and its blackhole exist.
fn is_there(observed: &Observed, NamespacedName { namespace, name }: &NamespacedName) -> bool {
    [Kind::ExtensionService, Kind::Service]
        .into_iter()
        .all(|kind| observed.object(kind, namespace, name).is_some())
}

/// Returns the existing stand-ins.
fn existing(observed: &Observed) -> Vec<Existing<'_>> {
    let owner = observed.owner();
    let stand_ins = observed.of_kind(Kind::ExtensionService);
    stand_ins
        .filter_map(|object| {
            let mut persisted = PersistedState::of(object);
            // A stand-in outside the ContourDeployment's namespace can only replace an ExtensionService of its own namespace.
            let is_home = object.namespace() == owner.namespace;
            let may_stand_for =
                |NamespacedName { namespace, .. }: &NamespacedName| is_home || namespace == object.namespace();
            if !persisted.reference.as_ref().is_none_or(may_stand_for) {
                persisted = PersistedState::unreadable();
            }
            // The name of a stand-in is computed from its facts, so the name shows the role even if the label is missing. Persisted state
            // that does not match the name was not written by Slipway.
            let proved = name::proved_role(&owner, object, &persisted);
            let role = object.label(labels::ROLE).and_then(Role::from_slug).or(proved)?;
            if proved != Some(role) {
                persisted.retired = true;
                persisted.pinned = Facts::default();
                persisted.salt = 0;
            }
            Some(Existing {
                object,
                role,
                persisted,
            })
        })
        .collect()
}

/// Reports whether, with this target, a container that starts now would read other facts than the stand-in's name contains.
fn retires(observed: &Observed, pinned: &Facts, points_at: &PointsAt, live: Option<&Object>) -> bool {
    if live.is_some_and(|live| is_altered(live, pinned)) {
        return true;
    }
    let PointsAt::Copy(proven, _) = points_at else {
        return false;
    };
    if Facts::of(&proven.spec) != *pinned {
        return true;
    }
    // A blackhole cannot have a subject name, which requires a CA certificate. Containers that started in the meantime have read no subject
    // name.
    let Some(live) = live.filter(|_| pinned.subject_name.is_some()) else {
        return false;
    };
    let was_blackhole = live.spec().is_none_or(|spec| !spec.contains_key("validation"));
    let id = format!("{}/{}", live.namespace(), live.name());
    was_blackhole
        && Contours::of(observed)
            .pods
            .iter()
            .any(|(_, set)| StartupInputs::of_template(set).is_none_or(|inputs| inputs.stand_ins.contains(&id)))
}

/// Reports whether another user changed the facts of a stand-in. A container that started in the meantime has read facts that the name does
/// not contain.
fn is_altered(live: &Object, pinned: &Facts) -> bool {
    let seen = Facts::of(&spec_of(live));
    let no_subject = seen.subject_name.is_none() && is_blackhole(live);
    seen.response != pinned.response || (seen.subject_name != pinned.subject_name && !no_subject)
}

fn spec_of(stand_in: &Object) -> ExtensionServiceSpec {
    ExtensionServiceSpec::of(stand_in.spec())
}
