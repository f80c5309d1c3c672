//! Everything that an API server holds.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::discovery::{ApiGroup, Discovery, verbs};
use kube::{Api, Client, ResourceExt as _};
use serde_json::Value;

/// Kinds that are left out: what happened, and who has which cluster address.
const NOT_LISTED: [&str; 2] = ["Event", "IPAddress"];

/// Where Kubernetes keeps things for itself, and changes them as it likes.
const NOT_LOOKED_INTO: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

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

    /// The names of everything that is there now.
    pub async fn names(&self) -> anyhow::Result<BTreeSet<String>> {
        Ok(self.objects().await?.into_keys().collect())
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

/// `Kind.group namespace/name`; two groups here have kinds of the same name.
fn key(kind: &ApiResource, object: &DynamicObject) -> String {
    let dot = if kind.group.is_empty() { "" } else { "." };
    let place = object.namespace().map_or_else(String::new, |namespace| namespace + "/");
    format!("{}{dot}{} {place}{}", kind.kind, kind.group, object.name_any())
}
