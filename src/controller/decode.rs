//! Decodes objects directly into the parts that the cache keeps.
//!
//! Other users decide on the number and size of objects: up to 1.5 MB each as stored, and the JSON tree of such an object takes more than
//! 30 MB. So the decoder builds a tree only of the kept parts, and the kept part of an object that another user may have written has a
//! maximum size. A page of a list is decoded object by object. [`Form::PAGE`] is the number of objects in a page.

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

/// The maximum length of the kept `status` of an ExtensionService. Contour's own messages have at most 32 KiB, and the status contains each
/// message twice.
const LONGEST_STATUS: usize = 128 * 1024;

/// The maximum length of the kept metadata of a pod template. Kubernetes limits annotations to 256 KiB.
const LONGEST_TEMPLATE: usize = 512 * 1024;

/// The maximum number of kept ports of a Service.
const PORTS: usize = 128;

/// The kept parts of the objects of a set, and the number of objects in a page.
pub trait Form: Clone + fmt::Debug + Send + Sync + 'static {
    /// The kept metadata.
    const METADATA: Metadata = Metadata::Most;
    /// The kept parts of the rest.
    const CONTENT: Keep;
    /// Whether the operator requests only metadata from the API server.
    const METADATA_ONLY: bool = false;
    /// The number of objects in a page of a list. Memory briefly contains three copies of a page's text, because kube's client copies the
    /// text.
    const PAGE: u32 = 8;
}

/// The kept part of a value.
#[derive(Clone, Copy, Debug)]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// The whole value.
    Whole,
    /// The whole value if its JSON has at most this length, or else nothing.
    AtMost(usize),
    /// The whole value if its JSON has at most this length, or else an empty object.
    AtMostOrEmpty(usize),
    /// These fields of an object.
    Fields(&'static [(&'static str, Keep)]),
    /// The numbers in a list of ports.
    PortNumbers,
    /// One ready endpoint of a list of endpoints, if there is one.
    OneReady,
}

macro_rules! forms {
    ($($(#[$doc:meta])* $name:ident { $($constants:tt)* })*) => {
        $($(#[$doc])* #[derive(Clone, Debug)] pub struct $name;
        impl Form for $name { $($constants)* })*
    };
}

forms! {
    /// Kinds that no other user can create while the admission policies are in force.
    Ours {
        const METADATA: Metadata = Metadata::Whole;
        const CONTENT: Keep = Keep::Whole;
        const PAGE: u32 = 50;
    }
    /// Kinds of which only the existence matters.
    Existence {
        const METADATA: Metadata = Metadata::Existence;
        const CONTENT: Keep = Keep::Nothing;
        const METADATA_ONLY: bool = true;
        const PAGE: u32 = 16;
    }
    /// Kinds of which only the existence and the owner matter.
    Marks {
        const CONTENT: Keep = Keep::Nothing;
        const METADATA_ONLY: bool = true;
    }
    /// Pods: the phase.
    Pods {
        const CONTENT: Keep = Keep::Fields(&[("status", Keep::Fields(&[("phase", Keep::Whole)]))]);
    }
    /// ReplicaSets: the numbers of pods, and the annotations of the template.
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
    /// Services of users: the parts that decide whether a copy can point at the Service.
    Services {
        const METADATA: Metadata = Metadata::Identity;
        const CONTENT: Keep = Keep::Fields(&[
            ("spec", Keep::Fields(&[("type", Keep::Whole), ("ports", Keep::PortNumbers)])),
        ]);
    }
    /// EndpointSlices: whether an endpoint is ready.
    EndpointSlices {
        const METADATA: Metadata = Metadata::Slice;
        const CONTENT: Keep = Keep::Fields(&[("endpoints", Keep::OneReady)]);
    }
    /// ExtensionServices, of users and of Slipway.
    ExtensionServices {
        const CONTENT: Keep = Keep::Fields(&[
            ("spec", Keep::AtMostOrEmpty(LARGEST_SPEC)),
            ("status", Keep::Fields(&[("conditions", Keep::AtMost(LONGEST_STATUS))])),
        ]);
    }
}

/// The kept parts of an object.
#[derive(Clone, Debug)]
pub struct Decoded<F> {
    metadata: ObjectMeta,
    content: Map<String, Value>,
    creation_entry: Option<usize>,
    form: PhantomData<F>,
}

impl<F> Decoded<F> {
    /// Returns the kept parts as an object of this kind.
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

/// Decodes a kept part of an object or a list. A value of another type is dropped without an error, so that one malformed object does not
/// block the others.
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
