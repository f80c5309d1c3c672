//! Contour's Deployment.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{Container, ContainerPort, PodSpec, PodTemplateSpec, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{
    Component, certificate_mount, certificate_volume, container_security, contour_image, field_env, node_selector,
    pod_security,
};
use crate::api::vocabulary::{annotations, labels};
use crate::api::{ContourLogFormat, ContourLogLevel, ContourSpec, KubernetesClient, LeaderElection};
use crate::contour::ports::{Ports, XDS};
use crate::plan::names::hash_json;
use crate::plan::object::{Kind, Object};
use crate::plan::observed::Instance;
use crate::plan::overlay::{self, Overlaid};
use crate::plan::startup_inputs::StartupInputs;
use crate::plan::write::{Desired, Fields};

/// The default number of Contour's pods.
const REPLICAS: i32 = 2;

/// Returns Contour's Deployment. The pod template contains the startup inputs, so a change of the startup inputs leads to a rollout, and no
/// other change does.
pub fn deployment(instance: &Instance<'_>, inputs: &StartupInputs) -> Overlaid<Desired> {
    let owner = &instance.owner;
    let Overlaid {
        object: mut template,
        problems,
    } = template(instance, inputs);
    let hash = hash_json(&template);
    let labels = template.metadata.as_mut().and_then(|metadata| metadata.labels.as_mut());
    labels
        .expect("a template has labels")
        .insert(labels::TEMPLATE.to_owned(), hash);
    let settings = &instance.spec.contour.deployment;
    let deployment = Deployment {
        metadata: owner.metadata(Kind::Deployment, &owner.namespace, &owner.contour()),
        spec: Some(DeploymentSpec {
            replicas: Some(settings.replicas.unwrap_or(REPLICAS)),
            selector: Component::Contour.label_selector(owner),
            // As in Contour's manifests: the new ReplicaSet is scaled up before the old one is scaled down.
            strategy: Some(settings.strategy.clone().unwrap_or_else(|| DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::String("50%".to_owned())),
                    max_unavailable: Some(IntOrString::String("25%".to_owned())),
                }),
            })),
            min_ready_seconds: settings.min_ready_seconds.filter(|seconds| *seconds > 0),
            template,
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    };
    let object = Desired {
        object: Object::of(&deployment),
        fields: replica_fields(settings.replicas),
    };
    Overlaid { object, problems }
}

/// Returns the hash in the label `TEMPLATE`. Pods with another hash run another template.
pub fn template_hash(instance: &Instance<'_>, inputs: &StartupInputs) -> String {
    hash_json(&template(instance, inputs).object)
}

/// Returns the pod template without the label of its hash.
fn template(instance: &Instance<'_>, inputs: &StartupInputs) -> Overlaid<PodTemplateSpec> {
    let owner = &instance.owner;
    let spec = &instance.spec.contour;
    let ports = &Ports::of(instance.version(), &inputs.settings());
    let inputs_json = serde_json::to_string(inputs).expect("startup inputs are JSON");
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(Component::Contour.pod_labels(owner)),
            annotations: Some(BTreeMap::from([(annotations::STARTUP_INPUTS.to_owned(), inputs_json)])),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            affinity: Some(Component::Contour.spread(owner)),
            containers: vec![container(instance, ports, inputs)],
            node_selector: Some(node_selector(&spec.node_placement)),
            security_context: Some(pod_security()),
            service_account_name: Some(owner.contour()),
            tolerations: Some(spec.node_placement.tolerations.clone()).filter(|tolerations| !tolerations.is_empty()),
            volumes: Some(vec![certificate_volume(owner.contour_secret())]),
            ..PodSpec::default()
        }),
    };
    overlay::contour(template, spec.pod_template.as_ref())
}

/// Returns the ownership of a Deployment's `replicas`. Slipway owns the field if the spec sets the number. Otherwise Slipway sets the field
/// only at creation, and an autoscaler may own it.
pub fn replica_fields(replicas: Option<i32>) -> Fields {
    Fields::Shared {
        initial: if replicas.is_some() { &[] } else { &["/spec/replicas"] },
    }
}

fn container(instance: &Instance<'_>, ports: &Ports, inputs: &StartupInputs) -> Container {
    let spec = &instance.spec;
    Container {
        name: "contour".to_owned(),
        image: Some(contour_image(spec)),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(vec!["contour".to_owned()]),
        args: Some(arguments(&spec.contour, &instance.owner.contour(), inputs)),
        // Contour reads its ContourConfiguration and holds its Lease in the namespace that CONTOUR_NAMESPACE names.
        env: Some(vec![
            field_env("CONTOUR_NAMESPACE", "metadata.namespace"),
            field_env("POD_NAME", "metadata.name"),
        ]),
        ports: Some(container_ports(ports)),
        // Contour opens its health port when its caches are synced, and the xDS port when the first configuration is built
        // (controller-runtime's start order; `cmd/contour/serve.go`, v1.33). In a large cluster that may take minutes, in which the
        // container must not be killed.
        startup_probe: Some(Probe {
            period_seconds: Some(1),
            failure_threshold: Some(600),
            ..connects_to(ports.contour_health)
        }),
        // The probe does not use `/healthz`, unlike upstream's manifests. `/healthz` calls the API server (`internal/health/health.go`,
        // v1.33). With that probe, an outage of the API server would kill every Contour, no Contour could start, and new Envoys would get
        // no configuration.
        liveness_probe: Some(Probe {
            period_seconds: Some(10),
            failure_threshold: Some(3),
            ..connects_to(ports.contour_health)
        }),
        readiness_probe: Some(Probe {
            period_seconds: Some(2),
            failure_threshold: Some(3),
            ..connects_to(XDS)
        }),
        resources: spec.contour.resources.clone(),
        security_context: Some(container_security()),
        volume_mounts: Some(vec![certificate_mount()]),
        ..Container::default()
    }
}

/// Returns the flags that have an effect beside a ContourConfiguration. Contour ignores the other flags in that case (facts:
/// `cmd/contour/serve.go`, `getConfig`, v1.33). `CONTOUR_NAMESPACE` is the default namespace of the Lease.
fn arguments(spec: &ContourSpec, lease: &str, inputs: &StartupInputs) -> Vec<String> {
    let mut arguments = vec![
        "serve".to_owned(),
        "--incluster".to_owned(),
        format!("--contour-config-name={}", inputs.configuration),
        format!("--leader-election-resource-name={lease}"),
    ];
    if let Some(level) = spec.kubernetes_log_level.filter(|level| *level > 0) {
        arguments.push(format!("--kubernetes-debug={level}"));
    }
    if spec.log_level.unwrap_or_default() == ContourLogLevel::Debug {
        arguments.push("--debug".to_owned());
    }
    if spec.log_format.unwrap_or_default() == ContourLogFormat::Json {
        arguments.push("--log-format=json".to_owned());
    }
    let KubernetesClient { qps, burst } = &spec.kubernetes_client;
    let LeaderElection {
        lease_duration,
        renew_deadline,
        retry_period,
    } = &spec.leader_election;
    let optional = [
        ("--kubernetes-client-qps", qps.map(|qps| qps.to_string())),
        ("--kubernetes-client-burst", burst.map(|burst| burst.to_string())),
        ("--leader-election-lease-duration", lease_duration.clone()),
        ("--leader-election-renew-deadline", renew_deadline.clone()),
        ("--leader-election-retry-period", retry_period.clone()),
    ];
    let given = optional
        .into_iter()
        .filter_map(|(flag, value)| Some(format!("{flag}={}", value?)));
    arguments.extend(given);
    arguments
}

/// Returns the ports that are reachable from outside the pod. The debug port is on the loopback interface by default and is not listed.
fn container_ports(ports: &Ports) -> Vec<ContainerPort> {
    let port = |name: &str, number| ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let mut container_ports = vec![port("xds", XDS), port("metrics", ports.contour_metrics)];
    if ports.contour_health != ports.contour_metrics {
        container_ports.push(port("health", ports.contour_health));
    }
    container_ports
}

fn connects_to(port: i32) -> Probe {
    let socket = TCPSocketAction {
        port: IntOrString::Int(port),
        ..TCPSocketAction::default()
    };
    Probe {
        tcp_socket: Some(socket),
        timeout_seconds: Some(1),
        ..Probe::default()
    }
}
