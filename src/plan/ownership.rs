//! Ownership of objects, and the objects that Slipway trusts. Everyone with write access to an object can write labels, annotations, names
//! and finalizers. The deciding facts are the place of an object and the references to it from places that only Slipway and the
//! administrators of the ContourDeployment's namespace can write.
//!
//! - **Hold** (do not delete): `usage`, only in the ContourDeployment's namespace.
//! - **Believe** (create, repair, follow, report): the objects that this file classifies as Slipway's.
//! - **Prune**: Slipway's objects that are no longer desired, and the leftovers of this file. Slipway deletes no other object.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::object::{Key, Kind, Object, Owner};
use super::observed::Observed;
use super::stand_in;
use super::startup_inputs::{Contours, StartupInputs, references};
use crate::api::RuntimeSettings;

/// The relation of an object to a ContourDeployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The object belongs to Slipway.
    Ours,
    /// The object has Slipway's marks and a name of Slipway's pattern, in a namespace that nothing of Slipway's references. The object is a
    /// leftover of an earlier plan, or another user's imitation of one. Slipway deletes it and trusts nothing in it.
    Leftover,
    /// The object belongs to another user, whatever its marks are.
    Foreign,
}

/// The observed state, with the objects classified.
pub struct Classified {
    /// The observed state, with only Slipway's objects.
    pub observed: Observed,
    /// The objects with Slipway's marks and a name of Slipway's pattern, in namespaces that nothing of Slipway's references.
    leftovers: BTreeMap<Key, Arc<Object>>,
}

impl Classified {
    /// Returns Slipway's objects and, if `with_leftovers` is true, the leftovers.
    pub fn objects(&self, with_leftovers: bool) -> impl Iterator<Item = &Object> {
        let leftovers = self.leftovers.values().filter(move |_| with_leftovers);
        self.observed.objects.values().chain(leftovers).map(AsRef::as_ref)
    }

    /// Reports whether this object is one of the leftovers.
    pub fn is_leftover(&self, object: &Object) -> bool {
        self.leftovers.contains_key(&object.key())
    }
}

/// Classifies the observed objects.
pub fn classify(observed: &Observed) -> Classified {
    let owner = observed.owner();
    let settings = &observed.deployment.spec.runtime_settings;
    let namespaces = namespaces(&owner, settings, observed.objects.values().map(AsRef::as_ref));
    let (mut ours, mut leftovers) = (BTreeMap::new(), BTreeMap::new());
    for (key, object) in &observed.objects {
        match standing(&owner, &namespaces, object) {
            Standing::Ours => drop(ours.insert(key.clone(), object.clone())),
            Standing::Leftover => drop(leftovers.insert(key.clone(), object.clone())),
            Standing::Foreign => {}
        }
    }
    let observed = Observed {
        objects: ours,
        ..observed.clone()
    };
    Classified { observed, leftovers }
}

/// Returns the objects that belong to Slipway.
pub fn of<'a>(
    owner: &Owner,
    settings: &RuntimeSettings,
    objects: &'a BTreeMap<Key, Arc<Object>>,
) -> impl Iterator<Item = &'a Object> {
    let objects = || objects.values().map(AsRef::as_ref);
    let (owner, namespaces) = (owner.clone(), namespaces(owner, settings, objects()));
    objects().filter(move |object| standing(&owner, &namespaces, object) == Standing::Ours)
}

/// Returns the namespaces that may contain Slipway's stand-ins: the ContourDeployment's own, those that the spec references, and those that
/// a pod template of Slipway's Deployment references.
pub fn namespaces<'a>(
    owner: &Owner,
    settings: &RuntimeSettings,
    objects: impl Iterator<Item = &'a Object> + Clone,
) -> BTreeSet<String> {
    let contours = Contours::among(owner, objects);
    let inputs = contours.templates().filter_map(StartupInputs::of_template);
    let proved = inputs.filter(|inputs| inputs.is_intact(owner));
    let inputs = proved.flat_map(|inputs| references(&inputs.spec));
    let specified = stand_in::references(settings).into_iter();
    let specified = specified.map(|reference| reference.target);
    let referenced = specified.chain(inputs).map(|referenced| referenced.namespace);
    referenced.chain([owner.namespace.clone()]).collect()
}

fn standing(owner: &Owner, namespaces: &BTreeSet<String>, object: &Object) -> Standing {
    if object.kind == Kind::ClusterRoleBinding {
        return ours_if(object.name() == owner.contour_cluster_binding() && owner.owns(object));
    }
    if object.namespace() == owner.namespace {
        return ours_if(owner.owns(object));
    }
    // In other namespaces, Slipway creates only stand-ins, trials and blackholes.
    let may_be_there =
        matches!(object.kind, Kind::ExtensionService | Kind::Service) && owner.is_stand_in(object.name());
    if !may_be_there {
        return Standing::Foreign;
    }
    if namespaces.contains(object.namespace()) {
        return ours_if(owner.owns(object));
    }
    if owner.is_named_by(object) {
        Standing::Leftover
    } else {
        Standing::Foreign
    }
}

fn ours_if(is_ours: bool) -> Standing {
    if is_ours { Standing::Ours } else { Standing::Foreign }
}

#[cfg(test)]
mod tests;
