//! The stand-in that is planned for a reference: its namespace, the facts in its name, and its name.

use super::evidence::Evidence;
use super::{Existing, Facts, PersistedState, Reference};
use crate::api::Role;
use crate::contour::duration;
use crate::plan::names::{hash, salts_from};
use crate::plan::object::{Kind, NamespacedName, Object, Owner};
use crate::plan::observed::{NamespacePhase, Observed};
use crate::plan::rollout;
use crate::plan::startup_inputs::{Contours, StartupInputs};

/// Returns the namespace of the planned stand-in. This is the namespace of the user's ExtensionService, or, while that namespace is absent
/// or terminating, the namespace of the ContourDeployment. Nothing can be created in a terminating namespace.
pub fn home(observed: &Observed, reference: &Reference, owner: &Owner) -> String {
    match observed.namespace(&reference.target.namespace) {
        Some(NamespacePhase::Active) => reference.target.namespace.clone(),
        Some(NamespacePhase::Terminating) | None => owner.namespace.clone(),
    }
}

/// Returns the facts that Contour reads at startup, and that the name of the planned stand-in therefore contains.
pub fn facts(
    observed: &Observed,
    existing: &[Existing<'_>],
    reference: &Reference,
    evidence: &Evidence<'_>,
    beside_the_user: bool,
) -> Facts {
    if beside_the_user {
        if let Some(proven) = &evidence.proven {
            return Facts::of(&proven.spec);
        }
        // No container runs with other facts yet, so a guess costs nothing and saves a rollout right after the installation. A timeout that
        // is not a Go duration would stop Contour.
        let no_envoy = !rollout::has_envoy(observed);
        if let Some(user) = evidence.user.filter(|_| no_envoy)
            && user
                .spec
                .response_timeout()
                .is_none_or(|timeout| duration::parse(timeout).is_ok())
        {
            return Facts::of(&user.spec);
        }
    }
    // The ExtensionService does not exist or is not judged yet. The current facts are kept, so that an ExtensionService with the same facts
    // causes no rollout.
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
        .map(|existing| existing.persisted.pinned.clone())
        .unwrap_or_default()
}

/// Returns the name of the planned stand-in and its salt. The name of a retired or terminating stand-in is never planned again. The next
/// salt leads to another name.
pub fn name(
    observed: &Observed,
    owner: &Owner,
    existing: &[Existing<'_>],
    role: Role,
    home: &str,
    facts: &Facts,
) -> (String, u32) {
    let existing: Vec<_> = existing.iter().filter(|existing| existing.role == role).collect();
    let highest = existing
        .iter()
        .map(|existing| existing.persisted.salt)
        .max()
        .unwrap_or_default();
    let is_spent = |name: &String| {
        existing.iter().any(|existing| {
            existing.id() == NamespacedName::new(home, &**name)
                && (existing.persisted.retired || existing.object.is_terminating())
        }) || observed
            .object(Kind::Service, home, name)
            .is_some_and(Object::is_terminating)
    };
    let named = |salt| (stand_in_name(owner, role, facts, salt), salt);
    let free = salts_from(highest).map(named).find(|(name, _)| !is_spent(name));
    free.unwrap_or_else(|| named(highest))
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

/// Returns the role for which the name of a stand-in was computed from this persisted state. Returns None if the name was not computed from
/// this state.
pub fn proved_role(owner: &Owner, object: &Object, persisted: &PersistedState) -> Option<Role> {
    Role::ALL
        .into_iter()
        .find(|role| stand_in_name(owner, *role, &persisted.pinned, persisted.salt) == object.name())
}

/// Returns the stand-in for this reference that Contour's Deployment currently names.
pub fn current<'e, 'o>(
    observed: &Observed,
    existing: &'e [Existing<'o>],
    reference: &Reference,
) -> Option<&'e Existing<'o>> {
    let deployed = deployed(observed);
    existing.iter().find(|existing| {
        existing.role == reference.role && existing.stands_for(&reference.target) && deployed.contains(&existing.id())
    })
}

/// Returns the stand-ins that Contour's Deployment currently names.
fn deployed(observed: &Observed) -> Vec<NamespacedName> {
    let inputs = Contours::of(observed).deployment.and_then(StartupInputs::of_template);
    inputs.iter().flat_map(StartupInputs::stand_ins).collect()
}
