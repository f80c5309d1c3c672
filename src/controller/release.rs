//! `slipway release`: removes Slipway's finalizers if no operator exists to remove them. For example, if a user uninstalls the operator
//! before the ContourDeployments, then the ContourDeployments and the namespaces with stand-ins stay in Terminating.
//!
//! The command makes no plan. The operator would remove the finalizers in an order that keeps HTTPS hosts. The command removes them at
//! once.

use std::collections::BTreeSet;

use kube::Client;

use super::cache::owner;
use super::client::{self, Effect, Error};
use crate::plan::{Kind, NamespacedName, Object, Target};

/// The ContourDeployments whose objects are released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// ContourDeployments that are being deleted or do not exist.
    Ended,
    /// All ContourDeployments.
    Everybodys,
}

/// Returns the objects with Slipway's finalizer that may be released, in the operator's order: stand-ins, blackholes, ContourDeployments.
///
/// Errors: a list failed. A kind that the API server does not serve has no objects.
pub async fn held(client: &Client, whose: Whose) -> Result<Vec<Target>, Error> {
    let deployments = all(client, Kind::ContourDeployment).await?;
    let running: BTreeSet<NamespacedName> = deployments
        .iter()
        .filter(|deployment| !deployment.is_terminating())
        .map(Object::id)
        .collect();
    let is_ended = |object: &Object| {
        let named = if object.kind == Kind::ContourDeployment {
            Some(object.id())
        } else {
            owner(object)
        };
        // An object without labels may belong to anyone.
        named.map_or(running.is_empty(), |name| !running.contains(&name))
    };
    let mut held = all(client, Kind::ExtensionService).await?;
    held.extend(all(client, Kind::Service).await?);
    held.extend(deployments);
    Ok(held
        .iter()
        .filter(|object| object.has_our_finalizer() && (whose == Whose::Everybodys || is_ended(object)))
        .map(Target::of)
        .collect())
}

/// Removes Slipway's finalizer from an object, unless the object has changed since the list. An object that does not exist is no error.
///
/// Errors: the API server refuses the change.
pub async fn release(client: &Client, target: &Target) -> Result<(), Error> {
    match client::set_finalizer(client, target, false, Effect::Stored).await {
        Err(error) if error.code() != 404 => Err(error),
        _ => Ok(()),
    }
}

async fn all(client: &Client, kind: Kind) -> Result<Vec<Object>, Error> {
    match client::list(client, kind, "", "").await {
        Err(error) if error.code() == 404 => Ok(Vec::new()),
        listed => listed,
    }
}
