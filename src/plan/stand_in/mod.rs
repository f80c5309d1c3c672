//! Stand-ins: the ExtensionServices that Contour's configuration references in place of the users'. One for each role always
//! exists, so that Contour always starts; where it points decides what happens to requests.
//!
//! The rules are in docs/design.md, "Rules of a stand-in". `decision` says where a stand-in points, and why; `evidence` what that is
//! decided by; `name` which stand-in is planned; this file what is planned for each reference, and for what older containers still
//! use. `memory` is what is remembered, `trial` how an object is judged where Contour does not do that, `nudge` how Contour is made to
//! look again; `object` and `blackhole` make the objects.

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

/// A reference of the specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// What for.
    pub role: Role,
    /// The user's ExtensionService.
    pub target: NamespacedName,
    /// `failOpen` as specified; none for tracing.
    pub fail_open: Option<bool>,
}

/// The references of the settings, in the order of the roles.
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

/// What is planned for the references of the specification, and for what older containers still use.
#[derive(Clone, Debug, Default)]
pub struct StandIns {
    /// One for each reference of the specification.
    pub roles: Vec<RolePlan>,
    /// The planned ones, and those that a container may still have captured.
    pub all: Vec<StandIn>,
    /// When one that has to stay for a while may be succeeded, or Contour is to be nudged again.
    pub requeue_after: Option<Duration>,
}

/// A stand-in, as it shall be.
#[derive(Clone, Debug)]
pub struct StandIn {
    /// Namespace and name, which its blackhole has, too.
    pub id: NamespacedName,
    /// What for.
    role: Role,
    /// What is remembered of it.
    persisted: PersistedState,
    /// Where it points, and why.
    points_at: PointsAt,
    /// Whether it exists, and its blackhole.
    pub exists: bool,
    /// The user's object, if a trial of it is needed.
    tried: Option<ExtensionService>,
}

/// What is planned for one role.
#[derive(Clone, Debug)]
pub struct RolePlan {
    /// What is seen of its reference.
    pub seen: ObservedRole,
    /// The stand-in that Contour's configuration names.
    pub planned: NamespacedName,
}

/// What is seen of a reference.
#[derive(Clone, Debug)]
pub struct ObservedRole {
    /// The reference.
    pub reference: Reference,
    /// What state the user's object is in.
    pub state: ExtensionServiceState,
    /// Why it is not available.
    pub message: Option<String>,
    /// The stand-in for it, if there is one.
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

    /// Nothing can be made beside the user's object, which exists or does not.
    fn is_blocked(&mut self, exists: bool, why: &str) {
        let NamespacedName { namespace, .. } = &self.reference.target;
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

    /// How long it has to stay the planned one, if it has to. From a namespace that is being deleted it must go at once: it
    /// would hold that.
    fn stays(&self, observed: &Observed) -> Option<Duration> {
        if observed.namespace(self.object.namespace()) != Some(NamespacePhase::Active) {
            return None;
        }
        succession::stand_in_stays(self.object, self.persisted.moves, observed.now)
    }
}

/// The users' ExtensionServices that matter: those of the settings, and those that stand-ins of ours beside them stand for.
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

/// The Services that matter, blackholes left out: those that these ExtensionServices of users name, and those that stand-ins of ours name,
/// now or in a form that they remember.
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

/// Whether an ExtensionService without our labels is a stand-in of this owner's: its name is made from what it remembers.
pub fn bears_our_name(owner: &Owner, object: &Object) -> bool {
    object.has_our_finalizer() && name::proved_role(owner, object, &PersistedState::of(object)).is_some()
}

/// The plan for these references, and for what is in use beside them.
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

/// What is seen of a reference for which nothing is planned.
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

/// Why the planned stand-in can't be made in its namespace, if that is so. A stand-in that exists needs no making; but if somebody changes
/// it as we make it, it is not ours, unless Contour runs on it.
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

/// Whether a stand-in and its blackhole exist and stay.
fn is_whole(observed: &Observed, NamespacedName { namespace, name }: &NamespacedName) -> bool {
    [Kind::ExtensionService, Kind::Service].into_iter().all(|kind| {
        let object = observed.object(kind, namespace, name);
        object.is_some_and(|object| !object.is_terminating())
    })
}

impl StandIns {
    /// The stand-in that Contour's configuration is to name for a reference.
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

    /// What a container may have captured stays as good as it can be until that container is gone: it goes on following the object that
    /// it was made for, whatever the specification says now.
    fn add_used(&mut self, observed: &Observed, existing: &[Existing<'_>], in_use: &Usage) {
        let planned: Vec<_> = self.roles.iter().map(|role| role.planned.clone()).collect();
        let others = existing.iter().filter(|existing| !planned.contains(&existing.id()));
        for old in others.filter(|existing| in_use.holds(observed, existing.object)) {
            // A memory that was lost does not say for whom; what the role references now is the best guess.
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

    /// Stand-ins that a container has captured and that somebody deleted altogether, finalizer and all: the next start of that
    /// container would fail. What they promised is lost, so that they are retired; and what a pod's annotation says counts only
    /// where stand-ins are made anyway.
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

    /// Adds a stand-in with this memory. `live` is the stand-in as it exists, if it does.
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
            // It stays as long as the stand-in points where it did. Taking it back would be one more thing for Contour to judge;
            // where two Contours disagree there would be no end to giving it and taking it back.
            None => persisted.nudge.filter(|_| {
                said.is_some_and(|said| said.spec.services() == points_at.spec(&id.name, &persisted.pinned).services())
            }),
        };
        // One for all roles that reference it; and where nothing can be made any more, none.
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

/// Whether a stand-in and its blackhole exist.
fn is_there(observed: &Observed, NamespacedName { namespace, name }: &NamespacedName) -> bool {
    [Kind::ExtensionService, Kind::Service]
        .into_iter()
        .all(|kind| observed.object(kind, namespace, name).is_some())
}

/// The stand-ins that exist.
fn existing(observed: &Observed) -> Vec<Existing<'_>> {
    let owner = observed.owner();
    let stand_ins = observed.of_kind(Kind::ExtensionService);
    stand_ins
        .filter_map(|object| {
            let mut persisted = PersistedState::of(object);
            // A stand-in beside one object can't stand for an object of another namespace.
            let is_home = object.namespace() == owner.namespace;
            let may_stand_for =
                |NamespacedName { namespace, .. }: &NamespacedName| is_home || namespace == object.namespace();
            if !persisted.reference.as_ref().is_none_or(may_stand_for) {
                persisted = PersistedState::unreadable();
            }
            // A name is made from what it promises: it says for which role, should its label be gone; and a memory that
            // promises something else is not of our writing.
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

/// Whether this content makes a container that starts now capture something else than the stand-in's name says.
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
    // A blackhole can't carry a subject name (that needs a CA certificate). Containers that started meanwhile captured none.
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

/// Whether somebody else changed the facts: a container that started meanwhile has captured what its name does not say.
fn is_altered(live: &Object, pinned: &Facts) -> bool {
    let seen = Facts::of(&spec_of(live));
    let no_subject = seen.subject_name.is_none() && is_blackhole(live);
    seen.response != pinned.response || (seen.subject_name != pinned.subject_name && !no_subject)
}

fn spec_of(stand_in: &Object) -> ExtensionServiceSpec {
    ExtensionServiceSpec::of(stand_in.spec())
}
