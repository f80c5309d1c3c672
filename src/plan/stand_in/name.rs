//! Which stand-in is planned for a reference: where it lives, which facts its name promises, and its name.

use super::evidence::Evidence;
use super::{Existing, Facts, PersistedState, Reference};
use crate::api::Role;
use crate::contour::duration;
use crate::plan::names::{hash, salts_from};
use crate::plan::object::{Kind, NamespacedName, Object, Owner};
use crate::plan::observed::{NamespacePhase, Observed};
use crate::plan::rollout;
use crate::plan::startup_inputs::{Contours, StartupInputs};

/// Where the planned stand-in lives: beside the user's object, or, while that namespace is absent or being deleted (nothing
/// can be made in it then), beside the ContourDeployment.
pub fn home(observed: &Observed, reference: &Reference, owner: &Owner) -> String {
    match observed.namespace(&reference.target.namespace) {
        Some(NamespacePhase::Active) => reference.target.namespace.clone(),
        Some(NamespacePhase::Terminating) | None => owner.namespace.clone(),
    }
}

/// The facts that Contour captures, and that the planned stand-in's name therefore contains.
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
        // Nobody runs on other facts yet, so a guess costs nothing and spares a rollout right after the installation. Facts
        // that are no Go durations would stop Contour.
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
        .map(|existing| existing.persisted.pinned.clone())
        .unwrap_or_default()
}

/// The planned stand-in's name and its salt. A name that is retired or on its way out is never planned again: the next salt
/// makes another.
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

/// The role for which the name of a stand-in was made from this memory, if it was made from it.
pub fn proved_role(owner: &Owner, object: &Object, persisted: &PersistedState) -> Option<Role> {
    Role::ALL
        .into_iter()
        .find(|role| stand_in_name(owner, *role, &persisted.pinned, persisted.salt) == object.name())
}

/// The stand-in for this reference that Contour's Deployment names now.
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

/// The stand-ins that Contour's Deployment names now.
fn deployed(observed: &Observed) -> Vec<NamespacedName> {
    let inputs = Contours::of(observed).deployment.and_then(StartupInputs::of_template);
    inputs.iter().flat_map(StartupInputs::stand_ins).collect()
}
