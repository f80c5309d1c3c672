//! Contour (v1.33) can leave a verdict on an object that is about another one, which had its name before. It finds what it writes
//! to by name alone (`internal/k8s/status.go`), so that the verdict on an object that is deleted and made again just then lands on
//! the new one; and it takes its own verdict on that for stale until the generation has caught up
//! (`internal/status/extensionstatus.go`). The new object is never judged. So a copy of it is, a trial: an ExtensionService that
//! nothing references, of a name that nothing had before.

use serde_json::{Map, Value};

use crate::api::contour::ExtensionService;
use crate::plan::object::{Kind, NamespacedName, Object, Owner};
use crate::plan::observed::Observed;
use crate::plan::write::Desired;

/// The trial of the user's object in its present form, if it needs one and that exists.
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

/// The trial of the user's object, if it needs one.
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

/// Whether Contour never judges this object of the user's, which could be copied.
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
