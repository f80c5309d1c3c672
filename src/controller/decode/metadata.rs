//! Decodes the metadata of objects. Metadata may contain any number of labels, annotations, owners and finalizers. Everything but
//! annotations may be as long as the object.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};

use crate::api::vocabulary::{FIELD_MANAGER, FINALIZER, annotations, labels};

/// The maximum number of each of the kept labels, annotations, owners and finalizers. Those that Slipway reads are always kept.
pub const ENTRIES: usize = 500;

/// The label in which an EndpointSlice names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The labels of Slipway's objects that are not in Slipway's own vocabulary.
const EVERYWHERE: [&str; 2] = ["app.kubernetes.io/managed-by", "app.kubernetes.io/part-of"];

/// The kept parts of metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// The identity of the object, and the start of its deletion.
    Existence,
    /// The identity of the object, and the name of its Service.
    Slice,
    /// The identity of the object, and its times.
    Identity,
    /// Everything except `managedFields`, with a maximum number of labels, annotations, owners and finalizers.
    Most,
    /// Everything except `managedFields`.
    Whole,
}

/// Decodes metadata, and finds the entry of Slipway's creation in `managedFields`.
pub struct MetadataSeed(pub Metadata);

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
        let more = matches!(self.0, Metadata::Most | Metadata::Whole);
        let has_times = more || self.0 == Metadata::Identity;
        let may_go = has_times || self.0 == Metadata::Existence;
        let most = if self.0 == Metadata::Whole { usize::MAX } else { ENTRIES };
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "name" => metadata.name = map.next_value()?,
                "namespace" => metadata.namespace = map.next_value()?,
                "uid" => metadata.uid = map.next_value()?,
                "resourceVersion" => metadata.resource_version = map.next_value()?,
                "generation" if has_times => metadata.generation = map.next_value()?,
                "creationTimestamp" if has_times => metadata.creation_timestamp = map.next_value()?,
                "deletionTimestamp" if may_go => metadata.deletion_timestamp = map.next_value()?,
                "deletionGracePeriodSeconds" if has_times => {
                    metadata.deletion_grace_period_seconds = map.next_value()?;
                }
                "labels" if more => metadata.labels = map.next_value_seed(Entries(most, is_read))?,
                "labels" if self.0 == Metadata::Slice => {
                    metadata.labels = map.next_value_seed(Entries(0, |key| key == SERVICE_NAME))?;
                }
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

/// Reports whether Slipway reads or writes this label or annotation.
fn is_read(key: &str) -> bool {
    let words = labels::ALL.iter().chain(annotations::ALL);
    words.map(|(word, _)| *word).chain(EVERYWHERE).any(|word| word == key)
}

/// Labels or annotations: the first ones up to the maximum number, and those that Slipway reads.
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

/// A list: the first items up to the maximum number, and the first ones that Slipway reads.
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

/// The entry of Slipway's creation in `managedFields`, as in `Object::forget_managed_fields`.
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
