//! RBAC: the permissions of the operator in the ContourDeployment's namespace, and of Contour in the cluster. The ClusterRoles are
//! installed with Slipway (`config/rbac`). The operator may bind only these ClusterRoles, so it creates only bindings.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding, RoleRef, Subject};

use crate::plan::object::{Kind, Object, Owner};
use crate::plan::observed::Instance;
use crate::plan::write::{Desired, Fields};

/// The permissions of the operator in a namespace with a ContourDeployment, except for Secrets.
pub const OPERAND: &str = "slipway-operand";

/// The permissions to read and write the Secrets of such a namespace. They have a separate binding, so that an audit of access to Secrets
/// finds it.
pub const SECRETS: &str = "slipway-secrets";

/// The permissions of Contour in the whole cluster: the objects that Contour reads and the statuses that it writes
/// (`examples/contour/02-role-contour.yaml`, v1.33.8).
pub const CONTOUR: &str = "slipway-contour";

/// The permissions of Contour in its own namespace: its Lease and events.
pub const CONTOUR_LOCAL: &str = "slipway-contour-local";

/// Returns the operator's own bindings in the ContourDeployment's namespace.
pub fn operator(instance: &Instance<'_>) -> Vec<Desired> {
    let owner = &instance.owner;
    let subject = service_account(&instance.operator.namespace, &instance.operator.name);
    [OPERAND, SECRETS]
        .into_iter()
        .map(|cluster_role| {
            let binding = RoleBinding {
                metadata: owner.metadata(
                    Kind::RoleBinding,
                    &owner.namespace,
                    &owner.operator_binding(cluster_role),
                ),
                role_ref: role_ref(cluster_role),
                subjects: Some(vec![subject.clone()]),
            };
            Desired::shared(Object::of(&binding))
        })
        .collect()
}

/// Reports whether this is the name of one of the operator's own bindings.
pub fn is_operators(owner: &Owner, name: &str) -> bool {
    [OPERAND, SECRETS]
        .into_iter()
        .any(|cluster_role| owner.operator_binding(cluster_role) == name)
}

/// Returns the ServiceAccounts of Contour and Envoy, Contour's bindings, and Contour's Lease.
pub fn contour(instance: &Instance<'_>) -> Vec<Desired> {
    let owner = &instance.owner;
    let metadata = |kind, name: &str| owner.metadata(kind, &owner.namespace, name);
    let contour = ServiceAccount {
        metadata: metadata(Kind::ServiceAccount, &owner.contour()),
        ..ServiceAccount::default()
    };
    // Envoy never connects to the API server.
    let envoy = ServiceAccount {
        metadata: metadata(Kind::ServiceAccount, &owner.envoy()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    };
    let subject = service_account(&owner.namespace, &owner.contour());
    let cluster_wide = ClusterRoleBinding {
        metadata: metadata(Kind::ClusterRoleBinding, &owner.contour_cluster_binding()),
        role_ref: role_ref(CONTOUR),
        subjects: Some(vec![subject.clone()]),
    };
    let local = RoleBinding {
        metadata: metadata(Kind::RoleBinding, &owner.contour()),
        role_ref: role_ref(CONTOUR_LOCAL),
        subjects: Some(vec![subject]),
    };
    // Without this object, Contour would create the Lease itself, and no controller would ever delete it. Contour acquires a Lease without
    // a holder and keeps its metadata (client-go, `LeaseLock.Update`).
    let lease = Lease {
        metadata: metadata(Kind::Lease, &owner.contour()),
        spec: Some(LeaseSpec::default()),
    };
    vec![
        Desired::shared(Object::of(&contour)),
        Desired::shared(Object::of(&envoy)),
        Desired::shared(Object::of(&cluster_wide)),
        Desired::shared(Object::of(&local)),
        Desired {
            object: Object::of(&lease),
            fields: Fields::MetadataOnly,
        },
    ]
}

fn role_ref(cluster_role: &str) -> RoleRef {
    RoleRef {
        api_group: Kind::RoleBinding.group().to_owned(),
        kind: "ClusterRole".to_owned(),
        name: cluster_role.to_owned(),
    }
}

fn service_account(namespace: &str, name: &str) -> Subject {
    Subject {
        kind: Kind::ServiceAccount.name().to_owned(),
        name: name.to_owned(),
        namespace: Some(namespace.to_owned()),
        ..Subject::default()
    }
}
