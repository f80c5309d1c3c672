//! Trials: copies of ExtensionServices that Contour never judges. Contour (v1.33) can write a verdict to another object than the verdict is
//! about. Contour finds the object of a verdict by name alone (`internal/k8s/status.go`). So a verdict on an object that is deleted and
//! recreated at the same moment is written to the new object. Contour then treats its own verdict on the new object as stale until the
//! generation has caught up (`internal/status/extensionstatus.go`), and never judges the new object. Slipway therefore creates a copy of
//! the object, the trial: an ExtensionService with an unused name that nothing references.

use serde_json::{Map, Value};

use crate::api::contour::ExtensionService;
use crate::plan::object::{Kind, NamespacedName, Object, Owner};
use crate::plan::observed::Observed;
use crate::plan::write::Desired;

/// Returns the existing trial of the user's ExtensionService in its current form, if the ExtensionService needs a trial.
pub fn of(
    observed: &Observed,
    NamespacedName { namespace, .. }: &NamespacedName,
    user: &ExtensionService,
) -> Option<ExtensionService> {
    let name = name(&observed.owner(), user)?;
    let trial = observed.object(Kind::ExtensionService, namespace, &name)?;
    let trial = trial.parse::<ExtensionService>().ok()?;
    (trial.spec == user.spec).then_some(trial)
}

/// Returns the desired trial of the user's ExtensionService, if the ExtensionService needs a trial.
pub fn desired(
    owner: &Owner,
    NamespacedName { namespace, .. }: &NamespacedName,
    user: &ExtensionService,
) -> Option<Desired> {
    Some(Desired::whole_spec(Object {
        kind: Kind::ExtensionService,
        metadata: owner.metadata(Kind::ExtensionService, namespace, &name(owner, user)?),
        content: Map::from_iter([("spec".to_owned(), Value::Object(user.spec.0.clone()))]),
        creation_entry: None,
    }))
}

/// Reports whether Contour never judges this ExtensionService of the user, although the ExtensionService could be copied.
pub fn needs_one(user: &ExtensionService) -> bool {
    user.has_the_verdict_on_another() && !user.spec.is_too_large()
}

fn name(owner: &Owner, user: &ExtensionService) -> Option<String> {
    let metadata = &user.metadata;
    needs_one(user).then(|| {
        owner.trial(
            metadata.uid.as_deref().unwrap_or_default(),
            metadata.generation.unwrap_or_default(),
        )
    })
}
