//! What is left of a ContourDeployment anywhere in the cluster.

use std::collections::BTreeSet;

use anyhow::Context as _;
use kube::api::{DynamicObject, ListParams, ObjectMeta};
use kube::discovery::{Discovery, verbs};
use kube::{Api, Client};

use crate::edge::{COMPONENT, Component, Edge, OWNER_NAME, OWNER_NAMESPACE};

/// Every object of every kind that belongs to `edge`, as `kind namespace/name`, itself included.
///
/// An object belongs to it if it has its labels, or a name that only Slipway gives (so that one that lost its labels is
/// found too). Left out are Envoy pods that are ending, which may drain for minutes, and Events.
pub async fn of(client: &Client, edge: &Edge) -> anyhow::Result<BTreeSet<String>> {
    Ok(of_each(client, &[edge]).await?.remove(0))
}

/// The same of several, of each by itself.
pub async fn of_each(client: &Client, edges: &[&Edge]) -> anyhow::Result<Vec<BTreeSet<String>>> {
    let discovery = Discovery::new(client.clone())
        // Two requests; with one for each group a group that goes meanwhile would be an error.
        .run_aggregated()
        .await
        .context("asking for the kinds of the cluster")?;
    let mut left = vec![BTreeSet::new(); edges.len()];
    for group in discovery.groups() {
        // Not `recommended_resources`: they are those of the group's preferred version, and Contour's is not the one of
        // ExtensionServices and ContourConfigurations.
        for (kind, capabilities) in group.resources_by_stability() {
            if kind.kind == "Event" || !capabilities.supports_operation(verbs::LIST) {
                continue;
            }
            let objects = Api::<DynamicObject>::all_with(client.clone(), &kind);
            let list = match objects.list_metadata(&ListParams::default()).await {
                Ok(list) => list,
                // A kind that has just gone, or that is only listed on some condition.
                Err(kube::Error::Api(status)) if [404, 405].contains(&status.code) => continue,
                Err(error) => return Err(error).with_context(|| format!("listing {}", kind.plural)),
            };
            for object in list {
                for (edge, left) in edges.iter().zip(&mut left) {
                    if belongs(&kind.kind, &object.metadata, edge) && !is_draining(&kind.kind, &object.metadata) {
                        left.insert(described(&kind.kind, &object.metadata));
                    }
                }
            }
        }
    }
    Ok(left)
}

fn belongs(kind: &str, object: &ObjectMeta, edge: &Edge) -> bool {
    let label = |key: &str| {
        object
            .labels
            .as_ref()
            .and_then(|labels| labels.get(key))
            .map(String::as_str)
    };
    // What says whose it is by both labels is nobody else's.
    if let (Some(name), Some(namespace)) = (label(OWNER_NAME), label(OWNER_NAMESPACE)) {
        return (name, namespace) == (edge.name(), edge.namespace());
    }
    let name = object.name.as_deref().unwrap_or_default();
    let own = object.namespace.as_deref() == Some(edge.namespace());
    match name.strip_prefix(edge.name()) {
        Some("") => own && kind == "ContourDeployment",
        // A stand-in is in the namespace of its service.
        Some(rest)
            if ["-ext-auth-", "-rate-limit-", "-tracing-"]
                .iter()
                .any(|role| rest.starts_with(role)) =>
        {
            true
        }
        Some(rest) => own && rest.starts_with('-'),
        None => name.starts_with(&format!("slipway:{}:{}:", edge.namespace(), edge.name())),
    }
}

fn is_draining(kind: &str, object: &ObjectMeta) -> bool {
    let component = object.labels.as_ref().and_then(|labels| labels.get(COMPONENT));
    kind == "Pod"
        && object.deletion_timestamp.is_some()
        && component.is_some_and(|component| component == Component::Envoy.label())
}

fn described(kind: &str, object: &ObjectMeta) -> String {
    let name = object.name.as_deref().unwrap_or_default();
    let ending = if object.deletion_timestamp.is_some() {
        " (ending)"
    } else {
        ""
    };
    match &object.namespace {
        Some(namespace) => format!("{kind} {namespace}/{name}{ending}"),
        None => format!("{kind} {name}{ending}"),
    }
}
