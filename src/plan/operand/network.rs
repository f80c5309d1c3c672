//! The Services: one by which the Envoys find Contour, and one by which clients find the Envoys.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Component;
use crate::api::{ExternalTrafficPolicy, IpFamilyPolicy, NetworkPublishingType};
use crate::contour::ports::{Ports, XDS};
use crate::plan::object::{Kind, Object};
use crate::plan::observed::Instance;
use crate::plan::overlay::{self, Overlaid};
use crate::plan::write::Desired;

/// Returns the Service of Contour's xDS server. The bootstrap configuration of the Envoys contains its name.
pub fn contour(instance: &Instance<'_>) -> Desired {
    let owner = &instance.owner;
    let service = Service {
        metadata: owner.metadata(Kind::Service, &owner.namespace, &owner.contour()),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(Component::Contour.selector(owner)),
            ports: Some(vec![port("xds", XDS, XDS)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    Desired::shared(Object::of(&service))
}

/// Returns the Service of the Envoys.
pub fn envoy(instance: &Instance<'_>, ports: &Ports) -> Overlaid<Desired> {
    let owner = &instance.owner;
    let publishing = &instance.spec.envoy.network_publishing;
    let type_ = publishing.type_.unwrap_or_default();
    let mut metadata = owner.metadata(Kind::Service, &owner.namespace, &owner.envoy());
    if !publishing.service_annotations.is_empty() {
        metadata.annotations = Some(publishing.service_annotations.clone());
    }
    // The API server rejects the policy on a Service without external access.
    let external_traffic_policy = match type_ {
        NetworkPublishingType::ClusterIpService => None,
        NetworkPublishingType::LoadBalancerService | NetworkPublishingType::NodePortService => {
            Some(match publishing.external_traffic_policy.unwrap_or_default() {
                ExternalTrafficPolicy::Local => "Local".to_owned(),
                ExternalTrafficPolicy::Cluster => "Cluster".to_owned(),
            })
        }
    };
    let service = Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(service_type(type_).to_owned()),
            external_traffic_policy,
            // The policy is always set. If the policy were left out, an earlier value would stay.
            ip_family_policy: Some(ip_family_policy(publishing.ip_family_policy.unwrap_or_default()).to_owned()),
            selector: Some(Component::Envoy.selector(owner)),
            ports: Some(vec![
                port("http", 80, ports.envoy_http),
                port("https", 443, ports.envoy_https),
            ]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    let Overlaid { object, problems } = overlay::service(service, publishing.service.as_ref());
    Overlaid {
        object: Desired::shared(Object::of(&object)),
        problems,
    }
}

fn service_type(type_: NetworkPublishingType) -> &'static str {
    match type_ {
        NetworkPublishingType::LoadBalancerService => "LoadBalancer",
        NetworkPublishingType::NodePortService => "NodePort",
        NetworkPublishingType::ClusterIpService => "ClusterIP",
    }
}

fn ip_family_policy(policy: IpFamilyPolicy) -> &'static str {
    match policy {
        IpFamilyPolicy::SingleStack => "SingleStack",
        IpFamilyPolicy::PreferDualStack => "PreferDualStack",
        IpFamilyPolicy::RequireDualStack => "RequireDualStack",
    }
}

fn port(name: &str, port: i32, target: i32) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port,
        target_port: Some(IntOrString::Int(target)),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }
}
