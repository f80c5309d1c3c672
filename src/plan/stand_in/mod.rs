//! Stand-ins: the ExtensionServices that Contour's configuration references in place of the users'. One for each role always
//! exists, so that Contour always starts; where it points decides what happens to requests.
//!
//! The rules are in docs/design.md, "Rules of a stand-in". This file applies them to one role; `judge` says what state the
//! user's object is in, `memory` what is remembered on a stand-in.

mod judge;
mod memory;

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use serde_json::{Map, Value, json};

use super::diff::{Desired, Fields};
use super::duration;
use super::names::hash;
use super::object::{Kind, Object, Owner};
use super::observed::{NamespacePhase, NamespacedName, Observed};
use super::usage::{self, Usage};
use crate::api::contour::{ExtensionService, ExtensionServiceSpec, Verdict};
use crate::api::vocabulary::{FINALIZER, annotations, labels};
use crate::api::{ExtensionServiceState, Role, RuntimeSettings};

use judge::Judgement;
pub use memory::{Facts, Memory, Proven};

/// The blackhole's only port; RFC 863's number for "discard". No endpoint will ever answer there.
const BLACKHOLE_PORT: i32 = 9;

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
    /// Stand-ins as they shall be: the planned ones, and those that a container may still have captured.
    pub objects: Vec<Desired>,
    /// Their blackholes.
    pub blackholes: Vec<Desired>,
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
}

/// The users' ExtensionServices that matter: those of the settings, and those that existing stand-ins stand for.
pub fn targets<'a>(settings: &RuntimeSettings, objects: impl Iterator<Item = &'a Object>) -> BTreeSet<NamespacedName> {
    let stand_ins = objects.filter(|object| object.kind == Kind::ExtensionService);
    let remembered = stand_ins.filter_map(|object| Memory::of(object).reference);
    references(settings)
        .into_iter()
        .map(|reference| reference.target)
        .chain(remembered)
        .collect()
}

/// The plan for these references, and for what is in use beside them.
pub fn plan(observed: &Observed, references: Vec<Reference>, in_use: &Usage) -> StandIns {
    let owner = observed.owner();
    let existing = existing(observed);
    let mut plan = StandIns::default();
    for reference in references {
        let seen = Seen::of(observed, &existing, &reference.target, reference.role);
        let home = home(observed, &reference, &owner);
        let facts = facts(observed, &existing, &reference, &seen, home == reference.target.0);
        let (name, salt) = name(observed, &owner, &existing, reference.role, &home, &facts);
        let planned = (home, name);
        let live = existing.iter().find(|existing| existing.id() == planned);
        let memory = live.map_or_else(
            || Memory {
                salt,
                pinned: facts,
                ..Memory::default()
            },
            |live| live.memory.clone(),
        );
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
        let seen = seen.role(reference, Some(planned.clone()));
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
            && (in_use.uncertain || in_use.stand_ins.contains(&id))
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
    plan
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
}

impl<'a> Seen<'a> {
    fn of(observed: &'a Observed, existing: &[Existing<'_>], target: &NamespacedName, role: Role) -> Self {
        let user = observed.extension_services.get(target).map(AsRef::as_ref);
        let mine: Vec<_> = existing
            .iter()
            .filter(|existing| existing.role == role && existing.stands_for(target))
            .collect();
        let proven = proven(&mine, user);
        let judgement = judge::judge(observed, target, user, proven.as_ref(), &mine);
        Self {
            user,
            proven,
            judgement,
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
        let spec = match target {
            Target::Blackhole => blackhole_spec(name, &memory.pinned),
            Target::Mirror(proven) => proven.spec.0,
        };
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

        let service = Service {
            metadata: metadata(Kind::Service),
            spec: Some(ServiceSpec {
                cluster_ip: Some("None".to_owned()),
                ports: Some(vec![ServicePort {
                    name: Some("discard".to_owned()),
                    port: BLACKHOLE_PORT,
                    ..ServicePort::default()
                }]),
                ..ServiceSpec::default()
            }),
            status: None,
        };
        // A selector, or a name elsewhere, would give the blackhole a way out.
        let absent = &["/spec/selector", "/spec/externalName"];
        self.blackholes.push(Desired {
            object: Object::new(Kind::Service, &service),
            fields: Fields::Sealed { absent },
        });
    }
}

/// The stand-ins that exist.
fn existing(observed: &Observed) -> Vec<Existing<'_>> {
    let owner = observed.owner();
    let role = |object: &Object| object.label(labels::ROLE).and_then(Role::from_slug);
    let existing = |object| {
        let role = role(object)?;
        let mut memory = Memory::of(object);
        // A name is made from what it promises. A memory that promises something else is not of our writing.
        if stand_in_name(&owner, role, &memory.pinned, memory.salt) != object.name() {
            memory.tainted = true;
            memory.pinned = Facts::default();
            memory.salt = 0;
        }
        Some(Existing { object, role, memory })
    };
    observed.of_kind(Kind::ExtensionService).filter_map(existing).collect()
}

/// Where the planned stand-in lives: beside the user's object, or, while that namespace is absent or being deleted (nothing
/// can be made in it then), beside the ContourDeployment.
fn home(observed: &Observed, reference: &Reference, owner: &Owner) -> String {
    match observed.namespace(&reference.target.0) {
        Some(NamespacePhase::Active) => reference.target.0.clone(),
        Some(NamespacePhase::Terminating) | None => owner.namespace.clone(),
    }
}

/// The newest spec of the user's present object that Contour has judged valid: the present one, or one that a stand-in
/// remembers. An object that was deleted and made again (another uid) has proved nothing yet.
fn proven(existing: &[&Existing<'_>], user: Option<&ExtensionService>) -> Option<Proven> {
    let user = user?;
    let uid = user.metadata.uid.clone().unwrap_or_default();
    let generation = user.metadata.generation.unwrap_or_default();
    if user.verdict() == Verdict::Valid {
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

/// The facts that Contour captures, and that the planned stand-in's name therefore contains.
fn facts(
    observed: &Observed,
    existing: &[Existing<'_>],
    reference: &Reference,
    seen: &Seen<'_>,
    beside_the_user: bool,
) -> Facts {
    if beside_the_user {
        if let Some(proven) = &seen.proven {
            return Facts::of(&proven.spec);
        }
        // Nobody runs on other facts yet, so a guess costs nothing and spares a rollout right after the installation. Facts
        // that are no Go durations would stop Contour.
        let no_envoy = !observed
            .objects
            .values()
            .any(|object| is_envoy_workload(object, &observed.owner()));
        if let Some(user) = seen.user.filter(|_| no_envoy)
            && user
                .spec
                .response_timeout()
                .is_none_or(|timeout| duration::parse(timeout).is_ok())
        {
            return Facts::of(&user.spec);
        }
    }
    // The object is gone or not judged yet: keep what Contour runs with, so that its return with the same facts rolls nothing.
    let running = deployed(observed);
    existing
        .iter()
        .filter(|existing| existing.role == reference.role && existing.stands_for(&reference.target))
        .max_by_key(|existing| {
            (
                running.contains(&existing.id()),
                existing.object.metadata.creation_timestamp.clone(),
                existing.id(),
            )
        })
        .map(|existing| existing.memory.pinned.clone())
        .unwrap_or_default()
}

/// The planned stand-in's name and its salt. A name that is tainted or on its way out is never planned again: the next salt
/// makes another.
fn name(
    observed: &Observed,
    owner: &Owner,
    existing: &[Existing<'_>],
    role: Role,
    home: &str,
    facts: &Facts,
) -> (String, u32) {
    let existing: Vec<_> = existing.iter().filter(|existing| existing.role == role).collect();
    let mut salt = existing
        .iter()
        .map(|existing| existing.memory.salt)
        .max()
        .unwrap_or_default();
    loop {
        let name = stand_in_name(owner, role, facts, salt);
        let spent = existing.iter().any(|existing| {
            existing.id() == (home.to_owned(), name.clone())
                && (existing.memory.tainted || existing.object.is_terminating())
        }) || observed
            .object(Kind::Service, home, &name)
            .is_some_and(Object::is_terminating);
        if !spent {
            return (name, salt);
        }
        salt += 1;
    }
}

fn stand_in_name(owner: &Owner, role: Role, facts: &Facts, salt: u32) -> String {
    let present = |fact: &Option<String>| {
        fact.as_ref()
            .map_or_else(|| "-".to_owned(), |value| format!("={value}"))
    };
    let (response, subject, salt) = (present(&facts.response), present(&facts.subject_name), salt.to_string());
    owner.stand_in(
        role,
        &hash([
            owner.namespace.as_str(),
            &owner.name,
            role.slug(),
            &response,
            &subject,
            &salt,
        ]),
    )
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
        && usage::contour_pods(observed).any(|pod| {
            let annotations = serde_json::to_value(&pod.metadata.annotations).ok();
            usage::captured(annotations.as_ref()).is_none_or(|captured| captured.stand_ins.contains(&id))
        })
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

/// The stand-ins that Contour's Deployment names now.
fn deployed(observed: &Observed) -> Vec<NamespacedName> {
    let owner = observed.owner();
    let deployment = observed.object(Kind::Deployment, &owner.namespace, &owner.contour());
    let captured = deployment.and_then(|object| usage::captured(object.at("/spec/template/metadata/annotations")));
    let mut usage = Usage::default();
    if let Some(captured) = captured {
        usage.add_captured(&captured);
    }
    usage.stand_ins.into_iter().collect()
}

fn is_envoy_workload(object: &Object, owner: &Owner) -> bool {
    matches!(object.kind, Kind::DaemonSet | Kind::Deployment) && object.name() == owner.envoy()
}

/// The spec of a stand-in that points at nothing, with the pinned response timeout.
fn blackhole_spec(name: &str, pinned: &Facts) -> Map<String, Value> {
    let mut spec = json!({"protocol": "h2c", "services": [{"name": name, "port": BLACKHOLE_PORT}]});
    if let Some(response) = &pinned.response {
        spec["timeoutPolicy"] = json!({"response": response});
    }
    match spec {
        Value::Object(spec) => spec,
        _ => unreachable!("an object literal"),
    }
}

/// Whether a stand-in points at nothing.
pub fn is_blackhole(stand_in: &Object) -> bool {
    spec_of(stand_in)
        .services()
        .iter()
        .all(|service| service.name == stand_in.name())
}
