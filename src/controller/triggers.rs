//! From what a watch saw to the ContourDeployments that it may matter to. Too many is harmless: a reconcile that finds nothing
//! to do makes no request.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::api::DynamicObject;
use kube::runtime::reflector::ObjectRef;
use serde_json::Value;
use tokio::sync::mpsc;

use super::Context;
use super::cache::{Cache, StoreId, Touched, owner};
use super::watches;
use crate::api::Role;
use crate::plan::{Kind, NamespacedName, Object};

/// Passes on what the watches saw, as names of ContourDeployments, until nobody listens any more.
pub async fn relay(
    context: Arc<Context>,
    mut touched: mpsc::UnboundedReceiver<Touched>,
    trigger: mpsc::UnboundedSender<ObjectRef<DynamicObject>>,
) {
    while let Some(touched) = touched.recv().await {
        let crds = match &touched {
            Touched::Object { key, .. } => key.kind == Kind::CustomResourceDefinition,
            Touched::Everything => true,
            Touched::Namespace(_) | Touched::Nothing => false,
        };
        if crds {
            context.watches.follow_crds();
        }
        let policies = match &touched {
            Touched::Object { key, .. } => watches::is_policy(key.kind),
            Touched::Everything => true,
            Touched::Namespace(_) | Touched::Nothing => false,
        };
        if policies {
            context.count_policies();
        }
        if let Touched::Object { key, .. } = &touched
            && key.kind == Kind::ContourDeployment
            && context.cache.get(&StoreId::all(key.kind), key).is_none()
        {
            context.forget(&NamespacedName::new(&*key.namespace, &*key.name));
            continue;
        }
        for NamespacedName { namespace, name } in concerned(&context.cache, &touched) {
            let reference = ObjectRef::new_with(&name, watches::resource(Kind::ContourDeployment)).within(&namespace);
            if trigger.send(reference).is_err() {
                return;
            }
        }
    }
}

/// The ContourDeployments that this may matter to.
fn concerned(cache: &Cache, touched: &Touched) -> BTreeSet<NamespacedName> {
    let all = || cache.all(&StoreId::all(Kind::ContourDeployment));
    match touched {
        Touched::Nothing => BTreeSet::new(),
        Touched::Everything => all().iter().map(|object| object.id()).collect(),
        Touched::Namespace(namespace) => concerned_by(cache, namespace),
        Touched::Object { key, owners } => {
            let place = match key.kind {
                Kind::CustomResourceDefinition
                | Kind::ValidatingAdmissionPolicy
                | Kind::ValidatingAdmissionPolicyBinding => {
                    return all().iter().map(|object| object.id()).collect();
                }
                Kind::Namespace => Some(&key.name),
                Kind::ExtensionService | Kind::Service | Kind::EndpointSlice => Some(&key.namespace),
                _ => None,
            };
            let around = place.map(|place| concerned_by(cache, place)).unwrap_or_default();
            owners.union(&around).cloned().collect()
        }
    }
}

/// The ContourDeployments that are in this namespace, refer to it, or have stand-ins in it.
fn concerned_by(cache: &Cache, namespace: &str) -> BTreeSet<NamespacedName> {
    let refers = |object: &&Arc<Object>| {
        object.namespace() == namespace || references(object).any(|referenced| referenced == namespace)
    };
    let deployments = cache.all(&StoreId::all(Kind::ContourDeployment));
    let referring = deployments.iter().filter(refers).map(|object| object.id());
    referring.chain(stand_ins_in(cache, namespace)).collect()
}

fn references(object: &Object) -> impl Iterator<Item = String> {
    let settings = object.at("/spec/runtimeSettings").and_then(Value::as_object);
    settings.into_iter().flat_map(|settings| {
        let references = Role::ALL.into_iter().filter_map(|role| role.referenced(settings));
        references.map(|(namespace, _)| namespace)
    })
}

/// Whose stand-ins are in this namespace: an old one goes on following its service after the specification has moved on.
fn stand_ins_in<'a>(cache: &Cache, namespace: &'a str) -> impl Iterator<Item = NamespacedName> + use<'a> {
    let stand_ins = cache.all(&StoreId::owned(Kind::ExtensionService));
    stand_ins
        .into_iter()
        .filter(move |object| object.namespace() == namespace)
        .filter_map(|object| owner(&object))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::references;
    use crate::plan::{Kind, Object};

    #[test]
    fn every_role_s_namespace_is_found() {
        let object = Object::from_json(
            Kind::ContourDeployment,
            json!({"spec": {"runtimeSettings": {
                "globalExtAuth": {"extensionRef": {"namespace": "a", "name": "x"}},
                "rateLimitService": {"extensionService": {"namespace": "b", "name": "x"}},
                "tracing": {"extensionService": {"namespace": "c", "name": "x"}},
            }}}),
        )
        .expect("an object");
        assert_eq!(references(&object).collect::<Vec<_>>(), ["a", "b", "c"]);
    }
}
