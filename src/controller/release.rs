//! `slipway release`: takes our finalizers away where no operator is there any more to do it. It was uninstalled before the
//! ContourDeployments were deleted, say, and they and the namespaces with stand-ins in them hang in Terminating.
//!
//! It makes no plan: what an operator would do in an order that keeps HTTPS hosts, is done here at once.

use std::collections::BTreeSet;

use kube::Client;

use super::cache::owner;
use super::client::{self, Error};
use crate::plan::{Kind, NamespacedName, Object, Target};

/// Whose objects are let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Those of ContourDeployments that are being deleted or gone.
    Ended,
    /// Those of all ContourDeployments.
    Everybodys,
}

/// What is held by our finalizer and may be let go, in the order in which an operator would let it go: stand-ins, blackholes,
/// ContourDeployments.
///
/// Errors: something could not be listed. A kind that the API server does not serve holds nothing.
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
        // One that lost its labels may be anybody's.
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

/// Takes our finalizer off an object, unless it changed since it was listed; one that is gone is fine.
///
/// Errors: the API server refuses it.
pub async fn release(client: &Client, target: &Target) -> Result<(), Error> {
    match client::set_finalizer(client, target, false).await {
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
