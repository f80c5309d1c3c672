//! The objects that are left of a ContourDeployment anywhere in the cluster.

use std::collections::BTreeSet;

use anyhow::Context as _;
use kube::api::{ApiResource, DynamicObject, ListParams, ObjectMeta};
use kube::discovery::{ApiGroup, Discovery, verbs};
use kube::{Api, Client};

use crate::edge::{COMPONENT, Component, Edge, OWNER_NAME, OWNER_NAMESPACE};

/// Returns every object of every kind that belongs to `edge`, as `kind namespace/name`, the ContourDeployment included.
///
/// An object belongs to `edge` if it has the edge's labels. An object without the labels belongs to `edge` if only Slipway gives
/// such a name, so objects that lost their labels are found too. The result excludes Events, and terminating Envoy pods, which
/// may drain for minutes.
pub async fn of(client: &Client, edge: &Edge) -> anyhow::Result<BTreeSet<String>> {
    Ok(of_each(client, &[edge]).await?.remove(0))
}

/// Returns the same as [`of`] for several edges, one set for each.
pub async fn of_each(client: &Client, edges: &[&Edge]) -> anyhow::Result<Vec<BTreeSet<String>>> {
    let mut left = vec![BTreeSet::new(); edges.len()];
    for kind in listable_kinds(client).await? {
        if kind.kind == "Event" {
            continue;
        }
        let objects = Api::<DynamicObject>::all_with(client.clone(), &kind);
        let list = match objects.list_metadata(&ListParams::default()).await {
            Ok(list) => list,
            // The kind was deleted meanwhile, or can be listed only under some condition.
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
    Ok(left)
}

/// Returns all kinds of the cluster whose objects can be listed.
pub async fn listable_kinds(client: &Client) -> anyhow::Result<Vec<ApiResource>> {
    let discovery = Discovery::new(client.clone())
        // The aggregated discovery needs two requests. With a request for each group, a group deleted meanwhile would be an error.
        .run_aggregated()
        .await
        .context("discovering the kinds of the cluster")?;
    // `recommended_resources` has only the resources of a group's preferred version. ExtensionServices and ContourConfigurations are not in
    // the preferred version of Contour's group.
    let kinds = discovery.groups().flat_map(ApiGroup::resources_by_stability);
    let listable = kinds.filter(|(_, capabilities)| capabilities.supports_operation(verbs::LIST));
    Ok(listable.map(|(kind, _)| kind).collect())
}

fn belongs(kind: &str, object: &ObjectMeta, edge: &Edge) -> bool {
    let label = |key: &str| {
        object
            .labels
            .as_ref()
            .and_then(|labels| labels.get(key))
            .map(String::as_str)
    };
    // An object with both labels belongs only to the edge that the labels name.
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
        " (terminating)"
    } else {
        ""
    };
    match &object.namespace {
        Some(namespace) => format!("{kind} {namespace}/{name}{ending}"),
        None => format!("{kind} {name}{ending}"),
    }
}
