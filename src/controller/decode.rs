//! How objects are decoded: straight into what is kept of them.
//!
//! Others decide how many objects there are and how large each is: up to 1.5 MB as it is stored, and a JSON tree of that takes more
//! than 30 MB. So nothing is decoded into a tree before it is known that it is kept, and what is kept of an object that somebody else
//! may have written is bounded. A page of a list is decoded object by object; how many are in a page is [`Form::PAGE`].

mod metadata;

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::DynamicResourceScope;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::{Map, Value};

use super::bounded::Bounded;
use crate::api::contour::LARGEST_SPEC;
use crate::plan::{Kind, Object};
use metadata::MetadataSeed;
pub use metadata::{Metadata, SERVICE_NAME};

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
        const METADATA: Metadata = Metadata::Existence;
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
        const METADATA: Metadata = Metadata::Slice;
        const CONTENT: Keep = Keep::Fields(&[("endpoints", Keep::OneReady)]);
    }
    /// ExtensionServices, the users' and ours.
    ExtensionServices {
        const CONTENT: Keep = Keep::Fields(&[
            ("spec", Keep::AtMostOrEmpty(LARGEST_SPEC)),
            ("status", Keep::Fields(&[("conditions", Keep::AtMost(LONGEST_STATUS))])),
        ]);
    }
}

/// What was kept of an object.
#[derive(Clone, Debug)]
pub struct Decoded<F> {
    metadata: ObjectMeta,
    content: Map<String, Value>,
    creation_entry: Option<usize>,
    form: PhantomData<F>,
}

impl<F> Decoded<F> {
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

impl<F: Form> Resource for Decoded<F> {
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

impl<'de, F: Form> Deserialize<'de> for Decoded<F> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<F>(PhantomData<F>);

impl<'de, F: Form> Visitor<'de> for ObjectVisitor<F> {
    type Value = Decoded<F>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of Kubernetes")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Decoded<F>, A::Error> {
        let mut found = Decoded {
            metadata: ObjectMeta::default(),
            content: Map::new(),
            creation_entry: None,
            form: PhantomData,
        };
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "metadata" => {
                    (found.metadata, found.creation_entry) = map.next_value_seed(MetadataSeed(F::METADATA))?;
                }
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

#[cfg(test)]
mod tests;
