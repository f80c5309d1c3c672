//! How objects are decoded: straight into what is kept of them.
//!
//! Others decide how many objects there are and how large each is: up to 1.5 MB as it is stored, and a JSON tree of that takes more
//! than 30 MB. So nothing is decoded into a tree before it is known that it is kept, and what is kept of an object that somebody else
//! may have written is bounded. A page of a list is decoded object by object; how many are in a page is [`Form::PAGE`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use kube::core::DynamicResourceScope;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::{Map, Value};

use super::bounded::Bounded;
use crate::api::vocabulary::{FIELD_MANAGER, FINALIZER, annotations, labels};
use crate::plan::{Kind, Object};

/// Labels, annotations, owners and finalizers of an object that are kept, each. Those that are read here are kept in any case.
const ENTRIES: usize = 500;

/// The label by which an EndpointSlice names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Labels beside those of our own vocabulary that are on everything of ours.
const EVERYWHERE: [&str; 2] = ["app.kubernetes.io/managed-by", "app.kubernetes.io/part-of"];

/// The longest `spec` of an ExtensionService that is kept, as JSON. A longer one is kept as an empty one.
pub const LONGEST_SPEC: usize = 64 * 1024;

/// The longest `status` of an ExtensionService that is kept. Contour's own messages are at most 32 KiB long, and are in it twice.
const LONGEST_STATUS: usize = 128 * 1024;

/// The longest metadata of a pod template that are kept. Kubernetes bounds annotations to 256 KiB.
const LONGEST_TEMPLATE: usize = 512 * 1024;

/// Ports of a Service that are kept.
const PORTS: usize = 128;

/// What is kept of the objects of a set, and how many are read at once.
pub trait Form: Clone + fmt::Debug + Send + Sync + 'static {
    /// Of the metadata.
    const METADATA: Metadata = Metadata::Most;
    /// Of everything else.
    const CONTENT: Keep;
    /// Whether the API server is asked for metadata alone.
    const METADATA_ONLY: bool = false;
    /// Objects in a page of a list. Three copies of a page's text are in memory for a moment (kube's client makes them).
    const PAGE: u32 = 8;
}

/// What is kept of metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// Which object it is, its times, and the name of its Service, if it is an EndpointSlice.
    Identity,
    /// Everything but `managedFields`; of labels and the like at most so many.
    Most,
    /// Everything but `managedFields`.
    Whole,
}

/// What is kept of a value.
#[derive(Clone, Copy, Debug)]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// Everything.
    Whole,
    /// Everything, if it is at most so long as JSON; else nothing.
    AtMost(usize),
    /// Everything, if it is at most so long as JSON; else an empty object.
    AtMostOrEmpty(usize),
    /// These fields of an object.
    Fields(&'static [(&'static str, Keep)]),
    /// Of a list of ports their numbers.
    PortNumbers,
    /// Of a list of endpoints one that is ready, if there is one.
    OneReady,
}

macro_rules! forms {
    ($($(#[$doc:meta])* $name:ident { $($constants:tt)* })*) => {
        $($(#[$doc])* #[derive(Clone, Debug)] pub struct $name;
        impl Form for $name { $($constants)* })*
    };
}

forms! {
    /// What nobody else can make, as long as the admission policies are there.
    Ours {
        const METADATA: Metadata = Metadata::Whole;
        const CONTENT: Keep = Keep::Whole;
        const PAGE: u32 = 50;
    }
    /// What only has to be there.
    Existence {
        const METADATA: Metadata = Metadata::Identity;
        const CONTENT: Keep = Keep::Nothing;
        const METADATA_ONLY: bool = true;
        const PAGE: u32 = 16;
    }
    /// What only has to be there and be ours.
    Marks {
        const CONTENT: Keep = Keep::Nothing;
        const METADATA_ONLY: bool = true;
    }
    /// Pods: their phase.
    Pods {
        const CONTENT: Keep = Keep::Fields(&[("status", Keep::Fields(&[("phase", Keep::Whole)]))]);
    }
    /// ReplicaSets: how many pods there are, and what is written on their template.
    ReplicaSets {
        const CONTENT: Keep = Keep::Fields(&[
            ("spec", Keep::Fields(&[
                ("replicas", Keep::Whole),
                ("template", Keep::Fields(&[("metadata", Keep::AtMost(LONGEST_TEMPLATE))])),
            ])),
            ("status", Keep::Fields(&[
                ("observedGeneration", Keep::Whole),
                ("replicas", Keep::Whole),
                ("readyReplicas", Keep::Whole),
                ("availableReplicas", Keep::Whole),
            ])),
        ]);
    }
    /// The users' Services: what a copy that points at them needs to know.
    Services {
        const METADATA: Metadata = Metadata::Identity;
        const CONTENT: Keep = Keep::Fields(&[
            ("spec", Keep::Fields(&[("type", Keep::Whole), ("ports", Keep::PortNumbers)])),
        ]);
    }
    /// EndpointSlices: whether anybody is ready.
    EndpointSlices {
        const METADATA: Metadata = Metadata::Identity;
        const CONTENT: Keep = Keep::Fields(&[("endpoints", Keep::OneReady)]);
    }
    /// ExtensionServices, the users' and ours.
    ExtensionServices {
        const CONTENT: Keep = Keep::Fields(&[
            ("spec", Keep::AtMostOrEmpty(LONGEST_SPEC)),
            ("status", Keep::Fields(&[("conditions", Keep::AtMost(LONGEST_STATUS))])),
        ]);
    }
}

/// What was kept of an object.
#[derive(Clone, Debug)]
pub struct Found<F> {
    metadata: ObjectMeta,
    content: Map<String, Value>,
    creation_entry: Option<usize>,
    form: PhantomData<F>,
}

impl<F> Found<F> {
    /// As an object of this kind.
    pub fn into_object(self, kind: Kind) -> Object {
        Object {
            kind,
            metadata: self.metadata,
            content: self.content,
            creation_entry: self.creation_entry,
        }
    }
}

impl<F: Form> Resource for Found<F> {
    type DynamicType = Kind;
    type Scope = DynamicResourceScope;

    fn kind(kind: &Kind) -> Cow<'_, str> {
        kind.name().into()
    }

    fn group(kind: &Kind) -> Cow<'_, str> {
        kind.group().into()
    }

    fn version(kind: &Kind) -> Cow<'_, str> {
        kind.version().into()
    }

    fn plural(kind: &Kind) -> Cow<'_, str> {
        kind.plural().into()
    }

    fn metadata_api() -> bool {
        F::METADATA_ONLY
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl<'de, F: Form> Deserialize<'de> for Found<F> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<F>(PhantomData<F>);

impl<'de, F: Form> Visitor<'de> for ObjectVisitor<F> {
    type Value = Found<F>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of Kubernetes")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found<F>, A::Error> {
        let mut found = Found {
            metadata: ObjectMeta::default(),
            content: Map::new(),
            creation_entry: None,
            form: PhantomData,
        };
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "metadata" => (found.metadata, found.creation_entry) = map.next_value_seed(MetadataSeed(F::METADATA))?,
                "apiVersion" | "kind" => drop(map.next_value::<IgnoredAny>()?),
                _ => {
                    let keep = match F::CONTENT {
                        Keep::Fields(fields) => field(fields, &key),
                        keep => keep,
                    };
                    if let Some(value) = map.next_value_seed(keep)? {
                        found.content.insert(key, value);
                    }
                }
            }
        }
        Ok(found)
    }
}

fn field(fields: &[(&str, Keep)], key: &str) -> Keep {
    let known = fields.iter().find(|(name, _)| *name == key);
    known.map_or(Keep::Nothing, |(_, keep)| *keep)
}

impl<'de> DeserializeSeed<'de> for Keep {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Value>, D::Error> {
        match self {
            Self::Nothing => IgnoredAny::deserialize(deserializer).map(|_| None),
            Self::Whole => Value::deserialize(deserializer).map(Some),
            Self::AtMost(most) => Bounded::decode(most, deserializer),
            Self::AtMostOrEmpty(most) => {
                let kept = Bounded::decode(most, deserializer)?;
                Ok(Some(kept.unwrap_or_else(|| Value::Object(Map::new()))))
            }
            Self::Fields(_) | Self::PortNumbers | Self::OneReady => deserializer.deserialize_any(KeepVisitor(self)),
        }
    }
}

/// For what keeps a part of an object or a list. What is neither is kept not at all, and is no error: one object that is not of the form
/// that is known here must not keep others from being read.
struct KeepVisitor(Keep);

impl<'de> Visitor<'de> for KeepVisitor {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<Value>, A::Error> {
        let Self(Keep::Fields(fields)) = self else {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(None);
        };
        let mut kept = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if let Some(value) = map.next_value_seed(field(fields, &key))? {
                kept.insert(key, value);
            }
        }
        Ok(Some(Value::Object(kept)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Option<Value>, A::Error> {
        match self.0 {
            Keep::PortNumbers => {
                let mut kept = Vec::new();
                while let Some(Port { port }) = list.next_element()? {
                    if kept.len() < PORTS {
                        kept.push(port.into());
                    }
                }
                Ok(Some(Value::Array(kept)))
            }
            Keep::OneReady => {
                let mut is_ready = false;
                while let Some(endpoint) = list.next_element::<Endpoint>()? {
                    is_ready |= endpoint.conditions.unwrap_or_default().ready != Some(false);
                }
                let one = Value::Object(Map::new());
                Ok(Some(Value::Array(if is_ready { vec![one] } else { Vec::new() })))
            }
            _ => {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(None)
            }
        }
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Option<Value>, E> {
        Ok(None)
    }
}

/// A port of a Service.
#[derive(Deserialize)]
struct Port {
    port: i64,
}

/// An endpoint of an EndpointSlice.
#[derive(Deserialize)]
struct Endpoint {
    conditions: Option<EndpointConditions>,
}

#[derive(Default, Deserialize)]
struct EndpointConditions {
    ready: Option<bool>,
}

struct MetadataSeed(Metadata);

impl<'de> DeserializeSeed<'de> for MetadataSeed {
    type Value = (ObjectMeta, Option<usize>);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MetadataSeed {
    type Value = (ObjectMeta, Option<usize>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the metadata of an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut metadata, mut creation_entry) = (ObjectMeta::default(), None);
        let more = self.0 != Metadata::Identity;
        let most = if self.0 == Metadata::Whole { usize::MAX } else { ENTRIES };
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "name" => metadata.name = map.next_value()?,
                "namespace" => metadata.namespace = map.next_value()?,
                "uid" => metadata.uid = map.next_value()?,
                "resourceVersion" => metadata.resource_version = map.next_value()?,
                "generation" => metadata.generation = map.next_value()?,
                "creationTimestamp" => metadata.creation_timestamp = map.next_value()?,
                "deletionTimestamp" => metadata.deletion_timestamp = map.next_value()?,
                "deletionGracePeriodSeconds" => metadata.deletion_grace_period_seconds = map.next_value()?,
                "labels" if more => metadata.labels = map.next_value_seed(Entries(most, is_read))?,
                "labels" => metadata.labels = map.next_value_seed(Entries(0, |key| key == SERVICE_NAME))?,
                "annotations" if more => metadata.annotations = map.next_value_seed(Entries(most, is_read))?,
                "ownerReferences" if more => {
                    metadata.owner_references = map.next_value_seed(First(most, |_: &OwnerReference| false))?;
                }
                "finalizers" if more => {
                    metadata.finalizers = map.next_value_seed(First(most, |it: &String| it == FINALIZER))?;
                }
                "managedFields" if more => creation_entry = map.next_value::<CreationEntry>()?.0,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok((metadata, creation_entry))
    }
}

/// Whether this is a label or annotation that is read or written here.
fn is_read(key: &str) -> bool {
    let words = labels::ALL.iter().chain(annotations::ALL);
    words.map(|(word, _)| *word).chain(EVERYWHERE).any(|word| word == key)
}

/// Labels or annotations: the first so many, and those that are asked for.
struct Entries(usize, fn(&str) -> bool);

impl<'de> DeserializeSeed<'de> for Entries {
    type Value = Option<BTreeMap<String, String>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Entries {
    type Value = Option<BTreeMap<String, String>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("labels or annotations")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Self(most, is_wanted) = self;
        let mut kept = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            if kept.len() < most || is_wanted(&key) {
                kept.insert(key, map.next_value::<Option<String>>()?.unwrap_or_default());
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Some(kept))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// Of a list the first so many, and the first of those that are asked for.
struct First<T>(usize, fn(&T) -> bool);

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for First<T> {
    type Value = Option<Vec<T>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for First<T> {
    type Value = Option<Vec<T>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let Self(most, is_wanted) = self;
        let (mut kept, mut is_there) = (Vec::new(), false);
        while let Some(element) = list.next_element()? {
            let is_wanted = is_wanted(&element);
            if kept.len() < most || (is_wanted && !is_there) {
                kept.push(element);
            }
            is_there |= is_wanted;
        }
        Ok(Some(kept))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// Of `managedFields` only where our creation stands in it, as in [`Object::forget_managed_fields`].
struct CreationEntry(Option<usize>);

#[derive(Deserialize)]
struct ManagedFields {
    manager: Option<String>,
    operation: Option<String>,
    subresource: Option<String>,
}

impl<'de> Deserialize<'de> for CreationEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self(None))
    }
}

impl<'de> Visitor<'de> for CreationEntry {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("managedFields")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Self, A::Error> {
        let mut place = 0;
        while let Some(entry) = list.next_element::<ManagedFields>()? {
            let is_ours = entry.manager.as_deref() == Some(FIELD_MANAGER)
                && entry.operation.as_deref() == Some("Update")
                && entry.subresource.as_deref().unwrap_or_default().is_empty();
            self.0 = self.0.or(is_ours.then_some(place));
            place += 1;
        }
        Ok(self)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self, E> {
        Ok(self)
    }
}

#[cfg(test)]
mod tests;
