//! The operand: the objects of a running Contour and its Envoys. Each part has its own file, and this file contains what the pods of both
//! have in common. Stand-ins, the ContourConfiguration and certificates have their own files, one level up.

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
use crate::contour::version::Version;

/// The directory of the certificates in the pods of Contour and Envoy. The path is Contour's default for its xDS server
/// (`internal/contourconfig/contourconfiguration.go`, v1.33).
const CERTIFICATES: &str = "/certs";

/// The workloads that run with a ContourConfiguration, and their Services.
pub struct Operand {
    /// The Service of Contour's xDS server.
    pub contour_service: Desired,
    /// The Service in front of the Envoys.
    pub envoy_service: Desired,
    /// Contour's Deployment.
    pub contour: Desired,
    /// Envoy's DaemonSet or Deployment.
    pub envoy: Desired,
    /// One message for each violation of the user's overlays. A violated overlay is left out of the objects.
    pub problems: Vec<String>,
}

impl Operand {
    /// Returns the operand for these startup inputs.
    pub fn of(instance: &Instance<'_>, inputs: &StartupInputs) -> Self {
        let ports = Ports::of(instance.version(), &inputs.settings());
        let contour = contour::deployment(instance, inputs);
        let envoy = envoy::workload(instance, &ports);
        let service = network::envoy(instance, &ports);
        Self {
            contour_service: network::contour(instance),
            envoy_service: service.object,
            contour: contour.object,
            envoy: envoy.object,
            problems: [contour.problems, envoy.problems, service.problems].concat(),
        }
    }
}

/// The component of a pod: the value of the label `COMPONENT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// The control plane.
    Contour,
    /// The data plane.
    Envoy,
}

impl Component {
    /// Returns the value of the label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Contour => "contour",
            Self::Envoy => "envoy",
        }
    }

    /// Returns the labels by which Services and workloads select pods. The selector of a workload is immutable, so the selector contains
    /// only the labels that distinguish Slipway's pods.
    fn selector(self, owner: &Owner) -> BTreeMap<String, String> {
        BTreeMap::from([
            (labels::OWNER_NAME.to_owned(), owner.name.clone()),
            (labels::OWNER_NAMESPACE.to_owned(), owner.namespace.clone()),
            (labels::COMPONENT.to_owned(), self.label().to_owned()),
        ])
    }

    /// Returns the selector of a workload.
    fn label_selector(self, owner: &Owner) -> LabelSelector {
        LabelSelector {
            match_labels: Some(self.selector(owner)),
            ..LabelSelector::default()
        }
    }

    /// Returns the labels of the component's pods. They include the owner's labels, by which Slipway watches pods and ReplicaSets.
    fn pod_labels(self, owner: &Owner) -> BTreeMap<String, String> {
        let mut labels = owner.labels();
        labels.extend(self.selector(owner));
        labels
    }

    /// Returns the affinity that prefers different nodes for the pods of the component.
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

/// Returns the node selector of pods. The images require Linux, unless the spec selects another operating system.
fn node_selector(placement: &NodePlacement) -> BTreeMap<String, String> {
    let mut selector = BTreeMap::from([("kubernetes.io/os".to_owned(), "linux".to_owned())]);
    selector.extend(placement.node_selector.clone());
    selector
}

/// Returns Contour's image. Envoy's pods also use the image, for their bootstrap and their shutdown manager.
fn contour_image(spec: &ContourDeploymentSpec) -> String {
    let default = || Version::DEFAULT.facts().contour_image.to_owned();
    spec.contour.image.clone().unwrap_or_else(default)
}

/// Returns Envoy's image. The default is the image for the version of Contour whose rules apply.
fn envoy_image(instance: &Instance<'_>) -> String {
    let default = || instance.version().facts().envoy_image.to_owned();
    instance.spec.envoy.image.clone().unwrap_or_else(default)
}

/// Returns the pod's part of the Pod Security Standard "restricted". The user and the group are those of Contour's manifests.
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

/// Returns each container's part of the Pod Security Standard "restricted", with a read-only root file system.
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

/// Returns an environment variable with the value of one of the pod's own fields.
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

/// Returns the volume with the certificates of this Secret. Contour and Envoy reload the files after a change.
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

/// Returns the mount of the certificates.
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
