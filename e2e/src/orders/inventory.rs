//! Everything that an API server holds, and what of it was there before an order began.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::discovery::{ApiGroup, Discovery, verbs};
use kube::{Api, Client, ResourceExt as _};
use serde_json::Value;

use crate::lab::wait;
use crate::orders::masks::End;
use crate::wait::Look;

/// Kinds that are left out: what happened, and who has which cluster address.
const NOT_LISTED: [&str; 2] = ["Event", "IPAddress"];

/// Where Kubernetes keeps things for itself, and changes them as it likes.
const NOT_LOOKED_INTO: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// How long things may take to go, once they have been deleted.
const LEAVING: Duration = Duration::from_mins(1);

/// How many lists are asked for at the same time.
const AT_ONCE: usize = 8;

/// All objects, by what [`key`] makes of each.
pub type Objects = BTreeMap<String, Value>;

/// The kinds of an API server.
pub struct Inventory {
    client: Client,
    kinds: Vec<ApiResource>,
}

impl Inventory {
    /// Asks for the kinds: those that come and go must be there now.
    pub async fn new(client: &Client) -> anyhow::Result<Self> {
        let discovery = Discovery::new(client.clone()).run_aggregated().await;
        let discovery = discovery.context("asking for the kinds of the cluster")?;
        // Not `recommended_resources`: see `leftovers`.
        let kinds = discovery.groups().flat_map(ApiGroup::resources_by_stability);
        let kinds = kinds
            .filter(|(kind, can)| can.supports_operation(verbs::LIST) && !NOT_LISTED.contains(&kind.kind.as_str()))
            .map(|(kind, _)| kind);
        Ok(Self {
            client: client.clone(),
            kinds: kinds.collect(),
        })
    }

    /// Everything that is there now.
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
            // A kind that is not there now.
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

/// What an API server holds before an order begins, and must hold again after it.
pub struct Beginning {
    inventory: Inventory,
    names: BTreeSet<String>,
}

impl Beginning {
    /// What is there now, once nothing is on its way out.
    pub async fn now(inventory: Inventory) -> anyhow::Result<Self> {
        // What the API server says of the groups of Contour's CRDs (`APIService`s) goes after them, without a word.
        let names = wait("nothing is on its way out, and nothing of Contour's is left", LEAVING)
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

    /// Everything that was not there in the beginning.
    pub async fn end(&self) -> anyhow::Result<End> {
        Ok(End::of(self.inventory.objects().await?, &self.names))
    }

    /// Fails unless there is what was there in the beginning, and nothing else.
    pub async fn is_now(&self) -> anyhow::Result<()> {
        let differences = self.differences().await?;
        ensure!(
            differences.is_empty(),
            "the order does not begin with nothing: {differences:?}"
        );
        Ok(())
    }

    /// Waits until it is as it was.
    pub async fn is_again(&self) -> anyhow::Result<()> {
        wait("everything is as it was in the beginning", LEAVING)
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

/// `Kind.group namespace/name`; two groups here have kinds of the same name.
fn key(kind: &ApiResource, object: &DynamicObject) -> String {
    let dot = if kind.group.is_empty() { "" } else { "." };
    let place = object.namespace().map_or_else(String::new, |namespace| namespace + "/");
    format!("{}{dot}{} {place}{}", kind.kind, kind.group, object.name_any())
}
