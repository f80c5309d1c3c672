//! All objects of an API server, and the set of those that existed before an order began.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::Value;

use crate::lab::wait;
use crate::leftovers;
use crate::orders::masks::FinalState;
use crate::wait::Look;

/// The kinds that are excluded: Events, and the owners of cluster addresses.
const NOT_LISTED: [&str; 2] = ["Event", "IPAddress"];

/// Kubernetes' own namespaces, whose objects change at any time.
const NOT_LOOKED_INTO: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// The time limit for deletions to complete.
const LEAVING: Duration = Duration::from_mins(1);

/// The number of concurrent list requests.
const AT_ONCE: usize = 8;

/// All objects by their [`key`].
pub type Objects = BTreeMap<String, Value>;

/// The kinds of an API server that can be listed.
pub struct Inventory {
    client: Client,
    kinds: Vec<ApiResource>,
}

impl Inventory {
    /// Discovers the kinds. Kinds that are deleted and recreated later must exist now.
    pub async fn new(client: &Client) -> anyhow::Result<Self> {
        let mut kinds = leftovers::listable_kinds(client).await?;
        kinds.retain(|kind| !NOT_LISTED.contains(&kind.kind.as_str()));
        Ok(Self {
            client: client.clone(),
            kinds,
        })
    }

    /// Lists all objects.
    pub async fn objects(&self) -> anyhow::Result<Objects> {
        let lists = self.kinds.iter().map(|kind| self.of_kind(kind));
        let lists: Vec<_> = futures::stream::iter(lists)
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        Ok(lists.into_iter().flatten().collect())
    }

    async fn of_kind(&self, kind: &ApiResource) -> anyhow::Result<Vec<(String, Value)>> {
        let api = Api::<DynamicObject>::all_with(self.client.clone(), kind);
        let list = match api.list(&ListParams::default()).await {
            Ok(list) => list,
            // The kind does not exist at the moment.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("listing {}", kind.plural)),
        };
        let objects = list.items.into_iter().filter(|object| {
            object
                .namespace()
                .is_none_or(|namespace| !NOT_LOOKED_INTO.contains(&namespace.as_str()))
        });
        objects
            .map(|object| Ok((key(kind, &object), serde_json::to_value(object)?)))
            .collect()
    }
}

/// The objects of an API server before an order begins. The same objects must exist after the order.
pub struct InitialState {
    inventory: Inventory,
    names: BTreeSet<String>,
}

impl InitialState {
    /// Waits until no deletion is in progress, and records the objects that exist then.
    pub async fn record(inventory: Inventory) -> anyhow::Result<Self> {
        // The `APIService`s of Contour's API groups are deleted after Contour's CRDs, without a deletion timestamp.
        let names = wait(
            "no deletion is in progress, and no object of Contour's API groups is left",
            LEAVING,
        )
        .until(async || {
            let objects = inventory.objects().await?;
            let is_leaving = |name: &str, object: &Value| {
                name.contains("projectcontour.io") || !object["metadata"]["deletionTimestamp"].is_null()
            };
            let leaving = objects.iter().filter(|(name, object)| is_leaving(name, object));
            let leaving: Vec<_> = leaving.map(|(name, _)| name.clone()).collect();
            Ok(if leaving.is_empty() {
                Look::Reached(objects.into_keys().collect::<BTreeSet<_>>())
            } else {
                Look::NotYet(leaving.join(", "))
            })
        })
        .await?;
        Ok(Self { inventory, names })
    }

    /// Returns all objects that did not exist at the beginning.
    pub async fn end(&self) -> anyhow::Result<FinalState> {
        Ok(FinalState::of(self.inventory.objects().await?, &self.names))
    }

    /// Returns an error unless exactly the objects of the beginning exist.
    pub async fn check(&self) -> anyhow::Result<()> {
        let differences = self.differences().await?;
        ensure!(
            differences.is_empty(),
            "the order does not start from the initial state: {differences:?}"
        );
        Ok(())
    }

    /// Waits until exactly the objects of the beginning exist.
    pub async fn wait_until_restored(&self) -> anyhow::Result<()> {
        wait("the initial state is restored", LEAVING)
            .until(async || {
                let differences = self.differences().await?;
                Ok(Look::when(differences.is_empty(), format!("{differences:?}")))
            })
            .await
    }

    async fn differences(&self) -> anyhow::Result<Vec<String>> {
        let now: BTreeSet<_> = self.inventory.objects().await?.into_keys().collect();
        Ok(now.symmetric_difference(&self.names).cloned().collect())
    }
}

/// Returns `Kind.group namespace/name`. The group is part of the key because two groups have kinds of the same name.
fn key(kind: &ApiResource, object: &DynamicObject) -> String {
    let dot = if kind.group.is_empty() { "" } else { "." };
    let place = object.namespace().map_or_else(String::new, |namespace| namespace + "/");
    format!("{}{dot}{} {place}{}", kind.kind, kind.group, object.name_any())
}
