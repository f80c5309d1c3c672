//! The blackhole: the target of a stand-in while no ExtensionService is usable. The blackhole is a headless Service without a selector, and
//! so without endpoints.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};

use super::{Facts, spec_of};
use crate::plan::object::Object;
use crate::plan::write::{Desired, Fields};

/// The only port of the blackhole, which is the number of "discard" in RFC 863. No endpoint ever listens on the port.
const BLACKHOLE_PORT: i32 = 9;

/// Returns the spec of a stand-in that points at the blackhole, with the pinned response timeout.
pub fn spec(name: &str, pinned: &Facts) -> Map<String, Value> {
    let mut spec = json!({"protocol": "h2c", "services": [{"name": name, "port": BLACKHOLE_PORT}]});
    if let Some(response) = &pinned.response {
        spec["timeoutPolicy"] = json!({"response": response});
    }
    match spec {
        Value::Object(spec) => spec,
        _ => unreachable!("an object literal"),
    }
}

/// Reports whether a stand-in points at the blackhole.
pub fn is_blackhole(stand_in: &Object) -> bool {
    spec_of(stand_in)
        .services()
        .iter()
        .all(|service| service.name == stand_in.name())
}

/// Returns the desired Service.
pub fn service(metadata: ObjectMeta) -> Desired {
    let service = Service {
        metadata,
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            type_: Some("ClusterIP".to_owned()),
            ports: Some(vec![ServicePort {
                name: Some("discard".to_owned()),
                port: BLACKHOLE_PORT,
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    };
    Desired {
        object: Object::of(&service),
        fields: Fields::BLACKHOLE,
    }
}
