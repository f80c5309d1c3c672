//! The objects that Slipway creates for an edge, and an edge with all of these objects.

use anyhow::Context as _;
use serde_json::Value;

use crate::edge::Edge;
use crate::lab::{Lab, Thing, specification};

/// The annotation with the hash of the last written object.
pub const APPLIED: &str = "contour.slipway.dev/applied";

/// The finalizer of stand-ins, blackholes and the ContourDeployment.
pub const FINALIZER: &str = "contour.slipway.dev/cleanup";

/// Returns all objects that Slipway creates for an edge with one reference to a service in the namespace `auth`. The names are literals,
/// as users see them.
pub async fn objects_created_for(lab: &Lab, edge: &Edge, auth: &str) -> anyhow::Result<Vec<Thing>> {
    let namespace = edge.namespace();
    let fixed: [(&'static str, String); 14] = [
        ("RoleBinding", "edge-slipway-operand".into()),
        ("RoleBinding", "edge-slipway-secrets".into()),
        ("RoleBinding", "edge-contour".into()),
        ("ClusterRoleBinding", format!("slipway:{namespace}:edge:contour")),
        ("ServiceAccount", "edge-contour".into()),
        ("ServiceAccount", "edge-envoy".into()),
        ("Lease", "edge-contour".into()),
        ("Secret", "edge-xds-ca".into()),
        ("Secret", "edge-contour-cert".into()),
        ("Secret", "edge-envoy-cert".into()),
        ("Service", "edge-contour".into()),
        ("Service", "edge-envoy".into()),
        ("Deployment", "edge-contour".into()),
        ("Deployment", "edge-envoy".into()),
    ];
    let mut things: Vec<_> = fixed
        .iter()
        .map(|(kind, name)| Thing::new(kind, if *kind == "ClusterRoleBinding" { "" } else { namespace }, name))
        .collect();
    let configuration = lab.only("ContourConfiguration", namespace, edge).await?;
    things.push(Thing::new("ContourConfiguration", namespace, name(&configuration)?));
    let stand_in = lab.only("ExtensionService", auth, edge).await?;
    things.push(Thing::new("ExtensionService", auth, name(&stand_in)?));
    things.push(Thing::new("Service", auth, name(&stand_in)?));
    Ok(things)
}

/// Returns the name of an object.
pub fn name(object: &Value) -> anyhow::Result<&str> {
    object["metadata"]["name"].as_str().context("the object has no name")
}

/// Creates an edge and waits until it has settled. Its authorization service in the namespace `auth` may exist or not.
pub async fn settled_edge(lab: &Lab, auth: &str) -> anyhow::Result<Edge> {
    lab.create_namespace(auth).await?;
    let edge = lab.edge(&specification(auth)).await?;
    lab.settled(&edge).await?;
    Ok(edge)
}
