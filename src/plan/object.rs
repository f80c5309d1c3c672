//! Kubernetes objects as the plan sees them: every kind in one form, so that comparing, pruning and printing are written once.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::api::vocabulary::{FIELD_MANAGER, FINALIZER, labels};

macro_rules! kinds {
    ($($kind:ident: $group:literal / $version:literal, $plural:literal, $scope:ident;)*) => {
        /// Every kind that Slipway reads or writes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[allow(missing_docs)] // Kubernetes' own names
        pub enum Kind { $($kind,)* }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// API group, empty for the core group.
            pub fn group(self) -> &'static str {
                match self { $(Self::$kind => $group,)* }
            }

            /// API version.
            pub fn version(self) -> &'static str {
                match self { $(Self::$kind => $version,)* }
            }

            /// The name of the resource, as it stands in URLs.
            pub fn plural(self) -> &'static str {
                match self { $(Self::$kind => $plural,)* }
            }

            /// Whether its objects live in namespaces.
            pub fn is_namespaced(self) -> bool {
                match self { $(Self::$kind => matches!(KindScope::$scope, KindScope::Namespaced),)* }
            }

            /// The kind's name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => stringify!($kind),)* }
            }
        }
    };
}

enum KindScope {
    Namespaced,
    Cluster,
}

kinds! {
    ContourDeployment: "contour.slipway.dev" / "v1alpha1", "contourdeployments", Namespaced;
    CustomResourceDefinition: "apiextensions.k8s.io" / "v1", "customresourcedefinitions", Cluster;
    ValidatingAdmissionPolicy: "admissionregistration.k8s.io" / "v1", "validatingadmissionpolicies", Cluster;
    ValidatingAdmissionPolicyBinding: "admissionregistration.k8s.io" / "v1", "validatingadmissionpolicybindings", Cluster;
    Namespace: "" / "v1", "namespaces", Cluster;
    RoleBinding: "rbac.authorization.k8s.io" / "v1", "rolebindings", Namespaced;
    ClusterRoleBinding: "rbac.authorization.k8s.io" / "v1", "clusterrolebindings", Cluster;
    ServiceAccount: "" / "v1", "serviceaccounts", Namespaced;
    Secret: "" / "v1", "secrets", Namespaced;
    Lease: "coordination.k8s.io" / "v1", "leases", Namespaced;
    Service: "" / "v1", "services", Namespaced;
    EndpointSlice: "discovery.k8s.io" / "v1", "endpointslices", Namespaced;
    ExtensionService: "projectcontour.io" / "v1alpha1", "extensionservices", Namespaced;
    ContourConfiguration: "projectcontour.io" / "v1alpha1", "contourconfigurations", Namespaced;
    Deployment: "apps" / "v1", "deployments", Namespaced;
    DaemonSet: "apps" / "v1", "daemonsets", Namespaced;
    ReplicaSet: "apps" / "v1", "replicasets", Namespaced;
    ControllerRevision: "apps" / "v1", "controllerrevisions", Namespaced;
    Pod: "" / "v1", "pods", Namespaced;
}

impl Kind {
    /// `group/version`, or `version` for the core group.
    pub fn api_version(self) -> String {
        if self.group().is_empty() {
            self.version().to_owned()
        } else {
            format!("{}/{}", self.group(), self.version())
        }
    }

    /// Whether Kubernetes' controllers create objects of this kind from our workloads, with our labels, and delete them.
    pub fn is_made_by_controllers(self) -> bool {
        matches!(self, Self::Pod | Self::ReplicaSet | Self::ControllerRevision)
    }

    /// Whether the absence or presence of objects of this kind decides what a Contour container captures. They are deleted only after a
    /// second, live look.
    pub fn is_startup_input(self) -> bool {
        matches!(
            self,
            Self::ContourConfiguration | Self::ExtensionService | Self::Service
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Namespace and name. In annotations it is a list of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "(String, String)", into = "(String, String)")]
#[allow(missing_docs)]
pub struct NamespacedName {
    pub namespace: String,
    pub name: String,
}

impl NamespacedName {
    /// This namespace and name.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl From<(String, String)> for NamespacedName {
    fn from((namespace, name): (String, String)) -> Self {
        Self { namespace, name }
    }
}

impl From<NamespacedName> for (String, String) {
    fn from(NamespacedName { namespace, name }: NamespacedName) -> Self {
        (namespace, name)
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Which object. Cluster-scoped objects have an empty namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub struct Key {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

impl Key {
    /// The object of this kind and name; `namespace` does not matter for cluster-scoped kinds.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        let namespace = if kind.is_namespaced() {
            namespace.to_owned()
        } else {
            String::new()
        };
        Self {
            kind,
            namespace,
            name: name.to_owned(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An object: observed, or desired.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its metadata, without managed fields.
    pub metadata: ObjectMeta,
    /// All the rest: `spec`, `status`, `data`, `roleRef`, …
    pub content: Map<String, Value>,
    /// Position, in `metadata.managedFields` as it was read, of the entry that our creating this object left there. Such an
    /// entry has the operation `Update`; server-side apply can't remove what it owns until it is made an `Apply`.
    pub creation_entry: Option<usize>,
}

impl Object {
    /// A desired object of one of Kubernetes' own types, which says of what kind it is.
    ///
    /// # Panics
    ///
    /// Slipway does not write that kind.
    pub fn of<T: k8s_openapi::Resource + Serialize>(fields: &T) -> Self {
        let mut kinds = Kind::ALL.iter().copied();
        let kind = kinds.find(|kind| (kind.group(), kind.name()) == (T::GROUP, T::KIND));
        let value = serde_json::to_value(fields).expect("Kubernetes types are JSON");
        Self::from_json(kind.expect("a kind that is written"), value).expect("Kubernetes types have metadata")
    }

    /// An object from its JSON. Errors: it is not of the form of an object.
    pub fn from_json(kind: Kind, value: Value) -> Result<Self, serde_json::Error> {
        let mut content: Map<String, Value> = serde_json::from_value(value)?;
        content.remove("apiVersion");
        content.remove("kind");
        let metadata: ObjectMeta =
            serde_json::from_value(content.remove("metadata").unwrap_or_else(|| Value::Object(Map::new())))?;
        let mut object = Self {
            kind,
            metadata,
            content,
            creation_entry: None,
        };
        object.forget_managed_fields();
        Ok(object)
    }

    /// Keeps of `managedFields` only where our creation stands in it; they are most of many an object's size.
    pub fn forget_managed_fields(&mut self) {
        let entries = self.metadata.managed_fields.take().unwrap_or_default();
        self.creation_entry = entries.iter().position(|entry| {
            entry.manager.as_deref() == Some(FIELD_MANAGER)
                && entry.operation.as_deref() == Some("Update")
                && entry.subresource.as_deref().unwrap_or_default().is_empty()
        });
    }

    /// The JSON that goes to the API server.
    pub fn to_json(&self) -> Value {
        let mut fields = self.content.clone();
        fields.insert("apiVersion".into(), self.kind.api_version().into());
        fields.insert("kind".into(), self.kind.name().into());
        fields.insert(
            "metadata".into(),
            serde_json::to_value(&self.metadata).expect("metadata is JSON"),
        );
        Value::Object(fields)
    }

    /// The object as one of Kubernetes' or Contour's own types. Errors: it is not of that form.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_value(self.to_json())
    }

    /// Which object this is.
    pub fn key(&self) -> Key {
        Key::new(self.kind, self.namespace(), self.name())
    }

    /// Its namespace and name.
    pub fn id(&self) -> NamespacedName {
        NamespacedName::new(self.namespace(), self.name())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Its namespace; empty for cluster-scoped kinds.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Its uid; empty for a desired object.
    pub fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    /// A label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }

    /// An annotation's value.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// Sets an annotation.
    pub fn annotate(&mut self, key: &str, value: String) {
        self.metadata
            .annotations
            .get_or_insert_with(BTreeMap::new)
            .insert(key.to_owned(), value);
    }

    /// Whether its deletion has begun.
    pub fn is_terminating(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// Whether this object is its controller, by uid.
    pub fn is_controlled_by(&self, controller: &Self) -> bool {
        let mut owners = self.metadata.owner_references.iter().flatten();
        owners.any(|owner| owner.controller == Some(true) && owner.uid == controller.uid() && !owner.uid.is_empty())
    }

    /// Whether it carries our finalizer.
    pub fn has_our_finalizer(&self) -> bool {
        self.metadata
            .finalizers
            .iter()
            .flatten()
            .any(|finalizer| finalizer == FINALIZER)
    }

    /// Its spec, if it has one.
    pub fn spec(&self) -> Option<&Map<String, Value>> {
        self.content.get("spec")?.as_object()
    }

    /// A value below the top, by a JSON pointer, `/spec/replicas` for instance.
    pub fn at(&self, pointer: &str) -> Option<&Value> {
        let (first, rest) = pointer
            .strip_prefix('/')?
            .split_once('/')
            .unwrap_or((&pointer[1..], ""));
        let value = self.content.get(first)?;
        if rest.is_empty() {
            Some(value)
        } else {
            value.pointer(&format!("/{rest}"))
        }
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

/// The ContourDeployment that objects belong to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl Owner {
    /// The ContourDeployment with this metadata.
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
        }
    }

    /// The labels of every object of this owner's, pods included.
    pub fn labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (labels::OWNER_NAME.to_owned(), self.name.clone()),
            (labels::OWNER_NAMESPACE.to_owned(), self.namespace.clone()),
            (labels::EXCLUDED_FROM_BACKUP.to_owned(), "true".to_owned()),
            ("app.kubernetes.io/managed-by".to_owned(), "slipway".to_owned()),
            ("app.kubernetes.io/part-of".to_owned(), "contour".to_owned()),
        ])
    }

    /// The reference that makes Kubernetes' garbage collector delete an object with this owner. Only objects in the owner's
    /// own namespace may carry it.
    pub fn reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: Kind::ContourDeployment.api_version(),
            kind: Kind::ContourDeployment.name().to_owned(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }

    /// Metadata for a desired object of this owner's.
    pub fn metadata(&self, kind: Kind, namespace: &str, name: &str) -> ObjectMeta {
        let local = kind.is_namespaced() && namespace == self.namespace;
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: kind.is_namespaced().then(|| namespace.to_owned()),
            labels: Some(self.labels()),
            owner_references: local.then(|| vec![self.reference()]),
            ..ObjectMeta::default()
        }
    }

    /// Whether an object bears this owner's marks: an ownerReference (which can only be meant in the owner's own namespace), both
    /// labels, or our finalizer and nobody else's label. One label of the two is enough where something else says the same: our
    /// finalizer, or the one name that nobody else would choose.
    ///
    /// Marks can be written by anybody who may write the object; `plan/ours.rs` says where they count.
    pub fn owns(&self, object: &Object) -> bool {
        let owners = object.metadata.owner_references.iter().flatten();
        let is_local = object.namespace() == self.namespace;
        if is_local && owners.clone().any(|reference| reference.uid == self.uid) {
            return true;
        }
        match self.named_by(object)[..] {
            [true, true] => true,
            // Somebody stripped one or both of them.
            [true] if object.kind == Kind::ClusterRoleBinding => object.name() == self.contour_cluster_binding(),
            [] | [true] => object.has_our_finalizer(),
            _ => false,
        }
    }

    /// Whether an object is in another namespace than the ContourDeployment. Cluster-scoped objects are nowhere else.
    pub fn is_elsewhere(&self, key: &Key) -> bool {
        key.kind.is_namespaced() && key.namespace != self.namespace
    }

    /// Whether both labels of an object name this owner.
    pub fn is_named_by(&self, object: &Object) -> bool {
        self.named_by(object) == [true, true]
    }

    /// Whether each of our two labels that an object has names this owner.
    fn named_by(&self, object: &Object) -> Vec<bool> {
        let expected = [
            (labels::OWNER_NAMESPACE, &self.namespace),
            (labels::OWNER_NAME, &self.name),
        ];
        expected
            .iter()
            .filter_map(|(key, value)| Some(object.label(key)? == value.as_str()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_managed_fields_only_the_place_of_our_creation_is_kept() {
        let entry = |manager: &str, operation: &str, subresource: &str| json!({"manager": manager, "operation": operation, "subresource": subresource, "fieldsV1": {}});
        let others = [
            entry("slipway", "Apply", ""),
            entry("kubectl", "Update", ""),
            entry("slipway", "Update", "status"),
        ];
        let created = entry("slipway", "Update", "");
        for (entries, place) in [
            (json!(others), None),
            (json!([others[0], others[1], created, others[2]]), Some(2)),
            (json!([{"manager": "slipway", "operation": "Update"}]), Some(0)),
        ] {
            let json = json!({"metadata": {"name": "a", "managedFields": entries}});
            let object = Object::from_json(Kind::Service, json).expect("an object");
            assert_eq!(object.creation_entry, place);
            assert_eq!(object.metadata.managed_fields, None);
        }
    }
}
