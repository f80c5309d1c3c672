//! What can be written: an object as it shall be, whose its fields are, and a single write to the API server.

use serde::Serialize;
use serde_json::Map;

use super::object::{Key, Kind, Object};
use crate::api::ContourDeployment;
use crate::api::vocabulary::FINALIZER;

/// An object as it shall be.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The object.
    pub object: Object,
    /// Whose fields it has.
    pub fields: Fields,
}

/// Whose the fields of an object are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fields {
    /// We own the fields that we set and leave all others alone; written by server-side apply.
    Shared {
        /// JSON pointers of fields that we set at creation and leave to others afterwards (an autoscaler's `replicas`).
        initial: &'static [&'static str],
    },
    /// All of this top-level field is ours; anything that somebody adds to it goes. Written by a replacing update.
    Whole(&'static str),
    /// As `Shared`, and these fields must not be there at all. Written by a replacing update: server-side apply can't take
    /// away what somebody else added.
    Sealed {
        /// JSON pointers.
        absent: &'static [&'static str],
    },
    /// We only want it to exist and to carry our metadata; the rest is somebody else's (Contour's Lease).
    MetadataOnly,
}

impl Fields {
    /// Those of a blackhole: a selector, or a name elsewhere, would give it a way out.
    pub const BLACKHOLE: Self = Self::Sealed {
        absent: &["/spec/selector", "/spec/externalName"],
    };
}

impl Desired {
    /// An object that others may add fields to.
    pub fn shared(object: Object) -> Self {
        Self {
            object,
            fields: Fields::Shared { initial: &[] },
        }
    }

    /// An object whose `spec` is ours alone.
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
    /// Make it; it must not exist.
    Create(Object),
    /// Server-side apply, forced; it must exist.
    Apply {
        /// The fields that we own, with the uid of the object that must exist.
        object: Object,
        /// First make the entry that our creation left in `managedFields` one of server-side apply: index and the
        /// resourceVersion that it was seen at.
        #[serde(skip)]
        adopt_creation: Option<(usize, String)>,
    },
    /// Update the whole object, with its resourceVersion.
    Replace(Object),
    /// Delete it, if it is still the one with this uid; children go in the background.
    Delete(Target),
    /// Put our finalizer on it.
    Hold(Target),
    /// Take our finalizer away.
    Release(Target),
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
    /// Its finalizers, without ours.
    #[serde(skip)]
    pub other_finalizers: Vec<String>,
}

impl Target {
    /// The ContourDeployment itself.
    pub fn of_deployment(deployment: &ContourDeployment) -> Self {
        Self::of(&Object {
            kind: Kind::ContourDeployment,
            metadata: deployment.metadata.clone(),
            content: Map::new(),
            creation_entry: None,
        })
    }

    /// This object.
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
