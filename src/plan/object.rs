//! Kubernetes objects as the plan represents them. All kinds share one representation, so comparing, pruning and printing are implemented
//! once.

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

            /// Returns the API group, which is empty for the core group.
            pub fn group(self) -> &'static str {
                match self { $(Self::$kind => $group,)* }
            }

            /// Returns the API version.
            pub fn version(self) -> &'static str {
                match self { $(Self::$kind => $version,)* }
            }

            /// Returns the plural name of the resource, as used in URLs.
            pub fn plural(self) -> &'static str {
                match self { $(Self::$kind => $plural,)* }
            }

            /// Reports whether objects of this kind are namespaced.
            pub fn is_namespaced(self) -> bool {
                match self { $(Self::$kind => matches!(KindScope::$scope, KindScope::Namespaced),)* }
            }

            /// Returns the name of the kind.
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
    /// Returns `group/version`, or `version` for the core group.
    pub fn api_version(self) -> String {
        if self.group().is_empty() {
            self.version().to_owned()
        } else {
            format!("{}/{}", self.group(), self.version())
        }
    }

    /// Reports whether Kubernetes' controllers create objects of this kind from Slipway's workloads, with Slipway's labels, and delete
    /// them.
    pub fn is_made_by_controllers(self) -> bool {
        matches!(self, Self::Pod | Self::ReplicaSet | Self::ControllerRevision)
    }

    /// Reports whether Slipway observes the objects of this kind that carry its labels.
    pub fn is_observed_by_label(self) -> bool {
        !matches!(
            self,
            Self::ContourDeployment
                | Self::CustomResourceDefinition
                | Self::ValidatingAdmissionPolicy
                | Self::ValidatingAdmissionPolicyBinding
                | Self::Namespace
                | Self::EndpointSlice
        )
    }

    /// Reports whether the presence of objects of this kind affects what a Contour container reads at startup. Such objects are deleted
    /// only after a second, live read.
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

/// Namespace and name. In annotations the pair is a list of two strings.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "(String, String)", into = "(String, String)")]
#[allow(missing_docs)]
pub struct NamespacedName {
    pub namespace: String,
    pub name: String,
}

impl NamespacedName {
    /// Creates the pair from a namespace and a name.
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

/// The identity of an object. Cluster-scoped objects have an empty namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub struct Key {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

impl Key {
    /// Creates the key for this kind and name. `namespace` is ignored for cluster-scoped kinds.
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

/// An observed or desired object.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// The kind of the object.
    pub kind: Kind,
    /// The metadata, without managed fields.
    pub metadata: ObjectMeta,
    /// All other top-level fields: `spec`, `status`, `data`, `roleRef`, …
    pub content: Map<String, Value>,
    /// The index, in `metadata.managedFields` as read, of the entry of Slipway's creation of this object. The entry has the operation
    /// `Update`. Server-side apply cannot remove the fields of the entry until the operation is changed to `Apply`.
    pub creation_entry: Option<usize>,
}

impl Object {
    /// Converts one of Kubernetes' own types to a desired object. The type determines the kind.
    ///
    /// # Panics
    ///
    /// Panics if Slipway does not write that kind.
    pub fn of<T: k8s_openapi::Resource + Serialize>(fields: &T) -> Self {
        let mut kinds = Kind::ALL.iter().copied();
        let kind = kinds.find(|kind| (kind.group(), kind.name()) == (T::GROUP, T::KIND));
        let value = serde_json::to_value(fields).expect("Kubernetes types are JSON");
        Self::from_json(kind.expect("a kind that Slipway writes"), value).expect("Kubernetes types have metadata")
    }

    /// Parses an object from its JSON. Returns an error if the JSON does not have the form of an object.
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

    /// Drops `managedFields`, except for the index of the entry of Slipway's creation. Managed fields are the largest part of many objects.
    pub fn forget_managed_fields(&mut self) {
        let entries = self.metadata.managed_fields.take().unwrap_or_default();
        self.creation_entry = entries.iter().position(|entry| {
            entry.manager.as_deref() == Some(FIELD_MANAGER)
                && entry.operation.as_deref() == Some("Update")
                && entry.subresource.as_deref().unwrap_or_default().is_empty()
        });
    }

    /// Returns the JSON for the API server.
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

    /// Parses the object as one of Kubernetes' or Contour's own types. Returns an error if the object does not have the form of that type.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_value(self.to_json())
    }

    /// Returns the key of the object.
    pub fn key(&self) -> Key {
        Key::new(self.kind, self.namespace(), self.name())
    }

    /// Returns the namespace and the name.
    pub fn id(&self) -> NamespacedName {
        NamespacedName::new(self.namespace(), self.name())
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Returns the namespace, which is empty for cluster-scoped kinds.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Returns the uid, which is empty for a desired object.
    pub fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Returns the value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }

    /// Returns the value of an annotation.
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

    /// Reports whether the object is being deleted.
    pub fn is_terminating(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// Reports whether `controller` is the controller of this object, by uid.
    pub fn is_controlled_by(&self, controller: &Self) -> bool {
        let mut owners = self.metadata.owner_references.iter().flatten();
        owners.any(|owner| owner.controller == Some(true) && owner.uid == controller.uid() && !owner.uid.is_empty())
    }

    /// Reports whether the object carries Slipway's finalizer.
    pub fn has_our_finalizer(&self) -> bool {
        self.metadata
            .finalizers
            .iter()
            .flatten()
            .any(|finalizer| finalizer == FINALIZER)
    }

    /// Returns the spec, if the object has one.
    pub fn spec(&self) -> Option<&Map<String, Value>> {
        self.content.get("spec")?.as_object()
    }

    /// Returns the value at a JSON pointer, for example `/spec/replicas`.
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

/// The ContourDeployment that owns objects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The namespace of the ContourDeployment.
    pub namespace: String,
    /// The name of the ContourDeployment.
    pub name: String,
    /// The uid of the ContourDeployment.
    pub uid: String,
}

impl Owner {
    /// Returns the owner for the ContourDeployment with this metadata.
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
        }
    }

    /// Returns the labels of every object of this owner, pods included.
    pub fn labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (labels::OWNER_NAME.to_owned(), self.name.clone()),
            (labels::OWNER_NAMESPACE.to_owned(), self.namespace.clone()),
            (labels::EXCLUDED_FROM_BACKUP.to_owned(), "true".to_owned()),
            ("app.kubernetes.io/managed-by".to_owned(), "slipway".to_owned()),
            ("app.kubernetes.io/part-of".to_owned(), "contour".to_owned()),
        ])
    }

    /// Returns the owner reference that makes the garbage collector delete an object together with this owner. Only objects in the owner's
    /// own namespace may carry the reference.
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

    /// Returns the metadata for a desired object of this owner.
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

    /// Reports whether an object carries this owner's marks. The marks are an owner reference, both labels, or Slipway's finalizer without
    /// a label of another owner. An owner reference counts only in the owner's own namespace. One of the two labels is enough together with
    /// Slipway's finalizer, or on the ClusterRoleBinding with Contour's name.
    ///
    /// Everyone with write access to the object can write marks. `plan/ownership.rs` defines where marks count.
    pub fn owns(&self, object: &Object) -> bool {
        let owners = object.metadata.owner_references.iter().flatten();
        let is_local = object.namespace() == self.namespace;
        if is_local && owners.clone().any(|reference| reference.uid == self.uid) {
            return true;
        }
        match self.named_by(object)[..] {
            [true, true] => true,
            // Another user removed one or both labels.
            [true] if object.kind == Kind::ClusterRoleBinding => object.name() == self.contour_cluster_binding(),
            [] | [true] => object.has_our_finalizer(),
            _ => false,
        }
    }

    /// Reports whether an object is in another namespace than the ContourDeployment. Cluster-scoped objects never are.
    pub fn is_elsewhere(&self, key: &Key) -> bool {
        key.kind.is_namespaced() && key.namespace != self.namespace
    }

    /// Reports whether both labels of an object name this owner.
    pub fn is_named_by(&self, object: &Object) -> bool {
        self.named_by(object) == [true, true]
    }

    /// Reports, for each of Slipway's two labels on an object, whether the label names this owner.
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
    fn parsing_keeps_only_the_index_of_the_creation_entry() {
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
