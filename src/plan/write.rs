//! The writes: a desired object, the ownership of its fields, and a single write to the API server.

use serde::Serialize;
use serde_json::Map;

use super::object::{Key, Kind, Object};
use crate::api::ContourDeployment;
use crate::api::vocabulary::FINALIZER;

/// A desired object.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The object.
    pub object: Object,
    /// The ownership of its fields.
    pub fields: Fields,
}

/// The ownership of an object's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fields {
    /// Slipway owns the fields that it sets, and leaves all other fields alone. The write is a server-side apply.
    Shared {
        /// JSON pointers of fields that Slipway sets only at creation, for example an autoscaler's `replicas`.
        initial: &'static [&'static str],
    },
    /// Slipway owns this whole top-level field, and removes everything that others add to the field. The write is a replacing update.
    Whole(&'static str),
    /// As `Shared`, and these fields must be absent. The write is a replacing update, because server-side apply cannot remove a field that
    /// another manager added.
    Sealed {
        /// JSON pointers of the fields that must be absent.
        absent: &'static [&'static str],
    },
    /// The object must exist with Slipway's metadata. Another controller owns the rest of the object (Contour's Lease).
    MetadataOnly,
}

impl Fields {
    /// The fields of a blackhole. A selector or an external name would give the blackhole endpoints.
    pub const BLACKHOLE: Self = Self::Sealed {
        absent: &["/spec/selector", "/spec/externalName"],
    };
}

impl Desired {
    /// Creates a desired object to which others may add fields.
    pub fn shared(object: Object) -> Self {
        Self {
            object,
            fields: Fields::Shared { initial: &[] },
        }
    }

    /// Creates a desired object with a `spec` that only Slipway owns.
    pub fn whole_spec(object: Object) -> Self {
        Self {
            object,
            fields: Fields::Whole("spec"),
        }
    }
}

/// A single write to the API server.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Write {
    /// Create the object, which must not exist.
    Create(Object),
    /// Apply the object with forced server-side apply. The object must exist.
    Apply {
        /// The fields that Slipway owns, with the uid of the object that must exist.
        object: Object,
        /// First convert the entry of Slipway's creation in `managedFields` to an entry of server-side apply: the index of the entry, and
        /// the resourceVersion at which the entry was observed.
        #[serde(skip)]
        adopt_creation: Option<(usize, String)>,
    },
    /// Update the whole object, with its resourceVersion.
    Replace(Object),
    /// Delete the object if it still has this uid. Dependents are deleted in the background.
    Delete(Target),
    /// Add Slipway's finalizer to the object.
    Hold(Target),
    /// Release Slipway's finalizer of the object.
    Release(Target),
}

impl Write {
    /// Returns the key of the object.
    pub fn key(&self) -> Key {
        match self {
            Self::Create(object) | Self::Apply { object, .. } | Self::Replace(object) => object.key(),
            Self::Delete(target) | Self::Hold(target) | Self::Release(target) => target.key.clone(),
        }
    }
}

/// An object that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Target {
    pub key: Key,
    #[serde(skip)]
    pub uid: String,
    #[serde(skip)]
    pub resource_version: String,
    /// Its finalizers, without Slipway's finalizer.
    #[serde(skip)]
    pub other_finalizers: Vec<String>,
}

impl Target {
    /// Returns the target for the ContourDeployment itself.
    pub fn of_deployment(deployment: &ContourDeployment) -> Self {
        Self::of(&Object {
            kind: Kind::ContourDeployment,
            metadata: deployment.metadata.clone(),
            content: Map::new(),
            creation_entry: None,
        })
    }

    /// Returns the target for this object.
    pub fn of(object: &Object) -> Self {
        let finalizers = object.metadata.finalizers.iter().flatten();
        Self {
            key: object.key(),
            uid: object.uid().to_owned(),
            resource_version: object.metadata.resource_version.clone().unwrap_or_default(),
            other_finalizers: finalizers.filter(|name| *name != FINALIZER).cloned().collect(),
        }
    }
}
