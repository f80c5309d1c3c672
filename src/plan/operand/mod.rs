//! The operand: the objects that a running Contour and its Envoys consist of. One file for each part; here is what the pods
//! of both have in common. Stand-ins, the ContourConfiguration and certificates have files of their own, one level up.

pub mod access;
pub mod contour;
pub mod envoy;
pub mod network;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, EnvVar, EnvVarSource, ObjectFieldSelector, PodAffinityTerm, PodAntiAffinity,
    PodSecurityContext, SeccompProfile, SecretVolumeSource, SecurityContext, Volume, VolumeMount,
    WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::object::Owner;
use super::observed::Instance;
use super::startup_inputs::StartupInputs;
use super::write::Desired;
use crate::api::vocabulary::labels;
use crate::api::{ContourDeploymentSpec, NodePlacement};
use crate::contour::ports::Ports;

/// Contour's image, if the specification names none: the newest patch of the minor version that Slipway is made for.
pub const DEFAULT_CONTOUR_IMAGE: &str = "ghcr.io/projectcontour/contour:v1.33.8";

/// Envoy's image, if the specification names none: the one that Contour's manifests of that version name
/// (`examples/contour/03-envoy.yaml`, v1.33.8).
pub const DEFAULT_ENVOY_IMAGE: &str = "docker.io/envoyproxy/envoy:distroless-v1.38.9";

/// Where the certificates are, in Contour's and in Envoy's pods. Contour's default for its xDS server
/// (`internal/contourconfig/contourconfiguration.go`, v1.33).
const CERTIFICATES: &str = "/certs";

/// What runs on a ContourConfiguration, and how it is reached.
pub struct Operand {
    /// Contour's Service and Envoy's.
    pub services: Vec<Desired>,
    /// Contour's Deployment.
    pub contour: Desired,
    /// Envoy's DaemonSet or Deployment.
    pub envoy: Desired,
}

impl Operand {
    /// On this configuration.
    pub fn of(instance: &Instance<'_>, inputs: &StartupInputs) -> Self {
        let ports = Ports::of(&inputs.settings());
        Self {
            services: network::services(instance, &ports),
            contour: contour::deployment(instance, inputs),
            envoy: envoy::workload(instance, &ports),
        }
    }
}

/// Which part a pod is of: the value of the label `COMPONENT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// The control plane.
    Contour,
    /// The data plane.
    Envoy,
}

impl Component {
    /// The label's value.
    pub fn label(self) -> &'static str {
        match self {
            Self::Contour => "contour",
            Self::Envoy => "envoy",
        }
    }

    /// What Services and workloads select pods by. A workload's selector can't be changed later, so it is no more than what
    /// tells our pods apart.
    fn selector(self, owner: &Owner) -> BTreeMap<String, String> {
        BTreeMap::from([
            (labels::OWNER_NAME.to_owned(), owner.name.clone()),
            (labels::OWNER_NAMESPACE.to_owned(), owner.namespace.clone()),
            (labels::COMPONENT.to_owned(), self.label().to_owned()),
        ])
    }

    /// The selector of a workload.
    fn label_selector(self, owner: &Owner) -> LabelSelector {
        LabelSelector {
            match_labels: Some(self.selector(owner)),
            ..LabelSelector::default()
        }
    }

    /// The labels of its pods. The owner's are among them: pods and ReplicaSets are watched by them.
    fn pod_labels(self, owner: &Owner) -> BTreeMap<String, String> {
        let mut labels = owner.labels();
        labels.extend(self.selector(owner));
        labels
    }

    /// Rather not two on one node.
    fn spread(self, owner: &Owner) -> Affinity {
        let term = PodAffinityTerm {
            label_selector: Some(self.label_selector(owner)),
            topology_key: "kubernetes.io/hostname".to_owned(),
            ..PodAffinityTerm::default()
        };
        let preferred = vec![WeightedPodAffinityTerm {
            weight: 100,
            pod_affinity_term: term,
        }];
        let anti_affinity = PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(preferred),
            ..PodAntiAffinity::default()
        };
        Affinity {
            pod_anti_affinity: Some(anti_affinity),
            ..Affinity::default()
        }
    }
}

/// The nodes that pods may run on: the images are made for Linux, unless the specification says otherwise.
fn node_selector(placement: &NodePlacement) -> BTreeMap<String, String> {
    let mut selector = BTreeMap::from([("kubernetes.io/os".to_owned(), "linux".to_owned())]);
    selector.extend(placement.node_selector.clone());
    selector
}

/// Contour's image; Envoy's pods use it too, for their bootstrap and their shutdown manager.
fn contour_image(spec: &ContourDeploymentSpec) -> String {
    spec.contour
        .image
        .clone()
        .unwrap_or_else(|| DEFAULT_CONTOUR_IMAGE.to_owned())
}

/// The pod's part of the Pod Security Standard "restricted"; the user and group are those of Contour's manifests.
fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(65534),
        run_as_group: Some(65534),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..PodSecurityContext::default()
    }
}

/// Each container's part of the Pod Security Standard "restricted", and a root file system that nobody writes to.
fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            ..Capabilities::default()
        }),
        read_only_root_filesystem: Some(true),
        ..SecurityContext::default()
    }
}

/// An environment variable with one of the pod's own fields.
fn field_env(name: &str, field_path: &str) -> EnvVar {
    let field = ObjectFieldSelector {
        api_version: Some("v1".to_owned()),
        field_path: field_path.to_owned(),
    };
    let source = EnvVarSource {
        field_ref: Some(field),
        ..EnvVarSource::default()
    };
    EnvVar {
        name: name.to_owned(),
        value_from: Some(source),
        ..EnvVar::default()
    }
}

/// The volume with the certificates of this Secret. Both Contour and Envoy read them anew when they change.
fn certificate_volume(secret: String) -> Volume {
    let source = SecretVolumeSource {
        secret_name: Some(secret),
        default_mode: Some(0o644),
        ..SecretVolumeSource::default()
    };
    Volume {
        name: "certificates".to_owned(),
        secret: Some(source),
        ..Volume::default()
    }
}

/// Where the certificates are mounted.
fn certificate_mount() -> VolumeMount {
    VolumeMount {
        name: "certificates".to_owned(),
        mount_path: CERTIFICATES.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

#[cfg(test)]
pub mod tests;
