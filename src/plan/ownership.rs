//! What is ours, and whose word counts. Labels, annotations, names and finalizers can be written by anybody who may write the
//! object; what decides is where an object stands, and what refers to it from a place that only we and the administrators of the
//! ContourDeployment's namespace can write.
//!
//! - **Hold** (not taken away): `usage`, in the ContourDeployment's namespace alone.
//! - **Believe** (created, repaired, followed, told of): what this file sorts as ours.
//! - **Prune**: what is ours and no longer wanted, and the leftovers of this file. Nothing else is ever deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::object::{Key, Kind, Object, Owner};
use super::observed::Observed;
use super::stand_in;
use super::startup_inputs::{Contours, StartupInputs, references};
use crate::api::RuntimeSettings;

/// What an object is to a ContourDeployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is ours.
    Ours,
    /// It bears our marks and a name of our own pattern, in a namespace that nothing of ours refers to: it is what an earlier plan left
    /// behind, or somebody's imitation of that. It goes, and nothing that is written on it counts.
    Leftover,
    /// It is somebody else's, whatever it says.
    Foreign,
}

/// What is observed, classified.
pub struct Classified {
    /// The same, with nothing among its objects but what is ours.
    pub observed: Observed,
    /// What bears our marks and a name of our own pattern in namespaces that nothing of ours refers to.
    leftovers: BTreeMap<Key, Arc<Object>>,
}

impl Classified {
    /// What is ours; and the leftovers, if these are asked for.
    pub fn objects(&self, with_leftovers: bool) -> impl Iterator<Item = &Object> {
        let leftovers = self.leftovers.values().filter(move |_| with_leftovers);
        self.observed.objects.values().chain(leftovers).map(AsRef::as_ref)
    }

    /// Whether this is one of the leftovers.
    pub fn is_leftover(&self, object: &Object) -> bool {
        self.leftovers.contains_key(&object.key())
    }
}

/// Sorts what is observed.
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

/// What of these objects is ours.
pub fn of<'a>(
    owner: &Owner,
    settings: &RuntimeSettings,
    objects: &'a BTreeMap<Key, Arc<Object>>,
) -> impl Iterator<Item = &'a Object> {
    let objects = || objects.values().map(AsRef::as_ref);
    let (owner, namespaces) = (owner.clone(), namespaces(owner, settings, objects()));
    objects().filter(move |object| standing(&owner, &namespaces, object) == Standing::Ours)
}

/// The namespaces in which stand-ins of ours may be: the ContourDeployment's, those that the specification references, and those
/// that a pod template of our own Deployment references.
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
    // Elsewhere there are stand-ins and trials, and blackholes.
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
