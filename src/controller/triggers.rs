//! Maps the changes that a watch has received to the ContourDeployments that depend on them. A superfluous wake-up is harmless, a missing
//! one is not. If a change does not identify the ContourDeployments, all candidates are woken.
//!
//! Nothing else wakes a ContourDeployment, except its requeue time. For each part of [`crate::plan::Observed`],
//! docs/decisions/0016-one-cache.md names the event that wakes for it.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::api::DynamicObject;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc;

use super::cache::{Cache, Scope, StoreId, Touched};
use super::interest::Interest;
use super::watches;
use super::{Context, reference};
use crate::plan::{Key, Kind, NamespacedName};

/// Forwards changes as names of ContourDeployments until the receiver is gone.
pub async fn relay(
    context: Arc<Context>,
    mut touched: mpsc::UnboundedReceiver<Touched>,
    trigger: mpsc::UnboundedSender<ObjectRef<DynamicObject>>,
) {
    while let Some(touched) = touched.recv().await {
        for whose in wake(&context, &touched) {
            if trigger.send(reference(&whose)).is_err() {
                return;
            }
        }
    }
}

/// Executes immediate reactions, and records the woken ContourDeployments.
pub fn wake(context: &Context, touched: &Touched) -> BTreeSet<NamespacedName> {
    match touched.set.kind {
        Kind::CustomResourceDefinition => context.watches.follow_crds(),
        kind if watches::is_policy(kind) => context.count_policies(),
        _ => {}
    }
    let mut woken = concerned(&context.cache, &context.watches.interest(), touched);
    woken.retain(|whose| {
        let key = Key::new(Kind::ContourDeployment, &whose.namespace, &whose.name);
        let is_there = context.cache.get(&StoreId::all(key.kind), &key).is_some();
        if is_there {
            context.agenda.wake(whose);
        } else if touched.set.kind == key.kind {
            context.forget(whose);
        }
        is_there
    });
    woken
}

/// Returns the ContourDeployments that depend on these changes.
fn concerned(cache: &Cache, interest: &Interest, touched: &Touched) -> BTreeSet<NamespacedName> {
    let set = &touched.set;
    let all = || cache.all(&StoreId::all(Kind::ContourDeployment));
    let everybody = || all().iter().map(|object| object.id()).collect();
    let mut woken = BTreeSet::new();
    if touched.is_first_read {
        match set.scope {
            Scope::All | Scope::Owned => return everybody(),
            Scope::AllIn(_) | Scope::OwnedIn(_) => woken.extend(interest.needing(set).cloned()),
        }
    }
    for change in &touched.changes {
        match set.kind {
            Kind::ContourDeployment => drop(woken.insert(NamespacedName::new(&*change.namespace, &*change.name))),
            Kind::CustomResourceDefinition
            | Kind::ValidatingAdmissionPolicy
            | Kind::ValidatingAdmissionPolicyBinding => return everybody(),
            Kind::Namespace => {
                let objects = all().into_iter();
                let inside = objects.filter(|object| object.namespace() == change.name);
                woken.extend(inside.map(|object| object.id()).chain(interest.around(&change.name)));
            }
            _ => {
                woken.extend(change.owners.iter().cloned());
                if change.is_nobodys {
                    woken.extend(interest.needing(set).cloned());
                } else {
                    woken.extend(interest.asking(set, &change.name).cloned());
                }
            }
        }
    }
    woken
}

#[cfg(test)]
mod tests;
