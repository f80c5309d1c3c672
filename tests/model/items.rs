//! Objects as numbers. The model stores every state of every object once, together with the values that the checks need. A state
//! of the model contains only the numbers. Values that grow without limit on a real API server stay small here:
//!
//! - A uid is the smallest number that no object and no plan mentions (`Uid`). `uids.rs` renames a uid when a smaller number is
//!   free, except for the uids of ContourConfigurations, which hashes depend on.
//! - A resourceVersion is a hash of the object's content. An object that is changed and changed back is equal to the original
//!   object.
//! - A generation is 1 (as created) or 2 (changed since), and a controller has observed either the current generation or not. The
//!   few generations of the user's ExtensionService and of ContourConfigurations are counted.

use std::sync::Arc;

use rustc_hash::FxHashMap as HashMap;
use serde_json::{Value, json};
use slipway::api::contour::{ExtensionService, Verdict};
use slipway::api::vocabulary::annotations;
use slipway::plan::{Key, Kind, Object};
use xxhash_rust::xxh3::xxh3_128;

use crate::scopes::{ALICE, AUTH, OWNERS};

/// The number of a state of an object. 0: no object.
pub type Id = u32;

/// The number of a key.
pub type KeyId = u32;

/// Identifies one of the objects that existed under a key: the first, the second, …
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid {
    pub key: KeyId,
    pub number: u32,
}

impl Uid {
    pub fn text(self) -> String {
        format!("uid:{}:{}.", self.key, self.number)
    }

    /// Returns the uids that a text mentions, in order.
    pub fn mentioned(text: &str) -> Vec<Self> {
        let mut found: Vec<Self> = text
            .split("uid:")
            .skip(1)
            .filter_map(|rest| {
                let (key, rest) = rest.split_once(':')?;
                let (number, _) = rest.split_once('.')?;
                Some(Self {
                    key: key.parse().ok()?,
                    number: number.parse().ok()?,
                })
            })
            .collect();
        found.dedup();
        found
    }
}

/// Contour's verdict on the current generation of an ExtensionService.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Nothing,
    Valid,
    Invalid(String),
    /// The verdict on a deleted object of the same name. Contour does not replace this verdict.
    OfAnother,
}

/// A state of an object.
#[derive(Clone, Debug)]
pub struct Item {
    pub object: Arc<Object>,
    pub key: KeyId,
    /// All uids that the object mentions.
    pub mentions: Vec<Uid>,
    /// The mentioned uids that are renamed.
    pub renamed: Vec<Uid>,
    /// Whether each renamed uid is the first of its key.
    pub is_plain: bool,
    pub uid: Option<Uid>,
    /// The index of the owner according to the labels.
    pub owner: Option<usize>,
    /// The uids in the owner references.
    pub references: Vec<Uid>,
    /// The spec, as a number.
    pub spec: u32,
    /// For an ExtensionService: the spec without the weights with which Slipway nudges Contour (no spec of the user has a
    /// weight).
    pub unweighted: u32,
    /// For an ExtensionService: the Services and ports that the spec points at.
    pub services: Vec<(KeyId, i64)>,
    /// For a Service: the ports that Contour can use.
    pub ports: Vec<i64>,
    /// For an ExtensionService: Contour's verdict.
    pub said: Said,
    /// For a ContourConfiguration: the ExtensionServices that the spec references.
    pub stand_ins: Vec<KeyId>,
    /// For a pod, a ReplicaSet or a Deployment: the ContourConfiguration that the containers read.
    pub configuration: Option<KeyId>,
    /// The desired number of replicas.
    pub replicas: i64,
    /// Whether a controller has observed the current generation.
    pub is_observed: bool,
    /// The numbers in the status of a workload, or None before a controller has observed the workload.
    pub reported: Option<Replicas>,
    /// For a Service: whether the Service leads to endpoints or to an external name.
    pub has_a_way_out: bool,
}

/// The numbers of replicas in the status of a Deployment or a ReplicaSet. An absent number is -1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replicas {
    pub all: i64,
    pub updated: i64,
    pub ready: i64,
    pub available: i64,
}

impl Replicas {
    fn reported(object: &Object) -> Option<Self> {
        object.at("/status/observedGeneration")?;
        let number = |field: &str| object.at(field).and_then(Value::as_i64).unwrap_or(-1);
        Some(Self {
            all: number("/status/replicas"),
            updated: number("/status/updatedReplicas"),
            ready: number("/status/readyReplicas"),
            available: number("/status/availableReplicas"),
        })
    }
}

impl Item {
    pub fn kind(&self) -> Kind {
        self.object.kind
    }

    pub fn is_terminating(&self) -> bool {
        self.object.is_terminating()
    }
}

/// All items.
#[derive(Default)]
pub struct Items {
    all: Vec<Item>,
    by_content: HashMap<u128, Id>,
    keys: Vec<Key>,
    kinds: Vec<Kind>,
    aside: Vec<bool>,
    by_key: HashMap<Key, KeyId>,
    specs: HashMap<u128, u32>,
}

impl Items {
    pub fn get(&self, id: Id) -> Option<&Item> {
        self.all.get((id as usize).checked_sub(1)?)
    }

    pub fn key(&self, id: KeyId) -> &Key {
        &self.keys[id as usize]
    }

    /// Returns the kind of a key.
    pub fn kind(&self, id: KeyId) -> Kind {
        self.kinds[id as usize]
    }

    /// Reports whether an object of this key can only belong to a tenant, because neither Slipway nor the user has objects there.
    /// Only the operator observes such an object.
    pub fn is_aside(&self, id: KeyId) -> bool {
        self.aside[id as usize]
    }

    pub fn key_id(&mut self, key: &Key) -> KeyId {
        if let Some(id) = self.by_key.get(key) {
            return *id;
        }
        let id = number(self.keys.len());
        self.keys.push(key.clone());
        self.kinds.push(key.kind);
        self.aside.push(is_aside(key));
        self.by_key.insert(key.clone(), id);
        id
    }

    /// Returns the number of a JSON value.
    pub fn spec(&mut self, value: &Value) -> u32 {
        let next = number(self.specs.len());
        *self
            .specs
            .entry(fingerprint(value.to_string().as_bytes()))
            .or_insert(next)
    }

    /// Returns the number of an object. The content of the object determines its resourceVersion.
    pub fn put(&mut self, mut object: Object) -> Id {
        object.metadata.resource_version = None;
        object.creation_entry = None;
        let text = object.to_json().to_string();
        let content = fingerprint(text.as_bytes());
        if let Some(id) = self.by_content.get(&content) {
            return *id;
        }
        object.metadata.resource_version = Some((content & u128::from(u64::MAX)).to_string());
        let item = self.read(object, &text);
        self.all.push(item);
        let id = number(self.all.len());
        self.by_content.insert(content, id);
        id
    }

    /// Returns the number of items.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    fn read(&mut self, object: Object, text: &str) -> Item {
        let key = self.key_id(&object.key());
        let owner = OWNERS.iter().position(|(namespace, name)| {
            use slipway::api::vocabulary::labels;
            object.label(labels::OWNER_NAMESPACE) == Some(namespace) && object.label(labels::OWNER_NAME) == Some(name)
        });
        let owners = object.metadata.owner_references.iter().flatten();
        let references = owners.flat_map(|owner| Uid::mentioned(&owner.uid)).collect();
        let spec = self.spec(object.at("/spec").unwrap_or(&Value::Null));
        let mut unweighted = spec;
        let (mut services, mut said, mut stand_ins, mut ports) = (Vec::new(), Said::Nothing, Vec::new(), Vec::new());
        match object.kind {
            Kind::ExtensionService => {
                let parsed: ExtensionService = object.parse().expect("an ExtensionService");
                let mut plain = json!(parsed.spec.0);
                let weighted = plain["services"].as_array_mut().into_iter().flatten();
                weighted
                    .filter_map(Value::as_object_mut)
                    .for_each(|service| drop(service.remove("weight")));
                unweighted = self.spec(&plain);
                for target in parsed.spec.services() {
                    let key = Key::new(Kind::Service, object.namespace(), &target.name);
                    services.push((self.key_id(&key), target.port));
                }
                said = match parsed.verdict() {
                    Verdict::None if parsed.has_the_verdict_on_another() => Said::OfAnother,
                    Verdict::None => Said::Nothing,
                    Verdict::Valid => Said::Valid,
                    Verdict::Invalid(errors) => {
                        Said::Invalid(errors.first().map(|error| error.reason.clone()).unwrap_or_default())
                    }
                };
            }
            Kind::ContourConfiguration => {
                for pointer in [
                    "/spec/globalExtAuth/extensionRef",
                    "/spec/rateLimitService/extensionService",
                    "/spec/tracing/extensionService",
                ] {
                    let text = |key: &str| object.at(pointer)?.get(key)?.as_str().map(str::to_owned);
                    if let (Some(namespace), Some(name)) = (text("namespace"), text("name")) {
                        stand_ins.push(self.key_id(&Key::new(Kind::ExtensionService, &namespace, &name)));
                    }
                }
            }
            Kind::Service if object.at("/spec/type") != Some(&"ExternalName".into()) => {
                let listed = object.at("/spec/ports").and_then(Value::as_array);
                ports = listed
                    .into_iter()
                    .flatten()
                    .filter_map(|port| port["port"].as_i64())
                    .collect();
            }
            _ => {}
        }
        let template = "/spec/template/metadata/annotations";
        let annotated = match object.kind {
            Kind::Pod => object.annotation(annotations::STARTUP_INPUTS).map(str::to_owned),
            Kind::ReplicaSet | Kind::Deployment => object
                .at(template)
                .and_then(|them| them.get(annotations::STARTUP_INPUTS)?.as_str().map(str::to_owned)),
            _ => None,
        };
        let configuration = annotated.and_then(|text| {
            let captured: Value = serde_json::from_str(&text).ok()?;
            let name = captured["configuration"].as_str()?;
            Some(self.key_id(&Key::new(Kind::ContourConfiguration, object.namespace(), name)))
        });
        let mentions = Uid::mentioned(text);
        let is_renamed = |uid: &&Uid| self.kind(uid.key) != Kind::ContourConfiguration;
        let renamed: Vec<Uid> = mentions.iter().filter(is_renamed).copied().collect();
        let observed = object.at("/status/observedGeneration").and_then(Value::as_i64);
        let ways_out = ["/spec/selector", "/spec/externalName"];
        Item {
            key,
            replicas: object.at("/spec/replicas").and_then(Value::as_i64).unwrap_or(1),
            is_observed: observed.is_some() && observed == object.metadata.generation,
            reported: Replicas::reported(&object),
            has_a_way_out: ways_out.iter().any(|way| object.at(way).is_some()),
            is_plain: renamed.iter().all(|uid| uid.number == 0),
            mentions,
            renamed,
            uid: Uid::mentioned(object.uid()).first().copied(),
            owner,
            references,
            spec,
            unweighted,
            services,
            ports,
            said,
            stand_ins,
            configuration,
            object: Arc::new(object),
        }
    }
}

fn is_aside(key: &Key) -> bool {
    let may_be_ours = matches!(key.kind, Kind::ExtensionService | Kind::Service);
    key.namespace == ALICE || (key.namespace == AUTH && !may_be_ours)
}

/// Returns a hash of 128 bits. Two different contents never have the same hash in practice.
pub fn fingerprint(bytes: &[u8]) -> u128 {
    xxh3_128(bytes)
}

fn number(count: usize) -> u32 {
    u32::try_from(count).expect("fewer than 2^32")
}
